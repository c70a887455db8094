"""The small expression language that formulas are written in: tokens, and a precedence parser that makes a tree.

Two readers share it: ``notation_parser`` with ``notation_builder`` (what a user writes in ``gc.formula``) and ``text``
(a graph's text form).
They give meaning to the tree; here is form alone. Precedence is Python's. Nothing is evaluated.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from graphc.errors import DefinitionError
from graphc.graph.formula import Affine
from graphc.graph.sizes import Size, SizeLike, dim
from graphc.structs import dataclass

MAX_DEPTH = 40  # of nested parentheses; the parser and its readers recurse that deep at most
MAX_CHAIN = 200  # operators of one expression without parentheses

_TOKEN = re.compile(
    r"\s*(?:(?P<number>(?:\d+\.\d*|\.\d+|\d+)(?:[eE][+-]?\d+)?)|(?P<name>[^\W\d]\w*)|(?P<operand>\$\d+)"
    r"|(?P<sign>\*\*|//|==|!=|<=|>=|[-+*/%<>=()\[\],:;&|^~]))"
)
_WORDS = ("and", "or", "not", "if")

# Binary operators, loosest first. Comparisons chain as in Python; ``not`` stands between ``and`` and them.
_LEVELS: tuple[tuple[str, ...], ...] = (
    ("or",),
    ("and",),
    ("==", "!=", "<", "<=", ">", ">="),
    ("|",),
    ("^",),
    ("&",),
    ("+", "-"),
    ("*", "/", "//", "%"),
)
_COMPARISON = 2
_BINDS = {sign: level for level, signs in enumerate(_LEVELS) for sign in signs}


@dataclass(frozen=True, slots=True)
class Token:
    """A piece of the text: its kind (number, name, operand, sign, end), its characters and where it starts."""

    kind: str
    text: str
    start: int


@dataclass(frozen=True, slots=True)
class Num:
    """A number as written."""

    text: str


@dataclass(frozen=True, slots=True)
class Name:
    """A bare word, or an operand by number (``$0``)."""

    text: str


@dataclass(frozen=True, slots=True)
class Subscript:
    """``base[items if guards]``."""

    base: str
    items: tuple[Expr, ...]
    guards: tuple[Expr, ...] = ()


@dataclass(frozen=True, slots=True)
class Call:
    """``name(arguments)``."""

    name: str
    args: tuple[Expr, ...]


@dataclass(frozen=True, slots=True)
class Op:
    """An operator and its operands; ``neg``, ``not`` and ``~`` take one, ``:`` puts a bound to an index from data."""

    sign: str
    args: tuple[Expr, ...]


Expr = Num | Name | Subscript | Call | Op


def children(expr: Expr) -> tuple[Expr, ...]:
    """The expressions that one is made of; guards aside."""
    return expr.items if isinstance(expr, Subscript) else expr.args if isinstance(expr, (Call, Op)) else ()


def walk(expr: Expr) -> Iterator[Expr]:
    """An expression and all inside it, from left to right."""
    yield expr
    for part in children(expr):
        yield from walk(part)


class Parser:
    """Reads one text, token by token.

    >>> parser = Parser("2*i + j")
    >>> parser.expression()
    Op(sign='+', args=(Op(sign='*', args=(Num(text='2'), Name(text='i'))), Name(text='j')))
    """

    def __init__(self, text: str, what: str = "formula") -> None:
        self.text = text
        self.what = what
        self.tokens = _tokens(text, what)
        self.position = 0
        self.depth = 0

    @property
    def token(self) -> Token:
        """The token that comes next."""
        return self.tokens[self.position]

    def peek(self, ahead: int = 1) -> str:
        """The characters of a later token; empty past the end."""
        at = self.position + ahead
        return self.tokens[at].text if at < len(self.tokens) else ""

    def error(self, message: str) -> DefinitionError:
        """The error that says what is wrong and where."""
        return DefinitionError(f"{self.what}: {message}, at character {self.token.start + 1} of {self.text!r}")

    def take(self, sign: str) -> bool:
        """Whether the next token is ``sign``; it is then passed."""
        if self.token.kind in ("sign", "name") and self.token.text == sign:
            self.position += 1
            return True
        return False

    def expect(self, sign: str) -> None:
        """Passes ``sign``. Raises DefinitionError where something else comes."""
        if not self.take(sign):
            found = repr(self.token.text) if self.token.text else "the end"
            raise self.error(f"{sign!r} expected, {found} found")

    def name(self, what: str = "a name") -> str:
        """The next word. Raises DefinitionError where none comes."""
        token = self.token
        if token.kind != "name" or token.text in _WORDS:
            raise self.error(f"{what} expected, {repr(token.text) if token.text else 'the end'} found")
        self.position += 1
        return token.text

    def at_end(self) -> bool:
        """Whether all is read."""
        return self.token.kind == "end"

    def end(self) -> None:
        """Raises DefinitionError where something is left."""
        if not self.at_end():
            raise self.error(f"{self.token.text!r} was not expected")

    def expression(self, level: int = 0) -> Expr:
        """The expression that comes next, of operators that bind at least as tightly as ``level``."""
        if level <= _COMPARISON and self.take("not"):
            self._deeper()
            left: Expr = Op("not", (self.expression(_COMPARISON),))
            self.depth -= 1
        else:
            left = self._unary()
        for _ in range(MAX_CHAIN):
            sign = self.token.text
            binds = _BINDS.get(sign, -1)
            if binds < level:
                return left
            if binds == _COMPARISON:
                left = self._comparison(left)
            else:
                self.position += 1
                left = Op(sign, (left, self.expression(binds + 1)))
        raise self.error(f"more than {MAX_CHAIN} operators in a row")

    def size(self) -> SizeLike:
        """The size that comes next: an expression of numbers and dimensions."""
        return size_of(self.expression(_COMPARISON + 1), self)

    def _comparison(self, left: Expr) -> Expr:
        whole: Expr | None = None
        while _BINDS.get(self.token.text) == _COMPARISON:
            sign = self.token.text
            self.position += 1
            right = self.expression(_COMPARISON + 1)
            part = Op(sign, (left, right))
            whole = part if whole is None else Op("and", (whole, part))
            left = right
        assert whole is not None
        return whole

    def _unary(self) -> Expr:
        for sign, name in (("-", "neg"), ("~", "not"), ("+", "")):
            if self.token.kind == "sign" and self.take(sign):
                self._deeper()
                inner = self._unary()
                self.depth -= 1
                if isinstance(inner, Num) and name == "neg":
                    return Num("-" + inner.text)
                return Op(name, (inner,)) if name else inner
        base = self._primary()
        if self.take("**"):
            self._deeper()
            power = self._unary()
            self.depth -= 1
            return Op("**", (base, power))
        return base

    def _primary(self) -> Expr:
        token = self.token
        if token.kind == "number":
            self.position += 1
            return Num(token.text)
        if token.text == "(":
            self.position += 1
            self._deeper()
            inner = self.expression()
            self.depth -= 1
            self.expect(")")
            return inner
        if token.kind == "operand":
            self.position += 1
            return self._subscript(token.text) if self.token.text == "[" else Name(token.text)
        name = self.name("an operand, a number or a function")
        if self.token.text == "[":
            return self._subscript(name)
        if self.take("("):
            args = self.items(")")
            self.expect(")")
            return Call(name, args)
        return Name(name)

    def _subscript(self, base: str) -> Expr:
        self.expect("[")
        items = () if self.token.text == "if" else self.items("]")
        guards = self.items("]") if self.take("if") else ()
        self.expect("]")
        return Subscript(base, items, guards)

    def items(self, close: str) -> tuple[Expr, ...]:
        """The expressions between commas up to ``close`` (not passed); each may carry a bound after a colon."""
        self._deeper()
        found: list[Expr] = []
        while self.token.text not in (close, "if"):
            item = self.expression()
            if self.take(":"):
                item = Op(":", (item, self.expression(_COMPARISON + 1)))
            found.append(item)
            if not self.take(","):
                break
        self.depth -= 1
        return tuple(found)

    def _deeper(self) -> None:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise self.error(f"nested deeper than {MAX_DEPTH}")


def _tokens(text: str, what: str) -> list[Token]:
    found: list[Token] = []
    position = 0
    length = len(text.rstrip())
    while position < length:
        match = _TOKEN.match(text, position)
        if match is None or match.lastgroup is None:
            start = position + len(text[position:]) - len(text[position:].lstrip())
            where = f"at character {start + 1} of {text!r}"
            raise DefinitionError(f"{what}: the character {text[start]!r} means nothing here, {where}")
        found.append(Token(match.lastgroup, match[match.lastgroup], match.start(match.lastgroup)))
        position = match.end()
    found.append(Token("end", "", len(text)))
    return found


def size_of(expr: Expr, parser: Parser) -> SizeLike:
    """The size that a tree means, its names being dimensions. Raises DefinitionError where it means none."""
    index = affine_of(expr, {}, parser)
    return index.const


def affine_of(expr: Expr, variables: dict[str, int], parser: Parser) -> Affine:
    """The affine expression that a tree means; names that are no variables are dimensions.

    Raises: DefinitionError where variables are multiplied, divided or given a coefficient that is not an integer.
    """
    if isinstance(expr, Num):
        if not re.fullmatch(r"-?\d+", expr.text):
            raise parser.error(f"the index expression has the number {expr.text}; needs integers")
        return Affine(int(expr.text))
    if isinstance(expr, Name):
        variable = variables.get(expr.text)
        return Affine(dim(expr.text)) if variable is None else Affine(0, ((variable, 1),))
    if not isinstance(expr, Op) or expr.sign not in ("+", "-", "*", "//", "%", "**", "neg"):
        raise parser.error("an index expression is made of indices, integers and sizes with + - *")
    args = [affine_of(a, variables, parser) for a in expr.args]
    if expr.sign == "neg":
        return args[0].scale(-1)
    left, right = args
    if expr.sign == "+":
        return left + right
    if expr.sign == "-":
        return left - right
    if not left.terms and not right.terms:
        return Affine(_constant(expr.sign, left.const, right.const, parser))
    if expr.sign == "*":
        for factor, other in ((left, right), (right, left)):
            if not factor.terms and isinstance(factor.const, int):
                return other.scale(factor.const)
    raise parser.error("an index expression is a sum of indices with integer coefficients")


def _constant(sign: str, left: SizeLike, right: SizeLike, parser: Parser) -> SizeLike:
    if sign == "*":
        return left * right
    if sign == "**":
        if isinstance(right, Size) or right < 0:
            raise parser.error("a size has integer powers, at least 0")
        return left**right
    if right == 0:
        raise parser.error("division by 0")
    if sign == "//":
        return left // right
    if isinstance(left, int) and isinstance(right, Size):
        raise parser.error("the remainder of a number by a size")
    return left % right  # type: ignore[operator]  # an int by a Size is refused above
