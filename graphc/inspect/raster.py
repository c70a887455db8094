"""An SVG drawing as PNG, by resvg-py (optional; decision 11)."""

from __future__ import annotations

from graphc.errors import UsageError

_ZOOM = 2.0  # pixels for each unit of the drawing, for paper and dense screens
# The families that resvg falls back on: those that most Linux systems have; on others it finds the drawing's own.
_SANS, _MONOSPACE = "DejaVu Sans", "DejaVu Sans Mono"


def png(what: str, svg: str) -> bytes:
    """The PNG file of a drawing, in its light colours. what: the caller's name in messages.

    Raises: UsageError where resvg-py is not installed.
    """
    try:
        import resvg_py
    except ImportError as error:
        raise UsageError(f"{what}: a PNG needs resvg-py: pip install resvg-py") from error
    made = resvg_py.svg_to_bytes(
        svg_string=svg, zoom=_ZOOM, background="white", sans_serif_family=_SANS, monospace_family=_MONOSPACE
    )
    return bytes(made)
