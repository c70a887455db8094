"""Values that have a name of their own in mathematics, found by their structure: softmax, log-softmax, log-sum-exp.

A value is opened up, through the nodes that it reads, into one expression at a point; what it is then shows whichever
nodes it was cut into, and whoever wrote it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from graphc.graph.formula import Affine, Formula, plain, substitute, var
from graphc.graph.graph import Node
from graphc.graph.scalar import const_value

_FURTHEST = 8  # nodes that one value is opened through
_LARGEST = 60  # parts of one expression
_SILENT = ("stop_gradient", "variable")

Index = tuple[Affine, ...]


@dataclass(frozen=True, slots=True)
class Point:
    """A value at a point: an operation over others, or ``at``: a node at an index."""

    op: str
    args: tuple[Point, ...] = ()
    text: str = ""
    node: Node | None = None
    index: Index = ()


@dataclass(frozen=True, slots=True)
class Named:
    """A function of one node, along one of its axes."""

    name: str
    operand: Node
    axis: int


def named_value(node: Node, opaque: Callable[[Node], bool]) -> Named | None:
    """What a node is, where it has a name; ``opaque`` nodes are not looked into."""
    if node.kind != "formula" or not _may_be(node.formula) or not node.shape:
        return None
    opener = _Opener(opaque, node)
    value = opener.value(node, plain(len(node.shape)), 0)
    return None if value is None else _match(opener, node, value)


def _may_be(formula: Formula) -> bool:
    """Whether it is worth a look: an elementwise value that ends in a quotient, a difference or an exponential."""
    ends = ("div", "sub", "exp", "mul", "add", "log")
    return formula.combine in ("none",) and formula.is_plain() and not formula.guards and formula.body.result.op in ends


class _Opener:
    """Opens nodes into expressions at a point; remembers which node each expression is."""

    def __init__(self, opaque: Callable[[Node], bool], root: Node) -> None:
        self.opaque = opaque
        self.root = root
        self.budget = _LARGEST
        self.node_of: dict[Point, Node] = {}

    def value(self, node: Node, index: Index, depth: int) -> Point | None:
        """The value of a node at an index; None where it grows too large."""
        while node.kind in _SILENT:
            node = node.inputs[0]
        closed = node is not self.root and self.opaque(node)
        if closed or node.kind != "formula" or depth > _FURTHEST or not _is_elementwise(node.formula):
            return Point("at", node=node, index=index)
        point = self.body(node, index, depth)
        if point is not None:
            self.node_of.setdefault(point, node)
        return point

    def body(self, node: Node, index: Index, depth: int) -> Point | None:
        """The value of a node's body with its variables replaced."""
        formula = node.formula
        values: list[Point] = []
        for instr in formula.body.instrs:
            self.budget -= 1
            if self.budget < 0:
                return None
            if instr.op == "read" and isinstance(instr.attr, int):
                read = formula.reads[instr.attr]
                where = tuple(substitute(i, index) for i in read.index if isinstance(i, Affine))
                value = self.value(node.inputs[read.operand], where, depth + 1)
                if value is None:
                    return None
                values.append(value)
            elif instr.op == "const":
                values.append(Point("const", text=str(const_value(instr))))
            elif instr.op == "cast" and instr.dtype.kind == "f":
                values.append(values[instr.args[0]])
            else:
                values.append(Point(instr.op, tuple(values[a] for a in instr.args), str(instr.attr or "")))
        return values[-1]

    def summed(self, point: Point, combine: str, axis: int) -> Point | None:
        """What is joined by ``combine`` in a value ``at`` a reduction, its joined variable being ``axis``."""
        node = point.node
        if node is None or node.kind != "formula":
            return None
        formula = node.formula
        if formula.combine != combine or formula.guards or not formula.is_plain() or len(formula.reduced()) != 1:
            return None
        if any(r.guards or not all(isinstance(i, Affine) for i in r.index) for r in formula.reads):
            return None
        return self.body(node, (*point.index, var(axis)), 1)


def _is_elementwise(formula: Formula) -> bool:
    affine = all(isinstance(i, Affine) for r in formula.reads for i in r.index)
    return formula.combine == "none" and not formula.guards and affine and not any(r.guards for r in formula.reads)


def _match(opener: _Opener, node: Node, value: Point) -> Named | None:
    for axis in range(len(node.shape) - 1, -1, -1):
        for name, found in (("softmax", _softmax), ("log_softmax", _log_softmax)):
            inner = found(opener, value, axis)
            if inner is not None:
                operand = _whole(opener, inner, axis, node)
                if operand is not None:
                    return Named(name, operand, axis)
    return None


def _softmax(opener: _Opener, value: Point, axis: int) -> Point | None:
    """``exp(a) / Σ exp(a)``, or ``exp(a - log Σ exp(a))``: a."""
    if value.op == "div":
        top, below = value.args
        return top.args[0] if top.op == "exp" and opener.summed(below, "sum", axis) == top else None
    return _log_softmax(opener, value.args[0], axis) if value.op == "exp" else None


def _log_softmax(opener: _Opener, value: Point, axis: int) -> Point | None:
    """``a - log Σ exp(a)``, or ``a - logsumexp(a)``: a."""
    if value.op != "sub":
        return None
    a, below = value.args
    if below.op == "log":
        return a if opener.summed(below.args[0], "sum", axis) == Point("exp", (a,)) else None
    return a if opener.summed(below, "logsumexp", axis) == a else None


def _whole(opener: _Opener, point: Point, axis: int, root: Node) -> Node | None:
    """The node that a value is at the root's own indices; what is subtracted from it along the axis does not matter."""
    if point.op == "sub" and not _moves(point.args[1], axis):
        found = _whole(opener, point.args[0], axis, root)
        if found is not None:
            return found
    if point.op == "at":
        node = point.node if point.index == plain(len(root.shape)) else None
    else:
        node = opener.node_of.get(point)
    return node if node is not None and node is not root and node.shape == root.shape else None


def _moves(point: Point, axis: int) -> bool:
    """Whether a value depends on an index variable."""
    stack = [point]
    while stack:
        part = stack.pop()
        if any(i.coefficient(axis) for i in part.index):
            return True
        stack.extend(part.args)
    return False


def inputs_of(node: Node, named: Mapping[Node, Named]) -> tuple[Node, ...]:
    """What a node is shown to be made of."""
    return (named[node].operand,) if node in named else node.inputs
