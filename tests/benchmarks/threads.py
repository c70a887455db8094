"""Two threads beside one: speed-up of each workload's step, same bits, and what idle threads cost.

    python threads.py [WORKLOAD ...]

A row a workload: a step's time on one thread; how many times as fast it is with a team, as graphc decides (short steps
run alone, and so does what a busy machine makes slower) and with a team whatever it takes; whether losses, weights and
states have the same bits after every one of ``--repeats`` steps. Times are medians of blocks run in turn. "cores" is
the median, over the rounds, of what ``cores.py`` measures; gains mean something only where a word takes less than 100
ns and the rate is near 1. The last line is the share of a CPU that the team takes from 100 ms after the last call.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import cycle

import numpy as np
import peers_graphc
import workloads
from cores import Cores
from numpy.typing import NDArray
from peers import Foreign

import graphc
from graphc.runtime import program
from graphc.runtime.team import thread_count

BLOCK_S = 0.02
REST_S, IDLE_S = 0.1, 1.0


@contextmanager
def forced() -> Iterator[None]:
    """What is called first meanwhile goes to the team whatever it takes."""
    before = program._TEAM_ABOVE_NS, program._ALWAYS
    program._TEAM_ABOVE_NS, program._ALWAYS = -1, 1
    try:
        yield
    finally:
        program._TEAM_ABOVE_NS, program._ALWAYS = before


class Way:
    """A workload's step, run in one way on its batches in turn."""

    def __init__(self, workload: workloads.Workload, threads: int) -> None:
        self.step: Foreign = peers_graphc.Graphc(graphc, workload, threads)
        self.batches = cycle(workload.batches_as("int32"))

    def call(self) -> float:
        """The loss of one step."""
        return float(self.step.step(*next(self.batches)))

    def seconds(self, calls: int) -> float:
        """The median time of some calls."""
        taken = []
        step = self.step.step
        for _ in range(calls):
            batch = next(self.batches)
            start = time.perf_counter()
            step(*batch)
            taken.append(time.perf_counter() - start)
        return statistics.median(taken)

    def arrays(self) -> list[NDArray[np.uint8]]:
        """The bytes of all weights and states."""
        values = (*self.step.compiled.params.values(), *self.step.compiled.state.values())
        return [np.asarray(value).reshape(-1).view(np.uint8) for value in values]


def row(name: str, threads: int, repeats: int, rounds: int) -> str:
    """A workload's line of the table."""
    workload = workloads.get(name)
    alone, together = Way(workload, 1), Way(workload, threads)
    with forced():
        always = Way(workload, threads)
        different = 0
        for _ in range(repeats):
            same = np.float64(alone.call()).tobytes() == np.float64(always.call()).tobytes()
            different += not (same and all(map(np.array_equal, alone.arrays(), always.arrays())))
    calls = max(3, min(2000, int(BLOCK_S / alone.seconds(3))))
    for way in (alone, together, always):
        way.seconds(calls)
    one, gains, states = [], [], []
    cores = Cores()
    for _ in range(rounds):
        states.append(cores.state())
        times = [way.seconds(calls) for way in (alone, together, always)]
        one.append(times[0])
        gains.append([times[0] / t for t in times[1:]])
    decided, whatever = (statistics.median(column) for column in zip(*gains, strict=True))
    nanoseconds, rate = (statistics.median(column) for column in zip(*states, strict=True))
    bits = f"all of {repeats:,}" if not different else f"**not in {different:,} of {repeats:,}**"
    shown = f"{statistics.median(one) * 1e6:,.1f} | {decided:.2f} | {whatever:.2f}"
    return f"| {name} | {shown} | {bits} | {nanoseconds:.0f} ns, {rate:.2f} |"


def idle_share() -> float:
    """The CPU time of all threads of this process but the caller, which sleeps, from a while after its last call, by
    the time that passes."""

    def others() -> float:
        return time.process_time() - time.thread_time()

    time.sleep(REST_S)
    cpu, wall = others(), time.perf_counter()
    time.sleep(IDLE_S)
    return (others() - cpu) / (time.perf_counter() - wall)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workload", nargs="*", default=workloads.NAMES)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=15)
    asked = parser.parse_args()
    threads = thread_count(asked.threads)
    print(f"| workload | one thread, us | {threads} threads | {threads} threads always | same bits | cores |")
    print("| --- | ---: | ---: | ---: | --- | ---: |")
    for name in asked.workload:
        print(row(name, threads, asked.repeats, asked.rounds), flush=True)
    print(f"\nCPU use of the idle team, from {REST_S * 1e3:.0f} ms after the last call: {idle_share():.2%}")


if __name__ == "__main__":
    main()
