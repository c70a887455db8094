"""The time of each kernel inside a workload's step, beside its floor: operations at the peak rate, or bytes.

    python kernels.py mlp_digits roofline/roofline.json

The step is compiled with the cycle counter read before and after every kernel's call, so caches are as they are in
training. Of each kernel the best of all steps is shown; a call shorter than the counter's own cost shows as 0.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import re
import tempfile
import time
from collections.abc import Callable
from itertools import cycle
from pathlib import Path

import peers_graphc
import workloads

import graphc.pipeline as pipeline
from graphc.graph.sizes import evaluate
from graphc.kernels.cost import KernelCost, cost
from graphc.kernels.form import Program
from graphc.llvm.emit import emit
from graphc.llvm.target import Target, host
from graphc.runtime.jit import Native, compile_object, load

MOST_KERNELS = 4096
CALL = re.compile(r"call (?:void|i32) @((?:k|check|copy)\w*_\d+)\(ptr %ctx")
ENTRY = re.compile(r"define [^@]*@(?:step|run|part)\w*\(")
CACHED_BYTES = "2048"  # KiB: the triad's rate at this working set stands for bytes that a kernel finds in a cache


class Counted:
    """Emits a program with its kernels' calls counted. names: of the kernels, as their counters lie."""

    def __init__(self) -> None:
        self.best = (ctypes.c_int64 * MOST_KERNELS)()
        self.names: list[str] = []
        self.program: Program | None = None

    def emit(self, program: Program, target: Target) -> str:
        """The text, with counters at fixed addresses of this process."""
        self.program = program
        lines: list[str] = []
        inside = False
        for line in emit(program, target).split("\n"):
            inside = bool(ENTRY.match(line)) if line.startswith("define") else inside
            call = CALL.search(line) if inside else None
            lines += self._counted(call.group(1), line) if call else [line]
        for name in ("i64 @llvm.readcyclecounter()", "i64 @llvm.smin.i64(i64, i64)"):
            known = name[: name.index("(") + 1]
            if not any(line.startswith("declare") and known in line for line in lines):
                lines.append(f"declare {name}")
        return "\n".join(lines) + "\n"

    def _counted(self, name: str, line: str) -> list[str]:
        k = len(self.names)
        self.names.append(name)
        place = f"inttoptr (i64 {ctypes.addressof(self.best) + 8 * k} to ptr)"
        return [
            f"  %from{k} = call i64 @llvm.readcyclecounter()",
            line,
            f"  %to{k} = call i64 @llvm.readcyclecounter()",
            f"  %took{k} = sub i64 %to{k}, %from{k}",
            f"  %known{k} = load i64, ptr {place}",
            f"  %least{k} = call i64 @llvm.smin.i64(i64 %known{k}, i64 %took{k})",
            f"  store i64 %least{k}, ptr {place}",
        ]


def clock_ghz() -> float:
    """The rate of the cycle counter, against the clock."""
    now, _native = _counter()
    start, first = time.perf_counter_ns(), now()
    while time.perf_counter_ns() - start < 50_000_000:
        pass
    return float(now() - first) / (time.perf_counter_ns() - start)


def _counter() -> tuple[Callable[[], int], Native]:
    """A function that reads the counter, and what keeps it."""
    text = (
        "define i64 @now() {\n  %t = call i64 @llvm.readcyclecounter()\n  ret i64 %t\n}\n"
        "declare i64 @llvm.readcyclecounter()\n"
    )
    native = load(compile_object([text], host()), ["now"], host())
    return ctypes.CFUNCTYPE(ctypes.c_int64)(native.addresses["now"]), native


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workload", choices=workloads.NAMES)
    parser.add_argument("roofline", type=Path)
    parser.add_argument("--seconds", type=float, default=2.0)
    asked = parser.parse_args()
    os.environ["GRAPHC_CACHE_DIR"] = tempfile.mkdtemp()  # a step from the cache would not be counted
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, [max(os.sched_getaffinity(0))])
    roof = json.loads(asked.roofline.read_text(encoding="utf-8"))["1"]
    counted = Counted()
    setattr(pipeline, "emit", counted.emit)  # noqa: B010
    workload = workloads.get(asked.workload)
    step = peers_graphc.build(workload, 1, "").step
    batches = cycle(workload.batches_as("int32"))
    for phase in (0.3, asked.seconds):
        for k in range(MOST_KERNELS):
            counted.best[k] = 1 << 60
        end = time.perf_counter() + phase
        while time.perf_counter() < end:
            step(*next(batches))
    assert counted.program is not None and len(counted.names) == len(counted.program.kernels)
    rate, dims = clock_ghz(), dict.fromkeys(counted.program.dims, workload.batch)
    print(f"{'kernel':12s} {'us':>10s} {'floor us':>10s} {'GFLOP/s':>8s}  writes")
    total = least = 0.0
    for k, row in enumerate(cost(counted.program).kernels):
        us, floor = counted.best[k] / rate / 1e3, floor_us(row, dims, roof)
        total, least = total + us, least + floor
        names = ", ".join(counted.program.buffers[b].name for b in counted.program.kernels[k].writes())
        speed = evaluate(row.operations, dims) / us / 1e3 if us > 0.05 else 0.0
        print(f"{row.name:12s} {us:10.3f} {floor:10.3f} {speed:8.1f}  {names}")
    print(f"{'all':12s} {total:10.3f} {least:10.3f}")


def floor_us(row: KernelCost, dims: dict[str, int], roof: dict[str, dict[str, float]]) -> float:
    """The least time of a kernel, in us."""
    peak = float(roof["peak_gflops"])  # type: ignore[arg-type]
    operations, n_bytes = evaluate(row.operations, dims), evaluate(row.n_bytes, dims)
    return max(operations / peak, n_bytes / roof["triad_gbs"][CACHED_BYTES]) / 1e3


if __name__ == "__main__":
    main()
