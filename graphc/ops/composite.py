"""Operations made of others, without rules of their own: each is written over the operations ``ops`` that it is
handed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from graphc.errors import DefinitionError, DTypeError, ShapeError
from graphc.graph.dtypes import DType
from graphc.graph.formula import Shape
from graphc.graph.sizes import Size, SizeLike, product
from graphc.ops.record import Draw, Record, Sample, axes_of, axis_of, sample, text

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Axis = int | tuple[int, ...] | None


class Value(Protocol):
    """What operations work on, as far as the ones here ask."""

    @property
    def shape(self) -> Shape:
        """The sizes of the axes."""
        ...

    @property
    def dtype(self) -> DType:
        """The element type."""
        ...

    def __add__(self, other: Self | float | Size, /) -> Self: ...
    def __radd__(self, other: float | Size, /) -> Self: ...
    def __sub__(self, other: Self | float | Size, /) -> Self: ...
    def __rsub__(self, other: float | Size, /) -> Self: ...
    def __mul__(self, other: Self | float | Size, /) -> Self: ...
    def __rmul__(self, other: float | Size, /) -> Self: ...
    def __truediv__(self, other: Self | float | Size, /) -> Self: ...
    def __neg__(self) -> Self: ...
    def __gt__(self, other: Self | float, /) -> Self: ...
    def __le__(self, other: Self | float, /) -> Self: ...


T = TypeVar("T", bound=Value)


class Ops(Protocol[T]):
    """The operations that those here are made of."""

    def abs(self, x: T, /) -> T: ...
    def exp(self, x: T, /) -> T: ...
    def log(self, x: T, /) -> T: ...
    def sqrt(self, x: T, /) -> T: ...
    def square(self, x: T, /) -> T: ...
    def relu(self, x: T, /) -> T: ...
    def softplus(self, x: T, /) -> T: ...
    def equal(self, x: T, y: T | float, /) -> T: ...
    def maximum(self, x: T, y: T | float, /) -> T: ...
    def where(self, condition: T, x: T | float, y: T | float, /) -> T: ...
    def stop_gradient(self, x: T, /) -> T: ...
    def sum(self, x: T, /, axis: Axis = ..., keepdims: bool = ...) -> T: ...
    def max(self, x: T, /, axis: Axis = ..., keepdims: bool = ...) -> T: ...
    def pick(self, x: T, indices: T, /, axis: int = ...) -> T: ...
    def expand_dims(self, x: T, /, axis: int | tuple[int, ...]) -> T: ...
    def broadcast_to(self, x: T, /, shape: Sequence[SizeLike]) -> T: ...
    def reshape(self, x: T, /, shape: Sequence[SizeLike]) -> T: ...
    def concat(self, tensors: Sequence[T], /, axis: int = ...) -> T: ...


def mean(ops: Ops[T], x: T, axis: Axis = None, keepdims: bool = False) -> T:
    """Mean over axes; integers give float32."""
    axes = axes_of("mean", axis, len(x.shape))
    return ops.sum(x, axis=axes, keepdims=keepdims) / product(tuple(x.shape[k] for k in axes))


def var(ops: Ops[T], x: T, axis: Axis = None, correction: float = 0.0, keepdims: bool = False) -> T:
    """Variance over axes: the squared distance from the mean, over the number of elements less ``correction``."""
    axes = axes_of("var", axis, len(x.shape))
    count = product(tuple(x.shape[k] for k in axes))
    if isinstance(count, int) and count <= correction:
        raise ShapeError(
            f"var: {count} elements with correction {correction} given; needs more elements than the correction"
        )
    whole = int(correction) if correction == int(correction) else correction
    far = x - mean(ops, x, axes, keepdims=True)
    total = ops.sum(ops.square(far), axis=axes, keepdims=keepdims)
    if isinstance(count, Size) and not isinstance(whole, int):
        raise DTypeError(f"var: correction {correction} with a size known only at run time given; needs an integer")
    return total / (count - whole if isinstance(whole, int) else float(count) - whole)


def std(ops: Ops[T], x: T, axis: Axis = None, correction: float = 0.0, keepdims: bool = False) -> T:
    """Standard deviation over axes, the root of ``var``."""
    return _root(ops, var(ops, x, axis, correction, keepdims))


def norm(ops: Ops[T], x: T, axis: Axis = None, ord: float = 2, keepdims: bool = False) -> T:
    """Norm over axes: the root of the sum of squares; ``ord`` 1 the sum, infinity the largest of the absolute
    values.
    """
    if ord == 1:
        return ops.sum(ops.abs(x), axis=axis, keepdims=keepdims)
    if ord == math.inf:
        return ops.max(ops.abs(x), axis=axis, keepdims=keepdims)
    if ord != 2:
        raise DefinitionError(f"norm: ord={ord!r} given; needs 1, 2 or infinity")
    total = ops.sum(ops.square(x), axis=axis, keepdims=keepdims)
    return _root(ops, total)


def _root(ops: Ops[T], total: T) -> T:
    """The square root whose gradient at 0 is 0: of another number there, since infinity times 0 would be NaN."""
    nothing = ops.equal(total, 0.0)
    return ops.where(nothing, 0.0, ops.sqrt(ops.where(nothing, 1.0, total)))


def softmax(ops: Ops[T], x: T, axis: int = -1) -> T:
    """exp(x) over its sum along an axis, without overflow."""
    powers = ops.exp(x - ops.stop_gradient(ops.max(x, axis=axis, keepdims=True)))
    return powers / ops.sum(powers, axis=axis, keepdims=True)


def log_softmax(ops: Ops[T], x: T, axis: int = -1) -> T:
    """The logarithm of ``softmax``, without overflow or loss."""
    shifted = x - ops.stop_gradient(ops.max(x, axis=axis, keepdims=True))
    return shifted - ops.log(ops.sum(ops.exp(shifted), axis=axis, keepdims=True))


def cosine_similarity(ops: Ops[T], x: T, y: T, axis: int = -1, eps: float = 1e-8) -> T:
    """The cosine of the angle between vectors along an axis; a length counts as at least ``eps``."""
    lengths = ops.maximum(norm(ops, x, axis), eps) * ops.maximum(norm(ops, y, axis), eps)
    return ops.sum(x * y, axis=axis) / lengths


def stack(ops: Ops[T], tensors: Sequence[T], axis: int = 0) -> T:
    """Tensors of one shape along a new axis."""
    if not tensors:
        raise DefinitionError("stack: no tensors given; needs at least one in a list")
    first = tensors[0]
    for other in tensors[1:]:
        if other.shape != first.shape:
            raise ShapeError(f"stack: {text(first.shape)} and {text(other.shape)} given; needs one shape")
    k = axis_of("stack", axis, len(first.shape) + 1)
    return ops.concat([ops.expand_dims(t, axis=k) for t in tensors], axis=k)


def tile(ops: Ops[T], x: T, repetitions: int | tuple[int, ...]) -> T:
    """The whole tensor repeated along each axis."""
    times = (repetitions,) if isinstance(repetitions, int) else tuple(repetitions)
    if any(isinstance(r, bool) or not isinstance(r, int) or r < 1 for r in times):
        raise ShapeError(f"tile: repetitions {repetitions} given; needs integers of at least 1")
    rank = max(len(times), len(x.shape))
    times = (1,) * (rank - len(times)) + times
    shape = (1,) * (rank - len(x.shape)) + x.shape
    apart = ops.reshape(x, tuple(s for n in shape for s in (1, n)))
    spread = ops.broadcast_to(apart, tuple(s for r, n in zip(times, shape, strict=True) for s in (r, n)))
    return ops.reshape(spread, tuple(r * n for r, n in zip(times, shape, strict=True)))


def repeat(ops: Ops[T], x: T, repetitions: int, axis: int = 0) -> T:
    """Each element repeated along an axis."""
    if isinstance(repetitions, bool) or not isinstance(repetitions, int) or repetitions < 1:
        raise ShapeError(f"repeat: repetitions {repetitions} given; needs an integer of at least 1")
    k = axis_of("repeat", axis, len(x.shape))
    front, back = x.shape[: k + 1], x.shape[k + 1 :]
    spread = ops.broadcast_to(ops.expand_dims(x, axis=k + 1), (*front, repetitions, *back))
    return ops.reshape(spread, (*front[:-1], front[-1] * repetitions, *back))


def np_log_softmax(x: Floats, axis: int = -1) -> Floats:
    """``log_softmax`` in NumPy."""
    far = x - np.max(x, axis=axis, keepdims=True)
    return np.asarray(far - np.log(np.sum(np.exp(far), axis=axis, keepdims=True)))


def _np_cosine(x: Floats, y: Floats, axis: int = -1, eps: float = 1e-8) -> Floats:
    lengths = np.linalg.norm(x, axis=axis) * np.linalg.norm(y, axis=axis)
    return np.asarray(np.sum(x * y, axis=axis) / lengths)


def _np_var(x: Floats, axis: Axis = None, correction: float = 0.0, keepdims: bool = False) -> Floats:
    return np.asarray(np.var(x, axis=axis, ddof=correction, keepdims=keepdims))


def _np_norm(x: Floats, axis: Axis = None, ord: float = 2, keepdims: bool = False) -> Floats:
    size = np.abs(x)
    if ord == math.inf:
        return np.asarray(np.max(size, axis=axis, keepdims=keepdims))
    return np.asarray(np.sum(size**ord, axis=axis, keepdims=keepdims) ** (1 / ord))


def _np_scatter_add(x: Floats, indices: Ints, source: Floats, axis: int = 0) -> Floats:
    result = x.copy()
    place = [indices if k == axis else own for k, own in enumerate(np.indices(source.shape))]
    np.add.at(result, tuple(place), source)
    return result


def _np_index_add(x: Floats, indices: Ints, source: Floats, axis: int = 0) -> Floats:
    result = np.moveaxis(x.copy(), axis, 0)
    np.add.at(result, indices, np.moveaxis(source, axis, 0))
    return np.moveaxis(result, 0, axis)


_AXES = (sample((4, 5)), sample((4, 5), axis=0), sample((2, 3, 4), axis=(0, -1), keepdims=True))

RECORDS: tuple[Record, ...] = (
    Record("mean", "composite", None, np.mean, _AXES, "Mean over axes; integers give float32."),
    Record(
        "var",
        "composite",
        None,
        _np_var,
        (*_AXES, sample((4, 5), axis=1, correction=1.0)),
        "Variance over axes.",
    ),
    Record(
        "std",
        "composite",
        None,
        lambda x, **attrs: np.sqrt(_np_var(x, **attrs)),
        (*_AXES, sample((4, 5), axis=1, correction=1.0)),
        "Standard deviation over axes.",
        "0 where all elements are equal",
    ),
    Record(
        "norm",
        "composite",
        None,
        _np_norm,
        (*_AXES, sample((4, 5), axis=1, ord=1), sample((4, 5), axis=1, ord=math.inf)),
        "Norm over axes, of order 2, 1 or infinity.",
        "0 at 0",
    ),
    Record(
        "softmax",
        "composite",
        None,
        lambda x, axis=-1: np.exp(np_log_softmax(x, axis)),
        (sample((4, 5)), sample((4, 5), axis=0)),
        "exp(x) over its sum along an axis, without overflow.",
    ),
    Record(
        "log_softmax",
        "composite",
        None,
        np_log_softmax,
        (sample((4, 5)), sample((2, 5, 3), axis=1)),
        "The logarithm of softmax, without overflow.",
    ),
    Record(
        "cosine_similarity",
        "composite",
        None,
        _np_cosine,
        (sample((4, 5), (4, 5)), sample((4, 5), (4, 5), axis=0)),
        "The cosine of the angle between vectors along an axis.",
    ),
    Record(
        "stack",
        "composite",
        None,
        lambda *tensors, axis=0: np.stack(tensors, axis),
        (sample((3,), (3,)), sample((2, 3), (2, 3), (2, 3), axis=-1)),
        "Tensors of one shape along a new axis.",
    ),
    Record(
        "embedding",
        "composite",
        None,
        lambda table, indices: table[indices],
        (Sample((Draw((5, 3)), Draw((2, 2), 0, 5, "int32"))),),
        "The rows of a table at indices from data.",
    ),
    Record(
        "scatter_add",
        "composite",
        None,
        _np_scatter_add,
        (
            Sample((Draw((4, 3)), Draw((6, 3), 0, 4, "int32"), Draw((6, 3)))),
            Sample((Draw((2, 5)), Draw((2, 3), 0, 5, "int32"), Draw((2, 3))), (("axis", 1),)),
        ),
        "x with elements added at indices of their own.",
    ),
    Record(
        "index_add",
        "composite",
        None,
        _np_index_add,
        (
            Sample((Draw((5, 3)), Draw((4,), 0, 5, "int32"), Draw((4, 3)))),
            Sample((Draw((2, 5)), Draw((3,), 0, 5, "int32"), Draw((2, 3))), (("axis", -1),)),
        ),
        "x with slices added at indices.",
    ),
    Record(
        "reshape",
        "composite",
        None,
        lambda x, shape: np.reshape(x, shape),
        (sample((4, 3), shape=(2, 6)), sample((2, 3, 4), shape=(-1,)), sample((1,), shape=())),
        "The same elements in another shape.",
    ),
    Record(
        "transpose",
        "composite",
        None,
        lambda x, axes=None: np.transpose(x, axes),
        (sample((2, 3, 4)), sample((2, 3), axes=(1, 0))),
        "The axes reversed, or in a given order.",
    ),
    Record(
        "stop_gradient",
        "composite",
        None,
        np.positive,
        (Sample((Draw((3,)),), (), False),),
        "The same value, a constant to derivatives.",
    ),
    Record(
        "tile",
        "composite",
        None,
        lambda x, repetitions: np.tile(x, repetitions),
        (sample((3,), repetitions=2), sample((2, 3), repetitions=(2, 1, 3))),
        "The whole tensor repeated along each axis.",
    ),
    Record(
        "repeat",
        "composite",
        None,
        lambda x, repetitions, axis=0: np.repeat(x, repetitions, axis),
        (sample((3,), repetitions=2), sample((2, 3), repetitions=3, axis=1)),
        "Each element repeated along an axis.",
    ),
)
