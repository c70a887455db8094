"""Hand-written NumPy: what one writes without a framework. Buffers are made once; the optimizer sees one flat array."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from peers import Program
from workloads import Floats, Workload

LABEL_DTYPE = "int32"
GELU_SCALE, GELU_CUBE = 0.7978845608028654, 0.044715  # sqrt(2/pi), and the factor of z³ in gelu's tanh form


def env(threads: int, variant: str, dtype: str) -> dict[str, str]:
    return {}


def load(threads: int) -> dict[str, str]:
    return {"numpy": np.__version__}


class Flat:
    """Parameters and gradients as views of two flat arrays, and the update of them."""

    def __init__(self, workload: Workload) -> None:
        self.opt, n = workload.optimizer, workload.n_parameters
        self.p, self.g, self.m, self.v, self.one, self.two = (np.zeros(n, workload.dtype) for _ in range(6))
        self.t, at = 0, 0
        self.params: list[Floats] = []
        self.grads: list[Floats] = []
        for value in workload.initial.values():
            here, at = slice(at, at + value.size), at + value.size
            self.p[here] = value.ravel()
            self.params.append(self.p[here].reshape(value.shape))
            self.grads.append(self.g[here].reshape(value.shape))

    def update(self) -> None:
        opt, p, g = self.opt, self.p, self.g
        if opt.kind == "sgd":
            if opt.momentum:
                self.m *= opt.momentum
                self.m += g
                g = self.m
            p -= np.multiply(g, opt.lr, out=self.one)
            return
        self.t += 1
        if opt.kind == "adamw":
            p *= 1 - opt.lr * opt.weight_decay
        self.m *= opt.b1
        self.m += np.multiply(g, 1 - opt.b1, out=self.one)
        self.v *= opt.b2
        np.multiply(g, g, out=self.one)
        self.one *= 1 - opt.b2
        self.v += self.one
        denominator = np.sqrt(self.v, out=self.one)
        denominator *= 1 / np.sqrt(1 - opt.b2**self.t)
        denominator += opt.eps
        np.divide(self.m, denominator, out=self.two)
        self.two *= opt.lr / (1 - opt.b1**self.t)
        p -= self.two


class MLP:
    """Linear layers, forward and backward by hand."""

    def __init__(self, workload: Workload) -> None:
        self.flat, self.batch = Flat(workload), workload.batch
        self.activation, self.loss, self.n = workload.activation, workload.loss, len(workload.layers) - 1

        def buffers() -> list[Floats]:
            return [np.zeros((workload.batch, n_out), workload.dtype) for _, n_out in pairwise(workload.layers)]

        self.z, self.h, self.d, self.kept = buffers(), buffers(), buffers(), buffers()
        self.rows = np.arange(workload.batch)

    def epoch(self, x: Floats, y: Floats) -> NDArray[np.floating]:
        starts = range(0, len(x), self.batch)
        return np.array([self.step(x[at : at + self.batch], y[at : at + self.batch]) for at in starts])

    def step(self, x: Floats, y: Floats | None = None) -> float:
        params, grads = self.flat.params, self.flat.grads
        inputs = [x]
        for i in range(self.n):
            z = np.dot(inputs[i], params[2 * i], out=self.z[i])
            z += params[2 * i + 1]
            if i < self.n - 1:
                inputs.append(self.activate(i, z))
        loss, d = self.loss_and_cotangent(z, x if y is None else y)
        for i in range(self.n - 1, -1, -1):
            np.dot(inputs[i].T, d, out=grads[2 * i])
            d.sum(axis=0, out=grads[2 * i + 1])
            if i:
                d = self.through_activation(i - 1, np.dot(d, params[2 * i].T, out=self.d[i - 1]))
        self.flat.update()
        return loss

    def loss_and_cotangent(self, z: Floats, target: Floats) -> tuple[float, Floats]:
        d = self.d[-1]
        if self.loss != "ce":
            error = np.subtract(z, target, out=d).ravel()
            loss = float(np.dot(error, error)) / error.size
            d *= 2 / error.size
            return loss, d
        z -= z.max(axis=1, keepdims=True)
        picked = z[self.rows, target]
        total = np.exp(z, out=d).sum(axis=1, keepdims=True)
        loss = float((np.log(total[:, 0]) - picked).mean())
        d /= total
        d[self.rows, target] -= 1
        d *= 1 / self.batch
        return loss, d

    def activate(self, i: int, z: Floats) -> Floats:
        h = self.h[i]
        if self.activation == "relu":
            return np.maximum(z, 0, out=h)
        if self.activation == "tanh":
            return np.tanh(z, out=h)
        t = np.multiply(z, z, out=self.kept[i])  # gelu: t = tanh(scale (z + cube z³)) is kept for the way back
        t *= GELU_CUBE
        t += 1
        t *= z
        t *= GELU_SCALE
        np.tanh(t, out=t)
        np.add(t, 1, out=h)
        h *= z
        h *= 0.5
        return h

    def through_activation(self, i: int, d: Floats) -> Floats:
        if self.activation == "relu":
            d *= self.z[i] > 0
            return d
        if self.activation == "tanh":
            d *= np.subtract(1, np.multiply(self.h[i], self.h[i], out=self.kept[i]), out=self.kept[i])
            return d
        z, t = self.z[i], self.kept[i]
        w = np.multiply(z, z, out=self.h[i])  # (1 + t + z (1 - t²) scale (1 + 3 cube z²)) / 2
        w *= 3 * GELU_CUBE * GELU_SCALE
        w += GELU_SCALE
        w *= z
        w *= 1 - t * t
        w += t
        w += 1
        w *= 0.5
        d *= w
        return d


class Custom:
    """The custom loss, forward and backward by hand."""

    def __init__(self, workload: Workload) -> None:
        self.flat, self.batch = Flat(workload), workload.batch
        self.d = np.zeros((workload.batch, 2), workload.dtype)

    def step(self, x: Floats, target: Floats) -> float:
        (weight, bias), (g_weight, g_bias), d = self.flat.params, self.flat.grads, self.d
        z = x @ weight
        z += bias
        r = z[:, 0] - target
        a = np.abs(r)
        small = a <= 1
        e = np.exp(-2 * a)
        log_cosh = a + np.log1p(e) - float(np.log(2))
        gate = 1 / (1 + np.exp(-z[:, 1]))
        difference = np.where(small, 0.5 * r * r, a - 0.5) - log_cosh
        loss = float((gate * difference + log_cosh).mean())
        sign = np.sign(r)
        d_log_cosh = sign * (1 - e) / (1 + e)
        d[:, 0] = gate * (np.where(small, r, sign) - d_log_cosh) + d_log_cosh
        d[:, 1] = difference * gate * (1 - gate)
        d *= 1 / self.batch
        np.dot(x.T, d, out=g_weight)
        d.sum(axis=0, out=g_bias)
        self.flat.update()
        return loss


def build(workload: Workload, threads: int, variant: str) -> Program:
    if workload.kind == "mlp":
        return MLP(workload)
    if workload.kind == "custom_loss":
        return Custom(workload)
    raise NotImplementedError("nobody wrote its backward pass by hand")
