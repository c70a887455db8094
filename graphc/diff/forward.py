"""Forward mode: tangents from the inputs on.

t_y[w(d)] = sum over d of weight(d) * (sum over reads a of ∂b/∂a(d) * t_a[m_a(d)])
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from graphc.diff.local import Domain, stable
from graphc.graph.graph import Graph, Node, Origin, reachable
from graphc.graph.scalar import Scalar
from graphc.ops.special import SPECIAL
from graphc.structs import replace


def forward(graph: Graph, outputs: Sequence[Node], tangents: Mapping[Node, Node]) -> tuple[Node | None, ...]:
    """The tangents of ``outputs`` (None for one that nothing reaches), given those of some nodes; added to
    ``graph``.
    """
    known: dict[Node, Node] = dict(tangents)
    for node in reachable(outputs):
        if node in known or node.dtype.kind != "f" or not any(i in known for i in node.inputs):
            continue
        if node.kind in SPECIAL:
            moved = SPECIAL[node.kind].tangent(graph, node, tuple(known.get(i) for i in node.inputs))
        else:
            moved = _tangent(graph, node, known)
        if moved is not None:
            known[node] = moved
    return tuple(known.get(node) for node in outputs)


def _tangent(graph: Graph, node: Node, known: Mapping[Node, Node]) -> Node | None:
    formula = stable(node.formula)
    domain = Domain.of(graph, node, formula)
    weight = domain.weight()
    one = domain.builder.const(1.0, node.dtype)
    adjoints = domain.adjoints(one if weight is None else weight)
    total: Scalar | None = None
    for number, factor in adjoints.items():
        read = formula.reads[number]
        tangent = known.get(node.inputs[read.operand])
        if tangent is None:
            continue
        moved = domain.builder.scaled(domain.read(tangent, read.index, read.guards), factor)
        moved = domain.builder.cast(moved, node.dtype)
        total = moved if total is None else total + moved
    if total is None:
        return None
    combine = "none" if formula.combine == "none" else "sum"
    name = graph.name(node)
    return domain.node_of(total, replace(formula, combine=combine), (Origin(note=f"t_{name}"),) if name else ())
