"""Sizes at run time: polynomials in the dimensions, evaluated in i64 at a function's entry, once each."""

from __future__ import annotations

from graphc.graph.sizes import Size, SizeLike, atoms
from graphc.kernels.layout import FIRST_DIM_WORD
from graphc.llvm.text import Value, Writer, const


class Sizes:
    """The sizes that one function uses. Made at its entry, so that every value dominates its uses."""

    def __init__(self, w: Writer, context: Value, dims: tuple[str, ...]) -> None:
        self.w = w
        self.context = context
        self.dims = dims
        self._known: dict[SizeLike, Value] = {}

    def tell(self, size: int, value: Value) -> None:
        """From here on a number is called by a value of it, an argument of the function."""
        self._known[size] = value

    def prepare(self, size: SizeLike) -> None:
        """Evaluate ``size`` here; ``value`` gives it later."""
        if isinstance(size, Size) and size not in self._known:
            self._known[size] = self._evaluate(size)

    def prepared(self) -> list[Size]:
        """The sizes evaluated so far, in order."""
        return [size for size in self._known if isinstance(size, Size)]

    def value(self, size: SizeLike) -> Value:
        """An i64. A size that was not prepared is evaluated on the spot."""
        if size in self._known:
            return self._known[size]
        return const("i64", size) if isinstance(size, int) else self._evaluate(size)

    def _evaluate(self, size: Size) -> Value:
        w = self.w
        total: Value | None = None
        for monomial, coefficient in size.terms:
            term: Value | None = None if coefficient == 1 and monomial else const("i64", coefficient)
            for atom, power in monomial:
                value = self._atom(atom)
                for _ in range(power):
                    term = value if term is None else w.mul(term, value)
            assert term is not None
            total = term if total is None else w.add(total, term)
        return total if total is not None else const("i64", 0)

    def _atom(self, atom: str) -> Value:
        key = Size((((((atom, 1),)), 1),))
        if key in self._known:
            return self._known[key]
        w = self.w
        if atom.isidentifier():
            word = FIRST_DIM_WORD + self.dims.index(atom)
            value = w.load("i64", w.gep(self.context, const("i64", word), "i64"))
        else:
            operator, left, right = atoms(atom)
            a, b = self.value(left), self.value(right)
            value = w.sdiv(a, b) if operator == "//" else w.srem(a, b)
        self._known[key] = value
        return value
