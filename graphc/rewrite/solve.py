"""Solving: a formula that scatters, written as one that gathers, where that is possible.

A transposed formula writes ``y[w(d)] += body(d)``. Each axis p of the result gives an equation ``p = w_p(d)``; solving
it for a variable of coefficient ±1 turns that variable into an expression of the result's own index, with a guard that
it lies in its range. Equations left over become guards, variables left over are summed.

An equation whose variables all have larger coefficients stays a store (a strided store over zeros needs no division),
and so does an index from data that a summed variable moves.
"""

from __future__ import annotations

from functools import lru_cache

from graphc.graph.formula import (
    Affine,
    Formula,
    FromData,
    Guard,
    affine,
    always,
    constant,
    map_variables,
    plain,
    substitute,
    substitute_guard,
    var,
)
from graphc.graph.sizes import SizeLike, at_most
from graphc.structs import replace


@lru_cache(maxsize=65536)
def solve(formula: Formula) -> Formula:
    """The gather form of ``formula`` (write map v0, v1, …), or the formula itself where there is none.

    Example: the cotangent of a row sum, ``y[n] += ct`` over (n, c) reads, solved has no sum left.
    """
    if formula.combine not in ("sum", "none") or (formula.is_plain() and formula.combine != "sum"):
        return formula
    if formula.is_plain():
        return tidy(formula)
    rank, n = len(formula.shape), len(formula.extents)
    space = formula.shape + formula.extents  # the result's axes first, then the domain's variables
    shift = [var(rank + v) for v in range(n)]
    table: list[Affine | None] = [None] * (rank + n)
    equations: list[Affine] = []
    from_data: list[tuple[int, FromData]] = []
    for axis, write in enumerate(formula.write):
        if isinstance(write, FromData):
            from_data.append((axis, write))
        else:
            equations.append(substitute(write, shift) - var(axis))
    guards: list[Guard] = []
    while equations:
        choice = _choose(equations, rank, space)
        if choice is None:
            break
        number, variable = choice
        equation = equations.pop(number)
        sign = equation.coefficient(variable)
        value = (equation - var(variable, 0, sign)).scale(-sign)  # variable = value
        step: list[Affine | None] = [None] * (rank + n)
        step[variable] = value
        table = [None if t is None else substitute(t, step) for t in table]
        table[variable] = value
        equations = [substitute(e, step) for e in equations]
        guards = [substitute_guard(g, step) for g in guards]
        guards += [Guard("ge", value), Guard("ge", constant(space[variable] - 1) - value)]
    if any(v >= rank for e in equations for v, _ in e.terms):
        return formula
    guards += [Guard("eq", e) for e in equations]
    for axis, data in from_data:
        moved = replace(data, index=tuple(substitute(substitute(i, shift), table) for i in data.index))
        if any(v >= rank for i in moved.index for v, _ in i.terms):
            return formula
        guards.append(Guard("eq", var(axis), data=moved))
    left = [v for v in range(rank, rank + n) if table[v] is None]
    number_of = {v: rank + k for k, v in enumerate(left)}
    final: list[Affine] = [var(axis) for axis in range(rank)]
    for v in range(rank, rank + n):
        known = table[v]
        final.append(
            var(number_of[v])
            if known is None
            else affine(known.const, ((number_of.get(u, u), c) for u, c in known.terms))
        )
    extents = formula.shape + tuple(space[v] for v in left)
    domain = final[rank:]
    moved_formula = map_variables(replace(formula, write=(), shape=(), guards=()), domain, extents)
    own = tuple(substitute_guard(g, domain) for g in formula.guards)
    solved = replace(
        moved_formula,
        write=plain(rank),
        shape=formula.shape,
        guards=own + tuple(substitute_guard(g, final) for g in guards),
        combine="sum" if left else "none",
    )
    return tidy(solved)


def _choose(equations: list[Affine], rank: int, space: tuple[SizeLike, ...]) -> tuple[int, int] | None:
    """The equation and the variable of coefficient ±1 with the largest extent, so that the fewest points are left."""
    best: tuple[int, int] | None = None
    for number, equation in enumerate(equations):
        for variable, coefficient in equation.terms:
            if variable < rank or abs(coefficient) != 1:
                continue
            if best is None or not at_most(space[variable], space[best[1]]):
                best = (number, variable)
    return best


def tidy(formula: Formula) -> Formula:
    """The formula without guards that always hold, and without summed variables of extent 1."""
    extents = formula.extents
    if formula.combine == "sum" and formula.is_plain():
        ones = [v for v in formula.reduced() if extents[v] == 1]
        if ones:
            kept = [v for v in range(len(extents)) if v not in ones]
            table = [constant(0) if v in ones else var(kept.index(v)) for v in range(len(extents))]
            formula = map_variables(formula, table, tuple(extents[v] for v in kept))
            if not formula.reduced():
                formula = replace(formula, combine="none")
            extents = formula.extents
    guards = tuple(dict.fromkeys(g for g in formula.guards if not always(g, extents)))
    reads = tuple(
        replace(r, guards=tuple(dict.fromkeys(g for g in r.guards if g not in guards and not always(g, extents))))
        for r in formula.reads
    )
    return replace(formula, guards=guards, reads=reads)
