"""A tensor as maths: the graph of its expression as text, LaTeX or MathML."""

from __future__ import annotations

from graphc.dsl.build import build
from graphc.dsl.handle import Handle
from graphc.notation.show import to_latex, to_mathml, to_text


def text_of(handle: Handle) -> str:
    """The expression as lines of maths, intermediate values by name."""
    return to_text(build({handle.name or "value": handle}).graph)


def latex_of(handle: Handle) -> str:
    """The expression in LaTeX, for display."""
    return to_latex(build({handle.name or "value": handle}).graph)


def mathml_of(handle: Handle) -> str:
    """The expression in MathML, which browsers show by themselves."""
    return to_mathml(build({handle.name or "value": handle}).graph)
