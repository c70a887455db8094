"""Graphs as mathematics: golden text and LaTeX; and what is shown, computed as it stands, is what the graph says."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pytest
from notation_values import Array, Unknown, computed

import graphc as gc
from graphc.diff.reverse import backward
from graphc.dsl.intern import intern
from graphc.dsl.tensor import weak_of
from graphc.graph.dtypes import as_dtype, float32
from graphc.graph.formula import Affine, Formula, FromData, Guard, Read, constant, plain, var
from graphc.graph.graph import Graph, Node, Origin
from graphc.graph.scalar import trace
from graphc.graph.sizes import SizeLike, dim
from graphc.graph.text import from_text
from graphc.graph.text import to_text as graph_text
from graphc.graph.verify import verify
from graphc.notation.expressions import graph_lines
from graphc.notation.latex import name_latex, tree_latex
from graphc.notation.show import to_latex, to_text
from graphc.notation.text import tree_text
from graphc.notation.tree import Applied, Bracket, Infix, Joined, Negated, Number, Power, Symbol, Transposed, Tree
from graphc.ops.record import Draw, Operand, Record, TensorType
from graphc.ops.registry import REGISTRY
from graphc.reference import evaluate

N = dim("N")


def network() -> tuple[gc.Tensor, dict[str, gc.Tensor]]:
    """Two layers, relu, cross entropy: the loss, and the parameters."""
    x = gc.input("x", (N, 64))
    y = gc.input("y", (N,), dtype="int32")
    w1, b1 = gc.param("w1", (64, 128)), gc.param("b1", (128,))
    w2, b2 = gc.param("w2", (128, 10)), gc.param("b2", (10,))
    z = x @ w1 + b1
    hidden = gc.relu(z)
    logits = hidden @ w2 + b2
    loss = gc.mean(gc.cross_entropy(logits, y))
    return loss, {"w1": w1, "b1": b1, "w2": w2, "b2": b2}


def gradients(loss: gc.Tensor, names: list[str]) -> tuple[Graph, list[Node]]:
    """The graph with the cotangents of declared tensors, as the differentiator gives them."""
    graph = intern({"loss": loss}).graph
    leaves = {n.attr: n for n in graph.nodes if n.kind in ("param", "input")}
    seed = graph.const(np.ones((), np.float32))
    found = backward(graph, {graph.outputs["loss"]: seed}, [leaves[n] for n in names]).cotangents
    return graph, [n for n in found if n is not None]


def test_network_forward(golden: Callable[..., None]) -> None:
    graph = intern({"loss": network()[0]}).graph
    golden(to_text(graph, dims=True))
    golden(to_latex(graph), "latex")


def test_network_backward(golden: Callable[..., None]) -> None:
    graph, found = gradients(network()[0], ["w1", "b1", "w2", "b2"])
    text = to_text(graph, found)
    for line in (
        "d_hidden = d_logits · w2ᵀ", "d_z = d_hidden ⊙ [z > 0]", "d_w1 = xᵀ · d_z", "d_b1 = Σₙ d_z",
        "d_w2 = hiddenᵀ · d_logits", "d_b2 = Σₙ d_logits",
    ):  # fmt: skip
        assert line in text.splitlines()
    golden(text)
    golden(to_latex(graph, found), "latex")


def test_a_gradient_prints_as_maths() -> None:
    loss, parameters = network()
    assert str(gc.grad(loss, parameters["w1"])).splitlines() == [
        "d_logits = (softmax(logits) - onehot(y)) / N",
        "d_hidden = d_logits · w2ᵀ",
        "d_z = d_hidden ⊙ [hidden > 0]",
        "d_w1 = xᵀ · d_z",
    ]


def test_updates_are_lines() -> None:
    w, lr = gc.param("w", (3,)), gc.hyper("lr", 0.1)
    x = gc.input("x", (3,))
    graph = intern({"loss": gc.sum(w * x), "new": w - lr * x}).graph
    target = next(n for n in graph.nodes if n.attr == "w")
    graph.updates[target] = graph.outputs.pop("new")
    assert to_text(graph) == "loss = Σ w ⊙ x\nw ← w - lr * x"


def test_new_values_that_others_read_are_primed() -> None:
    m, w, g = gc.state("m", (3,)), gc.param("w", (3,)), gc.input("g", (3,))
    new = 0.9 * m + g
    graph = intern({"m": new, "w": w - gc.hyper("lr", 0.1) * new}).graph
    leaves = {n.attr: n for n in graph.nodes if not n.inputs}
    graph.updates = {leaves[k]: graph.outputs.pop(k) for k in ("m", "w")}
    for node in graph.nodes:
        graph.origins[node] = ()
    assert to_text(graph) == "m ← 0.9 * m + g\nw ← w - lr * m′"
    assert r"w &\leftarrow w - \mathrm{lr} \, {m}^{\prime}" in to_latex(graph)
    graph.updates = {leaves["m"]: leaves["w"], leaves["w"]: leaves["m"]}
    assert to_text(graph) == "m ← w\nw ← m"


x, v, u = gc.input("x", (N, 4)), gc.input("v", (4,)), gc.input("u", (N,))
a3, x2 = gc.input("a3", (3,)), gc.input("x2", (N, 4))
A, B = gc.input("A", (3, 4)), gc.input("B", (4, 5))
T, idx = gc.input("T", (100, 8)), gc.input("idx", (N,), dtype="int32")
S, C = gc.input("S", (6, N, 4)), gc.input("C", (6, 4, 5))
s = gc.input("s", ())
bilinear = gc.formula("bilinear", "out[n,o] = sum(i,j) x[n,i] * w[o,i,j] * z[n,j]")
swish = gc.elementwise("swish", lambda x, beta: x / (1 + gc.sym.exp(-beta * x)))

EXPRESSIONS: list[tuple[Callable[[], gc.Tensor], str]] = [
    (lambda: A @ B, "A · B"),
    (lambda: A.T @ A, "Aᵀ · A"),
    (lambda: x @ v, "x · v"),
    (lambda: v @ B, "v · B"),
    (lambda: v @ v, "v · v"),
    (lambda: A.T @ a3, "Aᵀ · a3"),
    (lambda: S @ C, "S · C"),
    (lambda: S @ B, "S · B"),
    (lambda: 2 * (A @ B) + 1, "2 * A · B + 1"),
    (lambda: gc.outer(u, v), "u ⊗ v"),
    (lambda: x * v + s, "x ⊙ v + s"),
    (lambda: s * x, "s * x"),
    (lambda: x - (-v), "x + v"),
    (lambda: x / v / 2, "x / v / 2"),
    (lambda: (x + 1) * (x - 1), "(x + 1) ⊙ (x - 1)"),
    (lambda: -(x + v), "-(x + v)"),
    (lambda: x**2 + x**3.0, "x² + x³"),
    (lambda: gc.sum(x, axis=0), "Σₙ x"),
    (lambda: gc.sum(x, axis=1), "Σⱼ x"),
    (lambda: gc.sum(x), "Σ x"),
    (lambda: gc.mean(x), "mean(x)"),
    (lambda: gc.mean(x, axis=0), "meanₙ(x)"),
    (lambda: gc.max(x, axis=1), "maxⱼ(x)"),
    (lambda: gc.prod(v), "Π v"),
    (lambda: gc.sum(x * x), "Σ x²"),
    (lambda: gc.sum(x) + 1, "(Σ x) + 1"),
    (lambda: gc.softmax(x), "softmax(x)"),
    (lambda: gc.softmax(x, axis=0), "softmax(x, axis=0)"),
    (lambda: gc.log_softmax(x @ B), "log_softmax(x · B)"),
    (lambda: gc.exp(x) / gc.sum(gc.exp(x), axis=1, keepdims=True), "softmax(x)"),
    (lambda: (gc.softmax(x) - gc.one_hot(idx, 4)) / N, "(softmax(x) - onehot(idx)) / N"),
    (lambda: gc.relu(x), "relu(x)"),
    (lambda: gc.where(x > 0, x, 0.0), "relu(x)"),
    (lambda: gc.where(x > 0, v, 0.0), "v ⊙ [x > 0]"),
    (lambda: gc.where(x > v, x, v), "max(v, x)"),
    (lambda: gc.gelu(x), "gelu(x)"),
    (lambda: gc.sqrt(x) * gc.rsqrt(v), "sqrt(x) / sqrt(v)"),
    (lambda: gc.clip(x, -1.0, 2.0), "min(max(x, -1), 2)"),
    (lambda: x.T, "xᵀ"),
    (lambda: x[0], "x[0]"),
    (lambda: x[:, 1:3], "x[:, 1:3]"),
    (lambda: v[::-1], "v[::-1]"),
    (lambda: v[::2], "v[::2]"),
    (lambda: u[:, None] * x, "u[:, None] ⊙ x"),
    (lambda: T[idx], "T[idx]"),
    (lambda: gc.one_hot(idx, 5), "onehot(idx)"),
    (lambda: gc.one_hot(idx, 4) @ B, "onehot(idx) · B"),
    (lambda: swish(x, s), "swish(x, s)"),
    (lambda: gc.concat([x, x2]), "concat(x, x2, axis=0)"),
    (lambda: (x > 0) & (v < 1), "x > 0 and v < 1"),
    (lambda: gc.reshape(x, (-1,)), "reshape(x, 4*N)"),
    (lambda: gc.cumsum(v, axis=0), "cumsum(v, axis=0)"),
]  # fmt: skip


@pytest.mark.parametrize("make, wanted", EXPRESSIONS, ids=[w for _, w in EXPRESSIONS])
def test_expressions(make: Callable[[], gc.Tensor], wanted: str) -> None:
    graph = intern({"": make()}).graph
    assert to_text(graph, [graph.outputs[""]]) == wanted
    assert to_latex(graph, [graph.outputs[""]]).startswith("\\begin{aligned}\n")


def test_names_of_the_user_stand() -> None:
    h = (x @ B).named("h")
    y = gc.exp(h) + h
    graph = intern({"y": y}).graph
    assert to_text(graph) == "h = x · B\ny = exp(h) + h"
    assert to_text(graph, define=False) == "y = exp(h) + h"


def test_values_used_twice_get_a_line() -> None:
    t = gc.exp(x + v)
    graph = intern({"out": t * gc.sum(t)}).graph
    for node in graph.nodes:
        graph.origins[node] = tuple(Origin(op=o.op) for o in graph.origins.get(node, ()))
    assert to_text(graph) == "t1 = exp(x + v)\nout = (Σ t1) * t1"


def test_point_by_point(golden: Callable[..., None]) -> None:
    X, W, Z = gc.input("X", (N, 3)), gc.param("W", (5, 3, 4)), gc.input("Z", (N, 4))
    o = bilinear(X, W, Z)
    graph, found = gradients(gc.sum(o * o), ["W", "X"])
    golden(to_text(graph, [graph.outputs["loss"], *found]))
    graph, found = gradients(gc.sum(T[idx] * gc.sum(T[idx])), ["T"])
    golden(to_text(graph, found), "scatter")


def test_second_derivatives() -> None:
    a = gc.input("a", (N,))
    first = gc.grad(gc.sum(gc.sin(a)), a)
    second = gc.grad(gc.sum(first * first), a)
    text = to_text(intern({"second": second}).graph)
    assert "sin(a)" in text and "cos(a)" in text


def test_names_do_not_clash() -> None:
    t1, i = gc.input("t1", (N, 3)), gc.input("i", (3, 3))
    e = gc.exp(t1 @ i)
    text = to_text(intern({"out": gc.sum(e) * e}).graph)
    assert text.splitlines()[0] == "t2 = exp(t1 · i)" or text.startswith("e = ")
    graph = intern({"out": gc.formula("cut", "out[n] = sum(k) x[n, k] * y[k, k]")(t1, i)}).graph
    graph.origins.clear()
    assert to_text(graph) == "out[n] = Σⱼ t1[n, j] * i[j, j]"


@pytest.mark.parametrize("tree, text, latex", [
    (Infix("*", Infix("+", Symbol("a"), Symbol("b")), Symbol("c")), "(a + b) * c", r"\left(a + b\right) \, c"),
    (Infix("-", Symbol("a"), Infix("-", Symbol("b"), Symbol("c"))), "a - (b - c)", r"a - \left(b - c\right)"),
    (Infix("/", Symbol("a"), Infix("/", Symbol("b"), Symbol("c"))), "a / (b / c)", r"\frac{a}{\frac{b}{c}}"),
    (Infix("⊙", Infix("·", Symbol("a"), Symbol("b")), Symbol("c")), "(a · b) ⊙ c", r"\left(a \cdot b\right) \odot c"),
    (Infix("·", Symbol("a"), Infix("⊙", Symbol("b"), Symbol("c"))), "a · (b ⊙ c)", r"a \cdot \left(b \odot c\right)"),
    (Infix("⊙", Infix("*", Number("2"), Symbol("a")), Symbol("b")), "2 * a ⊙ b", r"2 \, a \odot b"),
    (Infix("⊙", Infix("/", Symbol("a"), Symbol("b")), Symbol("c")), "(a / b) ⊙ c", r"\frac{a}{b} \odot c"),
    (Power(Negated(Symbol("a")), Number("2")), "(-a)²", r"\left(-a\right)^{2}"),
    (Power(Symbol("a"), Infix("-", Symbol("n"), Number("1"))), "a^(n - 1)", "a^{n - 1}"),
    (Negated(Infix("*", Symbol("a"), Symbol("b"))), "-a * b", r"-a \, b"),
    (Negated(Infix("+", Symbol("a"), Symbol("b"))), "-(a + b)", r"-\left(a + b\right)"),
    (Transposed(Infix("+", Symbol("a"), Symbol("b"))), "(a + b)ᵀ", r"\left(a + b\right)^{\top}"),
    (Infix("*", Joined("Σ", ("n",), Symbol("a")), Symbol("b")), "(Σₙ a) * b", r"\left(\sum_{n} a\right) \, b"),
    (Joined("Σ", ("b", "n"), Infix("+", Symbol("a"), Number("1"))), "Σ_b,n (a + 1)", r"\sum_{b,n} \left(a + 1\right)"),
    (Joined("max", ("j",), Symbol("a")), "maxⱼ(a)", r"\max_{j}\left(a\right)"),
    (Bracket(Negated(Symbol("c"), logical=True)), "[not c]", r"\left[\neg c\right]"),
    (Applied("sqrt", (Symbol("beta"),)), "sqrt(beta)", r"\sqrt{\beta}"),
    (Number("1e-05"), "1e-05", r"1 \cdot 10^{-5}"),
])  # fmt: skip
def test_trees(tree: Tree, text: str, latex: str) -> None:
    assert tree_text(tree) == text
    assert tree_latex(tree) == latex


def test_latex_names() -> None:
    assert name_latex("d_hidden_2") == r"d_{\mathrm{hidden}_{2}}"
    assert name_latex("fc1.w") == r"\mathrm{fc1.w}"
    assert name_latex("a_b") == r"\mathrm{a\_b}"


def drawn(record: Record, number: int) -> tuple[Graph, dict[str, Array]] | None:
    """A record's sample as a graph of one node, and values for its inputs."""
    rng = np.random.default_rng(number)
    graph = Graph()
    operands: list[Operand] = []
    inputs: list[Node] = []
    values: dict[str, Array] = {}
    for k, given in enumerate(record.samples[number].operands):
        if not isinstance(given, Draw):
            weak = weak_of(given)
            assert weak is not None
            operands.append(weak)
            continue
        dtype = as_dtype({"f": "float64", "i": "int32", "b": "bool"}.get(given.dtype, given.dtype))
        array = rng.uniform(given.low, given.high, given.shape)
        name = ("x", "y", "z", "w")[k]
        values[name] = array
        if dtype.kind != "f":
            values[name] = (np.floor(array) if dtype.kind == "i" else array > 0).astype(dtype.numpy)
        operands.append(TensorType(given.shape, dtype))
        inputs.append(graph.add("input", (), name, dtype, given.shape))
    if record.build is None or not inputs:
        return None
    formula = record.build(*operands, **dict(record.samples[number].attrs))
    graph.outputs["out"] = graph.formula(formula, inputs, [Origin(op=record.name)])
    return graph, values


CASES = [(name, k) for name, r in REGISTRY.items() for k in range(len(r.samples))]


@pytest.mark.parametrize("name, number", CASES)
def test_what_is_shown_is_so(name: str, number: int) -> None:
    """The lines of every operation, and of its cotangents, computed as they stand, against the reference."""
    made = drawn(REGISTRY[name], number)
    if made is None:
        return
    graph, values = made
    out = graph.outputs["out"]
    wanted = [n for n in graph.nodes if n.kind == "input" and n.dtype.kind == "f"]
    if out.dtype.kind == "f" and wanted:
        ct = graph.add("input", (), "ct", out.dtype, out.shape)
        shape = tuple(int(n) for n in out.shape if isinstance(n, int))
        values["ct"] = np.random.default_rng(5).uniform(0.5, 1.5, shape)
        for k, node in enumerate(backward(graph, {out: ct}, wanted).cotangents):
            if node is not None:
                graph.outputs[f"g{k}"] = node
    verify(graph)
    again = from_text(graph_text(graph))
    assert graph_text(again) == graph_text(graph, origins=False)
    exact = evaluate(graph, values)
    try:
        found = computed(graph_lines(graph), values)
    except Unknown:
        assert name in SHOWN_ONLY, to_text(graph)
        return
    for key, node in graph.outputs.items():
        shaped = [f[key] for f in found if np.shape(f[key]) == np.shape(exact[node])]
        assert any(np.allclose(f, exact[node], 1e-5, 1e-6) for f in shaped), to_text(graph)


def models() -> dict[str, tuple[gc.Tensor, list[gc.Tensor]]]:
    """Losses of fixed sizes, and what to differentiate them by."""
    x, y = gc.input("x", (6, 8)), gc.input("y", (6, 4))
    w, labels = gc.param("w", (8, 4)), gc.input("labels", (6,), dtype="int32")
    mu = gc.mean(x, axis=1, keepdims=True)
    ln = (x - mu) / gc.sqrt(gc.var(x, axis=1, keepdims=True) + 1e-5)
    t, first, second = gc.input("t", (5, 1)), gc.param("first", (1, 7)), gc.param("second", (7, 1))
    u = gc.tanh(t @ first) @ second
    bend = gc.grad(gc.sum(gc.grad(gc.sum(u), t)), t)
    q, k, v = (gc.input(n, (2, 3, 4)) for n in "qkv")
    attended = gc.softmax(q @ k.mT / 2.0) @ v
    hidden = gc.relu(x @ w)
    return {
        "mse": (gc.mse(gc.tanh(x @ w), y), [w, x]),
        "layer norm": (gc.sum(ln * ln * ln), [x]),
        "bend": (gc.mean((bend + u) ** 2), [first, second]),
        "attention": (gc.sum(attended * attended), [q, k, v]),
        "bce": (gc.bce_with_logits(x @ w, y), [w]),
        "labels": (gc.mean(gc.cross_entropy(x @ w, labels)), [w]),
        "ties": (gc.mean(gc.max(x @ w, axis=1)), [w]),
        "norm": (gc.norm(w), [w]),
        "std": (gc.sum(gc.std(hidden, axis=0)) + gc.logsumexp(hidden), [x, w]),
    }


@pytest.mark.parametrize("name", models())
def test_models_are_shown_as_they_are(name: str) -> None:
    """The maths of whole models and of their derivatives, computed as it stands, against the reference."""
    rng = np.random.default_rng(11)
    loss, by = models()[name]
    shown = [loss, *gc.grad(loss, by)]
    for tensor in shown:
        graph = intern({"value": tensor}).graph
        values: dict[str, Array] = {}
        for node in graph.nodes:
            if node.kind in ("input", "param"):
                shape = tuple(int(n) for n in node.shape if isinstance(n, int))
                whole = node.dtype.kind == "i"
                values[str(node.attr)] = rng.integers(0, 4, shape).astype(np.int32) if whole else rng.normal(size=shape)
        exact = evaluate(graph, values, dtype64=True)[graph.outputs["value"]]
        lines = graph_lines(graph, define=True)
        found = [f[lines[-1].name] for f in computed(lines, values)]
        shaped = [f for f in found if np.shape(f) == np.shape(exact)]
        assert any(np.allclose(f, exact, 1e-5, 1e-7) for f in shaped), to_text(graph, define=True)


# Lines that a reader understands and the little evaluator does not: ranges that stand nowhere alone.
SHOWN_ONLY = ("prod",)


def test_long_chains_are_shown_without_recursion() -> None:
    graph = Graph()
    node = graph.add("input", (), "x", float32, (3,))
    formula = Formula((3,), plain(1), (3,), (Read(0, plain(1)),), trace(lambda a: gc.sym.exp(a) * 0.5, [float32]))
    for _ in range(5_000):
        node = graph.formula(formula, (node,))
    graph.outputs["y"] = node
    start = time.process_time()
    text = to_text(graph)
    assert time.process_time() - start < 30
    assert text.splitlines()[-1].startswith("y = ") and max(map(len, text.splitlines())) < 300


def test_large_bodies_are_cut() -> None:
    def large(a: gc.sym, b: gc.sym) -> object:  # type: ignore[valid-type]
        total = a
        for k in range(60):
            total = gc.sym.sin(total) * b + k
        return total

    graph = intern({"y": gc.elementwise("large", large)(x, v)}).graph
    for node in graph.nodes:
        graph.origins[node] = ()
    lines = to_text(graph).splitlines()
    assert len(lines) > 3 and max(map(len, lines)) < 250


def test_guards_and_data_are_shown() -> None:
    graph = Graph()
    a = graph.add("input", (), "a", float32, (5,))
    y = graph.add("input", (), "y", as_dtype("int32"), (5,))
    copy = trace(lambda a: a, [float32])

    def shown(extents: tuple[SizeLike, ...], guards: tuple[Guard, ...], index: tuple[Affine | FromData, ...]) -> str:
        formula = Formula(extents, plain(len(extents)), extents, (Read(0, index),), copy, "none", guards)
        return to_text(graph, {"out": graph.formula(formula, (a, y)[: formula.operands()])})

    hot = Guard("eq", var(1), data=FromData(1, (var(0),), 4))
    assert shown((5, 4), (hot,), (var(0),)) == "out = a[:, None] ⊙ onehot(y)"
    assert shown((5, 5), (Guard("ge", var(0) - var(1)),), (var(1),)) == "out[i, j] = a[j] * [i ≥ j]"
    assert shown((9,), (Guard("div", var(0), 2),), (constant(0),)) == "out[i] = a[0] * [(i) % 2 = 0]"
