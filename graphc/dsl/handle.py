"""Handles: the expressions that users hold, before they are interned into a graph.

A handle knows the place in the user's program that made it (code object and instruction); file, line, text and the name
that its value was given are looked up only when somebody asks.
"""

from __future__ import annotations

import dis
import linecache
import os
import sys
import threading
from collections.abc import Callable, Mapping
from functools import lru_cache, wraps
from types import CodeType
from typing import ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray

from graphc.errors import GraphcError
from graphc.graph.dtypes import DType
from graphc.graph.formula import Formula, Shape
from graphc.graph.graph import ConstValue, Origin, Site
from graphc.structs import dataclass

Array = NDArray[np.generic]
Initialiser = Callable[[tuple[int, ...], np.random.Generator], Array]

PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
STORES = ("STORE_NAME", "STORE_FAST", "STORE_GLOBAL", "STORE_DEREF", "STORE_FAST_LOAD_FAST", "STORE_FAST_MAYBE_NULL")


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """A layer without a name; its parameters are named in graph order: ``dense_1.w``."""

    kind: str


@dataclass(frozen=True, slots=True, eq=False)
class Leaf:
    """What a declared input, parameter, state or hyper-parameter holds besides its type.

    name: None until the graph is built; then ``layer`` and ``suffix`` decide. init: of a parameter or state.
    default: of a hyper-parameter.
    """

    name: str | None
    init: Initialiser | None = None
    default: float | None = None
    layer: Layer | None = None
    suffix: str = ""


P = ParamSpec("P")
H = TypeVar("H", bound="Handle")
_calls = threading.local()

HandleAttr = Formula | ConstValue | Leaf | int | None


class Handle:
    """An expression: what it computes, from which operands, of which type, and where it was written.

    kind: a graph node's kind, or ``updates`` (operand 0, carrying new values: state, value, state, value, …).
    over: of a derivative, the leaves of what was differentiated, which may be given though nothing reads them.
    """

    __slots__ = (
        "kind", "operands", "attr", "dtype", "shape", "op", "label", "code", "instruction", "origins", "inner",
        "finished", "over",
    )  # fmt: skip

    def __init__(
        self,
        kind: str,
        operands: tuple[Handle, ...],
        attr: HandleAttr,
        dtype: DType,
        shape: Shape,
        op: str = "",
        code: CodeType | None = None,
        instruction: int = -1,
        label: str = "",
        origins: tuple[Origin, ...] = (),
    ) -> None:
        self.kind = kind
        self.operands = operands
        self.attr = attr
        self.dtype = dtype
        self.shape = shape
        self.op = op
        self.code = code
        self.instruction = instruction
        self.label = label
        self.origins = origins
        self.inner = False  # whether the instruction that made this made another of it: then that one has the name
        self.over: tuple[Handle, ...] = ()
        self.finished = False  # whether a layer returned this: what reads it belongs to another call, as in a loop
        for operand in operands:
            if self.made_with(operand):
                operand.inner = True

    def made_with(self, operand: Handle) -> bool:
        """Whether the call that made this made an operand of it too."""
        same = self.code is not None and operand.code is self.code and operand.instruction == self.instruction
        return same and not operand.finished

    @property
    def leaf(self) -> Leaf:
        """What a declared leaf holds. Raises AttributeError for another kind of handle."""
        if not isinstance(self.attr, Leaf):
            raise AttributeError(f"a {self.kind} is no declared leaf")
        return self.attr

    @property
    def site(self) -> Site | None:
        """The place in the user's source that made this."""
        return None if self.code is None else site_of(self.code, self.instruction)

    @property
    def name(self) -> str:
        """The user's name for the value: declared, given by ``named``, or of the variable it was stored to; else
        empty.
        """
        if self.label:
            return self.label
        if isinstance(self.attr, Leaf) and self.attr.name:
            return self.attr.name
        for origin in self.origins:
            if origin.name or origin.note:
                return origin.name or origin.note
        return "" if self.code is None or self.inner else stored_name(self.code, self.instruction)


@dataclass(frozen=True, slots=True)
class NameTable:
    """Of a code object: the name that each instruction's value is stored to next, and the line of each code unit."""

    after: Mapping[int, str]
    lines: tuple[int, ...]


@lru_cache(maxsize=4096)
def _table(code: CodeType) -> NameTable:
    after: dict[int, str] = {}
    previous = range(0)
    for instruction in dis.get_instructions(code):
        if instruction.opname in ("COPY", "EXTENDED_ARG", "NOT_TAKEN"):
            continue
        if previous:
            # A frame stands at the instruction or, after a call was specialised, at one of its inline caches.
            previous = range(previous.start, instruction.offset, 2)
        if instruction.opname in STORES:
            name = instruction.argval[0] if isinstance(instruction.argval, tuple) else instruction.argval
            after.update((offset, str(name)) for offset in previous)
        previous = range(instruction.offset, instruction.offset + 2, 2)
    return NameTable(after, tuple(line or 0 for line, *_ in code.co_positions()))


def stored_name(code: CodeType, instruction: int) -> str:
    """The name that the value made by an instruction is stored to next; empty where it is not."""
    return _table(code).after.get(instruction, "")


@lru_cache(maxsize=65536)
def site_of(code: CodeType, instruction: int) -> Site:
    """File, line and text of an instruction."""
    lines = _table(code).lines
    number = lines[instruction // 2] if 0 <= instruction // 2 < len(lines) else code.co_firstlineno
    return Site(code.co_filename, number, linecache.getline(code.co_filename, number).strip())


def whole_call(function: Callable[P, H]) -> Callable[P, H]:
    """A function of users whose result is finished: in a loop, the next call that reads it is another one, though it
    stands in the same place.
    """

    @wraps(function)
    def called(*args: P.args, **kwargs: P.kwargs) -> H:
        _calls.depth = getattr(_calls, "depth", 0) + 1
        try:
            result = function(*args, **kwargs)
        finally:
            _calls.depth -= 1
        if not _calls.depth:  # a layer within a layer is a part of it
            result.finished = True
        return result

    return called


def caller() -> tuple[CodeType | None, int]:
    """The user's code object and instruction: of the innermost frame outside this package."""
    frame = sys._getframe(1)
    while frame.f_code.co_filename.startswith(PACKAGE):
        if frame.f_back is None:
            return None, -1
        frame = frame.f_back
    return frame.f_code, frame.f_lasti


def located(error: GraphcError) -> GraphcError:
    """The error with the user's own line as its last; itself where it names one already."""
    message = str(error)
    code, instruction = caller()
    if code is None or "\n  " in message:
        return error
    return type(error)(f"{message}\n  {site_of(code, instruction)}")
