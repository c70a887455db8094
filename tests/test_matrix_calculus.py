"""The examples of matrixcalculus.org's start page: our derivatives beside those in that page's notation, in length and
in numbers.

``theirs`` is the closed form written by hand in the signs of that page (· ⊙ ⊘ ⊤ diag), not fetched from it; both are
counted without spaces, named intermediates included. The page's ``logdet`` is no operation here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from notation_values import computed

import graphc as gc
from graphc.dsl.intern import intern
from graphc.notation.expressions import graph_lines
from graphc.reference import evaluate

m, n, p = 4, 3, 2
Doubles = Any  # arrays of float64


def vector(name: str, size: int) -> gc.Tensor:
    return gc.input(name, (size,), dtype="float64")


def matrix(name: str, rows: int, columns: int) -> gc.Tensor:
    return gc.input(name, (rows, columns), dtype="float64")


x, y, v, w = vector("x", n), vector("y", n), vector("v", n), vector("w", n)
b, t = vector("b", m), vector("t", m)
A, S, X = matrix("A", m, n), matrix("S", n, n), matrix("X", n, p)
F, G, H = matrix("F", m, n), matrix("G", n, p), matrix("H", p, m)


@dataclass(frozen=True, slots=True)
class Example:
    """value: what is differentiated by ``by``; ours and theirs: the derivative; second: the derivative of that."""

    name: str
    value: Callable[[], gc.Tensor]
    by: gc.Tensor
    ours: str
    theirs: str
    second: str = ""
    theirs_second: str = ""


EXAMPLES = [
    Example("half a quadratic form", lambda: 0.5 * (x @ S @ x), x, "0.5 * (x · S + S · x)", "0.5·S⊤·x+0.5·S·x",
            "0.5 * (S + Sᵀ)", "0.5·S⊤+0.5·S"),
    Example("a map of exponentials", lambda: A @ gc.exp(x), x, "A ⊙ exp(x)", "A·diag(exp(x))"),
    Example("a product with sines", lambda: gc.sin(x) @ y, x, "y ⊙ cos(x)", "cos(x)⊙y",
            "-diag(y ⊙ sin(x))", "-diag(sin(x)⊙y)"),
    Example("a weighted product", lambda: (y * v) @ x, x, "y ⊙ v", "y⊙v"),
    Example("least squares", lambda: gc.sum((A @ x - b) ** 2), x, "2 * (A · x - b) · A", "2·A⊤·(A·x-b)",
            "2 * Aᵀ · A", "2·A⊤·A"),
    Example("logistic regression", lambda: gc.sum(gc.log(gc.exp(-t * (A @ w)) + 1)), w,
            "-(sigmoid(-t ⊙ (A · w)) ⊙ t) · A", "-A⊤·(t⊙exp(-t⊙(A·w))⊘(exp(-t⊙(A·w))+1))",
            "(Aᵀ ⊙ t² ⊙ sigmoid(-t ⊙ (A · w)) ⊙ (1 - sigmoid(-t ⊙ (A · w)))) · A",
            "A⊤·diag(t⊙t⊙exp(-t⊙(A·w))⊘(exp(-t⊙(A·w))+1)⊘(exp(-t⊙(A·w))+1))·A"),
    Example("a trace", lambda: gc.trace(F @ X @ G.T @ X @ H), X,
            "G · Xᵀ · Fᵀ · Hᵀ + Fᵀ · Hᵀ · Xᵀ · G", "G·X⊤·F⊤·H⊤+F⊤·H⊤·X⊤·G"),
]  # fmt: skip


def values() -> dict[str, Doubles]:
    rng = np.random.default_rng(3)
    leaves = (x, y, v, w, b, t, A, S, X, F, G, H)
    return {leaf.name: rng.normal(size=leaf.shape) for leaf in leaves}


def used(tensor: gc.Tensor) -> dict[str, Doubles]:
    return {name: array for name, array in values().items() if name in intern({"value": tensor}).leaves}


def differences(tensor: gc.Tensor, by: gc.Tensor) -> Doubles:
    """Central differences of a tensor, by each element of one of its inputs; shape: the tensor's, then the input's."""
    given = used(tensor)
    start, columns = given[by.name], []
    for place in np.ndindex(start.shape):
        step = np.zeros_like(start)
        step[place] = 1e-5
        up, down = (tensor.eval(**(given | {by.name: start + sign * step})) for sign in (1, -1))
        columns.append((np.asarray(up) - np.asarray(down)) / 2e-5)
    return np.moveaxis(
        np.array(columns).reshape(*start.shape, *columns[0].shape), range(start.ndim), range(-start.ndim, 0)
    )


def without_spaces(text: str) -> int:
    return len("".join(text.split()))


def check(derivative: gc.Tensor, original: gc.Tensor, by: gc.Tensor, text: str) -> None:
    """What is shown, and its value as the reference and a reader compute it, against differences of the original."""
    assert str(derivative) == f"d_{by.name} = {text}"
    exact = differences(original, by)
    given = used(derivative)
    graph = intern({"value": derivative}).graph
    assert np.allclose(evaluate(graph, given)[graph.outputs["value"]], exact, 1e-6, 1e-6)
    lines = graph_lines(graph)
    assert any(np.allclose(found[lines[-1].name], exact, 1e-6, 1e-6) for found in computed(lines, given))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda e: e.name)
def test_gradient(example: Example) -> None:
    value = example.value()
    found = gc.jacobian(value, example.by) if value.shape else gc.grad(value, example.by)
    check(found, value, example.by, example.ours)
    assert without_spaces(example.ours) <= without_spaces(example.theirs)


@pytest.mark.parametrize("example", [e for e in EXAMPLES if e.second], ids=lambda e: e.name)
def test_hessian(example: Example) -> None:
    value = example.value()
    check(gc.hessian(value, example.by), gc.grad(value, example.by), example.by, example.second)
    assert without_spaces(example.second) <= without_spaces(example.theirs_second)


def test_derivatives_by_matrices_print_with_indices() -> None:
    example = EXAMPLES[-1]
    second = str(gc.hessian(example.value(), example.by))
    assert second and "?" not in second and "formula" not in second


@pytest.mark.parametrize("value, by, text", [
    (lambda: gc.sum(x * x), x, "2 * I"),
    (lambda: gc.sum(x**3), x, "6 * diag(x)"),
    (lambda: 0.5 * gc.sum(x * x * y), x, "diag(y)"),
])  # fmt: skip
def test_diagonal_hessians(value: Callable[[], gc.Tensor], by: gc.Tensor, text: str) -> None:
    given = {"I": np.eye(3)}
    found = gc.hessian(value(), by)
    assert str(found) == f"d_{by.name} = {text}"
    graph = intern({"value": found}).graph
    lines = graph_lines(graph)
    exact = evaluate(graph, used(found))[graph.outputs["value"]]
    assert any(np.allclose(f[lines[-1].name], exact) for f in computed(lines, used(found) | given))


def test_a_user_who_has_an_identity_of_their_own() -> None:
    own = gc.input("I", (n,))
    assert "I1" in str(gc.jacobian(own * gc.sum(own), own))


def test_values_of_one_name_are_told_apart() -> None:
    h = gc.input("x", (2, 3))
    for k in range(3):
        h = gc.tanh(h @ gc.param(f"w{k}", (3, 3)))
    loss = gc.sum(h)
    assert str(loss).splitlines() == [
        "h = tanh(x · w0)", "h_2 = tanh(h · w1)", "h_3 = tanh(h_2 · w2)", "loss = Σ h_3",
    ]  # fmt: skip
    names = [row.name for row in gc.explain(loss).rows]
    assert [name for name in names if name.startswith("h")] == ["h_3", "h_2", "h"]


def test_a_name_that_is_taken_is_passed_over() -> None:
    a, second = gc.input("a", (3,)), gc.input("h_2", (3,))
    h = gc.exp(a)
    first = h
    h = gc.sin(first) * second
    assert str(gc.sum(h * first)).splitlines()[:2] == ["h = exp(a)", "h_3 = sin(h) ⊙ h_2"]


def test_a_name_given_later_is_passed_over_too() -> None:
    h = gc.input("x", (2, 3))
    for k in range(2):
        h = gc.tanh(h @ gc.param(f"w{k}", (3, 3)))
    h_2 = gc.sin(h)
    assert str(gc.sum(h * h_2)).splitlines()[:3] == ["h = tanh(x · w0)", "h_3 = tanh(h · w1)", "h_2 = sin(h_3)"]


def test_what_the_user_named_is_said_by_name() -> None:
    """A derivative that holds what a named value is made of says its name; a rectifier's condition too."""
    q, k, u = gc.input("q", (4, 3)), gc.input("k", (4, 3)), gc.input("u", (4, 3))
    att = gc.softmax(q @ k.T / 4.0)
    assert str(gc.grad(gc.sum(att @ u), q)).splitlines() == [
        "d_att = (Σⱼ u)[None]", "d_q = 0.25 * ((d_att - Σⱼ d_att ⊙ att) ⊙ att) · k",
    ]  # fmt: skip
    h = gc.relu(q @ S)
    assert "⊙ [h > 0]) · Sᵀ" in str(gc.grad(gc.sum(h * h), q))


@pytest.mark.parametrize("value, text", [
    (lambda: gc.norm(x), "[Σ x² ≠ 0] * x / sqrt(Σ x²)"),
    (lambda: gc.mean(A @ gc.exp(x) * 2.0 + x[0]), None),
    (lambda: gc.sum(gc.gelu(x)), "0.39894228 * x ⊙ exp(-0.5 * x²) + 0.5 * (erf(0.7071067811865476 * x) + 1)"),
    (lambda: gc.sum(x * x / 16.0 / 8.0), "x / 64"),
    (lambda: gc.sum(gc.sqrt(x * x + 1) * 7.0) * 25.0, "175 * x / sqrt(x² + 1)"),
])  # fmt: skip
def test_numbers_and_conditions_are_put_together(value: Callable[[], gc.Tensor], text: str | None) -> None:
    found = gc.grad(value(), x)
    assert text is None or str(found) == f"d_x = {text}"
    graph = intern({"value": found}).graph
    lines = graph_lines(graph)
    exact = evaluate(graph, used(found))[graph.outputs["value"]]
    assert any(np.allclose(f[lines[-1].name], exact, 1e-6, 1e-7) for f in computed(lines, used(found)))


def test_layers_in_a_loop_have_names() -> None:
    h = gc.input("x", (2, 3))
    for k in range(3):
        h = gc.nn.dense(h, 3, activation="relu", name=f"fc{k}")
    out = gc.nn.mlp(h, [4, 2], name="head")
    assert str(gc.sum(out)).splitlines()[:3] == [
        "h = relu(x · fc0.w + fc0.b)", "h_2 = relu(h · fc1.w + fc1.b)", "h_3 = relu(h_2 · fc2.w + fc2.b)",
    ]  # fmt: skip
    assert str(gc.sum(out)).splitlines()[3].startswith("out = ") and "d_h_2" in str(gc.grad(gc.sum(h), x_of(h)))


def x_of(tensor: gc.Tensor) -> gc.Tensor:
    return intern({"value": tensor}).leaves["x"]
