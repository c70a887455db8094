"""From a declared or derived value to the machine code that computes it, and back.

Nothing is guessed. Every pass over the graph says which node it made of which (``graph.Passage``), every instruction of
a kernel whose value it is (``form.Code.owners``), and every LLVM instruction carries as its debug location a line of
the kernels' listing, which the assembly repeats (``.loc``). Code may serve several values: then all of them are named.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from graphc.graph.formula import Formula
from graphc.graph.graph import LEAVES, Graph, Node, Passage
from graphc.graph.show import all_told_apart, formula_text, type_text
from graphc.inspect.spans import Code, Span
from graphc.inspect.trail import Fate, Trail
from graphc.kernels.fuse import base
from graphc.kernels.show import Line
from graphc.structs import dataclass, replace

DECLARED, DERIVED = "declared", "derived"


@dataclass(frozen=True, slots=True)
class Value:
    """A node of the declared graph, or of the derived one (forward pass, gradients and update), and where it went.

    became: its number in the rewritten graph, -1 where it has none. removed: the rewrites that made it needless, by
    number among all that fired; reason: the same in words. lines: of the listing that compute it, or, of a leaf, load
    it, counted from 1; where it was removed those of the values that took it in. twin: of a declared value the place of
    the derived one that it became, -1 for none.
    """

    stage: str
    number: int
    name: str
    text: str
    type: str
    source: str
    became: int
    lines: tuple[int, ...]
    removed: tuple[int, ...] = ()
    reason: str = ""
    twin: int = -1


@dataclass(frozen=True, slots=True)
class Links:
    """Everything that is linked. served: the values of each line of the listing, by their places in ``values``.
    instead: of a line without machine code of its own (a load that an instruction does by itself, a product that an
    addition takes in) the lines whose code does its work. kernels: the names of their functions.
    """

    values: tuple[Value, ...]
    listing: tuple[Line, ...]
    llvm: Code
    asm: Code
    served: tuple[tuple[int, ...], ...]
    kernels: tuple[str, ...]
    instead: Mapping[int, tuple[int, ...]]

    def asm_of(self, value: Value) -> list[Span]:
        """The assembly that computes a value or, of a leaf, loads it."""
        return self.asm.of(other for line in value.lines for other in self.instead.get(line, (line,)))

    def values_of(self, span: Span) -> list[Value]:
        """The declared and derived values that a span of LLVM or assembly serves."""
        found = dict.fromkeys(v for line in span.sources for v in self.served[line - 1])
        return [self.values[v] for v in found]

    def find(self, stage: str, number: int) -> Value:
        """A value by stage and number in that graph."""
        return next(v for v in self.values if v.stage == stage and v.number == number)


def link(
    graphs: Mapping[str, Graph],
    passages: Sequence[Passage],
    offsets: Sequence[int],
    rewritten: Graph,
    listing: Sequence[Line],
    llvm: Code,
    asm: Code,
    kernel_names: Sequence[str],
) -> Links:
    """The links of a program.

    graphs: the declared and the derived graph, each one that a passage begins with (or the last passage's result).
    offsets: of each passage, how many rewrites are numbered before its log. rewritten: the graph behind all rewrites.
    kernel_names: of the kernels' functions.
    """
    trail = Trail(passages, offsets)
    behind = next(k for k, p in enumerate(passages) if p.before is rewritten)
    by_node = _lines_of(listing, passages[-1].made)
    values: list[Value] = []
    origins: dict[int, dict[int, None]] = {}  # node number of the last graph -> values, by place
    first = len(graphs[DECLARED].live())  # the place of the first derived value
    twins = {node: first + k for k, node in enumerate(graphs[DERIVED].live())}
    step = next((k for k, p in enumerate(passages) if p.before is graphs[DERIVED]), len(passages))
    for stage, graph in graphs.items():
        start = next((k for k, p in enumerate(passages) if p.before is graph), len(passages))
        place = {node: len(values) + k for k, node in enumerate(graph.live())}
        made_of: dict[Node, list[Node]] = {}
        for made, roots in trail.origins(graph, start).items():
            for root in roots:
                if root in place:
                    made_of.setdefault(root, []).append(made)
                    origins.setdefault(made.number, {})[place[root]] = None
        names = value_names(graph)
        for node in place:
            fate = trail.fate(node, start)
            last = [fate.node, *made_of.get(node, ())] if fate.node is not None else fate.readers
            image = trail.image(node, start, behind)
            found = _value(graph, node, stage, names[node], fate, image, by_node.of(last))
            derived = trail.image(node, start, step) if stage == DECLARED else None
            values.append(found if derived is None else replace(found, twin=twins[derived]))
    instead = _instead(listing, asm)
    served = _served(listing, values, origins, instead)
    return Links(tuple(values), tuple(listing), llvm, asm, tuple(served), tuple(kernel_names), instead)


def _instead(listing: Sequence[Line], asm: Code) -> dict[int, tuple[int, ...]]:
    """For each line without machine code the nearest ones that take its value and have some."""
    has_code = {source for span in asm.spans for source in span.sources}
    takers: dict[tuple[int, str, int], list[int]] = {}
    for number, line in enumerate(listing, 1):
        program = "body" if line.part in ("body", "inner", "reduce") else "post"
        for use in line.uses:
            takers.setdefault((line.kernel, program, use), []).append(number)
    found: dict[int, tuple[int, ...]] = {}
    for number in range(len(listing), 0, -1):  # whoever takes a value stands behind it
        line = listing[number - 1]
        if number in has_code or line.part not in ("body", "post"):
            continue
        others = takers.get((line.kernel, line.part, line.number), [])
        found[number] = tuple(dict.fromkeys(n for other in others for n in found.get(other, (other,))))
    return found


@dataclass(frozen=True, slots=True)
class _Lines:
    """Of each node of the last graph, by number, the lines that compute it and those that load it."""

    made: Mapping[int, list[int]]
    loaded: Mapping[int, list[int]]

    def of(self, nodes: Sequence[Node]) -> tuple[int, ...]:
        """The lines that compute some nodes; of a leaf those that load it; of a relabelling those of what it names."""
        found: dict[int, None] = {}
        for node in nodes:
            numbers = (node.number, base(node).number)
            sources = (t[n] for t in (self.made, self.loaded) for n in numbers if n in t)
            found.update(dict.fromkeys(next(sources, ())))
        return tuple(sorted(found))


def _lines_of(listing: Sequence[Line], nodes: Sequence[Node]) -> _Lines:
    made: dict[int, list[int]] = {}
    loaded: dict[int, list[int]] = {}
    for number, line in enumerate(listing, 1):
        for node in line.nodes:
            made.setdefault(node, []).append(number)
        for node in dict.fromkeys([*line.loads, *(base(nodes[n]).number for n in line.loads)]):
            loaded.setdefault(node, []).append(number)
    return _Lines(made, loaded)


def _served(
    listing: Sequence[Line],
    values: Sequence[Value],
    origins: Mapping[int, Mapping[int, None]],
    instead: Mapping[int, Sequence[int]],
) -> list[tuple[int, ...]]:
    """For each line the values whose line it is, or whose code its code is too; of a loop or a head all of its
    kernel."""
    own: list[dict[int, None]] = [{} for _ in listing]
    kernels: dict[int, dict[int, None]] = {}
    for place, value in enumerate(values):
        for number in value.lines if not value.removed and not value.reason else ():
            own[number - 1][place] = None
    for line, found in zip(listing, own, strict=True):
        found.update(dict.fromkeys(v for n in (*line.nodes, *line.loads) for v in origins.get(n, ())))
        if line.nodes:
            kernels.setdefault(line.kernel, {}).update(found)
    for number, others in instead.items():
        for other in others:
            own[other - 1].update(own[number - 1])
    return [tuple(f or kernels.get(line.kernel, ())) for line, f in zip(listing, own, strict=True)]


def _value(
    graph: Graph, node: Node, stage: str, name: str, fate: Fate, image: Node | None, lines: tuple[int, ...]
) -> Value:
    site = next((str(o.site) for o in graph.origins.get(node, ()) if o.site), "")
    said = (name, _text(graph, node), type_text(node.dtype, node.shape), site)
    became = -1 if image is None else image.number
    return Value(stage, node.number, *said, became, lines, fate.removed, fate.reason)


def _text(graph: Graph, node: Node) -> str:
    """A node in index notation, its operands by name or number."""
    if node.kind in LEAVES:
        return node.kind if node.kind == "const" else f"{node.kind} {node.attr}" if node.attr is not None else node.kind
    operands = [graph.name(i) or f"%{i.number}" for i in node.inputs]
    if isinstance(node.attr, Formula):
        return re.sub(r"\$(\d+)", lambda m: operands[int(m[1])], formula_text(node.attr))
    return f"{node.kind}({', '.join(operands)})"


def value_names(graph: Graph) -> dict[Node, str]:
    """What the values of a graph are called: as the user did, by what they are the derivative of, or by their
    operation; a name given twice is counted. One without any has its number.
    """
    wished: list[tuple[str, bool]] = []
    nodes = graph.live()
    updates = {value: f"new {graph.name(target) or target.kind}" for target, value in graph.updates.items()}
    for node in nodes:
        origins = graph.origins.get(node, ())
        note = next((o.note for o in origins if o.note), "")
        op = next((o.op for o in origins if o.op), "")
        own = graph.name(node)
        wished.append((own or updates.get(node) or note or op or f"%{node.number}", bool(own)))
    return dict(zip(nodes, all_told_apart(wished), strict=True))
