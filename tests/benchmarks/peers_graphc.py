"""graphc: forward, backward and update in one compiled step; an epoch by ``fit``.

Variants: "cached" keeps graphc's own cache on disk, so that its second run shows what a cache hit costs; without it
each process starts from an empty one.
"""

from __future__ import annotations

import atexit
import shutil
import tempfile

import numpy as np
from numpy.typing import NDArray
from peers import Foreign, Program
from workloads import Optimizer, Workload

LABEL_DTYPE = "int32"
LOG_2 = 0.6931471805599453


def env(threads: int, variant: str, dtype: str) -> dict[str, str]:
    if variant == "cached":
        return {}
    folder = tempfile.mkdtemp(prefix="peers-graphc-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return {"GRAPHC_CACHE_DIR": folder}


def load(threads: int) -> dict[str, str]:
    import graphc

    return {"graphc": graphc.__version__}


def optimizer(gc: Foreign, opt: Optimizer) -> Foreign:
    """The same rule in graphc; the constants of Adam are left at their defaults, which are the workloads'."""
    assert (opt.b1, opt.b2, opt.eps) == (0.9, 0.999, 1e-8)
    if opt.kind == "sgd":
        return gc.optim.sgd(lr=opt.lr, momentum=opt.momentum)
    if opt.kind == "adam":
        return gc.optim.adam(lr=opt.lr)
    return gc.optim.adamw(lr=opt.lr, weight_decay=opt.weight_decay)


def mlp(gc: Foreign, workload: Workload, p: dict[str, Foreign]) -> Foreign:
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


def custom_loss(gc: Foreign, workload: Workload, p: dict[str, Foreign]) -> Foreign:
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


LOSSES = {"mlp": mlp, "custom_loss": custom_loss}


def declared(gc: Foreign, workload: Workload) -> tuple[Foreign, Foreign]:
    """The loss and the optimizer of a workload."""
    params = {name: gc.param(name, value.shape, dtype=workload.dtype) for name, value in workload.initial.items()}
    return LOSSES[workload.kind](gc, workload, params), optimizer(gc, workload.optimizer)


class Graphc:
    """A graphc step, started from the workload's weights."""

    def __init__(self, gc: Foreign, workload: Workload, threads: int) -> None:
        loss, rule = declared(gc, workload)
        self.compiled = gc.compile(loss, optimizer=rule, threads=threads)
        self.batch = workload.batch
        for name, value in workload.initial.items():
            self.compiled.params[name] = value

    def step(self, x: NDArray[np.generic], y: NDArray[np.generic] | None = None) -> float:
        return float(self.compiled(x=x) if y is None else self.compiled(x=x, y=y))

    def epoch(self, x: NDArray[np.generic], y: NDArray[np.generic]) -> NDArray[np.floating]:
        history = self.compiled.fit({"x": x, "y": y}, batch_size=self.batch, epochs=1, shuffle=False, progress=False)
        return np.asarray(history.step_losses)


def build(workload: Workload, threads: int, variant: str) -> Program:
    import graphc

    if workload.kind not in LOSSES:
        raise NotImplementedError(f"no {workload.kind} in this peer yet")
    return Graphc(graphc, workload, threads)
