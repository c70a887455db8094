"""Boxes, edges and neurons as SVG: one self-contained file, in colours that everyone tells apart, light and dark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from itertools import pairwise

from graphc.graph.formula import Shape
from graphc.inspect.boxes import BACKWARD, FORWARD, UPDATE, Box, Boxes
from graphc.inspect.layers import layered

_CHARACTER, _SMALL, _LINE = 7.3, 6.1, 15.0  # the width of one at 12 and at 10 pixels in the font below; a line's height
_LONGEST = 44  # characters of a line in a box; all of it is in its tooltip
_BOX, _DOWN, _GAP, _BETWEEN, _TOP, _MARGIN = 34.0, 62.0, 22.0, 90.0, 56.0, 20.0
_TITLES = {FORWARD: "forward pass  ↓", BACKWARD: "gradients  ↑", UPDATE: "update"}

# Okabe and Ito's palette (2008), told apart with every kind of colour blindness; shapes and words say the same again.
STYLE = """
svg.graphc { background: #ffffff; font: 12px ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; }
.graphc text { fill: #1a1a1a; }
.graphc .small { font-size: 10px; }
.graphc .title { font-size: 14px; font-weight: bold; }
.graphc .box { fill: #eef5fb; stroke: #0072b2; stroke-width: 1.4; }
.graphc .backward .box { fill: #fdf0e6; stroke: #d55e00; }
.graphc .update .box { fill: #f9eef4; stroke: #cc79a7; }
.graphc .param .box { fill: #e6f5f0; stroke: #009e73; }
.graphc .state .box { fill: #fbf8dc; stroke: #8a7f00; }
.graphc .folded .box { stroke-dasharray: 5 3; }
.graphc .group { opacity: 0.06; fill: #000000; stroke: #000000; stroke-width: 16; stroke-linejoin: round; }
.graphc .group path { fill: none; stroke-width: 34; }
.graphc .paper { fill: #ffffff; fill-opacity: 0.85; }
.graphc .edge { fill: none; stroke: #0072b2; stroke-width: 1.4; }
.graphc .edge.backward { stroke: #d55e00; }
.graphc .link { fill: none; stroke: #7a7a7a; stroke-width: 1; stroke-dasharray: 3 4; stroke-opacity: 0.65; }
.graphc .neuron { fill: #ffffff; stroke: #0072b2; stroke-width: 1.4; }
.graphc .positive { stroke: #0072b2; }
.graphc .negative { stroke: #d55e00; }
.graphc .unknown { stroke: #7a7a7a; }
.graphc .tip-forward { fill: #0072b2; } .graphc .tip-backward { fill: #d55e00; }
@media (prefers-color-scheme: dark) {
svg.graphc { background: #16181c; }
.graphc text { fill: #e8e8e8; }
.graphc .box { fill: #16293a; stroke: #56b4e9; }
.graphc .backward .box { fill: #3a2413; stroke: #f08a3c; }
.graphc .update .box { fill: #35222d; stroke: #e19ac4; }
.graphc .param .box { fill: #12312a; stroke: #2bc39a; }
.graphc .state .box { fill: #33300f; stroke: #f0e442; }
.graphc .group { opacity: 0.09; fill: #ffffff; stroke: #ffffff; }
.graphc .paper { fill: #16181c; }
.graphc .edge { stroke: #56b4e9; }
.graphc .edge.backward { stroke: #f08a3c; }
.graphc .link { stroke: #a0a0a0; }
.graphc .neuron { fill: #16181c; stroke: #56b4e9; }
.graphc .positive { stroke: #56b4e9; } .graphc .negative { stroke: #f08a3c; } .graphc .unknown { stroke: #a0a0a0; }
.graphc .tip-forward { fill: #56b4e9; } .graphc .tip-backward { fill: #f08a3c; }
}
"""


def shape_words(shape: Shape) -> str:
    """A shape for a label; a scalar has none."""
    return " × ".join(str(size) for size in shape)


class Canvas:
    """Gathers the elements of one drawing."""

    def __init__(self) -> None:
        self.parts: list[str] = []
        self.width = 0.0
        self.height = 0.0

    def add(self, element: str) -> None:
        """One element."""
        self.parts.append(element)

    def reach(self, x: float, y: float) -> None:
        """Makes the drawing large enough for a point."""
        self.width, self.height = max(self.width, x), max(self.height, y)

    def words(self, x: float, y: float, text: str, style: str = "", anchor: str = "middle") -> None:
        """Some words."""
        name = f' class="{style}"' if style else ""
        self.add(f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{name}>{escape(text)}</text>')

    def svg(self, label: str) -> str:
        """The whole drawing. label: what it shows, for readers who cannot see it."""
        width, height = self.width + _MARGIN, self.height + _MARGIN
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" class="graphc" role="img" aria-label="{escape(label)}" '
            f'width="{width:.0f}" height="{height:.0f}" viewBox="0 0 {width:.0f} {height:.0f}">'
            f"<style>{STYLE}</style>{_MARKERS}{''.join(self.parts)}</svg>\n"
        )


_MARKERS = "<defs>" + "".join(
    f'<marker id="graphc-{name}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
    f'<path class="tip-{name}" d="M0 0L8 4L0 8z"/></marker>'
    for name in (FORWARD, BACKWARD)
) + "</defs>"  # fmt: skip


def draw_boxes(canvas: Canvas, found: Boxes, captions: Mapping[str, str]) -> None:
    """Draws boxes and edges. captions: words for values by name, instead of their shapes."""
    _Picture(canvas, found, captions).draw()


class _Picture:
    """Draws one set of boxes."""

    def __init__(self, canvas: Canvas, found: Boxes, captions: Mapping[str, str]) -> None:
        self.canvas = canvas
        self.boxes = found.boxes
        self.found = found
        self.captions = captions
        heights = [0.0] * (max((box.row for box in found.boxes), default=0) + 1)
        for box in found.boxes:
            heights[box.row] = max(heights[box.row], _height(box))
        self.tops = [_TOP + sum(heights[:k]) + _DOWN * k for k in range(len(heights))]
        self.bottom = self.tops[-1] + heights[-1] + 24
        self.x: dict[int, float] = {}
        self.paths: dict[int, str] = {}  # by edge

    def draw(self) -> None:
        """Places every half, then draws from the back to the front."""
        left = _MARGIN
        for lane in (FORWARD, BACKWARD, UPDATE):
            members = [k for k, box in enumerate(self.boxes) if box.lane == lane]
            if members:
                width = max(self.place(lane, members, left), 130.0)
                self.canvas.words(left, 24, _TITLES[lane], "title", "start")
                self.canvas.reach(left + width, self.bottom)
                left += width + _BETWEEN
        for label, group in self.found.groups:
            self.group(label, group)
        for edge in self.found.edges:
            if edge.link:
                self.link(edge.start, edge.end)
        for number, path in self.paths.items():
            lane = BACKWARD if self.boxes[self.found.edges[number].start].lane == BACKWARD else FORWARD
            self.canvas.add(f'<path class="edge {lane}" d="{path}" marker-end="url(#graphc-{lane})"/>')
        for k in range(len(self.boxes)):
            self.box(k)

    def place(self, lane: str, members: Sequence[int], left: float) -> float:
        """Gives a half its places and its edges their paths; its width. Gradients run from a lower row to an upper."""
        index = {k: n for n, k in enumerate(members)}
        numbers = [n for n, e in enumerate(self.found.edges) if not e.link and e.start in index]
        ends = [(index[self.found.edges[n].start], index[self.found.edges[n].end]) for n in numbers]
        pairs = ends if lane == FORWARD else [(b, a) for a, b in ends]
        layout = layered([self.width(k) for k in members], [self.boxes[k].row for k in members], pairs, _GAP)
        for k, x in zip(members, layout.x, strict=True):
            self.x[k] = left + x
        for number, bends in zip(numbers, layout.bends, strict=True):
            self.paths[number] = self.path(number, [left + x for x in bends])
        return layout.width

    def label(self, k: int) -> str:
        """What is said of a box's value: its caption, or its shape."""
        box = self.boxes[k]
        return self.captions.get(box.name, "") or (shape_words(box.shape) if box.lane != UPDATE else "")

    def width(self, k: int) -> float:
        """The width of a box and of the label beside it."""
        longest = max(len(line) for line in _shown(self.boxes[k])) * _CHARACTER + 18
        return max(longest, len(self.label(k)) * _SMALL + 12, 44.0)

    def path(self, number: int, bends: list[float]) -> str:
        """An edge: from the lower end of a box down, or from the upper one up, by way of its bends."""
        edge = self.found.edges[number]
        start, end = self.boxes[edge.start], self.boxes[edge.end]
        down = self.boxes[edge.start].lane == FORWARD
        y1 = self.tops[start.row] + (_height(start) if down else 0.0)
        y2 = self.tops[end.row] + (-3.0 if down else _height(end) + 3.0)
        rows = range(start.row + 1, end.row) if down else range(start.row - 1, end.row, -1)
        stops = [(self.x[edge.start], y1)]
        for x, row in zip(bends if down else bends[::-1], rows, strict=True):
            stops.append((x, self.tops[row] + _BOX / 2))
        stops.append((self.x[edge.end], y2))
        path = f"M{stops[0][0]:.1f} {y1:.1f}"
        for (ax, ay), (bx, by) in pairwise(stops):
            middle = (ay + by) / 2
            path += f"C{ax:.1f} {middle:.1f} {bx:.1f} {middle:.1f} {bx:.1f} {by:.1f}"
        return path

    def link(self, start: int, end: int) -> None:
        """A value that another half reads."""
        x1, x2 = self.x[start] + self.width(start) / 2, self.x[end] - self.width(end) / 2
        y1, y2 = (self.tops[self.boxes[k].row] + _BOX / 2 for k in (start, end))
        middle = (x1 + x2) / 2
        path = f"M{x1:.1f} {y1:.1f}C{middle:.1f} {y1:.1f} {middle:.1f} {y2:.1f} {x2:.1f} {y2:.1f}"
        self.canvas.add(f'<path class="link" d="{path}"/>')

    def box(self, k: int) -> None:
        """A box with its lines, and its label where its edges leave."""
        box, x, y = self.boxes[k], self.x[k], self.tops[self.boxes[k].row]
        width, height = self.width(k), _height(box)
        tip = escape("\n".join(box.text)) + (f"  ({shape_words(box.shape)})" if box.shape else "")
        radius = 4.0 if box.kind in ("line", "folded") else height / 2
        place = f'x="{x - width / 2:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"'
        self.canvas.add(f'<g class="{box.lane} {box.kind}" data-name="{escape(box.name)}"><title>{tip}</title>')
        self.canvas.add(f'<rect class="box" {place} rx="{radius:.0f}"/>')
        for n, line in enumerate(_shown(box)):
            self.canvas.words(x, y + _BOX / 2 + 4 + _LINE * n, line)
        words = self.label(k)
        if words:
            middle = y - 13 if box.lane == BACKWARD else y + height + 13
            half = len(words) * _SMALL / 2 + 2
            paper = f'x="{x - half:.1f}" y="{middle - 7:.1f}" width="{2 * half:.1f}" height="13"'
            self.canvas.add(f'<rect class="paper" {paper}/>')
            self.canvas.words(x, middle + 3, words, "small")
        self.canvas.add("</g>")

    def group(self, label: str, members: Sequence[int]) -> None:
        """A shade behind a line and its leaves, and along the edges between them."""
        parts = []
        for k in members:
            box, width = self.boxes[k], self.width(k)
            place = f'x="{self.x[k] - width / 2:.1f}" y="{self.tops[box.row]:.1f}"'
            parts.append(f'<rect {place} width="{width:.1f}" height="{_height(box):.1f}"/>')
        for number, path in self.paths.items():
            if self.found.edges[number].start in members and self.found.edges[number].end == members[-1]:
                parts.append(f'<path d="{path}"/>')
        self.canvas.add(f'<g class="group">{"".join(parts)}</g>')
        if label:
            last = members[-1]
            y = self.tops[self.boxes[last].row] - 12
            self.canvas.words(self.x[last] - self.width(last) / 2, y, label, "small", "end")


def _shown(box: Box) -> list[str]:
    lines = box.text[:1] if box.kind == "folded" else box.text
    return [line if len(line) <= _LONGEST else line[: _LONGEST - 1] + "…" for line in lines]


def _height(box: Box) -> float:
    return _BOX + _LINE * (len(_shown(box)) - 1)
