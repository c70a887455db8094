"""What notebooks and pages show: MathML from the same tree as text and LaTeX, and rich displays, well formed."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import numpy as np
import pytest
from test_notation import CASES, EXPRESSIONS, drawn, network

import graphc as gc
from graphc.diff.reverse import backward
from graphc.dsl.intern import intern
from graphc.notation.mathml import tree_mathml
from graphc.notation.show import to_latex, to_mathml, to_text
from graphc.notation.tree import Applied, Infix, Joined, Negated, Number, Power, Symbol, Transposed, Tree
from graphc.ops.registry import REGISTRY

MATHML = {
    "math", "mtable", "mtr", "mtd", "mrow", "mi", "mn", "mo", "mtext", "mspace", "mfrac", "msqrt", "msub", "msup",
    "munder",
}  # fmt: skip
CHILDREN = {"mfrac": 2, "msub": 2, "msup": 2, "munder": 2, "msqrt": 1}


def parsed(text: str) -> ET.Element:
    """One MathML element: known elements, each with as many children as it needs."""
    root = ET.fromstring(text)
    for element in root.iter():
        name = element.tag.rpartition("}")[2]
        assert name in MATHML, name
        assert len(element) == CHILDREN.get(name, len(element)), text
        assert name in ("mi", "mn", "mo", "mtext") or not (element.text or "").strip()
    return root


def words(root: ET.Element) -> str:
    return "".join(root.itertext()).replace("\u2062", "*").replace("\u2061", "").replace("−", "-")


@pytest.mark.parametrize("make, text", EXPRESSIONS, ids=[w for _, w in EXPRESSIONS])
def test_expressions_are_well_formed(make: object, text: str) -> None:
    graph = intern({"": make()}).graph  # type: ignore[operator]
    root = parsed(to_mathml(graph, [graph.outputs[""]], dims=True))
    for letter in (c for c in text if c.isalpha() and c.isascii() and c.islower() and len(text) < 8):
        assert letter in words(root)


@pytest.mark.parametrize("name, number", CASES)
def test_every_operation_and_its_cotangents_are_well_formed(name: str, number: int) -> None:
    made = drawn(REGISTRY[name], number)
    if made is None:
        return
    graph, _ = made
    out = graph.outputs["out"]
    wanted = [n for n in graph.nodes if n.kind == "input" and n.dtype.kind == "f"]
    if out.dtype.kind == "f" and wanted:
        ct = graph.add("input", (), "ct", out.dtype, out.shape)
        found = backward(graph, {out: ct}, wanted).cotangents
        graph.outputs |= {f"g{k}": node for k, node in enumerate(found) if node is not None}
    rows = parsed(to_mathml(graph))[0]
    assert len(rows) == len(to_text(graph).splitlines()) == to_latex(graph).count(r"\\") + 1


@pytest.mark.parametrize("tree, mathml", [
    (Infix("*", Infix("+", Symbol("a"), Symbol("b")), Symbol("c")), "(a+b)*c"),
    (Infix("-", Symbol("a"), Infix("-", Symbol("b"), Symbol("c"))), "a-(b-c)"),
    (Infix("⊙", Infix("·", Symbol("a"), Symbol("b")), Symbol("c")), "(a·b)⊙c"),
    (Infix("*", Number("2"), Infix("·", Symbol("a"), Symbol("b"))), "2*a·b"),
    (Power(Negated(Symbol("a")), Number("2")), "(-a)2"),
    (Transposed(Infix("+", Symbol("a"), Symbol("b"))), "(a+b)⊤"),
    (Joined("Σ", ("n",), Infix("+", Symbol("a"), Number("-1"))), "∑n(a+(-1))"),
    (Applied("relu", (Symbol("d_alpha"),)), "relu(dα)"),
    (Infix("<", Symbol("a"), Symbol("b")), "a<b"),
])  # fmt: skip
def test_trees(tree: Tree, mathml: str) -> None:
    assert words(ET.fromstring(tree_mathml(tree))) == mathml


def test_names_and_sizes_are_escaped() -> None:
    N = gc.dim("N")
    text = gc.mathml(gc.reshape(gc.input("x", (N, 4)), (-1,)))
    assert "4·N" in words(parsed(text))
    assert "a&b" in words(parsed(gc.mathml(gc.exp(gc.input("x", (3,))).named("a&b") + 1)))


def test_a_step_and_its_history_show_themselves() -> None:
    loss, _ = network()
    step = gc.compile(loss, gc.optim.sgd(lr=0.1))
    page = step._repr_html_()
    assert [title in page for title in ("Forward pass", "Back propagation", "Update")] == [True] * 3
    elements = page.split("</h4>")[1:]
    assert len(elements) == 3
    for element in elements:
        parsed(element[: element.index("</math>") + len("</math>")])
    assert "&lt;graphc step" in page
    rng = np.random.default_rng(0)
    data = {"x": rng.normal(size=(40, 64)).astype(np.float32), "y": rng.integers(0, 10, 40).astype(np.int32)}
    history = step.fit(data, epochs=3, validation=data, progress=False)
    shown = history._repr_html_()
    drawing = ET.fromstring(shown[shown.index("<svg") :])
    lines = [e for e in drawing.iter() if e.tag.endswith("polyline")]
    assert [len(e.attrib["points"].split()) for e in lines] == [3, 3]
    assert "<pre" in gc.explain(loss)._repr_html_()
    assert gc.grad(loss, step_param(loss))._repr_latex_().startswith("$\\displaystyle")
    assert "Back propagation" not in step.function(loss)._repr_html_()


def step_param(loss: gc.Tensor) -> gc.Tensor:
    return next(t for t in intern({"loss": loss}).leaves.values() if t.kind == "param")
