"""Reductions: the points along some axes joined by a combiner, and the running sum.

The result's axes are the variables v0, v1, …; the reduced ones follow. An axis kept by ``keepdims`` has size 1.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from graphc.graph.dtypes import int64
from graphc.graph.formula import Formula, Guard, Read, plain, var
from graphc.graph.scalar import BodyBuilder, Scalar
from graphc.ops.record import (
    Array,
    AttrValue,
    Draw,
    Record,
    Sample,
    TensorType,
    axes_of,
    axis_of,
    needs_number,
    needs_rank,
    sample,
)

Prepare = Callable[[Scalar], Scalar]


def reduction(
    name: str, operand: TensorType, combine: str, axis: AttrValue, keepdims: AttrValue, prepare: Prepare | None = None
) -> Formula:
    """The formula that joins ``operand`` over ``axis``, each element passed through ``prepare`` first."""
    axes = axes_of(name, axis, len(operand.shape))
    shape = tuple(1 if k in axes else s for k, s in enumerate(operand.shape) if keepdims or k not in axes)
    kept = [k for k in range(len(operand.shape)) if keepdims or k not in axes]
    index = [var(kept.index(k)) if k not in axes else var(len(kept) + axes.index(k)) for k in range(len(operand.shape))]
    builder = BodyBuilder()
    value = builder.read(0, operand.dtype)
    return Formula(
        shape + tuple(operand.shape[k] for k in axes),
        plain(len(kept)),
        shape,
        (Read(0, tuple(index)),),
        builder.finish(prepare(value) if prepare else value),
        combine if axes or combine in ("argmax", "argmin") else "none",
    )


def _wide(value: Scalar) -> Scalar:
    """Integers and booleans are summed as int64."""
    return value if value.dtype.kind == "f" else value.builder.cast(value, int64)


def _floating(value: Scalar) -> Scalar:
    return value.builder.apply("mul", value, 1.0)


def _true(value: Scalar) -> Scalar:
    return value if value.dtype.kind == "b" else value != 0


def _sum(x: TensorType, axis: AttrValue = None, keepdims: AttrValue = False) -> Formula:
    return reduction("sum", x, "sum", axis, keepdims, _wide)


def _prod(x: TensorType, axis: AttrValue = None, keepdims: AttrValue = False) -> Formula:
    return reduction("prod", x, "prod", axis, keepdims, _wide)


def _max(x: TensorType, axis: AttrValue = None, keepdims: AttrValue = False) -> Formula:
    needs_number("max", x)
    return reduction("max", x, "max", axis, keepdims)


def _min(x: TensorType, axis: AttrValue = None, keepdims: AttrValue = False) -> Formula:
    needs_number("min", x)
    return reduction("min", x, "min", axis, keepdims)


def _logsumexp(x: TensorType, axis: AttrValue = None, keepdims: AttrValue = False) -> Formula:
    needs_number("logsumexp", x)
    return reduction("logsumexp", x, "logsumexp", axis, keepdims, None if x.dtype.kind == "f" else _floating)


def _any(x: TensorType, axis: AttrValue = None, keepdims: AttrValue = False) -> Formula:
    return reduction("any", x, "any", axis, keepdims, _true)


def _all(x: TensorType, axis: AttrValue = None, keepdims: AttrValue = False) -> Formula:
    return reduction("all", x, "all", axis, keepdims, _true)


def _argmax(x: TensorType, axis: AttrValue = None, keepdims: AttrValue = False) -> Formula:
    needs_number("argmax", x)
    needs_rank("argmax", x, 1)
    return reduction("argmax", x, "argmax", axis_of("argmax", axis, len(x.shape)), keepdims)


def _argmin(x: TensorType, axis: AttrValue = None, keepdims: AttrValue = False) -> Formula:
    needs_number("argmin", x)
    needs_rank("argmin", x, 1)
    return reduction("argmin", x, "argmin", axis_of("argmin", axis, len(x.shape)), keepdims)


def _cumsum(x: TensorType, axis: AttrValue = None, reverse: AttrValue = False) -> Formula:
    needs_rank("cumsum", x, 1)
    k = axis_of("cumsum", axis, len(x.shape))
    rank = len(x.shape)
    index = tuple(var(rank) if a == k else var(a) for a in range(rank))
    below = var(rank) - var(k) if reverse else var(k) - var(rank)
    builder = BodyBuilder()
    body = builder.finish(_wide(builder.read(0, x.dtype)))
    return Formula(x.shape + (x.shape[k],), plain(rank), x.shape, (Read(0, index),), body, "sum", (Guard("ge", below),))


def _np_logsumexp(x: Array, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> Array:
    peak = np.max(x, axis=axis, keepdims=True)
    total = np.log(np.sum(np.exp(x - peak), axis=axis, keepdims=True)) + peak
    return np.asarray(total if keepdims else np.squeeze(total, axis=axis))


def _np_cumsum(x: Array, axis: int = 0, reverse: bool = False) -> Array:
    return np.flip(np.cumsum(np.flip(x, axis), axis=axis), axis) if reverse else np.cumsum(x, axis=axis)


def _samples(dtype: str = "f", grad: bool = True) -> tuple[Sample, ...]:
    def one(shape: tuple[int, ...], attrs: dict[str, AttrValue]) -> Sample:
        return Sample(
            (Draw(shape, dtype="bool" if dtype == "bool" else "f", low=-3.0, high=3.0),), tuple(attrs.items()), grad
        )

    return (
        one((4, 5), {}),
        one((4, 5), {"axis": 0}),
        one((2, 3, 4), {"axis": (0, -1), "keepdims": True}),
        one((7,), {"axis": -1, "keepdims": True}),
    )


_INDEX = (
    sample((4, 5), grad=False, axis=1),
    sample((2, 3, 4), grad=False, axis=0, keepdims=True),
    sample((7,), grad=False, axis=-1),
)


RECORDS: tuple[Record, ...] = (
    Record("sum", "reduce", _sum, np.sum, _samples(), "Sum over axes; integers and booleans give int64."),
    Record("prod", "reduce", _prod, np.prod, _samples(), "Product over axes; integers and booleans give int64."),
    Record(
        "max",
        "reduce",
        _max,
        np.max,
        _samples(),
        "Largest element over axes.",
        "shared equally among ties",
        smooth=False,
    ),
    Record(
        "min",
        "reduce",
        _min,
        np.min,
        _samples(),
        "Smallest element over axes.",
        "shared equally among ties",
        smooth=False,
    ),
    Record(
        "logsumexp", "reduce", _logsumexp, _np_logsumexp, _samples(), "log(sum(exp(x))) over axes, without overflow."
    ),
    Record(
        "any", "reduce", _any, np.any, _samples("bool", False), "Whether one element is true (not 0).", smooth=False
    ),
    Record(
        "all", "reduce", _all, np.all, _samples("bool", False), "Whether every element is true (not 0).", smooth=False
    ),
    Record(
        "argmax",
        "reduce",
        _argmax,
        np.argmax,
        _INDEX,
        "Where the largest element stands; the first of several.",
        smooth=False,
    ),
    Record(
        "argmin",
        "reduce",
        _argmin,
        np.argmin,
        _INDEX,
        "Where the smallest element stands; the first of several.",
        smooth=False,
    ),
    Record(
        "cumsum",
        "reduce",
        _cumsum,
        _np_cumsum,
        (sample((6,), axis=0), sample((3, 5), axis=1), sample((3, 5), axis=0, reverse=True)),
        "Running sum along an axis, from its start or (reverse) its end.",
    ),
)
