"""What a compiled program is called with: its dimensions, buffers, arena slots, checks and results. Plain data.

The native entry is ``i32 @step(ptr %ctx)``. The context is an array of 8-byte words, in this order:

====================  =====================================================================================
``CHECK``             number of the check that failed (written by the program before it returns nonzero)
``POSITION``          flat position of the offending value in the tensor that was checked
``VALUE``             the offending value, as i64
``TEAM``              address of the threads that may share the call (``llvm/team.py``), 0 for none
``FAILED``            written by the program: what it will return
``ALONE``             written by the program: what a call takes on one thread, in turns of the machine's counter
``REST``              written by the program: how many calls to come run on one thread; below 0, how many did not
``ALWAYS``            1 for a caller that wants the team whatever it takes
``CREDIT``            written by the program: what the team may lose before it rests, in turns of the counter
``RESERVE``           written by the program: what it may lose in stalls, in turns (``llvm/judge.py``)
one word a dim        the size, i64, in the order of ``Layout.dims``
one word a buffer     its address, in the order of ``Layout.buffers``
====================  =====================================================================================

It returns 0, or the failed check's number plus one with nothing persistent written. Addresses of params, states,
counts, hypers and of everything in the arena are multiples of 64; an input is aligned to its element only. Only the
bytes of a buffer's own elements may be written.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import cast

from graphc.errors import InternalError
from graphc.graph.dtypes import DTYPES, DType
from graphc.graph.sizes import SizeLike, evaluate, names, parse_size
from graphc.kernels.arena import Arena
from graphc.structs import dataclass, fields

WORD_CHECK, WORD_POSITION, WORD_VALUE, WORD_TEAM, WORD_FAILED, WORD_ALONE, WORD_REST, WORD_ALWAYS = range(8)
WORD_CREDIT, WORD_RESERVE = 8, 9
FIRST_DIM_WORD = 10

ROLES = ("input", "hyper", "param", "state", "count", "output", "temp")
IN_ARENA = frozenset({"output", "temp"})
PERSISTENT = frozenset({"param", "state", "count"})
RESULT_KINDS = ("loss", "tensor", "list", "dict")
CHECK_KINDS = ("index", "nonfinite")

Shape = tuple[SizeLike, ...]


@dataclass(frozen=True, slots=True)
class Buffer:
    """A row-major array that the program reads or writes.

    role: "input" (the caller's array), "hyper" (rank 0, ``default`` unless the call overrides it), "param" and "state"
    (persistent, exchanged between calls), "count" (persistent int64 of rank 0, the steps done; the program increments
    it), "output" and "temp" (in the arena at ``slot``, an index in ``Layout.arena.slots``; buffers may share a slot).
    source: the user's own line of the declaration, for messages. Constants are globals of the module, not buffers.
    """

    name: str
    role: str
    dtype: DType
    shape: Shape = ()
    slot: int = -1
    default: bool | int | float | None = None
    source: str = ""


@dataclass(frozen=True, slots=True)
class Check:
    """A run-time check: the error raised where it fails.

    message: may hold ``{value}``, ``{position}`` and ``{bound}``. bound: the size that an index must stay
    below, 1 where none applies. kind: "index" (IndexRangeError) or "nonfinite" (NonFiniteError; ``{value}`` is then the
    float64 whose bits the value word holds). source: the user's own line.
    """

    message: str
    bound: SizeLike = 1
    source: str = ""
    kind: str = "index"


@dataclass(frozen=True, slots=True)
class Results:
    """What a call gives back, as names of buffers.

    kind "loss": the float in buffer ``loss``, with a dict of ``outputs`` (key, buffer) beside it where there are any;
    "tensor": the one output; "list": the outputs in order; "dict": by key. recorded: (parameter, buffer) of the squared
    norm of each gradient, which no call gives back and ``fit`` averages.
    """

    kind: str
    loss: str = ""
    outputs: tuple[tuple[str, str], ...] = ()
    recorded: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Layout:
    """All that a caller of the compiled program must know.

    dims: the symbolic dimensions. cost_ns: predicted time of one call. batch_dim: the dimension by which ``fit`` slices
    ("" where no input leads with one). symbol: the native entry. unread: inputs that a call may give, which are checked
    and not read; the text of a layout is without them.
    """

    dims: tuple[str, ...]
    buffers: tuple[Buffer, ...]
    arena: Arena
    results: Results
    checks: tuple[Check, ...] = ()
    cost_ns: SizeLike = 0
    batch_dim: str = ""
    symbol: str = "step"
    unread: tuple[Buffer, ...] = ()

    def to_json(self) -> str:
        """The layout as JSON text, sizes as text; ``from_json`` reads it back."""
        return json.dumps(self, default=_plain, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Layout:
        """The layout that ``to_json`` wrote. Raises InternalError for any other text.

        >>> x = Buffer("x", "input", DTYPES["float32"], (parse_size("N"), 3))
        >>> layout = Layout(("N",), (x,), Arena(), Results("list"))
        >>> Layout.from_json(layout.to_json()) == layout
        True
        """
        try:
            return _read(json.loads(text))
        except (KeyError, TypeError, ValueError) as error:
            raise InternalError(f"layout: cannot read the text of a layout: {error}") from error

    def index(self, name: str) -> int:
        """The number of the buffer called ``name``. Raises KeyError for an unknown one."""
        for number, buffer in enumerate(self.buffers):
            if buffer.name == name:
                return number
        raise KeyError(name)

    def n_words(self) -> int:
        """The length of a context in words."""
        return FIRST_DIM_WORD + len(self.dims) + len(self.buffers)

    def dim_word(self, number: int) -> int:
        """The word that holds dimension ``number``."""
        return FIRST_DIM_WORD + number

    def buffer_word(self, number: int) -> int:
        """The word that holds the address of buffer ``number``."""
        return FIRST_DIM_WORD + len(self.dims) + number


def buffer_bytes(buffer: Buffer, dims: Mapping[str, int]) -> int:
    """The bytes of a buffer's elements for the given dimensions."""
    total = buffer.dtype.itemsize
    for size in buffer.shape:
        total *= evaluate(size, dims)
    return total


def verify(layout: Layout) -> None:
    """Nothing, where the layout is well-formed: names unique, roles known, slots and results refer to what exists.

    Raises: InternalError naming the first fault.
    """
    seen: dict[str, Buffer] = {}
    for buffer in layout.buffers:
        where = f"layout: buffer {buffer.name!r}"
        if buffer.name in seen:
            raise InternalError(f"{where}: the name occurs twice")
        seen[buffer.name] = buffer
        if buffer.role not in ROLES:
            raise InternalError(f"{where}: unknown role {buffer.role!r}")
        if (buffer.role in IN_ARENA) != (buffer.slot >= 0) or buffer.slot >= len(layout.arena.slots):
            raise InternalError(f"{where}: role {buffer.role} with slot {buffer.slot} of {len(layout.arena.slots)}")
        if buffer.role in ("hyper", "count") and buffer.shape:
            raise InternalError(f"{where}: a {buffer.role} has rank 0, not shape {buffer.shape}")
        if buffer.role == "hyper" and buffer.default is None:
            raise InternalError(f"{where}: a hyper-parameter needs a default")
        _known_dims(where, buffer.shape, layout.dims)
    for number, lower in enumerate(layout.arena.below):
        if not all(0 <= k < number for k in lower):
            raise InternalError(f"layout: slot {number} lies above {lower}; needs earlier ones")
    _known_dims("layout: slots", layout.arena.slots, layout.dims)
    _known_dims("layout: checks", tuple(check.bound for check in layout.checks), layout.dims)
    _known_dims("layout: cost_ns", (layout.cost_ns,), layout.dims)
    if layout.results.kind not in RESULT_KINDS:
        raise InternalError(f"layout: unknown kind of result {layout.results.kind!r}")
    wanted = [name for _, name in (*layout.results.outputs, *layout.results.recorded)]
    wanted += [layout.results.loss] if layout.results.loss else []
    for name in wanted:
        if name not in seen:
            raise InternalError(f"layout: result {name!r} is not a buffer")
    if (layout.results.kind == "loss") != bool(layout.results.loss):
        raise InternalError("layout: a loss goes with results of kind 'loss' alone")


def _known_dims(where: str, sizes: Sequence[SizeLike], dims: tuple[str, ...]) -> None:
    for size in sizes:
        for name in names(size):
            if name not in dims:
                raise InternalError(f"{where}: dimension {name} is not one of {', '.join(dims) or 'none'}")


def _plain(value: object) -> object:
    if isinstance(value, (Layout, Buffer, Check, Results, Arena)):
        return {name: getattr(value, name) for name in fields(value) if name != "unread"}
    return str(value)  # a size or a dtype


def _read(data: Mapping[str, object]) -> Layout:
    known: dict[str, SizeLike] = {}

    def size(value: object) -> SizeLike:
        if isinstance(value, int):
            return value
        text = str(value)
        if text not in known:
            known[text] = parse_size(text)
        return known[text]

    def rows(value: object) -> list[dict[str, object]]:
        return cast("list[dict[str, object]]", value)

    def items(value: object) -> list[object]:
        return cast("list[object]", value)

    buffers = tuple(
        Buffer(
            str(row["name"]),
            str(row["role"]),
            DTYPES[str(row["dtype"])],
            tuple(map(size, items(row["shape"]))),
            cast(int, row["slot"]),
            cast("bool | int | float | None", row["default"]),
            str(row["source"]),
        )
        for row in rows(data["buffers"])
    )
    checks = tuple(
        Check(str(row["message"]), size(row["bound"]), str(row["source"]), str(row["kind"]))
        for row in rows(data["checks"])
    )
    results, arena = cast("dict[str, object]", data["results"]), cast("dict[str, object]", data["arena"])
    outputs, recorded = (
        tuple((str(key), str(name)) for key, name in cast("list[tuple[str, str]]", results[field]))
        for field in ("outputs", "recorded")
    )
    return Layout(
        tuple(map(str, items(data["dims"]))),
        buffers,
        Arena(
            tuple(map(size, items(arena["slots"]))),
            tuple(tuple(lower) for lower in cast("list[list[int]]", arena["below"])),
            tuple(cast("list[int]", arena["private"])),
        ),
        Results(str(results["kind"]), str(results["loss"]), outputs, recorded),
        checks,
        size(data["cost_ns"]),
        str(data["batch_dim"]),
        str(data["symbol"]),
    )
