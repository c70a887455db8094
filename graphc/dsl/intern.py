"""Tensors into a graph, and a graph's nodes into tensors again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

from graphc.dsl.build import build, declared
from graphc.dsl.tensor import Tensor
from graphc.errors import InternalError
from graphc.graph.formula import Formula
from graphc.graph.graph import NAMED, ConstValue, Graph, Node
from graphc.structs import dataclass


@dataclass(frozen=True, slots=True)
class Interned:
    """A graph, the node of each tensor that it was made of, and the declared leaves by name.

    unread: leaves that derivatives were taken over and that nothing reads any more.
    """

    graph: Graph
    node: dict[Tensor, Node]
    leaves: dict[str, Tensor]
    unread: dict[str, Tensor]


def intern(outputs: Mapping[str, Tensor], variables: Sequence[Tensor] = ()) -> Interned:
    """The graph of ``outputs``, with the updates that they carry.

    variables: tensors that derivatives are taken by. One that is no declared leaf gets a ``variable`` node of its
    own, which its consumers read, so that an equal expression written elsewhere is another variable.

    Raises: DefinitionError where two declarations share a name, or one state has two new values.
    """
    built = build(outputs, variables)
    # Every operand of a tensor is a tensor, so these are the same dictionaries.
    leaves, unread = (cast("dict[str, Tensor]", found) for found in (built.leaves, built.unread))
    return Interned(built.graph, cast("dict[Tensor, Node]", built.node), leaves, unread)


def leaves_of(outputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The declared leaves of what ``intern`` would make of ``outputs``, by name.

    Raises: DefinitionError where two declarations share a name.
    """
    return cast("dict[str, Tensor]", declared(outputs.values()))


def to_tensors(graph: Graph, nodes: Sequence[Node], known: Mapping[Node, Tensor]) -> list[Tensor]:
    """Tensors for ``nodes``, over those in ``known``; origins are kept.

    A ``variable`` node that is not in ``known`` is what it stands for.
    """
    made: dict[Node, Tensor] = dict(known)
    stop = {n.number for n in known}  # asked by number only, never iterated
    for node in _between(nodes, stop):
        if node in made:
            continue
        if node.kind in NAMED:
            raise InternalError(f"to_tensors: {node.kind} {node.attr} is not among the known nodes")
        if node.kind == "variable":
            made[node] = made[node.inputs[0]]
            continue
        operands = tuple(made[i] for i in node.inputs)
        origins = graph.origins.get(node, ())
        op = next((o.op for o in origins if o.op), "")
        if not isinstance(node.attr, (Formula, ConstValue, int, type(None))):
            raise InternalError(f"to_tensors: a {node.kind} with attribute {node.attr!r}")
        made[node] = Tensor(node.kind, operands, node.attr, node.dtype, node.shape, op, origins=origins)
    return [made[n] for n in nodes]


def _between(nodes: Sequence[Node], stop: set[int]) -> list[Node]:
    """What ``nodes`` are made of, each after its inputs, not going behind the nodes numbered in ``stop``."""
    found: dict[Node, None] = {}
    stack = list(nodes)
    while stack:
        node = stack.pop()
        if node not in found:
            found[node] = None
            if node.number not in stop:
                stack.extend(node.inputs)
    return sorted(found, key=lambda n: n.number)
