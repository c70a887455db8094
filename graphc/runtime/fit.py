"""Training for whole epochs: native chunks of about 25 ms, and between them signals and the progress bar."""

from __future__ import annotations

import ctypes
import hashlib
import math
import time
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from graphc.errors import InputError, ShapeError, UsageError
from graphc.graph.sizes import evaluate
from graphc.runtime import epoch
from graphc.runtime.arguments import Array, gather
from graphc.runtime.history import History
from graphc.runtime.memory import zeroed
from graphc.runtime.program import Context, Program
from graphc.runtime.spread import Spread, spread_of
from graphc.structs import dataclass, field

_CHUNK_S = 0.025
_REDRAW_S = 0.07  # with the chunk's 25 ms, the bar is redrawn within 100 ms
_MOST_GROWTH = 16
_STEP_BLOCK = 1 << 22  # losses kept in one piece: 32 MB, of which the system gives only what is written
_EPOCH_BLOCK = 1 << 16  # epochs whose means are kept natively before they are taken over
_MOST_MEANS = 1 << 20  # numbers among those
_SHUFFLE_BLOCK = 1 << 20  # rows shuffled in one go, some 20 ms where they are far beyond the cache

Doubles = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class FitOptions:
    """How to train; ``seed`` is any text, hashed."""

    batch_size: int
    epochs: int
    shuffle: bool
    until: float | None
    progress: bool
    seed: str


@dataclass(slots=True)
class _Record:
    """What is gathered while training. ``steps`` holds full pieces; the last one is filled to ``used``."""

    losses: list[float] = field(default_factory=list)
    steps: list[Doubles] = field(default_factory=list)
    used: int = 0
    outputs: dict[str, list[Doubles]] = field(default_factory=dict)
    validation: list[float] = field(default_factory=list)
    norms: dict[str, list[Doubles]] = field(default_factory=dict)
    weights: dict[str, list[Spread]] = field(default_factory=dict)

    def room(self, wanted: int, left: int) -> Doubles:
        """Where the next losses go: up to ``wanted`` of the ``left`` that are to come, at least one."""
        if not self.steps or self.used == self.steps[-1].size:
            self.steps.append(np.empty(min(left, _STEP_BLOCK)))
            self.used = 0
        return self.steps[-1][self.used : self.used + wanted]

    def step_losses(self) -> Doubles:
        """All of them; one piece that is mostly used is handed out as it is."""
        if not self.steps:
            return np.empty(0)
        last = self.steps[-1][: self.used]
        if len(self.steps) == 1 and 2 * last.size >= self.steps[-1].size:
            return last
        return np.concatenate([*self.steps[:-1], last])


def train(
    program: Program,
    data: Mapping[str, object],
    options: FitOptions,
    validation: Mapping[str, object] | None = None,
    forward: Program | None = None,
) -> History:
    """Train ``program`` on ``data``; ``forward`` gives the loss alone, for ``validation``.

    Raises: InputError, ShapeError, DTypeError before the first step; a program's own failure with epoch and step.
    """
    _check_options(program, options)
    plan = _Plan(program, data, options)
    judge = _judge(program, forward, validation, options.batch_size)
    record = _Record()
    started = time.perf_counter()
    try:
        if options.epochs:
            _loop(plan, options, judge, record)
    finally:
        plan.close()
    outputs = {key: np.concatenate(rows) for key, rows in record.outputs.items()}
    norms = {name: np.sqrt(np.concatenate(rows)) for name, rows in record.norms.items()}
    seconds = time.perf_counter() - started
    return History(record.losses, record.step_losses(), outputs, record.validation, seconds, norms, record.weights)


def _check_options(program: Program, options: FitOptions) -> None:
    for name, value, least in (("batch_size", options.batch_size, 1), ("epochs", options.epochs, 0)):
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
            raise InputError(f"step.fit: {name}={value!r} given; needs an integer of at least {least}")
    for name, switch in (("shuffle", options.shuffle), ("progress", options.progress)):
        if not isinstance(switch, (bool, np.bool_)):
            raise InputError(f"step.fit: {name}={switch!r} given; needs True or False")
    numbers = (int, float, np.integer, np.floating)
    if options.until is not None and (isinstance(options.until, bool) or not isinstance(options.until, numbers)):
        raise InputError(f"step.fit: until={options.until!r} given; needs a number or None")
    if not program.sliced:
        stray = epoch.unsliceable(program.layout)
        why = f"input {stray!r} has the batch elsewhere than as its first axis" if stray else "no input begins with it"
        raise UsageError(f"step.fit: needs inputs whose first axis is one symbolic dimension, the batch: {why}")


def _taken(program: Program, data: object, what: str) -> list[Array]:
    """The data as arrays in the order of the program's inputs, none of them the weights' own memory."""
    if not isinstance(data, Mapping):
        raise InputError(f"{what}: {type(data).__name__} given; needs a dict with an array for each input")
    arrays = gather(what, program.slots, data)
    return [array.copy() if program.owns(array) else array for array in arrays]


class _Plan:
    """Everything that the native loop reads, kept alive; the words of ``run``."""

    def __init__(self, program: Program, data: Mapping[str, object], options: FitOptions) -> None:
        layout = program.layout
        self.program = program
        self.arrays = _taken(program, data, "step.fit")
        dims = program.dims_of(self.arrays, "step.fit")
        self.n_rows = dims[layout.batch_dim]
        rows = min(int(options.batch_size), self.n_rows)
        n_full, tail = divmod(self.n_rows, rows)
        self.n_steps = n_full + bool(tail)
        self.inputs, self.outputs = program.sliced, program.averaged
        self.order = np.arange(self.n_rows) if options.shuffle else np.empty(0, np.int64)
        self.recorded = [name for name, _ in layout.results.recorded]
        self.shuffles_here = options.shuffle and self.n_rows > _SHUFFLE_BLOCK
        self.full = program.take({**dims, layout.batch_dim: rows})
        self.tail = program.take({**dims, layout.batch_dim: tail}) if tail else self.full
        self.budget = _first_budget(evaluate(layout.cost_ns, self.full.dims))
        self.sums, self.means = self._averages(dims)
        self.block = min(_EPOCH_BLOCK, int(options.epochs), *(len(mean) for mean in self.means))
        self.epoch_losses = np.empty(self.block)
        self.staging: list[Array] = []
        values = {
            "n_full": n_full, "n_steps": self.n_steps, "rows": rows, "tail_rows": tail, "n_rows": self.n_rows,
            "order": self.address(self.order) if options.shuffle else 0,
            "shuffles": options.shuffle and not self.shuffles_here, "random": _random_state(options.seed),
            "context": self.full.address, "tail_context": self.tail.address,
            "epoch_losses": self.address(self.epoch_losses),
        }  # fmt: skip
        words = [*(values.get(name, 0) for name in epoch.WORDS), *self._fed(rows, dims), *self._averaged()]
        self.words = (ctypes.c_int64 * len(words))(*words)
        self.address_of_words = ctypes.addressof(self.words)
        until = math.nan if options.until is None else float(options.until)
        ctypes.c_double.from_buffer(self.words, 8 * epoch.word("until")).value = until

    def close(self) -> None:
        """Hand the contexts on to the next training."""
        for context in {id(context): context for context in (self.full, self.tail)}.values():
            self.program.put_back(context)

    def address(self, array: Array) -> int:
        return self.program.address(array)

    def set(self, name: str, value: int) -> None:
        self.words[epoch.word(name)] = value

    def get(self, name: str) -> int:
        return self.words[epoch.word(name)]

    def _fed(self, rows: int, dims: Mapping[str, int]) -> list[int]:
        """The words of the sliced inputs: where the rows come from and where a batch of them is gathered.

        Inputs that are not sliced are pointed to once, by the contexts.
        """
        layout, slots = self.program.layout, self.program.slots
        by_word = {slot.word: array for slot, array in zip(slots, self.arrays, strict=True)}
        words: list[int] = []
        for item in self.inputs:
            buffer = layout.buffers[item.buffer]
            row_bytes = item.row_bytes
            if row_bytes is None:
                row_bytes = math.prod([buffer.dtype.itemsize, *(evaluate(size, dims) for size in buffer.shape[1:])])
            source = by_word.pop(layout.buffer_word(item.buffer))
            if self.order.size:
                self.staging.append(zeroed(rows * row_bytes))
            words += [self.address(source), self.address(self.staging[-1]) if self.order.size else 0, row_bytes]
        for word, array in by_word.items():
            self.full.words[word] = self.tail.words[word] = self.address(array)
        return words

    def _averages(self, dims: Mapping[str, int]) -> tuple[list[Doubles], list[Doubles]]:
        """The sums over an epoch of each output, and the means of as many epochs as are kept natively."""
        buffers = self.program.layout.buffers
        declared = [epoch.averaged_shape(buffers[item.buffer], item.by_row) for item in self.outputs]
        sums = [np.zeros(tuple(evaluate(size, dims) for size in shape)) for shape in declared]
        most = max(1, min(_EPOCH_BLOCK, _MOST_MEANS // max(1, sum(s.size for s in sums))))
        return sums, [np.empty((most, *s.shape)) for s in sums]

    def _averaged(self) -> list[int]:
        """The words of the averaged outputs."""
        pairs = zip(self.sums, self.means, strict=True)
        return [word for total, mean in pairs for word in (total.size, self.address(total), self.address(mean))]


def _first_budget(step_ns: int) -> int:
    """Steps of the first native call: as many as would take a chunk, were they sixteen times slower than predicted."""
    return max(1, int(_CHUNK_S * 1e9 / (_MOST_GROWTH * step_ns))) if step_ns else 1


def _random_state(seed: str) -> int:
    return int.from_bytes(hashlib.sha256(seed.encode()).digest()[:8], "little", signed=True)


def _loop(plan: _Plan, options: FitOptions, judge: Callable[[], float] | None, record: _Record) -> None:
    left = int(options.epochs)
    total = left * plan.n_steps
    bar = _Bar(total) if options.progress else None
    try:
        stopped = False
        while left and not stopped:
            block = min(left, plan.block)
            stopped = _run_block(plan, block, judge, record, bar, int(options.epochs))
            left -= block
    finally:
        if bar is not None:
            bar.close()


def _run_block(
    plan: _Plan, n_epochs: int, judge: Callable[[], float] | None, record: _Record, bar: _Bar | None, of: int
) -> bool:
    """Train for some epochs; whether ``until`` was met."""
    plan.set("epoch", 0)
    plan.set("step", 0)
    plan.set("n_epochs", n_epochs)
    plan.set("pauses", judge is not None or plan.shuffles_here or bool(plan.recorded))
    entry = plan.program.epoch_entry()
    before, seen, taken = len(record.losses), 0, 0
    while True:
        if plan.shuffles_here and plan.get("step") == 0:
            _shuffle(plan)
        left = (of - before) * plan.n_steps - taken
        losses = record.room(1 if plan.program.debug else plan.budget, left)
        plan.set("budget", losses.size)
        plan.set("step_losses", plan.address(losses))
        began = time.perf_counter()
        status, context = _run_chunk(plan, entry)
        spent = time.perf_counter() - began
        done, ended = plan.get("done"), plan.get("epoch")
        record.used += done
        taken += done
        if status:
            where = f" (step.fit: epoch {before + ended + 1} of {of}, step {plan.get('step') + 1} of {plan.n_steps})"
            raise plan.program.failure(context, status, where)
        if ended > seen:
            _take_epochs(plan, seen, ended, record)
            seen = ended
            _take_weights(plan, record)
            if judge is not None:
                record.validation.append(judge())
        if bar is not None:
            shown = losses[done - 1] if not record.losses else record.losses[-1]
            bar.set_postfix_str(f"epoch {min(before + ended + 1, of)}/{of}, loss {shown:.4g}", refresh=False)
            bar.update(done)
        if done:
            wanted = max(1.0, done * _CHUNK_S / max(spent, 1e-9))
            plan.budget = int(min(wanted, plan.budget * _MOST_GROWTH))
        if plan.get("stopped") or ended == n_epochs:
            return bool(plan.get("stopped"))


def _run_chunk(plan: _Plan, entry: Callable[[int], int]) -> tuple[int, Context]:
    """One native call: its status and the context of the step that it ended with. The store is free between chunks."""
    program = plan.program
    with program.native([plan.full, plan.tail]) as undo:
        plan.set("done", 0)
        try:
            status = entry(plan.address_of_words)
        finally:
            program.count_calls(plan.get("done"))
        if status:
            undo()
    return status, plan.full if plan.get("step") < plan.get("n_full") else plan.tail


def _take_epochs(plan: _Plan, first: int, last: int, record: _Record) -> None:
    record.losses.extend(plan.epoch_losses[first:last].tolist())
    for item, means in zip(plan.outputs, plan.means, strict=True):
        kept = record.norms if item.recorded else record.outputs
        kept.setdefault(item.key, []).append(means[first:last].copy())


def _take_weights(plan: _Plan, record: _Record) -> None:
    """Note how the weights are spread now, where that is recorded."""
    for name in plan.recorded:
        assert plan.program.store is not None  # a step that records has one
        record.weights.setdefault(name, []).append(spread_of(plan.program.store[name]))


def _shuffle(plan: _Plan) -> None:
    """Shuffle many rows, in pieces between which a signal is answered."""
    shuffle = plan.program.shuffle_entry()
    state = plan.address_of_words + 8 * epoch.word("random")
    for first in range(0, plan.n_rows, _SHUFFLE_BLOCK):
        shuffle(plan.address(plan.order), first, min(first + _SHUFFLE_BLOCK, plan.n_rows), state)


def _judge(
    program: Program, forward: Program | None, data: Mapping[str, object] | None, batch_size: int
) -> Callable[[], float] | None:
    """A function that gives the mean loss a sample on the validation data; all of it is checked here."""
    if data is None or forward is None:
        return None
    what = "step.fit: validation"
    if isinstance(data, Mapping):
        known = {slot.name for slot in forward.slots}
        trained = {slot.name for slot in program.slots}
        data = {name: value for name, value in data.items() if name in known or name not in trained}
    arrays = _taken(forward, data, what)
    batch_dim = program.layout.batch_dim
    dims = forward.dims_of(arrays, what)
    if batch_dim not in dims:
        raise ShapeError(f"{what}: the loss does not depend on the batch")
    n_rows = dims[batch_dim]
    along = {slot.name for slot in forward.slots if slot.shape and str(slot.shape[0]) == batch_dim}
    names = [slot.name for slot in forward.slots]

    def mean_loss() -> float:
        total = 0.0
        for first in range(0, n_rows, batch_size):
            rows = slice(first, min(first + batch_size, n_rows))
            batch = {name: a[rows] if name in along else a for name, a in zip(names, arrays, strict=True)}
            loss = forward.run(batch, lambda context: float(context.outputs[0][1]))
            total += loss * (rows.stop - rows.start)
        return total / n_rows

    return mean_loss


class _Bar:
    """A tqdm bar without the helper thread that tqdm starts for bars of its own pace."""

    def __init__(self, total: int) -> None:
        from tqdm import tqdm

        class Bar(tqdm):  # type: ignore[misc]  # tqdm has no types
            monitor_interval = 0

        self._bar = Bar(total=total, unit="step", mininterval=_REDRAW_S, miniters=1, dynamic_ncols=True, smoothing=0.05)
        self.set_postfix_str = self._bar.set_postfix_str
        self.update = self._bar.update
        self.close = self._bar.close
