"""Range analysis of scalar bodies: between which numbers a value lies, and whether it may be NaN.

It proves what the ``finite`` rules need (no operand is NaN or infinite) and what a few others ask (an operand is at
least 0). A read is anything unless the caller knows better; integers, booleans and index values are always finite.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from graphc.graph.dtypes import DType
from graphc.graph.scalar import Body, Instr, const_value
from graphc.structs import dataclass


@dataclass(frozen=True, slots=True)
class Range:
    """Every value that is not NaN lies in ``low .. high``, infinities included; ``nan`` says whether it may be NaN."""

    low: float = -math.inf
    high: float = math.inf
    nan: bool = True

    @property
    def finite(self) -> bool:
        """Whether the value is certainly neither NaN nor infinite."""
        return not self.nan and self.low > -math.inf and self.high < math.inf


ANYTHING = Range()
_LARGEST = {"float32": 3.4e38, "float64": 1.79e308}

# Functions that increase, where they are defined, with the least operand that is in their domain.
_RISING: dict[str, tuple[Callable[[float], float], float]] = {
    "exp": (math.exp, -math.inf),
    "expm1": (math.expm1, -math.inf),
    "log": (math.log, 0.0),
    "log1p": (math.log1p, -1.0),
    "sqrt": (math.sqrt, 0.0),
    "tanh": (math.tanh, -math.inf),
    "erf": (math.erf, -math.inf),
    "floor": (math.floor, -math.inf),
    "ceil": (math.ceil, -math.inf),
    "round": (round, -math.inf),
    "trunc": (math.trunc, -math.inf),
}
_BOUNDED = {"sigmoid": (0.0, 1.0), "sin": (-1.0, 1.0), "cos": (-1.0, 1.0), "sign": (-1.0, 1.0), "atan": (-1.6, 1.6)}
_NOT_NEGATIVE = frozenset(("softplus", "rsqrt", "exp2", "cosh", "hypot", "acosh"))


def range_of_instr(instr: Instr, args: Sequence[Range]) -> Range:
    """The range of an instruction, given those of its operands.

    >>> from graphc.graph.dtypes import float32
    >>> range_of_instr(Instr("exp", (0,), float32), [Range(-1.0, 0.0, False)]).high
    1.0
    """
    if instr.dtype.kind == "b":
        return Range(0.0, 1.0, False)
    if instr.op == "const":
        value = float(const_value(instr))
        return Range() if math.isnan(value) else Range(value, value, False)
    found = _of_operation(instr, args)
    if instr.dtype.kind == "i":  # wraps around at its ends, and is never NaN
        last = 2.0 ** (8 * instr.dtype.itemsize - 1)
        inside = -last < found.low and found.high < last
        return Range(found.low, found.high, False) if inside else Range(-last, last, False)
    return _rounded(found, instr.dtype)


def _of_operation(instr: Instr, args: Sequence[Range]) -> Range:
    nan = any(a.nan for a in args)
    if instr.op in ("index", "size"):
        return Range(0.0 if instr.op == "index" else -(2.0**62), 2.0**62, False)
    if instr.op == "cast":
        return args[0]
    if instr.op == "where":
        return Range(min(args[1].low, args[2].low), max(args[1].high, args[2].high), args[1].nan or args[2].nan)
    if instr.op in _RISING:
        return _rising(instr.op, args[0])
    if instr.op in _BOUNDED:
        low, high = _BOUNDED[instr.op]
        infinite = instr.op in ("sin", "cos") and not args[0].finite
        return Range(low, high, nan or infinite)
    if instr.op in _NOT_NEGATIVE:
        return Range(0.0, math.inf, True)
    if instr.op in ("maximum", "minimum"):
        choose = max if instr.op == "maximum" else min
        return Range(choose(a.low for a in args), choose(a.high for a in args), nan)
    if instr.op == "neg":
        return Range(-args[0].high, -args[0].low, nan)
    if instr.op == "abs":
        low = max(args[0].low, -args[0].high, 0.0)
        return Range(low, max(abs(args[0].low), abs(args[0].high)), nan)
    if instr.op in ("add", "sub"):
        a, b = args if instr.op == "add" else (args[0], Range(-args[1].high, -args[1].low))
        opposite = (a.high == math.inf and b.low == -math.inf) or (a.low == -math.inf and b.high == math.inf)
        return _joined([a.low + b.low, a.high + b.high], nan or opposite)
    if instr.op == "mul":
        square = len(instr.args) == 2 and instr.args[0] == instr.args[1]
        a, b = args
        ends = [p * q for p in (a.low, a.high) for q in (b.low, b.high)]
        found = _joined(ends, nan or any(math.isnan(e) for e in ends))
        return Range(0.0, found.high, a.nan) if square else found
    return ANYTHING


def _rising(name: str, arg: Range) -> Range:
    function, least = _RISING[name]

    def at(value: float) -> float:
        if math.isinf(value) and name in ("floor", "ceil", "round", "trunc"):
            return value
        try:
            return float(function(value))
        except OverflowError:
            return math.inf
        except ValueError:
            return -math.inf  # log at 0

    return Range(at(max(arg.low, least)), at(max(arg.high, least)), arg.nan or arg.low < least)


def _joined(ends: Sequence[float], nan: bool) -> Range:
    known = [e for e in ends if not math.isnan(e)]
    if len(known) < len(ends):
        return Range(-math.inf, math.inf, True)
    return Range(min(known), max(known), nan)


def _rounded(found: Range, dtype: DType) -> Range:
    """The range after rounding to ``dtype``, whose largest numbers may have become infinite."""
    largest = _LARGEST[dtype.name]
    low = -math.inf if found.low < -largest else found.low
    high = math.inf if found.high > largest else found.high
    # An end computed in double precision may lie an ULP inside the truth; 0 and 1 are exact ends.
    slack = 1e-6
    low = low if low in (0.0, 1.0, -1.0) or math.isinf(low) else low - abs(low) * slack
    high = high if high in (0.0, 1.0, -1.0) or math.isinf(high) else high + abs(high) * slack
    return Range(low, high, found.nan)


def range_of_body(body: Body, reads: Sequence[Range]) -> Range:
    """The range of a body's result, given those of its reads.

    >>> from graphc.graph.dtypes import float32
    >>> from graphc.graph.scalar import trace
    >>> range_of_body(trace(lambda x: x * x + 1, [float32]), [ANYTHING]).low > 0.99
    True
    """
    found: list[Range] = []
    for instr in body.instrs:
        if instr.op == "read" and isinstance(instr.attr, int):
            found.append(reads[instr.attr] if instr.attr < len(reads) else of_type(instr.dtype))
        else:
            found.append(range_of_instr(instr, [found[a] for a in instr.args]))
    return found[-1]


def of_type(dtype: DType) -> Range:
    """The range of all values of a type."""
    if dtype.kind == "f":
        return ANYTHING
    last = 1.0 if dtype.kind == "b" else 2.0 ** (8 * dtype.itemsize - 1)
    return Range(0.0 if dtype.kind == "b" else -last, last, False)


def joined(a: Range, b: Range) -> Range:
    """The range of a value that is one or the other."""
    return Range(min(a.low, b.low), max(a.high, b.high), a.nan or b.nan)


_ENDS = (-math.inf, -(2.0**63), -(2.0**31), -1e6, -1.0, 0.0, 1.0, 1e6, 2.0**31, 2.0**63, math.inf)


def coarse(found: Range) -> Range:
    """A range that holds ``found``, one of a few, so that what is known of many nodes is said once.

    >>> coarse(Range(0.2, 0.9, False))
    Range(low=0.0, high=1.0, nan=False)
    """
    low = max(e for e in _ENDS if e <= found.low)
    high = min(e for e in _ENDS if e >= found.high)
    return ANYTHING if (low, high, found.nan) == (-math.inf, math.inf, True) else Range(low, high, found.nan)
