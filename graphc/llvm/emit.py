"""A program as one LLVM module: a function a kernel, ``run`` that calls them in order as one member of a team of
threads, and the entry ``step``."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

from graphc.graph.dtypes import DTYPES
from graphc.kernels.form import Buffer, FiniteCheck, IndexCheck, Kernel, Nest, Program, run_time_sizes
from graphc.kernels.layout import FIRST_DIM_WORD, WORD_CHECK, WORD_FAILED, WORD_POSITION, WORD_VALUE
from graphc.kernels.split import cut_of
from graphc.llvm.access import CONTEXT, HEAD, I64, MEMBER, SHIFT, Places
from graphc.llvm.columns import ColumnsWriter
from graphc.llvm.counters import add_counters, begin, count
from graphc.llvm.dots import DotsWriter
from graphc.llvm.nest import NestWriter
from graphc.llvm.rows import RowsWriter
from graphc.llvm.running import RunningWriter
from graphc.llvm.scalars import MEMORY, emit_cast
from graphc.llvm.sizes import Sizes
from graphc.llvm.target import LANES, Target
from graphc.llvm.team import WAIT, add_entry
from graphc.llvm.text import Module, Value, Writer, const, vector
from graphc.llvm.tile import TileWriter, fitted

Lines = Sequence[Places]  # of each kernel
SOURCE = "kernels"  # what debug information calls the listing
TEAM = Value("%team", "ptr")
RUN = "run"
MOST_CALLS = 40  # in one function, which keeps it under 500 lines even where each can fail


class Call(NamedTuple):
    """A call that the program makes: the function, what it is, a comment, and the number of the wait before it.

    kind: "part" of the program, "divided" among the members of a team, "whole" for a kernel and "check" for a check
    that member 0 does alone. wait: 0 for none. counter: the number of its counter, -1 for none. line: of the kernel in
    the listing, 0 for none.
    """

    name: str
    kind: str
    note: str = ""
    wait: int = 0
    counter: int = -1
    line: int = 0


def emit(program: Program, target: Target, counted: bool = False, lines: Lines | None = None) -> str:
    """The text of the module. Its one exported function is ``i32 @step(ptr %ctx)``; see ``kernels/layout.py``.

    counted: with a counter behind each kernel (``llvm/counters.py``). lines: where debug locations are wanted, the line
    of each part of each kernel; the machine code is the same.
    """
    module = Module("graphc", target.triple, target.fma, target.avx512)
    if lines is not None:
        module.trace(SOURCE)
    n_counters = len(program.kernels) if counted else 0
    if counted:
        add_counters(module, n_counters)
    words = _words(program)
    calls: list[Call] = []
    n_waits = 0
    for position, kernel in enumerate(program.kernels):
        name = f"{kernel.name}_{position}"
        kernel = fitted(kernel, target) if isinstance(kernel, Nest) and kernel.schedule.tile_row >= 0 else kernel
        places = lines[position] if lines is not None else {}
        _function(module, name, kernel, program, words, places)
        kind = "check" if not isinstance(kernel, Nest) else "divided" if cut_of(kernel, program.buffers) else "whole"
        wait = program.waits[position]
        n_waits += wait
        note = f"nodes {', '.join(map(str, kernel.nodes))}"
        counter = position if counted else -1
        calls.append(Call(name, kind, note, n_waits if wait else 0, counter, places.get(HEAD, 0)))
    level = 0
    while len(calls) > MOST_CALLS:
        parts = [calls[k : k + MOST_CALLS] for k in range(0, len(calls), MOST_CALLS)]
        calls = [_part(module, f"part{level}_{n}", part, n_counters) for n, part in enumerate(parts)]
        level += 1
    _part(module, RUN, calls, n_counters)
    add_entry(module, RUN)
    return module.text()


def _part(module: Module, name: str, calls: Sequence[Call], n_counters: int) -> Call:
    """A function that makes some calls in order, as one member of a team, and leaves behind the first failure."""
    w = Writer(module)
    first = w.icmp("eq", MEMBER, const(I64, 0))
    status = w.gep(CONTEXT, const(I64, WORD_FAILED), I64)
    checked = True  # what an earlier part ended with may be a check
    if n_counters and name == RUN:
        begin(w, first)
    for call in calls:
        if call.note:
            w.comment(call.note)
        w.location = call.line
        if call.wait:
            together = w.if_(w.icmp("ne", SHIFT, const(I64, 0)))
            w.call(WAIT, "void", [TEAM, SHIFT, const(I64, call.wait)])
            w.end_if(together)
        if checked and call.kind != "check":
            _leave_if_failed(w, w.cast("trunc", w.load(I64, status), "i32"))
        checked = call.kind == "check"
        if call.kind == "part":
            _leave_if_failed(w, w.call(call.name, "i32", [CONTEXT, MEMBER, SHIFT, TEAM]))
        elif call.kind == "divided":
            w.call(call.name, "void", [CONTEXT, MEMBER, SHIFT])
        elif call.kind == "whole":
            alone = w.if_(first)
            w.call(call.name, "void", [CONTEXT, MEMBER, SHIFT])
            w.end_if(alone)
        else:
            alone = w.if_(w.and_(first, w.icmp("eq", w.load(I64, status), const(I64, 0))))
            w.store(w.cast("sext", w.call(call.name, "i32", [CONTEXT]), I64), status)
            w.end_if(alone)
        if call.counter >= 0:
            count(w, first, call.counter, n_counters)
    w.location = 0
    w.ret(w.cast("trunc", w.load(I64, status), "i32") if name == RUN else const("i32", 0))
    module.define(name, "i32", [CONTEXT, MEMBER, SHIFT, TEAM], w, "internal", "noinline")
    return Call(name, "part", line=next((call.line for call in calls if call.line), 0))


def _leave_if_failed(w: Writer, status: Value) -> None:
    """Return what a check found, which all members see once they have waited for it."""
    branch = w.if_(w.icmp("ne", status, const("i32", 0)), expected=False)
    w.ret(status)
    w.end_if(branch)


def _words(program: Program) -> dict[int, int]:
    """The context word of each buffer that is not a constant."""
    first = FIRST_DIM_WORD + len(program.dims)
    named = [k for k, b in enumerate(program.buffers) if b.role != "const"]
    return {k: first + n for n, k in enumerate(named)}


def _function(
    module: Module, name: str, kernel: Kernel, program: Program, words: dict[int, int], places: Places
) -> None:
    w = Writer(module)
    w.location = places.get(HEAD, 0)
    sizes = Sizes(w, CONTEXT, program.dims)
    locate = partial(_pointer, program.buffers, words)
    if isinstance(kernel, Nest):
        for size in run_time_sizes(kernel):
            sizes.prepare(size)
        how = kernel.schedule
        tiled = DotsWriter if how.dots else ColumnsWriter if how.upright else TileWriter
        plain = RunningWriter if how.running >= 0 else RowsWriter if how.rows >= 0 else NestWriter
        writer = tiled if how.tile_row >= 0 else plain
        written = writer(w, kernel, program.buffers, locate, sizes, places)
        written.write()
        w.ret()
        module.define(name, "void", [CONTEXT, MEMBER, SHIFT], w, "internal", written.attributes)
        return
    check = _index_check if isinstance(kernel, IndexCheck) else _finite_check
    check(w, kernel, program.buffers[kernel.buffer], locate(w, kernel.buffer), sizes)  # type: ignore[arg-type]
    module.define(name, "i32", [CONTEXT], w, "internal", "noinline")


def _pointer(buffers: Sequence[Buffer], words: dict[int, int], w: Writer, k: int) -> Value:
    """The address of buffer ``k``, from the context or of the module's own constant."""
    buffer = buffers[k]
    if buffer.value is not None:
        return w.module.bytes(f"const{k}", buffer.value.data)
    return w.load("ptr", w.gep(CONTEXT, const(I64, words[k]), I64))


def _index_check(w: Writer, check: IndexCheck, buffer: Buffer, pointer: Value, sizes: Sizes) -> None:
    kind = MEMORY[buffer.dtype.name]
    bound = sizes.value(check.bound)
    loop = w.loop(const(I64, 0), sizes.value(buffer.size), const(I64, 1))
    value = emit_cast(w, w.load(kind, w.gep(pointer, loop.index, kind)), buffer.dtype, DTYPES["int64"])
    _fail_if(w, w.icmp("uge", value, bound), check.number, loop.index, value)
    w.end_loop(loop)
    w.ret(const("i32", 0))


def _finite_check(w: Writer, check: FiniteCheck, buffer: Buffer, pointer: Value, sizes: Sizes) -> None:
    """Whole vectors first, all without a branch; from the beginning again, one by one, where one of them is bad."""
    kind = MEMORY[buffer.dtype.name]
    n_lanes = LANES[kind]
    size = sizes.value(buffer.size)
    whole = w.and_(size, const(I64, -n_lanes))
    loop = w.loop(const(I64, 0), whole, const(I64, n_lanes), [const(vector("i1", n_lanes), True)])
    values = w.load(vector(kind, n_lanes), w.gep(pointer, loop.index, kind), buffer.dtype.itemsize)
    (good,) = w.end_loop(loop, [w.and_(loop.carried[0], _is_good(w, check, values))])
    loop = w.loop(w.select(w.all(good), whole, const(I64, 0)), size, const(I64, 1))
    value = w.load(kind, w.gep(pointer, loop.index, kind))
    bits = w.cast("bitcast", w.cast("fpext", value, "double"), I64)
    _fail_if(w, w.not_(_is_good(w, check, value)), check.number, loop.index, bits)
    w.end_loop(loop)
    w.ret(const("i32", 0))


def _is_good(w: Writer, check: FiniteCheck, value: Value) -> Value:
    """An i1, a lane each: whether a value passes the check."""
    if check.nan_only:
        return w.fcmp("ord", value, value)
    return w.fcmp("olt", w.fabs(value), const(value.type, float("inf")))


def _fail_if(w: Writer, failed: Value, number: int, position: Value, value: Value) -> None:
    """Leave with the check's number, having written where and what, if ``failed``."""
    branch = w.if_(failed, expected=False)
    for word, content in ((WORD_CHECK, const(I64, number)), (WORD_POSITION, position), (WORD_VALUE, value)):
        w.store(content, w.gep(CONTEXT, const(I64, word), I64))
    w.ret(const("i32", number + 1))
    w.end_if(branch)
