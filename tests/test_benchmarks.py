"""The peers' harness works: it times a peer that is right and gives no time to one that is not."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

RUN = Path(__file__).parent / "benchmarks" / "run.py"

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the harness needs Linux: CPU pinning, /proc")


def results(
    folder: Path, tolerance: str, workload: str = "logreg", more: tuple[str, ...] = (), peer: str = "numpy"
) -> dict[str, object]:
    """What the harness keeps of a short run of a peer."""
    out = folder / "out.json"
    command = [sys.executable, str(RUN), "--peers", peer, "--workloads", workload, "--threads", "1", "--rounds", "1"]
    command += ["--block-s", "0.001", "--warmup-s", "0", "--tolerance", tolerance, *more]
    command += ["--json", str(out), "--log", str(folder / "log")]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    found: dict[str, object] = json.loads(out.read_text(encoding="utf-8"))["runs"][f"{workload}/1"][peer]
    return found


def test_a_peer_that_agrees_is_timed(tmp_path: Path) -> None:
    assert {"median_us", "first_call_s", "versions"} <= results(tmp_path, "1e-4").keys()
    report = [sys.executable, str(RUN.with_name("report.py")), str(tmp_path / "out.json")]
    assert "| logreg | **" in subprocess.run(report, check=True, capture_output=True, text=True, timeout=60).stdout


def test_a_peer_that_disagrees_is_not(tmp_path: Path) -> None:
    assert results(tmp_path, "1e-13").keys() == {"disagrees"}  # float32 is never that close


def test_a_changed_workload_by_a_python_of_its_own(tmp_path: Path) -> None:
    found = results(tmp_path, "1e-4", "logreg+f64", ("--python", f"numpy={sys.executable}"))
    assert isinstance(found["max_rel_loss_err"], float)
    assert found["max_rel_loss_err"] < 1e-12


def test_an_interpreter_that_is_missing_fails_that_peer(tmp_path: Path) -> None:
    assert results(tmp_path, "1e-4", more=("--python", f"numpy={tmp_path / 'python'}")).keys() == {"failed"}


@pytest.mark.parametrize("workload", ["lenet", "lstm", "transformer_tiny", "mlp_digits+f64", "autoencoder_deep+prime"])
def test_graphc_agrees_with_the_reference(workload: str, tmp_path: Path) -> None:
    """The first five losses, so four updates too, of whole networks are those of another framework in float64."""
    assert "median_us" in results(tmp_path, "1e-5", workload, peer="graphc")


def test_kernels_are_timed_one_by_one() -> None:
    command = [sys.executable, str(RUN.with_name("kernels.py")), "logreg", "--seconds", "0.1"]
    ran = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    assert "W0" in ran.stdout
    assert "without counters a call takes" in ran.stdout


def test_threads_give_the_same_bits() -> None:
    command = [sys.executable, str(RUN.with_name("threads.py")), "logreg", "mlp_digits"]
    command += ["--repeats", "40", "--rounds", "1"]
    ran = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    assert ran.stdout.count("| all of 40 |") == 2 and "CPU use of the idle team" in ran.stdout
