"""Losses by epoch as a small SVG drawing, for notebooks; ``history.plot`` draws them large."""

from __future__ import annotations

import math
from collections.abc import Sequence

_WIDTH, _HEIGHT, _LEFT, _BELOW = 420, 180, 56, 22
_COLOURS = ("#0072b2", "#d55e00")  # blue and vermilion: told apart by everyone, on white and on black


def curve_svg(losses: Sequence[float], validation: Sequence[float] = ()) -> str:
    """The curves of training and validation losses; on a logarithmic scale where they span more than a factor of 10.

    Numbers that are not finite are left out; the text is empty where fewer than two are left.

    >>> curve_svg([3.0, 2.0, 1.5]).count("<polyline")
    1
    """
    curves = [("training", list(losses), _COLOURS[0])]
    if validation:
        curves.append(("validation", list(validation), _COLOURS[1]))
    finite = [v for _, values, _ in curves for v in values if math.isfinite(v)]
    if len(finite) < 2:
        return ""
    low, high = min(finite), max(finite)
    logs = low > 0 and high > 10 * low
    bottom, top = (math.log(low), math.log(high)) if logs else (low, high)
    most = max(len(values) for _, values, _ in curves)

    def point(epoch: int, value: float) -> str:
        height = ((math.log(value) if logs else value) - bottom) / ((top - bottom) or 1.0)
        x = _LEFT + (_WIDTH - _LEFT - 10) * epoch / max(most - 1, 1)
        return f"{x:.1f},{10 + (_HEIGHT - _BELOW - 10) * (1 - height):.1f}"

    base = _HEIGHT - _BELOW
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{_HEIGHT}" '
        f'viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif" font-size="11" fill="currentColor">',
        f'<path d="M{_LEFT} 6V{base}H{_WIDTH - 6}" fill="none" stroke="currentColor" stroke-opacity="0.5"/>',
        f'<text x="{_LEFT - 4}" y="14" text-anchor="end">{high:.4g}</text>',
        f'<text x="{_LEFT - 4}" y="{base}" text-anchor="end">{low:.4g}</text>',
        f'<text x="{_LEFT}" y="{_HEIGHT - 6}">epoch 1</text>',
        f'<text x="{_WIDTH - 8}" y="{_HEIGHT - 6}" text-anchor="end">{most}</text>',
    ]
    for k, (label, values, colour) in enumerate(curves):
        points = " ".join(point(epoch, v) for epoch, v in enumerate(values) if math.isfinite(v))
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.6"/>')
        place = f'x="{_WIDTH - 10}" y="{22 + 14 * k}" text-anchor="end"'
        parts.append(f'<text {place} style="fill:{colour}">{label}</text>')
    return "".join(parts) + "</svg>"
