"""The arena of graphc's step beside the least that any plan could reach: ``python arena.py [WORKLOAD ...]``.

No plan is smaller than the bytes that live at once: at each kernel the buffers written before it or by it and still
named by it or after it. A table in Markdown: bytes of the arena, the most that live at once, and their ratio.
"""

from __future__ import annotations

import sys

import peers_graphc
import workloads

import graphc
from graphc.graph.sizes import evaluate
from graphc.kernels.form import Program
from graphc.kernels.layout import slot_offsets
from graphc.kernels.memory import lives
from graphc.pipeline import Options, declare_step, stages


def most_live_bytes(program: Program, n: int) -> int:
    """The most bytes that live at any kernel of a program whose one run-time size is ``n``."""
    born, dies = lives(program)
    dims = dict.fromkeys(program.dims, n)
    size = {k: evaluate(program.buffers[k].size, dims) * program.buffers[k].dtype.itemsize for k in born}
    points = range(len(program.kernels) + 1)
    return max(sum(size[k] for k in born if born[k] <= point <= dies[k]) for point in points)


def row(name: str) -> str:
    """A workload's line of the table."""
    workload = workloads.get(name)
    loss, optimizer = peers_graphc.declared(graphc, workload)
    made = stages(declare_step(loss, optimizer, {}, {}, None), Options())
    arena = slot_offsets(made.layout, dict.fromkeys(made.layout.dims, workload.batch))[1]
    least = most_live_bytes(made.program, workload.batch)
    return f"| {name} | {arena:,} | {least:,} | {arena / least:.2f} |"


def main() -> None:
    print("| workload | arena, bytes | most alive at once | ratio |\n| --- | ---: | ---: | ---: |")
    for name in sys.argv[1:] or workloads.NAMES:
        print(row(name))


if __name__ == "__main__":
    main()
