"""Matrix products beside NumPy's BLAS, one thread: ``python tests/benchmarks/products.py``.

Each shape is M x K x N; the batch is the run-time size, as in a training step: M of ``A B`` and ``A B^T``, K of
``A^T B``. Both run in turns in one process, GFLOP/s of the best of several repeats. Unset ``OPENBLAS_*`` before it.
"""

from __future__ import annotations

import ctypes
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"
sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1])]

import numpy as np  # noqa: E402
from loops import Array, N, leaf, memory, product  # noqa: E402

from graphc.graph.dtypes import DTYPES  # noqa: E402
from graphc.graph.formula import Shape  # noqa: E402
from graphc.graph.graph import Graph  # noqa: E402
from graphc.kernels.layout import FIRST_DIM_WORD  # noqa: E402
from graphc.kernels.lower import lower  # noqa: E402
from graphc.kernels.memory import place  # noqa: E402
from graphc.llvm.emit import emit  # noqa: E402
from graphc.llvm.target import host  # noqa: E402
from graphc.runtime.jit import compile_object, load  # noqa: E402

REPEAT = """
declare i32 @step(ptr)
define void @repeat(ptr %ctx, i64 %n) nounwind {
entry:
  br label %turn
turn:
  %i = phi i64 [ 0, %entry ], [ %j, %turn ]
  %r = call i32 @step(ptr %ctx)
  %j = add i64 %i, 1
  %more = icmp slt i64 %j, %n
  br i1 %more, label %turn, label %end
end:
  ret void
}
"""
SHAPES = (
    ("AB", 32, 64, 128), ("AtB", 64, 32, 128), ("ABt", 32, 128, 64),
    ("AB", 32, 128, 10), ("AtB", 128, 32, 10), ("ABt", 32, 10, 128),
    ("AB", 64, 784, 256), ("AtB", 784, 64, 256), ("ABt", 64, 256, 784),
    ("AB", 256, 1024, 1024), ("AtB", 1024, 256, 1024), ("ABt", 256, 1024, 1024),
    ("AB", 32, 1024, 1024), ("AB", 512, 512, 512), ("AB", 1024, 1024, 1024), ("AB", 128, 2048, 2048),
)  # fmt: skip
FORMS = {"AB": "ij,jk->ik", "AtB": "ji,jk->ik", "ABt": "ij,kj->ik"}


def best(run: Callable[[int], None], count: int, repeats: int = 7) -> float:
    """Seconds of one turn, the best of several repeats."""
    run(count)
    found = []
    for _ in range(repeats):
        start = time.perf_counter()
        run(count)
        found.append((time.perf_counter() - start) / count)
    return min(found)


def native(form: str, m: int, k: int, n: int, a: Array, b: Array) -> tuple[Callable[[int], None], Array, list[object]]:
    """A native loop over one product, its result, and what must live as long."""
    graph = Graph()
    dtype = DTYPES[a.dtype.name]
    left = leaf(graph, "a", (N, m) if form == "AtB" else (N, k), dtype)
    shapes: dict[str, Shape] = {"AB": (k, n), "AtB": (N, n), "ABt": (n, k)}
    right = leaf(graph, "b", shapes[form], dtype)
    graph.outputs = {"c": product(graph, left, right, FORMS[form])}
    program = place(lower(graph))
    text = emit(program, host())
    loaded = load(compile_object([text, REPEAT], host()), ["repeat"], host())
    arrays = {"a": a, "b": b}
    held, arena, _ = memory(program, arrays, {"N": k if form == "AtB" else m})
    words = np.zeros(FIRST_DIM_WORD + 1 + len(held), np.int64)
    words[FIRST_DIM_WORD] = k if form == "AtB" else m
    words[FIRST_DIM_WORD + 1 :] = [h.ctypes.data for h in held]
    function = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64)(loaded.addresses["repeat"])
    address = words.ctypes.data
    names = [buffer.name for buffer in program.buffers if buffer.value is None]
    result = held[names.index(program.buffers[program.outputs[0][1]].name)]
    return lambda count: function(address, count), result, [loaded, arena, words, held]


def main(dtype: str) -> None:
    """Print the table."""
    rng = np.random.default_rng(0)
    print(f"{'form':4} {'M x K x N':>16}  graphc   NumPy  ratio   GFLOP/s, {dtype}")
    for form, m, k, n in SHAPES:
        a = rng.standard_normal((k, m) if form == "AtB" else (m, k)).astype(dtype)
        b = rng.standard_normal((n, k) if form == "ABt" else (k, n)).astype(dtype)
        run, result, keep = native(form, m, k, n, a, b)
        left, right = (a.T if form == "AtB" else a), (b.T if form == "ABt" else b)
        out = np.empty((m, n), dtype)

        def numpy(count: int, left: Array = left, right: Array = right, out: Array = out) -> None:
            for _ in range(count):
                np.matmul(left, right, out=out)

        count = max(3, int(2e8 / (2 * m * k * n)))
        ours = min(best(run, count), best(run, count))
        theirs = min(best(numpy, count), best(numpy, count))
        ours = min(ours, best(run, count))
        error = np.max(np.abs(result.astype(np.float64) - left.astype(np.float64) @ right)) / np.sqrt(k)
        assert error < 1e-4, error
        flops = 2e-9 * m * k * n
        print(
            f"{form:4} {f'{m}x{k}x{n}':>16} {flops / ours:7.1f} {flops / theirs:7.1f} {theirs / ours:6.2f}", flush=True
        )
        del keep


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "float32")
