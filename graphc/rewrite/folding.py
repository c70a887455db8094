"""Operations of constants, and conversions: where their value is the only one that compiled code may give."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from graphc.graph.dtypes import DType
from graphc.graph.primitives import PRIMITIVES
from graphc.graph.scalar import Instr, const_text, const_value

# Primitives whose NumPy result is the one correctly rounded value: folding them keeps every bit.
_ROUNDED_ONCE = frozenset(
    ("add", "sub", "mul", "div", "neg", "abs", "sign", "sqrt", "floor", "ceil", "round", "trunc", "maximum", "minimum",
     "where", "equal", "not_equal", "less", "less_equal", "logical_and", "logical_or", "logical_xor", "logical_not",
     "isnan", "isinf", "isfinite", "cast")
)


def is_rounded_once(op: str) -> bool:
    """Whether NumPy's value of a primitive is the only one that compiled code may give."""
    return op in _ROUNDED_ONCE


def fold(instr: Instr, args: Sequence[Instr]) -> Instr | None:
    """The constant instruction that ``instr`` of the constants ``args`` is; None for a conversion that means nothing.

    >>> from graphc.graph.dtypes import float32
    >>> half, two = Instr("const", (), float32, "0.5"), Instr("const", (), float32, "2.0")
    >>> fold(Instr("add", (0, 1), float32), [half, two]).attr
    '2.5'
    """
    values = [np.asarray(const_value(a), dtype=a.dtype.numpy) for a in args]
    with np.errstate(all="ignore"):
        if instr.op == "cast":
            if instr.dtype.kind == "i" and not abs(float(values[0])) < 2.0**31:
                return None
            value = values[0].astype(instr.dtype.numpy)
        else:
            value = np.asarray(PRIMITIVES[instr.op].numpy(*values)).astype(instr.dtype.numpy)
    return Instr("const", (), instr.dtype, const_text(value.item(), instr.dtype))


def holds_all(wide: DType, narrow: DType) -> bool:
    """Whether every value of ``narrow`` is one of ``wide``, so that a conversion to it loses nothing.

    >>> from graphc.graph.dtypes import float32, float64, int32
    >>> holds_all(float64, int32), holds_all(float32, int32)
    (True, False)
    """
    if narrow.kind == "b" or narrow == wide:
        return True
    if narrow.kind == wide.kind:
        return narrow.itemsize <= wide.itemsize
    return narrow.kind == "i" and wide.kind == "f" and narrow.itemsize < wide.itemsize
