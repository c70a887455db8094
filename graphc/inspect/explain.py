"""The chain rule as a ledger: for every node its formula, and for each of its consumers upstream, local, product, and
the sum.

The ledger is the one that the differentiator itself wrote while it built the backward graph; nothing is derived twice.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from graphc.diff.derivatives import one
from graphc.diff.reverse import Backward, Row, Term, backward, local_derivatives
from graphc.dsl.build import build
from graphc.dsl.tensor import Tensor, fail, given_values
from graphc.errors import NotDifferentiable, UsageError
from graphc.graph.formula import Formula
from graphc.graph.graph import Array, ConstValue, Graph, Node
from graphc.graph.show import formula_text, type_text
from graphc.ops.record import text
from graphc.reference import evaluate
from graphc.rewrite.phases import PHASES, Rewritten, run
from graphc.rewrite.solve import solve


@dataclass(frozen=True, slots=True)
class TermText:
    """One consumer's part of a row, as text: who reads, its cotangent (upstream), the local derivative, their
    product.
    """

    consumer: str
    upstream: str
    local: tuple[str, ...]
    product: str


@dataclass(frozen=True, slots=True)
class RowText:
    """One node of the ledger, as text. became: the node that took its cotangent's place after rewriting, or why there
    is none; numbers: range and norm of value and cotangent where values were given."""

    name: str
    type: str
    formula: str
    source: str
    seed: str
    terms: tuple[TermText, ...]
    total: str
    became: str = ""
    numbers: str = ""


@dataclass(frozen=True, slots=True)
class Explanation:
    """The ledger, from the loss back to the inputs. ``print`` it, or read ``rows``."""

    rows: tuple[RowText, ...]

    def __str__(self) -> str:
        return "\n\n".join(_row_text(row) for row in self.rows) + "\n"

    __repr__ = __str__


def explain(loss: Tensor, values: Mapping[str, ArrayLike] | None = None) -> Explanation:
    """The chain rule from a scalar loss back to every floating leaf, one row a node.

    values: arrays for the inputs by name (weights not given have their initial values); rows then hold live numbers, by
    the reference evaluator.

    Raises: NotDifferentiable for a loss that is no floating scalar; what ``Tensor.eval`` raises for values.

    >>> import graphc as gc
    >>> x, y = gc.input("x", (3,)), gc.input("y", (3,))
    >>> print(gc.explain(gc.sum(x * y)).rows[-1].terms[0].product)
    d_x = d_multiply[i] * y[i]
    """
    if not isinstance(loss, Tensor):
        fail(UsageError(f"explain: {type(loss).__name__} given; needs a scalar loss"))
    if loss.shape != () or loss.dtype.kind != "f":
        fail(NotDifferentiable(f"explain: a loss of {loss.dtype} {text(loss.shape)} given; needs a floating scalar"))
    built = build({"loss": loss})
    graph, node = built.graph, built.node[loss]
    wanted = [
        built.node[leaf] for leaf in built.leaves.values() if leaf.dtype.kind == "f" and leaf.kind in ("param", "input")
    ]
    found = backward(graph, {node: one(graph, loss.dtype.name)}, wanted)
    totals = [row.total for row in found.ledger]
    graph.outputs = {"loss": node, **{f"{k}": total for k, total in enumerate(totals)}}
    graph.updates = {}
    made = run(graph, PHASES)
    became = {total: _became(made, total) for total in totals}
    if values is None:
        return explained(graph, found, None, became)
    rows = [row.node for row in found.ledger]
    return explained(graph, found, evaluate(graph, given_values(built, values), [*rows, *totals]), became)


def _became(made: Rewritten, node: Node) -> str:
    new = made.replaced.get(node)
    if isinstance(new, Node):
        return f"%{new.number} of the rewritten graph"
    return str(new) if new else ""


def explained(
    graph: Graph,
    backward: Backward,
    values: Mapping[Node, Array] | None = None,
    became: Mapping[Node, str] | None = None,
) -> Explanation:
    """The ledger of a backward pass as text.

    values: numbers of nodes, where they are known. became: of a node, what took its place in the rewritten graph.
    """
    names = _names(graph, backward)
    rows = []
    for row in backward.ledger:
        numbers = _numbers(row, values, names) if values is not None else ""
        rows.append(_row(graph, row, names, (became or {}).get(row.total, ""), numbers))
    return Explanation(tuple(rows))


def _names(graph: Graph, backward: Backward) -> dict[Node, str]:
    """A name for each node: the user's, ``d_`` and that for its cotangent, else a number."""
    names: dict[Node, str] = {}
    taken: dict[str, int] = {}

    def name(node: Node, wished: str) -> None:
        if node in names:
            return
        count = taken[wished] = taken.get(wished, 0) + 1
        names[node] = wished if count == 1 else f"{wished}_{count}"

    for node in graph.nodes:
        own = graph.name(node)
        if own:
            name(node, own)
    for row in backward.ledger:
        name(row.node, _fallback(graph, row.node))
    for row in backward.ledger:
        name(row.total, f"d_{names[row.node]}")
        for term in row.terms:
            name(term.product, f"d_{names[row.node]}_by_{names[term.consumer]}")
    for node in graph.nodes:
        name(node, _fallback(graph, node))
    return names


def _fallback(graph: Graph, node: Node) -> str:
    origins = graph.origins.get(node, ())
    op = next((o.op for o in origins if o.op), "")
    if node.kind == "const":
        return "c"
    return op or "t"


def _row(graph: Graph, row: Row, names: dict[Node, str], became: str, numbers: str) -> RowText:
    node = row.node
    site = next((str(o.site) for o in graph.origins.get(node, ()) if o.site), "")
    return RowText(
        names[node],
        type_text(node.dtype, node.shape),
        _formula(node, names),
        site,
        "" if row.seed is None else _inline(row.seed, names),
        tuple(_term(graph, t, names) for t in row.terms),
        names[row.total],
        became,
        numbers,
    )


def _term(graph: Graph, term: Term, names: dict[Node, str]) -> TermText:
    parts = local_derivatives(graph, term)
    for _, inputs in parts:
        for node in inputs:
            names.setdefault(node, _fallback(graph, node))
    local = tuple(named_formula(f, inputs, names) for f, inputs in parts) or (f"{term.consumer.kind}, the other way",)
    product = _inline(term.product, names)
    return TermText(names[term.consumer], names[term.upstream], local, f"{names[term.product]} = {product}")


def _inline(node: Node, names: Mapping[Node, str]) -> str:
    """A derived node: its formula solved, so that it reads as a sum where it was written as a scatter."""
    return named_formula(solve(node.formula), node.inputs, names) if node.kind == "formula" else _formula(node, names)


def _formula(node: Node, names: Mapping[Node, str]) -> str:
    if node.kind == "formula":
        return named_formula(node.formula, node.inputs, names)
    if node.inputs:
        return f"{node.kind}({', '.join(names[i] for i in node.inputs)})"
    if node.kind == "const" and node.shape == ():
        return str(node.attr.array()) if isinstance(node.attr, ConstValue) else "const"
    return node.kind


def named_formula(formula: Formula, inputs: Sequence[Node], names: Mapping[Node, str]) -> str:
    """A formula's index notation with its operands by name."""
    return re.sub(r"\$(\d+)", lambda m: names[inputs[int(m.group(1))]], formula_text(formula))


def _numbers(row: Row, values: Mapping[Node, Array], names: Mapping[Node, str]) -> str:
    parts = []
    for node in (row.node, row.total):
        if node in values:
            a = np.asarray(values[node], dtype=np.float64)
            parts.append(f"{names[node]}: {a.min():.4g} to {a.max():.4g}, norm {np.sqrt((a * a).sum()):.4g}")
    return "; ".join(parts)


def _row_text(row: RowText) -> str:
    lines = [f"{row.name}: {row.type} = {row.formula}" + (f"    [{row.source}]" if row.source else "")]
    if row.seed:
        lines.append(f"  seed      {row.seed}")
    for term in row.terms:
        lines.append(f"  through {term.consumer}")
        lines.append(f"    upstream  {term.upstream}")
        lines += [f"    local     {local}" for local in term.local]
        lines.append(f"    product   {term.product}")
    if len(row.terms) + bool(row.seed) > 1:
        lines.append(f"  sum       {row.total}")
    if row.numbers:
        lines.append(f"  numbers   {row.numbers}")
    if row.became:
        lines.append(f"  became    {row.became}")
    return "\n".join(lines)
