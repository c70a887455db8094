"""The memory plan: which buffers share a slot of the arena, which slot lies above which, and where a team waits.

A buffer that a kernel makes element by element from one that nothing reads later takes its place. Slots are then packed
for some nominal sizes (``pack.py``), and of the best packing only this is kept: which of two slots in use at once lies
below. For every other size that gives a plan too (``arena.py``).

In use at once means between the same two waits of a team: some member may still be at an earlier kernel. Where slots
that one thread could put in one place would so take more memory, the team waits once more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from graphc.graph.sizes import SizeLike, evaluate
from graphc.kernels.arena import Arena, aligned
from graphc.kernels.form import LANES, Access, Nest, Program
from graphc.kernels.pack import GOOD, Block, least_height, ordered, pack
from graphc.kernels.split import waits
from graphc.structs import dataclass, replace

NOMINALS = (64, 32, 128, 256, 16, 1024, 4096)  # what each run-time size counts for, in turn
SLACK, FEW_BYTES = 16, 512  # a 1/16 more memory than one thread needs, or 512 bytes, is better than another wait


@dataclass(frozen=True, slots=True)
class Slot:
    """``size`` bytes in use from kernel ``first`` to kernel ``last``; or between which waits, counted. A panel is not
    written whole at every size, so something else is to end the arena."""

    size: SizeLike
    first: int
    last: int
    is_panel: bool

    def block(self, dims: Mapping[str, int]) -> Block:
        """The slot as a block of its aligned bytes for the given dimensions."""
        return Block(aligned(evaluate(self.size, dims)), self.first, self.last, self.is_panel)


def place(program: Program) -> Program:
    """The program with its memory plan: the slot of every buffer of role temp or output, the arena, and the kernels
    before which a team waits. Outputs live to the end.
    """
    number, slots = _slots(program)
    trials = [dict.fromkeys(program.dims, n) for n in (NOMINALS if program.dims else NOMINALS[:1])]
    stops = waits(replace(program, slot=tuple(number)))
    for dims in trials:
        stops = _with_more_waits(stops, [slot.block(dims) for slot in slots])
    phase = [0]
    for stop in stops[1:]:
        phase.append(phase[-1] + stop)
    phase.append(phase[-1])  # the end, to which outputs live
    order, arena = _best([replace(s, first=phase[s.first], last=phase[s.last]) for s in slots], trials)
    moved = {old: new for new, old in enumerate(order)}
    return replace(program, slot=tuple(moved.get(k, -1) for k in number), arena=arena, waits=tuple(stops))


def _best(slots: Sequence[Slot], trials: Sequence[Mapping[str, int]]) -> tuple[list[int], Arena]:
    """Of the packings for each trial's dimensions the one that wastes least at its worst: the slots in the order of the
    arena, and that."""
    blocks = [[slot.block(dims) for slot in slots] for dims in trials]
    least = [max(1, least_height(of_trial)) for of_trial in blocks]
    best: tuple[float, list[int], Arena] | None = None
    for of_trial in blocks:
        order, below = ordered(of_trial, pack(of_trial))
        private = tuple(new for new, old in enumerate(order) if slots[old].is_panel)
        arena = Arena(tuple(slots[k].size for k in order), tuple(below), private)
        waste = max(arena.offsets(dims)[1] / bytes_ for dims, bytes_ in zip(trials, least, strict=True))
        if best is None or waste < best[0]:
            best = waste, order, arena
        if waste <= 1 + 1 / GOOD:
            break
    assert best is not None
    return best[1:]


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


def _slots(program: Program) -> tuple[list[int], list[Slot]]:
    """For every buffer the number of its slot, -1 outside the arena, and the slots. Buffers of which each takes the
    place of the one before share one."""
    born, dies = lives(program)
    panels = {k.scratch for k in program.kernels if isinstance(k, Nest)}
    number = [-1] * len(program.buffers)
    slots: list[Slot] = []
    given: set[int] = set()
    for k in sorted(born, key=lambda b: (born[b], b)):
        kernel = program.kernels[born[k]] if born[k] < len(program.kernels) else None
        old = -1
        if isinstance(kernel, Nest) and k not in panels:
            ends = [a.buffer for a in kernel.loads if dies.get(a.buffer) == born[k] > born[a.buffer]]
            old = next((a for a in ends if a not in given and _replaces(program, kernel, k, a)), -1)
        if old >= 0:
            given.add(old)
            number[k] = number[old]
            slots[number[k]] = replace(slots[number[k]], last=dies[k])
        else:
            number[k] = len(slots)
            buffer = program.buffers[k]
            slots.append(Slot(buffer.size * buffer.dtype.itemsize, born[k], dies[k], k in panels))
    return number, slots


def _replaces(program: Program, nest: Nest, new: int, old: int) -> bool:
    """Whether a nest may store buffer ``new`` where it reads ``old``: every element of the one is stored where that
    element of the other was read, for the same point and at no other."""
    a, b = program.buffers[old], program.buffers[new]
    if a.size != b.size or a.dtype.itemsize != b.dtype.itemsize:
        return False
    stores = [s for s in (*nest.inner, *nest.stores) if s.access.buffer == new]
    if len(stores) != 1 or stores[0].add or stores[0].access.data or stores[0].access.guards:
        return False
    accesses: list[Access] = [*nest.loads, *(s.access for s in (*nest.inner, *nest.stores))]
    if not _walks_in_whole_vectors(nest):
        return False
    indices = {d.buffer for access in accesses for d in access.data}
    indices |= {g.data[0] for guards in (nest.guards, *(c.guards for c in accesses)) for g in guards if g.data}
    if old in indices:
        return False
    return all(x.flat == stores[0].access.flat and not x.data for x in nest.loads if x.buffer == old)


def _walks_in_whole_vectors(nest: Nest) -> bool:
    """Whether no vector of a row is masked but the very last: a processor compares the address of a load with those of
    the stores before it without their masks, so a row would wait for the one before, which ends where it begins."""
    vector = nest.schedule.vector
    if vector < 0 or len(nest.extents) == 1:
        return True
    extent = nest.extents[vector]
    return isinstance(extent, int) and extent % max(LANES.values()) == 0


def _with_more_waits(stops: Sequence[bool], blocks: Sequence[Block]) -> list[bool]:
    """The waits, and more of them until what is in use between two is little more than what is at any one kernel."""
    found = list(stops)
    n_kernels = len(found)
    live = [0] * (n_kernels + 1)
    for block in blocks:
        for position in range(block.first, block.last + 1):
            live[position] += block.size
    least = max(live, default=0)
    allowed = least + max(least // SLACK, FEW_BYTES)

    def in_use(first: int, last: int) -> int:
        return sum(b.size for b in blocks if b.first <= last and b.last >= first)

    todo = []
    start = 0
    for position in range(1, n_kernels + 1):
        if position == n_kernels or found[position]:
            todo.append((start, position - 1))
            start = position
    while todo:
        first, last = todo.pop()
        if first == last or in_use(first, last) <= allowed:
            continue
        cut = min(range(first + 1, last + 1), key=lambda c: (max(in_use(first, c - 1), in_use(c, last)), c))
        found[cut] = True
        todo += [(first, cut - 1), (cut, last)]
    return found
