"""Functions of integers that no instruction computes for every operand. Results wrap modulo 2^n; nothing traps."""

from __future__ import annotations

from graphc.llvm.text import Value, Writer, const, lanes


def same(w: Writer, a: Value) -> Value:
    """The operand: a whole number is rounded."""
    return a


def _divided(w: Writer, a: Value, b: Value) -> tuple[Value, Value, Value, Value]:
    """Quotient towards zero, remainder, where b is 0, and where the quotient is above floor(a/b); for any operands."""
    zero, one = const(a.type, 0), const(a.type, 1)
    empty = w.icmp("eq", b, zero)
    minus = w.icmp("eq", b, const(b.type, -1))
    safe = w.select(w.or_(empty, minus), one, b)
    quotient = w.select(minus, w.sub(zero, a), w.sdiv(a, safe))
    rest = w.sub(a, w.mul(quotient, b))
    above = w.and_(w.icmp("ne", rest, zero), w.icmp("slt", w.xor(rest, b), zero))
    return quotient, rest, empty, above


def floor_divide(w: Writer, a: Value, b: Value) -> Value:
    """floor(a/b); 0 for b = 0."""
    quotient, _, empty, above = _divided(w, a, b)
    down = w.select(above, w.sub(quotient, const(a.type, 1)), quotient)
    return w.select(empty, const(a.type, 0), down)


def remainder(w: Writer, a: Value, b: Value) -> Value:
    """a - b floor(a/b); 0 for b = 0."""
    _, rest, empty, above = _divided(w, a, b)
    return w.select(empty, const(a.type, 0), w.select(above, w.add(rest, b), rest))


def pow(w: Writer, a: Value, b: Value) -> Value:
    """a to the power b by squaring; 0 for a negative exponent, as an integer has no reciprocal."""
    zero, one = const(a.type, 0), const(a.type, 1)
    negative = w.icmp("slt", b, zero)
    loop = w.repeat([one, a, w.select(negative, zero, b)])
    result, square, left = loop.carried
    odd = w.icmp("ne", w.and_(left, one), zero)
    result = w.select(odd, w.mul(result, square), result)
    left = w.lshr(left, one)
    more = w.icmp("ne", left, zero)
    result = w.end_repeat(loop, [result, w.mul(square, square), left], w.any(more) if lanes(a.type) else more)[0]
    return w.select(negative, zero, result)
