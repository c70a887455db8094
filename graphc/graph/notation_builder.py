"""From an index formula's text, as it was parsed, to the formula for operands of known shapes and types.

Every word gets its meaning, every index its range, every read its guards.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, nan, pi

from graphc.errors import DefinitionError, DTypeError, ShapeError
from graphc.graph.bounds import within
from graphc.graph.dtypes import DTYPES, DType, boolean, float32, int64
from graphc.graph.formula import (
    Affine,
    Formula,
    FromData,
    Guard,
    Index,
    Read,
    Shape,
    check,
    index_value,
    plain,
    range_of,
)
from graphc.graph.notation_parser import ParsedFormula, Range
from graphc.graph.primitives import PRIMITIVES
from graphc.graph.ranges import Bound, infer
from graphc.graph.ranges import Index as RangedIndex
from graphc.graph.scalar import BodyBuilder, Operand, Scalar
from graphc.graph.show import affine_text
from graphc.graph.sizes import SizeLike, names
from graphc.graph.sym import FUNCTIONS
from graphc.graph.syntax import Call, Expr, Name, Num, Op, Parser, Subscript, affine_of, walk

_SHORT = {"max": "maximum", "min": "minimum", "mod": "remainder"}  # beside the names of ``sym``
_OPERATORS = {
    "+": "add", "-": "sub", "*": "mul", "/": "div", "//": "floor_divide", "%": "remainder", "**": "pow", "neg": "neg",
    "==": "equal", "!=": "not_equal", "<": "less", "<=": "less_equal", "&": "logical_and", "and": "logical_and",
    "|": "logical_or", "or": "logical_or", "^": "logical_xor", "not": "logical_not",
}  # fmt: skip
_FLIPPED = {">": "<", ">=": "<="}
_WRONG_WAY = {"<": ">=", "<=": ">", ">": "<=", ">=": "<", "==": "!=", "!=": "=="}


def build_formula(parsed: ParsedFormula, shapes: Sequence[Shape], dtypes: Sequence[DType]) -> Formula:
    """The formula that a text means for operands of these shapes and types.

    Raises: ShapeError where ranks or ranges do not fit, DefinitionError where a word is bound by nothing, DTypeError
    where an operand has the wrong type.

    >>> from graphc.graph.notation_parser import parse_formula
    >>> build_formula(parse_formula("out[i] = x[i] * x[i + 1]"), [(8,)], [float32]).shape
    (7,)
    """
    if not len(shapes) == len(dtypes) == len(parsed.operands):
        wanted = ", ".join(parsed.operands)
        raise DefinitionError(f"formula: {len(shapes)} operands given; needs {len(parsed.operands)}: {wanted}")
    return _Build(parsed, tuple(tuple(s) for s in shapes), tuple(dtypes)).formula()


class _Build:
    """One formula being built for operands of known shapes and types."""

    def __init__(self, parsed: ParsedFormula, shapes: tuple[Shape, ...], dtypes: tuple[DType, ...]) -> None:
        self.parsed = parsed
        self.parser = Parser(parsed.text)  # for its errors, which quote the text
        self.shapes = dict(zip(parsed.operands, shapes, strict=True))
        self.dtypes = dict(zip(parsed.operands, dtypes, strict=True))
        self.number = {name: k for k, name in enumerate(parsed.operands)}
        self.ranges = parsed.out + parsed.reduced
        self.variables = {r.name: v for v, r in enumerate(self.ranges)}
        self.index_names = tuple(self.variables)
        self.dims = dict.fromkeys(n for shape in shapes for size in shape for n in names(size))
        self.bounds: list[Bound] = []
        self.reads: list[Read] = []
        self.extents: Shape = ()
        self.lifted: tuple[Guard, ...] = ()
        self.builder = BodyBuilder()

    def formula(self) -> Formula:
        """The whole."""
        self._ranks()
        body = self.parsed.body
        while self.parsed.reduction in ("none", "sum"):  # both hold 0 where a guard fails
            inner = self._masked(body)
            if inner is None:
                break
            body = inner
        self._collect(body, self.lifted)
        ranged = [RangedIndex(r.name, self._given(r), self._hint(r)) for r in self.ranges]
        self.extents = infer(ranged, self.bounds, self.parsed.text)
        value = self._result(self.value(body, self.lifted))
        rank = len(self.parsed.out)
        formula = Formula(
            self.extents, plain(rank), self.extents[:rank], tuple(self.reads), self.builder.finish(value),
            self.parsed.reduction, self.lifted,
        )  # fmt: skip
        check(formula)
        return formula

    def fail(self, message: str) -> ShapeError:
        """A ShapeError that quotes the formula."""
        return ShapeError(f"formula: {message}, in {self.parsed.text!r}")

    def _ranks(self) -> None:
        for read in walk(self.parsed.body):
            if not isinstance(read, Subscript):
                continue
            shape = self.shapes[read.base]
            if len(read.items) != len(shape):
                given = f"{len(read.items)} {'index' if len(read.items) == 1 else 'indices'}"
                raise self.fail(f"{read.base} is read at {given}; it has {len(shape)} axes, shape {_shape_text(shape)}")

    def _hint(self, declared: Range) -> str:
        name = declared.name
        return f"out[{name}: 8]" if declared in self.parsed.out else f"{self.parsed.reduction}({name}: 8)"

    def _given(self, declared: Range) -> SizeLike | None:
        if declared.given is None:
            return None
        size = self.affine(declared.given)
        if size.terms:
            raise self.fail(f"the size of {declared.name} names an index")
        if isinstance(size.const, int) and size.const < 1:
            raise self.fail(f"the size of {declared.name} is {size.const}; needs at least 1")
        return size.const

    def affine(self, expr: Expr) -> Affine:
        """An index expression, every word of which is an index or a dimension of an operand."""
        for word in _words(expr):
            if word not in self.variables and word not in self.dims:
                raise DefinitionError(
                    f"formula: {word} is bound by nothing in {self.parsed.text!r}; an index stands in out[…] or in the "
                    f"reduction, a dimension in an operand's shape, and an operand without axes is written {word}[]"
                )
        try:
            return affine_of(expr, self.variables, self.parser)
        except DefinitionError as error:
            rule = str(error).removeprefix("formula: ").rsplit(", at character", 1)[0]
            raise DefinitionError(f"formula: {rule}, in {self.parsed.text!r}") from error

    def index(self, expr: Expr, size: SizeLike) -> Index:
        """What stands between an operand's brackets on an axis of the given size."""
        if not isinstance(expr, Subscript):
            if any(isinstance(e, Subscript) for e in walk(expr)):
                rule = "an index from data stands alone, as in t[idx[n]]"
                raise DefinitionError(f"formula: {rule}, in {self.parsed.text!r}")
            return self.affine(expr)
        if self.dtypes[expr.base].kind != "i":
            given = f"{expr.base} is {self.dtypes[expr.base]} and gives an index"
            raise DTypeError(f"formula: {given} in {self.parsed.text!r}; needs integers")
        if any(isinstance(e, Subscript) for item in expr.items for e in walk(item)):
            raise DefinitionError(f"formula: an index from data inside an index from data, in {self.parsed.text!r}")
        return FromData(self.number[expr.base], tuple(self.affine(i) for i in expr.items), size)

    def guards(self, condition: Expr, holds: bool = True) -> tuple[tuple[Guard, ...], bool]:
        """What a condition (or, not ``holds``, its opposite) says of the indices, and whether that is all it says."""
        if isinstance(condition, Op) and condition.sign == "not":
            return self.guards(condition.args[0], not holds)
        if isinstance(condition, Op) and condition.sign in ("and", "&", "or", "|"):
            if (condition.sign in ("and", "&")) != holds:
                return (), False
            parts = [self.guards(a, holds) for a in condition.args]
            return tuple(g for found, _ in parts for g in found), all(whole for _, whole in parts)
        if not isinstance(condition, Op) or condition.sign not in _WRONG_WAY:
            return (), False
        if any(not isinstance(e, (Op, Num, Name)) for e in walk(condition)):
            return (), False
        sign = condition.sign if holds else _WRONG_WAY[condition.sign]
        first, second = condition.args
        try:
            if sign == "==" and _is_zero(second) and isinstance(first, Op) and first.sign == "%":
                divided, divisor = (self.affine(a) for a in first.args)
                if isinstance(divisor.const, int) and divisor.const > 0 and not divisor.terms:
                    return (Guard("div", divided, divisor.const),), True
            left, right = self.affine(first), self.affine(second)
        except DefinitionError:
            if all(w in self.variables or w in self.dims for w in _words(condition)):
                return (), False  # indices multiplied, or a fraction: it stays a condition of the body
            raise
        if sign == "!=":
            return (), False
        if sign == "==":
            return (Guard("eq", left - right),), True
        low, high = (right, left) if sign in (">", ">=") else (left, right)
        return (Guard("ge", high - low + Affine(-1 if sign in ("<", ">") else 0)),), True

    def _masked(self, body: Expr) -> Expr | None:
        """The value of ``where(condition, value, 0)`` whose condition is one on indices, which becomes a guard."""
        if not (isinstance(body, Call) and body.name == "where" and len(body.args) == 3 and _is_zero(body.args[2])):
            return None
        guards, whole = self.guards(body.args[0])
        if not whole:
            return None
        self.lifted += guards
        return body.args[1]

    def _collect(self, expr: Expr, guards: tuple[Guard, ...]) -> None:
        """Notes every axis that is read, with the conditions that hold there."""
        if isinstance(expr, Subscript):
            for item, size in zip(expr.items, self.shapes[expr.base], strict=True):
                index = self.index(item, size)
                if isinstance(index, Affine):
                    self.bounds.append(Bound(index, size, self.written(expr), bool(guards)))
                else:
                    assert isinstance(item, Subscript)
                    self._collect(item, guards)
        elif isinstance(expr, Call) and expr.name == "where" and len(expr.args) == 3:
            self._collect(expr.args[0], guards)
            self._collect(expr.args[1], guards + self.guards(expr.args[0])[0])
            self._collect(expr.args[2], guards + self.guards(expr.args[0], False)[0])
        elif isinstance(expr, (Call, Op)):
            for arg in expr.args:
                self._collect(arg, guards)

    def written(self, read: Subscript) -> str:
        """A read as the user may recognise it."""
        items = []
        for item in read.items:
            if isinstance(item, Subscript):
                items.append(self.written(item))
            else:
                items.append(affine_text(self.affine(item), self.index_names))
        return f"{read.base}[{', '.join(items)}]"

    def value(self, expr: Expr, guards: tuple[Guard, ...]) -> Scalar:
        """The value of an expression as a scalar of the body."""
        value = self.operand(expr, guards)
        if isinstance(value, Scalar):
            return value
        dtype = boolean if isinstance(value, bool) else int64 if isinstance(value, int) else float32
        return self.builder.const(value, dtype)

    def operand(self, expr: Expr, guards: tuple[Guard, ...]) -> Operand:
        """The value of an expression, a number staying one."""
        if isinstance(expr, Num):
            return float(expr.text) if set(expr.text) & set(".eE") else int(expr.text)
        if isinstance(expr, Name):
            return self.word(expr)
        if isinstance(expr, Subscript):
            return self.read(expr, guards)
        if isinstance(expr, Op):
            args = expr.args[::-1] if expr.sign in _FLIPPED else expr.args
            sign = _FLIPPED.get(expr.sign, expr.sign)
            if sign == "**" and isinstance(args[1], Num) and args[1].text == "2":
                base = self.operand(args[0], guards)
                return base * base
            return self.apply(_OPERATORS[sign], [self.operand(a, guards) for a in args])
        return self.call(expr, guards)

    def word(self, expr: Name) -> Operand:
        """The value of an index, a dimension or a named number."""
        if expr.text in self.variables:
            return self.builder.index(self.variables[expr.text])
        numbers: dict[str, Operand] = {"inf": inf, "nan": nan, "pi": pi, "True": True, "False": False}
        if expr.text in numbers and expr.text not in self.dims:
            return numbers[expr.text]
        return index_value(self.builder, self.affine(expr))

    def read(self, expr: Subscript, guards: tuple[Guard, ...]) -> Scalar:
        """An operand's value; the conditions guard it where it might leave its bounds without them."""
        index = tuple(self.index(i, s) for i, s in zip(expr.items, self.shapes[expr.base], strict=True))
        needed: tuple[Guard, ...] = ()
        pairs = list(zip(index, self.shapes[expr.base], strict=True))
        for item, inner in zip(expr.items, index, strict=True):
            if isinstance(item, Subscript) and isinstance(inner, FromData):
                pairs += zip(inner.index, self.shapes[item.base], strict=True)
        for at, size in pairs:
            if isinstance(at, Affine) and not within(at, size, self.extents, self.lifted):
                if not within(at, size, self.extents, guards):
                    raise self.fail(_outside(self, at, size, self.written(expr)))
                needed = tuple(g for g in guards if g not in self.lifted)
        read = Read(self.number[expr.base], index, needed)
        if read not in self.reads:
            self.reads.append(read)
        return self.builder.read(self.reads.index(read), self.dtypes[expr.base])

    def call(self, expr: Call, guards: tuple[Guard, ...]) -> Operand:
        """A function of its arguments; ``where`` guards what it chooses between."""
        if expr.name == "where" and len(expr.args) == 3:
            condition = self.operand(expr.args[0], guards)
            if isinstance(condition, Scalar) and condition.dtype != boolean:
                raise DTypeError(f"formula: where takes a condition; {condition.dtype} given, in {self.parsed.text!r}")
            yes = self.operand(expr.args[1], guards + self.guards(expr.args[0])[0])
            no = self.operand(expr.args[2], guards + self.guards(expr.args[0], False)[0])
            return self.apply("where", [condition, yes, no])
        args = [self.operand(a, guards) for a in expr.args]
        if expr.name in DTYPES and len(args) == 1:
            return self.builder.cast(self.value(expr.args[0], guards), DTYPES[expr.name])
        if expr.name == "square" and len(args) == 1:
            return args[0] * args[0]
        if expr.name == "reciprocal" and len(args) == 1:
            return self.apply("div", [1, args[0]])
        if expr.name == "relu" and len(args) == 1:
            return self.apply("where", [self.apply("less_equal", [args[0], 0]), 0, args[0]])
        function = FUNCTIONS.get(_SHORT.get(expr.name, expr.name))
        if function is None:
            raise DefinitionError(f"formula: {expr.name} is no scalar function, in {self.parsed.text!r}")
        return self.apply(function.primitive, args[::-1] if function.swapped else args)

    def apply(self, name: str, args: Sequence[Operand]) -> Scalar:
        """A primitive of scalars and numbers."""
        primitive = PRIMITIVES[name]
        if primitive.arity != len(args):
            rule = f"{name} takes {primitive.arity} values; {len(args)} given"
            raise DefinitionError(f"formula: {rule}, in {self.parsed.text!r}")
        try:
            return self.builder.apply(name, *args)
        except DTypeError as error:
            raise DTypeError(f"formula: {error}, in {self.parsed.text!r}") from error

    def _result(self, value: Scalar) -> Scalar:
        """The value with the type that its reduction takes: sums of integers are int64, as the array API says."""
        reduction = self.parsed.reduction
        if reduction == "logsumexp" and value.dtype.kind != "f":
            return self.builder.cast(value, float32)
        whole = reduction in ("sum", "prod") and value.dtype.kind == "i"
        if whole or (reduction != "none" and value.dtype == boolean):
            return self.builder.cast(value, int64)
        return value


def _outside(build: _Build, at: Affine, size: SizeLike, written: str) -> str:
    low, high = range_of(at, build.extents)
    where = affine_text(at, build.index_names)
    rule = "give a smaller range, or a condition with where"
    return f"{written} reads {where} from {low} to {high} on an axis of {size}; {rule}"


def _words(expr: Expr) -> list[str]:
    return [e.text for e in walk(expr) if isinstance(e, Name)]


def _is_zero(expr: Expr) -> bool:
    return isinstance(expr, Num) and float(expr.text) == 0 and not expr.text.startswith("-")


def _shape_text(shape: Shape) -> str:
    return f"({', '.join(str(s) for s in shape)}{',' if len(shape) == 1 else ''})"
