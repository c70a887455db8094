"""Lowering: a prepared, grouped graph becomes a program of nests over buffers, in order, with updates in place.

Order is what the edges say: a group after those whose values it reads; an in-place write of a parameter or state after
every other reader of the old value; every write to something persistent after every index check. Where writing in place
would close a cycle, the new value gets a buffer of its own and is copied at the end.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from graphc.errors import InternalError
from graphc.graph.formula import Formula, Read, always, data_indices, plain, var
from graphc.graph.graph import ConstValue, Graph, Node, Origin, Passage, copy_node, rebuild
from graphc.graph.scalar import BodyBuilder, Instr, Scalar, trace
from graphc.graph.sizes import SizeLike, evaluate, names
from graphc.kernels.blocks import in_blocks
from graphc.kernels.body import Address, NestBody
from graphc.kernels.form import (
    Access,
    Buffer,
    Code,
    Condition,
    Flat,
    IndexCheck,
    Kernel,
    Nest,
    Program,
    Reduction,
    Schedule,
    Store,
    run_time_sizes,
    strides,
    used_loads,
)
from graphc.kernels.fuse import Group, Plan, base, loads, plan
from graphc.kernels.order import ordered
from graphc.kernels.prepare import prepare, product_of
from graphc.kernels.schedule import NOMINAL, schedule
from graphc.structs import dataclass, field, replace

PERSISTENT = ("param", "state", "count")


@dataclass(frozen=True, slots=True)
class Copy:
    """A new value written over its target after everything that reads the old one."""

    value: Node
    target: Node
    before: frozenset[int]


@dataclass(slots=True)
class Lowering:
    """The state of one lowering. in_place: kept node -> the leaves that its nest writes. stored: nodes that have a
    buffer.
    """

    graph: Graph
    nodes: list[Node]
    plan: Plan
    users: IndexUsers
    buffers: list[Buffer] = field(default_factory=list)
    buffer_of: dict[Node, int] = field(default_factory=dict)
    in_place: dict[Node, list[Node]] = field(default_factory=dict)
    stored: set[Node] = field(default_factory=set)
    copies: list[Copy] = field(default_factory=list)

    def buffer(self, node: Node) -> int:
        """The number of the buffer that holds a kept node."""
        return self.buffer_of[base(node)]


IndexUsers = Mapping[tuple[str, SizeLike], Origin]


def index_users(graph: Graph) -> IndexUsers:
    """Of every index, by its name or line, and every bound that it must keep: the operation that the user wrote.

    Taken before rewriting, which gives an operation's reads to others.
    """
    found: dict[tuple[str, SizeLike], Origin] = {}
    for node in graph.live():
        if node.kind == "formula":
            for data in data_indices(node.formula):
                origin = next((o for o in graph.origins.get(node, ()) if o.op), None)
                if origin is not None:
                    found.setdefault((_called(graph, node.inputs[data.operand]), data.bound), origin)
    return found


def _called(graph: Graph, node: Node) -> str:
    """The user's name for a node, or the line that made it."""
    site = next((o.site for o in graph.origins.get(node, ()) if o.site), None)
    return graph.name(node) or str(site)


def lower(graph: Graph, users: IndexUsers | None = None, passages: list[Passage] | None = None) -> Program:
    """The program of a graph: its outputs and updates computed, kernels in order, memory not yet placed.

    users: what the checks of indices name as their operation, where the graph was rewritten. passages: where each step
    is noted that makes the graph ready, the last of which gives the graph that the kernels' node numbers speak of.
    """
    graph = prepared(graph, passages)
    nodes = graph.live()
    work = Lowering(graph, nodes, plan(graph, nodes), users or {})
    work.stored = _read_elsewhere(work) | set(graph.outputs.values())
    _place_updates(work)
    _make_buffers(work)
    kernels = _ordered(work)
    dims: dict[str, None] = {}
    sizes = [size for buffer in work.buffers for size in buffer.shape]
    sizes += [size for k in kernels if isinstance(k, Nest) for size in run_time_sizes(k)]
    for size in sizes:
        dims.update(dict.fromkeys(names(size)))
    outputs = tuple((name, work.buffer(node)) for name, node in graph.outputs.items())
    return in_blocks(Program(tuple(sorted(dims)), tuple(work.buffers), tuple(kernels), outputs))


def prepared(graph: Graph, passages: list[Passage] | None = None) -> Graph:
    """The graph that ``lower`` makes kernels of; their ``nodes`` are the numbers of its nodes."""
    return prepare(_with_own_nodes(graph, passages), passages)[0]


def _with_own_nodes(graph: Graph, passages: list[Passage] | None) -> Graph:
    """The graph with a copy in the place of an output or new value that is no formula (a leaf, a relabelling): each
    then has a node of its own to be stored from, which takes part in everything else as any node does."""

    def own(node: Node) -> Node:
        if node.kind == "formula":
            return node
        index = plain(len(node.shape))
        body = trace(lambda x: x, [node.dtype])
        return graph.formula(Formula(node.shape, index, node.shape, (Read(0, index),), body), (node,))

    declared = graph
    graph, new = rebuild(declared, copy_node)
    graph.outputs = {name: own(node) for name, node in graph.outputs.items()}
    graph.updates = {target: own(value) for target, value in graph.updates.items()}
    if passages is not None:
        passages.append(Passage("stored", declared, graph, new, tuple(graph.nodes)))
    return graph


def _read_elsewhere(work: Lowering) -> set[Node]:
    """The kept nodes that a group other than their own reads, or that an index check reads."""
    found: set[Node] = set()
    for group in work.plan.groups:
        members = set(group.nodes)
        for member in group.nodes:
            for node, _ in loads(member, work.plan.kept):
                if base(node) not in members:
                    found.add(base(node))
    return found | {base(node) for node, _, _ in _indices(work)}


def _indices(work: Lowering) -> list[tuple[Node, SizeLike, Node]]:
    """Every index from data with the bound that it must stay below and the first node that uses it, each once."""
    found: dict[tuple[Node, SizeLike], Node] = {}
    for node in work.nodes:
        if node.kind == "formula":
            for data in data_indices(node.formula):
                found.setdefault((node.inputs[data.operand], data.bound), node)
    return [(node, bound, user) for (node, bound), user in found.items()]


def _place_updates(work: Lowering) -> None:
    """Decides for every update whether it is written in place, and adds the edges that this takes."""
    readers: dict[Node, dict[int, bool]] = {}
    for group in work.plan.groups:
        for member in group.nodes:
            for node, same in loads(member, work.plan.kept):
                found = readers.setdefault(base(node), {})
                elementwise = same and node.kind in PERSISTENT and member in group.maps
                found[group.number] = found.get(group.number, True) and elementwise
    for target, value in work.graph.updates.items():
        group = work.plan.group_of[value]
        found = readers.get(target, {})
        others = [number for number in found if number != group.number]
        scatters = group.root is not None and not group.root.formula.is_plain()
        if (
            found.get(group.number, True)
            and not scatters
            and not any(work.plan.reaches(group.number, n) for n in others)
        ):
            group.before.update(others)
            work.in_place.setdefault(value, []).append(target)
        else:
            work.stored.add(value)
            work.copies.append(Copy(value, target, frozenset([group.number, *others])))


def _make_buffers(work: Lowering) -> None:
    outputs = {node: name for name, node in work.graph.outputs.items()}
    for node in work.nodes:
        if node.kind == "formula" and node not in work.stored:
            continue
        if node.kind == "formula":
            role = "output" if node in outputs else "temp"
            name = outputs.get(node) or work.graph.name(node) or "t"
            buffer = Buffer(f"{name}.{node.number}", role, node.dtype, node.shape, node=node.number)
        elif node.kind == "const" and isinstance(node.attr, ConstValue):
            buffer = Buffer(f"const.{node.number}", "const", node.dtype, node.shape, node.attr, node.number)
        elif base(node) is not node:
            continue
        else:
            name = str(node.attr) if node.attr is not None else node.kind
            buffer = Buffer(name, node.kind, node.dtype, node.shape, node=node.number)
        work.buffer_of[node] = len(work.buffers)
        work.buffers.append(buffer)


def _code(
    builder: BodyBuilder, results: list[Scalar], owners: Mapping[int, tuple[int, ...]]
) -> tuple[Code, list[int]]:
    """The instructions that some results need, and where those results stand. owners: whose values they are."""
    needed = [False] * len(builder.instrs)
    for result in results:
        needed[result.position] = True
    moved: dict[int, int] = {}
    for position in range(len(needed) - 1, -1, -1):
        if needed[position]:
            for arg in builder.instrs[position].args:
                needed[arg] = True
    kept: list[Instr] = []
    for position, instr in enumerate(builder.instrs):
        if needed[position]:
            moved[position] = len(kept)
            kept.append(Instr(instr.op, tuple([moved[a] for a in instr.args]), instr.dtype, instr.attr))
    return Code(tuple(kept), tuple(owners.get(p, ()) for p in moved)), [moved[r.position] for r in results]


def _nests(work: Lowering, group: Group) -> list[Nest]:
    """The nest of a group; for a scatter one that fills with zeros before it."""
    root = group.root
    address = Address(work.buffer)
    name = f"k{group.number}"
    if root is not None and not root.formula.is_plain():
        return _scatter(work, root, name, address)
    extents = root.formula.extents if root is not None else group.maps[0].shape
    shape = group.nodes[0].shape
    accesses: list[Access] = []
    body = NestBody(address, work.plan.kept, extents, accesses, tuple(var(v) for v in group.along))
    post = NestBody(address, work.plan.kept, shape, accesses, plain(len(shape)))
    guards: tuple[Condition, ...] = ()
    if root is not None:
        guards = address.conditions([g for g in root.formula.guards if not always(g, extents)], root.inputs)
    for node in group.inner:
        body.here[node] = body.value(node, body.own)
    kept_inside = [node for node in group.inner if node in work.stored]
    results = [body.point(r) for r in group.roots] + [body.here[n] for n in kept_inside]
    code, found = _code(body.builder, results, body.owners)
    reductions = tuple(Reduction(r.formula.combine, p, r.dtype) for r, p in zip(group.roots, found, strict=False))
    inner = tuple(
        Store(Access(work.buffer(n), Flat(0, _plain_terms(n, group.along))), p, node=n.number)
        for n, p in zip(kept_inside, found[len(group.roots) :], strict=True)
    )
    for number, reduction in enumerate(group.roots):
        post.here[reduction] = post.accumulator(number, reduction)
    for node in group.maps:
        post.here[node] = post.value(node, post.own)
    wanted = [(node, leaf) for node in group.roots + group.maps for leaf in _targets(work, node)]
    after, positions = _code(post.builder, [post.here[node] for node, _ in wanted], post.owners)
    stores = tuple(
        Store(Access(work.buffer(leaf), Flat(0, _plain_terms(leaf))), position, node=node.number)
        for (node, leaf), position in zip(wanted, positions, strict=True)
    )
    order = Schedule(tuple(range(len(shape))))
    nodes = tuple(n.number for n in group.nodes)
    nest = Nest(name, extents, len(shape), tuple(accesses), code, reductions, after, stores, order, guards, nodes)
    nest = replace(nest, inner=inner)
    is_product = root is not None and product_of(root.formula) is not None and len(code.instrs) == 3 and not guards
    return [_with_panel(work, schedule(used_loads(nest), is_product))]


def _with_panel(work: Lowering, nest: Nest) -> Nest:
    """The nest with a buffer for its panel, if its schedule has one."""
    if nest.schedule.panel == 0:
        return nest
    work.buffers.append(Buffer(f"{nest.name}.panel", "temp", nest.reductions[0].dtype, (nest.schedule.panel,)))
    return replace(nest, scratch=len(work.buffers) - 1)


def _targets(work: Lowering, node: Node) -> list[Node]:
    """Where a node's value is stored: its own buffer if it has one, then the leaves that it updates in place."""
    return ([node] if node in work.stored else []) + work.in_place.get(node, [])


def _plain_terms(node: Node, along: Sequence[int] = ()) -> tuple[tuple[int, SizeLike], ...]:
    """The strides of a node's axes, axis k along variable k or ``along[k]``."""
    return tuple(sorted(zip(along or range(len(node.shape)), strides(node.shape), strict=True)))


def _scatter(work: Lowering, root: Node, name: str, address: Address) -> list[Nest]:
    formula = root.formula
    if formula.combine != "sum":
        raise InternalError(f"lower: node {root.number} scatters with {formula.combine}")
    target = work.buffer(root)
    builder = BodyBuilder()
    zero, (position,) = _code(builder, [builder.const(0, root.dtype)], {0: (root.number,)})
    whole = Access(target, Flat(0, ((0, 1),)))
    size = work.buffers[target].size
    cleared = (Store(whole, position, node=root.number),)
    fill = Nest(f"{name}_zero", (size,), 1, (), Code(), (), zero, cleared, Schedule((0,)), (), (root.number,))
    accesses: list[Access] = []
    post = NestBody(address, work.plan.kept, formula.extents, accesses, ())
    value = post.point(root, formula.guards)
    code, (position,) = _code(post.builder, [value], post.owners)
    guards = tuple(g for g in formula.guards if not always(g, formula.extents))
    store = Store(address.access(root, formula.write, guards, root.inputs), position, add=True, node=root.number)
    n = len(formula.extents)
    nest = Nest(
        name,
        formula.extents,
        n,
        tuple(accesses),
        Code(),
        (),
        code,
        (store,),
        Schedule(tuple(range(n))),
        (),
        (root.number,),
    )
    return [schedule(fill, False), schedule(used_loads(nest), False)]


def _copy_nest(work: Lowering, number: int, copy: Copy) -> Nest:
    builder = BodyBuilder()
    code, (position,) = _code(builder, [builder.read(0, copy.value.dtype)], {0: (copy.value.number,)})
    flat = Flat(0, _plain_terms(copy.value))
    n = len(copy.value.shape)
    source, target = Access(work.buffer(copy.value), flat), Access(work.buffer(copy.target), flat)
    nest = Nest(
        f"copy{number}",
        copy.value.shape,
        n,
        (source,),
        Code(),
        (),
        code,
        (Store(target, position, node=copy.value.number),),
        Schedule(tuple(range(n))),
        (),
        (copy.value.number,),
    )
    return schedule(nest, False)


def _ordered(work: Lowering) -> list[Kernel]:
    """The kernels, each after what it needs, checks at once."""
    groups = work.plan.groups
    kernels: list[list[Kernel]] = [list(_nests(work, group)) for group in groups]
    before: list[set[int]] = [set(group.before) for group in groups]
    rank = [group.number for group in groups]
    for number, copy in enumerate(work.copies):
        rank.append(len(kernels))
        kernels.append([_copy_nest(work, number, copy)])
        before.append(set(copy.before))
    writing = [k for k, group in enumerate(groups) if any(work.in_place.get(m) for m in group.nodes)]
    writing += range(len(groups), len(kernels))
    indices = [set().union(*(_index_uses(m, work.plan.kept) for m in group.nodes)) for group in groups]
    for number, (node, bound, user) in enumerate(_indices(work)):
        place = len(kernels)
        rank.append(-1)
        kernels.append([_check(work, number, node, bound, user)])
        source = work.plan.group_of.get(base(node))
        before.append({source.number} if source else set())
        for k in writing:
            before[k].add(place)
        for k, found in enumerate(indices):
            if (node, bound) in found:
                before[k].add(place)
    uses = [_temporaries(work, item) for item in kernels]
    n_bytes: dict[int, int] = {}
    for k in {k for used in uses for k in used}:
        buffer = work.buffers[k]
        dims = dict.fromkeys(names(buffer.size), NOMINAL)
        n_bytes[k] = evaluate(buffer.size, dims) * buffer.dtype.itemsize
    return [kernel for item in ordered(rank, before, uses, n_bytes) for kernel in kernels[item]]


def _temporaries(work: Lowering, kernels: Sequence[Kernel]) -> list[int]:
    """The buffers in the arena, panels aside, that some kernels name and that need not live to the end, ascending."""
    named = {k for kernel in kernels for k in (*kernel.reads(), *kernel.writes())}
    return sorted(k for k in named if work.buffers[k].role == "temp")


def _index_uses(node: Node, kept: set[Node]) -> set[tuple[Node, SizeLike]]:
    """The indices from data that a node's nest uses, through nodes without a buffer."""
    found: set[tuple[Node, SizeLike]] = set()
    stack = [node]
    while stack:
        at = stack.pop()
        if at.kind == "formula":
            found.update((at.inputs[d.operand], d.bound) for d in data_indices(at.formula))
            stack.extend(i for i in at.inputs if i not in kept)
    return found


def _check(work: Lowering, number: int, node: Node, bound: SizeLike, user: Node) -> IndexCheck:
    own = next((o for o in work.graph.origins.get(user, ()) if o.op), None)
    origin = work.users.get((_called(work.graph, node), bound), own)
    name = origin.op if origin else "index"
    source = str(origin.site) if origin and origin.site else ""
    given = work.graph.name(node) or "the index"
    message = f"{name}: index {{value}} at position {{position}} of {given} given; needs 0 <= index < {{bound}}"
    return IndexCheck(f"check{number}", work.buffer(node), bound, number, message, source, (user.number,))
