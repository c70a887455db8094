"""The sample notebook runs without a screen, in a kernel of its own, and every rich display is there."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
NOTEBOOK = ROOT / "samples" / "look_inside.ipynb"
RUN = """
import sys
import nbclient, nbformat
notebook = nbformat.read(sys.argv[1], as_version=4)
nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
nbformat.write(notebook, sys.argv[2])
"""
# What each cell shows: the words that its line begins with, the kind of display, and something that must be in it.
SHOWN = (
    ("loss", "text/latex", "cross"),
    ("gc.grad", "text/latex", r"x^{\top} \cdot"),
    ("gc.draw", "image/svg+xml", "forward pass"),
    ("gc.explain", "text/html", "through"),
    ("step  #", "text/html", "Back propagation"),
    ("history  #", "text/html", "<polyline"),
    ("step.profile", "text/html", "<rect"),
    ("step.cost", "text/plain", "arena"),
    ("step.function", "text/html", "graphc function"),
    ("gc.curves", "image/svg+xml", "<polyline"),
)


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Of each cell that shows something its last line and the displays by kind."""
    for name in ("nbclient", "ipykernel"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed")
    folder = tmp_path_factory.mktemp("notebook")
    out = folder / "out.ipynb"
    environment = os.environ | {
        "PYTHONPATH": str(ROOT), "IPYTHONDIR": str(folder), "JUPYTER_CONFIG_DIR": str(folder), "HOME": str(folder),
        "JUPYTER_DATA_DIR": str(folder), "JUPYTER_RUNTIME_DIR": str(folder), "GRAPHC_CACHE_DIR": str(folder / "cache"),
    }  # fmt: skip
    command = [sys.executable, "-c", RUN, str(NOTEBOOK), str(out)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found: dict[str, dict[str, Any]] = {}
    for cell in json.loads(out.read_text(encoding="utf-8"))["cells"]:
        for output in cell.get("outputs", ()):
            assert output["output_type"] == "execute_result", output
            lines = "".join(cell["source"]).splitlines()
            found[lines[-1]] = {kind: "".join(text) for kind, text in output["data"].items()}
    return found


@pytest.mark.parametrize(("line", "kind", "holds"), SHOWN)
def test_a_display_is_there(line: str, kind: str, holds: str, shown: dict[str, dict[str, Any]]) -> None:
    data = next(data for last, data in shown.items() if last.startswith(line))
    assert holds in data[kind]
    assert data["text/plain"]  # what a reader without the rich one sees
    if kind == "image/svg+xml":
        ET.fromstring(data[kind])


def test_every_cell_is_listed(shown: dict[str, dict[str, Any]]) -> None:
    assert len(shown) == len(SHOWN)


def test_the_notebook_is_kept_without_results() -> None:
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    assert all(not cell.get("outputs") and cell.get("execution_count") is None for cell in cells)
