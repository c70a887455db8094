"""The page of operations, ``docs/ops.md``, written from their records: ``python -m graphc.ops.page > docs/ops.md``."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Sequence

import numpy as np

from graphc.graph.dtypes import DTYPES, as_dtype
from graphc.graph.rules import RULES
from graphc.graph.show import formula_text
from graphc.ops.combiners import COMBINERS
from graphc.ops.record import AttrValue, Draw, Operand, Record, Sample, TensorType, Weak, formula_of
from graphc.ops.registry import REGISTRY
from graphc.ops.special import SPECIAL

FAMILIES: tuple[tuple[str, str], ...] = (
    (
        "elementwise",
        "Each element of the result is a scalar function of the operands' elements at the same place; operands "
        "broadcast as in NumPy. Numbers and sizes become part of the formula and take the type of the tensors beside "
        "them.",
    ),
    (
        "reduce",
        "`axis` is None for all axes, one axis, or several; `keepdims` keeps them with size 1. `argmax` and `argmin` "
        "take one axis, or None for the tensor laid flat.",
    ),
    (
        "shape",
        "Elements at other places. `x[...]` takes integers, slices with steps, `None`, `...` and one integer tensor.",
    ),
    ("linalg", "Sums of products."),
    (
        "index",
        "Indices that are data: int32 or int64, from 0 to one less than the axis, checked before anything is read or "
        "written, and never counted from the end.",
    ),
    (
        "composite",
        "Made of other operations, from which their values and derivatives follow.",
    ),
)

BY_HAND = "by hand: "

INTRODUCTION = """\
# Operations

Written from the operations' records by `python -m graphc.ops.page`; a test compares the two.

A formula is shown for the first of the operation's own test operands, with the sizes these have: `$0[i, k]` is operand
0 at the indices i and k, `sum(k<4)` joins over k, `if` bounds what counts. From it follow the loops, the derivative
and the printed maths. *At kinks* says what the derivative is where there is none, or several.
"""


def page() -> str:
    """The page as Markdown.

    >>> page().splitlines()[0]
    '# Operations'
    """
    parts = [INTRODUCTION, _types()]
    for family, about in FAMILIES:
        records = [r for r in REGISTRY.values() if r.family == family and r.public]
        parts.append(f"## {family.capitalize()}\n\n{about}\n\n{_table(records)}")
    parts += [_inside(), _special(), _by_hand(), _counts()]
    return "\n".join(parts)


def _types() -> str:
    return f"""\
## Types

Elements are {", ".join(f"`{name}`" for name in DTYPES)}. Two types meet as in the array API standard; an integer or
boolean tensor beside a floating one takes the floating type, and a Python number the type of the tensor beside it. A
quotient, a mean or a transcendental function of integers is float32. Integers and booleans carry no derivative.
"""


def _table(records: Iterable[Record]) -> str:
    rows = ["| operation | what it is | formula | at kinks |", "|---|---|---|---|"]
    for record in records:
        row = (f"`{_call(record)}`", record.doc, _formula(record), record.ties)
        rows.append("| " + " | ".join(_cell(c) for c in row) + " |")
    return "\n".join(rows) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _call(record: Record) -> str:
    """The operation's name, operands and attributes, as its samples use them."""
    counts = sorted({len(s.operands) for s in record.samples})
    letters = ["x", "y", "z", "w"][: counts[0]] + (["…"] if len(counts) > 1 else [])
    attrs = list(dict.fromkeys(name for s in record.samples for name, _ in s.attrs))
    return f"{record.name}({', '.join(letters)}{'; ' if attrs else ''}{', '.join(attrs)})"


def _formula(record: Record) -> str:
    """The formula for the first sample of tensors alone (or the first); empty for an operation made of others."""
    if record.build is None:
        return ""
    chosen = next((s for s in record.samples if all(isinstance(o, Draw) for o in s.operands)), record.samples[0])
    operands = _operands(chosen)
    attrs = tuple((name, _attr(name, value)) for name, value in chosen.attrs)
    slots = tuple(range(sum(isinstance(o, TensorType) for o in operands)))
    return f"`{_readable(formula_text(formula_of(record, operands, attrs, slots)))}`"


def _readable(text: str) -> str:
    """A formula's text with float32 constants at their shortest, and without statements that only fix an order."""
    *before, result = text.split("; ")
    kept = "; ".join([*(s for s in before if not re.fullmatch(r"\$\d+\[[^\]]*\]|r\d+|[\d.]+", s)), result])
    kept = re.sub(r"^(with \(.*?\)) r\d+; ", r"\1 ", kept)
    return re.sub(r"\d+\.\d{8,}", lambda m: str(np.float32(m[0])), kept)


def _operands(sample: Sample) -> tuple[Operand, ...]:
    return tuple(
        TensorType(o.shape, DTYPES["float32" if o.dtype == "f" else o.dtype])
        if isinstance(o, Draw)
        else Weak(type(o).__name__, repr(o))
        for o in sample.operands
    )


def _attr(name: str, value: AttrValue) -> AttrValue:
    return as_dtype(value) if name == "dtype" and isinstance(value, str) else value


def _inside() -> str:
    records = [r for r in REGISTRY.values() if not r.public]
    about = (
        "Records without a function of their own name: what `[]`, one-sided `clip` and the losses over classes read by."
    )
    return f"## Inside others\n\n{about}\n\n{_table(records)}"


def _rows(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(_cell(c) for c in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def _special() -> str:
    about = "What a formula states poorly has a cotangent and a tangent of its own."
    return f"## Second kind\n\n{about}\n\n" + _rows(
        ("record", "what it is"), [(f"`{s.name}`", s.doc) for s in SPECIAL.values()]
    )


def _by_hand() -> str:
    """Every derivative that is not derived by SymPy or by the formula's transposition, and why."""
    rows = [(f"`{name}`", "function", rule.reason) for name, rule in RULES.items()]
    rows += [
        (f"`{c.name}`", "combiner", c.doc.removeprefix(BY_HAND))
        for c in COMBINERS.values()
        if c.doc.startswith(BY_HAND)
    ]
    about = (
        "All other derivatives follow from the formulas: SymPy derives those of the scalar functions, and read map and "
        "write map change places. Each of these is tested against the derived form, away from kinks."
    )
    return f"## Derivatives written by hand\n\n{about}\n\n" + _rows(("rule", "of a", "why"), rows)


def _counts() -> str:
    public = [r for r in REGISTRY.values() if r.public]
    hand = len(RULES) + sum(c.doc.startswith(BY_HAND) for c in COMBINERS.values())
    return (
        f"{len(public)} operations by record, {len(REGISTRY) - len(public)} inside others, {len(SPECIAL)} of the "
        f"second kind; {hand} derivatives written by hand.\n"
    )


if __name__ == "__main__":
    sys.stdout.write(page())
