"""The partial derivatives of the smooth primitives, over operands and result ``y``. Made by ``derive.py``:

    python -m graphc.graph.derive > graphc/graph/partials.py

Do not edit. Derivatives written by hand, each with its reason, are in ``rules.py``.
"""

from __future__ import annotations

from collections.abc import Callable

from graphc.graph.scalar import Scalar
from graphc.graph.sym import sym

Factor = Scalar | float | int | None


def _add(a: Scalar, b: Scalar, y: Scalar) -> tuple[Factor, ...]:
    return (1.0, 1.0)


def _sub(a: Scalar, b: Scalar, y: Scalar) -> tuple[Factor, ...]:
    return (1.0, -1.0)


def _mul(a: Scalar, b: Scalar, y: Scalar) -> tuple[Factor, ...]:
    return (b, a)


def _div(a: Scalar, b: Scalar, y: Scalar) -> tuple[Factor, ...]:
    return (1.0 / b, -y / b)


def _neg(a: Scalar, y: Scalar) -> tuple[Factor, ...]:
    return (-1.0,)


def _abs(a: Scalar, y: Scalar) -> tuple[Factor, ...]:
    return (sym.sign(a),)


def _sqrt(a: Scalar, y: Scalar) -> tuple[Factor, ...]:
    return (0.5 / y,)


def _rsqrt(a: Scalar, y: Scalar) -> tuple[Factor, ...]:
    return (-0.5 * y * y * y,)


def _exp(a: Scalar, y: Scalar) -> tuple[Factor, ...]:
    return (y,)


def _exp2(a: Scalar, y: Scalar) -> tuple[Factor, ...]:
    return (0.6931471805599453 * y,)


def _expm1(a: Scalar, y: Scalar) -> tuple[Factor, ...]:
    return (1.0 + y,)


def _log(a: Scalar, y: Scalar) -> tuple[Factor, ...]:
    return (1.0 / a,)


def _log2(a: Scalar, y: Scalar) -> tuple[Factor, ...]:
    return (1.4426950408889634 / a,)


def _log10(a: Scalar, y: Scalar) -> tuple[Factor, ...]:
    return (0.4342944819032518 / a,)


def _log1p(a: Scalar, y: Scalar) -> tuple[Factor, ...]:
    return (1.0 / (1.0 + a),)


def _sin(a: Scalar, y: Scalar) -> tuple[Factor, ...]:
    return (sym.cos(a),)


def _cos(a: Scalar, y: Scalar) -> tuple[Factor, ...]:
    return (-sym.sin(a),)


def _tan(a: Scalar, y: Scalar) -> tuple[Factor, ...]:
    return (1.0 + y * y,)


def _asin(a: Scalar, y: Scalar) -> tuple[Factor, ...]:
    return (sym.rsqrt(1.0 - a * a),)


def _acos(a: Scalar, y: Scalar) -> tuple[Factor, ...]:
    return (-sym.rsqrt(1.0 - a * a),)


def _atan(a: Scalar, y: Scalar) -> tuple[Factor, ...]:
    return (1.0 / (1.0 + a * a),)


def _atan2(a: Scalar, b: Scalar, y: Scalar) -> tuple[Factor, ...]:
    return (b / (a * a + b * b), -a / (a * a + b * b))


def _sinh(a: Scalar, y: Scalar) -> tuple[Factor, ...]:
    return (sym.cosh(a),)


def _cosh(a: Scalar, y: Scalar) -> tuple[Factor, ...]:
    return (sym.sinh(a),)


def _tanh(a: Scalar, y: Scalar) -> tuple[Factor, ...]:
    return (1.0 - y * y,)


def _asinh(a: Scalar, y: Scalar) -> tuple[Factor, ...]:
    return (sym.rsqrt(1.0 + a * a),)


def _acosh(a: Scalar, y: Scalar) -> tuple[Factor, ...]:
    return (1.0 / sym.sqrt(a - 1.0) / sym.sqrt(1.0 + a),)


def _atanh(a: Scalar, y: Scalar) -> tuple[Factor, ...]:
    return (1.0 / (1.0 - a * a),)


def _hypot(a: Scalar, b: Scalar, y: Scalar) -> tuple[Factor, ...]:
    return (a / y, b / y)


def _erf(a: Scalar, y: Scalar) -> tuple[Factor, ...]:
    return (1.1283791670955126 * sym.exp(-a * a),)


def _sigmoid(a: Scalar, y: Scalar) -> tuple[Factor, ...]:
    return (y * (1.0 - y),)


def _where(c: Scalar, a: Scalar, b: Scalar, y: Scalar) -> tuple[Factor, ...]:
    return (None, sym.where(c, 1.0, 0.0), sym.where(c, 0.0, 1.0))


PARTIALS: dict[str, Callable[..., tuple[Factor, ...]]] = {
    "add": _add,
    "sub": _sub,
    "mul": _mul,
    "div": _div,
    "neg": _neg,
    "abs": _abs,
    "sqrt": _sqrt,
    "rsqrt": _rsqrt,
    "exp": _exp,
    "exp2": _exp2,
    "expm1": _expm1,
    "log": _log,
    "log2": _log2,
    "log10": _log10,
    "log1p": _log1p,
    "sin": _sin,
    "cos": _cos,
    "tan": _tan,
    "asin": _asin,
    "acos": _acos,
    "atan": _atan,
    "atan2": _atan2,
    "sinh": _sinh,
    "cosh": _cosh,
    "tanh": _tanh,
    "asinh": _asinh,
    "acosh": _acosh,
    "atanh": _atanh,
    "hypot": _hypot,
    "erf": _erf,
    "sigmoid": _sigmoid,
    "where": _where,
}
