"""Values and gradients of the operations equal JAX's, where JAX is installed (it is never a dependency)."""

from __future__ import annotations

import numpy as np
import pytest
from peer_cases import Peer, cases, compare, reduced

from graphc.ops.record import Record, Sample

jax = pytest.importorskip("jax")
jax.config.update("jax_enable_x64", True)
jnp, nn = jax.numpy, jax.nn

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
    "mse": lambda x, target, reduction="mean": reduced((x - target) ** 2, reduction),
    "mae": lambda x, target, reduction="mean": reduced(jnp.abs(x - target), reduction),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("record", "sample"), cases(PEERS))
def test_value_and_gradient(record: Record, sample: Sample) -> None:
    compare(record, sample, PEERS[record.name], jnp.asarray, lambda function, arrays: jax.vjp(function, *arrays))
