"""What became of a node through passages from graph to graph, and what a node of the last graph was made for."""

from __future__ import annotations

from collections.abc import Sequence

from graphc.graph.graph import Graph, Node, Passage, users
from graphc.structs import dataclass

# Passages without rewrite rules leave nodes out too; this is why.
_REASONS = {
    "derived": "neither a result nor an update needs it",
    "stored": "nothing needs its value any more",
    "solved": "it only marks its operand, whose code is its own",
    "composed": "it only reads another value at other indices, and its readers do that themselves",
    "laid out": "nothing needs its value any more",
}
_TIDIED = "an operation that read it was tidied and does so no more"


@dataclass(frozen=True, slots=True)
class Fate:
    """What became of a node. node: what stands for it in the last graph; None where it was left out: then removed: the
    numbers of the rewrites that made it needless, reason: why, in words, and readers: what does its work in the last
    graph.
    """

    node: Node | None
    removed: tuple[int, ...] = ()
    reason: str = ""
    readers: tuple[Node, ...] = ()


class Trail:
    """What became of the nodes of a graph through some passages."""

    def __init__(self, passages: Sequence[Passage], offsets: Sequence[int]) -> None:
        self.passages = passages
        self.offsets = offsets  # of each passage's log in the numbering of all firings
        live = [frozenset(p.new) for p in passages[1:]]  # what the next passage took up
        self.live = [*live, frozenset(passages[-1].after.live())]
        self.readers = [users(p.new) for p in passages]

    def fate(self, node: Node, start: int) -> Fate:
        """What became of a node of the graph before passage ``start``."""
        node, k = self._followed(node, start, len(self.passages))
        return Fate(node) if k == len(self.passages) else self._removed(node, k)

    def image(self, node: Node, start: int, stop: int) -> Node | None:
        """What stands for a node before passage ``stop``; None where it was left out."""
        node, k = self._followed(node, start, stop)
        return node if k == stop else None

    def _followed(self, node: Node, start: int, stop: int) -> tuple[Node, int]:
        """What stands for a node, and the passage before which it does: ``stop``, or the one that leaves it out."""
        for k in range(start, stop):
            found = self.passages[k].new.get(node)
            if found is None or found not in self.live[k]:
                return node, k
            node = found
        return node, stop

    def _removed(self, node: Node, k: int) -> Fate:
        """Passage ``k`` left a node out: the rewrites are those at its nearest readers, which no longer read it."""
        passage, live = self.passages[k], self.live[k]
        seen, level = {node: None}, [node]
        firings: list[int] = []
        survivors: dict[Node, None] = {}
        while level and not survivors:
            above = []
            for at in level:
                for reader in self.readers[k].get(at, []):
                    if reader in seen:
                        continue
                    seen[reader] = None
                    if reader in passage.fired:
                        first, end = passage.fired[reader]
                        firings += range(self.offsets[k] + first, self.offsets[k] + end)
                    if passage.new[reader] in live:
                        survivors[passage.new[reader]] = None
                    else:
                        above.append(reader)
            level = above
        if not firings and node in passage.fired:
            first, end = passage.fired[node]
            firings = list(range(self.offsets[k] + first, self.offsets[k] + end))
        readers: dict[Node, None] = {}
        for survivor in survivors:
            fate = self.fate(survivor, k + 1)
            readers.update(dict.fromkeys([fate.node] if fate.node is not None else fate.readers))
        reason = "" if firings else _REASONS.get(passage.name, _TIDIED)
        return Fate(None, tuple(firings), reason, tuple(readers))

    def origins(self, roots: Graph, start: int) -> dict[Node, tuple[Node, ...]]:
        """For each node of the last graph those of the graph before passage ``start`` that it was made for.

        A node that a passage made besides (a step of an expansion, a copy) was made for the one that it stands before.
        """
        known: dict[Node, tuple[Node, ...]] = {node: (node,) for node in roots.nodes}
        for passage in self.passages[start:]:
            made: dict[Node, dict[Node, None]] = {}
            highest = -1
            for old, new in passage.new.items():
                for number in range(highest + 1, new.number + 1):
                    made.setdefault(passage.made[number], {}).update(dict.fromkeys(known.get(old, ())))
                made.setdefault(new, {}).update(dict.fromkeys(known.get(old, ())))
                highest = max(highest, new.number)
            for node in passage.made:
                if node not in made:
                    made[node] = dict.fromkeys(o for i in node.inputs for o in made.get(i, ()))
            known = {node: tuple(found) for node, found in made.items()}
        return known
