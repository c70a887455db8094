"""A matrix product with few columns as LLVM: as many rows as a register has lanes, side by side in one.

Where columns leave much of a register empty, a tile's sums run with its rows in the lanes and an accumulator for each
column. Rows that lie along the summed variable are turned in registers, 16 bytes of each at a time; the sums are turned
back at the end. Each is added in the same order as in a plain tile, with the same bits. Rows left over, and sums too
short to pay for turning back, run in plain tiles.
"""

from __future__ import annotations

from collections.abc import Sequence

from graphc.kernels.form import Access
from graphc.llvm.access import I64, Env
from graphc.llvm.cells import Sides, Way
from graphc.llvm.panel import turned_rows
from graphc.llvm.sums import product_added
from graphc.llvm.text import Value, const, size_bytes, vector
from graphc.llvm.tile import TileWriter

SHORT_SUM = 4  # terms


class ColumnsWriter(TileWriter):
    """Writes a product whose schedule says ``upright``."""

    def ways(self, extent: Value) -> list[Way]:
        """Plain tiles for short sums, else upright ones."""
        tile = self.nest.schedule.tile
        found = [Way(None, (self.lanes, tile[1]), False, upright=True)]
        depth = self.sizes.value(self.nest.extents[self.nest.n_out])
        if depth.text.startswith("%"):
            found.insert(0, Way(self.w.icmp("slt", depth, const(I64, SHORT_SUM)), tile, False))
        return found

    def most_rows(self) -> int:
        """The rows of the largest tile."""
        return max(super().most_rows(), self.lanes)

    def far(self) -> list[Access]:
        """Nothing is asked for ahead: a narrow result has few lines."""
        return []

    def sums(self, env: Env, sides: Sides, at: list[Value], rows: int, vectors: int) -> list[Value]:
        """The sums of one tile from the addresses ``at``, row by row."""
        if not self.way.upright or rows != self.lanes:
            return super().sums(env, sides, at, rows, vectors)
        return self.upright(sides, at[0], at[1], vectors)

    def upright(self, sides: Sides, left: Value, right: Value, vectors: int) -> list[Value]:
        """The sums of a register's worth of rows."""
        w, n, scalar = self.w, self.lanes, self.element_type()
        kind, part = vector(scalar, n), 16 // size_bytes(scalar)
        columns, extent = self.nest.extents[self.vector], self.nest.extents[self.nest.n_out]
        assert isinstance(columns, int)
        sums = [const(kind, 0)] * columns
        step, row = sides.left.flat.stride(self.nest.n_out), sides.left.flat.stride(self.nest.schedule.tile_row)
        if row == 1:
            loop = w.loop(const(I64, 0), self.sizes.value(extent), const(I64, 1), sums)
            numbers = w.load(kind, w.gep(left, self.scaled(loop.index, step), scalar))
            sums = w.end_loop(loop, self.added(sides, right, loop.index, [numbers], loop.carried))
        else:
            assert isinstance(extent, int)
            rows = [w.gep(left, self.multiple(row, r), scalar) for r in range(n)]
            whole = extent // part * part
            loop = w.loop(const(I64, 0), const(I64, whole), const(I64, part), sums)
            found = turned_rows(w, rows, loop.index, scalar)
            sums = w.end_loop(loop, self.added(sides, right, loop.index, found, loop.carried))
            if whole < extent:  # read what ends with the last term, and leave out what was added already
                found = turned_rows(w, rows, const(I64, extent - part), scalar)[whole - extent :]
                sums = self.added(sides, right, const(I64, whole), found, sums)
        return self.turned_back(sums, vectors)

    def added(
        self, sides: Sides, right: Value, at: Value, terms: Sequence[Value], sums: Sequence[Value]
    ) -> list[Value]:
        """The accumulators with some terms more: the rows' numbers times each column's."""
        w, scalar = self.w, self.element_type()
        result = list(sums)
        for j, term in enumerate(terms):
            number = w.add(at, const(I64, j)) if j else at
            line = w.gep(right, self.scaled(number, sides.right.flat.stride(self.nest.n_out)), scalar)
            for c, old in enumerate(result):
                wide = w.splat(w.load(scalar, w.gep(line, const(I64, c), scalar)), self.lanes)
                result[c] = product_added(w, term, wide, old)
        return result

    def turned_back(self, sums: Sequence[Value], vectors: int) -> list[Value]:
        """The sums row by row, by way of memory. Lanes beyond the last column hold its number and are never stored."""
        w, n, scalar = self.w, self.lanes, self.element_type()
        size = size_bytes(scalar)
        part = 16 // size
        held = w.alloca(sums[0].type, len(sums))
        places = [w.gep(held, const(I64, c), sums[0].type) for c in range(len(sums))]
        for value, place in zip(sums, places, strict=True):
            w.store(value, place, size * n)
        places += places[-1:] * (vectors * n - len(places))
        across = [
            [v for r in range(0, n, part) for v in turned_rows(w, places[c * n : (c + 1) * n], const(I64, r), scalar)]
            for c in range(vectors)
        ]
        return [across[c][r] for r in range(n) for c in range(vectors)]
