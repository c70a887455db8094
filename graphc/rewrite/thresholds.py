"""Tests of a value that was clamped at the same bound: the clamped value answers them too.

``z <= 0`` and ``where(z <= 0, 0, z) <= 0`` have one answer, for NaN as well. So the derivative of relu, ``where(z <= 0,
0, g)``, may read relu's result in place of ``z``; where a sum of products reads that result, it is stored in any case,
and ``z`` need not be.
"""

from __future__ import annotations

from functools import lru_cache

from graphc.graph.dtypes import DType
from graphc.graph.formula import plain
from graphc.graph.graph import Node
from graphc.graph.scalar import Body, Instr, const_value
from graphc.rewrite.folding import fold
from graphc.rewrite.formulas import MAP, SUM, Applied, is_map, traits
from graphc.rewrite.work import TensorRule, Work
from graphc.structs import dataclass, replace


@dataclass(frozen=True, slots=True)
class Threshold:
    """A comparison of a value with a constant. place: which operand the value is."""

    op: str
    bound: str
    dtype: DType
    place: int


def threshold_of_result(work: Work, made: Applied) -> Applied | None:
    """A value that is only compared with a bound is read clamped at that bound, where that is stored in any case."""
    found = _compared(made.formula.body)
    if not found:
        return None
    reads, inputs = list(made.formula.reads), made.inputs
    for number, threshold in found:
        clamped = _clamped(work, inputs[reads[number].operand], threshold)
        if clamped is not None:
            reads[number] = replace(reads[number], operand=len(inputs))
            inputs = (*inputs, clamped)
    return Applied(replace(made.formula, reads=tuple(reads)), inputs) if len(inputs) > len(made.inputs) else None


def _clamped(work: Work, node: Node, threshold: Threshold) -> Node | None:
    """The node, made already, that clamps ``node`` at the bound and is an output or an operand of a sum of products."""
    source = work.stands_for.get(node)
    for reader in work.readers.get(source, ()) if source is not None else ():
        made = work.new.get(reader)
        if made is None or not is_map(made) or made.inputs != (node,) or threshold != _clamps(made.formula.body):
            continue
        read = made.formula.reads[0]
        if made.formula.guards or read.guards or made.shape != node.shape or read.index != plain(len(node.shape)):
            continue
        if reader in work.ends or any(traits(n) & SUM and len(n.inputs) > 1 for n in work.readers[reader]):
            return made
    return None


@lru_cache(maxsize=16384)
def _compared(body: Body) -> tuple[tuple[int, Threshold], ...]:
    """The reads whose values a body only compares, each with one constant in one way."""
    found: dict[int, set[Threshold | None]] = {}
    for instr in body.instrs:
        for place, a in enumerate(instr.args):
            read = body.instrs[a]
            if read.op == "read" and isinstance(read.attr, int):
                found.setdefault(read.attr, set()).add(_threshold(body, instr, place))
    return tuple((k, t) for k, (t, *others) in found.items() if t is not None and not others)


@lru_cache(maxsize=16384)
def _clamps(body: Body) -> Threshold | None:
    """The comparison that a value such as ``where(x <= bound, bound, x)`` answers as ``x`` does; None for others."""
    if body.result.op != "where":
        return None
    condition, *branches = (body.instrs[a] for a in body.result.args)
    place = next((k for k, a in enumerate(condition.args) if body.instrs[a].op == "read"), 0)
    threshold = _threshold(body, condition, place)
    if threshold is None:
        return None
    value, bound = (body.instrs[condition.args[k]] for k in (place, 1 - place))
    if branches not in ([bound, value], [value, bound]):
        return None
    at_bound = fold(condition, [bound, bound])  # where the bound is taken, the comparison must come out as it did
    return threshold if at_bound is not None and const_value(at_bound) == (branches[0] == bound) else None


def _threshold(body: Body, instr: Instr, place: int) -> Threshold | None:
    """The comparison that an instruction is of its operand ``place``."""
    if instr.op not in ("less", "less_equal"):
        return None
    bound = body.instrs[instr.args[1 - place]]
    return Threshold(instr.op, str(bound.attr), bound.dtype, place) if bound.op == "const" else None


THRESHOLD_RULES = (TensorRule("threshold-of-result", "exact", threshold_of_result, operands=MAP | SUM),)
