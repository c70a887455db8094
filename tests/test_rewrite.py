"""Rewriting of whole graphs: every tensor rule on an example of its own, values before and after, what is kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import graphc as gc
from graphc.diff.reverse import backward
from graphc.dsl.intern import intern
from graphc.dsl.tensor import Tensor
from graphc.errors import IndexRangeError
from graphc.graph.formula import Formula, Read, Shape, plain, var
from graphc.graph.graph import ConstValue, Graph, Node
from graphc.graph.scalar import BodyBuilder, trace
from graphc.graph.show import formula_text
from graphc.graph.verify import verify
from graphc.reference import evaluate
from graphc.rewrite.page import page
from graphc.rewrite.phases import BEFORE_DERIVATIVES, PHASES, Rewritten, run
from graphc.structs import replace

Array = NDArray[np.generic]
RULES = list(dict.fromkeys(rule.name for phase in PHASES for rule in phase.rules))
LABEL = {rule.name: rule.label for phase in PHASES for rule in phase.rules}
SIZES = {"N": 6}


def graph_of(**outputs: Tensor) -> Graph:
    """The graph of tensors."""
    return intern(outputs).graph


def drawn(graph: Graph, seed: int = 0) -> dict[str, Array]:
    """Values for the leaves of a graph: floats around 1, integers in 0 .. 2."""
    rng = np.random.default_rng(seed)
    values: dict[str, Array] = {}
    for node in graph.live():
        if node.kind in ("input", "param", "state", "hyper"):
            shape = tuple(s if isinstance(s, int) else s.evaluate(SIZES) for s in node.shape)
            if node.dtype.kind == "f":
                values[str(node.attr)] = rng.uniform(0.3, 1.7, shape).astype(node.dtype.numpy)
            else:
                values[str(node.attr)] = rng.integers(0, 3, shape).astype(node.dtype.numpy)
    return values


def ends(graph: Graph) -> list[Node]:
    """Outputs and new values, in order."""
    return [*graph.outputs.values(), *graph.updates.values()]


def same_values(before: Graph, after: Graph, tolerance: float = 1e-11) -> None:
    """Asserts that two graphs compute the same, in double precision."""
    values = drawn(before)
    left, right = (evaluate(g, values, dtype64=True) for g in (before, after))
    for a, b in zip(ends(before), ends(after), strict=True):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        found, wanted = right[b].astype(np.float64), left[a].astype(np.float64)
        np.testing.assert_allclose(found, wanted, rtol=tolerance, atol=tolerance)


def rewritten(graph: Graph, **options: bool) -> Rewritten:
    """The graph rewritten, verified and compared with what it was; rewriting it again changes nothing."""
    done = run(graph, fast_math=options.get("fast_math", True), assume_finite=options.get("assume_finite", False))
    verify(done.graph)
    same_values(graph, done.graph)
    again = run(done.graph, fast_math=options.get("fast_math", True), assume_finite=options.get("assume_finite", False))
    assert [str(f) for f in again.log] == []
    return done


def lines(graph: Graph) -> list[str]:
    """The formulas of a graph, its leaves by name."""
    texts = []
    for node in graph.live():
        if isinstance(node.attr, ConstValue):
            texts.append(str(node.attr.array().tolist()))
        else:
            texts.append(formula_text(node.formula) if node.kind == "formula" else str(node.attr))
    return texts


N = gc.dim("N")


def inputs() -> dict[str, Tensor]:
    """Tensors to write examples with."""
    return {
        "x": gc.input("x", (N, 8)),
        "z": gc.input("z", (N, 8)),
        "w": gc.input("w", (8, 100)),
        "u": gc.input("u", (100, 3)),
        "v": gc.input("v", (100,)),
        "c": gc.input("c", (N,)),
        "y": gc.input("y", (N,), dtype="int32"),
        "b": gc.input("b", (5, 8, 8)),
    }


Make = Callable[[Mapping[str, Tensor]], Tensor]
EXAMPLES: dict[str, tuple[Make, list[str]]] = {
    "gather-form": (
        lambda t: t["c"], ["c", "$0[i]"],
    ),
    "view-through": (lambda t: t["x"].T @ t["z"], ["x", "z", "sum(k<N) $0[k, i] * $1[k, j]"]),
    "constant-into-body": (lambda t: t["c"] + gc.const(2.0), ["c", "$0[i] + 2.0"]),
    "ground-into-body": (
        lambda t: t["v"], ["c", "$0[i] + float32(2 * i)"],
    ),
    "fold-node": (
        lambda t: t["v"][:3] * gc.sqrt(gc.const(np.array([4.0, 9.0, 2.25], np.float32))),
        ["v", "[2.0, 3.0, 1.5]", "$0[i] * $1[i]"],
    ),
    "across-nodes": (lambda t: gc.log(1 + gc.exp(t["c"])), ["c", "softplus($0[i])"]),
    "sum-through-scatter": (
        lambda t: t["c"], ["c", "y", "neg($0[i])", "x", "$0[i, $1[i]:8]"],
    ),
    "sum-of-broadcast": (
        lambda t: gc.sum(gc.broadcast_to(t["c"][:, None], (N, 8)), axis=1), ["c", "8.0 * $0[i]"],
    ),
    "factors-out-of-sum": (
        lambda t: gc.formula("f", "out[n,o] = sum(i) c[n] * x[n,i] * w[i,o]")(t["c"], t["x"], t["w"]),
        ["c", "x", "w", "sum(k<8) $0[i, k] * $1[k, j]", "$0[i] * $1[i, j]"],
    ),
    "log-of-exp-sum": (
        lambda t: gc.log(gc.sum(gc.exp(t["x"]), axis=1)) * t["c"],
        ["x", "logsumexp(j<8) $0[i, j]", "c", "$0[i] * $1[i]"],
    ),
    "softmax-of-exp-sum": (
        lambda t: gc.exp(t["x"]) / gc.sum(gc.exp(t["x"]), axis=1, keepdims=True),
        ["x", "logsumexp(k<8) $0[i, k]", "exp($0[i, j] - $1[i, 0])"],
    ),
    "product-chain": (
        lambda t: (t["x"] @ t["w"]) @ t["v"],
        ["x", "w", "v", "sum(j<100) $0[i, j] * $1[j]", "sum(j<8) $0[i, j] * $1[j]"],
    ),
    "split-product": (
        lambda t: gc.einsum("ni,oij,nj->no", t["x"], t["b"], t["z"]),
        ["x", "b", "z", "sum(l<8) $0[i, l] * $1[j, l, k]", "sum(k<8) $0[i, j, k] * $1[i, k]"],
    ),
    "factor-to-node": (
        lambda t: gc.formula("f", "out[n,o] = sum(i) w[i,o] * sigmoid(x[n,i])")(t["w"], t["x"]),
        ["w", "x", "sigmoid($0[i, j])", "sum(k<8) $0[k, j] * $1[i, k]"],
    ),
    "threshold-of-result": (
        lambda t: gc.relu(t["x"] * t["z"]) @ t["w"] + gc.where((t["x"] * t["z"])[:, :1] <= 0, 0, t["c"][:, None]),
        ["x", "z", "$0[i, j] * $1[i, j]", "where($0[i, j] <= 0.0, 0.0, $0[i, j])", "w",
         "sum(k<8) $0[i, k] * $1[k, j]", "$0[i, j] <= 0.0", "c", "where($0[i, j], 0.0, $1[i])",
         "$0[i, j] + $1[i, 0]"],
    ),
}


def test_the_page_of_rules_is_current() -> None:
    text = (Path(__file__).parent.parent / "docs" / "rules.md").read_text(encoding="utf-8")
    assert text == page(), "python -m graphc.rewrite.page > docs/rules.md writes it anew"


def test_every_tensor_rule_has_an_example() -> None:
    assert sorted(EXAMPLES) == sorted(RULES)


@pytest.mark.parametrize("name", EXAMPLES)
def test_tensor_rule(name: str) -> None:
    make, wanted = EXAMPLES[name]
    tensors = inputs()
    graph = graph_of(out=make(tensors))
    if name in BY_HAND:
        graph = BY_HAND[name]()
    done = rewritten(graph)
    firings = [f for f in done.log if f.rule == name]
    assert firings and all(f.label == LABEL[name] for f in firings)
    assert lines(done.graph) == wanted


CLAMPS = [
    ("where(z[i] <= 2, 2, z[i])", "z[i] <= 2", True),
    ("where(z[i] > 2, z[i], 2)", "z[i] > 2", True),
    ("where(z[i] >= 2, 2, z[i])", "z[i] >= 2", True),
    ("where(z[i] < 2, z[i], 2)", "z[i] < 2", True),
    ("where(z[i] < 2, 2, z[i])", "z[i] < 2", False),  # 1 is clamped to 2, and not 2 < 2
    ("where(z[i] >= 2, z[i], 2)", "z[i] >= 2", False),
    ("where(z[i] <= 2, 2, z[i])", "z[i] < 2", False),
    ("where(z[i] <= 2, 2, z[i])", "z[i] <= 1", False),
    ("where(z[i] <= 2, 1, z[i])", "z[i] <= 2", False),
]


@pytest.mark.parametrize(("clamped", "test", "fires"), CLAMPS)
def test_a_clamped_value_answers_its_own_threshold_alone(clamped: str, test: str, fires: bool) -> None:
    x, w = gc.input("x", (8,)), gc.input("w", (8, 3))
    clamp, choice = gc.formula("clamp", f"out[i] = {clamped}"), gc.formula("choice", f"out[i] = where({test}, 1, 3)")
    graph = graph_of(sums=clamp(x * 2) @ w, test=choice(x * 2))
    done = run(graph)
    assert ("threshold-of-result" in [f.rule for f in done.log]) == fires
    edges = np.array([np.nan, -np.inf, -0.0, 0.5, 1.0, 1.5, np.inf, 2.0], np.float32)
    values: dict[str, Array] = {"x": edges, "w": np.ones((8, 3), np.float32)}
    before, after = (evaluate(g, values)[g.outputs["test"]] for g in (graph, done.graph))
    assert before.tolist() == after.tolist()


def leaf(graph: Graph) -> Node:
    """The input c of a graph made by hand."""
    return graph.add("input", (), "c", inputs()["c"].dtype, (N,))


def broadcast_transposed() -> Graph:
    """What the differentiator makes of a row sum: out[i, j] += c[i]."""
    graph = Graph()
    c = leaf(graph)
    scatter = Formula((N, 8), plain(2), (N, 8), (Read(0, plain(1)),), trace(lambda value: value, [c.dtype]), "sum")
    turned = replace(scatter, extents=(8, N), write=(var(1), var(0)), reads=(Read(0, (var(1),)),))
    graph.outputs["out"] = graph.formula(turned, (c,))
    return graph


def index_values() -> Graph:
    """2i, a node of its own, added to c."""
    graph = Graph()
    c = leaf(graph)
    builder = BodyBuilder()
    even = Formula((N,), plain(1), (N,), (), builder.finish(builder.cast(builder.index(0) * 2, c.dtype)))
    reads = (Read(0, plain(1)), Read(1, plain(1)))
    body = trace(lambda a, b: a + b, [c.dtype, c.dtype])
    graph.outputs["out"] = graph.formula(Formula((N,), plain(1), (N,), reads, body), (graph.formula(even, ()), c))
    return graph


BY_HAND: dict[str, Callable[[], Graph]] = {
    "gather-form": broadcast_transposed,
    "ground-into-body": index_values,
    "sum-through-scatter": lambda: scattered(Graph()),
}


def scattered(graph: Graph, *, checked: bool = True) -> Graph:
    """sum(k) of out[i, y[i]] = c[i]; with ``checked`` a second output reads x[i, y[i]], which checks y too."""
    c = leaf(graph)
    from_data = gc.formula("f", "out[i] = x[i, y[i]]")(gc.input("x", (N, 8)), gc.input("y", (N,), dtype="int32"))
    other = graph_of(out=from_data)
    picked = other.outputs["out"].formula
    y = graph.add("input", (), "y", other.outputs["out"].inputs[1].dtype, (N,))
    index = next(r for r in picked.reads if r.operand == 0).index
    one = trace(lambda value: value, [c.dtype])
    write = tuple(index)
    scatter = graph.formula(Formula((N,), write, (N, 8), (Read(0, plain(1)),), one, "sum"), (c, y))
    body = trace(lambda value: -value, [c.dtype])
    graph.outputs["out"] = graph.formula(Formula((N, 8), plain(1), (N,), (Read(0, plain(2)),), body, "sum"), (scatter,))
    if checked:
        x = graph.add("input", (), "x", c.dtype, (N, 8))
        graph.outputs["picked"] = graph.formula(picked, (x, y))
    return graph


def test_a_sum_through_a_scatter_keeps_the_check_of_its_index() -> None:
    """Where nothing else checks y, the scatter stays: an index out of range still raises."""
    for checked in (True, False):
        graph = Graph()
        scattered(graph, checked=checked)
        done = rewritten(graph)
        assert ("sum-through-scatter" in [f.rule for f in done.log]) == checked
        values = drawn(graph)
        values["y"] = np.full(SIZES["N"], 8, np.int32)
        with pytest.raises(IndexRangeError):
            evaluate(done.graph, values)


def test_a_view_does_not_hide_an_index_from_data_from_its_check() -> None:
    """Rows of a broadcast vector are all the same; which one is taken does not matter, that it exists does."""
    row = gc.input("v", (8,))
    taken = gc.take(gc.broadcast_to(row, (5, 8)), gc.input("y", (N,), dtype="int32"), axis=0)
    graph = graph_of(out=taken)
    done = rewritten(graph)
    values = {"v": np.ones(8, np.float32), "y": np.full(SIZES["N"], 5, np.int32)}
    with pytest.raises(IndexRangeError):
        evaluate(done.graph, values)


def test_without_fast_math_only_exact_rules_run_and_every_bit_is_kept() -> None:
    t = inputs()
    x, z = t["x"], t["z"]
    minus = -(x * 1)
    y = -minus - (-z) + gc.where(x > 1, z * 2, z * 2) / 4 + gc.log(1 + gc.exp(x.T.T)) + gc.flip(gc.flip(z, 0), 0)
    graph = graph_of(out=y)
    done = rewritten(graph, fast_math=False)
    assert {f.label for f in done.log} == {"exact"}
    assert len(done.log) > 5
    values = drawn(graph)
    before, after = (evaluate(g, values)[g.outputs["out"]] for g in (graph, done.graph))
    assert before.tobytes() == after.tobytes()


def test_protected_nodes_stay() -> None:
    t = inputs()
    turned = (t["x"] * 2).T
    interned = intern({"out": turned @ t["z"], "soft": gc.log(1 + gc.exp(t["c"]))})
    graph = interned.graph
    exp = next(n for n in graph.live() if n.kind == "formula" and n.formula.body.result.op == "exp")
    kept = frozenset([interned.node[turned], exp])
    done = run(graph, protect=kept)
    for node in kept:
        new = done.replaced[node]
        assert isinstance(new, Node) and new in done.graph.live()
    free = run(graph)
    assert all(isinstance(free.replaced[node], str) for node in kept)
    assert "softplus" in " ".join(lines(free.graph)) and "softplus" not in " ".join(lines(done.graph))


def test_replaced_names_every_live_node() -> None:
    t = inputs()
    graph = graph_of(out=gc.log(1 + gc.exp(t["c"])) + gc.sum(t["x"].T, axis=0))
    done = run(graph)
    assert list(done.replaced) == graph.live()
    assert done.replaced[graph.outputs["out"]] is done.graph.outputs["out"]
    gone = [n for n, new in done.replaced.items() if isinstance(new, str)]
    assert [n.formula.body.result.op for n in gone] == ["exp", "add", "read"]
    assert all(done.replaced[n] in done.graph.nodes for n in graph.live() if n not in gone)


def test_origins_are_kept_and_those_taken_in_are_noted() -> None:
    c = inputs()["c"]
    inner = gc.exp(c)
    graph = graph_of(out=gc.log(1 + inner))
    done = run(graph)
    origins = done.graph.origins[done.graph.outputs["out"]]
    assert origins[0].op == "log" and not origins[0].rule
    taken = [o for o in origins if o.rule.startswith("across-nodes: ")]
    assert taken and all(o.site is not None and not o.op and not o.name for o in taken)


def test_the_log_says_what_was_and_what_is() -> None:
    done = run(graph_of(out=gc.log(1 + gc.exp(inputs()["c"]))))
    assert done.text().splitlines() == [
        "stabilise: softplus (rounding): log(exp(r0) + 1.0)  ->  softplus(r0)",
        "stabilise: across-nodes (exact): log($0[i])  ->  softplus($0[i]); $0 = c",
    ]


def test_equal_expressions_become_one_node() -> None:
    t = inputs()
    x, z = t["x"], t["z"]
    done = rewritten(graph_of(a=gc.tanh(x * z), b=gc.tanh(z * x), c=gc.tanh(x * z * 1)))
    assert len(dict.fromkeys(done.graph.outputs.values())) == 1
    assert lines(done.graph) == ["x", "z", "$0[i, j] * $1[i, j]", "tanh($0[i, j])"]


def test_a_shared_exponential_is_not_computed_twice_for_a_cheaper_form() -> None:
    """Both 2x and 3(2x) are wanted: 6x is no saving and no loss; x + x is used as it is."""
    c = inputs()["c"]
    double = c * 2
    done = rewritten(graph_of(a=double, b=double * 3))
    assert lines(done.graph) == ["c", "2.0 * $0[i]", "6.0 * $0[i]"]


def test_a_row_value_is_not_computed_for_every_element() -> None:
    """The square root of a row's sum stays a value of the row."""
    t = inputs()
    length = gc.sqrt(gc.sum(t["x"] * t["x"], axis=1, keepdims=True))
    done = rewritten(graph_of(out=t["x"] / length))
    assert lines(done.graph)[-2:] == ["sqrt($0[i, j])", "$0[i, j] / $1[i, 0]"]


def test_a_softmax_less_its_maximum_is_left_alone() -> None:
    done = rewritten(graph_of(out=gc.log_softmax(inputs()["x"], axis=1)))
    assert not [f for f in done.log if "exp-sum" in f.rule]
    loss = rewritten(graph_of(out=gc.log(gc.softmax(inputs()["x"], axis=1))))
    assert "log-exp-over" in [f.rule for f in loss.log]


def test_unshifted_softmax_does_not_overflow_after_rewriting() -> None:
    x = gc.input("x", (4,))
    graph = graph_of(p=gc.exp(x) / gc.sum(gc.exp(x)), l=gc.log(gc.sum(gc.exp(x))), s=1 / (1 + gc.exp(-x)))
    done = run(graph)
    values = {"x": np.array([-200.0, 0.0, 300.0, 299.0], np.float32)}
    found = evaluate(done.graph, values)
    p, level, s = (found[done.graph.outputs[name]].astype(np.float64) for name in "pls")
    np.testing.assert_allclose(p, [0, 0, 1 / (1 + np.exp(-1)), 1 / (1 + np.exp(1))], rtol=1e-4, atol=1e-30)
    np.testing.assert_allclose(level, 300 + np.log1p(np.exp(-1)), rtol=1e-6)
    np.testing.assert_allclose(s, [0, 0.5, 1, 1], atol=1e-30)


Floats = NDArray[np.float64]


def slope(v: Floats) -> Floats:
    """The derivative of the sigmoid."""
    small = np.exp(-np.abs(v))
    return np.asarray(small / (1 + small) ** 2)


def level(v: Floats) -> Floats:
    """The sigmoid."""
    small = np.exp(-np.abs(v))
    return np.where(v > 0, 1 / (1 + small), small / (1 + small))


def share(v: Floats) -> Floats:
    """The softmax."""
    return np.asarray(np.exp(v - v.max()) / np.exp(v - v.max()).sum())


UNSTABLE: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Floats], Floats]]] = {
    "softplus": (lambda x: gc.sum(gc.log(1 + gc.exp(x))), level),
    "sigmoid": (lambda x: gc.sum(1 / (1 + gc.exp(-x))), slope),
    "swish": (lambda x: gc.sum(x / (1 + gc.exp(-x))), lambda v: level(v) + v * slope(v)),
    "logsumexp": (lambda x: gc.log(gc.sum(gc.exp(x))), share),
}


@pytest.mark.parametrize("name", UNSTABLE)
def test_derivatives_of_unstable_forms_written_over_several_nodes(name: str) -> None:
    """Finite where the plain chain rule gives NaN, once the graph was stabilised before it is differentiated."""
    make, wanted = UNSTABLE[name]
    graph = run(graph_of(out=make(gc.input("x", (4,)))), BEFORE_DERIVATIVES).graph
    x = next(n for n in graph.live() if n.kind == "input")
    out = graph.outputs["out"]
    (derivative,) = backward(graph, {out: graph.const(np.ones((), np.float32))}, [x]).cotangents
    assert derivative is not None
    graph.outputs["d"] = derivative
    done = run(graph)
    verify(done.graph)
    v = np.array([-150.0, -1.0, 2.0, 140.0])
    found = evaluate(done.graph, {"x": v.astype(np.float32)})[done.graph.outputs["d"]].astype(np.float64)
    np.testing.assert_allclose(found, wanted(v), rtol=1e-5, atol=1e-30)


def test_assume_finite_runs_the_finite_rules() -> None:
    t = inputs()
    graph = graph_of(out=t["x"] * 0 + gc.where(gc.isnan(t["z"]), 7.0, t["z"]) + (t["z"] - t["z"]))
    assert not [f for f in run(graph).log if f.label == "finite"]
    done = rewritten(graph, assume_finite=True)
    assert {"mul-zero", "isnan-finite", "sub-self"} <= {f.rule for f in done.log}
    assert done.graph.outputs["out"].formula.body.is_read() is not None
    counted = rewritten(graph_of(out=gc.cast(t["y"], "float32") * 0 + t["c"]))  # integers are finite without a promise
    assert "mul-zero" in [f.rule for f in counted.log]


def test_products_keep_two_factors() -> None:
    """What stands beside a product (a reciprocal, a sign) does not go into it."""
    t = inputs()
    done = rewritten(graph_of(out=(1 / t["x"]) @ (-t["w"])))
    products = [n for n in done.graph.live() if n.kind == "formula" and n.formula.combine == "sum"]
    assert [len(n.formula.body.instrs) for n in products] == [3]


def test_a_training_step_of_a_network() -> None:
    t = inputs()
    w1, w2 = gc.param("w1", (8, 16)), gc.param("w2", (16, 3))
    hidden = gc.tanh(t["x"] @ w1)
    loss = gc.mean(gc.cross_entropy(hidden @ w2, t["y"]))
    gradients = gc.grad(loss, [w1, w2])
    graph = graph_of(loss=loss, d1=w1 - 0.1 * gradients[0], d2=w2 - 0.1 * gradients[1])
    done = rewritten(graph)
    products = [line for line in lines(done.graph) if line.startswith("sum(") and "*" in line]
    assert products == [
        "sum(k<8) $0[i, k] * $1[k, j]",  # x w1
        "sum(k<16) $0[i, k] * $1[k, j]",  # tanh(..) w2
        "sum(k<3) $0[i, k] * $1[j, k]",  # d_logits w2ᵀ
        "sum(k<N) $0[k, j] * $1[k, i]",  # xᵀ d_z
        "sum(k<N) $0[k, j] * $1[k, i]",  # hiddenᵀ d_logits
    ]


_LEAVES: dict[str, Shape] = {"x": (N, 4), "z": (N, 4), "m": (4, 4), "c": (N,)}


def random_tensor(rng: np.random.Generator) -> Tensor:
    """A random expression of a dozen operations over a few leaves; all shapes are (N, 4), (4, 4), (N,) or ()."""
    pool: list[Tensor] = [gc.input(name, shape, dtype="float64") for name, shape in _LEAVES.items()]
    unary: list[Callable[[Tensor], Tensor]] = [
        gc.tanh, gc.exp, gc.sigmoid, gc.softplus, gc.abs, gc.square, lambda t: -t, lambda t: t * 2.0, lambda t: 1 + t,
        lambda t: t / 3, lambda t: gc.log(1 + gc.exp(t)), lambda t: gc.sqrt(t * t), lambda t: t**2,
        lambda t: 0.5 / (2 + t * t), lambda t: gc.flip(t, 0), lambda t: gc.sum(t), lambda t: gc.mean(t * t),
        lambda t: gc.logsumexp(t),
    ]  # fmt: skip
    square: list[Callable[[Tensor], Tensor]] = [
        lambda t: gc.sum(t, axis=1), lambda t: gc.max(t, axis=1), lambda t: gc.softmax(t, axis=1),
        lambda t: gc.log_softmax(t, axis=-1), lambda t: t[:, ::-1], lambda t: gc.roll(t, 1, axis=1),
        lambda t: gc.concat([t[:, 1:], t[:, :1]], axis=1), lambda t: t @ pool[2],
        lambda t: t * pool[3][:, None] if t.shape[0] == N else t.T,
        lambda t: gc.pad(t, ((0, 0), (1, 1)))[:, :4], lambda t: gc.cumsum(t, axis=1),
    ]  # fmt: skip
    for _ in range(12):
        a = pool[int(rng.integers(0, len(pool)))]
        kind = int(rng.integers(0, 3))
        if kind == 0:
            made = unary[int(rng.integers(0, len(unary)))](a) if a.ndim else gc.tanh(a)
        elif kind == 1 and a.ndim == 2:
            made = square[int(rng.integers(0, len(square)))](a)
        else:
            same = [t for t in pool if t.shape == a.shape]
            b = same[int(rng.integers(0, len(same)))]
            both = [a + b, a - b, a * b, gc.maximum(a, b), gc.where(a > b, a, b), a / (1 + b * b)]
            made = both[int(rng.integers(0, 6))]
        pool.append(made)
    total: Tensor = gc.sum(gc.tanh(pool[-1]))
    for t in pool[-4:-1]:
        total = total + gc.sum(gc.tanh(t))
    return total


@pytest.mark.parametrize("seed", range(60))
def test_random_graphs_keep_their_values(seed: int) -> None:
    total = random_tensor(np.random.default_rng(seed))
    graph = graph_of(out=total)
    leaves = [t for t in intern({"out": total}).leaves.values() if t.dtype.kind == "f"]
    gradients = gc.grad(total, leaves, unused="zero")
    whole = graph_of(out=total, **{f"d{k}": g for k, g in enumerate(gradients)})
    for fast in (False, True):
        for g in (graph, whole):
            done = run(g, fast_math=fast)
            verify(done.graph)
            same_values(g, done.graph, 1e-9)
            assert [str(f) for f in run(done.graph, fast_math=fast).log] == []


def test_a_long_chain_is_rewritten_without_recursion() -> None:
    graph = Graph()
    c = graph.add("input", (), "c", inputs()["c"].dtype, (3,))
    bodies = [trace(f, [c.dtype]) for f in (lambda v: v * 1.5, lambda v: v + 2.0, lambda v: -v)]
    node = c
    for k in range(12_000):
        node = graph.formula(Formula((3,), plain(1), (3,), (Read(0, plain(1)),), bodies[k % 3]), (node,))
    graph.outputs["out"] = node
    done = run(graph)
    verify(done.graph)
    assert done.replaced[node] is done.graph.outputs["out"]
