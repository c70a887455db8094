"""Blocks turned in registers: what lies along one variable in memory is wanted along another.

``turned`` transposes a square of vectors by shuffles alone. ``pack`` copies the right operand's columns of one block of
tiles into a panel, one line of the summed index after another, turning them on the way where they lie across it.
"""

from __future__ import annotations

from collections.abc import Sequence

from graphc.kernels.form import Access
from graphc.llvm.access import I64, Env
from graphc.llvm.nest import NestWriter
from graphc.llvm.scalars import MEMORY
from graphc.llvm.text import Module, Value, Writer, const, element, lanes, mangled, size_bytes, vector


def turned(w: Writer, rows: Sequence[Value]) -> list[Value]:
    """The transpose of as many vectors as each has lanes, of 4- or 8-byte elements.

    First squares inside each 16-byte part, by unpacking pairs of rows; then the 16-byte parts themselves.
    """
    n = len(rows)
    part = 16 // size_bytes(element(rows[0].type))  # elements of a 16-byte part; there are four parts
    current = list(rows)
    step = 1
    while step < part:  # rows r and r + step: their runs of ``step`` elements, interleaved within each part
        found = list(current)
        low: list[int] = []
        high: list[int] = []
        for base in range(0, n, part):
            for half, order in ((0, low), (1, high)):
                order += [
                    base + half * (part // 2) + i + side * n for i in range(0, part // 2, step) for side in (0, 1)
                ]
        picks = [[at + i for at in order for i in range(step)] for order in (low, high)]
        for r in range(n):
            if not r & step:
                found[r] = w.shuffle(current[r], current[r + step], picks[0])
                found[r + step] = w.shuffle(current[r], current[r + step], picks[1])
        current, step = found, step * 2
    # Vector r of a group of ``part`` rows now holds in part p the column p * part + turn(r) of that group.
    result: list[Value] = [current[0]] * n
    for r in range(part):
        groups = [current[r + part * g] for g in range(4)]
        column = _bits_reversed(r, part)
        for p, value in enumerate(_parts_turned(w, groups, part)):
            result[p * part + column] = value
    return result


def _bits_reversed(number: int, size: int) -> int:
    result = 0
    while size > 1:
        result, number, size = result * 2 + number % 2, number // 2, size // 2
    return result


def _parts_turned(w: Writer, groups: Sequence[Value], part: int) -> list[Value]:
    """Four vectors of four parts, transposed by parts."""

    def pick(a: Value, b: Value, parts: Sequence[int]) -> Value:
        return w.shuffle(a, b, [p * part + i for p in parts for i in range(part)])

    a, b, c, d = groups
    low, high = (0, 1, 4, 5), (2, 3, 6, 7)
    even, odd = (0, 2, 4, 6), (1, 3, 5, 7)
    result: list[Value] = []
    for half in (low, high):
        first, second = pick(a, b, half), pick(c, d, half)
        result += [pick(first, second, even), pick(first, second, odd)]
    return result


def pack(writer: NestWriter, env: Env, right: Access, vectors: int) -> Value:
    """The address of the panel, filled: for each step of the summed index ``vectors`` vectors of columns."""
    nest = writer.nest
    panel = writer.pointers[nest.scratch]
    if right.flat.stride(writer.vector) == 1:
        _straight(writer, env, right, vectors, panel)
    else:
        _across(writer, env, right, vectors, panel)
    return panel


def line(writer: NestWriter, env: Env, right: Access, at: Value, number: int, vectors: int) -> Value:
    """One vector of the right operand's line at ``at``; the last of a masked block under the mask."""
    w = writer.w
    scalar = MEMORY[writer.buffers[right.buffer].dtype.name]
    kind = vector(scalar, writer.lanes)
    address = w.gep(at, const(I64, number * writer.lanes), scalar)
    if env.mask is not None and number == vectors - 1:
        return w.masked_load(kind, address, env.mask, const(kind, 0))
    return w.load(kind, address)


def _straight(writer: NestWriter, env: Env, right: Access, vectors: int, panel: Value) -> None:
    w = writer.w
    scalar = MEMORY[writer.buffers[right.buffer].dtype.name]
    kind = vector(scalar, writer.lanes)
    variable = writer.nest.reduced[0]
    source = w.gep(writer.pointers[right.buffer], writer.offset(right.flat, env), scalar)
    loop = w.loop(const(I64, 0), writer.sizes.value(writer.nest.extents[variable]), const(I64, 1))
    at = w.gep(source, writer.scaled(loop.index, right.flat.stride(variable)), scalar)
    place = w.mul(loop.index, const(I64, vectors))
    for c in range(vectors):
        target = w.gep(panel, w.add(place, const(I64, c)), kind)
        w.store(line(writer, env, right, at, c, vectors), target, size_bytes(scalar) * writer.lanes)
    w.end_loop(loop)


def _across(writer: NestWriter, env: Env, right: Access, vectors: int, panel: Value) -> None:
    """Columns lie far apart and the summed index side by side: squares of both are turned in registers."""
    w = writer.w
    scalar = MEMORY[writer.buffers[right.buffer].dtype.name]
    base = env.inner()
    first = base.index.pop(writer.vector)
    source = w.gep(writer.pointers[right.buffer], writer.offset(right.flat, base), scalar)
    stride = writer.sizes.value(right.flat.stride(writer.vector))
    last = writer.sizes.value(writer.nest.extents[writer.vector] - 1)
    depth = writer.nest.extents[writer.nest.reduced[0]]
    count, kind = writer.sizes.value(depth), vector(scalar, writer.lanes)
    args = [source, stride, first, last, count, const(I64, vectors), panel]
    if isinstance(depth, int):
        w.call(_turner(w.module, kind, depth < writer.lanes), "void", args)
        return
    few, many = _turner(w.module, kind, True), _turner(w.module, kind, False)
    if few == many:
        w.call(few, "void", args)
        return
    branch = w.if_(w.icmp("slt", count, const(I64, writer.lanes)))
    w.call(few, "void", args)
    w.else_(branch)
    w.call(many, "void", args)
    w.end_if(branch)


def _turner(module: Module, kind: str, short: bool) -> str:
    """The name of the module's function that fills a panel by turning, for vectors of one type. short: for fewer steps
    of the summed index than a vector has lanes; else the last square is moved back to end with the last step. Where a
    mask costs a load nothing, one function does both: no other is as much work for LLVM.

    A column beyond the last is read as the last one, which no store will use. The panel has room for a whole square.
    """
    n, scalar = lanes(kind), element(kind)
    masked = short or module.avx512
    name = f"turn_{mangled(kind)}{'_masked' if masked else ''}"
    if name in module.functions:
        return name
    w = Writer(module)
    source, panel = Value("%source", "ptr"), Value("%panel", "ptr")
    stride, first, last, depth, vectors = (Value(f"%{t}", I64) for t in ("stride", "first", "last", "depth", "vectors"))
    mask = w.lane_mask(n, depth) if masked else None
    across = w.loop(const(I64, 0), vectors, const(I64, 1))
    column = w.add(first, w.mul(across.index, const(I64, n)))
    rows = []
    for i in range(n):
        number = w.intrinsic("llvm.smin", I64, [w.add(column, const(I64, i)), last])
        rows.append(w.gep(source, w.mul(number, stride), scalar))
    loop = w.loop(const(I64, 0), depth, const(I64, n))
    start = w.intrinsic("llvm.smin", I64, [loop.index, w.sub(depth, const(I64, n))])
    if masked:
        start = w.intrinsic("llvm.smax", I64, [start, const(I64, 0)])
    found = []
    for row in rows:
        address = w.gep(row, start, scalar)
        found.append(w.load(kind, address) if mask is None else w.masked_load(kind, address, mask, const(kind, 0)))
    for j, value in enumerate(turned(w, found)):
        place = w.add(w.mul(w.add(start, const(I64, j)), vectors), across.index)
        w.store(value, w.gep(panel, place, kind), size_bytes(scalar) * n)
    w.end_loop(loop)
    w.end_loop(across)
    w.ret()
    module.define(name, "void", [source, stride, first, last, depth, vectors, panel], w, "internal", "noinline")
    return name
