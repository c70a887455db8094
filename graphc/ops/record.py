"""What an operation is: a record, and the formula that it becomes for given operands.

A record states its type rule and its meaning (``build`` gives the index formula for operand types and attributes), its
NumPy reference, sample operands for the tests, and a line of doc. Everything else follows from these.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from graphc.errors import DTypeError, ShapeError
from graphc.graph.dtypes import DType, Number
from graphc.graph.formula import Formula, Read, Shape, map_operands
from graphc.graph.scalar import BodyBuilder, Scalar
from graphc.graph.sizes import Size, SizeLike, at_most
from graphc.structs import dataclass, replace

Array = NDArray[np.generic]
AttrValue = None | bool | int | float | str | Size | DType | tuple["AttrValue", ...]
Attrs = tuple[tuple[str, AttrValue], ...]


@dataclass(frozen=True, slots=True)
class TensorType:
    """An operand that is a tensor: its shape and element type."""

    shape: Shape
    dtype: DType


@dataclass(frozen=True, slots=True)
class Weak:
    """An operand that is a Python number or a size: it takes the type of the tensors beside it.

    Held as kind and text, so that 1, 1.0 and True differ and NaN equals itself.
    """

    kind: str
    text: str
    size: Size | None = None

    def number(self) -> Number:
        """The number; not for a size."""
        return (
            self.text == "True" if self.kind == "bool" else int(self.text) if self.kind == "int" else float(self.text)
        )


Operand = TensorType | Weak


@dataclass(frozen=True, slots=True)
class Draw:
    """How a test draws one operand. dtype ``f`` is whichever float type is under test."""

    shape: tuple[int, ...]
    low: float = -3.0
    high: float = 3.0
    dtype: str = "f"


@dataclass(frozen=True, slots=True)
class Sample:
    """One set of operands (arrays to draw, or numbers) and attributes for the tests.

    grad: whether derivatives exist at the drawn points. rtol: of float32 against the reference, where the sample needs
    more than rounding of its last step.
    """

    operands: tuple[Draw | Number, ...]
    attrs: Attrs = ()
    grad: bool = True


@dataclass(frozen=True, slots=True, eq=False)
class Record:
    """One operation.

    build: formula from operands (``TensorType`` or ``Weak``) and attributes; None for one made of others (``expand``).
    reference: the same in NumPy, with the attributes as keywords. ties: the derivative at kinks and ties, where
    there are.
    smooth: whether a second derivative exists too. public: whether ``gc`` has it by this name.
    numbers: whether operands may be numbers or sizes, which then become part of the formula.
    """

    name: str
    family: str
    build: Callable[..., Formula] | None
    reference: Callable[..., Array]
    samples: tuple[Sample, ...]
    doc: str
    ties: str = ""
    smooth: bool = True
    public: bool = True
    numbers: bool = False


def sample(*operands: Draw | Number | tuple[int, ...], grad: bool = True, **attrs: AttrValue) -> Sample:
    """A Sample; a bare shape is an operand drawn from -3 to 3."""
    return Sample(tuple(Draw(o) if isinstance(o, tuple) else o for o in operands), tuple(attrs.items()), grad)


@lru_cache(maxsize=65536)
def formula_of(record: Record, operands: tuple[Operand, ...], attrs: Attrs, slots: tuple[int, ...]) -> Formula:
    """The formula of a record; ``slots`` says which distinct operand each tensor among ``operands`` is."""
    if record.build is None:
        raise DTypeError(f"{record.name}: made of other operations; it has no formula of its own")
    formula = record.build(*operands, **dict(attrs))
    return formula if slots == tuple(range(len(slots))) else _merged(formula, slots, operands)


def _merged(formula: Formula, slots: tuple[int, ...], operands: tuple[Operand, ...]) -> Formula:
    """The formula over distinct operands, equal reads written once."""
    dtypes = [o.dtype for o in operands if isinstance(o, TensorType)]
    numbered = map_operands(formula, slots.__getitem__)
    distinct: dict[Read, int] = {}
    builder = BodyBuilder()
    table: list[Scalar | None] = []
    for old, read in zip(formula.reads, numbered.reads, strict=True):
        number = distinct.setdefault(read, len(distinct))
        table.append(builder.read(number, dtypes[old.operand]))
    values = builder.include(formula.body, table)
    return replace(numbered, reads=tuple(distinct), body=builder.finish(values[-1]))


def text(shape: Sequence[SizeLike]) -> str:
    """A shape as a message shows it."""
    return "(" + ", ".join(str(s) for s in shape) + ("," if len(shape) == 1 else "") + ")"


def broadcast(name: str, shapes: Sequence[Shape]) -> Shape:
    """The common shape: axes match from the right; equal sizes fit and 1 stretches.

    Raises: ShapeError for any other pair of sizes.
    """
    rank = max((len(s) for s in shapes), default=0)
    result: list[SizeLike] = [1] * rank
    for shape in shapes:
        for axis, size in enumerate(shape, rank - len(shape)):
            known = result[axis]
            if known == 1:
                result[axis] = size
            elif size not in (1, known):
                given = " and ".join(text(s) for s in shapes)
                raise ShapeError(f"{name}: {given} do not broadcast; needs {known} == {size}, or one of them 1")
    return tuple(result)


def axis_of(name: str, axis: object, rank: int) -> int:
    """An axis counted from the front.

    Raises: DTypeError where it is no integer, ShapeError where there is no such axis.
    """
    if isinstance(axis, bool) or not isinstance(axis, (int, np.integer)):
        raise DTypeError(f"{name}: axis {axis!r} given; needs an integer")
    if not -rank <= axis < rank:
        allowed = f"-{rank} <= axis < {rank}" if rank else "a tensor with axes"
        raise ShapeError(f"{name}: axis {axis} given; needs {allowed}")
    return int(axis) % rank


def axes_of(name: str, axis: object, rank: int) -> tuple[int, ...]:
    """Axes (None for all, one, or several) counted from the front, in order.

    Raises: ShapeError where one is given twice or does not exist.
    """
    if axis is None:
        return tuple(range(rank))
    given = axis if isinstance(axis, (tuple, list)) else (axis,)
    axes = [axis_of(name, a, rank) for a in given]
    if len(set(axes)) < len(axes):
        raise ShapeError(f"{name}: axis {axis} given; needs each axis once")
    return tuple(sorted(axes))


def smaller(name: str, a: SizeLike, b: SizeLike) -> SizeLike:
    """The smaller of two sizes. Raises ShapeError where that is known only at run time."""
    if at_most(a, b):
        return a
    if at_most(b, a):
        return b
    raise ShapeError(f"{name}: sizes {a} and {b} given; which is smaller is known only at run time")


def needs_rank(name: str, operand: TensorType, rank: int) -> None:
    """Raises ShapeError where an operand has fewer axes than ``rank``."""
    if len(operand.shape) < rank:
        axes = "axis" if rank == 1 else "axes"
        raise ShapeError(f"{name}: shape {text(operand.shape)} given; needs at least {rank} {axes}")


def needs_integer(name: str, what: str, operand: TensorType) -> None:
    """Raises DTypeError where an operand is not of integers."""
    if operand.dtype.kind != "i":
        raise DTypeError(f"{name}: {what} of type {operand.dtype} given; needs int32 or int64")


def needs_number(name: str, operand: TensorType) -> None:
    """Raises DTypeError where an operand is of booleans."""
    if operand.dtype.kind == "b":
        raise DTypeError(f"{name}: {operand.dtype} given; needs numbers")
