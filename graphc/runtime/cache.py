"""Compiled programs on disk, shared by processes.

An entry is one file, named by its key: magic, payload length, SHA-256 of the payload, then the payload: header length,
JSON header (the key, the layout, the objects' lengths and whatever the caller adds), object files. It is written aside
and renamed, so that a reader sees a whole entry or none; an entry that does not check is removed and rebuilt. Nothing
is unpickled. Since an entry is run as code, folder and entry must belong to the user and be writable by nobody else. A
folder that cannot be used means no cache, never an error.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import struct
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import accumulate, pairwise
from pathlib import Path

from graphc.errors import InternalError
from graphc.kernels.layout import Layout
from graphc.structs import dataclass

_MAGIC = b"graphc2\n"
_HEAD = struct.Struct("<8sQ32s")
_LENGTH = struct.Struct("<Q")
_SUFFIX = ".step"
_MOST_ENTRIES = 512
_MOST_BYTES = 512 << 20


@dataclass(frozen=True, slots=True)
class Entry:
    """A compiled program: its layout, object files, and whatever its maker wants back (JSON values by name)."""

    layout: Layout
    objects: tuple[bytes, ...]
    extra: Mapping[str, object]


def cache_folder() -> Path:
    """``$GRAPHC_CACHE_DIR``, or graphc's folder in the user's cache folder."""
    chosen = os.environ.get("GRAPHC_CACHE_DIR")
    if chosen:
        return Path(chosen)
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "graphc"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "graphc" / "cache"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "graphc"


@cache
def source_digest() -> str:
    """A digest of graphc's own Python sources, so that no entry outlives the code that made it.

    A file counts by its name, size and time of change, as it does for Python's own compiled files.
    """
    digest = hashlib.sha256()
    package = str(Path(__file__).resolve().parent.parent)
    found = [
        (file.path, file.stat())
        for folder, _, _ in os.walk(package)
        for file in os.scandir(folder)
        if file.name.endswith(".py")
    ]
    for path, status in sorted(found, key=lambda pair: pair[0]):
        digest.update(f"{path[len(package):]} {status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def cache_key(parts: Sequence[str]) -> str:
    """The key of an entry: SHA-256 over all parts and their lengths.

    >>> cache_key(["ab", "c"]) == cache_key(["a", "bc"])
    False
    """
    digest = hashlib.sha256()
    for part in parts:
        content = part.encode()
        digest.update(_LENGTH.pack(len(content)))
        digest.update(content)
    return digest.hexdigest()


def lookup(key: str, folder: Path | None = None) -> Entry | None:
    """The entry of that key, or None where there is none that checks; one that does not is removed."""
    folder = cache_folder() if folder is None else folder
    path = folder / (key + _SUFFIX)
    try:
        if not _is_private(folder.stat()):
            return None
        content = _read_own(path)
    except OSError:
        return None
    entry = _decode(key, content) if content is not None else None
    try:
        if entry is None:
            path.unlink(missing_ok=True)
        else:
            os.utime(path)  # the entries not used for longest go first
    except OSError:
        pass
    return entry


def keep(key: str, entry: Entry, folder: Path | None = None) -> bool:
    """Whether the entry now lies in the folder."""
    folder = cache_folder() if folder is None else folder
    lengths = [len(code) for code in entry.objects]
    head = {"key": key, "layout": entry.layout.to_json(), "objects": lengths, "extra": dict(entry.extra)}
    header = json.dumps(head).encode()
    payload = _LENGTH.pack(len(header)) + header + b"".join(entry.objects)
    content = _HEAD.pack(_MAGIC, len(payload), hashlib.sha256(payload).digest()) + payload
    aside = folder / f".{key[:16]}.{os.getpid()}.{os.urandom(4).hex()}.tmp"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not _is_private(folder.stat()):
            return False
        _prune(folder)
        try:
            _write_new(aside, content)
            os.replace(aside, folder / (key + _SUFFIX))
        finally:
            aside.unlink(missing_ok=True)
    except OSError:
        return False
    return True


def _decode(key: str, content: bytes) -> Entry | None:
    if len(content) < _HEAD.size + _LENGTH.size:
        return None
    magic, length, digest = _HEAD.unpack_from(content)
    payload = memoryview(content)[_HEAD.size :]
    if magic != _MAGIC or length != len(payload) or hashlib.sha256(payload).digest() != digest:
        return None
    (header_length,) = _LENGTH.unpack_from(payload)
    start = _LENGTH.size
    if start + header_length > len(payload):
        return None
    try:
        header = json.loads(bytes(payload[start : start + header_length]))
        if header["key"] != key:
            return None
        ends = list(accumulate(header["objects"], initial=start + header_length))
        if ends[-1] != len(payload):
            return None
        objects = tuple(bytes(payload[a:b]) for a, b in pairwise(ends))
        return Entry(Layout.from_json(header["layout"]), objects, header["extra"])
    except (InternalError, KeyError, TypeError, ValueError):
        return None


def _read_own(path: Path) -> bytes | None:
    """The file's content; None where it is not the user's own regular file. Raises OSError where it cannot be read."""
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0))
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        return file.read() if stat.S_ISREG(status.st_mode) and _is_private(status) else None


def _write_new(path: Path, content: bytes) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    with os.fdopen(os.open(path, flags, 0o600), "wb") as file:
        file.write(content)


def _is_private(status: os.stat_result) -> bool:
    """Whether the file or folder is the user's own and writable by nobody else; Windows keeps profiles apart itself."""
    if sys.platform == "win32":
        return True
    return status.st_uid == os.geteuid() and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _prune(folder: Path) -> None:
    """Remove the entries not used for longest where there are too many, and what a killed process left behind."""
    found: list[tuple[float, int, Path]] = []
    for path in sorted(folder.iterdir()):
        if path.suffix not in (_SUFFIX, ".tmp"):
            continue
        try:
            status = path.stat()
        except FileNotFoundError:
            continue  # another process was faster
        found.append((status.st_mtime, status.st_size, path))
    newest = max((mtime for mtime, _, _ in found), default=0.0)
    entries, total = 0, 0
    for mtime, size, path in sorted(found, reverse=True):
        entries, total = entries + 1, total + size
        stale = path.suffix == ".tmp" and mtime < newest - 3600
        if stale or entries > _MOST_ENTRIES or total > _MOST_BYTES:
            path.unlink(missing_ok=True)
