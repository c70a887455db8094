"""Names of machine code for tools that look at a process from outside: perf and gdb.

perf reads ``/tmp/perf-PID.map``, a line a function: address, size, name. gdb is told by MCJIT, the older of LLVM's two
ways to load code, which llvmlite registers with it; functions are then known by name, and break points can be set.
"""

from __future__ import annotations

import os
import struct
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

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


class Function(NamedTuple):
    """A function of an object. section: its number; offset: of the function in it; outside: whether others see it."""

    name: str
    section: int
    offset: int
    size: int
    outside: bool


def functions(object_code: bytes) -> list[Function]:
    """The functions of an ELF64 object; none of another kind of object."""
    import llvmlite.binding as llvm

    if object_code[:5] != b"\x7fELF\x02":
        return []
    data = {bytes(s.name() or b""): bytes(s.data()) for s in llvm.ObjectFileRef.from_data(object_code).sections()}
    names, table = data.get(b".strtab", b""), data.get(b".symtab", b"")
    found = []
    for name, info, _, section, value, size in _SYMBOL.iter_unpack(table):
        if info & 15 == _FUNCTION and size:
            text = names[name : names.index(b"\0", name)].decode()
            found.append(Function(text, section, value, size, bool(info >> 4)))
    return found


def anchors(objects: Sequence[bytes]) -> list[str]:
    """A function of each section of each object whose address can be asked for."""
    found = {(k, f.section): f.name for k, code in enumerate(objects) for f in functions(code) if f.outside}
    return list(found.values())


def note_for_perf(objects: Sequence[bytes], addresses: Mapping[str, int]) -> None:
    """Adds the functions of loaded objects to perf's file. addresses: the ``anchors`` among them say where each section
    lies. Nothing is done on systems without perf.

    Raises: FileAccessError where the file cannot be written.
    """
    if sys.platform != "linux":
        return
    lines = []
    for known in map(functions, objects):
        base = {f.section: addresses[f.name] - f.offset for f in known if f.name in addresses}
        lines += [f"{base[f.section] + f.offset:x} {f.size:x} graphc {f.name}\n" for f in known if f.section in base]
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
        with os.fdopen(os.open(map_file(), flags, 0o600), "w", encoding="utf-8") as file:
            file.writelines(lines)
    except OSError as error:
        raise FileAccessError(f"{PERF}: {map_file()} cannot be written: {error.strerror}") from error
