"""perf and gdb are told the names of compiled functions, where the environment asks for it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="perf's file, and ELF, are Linux's")

ROOT = Path(__file__).parent.parent
TRAIN = """
import os, sys
import numpy as np
import graphc as gc
x = gc.input("x", (gc.dim("N"), 6))
w = gc.param("w", (6, 3), init=gc.init.he_normal())
step = gc.compile(gc.mean(gc.tanh(x @ w)), gc.optim.sgd(lr=0.1), threads=1, cache=False)
print(step(x=np.ones((4, 6), np.float32)), os.getpid(), step.program.symbol("step"))
"""


def train(tmp_path: Path, *before: str, **environment: str) -> str:
    """What a script prints that trains a step."""
    script = tmp_path / "train.py"
    script.write_text(TRAIN)
    found = os.environ | {"PYTHONPATH": str(ROOT), **environment}
    command = [*before, sys.executable, str(script)]
    return subprocess.run(command, env=found, capture_output=True, text=True, timeout=120, check=True).stdout


def test_perf_finds_each_kernel(tmp_path: Path) -> None:
    _, pid, address = train(tmp_path, GRAPHC_PERF="1").split()
    path = Path("/tmp") / f"perf-{pid}.map"
    try:
        lines = path.read_text().splitlines()
    finally:
        path.unlink()
    found = {name: (int(at, 16), int(size, 16)) for at, size, name in (line.split(" ", 2) for line in lines)}
    assert found["graphc step"][0] == int(address)
    kernels = [name for name in found if re.fullmatch(r"graphc k\d+_\d+", name)]
    assert len(kernels) >= 2
    ends = [-1]
    for at, size in sorted(found[name] for name in found):
        assert at >= ends[-1]  # no two overlap
        ends.append(at + size)


def test_nothing_is_written_unasked(tmp_path: Path) -> None:
    _, pid, _ = train(tmp_path, GRAPHC_PERF="0").split()
    assert not (Path("/tmp") / f"perf-{pid}.map").exists()


def test_code_for_gdb_has_the_same_bits(tmp_path: Path) -> None:
    assert train(tmp_path, GRAPHC_GDB="1").split()[0] == train(tmp_path).split()[0]


def test_gdb_stops_at_a_kernel(tmp_path: Path) -> None:
    gdb = shutil.which("gdb")
    if gdb is None:
        pytest.skip("gdb is not installed")
    commands = ["set breakpoint pending on", "set debuginfod enabled off", "tbreak k0_0", "run", "backtrace 1", "kill"]
    asked = [part for command in commands for part in ("-ex", command)]
    printed = train(tmp_path, gdb, "-q", "-batch", *asked, "--args", GRAPHC_GDB="1")
    if "ptrace" in printed:
        pytest.skip("this system lets gdb look at no process")
    assert re.search(r"#0 .* in k0_0 \(\)", printed)
