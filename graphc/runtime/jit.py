"""LLVM text to machine code, and machine code into this process.

llvmlite is imported when first needed.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Sequence
from ctypes import c_char_p, string_at
from functools import lru_cache
from itertools import count

from graphc.errors import InternalError
from graphc.llvm import target as targets
from graphc.llvm.parts import cut
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


def compile_objects(
    texts: Sequence[str], target: Target, passes: Sequence[str] = (), n_parts: int | None = None
) -> tuple[bytes, ...]:
    """Object files made of one or more LLVM modules that refer to each other. The first is cut into parts, and each is
    compiled in a thread of its own.

    passes: names of LLVM's function passes, such as ``LIGHT_PASSES``; none by default, since the emitted code is as it
    should be already. n_parts: how many there are at most; by default as many as this process has CPUs, if the text is
    long enough.

    Raises: InternalError with LLVM's own message where a text does not parse or verify.

    >>> len(compile_objects(["define void @f() nounwind { ret void }"], targets.host()))
    1
    """
    if n_parts is None:
        n_parts = min(_n_cpus(), 1 + len(texts[0]) // _PART)
    first, *others = cut(texts[0], n_parts, sum(map(len, texts[1:])))
    groups = [[first, *texts[1:]], *([other] for other in others)]
    found: list[bytes | Exception] = [b""] * len(groups)

    def work(k: int) -> None:
        try:
            found[k] = _compiled(groups[k], target, passes)
        except Exception as error:  # raised again below, in the caller's thread
            found[k] = error

    threads = [threading.Thread(target=work, args=(k,)) for k in range(1, len(groups))]
    for thread in threads:
        thread.start()
    work(0)
    for thread in threads:
        thread.join()
    for one in found:
        if isinstance(one, Exception):
            raise one
    return tuple(one for one in found if isinstance(one, bytes))


_PART = 100_000  # characters, some 60 ms: a shorter part gains less than starting it and linking it takes


def _n_cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _compiled(texts: Sequence[str], target: Target, passes: Sequence[str]) -> bytes:
    """The object of some modules."""
    import llvmlite.binding as llvm

    machine = targets.machine(target)
    module = _linked(texts, target, machine)
    if passes:
        builder = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(speed_level=2))
        manager = llvm.create_new_function_pass_manager()
        for name in passes:
            getattr(manager, f"add_{name}_pass")()
        for function in module.functions:
            if not function.is_declaration:
                manager.run(function, builder)
    return _emit(machine, module)


def _unlocked(name: str) -> Callable[..., object]:
    """A function of llvmlite's library without llvmlite's lock, under which one thread at a time would compile.

    LLVM asks only that no two threads share a context, and these share none. With a llvmlite that has no such function
    under its own, the locked one: one after the other, then.
    """
    from llvmlite.binding import ffi

    locked: Callable[..., object] = getattr(ffi.lib, name)
    return getattr(locked, "_cfn", locked)


def _emit(machine: targets.TargetMachine, module: object) -> bytes:
    """``machine.emit_object(module)``, in several threads at once."""
    from llvmlite.binding import ffi

    with ffi.OutputString() as message:
        buffer = _unlocked("LLVMPY_TargetMachineEmitToMemory")(machine, module, 1, message)
        if not buffer:
            raise InternalError(f"LLVM makes no code of the program: {message}")
    try:
        return string_at(ffi.lib.LLVMPY_GetBufferStart(buffer), ffi.lib.LLVMPY_GetBufferSize(buffer))
    finally:
        ffi.lib.LLVMPY_DisposeMemoryBuffer(buffer)


def assembly(texts: Sequence[str], target: Target) -> str:
    """The assembly of what ``compile_objects`` makes, to read."""
    machine = targets.machine(target)
    return str(machine.emit_assembly(_linked(texts, target, machine)))


def load(objects: Sequence[bytes], symbols: Sequence[str], target: Target) -> Native:
    """The objects' symbols in this process; libc's functions are found where an object calls them.

    The variables ``GRAPHC_PERF`` and ``GRAPHC_GDB`` give its functions' names to those tools (``runtime/named.py``).

    Raises: InternalError where the objects do not link; FileAccessError where perf's file cannot be written.
    """
    how = _load_for_gdb if named.wants(named.GDB) else _load
    noted = named.wants(named.PERF)
    try:
        found = how(objects, [*symbols, *named.anchors(objects)] if noted else symbols, target)
    except RuntimeError as error:
        raise InternalError(f"the compiled program does not link: {error}") from error
    if noted:
        named.note_for_perf(objects, found.addresses)
    return found


def _load(objects: Sequence[bytes], symbols: Sequence[str], target: Target) -> Native:
    import llvmlite.binding as llvm

    number = next(_numbers)
    linker = _linker(target, number // 64)
    builder = llvm.JITLibraryBuilder().add_current_process()
    for code in objects:
        builder.add_object_img(code)
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


def _load_for_gdb(objects: Sequence[bytes], symbols: Sequence[str], target: Target) -> Native:
    """By MCJIT, which tells gdb what it loads."""
    import llvmlite.binding as llvm

    empty = llvm.parse_assembly("")
    empty.triple = target.triple
    engine = llvm.create_mcjit_compiler(empty, targets.machine(target))
    for code in objects:
        engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    return Native({symbol: int(engine.get_function_address(symbol)) for symbol in symbols}, (engine,))


def _linked(texts: Sequence[str], target: Target, machine: targets.TargetMachine):  # type: ignore[no-untyped-def]  # llvmlite has no types
    """One module of several, in a context of its own."""
    import llvmlite.binding as llvm

    context = llvm.create_context()
    try:
        module, *others = [_parsed(text, context) for text in texts]
        module.triple = target.triple
        module.data_layout = str(machine.target_data)
        for other in others:
            other.data_layout = module.data_layout
            module.link_in(other)
        module.verify()
    except RuntimeError as error:
        raise InternalError(f"LLVM refuses the program: {error}") from error
    return module


def _parsed(text: str, context: object):  # type: ignore[no-untyped-def]  # llvmlite has no types
    """``llvm.parse_assembly(text, context)``, in several threads at once."""
    from llvmlite.binding import ffi
    from llvmlite.binding.module import ModuleRef

    with ffi.OutputString() as message:
        module = ModuleRef(_unlocked("LLVMPY_ParseAssembly")(context, c_char_p(text.encode()), message), context)
        if message:
            module.close()
            raise RuntimeError(str(message))
    return module
