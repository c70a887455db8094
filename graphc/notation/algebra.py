"""Trees put together as a person would write them: ``a - b`` for ``a + (-b)``, ``x / N`` for ``(1 / N) * x``.

What is done here is how a value is shown, never what it is.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from graphc.graph.dtypes import DType
from graphc.graph.scalar import Instr
from graphc.graph.sizes import SizeLike
from graphc.notation.tree import Applied, Bracket, Infix, Joined, Negated, Number, Power, Symbol, Tree, opposite

_SHORTEST = 6  # digits of a product of numbers that is put in their place
_DIGITS = 8  # of a product of numbers that are not exact themselves: what float32 holds
ZERO, ONE = Number("0"), Number("1")
_COMPARISONS = {"less": "<", "less_equal": "≤", "equal": "=", "not_equal": "≠"}
_TURNED = {"<": ">", "≤": "≥", "=": "=", "≠": "≠"}
_RENAMED = {"maximum": "max", "minimum": "min"}


def number(text: str, dtype: DType) -> Tree:
    """A constant, as short as its type lets it be.

    >>> from graphc.graph.dtypes import float32
    >>> number("0.10000000149011612", float32), number("2.0", float32)
    (Number(text='0.1'), Number(text='2'))
    """
    if dtype.kind != "f":
        return Number(text)
    short = str(dtype.numpy.type(float(text)))
    return Number(short[:-2] if short.endswith(".0") else short)


def size_tree(size: SizeLike) -> Tree:
    """A size; one of several terms or factors in parentheses."""
    text = str(size)
    return Number(text) if isinstance(size, int) else Symbol(text if text.isidentifier() else f"({text})")


def _value(tree: Tree) -> float | None:
    return float(tree.text) if isinstance(tree, Number) and tree.text not in ("True", "False") else None


def plus(a: Tree, b: Tree) -> Tree:
    """``a + b``."""
    if a == ZERO:
        return b
    if isinstance(b, Negated) and not b.logical:
        return minus(a, b.value)
    if isinstance(b, Number) and b.text.startswith("-"):
        return minus(a, Number(b.text[1:]))
    if isinstance(a, Negated) and not a.logical:
        return minus(b, a.value)
    return _like(a, b, 1) or Infix("+", a, b)


def minus(a: Tree, b: Tree) -> Tree:
    """``a - b``."""
    if a == ZERO:
        return negative(b)
    if isinstance(b, Negated) and not b.logical:
        return plus(a, b.value)
    if isinstance(a, Negated) and not a.logical and _like(a.value, b, 1):
        return negative(plus(a.value, b))
    return _like(a, b, -1) or Infix("-", a, b)


def _like(a: Tree, b: Tree, sign: int) -> Tree | None:
    """The sum of multiples of one thing; None where they are of different things, or of numbers alone."""
    (m, base), (n, other) = _multiple(a), _multiple(b)
    if base != other or isinstance(base, Number):
        return None
    total = repr(m + sign * n).removesuffix(".0")
    return times(Number(total), base) if total != "0" and len(total) <= _SHORTEST else None


def _multiple(tree: Tree) -> tuple[float, Tree]:
    """A tree as a number times something."""
    if isinstance(tree, Infix) and tree.sign == "*":
        number_ = _value(tree.left)
        if number_ is not None:
            return number_, tree.right
    return 1.0, tree


def negative(a: Tree) -> Tree:
    """``-a``."""
    if isinstance(a, Negated) and not a.logical:
        return a.value
    if isinstance(a, Number):
        return Number(a.text[1:] if a.text.startswith("-") else f"-{a.text}")
    if isinstance(a, Infix) and a.sign == "-":
        return Infix("-", a.right, a.left)
    return Negated(a)


def times(a: Tree, b: Tree, elementwise: bool = False) -> Tree:
    """``a * b``; ``elementwise``: both have axes, which is written ``⊙``."""
    if isinstance(a, Number) and isinstance(b, Number):
        return _product(a, b)
    if isinstance(a, Number) and isinstance(b, Infix) and b.sign == "*" and isinstance(b.left, Number):
        joined = times(a, b.left)
        if isinstance(joined, Number):
            return times(joined, b.right)
    for factor, other in ((a, b), (b, a)):
        if factor == ONE:
            return other
        if isinstance(factor, Number) and (parts := _parts(factor)):
            return over(other, Number(str(parts)))
        guarded = _guarded(factor, other)
        if guarded is not None:
            return guarded
        if _value(factor) == -1:
            return negative(other)
        if isinstance(factor, Number) and factor.text.startswith("-") and not isinstance(other, Number):
            return negative(times(Number(factor.text[1:]), other, elementwise))
        if isinstance(factor, Negated) and not factor.logical:
            return negative(times(factor.value, b, elementwise) if factor is a else times(a, factor.value, elementwise))
        if isinstance(factor, Infix) and factor.sign == "/":
            left, right = (factor.left, other) if factor is a else (other, factor.left)
            return over(times(left, right, elementwise and not isinstance(factor.left, Number)), factor.right)
        if isinstance(factor, Infix) and factor.sign == "*" and isinstance(factor.left, Number):
            if not isinstance(other, Number):
                left, right = (factor.right, other) if factor is a else (other, factor.right)
                return times(factor.left, times(left, right, elementwise))
    if isinstance(b, Number) and not isinstance(a, Number):
        a, b = b, a
    if a == b:
        return a if isinstance(a, Bracket) else Power(a, Number("2"))
    for raised, base in ((a, b), (b, a)):
        if isinstance(raised, Power) and raised.base == base and isinstance(raised.exponent, Number):
            if raised.exponent.text.isdigit():
                return Power(base, Number(str(int(raised.exponent.text) + 1)))
    return Infix("⊙" if elementwise else "*", a, b)


def _product(a: Number, b: Number) -> Tree:
    """The product of two numbers, with as many digits as they have together, at most as float32 holds."""
    digits = sum(len(n.text.partition("e")[0].replace(".", "").strip("-0")) for n in (a, b))
    value = float(a.text) * float(b.text)
    joined = str(int(value)) if value.is_integer() and abs(value) < 2**53 else f"{value:.{min(digits, _DIGITS)}g}"
    return Number(joined) if len(joined) < len(a.text) + len(b.text) + 3 else Infix("*", a, b)


def _parts(number_: Number) -> int:
    """``n`` where a number is 1/n, a mean's, and longer to write than that; else 0."""
    value = _value(number_) or 0.0
    if not 0 < value < 1 or len(number_.text) < _SHORTEST or "e" in number_.text:
        return 0
    n = round(1 / value)
    exact = n & (n - 1) == 0 and 1 / n == value
    return n if exact or (len(number_.text) > _DIGITS and number_.text == str(np.float32(1 / n))) else 0


def _guarded(factor: Tree, other: Tree) -> Tree | None:
    """``sqrt(where(a = 0, 1, a)) * [a ≠ 0]``, which keeps a root from its kink, as ``sqrt(a)``; else None."""
    if not isinstance(factor, Bracket) or not isinstance(other, Applied) or other.name != "sqrt":
        return None
    inner, zero = other.args[0], opposite(factor.condition)
    if isinstance(inner, Applied) and inner.name == "where" and inner.args[0] == zero and inner.args[1] == ONE:
        safe = isinstance(zero, Infix) and zero.sign == "=" and zero.right == ZERO and zero.left == inner.args[2]
        return Applied("sqrt", (inner.args[2],)) if safe else None
    return None


def outer(a: Tree, b: Tree) -> Tree:
    """The product of every element of a vector with every one of another."""
    return Infix("⊗", a, b)


def over(a: Tree, b: Tree) -> Tree:
    """``a / b``; a sum over as many as b says is a mean."""
    if b == ONE:
        return a
    if isinstance(a, Negated) and not a.logical:
        return negative(over(a.value, b))
    if isinstance(a, Number) and a.text.startswith("-"):
        return negative(Infix("/", Number(a.text[1:]), b))
    if isinstance(a, Infix) and isinstance(b, Number) and a.sign == "*" and isinstance(a.left, Number):
        times_ = float(b.text) / float(a.left.text)
        if times_.is_integer():
            return over(a.right, Number(str(int(times_))))
    if isinstance(a, Infix) and a.sign == "/" and not isinstance(b, Number):
        if a.right == b:
            return over(a.left, Power(b, Number("2")))
    if isinstance(a, Infix) and isinstance(b, Number) and a.sign == "/" and isinstance(a.right, Number):
        return over(a.left, _product(a.right, b))
    if isinstance(a, Joined) and a.sign == "Σ" and a.count is not None and size_tree(a.count) == b:
        return Joined("mean", a.letters, a.value)
    return Infix("/", a, b)


def power(a: Tree, b: Tree) -> Tree:
    """``a ** b``."""
    if b == Number("0.5"):
        return Applied("sqrt", (a,))
    return a if b == ONE else over(ONE, a) if _value(b) == -1 else Power(a, b)


def bracket(condition: Tree) -> Tree:
    """1 where the condition holds, else 0; ``onehot`` is one already."""
    return condition if isinstance(condition, Applied) and condition.name == "onehot" else Bracket(condition)


def choice(condition: Tree, yes: Tree, no: Tree, elementwise: bool) -> Tree:
    """``yes`` where the condition holds, else ``no``: a masked value where one of them is 0."""
    if no == ZERO:
        return bracket(condition) if yes == ONE else _masked(condition, yes, elementwise)
    if yes == ZERO and not isinstance(condition, Applied):
        turned = opposite(condition)
        return bracket(turned) if no == ONE else _masked(turned, no, elementwise)
    if isinstance(condition, Infix) and (condition.left, condition.right) == (no, yes):
        if condition.sign in ("<", "≤", ">", "≥"):
            return Applied("max" if condition.sign in ("<", "≤") else "min", (no, yes))
    return Applied("where", (condition, yes, no))


def _masked(condition: Tree, value: Tree, elementwise: bool) -> Tree:
    if condition in (Infix(">", value, ZERO), Infix("≥", value, ZERO)):
        return Applied("relu", (value,))
    return times(value, bracket(condition), elementwise)


def compared(sign: str, a: Tree, b: Tree) -> Tree:
    """A comparison, numbers on the right."""
    if isinstance(a, Number) and not isinstance(b, Number):
        return Infix(_TURNED[sign], b, a)
    return Infix(sign, a, b)


def applied(instr: Instr, args: Sequence[Tree], source: DType | None, axes: Sequence[bool]) -> Tree:
    """One primitive over its operands' trees.

    source: the operand's type, for a conversion. axes: of each operand whether it has any; a factor without goes first.
    """
    elementwise = sum(axes) > 1
    op = instr.op
    if op == "cast":
        return _converted(instr, args[0], source)
    if op in ("add", "sub", "mul", "div", "pow"):
        a, b = args
        if op == "mul":
            return times(b, a) if axes[0] and not axes[1] else times(a, b, elementwise)
        return {"add": plus, "sub": minus, "div": over, "pow": power}[op](a, b)
    if op == "neg":
        return negative(args[0])
    if op == "where":
        return choice(args[0], args[1], args[2], elementwise)
    if op in _COMPARISONS:
        return compared(_COMPARISONS[op], args[0], args[1])
    if op == "logical_not":
        return opposite(args[0])
    if op in ("logical_and", "logical_or"):
        return Infix(op.removeprefix("logical_"), args[0], args[1])
    if op in ("floor_divide", "remainder"):
        return Infix("//" if op == "floor_divide" else "%", args[0], args[1])
    if op == "rsqrt":
        return over(ONE, Applied("sqrt", (args[0],)))
    return Applied(_RENAMED.get(op, op), tuple(args))


def _converted(instr: Instr, arg: Tree, source: DType | None) -> Tree:
    """A conversion: of a condition to a number its bracket, to a wider type silent, else by the type's name."""
    if source is not None and source.kind == "b" and instr.dtype.kind != "b":
        return bracket(arg)
    if instr.dtype.kind == "f" or (source is not None and source.kind == "i" and instr.dtype.kind == "i"):
        return arg
    return Applied(instr.dtype.name, (arg,))
