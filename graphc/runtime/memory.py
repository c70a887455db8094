"""Aligned memory, and an arena between guard pages for tests.

An allocator is a function from a number of bytes to an array of bytes that begins at a multiple of 64.
"""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from graphc.errors import InternalError
from graphc.kernels.arena import ALIGNMENT_BYTES
from graphc.structs import dataclass

Bytes = NDArray[np.uint8]
Allocator = Callable[[int], Bytes]

_PROT_NONE = 0


def zeroed(n_bytes: int) -> Bytes:
    """Zeros that begin at a multiple of 64; the pages are the system's until they are written.

    >>> zeroed(100).ctypes.data % 64
    0
    """
    whole: Bytes = np.zeros(n_bytes + ALIGNMENT_BYTES, np.uint8)
    start = -whole.ctypes.data % ALIGNMENT_BYTES
    return whole[start : start + n_bytes]


@dataclass(frozen=True, slots=True)
class Guarded:
    """Memory that ends at a page which nobody may touch and begins after another; filled with a pattern.

    block: the bytes handed out. before: those between the first guard page and the block, which stay as they are.
    """

    block: Bytes
    before: Bytes
    pattern: int

    def highest_written(self) -> int:
        """The number of the last byte of the block that no longer holds the pattern, -1 where all do."""
        written = np.flatnonzero(self.block != self.pattern)
        return int(written[-1]) if written.size else -1

    def n_written_before(self) -> int:
        """How many bytes before the block no longer hold the pattern."""
        return int(np.count_nonzero(self.before != self.pattern))


def guarded(n_bytes: int, pattern: int = 0xA5) -> Guarded:
    """Memory of that size between two guard pages: an access beyond either end is a segmentation fault.

    For tests, on systems with mprotect.

    >>> guarded(64).highest_written()
    -1
    """
    page = mmap.PAGESIZE
    used = -(-max(n_bytes, 1) // page) * page
    region = mmap.mmap(-1, used + 2 * page)
    whole: Bytes = np.frombuffer(region, np.uint8)
    whole[:] = pattern
    libc = ctypes.CDLL(None, use_errno=True)
    for at in (0, page + used):
        if libc.mprotect(ctypes.c_void_p(whole.ctypes.data + at), ctypes.c_size_t(page), _PROT_NONE):
            raise InternalError(f"guarded: mprotect fails, errno {ctypes.get_errno()}")
    start = page + used - n_bytes
    return Guarded(whole[start : start + n_bytes], whole[page:start], pattern)
