"""Scalar instructions as LLVM: the one table of primitives that are not vector maths, and conversions."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from graphc.errors import InternalError
from graphc.graph.dtypes import DType
from graphc.llvm.text import Value, Writer, const, element, lanes, like
from graphc.llvm.vecmath import VECTOR_MATHS, call_out_of_line

TYPES = {"float32": "float", "float64": "double", "int32": "i32", "int64": "i64", "bool": "i1"}
MEMORY = {"float32": "float", "float64": "double", "int32": "i32", "int64": "i64", "bool": "i8"}
INLINE_LINES = 400  # a function longer than this calls its vector maths instead of holding it

Emit = Callable[..., Value]


def is_float(v: Value) -> bool:
    """Whether a value's elements are floats."""
    return element(v.type) in ("float", "double")


def _arithmetic(on_floats: str, on_integers: str) -> Emit:
    return lambda w, a, b: w.op(on_floats if is_float(a) else on_integers, a, b)


def _compare(on_floats: str, on_integers: str, on_booleans: str = "") -> Emit:
    def emit(w: Writer, a: Value, b: Value) -> Value:
        if is_float(a):
            return w.fcmp(on_floats, a, b)
        return w.icmp(on_booleans if on_booleans and element(a.type) == "i1" else on_integers, a, b)

    return emit


def _neg(w: Writer, a: Value) -> Value:
    return w.fneg(a) if is_float(a) else w.sub(const(a.type, 0), a)


def _abs(w: Writer, a: Value) -> Value:
    return w.fabs(a) if is_float(a) else w.maximum(a, w.sub(const(a.type, 0), a))


def _sign(w: Writer, a: Value) -> Value:
    if is_float(a):
        return VECTOR_MATHS["sign"](w, a)
    one, zero = const(a.type, 1), const(a.type, 0)
    return w.select(w.icmp("sgt", a, zero), one, w.select(w.icmp("slt", a, zero), const(a.type, -1), zero))


def _unless_integer(name: str) -> Emit:
    """A float function that leaves integers as they are."""
    return lambda w, a: VECTOR_MATHS[name](w, a) if is_float(a) else a


def _divided(w: Writer, a: Value, b: Value) -> tuple[Value, Value, Value]:
    """Integer quotient towards zero and remainder, safe for every operand, and where b is 0."""
    zero, one = const(a.type, 0), const(a.type, 1)
    empty = w.icmp("eq", b, zero)
    minus = w.icmp("eq", b, const(b.type, -1))
    safe = w.select(w.or_(empty, minus), one, b)
    quotient = w.select(minus, w.sub(zero, a), w.sdiv(a, safe))
    return w.select(empty, zero, quotient), w.sub(a, w.mul(quotient, b)), empty


def _floor_divide(w: Writer, a: Value, b: Value) -> Value:
    if is_float(a):
        return VECTOR_MATHS["floor_divide"](w, a, b)
    quotient, rest, empty = _divided(w, a, b)
    zero = const(a.type, 0)
    down = w.and_(w.icmp("ne", rest, zero), w.icmp("slt", w.xor(rest, b), zero))
    return w.select(empty, zero, w.select(down, w.sub(quotient, const(a.type, 1)), quotient))


def _remainder(w: Writer, a: Value, b: Value) -> Value:
    if is_float(a):
        return VECTOR_MATHS["remainder"](w, a, b)
    _, rest, empty = _divided(w, a, b)
    zero = const(a.type, 0)
    down = w.and_(w.icmp("ne", rest, zero), w.icmp("slt", w.xor(rest, b), zero))
    return w.select(empty, zero, w.select(down, w.add(rest, b), rest))


def _pow(w: Writer, a: Value, b: Value) -> Value:
    """Integer powers by squaring, modulo 2^n; 0 for a negative exponent, as an integer has no reciprocal."""
    if is_float(a):
        return VECTOR_MATHS["pow"](w, a, b)
    zero, one = const(a.type, 0), const(a.type, 1)
    loop = w.repeat([one, a, w.select(w.icmp("slt", b, zero), zero, b)])
    result, square, left = loop.carried
    odd = w.icmp("ne", w.and_(left, one), zero)
    result = w.select(odd, w.mul(result, square), result)
    left = w.lshr(left, one)
    more = w.icmp("ne", left, zero)
    result = w.end_repeat(loop, [result, w.mul(square, square), left], w.any(more) if lanes(a.type) else more)[0]
    return w.select(w.icmp("slt", b, zero), zero, result)


def _isinf(w: Writer, a: Value) -> Value:
    return w.fcmp("oeq", w.fabs(a), const(a.type, float("inf")))


def _isfinite(w: Writer, a: Value) -> Value:
    return w.fcmp("olt", w.fabs(a), const(a.type, float("inf")))


PRIMITIVE_CODE: dict[str, Emit] = {
    "add": _arithmetic("fadd", "add"),
    "sub": _arithmetic("fsub", "sub"),
    "mul": _arithmetic("fmul", "mul"),
    "div": lambda w, a, b: w.fdiv(a, b),
    "neg": _neg,
    "abs": _abs,
    "sign": _sign,
    "sqrt": lambda w, a: w.sqrt(a),
    "maximum": lambda w, a, b: w.maximum(a, b),
    "minimum": lambda w, a, b: w.minimum(a, b),
    "floor": _unless_integer("floor"),
    "ceil": _unless_integer("ceil"),
    "round": _unless_integer("round"),
    "trunc": _unless_integer("trunc"),
    "floor_divide": _floor_divide,
    "remainder": _remainder,
    "pow": _pow,
    "where": lambda w, c, a, b: w.select(c, a, b),
    "equal": _compare("oeq", "eq"),
    "not_equal": _compare("une", "ne"),
    "less": _compare("olt", "slt", "ult"),
    "less_equal": _compare("ole", "sle", "ule"),
    "logical_and": lambda w, a, b: w.and_(a, b),
    "logical_or": lambda w, a, b: w.or_(a, b),
    "logical_xor": lambda w, a, b: w.xor(a, b),
    "logical_not": lambda w, a: w.not_(a),
    "isnan": lambda w, a: w.fcmp("uno", a, a),
    "isinf": _isinf,
    "isfinite": _isfinite,
}


def emit_primitive(w: Writer, name: str, args: Sequence[Value]) -> Value:
    """A primitive on values of one type. Raises InternalError for a name without code."""
    if name in PRIMITIVE_CODE:
        return PRIMITIVE_CODE[name](w, *args)
    if name not in VECTOR_MATHS:
        raise InternalError(f"emit: no code for primitive {name}")
    if len(w) > INLINE_LINES:
        return call_out_of_line(w, name, list(args))
    return VECTOR_MATHS[name](w, *args)


def emit_cast(w: Writer, v: Value, source: DType, target: DType) -> Value:
    """A value of ``source`` converted to ``target``: floats to integers towards zero, saturating; anything to bool by
    != 0.
    """
    to = like(v.type, TYPES[target.name])
    if source == target:
        return v
    if target.kind == "b":
        zero = const(v.type, 0)
        return w.fcmp("une", v, zero) if source.kind == "f" else w.icmp("ne", v, zero)
    if source.kind == "b":
        return w.cast("uitofp" if target.kind == "f" else "zext", v, to)
    if source.kind == "f" and target.kind == "f":
        return w.cast("fpext" if target.itemsize > source.itemsize else "fptrunc", v, to)
    if source.kind == "f":
        return w.intrinsic("llvm.fptosi.sat", to, [v], [to, v.type])
    if target.kind == "f":
        return w.cast("sitofp", v, to)
    return w.cast("sext" if target.itemsize > source.itemsize else "trunc", v, to)
