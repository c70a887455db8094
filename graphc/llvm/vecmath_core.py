"""What the vector functions share: number formats, scaling by powers of two, the exponential and the logarithm inside.

Lane count and type follow from the operand. Where C would call ``frexp`` and ``ldexp``, integer operations work on the
bits. NaN is never converted to an integer, which LLVM leaves undefined: integers are taken from the low bits of a float
to which a large constant was added.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence

from graphc.errors import InternalError
from graphc.llvm.terms import Term, fma, poly, select
from graphc.llvm.text import Value, Writer, mangled
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


def scaled(x: Term, doubly_biased: Term) -> Term:
    """x · 2^n with n + 2 bias given, in two steps: so it overflows and underflows as it should, rounding once."""
    half = doubly_biased >> 1
    return x * power_of_two(half) * power_of_two(doubly_biased - half)


def round_to_integer(x: Term, factor: float = 1.0) -> tuple[Term, Term]:
    """The integer n nearest to x · factor as a float, and n + 2 bias as an integer; |n| < 2^(mantissa - 2)."""
    fmt = format_of(x)
    magic = fmt.magic + 2 * fmt.bias
    shifted = x + magic if factor == 1.0 else fma(x, factor, magic)
    return shifted - magic, bits(shifted) - fmt.bits_of(fmt.magic)


def exp_parts(x: Term) -> tuple[Term, Term]:
    """q and n + 2 bias with e^x = (1 + q) 2^n, |q| < 0.42; x within ``exp_range``."""
    table = format_of(x).table
    n, biased = round_to_integer(x, table["log2e"][0])
    # The first difference is exact, so it serves as the linear term; the rest of n · ln2 joins the small terms.
    coarse = fma(n, -table["ln2"][0], x)
    r = fma(n, -table["ln2"][1], coarse)
    return coarse + fma(n, -table["ln2"][1], r * r * poly(r, table["exp"])), biased


def exp2_parts(x: Term, low: Term | None = None) -> tuple[Term, Term]:
    """q and n + 2 bias with 2^(x + low) = (1 + q) 2^n; x within ``exp2_range``, low far smaller."""
    n, biased = round_to_integer(x)
    r = x - n
    if low is not None:
        r = r + low
    return r * poly(r, format_of(x).table["exp2"]), biased


def single_scale(biased: Term, down: int = 0) -> Term:
    """2^(n - down) from n + 2 bias, for a normal result."""
    bias = _SINGLE.bias if biased.scalar == "i32" else _DOUBLE.bias
    return power_of_two(biased - (bias + down))


def log_parts(x: Term, denormals: bool = True) -> tuple[Term, Term, Term]:
    """f, k and k + bias (an integer) with x = (1 + f) 2^k and 1 + f in [√½, √2), for positive finite x.

    With ``denormals`` the integer is of x after scaling; use it only without.
    """
    fmt = format_of(x)
    base = 2.0**fmt.mantissa + fmt.bias
    offset = x.const(base)
    if denormals:
        lift = fmt.mantissa + 2
        small = x < fmt.least_normal
        offset = select(small, base + lift, offset)
        x = select(small, x * 2.0**lift, x)
    root = fmt.bits_of(0.7071067811865476)
    moved = bits(x) + (fmt.bits_of(1.0) - root)
    biased = moved >> fmt.mantissa
    k = floats(biased | fmt.bits_of(2.0**fmt.mantissa)) - offset
    m = floats((moved & ((1 << fmt.mantissa) - 1)) + root)
    return m - 1.0, k, biased


def log1p_tail(f: Term) -> Term:
    """log(1 + f) - f for f in [√½ - 1, √2 - 1].

    In float by a polynomial, in double by s = f / (2 + f), log(1 + f) = 2 atanh(s), which halves its degree.
    Source of the second: FreeBSD msun ``e_log.c`` (Sun Microsystems, 1993), method in its comment.
    """
    table = format_of(f).table
    square = f * f
    if f.scalar == "float":
        return fma(square, -0.5, square * f * poly(f, table["log"]))
    s = f / (f + 2.0)
    z = s * s
    half = square * 0.5
    return fma(s, fma(z, poly(z, table["log_atanh"]), half), -half)


def log_sum(f: Term, k: Term, base: str = "", extra: Term | None = None) -> Term:
    """k · log(2) + log(1 + f) to base e, or to base 2 or 10 (``base`` "2" or "10"), with two-piece sums."""
    table = format_of(f).table
    tail = log1p_tail(f)
    if extra is not None:
        tail = tail + extra
    if base:
        # f · log_b(e) exactly, as a sum: head + (rounding error + low piece + the tail's share).
        high, low = table["log2e" if base == "2" else "log10e"]
        head = f * high
        tail = fma(f, high, -head) + fma(f, low, tail * high)
    else:
        head = f
    high, low = {"": table["ln2"], "2": (1.0, 0.0), "10": table["log10_2"]}[base]
    whole = k * high
    # |whole| > |head| or whole = 0, so the error of their sum is found by two subtractions.
    total = whole + head
    error = head - (total - whole)
    return total + (fma(k, low, tail) + error if low else tail + error)


def log_specials(x: Term, y: Term) -> Term:
    """y, the logarithm of a positive finite x, completed for 0, infinity, negative numbers and NaN."""
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
