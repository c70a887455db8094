"""Records of the second kind: operations that a formula states poorly, each with its own cotangent and tangent.

``reshape`` relabels a buffer: as an index map it would divide by symbolic sizes. ``stop_gradient`` and ``variable``
pass their operand on and say something to the differentiator alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from graphc.errors import ShapeError
from graphc.graph.formula import Shape
from graphc.graph.graph import Array, Graph, Node
from graphc.graph.sizes import SizeLike, divide, evaluate, product
from graphc.structs import dataclass


@dataclass(frozen=True, slots=True)
class Special:
    """An operation with rules of its own.

    reference: the node's value from those of its inputs and the dimensions. cotangent: one for each input (None for
    zero), given the node's; axes in front of the node's own (rows of a Jacobian) are carried along. tangent: the
    node's, given its inputs' (None for zero). is_operand: its value is its operand, of the same shape; otherwise the
    operand's elements under another shape, so no loop computes either. reason: why no formula states it.
    """

    name: str
    reference: Callable[[Node, Sequence[Array], Mapping[str, int]], Array]
    cotangent: Callable[[Graph, Node, Node], tuple[Node | None, ...]]
    tangent: Callable[[Graph, Node, tuple[Node | None, ...]], Node | None]
    doc: str
    is_operand: bool
    reason: str


def reshape_shape(shape: Shape, wanted: Sequence[SizeLike]) -> Shape:
    """The shape that a reshape gives, with the one -1 in ``wanted`` resolved.

    Raises: ShapeError where the sizes do not multiply to the same, for every value of the dimensions.
    """
    rest = [s for s in wanted if s != -1]
    text = f"reshape: {_shape(shape)} to {_shape(tuple(wanted))} given"
    if len(wanted) - len(rest) > 1:
        raise ShapeError(f"{text}; only one size may be -1")
    if any(isinstance(s, int) and s < 1 for s in rest):
        raise ShapeError(f"{text}; sizes must be at least 1")
    total, known = product(shape), product(tuple(rest))
    if len(rest) == len(wanted):
        if total != known:
            raise ShapeError(f"{text}; needs as many elements: {total} == {known}")
        return tuple(wanted)
    missing = divide(total, known)
    if missing is None:
        raise ShapeError(f"{text}; {total} elements do not divide by {known}")
    return tuple(missing if s == -1 else s for s in wanted)


def _shape(shape: Shape) -> str:
    return "(" + ", ".join(str(s) for s in shape) + ("," if len(shape) == 1 else "") + ")"


def _lead(node: Node, ct: Node) -> Shape:
    return ct.shape[: len(ct.shape) - len(node.shape)]


def _reshape_value(node: Node, inputs: Sequence[Array], dims: Mapping[str, int]) -> Array:
    return np.reshape(inputs[0], tuple(evaluate(s, dims) for s in node.shape))


def _reshape_cotangent(graph: Graph, node: Node, ct: Node) -> tuple[Node | None, ...]:
    return (graph.add("reshape", (ct,), None, ct.dtype, _lead(node, ct) + node.inputs[0].shape),)


def _reshape_tangent(graph: Graph, node: Node, tangents: tuple[Node | None, ...]) -> Node | None:
    t = tangents[0]
    return None if t is None else graph.add("reshape", (t,), None, t.dtype, node.shape)


def _same(node: Node, inputs: Sequence[Array], dims: Mapping[str, int]) -> Array:
    return inputs[0]


def _table(*rows: Special) -> dict[str, Special]:
    return {row.name: row for row in rows}


SPECIAL: dict[str, Special] = _table(
    Special(
        "reshape",
        _reshape_value,
        _reshape_cotangent,
        _reshape_tangent,
        "The same elements in another shape.",
        is_operand=False,
        reason="as an index map it would divide by symbolic sizes",
    ),
    Special(
        "stop_gradient",
        _same,
        lambda g, n, ct: (None,),
        lambda g, n, t: None,
        "The operand, a constant to derivatives.",
        is_operand=True,
        reason="its derivative is not that of its formula",
    ),
    Special(
        "variable",
        _same,
        lambda g, n, ct: (ct,),
        lambda g, n, t: t[0],
        "The operand, as what a derivative is taken by.",
        is_operand=True,
        reason="it marks a place in the graph and computes nothing",
    ),
)
