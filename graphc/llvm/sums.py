"""The sums of a product's tile as functions that every nest of a module may call: strides and depth come at run time.

Tiles are of the same few shapes in every nest: one function for each keeps the module short. Full tiles have the left
operand's stride from row to row in the text, where it costs no registers.
"""

from __future__ import annotations

from graphc.llvm.access import I64
from graphc.llvm.lines import fetch
from graphc.llvm.scalars import is_float
from graphc.llvm.text import Module, Value, Writer, const, element, lanes, mangled, size_bytes
from graphc.structs import dataclass

AHEAD = 8  # terms before which a line is asked for that comes from an outer cache or memory


def product_added(w: Writer, a: Value, b: Value, total: Value) -> Value:
    """``total + a * b``."""
    return w.muladd(a, b, total) if is_float(total) else w.add(total, w.mul(a, b))


@dataclass(frozen=True, slots=True)
class Tile:
    """What the function of a tile's sums depends on: ``rows`` by ``vectors`` vectors of the type ``kind``, the last one
    ``masked`` or not. down, along: the left operand's strides from row to row and from term to term, where they stand
    in the text. fills: whether the right operand is copied into a panel on the way. asks: whether lines are asked for.
    """

    kind: str
    rows: int
    vectors: int
    masked: bool
    down: int | None = None
    along: int | None = None
    fills: bool = False
    asks: bool = False

    def name(self) -> str:
        """The name of that function."""
        told = {"down": self.down, "along": self.along}
        parts = [f"{word}{size}" for word, size in told.items() if size is not None]
        parts += [word for word in ("masked", "fills", "asks") if getattr(self, word)]
        return "_".join(["sums", mangled(self.kind), f"{self.rows}x{self.vectors}", *parts])


def tile_sums(module: Module, tile: Tile) -> str:
    """The name of a function that writes the sums of a tile to memory.

    Its arguments: the first number of the left operand and of the right one, where the sums go, how many lanes of the
    last vector there are if ``masked``, the number of terms, the left operand's strides from row to row and from term
    to term, and the right one's from term to term; the panel; the lines, and how many of them are asked for at every
    term, in 65536ths.
    """
    name = tile.name()
    if name in module.functions:
        return name
    w = Writer(module)
    left, right, out = (Value(text, "ptr") for text in ("%left", "%right", "%out"))
    count, depth, down, along, step = (Value(f"%{text}", I64) for text in ("count", "depth", "down", "along", "step"))
    target, asked, each = Value("%target", "ptr"), Value("%lines", "ptr"), Value("%each", I64)
    kind, rows, vectors = tile.kind, tile.rows, tile.vectors
    n, scalar = lanes(kind), element(kind)
    mask = w.lane_mask(n, count) if tile.masked else None
    below = [w.mul(down, const(I64, r)) if tile.down is None else const(I64, tile.down * r) for r in range(rows)]
    lines = [w.gep(left, offset, scalar) for offset in below]
    ahead = w.mul(step, const(I64, AHEAD)) if tile.fills else step
    loop = w.loop(const(I64, 0), depth, const(I64, 1), [const(kind, 0)] * (rows * vectors))
    if tile.asks:
        fetch(w, asked, loop.index, each)
    at = w.gep(right, w.mul(loop.index, step), scalar)
    columns = []
    for c in range(vectors):
        address = w.gep(at, const(I64, c * n), scalar)
        if mask is None or c < vectors - 1:
            columns.append(w.load(kind, address))
        else:
            columns.append(w.masked_load(kind, address, mask, const(kind, 0)))
    if tile.fills:
        copied = w.gep(target, w.mul(loop.index, const(I64, vectors)), kind)
        for c, value in enumerate(columns):
            w.prefetch(w.gep(at, w.add(ahead, const(I64, c * n)), scalar), False)
            w.store(value, w.gep(copied, const(I64, c), kind), size_bytes(scalar) * n)
    place = loop.index if tile.along == 1 else w.mul(loop.index, along)
    sums = []
    for r, line in enumerate(lines):
        wide = w.splat(w.load(scalar, w.gep(line, place, scalar)), n)
        sums += [product_added(w, wide, columns[c], loop.carried[r * vectors + c]) for c in range(vectors)]
    for k, value in enumerate(w.end_loop(loop, sums)):
        w.store(value, w.gep(out, const(I64, k), kind), 64)
    w.ret()
    params = [left, right, out, count, depth, down, along, step]
    params += [target] * tile.fills + [asked, each] * tile.asks
    module.define(name, "void", params, w, "internal", "noinline")
    return name
