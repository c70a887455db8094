"""The time of each kernel inside a workload's step, beside its floor: ``step.profile`` on one core.

    python kernels.py mlp_digits+b8
    python kernels.py all
"""

from __future__ import annotations

import argparse
import os

import peers_graphc
import workloads
from peers import Foreign


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workload", help="such as mlp_digits or mlp_digits+b8; all: a line for each workload")
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--threads", type=int, default=1)
    asked = parser.parse_args()
    if asked.threads == 1 and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, [max(os.sched_getaffinity(0))])
    if asked.workload != "all":
        print(profiled(asked.workload, asked.threads, asked.seconds))
        return
    print(f"{'workload':18s} {'step us':>10s} {'kernels':>8s} {'counters':>9s}")
    for name in workloads.NAMES:
        found = profiled(name, asked.threads, asked.seconds)
        print(f"{name:18s} {found.step * 1e6:10.2f} {found.total / found.step:8.1%} {found.overhead:+9.1%}", flush=True)


def profiled(name: str, threads: int, seconds: float) -> Foreign:
    """The profile of a workload's step on its first batch."""
    workload = workloads.get(name)
    step = peers_graphc.build(workload, threads, "").compiled  # type: ignore[attr-defined]
    batch = workload.batches_as("int32")[0]
    return step.profile(seconds, **dict(zip("xy", batch, strict=False)))


if __name__ == "__main__":
    main()
