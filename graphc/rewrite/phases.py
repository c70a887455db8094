"""Phases (placeholder until the rule tables of tensors stand): carries a graph over unchanged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from graphc.graph.graph import Graph, Node, copy_node, rebuild

PHASES: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Rewritten:
    """graph; log; replaced."""

    graph: Graph
    log: tuple[str, ...] = ()
    replaced: dict[Node, Node | str] = field(default_factory=dict)

    def text(self) -> str:
        """Nothing."""
        return ""


def run(
    graph: Graph, phases: Sequence[object] = PHASES, *, fast_math: bool = True, assume_finite: bool = False,
    protect: frozenset[Node] = frozenset(),
) -> Rewritten:
    """The graph again."""
    made, replaced = rebuild(graph, copy_node)
    return Rewritten(made, (), dict(replaced))
