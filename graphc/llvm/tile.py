"""A matrix product as LLVM: tiles (``cells.py``) along the columns and rows of its result, in one of several ways."""

from __future__ import annotations

from collections.abc import Callable

from graphc.graph.sizes import product
from graphc.kernels.form import LANES, Nest
from graphc.kernels.schedule import FEW_ROWS, FEW_TILES, WIDE, most_wide_dots, nominal
from graphc.llvm.access import I64, Env
from graphc.llvm.cells import CellsWriter, Way
from graphc.llvm.panel import pack
from graphc.llvm.target import Target
from graphc.llvm.text import Value, const, size_bytes
from graphc.structs import replace

FEW_TERMS = 5  # of a sum, so few that writing the result takes longer
LARGE_BYTES = 1 << 18  # of a result that leaves the inner caches while it is written
LANES_BITS = 512  # of a vector in LLVM text

Turn = Callable[[Value, int, Value | None], None]
Rows = Callable[[Value, int], None]


def fitted(nest: Nest, target: Target) -> Nest:
    """The nest with as much of its tile as the target's registers hold; the order of its sums is the same for any. Rows
    of a number known at run time are dot products up to a number that depends on the registers too."""
    how = nest.schedule
    rows, vectors = how.tile
    bits = LANES_BITS if target.vector_bits == 0 else target.vector_bits
    each = max(1, LANES_BITS // bits)  # registers of one vector
    room = target.n_vector_registers - 1  # one holds a number of the left operand
    while vectors > 1 and (room - vectors * each) // (vectors * each) < min(4, rows):
        vectors -= 1
    rows = max(1, min(rows, (room - vectors * each) // (vectors * each)))
    upright = how.upright and bits == LANES_BITS  # else too few registers hold the sums
    dots = how.dots
    if dots and nest.scratch >= 0 and target.vector_bits == LANES_BITS:
        dots = most_wide_dots(nest.extents[nest.n_out], LANES[nest.reductions[0].dtype.name])
    return replace(nest, schedule=replace(how, tile=(rows, vectors), upright=upright, dots=dots))


class TileWriter(CellsWriter):
    """Writes a nest whose schedule has a register tile. Its body is the product of its first two loads.

    across: the vectors of the tiles of the way that is being written."""

    across = 0

    def output_level(self, k: int, env: Env) -> None:
        """The loops of other output variables, then columns of tiles, then rows of tiles."""
        schedule = self.nest.schedule
        if k < len(schedule.order) - 2:
            super().output_level(k, env)
            return
        extent = self.sizes.value(self.nest.extents[schedule.tile_row])
        opened = []
        for way in self.ways(extent):
            if way.when is not None:
                opened.append(self.w.if_(way.when))
            self.tiles(k, env, way)
            if way.when is not None:
                self.w.else_(opened[-1])
        for branch in reversed(opened):
            self.w.end_if(branch)

    def tiles(self, k: int, env: Env, way: Way) -> None:
        """Columns of tiles, and in each rows of tiles."""
        column, row = self.nest.schedule.order[-2:]
        self.way, (self.tile_rows, self.across) = way, way.tile
        if way.by_row:
            self.row_blocks(lambda first, count: self.whole_rows(env, first, count), k <= self.divided, None)
            return
        many = self.has_columns(2 * self.lanes * self.across)
        by_columns = k == self.divided and (many or self.tile_rows == 0)
        by_rows = k <= self.divided and not by_columns

        def columns(start: Value, vectors: int, mask: Value | None) -> None:
            inner = env.inner(mask=mask)
            inner.index[column] = start
            right = self.operands()[0]
            on_the_way = way.packed and not by_rows and right.flat.stride(column) == 1
            panel = None
            if way.packed:
                before = self.at_load(right)
                self.does_work |= not on_the_way and right.flat.stride(column) == 1
                panel = self.pointers[self.nest.scratch] if on_the_way else pack(self, inner, right, vectors)
                self.w.location = before

            def rows(first: Value, count: int, fills: bool = False) -> None:
                at = inner.inner()
                at.index[row] = first
                self.tile(at, count, vectors, panel, fills)

            self.row_blocks(rows, by_rows, (lambda first, count: rows(first, count, True)) if on_the_way else None)

        self.column_blocks(columns, by_columns)

    def whole_rows(self, env: Env, first: Value, count: int) -> None:
        """All tiles of some rows."""
        column, row = self.nest.schedule.order[-2:]

        def tile(start: Value, vectors: int, mask: Value | None) -> None:
            inner = env.inner(mask=mask)
            inner.index |= {column: start, row: first}
            self.tile(inner, count, vectors, None, False)

        self.column_blocks(tile, False)

    def ways(self, extent: Value) -> list[Way]:
        """How the product runs with few rows or short sums, and else; extent: the number of rows."""
        w, tile, packed = self.w, self.nest.schedule.tile, self.nest.scratch >= 0
        found = [Way(None, tile, packed)]
        depth = self.sizes.value(self.nest.extents[self.nest.n_out])
        if self.streams() and depth.text.startswith("%"):
            found.insert(0, Way(w.icmp("slt", depth, const(I64, FEW_TERMS)), (2, WIDE), False, by_row=True))
        if not extent.text.startswith("%") or self.operands()[0].flat.stride(self.vector) != 1:
            return found
        if packed:
            found.insert(0, Way(w.icmp("slt", extent, const(I64, FEW_TILES * tile[0])), tile, False))
        wide = min(WIDE, tile[0] * tile[1] // 2)
        if wide > tile[1] and self.has_columns((wide - 1) * self.lanes + 1):
            found.insert(0, Way(w.icmp("slt", extent, const(I64, FEW_ROWS)), (0, wide), False))
        return found

    def streams(self) -> bool:
        """Whether the result is so large that sums of few terms take less time than it takes to write them: then they
        are written in the order in which they lie."""
        right, extents = self.operands()[0], self.nest.extents[: self.nest.n_out]
        n_bytes = nominal(product(extents)) * size_bytes(self.element_type())
        whole = len(self.nest.reduced) == 1 and right.flat.stride(self.vector) == 1 and self.stretch is None
        return whole and n_bytes >= LARGE_BYTES

    def has_columns(self, number: int) -> bool:
        """Whether there are, or may be, so many columns."""
        extent = self.nest.extents[self.vector]
        return not isinstance(extent, int) or extent >= number

    def inside(self, k: int, env: Env, index: Value, mask: Value | None) -> None:
        """One turn of an outer loop; what depends on row or column is left to the tile."""
        inner = env.inner(mask=mask)
        inner.index[self.nest.schedule.order[k]] = index
        self.at_level("post", k + 1, inner)
        self.output_level(k + 1, inner)

    def write(self) -> None:
        """Write the nest's loops where the writer stands."""
        env, begin = Env(), len(self.w.lines)
        self.at_level("post", 0, env)
        self.all_points(env)
        self.fill_table(begin)
        if not self.does_work:
            self.attributes += " optnone"

    def column_blocks(self, turn: Turn, divided: bool) -> None:
        """Tiles along the columns: as many full ones as fit, the rest in vectors, the last one masked."""
        if divided:
            self.shared_columns(turn)
            return
        w, n = self.w, self.lanes
        vectors = self.across
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

    def shared_columns(self, turn: Turn) -> None:
        """Full tiles along the columns divided among the team; the rest is member 0's."""
        w, n = self.w, self.lanes
        vectors = self.across
        extent = self.sizes.value(self.nest.extents[self.vector])
        step = n * vectors
        if not extent.text.startswith("%"):
            full, rest = int(extent.text) // step * step, int(extent.text) % step
            self.shared_loop(const(I64, full // step), step, lambda start: turn(start, vectors, None))
            if rest:
                mask = w.lane_mask(n, const(I64, rest % n)) if rest % n else None
                self.by_first(lambda: turn(const(I64, full), -(-rest // n), mask))
            return
        over = w.urem(extent, const(I64, step))
        units = w.new(I64, f"udiv i64 {extent.text}, {step}")
        self.shared_loop(units, step, lambda start: turn(start, vectors, None))

        def left() -> None:
            loop = w.loop(w.sub(extent, over), extent, const(I64, n))
            turn(loop.index, 1, w.lane_mask(n, w.sub(extent, loop.index)))
            w.end_loop(loop)

        self.by_first(left)

    def shared_rows(self, turn: Rows) -> None:
        """Full tiles along the rows divided among the team; the rest is member 0's."""
        w = self.w
        rows = self.tile_rows
        extent = self.sizes.value(self.nest.extents[self.nest.schedule.tile_row])
        if not extent.text.startswith("%"):
            full, rest = int(extent.text) // rows * rows, int(extent.text) % rows
            self.shared_loop(const(I64, full // rows), rows, lambda start: turn(start, rows))
            if rest:
                self.by_first(lambda: turn(const(I64, full), rest))
            return
        over = w.urem(extent, const(I64, rows))
        self.shared_loop(w.new(I64, f"udiv i64 {extent.text}, {rows}"), rows, lambda start: turn(start, rows))

        self.by_first(lambda: self.rest_of_rows(w.sub(extent, over), over, turn, rows))

    def rest_of_rows(self, first: Value, count: Value, turn: Rows, rows: int) -> None:
        """Fewer than ``rows``, a number known at run time: tiles of 8, 4, 2 and 1 rows, each once or not at all."""
        w = self.w
        for size in (s for s in (8, 4, 2, 1) if s < rows):
            here = w.and_(count, const(I64, size))
            branch = w.if_(w.icmp("ne", here, const(I64, 0)))
            turn(first, size)
            w.end_if(branch)
            first = w.add(first, here)

    def row_blocks(self, turn: Rows, divided: bool, first: Rows | None) -> None:
        """Tiles along the rows: full ones, then the rest, in one smaller tile if it is known, in several if not.
        first: writes the first tile, a full one, in place of ``turn``."""
        if divided:
            self.shared_rows(turn)
            return
        w, rows = self.w, self.tile_rows
        extent = self.sizes.value(self.nest.extents[self.nest.schedule.tile_row])
        if rows == 0:
            self.rest_of_rows(const(I64, 0), extent, turn, FEW_ROWS)
            return
        if first is not None:
            first(const(I64, 0), rows)
        start = rows if first is not None else 0
        known = not extent.text.startswith("%")
        over = const(I64, int(extent.text) % rows) if known else w.urem(extent, const(I64, rows))
        whole = const(I64, int(extent.text) // rows * rows) if known else w.sub(extent, over)
        if not known or start < int(whole.text):
            loop = w.loop(const(I64, start), whole, const(I64, rows))
            turn(loop.index, rows)
            w.end_loop(loop)
        if not known:
            self.rest_of_rows(whole, over, turn, rows)
        elif over.text != "0":
            turn(whole, int(over.text))
