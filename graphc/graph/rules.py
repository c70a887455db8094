"""Derivatives of primitives written by hand, each beside the reason why SymPy's own form will not do.

With the four combiners' laws (``ops/combiners.py``) these are all the derivatives that nobody derived. A test proves
each equal to SymPy's form away from kinks.
"""

from __future__ import annotations

from collections.abc import Callable

from graphc.graph.partials import PARTIALS, Factor
from graphc.graph.scalar import Scalar, const_value
from graphc.graph.sym import sym
from graphc.structs import dataclass


@dataclass(frozen=True, slots=True)
class Rule:
    """Partial derivatives over the operands and the result, and why they are written by hand."""

    partials: Callable[..., tuple[Factor, ...]]
    reason: str


def _pow(a: Scalar, b: Scalar, y: Scalar) -> tuple[Factor, ...]:
    if b.instr().op == "const":
        number = float(const_value(b.instr()))
        return (0.0 if number == 0 else number * a ** (number - 1), None)
    by_base = sym.where(b == 0, 0.0, b * a ** (b - 1))
    by_exponent = sym.where((a == 0) & (b >= 0), 0.0, y * sym.log(a))
    return (by_base, by_exponent)


def _softplus(a: Scalar, y: Scalar) -> tuple[Factor, ...]:
    return (sym.sigmoid(a),)


def _logaddexp(a: Scalar, b: Scalar, y: Scalar) -> tuple[Factor, ...]:
    return (sym.sigmoid(a - b), sym.sigmoid(b - a))


def _remainder(a: Scalar, b: Scalar, y: Scalar) -> tuple[Factor, ...]:
    return (1.0, -(a // b))


def _maximum(a: Scalar, b: Scalar, y: Scalar) -> tuple[Factor, ...]:
    tie = sym.where(a == b, 0.5, 0.0)
    return (sym.where(b < a, 1.0, tie), sym.where(a < b, 1.0, tie))


def _minimum(a: Scalar, b: Scalar, y: Scalar) -> tuple[Factor, ...]:
    tie = sym.where(a == b, 0.5, 0.0)
    return (sym.where(a < b, 1.0, tie), sym.where(b < a, 1.0, tie))


RULES: dict[str, Rule] = {
    "pow": Rule(
        _pow, "at base 0 the derived form is 0 * log(0), at exponent 0 it is 0 * 0 ** -1: NaN where 0 is right"
    ),
    "softplus": Rule(_softplus, "the derived exp(a) / (1 + exp(a)) overflows"),
    "logaddexp": Rule(_logaddexp, "the derived exp(a) / (exp(a) + exp(b)) overflows"),
    "remainder": Rule(_remainder, "SymPy leaves the derivative of floor as it stands"),
    "maximum": Rule(_maximum, "equal operands share the derivative, 1/2 each, as in PyTorch and JAX"),
    "minimum": Rule(_minimum, "equal operands share the derivative, 1/2 each, as in PyTorch and JAX"),
}


def partials(name: str) -> Callable[..., tuple[Factor, ...]] | None:
    """The partial derivatives of a primitive as a function of its operands and result; None where it has none.

    >>> partials("floor") is None, partials("tanh") is PARTIALS["tanh"]
    (True, True)
    """
    rule = RULES.get(name)
    return rule.partials if rule else PARTIALS.get(name)
