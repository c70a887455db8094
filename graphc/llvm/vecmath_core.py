"""What the vector functions share: number formats, scaling by powers of two, the exponential and the logarithm inside.

Lane count and type follow from the operand. Where C would call ``frexp`` and ``ldexp``, integer operations work on the
bits. NaN is never converted to an integer, which LLVM leaves undefined: integers are taken from the low bits of a float
to which a large constant was added.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import NamedTuple

from graphc.errors import InternalError
from graphc.llvm.terms import Term, fma, poly, select
from graphc.llvm.text import Value, Writer, const, lanes, mangled
from graphc.llvm.vecmath_tables import DOUBLE, FLOAT, Table
from graphc.structs import dataclass

INF = float("inf")
NAN = float("nan")


@dataclass(frozen=True, slots=True)
class Format:
    """A float type: its integer of the same width, bits after the point, exponent bias and coefficients.

    exp_range: below, e^x rounds to 0; above, to infinity. erfc_top: above, erf rounds to 1.
    """

    scalar: str
    integer: str
    width: int
    mantissa: int
    bias: int
    exp_range: tuple[float, float]
    exp2_range: tuple[float, float]
    erfc_top: float
    table: Table

    @property
    def half_unit(self) -> float:
        """2^-(mantissa + 1): half the distance from 1 to the next number."""
        return 2.0 ** -(self.mantissa + 1)

    @property
    def least_normal(self) -> float:
        """The least positive number of full precision."""
        return 2.0 ** (1 - self.bias)

    @property
    def magic(self) -> float:
        """1.5 · 2^mantissa: added to a small number, it leaves the nearest integer in the low bits."""
        return 1.5 * 2.0**self.mantissa

    def bits_of(self, number: float) -> int:
        """The number's bits as an unsigned integer."""
        pair = ("<f", "<I") if self.scalar == "float" else ("<d", "<Q")
        return int(struct.unpack(pair[1], struct.pack(pair[0], number))[0])


_SINGLE = Format("float", "i32", 32, 23, 127, (-104.5, 89.0), (-151.0, 129.0), 4.0, FLOAT)
_DOUBLE = Format("double", "i64", 64, 52, 1023, (-746.0, 710.0), (-1076.0, 1025.0), 6.0, DOUBLE)


def format_of(x: Term) -> Format:
    """The format of a term of floats.

    Raises: InternalError for another type.
    """
    if x.scalar == "float":
        return _SINGLE
    if x.scalar == "double":
        return _DOUBLE
    raise InternalError(f"vector maths: {x.v.type} is no float or double")


def bits(x: Term) -> Term:
    """The bits of a float as an integer."""
    return x.cast("bitcast", format_of(x).integer)


def floats(i: Term) -> Term:
    """The float of these bits."""
    return i.cast("bitcast", "float" if i.scalar == "i32" else "double")


def power_of_two(biased: Term) -> Term:
    """2^(biased - bias), for a biased exponent of a normal number."""
    return floats(biased << (_SINGLE if biased.scalar == "i32" else _DOUBLE).mantissa)


class Exponent(NamedTuple):
    """A whole number n as a float, and n + 2 bias as an integer where ``wide`` instructions do not take the float."""

    n: Term
    doubly_biased: Term | None


def wide(x: Term) -> str:
    """What AVX-512's instructions for exponents call this type, "ps" or "pd"; "" where they cannot be used."""
    if not x.w.module.avx512:
        return ""
    return {"<16 x float>": "ps", "<8 x double>": "pd"}.get(x.v.type, "")


def _avx512(name: str, x: Term, *others: Value) -> Term:
    """The intrinsic without a mask: results of lanes not chosen, every lane chosen, rounding as usual."""
    kind = x.v.type
    every, usual = const(f"i{lanes(kind)}", -1), const("i32", 4)
    args = [x.v, *others, const(kind, 0), every, usual]
    return Term(x.w, x.w.intrinsic(f"llvm.x86.avx512.mask.{name}.{wide(x)}.512", kind, args, []))


def scaled(x: Term, by: Exponent) -> Term:
    """x · 2^n, which overflows and underflows as it should, rounded once; |n| <= 2 bias."""
    if by.doubly_biased is None:
        return _avx512("scalef", x, by.n.v)
    half = by.doubly_biased >> 1
    return x * power_of_two(half) * power_of_two(by.doubly_biased - half)


def round_to_integer(x: Term, factor: float = 1.0) -> Exponent:
    """The integer n nearest to x · factor; |n| < 2^(mantissa - 2)."""
    fmt = format_of(x)
    magic = fmt.magic + 2 * fmt.bias
    shifted = x + magic if factor == 1.0 else fma(x, factor, magic)
    return Exponent(shifted - magic, None if wide(x) else bits(shifted) - fmt.bits_of(fmt.magic))


def exp_parts(x: Term) -> tuple[Term, Exponent]:
    """q and n with e^x = (1 + q) 2^n, |q| < 0.42; x within ``exp_range``."""
    table = format_of(x).table
    by = round_to_integer(x, table["log2e"][0])
    # The first difference is exact, so it serves as the linear term; the rest of n · ln2 joins the small terms.
    coarse = fma(by.n, -table["ln2"][0], x)
    r = fma(by.n, -table["ln2"][1], coarse)
    return coarse + fma(by.n, -table["ln2"][1], r * r * poly(r, table["exp"])), by


def exp2_parts(x: Term, low: Term | None = None) -> tuple[Term, Exponent]:
    """q and n with 2^(x + low) = (1 + q) 2^n; x within ``exp2_range``, low far smaller."""
    by = round_to_integer(x)
    r = x - by.n
    if low is not None:
        r = r + low
    return r * poly(r, format_of(x).table["exp2"]), by


def single_scale(by: Exponent, down: int = 0) -> Term:
    """2^(n - down), for a normal result."""
    if by.doubly_biased is None:
        return _avx512("scalef", by.n.const(2.0**-down), by.n.v)
    return power_of_two(by.doubly_biased - (format_of(by.n).bias + down))


def log_parts(x: Term) -> tuple[Term, Term]:
    """f and k with x = (1 + f) 2^k and 1 + f in [3/4, 3/2), for positive finite x.

    With ``wide`` instructions k is -infinity for 0 and infinity for infinity, and f NaN for negative x and for NaN.
    """
    fmt = format_of(x)
    if wide(x):
        # The operand's mantissa in [3/4, 3/2), NaN for a negative operand.
        m = _avx512("getmant", x, const("i32", 11))
        k = _avx512("getexp", x)
        return m - 1.0, select(m < 1.0, k + 1.0, k)
    base = 2.0**fmt.mantissa + fmt.bias
    lift = fmt.mantissa + 2
    small = x < fmt.least_normal
    f, biased = split(select(small, x * 2.0**lift, x))
    offset = select(small, x.const(base + lift), base)
    return f, floats(biased | fmt.bits_of(2.0**fmt.mantissa)) - offset


def split(x: Term) -> tuple[Term, Term]:
    """f and k + bias (an integer) with x = (1 + f) 2^k and 1 + f in [3/4, 3/2), for positive normal x."""
    fmt = format_of(x)
    least = fmt.bits_of(0.75)
    moved = bits(x) + (fmt.bits_of(1.0) - least)
    return floats((moved & ((1 << fmt.mantissa) - 1)) + least) - 1.0, moved >> fmt.mantissa


def _log1p_tail(f: Term, square: Term) -> tuple[Term, Term]:
    """a and b with log(1 + f) = f - f²/2 + a · b, for f in [-1/4, 1/2] and its square.

    In float by a polynomial, in double by s = f / (2 + f), log(1 + f) = 2 atanh(s), which halves its degree.
    Source of the second: FreeBSD msun ``e_log.c`` (Sun Microsystems, 1993), method in its comment.
    """
    table = format_of(f).table
    if f.scalar == "float":
        return square, f * poly(f, table["log"])
    s = f / (f + 2.0)
    z = s * s
    return s, fma(z, poly(z, table["log_atanh"]), square * 0.5)


def log_sum(f: Term, k: Term, base: str = "") -> Term:
    """k · log(2) + log(1 + f) to base e, or to base 2 or 10 (``base`` "2" or "10"), with two-piece sums.

    With ``wide`` instructions an infinite k and a NaN pass.
    """
    table = format_of(f).table
    square = f * f
    a, b = _log1p_tail(f, square)
    head, rest = f, None
    if base:
        # f · log_b(e) exactly, as a sum: head + (rounding error + low piece + the tail's share).
        high, low = table["log2e" if base == "2" else "log10e"]
        tail = fma(a, b, square * -0.5)
        head = f * high
        a, b, rest = tail, tail.const(high), fma(f, low, fma(f, high, -head))
    high, low = {"": table["ln2"], "2": (1.0, 0.0), "10": table["log10_2"]}[base]
    # k · high is exact and, unless 0, the larger part: so what rounding took from the sum is found by two subtractions.
    total = fma(k, high, head)
    error = fma(k, high, -total) + head
    if wide(f):
        error = select(error < 1.0, error, 1.0)  # it is far smaller; where k is infinite it is NaN
    small = error if not low else fma(k, low, error)
    return total + fma(a, b, fma(square, -0.5, small) if rest is None else small + rest)


def log_specials(x: Term, y: Term) -> Term:
    """y, the logarithm of a positive finite x, completed for 0, infinity, negative numbers and NaN."""
    if wide(x):
        return y  # ``log_parts`` and ``log_sum`` let them pass
    y = select(x.eq(INF), INF, y)
    return select(x > 0.0, y, select(x.eq(0.0), x.const(-INF), NAN))


def fast_two_sum(a: Term, b: Term) -> tuple[Term, Term]:
    """a + b rounded, and its error; |a| >= |b| or a = 0."""
    total = a + b
    return total, b - (total - a)


def two_product(a: Term, b: Term) -> tuple[Term, Term]:
    """a · b rounded, and its error."""
    product = a * b
    return product, fma(a, b, -product)


Emitter = Callable[[Writer, Sequence[Term]], Term]


def out_of_line(w: Writer, name: str, result: str, args: Sequence[Value], emit: Emitter) -> Term:
    """A call of an internal function of this name and first operand's type, which ``emit`` writes at its first use."""
    full = f"graphc_{name}_{mangled(args[0].type)}"
    if full not in w.module.functions:
        params = [Value(f"%p{n}", a.type) for n, a in enumerate(args)]
        body = Writer(w.module)
        answer = emit(body, [Term(body, p) for p in params])
        body.ret(answer.v)
        w.module.define(full, result, params, body, linkage="internal", attributes="noinline")
    return Term(w, w.call(full, result, args))
