"""The page of the rewrite rules, ``docs/rules.md``, written from the tables: ``python -m graphc.rewrite.page``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from graphc.rewrite.phases import BEFORE_DERIVATIVES, PHASES
from graphc.rewrite.scalar_rules import TABLES
from graphc.rewrite.work import TensorRule

ABOUT = """# Rewrite rules

Written from the tables by `python -m graphc.rewrite.page`. A rule is `exact` (keeps every bit), `rounding` (holds for
real numbers; runs under `fast_math`, the default) or `finite` (also assumes that nothing on its left side is NaN or
infinite; runs where that is proved, or under `assume_finite=True`). Every rule is tested from its table on drawn
operands: `exact` ones on special values too, bit by bit. `step.show("rewrites")` lists what fired, before and after.

The phases run in this order, each until nothing fires, each with the rules of those before it.
"""

SCALARS = """## Inside a body

`x y z` and `nonneg` (at least 0) are floats, `n m` numbers, `i j` and `natural` integers, `a b e` anything, `p q`
conditions, `c d normal power_of_two` constants. What is spread over several elementwise nodes is found as if it
stood in one body.
"""


def page() -> str:
    """The page as Markdown."""
    parts = [ABOUT, _phases(), SCALARS]
    for table in TABLES:
        rows = [(f"`{r.name}`", r.label, f"`{r.left!r}`", f"`{r.right!r}`", r.why) for r in table.rules]
        head = ("rule", "label", "left", "right", "what differs, or is won")
        parts.append(f"### {table.name}\n\n" + _rows(head, rows))
    parts.append("## Formulas\n\n" + _rows(("rule", "label", "what it does"), [_tensor(r) for r in _tensor_rules()]))
    return "\n".join(parts)


def reasons() -> dict[str, str]:
    """Why each rule may be used, by its name: what differs or is won, or what it does."""
    found = {
        "fold-constants": "an operation of constants is a constant, computed as NumPy does in its own type",
        "cast-twice": "the wider conversion in between loses nothing",
        "commute": "an equal value is there already, its operands in another order",
    }
    for table in TABLES:
        found |= {r.name: r.why or "both sides have the same bits for every value" for r in table.rules}
    return found | {rule.name: _said(rule) for rule in _tensor_rules()}


def _phases() -> str:
    rows = [
        (f"`{p.name}`", ", ".join(t.name for t in p.tables), ", ".join(f"`{r.name}`" for r in p.rules)) for p in PHASES
    ]
    return _rows(("phase", "tables", "rules on formulas"), rows)


def _tensor_rules() -> list[TensorRule]:
    return list({rule.name: rule for phase in (*PHASES, *BEFORE_DERIVATIVES) for rule in phase.rules}.values())


def _tensor(rule: TensorRule) -> tuple[str, str, str]:
    return f"`{rule.name}`", rule.label, _said(rule)


def _said(rule: TensorRule) -> str:
    return " ".join((rule.apply.__doc__ or "").split("\n\n")[0].split())


def _rows(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(page())
