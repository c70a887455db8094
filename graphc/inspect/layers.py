"""A layered layout: boxes in rows, few crossings, edges that run straight where they can.

After Sugiyama, Tagawa and Toda (1981), IEEE Transactions on Systems, Man, and Cybernetics 11(2): rows are given, boxes
are ordered in them by the mean place of their neighbours, then moved sideways towards these. An edge over several rows
gets a point in each. No random numbers: one graph has one picture. docs/decisions/0005 says why this is our own.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from graphc.structs import dataclass

_SWEEPS = 12
_MOVES = 24
_BEND = 14.0  # the width kept free for an edge that passes a row


@dataclass(frozen=True, slots=True)
class Layout:
    """Where boxes stand: the x of each one's middle; and for each edge the x at which it passes each row between its
    ends, from its upper end on; width: of all."""

    x: tuple[float, ...]
    bends: tuple[tuple[float, ...], ...]
    width: float


def longest_paths(n: int, edges: Sequence[tuple[int, int]]) -> list[int] | None:
    """For each of ``n`` nodes the number of edges on the longest path to it; None where there is a cycle.

    >>> longest_paths(4, [(0, 1), (1, 2), (0, 2), (2, 3)])
    [0, 1, 2, 3]
    """
    follow: list[list[int]] = [[] for _ in range(n)]
    waiting = [0] * n
    for a, b in edges:
        follow[a].append(b)
        waiting[b] += 1
    ready = [node for node in range(n) if not waiting[node]]
    ranks = [0] * n
    for node in ready:  # grows while it is walked
        for other in follow[node]:
            ranks[other] = max(ranks[other], ranks[node] + 1)
            waiting[other] -= 1
            if not waiting[other]:
                ready.append(other)
    return ranks if len(ready) == n else None


def layered(widths: Sequence[float], rows: Sequence[int], edges: Sequence[tuple[int, int]], gap: float) -> Layout:
    """The layout of boxes of some widths in given rows; an edge leads from an upper row to a lower one.

    gap: the least space between two boxes of a row.

    >>> layered([10.0, 10.0, 10.0], [0, 0, 1], [(0, 2), (1, 2)], gap=4.0).x
    (5.0, 19.0, 12.0)
    """
    places = _Places(widths, rows, edges, gap)
    places.order()
    places.move()
    return places.layout()


def _places_in(row: Sequence[int]) -> dict[int, float]:
    """The place of everything in a row, from 0 to 1."""
    return {node: (k + 0.5) / len(row) for k, node in enumerate(row)}


class _Places:
    """Boxes, and the points of long edges, in rows."""

    def __init__(
        self, widths: Sequence[float], rows: Sequence[int], edges: Sequence[tuple[int, int]], gap: float
    ) -> None:
        self.widths = list(widths)
        self.gap = gap
        self.rows: list[list[int]] = [[] for _ in range(max(rows, default=0) + 1)]
        for node, row in enumerate(rows):
            self.rows[row].append(node)
        self.n_boxes = len(widths)
        self.points: list[list[int]] = []
        self.links: list[tuple[int, int]] = []
        for a, b in edges:
            chain = []
            for row in range(rows[a] + 1, rows[b]):
                chain.append(len(self.widths))
                self.rows[row].append(len(self.widths))
                self.widths.append(_BEND)
            self.points.append(chain)
            if rows[a] < rows[b]:
                path = [a, *chain, b]
                self.links += list(pairwise(path))
        self.above: list[list[int]] = [[] for _ in self.widths]
        self.below: list[list[int]] = [[] for _ in self.widths]
        for a, b in self.links:
            self.above[b].append(a)
            self.below[a].append(b)
        self.x = [0.0] * len(self.widths)

    def order(self) -> None:
        """Orders every row by the mean place of neighbours, keeping the best of some sweeps down and up."""
        best, fewest = [list(row) for row in self.rows], self.crossings()
        place = self.places()
        for sweep in range(_SWEEPS):
            neighbours = self.below if sweep % 2 else self.above
            for row in reversed(self.rows) if sweep % 2 else self.rows:
                means = {
                    node: sum(place[o] for o in neighbours[node]) / len(neighbours[node])
                    if neighbours[node]
                    else place[node]
                    for node in row
                }
                row.sort(key=means.__getitem__)
                place.update(_places_in(row))
            found = self.crossings()
            if found < fewest:
                best, fewest = [list(row) for row in self.rows], found
        self.rows = best

    def places(self) -> dict[int, float]:
        """The place of everything in its row, from 0 to 1."""
        return {node: at for row in self.rows for node, at in _places_in(row).items()}

    def crossings(self) -> int:
        """How many pairs of links cross."""
        place = {node: k for row in self.rows for k, node in enumerate(row)}
        found = 0
        for row in self.rows:
            ends = [(place[node], place[other]) for node in row for other in self.below[node]]
            for k, (a, b) in enumerate(ends):
                found += sum((a - c) * (b - d) < 0 for c, d in ends[k + 1 :])
        return found

    def move(self) -> None:
        """Moves everything sideways towards its neighbours; order and distances in a row are kept."""
        for row in self.rows:
            self.spread(row, [0.0] * len(row))
        for step in range(_MOVES):
            for row in reversed(self.rows) if step % 2 else self.rows:
                wanted = []
                for node in row:
                    others = self.above[node] + self.below[node]
                    wanted.append(sum(self.x[o] for o in others) / len(others) if others else self.x[node])
                self.spread(row, wanted)
        left = min((self.x[n] - self.widths[n] / 2 for n in range(len(self.x))), default=0.0)
        self.x = [x - left for x in self.x]

    def spread(self, row: Sequence[int], wanted: Sequence[float]) -> None:
        """The places nearest to those wanted (least squares) that keep order and distances: pooled adjacent
        violators."""
        offsets, total = [], 0.0
        for k, node in enumerate(row):
            if k:
                total += (self.widths[row[k - 1]] + self.widths[node]) / 2 + self.gap
            offsets.append(total)
        pools: list[tuple[float, int]] = []  # mean and count
        for k, place in enumerate(wanted):
            mean, count = place - offsets[k], 1
            while pools and pools[-1][0] > mean:
                other, n = pools.pop()
                mean, count = (mean * count + other * n) / (count + n), count + n
            pools.append((mean, count))
        means = [mean for mean, count in pools for _ in range(count)]
        for node, mean, offset in zip(row, means, offsets, strict=True):
            self.x[node] = mean + offset

    def layout(self) -> Layout:
        """What was found."""
        width = max((x + w / 2 for x, w in zip(self.x, self.widths, strict=True)), default=0.0)
        bends = tuple(tuple(self.x[p] for p in chain) for chain in self.points)
        return Layout(tuple(self.x[: self.n_boxes]), bends, width)
