"""A scalar body as a tree, over the trees of what it reads."""

from __future__ import annotations

from collections.abc import Callable

from graphc.graph.scalar import Body
from graphc.graph.sizes import Size
from graphc.notation.algebra import applied, number, size_tree
from graphc.notation.tree import Tree, depth, weight
from graphc.structs import dataclass

LARGEST = 24  # leaves of a tree; an operation on more gets a line of its own
DEEPEST = 14  # levels of a tree
SHARED = 6  # leaves of a part that is used several times and so gets a line of its own


@dataclass(frozen=True, slots=True)
class Terms:
    """What the leaves of a body are.

    read, index: the trees of reads and index values, by number. spill: gives a name to a part that grows too large, or
    that is used more than once. has_axes: whether an instruction has axes, so that its products are written ``⊙``.
    known: the tree of an instruction that is to be written in a way of its own, else None.
    """

    read: Callable[[int], Tree]
    index: Callable[[int], Tree]
    spill: Callable[[Tree], Tree]
    has_axes: Callable[[int], bool]
    known: Callable[[int], Tree | None]


def is_simple(tree: Tree) -> bool:
    """Whether a tree is small enough to stand inside another."""
    return weight(tree) <= LARGEST and depth(tree) <= DEEPEST


def body_tree(body: Body, at: int, terms: Terms) -> Tree:
    """The instruction ``at`` of a body as a tree."""
    needed = needs(body, at, terms.known)
    uses = [0] * len(body.instrs)
    for place in needed:
        for arg in body.instrs[place].args:
            uses[arg] += 1
    trees: dict[int, Tree] = {}
    for place in needed:
        instr = body.instrs[place]
        known = terms.known(place)
        if known is not None:
            trees[place] = known
        elif instr.op == "read" and isinstance(instr.attr, int):
            trees[place] = terms.read(instr.attr)
        elif instr.op == "index" and isinstance(instr.attr, int):
            trees[place] = terms.index(instr.attr)
        elif instr.op == "size" and isinstance(instr.attr, Size):
            trees[place] = size_tree(instr.attr)
        elif instr.op == "const":
            trees[place] = number(str(instr.attr), instr.dtype)
        else:
            source = body.instrs[instr.args[0]].dtype
            tree = applied(instr, [trees[a] for a in instr.args], source, [terms.has_axes(a) for a in instr.args])
            large = not is_simple(tree) or (uses[place] > 1 and weight(tree) >= SHARED)
            trees[place] = terms.spill(tree) if large and place != at and instr.dtype.kind != "b" else tree
    return trees[at]


def needs(body: Body, at: int, known: Callable[[int], object] | None = None) -> list[int]:
    """The instructions that one needs, itself included, in order; what a ``known`` one is made of is not needed."""
    found = [False] * len(body.instrs)
    found[at] = True
    for place in range(at, -1, -1):
        if found[place] and not (known is not None and known(place)):
            for arg in body.instrs[place].args:
                found[arg] = True
    return [place for place in range(at + 1) if found[place]]
