"""The scalar rules, a table a phase: identities between the primitives inside one body.

``x y z`` are floats, ``n m`` numbers, ``i`` an integer, ``a b`` anything, ``p q`` conditions; ``c d`` are constants.
The order in a table matters where two left sides overlap: the first that matches is taken.
"""

from __future__ import annotations

import math
from functools import lru_cache

from graphc.graph.scalar import Body
from graphc.rewrite.engine import normalise
from graphc.rewrite.patterns import Const, Var, function
from graphc.rewrite.rule_sets import Options, rule_set
from graphc.rewrite.tables import exact, finite, rounding, table


def _power_of_two(value: float) -> bool:
    """Whether 1 / value is exact and normal, in float32 too."""
    return 2.0**-120 < abs(value) < 2.0**120 and abs(math.frexp(value)[0]) == 0.5


x, y, z = (Var(name, "f") for name in "xyz")
n, m = (Var(name, "fi") for name in "nm")
i, j = (Var(name, "i") for name in "ij")
a, b, e = (Var(name, "fib") for name in "abe")
p, q = (Var(name, "b") for name in "pq")
natural = Var("natural", "i", lambda r: r.low >= 0)
nonneg = Var("nonneg", "f", lambda r: r.low >= 0)
c, d = (Const(name) for name in "cd")
normal = Const("normal", lambda v: v != 0 and 1e-37 < abs(v) < 1e37)
power_of_two = Const("power_of_two", _power_of_two)

absolute, sign, where = function("abs"), function("sign"), function("where")
sqrt, rsqrt = function("sqrt"), function("rsqrt")
exp, expm1, exp2 = function("exp"), function("expm1"), function("exp2")
log, log1p, log2 = function("log"), function("log1p"), function("log2")
sigmoid, softplus, tanh, logaddexp = function("sigmoid"), function("softplus"), function("tanh"), function("logaddexp")
sinh, cosh = function("sinh"), function("cosh")
maximum, minimum = function("maximum"), function("minimum")
equal, not_equal = function("equal"), function("not_equal")
isnan, isinf, isfinite = function("isnan"), function("isinf"), function("isfinite")

# Normal forms. They lose no bit, and all later phases keep them, so that their patterns need to name one form alone.
CANONICALISE = table(
    "canonicalise",
    exact("neg-twice", -(-n), n),  # noqa: B002
    exact("mul-one", n * 1, n),
    exact("div-one", x / 1, x),
    exact("mul-minus-one", n * -1, -n),
    exact("div-minus-one", x / -1, -x),
    exact("mul-neg-constant", (-n) * c, n * (-c)),
    exact("neg-mul-constant", -(n * c), n * (-c)),
    exact("neg-div-constant", -(x / c), x / (-c)),
    exact("neg-constant-div", -(c / x), (-c) / x),
    exact("constant-div-neg", c / (-x), (-c) / x),
    exact("neg-div-by-constant", (-x) / c, x / (-c)),
    exact("neg-times-neg", (-n) * (-m), n * m),
    exact("neg-times", (-n) * m, -(n * m)),
    exact("neg-over", (-x) / y, -(x / y)),
    exact("over-neg", x / (-y), -(x / y)),
    exact("add-neg", n + (-m), n - m),
    exact("sub-neg", n - (-m), n + m),
    exact("add-self", n + n, 2 * n),
    exact("add-minus-zero", x + -0.0, x),
    exact("sub-zero", n - 0, n),
    exact("int-add-zero", i + 0, i),
    exact("int-mul-zero", i * 0, 0),
    exact("int-sub-self", i - i, 0),
    exact("pow-one", n**1, n),
    exact("pow-zero", x**0, 1),
    exact("int-pow-zero", i**0, 1),
    exact("abs-abs", absolute(absolute(n)), absolute(n)),
    exact("abs-neg", absolute(-n), absolute(n)),
    exact("maximum-self", maximum(n, n), n),
    exact("minimum-self", minimum(n, n), n),
    exact("maximum-lowest", maximum(x, -math.inf), x),
    exact("minimum-highest", minimum(x, math.inf), x),
    exact("maximum-constants", maximum(maximum(n, c), d), maximum(n, maximum(c, d))),
    exact("minimum-constants", minimum(minimum(n, c), d), minimum(n, minimum(c, d))),
    exact("where-same", where(p, a, a), a),
    exact("where-true", where(True, a, b), a),
    exact("where-false", where(False, a, b), b),
    exact("where-not", where(~p, a, b), where(p, b, a)),
    exact("where-in-yes", where(p, where(p, a, b), e), where(p, a, e)),
    exact("where-in-no", where(p, e, where(p, a, b)), where(p, e, b)),
    exact("not-not", ~~p, p),
    exact("not-equal", ~equal(a, b), not_equal(a, b)),
    exact("not-not-equal", ~not_equal(a, b), equal(a, b)),
    exact("and-true", p & True, p),
    exact("and-false", p & False, False),
    exact("and-self", p & p, p),
    exact("or-false", p | False, p),
    exact("or-true", p | True, True),
    exact("or-self", p | p, p),
    exact("xor-false", p ^ False, p),
    exact("xor-true", p ^ True, ~p),
    exact("xor-self", p ^ p, False),
    exact("less-self", n < n, False),
    exact("int-equal-self", equal(i, i), True),
    exact("int-less-equal-self", i <= i, True),
    exact("int-less-zero", natural < 0, False),
)

SIMPLIFY = table(
    "simplify",
    rounding("add-zero", x + 0.0, x, why="-0.0 + 0.0 is 0.0"),
    rounding("neg-sub", -(n - m), m - n, why="the sign of a zero"),
    rounding("zero-sub", 0 - n, -n, why="0.0 - 0.0 is 0.0, -(0.0) is -0.0"),
    rounding("add-constants", (n + c) + d, n + (c + d), why="one rounding for two"),
    rounding("sub-constants", (n - c) - d, n - (c + d), why="one rounding for two"),
    rounding("add-sub-constants", (n + c) - d, n + (c - d), why="one rounding for two"),
    rounding("sub-add-constants", (n - c) + d, n + (d - c), why="one rounding for two"),
    rounding("mul-constants", (n * c) * d, n * (c * d), why="one rounding for two"),
    rounding("div-mul-constants", (x / normal) * d, x * (d / normal), why="one rounding for two"),
    rounding("mul-div-constants", (x * c) / normal, x * (c / normal), why="one rounding for two"),
    rounding("div-constants", (x / c) / d, x / (c * d), why="one rounding for two"),
    rounding("reciprocal-mul-constants", (c / x) * d, (c * d) / x, why="one rounding for two"),
    rounding("mul-reciprocal", x * (1 / y), x / y, why="one rounding for two"),
    rounding("reciprocal-twice", 1 / (1 / x), x, why="two roundings saved"),
    rounding("div-div", x / (1 / y), x * y, why="one rounding for two"),
    rounding("abs-of-not-negative", absolute(nonneg), nonneg, why="the sign of a zero"),
    rounding("abs-times-sign", absolute(x) * sign(x), x, why="the sign of a zero"),
    rounding("times-sign", x * sign(x), absolute(x), why="inf * 1 and the sign of a zero"),
    rounding("maximum-neg", maximum(n, -n), absolute(n), why="the sign of a zero"),
    rounding("square-of-abs", absolute(x) * absolute(x), x * x, why="none in IEEE arithmetic; the measure alone"),
    rounding("pow-half", x**0.5, sqrt(x), why="-0.0 and -inf", domain=(0.1, 9.0)),
    rounding("pow-minus-half", x**-0.5, rsqrt(x), why="-0.0 and -inf", domain=(0.1, 9.0)),
    finite("sub-self", x - x, 0, why="inf - inf is NaN"),
    finite("mul-zero", x * 0, 0, why="inf * 0 is NaN, and the sign of a zero"),
    finite("isnan-finite", isnan(x), False, why="assumes what it asks"),
    finite("isinf-finite", isinf(x), False, why="assumes what it asks"),
    finite("isfinite-finite", isfinite(x), True, why="assumes what it asks"),
    finite("equal-self", equal(x, x), True, why="NaN differs from itself"),
    finite("less-equal-self", x <= x, True, why="NaN is not at most itself"),
)

# Forms that neither overflow nor cancel, and whose derivatives do not either. The differentiator runs these on every
# body.
_OVER = "no overflow on the way"
_DIGITS = "digits that the left side cancels"
STABILISE = table(
    "stabilise",
    rounding("tanh-by-exp", (exp(x) - exp(-x)) / (exp(x) + exp(-x)), tanh(x), why=_OVER),
    rounding("tanh-by-exp-double", expm1(x) / (exp(x) + 1), tanh(0.5 * x), why=_OVER),
    rounding("sigmoid-by-exp", exp(x) / (exp(x) + 1), sigmoid(x), why=_OVER),
    rounding("sigmoid", 1 / (exp(x) + 1), sigmoid(-x), why=_OVER),
    rounding("sigmoid-minus", -1 / (exp(x) + 1), -sigmoid(-x), why=_OVER),
    rounding("over-one-plus-exp", y / (exp(x) + 1), y * sigmoid(-x), why=_OVER),
    rounding("sigmoid-times-exp", sigmoid(-x) * exp(x), sigmoid(x), why=_OVER),
    rounding("sigmoid-times-exp-apart", (y * sigmoid(-x)) * exp(x), y * sigmoid(x), why=_OVER),
    rounding("sigmoid-by-tanh", 0.5 * (tanh(x) + 1), sigmoid(2 * x), why=_DIGITS),
    rounding("tanh-by-sigmoid", 2 * sigmoid(x) - 1, tanh(0.5 * x), why=_DIGITS),
    rounding("one-minus-sigmoid", 1 - sigmoid(x), sigmoid(-x), why=_DIGITS),
    rounding("sigmoid-minus-one", sigmoid(x) - 1, -sigmoid(-x), why=_DIGITS),
    rounding("sigmoid-by-softplus", exp(-softplus(x)), sigmoid(-x), why="one rounding for two"),
    rounding("softplus", log(exp(x) + 1), softplus(x), why=_OVER),
    rounding("softplus-by-log1p", log1p(exp(x)), softplus(x), why=_OVER),
    rounding("softplus-by-logaddexp", logaddexp(x, 0), softplus(x), why="the same function"),
    rounding("softplus-by-maximum", maximum(x, 0) + softplus(-absolute(x)), softplus(x), why="the same function"),
    rounding("softplus-by-relu", where(x > 0, x, 0) + softplus(-absolute(x)), softplus(x), why="the same function"),
    rounding("softplus-minus", softplus(x) - x, softplus(-x), why=_DIGITS),
    rounding("minus-softplus", x - softplus(x), -softplus(-x), why=_DIGITS),
    rounding("log-of-two-exps", log(exp(x) + exp(y)), logaddexp(x, y), why=_OVER),
    rounding("log-sigmoid", log(sigmoid(x)), -softplus(-x), why="log of a number that became 0"),
    rounding("log-exp", log(exp(x)), x, why=_OVER),
    rounding("log-exp-over", log(exp(x) / y), x - log(y), why=_OVER, domain=(0.1, 3.0)),
    rounding("log-exp-times", log(exp(x) * y), x + log(y), why=_OVER, domain=(0.1, 3.0)),
    rounding("log-over-exp", log(y / exp(x)), log(y) - x, why=_OVER, domain=(0.1, 3.0)),
    rounding("log-reciprocal", log(1 / x), -log(x), why="1 / x of a denormal is infinite", domain=(0.1, 9.0)),
    rounding("log2-exp2", log2(exp2(x)), x, why=_OVER),
    rounding("log1p-expm1", log1p(expm1(x)), x, why=_OVER),
    rounding("log1p", log(x + 1), log1p(x), why=_DIGITS, domain=(-0.8, 3.0)),
    rounding("log1p-minus", log(1 - x), log1p(-x), why=_DIGITS, domain=(-3.0, 0.8)),
    rounding("expm1", exp(x) - 1, expm1(x), why=_DIGITS),
    rounding("expm1-plus", exp(x) + -1, expm1(x), why=_DIGITS),
    rounding("expm1-minus", 1 - exp(x), -expm1(x), why=_DIGITS),
    rounding("sinh", 0.5 * (exp(x) - exp(-x)), sinh(x), why=_DIGITS),
    rounding("cosh", 0.5 * (exp(x) + exp(-x)), cosh(x), why="half of what overflows"),
    rounding("sinh-halved", (exp(x) - exp(-x)) / 2, sinh(x), why=_DIGITS),
    rounding("cosh-halved", (exp(x) + exp(-x)) / 2, cosh(x), why="half of what overflows"),
    rounding("exp-over-exp", exp(x) / exp(y), exp(x - y), why=_OVER),
    rounding("exp-log-not-negative", exp(log(nonneg)), nonneg, why="two roundings saved"),
    finite("exp-log", exp(log(x)), x, why="NaN where x is negative", domain=(0.1, 9.0)),
    finite("expm1-log1p", expm1(log1p(x)), x, why="NaN where x is below -1", domain=(-0.8, 3.0)),
    rounding("sqrt-of-square", sqrt(x * x), absolute(x), why="no overflow or underflow on the way"),
    rounding("sqrt-of-power", sqrt(x**2), absolute(x), why="no overflow or underflow on the way"),
    finite("square-of-sqrt", sqrt(x) * sqrt(x), x, why="NaN where x is negative", domain=(0.0, 9.0)),
)

# Cheaper forms of what is left; after these the forms above are not recognised any more.
SPECIALISE = table(
    "specialise",
    exact("int-pow-two", i**2, i * i),
    exact("int-pow-three", i**3, i * i * i),
    rounding("pow-two", x**2, x * x, why="pow may round differently"),
    rounding("pow-three", x**3, x * x * x, why="two roundings for one"),
    rounding("pow-four", x**4, (x * x) * (x * x), why="two roundings for one"),
    rounding("pow-minus-one", x**-1, 1 / x, why="pow may round differently", domain=(0.2, 3.0)),
    rounding("pow-minus-two", x**-2, 1 / (x * x), why="two roundings for one", domain=(0.2, 3.0)),
    exact("div-power-of-two", x / power_of_two, x * (1 / power_of_two)),
    rounding("div-constant", x / normal, x * (1 / normal), why="two roundings for one"),
    rounding("div-sqrt", x / sqrt(y), x * rsqrt(y), why="one rounding fewer", domain=(0.1, 9.0)),
    rounding("reciprocal-sqrt", 1 / sqrt(x), rsqrt(x), why="one rounding fewer", domain=(0.1, 9.0)),
    rounding("mul-rsqrt-one", sqrt(1 / x), rsqrt(x), why="one rounding fewer", domain=(0.1, 9.0)),
)

TABLES = (CANONICALISE, SIMPLIFY, STABILISE, SPECIALISE)


@lru_cache(maxsize=16384)
def stabilise_body(body: Body) -> Body:
    """The body in the form that is safe to differentiate: the canonical and the stabilising rules alone.

    >>> from graphc.graph.dtypes import float32
    >>> from graphc.graph.scalar import Instr
    >>> const = Instr("const", (), float32, "1.0")
    >>> z = (Instr("read", (), float32, 0), Instr("exp", (0,), float32), const, Instr("add", (2, 1), float32))
    >>> [instr.op for instr in stabilise_body(Body((*z, Instr("log", (3,), float32)))).instrs]
    ['read', 'softplus']
    """
    return normalise(body, rule_set((CANONICALISE, STABILISE), Options(("exact", "rounding")))).body
