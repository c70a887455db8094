"""Weights and states in a file, in the safetensors format.

The file is written aside in the same folder, forced to the disk and renamed, so that a crash at any moment leaves the
old file or the new one, whole. A file is checked whole before anything is changed.
"""

from __future__ import annotations

import json
import os
import secrets
import struct
from pathlib import Path

import numpy as np

from graphc.errors import FileAccessError, FileFormatError, GraphcError, UsageError
from graphc.runtime.arguments import Array
from graphc.runtime.store import Store

_FORMAT = "graphc-step-1"


def save(store: Store, path: str | os.PathLike[str]) -> None:
    """Write everything in the store to ``path``. Raises FileAccessError where the system refuses."""
    from safetensors.numpy import save as encode

    target = _path("step.save", path)
    with store.guard.alone():  # one moment's values, copied by encoding
        arrays = {name: store[name] for name in store.names()}
        roles = {name: store.role(name) for name in arrays}
        content = encode(arrays, {"format": _FORMAT, "roles": json.dumps(roles)})
    aside = target.with_name(f".{target.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    try:
        try:
            with open(aside, "xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(aside, target)
        finally:
            aside.unlink(missing_ok=True)
        _sync_folder(target.parent)
    except OSError as error:
        raise FileAccessError(f"step.save: cannot write {str(target)!r}: {error.strerror or error}") from error


def _path(what: str, path: object) -> Path:
    if not isinstance(path, (str, os.PathLike)) or "\0" in str(path) or not Path(path).name:
        raise UsageError(f"{what}: {path!r} given; needs the path of a file")
    return Path(path)


def _sync_folder(folder: Path) -> None:
    """Force the renaming to the disk, where folders can be opened."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def load(store: Store, path: str | os.PathLike[str]) -> None:
    """Put a file's values into the store, all or none.

    Raises: FileAccessError where the file cannot be read, FileFormatError where it is no step's file or another's.
    """
    source = _path("step.load", path)
    what = f"step.load: {str(path)!r}"
    try:
        content = source.read_bytes()
    except OSError as error:
        raise FileAccessError(f"{what}: cannot be read: {error.strerror or error}") from error
    arrays, roles = _decode(what, content)
    wanted = store.names()
    missing = [name for name in wanted if name not in arrays]
    stray = [name for name in arrays if name not in wanted]
    if missing or stray:
        lists = [f"lacks {', '.join(missing)}"] * bool(missing) + [f"holds {', '.join(stray)} besides"] * bool(stray)
        raise FileFormatError(f"{what}: {' and '.join(lists)}; needs {', '.join(wanted)}")
    for name in wanted:
        found, own = arrays[name], store[name]
        if roles.get(name) != store.role(name):
            raise FileFormatError(f"{what}: {name} is a {roles.get(name)}; needs a {store.role(name)}")
        if (found.dtype, found.shape) != (own.dtype, own.shape):
            raise FileFormatError(
                f"{what}: {name} is {found.dtype} of shape {found.shape}; needs {own.dtype} of shape {own.shape}"
            )
    with store.guard.alone():
        before = store.snapshot()
        try:
            for name in wanted:
                np.copyto(store[name], arrays[name])
        except BaseException:  # Ctrl-C between two arrays
            store.restore(before)
            raise


def _decode(what: str, content: bytes) -> tuple[dict[str, Array], dict[str, str]]:
    from safetensors import SafetensorError
    from safetensors.numpy import load as decode

    try:
        arrays: dict[str, Array] = decode(content)
        # The format's own rule: eight bytes of length, then a JSON header, here already checked by the library.
        (length,) = struct.unpack_from("<Q", content)
        header = json.loads(content[8 : 8 + length])
        metadata = header["__metadata__"]
        if metadata["format"] != _FORMAT:
            raise KeyError("format")
        roles = json.loads(metadata["roles"])
        return arrays, {str(name): str(role) for name, role in roles.items()}
    except (SafetensorError, KeyError, TypeError, ValueError, AttributeError, struct.error) as error:
        if isinstance(error, GraphcError):
            raise
        raise FileFormatError(f"{what}: is no file that step.save wrote: {type(error).__name__}: {error}") from error
