"""Names of machine code for tools that look at a process from outside: perf and gdb.

perf reads ``/tmp/perf-PID.map``, a line a function: address, size, name. gdb is told by MCJIT, the older of LLVM's two
ways to load code, which llvmlite registers with it; functions are then known by name, and break points can be set.
"""

from __future__ import annotations

import os
import struct
import sys
from collections.abc import Mapping
from pathlib import Path

from graphc.errors import FileAccessError

PERF, GDB = "GRAPHC_PERF", "GRAPHC_GDB"
_SYMBOL = struct.Struct("<IBBHQQ")  # name, info, other, section, value, size: an ELF64 symbol
_FUNCTION = 2  # the low half of info


def wants(variable: str) -> bool:
    """Whether one of the two variables above is set to anything but 0."""
    return os.environ.get(variable, "0") not in ("", "0")


def map_file() -> Path:
    """Where perf looks for the names of this process's code."""
    return Path("/tmp") / f"perf-{os.getpid()}.map"


def functions(object_code: bytes) -> list[tuple[str, int, int, int]]:
    """Name, section, offset in it and size of each function of an ELF64 object; none of another kind of object."""
    import llvmlite.binding as llvm

    if object_code[:5] != b"\x7fELF\x02":
        return []
    data = {bytes(s.name() or b""): bytes(s.data()) for s in llvm.ObjectFileRef.from_data(object_code).sections()}
    names, table = data.get(b".strtab", b""), data.get(b".symtab", b"")
    found = []
    for name, info, _, section, value, size in _SYMBOL.iter_unpack(table):
        if info & 15 == _FUNCTION and size:
            found.append((names[name : names.index(b"\0", name)].decode(), section, value, size))
    return found


def note_for_perf(object_code: bytes, addresses: Mapping[str, int]) -> None:
    """Adds the functions of a loaded object to perf's file. addresses: of its exported symbols, of which one in each
    section says where that lies. Nothing is done on systems without perf.

    Raises: FileAccessError where the file cannot be written.
    """
    if sys.platform != "linux":
        return
    known = functions(object_code)
    base = {section: addresses[name] - value for name, section, value, _ in known if name in addresses}
    lines = [f"{base[s] + value:x} {size:x} graphc {name}\n" for name, s, value, size in known if s in base]
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
        with os.fdopen(os.open(map_file(), flags, 0o600), "w", encoding="utf-8") as file:
            file.writelines(lines)
    except OSError as error:
        raise FileAccessError(f"{PERF}: {map_file()} cannot be written: {error.strerror}") from error
