"""Index formulas as a user writes them: ``out[n,o] = sum(i,j) x[n,i] * w[o,i,j] * z[n,j]``.

The left side names the result's indices, an optional reduction (``sum prod max min logsumexp``) those joined over, and
the rest is the value at one point: operands at affine indices or at an index from data (``t[idx[n], j]``), numbers,
index values and sizes as bare words, operators, ``where`` and the scalar functions. An index ranges over all values for
which every read is in bounds, or over what is given: ``out[i: 8] = sum(k: 3) …``.

Here is what a text says by itself; ``notation_builder.py`` makes a formula of it for operands of known shapes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from graphc.errors import DefinitionError
from graphc.graph.syntax import MAX_CHAIN, Call, Expr, Name, Op, Parser, Subscript, children
from graphc.structs import dataclass

REDUCTIONS = ("sum", "prod", "max", "min", "logsumexp")
_PRODUCT = 7  # the level of * and /, in ``syntax``


@dataclass(frozen=True, slots=True)
class Range:
    """An index as declared: its name, and the size given for it, if any."""

    name: str
    given: Expr | None


@dataclass(frozen=True, slots=True)
class ParsedFormula:
    """A formula's text, understood but for the operands' shapes.

    operands: their names in order of first appearance. out, reduced: the indices of the result, and those joined over
    by ``reduction`` (``none`` where there are none). body: the value at one point.
    """

    text: str
    operands: tuple[str, ...]
    out: tuple[Range, ...]
    reduction: str
    reduced: tuple[Range, ...]
    body: Expr


def parse_formula(text: str) -> ParsedFormula:
    """What an index formula's text says.

    Raises: DefinitionError where it says nothing, with the place.

    >>> parsed = parse_formula("out[n,o] = sum(i,j) x[n,i] * w[o,i,j] * z[n,j]")
    >>> parsed.operands, parsed.reduction, [r.name for r in parsed.reduced]
    (('x', 'w', 'z'), 'sum', ['i', 'j'])
    >>> parse_formula("out[i] = x[i")
    Traceback (most recent call last):
    ...
    graphc.errors.DefinitionError: formula: ']' expected, the end found, at character 13 of 'out[i] = x[i'
    """
    if not isinstance(text, str):
        raise DefinitionError(f"formula: {type(text).__name__} given; needs a text such as 'out[i] = x[i] * 2'")
    parser = Parser(text)
    result = parser.name("the name of the result")
    out: tuple[Range, ...] = ()
    if parser.take("["):
        out = _ranges(parser, parser.items("]"), "an index of the result is one word, with its size after a colon")
        parser.expect("]")
    parser.expect("=")
    reduction, reduced = _reduction(parser)
    body = parser.expression(_PRODUCT if reduction != "none" else 0)
    reads = list(_subscripts(body, parser))
    if reduction != "none" and not parser.at_end() and parser.token.kind == "sign":
        inside = f"{reduction}({', '.join(r.name for r in reduced)})"
        rule = f"a sum of terms stands in parentheses, {inside} (… {parser.token.text} …)"
        raise parser.error(f"{inside} takes one product; {rule}")
    parser.end()
    _refuse_deep(body, parser)
    found = [r.name for r in out + reduced]
    for name in found:
        if found.count(name) > 1:
            raise DefinitionError(f"formula: index {name} is declared twice in {text!r}")
    ranks: dict[str, int] = {}
    for read in reads:
        if read.base in found or read.base == result:
            what = "an index" if read.base in found else "the result"
            raise DefinitionError(f"formula: {read.base} is {what} and is read as an operand in {text!r}")
        if ranks.setdefault(read.base, len(read.items)) != len(read.items):
            given = f"{ranks[read.base]} and at {len(read.items)} indices"
            raise DefinitionError(f"formula: {read.base} is read at {given} in {text!r}; needs the same number")
    return ParsedFormula(text, tuple(ranks), out, reduction, reduced, body)


def _ranges(parser: Parser, items: Sequence[Expr], rule: str) -> tuple[Range, ...]:
    found = []
    for item in items:
        given = None
        if isinstance(item, Op) and item.sign == ":":
            item, given = item.args
        if not isinstance(item, Name):
            raise parser.error(rule)
        found.append(Range(item.text, given))
    return tuple(found)


def _reduction(parser: Parser) -> tuple[str, tuple[Range, ...]]:
    """The reduction that stands before the body, if one does; ``max(a, b)`` of two values is none."""
    start = parser.position
    word = parser.token.text
    if word not in REDUCTIONS or parser.peek() != "(":
        return "none", ()
    parser.position += 2
    items = parser.items(")")
    parser.expect(")")
    follows = parser.token.kind in ("name", "number") or parser.token.text in ("(", "-")
    several = word in ("max", "min") and len(items) > 1
    if several and (not follows or parser.token.text == "-"):
        parser.position = start
        return "none", ()
    ranges = _ranges(parser, items, f"{word}(…) names the indices that it joins over, as in {word}(i, k: 3)")
    if not ranges:
        raise parser.error(f"{word}() names no index")
    return word, ranges


def _subscripts(expr: Expr, parser: Parser) -> Iterator[Subscript]:
    """Every operand that is read, from left to right; those inside indices too."""
    if isinstance(expr, Subscript):
        if expr.guards:
            raise parser.error("a condition is written where(condition, value, 0)")
        yield expr
        for item in expr.items:
            yield from _subscripts(item, parser)
    elif isinstance(expr, Call):
        _refuse_nested(expr, parser)
        for arg in expr.args:
            yield from _subscripts(arg, parser)
    elif isinstance(expr, Op):
        if expr.sign == ":":
            raise parser.error("a size is given where an index is declared, in out[i: 8] or sum(k: 3)")
        for arg in expr.args:
            yield from _subscripts(arg, parser)


def _refuse_deep(body: Expr, parser: Parser) -> None:
    """Raises DefinitionError where the readers below would recurse too deep."""
    level: list[Expr] = [body]
    for _ in range(MAX_CHAIN):
        level = [part for e in level for part in children(e)]
        if not level:
            return
    raise parser.error(f"more than {MAX_CHAIN} operators inside each other")


def _refuse_nested(call: Call, parser: Parser) -> None:
    if call.name in REDUCTIONS and not (call.name in ("max", "min") and len(call.args) == 2):
        raise parser.error(
            f"{call.name}(…) stands inside a term; a formula has one reduction, before the whole right side: "
            "write the inner one as a formula of its own"
        )
