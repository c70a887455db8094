"""What the comparisons with other frameworks share: which cases, and how graphc's value and gradients are taken."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from test_ops import CASES, Array, declared, drawn

import graphc as gc
from graphc.dsl.build import build
from graphc.ops.record import Draw, Record, Sample

Peer = Callable[..., Any]  # a peer's arrays have no types here: it may not be installed
# The value of a function of arrays, and its cotangents: the pulled-back gradient of each argument.
Pulled = Callable[[Callable[..., Any], Sequence[Array]], tuple[Any, Callable[[Array], Sequence[Any]]]]


def cases(peers: Mapping[str, Peer]) -> list[Any]:
    """The differentiable samples of the operations that a peer has."""
    return [case for case in CASES if case.values[0].name in peers and case.values[1].grad]  # type: ignore[union-attr]


def compare(record: Record, sample: Sample, peer: Peer, array: Callable[[Array], Any], vjp: Pulled) -> None:
    """Asserts that value and gradients are the peer's, in float64.

    array: makes the peer's own array of an operand that is not differentiated, such as an index.
    """
    rng = np.random.default_rng(zlib.crc32(record.name.encode()))
    arrays = drawn(sample, rng, "float64")
    out = declared(record, sample, arrays)
    given = {f"x{k}": a for k, a in enumerate(arrays)}
    attrs = {name: value for name, value in sample.attrs if record.name != "cumsum" or name != "keepdims"}

    def function(*floats: Any) -> Any:
        rest, numbers = iter(floats), iter(arrays)
        operands = []
        for operand in sample.operands:
            drawn_array = next(numbers) if isinstance(operand, Draw) else None
            if isinstance(operand, Draw) and operand.dtype == "f":
                operands.append(next(rest))
            else:
                operands.append(operand if drawn_array is None else array(drawn_array))
        return peer(*operands, **attrs)

    names = [f"x{k}" for k, a in enumerate(arrays) if a.dtype.kind == "f"]
    wanted, pull = vjp(function, [given[n] for n in names])
    np.testing.assert_allclose(out.eval(**given), wanted, rtol=1e-11, atol=1e-12)
    weights = rng.uniform(0.5, 1.5, wanted.shape)
    leaves = build({"y": out}).leaves
    inputs = [leaf for name in names if isinstance(leaf := leaves[name], gc.Tensor)]
    gradients = gc.grad(gc.sum(out * gc.const(weights)), inputs, unused="zero")
    for gradient, exact in zip(gradients, pull(weights), strict=True):
        used = build({"g": gradient}).leaves
        found = gradient.eval(**{name: a for name, a in given.items() if name in used})
        np.testing.assert_allclose(found, exact, rtol=1e-10, atol=1e-11)


def reduced(loss: Any, reduction: str) -> Any:
    """A loss as it is, or its mean or sum."""
    return loss if reduction == "none" else getattr(loss, reduction)()
