"""The points of a formula's domain: what indices, reads and guards are at each, over the variables that they name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from graphc.errors import IndexRangeError, InternalError
from graphc.graph.formula import Affine, Formula, FromData, Guard, Index, Read
from graphc.graph.sizes import evaluate as size_of
from graphc.structs import dataclass

Array = NDArray[np.generic]
Ints = NDArray[np.int64]


class IndexOutside(IndexRangeError):
    """An index from data outside its axis: which operand holds it, where, and what it is."""

    def __init__(self, operand: int, position: int, value: int, bound: int) -> None:
        super().__init__(f"index {value} at position {position} given; needs 0 <= index < {bound}")
        self.operand, self.position, self.value, self.bound = operand, position, value, bound


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a formula's domain: ``start`` and ``stop`` of every variable, and the sizes."""

    starts: tuple[int, ...]
    stops: tuple[int, ...]
    dims: Mapping[str, int]

    def grid(self, variable: int) -> Ints:
        """The values of a variable, along its own axis."""
        shape = [1] * len(self.stops)
        shape[variable] = -1
        return np.arange(self.starts[variable], self.stops[variable], dtype=np.int64).reshape(shape)

    def affine(self, expr: Affine) -> Ints:
        """The values of an affine expression, over the variables that it names."""
        total: Ints = np.full((1,) * len(self.stops), size_of(expr.const, self.dims), dtype=np.int64)
        for variable, coefficient in expr.terms:
            total = total + coefficient * self.grid(variable)
        return total

    def shape(self) -> tuple[int, ...]:
        """How many points there are of each variable."""
        return tuple(b - a for a, b in zip(self.starts, self.stops, strict=True))


def read_at(read: Read, outer: Sequence[Guard], operands: Sequence[Array], part: Part) -> Array:
    """An operand at a read's indices, 0 where a guard fails; over the variables that the read names.

    outer: the formula's own guards; where one fails the point contributes nothing, and its index may lie outside.
    """
    array = operands[read.operand]
    simple = _view(read, array, part)
    if simple is not None:
        return simple
    mask = mask_of(read.guards, operands, part)
    index = [index_at(i, operands, part) for i in read.index]
    if mask is not None:
        index = [np.where(mask, i, 0) for i in index]
        if not mask.any():
            return np.zeros((1,) * len(part.stops), dtype=array.dtype)
    for axis, i in enumerate(index):
        counts = None if _within(i, array.shape[axis]) else mask_of(outer, operands, part)
        if counts is not None:
            i = index[axis] = np.where(counts, i, 0)
        if not _within(i, array.shape[axis]):
            raise InternalError(
                f"reference: index {i.min()} to {i.max()} of axis {axis} with {array.shape[axis]} elements"
            )
    if not index:
        value: Array = array.reshape((1,) * len(part.stops))
    else:
        value = array[tuple(np.broadcast_arrays(*index))]
    return value if mask is None else np.where(mask, value, np.zeros((), dtype=array.dtype))


def _within(index: Ints, size: int) -> bool:
    return index.size == 0 or bool(0 <= index.min() and index.max() < size)


def _view(read: Read, array: Array, part: Part) -> Array | None:
    """A read at plain, distinct variables (or constants) and without guards, as a view; else None."""
    if read.guards or not read.index:
        return None
    picks: list[slice | int] = []
    order: list[int] = []
    for index in read.index:
        if not isinstance(index, Affine):
            return None
        variable = index.variable()
        if not index.terms:
            picks.append(size_of(index.const, part.dims))
        elif variable is not None and variable not in order:
            if part.stops[variable] > array.shape[len(picks)]:
                return None
            picks.append(slice(part.starts[variable], part.stops[variable]))
            order.append(variable)
        else:
            return None
    value = array[tuple(picks)]
    value = np.transpose(value, [order.index(v) for v in sorted(order)])
    shape = [1] * len(part.stops)
    for v in order:
        shape[v] = part.stops[v] - part.starts[v]
    return value.reshape(shape)


def index_at(index: Index, operands: Sequence[Array], part: Part) -> Ints:
    """The values of an index, affine or from data."""
    if isinstance(index, Affine):
        return part.affine(index)
    return _data(index, operands, part)


def _data(data: FromData, operands: Sequence[Array], part: Part) -> Ints:
    """The values of an index from data. One looked up outside its array is some value of it: the point is guarded."""
    array = operands[data.operand]
    if not data.index:
        return array.astype(np.int64).reshape((1,) * len(part.stops))
    where = np.broadcast_arrays(*[part.affine(i) for i in data.index])
    inside = [np.clip(w, 0, n - 1) for w, n in zip(where, array.shape, strict=True)]
    return np.asarray(array[tuple(inside)], dtype=np.int64)


def check_data(formula: Formula, operands: Sequence[Array], part: Part) -> None:
    """Raises IndexOutside where an index from data that a point uses lies outside its axis."""
    uses: list[tuple[FromData, tuple[Guard, ...]]] = [(g.data, ()) for g in formula.guards if g.data]
    uses += [(w, formula.guards) for w in formula.write if isinstance(w, FromData)]
    for read in formula.reads:
        guards = formula.guards + read.guards
        uses += [(i, guards) for i in read.index if isinstance(i, FromData)]
        uses += [(g.data, formula.guards) for g in read.guards if g.data]
    for data, guards in uses:
        bound = size_of(data.bound, part.dims)
        values = _data(data, operands, part)
        bad = (values < 0) | (values >= bound)
        mask = mask_of(tuple(g for g in guards if g.data is None), operands, part)
        if mask is not None:
            values, bad = np.broadcast_arrays(values, bad & mask)
        if bad.any():
            worst = int(np.argmax(bad.ravel()))
            held = list(operands)
            held[data.operand] = np.arange(operands[data.operand].size).reshape(operands[data.operand].shape)
            where = np.broadcast_to(_data(data, held, part), bad.shape).ravel()[worst]
            raise IndexOutside(data.operand, int(where), int(values.ravel()[worst]), bound)


def mask_of(guards: Sequence[Guard], operands: Sequence[Array], part: Part) -> NDArray[np.bool_] | None:
    """Where all guards hold; None without guards."""
    mask: NDArray[np.bool_] | None = None
    for guard in guards:
        value = part.affine(guard.expr)
        if guard.kind == "ge":
            holds = value >= 0
        elif guard.kind == "div":
            holds = value % guard.divisor == 0
        else:
            holds = value == (_data(guard.data, operands, part) if guard.data else 0)
        mask = holds if mask is None else mask & holds
    return mask
