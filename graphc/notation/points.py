"""A formula point by point: ``y[n, o] = Σᵢⱼ x[n, i] * w[o, i, j]``, for what has no form in whole tensors."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from graphc.graph.formula import Affine, Formula, FromData, Guard, Index
from graphc.graph.scalar import Body
from graphc.graph.show import affine_text, guard_text
from graphc.graph.sizes import names, product
from graphc.notation.algebra import bracket, size_tree, times
from graphc.notation.bodies import Terms, body_tree
from graphc.notation.placing import LETTERS, Operand
from graphc.notation.tensors import SIGNS
from graphc.notation.text import tree_text
from graphc.notation.tree import At, Infix, Joined, Number, Symbol, Tree, symbols


def index_letters(formula: Formula, taken: Sequence[str]) -> tuple[str, ...]:
    """A letter for each index variable: its dimension's in lower case where that is free, else i, j, k, …"""
    found: list[str] = []
    for extent in formula.extents:
        text = str(extent)
        own = text.lower() if len(text) == 1 and text.isalpha() and text.isupper() else ""
        free = [letter for letter in (own, *LETTERS) if letter and letter not in taken and letter not in found]
        found.append(free[0] if free else f"v{len(found)}")
    return tuple(found)


def point_tree(
    formula: Formula, operands: Sequence[Operand], spill: Callable[[Tree, tuple[str, ...]], Tree]
) -> tuple[tuple[str, ...], Tree]:
    """The indices of the result as text, and the value there. Operands are names, so that indices may follow them.

    spill: gives a name to a part that grows too large, over the index letters given.
    """
    taken = [o.tree.name for o in operands if isinstance(o.tree, Symbol)]
    taken += [name for extent in formula.extents for name in names(extent)]
    letters = index_letters(formula, taken)

    chosen = _chosen_by_index(formula.body)

    def at(index: Index) -> Tree:
        if isinstance(index, FromData):
            return At(operands[index.operand].tree, tuple(at(i) for i in index.index))
        return affine_tree(index, letters)

    def read(number: int) -> Tree:
        given = formula.reads[number]
        base = operands[given.operand].tree
        has_index = given.index and not isinstance(base, Number) and not operands[given.operand].uniform
        tree: Tree = At(base, tuple(at(i) for i in given.index)) if has_index else base
        return tree if number in chosen else _guarded(tree, given.guards)

    def condition(guard: Guard) -> Tree:
        if guard.data is not None:
            return Infix("=", affine_tree(guard.expr, letters), at(guard.data))
        left, sign, right = _sides(guard, letters)
        return Infix(sign, left, right)

    def _guarded(tree: Tree, guards: Sequence[Guard]) -> Tree:
        for guard in guards:
            tree = times(tree, bracket(condition(guard)))
        return tree

    terms = Terms(
        read=read,
        index=lambda v: Symbol(letters[v]),
        spill=lambda tree: spill(tree, letters),
        has_axes=lambda _: False,
        known=lambda _: None,
    )
    tree = body_tree(formula.body, len(formula.body.instrs) - 1, terms)
    plain = formula.is_plain()
    joined = [letters[v] for v in (formula.reduced() if plain else range(len(letters)))]
    if formula.combine in ("none", "sum"):
        tree = _guarded(tree, formula.guards)
    else:
        joined += [_condition_text(g, letters) for g in formula.guards if g.data is None]
    if plain and formula.combine != "none":
        count = product(tuple(formula.extents[v] for v in formula.reduced()))
        if formula.combine == "sum" and not _mentions(tree, joined):
            return tuple(index_label(w, operands, letters) for w in formula.write), times(size_tree(count), tree)
        tree = Joined(SIGNS.get(formula.combine, formula.combine), tuple(joined), tree, count)
    return tuple(index_label(w, operands, letters) for w in formula.write), tree


def _mentions(tree: Tree, letters: Sequence[str]) -> bool:
    """Whether a value depends on one of some index letters."""
    return any(word in letters for name in symbols(tree) for word in re.findall(r"\w+", name))


def _chosen_by_index(body: Body) -> dict[int, bool]:
    """The reads that stand behind a condition on indices alone: their own guards say no more than it."""
    instrs = body.instrs
    pure = [False] * len(instrs)
    for place, instr in enumerate(instrs):
        pure[place] = instr.op in ("index", "const", "size") or (bool(instr.args) and all(pure[a] for a in instr.args))
    chosen = [False] * len(instrs)
    for place in range(len(instrs) - 1, -1, -1):
        instr = instrs[place]
        by_index = instr.op == "where" and pure[instr.args[0]]
        for arg in instr.args:
            chosen[arg] = chosen[arg] or chosen[place] or by_index
    reads = [i.attr for i, c in zip(instrs, chosen, strict=True) if c and i.op == "read"]
    return {number: True for number in reads if isinstance(number, int)}


def index_label(index: Index, operands: Sequence[Operand], letters: Sequence[str]) -> str:
    """An index of the result as text."""
    if isinstance(index, Affine):
        return affine_text(index, letters)
    base = operands[index.operand].tree
    name = base.name if isinstance(base, Symbol) else "idx"
    return f"{name}[{', '.join(affine_text(i, letters) for i in index.index)}]"


def affine_tree(expr: Affine, letters: Sequence[str]) -> Tree:
    """An affine expression as one symbol or number: it is read as a whole."""
    text = affine_text(expr, letters)
    return Number(text) if text.lstrip("-").isdigit() else Symbol(text)


def _sides(guard: Guard, letters: Sequence[str]) -> tuple[Tree, str, Tree]:
    """A condition's sides and its sign, as ``show`` writes them."""
    text = guard_text(Guard(guard.kind, guard.expr, guard.divisor), letters)
    for written, sign in ((" >= ", "≥"), (" <= ", "≤"), (" == ", "=")):
        left, found, right = text.partition(written)
        if found and sign == "=" and right in letters and left not in letters:
            left, right = right, left
        if found:
            return _word(left), sign, _word(right)
    return Symbol(text), "=", Symbol("True")


def _condition_text(guard: Guard, letters: Sequence[str]) -> str:
    left, sign, right = _sides(guard, letters)
    return f"{tree_text(left)}{sign}{tree_text(right)}".replace(" ", "")


def _word(text: str) -> Tree:
    return Number(text) if text.isdigit() else Symbol(text)
