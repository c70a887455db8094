"""The memory plan: where in the arena each temporary lies.

Buffers whose lives do not overlap share a slot, but only with a slot no smaller for every batch (sizes are polynomials;
their coefficients are compared). A slot may grow to hold a buffer that is provably larger. Largest first would pack
tighter for one batch size; order of birth keeps the plan the same for all.
"""

from __future__ import annotations

from dataclasses import replace

from graphc.graph.sizes import SizeLike, at_most
from graphc.kernels.form import Program

ALIGNMENT_BYTES = 64


def place(program: Program) -> Program:
    """The program with a slot for every buffer of role temp or output. Outputs live to the end and share with nothing
    after.
    """
    born, dies = lives(program)
    slots: list[SizeLike] = []
    free_from: list[int] = []
    slot = [-1] * len(program.buffers)
    for k in sorted(born, key=lambda b: (born[b], b)):
        buffer = program.buffers[k]
        size = buffer.size * buffer.dtype.itemsize
        choice = _fitting(slots, free_from, born[k], size)
        if choice < 0:
            choice = len(slots)
            slots.append(size)
            free_from.append(0)
        elif at_most(slots[choice], size):
            slots[choice] = size
        slot[k] = choice
        free_from[choice] = dies[k] + 1
    return replace(program, slot=tuple(slot), slots=tuple(slots))


def lives(program: Program) -> tuple[dict[int, int], dict[int, int]]:
    """For each buffer in the arena the first kernel that writes it and the last that names it (the end, for
    outputs).
    """
    born: dict[int, int] = {}
    dies: dict[int, int] = {}
    for position, kernel in enumerate(program.kernels):
        for k in (*kernel.writes(), *kernel.reads()):
            if program.buffers[k].role in ("temp", "output"):
                born.setdefault(k, position)
                dies[k] = position
    for _, k in program.outputs:
        if program.buffers[k].role in ("temp", "output"):
            born.setdefault(k, 0)
            dies[k] = len(program.kernels)
    return born, dies


def _fitting(slots: list[SizeLike], free_from: list[int], when: int, size: SizeLike) -> int:
    """The free slot that wastes least: the smallest that holds ``size``, else the largest that may grow to it; -1 for
    none.
    """
    holds = [s for s in range(len(slots)) if free_from[s] <= when and at_most(size, slots[s])]
    if holds:
        best = holds[0]
        for s in holds[1:]:
            if at_most(slots[s], slots[best]):
                best = s
        return best
    grows = [s for s in range(len(slots)) if free_from[s] <= when and at_most(slots[s], size)]
    if grows:
        best = grows[0]
        for s in grows[1:]:
            if at_most(slots[best], slots[s]):
                best = s
        return best
    return -1
