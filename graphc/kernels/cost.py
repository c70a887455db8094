"""The cost sheet: operations, bytes and predicted time of a program, as polynomials in the sizes, before it runs."""

from __future__ import annotations

from collections.abc import Mapping

from graphc.graph.graph import Graph
from graphc.graph.primitives import cost_of
from graphc.graph.scalar import Instr
from graphc.graph.sizes import SizeLike, evaluate, product
from graphc.kernels.arena import Arena
from graphc.kernels.form import SOURCES, Kernel, Nest, Program
from graphc.structs import dataclass

# Picoseconds: of one operation in a vector loop, of one multiply-add in a register tile, of one byte moved, of a
# kernel's call.
_OPERATION_PS, _TILE_PS, _BYTE_PS, _CALL_PS = 60, 20, 15, 20_000


@dataclass(frozen=True, slots=True)
class KernelCost:
    """One kernel: its floating and integer operations, the bytes of all buffers it names once each, and predicted
    time.
    """

    name: str
    nodes: tuple[int, ...]
    operations: SizeLike
    n_bytes: SizeLike
    picoseconds: SizeLike


@dataclass(frozen=True, slots=True)
class Cost:
    """The sheet: a row a kernel, the arena, and the bytes of what persists."""

    kernels: tuple[KernelCost, ...]
    arena: Arena
    persistent_bytes: SizeLike

    @property
    def operations(self) -> SizeLike:
        """All operations of one call."""
        total: SizeLike = 0
        for row in self.kernels:
            total = total + row.operations
        return total

    @property
    def picoseconds(self) -> SizeLike:
        """The predicted time of one call."""
        total: SizeLike = 0
        for row in self.kernels:
            total = total + row.picoseconds
        return total

    def text(self, dims: Mapping[str, int] | None = None) -> str:
        """The sheet to read; with ``dims`` in numbers."""

        def shown(size: SizeLike) -> str:
            return f"{evaluate(size, dims):,}" if dims is not None else str(size)

        rows = [("kernel", "operations", "bytes", "ps")]
        rows += [(r.name, shown(r.operations), shown(r.n_bytes), shown(r.picoseconds)) for r in self.kernels]
        rows.append(("all", shown(self.operations), "", shown(self.picoseconds)))
        widths = [max(len(row[c]) for row in rows) for c in range(4)]
        lines = [
            "  ".join(
                cell.ljust(w) if c == 0 else cell.rjust(w) for c, (cell, w) in enumerate(zip(r, widths, strict=True))
            )
            for r in rows
        ]
        arena = f"{self.arena.offsets(dims)[1]:,}" if dims is not None else _largest_of(self.arena.most_bytes())
        lines.append(f"arena {arena} bytes, weights and states {shown(self.persistent_bytes)} bytes")
        return "\n".join(line.rstrip() for line in lines)

    __str__ = text
    __repr__ = text


def cost(program: Program) -> Cost:
    """The cost sheet of a program."""
    persistent: SizeLike = 0
    for buffer in program.buffers:
        if buffer.role in ("param", "state", "count"):
            persistent = persistent + buffer.size * buffer.dtype.itemsize
    return Cost(tuple(_kernel(k, program) for k in program.kernels), program.arena, persistent)


def _kernel(kernel: Kernel, program: Program) -> KernelCost:
    n_bytes: SizeLike = 0
    for k in sorted({*kernel.reads(), *kernel.writes()}):
        n_bytes = n_bytes + program.buffers[k].size * program.buffers[k].dtype.itemsize
    if not isinstance(kernel, Nest):
        size = program.buffers[kernel.buffer].size
        return KernelCost(kernel.name, kernel.nodes, size, n_bytes, size * _OPERATION_PS + _CALL_PS)
    points = product(tuple(e for v, e in enumerate(kernel.extents) if v != kernel.schedule.running))
    outside = product(kernel.extents[: kernel.n_out])
    inner = _weight(kernel.body.instrs) + (len(kernel.reductions) if kernel.reductions else 0)
    operations = points * inner + outside * _weight(kernel.post.instrs)
    if kernel.schedule.tile_row >= 0:
        time = points * _TILE_PS + outside * _weight(kernel.post.instrs) * _OPERATION_PS
    else:
        time = operations * _OPERATION_PS
    return KernelCost(kernel.name, kernel.nodes, operations, n_bytes, time + n_bytes * _BYTE_PS + _CALL_PS)


def operations_of(graph: Graph) -> SizeLike:
    """The operations that the formulas of a graph ask for, each computed once by itself."""
    total: SizeLike = 0
    for node in graph.live():
        if node.kind == "formula":
            each = _weight(node.formula.body.instrs) + (node.formula.combine != "none")
            total = total + product(node.formula.extents) * each
    return total


def _largest_of(sizes: tuple[SizeLike, ...]) -> str:
    return str(sizes[0]) if len(sizes) == 1 else f"max({', '.join(map(str, sizes))})"


def _weight(instrs: tuple[Instr, ...]) -> int:
    return sum(cost_of(i.op) for i in instrs if i.op not in SOURCES)
