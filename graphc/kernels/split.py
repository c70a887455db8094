"""How a team of threads shares a program: which loop of a nest is divided among its members, and before which kernels
all of them wait.

A nest is divided along an output variable alone, never along a reduced one, so every element is computed by the same
additions in the same order whatever the number of members.
"""

from __future__ import annotations

from graphc.kernels.form import Kernel, Nest, Program


def divided_level(kernel: Kernel) -> int:
    """The place in the schedule's order of the output variable that is divided; -1 where one member does it all.

    That is the outermost variable that has more than one point. Elements that are added to are not divided (two points
    may meet in one), nor a pass whose points follow from each other.
    """
    if not isinstance(kernel, Nest) or any(store.add for store in kernel.stores):
        return -1
    schedule = kernel.schedule
    order = schedule.order[:-1] if schedule.running >= 0 else schedule.order
    return next((k for k, v in enumerate(order) if kernel.extents[v] != 1), -1)


def waits(program: Program) -> list[bool]:
    """Whether all members wait before each kernel: it reads what an earlier one wrote since they last waited, or writes
    what that one read or wrote. Buffers that share a slot of the arena count as one. What a check finds, which one
    member does alone, is looked at behind a wait, and no member is at a later check before all have looked.
    """
    found: list[bool] = []
    read: set[tuple[str, int]] = set()
    written: set[tuple[str, int]] = set()

    def places(numbers: tuple[int, ...]) -> set[tuple[str, int]]:
        slots = [program.slot[k] if program.slot else -1 for k in numbers]
        return {("slot", slot) if slot >= 0 else ("buffer", k) for slot, k in zip(slots, numbers, strict=True)}

    checks = False
    for position, kernel in enumerate(program.kernels):
        reads, writes = places(kernel.reads()), places(kernel.writes())
        changes = position > 0 and checks == isinstance(kernel, Nest)
        checks = not isinstance(kernel, Nest)
        wait = changes or bool((reads | writes) & written or writes & read)
        if wait:
            read, written = set(), set()
        read |= reads
        written |= writes
        found.append(wait)
    return found
