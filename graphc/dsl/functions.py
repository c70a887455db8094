"""Every operation as a function of tensors: ``gc.exp(x)``, ``gc.sum(x, axis=0)``.

An operand is a tensor, a number, a size or an array. The records (``ops/``) say what each operation means.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np

from graphc.dsl.declare import DTypeish, ShapeLike, special
from graphc.dsl.declare import stop_gradient as stop_gradient
from graphc.dsl.tensor import Tensor, TensorLike, apply, as_tensor, fail
from graphc.errors import DefinitionError, DTypeError, GraphcError, ShapeError
from graphc.graph.dtypes import Number, as_dtype
from graphc.graph.sizes import Size, SizeLike
from graphc.ops.record import AttrValue, Record, axis_of
from graphc.ops.registry import REGISTRY
from graphc.ops.special import reshape_shape

Unary = Callable[[TensorLike], Tensor]
Binary = Callable[[TensorLike, TensorLike], Tensor]
Axis = int | tuple[int, ...] | None


def _named(record: Record, function: Callable[..., Tensor]) -> None:
    function.__name__ = function.__qualname__ = record.name
    function.__doc__ = record.doc + (f" Derivative at kinks: {record.ties}." if record.ties else "")


def _unary(name: str) -> Unary:
    record = REGISTRY[name]

    def operation(x: TensorLike) -> Tensor:
        return apply(record, x)

    _named(record, operation)
    return operation


def _binary(name: str) -> Binary:
    record = REGISTRY[name]

    def operation(x: TensorLike, y: TensorLike) -> Tensor:
        return apply(record, x, y)

    _named(record, operation)
    return operation


add, subtract, multiply, divide = _binary("add"), _binary("subtract"), _binary("multiply"), _binary("divide")
pow, floor_divide, remainder = _binary("pow"), _binary("floor_divide"), _binary("remainder")
maximum, minimum, hypot = _binary("maximum"), _binary("minimum"), _binary("hypot")
logaddexp, atan2 = _binary("logaddexp"), _binary("atan2")
negative, positive, abs, sign, square = (
    _unary("negative"),
    _unary("positive"),
    _unary("abs"),
    _unary("sign"),
    _unary("square"),
)
sqrt, rsqrt, reciprocal = _unary("sqrt"), _unary("rsqrt"), _unary("reciprocal")
exp, exp2, expm1 = _unary("exp"), _unary("exp2"), _unary("expm1")
log, log2, log10, log1p = _unary("log"), _unary("log2"), _unary("log10"), _unary("log1p")
sin, cos, tan, asin, acos, atan = (_unary(n) for n in ("sin", "cos", "tan", "asin", "acos", "atan"))
sinh, cosh, tanh, asinh, acosh, atanh = (_unary(n) for n in ("sinh", "cosh", "tanh", "asinh", "acosh", "atanh"))
erf, sigmoid, softplus = _unary("erf"), _unary("sigmoid"), _unary("softplus")
floor, ceil, round, trunc = _unary("floor"), _unary("ceil"), _unary("round"), _unary("trunc")
equal, not_equal, less, less_equal = _binary("equal"), _binary("not_equal"), _binary("less"), _binary("less_equal")
greater, greater_equal = _binary("greater"), _binary("greater_equal")
logical_and, logical_or, logical_xor = _binary("logical_and"), _binary("logical_or"), _binary("logical_xor")
logical_not, isnan, isinf, isfinite = _unary("logical_not"), _unary("isnan"), _unary("isinf"), _unary("isfinite")
relu, selu, silu, softsign = _unary("relu"), _unary("selu"), _unary("silu"), _unary("softsign")
outer = _binary("outer")


def where(condition: TensorLike, x: TensorLike, y: TensorLike) -> Tensor:
    """``x`` where the condition holds, else ``y``.

    >>> where(as_tensor([True, False]), 1.0, 2.0).eval()
    array([1., 2.], dtype=float32)
    """
    return apply(REGISTRY["where"], condition, x, y)


def clip(x: TensorLike, low: TensorLike | None = None, high: TensorLike | None = None) -> Tensor:
    """``x`` held between two bounds, either of which may be missing. At a bound the gradient passes to x.

    >>> clip(as_tensor([-2.0, 0.5]), -1, 1).eval()
    array([-1. ,  0.5], dtype=float32)
    """
    if low is None and high is None:
        return as_tensor(x)
    if high is None:
        return apply(REGISTRY["clip_low"], x, _bound(low))
    if low is None:
        return apply(REGISTRY["clip_high"], x, high)
    return apply(REGISTRY["clip"], x, low, high)


def _bound(value: TensorLike | None) -> TensorLike:
    assert value is not None
    return value


def cast(x: TensorLike, dtype: DTypeish) -> Tensor:
    """``x`` in another element type; floats are cut off at the point, and any number but 0 is true.

    >>> cast(as_tensor([1.7, -1.7]), "int32").eval()
    array([ 1, -1], dtype=int32)
    """
    try:
        wanted = as_dtype(dtype, "cast")
    except GraphcError as error:
        fail(error)
    return apply(REGISTRY["cast"], as_tensor(x), dtype=wanted)


def leaky_relu(x: TensorLike, slope: float = 0.01) -> Tensor:
    """``x`` where positive, else ``slope * x``."""
    return apply(REGISTRY["leaky_relu"], x, slope=slope)


def elu(x: TensorLike, alpha: float = 1.0) -> Tensor:
    """``x`` where positive, else ``alpha * (exp(x) - 1)``."""
    return apply(REGISTRY["elu"], x, alpha=alpha)


def gelu(x: TensorLike, approximate: str = "none") -> Tensor:
    """``x`` times the normal distribution function, exact (``none``) or by ``tanh``.

    Raises: DTypeError for another approximation.

    Source: Hendrycks and Gimpel, "Gaussian Error Linear Units", 2016, section 2.
    """
    return apply(REGISTRY["gelu"], x, approximate=approximate)


def hardtanh(x: TensorLike, low: float = -1.0, high: float = 1.0) -> Tensor:
    """``x`` held between two numbers; the gradient at both is 0."""
    return apply(REGISTRY["hardtanh"], x, low=low, high=high)


def sum(x: TensorLike, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The sum over ``axis`` (None for all axes); integers and booleans give int64.

    >>> sum(as_tensor([[1.0, 2.0], [3.0, 4.0]]), axis=0).eval()
    array([4., 6.], dtype=float32)
    """
    return apply(REGISTRY["sum"], x, axis=_axis(axis), keepdims=bool(keepdims))


def prod(x: TensorLike, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The product over ``axis``; integers and booleans give int64."""
    return apply(REGISTRY["prod"], x, axis=_axis(axis), keepdims=bool(keepdims))


def max(x: TensorLike, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The largest element over ``axis``; NaN where one is. Ties share the gradient."""
    return apply(REGISTRY["max"], x, axis=_axis(axis), keepdims=bool(keepdims))


def min(x: TensorLike, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The smallest element over ``axis``; NaN where one is. Ties share the gradient."""
    return apply(REGISTRY["min"], x, axis=_axis(axis), keepdims=bool(keepdims))


def logsumexp(x: TensorLike, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """``log(sum(exp(x)))`` over ``axis``, without overflow."""
    return apply(REGISTRY["logsumexp"], x, axis=_axis(axis), keepdims=bool(keepdims))


def any(x: TensorLike, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Whether one element over ``axis`` is true (not 0)."""
    return apply(REGISTRY["any"], x, axis=_axis(axis), keepdims=bool(keepdims))


def all(x: TensorLike, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Whether every element over ``axis`` is true (not 0)."""
    return apply(REGISTRY["all"], x, axis=_axis(axis), keepdims=bool(keepdims))


def argmax(x: TensorLike, axis: int | None = None, keepdims: bool = False) -> Tensor:
    """Where the largest element along ``axis`` stands (None: in the whole tensor laid flat), int64; the first of
    several.

    >>> argmax(as_tensor([1.0, 3.0, 3.0])).eval()
    array(1)
    """
    return _arg("argmax", x, axis, keepdims)


def argmin(x: TensorLike, axis: int | None = None, keepdims: bool = False) -> Tensor:
    """Where the smallest element along ``axis`` stands (None: in the whole tensor laid flat), int64; the first of
    several.
    """
    return _arg("argmin", x, axis, keepdims)


def _arg(name: str, x: TensorLike, axis: int | None, keepdims: bool) -> Tensor:
    tensor = as_tensor(x)
    if axis is not None:
        return apply(REGISTRY[name], tensor, axis=axis, keepdims=bool(keepdims))
    found = apply(REGISTRY[name], reshape(tensor, (-1,)), axis=0, keepdims=False)
    return reshape(found, (1,) * tensor.ndim) if keepdims else found


def cumsum(x: TensorLike, axis: int | None = None, reverse: bool = False) -> Tensor:
    """The running sum along ``axis`` (which a vector need not name), from its start or, reversed, its end.

    >>> cumsum(as_tensor([1.0, 2.0, 3.0])).eval()
    array([1., 3., 6.], dtype=float32)
    """
    tensor = as_tensor(x)
    if axis is None and tensor.ndim != 1:
        fail(ShapeError(f"cumsum: {tensor.ndim} axes and no axis given; needs an axis"))
    return apply(REGISTRY["cumsum"], tensor, axis=0 if axis is None else axis, reverse=bool(reverse))


def reshape(x: TensorLike, shape: ShapeLike) -> Tensor:
    """The same elements, in order, in another shape; one size may be -1.

    Raises: ShapeError where the sizes do not multiply to the same.

    >>> reshape(as_tensor([1, 2, 3, 4]), (2, -1)).eval()
    array([[1, 2],
           [3, 4]])
    """
    tensor = as_tensor(x)
    try:
        wanted = reshape_shape(tensor.shape, _sizes("reshape", shape))
    except GraphcError as error:
        fail(error)
    return tensor if wanted == tensor.shape else special("reshape", tensor, wanted)


def _sizes(name: str, shape: ShapeLike) -> tuple[SizeLike, ...]:
    result: list[SizeLike] = []
    for size in shape if isinstance(shape, (tuple, list)) else (shape,):
        if isinstance(size, np.integer):
            size = int(size)
        if isinstance(size, bool) or not isinstance(size, (int, Size)):
            raise DTypeError(f"{name}: size {size!r} given; needs an integer or a gc.dim")
        result.append(size)
    return tuple(result)


def permute_dims(x: TensorLike, axes: Sequence[int]) -> Tensor:
    """The axes in the given order."""
    return apply(REGISTRY["permute_dims"], x, axes=tuple(axes))


def transpose(x: TensorLike, axes: Sequence[int] | None = None) -> Tensor:
    """The axes in the given order, or reversed.

    >>> transpose(as_tensor([[1, 2], [3, 4]])).eval()
    array([[1, 3],
           [2, 4]])
    """
    return apply(REGISTRY["permute_dims"], x, axes=None if axes is None else tuple(axes))


def expand_dims(x: TensorLike, axis: int | tuple[int, ...] = 0) -> Tensor:
    """New axes of size 1 at the given places."""
    return apply(REGISTRY["expand_dims"], x, axis=_axis(axis))


def squeeze(x: TensorLike, axis: Axis = None) -> Tensor:
    """Axes of size 1 left out: the given ones, or all."""
    return apply(REGISTRY["squeeze"], x, axis=_axis(axis))


def broadcast_to(x: TensorLike, shape: ShapeLike) -> Tensor:
    """Elements repeated to a shape, as broadcasting repeats them."""
    try:
        wanted = _sizes("broadcast_to", shape)
    except GraphcError as error:
        fail(error)
    return apply(REGISTRY["broadcast_to"], x, shape=wanted)


def concat(tensors: Sequence[TensorLike], axis: int = 0) -> Tensor:
    """Tensors one behind the other along an axis.

    Raises: ShapeError where another size differs; DefinitionError for no tensors.

    >>> concat([as_tensor([1, 2]), as_tensor([3])]).eval()
    array([1, 2, 3])
    """
    given: object = tensors
    if isinstance(given, Tensor) or not len(tensors):
        fail(DefinitionError("concat: no list of tensors given; needs at least one tensor in a list"))
    return apply(REGISTRY["concat"], *[as_tensor(t) for t in tensors], axis=axis)


def split(x: TensorLike, parts: int | Sequence[int], axis: int = 0) -> list[Tensor]:
    """The tensor cut along an axis, into so many equal parts or at the given places.

    Raises: ShapeError where the size does not divide, or places do not ascend inside it.

    >>> [t.shape for t in split(as_tensor([1, 2, 3, 4, 5]), [2, 3])]
    [(2,), (1,), (2,)]
    """
    tensor = as_tensor(x)
    try:
        k = axis_of("split", axis, tensor.ndim)
    except GraphcError as error:
        fail(error)
    size = tensor.shape[k]
    if isinstance(parts, int):
        if parts < 1 or isinstance(size % parts, Size) or size % parts:
            fail(ShapeError(f"split: {parts} parts of an axis of size {size} given; needs parts that divide it"))
        places: list[SizeLike] = [(size // parts) * j for j in range(1, parts)]
    else:
        places = list(parts)
    bounds: list[SizeLike] = [0, *places, size]
    front: tuple[AttrValue, ...] = (("slice", None, None, None),) * k
    back: tuple[AttrValue, ...] = (("slice", None, None, None),) * (tensor.ndim - k - 1)
    return [apply(REGISTRY["slice"], tensor, spec=(*front, ("slice", a, b, None), *back)) for a, b in pairwise(bounds)]


def flip(x: TensorLike, axis: Axis = None) -> Tensor:
    """The order along axes (None for all) reversed."""
    return apply(REGISTRY["flip"], x, axis=_axis(axis))


def roll(x: TensorLike, shift: int, axis: int | None = None) -> Tensor:
    """Elements moved by ``shift`` along an axis (None: in the tensor laid flat), those beyond its end put at its
    start.
    """
    tensor = as_tensor(x)
    if axis is None:
        return reshape(apply(REGISTRY["roll"], reshape(tensor, (-1,)), shift=shift, axis=0), tensor.shape)
    return apply(REGISTRY["roll"], tensor, shift=shift, axis=axis)


def pad(x: TensorLike, widths: int | Sequence[int] | Sequence[Sequence[int]], value: Number = 0) -> Tensor:
    """Elements of one value added around: (before, after) for each axis, one pair for all, or one number.

    >>> pad(as_tensor([1.0]), (1, 2)).eval()
    array([0., 1., 0., 0.], dtype=float32)
    """
    if not isinstance(value, (bool, int, float, np.generic)):
        fail(DTypeError("pad: a tensor given as value; needs a number"))
    return apply(REGISTRY["pad"], as_tensor(x), value, widths=_nested(widths))


def _nested(value: int | Sequence[int] | Sequence[Sequence[int]]) -> AttrValue:
    if isinstance(value, (list, tuple)):
        return tuple(tuple(v) if isinstance(v, (list, tuple)) else v for v in value)
    return value if isinstance(value, int) else None


def matmul(x: TensorLike, y: TensorLike) -> Tensor:
    """The matrix product of the last two axes; axes before them broadcast, a vector is a row on the left, a column
    on the right.

    Raises: ShapeError where the inner sizes differ.

    >>> matmul(as_tensor([[1.0, 2.0]]), as_tensor([3.0, 4.0])).eval()
    array([11.], dtype=float32)
    """
    return apply(REGISTRY["matmul"], x, y)


def einsum(subscripts: str, *operands: TensorLike) -> Tensor:
    """The sum of products that index letters describe, as in NumPy.

    Raises: DefinitionError for letters that mean nothing, ShapeError for sizes that differ.

    >>> einsum("ij,j->i", as_tensor([[1.0, 2.0]]), as_tensor([3.0, 4.0])).eval()
    array([11.], dtype=float32)
    """
    if not isinstance(subscripts, str) or not operands:
        fail(DefinitionError(f"einsum: {subscripts!r} given; needs index letters, then at least one tensor"))
    return apply(REGISTRY["einsum"], *operands, subscripts=subscripts)


def tensordot(x: TensorLike, y: TensorLike, axes: int | Sequence[int | Sequence[int]] = 2) -> Tensor:
    """The sum of products over the last axes of x and the first of y, or over given ones."""
    given = axes if isinstance(axes, int) else tuple(a if isinstance(a, int) else tuple(a) for a in axes)
    return apply(REGISTRY["tensordot"], x, y, axes=given)


def trace(x: TensorLike, offset: int = 0) -> Tensor:
    """The sum of the diagonal of the last two axes."""
    return apply(REGISTRY["trace"], x, offset=offset)


def diag(x: TensorLike, offset: int = 0) -> Tensor:
    """The diagonal of the last two axes; of a vector, the matrix with that diagonal."""
    return apply(REGISTRY["diag"], x, offset=offset)


def take(x: TensorLike, indices: TensorLike, axis: int = 0) -> Tensor:
    """Slices along an axis, at integer indices from data: 0 <= index < size, checked when run.

    >>> take(as_tensor([1.0, 2.0, 3.0]), as_tensor([2, 0])).eval()
    array([3., 1.], dtype=float32)
    """
    return apply(REGISTRY["take"], x, indices, axis=axis)


def gather(x: TensorLike, indices: TensorLike, axis: int = -1) -> Tensor:
    """Elements along an axis, each at an index of its own: ``indices`` has the shape of the result."""
    return apply(REGISTRY["gather"], x, indices, axis=axis)


def pick(x: TensorLike, indices: TensorLike, axis: int = -1) -> Tensor:
    """One element along an axis for every place of the other axes: ``x[n, indices[n]]``."""
    return apply(REGISTRY["pick"], x, indices, axis=axis)


def one_hot(indices: TensorLike, size: int, dtype: DTypeish = "float32") -> Tensor:
    """1 at the index, 0 elsewhere, along a new last axis.

    >>> one_hot(as_tensor([2, 0]), 3).eval()
    array([[0., 0., 1.],
           [1., 0., 0.]], dtype=float32)
    """
    try:
        wanted = as_dtype(dtype, "one_hot")
    except GraphcError as error:
        fail(error)
    return apply(REGISTRY["one_hot"], indices, size=size, dtype=wanted)


def scatter_add(x: TensorLike, indices: TensorLike, source: TensorLike, axis: int = 0) -> Tensor:
    """``x`` with each element of ``source`` added at its own index along ``axis``; ``indices`` has the source's shape.

    >>> scatter_add(as_tensor([0.0, 0.0]), as_tensor([1, 1]), as_tensor([2.0, 3.0])).eval()
    array([0., 5.], dtype=float32)
    """
    tensor = as_tensor(x)
    return tensor + apply(REGISTRY["scatter"], indices, source, shape=tensor.shape, axis=axis)


def index_add(x: TensorLike, indices: TensorLike, source: TensorLike, axis: int = 0) -> Tensor:
    """``x`` with each slice of ``source`` added at its index along ``axis``: what ``take`` reads, written."""
    tensor = as_tensor(x)
    return tensor + apply(REGISTRY["index_scatter"], indices, source, shape=tensor.shape, axis=axis)


def embedding(table: TensorLike, indices: TensorLike) -> Tensor:
    """The rows of a table at integer indices from data."""
    return apply(REGISTRY["take"], table, indices, axis=0)


def _axis(axis: Axis) -> AttrValue:
    return tuple(axis) if isinstance(axis, list) else axis
