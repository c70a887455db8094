"""The presentation tree as plain text, in the signs of mathematics."""

from __future__ import annotations

from collections.abc import Sequence

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

_SUBSCRIPT = dict(zip("aehijklmnoprstuvx0123456789", "ₐₑₕᵢⱼₖₗₘₙₒₚᵣₛₜᵤᵥₓ₀₁₂₃₄₅₆₇₈₉", strict=True))
_SUPERSCRIPT = dict(zip("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻", strict=True))

# How tightly a sign binds. A product beside a product of another kind takes parentheses.
SUM, PRODUCT, PREFIX, ATOM = 5, 6, 7, 9
BINDS = {"or": 1, "and": 2, "=": 3, "≠": 3, "<": 3, "≤": 3, ">": 3, "≥": 3, "+": SUM, "-": SUM}
_FACTORS = ("*", "⊙")  # a * b ⊙ c is the same however it is read
PRODUCTS = ("*", "/", "·", "⊙", "⊗", "//", "%")
LARGE = ("Σ", "Π")  # what they join stands behind them without parentheses


def lines_text(lines: Sequence[Line], dims: bool = False) -> str:
    """The lines as text; with ``dims`` each with the value's shape.

    >>> print(lines_text([Line("d_w", (), Infix("·", Transposed(Symbol("x")), Symbol("d_z")), (64, 10))], dims=True))
    d_w = xᵀ · d_z    (64 × 10)
    """
    return "\n".join(line_text(line, dims) for line in lines)


def line_text(line: Line, dims: bool = False) -> str:
    """One line."""
    index = f"[{', '.join(line.index)}]" if line.index else ""
    shape = f"    ({' × '.join(str(s) for s in line.shape)})" if dims and line.shape else ""
    head = f"{line.name}{index} {line.sign} " if line.name else ""
    return f"{head}{tree_text(apart(line.value))}{shape}"


def apart(value: Tree) -> Tree:
    """The value of a line; an equation in brackets, so that it is not read as a second one."""
    return Bracket(value) if isinstance(value, Infix) and value.sign == "=" else value


def tree_text(tree: Tree) -> str:
    """A tree as text.

    >>> tree_text(Infix("⊙", Symbol("d"), Bracket(Infix(">", Symbol("z"), Number("0")))))
    'd ⊙ [z > 0]'
    """
    return _text(tree)[0]


def _text(tree: Tree) -> tuple[str, int]:
    """The text of a tree, and how tightly it binds."""
    if isinstance(tree, Symbol):
        return tree.name, ATOM
    if isinstance(tree, Number):
        return tree.text, SUM if tree.text.startswith("-") else ATOM
    if isinstance(tree, Infix):
        return _infix(tree)
    if isinstance(tree, Negated):
        if tree.logical:
            return f"not {_inside(tree.value, 4)}", 2
        return f"-{_inside(tree.value, PRODUCT)}", SUM
    if isinstance(tree, Power):
        return _power(tree)
    if isinstance(tree, Transposed):
        return f"{_inside(tree.value, ATOM)}ᵀ", ATOM
    if isinstance(tree, Bracket):
        return f"[{tree_text(tree.condition)}]", ATOM
    if isinstance(tree, At):
        return f"{_inside(tree.base, ATOM)}[{', '.join(tree_text(i) for i in tree.index)}]", ATOM
    if isinstance(tree, Part):
        step = f":{tree.step}" if tree.step else ""
        return f"{tree.start}:{tree.stop}{step}", ATOM
    if isinstance(tree, Applied):
        return f"{tree.name}({', '.join(tree_text(a) for a in tree.args)})", ATOM
    return _joined(tree)


def _inside(tree: Tree, level: int) -> str:
    """The text of a part, in parentheses where it binds less tightly than ``level``."""
    text, binds = _text(tree)
    return text if binds >= level else f"({text})"


def _infix(tree: Infix) -> tuple[str, int]:
    binds = BINDS.get(tree.sign, PRODUCT)
    left, right = _inside(tree.left, binds + (binds == 3)), _inside(tree.right, binds + 1)
    if binds == PRODUCT:
        left = f"({left})" if mixed(tree.left, tree.sign) else left
    if flat(tree):
        right = tree_text(tree.right)
    if isinstance(tree.left, Joined) and tree.left.sign in LARGE and binds >= SUM:
        left = f"({_text(tree.left)[0]})"
    if binds <= SUM and isinstance(tree.right, Joined):
        right = tree_text(tree.right)
    return f"{left} {tree.sign} {right}", binds


def levels(tree: Infix) -> tuple[int, int]:
    """How tightly the sides of a sign must bind to need no parentheses there, where fractions are drawn."""
    binds = BINDS.get(tree.sign, PRODUCT)
    left, right = binds + (binds == 3), binds + 1
    is_fraction = [isinstance(side, Infix) and side.sign == "/" for side in (tree.left, tree.right)]
    large = isinstance(tree.left, Joined) and tree.left.sign in LARGE and binds >= SUM
    if large or (binds == PRODUCT and mixed(tree.left, tree.sign) and not is_fraction[0]):
        left = ATOM + 1
    if (binds == PRODUCT and is_fraction[1]) or (tree.sign == "*" and flat(tree)):
        right = 0
    return left, right


def flat(tree: Infix) -> bool:
    """Whether the right side of a product is one that stands there without parentheses.

    ``*`` has a number or a scalar on its left, so that ``2 * (a · b)`` is ``(2 * a) · b``.
    """
    if not isinstance(tree.right, Infix) or tree.sign not in _FACTORS:
        return False
    return tree.right.sign in _FACTORS or (tree.sign == "*" and tree.right.sign == "·")


def mixed(inner: Tree, sign: str) -> bool:
    """Whether a product inside one of ``sign`` is of another kind, so that it takes parentheses to be read.

    ``*`` and ``⊙`` stand beside each other freely, and before a division; ``*`` before a matrix product too.
    """
    if not isinstance(inner, Infix) or inner.sign not in PRODUCTS or inner.sign == sign:
        return False
    if inner.sign == "*" and sign == "·":
        return False
    return not (inner.sign in _FACTORS and sign in (*_FACTORS, "/"))


def _power(tree: Power) -> tuple[str, int]:
    base = _inside(tree.base, ATOM)
    if isinstance(tree.exponent, Number) and all(c in _SUPERSCRIPT for c in tree.exponent.text):
        return base + "".join(_SUPERSCRIPT[c] for c in tree.exponent.text), ATOM - 1
    return f"{base}^{_inside(tree.exponent, ATOM)}", ATOM - 1


def _joined(tree: Joined) -> tuple[str, int]:
    letters = "".join(tree.letters)
    if all(c in _SUBSCRIPT for c in letters):
        sign = tree.sign + "".join(_SUBSCRIPT[c] for c in letters)
    else:
        sign = f"{tree.sign}_{','.join(tree.letters)}"
    if tree.sign in LARGE:
        return f"{sign} {_inside(tree.value, PRODUCT)}", PRODUCT
    return f"{sign}({tree_text(tree.value)})", ATOM
