"""The sums of a product's tile as functions that every nest of a module may call: strides and depth come at run time.

Tiles with fewer rows than others are of the same few shapes in every nest, and most of them run with few batches or
none. One function for each shape keeps the module short.
"""

from __future__ import annotations

from graphc.llvm.access import I64
from graphc.llvm.scalars import is_float
from graphc.llvm.text import Module, Value, Writer, const, element, lanes, mangled


def product_added(w: Writer, a: Value, b: Value, total: Value) -> Value:
    """``total + a * b``."""
    return w.muladd(a, b, total) if is_float(total) else w.add(total, w.mul(a, b))


def tile_sums(module: Module, kind: str, rows: int, vectors: int, masked: bool) -> str:
    """The name of a function that writes the sums of a tile of ``rows`` by ``vectors`` vectors of a type to memory.

    Its arguments: the first number of the left operand and of the right one, where the sums go, how many lanes of the
    last vector there are if ``masked``, the number of terms, the left operand's strides from row to row and from term
    to term, and the right one's from term to term.
    """
    name = f"sums_{mangled(kind)}_{rows}x{vectors}{'_masked' if masked else ''}"
    if name in module.functions:
        return name
    w = Writer(module)
    left, right, out = (Value(text, "ptr") for text in ("%left", "%right", "%out"))
    count, depth, down, along, step = (Value(f"%{text}", I64) for text in ("count", "depth", "down", "along", "step"))
    n, scalar = lanes(kind), element(kind)
    mask = w.lane_mask(n, count) if masked else None
    lines = [w.gep(left, w.mul(down, const(I64, r)), scalar) for r in range(rows)]
    loop = w.loop(const(I64, 0), depth, const(I64, 1), [const(kind, 0)] * (rows * vectors))
    at = w.gep(right, w.mul(loop.index, step), scalar)
    columns = []
    for c in range(vectors):
        address = w.gep(at, const(I64, c * n), scalar)
        if mask is None or c < vectors - 1:
            columns.append(w.load(kind, address))
        else:
            columns.append(w.masked_load(kind, address, mask, const(kind, 0)))
    place = w.mul(loop.index, along)
    sums = []
    for r, line in enumerate(lines):
        wide = w.splat(w.load(scalar, w.gep(line, place, scalar)), n)
        sums += [product_added(w, wide, columns[c], loop.carried[r * vectors + c]) for c in range(vectors)]
    for k, value in enumerate(w.end_loop(loop, sums)):
        w.store(value, w.gep(out, const(I64, k), kind), 64)
    w.ret()
    params = [left, right, out, count, depth, down, along, step]
    module.define(name, "void", params, w, "internal", "noinline")
    return name
