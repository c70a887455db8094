"""Lines of memory that a tile's post program will touch: noted before the tile's sums, and asked for one by one
meanwhile. What does so is the same for all nests of a module but for addresses.
"""

from __future__ import annotations

from collections.abc import Sequence

from graphc.llvm.access import I64
from graphc.llvm.text import Module, Value, Writer, const, mangled


def fetch(w: Writer, lines: Value, turn: Value, each: Value) -> None:
    """Ask for the line whose turn it is, ``each`` of them at every turn, in 65536ths. They come one by one, all the
    sums long: asked for at once they would hold up the loads of the operands."""
    number = w.op("lshr", w.mul(turn, each), const(I64, 16))
    w.prefetch(w.load("ptr", w.gep(lines, number, "ptr"), 8), True)


def lines_function(module: Module, rows: int, vectors: int, lanes: int, kinds: Sequence[str]) -> str:
    """The name of a function that finds the lines of a tile in arrays of some element types.

    Its arguments: where the lines are noted, the number of the tile's vectors, whether they are noted (else they are
    asked for at once, and the last of them is noted), and each array's first element of the tile and stride from row to
    row.
    """
    name = "_".join([f"lines_{rows}x{vectors}", *(f"{lanes}{mangled(kind)}" for kind in kinds)])
    if name in module.functions:
        return name
    w = Writer(module)
    out, here, noted = Value("%out", "ptr"), Value("%vectors", I64), Value("%noted", I64)
    arrays = [(Value(f"%array{k}", "ptr"), Value(f"%stride{k}", I64)) for k in range(len(kinds))]
    branch = w.if_(w.icmp("ne", noted, const(I64, 0)))
    _each_line(w, out, here, rows, vectors, lanes, kinds, arrays, note=True)
    w.else_(branch)
    _each_line(w, out, here, rows, vectors, lanes, kinds, arrays, note=False)
    w.end_if(branch)
    w.ret()
    params = [out, here, noted, *(value for array in arrays for value in array)]
    module.define(name, "void", params, w, "internal", "noinline")
    return name


def _each_line(
    w: Writer, out: Value, here: Value, rows: int, vectors: int, lanes: int,
    kinds: Sequence[str], arrays: Sequence[tuple[Value, Value]], note: bool,
) -> None:  # fmt: skip
    """Note the address of each line, or ask for it and note the last of them.

    A tile with fewer vectors than others meets its last one again: that costs less than a branch. A store follows
    each line asked for: measured, a step that asks for them without one takes a tenth longer.
    """
    last = w.sub(here, const(I64, 1))
    across = [w.intrinsic("llvm.smin", I64, [const(I64, c), last]) for c in range(vectors)]
    columns = [w.mul(c, const(I64, lanes)) for c in across]
    places = [w.gep(out, w.mul(c, const(I64, len(kinds) * rows)), "ptr") for c in across]
    down = w.loop(const(I64, 0), const(I64, rows), const(I64, 1))
    for k, (kind, (array, stride)) in enumerate(zip(kinds, arrays, strict=True)):
        start = w.gep(array, w.mul(down.index, stride), kind)
        number = w.add(down.index, const(I64, k * rows))
        for column, place in zip(columns, places, strict=True):
            address = w.gep(start, column, kind)
            if not note:
                w.prefetch(address, True)
            w.store(address, w.gep(place, number, "ptr") if note else out, 8)
    w.end_loop(down)
