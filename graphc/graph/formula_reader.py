"""A formula, read back from the line of index notation that ``graph/show.py`` writes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from graphc.graph.dtypes import DTYPES, DType, boolean, float32, int64
from graphc.graph.formula import COMBINERS, Affine, Formula, FromData, Guard, Index, Read, Shape, plain
from graphc.graph.primitives import PRIMITIVES
from graphc.graph.scalar import Body, BodyBuilder, Instr, Scalar, const_text
from graphc.graph.show import usual_names
from graphc.graph.sizes import SizeLike
from graphc.graph.syntax import Call, Expr, Name, Num, Op, Parser, Subscript, affine_of, size_of

_OPERATORS = {
    "+": "add", "-": "sub", "*": "mul", "/": "div", "//": "floor_divide", "**": "pow",
    "==": "equal", "!=": "not_equal", "<": "less", "<=": "less_equal", "and": "logical_and", "or": "logical_or",
}  # fmt: skip


@lru_cache(maxsize=16384)
def read_formula(text: str, shape: Shape, dtypes: tuple[DType, ...]) -> Formula:
    """The formula that ``formula_text`` wrote, for a result of ``shape`` and operands of the given types.

    Raises: DefinitionError for a text that is no formula's.
    """
    parser = Parser(text)
    reader = _Reader(parser, dtypes)
    write = None
    if parser.token.text == "out" and parser.peek() == "[":
        head = parser.expression(5)
        parser.expect("=")
        assert isinstance(head, Subscript)
        write = head.items
    listed: tuple[Expr, ...] = ()
    if parser.token.text == "with":
        parser.name()
        parser.expect("(")
        listed = parser.items(")")
        parser.expect(")")
    combine, ranges = _combiner(parser)
    listed_ranges = [_range(r, parser) for r in ranges]
    if write is None:
        listed_ranges = [*zip(usual_names(len(shape)), shape, strict=True), *listed_ranges]
    reader.variables.update({name: v for v, (name, _) in enumerate(listed_ranges)})
    extents = tuple(size for _, size in listed_ranges)
    reader.listed = tuple(reader.read(e) for e in listed)
    body = reader.body()
    guards = tuple(reader.guard(e) for e in parser.items("")) if parser.take("if") else ()
    parser.end()
    index = plain(len(shape)) if write is None else tuple(reader.index(w) for w in write)
    reads = reader.listed or tuple(reader.reads)
    return Formula(extents, index, shape, reads, body, combine, guards)


def _combiner(parser: Parser) -> tuple[str, tuple[Expr, ...]]:
    if parser.token.text not in COMBINERS or parser.peek() != "(":
        return "none", ()
    combine = parser.name()
    parser.expect("(")
    ranges = parser.items(")")
    parser.expect(")")
    return combine, ranges


def _range(item: Expr, parser: Parser) -> tuple[str, SizeLike]:
    if not (isinstance(item, Op) and item.sign == "<" and isinstance(item.args[0], Name)):
        raise parser.error("a range such as k<8 is expected")
    return item.args[0].text, size_of(item.args[1], parser)


class _Reader:
    """Reads a formula's parts: indices, guards, reads, and the body's statements as the very instructions written."""

    def __init__(self, parser: Parser, dtypes: Sequence[DType]) -> None:
        self.parser = parser
        self.dtypes = dtypes
        self.variables: dict[str, int] = {}
        self.listed: tuple[Read, ...] = ()
        self.reads: list[Read] = []
        self.builder = BodyBuilder()
        self.bound: dict[str, Scalar] = {}

    def index(self, expr: Expr) -> Index:
        """An index expression."""
        if isinstance(expr, Op) and expr.sign == ":" and isinstance(expr.args[0], Subscript):
            return self.data(expr.args[0], expr.args[1])
        return self.affine(expr)

    def affine(self, expr: Expr) -> Affine:
        """An affine index expression."""
        return affine_of(expr, self.variables, self.parser)

    def data(self, expr: Subscript, bound: Expr) -> FromData:
        """An index from data with its bound."""
        return FromData(self.operand(expr.base), tuple(self.affine(i) for i in expr.items), size_of(bound, self.parser))

    def operand(self, base: str) -> int:
        """The number of ``$3``."""
        if not base.startswith("$") or int(base[1:]) >= len(self.dtypes):
            raise self.parser.error(f"no operand {base}")
        return int(base[1:])

    def guard(self, expr: Expr) -> Guard:
        """A condition on a point."""
        data: FromData | None = None
        if isinstance(expr, Op) and expr.sign == ":" and isinstance(expr.args[0], Op):
            inner, bound = expr.args
            assert isinstance(inner, Op)
            left, right = inner.args
            if not isinstance(right, Subscript):
                raise self.parser.error("a bound stands behind an index from data")
            return Guard("eq", self.affine(left), data=self.data(right, bound))
        if not isinstance(expr, Op) or expr.sign not in (">=", "<=", "=="):
            raise self.parser.error("a condition with >=, <= or == is expected")
        left, right = expr.args
        if isinstance(left, Op) and left.sign == "%" and expr.sign == "==":
            if not (isinstance(left.args[1], Num) and right == Num("0")):
                raise self.parser.error("a condition such as (i + 1) % 2 == 0 is expected")
            return Guard("div", self.affine(left.args[0]), int(left.args[1].text), data)
        a, b = self.affine(left), self.affine(right)
        return Guard("eq", a - b) if expr.sign == "==" else Guard("ge", a - b if expr.sign == ">=" else b - a)

    def read(self, expr: Expr) -> Read:
        """An operand at its indices."""
        if not isinstance(expr, Subscript):
            raise self.parser.error("an operand at its indices is expected")
        index = tuple(self.index(i) for i in expr.items)
        return Read(self.operand(expr.base), index, tuple(self.guard(g) for g in expr.guards))

    def body(self) -> Body:
        """The statements that come next."""
        while True:
            name = ""
            if self.parser.token.kind == "name" and self.parser.peek() == "=":
                name = self.parser.name()
                self.parser.expect("=")
            value = self.value(self.parser.expression())
            if name:
                self.bound[name] = value
            if not self.parser.take(";"):
                return self.builder.finish(value)

    def value(self, expr: Expr) -> Scalar:
        """The value of an expression; writes its instructions from left to right."""
        if isinstance(expr, Num):
            return self.number(expr.text, float32 if set(expr.text) & set(".e") else int64)
        if isinstance(expr, Name):
            return self.word(expr.text)
        if isinstance(expr, Subscript):
            read = self.read(expr)
            if read not in self.reads:
                self.reads.append(read)
            return self.builder.read(self.reads.index(read), self.dtypes[read.operand])
        if isinstance(expr, Op):
            if expr.sign == "neg":  # only infinity is written with a sign of its own
                return self.number("-inf", float32)
            if expr.sign not in _OPERATORS:
                raise self.parser.error(f"{expr.sign} is no operator of a body")
            return self.apply(_OPERATORS[expr.sign], expr.args)
        return self.call(expr)

    def word(self, word: str) -> Scalar:
        """The value of a bare word."""
        if word in self.bound:
            return self.bound[word]
        if word in ("True", "False"):
            return self.number(word, boolean)
        if word in ("inf", "nan"):
            return self.number(word, float32)
        if word in self.variables:
            return self.builder.index(self.variables[word])
        if re.fullmatch(r"r\d+", word) and int(word[1:]) < len(self.listed):
            number = int(word[1:])
            return self.builder.read(number, self.dtypes[self.listed[number].operand])
        raise self.parser.error(f"{word} names nothing")

    def number(self, text: str, dtype: DType) -> Scalar:
        """A constant of the given type."""
        value = text == "True" if dtype.kind == "b" else int(text) if dtype.kind == "i" else float(text)
        return self.builder.emit(Instr("const", (), dtype, const_text(value, dtype)))

    def call(self, expr: Call) -> Scalar:
        """The value of a function, a conversion, a typed constant or a size."""
        if expr.name == "size" and len(expr.args) == 1:
            return self.builder.emit(Instr("size", (), int64, size_of(expr.args[0], self.parser)))
        if expr.name in DTYPES and len(expr.args) == 1:
            dtype, (arg,) = DTYPES[expr.name], expr.args
            word = arg.text if isinstance(arg, (Num, Name)) else "-inf" if arg == Op("neg", (Name("inf"),)) else ""
            if dtype.kind != "b" and (isinstance(arg, Num) or word in ("inf", "nan", "-inf")):
                return self.number(word, dtype)
            return self.builder.emit(Instr("cast", (self.value(arg).position,), dtype))
        return self.apply(expr.name, expr.args)

    def apply(self, name: str, args: Sequence[Expr]) -> Scalar:
        """The value of a primitive."""
        primitive = PRIMITIVES.get(name)
        if primitive is None or primitive.arity != len(args):
            raise self.parser.error(f"no function {name} of {len(args)} operands")
        values = [self.value(a) for a in args]
        dtype = boolean if primitive.result == "bool" else values[-1].dtype
        return self.builder.emit(Instr(name, tuple(v.position for v in values), dtype))
