"""Values that have a name of their own in mathematics, found by their structure: softmax, log-softmax, cross entropy.

A value is opened up, through the nodes that it reads, into one expression at a point; what it is then shows whichever
nodes it was cut into, and whoever wrote it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from graphc.graph.formula import Affine, Formula, FromData, plain, substitute, var
from graphc.graph.graph import Node
from graphc.graph.scalar import const_value
from graphc.notation.bodies import needs
from graphc.rewrite.solve import solve
from graphc.structs import dataclass

_FURTHEST = 4  # nodes that one value is opened through
_LARGEST = 200  # instructions looked at for one node
_ENDS = ("div", "sub", "exp", "mul")
_SILENT = ("stop_gradient", "variable")

Index = tuple[Affine, ...]
Opaque = Callable[[Node], bool]


@dataclass(frozen=True, slots=True)
class Named:
    """A function of some nodes, of the first along one of its axes."""

    name: str
    operands: tuple[Node, ...]
    axis: int


@dataclass(frozen=True, slots=True)
class Point:
    """A value at a point: an operation over others, or ``at``: a node at an index."""

    op: str
    args: tuple[Point, ...] = ()
    text: str = ""
    node: Node | None = None
    index: Index = ()


def gather(node: Node) -> Formula:
    """A node's formula in gather form where it has one: what is shown."""
    return solve(node.formula)


def named_parts(node: Node, opaque: Opaque) -> dict[int, Named]:
    """The instructions of a node's body that have a name as a whole, by place; ``opaque`` nodes are not looked into.

    What one of them is made of is not listed again.
    """
    if node.kind != "formula" or not node.shape or not _is_open(gather(node)):
        return {}
    body = gather(node).body
    picked = _cross_entropy(node, opaque)
    if picked is not None:
        return {len(body.instrs) - 1: picked}
    if not any(i.op in _ENDS for i in body.instrs) or not _is_elementwise(gather(node)):
        return {}
    opener = _Opener(opaque, node)
    values = opener.values(node, plain(len(node.shape)), 0)
    found: dict[int, Named] = {}
    inside = [False] * len(body.instrs)
    for place in range(len(body.instrs) - 1, -1, -1):
        if values is not None and body.instrs[place].op in _ENDS and not inside[place]:
            named = _match(opener, node, values[place])
            if named is not None:
                found[place] = named
        for arg in body.instrs[place].args:
            inside[arg] = inside[arg] or inside[place] or place in found
    return found


def is_identity(formula: Formula) -> bool:
    """Whether a formula is the identity matrix: 1 where its two indices are equal."""
    if len(formula.shape) != 2 or formula.reads or not formula.is_plain() or len(formula.guards) != 1:
        return False
    guard, body = formula.guards[0], formula.body.instrs
    diagonal = guard.kind == "eq" and guard.data is None and guard.expr in (var(0) - var(1), var(1) - var(0))
    return diagonal and not formula.reduced() and len(body) == 1 and body[0].op == "const" and const_value(body[0]) == 1


def _is_open(formula: Formula) -> bool:
    """Whether a value is one point's: nothing is joined or guarded."""
    return formula.combine == "none" and formula.is_plain() and not formula.guards


def _is_elementwise(formula: Formula) -> bool:
    affine = all(isinstance(i, Affine) for r in formula.reads for i in r.index)
    return _is_open(formula) and affine and not any(r.guards for r in formula.reads)


def _cross_entropy(node: Node, opaque: Opaque) -> Named | None:
    """``-logp[n, y[n]]``, where logp is a log-softmax along its last axis: the cross entropy of that with y."""
    rank = len(node.shape)
    if [i.op for i in gather(node).body.instrs] != ["read", "neg"]:
        return None
    source, read = node, gather(node).reads[0]
    inner = node.inputs[read.operand]
    if inner.kind == "formula" and read.index == plain(rank) and inner.shape == node.shape and not opaque(inner):
        if not _is_open(gather(inner)) or gather(inner).body.is_read() != 0:
            return None
        source, read = inner, gather(inner).reads[0]
    data = read.index[-1] if read.index else None
    if read.guards or read.index[:-1] != plain(rank) or not isinstance(data, FromData) or data.index != plain(rank):
        return None
    scores = source.inputs[read.operand]
    if scores.kind != "formula" or opaque(scores):
        return None
    whole = named_parts(scores, opaque).get(len(gather(scores).body.instrs) - 1)
    if whole is None or (whole.name, whole.axis) != ("log_softmax", rank):
        return None
    return Named("cross_entropy", (whole.operands[0], source.inputs[data.operand]), rank)


class _Opener:
    """Opens nodes into expressions at a point; remembers which node each expression is."""

    def __init__(self, opaque: Opaque, root: Node) -> None:
        self.opaque = opaque
        self.root = root
        self.budget = _LARGEST
        self.node_of: dict[Point, Node] = {}

    def value(self, node: Node, index: Index, depth: int) -> Point | None:
        """The value of a node at an index; None where it grows too large."""
        while node.kind in _SILENT:
            node = node.inputs[0]
        if node.kind != "formula" or self.opaque(node) or depth > _FURTHEST or not _is_elementwise(gather(node)):
            return Point("at", node=node, index=index)
        values = self.values(node, index, depth)
        if values is None:
            return None
        self.node_of.setdefault(values[-1], node)
        return values[-1]

    def values(self, node: Node, index: Index, depth: int) -> list[Point] | None:
        """The values of a node's instructions with its variables replaced."""
        formula = gather(node)
        values: list[Point] = []
        self.budget -= len(formula.body.instrs)
        if self.budget < 0:
            return None
        for instr in formula.body.instrs:
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
        return values

    def summed(self, point: Point, combine: str, axis: int) -> Point | None:
        """What is joined by ``combine`` in a value ``at`` a reduction, its joined variable being ``axis``."""
        node = point.node
        if node is None or node.kind != "formula":
            return None
        formula = gather(node)
        if formula.combine != combine or formula.guards or not formula.is_plain() or len(formula.reduced()) != 1:
            return None
        if any(r.guards or not all(isinstance(i, Affine) for i in r.index) for r in formula.reads):
            return None
        values = self.values(node, (*point.index, var(axis)), 1)
        return None if values is None else values[-1]


def _match(opener: _Opener, node: Node, value: Point) -> Named | None:
    for axis in range(len(node.shape) - 1, -1, -1):
        for name, find in (("softmax", _softmax), ("log_softmax", _log_softmax)):
            inner = find(opener, value, axis)
            operand = None if inner is None else _whole(opener, inner, axis, node)
            if operand is not None:
                return Named(name, (operand,), axis)
    return None


def _softmax(opener: _Opener, value: Point, axis: int) -> Point | None:
    """``exp(a) / Σ exp(a)``, or ``exp(a - log Σ exp(a))``: a."""
    if value.op == "exp":
        return _log_softmax(opener, value.args[0], axis)
    top, below = None, None
    if value.op == "div":
        top, below = value.args
    elif value.op == "mul":
        for factor, other in (value.args, value.args[::-1]):
            if factor.op == "exp" and other.op == "div" and other.args[0] == Point("const", text="1.0"):
                top, below = factor, other.args[1]
    if top is None or below is None or top.op != "exp" or opener.summed(below, "sum", axis) != top:
        return None
    return top.args[0]


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


def shown_inputs(node: Node, parts: Mapping[int, Named]) -> tuple[Node, ...]:
    """What a node is shown to be made of, once for each time that it is read; a named part is made of its operands."""
    if node.kind != "formula":
        return node.inputs
    formula = gather(node)
    seen = needs(formula.body, len(formula.body.instrs) - 1, lambda place: place in parts)
    found = [operand for place in seen if place in parts for operand in parts[place].operands]
    if len(formula.body.instrs) - 1 in parts:
        return tuple(found)
    reads = [formula.body.instrs[place].attr for place in seen if formula.body.instrs[place].op == "read"]
    for number in reads:
        if isinstance(number, int):
            read = formula.reads[number]
            found.append(node.inputs[read.operand])
            found += [node.inputs[i.operand] for i in read.index if isinstance(i, FromData)]
            found += [node.inputs[g.data.operand] for g in read.guards if g.data]
    found += [node.inputs[g.data.operand] for g in formula.guards if g.data]
    return tuple(found + [node.inputs[w.operand] for w in formula.write if isinstance(w, FromData)])
