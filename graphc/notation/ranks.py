"""How many axes a tree has, as far as names and signs tell: what decides whether a matrix product may be regrouped."""

from __future__ import annotations

from collections.abc import Mapping

from graphc.graph.primitives import PRIMITIVES
from graphc.notation.tree import (
    Applied,
    Bracket,
    Infix,
    Joined,
    Negated,
    Number,
    Power,
    Symbol,
    Transposed,
    Tree,
)

# Functions shown by name that keep the axes of what they are given, beside the primitives.
_KEEPING = (
    "softmax", "log_softmax", "relu", "gelu", "silu", "selu", "softsign", "hardtanh", "elu", "leaky_relu", "min", "max",
)  # fmt: skip


def rank_of(tree: Tree, ranks: Mapping[str, int]) -> int | None:
    """The number of a tree's axes, given those of names; None where it is not known.

    >>> a, x = Symbol("A"), Symbol("x")
    >>> rank_of(Infix("+", Infix("·", a, x), Number("1")), {"A": 2, "x": 1})
    1
    """
    if isinstance(tree, Symbol):
        return ranks.get(tree.name)
    if isinstance(tree, Number):
        return 0
    if isinstance(tree, (Negated, Transposed)):
        return rank_of(tree.value, ranks)
    if isinstance(tree, Bracket):
        return rank_of(tree.condition, ranks)
    if isinstance(tree, Power):
        return _largest((tree.base, tree.exponent), ranks)
    if isinstance(tree, Joined):
        inner = rank_of(tree.value, ranks)
        return 0 if not tree.letters else None if inner is None else inner - len(tree.letters)
    if isinstance(tree, Applied):
        keeps = tree.name in PRIMITIVES or tree.name in _KEEPING
        return _largest(tree.args, ranks) if keeps else None
    if not isinstance(tree, Infix):
        return None
    if tree.sign not in ("·", "⊗"):
        return _largest((tree.left, tree.right), ranks)
    left, right = rank_of(tree.left, ranks), rank_of(tree.right, ranks)
    if left is None or right is None:
        return None
    if tree.sign == "⊗":
        return left + right
    return left + right - 2 if left <= 2 and right <= 2 else max(left, right) if min(left, right) >= 2 else None


def _largest(trees: tuple[Tree, ...], ranks: Mapping[str, int]) -> int | None:
    found = [rank_of(tree, ranks) for tree in trees]
    known = [rank for rank in found if rank is not None]
    return max(known, default=0) if len(known) == len(found) else None
