"""Patterns: the two sides of a scalar rule, written as algebra.

    exact("mul-one", x * 1, x)

``x`` is a variable, ``1`` a number that must stand there; ``c`` a variable that only a constant matches. Operators and
functions make patterns of patterns. ``measure`` is what every rule makes smaller, which is why rewriting stops.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from graphc.errors import InternalError
from graphc.graph.dtypes import Number
from graphc.graph.primitives import PRIMITIVES
from graphc.rewrite.ranges import Range
from graphc.structs import dataclass

COMMUTATIVE = frozenset(
    ("add", "mul", "maximum", "minimum", "equal", "not_equal", "logical_and", "logical_or", "logical_xor", "hypot",
     "logaddexp")
)


class Pattern:
    """What a scalar may look like; operators write larger patterns."""

    __slots__ = ()

    def __add__(self, other: Side) -> Pattern:
        return Apply("add", (self, _pattern(other)))

    def __radd__(self, other: Side) -> Pattern:
        return Apply("add", (_pattern(other), self))

    def __sub__(self, other: Side) -> Pattern:
        return Apply("sub", (self, _pattern(other)))

    def __rsub__(self, other: Side) -> Pattern:
        return Apply("sub", (_pattern(other), self))

    def __mul__(self, other: Side) -> Pattern:
        return Apply("mul", (self, _pattern(other)))

    def __rmul__(self, other: Side) -> Pattern:
        return Apply("mul", (_pattern(other), self))

    def __truediv__(self, other: Side) -> Pattern:
        return Apply("div", (self, _pattern(other)))

    def __rtruediv__(self, other: Side) -> Pattern:
        return Apply("div", (_pattern(other), self))

    def __pow__(self, other: Side) -> Pattern:
        return Apply("pow", (self, _pattern(other)))

    def __neg__(self) -> Pattern:
        return Apply("neg", (self,))

    def __and__(self, other: Side) -> Pattern:
        return Apply("logical_and", (self, _pattern(other)))

    def __or__(self, other: Side) -> Pattern:
        return Apply("logical_or", (self, _pattern(other)))

    def __xor__(self, other: Side) -> Pattern:
        return Apply("logical_xor", (self, _pattern(other)))

    def __invert__(self) -> Pattern:
        return Apply("logical_not", (self,))

    def __lt__(self, other: Side) -> Pattern:
        return Apply("less", (self, _pattern(other)))

    def __gt__(self, other: Side) -> Pattern:
        return Apply("less", (_pattern(other), self))

    def __le__(self, other: Side) -> Pattern:
        return Apply("less_equal", (self, _pattern(other)))


@dataclass(frozen=True, slots=True)
class Var(Pattern):
    """Any value of one of the element ``kinds``, whose range passes ``test``."""

    name: str
    kinds: str
    test: Callable[[Range], bool] | None = None

    def __repr__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class Const(Pattern):
    """A constant that passes ``test``; on the right side its value may be calculated with."""

    name: str
    test: Callable[[float], bool] | None = None

    def __repr__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class Num(Pattern):
    """This very number, in the type of what stands beside it; 0.0 and -0.0 differ."""

    value: Number

    def __repr__(self) -> str:
        return repr(self.value)


@dataclass(frozen=True, slots=True)
class Apply(Pattern):
    """A primitive of patterns."""

    op: str
    args: tuple[Pattern, ...]

    def __repr__(self) -> str:
        infix = PRIMITIVES[self.op].infix
        if infix and len(self.args) == 2:
            sides = (f"({a!r})" if isinstance(a, Apply) and PRIMITIVES[a.op].infix else repr(a) for a in self.args)
            return f" {infix} ".join(sides)
        return f"{self.op}({', '.join(map(repr, self.args))})"


Side = Pattern | Number


def _pattern(side: Side) -> Pattern:
    return side if isinstance(side, Pattern) else Num(side)


as_pattern = _pattern


def function(name: str) -> Callable[..., Pattern]:
    """The primitive ``name`` as a function of patterns and numbers.

    >>> function("exp")(Var("x", "f"))
    exp(x)
    """
    arity = PRIMITIVES[name].arity

    def apply(*args: Side) -> Pattern:
        if len(args) != arity:
            raise InternalError(f"pattern: {name} of {len(args)} operands")
        return Apply(name, tuple(_pattern(a) for a in args))

    return apply


def variables(pattern: Pattern) -> tuple[Var | Const, ...]:
    """The variables of a pattern in order of first appearance."""
    if isinstance(pattern, Apply):
        return tuple(dict.fromkeys(v for a in pattern.args for v in variables(a)))
    return (pattern,) if isinstance(pattern, (Var, Const)) else ()


def constant_only(pattern: Pattern) -> bool:
    """Whether a pattern holds constants and numbers alone, so that it is folded into one constant when it is built."""
    if isinstance(pattern, Apply):
        return all(constant_only(a) for a in pattern.args)
    return not isinstance(pattern, Var)


# The measure of op(a, b, …) is own + factor * (a + b + …); "own" is roughly a cost. A power weighs its base heavily,
# since it becomes several products of it; a product its operands, since signs are moved out of products.
_OWN = {
    "neg": 1, "abs": 1, "add": 4, "sub": 4, "mul": 2, "div": 6, "pow": 60, "sqrt": 8, "rsqrt": 8, "softplus": 14,
    "maximum": 2, "minimum": 2, "where": 2, "cast": 1, "logaddexp": 26, "sign": 2,
    "equal": 2, "not_equal": 2, "less": 2, "less_equal": 2,
    "logical_and": 2, "logical_or": 2, "logical_xor": 2, "logical_not": 1, "isnan": 1, "isinf": 1, "isfinite": 1,
}  # fmt: skip
_FACTOR = {"mul": 2, "div": 2, "pow": 16}
_OWN_OTHERWISE = 12


def measure(pattern: Pattern) -> tuple[int, Mapping[str, int]]:
    """The measure of a pattern as a linear form in those of its variables: the constant, and a factor for each.

    Constants measure 0, and so does what is calculated from constants alone.

    >>> measure(function("log")(1 + function("exp")(Var("z", "f"))))
    (28, {'z': 1})
    """
    if constant_only(pattern):
        return 0, {}
    if isinstance(pattern, Var):
        return 0, {pattern.name: 1}
    assert isinstance(pattern, Apply)
    own = _OWN.get(pattern.op, _OWN_OTHERWISE)
    factor = _FACTOR.get(pattern.op, 1)
    total: dict[str, int] = {}
    for arg in pattern.args:
        arg_own, arg_factors = measure(arg)
        own += factor * arg_own
        for name, f in arg_factors.items():
            total[name] = total.get(name, 0) + factor * f
    return own, total


def smaller(right: Pattern, left: Pattern) -> bool:
    """Whether the measure of ``right`` is below that of ``left`` whatever the variables measure."""
    own_right, right_factors = measure(right)
    own_left, left_factors = measure(left)
    return own_right < own_left and all(f <= left_factors.get(n, 0) for n, f in right_factors.items())
