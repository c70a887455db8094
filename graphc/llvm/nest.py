"""One nest as LLVM: loops, code motion, vectors, masks and reductions.

Every instruction is written at the loop level of the deepest variable that it depends on, so nothing invariant is
computed in an inner loop. What does not depend on the vector variable stays a scalar and is splatted where it is used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

from graphc.graph.dtypes import DTYPES, DType
from graphc.graph.scalar import Instr, const_value
from graphc.graph.sizes import product
from graphc.kernels.form import Access, Buffer, Code, Condition, Nest, Reduction
from graphc.kernels.split import divided_level, lanes_of
from graphc.llvm.access import CONTEXT, HEAD, I64, MEMBER, SHIFT, Accesses, Env, Places
from graphc.llvm.scalars import MEMORY, TYPES, emit_cast, emit_primitive, is_float
from graphc.llvm.sizes import Sizes
from graphc.llvm.text import Value, Writer, const, lanes, vector
from graphc.ops.combiners import COMBINERS
from graphc.structs import replace

APART = 4  # accumulators of a reduction with short turns, a power of two
SHORT_BODY = 8  # instructions


class NestWriter(Accesses):
    """Writes one nest into a function. ``locate`` writes the address of a buffer."""

    def __init__(
        self,
        w: Writer,
        nest: Nest,
        buffers: Sequence[Buffer],
        locate: Callable[[Writer, int], Value],
        sizes: Sizes,
        places: Places,
    ) -> None:
        self.w = w
        self.names: dict[str, str] = {}  # of the functions written for the nest, shared ones by another's
        self.attributes = "noinline"  # of the function that the nest is written into
        self.places = places
        self.nest = nest
        self.buffers = buffers
        self.locate = locate
        scratch = {nest.scratch} if nest.scratch >= 0 else set()
        self.pointers = {k: locate(w, k) for k in sorted({*nest.reads(), *nest.writes(), *scratch})}
        self.sizes = sizes
        self.divided = divided_level(nest)
        self.stretch: tuple[Value, Value] | None = None  # first and end of the block of a sum that is being written
        if nest.scratch >= 0 and self.divided >= 0:
            own, kind = w.mul(MEMBER, sizes.value(nest.schedule.panel)), MEMORY[buffers[nest.scratch].dtype.name]
            self.pointers[nest.scratch] = w.gep(self.pointers[nest.scratch], own, kind)
        self.vector = nest.schedule.vector
        self.order = (*nest.schedule.order, *nest.reduced)
        self.level = {v: k + 1 for k, v in enumerate(self.order)}
        self.lanes = lanes_of(nest, buffers) if self.vector >= 0 else 0
        self.depends = {"body": self._dependence(nest.body), "post": self._dependence(nest.post)}

    @contextmanager
    def function(
        self, name: str, params: Sequence[Value], pointers: Iterable[int] = (), shared: bool = False
    ) -> Iterator[None]:
        """What is written meanwhile is the body of a function of the module, whose first parameter is the context.

        pointers: the buffers whose addresses it needs; like sizes they are read anew there. shared: by all that are the
        same, whatever their nests; ``names`` has what it is called.
        """
        caller, sizes, known = self.w, self.sizes, self.pointers
        self.w = Writer(caller.module)
        self.at(*HEAD)
        self.pointers = {k: self.locate(self.w, k) for k in pointers}
        self.sizes = Sizes(self.w, CONTEXT, sizes.dims)
        for size in () if shared else sizes.prepared():
            self.sizes.prepare(size)
        yield
        self.w.ret()
        self.names[name] = name
        if shared:
            self.names[name] = self.w.module.share(name, "void", [CONTEXT, *params], self.w, "internal", "noinline")
        else:
            self.w.module.define(name, "void", [CONTEXT, *params], self.w, "internal", "noinline")
        self.w, self.sizes, self.pointers = caller, sizes, known

    # Dependence

    def _dependence(self, code: Code) -> list[frozenset[int]]:
        """For each instruction the variables that its value depends on; a reduction's result on the output
        variables.
        """
        found: list[frozenset[int]] = []
        outer = frozenset(range(self.nest.n_out))
        for instr in code.instrs:
            own: frozenset[int] = frozenset()
            if instr.op == "read" and isinstance(instr.attr, int):
                own = self.access_variables(self.nest.loads[instr.attr])
            elif instr.op == "index" and isinstance(instr.attr, int):
                own = frozenset((instr.attr,))
            elif instr.op == "acc":
                own = outer
            for arg in instr.args:
                own |= found[arg]
            found.append(own)
        return found

    def access_variables(self, access: Access) -> frozenset[int]:
        """The variables that move an access or its guards."""
        return frozenset(v for v in range(len(self.nest.extents)) if access.moves_with(v))

    def depth(self, variables: frozenset[int]) -> int:
        """The level of the deepest of some variables; 0 outside all loops."""
        return max((self.level[v] for v in variables), default=0)

    # Whole nest

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

    def at_level(self, program: str, level: int, env: Env) -> None:
        """Write the instructions of a program whose deepest variable opens at ``level``."""
        code = self.code(program)
        last = len(self.nest.schedule.order)
        for position, instr in enumerate(code.instrs):
            variables = self.depends[program][position]
            if self.depth(variables) != level or (program, position) in env.values:
                continue
            if program == "post" and level == last and self.nest.reductions:
                continue  # written after the reduction
            env.values[program, position] = self.instruction(program, position, instr, env)

    def code(self, program: str) -> Code:
        """The body or the post program."""
        return self.nest.body if program == "body" else self.nest.post

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

    # Reductions

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

    # Guards

    def loop_guards(self) -> list[Condition]:
        """The nest's guards that are not loop bounds."""
        return [g for g in self.nest.guards if self.bound_of(g) is None]

    def bound_of(self, guard: Condition) -> int | None:
        """The reduced variable whose loop a guard bounds: it has coefficient ±1 and all others are open outside it."""
        if guard.kind != "ge" or guard.data is not None:
            return None
        for variable in reversed(self.nest.reduced):
            if abs(guard.expr.coefficient(variable)) == 1:
                others = [v for v, _ in guard.expr.terms if v != variable]
                scalar = self.vector not in others
                return variable if scalar and all(self.level[v] < self.level[variable] for v in others) else None
        return None

    def bounds(self, variable: int, env: Env) -> tuple[Value, Value]:
        """First and end of a reduced variable's loop, narrowed by its guards."""
        w = self.w
        start, stop = const(I64, 0), self.sizes.value(self.nest.extents[variable])
        if self.stretch is not None and variable == self.nest.n_out:
            start, stop = self.stretch
        for guard in self.nest.guards:
            if self.bound_of(guard) != variable:
                continue
            sign = guard.expr.coefficient(variable)
            rest = self.affine_scalar(
                replace(guard.expr, terms=tuple(t for t in guard.expr.terms if t[0] != variable)), env
            )
            if sign > 0:  # v >= -rest
                start = w.intrinsic("llvm.smax", I64, [start, w.sub(const(I64, 0), rest)])
            else:  # v <= rest
                stop = w.intrinsic("llvm.smin", I64, [stop, w.add(rest, const(I64, 1))])
        if start.text != "0":
            stop = w.intrinsic("llvm.smax", I64, [stop, start])
        return start, stop

    # Instructions

    def is_vector(self, program: str, position: int) -> bool:
        """Whether an instruction's value differs from lane to lane."""
        return self.vector >= 0 and self.vector in self.depends[program][position]

    def operand(self, program: str, position: int, env: Env, wide: bool) -> Value:
        """The value of an instruction, splatted where a vector is wanted."""
        value = env.values[program, position]
        if not wide or lanes(value.type):
            return value
        if value not in env.splats:
            env.splats[value] = self.w.splat(value, self.lanes)
        return env.splats[value]

    def instruction(self, program: str, position: int, instr: Instr, env: Env) -> Value:
        """The value of one instruction, written here."""
        before = self.at(program, position)
        value = self._instruction(program, position, instr, env)
        self.w.location = before
        return value

    def _instruction(self, program: str, position: int, instr: Instr, env: Env) -> Value:
        w = self.w
        wide = self.is_vector(program, position)
        if instr.op == "const":
            return const(TYPES[instr.dtype.name], const_value(instr))
        if instr.op == "size":
            assert not isinstance(instr.attr, str) and instr.attr is not None
            return self.sizes.value(instr.attr)
        if instr.op == "index" and isinstance(instr.attr, int):
            value = env.index[instr.attr]
            if instr.attr != self.vector:
                return value
            spread = w.splat(value, self.lanes)
            return w.add(spread, w.lane_numbers(spread.type))
        if instr.op == "read" and isinstance(instr.attr, int):
            return self.load(self.nest.loads[instr.attr], env)
        code = self.code(program)
        args = [self.operand(program, a, env, wide) for a in instr.args]
        if instr.op == "cast":
            return emit_cast(w, args[0], code.instrs[instr.args[0]].dtype, instr.dtype)
        return emit_primitive(w, instr.op, args)
