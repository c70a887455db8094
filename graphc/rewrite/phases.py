"""The phases of rewriting, in order, and the run that brings a graph to the fixed point of each."""

from __future__ import annotations

from collections.abc import Sequence

from graphc.graph.formula import Formula
from graphc.graph.graph import Graph, Node, Passage, copy_node, rebuild, users
from graphc.rewrite.across import ACROSS
from graphc.rewrite.exp_sums import STABLE_RULES
from graphc.rewrite.products import PRODUCT_RULES
from graphc.rewrite.ranges import Range
from graphc.rewrite.rule_sets import Options, RuleSet, rule_set
from graphc.rewrite.scalar_rules import CANONICALISE, SIMPLIFY, SPECIALISE, STABILISE
from graphc.rewrite.tables import Table
from graphc.rewrite.tensor_rules import CANONICAL_RULES, SIMPLE_RULES
from graphc.rewrite.thresholds import THRESHOLD_RULES
from graphc.rewrite.work import Added, Firing, Settled, TensorRule, Work
from graphc.structs import dataclass, field

MOST_PASSES = 12  # of one phase; each but the last fired something


@dataclass(frozen=True, slots=True)
class Phase:
    """Scalar tables and tensor rules that run together."""

    name: str
    tables: tuple[Table, ...]
    rules: tuple[TensorRule, ...]


# A later phase keeps the forms of the earlier ones, so it has their rules too.
_CANONICAL = (*CANONICAL_RULES, ACROSS)
_SIMPLE = (*_CANONICAL, *SIMPLE_RULES)
PHASES: tuple[Phase, ...] = (
    Phase("canonicalise", (CANONICALISE,), _CANONICAL),
    Phase("simplify", (CANONICALISE, SIMPLIFY), _SIMPLE),
    Phase("stabilise", (CANONICALISE, STABILISE, SIMPLIFY), (*_SIMPLE, *STABLE_RULES)),
    Phase("specialise", (CANONICALISE, STABILISE, SIMPLIFY, SPECIALISE), (*_SIMPLE, *PRODUCT_RULES, *THRESHOLD_RULES)),
)


# For a graph that is still to be differentiated: the stable forms alone, found across nodes too. The derivative of
# log(1 + exp(x)), written as three operations, is NaN at 100 in float32; that of softplus(x) is not.
BEFORE_DERIVATIVES: tuple[Phase, ...] = (Phase("stabilise", (CANONICALISE, STABILISE), (ACROSS, *STABLE_RULES)),)


@dataclass(frozen=True, slots=True)
class Rewritten:
    """What ``run`` gives: the graph, every firing in order, and for each old node the one that took its place or the
    reason why there is none."""

    graph: Graph
    log: tuple[Firing, ...] = ()
    replaced: dict[Node, Node | str] = field(default_factory=dict)

    def text(self) -> str:
        """The log, one firing a line."""
        return "\n".join(str(firing) for firing in self.log)


def run(
    graph: Graph,
    phases: Sequence[Phase] = PHASES,
    *,
    fast_math: bool = True,
    assume_finite: bool = False,
    protect: frozenset[Node] = frozenset(),
    passages: list[Passage] | None = None,
) -> Rewritten:
    """The graph after every phase.

    fast_math: whether ``rounding`` rules run; without it every result keeps its bits. assume_finite: whether ``finite``
    rules need no proof. protect: nodes that are never written into their readers, such as those the user named.
    passages: where every pass over the graph is noted, if somebody wants to know.

    >>> import graphc as gc
    >>> from graphc.dsl.intern import intern
    >>> x = gc.input("x", (3,))
    >>> done = run(intern({"y": gc.log(1 + gc.exp(x)) * 1}).graph)
    >>> [firing.rule for firing in done.log]
    ['softplus', 'across-nodes']
    """
    labels = ("exact", "rounding", "finite") if fast_math else ("exact",)
    options = Options(labels, assume_finite)
    log: list[Firing] = []
    live = graph.live()
    current: dict[Node, Node] = {node: node for node in live}
    before: tuple[RuleSet, list[TensorRule]] | None = None
    tables: tuple[Table, ...] = ()
    rests = False  # whether nothing that is in ``before`` fires any more
    for phase in phases:
        scalars = rule_set(phase.tables, options)
        rules = [rule for rule in phase.rules if rule.label in labels]
        if before is not None and before[0].by_root == scalars.by_root and before[1] == rules:
            continue  # without fast_math a phase may add nothing to the one before it
        commute = before is None
        added = None
        if before is not None and rests and all(t in phase.tables for t in tables):
            scalars_added = rule_set(tuple(t for t in phase.tables if t not in tables), options)
            added = Added(scalars_added, [r for r in rules if r.spans or r not in before[1]])
        before, tables, rests = (scalars, rules), phase.tables, False
        settled: dict[tuple[Formula, tuple[Range, ...]], Settled] = {}
        dirty: dict[Node, None] | None = None
        for _ in range(MOST_PASSES):
            work = Work(graph, phase.name, scalars, rules, settled, log, commute)
            guarded = {current[node]: None for node in current if node in protect}
            fired = len(log)
            work.run(guarded, dirty, added if dirty is None else None)
            if passages is not None:
                passages.append(Passage(phase.name, graph, work.graph, work.new, tuple(work.graph.nodes), work.fired))
            graph = work.graph
            current = {old: work.new[new] for old, new in current.items() if new in work.new}
            rests = len(log) == fired
            if rests:
                break
            dirty = _neighbours(graph, work)
    rewritten = graph
    graph, last = rebuild(rewritten, copy_node)
    if passages is not None:
        passages.append(Passage("rewritten", rewritten, graph, last, tuple(graph.nodes)))
    replaced: dict[Node, Node | str] = {}
    for node in live:
        final = last.get(current[node]) if node in current else None
        replaced[node] = final if final is not None else "nothing needs its value any more"
    return Rewritten(graph, tuple(log), replaced)


def _neighbours(graph: Graph, work: Work) -> dict[Node, None]:
    """The nodes that the next pass looks at again: where something fired, what reads those, and what lost a reader."""
    found: dict[Node, None] = {}
    readers = users(graph.live())
    ends = dict.fromkeys(graph.roots())
    for node, those in readers.items():
        before = work.uses.get(node)
        if node in work.touched or before is None or before != len(those) + (node in ends):
            found[node] = None
            found.update(dict.fromkeys(those))
    return found
