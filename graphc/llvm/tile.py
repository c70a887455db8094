"""A matrix product as LLVM: a tile of rows by vector columns held in registers while the summed variables run.

Each turn of the innermost loop loads ``rows`` numbers of the left operand and ``vectors`` registers of the right one,
and adds ``rows * vectors`` products, in the order of the summed index (Goto and van de Geijn 2008, section 4; the right
operand is packed where that pays, the left one never). What is done to the result (bias, activation, update) runs on
the tile before it leaves the cache (``after.py``).
"""

from __future__ import annotations

from collections.abc import Callable

from graphc.graph.sizes import SizeLike, product
from graphc.kernels.form import Access, Nest
from graphc.kernels.schedule import FEW_ROWS, FEW_TILES, WIDE, nominal
from graphc.llvm.access import CONTEXT, I64, Env
from graphc.llvm.after import LINES, AfterWriter
from graphc.llvm.panel import line, pack
from graphc.llvm.sums import product_added, tile_sums
from graphc.llvm.target import Target
from graphc.llvm.text import Value, const, element, size_bytes, vector
from graphc.structs import dataclass, replace

AHEAD = 8  # steps of a sum before which a line is asked for that comes from an outer cache or memory
FEW_TERMS = 5  # of a sum, so few that writing the result takes longer
LARGE_BYTES = 1 << 18  # of a result that leaves the inner caches while it is written
LONG_DEPTH = 64  # terms of a sum beside which a call of a tile takes no time
SHORT_DEPTH = 32  # terms of a sum that do not pay for a call
LANES_BITS = 512  # of a vector in LLVM text

Turn = Callable[[Value, int, Value | None], None]
Rows = Callable[[Value, int], None]


@dataclass(frozen=True, slots=True)
class Way:
    """How a product runs where a condition holds, or, without one, in all other cases. tile: rows and vectors; 0 rows
    stand for all, fewer than ``FEW_ROWS``. packed: whether the right operand is copied into the panel. upright: whether
    the sums run with the rows in lanes. by_row: whether all tiles of a row come before those of the next."""

    when: Value | None
    tile: tuple[int, int]
    packed: bool
    upright: bool = False
    by_row: bool = False


@dataclass(frozen=True, slots=True)
class Sides:
    """The operands of a product: numbers of ``left`` go with rows, vectors of ``right`` with columns; ``packed``: the
    latter from a panel; ``fills``: which they are copied into on the way; ``step``: from one line of them to the next,
    where that is known when the program runs."""

    left: Access
    right: Access
    packed: bool
    fills: bool
    step: Value | None = None


def fitted(nest: Nest, target: Target) -> Nest:
    """The nest with as much of its tile as the target's registers hold; the order of its sums is the same for any."""
    rows, vectors = nest.schedule.tile
    bits = LANES_BITS if target.vector_bits == 0 else target.vector_bits
    each = max(1, LANES_BITS // bits)  # registers of one vector
    room = target.n_vector_registers - 1  # one holds a number of the left operand
    while vectors > 1 and (room - vectors * each) // (vectors * each) < min(4, rows):
        vectors -= 1
    rows = max(1, min(rows, (room - vectors * each) // (vectors * each)))
    upright = nest.schedule.upright and bits == LANES_BITS  # else too few registers hold the sums
    return replace(nest, schedule=replace(nest.schedule, tile=(rows, vectors), upright=upright))


class TileWriter(AfterWriter):
    """Writes a nest whose schedule has a register tile. Its body is the product of its first two loads.

    way: that which is being written; tile_rows, across: rows and vectors of its tiles. does_work: whether more is written
    here than loops that call functions, which LLVM need not optimise."""

    way: Way
    tile_rows, across = 0, 0
    does_work = False

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
        env = Env()
        self.at_level("post", 0, env)
        self.all_points(env)
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

    # One tile

    def tile(self, env: Env, rows: int, vectors: int, panel: Value | None, fills: bool) -> None:
        """One tile: its sums over all reduced variables, then the post program and the stores. It reads the right
        operand from the panel, if there is one, or fills it."""
        w = self.w
        kind = vector(self.element_type(), self.lanes)
        right, left = self.operands()
        before = self.at("reduce", 0)
        start = w.gep(self.pointers[left.buffer], self.offset(left.flat, env), self.memory(left))
        if panel is None or fills:
            start_right = w.gep(self.pointers[right.buffer], self.offset(right.flat, env), self.memory(right))
        else:
            start_right = panel
        sides = Sides(left, right, panel is not None and not fills, fills)
        target = panel if panel is not None and fills else Value("null", "ptr")
        if not fills and self.is_rest(rows):
            memory = self.rest_sums(env, [start, start_right], panel is not None, kind, rows, vectors)
            w.location = before
            self.leave_memory(env, memory, kind, rows, vectors)
            return
        if self.is_short() and self.tile_rows > 0 and not (fills and self.is_long()):  # few rows aren't worth much code
            if self.is_long():
                step = self.sizes.value(vectors * self.lanes if sides.packed else right.flat.stride(self.nest.n_out))
                index = [env.index[v] for v in self.nest.schedule.order]
                name = self.cells_function(env, sides, rows, vectors)
                w.call(name, "void", [CONTEXT, start, start_right, step, *index, self.last_count(env, vectors)])
                w.location = before
                return
            self.does_work = True
            sums = self.sums(env, sides, [start, start_right, target], rows, vectors)
            w.location = before
            self.leave_registers(env, sums, rows, vectors)
            return
        ahead = self.lines_ahead(env, rows, vectors)
        memory = w.alloca(kind, rows * vectors)
        count = self.last_count(env, vectors)
        name = self.sums_function(env, sides, rows, vectors)
        w.call(name, "void", [CONTEXT, start, start_right, target, memory, count, ahead])
        w.location = before
        self.leave_memory(env, memory, kind, rows, vectors)

    def is_rest(self, rows: int) -> bool:
        """Whether a tile's sums are made by a function of the module: one with fewer rows than others of its way, and
        more than a few terms."""
        nest = self.nest
        full = min(self.tile_rows or FEW_ROWS, nest.schedule.tile[0])
        if rows >= full or len(nest.reduced) > 1 or nest.guards or self.stretch is not None:
            return False
        depth = nest.extents[nest.n_out]
        return not isinstance(depth, int) or depth >= SHORT_DEPTH

    def rest_sums(self, env: Env, at: list[Value], packed: bool, kind: str, rows: int, vectors: int) -> Value:
        """The memory of the sums of a tile, which a function of the module makes from the addresses ``at``."""
        w, variable = self.w, self.nest.n_out
        right, left = self.operands()
        strides = [left.flat.stride(self.nest.schedule.tile_row), left.flat.stride(variable)]
        strides.append(vectors * self.lanes if packed else right.flat.stride(variable))
        shape = [self.sizes.value(size) for size in (self.nest.extents[variable], *strides)]
        memory = w.alloca(kind, rows * vectors)
        name = tile_sums(w.module, kind, rows, vectors, env.mask is not None and not packed)
        w.call(name, "void", [*at, memory, self.last_count(env, vectors), *shape])
        return memory

    def last_count(self, env: Env, vectors: int) -> Value:
        """How many lanes of a tile's last vector there are."""
        if env.mask is None:
            return const(I64, self.lanes)
        first = self.w.add(env.index[self.vector], const(I64, (vectors - 1) * self.lanes))
        return self.w.sub(self.sizes.value(self.nest.extents[self.vector]), first)

    def sums_function(self, env: Env, sides: Sides, rows: int, vectors: int) -> str:
        """The name of a function that writes one tile's sums to memory.

        Apart from what follows them they have all registers to themselves: LLVM would else keep the constants of vector
        maths in some, and accumulators on the stack.
        """
        kind = "_packed" if sides.packed else "_fills" if sides.fills else ""
        name = f"{self.nest.name}_{rows}x{vectors}{kind}{'_masked' if env.mask else ''}"
        name += "_upright" if self.way.upright else ""
        if name in self.w.module.functions:
            return name
        left, right, target, out = (Value(text, "ptr") for text in ("%left", "%right", "%target", "%out"))
        count = Value("%count", I64)
        with self.function(name, [left, right, target, out, count, LINES]):
            self.at("reduce", 0)
            inner = Env(mask=self.w.lane_mask(self.lanes, count) if env.mask is not None else None)
            each = self.lines_a_step(rows, vectors)
            sums = self.sums(inner, sides, [left, right, target], rows, vectors, each)
            for k, value in enumerate(sums):
                self.w.store(value, self.w.gep(out, const(I64, k), value.type), 64)
        return name

    def is_long(self) -> bool:
        """Whether a tile takes long enough, for every batch, to pay for a call: then it is written once for all ways."""
        nest = self.nest
        if len(nest.reduced) > 1 or nest.guards or self.stretch is not None or self.way.upright:
            return False
        depth = nest.extents[nest.n_out]
        return isinstance(depth, int) and depth >= LONG_DEPTH

    def cells_function(self, env: Env, sides: Sides, rows: int, vectors: int) -> str:
        """The name of a function that writes one tile's cells: its sums, and what follows them in registers."""
        name = f"{self.nest.name}_{rows}x{vectors}_cells{'_masked' if env.mask else ''}"
        if name in self.w.module.functions:
            return name
        left, right = Value("%left", "ptr"), Value("%right", "ptr")
        step, count = Value("%step", I64), Value("%count", I64)
        index = [Value(f"%i{k}", I64) for k in range(len(self.nest.schedule.order))]
        with self.function(name, [left, right, step, *index, count], self.pointers):
            self.at("reduce", 0)
            inner = Env(index=dict(zip(self.nest.schedule.order, index, strict=True)))
            self.evaluate_without(inner, (self.vector, self.nest.schedule.tile_row))
            inner = inner.inner(mask=self.w.lane_mask(self.lanes, count) if env.mask is not None else None)
            sides = replace(sides, packed=False, step=step)
            sums = self.sums(inner, sides, [left, right, Value("null", "ptr")], rows, vectors)
            self.leave_registers(inner, sums, rows, vectors)
        return name

    def at_load(self, access: Access) -> int:
        """From here on instructions come from the load of an operand; gives what they came from before."""
        number = self.nest.loads.index(access)
        return self.at("body", next(k for k, i in enumerate(self.nest.body.instrs) if i.attr == number))

    def operands(self) -> tuple[Access, Access]:
        """The load that moves with the columns, and the one that does not."""
        first, second = self.nest.loads[0], self.nest.loads[1]
        return (first, second) if first.moves_with(self.vector) else (second, first)

    def sums(
        self, env: Env, sides: Sides, at: list[Value], rows: int, vectors: int, each: Value | None = None
    ) -> list[Value]:
        """The sums of one tile from the addresses ``at``, row by row."""
        begin = [const(vector(self.element_type(), self.lanes), 0)] * (rows * vectors)
        return self.sum_level(0, env, sides, at, begin, rows, vectors, each)

    def sum_level(
        self,
        j: int,
        env: Env,
        sides: Sides,
        at: list[Value],
        sums: list[Value],
        rows: int,
        vectors: int,
        each: Value | None = None,
    ) -> list[Value]:
        """The loop of the j-th reduced variable, from the addresses ``at``; the accumulators after it. each: of the
        lines of ``LINES`` that are asked for at every step, in 65536ths."""
        w = self.w
        if j == len(self.nest.reduced):
            return self.multiply(env, sides, at, sums, rows, vectors)
        variable = self.nest.reduced[j]
        start, stop = self.bounds(variable, env)
        loop = w.loop(start, stop, const(I64, 1), sums)
        line = vectors * self.lanes
        steps = [sides.left.flat.stride(variable), line if sides.packed else sides.right.flat.stride(variable)]
        steps.append(line if sides.fills else 0)
        kinds = [self.memory(sides.left), self.memory(sides.right), self.memory(sides.right)]
        moved = [
            w.gep(p, self.scaled(loop.index, step), kind) if step != 0 else p
            for p, step, kind in zip(at, steps, kinds, strict=True)
        ]
        if sides.step is not None:
            moved[1] = w.gep(at[1], w.mul(loop.index, sides.step), kinds[1])
        if each is not None:
            self.fetch(loop.index, each)
        after = self.sum_level(j + 1, env, sides, moved, list(loop.carried), rows, vectors)
        return w.end_loop(loop, after)

    def multiply(
        self, env: Env, sides: Sides, at: list[Value], sums: list[Value], rows: int, vectors: int
    ) -> list[Value]:
        """One product a cell of the tile."""
        w = self.w
        whole = env.inner(mask=None) if sides.packed else env
        before = self.at_load(sides.right)
        columns = [line(self, whole, sides.right, at[1], c, vectors) for c in range(vectors)]
        if sides.fills:
            ahead = self.multiple(sides.right.flat.stride(self.nest.n_out), AHEAD)
            for c, value in enumerate(columns):
                later = w.add(ahead, const(I64, c * self.lanes))
                w.prefetch(w.gep(at[1], later, self.memory(sides.right)), False)
                w.store(value, w.gep(at[2], const(I64, c), value.type), size_bytes(element(value.type)) * self.lanes)
        result: list[Value] = []
        for r in range(rows):
            step = self.multiple(sides.left.flat.stride(self.nest.schedule.tile_row), r)
            self.at_load(sides.left)
            number = w.load(self.memory(sides.left), w.gep(at[0], step, self.memory(sides.left)))
            wide = w.splat(number, self.lanes)
            w.location = before
            for c in range(vectors):
                result.append(product_added(w, wide, columns[c], sums[r * vectors + c]))
        return result

    def multiple(self, stride: SizeLike, times: int) -> Value:
        """A stride times a number, as a constant where both are known."""
        if isinstance(stride, int):
            return const(I64, stride * times)
        return self.w.mul(self.sizes.value(stride), const(I64, times))
