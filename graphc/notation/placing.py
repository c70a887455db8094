"""How an operand stands among the axes of a result: silent where it broadcasts as in NumPy, else turned or sliced."""

from __future__ import annotations

from collections.abc import Sequence

from graphc.graph.formula import Affine, FromData, Index, Read, Shape
from graphc.graph.sizes import SizeLike, at_most
from graphc.notation.tree import At, Part, Symbol, Transposed, Tree
from graphc.structs import dataclass

LETTERS = ("i", "j", "k", "l", "m", "p", "q", "r", "s", "u", "v", "w")
WHOLE = Part()
SPREAD = Symbol("None")


@dataclass(frozen=True, slots=True)
class Operand:
    """An operand of a formula: how it is written, and its shape. uniform: whether all its elements are equal."""

    tree: Tree
    shape: Shape
    uniform: bool = False


def axis_letters(extents: Sequence[SizeLike]) -> tuple[str, ...]:
    """The letter of each axis: its dimension's where no other axis has that dimension, else that of its position.

    >>> from graphc.graph.sizes import dim
    >>> axis_letters((dim("N"), 10)), axis_letters((6, dim("N"), dim("N")))
    (('n', 'j'), ('i', 'j', 'k'))
    """
    texts = [str(extent) for extent in extents]
    own = [len(text) == 1 and text.isalpha() and texts.count(text) == 1 for text in texts]
    usual = [LETTERS[position % len(LETTERS)] for position in range(len(texts))]
    return tuple(text.lower() if is_own else letter for text, is_own, letter in zip(texts, own, usual, strict=True))


def transposed(tree: Tree) -> Tree:
    """``treeᵀ``; of a transpose what it transposes."""
    return tree.value if isinstance(tree, Transposed) else Transposed(tree)


def variables_of(read: Read) -> tuple[int, ...]:
    """The index variables at which a read stands, in the order of its axes."""
    found: dict[int, None] = {}
    for index in read.index:
        for expr in (index,) if isinstance(index, Affine) else index.index:
            found.update((v, None) for v, _ in expr.terms)
    return tuple(found)


def placed(operand: Operand, index: Sequence[Index], axes: Sequence[int], extents: Shape) -> Tree | None:
    """The operand read at ``index`` as a tensor over the variables ``axes``; None where that cannot be written."""
    if operand.uniform:
        return operand.tree
    if any(isinstance(i, FromData) for i in index):
        return None
    exprs = [i for i in index if isinstance(i, Affine)]
    for keep in (True, False):
        tree = _place(operand, exprs, axes, extents, keep)
        if tree is not None:
            return tree
    return None


def _place(operand: Operand, index: Sequence[Affine], axes: Sequence[int], extents: Shape, keep: bool) -> Tree | None:
    """``placed``; keep: whether an axis of size 1 stays, to be stretched silently."""
    parts: list[Tree] = []
    order: list[int] = []  # of each axis that is left the position of its variable in ``axes``; -1 for one of size 1
    for expr, size in zip(index, operand.shape, strict=True):
        if not expr.terms:
            stays = keep and size == 1 and expr.const == 0
            parts.append(WHOLE if stays else Symbol(str(expr.const)))
            if stays:
                order.append(-1)
            continue
        if len(expr.terms) > 1 or expr.terms[0][0] not in axes:
            return None
        variable, step = expr.terms[0]
        order.append(list(axes).index(variable))
        parts.append(_part(expr.const, step, extents[variable], size))
    tree = operand.tree
    first = len(axes) - len(order)
    silent = first >= 0 and all(p in (-1, first + k) for k, p in enumerate(order))
    if silent:
        return _sliced(tree, parts)
    if first >= 0 and len(order) > 1 and order == [*range(first, len(axes) - 2), len(axes) - 1, len(axes) - 2]:
        return transposed(_sliced(tree, parts))
    if not order or -1 in order or order != sorted(set(order)) or not all(isinstance(p, Part) for p in parts):
        return None
    at = dict(zip(order, parts, strict=True))
    return At(tree, tuple(at.get(position, SPREAD) for position in range(order[0], len(axes))))


def _sliced(tree: Tree, parts: list[Tree]) -> Tree:
    while parts and parts[-1] == WHOLE:
        parts = parts[:-1]
    return At(tree, tuple(parts)) if parts else tree


def _part(start: SizeLike, step: int, extent: SizeLike, size: SizeLike) -> Part:
    """The slice of an axis of ``size`` that is read at ``start + step * v``."""
    if step == 1 and start == 0 and extent == size:
        return WHOLE
    if step > 0:
        stop = start + step * (extent - 1) + 1
        ends = at_most(size, stop + step - 1)  # one step further would leave the axis
        return Part("" if start == 0 else str(start), "" if ends else str(stop), "" if step == 1 else str(step))
    last = start + step * (extent - 1)
    return Part("" if start == size - 1 else str(start), "" if last == 0 else str(last - 1), str(step))
