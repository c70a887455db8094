"""Layers: their parameters' names, shapes and first values, and what they compute."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as gc
from graphc.dsl.build import build
from graphc.dsl.init import initial


def names(tensor: gc.Tensor) -> list[str]:
    return [name for name, leaf in build({"y": tensor}).leaves.items() if leaf.kind == "param"]


def test_dense_is_product_bias_activation(rng: np.random.Generator) -> None:
    given = {"x": rng.normal(size=(5, 3)), "fc.w": rng.normal(size=(3, 2)), "fc.b": rng.normal(size=2)}
    y = gc.nn.dense(gc.input("x", (gc.dim("N"), 3), dtype="float64"), 2, activation="tanh", name="fc")
    assert (y.shape, y.dtype) == ((gc.dim("N"), 2), gc.float64)
    np.testing.assert_allclose(y.eval(**given), np.tanh(given["x"] @ given["fc.w"] + given["fc.b"]))


def test_dense_without_bias_on_more_axes() -> None:
    y = gc.nn.dense(gc.input("x", (2, 4, 3)), 5, bias=False, name="fc", init=gc.init.ones())
    assert names(y) == ["fc.w"]
    np.testing.assert_array_equal(y.eval(x=np.ones((2, 4, 3))), np.full((2, 4, 5), 3))


def test_activation_by_name_and_by_function_agree() -> None:
    x = gc.input("x", (4, 3))
    one = gc.nn.dense(x, 3, activation="relu", name="fc")
    other = gc.nn.dense(x, 3, activation=gc.relu, name="fc")
    given = np.random.default_rng(0).normal(size=(4, 3))
    np.testing.assert_array_equal(one.eval(x=given), other.eval(x=given))


def test_unnamed_layers_are_named_in_graph_order() -> None:
    x = gc.input("x", (4, 3))
    later = gc.nn.dense(x, 3)  # declared first, read last
    y = gc.nn.dense(gc.nn.mlp(x, [8, 8]), 3) + later
    assert names(y) == [f"dense_{k}.{p}" for k in (1, 2, 3, 4) for p in ("w", "b")]
    assert names(later) == ["dense_1.w", "dense_1.b"]


def test_layers_of_a_named_mlp() -> None:
    y = gc.nn.mlp(gc.input("x", (4, 3)), [8, 2], final="softmax", name="net")
    assert names(y) == ["net.dense_1.w", "net.dense_1.b", "net.dense_2.w", "net.dense_2.b"]
    np.testing.assert_allclose(gc.sum(y, axis=1).eval(x=np.ones((4, 3))), np.ones(4), rtol=1e-6)


def test_one_layer_used_twice_shares_its_parameters() -> None:
    x = gc.input("x", (4, 3))
    h = gc.nn.dense(x, 3)
    assert names(h * h + gc.exp(h)) == ["dense_1.w", "dense_1.b"]


@pytest.mark.parametrize(
    ("activation", "variance"),
    [("relu", 2 / 400), (gc.gelu, 2 / 400), ("selu", 1 / 400), ("tanh", 2 / 1000), (None, 2 / 1000)],
)
def test_first_values(activation: str | None, variance: float) -> None:
    y = gc.nn.dense(gc.input("x", (4, 400)), 600, activation=activation, name="fc")
    leaves = build({"y": y}).leaves
    w, b = initial(leaves["fc.w"], "fc.w", 0), initial(leaves["fc.b"], "fc.b", 0)
    assert np.var(np.asarray(w, np.float64)) == pytest.approx(variance, rel=0.02)
    np.testing.assert_array_equal(b, np.zeros(600))


def test_every_activation_by_name() -> None:
    x = gc.input("x", (4, 3))
    for name in gc.nn.ACTIVATIONS:
        assert np.isfinite(gc.nn.dense(x, 3, activation=name, name="fc").eval(x=np.ones((4, 3)))).all()
