"""Long sums in blocks, for teams of threads: few elements reduced from many points have nothing else to divide.

Such a nest becomes two. The first reduces each block of points to results of its own; blocks are divided among the
members of a team. The second joins the blocks' results, in order, and does what followed the sum. Where the blocks end
is decided here, once, so the bits do not depend on how many threads there are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from graphc.graph.scalar import Instr
from graphc.graph.sizes import evaluate, product
from graphc.kernels.cost import cost
from graphc.kernels.form import (
    Access,
    Buffer,
    Code,
    Flat,
    Kernel,
    Nest,
    Program,
    Reduction,
    Schedule,
    Store,
    strides,
    used_loads,
)
from graphc.kernels.schedule import nominal, schedule
from graphc.kernels.split import cut_of
from graphc.structs import replace

JOINED = ("sum", "prod", "max", "min", "any", "all")  # what partial results can be joined by
NOMINAL = 4096  # what a run-time size counts for here: a call long enough for a team
LONG_PS = 15_000_000  # a program that is predicted to take less never has a team
MUCH = 3  # a program is worth it where one such sum takes at least this part of its predicted time
LITTLE = 64  # and then other sums too that take this part
BLOCK_PS = 8_000_000  # predicted time of a block of the longest
FEWEST, MOST = 64, 65536  # points of a block
FEW = 4  # turns of a loop that a team divides badly
FEW_ELEMENTS = 1024  # more would cost much to write for each block, above all where there are few points


def in_blocks(program: Program) -> Program:
    """The program with each long sum that no output variable divides well in two nests, where one takes much of its
    time. What joins blocks runs as late as it may, so that members wait for each other once for several."""
    can = [isinstance(k, Nest) and _can(k, program.buffers) for k in program.kernels]
    if not any(can):
        return program
    dims = dict.fromkeys(program.dims, NOMINAL)
    times = [evaluate(row.picoseconds, dims) for row in cost(program).kernels]
    total = sum(times)
    longest = max((k for k, ok in enumerate(can) if ok), key=lambda k: times[k])
    if total < LONG_PS or MUCH * times[longest] < total:
        return program
    size = _block(program.kernels[longest], times[longest], dims)
    buffers, kernels = list(program.buffers), list[Kernel]()
    waiting: list[Nest] = []
    for kernel, ok, time in zip(program.kernels, can, times, strict=True):
        for join in [j for j in waiting if _meet(j, kernel)]:
            waiting.remove(join)
            kernels.append(join)
        if ok and isinstance(kernel, Nest) and LITTLE * time >= total and not _short(kernel, size):
            first, second = _two(kernel, size, buffers)
            kernels.append(first)
            waiting.append(second)
        else:
            kernels.append(kernel)
    return replace(program, buffers=tuple(buffers), kernels=(*kernels, *waiting))


def _meet(join: Nest, kernel: Kernel) -> bool:
    """Whether one of two kernels writes what the other names."""
    written, named = set(join.writes()), {*join.writes(), *join.reads()}
    return bool(written.intersection((*kernel.reads(), *kernel.writes())) or named.intersection(kernel.writes()))


def _can(nest: Nest, buffers: Sequence[Buffer]) -> bool:
    """Whether a nest reduces to so few elements that a team has no use of them, in an order that is free."""
    how = nest.schedule
    if not nest.reduced or not nest.reductions or nest.guards or how.panel != 0:
        return False
    if how.running >= 0 or how.rows >= 0 or how.dots:
        return False
    if nominal(product(nest.extents[: nest.n_out])) > FEW_ELEMENTS:
        return False
    if any(r.combine not in JOINED for r in nest.reductions):
        return False
    cut = cut_of(nest, buffers)
    return cut is None or (isinstance(cut.extent, int) and cut.extent < FEW * cut.turn)


def _block(kernel: Kernel, time: int, dims: Mapping[str, int]) -> int:
    """The points of a block of a nest that takes so long: a power of two, hence whole vectors."""
    assert isinstance(kernel, Nest)
    depth = evaluate(kernel.extents[kernel.n_out], dims)
    size = FEWEST
    while size < MOST and 2 * size * time <= BLOCK_PS * depth:
        size *= 2
    return size


def _short(nest: Nest, block: int) -> bool:
    depth = nest.extents[nest.n_out]
    return isinstance(depth, int) and depth < 2 * block


def _two(nest: Nest, block: int, buffers: list[Buffer]) -> tuple[Nest, Nest]:
    """The nest that reduces blocks and the one that joins them; appends the buffers between them."""
    outer = nest.extents[: nest.n_out]
    count = (nest.extents[nest.n_out] + (block - 1)) // block
    terms = tuple(enumerate(strides(outer)))
    name = buffers[nest.stores[0].access.buffer].name
    stores: list[Store] = []
    between: list[Access] = []
    for k, reduction in enumerate(nest.reductions):
        stores.append(Store(Access(len(buffers), Flat(0, terms)), k))
        size = strides((count, *outer))[0]
        between.append(Access(len(buffers), Flat(0, (*terms, (nest.n_out, size)))))
        buffers.append(Buffer(f"{name}.{nest.name}.part{k}", "temp", reduction.dtype, (count, *outer)))
    owners = tuple(nest.nodes[k : k + 1] for k in range(len(nest.reductions)))
    results = Code(tuple(Instr("acc", (), r.dtype, k) for k, r in enumerate(nest.reductions)), owners)
    how = replace(nest.schedule, block=block, upright=False)  # a block may be too short to be turned back
    first = replace(nest, post=results, stores=tuple(stores), schedule=how)
    parts = Code(tuple(Instr("read", (), r.dtype, len(nest.loads) + k) for k, r in enumerate(nest.reductions)), owners)
    second = replace(
        nest,
        name=f"{nest.name}_join",
        extents=(*outer, count),
        loads=(*nest.loads, *between),
        body=parts,
        reductions=tuple(Reduction(r.combine, k, r.dtype) for k, r in enumerate(nest.reductions)),
        schedule=Schedule(tuple(range(nest.n_out))),
        inner=(),
    )
    return used_loads(first), schedule(used_loads(second), False)
