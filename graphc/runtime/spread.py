"""How the elements of a weight are spread, epoch by epoch, and a small picture of that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

import numpy as np
from numpy.typing import NDArray

from graphc.runtime.curve import svg_start
from graphc.structs import dataclass

_BINS = 32
_WIDTH, _HEIGHT, _TEXT, _GAP = 220, 72, 16, 14
_ROW = 2  # pictures beside each other
_BANDS = ((0.0, 1.0, 0.15), (0.05, 0.95, 0.25), (0.25, 0.75, 0.5))  # two quantiles, and how dense the colour is


@dataclass(frozen=True, slots=True)
class Spread:
    """A histogram: how many elements lie in each of the equal parts of ``low`` to ``high``; ``n_bad`` more are no
    finite numbers."""

    low: float
    high: float
    counts: NDArray[np.int64]
    n_bad: int

    def quantile(self, part: float) -> float:
        """The value below which that part of the elements lies, as exact as the histogram is.

        >>> spread_of(np.arange(0.0, 320.0)).quantile(0.5)
        159.5
        """
        edges = np.linspace(self.low, self.high, len(self.counts) + 1)
        below = np.concatenate([[0], np.cumsum(self.counts)])
        return float(np.interp(part * below[-1], below, edges))


def spread_of(array: NDArray[np.generic]) -> Spread:
    """The spread of an array's elements."""
    finite = np.asarray(array, np.float64)[np.isfinite(array)]
    if not finite.size:
        return Spread(0.0, 0.0, np.zeros(_BINS, np.int64), int(array.size))
    low, high = float(finite.min()), float(finite.max())
    counts, _ = np.histogram(finite, _BINS, (low, high) if low < high else (low - 0.5, low + 0.5))
    return Spread(low, high, counts.astype(np.int64), int(array.size - finite.size))


def spreads_svg(weights: Mapping[str, Sequence[Spread]]) -> str:
    """A picture a weight: over the epochs its least to its greatest element, the middle nine tenths, the middle half.

    Nothing is drawn for fewer than two epochs.

    >>> spreads_svg({"w": [spread_of(np.arange(9.0)), spread_of(np.arange(5.0))]}).count("<polygon")
    3
    """
    shown = {name: spreads for name, spreads in weights.items() if len(spreads) > 1}
    if not shown:
        return ""
    rows = -(-len(shown) // _ROW)
    wide, high = _ROW * (_WIDTH + _GAP), rows * (_HEIGHT + _TEXT + _GAP)
    parts = [svg_start("spreads", wide, high)]
    for n, (name, spreads) in enumerate(shown.items()):
        left, top = n % _ROW * (_WIDTH + _GAP), n // _ROW * (_HEIGHT + _TEXT + _GAP) + _TEXT
        parts += _picture(name, spreads, left, top)
    return "".join(parts) + "</svg>"


def _picture(name: str, spreads: Sequence[Spread], left: float, top: float) -> list[str]:
    low, high = min(s.low for s in spreads), max(s.high for s in spreads)
    label = f"{name}: {low:.3g} to {high:.3g}"
    parts = [f'<text x="{left + 2}" y="{top - 4}">{escape(label)}</text>']

    def line(part: float) -> list[str]:
        at = [(s.quantile(part) - low) / ((high - low) or 1.0) for s in spreads]
        each = _WIDTH / (len(spreads) - 1)
        return [f"{left + k * each:.1f},{top + _HEIGHT * (1 - y):.1f}" for k, y in enumerate(at)]

    for first, last, dense in _BANDS:
        points = " ".join([*line(first), *reversed(line(last))])
        parts.append(f'<polygon points="{points}" fill="#009e73" fill-opacity="{dense}"/>')
    points = " ".join(line(0.5))
    parts.append(f'<polyline points="{points}" fill="none" stroke="currentColor" stroke-width="1"/>')
    return parts
