"""The loop form as text: kernels as loops that a person reads, and the memory plan."""

from __future__ import annotations

from collections.abc import Sequence

from graphc.graph.graph import Graph
from graphc.graph.scalar import Instr
from graphc.graph.sizes import SizeLike
from graphc.kernels.form import Access, Code, Condition, Flat, IndexCheck, Kernel, Nest, Program
from graphc.kernels.memory import lives
from graphc.kernels.told import told
from graphc.structs import dataclass


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the listing, which machine code names as its source.

    kernel: its position in the program, -1 for an empty line. part, number: what of the kernel it states: ``head``;
    ``loop`` of a variable; ``guard``; an instruction of ``body`` or ``post``; an ``inner`` store; ``start`` and
    ``reduce`` of a reduction; a ``store``. nodes: the graph nodes whose values it computes. loads: those that it loads.
    uses: the lines of instructions that it takes, by number in ``body`` (for inner stores and reductions) or ``post``.
    """

    text: str
    kernel: int = -1
    part: str = ""
    number: int = 0
    nodes: tuple[int, ...] = ()
    loads: tuple[int, ...] = ()
    uses: tuple[int, ...] = ()


def listing(program: Program, graph: Graph | None = None) -> list[Line]:
    """Every kernel of a program, in order, as lines; an empty one between two kernels.

    graph: that of which the program was made (``lower.prepared``), to say what each kernel computes.
    """
    lines: list[Line] = []
    for position, kernel in enumerate(program.kernels):
        lines += [Line("")] if lines else []
        lines += _Lister(program, kernel, position, graph).lines
    return lines


def source_lines(program: Program) -> list[dict[tuple[str, int], int]]:
    """For each kernel the line of each of its parts, counted from 1."""
    found: list[dict[tuple[str, int], int]] = [{} for _ in program.kernels]
    for number, line in enumerate(listing(program), 1):
        if line.kernel >= 0:
            found[line.kernel][line.part, line.number] = number
    return found


def program_text(program: Program, graph: Graph | None = None) -> str:
    """Every kernel of a program, in order. graph: as of ``listing``."""
    return "\n".join(line.text for line in listing(program, graph)) + "\n"


def memory_text(program: Program) -> str:
    """The memory plan: a row a slot of the arena, with its bytes and those directly below it, then a row a buffer, with
    its slot and the kernels between which it lives."""
    born, dies = lives(program)
    arena = program.arena
    rows = []
    for number, (size, lower) in enumerate(zip(arena.slots, arena.below, strict=True)):
        above = f"above {', '.join(map(str, sorted(lower)))}" if lower else "at the bottom"
        each = ", of each thread its own" if number in arena.private else ""
        rows.append(f"slot {number}  {size} bytes, {above}{each}")
    for k in sorted(born, key=lambda b: (born[b], b)):
        buffer = program.buffers[k]
        shape = ", ".join(map(str, buffer.shape))
        last = "end" if dies[k] >= len(program.kernels) else str(dies[k])
        rows.append(f"slot {program.slot[k]}  kernels {born[k]}..{last}  {buffer.name}: {buffer.dtype}[{shape}]")
    return "\n".join(rows) + "\n"


class _Lister:
    """Writes the lines of one kernel."""

    def __init__(self, program: Program, kernel: Kernel, position: int, graph: Graph | None) -> None:
        self.program = program
        self.position = position
        self.lines: list[Line] = []
        what = str(told(graph, program, kernel)) if graph is not None else ""
        nodes = f"nodes {', '.join(map(str, kernel.nodes))}"
        self.add(0, f"{position}: {kernel.name}  {nodes}{': ' if what else ''}{what}", "head", 0)
        if isinstance(kernel, Nest):
            self.nest(kernel)
            return
        range_ = f"0 <= element < {kernel.bound}" if isinstance(kernel, IndexCheck) else "finite"
        checked = program.buffers[kernel.buffer]
        self.add(1, f"check {range_} for every element of {checked.name}", "check", 0, kernel.nodes, (checked.node,))

    def add(
        self,
        depth: int,
        text: str,
        part: str,
        number: int,
        nodes: tuple[int, ...] = (),
        loads: tuple[int, ...] = (),
        uses: tuple[int, ...] = (),
    ) -> None:
        """One line."""
        self.lines.append(Line("  " * depth + text, self.position, part, number, nodes, loads, uses))

    def nest(self, nest: Nest) -> None:
        """The loops of a nest."""
        depth, schedule = 1, nest.schedule
        for v in (*schedule.order, *nest.reduced):
            if v == nest.n_out:
                for n, r in enumerate(nest.reductions):
                    self.add(depth, f"acc{n} = identity of {r.combine}", "start", n, nest.nodes[n : n + 1])
            self.add(depth, f"for v{v} < {nest.extents[v]}:{_note(nest, v)}", "loop", v)
            depth += 1
        if nest.guards:
            conditions = " and ".join(_condition(self.program, g) for g in nest.guards)
            self.add(depth, f"if {conditions}:", "guard", 0, (), self.asked_by(nest.guards))
            depth += 1
        if nest.reductions:
            self.code(depth, nest, "body", nest.body, "b")
            for n, s in enumerate(nest.inner):
                text = f"{_access(self.program, s.access)} = b{s.value}"
                self.add(depth, text, "inner", n, (s.node,), uses=(s.value,))
            for n, r in enumerate(nest.reductions):
                text = f"acc{n} = {r.combine}(acc{n}, b{r.value})"
                self.add(depth, text, "reduce", n, nest.nodes[n : n + 1], uses=(r.value,))
        depth = 1 + nest.n_out
        self.code(depth, nest, "post", nest.post, "t")
        for n, s in enumerate(nest.stores):
            sign = "+=" if s.add else "="
            text = f"{_access(self.program, s.access)} {sign} t{s.value}"
            self.add(depth, text, "store", n, (s.node,), self.asked(s.access), (s.value,))

    def code(self, depth: int, nest: Nest, part: str, code: Code, letter: str) -> None:
        """The instructions of a scalar program."""
        owners = code.owners or ((),) * len(code.instrs)
        for n, (instr, own) in enumerate(zip(code.instrs, owners, strict=True)):
            text = f"{letter}{n} = {_instruction(self.program, nest, instr, letter)}"
            if instr.op == "read" and isinstance(instr.attr, int):
                self.add(depth, text, part, n, (), own + self.asked(nest.loads[instr.attr]), instr.args)
            else:
                self.add(depth, text, part, n, own, (), instr.args)

    def asked(self, access: Access) -> tuple[int, ...]:
        """The nodes that an access reads to know its place."""
        found = [self.program.buffers[d.buffer].node for d in access.data]
        return tuple(dict.fromkeys([*found, *self.asked_by(access.guards)]))

    def asked_by(self, guards: Sequence[Condition]) -> tuple[int, ...]:
        """The nodes that guards compare with."""
        return tuple(dict.fromkeys(self.program.buffers[g.data[0]].node for g in guards if g.data is not None))


def _note(nest: Nest, v: int) -> str:
    """What is special about a variable's loop, as a comment."""
    schedule = nest.schedule
    if v == nest.n_out and schedule.block:
        return f"  # in blocks of {schedule.block}, each with results of its own"
    if schedule.upright and v in (schedule.vector, schedule.tile_row):
        return "  # an accumulator each" if v == schedule.vector else "  # rows in vectors"
    if v == schedule.vector:
        return f"  # vectors of {schedule.tile[1]}" if schedule.tile_row >= 0 else "  # vector"
    if v == schedule.running:
        return "  # running: the accumulators go on from point to point"
    if v == schedule.rows:
        return "  # joined a vector at once"
    return f"  # {schedule.tile[0]} rows at once" if v == schedule.tile_row else ""


def _instruction(program: Program, nest: Nest, instr: Instr, letter: str) -> str:
    args = ", ".join(f"{letter}{a}" for a in instr.args)
    if instr.op == "read" and isinstance(instr.attr, int):
        return _access(program, nest.loads[instr.attr])
    if instr.op == "acc":
        return f"acc{instr.attr}"
    if instr.op == "index":
        return f"v{instr.attr}"
    if instr.op in ("const", "size"):
        return str(instr.attr)
    return f"{instr.dtype}({args})" if instr.op == "cast" else f"{instr.op}({args})"


def _access(program: Program, access: Access) -> str:
    parts = [_flat(access.flat)] if access.flat.terms or access.flat.const != 0 or not access.data else []
    for term in access.data:
        parts.append(f"{_times(term.stride)}{program.buffers[term.buffer].name}[{_flat(term.at)}]")
    text = f"{program.buffers[access.buffer].name}[{' + '.join(parts)}]"
    if access.guards:
        text += f" if {' and '.join(_condition(program, g) for g in access.guards)}"
    return text


def _flat(flat: Flat) -> str:
    parts = [f"{_times(stride)}v{v}" for v, stride in flat.terms]
    if flat.const != 0 or not parts:
        parts.append(str(flat.const))
    return " + ".join(parts)


def _times(size: SizeLike) -> str:
    if size == 1:
        return ""
    return f"{size}*" if isinstance(size, int) else f"({size})*"


def _condition(program: Program, guard: Condition) -> str:
    parts = [f"{_times(c)}v{v}" for v, c in guard.expr.terms]
    if guard.expr.const != 0 or not parts:
        parts.append(str(guard.expr.const))
    expr = " + ".join(parts)
    if guard.kind == "div":
        return f"{guard.divisor} divides {expr}"
    if guard.data is not None:
        return f"{expr} == {program.buffers[guard.data[0]].name}[{_flat(guard.data[1])}]"
    return f"{expr} {'>=' if guard.kind == 'ge' else '=='} 0"
