"""Lines made shorter: what a reader would cancel, sum up or put in place before writing it down.

Equal for real numbers is enough here: what is shown is not what runs. Intermediate values that are then named for
nothing, or for one use, give up their line.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from graphc.notation.algebra import ONE, minus, negative, over, plus, times
from graphc.notation.bodies import is_simple
from graphc.notation.tree import Applied, Infix, Joined, Line, Negated, Symbol, Tree, mapped, opposite, parts, symbols
from graphc.structs import replace

_ROUNDS = 3


def simplified(lines: Sequence[Line], own: Collection[str], uniform: Collection[str]) -> list[Line]:
    """The lines, simplified. own: names that stand for nothing of the user's, so that their lines may go.

    uniform: names of values without axes, or all of whose elements are equal.
    """
    found = list(lines)
    for _ in range(_ROUNDS):
        before = found
        found = _put_in_place(_Rules(found, own, uniform).lines(), own)
        if found == before:
            break
    return found


class _Rules:
    """Rewrites trees; sees through names that are not the user's."""

    def __init__(self, lines: Sequence[Line], own: Collection[str], uniform: Collection[str]) -> None:
        self.given = lines
        self.uniform = uniform
        self.value_of = {line.name: line.value for line in lines if line.name in own and not line.index}

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
        tree = mapped(tree, self.tree)
        if isinstance(tree, Negated):
            return opposite(tree.value) if tree.logical else negative(tree.value)
        if isinstance(tree, Joined):
            return self.joined(tree)
        if not isinstance(tree, Infix):
            return tree
        if tree.sign in ("+", "-"):
            return self.sum(tree)
        if tree.sign in ("*", "⊙"):
            both = not self.is_uniform(tree.left) and not self.is_uniform(tree.right)
            return times(tree.left, tree.right, tree.sign == "⊙" and both)
        return self.quotient(tree.left, tree.right) if tree.sign == "/" else tree

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
        """The sum of a row of a one-hot matrix is 1."""
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


def _unshifted(tree: Tree) -> Tree:
    """``a`` of ``a - max(a)`` along the last axis, which makes no difference to a softmax."""
    if isinstance(tree, Infix) and tree.sign == "-" and isinstance(tree.right, Joined):
        if tree.right.sign == "max" and tree.right.last and tree.right.value == tree.left:
            return tree.left
    return tree


def _put_in_place(lines: Sequence[Line], own: Collection[str]) -> list[Line]:
    """The lines without those that nothing names; what one other line names once stands there, where it reads well."""
    uses: dict[str, int] = {}
    for line in lines:
        for name in _names(line.value) + [n for i in line.index for n in own if i.startswith(f"{n}[")]:
            uses[name] = uses.get(name, 0) + 1
    waiting: dict[str, Line] = {}
    found: list[Line] = []
    for line in lines:
        named = [name for name in dict.fromkeys(_names(line.value)) if name in waiting]
        if named and not line.index and line.sign != "+=":
            value = _replaced(line.value, {name: waiting[name].value for name in named})
            if is_simple(value):
                line = replace(line, value=value)
                for name in named:
                    del waiting[name]
                named = []
        found += [waiting.pop(name) for name in named]
        if line.name not in own or line.index or line.sign != "=":
            found.append(line)
        elif uses.get(line.name, 0) == 1:
            waiting[line.name] = line
        elif uses.get(line.name, 0) > 1:
            found.append(line)
    return found + list(waiting.values())


def _replaced(tree: Tree, values: dict[str, Tree]) -> Tree:
    if isinstance(tree, Symbol):
        return values.get(tree.name, tree)
    return mapped(tree, lambda part: _replaced(part, values))


def _names(tree: Tree) -> list[str]:
    """Every name in a tree, as often as it stands there."""
    found: list[str] = []
    stack = [tree]
    while stack:
        part = stack.pop()
        if isinstance(part, Symbol):
            found.append(part.name)
        stack.extend(reversed(parts(part)))
    return found
