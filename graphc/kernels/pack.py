"""Packing: offsets for blocks of memory, each in use for a time, so that blocks in use at once do not overlap.

Finding the least height is NP-hard (dynamic storage allocation). Blocks are taken by size, or by size times length of
use, and each is put into the smallest gap that holds it (Pisarchyk and Lee 2020, "Efficient memory management for deep
neural net inference"); a few such orders are tried, and then those where a block that ended highest comes first.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Sequence

from graphc.structs import dataclass

MOST_TRIED = 8  # orders
SCANS = 1 << 20  # pairs of blocks that may be compared before no further order is tried
GOOD = 64  # a height that is 1/64 above the least possible is good


@dataclass(frozen=True, slots=True)
class Block:
    """``size`` in use from time ``first`` to time ``last``. buried: must lie below another block that is in use at the
    same time, unless there is none."""

    size: int
    first: int
    last: int
    buried: bool = False


def least_height(blocks: Sequence[Block]) -> int:
    """The most that is in use at once, which no packing can go below.

    >>> least_height([Block(4, 0, 1), Block(2, 1, 2), Block(3, 2, 3)])
    6
    """
    starts = sorted({block.first for block in blocks})
    change: dict[int, int] = dict.fromkeys(starts, 0)
    for block in blocks:
        change[block.first] += block.size
        change[block.last + 1] = change.get(block.last + 1, 0) - block.size
    most = now = 0
    for time in sorted(change):
        now += change[time]
        most = max(most, now)
    return most


def pack(blocks: Sequence[Block]) -> list[int]:
    """The offset of each block.

    >>> pack([Block(4, 0, 1), Block(2, 1, 2), Block(3, 2, 3)])
    [0, 4, 0]
    """
    numbers = range(len(blocks))
    least = least_height(blocks)
    by_size = sorted(numbers, key=lambda k: (-blocks[k].size, blocks[k].first - blocks[k].last, k))
    by_area = sorted(numbers, key=lambda k: (-blocks[k].size * (blocks[k].last - blocks[k].first + 1), k))
    # Buried blocks first, at the bottom: whatever else is in use meanwhile lies above them.
    best = _placed(blocks, sorted(by_area, key=lambda k: not blocks[k].buried))
    best_height = _height(blocks, best)
    waiting = [by_area, by_size]
    tried = 1
    most_tried = min(MOST_TRIED, SCANS // (1 + len(blocks) ** 2))
    while waiting and tried < most_tried and best_height * GOOD > least * (GOOD + 1):
        order = waiting.pop(0)
        tried += 1
        offsets = _placed(blocks, order)
        height = _height(blocks, offsets)
        turned = [height - offset - block.size for offset, block in zip(offsets, blocks, strict=True)]
        for found in (offsets, turned):
            if height < best_height and _buried(blocks, found):
                best, best_height = found, height
        highest = [k for k in order if offsets[k] + blocks[k].size == height]
        again = highest + [k for k in order if k not in highest]
        if again != order:
            waiting.append(again)
    return best


def _placed(blocks: Sequence[Block], order: Sequence[int]) -> list[int]:
    """Offsets where each block in turn takes the smallest gap that holds it."""
    offsets = [0] * len(blocks)
    placed: list[tuple[int, int, int, int]] = []  # offset, end, first and last time, by offset
    for k in order:
        block = blocks[k]
        size, first, last = block.size, block.first, block.last
        free, best, best_gap = 0, -1, 0
        for offset, end, other_first, other_last in placed:
            if other_first <= last and first <= other_last:
                gap = offset - free
                if gap >= size and (best < 0 or gap < best_gap):
                    best, best_gap = free, gap
                if end > free:
                    free = end
        at = free if best < 0 else best
        offsets[k] = at
        insort(placed, (at, at + size, first, last))
    return offsets


def _height(blocks: Sequence[Block], offsets: Sequence[int]) -> int:
    return max((offset + block.size for offset, block in zip(offsets, blocks, strict=True)), default=0)


def _buried(blocks: Sequence[Block], offsets: Sequence[int]) -> bool:
    """Whether every block that must be lies below another, if one is in use at the same time."""
    for k, block in enumerate(blocks):
        if block.buried:
            meanwhile = [j for j, b in enumerate(blocks) if b.first <= block.last and block.first <= b.last]
            beside = [j for j in meanwhile if not blocks[j].buried]
            if beside and not any(offsets[j] >= offsets[k] + block.size for j in beside):
                return False
    return True


def ordered(blocks: Sequence[Block], offsets: Sequence[int]) -> tuple[list[int], list[tuple[int, ...]]]:
    """The blocks from the bottom up, and for each, by its place in that order, the places of the blocks in use at the
    same time that lie directly below it.

    >>> ordered([Block(4, 0, 1), Block(2, 1, 2), Block(3, 2, 3)], [0, 4, 0])
    ([2, 0, 1], [(), (), (1, 0)])
    """
    order = sorted(range(len(blocks)), key=lambda k: (offsets[k], offsets[k] + blocks[k].size, k))
    all_below: list[int] = []  # for each place a bit for every place below it
    below: list[tuple[int, ...]] = []
    for place, k in enumerate(order):
        block = blocks[k]
        known, direct = 0, []
        for lower in range(place - 1, -1, -1):
            other = blocks[order[lower]]
            if not known >> lower & 1 and other.first <= block.last and block.first <= other.last:
                direct.append(lower)
                known |= all_below[lower] | 1 << lower
        all_below.append(known)
        below.append(tuple(direct))
    return order, below
