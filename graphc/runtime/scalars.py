"""The run-time scalars of a program, such as a learning rate: their defaults, and where native code reads them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from graphc.kernels.layout import Layout
from graphc.runtime.arguments import Array, scalar
from graphc.runtime.memory import zeroed

Number = bool | int | float

_APART = 64  # bytes from one to the next


class Scalars:
    """The scalars of one program.

    names: in the order of its buffers. arrays: of rank 0, where native code reads them. stale: whether these may hold
    anything but the defaults.
    """

    __slots__ = ("_buffers", "_defaults", "_memory", "arrays", "names", "stale")

    def __init__(self, layout: Layout) -> None:
        self._buffers = {b.name: b for b in layout.buffers if b.role == "hyper"}
        self.names = tuple(self._buffers)
        self._memory = zeroed(_APART * len(self.names))
        self.arrays: dict[str, Array] = {
            b.name: np.ndarray((), b.dtype.numpy, self._memory.data, _APART * n)
            for n, b in enumerate(self._buffers.values())
        }
        self._defaults: dict[str, Number] = {
            b.name: b.default for b in self._buffers.values() if b.default is not None
        }
        self.stale = True

    def defaults(self) -> dict[str, Number]:
        """The defaults, a copy."""
        return dict(self._defaults)

    def checked(self, what: str, name: str, value: object) -> Number:
        """A value for one of them. what: for messages. Raises DTypeError, ShapeError, KeyError."""
        return scalar(what, value, self._buffers[name])

    def given(self, what: str, arguments: Mapping[str, object]) -> dict[str, Number]:
        """The values that a call's arguments have for them. Raises DTypeError, ShapeError."""
        return {name: self.checked(what, name, arguments[name]) for name in self.names if name in arguments}

    def set_default(self, name: str, number: Number) -> None:
        """Change a default; it is written before the next call."""
        self._defaults[name] = number
        self.stale = True

    def write(self, given: Mapping[str, Number]) -> None:
        """Put these values, and the defaults of the others, where native code reads them."""
        self.stale = True  # until the defaults are written again, whatever interrupts
        with np.errstate(over="ignore"):  # a large double is infinite in float32, as it is in an array
            for name, number in (self._defaults | dict(given)).items():
                self.arrays[name][()] = number
        self.stale = bool(given)
