"""The scalar rules as data: a rule, tables of rules, what a table must fulfil, and how a side of a rule is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from graphc.errors import InternalError
from graphc.graph.dtypes import DType, Number, boolean, float32, float64, int32, int64
from graphc.graph.primitives import PRIMITIVES
from graphc.graph.scalar import Body, BodyBuilder, Instr, Operand, Scalar
from graphc.rewrite.patterns import Apply, Const, Num, Pattern, Side, Var, as_pattern, smaller, variables
from graphc.structs import dataclass

LABELS = ("exact", "rounding", "finite")


@dataclass(frozen=True, slots=True)
class Rule:
    """``left`` becomes ``right``.

    label: ``exact`` keeps every bit; ``rounding`` holds for real numbers; ``finite`` also assumes that no value in
    ``left`` is NaN or infinite, and runs only where that is proved or promised. domain: where tests draw the variables.
    """

    name: str
    label: str
    left: Pattern
    right: Pattern
    why: str = ""
    domain: tuple[float, float] = (-3.0, 3.0)

    def dtypes(self) -> tuple[DType, ...]:
        """The element types that the rule is for: those of its variables that are not conditions."""
        kinds = [v.kinds for v in variables(self.left) if isinstance(v, Var) and v.kinds != "b"]
        common = set("fib").intersection(*kinds) if kinds else {"b"}
        return tuple(t for t in (float32, float64, int32, int64, boolean) if t.kind in common)


def exact(name: str, left: Side, right: Side, why: str = "") -> Rule:
    """A rule that keeps every bit."""
    return Rule(name, "exact", as_pattern(left), as_pattern(right), why)


def rounding(name: str, left: Side, right: Side, why: str, domain: tuple[float, float] = (-3.0, 3.0)) -> Rule:
    """A rule that holds for real numbers; ``why`` says what may differ."""
    return Rule(name, "rounding", as_pattern(left), as_pattern(right), why, domain)


def finite(name: str, left: Side, right: Side, why: str, domain: tuple[float, float] = (-3.0, 3.0)) -> Rule:
    """A rule that holds where no value in ``left`` is NaN or infinite."""
    return Rule(name, "finite", as_pattern(left), as_pattern(right), why, domain)


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """Rules that belong together, tried in their order."""

    name: str
    rules: tuple[Rule, ...]

    def only(self, labels: Sequence[str]) -> Table:
        """The table without the rules of other labels."""
        return Table(self.name, tuple(r for r in self.rules if r.label in labels))


def table(name: str, *rules: Rule) -> Table:
    """A table of rules. Tests ask ``check_table`` of it, not every import."""
    return Table(name, rules)


def check_table(made: Table) -> None:
    """Raises InternalError for a variable bound only on the right, a type change, a repeated name, a right side that is
    no smaller in ``patterns.measure``, and a rule whose strength is not explained.
    """
    seen: dict[str, None] = {}
    for rule in made.rules:
        _check(rule)
        if rule.name in seen:
            raise InternalError(f"table {made.name}: two rules named {rule.name}")
        seen[rule.name] = None


def _check(rule: Rule) -> None:
    bound = variables(rule.left)
    unbound = [v for v in variables(rule.right) if v not in bound]
    if unbound:
        raise InternalError(f"rule {rule.name}: {unbound[0]!r} is bound only on the right")
    if not isinstance(rule.left, Apply):
        raise InternalError(f"rule {rule.name}: the left side is no operation")
    if rule.label not in LABELS or (rule.label != "exact" and not rule.why):
        raise InternalError(f"rule {rule.name}: label {rule.label!r} without a reason")
    if not smaller(rule.right, rule.left):
        raise InternalError(f"rule {rule.name}: {rule.right!r} is not smaller than {rule.left!r}")
    if not rule.dtypes():
        raise InternalError(f"rule {rule.name}: no element type fits its variables")
    for dtype in rule.dtypes():
        left, right = (side.dtype for side in sides(rule, dtype))
        if left != right:
            raise InternalError(f"rule {rule.name}: {left} becomes {right}")


def sides(rule: Rule, dtype: DType, constants: Mapping[str, Number] | None = None) -> tuple[Body, Body]:
    """Both sides as bodies, nothing simplified: variables of ``dtype`` are reads 0, 1, … in order of first appearance
    (conditions boolean ones); ``constants`` gives the value of each constant by name, 1 where it is silent.
    """
    result = []
    for side in (rule.left, rule.right):
        builder = PlainBuilder()
        binding: dict[str, Scalar] = {}
        reads = 0
        for v in variables(rule.left):
            if isinstance(v, Const):
                binding[v.name] = builder.const((constants or {}).get(v.name, 1), dtype)
            else:
                binding[v.name] = builder.read(reads, boolean if v.kinds == "b" else dtype)
                reads += 1
        result.append(builder.finish(write(builder, side, binding, _type_of_numbers(rule, dtype))))
    return result[0], result[1]


def _type_of_numbers(rule: Rule, dtype: DType) -> DType:
    """The type of a side that is a bare number: that of the left side."""
    op = rule.left.op if isinstance(rule.left, Apply) else ""
    return boolean if PRIMITIVES[op].result == "bool" else dtype


def write(builder: BodyBuilder, pattern: Pattern, binding: Mapping[str, Scalar], dtype: DType) -> Scalar:
    """The value of a pattern, its variables bound; ``dtype`` is the type of a bare number."""
    if isinstance(pattern, Num):
        return builder.const(pattern.value, dtype)
    if isinstance(pattern, (Var, Const)):
        return binding[pattern.name]
    assert isinstance(pattern, Apply)
    args = [a.value if isinstance(a, Num) else write(builder, a, binding, dtype) for a in pattern.args]
    return builder.apply(pattern.op, *args)


class PlainBuilder(BodyBuilder):
    """Writes exactly what it is told."""

    def apply(self, name: str, *operands: Operand) -> Scalar:
        """A primitive on scalars and numbers, with the operands promoted as its record says."""
        values = self._promoted(name, operands)
        dtype = boolean if PRIMITIVES[name].result == "bool" else values[-1].dtype
        return self.emit(Instr(name, tuple(v.position for v in values), dtype))
