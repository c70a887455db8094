"""The report: one self-contained page on which formulas, kernels, LLVM and assembly are linked.

This file gathers what the page shows, as plain data; ``page/`` holds the page itself, which needs no network.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from typing import TypedDict

from graphc.diff.reverse import Backward
from graphc.graph.graph import Graph, Node
from graphc.graph.sizes import SizeLike, evaluate
from graphc.inspect.annotated import PhaseText, place_text
from graphc.inspect.bench import SIZE
from graphc.inspect.explain import Explanation, row_text
from graphc.inspect.links import DERIVED, Links
from graphc.inspect.profile import Profile
from graphc.inspect.spans import Code
from graphc.kernels.cost import Cost
from graphc.kernels.form import Program
from graphc.kernels.memory import lives
from graphc.notation.mathml import lines_mathml
from graphc.notation.text import line_text
from graphc.notation.tree import Line, symbols
from graphc.rewrite.page import reasons
from graphc.rewrite.work import Firing

Data = dict[str, object]


class FormulaData(TypedDict):
    """A line of maths, as the page has it: of which pass, its name, as text and as MathML, the places of its values."""

    section: str
    name: str
    text: str
    mathml: str
    values: list[int]


def page(title: str, data: Mapping[str, object]) -> str:
    """The page as HTML."""
    embedded = json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("</", "<\\/")
    parts = {"TITLE": escape(title), "CSS": _file("page.css"), "JS": _file("page.js"), "DATA": embedded}
    first, *rest = _file("page.html").split("@")
    found = [first]  # every second part of the template is a name
    for number, part in enumerate(rest):
        found.append(part if number % 2 else parts[part])
    return "".join(found)


def _file(name: str) -> str:
    return (files("graphc.inspect") / "page" / name).read_text(encoding="utf-8")


def links_data(links: Links) -> Data:
    """Values, the listing, LLVM and assembly with what ties them together."""
    values = [
        {
            "stage": v.stage, "number": v.number, "name": v.name, "text": v.text, "type": v.type, "source": v.source,
            "became": v.became, "lines": v.lines, "removed": v.removed, "reason": v.reason, "twin": v.twin,
        }
        for v in links.values
    ]  # fmt: skip
    listing = [
        {
            "text": line.text, "kernel": line.kernel, "serves": bool(line.nodes) or line.part in ("loop", "head"),
        }
        for line in links.listing
    ]  # fmt: skip
    return {
        "values": values, "listing": listing, "served": links.served,
        "instead": {str(line): others for line, others in links.instead.items() if others},
        "llvm": _code(links.llvm), "asm": _code(links.asm),
    }  # fmt: skip


def _code(code: Code) -> Data:
    """A text, each different line of it once; kernels have most of them in common."""
    lines = code.text.split("\n")
    different = [line for line, _ in Counter(lines).most_common()]  # the commonest have the shortest numbers
    number = {line: n for n, line in enumerate(different)}
    spans = [(s.start, s.end, s.function, s.sources) for s in code.spans]
    return {"different": different, "lines": [number[line] for line in lines], "spans": spans}


def formulas_data(
    section: str, lines: Sequence[Line], graph: Graph, places: Mapping[Node, Sequence[int]]
) -> list[FormulaData]:
    """Lines of maths, each with the values that it computes: its own, and those without a line that stand in it.

    places: for a node of ``graph``, whose lines they are, the places of its values.
    """
    own = {line.node for line in lines}
    found: list[list[int]] = []
    for line in lines:
        inside: dict[int, None] = {}
        stack = [graph.nodes[line.node]] if line.node >= 0 else []
        while stack:
            node = stack.pop()
            inside.update(dict.fromkeys(places.get(node, ())))
            stack += [i for i in node.inputs if i.number not in own and i.inputs and not graph.name(i)]
        found.append(list(inside))
    readers: dict[str, list[int]] = {}
    for n, line in enumerate(lines):
        for name in dict.fromkeys(symbols(line.value)):
            readers.setdefault(name, []).append(n)
    for k in range(len(lines) - 1, -1, -1):  # a part of a value belongs to whatever reads it
        if lines[k].node < 0:
            found[k] = list(dict.fromkeys(v for n in readers.get(lines[k].name, ()) for v in found[n]))
    return [
        {
            "section": section, "name": line.name, "text": line_text(line), "mathml": lines_mathml([line]),
            "values": values,
        }
        for line, values in zip(lines, found, strict=True)
    ]  # fmt: skip


def ledger_data(told: Explanation, backward: Backward, carried: Mapping[Node, Node], links: Links) -> list[Data]:
    """The ledger's rows, each with its value. carried: of a node of its graph the one in the whole step's."""
    place = {v.number: k for k, v in enumerate(links.values) if v.stage == DERIVED}
    rows: list[Data] = []
    for text, row in zip(told.rows, backward.ledger, strict=True):
        node = carried.get(row.node)
        values = [place[node.number]] if node is not None and node.number in place else []
        rows.append({"name": text.name, "text": row_text(text), "values": values})
    return rows


def rewrites_data(firings: Sequence[Firing]) -> list[Data]:
    """Every rewrite that fired, in order."""
    why = reasons()
    return [
        {
            "phase": f.phase, "rule": f.rule, "label": f.label, "place": place_text(f), "before": f.before,
            "after": f.after, "why": why.get(f.rule, ""),
        }
        for f in firings
    ]  # fmt: skip


def phases_data(phases: Sequence[PhaseText]) -> list[list[str]]:
    """The phases of rewriting, a row each."""
    rows = []
    for p in phases:
        (first, last), (nodes, left) = p.operations, p.nodes
        operations = f"{first} → {last}" if first != last else str(first)
        rows.append([p.name, str(p.passes), f"{nodes} → {left}", operations])
    return rows


def passes_of(formulas: Sequence[FormulaData], links: Links) -> list[str]:
    """For each kernel the passes that it belongs to, by the formulas whose values it computes: ``forward``,
    ``backward, update``. A value belongs to the first pass that has it."""
    owner: dict[int, str] = {}
    for formula in formulas:
        for v in formula["values"]:
            owner.setdefault(v, _PASSES[formula["section"]])
            if links.values[v].twin >= 0:
                owner.setdefault(links.values[v].twin, owner[v])
    found: list[dict[str, None]] = [{} for _ in links.kernels]
    for name in _PASSES.values():
        for v, own in owner.items():
            for number in links.values[v].lines if own == name else ():
                line = links.listing[number - 1]
                if line.nodes:
                    found[line.kernel][name] = None
    return [", ".join(names) for names in found]


_PASSES = {"Forward pass": "forward", "Back propagation": "backward", "Update": "update"}


def cost_data(sheet: Cost, program: Program, links: Links, passes: Sequence[str], profile: Profile | None) -> Data:
    """The cost sheet, with times predicted for ``SIZE`` of every run-time dimension, or measured. passes: of each
    kernel."""
    dims: Mapping[str, int] = profile.dims if profile is not None else dict.fromkeys(program.dims, SIZE)
    kernels: list[Data] = []
    for k, (name, row) in enumerate(zip(links.kernels, sheet.kernels, strict=True)):
        timed = profile.kernels[k] if profile is not None else None
        kernels.append(
            {
                "name": name, "pass": passes[k], "operations": str(row.operations), "bytes": str(row.n_bytes),
                "predicted": evaluate(row.picoseconds, dims) / 1000,
                "measured": timed.seconds * 1e9 if timed is not None else None,
                "floor": timed.floor * 1e9 if timed is not None else None,
            }
        )  # fmt: skip
    each: dict[str, SizeLike] = {}
    for name, row in zip(passes, sheet.kernels, strict=True):
        each[name or "others"] = each.get(name or "others", 0) + row.operations
    parts = [f"{name}: {operations}" for name, operations in each.items()]
    text = f"{sheet.operations} operations ({'; '.join(parts)}); {sheet.text().splitlines()[-1]}"
    if profile is not None:
        text += f"; a call takes {profile.step * 1e6:.4g} us"
    at = ", ".join(f"{name} = {size}" for name, size in dims.items())
    return {"kernels": kernels, "cost": text, "sizes": f" for {at}" if at else ""}


def memory_data(program: Program, links: Links) -> list[Data]:
    """The memory plan: what lies in the arena, then what is kept or given, each with the lines that store or load
    it."""
    born, dies = lives(program)
    lines: dict[int, list[int]] = {}
    for number, line in enumerate(links.listing, 1):
        for node in {*line.loads, *(line.nodes if line.part in ("store", "inner") else ())}:
            lines.setdefault(node, []).append(number)
    rows: list[Data] = []
    in_arena = sorted(born, key=lambda b: (program.slot[b], born[b]))
    for k in [*in_arena, *(k for k in range(len(program.buffers)) if k not in born)]:
        buffer = program.buffers[k]
        where, life = buffer.role, ""
        if k in born:
            last = "end" if dies[k] >= len(program.kernels) else str(dies[k])
            where, life = f"slot {program.slot[k]}", f"{born[k]}..{last}"
        type_ = f"{buffer.dtype}[{', '.join(map(str, buffer.shape))}]"
        own = lines.get(buffer.node, [])
        rows.append({"where": where, "name": buffer.name, "type": type_, "lives": life, "lines": own})
    return rows
