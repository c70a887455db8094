"""LLVM text to machine code, and machine code into this process.

llvmlite is imported when first needed.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import lru_cache
from itertools import count

from graphc.errors import InternalError
from graphc.llvm import target as targets
from graphc.llvm.target import Target
from graphc.runtime import named
from graphc.structs import dataclass

LIGHT_PASSES = (
    "sroa", "simplify_cfg", "instruction_combine", "new_gvn", "dead_code_elimination", "simplify_cfg"
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Native:
    """Machine code in this process: the address of each symbol. It lives as long as this object does."""

    addresses: dict[str, int]
    keep: tuple[object, ...]


def compiler_version() -> str:
    """The versions of llvmlite and LLVM, a part of every cache key."""
    import llvmlite
    import llvmlite.binding as llvm

    return f"llvmlite {llvmlite.__version__} LLVM {'.'.join(map(str, llvm.llvm_version_info))}"


def compile_object(texts: Sequence[str], target: Target, passes: Sequence[str] = ()) -> bytes:
    """The object file made of one or more LLVM modules, linked into one.

    passes: names of LLVM's function passes, such as ``LIGHT_PASSES``; none by default, since the emitted code is as it
    should be already.

    Raises: InternalError with LLVM's own message where a text does not parse or verify.

    >>> len(compile_object(["define void @f() nounwind { ret void }"], targets.host())) > 0
    True
    """
    import llvmlite.binding as llvm

    machine = targets.machine(target)
    module = _parse(texts[0], target, machine)
    for text in texts[1:]:
        module.link_in(_parse(text, target, machine))
    if passes:
        builder = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(speed_level=2))
        manager = llvm.create_new_function_pass_manager()
        for name in passes:
            getattr(manager, f"add_{name}_pass")()
        for function in module.functions:
            if not function.is_declaration:
                manager.run(function, builder)
    return bytes(machine.emit_object(module))


def assembly(texts: Sequence[str], target: Target) -> str:
    """The assembly of what ``compile_object`` makes, to read."""
    machine = targets.machine(target)
    module = _parse(texts[0], target, machine)
    for text in texts[1:]:
        module.link_in(_parse(text, target, machine))
    return str(machine.emit_assembly(module))


def load(object_code: bytes, symbols: Sequence[str], target: Target) -> Native:
    """The object's symbols in this process; libc's functions are found where the object calls them.

    The variables ``GRAPHC_PERF`` and ``GRAPHC_GDB`` give its functions' names to those tools (``runtime/named.py``).

    Raises: InternalError where the object does not link; FileAccessError where perf's file cannot be written.
    """
    how = _load_for_gdb if named.wants(named.GDB) else _load
    try:
        found = how(object_code, symbols, target)
    except RuntimeError as error:
        raise InternalError(f"the compiled program does not link: {error}") from error
    if named.wants(named.PERF):
        named.note_for_perf(object_code, found.addresses)
    return found


def _load(object_code: bytes, symbols: Sequence[str], target: Target) -> Native:
    import llvmlite.binding as llvm

    number = next(_numbers)
    linker = _linker(target, number // 64)
    builder = llvm.JITLibraryBuilder().add_object_img(object_code).add_current_process()
    for symbol in symbols:
        builder.export_symbol(symbol)
    library = builder.link(linker, f"graphc {number}")
    addresses = {symbol: int(library[symbol]) for symbol in symbols}
    return Native(addresses, (linker, library))  # let go from the last


_numbers = count()  # a library's name cannot be used again


@lru_cache(maxsize=1)
def _linker(target: Target, number: int):  # type: ignore[no-untyped-def]  # llvmlite has no types
    """The linker of several programs, each a library of its own: it takes a millisecond to make, and keeps 9 KB of each
    library that is let go for as long as it lives itself.
    """
    import llvmlite.binding as llvm

    return llvm.create_lljit_compiler(targets.machine(target), use_jit_link=sys.platform != "win32")


def _load_for_gdb(object_code: bytes, symbols: Sequence[str], target: Target) -> Native:
    """By MCJIT, which tells gdb what it loads."""
    import llvmlite.binding as llvm

    empty = llvm.parse_assembly("")
    empty.triple = target.triple
    engine = llvm.create_mcjit_compiler(empty, targets.machine(target))
    engine.add_object_file(llvm.ObjectFileRef.from_data(object_code))
    engine.finalize_object()
    return Native({symbol: int(engine.get_function_address(symbol)) for symbol in symbols}, (engine,))


def _parse(text: str, target: Target, machine: targets.TargetMachine):  # type: ignore[no-untyped-def]  # llvmlite has no types
    import llvmlite.binding as llvm

    try:
        module = llvm.parse_assembly(text)
        module.triple = target.triple
        module.data_layout = str(machine.target_data)
        module.verify()
    except RuntimeError as error:
        raise InternalError(f"LLVM refuses the program: {error}") from error
    return module
