"""The reference evaluator itself: parts of a domain, guards, scatters, magnitudes, sizes, and what it refuses."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from test_ops import CASES, declared, drawn

import graphc as gc
from graphc.dsl.intern import intern
from graphc.dsl.tensor import Tensor
from graphc.graph.dtypes import float32
from graphc.graph.formula import Affine, Formula, FromData, Guard, Read, plain, var
from graphc.graph.scalar import BodyBuilder
from graphc.ops.record import Record, Sample
from graphc.reference import evaluate, formulas
from graphc.reference.formulas import evaluate_formula
from graphc.structs import replace

Array = NDArray[Any]


def passed_on() -> Formula:
    """``y[i] = x[i]`` for 4 elements: a formula to vary."""
    builder = BodyBuilder()
    return Formula((4,), plain(1), (4,), (Read(0, plain(1)),), builder.finish(builder.read(0, float32)))


@pytest.mark.parametrize(("record", "sample"), CASES)
def test_a_domain_in_parts_gives_the_same(
    record: Record, sample: Sample, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrays = drawn(sample, rng, "float64")
    tensor = declared(record, sample, arrays)
    values = {f"x{k}": a for k, a in enumerate(arrays)}
    whole = tensor.eval(**values)
    monkeypatch.setattr(formulas, "LARGEST", 3)
    monkeypatch.setattr(formulas, "_einsum", lambda *arguments: None)
    np.testing.assert_allclose(tensor.eval(**values), whole, rtol=1e-12, atol=1e-14)


def test_a_large_product_is_not_held_whole() -> None:
    x, y = gc.input("x", (700,)), gc.input("y", (700,))
    far = gc.expand_dims(x, 1) - y
    total = gc.sum(gc.maximum(far, 0.0) * gc.const(np.ones((30, 1, 1), np.float32)))
    values = np.linspace(0, 1, 700, dtype=np.float32)
    wanted = 30 * np.maximum(values[:, None] - values, 0).sum(dtype=np.float64)
    assert total.eval(x=values, y=values) == pytest.approx(wanted, rel=1e-5)


def test_guards_read_as_zero_and_skip_points() -> None:
    formula = passed_on()
    x = np.array([1, 2, 3, 4], np.float32)
    shifted = replace(formula, reads=(Read(0, (var(0, -1),), (Guard("ge", var(0, -1)),)),))
    np.testing.assert_array_equal(evaluate_formula(shifted, [x], {}), [0, 1, 2, 3])
    even = replace(formula, guards=(Guard("div", var(0), 2),))
    np.testing.assert_array_equal(evaluate_formula(even, [x], {}), [1, 0, 3, 0])
    one = replace(formula, guards=(Guard("eq", var(0, -2)),))
    np.testing.assert_array_equal(evaluate_formula(one, [x], {}), [0, 0, 3, 0])


@pytest.mark.parametrize(
    ("combine", "wanted"), [("sum", [4, 0, 6]), ("prod", [3, 1, 8]), ("max", [3, -np.inf, 4]), ("min", [1, np.inf, 2])]
)
def test_a_scatter_holds_the_identity_where_nothing_is_written(combine: str, wanted: list[float]) -> None:
    x = np.array([1, 2, 3, 4], np.float32)
    where = np.array([0, 2, 0, 2], np.int32)
    formula = replace(passed_on(), write=(FromData(1, plain(1), 3),), shape=(3,), combine=combine)
    np.testing.assert_array_equal(evaluate_formula(formula, [x, where], {}), wanted)
    with pytest.raises(gc.IndexRangeError, match="index 5 at position 2 given; needs 0 <= index < 3"):
        evaluate_formula(formula, [x, np.array([0, 2, 5, 2], np.int32)], {})


def test_a_strided_write() -> None:
    formula = replace(passed_on(), write=(Affine(6, ((0, -2),)),), shape=(8,), combine="sum")
    found = evaluate_formula(formula, [np.arange(1, 5, dtype=np.float32)], {})
    np.testing.assert_array_equal(found, [4, 0, 3, 0, 2, 0, 1, 0])


def nodes_value(tensor: Tensor, values: dict[str, Array], *, dtype64: bool = False, absolute: bool = False) -> Array:
    """The value of a tensor under a mode of the evaluator."""
    built = intern({"y": tensor})
    return evaluate(built.graph, values, dtype64=dtype64, absolute=absolute)[built.graph.outputs["y"]]


def test_float64_of_a_float32_graph() -> None:
    x = gc.input("x", (3,))
    values = {"x": np.array([0.1, 0.2, 0.3], np.float32)}
    wide = nodes_value(gc.sum(gc.exp(x)), values, dtype64=True)
    assert wide.dtype == np.float64
    assert wide == np.exp(values["x"].astype(np.float64)).sum()
    assert nodes_value(gc.sum(gc.exp(x)), values).dtype == np.float32


@pytest.mark.parametrize(
    ("function", "wanted"),
    [
        (lambda x, w: gc.sum(x - w), 21.0),
        (lambda x, w: x @ w, 32.0),
        (lambda x, w: gc.einsum("i,i->", x, w), 32.0),
        (lambda x, w: x * w - w, [8.0, 15.0, 24.0]),
        (lambda x, w: (x - w) / w, [5 / 4, 7 / 5, 9 / 6]),
        (lambda x, w: gc.exp(x), [math.exp(1), math.exp(-2), math.exp(3)]),
        (lambda x, w: gc.where(x > 0, x - w, w), [5.0, 5.0, 9.0]),
        (lambda x, w: gc.cumsum(x), [1.0, 3.0, 6.0]),
        (lambda x, w: gc.min(x - w), 9.0),
        (lambda x, w: gc.reshape((x - w) - w, (3, 1)), [9.0, 12.0, 15.0]),
    ],
)
def test_magnitudes_take_every_term_by_its_absolute_value(
    function: Callable[[Tensor, Tensor], Tensor], wanted: float | list[float]
) -> None:
    x, w = gc.input("x", (3,), "float64"), gc.input("w", (3,), "float64")
    values: dict[str, Array] = {"x": np.array([1.0, -2.0, 3.0]), "w": np.array([4.0, 5.0, 6.0])}
    np.testing.assert_allclose(nodes_value(function(x, w), values, absolute=True).ravel(), wanted)
