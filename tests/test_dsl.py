"""Tensors: what they know of themselves, where they come from, and how they become a graph and back."""

from __future__ import annotations

import re
import time

import numpy as np
import pytest

import graphc as gc
from graphc.dsl.declare import layer_param
from graphc.dsl.handle import Layer
from graphc.dsl.intern import intern, to_tensors
from graphc.dsl.tensor import Tensor
from graphc.reference import evaluate


def line(tensor: Tensor) -> str:
    """The source line that made a tensor."""
    assert tensor.site is not None
    return tensor.site.text


def test_properties() -> None:
    n = gc.dim("N")
    x = gc.input("x", (n, 4), dtype="float64")
    assert (x.shape, x.dtype, x.ndim, x.size, x.name) == ((n, 4), gc.float64, 2, 4 * n, "x")
    assert x.T.shape == (4, n)
    assert gc.expand_dims(x, 0).mT.shape == (1, 4, n)
    assert repr(x) == "<x: float64(N, 4) input>"


def test_names_come_from_the_variables_that_values_are_stored_to() -> None:
    x = gc.input("x", (3, 3))
    hidden = gc.relu(x @ x + 1)
    scaled = hidden * 2
    assert (hidden.name, scaled.name, (x + 1).name) == ("hidden", "scaled", "")
    assert hidden.named("h").name == "h"
    row = hidden[0]
    loss = gc.mean(gc.softmax(row))
    assert (row.name, loss.name) == ("row", "loss")
    graph = intern({"loss": loss}).graph
    assert [graph.name(node) for node in graph.nodes if graph.name(node)] == ["x", "hidden", "row", "loss"]


def test_a_specialised_call_keeps_its_name() -> None:
    def declare() -> Tensor:
        value = gc.exp(gc.const(1.0))
        return value

    assert [declare().name for _ in range(40)] == ["value"] * 40


def test_sites_are_the_users_lines() -> None:
    x = gc.input("x", (3,))
    total = gc.mean(gc.abs(x))
    assert line(x) == 'x = gc.input("x", (3,))'
    graph = intern({"t": total}).graph
    sites = [graph.origins[n][0].site for n in graph.nodes]
    assert [site.text for site in sites if site] == [
        'x = gc.input("x", (3,))',
        *["total = gc.mean(gc.abs(x))"] * 3,
    ]


def test_an_error_names_the_line() -> None:
    h, w = gc.input("h", (32, 784)), gc.param("w", (100, 10))
    with pytest.raises(gc.ShapeError) as caught:
        h @ w
    message, where = str(caught.value).split("\n")
    assert message == "matmul: inner sizes differ: (32, 784) by (100, 10); needs 784 == 100"
    assert re.fullmatch(r"  .*test_dsl\.py:\d+: h @ w", where)


def test_equal_expressions_are_one_node() -> None:
    x = gc.input("x", (3,))
    built = intern({"a": gc.exp(x) + 1, "b": gc.exp(x) + 1})
    assert built.graph.outputs["a"] is built.graph.outputs["b"]
    assert len(built.graph.nodes) == 3


def test_a_variable_is_the_handle_asked_for() -> None:
    x = gc.input("x", (3,))
    h, same = gc.exp(x), gc.exp(x)
    built = intern({"loss": gc.sum(h * same)}, [h])
    assert built.node[h].kind == "variable"
    assert built.node[same].kind == "formula"
    assert built.node[h].inputs == (built.node[same],)
    found = gc.grad(gc.sum(h * same), h)
    np.testing.assert_allclose(found.eval(x=[0, 1, 2]), np.exp([0, 1, 2]), rtol=1e-6)


def test_equality_is_elementwise_and_hash_identity() -> None:
    x, y = gc.input("x", (2,)), gc.input("y", (2,))
    assert (x == y).dtype == gc.boolean
    assert {x: 1, y: 2}[x] == 1
    with pytest.raises(gc.UsageError, match="bool: a tensor's value is not known"):
        bool(x == y)


def test_numpy_arrays_on_the_left_ask_the_tensor() -> None:
    x = gc.input("x", (2,))
    assert isinstance(np.array([1.0, 2.0], np.float32) * x, Tensor)
    np.testing.assert_array_equal((np.array([1, 2], np.float32) - x).eval(x=[3, 4]), [-2, -2])
    np.testing.assert_array_equal((np.float32(2) * x).eval(x=[3, 4]), [6, 8])


def test_python_numbers_are_weak() -> None:
    x, k = gc.input("x", (2,)), gc.input("k", (2,), dtype="int32")
    assert (x * 2.5).dtype == gc.float32
    assert (k + 1).dtype == gc.int32
    assert (k * 0.5).dtype == gc.float32
    assert (k / 2).dtype == gc.float32
    assert (x + k).dtype == gc.float32
    assert (k == 1).dtype == gc.boolean
    assert ((k > 0) + 1).dtype == gc.int64
    assert len(intern({"y": x * 1.5 + 2}).graph.nodes) == 3  # numbers are part of the formulas


def test_sizes_are_operands_too() -> None:
    n = gc.dim("N")
    x = gc.input("x", (n,))
    np.testing.assert_allclose((gc.sum(x) / n + 2 * n).eval(x=[1, 2, 6]), 9)


def test_iteration_and_length() -> None:
    x = gc.const([[1.0, 2.0], [3.0, 4.0]])
    assert len(x) == 2
    first, second = x
    np.testing.assert_array_equal(second.eval(), [3, 4])
    assert first.shape == (2,)


INDEXED = [
    (slice(1, 3),), (slice(None, None, -1),), (1,), (-1, 2), (None, 0), (Ellipsis, 1), (Ellipsis, None), ([2, 0],),
    (slice(None), None, slice(0, 4, 2)), (slice(4, 0, -2), slice(-3, -1)), (slice(1, None), -1), (slice(1, 4), [0, 3]),
    (0, [1, 1]),
]  # fmt: skip


@pytest.mark.parametrize("key", INDEXED, ids=str)
def test_indexing_equals_numpy(key: tuple[object, ...]) -> None:
    values = np.arange(30, dtype=np.float32).reshape(5, 6)
    wanted = values[key]  # type: ignore[index]
    found = gc.const(values)[key]
    assert found.shape == wanted.shape
    np.testing.assert_array_equal(found.eval(), wanted)


def test_slices_of_run_time_sizes() -> None:
    n = gc.dim("N")
    x = gc.input("x", (n, 2))
    for found, wanted in (
        (x[1:], slice(1, None)), (x[:-1], slice(None, -1)), (x[::-1], slice(None, None, -1)), (x[-1], -1), (x[0], 0),
        (x[::2], slice(None, None, 2)),
    ):  # fmt: skip
        for rows in (1, 2, 5):
            values = np.arange(2.0 * rows, dtype=np.float32).reshape(rows, 2)
            np.testing.assert_array_equal(found.eval(x=values), values[wanted])
    with pytest.raises(gc.ShapeError, match="needs bounds inside it for every run-time size"):
        x[2:]
    with pytest.raises(gc.IndexRangeError, match="for every run-time size"):
        x[1]


def test_reshape_with_run_time_sizes() -> None:
    n = gc.dim("N")
    x = gc.input("x", (n, 4, 3))
    assert gc.reshape(x, (n, -1)).shape == (n, 12)
    assert gc.reshape(x, (-1,)).shape == (12 * n,)
    assert gc.reshape(x, (2 * n, 6)).shape == (2 * n, 6)
    with pytest.raises(gc.ShapeError, match="do not divide by 5"):
        gc.reshape(x, (-1, 5))


def test_unnamed_layers_are_named_in_graph_order() -> None:
    def layer(x: Tensor) -> Tensor:
        mark = Layer("dense")
        return x @ layer_param(mark, "w", (3, 3)) + layer_param(mark, "b", (3,))

    unused = layer(gc.input("x", (3,)))
    out = layer(layer(gc.input("x", (3,))))
    assert list(intern({"y": out}).leaves) == ["x", "dense_1.w", "dense_1.b", "dense_2.w", "dense_2.b"]
    assert list(intern({"y": unused}).leaves) == ["x", "dense_1.w", "dense_1.b"]


def test_one_name_twice_names_both_lines() -> None:
    a, b = gc.param("w", (2,)), gc.param("w", (2,))
    with pytest.raises(gc.DefinitionError) as caught:
        intern({"y": a + b})
    text = str(caught.value)
    assert text.startswith("param: the name 'w' is declared twice")
    assert text.count("a, b = gc.param") == 2


def test_updates_travel_with_the_value() -> None:
    x, seen = gc.input("x", ()), gc.state("seen")
    y = gc.with_updates(x * 2, {seen: seen + 1})
    built = intern({"y": gc.exp(y)})
    (target,) = built.graph.updates
    assert target is built.node[seen]
    assert evaluate(built.graph, {"x": np.array(1.0), "seen": np.array(3.0)})[built.graph.updates[target]] == 4


def test_a_graph_becomes_tensors_again() -> None:
    x, w = gc.input("x", (3,)), gc.param("w", (3,), init=[1.0, 2.0, 3.0])
    loss = gc.sum(gc.tanh(x * w))
    built = intern({"loss": loss})
    (again,) = to_tensors(built.graph, [built.graph.outputs["loss"]], {built.node[x]: x, built.node[w]: w})
    np.testing.assert_array_equal(again.eval(x=[1, 1, 1]), loss.eval(x=[1, 1, 1]))
    assert again.name == "loss"
    second = intern({"loss": again, "same": loss}).graph
    assert second.outputs["loss"] is second.outputs["same"]


def test_sympy_formulas_are_accepted() -> None:
    import sympy as sp

    chosen = gc.elementwise("chosen", lambda x, y: sp.Piecewise((x, x > y), (2 * y, True)))
    mixed = gc.elementwise("mixed", lambda x, y: sp.exp(-x) * y + sp.Max(x, 0))
    x, y = np.array([-1, 0.5, 2], np.float32), np.array([1, -1, 3], np.float32)
    wanted = np.exp(-x) * y + np.maximum(x, 0) + np.where(x > y, x, 2 * y)
    np.testing.assert_allclose((mixed(x, y) + chosen(x, y)).eval(), wanted, rtol=1e-6)


def test_user_formula() -> None:
    bilinear = gc.formula("bilinear", "out[n,o] = sum(i,j) x[n,i] * w[o,i,j] * z[n,j]")
    rng = np.random.default_rng(0)
    x, w, z = rng.random((2, 3)), rng.random((4, 3, 5)), rng.random((2, 5))
    wanted = np.einsum("ni,oij,nj->no", x, w, z)
    np.testing.assert_allclose(bilinear(x, w, z).eval(), wanted)
    np.testing.assert_allclose(bilinear(z=z, x=x, w=w).eval(), wanted)
    assert bilinear(x, w, z).op == "bilinear"


def test_index_out_of_range_is_caught_when_evaluated() -> None:
    x, k = gc.input("x", (3,)), gc.input("k", (2,), dtype="int32")
    with pytest.raises(gc.IndexRangeError, match="take: index 3 at position 1 of k given; needs 0 <= index < 3"):
        gc.take(x, k).eval(x=[1, 2, 3], k=[0, 3])
    with pytest.raises(gc.IndexRangeError, match="one_hot: index -1 at position 1 of k given; needs 0 <= index < 3"):
        gc.one_hot(k, 3).eval(k=[0, -1])


def test_fifty_thousand_operations_are_declared_quickly() -> None:
    x = gc.input("x", (8,))
    start = time.perf_counter()
    h = x
    for _ in range(50_000):
        h = h * 1.5
    declared = time.perf_counter() - start
    graph = intern({"h": h}).graph
    assert len(graph.nodes) == 50_001
    print(f"declared in {declared:.2f} s")


def test_composites_carry_their_names() -> None:
    x, y = gc.input("x", (4, 3)), gc.input("y", (4,), dtype="int32")
    assert gc.softmax(x).op == "softmax"
    assert gc.cross_entropy(x, y).op == "cross_entropy"
    assert gc.cross_entropy(x, y).shape == (4,)
    assert gc.mean(x).op == "mean"


def test_mean_of_integers_is_a_float() -> None:
    assert gc.mean(gc.const([1, 2])).dtype == gc.float32
    assert gc.sum(gc.const([True, True])).dtype == gc.int64
    assert gc.mean(gc.const([1, 2])).eval() == 1.5


def test_an_output_may_have_an_inputs_name() -> None:
    x, w = gc.input("x", (3,)), gc.param("w", (3,))
    given = {"x": np.array([1, 2, 3], np.float32), "w": np.array([4, 5, 6], np.float32)}
    total, product = given["x"] + given["w"], given["x"] * given["w"]
    for outputs, wanted in (
        ({"x": x + w, "y": x * w}, [total, product]),
        ({"x": w, "w": x}, [given["w"], given["x"]]),
        ({"x": x, "w": w, "y": x + w}, [given["x"], given["w"], total]),
    ):
        found = gc.compile(outputs)(**given)
        assert list(found) == list(outputs)
        assert all(np.array_equal(a, b) for a, b in zip(found.values(), wanted, strict=True))
