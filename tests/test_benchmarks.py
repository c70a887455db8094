"""The peers' harness works: it times a peer that is right and gives no time to one that is not."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

RUN = Path(__file__).parent / "benchmarks" / "run.py"

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the harness needs Linux: CPU pinning, /proc")


def results(folder: Path, tolerance: str) -> dict[str, object]:
    """What the harness keeps of a short run of the NumPy peer."""
    out = folder / "out.json"
    command = [sys.executable, str(RUN), "--peers", "numpy", "--workloads", "logreg", "--threads", "1", "--rounds", "1"]
    command += ["--block-s", "0.001", "--warmup-s", "0", "--tolerance", tolerance]
    command += ["--json", str(out), "--log", str(folder / "log")]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    found: dict[str, object] = json.loads(out.read_text(encoding="utf-8"))["runs"]["logreg/1"]["numpy"]
    return found


def test_a_peer_that_agrees_is_timed(tmp_path: Path) -> None:
    assert {"median_us", "first_call_s", "versions"} <= results(tmp_path, "1e-4").keys()


def test_a_peer_that_disagrees_is_not(tmp_path: Path) -> None:
    assert results(tmp_path, "1e-13").keys() == {"disagrees"}  # float32 is never that close
