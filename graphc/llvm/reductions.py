"""The reductions of a nest as LLVM: loops that carry accumulators, and how the lanes of these are joined at the end."""

from __future__ import annotations

from functools import partial

from graphc.graph.dtypes import DTYPES, DType
from graphc.kernels.form import Reduction
from graphc.llvm.access import I64, Env
from graphc.llvm.levels import LevelsWriter
from graphc.llvm.scalars import TYPES, is_float
from graphc.llvm.text import Value, const, lanes, vector
from graphc.ops.combiners import COMBINERS

APART = 4  # accumulators of a reduction with short turns, a power of two
SHORT_BODY = 8  # instructions


class ReductionsWriter(LevelsWriter):
    """The part of a nest's writer that reduces."""

    def accumulator_type(self, dtype: DType) -> str:
        """The type of an accumulator: a vector wherever there is a vector variable."""
        return vector(TYPES[dtype.name], self.lanes)

    def initial(self, reduction: Reduction) -> list[Value]:
        """The first values of a reduction's accumulators."""
        if reduction.combine in ("argmax", "argmin"):
            value = DTYPES[self._value_dtype(reduction).name]
            worst = COMBINERS["max" if reduction.combine == "argmax" else "min"].identity(value)
            return [const(self.accumulator_type(value), worst), const(vector(I64, self.lanes), -1)]
        identity = COMBINERS[reduction.combine].identity(reduction.dtype)
        return [const(self.accumulator_type(reduction.dtype), identity)]

    def _value_dtype(self, reduction: Reduction) -> DType:
        return self.nest.body.instrs[reduction.value].dtype

    def reduce_level(self, j: int, env: Env, accumulators: list[Value]) -> list[Value]:
        """The loops of the reduced variables from the j-th on; the accumulators after them."""
        reduced = self.nest.reduced
        if j == len(reduced):
            return self.combine(env, accumulators)
        variable = reduced[j]
        before = self.at("loop", variable)
        start, stop = self.bounds(variable, env)
        if variable == self.vector:
            after = self.reduce_blocks(j, env, start, stop, accumulators)
        else:
            if j == len(reduced) - 1 and self.goes_apart(variable):
                start, accumulators = self.reduce_apart(j, env, start, stop, accumulators)
            loop = self.w.loop(start, stop, const(I64, 1), accumulators)
            after = self.w.end_loop(loop, self.reduce_turn(j, env, loop.index, env.mask, list(loop.carried)))
        self.w.location = before
        return after

    def goes_apart(self, variable: int) -> bool:
        """Whether a reduction runs in several accumulators: its turns are so short that each would wait for the one
        before it, and all are run."""
        extent = self.nest.extents[variable]
        known = [r.combine in ("sum", "prod", "max", "min") and r.dtype.kind == "f" for r in self.nest.reductions]
        short = len(self.nest.body.instrs) <= SHORT_BODY
        return short and all(known) and not self.nest.guards and (not isinstance(extent, int) or extent >= 4 * APART)

    def reduce_apart(
        self, j: int, env: Env, start: Value, stop: Value, first: list[Value]
    ) -> tuple[Value, list[Value]]:
        """Whole groups of ``APART`` turns, each turn of a group with accumulators of its own, which are joined by a
        fixed tree; where the turns that are left begin, and the accumulators so far."""
        w = self.w
        whole = (
            w.add(start, w.and_(w.sub(stop, start), const(I64, -APART)))
            if stop.text.startswith("%")
            else const(I64, int(stop.text) // APART * APART)
        )
        fresh = [value for r in self.nest.reductions for value in self.initial(r)]  # first holds what came before
        loop = w.loop(start, whole, const(I64, APART), first + fresh * (APART - 1))
        after: list[Value] = []
        for turn in range(APART):
            index = loop.index if turn == 0 else w.add(loop.index, const(I64, turn))
            held = list(loop.carried[turn * len(first) : (turn + 1) * len(first)])
            after += self.reduce_turn(j, env, index, env.mask, held)
        current = w.end_loop(loop, after)
        groups = [current[k : k + len(first)] for k in range(0, len(current), len(first))]
        while len(groups) > 1:
            pairs = zip(groups[::2], groups[1::2], strict=True)
            groups = [
                [self.join(r.combine, a, b) for r, a, b in zip(self.nest.reductions, x, y, strict=True)]
                for x, y in pairs
            ]
        return whole, groups[0]

    def reduce_turn(self, j: int, env: Env, index: Value, mask: Value | None, accumulators: list[Value]) -> list[Value]:
        """One turn of the loop of the j-th reduced variable."""
        inner = env.inner(mask=mask)
        variable = self.nest.reduced[j]
        inner.index[variable] = index
        self.at_level("body", self.level[variable], inner)
        return self.reduce_level(j + 1, inner, accumulators)

    def reduce_blocks(self, j: int, env: Env, start: Value, stop: Value, accumulators: list[Value]) -> list[Value]:
        """Whole vectors of the last reduced variable, then the rest under a mask, where it adds the identity."""
        w, n = self.w, self.lanes
        count = w.sub(stop, start) if start.text != "0" else stop
        fixed = not count.text.startswith("%")
        whole = const(I64, int(count.text) // n * n) if fixed else w.and_(count, const(I64, -n))
        end = w.add(start, whole) if start.text != "0" else whole
        if not fixed or int(whole.text):
            loop = w.loop(start, end, const(I64, n), accumulators)
            accumulators = w.end_loop(loop, self.reduce_turn(j, env, loop.index, None, list(loop.carried)))
        if fixed and int(count.text) % n == 0:
            return accumulators
        mask = w.lane_mask(n, w.sub(stop, end) if not fixed else const(I64, int(count.text) % n))
        if fixed:
            return self.reduce_turn(j, env, end, mask, accumulators)
        tail = w.if_(w.icmp("slt", end, stop))
        after = self.reduce_turn(j, env, end, mask, accumulators)
        then = w.block
        w.end_if(tail)
        return [w.phi(a.type, [(a, then), (old, tail.otherwise)]) for a, old in zip(after, accumulators, strict=True)]

    def combine(self, env: Env, accumulators: list[Value]) -> list[Value]:
        """The accumulators with the point's values added; a point outside the guards or the mask changes nothing."""
        w = self.w
        result: list[Value] = []
        at = 0
        outside = self.w.location
        for number, store in enumerate(self.nest.inner):
            self.at("inner", number)
            self.store(store.access, env.values["body", store.value], False, env, env.mask)
        for number, reduction in enumerate(self.nest.reductions):
            self.at("reduce", number)
            if reduction.combine in ("argmax", "argmin"):
                result += self._better(reduction, accumulators[at], accumulators[at + 1], env)
                at += 2
                continue
            old = accumulators[at]
            at += 1
            self.at("guard", 0)
            condition = self.condition(self.loop_guards(), env, self.lanes)
            self.at("reduce", number)
            if env.mask is not None and self.vector in self.nest.reduced:
                condition = env.mask if condition is None else w.and_(condition, env.mask)
            result.append(self._combined(reduction, old, condition, env))
        w.location = outside
        return result

    def _combined(self, reduction: Reduction, old: Value, condition: Value | None, env: Env) -> Value:
        w = self.w
        instr = self.nest.body.instrs[reduction.value]
        if reduction.combine == "sum" and instr.is_product and is_float(old) and condition is None:
            a, b = (self.operand("body", arg, env, bool(self.lanes)) for arg in instr.args)
            return w.muladd(a, b, old)
        value = self.operand("body", reduction.value, env, bool(self.lanes))
        if condition is not None:
            identity = const(value.type, COMBINERS[reduction.combine].identity(reduction.dtype))
            value = w.select(self.widened(condition), value, identity)
        return self.join(reduction.combine, old, value)

    def _better(self, reduction: Reduction, best: Value, at: Value, env: Env) -> list[Value]:
        """The best value and its index: the first wins a tie, a NaN wins over all."""
        w = self.w
        value = self.operand("body", reduction.value, env, bool(self.lanes))
        here = w.splat(env.index[self.nest.reduced[-1]], self.lanes)
        if self.vector in self.nest.reduced:
            here = w.add(here, w.lane_numbers(here.type))
        wins = w.or_(self._wins(reduction, value, best), w.icmp("slt", at, const(at.type, 0)))
        if env.mask is not None and self.vector in self.nest.reduced:
            wins = w.and_(wins, env.mask)
        return [w.select(wins, value, best), w.select(wins, here, at)]

    def _wins(self, reduction: Reduction, value: Value, best: Value) -> Value:
        """Whether ``value`` is better than ``best``: beyond it, or a NaN where that is none."""
        w, larger = self.w, reduction.combine == "argmax"
        if not is_float(value):
            return w.icmp("sgt" if larger else "slt", value, best)
        beyond = w.fcmp("ogt" if larger else "olt", value, best)
        return w.or_(beyond, w.and_(w.fcmp("uno", value, value), w.fcmp("ord", best, best)))

    def _best_of_lanes(self, reduction: Reduction, best: Value, at: Value) -> Value:
        """The index of the best lane; of equal ones the lowest. A lane without an index has met no value."""
        w, n = self.w, lanes(best.type)
        while n > 1:
            half = n // 2
            if half > 1:
                low, high = (
                    [w.shuffle(v, None, range(k * half, k * half + half)) for v in (best, at)] for k in range(2)
                )
            else:
                low, high = ([w.extract(v, k) for v in (best, at)] for k in range(2))
            beats = self._wins(reduction, high[0], low[0])
            loses = self._wins(reduction, low[0], high[0])
            earlier = w.and_(w.not_(loses), w.icmp("slt", high[1], low[1]))
            beats = w.or_(w.or_(beats, earlier), w.icmp("slt", low[1], const(low[1].type, 0)))
            beats = w.and_(beats, w.icmp("sge", high[1], const(high[1].type, 0)))
            best, at = (w.select(beats, a, b) for a, b in zip(high, low, strict=True))
            n = half
        return at

    def joined(self, accumulators: list[Value]) -> list[Value]:
        """The reductions' results: partial results joined by a fixed tree where the vector variable is reduced."""
        results: list[Value] = []
        at, outside = 0, self.w.location
        for number, reduction in enumerate(self.nest.reductions):
            self.at("reduce", number)
            if reduction.combine in ("argmax", "argmin"):
                best, where = accumulators[at : at + 2]
                reduced = self.vector in self.nest.reduced
                results.append(self._best_of_lanes(reduction, best, where) if reduced else where)
                at += 2
                continue
            value = accumulators[at]
            at += 1
            if lanes(value.type) and self.vector in self.nest.reduced:
                value = self.w.reduce(partial(self.join, reduction.combine), value)
            results.append(value)
        self.w.location = outside
        return results
