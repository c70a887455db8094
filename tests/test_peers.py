"""Values and gradients of the operations equal JAX's, where JAX is installed (it is never a dependency)."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from test_ops import CASES, declared, drawn

import graphc as gc
from graphc.dsl.build import build
from graphc.ops.record import Draw, Record, Sample

jax = pytest.importorskip("jax")
jax.config.update("jax_enable_x64", True)
jnp, nn = jax.numpy, jax.nn

Peer = Callable[..., Any]  # JAX has no types here: it may not be installed

# Names that JAX has too, with the same attributes.
SAME = [
    "add", "subtract", "multiply", "divide", "negative", "positive", "maximum", "minimum", "logaddexp", "hypot", "abs",
    "square", "sqrt", "reciprocal", "exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "sin", "cos", "tan",
    "sinh", "cosh", "tanh", "where", "sum", "prod", "max", "min", "squeeze", "expand_dims", "broadcast_to", "flip",
    "roll", "reshape", "matmul", "tensordot", "outer", "mean", "remainder", "transpose",
]  # fmt: skip

PEERS: dict[str, Peer] = {name: getattr(jnp, name) for name in SAME} | {
    "pow": jnp.power,
    "rsqrt": jax.lax.rsqrt,
    "asin": jnp.arcsin,
    "acos": jnp.arccos,
    "atan": jnp.arctan,
    "asinh": jnp.arcsinh,
    "acosh": jnp.arccosh,
    "atanh": jnp.arctanh,
    "atan2": jnp.arctan2,
    "erf": jax.scipy.special.erf,
    "sigmoid": nn.sigmoid,
    "softplus": nn.softplus,
    "relu": nn.relu,
    "leaky_relu": lambda x, slope=0.01: nn.leaky_relu(x, slope),
    "elu": nn.elu,
    "selu": nn.selu,
    "gelu": lambda x, approximate="none": nn.gelu(x, approximate == "tanh"),
    "silu": nn.silu,
    "softsign": nn.soft_sign,
    "hardtanh": lambda x, low=-1.0, high=1.0: jnp.clip(x, low, high),
    "clip": jnp.clip,
    "logsumexp": nn.logsumexp,
    "softmax": nn.softmax,
    "log_softmax": nn.log_softmax,
    "var": lambda x, axis=None, correction=0, keepdims=False: jnp.var(x, axis, ddof=correction, keepdims=keepdims),
    "std": lambda x, axis=None, correction=0, keepdims=False: jnp.std(x, axis, ddof=correction, keepdims=keepdims),
    "norm": lambda x, axis=None, keepdims=False, ord=2: (
        jnp.sum(jnp.abs(x) ** ord, axis, keepdims=keepdims) ** (1 / ord)
        if ord != np.inf
        else jnp.max(jnp.abs(x), axis, keepdims=keepdims)
    ),
    "cumsum": lambda x, axis=0, reverse=False: jax.lax.cumsum(x, axis, reverse),
    "permute_dims": jnp.transpose,
    "concat": lambda *x, axis=0: jnp.concatenate(x, axis),
    "stack": lambda *x, axis=0: jnp.stack(x, axis),
    "pad": lambda x, value, widths: jnp.pad(x, widths, constant_values=value),
    "tile": lambda x, repetitions: jnp.tile(x, repetitions),
    "repeat": lambda x, repetitions, axis=0: jnp.repeat(x, repetitions, axis),
    "einsum": lambda *x, subscripts: jnp.einsum(subscripts, *x),
    "trace": lambda x, offset=0: jnp.trace(x, offset, -2, -1),
    "diag": lambda x, offset=0: jnp.diag(x, offset) if x.ndim == 1 else jnp.diagonal(x, offset, -2, -1),
    "take": lambda x, indices, axis=0: jnp.take(x, indices, axis),
    "gather": lambda x, indices, axis=-1: jnp.take_along_axis(x, indices, axis),
    "embedding": lambda table, indices: table[indices],
    "index_add": lambda x, indices, source, axis=0: jnp.moveaxis(
        jnp.moveaxis(x, axis, 0).at[indices].add(jnp.moveaxis(source, axis, 0)), 0, axis
    ),
    "mse": lambda x, target, reduction="mean": _reduced((x - target) ** 2, reduction),
    "mae": lambda x, target, reduction="mean": _reduced(jnp.abs(x - target), reduction),
}

COMPARED = [case for case in CASES if case.values[0].name in PEERS and case.values[1].grad]  # type: ignore[union-attr]


def _reduced(loss: Any, reduction: str) -> Any:
    return loss if reduction == "none" else getattr(jnp, reduction)(loss)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("record", "sample"), COMPARED)
def test_value_and_gradient(record: Record, sample: Sample) -> None:
    rng = np.random.default_rng(zlib.crc32(record.name.encode()))
    arrays = drawn(sample, rng, "float64")
    out = declared(record, sample, arrays)
    given = {f"x{k}": a for k, a in enumerate(arrays)}
    attrs = {name: value for name, value in sample.attrs if record.name != "cumsum" or name != "keepdims"}

    def peer(*floats: Any) -> Any:
        rest, numbers = iter(floats), iter(arrays)
        operands = []
        for operand in sample.operands:
            array = next(numbers) if isinstance(operand, Draw) else operand
            operands.append(next(rest) if isinstance(operand, Draw) and operand.dtype == "f" else array)
        return PEERS[record.name](*operands, **attrs)

    names = [f"x{k}" for k, a in enumerate(arrays) if a.dtype.kind == "f"]
    wanted, pull = jax.vjp(peer, *[given[n] for n in names])
    np.testing.assert_allclose(out.eval(**given), wanted, rtol=1e-11, atol=1e-12)
    weights = rng.uniform(0.5, 1.5, wanted.shape)
    leaves = build({"y": out}).leaves
    inputs = [leaf for name in names if isinstance(leaf := leaves[name], gc.Tensor)]
    gradients = gc.grad(gc.sum(out * gc.const(weights)), inputs, unused="zero")
    for gradient, exact in zip(gradients, pull(weights), strict=True):
        used = build({"g": gradient}).leaves
        found = gradient.eval(**{name: a for name, a in given.items() if name in used})
        np.testing.assert_allclose(found, exact, rtol=1e-10, atol=1e-11)
