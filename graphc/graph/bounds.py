"""Proofs that an index stays in bounds: of an affine expression over a box of variables, under guards.

``expr >= 0`` is proved by subtracting guards (each known to be at least 0) until what is left is at least 0 over the
whole box, for every value of the dimensions. What is proved holds; what is not proved may hold too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from math import gcd

from graphc.graph.formula import Affine, Guard, Shape, never, range_of
from graphc.graph.sizes import Size, SizeLike, at_most, parse_size

_DEPTH = 3  # guards used in one proof
_WIDTH = 64  # expressions looked at on one level
_QUOTIENT = re.compile(r"\((.*)\)(//|%)\((\d+)\)")


def within(expr: Affine, size: SizeLike, extents: Shape, guards: tuple[Guard, ...] = ()) -> bool:
    """Whether ``0 <= expr <= size - 1`` at every point of the box that passes the guards.

    >>> from graphc.graph.formula import var
    >>> within(var(0, -1), 8, (8,)), within(var(0, -1), 8, (8,), (Guard("ge", var(0, -1)),))
    (False, True)
    """
    variable = expr.variable()
    if variable is not None and extents[variable] == size:  # by far the most
        return True
    return nonnegative(expr, extents, guards) and nonnegative(Affine(size - 1) - expr, extents, guards)


def nonnegative(expr: Affine, extents: Shape, guards: tuple[Guard, ...] = ()) -> bool:
    """Whether ``expr >= 0`` at every point of the box that passes the guards.

    >>> from graphc.graph.formula import var
    >>> from graphc.graph.sizes import dim
    >>> n = dim("N")
    >>> nonnegative(Affine(n - 1) - var(0, 0, 2), ((n + 1) // 2,))
    True
    """
    if _lowest_is_nonnegative(expr, extents):
        return True
    if not guards:
        return False
    if any(never(g, extents) for g in guards):
        return True
    facts = tuple(_facts(guards))
    level = [expr]
    for _ in range(_DEPTH):
        level = list(dict.fromkeys(e - f.scale(k) for e in level for f in facts for k in _factors(e, f)))[:_WIDTH]
        if any(_lowest_is_nonnegative(e, extents) for e in level):
            return True
    return False


def _facts(guards: Iterable[Guard]) -> Iterable[Affine]:
    """What the guards say is at least 0, rounded to whole variables."""
    for guard in guards:
        if guard.data is not None or guard.kind == "div":
            continue
        for expr in (guard.expr,) if guard.kind == "ge" else (guard.expr, guard.expr.scale(-1)):
            common = gcd(*(c for _, c in expr.terms)) if expr.terms else 1
            if common > 1 and isinstance(expr.const, int):
                expr = Affine(expr.const // common, tuple((v, c // common) for v, c in expr.terms))
            yield expr


def _factors(expr: Affine, fact: Affine) -> Iterable[int]:
    """How often to subtract a fact so that one of its variables leaves ``expr``."""
    found: dict[int, None] = {}
    for variable, c in fact.terms:
        own = expr.coefficient(variable)
        if own and own * c > 0 and own % c == 0:
            found[own // c] = None
    return found


def _lowest_is_nonnegative(expr: Affine, extents: Shape) -> bool:
    low = range_of(expr, extents)[0]
    if at_most(0, low):
        return True
    return isinstance(low, Size) and any(at_most(0, below) for below in _bounds_below(low))


def _bounds_below(size: Size) -> Iterable[SizeLike]:
    """Sizes that are never above ``size``, with quotients ``a // b`` and remainders ``a % b`` replaced.

    From ``a - b + 1 <= b * (a // b) <= a`` and ``0 <= a % b <= b - 1``; the second replaces what is added too.
    """
    for also_added in (False, True):
        total: SizeLike = 0
        for monomial, c in size.terms:
            own: SizeLike = Size(((monomial, c),)) if monomial else c
            match = _QUOTIENT.fullmatch(monomial[0][0]) if len(monomial) == 1 and monomial[0][1] == 1 else None
            if match:
                a, b = parse_size(match[1]), int(match[3])
                if match[2] == "%":
                    own = c * (b - 1) if c < 0 else 0
                elif c % b == 0 and c < 0:
                    own = a * (c // b)
                elif c % b == 0 and also_added:
                    own = (a - b + 1) * (c // b)
            total = total + own
        yield total
