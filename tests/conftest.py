"""What every test file shares: a seeded generator, tolerances by element type, golden files, a cache of its own, and
the step written by hand."""

from __future__ import annotations

import difflib
import os
import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import handmade
import numpy as np
import pytest
from numpy.typing import DTypeLike

from graphc.runtime.compiled import Compiled
from graphc.runtime.step import TrainStep

GOLDEN = Path(__file__).parent / "golden"
_CACHE = pytest.StashKey[Path]()

# Relative and absolute: what a sum of a few hundred terms loses in each type. Exact types lose nothing.
_TOLERANCES = {"float64": (1e-12, 1e-13), "float32": (2e-5, 2e-6)}


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds ``--update-golden``, which writes the golden files instead of comparing with them."""
    parser.addoption("--update-golden", action="store_true", help="write tests/golden/ anew, to be read in review")


def pytest_configure(config: pytest.Config) -> None:
    """Gives the whole run, doctests and child processes included, an empty compile cache that nobody else sees."""
    folder = Path(tempfile.mkdtemp(prefix="graphc-test-cache-"))
    config.stash[_CACHE] = folder
    os.environ["GRAPHC_CACHE_DIR"] = str(folder)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Removes that cache."""
    shutil.rmtree(config.stash[_CACHE], ignore_errors=True)


@pytest.fixture
def rng() -> np.random.Generator:
    """A NumPy generator that starts from the same seed in every test."""
    return np.random.default_rng(20260101)


@pytest.fixture
def tolerance() -> Callable[[DTypeLike], dict[str, float]]:
    """``tolerance(dtype)`` is the ``rtol`` and ``atol`` of ``np.testing.assert_allclose`` for that element type."""

    def of(dtype: DTypeLike) -> dict[str, float]:
        relative, absolute = _TOLERANCES.get(np.dtype(dtype).name, (0.0, 0.0))
        return {"rtol": relative, "atol": absolute}

    return of


@pytest.fixture(scope="session")
def program() -> Compiled:
    """The step written by hand, compiled."""
    return handmade.compiled()


@pytest.fixture(scope="session")
def bare() -> Compiled:
    """The same without further outputs."""
    return handmade.compiled(bare=True)


@pytest.fixture(params=["outputs", "bare"])
def step(request: pytest.FixtureRequest, program: Compiled, bare: Compiled) -> TrainStep:
    """A step called through Python, and one without further outputs, whose calls are native where they can be."""
    return handmade.make_step(bare if request.param == "bare" else program)


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[..., None]:
    """``golden(text)`` compares with ``tests/golden/<module>/<test>.txt``; ``golden(text, "b")`` with ``<test>.b.txt``.

    A missing file is a failure: ``pytest --update-golden`` writes it.
    """
    module = request.path.stem.removeprefix("test_")
    test = re.sub(r"[^\w.-]+", "_", request.node.name.removeprefix("test_")).strip("_")
    update = bool(request.config.getoption("--update-golden"))

    def check(text: str, part: str = "") -> None:
        path = GOLDEN / module / (f"{test}.{part}.txt" if part else f"{test}.txt")
        text = text.rstrip("\n") + "\n"
        if update:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            return
        if not path.exists():
            pytest.fail(f"there is no {path.relative_to(GOLDEN.parent)}; --update-golden writes it")
        wanted = path.read_text(encoding="utf-8")
        if text != wanted:
            lines = difflib.unified_diff(wanted.splitlines(), text.splitlines(), "golden", "now", lineterm="")
            pytest.fail(f"{path.relative_to(GOLDEN.parent)} differs\n" + "\n".join(lines), pytrace=False)

    return check
