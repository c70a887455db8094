"""Lines made shorter: each by the rules for trees; values that are then named for nothing, or for one use, give up
their line.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from graphc.notation.bodies import is_simple
from graphc.notation.shapes import shape_of, stands_among_elements
from graphc.notation.tree import Line, Number, Symbol, Transposed, Tree, mapped, parts
from graphc.notation.tree_rules import Known, Rules
from graphc.structs import replace

_ROUNDS = 8  # at most; two or three are usual


def simplified(lines: Sequence[Line], known: Known) -> list[Line]:
    """The lines, simplified."""
    found = list(lines)
    for _ in range(_ROUNDS):
        before = found
        found = _put_in_place(Rules(found, known).lines(), known)
        if found == before:
            break
    return _renumbered(found, known)


def _put_in_place(lines: Sequence[Line], known: Known) -> list[Line]:
    """The lines without those that nothing names; what one other line names once stands there, where it reads well."""
    own = known.own
    lines = _without_aliases(lines, known)
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
            if is_simple(value) and all(_may_stand(waiting[name], line.value, known) for name in named):
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


def _may_stand(line: Line, reader: Tree, known: Known) -> bool:
    """Whether a line's value may stand in a tree for its name: not where it broadcasts and the tree sums over it."""
    shape, own = known.shapes.get(line.name), shape_of(line.value, known.shapes)
    return shape is None or own is None or own == shape or stands_among_elements(reader, line.name)


def _without_aliases(lines: Sequence[Line], known: Known) -> list[Line]:
    """The lines with ``t = Aᵀ``, ``t = a`` and ``t = 2`` put in place wherever t stands."""
    aliases: dict[str, Tree] = {}
    found: list[Line] = []
    for line in lines:
        value = _replaced(line.value, aliases) if aliases else line.value
        inner = value.value if isinstance(value, Transposed) else value
        if line.name in known.own and not line.index and line.sign == "=" and isinstance(inner, (Symbol, Number)):
            shape, own = known.shapes.get(line.name), shape_of(value, known.shapes)
            if shape is None or own is None or own == shape:
                aliases[line.name] = value
        found.append(replace(line, value=value))
    return found


def _renumbered(lines: Sequence[Line], known: Known) -> list[Line]:
    """The lines with ``t1``, ``t2``, … counted as they stand, past those that are the user's."""
    old = [line.name for line in lines if line.name in known.own and re.fullmatch(r"t\d+", line.name)]
    users = dict.fromkeys(name for name in known.shapes if name not in known.own)
    fresh = (name for k in range(1, len(old) + len(users) + 1) if (name := f"t{k}") not in users)
    return renamed(lines, dict(zip(old, fresh, strict=False)))


def renamed(lines: Sequence[Line], new: Mapping[str, str]) -> list[Line]:
    """The lines with some names replaced wherever they stand."""
    trees: dict[str, Tree] = {name: Symbol(other) for name, other in new.items()}
    found = []
    for line in lines:
        index = tuple(re.sub(r"\bt\d+\b", lambda m: new.get(m[0], m[0]), i) for i in line.index)
        value = _replaced(line.value, trees)
        found.append(replace(line, name=new.get(line.name, line.name), index=index, value=value))
    return found


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
