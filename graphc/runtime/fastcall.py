"""What a native call of a training step reads: the words behind ``graphc_call`` (``fastcall_text.py``), kept here.

There is such a way in only where the objects of this interpreter lie in memory as the emitted code reads them.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np

from graphc.kernels.layout import Layout
from graphc.runtime.arguments import Array
from graphc.runtime.fastcall_text import (
    AT,
    DATA,
    DTYPE,
    FLAGS,
    HEADER,
    ITEMS,
    RANK,
    SIZE,
    SIZES,
    STATE_SYMBOL,
    TYPE,
    fast_hypers,
    fast_inputs,
    hyper_word,
    input_word,
)
from graphc.runtime.vectorcall import called_by_address
from graphc.structs import dataclass

_PROBE = 0.1


@dataclass(frozen=True, slots=True)
class FastCall:
    """The words that ``graphc_call`` reads, and the objects whose addresses are among them."""

    words: ctypes.Array[ctypes.c_int64]
    keep: tuple[object, ...]


def callable_type(cls: type[Any]) -> type[Any]:
    """The class of which an instance is made where one of ``cls`` is asked for, so that its calls can be native."""
    return called_by_address(cls) if usable() else cls


@cache
def usable() -> bool:
    """Whether the objects of this interpreter and this NumPy lie in memory as the emitted code reads them."""
    if sys.implementation.name != "cpython" or sys.maxsize != 2**63 - 1 or HEADER != 16 or _without_lock():
        return False
    if hasattr(sys, "gettotalrefcount"):  # a debug build asserts that a type has been given its own tp_call
        return False
    if ctypes.c_double.from_address(id(_PROBE) + HEADER).value != _PROBE or _peek(id(_PROBE) + TYPE) != id(float):
        return False
    names = ("ab", "cd")
    if (_peek(id(names) + SIZE), _peek(id(names) + ITEMS), _peek(id(names) + ITEMS + 8)) != (2, *map(id, names)):
        return False
    base = np.zeros((4, 6), np.float32)
    others: list[Array] = [base[:, ::2], base[1:2], np.zeros(3, np.int64), np.zeros(()), np.zeros((2, 3, 5), bool)]
    return all(_lies_as_expected(sample) for sample in (base, *others))


def _without_lock() -> bool:
    enabled = getattr(sys, "_is_gil_enabled", None)
    return enabled is not None and not enabled()


def _peek(address: int) -> int:
    return ctypes.c_size_t.from_address(address).value


def _lies_as_expected(array: Array) -> bool:
    at = id(array)
    found = (_peek(at + TYPE), _peek(at + DATA), _peek(at + DTYPE))
    small = (ctypes.c_int.from_address(at + RANK).value, ctypes.c_int.from_address(at + FLAGS).value)
    if found != (id(np.ndarray), array.ctypes.data, id(array.dtype)) or small != (array.ndim, array.flags.num):
        return False
    sizes = _peek(at + SIZES)
    return tuple(_peek(sizes + 8 * axis) for axis in range(array.ndim)) == array.shape


def make(
    addresses: dict[str, int],
    layout: Layout,
    slow: Callable[..., object],
    guard: int,
    owned: range,
    hypers: dict[str, int],
) -> FastCall:
    """The words for a loaded program, not yet ready.

    guard: address of the store's two words. hypers: of each run-time scalar's memory.
    """
    inputs, scalars = fast_inputs(layout), fast_hypers(layout)
    words = (ctypes.c_int64 * hyper_word(inputs, len(scalars)))()
    api = ctypes.pythonapi
    values = {
        "guard": guard, "owned_first": owned.start, "owned_last": owned.stop, "array_type": id(np.ndarray),
        "float_type": id(float), "slow": id(slow), "new_float": _function(api.PyFloat_FromDouble),
        "save_thread": _function(api.PyEval_SaveThread), "restore_thread": _function(api.PyEval_RestoreThread),
        "new_method": _function(api.PyMethod_New), "vectorcall": _function(api.PyObject_Vectorcall),
        "release": _function(api.Py_DecRef), "hold": _function(api.Py_IncRef),
        "intern": _function(api.PyUnicode_InternInPlace),
    }  # fmt: skip
    for name, value in values.items():
        words[AT[name]] = value
    names = [item.name for item in inputs] + [scalar.name for scalar in scalars]
    interned = tuple(map(sys.intern, names))
    for number, item in enumerate(inputs):
        first = input_word(inputs, number)
        words[first], words[first + 1] = id(interned[number]), id(item.dtype.numpy)
    for number, scalar in enumerate(scalars):
        first = hyper_word(inputs, number)
        words[first], words[first + 1] = id(interned[len(inputs) + number]), hypers[scalar.name]
    ctypes.c_size_t.from_address(addresses[STATE_SYMBOL]).value = ctypes.addressof(words)
    return FastCall(words, (slow, interned))


def _function(symbol: object) -> int:
    address = ctypes.cast(symbol, ctypes.c_void_p).value  # type: ignore[arg-type]
    assert address is not None
    return address


def aim(call: FastCall, layout: Layout, context: int, releases: bool, shapes: Sequence[tuple[int, ...]]) -> None:
    """Make calls ready for arrays of these shapes, with this context; the scalars hold their defaults now."""
    words, inputs = call.words, fast_inputs(layout)
    words[AT["context"]], words[AT["releases"]] = context, int(releases)
    for number, shape in enumerate(shapes):
        first = input_word(inputs, number) + 2
        words[first : first + len(shape)] = list(shape)
    for number in range(len(fast_hypers(layout))):
        first = hyper_word(inputs, number)
        ctypes.memmove(ctypes.addressof(words) + 8 * (first + 2), words[first + 1], 8)
    words[AT["ready"]] = 1


def disarm(call: FastCall) -> None:
    """Send every call the slow way until they are made ready again."""
    call.words[AT["ready"]] = 0


def calls(call: FastCall) -> int:
    """How many calls went this way."""
    return call.words[AT["calls"]]
