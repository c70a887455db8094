"""Nanoseconds an element of every vector function beside libmvec's and NumPy's.

``python tests/benchmarks/vecmath.py [--cpu NAME] [--every] [function ...]``: 4,096 elements in cache, one thread, best
of 5. ``far``: sin, cos and tan where the exact reduction runs. ``--every``: the largest error over every float32 too,
for named functions of one operand; minutes each.
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

from vecmath_lab import (  # noqa: E402
    ARITY,
    NAMES,
    SCALARS,
    Array,
    Compiled,
    compiled,
    libmvec,
    worst_of_every_float,
)

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


def timed(function: Compiled, args: list[Array]) -> float:
    """Nanoseconds an element."""
    out = np.empty_like(args[0])
    pointers = [ctypes.c_void_p(a.ctypes.data) for a in (*args, out)]
    kernel = ctypes.CFUNCTYPE(None, *([ctypes.c_void_p] * len(pointers)), ctypes.c_int64)(function.address)
    count = ctypes.c_int64(N)
    return best_ns(lambda: kernel(*pointers, count), 200)


def row(name: str, scalar: str, cpu: str, far: bool = False) -> tuple[list[float], int]:
    """Time here, libmvec's and NumPy's (NaN without one), and the lines of LLVM."""
    function = compiled(name, scalar, target=host_like(cpu) if cpu else host())
    args = operands(name, scalar, far)
    library = libmvec(name, scalar)
    peer = getattr(np, PEERS.get(name, name), None)
    out = np.empty_like(args[0])
    theirs = timed(library, args) if library is not None else float("nan")
    numpys = best_ns(lambda: peer(*args, out=out), 50) if peer is not None else float("nan")
    return [timed(function, args), theirs, numpys], function.n_lines


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cpu", default="", help="compile for an older CPU, such as haswell or x86-64")
    parser.add_argument("--every", action="store_true", help="the largest error over every float32 too")
    parser.add_argument("names", nargs="*")
    options = parser.parse_args()
    columns = "".join(f"{title:>9}" for title in ("float", "libmvec", "numpy", "double", "libmvec", "numpy"))
    print(f"{'function':14}{columns}   ns an element; lines of LLVM{'; ULP of float' if options.every else ''}")
    rows = [(name, False) for name in options.names or NAMES]
    rows += [(name, True) for name in ("sin", "cos", "tan") if not options.names or name in options.names]
    for name, far in rows:
        with np.errstate(all="ignore"):
            (floats, lines), (doubles, _) = (row(name, scalar, options.cpu, far) for scalar in ("float", "double"))
        figures = "".join(f"{figure:9.3f}" for figure in floats + doubles)
        error = f"   {worst_of_every_float(name)[0]:.3f}" if options.every and not far else ""
        print(f"{name + (' far' if far else ''):14}{figures}   {lines}{error}", flush=True)


if __name__ == "__main__":
    main()
