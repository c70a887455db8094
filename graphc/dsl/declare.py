"""Declarations: inputs, parameters, states, hyper-parameters, constants, and a user's own operations."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from graphc.dsl import init as initialisers
from graphc.dsl.handle import Initialiser, Layer, Leaf, caller, located
from graphc.dsl.tensor import Tensor, TensorLike, apply, as_tensor, fail, shape_of
from graphc.errors import DefinitionError, DTypeError, GraphcError, ShapeError
from graphc.graph import sizes
from graphc.graph.dtypes import DType, as_dtype, boolean, int64
from graphc.graph.formula import Formula
from graphc.graph.notation_builder import build_formula
from graphc.graph.notation_parser import parse_formula
from graphc.graph.scalar import Operand as Value
from graphc.graph.scalar import Scalar
from graphc.graph.sizes import Size, SizeLike
from graphc.graph.sym import FUNCTIONS, Namespace
from graphc.graph.sympy_forms import evaluate_sympy, is_sympy
from graphc.ops.elementwise import build_elementwise
from graphc.ops.record import Operand, Record, TensorType, text

Array = NDArray[np.generic]
ShapeLike = SizeLike | Sequence[SizeLike]
DTypeish = DType | DTypeLike
Start = Initialiser | ArrayLike | None


def dim(name: str) -> Size:
    """A size known only at run time, at least 1. One compiled step serves every value; arithmetic on it works.

    Raises: DefinitionError where ``name`` is no identifier.

    >>> n = dim("N")
    >>> n * 4 // 2
    2*N
    """
    try:
        return sizes.dim(name)
    except GraphcError as error:
        raise located(error) from None


def input(name: str, shape: ShapeLike = (), dtype: DTypeish = "float32") -> Tensor:
    """A tensor given at every call.

    Raises: DefinitionError for a bad name, DTypeError or ShapeError for a bad type or shape.

    >>> input("x", (dim("N"), 64))
    <x: float32(N, 64) input>
    """
    return _declared("input", name, shape, dtype, Leaf(name))


def param(name: str, shape: ShapeLike = (), init: Start = None, dtype: DTypeish = "float32") -> Tensor:
    """A tensor that training changes. init: an initialiser of ``gc.init``, or its first values; zeros by default.

    Raises: DefinitionError for a bad name or first values of another shape; DTypeError, ShapeError for a bad type or
    shape.

    >>> param("w", (64, 10))
    <w: float32(64, 10) param>
    """
    return _weight("param", name, shape, init, dtype)


def state(name: str, shape: ShapeLike = (), init: Start = None, dtype: DTypeish = "float32") -> Tensor:
    """A tensor kept from step to step but not trained; ``with_updates`` gives it its new values. init: as of ``param``.

    Raises: as ``param``.

    >>> state("mean", (10,))
    <mean: float32(10,) state>
    """
    return _weight("state", name, shape, init, dtype)


def layer_param(
    layer: Layer | str, suffix: str, shape: ShapeLike, init: Start = None, dtype: DTypeish = "float32"
) -> Tensor:
    """The parameter of a layer: ``name.suffix`` for a layer named by the user, else named when the graph is built."""
    if isinstance(layer, str):
        return param(f"{layer}.{suffix}", shape, init, dtype)
    start = _start("param", suffix, shape_of("param", shape), init)
    return _declared("param", None, shape, dtype, Leaf(None, start, layer=layer, suffix=suffix))


def hyper(name: str, default: float, dtype: DTypeish = "float32") -> Tensor:
    """A number given at run time, with a default; an optimizer's ``lr`` is one.

    Raises: DefinitionError for a bad name, DTypeError where the default is no number or the element type not floating.

    >>> hyper("lr", 0.1)
    <lr: float32() hyper>
    """
    if isinstance(default, bool) or not isinstance(default, (int, float, np.integer, np.floating)):
        fail(DTypeError(f"hyper {name!r}: default {default!r} given; needs a number"))
    kind = as_dtype(dtype, f"hyper {name!r}")
    if kind.kind != "f":
        fail(DTypeError(f"hyper {name!r}: dtype {kind.name} given; needs a floating type"))
    return _declared("hyper", name, (), kind, Leaf(name, default=float(default)))


def const(value: ArrayLike, dtype: DTypeish | None = None) -> Tensor:
    """Data as part of the graph. Python floats become float32, integers int64; an array keeps its type.

    dtype: another element type to hold it in.

    Raises: DTypeError for an element type that graphc has not.

    >>> const([1.0, 2.0])
    <float32(2,) const>
    """
    return as_tensor(value, dtype)


def step_count() -> Tensor:
    """The number of steps done before this one, int64.

    >>> step_count().eval()
    array(0)
    """
    code, instruction = caller()
    return Tensor("count", (), None, int64, (), "step_count", code, instruction)


training = Tensor("training", (), None, boolean, (), "training", label="training")


def stop_gradient(x: TensorLike) -> Tensor:
    """The same value, a constant to derivatives.

    >>> stop_gradient(const([1.0])).eval()
    array([1.], dtype=float32)
    """
    return special("stop_gradient", as_tensor(x, None, "stop_gradient"))


def special(kind: str, x: Tensor, shape: tuple[SizeLike, ...] | None = None) -> Tensor:
    """The tensor of a record of the second kind that has one operand."""
    code, instruction = caller()
    return Tensor(kind, (x,), None, x.dtype, x.shape if shape is None else shape, kind, code, instruction)


def with_updates(value: TensorLike, updates: Mapping[Tensor, TensorLike]) -> Tensor:
    """``value``, carrying new values for states (or parameters), which training applies after each step.

    Raises: DefinitionError where what is updated is no state or parameter; ShapeError, DTypeError where a new value
    does not fit.

    >>> seen = state("seen")
    >>> with_updates(const(1.0), {seen: seen + 1})
    <float32() with_updates>
    """
    value = as_tensor(value, None, "with_updates")
    operands: list[Tensor] = [value]
    for target, new in updates.items():
        if not isinstance(target, Tensor) or target.kind not in ("state", "param"):
            fail(DefinitionError(f"with_updates: {target!r} given; needs a gc.state or a gc.param"))
        tensor = as_tensor(new, target.dtype, "with_updates")
        if tensor.shape != target.shape:
            fail(ShapeError(f"with_updates: {text(tensor.shape)} given for {target.name}; needs {text(target.shape)}"))
        if tensor.dtype != target.dtype:
            fail(DTypeError(f"with_updates: {tensor.dtype} given for {target.name}; needs {target.dtype}"))
        operands += [target, tensor]
    code, instruction = caller()
    return Tensor("updates", tuple(operands), None, value.dtype, value.shape, "with_updates", code, instruction)


def elementwise(name: str, function: Callable[..., object]) -> Callable[..., Tensor]:
    """A user's own elementwise operation, from its formula: derivative, kernel and display follow.

    function: takes scalars, uses operators and ``gc.sym``; SymPy's own functions are accepted too.

    Raises: DefinitionError for a bad name or no function; DTypeError when called, where the formula does not fit.

    >>> from graphc.graph.sym import sym
    >>> swish = elementwise("swish", lambda x, beta: x / (1 + sym.exp(-beta * x)))
    >>> swish(const([0.0, 2.0]), 1.0).eval().round(3)
    array([0.   , 1.762], dtype=float32)
    """
    if not callable(function):
        fail(DefinitionError(f"elementwise {name!r}: {type(function).__name__} given; needs a function of scalars"))
    _check_name("elementwise", name)

    def value(s: Namespace, *operands: Value) -> Value:
        return _call(name, function, operands)

    def build(*operands: Operand) -> Formula:
        return build_elementwise(name, value, operands, {})

    record = Record(name, "elementwise", build, _no_reference, (), f"The user's {name}.", numbers=True)

    def operation(*operands: TensorLike) -> Tensor:
        if not operands:
            fail(DefinitionError(f"{name}: nothing given; needs at least one tensor"))
        return apply(record, *operands)

    operation.__name__ = operation.__qualname__ = name
    operation.__doc__ = f"The elementwise operation {name}."
    return operation


def formula(name: str, text: str) -> Callable[..., Tensor]:
    """A user's own tensor operation, from its index formula.

    Operands are given by position, in order of first appearance, or by name.

    Raises: DefinitionError where the text means nothing; ShapeError, DTypeError when called with operands that do not
    fit.

    >>> bilinear = formula("bilinear", "out[n,o] = sum(i,j) x[n,i] * w[o,i,j] * z[n,j]")
    >>> bilinear(np.ones((2, 3)), np.ones((4, 3, 5)), np.ones((2, 5))).shape
    (2, 4)
    """
    _check_name("formula", name)
    try:
        parsed = parse_formula(text)
    except GraphcError as error:
        raise located(error) from None
    names = parsed.operands

    def build(*operands: TensorType) -> Formula:
        return build_formula(parsed, [o.shape for o in operands], [o.dtype for o in operands])

    record = Record(name, "formula", build, _no_reference, (), f"The user's {text}.")

    def operation(*operands: TensorLike, **named: TensorLike) -> Tensor:
        given = dict(zip(names, operands, strict=False))
        repeated = [n for n in named if n in given or n not in names]
        if len(operands) > len(names) or repeated or len(given) + len(named) < len(names):
            found = f"{len(operands)} by position" + (f" and {', '.join(named)} by name" if named else "")
            fail(DefinitionError(f"{name}: {found} given; needs {', '.join(names)}, each once"))
        given.update(named)
        return apply(record, *[given[n] for n in names])

    operation.__name__ = operation.__qualname__ = name
    operation.__doc__ = text
    return operation


def _no_reference(*operands: Array) -> Array:
    raise NotImplementedError("a user's own operation has no second statement to compare with")


def _call(name: str, function: Callable[..., object], operands: Sequence[Value]) -> Value:
    """The formula's value, by calling it with scalars; with SymPy's symbols where it turns out to use SymPy."""
    try:
        result = function(*operands)
    except GraphcError:
        raise
    except Exception as error:  # whatever a user's function raises when it is handed something it does not know
        result = _call_with_symbols(name, function, len(operands), error)
    if is_sympy(result):
        symbols = {f"x{k}": o for k, o in enumerate(operands)}
        if any(str(s) not in symbols for s in result.free_symbols):  # type: ignore[attr-defined]
            result = _call_with_symbols(name, function, len(operands), None)
        return evaluate_sympy(result, symbols, FUNCTIONS)  # type: ignore[arg-type]
    if not isinstance(result, (Scalar, bool, int, float)):
        raise DTypeError(f"{name}: its formula gives a {type(result).__name__}; needs a scalar")
    return result


def _call_with_symbols(name: str, function: Callable[..., object], count: int, error: Exception | None) -> object:
    import sympy

    try:
        result = function(*[sympy.Symbol(f"x{k}", real=True) for k in range(count)])
    except Exception as second:
        raise DTypeError(f"{name}: its formula raised {type(second).__name__}: {second}") from (error or second)
    if not is_sympy(result) and error is not None:
        raise DTypeError(f"{name}: its formula raised {type(error).__name__}: {error}") from error
    return result


def _weight(kind: str, name: str, shape: ShapeLike, init: Start, dtype: DTypeish) -> Tensor:
    try:
        checked = shape_of(f"{kind} {name!r}", shape)
        for size in checked:
            if isinstance(size, Size):
                raise ShapeError(f"{kind} {name!r}: size {size} given; needs sizes known at declaration")
        start = _start(kind, name, checked, init)
    except GraphcError as error:
        raise located(error) from None
    return _declared(kind, name, checked, dtype, Leaf(name, start))


def _start(kind: str, name: str, shape: tuple[SizeLike, ...], init: Start) -> Initialiser | None:
    if init is None or callable(init):
        return init
    values = np.asarray(init)
    if values.shape not in ((), shape):
        raise DefinitionError(f"{kind} {name!r}: first values of shape {values.shape} given; needs {shape}")
    if values.dtype.kind not in "fiub":
        raise DTypeError(f"{kind} {name!r}: first values of type {values.dtype} given; needs numbers")
    return initialisers.constant(values)


def _declared(kind: str, name: str | None, shape: ShapeLike, dtype: DTypeish, leaf: Leaf) -> Tensor:
    code, instruction = caller()
    try:
        if name is not None:
            _check_name(kind, name)
        checked = shape_of(f"{kind} {name!r}", shape)
        element = as_dtype(dtype, f"{kind} {name!r}")
        if kind == "param" and element.kind != "f":
            raise DTypeError(f"param {name!r}: {element} given; needs float32 or float64 (gc.state holds other types)")
    except GraphcError as error:
        raise located(error) from None
    return Tensor(kind, (), leaf, element, checked, kind, code, instruction)


def _check_name(kind: str, name: object) -> None:
    parts = name.split(".") if isinstance(name, str) else []
    if not parts or not all(p.isidentifier() for p in parts):
        fail(DefinitionError(f"{kind}: name {name!r} given; needs identifiers, joined by dots"))
