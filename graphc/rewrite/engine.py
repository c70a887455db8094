"""The engine of the scalar rules: the builder that applies them while a body is written.

A body is rewritten by writing it again: every instruction is matched, as it is written, against the rules for its
primitive; its operands are in their final form already, and a right side is written in the same way. So one pass
reaches the fixed point. It ends because every rule makes ``patterns.measure`` smaller.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

from graphc.errors import InternalError
from graphc.graph.dtypes import DType
from graphc.graph.scalar import Body, Instr, Scalar, const_text, const_value
from graphc.rewrite.folding import fold, holds_all, is_rounded_once
from graphc.rewrite.patterns import COMMUTATIVE, Apply, Const, Num, Pattern, Var
from graphc.rewrite.ranges import Range, of_type, range_of_instr
from graphc.rewrite.rule_sets import RuleSet
from graphc.rewrite.tables import PlainBuilder, write
from graphc.structs import dataclass, replace

SHOWN_DEPTH = 5  # levels of a firing's operands that its log keeps
INNER = 10**6  # in a firing's log: the number of the first read that stands for a value inside the body
_NO_READ = 10**9

# NumPy's maximum of 0.0 and -0.0 is its second operand, so that one is not turned round.
_REORDERED = COMMUTATIVE - {"maximum", "minimum"}


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
        label = "exact" if is_rounded_once(instr.op) else "rounding"
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


@lru_cache(maxsize=16384)
def normalise(body: Body, rules: RuleSet, reads: tuple[Range, ...] = ()) -> Normal:
    """The body in the normal form of ``rules``, with what fired. ``reads``: the ranges of its reads, where known."""
    builder = Rewriter(rules, reads)
    result = builder.include(body, ())[-1]
    if result.dtype != body.dtype:
        raise InternalError(f"normalise: {body.dtype} became {result.dtype}")
    return Normal(builder.finish(result), tuple(builder.firings))

