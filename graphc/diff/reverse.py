"""Reverse mode: cotangents from the outputs back, and the ledger of every product and sum on the way.

The one rule (``DESIGN`` 2a): the domain stays, read map and write map change places,

    ct_a[m(d)] += ct_y[w(d)] * weight(d) * ∂b/∂a(d).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from graphc.diff.local import Domain, stable, without_unused
from graphc.errors import InternalError
from graphc.graph.formula import Formula, Read, Shape, plain
from graphc.graph.graph import Graph, Node, Origin, reachable
from graphc.graph.scalar import trace
from graphc.ops.special import SPECIAL
from graphc.structs import dataclass, replace


@dataclass(frozen=True, slots=True)
class Term:
    """One consumer's part in a cotangent: upstream times local.

    consumer: the node that reads. operand: which of its inputs. upstream: the cotangent of the consumer. reads: the
    numbers of its formula's reads of that operand, for ``local_derivatives``; empty for a special record. product: the
    node of upstream times local, summed over what the consumer joins.
    """

    consumer: Node
    operand: int
    upstream: Node
    reads: tuple[int, ...]
    product: Node


@dataclass(frozen=True, slots=True)
class Row:
    """One node of the ledger: its terms, one for each consumer's operand, and their sum ``total``, its cotangent.

    An output that is differentiated has its seed as ``seed``.
    """

    node: Node
    seed: Node | None
    terms: tuple[Term, ...]
    total: Node


@dataclass(frozen=True, slots=True)
class Backward:
    """What reverse mode returns: the cotangent of each wanted node (None where nothing reaches it) and the ledger, from
    the outputs to the inputs."""

    cotangents: tuple[Node | None, ...]
    ledger: tuple[Row, ...]


def backward(graph: Graph, seeds: Mapping[Node, Node], wanted: Sequence[Node], lead: Shape = ()) -> Backward:
    """The cotangents of ``wanted``, given those of the outputs (``seeds``); nodes are added to ``graph``.

    lead: axes in front of every cotangent, one row of a Jacobian each.
    """
    nodes = reachable(seeds)
    carries: set[int] = {w.number for w in wanted}  # asked by number only, never iterated
    for node in nodes:
        if node.dtype.kind == "f" and any(i.number in carries for i in node.inputs):
            carries.add(node.number)
    terms: dict[Node, list[Term]] = {}
    total: dict[Node, Node] = {}
    rows: list[Row] = []
    for node in reversed(nodes):
        if node.number not in carries:
            continue
        seed, own = seeds.get(node), terms.get(node, [])
        parts = ([] if seed is None else [seed]) + [t.product for t in own]
        if not parts:
            continue
        total[node] = _sum(graph, parts, node)
        rows.append(Row(node, seed, tuple(own), total[node]))
        for term in _terms(graph, node, total[node], carries, lead):
            terms.setdefault(node.inputs[term.operand], []).append(term)
    return Backward(tuple(total.get(w) for w in wanted), tuple(rows))


def _terms(graph: Graph, node: Node, ct: Node, carries: set[int], lead: Shape) -> list[Term]:
    operands = [k for k, i in enumerate(node.inputs) if i.number in carries]
    if not operands:
        return []
    if node.kind in SPECIAL:
        found = SPECIAL[node.kind].cotangent(graph, node, ct)
        for k, product in enumerate(found):
            if product is not None and k in operands:
                graph.note(product, _origins(graph, node, node.inputs[k]))
        return [
            Term(node, k, ct, (), product) for k, product in enumerate(found) if product is not None and k in operands
        ]
    if node.kind != "formula":
        raise InternalError(f"backward: a {node.kind} has inputs")
    formula = stable(node.formula)
    wanted = [
        k for k, r in enumerate(formula.reads) if r.operand in operands and node.inputs[r.operand].dtype.kind == "f"
    ]
    by_operand: dict[int, list[tuple[int, Node]]] = {}
    for k in wanted:
        part = _transpose(graph, node, formula, k, ct, lead)
        if part is not None:
            by_operand.setdefault(formula.reads[k].operand, []).append((k, part))
    result = []
    for operand, parts in by_operand.items():
        product = _sum(graph, [p for _, p in parts], node.inputs[operand])
        result.append(Term(node, operand, ct, tuple(k for k, _ in parts), product))
    return result


def _transpose(graph: Graph, node: Node, formula: Formula, number: int, ct: Node, lead: Shape) -> Node | None:
    """The term of read ``number`` in the cotangent of its operand; None where it is zero."""
    domain = Domain.of(graph, node, formula, lead)
    shifted = domain.formula
    read = shifted.reads[number]
    operand = node.inputs[read.operand]
    rows = plain(len(lead))
    upstream = domain.read(ct, rows + shifted.write)
    weight = domain.weight()
    seed = upstream if weight is None else domain.builder.scaled(upstream, weight)
    value = domain.adjoints(seed).get(number)
    if value is None:
        return None
    like = replace(
        shifted,
        write=rows + read.index,
        shape=lead + operand.shape,
        guards=tuple(dict.fromkeys(shifted.guards + read.guards)),
        combine="sum",
    )
    if like.is_plain() and len(like.write) == len(like.extents):
        like = replace(like, combine="none")
    return domain.node_of(domain.builder.cast(value, operand.dtype), like, _origins(graph, node, operand))


def _origins(graph: Graph, node: Node, operand: Node) -> tuple[Origin, ...]:
    """Where a term in the cotangent of an operand comes from: the consumer's operation and line."""
    name = graph.name(operand)
    own = (Origin(note=f"d_{name}"),) if name else ()
    written = next((o for o in graph.origins.get(node, ()) if o.site), None)
    if written is None:
        return own
    operation = next((o.op for o in graph.origins.get(operand, ()) if o.op), operand.kind)
    note = f"d_{name or operation} through {written.op or written.note or node.kind}"
    return (*own, Origin(note=note, site=written.site))


def local_derivatives(graph: Graph, term: Term) -> list[tuple[Formula, tuple[Node, ...]]]:
    """For each of a term's reads, ``weight * ∂b/∂read`` as a formula over the consumer's domain and the nodes it
    reads.
    """
    node = term.consumer
    found: list[tuple[Formula, tuple[Node, ...]]] = []
    for number in term.reads:
        formula = stable(node.formula)
        domain = Domain.of(graph, node, formula)
        weight = domain.weight()
        seed = domain.builder.const(1.0, node.dtype) if weight is None else weight
        value = domain.adjoints(seed)[number]
        local = replace(
            formula,
            write=plain(len(formula.extents)),
            shape=formula.extents,
            combine="none",
            reads=tuple(domain.reads),
            body=domain.builder.finish(value),
        )
        found.append(without_unused(local, domain.inputs))
    return found


def _sum(graph: Graph, parts: list[Node], of: Node) -> Node:
    """The sum of several cotangents, as one node."""
    if len(parts) == 1:
        return parts[0]
    name = graph.name(of)
    origins = (Origin(note=f"d_{name}"),) if name else ()
    total = parts[0]
    body = trace(lambda a, b: a + b, [total.dtype, total.dtype])
    index = plain(len(total.shape))
    formula = Formula(total.shape, index, total.shape, (Read(0, index), Read(1, index)), body)
    for part in parts[1:]:
        total = graph.formula(formula, (total, part), origins if part is parts[-1] else ())
    return total
