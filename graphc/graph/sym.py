"""The scalar namespace ``sym``: one function for every primitive, for whatever a formula is called with.

A formula is written once, with operators and these functions. Called with ``Scalar`` values it writes a body, with
NumPy arrays or numbers it computes, with SymPy expressions it gives an expression. SymPy is imported for the last
alone.
"""

from __future__ import annotations

import math
from typing import overload

import numpy as np
from numpy.typing import NDArray

from graphc.errors import DTypeError
from graphc.graph.primitives import PRIMITIVES
from graphc.graph.scalar import Operand, Scalar
from graphc.graph.sympy_forms import SymPyExpr, apply_sympy, is_sympy

Array = NDArray[np.generic]
Anything = Operand | Array | SymPyExpr


class Function:
    """A scalar function of ``sym``. ``swapped``: the primitive with its two operands exchanged."""

    __slots__ = ("name", "primitive", "swapped")

    def __init__(self, name: str, primitive: str = "", swapped: bool = False) -> None:
        self.name = name
        self.primitive = primitive or name
        self.swapped = swapped

    @overload
    def __call__(self, first: Operand, /, *others: Operand) -> Scalar: ...

    @overload
    def __call__(self, first: Array, /, *others: Operand | Array) -> Array: ...

    @overload
    def __call__(self, first: SymPyExpr, /, *others: Operand | SymPyExpr) -> SymPyExpr: ...

    def __call__(self, *operands: Anything) -> Scalar | Array | SymPyExpr | float | int | bool:
        """The value of the function, of the operands' kind.

        Raises: DTypeError where the number or the kind of the operands is wrong.
        """
        record = PRIMITIVES[self.primitive]
        if len(operands) != record.arity:
            raise DTypeError(f"sym.{self.name}: {len(operands)} operands given; takes {record.arity}")
        if self.swapped:
            operands = operands[::-1]
        for operand in operands:
            if isinstance(operand, Scalar):
                return operand.builder.apply(self.primitive, *[_scalar(self.name, o) for o in operands])
        if any(is_sympy(o) for o in operands):
            return apply_sympy(self.primitive, operands)
        result = record.numpy(*operands)
        if all(isinstance(o, (bool, int, float)) for o in operands):
            number: float | int | bool = np.asarray(result).item()
            return number
        return result

    def __repr__(self) -> str:
        return f"sym.{self.name}"


class Namespace:
    """The functions of ``sym``; the array API's names stand beside the primitives' own.

    >>> sym.exp(0.0), sym.greater(2, 1)
    (1.0, True)
    """

    pi = math.pi
    e = math.e
    inf = math.inf
    nan = math.nan

    add = Function("add")
    subtract = sub = Function("subtract", "sub")
    multiply = mul = Function("multiply", "mul")
    divide = div = Function("divide", "div")
    negative = neg = Function("negative", "neg")
    pow = power = Function("pow")
    floor_divide = Function("floor_divide")
    remainder = Function("remainder")
    abs = absolute = Function("abs")
    sign = Function("sign")
    sqrt = Function("sqrt")
    rsqrt = Function("rsqrt")
    exp = Function("exp")
    exp2 = Function("exp2")
    expm1 = Function("expm1")
    log = Function("log")
    log2 = Function("log2")
    log10 = Function("log10")
    log1p = Function("log1p")
    sin = Function("sin")
    cos = Function("cos")
    tan = Function("tan")
    asin = arcsin = Function("asin")
    acos = arccos = Function("acos")
    atan = arctan = Function("atan")
    atan2 = arctan2 = Function("atan2")
    sinh = Function("sinh")
    cosh = Function("cosh")
    tanh = Function("tanh")
    asinh = arcsinh = Function("asinh")
    acosh = arccosh = Function("acosh")
    atanh = arctanh = Function("atanh")
    hypot = Function("hypot")
    erf = Function("erf")
    sigmoid = Function("sigmoid")
    softplus = Function("softplus")
    logaddexp = Function("logaddexp")
    floor = Function("floor")
    ceil = Function("ceil")
    round = Function("round")
    trunc = Function("trunc")
    maximum = Function("maximum")
    minimum = Function("minimum")
    where = Function("where")
    equal = Function("equal")
    not_equal = Function("not_equal")
    less = Function("less")
    less_equal = Function("less_equal")
    greater = Function("greater", "less", swapped=True)
    greater_equal = Function("greater_equal", "less_equal", swapped=True)
    logical_and = Function("logical_and")
    logical_or = Function("logical_or")
    logical_xor = Function("logical_xor")
    logical_not = Function("logical_not")
    isnan = Function("isnan")
    isinf = Function("isinf")
    isfinite = Function("isfinite")


sym = Namespace()

# Every function by name, for texts that name them (``gc.formula``).
FUNCTIONS: dict[str, Function] = {name: f for name, f in vars(Namespace).items() if isinstance(f, Function)}


def _scalar(name: str, operand: Anything) -> Operand:
    if isinstance(operand, (Scalar, bool, int, float)):
        return operand
    if isinstance(operand, np.generic) or (isinstance(operand, np.ndarray) and operand.ndim == 0):
        number: float | int | bool = operand.item()
        return number
    raise DTypeError(f"sym.{name}: {type(operand).__name__} given beside a scalar; needs a scalar or a number")
