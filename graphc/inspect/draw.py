"""Drawings of networks: forward pass and gradients side by side, and a small one as neurons and arcs."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from graphc.diff.derivatives import grad
from graphc.dsl.intern import intern
from graphc.dsl.tensor import Tensor, fail
from graphc.errors import FileAccessError, UsageError
from graphc.graph.graph import Array, Graph, Node
from graphc.inspect.boxes import boxes_of, leaves_of
from graphc.inspect.explain import Explanation
from graphc.inspect.neurons import dense_layers, draw_neurons
from graphc.inspect.raster import png
from graphc.inspect.svg import Canvas, draw_boxes
from graphc.notation.expressions import graph_lines
from graphc.notation.tree import Line
from graphc.runtime.curve import curves_svg
from graphc.structs import dataclass


@dataclass(frozen=True, slots=True)
class Drawing:
    """A drawing as SVG text; a notebook shows it."""

    svg: str

    def _repr_svg_(self) -> str:
        return self.svg

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes an SVG file, or a PNG file where the name ends in ``.png``.

        Raises: FileAccessError where that cannot be done; UsageError for a PNG without resvg-py.
        """
        content = png("draw", self.svg) if Path(path).suffix == ".png" else self.svg.encode()
        try:
            Path(path).write_bytes(content)
        except OSError as error:
            raise FileAccessError(f"draw: {path} cannot be written: {error.strerror}") from error

    def __repr__(self) -> str:
        return f"<drawing: {len(self.svg)} characters of SVG>"


def curves(curves: Mapping[str, Sequence[float]], path: str | os.PathLike[str] | None = None) -> Drawing:
    """Curves by their labels in one picture, such as the ``losses`` of several trainings, one number an epoch.

    path: an SVG or PNG file to write. Raises: UsageError for nothing to draw or another kind of file; FileAccessError.

    >>> curves({"lr 0.1": [3.0, 2.0], "lr 1": [3.0, 9.0]}).svg.count("<polyline")
    2
    """
    check_path("curves", path)
    svg = curves_svg({label: [float(v) for v in values] for label, values in curves.items()})
    if not svg:
        fail(UsageError("curves: no curve with two finite numbers given; needs one at least"))
    made = Drawing(svg)
    if path is not None:
        made.save(path)
    return made


def check_path(what: str, path: str | os.PathLike[str] | None) -> None:
    """Raises UsageError for a file that is none for a drawing."""
    if path is not None and Path(path).suffix not in (".svg", ".png"):
        fail(UsageError(f"{what}: {path} given; needs a file whose name ends in .svg or .png"))


def drawing_of(
    graph: Graph,
    outputs: Mapping[str, Node],
    backward: Sequence[Line] = (),
    updates: Sequence[Line] = (),
    captions: Mapping[str, str] | None = None,
    weights: Mapping[str, Array] | None = None,
    forward: Sequence[Line] = (),
) -> Drawing:
    """The drawing of a forward graph, with the lines of its gradients and updates where there are any.

    captions: words for values by name. weights: values of parameters, where they are known. forward: the lines of the
    outputs, where they are known.
    """
    forward = forward or graph_lines(graph, outputs)
    leaves = leaves_of(graph)
    canvas = Canvas()
    draw_boxes(canvas, boxes_of(forward, backward, updates, leaves), captions or {})
    layers = dense_layers(forward, leaves)
    if layers:
        draw_neurons(canvas, layers, weights or {}, canvas.height + 34)
    return Drawing(canvas.svg("; ".join(outputs) + ": computational graph"))


def tensor_drawing(tensor: Tensor, told: Explanation | None, weights: Mapping[str, Array]) -> Drawing:
    """The drawing of a tensor; of a floating scalar with its gradients by every parameter, or by every floating input
    where there is none. told: live numbers for the labels."""
    if not isinstance(tensor, Tensor):
        fail(UsageError(f"draw: {type(tensor).__name__} given; needs a tensor"))
    interned = intern({tensor.name or "value": tensor})
    interned.graph.updates = {}
    backward: tuple[Line, ...] = ()
    if tensor.shape == () and tensor.dtype.kind == "f":
        floats = {name: leaf for name, leaf in interned.leaves.items() if leaf.dtype.kind == "f"}
        wanted = {n: t for n, t in floats.items() if t.kind == "param"} or {
            n: t for n, t in floats.items() if t.kind == "input"
        }
        if wanted:
            found = grad(tensor, list(wanted.values()), unused="zero")
            named = {f"d_{name}": g for name, g in zip(wanted, found, strict=True)}
            backward = graph_lines(intern(named).graph, define=False)
    captions: dict[str, str] = {}
    for row in told.rows if told is not None else ():
        if row.live is not None:
            captions[row.name] = row.live.value.brief()
            captions[f"d_{row.name}"] = row.live.cotangent.brief()
    return drawing_of(interned.graph, dict(interned.graph.outputs), backward, (), captions, weights)
