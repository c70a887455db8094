"""Sums of exponentials in a form that does not overflow: the logarithm of one, and exponentials divided by one."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from graphc.graph.formula import Read
from graphc.graph.graph import Node
from graphc.graph.scalar import Body, BodyBuilder, Instr, Scalar
from graphc.rewrite.across import MOST_DEPTH
from graphc.rewrite.formulas import SUM, Applied, Operands, index_scalars, is_map, moved
from graphc.rewrite.work import TensorRule, Work
from graphc.structs import dataclass, replace


@dataclass(frozen=True, slots=True)
class ExpSum:
    """A sum of exponentials whose exponent is not shifted by its maximum: the formula of the exponent."""

    exponent: Applied


def exp_sum(work: Work, node: Node) -> ExpSum | None:
    """What a node is if it is a plain sum of exp(b), b not less its own maximum; the exp may be a node of its own."""
    if node.kind != "formula" or node.formula.combine != "sum" or not node.formula.is_plain():
        return None
    made = Applied(node.formula, node.inputs)
    if node.formula.body.is_read() is not None:
        inner = _taken_in(work, made, 0)
        if inner is None:
            return None
        made = inner
    body = made.formula.body
    if body.result.op != "exp":
        return None
    exponent = Applied(replace(made.formula, body=_up_to(body, body.result.args[0])), made.inputs)
    return None if _less_maximum(exponent.formula.body, exponent.formula.reads, exponent.inputs) else ExpSum(exponent)


def _taken_in(work: Work, made: Applied, number: int) -> Applied | None:
    """The formula with the elementwise operand of read ``number`` written into its body."""
    read = made.formula.reads[number]
    node = made.inputs[read.operand]
    operands = Operands(made.inputs)
    if not is_map(node) or node in work.protected or read.guards or node.formula.guards:
        return None
    found = moved(read.index, node, operands)
    if found is None or any(found.table[v] is None for v in node.formula.body.indices()):
        return None
    builder = BodyBuilder()
    reads = list(made.formula.reads)
    inner = [builder.read(len(reads) + k, operands.nodes[r.operand].dtype) for k, r in enumerate(found.reads)]
    value = builder.include(node.formula.body, inner, index_scalars(builder, found.table))[-1]
    values = [value if k == number else None for k in range(len(reads))]
    body = builder.finish(builder.include(made.formula.body, values)[-1])
    return Applied(replace(made.formula, reads=(*reads, *found.reads), body=body), tuple(operands.nodes))


def _up_to(body: Body, position: int) -> Body:
    builder = BodyBuilder()
    return builder.finish(builder.include(body, ())[position])


def _less_maximum(body: Body, reads: Sequence[Read], inputs: Sequence[Node]) -> bool:
    """Whether a body subtracts a maximum at its root, or reads a node that does."""
    for _ in range(MOST_DEPTH):
        root = body.result
        number = body.is_read()
        if number is None:
            break
        node = inputs[reads[number].operand]
        if not is_map(node):
            return False
        body, reads, inputs = node.formula.body, node.formula.reads, node.inputs
    root = body.result
    if root.op != "sub":
        return False
    shift = body.instrs[root.args[1]]
    if shift.op != "read" or not isinstance(shift.attr, int):
        return False
    node = inputs[reads[shift.attr].operand]
    while node.kind in ("stop_gradient", "variable") or (is_map(node) and node.formula.body.is_read() is not None):
        node = node.inputs[0]
    return node.kind == "formula" and node.formula.combine == "max"


def log_of_exp_sum(work: Work, made: Applied) -> Applied | None:
    """log of a sum of exponentials is a joining of its own, which does not overflow."""
    body = made.formula.body
    for instr in body.instrs:
        source = body.instrs[instr.args[0]] if instr.op == "log" else None
        if source is None or source.op != "read" or not isinstance(source.attr, int):
            continue
        read = made.formula.reads[source.attr]
        found = exp_sum(work, made.inputs[read.operand])
        if found is None or read.guards:
            continue
        return _replaced(made, instr, lambda b, v, total: total, _joined(work, found), read)
    return None


def _joined(work: Work, found: ExpSum) -> Node:
    return work.part(Applied(replace(found.exponent.formula, combine="logsumexp"), found.exponent.inputs))


def softmax_of_exp_sum(work: Work, made: Applied) -> Applied | None:
    """exp(b) over the sum of exponentials is exp(b - logsumexp), which does not overflow."""
    body = made.formula.body
    for instr in body.instrs:
        if instr.op != "div" or body.instrs[instr.args[1]].op != "read":
            continue
        below = body.instrs[instr.args[1]].attr
        assert isinstance(below, int)
        read = made.formula.reads[below]
        found = exp_sum(work, made.inputs[read.operand]) if not read.guards else None
        above = body.instrs[instr.args[0]]
        if found is None:
            continue
        if above.op == "read" and isinstance(above.attr, int):
            source = made.inputs[made.formula.reads[above.attr].operand]
            if not is_map(source) or source.formula.body.result.op != "exp":
                continue
            return _taken_in(work, made, above.attr)  # the exp stands in this body when the rule is tried again
        if above.op == "exp":
            return _replaced(made, instr, _exp_less(above.args[0]), _joined(work, found), read)
    return None


def _exp_less(exponent: int) -> Value:
    return lambda builder, values, total: builder.apply("exp", values[exponent] - total)


Value = Callable[[BodyBuilder, Sequence[Scalar], Scalar], Scalar]


def _replaced(made: Applied, instr: Instr, value: Value, node: Node, like: Read) -> Applied:
    """The formula with ``value`` in the place of one instruction; it is given the builder, the values before it and the
    value of ``node`` at the index of ``like``."""
    builder = BodyBuilder()
    values: list[Scalar] = []
    for old in made.formula.body.instrs:
        if old == instr:
            values.append(value(builder, values, builder.read(len(made.formula.reads), node.dtype)))
        else:
            values.append(builder.emit(replace(old, args=tuple(values[a].position for a in old.args))))
    reads = (*made.formula.reads, Read(len(made.inputs), like.index))
    formula = replace(made.formula, reads=reads, body=builder.finish(values[-1]))
    return Applied(formula, (*made.inputs, node))


STABLE_RULES = (
    TensorRule("log-of-exp-sum", "rounding", log_of_exp_sum, operands=SUM),
    TensorRule("softmax-of-exp-sum", "rounding", softmax_of_exp_sum, operands=SUM),
)
