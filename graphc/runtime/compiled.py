"""A program as machine code, as the disk keeps it."""

from __future__ import annotations

from collections.abc import Sequence

from graphc.kernels.layout import Layout, verify
from graphc.llvm.target import Target
from graphc.runtime import epoch, fastcall_text
from graphc.runtime.jit import compile_objects
from graphc.structs import dataclass


@dataclass(frozen=True, slots=True)
class Compiled:
    """Machine code and its layout, as the cache keeps them."""

    layout: Layout
    objects: tuple[bytes, ...]


def compile_program(text: str, layout: Layout, target: Target, passes: Sequence[str] = ()) -> Compiled:
    """The program of one LLVM module, with the native epoch loop and the fast call added where the layout allows.

    Raises: InternalError where the text or the layout is ill-formed.
    """
    verify(layout)
    texts = [text]
    if epoch.can_fit(layout):
        texts.append(epoch.module_text(layout, fma=target.fma))
    if fastcall_text.fast_inputs(layout):
        texts.append(fastcall_text.module_text(layout, fma=target.fma))
    return Compiled(layout, compile_objects(texts, target, passes))
