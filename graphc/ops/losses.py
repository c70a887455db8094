"""Losses, written over the operations ``ops`` that they are handed; none has a rule of its own.

Losses over classes (``cross_entropy``, ``nll``) give one value a row; elementwise losses take ``reduction``.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from graphc.errors import DefinitionError, DTypeError, ShapeError
from graphc.graph.primitives import PRIMITIVES
from graphc.graph.sizes import Size, SizeLike
from graphc.ops.composite import Ops, T, log_softmax, mean, np_log_softmax
from graphc.ops.record import Draw, Record, Sample, axis_of, text

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def cross_entropy(
    ops: Ops[T], logits: T, target: T, axis: int = -1, ignore_index: int | None = None, label_smoothing: float = 0.0
) -> T:
    """Negative log-likelihood of the softmax, one value a row.

    target: a class a row (integers), or a probability for every class (floats of the logits' shape). A row whose
    class is ``ignore_index`` gives 0. label_smoothing: the share of the target that goes to all classes alike.
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
        goal = (
            target
            if label_smoothing == 0
            else target * (1 - label_smoothing) + label_smoothing / _whole(logits.shape[k])
        )
        return -ops.sum(goal * logp, axis=k)
    loss = _likelihood(ops, "cross_entropy", logp, target, k, ignore_index)
    if label_smoothing == 0:
        return loss
    even = -mean(ops, logp, k)
    if ignore_index is not None:
        even = ops.where(ops.equal(target, ignore_index), 0.0, even)
    return (1 - label_smoothing) * loss + label_smoothing * even


def _whole(size: SizeLike) -> int:
    if isinstance(size, Size):
        raise ShapeError(
            f"cross_entropy: {size} classes with label smoothing given; needs a number known at declaration"
        )
    return size


def nll(ops: Ops[T], logp: T, target: T, axis: int = -1, ignore_index: int | None = None) -> T:
    """The negative of each row's log-probability at its class; 0 for a row whose class is ``ignore_index``."""
    return _likelihood(ops, "nll", logp, target, axis_of("nll", axis, len(logp.shape)), ignore_index)


def _likelihood(ops: Ops[T], name: str, logp: T, target: T, axis: int, ignore_index: int | None) -> T:
    if target.dtype.kind != "i":
        raise DTypeError(f"{name}: classes of type {target.dtype} given; needs int32 or int64")
    rows = logp.shape[:axis] + logp.shape[axis + 1 :]
    if target.shape != rows:
        raise ShapeError(
            f"{name}: classes of shape {text(target.shape)} for {text(logp.shape)} with classes along axis {axis} "
            f"given; needs {text(rows)}"
        )
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


def _np_cross_entropy(
    logits: Floats,
    target: NDArray[np.floating] | Ints,
    axis: int = -1,
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
) -> Floats:
    classes = logits.shape[axis]
    logp = np.moveaxis(np_log_softmax(logits, axis), axis, -1)
    if target.dtype.kind == "f":
        goal = np.moveaxis(target, axis, -1)
        keep = np.ones(goal.shape[:-1], bool)
    else:
        keep = target != ignore_index if ignore_index is not None else np.ones(target.shape, bool)
        goal = np.eye(classes)[np.where(keep, target, 0)]
    goal = goal * (1 - label_smoothing) + label_smoothing / classes
    return np.where(keep, -np.sum(goal * logp, axis=-1), 0)


def _np_nll(
    logp: Floats, target: NDArray[np.floating] | Ints, axis: int = -1, ignore_index: int | None = None
) -> Floats:
    keep = target != ignore_index if ignore_index is not None else np.ones(target.shape, bool)
    chosen = np.take_along_axis(logp, np.expand_dims(np.where(keep, target, 0), axis), axis)
    return np.where(keep, -np.squeeze(chosen, axis), 0)


def _np_reduced(loss: Floats, reduction: str) -> Floats:
    return np.asarray(np.mean(loss) if reduction == "mean" else np.sum(loss) if reduction == "sum" else loss)


def _np_huber(x: Floats, target: Floats, delta: float = 1.0, reduction: str = "mean") -> Floats:
    far = np.abs(np.subtract(x, target))
    return _np_reduced(np.where(far <= delta, far**2 / 2, delta * far - delta**2 / 2), reduction)


def _np_bce(logits: Floats, target: Floats, reduction: str = "mean") -> Floats:
    p = PRIMITIVES["sigmoid"].numpy(logits)
    return _np_reduced(-(target * np.log(p) + (1 - target) * np.log(1 - p)), reduction)


def _np_kl(logp: Floats, target: Floats, reduction: str = "mean") -> Floats:
    return _np_reduced(target * (np.log(target) - logp), reduction)


def _classes(shape: tuple[int, ...], target: tuple[int, ...], count: int, **attrs: int | float) -> Sample:
    return Sample((Draw(shape), Draw(target, 0, count, "int32")), tuple(attrs.items()))


def _losses(low: float = -3.0, high: float = 3.0) -> tuple[Sample, ...]:
    one, other = Draw((4, 3)), Draw((4, 3), low, high)
    return (
        Sample((one, other)),
        Sample((one, other), (("reduction", "sum"),)),
        Sample((one, other), (("reduction", "none"),)),
    )


RECORDS: tuple[Record, ...] = (
    Record(
        "cross_entropy",
        "composite",
        None,
        _np_cross_entropy,
        (
            _classes((4, 5), (4,), 5),
            _classes((4, 5), (4,), 5, ignore_index=2),
            _classes((2, 5, 3), (2, 3), 5, axis=1),
            _classes((4, 5), (4,), 5, label_smoothing=0.1),
            Sample((Draw((4, 5)), Draw((4, 5), 0, 1))),
        ),
        "Negative log-likelihood of the softmax at each row's class, or for probabilities; one value a row.",
    ),
    Record(
        "nll",
        "composite",
        None,
        _np_nll,
        (_classes((4, 5), (4,), 5), _classes((4, 5), (4,), 5, ignore_index=0)),
        "The negative log-probability of each row's class.",
    ),
    Record(
        "mse",
        "composite",
        None,
        lambda x, target, reduction="mean": _np_reduced((x - target) ** 2, reduction),
        _losses(),
        "Squared error, reduced as asked.",
    ),
    Record(
        "mae",
        "composite",
        None,
        lambda x, target, reduction="mean": _np_reduced(np.abs(x - target), reduction),
        _losses(),
        "Absolute error, reduced as asked.",
        "0 where both are equal",
    ),
    Record(
        "huber",
        "composite",
        None,
        _np_huber,
        (*_losses(), Sample((Draw((4, 3)), Draw((4, 3))), (("delta", 0.5),))),
        "Squared near, absolute far.",
        smooth=False,
    ),
    Record(
        "bce_with_logits", "composite", None, _np_bce, _losses(0, 1), "Binary cross-entropy of the logits' sigmoid."
    ),
    Record(
        "hinge",
        "composite",
        None,
        lambda scores, target, reduction="mean": _np_reduced(np.maximum(0, 1 - target * scores), reduction),
        _losses(),
        "max(0, 1 - target * score).",
        "0 where target * score is 1",
    ),
    Record("kl_div", "composite", None, _np_kl, _losses(0.1, 1), "target * (log(target) - logp), reduced as asked."),
)
