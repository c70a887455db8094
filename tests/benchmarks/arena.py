"""The arena of graphc's step beside the least that any plan could reach: ``python arena.py [WORKLOAD ...]``.

No plan is smaller than the bytes that live at once: at each kernel the slots written before it or by it and still
named by it or after it. A table in Markdown: bytes of the arena, the most that live at once, and their ratio.
"""

from __future__ import annotations

import sys

import peers_graphc
import workloads

import graphc
from graphc.graph.sizes import evaluate
from graphc.kernels.form import Program
from graphc.kernels.memory import lives
from graphc.pipeline import Options, Stages, declare_step, stages


def most_live_bytes(program: Program, n: int) -> int:
    """The most bytes that live at any kernel of a placed program whose run-time sizes are ``n``. Buffers of which each
    takes the place of the one before count as one."""
    born, dies = lives(program)
    dims = dict.fromkeys(program.dims, n)
    spans: dict[int, tuple[int, int]] = {}
    for k in born:
        first, last = spans.get(program.slot[k], (born[k], dies[k]))
        spans[program.slot[k]] = min(first, born[k]), max(last, dies[k])
    size = {slot: evaluate(program.arena.slots[slot], dims) for slot in spans}
    points = range(len(program.kernels) + 1)
    return max(sum(size[s] for s, (first, last) in spans.items() if first <= point <= last) for point in points)


def planned(name: str) -> Stages:
    """The stages of a workload's step."""
    loss, optimizer = peers_graphc.declared(graphc, workloads.get(name))
    return stages(declare_step(loss, optimizer, {}, {}, None), Options())


def row(name: str) -> str:
    """A workload's line of the table."""
    made, batch = planned(name), workloads.get(name).batch
    arena = made.layout.arena.offsets(dict.fromkeys(made.layout.dims, batch))[1]
    least = most_live_bytes(made.program, batch)
    return f"| {name} | {arena:,} | {least:,} | {arena / least:.2f} |"


def main() -> None:
    print("| workload | arena, bytes | most alive at once | ratio |\n| --- | ---: | ---: | ---: |")
    for name in sys.argv[1:] or workloads.NAMES:
        print(row(name), flush=True)


if __name__ == "__main__":
    main()
