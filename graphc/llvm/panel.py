"""Blocks turned in registers: what lies along one variable in memory is wanted along another.

``turned`` transposes squares of elements by shuffles alone. ``pack`` copies the right operand's columns of one block of
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
    """The transposes of squares inside each 16-byte part of vectors: as many vectors as such a part has elements."""
    if len(rows) == 1:
        return list(rows)
    half = len(rows) // 2
    n, part = lanes(rows[0].type), 16 // size_bytes(element(rows[0].type))
    result = []
    for first, second in zip(turned(w, rows[:half]), turned(w, rows[half:]), strict=True):
        for start in (0, part // 2):  # runs of ``half`` elements of both, interleaved within each part
            places = [b + start + i + side * n for b in range(0, n, part) for i in range(0, part // 2, half)
                      for side in (0, 1)]  # fmt: skip
            result.append(w.shuffle(first, second, [place + j for place in places for j in range(half)]))
    return result


def side_by_side(w: Writer, parts: Sequence[Value]) -> Value:
    """One vector of several, one behind the other; they are a power of two in number."""
    current = list(parts)
    while len(current) > 1:
        order = range(2 * lanes(current[0].type))
        current = [w.shuffle(a, b, order) for a, b in zip(current[::2], current[1::2], strict=True)]
    return current[0]


def turned_rows(w: Writer, rows: Sequence[Value], start: Value, scalar: str) -> list[Value]:
    """What lies ``start`` elements behind each of the addresses, a vector of all of them for each of the elements that
    16 bytes hold."""
    part = 16 // size_bytes(scalar)
    found = [w.load(vector(scalar, part), w.gep(row, start, scalar)) for row in rows]
    return turned(w, [side_by_side(w, found[r::part]) for r in range(part)])


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
    count = writer.sizes.value(writer.nest.extents[writer.nest.reduced[0]])
    name = _turner(w.module, vector(scalar, writer.lanes))
    w.call(name, "void", [source, stride, first, last, count, const(I64, vectors), panel])


def _turner(module: Module, kind: str) -> str:
    """The name of the module's function that fills a panel by turning, for vectors of one type.

    A turn of the inner loop takes 16 bytes of every row, the last one those that end with the last step of the summed
    index; fewer steps than that are copied one by one. A column beyond the last is read as the last one, which no store
    will use.
    """
    n, scalar = lanes(kind), element(kind)
    name = f"turn_{mangled(kind)}"
    if name in module.functions:
        return name
    w = Writer(module)
    source, panel = Value("%source", "ptr"), Value("%panel", "ptr")
    stride, first, last, depth, vectors = (Value(f"%{t}", I64) for t in ("stride", "first", "last", "depth", "vectors"))
    size = size_bytes(scalar)
    part = 16 // size
    few = w.if_(w.icmp("slt", depth, const(I64, part)))
    width = w.mul(vectors, const(I64, n))
    across = w.loop(const(I64, 0), width, const(I64, 1))
    line = w.gep(source, w.mul(_column(w, w.add(first, across.index), last), stride), scalar)
    down = w.loop(const(I64, 0), depth, const(I64, 1))
    place = w.gep(panel, w.add(w.mul(down.index, width), across.index), scalar)
    w.store(w.load(scalar, w.gep(line, down.index, scalar)), place, size)
    w.end_loop(down)
    w.end_loop(across)
    w.else_(few)
    across = w.loop(const(I64, 0), vectors, const(I64, 1))
    column = w.add(first, w.mul(across.index, const(I64, n)))
    numbers = [_column(w, w.add(column, const(I64, i)), last) for i in range(n)]
    rows = [w.gep(source, w.mul(number, stride), scalar) for number in numbers]
    along = w.loop(const(I64, 0), depth, const(I64, part))
    start = w.intrinsic("llvm.smin", I64, [along.index, w.sub(depth, const(I64, part))])
    for j, value in enumerate(turned_rows(w, rows, start, scalar)):
        place = w.add(w.mul(w.add(start, const(I64, j)), vectors), across.index)
        w.store(value, w.gep(panel, place, kind), size * n)
    w.end_loop(along)
    w.end_loop(across)
    w.end_if(few)
    w.ret()
    module.define(name, "void", [source, stride, first, last, depth, vectors, panel], w, "internal", "noinline")
    return name


def _column(w: Writer, number: Value, last: Value) -> Value:
    return w.intrinsic("llvm.smin", I64, [number, last])
