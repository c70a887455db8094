"""Derivatives of the scalar primitives: the made file is current, and every rule equals SymPy's derivative."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import sympy as sp

from graphc.graph import derive, partials
from graphc.graph.dtypes import float64
from graphc.graph.formula import Formula, Read, plain
from graphc.graph.partials import PARTIALS
from graphc.graph.primitives import PRIMITIVES
from graphc.graph.rules import RULES
from graphc.graph.rules import partials as rule_of
from graphc.graph.scalar import BodyBuilder, Scalar
from graphc.graph.sympy_forms import apply_sympy
from graphc.ops.combiners import COMBINERS
from graphc.reference.formulas import evaluate_formula

SMOOTH = [name for name, p in PRIMITIVES.items() if p.smooth and name != "where"]


def test_made_file_is_current() -> None:
    assert derive.generate() == Path(partials.__file__).read_text(encoding="utf-8")


def test_every_smooth_primitive_has_one_rule() -> None:
    smooth = {name for name, p in PRIMITIVES.items() if p.smooth}
    assert set(PARTIALS) | set(RULES) == smooth
    assert not set(PARTIALS) & set(RULES)


def test_hand_written_rules_are_few_and_give_reasons() -> None:
    laws = [c for c in COMBINERS.values() if c.doc.startswith("by hand")]
    assert len(RULES) + len(laws) <= 12
    assert all(len(rule.reason) > 20 for rule in RULES.values())


def values_of(name: str, points: list[np.ndarray]) -> list[np.ndarray]:
    """The rule's factors at points, in float64."""
    rule = rule_of(name)
    assert rule is not None
    n = len(points)
    found = []
    for k in range(n):
        builder = BodyBuilder()
        operands = [builder.read(j, float64) for j in range(n)]
        y = builder.apply(name, *operands)
        factor = rule(*operands, y)[k]
        assert factor is not None
        scalar = factor if isinstance(factor, Scalar) else builder.const(float(factor), float64)
        reads = tuple(Read(j, plain(1)) for j in range(n))
        formula = Formula((len(points[0]),), plain(1), (len(points[0]),), reads, builder.finish(scalar))
        found.append(evaluate_formula(formula, points, {}))
    return found


@pytest.mark.parametrize("name", SMOOTH)
def test_rule_equals_sympy(name: str, rng: np.random.Generator) -> None:
    p = PRIMITIVES[name]
    points = [rng.uniform(*p.domain, 7) for _ in range(p.arity)]
    symbols = [sp.Symbol(f"x{k}", real=True) for k in range(p.arity)]
    value = apply_sympy(name, symbols)
    for by, found in zip(symbols, values_of(name, points), strict=True):
        derivative = sp.diff(value, by)
        for j in range(7):
            here = {s: sp.Float(points[k][j], 30) for k, s in enumerate(symbols)}
            if name == "remainder":  # floor is constant between its steps, which SymPy leaves unsaid
                quotient = sp.floor(symbols[0] / symbols[1])
                derivative = sp.diff(symbols[0] - symbols[1] * sp.Symbol("q"), by).subs("q", quotient)
            wanted = float(derivative.subs(here).doit().evalf(20))
            assert found[j] == pytest.approx(wanted, rel=1e-12, abs=1e-12), (by, here)
