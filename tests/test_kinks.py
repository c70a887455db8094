"""Values and derivatives at ties, kinks and saturation: PyTorch's, and no NaN where a stable form exists."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import ArrayLike

import graphc as gc
from graphc.dsl.tensor import Tensor

INF, NAN = float("inf"), float("nan")
Function = Callable[[Tensor], Tensor]

# The function, points, and its derivative there, as PyTorch 2 gives it.
UNARY: dict[str, tuple[Function, list[float], list[float]]] = {
    "relu": (gc.relu, [-1, -0.0, 0, 1, NAN], [0, 0, 0, 1, 1]),
    "leaky_relu": (gc.leaky_relu, [-1, 0, 1], [0.01, 0.01, 1]),
    "elu": (gc.elu, [-200, 0, 200], [0, 1, 1]),
    "elu_alpha": (lambda x: gc.elu(x, 0.5), [0, 1000], [0.5, 1]),
    "selu": (gc.selu, [0, 1000], [1.7580993, 1.0507010]),
    "hardtanh": (gc.hardtanh, [-1, 0, 1, 2], [0, 1, 0, 0]),
    "clip": (lambda x: gc.clip(x, -1, 1), [-2, -1, 0, 1, 2], [0, 1, 1, 1, 0]),
    "clip_low": (lambda x: gc.clip(x, low=0), [-1, 0, 1], [0, 1, 1]),
    "clip_high": (lambda x: gc.clip(x, high=0), [-1, 0, 1], [1, 1, 0]),
    "abs": (gc.abs, [-2, 0, 2], [-1, 0, 1]),
    "sqrt": (gc.sqrt, [0, 4], [INF, 0.25]),
    "maximum": (lambda x: gc.maximum(x, 0.0), [-1, 0, 1], [0, 0.5, 1]),
    "minimum": (lambda x: gc.minimum(x, 0.0), [-1, 0, 1], [1, 0.5, 0]),
    "sigmoid": (gc.sigmoid, [-200, 0, 200], [0, 0.25, 0]),
    "softplus": (gc.softplus, [-200, 0, 200], [0, 0.5, 1]),
    "silu": (gc.silu, [-200, 0, 200], [0, 0.5, 1]),
    "gelu": (gc.gelu, [-200, 0, 200], [0, 0.5, 1]),
    "gelu_tanh": (lambda x: gc.gelu(x, "tanh"), [-20, 0, 20], [0, 0.5, 1]),
    "tanh": (gc.tanh, [-200, 0, 200], [0, 1, 0]),
    "cube": (lambda x: x**3, [-2, 0, 2], [12, 0, 12]),
    "power_zero": (lambda x: x * x + x**0, [0, 2], [0, 4]),
    "power_of_base_zero": (lambda x: gc.pow(x, gc.const(2.0)), [0, 3], [0, 6]),
    "floor": (lambda x: x * x + gc.floor(x), [0.5], [1]),
    "sign": (lambda x: x * x + gc.sign(x), [0, 1], [0, 2]),
}


@pytest.mark.parametrize("name", UNARY)
def test_derivative_at_kinks(name: str) -> None:
    function, points, wanted = UNARY[name]
    x = gc.input("x", (len(points),))
    found = gc.grad(gc.sum(function(x)), x).eval(x=points)
    np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-30)


def test_relu_passes_nan() -> None:
    x = gc.input("x", (2,))
    np.testing.assert_array_equal(gc.relu(x).eval(x=[NAN, -INF]), [NAN, 0])


def test_power_by_its_exponent_at_base_zero() -> None:
    x, p = gc.input("x", (3,)), gc.input("p", (3,))
    found = gc.grad(gc.sum(x**p), p).eval(x=[0, 0, 2], p=[1, 0, 3])
    np.testing.assert_allclose(found, [0.0, 0.0, 8 * float(np.log(2))], rtol=1e-6)


@pytest.mark.parametrize("reduction", [gc.max, gc.min])
def test_ties_share_the_gradient(reduction: Callable[..., Tensor]) -> None:
    x = gc.input("x", (2, 4))
    points = [[1, 1, 1, 1], [2, 2, 5, 5] if reduction is gc.max else [5, 5, 7, 7]]
    found = gc.grad(gc.sum(reduction(x, axis=1)), x).eval(x=points)
    np.testing.assert_array_equal(found[0], [0.25] * 4)
    np.testing.assert_array_equal(found[1], [0, 0, 0.5, 0.5] if reduction is gc.max else [0.5, 0.5, 0, 0])


def test_product_with_zeros() -> None:
    x = gc.input("x", (3, 3))
    found = gc.grad(gc.sum(gc.prod(x, axis=1)), x).eval(x=[[2, 3, 4], [0, 3, 4], [0, 0, 4]])
    np.testing.assert_array_equal(found, [[12, 8, 6], [12, 0, 0], [0, 0, 0]])


def test_norm_at_zero() -> None:
    x = gc.input("x", (2, 2))
    found = gc.grad(gc.sum(gc.norm(x, axis=1)), x).eval(x=[[0, 0], [3, 4]])
    np.testing.assert_allclose(found, np.array([[0, 0], [0.6, 0.8]]), rtol=1e-6)


def test_large_logits() -> None:
    x, y = gc.input("x", (3, 3)), gc.input("y", (3,), dtype="int32")
    given: dict[str, ArrayLike] = {"x": [[1e4, 0, -1e4], [1e30, 1e30, 0], [-1e4, -1e4, -1e4]], "y": [0, 0, 2]}
    loss = gc.cross_entropy(x, y)
    np.testing.assert_allclose(loss.eval(**given), np.log([1.0, 2.0, 3.0]), rtol=1e-6)
    found = gc.grad(gc.sum(loss), x).eval(**given)
    np.testing.assert_allclose(found, np.array([[0, 0, 0], [-0.5, 0.5, 0], [1 / 3, 1 / 3, -2 / 3]]), atol=1e-6)


@pytest.mark.parametrize(
    "function", [gc.logsumexp, lambda x: gc.sum(gc.log_softmax(x)), lambda x: gc.sum(gc.softmax(x) ** 2)]
)
def test_softmax_family_is_finite_at_large_inputs(function: Function) -> None:
    x = gc.input("x", (3,))
    assert np.isfinite(gc.grad(function(x), x).eval(x=[3e4, -3e4, 100])).all()


def test_swish_of_the_contract_has_a_finite_gradient() -> None:
    swish = gc.elementwise("swish", lambda x, beta: x / (1 + gc.sym.exp(-beta * x)))
    x = gc.input("x", (3,))
    value = swish(x, 1.0)
    np.testing.assert_allclose(value.eval(x=[-100, 0, 100]), [0, 0, 100], atol=1e-40)
    found = gc.grad(gc.sum(value), x).eval(x=[-100, 0, 100])
    np.testing.assert_allclose(found, [0, 0.5, 1], atol=1e-30)


def test_bce_with_large_logits() -> None:
    x = gc.input("x", (4,))
    loss = gc.bce_with_logits(x, gc.const([0.0, 1.0, 0.0, 1.0]), reduction="none")
    np.testing.assert_allclose(loss.eval(x=[-200, -200, 200, 200]), [0, 200, 200, 0], atol=1e-30)
    np.testing.assert_allclose(gc.grad(gc.sum(loss), x).eval(x=[-200, -200, 200, 200]), [0, -1, 1, 0], atol=1e-30)


def test_kl_div_at_target_zero() -> None:
    p, q = gc.input("p", (2,)), gc.input("q", (2,))
    loss = gc.kl_div(q, p, reduction="sum")
    given = {"p": [0.0, 1.0], "q": [-1.0, -1.0]}
    assert loss.eval(**given) == 1
    np.testing.assert_array_equal(gc.grad(loss, q).eval(p=given["p"]), [0, -1])
    assert np.isfinite(gc.grad(loss, p).eval(**given)).all()


@pytest.mark.parametrize("chosen", ["gathered", "turned", "sliced"])
def test_log_of_an_underflowing_softmax_through_a_view(chosen: str) -> None:
    """The stable form is found although an indexing, a transpose or a slice stands between log and softmax."""
    z = gc.param("z", (2, 3))
    p = gc.softmax(z, axis=1)
    seen = {
        "gathered": lambda: gc.gather(p, gc.const(np.array([[2], [0]])), axis=1),
        "turned": lambda: gc.transpose(p)[::2],
        "sliced": lambda: p[:, 2:],
    }[chosen]()
    weights = np.array([[300.0, 0.0, -300.0], [-300.0, 0.0, 1.0]])
    loss = -gc.mean(gc.log(seen))
    exact = {"gathered": 450.656, "turned": 225.406, "sliced": 300.157}[chosen]
    np.testing.assert_allclose(gc.compile(loss, cache=False)(z=weights), exact, rtol=1e-4)
    gradient = gc.grad(loss, z).eval(z=weights)
    probability = np.exp(weights - weights.max(1, keepdims=True))
    probability /= probability.sum(1, keepdims=True)
    picked = {"gathered": [[0, 0, 1], [1, 0, 0]], "turned": [[1, 0, 1], [1, 0, 1]], "sliced": [[0, 0, 1], [0, 0, 1]]}
    counts = np.array(picked[chosen])
    wanted = (probability * counts.sum(1, keepdims=True) - counts) / counts.sum()
    np.testing.assert_allclose(gradient, wanted, atol=1e-6)
