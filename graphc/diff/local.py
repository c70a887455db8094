"""The local derivative of a formula: weight times the body's partial derivatives, at every point of its domain.

For ``y[w(d)] = combine over d of b(reads at d)`` the factor of a read is ``weight(d) * ∂b/∂read(d)``. The body is
stabilised first, then differentiated primitive by primitive, in reverse, so that shared parts are shared.
"""

from __future__ import annotations

from functools import lru_cache

from graphc.errors import NotDifferentiable
from graphc.graph.formula import (
    Affine,
    Formula,
    FromData,
    Guard,
    Index,
    Read,
    Shape,
    map_operands,
    map_variables,
    substitute,
    var,
)
from graphc.graph.graph import Graph, Node, Origin
from graphc.graph.rules import partials
from graphc.graph.scalar import Body, BodyBuilder, Scalar
from graphc.ops.combiners import COMBINERS, Point
from graphc.rewrite.scalar_rules import stabilise_body
from graphc.structs import dataclass, field, replace


@lru_cache(maxsize=16384)
def stable(formula: Formula) -> Formula:
    """The formula with its body in the form that is safe to differentiate."""
    return replace(formula, body=stabilise_body(formula.body))


@dataclass(slots=True)
class Domain:
    """A formula under differentiation: its points, to which reads of further nodes (cotangent, result) are added.

    ``base`` is the node's formula, ``formula`` the same behind the ``len(lead)`` variables of a Jacobian's rows.
    """

    graph: Graph
    node: Node
    base: Formula
    formula: Formula
    builder: BodyBuilder = field(default_factory=BodyBuilder)
    reads: list[Read] = field(default_factory=list)
    inputs: list[Node] = field(default_factory=list)
    values: list[Scalar] = field(default_factory=list)

    @classmethod
    def of(cls, graph: Graph, node: Node, formula: Formula, lead: Shape = ()) -> Domain:
        """The domain of ``node``'s formula behind the axes ``lead``, with the body's values written."""
        shifted = _behind(formula, lead)
        domain = cls(graph, node, formula, shifted, reads=list(shifted.reads), inputs=list(node.inputs))
        domain.values = domain.builder.include(shifted.body, ())
        return domain

    def read(self, node: Node, index: tuple[Index, ...], guards: tuple[Guard, ...] = ()) -> Scalar:
        """The value of another node at ``index`` at the point, 0 where a guard fails."""
        if node in self.inputs:
            operand = self.inputs.index(node)
        else:
            operand = len(self.inputs)
            self.inputs.append(node)
        new = Read(operand, index, guards)
        if new not in self.reads:
            self.reads.append(new)
        return self.builder.read(self.reads.index(new), node.dtype)

    def result(self) -> Scalar:
        """The formula's result at the point that it writes."""
        return self.read(self.node, self.formula.write)

    def weight(self) -> Scalar | None:
        """∂y/∂b at the point; None for 1. Raises NotDifferentiable where the combiner has no law."""
        law = COMBINERS[self.formula.combine].law
        if law is None:
            raise NotDifferentiable(f"{self.formula.combine}: integers and booleans carry no derivative")

        table = [var(len(self.formula.extents) - len(self.base.extents) + v) for v in range(len(self.base.extents))]

        def read(node: Node, index: tuple[Affine, ...]) -> Scalar:
            return self.read(node, tuple(substitute(i, table) for i in index))

        return law(Point(self.graph, self.node, self.base, self.builder, self.values[-1], self.result, read))

    def adjoints(self, seed: Scalar) -> dict[int, Scalar]:
        """For each read that the seed reaches, ``seed * ∂b/∂read``: reverse mode through the body."""
        body = self.formula.body
        adjoint: dict[int, Scalar] = {len(body.instrs) - 1: seed}
        found: dict[int, Scalar] = {}
        for position in range(len(body.instrs) - 1, -1, -1):
            ct = adjoint.get(position)
            if ct is None:
                continue
            instr = body.instrs[position]
            if instr.op == "read" and isinstance(instr.attr, int):
                found[instr.attr] = ct
                continue
            for arg, factor in zip(instr.args, self.factors(position, body), strict=True):
                if factor is None or body.instrs[arg].op in ("const", "index", "size"):
                    continue
                term = self.builder.cast(self.builder.scaled(ct, factor), body.instrs[arg].dtype)
                known = adjoint.get(arg)
                adjoint[arg] = term if known is None else known + term
        return found

    def factors(self, position: int, body: Body) -> tuple[Scalar | None, ...]:
        """The partial derivatives of one instruction, None where there is none; 1 is a constant."""
        instr = body.instrs[position]
        if instr.dtype.kind != "f" or not instr.args:
            return (None,) * len(instr.args)
        if instr.op == "cast":
            source = body.instrs[instr.args[0]].dtype
            return (self.builder.const(1.0, instr.dtype) if source.kind == "f" else None,)
        rule = partials(instr.op)
        if rule is None:
            return (None,) * len(instr.args)
        operands = [self.values[a] for a in instr.args]
        y = self.values[position]
        if position == len(body.instrs) - 1 and self.formula.combine == "none" and len(body.instrs) > 1:
            y = self.result()
        result: list[Scalar | None] = []
        for arg, factor in zip(instr.args, rule(*operands, y), strict=True):
            if body.instrs[arg].dtype.kind != "f" or factor is None:
                result.append(None)
            elif isinstance(factor, Scalar):
                result.append(factor)
            else:
                result.append(self.builder.const(float(factor), instr.dtype))
        return tuple(result)

    def node_of(self, value: Scalar, like: Formula, origins: tuple[Origin, ...]) -> Node:
        """The node that joins ``value`` over the points of ``like`` (its extents, guards, write map and combiner)."""
        formula = replace(like, reads=tuple(self.reads), body=self.builder.finish(value))
        formula, inputs = without_unused(formula, self.inputs)
        return self.graph.formula(formula, inputs, origins)


def without_unused(formula: Formula, inputs: list[Node]) -> tuple[Formula, tuple[Node, ...]]:
    """The formula with reads that its body does not name dropped, and operands that nothing names dropped."""
    needed = formula.body.reads()
    if needed != tuple(range(len(formula.reads))):
        number = {old: new for new, old in enumerate(needed)}
        instrs = [
            i._replace(attr=number[i.attr]) if i.op == "read" and isinstance(i.attr, int) else i
            for i in formula.body.instrs
        ]
        formula = replace(formula, reads=tuple(formula.reads[k] for k in needed), body=Body(tuple(instrs)))
    operands: dict[int, int] = {}

    def note(index: Index) -> None:
        if isinstance(index, FromData):
            operands.setdefault(index.operand, len(operands))

    for read in formula.reads:
        operands.setdefault(read.operand, len(operands))
        for index in read.index:
            note(index)
        for guard in read.guards:
            if guard.data:
                note(guard.data)
    for guard in formula.guards:
        if guard.data:
            note(guard.data)
    for index in formula.write:
        note(index)
    used = tuple(operands)
    if used != tuple(range(len(used))):
        formula = map_operands(formula, operands.__getitem__)
    return formula, tuple(inputs[k] for k in used)


def _behind(formula: Formula, lead: Shape) -> Formula:
    """The formula with its variables behind new ones, which neither its reads nor its write map name."""
    if not lead:
        return formula
    table = [var(len(lead) + v) for v in range(len(formula.extents))]
    return map_variables(formula, table, lead + formula.extents)
