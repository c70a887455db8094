"""A reduction along registers for as many rows at once as a register has lanes.

Each row has a register of partial results. These are joined all together: where a single row's register is folded, its
upper half onto its lower, two rows fold into one register, so the rows' results end up side by side, and what follows
them runs on whole vectors. Rows left over are done one by one. A row's order of additions is the same either way.
"""

from __future__ import annotations

from collections.abc import Sequence

from graphc.llvm.access import I64, Env
from graphc.llvm.nest import NestWriter
from graphc.llvm.text import Value, const


class RowsWriter(NestWriter):
    """Writes a nest whose schedule names ``rows``, the last of its output variables; the vector variable is reduced."""

    first: Value | None = None  # of the rows of a whole block, while one is written

    def output_level(self, k: int, env: Env) -> None:
        """The loops of other output variables, then blocks of rows, then the rows left."""
        order = self.nest.schedule.order
        if k != len(order) - 1:
            super().output_level(k, env)
            return
        w, n = self.w, self.lanes
        extent = self.sizes.value(self.nest.extents[order[-1]])
        fixed = not extent.text.startswith("%")
        whole = const(I64, int(extent.text) // n * n) if fixed else w.and_(extent, const(I64, -n))

        def left() -> None:
            loop = w.loop(whole, extent, const(I64, 1))
            self.inside(k, env, loop.index, env.mask)
            w.end_loop(loop)

        if k == self.divided:
            units = const(I64, int(whole.text) // n) if fixed else w.op("lshr", whole, const(I64, n.bit_length() - 1))
            self.shared_loop(units, n, lambda first: self.block(env, first))
        else:
            loop = w.loop(const(I64, 0), whole, const(I64, n))
            self.block(env, loop.index)
            w.end_loop(loop)
        if whole.text != extent.text:
            self.by_first(left) if k == self.divided else left()

    def block(self, env: Env, first: Value) -> None:
        """As many rows as there are lanes, from ``first`` on."""
        (reduction,) = self.nest.reductions
        self.first = first
        before = self.at("loop", self.nest.schedule.rows)
        sums = self.reduce_level(0, env.inner(), self.initial(reduction) * self.lanes)
        self.first = None
        along, self.vector = self.vector, self.nest.schedule.rows
        inner = env.inner()
        inner.index[self.vector] = first
        self.at("reduce", 0)
        folded = self.folded(reduction.combine, sums)
        self.w.location = before
        self.finish(inner, [folded])
        self.vector = along

    def reduce_turn(self, j: int, env: Env, index: Value, mask: Value | None, accumulators: list[Value]) -> list[Value]:
        """One turn of the loop of the j-th reduced variable; in a block, what depends on the row is left to each."""
        if self.first is None:
            return super().reduce_turn(j, env, index, mask, accumulators)
        inner = env.inner(mask=mask)
        variable = self.nest.reduced[j]
        inner.index[variable] = index
        depends = self.depends["body"]
        for position, instr in enumerate(self.nest.body.instrs):
            own = self.nest.schedule.rows not in depends[position]
            if own and self.depth(depends[position]) == self.level[variable]:
                inner.values["body", position] = self.instruction("body", position, instr, inner)
        return self.reduce_level(j + 1, inner, accumulators)

    def combine(self, env: Env, accumulators: list[Value]) -> list[Value]:
        """The accumulators with the point's values added: in a block, those of every row."""
        if self.first is None:
            return super().combine(env, accumulators)
        result: list[Value] = []
        for row, old in enumerate(accumulators):
            inner = env.inner()
            inner.index[self.nest.schedule.rows] = self.w.add(self.first, const(I64, row)) if row else self.first
            for position, instr in enumerate(self.nest.body.instrs):
                if ("body", position) not in inner.values:
                    inner.values["body", position] = self.instruction("body", position, instr, inner)
            result += super().combine(inner, [old])
        return result

    def folded(self, combine: str, rows: Sequence[Value]) -> Value:
        """The rows' results side by side. Each turn halves the run of partial results that a row has."""
        w, n = self.w, self.lanes
        current, run = list(rows), n
        while run > 1:
            half = run // 2
            low = [g * run + i for g in range(2 * n // run) for i in range(half)]
            pairs = zip(current[::2], current[1::2], strict=True)
            current = [
                self.join(combine, w.shuffle(a, b, low), w.shuffle(a, b, [i + half for i in low])) for a, b in pairs
            ]
            run = half
        return current[0]
