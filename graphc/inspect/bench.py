"""Timing a user's own step on drawn data, beside the roofline of this machine.

The roofline (Williams, Waterman and Patterson 2009): no step takes less time than its operations at the machine's peak
rate, nor less than its least traffic at the rate of memory. Both rates are measured here, by two loops that do nothing
else, on one core; a call that threads share has those of as many.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Mapping
from functools import cache

import numpy as np
from numpy.typing import NDArray

from graphc.errors import UsageError
from graphc.graph.graph import Array
from graphc.graph.sizes import evaluate
from graphc.kernels.cost import Cost
from graphc.kernels.layout import Layout
from graphc.llvm.target import Target, host
from graphc.runtime.jit import compile_objects, load
from graphc.structs import dataclass

SIZE = 32  # of a run-time dimension that nobody gave
BLOCKS = 12  # of calls; weights are as before at the start of each
PEAK_TURNS = 200_000
_CHAINS = 12  # of multiply-adds that do not wait for each other


@dataclass(frozen=True, slots=True)
class Machine:
    """Measured rates of one core: multiply-adds in the program's float type, counted as two operations each, and bytes
    read and written by ``a = b + s * c`` over arrays of the program's size."""

    operations_per_s: float
    bytes_per_s: float


@dataclass(frozen=True, slots=True)
class BenchReport:
    """What a step takes, and what it cannot go below.

    threads: that share a call. seconds: of each call; operations and n_bytes: of one call, the bytes being the least
    that must move (inputs read, outputs written, weights and states read and written once).
    """

    what: str
    dims: Mapping[str, int]
    threads: int
    seconds: NDArray[np.float64]
    operations: int
    n_bytes: int
    machine: Machine

    @property
    def floor(self) -> float:
        """The roofline's time of one call, in seconds."""
        return max(self._least_times)

    @property
    def _least_times(self) -> tuple[float, float]:
        """The least time for the operations, and that for the bytes."""
        each = self.operations / self.machine.operations_per_s, self.n_bytes / self.machine.bytes_per_s
        return each[0] / self.threads, each[1] / self.threads

    def __str__(self) -> str:
        low, median, high = (float(q) * 1e6 for q in np.percentile(self.seconds, (10, 50, 90)))
        by_operations, by_bytes = self._least_times
        bound = "operations" if by_operations >= by_bytes else "bytes"
        return "\n".join(
            [
                f"{called(self.what, self.dims, self.threads)}: {len(self.seconds)} calls",
                f"time        {median:,.2f} us (median; a tenth under {low:,.2f}, a tenth over {high:,.2f})",
                f"operations  {self.operations:,}, {self.operations / (median * 1e3):,.1f} a nanosecond; "
                f"a core does {self.machine.operations_per_s / 1e9:,.1f}",
                f"bytes       {self.n_bytes:,} at least; a core moves {self.machine.bytes_per_s / 1e9:,.1f} "
                "a nanosecond in arrays of that size",
                f"floor       {self.floor * 1e6:,.2f} us, by {bound}; the step takes {median / 1e6 / self.floor:,.1f} "
                "times that",
            ]
        )


def called(what: str, dims: Mapping[str, int], threads: int) -> str:
    """What was called, with which sizes, by how many threads.

    >>> called("step", {"N": 64}, 2)
    'step with N = 64 on up to 2 threads'
    """
    sizes = ", ".join(f"{name} = {value}" for name, value in dims.items())
    on = "one thread" if threads == 1 else f"up to {threads} threads"
    return f"{what}{' with ' + sizes if sizes else ''} on {on}"


def bench(
    what: str,
    call: Callable[[], object],
    restore: Callable[[], object],
    layout: Layout,
    cost: Cost,
    dims: Mapping[str, int],
    threads: int,
    seconds: float,
) -> BenchReport:
    """Times ``call`` for about ``seconds``, in blocks; ``restore`` puts weights back before each. threads: that share
    a call.

    Raises: UsageError where no time is given.
    """
    if not seconds > 0:
        raise UsageError(f"bench: {seconds} s given; needs a time above 0")
    call()
    started = time.perf_counter()
    call()
    each = time.perf_counter() - started
    n = max(3, min(20_000, int(seconds / BLOCKS / max(each, 1e-7))))
    times = np.empty((BLOCKS, n))
    clock = time.perf_counter_ns
    for block in times:
        restore()
        call()  # what was put back is in memory that the first call reads
        for k in range(n):
            before = clock()
            call()
            block[k] = clock() - before
    n_bytes = _least_bytes(layout, dims)
    rates = machine(layout, n_bytes)
    operations = int(evaluate(cost.operations, dims))
    return BenchReport(what, dict(dims), threads, times.ravel() / 1e9, operations, n_bytes, rates)


def machine(layout: Layout, n_bytes: int) -> Machine:
    """The measured rates of one core for a program's type, and for arrays of so many bytes."""
    wide = any(b.dtype.name == "float64" for b in layout.buffers)
    return Machine(_peak("double" if wide else "float"), _triad(n_bytes))


def _least_bytes(layout: Layout, dims: Mapping[str, int]) -> int:
    passes = {"input": 1, "hyper": 1, "output": 1, "param": 2, "state": 2, "count": 2}
    total = 0
    for buffer in layout.buffers:
        size = int(np.prod([evaluate(s, dims) for s in buffer.shape], dtype=np.int64))
        total += passes.get(buffer.role, 0) * size * buffer.dtype.itemsize
    return total


@cache
def _loops() -> dict[str, Callable[..., object]]:
    target = host()
    native = load(compile_objects([_text(target)], target), ["peak_float", "peak_double", "triad"], target)
    number, pointer = ctypes.c_int64, ctypes.c_void_p
    made: dict[str, Callable[..., object]] = {"keep": lambda: native}
    for name, address in native.addresses.items():
        kinds = [number, pointer] if name.startswith("peak") else [number, pointer, pointer, pointer]
        made[name] = ctypes.CFUNCTYPE(None, *kinds)(address)
    return made


def _text(target: Target) -> str:
    parts = [_peak_text(name, max(target.vector_bits, 128) // bits) for name, bits in (("float", 32), ("double", 64))]
    return "\n".join([*parts, _TRIAD])


def _peak_text(scalar: str, lanes: int) -> str:
    """A loop of multiply-adds in registers, as many in flight as hide their latency."""
    vector, kind = f"<{lanes} x {scalar}>", f"v{lanes}f{32 if scalar == 'float' else 64}"
    each = range(_CHAINS)
    phis = [f"  %a{k} = phi {vector} [ %x, %start ], [ %b{k}, %turn ]" for k in each]
    steps = [f"  %b{k} = call {vector} @llvm.fma.{kind}({vector} %a{k}, {vector} %x, {vector} %x)" for k in each]
    sums = [f"  %s{k} = fadd {vector} %{'b0' if k == 1 else f's{k - 1}'}, %b{k}" for k in each if k]
    return "\n".join(
        [
            f"declare {vector} @llvm.fma.{kind}({vector}, {vector}, {vector})",
            f"define void @peak_{scalar}(i64 %n, ptr %p) {{",
            "start:",
            f"  %x = load {vector}, ptr %p",
            "  br label %turn",
            "turn:",
            "  %i = phi i64 [ 0, %start ], [ %next, %turn ]",
            *phis,
            *steps,
            "  %next = add i64 %i, 1",
            "  %more = icmp slt i64 %next, %n",
            "  br i1 %more, label %turn, label %end",
            "end:",
            *sums,
            f"  store {vector} %s{_CHAINS - 1}, ptr %p",
            "  ret void",
            "}",
        ]
    )


_TRIAD = """
define void @triad(i64 %n, ptr %a, ptr %b, ptr %c) {
start:
  br label %turn
turn:
  %i = phi i64 [ 0, %start ], [ %next, %turn ]
  %pb = getelementptr float, ptr %b, i64 %i
  %pc = getelementptr float, ptr %c, i64 %i
  %pa = getelementptr float, ptr %a, i64 %i
  %vb = load <16 x float>, ptr %pb, align 64
  %vc = load <16 x float>, ptr %pc, align 64
  %half = fmul <16 x float> %vc, splat (float 0.5)
  %sum = fadd <16 x float> %vb, %half
  store <16 x float> %sum, ptr %pa, align 64
  %next = add i64 %i, 16
  %more = icmp slt i64 %next, %n
  br i1 %more, label %turn, label %end
end:
  ret void
}
"""


@cache
def _peak(scalar: str) -> float:
    """Operations a second of multiply-adds."""
    vector_bits = max(host().vector_bits, 128)
    lanes = vector_bits // (32 if scalar == "float" else 64)
    start = _aligned(vector_bits // 8)
    start[:] = 0
    run = _loops()[f"peak_{scalar}"]
    return 2 * _CHAINS * lanes * PEAK_TURNS / _best(lambda: run(PEAK_TURNS, start.ctypes.data))


def _triad(n_bytes: int) -> float:
    """Bytes a second over three arrays that have about ``n_bytes`` together."""
    floats = max(64, min(n_bytes, 1 << 30) // 12 // 16 * 16)
    arrays = [_aligned(4 * floats) for _ in range(3)]
    for array in arrays:
        array[:] = 0
    turns = max(1, 3_000_000 // floats)
    run = _loops()["triad"]
    places = [a.ctypes.data for a in arrays]

    def loop() -> None:
        for _ in range(turns):
            run(floats, *places)

    return 12.0 * floats * turns / _best(loop)


def _aligned(n_bytes: int) -> Array:
    """Bytes that begin at a multiple of 64."""
    whole = np.empty(n_bytes + 64, np.uint8)
    skip = -whole.ctypes.data % 64
    return whole[skip : skip + n_bytes]


def _best(run: Callable[[], object]) -> float:
    """Seconds of the quickest of several runs."""
    found = []
    for _ in range(12):
        before = time.perf_counter()
        run()
        found.append(time.perf_counter() - before)
    return min(found)
