"""Index formulas: what a tensor operation means, point by point.

A formula has a *domain* (a box of index variables v0, v1, …, each with an extent), *guards* (a point that fails one
contributes nothing), *reads* (an operand with one index expression per axis, and guards outside which it reads as
zero), a scalar *body* over the reads, a *combiner* and a *write map* (one index expression per axis of the result):

    y[w(d)] = combine over d of body(reads at d)

An index expression is affine with integer coefficients (``Affine``), or one integer tensor read at affine indices
(``FromData``). Everything here is immutable, hashable data.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache

from graphc.errors import InternalError
from graphc.graph.dtypes import DType, int64
from graphc.graph.scalar import Body, BodyBuilder, Scalar
from graphc.graph.sizes import SizeLike, at_most
from graphc.structs import dataclass, replace

Shape = tuple[SizeLike, ...]

COMBINERS = ("none", "sum", "prod", "max", "min", "logsumexp", "any", "all", "argmax", "argmin")


@dataclass(frozen=True, slots=True)
class Affine:
    """``const + sum of coefficient * variable``; terms ascend by variable and no coefficient is 0."""

    const: SizeLike
    terms: tuple[tuple[int, int], ...] = ()

    def variable(self) -> int | None:
        """The variable that this expression is, alone; else None."""
        return self.terms[0][0] if self.const == 0 and len(self.terms) == 1 and self.terms[0][1] == 1 else None

    def coefficient(self, variable: int) -> int:
        """The coefficient of a variable, 0 where it does not occur."""
        for v, c in self.terms:
            if v == variable:
                return c
        return 0

    def __add__(self, other: Affine) -> Affine:
        return affine(self.const + other.const, self.terms + other.terms)

    def scale(self, factor: int) -> Affine:
        """The expression times an integer."""
        return affine(self.const * factor, tuple((v, c * factor) for v, c in self.terms))

    def __sub__(self, other: Affine) -> Affine:
        return self + other.scale(-1)


@dataclass(frozen=True, slots=True)
class FromData:
    """An index read from an integer operand; its values must lie in ``0 .. bound - 1``."""

    operand: int
    index: tuple[Affine, ...]
    bound: SizeLike


Index = Affine | FromData


@dataclass(frozen=True, slots=True)
class Guard:
    """A condition on a point: ``expr >= 0`` (kind ``ge``), ``expr == 0`` (``eq``), ``divisor divides expr`` (``div``).

    With ``data`` (kind ``eq`` only) the condition is ``expr == data``.
    """

    kind: str
    expr: Affine
    divisor: int = 1
    data: FromData | None = None


@dataclass(frozen=True, slots=True)
class Read:
    """Operand ``operand`` at ``index``; zero where a guard fails."""

    operand: int
    index: tuple[Index, ...]
    guards: tuple[Guard, ...] = ()


@dataclass(frozen=True, slots=True, keep_hash=True)
class Formula:
    """See the module. ``shape`` is the result's; positions that no point writes hold the combiner's identity."""

    extents: Shape
    write: tuple[Index, ...]
    shape: Shape
    reads: tuple[Read, ...]
    body: Body
    combine: str = "none"
    guards: tuple[Guard, ...] = ()

    @property
    def dtype(self) -> DType:
        """The element type of the result."""
        return int64 if self.combine in ("argmax", "argmin") else self.body.dtype

    def is_plain(self) -> bool:
        """Whether the write map is the variables v0, v1, … in order, over all of the result: a gather form."""
        return self.extents[: len(self.write)] == self.shape and all(
            isinstance(w, Affine) and w.variable() == k for k, w in enumerate(self.write)
        )

    def reduced(self) -> tuple[int, ...]:
        """The variables that a plain formula combines over."""
        return tuple(range(len(self.write), len(self.extents)))

    def operands(self) -> int:
        """One more than the highest operand that occurs, in reads, indices or guards."""
        highest = -1
        for read in self.reads:
            highest = max(highest, read.operand)
        for data in data_indices(self):
            highest = max(highest, data.operand)
        return highest + 1


def affine(const: SizeLike, terms: Iterable[tuple[int, int]]) -> Affine:
    """The affine expression in normal form."""
    total: dict[int, int] = {}
    for variable, coefficient in terms:
        total[variable] = total.get(variable, 0) + coefficient
    return Affine(const, tuple(sorted((v, c) for v, c in total.items() if c)))


def var(variable: int, offset: SizeLike = 0, coefficient: int = 1) -> Affine:
    """``coefficient * v + offset``."""
    return Affine(offset, ((variable, coefficient),))


def constant(value: SizeLike) -> Affine:
    """An index that no variable moves."""
    return Affine(value)


@lru_cache(maxsize=64)
def plain(rank: int) -> tuple[Affine, ...]:
    """The write map v0, v1, …, v(rank-1)."""
    return tuple(var(k) for k in range(rank))


def substitute(expr: Affine, table: Sequence[Affine | None]) -> Affine:
    """``expr`` with variables replaced; one beyond the table, or None there, stays."""
    if len(expr.terms) == 1:
        variable, coefficient = expr.terms[0]
        alone = table[variable] if variable < len(table) else None
        if alone is None:
            return expr
        if coefficient == 1 and expr.const == 0:
            return alone
    result = Affine(expr.const)
    for variable, coefficient in expr.terms:
        new = table[variable] if variable < len(table) else None
        result = result + (var(variable) if new is None else new).scale(coefficient)
    return result


def substitute_index(index: Index, table: Sequence[Affine | None]) -> Index:
    """An index expression with variables replaced, also inside the indices of data."""
    if isinstance(index, Affine):
        return substitute(index, table)
    return replace(index, index=tuple(substitute(i, table) for i in index.index))


def substitute_guard(guard: Guard, table: Sequence[Affine | None]) -> Guard:
    """A guard with variables replaced."""
    data = guard.data and replace(guard.data, index=tuple(substitute(i, table) for i in guard.data.index))
    return replace(guard, expr=substitute(guard.expr, table), data=data)


def substitute_read(read: Read, table: Sequence[Affine | None]) -> Read:
    """A read with variables replaced."""
    return Read(
        read.operand,
        tuple(substitute_index(i, table) for i in read.index),
        tuple(substitute_guard(g, table) for g in read.guards),
    )


def map_operands(formula: Formula, new: Callable[[int], int]) -> Formula:
    """The formula with its operands renumbered."""

    def data(d: FromData) -> FromData:
        return replace(d, operand=new(d.operand))

    def index(i: Index) -> Index:
        return data(i) if isinstance(i, FromData) else i

    def guard(g: Guard) -> Guard:
        return replace(g, data=data(g.data)) if g.data else g

    reads = tuple(
        Read(new(r.operand), tuple(index(i) for i in r.index), tuple(guard(g) for g in r.guards)) for r in formula.reads
    )
    return replace(
        formula,
        write=tuple(index(w) for w in formula.write),
        reads=reads,
        guards=tuple(guard(g) for g in formula.guards),
    )


def map_variables(formula: Formula, table: Sequence[Affine], extents: Shape) -> Formula:
    """The formula over other variables: ``table[v]`` takes the place of v everywhere, the body's index values too."""
    builder = BodyBuilder()
    values = builder.include(
        formula.body, (), [None if t == var(v) else index_value(builder, t) for v, t in enumerate(table)]
    )
    return replace(
        formula,
        extents=extents,
        write=tuple(substitute_index(w, table) for w in formula.write),
        reads=tuple(substitute_read(r, table) for r in formula.reads),
        guards=tuple(substitute_guard(g, table) for g in formula.guards),
        body=builder.finish(values[-1]),
    )


def index_value(builder: BodyBuilder, expr: Affine) -> Scalar:
    """The value of an affine expression, as an int64 scalar of a body."""
    total: Scalar | None = None
    for variable, coefficient in expr.terms:
        term = builder.index(variable)
        term = term if coefficient == 1 else term * coefficient
        total = term if total is None else total + term
    if total is None:
        return builder.size(expr.const)
    return total if expr.const == 0 else total + builder.size(expr.const)


@lru_cache(maxsize=16384)
def data_indices(formula: Formula) -> tuple[FromData, ...]:
    """Every index from data that occurs, in order: reads, their guards, guards, write map."""
    found: dict[FromData, None] = {}
    for read in formula.reads:
        for index in read.index:
            if isinstance(index, FromData):
                found[index] = None
        for guard in read.guards:
            if guard.data:
                found[guard.data] = None
    for guard in formula.guards:
        if guard.data:
            found[guard.data] = None
    for index in formula.write:
        if isinstance(index, FromData):
            found[index] = None
    return tuple(found)


def range_of(expr: Affine, extents: Shape) -> tuple[SizeLike, SizeLike]:
    """The least and the greatest value of ``expr`` over the box of variables."""
    low = high = expr.const
    for variable, coefficient in expr.terms:
        last = (extents[variable] - 1) * coefficient
        if coefficient > 0:
            high = high + last
        else:
            low = low + last
    return low, high


def always(guard: Guard, extents: Shape) -> bool:
    """Whether a guard holds at every point of the box, proved from the extents."""
    if guard.data is not None:
        return False
    if guard.kind == "ge":
        return at_most(0, range_of(guard.expr, extents)[0])
    if guard.kind == "eq":
        return range_of(guard.expr, extents) == (0, 0)
    whole = not isinstance(guard.expr.const, int) or guard.expr.const % guard.divisor
    return not whole and all(c % guard.divisor == 0 for _, c in guard.expr.terms)


def never(guard: Guard, extents: Shape) -> bool:
    """Whether a guard fails at every point of the box, proved from the extents."""
    if guard.data is not None or guard.kind == "div":
        return False
    low, high = range_of(guard.expr, extents)
    return at_most(high, -1) or (guard.kind == "eq" and at_most(1, low))


def check(formula: Formula) -> None:
    """Raises InternalError where a formula is malformed: a variable without extent, ranks that differ, a bad
    combiner.
    """
    n = len(formula.extents)
    if formula.combine not in COMBINERS:
        raise InternalError(f"formula: combiner {formula.combine!r}")
    if len(formula.write) != len(formula.shape):
        raise InternalError(f"formula: {len(formula.write)} written axes for shape {formula.shape}")
    expressions = [i for r in formula.reads for i in r.index] + list(formula.write)
    affines = [e for i in expressions for e in ((i,) if isinstance(i, Affine) else i.index)]
    affines += [g.expr for g in formula.guards] + [g.expr for r in formula.reads for g in r.guards]
    if any(not 0 <= v < n for e in affines for v, _ in e.terms) or any(v >= n for v in formula.body.indices()):
        raise InternalError("formula: an index variable without extent")
    if any(k >= len(formula.reads) for k in formula.body.reads()):
        raise InternalError("formula: the body names a read that does not stand")
    if formula.combine == "none" and not (formula.is_plain() and len(formula.write) == n):
        raise InternalError("formula: several points may write one element, and there is no combiner")
