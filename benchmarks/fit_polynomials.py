"""Fits the minimax polynomials of `jit/vector_math.py` and writes them to `jit/coefficients.py`.

Each row of `TABLE` is a function q, a weight and an interval; the Remez exchange finds the polynomial p of the given
degree whose largest |weight * (q - p)| on the interval is least. The weight makes that the function's relative error
(or its absolute error, where the polynomial only adds a small part). Coefficients are rounded to the dtype; the leading
ones that matter most (the 1 of exp, the 1 of sin ...) are not in the polynomial but exact, in the formula.

    python benchmarks/fit_polynomials.py          # rewrites jit/coefficients.py, prints the errors as powers of two

Needs mpmath. Source: E. Ya. Remez (1934); see Muller, Elementary Functions, 3rd ed., section 3.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import mpmath as mp
import numpy as np

mp.mp.dps = 50

Function = Callable[[mp.mpf], mp.mpf]


def remez(q: Function, weight: Function, degree: int, low: float, high: float) -> tuple[list[mp.mpf], mp.mpf]:
    """Coefficients, constant term first, and the largest weighted error."""
    low, high = mp.mpf(low), mp.mpf(high)
    n = degree + 2
    grid = [(low + high) / 2 - (high - low) / 2 * mp.cos(mp.pi * (i + mp.mpf("0.5")) / (30 * n)) for i in range(30 * n)]
    values, weights = [q(x) for x in grid], [weight(x) for x in grid]
    chosen = [round((i + 0.5) * 30) - 1 for i in range(n)]
    coefficients: list[mp.mpf] = []
    worst = mp.mpf(0)
    for _ in range(12):
        rows = [[grid[k] ** j for j in range(n - 1)] + [(-1) ** i / weights[k]] for i, k in enumerate(chosen)]
        solution = mp.lu_solve(mp.matrix(rows), mp.matrix([values[k] for k in chosen]))
        coefficients = list(solution)[:-1]
        errors = [w * (v - mp.polyval(coefficients[::-1], x)) for x, v, w in zip(grid, values, weights, strict=True)]
        worst = max(abs(e) for e in errors)
        if worst <= abs(solution[n - 1]) * mp.mpf("1.0001"):
            break
        chosen = _alternating_extrema(errors, n)
    return coefficients, worst


def _alternating_extrema(errors: list[mp.mpf], n: int) -> list[int]:
    """The grid positions of the n largest errors of alternating sign."""
    extrema: list[int] = []
    for k, e in enumerate(errors):
        if extrema and (errors[extrema[-1]] > 0) == (e > 0):
            if abs(e) > abs(errors[extrema[-1]]):
                extrema[-1] = k
        else:
            extrema.append(k)
    while len(extrema) > n:
        if len(extrema) == n + 1:
            extrema.pop(0 if abs(errors[extrema[0]]) < abs(errors[extrema[-1]]) else -1)
        else:  # drop the neighbouring pair that contains the smallest error
            i = min(range(len(extrema) - 1), key=lambda i: max(abs(errors[extrema[i]]), abs(errors[extrema[i + 1]])))
            del extrema[i : i + 2]
    return extrema


def one(x: mp.mpf) -> mp.mpf:
    return mp.mpf(1)


def root(f: Function) -> Function:
    """The function of z = x**2 that f is of x."""
    return lambda z: f(mp.sqrt(z))


def _above(a: mp.mpf) -> mp.mpf:
    """P(N > a) for a standard normal N."""
    return mp.erfc(a / mp.sqrt(2)) / 2


LN2 = mp.log(2)
TINY = 1e-14  # in place of 0, where the quotients below are 0/0

# name: (q, weight, low, high, degree for float32, degree for float64)
TABLE: dict[str, tuple[Function, Function, float, float, int | None, int | None]] = {
    # exp(r) = 1 + r + r^2 q(r)
    "exp": (lambda r: (mp.exp(r) - 1 - r) / r**2, lambda r: r**2 / mp.exp(r), -LN2 / 2, LN2 / 2, 4, 9),
    # expm1(r) = r + r^2 q(r)
    "expm1": (lambda r: (mp.expm1(r) - r) / r**2, lambda r: abs(r**2 / mp.expm1(r)), -LN2 / 2, LN2 / 2, 5, 10),
    # log(1 + f) = f - f^2/2 + f^3 q(f)
    "log": (
        lambda f: (mp.log1p(f) - f + f**2 / 2) / f**3,
        lambda f: f**3 / mp.log1p(f),
        mp.sqrt(0.5) - 1,
        mp.sqrt(2) - 1,
        7,
        None,
    ),
    # log(1 + f) = 2 s + s^3 q(s^2) with s = f / (2 + f)
    "log_ratio": (
        root(lambda s: (2 * mp.atanh(s) - 2 * s) / s**3),
        root(lambda s: s**3 / (2 * mp.atanh(s))),
        TINY,
        0.0296,
        None,
        6,
    ),
    # ... and 2 s + 2/3 s^3 + s^5 q(s^2)
    "log_ratio5": (
        root(lambda s: (2 * mp.atanh(s) - 2 * s - 2 * s**3 / 3) / s**5),
        root(lambda s: s**5 / (2 * mp.atanh(s))),
        TINY,
        0.0296,
        None,
        6,
    ),
    # sin(r) = r + r^3 q(r^2); the interval leaves room for an inexact quotient
    "sin": (root(lambda r: (mp.sin(r) - r) / r**3), root(lambda r: r**3 / mp.sin(r)), TINY, 0.83**2, 2, 5),
    # cos(r) = 1 - r^2/2 + r^4 q(r^2)
    "cos": (root(lambda r: (mp.cos(r) - 1 + r**2 / 2) / r**4), root(lambda r: r**4 / mp.cos(r)), TINY, 0.83**2, 2, 5),
    # sinh(x) = x + x^3 q(x^2), |x| <= 1
    "sinh": (root(lambda x: (mp.sinh(x) - x) / x**3), root(lambda x: x**3 / mp.sinh(x)), TINY, 1, 3, 6),
    # asin(x) = x + x^3 q(x^2), |x| <= 0.55
    "asin": (root(lambda x: (mp.asin(x) - x) / x**3), root(lambda x: x**3 / mp.asin(x)), TINY, 0.3025, 5, 13),
    # atan(x) = x + x^3 q(x^2), |x| <= 1/2
    "atan": (root(lambda x: (mp.atan(x) - x) / x**3), root(lambda x: x**3 / mp.atan(x)), TINY, 0.25, 5, 12),
    # erf(x) = x + x q(x^2), |x| <= 1
    "erf_small": (root(lambda x: mp.erf(x) / x - 1), root(lambda x: x / mp.erf(x)), TINY, 1, 6, 11),
    # 2^r = 1 + r q(r)
    "exp2": (lambda r: mp.expm1(r * LN2) / r if r else LN2, lambda r: abs(r) / 2**r, -0.5, 0.5, 4, None),
    # log2(P(N > a)) = -1 + a q(a) for a standard normal N: absolute error of P, relative where P < 2^-16
    "ndtr": (
        lambda a: (mp.log(_above(a), 2) + 1) / a,
        lambda a: a * max(_above(a), mp.mpf(2) ** -16) * LN2,
        TINY,
        5.5,
        7,
        None,
    ),
}
# log(erfc(a)) in a - lowest, where erfc is largest, absolute error of erf: lowest and highest a, degree
ERF_LARGE = {"float32": (1, 4, 6), "float64": (1, 6, 18)}


def fit() -> dict[str, dict[str, tuple[list, float]]]:
    """dtype -> name -> (coefficients, log2 of the error)."""
    result: dict[str, dict[str, tuple[list, float]]] = {"float32": {}, "float64": {}}
    for name, (q, weight, low, high, *degrees) in TABLE.items():
        for dtype, degree in zip(result, degrees, strict=True):
            if degree is not None:
                coefficients, error = remez(q, weight, degree, low, high)
                result[dtype][name] = coefficients, float(mp.log(error, 2))
    for dtype, (low, high, degree) in ERF_LARGE.items():
        coefficients, error = _fit_log_erfc(low, high, degree)
        result[dtype]["erf_large"] = coefficients, float(mp.log(error, 2))
    return result


def _fit_log_erfc(low: float, high: float, degree: int) -> tuple[list[mp.mpf], mp.mpf]:
    return remez(lambda b: mp.log(mp.erfc(b + low)), lambda b: mp.erfc(b + low), degree, 0, high - low)


def main() -> None:
    """Write jit/coefficients.py."""
    lines = [
        '"""Minimax polynomials of the elementary functions, constant term first; written by',
        "benchmarks/fit_polynomials.py, which says what each approximates. The comment is log2 of the largest",
        'error before rounding."""',
        "",
        "POLYNOMIALS: dict[str, dict[str, tuple[float, ...]]] = {",
    ]
    for dtype, table in fit().items():
        lines.append(f'    "{dtype}": {{')
        for name, (coefficients, error) in table.items():
            lines.append(f'        "{name}": (  # {error:.1f}')
            kind = np.dtype(dtype).type
            rounded = [str(kind(mp.nstr(c, 40))) for c in coefficients]
            lines += [f"            {c}," for c in rounded]
            lines.append("        ),")
            print(f"{dtype} {name}: degree {len(coefficients) - 1}, error 2**{error:.1f}")
        lines.append("    },")
    lines.append("}")
    (Path(__file__).parent.parent / "jit" / "coefficients.py").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
