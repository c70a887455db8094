"""Optimizers, as ``gc.optim``: each is a function from parameters and gradients to update expressions.

An optimizer takes a list of parameters and a list of their gradients and gives ``{parameter or state: new value}``,
written in the DSL itself; one of your own is a few lines. ``lr`` is a run-time hyper-parameter; a number, or an
expression such as a schedule over ``gc.step_count()``, may be given for it. An integer with Python's floats is float32:
for float64 parameters a schedule is one over ``gc.cast(gc.step_count(), "float64")``. Formulas and defaults are
PyTorch's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np

from graphc.dsl.declare import hyper, state, step_count
from graphc.dsl.functions import cast, expm1, maximum, minimum, sign, sqrt, sum
from graphc.dsl.tensor import Tensor, fail
from graphc.errors import DefinitionError, DTypeError
from graphc.ops.record import text

Updates = Mapping[Tensor, Tensor]
Optimizer = Callable[[list[Tensor], list[Tensor]], Updates]
Rate = float | Tensor


def sgd(lr: Rate = 0.01, momentum: float = 0.0, nesterov: bool = False, weight_decay: float = 0.0) -> Optimizer:
    """Stochastic gradient descent: ``v = momentum * v + g``, ``w -= lr * v``; with ``nesterov``, ``w -= lr * (g +
    momentum * v)``.

    weight_decay: adds ``weight_decay * w`` to the gradient. Source: Sutskever et al. 2013, equations 1 to 4.

    Raises: DefinitionError for nesterov without momentum, or a number out of range.
    """
    _check_rate("sgd", lr)
    _range("sgd", "momentum", momentum, 0.0, 1.0)
    _range("sgd", "weight_decay", weight_decay, 0.0, math.inf)
    if nesterov and not momentum:
        fail(DefinitionError("optim.sgd: nesterov=True without momentum given; needs momentum > 0"))

    def updates(params: list[Tensor], grads: list[Tensor]) -> Updates:
        rate = _rate(lr, params)
        result: dict[Tensor, Tensor] = {}
        for w, g in zip(params, grads, strict=True):
            if weight_decay:
                g = g + weight_decay * w
            if momentum:
                v = _slot("sgd", "v", w)
                result[v] = momentum * v + g
                g = g + momentum * result[v] if nesterov else result[v]
            result[w] = w - rate * g
        return result

    return updates


def momentum(lr: Rate = 0.01, momentum: float = 0.9, weight_decay: float = 0.0) -> Optimizer:
    """``sgd`` with momentum (Polyak 1964)."""
    return sgd(lr, momentum, False, weight_decay)


def nesterov(lr: Rate = 0.01, momentum: float = 0.9, weight_decay: float = 0.0) -> Optimizer:
    """``sgd`` with Nesterov's momentum."""
    return sgd(lr, momentum, True, weight_decay)


def adagrad(lr: Rate = 0.01, eps: float = 1e-10) -> Optimizer:
    """``a += g²``, ``w -= lr * g / (sqrt(a) + eps)``. Source: Duchi, Hazan and Singer 2011, figure 1."""
    _check_rate("adagrad", lr)

    def updates(params: list[Tensor], grads: list[Tensor]) -> Updates:
        rate = _rate(lr, params)
        result: dict[Tensor, Tensor] = {}
        for w, g in zip(params, grads, strict=True):
            a = _slot("adagrad", "a", w)
            result[a] = a + g * g
            result[w] = w - rate * g / (sqrt(result[a]) + eps)
        return result

    return updates


def rmsprop(lr: Rate = 0.01, alpha: float = 0.99, eps: float = 1e-8) -> Optimizer:
    """``a = alpha a + (1 - alpha) g²``, ``w -= lr * g / (sqrt(a) + eps)``. Source: Tieleman and Hinton 2012, lecture
    6.5.
    """
    _check_rate("rmsprop", lr)
    _range("rmsprop", "alpha", alpha, 0.0, 1.0)

    def updates(params: list[Tensor], grads: list[Tensor]) -> Updates:
        rate = _rate(lr, params)
        result: dict[Tensor, Tensor] = {}
        for w, g in zip(params, grads, strict=True):
            a = _slot("rmsprop", "a", w)
            result[a] = alpha * a + (1 - alpha) * (g * g)
            result[w] = w - rate * g / (sqrt(result[a]) + eps)
        return result

    return updates


def adam(
    lr: Rate = 1e-3, beta1: float = 0.9, beta2: float = 0.999, eps: float = 1e-8, weight_decay: float = 0.0
) -> Optimizer:
    """Adam: moving means of gradient and square, corrected for their start at 0. Source: Kingma and Ba 2015, algorithm
    1.

    weight_decay: adds ``weight_decay * w`` to the gradient; ``adamw`` keeps it apart.
    """
    _check_rate("adam", lr)
    return _adam("adam", lr, beta1, beta2, eps, weight_decay, False)


def adamw(
    lr: Rate = 1e-3, beta1: float = 0.9, beta2: float = 0.999, eps: float = 1e-8, weight_decay: float = 0.01
) -> Optimizer:
    """Adam with ``w *= 1 - lr * weight_decay`` first. Source: Loshchilov and Hutter 2019, algorithm 2."""
    _check_rate("adamw", lr)
    return _adam("adamw", lr, beta1, beta2, eps, weight_decay, True)


def _adam(name: str, lr: Rate, beta1: float, beta2: float, eps: float, decay: float, decoupled: bool) -> Optimizer:
    _range(name, "beta1", beta1, 0.0, 1.0)
    _range(name, "beta2", beta2, 0.0, 1.0)
    _range(name, "weight_decay", decay, 0.0, math.inf)

    def updates(params: list[Tensor], grads: list[Tensor]) -> Updates:
        rate, t = _rate(lr, params), cast(step_count() + 1, _exactness(params))
        # 1 - beta^t by expm1, since beta^t rounds to 1 and the difference loses its digits.
        first, second = (-expm1(math.log(beta) * t) if beta else 1.0 for beta in (beta1, beta2))
        root = sqrt(second)  # by which both sides of the quotient are multiplied: no division of v (section 2)
        result: dict[Tensor, Tensor] = {}
        for w, g in zip(params, grads, strict=True):
            m, v = _slot(name, "m", w), _slot(name, "v", w)
            if decay and not decoupled:
                g = g + decay * w
            result[m] = beta1 * m + (1 - beta1) * g
            result[v] = beta2 * v + (1 - beta2) * (g * g)
            kept = w * (1 - rate * decay) if decay and decoupled else w
            result[w] = kept - rate * root / first * result[m] / (sqrt(result[v]) + eps * root)
        return result

    return updates


def lion(lr: Rate = 1e-4, beta1: float = 0.9, beta2: float = 0.99, weight_decay: float = 0.0) -> Optimizer:
    """``w -= lr * (sign(beta1 m + (1 - beta1) g) + weight_decay * w)``. Source: Chen et al. 2023, program 1."""
    _check_rate("lion", lr)
    _range("lion", "beta1", beta1, 0.0, 1.0)
    _range("lion", "beta2", beta2, 0.0, 1.0)

    def updates(params: list[Tensor], grads: list[Tensor]) -> Updates:
        rate = _rate(lr, params)
        result: dict[Tensor, Tensor] = {}
        for w, g in zip(params, grads, strict=True):
            m = _slot("lion", "m", w)
            result[w] = w - rate * (sign(beta1 * m + (1 - beta1) * g) + weight_decay * w)
            result[m] = beta2 * m + (1 - beta2) * g
        return result

    return updates


def clip_by_global_norm(optimizer: Optimizer, max_norm: float) -> Optimizer:
    """``optimizer`` on gradients scaled down together where their joint norm exceeds ``max_norm``.

    Source: Pascanu, Mikolov and Bengio 2013, algorithm 1. Raises DefinitionError unless max_norm > 0.
    """
    if not _is_number(max_norm) or not max_norm > 0:
        fail(DefinitionError(f"optim.clip_by_global_norm: max_norm {max_norm} given; needs a number above 0"))

    def updates(params: list[Tensor], grads: list[Tensor]) -> Updates:
        total = sum(grads[0] * grads[0])
        for g in grads[1:]:
            total = total + sum(g * g)
        scale = max_norm / maximum(sqrt(total), max_norm)
        return optimizer(params, [g * scale for g in grads])

    return updates


def clip_by_value(optimizer: Optimizer, limit: float) -> Optimizer:
    """``optimizer`` on gradients with every element cut to ``-limit .. limit``. Raises DefinitionError unless limit >
    0.
    """
    if not _is_number(limit) or not limit > 0:
        fail(DefinitionError(f"optim.clip_by_value: limit {limit} given; needs a number above 0"))
    return lambda params, grads: optimizer(params, [minimum(maximum(g, -limit), limit) for g in grads])


def _check_rate(optimizer: str, lr: object) -> None:
    if not _is_number(lr) and not (isinstance(lr, Tensor) and lr.shape == () and lr.dtype.kind == "f"):
        given = f"{lr.dtype}{text(lr.shape)}" if isinstance(lr, Tensor) else type(lr).__name__
        fail(DTypeError(f"optim.{optimizer}: lr of type {given} given; needs a number or a floating scalar"))


def _rate(lr: Rate, params: list[Tensor]) -> Tensor:
    """The rate; a number becomes a run-time one, as exact as the parameters all are."""
    if isinstance(lr, Tensor):
        return lr
    return hyper("lr", lr, _exactness(params))


def _exactness(params: list[Tensor]) -> str:
    """The element type of numbers that go into the updates of all parameters."""
    return "float64" if all(w.dtype.name == "float64" for w in params) else "float32"


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)


def _slot(optimizer: str, name: str, w: Tensor) -> Tensor:
    return state(f"{optimizer}.{name}.{w.name}", w.shape, dtype=w.dtype)


def _range(optimizer: str, name: str, value: float, low: float, high: float) -> None:
    if not _is_number(value):
        fail(DTypeError(f"optim.{optimizer}: {name} of type {type(value).__name__} given; needs a number"))
    if not low <= value <= high:
        fail(DefinitionError(f"optim.{optimizer}: {name} {value} given; needs {low} <= {name} <= {high}"))
