"""Where the time from ``gc.compile`` to a compiled step goes, stage by stage, and what an import and a cache hit cost.

    python compile_time.py [NAME ...]      # workloads, or nodes_COUNT; by default all workloads

Each row is the best of several fresh processes, after the imports, in CPU time; every column is that stage alone
(rewriting inside ``derive`` counts as rewriting). ``wall`` is the whole by the clock, which is less where LLVM works on
several CPUs. ``hit`` is ``gc.compile`` where the program is on disk.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

import peers_graphc
import workloads
from peers import Foreign

ROOT = Path(__file__).resolve().parent.parent.parent

# column -> the functions whose time it is, by module and name.
STAGES: dict[str, tuple[tuple[str, str], ...]] = {
    "declare": (("graphc.compiler", "declare_step"), ("graphc.compiler", "declare_function")),
    "derive": (("graphc.pipeline", "derive"),),
    "rewrite": (("graphc.pipeline", "run"),),
    "verify": (("graphc.pipeline", "verify"),),
    "lower": (("graphc.pipeline", "lower"),),
    "place": (("graphc.pipeline", "place"),),
    "emit": (("graphc.pipeline", "emit"),),
    "llvm": (("graphc.compiler", "compile_program"),),
}
Times = dict[str, float]


@contextmanager
def clocks() -> Iterator[Times]:
    """Milliseconds inside each stage meanwhile, those of the stages that it calls not counted."""
    spent: Times = dict.fromkeys(STAGES, 0.0)
    inner: list[float] = [0.0]

    def timed(function: Callable[..., object], stage: str) -> Callable[..., object]:
        def call(*args: object, **kwargs: object) -> object:
            inner.append(0.0)
            started = time.process_time()
            try:
                return function(*args, **kwargs)
            finally:
                whole = (time.process_time() - started) * 1e3
                spent[stage] += whole - inner.pop()
                inner[-1] += whole

        return call

    kept = [(stage, import_module(m), name) for stage, places in STAGES.items() for m, name in places]
    functions = [getattr(module, name) for _, module, name in kept]
    for (stage, module, name), function in zip(kept, functions, strict=True):
        setattr(module, name, timed(function, stage))
    try:
        yield spent
    finally:
        for (_, module, name), function in zip(kept, functions, strict=True):
            setattr(module, name, function)


def chain(gc: Foreign, nodes: int) -> Foreign:
    """The loss of a chain of elementwise operations that is declared with about so many nodes."""
    value = gc.input("x", (gc.dim("N"), 4)) * gc.param("w", (4,), init=gc.init.ones())
    for k in range(nodes * 7 // 13):  # thirteen operations in seven turns
        value = gc.tanh(value) if k % 7 == 0 else value * 1.0001 + 1e-7
    return gc.mean(gc.square(value))


def declared(name: str) -> Callable[[], object]:
    """What declares and compiles the graph of that name."""
    gc: Foreign = import_module("graphc")
    if name.startswith("nodes_"):
        nodes = int(name.removeprefix("nodes_"))
        return lambda: gc.compile(chain(gc, nodes), gc.optim.sgd(lr=0.1))
    loss, optimizer = peers_graphc.declared(gc, workloads.get(name))
    return lambda: gc.compile(loss, optimizer)


def once(name: str) -> Times:
    """The times of one compilation in this process."""
    import_module("llvmlite.binding")  # an import, not a part of compiling
    compile_it = declared(name)
    with clocks() as spent:
        started, began = time.process_time(), time.perf_counter()
        compile_it()
        spent["all"] = (time.process_time() - started) * 1e3
        spent["wall"] = (time.perf_counter() - began) * 1e3
    return spent


def python(*arguments: str, **variables: str) -> str:
    """What a fresh Python process prints, with graphc's bytecode at hand as an installed package's is."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **variables}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    done = subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, text=True, check=True)
    return done.stdout


def row(name: str, repeats: int, bytecode: str) -> str:
    """One line of the table."""
    misses: list[Times] = []
    hits: list[Times] = []
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as folder:
            for found in (misses, hits):
                text = python(__file__, "--once", name, GRAPHC_CACHE_DIR=folder, PYTHONPYCACHEPREFIX=bytecode)
                found.append(json.loads(text))
    best = min(misses, key=lambda spent: spent["all"])
    least = [min(spent["wall"] for spent in misses), min(spent["all"] for spent in hits)]
    cells = [*(best[stage] for stage in (*STAGES, "all")), *least]
    return f"{name:18s}" + "".join(f"{cell:9.1f}" for cell in cells)


def import_ms(module: str, bytecode: str) -> float:
    """The least time of five that a process takes to import a module, in ms."""
    code = f"import time; t = time.perf_counter(); import {module}; print((time.perf_counter() - t) * 1e3)"
    return min(float(python("-c", code, PYTHONPYCACHEPREFIX=bytecode)) for _ in range(6))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="workloads, or nodes_COUNT")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--once", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.once:
        print(json.dumps(once(given.once)))
        return
    with tempfile.TemporaryDirectory() as bytecode:
        alone = import_ms("numpy", bytecode)
        print(f"import graphc {import_ms('graphc', bytecode):.0f} ms, of which NumPy alone is {alone:.0f} ms\n")
        print(f"{'ms':18s}" + "".join(f"{stage:>9s}" for stage in (*STAGES, "all", "wall", "hit")))
        names = [n for n in workloads.NAMES if not workloads.get(n).epoch]
        for name in given.names or [*names, "nodes_2000"]:
            print(row(name, given.repeats, bytecode), flush=True)


if __name__ == "__main__":
    main()
