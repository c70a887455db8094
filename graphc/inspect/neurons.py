"""A small network as neurons and arcs: a column for each layer, an arc for each weight."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np

from graphc.graph.graph import Array
from graphc.inspect.boxes import Leaf
from graphc.inspect.svg import Canvas
from graphc.notation.tree import Infix, Line, Symbol, Tree, parts
from graphc.structs import dataclass

_MOST = 9  # neurons drawn in a column; of more, some at both ends and dots between them
_DEEPEST = 6  # layers of a network that is drawn so
_ACROSS, _DOWN, _RADIUS = 190.0, 30.0, 9.0


@dataclass(frozen=True, slots=True)
class Layer:
    """A matrix product with a parameter: its name, how many values come in and go out, and the line that it is in."""

    weight: str
    n_in: int
    n_out: int
    line: str


def dense_layers(lines: Sequence[Line], leaves: Mapping[str, Leaf]) -> tuple[Layer, ...]:
    """The products with two-dimensional parameters, where they form a short chain; else none."""
    found: list[Layer] = []
    for line in lines:
        for name in _weights(line.value):
            leaf = leaves.get(name)
            if leaf is None or leaf.kind != "param" or len(leaf.shape) != 2:
                return ()
            n_in, n_out = leaf.shape
            if not isinstance(n_in, int) or not isinstance(n_out, int):
                return ()
            found.append(Layer(name, n_in, n_out, line.name))
    chained = len(found) <= _DEEPEST and all(a.n_out == b.n_in for a, b in pairwise(found))
    return tuple(found) if chained else ()


def _weights(tree: Tree) -> list[str]:
    """The names on the right of matrix products, those inside first."""
    found = [name for part in parts(tree) for name in _weights(part)]
    if isinstance(tree, Infix) and tree.sign == "·":
        found.append(tree.right.name if isinstance(tree.right, Symbol) else "")
    return found


def draw_neurons(canvas: Canvas, layers: Sequence[Layer], weights: Mapping[str, Array], top: float) -> None:
    """Draws the columns below ``top``. weights: values by name, for the arcs' sign and strength, where they are
    known."""
    sizes = [layers[0].n_in, *(layer.n_out for layer in layers)]
    columns = [_places(size) for size in sizes]
    tallest = max(len(column) for column in columns)
    canvas.words(20, top, "the same network as neurons and arcs", "title", "start")
    start = top + 44

    def at(column: int, place: int) -> tuple[float, float]:
        spare = (tallest - len(columns[column])) * _DOWN / 2
        return 60 + column * _ACROSS, start + spare + place * _DOWN

    for k, layer in enumerate(layers):
        table = weights.get(layer.weight)
        largest = float(np.abs(table).max()) if table is not None and table.size else 0.0
        for i, a in enumerate(columns[k]):
            for j, b in enumerate(columns[k + 1]):
                if a is not None and b is not None:
                    value = float(table[a, b]) if table is not None else None
                    canvas.add(_arc(at(k, i), at(k + 1, j), value, largest))
        canvas.words(60 + (k + 0.5) * _ACROSS, start - 18, layer.weight, "small")
    for k, column in enumerate(columns):
        for place, unit in enumerate(column):
            x, y = at(k, place)
            if unit is None:
                canvas.words(x, y + 4, "⋮")
            else:
                middle = f'cx="{x:.1f}" cy="{y:.1f}" r="{_RADIUS}"'
                canvas.add(f'<circle class="neuron" {middle}><title>unit {unit}</title></circle>')
        name = "in" if k == 0 else layers[k - 1].line
        canvas.words(60 + k * _ACROSS, start + tallest * _DOWN + 2, f"{name}: {sizes[k]}", "small")
    canvas.reach(60 + (len(sizes) - 1) * _ACROSS + 60, start + tallest * _DOWN + 8)


def _places(size: int) -> list[int | None]:
    """The units drawn in a column; None for the dots."""
    if size <= _MOST:
        return list(range(size))
    half = (_MOST - 1) // 2
    return [*range(half), None, *range(size - half, size)]


def _arc(a: tuple[float, float], b: tuple[float, float], value: float | None, largest: float) -> str:
    sign = "unknown" if value is None else "positive" if value >= 0 else "negative"
    strength = 0.35 if value is None or not largest else abs(value) / largest
    line = f'x1="{a[0] + _RADIUS:.1f}" y1="{a[1]:.1f}" x2="{b[0] - _RADIUS:.1f}" y2="{b[1]:.1f}"'
    look = f'stroke-width="{0.4 + 1.8 * strength:.2f}" stroke-opacity="{0.15 + 0.6 * strength:.2f}"'
    return f'<line class="{sign}" {line} {look}/>'
