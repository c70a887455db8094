"""Curves by epoch as a small SVG drawing: what a notebook shows of a history, and several runs in one picture."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

_WIDTH, _HEIGHT, _LEFT, _BELOW, _RIGHT = 460, 200, 58, 24, 96
_CURVE = _HEIGHT - _BELOW - 10
_LINE = 12.0  # the height of a label
# Okabe and Ito's palette (2008), and dashes, so that no two curves differ by colour alone.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")
_DASHES = ("", "7 3", "2 3", "9 3 2 3", "4 4", "12 4")


def svg_start(name: str, width: int, height: int) -> str:
    """The beginning of a small drawing, in light or dark colours as the reader's system has them; it has a class of
    its own, since a style sheet inside an SVG in a page holds for the whole page.
    """
    own = f"graphc-{name}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="{own}" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="Helvetica, Arial, DejaVu Sans, sans-serif" font-size="11" '
        'fill="currentColor">'
        f"<style>svg.{own} {{ color: #1a1a1a; background: #ffffff; }} @media (prefers-color-scheme: dark) "
        f"{{ svg.{own} {{ color: #e8e8e8; background: #16181c; }} }}</style>"
    )


def curves_svg(curves: Mapping[str, Sequence[float]]) -> str:
    """Curves by their labels, one number an epoch; on a logarithmic scale where they span more than a factor of 10.

    Numbers that are not finite are left out; the text is empty where fewer than two are left.

    >>> curves_svg({"training": [3.0, 2.0, 1.5]}).count("<polyline")
    1
    """
    finite = [v for values in curves.values() for v in values if math.isfinite(v)]
    if len(finite) < 2:
        return ""
    low, high = min(finite), max(finite)
    logs = low > 0 and high > 10 * low
    bottom, top = (math.log(low), math.log(high)) if logs else (low, high)
    most = max(len(values) for values in curves.values())

    def point(epoch: int, value: float) -> tuple[float, float]:
        part = ((math.log(value) if logs else value) - bottom) / ((top - bottom) or 1.0)
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * epoch / max(most - 1, 1), 10 + _CURVE * (1 - part)

    base, right = 10 + _CURVE, _WIDTH - _RIGHT
    parts = [
        svg_start("curves", _WIDTH, _HEIGHT),
        f'<path d="M{_LEFT} 6V{base}H{right}" fill="none" stroke="currentColor" stroke-opacity="0.5"/>',
        f'<text x="{_LEFT - 4}" y="14" text-anchor="end">{high:.4g}</text>',
        f'<text x="{_LEFT - 4}" y="{base}" text-anchor="end">{low:.4g}</text>',
        f'<text x="{_LEFT}" y="{_HEIGHT - 8}">epoch 1</text>',
        f'<text x="{right}" y="{_HEIGHT - 8}" text-anchor="end">{most}</text>',
    ]
    drawn = [
        (k, label, [point(epoch, v) for epoch, v in enumerate(values) if math.isfinite(v)])
        for k, (label, values) in enumerate(curves.items())
    ]
    drawn = [(k, label, points) for k, label, points in drawn if points]
    places = _apart([points[-1][1] + 4 for _, _, points in drawn], 14, base)
    for (k, label, points), y in zip(drawn, places, strict=True):
        colour, dash = _COLOURS[k % len(_COLOURS)], _DASHES[k % len(_DASHES)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        stroke = f'stroke="{colour}" stroke-width="1.8" stroke-dasharray="{dash}"'
        parts.append(f'<polyline points="{path}" fill="none" {stroke}/>')
        parts.append(f'<text x="{right + 6}" y="{y:.1f}" style="fill:{colour}">{escape(label)}</text>')
    return "".join(parts) + "</svg>"


def _apart(wanted: Sequence[float], top: float, bottom: float) -> list[float]:
    """Places near the wanted ones, in the same order, no two of which are closer than a line's height where that fits.

    >>> _apart([50.0, 100.0, 100.0, 103.0], 0.0, 100.0)
    [50.0, 76.0, 88.0, 100.0]
    """
    gap = min(_LINE, (bottom - top) / max(len(wanted) - 1, 1))
    order = sorted(range(len(wanted)), key=lambda k: wanted[k])
    found = list(wanted)
    least = top
    for k in order:
        least = found[k] = max(found[k], least)
        least += gap
    most = bottom
    for k in reversed(order):
        most = found[k] = min(found[k], most)
        most -= gap
    return found
