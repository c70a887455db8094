"""A matrix product as LLVM: a tile of rows by vector columns held in registers while the summed variables run.

Each turn of the innermost loop loads ``rows`` numbers of the left operand and ``vectors`` registers of the right one,
and adds ``rows * vectors`` products, in the order of the summed index (Goto and van de Geijn 2008, section 4, without
packing). What is done to the result (bias, activation, update) runs on the tile before it leaves the cache.
"""

from __future__ import annotations

from collections.abc import Callable

from graphc.graph.sizes import SizeLike
from graphc.kernels.form import Access
from graphc.llvm.nest import I64, Env, NestWriter
from graphc.llvm.scalars import MEMORY, is_float
from graphc.llvm.text import Value, const, vector

INLINE_POST = 6  # a longer post program is written once, over the tile in memory

Turn = Callable[[Value, int, Value | None], None]


class TileWriter(NestWriter):
    """Writes a nest whose schedule has a register tile. Its body is the product of its first two loads."""

    def output_level(self, k: int, env: Env) -> None:
        """The loops of other output variables, then columns of tiles, then rows of tiles."""
        schedule = self.nest.schedule
        if k < len(schedule.order) - 2:
            super().output_level(k, env)
            return
        column, row = schedule.order[-2:]

        def columns(start: Value, vectors: int, mask: Value | None) -> None:
            inner = env.inner(mask=mask)
            inner.index[column] = start

            def rows(first: Value, count: int) -> None:
                at = inner.inner()
                at.index[row] = first
                self.tile(at, count, vectors)

            self.row_blocks(rows)

        self.column_blocks(columns)

    def inside(self, k: int, env: Env, index: Value, mask: Value | None) -> None:
        """One turn of an outer loop; what depends on row or column is left to the tile."""
        inner = env.inner(mask=mask)
        inner.index[self.nest.schedule.order[k]] = index
        self.at_level("post", k + 1, inner)
        self.output_level(k + 1, inner)

    def write(self) -> None:
        """Write the nest's loops where the writer stands."""
        env = Env()
        self.at_level("post", 0, env)
        self.output_level(0, env)

    def column_blocks(self, turn: Turn) -> None:
        """Tiles along the columns: as many full ones as fit, the rest in vectors, the last one masked."""
        w, n = self.w, self.lanes
        vectors = self.nest.schedule.tile[1]
        extent = self.sizes.value(self.nest.extents[self.vector])
        step = n * vectors
        if extent.text.startswith("%"):
            whole = w.sub(extent, w.urem(extent, const(I64, step)))
            loop = w.loop(const(I64, 0), whole, const(I64, step))
            turn(loop.index, vectors, None)
            w.end_loop(loop)
            loop = w.loop(whole, extent, const(I64, n))
            turn(loop.index, 1, w.lane_mask(n, w.sub(extent, loop.index)))
            w.end_loop(loop)
            return
        size = int(extent.text)
        full = size // step * step
        if full:
            loop = w.loop(const(I64, 0), const(I64, full), const(I64, step))
            turn(loop.index, vectors, None)
            w.end_loop(loop)
        rest = size - full
        if rest:
            mask = w.lane_mask(n, const(I64, rest % n)) if rest % n else None
            turn(const(I64, full), -(-rest // n), mask)

    def row_blocks(self, turn: Callable[[Value, int], None]) -> None:
        """Tiles along the rows: full ones, then the rest in one smaller tile where it is known, row by row where
        not.
        """
        w = self.w
        rows = self.nest.schedule.tile[0]
        extent = self.sizes.value(self.nest.extents[self.nest.schedule.tile_row])
        if extent.text.startswith("%"):
            whole = w.sub(extent, w.urem(extent, const(I64, rows)))
            loop = w.loop(const(I64, 0), whole, const(I64, rows))
            turn(loop.index, rows)
            w.end_loop(loop)
            loop = w.loop(whole, extent, const(I64, 1))
            turn(loop.index, 1)
            w.end_loop(loop)
            return
        size = int(extent.text)
        full = size // rows * rows
        if full:
            loop = w.loop(const(I64, 0), const(I64, full), const(I64, rows))
            turn(loop.index, rows)
            w.end_loop(loop)
        if size - full:
            turn(const(I64, full), size - full)

    # One tile

    def tile(self, env: Env, rows: int, vectors: int) -> None:
        """One tile: its sums over all reduced variables, then the post program and the stores."""
        w = self.w
        kind = vector(self.element_type(), self.lanes)
        right, left = self.operands()
        starts = [w.gep(self.pointers[a.buffer], self.offset(a.flat, env), self.memory(a)) for a in (left, right)]
        begin = [const(kind, 0)] * (rows * vectors)
        sums = self.sum_level(0, env, (left, right), starts, begin, rows, vectors)
        self.leave(env, sums, rows, vectors)

    def element_type(self) -> str:
        """The type of one product."""
        return MEMORY[self.nest.reductions[0].dtype.name]

    def memory(self, access: Access) -> str:
        """The element type of an access in memory."""
        return MEMORY[self.buffers[access.buffer].dtype.name]

    def operands(self) -> tuple[Access, Access]:
        """The load that moves with the columns, and the one that does not."""
        first, second = self.nest.loads[0], self.nest.loads[1]
        return (first, second) if first.moves_with(self.vector) else (second, first)

    def sum_level(
        self,
        j: int,
        env: Env,
        accesses: tuple[Access, Access],
        at: list[Value],
        sums: list[Value],
        rows: int,
        vectors: int,
    ) -> list[Value]:
        """The loop of the j-th reduced variable, from the addresses ``at``; the accumulators after it."""
        w = self.w
        if j == len(self.nest.reduced):
            return self.multiply(env, accesses, at, sums, rows, vectors)
        variable = self.nest.reduced[j]
        loop = w.loop(const(I64, 0), self.sizes.value(self.nest.extents[variable]), const(I64, 1), sums)
        moved = [
            w.gep(p, self.scaled(loop.index, a.flat.stride(variable)), self.memory(a))
            if a.flat.stride(variable) != 0
            else p
            for a, p in zip(accesses, at, strict=True)
        ]
        after = self.sum_level(j + 1, env, accesses, moved, list(loop.carried), rows, vectors)
        return w.end_loop(loop, after)

    def multiply(
        self, env: Env, accesses: tuple[Access, Access], at: list[Value], sums: list[Value], rows: int, vectors: int
    ) -> list[Value]:
        """One product a cell of the tile."""
        w = self.w
        left, right = accesses
        row = self.nest.schedule.tile_row
        columns = []
        for c in range(vectors):
            kind = vector(self.memory(right), self.lanes)
            address = w.gep(at[1], const(I64, c * self.lanes), self.memory(right))
            masked = env.mask is not None and c == vectors - 1
            zero = const(kind, 0)
            columns.append(
                w.masked_load(kind, address, env.mask, zero) if masked and env.mask else w.load(kind, address)
            )
        result: list[Value] = []
        for r in range(rows):
            step = self.multiple(left.flat.stride(row), r)
            number = w.load(self.memory(left), w.gep(at[0], step, self.memory(left)))
            wide = w.splat(number, self.lanes)
            for c in range(vectors):
                old = sums[r * vectors + c]
                if is_float(old):
                    result.append(w.muladd(wide, columns[c], old))
                else:
                    result.append(w.add(old, w.mul(wide, columns[c])))
        return result

    def multiple(self, stride: SizeLike, times: int) -> Value:
        """A stride times a number, as a constant where both are known."""
        if isinstance(stride, int):
            return const(I64, stride * times)
        return self.w.mul(self.sizes.value(stride), const(I64, times))

    def leave(self, env: Env, sums: list[Value], rows: int, vectors: int) -> None:
        """Run the post program on every cell and store."""
        w = self.w
        n_own = sum(1 for i in self.nest.post.instrs if i.op not in ("acc", "const", "read"))
        if n_own <= INLINE_POST or rows * vectors == 1:
            for c in range(vectors):
                inner = self.cell_column(env, const(I64, c * self.lanes), c == vectors - 1)
                for r in range(rows):
                    self.cell(inner, const(I64, r), sums[r * vectors + c])
            return
        kind = sums[0].type
        scratch = w.alloca(kind, rows * vectors)
        for k, value in enumerate(sums):
            w.store(value, w.gep(scratch, const(I64, k), kind), 64)
        whole = vectors if env.mask is None else vectors - 1
        if whole:
            across = w.loop(const(I64, 0), const(I64, whole), const(I64, 1))
            inner = self.cell_column(env, w.mul(across.index, const(I64, self.lanes)), False)
            self.scratch_rows(inner, scratch, kind, across.index, rows, vectors)
            w.end_loop(across)
        if whole < vectors:
            inner = self.cell_column(env, const(I64, whole * self.lanes), True)
            self.scratch_rows(inner, scratch, kind, const(I64, whole), rows, vectors)

    def scratch_rows(self, env: Env, scratch: Value, kind: str, column: Value, rows: int, vectors: int) -> None:
        """The cells of one column of a tile in memory, in a loop."""
        w = self.w
        down = w.loop(const(I64, 0), const(I64, rows), const(I64, 1))
        place = w.add(w.mul(down.index, const(I64, vectors)), column)
        value = w.load(kind, w.gep(scratch, place, kind), 64)
        self.cell(env, down.index, value)
        w.end_loop(down)

    def cell_column(self, env: Env, offset: Value, last: bool) -> Env:
        """The environment of one vector of columns, with what the post program needs of the column alone."""
        inner = env.inner(mask=env.mask if last else None)
        start = inner.index[self.vector]
        inner.index[self.vector] = start if offset.text == "0" else self.w.add(start, offset)
        row = self.nest.schedule.tile_row
        for position, instr in enumerate(self.nest.post.instrs):
            if ("post", position) not in inner.values and row not in self.depends["post"][position]:
                inner.values["post", position] = self.instruction("post", position, instr, inner)
        return inner

    def cell(self, env: Env, offset: Value, value: Value) -> None:
        """The post program and the stores of one cell."""
        inner = env.inner()
        row = self.nest.schedule.tile_row
        first = inner.index[row]
        inner.index[row] = first if offset.text == "0" else self.w.add(first, offset)
        self.finish(inner, [value])
