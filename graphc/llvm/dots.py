"""A matrix product with few rows as LLVM: dot products of what lies side by side, sixteen at once.

Where the columns' operand lies along the summed variable, a tile would first turn it in registers, which few rows do
not pay for. Here each column has an accumulator register that runs along the summed variable; a tree of additions of
neighbours joins the accumulators of as many columns as a register has lanes into that one register. The tree is the
same for every column, so a column's bits depend neither on its place nor on how many there are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from graphc.llvm.access import CONTEXT, I64, Env
from graphc.llvm.scalars import is_float
from graphc.llvm.sizes import Sizes
from graphc.llvm.text import Value, Writer, const, size_bytes, vector
from graphc.llvm.tile import TileWriter


def neighbours_joined(w: Writer, rows: Sequence[Value], join: Callable[[Value, Value], Value]) -> Value:
    """One vector of what ``join`` makes of each of as many vectors as each has lanes."""
    n = len(rows)
    even, odd = range(0, 2 * n, 2), range(1, 2 * n, 2)
    current = list(rows)
    while len(current) > 1:
        pairs = zip(current[::2], current[1::2], strict=True)
        current = [join(w.shuffle(a, b, even), w.shuffle(a, b, odd)) for a, b in pairs]
    return current[0]


class DotsWriter(TileWriter):
    """Writes a product whose schedule says ``dots``."""

    def output_level(self, k: int, env: Env) -> None:
        """The loops of other output variables, then registers of columns, then rows."""
        order = self.nest.schedule.order
        if k < len(order) - 2:
            super().output_level(k, env)
            return
        w = self.w
        column, row = order[-2:]
        kind = vector(self.element_type(), self.lanes)
        numbers = self.numbers(env)
        found = w.alloca(kind)
        rows, width = self.sizes.value(self.nest.extents[row]), self.width()

        def turn(start: Value, mask: Value | None) -> None:
            inner = env.inner(mask=mask)
            inner.index |= {column: start, row: const(I64, 0)}
            inner = self.cell_column(inner, const(I64, 0), True)
            right, _ = self.operands()
            source = w.gep(self.pointers[right.buffer], self.offset(right.flat, inner), self.element_type())
            down = w.loop(const(I64, 0), rows, const(I64, 1))
            line = w.gep(numbers, w.mul(down.index, width), self.element_type())
            if mask is None:
                w.call(self.dots(self.lanes), "void", [CONTEXT, source, line, found])
            else:
                last = self.sizes.value(self.nest.extents[column] - 1)
                one = w.loop(const(I64, 0), w.add(w.sub(last, start), const(I64, 1)), const(I64, 1))
                step = w.mul(one.index, self.sizes.value(right.flat.stride(column)))
                at = w.gep(found, one.index, self.element_type())
                w.call(self.dots(1), "void", [CONTEXT, w.gep(source, step, self.element_type()), line, at])
                w.end_loop(one)
            self.cell(inner, down.index, w.load(kind, found, 64))
            w.end_loop(down)

        self.blocks(self.sizes.value(self.nest.extents[column]), turn, k == self.divided)

    def width(self) -> Value:
        """The elements of one row of the panel: whole registers."""
        w, n = self.w, self.lanes
        depth = self.sizes.value(self.nest.extents[self.nest.n_out])
        return w.and_(w.add(depth, const(I64, n - 1)), const(I64, -n))

    def numbers(self, env: Env) -> Value:
        """The address of the panel, filled with the rows' numbers along the summed variable and zeros behind them."""
        w, scalar = self.w, self.element_type()
        row, summed = self.nest.schedule.tile_row, self.nest.n_out
        _, left = self.operands()
        panel, width = self.pointers[self.nest.scratch], self.width()
        depth = self.sizes.value(self.nest.extents[summed])
        down = w.loop(const(I64, 0), self.sizes.value(self.nest.extents[row]), const(I64, 1))
        line = w.gep(panel, w.mul(down.index, width), scalar)
        inner = env.inner()
        inner.index[row] = down.index
        along = w.loop(const(I64, 0), depth, const(I64, 1))
        inner.index[summed] = along.index
        number = w.load(scalar, w.gep(self.pointers[left.buffer], self.offset(left.flat, inner), scalar))
        w.store(number, w.gep(line, along.index, scalar))
        w.end_loop(along)
        behind = w.loop(depth, width, const(I64, 1))
        w.store(const(scalar, 0), w.gep(line, behind.index, scalar))
        w.end_loop(behind)
        w.end_loop(down)
        return panel

    def dots(self, count: int) -> str:
        """The name of a function that writes the dot products of ``count`` columns, as many as a register has or one,
        with one row's numbers."""
        name = f"{self.nest.name}_dots{count}"
        module = self.w.module
        if name in module.functions:
            return name
        caller, sizes = self.w, self.sizes
        w = self.w = Writer(module)
        self.at("reduce", 0)
        self.sizes = Sizes(w, CONTEXT, sizes.dims)
        for size in sizes.prepared():
            self.sizes.prepare(size)
        source, line, out = Value("%source", "ptr"), Value("%line", "ptr"), Value("%out", "ptr")
        n, scalar = self.lanes, self.element_type()
        kind = vector(scalar, n)
        right, _ = self.operands()
        steps = [self.multiple(right.flat.stride(self.vector), i) for i in range(count)]
        starts = [w.gep(source, step, scalar) for step in steps]

        def turn(at: Value, mask: Value | None, sums: Sequence[Value]) -> list[Value]:
            numbers = w.load(kind, w.gep(line, at, scalar))
            result = []
            for start, old in zip(starts, sums, strict=True):
                address = w.gep(start, at, scalar)
                zero = const(kind, 0)
                part = w.load(kind, address) if mask is None else w.masked_load(kind, address, mask, zero)
                result.append(w.muladd(part, numbers, old) if is_float(old) else w.add(old, w.mul(part, numbers)))
            return result

        extent = self.nest.extents[self.nest.n_out]
        depth = self.sizes.value(extent)
        whole = w.and_(depth, const(I64, -n)) if depth.text.startswith("%") else const(I64, int(depth.text) // n * n)
        sums = [const(kind, 0)] * count
        if whole.text != "0":
            loop = w.loop(const(I64, 0), whole, const(I64, n), sums)
            sums = w.end_loop(loop, turn(loop.index, None, list(loop.carried)))
        if not isinstance(extent, int) or extent % n:
            sums = turn(whole, w.lane_mask(n, w.sub(depth, whole)), sums)
        join = partial(self.join, self.nest.reductions[0].combine)
        joined = neighbours_joined(w, sums if count == n else sums * n, join)
        w.store(joined, out, size_bytes(scalar) * n) if count == n else w.store(w.extract(joined, 0), out)
        w.ret()
        module.define(name, "void", [CONTEXT, source, line, out], w, "internal", "noinline")
        self.w, self.sizes = caller, sizes
        return name
