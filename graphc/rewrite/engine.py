"""The engine of the scalar rules: rules in tables, and the builder that applies them while a body is written.

A body is rewritten by writing it again: every instruction is matched, as it is written, against the rules for its
primitive; its operands are in their final form already, and a right side is written in the same way. So one pass
reaches the fixed point. It ends because every rule makes ``patterns.measure`` smaller.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np

from graphc.errors import InternalError
from graphc.graph.dtypes import DType, Number, boolean, float32, float64, int32, int64
from graphc.graph.primitives import PRIMITIVES
from graphc.graph.scalar import Body, BodyBuilder, Instr, Operand, Scalar, const_text, const_value
from graphc.rewrite.patterns import (
    COMMUTATIVE,
    Apply,
    Const,
    Num,
    Pattern,
    Side,
    Var,
    as_pattern,
    smaller,
    variables,
)
from graphc.rewrite.ranges import Range, of_type, range_of_instr
from graphc.structs import dataclass, field, replace

LABELS = ("exact", "rounding", "finite")
SHOWN_DEPTH = 5  # levels of a firing's operands that its log keeps
INNER = 10**6  # in a firing's log: the number of the first read that stands for a value inside the body


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


@dataclass(frozen=True, slots=True)
class ScalarFiring:
    """One use of a rule inside a body: what stood there and what stands there now, over the body's reads and, from the
    number INNER on, over values inside it that are not shown."""

    rule: str
    label: str
    before: Body
    after: Body


@dataclass(frozen=True, slots=True)
class Normal:
    """A rewritten body and what was done to it, in order."""

    body: Body
    firings: tuple[ScalarFiring, ...]


class Rewriter(PlainBuilder):
    """Writes bodies in the normal form of its tables."""

    def __init__(self, rules: RuleSet, reads: Sequence[Range] = ()) -> None:
        super().__init__()
        self.rules = rules
        self.options = rules.options
        self.firings: list[ScalarFiring] = []
        self._reads = reads
        self._normal: dict[Instr, int] = {}
        self._ranges: list[Range] = []
        self._firsts: list[int] = []

    def emit(self, instr: Instr) -> Scalar:
        """The value of ``instr`` in normal form."""
        position = self._normal.get(instr)
        if position is None:
            position = self._normal[instr] = self._written(instr).position
        return Scalar(self, position, instr.dtype)

    def range_at(self, position: int) -> Range:
        """The range of an instruction that stands."""
        while len(self._ranges) <= position:
            instr = self.instrs[len(self._ranges)]
            if instr.op == "read" and isinstance(instr.attr, int):
                found = self._reads[instr.attr] if instr.attr < len(self._reads) else of_type(instr.dtype)
            else:
                found = range_of_instr(instr, [self._ranges[a] for a in instr.args])
            self._ranges.append(found)
        return self._ranges[position]

    def _written(self, instr: Instr) -> Scalar:
        if not instr.args:
            return super().emit(instr)
        simple = self._folded(instr)
        simple = self._cast(instr) if simple is None else simple
        if simple is not None:
            return simple
        instr = self._ordered(instr)
        for rule in self.rules.candidates(instr, self.instrs):
            assert isinstance(rule.left, Apply)
            binding = self._match_args(rule.left, instr, {})
            if binding is None or (rule.label == "finite" and not self._proved(rule.left, instr, binding)):
                continue
            bound = {name: Scalar(self, at, self.instrs[at].dtype) for name, at in binding.items()}
            result = write(self, rule.right, bound, instr.dtype)
            if result.dtype != instr.dtype:
                raise InternalError(f"rule {rule.name}: {instr.dtype} became {result.dtype}")
            self._log(rule.name, rule.label, instr, result)
            return result
        return super().emit(instr)

    def _folded(self, instr: Instr) -> Scalar | None:
        """The constant that an operation of constants is, by the primitive's NumPy meaning in its own type."""
        for a in instr.args:
            if self.instrs[a].op != "const":
                return None
        args = [self.instrs[a] for a in instr.args]
        label = "exact" if instr.op in _ROUNDED_ONCE else "rounding"
        if label not in self.options.labels:
            return None
        value = fold(instr, args)
        if value is None:
            return None
        result = super().emit(value)
        self._log("fold-constants", label, instr, result)
        return result

    def _cast(self, instr: Instr) -> Scalar | None:
        """A conversion that does nothing, or that a wider one made before it does not change."""
        if instr.op != "cast":
            return None
        source = self.instrs[instr.args[0]]
        if source.dtype == instr.dtype:
            return Scalar(self, instr.args[0], instr.dtype)
        if source.op != "cast" or not holds_all(source.dtype, self.instrs[source.args[0]].dtype):
            return None
        result = self.emit(replace(instr, args=source.args))
        self._log("cast-twice", "exact", instr, result)
        return result

    def _ordered(self, instr: Instr) -> Instr:
        """Operands of a commutative primitive in one order: by the first read that each depends on; a constant factor
        is first, a constant term last. (Where that does not decide they stay: writing them again changes nothing.)
        """
        if instr.op not in _REORDERED:
            return instr
        constant = -1 if instr.op == "mul" else _NO_READ + 1

        def key(position: int) -> int:
            return constant if self.instrs[position].op == "const" else self._first_read(position)

        first, second = instr.args
        return instr if key(first) <= key(second) else replace(instr, args=(second, first))

    def _first_read(self, position: int) -> int:
        while len(self._firsts) <= position:
            instr = self.instrs[len(self._firsts)]
            own = instr.attr if instr.op == "read" and isinstance(instr.attr, int) else _NO_READ
            self._firsts.append(min([own, *(self._firsts[a] for a in instr.args)]))
        return self._firsts[position]

    def _match_args(self, pattern: Apply, instr: Instr, binding: dict[str, int]) -> dict[str, int] | None:
        """The binding under which the operands of ``instr`` are those of ``pattern``."""
        orders = [instr.args]
        if pattern.op in COMMUTATIVE and instr.args[0] != instr.args[1]:
            orders.append((instr.args[1], instr.args[0]))
        for args in orders:
            found = binding
            for p, a in zip(pattern.args, args, strict=True):
                extended = self._match(p, a, found)
                if extended is None:
                    break
                found = extended
            else:
                return found
        return None

    def _match(self, pattern: Pattern, position: int, binding: dict[str, int]) -> dict[str, int] | None:
        instr = self.instrs[position]
        if isinstance(pattern, Apply):
            return self._match_args(pattern, instr, binding) if instr.op == pattern.op else None
        if isinstance(pattern, Num):
            possible = instr.op == "const" and _may_be(pattern, instr.dtype)
            return binding if possible and instr.attr == const_text(pattern.value, instr.dtype) else None
        assert isinstance(pattern, (Var, Const))
        if pattern.name in binding:
            return binding if binding[pattern.name] == position else None
        if isinstance(pattern, Const):
            if instr.op != "const" or (pattern.test and not pattern.test(float(const_value(instr)))):
                return None
        elif instr.dtype.kind not in pattern.kinds or (pattern.test and not pattern.test(self.range_at(position))):
            return None
        return {**binding, pattern.name: position}

    def _proved(self, left: Apply, instr: Instr, binding: Mapping[str, int]) -> bool:
        """Whether every value in the left side is certainly finite."""
        if self.options.assume_finite:
            return True
        operands = [self.range_at(a) for a in instr.args]
        below = [*self._inside(left, instr), *binding.values()]
        return range_of_instr(instr, operands).finite and all(self.range_at(at).finite for at in below)

    def _inside(self, left: Apply, instr: Instr) -> list[int]:
        """The operands down to the depth of the pattern; a few too many do no harm."""
        found: list[int] = []
        level = list(instr.args)
        for _ in range(_depth(left)):
            found += level
            level = [a for at in level for a in self.instrs[at].args]
        return found

    def _log(self, rule: str, label: str, instr: Instr, result: Scalar) -> None:
        """Notes a firing; the left side is copied out of what stands, without writing it."""
        before = _cut(self.instrs, instr)
        self.firings.append(ScalarFiring(rule, label, before, _cut(self.instrs, self.instrs[result.position])))


@dataclass(frozen=True, slots=True)
class Options:
    """What may be assumed: the labels of the rules that run, and whether every value is promised to be finite."""

    labels: tuple[str, ...] = LABELS
    assume_finite: bool = False


_NO_READ = 10**9

# NumPy's maximum of 0.0 and -0.0 is its second operand, so that one is not turned round.
_REORDERED = COMMUTATIVE - {"maximum", "minimum"}

# Primitives whose NumPy result is the one correctly rounded value: folding them keeps every bit.
_ROUNDED_ONCE = frozenset(
    ("add", "sub", "mul", "div", "neg", "abs", "sign", "sqrt", "floor", "ceil", "round", "trunc", "maximum", "minimum",
     "where", "equal", "not_equal", "less", "less_equal", "logical_and", "logical_or", "logical_xor", "logical_not",
     "isnan", "isinf", "isfinite", "cast")
)


def is_rounded_once(op: str) -> bool:
    """Whether NumPy's value of a primitive is the only one that compiled code may give."""
    return op in _ROUNDED_ONCE


def fold(instr: Instr, args: Sequence[Instr]) -> Instr | None:
    """The constant instruction that ``instr`` of the constants ``args`` is; None for a conversion that means nothing.

    >>> half, two = Instr("const", (), float32, "0.5"), Instr("const", (), float32, "2.0")
    >>> fold(Instr("add", (0, 1), float32), [half, two]).attr
    '2.5'
    """
    values = [np.asarray(const_value(a), dtype=a.dtype.numpy) for a in args]
    with np.errstate(all="ignore"):
        if instr.op == "cast":
            if instr.dtype.kind == "i" and not abs(float(values[0])) < 2.0**31:
                return None
            value = values[0].astype(instr.dtype.numpy)
        else:
            value = np.asarray(PRIMITIVES[instr.op].numpy(*values)).astype(instr.dtype.numpy)
    return Instr("const", (), instr.dtype, const_text(value.item(), instr.dtype))


def holds_all(wide: DType, narrow: DType) -> bool:
    """Whether every value of ``narrow`` is one of ``wide``, so that a conversion to it loses nothing.

    >>> holds_all(float64, int32), holds_all(float32, int32)
    (True, False)
    """
    if narrow.kind == "b" or narrow == wide:
        return True
    if narrow.kind == wide.kind:
        return narrow.itemsize <= wide.itemsize
    return narrow.kind == "i" and wide.kind == "f" and narrow.itemsize < wide.itemsize


def _may_be(number: Num, dtype: DType) -> bool:
    """Whether a constant of ``dtype`` may be this number."""
    if isinstance(number.value, bool) or dtype.kind == "b":
        return isinstance(number.value, bool) and dtype.kind == "b"
    return dtype.kind == "f" or isinstance(number.value, int)


@lru_cache(maxsize=1024)
def _depth(pattern: Pattern) -> int:
    return 1 + max(map(_depth, pattern.args)) if isinstance(pattern, Apply) else 0


def _cut(instrs: Sequence[Instr], root: Instr) -> Body:
    """``root`` with what it is made of, as a body; what lies deeper than is shown is a read of number INNER on."""
    depth = dict.fromkeys(root.args, 1)
    stack = list(depth)
    for at in stack:
        for a in instrs[at].args if depth[at] < SHOWN_DEPTH else ():
            if a not in depth:
                depth[a] = depth[at] + 1
                stack.append(a)
    order = sorted(depth)
    moved = {old: new for new, old in enumerate(order)}
    kept = []
    for at in order:
        args = instrs[at].args
        if all(a in moved for a in args):
            kept.append(replace(instrs[at], args=tuple(moved[a] for a in args)))
        else:
            kept.append(Instr("read", (), instrs[at].dtype, INNER + at))
    return Body((*kept, replace(root, args=tuple(moved[a] for a in root.args))))


@dataclass(frozen=True, slots=True, eq=False)
class RuleSet:
    """Rules of several tables by the primitive at the root of their left side. Made by ``rule_set``.

    links: under (outer, inner) primitives of a left side what else each demands: whether the inner one has a constant
    operand, and what stands beside it under the outer one (a primitive, ``const``, or empty for anything).
    """

    options: Options
    by_root: Mapping[str, tuple[Rule, ...]]
    links: Mapping[tuple[str, str], tuple[tuple[bool, str], ...]]
    _candidates: dict[tuple[str, ...], tuple[Rule, ...]] = field(default_factory=dict)

    def candidates(self, instr: Instr, instrs: Sequence[Instr]) -> tuple[Rule, ...]:
        """The rules that ``instr`` may match, going by its primitive and those of its operands among ``instrs``."""
        key = (instr.op, *[instrs[a].op for a in instr.args])
        found = self._candidates.get(key)
        if found is None:
            rules = self.by_root.get(instr.op, ())
            found = self._candidates[key] = tuple(r for r in rules if _may_match(r.left, key[1:]))
        return found


def _may_match(left: Pattern, below: tuple[str, ...]) -> bool:
    """Whether a left side may match operands made by the primitives ``below``."""
    assert isinstance(left, Apply)
    orders = (below, below[::-1]) if left.op in COMMUTATIVE else (below,)
    return any(all(_kind(p) in ("", op) for p, op in zip(left.args, order, strict=True)) for order in orders)


@lru_cache(maxsize=16384)
def may_fire(rules: RuleSet, body: Body) -> bool:
    """Whether a left side may match in a body."""
    return any(rules.candidates(instr, body.instrs) for instr in body.instrs)


@lru_cache(maxsize=256)
def rule_set(tables: tuple[Table, ...], options: Options) -> RuleSet:
    """The rules of ``tables`` whose labels ``options`` allow."""
    found: dict[str, list[Rule]] = {}
    links: Links = {}
    for each in tables:
        for rule in each.only(options.labels).rules:
            assert isinstance(rule.left, Apply)
            found.setdefault(rule.left.op, []).append(rule)
        for pair, demands in _links(each, options.labels).items():
            links.setdefault(pair, {}).update(demands)
    kept = {pair: tuple(demands) for pair, demands in links.items()}
    return RuleSet(options, {op: tuple(rules) for op, rules in found.items()}, kept)


Links = dict[tuple[str, str], dict[tuple[bool, str], None]]


@lru_cache(maxsize=256)
def _links(table: Table, labels: tuple[str, ...]) -> Links:
    links: Links = {}
    for rule in table.only(labels).rules:
        _link(rule.left, links)
    return links


def _link(pattern: Pattern, links: Links) -> None:
    if not isinstance(pattern, Apply):
        return
    for k, arg in enumerate(pattern.args):
        if isinstance(arg, Apply):
            constant = any(isinstance(a, (Const, Num)) for a in arg.args)
            beside = [_kind(a) for at, a in enumerate(pattern.args) if at != k]
            links.setdefault((pattern.op, arg.op), {})[constant, max(beside, default="")] = None
        _link(arg, links)


def _kind(pattern: Pattern) -> str:
    """A pattern's primitive, ``const``, or empty for a variable."""
    return pattern.op if isinstance(pattern, Apply) else "" if isinstance(pattern, Var) else "const"


@lru_cache(maxsize=16384)
def normalise(body: Body, rules: RuleSet, reads: tuple[Range, ...] = ()) -> Normal:
    """The body in the normal form of ``rules``, with what fired. ``reads``: the ranges of its reads, where known."""
    builder = Rewriter(rules, reads)
    result = builder.include(body, ())[-1]
    if result.dtype != body.dtype:
        raise InternalError(f"normalise: {body.dtype} became {result.dtype}")
    return Normal(builder.finish(result), tuple(builder.firings))

