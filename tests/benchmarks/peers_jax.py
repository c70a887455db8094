"""JAX: the whole step in one ``jax.jit`` with donated parameters and state; an epoch as one ``lax.scan``.

Variants: "sync" turns asynchronous dispatch off; "unroll" unrolls the recurrences completely.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from peers import Foreign, Program
from workloads import Floats, Optimizer, Workload

LABEL_DTYPE = "int32"
Loss = Callable[..., Foreign]


def env(threads: int, variant: str, dtype: str) -> dict[str, str]:
    flags = {"JAX_PLATFORMS": "cpu"}
    if threads == 1:
        flags["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    if dtype == "float64":
        flags["JAX_ENABLE_X64"] = "true"
    if variant == "sync":
        flags["JAX_CPU_ENABLE_ASYNC_DISPATCH"] = "false"
    return flags


def load(threads: int) -> dict[str, str]:
    import jax
    import jax.numpy

    return {"jax": jax.__version__}


def cross_entropy(logits: Foreign, labels: Foreign) -> Foreign:
    """The mean negative log-likelihood of the softmax."""
    import jax
    import jax.numpy as jnp

    log_p = logits - jax.nn.logsumexp(logits, axis=-1, keepdims=True)
    return -jnp.mean(jnp.take_along_axis(log_p, labels[:, None], axis=-1))


def mlp(workload: Workload, unroll: int | bool) -> Loss:
    import jax
    import jax.numpy as jnp

    activations: dict[str, Loss] = {
        "relu": jax.nn.relu,
        "tanh": jnp.tanh,
        "gelu": lambda z: jax.nn.gelu(z, approximate=True),
    }
    n, activation = len(workload.layers) - 1, activations[workload.activation]

    def loss(params: list[Foreign], x: Foreign, y: Foreign = None) -> Foreign:
        h = x
        for i in range(n):
            h = h @ params[2 * i] + params[2 * i + 1]
            if i < n - 1:
                h = activation(h)
        if workload.loss == "ce":
            return cross_entropy(h, y)
        return jnp.mean((h - (x if y is None else y)) ** 2)

    return loss


def custom_loss(workload: Workload, unroll: int | bool) -> Loss:
    import jax
    import jax.numpy as jnp

    def loss(params: list[Foreign], x: Foreign, target: Foreign) -> Foreign:
        z = x @ params[0] + params[1]
        r = z[:, 0] - target
        a = jnp.abs(r)
        huber = jnp.where(a <= 1.0, 0.5 * r * r, a - 0.5)
        log_cosh = a + jnp.log1p(jnp.exp(-2.0 * a)) - 0.6931471805599453
        gate = jax.nn.sigmoid(z[:, 1])
        return jnp.mean(gate * huber + (1.0 - gate) * log_cosh)

    return loss


def lenet(workload: Workload, unroll: int | bool) -> Loss:
    """In NHWC, which XLA's CPU convolutions prefer; see ``channels_last`` for the parameters."""
    import jax
    from jax import lax

    order = ("NHWC", "HWIO", "NHWC")

    def pool(h: Foreign) -> Foreign:
        n, height, width, channels = h.shape
        return h.reshape(n, height // 2, 2, width // 2, 2, channels).max(axis=(2, 4))

    def loss(params: list[Foreign], x: Foreign, y: Foreign) -> Foreign:
        k0, c0, k1, c1, w0, b0, w1, b1, w2, b2 = params
        h = x.reshape(-1, 28, 28, 1)
        h = lax.conv_general_dilated(h, k0, (1, 1), [(2, 2), (2, 2)], dimension_numbers=order) + c0
        h = pool(jax.nn.relu(h))
        h = lax.conv_general_dilated(h, k1, (1, 1), "VALID", dimension_numbers=order) + c1
        h = pool(jax.nn.relu(h)).reshape(-1, 400)
        h = jax.nn.relu(h @ w0 + b0)
        return cross_entropy(jax.nn.relu(h @ w1 + b1) @ w2 + b2, y)

    return loss


def channels_last(p: dict[str, Floats]) -> dict[str, Floats]:
    """LeNet's parameters for NHWC, permuted once at the start."""
    linear = p["W0"].reshape(16, 5, 5, 120).transpose(1, 2, 0, 3).reshape(400, 120)
    return p | {"K0": p["K0"].transpose(2, 3, 1, 0), "K1": p["K1"].transpose(2, 3, 1, 0), "W0": linear}


def rnn(workload: Workload, unroll: int | bool) -> Loss:
    import jax.numpy as jnp
    from jax import lax

    hidden = workload.sizes["hidden"]

    def loss(params: list[Foreign], x: Foreign, y: Foreign) -> Foreign:
        wxh, whh, bh, why, by = params
        inputs = wxh[x.T] + bh

        def cell(h: Foreign, u: Foreign) -> tuple[Foreign, Foreign]:
            h = jnp.tanh(u + h @ whh)
            return h, h

        _, states = lax.scan(cell, jnp.zeros((x.shape[0], hidden), inputs.dtype), inputs, unroll=unroll)
        return cross_entropy(states.reshape(-1, hidden) @ why + by, y.T.reshape(-1))

    return loss


def lstm(workload: Workload, unroll: int | bool) -> Loss:
    import jax
    import jax.numpy as jnp
    from jax import lax

    hidden = workload.sizes["hidden"]

    def loss(params: list[Foreign], x: Foreign, y: Foreign) -> Foreign:
        wx, wh, b, wo, bo = params
        inputs = jnp.swapaxes(x, 0, 1) @ wx + b

        def cell(carry: tuple[Foreign, Foreign], u: Foreign) -> tuple[tuple[Foreign, Foreign], None]:
            h, c = carry
            i, f, g, o = jnp.split(u + h @ wh, 4, axis=1)
            c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
            return (jax.nn.sigmoid(o) * jnp.tanh(c), c), None

        zero = jnp.zeros((x.shape[0], hidden), inputs.dtype)
        (h, _), _ = lax.scan(cell, (zero, zero), inputs, unroll=unroll)
        return cross_entropy(h @ wo + bo, y)

    return loss


def transformer(workload: Workload, unroll: int | bool) -> Loss:
    import jax
    import jax.numpy as jnp
    from jax import lax

    blocks, width, heads = (workload.sizes[name] for name in ("blocks", "width", "heads"))

    def norm(h: Foreign, gain: Foreign, shift: Foreign) -> Foreign:
        centred = h - h.mean(-1, keepdims=True)
        return centred * lax.rsqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * gain + shift

    def block(h: Foreign, mask: Foreign, p: list[Foreign]) -> Foreign:
        g1, e1, w_qkv, b_qkv, w_o, b_o, g2, e2, w_f, b_f, w_p, b_p = p
        rows, steps, _ = h.shape
        qkv = (norm(h, g1, e1) @ w_qkv + b_qkv).reshape(rows, steps, 3, heads, width // heads)
        scores = jnp.einsum("bqhd,bkhd->bhqk", qkv[:, :, 0], qkv[:, :, 1]) * (width // heads) ** -0.5
        weights = jax.nn.softmax(jnp.where(mask, scores, -1e30), axis=-1)
        mixed = jnp.einsum("bhqk,bkhd->bqhd", weights, qkv[:, :, 2]).reshape(rows, steps, width)
        h = h + mixed @ w_o + b_o
        return h + jax.nn.gelu(norm(h, g2, e2) @ w_f + b_f, approximate=True) @ w_p + b_p

    def loss(params: list[Foreign], x: Foreign, y: Foreign) -> Foreign:
        h = params[0][x] + params[1]
        mask = jnp.tril(jnp.ones((x.shape[1], x.shape[1]), bool))
        for i in range(blocks):
            h = block(h, mask, params[2 + 12 * i : 14 + 12 * i])
        gain, shift, head = params[2 + 12 * blocks :]
        return cross_entropy((norm(h, gain, shift) @ head).reshape(y.size, -1), y.reshape(-1))

    return loss


LOSSES = {"mlp": mlp, "custom_loss": custom_loss, "lenet": lenet, "rnn": rnn, "lstm": lstm, "transformer": transformer}


def update(
    opt: Optimizer, params: list[Foreign], grads: list[Foreign], slots: Foreign
) -> tuple[list[Foreign], Foreign]:
    """The new parameters and the new optimizer state."""
    import jax.numpy as jnp

    if opt.kind == "sgd":
        if opt.momentum:
            slots = grads = [opt.momentum * v + g for v, g in zip(slots, grads, strict=True)]
        return [p - opt.lr * g for p, g in zip(params, grads, strict=True)], slots
    t, first, second = slots
    t = t + 1
    c1, c2 = 1 - opt.b1**t, 1 - opt.b2**t
    first = [opt.b1 * m + (1 - opt.b1) * g for m, g in zip(first, grads, strict=True)]
    second = [opt.b2 * v + (1 - opt.b2) * g * g for v, g in zip(second, grads, strict=True)]
    if opt.kind == "adamw":
        params = [p * (1 - opt.lr * opt.weight_decay) for p in params]
    moments = zip(params, first, second, strict=True)
    return [p - opt.lr * (m / c1) / (jnp.sqrt(v / c2) + opt.eps) for p, m, v in moments], (t, first, second)


class Jax:
    """The jitted step and epoch with their state."""

    def __init__(self, workload: Workload, unroll: int | bool) -> None:
        import jax
        import jax.numpy as jnp

        loss_fn, opt = LOSSES[workload.kind](workload, unroll), workload.optimizer
        initial = workload.parameters()
        if workload.kind == "lenet":
            initial = channels_last(initial)
        params = [jnp.array(value) for value in initial.values()]
        zeros = [[jnp.zeros_like(p) for p in params] for _ in range(opt.n_slots)]
        slots: Foreign = [value for slot in zeros for value in slot]
        if opt.n_slots == 2:
            slots = (jnp.zeros((), workload.dtype), *zeros)
        self.state = (params, slots)

        def step(state: Foreign, *batch: Foreign) -> tuple[Foreign, Foreign]:
            params, slots = state
            loss, grads = jax.value_and_grad(loss_fn)(params, *batch)
            return update(opt, params, grads, slots), loss

        def epoch(state: Foreign, *data: Foreign) -> tuple[Foreign, Foreign]:
            batches = tuple(array.reshape(-1, workload.batch, *array.shape[1:]) for array in data)
            return jax.lax.scan(lambda state, batch: step(state, *batch), state, batches)  # type: ignore[no-any-return]

        self.jit, self.jit_epoch = jax.jit(step, donate_argnums=0), jax.jit(epoch, donate_argnums=0)

    def step(self, *batch: NDArray[np.generic]) -> float:
        self.state, loss = self.jit(self.state, *batch)
        return float(loss.item())

    def epoch(self, x: NDArray[np.generic], y: NDArray[np.generic]) -> NDArray[np.floating]:
        self.state, losses = self.jit_epoch(self.state, x, y)
        return np.asarray(losses)


def build(workload: Workload, threads: int, variant: str) -> Program:
    return Jax(workload, unroll=True if variant == "unroll" else 1)
