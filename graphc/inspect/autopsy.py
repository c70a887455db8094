"""The autopsy of a step that computed a NaN or an infinity: which value was the first, of what, and how it came there.

It looks at every value of the rewritten graph, which a second program has given back for the same inputs, weights and
states. The first is a value that is no finite number though all that it was computed from is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from graphc.graph.formula import Affine, plain
from graphc.graph.graph import NAMED, Array, ConstValue, Graph, Node, Site, reachable
from graphc.graph.show import all_told_apart, type_text
from graphc.graph.sizes import evaluate
from graphc.inspect.explain import named_formula
from graphc.inspect.live import numbers
from graphc.kernels.debug import states_infinity
from graphc.structs import dataclass

Bools = NDArray[np.bool_]
_LONGEST = 12  # values of the way that are shown; the middle of a longer one is left out


@dataclass(frozen=True, slots=True)
class Link:
    """A value on the way: its name, its numbers in words, the user's line that it comes from (empty for none)."""

    name: str
    numbers: str
    source: str


@dataclass(frozen=True, slots=True)
class Autopsy:
    """What is known of the first value that is no finite number.

    name: the user's, or what the value is: the operation, or ``d_z`` for a derivative. where: "in the forward pass",
    "in back propagation", "in the update", "in the function", or what it is that came so: "an input", "a param", "a
    state", "a hyper". formula: of its elements; empty for a leaf. source: the user's line. value, at: the first such
    element and its place. count, of: how many of its elements are no finite numbers. operands: what it was computed
    from, with the element that it read there. way: from an input to it, always by the operand of the largest magnitude.
    scalars: the run-time numbers, such as ``lr``.
    """

    name: str
    where: str
    formula: str
    source: str
    value: float
    at: tuple[int, ...]
    count: int
    of: int
    operands: tuple[Link, ...]
    way: tuple[Link, ...]
    scalars: tuple[tuple[str, float], ...]

    def __str__(self) -> str:
        place = f" at [{', '.join(map(str, self.at))}]" if self.at else ""
        came = f"debug: {self.name} is {self.value}{place}"
        if self.of > 1:
            came += f" ({self.count} of {self.of} elements are no finite numbers)"
        lines = [f"{came}: {'the first such value, ' if self.formula else ''}{self.where}"]
        lines += [f"  {self.source}"] if self.source else []
        lines += [f"  {self.formula}"] if self.formula else []
        lines += [f"    of {link.name}{link.numbers}" for link in self.operands]
        if len(self.way) > 1:
            lines.append("  the way there:")
            shown = list(self.way)
            if len(shown) > _LONGEST:
                left_out = Link("...", f" {len(shown) - _LONGEST} values", "")
                shown = [*shown[: _LONGEST // 2], left_out, *shown[-_LONGEST // 2 :]]
            lines += [f"    {k.name}{k.numbers}{f'    [{_place(k.source)}]' if k.source else ''}" for k in shown]
        if self.scalars:
            lines.append(f"  with {', '.join(f'{name} = {value:.6g}' for name, value in self.scalars)}")
        return "\n".join(lines)


def _place(source: str) -> str:
    """File and line of a source line, without its text."""
    return source.partition(": ")[0]


def autopsy(
    graph: Graph,
    values: Mapping[Node, Array],
    ends: Sequence[Node],
    sites: Mapping[str, Site | None],
    infinities: bool = False,
) -> Autopsy | None:
    """The first value that is no finite number on the ways to ``ends``; None where there is none.

    values: of every node but constants. sites: where inputs, parameters and so on were declared. infinities: whether
    those that come from an infinite constant are meant.
    """
    nodes = reachable(ends)
    bad: set[int] = set()  # both are asked by number, never iterated
    meant: set[int] = set()
    for node in nodes:
        deliberate = infinities and (states_infinity(node) or any(i.number in meant for i in node.inputs))
        if deliberate:
            meant.add(node.number)
        if node not in values or values[node].dtype.kind != "f":
            continue
        flags = np.isnan(values[node]) if deliberate else ~np.isfinite(values[node])
        if flags.any():
            if not any(i.number in bad for i in node.inputs):
                return _report(graph, values, node, flags, sites)
            bad.add(node.number)
    return None


def _report(
    graph: Graph, values: Mapping[Node, Array], node: Node, flags: Bools, sites: Mapping[str, Site | None]
) -> Autopsy:
    forward = frozenset(node.number for node in reachable(graph.outputs.values()))
    names = _names(graph, forward)
    value = values[node]
    at = tuple(int(k) for k in np.argwhere(flags)[0]) if value.ndim else ()
    return Autopsy(
        names[node],
        _where(graph, node, forward),
        _formula(node, names),
        _source(graph, node, sites),
        float(value[at]),
        at,
        int(flags.sum()),
        int(value.size),
        _operands(node, values, names, at, _dims(graph, values)),
        tuple(Link(names[k], _numbers(values[k]), _source(graph, k, sites)) for k in _way(node, values)),
        tuple((str(k.attr), float(values[k])) for k in graph.live() if k.kind == "hyper" and k in values),
    )


def _dims(graph: Graph, values: Mapping[Node, Array]) -> dict[str, int]:
    """The run-time sizes, as the inputs have them."""
    found: dict[str, int] = {}
    for node in graph.live():
        if node.kind in NAMED and node in values:
            for size, given in zip(node.shape, values[node].shape, strict=True):
                found[str(size)] = given
    return found


def _names(graph: Graph, forward: frozenset[int]) -> dict[Node, str]:
    """A name for each node: the user's, ``d_`` and that for a derivative, else the operation; told apart by numbers."""
    found: dict[Node, str] = {}
    wished: dict[Node, tuple[str, bool]] = {}
    for node in graph.live():
        origins = graph.origins.get(node, ())
        noted = next((o.note.split(" ")[0] for o in origins if o.note), "")
        written = next((o.op for o in origins if o.op), "")
        known = (written, noted) if node.number in forward else (noted, written)
        own = graph.name(node)
        called = own or known[0] or known[1] or (node.kind if node.kind != "formula" else "t")
        if isinstance(node.attr, ConstValue) and node.shape == ():
            called = f"{float(node.attr.array()):.6g}"
        if node.kind == "const":
            found[node] = called
        else:
            wished[node] = (called, bool(own))
    return found | dict(zip(wished, all_told_apart(list(wished.values())), strict=True))


def _where(graph: Graph, node: Node, forward: frozenset[int]) -> str:
    if not node.inputs:
        return f"{'an' if node.kind == 'input' else 'a'} {node.kind}"
    if not graph.updates:
        return "in the function"
    if node.number in forward:
        return "in the forward pass"
    derived = [n for n in graph.live() if any(o.note.startswith("d_") for o in graph.origins.get(n, ()))]
    return "in back propagation" if node in reachable(derived) else "in the update"


def _source(graph: Graph, node: Node, sites: Mapping[str, Site | None]) -> str:
    """The user's line of a node; of a value that only helps to compute another one, that one's."""
    if node.kind in NAMED and sites.get(str(node.attr)) is not None:
        return str(sites[str(node.attr)])
    nodes = graph.live()
    wanted = {node.number}
    for reader in nodes[nodes.index(node) :]:
        if reader is node or any(i.number in wanted for i in reader.inputs):
            site = next((o.site for o in graph.origins.get(reader, ()) if o.site), None)
            if site is not None:
                return str(site)
            wanted.add(reader.number)
    return ""


def _formula(node: Node, names: Mapping[Node, str]) -> str:
    if not node.inputs:
        return ""
    of = ", ".join(names[i] for i in node.inputs)
    text = named_formula(node.formula, node.inputs, names) if node.kind == "formula" else f"{node.kind}({of})"
    return f"{names[node]}: {type_text(node.dtype, node.shape)} = {text}"


def _operands(
    node: Node, values: Mapping[Node, Array], names: Mapping[Node, str], at: tuple[int, ...], dims: Mapping[str, int]
) -> tuple[Link, ...]:
    found = []
    for number, operand in enumerate(node.inputs):
        if operand not in values:
            continue
        read = _read_at(node, number, at, dims)
        value = values[operand]
        inside = read is not None and all(0 <= k < n for k, n in zip(read, value.shape, strict=True))
        there = ""
        if read and inside:
            there = f"; [{', '.join(map(str, read))}] is {value[read]:.6g}"
        found.append(Link(names[operand], _numbers(value) + there, ""))
    return tuple(dict.fromkeys(found))


def _read_at(node: Node, operand: int, at: tuple[int, ...], dims: Mapping[str, int]) -> tuple[int, ...] | None:
    """Where an operand is read for one element of a value; None where that depends on data or is no single place."""
    if node.kind != "formula" or node.formula.write != plain(len(node.shape)):
        return None
    reads = [r for r in node.formula.reads if r.operand == operand]
    if len(reads) != 1 or reads[0].guards:
        return None
    place = []
    for index in reads[0].index:
        if not isinstance(index, Affine) or any(v >= len(at) for v, _ in index.terms):
            return None
        place.append(int(evaluate(index.const, dims)) + sum(c * at[v] for v, c in index.terms))
    return tuple(place)


def _numbers(value: Array) -> str:
    """The numbers of a value in words, without its name."""
    if value.dtype.kind == "b":
        return f" {value.shape}: {int(value.sum())} of {value.size} are true"
    if value.dtype.kind == "f" and value.size and not np.isfinite(value).any():
        return f" {value.shape}: no element is a finite number" if value.shape else f" = {value[()]}"
    return str(numbers("", value))


def _way(node: Node, values: Mapping[Node, Array]) -> list[Node]:
    """From a leaf to a node, always by the operand of the largest magnitude; integers lead nowhere."""
    way = [node]
    while True:
        steps = [i for i in way[-1].inputs if i in values and i.kind != "hyper" and values[i].dtype.kind == "f"]
        if not steps:
            return way[::-1]
        way.append(max(steps, key=lambda i: float(np.max(np.abs(values[i]), initial=0.0))))
