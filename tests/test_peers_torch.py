"""Values and gradients of the operations equal PyTorch's, where PyTorch is installed (it is never a dependency)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from peer_cases import Peer, cases, compare, reduced
from test_ops import Array

from graphc.ops.record import Record, Sample

torch = pytest.importorskip("torch")
F = torch.nn.functional

# Names that PyTorch has too, with the same attributes.
SAME = [
    "add", "subtract", "multiply", "divide", "negative", "positive", "maximum", "minimum", "logaddexp", "hypot", "abs",
    "square", "sqrt", "rsqrt", "reciprocal", "exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "sin", "cos",
    "tan", "sinh", "cosh", "tanh", "asin", "acos", "atan", "asinh", "acosh", "atanh", "atan2", "erf", "sigmoid",
    "where", "pow", "remainder", "clip", "relu", "squeeze", "reshape", "matmul", "outer",
]  # fmt: skip


def axes(function: Callable[..., Any]) -> Peer:
    """A reduction in PyTorch's terms: ``dim`` for ``axis``, where no axis is all of them."""
    return lambda x, axis=None, keepdims=False, **rest: function(x, dim=every(x, axis), keepdim=keepdims, **rest)


def every(x: Any, axis: int | Sequence[int] | None) -> tuple[int, ...]:
    """The axes as a tuple."""
    if axis is None:
        return tuple(range(x.ndim))
    return (axis,) if isinstance(axis, int) else tuple(axis)


def prod(x: Any, axis: int | Sequence[int] | None = None, keepdims: bool = False) -> Any:
    for place in sorted((k % x.ndim for k in every(x, axis)), reverse=True):
        x = torch.prod(x, place, keepdim=keepdims)
    return x


def expand_dims(x: Any, axis: int | Sequence[int] = 0) -> Any:
    places = (axis,) if isinstance(axis, int) else axis
    for place in sorted(k % (x.ndim + len(places)) for k in places):
        x = x.unsqueeze(place)
    return x


def cumsum(x: Any, axis: int = 0, reverse: bool = False) -> Any:
    return x.flip(axis).cumsum(axis).flip(axis) if reverse else x.cumsum(axis)


def pad(x: Any, value: Any, widths: int | Sequence[Sequence[int]]) -> Any:
    pairs = [(widths, widths)] * x.ndim if isinstance(widths, int) else widths
    return F.pad(x, [n for pair in reversed(pairs) for n in pair], value=float(value))


def norm(x: Any, axis: int | Sequence[int] | None = None, keepdims: bool = False, ord: float = 2) -> Any:
    return torch.linalg.vector_norm(x, ord, every(x, axis), keepdims)


def gather(x: Any, indices: Any, axis: int = -1) -> Any:
    return torch.take_along_dim(x, indices.long(), axis)


def take(x: Any, indices: Any, axis: int = 0) -> Any:
    place = axis % x.ndim
    found = x.index_select(place, indices.long().reshape(-1))
    return found.reshape((*x.shape[:place], *indices.shape, *x.shape[place + 1 :]))


def diag(x: Any, offset: int = 0) -> Any:
    return torch.diag_embed(x, offset) if x.ndim == 1 else torch.diagonal(x, offset, -2, -1)


def cross_entropy(
    logits: Any, target: Any, axis: int = -1, ignore_index: int | None = None, label_smoothing: float = 0.0
) -> Any:
    labels = target if target.is_floating_point() else target.long()
    ignored = -100 if ignore_index is None else ignore_index  # -100 is PyTorch's default: nothing that a label is
    return F.cross_entropy(
        logits.movedim(axis, 1), labels, reduction="none", ignore_index=ignored, label_smoothing=label_smoothing
    )


def nll(logp: Any, target: Any, axis: int = -1, ignore_index: int | None = None) -> Any:
    ignored = -100 if ignore_index is None else ignore_index
    return F.nll_loss(logp.movedim(axis, 1), target.long(), reduction="none", ignore_index=ignored)


PEERS: dict[str, Peer] = {name: getattr(torch, name) for name in SAME} | {
    "softplus": F.softplus,
    "leaky_relu": lambda x, slope=0.01: F.leaky_relu(x, slope),
    "elu": F.elu,
    "selu": F.selu,
    "gelu": F.gelu,
    "silu": F.silu,
    "softsign": F.softsign,
    "hardtanh": lambda x, low=-1.0, high=1.0: F.hardtanh(x, low, high),
    "sum": axes(torch.sum),
    "mean": axes(torch.mean),
    "max": axes(torch.amax),
    "min": axes(torch.amin),
    "prod": prod,
    "logsumexp": axes(torch.logsumexp),
    "softmax": lambda x, axis=-1: torch.softmax(x, axis),
    "log_softmax": lambda x, axis=-1: torch.log_softmax(x, axis),
    "var": lambda x, correction=0, **rest: axes(torch.var)(x, correction=correction, **rest),
    "std": lambda x, correction=0, **rest: axes(torch.std)(x, correction=correction, **rest),
    "broadcast_to": lambda x, shape: torch.broadcast_to(x, shape),
    "clip_low": lambda x, low: torch.clip(x, min=low),
    "clip_high": lambda x, high: torch.clip(x, max=high),
    "norm": norm,
    "cumsum": cumsum,
    "expand_dims": expand_dims,
    "transpose": lambda x, axes=None: x.permute(*(reversed(range(x.ndim)) if axes is None else axes)),
    "permute_dims": lambda x, axes: x.permute(*axes),
    "flip": lambda x, axis=None: x.flip(every(x, axis)),
    "roll": lambda x, shift, axis=None: torch.roll(x, shift, axis),
    "stack": lambda *x, axis=0: torch.stack(x, axis),
    "concat": lambda *x, axis=0: torch.cat(x, axis),
    "pad": pad,
    "tile": lambda x, repetitions: torch.tile(x, (repetitions,) if isinstance(repetitions, int) else repetitions),
    "repeat": lambda x, repetitions, axis=0: torch.repeat_interleave(x, repetitions, axis),
    "einsum": lambda *x, subscripts: torch.einsum(subscripts, *x),
    "tensordot": lambda x, y, axes=2: torch.tensordot(x, y, axes),
    "trace": lambda x, offset=0: torch.diagonal(x, offset, -2, -1).sum(-1),
    "diag": diag,
    "take": take,
    "gather": gather,
    "embedding": lambda table, indices: F.embedding(indices.long(), table),
    "index_add": lambda x, indices, source, axis=0: torch.index_add(x, axis, indices.long(), source),
    "mse": lambda x, target, reduction="mean": F.mse_loss(x, target, reduction=reduction),
    "mae": lambda x, target, reduction="mean": F.l1_loss(x, target, reduction=reduction),
    "huber": F.huber_loss,
    "bce_with_logits": F.binary_cross_entropy_with_logits,
    "kl_div": lambda logp, target, reduction="mean": F.kl_div(logp, target, reduction=reduction),
    "hinge": lambda x, target, reduction="mean": reduced(torch.clamp(1 - x * target, min=0), reduction),
    "cosine_similarity": lambda x, y, axis=-1: F.cosine_similarity(x, y, axis),
    "cross_entropy": cross_entropy,
    "nll": nll,
    "pick": lambda x, indices, axis=-1: torch.take_along_dim(x, indices.long().unsqueeze(axis), axis).squeeze(axis),
    "scatter_add": lambda x, indices, source, axis=0: torch.scatter_add(x, axis, indices.long(), source),
}


def pulled(function: Peer, arrays: Sequence[Array]) -> tuple[Any, Callable[[Array], list[Any]]]:
    """The value, and the function from its cotangent to those of the arrays."""
    given = [torch.tensor(array, requires_grad=True) for array in arrays]
    out = function(*given)

    def pull(cotangent: Array) -> list[Any]:
        found = torch.autograd.grad(out, given, torch.as_tensor(cotangent), allow_unused=True)
        return [np.zeros_like(a) if g is None else g.numpy() for a, g in zip(arrays, found, strict=True)]

    return out.detach().numpy(), pull


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("record", "sample"), cases(PEERS))
def test_value_and_gradient(record: Record, sample: Sample) -> None:
    compare(record, sample, PEERS[record.name], torch.as_tensor, pulled)
