"""The graph: immutable, interned, typed nodes, and where each came from.

A node is its kind, inputs, attribute and type; equal ones are one object. Origins (the user's name for a value, the
operation and the source line) stand outside identity and are united, never dropped.

Kinds: ``formula`` (attribute a Formula); the leaves ``input param state hyper const count training``; and the second
kind of record (``ops/special.py``): an operation that a formula states poorly, such as reshape.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import attrgetter

import numpy as np
from numpy.typing import NDArray

from graphc.errors import InternalError
from graphc.graph.dtypes import DTYPES, DType
from graphc.graph.formula import Formula, Shape
from graphc.structs import dataclass, field

Array = NDArray[np.generic]
LEAVES = ("input", "param", "state", "hyper", "const", "count", "training")
NAMED = ("input", "param", "state", "hyper")


@dataclass(frozen=True, slots=True)
class Site:
    """A place in the user's source."""

    file: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.text}"


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a node came from: the operation as the user wrote it, the user's name for the value, the source line.

    ``note`` says of a derived node what it is: ``d_h`` or ``d_h through matmul``; ``rule`` which rewrite made it.
    """

    op: str = ""
    name: str = ""
    site: Site | None = None
    note: str = ""
    rule: str = ""


@dataclass(frozen=True, slots=True)
class ConstValue:
    """An array as an attribute: compared by type, shape and bytes."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes

    def array(self) -> Array:
        """The values, read-only."""
        return np.frombuffer(self.data, dtype=self.dtype).reshape(self.shape)

    def digest(self) -> str:
        """A short fingerprint of the values."""
        return hashlib.sha256(self.data).hexdigest()[:16]


Attr = Formula | ConstValue | str | int | float | tuple[object, ...] | None


class Node:
    """One value of a graph. Made by ``Graph.add`` alone; compared by identity."""

    __slots__ = ("kind", "inputs", "attr", "dtype", "shape", "number")

    def __init__(
        self, kind: str, inputs: tuple[Node, ...], attr: Attr, dtype: DType, shape: Shape, number: int
    ) -> None:
        self.kind = kind
        self.inputs = inputs
        self.attr = attr
        self.dtype = dtype
        self.shape = shape
        self.number = number

    @property
    def formula(self) -> Formula:
        """The formula of a formula node. Raises InternalError for another kind."""
        if not isinstance(self.attr, Formula):
            raise InternalError(f"node {self.number}: {self.kind} has no formula")
        return self.attr

    def __repr__(self) -> str:
        return f"%{self.number}:{self.kind}"


class Graph:
    """Nodes in the order they were added, each after its inputs, with named outputs and updates.

    outputs: name -> node. updates: the param, state or count node -> its new value; all read the values before the
    step.
    """

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.outputs: dict[str, Node] = {}
        self.updates: dict[Node, Node] = {}
        self.origins: dict[Node, tuple[Origin, ...]] = {}
        self._known: dict[tuple[object, ...], Node] = {}

    def add(
        self, kind: str, inputs: Sequence[Node], attr: Attr, dtype: DType, shape: Shape, origins: Iterable[Origin] = ()
    ) -> Node:
        """The node of that kind, inputs, attribute and type; the standing one where it is known."""
        inputs = tuple(inputs)
        # A formula states its type itself.
        key = (attr, inputs) if kind == "formula" else (kind, inputs, attr, dtype, shape)
        node = self._known.get(key)
        if node is None:
            node = self._known[key] = Node(kind, inputs, attr, dtype, shape, len(self.nodes))
            self.nodes.append(node)
        if origins:
            self.note(node, origins)
        return node

    def formula(self, formula: Formula, inputs: Sequence[Node], origins: Iterable[Origin] = ()) -> Node:
        """The node that computes ``formula`` of ``inputs``."""
        return self.add("formula", inputs, formula, formula.dtype, formula.shape, origins)

    def const(self, value: Array, origins: Iterable[Origin] = ()) -> Node:
        """The node of an array."""
        from_array = const_value(value)
        return self.add("const", (), from_array, DTYPES[value.dtype.name], tuple(value.shape), origins)

    def note(self, node: Node, origins: Iterable[Origin]) -> None:
        """Unites further origins with those of ``node``."""
        known = self.origins.get(node)
        if known is origins:
            return
        if known is None:
            new = origins if isinstance(origins, tuple) and len(origins) == 1 else tuple(dict.fromkeys(origins))
            if new:
                self.origins[node] = new
        elif known != origins:
            self.origins[node] = known + tuple(o for o in dict.fromkeys(origins) if o not in known)

    def name(self, node: Node) -> str:
        """The user's name for a node; empty where there is none."""
        if node.kind in NAMED:
            return str(node.attr)
        for origin in self.origins.get(node, ()):
            if origin.name:
                return origin.name
        return ""

    def roots(self) -> list[Node]:
        """What the graph is for: outputs, then updates and what they update."""
        return list(dict.fromkeys([*self.outputs.values(), *self.updates.values(), *self.updates]))

    def live(self) -> list[Node]:
        """The nodes that the roots need, each after its inputs."""
        return reachable(self.roots())


@dataclass(frozen=True, slots=True, eq=False)
class Passage:
    """One passage from a graph to the next, kept where somebody wants to know what became of each node.

    new: every live node of ``before`` -> the node of ``after`` made for it, which ``after`` may not need any more.
    fired: a node of ``before`` -> the first rewrite that fired there and the first that did not, by number in the log.
    made: the nodes that ``after`` then had; differentiation adds more to some graphs.
    """

    name: str
    before: Graph
    after: Graph
    new: Mapping[Node, Node]
    made: tuple[Node, ...]
    fired: Mapping[Node, tuple[int, int]] = field(default_factory=dict)


def reachable(roots: Iterable[Node]) -> list[Node]:
    """All that ``roots`` are made of, each node after its inputs; no recursion."""
    found: dict[Node, None] = {}
    stack = list(roots)
    while stack:
        node = stack.pop()
        if node not in found:
            found[node] = None
            stack.extend(node.inputs)
    return sorted(found, key=attrgetter("number"))


def users(nodes: Iterable[Node]) -> dict[Node, list[Node]]:
    """For each node those that read it, in order, once each."""
    result: dict[Node, list[Node]] = {}
    for node in nodes:
        result.setdefault(node, [])
        inputs = node.inputs
        for operand in inputs if len(inputs) < 2 else dict.fromkeys(inputs):
            result.setdefault(operand, []).append(node)
    return result


def rebuild(graph: Graph, make: Callable[[Graph, Node, tuple[Node, ...]], Node]) -> tuple[Graph, dict[Node, Node]]:
    """A new graph of the live nodes, each made by ``make(new graph, old node, new inputs)``, and the map old -> new.

    Origins, outputs and updates are carried over.
    """
    result = Graph()
    new: dict[Node, Node] = {}
    for node in graph.live():
        made = make(result, node, tuple([new[i] for i in node.inputs]))
        result.note(made, graph.origins.get(node, ()))
        new[node] = made
    result.outputs = {name: new[node] for name, node in graph.outputs.items()}
    result.updates = {new[target]: new[value] for target, value in graph.updates.items()}
    return result, new


def copy_node(graph: Graph, node: Node, inputs: tuple[Node, ...]) -> Node:
    """``node`` again in another graph, over new inputs: what ``rebuild`` does with a node that nothing changes."""
    return graph.add(node.kind, inputs, node.attr, node.dtype, node.shape)


def const_value(value: Array) -> ConstValue:
    """An array as an attribute."""
    data = np.ascontiguousarray(value)
    return ConstValue(data.dtype.name, tuple(value.shape), data.tobytes())
