"""The combiners: how a formula joins the values of its points, one record each.

A combiner states its identity (what a position without points holds), its NumPy form, and its *law*: the weight
``∂y/∂b`` of one point's value b in the result y, which is all that the differentiator asks of it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from graphc.errors import InternalError
from graphc.graph.dtypes import DType
from graphc.graph.formula import Affine, Formula, Guard, Read, map_variables, plain, var
from graphc.graph.graph import Graph, Node
from graphc.graph.scalar import BodyBuilder, Scalar, trace
from graphc.graph.sym import sym
from graphc.structs import dataclass, replace

Array = NDArray[np.generic]


@dataclass(frozen=True, slots=True)
class Point:
    """What a law may use: the graph, the node, its (stabilised) formula, the body under construction, the value b of
    the point, the result y there, and ``read``, which adds a read of another node at given indices and gives its value.
    """

    graph: Graph
    node: Node
    formula: Formula
    builder: BodyBuilder
    value: Scalar
    result: Callable[[], Scalar]
    read: Callable[[Node, tuple[Affine, ...]], Scalar]


@dataclass(frozen=True, slots=True)
class Combiner:
    """A way of joining values. ``law`` is None where no derivative passes; ``linear`` where the weight is 1.

    joins: the scalar function of two values that it repeats; "" where partial results hold more than a value. expand:
    the formula as several that loops can do, where one pass cannot.
    """

    name: str
    identity: Callable[[DType], float | int | bool]
    numpy: Callable[..., Array] | None
    law: Callable[[Point], Scalar | None] | None
    linear: bool = False
    joins: str = ""
    expand: Callable[[Graph, Formula, tuple[Node, ...]], Node] | None = None
    doc: str = ""


def _one(point: Point) -> Scalar | None:
    return None


def _extreme(point: Point) -> Scalar:
    """Shared among ties, as PyTorch's ``amax``: [b == y] / ties. The number of ties counts as constant."""
    formula = point.formula
    builder = BodyBuilder()
    values = builder.include(formula.body, ())
    y = builder.read(len(formula.reads), point.node.dtype)
    hit = builder.cast(values[-1] == y, point.node.dtype)
    ties = replace(
        formula,
        reads=formula.reads + (Read(len(point.node.inputs), _affine(formula)),),
        body=builder.finish(hit),
        combine="sum",
    )
    count = point.graph.formula(ties, point.node.inputs + (point.node,))
    share = 1 / point.read(count, _affine(formula))
    return sym.where(point.value == point.result(), share, 0.0)


def _others(point: Point) -> Scalar:
    """The product of the other points' values: what comes before times what comes after; never y / b, which fails at 0.

    Points are ordered by their reduced variables, the first counting most: those before (after) a point agree with
    it in the first few and are smaller (larger) in the next, which makes two products a reduced variable.
    """
    formula = point.formula
    n, rank = len(formula.extents), len(formula.write)
    if not formula.is_plain():
        raise InternalError("prod: a formula that gathers is needed")
    result: Scalar | None = None
    for here in range(rank, n):
        other = n  # the variable that takes the place of ``here`` in the values multiplied; later ones follow it
        table = [var(v) if v < here else var(n + v - here) for v in range(n)]
        moved = map_variables(formula, table, formula.extents + formula.extents[here:])
        for guard in (Guard("ge", var(here) - var(other, 1)), Guard("ge", var(other) - var(here, 1))):
            exclusive = replace(
                moved, write=plain(n), shape=formula.extents, guards=formula.guards + moved.guards + (guard,)
            )
            part = point.read(point.graph.formula(exclusive, point.node.inputs), plain(n))
            result = part if result is None else result * part
    return result if result is not None else point.builder.const(1, point.node.dtype)


def _softmax(point: Point) -> Scalar:
    """exp(b - y), at most 1, so it never overflows."""
    return sym.exp(point.value - point.result())


def _shifted(graph: Graph, formula: Formula, inputs: tuple[Node, ...]) -> Node:
    """max, then log(sum(exp(b - max))) + max; where the maximum is infinite it is itself the result's shift, 0."""
    rank = len(formula.shape)
    index = plain(rank)
    dtype = formula.dtype
    peak = graph.formula(replace(formula, combine="max"), inputs)
    shift = graph.formula(
        Formula(
            formula.shape,
            index,
            formula.shape,
            (Read(0, index),),
            trace(lambda m: sym.where(sym.isfinite(m), m, 0.0), [dtype]),
        ),
        (peak,),
    )
    builder = BodyBuilder()
    value = builder.include(formula.body, ())[-1]
    shifted = value - builder.read(len(formula.reads), dtype)
    total = graph.formula(
        replace(
            formula,
            combine="sum",
            reads=formula.reads + (Read(len(inputs), index),),
            body=builder.finish(sym.exp(shifted)),
        ),
        inputs + (shift,),
    )
    body = trace(lambda s, m: sym.log(s) + m, [dtype, dtype])
    return graph.formula(
        Formula(formula.shape, index, formula.shape, (Read(0, index), Read(1, index)), body), (total, shift)
    )


def _affine(formula: Formula) -> tuple[Affine, ...]:
    for index in formula.write:
        if not isinstance(index, Affine):
            raise InternalError("combiner: a write map from data")
    return tuple(i for i in formula.write if isinstance(i, Affine))


def _lowest(dtype: DType) -> float | int:
    return -np.inf if dtype.kind == "f" else int(np.iinfo(dtype.numpy).min)


def _highest(dtype: DType) -> float | int:
    return np.inf if dtype.kind == "f" else int(np.iinfo(dtype.numpy).max)


def _table(*rows: Combiner) -> dict[str, Combiner]:
    return {row.name: row for row in rows}


COMBINERS: dict[str, Combiner] = _table(
    Combiner("none", lambda t: 0, None, _one, linear=True, doc="one point an element; 0 where a guard fails"),
    Combiner("sum", lambda t: 0, np.add.reduce, _one, linear=True, joins="add"),
    Combiner("prod", lambda t: 1, np.multiply.reduce, _others, joins="mul", doc="by hand: y / b fails where b is 0"),
    Combiner("max", _lowest, np.maximum.reduce, _extreme, joins="maximum", doc="by hand: ties share the derivative"),
    Combiner("min", _highest, np.minimum.reduce, _extreme, joins="minimum", doc="by hand: ties share the derivative"),
    Combiner(
        "logsumexp",
        lambda t: -np.inf,
        np.logaddexp.reduce,
        _softmax,
        expand=_shifted,
        doc="by hand: reads the result",
    ),
    Combiner("any", lambda t: False, np.logical_or.reduce, None, joins="logical_or"),
    Combiner("all", lambda t: True, np.logical_and.reduce, None, joins="logical_and"),
    Combiner("argmax", lambda t: 0, None, None),
    Combiner("argmin", lambda t: 0, None, None),
)
