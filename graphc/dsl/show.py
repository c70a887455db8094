"""A tensor as maths: the graph of its expression, solved, as text or LaTeX."""

from __future__ import annotations

from collections.abc import Mapping

from graphc.dsl.build import build
from graphc.dsl.handle import Handle
from graphc.graph.graph import Graph, Node, copy_node, rebuild
from graphc.notation.expressions import graph_lines
from graphc.notation.latex import lines_latex
from graphc.notation.text import lines_text
from graphc.notation.tree import Line
from graphc.rewrite.solve import solve


def text_of(handle: Handle) -> str:
    """The expression as lines of maths, intermediate values by name."""
    return lines_text(_lines(handle))


def text_of_all(handles: Mapping[str, Handle]) -> str:
    """Several expressions, shared values once."""
    return lines_text(graph_lines(solved(build(handles).graph)))


def latex_of(handle: Handle) -> str:
    """The expression in LaTeX, for display."""
    return lines_latex(_lines(handle))


def solved(graph: Graph) -> Graph:
    """The graph with every formula in the form that gathers, where it has one: as a person reads it."""

    def make(result: Graph, node: Node, inputs: tuple[Node, ...]) -> Node:
        if node.kind != "formula":
            return copy_node(result, node, inputs)
        return result.formula(solve(node.formula), inputs)

    return rebuild(graph, make)[0]


def _lines(handle: Handle) -> tuple[Line, ...]:
    return graph_lines(solved(build({handle.name or "value": handle}).graph))
