"""Plain C made for one workload, called through the buffer protocol: a reference point, not something to pick.

All sizes are constants, forward, backward and update are one function, gcc -O3 -march=native -ffast-math. No BLAS, no
intrinsics, one core; small workloads only. It says how little a step needs when it is one native call.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sysconfig
import tempfile
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from peers import Program
from workloads import Optimizer, Workload

LABEL_DTYPE = "int32"
HEADERS = Path(__file__).with_name("c_hand")
FLAGS = ("-O3", "-march=native", "-mprefer-vector-width=512", "-ffast-math", "-shared", "-fPIC")
ACTIVATIONS = {"relu": "{h}[i] > 0 ? {h}[i] : 0", "tanh": "tanhf({h}[i])"}
DERIVATIVES = {"relu": "{h}[i] > 0 ? {d}[i] : 0", "tanh": "{d}[i] * (1 - {h}[i] * {h}[i])"}


def env(threads: int, variant: str, dtype: str) -> dict[str, str]:
    return {}


def load(threads: int) -> dict[str, str]:
    return {"gcc": subprocess.check_output(["gcc", "-dumpfullversion"], text=True).strip()}


def update(opt: Optimizer, n: int) -> str:
    """The C statement that updates all n parameters."""
    if opt.kind == "sgd":
        return f"sgd(P, G, M, {n}, {opt.lr}f, {opt.momentum}f);"
    rate, scale = f"{opt.lr}f / (1 - powf({opt.b1}f, T))", f"1 / sqrtf(1 - powf({opt.b2}f, T))"
    return f"T += 1; adam(P, G, M, V, {n}, {rate}, {scale}, {opt.b1}f, {opt.b2}f, {opt.eps}f);"


def mlp_step(workload: Workload) -> str:
    """The C function of a whole step, layer by layer."""
    widths, batch, n = workload.layers, workload.batch, len(workload.layers) - 1
    starts = np.cumsum([0, *(value.size for value in workload.initial.values())]).tolist()
    largest = max(a * b for a, b in pairwise(widths))
    head = [f"static float Wt[{largest}] ALIGNED;", "static void refresh(void) {}"]
    buffers = [(i, batch * widths[i + 1]) for i in range(n)]
    head += [f"static float h{i}[{size}] ALIGNED, d{i}[{size}] ALIGNED;" for i, size in buffers]
    body = []
    for i in range(n):
        source, size = f"h{i - 1}" if i else "x", f"{batch}, {widths[i]}, {widths[i + 1]}"
        body.append(f"forward({source}, P + {starts[2 * i]}, P + {starts[2 * i + 1]}, h{i}, {size});")
        if i < n - 1:
            value = ACTIVATIONS[workload.activation].format(h=f"h{i}")
            body.append(f"for (int i = 0; i < {batch * widths[i + 1]}; i++) h{i}[i] = {value};")
    d = f"h{n - 1}"
    if workload.loss == "ce":
        body.append(f"float loss = cross_entropy({d}, y, {batch}, {widths[-1]});")
    else:
        body.append(f"float loss = squared_error({d}, y, {batch * widths[-1]});")
    for i in range(n - 1, -1, -1):
        source, size = f"h{i - 1}" if i else "x", f"{batch}, {widths[i]}, {widths[i + 1]}"
        body.append(f"weight_gradient({source}, {d}, G + {starts[2 * i]}, G + {starts[2 * i + 1]}, {size});")
        if i:
            body.append(f"input_gradient(P + {starts[2 * i]}, {d}, d{i - 1}, Wt, {size});")
            d = f"d{i - 1}"
            value = DERIVATIVES[workload.activation].format(h=f"h{i - 1}", d=d)
            body.append(f"for (int i = 0; i < {batch * widths[i]}; i++) {d}[i] = {value};")
    lines = "\n  ".join([*body, "UPDATE", "return loss;"])
    return "\n".join(head) + f"\nstatic float step(in x, const Y_TYPE *restrict y) {{\n  {lines}\n}}\n"


def source(workload: Workload) -> str:
    """The whole C file of a workload."""
    n = workload.n_parameters
    x, *targets = workload.batches[0]
    parts = [f"#define BATCH {workload.batch}", f"#define N_INPUTS {x.size // workload.batch}"]
    parts.append(f"#define N_TARGETS {targets[0].size // workload.batch}")
    parts.append(f"#define Y_TYPE {'int' if workload.labels else 'float'}")
    parts.append(f"#define UPDATE {update(workload.optimizer, n)}")
    parts.append('#include "layers.h"')
    parts.append(f"static float P[{n}] ALIGNED, G[{n}] ALIGNED, M[{n}] ALIGNED, V[{n}] ALIGNED, T;")
    parts.append('#include "custom_loss.h"' if workload.kind == "custom_loss" else mlp_step(workload))
    return "\n".join([*parts, '#include "module.h"', ""])


class Compiled:
    """The extension module of one workload."""

    def __init__(self, workload: Workload) -> None:
        with tempfile.TemporaryDirectory(prefix="peers-c-") as folder:
            file, library = Path(folder, "step.c"), Path(folder, "c_hand_step.so")
            file.write_text(source(workload), encoding="utf-8")
            include = [f"-I{HEADERS}", f"-I{sysconfig.get_paths()['include']}"]
            subprocess.check_call(["gcc", *FLAGS, *include, str(file), "-o", str(library), "-lmvec", "-lm"])
            spec = importlib.util.spec_from_file_location("c_hand_step", library)
            assert spec is not None and spec.loader is not None
            self.module, self.batch = importlib.util.module_from_spec(spec), workload.batch
            spec.loader.exec_module(self.module)
        self.module.init(np.concatenate([value.ravel() for value in workload.initial.values()]))
        self.step = self.module.step

    def epoch(self, x: NDArray[np.generic], y: NDArray[np.generic]) -> NDArray[np.floating]:
        losses = np.empty(len(x) // self.batch, np.float32)
        self.module.epoch(x, y, losses)
        return losses


def build(workload: Workload, threads: int, variant: str) -> Program:
    if threads > 1:
        raise NotImplementedError("one core only")
    name, _, change = workload.name.partition("+")
    if name not in ("logreg", "mlp_tiny", "mlp_digits", "mlp_mnist", "custom_loss", "mlp_tiny_epoch") or change:
        raise NotImplementedError("small workloads only, as they are")
    return Compiled(workload)
