"""Activations that a trace keeps whole: softplus, gelu, silu and mish.

Eagerly all but softplus are formulas of simpler functions. As one operation their derivative is one factor, ``g * slope(x)``,
and not a sum of several products with g, so a compiled training step keeps one array for it, which the forward part makes,
and not the several of which it consists. The formula of softplus has no derivative at 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from .. import functions as F
from ..op import Vjp
from ..scalar import operate
from .base import quiet
from .error_function import erf
from .unary import normal_density, unary

__all__ = ["CUBIC", "TANH_SCALE"]

TANH_SCALE, CUBIC = math.sqrt(2 / math.pi), 0.044715
"""Of the usual formula for gelu by tanh: ``tanh(TANH_SCALE * x * (1 + CUBIC * x * x))``."""
_SCALE = 1 / math.sqrt(2)
_EDGES = (0.0, -0.0, 1.0, -1.0, 5.0, -5.0, math.nan)


def _gelu_slope(x: Any) -> Any:
    """P(N <= x) + x * (density of N at x)."""
    return F.add(F.ndtr(x), F.multiply(x, normal_density(x)))


def _gelu_tanh_slope(x: Any) -> Any:
    square = F.multiply(x, x)
    t = F.tanh(F.multiply(TANH_SCALE, F.multiply(x, F.add(1, F.multiply(CUBIC, square)))))
    inner = F.multiply(TANH_SCALE, F.add(1, F.multiply(3 * CUBIC, square)))
    return F.multiply(0.5, F.add(F.add(1, t), F.multiply(x, F.multiply(inner, F.subtract(1, F.multiply(t, t))))))


def _silu_slope(x: Any) -> Any:
    s = F.sigmoid(x)
    return F.multiply(s, F.add(1, F.multiply(x, F.subtract(1, s))))


def _mish_slope(x: Any) -> Any:
    t = F.tanh(F.softplus(x))
    return F.add(t, F.multiply(x, F.multiply(F.subtract(1, F.multiply(t, t)), F.sigmoid(x))))


def _activation(name: str, eager: Callable, lower: Callable, slope: Callable, reference: Callable) -> None:
    wide = lambda x: reference(x.astype(np.float64)).astype(x.dtype)
    unary(name, quiet(eager), lower, Vjp(lambda g, x: F.multiply(g, slope(x))), "f", low=-3.5, high=3.5, reference=wide,
          special=_EDGES, tolerance=4.0)


def _gelu(xp: Any, x: Any) -> Any:
    half = x * x.dtype.type(0.5)
    return half + half * erf(xp, x * x.dtype.type(_SCALE))


def _gelu_lower(x: Any) -> Any:
    return x * operate("ndtr", x)


def _inner(x: Any) -> Any:
    return (x * (x * x * CUBIC + 1)) * TANH_SCALE


def _gelu_tanh(xp: Any, x: Any) -> Any:
    one, half = x.dtype.type(1), x * x.dtype.type(0.5)
    inner = (x * (x * x * x.dtype.type(CUBIC) + one)) * x.dtype.type(TANH_SCALE)
    return half + half * xp.tanh(inner)


def _gelu_tanh_lower(x: Any) -> Any:
    half = x * 0.5
    return half + half * operate("tanh", _inner(x))


def _softplus(xp: Any, x: Any) -> Any:
    return xp.maximum(x, x.dtype.type(0)) + xp.log1p(xp.exp(-abs(x)))


def _softplus_lower(x: Any) -> Any:
    return operate("max", x, 0) + operate("log1p", operate("exp", -operate("abs", x)))


_erf = np.vectorize(math.erf, otypes=[np.float64])
_activation("gelu", _gelu, _gelu_lower, _gelu_slope, lambda x: x * (1 + _erf(x / math.sqrt(2))) / 2)
_activation("gelu_tanh", _gelu_tanh, _gelu_tanh_lower, _gelu_tanh_slope, lambda x: x * (1 + np.tanh(_inner(x))) / 2)
_activation("silu", lambda xp, x: x * (x.dtype.type(1) / (x.dtype.type(1) + xp.exp(-x))),
            lambda x: x * operate("sigmoid", x), _silu_slope, lambda x: x / (1 + np.exp(-x)))
_activation("softplus", _softplus, _softplus_lower, lambda x: F.sigmoid(x), lambda x: np.logaddexp(0, x))
_activation("mish", lambda xp, x: x * xp.tanh(_softplus(xp, x)), lambda x: x * operate("tanh", _softplus_lower(x)), _mish_slope,
            lambda x: x * np.tanh(np.logaddexp(0, x)))
