"""Machine code and rewrites as text that a person reads: which formula each range of assembly comes from, and for each
rule that fired what it did and why it may."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from graphc.graph.graph import Passage
from graphc.graph.sizes import SizeLike
from graphc.inspect.links import Links
from graphc.inspect.spans import Code, Span
from graphc.kernels.cost import operations_of
from graphc.rewrite.page import reasons
from graphc.rewrite.work import Firing
from graphc.structs import dataclass

MOST_NAMES = 6  # of values in a comment


def annotated(links: Links, code: Code, comment: str) -> str:
    """LLVM or assembly, and above each range the line of the kernels' listing and the values that it comes from.

    comment: what begins one, the space before it included.
    """
    starts = {span.start: span for span in code.spans}
    lines = []
    for number, text in enumerate(code.text.splitlines(), 1):
        if number in starts:
            lines.append(f"{comment} {_said(links, starts[number])}")
        lines.append(text)
    return "\n".join(lines) + "\n"


def _said(links: Links, span: Span) -> str:
    """Where a range comes from: ``k3 line 15: t2 = add(t0, t1)    hidden, z``."""
    names = dict.fromkeys(value.name for value in links.values_of(span))
    shown = ", ".join(list(names)[:MOST_NAMES])
    shown += f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    lines = [links.listing[source - 1] for source in span.sources]
    kernels = list(dict.fromkeys(links.kernels[line.kernel] for line in lines))
    if len(span.sources) == 1:
        return f"{kernels[0]} line {span.sources[0]}: {lines[0].text.strip()}    {shown}"
    return f"{', '.join(kernels)} lines {', '.join(map(str, span.sources))}    {shown}"


@dataclass(frozen=True, slots=True)
class PhaseText:
    """A phase of rewriting: how many live nodes the graph had and operations its formulas asked for, before and
    after."""

    name: str
    nodes: tuple[int, int]
    operations: tuple[SizeLike, SizeLike]
    passes: int


def phases_of(passages: Sequence[Passage]) -> list[PhaseText]:
    """The phases of rewriting among some passages, in order."""
    derived = next((k for k, p in enumerate(passages) if p.name == "derived"), 0)
    named = [
        (f"{p.name}, before derivatives" if k < derived else p.name, p)
        for k, p in enumerate(passages)
        if p.name not in _NO_PHASES
    ]
    found: list[PhaseText] = []
    for name, pairs in groupby(named, key=lambda pair: pair[0]):
        run = [passage for _, passage in pairs]
        first, last = run[0].before, run[-1].after
        counts = len(run[0].new), len(last.live())
        found.append(PhaseText(name, counts, (operations_of(first), operations_of(last)), len(run)))
    return found


_NO_PHASES = ("rewritten", "derived", "stored", "solved", "composed", "laid out")


def rewrites_text(phases: Sequence[PhaseText], firings: Sequence[Firing]) -> str:
    """The phases as a table, the rules that fired with why they may, and every firing."""
    rows = [("phase", "passes", "nodes", "operations")]
    for p in phases:
        first, last = p.operations
        operations = f"{first} -> {last}" if first != last else str(first)
        rows.append((p.name, str(p.passes), f"{p.nodes[0]} -> {p.nodes[1]}", operations))
    widths = [max(len(row[c]) for row in rows) for c in range(4)]
    lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
    why, fired = reasons(), dict.fromkeys((f.rule, f.label) for f in firings)
    lines += ["", "rules that fired"]
    for rule, label in fired:
        count = sum(f.rule == rule for f in firings)
        lines.append(f"  {rule} ({label}, {count} times): {why.get(rule, '')}")
    lines += ["", "in order"]
    for number, f in enumerate(firings):
        lines.append(f"  {number}  {f.phase}: {f.rule} ({f.label}){_at(f)}")
        lines.append(f"       {f.before}")
        lines.append(f"    =  {f.after}")
    return "\n".join(lines) + "\n"


def _at(firing: Firing) -> str:
    where = place_text(firing)
    return f"  at {where}" if where else ""


def place_text(firing: Firing) -> str:
    """The value where a rule fired, and the user's line; empty where neither is known."""
    name = next((o.name or o.note or o.op for o in firing.origins if o.name or o.note or o.op), "")
    site = next((o.site for o in firing.origins if o.site), None)
    return " ".join(t for t in (name, f"[{site}]" if site else "") if t)
