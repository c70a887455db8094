"""Elementwise operations: each element of the result is a scalar function of the operands' elements at the same place.

A value is written once over the scalar namespace ``s``; operands broadcast as in NumPy. Values and derivatives at kinks
are PyTorch's.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from graphc.errors import DTypeError
from graphc.graph.dtypes import DType, as_dtype, boolean, float32, float64, int32, int64, with_number
from graphc.graph.formula import Affine, Formula, Read, Shape, constant, plain, var
from graphc.graph.primitives import PRIMITIVES
from graphc.graph.scalar import BodyBuilder, Scalar
from graphc.graph.scalar import Operand as Value
from graphc.graph.sym import Namespace, sym
from graphc.ops.record import Array, AttrValue, Draw, Operand, Record, Sample, TensorType, broadcast, sample

Function = Callable[..., Value]


def build_elementwise(
    name: str, value: Function, operands: tuple[Operand, ...], attrs: dict[str, AttrValue]
) -> Formula:
    """The formula of a scalar function over broadcast operands; numbers and sizes become part of its body."""
    tensors = [o for o in operands if isinstance(o, TensorType)]
    shape = broadcast(name, [t.shape for t in tensors])
    builder = BodyBuilder()
    reads: list[Read] = []
    values: list[Value] = []
    for operand in operands:
        if isinstance(operand, TensorType):
            values.append(builder.read(len(reads), operand.dtype))
            reads.append(Read(len(reads), stretched(operand.shape, shape)))
        else:
            values.append(operand.number() if operand.size is None else builder.size(operand.size))
    result = value(sym, *values, **attrs)
    if not isinstance(result, Scalar):
        common = tensors[0].dtype if tensors else float32
        result = builder.const(result, with_number(common, result))
    return Formula(shape, plain(len(shape)), shape, tuple(reads), builder.finish(result))


def stretched(shape: Shape, result: Shape) -> tuple[Affine, ...]:
    """Where an operand of ``shape`` is read, over the variables of a ``result`` that it broadcasts to."""
    first = len(result) - len(shape)
    return tuple(
        constant(0) if size == 1 and result[first + k] != 1 else var(first + k) for k, size in enumerate(shape)
    )


def elementwise(
    name: str,
    value: Function,
    reference: Callable[..., Array],
    doc: str,
    samples: tuple[Sample, ...],
    ties: str = "",
    smooth: bool = True,
) -> Record:
    """The record of a scalar function ``value(s, *operands, **attributes)``."""

    def build(*operands: Operand, **attrs: AttrValue) -> Formula:
        return build_elementwise(name, value, operands, attrs)

    return Record(name, "elementwise", build, reference, samples, doc, ties, smooth, numbers=True)


def _samples(arity: int, domain: tuple[float, float], dtype: str = "f", grad: bool = True) -> tuple[Sample, ...]:
    low, high = domain
    shapes: tuple[tuple[tuple[int, ...], ...], ...] = (((5, 3),), ((7,),))
    if arity == 2:
        shapes = (((4, 3), (4, 3)), ((4, 1), (3,)), ((2, 1, 3), ()))
    return tuple(Sample(tuple(Draw(s, low, high, dtype) for s in group), (), grad) for group in shapes)


def _same(name: str, primitive: str, doc: str, ties: str = "", reference: Callable[..., Array] | None = None) -> Record:
    """The record of an operation that is one primitive."""
    p = PRIMITIVES[primitive]
    function = getattr(sym, primitive)
    samples = _samples(p.arity, p.domain, "bool" if p.takes == "b" else "f", p.smooth)

    def value(s: Namespace, *operands: Value) -> Value:
        result: Value = function(*operands)
        return result

    return elementwise(name, value, reference or p.numpy, doc, samples, ties, p.smooth)


def _swapped(name: str, primitive: str, reference: Callable[..., Array], doc: str) -> Record:
    function = getattr(sym, primitive)

    def value(s: Namespace, a: Value, b: Value) -> Value:
        result: Value = function(b, a)
        return result

    return elementwise(name, value, reference, doc, _samples(2, (-3.0, 3.0), grad=False), smooth=False)


def _truth(s: Namespace, x: Value) -> Value:
    return x != 0 if isinstance(x, Scalar) and x.dtype.kind != "b" else x


def _logical(name: str, reference: Callable[..., Array], doc: str) -> Record:
    function = getattr(sym, name)
    arity = PRIMITIVES[name].arity

    def value(s: Namespace, *operands: Value) -> Value:
        result: Value = function(*[_truth(s, o) for o in operands])
        return result

    return elementwise(name, value, reference, doc, _samples(arity, (0, 1), "bool", False), smooth=False)


def _power(s: Namespace, x: Value, p: Value) -> Value:
    """``x ** p``; a Python number as exponent gives products and roots where it can."""
    if isinstance(p, Scalar) or not isinstance(x, Scalar):
        return s.pow(x, p)
    if x.dtype.kind == "i" and isinstance(p, int) and p < 0:
        raise DTypeError(f"pow: {x.dtype} to the power {p} given; needs an exponent of at least 0, or floats")
    if x.dtype.kind == "f" and p in (0.5, -0.5):
        return s.sqrt(x) if p > 0 else s.rsqrt(x)
    whole = int(p) if math.isfinite(p) and p == int(p) else 0
    if (x.dtype.kind == "i" and isinstance(p, float)) or x.dtype.kind == "b" or not 1 <= abs(whole) <= 16:
        return s.pow(x, p)
    result: Scalar | None = None
    square, left = x, abs(whole)
    while left:
        if left % 2:
            result = square if result is None else result * square
        left //= 2
        if left:
            square = square * square
    assert result is not None
    return result if whole > 0 else 1.0 / result


def _square(s: Namespace, x: Scalar) -> Value:
    return x * x


def _clip(s: Namespace, x: Scalar, low: Value, high: Value) -> Value:
    raised = s.where(s.less(x, low), low, x)
    return s.where(s.less(high, raised), high, raised)


def _clip_low(s: Namespace, x: Scalar, low: Value) -> Value:
    return s.where(s.less(x, low), low, x)


def _clip_high(s: Namespace, x: Scalar, high: Value) -> Value:
    return s.where(s.less(high, x), high, x)


def _elu(s: Namespace, x: Scalar, alpha: float = 1.0) -> Value:
    below = s.where(x > 0, 0.0, x)  # so that exp of a large x never enters the side not taken
    return s.where(x > 0, x, alpha * s.expm1(below))


def _selu(s: Namespace, x: Scalar) -> Value:
    return SELU_SCALE * s.where(x > 0, x, SELU_ALPHA * s.expm1(s.where(x > 0, 0.0, x)))


def _gelu(s: Namespace, x: Scalar, approximate: str = "none") -> Value:
    if approximate == "tanh":
        return 0.5 * x * (1 + s.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)))
    if approximate != "none":
        raise DTypeError(f"gelu: approximate={approximate!r} given; needs 'none' or 'tanh'")
    return 0.5 * x * (1 + s.erf(math.sqrt(0.5) * x))


def _hardtanh(s: Namespace, x: Scalar, low: float = -1.0, high: float = 1.0) -> Value:
    return s.where(x <= low, low, s.where(x >= high, high, x))


def _cast(s: Namespace, x: Scalar, dtype: DType) -> Value:
    if dtype.kind == "b":
        return _truth(s, x)
    return x.builder.cast(x, dtype)


def _np_gelu(x: NDArray[np.float64], approximate: str = "none") -> Array:
    if approximate == "tanh":
        return np.asarray(0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))))
    return np.asarray(0.5 * x * np.add(1, PRIMITIVES["erf"].numpy(np.asarray(x / math.sqrt(2)))))


def _np_selu(x: NDArray[np.float64]) -> Array:
    return np.where(x > 0, SELU_SCALE * x, SELU_SCALE * SELU_ALPHA * np.expm1(np.minimum(x, 0)))


# Source: Klambauer, Unterthiner, Mayr, Hochreiter, "Self-Normalizing Neural Networks", 2017, equation 2 and section 2.
SELU_ALPHA = 1.6732632423543772
SELU_SCALE = 1.0507009873554805

UNARY = (-3.0, 3.0)


def _activation(
    name: str,
    value: Function,
    reference: Callable[..., Array],
    doc: str,
    *more: Sample,
    ties: str = "",
    smooth: bool = True,
) -> Record:
    return elementwise(name, value, reference, doc, _samples(1, UNARY) + more, ties, smooth)


ARITHMETIC: tuple[Record, ...] = (
    _same("add", "add", "Sum of two tensors."),
    _same("subtract", "sub", "Difference of two tensors."),
    _same("multiply", "mul", "Product of two tensors, element by element."),
    _same("divide", "div", "Quotient of two tensors; integers give float32."),
    _same("negative", "neg", "The operand with its sign changed."),
    elementwise("positive", lambda s, x: x, np.positive, "The operand itself.", _samples(1, UNARY)),
    elementwise(
        "pow",
        _power,
        PRIMITIVES["pow"].numpy,
        "Power; a number as exponent becomes products and roots where it can.",
        _samples(2, PRIMITIVES["pow"].domain)
        + tuple(sample((4,), p) for p in (2, 3, 7, 1.0))
        + (sample((4,), 0, grad=False),)
        + tuple(Sample((Draw((4,), 0.3, 3.0), p)) for p in (-1, -2, 0.5, -0.5, 1.7)),
        ties="at base 0: 0 by the base where the exponent is 0, 0 by an exponent of at least 0",
    ),
    _same("floor_divide", "floor_divide", "Quotient rounded down; an integer by 0 gives 0."),
    _same("remainder", "remainder", "What floor_divide leaves, with the divisor's sign; an integer by 0 gives 0."),
    _same("abs", "abs", "Absolute value.", ties="0 at 0"),
    _same("sign", "sign", "-1, 0 or 1 by the sign."),
    elementwise("square", _square, np.square, "The operand times itself.", _samples(1, UNARY)),
    _same("sqrt", "sqrt", "Square root.", ties="infinite at 0"),
    _same("rsqrt", "rsqrt", "1 / sqrt(x)."),
    elementwise("reciprocal", lambda s, x: 1 / x, np.reciprocal, "1 / x.", _samples(1, (0.5, 3.0))),
    _same("maximum", "maximum", "The larger of two; NaN where one is.", ties="1/2 to each of two equal operands"),
    _same("minimum", "minimum", "The smaller of two; NaN where one is.", ties="1/2 to each of two equal operands"),
    _same("hypot", "hypot", "sqrt(x*x + y*y)."),
    _same("logaddexp", "logaddexp", "log(exp(x) + exp(y)), without overflow."),
    _same("atan2", "atan2", "The angle of the point (y, x)."),
)

TRANSCENDENTAL: tuple[Record, ...] = tuple(
    _same(name, name, doc)
    for name, doc in (
        ("exp", "e to the power x."),
        ("exp2", "2 to the power x."),
        ("expm1", "exp(x) - 1, exact near 0."),
        ("log", "Natural logarithm."),
        ("log2", "Logarithm to base 2."),
        ("log10", "Logarithm to base 10."),
        ("log1p", "log(1 + x), exact near 0."),
        ("sin", "Sine."),
        ("cos", "Cosine."),
        ("tan", "Tangent."),
        ("asin", "Inverse sine."),
        ("acos", "Inverse cosine."),
        ("atan", "Inverse tangent."),
        ("sinh", "Hyperbolic sine."),
        ("cosh", "Hyperbolic cosine."),
        ("tanh", "Hyperbolic tangent."),
        ("asinh", "Inverse hyperbolic sine."),
        ("acosh", "Inverse hyperbolic cosine."),
        ("atanh", "Inverse hyperbolic tangent."),
        ("erf", "The error function."),
        ("sigmoid", "1 / (1 + exp(-x))."),
        ("softplus", "log(1 + exp(x)), without overflow."),
        ("floor", "Rounded down."),
        ("ceil", "Rounded up."),
        ("round", "Rounded to the nearest, ties to even."),
        ("trunc", "Rounded towards 0."),
    )
)

PREDICATES: tuple[Record, ...] = (
    _same("equal", "equal", "Whether x == y."),
    _same("not_equal", "not_equal", "Whether x != y."),
    _same("less", "less", "Whether x < y."),
    _same("less_equal", "less_equal", "Whether x <= y."),
    _swapped("greater", "less", np.greater, "Whether x > y."),
    _swapped("greater_equal", "less_equal", np.greater_equal, "Whether x >= y."),
    _logical("logical_and", np.logical_and, "Whether both are true; a number is true where it is not 0."),
    _logical("logical_or", np.logical_or, "Whether one is true."),
    _logical("logical_xor", np.logical_xor, "Whether exactly one is true."),
    _logical("logical_not", np.logical_not, "Whether the operand is false."),
    _same("isnan", "isnan", "Whether the element is NaN."),
    _same("isinf", "isinf", "Whether the element is infinite."),
    _same("isfinite", "isfinite", "Whether the element is neither NaN nor infinite."),
)

CHOICES: tuple[Record, ...] = (
    elementwise(
        "where",
        lambda s, c, x, y: s.where(_truth(s, c), x, y),
        np.where,
        "x where the condition holds, else y.",
        (
            Sample((Draw((4, 3), 0, 1, "bool"), Draw((4, 3)), Draw((4, 3)))),
            Sample((Draw((4, 1), 0, 1, "bool"), Draw((3,)), 0.0)),
        ),
    ),
    elementwise(
        "clip",
        _clip,
        lambda x, low, high: np.minimum(np.maximum(x, low), high),
        "x held between two bounds.",
        (sample((5, 3), -1.1, 1.3), sample((5, 3), Draw((3,), -2, -1), Draw((5, 1), 1, 2))),
        ties="at a bound the gradient passes to x",
        smooth=True,
    ),
    Record(
        "clip_low",
        "elementwise",
        lambda *o: build_elementwise("clip", _clip_low, o, {}),
        np.maximum,
        (sample((5, 3), -1.1),),
        "x, at least the bound.",
        public=False,
        numbers=True,
    ),
    Record(
        "clip_high",
        "elementwise",
        lambda *o: build_elementwise("clip", _clip_high, o, {}),
        np.minimum,
        (sample((5, 3), 1.1),),
        "x, at most the bound.",
        public=False,
        numbers=True,
    ),
    elementwise(
        "cast",
        _cast,
        lambda x, dtype: np.asarray(x).astype(as_dtype(dtype).numpy),
        "The operand in another element type.",
        (sample((4, 3), dtype=float64), sample((4, 3), dtype=float32))
        + tuple(sample((4, 3), grad=False, dtype=d) for d in (int32, int64, boolean)),
    ),
)

ACTIVATIONS: tuple[Record, ...] = (
    _activation(
        "relu", lambda s, x: s.where(x <= 0, 0.0, x), lambda x: np.where(x <= 0, 0, x), "max(x, 0).", ties="0 at 0"
    ),
    _activation(
        "leaky_relu",
        lambda s, x, slope=0.01: s.where(x > 0, x, slope * x),
        lambda x, slope=0.01: np.where(x > 0, x, slope * x),
        "x where positive, else slope * x.",
        sample((4,), slope=0.2),
        ties="slope at 0",
    ),
    _activation(
        "elu",
        _elu,
        lambda x, alpha=1.0: np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0))),
        "x where positive, else alpha * (exp(x) - 1).",
        sample((4,), alpha=0.5),
        ties="alpha at 0",
    ),
    _activation("selu", _selu, _np_selu, "The self-normalising elu.", ties="scale * alpha at 0"),
    _activation(
        "gelu",
        _gelu,
        _np_gelu,
        "x times the normal distribution function, exact or by tanh.",
        sample((4, 3), approximate="tanh"),
    ),
    _activation("silu", lambda s, x: x * s.sigmoid(x), lambda x: x / (1 + np.exp(-x)), "x * sigmoid(x)."),
    _activation("softsign", lambda s, x: x / (1 + s.abs(x)), lambda x: x / (1 + np.abs(x)), "x / (1 + abs(x))."),
    _activation(
        "hardtanh",
        _hardtanh,
        lambda x, low=-1.0, high=1.0: np.clip(x, low, high),
        "x held between low and high.",
        sample((4,), low=-0.5, high=0.7),
        ties="0 at both bounds",
    ),
)

RECORDS: tuple[Record, ...] = ARITHMETIC + TRANSCENDENTAL + PREDICATES + CHOICES + ACTIVATIONS
