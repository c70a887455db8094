"""Scalar bodies: what a formula computes at one point, as a small graph of primitives.

A ``Body`` is a list of instructions in order, each naming earlier ones by position; the last is the result. Bodies are
written by calling an ordinary function with ``Scalar`` values (``trace``), so one function serves NumPy, SymPy and the
compiler. Equal instructions are written once. Nothing is simplified beyond ``x * 1``, ``x / 1`` and ``-(-x)``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from graphc.errors import DTypeError, InternalError
from graphc.graph.dtypes import DType, Number, boolean, float32, int64, promote, with_number
from graphc.graph.primitives import PRIMITIVES
from graphc.graph.sizes import Size, SizeLike
from graphc.structs import dataclass

SOURCES = ("read", "const", "index", "size")


class Instr(NamedTuple):
    """One primitive applied to earlier instructions, or a source. A tuple, since it is the key of many dictionaries.

    Sources carry their meaning in ``attr``: ``read`` the number of the formula's read, ``const`` the text of a number
    (so that nan and -0.0 compare as one expects), ``index`` the number of an index variable, ``size`` a Size.
    """

    op: str
    args: tuple[int, ...]
    dtype: DType
    attr: int | str | Size | None = None

    @property
    def is_product(self) -> bool:
        """Whether it multiplies two values: a sum of such is a matrix product, or fused multiply-adds."""
        return self.op == "mul"


@dataclass(frozen=True, slots=True, keep_hash=True)
class Body:
    """A scalar program; ``instrs[-1]`` is its result."""

    instrs: tuple[Instr, ...]

    @property
    def dtype(self) -> DType:
        """The element type of the result."""
        return self.instrs[-1].dtype

    @property
    def result(self) -> Instr:
        """The last instruction."""
        return self.instrs[-1]

    def reads(self) -> tuple[int, ...]:
        """The numbers of the reads that occur, in the order in which the body names them."""
        return tuple(dict.fromkeys(i.attr for i in self.instrs if i.op == "read" and isinstance(i.attr, int)))

    def indices(self) -> tuple[int, ...]:
        """The index variables whose values the body names, ascending."""
        return tuple(sorted({i.attr for i in self.instrs if i.op == "index" and isinstance(i.attr, int)}))

    def is_read(self) -> int | None:
        """The number of the read that the body merely passes on, else None."""
        attr = self.result.attr
        return attr if len(self.instrs) == 1 and self.result.op == "read" and isinstance(attr, int) else None


class Scalar:
    """A value inside a body under construction; operators and ``gc.sym`` functions write instructions."""

    __slots__ = ("builder", "position", "dtype")

    def __init__(self, builder: BodyBuilder, position: int, dtype: DType) -> None:
        self.builder = builder
        self.position = position
        self.dtype = dtype

    def __add__(self, other: Operand) -> Scalar:
        return self.builder.apply("add", self, other)

    def __radd__(self, other: Operand) -> Scalar:
        return self.builder.apply("add", other, self)

    def __sub__(self, other: Operand) -> Scalar:
        return self.builder.apply("sub", self, other)

    def __rsub__(self, other: Operand) -> Scalar:
        return self.builder.apply("sub", other, self)

    def __mul__(self, other: Operand) -> Scalar:
        return self.builder.apply("mul", self, other)

    def __rmul__(self, other: Operand) -> Scalar:
        return self.builder.apply("mul", other, self)

    def __truediv__(self, other: Operand) -> Scalar:
        return self.builder.apply("div", self, other)

    def __rtruediv__(self, other: Operand) -> Scalar:
        return self.builder.apply("div", other, self)

    def __floordiv__(self, other: Operand) -> Scalar:
        return self.builder.apply("floor_divide", self, other)

    def __rfloordiv__(self, other: Operand) -> Scalar:
        return self.builder.apply("floor_divide", other, self)

    def __mod__(self, other: Operand) -> Scalar:
        return self.builder.apply("remainder", self, other)

    def __rmod__(self, other: Operand) -> Scalar:
        return self.builder.apply("remainder", other, self)

    def __pow__(self, other: Operand) -> Scalar:
        return self.builder.apply("pow", self, other)

    def __rpow__(self, other: Operand) -> Scalar:
        return self.builder.apply("pow", other, self)

    def __neg__(self) -> Scalar:
        return self.builder.apply("neg", self)

    def __abs__(self) -> Scalar:
        return self.builder.apply("abs", self)

    def __lt__(self, other: Operand) -> Scalar:
        return self.builder.apply("less", self, other)

    def __le__(self, other: Operand) -> Scalar:
        return self.builder.apply("less_equal", self, other)

    def __gt__(self, other: Operand) -> Scalar:
        return self.builder.apply("less", other, self)

    def __ge__(self, other: Operand) -> Scalar:
        return self.builder.apply("less_equal", other, self)

    def __eq__(self, other: object) -> Scalar:  # type: ignore[override]
        return self.builder.apply("equal", self, _operand(other))

    def __ne__(self, other: object) -> Scalar:  # type: ignore[override]
        return self.builder.apply("not_equal", self, _operand(other))

    def __and__(self, other: Operand) -> Scalar:
        return self.builder.apply("logical_and", self, other)

    __rand__ = __and__

    def __or__(self, other: Operand) -> Scalar:
        return self.builder.apply("logical_or", self, other)

    __ror__ = __or__

    def __xor__(self, other: Operand) -> Scalar:
        return self.builder.apply("logical_xor", self, other)

    __rxor__ = __xor__

    def __invert__(self) -> Scalar:
        return self.builder.apply("logical_not", self)

    __hash__ = None  # type: ignore[assignment]

    def __bool__(self) -> bool:
        raise DTypeError(
            "elementwise: a formula's value is not known while it is written; use gc.sym.where for a choice"
        )

    def instr(self) -> Instr:
        """The instruction that made this value."""
        return self.builder.instrs[self.position]


Operand = Scalar | Number


def _operand(value: object) -> Operand:
    if isinstance(value, (Scalar, bool, int, float)):
        return value
    raise DTypeError(f"elementwise: {type(value).__name__} given; needs a scalar or a number")


class BodyBuilder:
    """Writes one Body. Equal instructions share a position."""

    def __init__(self) -> None:
        self.instrs: list[Instr] = []
        self._known: dict[Instr, int] = {}

    def emit(self, instr: Instr) -> Scalar:
        """The value of ``instr``, written unless an equal one stands already."""
        position = self._known.get(instr)
        if position is None:
            position = self._known[instr] = len(self.instrs)
            self.instrs.append(instr)
        return Scalar(self, position, instr.dtype)

    def read(self, number: int, dtype: DType) -> Scalar:
        """The value of the formula's read ``number``."""
        return self.emit(Instr("read", (), dtype, number))

    def index(self, variable: int) -> Scalar:
        """The value of an index variable, an int64."""
        return self.emit(Instr("index", (), int64, variable))

    def size(self, size: SizeLike) -> Scalar:
        """A size as an int64; a constant where it is a number."""
        return self.const(size, int64) if isinstance(size, int) else self.emit(Instr("size", (), int64, size))

    def const(self, number: Number, dtype: DType) -> Scalar:
        """A constant of the given type, rounded to it."""
        return self.emit(Instr("const", (), dtype, const_text(number, dtype)))

    def cast(self, value: Scalar, dtype: DType) -> Scalar:
        """``value`` converted to ``dtype``; itself where it has that type."""
        if value.dtype == dtype:
            return value
        instr = value.instr()
        if instr.op == "const" and dtype.kind != "b":
            return self.const(const_value(instr), dtype)
        return self.emit(Instr("cast", (value.position,), dtype))

    def apply(self, name: str, *operands: Operand) -> Scalar:
        """A primitive on scalars and numbers, with the operands promoted as its record says."""
        primitive = PRIMITIVES[name]
        if len(operands) != primitive.arity:
            raise DTypeError(f"{name}: {len(operands)} operands given; takes {primitive.arity}")
        values = self._promoted(name, operands)
        first = values[0].instr()
        last = values[-1].instr()
        if name in ("mul", "div") and last.op == "const" and const_value(last) == 1:
            return values[0]
        if name == "mul" and first.op == "const" and const_value(first) == 1:
            return values[1]
        if name == "neg" and first.op == "neg":
            return Scalar(self, first.args[0], values[0].dtype)
        if name == "neg" and first.op == "const":
            return self.const(-const_value(first), values[0].dtype)
        dtype = boolean if primitive.result == "bool" else values[-1].dtype
        return self.emit(Instr(name, tuple(v.position for v in values), dtype))

    def masked(self, condition: Scalar, value: Scalar) -> Scalar:
        """``value`` where the condition holds, else 0."""
        return self.apply("where", condition, value, self.const(0, value.dtype))

    def scaled(self, value: Scalar, factor: Scalar) -> Scalar:
        """``value * factor``; a factor that chooses between something and 0 chooses the product instead, so that a NaN
        on the side not taken stays out.
        """
        instr = factor.instr()
        if instr.op == "const" and const_value(instr) == -1:
            return -value
        if instr.op == "where":
            condition, yes, no = (Scalar(self, a, self.instrs[a].dtype) for a in instr.args)
            for zero, other, swapped in ((no, yes, False), (yes, no, True)):
                if zero.instr().op == "const" and const_value(zero.instr()) == 0:
                    product = value * other
                    return (
                        self.apply("where", condition, 0.0, product)
                        if swapped
                        else self.apply("where", condition, product, 0.0)
                    )
        return value * factor

    def _promoted(self, name: str, operands: Sequence[Operand]) -> list[Scalar]:
        primitive = PRIMITIVES[name]
        skip = 1 if name == "where" else 0  # the condition keeps its own type
        typed = [o.dtype for o in operands[skip:] if isinstance(o, Scalar)]
        common = promote(*typed) if typed else float32
        if not typed and all(isinstance(o, int) for o in operands[skip:]):
            common = boolean if all(isinstance(o, bool) for o in operands[skip:]) else int64
        for operand in operands[skip:]:
            if not isinstance(operand, Scalar):
                common = with_number(common, operand)
        if primitive.takes == "f" and common.kind != "f":
            common = float32
        if primitive.takes == "n" and common.kind == "b":
            common = int64
        if primitive.takes == "b" and common.kind != "b":
            raise DTypeError(f"{name}: {common} given; takes bool")
        values = [self.cast(o, common) if isinstance(o, Scalar) else self.const(o, common) for o in operands[skip:]]
        if skip:
            condition = operands[0]
            if not isinstance(condition, Scalar):
                condition = self.const(bool(condition), boolean)
            elif condition.dtype != boolean:
                raise DTypeError(f"where: condition of type {condition.dtype} given; takes bool")
            values.insert(0, condition)
        return values

    def include(
        self, body: Body, reads: Sequence[Scalar | None], indices: Sequence[Scalar | None] = ()
    ) -> list[Scalar]:
        """The values of another body's instructions, written here with its reads and indices replaced.

        A read or index without replacement (None, or beyond the sequence) keeps its number.
        """
        values: list[Scalar] = []
        for instr in body.instrs:
            table = reads if instr.op == "read" else indices if instr.op == "index" else ()
            new = table[instr.attr] if isinstance(instr.attr, int) and instr.attr < len(table) else None
            if new is None:
                args = tuple([values[a].position for a in instr.args])
                new = self.emit(instr if args == instr.args else Instr(instr.op, args, instr.dtype, instr.attr))
            values.append(new)
        return values

    def finish(self, result: Scalar) -> Body:
        """The body that computes ``result``: what it needs, each instruction after its operands, in the order in which
        they are met from the result on, so that equal computations are equal bodies however they were written."""
        moved: dict[int, int] = {}
        kept: list[Instr] = []
        stack = [result.position]
        while stack:
            position = stack[-1]
            old = self.instrs[position]
            missing = [a for a in old.args if a not in moved]
            if missing:
                stack.extend(reversed(missing))
                continue
            stack.pop()
            if position not in moved:
                moved[position] = len(kept)
                args = tuple([moved[a] for a in old.args])
                kept.append(old if args == old.args else Instr(old.op, args, old.dtype, old.attr))
        return Body(tuple(kept))


def trace(function: Callable[..., object], dtypes: Sequence[DType]) -> Body:
    """The body of a Python function of scalars, one read for each operand type.

    >>> [i.op for i in trace(lambda x, y: x * y + 1, [float32, float32]).instrs]
    ['read', 'read', 'mul', 'const', 'add']
    """
    builder = BodyBuilder()
    operands = [builder.read(k, dtype) for k, dtype in enumerate(dtypes)]
    result = function(*operands)
    if not isinstance(result, Scalar):
        number = _operand(result)
        assert not isinstance(number, Scalar)
        common = promote(*dtypes) if dtypes else float32
        result = builder.const(number, with_number(common, number))
    return builder.finish(result)


def const_text(number: Number, dtype: DType) -> str:
    """The text of a constant of ``dtype``: exact, and the same for equal values only."""
    if dtype.kind == "b":
        return str(bool(number))
    if dtype.kind == "i":
        return str(int(number))
    return repr(float(dtype.numpy.type(number)))


def const_value(instr: Instr) -> Number:
    """The number that a ``const`` instruction holds."""
    if instr.op != "const" or not isinstance(instr.attr, str):
        raise InternalError(f"const_value: {instr.op} is not a constant")
    if instr.dtype.kind == "b":
        return instr.attr == "True"
    return int(instr.attr) if instr.dtype.kind == "i" else float(instr.attr)
