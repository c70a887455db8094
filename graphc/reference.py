"""The reference: runs any graph in NumPy, plainly. It is the oracle for everything compiled.

A formula is evaluated over grids of index variables that broadcast, so an operand is held only over the variables
that it depends on. Domains too large to hold are cut along one variable.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from graphc.errors import IndexRangeError, InputError, InternalError, ShapeError
from graphc.graph.dtypes import DType, float64
from graphc.graph.formula import Affine, Formula, FromData, Guard, Index, Read
from graphc.graph.graph import NAMED, ConstValue, Graph, Node, reachable
from graphc.graph.primitives import PRIMITIVES
from graphc.graph.scalar import Body, Instr, const_value
from graphc.graph.sizes import Size
from graphc.graph.sizes import evaluate as size_of
from graphc.ops.combiners import COMBINERS
from graphc.ops.record import text
from graphc.ops.special import SPECIAL
from graphc.structs import dataclass, replace

Array = NDArray[np.generic]
Ints = NDArray[np.int64]

LARGEST = 1 << 22  # points held at once


def evaluate(
    graph: Graph,
    values: Mapping[str, Array],
    nodes: Sequence[Node] | None = None,
    *,
    dtype64: bool = False,
    absolute: bool = False,
    step_count: int = 0,
    training: bool = False,
) -> dict[Node, Array]:
    """The value of every node that ``nodes`` (by default the graph's outputs and updates) need.

    values: the inputs, parameters, states and hyper-parameters by name; run-time sizes follow from their shapes.
    dtype64: float32 is computed as float64. absolute: instead of values, magnitudes: every term of a formula by its
    absolute value, which bounds what rounding can do to its sum.

    Raises: InputError for a value that is missing, ShapeError for one of another shape, IndexRangeError for an index
    outside its axis.
    """
    live = reachable(graph.roots() if nodes is None else nodes)
    dims = dimensions(live, values)
    mode = Mode(dtype64)
    special: dict[str, Array] = {"count": np.asarray(step_count, np.int64), "training": np.asarray(training)}
    found: dict[Node, Array] = {}
    sizes: dict[Node, Array] = {}
    for node in live:
        if node.kind == "formula":
            inputs = [found[i] for i in node.inputs]
            try:
                found[node] = evaluate_formula(node.formula, inputs, dims, mode)
            except IndexOutside as error:
                raise _explained(graph, node, error) from None
            if absolute and node.dtype.kind == "f":
                sizes[node] = evaluate_formula(
                    node.formula, inputs, dims, mode, [_size(i, found, sizes) for i in node.inputs]
                )
        elif node.kind in SPECIAL:
            found[node] = SPECIAL[node.kind].reference(node, [found[i] for i in node.inputs], dims)
            sizes[node] = SPECIAL[node.kind].reference(node, [_size(i, found, sizes) for i in node.inputs], dims)
        elif isinstance(node.attr, ConstValue):
            found[node] = mode.array(node.attr.array(), node.dtype)
        elif node.kind in NAMED:
            found[node] = mode.array(np.asarray(values[str(node.attr)]), node.dtype)
        elif node.kind in special:
            found[node] = special[node.kind]
        else:
            raise InternalError(f"reference: no value for a {node.kind}")
    return {node: _size(node, found, sizes) for node in found} if absolute else found


def _size(node: Node, found: Mapping[Node, Array], sizes: Mapping[Node, Array]) -> Array:
    """The magnitude of a node's value, by terms where it is a formula."""
    return sizes[node] if node in sizes else np.abs(found[node]) if node.dtype.kind == "f" else found[node]


class IndexOutside(IndexRangeError):
    """An index from data outside its axis: which operand holds it, where, and what it is."""

    def __init__(self, operand: int, position: int, value: int, bound: int) -> None:
        super().__init__(f"index {value} at position {position} given; needs 0 <= index < {bound}")
        self.operand, self.position, self.value, self.bound = operand, position, value, bound


def _explained(graph: Graph, node: Node, error: IndexOutside) -> IndexRangeError:
    """The error in the words of a compiled step's own check: the operation, the index's name, the user's line."""
    origin = next((o for o in graph.origins.get(node, ()) if o.op), None)
    name = graph.name(node.inputs[error.operand]) or "the index"
    message = (
        f"{origin.op if origin else 'index'}: index {error.value} at position {error.position} of {name} given; "
        f"needs 0 <= index < {error.bound}"
    )
    return IndexRangeError(message + (f"\n  {origin.site}" if origin and origin.site else ""))


def dimensions(nodes: Sequence[Node], values: Mapping[str, Array]) -> dict[str, int]:
    """The run-time sizes, from the shapes of the values given.

    Raises: InputError for a value that is missing, ShapeError where shapes do not fit.
    """
    dims: dict[str, int] = {}
    leaves = [n for n in nodes if n.kind in NAMED]
    for node in leaves:
        name = str(node.attr)
        if name not in values:
            raise InputError(f"{node.kind} {name!r} is missing; it needs shape {text(node.shape)}")
        given = np.shape(values[name])
        if len(given) != len(node.shape):
            raise ShapeError(f"{name}: shape {given} given; needs {text(node.shape)}")
        for size, number in zip(node.shape, given, strict=True):
            if isinstance(size, Size) and str(size).isidentifier():
                dims.setdefault(str(size), number)
    for node in leaves:
        given = np.shape(values[str(node.attr)])
        if given != tuple(size_of(s, dims) for s in node.shape):
            known = ", ".join(f"{name} = {number}" for name, number in dims.items())
            raise ShapeError(
                f"{node.attr}: shape {given} given; needs {text(node.shape)}{f' where {known}' if known else ''}"
            )
    return dims


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
    _check_data(formula, operands, Part((0,) * len(extents), extents, dims))
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
    """The variable along which a large domain is cut: the first of the result's axes that is long, else the longest."""
    return max(range(len(extents)), key=lambda v: (extents[v], -v), default=0)


def _points(
    formula: Formula, operands: Sequence[Array], part: Part, mode: Mode, sizes: Sequence[Array] | None
) -> Array:
    """The body at every point of the part, over the variables that it depends on."""
    reads = {k: _read(formula.reads[k], formula.guards, operands, part) for k in formula.body.reads()}
    exact = _body(formula.body, reads, part, mode)
    if sizes is None:
        return exact[-1]
    bounds = {k: _read(formula.reads[k], formula.guards, sizes, part) for k in reads}
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


def _read(read: Read, outer: Sequence[Guard], operands: Sequence[Array], part: Part) -> Array:
    """An operand at a read's indices, 0 where a guard fails; over the variables that the read names.

    outer: the formula's own guards; where one fails the point contributes nothing, and its index may lie outside.
    """
    array = operands[read.operand]
    simple = _view(read, array, part)
    if simple is not None:
        return simple
    mask = _mask(read.guards, operands, part)
    index = [_index(i, operands, part) for i in read.index]
    if mask is not None:
        index = [np.where(mask, i, 0) for i in index]
        if not mask.any():
            return np.zeros((1,) * len(part.stops), dtype=array.dtype)
    for axis, i in enumerate(index):
        counts = None if _within(i, array.shape[axis]) else _mask(outer, operands, part)
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


def _index(index: Index, operands: Sequence[Array], part: Part) -> Ints:
    if isinstance(index, Affine):
        return part.affine(index)
    return _data(index, operands, part)


def _data(data: FromData, operands: Sequence[Array], part: Part) -> Ints:
    array = operands[data.operand]
    if not data.index:
        return array.astype(np.int64).reshape((1,) * len(part.stops))
    where = np.broadcast_arrays(*[part.affine(i) for i in data.index])
    inside = [np.clip(w, 0, n - 1) for w, n in zip(where, array.shape, strict=True)]
    return np.asarray(array[tuple(inside)], dtype=np.int64)


def _check_data(formula: Formula, operands: Sequence[Array], part: Part) -> None:
    """Every index from data that a point uses lies inside its axis."""
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
        mask = _mask(tuple(g for g in guards if g.data is None), operands, part)
        if mask is not None:
            values, bad = np.broadcast_arrays(values, bad & mask)
        if bad.any():
            worst = int(np.argmax(bad.ravel()))
            held = list(operands)
            held[data.operand] = np.arange(operands[data.operand].size).reshape(operands[data.operand].shape)
            where = np.broadcast_to(_data(data, held, part), bad.shape).ravel()[worst]
            raise IndexOutside(data.operand, int(where), int(values.ravel()[worst]), bound)


def _mask(guards: Sequence[Guard], operands: Sequence[Array], part: Part) -> NDArray[np.bool_] | None:
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


def _join(
    formula: Formula, operands: Sequence[Array], part: Part, value: Array, result: Array, identity: float | int | bool
) -> None:
    """Combines the points of a part into ``result``, in place."""
    mask = _mask(formula.guards, operands, part)
    if mask is not None:
        value = np.where(mask, value, np.asarray(identity, dtype=value.dtype))
    full = part.shape()
    if not formula.is_plain():
        target = tuple(np.broadcast_to(_index(w, operands, part), full) for w in formula.write)
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
