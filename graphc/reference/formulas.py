"""The value of one formula, over grids of index variables that broadcast: an operand is held only over the variables
that it depends on. Domains too large to hold are cut along one variable.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from graphc.errors import InternalError, ShapeError
from graphc.graph.dtypes import DType, float64
from graphc.graph.formula import Affine, Formula
from graphc.graph.primitives import PRIMITIVES
from graphc.graph.scalar import Body, Instr, const_value
from graphc.graph.sizes import Size
from graphc.graph.sizes import evaluate as size_of
from graphc.ops.combiners import COMBINERS
from graphc.reference.points import Array, Ints, Part, check_data, index_at, mask_of, read_at
from graphc.structs import dataclass, replace

LARGEST = 1 << 22  # points held at once


@dataclass(frozen=True, slots=True)
class Mode:
    """How to compute: float32 in float64, or as it is."""

    dtype64: bool = False

    def type(self, dtype: DType) -> DType:
        """The type that values of ``dtype`` are computed in."""
        return float64 if self.dtype64 and dtype.kind == "f" else dtype

    def array(self, value: Array, dtype: DType) -> Array:
        """``value`` in that type."""
        return np.asarray(value).astype(self.type(dtype).numpy, copy=False)


AS_IT_IS = Mode()


def evaluate_formula(
    formula: Formula,
    operands: Sequence[Array],
    dims: Mapping[str, int],
    mode: Mode = AS_IT_IS,
    sizes: Sequence[Array] | None = None,
) -> Array:
    """The result of one formula; with ``sizes``, the magnitudes of its operands, that of the result.

    Raises: IndexRangeError for an index from data outside its axis.
    """
    if sizes is not None and formula.combine == "min":
        formula = replace(formula, combine="max")  # of magnitudes the largest bounds either
    extents = tuple(size_of(e, dims) for e in formula.extents)
    shape = tuple(size_of(s, dims) for s in formula.shape)
    if any(e < 0 for e in extents + shape):
        raise ShapeError(f"sizes {formula.extents} are {extents} with {dict(dims)}; needs at least 0 of each")
    check_data(formula, operands, Part((0,) * len(extents), extents, dims))
    dtype = mode.type(formula.dtype)
    with np.errstate(all="ignore"):
        quick = None if sizes is not None else _einsum(formula, operands, extents, dtype)
        if quick is not None:
            return quick
        identity = COMBINERS[formula.combine].identity(formula.dtype)
        result: Array = np.full(shape, identity, dtype=dtype.numpy)
        cut = _cut(formula, extents)
        step = extents[cut] if extents else 1
        if math.prod(extents) > LARGEST and formula.combine not in ("argmax", "argmin"):
            step = max(1, step * LARGEST // math.prod(extents))
        for start in range(0, extents[cut] if extents else 1, max(step, 1)):
            starts, stops = [0] * len(extents), list(extents)
            if extents:
                starts[cut], stops[cut] = start, min(start + step, extents[cut])
            part = Part(tuple(starts), tuple(stops), dims)
            value = _points(formula, operands, part, mode, sizes).astype(
                mode.type(formula.body.dtype).numpy, copy=False
            )
            _join(formula, operands, part, value, result, identity)
    return result


def _cut(formula: Formula, extents: tuple[int, ...]) -> int:
    """The variable along which a large domain is cut: the longest, of several the first."""
    return max(range(len(extents)), key=lambda v: (extents[v], -v), default=0)


def _points(
    formula: Formula, operands: Sequence[Array], part: Part, mode: Mode, sizes: Sequence[Array] | None
) -> Array:
    """The body at every point of the part, over the variables that it depends on."""
    reads = {k: read_at(formula.reads[k], formula.guards, operands, part) for k in formula.body.reads()}
    exact = _body(formula.body, reads, part, mode)
    if sizes is None:
        return exact[-1]
    bounds = {k: read_at(formula.reads[k], formula.guards, sizes, part) for k in reads}
    return _magnitude(formula.body, bounds, exact)[-1]


def _body(body: Body, reads: Mapping[int, Array], part: Part, mode: Mode) -> list[Array]:
    values: list[Array] = []
    for instr in body.instrs:
        if instr.op in PRIMITIVES:
            value = np.asarray(PRIMITIVES[instr.op].numpy(*[values[a] for a in instr.args]))
        elif instr.op == "cast":
            value = _cast(values[instr.args[0]], mode.type(instr.dtype))
        else:
            value = _source(instr, reads, part)
        values.append(mode.array(value, instr.dtype))
    return values


def _cast(value: Array, dtype: DType) -> Array:
    return value != 0 if dtype.kind == "b" else value.astype(dtype.numpy)


def _source(instr: Instr, reads: Mapping[int, Array], part: Part) -> Array:
    ones = (1,) * len(part.stops)
    if instr.op == "read" and isinstance(instr.attr, int):
        return reads[instr.attr]
    if instr.op == "const":
        return np.asarray(const_value(instr)).reshape(ones)
    if instr.op == "index" and isinstance(instr.attr, int):
        return part.grid(instr.attr)
    if instr.op == "size" and isinstance(instr.attr, (int, Size)):
        return np.asarray(size_of(instr.attr, part.dims), np.int64).reshape(ones)
    raise InternalError(f"reference: a body with {instr.op}")


def _magnitude(body: Body, reads: Mapping[int, Array], exact: list[Array]) -> list[Array]:
    """For each instruction its value with sums and differences taken over absolute values."""
    result: list[Array] = []
    for instr, value in zip(body.instrs, exact, strict=True):
        args = [result[a] for a in instr.args]
        if instr.dtype.kind != "f":
            size = value
        elif instr.op == "read" and isinstance(instr.attr, int):
            size = reads[instr.attr]
        elif instr.op in ("add", "sub"):
            size = np.add(args[0], args[1])
        elif instr.op == "mul":
            size = np.multiply(args[0], args[1])
        elif instr.op == "div":
            size = np.divide(args[0], np.abs(exact[instr.args[1]]))
        elif instr.op in ("neg", "abs") or (instr.op == "cast" and body.instrs[instr.args[0]].dtype.kind == "f"):
            size = args[0]
        elif instr.op == "where":
            size = np.where(args[0], args[1], args[2])
        else:
            size = np.abs(value)
        result.append(np.asarray(size))
    return result


def _join(
    formula: Formula, operands: Sequence[Array], part: Part, value: Array, result: Array, identity: float | int | bool
) -> None:
    """Combines the points of a part into ``result``, in place."""
    mask = mask_of(formula.guards, operands, part)
    if mask is not None:
        value = np.where(mask, value, np.asarray(identity, dtype=value.dtype))
    full = part.shape()
    if not formula.is_plain():
        target = tuple(np.broadcast_to(index_at(w, operands, part), full) for w in formula.write)
        full_value = np.broadcast_to(value, full)
        if mask is not None:
            chosen = np.broadcast_to(mask, full)
            target, full_value = tuple(t[chosen] for t in target), full_value[chosen]
        _scatter(formula.combine, result, target, full_value)
        return
    rank = len(formula.write)
    axes = formula.reduced()
    place = tuple(slice(a, b) for a, b in zip(part.starts[:rank], part.stops[:rank], strict=True))
    if not axes and formula.combine not in ("argmax", "argmin"):
        result[place] = np.broadcast_to(value, full)
        return
    combined = _combine(formula, value, full, axes)
    if formula.combine in ("argmax", "argmin"):
        result[place] = combined
        return
    joined = COMBINERS[formula.combine].numpy
    assert joined is not None
    result[place] = joined(np.stack([result[place], combined]), axis=0)


def _combine(formula: Formula, value: Array, full: tuple[int, ...], axes: tuple[int, ...]) -> Array:
    rank = len(formula.write)
    if formula.combine in ("argmax", "argmin"):
        spread = np.broadcast_to(value, full)
        find = np.argmax if formula.combine == "argmax" else np.argmin
        return np.asarray(find(spread, axis=rank) if axes else np.zeros(full, np.int64))
    spread = np.broadcast_to(value, np.broadcast_shapes(value.shape, (1,) * rank + full[rank:]))
    combiner = COMBINERS[formula.combine].numpy
    assert combiner is not None
    if formula.combine == "logsumexp":
        peak = np.max(spread, axis=axes, keepdims=True, initial=-np.inf)
        shift = np.where(np.isfinite(peak), peak, 0)
        total = np.log(np.sum(np.exp(spread - shift), axis=axes, keepdims=True)) + shift
        joined = total.reshape(total.shape[:rank])
    elif formula.combine == "sum" and value.dtype.kind != "b":
        joined = np.sum(spread, axis=axes, dtype=value.dtype)
    elif formula.combine == "prod":
        joined = np.multiply.reduce(spread, axis=axes, dtype=value.dtype)
    elif formula.combine in ("max", "min"):
        worst = COMBINERS[formula.combine].identity(formula.body.dtype)
        joined = (np.max if formula.combine == "max" else np.min)(spread, axis=axes, initial=worst)
    else:
        joined = combiner(spread, axis=axes)
    return np.broadcast_to(joined, full[:rank])


def _scatter(combine: str, result: Array, target: tuple[Ints, ...], value: Array) -> None:
    ufuncs = {"sum": np.add, "prod": np.multiply, "max": np.maximum, "min": np.minimum, "logsumexp": np.logaddexp}
    if not target:
        place: tuple[()] = ()
        for single in value.ravel():
            result[place] = ufuncs[combine](result[place], single)
        return
    ufuncs[combine].at(result, target, value)


def _einsum(formula: Formula, operands: Sequence[Array], extents: tuple[int, ...], dtype: DType) -> Array | None:
    """A plain sum of products at plain indices through ``np.einsum``; None where the formula is none."""
    body = formula.body
    products = all(i.op in ("read", "mul") and i.dtype == body.dtype for i in body.instrs)
    if formula.combine != "sum" or formula.guards or not formula.is_plain() or not products or dtype.kind != "f":
        return None
    used: dict[int, list[int]] = {}
    for position, instr in enumerate(body.instrs):
        if instr.op == "read" and isinstance(instr.attr, int):
            used[position] = [instr.attr]
        else:
            used[position] = used[instr.args[0]] + used[instr.args[1]]
        if len(used[position]) > 6:
            return None
    factors = used[len(body.instrs) - 1]
    arrays: list[NDArray[np.float64]] = []
    names: list[str] = []
    named: dict[int, bool] = {}
    for k in factors:
        read = formula.reads[k]
        array = operands[read.operand]
        if read.guards or any(not isinstance(i, Affine) for i in read.index):
            return None
        letters = ""
        picks: list[slice | int] = []
        for i in read.index:
            variable = i.variable() if isinstance(i, Affine) else None
            if isinstance(i, Affine) and i.const == 0 and not i.terms:
                picks.append(0)
            elif variable is not None:
                picks.append(slice(0, extents[variable]))
                letters += chr(ord("a") + variable)
                named[variable] = True
            else:
                return None
        arrays.append(array[tuple(picks)].astype(dtype.numpy, copy=False))
        names.append(letters)
    if len(named) < len(formula.extents) or len(formula.extents) > 20:
        return None
    result = "".join(chr(ord("a") + v) for v in range(len(formula.write)))
    value = np.einsum(f"{','.join(names)}->{result}", *arrays, optimize=len(factors) > 1)
    return np.asarray(value, dtype=dtype.numpy)
