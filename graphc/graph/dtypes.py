"""The five element types and their promotion.

Promotion follows the Python array API standard (2023.12, "Type Promotion Rules"); an integer with a float, which the
standard leaves open, gives the float's type. Python numbers are weak: they take the type of the tensor beside them.
"""

from __future__ import annotations

import numpy as np

from graphc.errors import DTypeError
from graphc.structs import dataclass


@dataclass(frozen=True, slots=True, eq=False)
class DType:
    """An element type: its name, kind (``f`` float, ``i`` integer, ``b`` boolean) and size in bytes.

    The five below are all there are, so one is compared and hashed as the object that it is, which is cheap.

    >>> from copy import deepcopy
    >>> deepcopy(float32) is float32
    True
    """

    name: str
    kind: str
    itemsize: int

    @property
    def numpy(self) -> np.dtype:
        """The NumPy dtype of the same name."""
        return np.dtype(self.name)

    def __reduce__(self) -> tuple[object, ...]:
        return as_dtype, (self.name,)

    def __str__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        return self.name


float32 = DType("float32", "f", 4)
float64 = DType("float64", "f", 8)
int32 = DType("int32", "i", 4)
int64 = DType("int64", "i", 8)
boolean = DType("bool", "b", 1)

DTYPES: dict[str, DType] = {t.name: t for t in (float32, float64, int32, int64, boolean)}
_RANK = {"b": 0, "i": 1, "f": 2}

Number = bool | int | float


def as_dtype(value: object, what: str = "dtype") -> DType:
    """The DType that ``value`` names: a DType, a NumPy dtype or type, a name, or Python's bool, int, float.

    Raises: DTypeError for any other type.

    >>> as_dtype("int32"), as_dtype(np.float64), as_dtype(float)
    (int32, float64, float32)
    """
    if isinstance(value, DType):
        return value
    if value is float:
        return float32
    if value is int:
        return int64
    try:
        name = np.dtype(value).name  # type: ignore[call-overload]
    except TypeError:
        name = str(value)
    if name not in DTYPES:
        raise DTypeError(f"{what}: {name} given; needs one of {', '.join(DTYPES)}")
    return DTYPES[name]


def promote(*dtypes: DType) -> DType:
    """The common type of several tensors.

    >>> promote(int64, float32), promote(int32, int64), promote(boolean, int32)
    (float32, int64, int32)
    """
    best = dtypes[0]
    for dtype in dtypes[1:]:
        if (_RANK[dtype.kind], dtype.itemsize) > (_RANK[best.kind], best.itemsize):
            best = dtype
    return best


def with_number(dtype: DType, number: Number) -> DType:
    """The type of a tensor of ``dtype`` combined with a Python number.

    >>> with_number(float32, 2), with_number(int32, 0.5), with_number(boolean, 3)
    (float32, float32, int64)
    """
    kind = "b" if isinstance(number, bool) else "i" if isinstance(number, int) else "f"
    if _RANK[kind] <= _RANK[dtype.kind]:
        return dtype
    return int64 if kind == "i" else float32
