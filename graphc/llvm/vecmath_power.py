"""Powers, distances and remainders."""

from __future__ import annotations

from collections.abc import Sequence

from graphc.llvm.terms import Term, clamp, fma, poly, select
from graphc.llvm.text import Value, Writer
from graphc.llvm.vecmath_core import (
    INF,
    NAN,
    bits,
    exp2_parts,
    fast_two_sum,
    format_of,
    log_parts,
    out_of_line,
    power_of_two,
    scaled,
    two_product,
)


def pow(w: Writer, x: Value, y: Value) -> Value:
    """x to the power y, with C's special values: 2^(y log2|x|), the logarithm and the product in two pieces."""
    base, power = Term(w, x), Term(w, y)
    fmt = format_of(base)
    size = abs(base)
    high, low = _log2_pair(size)
    high = select(size < INF, high, size)
    high = select(size.eq(0.0), -INF, high)
    product, error = two_product(power, high)
    error = fma(power, low, error)
    # Beyond the range of 2^n, where the error may be NaN, it does not count.
    bottom, top = fmt.exp2_range
    error = select(abs(product) < 2.0 * -bottom, error, 0.0)
    q, n = exp2_parts(clamp(product, bottom, top), error)
    size_of_result = scaled(q + 1.0, n)
    whole = power.call("llvm.trunc").eq(power)
    half = power * 0.5
    odd = whole & half.call("llvm.trunc").ne(half)
    result = select(odd, size_of_result.copysign(base), size_of_result)
    result = select((base < 0.0) & (base > -INF) & ~whole, NAN, result)
    one = base.eq(1.0) | power.eq(0.0) | (base.eq(-1.0) & abs(power).eq(INF))
    return select(one, 1.0, result).v


def _log2_pair(x: Term) -> tuple[Term, Term]:
    """log2(x) as a sum of two, for positive finite x, with about twice the precision of one.

    With s = f / (2 + f): log(1 + f) = 2 atanh(s) = 2 s (1 + s²/3 + s⁴ P(s²)); s, s²/3 and their product in two pieces.
    """
    table = format_of(x).table
    f, k = log_parts(x)
    bottom, bottom_low = fast_two_sum(f.const(2.0), f)
    inverse = 1.0 / bottom
    s = f * inverse
    s_low = fma(s, -bottom_low, fma(s, -bottom, f)) * inverse
    z, z_low = two_product(s, s)
    z_low = fma(s + s, s_low, z_low)
    third, third_low = table["third"]
    c = z * third
    c_low = fma(z, third, -c) + fma(z, third_low, z_low * third)
    c_low = fma(z * z, poly(z, table["log_tail"]), c_low)
    p, p_low = two_product(s, c)
    p_low = p_low + fma(s, c_low, s_low * c)
    h, h_low = fast_two_sum(s, p)
    h_low = h_low + (s_low + p_low)
    # log2(e) doubled, since h is half the logarithm.
    scale, scale_low = (2.0 * piece for piece in table["log2e"])
    a = h * scale
    a_low = fma(h, scale, -a) + fma(h, scale_low, h_low * scale)
    total, error = fast_two_sum(k, a)
    return fast_two_sum(total, error + a_low)


def hypot(w: Writer, x: Value, y: Value) -> Value:
    """√(x² + y²) without overflow or underflow on the way; infinite if either is, even beside NaN."""
    a, b = abs(Term(w, x)), abs(Term(w, y))
    fmt = format_of(a)
    larger, smaller = select(a > b, a, b), select(a > b, b, a)
    # float: above 2^60 times 2^-70, below 2^-40 times 2^100; double likewise.
    top, down, bottom, up = (60, -70, -40, 100) if fmt.width == 32 else (500, -600, -400, 800)
    huge, little = larger > 2.0**top, larger < 2.0**bottom
    scale = select(huge, a.const(2.0**down), select(little, a.const(2.0**up), 1.0))
    back = select(huge, a.const(2.0**-down), select(little, a.const(2.0**-up), 1.0))
    larger, smaller = larger * scale, smaller * scale
    distance = fma(larger, larger, smaller * smaller).sqrt() * back
    return select(a.eq(INF) | b.eq(INF), INF, distance).v


def round(w: Writer, x: Value) -> Value:
    """The nearest whole number, the even one of two."""
    t = Term(w, x)
    size = abs(t)
    fmt = format_of(t)
    # Adding 2^mantissa leaves no bits after the point and rounds to even; no target needs a library for it.
    near = (size + 2.0**fmt.mantissa) - 2.0**fmt.mantissa
    return select(size < 2.0**fmt.mantissa, near.copysign(t), t).v


def fmod(w: Writer, x: Value, y: Value) -> Value:
    """x - n y with n = x/y cut towards zero, exactly; NaN for infinite x or zero y."""
    a, b = Term(w, x), Term(w, y)
    rest = _remainder_of_sizes(abs(a), abs(b))
    return rest.copysign(a).v


def remainder(w: Writer, x: Value, y: Value) -> Value:
    """x - n y with n = floor(x/y), with the sign of y, as NumPy's; exact but for one rounding where signs differ."""
    b, rest = Term(w, y), Term(w, fmod(w, x, y))
    return select(_apart(rest, b), rest + b, select(rest.eq(0.0), rest.copysign(b), rest)).v


def floor_divide(w: Writer, x: Value, y: Value) -> Value:
    """floor(x/y) as NumPy's, from the exact remainder, so that a quotient rounded up does not mislead; x/y at y = 0."""
    a, b = Term(w, x), Term(w, y)
    rest = Term(w, fmod(w, x, y))
    plain = a / b
    # a - rest is, up to rounding, y times a whole number.
    quotient = (a - rest) / b
    whole = Term(w, round(w, select(_apart(rest, b), quotient - 1.0, quotient).v))
    return select(b.eq(0.0), plain, select(whole.eq(0.0), whole.copysign(plain), whole)).v


def _apart(rest: Term, b: Term) -> Term:
    """A mask: the remainder is not 0 and has another sign than the divisor."""
    return ((rest > 0.0) & (b < 0.0)) | ((rest < 0.0) & (b > 0.0))


def _remainder_of_sizes(a: Term, b: Term) -> Term:
    """fmod of non-negative a and b: one step where the quotient has few bits in every lane, else a loop."""
    w = a.w
    fmt = format_of(a)
    quotient = a / b
    rest = _step(a, b, quotient)
    # Without the low bits of the quotient (or with an infinite one, or NaN) the step was not exact.
    far = (quotient >= 2.0 ** (fmt.mantissa - 1)) & (a < INF) & (b > 0.0)
    branch = w.if_(w.any(far.v), expected=False)
    slow = out_of_line(w, "fmod_far", a.v.type, [a.v, b.v], _remainder_loop)
    inside = w.block
    w.else_(branch)
    before = w.block
    w.end_if(branch)
    rest = Term(w, w.phi(a.v.type, [(slow.v, inside), (rest.v, before)]))
    rest = select(b.eq(INF) & (a < INF), a, rest)
    return select((a < INF) & (b > 0.0), rest, NAN)


def _step(a: Term, b: Term, quotient: Term) -> Term:
    """a - b trunc(quotient), which is exact, and b more where the rounded quotient was one too large."""
    rest = fma(quotient.call("llvm.trunc"), -b, a)
    return select(rest < 0.0, rest + b, rest)


def _remainder_loop(w: Writer, args: Sequence[Term]) -> Term:
    """fmod by long division: while a lane has a >= b, subtract a multiple of b · 2^j, the quotient having few bits.

    Every subtraction is exact: its result is below b · 2^j and a multiple of b's last bit.
    """
    a, b = args
    fmt = format_of(a)
    # Lanes without an answer of their own are made trivial, so that they end the loop at once.
    b = select((b > 0.0) & (b < INF), b, 1.0)
    a = select(a < INF, a, 0.0)
    turn = w.repeat([a.v])
    rest = Term(w, turn.carried[0])
    above = _exponent(rest) - _exponent(b) - (fmt.mantissa - 1)
    up = select(above > 0, above, 0)
    half = up >> 1
    step = (b * power_of_two(half + fmt.bias)) * power_of_two((up - half) + fmt.bias)
    following = _step(rest, step, rest / step)
    w.end_repeat(turn, [following.v], w.any((following >= b).v))
    return following


def _exponent(x: Term) -> Term:
    """The exponent of a non-negative finite x as an integer, of a denormal too; of 0 some small number."""
    fmt = format_of(x)
    lift = fmt.mantissa + 2
    small = x < fmt.least_normal
    field = bits(select(small, x * 2.0**lift, x)) >> fmt.mantissa
    return field - select(small, field.const(fmt.bias + lift), fmt.bias)
