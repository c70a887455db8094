"""The presentation tree as MathML, which browsers show without help."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape

from graphc.graph.sizes import SizeLike
from graphc.notation.latex import GREEK
from graphc.notation.text import ATOM, BINDS, LARGE, PRODUCT, SUM, apart, levels
from graphc.notation.tree import (
    Applied,
    At,
    Bracket,
    Infix,
    Joined,
    Line,
    Negated,
    Number,
    Part,
    Power,
    Symbol,
    Transposed,
    Tree,
)

_LETTERS = dict(zip(GREEK, "αβγδεζηθικλμνξπρστφχψω", strict=True))
_SIGNS = {"*": "&#x2062;", "-": "−", "and": "∧", "or": "∨", "%": "mod", "Σ": "∑", "Π": "∏"}  # 2062: invisible times
_TALL = ("<mfrac", "<munder", "<msqrt", "<mroot", "<mtable")


def lines_mathml(lines: Sequence[Line], dims: bool = False) -> str:
    """The lines as one MathML element, aligned at their signs; with ``dims`` each with the value's shape.

    >>> print(lines_mathml([Line("y", (), Infix("·", Symbol("x"), Symbol("w")), ())]))
    <math xmlns=...><mtable ...>...<mrow><mi>x</mi><mo>·</mo><mi>w</mi></mrow></mtd></mtr></mtable></math>
    """
    rows = []
    for line in lines:
        name = _name(line.name) if line.name else ""
        if line.index:
            name = f"<msub>{name}{_row([_text_of(', '.join(line.index))])}</msub>"
        sign = _operator(line.sign) if line.name else ""
        cells = [("right", name), ("center", sign), ("left", tree_mathml(apart(line.value)))]
        if dims and line.shape:
            cells.append(("left", f'<mspace width="2em"/>{_shape(line.shape)}'))
        rows.append("".join(f'<mtd style="text-align: {side}">{_row([cell])}</mtd>' for side, cell in cells))
    table = "".join(f"<mtr>{row}</mtr>" for row in rows)
    style = "text-align: left"
    return (
        '<math xmlns="http://www.w3.org/1998/Math/MathML" display="block">'
        f'<mtable displaystyle="true" columnalign="right center left left" style="{style}">{table}</mtable></math>'
    )


def _shape(shape: Sequence[SizeLike]) -> str:
    return _fenced(_text_of(" × ".join(str(s) for s in shape)))


def tree_mathml(tree: Tree) -> str:
    """A tree as MathML.

    >>> tree_mathml(Infix("/", Symbol("a"), Number("2")))
    '<mfrac><mi>a</mi><mn>2</mn></mfrac>'
    """
    return _mathml(tree)[0]


def _mathml(tree: Tree) -> tuple[str, int]:
    """The MathML of a tree, one element, and how tightly it binds."""
    if isinstance(tree, Symbol):
        return _name(tree.name), ATOM
    if isinstance(tree, Number):
        return _number(tree.text)
    if isinstance(tree, Infix):
        return _infix(tree)
    if isinstance(tree, Negated):
        sign, level, binds = ("¬", 4, 2) if tree.logical else ("−", PRODUCT, SUM)
        return _row([f'<mo form="prefix">{sign}</mo>', _inside(tree.value, level)]), binds
    if isinstance(tree, Power):
        return f"<msup>{_inside(tree.base, ATOM)}{tree_mathml(tree.exponent)}</msup>", ATOM - 1
    if isinstance(tree, Transposed):
        return f"<msup>{_inside(tree.value, ATOM)}<mo>⊤</mo></msup>", ATOM
    if isinstance(tree, Bracket):
        return _fenced(tree_mathml(tree.condition), "[", "]"), ATOM
    if isinstance(tree, At):
        return f"<msub>{_inside(tree.base, ATOM)}{_listed(tree.index)}</msub>", ATOM
    if isinstance(tree, Part):
        return _text_of(":".join([tree.start, tree.stop] + ([tree.step] if tree.step else []))), ATOM
    if isinstance(tree, Applied):
        return _applied(tree)
    return _joined(tree)


def _row(parts: Sequence[str]) -> str:
    """Parts as one element."""
    return parts[0] if len(parts) == 1 else f"<mrow>{''.join(parts)}</mrow>"


def _fenced(inner: str, left: str = "(", right: str = ")") -> str:
    tall = any(element in inner for element in _TALL)  # else brackets keep to the line, whatever font there is
    own = "" if tall else ' stretchy="false"'
    return f'<mrow><mo form="prefix"{own}>{left}</mo>{inner}<mo form="postfix"{own}>{right}</mo></mrow>'


def _text_of(text: str) -> str:
    return f"<mtext>{escape(text)}</mtext>"


def _operator(sign: str) -> str:
    shown = _SIGNS.get(sign, escape(sign))
    space = ' lspace="0.15em" rspace="0.15em"' if sign == "*" else ""  # names of several letters stand side by side
    return f"<mo{space}>{shown}</mo>"


def _name(name: str) -> str:
    """A name: ``d_w1`` is d with the index w with the index 1; Greek ones are Greek; algebra of sizes stays text."""
    if not re.fullmatch(r"\w[\w.]*′?", name):
        return _text_of(name.replace("*", "·"))
    if name.endswith("′"):
        return f"<msup>{_name(name[:-1])}<mo>′</mo></msup>"
    head, _, rest = name.partition("_")
    if head in ("d", "t") and rest:
        return f"<msub><mi>{head}</mi>{_name(rest)}</msub>"
    match = re.fullmatch(r"([^\W\d_]+)_?(\d+)", name)
    if match:
        return f"<msub>{_word(match[1])}<mn>{match[2]}</mn></msub>"
    return _word(name)


def _word(word: str) -> str:
    return f"<mi>{_LETTERS.get(word, escape(word))}</mi>"


def _number(text: str) -> tuple[str, int]:
    match = re.fullmatch(r"(-?[\d.]+)e([+-]?\d+)", text)
    if match:
        power = f"<msup><mn>10</mn><mn>{int(match[2])}</mn></msup>"
        return _row([f"<mn>{match[1]}</mn>", "<mo>·</mo>", power]), PRODUCT
    if text.startswith("-"):
        return _row(['<mo form="prefix">−</mo>', _number(text[1:])[0]]), SUM
    return {"inf": "<mi>∞</mi>"}.get(text, f"<mn>{escape(text)}</mn>"), ATOM


def _inside(tree: Tree, level: int) -> str:
    text, binds = _mathml(tree)
    return text if binds >= level else _fenced(text)


def _infix(tree: Infix) -> tuple[str, int]:
    if tree.sign in ("/", "//"):
        fraction = f"<mfrac>{tree_mathml(tree.left)}{tree_mathml(tree.right)}</mfrac>"
        return (fraction, PRODUCT) if tree.sign == "/" else (_fenced(fraction, "⌊", "⌋"), ATOM)
    left, right = levels(tree)
    parts = [_inside(tree.left, left), _operator(tree.sign), _inside(tree.right, right)]
    return _row(parts), BINDS.get(tree.sign, PRODUCT)


def _listed(trees: Sequence[Tree]) -> str:
    """Trees with commas between them."""
    found: list[str] = []
    for tree in trees:
        found += ["<mo>,</mo>"] if found else []
        found.append(tree_mathml(tree))
    return _row(found) if found else "<mrow></mrow>"


def _applied(tree: Applied) -> tuple[str, int]:
    if tree.name == "sqrt" and len(tree.args) == 1:
        return f"<msqrt>{tree_mathml(tree.args[0])}</msqrt>", ATOM
    if tree.name == "abs" and len(tree.args) == 1:
        return _fenced(tree_mathml(tree.args[0]), "|", "|"), ATOM
    return _row([f"<mi>{escape(tree.name)}</mi>", "<mo>&#x2061;</mo>", _fenced(_listed(tree.args))]), ATOM


def _joined(tree: Joined) -> tuple[str, int]:
    large = tree.sign in LARGE
    sign = _operator(tree.sign) if large else f"<mi>{escape(tree.sign)}</mi>"
    if tree.letters:
        element = "munder" if large else "msub"
        sign = f"<{element}>{sign}{_text_of(','.join(tree.letters))}</{element}>"
    if large:
        return _row([sign, _inside(tree.value, PRODUCT)]), PRODUCT
    return _row([sign, _fenced(tree_mathml(tree.value))]), ATOM
