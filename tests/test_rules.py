"""The scalar rules: every rule of every table on drawn operands, the tables' own checks, and random bodies."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from graphc.errors import InternalError
from graphc.graph.dtypes import DType, Number, boolean, float32, float64, int32, int64
from graphc.graph.primitives import PRIMITIVES
from graphc.graph.scalar import Body, BodyBuilder, Instr, Scalar, const_value
from graphc.rewrite.engine import normalise
from graphc.rewrite.patterns import Const, Var, function, variables
from graphc.rewrite.ranges import Range
from graphc.rewrite.rule_sets import Options, rule_set
from graphc.rewrite.scalar_rules import CANONICALISE, SIMPLIFY, SPECIALISE, STABILISE, TABLES, stabilise_body
from graphc.rewrite.tables import PlainBuilder, Rule, Table, check_table, exact, finite, rounding, sides, table

Array = NDArray[np.generic]
RULES = [rule for each in TABLES for rule in each.rules]
CASES = [(rule, dtype) for rule in RULES for dtype in rule.dtypes()]
IDS = [f"{rule.name}-{dtype}" for rule, dtype in CASES]


def value_of(body: Body, reads: Sequence[Array], dtype: DType | None = None) -> Array:
    """The value of a body in NumPy; floats in ``dtype`` where it is given."""
    values: list[Array] = []
    with np.errstate(all="ignore"):
        for instr in body.instrs:
            wide = dtype if dtype and instr.dtype.kind == "f" else instr.dtype
            if instr.op == "read":
                assert isinstance(instr.attr, int)
                values.append(np.asarray(reads[instr.attr]).astype(wide.numpy))
            elif instr.op == "const":
                values.append(np.asarray(const_value(instr), dtype=wide.numpy))
            elif instr.op == "cast":
                values.append(values[instr.args[0]].astype(wide.numpy))
            else:
                found = PRIMITIVES[instr.op].numpy(*(values[a] for a in instr.args))
                values.append(np.asarray(found).astype(wide.numpy))
    return values[-1]


def same_bits(a: Array, b: Array) -> bool:
    """Whether two arrays hold the same values, -0.0 and 0.0 told apart, one NaN being as good as another."""
    a, b = np.broadcast_arrays(a, b)
    if a.dtype != b.dtype:
        return False
    if a.dtype.kind != "f":
        return bool(np.array_equal(a, b))
    nan = np.isnan(a) & np.isnan(b)
    return bool(np.all(nan | ((a == b) & (np.signbit(a) == np.signbit(b)))))


SPECIAL: dict[str, list[Number]] = {
    "float32": [0.0, -0.0, 1.0, -1.0, 0.1, -2.5, 1e-45, 3.4e38, -3.4e38, np.inf, -np.inf, np.nan],
    "float64": [0.0, -0.0, 1.0, -1.0, 0.1, -2.5, 5e-324, 1.7e308, -1.7e308, np.inf, -np.inf, np.nan],
    "int32": [0, 1, -1, 7, 2**31 - 1, -(2**31)],
    "int64": [0, 1, -1, 7, 2**63 - 1, -(2**63)],
    "bool": [False, True],
}
CONSTANTS: tuple[tuple[Number, Number], ...] = ((2, 3), (-4, 0.25), (0.5, -8), (1.7, -0.3))


def seed(rule: Rule) -> np.random.Generator:
    """A generator that depends on the rule's name alone."""
    return np.random.default_rng(zlib.crc32(rule.name.encode()))


def constants_of(rule: Rule, dtype: DType) -> list[dict[str, Number]]:
    """Values for the constants of a rule, those that pass its tests."""
    names = [v for v in variables(rule.left) if isinstance(v, Const)]
    if not names:
        return [{}]
    found = []
    for values in CONSTANTS:
        chosen = [int(v) if dtype.kind == "i" else v for v in values]
        if dtype.kind == "i" and 0 in chosen:
            continue
        if all(v.test is None or v.test(float(k)) for v, k in zip(names, chosen, strict=False)):
            found.append({v.name: k for v, k in zip(names, chosen, strict=False)})
    assert found, f"no constant passes the tests of {rule.name}"
    return found


def allowed(rule: Rule, columns: Sequence[Array]) -> list[Array]:
    """The rows of operands that pass the tests of the rule's variables."""
    names = [v for v in variables(rule.left) if isinstance(v, Var)]
    keep = np.ones(columns[0].shape if columns else (1,), dtype=bool)
    for v, column in zip(names, columns, strict=True):
        if v.test:
            keep &= np.array([bool(v.test(Range(float(k), float(k), bool(np.isnan(k))))) for k in column])
    return [column[keep] for column in columns]


def special_operands(rule: Rule, dtype: DType) -> list[Array]:
    """Every combination of special values, and random ones of every size."""
    names = [v for v in variables(rule.left) if isinstance(v, Var)]
    rng = seed(rule)
    pools: list[Array] = []
    for v in names:
        own = boolean if v.kinds == "b" else dtype
        values = list(SPECIAL[own.name])
        if own.kind == "f":
            values += [float(k) for k in rng.standard_normal(4) * 10.0 ** rng.integers(-6, 6, 4)]
        elif own.kind == "i":
            values += [int(k) for k in rng.integers(-1000, 1000, 4)]
        pools.append(np.array(values, dtype=own.numpy))
    rows = list(itertools.product(*pools))
    return allowed(rule, [np.array([row[k] for row in rows], dtype=pools[k].dtype) for k in range(len(names))])


def drawn_operands(rule: Rule, dtype: DType) -> list[Array]:
    """Random values in the rule's domain."""
    rng = seed(rule)
    columns: list[Array] = []
    for v in variables(rule.left):
        if not isinstance(v, Var):
            continue
        if v.kinds == "b":
            columns.append(rng.integers(0, 2, 200).astype(bool))
        elif dtype.kind == "f":
            columns.append(rng.uniform(*rule.domain, 200).astype(dtype.numpy))
        else:
            columns.append(rng.integers(-50, 50, 200).astype(dtype.numpy))
    return allowed(rule, columns)


@pytest.mark.parametrize(("rule", "dtype"), CASES, ids=IDS)
def test_rule_holds(rule: Rule, dtype: DType) -> None:
    for constants in constants_of(rule, dtype):
        left, right = sides(rule, dtype, constants)
        if rule.label == "exact":
            operands = special_operands(rule, dtype)
            before, after = value_of(left, operands), value_of(right, operands)
            assert same_bits(before, np.broadcast_to(after, np.broadcast_shapes(before.shape, after.shape)))
            continue
        operands = drawn_operands(rule, dtype)
        assert not operands or len(operands[0]) >= 50
        if dtype.kind != "f":
            assert same_bits(value_of(left, operands), value_of(right, operands))
            continue
        wide = value_of(left, operands, float64)
        after = value_of(right, operands)
        assert np.all(np.isfinite(wide)), "the domain leaves the function's own"
        tight = 1e-9 if dtype == float64 else 2e-5
        np.testing.assert_allclose(after.astype(np.float64), wide.astype(np.float64), rtol=tight, atol=tight)


@pytest.mark.parametrize(("rule", "dtype"), CASES, ids=IDS)
def test_rule_fires(rule: Rule, dtype: DType) -> None:
    """A table with this rule alone turns the left side into something without it, and says so."""
    rules = rule_set((Table("one", (rule,)),), Options(assume_finite=True))
    left, _ = sides(rule, dtype, constants_of(rule, dtype)[0])
    reads = tuple(Range(0.0, 1e3, False) for _ in left.reads())
    done = normalise(left, rules, reads)
    assert rule.name in [f.rule for f in done.firings]
    again = normalise(done.body, rules, reads)
    assert (again.body, [f.rule for f in again.firings if f.rule == rule.name]) == (done.body, [])


@pytest.mark.parametrize("rule", [r for r in RULES if r.label == "finite"], ids=lambda r: str(r.name))
def test_finite_rule_waits_for_a_proof(rule: Rule) -> None:
    rules = rule_set((Table("one", (rule,)),), Options())
    left, _ = sides(rule, float32)
    assert normalise(left, rules).firings == ()
    proved = tuple(Range(0.5, 0.75, False) for _ in left.reads())
    assert rule.name in [f.rule for f in normalise(left, rules, proved).firings]


def test_names_are_used_once() -> None:
    names = [rule.name for rule in RULES]
    assert sorted(names) == sorted(dict.fromkeys(names))


x, n = Var("x", "f"), Var("n", "fi")
BAD: dict[str, tuple[Callable[[], Rule], str]] = {
    "unbound": (lambda: exact("r", x * 1, n), "n is bound only on the right"),
    "larger": (lambda: exact("r", x + 0, x * 1 * 1), "is not smaller than"),
    "equal": (lambda: exact("r", x + n, n + x), "is not smaller than"),
    "copies": (lambda: rounding("r", x * 4, x + x + x, "test"), "is not smaller than"),
    "type": (lambda: exact("r", function("isnan")(x), x), "bool becomes float32"),
    "no operation": (lambda: exact("r", x, 1), "the left side is no operation"),
    "no reason": (lambda: rounding("r", x + 0, x, ""), "without a reason"),
    "no type": (lambda: exact("r", x + Var("i", "i"), x), "no element type"),
}


@pytest.mark.parametrize("made", TABLES, ids=lambda made: made.name)
def test_table_is_sound(made: Table) -> None:
    check_table(made)


@pytest.mark.parametrize("name", BAD)
def test_table_refuses(name: str) -> None:
    make, message = BAD[name]
    with pytest.raises(InternalError, match=message):
        check_table(table("bad", make()))


def test_table_refuses_a_name_twice() -> None:
    with pytest.raises(InternalError, match="two rules named r"):
        check_table(table("bad", exact("r", x * 1, x), exact("r", x / 1, x)))


def written(function_of: Callable[..., object], *dtypes: DType) -> Body:
    """The body of a function, with nothing simplified."""
    builder = PlainBuilder()
    result = function_of(*(builder.read(k, dtype) for k, dtype in enumerate(dtypes)))
    assert isinstance(result, Scalar)
    return builder.finish(result)


def call(name: str, *operands: Scalar | Number) -> Scalar:
    """A primitive of scalars."""
    builder = next(o.builder for o in operands if isinstance(o, Scalar))
    return builder.apply(name, *operands)


STABLE: dict[str, tuple[Callable[..., object], list[str]]] = {
    "sigmoid": (lambda v: 1 / (1 + call("exp", -v)), ["read", "sigmoid"]),
    "softplus": (lambda v: call("log", 1 + call("exp", v)), ["read", "softplus"]),
    "softplus by max": (
        lambda v: call("maximum", v, 0) + call("log1p", call("exp", -abs(v))), ["read", "softplus"],
    ),
    "log sigmoid": (lambda v: call("log", 1 / (1 + call("exp", -v))), ["read", "neg", "softplus", "neg"]),
    "log one minus sigmoid": (lambda v: call("log", 1 - call("sigmoid", v)), ["read", "softplus", "neg"]),
    "scaled sigmoid": (lambda v: 1 / (1 + call("exp", -2 * v)), ["const", "read", "mul", "sigmoid"]),
    "tanh": (
        lambda v: (call("exp", 2 * v) - 1) / (call("exp", 2 * v) + 1),
        ["const", "const", "read", "mul", "mul", "tanh"],
    ),
    "minus tanh": (
        lambda v: (1 - call("exp", v)) / (1 + call("exp", v)), ["const", "read", "mul", "tanh", "neg"],
    ),
    "norm": (lambda v: call("sqrt", v * v), ["read", "abs"]),
    "log1p": (lambda v: call("log", 1 + v), ["read", "log1p"]),
    "left alone": (lambda v: call("log", 1e-8 + v), ["read", "const", "add", "log"]),
}


@pytest.mark.parametrize("name", STABLE)
def test_stable_forms(name: str) -> None:
    make, ops = STABLE[name]
    found = stabilise_body(written(make, float32))
    assert sorted(i.op for i in found.instrs) == sorted(ops)


def test_swish_is_stable_where_the_plain_form_is_not() -> None:
    swish = written(lambda v, beta: v / (1 + call("exp", -beta * v)), float32, float32)
    stable = stabilise_body(swish)
    assert [i.op for i in stable.instrs] == ["read", "read", "mul", "sigmoid", "mul"]
    values: list[Array] = [np.array([-100.0, -1.0, 0.0, 2.0], np.float32), np.ones(1, np.float32)]
    wide = value_of(swish, values, float64).astype(np.float64)
    np.testing.assert_allclose(value_of(stable, values).astype(np.float64), wide, rtol=1e-6, atol=1e-40)  # a denormal


def test_finite_rules_use_ranges() -> None:
    """An index is finite, so index * 0.0 is 0; a read is not."""
    rules = rule_set((CANONICALISE, SIMPLIFY), Options())

    def of(source: Callable[[BodyBuilder], Scalar]) -> list[str]:
        builder = PlainBuilder()
        value = builder.finish(builder.cast(source(builder), float32) * 0.0)
        return [i.op for i in normalise(value, rules).body.instrs]

    assert of(lambda builder: builder.index(0)) == ["const"]
    assert of(lambda builder: builder.read(0, float32)) == ["const", "read", "mul"]
    masked = written(lambda v, w: call("where", v < w, 1.0, 0.25) * 0.0, float32, float32)
    assert normalise(masked, rules).body.instrs == (Instr("const", (), float32, "0.0"),)


def test_constants_fold_in_their_own_type() -> None:
    def folded(dtype: DType, op: str, *values: Number) -> Instr:
        builder = PlainBuilder()
        value = builder.apply(op, *(builder.const(v, dtype) for v in values))
        body = normalise(builder.finish(value), rule_set((), Options())).body
        assert len(body.instrs) == 1
        return body.result

    third = repr(float(np.float32(0.1) + np.float32(0.2)))
    assert folded(float32, "add", 0.1, 0.2) == Instr("const", (), float32, third)
    assert folded(float64, "add", 0.1, 0.2).attr == repr(0.1 + 0.2)
    assert folded(int32, "mul", 2**30, 4).attr == "0"
    assert folded(float32, "div", 1, 0).attr == "inf"
    assert folded(int64, "less", 3, 4) == Instr("const", (), boolean, "True")


def test_conversions_that_lose_nothing_are_skipped() -> None:
    def chain(*types: DType) -> list[str]:
        builder = PlainBuilder()
        value = builder.read(0, types[0])
        for dtype in types[1:]:
            value = builder.emit(Instr("cast", (value.position,), dtype))
        return [f"{i.op} {i.dtype}" for i in normalise(builder.finish(value), rule_set((), Options())).body.instrs]

    assert chain(float32, float64, float32) == ["read float32"]
    assert chain(float64, float32, float64) == ["read float64", "cast float32", "cast float64"]
    assert chain(boolean, int32, float32) == ["read bool", "cast float32"]
    assert chain(int64, float64, float32) == ["read int64", "cast float64", "cast float32"]


EXACT = rule_set(TABLES, Options(("exact",)))
REAL = rule_set((CANONICALISE, SIMPLIFY, STABILISE, SPECIALISE), Options(("exact", "rounding")))
_UNARY = ["neg", "abs", "exp", "tanh", "sigmoid", "softplus", "sqrt", "log1p", "expm1", "sin"]
_BINARY = ["add", "sub", "mul", "div", "maximum", "minimum"]


def random_body(rng: np.random.Generator, dtype: DType) -> Body:
    """A body of about twenty instructions over three reads."""
    builder = PlainBuilder()
    values = [builder.read(k, dtype) for k in range(3)]
    values += [builder.const(float(v), dtype) for v in rng.choice([0.0, 1.0, -1.0, 0.5, 2.0, 3.0, -0.25], 3)]

    def pick() -> Scalar:
        return values[int(rng.integers(max(0, len(values) - 8), len(values)))]

    for _ in range(20):
        kind = rng.integers(0, 10)
        if kind < 4:
            values.append(builder.apply(str(rng.choice(_UNARY)), pick()))
        elif kind < 9:
            values.append(builder.apply(str(rng.choice(_BINARY)), pick(), pick()))
        else:
            values.append(builder.apply("where", pick() < pick(), pick(), pick()))
    return builder.finish(values[-1])


@pytest.mark.parametrize("number", range(150))
def test_random_bodies_keep_every_bit_under_exact_rules(number: int) -> None:
    rng = np.random.default_rng(number)
    body = random_body(rng, float32)
    pool = np.array(SPECIAL["float32"] + list(rng.standard_normal(8)), dtype=np.float32)
    reads = [rng.choice(pool, 300) for _ in range(3)]
    assert same_bits(*np.broadcast_arrays(value_of(body, reads), value_of(normalise(body, EXACT).body, reads)))


@pytest.mark.parametrize("number", range(150))
def test_random_bodies_keep_their_value_under_all_rules(number: int) -> None:
    """Compared in double precision, where the plain form is finite and not on the edge of a cancellation."""
    rng = np.random.default_rng(1000 + number)
    body = random_body(rng, float64)
    reads = [rng.uniform(0.2, 2.0, 200) for _ in range(3)]
    done = normalise(body, REAL).body
    before, after = np.broadcast_arrays(value_of(body, reads), value_of(done, reads))
    nudged = np.broadcast_to(value_of(body, [r * (1 + 1e-13) for r in reads]), before.shape)
    with np.errstate(all="ignore"):
        smooth = np.isfinite(before) & (np.abs(nudged - before) < 1e-9 * (1 + np.abs(before))) & (np.abs(before) < 1e12)
    np.testing.assert_allclose(after[smooth], before[smooth], rtol=1e-7, atol=1e-7)
    assert normalise(done, REAL).body == done


def test_sides_name_operands_in_order() -> None:
    rule = finite("r", Const("c") * x + n, x, "test")
    left, right = sides(rule, float32, {"c": 3})
    assert [i.op for i in left.instrs] == ["const", "read", "mul", "read", "add"]
    assert (left.reads(), right.reads()) == ((0, 1), (0,))


def test_a_long_body_is_rewritten_without_recursion() -> None:
    builder = PlainBuilder()
    value = builder.read(0, float32)
    for k in range(20_000):
        value = builder.apply("add", builder.apply("tanh", value), builder.const(float(k % 7), float32))
    assert len(normalise(builder.finish(value), REAL).body.instrs) > 20_000


