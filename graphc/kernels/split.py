"""How a team of threads shares a program: what of a nest is divided among its members, and before which kernels all of
them wait.

A nest is divided along an output variable, or along the blocks of a long sum (``kernels/blocks.py``), which are the
same for any team: every element is computed by the same additions in the same order whatever the number of members.
"""

from __future__ import annotations

from collections.abc import Sequence

from graphc.graph.sizes import SizeLike
from graphc.kernels.form import LANES, Access, Buffer, Kernel, Nest, Program
from graphc.structs import dataclass


@dataclass(frozen=True, slots=True)
class Cut:
    """A loop that is divided: ``turn`` points of ``variable`` at once, whole turns in equal shares. rest: where the
    points that are left go, to the "first" member or the "last" turn; "" where the program decides at run time what it
    divides, of which this is an example.
    """

    variable: int
    extent: SizeLike
    turn: int
    rest: str = "first"


def divided_level(kernel: Kernel) -> int:
    """The place in the schedule's order of the output variable that is divided; -1 where none is.

    That is the outermost variable that has more than one point. Elements that are added to are not divided (two points
    may meet in one), nor a pass whose points follow from each other. Where the sum goes in blocks these are divided
    instead.
    """
    if not isinstance(kernel, Nest) or kernel.schedule.block or any(store.add for store in kernel.stores):
        return -1
    schedule = kernel.schedule
    order = schedule.order[:-1] if schedule.running >= 0 else schedule.order
    return next((k for k, v in enumerate(order) if kernel.extents[v] != 1), -1)


def lanes_of(nest: Nest, buffers: Sequence[Buffer]) -> int:
    """The elements of a vector in a nest."""
    names = [buffers[s.access.buffer].dtype.name for s in (*nest.inner, *nest.stores)]
    return min(LANES[name] for name in (*names, *(r.dtype.name for r in nest.reductions)))


def cut_of(kernel: Kernel, buffers: Sequence[Buffer]) -> Cut | None:
    """How a kernel is divided; None where one member does it all."""
    if not isinstance(kernel, Nest):
        return None
    how = kernel.schedule
    if how.block:
        return Cut(kernel.n_out, kernel.extents[kernel.n_out], how.block, "last")
    level = divided_level(kernel)
    if level < 0:
        return None
    variable, lanes = how.order[level], lanes_of(kernel, buffers)
    if how.tile_row >= 0 and variable in (how.vector, how.tile_row):
        rows, vectors = how.tile
        columns = kernel.extents[how.vector]
        if variable == how.vector and (not isinstance(columns, int) or columns >= 2 * lanes * vectors):
            return Cut(variable, columns, vectors * lanes, "")
        return Cut(how.tile_row, kernel.extents[how.tile_row], rows, "")
    return Cut(variable, kernel.extents[variable], lanes if variable in (how.vector, how.rows) else 1)


def waits(program: Program) -> list[bool]:
    """Whether all members wait before each kernel: it reads what an earlier one wrote since they last waited, or writes
    what that one read or wrote. Buffers that share a slot of the arena count as one. What a check finds, which one
    member does alone, is looked at behind a wait, and no member is at a later check before all have looked.

    They need not wait where one member does both kernels, nor where both are cut at the same points and each names only
    elements of its own points' rows.
    """
    found: list[bool] = []
    read: Ways = {}
    written: Ways = {}
    checks = False
    for position, kernel in enumerate(program.kernels):
        reads, writes = _ways(program, kernel)
        changes = position > 0 and checks == isinstance(kernel, Nest)
        checks = not isinstance(kernel, Nest)
        wait = changes or _clash(reads, written) or _clash(writes, read) or _clash(writes, written)
        if wait:
            read, written = {}, {}
        for ways, all_ways in ((reads, read), (writes, written)):
            for place, own in ways.items():
                all_ways.setdefault(place, set()).update(own)
        found.append(wait)
    return found


Way = tuple[SizeLike, int, str, int]  # the extent, turn and rest of a cut, and the bytes of a point's row
Ways = dict[tuple[str, int], set[Way | None]]  # of each slot or buffer how members share it, None for in no known way
ALONE: Way = (1, 1, "first", 0)  # one member does it all


def _clash(one: Ways, other: Ways) -> bool:
    """Whether some place is in both, and not shared in one way that is known."""
    return any(place in other and (None in ways or len(ways | other[place]) > 1) for place, ways in one.items())


def _ways(program: Program, kernel: Kernel) -> tuple[Ways, Ways]:
    """How members share what a kernel reads and what it writes."""
    cut = cut_of(kernel, program.buffers)
    alone = cut is None and isinstance(kernel, Nest)

    def ways(numbers: Sequence[int], accesses: Sequence[Access]) -> Ways:
        found: Ways = {}
        for k in numbers:
            slot = program.slot[k] if program.slot else -1
            own = found.setdefault(("slot", slot) if slot >= 0 else ("buffer", k), set())
            rows = {_row(kernel, a, cut) for a in accesses if a.buffer == k}
            for row in rows or {0}:
                size = row * program.buffers[k].dtype.itemsize
                own.add(ALONE if alone else (cut.extent, cut.turn, cut.rest, size) if cut and size else None)
        return found

    if not isinstance(kernel, Nest):
        return ways(kernel.reads(), ()), ways(kernel.writes(), ())
    stores = [s.access for s in kernel.stores]
    named = [*kernel.loads, *stores]
    data = {d.buffer for a in named for d in a.data}
    data |= {g.data[0] for guards in (kernel.guards, *(a.guards for a in named)) for g in guards if g.data}
    plain = [a for a in named if a.buffer not in data]
    # A block's results lie behind each other, which is another way.
    written = [*(s.access for s in kernel.inner), *(() if kernel.schedule.block else stores)]
    return ways(kernel.reads(), plain), ways(kernel.writes(), written)


def _row(kernel: Kernel, access: Access, cut: Cut | None) -> int:
    """The elements of a row, where each point of the divided variable has one: the address of an element over their
    number is the point. 0 where that is not known."""
    if cut is None or not cut.rest or not isinstance(kernel, Nest) or access.flat.const != 0 or access.data:
        return 0
    row, across = access.flat.stride(cut.variable), 0
    for variable, stride in access.flat.terms:
        extent = kernel.extents[variable]
        if not isinstance(stride, int) or stride < 0:
            return 0
        if variable != cut.variable:
            if not isinstance(extent, int):
                return 0
            across += stride * (extent - 1)
    return row if isinstance(row, int) and across < row else 0
