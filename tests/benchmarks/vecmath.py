"""Nanoseconds an element of every vector function beside NumPy's.

``python tests/benchmarks/vecmath.py [--cpu NAME] [function ...]``: 4,096 elements in cache, one thread, best of 5.
``far``: sin, cos and tan where the exact reduction runs.
"""

from __future__ import annotations

import argparse
import ctypes
import sys
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from vecmath_lab import ARITY, NAMES, SCALARS, Array, compiled  # noqa: E402

from graphc.llvm.target import host, host_like  # noqa: E402

N = 4096
PEERS = {
    "asin": "arcsin", "acos": "arccos", "atan": "arctan", "asinh": "arcsinh", "acosh": "arccosh", "atanh": "arctanh",
    "atan2": "arctan2", "pow": "power",
}  # fmt: skip
POSITIVE = {"log", "log2", "log10", "log1p", "sqrt", "rsqrt", "pow"}
UNIT = {"asin", "acos", "atanh"}


def operands(name: str, scalar: str, far: bool) -> list[Array]:
    """Operands where the function is busy."""
    rng = np.random.default_rng(0)
    low, high = (0.1, 9.0) if name in POSITIVE else (-0.9, 0.9) if name in UNIT else (-4.0, 4.0)
    if name == "acosh":
        low, high = 1.1, 9.0
    if far:
        low, high = 1e6, 1e8
    return [rng.uniform(low, high, N).astype(SCALARS[scalar]) for _ in range(ARITY[name])]


def best_ns(call: object, repeat: int) -> float:
    """The best time of ``call()`` an element, of 5."""
    times = []
    for _ in range(5):
        start = time.perf_counter_ns()
        for _ in range(repeat):
            call()  # type: ignore[operator]
        times.append((time.perf_counter_ns() - start) / repeat / N)
    return min(times)


def row(name: str, scalar: str, cpu: str, far: bool = False) -> tuple[float, float, int]:
    """Time here, NumPy's (NaN without one), and the lines of LLVM."""
    function = compiled(name, scalar, target=host_like(cpu) if cpu else host())
    args = operands(name, scalar, far)
    out = np.empty_like(args[0])
    pointers = [ctypes.c_void_p(a.ctypes.data) for a in (*args, out)]
    kernel = ctypes.CFUNCTYPE(None, *([ctypes.c_void_p] * len(pointers)), ctypes.c_int64)(function.address)
    count = ctypes.c_int64(N)
    ours = best_ns(lambda: kernel(*pointers, count), 200)
    peer = getattr(np, PEERS.get(name, name), None)
    theirs = best_ns(lambda: peer(*args, out=out), 50) if peer is not None else float("nan")
    return ours, theirs, function.n_lines


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cpu", default="", help="compile for an older CPU, such as haswell or x86-64")
    parser.add_argument("names", nargs="*")
    options = parser.parse_args()
    print(f"{'function':14}{'float':>8}{'numpy':>8}{'double':>8}{'numpy':>8}   ns an element, lines of LLVM")
    rows = [(name, False) for name in options.names or NAMES]
    rows += [(name, True) for name in ("sin", "cos", "tan") if not options.names or name in options.names]
    for name, far in rows:
        with np.errstate(all="ignore"):
            (a, b, lines), (c, d, _) = (row(name, scalar, options.cpu, far) for scalar in ("float", "double"))
        print(f"{name + (' far' if far else ''):14}{a:8.3f}{b:8.3f}{c:8.3f}{d:8.3f}   {lines}", flush=True)


if __name__ == "__main__":
    main()
