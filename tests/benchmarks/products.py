"""Matrix products beside NumPy's OpenBLAS on one core: ``products.py [float32|float64] [--all]``.

Both are called from native loops, so that no call from Python counts: graphc's compiled product, and ``cblas_gemm`` of
the OpenBLAS inside NumPy's wheel, with no core type or thread count forced on it. A shape is a layer (inputs, outputs)
and a batch; its three products are those of a training step: ``A B`` forward (batch, inputs, outputs), ``A^T B`` the
weights' gradient, summed over the batch, and ``A B^T`` the inputs' gradient, summed over the outputs. The batch is
graphc's run-time size. The two take turns; GFLOP/s are of the best turn of several rounds over all. Prints the products
under 0.9, or all, and the summary of each form.
"""

from __future__ import annotations

import ctypes
import math
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

for variable in [name for name in os.environ if name.startswith(("OPENBLAS_", "GOTO_", "OMP_", "MKL_"))]:
    del os.environ[variable]
os.environ["OPENBLAS_NUM_THREADS"] = "1"
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
from graphc.runtime.jit import compile_objects, load  # noqa: E402

LAYERS = ((8, 16), (64, 128), (128, 10), (784, 256), (512, 256), (1024, 1024), (61, 127), (257, 509), (2048, 512))
BATCHES = (1, 8, 32, 61, 128, 256, 512)
FORMS = {"AB": "ij,jk->ik", "AtB": "ji,jk->ik", "ABt": "ij,kj->ik"}
TURN_S, TURNS, AGAIN = 0.001, 5, 5  # a disturbance lasts longer than the turns of one product: all come AGAIN

# A loop of %n turns over one call: in graphc's case of the step, in OpenBLAS's of cblas_?gemm, row major.
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
GEMM = """
define void @gemm(ptr %f, i32 %ta, i32 %tb, i64 %m, i64 %n, i64 %k, ptr %a, i64 %la, ptr %b, i64 %lb, ptr %c,
  i64 %turns) {
entry:
  br label %turn
turn:
  %i = phi i64 [ 0, %entry ], [ %j, %turn ]
  call void %f(i32 101, i32 %ta, i32 %tb, i64 %m, i64 %n, i64 %k, TYPE 1.0, ptr %a, i64 %la, ptr %b, i64 %lb, TYPE 0.0,
    ptr %c, i64 %n)
  %j = add i64 %i, 1
  %more = icmp slt i64 %j, %turns
  br i1 %more, label %turn, label %end
end:
  ret void
}
"""
PLAIN, TRANSPOSED = 111, 112  # CBLAS_TRANSPOSE


def openblas() -> ctypes.CDLL:
    """The OpenBLAS that NumPy has loaded. Raises: SystemExit where NumPy has another BLAS."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        if "libscipy_openblas64_" in line:
            return ctypes.CDLL(line.split()[-1])
    raise SystemExit("products.py: this NumPy does not bring libscipy_openblas64_; needs NumPy's own wheel, on Linux")


class Graphc:
    """One compiled product; the batch is its run-time size."""

    def __init__(self, form: str, n_in: int, n_out: int, dtype: str) -> None:
        graph = Graph()
        left: Shape = (N, n_out) if form == "ABt" else (N, n_in)
        right: Shape = (N, n_out) if form == "AtB" else (n_in, n_out)
        kind = DTYPES[dtype]
        graph.outputs = {"c": product(graph, leaf(graph, "a", left, kind), leaf(graph, "b", right, kind), FORMS[form])}
        self.program = place(lower(graph))
        self.native = load(compile_objects([emit(self.program, host()), REPEAT], host()), ["repeat"], host())
        self.function = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64)(self.native.addresses["repeat"])

    def on(self, a: Array, b: Array, batch: int) -> tuple[Callable[[int], None], Array, list[object]]:
        """A loop over the product of two arrays, its result, and what must live as long."""
        held, arena, _ = memory(self.program, {"a": a, "b": b}, {"N": batch})
        words = np.zeros(FIRST_DIM_WORD + 1 + len(held), np.int64)
        words[FIRST_DIM_WORD] = batch
        words[FIRST_DIM_WORD + 1 :] = [h.ctypes.data for h in held]
        names = [buffer.name for buffer in self.program.buffers if buffer.value is None]
        result = held[names.index(self.program.buffers[self.program.outputs[0][1]].name)]
        address = words.ctypes.data
        return lambda turns: self.function(address, turns), result, [arena, words, held]


class OpenBLAS:
    """``cblas_?gemm`` of one element type, called in a native loop."""

    def __init__(self, dtype: str) -> None:
        self.library = openblas()
        symbol = f"scipy_cblas_{'s' if dtype == 'float32' else 'd'}gemm64_"
        self.gemm = ctypes.cast(getattr(self.library, symbol), ctypes.c_void_p)
        text = GEMM.replace("TYPE", "float" if dtype == "float32" else "double")
        self.native = load(compile_objects([text], host()), ["gemm"], host())
        flag, size, pointer = ctypes.c_int32, ctypes.c_int64, ctypes.c_void_p
        kinds = [pointer, flag, flag, size, size, size, pointer, size, pointer, size, pointer, size]
        self.function = ctypes.CFUNCTYPE(None, *kinds)(self.native.addresses["gemm"])

    def core(self) -> str:
        """The core type whose kernels it took."""
        name = self.library.scipy_openblas_get_corename64_
        name.restype = ctypes.c_char_p
        return str(name().decode())

    def on(self, form: str, a: Array, b: Array, out: Array) -> Callable[[int], None]:
        """A loop over the product of two arrays."""
        (m, n), k = out.shape, a.shape[0] if form == "AtB" else a.shape[1]
        flags = (TRANSPOSED if form == "AtB" else PLAIN, TRANSPOSED if form == "ABt" else PLAIN)
        rest = (a.ctypes.data, a.shape[1], b.ctypes.data, b.shape[1], out.ctypes.data)
        return lambda turns: self.function(self.gemm, *flags, m, n, k, *rest, turns)


class Pair:
    """One product by graphc and by OpenBLAS, and the least seconds that each has taken so far."""

    def __init__(self, what: str, flops: float, ours: Callable[[int], None], theirs: Callable[[int], None]) -> None:
        self.what, self.gflop, self.runs, self.counts = what, flops / 1e9, (ours, theirs), [1, 1]
        self.seconds = [math.inf, math.inf]
        for k, run in enumerate(self.runs):
            run(1)
            start = time.perf_counter()
            run(3)
            self.counts[k] = max(2, int(TURN_S * 3 / (time.perf_counter() - start)))

    def measure(self) -> None:
        """TURNS turns of each."""
        for _ in range(TURNS):
            for k, (run, count) in enumerate(zip(self.runs, self.counts, strict=True)):
                start = time.perf_counter()
                run(count)
                self.seconds[k] = min(self.seconds[k], (time.perf_counter() - start) / count)

    @property
    def ratio(self) -> float:
        return self.seconds[1] / self.seconds[0]

    def __str__(self) -> str:
        ours, theirs = (self.gflop / each for each in self.seconds)
        return f"{self.what}{ours:8.1f}{theirs:9.1f}{self.ratio:6.2f}"


def pairs(form: str, dtype: str, blas: OpenBLAS) -> list[tuple[Pair, object]]:
    """Every layer and batch of one form, checked against float64; each with what must live as long."""
    rng = np.random.default_rng(0)
    found: list[tuple[Pair, object]] = []
    for n_in, n_out in LAYERS:
        compiled = Graphc(form, n_in, n_out, dtype)
        for batch in BATCHES:
            a = rng.standard_normal((batch, n_out if form == "ABt" else n_in)).astype(dtype)
            b = rng.standard_normal((batch, n_out) if form == "AtB" else (n_in, n_out)).astype(dtype)
            exact = np.einsum(FORMS[form], a.astype(np.float64), b.astype(np.float64), optimize=True)
            out = np.empty(exact.shape, dtype)
            run, result, keep = compiled.on(a, b, batch)
            what = f"{form:4} {batch:5} {f'{n_in}x{n_out}':>10}"
            pair = Pair(what, 2.0 * batch * n_in * n_out, run, blas.on(form, a, b, out))
            for got in (result, out):
                assert np.max(np.abs(got - exact)) < 1e-4 * math.sqrt(max(*a.shape, *b.shape)), what
            found.append((pair, (compiled, keep, a, b, out)))
    return found


def summary(title: str, ratios: Sequence[float]) -> str:
    mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
    shares = ", ".join(f"{sum(r >= least for r in ratios)} at least {least}" for least in (1.0, 0.9))
    ends = f"least {min(ratios):.2f}, greatest {max(ratios):.2f}"
    return f"{title:4} geometric mean {mean:.2f}, {ends}; of {len(ratios)}: {shares}"


def main(dtype: str, every: bool) -> None:
    """Prints the table and the summary."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    blas = OpenBLAS(dtype)
    print(f"{dtype}, GFLOP/s, one core; OpenBLAS takes its kernels for {blas.core()}")
    print(f"{'form':4} {'batch':>5} {'layer':>10}  graphc OpenBLAS ratio")
    done: list[Pair] = []
    for form in FORMS:
        made = pairs(form, dtype, blas)
        for _ in range(AGAIN):
            for pair, _keep in made:
                pair.measure()
        done += [pair for pair, _keep in made]
        print("\n".join(str(pair) for pair, _keep in made if every or pair.ratio < 0.9), flush=True)
    for form in FORMS:
        print(summary(form, [pair.ratio for pair in done if pair.what.startswith(f"{form} ")]))
    print(summary("all", [pair.ratio for pair in done]))


if __name__ == "__main__":
    words = sys.argv[1:]
    main(next((word for word in words if word.startswith("float")), "float32"), "--all" in words)
