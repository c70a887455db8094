"""The shape of a tree, as far as names and signs tell: what decides whether a product may be regrouped, and whether a
value that broadcasts may stand where its shape matters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from graphc.graph.formula import Shape
from graphc.graph.primitives import PRIMITIVES
from graphc.notation.placing import SPREAD, WHOLE
from graphc.notation.tree import (
    Applied,
    At,
    Bracket,
    Infix,
    Joined,
    Negated,
    Number,
    Power,
    Symbol,
    Transposed,
    Tree,
    parts,
    symbols,
)

# Functions shown by name that keep the axes of what they are given, beside the primitives.
_KEEPING = (
    "softmax", "log_softmax", "relu", "gelu", "silu", "selu", "softsign", "hardtanh", "elu", "leaky_relu", "min", "max",
)  # fmt: skip
_PRODUCTS = ("·", "⊗")

Shapes = Mapping[str, Shape]


def shape_of(tree: Tree, shapes: Shapes) -> Shape | None:
    """The shape of a tree by NumPy's rules, given those of names; None where it is not known.

    A sum over some axes may keep them or not, as its reader needs: it is not known.

    >>> a, x = Symbol("A"), Symbol("x")
    >>> shape_of(Infix("+", Infix("·", a, x), Number("1")), {"A": (2, 3), "x": (3,)})
    (2,)
    """
    if isinstance(tree, Symbol):
        return shapes.get(tree.name)
    if isinstance(tree, Number):
        return ()
    if isinstance(tree, Joined):
        return None if tree.letters else ()
    if isinstance(tree, Transposed):
        inner = shape_of(tree.value, shapes)
        return inner if inner is None or len(inner) < 2 else (*inner[:-2], inner[-1], inner[-2])
    if isinstance(tree, At):
        return _sliced(shape_of(tree.base, shapes), tree.index)
    if isinstance(tree, Infix) and tree.sign in _PRODUCTS:
        left, right = shape_of(tree.left, shapes), shape_of(tree.right, shapes)
        if left is None or right is None:
            return None
        return left + right if tree.sign == "⊗" else _product(left, right)
    if not is_elementwise(tree) and not (isinstance(tree, Applied) and tree.name in _KEEPING):
        return None
    return _broadcast([shape_of(part, shapes) for part in parts(tree)])


def rank_of(tree: Tree, shapes: Shapes) -> int | None:
    """The number of a tree's axes; None where it is not known."""
    shape = shape_of(tree, shapes)
    return None if shape is None else len(shape)


def is_elementwise(tree: Tree) -> bool:
    """Whether a tree works on the elements of its parts, so that these may broadcast."""
    if isinstance(tree, Infix):
        return tree.sign not in _PRODUCTS
    return isinstance(tree, (Negated, Power, Bracket)) or (isinstance(tree, Applied) and tree.name in PRIMITIVES)


def stands_among_elements(tree: Tree, name: str) -> bool:
    """Whether a name stands in a tree only where its value may broadcast."""
    if isinstance(tree, Symbol):
        return True
    if is_elementwise(tree):
        return all(stands_among_elements(part, name) for part in parts(tree))
    return name not in symbols(tree)


def _broadcast(found: Sequence[Shape | None]) -> Shape | None:
    result: Shape = ()
    for shape in found:
        if shape is None:
            return None
        long, short = (result, shape) if len(result) >= len(shape) else (shape, result)
        front = len(long) - len(short)
        sizes = []
        for a, b in zip(long[front:], short, strict=True):
            if a != b and a != 1 and b != 1:
                return None
            sizes.append(b if a == 1 else a)
        result = (*long[:front], *sizes)
    return result


def _product(left: Shape, right: Shape) -> Shape | None:
    if not left or not right:
        return None
    if len(left) == 1:
        return (*right[:-2], *right[-1:]) if len(right) > 1 else ()
    if len(right) == 1:
        return left[:-1]
    batch = _broadcast([left[:-2], right[:-2]])
    return None if batch is None else (*batch, left[-2], right[-1])


def _sliced(base: Shape | None, index: Sequence[Tree]) -> Shape | None:
    if base is None or any(i not in (SPREAD, WHOLE) for i in index):
        return None
    used = sum(i == WHOLE for i in index)
    if used > len(base):
        return None
    left = iter(base)
    return (*(1 if i == SPREAD else next(left) for i in index), *base[used:])
