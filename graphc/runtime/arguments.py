"""The arguments of a call, checked and made into arrays that native code can read.

An array that already fits is taken as it is; anything else is converted by NumPy's ``same_kind`` rule or refused. Every
refusal names the input, what was given and the rule.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from ctypes import c_size_t
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from graphc.errors import DTypeError, InputError, InternalError, ShapeError
from graphc.graph.dtypes import DType
from graphc.graph.sizes import Size, SizeLike, dim, evaluate, names
from graphc.kernels.layout import Buffer, Layout, Shape
from graphc.structs import dataclass

Array = NDArray[Any]  # of any element type, as NumPy says it; code that uses one stays plain for the user

_READY = 0x101  # NumPy's flags C_CONTIGUOUS and ALIGNED
_REQUIRED: tuple[Literal["C_CONTIGUOUS", "ALIGNED", "ENSUREARRAY"], ...] = (
    "C_CONTIGUOUS", "ALIGNED", "ENSUREARRAY",
)  # fmt: skip  # the last: no subclass gets further
_DATA_OFFSET = object.__basicsize__  # of the data pointer in an ndarray, where ``reads_addresses`` finds it so


@dataclass(frozen=True, slots=True)
class Slot:
    """What an input must be: its name, NumPy dtype, shape, context word, and the user's line of its declaration."""

    name: str
    dtype: DType
    numpy: np.dtype[np.generic]
    shape: Shape
    word: int
    source: str


def unread_slots(layout: Layout) -> tuple[Slot, ...]:
    """What a call may give beside the inputs, which nothing reads."""
    return tuple(Slot(b.name, b.dtype, b.dtype.numpy, b.shape, -1, b.source) for b in layout.unread)


def check_unread(what: str, slots: Sequence[Slot], given: Mapping[str, object], dims: Mapping[str, int]) -> None:
    """Checks those of ``slots`` that are given as inputs are; a dimension that is not among ``dims`` may be any.

    Raises: DTypeError, ShapeError.
    """
    for slot in slots:
        if slot.name not in given:
            continue
        shape = converted(f"{what}: input {slot.name!r}", given[slot.name], slot.dtype, slot.source).shape
        if len(shape) != len(slot.shape):
            raise _refused(what, slot, shape, f"has rank {len(shape)}, needs rank {len(slot.shape)}")
        for axis, size in enumerate(slot.shape):
            if all(name in dims for name in names(size)) and shape[axis] != evaluate(size, dims):
                raise _refused(what, slot, shape, f"axis {axis} has size {shape[axis]}, needs {evaluate(size, dims)}")


def input_slots(layout: Layout) -> tuple[Slot, ...]:
    """The inputs of a program, in the order of its buffers."""
    return tuple(
        Slot(b.name, b.dtype, b.dtype.numpy, b.shape, layout.buffer_word(n), b.source)
        for n, b in enumerate(layout.buffers)
        if b.role == "input"
    )


def gather(what: str, slots: Sequence[Slot], given: Mapping[str, object], others: Sequence[str] = ()) -> list[Array]:
    """The arrays of all inputs, in order, each of its dtype, C-contiguous, aligned, of its rank; sizes not yet checked.

    what: the caller's name in messages. others: names in ``given`` that are no inputs and are left alone.

    Raises: InputError for a missing or an unknown name, DTypeError, ShapeError.
    """
    arrays: list[Array] = []
    for slot in slots:
        value = given.get(slot.name, _MISSING)
        # The common case, in as few steps as there can be.
        if type(value) is np.ndarray and value.dtype is slot.numpy and value.flags.num & _READY == _READY:
            arrays.append(value)
        elif value is _MISSING:
            raise _missing(what, slot, slots, given, others)
        else:
            arrays.append(converted(f"{what}: input {slot.name!r}", value, slot.dtype, slot.source))
    if len(given) != len(slots) and len(given) != len(slots) + sum(name in given for name in others):
        raise _unknown(what, slots, given, others)
    return arrays


_MISSING = object()


def _missing(
    what: str, slot: Slot, slots: Sequence[Slot], given: Mapping[str, object], others: Sequence[str]
) -> InputError:
    known = {s.name for s in slots} | set(others)
    stray = [name for name in given if name not in known]
    hint = f"; {stray[0]!r} given is no input" if stray else ""
    dims = ", ".join(map(str, slot.shape))
    return InputError(
        f"{what}: input {slot.name!r} is missing; needs {slot.dtype}[{dims}]{hint}{_where(slot.source)}"
    )


def _unknown(what: str, slots: Sequence[Slot], given: Mapping[str, object], others: Sequence[str]) -> InputError:
    known = [s.name for s in slots] + list(others)
    stray = next(name for name in given if name not in known)
    return InputError(f"{what}: {stray!r} given is no input; needs {', '.join(known) or 'none'}")


def converted(what: str, value: object, dtype: DType, source: str = "") -> Array:
    """``value`` as a C-contiguous, aligned array of ``dtype`` in this machine's byte order; a copy only where needed.

    The rule is NumPy's ``same_kind``: a float takes any float or integer, an integer takes any integer in its range.

    Raises: DTypeError for anything else.

    >>> from graphc.graph.dtypes import float32, int32
    >>> converted("x", [1, 2.5], float32)
    array([1. , 2.5], dtype=float32)
    >>> converted("y", 2**40, int32)
    Traceback (most recent call last):
    ...
    graphc.errors.DTypeError: y: 1099511627776 given; needs int32, from -2147483648 to 2147483647
    """
    array = _as_array(what, value, dtype, source)
    target = dtype.numpy
    if array.dtype == target:
        return np.require(array, target, _REQUIRED)
    if not (array.dtype.kind in "buif" and np.can_cast(array.dtype, target, "same_kind")):
        raise _wrong_dtype(what, str(array.dtype), dtype, source)
    if target.kind == "i" and not np.can_cast(array.dtype, target, "safe"):
        _check_range(what, array, dtype, source)
    with np.errstate(over="ignore", under="ignore"):  # a large double is infinite in float32, as everywhere in NumPy
        return np.require(array, target, _REQUIRED)


def _is_masked(value: object) -> bool:
    """Whether a value is one of NumPy's masked arrays; asked without loading numpy.ma, which takes long."""
    return any(c.__name__ == "MaskedArray" and c.__module__.startswith("numpy.ma") for c in type(value).__mro__)


def _as_array(what: str, value: object, dtype: DType, source: str) -> Array:
    if _is_masked(value):
        raise _wrong_dtype(what, "a masked array", dtype, source)
    if isinstance(value, (str, bytes)) or value is None:
        raise _wrong_dtype(what, repr(value), dtype, source)
    try:
        array: Array = np.asarray(value)
    except Exception as error:  # whatever an object of somebody else's raises when it is asked for its values
        raise DTypeError(
            f"{what}: {type(value).__name__} given, which is not an array: {error}; needs {dtype}{_where(source)}"
        ) from error
    return array


def _wrong_dtype(what: str, given: str, dtype: DType, source: str) -> DTypeError:
    rules = {
        "f": "a float takes floats, integers and booleans",
        "i": "an integer takes integers and booleans",
        "b": "a boolean takes booleans",
    }
    return DTypeError(f"{what}: {given} given; needs {dtype}: {rules[dtype.kind]}{_where(source)}")


def _check_range(what: str, array: Array, dtype: DType, source: str) -> None:
    limits = np.iinfo(dtype.name)
    if array.size == 0:
        return
    for extreme in (int(array.min()), int(array.max())):
        if not limits.min <= extreme <= limits.max:
            rule = f"needs {dtype}, from {limits.min} to {limits.max}"
            raise DTypeError(f"{what}: {extreme} given; {rule}{_where(source)}")


def _where(source: str) -> str:
    return f"\n  {source}" if source else ""


class DimSolver:
    """Finds the dimensions from the inputs' shapes. Made once a program."""

    __slots__ = ("_recipes", "_slots")

    def __init__(self, dims: Sequence[str], slots: Sequence[Slot]) -> None:
        self._slots = tuple(slots)
        self._recipes = tuple(_recipe(name, slots) for name in dims)

    def solve(self, shapes: Sequence[tuple[int, ...]], what: str) -> dict[str, int]:
        """The dimensions for which every input has its declared shape. what: the caller's name in messages.

        Raises: ShapeError for a wrong rank, a size of zero, a wrong size, or sizes that disagree between inputs.
        """
        for slot, shape in zip(self._slots, shapes, strict=True):
            if len(shape) != len(slot.shape):
                raise _refused(what, slot, shape, f"has rank {len(shape)}, needs rank {len(slot.shape)}")
            if 0 in shape:
                raise _refused(what, slot, shape, "has no elements: every size is at least 1")
        dims: dict[str, int] = {}
        for recipe in self._recipes:
            slot, shape = self._slots[recipe.slot], shapes[recipe.slot]
            value, rest = divmod(shape[recipe.axis] - recipe.offset, recipe.factor)
            if rest or value < 1:
                size = slot.shape[recipe.axis]
                raise _refused(what, slot, shape, f"no {recipe.name} of at least 1 gives {size} = {shape[recipe.axis]}")
            dims[recipe.name] = value
        for slot, shape in zip(self._slots, shapes, strict=True):
            for axis, size in enumerate(slot.shape):
                if shape[axis] != evaluate(size, dims):
                    raise _refused(what, slot, shape, self._explained(slot, axis, shape[axis], dims))
        return dims

    def _explained(self, slot: Slot, axis: int, found: int, dims: Mapping[str, int]) -> str:
        size = slot.shape[axis]
        if isinstance(size, int):
            return f"axis {axis} has size {found}, needs {size}"
        used = [recipe for recipe in self._recipes if recipe.name in names(size)]
        by = [f"{r.name} = {dims[r.name]} by input {self._slots[r.slot].name!r}" for r in used]
        return f"axis {axis} has size {found}, needs {size} = {evaluate(size, dims)} ({', '.join(by)})"


def _refused(what: str, slot: Slot, shape: tuple[int, ...], why: str) -> ShapeError:
    return ShapeError(
        f"{what}: input {slot.name!r} of shape {_shape_text(shape)}: {why}; "
        f"declared {_shape_text(slot.shape)}{_where(slot.source)}"
    )


@dataclass(frozen=True, slots=True)
class _Recipe:
    """The dimension ``name`` is (size of ``axis`` of input number ``slot`` - offset) / factor."""

    name: str
    slot: int
    axis: int
    factor: int
    offset: int


def _recipe(name: str, slots: Sequence[Slot]) -> _Recipe:
    """The simplest way to read a dimension from the inputs: a size that is the dimension, else one linear in it."""
    found: list[_Recipe] = []
    for number, slot in enumerate(slots):
        for axis, size in enumerate(slot.shape):
            if isinstance(size, Size) and size.names() == (name,):
                offset = size.evaluate({name: 0})
                factor = size.evaluate({name: 1}) - offset
                if factor > 0 and size == factor * dim(name) + offset:
                    found.append(_Recipe(name, number, axis, factor, offset))
    if not found:
        raise InternalError(f"layout: no input's shape gives dimension {name}")
    return min(found, key=lambda r: (r.factor != 1 or r.offset != 0, r.slot, r.axis))


def _shape_text(shape: Sequence[SizeLike]) -> str:
    return f"({', '.join(map(str, shape))}{',' if len(shape) == 1 else ''})"


def reads_addresses() -> bool:
    """Whether an ndarray's data pointer lies right behind its object header, as in CPython by NumPy's C API."""
    if sys.implementation.name != "cpython":
        return False
    samples: list[Array] = [np.zeros(3, np.float32), np.zeros((2, 5), np.int64)[1:], np.zeros((), np.float64)]
    return all(c_size_t.from_address(id(a) + _DATA_OFFSET).value == a.ctypes.data for a in samples)


def quick_address(array: Array) -> int:
    """The address of an array's first element, read from the object itself; only where ``reads_addresses()``."""
    return c_size_t.from_address(id(array) + _DATA_OFFSET).value


def plain_address(array: Array) -> int:
    """The address of an array's first element."""
    return int(array.ctypes.data)


def scalar(what: str, value: object, buffer: Buffer) -> bool | int | float:
    """A run-time scalar's value as a Python number.

    Raises: DTypeError, ShapeError where it is no single number of the declared kind.
    """
    kind = type(value)
    if kind is float and buffer.dtype.kind == "f":
        return value  # type: ignore[return-value]
    array = converted(f"{what}: {buffer.name!r}", value, buffer.dtype, buffer.source)
    if array.shape != ():
        given, where = _shape_text(array.shape), _where(buffer.source)
        raise ShapeError(f"{what}: {buffer.name!r} of shape {given} given; needs a single number{where}")
    return array.item()  # type: ignore[no-any-return]
