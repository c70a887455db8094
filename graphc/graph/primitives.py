"""The scalar primitives: every function that a body may hold, one record each.

A primitive has its operand kinds, its NumPy meaning (the oracle) and its partial derivatives. Derivatives are written
over ``s``, the scalar namespace, in terms of operands and result ``y``; those in ``graph/partials.py`` are made by
SymPy ahead of time, those given here as ``rule`` are written by hand, each with its reason.
"""

from __future__ import annotations

from collections.abc import Callable
from math import erf as _erf

import numpy as np
from numpy.typing import NDArray

from graphc.structs import dataclass

Array = NDArray[np.generic]


@dataclass(frozen=True, slots=True)
class Primitive:
    """A scalar function.

    takes: ``f`` floats (integers become float32), ``n`` numbers (booleans become int64), ``a`` anything, ``b``
    booleans. result: ``same`` as the last operand, or ``bool``.
    smooth: whether a derivative exists; a function that is constant almost everywhere has none.
    cost: of one evaluation, in additions; 12 stands for vector maths, which is about as many instructions.

    floats, integers, booleans: the function in LLVM's instructions for operands of that kind, in prefix form over the
    operands ``a b c`` and numbers: ``fcmp olt (llvm.fabs a) inf``; ``a`` is the operand itself. A function without any
    has code of its own, a row of ``llvm/vecmath.py``.
    """

    name: str
    arity: int
    takes: str
    result: str
    numpy: Callable[..., Array]
    smooth: bool = True
    domain: tuple[float, float] = (-3.0, 3.0)
    infix: str = ""
    cost: int = 12
    floats: str = ""
    integers: str = ""
    booleans: str = ""


def _vector_erf(x: Array) -> Array:
    wide = np.asarray(x, dtype=np.float64)
    return np.array([_erf(v) for v in wide.ravel()], dtype=np.float64).reshape(wide.shape).astype(np.asarray(x).dtype)


def _sigmoid(x: Array) -> Array:
    small = np.exp(-np.abs(x))
    return np.where(np.greater_equal(x, 0), 1 / (1 + small), small / (1 + small)).astype(np.asarray(x).dtype)


def _softplus(x: Array) -> Array:
    return np.logaddexp(x, np.zeros((), dtype=np.asarray(x).dtype))


def _rsqrt(x: Array) -> Array:
    return (1 / np.sqrt(x)).astype(np.asarray(x).dtype)


def _power(x: Array, y: Array) -> Array:
    if np.asarray(x).dtype.kind != "i":
        return np.power(x, y)
    return np.where(np.less(y, 0), 0, np.power(x, np.maximum(y, 0))).astype(np.asarray(x).dtype)


def _floor_divide(x: Array, y: Array) -> Array:
    if np.asarray(x).dtype.kind != "i":
        return np.floor_divide(x, y)
    return np.where(np.asarray(y) == 0, 0, np.floor_divide(x, np.where(np.asarray(y) == 0, 1, y))).astype(
        np.asarray(x).dtype
    )


def _remainder(x: Array, y: Array) -> Array:
    if np.asarray(x).dtype.kind != "i":
        return np.remainder(x, y)
    return np.where(np.asarray(y) == 0, 0, np.remainder(x, np.where(np.asarray(y) == 0, 1, y))).astype(
        np.asarray(x).dtype
    )


def _table(*rows: Primitive) -> dict[str, Primitive]:
    return {row.name: row for row in rows}


PRIMITIVES: dict[str, Primitive] = _table(
    Primitive("add", 2, "n", "same", np.add, infix="+", cost=1, floats="fadd a b", integers="add a b"),
    Primitive("sub", 2, "n", "same", np.subtract, infix="-", cost=1, floats="fsub a b", integers="sub a b"),
    Primitive("mul", 2, "n", "same", np.multiply, infix="*", cost=1, floats="fmul a b", integers="mul a b"),
    Primitive("div", 2, "f", "same", np.divide, domain=(0.5, 3.0), infix="/", floats="fdiv a b"),
    Primitive("neg", 1, "n", "same", np.negative, cost=1, floats="fneg a", integers="sub 0 a"),
    Primitive("pow", 2, "n", "same", _power, domain=(0.2, 3.0), infix="**"),
    Primitive("floor_divide", 2, "n", "same", _floor_divide, smooth=False, domain=(0.5, 3.0), infix="//"),
    Primitive("remainder", 2, "n", "same", _remainder, domain=(0.5, 3.0), infix="%"),
    Primitive("abs", 1, "n", "same", np.abs, cost=1, floats="llvm.fabs a", integers="llvm.smax a (sub 0 a)"),
    Primitive(
        "sign", 1, "n", "same", np.sign, smooth=False, cost=1,
        floats="select (fcmp ogt (llvm.fabs a) 0) (llvm.copysign 1 a) a",
        integers="select (icmp sgt a 0) 1 (select (icmp slt a 0) -1 0)",
    ),
    Primitive("sqrt", 1, "f", "same", np.sqrt, domain=(0.1, 9.0), floats="llvm.sqrt a"),
    Primitive("rsqrt", 1, "f", "same", _rsqrt, domain=(0.1, 9.0), floats="fdiv 1 (llvm.sqrt a)"),
    Primitive("exp", 1, "f", "same", np.exp),
    Primitive("exp2", 1, "f", "same", np.exp2),
    Primitive("expm1", 1, "f", "same", np.expm1),
    Primitive("log", 1, "f", "same", np.log, domain=(0.1, 9.0)),
    Primitive("log2", 1, "f", "same", np.log2, domain=(0.1, 9.0)),
    Primitive("log10", 1, "f", "same", np.log10, domain=(0.1, 9.0)),
    Primitive("log1p", 1, "f", "same", np.log1p, domain=(-0.8, 3.0)),
    Primitive("sin", 1, "f", "same", np.sin),
    Primitive("cos", 1, "f", "same", np.cos),
    Primitive("tan", 1, "f", "same", np.tan, domain=(-1.2, 1.2)),
    Primitive("asin", 1, "f", "same", np.arcsin, domain=(-0.9, 0.9)),
    Primitive("acos", 1, "f", "same", np.arccos, domain=(-0.9, 0.9)),
    Primitive("atan", 1, "f", "same", np.arctan),
    Primitive("atan2", 2, "f", "same", np.arctan2, domain=(0.2, 3.0)),
    Primitive("sinh", 1, "f", "same", np.sinh),
    Primitive("cosh", 1, "f", "same", np.cosh),
    Primitive("tanh", 1, "f", "same", np.tanh),
    Primitive("asinh", 1, "f", "same", np.arcsinh),
    Primitive("acosh", 1, "f", "same", np.arccosh, domain=(1.2, 5.0)),
    Primitive("atanh", 1, "f", "same", np.arctanh, domain=(-0.9, 0.9)),
    Primitive("hypot", 2, "f", "same", np.hypot, domain=(0.2, 3.0)),
    Primitive("erf", 1, "f", "same", _vector_erf),
    Primitive("sigmoid", 1, "f", "same", _sigmoid),
    Primitive("softplus", 1, "f", "same", _softplus),
    Primitive("logaddexp", 2, "f", "same", np.logaddexp),
    Primitive("floor", 1, "n", "same", np.floor, smooth=False, floats="llvm.floor a", integers="a"),
    Primitive("ceil", 1, "n", "same", np.ceil, smooth=False, floats="llvm.ceil a", integers="a"),
    Primitive("round", 1, "n", "same", np.round, smooth=False),
    Primitive("trunc", 1, "n", "same", np.trunc, smooth=False, floats="llvm.trunc a", integers="a"),
    Primitive(
        "maximum", 2, "n", "same", np.maximum, cost=1,
        floats="select (fcmp uno a a) a (select (fcmp ogt a b) a b)",
        integers="select (icmp sgt a b) a b",
    ),
    Primitive(
        "minimum", 2, "n", "same", np.minimum, cost=1,
        floats="select (fcmp uno a a) a (select (fcmp olt a b) a b)",
        integers="select (icmp slt a b) a b",
    ),
    Primitive(
        "where", 3, "a", "same", np.where, cost=1,
        floats="select a b c", integers="select a b c", booleans="select a b c",
    ),
    Primitive(
        "equal", 2, "a", "bool", np.equal, smooth=False, infix="==", cost=1,
        floats="fcmp oeq a b", integers="icmp eq a b", booleans="icmp eq a b",
    ),
    Primitive(
        "not_equal", 2, "a", "bool", np.not_equal, smooth=False, infix="!=", cost=1,
        floats="fcmp une a b", integers="icmp ne a b", booleans="icmp ne a b",
    ),
    Primitive(
        "less", 2, "n", "bool", np.less, smooth=False, infix="<", cost=1,
        floats="fcmp olt a b", integers="icmp slt a b",
    ),
    Primitive(
        "less_equal", 2, "n", "bool", np.less_equal, smooth=False, infix="<=", cost=1,
        floats="fcmp ole a b", integers="icmp sle a b",
    ),
    Primitive("logical_and", 2, "b", "bool", np.logical_and, smooth=False, infix="&", cost=1, booleans="and a b"),
    Primitive("logical_or", 2, "b", "bool", np.logical_or, smooth=False, infix="|", cost=1, booleans="or a b"),
    Primitive("logical_xor", 2, "b", "bool", np.logical_xor, smooth=False, infix="^", cost=1, booleans="xor a b"),
    Primitive("logical_not", 1, "b", "bool", np.logical_not, smooth=False, cost=1, booleans="xor a 1"),
    Primitive("isnan", 1, "f", "bool", np.isnan, smooth=False, cost=1, floats="fcmp uno a a"),
    Primitive("isinf", 1, "f", "bool", np.isinf, smooth=False, cost=1, floats="fcmp oeq (llvm.fabs a) inf"),
    Primitive("isfinite", 1, "f", "bool", np.isfinite, smooth=False, cost=1, floats="fcmp olt (llvm.fabs a) inf"),
)


def cost_of(op: str) -> int:
    """What one instruction of a body costs, in additions; a source or a conversion counts as one.

    >>> cost_of("add"), cost_of("tanh"), cost_of("read")
    (1, 12, 1)
    """
    return PRIMITIVES[op].cost if op in PRIMITIVES else 1
