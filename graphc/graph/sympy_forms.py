"""The primitives in SymPy, there and back: what derivatives are derived with, shown with and checked against.

SymPy is imported when one of these functions is called, never before.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from graphc.errors import DefinitionError
from graphc.graph.scalar import Operand


class SymPyExpr(Protocol):
    """A SymPy expression, as far as this package looks at one."""

    @property
    def free_symbols(self) -> set[SymPyExpr]:
        """The symbols that occur."""
        ...

    @property
    def args(self) -> tuple[SymPyExpr, ...]:
        """What the expression is made of."""
        ...

    @property
    def is_real(self) -> bool | None:
        """Whether the value is a real number; None where that is not known."""
        ...

    @property
    def is_number(self) -> bool:
        """Whether there are no symbols."""
        ...

    def __float__(self) -> float: ...

    def __ge__(self, other: int, /) -> bool: ...

    def is_rational_function(self) -> bool:
        """Whether it is a quotient of polynomials."""
        ...

    def could_extract_minus_sign(self) -> bool:
        """Whether it is written with a minus sign in front."""
        ...

    def atoms(self, kind: type, /) -> set[SymPyExpr]:
        """The parts of a kind."""
        ...

    def as_coeff_Mul(self) -> tuple[SymPyExpr, SymPyExpr]:
        """A number and what it multiplies."""
        ...

    def has(self, *parts: object) -> bool:
        """Whether one of the parts occurs."""
        ...

    def subs(self, old: object, new: object) -> SymPyExpr:
        """The expression with a part replaced."""
        ...


def is_sympy(value: object) -> bool:
    """Whether ``value`` is a SymPy expression; imports nothing."""
    return type(value).__module__.partition(".")[0] == "sympy" or (
        "sympy" in sys.modules and hasattr(value, "free_symbols") and hasattr(value, "subs")
    )


def apply_sympy(name: str, operands: Sequence[object]) -> SymPyExpr:
    """The primitive ``name`` of SymPy expressions and numbers."""
    import sympy as sp

    plain: dict[str, Callable[..., SymPyExpr]] = {
        "add": lambda a, b: a + b,
        "sub": lambda a, b: a - b,
        "mul": lambda a, b: a * b,
        "div": lambda a, b: a / b,
        "neg": lambda a: -a,
        "pow": sp.Pow,
        "floor_divide": lambda a, b: sp.floor(a / b),
        "remainder": lambda a, b: a - b * sp.floor(a / b),
        "abs": sp.Abs,
        "sign": sp.sign,
        "sqrt": sp.sqrt,
        "rsqrt": lambda a: 1 / sp.sqrt(a),
        "exp": sp.exp,
        "exp2": lambda a: sp.Integer(2) ** a,
        "expm1": lambda a: sp.exp(a) - 1,
        "log": sp.log,
        "log2": lambda a: sp.log(a) / sp.log(2),
        "log10": lambda a: sp.log(a) / sp.log(10),
        "log1p": lambda a: sp.log(1 + a),
        "hypot": lambda a, b: sp.sqrt(a * a + b * b),
        "sigmoid": lambda a: 1 / (1 + sp.exp(-a)),
        "softplus": lambda a: sp.log(1 + sp.exp(a)),
        "logaddexp": lambda a, b: sp.log(sp.exp(a) + sp.exp(b)),
        "ceil": sp.ceiling,
        "trunc": lambda a: sp.sign(a) * sp.floor(sp.Abs(a)),
        "maximum": lambda a, b: sp.Piecewise((a, a >= b), (b, True)),
        "minimum": lambda a, b: sp.Piecewise((a, a <= b), (b, True)),
        "where": lambda c, a, b: sp.Piecewise((a, c), (b, True)),
        "equal": sp.Eq,
        "not_equal": sp.Ne,
        "less": sp.Lt,
        "less_equal": sp.Le,
        "logical_and": sp.And,
        "logical_or": sp.Or,
        "logical_xor": sp.Xor,
        "logical_not": sp.Not,
    }
    function = plain.get(name) or getattr(sp, name, None)
    if function is None:
        raise DefinitionError(f"sym.{name}: SymPy has no such function")
    result: SymPyExpr = function(*[sp.sympify(o) for o in operands])
    return result


# SymPy's class names and the primitive that each is; n-ary ones are folded from the left.
FROM_SYMPY: Mapping[str, str] = {
    "Add": "add",
    "Mul": "mul",
    "Pow": "pow",
    "Abs": "abs",
    "sign": "sign",
    "exp": "exp",
    "log": "log",
    "sin": "sin",
    "cos": "cos",
    "tan": "tan",
    "asin": "asin",
    "acos": "acos",
    "atan": "atan",
    "atan2": "atan2",
    "sinh": "sinh",
    "cosh": "cosh",
    "tanh": "tanh",
    "asinh": "asinh",
    "acosh": "acosh",
    "atanh": "atanh",
    "erf": "erf",
    "floor": "floor",
    "ceiling": "ceil",
    "Max": "maximum",
    "Min": "minimum",
    "Equality": "equal",
    "Unequality": "not_equal",
    "StrictLessThan": "less",
    "LessThan": "less_equal",
    "StrictGreaterThan": "greater",
    "GreaterThan": "greater_equal",
    "And": "logical_and",
    "Or": "logical_or",
    "Xor": "logical_xor",
    "Not": "logical_not",
}


def evaluate_sympy(
    expr: SymPyExpr, symbols: Mapping[str, Operand], functions: Mapping[str, Callable[..., Operand]]
) -> Operand:
    """A SymPy expression computed with ``functions`` (those of ``sym``), its symbols replaced by name.

    Raises: DefinitionError for a function that has no primitive.
    """
    import sympy as sp

    values: dict[SymPyExpr, Operand] = {}
    for part in sp.postorder_traversal(expr):
        if part in values or isinstance(part, sp.core.containers.Tuple) or type(part).__name__ == "ExprCondPair":
            continue
        args = [values[a] for a in part.args if a in values]
        values[part] = _one(part, args, values, symbols, functions)
    return values[expr]


def _one(
    part: SymPyExpr,
    args: list[Operand],
    values: Mapping[SymPyExpr, Operand],
    symbols: Mapping[str, Operand],
    functions: Mapping[str, Callable[..., Operand]],
) -> Operand:
    import sympy as sp

    name = type(part).__name__
    if isinstance(part, sp.Symbol):
        return symbols[part.name]
    if part in (sp.true, sp.false):
        return bool(part)
    if isinstance(part, sp.Integer):
        return int(part)
    if isinstance(part, (sp.Number, sp.NumberSymbol)):
        return float(part)
    if name == "Piecewise":
        pairs = [(values[p.args[0]], p.args[1]) for p in part.args]
        result, last = pairs[-1]
        if last != sp.true:
            result = functions["where"](values[last], result, float("nan"))
        for value, condition in reversed(pairs[:-1]):
            result = functions["where"](values[condition], value, result)
        return result
    if name == "Pow":
        return _power(part, args, functions)
    if name == "Heaviside":
        return functions["where"](
            functions["less"](args[0], 0), 0.0, functions["where"](functions["equal"](args[0], 0), 0.5, 1.0)
        )
    if name not in FROM_SYMPY:
        raise DefinitionError(f"elementwise: SymPy's {name} given; needs a function that gc.sym has")
    function = functions[FROM_SYMPY[name]]
    if len(args) <= 2 and not (len(args) == 1 and name in ("And", "Or", "Max", "Min")):
        return function(*args)
    total = args[0]
    for arg in args[1:]:
        total = function(total, arg)
    return total


def _power(part: SymPyExpr, args: list[Operand], functions: Mapping[str, Callable[..., Operand]]) -> Operand:
    """``base ** exponent``: quotients, roots and small whole powers by their own primitives."""
    import sympy as sp

    exponent = part.args[1]
    if exponent == sp.Rational(1, 2):
        return functions["sqrt"](args[0])
    if exponent == sp.Rational(-1, 2):
        return functions["rsqrt"](args[0])
    if isinstance(exponent, sp.Integer) and 1 <= abs(int(exponent)) <= 8:
        total = args[0]
        for _ in range(abs(int(exponent)) - 1):
            total = functions["multiply"](total, args[0])
        return total if int(exponent) > 0 else functions["divide"](1, total)
    return functions["pow"](*args)
