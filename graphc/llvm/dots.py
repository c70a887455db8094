"""A matrix product with few rows as LLVM: dot products of what lies side by side along the summed variable.

Where the columns' operand lies along the summed variable, a tile would first turn it in registers, which few rows do
not pay for. Here each column of each row has an accumulator register that runs along the summed variable, and a tree
of additions joins as many of them as a register has lanes into one. The tree is the same for every column, so a
column's bits depend neither on its place nor on how many columns and rows there are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from graphc.llvm.access import CONTEXT, I64, MEMBER, SHIFT, Env
from graphc.llvm.sums import product_added
from graphc.llvm.text import Value, Writer, const, element, size_bytes, vector
from graphc.llvm.tile import TileWriter

ACCUMULATORS = 16  # registers that run along the summed variable together
GROUP = 4  # columns at once where not all of a register's worth may be there


def side_by_side(w: Writer, rows: Sequence[Value], join: Callable[[Value, Value], Value]) -> Value:
    """One vector of what ``join`` makes of the lanes of each of as many vectors as each has lanes.

    First inside the 16-byte parts, whose shuffles are cheap, then the parts themselves, of which there are four.
    """
    n = len(rows)
    part = 16 // size_bytes(element(rows[0].type))
    current, run = list(rows), 1
    while len(current) > 1:
        if run < part:  # results that lie side by side in each part
            half = part // 2
            places = [b + i + side * n for b in range(0, n, part) for i in range(0, half, run) for side in (0, 1)]
            low = [place + j for place in places for j in range(run)]
            run *= 2
        else:
            half = part
            low = [b + i + side * n for side in (0, 1) for b in (0, 2 * part) for i in range(part)]
        high = [place + half for place in low]
        pairs = zip(current[::2], current[1::2], strict=True)
        current = [join(w.shuffle(a, b, low), w.shuffle(a, b, high)) for a, b in pairs]
    return current[0]


class DotsWriter(TileWriter):
    """Writes a product whose schedule allows ``dots``: up to so many rows in this way, more in tiles."""

    def output_level(self, k: int, env: Env) -> None:
        """The loops of other output variables, then registers of columns, then rows."""
        order = self.nest.schedule.order
        if k < len(order) - 2:
            super().output_level(k, env)
            return
        w, rows = self.w, self.sizes.value(self.nest.extents[order[-1]])
        if not rows.text.startswith("%"):
            self.does_work = True
            self.some_rows(k, env)
            return
        few = w.if_(w.icmp("sle", rows, const(I64, self.nest.schedule.dots)))
        index = [env.index[v] for v in order[:k]]
        w.call(self.few_rows(k), "void", [CONTEXT, MEMBER, SHIFT, *index])
        w.else_(few)
        super().output_level(k, env)
        w.end_if(few)

    def few_rows(self, k: int) -> str:
        """The name of the function for few rows: LLVM need not optimise what is left here, loops that call tiles."""
        name, order = f"{self.nest.name}_few", self.nest.schedule.order
        if name not in self.w.module.functions:
            index = [Value(f"%i{j}", I64) for j in range(k)]
            with self.function(name, [MEMBER, SHIFT, *index], self.pointers):
                env = Env(index=dict(zip(order[:k], index, strict=True)))
                self.evaluate_without(env, (self.vector, self.nest.schedule.tile_row))
                self.some_rows(k, env)
        return name

    def some_rows(self, k: int, env: Env) -> None:
        """All columns of all rows."""
        rows = self.sizes.value(self.nest.extents[self.nest.schedule.tile_row])
        alone = k + 1 == self.divided  # a single column
        self.by_first(lambda: self.columns(k, env, rows)) if alone else self.columns(k, env, rows)

    def columns(self, k: int, env: Env, rows: Value) -> None:
        """A register's worth of columns at a time, of all rows."""
        w = self.w
        column, row = self.nest.schedule.order[-2:]
        most = self.nest.schedule.dots
        kind = vector(self.element_type(), self.lanes)
        found = w.alloca(kind, most)
        right, left = self.operands()
        extent = self.nest.extents[column]

        def turn(start: Value, mask: Value | None) -> None:
            inner = env.inner(mask=mask)
            inner.index |= {column: start, row: const(I64, 0)}
            inner = self.cell_column(inner, const(I64, 0), True)
            source = w.gep(self.pointers[right.buffer], self.offset(right.flat, inner), self.element_type())
            line = w.gep(self.pointers[left.buffer], self.offset(left.flat, inner), self.element_type())
            last = const(I64, 0) if mask is None else w.sub(self.sizes.value(extent - 1), start)

            def dots(first: Value, count: int) -> None:
                at = w.gep(line, self.scaled(first, left.flat.stride(row)), self.element_type())
                name = self.dots(count, mask is not None)
                w.call(name, "void", [CONTEXT, source, at, w.gep(found, first, kind), last])

            self.groups(rows, dots)
            down = w.loop(const(I64, 0), rows, const(I64, 1))
            self.cell(inner, down.index, w.load(kind, w.gep(found, down.index, kind), 64))
            w.end_loop(down)

        self.blocks(self.sizes.value(extent), turn, k == self.divided)

    def groups(self, rows: Value, turn: Callable[[Value, int], None]) -> None:
        """Rows four by four, then two and one."""
        w = self.w
        if not rows.text.startswith("%"):
            first, number = 0, int(rows.text)
            while first < number:
                count = next(c for c in (4, 2, 1) if c <= number - first)
                turn(const(I64, first), count)
                first += count
            return
        start = w.and_(rows, const(I64, -4))
        loop = w.loop(const(I64, 0), start, const(I64, 4))
        turn(loop.index, 4)
        w.end_loop(loop)
        for count in (2, 1):
            here = w.and_(rows, const(I64, count))
            branch = w.if_(w.icmp("ne", here, const(I64, 0)))
            turn(start, count)
            w.end_if(branch)
            start = w.add(start, here)

    def dots(self, rows: int, clamped: bool) -> str:
        """The name of a function that writes the dot products of a register's worth of columns with 1, 2 or 4 rows.

        clamped: columns beyond the ``last`` are read as that one, and no store will use them.
        """
        name = f"{self.nest.name}_dots{rows}{'_clamped' if clamped else ''}"
        if name not in self.names:
            source, line, out = Value("%source", "ptr"), Value("%line", "ptr"), Value("%out", "ptr")
            last = Value("%last", I64)
            with self.function(name, [source, line, out, last], shared=True):
                self.at("reduce", 0)
                self.prepare(self.operands())
                self.write_dots(source, line, out, last, rows, clamped)
        return self.names[name]

    def write_dots(self, source: Value, line: Value, out: Value, last: Value, rows: int, clamped: bool) -> None:
        """Writes the dot products of the columns at ``source`` and the rows at ``line`` to ``out``."""
        w = self.w
        n, scalar = self.lanes, self.element_type()
        right, left = self.operands()
        step = left.flat.stride(self.nest.schedule.tile_row)
        lines = [w.gep(line, self.multiple(step, r), scalar) for r in range(rows)]
        count = min(n, GROUP if clamped else ACCUMULATORS // rows)
        join = partial(self.join, self.nest.reductions[0].combine)
        stop = w.add(last, const(I64, 1)) if clamped else const(I64, n)
        loop = w.loop(const(I64, 0), stop, const(I64, count))
        starts = []
        for c in range(count):
            column = w.add(loop.index, const(I64, c))
            if clamped:
                column = w.intrinsic("llvm.smin", I64, [column, last])
            starts.append(w.gep(source, self.scaled(column, right.flat.stride(self.vector)), scalar))
        sums = self.along(lines, starts)
        sums += [const(sums[0].type, 0)] * (-len(sums) % n)
        for k in range(0, len(sums), n):
            joined = side_by_side(w, sums[k : k + n], join)
            for r in range(k // count, min((k + n) // count, rows)):
                part = w.shuffle(joined, None, range(r * count - k, (r + 1) * count - k)) if count < n else joined
                place = w.gep(out, w.add(loop.index, const(I64, r * n)), scalar)
                w.store(part, place, size_bytes(scalar) * count)
        w.end_loop(loop)

    def along(self, lines: Sequence[Value], starts: Sequence[Value]) -> list[Value]:
        """A register of partial sums for each of the rows at ``lines`` with each of the columns at ``starts``."""
        w, n, scalar = self.w, self.lanes, self.element_type()
        kind = vector(scalar, n)

        def part(start: Value, at: Value, mask: Value | None) -> Value:
            address = w.gep(start, at, scalar)
            return w.load(kind, address) if mask is None else w.masked_load(kind, address, mask, const(kind, 0))

        def turn(at: Value, mask: Value | None, sums: Sequence[Value]) -> list[Value]:
            numbers = [part(line, at, mask) for line in lines]
            result = list(sums)
            for c, start in enumerate(starts):
                column = part(start, at, mask)
                for r, number in enumerate(numbers):
                    k = r * len(starts) + c
                    result[k] = product_added(w, column, number, sums[k])
            return result

        extent = self.nest.extents[self.nest.n_out]
        depth = self.sizes.value(extent)
        whole = w.and_(depth, const(I64, -n)) if depth.text.startswith("%") else const(I64, int(depth.text) // n * n)
        sums = [const(kind, 0)] * (len(lines) * len(starts))
        if whole.text != "0":
            loop = w.loop(const(I64, 0), whole, const(I64, n), sums)
            sums = w.end_loop(loop, turn(loop.index, None, list(loop.carried)))
        if not isinstance(extent, int) or extent % n:
            sums = turn(whole, w.lane_mask(n, w.sub(depth, whole)), sums)
        return sums
