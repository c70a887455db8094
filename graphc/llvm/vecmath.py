"""Vector maths: an emitter a function, for float and double, scalars and vectors of any lanes, over the whole range.

``VECTOR_MATHS[name].floats(w, x)`` writes the function where ``w`` stands and gives the result. Special values
(infinities, NaN, signed zeros, denormals, overflow) are C's. Results depend only on the type and on whether the target
fuses multiply-adds, not on lanes or width. ``tests/test_vecmath.py`` measures the errors over all of both ranges.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from graphc.errors import InternalError
from graphc.llvm import integers
from graphc.llvm.terms import Term, at_least, at_most, clamp, fma, poly, select
from graphc.llvm.text import Value, Writer
from graphc.llvm.vecmath_core import (
    INF,
    NAN,
    exp2_parts,
    exp_parts,
    floats,
    format_of,
    log_parts,
    log_specials,
    log_sum,
    out_of_line,
    power_of_two,
    round_to_integer,
    scaled,
    single_scale,
    split,
)
from graphc.llvm.vecmath_power import floor_divide, hypot, pow, remainder, round
from graphc.llvm.vecmath_trig import acos, asin, atan, atan2, cos, sin, tan
from graphc.structs import dataclass


def exp(w: Writer, x: Value) -> Value:
    """e^x."""
    return _exp(Term(w, x)).v


def _exp(x: Term) -> Term:
    q, n = exp_parts(clamp(x, *format_of(x).exp_range))
    return scaled(q + 1.0, n)


def _exp_minus(x: Term) -> Term:
    """e^-x for x >= 0."""
    q, n = exp_parts(at_least(-x, format_of(x).exp_range[0]))
    return scaled(q + 1.0, n)


def exp2(w: Writer, x: Value) -> Value:
    """2^x; exact for whole x."""
    t = Term(w, x)
    q, n = exp2_parts(clamp(t, *format_of(t).exp2_range))
    return scaled(q + 1.0, n).v


def expm1(w: Writer, x: Value) -> Value:
    """e^x - 1, accurate near 0."""
    t = Term(w, x)
    fmt = format_of(t)
    # Below -(mantissa + 2) ln 2 the result rounds to -1.
    q, n = exp_parts(clamp(t, -0.7 * (fmt.mantissa + 3), fmt.exp_range[1]))
    scale = single_scale(n, 1)
    y = fma(scale, q, scale - 0.5) * 2.0
    return select(abs(t) < fmt.half_unit, t, y).v


def log(w: Writer, x: Value) -> Value:
    """The natural logarithm."""
    return _log(w, x, "")


def log2(w: Writer, x: Value) -> Value:
    """The logarithm to base 2; exact for powers of 2."""
    return _log(w, x, "2")


def log10(w: Writer, x: Value) -> Value:
    """The logarithm to base 10; exact for powers of 10."""
    return _log(w, x, "10")


def _log(w: Writer, x: Value, base: str) -> Value:
    t = Term(w, x)
    f, k = log_parts(t)
    return log_specials(t, log_sum(f, k, base)).v


def log1p(w: Writer, x: Value) -> Value:
    """log(1 + x), accurate near 0."""
    t = Term(w, x)
    y = _log1p(t).copysign(t)
    y = select(t.eq(INF), INF, y)
    return select(t > -1.0, y, select(t.eq(-1.0), t.const(-INF), NAN)).v


def _log1p(x: Term) -> Term:
    """log1p for -1 < x < infinity: of 1 + x = u + c, c going into f after u is split."""
    fmt = format_of(x)
    u = x + 1.0
    back = u - 1.0
    c = (1.0 - (u - back)) + (x - back)
    f, biased = split(u)
    k = floats(biased | fmt.bits_of(2.0**fmt.mantissa)) - (2.0**fmt.mantissa + fmt.bias)
    # c · 2^-k; beyond 2^(mantissa + 2) it is nothing, and its scale would leave the range.
    c = select(u > 2.0 ** (fmt.mantissa + 2), 0.0, c * power_of_two(2 * fmt.bias - biased))
    return log_sum(f + c, k)


def sinh(w: Writer, x: Value) -> Value:
    """The hyperbolic sine, by E = e^|x| - 1: (E + E/(E + 1))/2, quartered so that it overflows last."""
    t = Term(w, x)
    fmt = format_of(t)
    q, n = exp_parts(at_most(abs(t), fmt.exp_range[1] + 0.5))
    scale = single_scale(n, 2)
    quarter = fma(scale, q, scale - 0.25)
    y = 2.0 * (quarter + 0.25 * quarter / (quarter + 0.25))
    return select(abs(t) < fmt.half_unit, abs(t), y).copysign(t).v


def cosh(w: Writer, x: Value) -> Value:
    """The hyperbolic cosine, (e^|x| + e^-|x|)/2, quartered so that it overflows last."""
    t = Term(w, x)
    q, n = exp_parts(at_most(abs(t), format_of(t).exp_range[1] + 0.5))
    quarter = (q + 1.0) * single_scale(n, 2)
    return (2.0 * (quarter + 0.0625 / quarter)).v


def tanh(w: Writer, x: Value) -> Value:
    """The hyperbolic tangent, by E = e^z - 1, z = 2|x|: E/(E + 2).

    A relative error of z comes into the result z/sinh(z) times, so z - n ln 2 needs no second piece of ln 2.
    """
    t = Term(w, x)
    fmt = format_of(t)
    # From (mantissa + 2) ln(2)/2 on the result rounds to 1.
    z = at_most(abs(t), 0.35 * (fmt.mantissa + 3)) * 2.0
    n = round_to_integer(z, fmt.table["log2e"][0])
    r = fma(n.n, -math.log(2), z)
    scale = single_scale(n)
    first = scale * r  # exact
    e = fma(first * r, poly(r, fmt.table["exp"]), first + (scale - 1.0))
    return (e / (e + 2.0)).copysign(t).v


def asinh(w: Writer, x: Value) -> Value:
    """The inverse hyperbolic sine: log1p(a + a²/(1 + √(a² + 1))), a = |x|; log(a) + log 2 where 1 no longer counts."""
    t = Term(w, x)
    a = abs(t)
    big = a > 2.0 ** (format_of(t).mantissa + 3)
    square = a * a
    inner = a + square / (fma(a, a, 1.0).sqrt() + 1.0)
    return _log1p_doubled(select(big, a, inner), big).copysign(t).v


def acosh(w: Writer, x: Value) -> Value:
    """The inverse hyperbolic cosine: log1p(t + √(2t + t²)), t = x - 1; NaN below 1."""
    t = Term(w, x)
    big = t > 2.0 ** (format_of(t).mantissa + 3)
    above = t - 1.0
    inner = above + fma(above, above, above + above).sqrt()
    return select(t >= 1.0, _log1p_doubled(select(big, t, inner), big), NAN).v


def _log1p_doubled(x: Term, doubled: Term) -> Term:
    """log1p(x), and log 2 more where the mask is set; infinity and NaN pass."""
    y = _log1p(x)
    y = select(doubled, y + 0.6931471805599453, y)
    return select(x < INF, y, x)


def atanh(w: Writer, x: Value) -> Value:
    """The inverse hyperbolic tangent: log1p(2a/(1 - a))/2, a = |x|; infinite at ±1, NaN beyond."""
    t = Term(w, x)
    a = abs(t)
    y = _log1p((a + a) / (1.0 - a)) * 0.5
    return select(a < 1.0, y, select(a.eq(1.0), a.const(INF), NAN)).copysign(t).v


def erf(w: Writer, x: Value) -> Value:
    """The error function: a polynomial up to 1, beyond 1 - e^(polynomial), which is log(erfc)."""
    t = Term(w, x)
    fmt = format_of(t)
    a = abs(t)
    near = fma(a, poly(a * a, fmt.table["erf"]), a)
    q, n = exp_parts(poly(at_most(a, fmt.erfc_top), fmt.table["erfc"]))
    scale = single_scale(n)
    beyond = 1.0 - fma(scale, q, scale)
    return select(a <= 1.0, near, beyond).copysign(t).v


def sigmoid(w: Writer, x: Value) -> Value:
    """1/(1 + e^-x), with e^-|x| alone, so that nothing overflows and small results keep their bits."""
    t = Term(w, x)
    small = _exp_minus(abs(t))
    return (select(t < 0.0, small, 1.0) / (small + 1.0)).v


def softplus(w: Writer, x: Value) -> Value:
    """log(1 + e^x) = max(x, 0) + log1p(e^-|x|)."""
    t = Term(w, x)
    return (select(t < 0.0, 0.0, t) + _log1p_unit(_exp_minus(abs(t)))).v


def _log1p_unit(z: Term) -> Term:
    """log1p for 0 <= z <= 1: 2 atanh(s) with s = z/(2 + z) <= 1/3, which needs no splitting."""
    s = z / (z + 2.0)
    square = s * s
    return fma(s * square, poly(square, format_of(z).table["log1p_unit"]), s + s)


def logaddexp(w: Writer, x: Value, y: Value) -> Value:
    """log(e^x + e^y) = max(x, y) + log1p(e^-|x - y|); accurate in ULP of the larger of these two terms.

    They cancel where max(x, y) lies between -log 2 and 0, as in NumPy and in every form with one rounding a term.
    """
    a, b = Term(w, x), Term(w, y)
    # A NaN is one of the two, and their difference NaN.
    larger, smaller = select(a > b, a, b), select(a > b, b, a)
    # Equal infinities have no difference.
    apart = select(a.eq(b), 0.0, larger - smaller)
    # The difference may be large and e^-difference still count, so what rounding took from it is put back.
    back = apart - larger
    error = (larger - (apart - back)) - (smaller + back)
    small = _exp_minus(apart)
    small = fma(small, -select(abs(error) < 1.0, error, 0.0), small)
    return (larger + _log1p_unit(small)).v


Emitter = Callable[..., Value]


@dataclass(frozen=True, slots=True)
class Code:
    """A scalar function's own code. reason: why it is not a few instructions in its record, or other functions.
    integers: for integer operands, where it takes them.
    """

    floats: Emitter
    reason: str
    integers: Emitter | None = None


# The one place in ``diff``, ``kernels`` and ``llvm`` that names operations; ``tests/test_records.py`` counts.
VECTOR_MATHS: dict[str, Code] = {
    "exp": Code(exp, "no instruction computes it"),
    "exp2": Code(exp2, "exact for whole x, which e^(x log 2) is not"),
    "expm1": Code(expm1, "e^x - 1 cancels near 0"),
    "log": Code(log, "no instruction computes it"),
    "log2": Code(log2, "exact at powers of 2, which log(x)/log 2 is not"),
    "log10": Code(log10, "exact at powers of 10, which log(x)/log 10 is not"),
    "log1p": Code(log1p, "1 + x loses the low bits of x"),
    "sin": Code(sin, "no instruction computes it"),
    "cos": Code(cos, "no instruction computes it"),
    "tan": Code(tan, "the quotient of rounded sin and cos is not within 4 ULP"),
    "asin": Code(asin, "no instruction computes it"),
    "acos": Code(acos, "π/2 - asin(x) cancels near 1"),
    "atan": Code(atan, "no instruction computes it"),
    "atan2": Code(atan2, "y/x overflows, and has lost the quadrant and the signs of zeros"),
    "sinh": Code(sinh, "(e^x - e^-x)/2 cancels near 0 and overflows early"),
    "cosh": Code(cosh, "(e^x + e^-x)/2 overflows early"),
    "tanh": Code(tanh, "sinh/cosh overflows, and an activation must be fast"),
    "asinh": Code(asinh, "log(x + √(x² + 1)) cancels below 0 and overflows"),
    "acosh": Code(acosh, "log(x + √(x² - 1)) cancels near 1 and overflows"),
    "atanh": Code(atanh, "log((1 + x)/(1 - x))/2 cancels near 0"),
    "hypot": Code(hypot, "x² + y² overflows and underflows"),
    "erf": Code(erf, "no instruction computes it"),
    "sigmoid": Code(sigmoid, "1/(1 + e^-x) overflows below -88, and an activation must be fast"),
    "softplus": Code(softplus, "log(1 + e^x) overflows, and e^-|x| needs no splitting for its log1p"),
    "logaddexp": Code(logaddexp, "as softplus, and x - y must be more precise than a float"),
    "pow": Code(pow, "e^(y log x) multiplies the rounding error of the logarithm by y", integers.pow),
    "floor_divide": Code(floor_divide, "floor(x/y) misleads where x/y is rounded up", integers.floor_divide),
    "remainder": Code(remainder, "x - y floor(x/y) has no exact bit left where x/y is large", integers.remainder),
    "round": Code(round, "older CPUs have no instruction, and call a library for LLVM's", integers.same),
}


def call_out_of_line(w: Writer, name: str, args: list[Value]) -> Value:
    """As ``VECTOR_MATHS[name].floats(w, *args)``, but a call of one internal function a type: for kernels with many
    uses.
    """
    if name not in VECTOR_MATHS:
        raise InternalError(f"vector maths: no function {name}")
    emit = VECTOR_MATHS[name].floats
    return out_of_line(w, name, args[0].type, args, lambda body, p: Term(body, emit(body, *(t.v for t in p)))).v
