"""Measures this machine's roofline with roof.c: ``measure.py OUT.json [RUNS]``; the best of several runs is kept."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

Measured = dict[str, Any]


def better(old: Measured, new: Measured) -> Measured:
    """The higher rates and the shorter times of two runs."""
    return {
        "peak_gflops": max(old["peak_gflops"], new["peak_gflops"]),
        "triad_gbs": {size: max(rate, new["triad_gbs"][size]) for size, rate in old["triad_gbs"].items()},
        "adam_us": {size: min(time, new["adam_us"][size]) for size, time in old["adam_us"].items()},
        "vector_floats": new["vector_floats"],
        "runs": old.get("runs", 1) + 1,
    }


def main() -> None:
    out, runs = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 3
    binary = Path(tempfile.mkdtemp(prefix="roof-")) / "roof"
    source = Path(__file__).with_name("roof.c")
    flags = ["-O3", "-march=native", "-ffast-math", "-pthread"]
    subprocess.check_call(["gcc", *flags, str(source), "-lm", "-o", str(binary)])
    found: dict[str, Measured] = {}
    for _ in range(runs):
        for threads in (["1", "2"] if (os.cpu_count() or 1) > 1 else ["1"]):
            run: Measured = json.loads(subprocess.check_output([str(binary), threads], text=True))
            found[threads] = better(found[threads], run) if threads in found else run
    out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
