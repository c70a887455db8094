"""graphc's first five losses on every dense workload equal the reference's within 1e-4, by the benchmarks' harness."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

RUN = Path(__file__).parent / "benchmarks" / "run.py"
DENSE = ["logreg", "mlp_tiny", "mlp_digits", "mlp_mnist", "mlp_wide", "autoencoder_deep", "custom_loss"]
DENSE += ["mlp_tiny_epoch"]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the harness needs Linux: CPU pinning, /proc")


def test_losses_agree(tmp_path: Path) -> None:
    out, log = tmp_path / "out.json", tmp_path / "log"
    command = [sys.executable, str(RUN), "--peers", "graphc", "--workloads", ",".join(DENSE), "--threads", "1"]
    command += ["--rounds", "1", "--block-s", "0.001", "--warmup-s", "0", "--json", str(out), "--log", str(log)]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    runs = json.loads(out.read_text(encoding="utf-8"))["runs"]
    errors = {name: runs[f"{name}/1"]["graphc"].get("max_rel_loss_err", runs[f"{name}/1"]["graphc"]) for name in DENSE}
    wrong = {name: error for name, error in errors.items() if not isinstance(error, float) or error > 1e-4}
    assert wrong == {}, log.read_text(encoding="utf-8")
