"""Lines of maths as boxes and edges: a forward graph, its gradients mirrored beside it, and the updates.

A box is a line, or a leaf that lines read; an edge leads from a value to the line that reads it. A value and its
gradient stand in one row, so that the two halves are mirror images: forward runs down, gradients run up.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from graphc.graph.formula import Shape
from graphc.graph.graph import LEAVES, NAMED, Graph
from graphc.inspect.layers import longest_paths
from graphc.notation.simplify import renamed
from graphc.notation.text import line_text
from graphc.notation.tree import Line, symbols
from graphc.structs import dataclass

MOST = 40  # lines of the forward half; of more, those in the middle are folded into one box, and their gradients
KEPT = 10  # lines kept at each end
Names = dict[str, None]  # in order
FORWARD, BACKWARD, UPDATE = "forward", "backward", "update"


@dataclass(frozen=True, slots=True)
class Box:
    """A box: its half, the value's name, its lines of text, its shape, its row, and what it is: ``input``, ``param``,
    ``state``, ``hyper``, ``line`` or ``folded``."""

    lane: str
    name: str
    text: tuple[str, ...]
    shape: Shape
    row: int
    kind: str


@dataclass(frozen=True, slots=True)
class Edge:
    """The value ``name`` read by a box: both by number. A link crosses from one half to another."""

    start: int
    end: int
    name: str
    link: bool


@dataclass(frozen=True, slots=True)
class Boxes:
    """All boxes, and the edges between them; groups: each line with the leaves that it alone reads, by number, where
    there are parameters among them, and what their names begin with."""

    boxes: tuple[Box, ...]
    edges: tuple[Edge, ...]
    groups: tuple[tuple[str, tuple[int, ...]], ...]


@dataclass(frozen=True, slots=True)
class Leaf:
    """A leaf of the forward graph."""

    kind: str
    shape: Shape


def leaves_of(graph: Graph) -> dict[str, Leaf]:
    """The declared leaves of a graph by name."""
    return {str(n.attr): Leaf(n.kind, n.shape) for n in graph.nodes if n.kind in LEAVES and n.kind in NAMED}


def boxes_of(
    forward: Sequence[Line], backward: Sequence[Line], updates: Sequence[Line], leaves: Mapping[str, Leaf]
) -> Boxes:
    """The boxes of a forward pass, its gradients and the updates made of them, any of which may be empty."""
    maker = _Maker(leaves)
    backward = _distinct(backward, forward)
    folded = _folded(forward, backward, leaves)
    maker.half(FORWARD, forward, folded[0])
    maker.half(BACKWARD, backward, folded[1])
    maker.updates(updates)
    return maker.finished()


def _distinct(lines: Sequence[Line], others: Sequence[Line]) -> list[Line]:
    """The lines with ``t1``, ``t2``, … counted on from those of other lines."""
    known = [line.name for line in others if re.fullmatch(r"t\d+", line.name)]
    last = max((int(name[1:]) for name in known), default=0)
    own = [line.name for line in lines if re.fullmatch(r"t\d+", line.name)]
    return renamed(lines, {name: f"t{last + k}" for k, name in enumerate(own, 1)})


def _folded(forward: Sequence[Line], backward: Sequence[Line], leaves: Mapping[str, Leaf]) -> tuple[Names, Names]:
    """The names of the lines that are folded: those in the middle of a long forward half, and of the other half the
    gradients of these and of leaves that they alone read, with all that stands between them.
    """
    if len(forward) <= MOST:
        return {}, {}
    middle = dict.fromkeys(line.name for line in forward[KEPT:-KEPT])
    outside = dict.fromkeys(name for line in forward if line.name not in middle for name in symbols(line.value))
    inner = [name for line in forward if line.name in middle for name in symbols(line.value)]
    own = [*middle, *(name for name in inner if name in leaves and name not in outside)]
    ends = dict.fromkeys(f"d_{name}" for name in own)
    reads = {line.name: symbols(line.value) for line in backward}
    after: Names = {}
    for line in backward:  # each is made of earlier ones
        if line.name in ends or any(name in after for name in reads[line.name]):
            after[line.name] = None
    before: Names = {}
    for line in reversed(backward):
        if line.name in ends or line.name in before:
            before[line.name] = None
            before.update(dict.fromkeys(reads[line.name]))
    return middle, {name: None for name in after if name in before}


class _Maker:
    """Gathers boxes and edges, then gives them rows."""

    def __init__(self, leaves: Mapping[str, Leaf]) -> None:
        self.leaves = leaves
        self.boxes: list[Box] = []
        self.made_in: dict[tuple[str, str], int] = {}  # half and name: the box that makes it
        self.edges: list[Edge] = []
        self.reads: dict[int, dict[str, None]] = {}

    def add(self, lane: str, names: Sequence[str], text: Sequence[str], shape: Shape, kind: str) -> int:
        """A box that makes some values; its number."""
        number = len(self.boxes)
        self.boxes.append(Box(lane, names[-1], tuple(text), shape, 0, kind))
        for name in names:
            self.made_in[lane, name] = number
        self.reads[number] = {}
        return number

    def half(self, lane: str, lines: Sequence[Line], folded: Names) -> None:
        """The boxes of a half; the lines named in ``folded`` have one together."""
        inside = [line for line in lines if line.name in folded]
        if inside:
            text = [f"… {len(inside)} lines …", *(line_text(line) for line in inside)]
            self.add(lane, [line.name for line in inside], text, inside[-1].shape, "folded")
        for line in lines:
            if line.name not in folded:
                self.add(lane, [line.name], [line_text(line)], line.shape, "line")
        for line in lines:
            self.read(lane, self.made_in[lane, line.name], line)

    def read(self, lane: str, number: int, line: Line) -> None:
        """Notes what a line reads: values of its half, of the forward half, or leaves, which get a box."""
        for name in symbols(line.value):
            if self.is_made(lane, name) or name in self.leaves:
                self.reads[number][name] = None

    def is_made(self, lane: str, name: str) -> bool:
        return (lane, name) in self.made_in or (FORWARD, name) in self.made_in or (BACKWARD, name) in self.made_in

    def updates(self, lines: Sequence[Line]) -> None:
        """One box for each set of updates that read each other's new values: a weight and its slots."""
        sets: list[list[Line]] = []
        for line in lines:
            read = dict.fromkeys(symbols(line.value))
            touching = [s for s in sets if any(f"{other.name}′" in read or other.name in read for other in s)]
            merged = [other for s in touching for other in s] + [line]
            sets = [s for s in sets if not any(s is t for t in touching)] + [merged]
        for found in sets:
            names = [line.name for line in found]
            weight = next((n for n in names if n in self.leaves and self.leaves[n].kind == "param"), names[-1])
            ordered = [n for n in names if n != weight] + [weight]
            number = self.add(UPDATE, ordered, [line_text(line) for line in found], found[-1].shape, "line")
            for line in found:
                for name in symbols(line.value):
                    if (BACKWARD, name) in self.made_in:
                        self.reads[number][name] = None

    def finished(self) -> Boxes:
        """Leaves get boxes in the forward half, edges are drawn, rows are given."""
        for number in range(len(self.boxes)):
            box = self.boxes[number]
            for name in self.reads[number]:
                leaf = self.leaves.get(name)
                if leaf is not None and not self.is_made(box.lane, name):
                    if box.lane == FORWARD and leaf.kind != "hyper" and box.kind != "folded":
                        self.add(FORWARD, [name], [name], leaf.shape, leaf.kind)
        for number, names in self.reads.items():
            lane = self.boxes[number].lane
            drawn: dict[int, None] = {}
            for name in names:
                places = [(lane, name), (BACKWARD, name), (FORWARD, name)]
                start = next((self.made_in[place] for place in places if place in self.made_in), None)
                if start is not None and start != number and start not in drawn:
                    drawn[start] = None
                    self.edges.append(Edge(start, number, name, self.boxes[start].lane != lane))
        rows = self.rows()
        boxes = [Box(b.lane, b.name, b.text, b.shape, row, b.kind) for b, row in zip(self.boxes, rows, strict=True)]
        return Boxes(tuple(boxes), tuple(self.edges), tuple(self.groups()))

    def rows(self) -> list[int]:
        """A row for each box; a value's and its gradient's are one where that is possible."""
        own = list(range(len(self.boxes)))
        tied = list(own)
        for (lane, name), number in self.made_in.items():
            box = self.boxes[number]
            if lane == BACKWARD and name.startswith("d_") and (FORWARD, name[2:]) in self.made_in:
                if name == box.name or box.kind == "folded":
                    tied[number] = self.made_in[FORWARD, name[2:]]
            elif lane == UPDATE and name == box.name:
                tied[number] = self.made_in.get((FORWARD, name), number)
        edges: list[tuple[int, int]] = []
        for same in (tied, own):
            edges = []
            for edge in self.edges:
                lane = self.boxes[edge.end].lane
                if not edge.link:
                    pair = (same[edge.start], same[edge.end])
                    edges.append(pair if lane == FORWARD else pair[::-1])
            ranks = longest_paths(len(own), edges)
            if ranks is not None:
                break
        else:
            raise AssertionError("lines stand in an order in which each is made of earlier ones")
        read = dict.fromkeys(b for _, b in edges)
        for number in dict.fromkeys(same):  # a leaf stands right above the first line that reads it
            below = [ranks[b] for a, b in edges if a == number]
            if number not in read and below:
                ranks[number] = min(below) - 1
        return [ranks[k] for k in same]

    def groups(self) -> list[tuple[str, tuple[int, ...]]]:
        """Each forward line with the leaves that it alone reads."""
        readers: dict[int, list[int]] = {}
        for edge in self.edges:
            if not edge.link:
                readers.setdefault(edge.start, []).append(edge.end)
        found = []
        for number, box in enumerate(self.boxes):
            if box.lane == FORWARD and box.kind == "line":
                own = [k for k, ends in readers.items() if ends == [number] and self.boxes[k].kind != "line"]
                params = [self.boxes[k].name for k in own if self.boxes[k].kind == "param"]
                heads = list(dict.fromkeys(name.rpartition(".")[0] for name in params))
                if params:
                    found.append((heads[0] if len(heads) == 1 else "", (*own, number)))
        return found
