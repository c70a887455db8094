"""The loss of every workload in graphc: ``LOSSES[kind](gc, workload, parameters)``.

Recurrences are written out step by step, convolutions as index formulas.
"""

from __future__ import annotations

import numpy as np
from peers import Foreign
from workloads import Workload

LOG_2 = 0.6931471805599453
Params = dict[str, Foreign]


def mlp(gc: Foreign, workload: Workload, p: Params) -> Foreign:
    """The loss of linear layers with an activation between them."""
    rows, widths = gc.dim("N"), workload.layers
    activations = {"relu": gc.relu, "tanh": gc.tanh, "gelu": lambda z: gc.gelu(z, approximate="tanh")}
    activation = activations[workload.activation]
    x = hidden = gc.input("x", (rows, widths[0]), dtype=workload.dtype)
    last = len(widths) - 2
    for place in range(last + 1):
        z = hidden @ p[f"W{place}"] + p[f"b{place}"]
        hidden = z if place == last else activation(z)
    if workload.loss == "ce":
        return gc.mean(gc.cross_entropy(hidden, gc.input("y", (rows,), dtype="int32")))
    target = x if workload.loss == "mse_self" else gc.input("y", (rows, widths[-1]), dtype=workload.dtype)
    return gc.mean((hidden - target) ** 2)


def custom_loss(gc: Foreign, workload: Workload, p: Params) -> Foreign:
    """Huber and log-cosh of one residual, mixed by a gate that is learnt too."""
    rows = gc.dim("N")
    x = gc.input("x", (rows, workload.sizes["features"]), dtype=workload.dtype)
    target = gc.input("y", (rows,), dtype=workload.dtype)
    z = x @ p["W"] + p["b"]
    residual = z[:, 0] - target
    size = gc.abs(residual)
    huber = gc.where(size <= 1.0, 0.5 * residual * residual, size - 0.5)
    log_cosh = size + gc.log1p(gc.exp(-2.0 * size)) - LOG_2
    gate = gc.sigmoid(z[:, 1])
    return gc.mean(gate * huber + (1.0 - gate) * log_cosh)


def lenet(gc: Foreign, workload: Workload, p: Params) -> Foreign:
    """Convolutions of images in NCHW, each followed by the largest of every 2 x 2."""
    rows = gc.dim("N")
    conv = gc.formula("conv", "out[n,o,i,j] = sum(c,p,q) x[n,c,i+p,j+q] * w[o,c,p,q]")

    def layer(h: Foreign, kernel: Foreign, bias: Foreign) -> Foreign:
        h = gc.relu(conv(h, kernel) + gc.reshape(bias, (-1, 1, 1)))
        _, channels, height, width = h.shape
        return gc.max(gc.reshape(h, (rows, channels, height // 2, 2, width // 2, 2)), axis=(3, 5))

    x, y = gc.input("x", (rows, 1, 28, 28), dtype=workload.dtype), gc.input("y", (rows,), dtype="int32")
    h = layer(gc.pad(x, ((0, 0), (0, 0), (2, 2), (2, 2))), p["K0"], p["c0"])
    h = gc.reshape(layer(h, p["K1"], p["c1"]), (rows, 400))
    h = gc.relu(gc.relu(h @ p["W0"] + p["b0"]) @ p["W1"] + p["b1"])
    return gc.mean(gc.cross_entropy(h @ p["W2"] + p["b2"], y))


def rnn(gc: Foreign, workload: Workload, p: Params) -> Foreign:
    """A tanh recurrence over characters."""
    rows, steps = gc.dim("N"), workload.sizes["steps"]
    x, y = (gc.input(name, (rows, steps), dtype="int32") for name in ("x", "y"))
    inputs = gc.embedding(p["Wxh"], x) + p["bh"]
    states = [gc.tanh(inputs[:, 0])]  # the state before is 0
    for step in range(1, steps):
        states.append(gc.tanh(inputs[:, step] + states[-1] @ p["Whh"]))
    return gc.mean(gc.cross_entropy(gc.stack(states, axis=1) @ p["Why"] + p["by"], y))


def lstm(gc: Foreign, workload: Workload, p: Params) -> Foreign:
    """An LSTM with gates in the order i f g o, from a state of 0."""
    rows, (steps, features, hidden) = gc.dim("N"), (workload.sizes[k] for k in ("steps", "features", "hidden"))
    x, y = gc.input("x", (rows, steps, features), dtype=workload.dtype), gc.input("y", (rows,), dtype="int32")
    inputs = x @ p["Wx"] + p["b"]
    h = c = None
    for step in range(steps):
        z = inputs[:, step] if h is None else inputs[:, step] + h @ p["Wh"]
        i, f, g, o = (z[:, k * hidden : (k + 1) * hidden] for k in range(4))
        new = gc.sigmoid(i) * gc.tanh(g)
        c = new if c is None else gc.sigmoid(f) * c + new
        h = gc.sigmoid(o) * gc.tanh(c)
    return gc.mean(gc.cross_entropy(h @ p["Wo"] + p["bo"], y))


def transformer(gc: Foreign, workload: Workload, p: Params) -> Foreign:
    """Blocks of causal attention and a gelu layer, norms first."""
    blocks, width, heads, steps = (workload.sizes[k] for k in ("blocks", "width", "heads", "steps"))
    rows = gc.dim("N")
    x, y = (gc.input(name, (rows, steps), dtype="int32") for name in ("x", "y"))
    seen = gc.const(np.tril(np.ones((steps, steps), bool)))

    def norm(h: Foreign, gain: Foreign, shift: Foreign) -> Foreign:
        centred = h - gc.mean(h, axis=-1, keepdims=True)
        return centred * gc.rsqrt(gc.mean(centred * centred, axis=-1, keepdims=True) + 1e-5) * gain + shift

    h = gc.embedding(p["wte"], x) + p["wpe"]
    for k in range(blocks):
        z = norm(h, p[f"ln1g{k}"], p[f"ln1b{k}"]) @ p[f"Wqkv{k}"] + p[f"bqkv{k}"]
        z = gc.reshape(z, (rows, steps, 3, heads, width // heads))
        query, key, value = (z[:, :, part] for part in range(3))
        scores = gc.einsum("bqhd,bkhd->bhqk", query, key) * (width // heads) ** -0.5
        weights = gc.softmax(gc.where(seen, scores, -1e30), axis=-1)
        mixed = gc.reshape(gc.einsum("bhqk,bkhd->bqhd", weights, value), (rows, steps, width))
        h = h + mixed @ p[f"Wo{k}"] + p[f"bo{k}"]
        z = norm(h, p[f"ln2g{k}"], p[f"ln2b{k}"]) @ p[f"Wf{k}"] + p[f"bf{k}"]
        h = h + gc.gelu(z, approximate="tanh") @ p[f"Wp{k}"] + p[f"bp{k}"]
    return gc.mean(gc.cross_entropy(norm(h, p["lnfg"], p["lnfb"]) @ p["Wh"], y))


LOSSES = {"mlp": mlp, "custom_loss": custom_loss, "lenet": lenet, "rnn": rnn, "lstm": lstm, "transformer": transformer}
