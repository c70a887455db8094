"""Linear algebra as sums of products: one variable for every index letter."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from graphc.errors import DefinitionError, ShapeError
from graphc.graph.formula import Affine, Formula, Index, Read, Shape, constant, plain, var
from graphc.graph.scalar import BodyBuilder, Scalar
from graphc.graph.sizes import SizeLike
from graphc.ops.record import (
    Array,
    AttrValue,
    Draw,
    Record,
    Sample,
    TensorType,
    axis_of,
    broadcast,
    needs_number,
    needs_rank,
    sample,
    smaller,
    text,
)


def product(extents: Shape, rank: int, operands: Sequence[TensorType], indices: Sequence[tuple[Index, ...]]) -> Formula:
    """The sum over all variables but the first ``rank`` of the operands' product at ``indices``."""
    builder = BodyBuilder()
    total: Scalar | None = None
    for number, operand in enumerate(operands):
        value = builder.read(number, operand.dtype)
        total = value if total is None else total * value
    assert total is not None
    reads = tuple(Read(k, index) for k, index in enumerate(indices))
    combine = "sum" if len(extents) > rank else "none"
    return Formula(extents, plain(rank), extents[:rank], reads, builder.finish(total), combine)


def _matmul(x: TensorType, y: TensorType) -> Formula:
    for operand in (x, y):
        needs_rank("matmul", operand, 1)
        needs_number("matmul", operand)
    inner, other = x.shape[-1], y.shape[-2] if len(y.shape) > 1 else y.shape[0]
    if inner != other:
        raise ShapeError(f"matmul: inner sizes differ: {text(x.shape)} by {text(y.shape)}; needs {inner} == {other}")
    batch = broadcast("matmul", (x.shape[:-2], y.shape[:-2]))
    n = len(batch)
    row = x.shape[-2:-1] if len(x.shape) > 1 else ()
    column = y.shape[-1:] if len(y.shape) > 1 else ()
    rank = n + len(row) + len(column)
    k = var(rank)

    def front(shape: Shape) -> tuple[Affine, ...]:
        first = n - len(shape)
        return tuple(constant(0) if s == 1 and batch[first + a] != 1 else var(first + a) for a, s in enumerate(shape))

    left = front(x.shape[:-2]) + ((var(n), k) if row else (k,))
    right = front(y.shape[:-2]) + ((k, var(rank - 1)) if column else (k,))
    return product(batch + row + column + (inner,), rank, (x, y), (left, right))


def parse_einsum(subscripts: str, ranks: Sequence[int]) -> tuple[list[str], str]:
    """The letters of each operand and of the result, with the ellipsis written out in capitals ``A, B, …`` from the
    right.

    Raises: DefinitionError for subscripts that mean nothing.
    """
    left, arrow, right = subscripts.replace(" ", "").partition("->")
    terms = left.split(",")
    if len(terms) != len(ranks):
        raise DefinitionError(f"einsum: {subscripts!r} names {len(terms)} operands; {len(ranks)} given")
    found: list[str] = []
    widest = ""
    for term, rank in zip(terms, ranks, strict=True):
        letters = term.replace("...", "")
        if not all(c.isascii() and c.isalpha() and c.islower() for c in letters):
            raise DefinitionError(f"einsum: {subscripts!r} given; needs lower-case letters, commas, '...' and '->'")
        if "..." in term:
            extra = "".join(chr(ord("A") + k) for k in range(rank - len(letters)))[::-1]
            widest = max(widest, extra, key=len)
            term = term.replace("...", extra)
        if len(term) != rank:
            raise ShapeError(f"einsum: {subscripts!r} gives {len(term)} indices to an operand with {rank} axes")
        found.append(term)
    if not arrow:
        once = sorted(c for c in set("".join(found)) if c.islower() and "".join(found).count(c) == 1)
        right = ("..." if widest else "") + "".join(once)
    result = right.replace("...", widest)
    if len(set(result)) < len(result) or any(c not in "".join(found) for c in result):
        raise DefinitionError(
            f"einsum: {subscripts!r} given; each index of the result must occur on the left, once on the right"
        )
    return found, result


def _einsum(*operands: TensorType, subscripts: str) -> Formula:
    for operand in operands:
        needs_number("einsum", operand)
    terms, result = parse_einsum(subscripts, [len(o.shape) for o in operands])
    sizes: dict[str, SizeLike] = {}
    for term, operand in zip(terms, operands, strict=True):
        for letter, size in zip(term, operand.shape, strict=True):
            known = sizes.get(letter, 1)
            if known == 1:
                sizes[letter] = size
            elif size not in (known, 1) or (size == 1 and letter.islower()):
                raise ShapeError(
                    f"einsum: index {letter!r} of {subscripts!r} has sizes {known} and {size}; needs one size"
                )
    for term, operand in zip(terms, operands, strict=True):
        for letter, size in zip(term, operand.shape, strict=True):
            if letter.islower() and size != sizes[letter]:
                raise ShapeError(
                    f"einsum: index {letter!r} of {subscripts!r} has sizes {size} and {sizes[letter]}; needs one size"
                )
    order = list(result) + [c for c in sizes if c not in result]
    indices = [
        tuple(
            constant(0) if s == 1 and sizes[c] != 1 else var(order.index(c)) for c, s in zip(term, o.shape, strict=True)
        )
        for term, o in zip(terms, operands, strict=True)
    ]
    return product(tuple(sizes[c] for c in order), len(result), operands, indices)


def tensordot_axes(axes: AttrValue, left: int, right: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The summed axes of both operands, counted from the front.

    Raises: DefinitionError for axes of another form, ShapeError for axes that do not exist.
    """
    if isinstance(axes, int) and not isinstance(axes, bool):
        if not 0 <= axes <= min(left, right):
            raise ShapeError(f"tensordot: axes={axes} given; needs 0 <= axes <= {min(left, right)}")
        return tuple(range(left - axes, left)), tuple(range(axes))
    if not isinstance(axes, tuple) or len(axes) != 2:
        raise DefinitionError(f"tensordot: axes={axes!r} given; needs a number of axes or a pair of axis lists")
    pair = [a if isinstance(a, tuple) else (a,) for a in axes]
    first = tuple(axis_of("tensordot", a, left) for a in pair[0])
    second = tuple(axis_of("tensordot", a, right) for a in pair[1])
    if len(first) != len(second) or len(set(first)) < len(first) or len(set(second)) < len(second):
        raise ShapeError(f"tensordot: axes={axes!r} given; needs as many axes of each operand, each once")
    return first, second


def _tensordot(x: TensorType, y: TensorType, axes: AttrValue = 2) -> Formula:
    needs_number("tensordot", x)
    needs_number("tensordot", y)
    first, second = tensordot_axes(axes, len(x.shape), len(y.shape))
    for a, b in zip(first, second, strict=True):
        if x.shape[a] != y.shape[b]:
            raise ShapeError(
                f"tensordot: axis {a} of {text(x.shape)} with axis {b} of {text(y.shape)} given; "
                f"needs {x.shape[a]} == {y.shape[b]}"
            )
    free = [k for k in range(len(x.shape)) if k not in first], [k for k in range(len(y.shape)) if k not in second]
    extents = tuple(x.shape[k] for k in free[0]) + tuple(y.shape[k] for k in free[1]) + tuple(x.shape[k] for k in first)
    n, rank = len(free[0]), len(free[0]) + len(free[1])
    left = tuple(var(rank + first.index(k)) if k in first else var(free[0].index(k)) for k in range(len(x.shape)))
    right = tuple(
        var(rank + second.index(k)) if k in second else var(n + free[1].index(k)) for k in range(len(y.shape))
    )
    return product(extents, rank, (x, y), (left, right))


def _outer(x: TensorType, y: TensorType) -> Formula:
    for operand in (x, y):
        needs_number("outer", operand)
        if len(operand.shape) != 1:
            raise ShapeError(f"outer: {text(x.shape)} and {text(y.shape)} given; needs two vectors")
    return product(x.shape + y.shape, 2, (x, y), ((var(0),), (var(1),)))


def _diagonal_size(name: str, x: TensorType, offset: int) -> tuple[SizeLike, int, int]:
    """How long a diagonal is, and where it starts."""
    down, right = max(-offset, 0), max(offset, 0)
    rows, columns = x.shape[-2] - down, x.shape[-1] - right
    size = smaller(name, rows, columns)
    if isinstance(size, int) and size < 1:
        raise ShapeError(f"{name}: offset {offset} given; {text(x.shape)} has no such diagonal")
    return size, down, right


def _diag(x: TensorType, offset: int = 0) -> Formula:
    needs_rank("diag", x, 1)
    builder = BodyBuilder()
    body = builder.finish(builder.read(0, x.dtype))
    if len(x.shape) == 1:
        n = x.shape[0]
        down, right = max(-offset, 0), max(offset, 0)
        size = n + abs(offset)
        return Formula((n,), (var(0, down), var(0, right)), (size, size), (Read(0, (var(0),)),), body, "sum")
    size, down, right = _diagonal_size("diag", x, offset)
    n = len(x.shape) - 2
    shape = x.shape[:-2] + (size,)
    index = plain(n) + (var(n, down), var(n, right))
    return Formula(shape, plain(n + 1), shape, (Read(0, index),), body)


def _trace(x: TensorType, offset: int = 0) -> Formula:
    needs_rank("trace", x, 2)
    needs_number("trace", x)
    size, down, right = _diagonal_size("trace", x, offset)
    n = len(x.shape) - 2
    index = plain(n) + (var(n, down), var(n, right))
    return product(x.shape[:-2] + (size,), n, (x,), (index,))


def _np_einsum(*operands: NDArray[np.float64], subscripts: str) -> Array:
    return np.asarray(np.einsum(subscripts, *operands))


def _np_diag(x: Array, offset: int = 0) -> Array:
    return np.diag(x, offset) if x.ndim == 1 else np.diagonal(x, offset, -2, -1)


def _np_trace(x: Array, offset: int = 0) -> Array:
    return np.asarray(np.trace(x, offset, -2, -1))


def _pair(x: tuple[int, ...], y: tuple[int, ...]) -> Sample:
    scale = 1 / math.sqrt(max(x[-1] if x else 1, 1))
    return Sample((Draw(x, -scale, scale), Draw(y)))


MATMUL = (
    ((3, 4), (4, 5)),
    ((4,), (4,)),
    ((4,), (4, 5)),
    ((3, 4), (4,)),
    ((2, 3, 4), (4, 5)),
    ((2, 3, 4), (2, 4, 5)),
    ((2, 1, 3, 4), (5, 4, 2)),
    ((17, 33), (33, 9)),
    ((1, 1), (1, 1)),
)

RECORDS: tuple[Record, ...] = (
    Record(
        "matmul",
        "linalg",
        _matmul,
        np.matmul,
        tuple(_pair(*m) for m in MATMUL),
        "Matrix product of the last two axes; axes before them broadcast; a vector is a row on the left, "
        "a column on the right.",
    ),
    Record(
        "einsum",
        "linalg",
        _einsum,
        _np_einsum,
        (
            sample((3, 4), (4, 5), subscripts="ij,jk->ik"),
            sample((4, 4), subscripts="ii->i"),
            sample((4, 4), subscripts="ii"),
            sample((2, 3), (2, 4), (3, 4), subscripts="ni,no,io->n"),
            sample((2, 3, 4), (5, 4), subscripts="...c,oc->...o"),
            sample((3, 4), subscripts="ij->ji"),
            sample((2, 3), (3,), subscripts="...,..."),
        ),
        "Sum of products by index letters, as in NumPy.",
    ),
    Record(
        "tensordot",
        "linalg",
        _tensordot,
        np.tensordot,
        (
            sample((2, 3, 4), (3, 4, 5)),
            sample((3, 4), (4, 2), axes=1),
            sample((3,), (2,), axes=0),
            sample((2, 3, 4), (4, 2, 5), axes=((0, 2), (1, 0))),
        ),
        "Sum of products over given axes of both operands.",
    ),
    Record(
        "outer", "linalg", _outer, np.outer, (sample((3,), (4,)),), "Every product of an element of x with one of y."
    ),
    Record(
        "trace",
        "linalg",
        _trace,
        _np_trace,
        (sample((4, 4)), sample((2, 3, 5), offset=1), sample((4, 3), offset=-1)),
        "Sum of the diagonal of the last two axes.",
    ),
    Record(
        "diag",
        "linalg",
        _diag,
        _np_diag,
        (
            sample((4,)),
            sample((3,), offset=2),
            sample((3,), offset=-1),
            sample((4, 4)),
            sample((3, 5), offset=1),
            sample((2, 4, 3), offset=-1),
        ),
        "The diagonal of the last two axes; of a vector, the matrix with that diagonal.",
    ),
)
