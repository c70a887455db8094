"""The presentation tree: what is to be read, before it is text or LaTeX.

Trees are small (an intermediate value gets a line of its own before one grows), so that printers may recurse.
"""

from __future__ import annotations

from collections.abc import Callable

from graphc.graph.formula import Shape
from graphc.graph.sizes import SizeLike
from graphc.structs import dataclass, replace


@dataclass(frozen=True, slots=True)
class Symbol:
    """A value by its name, or an index, or a size."""

    name: str


@dataclass(frozen=True, slots=True)
class Number:
    """A constant."""

    text: str


@dataclass(frozen=True, slots=True)
class Infix:
    """Operands around an operator: ``+ - * / · ⊙ ⊗``, comparisons, ``and or``."""

    sign: str
    left: Tree
    right: Tree


@dataclass(frozen=True, slots=True)
class Negated:
    """``-x``; of a condition ``not x``."""

    value: Tree
    logical: bool = False


@dataclass(frozen=True, slots=True)
class Power:
    """``base`` to the power ``exponent``."""

    base: Tree
    exponent: Tree


@dataclass(frozen=True, slots=True)
class Applied:
    """A function of its arguments."""

    name: str
    args: tuple[Tree, ...]


@dataclass(frozen=True, slots=True)
class Transposed:
    """The last two axes exchanged."""

    value: Tree


@dataclass(frozen=True, slots=True)
class Bracket:
    """1 where a condition holds, else 0: ``[z > 0]``."""

    condition: Tree


@dataclass(frozen=True, slots=True)
class Joined:
    """A value joined over indices or axes: ``Σ``, ``Π``, ``max``, …; no letters where it is all of them.

    count: how many are joined, where that is known; a sum over N, divided by N, is a mean. last: whether it is joined
    over the last axis, and no other.
    """

    sign: str
    letters: tuple[str, ...]
    value: Tree
    count: SizeLike | None = None
    last: bool = False


@dataclass(frozen=True, slots=True)
class At:
    """A value at indices, or a part of it: ``x[n, 2*i]``, ``x[1:]``."""

    base: Tree
    index: tuple[Tree, ...]


@dataclass(frozen=True, slots=True)
class Part:
    """A slice; empty ends are the axis' own."""

    start: str = ""
    stop: str = ""
    step: str = ""


Tree = Symbol | Number | Infix | Negated | Power | Applied | Transposed | Bracket | Joined | At | Part


@dataclass(frozen=True, slots=True)
class Line:
    """One line: ``name[index] sign value``, with the value's shape. node: the number of the graph node that it is; -1
    for a part of one."""

    name: str
    index: tuple[str, ...]
    value: Tree
    shape: Shape
    sign: str = "="
    node: int = -1


def parts(tree: Tree) -> tuple[Tree, ...]:
    """What a tree is made of, one level down."""
    if isinstance(tree, Infix):
        return (tree.left, tree.right)
    if isinstance(tree, Power):
        return (tree.base, tree.exponent)
    if isinstance(tree, Applied):
        return tree.args
    if isinstance(tree, At):
        return (tree.base, *tree.index)
    if isinstance(tree, (Negated, Transposed, Joined)):
        return (tree.value,)
    return (tree.condition,) if isinstance(tree, Bracket) else ()


def mapped(tree: Tree, change: Callable[[Tree], Tree]) -> Tree:
    """A tree with its parts changed."""
    if isinstance(tree, Infix):
        return Infix(tree.sign, change(tree.left), change(tree.right))
    if isinstance(tree, Power):
        return Power(change(tree.base), change(tree.exponent))
    if isinstance(tree, Applied):
        return Applied(tree.name, tuple(change(a) for a in tree.args))
    if isinstance(tree, At):
        return At(change(tree.base), tuple(change(i) for i in tree.index))
    if isinstance(tree, (Negated, Transposed, Joined)):
        return replace(tree, value=change(tree.value))
    return Bracket(change(tree.condition)) if isinstance(tree, Bracket) else tree


def symbols(tree: Tree) -> tuple[str, ...]:
    """The names that occur in a tree, in order of first appearance."""
    found: dict[str, None] = {}
    stack = [tree]
    while stack:
        part = stack.pop()
        if isinstance(part, Symbol):
            found[part.name] = None
        stack.extend(reversed(parts(part)))
    return tuple(found)


def weight(tree: Tree) -> int:
    """How many leaves a tree has: what it takes to read it."""
    return max(1, sum(weight(p) for p in parts(tree)))


def depth(tree: Tree) -> int:
    """How many levels a tree has."""
    return 1 + max((depth(p) for p in parts(tree)), default=0)


def opposite(condition: Tree) -> Tree:
    """The condition that holds where this one does not, and the other way round."""
    turned = {"<": "≥", "≥": "<", ">": "≤", "≤": ">", "=": "≠", "≠": "="}
    if isinstance(condition, Infix) and condition.sign in turned:
        return Infix(turned[condition.sign], condition.left, condition.right)
    if isinstance(condition, Negated):
        return condition.value
    return Negated(condition, logical=True)
