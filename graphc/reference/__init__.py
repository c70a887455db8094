"""The reference: runs any graph in NumPy, plainly. It is the oracle for everything compiled.

``formulas.py`` evaluates one formula, ``points.py`` says what its reads and guards mean at the points of a domain.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from graphc.errors import IndexRangeError, InputError, InternalError, ShapeError
from graphc.graph.graph import NAMED, ConstValue, Graph, Node, reachable
from graphc.graph.sizes import Size
from graphc.graph.sizes import evaluate as size_of
from graphc.ops.record import text
from graphc.ops.special import SPECIAL
from graphc.reference.formulas import Mode, evaluate_formula
from graphc.reference.points import Array, IndexOutside


def evaluate(
    graph: Graph,
    values: Mapping[str, Array],
    nodes: Sequence[Node] | None = None,
    *,
    dtype64: bool = False,
    absolute: bool = False,
    step_count: int = 0,
    training: bool = False,
) -> dict[Node, Array]:
    """The value of every node that ``nodes`` (by default the graph's outputs and updates) need.

    values: the inputs, parameters, states and hyper-parameters by name; run-time sizes follow from their shapes.
    dtype64: float32 is computed as float64. absolute: instead of values, magnitudes: every term of a formula by its
    absolute value, which bounds what rounding can do to its sum.

    Raises: InputError for a value that is missing, ShapeError for one of another shape, IndexRangeError for an index
    outside its axis.
    """
    live = reachable(graph.roots() if nodes is None else nodes)
    dims = dimensions(live, values)
    mode = Mode(dtype64)
    special: dict[str, Array] = {"count": np.asarray(step_count, np.int64), "training": np.asarray(training)}
    found: dict[Node, Array] = {}
    sizes: dict[Node, Array] = {}
    for node in live:
        if node.kind == "formula":
            inputs = [found[i] for i in node.inputs]
            try:
                found[node] = evaluate_formula(node.formula, inputs, dims, mode)
            except IndexOutside as error:
                raise _explained(graph, node, error) from None
            if absolute and node.dtype.kind == "f":
                sizes[node] = evaluate_formula(
                    node.formula, inputs, dims, mode, [_size(i, found, sizes) for i in node.inputs]
                )
        elif node.kind in SPECIAL:
            found[node] = SPECIAL[node.kind].reference(node, [found[i] for i in node.inputs], dims)
            if absolute:
                sizes[node] = SPECIAL[node.kind].reference(node, [_size(i, found, sizes) for i in node.inputs], dims)
        elif isinstance(node.attr, ConstValue):
            found[node] = mode.array(node.attr.array(), node.dtype)
        elif node.kind in NAMED:
            found[node] = mode.array(np.asarray(values[str(node.attr)]), node.dtype)
        elif node.kind in special:
            found[node] = special[node.kind]
        else:
            raise InternalError(f"reference: no value for a {node.kind}")
    return {node: _size(node, found, sizes) for node in found} if absolute else found


def _size(node: Node, found: Mapping[Node, Array], sizes: Mapping[Node, Array]) -> Array:
    """The magnitude of a node's value, by terms where it is a formula."""
    return sizes[node] if node in sizes else np.abs(found[node]) if node.dtype.kind == "f" else found[node]


def _explained(graph: Graph, node: Node, error: IndexOutside) -> IndexRangeError:
    """The error in the words of a compiled step's own check: the operation, the index's name, the user's line."""
    origin = next((o for o in graph.origins.get(node, ()) if o.op), None)
    name = graph.name(node.inputs[error.operand]) or "the index"
    message = (
        f"{origin.op if origin else 'index'}: index {error.value} at position {error.position} of {name} given; "
        f"needs 0 <= index < {error.bound}"
    )
    return IndexRangeError(message + (f"\n  {origin.site}" if origin and origin.site else ""))


class _Dimensions(dict[str, int]):
    """The run-time sizes by name. Raises: InputError where one is read that no value given has."""

    def __missing__(self, name: str) -> int:
        raise InputError(f"size {name} is in the shape of no value given; needs an input whose shape has {name}")


def dimensions(nodes: Sequence[Node], values: Mapping[str, Array]) -> dict[str, int]:
    """The run-time sizes, from the shapes of the values given; reading one that none of them has raises InputError.

    Raises: InputError for a value that is missing, ShapeError where shapes do not fit.
    """
    dims = _Dimensions()
    leaves = [n for n in nodes if n.kind in NAMED]
    for node in leaves:
        name = str(node.attr)
        if name not in values:
            raise InputError(f"{node.kind} {name!r} is missing; it needs shape {text(node.shape)}")
        given = np.shape(values[name])
        if len(given) != len(node.shape):
            raise ShapeError(f"{name}: shape {given} given; needs {text(node.shape)}")
        for size, number in zip(node.shape, given, strict=True):
            if isinstance(size, Size) and str(size).isidentifier():
                dims.setdefault(str(size), number)
    for node in leaves:
        given = np.shape(values[str(node.attr)])
        if given != tuple(size_of(s, dims) for s in node.shape):
            known = ", ".join(f"{name} = {number}" for name, number in dims.items())
            raise ShapeError(
                f"{node.attr}: shape {given} given; needs {text(node.shape)}{f' where {known}' if known else ''}"
            )
    return dims
