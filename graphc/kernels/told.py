"""What a kernel computes, in the user's words: values by name, operations, the line."""

from __future__ import annotations

from graphc.graph.graph import Graph, Origin
from graphc.kernels.form import Kernel, Nest, Program
from graphc.structs import dataclass


@dataclass(frozen=True, slots=True)
class Told:
    """values: the weights and states that it writes, or else the names of its nodes (``d_w1`` for a derivative).
    operations: as the user wrote them. line: the first of the user's that wrote one of them, or that a derivative comes
    from; empty where there is none.
    """

    values: tuple[str, ...]
    operations: tuple[str, ...]
    line: str

    def __str__(self) -> str:
        named, made = ", ".join(self.values), ", ".join(self.operations)
        return f"{named} ({made})" if named and made else named or made


def told(graph: Graph, program: Program, kernel: Kernel) -> Told:
    """What a kernel computes. graph: that of which the program was made (``lower.prepared``)."""
    origins: list[Origin] = []
    for number in kernel.nodes:
        if number < len(graph.nodes):
            origins += graph.origins.get(graph.nodes[number], ())
    if not isinstance(kernel, Nest):
        return Told((program.buffers[kernel.buffer].name.split(".")[0],), ("check",), kernel.source)
    persistent = [program.buffers[k] for k in kernel.writes() if program.buffers[k].role in ("param", "state", "count")]
    operations = [o.op for o in origins if o.op]
    named = [o.name or o.note for o in origins if (o.name or o.note) and " " not in o.note]
    values = [b.name for b in persistent] or named
    if not values and not operations:
        values = [o.note for o in origins if o.note]  # ``d_z through tanh``
    sites = [o.site for o in origins if o.site and o.op] or [o.site for o in origins if o.site]
    line = str(sites[0]) if sites else ""
    return Told(tuple(dict.fromkeys(values)), tuple(dict.fromkeys(operations)), line)
