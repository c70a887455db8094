"""A reduction bounded by an output variable that its body does not name, as one running pass.

``y[i] = sum of x[j] for j <= i + c`` adds to the accumulators what each i admits anew. Where the bound runs the other
way (``j >= i - c``) both variables are walked from their ends.
"""

from __future__ import annotations

from graphc.kernels.form import Condition
from graphc.llvm.access import I64, Env
from graphc.llvm.nest import NestWriter
from graphc.llvm.text import Value, const


class RunningWriter(NestWriter):
    """Writes a nest whose schedule names a running variable, the last of its output variables."""

    def loop_guards(self) -> list[Condition]:
        """None: the one guard is what the pass runs by."""
        return []

    def output_level(self, k: int, env: Env) -> None:
        """The loops of other output variables, then the pass."""
        order = self.nest.schedule.order
        if k < len(order) - 1:
            super().output_level(k, env)
            return
        w, (variable,) = self.w, self.nest.reduced
        before = self.at("loop", order[-1])
        start = [a for r in self.nest.reductions for a in self.initial(r)]
        guard = self.nest.guards[0]
        upwards = guard.expr.coefficient(order[-1]) > 0
        extent, depth = (self.sizes.value(self.nest.extents[v]) for v in (order[-1], variable))
        ahead = w.add(self.sizes.value(guard.expr.const), const(I64, 1))
        if not upwards:
            ahead = w.add(ahead, w.sub(depth, extent))
        outer = w.loop(const(I64, 0), extent, const(I64, 1), [*start, const(I64, 0)])
        *sums, done = outer.carried
        until = w.intrinsic("llvm.smin", I64, [depth, w.add(outer.index, ahead)])
        until = w.intrinsic("llvm.smax", I64, [done, until])
        loop = w.loop(done, until, const(I64, 1), sums)
        turn = self.reduce_turn(0, env, self.place(loop.index, depth, upwards), env.mask, list(loop.carried))
        sums = w.end_loop(loop, turn)
        inner = env.inner()
        inner.index[order[-1]] = self.place(outer.index, extent, upwards)
        self.finish(inner, self.joined(sums))
        w.end_loop(outer, [*sums, until])
        w.location = before

    def place(self, step: Value, extent: Value, upwards: bool) -> Value:
        """The variable's value at a step of the walk."""
        w = self.w
        return step if upwards else w.sub(w.sub(extent, const(I64, 1)), step)
