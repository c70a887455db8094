"""The loop form: kernels over buffers, with their schedule. Plain data, between the graph and LLVM.

A ``Program`` is buffers and kernels in order. A ``Nest`` computes, for every point of its output variables,

    inner_s[...] = value_s at every reduced point                (for each of its inner stores)
    acc_r = combine over the reduced variables of value_r        (for each of its reductions)
    store_s[...] = value_s                                       (for each of its stores)

where the values are positions in two scalar programs over loads: ``body`` runs at every reduced point, ``post`` once an
output point, with the accumulators as ``acc`` instructions. A nest without reductions has an empty body.

Addresses are flat element offsets, affine in the loop variables with sizes as strides, plus strides times indices read
from data. Loads outside their guards read as 0 and touch no memory.
"""

from __future__ import annotations

from collections.abc import Sequence

from graphc.graph.dtypes import DType
from graphc.graph.formula import Affine, Shape
from graphc.graph.graph import ConstValue
from graphc.graph.scalar import Instr
from graphc.graph.sizes import Size, SizeLike, product
from graphc.kernels.arena import Arena
from graphc.structs import dataclass, replace

LANES = {"float32": 16, "float64": 8, "int32": 16, "int64": 8, "bool": 16}
SOURCES = ("const", "size", "index", "acc", "read")  # instructions that compute nothing
NEAR = 8  # elements apart at most that shuffles bring together; a gather is slower


@dataclass(frozen=True, slots=True)
class Buffer:
    """A flat row-major array. role: as in ``layout.Buffer``, or ``const`` with its value. node: whose value it
    holds."""

    name: str
    role: str
    dtype: DType
    shape: Shape
    value: ConstValue | None = None
    node: int = -1

    @property
    def size(self) -> SizeLike:
        """The number of elements."""
        return product(self.shape)


@dataclass(frozen=True, slots=True)
class Flat:
    """``const + sum of stride * variable``, in elements."""

    const: SizeLike
    terms: tuple[tuple[int, SizeLike], ...] = ()

    def stride(self, variable: int) -> SizeLike:
        """The stride of a variable; 0 where it does not occur."""
        for v, s in self.terms:
            if v == variable:
                return s
        return 0


@dataclass(frozen=True, slots=True)
class DataTerm:
    """``stride * buffer[at]``: an index read from data, which a check has found in range."""

    buffer: int
    at: Flat
    stride: SizeLike


@dataclass(frozen=True, slots=True)
class Condition:
    """A guard at loop level: as ``formula.Guard``, with an index from data as a buffer's element."""

    kind: str
    expr: Affine
    divisor: int = 1
    data: tuple[int, Flat] | None = None


@dataclass(frozen=True, slots=True)
class Access:
    """One element of a buffer: ``buffer[flat + data terms]`` where all guards hold."""

    buffer: int
    flat: Flat
    data: tuple[DataTerm, ...] = ()
    guards: tuple[Condition, ...] = ()

    def buffers(self) -> list[int]:
        """The buffer, and those that its address and guards read."""
        guards = [guard.data[0] for guard in self.guards if guard.data is not None]
        return [self.buffer, *(term.buffer for term in self.data), *guards]

    def moves_with(self, variable: int) -> bool:
        """Whether the address or a guard depends on a variable."""
        if self.flat.stride(variable) != 0 or any(d.at.stride(variable) != 0 for d in self.data):
            return True
        return any(
            g.expr.coefficient(variable) or (g.data is not None and g.data[1].stride(variable) != 0)
            for g in self.guards
        )


@dataclass(frozen=True, slots=True)
class Code:
    """A scalar program: instructions in order. ``read`` names a load of the nest, ``acc`` (attr r) a reduction's
    result. owners: for each instruction the graph nodes whose values it computes or, a ``read``, loads.
    """

    instrs: tuple[Instr, ...] = ()
    owners: tuple[tuple[int, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class Reduction:
    """``value``: a position in the body. combine: sum prod max min any all argmax argmin."""

    combine: str
    value: int
    dtype: DType


@dataclass(frozen=True, slots=True)
class Store:
    """``access = value`` (a position in the post program); with ``add`` the element is added to instead. Nothing is
    stored where a guard of the access fails. All loads of a point come before its stores. node: whose value it is."""

    access: Access
    value: int
    add: bool = False
    node: int = -1


@dataclass(frozen=True, slots=True)
class Schedule:
    """How a nest runs.

    order: the output variables from the outermost loop inwards (reduced variables always lie inside, in their order).
    vector: the variable whose points share a vector register, -1 for none; an output variable, or the last reduced one
    (then 16 or 8 partial results are joined by a fixed tree).
    tile: (rows, vectors): for a product, a register tile of ``rows`` points of output variable ``tile_row`` by
    ``vectors`` registers of the vector variable; (1, 1) otherwise.
    panel: elements of scratch memory into which a product copies the right operand's columns of one block of tiles, so
    that they lie together; 0 where they are read in place.
    dots: the most rows of a product whose sums run along the summed variable in vectors: each of a register's worth of
    columns has an accumulator of its own, and a fixed tree joins them to one vector. 0 where all runs in tiles.
    upright: whether a product's sums run with rows in lanes, as many as there are, and an accumulator for each column.
    running: the last output variable where a guard alone ties it to the one reduced variable: each of its points adds
    to the accumulators what the guard admits anew; else -1.
    rows: the last output variable where the vector variable is reduced and the partial results of 16 or 8 of its points
    are joined at once (each by the same tree); else -1.
    block: points of the first reduced variable in a block, where each block stores results of its own, those of one
    block behind those of another (``kernels/blocks.py``); 0 where there are no blocks.
    """

    order: tuple[int, ...]
    vector: int = -1
    tile: tuple[int, int] = (1, 1)
    tile_row: int = -1
    panel: SizeLike = 0
    dots: int = 0
    upright: bool = False
    running: int = -1
    rows: int = -1
    block: int = 0


@dataclass(frozen=True, slots=True)
class Nest:
    """See the module. extents: the output variables, then the reduced ones. nodes: the graph nodes that it computes.
    scratch: the buffer of the schedule's panel, -1 for none; it holds nothing before or after. inner: stores of values
    of the body, each at every point, to an element of its own.
    """

    name: str
    extents: Shape
    n_out: int
    loads: tuple[Access, ...]
    body: Code
    reductions: tuple[Reduction, ...]
    post: Code
    stores: tuple[Store, ...]
    schedule: Schedule
    guards: tuple[Condition, ...] = ()
    nodes: tuple[int, ...] = ()
    scratch: int = -1
    inner: tuple[Store, ...] = ()

    @property
    def reduced(self) -> tuple[int, ...]:
        """The reduced variables."""
        return tuple(range(self.n_out, len(self.extents)))

    def reads(self) -> tuple[int, ...]:
        """The buffers that it reads, ascending."""
        found = {a.buffer for a in self.loads} | {s.access.buffer for s in self.stores if s.add}
        accesses = [*self.loads, *(s.access for s in self.stores)]
        found |= {d.buffer for a in accesses for d in a.data}
        found |= {g.data[0] for a in accesses for g in a.guards if g.data}
        found |= {g.data[0] for g in self.guards if g.data}
        return tuple(sorted(found))

    def writes(self) -> tuple[int, ...]:
        """The buffers that it writes, ascending."""
        return tuple(sorted({s.access.buffer for s in (*self.inner, *self.stores)}))


@dataclass(frozen=True, slots=True)
class IndexCheck:
    """Fails unless ``0 <= element < bound`` for every element of an integer buffer. number: the check's in the
    layout.
    """

    name: str
    buffer: int
    bound: SizeLike
    number: int
    message: str
    source: str
    nodes: tuple[int, ...] = ()

    def reads(self) -> tuple[int, ...]:
        """The buffer that it reads."""
        return (self.buffer,)

    def writes(self) -> tuple[int, ...]:
        """Nothing."""
        return ()


@dataclass(frozen=True, slots=True)
class FiniteCheck:
    """Fails where a float buffer holds a NaN or, unless ``nan_only``, an infinity (``debug=True``)."""

    name: str
    buffer: int
    number: int
    message: str
    source: str
    nodes: tuple[int, ...] = ()
    nan_only: bool = False

    def reads(self) -> tuple[int, ...]:
        """The buffer that it reads."""
        return (self.buffer,)

    def writes(self) -> tuple[int, ...]:
        """Nothing."""
        return ()


Kernel = Nest | IndexCheck | FiniteCheck


@dataclass(frozen=True, slots=True)
class Program:
    """Buffers and kernels in the order they run. dims: the symbolic sizes. outputs: (name, buffer).

    By ``memory.place``: slot: for each buffer its slot of the arena, or -1. waits: whether all members of a team wait
    before each kernel.
    """

    dims: tuple[str, ...]
    buffers: tuple[Buffer, ...]
    kernels: tuple[Kernel, ...]
    outputs: tuple[tuple[str, int], ...]
    slot: tuple[int, ...] = ()
    arena: Arena = Arena()
    waits: tuple[bool, ...] = ()


def used_loads(nest: Nest) -> Nest:
    """The nest without loads that neither program names."""
    used = sorted(
        {i.attr for c in (nest.body, nest.post) for i in c.instrs if i.op == "read" and isinstance(i.attr, int)}
    )
    number = {old: new for new, old in enumerate(used)}

    def code(c: Code) -> Code:
        instrs = (
            replace(i, attr=number[i.attr]) if i.op == "read" and isinstance(i.attr, int) else i for i in c.instrs
        )
        return replace(c, instrs=tuple(instrs))

    return replace(nest, loads=tuple(nest.loads[k] for k in used), body=code(nest.body), post=code(nest.post))


def run_time_sizes(nest: Nest) -> list[Size]:
    """Every run-time size that a nest may need, in order."""
    found: dict[Size, None] = {}

    def note(size: SizeLike) -> None:
        if isinstance(size, Size):
            found[size] = None

    for extent in nest.extents:
        note(extent)
    for access in (*nest.loads, *(s.access for s in (*nest.inner, *nest.stores))):
        for flat in (access.flat, *(d.at for d in access.data), *(g.data[1] for g in access.guards if g.data)):
            note(flat.const)
            for _, stride in flat.terms:
                note(stride)
        for term in access.data:
            note(term.stride)
    note(nest.schedule.panel)
    if nest.schedule.tile_row >= 0:
        note(nest.extents[nest.schedule.vector] - 1)
    for instr in (*nest.body.instrs, *nest.post.instrs):
        if isinstance(instr.attr, Size):
            note(instr.attr)
    guards = [
        *nest.guards,
        *(g for a in nest.loads for g in a.guards),
        *(g for s in nest.stores for g in s.access.guards),
    ]
    for guard in guards:
        note(guard.expr.const)
    return list(found)


def strides(shape: Sequence[SizeLike]) -> tuple[SizeLike, ...]:
    """Row-major strides in elements.

    >>> strides((2, 3, 4))
    (12, 4, 1)
    """
    result: list[SizeLike] = []
    step: SizeLike = 1
    for extent in reversed(shape):
        result.append(step)
        step = step * extent
    return tuple(reversed(result))
