"""One tile of a matrix product as LLVM: rows by vector columns held in registers while the summed variables run.

Each turn of the innermost loop loads ``rows`` numbers of the left operand and ``vectors`` registers of the right one,
and adds ``rows * vectors`` products, in the order of the summed index (Goto and van de Geijn 2008, section 4; the right
operand is packed where that pays, the left one never). What is done to the result (bias, activation, update) runs on
the tile before it leaves the cache (``after.py``).
"""

from __future__ import annotations

from graphc.graph.sizes import SizeLike
from graphc.kernels.form import Access
from graphc.kernels.schedule import FEW_ROWS
from graphc.llvm.access import CONTEXT, I64, Env
from graphc.llvm.after import AfterWriter
from graphc.llvm.panel import line
from graphc.llvm.sums import AHEAD, Tile, product_added, tile_sums
from graphc.llvm.text import Value, const, element, size_bytes, vector
from graphc.structs import dataclass

LONG_DEPTH = 96  # terms of a sum beside which a call and a way through memory take no time
SHORT_DEPTH = 32  # terms of a sum that do not pay for a call


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
    latter from a panel; ``fills``: which they are copied into on the way."""

    left: Access
    right: Access
    packed: bool
    fills: bool


class CellsWriter(AfterWriter):
    """The part of a product's writer that writes one tile.

    way: how the product runs where it is being written; tile_rows: the rows of that way's tiles. does_work: whether
    more is written here than loops that call functions, which LLVM need not optimise."""

    way: Way
    tile_rows = 0
    does_work = False

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
        target = panel or Value("null", "ptr")
        rest = not fills and self.is_rest(rows)
        if rest or not self.is_short() or self.tile_rows == 0 or self.is_long():  # few are not worth much code
            memory = w.alloca(kind, rows * vectors)
            if self.is_shared(rows):
                self.shared_sums(env, sides, [start, start_right, target], memory, kind, rows, vectors, rest)
            else:
                name = self.sums_function(env, sides, rows, vectors)
                count = self.last_count(env, vectors)
                w.call(name, "void", [CONTEXT, start, start_right, target, memory, count])
        else:
            self.does_work = True
            sums = self.sums(env, sides, [start, start_right, target], rows, vectors)
            self.leave_registers(env, sums, rows, vectors)
            w.location = before
            return
        w.location = before
        self.leave_memory(env, memory, kind, rows, vectors)

    def is_rest(self, rows: int) -> bool:
        """Whether a tile has fewer rows than others of its way, and its sums are made by a function of the module."""
        return rows < min(self.tile_rows or FEW_ROWS, self.nest.schedule.tile[0]) and self.is_shared(rows)

    def is_shared(self, rows: int) -> bool:
        """Whether a tile's sums may be made by a function of the module: plain ones of more than a few terms."""
        depth = self.nest.extents[self.nest.n_out]
        upright = self.way.upright and rows == self.lanes
        return not upright and self.is_plain() and (not isinstance(depth, int) or depth >= SHORT_DEPTH)

    def is_plain(self) -> bool:
        """Whether all sums run over all of one variable."""
        return len(self.nest.reduced) == 1 and not self.nest.guards and self.stretch is None

    def shared_sums(
        self, env: Env, sides: Sides, at: list[Value], memory: Value, kind: str, rows: int, vectors: int, rest: bool
    ) -> None:
        """Calls the module's function for the sums of a tile, from the addresses ``at``; rest: of one with few rows."""
        w, variable = self.w, self.nest.n_out
        strides = [sides.left.flat.stride(self.nest.schedule.tile_row), sides.left.flat.stride(variable)]
        down, along = (s if isinstance(s, int) and not rest else None for s in strides)
        each = None if rest else self.lines_a_step(rows, vectors)
        masked = env.mask is not None and not sides.packed
        along = along if along == 1 else None
        tile = Tile(kind, rows, vectors, masked, down, along, fills=sides.fills, asks=each is not None)
        strides.append(vectors * self.lanes if sides.packed else sides.right.flat.stride(variable))
        shape = [self.sizes.value(size) for size in (self.nest.extents[variable], *strides)]
        arguments = [*at[:2], memory, self.last_count(env, vectors), *shape]
        arguments += [at[2]] if tile.fills else []
        arguments += [self.lines_ahead(env, rows, vectors), each] if each is not None else []
        w.call(tile_sums(w.module, tile), "void", arguments)

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
        with self.function(name, [left, right, target, out, count]):
            self.at("reduce", 0)
            inner = Env(mask=self.w.lane_mask(self.lanes, count) if env.mask is not None else None)
            sums = self.sums(inner, sides, [left, right, target], rows, vectors)
            for k, value in enumerate(sums):
                self.w.store(value, self.w.gep(out, const(I64, k), value.type), 64)
        return name

    def is_long(self) -> bool:
        """Whether a tile takes so long that its sums may pass through memory, for every batch: that keeps them out of
        the nest's own text."""
        depth = self.nest.extents[self.nest.n_out]
        return isinstance(depth, int) and depth >= LONG_DEPTH and not self.way.upright and self.is_plain()

    def at_load(self, access: Access) -> int:
        """From here on instructions come from the load of an operand; gives what they came from before."""
        number = self.nest.loads.index(access)
        return self.at("body", next(k for k, i in enumerate(self.nest.body.instrs) if i.attr == number))

    def operands(self) -> tuple[Access, Access]:
        """The load that moves with the columns, and the one that does not."""
        first, second = self.nest.loads[0], self.nest.loads[1]
        return (first, second) if first.moves_with(self.vector) else (second, first)

    def sums(self, env: Env, sides: Sides, at: list[Value], rows: int, vectors: int) -> list[Value]:
        """The sums of one tile from the addresses ``at``, row by row."""
        begin = [const(vector(self.element_type(), self.lanes), 0)] * (rows * vectors)
        return self.sum_level(0, env, sides, at, begin, rows, vectors)

    def sum_level(
        self,
        j: int,
        env: Env,
        sides: Sides,
        at: list[Value],
        sums: list[Value],
        rows: int,
        vectors: int,
    ) -> list[Value]:
        """The loop of the j-th reduced variable, from the addresses ``at``; the accumulators after it."""
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
