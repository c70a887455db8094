"""One nest as LLVM: the loops over its output points, divided among the members of a team, and what happens at each."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from graphc.graph.sizes import product
from graphc.llvm.access import I64, MEMBER, SHIFT, Env
from graphc.llvm.reductions import ReductionsWriter
from graphc.llvm.scalars import MEMORY
from graphc.llvm.text import Value, const


class NestWriter(ReductionsWriter):
    """Writes one nest into a function."""

    def write(self) -> None:
        """Write the nest's loops where the writer stands."""
        env = Env()
        self.at_level("body", 0, env)
        self.at_level("post", 0, env)
        self.all_points(env)

    def all_points(self, env: Env) -> None:
        """The loops over all output points; where sums go in blocks, for each block of this member's share."""
        size = self.nest.schedule.block
        if not size:
            self.output_level(0, env)
            return
        w, n_out, pointers = self.w, self.nest.n_out, self.pointers
        before = self.at("loop", n_out)
        extent = self.sizes.value(self.nest.extents[n_out])
        elements = self.sizes.value(product(self.nest.extents[:n_out]))
        count = w.op("lshr", w.add(extent, const(I64, size - 1)), const(I64, size.bit_length() - 1))
        loop = w.loop(*self.share(count), const(I64, 1))
        start = w.mul(loop.index, const(I64, size))
        self.stretch = start, w.intrinsic("llvm.smin", I64, [extent, w.add(start, const(I64, size))])
        own = w.mul(loop.index, elements)
        targets = {s.access.buffer: MEMORY[self.buffers[s.access.buffer].dtype.name] for s in self.nest.stores}
        self.pointers = {**pointers, **{k: w.gep(pointers[k], own, kind) for k, kind in targets.items()}}
        self.output_level(0, env)
        w.end_loop(loop)
        self.stretch, self.pointers = None, pointers
        w.location = before

    def output_level(self, k: int, env: Env) -> None:
        """Open the loop of the k-th output variable and all inside it; behind the last, the point itself."""
        order = self.nest.schedule.order
        if k == len(order):
            self.point(env)
            return
        variable = order[k]
        before = self.at("loop", variable)
        extent = self.sizes.value(self.nest.extents[variable])
        if variable == self.vector:
            self.blocks(extent, lambda start, mask: self.inside(k, env, start, mask), k == self.divided)
        else:
            start, stop = self.share(extent) if k == self.divided else (const(I64, 0), extent)
            loop = self.w.loop(start, stop, const(I64, 1))
            self.inside(k, env, loop.index, env.mask)
            self.w.end_loop(loop)
        self.w.location = before

    def inside(self, k: int, env: Env, index: Value, mask: Value | None) -> None:
        """One turn of the loop of the k-th output variable."""
        inner = env.inner(mask=mask)
        inner.index[self.nest.schedule.order[k]] = index
        self.at_level("body", k + 1, inner)
        self.at_level("post", k + 1, inner)
        self.output_level(k + 1, inner)

    def share(self, units: Value) -> tuple[Value, Value]:
        """The first of the units that fall to this member of the team, and the first that do not."""
        w = self.w
        begin = w.op("lshr", w.mul(units, MEMBER), SHIFT)
        return begin, w.op("lshr", w.mul(units, w.add(MEMBER, const(I64, 1))), SHIFT)

    def shared_loop(self, units: Value, step: int, turn: Callable[[Value], None]) -> None:
        """A loop over ``units`` groups of ``step`` points, of which this member does its share."""
        w = self.w
        begin, end = (w.mul(place, const(I64, step)) for place in self.share(units))
        loop = w.loop(begin, end, const(I64, step))
        turn(loop.index)
        w.end_loop(loop)

    def by_first(self, turn: Callable[[], None]) -> None:
        """What member 0 does alone."""
        opened = self.w.if_(self.w.icmp("eq", MEMBER, const(I64, 0)))
        turn()
        self.w.end_if(opened)

    def blocks(self, extent: Value, turn: Callable[[Value, Value | None], None], divided: bool = False) -> None:
        """Whole vectors in a loop, then what is left under a mask; divided: among the members of a team."""
        w, n = self.w, self.lanes
        if not extent.text.startswith("%"):
            whole, rest = int(extent.text) // n * n, int(extent.text) % n
            if divided:
                if whole:
                    self.shared_loop(const(I64, whole // n), n, lambda start: turn(start, None))
                if rest:
                    self.by_first(lambda: turn(const(I64, whole), w.lane_mask(n, const(I64, rest))))
                return
            if whole:
                loop = w.loop(const(I64, 0), const(I64, whole), const(I64, n))
                turn(loop.index, None)
                w.end_loop(loop)
            if rest:
                turn(const(I64, whole), w.lane_mask(n, const(I64, rest)))
            return
        end = w.and_(extent, const(I64, -n))
        if divided:
            self.shared_loop(w.op("lshr", extent, const(I64, n.bit_length() - 1)), n, lambda start: turn(start, None))
            left = w.and_(w.icmp("slt", end, extent), w.icmp("eq", MEMBER, const(I64, 0)))
        else:
            loop = w.loop(const(I64, 0), end, const(I64, n))
            turn(loop.index, None)
            w.end_loop(loop)
            left = w.icmp("slt", end, extent)
        tail = w.if_(left)
        turn(end, w.lane_mask(n, w.sub(extent, end)))
        w.end_if(tail)

    def point(self, env: Env) -> None:
        """One output point (or vector of them): reduce, run the post program, store."""
        results: list[Value] = []
        if self.nest.reductions:
            start = [a for r in self.nest.reductions for a in self.initial(r)]
            found = self.reduce_level(0, env, start)
            results = self.joined(found)
        self.finish(env, results)

    def finish(self, env: Env, results: Sequence[Value]) -> None:
        """The post program on the reductions' results, and the stores."""
        self.compute(env, results)
        mask = env.mask if self.vector < self.nest.n_out else None
        for number, store in enumerate(self.nest.stores):
            before = self.at("store", number)
            self.store(store.access, env.values["post", store.value], store.add, env, mask)
            self.w.location = before

    def compute(self, env: Env, results: Sequence[Value]) -> None:
        """The post program on the reductions' results."""
        for position, instr in enumerate(self.nest.post.instrs):
            if ("post", position) in env.values:
                continue
            if instr.op == "acc" and isinstance(instr.attr, int):
                env.values["post", position] = results[instr.attr]
            else:
                env.values["post", position] = self.instruction("post", position, instr, env)
