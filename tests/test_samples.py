"""Every script in samples/ runs to its end, as a user would start it; GRAPHC_SAMPLE_QUICK=1 asks it for little work."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SAMPLES = sorted((ROOT / "samples").glob("*.py"))


def test_there_are_samples() -> None:
    assert len(SAMPLES) >= 1


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.stem)
def test_sample_runs(sample: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "GRAPHC_SAMPLE_QUICK": "1", "MPLBACKEND": "Agg", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-W", "error", str(sample)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.strip(), "a sample says what it did"
