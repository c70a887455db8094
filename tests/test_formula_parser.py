"""What a user writes in ``gc.formula``: values against NumPy, ranges, guards, and every mistake's message."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

from graphc.errors import DefinitionError, DTypeError, GraphcError, ShapeError
from graphc.graph.dtypes import DTYPES, DType, float32, float64, int32, int64
from graphc.graph.formula import Affine, Formula, FromData, Guard, Index, Shape, var
from graphc.graph.graph import Graph
from graphc.graph.notation_builder import build_formula
from graphc.graph.notation_parser import parse_formula
from graphc.graph.primitives import PRIMITIVES
from graphc.graph.scalar import const_value
from graphc.graph.show import formula_text
from graphc.graph.sizes import Size, SizeLike, dim, evaluate
from graphc.graph.verify import verify

N, M = dim("N"), dim("M")
DIMS = {"N": 5, "M": 4}
Array = np.ndarray[tuple[int, ...], np.dtype[Any]]
IDENTITY = {"none": 0.0, "sum": 0.0, "prod": 1.0, "max": -np.inf, "min": np.inf, "logsumexp": -np.inf}
JOIN: dict[str, Callable[[float, float], float]] = {
    "none": lambda a, b: b, "sum": lambda a, b: a + b, "prod": lambda a, b: a * b, "max": max, "min": min,
    "logsumexp": lambda a, b: float(np.logaddexp(a, b)),
}  # fmt: skip


def value(formula: Formula, operands: list[Array]) -> Array:
    """The formula point by point in plain loops: slow, and with bounds checked."""
    extents = [evaluate(e, DIMS) for e in formula.extents]
    result = np.full([evaluate(s, DIMS) for s in formula.shape], IDENTITY[formula.combine])
    for point in itertools.product(*(range(e) for e in extents)):

        def affine(expr: Affine, point: tuple[int, ...] = point) -> int:
            return evaluate(expr.const, DIMS) + sum(c * point[v] for v, c in expr.terms)

        def index(i: Index, size: int) -> int:
            at = affine(i) if isinstance(i, Affine) else int(operands[i.operand][tuple(affine(e) for e in i.index)])
            assert 0 <= at < size, "out of bounds"
            return at

        def holds(guard: Guard) -> bool:
            got = affine(guard.expr)
            return got >= 0 if guard.kind == "ge" else got == 0 if guard.kind == "eq" else got % guard.divisor == 0

        if not all(holds(g) for g in formula.guards):
            continue
        reads: list[Any] = []
        for read in formula.reads:
            inside = all(holds(g) for g in read.guards)
            operand = operands[read.operand]
            where = tuple(index(i, n) for i, n in zip(read.index, operand.shape, strict=True)) if inside else ()
            reads.append(operand[where] if inside else operand.dtype.type(0))
        values: list[Any] = []
        for instr in formula.body.instrs:
            args = [values[a] for a in instr.args]
            if instr.op == "read":
                assert isinstance(instr.attr, int)
                values.append(reads[instr.attr])
            elif instr.op == "index":
                assert isinstance(instr.attr, int)
                values.append(np.int64(point[instr.attr]))
            elif instr.op == "size":
                assert isinstance(instr.attr, Size)
                values.append(np.int64(instr.attr.evaluate(DIMS)))
            elif instr.op == "const":
                values.append(instr.dtype.numpy.type(const_value(instr)))
            elif instr.op == "cast":
                values.append(args[0].astype(instr.dtype.numpy))
            else:
                values.append(np.asarray(PRIMITIVES[instr.op].numpy(*args))[()])
        place = tuple(point[: len(formula.shape)])
        result[place] = JOIN[formula.combine](result[place], float(values[-1]))
    return result


def build(text: str, **operands: tuple[SizeLike, ...] | tuple[tuple[SizeLike, ...], DType]) -> Formula:
    """The formula for operands given by name as shapes, or as (shape, type)."""
    parsed = parse_formula(text)
    shapes, dtypes = [], []
    for name in parsed.operands:
        given = operands[name]
        typed = len(given) == 2 and isinstance(given[1], DType)
        shapes.append(given[0] if typed else given)
        dtypes.append(given[1] if typed else float32)
    formula = build_formula(parsed, shapes, dtypes)  # type: ignore[arg-type]
    graph = Graph()
    described = zip(parsed.operands, dtypes, shapes, strict=True)
    inputs = [graph.add("input", (), n, t, s) for n, t, s in described]  # type: ignore[arg-type]
    graph.outputs["out"] = graph.formula(formula, inputs)
    verify(graph)
    return formula


rng = np.random.default_rng(7)
X = rng.uniform(0.5, 2.0, (5, 4))
W = rng.uniform(0.5, 2.0, (3, 4, 2))
Z = rng.uniform(0.5, 2.0, (5, 2))
V = rng.uniform(0.5, 2.0, 5)
K3 = rng.uniform(0.5, 2.0, 3)
T = rng.uniform(0.5, 2.0, (7, 4))
IDX = np.array([3, 0, 6, 6, 1])
SCALAR = np.array(1.5)

VALUES: list[tuple[str, Mapping[str, Array], Array]] = [
    ("out[n,o] = sum(i,j) x[n,i] * w[o,i,j] * z[n,j]", {"x": X, "w": W, "z": Z}, np.einsum("ni,oij,nj->no", X, W, Z)),
    ("out[i] = x[i] * x[i+1]", {"x": V}, V[:-1] * V[1:]),
    ("out = sum(i) x[i]", {"x": V}, V.sum()),
    ("out[] = max(i,j) x[i,j]", {"x": X}, X.max()),
    ("out[j] = min(i) x[i,j]", {"x": X}, X.min(0)),
    ("out[i] = prod(j) x[i,j]", {"x": X}, X.prod(1)),
    ("out[i] = logsumexp(j) x[i,j]", {"x": X}, np.logaddexp.reduce(X, 1)),
    ("y[i,j] = x[j,i]", {"x": X}, X.T),
    ("out[i: 2] = x[i]", {"x": V}, V[:2]),
    ("out[i] = x[2*i + 1]", {"x": V}, V[1::2]),
    ("out[i] = x[4 - i]", {"x": V}, V[::-1]),
    ("out[i] = x[i + 4 - 2*i]", {"x": V}, V[::-1]),
    ("out[h] = sum(r) x[h + r] * k[r]", {"x": V, "k": K3}, np.array([V[h : h + 3] @ K3 for h in range(3)])),
    ("out[h] = max(r: 2) x[2*h + r]", {"x": V}, np.array([max(V[0:2]), max(V[2:4])])),
    ("out[n,j] = t[idx[n], j]", {"t": T, "idx": IDX}, T[IDX]),
    ("out[n] = sum(j) t[idx[n], j] * x[n, j]", {"t": T, "idx": IDX, "x": X}, (T[IDX] * X).sum(1)),
    ("out[n] = t[idx[4 - n], 2]", {"t": T, "idx": IDX}, T[IDX[::-1], 2]),
    ("out[i: 5] = sum(j) where(j <= i, x[j], 0)", {"x": V}, np.cumsum(V)),
    ("out[i: 5] = sum(j) x[j] * where(not (j > i), 1, 0)", {"x": V}, np.cumsum(V)),
    ("out[i] = x[i] + where(i >= 1, x[i-1], 0)", {"x": V}, V + np.r_[0, V[:-1]]),
    ("out[i] = where(i >= 1, x[i-1], 7)", {"x": V}, np.r_[7, V]),
    ("out[i] = x[i] - where(0 < i and i < 4, x[i-1] + x[i+1], 0)", {"x": V},
     V - np.r_[0, V[:3] + V[2:], 0]),
    ("out[i: 5] = where(0 <= i - 1 < 3, x[i], 0)", {"x": V}, np.r_[0, V[1:4], 0]),
    ("out[i: 9] = where(i < 5, x[i], x[i - 4])", {"x": V}, np.r_[V, V[1:]]),
    ("out[i] = where(i % 2 == 0, x[i], -x[i])", {"x": V}, V * [1, -1, 1, -1, 1]),
    ("out[i] = where(i * i <= 4, x[i], 0)", {"x": V}, V * [1, 1, 1, 0, 0]),
    ("out[i] = where(x[i] > 1, x[i], 0)", {"x": V}, V * (V > 1)),
    ("out[i] = exp(-x[i]**2 / 2) * 0.5", {"x": V}, np.exp(-(V**2) / 2) / 2),
    ("out[i] = max(x[i], 1) + min(x[i], 1.5) - maximum(x[i], x[4-i])", {"x": V},
     np.maximum(V, 1) + np.minimum(V, 1.5) - np.maximum(V, V[::-1])),
    ("out[i] = max(x[i], 1)", {"x": V}, np.maximum(V, 1)),
    ("out[i] = s[] * x[i] + i", {"x": V, "s": SCALAR}, 1.5 * V + np.arange(5)),
    ("out[i] = x[i] / 2 + 1e-1 - .5", {"x": V}, V / 2 + 0.1 - 0.5),
    ("out[i] = arctan2(x[i], 1) + relu(x[i] - 1) + square(x[i]) + reciprocal(x[i])", {"x": V},
     np.arctan2(V, 1) + np.maximum(V - 1, 0) + V**2 + 1 / V),
    ("out[i] = float64(x[i]) + float32(2)", {"x": V}, V + 2),
    ("out[i] = sum(j) -x[i,j] * x[i,j]", {"x": X}, -(X**2).sum(1)),
    ("out[i] = sum(j) (x[i,j] - 1)**2", {"x": X}, ((X - 1) ** 2).sum(1)),
    ("out[i] = max(j: 3, k: 2) x[i, j + k]", {"x": X}, X.max(1)),
    ("out[i] = (x[i] >= 1) & (x[i] <= 2) | (x[i] != x[i])", {"x": V}, (V >= 1) & (V <= 2)),
    ("out[i: 3, j: 3] = where(i == j, 1, 0)", {}, np.eye(3)),
    ("out[i, j: 7] = where(idx[i] == j, 1.0, 0)", {"idx": IDX}, np.eye(7)[IDX]),
    ("out[i] = greater(x[i], 1) | less(x[i], 0.6)", {"x": V}, (V > 1) | (V < 0.6)),
    ("out[i] = sin(pi * x[i]) + mod(x[i], 1)", {"x": V}, np.sin(np.pi * V) + V % 1),
    ("out[Ж] = x[Ж]", {"x": V}, V),
]  # fmt: skip


@pytest.mark.parametrize("text, operands, wanted", VALUES, ids=[v[0] for v in VALUES])
def test_values(text: str, operands: Mapping[str, Array], wanted: Array) -> None:
    types = {name: int32 if a.dtype.kind == "i" else float64 for name, a in operands.items()}
    formula = build(text, **{name: (a.shape, types[name]) for name, a in operands.items()})
    parsed = parse_formula(text)
    got = value(formula, [operands[name].astype(types[name].numpy) for name in parsed.operands])
    assert got.shape == np.shape(wanted)
    np.testing.assert_allclose(got, wanted, rtol=1e-6)


def test_symbolic_sizes() -> None:
    formula = build("out[i] = sum(k) x[i + k] * w[k]", x=(N,), w=(3,))
    assert formula.shape == (N - 2,)
    assert build("out[i] = x[2*i]", x=(N,)).shape == ((N - 1) // 2 + 1,)
    assert build("out[i] = x[N - 1 - i] / N", x=(N,)).shape == (N,)
    assert build("out[i: 2*N, j] = where(i < N, x[i, j], y[i - N, j])", x=(N, 3), y=(N, 3)).shape == (2 * N, 3)
    assert build("out[i,j] = x[i] * y[j]", x=(N,), y=(M,)).shape == (N, M)
    formula = build("out[i] = where(i <= N - 2, x[i + 1], 0)", x=(N,))
    np.testing.assert_array_equal(value(formula, [V]), np.r_[V[1:]])


def test_sizes_as_values() -> None:
    formula = build("out = sum(i) x[i] / N", x=((N,), float64))
    np.testing.assert_allclose(value(formula, [V]), V.mean())


def test_conditions_become_guards() -> None:
    formula = build("out[i: 8] = sum(j) where(j <= i, x[j], 0)", x=(8,))
    assert formula.guards == (Guard("ge", var(0) - var(1)),)
    assert formula.body.is_read() == 0
    assert formula.reads[0].guards == ()
    formula = build("out[i] = x[i] * where(i >= 1, x[i - 1], 0)", x=(8,))
    assert formula.guards == ()
    assert [r.guards for r in formula.reads] == [(), (Guard("ge", var(0, -1)),)]
    formula = build("out[i: 8] = max(j) where(j <= i, x[j], 0)", x=(8,))  # max holds -inf where a guard fails: no guard
    assert formula.guards == ()


def test_types() -> None:
    assert build("out[i] = x[i] + 1", x=((3,), int32)).dtype == int32
    assert build("out[i] = x[i] + 1.5", x=((3,), int32)).dtype == float32
    assert build("out[i] = x[i] / y[i]", x=((3,), int32), y=((3,), int64)).dtype == float32
    assert build("out[i] = x[i] * y[i]", x=((3,), float64), y=((3,), float32)).dtype == float64
    assert build("out[i] = x[i] < 2", x=((3,), int32)).dtype == DTYPES["bool"]
    assert build("out = sum(i) x[i]", x=((3,), int32)).dtype == int64
    assert build("out = sum(i) (x[i] > 0)", x=((3,), int32)).dtype == int64
    assert build("out = logsumexp(i) x[i]", x=((3,), int32)).dtype == float32
    assert build("out[i: 3] = i").dtype == int64


def test_data_indices_carry_their_bound() -> None:
    formula = build("out[n,j] = t[idx[n], j]", t=(100, 4), idx=((N,), int32))
    assert formula.reads[0].index[0] == FromData(1, (var(0),), 100)
    assert formula_text(formula) == "$0[$1[i]:100, j]"


def test_operands_in_order() -> None:
    parsed = parse_formula("r[a,b] = sum(c) where(a < b, q[idx[a], c], 0) * p[c]")
    assert parsed.operands == ("q", "idx", "p")
    assert [r.name for r in parsed.out] == ["a", "b"] and parsed.reduction == "sum"


MISTAKES: list[tuple[str, Mapping[str, Shape], type[GraphcError], str]] = [
    ("", {}, DefinitionError, "formula: the name of the result expected, the end found, at character 1 of ''"),
    ("out[i] x[i]", {}, DefinitionError, "formula: '=' expected, 'x' found, at character 8 of 'out[i] x[i]'"),
    ("out[i] = x[i", {}, DefinitionError, "formula: ']' expected, the end found, at character 13 of 'out[i] = x[i'"),
    ("out[i] = x[i] +", {}, DefinitionError,
     "formula: an operand, a number or a function expected, the end found, at character 16 of 'out[i] = x[i] +'"),
    ("out[i] = x[i] y[i]", {}, DefinitionError,
     "formula: 'y' was not expected, at character 15 of 'out[i] = x[i] y[i]'"),
    ("out[i] = x[i] @ y[i]", {}, DefinitionError,
     "formula: the character '@' means nothing here, at character 15 of 'out[i] = x[i] @ y[i]'"),
    ("out[2*i] = x[i]", {}, DefinitionError,
     "formula: an index of the result is one word, with its size after a colon, at character 8 of 'out[2*i] = x[i]'"),
    ("out[i,i] = x[i]", {}, DefinitionError, "formula: index i is declared twice in 'out[i,i] = x[i]'"),
    ("out[i] = sum(i) x[i]", {}, DefinitionError, "formula: index i is declared twice in 'out[i] = sum(i) x[i]'"),
    ("out[i] = out[i] + x[i]", {}, DefinitionError,
     "formula: out is the result and is read as an operand in 'out[i] = out[i] + x[i]'"),
    ("out[i] = i[i]", {}, DefinitionError, "formula: i is an index and is read as an operand in 'out[i] = i[i]'"),
    ("out[i] = x[i] + x[i,0]", {}, DefinitionError,
     "formula: x is read at 1 and at 2 indices in 'out[i] = x[i] + x[i,0]'; needs the same number"),
    ("out[n] = x[n] + sum(i) w[i]", {}, DefinitionError,
     "formula: sum(…) stands inside a term; a formula has one reduction, before the whole right side: write the inner "
     "one as a formula of its own, at character 24 of 'out[n] = x[n] + sum(i) w[i]'"),
    ("out[n] = sum(i) x[n,i] + b[n]", {}, DefinitionError,
     "formula: sum(i) takes one product; a sum of terms stands in parentheses, sum(i) (… + …), at character 24 of "
     "'out[n] = sum(i) x[n,i] + b[n]'"),
    ("out = sum() 1", {}, DefinitionError, "formula: sum() names no index, at character 13 of 'out = sum() 1'"),
    ("out = sum(x[i])", {}, DefinitionError,
     "formula: sum(…) names the indices that it joins over, as in sum(i, k: 3), at character 16 of 'out = sum(x[i])'"),
    ("out[i] = x[i: 3]", {}, DefinitionError,
     "formula: a size is given where an index is declared, in out[i: 8] or sum(k: 3), at character 17 of "
     "'out[i] = x[i: 3]'"),
    ("out[i] = x[i if i > 0]", {}, DefinitionError,
     "formula: a condition is written where(condition, value, 0), at character 23 of 'out[i] = x[i if i > 0]'"),
    ("out[i] = x[i] * j", {"x": (3,)}, DefinitionError,
     "formula: j is bound by nothing in 'out[i] = x[i] * j'; an index stands in out[…] or in the reduction, a "
     "dimension in an operand's shape, and an operand without axes is written j[]"),
    ("out[i] = x[i, j]", {"x": (3, 4)}, DefinitionError,
     "formula: j is bound by nothing in 'out[i] = x[i, j]'; an index stands in out[…] or in the reduction, a dimension "
     "in an operand's shape, and an operand without axes is written j[]"),
    ("out[i, j] = x[i]", {"x": (3,)}, DefinitionError,
     "formula: index j is bound by nothing in 'out[i, j] = x[i]': no operand is read at it; give its range, as in "
     "out[j: 8]"),
    ("out[h] = max(r) x[2*h + r]", {"x": (9,)}, DefinitionError,
     "formula: the ranges of h and r cannot all be told from x[2*h + r] in 'out[h] = max(r) x[2*h + r]'; give one, as "
     "in out[h: 8]"),
    ("out[i] = x[i, 0]", {"x": (3,)}, ShapeError,
     "formula: x is read at 2 indices; it has 1 axes, shape (3,), in 'out[i] = x[i, 0]'"),
    ("out[i] = x[i] * y[i]", {"x": (3,), "y": (4,)}, ShapeError,
     "formula: index i has different ranges, 3 in x[i] and 4 in y[i], in 'out[i] = x[i] * y[i]'"),
    ("out[i] = x[i] * y[i]", {"x": (N,), "y": (M,)}, ShapeError,
     "formula: index i has different ranges, N in x[i] and M in y[i], in 'out[i] = x[i] * y[i]'"),
    ("out[i] = x[i] * y[i + 2]", {"x": (N,), "y": (M,)}, ShapeError,
     "formula: the range of i is N by x[i] and M - 2 by y[i + 2], and neither is known to be the smaller: give it, in "
     "'out[i] = x[i] * y[i + 2]'"),
    ("out[i] = x[i + 5]", {"x": (4,)}, ShapeError,
     "formula: no index i keeps x[i + 5] in bounds, on an axis of 4, in 'out[i] = x[i + 5]'"),
    ("out[i] = x[i - 1]", {"x": (4,)}, ShapeError,
     "formula: x[i - 1] reads i - 1 from -1 to 3 on an axis of 4; give a smaller range, or a condition with where, in "
     "'out[i] = x[i - 1]'"),
    ("out[i: 8] = x[i]", {"x": (4,)}, ShapeError,
     "formula: x[i] reads i from 0 to 7 on an axis of 4; give a smaller range, or a condition with where, in "
     "'out[i: 8] = x[i]'"),
    ("out[i] = where(i >= 1, x[i - 2], 0)", {"x": (4,)}, ShapeError,
     "formula: x[i - 2] reads i - 2 from -2 to 3 on an axis of 4; give a smaller range, or a condition with where, in "
     "'out[i] = where(i >= 1, x[i - 2], 0)'"),
    ("out[i: 0] = x[i]", {"x": (4,)}, ShapeError,
     "formula: the size of i is 0; needs at least 1, in 'out[i: 0] = x[i]'"),
    ("out[i: j, j] = x[j]", {"x": (4,)}, ShapeError,
     "formula: the size of i names an index, in 'out[i: j, j] = x[j]'"),
    ("out[i: K] = x[0]", {"x": (4,)}, DefinitionError,
     "formula: K is bound by nothing in 'out[i: K] = x[0]'; an index stands in out[…] or in the reduction, a dimension "
     "in an operand's shape, and an operand without axes is written K[]"),
    ("out[i, j] = x[i * j]", {"x": (4,)}, DefinitionError,
     "formula: an index expression is a sum of indices with integer coefficients, in 'out[i, j] = x[i * j]'"),
    ("out[i] = x[i / 2]", {"x": (4,)}, DefinitionError,
     "formula: an index expression is made of indices, integers and sizes with + - *, in 'out[i] = x[i / 2]'"),
    ("out[i] = x[1.5]", {"x": (4,)}, DefinitionError,
     "formula: the index expression has the number 1.5; needs integers, in 'out[i] = x[1.5]'"),
    ("out[i] = x[y[i] + 1]", {"x": (4,), "y": (4,)}, DefinitionError,
     "formula: an index from data stands alone, as in t[idx[n]], in 'out[i] = x[y[i] + 1]'"),
    ("out[i] = x[y[i]]", {"x": (4,), "y": (4,)}, DTypeError,
     "formula: y is float32 and gives an index in 'out[i] = x[y[i]]'; needs integers"),
    ("out[i] = frob(x[i])", {"x": (4,)}, DefinitionError,
     "formula: frob is no scalar function, in 'out[i] = frob(x[i])'"),
    ("out[i] = exp(x[i], 2)", {"x": (4,)}, DefinitionError,
     "formula: exp takes 1 values; 2 given, in 'out[i] = exp(x[i], 2)'"),
    ("out[i] = where(x[i], 1, 0)", {"x": (4,)}, DTypeError,
     "formula: where takes a condition; float32 given, in 'out[i] = where(x[i], 1, 0)'"),
    ("out[i] = x[i] and x[i]", {"x": (4,)}, DTypeError,
     "formula: logical_and: float32 given; takes bool, in 'out[i] = x[i] and x[i]'"),
]  # fmt: skip


@pytest.mark.parametrize("text, shapes, kind, message", MISTAKES, ids=[m[0] + str(m[1]) for m in MISTAKES])
def test_mistakes(text: str, shapes: Mapping[str, Shape], kind: type[GraphcError], message: str) -> None:
    with pytest.raises(kind) as caught:
        build(text, **shapes)
    assert type(caught.value) is kind
    assert str(caught.value) == message


def test_number_of_operands() -> None:
    with pytest.raises(DefinitionError, match="formula: 1 operands given; needs 2: x, y"):
        build_formula(parse_formula("out[i] = x[i] * y[i]"), [(3,)], [float32])


def test_nothing_recurses_too_deep() -> None:
    build_formula(parse_formula("out[i] = " + " + ".join(["x[i]"] * 140)), [(3,)], [float32])
    long = "+".join(["x[i]"] * 5000)
    for text in (f"out[i] = {long}", "out = " + "(" * 999, "out[i] = " + "exp(" * 500, "o = " + "-" * 999):
        with pytest.raises(DefinitionError):
            parse_formula(text)
    nested = "x[i]"
    for _ in range(30):
        nested = f"({nested}" + " + x[i]" * 30 + ")"
    with pytest.raises(DefinitionError, match="operators inside each other"):
        parse_formula(f"out[i] = {nested}")


def test_random_texts_raise_nothing_else() -> None:
    pieces = "out [ ] i j x y = sum max ( ) , : + * - 2 1.5 where <= == and not if idx N % // **".split()
    random = np.random.default_rng(3)
    built = 0
    for _ in range(6000):
        middle = "".join(str(p) + " " for p in random.choice(pieces, int(random.integers(1, 9))))
        start = random.choice(["out[i] = x[i]", "out = sum(i) x[i] *", "out[i,j] = ", "out[i] = where(", ""])
        text = f"{start}{middle}"
        try:
            parsed = parse_formula(text)
            shapes = [(4,) * int(random.integers(0, 3)) for _ in parsed.operands]
            build_formula(parsed, shapes, [[float32, int32][int(random.integers(2))] for _ in parsed.operands])
            built += 1
        except GraphcError:
            continue
    assert built > 5
