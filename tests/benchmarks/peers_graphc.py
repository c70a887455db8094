"""graphc: forward, backward and update in one compiled step; an epoch by ``fit``.

Variants: "cached" keeps graphc's own cache on disk, so that its second run shows what a cache hit costs; without it
each process starts from an empty one.
"""

from __future__ import annotations

import atexit
import shutil
import tempfile

import numpy as np
from graphc_models import LOSSES
from numpy.typing import NDArray
from peers import Foreign, Program
from workloads import Optimizer, Workload

LABEL_DTYPE = "int32"


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


def declared(gc: Foreign, workload: Workload) -> tuple[Foreign, Foreign]:
    """The loss and the optimizer of a workload."""
    params = {name: gc.param(name, value.shape, dtype=workload.dtype) for name, value in workload.initial.items()}
    return LOSSES[workload.kind](gc, workload, params), optimizer(gc, workload.optimizer)


class Graphc:
    """A graphc step, started from the workload's weights."""

    def __init__(self, gc: Foreign, workload: Workload, threads: int) -> None:
        loss, rule = declared(gc, workload)
        compiled = self.compiled = gc.compile(loss, optimizer=rule, threads=threads)
        supervised = len(workload.batches[0]) > 1
        self.step = (lambda x, y: compiled(x=x, y=y)) if supervised else (lambda x: compiled(x=x))
        self.batch = workload.batch
        for name, value in workload.initial.items():
            self.compiled.params[name] = value

    def epoch(self, x: NDArray[np.generic], y: NDArray[np.generic]) -> NDArray[np.floating]:
        history = self.compiled.fit({"x": x, "y": y}, batch_size=self.batch, epochs=1, shuffle=False, progress=False)
        return np.asarray(history.step_losses)


def build(workload: Workload, threads: int, variant: str) -> Program:
    import graphc

    return Graphc(graphc, workload, threads)
