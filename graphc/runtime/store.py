"""The weights and states of a step: one block of memory, shared by every program made from it."""

from __future__ import annotations

import ctypes
import math
import threading
import time
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager

import numpy as np

from graphc.errors import InternalError, ShapeError, UnknownNameError, UsageError
from graphc.graph.sizes import evaluate
from graphc.kernels.arena import aligned
from graphc.kernels.layout import PERSISTENT, Buffer, Layout
from graphc.runtime.arguments import Array, converted
from graphc.runtime.memory import Bytes, zeroed

WANTED, RUNNING = 0, 1  # the words of a Guard
_PAUSE_S = 1e-5


class Guard:
    """Who may use a store: one thread in Python, or one native fast call, never both.

    Python code takes ``lock`` and then sets the word WANTED, which no fast call passes; a fast call, which begins only
    with both words zero, sets RUNNING until it is done. Both look and set while they hold the interpreter lock, so
    neither can come between the other's looking and setting: whoever sets WANTED first and then sees RUNNING zero is
    alone.
    """

    __slots__ = ("lock", "words")

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.words = (ctypes.c_int64 * 2)()

    def wait(self) -> None:
        """Return when no fast call is under way; the caller has set WANTED."""
        while self.words[RUNNING]:
            time.sleep(_PAUSE_S)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the store. May be entered again by the thread that holds it."""
        with self.lock:
            before = self.words[WANTED]
            try:
                self.words[WANTED] = 1
                self.wait()
                yield
            finally:
                self.words[WANTED] = before


class Store:
    """Params, states and counts by name, in one block; every array begins at a multiple of 64.

    Whoever runs a program on it or copies into it holds the ``guard``.
    """

    __slots__ = ("_arrays", "_block", "_buffers", "guard")

    def __init__(self, buffers: Mapping[str, Buffer], values: Mapping[str, Array]) -> None:
        self.guard = Guard()
        shapes = {name: tuple(evaluate(size, {}) for size in b.shape) for name, b in buffers.items()}
        places: dict[str, int] = {}
        total = 0
        for name, buffer in buffers.items():
            places[name] = total
            n_bytes = buffer.dtype.itemsize * math.prod(shapes[name])
            total += aligned(n_bytes)
        self._block: Bytes = zeroed(total)
        self._buffers = dict(buffers)
        self._arrays: dict[str, Array] = {}
        for name, buffer in buffers.items():
            numpy = buffer.dtype.numpy
            self._arrays[name] = np.ndarray(shapes[name], numpy, self._block.data, places[name])
            if name in values:
                self.write(name, values[name])

    def __getitem__(self, name: str) -> Array:
        return self._arrays[name]

    def names(self, *roles: str) -> tuple[str, ...]:
        """The names of all arrays of these roles, in order; of every role where none is given."""
        return tuple(name for name, buffer in self._buffers.items() if not roles or buffer.role in roles)

    def role(self, name: str) -> str:
        """"param", "state" or "count"."""
        return self._buffers[name].role

    def addresses(self) -> range:
        """The addresses of the block: an input that lies there is read and written by the same step."""
        start = int(self._block.ctypes.data)
        return range(start, start + self._block.size)

    def checked(self, name: str, value: object, what: str = "") -> Array:
        """``value`` as an array that fits ``name``. Raises DTypeError or ShapeError."""
        what = what or f"step.{'params' if self.role(name) == 'param' else 'state'}[{name!r}]"
        wanted = self._arrays[name]
        array = converted(what, value, self._buffers[name].dtype)
        if array.shape != wanted.shape:
            raise ShapeError(f"{what}: shape {array.shape} given; needs {wanted.shape}")
        return array

    def write(self, name: str, value: object) -> None:
        """Copy ``value`` in. Raises DTypeError or ShapeError and then has changed nothing."""
        array = self.checked(name, value)
        with self.guard.alone():
            np.copyto(self._arrays[name], array)

    def snapshot(self) -> Bytes:
        """A copy of everything."""
        return self._block.copy()

    def restore(self, snapshot: Bytes) -> None:
        """Put a snapshot back."""
        np.copyto(self._block, snapshot)


def make_store(layouts: tuple[Layout, ...], values: Mapping[str, Array]) -> Store:
    """The store that all these programs need, with initial values; what has none begins as zeros.

    Raises: InternalError where two programs disagree on an array.
    """
    buffers: dict[str, Buffer] = {}
    for layout in layouts:
        for buffer in layout.buffers:
            if buffer.role in PERSISTENT:
                known = buffers.setdefault(buffer.name, buffer)
                if (known.role, known.dtype, known.shape) != (buffer.role, buffer.dtype, buffer.shape):
                    raise InternalError(f"store: two programs disagree on {buffer.name!r}")
    return Store(buffers, values)


class LiveArrays(MutableMapping[str, Array]):
    """The arrays of some roles as live views: reading gives the memory itself, assigning copies in, checked."""

    __slots__ = ("_names", "_store", "_what")

    def __init__(self, what: str, store: Store, names: tuple[str, ...]) -> None:
        self._what = what
        self._store = store
        self._names = dict.fromkeys(names)

    def __getitem__(self, name: str) -> Array:
        if name not in self._names:
            raise self._unknown(name)
        return self._store[name].view()

    def __setitem__(self, name: str, value: object) -> None:
        if name not in self._names:
            raise self._unknown(name)
        self._store.write(name, value)

    def __delitem__(self, name: str) -> None:
        raise UsageError(f"{self._what}: an array cannot be removed")

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def _unknown(self, name: object) -> UnknownNameError:
        return UnknownNameError(f"{self._what}: {name!r} given; there are {', '.join(self._names) or 'none'}")

    def __repr__(self) -> str:
        rows = (f"{name}: {a.dtype}[{', '.join(map(str, a.shape))}]" for name, a in self.items())
        return f"<{self._what}: {', '.join(rows) or 'none'}>"
