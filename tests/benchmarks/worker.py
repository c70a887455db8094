"""One peer, one workload, one process. Started by ``run.py``; talks JSON lines over stdin and stdout.

First the start-up: import the framework, build, first call (so compile time), the first losses compared with
reference_losses.json, warm up. Then it says that it is ready, and answers each {"run": n} with n timed steps.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any, TextIO, cast

REFERENCE = Path(__file__).with_name("reference_losses.json")
N_CHECKED = 5
FLOAT64_TOLERANCE = 1e-9  # a peer that computes in float32 all the same is not in float64
Batch = Sequence[Any]  # of arrays; NumPy is not imported yet, since its import is timed


def megabytes(who: int) -> float:
    """Peak resident size of this process or of its children."""
    return resource.getrusage(who).ru_maxrss / 1024


@dataclass(frozen=True, slots=True)
class Options:
    """What ``run.py`` asks for."""

    peer: str
    workload: str
    threads: int
    warmup_s: float
    tolerance: float


def options() -> Options:
    parser = argparse.ArgumentParser()
    parser.add_argument("--peer", required=True)
    parser.add_argument("--workload", required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--warmup-s", type=float, default=0.5)
    parser.add_argument("--tolerance", type=float, default=1e-4)
    return Options(**vars(parser.parse_args()))


def pin(threads: int) -> None:
    """Leaves this process that many CPUs, so that no library can use a hidden second thread."""
    n = os.cpu_count() or 1
    if threads < n and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, range(n - threads, n))


def timed_block(
    function: Callable[..., object], batches: Iterator[Batch], n: int, steps_per_call: int
) -> dict[str, object]:
    """Times n calls one by one, each on the next batch; nanoseconds are per step."""
    now = time.perf_counter_ns
    taken = [0] * n
    cpu_start, wall_start = time.process_time(), now()
    for i in range(n):
        batch = next(batches)
        start = now()
        function(*batch)
        taken[i] = now() - start
    wall_s = (now() - wall_start) / 1e9
    return {
        "ns": [t / steps_per_call for t in taken],
        "cpu_s": time.process_time() - cpu_start,
        "wall_s": wall_s,
        "rss_mb": megabytes(resource.RUSAGE_SELF),
        "rss_children_mb": megabytes(resource.RUSAGE_CHILDREN),
    }


def main(say: Callable[..., None], requests: TextIO) -> None:
    asked = options()
    pin(asked.threads)
    start = time.perf_counter()
    import numpy as np

    numpy_s, rss_numpy_mb = time.perf_counter() - start, megabytes(resource.RUSAGE_SELF)
    import peers
    import workloads

    peer, variant = peers.find(asked.peer)
    workload = workloads.get(asked.workload)
    os.environ.update(peer.env(asked.threads, variant, workload.dtype))
    wanted = json.loads(REFERENCE.read_text(encoding="utf-8"))[asked.workload]
    start = time.perf_counter()
    versions = peer.load(asked.threads)
    import_s = time.perf_counter() - start

    start = time.perf_counter()
    try:
        program = peer.build(workload, asked.threads, variant)
    except NotImplementedError as reason:
        say(unsupported=str(reason))
        return
    if workload.epoch:
        n_steps = len(workload.epoch[0]) // workload.batch
        batches: Iterator[Batch] = cycle([[array[: n_steps * workload.batch] for array in workload.epoch]])
        function: Callable[..., Any] = cast(peers.EpochProgram, program).epoch
    else:
        n_steps, batches, function = 1, cycle(workload.batches_as(peer.LABEL_DTYPE)), program.step
    first = np.asarray(function(*next(batches)), np.float64).reshape(-1)
    first_s = time.perf_counter() - start
    assert first.shape == (n_steps,), first.shape
    more = [function(*next(batches)) for _ in range(max(0, N_CHECKED - n_steps))]
    got = [float(value) for value in [*first[:N_CHECKED], *more]]
    error = max(abs(g - w) / abs(w) for g, w in zip(got, wanted, strict=True))
    allowed = asked.tolerance if workload.dtype == "float32" else min(asked.tolerance, FLOAT64_TOLERANCE)
    if not error <= allowed:  # so that NaN disagrees too
        say(disagrees=error, got=got, wanted=wanted)
        return

    end = time.perf_counter() + asked.warmup_s
    taken: list[float] = []
    while time.perf_counter() < end or len(taken) < 3:
        start = time.perf_counter()
        function(*next(batches))
        taken.append(time.perf_counter() - start)
    say(
        ready=True, versions=versions, numpy_import_s=numpy_s, import_s=import_s, first_s=first_s, error=error,
        call_s=sorted(taken)[len(taken) // 2], rss_numpy_mb=rss_numpy_mb,
    )  # fmt: skip
    for line in requests:
        say(**timed_block(function, batches, json.loads(line)["run"], n_steps))


if __name__ == "__main__":
    # Answers go to the real stdout; whatever a framework prints goes to stderr.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(**message: object) -> None:
        answers.write(json.dumps(message) + "\n")
        answers.flush()

    main(answer, sys.stdin)
