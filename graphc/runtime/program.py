"""A loaded program: its contexts, its arena and its calls."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TypeVar

import numpy as np

from graphc.errors import GraphcError, InternalError, UsageError
from graphc.graph.sizes import evaluate
from graphc.kernels.layout import (
    FIRST_DIM_WORD,
    IN_ARENA,
    PERSISTENT,
    WORD_ALWAYS,
    WORD_TEAM,
    Buffer,
    Layout,
)
from graphc.llvm.target import Target
from graphc.runtime import epoch, fastcall, fastcall_text, vectorcall
from graphc.runtime.arguments import (
    Array,
    DimSolver,
    check_unread,
    gather,
    input_slots,
    plain_address,
    quick_address,
    reads_addresses,
    unread_slots,
)
from graphc.runtime.compiled import Compiled
from graphc.runtime.failures import failure
from graphc.runtime.fastcall import FastCall
from graphc.runtime.jit import Native, load
from graphc.runtime.memory import Allocator, Bytes, zeroed
from graphc.runtime.scalars import Number, Scalars
from graphc.runtime.store import WANTED, Guard, Store
from graphc.runtime.team import Team, team_of

T = TypeVar("T")
Entry = Callable[[int], int]
# The report on a failed check for finite numbers: its number, and inputs, scalars, weights and states by name.
Examine = Callable[[int, Mapping[str, Array]], object]

_RELEASE_ABOVE_NS = 5_000  # giving the interpreter lock away and taking it back costs some 40 ns
_TEAM_ABOVE_NS = 15_000  # predicted; below, waiting for each other takes more than it saves
_ALWAYS = 0  # 1: a call goes to the team whatever it takes, for tests
_MOST_CONTEXTS = 256

_WITHOUT_LOCK = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_size_t)
_SHUFFLE = ctypes.CFUNCTYPE(None, ctypes.c_size_t, ctypes.c_int64, ctypes.c_int64, ctypes.c_size_t)
_WITH_LOCK = ctypes.PYFUNCTYPE(ctypes.c_int32, ctypes.c_size_t)


class Context:
    """The words that native code is called with, for one tuple of dimensions."""

    __slots__ = ("address", "arena", "call", "dims", "loss", "outputs", "team", "words")

    def __init__(self, layout: Layout, dims: Mapping[str, int], call: Entry) -> None:
        self.dims = dict(dims)
        self.call = call
        self.words = (ctypes.c_int64 * layout.n_words())()
        self.address = ctypes.addressof(self.words)
        self.words[FIRST_DIM_WORD : FIRST_DIM_WORD + len(layout.dims)] = [dims[name] for name in layout.dims]
        self.team: Team | None = None
        self.arena: Bytes | None = None
        self.loss: memoryview | None = None
        self.outputs: tuple[tuple[str, Array], ...] = ()


class Program:
    """A loaded program. Calls are serialised by the store's guard; a call from within a call is refused."""

    __slots__ = (
        "_address_of", "_aimed", "_allocate", "_arena", "_busy", "_by_shapes", "_examine", "_fast", "_held", "_idle",
        "_n_calls", "_native", "_others", "_owned", "_released", "_scalars", "_solver", "_threads", "_unread",
        "averaged", "debug", "guard", "layout", "name", "sliced", "slots", "store",
    )  # fmt: skip

    def __init__(
        self,
        compiled: Compiled,
        target: Target,
        store: Store | None = None,
        *,
        name: str = "step",
        debug: bool = False,
        threads: int = 1,
        allocate: Allocator = zeroed,
        symbols: Sequence[str] = (),
        examine: Examine | None = None,
    ) -> None:
        layout = compiled.layout
        self.name = name
        self.layout = layout
        self.store = store
        self.guard = store.guard if store is not None else Guard()
        self.slots = input_slots(layout)
        self._n_calls = 0
        self._fast: FastCall | None = None
        self._aimed: Context | None = None  # kept alive for the fast call
        self._solver = DimSolver(layout.dims, self.slots)
        fits = epoch.can_fit(layout)
        self.sliced = epoch.sliced(layout) if fits else ()
        self.averaged = epoch.averaged(layout) if fits else ()
        symbols = [layout.symbol, *symbols, *(epoch.SYMBOLS if fits else ())]
        symbols += fastcall_text.SYMBOLS if fastcall_text.fast_inputs(layout) else ()
        self._native: Native = load(compiled.objects, symbols, target)
        self._released: Entry = _WITHOUT_LOCK(self._native.addresses[layout.symbol])
        self._held: Entry = _WITH_LOCK(self._native.addresses[layout.symbol])
        self._address_of = quick_address if reads_addresses() else plain_address
        self._allocate = allocate
        self._arena: Bytes = allocate(0)
        self._by_shapes: dict[tuple[tuple[int, ...], ...], Context] = {}
        self._idle: dict[tuple[int, ...], Context] = {}
        self._busy = False
        self.debug = debug
        self._examine = examine
        self._threads = threads  # the team is made when a call first is long enough for one
        self._owned = store.addresses() if store is not None else range(0)
        self._scalars = Scalars(layout)
        self._unread = unread_slots(layout)
        self._others = (*self._scalars.names, *(slot.name for slot in self._unread))  # what may be given beside inputs

    # What the arena is made of

    def arena_bytes(self, dims: Mapping[str, int] | None = None) -> int:
        """The size of the arena for these dimensions; without them, of the arena as it is."""
        if dims is None:
            return int(self._arena.size)
        return self.layout.arena.offsets(dims, self.members(dims))[1]

    def use_allocator(self, allocate: Allocator) -> None:
        """Take the arena from ``allocate`` from now on: for a test that surrounds it with guard pages."""
        with self.guard.alone():
            self._allocate = allocate
            self._arena = allocate(0)
            self._disarm()

    def context(self, dims: Mapping[str, int]) -> Context:
        """A new context for these dimensions, its inputs' words not yet set."""
        slow = evaluate(self.layout.cost_ns, dims) > _RELEASE_ABOVE_NS
        context = Context(self.layout, dims, self._released if slow else self._held)
        members = self.members(dims)
        context.team = team_of(members) if members > 1 else None
        if context.team is not None:
            context.words[WORD_TEAM] = context.team.address
            context.words[WORD_ALWAYS] = _ALWAYS
        self.point(context)
        return context

    def take(self, dims: Mapping[str, int]) -> Context:
        """A context for these dimensions, a new one or one that was put back; its inputs' words are not yet set."""
        return self._idle.pop(_key(dims), None) or self.context(dims)

    def put_back(self, context: Context) -> None:
        """Keep a context for the next ``take``: to make one costs as much as a hundred short steps."""
        if len(self._idle) >= _MOST_CONTEXTS:
            self._idle.clear()
        self._idle[_key(context.dims)] = context

    def members(self, dims: Mapping[str, int]) -> int:
        """How many threads may share a call with these dimensions: one where it is short."""
        return self._threads if evaluate(self.layout.cost_ns, dims) > _TEAM_ABOVE_NS else 1

    def point(self, context: Context) -> None:
        """Give the context the addresses of all but the inputs, in an arena that is large enough for it."""
        layout, words = self.layout, context.words
        offsets, total = layout.arena.offsets(context.dims, context.team.size if context.team is not None else 1)
        if total > self._arena.size:
            self._arena = self._allocate(total)  # other contexts notice by themselves
            self._disarm()
        base = int(self._arena.ctypes.data)
        views: dict[str, Array] = {}
        for number, buffer in enumerate(layout.buffers):
            if buffer.role in IN_ARENA:
                words[layout.buffer_word(number)] = base + offsets[buffer.slot]
                if buffer.role == "output":
                    views[buffer.name] = self._view(buffer, offsets[buffer.slot], context.dims)
            elif buffer.role == "hyper":
                words[layout.buffer_word(number)] = int(self._scalars.arrays[buffer.name].ctypes.data)
            elif buffer.role in PERSISTENT:
                if self.store is None:
                    raise InternalError(f"{self.name}: {buffer.name!r} needs a store")
                words[layout.buffer_word(number)] = int(self.store[buffer.name].ctypes.data)
        results = layout.results
        context.loss = views[results.loss].reshape(1).data if results.loss else None
        context.outputs = tuple((key, self._result(name, views)) for key, name in results.outputs)
        context.arena = self._arena

    def _view(self, buffer: Buffer, offset: int, dims: Mapping[str, int]) -> Array:
        shape = tuple(evaluate(size, dims) for size in buffer.shape)
        return np.ndarray(shape, buffer.dtype.numpy, self._arena.data, offset)

    def _result(self, name: str, views: Mapping[str, Array]) -> Array:
        if name in views:
            return views[name]
        if self.store is not None and name in self.store.names():
            return self.store[name]  # an output that is a weight or a state itself
        raise InternalError(f"{self.name}: result {name!r} is neither an output nor persistent")

    # For callers that run native code themselves

    def ready(self, given: Mapping[str, object]) -> tuple[Context, list[Array]]:
        """A context with everything in its place, and the inputs, which must outlive its use.

        Raises: what ``run`` raises for arguments.
        """
        arrays = gather(self.name, self.slots, given, self._others)
        with self.guard.alone():
            context = self.context(self._solver.solve([array.shape for array in arrays], self.name))
            self._override(given)
            for slot, array in zip(self.slots, arrays, strict=True):
                context.words[slot.word] = self._address_of(array)
        return context, arrays

    def symbol(self, name: str) -> int:
        """The address of an exported symbol. Raises KeyError."""
        return self._native.addresses[name]

    @property
    def threads(self) -> int:
        """The most threads that a call may use."""
        return self._threads

    # Calls

    def run(self, given: Mapping[str, object], read: Callable[[Context], T]) -> T:
        """Check the arguments, run once, and give what ``read`` makes of the context, whose results change at any call.

        Raises: InputError, ShapeError, DTypeError for arguments, IndexRangeError or NonFiniteError by the program's own
        checks. Weights and states are then as before.
        """
        arrays = gather(self.name, self.slots, given, self._others)
        shapes = tuple([array.shape for array in arrays])
        guard = self.guard
        with guard.lock:
            if self._busy:
                raise UsageError(f"{self.name}: called from within a call of itself")
            before = guard.words[WANTED]
            try:
                self._busy = True
                guard.words[WANTED] = 1
                guard.wait()
                context = self._by_shapes.get(shapes)
                if context is None:
                    context = self._new_context(shapes)
                if len(given) != len(arrays):
                    check_unread(self.name, self._unread, given, context.dims)
                    self._override(given)
                elif self._scalars.stale:
                    self._override({})
                self._call(context, arrays)
                if self._fast is not None and not self._scalars.stale and context is not self._aimed:
                    self._aim(self._fast, context, shapes)
                return read(context)
            finally:
                self._busy = False
                guard.words[WANTED] = before

    def _call(self, context: Context, arrays: list[Array]) -> None:
        if context.arena is not self._arena:
            self.point(context)
        words, owned, address_of = context.words, self._owned, self._address_of
        for number, slot in enumerate(self.slots):
            address = address_of(arrays[number])
            if address in owned:
                arrays[number] = arrays[number].copy()
                address = address_of(arrays[number])
            words[slot.word] = address
        saved = self.store.snapshot() if self.debug and self.store is not None else None
        self._n_calls += 1
        status = context.call(context.address)
        if status:
            if saved is not None and self.store is not None:
                self.store.restore(saved)
            raise self.failure(context, status)

    def _new_context(self, shapes: tuple[tuple[int, ...], ...]) -> Context:
        context = self.context(self._solver.solve(shapes, self.name))
        if len(self._by_shapes) >= _MOST_CONTEXTS:
            del self._by_shapes[next(iter(self._by_shapes))]
        self._by_shapes[shapes] = context
        return context

    def dims_of(self, arrays: Sequence[Array], what: str) -> dict[str, int]:
        """The dimensions that these inputs, in the order of ``slots``, give. Raises ShapeError."""
        return self._solver.solve([array.shape for array in arrays], what)

    def failure(self, context: Context, status: int, where: str = "") -> GraphcError:
        """The error that a failed check of the program stands for."""

        def examined(check: int) -> object:
            return self._examine(check, self._values(context)) if self._examine is not None else None

        restored = self.store is not None and self.debug
        return failure(self.name, self.layout, context.words[:], context.dims, status, where, examined, restored)

    def _values(self, context: Context) -> dict[str, Array]:
        """Copies of all that a call read: its inputs, run-time scalars, weights and states."""
        found = {name: np.array(scalar) for name, scalar in self._scalars.arrays.items()}
        if self.store is not None:
            found |= {name: np.array(self.store[name]) for name in self.store.names()}
        for slot in self.slots:
            shape = tuple(evaluate(size, context.dims) for size in slot.shape)
            view = np.empty(shape, slot.numpy)
            ctypes.memmove(view.ctypes.data, context.words[slot.word], view.nbytes)
            found[slot.name] = view
        return found

    # Hyper-parameters

    @property
    def hyper(self) -> dict[str, Number]:
        """The defaults of the run-time scalars, a copy."""
        return self._scalars.defaults()

    def set_hyper(self, name: str, value: object) -> None:
        """Change a default. Raises DTypeError or ShapeError."""
        number = self._scalars.checked(f"{self.name}.hyper", name, value)
        with self.guard.alone():
            self._scalars.set_default(name, number)
            self._disarm()

    def _override(self, given: Mapping[str, object]) -> None:
        numbers = self._scalars.given(self.name, given)
        self._disarm()
        self._scalars.write(numbers)

    # The fast way in

    def make_fast(self, step: object, slow: Callable[..., object]) -> None:
        """Let calls of ``step`` run this program natively, in all unusual cases by way of ``slow``, a method of its.

        Where that cannot be, calls stay as they are.
        """
        if self.store is None or self.debug or not fastcall_text.fast_inputs(self.layout) or not fastcall.usable():
            return
        hypers = {name: int(array.ctypes.data) for name, array in self._scalars.arrays.items()}
        guard = ctypes.addressof(self.guard.words)
        self._fast = fastcall.make(self._native.addresses, self.layout, slow, guard, self._owned, hypers)
        vectorcall.aim(step, self._native.addresses[fastcall_text.SYMBOL])

    def _aim(self, fast: FastCall, context: Context, shapes: tuple[tuple[int, ...], ...]) -> None:
        fastcall.disarm(fast)
        self._aimed = context
        releases = context.call is self._released
        fastcall.aim(fast, self.layout, context.address, releases, shapes)

    def _disarm(self) -> None:
        self._aimed = None
        if self._fast is not None:
            fastcall.disarm(self._fast)

    @property
    def n_calls(self) -> int:
        """How often the program ran; a step of ``fit`` counts as one."""
        return self._n_calls + (fastcall.calls(self._fast) if self._fast is not None else 0)

    def count_calls(self, n: int) -> None:
        """Count calls made by the native loop."""
        self._n_calls += n

    # For the native epoch loop

    def epoch_entry(self) -> Entry:
        """The native epoch loop."""
        return _WITHOUT_LOCK(self._native.addresses[epoch.SYMBOL])

    def shuffle_entry(self) -> Callable[[int, int, int, int], None]:
        """The native shuffle."""
        return _SHUFFLE(self._native.addresses[epoch.SHUFFLE_SYMBOL])

    @contextmanager
    def native(self, contexts: Sequence[Context]) -> Iterator[Callable[[], None]]:
        """Hold the lock, contexts and hyper-parameters ready; gives what puts the weights back after a failure.

        Without ``debug`` that does nothing: a step that fails has written nothing.
        """
        with self.guard.alone():
            if self._busy:
                raise UsageError(f"{self.name}: called from within a call of itself")
            try:
                self._busy = True
                if self._scalars.stale:
                    self._override({})
                while any(context.arena is not self._arena for context in contexts):
                    for context in contexts:
                        self.point(context)
                saved = self.store.snapshot() if self.debug and self.store is not None else None
                yield lambda: self.store.restore(saved) if saved is not None and self.store is not None else None
            finally:
                self._busy = False

    def address(self, array: Array) -> int:
        """The address of an array's first element."""
        return self._address_of(array)

    def owns(self, array: Array) -> bool:
        """Whether an array lies in the memory of weights and states."""
        return self._address_of(array) in self._owned


def _key(dims: Mapping[str, int]) -> tuple[int, ...]:
    return tuple(dims.values())  # a program's dimensions come in one order
