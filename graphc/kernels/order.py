"""The order of kernels: after what each needs, and so that few temporaries live at once.

Among the kernels that may come next the one declared first comes first. If fewer bytes live at once that way, it is
instead the one that adds least to what lives: what it writes anew less what nothing reads after it. That is a greedy
estimate; the least over all orders is NP-hard to find.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from heapq import heapify, heappop, heappush

from graphc.errors import InternalError

WORTH = 32  # another order is taken where 1/32 fewer bytes live


def ordered(
    rank: Sequence[int],
    before: Sequence[Collection[int]],
    uses: Sequence[Collection[int]],
    n_bytes: Mapping[int, int],
) -> list[int]:
    """The items, each after those ``before`` it.

    rank: the lowest comes first where nothing else decides, one below 0 before all that may come. uses: the temporaries
    that each item names. n_bytes: of each of them.

    Raises: InternalError where what comes before closes a cycle.

    >>> ordered([0, 1, 2, 3], [[], [], [0], [1, 2]], [[0], [1], [0, 2], [1, 2]], {0: 8, 1: 8, 2: 1})
    [0, 2, 1, 3]
    """
    plain = _by_rank(rank, before)
    left = dict.fromkeys(n_bytes, 0)
    for used in uses:
        for k in used:
            left[k] += 1
    lean = _leanest(rank, before, uses, n_bytes, left)
    least, most = (_most_alive(order, uses, n_bytes, left) for order in (lean, plain))
    return lean if least * (WORTH + 1) < most * WORTH else plain


def _by_rank(rank: Sequence[int], before: Sequence[Collection[int]]) -> list[int]:
    after, missing = _edges(before)
    ready = [(rank[k], k) for k, count in enumerate(missing) if count == 0]
    heapify(ready)
    order: list[int] = []
    while ready:
        _, item = heappop(ready)
        order.append(item)
        for later in after[item]:
            missing[later] -= 1
            if missing[later] == 0:
                heappush(ready, (rank[later], later))
    if len(order) < len(rank):
        raise InternalError("lower: the groups' order closes a cycle")
    return order


def _leanest(
    rank: Sequence[int],
    before: Sequence[Collection[int]],
    uses: Sequence[Collection[int]],
    n_bytes: Mapping[int, int],
    users: Mapping[int, int],
) -> list[int]:
    """The order in which each item adds least to what lives. An item's weight changes only where a temporary that it
    names comes to life or has one user left."""
    after, missing = _edges(before)
    left = dict(users)
    waiting: dict[int, list[int]] = {k: [] for k in n_bytes}
    adds = [0] * len(rank)
    for item, used in enumerate(uses):
        for k in used:
            waiting[k].append(item)
            adds[item] += n_bytes[k] if left[k] > 1 else 0
    ready = {k for k, count in enumerate(missing) if count == 0}
    alive: set[int] = set()
    order: list[int] = []
    while ready:
        item = min(ready, key=lambda k: (rank[k] >= 0, adds[k], rank[k], k))
        ready.remove(item)
        order.append(item)
        for k in uses[item]:
            left[k] -= 1
            for other in waiting[k]:
                adds[other] -= n_bytes[k] * ((k not in alive) + (left[k] == 1))
            alive.add(k)
        for later in after[item]:
            missing[later] -= 1
            if missing[later] == 0:
                ready.add(later)
    return order


def _edges(before: Sequence[Collection[int]]) -> tuple[list[list[int]], list[int]]:
    """For each item those that come after it, and how many come before."""
    after: list[list[int]] = [[] for _ in before]
    for item, earlier in enumerate(before):
        for e in sorted(earlier):
            after[e].append(item)
    return after, [len(earlier) for earlier in before]


def _most_alive(
    order: Sequence[int], uses: Sequence[Collection[int]], n_bytes: Mapping[int, int], users: Mapping[int, int]
) -> int:
    """The most bytes of temporaries that live at any item."""
    left = dict(users)
    alive: set[int] = set()
    most = now = 0
    for item in order:
        for k in uses[item]:
            if k not in alive:
                alive.add(k)
                now += n_bytes[k]
        most = max(most, now)
        for k in uses[item]:
            left[k] -= 1
            if left[k] == 0:
                now -= n_bytes[k]
    return most
