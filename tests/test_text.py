"""The graph's text form: golden text, and parsed back to the same graph."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from graphc.errors import DefinitionError
from graphc.graph.dtypes import DTYPES, DType, boolean, float32, float64, int32, int64
from graphc.graph.formula import Affine, Formula, FromData, Guard, Index, Read, affine, check, plain, var
from graphc.graph.formula_reader import read_formula
from graphc.graph.graph import Graph, Node, Origin, Site, const_value
from graphc.graph.primitives import PRIMITIVES
from graphc.graph.scalar import Body, BodyBuilder, Scalar, trace
from graphc.graph.show import formula_text
from graphc.graph.sizes import SizeLike, dim
from graphc.graph.text import from_text, node_text, to_text

N = dim("N")


def product(m: SizeLike, k: SizeLike, n: SizeLike, dtype: DType = float32) -> Formula:
    reads = (Read(0, (var(0), var(2))), Read(1, (var(2), var(1))))
    return Formula((m, n, k), plain(2), (m, n), reads, trace(lambda a, b: a * b, [dtype, dtype]), "sum")


def elementwise(shape: tuple[SizeLike, ...], function: Callable[..., object], *dtypes: DType) -> Formula:
    index = plain(len(shape))
    return Formula(shape, index, shape, tuple(Read(k, index) for k in range(len(dtypes))), trace(function, dtypes))


def sample() -> Graph:
    graph = Graph()
    x = graph.add("input", (), "x", float32, (N, 64))
    graph.add("input", (), "unused", float32, ())
    w = graph.add("param", (), "w", float32, (64, 10))
    idx = graph.add("input", (), 'i "dx"  # no comment', int32, (N,))
    rate = graph.add("hyper", (), "lr", float32, ())
    count = graph.add("count", (), None, int64, ())
    table = graph.const(np.arange(6, dtype=np.float64).reshape(2, 3))
    site = Site("fit.py", 3, "z = x @ w  # scores")
    z = graph.formula(product(N, 64, 10), (x, w), [Origin("matmul", "z", site), Origin(note="d_q", rule="mul-one")])
    twice = graph.formula(elementwise((N, 10), lambda a, b: a * b + a, float32, float32), (z, z))
    flat = graph.add("reshape", (twice,), (N * 10, "C", None, 2, 0.5, (True, float32)), float32, (N * 10,))
    copy = trace(lambda a: a, [float32])
    row = (FromData(1, (var(0),), 100), var(1))
    scattered = Formula((N, 10), row, (100, 10), (Read(0, plain(2)),), copy, "sum")
    rows = graph.formula(scattered, (z, idx))
    wide = graph.formula(elementwise((2, 3), lambda a: abs(a) * 2 - 1, float64), (table,))
    after = graph.formula(Formula((64, 10), plain(2), (64, 10), (Read(0, plain(2)), Read(1, ())),
                                  trace(lambda a, r: a - r * a, [float32] * 2)), (w, rate))  # fmt: skip
    graph.outputs = {"rows": rows, "flat": flat, "wide": wide}
    graph.updates = {w: after, count: graph.formula(elementwise((), lambda c: c + 1, int64), (count,))}
    return graph


def same(a: Graph, b: Graph) -> None:
    """Asserts that the live parts of two graphs are the same, node by node."""
    left, right = a.live(), b.live()
    place = {node: k for k, node in enumerate(left)}
    other = {node: k for k, node in enumerate(right)}

    def all_of(node: Node, number: dict[Node, int]) -> tuple[object, ...]:
        return node.kind, tuple(number[i] for i in node.inputs), node.attr, node.dtype, node.shape

    assert [all_of(n, place) for n in left] == [all_of(n, other) for n in right]
    assert {k: place[n] for k, n in a.outputs.items()} == {k: other[n] for k, n in b.outputs.items()}
    assert [(place[t], place[v]) for t, v in a.updates.items()] == [(other[t], other[v]) for t, v in b.updates.items()]


def test_sample(golden: Callable[..., None]) -> None:
    text = to_text(sample())
    golden(text)
    golden(to_text(sample(), origins=False), "bare")


def test_round_trip() -> None:
    graph = sample()
    again = from_text(to_text(graph))
    same(graph, again)
    assert to_text(again) == to_text(graph, origins=False)


def test_numbers_have_no_gaps() -> None:
    graph = sample()
    assert [line.split(":")[0] for line in to_text(graph).splitlines() if line.startswith("%")] == [
        f"%{k}" for k in range(len(graph.live()))
    ]
    assert node_text(graph.nodes[7]) == "%7: float32[N, 10] = sum(k<64) %0[i, k] * %2[k, j]"


def test_consts_differ_by_content() -> None:
    graph = Graph()
    graph.outputs = {str(k): graph.const(np.full(3, v, np.float32)) for k, v in enumerate([0.0, -0.0, np.nan, 1.0])}
    same(graph, from_text(to_text(graph)))
    again = from_text(to_text(graph)).outputs["1"].attr
    assert again == const_value(np.full(3, -0.0, np.float32))


def random_body(rng: np.random.Generator, operands: list[DType], variables: int) -> Body:
    """A body of random primitives over random earlier values, in an order that nothing orders."""
    builder = BodyBuilder()
    values: list[Scalar] = [builder.read(k, t) for k, t in enumerate(operands)]
    values += [builder.index(v) for v in range(variables)] + [builder.size(N + 1)]
    names = [n for n in PRIMITIVES if n not in ("where",)]
    for _ in range(int(rng.integers(1, 40))):
        name = str(rng.choice(names))
        takes = PRIMITIVES[name].takes
        fits = [v for v in values if (v.dtype.kind == "b") == (takes == "b")] or [builder.const(True, boolean)]
        args: list[Scalar | float | int] = [fits[int(rng.integers(len(fits)))] for _ in range(PRIMITIVES[name].arity)]
        if takes != "b" and rng.random() < 0.3:
            args[0] = float(rng.choice([1.5, -2.0, np.inf, -np.inf, np.nan, 1e-30])) if rng.random() < 0.7 else -3
        if takes != "b" or all(isinstance(a, Scalar) for a in args):
            values.append(builder.apply(name, *args))
        if rng.random() < 0.2:
            values.append(builder.cast(values[-1], DTYPES[str(rng.choice(list(DTYPES)))]))
        conditions = [v for v in values if v.dtype.kind == "b"]
        if conditions and rng.random() < 0.3:
            values.append(builder.apply("where", conditions[-1], values[-1], 0))
    return builder.finish(values[-1])


def random_formula(rng: np.random.Generator) -> tuple[Formula, tuple[DType, ...]]:
    dtypes = tuple([float32, float64, int32, int64, boolean][int(k)] for k in rng.integers(0, 5, 3)) + (int32,)
    rank, reduced = (int(k) for k in rng.integers(0, 4, 2))
    n = rank + reduced
    sizes: list[SizeLike] = [1, 3, 8, N, N * 2 + 1, dim("j"), N // 2]
    extents = tuple(sizes[int(k)] for k in rng.integers(0, len(sizes), n))

    def expr() -> Affine:
        terms = [(v, int(rng.integers(-2, 3))) for v in range(n)]
        return affine(sizes[int(rng.integers(len(sizes)))] - int(rng.integers(0, 4)), terms)

    def index() -> Index:
        return FromData(3, (expr(),), sizes[int(rng.integers(len(sizes)))]) if rng.random() < 0.2 else expr()

    def guard() -> Guard:
        kind = str(rng.choice(["ge", "eq", "div", "data"]))
        if kind == "data":
            return Guard("eq", expr(), data=FromData(3, (expr(), expr()), N))
        return Guard(kind, expr(), int(rng.integers(2, 4)) if kind == "div" else 1)

    def guards() -> tuple[Guard, ...]:
        return tuple(guard() for _ in range(int(rng.integers(0, 3))))

    body = random_body(rng, list(dtypes[:3]), n)
    reads = tuple(Read(k, tuple(index() for _ in range(int(rng.integers(0, 3)))), guards()) for k in range(3))
    combine = "none" if not reduced else str(rng.choice(["sum", "prod", "max", "logsumexp"]))
    write: tuple[Index, ...] = plain(rank)
    shape = extents[:rank]
    if combine == "sum" and rng.random() < 0.5:
        write = tuple(index() for _ in range(rank))
        shape = tuple(sizes[int(k)] for k in rng.integers(0, len(sizes), rank))
    formula = Formula(extents, write, shape, reads, body, combine, guards())
    check(formula)
    return formula, dtypes


@pytest.mark.parametrize("seed", range(300))
def test_random_formulas(seed: int) -> None:
    formula, dtypes = random_formula(np.random.default_rng(seed))
    text = formula_text(formula)
    assert read_formula(text, formula.shape, dtypes) == formula, text


def test_long_bodies_do_not_recurse_or_grow() -> None:
    builder = BodyBuilder()
    value = builder.read(0, float32)
    for _ in range(3000):
        value = builder.apply("exp", value) * value
    formula = Formula((3,), plain(1), (3,), (Read(0, plain(1)),), builder.finish(value))
    text = formula_text(formula)
    assert len(text) < 200_000
    assert read_formula(text, (3,), (float32,)) == formula


def test_chain_of_fifty_thousand() -> None:
    graph = Graph()
    node = graph.add("input", (), "x", float32, (N, 4))
    for k in range(50_000):
        node = graph.formula(elementwise((N, 4), lambda a, k=k % 97: a * 1.5 + k, float32), (node,))
    graph.outputs["y"] = node
    text = to_text(graph)
    again = from_text(text)
    assert len(again.nodes) == 50_001
    assert to_text(again) == text


def test_a_word_that_is_no_index_is_a_size() -> None:
    graph = from_text('graph 1\n%0: float32[3] is input "x"\n%1: float32[3] = %0[q]')
    assert graph.nodes[1].formula.reads[0].index == (Affine(dim("q")),)


@pytest.mark.parametrize(
    "text, message",
    [
        ("graph 9\n", "begins with 'graph 1'"),
        ("graph 1\nhello", "line 2, 'hello': not a node"),
        ('graph 1\n%1: float32[] is input "x"', "%0 is next"),
        ('graph 1\n%0: float32[] is input "x"\n%1: float32[] = %0[] +', "an operand, a number or a function expected"),
        ('graph 1\n%0: float32[3] is input "x"\n%1: int64[3] = %0[i]', "the formula gives float32"),
        ('graph 1\n%0: float32[3] is input "x"\n%1: float32[3] = frob(%0[i])', "no function frob of 1 operands"),
        ("graph 1\n%0: float32[3] is const 0123456789abcdef", "no data line"),
        ("graph 1\n%0: float32[1] is const 00\ndata 00 AAAAAA==", "the data of 00 were changed"),
        ('graph 1\noutput "y" %3', "line 2"),
    ],
)
def test_errors(text: str, message: str) -> None:
    with pytest.raises(DefinitionError, match=message):
        from_text(text)
