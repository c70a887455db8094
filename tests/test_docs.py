"""Every Python block of the README and of docs/ runs: the blocks of one page in order, in one namespace."""

from __future__ import annotations

import re
import types
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
_BLOCK = re.compile(r"^( *)```python[^\n]*\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
_SHOWN = re.compile(r"^```python\n(.*?)^```\n\nprints\n\n```text\n(.*?)^```", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\((?!https?:|mailto:|#)([^)#\s]+)")


@dataclass(frozen=True, slots=True)
class Block:
    """One Python block of a page and the number of its first line."""

    source: str
    line: int


def blocks(page: str) -> list[Block]:
    """The Python blocks of a page's text, in order."""
    return [
        Block(re.sub(rf"^{match[1]}", "", match[2], flags=re.MULTILINE), page[: match.start(2)].count("\n") + 1)
        for match in _BLOCK.finditer(page)
    ]


def run(page: Path, found: list[Block]) -> None:
    """Executes blocks in one module's namespace; a traceback shows the page's own line numbers."""
    module = types.ModuleType(page.stem)
    for block in found:
        exec(compile("\n" * (block.line - 1) + block.source, str(page), "exec"), module.__dict__)


WITH_BLOCKS = [page for page in PAGES if blocks(page.read_text(encoding="utf-8"))]


def test_there_is_something_to_run() -> None:
    assert len(WITH_BLOCKS) >= 1


@pytest.mark.parametrize("page", WITH_BLOCKS, ids=lambda page: str(page.relative_to(ROOT)))
def test_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # what a page saves goes there
    run(page, blocks(page.read_text(encoding="utf-8")))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    broken = [link for link in _LINK.findall(page.read_text(encoding="utf-8")) if not (page.parent / link).exists()]
    assert broken == []


def test_every_page_is_in_the_index() -> None:
    index = ROOT / "docs" / "README.md"
    linked = {(index.parent / link).resolve() for link in _LINK.findall(index.read_text(encoding="utf-8"))}
    assert [page for page in PAGES[1:] if page != index and page.resolve() not in linked] == []


def test_what_the_readme_says_is_printed_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    shown = _SHOWN.search((ROOT / "README.md").read_text(encoding="utf-8"))
    assert shown is not None
    run(ROOT / "README.md", [Block(shown[1], 1)])
    assert capsys.readouterr().out == shown[2]


def test_blocks_are_found_and_their_failures_seen(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    fences = ["```python\nx = 1\n```", "```sh\nfalse\n```", "- item\n  ```python\n  assert x == 2\n  ```"]
    page.write_text("text\n" + "\n".join(fences) + "\n", encoding="utf-8")
    found = blocks(page.read_text(encoding="utf-8"))
    assert found == [Block("x = 1\n", 3), Block("assert x == 2\n", 10)]
    run(page, found[:1])
    with pytest.raises(AssertionError) as caught:
        run(page, found)
    assert caught.traceback[-1].lineno == 9  # counted from 0
