"""LLVM's values and types: names, lanes, constants.

Types are LLVM's own names (``float``, ``<16 x float>``, ``i64``, ``ptr``). A ``Value`` is a text with its type:
a temporary or a constant.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from graphc.errors import InternalError

_BYTES = {"float": 4, "double": 8, "half": 2, "ptr": 8}
_SHORT = {"float": "f32", "double": "f64", "half": "f16", "ptr": "p0"}


class Value(NamedTuple):
    """An operand: its text (``%v12`` or a constant) and its LLVM type."""

    text: str
    type: str


@lru_cache(maxsize=4096)
def lanes(kind: str) -> int:
    """The number of lanes of a vector type, 0 for a scalar type.

    >>> lanes("<16 x float>"), lanes("float")
    (16, 0)
    """
    return int(kind[1 : kind.index(" x ")]) if kind.startswith("<") else 0


@lru_cache(maxsize=4096)
def element(kind: str) -> str:
    """The type of one lane.

    >>> element("<16 x float>"), element("i64")
    ('float', 'i64')
    """
    return kind[kind.index(" x ") + 3 : -1] if kind.startswith("<") else kind


@lru_cache(maxsize=4096)
def vector(scalar: str, n_lanes: int) -> str:
    """The vector type of ``n_lanes`` lanes; 0 gives the scalar type.

    >>> vector("double", 8), vector("i1", 0)
    ('<8 x double>', 'i1')
    """
    return f"<{n_lanes} x {scalar}>" if n_lanes else scalar


def like(kind: str, scalar: str) -> str:
    """The type with the lanes of ``kind`` and the element ``scalar``.

    >>> like("<16 x float>", "i1"), like("float", "i32")
    ('<16 x i1>', 'i32')
    """
    return vector(scalar, lanes(kind))


@lru_cache(maxsize=4096)
def mangled(kind: str) -> str:
    """The suffix that an overloaded intrinsic carries for a type.

    >>> mangled("<16 x float>"), mangled("i64"), mangled("ptr")
    ('v16f32', 'i64', 'p0')
    """
    short = _SHORT.get(element(kind), element(kind))
    return f"v{lanes(kind)}{short}" if lanes(kind) else short


def size_bytes(scalar: str) -> int:
    """The bytes of one element of a scalar type.

    >>> size_bytes("float"), size_bytes("i64"), size_bytes("i1")
    (4, 8, 1)
    """
    return _BYTES[scalar] if scalar in _BYTES else max(1, int(scalar.removeprefix("i")) // 8)


def const(kind: str, number: float) -> Value:
    """A constant, in every lane of a vector type; a float is rounded to the type and written exactly, as a hex double.

    >>> const("float", 0.1).text, const("<8 x i32>", -1).text, const("i1", True).text
    ('0x3FB99999A0000000', 'splat (i32 -1)', 'true')
    """
    if kind == "i64":  # most constants are parts of addresses
        return Value(str(int(number)), kind)
    scalar = element(kind)
    if scalar == "i1":
        text = "true" if number else "false"
    elif scalar.startswith("i"):
        text = str(int(number))
    elif scalar in ("float", "double"):
        text = _float_text(float(number), scalar)
    elif scalar == "ptr" and number == 0:
        text = "null"
    else:
        raise InternalError(f"const: no constant of type {kind}")
    return Value(f"splat ({scalar} {text})" if lanes(kind) else text, kind)


def _float_text(number: float, scalar: str) -> str:
    if scalar == "float":
        try:
            number = float(struct.unpack("<f", struct.pack("<f", number))[0])
        except OverflowError:
            number = float("inf") if number > 0 else float("-inf")
    return f"0x{struct.unpack('<Q', struct.pack('<d', number))[0]:016X}"


def typed(values: Sequence[Value]) -> str:
    """Operands with their types, separated by commas.

    >>> typed([Value("%a", "i64"), Value("3", "i32")])
    'i64 %a, i32 3'
    """
    return ", ".join([f"{v.type} {v.text}" for v in values])
