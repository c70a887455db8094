"""Operations that move elements: each is a read at another index map."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from graphc.errors import DTypeError, ShapeError
from graphc.graph.dtypes import promote
from graphc.graph.formula import Affine, Formula, Guard, Read, Shape, constant, plain, var
from graphc.graph.scalar import BodyBuilder, Scalar
from graphc.graph.sizes import Size, SizeLike, at_most
from graphc.graph.sym import sym
from graphc.ops.record import (
    Array,
    AttrValue,
    Operand,
    Record,
    Sample,
    TensorType,
    Weak,
    axes_of,
    axis_of,
    needs_rank,
    sample,
    text,
)


def view(x: TensorType, shape: Shape, index: Sequence[Affine], guards: tuple[Guard, ...] = ()) -> Formula:
    """The formula that reads ``x`` at ``index`` over the variables of ``shape``; 0 where a guard fails."""
    builder = BodyBuilder()
    body = builder.finish(builder.read(0, x.dtype))
    return Formula(shape, plain(len(shape)), shape, (Read(0, tuple(index), guards),), body)


def _permute_dims(x: TensorType, axes: AttrValue = None) -> Formula:
    rank = len(x.shape)
    if axes is None:
        axes = tuple(range(rank))[::-1]
    given = axes if isinstance(axes, tuple) else (axes,)
    order = [axis_of("permute_dims", a, rank) for a in given]
    if sorted(order) != list(range(rank)):
        raise ShapeError(f"permute_dims: axes {axes} given; needs each of the {rank} axes of {text(x.shape)} once")
    return view(x, tuple(x.shape[a] for a in order), [var(order.index(a)) for a in range(rank)])


def _expand_dims(x: TensorType, axis: AttrValue = 0) -> Formula:
    given = axis if isinstance(axis, tuple) else (axis,)
    new = axes_of("expand_dims", axis, len(x.shape) + len(given))
    kept = [k for k in range(len(x.shape) + len(new)) if k not in new]
    shape = tuple(1 if k in new else x.shape[kept.index(k)] for k in range(len(x.shape) + len(new)))
    return view(x, shape, [var(k) for k in kept])


def _squeeze(x: TensorType, axis: AttrValue = None) -> Formula:
    gone = tuple(k for k, s in enumerate(x.shape) if s == 1) if axis is None else axes_of("squeeze", axis, len(x.shape))
    for k in gone:
        if x.shape[k] != 1:
            raise ShapeError(f"squeeze: axis {k} of {text(x.shape)} given; needs an axis of size 1")
    kept = [k for k in range(len(x.shape)) if k not in gone]
    index = [constant(0) if k in gone else var(kept.index(k)) for k in range(len(x.shape))]
    return view(x, tuple(x.shape[k] for k in kept), index)


def _broadcast_to(x: TensorType, shape: AttrValue) -> Formula:
    wanted = checked_shape("broadcast_to", shape)
    first = len(wanted) - len(x.shape)
    if first < 0 or any(s not in (1, wanted[first + k]) for k, s in enumerate(x.shape)):
        raise ShapeError(f"broadcast_to: {text(x.shape)} to {text(wanted)} given; each size needs to be 1 or the same")
    index = [constant(0) if s == 1 and wanted[first + k] != 1 else var(first + k) for k, s in enumerate(x.shape)]
    return view(x, wanted, index)


def checked_shape(name: str, shape: AttrValue) -> Shape:
    """``shape`` as sizes. Raises DTypeError or ShapeError for anything but sizes of at least 1."""
    sizes: list[SizeLike] = []
    for size in shape if isinstance(shape, tuple) else (shape,):
        if isinstance(size, bool) or not isinstance(size, (int, Size)):
            raise DTypeError(f"{name}: size {size!r} given; needs an integer or a gc.dim")
        if isinstance(size, int) and size < 1:
            raise ShapeError(f"{name}: size {size} given; sizes must be at least 1")
        sizes.append(size)
    return tuple(sizes)


def _concat(*operands: TensorType, axis: AttrValue = 0) -> Formula:
    first = operands[0]
    needs_rank("concat", first, 1)
    k = axis_of("concat", axis, len(first.shape))
    for other in operands[1:]:
        same = len(other.shape) == len(first.shape)
        if not same or any(a != b for j, (a, b) in enumerate(zip(first.shape, other.shape, strict=True)) if j != k):
            raise ShapeError(
                f"concat: {text(first.shape)} and {text(other.shape)} along axis {k} given; "
                "all other sizes need to agree"
            )
    starts: list[SizeLike] = [0]
    for operand in operands:
        starts.append(starts[-1] + operand.shape[k])
    shape = first.shape[:k] + (starts[-1],) + first.shape[k + 1 :]
    builder = BodyBuilder()
    reads: list[Read] = []
    total: Scalar | None = None
    for number in range(len(operands) - 1, -1, -1):
        start, stop = starts[number], starts[number + 1]
        guards = (Guard("ge", var(k, -start)), Guard("ge", Affine(stop - 1, ((k, -1),))))
        index = tuple(var(a, -start) if a == k else var(a) for a in range(len(shape)))
        reads.insert(0, Read(number, index, _needed(guards, shape[k])))
        value = builder.cast(builder.read(number, operands[number].dtype), promote(*[o.dtype for o in operands]))
        total = value if total is None else sym.where(builder.index(k) < builder.size(stop), value, total)
    assert total is not None
    return Formula(shape, plain(len(shape)), shape, tuple(reads), builder.finish(total))


def _needed(guards: tuple[Guard, ...], extent: SizeLike) -> tuple[Guard, ...]:
    """The guards of a variable alone without those that hold over its whole range."""
    kept = []
    for guard in guards:
        coefficient = guard.expr.terms[0][1]
        low = guard.expr.const if coefficient > 0 else guard.expr.const - (extent - 1)
        if not at_most(0, low):
            kept.append(guard)
    return tuple(kept)


def _pad(x: TensorType, value: Operand, widths: AttrValue) -> Formula:
    rank = len(x.shape)
    pairs = pad_widths(widths, rank)
    shape = tuple(s + a + b for s, (a, b) in zip(x.shape, pairs, strict=True))
    index = [var(k, -a) for k, (a, b) in enumerate(pairs)]
    guards: tuple[Guard, ...] = ()
    for k, (a, b) in enumerate(pairs):
        guards += (Guard("ge", index[k]),) if a else ()
        guards += (Guard("ge", Affine(x.shape[k] - 1 + a, ((k, -1),))),) if b else ()
    if not isinstance(value, Weak):
        raise DTypeError("pad: a tensor given as value; needs a number")
    number = value.number()
    if number == 0:
        return view(x, shape, index, guards)
    if x.dtype.kind != "f" and isinstance(number, float):
        raise DTypeError(f"pad: value {number} for {x.dtype} given; needs an integer")
    builder = BodyBuilder()
    inside: Scalar | None = None
    for k, (a, b) in enumerate(pairs):
        v = builder.index(k)
        for condition in ([v >= a] if a else []) + ([v < builder.size(x.shape[k] + a)] if b else []):
            inside = condition if inside is None else inside & condition
    read = builder.read(0, x.dtype)
    result = read if inside is None else sym.where(inside, read, builder.const(number, x.dtype))
    return Formula(shape, plain(rank), shape, (Read(0, tuple(index), guards),), builder.finish(result))


def pad_widths(widths: AttrValue, rank: int) -> tuple[tuple[int, int], ...]:
    """Elements added before and after each axis, from a number, a pair for all axes, or a pair for each.

    Raises: ShapeError for any other form, and for negative widths.
    """
    whole = isinstance(widths, int) and not isinstance(widths, bool)
    pairs: tuple[AttrValue, ...]
    if whole:
        pairs = ((widths, widths),) * rank
    elif isinstance(widths, tuple) and len(widths) == 2 and all(isinstance(w, int) for w in widths):
        pairs = (widths,) * rank
    else:
        pairs = widths if isinstance(widths, tuple) else ()
    result: list[tuple[int, int]] = []
    for pair in pairs:
        if isinstance(pair, tuple) and len(pair) == 2:
            before, after = pair
            if isinstance(before, int) and isinstance(after, int) and before >= 0 and after >= 0:
                result.append((before, after))
    if len(result) != rank or len(pairs) != rank:
        raise ShapeError(f"pad: widths {widths!r} given; needs (before, after) of at least 0 for each of {rank} axes")
    return tuple(result)


def _roll(x: TensorType, shift: AttrValue, axis: AttrValue = 0) -> Formula:
    needs_rank("roll", x, 1)
    k = axis_of("roll", axis, len(x.shape))
    n = x.shape[k]
    if isinstance(shift, bool) or not isinstance(shift, int):
        raise DTypeError(f"roll: shift {shift!r} given; needs an integer")
    if isinstance(n, Size) and abs(shift) > 1:
        raise ShapeError(
            f"roll: shift {shift} of an axis of size {n} given; a size known only at run time takes -1, 0 or 1"
        )
    s: SizeLike = shift % n if isinstance(n, int) else shift if shift >= 0 else n + shift
    index = tuple(var(a, -s) if a == k else var(a) for a in range(len(x.shape)))
    if s == 0:
        return view(x, x.shape, index)
    wrapped = tuple(var(a, n - s) if a == k else var(a) for a in range(len(x.shape)))
    later, sooner = Guard("ge", var(k, -s)), Guard("ge", Affine(s - 1, ((k, -1),)))
    builder = BodyBuilder()
    straight, around = builder.read(0, x.dtype), builder.read(1, x.dtype)
    value = sym.where(builder.index(k) < builder.size(s), around, straight)
    reads = (Read(0, index, (later,)), Read(0, wrapped, (sooner,)))
    return Formula(x.shape, plain(len(x.shape)), x.shape, reads, builder.finish(value))


def _flip(x: TensorType, axis: AttrValue = None) -> Formula:
    axes = axes_of("flip", axis, len(x.shape))
    return view(x, x.shape, [Affine(s - 1, ((k, -1),)) if k in axes else var(k) for k, s in enumerate(x.shape)])


def _slice(x: TensorType, spec: AttrValue) -> Formula:
    """Integers, slices and new axes, as ``parse_index`` (``index.py``) states them."""
    assert isinstance(spec, tuple)
    shape: list[SizeLike] = []
    index: list[Affine] = []
    for entry in spec:
        assert isinstance(entry, tuple)
        if entry[0] == "new":
            shape.append(1)
            continue
        size = x.shape[len(index)]
        if entry[0] == "at":
            assert isinstance(entry[1], (int, Size))
            index.append(constant(entry[1]))
            continue
        start, length, step = slice_range(size, entry[1], entry[2], entry[3])
        index.append(Affine(start, ((len(shape), step),)))
        shape.append(length)
    return view(x, tuple(shape), index)


def slice_range(size: SizeLike, start: AttrValue, stop: AttrValue, step: AttrValue) -> tuple[SizeLike, SizeLike, int]:
    """The first index, the number of elements and the step of a slice of an axis.

    Raises: ShapeError where the slice is empty, or where its bounds are not known to lie inside a run-time size.
    """
    given = (
        ":".join("" if b is None else str(b) for b in (start, stop, step))
        if step is not None
        else (f"{'' if start is None else start}:{'' if stop is None else stop}")
    )
    stride = 1 if step is None else step
    assert isinstance(stride, int)
    if isinstance(size, int) and not isinstance(start, Size) and not isinstance(stop, Size):
        assert (start is None or isinstance(start, int)) and (stop is None or isinstance(stop, int))
        chosen = range(size)[slice(start, stop, stride)]
        if not chosen:
            raise ShapeError(f"slice: [{given}] of an axis of size {size} given; it has no elements")
        return chosen[0], len(chosen), stride
    first: SizeLike = (0 if stride > 0 else size - 1) if start is None else _from_end(start, size)
    last: SizeLike = (size if stride > 0 else -1) if stop is None else _from_end(stop, size)
    if stride > 0 and at_most(size, last):
        last = size
    low, high = (first, last) if stride > 0 else (last + 1, first + 1)
    if not (at_most(0, low) and at_most(low, high) and at_most(high, size)):
        raise ShapeError(
            f"slice: [{given}] of an axis of size {size} given; needs bounds inside it for every run-time size"
        )
    length = (high - low + abs(stride) - 1) // abs(stride)
    return first, length, stride


def _from_end(bound: AttrValue, size: SizeLike) -> SizeLike:
    assert isinstance(bound, (int, Size))
    return size + bound if isinstance(bound, int) and bound < 0 else bound


def _np_pad(x: Array, value: float, widths: AttrValue) -> Array:
    return np.pad(x, pad_widths(widths, x.ndim), constant_values=value)


def _np_slice(x: Array, spec: tuple[tuple[object, ...], ...]) -> Array:
    key = tuple(None if e[0] == "new" else e[1] if e[0] == "at" else slice(e[1], e[2], e[3]) for e in spec)
    return np.asarray(x[key])  # type: ignore[index]


def _np_concat(*operands: Array, axis: int = 0) -> Array:
    return np.concatenate(operands, axis=axis)


def _sliced(shape: tuple[int, ...], *spec: tuple[AttrValue, ...]) -> Sample:
    return sample(shape, spec=spec)


RECORDS: tuple[Record, ...] = (
    Record(
        "permute_dims",
        "shape",
        _permute_dims,
        np.transpose,
        (sample((3, 4), axes=(1, 0)), sample((2, 3, 4), axes=(2, 0, 1)), sample((5,), axes=(0,))),
        "The axes in another order.",
    ),
    Record(
        "expand_dims",
        "shape",
        _expand_dims,
        np.expand_dims,
        (sample((3, 4), axis=1), sample((3,), axis=(0, -1)), sample((), axis=0)),
        "New axes of size 1 at the given places.",
    ),
    Record(
        "squeeze",
        "shape",
        _squeeze,
        np.squeeze,
        (sample((3, 1, 4)), sample((1, 3, 1), axis=-1)),
        "Axes of size 1 left out.",
    ),
    Record(
        "broadcast_to",
        "shape",
        _broadcast_to,
        np.broadcast_to,
        (sample((3, 1), shape=(2, 3, 4)), sample((), shape=(3,)), sample((4,), shape=(4,))),
        "Elements repeated to a shape.",
    ),
    Record(
        "concat",
        "shape",
        _concat,
        _np_concat,
        (sample((2, 3), (4, 3)), sample((2, 3), (2, 1), (2, 2), axis=-1), sample((3,), axis=0)),
        "Tensors one behind the other along an axis.",
    ),
    Record(
        "pad",
        "shape",
        _pad,
        _np_pad,
        (
            sample((3,), 0, widths=2),
            sample((2, 3), 1.5, widths=((1, 0), (0, 2))),
            sample((2, 3), 0, widths=((0, 0), (1, 2))),
        ),
        "Elements of one value added around.",
        numbers=True,
    ),
    Record(
        "roll",
        "shape",
        _roll,
        np.roll,
        (sample((5,), shift=2, axis=0), sample((3, 4), shift=-1, axis=1), sample((3,), shift=3, axis=0)),
        "Elements moved along an axis, those beyond its end put at its start.",
    ),
    Record(
        "flip",
        "shape",
        _flip,
        np.flip,
        (sample((5,)), sample((3, 4), axis=0), sample((2, 3, 4), axis=(0, -1))),
        "The order along axes reversed.",
    ),
    Record(
        "slice",
        "shape",
        _slice,
        _np_slice,
        (
            _sliced((5, 4), ("slice", 1, 4, None), ("at", 2)),
            _sliced((9,), ("slice", None, None, 3)),
            _sliced((9,), ("slice", 7, 1, -2)),
            _sliced((4,), ("new",), ("slice", None, -1, None)),
            _sliced((3, 4), ("at", 0), ("at", 3)),
        ),
        "What ``[]`` reads: integers, slices with steps, new axes.",
        public=False,
    ),
)
