"""Drawings: what they hold, that they are well formed, and that boxes stand where they should."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import types
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc.dsl.intern import intern
from graphc.inspect.boxes import BACKWARD, FORWARD, KEPT, UPDATE, Boxes, boxes_of, leaves_of
from graphc.inspect.layers import layered, longest_paths
from graphc.inspect.neurons import dense_layers
from graphc.notation.expressions import graph_lines

N = gc.dim("N")
NETWORK = """
import graphc as gc
N = gc.dim("N")
x, y = gc.input("x", (N, 6)), gc.input("y", (N,), dtype="int32")
w1, b1 = gc.param("fc1.w", (6, 20)), gc.param("fc1.b", (20,))
w2, b2 = gc.param("fc2.w", (20, 4)), gc.param("fc2.b", (4,))
z = x @ w1 + b1
hidden = gc.relu(z)
logits = hidden @ w2 + b2
loss = gc.mean(gc.cross_entropy(logits, y))
"""


def network() -> gc.Tensor:
    known: dict[str, gc.Tensor] = {}
    exec(compile(NETWORK, "network.py", "exec"), known)
    return known["loss"]


def boxes(loss: gc.Tensor) -> Boxes:
    interned = intern({"loss": loss})
    params = {n: t for n, t in interned.leaves.items() if t.kind == "param"}
    found = gc.grad(loss, list(params.values()))
    backward = graph_lines(intern({f"d_{n}": g for n, g in zip(params, found, strict=True)}).graph, define=False)
    return boxes_of(graph_lines(interned.graph), backward, (), leaves_of(interned.graph))


def elements(svg: str, tag: str) -> list[ET.Element]:
    return [e for e in ET.fromstring(svg).iter() if e.tag.rpartition("}")[2] == tag]


def test_a_box_for_every_line_and_leaf() -> None:
    found = boxes(network())
    texts = {lane: sorted(b.text[0] for b in found.boxes if b.lane == lane) for lane in (FORWARD, BACKWARD)}
    assert texts[FORWARD] == sorted([
        "x", "y", "fc1.w", "fc1.b", "fc2.w", "fc2.b", "z = x · fc1.w + fc1.b", "hidden = relu(z)",
        "logits = hidden · fc2.w + fc2.b", "loss = mean(cross_entropy(logits, y))",
    ])  # fmt: skip
    assert texts[BACKWARD] == sorted([
        "d_logits = (softmax(logits) - onehot(y)) / N", "d_hidden = d_logits · fc2.wᵀ", "d_z = d_hidden ⊙ [hidden > 0]",
        "d_fc1.w = xᵀ · d_z", "d_fc1.b = Σₙ d_z", "d_fc2.w = hiddenᵀ · d_logits", "d_fc2.b = Σₙ d_logits",
    ])  # fmt: skip


def test_values_and_gradients_stand_in_one_row() -> None:
    found = boxes(network())
    rows = {(b.lane, b.name): b.row for b in found.boxes}
    pairs = [(rows[FORWARD, n[2:]], row) for (lane, n), row in rows.items() if lane == BACKWARD]
    assert len(pairs) == 7 and all(a == b for a, b in pairs)
    for edge in found.edges:
        start, end = found.boxes[edge.start], found.boxes[edge.end]
        assert edge.name in end.text[0]
        if not edge.link:
            assert start.row < end.row if start.lane == FORWARD else start.row > end.row


def test_layers_are_grouped() -> None:
    found = boxes(network())
    groups = {label: sorted(found.boxes[k].name for k in members) for label, members in found.groups}
    assert groups == {"fc1": ["fc1.b", "fc1.w", "x", "z"], "fc2": ["fc2.b", "fc2.w", "logits"]}


def test_the_drawing_is_well_formed_and_nothing_overlaps() -> None:
    svg = gc.draw(network()).svg
    root = ET.fromstring(svg)
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    named = [g for g in elements(svg, "g") if "data-name" in g.attrib]
    assert len(named) == 17
    corners = []
    for g in named:
        rect = next(e for e in g if e.attrib.get("class") == "box")
        x, y, w, h = (float(rect.attrib[k]) for k in ("x", "y", "width", "height"))
        assert 0 <= x and x + w <= width and 0 <= y and y + h <= height
        corners.append((x, y, w, h))
    for k, (x, y, w, h) in enumerate(corners):
        for x2, y2, w2, h2 in corners[k + 1 :]:
            assert x + w < x2 or x2 + w2 < x or y + h < y2 or y2 + h2 < y
    paths = [e for e in elements(svg, "path") if e.attrib.get("class", "").startswith("edge")]
    assert len(paths) == 15
    for path in paths:
        heights = [float(y) for _, y in re.findall(r"([\d.]+) ([\d.]+)", path.attrib["d"])]
        assert (heights[0] < heights[-1]) == (path.attrib["class"] == "edge forward")
    assert "prefers-color-scheme: dark" in svg and "http" not in svg.replace("http://www.w3.org/2000/svg", "")


def test_one_network_has_one_picture() -> None:
    code = NETWORK + "import hashlib\nprint(hashlib.sha256(gc.draw(loss).svg.encode()).hexdigest())"
    found = set()
    for seed in ("0", "1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(Path(__file__).parent.parent)}
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=60)
        found.add(done.stdout)
    assert len(found) == 1 and found != {""}


def test_values_are_on_the_edges() -> None:
    rng = np.random.default_rng(0)
    values: dict[str, Any] = {"x": rng.normal(size=(5, 6)), "y": [0, 1, 2, 3, 0], "fc1.b": np.full(20, -100.0)}
    svg = gc.draw(network(), values=values).svg
    named = [g for g in elements(svg, "g") if "data-name" in g.attrib]
    words = {g.attrib["data-name"]: [t.text for t in g if t.tag.endswith("text")] for g in named}
    x = np.asarray(values["x"], np.float32)
    assert words["x"] == ["x", f"{x.min():.2g} … {x.max():.2g}"]
    assert words["hidden"] == ["hidden = relu(z)", "0"] and words["d_fc1.w"][1] == "0"
    assert float(str(words["loss"][1])) == pytest.approx(np.log(4), rel=1e-2)


def test_neurons_and_arcs() -> None:
    loss = network()
    layers = dense_layers(graph_lines(intern({"loss": loss}).graph), leaves_of(intern({"loss": loss}).graph))
    assert [(layer.weight, layer.n_in, layer.n_out) for layer in layers] == [("fc1.w", 6, 20), ("fc2.w", 20, 4)]
    svg = gc.draw(loss).svg
    assert len(elements(svg, "circle")) == 6 + 8 + 4  # of 20 the first and the last four
    assert len(elements(svg, "line")) == 6 * 8 + 8 * 4
    w = np.ones((6, 20), np.float32)
    w[0] = -1.0
    drawn = gc.draw(loss, values={"x": np.ones((2, 6)), "y": [0, 1], "fc1.w": w}).svg
    signs = [e.attrib["class"] for e in elements(drawn, "line")][: 6 * 8]
    assert signs == ["negative"] * 8 + ["positive"] * 40
    x = gc.input("x", (3, 4))
    assert "circle" not in gc.draw(gc.sum(gc.exp(x))).svg
    assert "circle" not in gc.draw(x @ x.T).svg


def test_long_networks_are_folded() -> None:
    h = gc.input("x", (2, 3))
    for k in range(100):
        h = gc.tanh(h @ gc.param(f"w{k}", (3, 3)))
    found = boxes(gc.sum(h))
    folded = [b for b in found.boxes if b.kind == "folded"]
    assert [b.lane for b in folded] == [FORWARD, BACKWARD] and folded[0].row == folded[1].row
    names = [b.name for b in found.boxes if b.lane == FORWARD and b.kind == "line"]
    assert len(names) == 2 * KEPT and len(folded[0].text) == 101 - 2 * KEPT + 1
    assert {b.name for b in found.boxes if b.kind == "param"} == {f"w{k}" for k in (*range(10), *range(91, 100))}
    lines = [b for b in found.boxes if b.lane == BACKWARD and b.kind == "line"]
    gradients = [b.name for b in lines if b.name.startswith("d_w")]
    assert sorted(gradients) == sorted(f"d_w{k}" for k in (*range(10), *range(91, 100)))
    ends = [(e.start, e.end) for e in found.edges]
    assert len(ends) == len(set(ends))
    ET.fromstring(gc.draw(gc.sum(h)).svg)


def test_a_step_is_drawn_with_its_update() -> None:
    step = gc.compile(network(), gc.optim.sgd(lr=0.1, momentum=0.9))
    svg = step.show("svg")
    lanes = [g.attrib["class"].split()[0] for g in elements(svg, "g") if "data-name" in g.attrib]
    assert [lanes.count(lane) for lane in (FORWARD, BACKWARD, UPDATE)] == [10, 7, 5]
    updates = [e for e in elements(svg, "g") if e.attrib.get("class") == "update line"]
    assert any("fc1.w ← fc1.w - lr * sgd.v.fc1.w′" in "".join(e.itertext()) for e in updates)
    assert "== svg ==" not in step.show()
    assert ET.fromstring(step.function(network()).show("svg")) is not None


def test_what_cannot_be_drawn(tmp_path: Path) -> None:
    loss = network()
    with pytest.raises(gc.UsageError, match=r"^draw: g.gif given; needs a file whose name ends in .svg or .png\n  .*t"):
        gc.draw(loss, "g.gif")
    with pytest.raises(gc.UsageError, match=r"^draw: int given; needs a tensor"):
        gc.draw(3)  # type: ignore[arg-type]
    with pytest.raises(gc.FileAccessError, match=r"^draw: .* cannot be written"):
        gc.draw(loss, tmp_path / "none" / "g.svg")
    with pytest.raises(gc.InputError, match=r"^explain: input 'x' is missing"):
        gc.draw(loss, values={})
    made = gc.draw(loss, tmp_path / "g.svg")
    assert (tmp_path / "g.svg").read_text(encoding="utf-8") == made.svg == made._repr_svg_()


def test_rows_and_places() -> None:
    assert longest_paths(2, [(0, 1), (1, 0)]) is None
    found = layered([10.0] * 4, [0, 0, 1, 1], [(0, 3), (1, 2)], gap=5.0)  # crossed as given
    assert (found.x[0] < found.x[1]) == (found.x[3] < found.x[2])
    long = layered([10.0] * 3, [0, 1, 2], [(0, 1), (1, 2), (0, 2)], gap=5.0)
    assert len(long.bends[2]) == 1 and abs(long.bends[2][0] - long.x[1]) >= 17.0
    assert layered([10.0], [0], [], gap=5.0).x == (5.0,)


def test_curves(tmp_path: Path) -> None:
    made = gc.curves(
        {"a": [3.0, 2.0, 1.0], "b": [3.0, float("nan"), 200.0], "none": [float("inf")]}, tmp_path / "c.svg"
    )
    lines = [e.attrib["points"].split() for e in elements(made.svg, "polyline")]
    assert [len(points) for points in lines] == [3, 2]
    assert (tmp_path / "c.svg").read_text(encoding="utf-8") == made.svg
    labels = [e for e in elements(made.svg, "text") if e.text in ("a", "b")]
    assert abs(float(labels[0].attrib["y"]) - float(labels[1].attrib["y"])) >= 12
    with pytest.raises(gc.UsageError, match=r"^curves: no curve with two finite numbers given"):
        gc.curves({"a": [1.0]})
    with pytest.raises(gc.UsageError, match=r"^curves: c.gif given"):
        gc.curves({"a": [1.0, 2.0]}, "c.gif")


def test_the_guide_shows_what_its_code_draws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The drawing in docs/ is the one that the page's own block draws; its losses may round otherwise elsewhere."""
    docs = Path(__file__).parent.parent / "docs"
    page = (docs / "learn.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    monkeypatch.chdir(tmp_path)
    module = types.ModuleType("learn")
    for block in blocks[:2]:
        exec(compile(block, "learn.md", "exec"), module.__dict__)
    assert (tmp_path / "learn.svg").read_text(encoding="utf-8") == (docs / "learn.svg").read_text(encoding="utf-8")
    assert len(elements((docs / "rates.svg").read_text(encoding="utf-8"), "polyline")) == 4


def test_a_png_is_a_picture_of_the_drawing(tmp_path: Path) -> None:
    pytest.importorskip("resvg_py")
    x, w = gc.input("x", (gc.dim("N"), 3)), gc.param("w", (3, 2))
    drawing = gc.draw(gc.mean(gc.tanh(x @ w)), tmp_path / "g.png")
    content = (tmp_path / "g.png").read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    wide, high = (int.from_bytes(content[k : k + 4], "big") for k in (16, 20))
    box = ET.fromstring(drawing.svg).attrib["viewBox"].split()
    assert (wide, high) == (round(2 * float(box[2])), round(2 * float(box[3])))


def test_a_png_without_its_library_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "resvg_py", None)
    x = gc.input("x", (3,))
    with pytest.raises(gc.UsageError, match=r"^draw: a PNG needs resvg-py: pip install resvg-py"):
        gc.draw(gc.sum(x), tmp_path / "g.png")
    assert not (tmp_path / "g.png").exists()


@pytest.mark.parametrize("n", [3, 6, 40])
def test_labels_of_curves_that_end_together_lie_apart(n: int, rng: np.random.Generator) -> None:
    ends = rng.uniform(1.0, 1.05, n)
    drawing = gc.curves({f"curve {k}": [3.0, float(end)] for k, end in enumerate(ends)})
    labels = [e for e in ET.fromstring(drawing.svg).iter() if (e.text or "").startswith("curve")]
    places = sorted(float(e.attrib["y"]) for e in labels)
    assert len(places) == n
    gaps = np.diff(places)
    assert gaps.min() > (11.9 if n < 10 else 3)
    assert places[0] > 10 and places[-1] < 200
