"""Gradients of every operation against differences of its forward reference, in float64; and the values at kinks."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray
from test_ops import CASES, declared, drawn

import graphc as gc
from graphc.diff.derivatives import grad, jvp
from graphc.dsl.build import build
from graphc.dsl.declare import const
from graphc.dsl.functions import sum
from graphc.dsl.tensor import Tensor
from graphc.ops.record import Record, Sample
from graphc.reference import evaluate

Floats = NDArray[np.float64]
Values = dict[str, Floats]

WITHIN = 1e-6  # of the gradient's own size, for a difference that is exact to about 1e-9
SMOOTH = [case for case in CASES if case.values[1].grad]  # type: ignore[union-attr]
TWICE = [case for case in SMOOTH if case.values[0].smooth]  # type: ignore[union-attr]


@dataclass(frozen=True, slots=True)
class Problem:
    """An operation made scalar by a product with fixed numbers: its loss, floating inputs, and the drawn values."""

    out: Tensor
    weights: Tensor
    loss: Tensor
    inputs: list[Tensor]
    values: Values


def problem(record: Record, sample: Sample) -> Problem:
    rng = np.random.default_rng(zlib.crc32(record.name.encode()))
    arrays = drawn(sample, rng, "float64")
    out = declared(record, sample, arrays)
    shape = tuple(int(str(s)) for s in out.shape)
    weights = const(rng.uniform(0.5, 1.5, shape).astype(np.float32).astype(np.float64))  # a cast of it is itself
    inputs = [t for t in leaves_of(out) if t.dtype.kind == "f"]
    return Problem(out, weights, sum(out * weights), inputs, {f"x{k}": a for k, a in enumerate(arrays)})


def leaves_of(tensor: Tensor) -> list[Tensor]:
    found = build({"y": tensor}).leaves
    return [t for _, t in sorted(found.items()) if isinstance(t, Tensor)]


def runner(outputs: Sequence[Tensor]) -> Callable[[Values], list[Floats]]:
    """The outputs as a function of the inputs' values."""
    built = build({str(k): t for k, t in enumerate(outputs)})
    nodes = [built.node[t] for t in outputs]

    def run(values: Values) -> list[Floats]:
        found = evaluate(built.graph, values, nodes, dtype64=True)
        return [np.asarray(found[n], np.float64) for n in nodes]

    return run


def moved(values: Values, directions: Values, step: float) -> Values:
    return {name: a + step * directions[name] if name in directions else a for name, a in values.items()}


def slope(f: Callable[[Values], list[Floats]], values: Values, direction: Values) -> float:
    """The derivative along a direction: a central difference with an error of the fourth order."""
    h = 1e-3
    at = [float(f(moved(values, direction, k * h))[0]) for k in (-2, -1, 1, 2)]
    return (at[0] - 8 * at[1] + 8 * at[2] - at[3]) / (12 * h)


def bend(f: Callable[[Values], list[Floats]], values: Values, direction: Values) -> float:
    """The second derivative along a direction: a central difference with an error of the sixth order."""
    h = 4e-3
    at = [float(f(moved(values, direction, k * h))[0]) for k in range(-3, 4)]
    weights = (2, -27, 270, -490, 270, -27, 2)
    return math.fsum(w * a for w, a in zip(weights, at, strict=True)) / (180 * h * h)


def units(values: Values, inputs: Sequence[Tensor], rng: np.random.Generator) -> list[Values]:
    """Directions to try: each element of a small operand alone, and three random ones over all operands."""
    found: list[Values] = []
    for tensor in inputs:
        shape = values[tensor.name].shape
        if math.prod(shape) <= 12:
            found += [{tensor.name: np.reshape(row, shape)} for row in np.eye(math.prod(shape))]
    found += [{t.name: rng.uniform(-1, 1, values[t.name].shape) for t in inputs} for _ in range(3)]
    return found


def dot(gradients: Sequence[Floats], inputs: Sequence[Tensor], direction: Values) -> float:
    return math.fsum(
        float(np.sum(g * direction[t.name])) for g, t in zip(gradients, inputs, strict=True) if t.name in direction
    )


@pytest.mark.parametrize(("record", "sample"), SMOOTH)
def test_gradient_is_the_slope(record: Record, sample: Sample, rng: np.random.Generator) -> None:
    p = problem(record, sample)
    assert p.inputs, "a sample with a gradient has a floating operand"
    forward = runner([p.loss])
    gradients = runner(grad(p.loss, p.inputs, unused="zero"))(p.values)
    assert [g.shape for g in gradients] == [p.values[t.name].shape for t in p.inputs]
    scale = max(1.0, *(float(np.max(np.abs(g))) for g in gradients))
    for direction in units(p.values, p.inputs, rng):
        assert dot(gradients, p.inputs, direction) == pytest.approx(
            slope(forward, p.values, direction), rel=WITHIN, abs=WITHIN * scale
        )


@pytest.mark.parametrize(("record", "sample"), SMOOTH)
def test_forward_mode_is_reverse_mode(record: Record, sample: Sample, rng: np.random.Generator) -> None:
    p = problem(record, sample)
    direction = {t.name: rng.integers(-8, 9, p.values[t.name].shape) / 16 for t in p.inputs}
    moves = jvp(p.out, p.inputs, [const(direction[t.name]) for t in p.inputs])[0]
    found = float(runner([sum(moves * p.weights)])(p.values)[0])
    wanted = dot(runner(grad(p.loss, p.inputs, unused="zero"))(p.values), p.inputs, direction)
    assert found == pytest.approx(wanted, rel=1e-11, abs=1e-11)


@pytest.mark.parametrize(("record", "sample"), TWICE)
def test_second_derivative_is_the_bend(record: Record, sample: Sample, rng: np.random.Generator) -> None:
    p = problem(record, sample)
    direction = {t.name: rng.integers(-8, 9, p.values[t.name].shape) / 16 for t in p.inputs}
    along: Tensor | None = None
    for g, t in zip(grad(p.loss, p.inputs, unused="zero"), p.inputs, strict=True):
        part = sum(g * const(direction[t.name]))
        along = part if along is None else along + part
    assert along is not None
    second = runner(grad(along, p.inputs, unused="zero"))(p.values)
    wanted = bend(runner([p.loss]), p.values, direction)
    scale = max(1.0, *(float(np.max(np.abs(s))) for s in second), abs(float(runner([p.loss])(p.values)[0])))
    assert dot(second, p.inputs, direction) == pytest.approx(wanted, rel=WITHIN, abs=WITHIN * scale)


def test_most_operations_have_a_gradient() -> None:
    """So that a sample marked ``grad=False`` by mistake is seen: these alone have none."""
    every = dict.fromkeys(case.values[0].name for case in CASES)  # type: ignore[union-attr]
    with_gradient = dict.fromkeys(case.values[0].name for case in SMOOTH)  # type: ignore[union-attr]
    assert sorted(name for name in every if name not in with_gradient) == WITHOUT


WITHOUT = [
    "all", "any", "argmax", "argmin", "ceil", "equal", "floor", "floor_divide", "greater", "greater_equal", "isfinite",
    "isinf", "isnan", "less", "less_equal", "logical_and", "logical_not", "logical_or", "logical_xor", "not_equal",
    "one_hot", "round", "sign", "stop_gradient", "trunc",
]  # fmt: skip

# The operation, where it is taken, and its gradient there: PyTorch's values (scalar functions are in test_kinks).
KINKS: dict[str, tuple[Callable[[Tensor], Tensor], list[float], list[float]]] = {
    "softsign": (gc.softsign, [0.0], [1]),
    "norm 1": (lambda x: gc.norm(x, ord=1), [0.0, -2.0], [0, -1]),
    "std": (gc.std, [1.0, 1.0, 1.0], [0, 0, 0]),
    "mae": (lambda x: gc.mae(x, gc.const(np.ones(2)), reduction="sum"), [1.0, 3.0], [0, 1]),
    "huber": (lambda x: gc.huber(x, gc.const(np.zeros(4)), reduction="sum"), [0.0, 1.0, -1.0, 2.0], [0, 1, -1, 1]),
    "hinge": (lambda x: gc.hinge(x, gc.const(np.ones(2)), reduction="sum"), [1.0, 0.0], [0, -1]),
    "base at 0": (lambda x: x ** np.array([0.0, 1.0, 2.0]), [0.0, 0.0, 0.0], [0, 1, 0]),
    "exponent at base 0": (lambda x: gc.pow(0.0, x), [2.0, 0.0], [0, 0]),
    "where": (lambda x: gc.where(x > 0, gc.sqrt(gc.where(x > 0, x, 1.0)), 0.0), [0.0, 4.0], [0, 0.25]),
    "remainder": (lambda x: x % 2.0, [2.0, 3.5], [1, 1]),
    "cosine_similarity": (lambda x: gc.cosine_similarity(x, gc.const(np.ones(2))), [0.0, 0.0], [1e8 / 2**0.5] * 2),
}


@pytest.mark.parametrize("name", KINKS)
def test_value_at_a_kink(name: str) -> None:
    function, at, wanted = KINKS[name]
    x = gc.input("x", (len(at),), dtype="float64")
    found = runner([gc.grad(sum(function(x)), x)])({"x": np.array(at)})[0]
    np.testing.assert_allclose(found, np.array(wanted), rtol=1e-12)


# The operation, a point far out, and its gradient there in float32.
SATURATED: dict[str, tuple[Callable[[Tensor], Tensor], list[float], list[float]]] = {
    "elu": (gc.elu, [-1000.0, 1000.0], [0, 1]),
    "selu": (gc.selu, [-1000.0, 1000.0], [0, 1.0507009873554805]),
    "logaddexp": (lambda x: gc.logaddexp(x, 0.0), [-1000.0, 1000.0], [0, 1]),
    "logsumexp": (gc.logsumexp, [1000.0, -1000.0], [1, 0]),
    "softmax": (lambda x: gc.softmax(x)[0], [1000.0, -1000.0], [0, 0]),
    "log_softmax": (lambda x: gc.log_softmax(x)[1], [1000.0, -1000.0], [-1, 1]),
    "cross_entropy": (lambda x: gc.cross_entropy(x, gc.const(1)), [1000.0, -1000.0], [1, -1]),
    "log of 1 + exp": (lambda x: gc.log(1 + gc.exp(x)), [-1000.0, 1000.0], [0, 1]),
    "1 over 1 + exp": (lambda x: 1 / (1 + gc.exp(-x)), [-1000.0, 1000.0], [0, 0]),
}


@pytest.mark.parametrize("name", SATURATED)
def test_value_far_out(name: str) -> None:
    function, at, wanted = SATURATED[name]
    x = gc.input("x", (len(at),))
    value = gc.grad(sum(function(x)), x).eval(x=at)
    assert value.dtype == np.float32
    np.testing.assert_allclose(np.asarray(value, np.float64), np.array(wanted), rtol=1e-6, atol=1e-30)


def test_a_step_is_derived_from_stable_forms() -> None:
    x, w = gc.input("x", (2,)), gc.param("w", (2,), init=gc.init.ones())
    step = gc.compile(gc.sum(gc.log(1 + gc.exp(x * w))), gc.optim.sgd(lr=1.0), cache=False)
    assert step(x=[1000.0, -1000.0]) == 1000
    np.testing.assert_array_equal(step.params["w"], [-999, 1])
