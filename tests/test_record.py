"""``record=True``: norms of gradients and histograms of weights are those that a plain loop finds."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
from test_report import BROWSER, browsed, data_of

import graphc as gc
from graphc.runtime.spread import spread_of, spreads_svg

N = gc.dim("N")


def network() -> tuple[gc.Tensor, gc.Tensor, list[gc.Tensor]]:
    """A loss, a further output and the parameters."""
    x, t = gc.input("x", (N, 4)), gc.input("t", (N, 3))
    w, b = gc.param("w", (4, 3), init=gc.init.he_normal()), gc.param("b", (3,))
    s = gc.param("s", (), init=gc.init.ones())
    error = s * gc.tanh(x @ w + b) - t
    return gc.mean(gc.square(error)), gc.max(gc.abs(error)), [w, b, s]


def data(rng: np.random.Generator, n: int) -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float32]]]:
    return {name: rng.normal(size=(n, k)).astype(np.float32) for name, k in (("x", 4), ("t", 3))}


def test_norms_and_histograms_of_each_epoch(rng: np.random.Generator) -> None:
    loss, worst, params = network()
    step = gc.compile(loss, gc.optim.sgd(lr=0.1), outputs={"worst": worst}, record=True)
    gradients = gc.compile(gc.grad(loss, params))
    given = data(rng, 10)
    twin = gc.compile(loss, gc.optim.sgd(lr=0.1), outputs={"worst": worst})
    history = step.fit(given, batch_size=4, epochs=3, shuffle=False, progress=False)
    assert sorted(history.gradient_norms) == sorted(history.weights) == ["b", "s", "w"]
    assert list(history.outputs) == ["worst"]
    for epoch in range(3):
        squares = np.zeros(3)
        for first in (0, 4, 8):
            batch = {name: array[first : first + 4] for name, array in given.items()}
            weights = {name: np.array(value) for name, value in twin.params.items()}
            found = gradients(**batch, **weights)
            squares += [np.sum(np.square(g, dtype=np.float64)) * len(batch["x"]) / 10 for g in found]
            twin(**batch)
        norms = [history.gradient_norms[name][epoch] for name in ("w", "b", "s")]
        np.testing.assert_allclose(norms, np.sqrt(squares), rtol=1e-4)
        for name, value in twin.params.items():
            spread = history.weights[name][epoch]
            assert spread.counts.sum() == value.size
            np.testing.assert_allclose([spread.low, spread.high], [value.min(), value.max()], rtol=1e-4)


def test_a_call_gives_back_what_it_always_does(rng: np.random.Generator) -> None:
    loss, worst, _ = network()
    given = data(rng, 5)
    assert isinstance(gc.compile(loss, gc.optim.sgd(lr=0.1), record=True)(**given), float)
    _, found = gc.compile(loss, gc.optim.sgd(lr=0.1), outputs={"worst": worst}, record=True)(**given)
    assert list(found) == ["worst"]


def test_nothing_is_recorded_unasked(rng: np.random.Generator) -> None:
    history = gc.compile(network()[0], gc.optim.sgd(lr=0.1)).fit(data(rng, 8), epochs=2, progress=False)
    assert history.gradient_norms == history.weights == {}


def test_only_what_is_trained(rng: np.random.Generator) -> None:
    loss, _, params = network()
    step = gc.compile(loss, gc.optim.sgd(lr=0.1), train=params[:1], record=True)
    assert list(step.fit(data(rng, 8), epochs=2, progress=False).gradient_norms) == ["w"]


def test_a_step_that_records_is_looked_into_and_checked(rng: np.random.Generator) -> None:
    from_graph = gc.compile(network()[0], gc.optim.adam(lr=0.1), record=True)
    plain = gc.compile(network()[0], gc.optim.adam(lr=0.1))
    assert from_graph.show("forward") == plain.show("forward")
    assert from_graph.show("grad") == plain.show("grad")
    assert "squared norm of d_w" in from_graph.show("optimized")
    from_graph.profile(0.01, **data(rng, 8))


def test_a_notebook_shows_all_three(rng: np.random.Generator) -> None:
    history = gc.compile(network()[0], gc.optim.sgd(lr=0.1), record=True).fit(data(rng, 8), epochs=4, progress=False)
    shown = history._repr_html_()
    drawings = [ET.fromstring(part + "</svg>") for part in _pictures(shown)]
    assert [d.attrib["class"] for d in drawings] == ["graphc-curves", "graphc-curves", "graphc-spreads"]
    assert len([e for e in drawings[2].iter() if e.tag.endswith("polygon")]) == 3 * 3


CLICK = """
<script>
window.addEventListener("load", () => {
  const tab = [...document.querySelectorAll("[role=tab]")].find((t) => t.textContent.startsWith("Training"));
  tab.click();
  document.querySelector(".formula").click();
  document.title = "pictures " + document.querySelectorAll("#middle .pane:not([hidden]) svg").length;
});
</script>
"""


def test_the_report_has_what_was_recorded(rng: np.random.Generator, tmp_path: Path) -> None:
    step = gc.compile(network()[0], gc.optim.sgd(lr=0.1), record=True)
    step.report(tmp_path / "before.html")
    assert data_of((tmp_path / "before.html").read_text(encoding="utf-8"))["training"] == ""
    step.fit(data(rng, 8), epochs=4, progress=False)
    step.report(tmp_path / "after.html")
    training = data_of((tmp_path / "after.html").read_text(encoding="utf-8"))["training"]
    assert [kind in training for kind in ("graphc-curves", "graphc-spreads")] == [True, True]
    if BROWSER is not None:
        document, logged = browsed(tmp_path / "after.html", tmp_path, CLICK)
        assert "CONSOLE" not in logged
        assert "<title>pictures 3</title>" in document


def _pictures(html: str) -> list[str]:
    return ["<svg" + part.partition("</svg>")[0] for part in html.split("<svg")[1:]]


ODD = (np.zeros(5), np.array([np.nan, np.inf]), np.array(2.0), np.array([1.0, np.nan, 3.0]))


@pytest.mark.parametrize("array", ODD)
def test_spreads_of_odd_arrays(array: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> None:
    spread = spread_of(array)
    assert spread.counts.sum() + spread.n_bad == array.size
    assert spread.low <= spread.quantile(0.5) <= spread.high
    assert "nan" not in spreads_svg({"w": [spread, spread]})
