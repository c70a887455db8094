"""The ledger as a person reads it: stable forms, and live numbers that compiled code computes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc.graph.graph import Graph, Node, copy_node, rebuild
from graphc.inspect.explain import Explanation, RowText, ledger_of
from graphc.inspect.live import heat_map, n_saturated, numbers
from graphc.reference import evaluate

N = gc.dim("N")


def row_of(told: Explanation, name: str) -> RowText:
    return next(row for row in told.rows if row.name == name)


def network() -> gc.Tensor:
    x, y = gc.input("x", (N, 6)), gc.input("y", (N,), dtype="int32")
    w1, b1, w2 = gc.param("w1", (6, 8)), gc.param("b1", (8,)), gc.param("w2", (8, 4))
    z = x @ w1 + b1
    hidden = gc.relu(z)
    logits = hidden @ w2
    return gc.mean(gc.cross_entropy(logits, y))


def drawn() -> dict[str, Any]:
    rng = np.random.default_rng(1)
    return {
        "x": rng.normal(size=(5, 6)).astype(np.float32), "y": np.array([0, 1, 2, 3, 0], np.int32),
        "w1": rng.normal(size=(6, 8)).astype(np.float32), "w2": rng.normal(size=(8, 4)).astype(np.float32),
        "b1": np.where(np.arange(8) % 4 == 0, -50, 0).astype(np.float32),
    }  # fmt: skip


def test_live_numbers_are_those_of_the_reference() -> None:
    loss, values = network(), drawn()
    told = gc.explain(loss, values=values)
    ledger = ledger_of(loss)
    exact = evaluate(ledger.graph, values, [n for r in ledger.backward.ledger for n in (r.node, r.total)], dtype64=True)
    assert len(told.rows) == len(ledger.backward.ledger) > 10
    for row, text in zip(ledger.backward.ledger, told.rows, strict=True):
        assert text.live is not None
        for node, found in ((row.node, text.live.value), (row.total, text.live.cotangent)):
            wanted = numbers("", np.asarray(exact[node]))
            assert found.shape == wanted.shape
            assert np.allclose([found.low, found.high, found.norm], [wanted.low, wanted.high, wanted.norm], 1e-5, 1e-6)


@pytest.mark.parametrize("number", range(25))
def test_every_row_is_what_central_differences_say(number: int) -> None:
    """The loss as a function of one node's value, the graph cut there: its change along a direction, against the row.

    The loss holds a softmax, a log-softmax, a rectifier, a root and a value that is read several times.
    """
    x, y = gc.input("x", (N, 6)), gc.input("y", (N,), dtype="int32")
    w1, b1, w2 = gc.param("w1", (6, 8)), gc.param("b1", (8,)), gc.param("w2", (8, 4))
    hidden = gc.relu(x @ w1 + b1)
    logits = hidden @ w2
    extra = gc.mean(gc.sqrt(gc.sum(gc.softmax(logits) * hidden[:, :4], axis=1) + 1.0)) + gc.mean(gc.log(1 + gc.exp(w2)))
    ledger = ledger_of(gc.mean(gc.cross_entropy(logits, y)) + extra)
    rows = [row for row in ledger.backward.ledger if row.node.kind != "stop_gradient"]
    assert 25 <= len(rows) < 60
    picked = [rows[k] for k in range(number, len(rows), 25)]
    values = {name: np.asarray(a, np.float64) if a.dtype == np.float32 else a for name, a in drawn().items()}
    exact = evaluate(ledger.graph, values, [n for row in picked for n in (row.node, row.total)], dtype64=True)
    for row in picked:

        def make(graph: Graph, node: Node, inputs: tuple[Node, ...], at: Node = row.node) -> Node:
            return (
                graph.add("input", (), "cut", node.dtype, node.shape) if node is at else copy_node(graph, node, inputs)
            )

        graph, new = rebuild(ledger.graph, make)
        loss = new[ledger.graph.outputs["loss"]]
        start = np.asarray(exact[row.node], np.float64)
        direction = np.random.default_rng(number).normal(size=start.shape)

        def moved(by: float, at: Any = start, along: Any = direction, graph: Any = graph, loss: Any = loss) -> float:
            return float(np.asarray(evaluate(graph, values | {"cut": at + by * along}, [loss], dtype64=True)[loss]))

        measured = (moved(1e-6) - moved(-1e-6)) / 2e-6
        wanted = float((np.asarray(exact[row.total], np.float64) * direction).sum())
        assert measured == pytest.approx(wanted, rel=1e-5, abs=1e-7), row.node


def test_dead_units_and_blocked_gradients_are_counted() -> None:
    values = drawn()
    told = gc.explain(network(), values=values)
    z = values["x"] @ values["w1"] + values["b1"]
    dead = int((z <= 0).all(axis=0).sum())
    assert dead >= 2
    hidden, before = row_of(told, "hidden").live, row_of(told, "z").live
    assert hidden is not None and before is not None
    assert hidden.value.dead == (dead, 8) and hidden.value.n_zero == int((z <= 0).sum())
    assert before.saturated == (("hidden", int((z <= 0).sum()), 40),)
    assert f"{dead} of 8 units are 0 throughout" in str(told)
    assert "elements pass on under 1% of what reaches hidden" in str(told)


def test_saturation_of_a_smooth_function() -> None:
    a = gc.input("a", (4,))
    h = gc.tanh(a)
    told = gc.explain(gc.sum(h), values={"a": [0.0, 1.0, 4.0, -9.0]})
    live = row_of(told, "a").live
    assert live is not None and live.saturated == (("h", 2, 4),)


def test_a_gradient_that_fades_is_seen() -> None:
    x = gc.input("x", (3, 4))
    h = x
    for k in range(6):
        h = gc.sigmoid(h @ gc.param(f"w{k}", (4, 4)) * 0.1)
    told = str(gc.explain(gc.mean(h), values={"x": np.ones((3, 4))}))
    lines = told.split("from the loss back\n")[1].splitlines()
    bars = [line.count("█") for line in lines if line.startswith("  d_")]
    assert bars[0] == 24 and bars[-1] < 8


def test_what_was_put_into_a_stable_form_is_said() -> None:
    x = gc.input("x", (3,))
    told = gc.explain(gc.sum(gc.log(1 + gc.exp(x))), values={"x": [100.0, 0.0, -100.0]})
    assert [(f.declared, f.stable) for f in told.forms] == [("log(1 + exp(x))", "softplus(x)")]
    assert str(told).startswith("differentiated in stable forms\n  log(1 + exp(x))  ->  softplus(x)    [")
    live = told.rows[-1].live
    assert live is not None and (live.cotangent.high, live.cotangent.n_bad) == (1.0, 0)
    assert "exp" not in [row.name for row in told.rows]
    assert gc.explain(network()).forms == ()


def test_a_steps_ledger_says_so_too() -> None:
    x, w = gc.input("x", (3,)), gc.param("w", (3,))
    step = gc.compile(gc.sum(gc.log(1 + gc.exp(w * x))), gc.optim.sgd(lr=0.1))
    assert "log(1 + exp(w ⊙ x))  ->  softplus(w ⊙ x)" in step.show("ledger")


def test_numbers_that_are_none() -> None:
    found = numbers("a", np.array([[1.0, np.nan], [np.inf, 0.0]]))
    assert found.n_bad == 2 and (found.low, found.high) == (0.0, 1.0)
    assert found.picture == ("█!", "! ")
    assert str(found).endswith("2 of 4 are no finite number")
    x = gc.input("x", (2,))
    told = gc.explain(gc.sum(gc.sqrt(x)), values={"x": [-1.0, 4.0]})
    assert "not finite" in str(told) and "1 of 2 are no finite number" in str(told)


def test_pictures_are_small() -> None:
    table = np.zeros((100, 1000))
    table[55, 555] = -3.0
    picture = heat_map(table)
    assert len(picture) == 6 and {len(line) for line in picture} == {48}
    assert picture[3][555 * 48 // 1000] == "█" and "".join(picture).count(" ") == 6 * 48 - 1
    assert n_saturated(np.array([1.0, 1.0, 0.0]), np.array([0.005, 0.5, 0.0])) == (1, 2)


def test_what_the_last_lines_say_of_rounding() -> None:
    told = gc.explain(network(), values=drawn())
    assert told.note.startswith("numbers of compiled code that keeps every row")
    assert str(told).endswith(told.note + "\n")
    assert gc.explain(network()).note == ""


def test_mistakes_name_the_users_line() -> None:
    x = gc.input("x", (3,))
    with pytest.raises(gc.InputError, match=r"^explain: input 'x' is missing; it has shape \(3,\)\n  .*test_explain"):
        gc.explain(gc.sum(x), values={})
    with pytest.raises(gc.InputError, match=r"^explain: 'z' given; the tensor has x"):
        gc.explain(gc.sum(x), values={"x": [1.0, 2.0, 3.0], "z": 1.0})
