"""The presentation tree as LaTeX."""

from __future__ import annotations

import re
from collections.abc import Sequence

from graphc.graph.sizes import SizeLike
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

_SIGNS = {
    "*": r"\,", "·": r"\cdot", "⊙": r"\odot", "⊗": r"\otimes", "≤": r"\le", "≥": r"\ge", "≠": r"\ne", "and": r"\wedge",
    "or": r"\vee", "%": r"\bmod", "Σ": r"\sum", "Π": r"\prod", "←": r"\leftarrow",
}  # fmt: skip
_FUNCTIONS = ("exp", "log", "sin", "cos", "tan", "sinh", "cosh", "tanh", "max", "min", "arcsin", "arccos", "arctan")
GREEK = (
    "alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa", "lambda", "mu", "nu", "xi",
    "pi", "rho", "sigma", "tau", "phi", "chi", "psi", "omega",
)  # fmt: skip


def lines_latex(lines: Sequence[Line], dims: bool = False) -> str:
    """The lines as LaTeX, aligned at their signs; with ``dims`` each with the value's shape.

    >>> print(lines_latex([Line("d_w1", (), Infix("·", Transposed(Symbol("x")), Symbol("d_z")), (64, 10))]))
    \\begin{aligned}
    d_{w_{1}} &= x^{\\top} \\cdot d_{z}
    \\end{aligned}
    """
    rows = []
    for line in lines:
        index = f"_{{{','.join(line.index)}}}" if line.index else ""
        name = f"{{{name_latex(line.name)}}}{index}" if index else name_latex(line.name)
        shape = rf" \qquad {_shape(line.shape)}" if dims and line.shape else ""
        head = f"{name} &{_SIGNS.get(line.sign, line.sign)} " if line.name else "&"
        rows.append(f"{head}{tree_latex(apart(line.value))}{shape}")
    return "\\begin{aligned}\n" + " \\\\\n".join(rows) + "\n\\end{aligned}"


def _shape(shape: Sequence[SizeLike]) -> str:
    return r"(" + r" \times ".join(str(s).replace("*", r" \, ") for s in shape) + ")"


def name_latex(name: str) -> str:
    """A name: ``d_w1`` is d with the index w with the index 1; several letters stand upright, Greek ones are Greek.

    >>> name_latex("d_w1"), name_latex("logits"), name_latex("beta2")
    ('d_{w_{1}}', '\\\\mathrm{logits}', '\\\\beta_{2}')
    """
    if name.endswith("′"):
        return f"{{{name_latex(name[:-1])}}}^{{\\prime}}"
    head, _, rest = name.partition("_")
    if head in ("d", "t") and rest:
        return f"{head}_{{{name_latex(rest)}}}"
    match = re.fullmatch(r"([^\W\d_]+)_?(\d+)", name)
    if match:
        return f"{_word(match[1])}_{{{match[2]}}}"
    return _word(name)


def _word(word: str) -> str:
    if word in GREEK:
        return f"\\{word}"
    return word if len(word) == 1 else rf"\mathrm{{{word.replace('_', chr(92) + '_').replace('%', chr(92) + '%')}}}"


def tree_latex(tree: Tree) -> str:
    """A tree as LaTeX.

    >>> tree_latex(Infix("/", Symbol("a"), Symbol("N")))
    '\\\\frac{a}{N}'
    """
    return _latex(tree)[0]


def _latex(tree: Tree) -> tuple[str, int]:
    """The LaTeX of a tree, and how tightly it binds."""
    if isinstance(tree, Symbol):
        return _indexed(tree.name), ATOM
    if isinstance(tree, Number):
        return _number(tree.text)
    if isinstance(tree, Infix):
        return _infix(tree)
    if isinstance(tree, Negated):
        return (rf"\neg {_inside(tree.value, 4)}", 2) if tree.logical else (f"-{_inside(tree.value, PRODUCT)}", SUM)
    if isinstance(tree, Power):
        return f"{_inside(tree.base, ATOM)}^{{{tree_latex(tree.exponent)}}}", ATOM - 1
    if isinstance(tree, Transposed):
        return f"{_inside(tree.value, ATOM)}^{{\\top}}", ATOM
    if isinstance(tree, Bracket):
        return rf"\left[{tree_latex(tree.condition)}\right]", ATOM
    if isinstance(tree, At):
        parts = ", ".join(tree_latex(i) for i in tree.index)
        return f"{{{_inside(tree.base, ATOM)}}}_{{{parts}}}", ATOM
    if isinstance(tree, Part):
        return ":".join([tree.start, tree.stop] + ([tree.step] if tree.step else [])), ATOM
    if isinstance(tree, Applied):
        return _applied(tree)
    return _joined(tree)


def _indexed(name: str) -> str:
    """A symbol; a size or an index expression that stands as one is left as algebra."""
    return name_latex(name) if re.fullmatch(r"\w[\w.]*′?", name) else name.replace("*", r" \, ")


def _number(text: str) -> tuple[str, int]:
    match = re.fullmatch(r"(-?[\d.]+)e([+-]?\d+)", text)
    if match:
        return rf"{match[1]} \cdot 10^{{{int(match[2])}}}", PRODUCT
    special = {"inf": r"\infty", "-inf": r"-\infty", "nan": r"\mathrm{nan}"}
    return special.get(text, text), SUM if text.startswith("-") else ATOM


def _inside(tree: Tree, level: int) -> str:
    text, binds = _latex(tree)
    return text if binds >= level else rf"\left({text}\right)"


def _infix(tree: Infix) -> tuple[str, int]:
    if tree.sign == "/":
        return rf"\frac{{{tree_latex(tree.left)}}}{{{tree_latex(tree.right)}}}", PRODUCT
    if tree.sign == "//":
        return rf"\left\lfloor \frac{{{tree_latex(tree.left)}}}{{{tree_latex(tree.right)}}} \right\rfloor", ATOM
    left, right = levels(tree)
    sign = _SIGNS.get(tree.sign, tree.sign)
    return f"{_inside(tree.left, left)} {sign} {_inside(tree.right, right)}", BINDS.get(tree.sign, PRODUCT)


def _applied(tree: Applied) -> tuple[str, int]:
    if tree.name == "sqrt" and len(tree.args) == 1:
        return rf"\sqrt{{{tree_latex(tree.args[0])}}}", ATOM
    if tree.name == "abs" and len(tree.args) == 1:
        return rf"\left|{tree_latex(tree.args[0])}\right|", ATOM
    name = f"\\{tree.name}" if tree.name in _FUNCTIONS else _word(tree.name)
    return rf"{name}\left({', '.join(tree_latex(a) for a in tree.args)}\right)", ATOM


def _joined(tree: Joined) -> tuple[str, int]:
    letters = f"_{{{','.join(tree.letters)}}}" if tree.letters else ""
    if tree.sign in LARGE:
        return f"{_SIGNS[tree.sign]}{letters} {_inside(tree.value, PRODUCT)}", PRODUCT
    name = f"\\{tree.sign}" if tree.sign in _FUNCTIONS else rf"\operatorname{{{tree.sign}}}"
    return rf"{name}{letters}\left({tree_latex(tree.value)}\right)", ATOM
