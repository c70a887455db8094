"""The loop form in NumPy: the oracle of what is emitted.

Every point of a nest is computed before anything is stored, so a nest may load an element that it stores only at the
very place where it stores it; any other overlap is refused. Temporaries lie in the arena, filled with a pattern
beforehand, and so is a panel by the nest that has it, so a wrong memory plan gives wrong values here too.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from graphc.errors import IndexRangeError, InternalError, NonFiniteError
from graphc.graph.dtypes import DType
from graphc.graph.formula import Affine
from graphc.graph.primitives import PRIMITIVES
from graphc.graph.scalar import Instr, const_value
from graphc.graph.sizes import Size, SizeLike
from graphc.graph.sizes import evaluate as size_of
from graphc.kernels.form import (
    Access,
    Buffer,
    Code,
    Condition,
    FiniteCheck,
    Flat,
    IndexCheck,
    Kernel,
    Nest,
    Program,
    Reduction,
    Store,
)
from graphc.kernels.split import divided_level
from graphc.ops.combiners import COMBINERS
from graphc.structs import dataclass

Array = NDArray[np.generic]
Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]

PATTERN = 0xA5  # every byte of the arena before the first kernel


def run(
    program: Program, arrays: Mapping[str, Array], dims: Mapping[str, int], members: Sequence[int] = (0,)
) -> dict[str, Array]:
    """The outputs of a placed program by name; parameters, states and counts are written in place.

    arrays: one C-contiguous array for each input, hyper, param, state and count, by name. dims: the run-time sizes.
    members: of a team, in the order in which each does all that lies between two waits. Any order gives the same.

    Raises: IndexRangeError or NonFiniteError where a check fails, InternalError for a malformed program.
    """
    memory = _memory(program, arrays, dims)
    with np.errstate(all="ignore"):
        for together in _between_waits(program):
            for member in members:
                for kernel in together:
                    _share(program, kernel, memory, dims, member, len(members))
    return {name: _shaped(program.buffers[k], memory[k], dims).copy() for name, k in program.outputs}


def _between_waits(program: Program) -> Iterator[list[Kernel]]:
    """The kernels that members run without waiting for each other."""
    together: list[Kernel] = []
    for kernel, wait in zip(program.kernels, program.waits, strict=True):
        if wait:
            yield together
            together = []
        together.append(kernel)
    yield together


def _share(
    program: Program, kernel: Kernel, memory: Sequence[Array], dims: Mapping[str, int], member: int, members: int
) -> None:
    """What one member of a team does of a kernel; where the cuts lie is free."""
    level = divided_level(kernel) if members > 1 else -1
    if isinstance(kernel, Nest) and kernel.scratch >= 0:
        memory[kernel.scratch].view(np.uint8)[:] = PATTERN
    if isinstance(kernel, Nest) and kernel.schedule.block:
        _blocks(program, kernel, memory, dims, member, members)
    elif isinstance(kernel, Nest) and level >= 0:
        variable = kernel.schedule.order[level]
        extent = size_of(kernel.extents[variable], dims)
        first, last = (extent * m // members for m in (member, member + 1))
        if first < last:
            _nest(Place(kernel, program.buffers, memory, dims, (variable, first, last)))
    elif member != 0:
        return
    elif isinstance(kernel, Nest):
        _nest(Place(kernel, program.buffers, memory, dims))
    elif isinstance(kernel, IndexCheck):
        _index_check(kernel, memory[kernel.buffer], dims)
    else:
        _finite_check(kernel, memory[kernel.buffer])


def _blocks(
    program: Program, nest: Nest, memory: Sequence[Array], dims: Mapping[str, int], member: int, members: int
) -> None:
    """What one member does of a nest whose sums go in blocks: each block's results lie behind those of the last."""
    variable, block = nest.n_out, nest.schedule.block
    extent = size_of(nest.extents[variable], dims)
    elements = math.prod(size_of(size, dims) for size in nest.extents[:variable])
    count = -(-extent // block)
    for k in range(count * member // members, count * (member + 1) // members):
        own = list(memory)
        for buffer in {s.access.buffer for s in nest.stores}:
            own[buffer] = memory[buffer][k * elements : (k + 1) * elements]
        _nest(Place(nest, program.buffers, own, dims, (variable, k * block, min(extent, (k + 1) * block))))


def _memory(program: Program, arrays: Mapping[str, Array], dims: Mapping[str, int]) -> list[Array]:
    """The flat array of every buffer."""
    offsets, total = program.arena.offsets(dims)
    arena = np.full(total, PATTERN, np.uint8)
    flat: list[Array] = []
    for k, buffer in enumerate(program.buffers):
        n_bytes = size_of(buffer.size, dims) * buffer.dtype.itemsize
        if buffer.value is not None:
            flat.append(buffer.value.array().reshape(-1))
        elif buffer.role in ("temp", "output"):
            slot = program.slot[k]
            room = size_of(program.arena.slots[slot], dims)
            if n_bytes > room:
                raise InternalError(f"evaluate: {buffer.name} takes {n_bytes} bytes of a slot of {room}")
            flat.append(arena[offsets[slot] : offsets[slot] + n_bytes].view(buffer.dtype.numpy))
        else:
            given = arrays[buffer.name]
            if given.nbytes != n_bytes or given.dtype != buffer.dtype.numpy or not given.flags.c_contiguous:
                raise InternalError(f"evaluate: {buffer.name} is {given.dtype} {given.shape}; needs {buffer.shape}")
            flat.append(given.reshape(-1))
    return flat


def _shaped(buffer: Buffer, flat: Array, dims: Mapping[str, int]) -> Array:
    return flat.reshape(tuple(size_of(s, dims) for s in buffer.shape))


@dataclass(frozen=True, slots=True)
class Place:
    """A nest with the memory and sizes that it runs on. part: a variable and the first and end of the points of it that
    are computed; -1 for all points."""

    nest: Nest
    buffers: Sequence[Buffer]
    memory: Sequence[Array]
    dims: Mapping[str, int]
    part: tuple[int, int, int] = (-1, 0, 0)

    def size(self, size: SizeLike) -> int:
        """A size's value."""
        return size_of(size, self.dims)

    def extents(self) -> tuple[int, ...]:
        """The points along each variable."""
        return tuple(len(self.points(v)) for v in range(len(self.nest.extents)))

    def points(self, variable: int) -> range:
        """The values of a variable."""
        chosen, first, last = self.part
        return range(first, last) if variable == chosen else range(self.size(self.nest.extents[variable]))

    def grid(self, variable: int) -> Ints:
        """The values of a variable along its own axis."""
        shape = [1] * len(self.nest.extents)
        shape[variable] = -1
        points = self.points(variable)
        return np.arange(points.start, points.stop, dtype=np.int64).reshape(shape)

    def constant(self, value: SizeLike) -> Ints:
        """A size as a grid of one point."""
        return np.full((1,) * len(self.nest.extents), self.size(value), np.int64)

    def affine(self, expr: Affine) -> Ints:
        """The values of a guard's expression."""
        total = self.constant(expr.const)
        for variable, coefficient in expr.terms:
            total = total + coefficient * self.grid(variable)
        return total

    def flat(self, flat: Flat) -> Ints:
        """The offsets of an address, without its data terms."""
        total = self.constant(flat.const)
        for variable, stride in flat.terms:
            total = total + self.size(stride) * self.grid(variable)
        return total

    def element(self, buffer: int, at: Ints, mask: Mask | None = None) -> Array:
        """The elements at offsets, 0 outside the mask. Raises InternalError for one outside the buffer."""
        flat = self.memory[buffer]
        if mask is not None:
            at, mask = np.broadcast_arrays(at, mask)
            at = np.where(mask, at, 0)
            if not mask.any():
                return np.zeros(at.shape, flat.dtype)
        if at.size and not 0 <= at.min() <= at.max() < flat.size:
            name = self.buffers[buffer].name
            raise InternalError(f"evaluate: {self.nest.name} reads {name} at {at.min()}..{at.max()} of {flat.size}")
        found: Array = flat[at]
        return found if mask is None else np.where(mask, found, np.zeros((), flat.dtype))

    def holds(self, guards: Sequence[Condition]) -> Mask | None:
        """Where all guards hold; None without guards."""
        result: Mask | None = None
        for guard in guards:
            value = self.affine(guard.expr)
            if guard.kind == "ge":
                one = value >= 0
            elif guard.kind == "div":
                one = value % guard.divisor == 0
            elif guard.data is None:
                one = value == 0
            else:
                one = value == self.element(guard.data[0], self.flat(guard.data[1])).astype(np.int64)
            result = one if result is None else result & one
        return result

    def offsets(self, access: Access) -> Ints:
        """The offsets of an access, its indices from data included."""
        at = self.flat(access.flat)
        for term in access.data:
            found = self.element(term.buffer, self.flat(term.at)).astype(np.int64)
            at = at + self.size(term.stride) * found
        return at

    def load(self, access: Access) -> Array:
        """The values of an access at every point that it moves with."""
        return self.element(access.buffer, self.offsets(access), self.holds(access.guards))


def _nest(place: Place) -> None:
    nest = place.nest
    _overlaps(nest)
    full = place.extents()
    values = _code(place, nest.body, [])
    mask = place.holds(nest.guards)
    results = [_reduced(nest, r, values, mask, full) for r in nest.reductions]
    inner = [(s, place.offsets(s.access), place.holds(s.access.guards), values[s.value]) for s in nest.inner]
    after = _code(place, nest.post, results)
    shape = full[: nest.n_out] + (1,) * (len(full) - nest.n_out)
    ready = [(s, place.offsets(s.access), place.holds(s.access.guards), after[s.value]) for s in nest.stores]
    for store, at, condition, value in inner:
        _store(place, store, at, condition, value, full)
    for store, at, condition, value in ready:
        _store(place, store, at, condition, value, shape)


def _overlaps(nest: Nest) -> None:
    """Raises InternalError where a nest loads what another of its points stores."""
    for store in (*nest.inner, *nest.stores):
        for load in nest.loads:
            if load.buffer == store.access.buffer and (store.add or load.flat != store.access.flat or load.data):
                raise InternalError(f"evaluate: {nest.name} loads buffer {load.buffer} elsewhere than it stores it")


def _code(place: Place, code: Code, accumulators: Sequence[Array]) -> list[Array]:
    values: list[Array] = []
    for instr in code.instrs:
        values.append(np.asarray(_instruction(place, instr, values, accumulators)).astype(instr.dtype.numpy))
    return values


def _instruction(place: Place, instr: Instr, values: Sequence[Array], accumulators: Sequence[Array]) -> Array:
    args = [values[a] for a in instr.args]
    if instr.op in PRIMITIVES:
        return PRIMITIVES[instr.op].numpy(*args)
    if instr.op == "cast":
        return _cast(args[0], instr.dtype)
    if instr.op == "const":
        return np.full((1,) * len(place.nest.extents), const_value(instr))
    if instr.op == "size" and isinstance(instr.attr, (int, Size)):
        return place.constant(instr.attr)
    if isinstance(instr.attr, int):
        if instr.op == "read":
            return place.load(place.nest.loads[instr.attr])
        if instr.op == "index":
            return place.grid(instr.attr)
        if instr.op == "acc":
            return accumulators[instr.attr]
    raise InternalError(f"evaluate: {place.nest.name} holds {instr.op}")


def _cast(value: Array, dtype: DType) -> Array:
    """Floats to integers towards zero, saturating, NaN to 0; anything to bool by != 0."""
    if dtype.kind == "b":
        truth: Array = np.not_equal(value, 0)
        return truth
    if dtype.kind == "i" and value.dtype.kind == "f":
        limits = np.iinfo(dtype.numpy)
        whole = np.trunc(np.nan_to_num(value.astype(np.float64), nan=0.0, posinf=np.inf, neginf=-np.inf))
        low, high = whole <= float(limits.min), whole >= float(limits.max)  # the latter rounds up for int64
        inside = np.where(low | high, 0.0, whole).astype(dtype.numpy)
        found: Array = np.where(low, limits.min, np.where(high, limits.max, inside)).astype(dtype.numpy)
        return found
    return value.astype(dtype.numpy)


def _reduced(
    nest: Nest, reduction: Reduction, values: Sequence[Array], mask: Mask | None, full: tuple[int, ...]
) -> Array:
    """A reduction's result at every output point, its reduced axes kept with one point."""
    value = np.broadcast_to(values[reduction.value], full)
    axes = nest.reduced
    ones = (1,) * len(axes)
    if reduction.combine in ("argmax", "argmin"):
        if len(axes) != 1 or mask is not None:
            raise InternalError(f"evaluate: {nest.name}: {reduction.combine} over {len(axes)} axes")
        find = np.argmax if reduction.combine == "argmax" else np.argmin
        return np.asarray(find(value, axis=axes[0])).reshape(full[: nest.n_out] + ones)
    combiner = COMBINERS[reduction.combine]
    identity = np.asarray(combiner.identity(reduction.dtype)).astype(value.dtype)
    if mask is not None:
        value = np.where(mask, value, identity)
    if not math.prod(full):
        return np.full(full[: nest.n_out] + ones, identity)
    if reduction.combine in ("sum", "prod"):
        join = np.add if reduction.combine == "sum" else np.multiply
        total = join.reduce(value, axis=axes, dtype=reduction.dtype.numpy)
    else:
        assert combiner.numpy is not None
        total = combiner.numpy(value, axis=axes)
    return np.asarray(total).reshape(full[: nest.n_out] + ones)


def _store(place: Place, store: Store, at: Ints, mask: Mask | None, value: Array, shape: tuple[int, ...]) -> None:
    target = place.memory[store.access.buffer]
    at, value = np.broadcast_to(at, shape).reshape(-1), np.broadcast_to(value, shape).reshape(-1)
    if mask is not None:
        chosen = np.broadcast_to(mask, shape).reshape(-1)
        at, value = at[chosen], value[chosen]
    if at.size and not 0 <= at.min() <= at.max() < target.size:
        name = place.buffers[store.access.buffer].name
        raise InternalError(f"evaluate: {place.nest.name} writes {name} at {at.min()}..{at.max()} of {target.size}")
    if store.add:
        np.add.at(target, at, value)
    else:
        target[at] = value


def _index_check(check: IndexCheck, flat: Array, dims: Mapping[str, int]) -> None:
    bound = size_of(check.bound, dims)
    bad = np.flatnonzero(np.less(flat, 0) | np.greater_equal(flat, bound))
    if bad.size:
        place = int(bad[0])
        raise IndexRangeError(check.message.format(value=int(flat[place]), position=place, bound=bound))


def _finite_check(check: FiniteCheck, flat: Array) -> None:
    bad = np.flatnonzero(~np.isfinite(flat))
    if bad.size:
        place = int(bad[0])
        raise NonFiniteError(check.message.format(value=float(flat[place]), position=place, bound=1))
