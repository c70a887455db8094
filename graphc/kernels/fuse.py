"""Fusion: which nodes get a buffer, and which of those are computed in one nest.

A node that is not *kept* is computed inside every nest that reads it. Kept nodes are put into groups, a nest each: a
reduction, product or scatter starts a group; an elementwise node joins the group that makes what it reads, where both
have the same points and no way leads from that group out and back (so bias, activation, activation derivative and the
optimizer's update run in the nest of the product before them). A group's order against another is an edge.
"""

from __future__ import annotations

from collections.abc import Iterable

from graphc.graph.formula import Formula, FromData, Read, Shape, data_indices, plain
from graphc.graph.graph import Graph, Node
from graphc.graph.primitives import cost_of
from graphc.graph.sizes import at_most, product
from graphc.kernels.prepare import is_layout, product_of
from graphc.ops.special import SPECIAL
from graphc.structs import dataclass, field

INLINE_LIMIT = 48  # instructions that one nest may take from nodes without a buffer
GROUP_LIMIT = 80  # instructions in one nest, vector maths written out: its function stays under 500 lines of LLVM


MOST_TRIED = 8  # groups of the same points that one is compared with


@dataclass(slots=True)
class Group:
    """Nodes computed in one nest. root: the reduction, product or scatter that starts it, or None; maps:
    elementwise.
    """

    number: int
    root: Node | None
    maps: list[Node]
    n_instrs: int
    before: set[int] = field(default_factory=set)  # groups that must run earlier, directly

    @property
    def nodes(self) -> list[Node]:
        """The nodes, the root first."""
        return ([self.root] if self.root else []) + self.maps


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
    for node in nodes:
        if node in kept and node.kind == "formula":
            _place(node, result)
    _unite(result)
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


def loads(node: Node, kept: set[Node]) -> list[tuple[Node, bool]]:
    """The kept nodes that a node's nest reads, through nodes without buffer, each with whether it is read at the plain
    indices (element by element) everywhere."""
    found: dict[Node, bool] = {}
    stack: list[tuple[Node, bool]] = [(node, True)]
    while stack:
        at, same = stack.pop()
        if at.kind != "formula":
            continue
        identity = plain(len(at.shape))
        for read in at.formula.reads:
            operand = at.inputs[read.operand]
            here = same and read.index == identity and operand.shape == at.shape and not read.guards
            if operand in kept:
                found[operand] = found.get(operand, True) and here
            else:
                stack.append((operand, here))
        for data in data_indices(at.formula):
            found[at.inputs[data.operand]] = False
    return list(found.items())


def _place(node: Node, plan: Plan) -> None:
    needed = loads(node, plan.kept)
    earlier = {plan.group_of[base(n)].number for n, _ in needed if base(n) in plan.group_of}
    size = _instructions(node.formula) + sum(1 for _ in needed)
    if is_map(node):
        for number in sorted(earlier, reverse=True):
            group = plan.groups[number]
            if _may_join(node, size, group, needed, earlier, plan):
                group.maps.append(node)
                group.n_instrs += size
                group.before |= earlier - {number}
                plan.group_of[node] = group
                return
    group = Group(len(plan.groups), None if is_map(node) else node, [node] if is_map(node) else [], size, earlier)
    plan.groups.append(group)
    plan.group_of[node] = group


def _unite(plan: Plan) -> None:
    """Puts elementwise groups of the same points into one, where no third must run between them: what they share is
    read and computed once."""
    first: dict[Shape, list[Group]] = {}
    for group in plan.groups:
        if group.root is not None:
            continue
        others = first.setdefault(group.maps[0].shape, [])
        for other in reversed(others[-MOST_TRIED:]):
            if _may_unite(other, group, plan):
                other.maps += group.maps
                other.n_instrs += group.n_instrs
                other.before = (other.before | group.before) - {other.number, group.number}
                for node in group.maps:
                    plan.group_of[node] = other
                for each in plan.groups:
                    if group.number in each.before:
                        each.before = (each.before - {group.number}) | {other.number}
                group.maps, group.before = [], set()
                break
        else:
            others.append(group)
    left = [group for group in plan.groups if group.nodes]
    number = {group.number: k for k, group in enumerate(left)}
    for group in left:
        group.number, group.before = number[group.number], {number[n] for n in group.before}
    plan.groups[:] = left


def _may_unite(other: Group, group: Group, plan: Plan) -> bool:
    if other.n_instrs + group.n_instrs > GROUP_LIMIT:
        return False
    members = set(other.maps)
    for node in group.maps:
        for operand, same in loads(node, plan.kept):
            if base(operand) in members and not (same and operand in members):
                return False
    return not (plan.passes(other.number, group.number) or plan.reaches(group.number, other.number))


def _may_join(
    node: Node, size: int, group: Group, needed: Iterable[tuple[Node, bool]], earlier: set[int], plan: Plan
) -> bool:
    first = group.nodes[0]
    if group.root is not None and not (group.root.formula.is_plain() and group.root.formula.combine != "none"):
        return False
    if group.root is not None and group.root.formula.combine in ("argmax", "argmin"):
        return False
    if first.shape != node.shape or group.n_instrs + size > GROUP_LIMIT:
        return False
    members = set(group.nodes)
    if any(base(n) in members and not (same and n in members) for n, same in needed):
        return False
    return not any(n != group.number and plan.reaches(group.number, n) for n in earlier)
