"""Trees made shorter: what a reader would cancel, sum up or put in order before writing it down.

Equal for real numbers is enough here: what is shown is not what runs.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType

from graphc.graph.formula import Shape
from graphc.notation.algebra import ONE, ZERO, minus, negative, over, plus, size_tree, times
from graphc.notation.shapes import rank_of
from graphc.notation.tree import (
    Applied,
    Bracket,
    Infix,
    Joined,
    Line,
    Negated,
    Number,
    Power,
    Symbol,
    Transposed,
    Tree,
    mapped,
    opposite,
    parts,
    symbols,
)
from graphc.structs import dataclass, replace


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of names. own: those that stand for nothing of the user's, so that their lines may go.

    uniform: of values without axes, or all of whose elements are equal. shapes: of values. identity: the name of
    identity matrices, if any. defined: what stands for values that have names, with these.
    """

    own: Collection[str]
    uniform: Collection[str]
    shapes: Mapping[str, Shape]
    identity: str = ""
    defined: Mapping[Tree, Tree] = MappingProxyType({})


class Rules:
    """Rewrites trees; sees through names that are not the user's."""

    def __init__(self, lines: Sequence[Line], known: Known) -> None:
        self.given = lines
        self.uniform = known.uniform
        self.shapes = known.shapes
        self.defined = known.defined
        self.identity = Symbol(known.identity) if known.identity else None
        self.value_of = {line.name: line.value for line in lines if line.name in known.own and not line.index}

    def lines(self) -> list[Line]:
        """All lines; those written by index stay."""
        return [line if line.index or line.sign == "+=" else self.line(line) for line in self.given]

    def line(self, line: Line) -> Line:
        """One line."""
        value = self.tree(line.value)
        if line.name in self.value_of:
            self.value_of[line.name] = value
        return replace(line, value=value)

    def tree(self, tree: Tree) -> Tree:
        """A tree, from its leaves on."""
        tree = self.one(mapped(tree, self.tree))
        return self.defined.get(tree, tree) if self.defined else tree

    def one(self, tree: Tree) -> Tree:
        """A tree whose parts are done."""
        if isinstance(tree, Negated):
            return opposite(tree.value) if tree.logical else negative(tree.value)
        if isinstance(tree, Joined):
            return self.joined(tree)
        if isinstance(tree, Transposed):
            return self.transposed(tree.value)
        if not isinstance(tree, Infix):
            return tree
        if tree.sign in ("+", "-"):
            return self.sum(tree)
        if tree.sign in ("*", "⊙"):
            both = not self.is_uniform(tree.left) and not self.is_uniform(tree.right)
            return self.factors(times(tree.left, tree.right, tree.sign == "⊙" and both))
        if tree.sign == "·":
            return self.dot(tree.left, tree.right)
        return self.quotient(tree.left, tree.right) if tree.sign == "/" else tree

    def is_scalar(self, tree: Tree) -> bool:
        """Whether a tree is a number without axes."""
        return rank_of(tree, self.shapes) == 0

    def is_matrix(self, tree: Tree) -> bool:
        """Whether a tree has two axes or more: a product may then be cut before it or behind it."""
        return (rank_of(tree, self.shapes) or 0) >= 2

    def dot(self, left: Tree, right: Tree) -> Tree:
        """A matrix product: identities gone, scalars in front, ``a · (b · c)`` as ``a · b · c``."""
        if left == self.identity:
            return right
        if right == self.identity:
            return left
        for side in (left, right):
            other = right if side is left else left
            if isinstance(side, Negated) and not side.logical:
                return negative(self.dot(*((side.value, other) if side is left else (other, side.value))))
            if isinstance(side, Infix) and side.sign == "*" and self.is_scalar(side.left):
                return times(side.left, self.dot(*((side.right, other) if side is left else (other, side.right))))
        if isinstance(right, Infix) and right.sign == "·" and self.is_matrix(right.left):
            return self.dot(self.dot(left, right.left), right.right)
        return Infix("·", left, right)

    def transposed(self, value: Tree) -> Tree:
        """``(a · bᵀ)ᵀ`` is ``b · aᵀ``: a product of names, or one that holds transposes, is turned round."""
        if value == self.identity:
            return value
        if isinstance(value, Transposed):
            return value.value
        if isinstance(value, Infix) and value.sign == "·" and all(self.is_matrix(p) for p in parts(value)):
            chain = _chain(value)
            if any(isinstance(f, Transposed) for f in chain) or all(isinstance(f, Symbol) for f in chain):
                return self.dot(self.transposed(value.right), self.transposed(value.left))
        return Transposed(value)

    def factors(self, tree: Tree) -> Tree:
        """A product of elements with each factor once: powers, and ``diag(v)`` for ``I ⊙ v``."""
        tree = self.guarded(tree)
        counts: dict[Tree, int] = {}
        for factor in _factors(tree):
            if isinstance(factor, Number):
                counts[factor] = 1
                continue
            base, count = _power(factor)
            counts[base] = counts.get(base, 0) + count
        flat = [_raised(base, count) for base, count in counts.items()]
        if len(flat) > 1 and any(f == self.identity or self.is_diagonal(f) for f in flat):
            whole = self.diagonal([f.args[0] if isinstance(f, Applied) and self.is_diagonal(f) else f for f in flat])
            return whole or tree
        return tree if len(flat) == len(_factors(tree)) else self.multiplied(flat)

    def guarded(self, tree: Tree) -> Tree:
        """A product under a condition: what stands where the condition fails does not matter; and a root needs no
        condition that it is not 0.
        """
        found = list(_factors(tree))
        for bracket in [f for f in found if isinstance(f, Bracket)]:
            found = [f if f is bracket else _under(f, bracket.condition) for f in found]
            zero = self.seen(opposite(bracket.condition))
            if isinstance(zero, Infix) and zero.sign == "=" and zero.right == ZERO:
                if any(isinstance(f, Applied) and f.name == "sqrt" and self.same(f.args[0], zero.left) for f in found):
                    found.remove(bracket)
        return tree if found == _factors(tree) else self.multiplied(found)

    def same(self, a: Tree, b: Tree) -> bool:
        """Whether two trees are one, seen through names."""
        return self.seen(a) == self.seen(b)

    def multiplied(self, factors: Sequence[Tree]) -> Tree:
        """The product of some factors."""
        tree = factors[0]
        for factor in factors[1:]:
            tree = times(tree, factor, not self.is_uniform(tree) and not self.is_uniform(factor))
        return tree

    def is_diagonal(self, tree: Tree) -> bool:
        """Whether a tree is the matrix with a vector on its diagonal."""
        return isinstance(tree, Applied) and tree.name == "diag" and rank_of(tree.args[0], self.shapes) == 1

    def diagonal(self, factors: Sequence[Tree]) -> Tree | None:
        """The identity matrix times vectors and scalars; None where another matrix is among them."""
        others = [f for f in factors if f != self.identity]
        ranks = [rank_of(f, self.shapes) for f in others]
        if any(rank not in (0, 1) for rank in ranks):
            return None
        vectors = [f for f, rank in zip(others, ranks, strict=True) if rank == 1]
        scalars = [f for f, rank in zip(others, ranks, strict=True) if rank == 0]
        if not vectors and self.identity is None:
            return None
        whole = Applied("diag", (self.multiplied(vectors),)) if vectors else self.identity
        return self.multiplied([*scalars, *([whole] if whole else [])])

    def is_uniform(self, tree: Tree) -> bool:
        """Whether a tree is one number, whatever its shape."""
        return all(name in self.uniform for name in symbols(tree))

    def seen(self, tree: Tree) -> Tree:
        """What stands behind a name that is not the user's."""
        return self.value_of.get(tree.name, tree) if isinstance(tree, Symbol) else tree

    def sum(self, tree: Infix) -> Tree:
        """``a / N + b / N`` is ``(a + b) / N``."""
        join = plus if tree.sign == "+" else minus
        left, right = tree.left, tree.right
        turned = isinstance(left, Negated) and not left.logical
        inner = left.value if isinstance(left, Negated) and turned else left
        if isinstance(inner, Infix) and isinstance(right, Infix) and inner.sign == right.sign == "/":
            if inner.right == right.right:
                return over(join(negative(inner.left) if turned else inner.left, right.left), right.right)
        if isinstance(left, Infix) and isinstance(right, Infix) and left.sign == right.sign == "*":
            if left.left == right.left and self.is_scalar(left.left):
                return times(left.left, join(left.right, right.right))
        return join(left, right)

    def quotient(self, top: Tree, below: Tree) -> Tree:
        """``exp(a) / Σ exp(a)`` is ``softmax(a)``, whatever else stands above."""
        if isinstance(below, Joined) and below.sign == "Σ" and below.last:
            inner = self.seen(below.value)
            if isinstance(inner, Applied) and inner.name == "exp":
                rest = self.without(top, inner)
                if rest is not None:
                    soft = Applied("softmax", (_unshifted(inner.args[0]),))
                    return self.times(rest, soft)
        for bracket in [f for f in _factors(top) if isinstance(f, Bracket)]:
            below = _under(below, bracket.condition)
        rest = None if isinstance(below, Number) else self.without(top, self.seen(below))
        if rest is not None and (rank_of(rest, self.shapes) or -1) >= (rank_of(below, self.shapes) or 0):
            return rest
        return over(top, below)

    def times(self, rest: Tree, value: Tree) -> Tree:
        """``rest * value``."""
        if isinstance(rest, Infix) and rest.sign == "/":
            return over(self.times(rest.left, value), rest.right)
        return times(rest, value, elementwise=not self.is_uniform(rest))

    def without(self, tree: Tree, factor: Tree) -> Tree | None:
        """What is left of a product without one factor; None where it does not hold it."""
        if self.seen(tree) == factor:
            return ONE
        if isinstance(tree, Negated) and not tree.logical:
            rest = self.without(tree.value, factor)
            return None if rest is None else negative(rest)
        if isinstance(tree, Infix) and tree.sign == "/":
            rest = self.without(tree.left, factor)
            return None if rest is None else over(rest, tree.right)
        if isinstance(tree, Infix) and tree.sign in ("*", "⊙"):
            for mine, other in ((tree.left, tree.right), (tree.right, tree.left)):
                rest = self.without(mine, factor)
                if rest is not None:
                    left, right = (rest, other) if mine is tree.left else (other, rest)
                    return times(left, right, elementwise=tree.sign == "⊙")
        return None

    def joined(self, tree: Joined) -> Tree:
        """The sum of a number is as many times that; the sum of a row of a one-hot matrix is 1."""
        if tree.sign == "Σ" and tree.count is not None and isinstance(tree.value, Number):
            return times(tree.value, size_tree(tree.count))
        if tree.sign == "Σ" and tree.last:
            total = self.row_sum(self.seen(tree.value))
            if total is not None:
                return total
        return tree

    def row_sum(self, tree: Tree) -> Tree | None:
        """The sum over the last axis of a multiple of ``onehot(y)``; None for anything else."""
        if isinstance(tree, Applied) and tree.name == "onehot":
            return ONE
        if isinstance(tree, Negated) and not tree.logical:
            inner = self.row_sum(tree.value)
            return None if inner is None else negative(inner)
        if isinstance(tree, Infix) and tree.sign in ("*", "⊙", "/"):
            pairs = [(tree.left, tree.right)] + ([(tree.right, tree.left)] if tree.sign != "/" else [])
            for mine, other in pairs:
                inner = self.row_sum(mine)
                if inner is not None and self.is_uniform(other):
                    return over(inner, other) if tree.sign == "/" else times(other, inner)
        return None


def _factors(tree: Tree) -> list[Tree]:
    """What is multiplied, element by element."""
    if isinstance(tree, Infix) and tree.sign in ("*", "⊙"):
        return [*_factors(tree.left), *_factors(tree.right)]
    return [tree]


def _under(tree: Tree, condition: Tree) -> Tree:
    """A tree where a condition holds."""
    if isinstance(tree, Applied) and tree.name == "where":
        if tree.args[0] == condition:
            return _under(tree.args[1], condition)
        if tree.args[0] == opposite(condition):
            return _under(tree.args[2], condition)
    return mapped(tree, lambda part: _under(part, condition))


def _chain(tree: Tree) -> list[Tree]:
    """The factors of a matrix product."""
    if isinstance(tree, Infix) and tree.sign == "·":
        return [*_chain(tree.left), *_chain(tree.right)]
    return [tree]


def _power(factor: Tree) -> tuple[Tree, int]:
    """A factor as a power of something; a condition's bracket is its own square."""
    if isinstance(factor, Power) and isinstance(factor.exponent, Number) and factor.exponent.text.isdigit():
        return factor.base, int(factor.exponent.text)
    return factor, 1


def _raised(base: Tree, count: int) -> Tree:
    return base if count == 1 or isinstance(base, Bracket) else Power(base, Number(str(count)))


def _unshifted(tree: Tree) -> Tree:
    """``a`` of ``a - max(a)`` along the last axis, which makes no difference to a softmax."""
    if isinstance(tree, Infix) and tree.sign == "-" and isinstance(tree.right, Joined):
        if tree.right.sign == "max" and tree.right.last and tree.right.value == tree.left:
            return tree.left
    return tree
