"""Handles into a graph: one node for equal expressions, names and places kept as origins."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from graphc.dsl.handle import Handle, Layer, Leaf
from graphc.errors import DefinitionError, InternalError
from graphc.graph.graph import LEAVES, NAMED, Attr, Graph, Node, Origin
from graphc.structs import dataclass, replace


@dataclass(frozen=True, slots=True)
class Built:
    """A graph, the node of each handle, and the declared leaves by name.

    unread: leaves that derivatives were taken over and that nothing reads any more.
    """

    graph: Graph
    node: dict[Handle, Node]
    leaves: dict[str, Handle]
    unread: dict[str, Handle]


def build(outputs: Mapping[str, Handle], variables: Sequence[Handle] = ()) -> Built:
    """The graph of ``outputs``.

    variables: handles that derivatives are taken by. One that is no declared leaf gets a ``variable`` node of its
    own, which its consumers read, so that an equal expression written elsewhere is another variable.

    Raises: DefinitionError where two declarations share a name, or two updates a state.
    """
    order = postorder([*outputs.values(), *variables])
    names = _leaf_names(order)
    inner = _consumed_at_once(order)
    marks = {v: k for k, v in enumerate(variables) if v.kind not in NAMED}
    graph = Graph()
    node: dict[Handle, Node] = {}
    leaves: dict[str, Handle] = {}
    origins = {handle: origins_of(handle, names.get(handle, ""), handle in inner) for handle in order}
    distinct = _Names(names.values(), (o.name for h, found in origins.items() if not h.origins for o in found))
    for handle in order:
        inputs = [node[o] for o in handle.operands]
        if handle.kind == "updates":
            made = _note_updates(graph, handle, inputs)
        else:
            made = graph.add(handle.kind, inputs, _attr(handle, names), handle.dtype, handle.shape)
            graph.note(made, tuple([distinct.origin(o, made) for o in origins[handle]]))
        if handle in marks:
            known = graph.origins.get(made, ())
            made = graph.add("variable", (made,), marks[handle], handle.dtype, handle.shape, known)
        node[handle] = made
        if handle in names:
            leaves[names[handle]] = handle
    graph.outputs = {name: node[handle] for name, handle in outputs.items()}
    over = dict.fromkeys(leaf for handle in order for leaf in handle.over)
    unread = {leaf.leaf.name: leaf for leaf in over if leaf.leaf.name is not None and leaf.leaf.name not in leaves}
    return Built(graph, node, leaves, unread)


class _Names:
    """Names that stand for one node each: the second value called h (of a loop, say) is ``h_2``, or ``h_3`` where the
    user calls another one ``h_2``."""

    def __init__(self, declared: Iterable[str], own: Iterable[str]) -> None:
        self.declared = dict.fromkeys(declared)
        self.own = dict.fromkeys(own)
        self.owner: dict[str, Node] = {}
        self.given: dict[tuple[str, Node], str] = {}
        self.counts: dict[str, int] = {}  # the highest number behind a name; all below it are taken

    def origin(self, origin: Origin, node: Node) -> Origin:
        """The origin with a name that no other node has."""
        if not origin.name or node.kind in NAMED:
            return origin
        name = self.given.get((origin.name, node))
        if name is None:
            name = self.given[origin.name, node] = self._free(origin.name, node)
        return origin if name == origin.name else replace(origin, name=name)

    def _free(self, wanted: str, node: Node) -> str:
        count = self.counts.get(wanted, 1)
        name = wanted if count == 1 else f"{wanted}_{count}"
        while (
            name in self.declared
            or (count > 1 and name in self.own)
            or self.owner.setdefault(name, node) is not node
        ):
            count += 1
            name = f"{wanted}_{count}"
        self.counts[wanted] = count
        return name


def declared(outputs: Iterable[Handle]) -> dict[str, Handle]:
    """The declared leaves that ``outputs`` are made of, by name, in the order of ``build``, which makes the graph too.

    Raises: DefinitionError where two declarations share a name.
    """
    return {name: handle for handle, name in _leaf_names(postorder(outputs)).items()}


def postorder(roots: Iterable[Handle]) -> list[Handle]:
    """All handles that ``roots`` are made of, each after its operands, in the order a reader meets them."""
    done: dict[Handle, bool] = {}
    order: list[Handle] = []
    for root in roots:
        stack = [root]
        while stack:
            handle = stack[-1]
            state = done.get(handle)
            if state is None:
                done[handle] = False
                stack.extend(o for o in reversed(handle.operands) if o not in done)
                continue
            stack.pop()
            if not state:
                done[handle] = True
                order.append(handle)
    return order


def origins_of(handle: Handle, leaf_name: str, inner: bool) -> tuple[Origin, ...]:
    """Where a handle comes from. ``inner``: a value inside an operation, which has no name of its own."""
    if handle.origins and not handle.label:
        return handle.origins
    name = leaf_name or (handle.label if inner else handle.name)
    origin = Origin(op=handle.op, name=name, site=handle.site)
    return (origin, *handle.origins)


def _attr(handle: Handle, names: Mapping[Handle, str]) -> Attr:
    return names[handle] if isinstance(handle.attr, Leaf) else handle.attr


def _note_updates(graph: Graph, handle: Handle, inputs: list[Node]) -> Node:
    for target, value in zip(inputs[1::2], inputs[2::2], strict=True):
        known = graph.updates.get(target)
        if known is not None and known is not value:
            raise DefinitionError(
                f"with_updates: {graph.name(target) or target.kind} has two new values; needs one\n  {handle.site}"
            )
        graph.updates[target] = value
    return inputs[0]


def _consumed_at_once(order: Iterable[Handle]) -> dict[Handle, bool]:
    """The handles read by another that the same instruction made: values inside one operation."""
    return {
        operand: True
        for handle in order
        if handle.code is not None
        for operand in handle.operands
        if handle.made_with(operand)
    }


def _leaf_names(order: Iterable[Handle]) -> dict[Handle, str]:
    """The name of every declared leaf; those without one are named in graph order."""
    found: dict[Handle, str] = {}
    owner: dict[str, Handle] = {}
    prefixes: dict[Layer, str] = {}
    counts: dict[str, int] = {}
    for handle in order:
        if handle.kind not in LEAVES or not isinstance(handle.attr, Leaf):
            continue
        leaf = handle.attr
        name = leaf.name
        if name is None:
            layer = leaf.layer
            if layer is None:
                raise InternalError(f"a {handle.kind} without name and layer")
            if layer not in prefixes:
                counts[layer.kind] = counts.get(layer.kind, 0) + 1
                prefixes[layer] = f"{layer.kind}_{counts[layer.kind]}"
            name = f"{prefixes[layer]}.{leaf.suffix}"
        other = owner.setdefault(name, handle)
        if other is not handle:
            raise DefinitionError(
                f"{handle.kind}: the name {name!r} is declared twice; needs a name of its own\n"
                f"  {other.site}\n  {handle.site}"
            )
        found[handle] = name
    return found
