"""The tensor: an immutable expression with operators. Building one computes nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from graphc.dsl.build import build
from graphc.dsl.handle import Handle, caller, located
from graphc.dsl.init import initial
from graphc.dsl.show import latex_of, text_of
from graphc.errors import DTypeError, GraphcError, InputError, ShapeError, UsageError
from graphc.graph.dtypes import DTYPES, DType, Number, as_dtype, int64, promote
from graphc.graph.formula import Shape
from graphc.graph.graph import NAMED, const_value
from graphc.graph.sizes import Size, SizeLike
from graphc.ops.index import parse_index
from graphc.ops.record import AttrValue, Operand, Record, TensorType, Weak, formula_of, text
from graphc.ops.registry import REGISTRY
from graphc.reference import evaluate

Array = NDArray[np.generic]


class Tensor(Handle):
    """An expression: a declared tensor, a constant, or an operation on others. ``==`` compares elements.

    >>> from graphc.dsl.declare import input
    >>> x = input("x", (3,))
    >>> (2 * x + 1).eval(x=[0.0, 1.0, 2.0])
    array([1., 3., 5.], dtype=float32)
    """

    __slots__ = ()
    operands: tuple[Tensor, ...]
    __array_ufunc__ = None  # so that array * tensor asks the tensor
    __hash__ = object.__hash__

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self.shape)

    @property
    def size(self) -> SizeLike:
        """The number of elements."""
        total: SizeLike = 1
        for n in self.shape:
            total = total * n
        return total

    @property
    def T(self) -> Tensor:
        """The transpose of a matrix. Raises ShapeError for another number of axes."""
        if self.ndim != 2:
            fail(ShapeError(f"T: shape {text(self.shape)} given; needs two axes (mT transposes the last two)"))
        return apply(REGISTRY["permute_dims"], self, axes=(1, 0))

    @property
    def mT(self) -> Tensor:
        """The last two axes exchanged. Raises ShapeError for fewer than two axes."""
        if self.ndim < 2:
            fail(ShapeError(f"mT: shape {text(self.shape)} given; needs at least two axes"))
        n = self.ndim
        return apply(REGISTRY["permute_dims"], self, axes=(*range(n - 2), n - 1, n - 2))

    def named(self, name: str) -> Tensor:
        """The same value under a name of the user's choice, for display."""
        if not isinstance(name, str) or not name:
            fail(DTypeError(f"named: {name!r} given; needs a text"))
        copy = Tensor(self.kind, self.operands, self.attr, self.dtype, self.shape, self.op, self.code, self.instruction)
        copy.label, copy.origins, copy.over = name, self.origins, self.over
        if self.kind in NAMED:
            fail(UsageError(f"named: {self.kind} {self.name!r} has its name from its declaration"))
        return copy

    def eval(self, **values: ArrayLike) -> NDArray[Any]:  # the element type is the tensor's own
        """The value, by the reference evaluator, for a look without compiling.

        values: the inputs by name; a parameter or state not given has its initial value, a hyper-parameter its default.

        Raises: InputError for an input that is missing or unknown; ShapeError, DTypeError for one that does not fit.
        """
        try:
            return _evaluate(self, values)
        except GraphcError as error:
            raise located(error) from None

    def __add__(self, other: TensorLike) -> Tensor:
        return apply(_ADD, self, other)

    def __radd__(self, other: TensorLike) -> Tensor:
        return apply(_ADD, other, self)

    def __sub__(self, other: TensorLike) -> Tensor:
        return apply(_SUBTRACT, self, other)

    def __rsub__(self, other: TensorLike) -> Tensor:
        return apply(_SUBTRACT, other, self)

    def __mul__(self, other: TensorLike) -> Tensor:
        return apply(_MULTIPLY, self, other)

    def __rmul__(self, other: TensorLike) -> Tensor:
        return apply(_MULTIPLY, other, self)

    def __truediv__(self, other: TensorLike) -> Tensor:
        return apply(_DIVIDE, self, other)

    def __rtruediv__(self, other: TensorLike) -> Tensor:
        return apply(_DIVIDE, other, self)

    def __floordiv__(self, other: TensorLike) -> Tensor:
        return apply(REGISTRY["floor_divide"], self, other)

    def __rfloordiv__(self, other: TensorLike) -> Tensor:
        return apply(REGISTRY["floor_divide"], other, self)

    def __mod__(self, other: TensorLike) -> Tensor:
        return apply(REGISTRY["remainder"], self, other)

    def __rmod__(self, other: TensorLike) -> Tensor:
        return apply(REGISTRY["remainder"], other, self)

    def __pow__(self, other: TensorLike) -> Tensor:
        return apply(REGISTRY["pow"], self, other)

    def __rpow__(self, other: TensorLike) -> Tensor:
        return apply(REGISTRY["pow"], other, self)

    def __matmul__(self, other: TensorLike) -> Tensor:
        return apply(_MATMUL, self, other)

    def __rmatmul__(self, other: TensorLike) -> Tensor:
        return apply(_MATMUL, other, self)

    def __neg__(self) -> Tensor:
        return apply(REGISTRY["negative"], self)

    def __pos__(self) -> Tensor:
        return self

    def __abs__(self) -> Tensor:
        return apply(REGISTRY["abs"], self)

    def __eq__(self, other: TensorLike) -> Tensor:  # type: ignore[override]
        return apply(REGISTRY["equal"], self, other)

    def __ne__(self, other: TensorLike) -> Tensor:  # type: ignore[override]
        return apply(REGISTRY["not_equal"], self, other)

    def __lt__(self, other: TensorLike) -> Tensor:
        return apply(REGISTRY["less"], self, other)

    def __le__(self, other: TensorLike) -> Tensor:
        return apply(REGISTRY["less_equal"], self, other)

    def __gt__(self, other: TensorLike) -> Tensor:
        return apply(REGISTRY["greater"], self, other)

    def __ge__(self, other: TensorLike) -> Tensor:
        return apply(REGISTRY["greater_equal"], self, other)

    def __and__(self, other: TensorLike) -> Tensor:
        return apply(REGISTRY["logical_and"], self, _boolean("&", self, other))

    def __rand__(self, other: TensorLike) -> Tensor:
        return apply(REGISTRY["logical_and"], _boolean("&", self, other), self)

    def __or__(self, other: TensorLike) -> Tensor:
        return apply(REGISTRY["logical_or"], self, _boolean("|", self, other))

    def __ror__(self, other: TensorLike) -> Tensor:
        return apply(REGISTRY["logical_or"], _boolean("|", self, other), self)

    def __xor__(self, other: TensorLike) -> Tensor:
        return apply(REGISTRY["logical_xor"], self, _boolean("^", self, other))

    def __rxor__(self, other: TensorLike) -> Tensor:
        return apply(REGISTRY["logical_xor"], _boolean("^", self, other), self)

    def __invert__(self) -> Tensor:
        return apply(REGISTRY["logical_not"], _boolean("~", self, self))

    def __getitem__(self, key: object) -> Tensor:
        """Elements by integers, slices, ``None``, ``...`` and one integer tensor or array, as in NumPy."""
        try:
            spec, data, axis = parse_index(key, self.shape, _is_data)
        except GraphcError as error:
            raise located(error) from None
        result = self if all(entry == ("slice", None, None, None) for entry in spec) else apply(_SLICE, self, spec=spec)
        if data is None:
            return result
        return apply(REGISTRY["take"], result, as_tensor(data), axis=axis)

    def __len__(self) -> int:
        """The size of the first axis. Raises UsageError where that is known only at run time."""
        if not self.shape:
            fail(UsageError("len: a tensor without axes has no length"))
        if not isinstance(self.shape[0], int):
            fail(UsageError(f"len: the first axis has size {self.shape[0]}, known only at run time; use .shape[0]"))
        return int(self.shape[0])

    def __iter__(self) -> Iterator[Tensor]:
        if not self.shape or not isinstance(self.shape[0], int):
            fail(UsageError(f"iteration: shape {text(self.shape)} given; needs a first axis of known size"))
        return iter([self[k] for k in range(self.shape[0])])

    def __bool__(self) -> bool:
        fail(UsageError("bool: a tensor's value is not known while the graph is declared; use gc.where for a choice"))

    def __float__(self) -> float:
        fail(UsageError("float: a tensor's value is not known while the graph is declared; .eval() computes it"))

    def __int__(self) -> int:
        fail(UsageError("int: a tensor's value is not known while the graph is declared; .eval() computes it"))

    def __index__(self) -> int:
        fail(UsageError("index: a tensor's value is not known while the graph is declared; gc.take reads at tensors"))

    def __array__(self, dtype: object = None, copy: object = None) -> Array:
        fail(UsageError("NumPy: a tensor is an expression, not an array; .eval() computes its value"))

    def __setitem__(self, key: object, value: object) -> None:
        fail(UsageError("assignment to elements: a tensor never changes; use gc.where or gc.scatter_add"))

    def __str__(self) -> str:
        """The expression as maths, with named intermediates."""
        return text_of(self)

    def _repr_latex_(self) -> str:
        return f"$\\displaystyle {latex_of(self)}$"

    def __repr__(self) -> str:
        name = self.name
        return f"<{name + ': ' if name else ''}{self.dtype}{text(self.shape)} {self.op or self.kind}>"


TensorLike = Tensor | Number | Size | np.generic | Array


def fail(error: GraphcError) -> NoReturn:
    """Raises ``error`` with the user's own line as its last."""
    raise located(error) from None


def _boolean(sign: str, tensor: Tensor, other: TensorLike) -> TensorLike:
    dtypes = [o.dtype.name for o in (tensor, other) if isinstance(o, (Tensor, np.ndarray))]
    for name in dtypes:
        if name != "bool":
            fail(DTypeError(f"{sign}: {name} given; needs bool (gc.logical_and and its like take numbers)"))
    return other


def _is_data(value: object) -> bool:
    return isinstance(value, (Tensor, np.ndarray, list))


def as_tensor(value: object, dtype: DTypeLike | DType | None = None, what: str = "const") -> Tensor:
    """``value`` as a tensor: itself, or a constant. Python floats become float32, integers int64. what: for messages.

    Raises: DTypeError for an element type that graphc has not, ShapeError for an array without elements.
    """
    if isinstance(value, Tensor):
        return value
    try:
        array = np.asarray(value)
    except ValueError:
        fail(ShapeError(f"{what}: rows of different lengths given; needs an array"))
    if dtype is None and not isinstance(value, (np.ndarray, np.generic)):
        dtype = {"f": "float32", "i": "int64", "b": "bool"}.get(array.dtype.kind)
    wanted = array.dtype.name if dtype is None else as_dtype(dtype, what).name
    if isinstance(value, int):
        _check_whole(what, value, int64 if dtype is None else as_dtype(dtype, what))
    if array.dtype.kind not in "fiub":
        fail(DTypeError(f"{what}: {_type_of(value)} given; needs a tensor, numbers or an array of them"))
    if wanted not in DTYPES:
        fail(DTypeError(f"{what}: {array.dtype} given; needs one of {', '.join(DTYPES)} (gc.const converts to one)"))
    if array.size == 0:
        fail(ShapeError(f"{what}: shape {array.shape} given; needs at least one element"))
    if array.dtype.kind in "iu" and DTYPES[wanted].kind == "i":
        for extreme in (array.min(), array.max()):
            _check_whole(what, int(extreme), DTYPES[wanted])
    array = array.astype(wanted)
    code, instruction = caller()
    return Tensor("const", (), const_value(array), DTYPES[wanted], tuple(array.shape), "const", code, instruction)


def apply(record: Record, *operands: TensorLike, **attrs: AttrValue) -> Tensor:
    """The tensor of an operation. The same operand given twice is one.

    Raises: the errors of the record's type rule, with the user's own line.
    """
    code, instruction = caller()
    types: list[Operand] = []
    inputs: list[Tensor] = []
    slots: list[int] = []
    whole = False
    try:
        for operand in operands:
            if not isinstance(operand, Tensor):
                weak = weak_of(operand) if record.numbers else None
                if weak is not None:
                    types.append(weak)
                    whole = whole or weak.kind == "int"
                    continue
                operand = as_tensor(operand, None, record.name)
            place = 0
            for known in inputs:  # a list's own search would ask for ``==``, which builds a tensor
                if known is operand:
                    break
                place += 1
            else:
                inputs.append(operand)
            slots.append(place)
            types.append(TensorType(operand.shape, operand.dtype))
        if operands and not inputs:
            inputs = [as_tensor(operands[0], None, record.name)]
            slots, types[0] = [0], TensorType((), inputs[0].dtype)
        if whole:
            _check_numbers(record.name, types)
        formula = formula_of(record, tuple(types), tuple(attrs.items()), tuple(slots))
    except GraphcError as error:
        raise located(error) from None
    return Tensor("formula", tuple(inputs), formula, formula.dtype, formula.shape, record.name, code, instruction)


def _check_numbers(name: str, operands: list[Operand]) -> None:
    """Raises DTypeError for a Python integer outside the type that it takes from the integer tensors beside it."""
    kinds = [o.dtype for o in operands if isinstance(o, TensorType) and o.dtype.kind != "b"]
    dtype = promote(*kinds) if kinds else int64
    for operand in operands:
        if isinstance(operand, Weak) and operand.kind == "int":
            _check_whole(name, int(operand.number()), dtype if dtype.kind == "i" else int64)


def _check_whole(name: str, value: int, dtype: DType) -> None:
    bounds = np.iinfo((dtype if dtype.kind == "i" else int64).numpy)
    if not bounds.min <= value <= bounds.max:
        raise located(DTypeError(f"{name}: {value} given; {dtype} holds integers from {bounds.min} to {bounds.max}"))


def _type_of(value: object) -> str:
    return f"an array of {value.dtype}" if isinstance(value, np.ndarray) else type(value).__name__


def weak_of(value: object) -> Weak | None:
    """A number or a size as an operand; None for anything else."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, bool):
        return Weak("bool", str(value))
    if isinstance(value, int):
        return Weak("int", str(value))
    if isinstance(value, float):
        return Weak("float", repr(value))
    if isinstance(value, Size):
        return Weak("size", str(value), value)
    return None


def _evaluate(tensor: Tensor, values: Mapping[str, ArrayLike]) -> Array:
    built = build({"value": tensor})
    unread = {name: leaf for name, leaf in built.unread.items() if name in values}
    nodes = [built.graph.add(leaf.kind, (), name, leaf.dtype, leaf.shape) for name, leaf in unread.items()]
    given = given_values(built.leaves | unread, values)
    return evaluate(built.graph, given, [built.node[tensor], *nodes])[built.node[tensor]]


def given_values(leaves: Mapping[str, Handle], values: Mapping[str, ArrayLike], what: str = "eval") -> dict[str, Array]:
    """The value of every leaf by name: as given, else a weight's initial value or a hyper-parameter's default.

    Raises: InputError for an input that is missing or unknown; DTypeError for one that does not fit.
    """
    given: dict[str, Array] = {}
    for name, leaf in leaves.items():
        if name in values:
            given[name] = _checked(what, name, leaf, values[name])
        elif leaf.kind == "hyper":
            given[name] = np.asarray(leaf.leaf.default, leaf.dtype.numpy)
        elif leaf.kind in ("param", "state"):
            given[name] = initial(leaf, name, 0)
        else:
            raise InputError(f"{what}: input {name!r} is missing; it has shape {text(leaf.shape)}")
    for name in values:
        if name not in leaves:
            raise InputError(f"{what}: {name!r} given; the tensor has {', '.join(leaves) or 'no inputs'}")
    return given


def _checked(what: str, name: str, leaf: Handle, value: ArrayLike) -> Array:
    array = np.asarray(value)
    if array.dtype.kind not in "fiub" or (array.dtype.kind == "f" and leaf.dtype.kind != "f"):
        raise DTypeError(f"{what}: {name} of type {array.dtype} given; needs {leaf.dtype}")
    return array.astype(leaf.dtype.numpy)


def shape_of(what: str, shape: object) -> Shape:
    """A declared shape: sizes of at least 1, numbers or dimensions; a single size is a vector.

    Raises: DTypeError for anything else among the sizes, ShapeError for a size below 1.
    """
    sizes = shape if isinstance(shape, (tuple, list)) else (shape,)
    result: list[SizeLike] = []
    for size in sizes:
        if isinstance(size, np.integer):
            size = int(size)
        if isinstance(size, bool) or not isinstance(size, (int, Size)):
            raise DTypeError(f"{what}: size {size!r} given; needs an integer or a gc.dim")
        if isinstance(size, int) and size < 1:
            raise ShapeError(f"{what}: shape {tuple(sizes)} given; sizes must be at least 1")
        result.append(size)
    return tuple(result)


_ADD, _SUBTRACT, _MULTIPLY, _DIVIDE = (REGISTRY[n] for n in ("add", "subtract", "multiply", "divide"))
_MATMUL, _SLICE = REGISTRY["matmul"], REGISTRY["slice"]

__all__ = ["Tensor", "TensorLike", "apply", "as_tensor", "fail", "shape_of", "weak_of"]
