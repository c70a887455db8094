"""Formulas with their operands, and the small steps that rules are made of: tidying, composing, taking bodies in."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache

from graphc.graph.formula import (
    Affine,
    Formula,
    FromData,
    Guard,
    Index,
    Read,
    always,
    constant,
    data_indices,
    index_value,
    map_operands,
    map_variables,
    never,
    plain,
    substitute,
    substitute_guard,
    substitute_read,
    var,
)
from graphc.graph.graph import Node
from graphc.graph.scalar import Body, BodyBuilder, Instr, Scalar
from graphc.structs import dataclass, replace


@dataclass(frozen=True, slots=True)
class Applied:
    """A formula of ``inputs``: a node before it is one."""

    formula: Formula
    inputs: tuple[Node, ...]


class Operands:
    """Operand nodes, each once, in the order in which they were first asked for."""

    __slots__ = ("_number", "nodes")

    def __init__(self, nodes: Iterable[Node] = ()) -> None:
        self.nodes: list[Node] = []
        self._number: dict[Node, int] = {}
        for node in nodes:
            self.nodes.append(node)
            self._number.setdefault(node, len(self.nodes) - 1)

    def number(self, node: Node) -> int:
        """The number of an operand; a new one where it is not known."""
        if node not in self._number:
            self._number[node] = len(self.nodes)
            self.nodes.append(node)
        return self._number[node]


@dataclass(frozen=True, slots=True)
class Moved:
    """What a formula is at other indices: its reads, its guards, and the expression of each of its variables (None
    where that is an index from data).
    """

    reads: tuple[Read, ...]
    guards: tuple[Guard, ...]
    table: tuple[Affine | None, ...]


def moved(index: tuple[Index, ...], node: Node, operands: Operands) -> Moved | None:
    """The elementwise formula of ``node`` where the node is read at ``index``; operands are numbered by ``operands``.

    None where the index maps do not compose, or where an index from data would no longer be checked.
    """
    if not any(isinstance(i, FromData) for i in index) and not data_indices(node.formula):
        found = _moved(index, node.formula)
        numbers = [operands.number(n) for n in node.inputs]
        reads = [Read(numbers[r.operand], r.index, r.guards) for r in found.reads]
        return Moved(tuple(reads), found.guards, found.table)
    return _moved_with_data(index, node, operands)


@lru_cache(maxsize=16384)
def _moved(index: tuple[Affine, ...], formula: Formula) -> Moved:
    """What a formula without indices from data is at other indices; its operands keep their numbers."""
    reads = tuple(substitute_read(r, index) for r in formula.reads)
    return Moved(reads, moved_guards(formula.guards, index), index)


def _moved_with_data(index: tuple[Index, ...], node: Node, operands: Operands) -> Moved | None:
    f = node.formula
    data_axes = [v for v, i in enumerate(index) if isinstance(i, FromData)]
    table = tuple(i if isinstance(i, Affine) else None for i in index)
    used: dict[int, None] = {}

    def expr(e: Affine) -> Affine | None:
        return None if any(v in data_axes for v, _ in e.terms) else substitute(e, table)

    def data(d: FromData) -> FromData | None:
        parts = [expr(i) for i in d.index]
        kept = tuple(p for p in parts if p is not None)
        return FromData(operands.number(node.inputs[d.operand]), kept, d.bound) if len(kept) == len(parts) else None

    def guard(g: Guard) -> Guard | None:
        e = expr(g.expr)
        d = data(g.data) if g.data else None
        return None if e is None or (g.data and d is None) else Guard(g.kind, e, g.divisor, d)

    def axis(i: Index) -> Index | None:
        if isinstance(i, FromData):
            return data(i)
        variable = i.variable()
        if variable is not None and variable in data_axes:
            used[variable] = None
            return index[variable]
        return expr(i)

    reads = []
    for read in f.reads:
        axes = [axis(i) for i in read.index]
        guards = [guard(g) for g in read.guards]
        if any(a is None for a in axes) or any(g is None for g in guards):
            return None
        kept_axes = tuple(a for a in axes if a is not None)
        kept_guards = tuple(g for g in guards if g is not None)
        reads.append(Read(operands.number(node.inputs[read.operand]), kept_axes, kept_guards))
    own = [guard(g) for g in f.guards]
    if any(g is None for g in own) or len(used) < len(data_axes):
        return None
    return Moved(tuple(reads), tuple(g for g in own if g is not None), table)


def is_map(node: Node) -> bool:
    """Whether a node is elementwise: one point an element."""
    return node.kind == "formula" and node.formula.combine == "none"


def is_view(node: Node) -> bool:
    """Whether a node only reads another at other indices."""
    return is_map(node) and node.formula.body.is_read() is not None and len(node.formula.reads) == 1


# What a node is, for rules to say what they are about: a node may have several of these traits.
CONST, MAP, VIEW, GROUND, SUM, SCATTER, JOIN = (1 << k for k in range(7))


def traits(node: Node) -> int:
    """The traits of a node, joined by ``|``.

    ``CONST`` an array; ``MAP`` elementwise, of which ``VIEW`` reads one node and ``GROUND`` none; ``JOIN`` combines
    points, of which ``SUM`` adds them and writes each element at a place of its own; ``SCATTER`` writes elsewhere.
    """
    return formula_traits(node.attr) if isinstance(node.attr, Formula) else CONST if node.kind == "const" else 0


@lru_cache(maxsize=16384)
def formula_traits(formula: Formula) -> int:
    """The traits of a node that computes ``formula``."""
    if formula.combine != "none":
        if not formula.is_plain():
            return JOIN | SCATTER
        return JOIN | SUM if formula.combine == "sum" else JOIN
    if not formula.reads:
        return MAP if formula.guards else MAP | GROUND
    return MAP | VIEW if len(formula.reads) == 1 and formula.body.is_read() is not None else MAP


def is_ground(node: Node) -> bool:
    """Whether a node is elementwise and reads nothing: constants, sizes and index values alone."""
    return is_map(node) and not node.formula.reads and not node.formula.guards


def variables_of(read: Read) -> tuple[int, ...]:
    """The variables that move a read, guards included, in order of appearance."""
    exprs = [e for i in read.index for e in _affines(i)]
    for g in read.guards:
        exprs += [g.expr, *(g.data.index if g.data else ())]
    return tuple(dict.fromkeys(v for e in exprs for v, _ in e.terms))


def _affines(index: Index) -> tuple[Affine, ...]:
    return (index,) if isinstance(index, Affine) else index.index


def guard_variables(guards: Iterable[Guard]) -> tuple[int, ...]:
    """The variables that guards name."""
    exprs = [e for g in guards for e in (g.expr, *(g.data.index if g.data else ()))]
    return tuple(dict.fromkeys(v for e in exprs for v, _ in e.terms))


def used_variables(formula: Formula) -> tuple[int, ...]:
    """The variables that a formula's reads, guards and body name, ascending."""
    found = [v for r in formula.reads for v in variables_of(r)]
    return tuple(sorted(dict.fromkeys([*found, *guard_variables(formula.guards), *formula.body.indices()])))


def with_variables(formula: Formula, kept: Sequence[int]) -> Formula:
    """The formula over the variables ``kept`` alone, the others set to 0; the write map must not need them."""
    table = [var(kept.index(v)) if v in kept else constant(0) for v in range(len(formula.extents))]
    return map_variables(formula, table, tuple(formula.extents[v] for v in kept))


def tidied(formula: Formula) -> Formula:
    """The formula without guards that always hold, reads that a guard makes 0, and joined variables of extent 1.

    A joined variable of extent 1 goes where nothing is lost: in any combiner without guards, and in a sum with them.
    """
    extents = formula.extents
    guards = tuple(dict.fromkeys(g for g in formula.guards if not always(g, extents)))
    reads = []
    gone: list[int] = []
    for k, read in enumerate(formula.reads):
        own = dict.fromkeys(g for g in read.guards if g not in guards and not always(g, extents))
        if any(never(g, extents) for g in own):
            gone.append(k)
        reads.append(read if len(own) == len(read.guards) else replace(read, guards=tuple(own)))
    if guards != formula.guards or tuple(reads) != formula.reads:
        formula = replace(formula, guards=guards, reads=tuple(reads))
    if gone:
        formula = replace(formula, body=_with_zeros(formula.body, gone))
    if formula.combine in ("sum", "none") and any(never(g, extents) for g in guards):
        return nothing(formula)
    if formula.combine in ("none", "argmax", "argmin") or not formula.is_plain():
        return formula
    if guards and formula.combine != "sum":
        return formula
    kept = [v for v in range(len(extents)) if v < len(formula.write) or extents[v] != 1]
    if len(kept) < len(extents):
        formula = with_variables(formula, kept)
    return formula if formula.reduced() else replace(formula, combine="none")


def nothing(formula: Formula) -> Formula:
    """The formula of zeros with that shape."""
    builder = BodyBuilder()
    body = builder.finish(builder.const(0, formula.dtype))
    return Formula(formula.shape, plain(len(formula.shape)), formula.shape, (), body)


def _with_zeros(body: Body, reads: Sequence[int]) -> Body:
    builder = BodyBuilder()
    types = {i.attr: i.dtype for i in body.instrs if i.op == "read"}
    zeros = [builder.const(0, types[k]) if k in reads and k in types else None for k in range(max(reads) + 1)]
    return builder.finish(builder.include(body, zeros)[-1])


@lru_cache(maxsize=16384)
def compacted(formula: Formula) -> tuple[Formula, tuple[int, ...]]:
    """The formula with each read once, in order of first appearance, and the operands that it keeps, renumbered so."""
    order = list(dict.fromkeys(i.attr for i in formula.body.instrs if i.op == "read" and isinstance(i.attr, int)))
    reads: dict[Read, int] = {}
    table: dict[int, int] = {}
    for k in order:
        table[k] = reads.setdefault(formula.reads[k], len(reads))
    if any(old != new for old, new in table.items()) or len(reads) != len(formula.reads):
        formula = replace(formula, reads=tuple(reads), body=_renumbered(formula.body, table))
    numbers: dict[int, int] = {}
    for read in formula.reads:
        numbers.setdefault(read.operand, len(numbers))
    for data in data_indices(formula):
        numbers.setdefault(data.operand, len(numbers))
    if any(old != new for old, new in numbers.items()):
        formula = map_operands(formula, numbers.__getitem__)
    return formula, tuple(numbers)


def _renumbered(body: Body, table: dict[int, int]) -> Body:
    builder = BodyBuilder()
    values: list[Scalar] = []
    for instr in body.instrs:
        attr = table[instr.attr] if instr.op == "read" and isinstance(instr.attr, int) else instr.attr
        values.append(builder.emit(Instr(instr.op, tuple(values[a].position for a in instr.args), instr.dtype, attr)))
    return builder.finish(values[-1])


def index_scalars(builder: BodyBuilder, table: Sequence[Affine | None]) -> list[Scalar | None]:
    """The index values that a table gives for a body's own; None for a variable that stays (or may not occur)."""
    return [None if t is None or t == var(v) else index_value(builder, t) for v, t in enumerate(table)]


def with_reads_in_order(formula: Formula, order: Sequence[int]) -> Formula:
    """The formula with its reads in another order: ``order[k]`` is the number of the read that becomes read k."""
    table = {old: new for new, old in enumerate(order)}
    return replace(formula, reads=tuple(formula.reads[k] for k in order), body=_renumbered(formula.body, table))


def moved_guards(guards: Iterable[Guard], table: Sequence[Affine | None]) -> tuple[Guard, ...]:
    """Guards over other variables."""
    return tuple(substitute_guard(g, table) for g in guards)
