"""Teams of threads that run long steps together: one a size, shared by all steps of a process.

Members are Python threads that stay inside native code; they look for work for some 50 microseconds and then sleep. One
that is found on its caller's core is kept off that core from then on. A forked child has no members: its steps run
alone. At exit members are called to leave.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import threading
import time
from functools import lru_cache
from pathlib import Path

import numpy as np

from graphc.errors import UsageError
from graphc.llvm.target import host
from graphc.llvm.team import (
    APART,
    LINE_WORDS,
    MASK,
    PRESENT,
    SET_APART,
    SHIFT,
    STOP,
    TURN,
    WORKER,
    can_have_team,
    futex,
    n_words,
    worker_text,
)
from graphc.runtime.jit import Native, compile_objects, load
from graphc.runtime.memory import zeroed

VARIABLE = "GRAPHC_THREADS"
PATIENCE_S = 0.1
_SIBLINGS = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"


def thread_count(wanted: int | None) -> int:
    """How many threads a program may use: a power of two, no more than ``wanted``, by default ``GRAPHC_THREADS`` or the
    cores that this process may use.

    Raises: UsageError where the variable holds no number of at least 1.

    >>> thread_count(1), thread_count(3) in (1, 2)
    (1, True)
    """
    if wanted is None:
        text = os.environ.get(VARIABLE, "")
        if text and (not text.isdecimal() or int(text) < 1):
            raise UsageError(f"{VARIABLE}={text!r} given; needs a number of at least 1")
        wanted = int(text) if text else usable_cores()
    most = min(wanted, usable_cores()) if can_have_team(host()) else 1
    return 1 << (most.bit_length() - 1)


def usable_cores() -> int:
    """The cores that this process may run on; two hardware threads of one core count once."""
    if not hasattr(os, "sched_getaffinity"):
        return os.cpu_count() or 1
    return len({_core(number) for number in os.sched_getaffinity(0)})


@lru_cache
def _core(number: int) -> str:
    """What names the core of a hardware thread; that does not change while a process runs."""
    try:
        return Path(_SIBLINGS.format(number)).read_text()
    except OSError:
        return str(number)


class Team:
    """The words of one team and its threads."""

    def __init__(self, size: int, native: Native) -> None:
        self.size = size
        self.words = zeroed(8 * n_words(size)).view(np.int64)
        self.words[SHIFT * LINE_WORDS] = size.bit_length() - 1
        self.address = int(self.words.ctypes.data)
        self.words[SET_APART * LINE_WORDS] = native.addresses[APART]
        for core in os.sched_getaffinity(0):
            if core < 128 * LINE_WORDS:
                self.words.view(np.uint8)[8 * MASK * LINE_WORDS + core // 8] |= 1 << core % 8
        enter = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64)(native.addresses[WORKER])
        self._keep = (native, enter)
        self._threads = [
            threading.Thread(target=enter, args=(self.address, member), name=f"graphc {member}", daemon=True)
            for member in range(1, size)
        ]
        for thread in self._threads:
            thread.start()
        deadline = time.monotonic() + PATIENCE_S
        while self.words[PRESENT * LINE_WORDS] < size - 1 and time.monotonic() < deadline:
            time.sleep(20e-6)  # until all are in native code; a late one would find its first job all the same

    def dissolve(self) -> None:
        """Call the members to leave, and wait for them; steps then run alone."""
        self.words[SHIFT * LINE_WORDS] = 0
        self.words[STOP * LINE_WORDS] = 1
        self.words[TURN * LINE_WORDS] += 1
        _wake(self.address + 8 * TURN * LINE_WORDS)
        for thread in self._threads:
            thread.join(timeout=5)

    def forget(self) -> None:
        """In a forked child, which has no members."""
        self.words[SHIFT * LINE_WORDS] = 0


def _wake(address: int) -> None:
    libc = ctypes.CDLL(None)
    libc.syscall(ctypes.c_long(futex(host().triple)), ctypes.c_void_p(address), 129, 2**31 - 1, None, None, 0)


_teams: dict[int, Team] = {}
_lock = threading.Lock()


def team_of(size: int) -> Team:
    """The process's team of ``size`` members, a power of two above 1."""
    with _lock:
        if not _teams:
            atexit.register(_dissolve)
            if hasattr(os, "register_at_fork"):
                os.register_at_fork(after_in_child=_forget)
        if size not in _teams:
            target = host()
            native = load(compile_objects([worker_text(target)], target), [WORKER, APART], target)
            _teams[size] = Team(size, native)
        return _teams[size]


def _dissolve() -> None:
    for team in _teams.values():
        team.dissolve()


def _forget() -> None:
    for team in _teams.values():
        team.forget()
    _teams.clear()
