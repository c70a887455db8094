"""Optimizers: three steps of each equal its published formula in NumPy; layers: names, shapes, values, first values."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

import graphc as gc
from graphc.dsl.build import build
from graphc.dsl.optim import Optimizer
from graphc.reference import evaluate

Floats = NDArray[np.float64]
Step = Callable[[Floats, Floats, dict[str, Floats], int], Floats]

RATE = 0.1


def sgd(w: Floats, g: Floats, slots: dict[str, Floats], t: int) -> Floats:
    return w - RATE * g


def decayed(w: Floats, g: Floats, slots: dict[str, Floats], t: int) -> Floats:
    return w - RATE * (g + 0.01 * w)


def momentum(w: Floats, g: Floats, slots: dict[str, Floats], t: int) -> Floats:
    v = slots["v"] = 0.9 * slots.get("v", np.zeros_like(w)) + g
    return w - RATE * v


def nesterov(w: Floats, g: Floats, slots: dict[str, Floats], t: int) -> Floats:
    v = slots["v"] = 0.9 * slots.get("v", np.zeros_like(w)) + g
    return w - RATE * (g + 0.9 * v)


def adagrad(w: Floats, g: Floats, slots: dict[str, Floats], t: int) -> Floats:
    a = slots["a"] = slots.get("a", np.zeros_like(w)) + g**2
    return w - RATE * g / (np.sqrt(a) + 1e-10)


def rmsprop(w: Floats, g: Floats, slots: dict[str, Floats], t: int) -> Floats:
    a = slots["a"] = 0.99 * slots.get("a", np.zeros_like(w)) + 0.01 * g**2
    return w - RATE * g / (np.sqrt(a) + 1e-8)


def adam(w: Floats, g: Floats, slots: dict[str, Floats], t: int) -> Floats:
    m = slots["m"] = 0.9 * slots.get("m", np.zeros_like(w)) + 0.1 * g
    v = slots["v"] = 0.999 * slots.get("v", np.zeros_like(w)) + 0.001 * g**2
    return w - RATE * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)


def adam_decayed(w: Floats, g: Floats, slots: dict[str, Floats], t: int) -> Floats:
    return adam(w, g + 0.05 * w, slots, t)


def adamw(w: Floats, g: Floats, slots: dict[str, Floats], t: int) -> Floats:
    return adam(w, g, slots, t) - RATE * 0.05 * w


def lion(w: Floats, g: Floats, slots: dict[str, Floats], t: int) -> Floats:
    m = slots.get("m", np.zeros_like(w))
    slots["m"] = 0.99 * m + 0.01 * g
    return w - RATE * (np.sign(0.9 * m + 0.1 * g) + 0.05 * w)


OPTIMIZERS: dict[str, tuple[Optimizer, Step]] = {
    "sgd": (gc.optim.sgd(RATE), sgd),
    "sgd with decay": (gc.optim.sgd(RATE, weight_decay=0.01), decayed),
    "sgd with momentum": (gc.optim.sgd(RATE, momentum=0.9), momentum),
    "momentum": (gc.optim.momentum(RATE), momentum),
    "nesterov": (gc.optim.nesterov(RATE), nesterov),
    "adagrad": (gc.optim.adagrad(RATE), adagrad),
    "rmsprop": (gc.optim.rmsprop(RATE), rmsprop),
    "adam": (gc.optim.adam(RATE), adam),
    "adam with decay": (gc.optim.adam(RATE, weight_decay=0.05), adam_decayed),
    "adamw": (gc.optim.adamw(RATE, weight_decay=0.05), adamw),
    "lion": (gc.optim.lion(RATE, weight_decay=0.05), lion),
}

SHAPES = {"a": (3,), "b": (2, 2)}


def updated(optimizer: Optimizer, gradients: list[dict[str, Floats]]) -> dict[str, Floats]:
    """The parameters after a step for each set of gradients, all starting at 1, by the reference in float64."""
    params = [gc.param(name, shape, dtype="float64") for name, shape in SHAPES.items()]
    grads = [gc.input(f"g_{name}", shape, dtype="float64") for name, shape in SHAPES.items()]
    updates = optimizer(params, grads)
    roles = {
        f"{role} {k}": t for k, pair in enumerate(updates.items()) for role, t in zip(("of", "is"), pair, strict=True)
    }
    built = build(roles)
    values = {n: np.zeros(SHAPES[n.split(".")[-1]]) for n, leaf in built.leaves.items() if leaf.kind == "state"}
    values |= {name: np.ones(shape) for name, shape in SHAPES.items()}
    values |= {name: np.array(leaf.leaf.default) for name, leaf in built.leaves.items() if leaf.kind == "hyper"}
    for count, given in enumerate(gradients):
        values |= {f"g_{name}": g for name, g in given.items()}
        found = evaluate(built.graph, values, dtype64=True, step_count=count)
        values |= {target.name: np.asarray(found[built.node[new]], np.float64) for target, new in updates.items()}
    return {name: values[name] for name in SHAPES}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_three_steps(name: str, rng: np.random.Generator) -> None:
    optimizer, step = OPTIMIZERS[name]
    gradients = [{n: rng.uniform(-1, 1, shape) for n, shape in SHAPES.items()} for _ in range(3)]
    found = updated(optimizer, gradients)
    for param, shape in SHAPES.items():
        wanted, slots = np.ones(shape), dict[str, Floats]()
        for t, given in enumerate(gradients, 1):
            wanted = step(wanted, given[param], slots, t)
        np.testing.assert_allclose(found[param], wanted, rtol=1e-13)


@pytest.mark.parametrize("max_norm", [0.5, 100.0])
def test_clipping_by_global_norm(max_norm: float, rng: np.random.Generator) -> None:
    given = {n: rng.uniform(-1, 1, shape) for n, shape in SHAPES.items()}
    norm = math.sqrt(sum(float(np.sum(g**2)) for g in given.values()))
    found = updated(gc.optim.clip_by_global_norm(gc.optim.sgd(RATE), max_norm), [given])
    for name, g in given.items():
        np.testing.assert_allclose(found[name], 1 - RATE * g * min(1, max_norm / norm), rtol=1e-13)


def test_clipping_of_zero_gradients() -> None:
    given = {n: np.zeros(shape) for n, shape in SHAPES.items()}
    found = updated(gc.optim.clip_by_global_norm(gc.optim.sgd(RATE), 1.0), [given])
    np.testing.assert_array_equal(found["a"], 1)


def test_clipping_by_value() -> None:
    given = {"a": np.array([-5.0, 0.1, 5.0]), "b": np.zeros((2, 2))}
    found = updated(gc.optim.clip_by_value(gc.optim.sgd(1.0), 0.5), [given])
    np.testing.assert_allclose(found["a"], [1.5, 0.9, 0.5])


def test_rate_is_a_hyper_parameter_and_may_be_a_schedule() -> None:
    w, g = gc.param("w", (2,)), gc.input("g", (2,))
    plain = gc.optim.sgd(0.25)([w], [g])[w]
    assert [leaf.leaf.default for leaf in build({"w": plain}).leaves.values() if leaf.kind == "hyper"] == [0.25]
    halved = gc.optim.sgd(0.5 / (1 + gc.cast(gc.step_count(), "float32")))([w], [g])[w]
    built = build({"w": halved})
    for count, rate in ((0, 0.5), (3, 0.125)):
        found = evaluate(built.graph, {"w": np.ones(2), "g": np.ones(2)}, step_count=count)
        np.testing.assert_array_equal(found[built.node[halved]], [1 - rate] * 2)
