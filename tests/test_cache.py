"""The cache on disk: keys, entries that do not check, folders that cannot be used, several processes."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import handmade
import numpy as np
import pytest

import graphc as gc
from graphc.runtime import cache
from graphc.runtime.cache import Entry, cache_folder, cache_key, keep, lookup, source_digest
from graphc.runtime.compiled import Compiled

ROOT = Path(__file__).parent.parent
KEY = cache_key(["a graph", "options"])


@pytest.fixture(scope="module")
def entry() -> Entry:
    compiled = handmade.compiled()
    return Entry(compiled.layout, compiled.objects, {"seed": 3, "names": ["w"]})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "a" / "cache"


def stored(folder: Path) -> Path:
    (path,) = folder.iterdir()
    return path


def test_an_entry_comes_back_and_runs(entry: Entry, folder: Path, rng: np.random.Generator) -> None:
    assert lookup(KEY, folder) is None
    assert keep(KEY, entry, folder)
    found = lookup(KEY, folder)
    assert found == entry
    assert found is not None
    data = handmade.batch(rng, 5)
    assert handmade.make_step(Compiled(found.layout, found.objects))(**data)[0] == handmade.make_step()(**data)[0]


def test_folder_and_entries_are_the_users_own(entry: Entry, folder: Path) -> None:
    keep(KEY, entry, folder)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(stored(folder).stat().st_mode) == 0o600


def test_every_flipped_byte_is_found(entry: Entry, folder: Path) -> None:
    keep(KEY, entry, folder)
    content = stored(folder).read_bytes()
    for place in [*range(60), *range(60, len(content), 97), len(content) - 1]:
        keep(KEY, entry, folder)
        path = stored(folder)
        path.write_bytes(content[:place] + bytes([content[place] ^ 0x10]) + content[place + 1 :])
        assert lookup(KEY, folder) is None, place
        assert not path.exists()  # so that it is built anew


def test_every_truncation_is_found(entry: Entry, folder: Path) -> None:
    keep(KEY, entry, folder)
    content = stored(folder).read_bytes()
    for length in [*range(60), *range(60, len(content), 211), len(content) - 1]:
        keep(KEY, entry, folder)
        stored(folder).write_bytes(content[:length])
        assert lookup(KEY, folder) is None, length
    keep(KEY, entry, folder)
    stored(folder).write_bytes(content + b"\0")
    assert lookup(KEY, folder) is None


def test_an_entry_under_anothers_name_is_refused(entry: Entry, folder: Path) -> None:
    keep(KEY, entry, folder)
    other = cache_key(["another graph", "options"])
    os.rename(stored(folder), folder / (other + ".step"))
    assert lookup(other, folder) is None


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX permissions")
def test_what_others_may_write_is_not_run(entry: Entry, folder: Path, tmp_path: Path) -> None:
    keep(KEY, entry, folder)
    os.chmod(stored(folder), 0o666)
    assert lookup(KEY, folder) is None
    keep(KEY, entry, folder)
    os.chmod(folder, 0o777)
    assert lookup(KEY, folder) is None
    assert not keep(KEY, entry, folder)
    os.chmod(folder, 0o700)
    assert lookup(KEY, folder) == entry
    path = stored(folder)
    os.rename(path, tmp_path / "elsewhere")
    os.symlink(tmp_path / "elsewhere", path)
    assert lookup(KEY, folder) is None


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX owners")
def test_anothers_folder_is_not_used(entry: Entry, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keep(KEY, entry, folder)
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    assert lookup(KEY, folder) is None
    assert not keep(KEY, entry, folder)


def test_a_folder_that_cannot_be_is_no_cache(entry: Entry, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert not keep(KEY, entry, tmp_path / "file")
    assert not keep(KEY, entry, tmp_path / "file" / "below")
    assert lookup(KEY, tmp_path / "file" / "below") is None
    assert lookup(KEY, tmp_path / "none") is None


def test_the_folder_is_the_environments(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GRAPHC_CACHE_DIR", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("GRAPHC_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "x"))
    if sys.platform == "linux":
        assert cache_folder() == tmp_path / "x" / "graphc"


def test_the_least_used_entries_go_first(entry: Entry, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "_MOST_ENTRIES", 4)
    keys = [cache_key([str(n)]) for n in range(5)]
    now = time.time()
    for age, key in zip((50, 40, 30, 20), keys[:4], strict=True):
        keep(key, entry, folder)
        os.utime(folder / f"{key}.step", (now - age, now - age))
    assert lookup(keys[0], folder) is not None  # used now, so keys[1] is the oldest
    left = folder / ".0123.1.abc.tmp"
    left.write_text("of a process that was killed")
    os.utime(left, (now - 9999, now - 9999))
    keep(keys[4], entry, folder)
    keep(cache_key(["5"]), entry, folder)
    assert lookup(keys[0], folder) is not None
    assert lookup(keys[1], folder) is None
    assert not left.exists()


def test_keys_separate_their_parts() -> None:
    keys = {cache_key(parts) for parts in (["ab"], ["a", "b"], ["", "ab"], ["ab", ""], ["b", "a"])}
    assert len(keys) == 5
    assert len(source_digest()) == 64


WORKER = """
import sys
sys.path.insert(0, "tests")
import handmade
from graphc.runtime.cache import Entry, cache_key, keep, lookup
compiled = handmade.compiled()
entry = Entry(compiled.layout, compiled.objects, {})
found = 0
for turn in range(150):
    key = cache_key([str(turn % 3)])
    got = lookup(key)
    if got is not None:
        assert got == entry
        found += 1
    if got is None or turn % 5 == 0:
        assert keep(key, entry)
print(found)
"""


def test_processes_share_a_folder(folder: Path) -> None:
    environment = {**os.environ, "GRAPHC_CACHE_DIR": str(folder)}
    children = [
        subprocess.Popen([sys.executable, "-c", WORKER], cwd=ROOT, env=environment, stdout=subprocess.PIPE)
        for _ in range(4)
    ]
    for child in children:
        out, _ = child.communicate(timeout=120)
        assert child.returncode == 0 and int(out) > 100
    assert sorted(path.suffix for path in folder.iterdir()) == [".step"] * 3


def test_where_an_optimizer_is_written_and_its_rate_decide_no_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second compilation hits from another line, at another rate, and has its own line and rate."""
    monkeypatch.setenv("GRAPHC_CACHE_DIR", str(tmp_path / "cache"))
    x = gc.input("x", (2, 3))
    loss = gc.mean(gc.square(gc.nn.dense(x, 2)))
    first = gc.compile(loss, gc.optim.sgd(lr=0.1))
    second = gc.compile(loss, gc.optim.sgd(lr=0.5))
    assert (first.stats().compiles, second.stats().compiles, second.stats().cache_hits) == (1, 0, 1)
    before = {name: np.array(value) for name, value in second.params.items()}
    for step in (first, second):
        step(x=np.ones((2, 3), np.float32))
    for name, value in before.items():
        moved = np.asarray(second.params[name]) - value
        np.testing.assert_allclose(moved, 5 * (np.asarray(first.params[name]) - value), rtol=1e-5, atol=1e-7)
