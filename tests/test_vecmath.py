"""Every vector function against a wider reference over the whole range of both float types, and against C's specials.

float32: every 1,009th of the 2^32 bit patterns (every 97th with ``GRAPHC_NIGHTLY=1``) against float64. float64: random
bit patterns and hard regions against 80-bit arithmetic where NumPy has it, and a sample against mpmath everywhere.
``pytest -s`` prints the largest errors found, in ULP.
"""

from __future__ import annotations

import math
import os
import platform
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import mpmath
import numpy as np
import pytest

from graphc.errors import InternalError
from graphc.llvm.target import host, host_like
from graphc.llvm.text import Module, Value, Writer
from graphc.llvm.vecmath import VECTOR_MATHS, call_out_of_line
from graphc.llvm.vecmath_tables import DOUBLE, FLOAT

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent / "tools")]

import fit_vecmath  # noqa: E402
from vecmath_lab import ARITY, NAMES, SCALARS, Array, Compiled, compiled, source, ulps, worst_of_every_float  # noqa: E402

NIGHTLY = os.environ.get("GRAPHC_NIGHTLY") == "1"
STRIDE = 97 if NIGHTLY else 1009
WIDE = np.finfo(np.longdouble).nmant >= 63
WIDER: dict[str, type[np.floating]] = {"float": np.float64, "double": np.longdouble}
X86 = platform.machine() in ("x86_64", "AMD64")

# In ULP. The contract: exp and log 1; tanh, sigmoid, erf, sin, cos, log1p, expm1 3; the others 4; roundings exact.
BOUNDS = {
    "exp": 1.0, "log": 1.0, "sqrt": 0.5, "floor": 0.0, "ceil": 0.0, "trunc": 0.0, "round": 0.0, "sign": 0.0,
    **dict.fromkeys(("tanh", "sigmoid", "erf", "sin", "cos", "log1p", "expm1"), 3.0),
    "fmod": 0.0, "remainder": 0.5,
}  # fmt: skip


def _sigmoid(x: Array) -> Array:
    small = np.exp(-np.abs(x))
    return np.where(x >= 0, 1 / (1 + small), small / (1 + small))


def _erf(x: Array) -> Array:
    return np.fromiter(map(math.erf, x.astype(np.float64)), np.float64, len(x))


REFERENCES: dict[str, Callable[..., Array]] = {
    "exp": np.exp, "log": np.log, "log1p": np.log1p, "expm1": np.expm1, "exp2": np.exp2, "log2": np.log2,
    "log10": np.log10, "sin": np.sin, "cos": np.cos, "tan": np.tan, "asin": np.arcsin, "acos": np.arccos,
    "atan": np.arctan, "sinh": np.sinh, "cosh": np.cosh, "tanh": np.tanh, "asinh": np.arcsinh, "acosh": np.arccosh,
    "atanh": np.arctanh, "erf": _erf, "sigmoid": _sigmoid, "rsqrt": lambda x: 1 / np.sqrt(x), "sqrt": np.sqrt,
    "softplus": lambda x: np.where(x < 0, 0, x) + np.log1p(np.exp(-np.abs(x))), "floor": np.floor, "ceil": np.ceil,
    "trunc": np.trunc, "round": np.round, "sign": np.sign, "atan2": np.arctan2, "logaddexp": np.logaddexp,
    "pow": np.power, "remainder": np.remainder, "fmod": np.fmod, "floor_divide": np.floor_divide, "hypot": np.hypot,
}  # fmt: skip

UNARY = [name for name, n in ARITY.items() if n == 1]
BINARY = [name for name, n in ARITY.items() if n == 2]
EXACT_IN_OWN_TYPE = ("remainder", "fmod", "floor_divide")
ODD = ("sin", "tan", "asin", "atan", "sinh", "tanh", "asinh", "atanh", "erf", "expm1", "log1p")


@pytest.fixture(autouse=True)
def _quiet() -> object:
    with np.errstate(all="ignore"):
        yield


@cache
def function(name: str, scalar: str) -> Compiled:
    """The function for the host."""
    return compiled(name, scalar)


def check(name: str, scalar: str, args: list[Array], reference: Array, bound: float, how: str) -> None:
    """Asserts the bound, the sign of zeros that are right, and prints the largest error."""
    got = function(name, scalar)(*args)
    error = ulps(got, reference, scalar)
    if name == "logaddexp":
        error = error / _cancelled(reference, args)
    at = int(np.argmax(error))
    given = ", ".join(repr(a[at]) for a in args)
    print(f"{name:13}{scalar:7}{float(error[at]):6.3f} ULP of {len(got):8} {how}, at {given}")
    assert error[at] <= bound, f"{name}({given}) = {got[at]!r}, exact {reference[at]!r}"
    assert got.dtype == SCALARS[scalar]


def _cancelled(reference: Array, args: list[Array]) -> Array:
    """How far, in powers of 2, the result lies below the larger of the two terms that ``logaddexp`` adds.

    They are max(x, y) and log1p(e^-|x - y|) and cancel between -log 2 and 0; the bound is in ULP of the larger one.
    """
    larger = np.maximum(*args).astype(reference.dtype)
    term = np.maximum(np.abs(larger), reference - larger)
    ratio = np.exp2(np.floor(np.log2(term)) - np.floor(np.log2(np.abs(reference))))
    return np.where(np.isfinite(ratio), np.maximum(ratio, 1), 1)


@pytest.mark.parametrize("name", UNARY)
def test_float_over_all_bit_patterns(name: str) -> None:
    reference = REFERENCES[name]
    x = np.arange(0, 2**32, STRIDE, dtype=np.uint64).astype(np.uint32).view(np.float32)
    for chunk in np.array_split(x, max(1, len(x) // 5_000_000)):
        check(name, "float", [chunk], reference(chunk.astype(np.float64)), BOUNDS.get(name, 4.0), "bit patterns")


@pytest.mark.skipif(not NIGHTLY, reason="minutes a function")
@pytest.mark.parametrize("name", ["exp", "log", "tanh", "erf", "sigmoid"])
def test_every_float(name: str) -> None:
    worst, where = worst_of_every_float(name)
    print(f"{name:13}float  {worst:6.3f} ULP of every float, at {where!r}")
    assert worst <= BOUNDS[name]


def hard_doubles(rng: np.random.Generator, n: int) -> Array:
    """Random bit patterns, numbers of ordinary size, and neighbourhoods of the places where branches and poles lie."""
    half_turns = rng.integers(1, 2**40, n // 8) * (np.pi / 2)
    exponents = np.round(rng.uniform(-1075, 1025, n // 8)) * np.log(2) * 0.5
    centres = rng.choice(
        [1.0, -1.0, 0.5, -0.5, 2.0, 0.7071067811865476, 1e5, -1e5, 6.0, 709.78, -745.13, 710.47], n // 8
    )
    parts = [
        rng.integers(0, 2**64, n, dtype=np.uint64).view(np.float64),
        rng.normal(size=n) * np.exp(rng.uniform(-8, 8, n)),
        rng.uniform(-1, 1, n // 2),
        rng.uniform(-750, 750, n // 4),
        half_turns * (1 + rng.integers(-2, 3, n // 8) * 2.0**-52),
        exponents * (1 + rng.integers(-2, 3, n // 8) * 2.0**-52),
        centres * (1 + rng.normal(size=n // 8) * 10.0 ** rng.uniform(-16, -1, n // 8)),
        # The double nearest to a multiple of π/2. Source: J.-M. Muller, Elementary Functions, 2nd ed., table 9.1.
        np.array([6381956970095103.0 * 2.0**797, 0.0, -0.0, np.inf, -np.inf, np.nan, 5e-324, -5e-324]),
        np.array([2.2250738585072014e-308, 1.7976931348623157e308, -1.7976931348623157e308]),
    ]
    return np.concatenate(parts)


@pytest.mark.skipif(not WIDE, reason="NumPy's longdouble is no wider than float64 here")
@pytest.mark.parametrize("name", [n for n in UNARY if n != "erf"])
def test_double_against_extended(name: str, rng: np.random.Generator) -> None:
    x = hard_doubles(rng, 1_000_000 if NIGHTLY else 30_000)
    check(name, "double", [x], REFERENCES[name](x.astype(np.longdouble)), BOUNDS.get(name, 4.0), "points")


def _exactly(name: str, *args: float) -> float | mpmath.mpf:
    """The function in 200 bits; infinity and NaN as C has them."""
    if name in ("sigmoid", "softplus", "rsqrt", "log2", "exp2"):
        (x,) = (mpmath.mpf(a) for a in args)
        return {
            "sigmoid": lambda: 1 / (1 + mpmath.exp(-x)),
            "softplus": lambda: mpmath.log1p(mpmath.exp(x)),
            "rsqrt": lambda: 1 / mpmath.sqrt(x),
            "log2": lambda: mpmath.log(x, 2),
            "exp2": lambda: mpmath.mpf(2) ** x,
        }[name]()
    if name in ("logaddexp", "pow", "hypot"):
        x, y = (mpmath.mpf(a) for a in args)
        if name == "hypot":
            return mpmath.sqrt(x * x + y * y)
        return x**y if name == "pow" else mpmath.log(mpmath.exp(x) + mpmath.exp(y))
    return getattr(mpmath, name)(*(mpmath.mpf(a) for a in args))


TRANSCENDENTAL = [n for n in UNARY if n not in ("floor", "ceil", "trunc", "round", "sign", "sqrt")]
TRANSCENDENTAL += ["pow", "atan2", "logaddexp", "hypot"]
RANGES = {
    "acosh": (1.0, 1e3), "asin": (-1, 1), "acos": (-1, 1), "atanh": (-1, 1), "log1p": (-1, 50), "exp": (-745, 709),
    "exp2": (-1074, 1023), "expm1": (-50, 709), "sinh": (-710, 710), "cosh": (-710, 710), "erf": (-7, 7),
    "sigmoid": (-740, 50), "softplus": (-740, 50), "tanh": (-25, 25), "pow": (-40, 40), "logaddexp": (-40, 40),
}  # fmt: skip


@pytest.mark.parametrize("name", TRANSCENDENTAL)
def test_double_against_mpmath(name: str, rng: np.random.Generator) -> None:
    n = 20_000 if NIGHTLY else 1_000
    low, high = RANGES.get(name, (-1e6, 1e6))
    args = []
    for _ in range(ARITY[name]):
        spread = rng.uniform(-1, 1, n) * 2.0 ** rng.uniform(-60, math.log2(max(abs(low), high)), n)
        args.append(np.where(rng.random(n) < 0.5, rng.uniform(low, high, n), np.clip(spread, low, high)))
    if name in ("log", "log2", "log10", "rsqrt", "pow"):
        args[0] = np.abs(args[0])
    if name == "acosh":
        args[0] = 1 + np.abs(args[0] - 1)
    args[0][np.abs(args[0]) == 1] = 1.75 if name == "acosh" else 0.75
    got = function(name, "double")(*args)
    worst = 0.0
    with mpmath.workprec(256):
        for row in zip(got, *args, strict=True):
            y, given = float(row[0]), [float(a) for a in row[1:]]
            exact = min(_exactly(name, *given), mpmath.ldexp(1, 1024))
            top = 1 if not exact else mpmath.frexp(exact)[1]
            if name == "logaddexp":
                top = max(top, math.frexp(max(given))[1], mpmath.frexp(exact - max(given))[1])
            unit = mpmath.ldexp(1, max(top - 53, -1074))
            error = float(abs((mpmath.mpf(y) if math.isfinite(y) else mpmath.ldexp(1, 1024)) - exact) / unit)
            assert error <= BOUNDS.get(name, 4.0), f"{name}{tuple(given)} = {y!r}, exact {exact}"
            worst = max(worst, error)
    print(f"{name:13}double {worst:6.3f} ULP of {n:8} against mpmath")


SPECIAL = (0.0, -0.0, 1.0, -1.0, 2.0, -2.0, 3.0, -3.0, 0.5, -0.5, 1.5, 1e10, -1e10, 16777217.0, -16777215.0, 1e-38,
           3.4e38, -3.4e38, 1e-45, -1e-45, 5e-324, -5e-324, 9007199254740991.0, 1.7e308, -1.7e308, math.inf, -math.inf,
           math.nan)  # fmt: skip


def pairs(name: str, scalar: str, rng: np.random.Generator) -> list[Array]:
    """Two operands: all pairs of special values, random bit patterns, ordinary numbers, and powers near overflow."""
    dtype = SCALARS[scalar]
    width = 8 * np.dtype(dtype).itemsize
    integer = np.uint32 if width == 32 else np.uint64
    n = 1_000_000 if NIGHTLY else 60_000

    def raw() -> Array:
        return rng.integers(0, 2**width, n, dtype=integer).view(dtype)

    def spread(scale: float) -> Array:
        return (rng.normal(size=n) * np.exp(rng.uniform(-scale, scale, n))).astype(dtype)

    special = np.array(SPECIAL).astype(dtype)
    grid = np.meshgrid(special, special)
    first = [raw(), spread(3), spread(10), np.abs(raw()), np.abs(spread(5)), (1 + spread(0) * dtype(1e-3))]
    second = [raw(), spread(3), spread(10), spread(3), spread(2), spread(8)]
    if name == "pow":
        base = np.abs(raw())
        edge = (152, 129) if width == 32 else (1078, 1025)
        first.append(base)
        second.append((rng.uniform(-edge[0], edge[1], n) / np.log2(base.astype(np.longdouble))).astype(dtype))
    return [
        np.concatenate([*first, grid[0].ravel()]).astype(dtype),
        np.concatenate([*second, grid[1].ravel()]).astype(dtype),
    ]


@pytest.mark.parametrize(
    "scalar", ["float", pytest.param("double", marks=pytest.mark.skipif(not WIDE, reason="narrow"))]
)
@pytest.mark.parametrize("name", BINARY)
def test_two_operands(name: str, scalar: str, rng: np.random.Generator) -> None:
    args = pairs(name, scalar, rng)
    wide = WIDER[scalar]
    if name in EXACT_IN_OWN_TYPE:
        reference = REFERENCES[name](*args).astype(wide)
    else:
        reference = REFERENCES[name](*(a.astype(wide) for a in args))
    check(name, scalar, args, reference, BOUNDS.get(name, 4.0), "pairs")
    got = function(name, scalar)(*args)
    zero = (got == 0) & (reference == 0)
    wrong = zero & (np.signbit(got) != np.signbit(reference))
    assert not wrong.any(), f"{name}{tuple(a[wrong][0] for a in args)} is a zero of the wrong sign"


@pytest.mark.parametrize("scalar", ["float", "double"])
@pytest.mark.parametrize("name", UNARY)
def test_special_values(name: str, scalar: str) -> None:
    """NumPy's own float64 functions, which are the C library's or agree with it on these."""
    x = np.array(SPECIAL).astype(SCALARS[scalar])
    got = function(name, scalar)(x)
    wanted = REFERENCES[name](x.astype(np.float64)).astype(SCALARS[scalar])
    np.testing.assert_array_equal(np.isnan(got), np.isnan(wanted))
    np.testing.assert_array_equal(np.isinf(got), np.isinf(wanted))
    signed = ~np.isnan(wanted) & ((wanted != 0) | (name in ODD) | (name in ("sqrt", "floor", "ceil", "trunc", "round")))
    np.testing.assert_array_equal(np.signbit(got)[signed], np.signbit(wanted)[signed])


@pytest.mark.parametrize("scalar", ["float", "double"])
def test_values_that_are_exact(scalar: str) -> None:
    dtype = SCALARS[scalar]
    low, high = (-149, 127) if scalar == "float" else (-1074, 1023)
    n = np.arange(low, high + 1).astype(dtype)
    powers = np.ldexp(dtype(1), n.astype(np.int32))
    np.testing.assert_array_equal(function("exp2", scalar)(n), powers)
    np.testing.assert_array_equal(function("log2", scalar)(powers), n)
    np.testing.assert_array_equal(function("pow", scalar)(np.full_like(n, 2), n), powers)
    tens = np.arange(11 if scalar == "float" else 23).astype(dtype)
    ten_to = np.array([10 ** int(k) for k in tens]).astype(dtype)
    np.testing.assert_array_equal(function("log10", scalar)(ten_to), tens)
    np.testing.assert_array_equal(function("pow", scalar)(np.full_like(tens, 10), tens), ten_to)
    small = np.array([0.0, 1.0, 2.0, 3.0, 4.0, 5.0]).astype(dtype)
    np.testing.assert_array_equal(function("pow", scalar)(-small, np.full_like(small, 3)), -(small**3))
    np.testing.assert_array_equal(function("hypot", scalar)(3 * small, 4 * small), 5 * small)


def specials(dtype: type[np.floating]) -> Array:
    """Zeros, infinities, NaN, denormals, and the edges of the octaves that logarithms are split into."""
    tiny = np.ldexp(dtype(1), -(149 if dtype == np.float32 else 1074) + np.arange(60, dtype=np.int32))
    edges = np.ldexp(dtype(0.75), np.arange(-120, 120, dtype=np.int32))
    found = [np.array(SPECIAL).astype(dtype), tiny, 3 * tiny, edges]
    return np.concatenate([*found, np.nextafter(edges, dtype(0)), np.nextafter(edges, dtype(np.inf))])


@pytest.mark.parametrize("name", NAMES)
def test_same_bits_at_any_width(name: str, rng: np.random.Generator) -> None:
    """Scalars, other lane counts, the out-of-line form and, where this CPU can run it, AVX2 code agree to the bit."""
    for scalar, dtype in SCALARS.items():
        bits = np.uint32 if scalar == "float" else np.uint64
        args = [rng.integers(0, np.iinfo(bits).max, 3000, dtype=bits).view(dtype) for _ in range(ARITY[name])]
        args = [np.concatenate([a, rng.normal(size=3000).astype(dtype) * 30, specials(dtype)]) for a in args]
        wanted = function(name, scalar)(*args)
        others = [
            compiled(name, scalar, lanes=0),
            compiled(name, scalar, lanes=4),
            compiled(name, scalar, outside=True),
        ]
        if X86 and host().fma:
            others.append(compiled(name, scalar, target=host_like("haswell")))
        for other in others:
            got = other(*args)
            # The bits of a NaN are nobody's promise.
            same = np.where(np.isnan(wanted), np.isnan(got), wanted.view(bits) == got.view(bits))
            assert same.all(), f"{name} {scalar}: {[a[~same][0] for a in args]}"


@pytest.mark.skipif(not X86, reason="compiles for another x86-64")
@pytest.mark.parametrize("name", NAMES)
def test_without_avx_and_fma(name: str, rng: np.random.Generator) -> None:
    """The same bounds on the oldest x86-64, which has neither: floats go through double there, doubles through libm."""
    n = 4000
    for scalar, dtype in SCALARS.items():
        wide = WIDER[scalar]
        if scalar == "double" and not WIDE:
            continue
        args = [(rng.normal(size=n) * np.exp(rng.uniform(-6, 6, n))).astype(dtype) for _ in range(ARITY[name])]
        if ARITY[name] == 2:
            grid = np.meshgrid(np.array(SPECIAL).astype(dtype), np.array(SPECIAL).astype(dtype))
            args = [np.concatenate([a, g.ravel()]) for a, g in zip(args, grid, strict=True)]
        else:
            args = [np.concatenate([args[0], np.array(SPECIAL).astype(dtype)])]
        got = compiled(name, scalar, target=host_like("x86-64"))(*args)
        own = name in EXACT_IN_OWN_TYPE
        exact = REFERENCES[name](*(a if own else a.astype(wide) for a in args)).astype(wide)
        error = ulps(got, exact, scalar)
        if name == "logaddexp":
            error = error / _cancelled(exact, args)
        bound = BOUNDS.get(name, 4.0)
        at = int(np.argmax(error))
        # math.erf, the reference, has an error of its own in double.
        assert error[at] <= bound, f"{name} {scalar} {[a[at] for a in args]}: {got[at]!r}, exact {exact[at]!r}"


def test_coefficients_are_those_of_the_fit() -> None:
    for single, stored in ((True, FLOAT), (False, DOUBLE)):
        made = fit_vecmath.table(single)
        assert list(made) == list(stored)
        for key, (numbers, error) in made.items():
            assert numbers == stored[key], key
            assert error is None or error < (-25.5 if single else -54.5), key


def test_text_has_no_fast_math_and_one_copy_out_of_line() -> None:
    text = source("pow", "float", 16, fma=True).text()
    assert not any(flag in text for flag in ("nnan", "ninf", "fast ", "reassoc"))
    module = Module()
    for _ in range(2):
        call_out_of_line(Writer(module), "exp", [Value("%x", "<16 x float>")])
    assert list(module.functions) == ["graphc_exp_v16f32"]
    assert "internal <16 x float> @graphc_exp_v16f32" in module.text() and "noinline" in module.text()


def test_wrong_uses_are_refused() -> None:
    w = Writer(Module())
    with pytest.raises(InternalError, match="no function cosec"):
        call_out_of_line(w, "cosec", [Value("%x", "float")])
    with pytest.raises(InternalError, match="i32 is no float or double"):
        VECTOR_MATHS["exp"].floats(w, Value("%x", "i32"))


def test_table_holds_the_names_that_bodies_use() -> None:
    assert set(REFERENCES) == set(NAMES) >= set(VECTOR_MATHS)
