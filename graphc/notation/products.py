"""The factors of a summed product, and which of them stand on which side of a matrix product."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from graphc.graph.scalar import Body, Instr, const_value
from graphc.notation.tree import Tree
from graphc.structs import dataclass


@dataclass(frozen=True, slots=True)
class Part:
    """A factor of a body: an instruction. mask: ``if`` or ``unless`` for a condition. below: whether it divides."""

    at: int
    mask: str = ""
    below: bool = False


@dataclass(frozen=True, slots=True)
class Factor:
    """A factor over index variables. used: those it depends on; reads: those of each of its reads, in their order.

    make: its tree as a tensor over given variables. below: whether it divides.
    """

    used: tuple[int, ...]
    reads: tuple[tuple[int, ...], ...]
    make: Callable[[tuple[int, ...]], Tree]
    below: bool


def product_factors(body: Body) -> tuple[bool, list[Part]]:
    """Whether a body's value is negated, and the factors of what is left; 1 is none.

    >>> from graphc.graph.dtypes import float32
    >>> from graphc.graph.scalar import trace
    >>> product_factors(trace(lambda a, b: -(a * b) / 2, [float32] * 2))
    (True, [Part(at=0, mask='', below=False), Part(at=1, mask='', below=False), Part(at=4, mask='', below=True)])
    """
    negated = False
    found: list[Part] = []
    stack = [Part(len(body.instrs) - 1)]
    while stack:
        part = stack.pop()
        instr = body.instrs[part.at]
        if part.mask or part.below:
            found.append(part)
        elif instr.op == "neg":
            negated = not negated
            stack.append(Part(instr.args[0]))
        elif instr.op == "mul":
            stack += [Part(a) for a in reversed(instr.args)]
        elif instr.op == "div":
            stack += [Part(instr.args[1], below=True), Part(instr.args[0])]
        elif instr.op == "cast" and instr.dtype.kind == "f" and body.instrs[instr.args[0]].dtype.kind == "f":
            stack.append(Part(instr.args[0]))
        elif instr.op == "where" and _is(body.instrs[instr.args[2]], 0):
            stack += [Part(instr.args[0], "if"), Part(instr.args[1])]
        elif instr.op == "where" and _is(body.instrs[instr.args[1]], 0):
            stack += [Part(instr.args[0], "unless"), Part(instr.args[2])]
        elif _is(instr, -1):
            negated = not negated
        elif not _is(instr, 1):
            found.append(part)
    return negated, found


def _is(instr: Instr, value: float) -> bool:
    return instr.op == "const" and const_value(instr) == value


def groups(factors: Sequence[Factor], summed: Sequence[int], rank: int) -> list[list[Factor]]:
    """The factors on each side of a product over one summed index; one group where there is no such product.

    Factors that share an index of the result stand on one side. Two that share leading ones alone, and have others of
    their own, are a product for each of these.
    """
    if len(summed) != 1:
        return [list(factors)]
    sides: list[tuple[list[int], list[Factor]]] = []
    loose: list[Factor] = []
    for factor in factors:
        own = [v for v in factor.used if v not in summed]
        if not own:
            loose.append(factor)
            continue
        touching = [s for s in sides if any(v in s[0] for v in own)]
        merged = (own + [v for s in touching for v in s[0]], [f for s in touching for f in s[1]] + [factor])
        sides = [s for s in sides if s not in touching] + [merged]
    result = [members for _, members in sides]
    if len(result) == 2:
        return [result[0], result[1] + loose]
    if len(result) == 1 and loose:
        return [loose, result[0]] if factors[0] in loose else [result[0], loose]
    if not result and len(loose) == 2 and loose[0].used == loose[1].used:
        return [[loose[0]], [loose[1]]]
    return _batched(factors, summed, rank) or [list(factors)]


def _batched(factors: Sequence[Factor], summed: Sequence[int], rank: int) -> list[list[Factor]]:
    if len(factors) != 2:
        return []
    batch = [v for v in range(rank) if all(v in f.used for f in factors)]
    own = [[v for v in f.used if v not in batch and v not in summed] for f in factors]
    if batch != list(range(len(batch))) or not all(own):
        return []
    return [[factors[0]], [factors[1]]]
