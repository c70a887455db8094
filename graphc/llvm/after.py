"""What follows the sums of a product's tile: its post program (bias, activation, the optimizer's update) and stores.

A short one runs on the tile's registers. A longer one is a function of its own over the tile in memory. What that will
read or write of arrays in memory is asked for while the tile's sums are made.
"""

from __future__ import annotations

from collections.abc import Sequence

from graphc.kernels.form import LANES, Access
from graphc.kernels.schedule import nominal
from graphc.llvm.access import CONTEXT, I64, Env
from graphc.llvm.lines import lines_function
from graphc.llvm.nest import NestWriter
from graphc.llvm.scalars import MEMORY
from graphc.llvm.text import Value, const, vector

INLINE_POST = 150  # instructions of all registers; a longer post program is written once, over the tile in memory
FAR_BYTES = 1 << 22  # of all arrays of a program, beyond which no inner cache holds them from one step to the next


class AfterWriter(NestWriter):
    """The part of a product's writer that knows what follows a tile's sums.

    table: where addresses and strides stand that the function for this takes, if it is called."""

    table: Value | None = None

    def element_type(self) -> str:
        """The type of one product."""
        return MEMORY[self.nest.reductions[0].dtype.name]

    def memory(self, access: Access) -> str:
        """The element type of an access in memory."""
        return MEMORY[self.buffers[access.buffer].dtype.name]

    def far(self) -> list[Access]:
        """What the post program reads or writes of arrays as large as the result, where these lie in memory."""
        column, row = self.vector, self.nest.schedule.tile_row
        n_bytes = sum(nominal(b.size) * (8 if LANES[b.dtype.name] == 8 else 4) for b in self.buffers)
        if n_bytes < FAR_BYTES or len(self.nest.reduced) > 1 or self.stretch is not None:
            return []
        each = dict.fromkeys([*self.nest.loads[2:], *(s.access for s in self.nest.stores)])
        return [a for a in each if a.flat.stride(column) == 1 and a.flat.stride(row) != 0 and not a.data]

    def lines_ahead(self, env: Env, rows: int, vectors: int) -> Value:
        """The addresses of what the post program will touch of far arrays, a column of one array after another: a row
        of a tile ends soon, and no hardware foresees the next. Where there are few steps all are asked for here."""
        w, count = self.w, self.n_lines(rows, vectors)
        if not count:
            return Value("null", "ptr")
        lines, far = w.alloca("ptr", count), self.far()
        kinds = [self.memory(access) for access in far]
        name = lines_function(w.module, rows, self.nest.schedule.tile[1], self.lanes, kinds)
        arguments = [lines, const(I64, vectors), w.cast("zext", self.fetches(const(I64, count)), I64)]
        for access, kind in zip(far, kinds, strict=True):
            arguments.append(w.gep(self.pointers[access.buffer], self.offset(access.flat, env), kind))
            arguments.append(self.sizes.value(access.flat.stride(self.nest.schedule.tile_row)))
        w.call(name, "void", arguments)
        return lines

    def n_lines(self, rows: int, vectors: int) -> int:
        """How many lines a tile asks for; none where it has fewer rows than others, which is not worth the code."""
        return rows * vectors * len(self.far()) if rows == self.nest.schedule.tile[0] else 0

    def fetches(self, count: Value) -> Value:
        """Whether the sum has at least as many steps as a tile has lines: in fewer most would not get their turn."""
        return self.w.icmp("sge", self.sizes.value(self.nest.extents[self.nest.n_out]), count)

    def lines_a_step(self, rows: int, vectors: int) -> Value | None:
        """How many lines are asked for at every step of the sum, in 65536ths; where there are few steps, 0, which
        stands for the same one again and again."""
        w, count = self.w, self.n_lines(rows, vectors)
        if not count:
            return None
        depth = self.nest.extents[self.nest.n_out]
        if isinstance(depth, int):
            return const(I64, (count << 16) // depth if depth >= count else 0)
        steps = w.intrinsic("llvm.smax", I64, [self.sizes.value(depth), const(I64, 1)])  # by 0 would be a signal
        each = w.new(I64, f"udiv i64 {count << 16}, {steps.text}")
        return w.select(self.fetches(const(I64, count)), each, const(I64, 0))

    def is_short(self) -> bool:
        """Whether the post program is short enough to be written for every register of the tile."""
        rows, vectors = self.most_rows(), self.nest.schedule.tile[1]
        own = sum(1 for i in self.nest.post.instrs if i.op not in ("acc", "const"))
        if self.in_place() and self.ends_masked():
            return False
        return (own + len(self.nest.stores)) * rows * vectors <= INLINE_POST

    def leave_registers(self, env: Env, sums: list[Value], rows: int, vectors: int) -> None:
        """Run the post program on every register and store."""
        for c in range(vectors):
            inner = self.cell_column(env, const(I64, c * self.lanes), c == vectors - 1)
            for r in range(rows):
                self.cell(inner, const(I64, r), sums[r * vectors + c])

    def leave_memory(self, env: Env, memory: Value, kind: str, rows: int, vectors: int) -> None:
        """Run the post program on a tile in memory, by the nest's one function for that."""
        w = self.w
        whole, rest = vectors, const(I64, 0)
        if env.mask is not None:
            whole = vectors - 1
            first = w.add(env.index[self.vector], const(I64, whole * self.lanes))
            rest = w.sub(self.sizes.value(self.nest.extents[self.vector]), first)
        index = [env.index[v] for v in self.nest.schedule.order]
        shape = [const(I64, rows), const(I64, whole), rest, const(I64, vectors)]
        name = self.post_function(kind)
        if self.table is None:
            self.table = w.alloca("ptr", max(1, len(self.told())))
        w.call(name, "void", [CONTEXT, memory, *index, *shape, self.table])

    def accesses(self) -> list[Access]:
        """What the post program reads and writes."""
        read = {i.attr for i in self.nest.post.instrs if i.op == "read"}
        return [load for k, load in enumerate(self.nest.loads) if k in read] + [s.access for s in self.nest.stores]

    def prepare(self, accesses: Sequence[Access]) -> None:
        """Evaluate here the strides that are known when the program runs."""
        for access in accesses:
            for size in (access.flat.const, *(stride for _, stride in access.flat.terms)):
                self.sizes.prepare(size)

    def told(self) -> list[tuple[str, int]]:
        """What a nest's post program has of its own, and may share its function without: the buffers of its ``table``,
        and the strides from row to row."""
        accesses = self.accesses()
        rows = [access.flat.stride(self.nest.schedule.tile_row) for access in accesses]
        buffers = dict.fromkeys(k for access in accesses for k in access.buffers())
        strides = dict.fromkeys(stride for stride in rows if isinstance(stride, int) and stride > 1)
        return [*(("buffer", k) for k in buffers), *(("stride", stride) for stride in strides)]

    def fill_table(self, at: int) -> None:
        """Writes the table, if there is one, before what the writer has from ``at`` on: once for all tiles."""
        if self.table is None:
            return
        w, end = self.w, len(self.w.lines)
        for n, (what, number) in enumerate(self.told()):
            value = self.pointers[number] if what == "buffer" else const(I64, number)
            w.store(value, w.gep(self.table, const(I64, n), I64), 8)
        w.lines[at:] = [*w.lines[end:], *w.lines[at:end]]

    def post_function(self, kind: str) -> str:
        """The name of the function that runs the post program on a tile in memory and stores, for whole vectors and for
        a masked one. Nests whose post programs differ by their tables alone share one."""
        name = f"{self.nest.name}_post"
        if name in self.names:
            return self.names[name]
        memory, table = Value("%memory", "ptr"), Value("%table", "ptr")
        index = [Value(f"%i{k}", I64) for k in range(len(self.nest.schedule.order))]
        rows, whole, rest, across = (Value(text, I64) for text in ("%rows", "%whole", "%rest", "%across"))
        with self.function(name, [memory, *index, rows, whole, rest, across, table], shared=True):
            pointers = {}
            for n, (what, number) in enumerate(self.told()):
                place = self.w.gep(table, const(I64, n), I64)
                if what == "buffer":
                    pointers[number] = self.w.load("ptr", place, 8)
                else:
                    self.sizes.tell(number, self.w.load(I64, place, 8))
            self.pointers = pointers
            self.prepare(self.accesses())
            w = self.w
            env = Env(index=dict(zip(self.nest.schedule.order, index, strict=True)))
            self.evaluate_without(env, (self.vector, self.nest.schedule.tile_row))
            extent = self.nest.extents[self.vector]
            if not isinstance(extent, int) or extent >= self.lanes:
                self.whole_columns(env, memory, kind, rows, whole, across)
            if self.ends_masked():
                masked = w.if_(w.icmp("sgt", rest, const(I64, 0)))
                env = env.inner(mask=w.lane_mask(self.lanes, rest))
                inner = self.cell_column(env, w.mul(whole, const(I64, self.lanes)), True)
                self.memory_rows(inner, memory, kind, whole, rows, across)
                w.end_if(masked)
        return self.names[name]

    def whole_columns(self, env: Env, memory: Value, kind: str, rows: Value, whole: Value, across: Value) -> None:
        """The cells of a tile in memory but for a masked column, column by column.

        Where values are updated in place they come row by row: a processor compares the last bits of a load's address
        with those of stores before it, and lines of arrays often lie a multiple of 4096 bytes apart.
        """
        w = self.w
        if not self.in_place():
            loop = w.loop(const(I64, 0), whole, const(I64, 1))
            inner = self.cell_column(env, w.mul(loop.index, const(I64, self.lanes)), False)
            self.memory_rows(inner, memory, kind, loop.index, rows, across)
            w.end_loop(loop)
            return
        down = w.loop(const(I64, 0), rows, const(I64, 1))
        inner = self.row(env, down.index)
        self.evaluate_without(inner, (self.vector,))
        line = w.gep(memory, w.mul(down.index, across), kind)
        along = w.loop(const(I64, 0), whole, const(I64, 1))
        inner = self.cell_column(inner, w.mul(along.index, const(I64, self.lanes)), False)
        self.finish(inner, [w.load(kind, w.gep(line, along.index, kind), 64)])
        w.end_loop(along)
        w.end_loop(down)

    def ends_masked(self) -> bool:
        """Whether the last vector of a row is not whole, or may be."""
        extent = self.nest.extents[self.vector]
        return not isinstance(extent, int) or extent % self.lanes != 0

    def in_place(self) -> bool:
        """Whether the post program reads an array that it writes."""
        places = [s.access.buffer for s in self.nest.stores]
        return any(load.buffer in places for load in self.nest.loads)

    def memory_rows(self, env: Env, memory: Value, kind: str, column: Value, rows: Value, across: Value) -> None:
        """The cells of one column of a tile in memory, in a loop.

        Under a mask, values that are updated in place wait until all rows are computed: a processor compares the
        address of a load with those of stores before it without their masks, and a row ends where the next begins.
        """
        w = self.w
        waiting = self.waiting() if env.mask is not None else []
        down = w.loop(const(I64, 0), rows, const(I64, 1))
        place = w.add(w.mul(down.index, across), column)
        value = w.load(kind, w.gep(memory, place, kind), 64)
        inner = self.row(env, down.index)
        if not waiting:
            self.finish(inner, [value])
            w.end_loop(down)
            return
        self.compute(inner, [value])
        for store, aside in zip(self.nest.stores, waiting, strict=True):
            wide = self.operand("post", store.value, inner, True)
            w.store(wide, w.gep(aside, down.index, wide.type), 64)
        w.end_loop(down)
        again = w.loop(const(I64, 0), rows, const(I64, 1))
        inner = self.row(env, again.index)
        for number, (store, aside) in enumerate(zip(self.nest.stores, waiting, strict=True)):
            before = self.at("store", number)
            stored = vector(MEMORY[self.buffers[store.access.buffer].dtype.name], self.lanes)
            self.store(
                store.access, w.load(stored, w.gep(aside, again.index, stored), 64), store.add, inner, inner.mask
            )
            w.location = before
        w.end_loop(again)

    def waiting(self) -> list[Value]:
        """Memory for the values of each store of a column of a tile, if some are updated in place."""
        places = [s.access.buffer for s in self.nest.stores]
        if not self.in_place() or any(self.buffers[k].dtype.kind == "b" for k in places):
            return []
        kinds = [vector(MEMORY[self.buffers[k].dtype.name], self.lanes) for k in places]
        return [self.w.alloca(kind, self.most_rows()) for kind in kinds]

    def most_rows(self) -> int:
        """The rows of the largest tile."""
        return self.nest.schedule.tile[0]

    def evaluate_without(self, env: Env, variables: tuple[int, ...]) -> None:
        """Write what the post program needs that depends on none of ``variables``."""
        for position, instr in enumerate(self.nest.post.instrs):
            if ("post", position) in env.values or any(v in self.depends["post"][position] for v in variables):
                continue
            env.values["post", position] = self.instruction("post", position, instr, env)

    def cell_column(self, env: Env, offset: Value, last: bool) -> Env:
        """The environment of one vector of columns, with what the post program needs of the column alone."""
        inner = env.inner(mask=env.mask if last else None)
        start = inner.index[self.vector]
        inner.index[self.vector] = start if offset.text == "0" else self.w.add(start, offset)
        self.evaluate_without(inner, (self.nest.schedule.tile_row,))
        return inner

    def cell(self, env: Env, offset: Value, value: Value) -> None:
        """The post program and the stores of one cell."""
        self.finish(self.row(env, offset), [value])

    def row(self, env: Env, offset: Value) -> Env:
        """The environment of one row of a tile."""
        inner = env.inner()
        row = self.nest.schedule.tile_row
        first = inner.index[row]
        inner.index[row] = first if offset.text == "0" else self.w.add(first, offset)
        return inner
