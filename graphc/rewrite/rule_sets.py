"""Rules by the operation they begin at: which of them an instruction may match, asked before anything is matched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

from graphc.graph.scalar import Body, Instr
from graphc.rewrite.patterns import COMMUTATIVE, Apply, Const, Num, Pattern, Var
from graphc.rewrite.tables import LABELS, Rule, Table
from graphc.structs import dataclass, field


@dataclass(frozen=True, slots=True)
class Options:
    """What may be assumed: the labels of the rules that run, and whether every value is promised to be finite."""

    labels: tuple[str, ...] = LABELS
    assume_finite: bool = False


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
