"""Scalar rules across nodes: ``log(1 + exp(z))`` written as three operations is found as if it stood in one body.

The bodies of a node's elementwise operands are written behind its own reads, as deep as the rules may match, and the
whole is rewritten. Where a rule fired, the result is cut again at the operands that still stand in it, so that only
what a rule consumed is taken in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

from graphc.graph.dtypes import DType
from graphc.graph.formula import Affine, Formula, Read
from graphc.graph.graph import Node
from graphc.graph.scalar import Body, BodyBuilder, Instr, Scalar
from graphc.rewrite.engine import Rewriter, ScalarFiring
from graphc.rewrite.formulas import (
    MAP,
    VIEW,
    Applied,
    Operands,
    index_scalars,
    is_map,
    is_view,
    moved,
    traits,
    variables_of,
)
from graphc.rewrite.rule_sets import RuleSet
from graphc.rewrite.scalar_rules import STABILISE
from graphc.rewrite.work import TensorRule, Work
from graphc.structs import dataclass, field, replace

MOST_INSTRUCTIONS = 64
MOST_DEPTH = 5  # nodes on the way from the reader to the deepest body that is looked at


@dataclass(frozen=True, slots=True)
class Part:
    """A read of a value of type ``dtype``, and where a rule may match across it, the body of the value: its own reads,
    and the expressions that its index values are there.
    """

    read: Read
    dtype: DType
    body: Body | None = None
    parts: tuple[Part, ...] = ()
    table: tuple[Affine | None, ...] = ()


@dataclass(slots=True)
class Look:
    """How deep bodies of operands are looked at. n_instrs: how many instructions there are so far."""

    work: Work
    operands: Operands
    n_instrs: int

    def part(self, read: Read, parents: Sequence[Parent], beside: Sequence[Read], depth: int) -> Part:
        """A read with its operand's body where a rule may match across. ``beside``: the reads of the body that reads
        it."""
        node = self.operands.nodes[read.operand]
        inner = self._inner(read, node, parents, beside) if depth < MOST_DEPTH else None
        if inner is None:
            return Part(read, node.dtype)
        reads, table = inner
        above = parents_of(node.formula.body)
        parts = tuple(self.part(r, above[k], reads, depth + 1) for k, r in enumerate(reads))
        return Part(read, node.dtype, node.formula.body, parts, table)

    def _inner(
        self, read: Read, node: Node, parents: Sequence[Parent], beside: Sequence[Read]
    ) -> tuple[tuple[Read, ...], tuple[Affine | None, ...]] | None:
        """The reads and index values of an operand's body at the read's index, where it may be taken in."""
        if not is_map(node) or node in self.work.protected or read.guards or node.formula.guards:
            return None
        body = node.formula.body
        if self.n_instrs + len(body.instrs) > MOST_INSTRUCTIONS:
            return None
        if not _may_match(self.work.scalars, parents, body, beside, lambda k: root_of(self.operands.nodes[k])):
            return None
        found = moved(read.index, node, self.operands)
        if found is None or any(found.table[v] is None for v in body.indices()):
            return None
        self.n_instrs += len(body.instrs)
        return found.reads, found.table


@dataclass(slots=True)
class Deep:
    """A body under construction that holds those of operands too. reads: of the whole; stands: position of an operand's
    value -> the read that it is, by which the result is cut again.
    """

    builder: Rewriter
    reads: list[Read] = field(default_factory=list)
    stands: dict[int, Read] = field(default_factory=dict)

    def value(self, part: Part) -> Scalar:
        """The value of a read, or of the body that it reads."""
        if part.body is None:
            if part.read not in self.reads:
                self.reads.append(part.read)
            return self.builder.read(self.reads.index(part.read), part.dtype)
        values = [self.value(p) for p in part.parts]
        scalar = self.builder.include(part.body, values, index_scalars(self.builder, part.table))[-1]
        self.stands.setdefault(scalar.position, part.read)
        return scalar


Parent = tuple[str, tuple[str, ...], tuple[int, ...]]  # a primitive; beside an operand of it: primitives, and reads


@lru_cache(maxsize=16384)
def parents_of(body: Body) -> tuple[tuple[Parent, ...], ...]:
    """For each read the primitives that it is an operand of."""
    found: list[dict[Parent, None]] = [{} for _ in range(max(body.reads(), default=-1) + 1)]
    for instr in body.instrs:
        for k, a in enumerate(instr.args):
            source = body.instrs[a]
            if source.op == "read" and isinstance(source.attr, int):
                beside = [body.instrs[other] for at, other in enumerate(instr.args) if at != k]
                reads = tuple(b.attr for b in beside if b.op == "read" and isinstance(b.attr, int))
                found[source.attr][instr.op, tuple(b.op for b in beside), reads] = None
    return tuple(tuple(parents) for parents in found)


def _may_match(
    rules: RuleSet, parents: Sequence[Parent], body: Body, reads: Sequence[Read], root_at: Callable[[int], str]
) -> bool:
    """Whether a left side may span a parent and the root of an operand's body; ``reads`` are the parent's, and
    ``root_at`` gives the primitive at the root of an operand.
    """
    root = body.result
    for op, beside, others in parents:
        for constant, wanted in rules.links.get((op, root.op), ()):
            if constant and not any(body.instrs[a].op == "const" for a in root.args):
                continue
            if not wanted or wanted in beside or any(root_at(reads[k].operand) == wanted for k in others):
                return True
    return False


def root_of(node: Node) -> str:
    """The primitive at the root of an elementwise node's body."""
    return node.formula.body.result.op if is_map(node) else ""


@lru_cache(maxsize=16384)
def _may_span(rules: RuleSet, formula: Formula, below: tuple[Body | None, ...]) -> bool:
    """Whether a left side may span a formula and an operand; ``below`` has the bodies of elementwise operands."""

    def root_at(operand: int) -> str:
        body = below[operand]
        return "" if body is None else body.result.op

    above = parents_of(formula.body)
    bodies = [below[r.operand] for r in formula.reads]
    return any(b is not None and _may_match(rules, above[k], b, formula.reads, root_at) for k, b in enumerate(bodies))


def across(work: Work, made: Applied) -> Applied | None:
    """The formula with a rule applied that spans it and its elementwise operands."""
    made = _through_views(work, made)
    formula = made.formula
    below = tuple([n.formula.body if is_map(n) else None for n in made.inputs])
    if not _may_span(work.spanning or work.scalars, formula, below):
        return None
    above = parents_of(formula.body)
    if formula.combine == "sum" and len(dict.fromkeys(tuple(sorted(variables_of(r))) for r in formula.reads)) > 1:
        return None  # a product of tensors keeps the two factors that a matrix product is made of
    look = Look(work, Operands(made.inputs), len(formula.body.instrs))
    parts = tuple(look.part(r, above[k], formula.reads, 0) for k, r in enumerate(formula.reads))
    found = _spanned(formula.body, parts, work.scalars)
    if found is None:
        return None
    done = Applied(replace(formula, reads=found.reads, body=found.body), tuple(look.operands.nodes))
    if not any(f.rule in _STABILISING for f in found.firings) and not _pays(work, made, done):
        return None
    work.note_firings(found.firings)
    return done


@dataclass(frozen=True, slots=True)
class Spanned:
    """A body in which a rule took in those of operands."""

    reads: tuple[Read, ...]
    body: Body
    firings: tuple[ScalarFiring, ...]


@lru_cache(maxsize=16384)
def _spanned(body: Body, parts: tuple[Part, ...], rules: RuleSet) -> Spanned | None:
    """What a body over ``parts`` becomes by rules that span it and them; None where none does."""
    builder = Rewriter(rules)
    deep = Deep(builder)
    values = [deep.value(part) for part in parts]
    inside = len(builder.firings)
    result = builder.include(body, values)[-1]
    fired = tuple(builder.firings[inside:])
    return Spanned(*_cut(deep, result), fired) if fired else None


def _through_views(work: Work, made: Applied) -> Applied:
    """The formula with those reads of views replaced by reads of what they show where a rule may match that."""
    if not any(traits(node) & VIEW for node in made.inputs):
        return made
    formula, operands, reads = made.formula, Operands(made.inputs), list(made.formula.reads)
    above = parents_of(formula.body)
    for k, read in enumerate(reads):
        node, index = made.inputs[read.operand], read.index
        while is_view(node) and not (node in work.protected or read.guards or node.formula.guards):
            found = moved(index, node, operands)
            if found is None or found.reads[0].guards:
                break
            node, index = operands.nodes[found.reads[0].operand], found.reads[0].index
            if is_map(node) and _may_match(
                work.scalars, above[k], node.formula.body, formula.reads, lambda at: root_of(made.inputs[at])
            ):
                reads[k] = Read(operands.number(node), index)
                break
    return (
        Applied(replace(formula, reads=tuple(reads)), tuple(operands.nodes)) if reads != list(formula.reads) else made
    )


_STABILISING = dict.fromkeys(rule.name for rule in STABILISE.rules)


def _cut(deep: Deep, result: Scalar) -> tuple[tuple[Read, ...], Body]:
    """The body that computes ``result``, cut at the operands whose values are still there, and its reads."""
    builder = BodyBuilder()
    reads: list[Read] = []
    instrs = deep.builder.instrs
    needed = [result.position]
    seen = dict.fromkeys(needed)
    for at in needed:
        if at not in deep.stands:
            for a in instrs[at].args:
                if a not in seen:
                    seen[a] = None
                    needed.append(a)
    values: dict[int, Scalar] = {}
    for at in sorted(seen):
        instr = instrs[at]
        read = deep.stands.get(at)
        if read is None and instr.op == "read" and isinstance(instr.attr, int):
            read = deep.reads[instr.attr]
        if read is None:
            args = tuple(values[a].position for a in instr.args)
            values[at] = builder.emit(Instr(instr.op, args, instr.dtype, instr.attr))
            continue
        if read not in reads:
            reads.append(read)
        values[at] = builder.read(reads.index(read), instr.dtype)
    return tuple(reads), builder.finish(values[result.position])


def _pays(work: Work, before: Applied, after: Applied) -> bool:
    """Whether no more operations are done than before, those of operands that are not needed any more included.

    An operand that is read at fewer variables than there are is computed once for many points; it saves nothing.
    """
    kept = dict.fromkeys(after.inputs[r.operand] for r in after.formula.reads)
    everywhere = [v for v, extent in enumerate(before.formula.extents) if extent != 1]
    gone = [
        before.inputs[r.operand]
        for r in before.formula.reads
        if before.inputs[r.operand] not in kept and all(v in variables_of(r) for v in everywhere)
    ]
    gone = [n for n in dict.fromkeys(gone) if is_map(n) and work.is_single(n)]
    spare = sum(n_operations(n.formula.body) for n in gone)
    return n_operations(after.formula.body) <= n_operations(before.formula.body) + spare


def n_operations(body: Body) -> int:
    """How many instructions of a body compute something."""
    return sum(1 for i in body.instrs if i.args)


ACROSS = TensorRule("across-nodes", "exact", across, operands=MAP, spans=True)
