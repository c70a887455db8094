"""Makes ``partials.py``: SymPy derives each primitive once, ahead of time, in terms of operands and result.

    python -m graphc.graph.derive > graphc/graph/partials.py

A test runs this and compares the text. Of the forms of a derivative (over operands alone, or with the result ``y``
put in where it fits) the one with the fewest operations is taken, so ``tanh' = 1 - y*y`` comes out by itself.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from graphc.graph.primitives import PRIMITIVES
from graphc.graph.sympy_forms import SymPyExpr, apply_sympy

# Derived by hand, with reasons, in rules.py.
BY_HAND = ("pow", "softplus", "logaddexp", "remainder", "maximum", "minimum")

HEAD = '''"""The partial derivatives of the smooth primitives, over operands and result ``y``. Made by ``derive.py``:

    python -m graphc.graph.derive > graphc/graph/partials.py

Do not edit. Derivatives written by hand, each with its reason, are in ``rules.py``.
"""

from __future__ import annotations

from collections.abc import Callable

from graphc.graph.scalar import Scalar
from graphc.graph.sym import sym

Factor = Scalar | float | int | None
'''


def generate() -> str:
    """The text of ``partials.py``."""
    functions, rows = [], []
    for name, primitive in PRIMITIVES.items():
        if not primitive.smooth or name in BY_HAND:
            continue
        names = ("c", "a", "b") if name == "where" else ("a", "b")[: primitive.arity]
        parameters = ", ".join(f"{n}: Scalar" for n in (*names, "y"))
        factors = ", ".join(_factors(name, names))
        comma = "," if primitive.arity == 1 else ""
        functions.append(f"def _{name}({parameters}) -> tuple[Factor, ...]:\n    return ({factors}{comma})\n")
        rows.append(f'    "{name}": _{name},\n')
    table = "PARTIALS: dict[str, Callable[..., tuple[Factor, ...]]] = {\n" + "".join(rows) + "}\n"
    return HEAD + "\n\n" + "\n\n".join(functions) + "\n\n" + table


def _factors(name: str, names: tuple[str, ...]) -> list[str]:
    import sympy as sp

    y = sp.Symbol("y", real=True)
    domain = PRIMITIVES[name].domain
    symbols = [sp.Symbol(n, positive=True) if domain[0] > 0 else sp.Symbol(n, real=True) for n in names]
    if name == "where":
        symbols[0] = sp.Symbol("c")
        choice = {symbols[1]: (1, 0), symbols[2]: (0, 1)}
        return ["None"] + [f"sym.where(c, {float(p)}, {float(q)})" for p, q in choice.values()]
    value = apply_sympy(name, symbols)
    return [_text(min(_forms(value, s, symbols, y), key=_cost)) for s in symbols]


def _forms(value: SymPyExpr, by: SymPyExpr, symbols: list[SymPyExpr], y: SymPyExpr) -> list[SymPyExpr]:
    """The derivative of ``value`` by ``by``, as it stands and with the result's symbol ``y`` in place of the value."""
    import sympy as sp

    plain = sp.together(sp.diff(value, by)) if value.is_rational_function() else sp.diff(value, by)
    forms = [plain, sp.factor(plain)]
    forms += [f.subs(value, y) for f in list(forms)]
    if len(symbols) == 1 and by.is_real and value.has(sp.exp, sp.tanh, sp.tan, sp.sqrt, sp.Pow):
        t = sp.Symbol("t", positive=True)
        single = _in_result(value, by, plain, y, t)
        forms += [single, sp.factor(single)]
    return [f for f in forms if f is not None]


def _in_result(value: SymPyExpr, by: SymPyExpr, derivative: SymPyExpr, y: SymPyExpr, t: SymPyExpr) -> SymPyExpr | None:
    """The derivative with the operand replaced by what the result says of it, where that leaves no function behind."""
    import sympy as sp

    try:
        inverse = sp.solve(sp.Eq(value, t), by)
    except NotImplementedError:
        return None
    if len(inverse) != 1:
        return None
    single = sp.simplify(derivative.subs(by, inverse[0])).subs(t, y)
    return single if single.free_symbols <= {y} and not single.has(sp.log, sp.exp) else None


def _cost(expr: SymPyExpr) -> tuple[int, int, str]:
    """Functions of a scalar weigh most, divisions next, then operations; ties by text."""
    import sympy as sp

    exponents = [p.args[1] for p in expr.atoms(sp.Pow)]
    functions = len(expr.atoms(sp.Function)) + len([e for e in exponents if not isinstance(e, sp.Integer)])
    divisions = len([e for e in exponents if e.could_extract_minus_sign()])
    return 8 * functions + 3 * divisions + int(sp.count_ops(expr)), len(str(expr)), str(expr)


def _text(expr: SymPyExpr) -> str:
    """An expression as Python over ``sym``."""
    import sympy as sp

    values: dict[SymPyExpr, tuple[str, int]] = {}  # text and binding strength: 3 atom, 2 product, 1 sum
    for part in sp.postorder_traversal(expr):
        values[part] = _part(part, values)
    return values[expr][0]


def _part(part: SymPyExpr, values: dict[SymPyExpr, tuple[str, int]]) -> tuple[str, int]:
    import sympy as sp

    def of(e: SymPyExpr, strength: int) -> str:
        text, own = values[e] if e in values else _part(e, values)
        return text if own >= strength else f"({text})"

    if isinstance(part, sp.Symbol):
        return str(part), 3
    if part.is_number and not isinstance(part, sp.Integer):
        return repr(float(part)), 3 if part >= 0 else 1
    if isinstance(part, sp.Integer):
        return str(float(part)), 3 if part >= 0 else 1
    if isinstance(part, sp.Add):
        terms = sorted(part.args, key=lambda t: (bool(t.could_extract_minus_sign()), not t.is_number, str(t)))
        text = of(terms[0], 1)
        for term in terms[1:]:
            text += f" - {of(-term, 2)}" if term.could_extract_minus_sign() else f" + {of(term, 2)}"
        return text, 1
    if isinstance(part, sp.Pow):
        return _power(part, of)
    if isinstance(part, sp.Mul):
        return _product(part, of)
    return f"sym.{type(part).__name__.lower()}({of(part.args[0], 0)})", 3


def _product(part: SymPyExpr, of: Callable[[SymPyExpr, int], str]) -> tuple[str, int]:
    import sympy as sp

    number, rest = part.as_coeff_Mul()
    if float(number) == -1.0:
        return f"-{of(rest, 2)}", 2
    over, under = sp.fraction(part, exact=True)
    constant = sp.Mul(*[f for f in over.as_ordered_factors() if f.is_number])
    factors = [f for f in over.as_ordered_factors() if not f.is_number]
    below = sp.Mul(*[f for f in under.as_ordered_factors() if f.is_number])
    number_text = [] if constant / below == 1 and factors else [repr(float(constant / below))]
    text = " * ".join(number_text + [of(f, 2) for f in factors])
    divisors = [f for f in under.as_ordered_factors() if not f.is_number]
    for divisor in divisors:
        text += f" / {of(divisor, 3)}"
    return text, 2


def _power(part: SymPyExpr, of: Callable[[SymPyExpr, int], str]) -> tuple[str, int]:
    import sympy as sp

    base, exponent = part.args
    if exponent == sp.Rational(1, 2):
        return f"sym.sqrt({of(base, 0)})", 3
    if exponent == sp.Rational(-1, 2):
        return f"sym.rsqrt({of(base, 0)})", 3
    if isinstance(exponent, sp.Integer) and 0 < int(exponent) <= 4:
        return " * ".join([of(base, 2 if int(exponent) == 1 else 3)] * int(exponent)), 2
    if isinstance(exponent, sp.Integer) and int(exponent) < 0:
        power, _ = _power(sp.Pow(base, -exponent, evaluate=False), of) if exponent != -1 else (of(base, 3), 3)
        return f"1.0 / ({power})" if exponent != -1 else f"1.0 / {power}", 2
    raise AssertionError(f"no form for {part}")


if __name__ == "__main__":
    sys.stdout.write(generate())
