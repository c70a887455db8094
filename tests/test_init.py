"""Initialisers: the distribution of each, and that a draw depends on seed and name alone."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

import graphc as gc
from graphc.dsl.handle import Initialiser
from graphc.dsl.init import generator

Floats = NDArray[np.float64]


def drawn(init: Initialiser, shape: tuple[int, ...] = (300, 500)) -> Floats:
    return np.asarray(init(shape, np.random.default_rng(0)), np.float64)


@pytest.mark.parametrize(
    ("init", "mean", "variance"),
    [
        (gc.init.zeros(), 0, 0),
        (gc.init.ones(), 1, 0),
        (gc.init.constant(0.25), 0.25, 0),
        (gc.init.uniform(-1, 3), 1, 16 / 12),
        (gc.init.normal(2.0, 0.5), 2, 0.25),
        (gc.init.truncated_normal(1.0, 0.5), 1, 0.25 * 0.7737),  # of a normal cut at two deviations
        (gc.init.glorot_uniform(), 0, 2 / 800),
        (gc.init.glorot_normal(), 0, 2 / 800),
        (gc.init.he_uniform(), 0, 2 / 300),
        (gc.init.he_normal(), 0, 2 / 300),
        (gc.init.lecun_normal(), 0, 1 / 300),
        (gc.init.orthogonal(), 0, 1 / 500),
    ],
)
def test_mean_and_variance(init: Initialiser, mean: float, variance: float) -> None:
    values = drawn(init)
    assert values.shape == (300, 500)
    assert np.mean(values) == pytest.approx(mean, abs=5 * math.sqrt(variance / values.size))
    assert np.var(values) == pytest.approx(variance, rel=0.02)


def test_bounds() -> None:
    assert np.max(np.abs(drawn(gc.init.truncated_normal(0.0, 0.5)))) <= 1
    assert np.max(np.abs(drawn(gc.init.uniform(-0.5, 0.5)))) <= 0.5
    assert np.max(np.abs(drawn(gc.init.glorot_uniform()))) <= math.sqrt(6 / 800)


@pytest.mark.parametrize("shape", [(4, 4), (3, 7), (7, 3)])
def test_orthogonal(shape: tuple[int, int]) -> None:
    q = drawn(gc.init.orthogonal(), shape)
    product = q @ q.T if shape[0] <= shape[1] else q.T @ q
    np.testing.assert_allclose(product, np.eye(min(shape)), atol=1e-12)


def test_seed_and_name_decide() -> None:
    draws = [generator(seed, name).random(3).tolist() for seed in (0, 1) for name in ("w1", "w2")]
    assert len(dict.fromkeys(map(tuple, draws))) == 4
    assert generator(0, "w1").random(3).tolist() == draws[0]


def test_first_values_of_a_graph_do_not_depend_on_what_else_it_holds() -> None:
    a, b = gc.param("a", (3,), init=gc.init.normal()), gc.param("b", (3,), init=gc.init.normal())
    np.testing.assert_array_equal((a + 0).eval(), (gc.stack([b, a])[1]).eval())
    assert not np.array_equal((a + 0).eval(), (b + 0).eval())
