"""The arena of temporaries: slots of memory, and which lies above which.

Two slots in use at once are ordered: one lies below the other. A slot begins where the highest of those below it ends.
So no two slots in use at once share a byte, whatever the run-time sizes are; where each lies, and how long the arena
is, follows from the sizes by sums and maxima.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from graphc.graph.sizes import SizeLike, at_most, evaluate
from graphc.structs import dataclass

ALIGNMENT_BYTES = 64


@dataclass(frozen=True, slots=True)
class Arena:
    """slots: the bytes of each. below: for each slot the earlier ones that it lies directly above; where b lies below a
    and c below b, c need not be named for a. private: the slots of which each member of a team has its own, side by
    side.
    """

    slots: tuple[SizeLike, ...] = ()
    below: tuple[tuple[int, ...], ...] = ()
    private: tuple[int, ...] = ()

    def offsets(self, dims: Mapping[str, int], members: int = 1) -> tuple[tuple[int, ...], int]:
        """The offset in bytes of each slot, a multiple of 64, and the arena's size, for the given dimensions and a
        team's members.

        >>> from graphc.graph.sizes import dim
        >>> Arena((4 * dim("N"), 100, 8), ((), (0,), ())).offsets({"N": 20})
        ((0, 128, 0), 256)
        """
        offsets: list[int] = []
        ends: list[int] = []
        for number, (size, lower) in enumerate(zip(self.slots, self.below, strict=True)):
            at = max([ends[k] for k in lower], default=0)
            n_bytes = aligned(evaluate(size, dims))
            offsets.append(at)
            ends.append(at + (n_bytes * members if number in self.private else n_bytes))
        return tuple(offsets), max(ends, default=0)

    def most_bytes(self) -> tuple[SizeLike, ...]:
        """Sizes whose largest is that of the arena for one thread, but for what is left free before multiples of 64.

        >>> from graphc.graph.sizes import dim
        >>> Arena((4 * dim("N"), 100, 8), ((), (0,), ())).most_bytes()
        (4*N + 100,)
        """
        ends: list[tuple[SizeLike, ...]] = []
        for size, lower in zip(self.slots, self.below, strict=True):
            starts = _largest([end for k in lower for end in ends[k]]) or (0,)
            ends.append(tuple(start + size for start in starts))
        return _largest([end for found in ends for end in found]) or (0,)


def aligned(n_bytes: int) -> int:
    """``n_bytes`` up to the next multiple of 64."""
    return -(-n_bytes // ALIGNMENT_BYTES) * ALIGNMENT_BYTES


def _largest(sizes: Sequence[SizeLike]) -> tuple[SizeLike, ...]:
    """The sizes without those that another is never below."""
    kept: list[SizeLike] = []
    for size in dict.fromkeys(sizes):
        if not any(at_most(size, other) for other in kept):
            kept = [other for other in kept if not at_most(other, size)] + [size]
    return tuple(kept)
