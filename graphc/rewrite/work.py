"""One pass over a graph: nodes are made anew, each after its inputs, under the rules of a phase.

A node is settled (guards and reads that do nothing dropped, its body in normal form) and offered to the phase's tensor
rules until none fires; then it is interned, so equal nodes become one. What fired is logged.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache

import numpy as np

from graphc.graph.formula import Formula, data_indices, map_operands
from graphc.graph.graph import ConstValue, Graph, Node, Origin, copy_node, users
from graphc.graph.scalar import Body
from graphc.graph.show import body_statements, formula_text
from graphc.graph.sizes import SizeLike
from graphc.rewrite.engine import INNER, ScalarFiring, normalise
from graphc.rewrite.formulas import Applied, compacted, formula_traits, tidied, traits, with_reads_in_order
from graphc.rewrite.patterns import COMMUTATIVE
from graphc.rewrite.ranges import ANYTHING, Range, coarse, joined, of_type, range_of_body
from graphc.rewrite.rule_sets import Options, RuleSet, may_fire, rule_set
from graphc.structs import dataclass, field, replace

MOST_ORIGINS = 24  # of a node that takes others in; a chain of 50,000 would otherwise cost the square of its length
REACH = 8  # nodes on the way from a node to the deepest that a rule looks at, when it is asked about it
MOST_FIRINGS = 64  # of tensor rules at one node in one pass; the next pass goes on


@dataclass(frozen=True, slots=True)
class Firing:
    """One use of a rule. origins: those of the node where it fired. ``before`` and ``after`` say what stood there."""

    rule: str
    label: str
    phase: str
    origins: tuple[Origin, ...]
    source: Shown
    result: Shown

    @property
    def before(self) -> str:
        """What stood there, in the graph's own notation."""
        return shown(self.source)

    @property
    def after(self) -> str:
        """What stands there now."""
        return shown(self.result)

    def __str__(self) -> str:
        return f"{self.phase}: {self.rule} ({self.label}): {self.before}  ->  {self.after}"


Shown = Body | tuple[Formula, tuple[str, ...]] | str


def shown(what: Shown) -> str:
    """A body, a formula with the names of its operands, or a text, as text.

    >>> from graphc.graph.dtypes import float32
    >>> from graphc.graph.scalar import trace
    >>> shown(trace(lambda x: x + 1, [float32]))
    'r0 + 1.0'
    """
    if isinstance(what, str):
        return what
    if isinstance(what, tuple):
        formula, names = what
        return "; ".join([formula_text(formula), *(f"${k} = {name}" for k, name in enumerate(names) if name)])
    reads = list(dict.fromkeys(i.attr for i in what.instrs if i.op == "read" and isinstance(i.attr, int)))
    body = Body(tuple(replace(i, attr=reads.index(i.attr)) if i.op == "read" else i for i in what.instrs))  # type: ignore[arg-type]
    index = [f"v{k}" for k in range(max(what.indices(), default=-1) + 1)]
    return "; ".join(body_statements(body, [f"r{k}" if k < INNER else f"u{k - INNER}" for k in reads], index))


@dataclass(frozen=True, slots=True)
class TensorRule:
    """A rule on a formula with its operands: what takes its place (a formula, or a node that stands), or None.

    It is asked only where the formula has one of the traits ``own`` and an operand one of ``operands``; 0 is any.
    spans: whether it applies scalar rules, so that more of those are more to do for it.
    """

    name: str
    label: str
    apply: Callable[[Work, Applied], Applied | Node | None]
    own: int = 0
    operands: int = 0
    spans: bool = False


@dataclass(frozen=True, slots=True)
class Added:
    """The rules of a phase that the one before it does not have, and those that apply scalar rules."""

    scalars: RuleSet
    rules: Sequence[TensorRule]


@dataclass(frozen=True, slots=True)
class Settled:
    """A formula in normal form, the operands that it keeps, and what fired inside its body."""

    formula: Formula
    kept: tuple[int, ...]
    firings: tuple[ScalarFiring, ...]


@dataclass(slots=True)
class Work:
    """A pass.

    source: the graph before; graph: the one being made; new: old node -> new; uses: how often a new node is read,
    counted in the graph before; protected: new nodes that stay what they are; settled: what is known of formulas;
    commute: whether nodes that differ in the order of commutative operands alone are looked for; touched: new nodes at
    which something fired; fired: old node -> which firings of the log, from the first on; stands_for: new node -> the
    first old one; changed: new node -> how many nodes lie between it
    and one below where something fired, where that is less than REACH; spanning: where given, the scalar rules of which
    one must span a node and its operands; readers: old node -> old ones that read it; ends: the old nodes whose values
    are asked for.
    """

    source: Graph
    phase: str
    scalars: RuleSet
    rules: Sequence[TensorRule]
    settled: dict[tuple[Formula, tuple[Range, ...]], Settled]
    log: list[Firing]
    commute: bool
    graph: Graph = field(default_factory=Graph)
    new: dict[Node, Node] = field(default_factory=dict)
    uses: dict[Node, int] = field(default_factory=dict)
    protected: dict[Node, None] = field(default_factory=dict)
    ranges: dict[Node, Range] = field(default_factory=dict)
    checked: dict[tuple[Node, SizeLike], int] = field(default_factory=dict)
    commuted: dict[tuple[Formula, tuple[int, ...]], Node] = field(default_factory=dict)
    touched: dict[Node, None] = field(default_factory=dict)
    stands_for: dict[Node, Node] = field(default_factory=dict)
    changed: dict[Node, int] = field(default_factory=dict)
    spanning: RuleSet | None = None
    readers: Mapping[Node, Sequence[Node]] = field(default_factory=dict)
    ends: Mapping[Node, int] = field(default_factory=dict)
    fired: dict[Node, tuple[int, int]] = field(default_factory=dict)
    _quick: dict[int, tuple[Formula, Settled]] = field(default_factory=dict)
    _origins: tuple[Origin, ...] = ()

    def run(
        self, protect: Mapping[Node, None], dirty: Mapping[Node, None] | None, added: Added | None = None
    ) -> None:
        """Makes all live nodes; those not in ``dirty`` (None: all are) are copied over.

        added: given where no other rule fires in the graph as it is, so that those alone are tried until one does.
        """
        live = self.source.live()
        new, origins = self.new, self.source.origins
        readers = self.readers = users(live)
        ends = self.ends = dict.fromkeys(self.source.roots(), 1)
        self._count_checks(live)
        for node in live:
            inputs = tuple([new[i] for i in node.inputs])
            self._origins = origins.get(node, ())
            fired = len(self.log)
            if node.kind == "formula" and (dirty is None or node in dirty):
                only = added if added is not None and self._rests(node, inputs, added) else None
                made = self.make(Applied(node.formula, inputs), only)
            else:
                made = copy_node(self.graph, node, inputs)
            if len(self.log) > fired:
                self.touched[made] = None
                self.fired[node] = (fired, len(self.log))
            if self.touched:
                self._note_change(made)
            self.graph.note(made, self._origins)
            new[node] = made
            self.stands_for.setdefault(made, node)
            self.uses[made] = self.uses.get(made, 0) + len(readers[node]) + ends.get(node, 0)
            if node in protect:
                self.protected[made] = None
        self.graph.outputs = {name: self.new[n] for name, n in self.source.outputs.items()}
        self.graph.updates = {self.new[t]: self.new[v] for t, v in self.source.updates.items()}

    def _rests(self, node: Node, inputs: Sequence[Node], added: Added) -> bool:
        """Whether rules that have nothing to do in the old graph have nothing to do at a node of it in the new one."""
        for i in inputs:
            if i in self.changed:
                return False
        return not may_fire(added.scalars, node.formula.body)

    def _note_change(self, made: Node) -> None:
        near = 0 if made in self.touched else 1 + min((self.changed.get(i, REACH) for i in made.inputs), default=REACH)
        if near < REACH:
            self.changed[made] = near

    def make(self, made: Applied, only: Added | None = None) -> Node:
        """The node of a formula, after everything that fires on it. only: all that may be first to fire there."""
        for _ in range(MOST_FIRINGS):
            made = made if only else self.settle(made)
            self.spanning = only.scalars if only else None
            done = self._fire(made, only.rules if only else self.rules)
            if done is None:
                break
            if isinstance(done, Node):
                return done
            made, only = done, None
        return self._interned(made)

    def part(self, made: Applied) -> Node:
        """The node of a formula that a rule needs beside the one that it gives."""
        own = self._origins
        node = self.make(made)
        self._origins = own
        return node

    def _fire(self, made: Applied, rules: Sequence[TensorRule]) -> Applied | Node | None:
        own, operands = formula_traits(made.formula), 0
        for node in made.inputs:
            operands |= traits(node)
        for rule in rules:
            if (rule.own and not rule.own & own) or (rule.operands and not rule.operands & operands):
                continue
            done = rule.apply(self, made)
            if done is not None:
                after = self.shown(done) if isinstance(done, Applied) else self.name(done)
                self.log.append(Firing(rule.name, rule.label, self.phase, self._origins, self.shown(made), after))
                self._absorb(rule.name, made, done)
                return done
        return None

    def note_firings(self, firings: Sequence[ScalarFiring]) -> None:
        """Logs what fired inside a body."""
        for f in firings:
            self.log.append(Firing(f.rule, f.label, self.phase, self._origins, f.before, f.after))

    def _absorb(self, rule: str, before: Applied, after: Applied | Node) -> None:
        """Operands that a rule took in leave their origins to the node, as places without a name of their own."""
        if isinstance(after, Applied):
            kept = dict.fromkeys(after.inputs[k] for k in compacted(after.formula)[1])
        else:
            kept = dict.fromkeys((after, *after.inputs))
        found = list(self._origins)
        stack = [n for n in reversed(before.inputs) if n not in kept]
        while stack and len(found) < MOST_ORIGINS:
            node = stack.pop()
            if node.kind != "formula" or self.uses.get(node, 0) > 1:
                continue
            stack += [n for n in reversed(node.inputs) if n not in kept]
            for o in self.graph.origins.get(node, ()):
                absorbed = Origin(site=o.site, rule=o.rule or f"{rule}: {o.name or o.op or o.note}")
                if absorbed not in found:
                    found.append(absorbed)
        self._origins = tuple(found)

    def settle(self, made: Applied) -> Applied:
        """The formula in normal form, with the operands that it keeps."""
        if len(made.inputs) > 1 and len(dict.fromkeys(made.inputs)) < len(made.inputs):
            first = [made.inputs.index(node) for node in made.inputs]
            made = Applied(map_operands(made.formula, first.__getitem__), made.inputs)
        known = self._known_reads(made)
        quick = self._quick.get(id(made.formula)) if not known else None
        if quick is None:
            found = self.settled.get((made.formula, known))
            if found is None:
                found = self.settled[made.formula, known] = _settled(made.formula, self.scalars, known)
            if not known:
                self._quick[id(made.formula)] = (made.formula, found)
        else:
            found = quick[1]
        if found.formula is made.formula and len(found.kept) == len(made.inputs):
            return made
        self.note_firings(found.firings)
        done = Applied(found.formula, tuple(made.inputs[k] for k in found.kept))
        # Where reads turned out to be one, a rule may match that asks for equal operands.
        return self.settle(done) if len(done.formula.reads) < len(made.formula.reads) else done

    def _known_reads(self, made: Applied) -> tuple[Range, ...]:
        """The ranges of the reads; none where nothing is known of any."""
        for node in made.inputs:
            if (self.ranges.get(node) or self.range_of(node)) is not ANYTHING:
                break
        else:
            return ()
        found = []
        for read in made.formula.reads:
            own = self.range_of(made.inputs[read.operand])
            found.append(joined(own, Range(0.0, 0.0, False)) if read.guards else own)
        dull = all(r == of_type(made.inputs[q.operand].dtype) for r, q in zip(found, made.formula.reads, strict=True))
        return () if dull else tuple(found)

    def range_of(self, node: Node) -> Range:
        """Between which numbers the elements of a node lie."""
        known = self.ranges.get(node)
        if known is not None:
            return known
        stack = [node]
        while stack:
            last = stack[-1]
            if last in self.ranges:
                stack.pop()
                continue
            missing = [i for i in last.inputs if i not in self.ranges]
            if missing:
                stack += missing
            else:
                self.ranges[stack.pop()] = self._range(last)
        return self.ranges[node]

    def _range(self, node: Node) -> Range:
        if isinstance(node.attr, ConstValue) and node.dtype.kind != "b":
            array = node.attr.array()
            if array.size == 0 or np.isnan(array).any():
                return coarse(of_type(node.dtype))
            return coarse(Range(float(np.min(array)), float(np.max(array)), False))
        if node.kind in ("reshape", "stop_gradient", "variable"):
            return self.ranges[node.inputs[0]]
        if node.kind != "formula":
            return coarse(of_type(node.dtype))
        return _range_of_formula(node.formula, self._known_reads(Applied(node.formula, node.inputs)))

    def _interned(self, made: Applied) -> Node:
        """The node of a formula; the standing one where that differs in the order of commutative operands alone."""
        node = self.graph.formula(made.formula, made.inputs, ())
        if not self.commute or not _may_commute(made.formula):
            return node
        place = [made.inputs[r.operand].number for r in made.formula.reads]
        formula, kept = _in_order(made.formula, tuple(sorted(range(len(place)), key=place.__getitem__)))
        key = (formula, tuple(made.inputs[k].number for k in kept))
        standing = self.commuted.setdefault(key, node)
        if standing is not node and standing not in self.protected:
            self.log.append(
                Firing("commute", "exact", self.phase, self._origins, self.shown(made), self.name(standing))
            )
            return standing
        return node

    def name(self, node: Node) -> str:
        """The user's name for a node, or its kind."""
        return self.graph.name(node) or node.kind

    def shown(self, made: Applied) -> Shown:
        """A formula as the log keeps it."""
        formula, kept = compacted(made.formula)
        return formula, tuple(self.graph.name(made.inputs[k]) for k in kept)

    def is_single(self, node: Node) -> bool:
        """Whether one node alone reads this one, and it may go."""
        return self.uses.get(node, 1) <= 1 and node not in self.protected

    def _count_checks(self, live: Sequence[Node]) -> None:
        """Counts the nodes by which each index from data is checked."""
        for node in live:
            if node.kind == "formula":
                for d in data_indices(node.formula):
                    key = (node.inputs[d.operand], d.bound)
                    self.checked[key] = self.checked.get(key, 0) + 1

    def may_drop_checks(self, node: Node) -> bool:
        """Whether each index from data in ``node`` is checked elsewhere too; if so, one mention of each is given up."""
        keys = []
        for d in data_indices(node.formula):
            source = self.stands_for.get(node.inputs[d.operand])
            if source is None or self.checked.get((source, d.bound), 0) < 2:
                return False
            keys.append((source, d.bound))
        for key in keys:
            self.checked[key] -= 1
        return True


def _settled(given: Formula, scalars: RuleSet, known: tuple[Range, ...]) -> Settled:
    formula = tidied(given)
    normal = normalise(formula.body, scalars, known)
    if normal.body != formula.body:
        formula = replace(formula, body=normal.body)
    formula, kept = compacted(formula)
    return Settled(given if formula == given else formula, kept, normal.firings)


_IN_ORDER = rule_set((), Options(("exact",)))


@lru_cache(maxsize=16384)
def _in_order(formula: Formula, order: tuple[int, ...]) -> tuple[Formula, tuple[int, ...]]:
    """The formula with its reads in that order and its commutative operands in the order of its reads; its operands."""
    turned = with_reads_in_order(formula, order)
    return compacted(replace(turned, body=normalise(turned.body, _IN_ORDER).body))


@lru_cache(maxsize=16384)
def _range_of_formula(formula: Formula, known: tuple[Range, ...]) -> Range:
    body = range_of_body(formula.body, known)
    if formula.combine == "none":
        return coarse(joined(body, Range(0.0, 0.0, False)) if formula.guards else body)
    if formula.combine == "sum" and formula.dtype.kind == "f" and body.low >= 0:
        return coarse(Range(0.0, ANYTHING.high, body.nan))
    if formula.combine in ("max", "min") and not formula.guards and formula.is_plain():
        return coarse(body)
    return coarse(of_type(formula.dtype))


@lru_cache(maxsize=16384)
def _may_commute(formula: Formula) -> bool:
    return len(formula.reads) > 1 and any(i.op in COMMUTATIVE for i in formula.body.instrs)
