"""Operations made of others, without rules of their own: each is written over the operations ``ops`` that it is handed.

Losses over classes (``cross_entropy``, ``nll``) give one value a row; elementwise losses take ``reduction``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol, Self, TypeVar

import numpy as np

from graphc.errors import DefinitionError, DTypeError, ShapeError
from graphc.graph.dtypes import DType
from graphc.graph.formula import Shape
from graphc.graph.primitives import PRIMITIVES
from graphc.graph.sizes import Size, SizeLike, product
from graphc.ops.record import Array, Draw, Record, Sample, axes_of, axis_of, sample, text

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
        raise ShapeError(f"var: {count} elements with correction {correction} given; needs more elements than the correction")
    whole = int(correction) if correction == int(correction) else correction
    far = x - mean(ops, x, axes, keepdims=True)
    total = ops.sum(ops.square(far), axis=axes, keepdims=keepdims)
    if isinstance(count, Size) and not isinstance(whole, int):
        raise DTypeError(f"var: correction {correction} with a size known only at run time given; needs an integer")
    return total / (count - whole if isinstance(whole, int) else float(count) - whole)


def std(ops: Ops[T], x: T, axis: Axis = None, correction: float = 0.0, keepdims: bool = False) -> T:
    """Standard deviation over axes, the root of ``var``."""
    return ops.sqrt(var(ops, x, axis, correction, keepdims))


def norm(ops: Ops[T], x: T, axis: Axis = None, ord: float = 2, keepdims: bool = False) -> T:
    """Norm over axes: the root of the sum of squares; ``ord`` 1 the sum, infinity the largest of the absolute values."""
    if ord == 1:
        return ops.sum(ops.abs(x), axis=axis, keepdims=keepdims)
    if ord == math.inf:
        return ops.max(ops.abs(x), axis=axis, keepdims=keepdims)
    if ord != 2:
        raise DefinitionError(f"norm: ord={ord!r} given; needs 1, 2 or infinity")
    total = ops.sum(ops.square(x), axis=axis, keepdims=keepdims)
    nothing = ops.equal(total, 0.0)  # the root of another number there, so that the gradient is 0 and not 0 * infinity
    return ops.where(nothing, 0.0, ops.sqrt(ops.where(nothing, 1.0, total)))


def softmax(ops: Ops[T], x: T, axis: int = -1) -> T:
    """exp(x) over its sum along an axis, without overflow."""
    powers = ops.exp(x - ops.stop_gradient(ops.max(x, axis=axis, keepdims=True)))
    return powers / ops.sum(powers, axis=axis, keepdims=True)


def log_softmax(ops: Ops[T], x: T, axis: int = -1) -> T:
    """The logarithm of ``softmax``, without overflow or loss."""
    shifted = x - ops.stop_gradient(ops.max(x, axis=axis, keepdims=True))
    return shifted - ops.log(ops.sum(ops.exp(shifted), axis=axis, keepdims=True))


def cross_entropy(
    ops: Ops[T], logits: T, target: T, axis: int = -1, ignore_index: int | None = None, label_smoothing: float = 0.0
) -> T:
    """Negative log-likelihood of the softmax, one value a row.

    target: a class a row (integers), or a probability for every class (floats of the logits' shape). A row whose class is
    ``ignore_index`` gives 0. label_smoothing: the share of the target that goes to all classes alike.
    """
    if not 0 <= label_smoothing <= 1:
        raise DefinitionError(f"cross_entropy: label_smoothing={label_smoothing} given; needs 0 to 1")
    k = axis_of("cross_entropy", axis, len(logits.shape))
    logp = log_softmax(ops, logits, k)
    if target.dtype.kind == "f":
        if target.shape != logits.shape or ignore_index is not None:
            raise ShapeError(
                f"cross_entropy: probabilities of shape {text(target.shape)} for logits {text(logits.shape)} given; "
                "needs one shape, and no ignore_index"
            )
        goal = target if label_smoothing == 0 else target * (1 - label_smoothing) + label_smoothing / _whole(logits.shape[k])
        return -ops.sum(goal * logp, axis=k)
    loss = nll(ops, logp, target, k, ignore_index)
    if label_smoothing == 0:
        return loss
    even = -mean(ops, logp, k)
    if ignore_index is not None:
        even = ops.where(ops.equal(target, ignore_index), 0.0, even)
    return (1 - label_smoothing) * loss + label_smoothing * even


def _whole(size: SizeLike) -> int:
    if isinstance(size, Size):
        raise ShapeError(f"cross_entropy: {size} classes with label smoothing given; needs a number known at declaration")
    return size


def nll(ops: Ops[T], logp: T, target: T, axis: int = -1, ignore_index: int | None = None) -> T:
    """The negative of each row's log-probability at its class; 0 for a row whose class is ``ignore_index``."""
    if target.dtype.kind != "i":
        raise DTypeError(f"nll: classes of type {target.dtype} given; needs int32 or int64")
    if ignore_index is None:
        return -ops.pick(logp, target, axis=axis)
    ignored = ops.equal(target, ignore_index)
    zero = ops.where(ignored, 0, target)  # a class that exists, read and then dropped
    return ops.where(ignored, 0.0, -ops.pick(logp, zero, axis=axis))


def reduced(ops: Ops[T], name: str, loss: T, reduction: str) -> T:
    """A loss's mean, its sum, or itself (``none``)."""
    if reduction not in ("mean", "sum", "none"):
        raise DefinitionError(f"{name}: reduction={reduction!r} given; needs 'mean', 'sum' or 'none'")
    return mean(ops, loss) if reduction == "mean" else ops.sum(loss) if reduction == "sum" else loss


def mse(ops: Ops[T], x: T, target: T, reduction: str = "mean") -> T:
    """Mean squared error."""
    return reduced(ops, "mse", ops.square(x - target), reduction)


def mae(ops: Ops[T], x: T, target: T, reduction: str = "mean") -> T:
    """Mean absolute error."""
    return reduced(ops, "mae", ops.abs(x - target), reduction)


def huber(ops: Ops[T], x: T, target: T, delta: float = 1.0, reduction: str = "mean") -> T:
    """Half the squared error up to ``delta``, from there on the line that continues it."""
    far = ops.abs(x - target)
    return reduced(ops, "huber", ops.where(far <= delta, 0.5 * ops.square(far), delta * (far - 0.5 * delta)), reduction)


def bce_with_logits(ops: Ops[T], logits: T, target: T, reduction: str = "mean") -> T:
    """Binary cross-entropy of the logits' sigmoid, without overflow."""
    return reduced(ops, "bce_with_logits", ops.softplus(logits) - logits * target, reduction)


def hinge(ops: Ops[T], scores: T, target: T, reduction: str = "mean") -> T:
    """max(0, 1 - target * score), for targets -1 and 1."""
    return reduced(ops, "hinge", ops.relu(1 - target * scores), reduction)


def kl_div(ops: Ops[T], logp: T, target: T, reduction: str = "mean") -> T:
    """target * (log(target) - logp), element by element; 0 where the target is 0."""
    some = target > 0
    safe = ops.where(some, target, 1.0)
    return reduced(ops, "kl_div", ops.where(some, target * (ops.log(safe) - logp), 0.0), reduction)


def cosine_similarity(ops: Ops[T], x: T, y: T, axis: int = -1, eps: float = 1e-8) -> T:
    """The cosine of the angle between vectors along an axis; a length counts as at least ``eps``."""
    lengths = ops.maximum(norm(ops, x, axis), eps) * ops.maximum(norm(ops, y, axis), eps)
    return ops.sum(x * y, axis=axis) / lengths


def stack(ops: Ops[T], tensors: Sequence[T], axis: int = 0) -> T:
    """Tensors of one shape along a new axis."""
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


def _np_log_softmax(x: Array, axis: int = -1) -> Array:
    far = x - np.max(x, axis=axis, keepdims=True)
    return np.asarray(far - np.log(np.sum(np.exp(far), axis=axis, keepdims=True)))


def _np_cross_entropy(
    logits: Array, target: Array, axis: int = -1, ignore_index: int | None = None, label_smoothing: float = 0.0
) -> Array:
    classes = logits.shape[axis]
    logp = np.moveaxis(_np_log_softmax(logits, axis), axis, -1)
    if target.dtype.kind == "f":
        goal = np.moveaxis(target, axis, -1)
        keep = np.ones(goal.shape[:-1], bool)
    else:
        keep = target != ignore_index if ignore_index is not None else np.ones(target.shape, bool)
        goal = np.eye(classes)[np.where(keep, target, 0)]
    goal = goal * (1 - label_smoothing) + label_smoothing / classes
    return np.where(keep, -np.sum(goal * logp, axis=-1), 0)


def _np_nll(logp: Array, target: Array, axis: int = -1, ignore_index: int | None = None) -> Array:
    keep = target != ignore_index if ignore_index is not None else np.ones(target.shape, bool)
    chosen = np.take_along_axis(logp, np.expand_dims(np.where(keep, target, 0), axis), axis)
    return np.where(keep, -np.squeeze(chosen, axis), 0)


def _np_reduced(loss: Array, reduction: str) -> Array:
    return np.asarray(np.mean(loss) if reduction == "mean" else np.sum(loss) if reduction == "sum" else loss)


def _np_huber(x: Array, target: Array, delta: float = 1.0, reduction: str = "mean") -> Array:
    far = np.abs(np.subtract(x, target))
    return _np_reduced(np.where(far <= delta, far**2 / 2, delta * far - delta**2 / 2), reduction)


def _np_bce(logits: Array, target: Array, reduction: str = "mean") -> Array:
    p = PRIMITIVES["sigmoid"].numpy(logits)
    return _np_reduced(-(target * np.log(p) + (1 - target) * np.log(1 - p)), reduction)


def _np_kl(logp: Array, target: Array, reduction: str = "mean") -> Array:
    return _np_reduced(target * (np.log(target) - logp), reduction)


def _np_cosine(x: Array, y: Array, axis: int = -1, eps: float = 1e-8) -> Array:
    return np.sum(x * y, axis=axis) / (np.linalg.norm(x, axis=axis) * np.linalg.norm(y, axis=axis))


def _np_norm(x: Array, axis: Axis = None, ord: float = 2, keepdims: bool = False) -> Array:
    size = np.abs(x)
    if ord == math.inf:
        return np.asarray(np.max(size, axis=axis, keepdims=keepdims))
    return np.asarray(np.sum(size**ord, axis=axis, keepdims=keepdims) ** (1 / ord))


def _np_scatter_add(x: Array, indices: Array, source: Array, axis: int = 0) -> Array:
    result, place = x.copy(), list(np.indices(source.shape))
    place[axis] = indices
    np.add.at(result, tuple(place), source)
    return result


def _np_index_add(x: Array, indices: Array, source: Array, axis: int = 0) -> Array:
    result = np.moveaxis(x.copy(), axis, 0)
    np.add.at(result, indices, np.moveaxis(source, axis, 0))  # type: ignore[arg-type]
    return np.moveaxis(result, 0, axis)


def _classes(shape: tuple[int, ...], target: tuple[int, ...], count: int, **attrs: int | float) -> Sample:
    return Sample((Draw(shape), Draw(target, 0, count, "int32")), tuple(attrs.items()))


def _losses(low: float = -3.0, high: float = 3.0) -> tuple[Sample, ...]:
    one, other = Draw((4, 3)), Draw((4, 3), low, high)
    return (Sample((one, other)), Sample((one, other), (("reduction", "sum"),)), Sample((one, other), (("reduction", "none"),)))


_AXES = (sample((4, 5)), sample((4, 5), axis=0), sample((2, 3, 4), axis=(0, -1), keepdims=True))

RECORDS: tuple[Record, ...] = (
    Record("mean", "composite", None, np.mean, _AXES, "Mean over axes; integers give float32."),
    Record("var", "composite", None, lambda x, axis=None, correction=0.0, keepdims=False: np.var(
        x, axis=axis, ddof=correction, keepdims=keepdims), (*_AXES, sample((4, 5), axis=1, correction=1.0)), "Variance over axes."),
    Record("std", "composite", None, lambda x, axis=None, correction=0.0, keepdims=False: np.std(
        x, axis=axis, ddof=correction, keepdims=keepdims), (*_AXES, sample((4, 5), axis=1, correction=1.0)),
        "Standard deviation over axes.", "infinite where all elements are equal"),
    Record("norm", "composite", None, _np_norm, (*_AXES, sample((4, 5), axis=1, ord=1), sample((4, 5), axis=1, ord=math.inf)),
           "Norm over axes, of order 2, 1 or infinity.", "0 at 0"),
    Record("softmax", "composite", None, lambda x, axis=-1: np.exp(_np_log_softmax(x, axis)), (sample((4, 5)), sample((4, 5), axis=0)),
           "exp(x) over its sum along an axis, without overflow."),
    Record("log_softmax", "composite", None, _np_log_softmax, (sample((4, 5)), sample((2, 5, 3), axis=1)),
           "The logarithm of softmax, without overflow."),
    Record(
        "cross_entropy", "composite", None, _np_cross_entropy,
        (_classes((4, 5), (4,), 5), _classes((4, 5), (4,), 5, ignore_index=2), _classes((2, 5, 3), (2, 3), 5, axis=1),
         _classes((4, 5), (4,), 5, label_smoothing=0.1), Sample((Draw((4, 5)), Draw((4, 5), 0, 1)))),
        "Negative log-likelihood of the softmax at each row's class, or for probabilities; one value a row.",
    ),
    Record("nll", "composite", None, _np_nll, (_classes((4, 5), (4,), 5), _classes((4, 5), (4,), 5, ignore_index=0)),
           "The negative log-probability of each row's class."),
    Record("mse", "composite", None, lambda x, target, reduction="mean": _np_reduced((x - target) ** 2, reduction), _losses(),
           "Squared error, reduced as asked."),
    Record("mae", "composite", None, lambda x, target, reduction="mean": _np_reduced(np.abs(x - target), reduction), _losses(),
           "Absolute error, reduced as asked.", "0 where both are equal"),
    Record("huber", "composite", None, _np_huber, (*_losses(), Sample((Draw((4, 3)), Draw((4, 3))), (("delta", 0.5),))),
           "Squared near, absolute far.", smooth=False),
    Record("bce_with_logits", "composite", None, _np_bce, _losses(0, 1), "Binary cross-entropy of the logits' sigmoid."),
    Record("hinge", "composite", None, lambda scores, target, reduction="mean": _np_reduced(
        np.maximum(0, 1 - target * scores), reduction), _losses(), "max(0, 1 - target * score).", "0 where target * score is 1"),
    Record("kl_div", "composite", None, _np_kl, _losses(0.1, 1), "target * (log(target) - logp), reduced as asked."),
    Record("cosine_similarity", "composite", None, _np_cosine, (sample((4, 5), (4, 5)), sample((4, 5), (4, 5), axis=0)),
           "The cosine of the angle between vectors along an axis."),
    Record("stack", "composite", None, lambda *tensors, axis=0: np.stack(tensors, axis),
           (sample((3,), (3,)), sample((2, 3), (2, 3), (2, 3), axis=-1)), "Tensors of one shape along a new axis."),
    Record("embedding", "composite", None, lambda table, indices: table[indices],
           (Sample((Draw((5, 3)), Draw((2, 2), 0, 5, "int32"))),), "The rows of a table at indices from data."),
    Record("scatter_add", "composite", None, _np_scatter_add,
           (Sample((Draw((4, 3)), Draw((6, 3), 0, 4, "int32"), Draw((6, 3)))),
            Sample((Draw((2, 5)), Draw((2, 3), 0, 5, "int32"), Draw((2, 3))), (("axis", 1),))),
           "x with elements added at indices of their own."),
    Record("index_add", "composite", None, _np_index_add,
           (Sample((Draw((5, 3)), Draw((4,), 0, 5, "int32"), Draw((4, 3)))),
            Sample((Draw((2, 5)), Draw((3,), 0, 5, "int32"), Draw((2, 3))), (("axis", -1),))),
           "x with slices added at indices."),
    Record("reshape", "composite", None, lambda x, shape: np.reshape(x, shape),
           (sample((4, 3), shape=(2, 6)), sample((2, 3, 4), shape=(-1,)), sample((1,), shape=())), "The same elements in another shape."),
    Record("transpose", "composite", None, lambda x, axes=None: np.transpose(x, axes),
           (sample((2, 3, 4)), sample((2, 3), axes=(1, 0))), "The axes reversed, or in a given order."),
    Record("stop_gradient", "composite", None, np.positive, (Sample((Draw((3,)),), (), False),), "The same value, a constant to derivatives."),
    Record("tile", "composite", None, lambda x, repetitions: np.tile(x, repetitions),
           (sample((3,), repetitions=2), sample((2, 3), repetitions=(2, 1, 3))), "The whole tensor repeated along each axis."),
    Record("repeat", "composite", None, lambda x, repetitions, axis=0: np.repeat(x, repetitions, axis),
           (sample((3,), repetitions=2), sample((2, 3), repetitions=3, axis=1)), "Each element repeated along an axis."),
)  # fmt: skip
