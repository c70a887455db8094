"""The memory plan: where in the arena each temporary lies.

Buffers whose lives do not overlap share a slot, but only with a slot no smaller for every batch (sizes are polynomials;
their coefficients are compared). A slot may grow to hold a buffer that is provably larger. Largest first would pack
tighter for one batch size; order of birth keeps the plan the same for all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from heapq import heappop, heappush

from graphc.graph.sizes import SizeLike, at_most
from graphc.kernels.form import Nest, Program
from graphc.structs import replace

ALIGNMENT_BYTES = 64


def place(program: Program) -> Program:
    """The program with a slot for every buffer of role temp or output. Outputs live to the end and share with nothing
    after.
    """
    born, dies = lives(program)
    order = sorted(born, key=lambda b: (born[b], b))
    panels = {k.scratch for k in program.kernels if isinstance(k, Nest)}
    slots: list[SizeLike] = []
    slot = [-1] * len(program.buffers)
    # Panels come first and share among themselves alone: not all of a panel is written at every size, and the planned
    # end of the arena is to be an end that is reached.
    for group in ([k for k in order if k in panels], [k for k in order if k not in panels]):
        _share(program, group, born, dies, slot, slots)
    return replace(program, slot=tuple(slot), slots=tuple(slots))


def _share(
    program: Program,
    group: Sequence[int],
    born: Mapping[int, int],
    dies: Mapping[int, int],
    slot: list[int],
    slots: list[SizeLike],
) -> None:
    """Gives each buffer of a group, in order of birth, a slot that is free or new: written into ``slot``, ``slots``."""
    free: dict[SizeLike, list[int]] = {}  # the free slots of each size
    busy: list[tuple[int, int]] = []  # last kernel and slot of those in use
    for k in group:
        while busy and busy[0][0] < born[k]:
            released = heappop(busy)[1]
            free.setdefault(slots[released], []).append(released)
        buffer = program.buffers[k]
        size = buffer.size * buffer.dtype.itemsize
        fitting = _fitting(free, size)
        if fitting is None:
            slot[k] = len(slots)
            slots.append(size)
        else:
            slot[k] = free[fitting].pop()
            if not free[fitting]:
                del free[fitting]
            if at_most(fitting, size):
                slots[slot[k]] = size
        heappush(busy, (dies[k], slot[k]))


def n_panels(program: Program) -> int:
    """How many of the first slots hold panels, of which each member of a team has its own."""
    panels = [k.scratch for k in program.kernels if isinstance(k, Nest) and k.scratch >= 0]
    return 1 + max((program.slot[k] for k in panels), default=-1)


def lives(program: Program) -> tuple[dict[int, int], dict[int, int]]:
    """For each buffer in the arena the first kernel that writes it and the last that names it (the end, for
    outputs).
    """
    born: dict[int, int] = {}
    dies: dict[int, int] = {}
    for position, kernel in enumerate(program.kernels):
        scratch = (kernel.scratch,) if isinstance(kernel, Nest) and kernel.scratch >= 0 else ()
        for k in (*kernel.writes(), *kernel.reads(), *scratch):
            if program.buffers[k].role in ("temp", "output"):
                born.setdefault(k, position)
                dies[k] = position
    for _, k in program.outputs:
        if program.buffers[k].role in ("temp", "output"):
            born.setdefault(k, 0)
            dies[k] = len(program.kernels)
    return born, dies


def _fitting(free: Mapping[SizeLike, Sequence[int]], size: SizeLike) -> SizeLike | None:
    """The size of the free slot that wastes least: the smallest that holds ``size``, else the largest that may grow."""
    if size in free:
        return size
    best: SizeLike | None = None
    for known in free:
        if at_most(size, known) and (best is None or at_most(known, best)):
            best = known
    if best is not None:
        return best
    for known in free:
        if at_most(known, size) and (best is None or at_most(best, known)):
            best = known
    return best
