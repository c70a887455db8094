"""PyTensor: one compiled function with shared variables and updates.

Variants: without one, the numba backend, PyTensor 3's default; "c" the C backend, which needs g++.
"""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from peers import Foreign, Program
from workloads import Optimizer, Workload

LABEL_DTYPE = "int32"
Loss = Callable[..., Foreign]


def env(threads: int, variant: str, dtype: str) -> dict[str, str]:
    folder = tempfile.mkdtemp(prefix="peers-pytensor-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    linker = "cvm" if variant == "c" else "numba"
    flags = f"floatX={dtype},base_compiledir={folder},linker={linker}"
    return {"PYTENSOR_FLAGS": flags, "NUMBA_NUM_THREADS": str(threads)}


def load(threads: int) -> dict[str, str]:
    import pytensor
    import pytensor.tensor

    return {"pytensor": pytensor.__version__}


def cross_entropy(logits: Foreign, labels: Foreign) -> Foreign:
    """The mean negative log-likelihood of the softmax."""
    import pytensor.tensor as pt

    log_p = logits - pt.logsumexp(logits, axis=1, keepdims=True)
    return -log_p[pt.arange(labels.shape[0]), labels].mean(dtype=logits.dtype)


def mlp(workload: Workload) -> Loss:
    import pytensor.tensor as pt

    activations: dict[str, Loss] = {
        "relu": lambda z: pt.maximum(z, 0),
        "tanh": pt.tanh,
        "gelu": lambda z: 0.5 * z * (1 + pt.tanh(0.7978845608028654 * (z + 0.044715 * z * z * z))),
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
        return ((h - (x if y is None else y)) ** 2).mean(dtype=workload.dtype)

    return loss


def custom_loss(workload: Workload) -> Loss:
    import pytensor.tensor as pt

    def loss(params: list[Foreign], x: Foreign, target: Foreign) -> Foreign:
        z = x @ params[0] + params[1]
        r = z[:, 0] - target
        a = abs(r)
        huber = pt.switch(a <= 1.0, 0.5 * r * r, a - 0.5)
        log_cosh = a + pt.log1p(pt.exp(-2.0 * a)) - 0.6931471805599453
        gate = pt.sigmoid(z[:, 1])
        return (gate * huber + (1 - gate) * log_cosh).mean(dtype=workload.dtype)

    return loss


def rnn(workload: Workload) -> Loss:
    import pytensor
    import pytensor.tensor as pt

    batch, hidden = workload.batch, workload.sizes["hidden"]

    def loss(params: list[Foreign], x: Foreign, y: Foreign) -> Foreign:
        wxh, whh, bh, why, by = params
        states = pytensor.scan(
            lambda u, h, w: pt.tanh(u + h @ w),
            sequences=[wxh[x.T] + bh],
            outputs_info=[pt.zeros((batch, hidden), dtype=workload.dtype)],
            non_sequences=[whh],
            strict=True,
            return_updates=False,
        )
        return cross_entropy(states.reshape((-1, hidden)) @ why + by, y.T.reshape((-1,)))

    return loss


LOSSES = {"mlp": mlp, "custom_loss": custom_loss, "rnn": rnn}


def updates(opt: Optimizer, params: list[Foreign], grads: list[Foreign]) -> list[tuple[Foreign, Foreign]]:
    """Each shared variable with its new value."""
    import pytensor
    import pytensor.tensor as pt

    def constant(value: float) -> Foreign:
        return np.asarray(value, pytensor.config.floatX)

    def slot(p: Foreign) -> Foreign:
        return pytensor.shared(np.zeros_like(p.get_value()), shape=p.type.shape)

    found: list[tuple[Foreign, Foreign]] = []
    if opt.kind == "sgd":
        for p, g in zip(params, grads, strict=True):
            if opt.momentum:
                v = slot(p)
                g = constant(opt.momentum) * v + g
                found.append((v, g))
            found.append((p, p - constant(opt.lr) * g))
        return found
    t = pytensor.shared(constant(0.0), shape=())
    found.append((t, t + constant(1)))
    rate = constant(opt.lr) / (1 - constant(opt.b1) ** (t + constant(1)))
    scale = 1 / pt.sqrt(1 - constant(opt.b2) ** (t + constant(1)))
    for p, g in zip(params, grads, strict=True):
        m, v = slot(p), slot(p)
        m_new = constant(opt.b1) * m + constant(1 - opt.b1) * g
        v_new = constant(opt.b2) * v + constant(1 - opt.b2) * g * g
        kept = p * constant(1 - opt.lr * opt.weight_decay) if opt.kind == "adamw" else p
        found += [(m, m_new), (v, v_new), (p, kept - rate * m_new / (pt.sqrt(v_new) * scale + constant(opt.eps)))]
    return found


class PyTensor:
    """The compiled function."""

    def __init__(self, workload: Workload) -> None:
        import pytensor
        import pytensor.tensor as pt

        params = [pytensor.shared(v, shape=v.shape, name=name) for name, v in workload.parameters().items()]
        inputs = [pt.tensor(f"in{i}", dtype=a.dtype.name, shape=a.shape) for i, a in enumerate(workload.batches[0])]
        loss = LOSSES[workload.kind](workload)(params, *inputs)
        new = updates(workload.optimizer, params, pt.grad(loss, params))
        function, self.batch = pytensor.function(inputs, loss, updates=new, trust_input=True), workload.batch
        self.step: Callable[..., float] = lambda *batch: float(function(*batch))

    def epoch(self, x: NDArray[np.generic], y: NDArray[np.generic]) -> NDArray[np.floating]:
        starts = range(0, len(x), self.batch)
        return np.array([self.step(x[at : at + self.batch], y[at : at + self.batch]) for at in starts])


def build(workload: Workload, threads: int, variant: str) -> Program:
    if workload.kind not in LOSSES:
        raise NotImplementedError("not written for PyTensor")
    return PyTensor(workload)
