"""Live numbers as a person takes them in: range, norm, a small picture, what is dead and what is saturated."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from graphc.graph.graph import Array
from graphc.structs import dataclass

_SHADES = " ·░▒▓█"
_ROWS, _COLUMNS = 6, 48  # the most that a picture has
_BAR = 24
SLOPE = 0.01  # an elementwise operation that passes less of the gradient than this is saturated there

Doubles = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Numbers:
    """What a value is, in numbers.

    size: root mean square, which does not grow with the shape. n_bad: elements that are NaN or infinite, which the
    others leave out. dead: how many units (places along the last axis) are 0 in every row, of how many; None where
    there is one row only. picture: lines of shades, the largest magnitude in each block; none
    where all elements are equal.
    """

    name: str
    shape: tuple[int, ...]
    low: float
    high: float
    norm: float
    size: float
    n_zero: int
    n_bad: int
    dead: tuple[int, int] | None
    picture: tuple[str, ...]

    def brief(self) -> str:
        """A label's worth: the range, or how many are no finite number."""
        if self.n_bad:
            return f"{self.n_bad} not finite"
        return f"{self.low:.3g}" if self.low == self.high else f"{self.low:.2g} … {self.high:.2g}"

    def __str__(self) -> str:
        if not self.shape and not self.n_bad:
            return f"{self.name} = {self.low:.6g}"
        n = int(np.prod(self.shape))
        text = f"{self.name} {self.shape}: {self.low:.4g} to {self.high:.4g}, norm {self.norm:.4g}"
        if self.n_zero:
            text += f", {self.n_zero} of {n} are 0"
        if self.dead is not None and self.dead[0]:
            text += f", {self.dead[0]} of {self.dead[1]} units are 0 throughout"
        if self.n_bad:
            text += f", {self.n_bad} of {n} are no finite number"
        return text


@dataclass(frozen=True, slots=True)
class Live:
    """A row's live numbers: the value, its cotangent, and for each consumer that works element by element how many of
    its elements pass on less than ``SLOPE`` of what reaches them, of how many."""

    value: Numbers
    cotangent: Numbers
    saturated: tuple[tuple[str, int, int], ...] = ()


def numbers(name: str, array: Array) -> Numbers:
    """The numbers of an array.

    >>> print(numbers("h", np.array([[0.0, 3.0], [0.0, 4.0]])))
    h (2, 2): 0 to 4, norm 5, 2 of 4 are 0, 1 of 2 units are 0 throughout
    >>> numbers("h", np.array([[0.0, 3.0], [0.0, 4.0]])).picture
    (' ▓', ' █')
    """
    wide = np.asarray(array, dtype=np.float64)
    finite = np.isfinite(wide)
    kept = wide[finite]
    squares = float((kept * kept).sum())
    dead = None
    if wide.ndim > 1 and wide.shape[-1] > 1 and wide.size > wide.shape[-1]:
        silent = (wide == 0).all(axis=tuple(range(wide.ndim - 1)))
        dead = (int(silent.sum()), int(wide.shape[-1]))
    return Numbers(
        name,
        tuple(wide.shape),
        float(kept.min()) if kept.size else float("nan"),
        float(kept.max()) if kept.size else float("nan"),
        float(np.sqrt(squares)),
        float(np.sqrt(squares / kept.size)) if kept.size else 0.0,
        int((wide == 0).sum()),
        int((~finite).sum()),
        dead,
        heat_map(wide) if wide.ndim and (not finite.all() or kept.min() < kept.max()) else (),
    )


def heat_map(array: Doubles) -> tuple[str, ...]:
    """Rows of shades, dark where the magnitude is large, ``!`` where a number is not finite; none where all are 0.

    Further axes than two are rows too. A block of several elements shows its largest.
    """
    table = np.abs(array.reshape(-1, array.shape[-1]))
    top = float(np.max(table, where=np.isfinite(table), initial=0.0))
    if top == 0.0 and np.isfinite(table).all():
        return ()
    marks = np.where(np.isfinite(table), table / (top or 1.0), np.inf)
    for axis, most in ((0, _ROWS), (1, _COLUMNS)):
        n = marks.shape[axis]
        if n > most:
            starts = [k * n // most for k in range(most)]
            marks = np.maximum.reduceat(marks, starts, axis=axis)
    return tuple("".join(_shade(float(m)) for m in row) for row in marks)


def _shade(part: float) -> str:
    if part == np.inf:
        return "!"
    return _SHADES[0 if part == 0.0 else min(1 + int(part * (len(_SHADES) - 1)), len(_SHADES) - 1)]


def n_saturated(upstream: Array, product: Array) -> tuple[int, int]:
    """Of the elements that a gradient reaches, how many pass on less than ``SLOPE`` of it; and how many it reaches."""
    reached = np.abs(np.asarray(upstream, np.float64))
    passed = np.abs(np.asarray(product, np.float64))
    return int(((reached > 0) & (passed < SLOPE * reached)).sum()), int((reached > 0).sum())


def sizes_text(rows: Sequence[Live]) -> str:
    """The gradient's size from the loss back, as bars on a logarithmic scale: where it fades or grows is seen at once.

    A bar is full at the largest and empty where a gradient is 1e-12 of that.
    """
    top = max((row.cotangent.size for row in rows), default=0.0)
    width = max((len(row.cotangent.name) for row in rows), default=0)
    lines = ["size of the gradient, root mean square, from the loss back"]
    for row in rows:
        found = row.cotangent
        part = 1 + np.log10(found.size / top) / 12 if found.size > 0 and top > 0 else 0.0
        bar = "█" * max(0, round(_BAR * part))
        note = "  not finite" if found.n_bad else "  nothing comes through" if found.size == 0 else ""
        lines.append(f"  {found.name:{width}}  {found.size:9.3g}  {bar}{note}")
    return "\n".join(lines)
