"""The scalar programs of a nest: values of nodes at index expressions, written through nodes that have no buffer."""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence

from graphc.errors import InternalError
from graphc.graph.dtypes import int64
from graphc.graph.formula import (
    Affine,
    FromData,
    Guard,
    Index,
    Read,
    always,
    index_value,
    substitute,
    substitute_guard,
)
from graphc.graph.graph import Node
from graphc.graph.scalar import BodyBuilder, Instr, Scalar
from graphc.graph.sizes import SizeLike
from graphc.kernels.form import Access, Condition, DataTerm, Flat, strides
from graphc.kernels.prepare import in_bounds
from graphc.structs import dataclass, field


@dataclass(frozen=True, slots=True)
class Address:
    """Where kept nodes lie: the buffer of each."""

    buffer: Callable[[Node], int]

    def access(
        self,
        node: Node,
        index: Sequence[Index],
        guards: Sequence[Guard],
        operands: Sequence[Node],
        outer: Sequence[Condition] = (),
    ) -> Access:
        """The element of ``node`` at ``index``, under guards and conditions; indices and guards from data name
        ``operands``."""
        const: SizeLike = 0
        terms: dict[int, SizeLike] = {}
        data: list[DataTerm] = []
        for expr, stride in zip(index, strides(node.shape), strict=True):
            if isinstance(expr, FromData):
                data.append(DataTerm(*self.element(expr, operands), stride))
                continue
            const = const + stride * expr.const
            for variable, coefficient in expr.terms:
                terms[variable] = terms.get(variable, 0) + stride * coefficient
        flat = Flat(const, tuple(sorted((v, s) for v, s in terms.items() if s != 0)))
        own = self.conditions(guards, operands)
        return Access(self.buffer(node), flat, tuple(data), own + tuple(c for c in outer if c not in own))

    def element(self, data: FromData, operands: Sequence[Node]) -> tuple[int, Flat]:
        """The buffer and place of an index from data."""
        access = self.access(operands[data.operand], data.index, (), operands)
        return access.buffer, access.flat

    def conditions(self, guards: Sequence[Guard], operands: Sequence[Node]) -> tuple[Condition, ...]:
        """Guards at loop level."""
        return tuple(
            Condition(g.kind, g.expr, g.divisor, None if g.data is None else self.element(g.data, operands))
            for g in guards
        )


@dataclass(slots=True)
class NestBody:
    """Writes one program of a nest. ``here``: nodes whose value at the nest's own point is at hand, which is their
    element at ``own``. owners: of an instruction the numbers of the nodes whose value it is."""

    address: Address
    kept: Container[Node]
    extents: tuple[SizeLike, ...]
    loads: list[Access]
    own: tuple[Affine, ...]
    builder: BodyBuilder = field(default_factory=BodyBuilder)
    here: dict[Node, Scalar] = field(default_factory=dict)
    owners: dict[int, tuple[int, ...]] = field(default_factory=dict)

    def accumulator(self, number: int, node: Node) -> Scalar:
        """The result of the nest's reduction ``number``."""
        result = self.builder.emit(Instr("acc", (), node.dtype, number))
        self.owners[result.position] = (node.number,)
        return result

    def _note(self, node: Node, values: Sequence[Scalar], first: int) -> None:
        """Notes whose values instructions are: those of a node's body but its reads, and what was written for it from
        ``first`` on that is nobody else's."""
        number = node.number
        for instr, value in zip(node.formula.body.instrs, values, strict=True):
            known = self.owners.get(value.position)
            if known is None:
                self.owners[value.position] = (number,)
            elif instr.op != "read" and number not in known:
                self.owners[value.position] = known + (number,)
        for position in range(first, len(self.builder.instrs)):
            self.owners.setdefault(position, (number,))

    def load(
        self,
        node: Node,
        index: tuple[Index, ...],
        guards: tuple[Guard, ...],
        operands: Sequence[Node],
        outer: Sequence[Condition] = (),
    ) -> Scalar:
        """The element of a kept node, as ``Address.access`` says."""
        access = self.address.access(node, index, guards, operands, outer)
        if access not in self.loads:
            self.loads.append(access)
        result = self.builder.read(self.loads.index(access), node.dtype)
        self.owners.setdefault(result.position, (node.number,))
        return result

    def value(self, node: Node, table: Sequence[Affine | None], outer: tuple[Condition, ...] = ()) -> Scalar:
        """The value of a formula node's body with its variables replaced by ``table``; its guards make it 0. Nobody
        wants it outside the conditions ``outer``, where its loads must not reach outside their arrays.
        """
        formula, first = node.formula, len(self.builder.instrs)
        guards = tuple(substitute_guard(g, table) for g in formula.guards)
        guards = tuple(g for g in guards if not always(g, self.extents))
        inside = outer + self.address.conditions(guards, node.inputs)
        reads = [self._read(node, r, table, inside) for r in formula.reads]
        indices = [None if t is None else index_value(self.builder, t) for t in table]
        values = self.builder.include(formula.body, reads, indices)
        result = self.chosen(guards, node.inputs, values[-1])
        self._note(node, values, first)
        return result

    def point(self, node: Node, guards: Sequence[Guard] = ()) -> Scalar:
        """The value of a formula node's body at a point of its own domain; its guards keep its loads inside, and are
        otherwise the nest's."""
        formula, first = node.formula, len(self.builder.instrs)
        outer = tuple(g for g in formula.guards if not always(g, self.extents))
        table: list[Affine | None] = [None] * len(formula.extents)
        inside = self.address.conditions(outer, node.inputs)
        reads = [self._read(node, r, table, inside) for r in formula.reads]
        values = self.builder.include(formula.body, reads)
        result = self.chosen([g for g in guards if g in outer], node.inputs, values[-1])
        self._note(node, values, first)
        return result

    def chosen(self, guards: Sequence[Guard], operands: Sequence[Node], value: Scalar) -> Scalar:
        """``value`` where all guards hold, else 0."""
        for guard in guards:
            value = self.builder.masked(self._holds(guard, operands), value)
        return value

    def _holds(self, guard: Guard, operands: Sequence[Node]) -> Scalar:
        expr = index_value(self.builder, guard.expr)
        if guard.kind == "ge":
            return expr >= 0
        if guard.kind == "div":
            return expr % guard.divisor == 0
        if guard.data is None:
            return expr == 0
        data = self.load(operands[guard.data.operand], guard.data.index, (), operands)
        return expr == self.builder.cast(data, int64)

    def _read(self, node: Node, read: Read, table: Sequence[Affine | None], outer: tuple[Condition, ...]) -> Scalar:
        operand = node.inputs[read.operand]
        index = tuple(_moved(i, table) for i in read.index)
        own = tuple(g for g in (substitute_guard(g, table) for g in read.guards) if not always(g, self.extents))
        if operand in self.here and index == self.own:
            return self.chosen(own, node.inputs, self.here[operand])
        if operand in self.kept:
            stays_inside = in_bounds(Read(0, index), operand.shape, self.extents)
            return self.load(operand, index, own, node.inputs, () if stays_inside else outer)
        if own or any(isinstance(i, FromData) for i in index):
            raise InternalError(f"lower: node {operand.number} is read under a guard and has no buffer")
        inner: list[Affine | None] = [i for i in index if isinstance(i, Affine)]
        return self.value(operand, inner, outer)


def _moved(index: Index, table: Sequence[Affine | None]) -> Index:
    if isinstance(index, Affine):
        return substitute(index, table)
    return FromData(index.operand, tuple(substitute(a, table) for a in index.index), index.bound)
