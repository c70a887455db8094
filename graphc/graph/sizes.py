"""Sizes: integers, or integer polynomials in dimensions known only at run time.

A ``Size`` is a sum of monomials with integer coefficients over atoms; an atom is a dimension's name or a floor quotient
or remainder of two sizes. A constant is always a plain ``int``, so ``size == 3`` and hashing behave as one expects.
A dimension is at least 1, which is what decides comparisons (``at_most``).
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Union

from graphc.errors import DefinitionError, ShapeError

Monomial = tuple[tuple[str, int], ...]  # atom texts with powers, sorted
SizeLike = Union[int, "Size"]


class Size:
    """A polynomial in run-time dimensions with integer coefficients; immutable, compared by value.

    >>> n = dim("N")
    >>> 2 * n + 6 - n, (n * 4) // 2, (2 * n + 6).evaluate({"N": 5})
    (N + 6, 2*N, 16)
    """

    __slots__ = ("terms", "_hash", "_text")
    terms: tuple[tuple[Monomial, int], ...]

    def __init__(self, terms: tuple[tuple[Monomial, int], ...]) -> None:
        self.terms = terms
        self._hash = hash(terms)
        self._text: str | None = None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Size) and self.terms == other.terms

    def __hash__(self) -> int:
        return self._hash

    def __add__(self, other: SizeLike) -> SizeLike:
        if not isinstance(other, (int, Size)):
            return NotImplemented
        return _from_terms(self.terms + _terms(other)) if other else self

    __radd__ = __add__

    def __neg__(self) -> SizeLike:
        return Size(tuple([(m, -c) for m, c in self.terms]))

    def __sub__(self, other: SizeLike) -> SizeLike:
        if not isinstance(other, (int, Size)):
            return NotImplemented
        return self + -other

    def __rsub__(self, other: SizeLike) -> SizeLike:
        return -self + other

    def __mul__(self, other: SizeLike) -> SizeLike:
        if not isinstance(other, (int, Size)):
            return NotImplemented
        if isinstance(other, int):
            return self if other == 1 else Size(tuple([(m, c * other) for m, c in self.terms])) if other else 0
        return _from_terms(tuple([(_times(m, n), c * d) for m, c in self.terms for n, d in other.terms]))

    __rmul__ = __mul__

    def __pow__(self, power: int) -> SizeLike:
        result: SizeLike = 1
        for _ in range(power):
            result = result * self
        return result

    def __floordiv__(self, other: SizeLike) -> SizeLike:
        exact = divide(self, other)
        return exact if exact is not None else _atom(f"({self})//({other})")

    def __rfloordiv__(self, other: SizeLike) -> SizeLike:
        exact = divide(other, self)
        return exact if exact is not None else _atom(f"({other})//({self})")

    def __mod__(self, other: SizeLike) -> SizeLike:
        return 0 if divide(self, other) is not None else _atom(f"({self})%({other})")

    def __bool__(self) -> bool:
        return True  # a constant is never a Size, and a dimension is at least 1

    def __index__(self) -> int:
        raise ShapeError(f"size {self} is known only at run time; an integer is needed here")

    def __str__(self) -> str:
        if self._text is None:
            self._text = _text(self.terms)
        return self._text

    __repr__ = __str__

    def evaluate(self, dims: Mapping[str, int]) -> int:
        """The size as an integer for the given dimensions. Raises KeyError for one that is missing."""
        total = 0
        for monomial, coefficient in self.terms:
            for atom, power in monomial:
                coefficient *= _evaluate_atom(atom, dims) ** power
            total += coefficient
        return total

    def names(self) -> tuple[str, ...]:
        """The dimensions that occur, in order of first appearance."""
        found: dict[str, None] = {}
        for monomial, _ in self.terms:
            for atom, _ in monomial:
                if atom.isidentifier():
                    found[atom] = None
                    continue
                for name in re.findall(r"[^\W\d]\w*", atom):
                    found[name] = None
        return tuple(found)


def dim(name: str) -> Size:
    """A size known only at run time, at least 1. One compiled step serves every value.

    Raises: DefinitionError where ``name`` is not an identifier.

    >>> dim("N") * 2 + 1
    2*N + 1
    """
    if not isinstance(name, str) or not name.isidentifier():
        raise DefinitionError(f"dim: name {name!r} given; needs an identifier such as 'N'")
    return Size(((((name, 1),), 1),))


def evaluate(size: SizeLike, dims: Mapping[str, int]) -> int:
    """``size`` as an integer for the given dimensions."""
    return size if isinstance(size, int) else size.evaluate(dims)


def names(size: SizeLike) -> tuple[str, ...]:
    """The dimensions in ``size``; none in an integer."""
    return () if isinstance(size, int) else size.names()


def product(sizes: tuple[SizeLike, ...]) -> SizeLike:
    """The product of several sizes; 1 for none."""
    result: SizeLike = 1
    for size in sizes:
        result = result * size
    return result


def divide(size: SizeLike, by: SizeLike) -> SizeLike | None:
    """``size / by`` where it is a size for every value of the dimensions, else None.

    >>> n = dim("N")
    >>> divide(6 * n * n, 2 * n), divide(n + 1, 2)
    (3*N, None)
    """
    if isinstance(size, int) and isinstance(by, int):
        return size // by if by and size % by == 0 else None
    if size == by:
        return 1
    divisor = _terms(by)
    if len(divisor) != 1:
        return _divide_polynomial(size, by)
    powers, coefficient = dict(divisor[0][0]), divisor[0][1]
    result = []
    for monomial, c in _terms(size):
        left = dict(monomial)
        for atom, power in powers.items():
            left[atom] = left.get(atom, 0) - power
        if c % coefficient or any(p < 0 for p in left.values()):
            return None
        result.append((tuple(sorted((a, p) for a, p in left.items() if p)), c // coefficient))
    return _from_terms(tuple(result))


def at_most(a: SizeLike, b: SizeLike) -> bool:
    """Whether a <= b for every value of the dimensions (each written as 1 + n with n >= 0; a proof, not a guess).

    >>> n = dim("N")
    >>> at_most(3, 2 * n + 1), at_most(n, 4), at_most(n, n * n)
    (True, False, True)
    """
    difference = b - a
    if isinstance(difference, int):
        return difference >= 0
    return _never_negative(difference)


@lru_cache(maxsize=65536)
def _never_negative(size: Size) -> bool:
    shifted: SizeLike = 0
    for monomial, coefficient in size.terms:
        term: SizeLike = coefficient
        for atom, power in monomial:
            if not atom.isidentifier():  # a quotient or a remainder is at least 0, and no more is known
                term = term * _atom(atom) ** power
                continue
            for _ in range(power):
                term = term * (_atom(atom) + 1)
        shifted = shifted + term
    return all(c >= 0 for _, c in _terms(shifted))


def parse_size(text: str) -> SizeLike:
    """The size that ``str(size)`` wrote.

    Raises: DefinitionError for any other text.

    >>> parse_size("2*N**2 + 64")
    2*N**2 + 64
    """
    if re.fullmatch(r"-?\d+", text):
        return int(text)
    try:
        return _parse(ast.parse(text, mode="eval").body)
    except (SyntaxError, KeyError) as error:
        raise DefinitionError(f"size: cannot read {text!r}") from error


def _parse(node: ast.expr) -> SizeLike:
    if isinstance(node, ast.Constant) and isinstance(node.value, int):
        return node.value
    if isinstance(node, ast.Name):
        return dim(node.id)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_parse(node.operand)
    if isinstance(node, ast.BinOp):
        left, right = _parse(node.left), _parse(node.right)
        if isinstance(node.op, ast.Add):
            return left + right
        if isinstance(node.op, ast.Sub):
            return left - right
        if isinstance(node.op, ast.Mult):
            return left * right
        if isinstance(node.op, ast.FloorDiv):
            return left // right
        if isinstance(node.op, ast.Mod) and isinstance(left, Size):
            return left % right
        if isinstance(node.op, ast.Mod) and isinstance(right, int):
            return left % right
        if isinstance(node.op, ast.Pow) and isinstance(right, int):
            return left**right
    raise SyntaxError(ast.dump(node))


def _terms(size: SizeLike) -> tuple[tuple[Monomial, int], ...]:
    if isinstance(size, Size):
        return size.terms
    return (((), size),) if size else ()


def _from_terms(terms: tuple[tuple[Monomial, int], ...]) -> SizeLike:
    total: dict[Monomial, int] = {}
    for monomial, coefficient in terms:
        total[monomial] = total.get(monomial, 0) + coefficient
    kept = [(m, c) for m, c in total.items() if c]
    if not kept:
        return 0
    if len(kept) == 1 and not kept[0][0]:
        return kept[0][1]
    if len(kept) > 1:
        kept.sort(key=lambda t: (-sum(p for _, p in t[0]), t[0]))
    return Size(tuple(kept))


def _times(a: Monomial, b: Monomial) -> Monomial:
    powers = dict(a)
    for atom, power in b:
        powers[atom] = powers.get(atom, 0) + power
    return tuple(sorted(powers.items()))


def _atom(text: str) -> Size:
    return Size(((((text, 1),), 1),))


def _divide_polynomial(size: SizeLike, by: SizeLike) -> SizeLike | None:
    """Long division by a polynomial of several terms, by leading terms; None where a remainder is left."""
    quotient: SizeLike = 0
    rest: SizeLike = size
    lead = _terms(by)[0]
    for _ in range(16):
        if rest == 0:
            return quotient
        factor = divide(_from_terms((_terms(rest)[0],)), _from_terms((lead,)))
        if factor is None:
            return None
        quotient = quotient + factor
        rest = rest - factor * by
    return None


def _text(terms: tuple[tuple[Monomial, int], ...]) -> str:
    parts = []
    for monomial, coefficient in terms:
        names = [a if p == 1 else f"{a}**{p}" for a, p in ((_wrapped(a), p) for a, p in monomial)]
        factor = [] if abs(coefficient) == 1 and names else [str(abs(coefficient))]
        parts.append(("-" if coefficient < 0 else "+", "*".join(factor + names)))
    text = " ".join(f"{sign} {part}" for sign, part in parts)
    return text[2:] if text.startswith("+ ") else "-" + text[2:]


def _wrapped(atom: str) -> str:
    return atom if atom.isidentifier() else f"({atom})"


@lru_cache(maxsize=4096)
def atoms(atom: str) -> tuple[str, SizeLike, SizeLike]:
    """The operator, left and right size of an atom that is a floor quotient or remainder."""
    node = ast.parse(atom, mode="eval").body
    assert isinstance(node, ast.BinOp)
    return ("//" if isinstance(node.op, ast.FloorDiv) else "%", _parse(node.left), _parse(node.right))


def _evaluate_atom(atom: str, dims: Mapping[str, int]) -> int:
    if atom.isidentifier():
        return dims[atom]
    operator, left, right = atoms(atom)
    a, b = evaluate(left, dims), evaluate(right, dims)
    return a // b if operator == "//" else a % b
