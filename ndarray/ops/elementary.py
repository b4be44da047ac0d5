"""Elementary functions of one array beyond those of `unary`: trigonometric and hyperbolic ones, their inverses,
logarithms and powers of 2 and 10, the sign bit."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from .. import functions as F
from ..op import Vjp
from ..scalar import Scalar, bitcast, constant, operate, where
from .base import BOOL, quiet
from .unary import unary

__all__ = ["SIGNED_BITS"]

SIGNED_BITS = {np.dtype(np.float32): np.dtype(np.int32), np.dtype(np.float64): np.dtype(np.int64)}
"""The integers as wide as the floating dtypes whose bits lowerings read."""


def _numpy(name: str) -> Callable:
    return quiet(lambda xp, x: getattr(xp, name)(x))


def _one_minus_square(x: Any) -> Any:
    return F.multiply(F.subtract(1, x), F.add(1, x))


def _over(denominator: Callable) -> Vjp:
    return Vjp(lambda g, x: F.divide(g, denominator(x)))


# -- trigonometric and hyperbolic functions

unary("tan", _numpy("tan"), lambda x: operate("tan", x),
      Vjp(lambda g, out: F.multiply(g, F.add(1, F.multiply(out, out)))), "fc", low=-1.2, high=1.2, reference=quiet(np.tan),
      tolerance=2.0)
unary("sinh", _numpy("sinh"), lambda x: operate("sinh", x), Vjp(lambda g, x: F.multiply(g, F.cosh(x))), "fc", tolerance=2.0)
unary("cosh", _numpy("cosh"), lambda x: operate("cosh", x), Vjp(lambda g, x: F.multiply(g, F.sinh(x))), "fc", tolerance=2.0)
unary("arcsin", _numpy("arcsin"), lambda x: operate("asin", x), _over(lambda x: F.sqrt(_one_minus_square(x))), "fc",
      low=-0.9, high=0.9, reference=quiet(np.arcsin), tolerance=2.0)
unary("arccos", _numpy("arccos"), lambda x: operate("acos", x),
      _over(lambda x: F.negative(F.sqrt(_one_minus_square(x)))), "fc", low=-0.9, high=0.9, reference=quiet(np.arccos),
      tolerance=2.0)
unary("arctan", _numpy("arctan"), lambda x: operate("atan", x), _over(lambda x: F.add(1, F.multiply(x, x))), "fc",
      tolerance=2.0)


def _huge(x: Scalar) -> float:
    """From here on, ``x + 1`` is x in this dtype, and ``x * x`` may overflow."""
    return 2.0**60 if x.dtype.itemsize == 8 else 2.0**28 if x.dtype == np.float32 else 2.0**7


def _lower_arcsinh(x: Scalar) -> Scalar:
    """``sign(x) log1p(a + a*a / (sqrt(a*a + 1) + 1))`` with ``a = |x|``; ``log(a) + log(2)`` for huge a."""
    a = operate("abs", x)
    huge = _huge(x)
    b = operate("min", a, huge)
    square = b * b
    near = operate("log1p", b + square / (operate("sqrt", square + 1) + 1))
    size = where(a > huge, operate("log", a) + math.log(2), near)
    return where(x < 0, -size, where(x > 0, size, x))


def _lower_arccosh(x: Scalar) -> Scalar:
    """``log1p(t + sqrt(t) * sqrt(t + 2))`` with ``t = x - 1``, NaN for all t < 0; ``log(x) + log(2)`` for huge x."""
    huge = _huge(x)
    t = operate("min", x, huge) - 1
    near = operate("log1p", t + operate("sqrt", t) * operate("sqrt", t + 2))
    return where(x > huge, operate("log", x) + math.log(2), near)


unary("arcsinh", _numpy("arcsinh"), _lower_arcsinh, _over(lambda x: F.sqrt(F.add(F.multiply(x, x), 1))), "fc", tolerance=4.0)
unary("arccosh", _numpy("arccosh"), _lower_arccosh,
      _over(lambda x: F.multiply(F.sqrt(F.subtract(x, 1)), F.sqrt(F.add(x, 1)))), "fc", low=1.2, high=4.0,
      reference=quiet(np.arccosh), tolerance=4.0)
unary("arctanh", _numpy("arctanh"), lambda x: operate("log1p", (x + x) / (1 - x)) * 0.5, _over(_one_minus_square), "fc",
      low=-0.9, high=0.9, reference=quiet(np.arctanh), tolerance=4.0)


# -- logarithms and powers

unary("log2", _numpy("log2"), lambda x: operate("log2", x), Vjp(lambda g, x: F.divide(g, F.multiply(x, math.log(2)))), "fc",
      low=0.1, high=4.0, reference=quiet(np.log2), tolerance=2.0)
unary("log10", _numpy("log10"), lambda x: operate("log", x) * (1 / math.log(10)),
      Vjp(lambda g, x: F.divide(g, F.multiply(x, math.log(10)))), "fc", low=0.1, high=4.0, reference=quiet(np.log10),
      tolerance=2.0)
unary("exp2", _numpy("exp2"), lambda x: operate("pow", constant(2, x.dtype), x),
      Vjp(lambda g, out: F.multiply(g, F.multiply(out, math.log(2)))), "fc", reference=quiet(np.exp2), tolerance=4.0)


# -- signs

def _lower_signbit(x: Scalar) -> Scalar:
    bits = SIGNED_BITS.get(x.dtype)
    if bits is not None:
        return bitcast(x, bits) < 0
    return (x < 0) | (x.equals(0) & (constant(1, x.dtype) / x < 0))


unary("signbit", _numpy("signbit"), _lower_signbit, None, "f", special=(0.0, -0.0, 1.0, -1.0, math.inf, -math.inf),
      result=lambda dtype: BOOL)
