"""What is shown, computed as it stands: the values of lines in NumPy, by what their signs mean to a reader."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from graphc.notation.placing import LETTERS
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
    parts,
)

Array = Any  # a reader's numbers: floats, truth values and indices

_erf = np.vectorize(math.erf, otypes=[float])
_INFIX: dict[str, Callable[..., Array]] = {
    "+": np.add, "-": np.subtract, "*": np.multiply, "⊙": np.multiply, "/": np.divide, "//": np.floor_divide,
    "%": np.remainder, "⊗": np.multiply.outer, "·": np.matmul, "<": np.less, "≤": np.less_equal, ">": np.greater,
    "≥": np.greater_equal, "=": np.equal, "≠": np.not_equal, "and": np.logical_and, "or": np.logical_or,
}  # fmt: skip
_JOIN: dict[str, Callable[..., Array]] = {
    "Σ": np.sum, "Π": np.prod, "max": np.max, "min": np.min, "mean": np.mean, "any": np.any, "all": np.all,
    "logsumexp": np.logaddexp.reduce,
}  # fmt: skip
_NAMED: dict[str, Callable[..., Array]] = {
    "max": np.maximum, "min": np.minimum, "asin": np.arcsin, "acos": np.arccos, "atan": np.arctan, "atan2": np.arctan2,
    "asinh": np.arcsinh, "acosh": np.arccosh, "atanh": np.arctanh, "erf": _erf, "clip": np.clip,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)), "softplus": lambda x: np.logaddexp(x, 0),
    "relu": lambda x: np.maximum(x, 0), "silu": lambda x: x / (1 + np.exp(-x)),
    "softsign": lambda x: x / (1 + np.abs(x)),
    "gelu": lambda x: x * (1 + _erf(x / math.sqrt(2))) / 2, "leaky_relu": lambda x: np.where(x > 0, x, 0.01 * x),
    "elu": lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))), "hardtanh": lambda x: np.clip(x, -1, 1),
    "selu": lambda x: 1.0507009873554805 * np.where(x > 0, x, 1.6732632423543772 * np.expm1(np.minimum(x, 0))),
}  # fmt: skip


class Unknown(Exception):
    """A line that cannot be computed as it stands."""


class Computed:
    """The values of lines, one after the other. keep: whether a joined axis stays, with size 1."""

    def __init__(self, values: Mapping[str, Array], keep: bool) -> None:
        self.values: dict[str, Array] = dict(values)
        self.keep = keep
        self.grid: dict[str, Array] = {}
        self.classes = 0

    def line(self, line: Line) -> Array:
        """The value of one line, which later ones may name."""
        if line.index or line.sign == "+=" or self._names_letters(line.value):
            value = self._by_index(line)
        else:
            self.grid = {}
            self.classes = int(line.shape[-1]) if line.shape else 0
            value = np.asarray(self.value(line.value))
            shape = tuple(int(s) for s in line.shape)
            if value.size == math.prod(shape) and value.ndim != len(shape):
                value = value.reshape(shape)
            if value.ndim <= len(shape):
                value = np.broadcast_to(value, shape)
        self.values[line.name] = value
        return value

    def _by_index(self, line: Line) -> Array:
        extents: dict[str, int] = {}
        if line.sign == "=":
            extents = {letter: int(s) for letter, s in zip(line.index, line.shape, strict=True)}
        self._extents(line.value, extents)
        for written in line.index:
            for part in [written, *written.replace("]", "[").split("[")[1:]]:
                for word in part.replace(",", " ").split():
                    if word.isalpha() and word not in self.values and word not in extents:
                        raise Unknown(f"the range of {word}")
        letters = list(extents)
        self.grid = {
            letter: np.arange(n).reshape([-1 if k == at else 1 for k in range(len(letters))])
            for at, (letter, n) in enumerate(extents.items())
        }
        value = np.asarray(self.value(line.value), float)
        shape = tuple(int(s) for s in line.shape)
        if line.sign == "=":
            whole = np.broadcast_to(value, [extents[x] if x in line.index else value.shape[k] if value.ndim else 1
                                            for k, x in enumerate(letters)])  # fmt: skip
            return whole.reshape([extents[x] for x in line.index])
        result = np.zeros(shape)
        full = tuple(extents[x] for x in letters)
        where = tuple(np.broadcast_to(self._text(i), full) for i in line.index)
        np.add.at(result, where, np.broadcast_to(value, full))
        return result

    def _names_letters(self, tree: Tree) -> bool:
        """Whether a value without indices of its own is written by index: a sum over all of them."""
        stack = [tree]
        while stack:
            part = stack.pop()
            if isinstance(part, At):
                single = [i.name for i in part.index if isinstance(i, Symbol)]
                if any(n in LETTERS and n not in self.values for n in single):
                    return True
            stack.extend(parts(part))
        return False

    def _extents(self, tree: Tree, extents: dict[str, int]) -> None:
        """The ranges of letters, from where they stand alone as an index."""
        stack = [tree]
        while stack:
            part = stack.pop()
            if isinstance(part, At) and isinstance(part.base, Symbol):
                shape = self.values[part.base.name].shape
                for item, n in zip(part.index, shape, strict=False):
                    if isinstance(item, Symbol) and item.name.isalpha():
                        extents.setdefault(item.name, n)
            stack.extend(parts(part))
        stack = [tree]
        while stack:
            part = stack.pop()
            if isinstance(part, Joined) and any(x not in extents for x in part.letters):
                raise Unknown(f"the ranges of {part.letters}")
            stack.extend(parts(part))

    def _text(self, text: str) -> Array:
        """An index expression as text: its letters and sizes are numbers."""
        names = {**{k: v.astype(int) for k, v in self.values.items()}, **self.grid}
        return np.asarray(eval(text, {"__builtins__": {}}, names))

    def value(self, tree: Tree) -> Array:
        """The value of a tree."""
        if isinstance(tree, Number):
            return np.asarray(float(tree.text))
        if isinstance(tree, Symbol):
            if tree.name in self.grid:
                return self.grid[tree.name]
            return self.values[tree.name] if tree.name in self.values else self._text(tree.name)
        if isinstance(tree, Infix):
            return _INFIX[tree.sign](self.value(tree.left), self.value(tree.right))
        if isinstance(tree, Negated):
            value = self.value(tree.value)
            return np.logical_not(value) if tree.logical else -value
        if isinstance(tree, Power):
            return self.value(tree.base) ** self.value(tree.exponent)
        if isinstance(tree, Transposed):
            value = self.value(tree.value)
            return value if value.ndim < 2 else np.swapaxes(value, -1, -2)
        if isinstance(tree, Bracket):
            return np.asarray(self.value(tree.condition), float)
        if isinstance(tree, At):
            return self._at(tree)
        if isinstance(tree, Joined):
            return self._joined(tree)
        if isinstance(tree, Applied):
            return self._applied(tree)
        raise Unknown(f"{tree}")

    def _joined(self, tree: Joined) -> Array:
        value = self.value(tree.value)
        if self.grid:
            if any(">" in x or "≥" in x or "=" in x for x in tree.letters):
                raise Unknown("a condition below a sign")
            axes = [list(self.grid).index(x) for x in tree.letters]
            value = np.broadcast_to(value, [
                g.size if k in axes else value.shape[k] if value.ndim else 1 for k, g in enumerate(self.grid.values())
            ])  # fmt: skip
            return self._reduce(tree.sign, value, axes, keep=True)
        axes = [LETTERS.index(x) for x in tree.letters] if tree.letters else list(range(value.ndim))
        return self._reduce(tree.sign, value, axes, self.keep and bool(tree.letters))

    def _reduce(self, sign: str, value: Array, axes: Sequence[int], keep: bool) -> Array:
        if sign in ("argmax", "argmin"):
            return np.asarray((np.argmax if sign == "argmax" else np.argmin)(value, axis=axes[0], keepdims=keep))
        for axis in sorted(axes, reverse=True):
            value = np.asarray(_JOIN[sign](value, axis=axis, keepdims=keep))
        return value

    def _at(self, tree: At) -> Array:
        keep = self.keep
        self.keep = keep and not isinstance(tree.base, Joined)  # an axis that is put back was gone
        base = self.value(tree.base)
        self.keep = keep
        if not self.grid:
            return base[tuple(self._item(i) for i in tree.index)]
        where = []
        for item, n in zip(tree.index, base.shape, strict=True):
            where.append(np.clip(np.asarray(self.value(item)).astype(int), 0, n - 1))  # outside, a condition makes it 0
        return base[tuple(where)]

    def _item(self, item: Tree) -> object:
        if isinstance(item, Part):
            ends = [None if not t else int(t) for t in (item.start, item.stop, item.step)]
            return slice(*ends)
        if item == Symbol("None"):
            return None
        value = self.value(item).astype(int)
        return int(value) if value.ndim == 0 else value

    def _applied(self, tree: Applied) -> Array:
        axis = -1
        args = list(tree.args)
        if args and isinstance(args[-1], Symbol) and args[-1].name.startswith("axis="):
            last = args.pop()
            assert isinstance(last, Symbol)
            axis = int(last.name[5:])
        values = [self.value(a) for a in args]
        if tree.name == "onehot":
            return np.asarray(values[0][..., None] == np.arange(self.classes), float)
        if tree.name in ("softmax", "log_softmax"):
            log = values[0] - np.logaddexp.reduce(values[0], axis=axis, keepdims=True)
            return log if tree.name == "log_softmax" else np.exp(log)
        if tree.name == "cross_entropy":
            log = values[0] - np.logaddexp.reduce(values[0], axis=-1, keepdims=True)
            return -np.take_along_axis(log, values[1][..., None], -1)[..., 0]
        if tree.name in ("concat", "cumsum", "flip", "trace", "diag", "where"):
            functions: dict[str, Callable[[], Array]] = {
                "concat": lambda: np.concatenate(values, axis), "cumsum": lambda: np.cumsum(values[0], axis),
                "flip": lambda: np.flip(values[0], axis), "trace": lambda: np.asarray(np.trace(values[0])),
                "diag": lambda: np.diag(values[0]), "where": lambda: np.where(*values),
            }  # fmt: skip
            return functions[tree.name]()
        function = _NAMED.get(tree.name) or getattr(np, tree.name, None)
        if function is None:
            raise Unknown(tree.name)
        return np.asarray(function(*values))


def computed(lines: Sequence[Line], values: Mapping[str, Array]) -> list[dict[str, Array]]:
    """The values of all lines: once with joined axes dropped, once kept, as a reader would try. Raises Unknown."""
    found = []
    problems = []
    for keep in (False, True):
        reader = Computed(values, keep)
        try:
            with np.errstate(all="ignore"):  # one of the two ways may divide by 0
                for line in lines:
                    reader.line(line)
        except (ValueError, IndexError) as error:
            problems.append(error)
            continue
        found.append(reader.values)
    if not found:
        raise problems[0]
    return found
