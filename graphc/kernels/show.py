"""The loop form as text: kernels as loops that a person reads, and the memory plan."""

from __future__ import annotations

from graphc.graph.scalar import Instr
from graphc.graph.sizes import SizeLike
from graphc.kernels.form import Access, Condition, Flat, IndexCheck, Kernel, Nest, Program
from graphc.kernels.memory import lives


def program_text(program: Program) -> str:
    """Every kernel of a program, in order."""
    return "\n\n".join(_kernel(program, kernel, position) for position, kernel in enumerate(program.kernels)) + "\n"


def memory_text(program: Program) -> str:
    """The memory plan: a row a buffer in the arena, with its slot and the kernels between which it lives."""
    born, dies = lives(program)
    rows = [f"{len(program.slots)} slots, bytes: " + ", ".join(map(str, program.slots))]
    for k in sorted(born, key=lambda b: (born[b], b)):
        buffer = program.buffers[k]
        shape = ", ".join(map(str, buffer.shape))
        last = "end" if dies[k] >= len(program.kernels) else str(dies[k])
        rows.append(f"slot {program.slot[k]}  kernels {born[k]}..{last}  {buffer.name}: {buffer.dtype}[{shape}]")
    return "\n".join(rows) + "\n"


def _kernel(program: Program, kernel: Kernel, position: int) -> str:
    head = f"{position}: {kernel.name}  nodes {', '.join(map(str, kernel.nodes))}"
    if not isinstance(kernel, Nest):
        what = f"0 <= element < {kernel.bound}" if isinstance(kernel, IndexCheck) else "finite"
        return f"{head}\n  check {what} for every element of {program.buffers[kernel.buffer].name}"
    lines = [head]
    indent = "  "
    schedule = kernel.schedule
    for v in (*schedule.order, *kernel.reduced):
        note = ""
        if v == schedule.vector:
            note = f"  # vectors of {schedule.tile[1]}" if schedule.tile_row >= 0 else "  # vector"
        elif v == schedule.running:
            note = "  # running: the accumulators go on from point to point"
        elif v == schedule.rows:
            note = "  # joined a vector at once"
        elif v == schedule.tile_row:
            note = f"  # {schedule.tile[0]} rows at once"
        if v == kernel.n_out and kernel.reductions:
            lines += [f"{indent}acc{n} = identity of {r.combine}" for n, r in enumerate(kernel.reductions)]
        lines.append(f"{indent}for v{v} < {kernel.extents[v]}:{note}")
        indent += "  "
    if kernel.guards:
        lines.append(f"{indent}if {' and '.join(_condition(program, g) for g in kernel.guards)}:")
        indent += "  "
    if kernel.reductions:
        lines += [f"{indent}{line}" for line in _code(program, kernel, kernel.body.instrs, "b")]
        lines += [f"{indent}{_access(program, s.access)} = b{s.value}" for s in kernel.inner]
        lines += [f"{indent}acc{n} = {r.combine}(acc{n}, b{r.value})" for n, r in enumerate(kernel.reductions)]
    indent = "  " * (1 + kernel.n_out)
    lines += [f"{indent}{line}" for line in _code(program, kernel, kernel.post.instrs, "t")]
    for store in kernel.stores:
        lines.append(f"{indent}{_access(program, store.access)} {'+=' if store.add else '='} t{store.value}")
    return "\n".join(lines)


def _code(program: Program, nest: Nest, instrs: tuple[Instr, ...], letter: str) -> list[str]:
    lines = []
    for position, instr in enumerate(instrs):
        args = ", ".join(f"{letter}{a}" for a in instr.args)
        if instr.op == "read" and isinstance(instr.attr, int):
            text = _access(program, nest.loads[instr.attr])
        elif instr.op == "acc":
            text = f"acc{instr.attr}"
        elif instr.op == "index":
            text = f"v{instr.attr}"
        elif instr.op in ("const", "size"):
            text = str(instr.attr)
        else:
            text = f"{instr.dtype}({args})" if instr.op == "cast" else f"{instr.op}({args})"
        lines.append(f"{letter}{position} = {text}")
    return lines


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
