"""Fusion: which nodes get a buffer, and which of those are computed in one nest.

A node that is not *kept* is computed inside every nest that reads it. Kept nodes are put into groups, a nest each: a
reduction, product or scatter starts a group; an elementwise node joins the group that makes what it reads, where both
have the same points and no way leads from that group out and back (so bias, activation, activation derivative and the
optimizer's update run in the nest of the product before them). A reduction of elementwise nodes joins their group where
it visits each of their points once: they are then computed, stored and summed in one visit, by all reductions of that
domain. A group's order against another is an edge.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence

from graphc.graph.formula import Affine, Formula, FromData, Read, Shape, data_indices, plain, substitute, var
from graphc.graph.graph import Graph, Node
from graphc.graph.primitives import cost_of
from graphc.graph.sizes import at_most, product
from graphc.kernels.prepare import is_layout, product_of
from graphc.ops.special import SPECIAL
from graphc.structs import dataclass, field

INLINE_LIMIT = 48  # instructions that one nest may take from nodes without a buffer
GROUP_LIMIT = 150  # instructions in one nest; long vector maths being calls, its function stays under 500 lines of LLVM
LOADING = 4  # instructions that may load one vector
MOST_TRIED = 8  # groups of the same points that one is compared with


Needed = Sequence[tuple[Node, tuple[Affine, ...] | None]]


@dataclass(slots=True)
class Group:
    """Nodes computed in one nest. roots: reductions of one domain, or one product or scatter; maps: elementwise, at the
    roots' results; inner: elementwise, at the points of the roots' domain, axis k along its variable ``along[k]``.
    """

    number: int
    roots: list[Node]
    maps: list[Node]
    inside: dict[Node, None]  # what is computed in the nest, nodes without a buffer included
    before: set[int] = field(default_factory=set)  # groups that must run earlier, directly
    inner: list[Node] = field(default_factory=list)
    along: tuple[int, ...] = ()

    @property
    def root(self) -> Node | None:
        """The first root."""
        return self.roots[0] if self.roots else None

    @property
    def nodes(self) -> list[Node]:
        """The nodes, the roots first."""
        return self.roots + self.inner + self.maps


@dataclass(slots=True)
class Plan:
    """kept: nodes with a buffer. groups: in the order made. group_of: kept node -> its group."""

    kept: set[Node]
    groups: list[Group]
    group_of: dict[Node, Group]

    def passes(self, start: int, goal: int) -> bool:
        """Whether a way leads from group ``start`` to group ``goal`` by a third."""
        return any(n != start and self.reaches(start, n) for n in self.groups[goal].before)

    def reaches(self, start: int, goal: int) -> bool:
        """Whether group ``start`` must run before group ``goal``."""
        seen = {goal}
        stack = [goal]
        while stack:
            number = stack.pop()
            if number == start:
                return True
            for earlier in self.groups[number].before:
                if earlier not in seen:
                    seen.add(earlier)
                    stack.append(earlier)
        return False


def is_map(node: Node) -> bool:
    """Whether a node is elementwise: one point an element."""
    return node.kind == "formula" and node.formula.combine == "none"


def plan(graph: Graph, nodes: list[Node]) -> Plan:
    """The buffers and groups of a prepared graph."""
    kept = _kept(graph, nodes)
    result = Plan(kept, [], {})
    written = frozenset(graph.updates.values())
    for node in nodes:
        if node in kept and node.kind == "formula":
            _place(node, result, written)
    _unite(result, written)
    return result


def base(node: Node) -> Node:
    """The node whose buffer holds ``node``: past relabellings."""
    while node.kind in SPECIAL and not SPECIAL[node.kind].is_operand:
        node = node.inputs[0]
    return node


def _kept(graph: Graph, nodes: list[Node]) -> set[Node]:
    uses: dict[Node, list[tuple[Node, Read | None]]] = {n: [] for n in nodes}
    for node in nodes:
        if node.kind != "formula":
            for operand in node.inputs:
                uses[operand].append((node, None))
            continue
        for read in node.formula.reads:
            uses[node.inputs[read.operand]].append((node, read))
        for data in data_indices(node.formula):
            uses[node.inputs[data.operand]].append((node, None))
    wanted = set(graph.outputs.values()) | set(graph.updates.values())
    kept: set[Node] = set()
    weight: dict[Node, int] = {}  # instructions that a node brings into its reader
    for node in nodes:
        if not is_map(node) or node in wanted or is_layout(graph, node) or _must_keep(node, uses[node]):
            kept.add(node)
            weight[node] = 1
            continue
        total = _instructions(node.formula)
        total += sum(weight[node.inputs[r.operand]] for r in node.formula.reads)
        if total > INLINE_LIMIT:
            kept.add(node)
            total = 1
        weight[node] = total
    return kept


def _must_keep(node: Node, uses: list[tuple[Node, Read | None]]) -> bool:
    formula = node.formula
    light = len(formula.body.instrs) <= 6 and all(cost_of(i.op) == 1 for i in formula.body.instrs)
    readers = {user for user, _ in uses}
    if len(uses) > 1 and not (light and len(formula.reads) <= 2 and len(readers) <= 3):
        return True
    for user, read in uses:
        if read is None or read.guards or user.kind != "formula" or any(isinstance(i, FromData) for i in read.index):
            return True
        if product_of(user.formula) is not None:
            return True
        if not light and not at_most(product(user.formula.extents), product(node.shape)):
            return True
    return False


def _instructions(formula: Formula) -> int:
    """The size of a body, vector maths counted for what it is written out."""
    return sum(cost_of(i.op) for i in formula.body.instrs) + 4 * len(formula.guards)


def reached(node: Node, kept: Container[Node]) -> list[tuple[Node, tuple[Affine, ...] | None]]:
    """The kept nodes that a node's nest reads, through nodes without buffer, with every index at which each is read, in
    the node's own variables; None for an index under a guard or from data."""
    found: dict[tuple[Node, tuple[Affine, ...] | None], None] = {}
    start: tuple[Affine, ...] | None = plain(len(node.formula.extents)) if node.kind == "formula" else None
    stack = [(node, start)]
    while stack:
        at, table = stack.pop()
        if at.kind != "formula":
            continue
        for read in at.formula.reads:
            operand = at.inputs[read.operand]
            index: tuple[Affine, ...] | None = None
            if table is not None and not read.guards:
                moved = tuple(substitute(i, table) for i in read.index if isinstance(i, Affine))
                index = moved if len(moved) == len(read.index) else None
            if operand in kept:
                found[operand, index] = None
            else:
                stack.append((operand, index))
        for data in data_indices(at.formula):
            found[at.inputs[data.operand], None] = None
    return list(found)


def loads(node: Node, kept: Container[Node]) -> list[tuple[Node, bool]]:
    """The kept nodes that a node's nest reads, each with whether it is read at the plain indices (element by element)
    everywhere."""
    found: dict[Node, bool] = {}
    for operand, index in reached(node, kept):
        same = operand.shape == node.shape and index == plain(len(operand.shape))
        found[operand] = found.get(operand, True) and same
    return list(found.items())


def _fits(inside: Iterable[Node]) -> bool:
    """Whether these nodes fit one nest. An array from outside may take a few instructions to load."""
    members = dict.fromkeys(inside)
    loaded = {n for node in members for n in node.inputs if n not in members}
    return sum(len(node.formula.body.instrs) for node in members) + LOADING * len(loaded) <= GROUP_LIMIT


def _inside(node: Node, kept: Container[Node]) -> dict[Node, None]:
    """A node and those without a buffer that it takes in."""
    found: dict[Node, None] = {}
    stack = [node]
    while stack:
        at = stack.pop()
        if at not in found and at.kind == "formula":
            found[at] = None
            stack += [n for n in at.inputs if n not in kept]
    return found


def _place(node: Node, plan: Plan, written: Container[Node]) -> None:
    """Puts a node into a group of what it reads, or into one of its own. written: new values of leaves, which are
    computed where they are stored last."""
    needed = reached(node, plan.kept)
    earlier = {plan.group_of[base(n)].number for n, _ in needed if base(n) in plan.group_of}
    inside = _inside(node, plan.kept)
    for number in sorted(earlier, reverse=True):
        group = plan.groups[number]
        if not _fits(group.inside | inside):
            continue
        if any(n != number and plan.reaches(number, n) for n in earlier):
            continue
        if _joins(node, group, needed, written):
            group.inside |= inside
            group.before |= earlier - {number}
            plan.group_of[node] = group
            return
    roots, maps = ([], [node]) if is_map(node) else ([node], [])
    group = Group(len(plan.groups), roots, maps, inside, earlier)
    plan.groups.append(group)
    plan.group_of[node] = group


def _joins(node: Node, group: Group, needed: Needed, written: Container[Node]) -> bool:
    """Puts a node into a group that makes some of what it reads, if it may join that."""
    members = {n: n for n in group.nodes}
    inside = [(members.get(base(n)), n, index) for n, index in needed if base(n) in members]
    if not is_map(node):
        return _joins_as_root(node, group, inside, written)
    if group.root is not None and not _takes_maps(group.root):
        return False
    results = group.roots + group.maps
    if node.shape == results[0].shape and all(
        n in results and index == plain(len(node.shape)) for _, n, index in inside
    ):
        group.maps.append(node)
        return True
    if not group.inner or node in written or node.shape != group.inner[0].shape:
        return False
    if all(n in group.inner and index == plain(len(node.shape)) for _, n, index in inside):
        group.inner.append(node)
        return True
    return False


def _takes_maps(root: Node) -> bool:
    formula = root.formula
    return formula.is_plain() and formula.combine not in ("none", "argmax", "argmin")


def _joins_as_root(
    node: Node, group: Group, inside: Sequence[tuple[Node | None, Node, object]], written: Container[Node]
) -> bool:
    """Puts a reduction into the group whose elementwise nodes it reads, each point once."""
    formula = node.formula
    if formula.guards or not _takes_maps(node) or product_of(formula) is not None:
        return False
    points = group.inner if group.roots else group.maps
    places = {index for _, _, index in inside}
    if not points or any(n not in points for _, n, _ in inside) or len(places) != 1:
        return False
    along = _along(formula, places.pop(), points[0])
    if along is None:
        return False
    if group.roots:
        if along != group.along or not _one_domain(group.roots[0], node):
            return False
        group.roots.append(node)
        return True
    if any(n in written for n in group.maps):
        return False
    group.inner, group.maps, group.along = group.maps, [], along
    group.roots.append(node)
    return True


def _one_domain(a: Node, b: Node) -> bool:
    return a.formula.extents == b.formula.extents and a.shape == b.shape


def _along(formula: Formula, index: object, read: Node) -> tuple[int, ...] | None:
    """For each axis of ``read`` the variable of a reduction that runs along it; None unless every point of the domain
    reads one element and every element is read once."""
    if not isinstance(index, tuple):
        return None
    found = [i.variable() if isinstance(i, Affine) else None for i in index]
    along = tuple(v for v in found if v is not None)
    if len(set(along)) < len(found) or any(formula.extents[v] != s for v, s in zip(along, read.shape, strict=True)):
        return None
    others = [e for v, e in enumerate(formula.extents) if v not in along]
    return along if all(isinstance(e, int) and e == 1 for e in others) else None


def _unite(plan: Plan, written: Container[Node]) -> None:
    """Puts groups of the same points into one, where no third must run between them: what they share is read and
    computed once."""
    first: dict[Shape, list[Group]] = {}
    for group in plan.groups:
        points = _points(group)
        if not points:
            continue
        others = first.setdefault(points[0].shape, [])
        for other in reversed(others[-MOST_TRIED:]):
            if _may_unite(other, group, plan, written):
                _united(other, group, plan)
                break
        else:
            others.append(group)
    left = [group for group in plan.groups if group.nodes]
    number = {group.number: k for k, group in enumerate(left)}
    for group in left:
        group.number, group.before = number[group.number], {number[n] for n in group.before}
    plan.groups[:] = left


def _points(group: Group) -> list[Node]:
    """The elementwise nodes at the points of a group's domain."""
    return group.inner if group.roots else group.maps


def _may_unite(other: Group, group: Group, plan: Plan, written: Container[Node]) -> bool:
    visits = bool(other.roots or group.roots)
    if not _fits(other.inside | group.inside):
        return False
    if visits and any(n in written for n in _points(other) + _points(group)):
        return False
    if other.roots and group.roots:
        if other.along != group.along or not _one_domain(other.roots[0], group.roots[0]):
            return False
    members, ready = set(other.nodes), set(_points(other))
    for node in group.nodes:
        for operand, index in reached(node, plan.kept):
            if base(operand) not in members:
                continue
            along = group.along if node in group.roots else tuple(range(len(operand.shape)))
            at_point = index == tuple(var(v) for v in along) and operand.shape == _points(group)[0].shape
            if operand not in ready or not at_point or (group.roots and node in group.maps):
                return False
    return not (plan.passes(other.number, group.number) or plan.reaches(group.number, other.number))


def _united(other: Group, group: Group, plan: Plan) -> None:
    """Moves all of ``group`` into ``other``, which comes before it."""
    points = _points(other) + _points(group)
    if other.roots or group.roots:
        maps = [n for g in (other, group) if g.roots for n in g.maps]
        other.along = other.along or group.along
        other.roots, other.inner, other.maps = other.roots + group.roots, points, maps
    else:
        other.maps = points
    other.inside |= group.inside
    other.before = (other.before | group.before) - {other.number, group.number}
    for node in group.nodes:
        plan.group_of[node] = other
    for each in plan.groups:
        if group.number in each.before:
            each.before = (each.before - {group.number}) | {other.number}
    group.roots, group.inner, group.maps, group.before = [], [], [], set()
