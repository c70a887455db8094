"""The verifier accepts sound graphs and catches every planted fault."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pytest

from graphc.errors import InternalError
from graphc.graph.bounds import nonnegative, within
from graphc.graph.dtypes import DType, boolean, float32, float64, int32, int64
from graphc.graph.formula import Affine, Formula, FromData, Guard, Index, Read, Shape, affine, constant, plain, var
from graphc.graph.graph import ConstValue, Graph, Node
from graphc.graph.scalar import Body, BodyBuilder, Instr, trace
from graphc.graph.sizes import SizeLike, dim
from graphc.graph.verify import verify
from graphc.structs import replace

N = dim("N")
COPY = trace(lambda a: a, [float32])
PRODUCT = trace(lambda a, b: a * b, [float32, float32])


def one(
    extents: Shape, shape: Shape, index: tuple[Index, ...], operand: Shape, *, write: tuple[Index, ...] | None = None,
    guards: tuple[Guard, ...] = (), read_guards: tuple[Guard, ...] = (), combine: str = "none", body: Body = COPY,
    dtype: DType = float32, data: Shape = (4,), data_type: DType = int32,
) -> Graph:  # fmt: skip
    """A graph of one formula that reads one operand; operand 1, where the formula names it, holds indices."""
    graph = Graph()
    inputs = [graph.add("input", (), "x", dtype, operand), graph.add("input", (), "idx", data_type, data)]
    write = plain(len(shape)) if write is None else write
    formula = Formula(extents, write, shape, (Read(0, index, read_guards),), body, combine, guards)
    graph.outputs["y"] = graph.formula(formula, inputs[: max(1, formula.operands())])
    return graph


def mlp() -> Graph:
    graph = Graph()
    x = graph.add("input", (), "x", float32, (N, 8))
    w = graph.add("param", (), "w", float32, (8, 4))
    reads = (Read(0, (var(0), var(2))), Read(1, (var(2), var(1))))
    z = graph.formula(Formula((N, 4, 8), plain(2), (N, 4), reads, PRODUCT, "sum"), (x, w))
    rate = graph.add("hyper", (), "lr", float32, ())
    step = trace(lambda a, r: a - r * a, [float32, float32])
    new = graph.formula(Formula((8, 4), plain(2), (8, 4), (Read(0, plain(2)), Read(1, ())), step), (w, rate))
    graph.outputs["z"] = z
    graph.updates[w] = new
    return graph


SOUND: dict[str, Callable[[], Graph]] = {
    "mlp": mlp,
    "slice": lambda: one((3,), (3,), (var(0, 1, 2),), (7,)),
    "reversed": lambda: one((N,), (N,), (var(0, N - 1, -1),), (N,)),
    "every second": lambda: one(((N + 1) // 2,), ((N + 1) // 2,), (var(0, 0, 2),), (N,)),
    "tail": lambda: one((N - 3,), (N - 3,), (var(0, 3),), (N,)),
    "window": lambda: one((6, 3), (6,), (affine(0, [(0, 1), (1, 1)]),), (8,), combine="max"),
    "padded": lambda: one(
        (N + 2,), (N + 2,), (var(0, -1),), (N,), read_guards=(Guard("ge", var(0, -1)), Guard("ge", Affine(N) - var(0)))
    ),
    "guard taken twice": lambda: one(
        (9, 3), (9,), (Affine(8) - affine(0, [(0, 2)]),), (9,), guards=(Guard("ge", Affine(4) - var(0)),), combine="sum"
    ),
    "two guards": lambda: one(
        (9, 9), (9,), (affine(0, [(0, 1), (1, 1)]),), (9,), combine="sum",
        guards=(Guard("ge", Affine(4) - var(0)), Guard("ge", Affine(4) - var(1))),
    ),
    "on the diagonal": lambda: one(
        (5, 9), (5,), (var(1),), (5,), guards=(Guard("eq", var(0) - var(1)),), combine="sum"
    ),
    "scatter": lambda: one((4,), (9,), (var(0),), (4,), write=(FromData(1, (var(0),), 9),), combine="sum"),
    "lookup": lambda: one((4, 3), (4, 3), (FromData(1, (var(0),), 50), var(1)), (50, 3)),
    "one hot": lambda: one(
        (4, 9), (4, 9), (var(0),), (4,), guards=(Guard("eq", var(1), data=FromData(1, (var(0),), 9)),)
    ),
    "nothing": lambda: one((3,), (3,), (var(0, 7),), (5,), read_guards=(Guard("ge", Affine(-1)),)),
}  # fmt: skip


@pytest.mark.parametrize("name", SOUND)
def test_sound(name: str) -> None:
    verify(SOUND[name]())


def copy(body: Body | list[Instr] = COPY, dtype: DType = float32) -> Graph:
    """``one`` of a single axis, read at its own index, of the given body."""
    body = body if isinstance(body, Body) else Body(tuple(body))
    return one((4,), (4,), (var(0),), (4,), body=body, dtype=dtype)


READ = Instr("read", (), float32, 0)

FORMULAS: dict[str, tuple[Callable[[], Graph], str]] = {
    "past the end": (lambda: one((8,), (8,), (var(0, 1),), (8,)), "i \\+ 1 is not provably in bounds"),
    "before the start": (lambda: one((8,), (8,), (var(0, -1),), (8,)), "i - 1 is not provably"),
    "past a size": (lambda: one((N,), (N,), (var(0, 1),), (N,)), "size N: i \\+ 1"),
    "two sizes": (lambda: one((N,), (N,), (var(0),), (dim("M"),)), "size M: i is"),
    "guard too weak": (
        lambda: one((8,), (8,), (var(0, -2),), (8,), read_guards=(Guard("ge", var(0, -1)),)), "i - 2 is not"
    ),
    "guard of another read": (lambda: one((8, 2), (8, 2), (var(0, -1),), (8,), guards=(Guard("ge", var(1)),)), "i - 1"),
    "write outside": (lambda: one((9,), (8,), (var(0),), (9,), combine="sum"), "axis 0 of the result, size 8"),
    "variable without extent": (lambda: one((8,), (8,), (var(1),), (8,)), "without extent"),
    "variable of data": (
        lambda: one((4,), (4,), (FromData(1, (var(3),), 5),), (5,)), "variable without extent"
    ),
    "rank": (lambda: one((8,), (8,), (var(0), constant(0)), (8,)), "which has 1 axes"),
    "rank of data": (lambda: one((4,), (4,), (FromData(1, (), 5),), (5,)), "at 0 indices; it has 1 axes"),
    "data out of bounds": (lambda: one((4,), (4,), (FromData(1, (var(0, 1),), 5),), (5,)), "i \\+ 1 is not provably"),
    "bound of data": (
        lambda: one((4,), (4,), (FromData(1, (var(0),), 6),), (5,)), "has 5; its index from data goes below 6"
    ),
    "floats as index": (
        lambda: one((4,), (4,), (FromData(1, (var(0),), 5),), (5,), data_type=float32), "float32; needs integers"
    ),
    "guard of data": (
        lambda: one((4,), (4,), (var(0),), (4,), guards=(Guard("eq", var(0), data=FromData(1, (var(0, 1),), 4)),)),
        "axis 0 of %1",
    ),
    "no such guard": (lambda: one((4,), (4,), (var(0),), (4,), guards=(Guard("lt", var(0)),)), "no guard is"),
    "unordered": (
        lambda: one((4, 4), (4, 4), (Affine(0, ((1, 1), (0, 1))),), (9,)), "not in normal form"
    ),
    "no combiner": (lambda: one((4, 2), (4,), (var(0),), (4,)), "there is no combiner"),
    "unknown combiner": (lambda: one((4, 2), (4,), (var(0),), (4,), combine="average"), "combiner 'average'"),
    "any of floats": (lambda: one((4, 2), (4,), (var(0),), (4,), combine="any"), "any of float32; needs bool"),
    "argmax of two": (lambda: one((4, 2, 2), (4,), (var(0),), (4,), combine="argmax"), "joins over one index"),
    "logsumexp of integers": (
        lambda: one((4, 2), (4,), (var(0),), (4,), combine="logsumexp", dtype=int64, body=trace(lambda a: a, [int64])),
        "logsumexp of int64",
    ),
    "read as another type": (lambda: copy(dtype=float64), "the body reads as float32 %0"),
    "read that does not stand": (
        lambda: copy([Instr("read", (), float32, 1)]), "read that does not stand"
    ),
    "later value": (
        lambda: copy([READ, Instr("neg", (1,), float32)]), "names a later value"
    ),
    "mixed types": (
        lambda: copy([READ, Instr("cast", (0,), float64), Instr("add", (0, 1), float64)]),
        "operands of types float32, float64",
    ),
    "wrong result": (
        lambda: copy([READ, Instr("neg", (0,), float64)]), "needs float32"
    ),
    "wrong arity": (
        lambda: copy([READ, Instr("add", (0,), float32)]), "1 operands; takes 2"
    ),
    "no such primitive": (
        lambda: copy([READ, Instr("frob", (0,), float32)]), "no such primitive"
    ),
    "condition": (
        lambda: copy([READ, Instr("where", (0, 0, 0), float32)]),
        "condition of type float32",
    ),
    "floor of bool": (
        lambda: copy([READ, Instr("isnan", (0,), boolean), Instr("floor", (1,), boolean)]),
        "operands of type bool",
    ),
    "constant": (
        lambda: copy([READ, Instr("const", (), float32, "0.1000")]),
        "its text is '0.1000'",
    ),
    "index type": (
        lambda: copy([READ, Instr("index", (), int32, 0)]), "needs int64"
    ),
    "index in the body": (
        lambda: copy([READ, Instr("index", (), int64, 1)]), "without extent"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FORMULAS)
def test_faults_of_formulas(name: str) -> None:
    make, message = FORMULAS[name]
    with pytest.raises(InternalError, match=message) as caught:
        verify(make())
    assert "verify: %2 formula" in str(caught.value) or "verify: %1 formula" in str(caught.value)


def _swap(graph: Graph) -> None:
    graph.nodes[0], graph.nodes[1] = graph.nodes[1], graph.nodes[0]


def _type(node: Node, dtype: DType, shape: Shape) -> None:
    node.dtype, node.shape = dtype, shape


def _const(value: ConstValue, shape: Shape) -> Callable[[Graph], None]:
    return lambda g: g.outputs.update(c=g.add("const", (), value, float32, shape))


def _other(graph: Graph) -> Node:
    return Graph().add("input", (), "elsewhere", float32, (8, 4))


GRAPHS: dict[str, tuple[Callable[[Graph], None], str]] = {
    "order": (_swap, "it stands at 0"),
    "later input": (lambda g: setattr(g.nodes[2], "inputs", (g.nodes[0], g.nodes[4])), "%4 does not stand before it"),
    "foreign input": (lambda g: setattr(g.nodes[2], "inputs", (g.nodes[0], _other(g))), "%0 belongs to another graph"),
    "missing input": (lambda g: setattr(g.nodes[2], "inputs", (g.nodes[0],)), "1 inputs; its formula names 2"),
    "extra input": (lambda g: setattr(g.nodes[2], "inputs", (*g.nodes[:2], g.nodes[1])), "3 inputs"),
    "type": (lambda g: _type(g.nodes[2], float64, (N, 4)), "its formula gives float32"),
    "shape": (lambda g: _type(g.nodes[2], float32, (N, 5)), "its formula gives float32\\[N, 4\\]"),
    "size": (lambda g: _type(g.nodes[0], float32, (N, -8)), "-8 is no size"),
    "kind": (lambda g: setattr(g.nodes[3], "kind", "frob"), "no node of this kind is known"),
    "no formula": (lambda g: setattr(g.nodes[2], "attr", "matmul"), "without a formula"),
    "leaf with inputs": (lambda g: setattr(g.nodes[3], "inputs", (g.nodes[0],)), "a leaf with inputs"),
    "no name": (lambda g: setattr(g.nodes[3], "attr", ""), "it has no name"),
    "hyper with axes": (lambda g: _type(g.nodes[3], float32, (2,)), "needs a single value"),
    "one name twice": (lambda g: g.outputs.update(c=g.add("param", (), "w", float32, (3,))), "stands twice"),
    "const bytes": (_const(ConstValue("float32", (2,), b"1234"), (2,)), "in 4 bytes"),
    "const type": (_const(ConstValue("float64", (), b"12345678"), ()), "its value is float64"),
    "const shape": (_const(ConstValue("float32", (1,), b"1234"), ()), "its value is float32\\[1\\]"),
    "output elsewhere": (lambda g: g.outputs.update(q=_other(g)), "output 'q' belongs to another graph"),
    "update elsewhere": (lambda g: g.updates.update({g.nodes[1]: _other(g)}), "the update belongs to another graph"),
    "update of an input": (lambda g: g.updates.update({g.nodes[0]: g.nodes[0]}), "needs one of param, state, count"),
    "update of another shape": (lambda g: g.updates.update({g.nodes[1]: g.nodes[2]}), "its new value %2 is float32"),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_faults_of_graphs(name: str) -> None:
    plant, message = GRAPHS[name]
    graph = mlp()
    verify(graph)
    plant(graph)
    with pytest.raises(InternalError, match=message):
        verify(graph)


def test_other_kinds_may_be_given() -> None:
    graph = mlp()
    graph.add("sort", (graph.nodes[0],), None, float32, (N, 8))
    with pytest.raises(InternalError, match="no node of this kind"):
        verify(graph)
    verify(graph, ("sort",))


def test_bounds_agree_with_counting(rng: np.random.Generator) -> None:
    """Whatever is proved in bounds is so at every point, and most of what is in bounds is proved."""
    proved = true = 0
    for _ in range(3000):
        extents = tuple(int(e) for e in rng.integers(1, 6, 3))
        size = int(rng.integers(1, 10))

        def expr() -> Affine:
            return affine(int(rng.integers(-4, 5)), [(v, int(rng.integers(-2, 3))) for v in range(3)])

        guards = tuple(Guard("ge" if rng.random() < 0.8 else "eq", expr()) for _ in range(int(rng.integers(0, 4))))
        index = expr()
        grids = np.indices(extents)

        def value(e: Affine, grids: np.ndarray = grids) -> np.ndarray:
            assert isinstance(e.const, int)
            return e.const + sum((c * grids[v] for v, c in e.terms), np.zeros(grids[0].shape, int))

        inside = np.ones(extents, bool)
        for guard in guards:
            inside &= value(guard.expr) >= 0 if guard.kind == "ge" else value(guard.expr) == 0
        reached = value(index)[inside]
        holds = bool(np.all((reached >= 0) & (reached < size)))
        claimed = within(index, size, extents, guards)
        assert holds or not claimed, (extents, size, guards, index)
        proved, true = proved + claimed, true + (holds and reached.size > 0)
    assert proved > 0.6 * true


@pytest.mark.parametrize("size, expr, holds", [
    (N // 2, Affine(N - 2) - var(0, 0, 2), True),
    (N // 2, Affine(N - 3) - var(0, 0, 2), False),
    ((N - 3) // 2 + 1, Affine(N - 3) - var(0, 0, 2), True),
    ((N + 2) // 3, Affine(N - 1) - var(0, 0, 3), True),
    ((N + 3) // 3, Affine(N - 1) - var(0, 0, 3), False),
    (N % 4, Affine(2) - var(0), True),
])  # fmt: skip
def test_bounds_of_quotients(size: SizeLike, expr: Affine, holds: bool) -> None:
    assert nonnegative(expr, (size,)) == holds
    if holds:
        for n in range(4, 60):
            extent = size if isinstance(size, int) else size.evaluate({"N": n})
            const = expr.const if isinstance(expr.const, int) else expr.const.evaluate({"N": n})
            assert all(const + expr.coefficient(0) * v >= 0 for v in range(extent))


def test_fifty_thousand_nodes() -> None:
    graph = Graph()
    node = graph.add("input", (), "x", float32, (N, 4))
    index = plain(2)
    for k in range(50_000):
        builder = BodyBuilder()
        body = builder.finish(builder.read(0, float32) * float(k))
        node = graph.formula(Formula((N, 4), index, (N, 4), (Read(0, index),), body), (node,))
    graph.outputs["y"] = node
    start = time.process_time()
    verify(graph)
    assert time.process_time() - start < 3
    last = graph.nodes[-1]
    last.attr = replace(last.formula, reads=(Read(0, (var(0, 1), var(1))),))
    with pytest.raises(InternalError, match="%50000 formula"):
        verify(graph)
