"""``docs/ops.md`` is what the records say, and every operation of ``gc`` has a record."""

from __future__ import annotations

from pathlib import Path

import graphc as gc
from graphc.dsl import composite, functions
from graphc.graph.rules import RULES
from graphc.ops.combiners import COMBINERS
from graphc.ops.page import BY_HAND, FAMILIES, page
from graphc.ops.registry import REGISTRY

PAGE = Path(__file__).parent.parent / "docs" / "ops.md"


def test_page_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "python -m graphc.ops.page > docs/ops.md writes it anew"


def test_every_record_is_on_the_page() -> None:
    families = [name for name, _ in FAMILIES]
    assert [r.name for r in REGISTRY.values() if r.family not in families] == []
    assert [name for name in REGISTRY if f"| `{name}(" not in page()] == []


def test_every_public_record_is_a_function_of_gc() -> None:
    assert [r.name for r in REGISTRY.values() if r.public and not callable(getattr(gc, r.name, None))] == []


def test_every_function_has_a_record() -> None:
    """But for ``split``, which gives several tensors: slices."""
    from_folders = [n for n in gc.__all__ if hasattr(functions, n) or hasattr(composite, n)]
    operations = [n for n in from_folders if callable(getattr(gc, n)) and not isinstance(getattr(gc, n), type)]
    assert [n for n in operations if n not in REGISTRY] == ["split"]


def test_few_derivatives_are_written_by_hand() -> None:
    combiners = [c.name for c in COMBINERS.values() if c.doc.startswith(BY_HAND)]
    with_law = [c.name for c in COMBINERS.values() if c.law is not None and not c.linear]
    assert combiners == with_law
    assert len(RULES) + len(combiners) <= 12
    assert all(rule.reason for rule in RULES.values())
