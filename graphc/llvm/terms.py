"""Arithmetic over LLVM values written as maths: a ``Term`` is a value with the writer that its operators write to.

Numbers beside a term become constants of its type. Comparisons give masks; ``select`` chooses by them. ``//`` and the
like are absent: what a target does slowly is not hidden behind an operator.
"""

from __future__ import annotations

from collections.abc import Sequence

from graphc.errors import InternalError
from graphc.llvm.text import Value, Writer, const, element, like


class Term:
    """A value with operators; ``w`` is where they write."""

    __slots__ = ("v", "w")

    def __init__(self, w: Writer, v: Value) -> None:
        self.w = w
        self.v = v

    def like(self, other: Operand) -> Value:
        """``other`` as a value of this term's type."""
        return other.v if isinstance(other, Term) else const(self.v.type, other)

    @property
    def scalar(self) -> str:
        """The type of one lane."""
        return element(self.v.type)

    def _op(self, on_floats: str, on_integers: str, a: Value, b: Value) -> Term:
        return Term(self.w, self.w.op(on_integers if self.scalar.startswith("i") else on_floats, a, b))

    def __add__(self, other: Operand) -> Term:
        return self._op("fadd", "add", self.v, self.like(other))

    def __radd__(self, other: float) -> Term:
        return self._op("fadd", "add", self.like(other), self.v)

    def __sub__(self, other: Operand) -> Term:
        return self._op("fsub", "sub", self.v, self.like(other))

    def __rsub__(self, other: float) -> Term:
        return self._op("fsub", "sub", self.like(other), self.v)

    def __mul__(self, other: Operand) -> Term:
        return self._op("fmul", "mul", self.v, self.like(other))

    def __rmul__(self, other: float) -> Term:
        return self._op("fmul", "mul", self.like(other), self.v)

    def __truediv__(self, other: Operand) -> Term:
        return self._op("fdiv", "sdiv", self.v, self.like(other))

    def __rtruediv__(self, other: float) -> Term:
        return self._op("fdiv", "sdiv", self.like(other), self.v)

    def __neg__(self) -> Term:
        return Term(self.w, self.w.fneg(self.v)) if not self.scalar.startswith("i") else 0 - self

    def __abs__(self) -> Term:
        return Term(self.w, self.w.fabs(self.v))

    def __and__(self, other: Operand) -> Term:
        return Term(self.w, self.w.and_(self.v, self.like(other)))

    def __or__(self, other: Operand) -> Term:
        return Term(self.w, self.w.or_(self.v, self.like(other)))

    def __xor__(self, other: Operand) -> Term:
        return Term(self.w, self.w.xor(self.v, self.like(other)))

    def __invert__(self) -> Term:
        return Term(self.w, self.w.not_(self.v))

    def __lshift__(self, other: Operand) -> Term:
        return Term(self.w, self.w.shl(self.v, self.like(other)))

    def __rshift__(self, other: Operand) -> Term:
        """Right shift, zeros shifted in."""
        return Term(self.w, self.w.lshr(self.v, self.like(other)))

    def _compare(self, name: str, other: Operand) -> Term:
        b = self.like(other)
        if self.scalar.startswith("i"):
            return Term(self.w, self.w.icmp(name if name in ("eq", "ne") else "s" + name, self.v, b))
        return Term(self.w, self.w.fcmp(("u" if name == "ne" else "o") + name, self.v, b))

    def __lt__(self, other: Operand) -> Term:
        return self._compare("lt", other)

    def __le__(self, other: Operand) -> Term:
        return self._compare("le", other)

    def __gt__(self, other: Operand) -> Term:
        return self._compare("gt", other)

    def __ge__(self, other: Operand) -> Term:
        return self._compare("ge", other)

    def eq(self, other: Operand) -> Term:
        """A mask: equal; False for NaN."""
        return self._compare("eq", other)

    def ne(self, other: Operand) -> Term:
        """A mask: not equal; True for NaN."""
        return self._compare("ne", other)

    def isnan(self) -> Term:
        """A mask: NaN."""
        return Term(self.w, self.w.fcmp("uno", self.v, self.v))

    def sqrt(self) -> Term:
        """The square root."""
        return Term(self.w, self.w.sqrt(self.v))

    def copysign(self, sign: Operand) -> Term:
        """This magnitude with the sign of ``sign``."""
        return Term(self.w, self.w.copysign(self.v, self.like(sign)))

    def cast(self, kind: str, scalar: str) -> Term:
        """Converted lane by lane; see ``Writer.cast``."""
        return Term(self.w, self.w.cast(kind, self.v, like(self.v.type, scalar)))

    def call(self, intrinsic: str, *others: Operand) -> Term:
        """An intrinsic of this type applied to this term and others."""
        return Term(self.w, self.w.intrinsic(intrinsic, self.v.type, [self.v, *(self.like(o) for o in others)]))

    def const(self, number: float) -> Term:
        """A constant of this type."""
        return Term(self.w, const(self.v.type, number))


Operand = Term | float


def fma(a: Term, b: Operand, c: Operand) -> Term:
    """a * b + c, rounded once."""
    return Term(a.w, a.w.fma(a.v, a.like(b), a.like(c)))


def select(mask: Term, a: Operand, b: Operand) -> Term:
    """``a`` where the mask is set, else ``b``; at least one of them is a term."""
    kind = a if isinstance(a, Term) else b
    if not isinstance(kind, Term):
        raise InternalError("select: two numbers have no type")
    return Term(mask.w, mask.w.select(mask.v, kind.like(a), kind.like(b)))


def poly(x: Term, coefficients: Sequence[float]) -> Term:
    """c0 + c1 x + c2 x² + ..., by Horner's rule with fused steps."""
    total = x.const(coefficients[-1])
    for c in reversed(coefficients[:-1]):
        total = fma(total, x, c)
    return total


def at_least(x: Term, low: float) -> Term:
    """The larger of x and ``low``; NaN passes, since the comparison is ordered."""
    return select(x.const(low) > x, low, x)


def at_most(x: Term, high: float) -> Term:
    """The smaller of x and ``high``; NaN passes."""
    return select(x.const(high) < x, high, x)


def clamp(x: Term, low: float, high: float) -> Term:
    """x within bounds; NaN passes."""
    return at_most(at_least(x, low), high)
