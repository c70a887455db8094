"""Graphs as text, as LaTeX and as MathML: what a tensor prints, and the stages of a step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from graphc.graph.graph import Graph, Node
from graphc.notation.expressions import graph_lines
from graphc.notation.latex import lines_latex
from graphc.notation.mathml import lines_mathml
from graphc.notation.text import lines_text

Outputs = Mapping[str, Node] | Sequence[Node] | None


def to_text(graph: Graph, outputs: Outputs = None, *, dims: bool = False, define: bool | None = None) -> str:
    """Nodes as lines of mathematics that a person reads; formulas may be solved or not.

    outputs: nodes, by a name to be shown or without; the graph's outputs and updates where none are given.
    dims: whether each line ends in its value's shape.
    define: whether values that the user named get lines too, or are taken as known; by default the latter where only
    derivatives are shown.

    >>> from graphc.graph.dtypes import float32
    >>> from graphc.graph.formula import Formula, Read, var, plain
    >>> from graphc.graph.graph import Origin
    >>> from graphc.graph.scalar import trace
    >>> g = Graph()
    >>> x, w = g.add("input", (), "x", float32, (8, 4)), g.add("param", (), "w", float32, (4, 2))
    >>> reads = (Read(0, (var(0), var(2))), Read(1, (var(2), var(1))))
    >>> product = Formula((8, 2, 4), plain(2), (8, 2), reads, trace(lambda a, b: a * b, [float32] * 2), "sum")
    >>> z = g.formula(product, (x, w), [Origin(name="z")])
    >>> print(to_text(g, [z], dims=True))
    z = x · w    (8 × 2)
    """
    return lines_text(graph_lines(graph, outputs, define), dims)


def to_latex(graph: Graph, outputs: Outputs = None, *, dims: bool = False, define: bool | None = None) -> str:
    """The same lines as LaTeX, aligned at their signs. Arguments as of ``to_text``."""
    return lines_latex(graph_lines(graph, outputs, define), dims)


def to_mathml(graph: Graph, outputs: Outputs = None, *, dims: bool = False, define: bool | None = None) -> str:
    """The same lines as one MathML element. Arguments as of ``to_text``."""
    return lines_mathml(graph_lines(graph, outputs, define), dims)
