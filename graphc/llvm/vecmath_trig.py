"""Sine, cosine, tangent and their inverses."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from graphc.llvm.terms import Term, fma, poly, select
from graphc.llvm.text import Value, Writer, const, lanes
from graphc.llvm.vecmath_core import INF, NAN, Format, bits, fast_two_sum, floats, format_of, out_of_line

FAR = 1e5
_TABLE_BITS = 1280


def sin(w: Writer, x: Value) -> Value:
    """sin(x), x in radians."""
    t = Term(w, x)
    r, quadrant = _reduced(t)
    y = _signed(select((quadrant & 1).eq(0), _sin_near(r), _cos_near(r)), quadrant)
    return select(t.eq(0.0), t, y).v


def cos(w: Writer, x: Value) -> Value:
    """cos(x), x in radians."""
    r, quadrant = _reduced(Term(w, x))
    return _signed(select((quadrant & 1).eq(0), _cos_near(r), _sin_near(r)), quadrant + 1).v


def tan(w: Writer, x: Value) -> Value:
    """tan(x), x in radians: sin/cos, or -cos/sin in odd quadrants, each with its rounding error as a second piece."""
    t = Term(w, x)
    r, quadrant = _reduced(t)
    even = (quadrant & 1).eq(0)
    z = r * r
    table = format_of(t).table
    s, s_low = fast_two_sum(r, r * z * poly(z, table["sin"]))
    c, c_low = fast_two_sum(t.const(1.0), fma(z * z, poly(z, table["cos"]), z * -0.5))
    top, top_low = select(even, s, -c), select(even, s_low, -c_low)
    bottom, bottom_low = select(even, c, s), select(even, c_low, s_low)
    inverse = 1.0 / bottom
    q = top * inverse
    # What top/bottom has left when q is taken from it.
    rest = fma(-q, bottom, top) + fma(-q, bottom_low, top_low)
    return select(t.eq(0.0), t, fma(rest, inverse, q)).v


def _signed(y: Term, quadrant: Term) -> Term:
    """y, negated where bit 1 of the quadrant is set."""
    width = format_of(y).width
    return floats(bits(y) ^ ((quadrant & 2) << (width - 2)))


def _sin_near(r: Term) -> Term:
    z = r * r
    return fma(r * z, poly(z, format_of(r).table["sin"]), r)


def _cos_near(r: Term) -> Term:
    z = r * r
    # What is taken from 1 is summed first: one rounding near 1, not two.
    return fma(z * z, poly(z, format_of(r).table["cos"]), z * -0.5) + 1.0


def _reduced(x: Term) -> tuple[Term, Term]:
    """r and an integer n with x = r + n π/2, |r| <= π/4; of n the two low bits count.

    Up to ``FAR`` by three pieces of π/2: the first product and difference are exact, n having 17 bits and π/2 > 1.
    Beyond, lane by lane in integers, in a function of its own entered only when a lane needs it.
    Source of the first: W. J. Cody, W. Waite, Software Manual for the Elementary Functions, 1980.
    """
    fmt = format_of(x)
    high, middle, low = fmt.table["half_pi"]
    shifted = fma(x, 0.6366197723675814, fmt.magic)
    n = shifted - fmt.magic
    r = fma(n, -low, fma(n, -middle, fma(n, -high, x)))
    quadrant = bits(shifted)
    size = abs(x)
    far = (size > FAR) & (size < INF)
    w = x.w
    branch = w.if_(w.any(far.v), expected=False)
    pair = f"{{ {r.v.type}, {quadrant.v.type} }}"
    args = [x.v, r.v, quadrant.v]
    slow = out_of_line(w, "reduce_far", pair, args, _reduce_far_lanes)
    slow_r = w.new(r.v.type, f"extractvalue {pair} {slow.v.text}, 0")
    slow_quadrant = w.new(quadrant.v.type, f"extractvalue {pair} {slow.v.text}, 1")
    inside = w.block
    w.else_(branch)
    before = w.block
    w.end_if(branch)
    r = Term(w, w.phi(r.v.type, [(slow_r, inside), (r.v, before)]))
    return r, Term(w, w.phi(quadrant.v.type, [(slow_quadrant, inside), (quadrant.v, before)]))


def _reduce_far_lanes(w: Writer, args: Sequence[Term]) -> Term:
    """The pair of r and n with the lanes beyond ``FAR`` replaced."""
    x, r, quadrant = (a.v for a in args)
    pair = f"{{ {r.type}, {quadrant.type} }}"
    fmt = format_of(args[0])
    if not lanes(x.type):
        new_r, new_quadrant = _reduce_far(Term(w, x), fmt)
        return _pair(w, pair, new_r.v, new_quadrant.v)
    slots = []
    for value in (x, r, quadrant):
        slots.append(w.alloca(value.type))
        w.store(value, slots[-1])
    loop = w.loop(const("i64", 0), const("i64", lanes(x.type)), const("i64", 1))
    kinds = (fmt.scalar, fmt.scalar, fmt.integer)
    at = [w.gep(slot, loop.index, kind) for slot, kind in zip(slots, kinds, strict=True)]
    one = Term(w, w.load(fmt.scalar, at[0]))
    size = abs(one)
    branch = w.if_(((size > FAR) & (size < INF)).v)
    new_r, new_quadrant = _reduce_far(one, fmt)
    w.store(new_r.v, at[1])
    w.store(new_quadrant.v, at[2])
    w.end_if(branch)
    w.end_loop(loop)
    return _pair(w, pair, w.load(r.type, slots[1]), w.load(quadrant.type, slots[2]))


def _pair(w: Writer, kind: str, a: Value, b: Value) -> Term:
    first = w.new(kind, f"insertvalue {kind} poison, {a.type} {a.text}, 0")
    return Term(w, w.new(kind, f"insertvalue {kind} {first.text}, {b.type} {b.text}, 1"))


@functools.cache
def two_over_pi_bits() -> int:
    """floor(2/π · 2^_TABLE_BITS), by J. Machin's π = 16 atan(1/5) - 4 atan(1/239) (1706) in integers."""
    guard = _TABLE_BITS + 64

    def atan_inverse(n: int) -> int:
        term = total = (1 << guard) // n
        k = 1
        while term:
            term //= n * n
            k += 2
            total += -(term // k) if k % 4 == 3 else term // k
        return total

    pi = 16 * atan_inverse(5) - 4 * atan_inverse(239)
    return (1 << (_TABLE_BITS + 1 + guard)) // pi


def _reduce_far(x: Term, fmt: Format) -> tuple[Term, Term]:
    """r and n of ``_reduced`` for one x with FAR < |x| < infinity, exactly to the last bit but a few.

    x = m · 2^e with an integer m. The bits of 2/π that times 2^e are multiples of 4 do not matter, so a window of the
    others, 96 or 192 bits from weight 2 downwards, times m modulo the window is x · 2/π modulo 4.
    Source: M. Payne, R. Hanek, "Radian reduction for trigonometric functions", SIGNUM Newsletter 18 (1983).
    """
    w = x.w
    window = 96 if fmt.width == 32 else 192
    wide = f"i{window}"
    body = bits(x) & ((1 << (fmt.width - 1)) - 1)
    mantissa = (body & ((1 << fmt.mantissa) - 1)) | (1 << fmt.mantissa)
    exponent = ((body >> fmt.mantissa) - (fmt.bias + fmt.mantissa)).cast("sext", "i64")
    # The table is floor(2/π · 2^_TABLE_BITS), least byte first (a big-endian target would need another); the window
    # begins ``drop`` bits above its end.
    drop = (_TABLE_BITS + 2 - window) - exponent
    # One load covers the window wherever it starts in a byte.
    load_bits = window + 32 if fmt.width == 32 else window + 64
    content = two_over_pi_bits().to_bytes(_TABLE_BITS // 8 + 32, "little")
    table = w.module.bytes("graphc_two_over_pi", content)
    chunk = Term(w, w.load(f"i{load_bits}", w.gep(table, (drop >> 3).v, "i8"), 1))
    chunk = chunk >> (drop & 7).cast("zext", f"i{load_bits}")
    product = chunk.cast("trunc", wide) * mantissa.cast("zext", wide)
    quadrant = ((product + (1 << (window - 3))) >> (window - 2)).cast("trunc", fmt.integer)
    fraction = product << 2
    negative = fraction < 0
    size = select(negative, 0 - fraction, fraction)
    zeros = Term(w, w.intrinsic("llvm.ctlz", wide, [size.v, const("i1", False)]))
    # fraction = head · 2^-(mantissa + 1 + zeros), a quarter turn being 1, and 2^mantissa <= head <= 2^(mantissa + 1).
    below = window - fmt.mantissa - 2
    head = (((size << zeros) >> 1) + (1 << (below - 1))) >> below
    value = floats(head.cast("trunc", fmt.integer) - (1 << fmt.mantissa) + ((fmt.bias - 1) << fmt.mantissa))
    biased = (fmt.bias - zeros.cast("trunc", fmt.integer)) << fmt.mantissa
    value = value * floats(biased)
    high, low, _ = fmt.table["half_pi"]
    product_r = value * high
    r = product_r + fma(value, low, fma(value, high, -product_r))
    flip = negative ^ (x < 0.0)
    turned = select(x < 0.0, 0 - quadrant, quadrant)
    return select(flip, -r, r), turned


def asin(w: Writer, x: Value) -> Value:
    """asin(x); NaN outside [-1, 1]. Above 1/2 by asin(x) = π/2 - 2 asin(√((1 - x)/2))."""
    t = Term(w, x)
    high, low, _ = format_of(t).table["half_pi"]
    far, inner = _asin_inner(t)
    return select(far, high - (2.0 * inner - low), inner).copysign(t).v


def acos(w: Writer, x: Value) -> Value:
    """acos(x); NaN outside [-1, 1]. Between -1/2 and 1/2 by π/2 - asin(x), beyond by 2 asin(√((1 - |x|)/2))."""
    t = Term(w, x)
    high, low, _ = format_of(t).table["half_pi"]
    far, inner = _asin_inner(t)
    signed = inner.copysign(t)
    outer = select(t < 0.0, 2.0 * high - (2.0 * inner - 2.0 * low), 2.0 * inner)
    return select(far, outer, high - (signed - low)).v


def _asin_inner(t: Term) -> tuple[Term, Term]:
    """Whether |t| exceeds 1/2, and asin of |t| or of √((1 - |t|)/2)."""
    size = abs(t)
    far = size > 0.5
    z = select(far, fma(size, -0.5, 0.5), size * size)
    s = select(far, z.sqrt(), size)
    return far, fma(s * z, poly(z, format_of(t).table["asin"]), s)


def atan(w: Writer, x: Value) -> Value:
    """atan(x). Above 1 by atan(x) = π/2 - atan(1/x)."""
    t = Term(w, x)
    size = abs(t)
    far = size > 1.0
    inner = _atan_near(select(far, 1.0, size) / select(far, size, 1.0))
    high, low, _ = format_of(t).table["half_pi"]
    return select(far, high - (inner - low), inner).copysign(t).v


def _atan_near(q: Term) -> Term:
    z = q * q
    return fma(q * z, poly(z, format_of(q).table["atan"]), q)


def atan2(w: Writer, y: Value, x: Value) -> Value:
    """The angle of the point (x, y), in [-π, π], with C's values at zeros and infinities."""
    a, b = Term(w, y), Term(w, x)
    rise, run = abs(a), abs(b)
    steep = rise > run
    q = select(steep, run, rise) / select(steep, rise, run)
    q = select(rise.eq(run), select(rise.eq(0.0), q.const(0.0), 1.0), q)
    inner = _atan_near(q)
    high, low, _ = format_of(a).table["half_pi"]
    # The sign bit, not a comparison: atan2(0, -0.0) is π.
    left = (bits(b) >> (format_of(b).width - 1)).ne(0)
    # Quarter turns to start from, and the way to go: 0 + q, π/2 - q, π/2 + q, π - q.
    turned = steep ^ left
    inner = select(turned, -inner, inner)
    base = select(steep, a.const(high), select(left, a.const(2.0 * high), 0.0))
    rest = select(steep, a.const(low), select(left, a.const(2.0 * low), 0.0))
    angle = base + (inner + rest)
    return select(a.isnan() | b.isnan(), NAN, angle.copysign(a)).v
