"""Where a step's time goes: each kernel timed inside the step, beside the roofline.

The step is compiled a second time with the machine's counter read behind its kernels (``llvm/counters.py``); these run
as they do in training, one after the other with the caches as they are then, on a copy of the weights. Reading the
counter takes some 10 ns and hinders the processor from working on two kernels at once. So kernels that take less than
2 us are timed together, and what each of them takes is a share of that: in proportion to what each took when all were
read. The same step without counters runs in turns with it, which says what the counters cost.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from html import escape

import numpy as np
from numpy.typing import NDArray

from graphc.errors import UsageError
from graphc.graph.sizes import evaluate
from graphc.inspect.bench import Machine, called, machine
from graphc.kernels.cost import KernelCost
from graphc.kernels.layout import PERSISTENT, Layout, buffer_bytes
from graphc.kernels.told import Told
from graphc.llvm.counters import COUNTERS, NOW, TIMED, WANTED_WORD, timing_text
from graphc.llvm.target import host
from graphc.runtime.curve import svg_start
from graphc.runtime.jit import Native, compile_objects, load
from graphc.runtime.program import Context, Program
from graphc.structs import dataclass

GROUP_S = 2e-6  # kernels that take less are timed together
_ROUNDS = 12  # in each both programs run, from the same weights
_MOST_CALLS = 4000  # in a round
_LEAST_S = 5e-8  # a time below has no ratio to its floor
_WARM = 2  # calls at the beginning of a round that do not count

Ints = NDArray[np.int64]
Doubles = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class KernelTime:
    """A kernel: what it computes, its seconds in a step, its operations and bytes, the least time for them on this
    machine, whether operations or bytes decide that. group: the number of the group that it was timed with, -1 where it
    was timed alone."""

    name: str
    told: Told
    seconds: float
    operations: int
    n_bytes: int
    floor: float
    bound: str
    group: int = -1


@dataclass(frozen=True, slots=True)
class Profile:
    """The kernels of a step in the order they run.

    step: seconds of a call of the step as it is. counted: of one with counters, which is all kernels and ``rest``, what
    lies outside them (entering, leaving, calling a team). Of a team these are the times of its first member, with what
    it waits for the others. calls: how many were taken of each; times are means over the
    quicker half of them. threads: the most that a call used.
    """

    what: str
    dims: Mapping[str, int]
    threads: int
    calls: int
    kernels: tuple[KernelTime, ...]
    step: float
    counted: float
    rest: float
    machine: Machine

    @property
    def total(self) -> float:
        """Seconds of all kernels together."""
        return sum(kernel.seconds for kernel in self.kernels)

    @property
    def overhead(self) -> float:
        """What the counters add to a step, as a part of it."""
        return self.counted / self.step - 1

    def __str__(self) -> str:
        return _text(self)

    __repr__ = __str__

    @property
    def svg(self) -> str:
        """A bar a kernel, as long as it takes; the full colour is the part that the roofline leaves no way around."""
        return _svg(self)

    def _repr_html_(self) -> str:
        """What a notebook shows: the bars, and the table beneath."""
        return f'{self.svg}<pre style="line-height: 1.2">{escape(str(self))}</pre>'


def grouped(seconds: Sequence[float]) -> list[list[int]]:
    """The kernels that are timed together: neighbours that take less than 2 us each, until they take that together.

    >>> grouped([5e-6, 1e-6, 0.5e-6, 1e-6, 0.1e-6, 3e-6])
    [[0], [1, 2, 3], [4], [5]]
    """
    groups: list[list[int]] = []
    full = True
    for k, own in enumerate(seconds):
        if own >= GROUP_S or full:
            groups.append([])
        groups[-1].append(k)
        full = sum(seconds[j] for j in groups[-1]) >= GROUP_S
    return groups


def profile(
    plain: Program,
    counted: Program,
    restore: Callable[[], object],
    given: Mapping[str, object],
    rows: Sequence[tuple[KernelCost, Told]],
    seconds: float,
) -> Profile:
    """Times the kernels of ``counted`` for about ``seconds``.

    plain: the same program without counters. restore: puts the weights of both back. rows: of each kernel.

    Raises: UsageError where no time is given; what a call raises for ``given``, or where it fails.
    """
    if not seconds > 0:
        raise UsageError(f"profile: {seconds} s given; needs a time above 0")
    n = len(rows)
    words = np.ctypeslib.as_array((ctypes.c_int64 * (WANTED_WORD + 2 * n)).from_address(counted.symbol(COUNTERS)))
    own, measured = _Timed(plain, given), _Timed(counted, given, words[WANTED_WORD + n :])
    wanted = words[WANTED_WORD : WANTED_WORD + n]
    began, first = time.perf_counter_ns(), _now()
    restore()
    turns = float(own.run(20).min())
    each = turns / max(_now() - first, 1) * (time.perf_counter_ns() - began) * 1e-9
    calls = max(3, min(_MOST_CALLS, int(seconds / (3 * _ROUNDS) / max(each, 1e-8))))
    wanted[:] = 1
    all_alone, all_read = _alternating(own, measured, restore, calls, _ROUNDS // 2)
    rate = (time.perf_counter_ns() - began) * 1e-9 / (_now() - first)
    alone, fine = _quiet(all_alone), _quiet(all_read)
    reading = min(max(float(fine[0] - alone[0]) / n, 0.0), float(fine[1:].min()))
    parts = np.maximum(fine[1:] - reading, 1e-3)
    groups = grouped([float(p) * rate for p in parts])
    wanted[:] = 0
    wanted[[group[-1] for group in groups]] = 1
    all_alone, all_read = _alternating(own, measured, restore, calls, _ROUNDS)
    rate = (time.perf_counter_ns() - began) * 1e-9 / (_now() - first)
    alone, read = _quiet(all_alone) * rate, _quiet(all_read) * rate
    times = np.zeros(n)
    numbers = [-1] * n
    for number, group in enumerate(groups):
        share = parts[group] / parts[group].sum()
        times[group] = read[1 + group[-1]] * share
        if len(group) > 1:
            for k in group:
                numbers[k] = number
    dims = own.context.dims
    rates = machine(plain.layout, _working_set(plain, dims))
    members = own.context.team.size if own.context.team is not None else 1
    kernels = tuple(_kernel(row, what, float(t), g, rates, dims, members)
                    for (row, what), t, g in zip(rows, times, numbers, strict=True))  # fmt: skip
    rest = float(read[0] - times.sum())
    what = plain.name
    return Profile(what, dims, members, calls * _ROUNDS, kernels, float(alone[0]), float(read[0]), rest, rates)


class _Timed:
    """A program, ready to be called from a native loop. words: copied behind each call."""

    def __init__(self, program: Program, given: Mapping[str, object], words: Ints | None = None) -> None:
        self.context: Context
        self.context, self._inputs = program.ready(given)
        self._program = program
        self._words = words
        self._width = 0 if words is None else len(words)

    def run(self, n: int) -> Ints:
        """A row for each of ``n`` calls: its turns, and a copy of the words. Raises what a failed check stands for."""
        out = np.zeros((n, 1 + self._width), np.int64)
        words = 0 if self._words is None else self._words.ctypes.data
        program, context = self._program, self.context
        step = program.symbol(program.layout.symbol)
        status = _timing()[1](step, context.address, n, out.ctypes.data, words, self._width)
        if status:
            raise program.failure(context, status)
        return out


def _alternating(
    first: _Timed, second: _Timed, restore: Callable[[], object], calls: int, rounds: int
) -> tuple[Ints, Ints]:
    """The rows of both, in turns, so that what else the machine does meets both."""
    found: tuple[list[Ints], list[Ints]] = ([], [])
    for _ in range(rounds):
        for timed, rows in zip((first, second), found, strict=True):
            restore()
            rows.append(timed.run(calls + _WARM)[_WARM:])
    return np.concatenate(found[0]), np.concatenate(found[1])


def _quiet(rows: Ints) -> Doubles:
    """The mean of the quicker half of the rows: parts add up as they do in each, and what disturbed a call is out."""
    order = np.argsort(rows[:, 0], kind="stable")[: (len(rows) + 1) // 2]
    return np.asarray(rows[order].mean(axis=0), np.float64)


@cache
def _timing() -> tuple[Callable[[], int], Callable[[int, int, int, int, int, int], int], Native]:
    native = load(compile_objects([timing_text(host())], host()), [NOW, TIMED], host())
    number, pointer = ctypes.c_int64, ctypes.c_void_p
    now = ctypes.CFUNCTYPE(number)(native.addresses[NOW])
    kinds = (pointer, pointer, number, pointer, pointer, number)
    return now, ctypes.CFUNCTYPE(ctypes.c_int32, *kinds)(native.addresses[TIMED]), native


def _now() -> int:
    return _timing()[0]()


def _working_set(program: Program, dims: Mapping[str, int]) -> int:
    """Bytes that a step reads or writes: arena, weights, states and inputs."""
    layout: Layout = program.layout
    outside = [b for b in layout.buffers if b.role in (*PERSISTENT, "input")]
    return program.arena_bytes(dims) + sum(buffer_bytes(b, dims) for b in outside)


def _kernel(
    row: KernelCost, what: Told, seconds: float, group: int, rates: Machine, dims: Mapping[str, int], members: int
) -> KernelTime:
    operations, n_bytes = evaluate(row.operations, dims), evaluate(row.n_bytes, dims)
    by_operations, by_bytes = operations / rates.operations_per_s / members, n_bytes / rates.bytes_per_s / members
    bound = "operations" if by_operations >= by_bytes else "bytes"
    return KernelTime(row.name, what, seconds, operations, n_bytes, max(by_operations, by_bytes), bound, group)


def _text(profile: Profile) -> str:
    head = f"{called(profile.what, profile.dims, profile.threads)}: {profile.step * 1e6:,.2f} us"
    table = [("kernel", "us", "of all", "floor us", "x floor", "by", "computes")]
    total = profile.total
    for k in profile.kernels:
        mark = "~" if k.group >= 0 else ""
        times = f"{k.seconds / k.floor:,.1f}" if k.floor and k.seconds > _LEAST_S else ""
        table.append((k.name, f"{mark}{k.seconds * 1e6:,.2f}", f"{k.seconds / profile.counted:.1%}",
                      f"{k.floor * 1e6:,.2f}", times, k.bound, _computes(k.told)))  # fmt: skip
    table.append(("outside", f"{profile.rest * 1e6:,.2f}", f"{profile.rest / profile.counted:.1%}", "", "", "", ""))
    floor = sum(k.floor for k in profile.kernels)
    times = f"{profile.counted / floor:,.1f}" if floor else ""
    table.append(("all", f"{profile.counted * 1e6:,.2f}", "", f"{floor * 1e6:,.2f}", times, "", ""))
    widths = [max(len(row[c]) for row in table) for c in range(7)]
    left = (0, 5, 6)
    lines = [
        "  ".join(cell.ljust(w) if c in left else cell.rjust(w)
                  for c, (cell, w) in enumerate(zip(row, widths, strict=True))).rstrip()
        for row in table
    ]  # fmt: skip
    rates = profile.machine
    notes = [
        f"without counters a call takes {profile.step * 1e6:,.2f} us: they add {profile.overhead:+.1%}; the kernels' "
        f"times are {total / profile.step:.1%} of it ({profile.calls} calls of each)",
        f"floor: a core does {rates.operations_per_s / 1e9:,.1f} operations and moves {rates.bytes_per_s / 1e9:,.1f} "
        "bytes a nanosecond in as much memory as the step uses",
    ]
    if profile.threads > 1:
        notes.append(
            f"the kernels' times are those of the first of {profile.threads} threads; what it waits for the others "
            "counts to the kernel before which it waits"
        )
    if any(k.group >= 0 for k in profile.kernels):
        notes.append("~ timed with neighbours, all under 2 us: a share of what they take together")
    return "\n".join([head, *lines, *notes])


def _computes(told: Told) -> str:
    place = told.line.split(": ")[0].replace("\\", "/").rsplit("/", 1)[-1]
    return f"{told}  {place}" if place else str(told)


# The picture

_LEFT, _BAR, _RIGHT, _ROW, _TOP = 70, 380, 340, 20, 26
_COLOUR = "#0072b2"  # of Okabe and Ito's palette (2008)
_LONGEST = 52  # characters beside a bar; all of it is in its tooltip


def _svg(profile: Profile) -> str:
    width, height = _LEFT + _BAR + _RIGHT, _TOP + _ROW * len(profile.kernels) + 8
    longest = max((k.seconds for k in profile.kernels), default=0.0) or 1.0
    parts = [
        svg_start("profile", width, height),
        f'<text x="8" y="16">{escape(profile.what)}: {profile.step * 1e6:,.2f} us a call; full colour: the floor '
        "that this machine sets</text>",
    ]
    for n, k in enumerate(profile.kernels):
        y = _TOP + _ROW * n
        bar, floor = _BAR * k.seconds / longest, _BAR * min(k.floor, k.seconds) / longest
        shown = f"{k.seconds * 1e6:,.2f} us  {k.told}"
        label = shown if len(shown) <= _LONGEST else shown[: _LONGEST - 1] + "…"
        parts += [
            f"<g><title>{escape(f'{k.name}: {shown}; floor {k.floor * 1e6:,.2f} us by {k.bound}')}</title>",
            f'<text x="{_LEFT - 6}" y="{y + 13}" text-anchor="end">{escape(k.name)}</text>',
            f'<rect x="{_LEFT}" y="{y + 2}" width="{max(bar, 0.5):.1f}" height="{_ROW - 5}" fill="{_COLOUR}" '
            'fill-opacity="0.35"/>',
            f'<rect x="{_LEFT}" y="{y + 2}" width="{floor:.1f}" height="{_ROW - 5}" fill="{_COLOUR}"/>',
            f'<text x="{_LEFT + bar + 6:.1f}" y="{y + 13}">{escape(label)}</text></g>',
        ]
    return "".join(parts) + "</svg>"
