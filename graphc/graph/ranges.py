"""The ranges of a written formula's indices: the largest for which every read is in bounds."""

from __future__ import annotations

from collections.abc import Sequence

from graphc.errors import DefinitionError, ShapeError
from graphc.graph.formula import Affine, Shape, range_of
from graphc.graph.sizes import SizeLike, at_most
from graphc.structs import dataclass


@dataclass(frozen=True, slots=True)
class Bound:
    """One axis that is read: the index there, the axis' size, the read as written, whether a condition guards it."""

    expr: Affine
    size: SizeLike
    written: str
    guarded: bool = False


@dataclass(frozen=True, slots=True)
class Index:
    """An index to be ranged over: its name, the size given for it if any, and how one would give it."""

    name: str
    given: SizeLike | None
    hint: str


def infer(indices: Sequence[Index], bounds: Sequence[Bound], text: str) -> Shape:
    """The extent of every index: as given, or the largest for which every read is in bounds.

    Reads of one index alone decide before those of several, and reads outside conditions before those inside: a later
    one decides only for an index that no earlier one names.

    Raises: ShapeError for ranges that disagree, or that no index keeps; DefinitionError for one that nothing tells.

    >>> from graphc.graph.formula import var
    >>> infer([Index("h", None, ""), Index("r", 3, "")], [Bound(var(0, 0, 2) + var(1), 9, "x[2*h + r]")], "")
    (4, 3)
    """
    extents = [i.given for i in indices]
    for guarded in (False, True):
        for several in (False, True):
            chosen = [b for b in bounds if b.guarded == guarded and (len(b.expr.terms) > 1) == several]
            for _ in range(len(indices) if several else 1):
                missing = [v for v, size in enumerate(extents) if size is None]
                for v in missing:
                    extents[v] = _largest(indices[v].name, v, extents, chosen, text)
    for v, extent in enumerate(extents):
        if extent is None:
            raise _unknown(indices, v, bounds, text)
    return tuple(e for e in extents if e is not None)


def _largest(
    name: str, v: int, extents: Sequence[SizeLike | None], bounds: Sequence[Bound], text: str
) -> SizeLike | None:
    """The largest range of v by the reads in which all other indices have theirs; None where there is none."""
    exact: Bound | None = None
    best: tuple[SizeLike, Bound] | None = None
    for bound in bounds:
        c = bound.expr.coefficient(v)
        others = Affine(bound.expr.const, tuple((u, k) for u, k in bound.expr.terms if u != v))
        if not c or any(extents[u] is None for u, _ in others.terms):
            continue
        low, high = range_of(others, tuple(1 if e is None else e for e in extents))
        size = (bound.size - 1 - high if c > 0 else low) // abs(c) + 1
        if isinstance(size, int) and size < 1:
            where = f"{bound.written} in bounds, on an axis of {bound.size}"
            raise ShapeError(f"formula: no index {name} keeps {where}, in {text!r}")
        if bound.expr.variable() == v:
            if exact is not None and exact.size != bound.size:
                ranges = f"{exact.size} in {exact.written} and {bound.size} in {bound.written}"
                raise ShapeError(f"formula: index {name} has different ranges, {ranges}, in {text!r}")
            exact = bound
        if best is None or at_most(size, best[0]):
            best = (size, bound)
        elif not at_most(best[0], size):
            ranges = f"{best[0]} by {best[1].written} and {size} by {bound.written}"
            rule = "neither is known to be the smaller: give it"
            raise ShapeError(f"formula: the range of {name} is {ranges}, and {rule}, in {text!r}")
    return None if best is None else best[0]


def _unknown(indices: Sequence[Index], v: int, bounds: Sequence[Bound], text: str) -> DefinitionError:
    name, hint = indices[v].name, indices[v].hint
    for bound in bounds:
        if bound.expr.coefficient(v):
            others = ", ".join(indices[u].name for u, _ in bound.expr.terms if u != v)
            both = f"the ranges of {name} and {others} cannot all be told from {bound.written}"
            return DefinitionError(f"formula: {both} in {text!r}; give one, as in {hint}")
    rule = f"no operand is read at it; give its range, as in {hint}"
    return DefinitionError(f"formula: index {name} is bound by nothing in {text!r}: {rule}")
