"""Prints the coefficients of ``graphc/llvm/vecmath_tables.py``: ``python tests/tools/fit_vecmath.py``.

Every polynomial is a weighted minimax fit made here by the exchange algorithm in 60 digits, then rounded to the type
coefficient by coefficient. Source of the method: E. Remez, 1934; in the form of W. J. Cody, "A survey of practical
rational and polynomial approximation of functions", SIAM Review 12 (1970), section 3.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

import mpmath as mp
from mpmath import mpf

mp.mp.dps = 60
Real = Callable[[mpf], mpf]


def minimax(f: Real, weight: Real, low: mpf, high: mpf, degree: int) -> tuple[list[mpf], mpf]:
    """Coefficients of the polynomial c that makes max |f - c| · weight least on [low, high], and that maximum."""
    n = degree + 2
    nodes = [(low + high) / 2 - (high - low) / 2 * mp.cos(mp.pi * (k + mpf(1) / 2) / n) for k in range(n)]
    grid = [
        (low + high) / 2 - (high - low) / 2 * mp.cos(mp.pi * (k + mpf(1) / 3) / (24 * n + 1)) for k in range(24 * n + 1)
    ]
    targets = [(x, f(x), weight(x)) for x in [low, *grid, high] if weight(x) > 0]
    coefficients: list[mpf] = []
    worst = mpf(0)
    for _ in range(30):
        rows = mp.matrix(n, n)
        right = mp.matrix(n, 1)
        for i, x in enumerate(nodes):
            for k in range(degree + 1):
                rows[i, k] = x**k
            rows[i, degree + 1] = (-1) ** i / weight(x)
            right[i] = f(x)
        solved = mp.lu_solve(rows, right)
        coefficients = [solved[k] for k in range(degree + 1)]
        level = abs(solved[degree + 1])
        errors = [((y - mp.polyval(coefficients[::-1], x)) * w, x) for x, y, w in targets]
        runs: list[tuple[mpf, mpf]] = []
        for error, x in errors:
            if runs and (error > 0) == (runs[-1][0] > 0):
                if abs(error) > abs(runs[-1][0]):
                    runs[-1] = (error, x)
            else:
                runs.append((error, x))
        while len(runs) > n:
            runs.pop(0 if abs(runs[0][0]) < abs(runs[-1][0]) else -1)
        worst = max(abs(e) for e, _ in errors)
        if len(runs) < n or worst < level * mpf("1.02"):
            break
        nodes = [x for _, x in runs]
    return coefficients, worst


def rounded(x: mpf, single: bool) -> float:
    """The nearest number of the type."""
    number = float(x)
    return float(struct.unpack("<f", struct.pack("<f", number))[0]) if single else number


def pieces(x: mpf, count: int, single: bool, short: int = 0) -> list[float]:
    """x as a sum of ``count`` numbers of the type, none larger than what is left; the first ``short`` bits shorter."""
    bits = 24 if single else 53
    out: list[float] = []
    for n in range(count):
        scale = mpf(2) ** (bits - (0 if n else short) - 1 - mp.floor(mp.log(x, 2)))
        out.append(rounded(mp.floor(x * scale) / scale, single))
        x -= mpf(out[-1])
    return out


def _series(f: Real, at_zero: mpf, z: mpf) -> mpf:
    return at_zero if abs(z) < mpf(10) ** -28 else f(z)


def _fits() -> list[tuple[str, Real, Real, mpf, mpf, int, int]]:
    half_ln2 = mp.log(2) / 2 * mpf("1.0001")
    quarter = mp.pi / 4 * mpf("1.0001")
    s_max = mpf(1) / 25 * mpf("1.0001")  # s = f / (2 + f), f up to 1/2
    tiny = mpf(10) ** -14
    root = mp.sqrt

    def exp_q(r: mpf) -> mpf:
        return _series(lambda r: (mp.expm1(r) - r) / r**2, mpf(1) / 2, r)

    def exp2_q(r: mpf) -> mpf:
        return _series(lambda r: (mpf(2) ** r - 1) / r, mp.log(2), r)

    def log_p(f: mpf) -> mpf:
        return _series(lambda f: (mp.log1p(f) - f + f * f / 2) / f**3, mpf(1) / 3, f)

    def log_r(z: mpf) -> mpf:
        s = root(z)
        return mpf(2) / 3 if z < mpf(10) ** -26 else (2 * mp.atanh(s) - 2 * s) / (s * z)

    def log_tail(z: mpf) -> mpf:
        s = root(z)
        return mpf(1) / 5 if z < mpf(10) ** -13 else (mp.atanh(s) / s - 1 - z / 3) / z**2

    def sin_s(z: mpf) -> mpf:
        r = root(z)
        return -mpf(1) / 6 if z < mpf(10) ** -26 else (mp.sin(r) - r) / (r * z)

    def cos_c(z: mpf) -> mpf:
        return mpf(1) / 24 if z < mpf(10) ** -13 else (mp.cos(root(z)) - 1 + z / 2) / z**2

    def atan_a(z: mpf) -> mpf:
        r = root(z)
        return -mpf(1) / 3 if z < mpf(10) ** -26 else (mp.atan(r) - r) / (r * z)

    def asin_a(z: mpf) -> mpf:
        r = root(z)
        return mpf(1) / 6 if z < mpf(10) ** -26 else (mp.asin(r) - r) / (r * z)

    def erf_e(z: mpf) -> mpf:
        r = root(z)
        return 2 / root(mp.pi) - 1 if z < mpf(10) ** -26 else mp.erf(r) / r - 1

    def ratio(f: Real) -> Real:
        return lambda z: mpf(1) if z < tiny else root(z) / f(root(z))

    return [
        ("exp", exp_q, lambda r: abs(r**2 / mp.expm1(r)) if r else mpf(0), -half_ln2 * mpf("1.001"), half_ln2, 4, 9),
        ("exp2", exp2_q, lambda r: abs(r) / mpf(2) ** r, mpf("-0.501"), mpf("0.5001"), 5, 10),
        ("log", log_p, lambda f: abs(f**3 / mp.log1p(f)) if f else mpf(0), mpf("-0.25"), mpf("0.5"), 8, -1),
        ("log_atanh", log_r, lambda z: z * ratio(mp.atanh)(z), mpf(0), s_max, -1, 7),
        ("log1p_unit", log_r, lambda z: z * ratio(mp.atanh)(z), mpf(0), mpf(1) / 9 * mpf("1.0001"), 3, 9),
        ("log_tail", log_tail, lambda z: z * z, mpf(0), s_max, 3, 8),
        ("sin", sin_s, lambda z: z * ratio(mp.sin)(z), mpf(0), quarter**2, 2, 5),
        ("cos", cos_c, lambda z: z * z, mpf(0), quarter**2, 2, 5),
        ("atan", atan_a, lambda z: z * ratio(mp.atan)(z), mpf(0), mpf(1), 7, 18),
        ("asin", asin_a, lambda z: z * ratio(mp.asin)(z), mpf(0), mpf("0.2501"), 4, 11),
        ("erf", erf_e, ratio(mp.erf), mpf(0), mpf(1), 6, 11),
        ("erfc", lambda a: mp.log(mp.erfc(a)), lambda a: mp.erfc(a) / mp.erf(a), mpf(1), mpf(6), 6, 17),
    ]


# Times an exponent, of 8 or 11 bits, the first piece of the first two is exact.
CONSTANTS = (
    ("ln2", mp.log(2), 2, True),
    ("log10_2", mp.log(2, 10), 2, True),
    ("log2e", 1 / mp.log(2), 2, False),
    ("log10e", 1 / mp.log(10), 2, False),
    ("third", mpf(1) / 3, 2, False),
    ("half_pi", mp.pi / 2, 3, False),
)


def table(single: bool) -> dict[str, tuple[tuple[float, ...], float | None]]:
    """The numbers of every key for a type, with log2 of the fit's relative error."""
    rows: dict[str, tuple[tuple[float, ...], float | None]] = {}
    for key, f, weight, low, high, degree32, degree64 in _fits():
        degree = degree32 if single else degree64
        if degree < 0:
            continue
        top = mpf(4) if single and key == "erfc" else high
        coefficients, worst = minimax(f, weight, low, top, degree)
        rows[key] = tuple(rounded(c, single) for c in coefficients), float(mp.log(worst, 2))
    for key, value, count, short in CONSTANTS:
        rows[key] = tuple(pieces(value, count, single, (8 if single else 11) if short else 0)), None
    return rows


def main() -> None:
    """Print both tables as Python."""
    for single, name in ((True, "FLOAT"), (False, "DOUBLE")):
        print(f"{name}: Table = {{")
        for key, (numbers, error) in table(single).items():
            if error is not None:
                print(f"    # relative error 2^{error:.1f}")
            texts = [repr(n) for n in numbers]
            if len(line := f'    "{key}": ({", ".join(texts)}),') <= 118:
                print(line)
                continue
            print(f'    "{key}": (')
            for start in range(0, len(texts), 4):
                print("        " + ", ".join(texts[start : start + 4]) + ",")
            print("    ),")
        print("}\n")


if __name__ == "__main__":
    main()
