"""What a peer is: the interface between ``worker.py`` and the files ``peers_<name>.py``.

A peer's file must not import its framework at the top, since import time is measured around ``load``. It defines

    LABEL_DTYPE                            the integer type in which step() gets labels and tokens
    env(threads, variant, dtype)           environment variables to set before anything else is imported
    load(threads)                          imports the framework, sets its thread count; returns versions
    build(workload, threads, variant)      a Program, or raises NotImplementedError with the reason

A lazy result would be a cheat: ``step`` returns when its loss is computed, as a number.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray
from workloads import Workload

# A framework's own array, or the framework itself: it is imported where it is measured, so its types have no name here.
Foreign = Any


class Program(Protocol):
    """One compiled training step with its own weights and optimizer state."""

    @property
    def step(self) -> Callable[..., float]:
        """Takes a batch's arrays; gives the loss before the update that it makes."""
        ...


class EpochProgram(Program, Protocol):
    """A program that can run all batches of a data set in its own best way."""

    @property
    def epoch(self) -> Callable[..., NDArray[np.floating]]:
        """Takes x and y, whole batches of them; gives the losses of the steps in order."""
        ...


class Peer(Protocol):
    """The module ``peers_<name>``."""

    LABEL_DTYPE: str

    def env(self, threads: int, variant: str, dtype: str) -> dict[str, str]: ...

    def load(self, threads: int) -> dict[str, str]: ...

    def build(self, workload: Workload, threads: int, variant: str) -> Program: ...


def find(peer: str) -> tuple[Peer, str]:
    """The module and the variant of ``name`` or ``name:variant``."""
    name, _, variant = peer.partition(":")
    return cast(Peer, importlib.import_module(f"peers_{name}")), variant
