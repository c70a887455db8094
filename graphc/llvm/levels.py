"""The instructions of a nest as LLVM, each at its level.

Every instruction is written at the loop level of the deepest variable that it depends on, so nothing invariant is
computed in an inner loop. What does not depend on the vector variable stays a scalar and is splatted where it is used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

from graphc.graph.scalar import Instr, const_value
from graphc.kernels.form import Access, Buffer, Code, Condition, Nest
from graphc.kernels.split import divided_level, lanes_of
from graphc.llvm.access import CONTEXT, HEAD, I64, MEMBER, Accesses, Env, Places
from graphc.llvm.scalars import MEMORY, TYPES, emit_cast, emit_primitive
from graphc.llvm.sizes import Sizes
from graphc.llvm.text import Value, Writer, const, lanes
from graphc.structs import replace


class LevelsWriter(Accesses):
    """Writes the instructions of one nest into a function. ``locate`` writes the address of a buffer."""

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
