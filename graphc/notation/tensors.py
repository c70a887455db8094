"""A formula in whole tensors: ``sum(k) x[n,k] * w[k,j]`` is ``x · w``, and what broadcasts as in NumPy is silent."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType

from graphc.graph.formula import Formula, FromData, Read, always, constant, var
from graphc.graph.sizes import product
from graphc.notation.algebra import bracket, negative, outer, over, times
from graphc.notation.bodies import Terms, body_tree, needs
from graphc.notation.placing import SPREAD, WHOLE, Operand, axis_letters, placed, transposed, variables_of
from graphc.notation.products import Factor, Part, groups, product_factors
from graphc.notation.tree import Applied, At, Infix, Joined, Symbol, Tree, opposite, symbols
from graphc.structs import dataclass, replace

SIGNS = {"sum": "Σ", "prod": "Π"}
Axes = tuple[int, ...]
NO_MARKS: Mapping[int, Tree] = MappingProxyType({})


class NoForm(Exception):
    """The formula, or a part of it, has no form in whole tensors."""


def tensor_tree(
    formula: Formula, operands: Sequence[Operand], spill: Callable[[Tree], Tree], marks: Mapping[int, Tree] = NO_MARKS
) -> Tree | None:
    """The formula in whole tensors, or None where it has no such form.

    spill: gives a name to a part that grows too large. marks: instructions of an elementwise body that are already
    known as tensors of the result's shape.
    """
    rank = len(formula.write)
    if not formula.is_plain() or formula.extents[:rank] != formula.shape:
        return None
    try:
        tree = _Tensors(_with_columns(formula, operands), operands, spill, marks).whole()
    except NoForm:
        return None
    return None if _has_index(tree) else tree


def _with_columns(formula: Formula, operands: Sequence[Operand]) -> Formula:
    """The formula with a summed result's axis of size 1 read where it alone can come from: ``w[k, 0]`` is a column."""
    rank = len(formula.write)
    if formula.combine != "sum":
        return formula
    for v in range(rank):
        if formula.extents[v] != 1 or any(v in variables_of(r) for r in formula.reads):
            continue
        places = [
            (number, axis)
            for number, read in enumerate(formula.reads)
            for axis, index in enumerate(read.index)
            if index == constant(0) and operands[read.operand].shape[axis] == 1 and len(read.index) == 2
            and axis == (0 if v == 0 and rank > 1 else 1)
        ]  # fmt: skip
        if len(places) == 1:
            number, axis = places[0]
            read = formula.reads[number]
            moved = replace(read, index=(*read.index[:axis], var(v), *read.index[axis + 1 :]))
            reads = (*formula.reads[:number], moved, *formula.reads[number + 1 :])
            formula = replace(formula, reads=reads)
    return formula


def _has_index(tree: Tree) -> bool:
    return any(name.startswith("#") for name in symbols(tree))


@dataclass(frozen=True, slots=True)
class _Hot:
    """A guard ``variable == data[…]``: a row of a one-hot matrix."""

    variable: int
    data: FromData


class _Tensors:
    """Reads one formula's parts in whole tensors."""

    def __init__(
        self, formula: Formula, operands: Sequence[Operand], spill: Callable[[Tree], Tree], marks: Mapping[int, Tree]
    ) -> None:
        self.formula = formula
        self.marks = marks
        self.operands = operands
        self.name = spill
        self.hot: list[_Hot] = []
        for guard in formula.guards:
            variable = guard.expr.variable()
            if guard.data is None or variable is None:
                raise NoForm
            self.hot.append(_Hot(variable, guard.data))

    def whole(self) -> Tree:
        """The formula."""
        formula = self.formula
        axes = tuple(range(len(formula.write)))
        last = len(formula.body.instrs) - 1
        if formula.combine == "none":
            tree = self.outer_product() or self.value(last, axes)
            for hot in self.hot:
                tree = times(tree, self.one_hot(hot, axes), bool(self.used(last)))
            return tree
        if formula.combine == "sum":
            return self.sum_of_products()
        if self.hot:
            raise NoForm
        order = self.order([self.used_by_reads(last)])
        return self.join(self.value(last, order), order)

    def outer_product(self) -> Tree | None:
        """``x ⊗ y`` for the products of all elements of two vectors, scaled by what has no axes; else None."""
        if len(self.formula.write) != 2 or self.hot or self.marks:
            return None
        negated, factors = self.factors()
        sides = [[f for f in factors if f.used == (v,)] for v in (0, 1)]
        scale = [f for f in factors if not f.used]
        if not all(sides) or sum(map(len, sides)) + len(scale) != len(factors) or any(f.below for f in factors):
            return None
        left, right = self.times_all(sides[0], (0,)), self.times_all(sides[1], (1,))
        if isinstance(left, At) or isinstance(right, At):  # a column or a row already: it broadcasts
            return None
        tree = outer(left, right)
        for factor in reversed(scale):
            tree = times(factor.make(()), tree)
        return negative(tree) if negated else tree

    def value(self, at: int, axes: Axes) -> Tree:
        """An instruction as a tensor over the variables ``axes``."""
        formula = self.formula
        terms = Terms(
            read=lambda k: self.read(formula.reads[k], axes),
            index=lambda v: Symbol(f"#{v}"),
            spill=self.spill,
            has_axes=lambda place: bool(self.used(place)),
            known=lambda place: self.marks.get(place) or self.equality(place, axes),
        )
        return body_tree(formula.body, at, terms)

    def spill(self, tree: Tree) -> Tree:
        """A name for a part."""
        if _has_index(tree):
            raise NoForm
        return self.name(tree)

    def used(self, at: int) -> Axes:
        """The variables on which an instruction depends."""
        found: dict[int, None] = {}
        for place in needs(self.formula.body, at):
            instr = self.formula.body.instrs[place]
            if isinstance(instr.attr, int) and instr.op == "read":
                found.update(dict.fromkeys(self.variables(self.formula.reads[instr.attr])))
            elif isinstance(instr.attr, int) and instr.op == "index":
                found[instr.attr] = None
        return tuple(found)

    def used_by_reads(self, at: int) -> list[Axes]:
        """The variables of each read on which an instruction depends, in the order of its axes."""
        instrs = [self.formula.body.instrs[place] for place in needs(self.formula.body, at)]
        reads = [i.attr for i in instrs if i.op == "read" and isinstance(i.attr, int)]
        return [self.variables(self.formula.reads[k]) for k in reads]

    def variables(self, read: Read) -> Axes:
        """The variables that move a read's value: none where all elements are equal."""
        return () if self.operands[read.operand].uniform else variables_of(read)

    def order(self, reads: Sequence[Sequence[Axes]]) -> Axes:
        """All variables of some reads, in the order of the one that has them all; else as they are numbered."""
        flat = [axes for group in reads for axes in group]
        every = dict.fromkeys(v for axes in flat for v in axes)
        for axes in flat:
            if len(axes) == len(every):
                return axes
        return tuple(sorted(every))

    def read(self, read: Read, axes: Axes) -> Tree:
        """An operand, placed so that it broadcasts to ``axes``."""
        if any(not always(g, self.formula.extents) for g in read.guards):
            raise NoForm
        operand = self.operands[read.operand]
        if any(isinstance(i, FromData) for i in read.index) and not operand.uniform:
            return self.looked_up(read, operand, axes)
        tree = placed(operand, read.index, axes, self.formula.extents)
        if tree is None:
            raise NoForm
        return tree

    def looked_up(self, read: Read, operand: Operand, axes: Axes) -> Tree:
        """``t[idx]``: indices from data, the other axes whole and in order."""
        items: list[Tree] = []
        order: list[int] = []
        for index, size in zip(read.index, operand.shape, strict=True):
            if isinstance(index, FromData):
                own = variables_of(Read(index.operand, index.index))
                items.append(self.read(Read(index.operand, index.index), own))
                order += own
            else:
                variable = index.variable()
                if variable is None or self.formula.extents[variable] != size:
                    raise NoForm
                items.append(WHOLE)
                order.append(variable)
        if tuple(order) != axes:
            raise NoForm
        while items[-1] == WHOLE:
            items.pop()
        return At(operand.tree, tuple(items))

    def one_hot(self, hot: _Hot, axes: Axes) -> Tree:
        """``onehot(y)`` over ``axes``, the last of which are the classes."""
        if not axes or axes[-1] != hot.variable:
            raise NoForm
        return Applied("onehot", (self.read(Read(hot.data.operand, hot.data.index), axes[:-1]),))

    def equality(self, at: int, axes: Axes) -> Tree | None:
        """``onehot(y)`` for the condition that the index of the last axis is y; None for any other instruction."""
        instrs = self.formula.body.instrs
        if instrs[at].op != "equal" or not axes:
            return None
        for mine, other in (instrs[at].args, instrs[at].args[::-1]):
            last = instrs[mine].op == "index" and instrs[mine].attr == axes[-1]
            if last and self.used(other) and axes[-1] not in self.used(other):
                return Applied("onehot", (self.value(other, axes[:-1]),))
        return None

    def join(self, tree: Tree, axes: Axes) -> Tree:
        """A tensor over ``axes`` joined over those that the formula reduces."""
        formula, rank = self.formula, len(self.formula.write)
        kept = [v for v in axes if v < rank]
        if any(v not in axes for v in formula.reduced()):
            raise NoForm
        every = axis_letters([formula.extents[v] for v in axes])
        letters = tuple(letter for letter, v in zip(every, axes, strict=True) if v >= rank) if kept else ()
        count = product(tuple(formula.extents[v] for v in formula.reduced()))
        last = formula.reduced() == axes[-1:]
        joined = Joined(SIGNS.get(formula.combine, formula.combine), letters, tree, count, last)
        return self.stretched(joined, kept, [v if v in kept else -1 for v in axes])

    def stretched(self, tree: Tree, kept: Sequence[int], whole: Sequence[int] = ()) -> Tree:
        """A tensor over the axes ``kept`` as one of the result's rank: axes of size 1 are silent where they broadcast,
        in front, or where a reduced axis stood (-1 in ``whole``).
        """
        rank = len(self.formula.write)
        if list(kept) == list(range(rank - len(kept), rank)):  # the axes in front broadcast
            is_sum = isinstance(tree, Joined) and bool(tree.letters) and len(kept) < rank
            return At(tree, (SPREAD,) * (rank - len(kept))) if is_sum else tree
        ones = [v for v in range(rank) if v not in kept]
        if any(self.formula.extents[v] != 1 for v in ones) or sorted(kept) != list(kept):
            raise NoForm
        shape = [-1 if v in ones else v for v in range(rank)]
        if shape in (list(kept), list(whole)) or shape == [-1] * len(ones) + list(kept):
            return tree
        return At(tree, tuple(SPREAD if v < 0 else WHOLE for v in shape))

    def factors(self) -> tuple[bool, list[Factor]]:
        """The sign of the summed product, and its factors; guards that compare with data are factors too."""
        negated, found = product_factors(self.formula.body)
        factors = [
            Factor(self.used(p.at), tuple(self.used_by_reads(p.at)), partial(self.part, p), p.below) for p in found
        ]
        for hot in self.hot:
            own = (*variables_of(Read(hot.data.operand, hot.data.index)), hot.variable)
            factors.append(Factor(own, (own,), partial(self.one_hot, hot), False))
        return negated, factors

    def part(self, part: Part, axes: Axes) -> Tree:
        """A factor over ``axes``: a value, or the bracket of a condition or of its opposite."""
        tree = self.value(part.at, axes)
        if not part.mask:
            return tree
        return bracket(tree if part.mask == "if" else opposite(tree))

    def sum_of_products(self) -> Tree:
        """A matrix product, scaled or not, or a sum over axes."""
        negated, factors = self.factors()
        summed = self.formula.reduced()
        axes = tuple(range(len(self.formula.write)))
        inside = [f for f in factors if any(v in summed for v in f.used)]
        outside = [f for f in factors if f not in inside]
        if not inside:
            raise NoForm
        if any(f.below for f in inside):
            if self.hot:
                raise NoForm
            order = self.order([self.used_by_reads(len(self.formula.body.instrs) - 1)])
            return self.join(self.value(len(self.formula.body.instrs) - 1, order), order)
        found = groups(inside, summed, len(axes))
        if len(found) == 2:
            tree = self.matrix(found, summed[0])
        else:
            order = self.order([f.reads for f in found[0]])
            tree = self.join(self.times_all(found[0], order), order)
        for factor in outside:
            value = factor.make(axes)
            if factor.below:
                tree = over(tree, value)
            else:
                tree = times(tree, value, elementwise=True) if factor.used else times(value, tree)
        return negative(tree) if negated else tree

    def times_all(self, group: Sequence[Factor], axes: Axes) -> Tree:
        """The product of some factors over ``axes``."""
        tree = group[0].make(axes)
        for factor in group[1:]:
            tree = times(tree, factor.make(axes), elementwise=bool(factor.used))
        return tree

    def matrix(self, found: Sequence[Sequence[Factor]], k: int) -> Tree:
        """Two groups that share one summed index: a matrix product, its sides transposed as they need."""
        sides = [(group, self.order([f.reads for f in group])) for group in found]
        rank = len(self.formula.write)
        batch = [v for v in range(rank) if all(v in axes for _, axes in sides)]
        own = [[v for v in axes if v != k and v not in batch] for _, axes in sides]
        if own[0] and own[1] and own[0][0] > own[1][0]:
            sides.reverse()
            own.reverse()
        if not own[0] and sides[1][1] == (*own[1], k) and len(own[1]) == 1:  # w[j, k] v[k] is w · v
            sides.reverse()
            own.reverse()
        used = batch + own[0] + own[1]
        if len(own[1]) > 1 or (len(own[0]) > 1 and (batch or not own[1])) or any(k not in axes for _, axes in sides):
            raise NoForm
        left = self.side(sides[0], [*batch, *own[0], k])
        right = self.side(sides[1], [*batch, k, *own[1]])
        return self.stretched(Infix("·", left, right), used)

    def side(self, side: tuple[Sequence[Factor], Axes], wanted: list[int]) -> Tree:
        """One side of a matrix product over the axes wanted, transposed where they stand otherwise."""
        group, axes = side
        if list(axes) == wanted:
            return self.times_all(group, axes)
        if len(axes) > 1 and [*axes[:-2], axes[-1], axes[-2]] == wanted:
            return transposed(self.times_all(group, axes))
        raise NoForm
