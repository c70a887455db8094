"""Indexing: what ``[]`` means, and reading and writing at indices that are data.

An index from data is checked against its axis before anything is read: 0 <= index < size. It is never counted from
the end.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from graphc.errors import DTypeError, IndexRangeError, ShapeError
from graphc.graph.dtypes import DType, as_dtype, float32
from graphc.graph.formula import Formula, FromData, Guard, Index, Read, Shape, plain, var
from graphc.graph.scalar import BodyBuilder
from graphc.graph.sizes import Size, SizeLike, at_most
from graphc.ops.record import (
    Array,
    AttrValue,
    Draw,
    Record,
    Sample,
    TensorType,
    axis_of,
    needs_integer,
    needs_number,
    needs_rank,
    text,
)
from graphc.ops.shape import checked_shape

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Spec = tuple[tuple[AttrValue, ...], ...]


def parse_index(key: object, shape: Shape, is_data: Callable[[object], bool]) -> tuple[Spec, object, int]:
    """What ``x[key]`` means: an entry for each axis read or made, the one index that is data (or None), and its axis.

    Entries: ``("at", index)``, ``("slice", start, stop, step)``, ``("new",)``.

    Raises: ShapeError, DTypeError, IndexRangeError for a key that means nothing.
    """
    keys = list(key) if isinstance(key, tuple) else [key]
    used = sum(1 for k in keys if k is not None and k is not Ellipsis)
    if sum(1 for k in keys if k is Ellipsis) > 1:
        raise ShapeError("slice: '...' given twice; needs it once at most")
    if used > len(shape):
        raise ShapeError(f"slice: {used} indices given for shape {text(shape)}; needs at most {len(shape)}")
    if not any(k is Ellipsis for k in keys):
        keys.append(Ellipsis)
    spec: list[tuple[AttrValue, ...]] = []
    data: object = None
    data_axis = axis = 0
    for k in keys:
        if k is None:
            spec.append(("new",))
        elif k is Ellipsis:
            for _ in range(len(shape) - used):
                spec.append(("slice", None, None, None))
                axis += 1
        elif isinstance(k, slice):
            spec.append(("slice", *(_bound(b) for b in (k.start, k.stop)), _step(k.step)))
            axis += 1
        elif is_data(k):
            if data is not None:
                raise ShapeError(
                    "slice: two index tensors given; needs one at most (gc.gather reads element by element)"
                )
            data, data_axis = k, sum(1 for e in spec if e[0] != "at")
            spec.append(("slice", None, None, None))
            axis += 1
        else:
            spec.append(("at", _position(k, shape[axis], axis)))
            axis += 1
    return tuple(spec), data, data_axis


def _bound(value: object) -> int | Size | None:
    if value is None or isinstance(value, Size):
        return value
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool):
        return int(value)
    raise DTypeError(f"slice: bound {value!r} given; needs an integer or a size")


def _step(value: object) -> int | None:
    step = _bound(value)
    if isinstance(step, Size) or step == 0:
        raise DTypeError(f"slice: step {value!r} given; needs an integer other than 0")
    return step


def _position(value: object, size: SizeLike, axis: int) -> SizeLike:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer, Size)):
        raise DTypeError(f"slice: index {value!r} given; needs integers, slices, None, '...' or one integer tensor")
    position: SizeLike = int(value) if isinstance(value, (int, np.integer)) else value
    if isinstance(position, int) and position < 0:
        position = size + position
    if not at_most(0, position) or not at_most(position, size - 1):
        rule = f"-{size} <= index < {size}" + ("" if isinstance(size, int) else " for every run-time size")
        raise IndexRangeError(f"slice: index {value} of axis {axis} given; needs {rule}")
    return position


def _take(x: TensorType, indices: TensorType, axis: AttrValue = 0) -> Formula:
    needs_rank("take", x, 1)
    needs_integer("take", "indices", indices)
    k = axis_of("take", axis, len(x.shape))
    n = len(indices.shape)
    shape = x.shape[:k] + indices.shape + x.shape[k + 1 :]
    data = FromData(1, tuple(var(k + a) for a in range(n)), x.shape[k])
    index: list[Index] = [var(a) for a in range(k)] + [data] + [var(a + n - 1) for a in range(k + 1, len(x.shape))]
    return _read_one(x, shape, tuple(index))


def _gather(x: TensorType, indices: TensorType, axis: AttrValue = -1) -> Formula:
    needs_rank("gather", x, 1)
    needs_integer("gather", "indices", indices)
    k = axis_of("gather", axis, len(x.shape))
    if not _agree(x.shape, indices.shape, k):
        raise ShapeError(
            f"gather: {text(x.shape)} at indices {text(indices.shape)} along axis {k} given; "
            "all other sizes need to agree"
        )
    data = FromData(1, plain(len(x.shape)), x.shape[k])
    return _read_one(x, indices.shape, tuple(data if a == k else var(a) for a in range(len(x.shape))))


def _pick(x: TensorType, indices: TensorType, axis: AttrValue = -1) -> Formula:
    needs_rank("pick", x, 1)
    needs_integer("pick", "indices", indices)
    k = axis_of("pick", axis, len(x.shape))
    rest = x.shape[:k] + x.shape[k + 1 :]
    if indices.shape != rest:
        raise ShapeError(
            f"pick: indices {text(indices.shape)} for {text(x.shape)} along axis {k} given; needs {text(rest)}"
        )
    data = FromData(1, plain(len(rest)), x.shape[k])
    index = tuple(data if a == k else var(a if a < k else a - 1) for a in range(len(x.shape)))
    return _read_one(x, rest, index)


def _agree(a: Shape, b: Shape, axis: int) -> bool:
    return len(a) == len(b) and all(p == q for j, (p, q) in enumerate(zip(a, b, strict=True)) if j != axis)


def _read_one(x: TensorType, shape: Shape, index: tuple[Index, ...]) -> Formula:
    builder = BodyBuilder()
    body = builder.finish(builder.read(0, x.dtype))
    return Formula(shape, plain(len(shape)), shape, (Read(0, index),), body)


def _one_hot(indices: TensorType, size: AttrValue, dtype: AttrValue = None) -> Formula:
    needs_integer("one_hot", "indices", indices)
    if isinstance(size, bool) or not isinstance(size, (int, Size)) or (isinstance(size, int) and size < 1):
        raise ShapeError(f"one_hot: size {size!r} given; needs an integer of at least 1")
    n = len(indices.shape)
    shape = indices.shape + (size,)
    guard = Guard("eq", var(n), data=FromData(0, plain(n), size))
    builder = BodyBuilder()
    body = builder.finish(builder.const(1, dtype if isinstance(dtype, DType) else float32))
    return Formula(shape, plain(n + 1), shape, (), body, "none", (guard,))


def _scatter(indices: TensorType, source: TensorType, shape: AttrValue, axis: AttrValue = 0) -> Formula:
    """What ``gather`` transposed writes: each element of ``source`` added at its own index along ``axis``."""
    target = checked_shape("scatter_add", shape)
    needs_integer("scatter_add", "indices", indices)
    needs_number("scatter_add", source)
    k = axis_of("scatter_add", axis, len(target))
    if indices.shape != source.shape or not _agree(target, source.shape, k):
        raise ShapeError(
            f"scatter_add: {text(source.shape)} at indices {text(indices.shape)} into {text(target)} along axis {k} "
            "given; indices and source need one shape, and all sizes but the axis's those of the target"
        )
    rank = len(source.shape)
    write = tuple(FromData(0, plain(rank), target[k]) if a == k else var(a) for a in range(rank))
    return _written(source, target, write)


def _index_scatter(indices: TensorType, source: TensorType, shape: AttrValue, axis: AttrValue = 0) -> Formula:
    """What ``take`` transposed writes: each slice of ``source`` added at its index along ``axis``."""
    target = checked_shape("index_add", shape)
    needs_integer("index_add", "indices", indices)
    needs_number("index_add", source)
    k = axis_of("index_add", axis, len(target))
    n = len(indices.shape)
    wanted = target[:k] + indices.shape + target[k + 1 :]
    if source.shape != wanted:
        raise ShapeError(
            f"index_add: source {text(source.shape)} at indices {text(indices.shape)} into {text(target)} along axis "
            f"{k} given; needs a source of {text(wanted)}"
        )
    data = FromData(0, tuple(var(k + a) for a in range(n)), target[k])
    write: list[Index] = [var(a) for a in range(k)] + [data] + [var(a + n - 1) for a in range(k + 1, len(target))]
    return _written(source, target, tuple(write))


def _written(source: TensorType, shape: Shape, write: tuple[Index, ...]) -> Formula:
    builder = BodyBuilder()
    body = builder.finish(builder.read(0, source.dtype))
    return Formula(source.shape, write, shape, (Read(1, plain(len(source.shape))),), body, "sum")


def _np_one_hot(indices: Ints, size: int, dtype: object = None) -> Array:
    return np.eye(size, dtype=as_dtype(dtype or "float32").numpy)[indices]


def _np_take(x: Array, indices: Ints, axis: int = 0) -> Array:
    return np.take(x, indices, axis=axis)


def _np_pick(x: Array, indices: Ints, axis: int = -1) -> Array:
    chosen = np.take_along_axis(x, np.expand_dims(indices, axis), axis=axis)
    return np.squeeze(chosen, axis=axis)


def _np_scatter(indices: Ints, source: Floats, shape: tuple[int, ...], axis: int = 0) -> Array:
    result = np.zeros(shape, source.dtype)
    place = [indices if k == axis else own for k, own in enumerate(np.indices(source.shape))]
    np.add.at(result, tuple(place), source)
    return result


def _np_index_scatter(indices: Ints, source: Floats, shape: tuple[int, ...], axis: int = 0) -> Array:
    result = np.zeros(shape, source.dtype)
    np.add.at(np.moveaxis(result, axis, 0), indices, np.moveaxis(source, axis, 0))  # a view: writes the result
    return result


def _indexed(x: tuple[int, ...], indices: tuple[int, ...], bound: int, **attrs: AttrValue) -> Sample:
    return Sample((Draw(x), Draw(indices, 0, bound, "int32")), tuple(attrs.items()))


def _written_at(indices: tuple[int, ...], bound: int, source: tuple[int, ...], **attrs: AttrValue) -> Sample:
    return Sample((Draw(indices, 0, bound, "int32"), Draw(source)), tuple(attrs.items()))


RECORDS: tuple[Record, ...] = (
    Record(
        "take",
        "index",
        _take,
        _np_take,
        (_indexed((5, 3), (4,), 5), _indexed((3, 6), (2, 2), 6, axis=1), _indexed((4,), (), 4)),
        "Slices along an axis, at indices from data.",
    ),
    Record(
        "gather",
        "index",
        _gather,
        lambda x, indices, axis=-1: np.take_along_axis(x, indices, axis),
        (_indexed((4, 5), (4, 2), 5), _indexed((4, 3), (6, 3), 4, axis=0)),
        "Elements along an axis, each at an index of its own.",
    ),
    Record(
        "pick",
        "index",
        _pick,
        _np_pick,
        (_indexed((4, 5), (4,), 5), _indexed((2, 5, 3), (2, 3), 5, axis=1)),
        "One element along an axis for every place of the other axes.",
        public=False,
    ),
    Record(
        "one_hot",
        "index",
        _one_hot,
        _np_one_hot,
        (
            Sample((Draw((4,), 0, 3, "int32"),), (("size", 3),), False),
            Sample((Draw((2, 2), 0, 5, "int64"),), (("size", 5),), False),
        ),
        "1 at the index, 0 elsewhere along a new last axis.",
        smooth=False,
    ),
    Record(
        "scatter",
        "index",
        _scatter,
        _np_scatter,
        (_written_at((6, 3), 4, (6, 3), shape=(4, 3)), _written_at((2, 3), 5, (2, 3), shape=(2, 5), axis=1)),
        "Zeros of a shape with elements added at indices of their own.",
        public=False,
    ),
    Record(
        "index_scatter",
        "index",
        _index_scatter,
        _np_index_scatter,
        (_written_at((4,), 5, (4, 3), shape=(5, 3)), _written_at((3,), 5, (2, 3), shape=(2, 5), axis=1)),
        "Zeros of a shape with slices added at indices.",
        public=False,
    ),
)
