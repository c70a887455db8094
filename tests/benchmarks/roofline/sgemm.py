"""float32 matrix products of NumPy, PyTorch or JAX, one JSON line of GFLOP/s: sgemm.py numpy|torch|jax THREADS.

The shapes (M, K, N) are mlp_wide's forward, weight-gradient and input-gradient products, a cube and two small ones.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable

SHAPES = (
    ("2048^3", (2048, 2048, 2048), ""),
    ("256x1024x1024", (256, 1024, 1024), ""),
    ("1024x256x1024 A^T", (1024, 256, 1024), "a"),
    ("256x1024x1024 B^T", (256, 1024, 1024), "b"),
    ("64x784x256", (64, 784, 256), ""),
    ("32x128x64", (32, 128, 64), ""),
)


def product(library: str, shape: tuple[int, int, int], transposed: str) -> Callable[[], object]:
    """A call that multiplies two matrices, one of them perhaps stored transposed."""
    import numpy as np

    m, k, n = shape
    rng = np.random.default_rng(0)
    a = rng.random((k, m) if transposed == "a" else (m, k), np.float32)
    b = rng.random((n, k) if transposed == "b" else (k, n), np.float32)
    if library == "jax":
        import jax

        on_device = jax.numpy.asarray(a), jax.numpy.asarray(b)
        compiled = jax.jit(lambda a, b: (a.T if transposed == "a" else a) @ (b.T if transposed == "b" else b))
        return lambda: compiled(*on_device).block_until_ready()
    a, b = a.T if transposed == "a" else a, b.T if transposed == "b" else b
    out = np.empty((m, n), np.float32)
    if library == "numpy":
        return lambda: np.dot(a, b, out=out)
    import torch

    tensors = torch.from_numpy(a), torch.from_numpy(b)
    result = torch.from_numpy(out)
    return lambda: torch.mm(*tensors, out=result)


def gflops(call: Callable[[], object], flops: float) -> float:
    """The best rate within a second."""
    for _ in range(3):
        call()
    best, repeats, end = float("inf"), max(1, int(2e8 / flops)), time.perf_counter() + 1.0
    while time.perf_counter() < end:
        start = time.perf_counter()
        for _ in range(repeats):
            call()
        best = min(best, (time.perf_counter() - start) / repeats)
    return round(flops / best / 1e9, 1)


def main() -> None:
    library, threads = sys.argv[1], int(sys.argv[2])
    # A core type that the surroundings force would halve the rate.
    for name in [name for name in os.environ if name.startswith(("OPENBLAS_", "MKL_"))]:
        del os.environ[name]
    os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), str(threads)))
    if threads == 1:
        os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    n = os.cpu_count() or 1
    os.sched_setaffinity(0, range(n - threads, n))
    if library == "torch":
        import torch

        torch.set_num_threads(threads)
    rates = {name: gflops(product(library, (m, k, n), t), 2.0 * m * k * n) for name, (m, k, n), t in SHAPES}
    print(json.dumps({"lib": library, "threads": threads, "best_gflops": rates}))


if __name__ == "__main__":
    main()
