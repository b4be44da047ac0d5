"""The arithmetic of the loop IR in NumPy, where NumPy's own is not it: fused multiply-add, casts, int64 as Python ints.

The interpreter uses these on scalars and on vectors alike.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np

__all__ = ["dot2", "dot4", "dtype_of", "fma", "reduce_tree", "wrap"]

_DTYPES: dict[str, np.dtype] = {}


def dtype_of(name: str) -> np.dtype:
    """The NumPy dtype called `name`; "bfloat16" comes from ml_dtypes."""
    if name not in _DTYPES:
        if name == "bfloat16":
            import ml_dtypes

            _DTYPES[name] = np.dtype(ml_dtypes.bfloat16)
        else:
            _DTYPES[name] = np.dtype(name)
    return _DTYPES[name]


def wrap(value: int) -> int:
    """A Python int reduced to the range of int64, as two's complement arithmetic does."""
    return (value + (1 << 63) & ((1 << 64) - 1)) - (1 << 63)


def fma(a: Any, b: Any, c: Any) -> Any:
    """a*b + c with one rounding, for floating dtypes; for integers plain arithmetic. Scalars or arrays of one dtype."""
    dtype = np.result_type(a, b, c)
    if dtype.kind in "iu":
        return a * b + c
    if dtype == np.float64:
        with np.errstate(all="ignore"):
            return _fma64(a, b, c)
    # The product is exact in float64; a sum rounded to odd there rounds rightly to any format at least 2 bits shorter.
    return _add_to_odd(np.multiply(a, b, dtype=np.float64), np.asarray(c, np.float64)).astype(dtype)[()]


def _two_sum(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """a + b rounded, and the rounding error (Knuth)."""
    s = a + b
    t = s - a
    return s, (a - (s - t)) + (b - t)


def _two_product(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """a*b rounded, and the rounding error (Dekker, with Veltkamp's splitting)."""

    def split(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        t = 134217729.0 * x  # 2**27 + 1
        high = t - (t - x)
        return high, x - high

    p = a * b
    (ah, al), (bh, bl) = split(a), split(b)
    return p, ((ah * bh - p) + ah * bl + al * bh) + al * bl


def _add_to_odd(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a + b in float64, rounded to odd: if inexact, that neighbour of the sum whose last bit is 1."""
    s, error = (np.atleast_1d(v) for v in _two_sum(np.asarray(a), np.asarray(b)))
    bits = s.view(np.int64)
    inexact = (error != 0) & np.isfinite(s) & np.isfinite(error) & (bits & 1 == 0)
    away = (error > 0) == (s > 0)  # the exact sum is farther from 0 than s
    odd = np.where(inexact, bits + np.where(away, 1, -1), bits).view(np.float64)
    return odd.reshape(np.broadcast_shapes(np.shape(a), np.shape(b)))


def _fma64(a: Any, b: Any, c: Any) -> Any:
    """Boldo and Melquiond, "Emulation of FMA and correctly rounded sums", where nothing in between can over- or
    underflow; elsewhere exact rational arithmetic."""
    shape = np.broadcast_shapes(np.shape(a), np.shape(b), np.shape(c))
    a, b, c = (np.broadcast_to(np.asarray(v, np.float64), shape).reshape(-1) for v in (a, b, c))
    high, low = _two_product(a, b)
    t, u = _two_sum(c, low)
    v, w = _two_sum(high, t)
    result = v + _add_to_odd(u, w)
    finite = np.isfinite(a) & np.isfinite(b) & np.isfinite(c)
    plain = np.where(np.isfinite(a) & np.isfinite(b) & ~np.isfinite(c), c, a * b + c)
    tame = (np.abs(a) < 2.0**500) & (np.abs(b) < 2.0**500) & (np.abs(c) < 2.0**1000) & (np.abs(high) > 2.0**-900)
    exact = (a == 0) | (b == 0) | ~finite
    result = np.where(exact, plain, result)
    for i in np.flatnonzero(~exact & ~tame):
        result[i] = _round(Fraction(a[i]) * Fraction(b[i]) + Fraction(c[i]), plain[i])
    return result.reshape(shape)[()]


def _round(exact: Fraction, plain: float) -> float:
    """The float64 nearest to a rational; `plain` gives the sign of a zero and of an overflow."""
    if exact == 0:
        return plain
    try:
        value = exact.numerator / exact.denominator  # Python's int division rounds correctly
    except OverflowError:
        return np.copysign(np.inf, 1 if exact > 0 else -1)
    return np.copysign(value, 1 if exact > 0 else -1)


def dot4(c: Any, a: Any, b: Any) -> Any:
    """c + the sum of the products of a's bytes, unsigned, and b's, signed, modulo 2**32; int32 scalars or arrays."""
    return _add_products(c, a, b, np.uint8, np.int8)


def dot2(c: Any, a: Any, b: Any) -> Any:
    """c + the sum of the products of the signed halves of a and b, modulo 2**32; int32 scalars or arrays."""
    return _add_products(c, a, b, np.int16, np.int16)


def _add_products(c: Any, a: Any, b: Any, left: type, right: type) -> Any:
    parts = [np.asarray(v, "<i4").reshape(*np.shape(v), 1).view(t).astype(np.int64) for v, t in ((a, left), (b, right))]
    return (np.asarray(c, np.int64) + (parts[0] * parts[1]).sum(-1)).astype(np.int32)[()]


def reduce_tree(combine: Any, vector: np.ndarray) -> Any:
    """Lower half combined with upper half until one lane is left."""
    while len(vector) > 1:
        half = len(vector) // 2
        vector = combine(vector[:half], vector[half:])
    return vector[0]
