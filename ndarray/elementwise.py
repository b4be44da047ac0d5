"""Elementwise functions: those of `binary.py`, `unary.py` and `complexes.py`, and what is made of them: powers, logic, choice,
clipping, conversion.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from . import binary, complexes, unary
from .apply import apply
from .array import NDArray
from .binary import *  # noqa: F403
from .binary import (
    _beyond,
    _power,
    add,
    copysign,
    divide,
    equal,
    greater,
    less,
    maximum,
    minimum,
    multiply,
    not_equal,
    remainder,
    subtract,
)
from .complexes import *  # noqa: F403
from .complexes import imag, real
from .creation import ones_like
from .dtypes import bool_, canonical, default_float, finfo_of, is_inexact
from .op import OPS
from .operands import as_array, as_floating, common, convert, number, primitive
from .unary import *  # noqa: F403
from .unary import (
    _sign,
    _test,
    abs,
    exp,
    exp2,
    isinf,
    isnan,
    log,
    negative,
    positive,
    reciprocal,
    rsqrt,
    signbit,
    sin,
    sqrt,
    stop_gradient,
    trunc,
)

__all__ = [
    "astype",
    "cast",
    "cbrt",
    "clip",
    "float_power",
    "fmax",
    "fmin",
    "fmod",
    "heaviside",
    "isfinite",
    "isneginf",
    "isposinf",
    "ldexp",
    "logaddexp",
    "logaddexp2",
    "logical_and",
    "logical_not",
    "logical_or",
    "logical_xor",
    "modf",
    "nan_to_num",
    "pow",
    "power",
    "sign",
    "sinc",
    "where",
]
__all__ += binary.__all__
__all__ += unary.__all__
__all__ += complexes.__all__


def fmod(x1: Any, x2: Any, /) -> NDArray:
    """The remainder of x1's sign, ``x1 - trunc(x1 / x2) * x2``, elementwise.

    >>> nd.fmod(nd.array([-7, 7]), 3)
    array([-1,  1])
    """
    x1, x2 = common("fmod", x1, x2)
    size = remainder(abs(x1), abs(x2))
    return where(less(x1, 0), negative(size), size)


def _two_floating(name: str, x1: Any, x2: Any) -> tuple[NDArray, NDArray]:
    """Two arguments in the floating dtype in which they meet."""
    x1, x2 = common(name, x1, x2)
    return as_floating(name, x1, "x1"), as_floating(name, x2, "x2")


def logaddexp(x1: Any, x2: Any, /) -> NDArray:
    """``log(exp(x1) + exp(x2))``, without overflow, elementwise.

    >>> nd.logaddexp(nd.array([0.0, 1000.0]), nd.array([0.0, 0.0]))
    array([6.931472e-01, 1.000000e+03])
    """
    x1, x2 = _two_floating("logaddexp", x1, x2)
    top = stop_gradient(maximum(x1, x2))
    top = where(isfinite(top), top, 0)
    return add(top, log(add(exp(subtract(x1, top)), exp(subtract(x2, top)))))


def logaddexp2(x1: Any, x2: Any, /) -> NDArray:
    """``log2(2**x1 + 2**x2)``, without overflow, elementwise.

    >>> nd.logaddexp2(nd.array([3.0]), 3.0)
    array([4.])
    """
    x1, x2 = _two_floating("logaddexp2", x1, x2)
    factor = math.log(2)
    return divide(logaddexp(multiply(x1, factor), multiply(x2, factor)), factor)


def fmax(x1: Any, x2: Any, /) -> NDArray:
    """The larger of x1 and x2, elementwise; where one is NaN, the other.

    >>> nd.fmax(nd.array([1.0, nd.nan]), 0.0)
    array([1., 0.])
    """
    x1, x2 = common("fmax", x1, x2)
    return where(isnan(x1), x2, where(isnan(x2), x1, maximum(x1, x2)))


def fmin(x1: Any, x2: Any, /) -> NDArray:
    """The smaller of x1 and x2, elementwise; where one is NaN, the other.

    >>> nd.fmin(nd.array([1.0, nd.nan]), 0.0)
    array([0., 0.])
    """
    x1, x2 = common("fmin", x1, x2)
    return where(isnan(x1), x2, where(isnan(x2), x1, minimum(x1, x2)))


def heaviside(x1: Any, x2: Any, /) -> NDArray:
    """0 where x1 is negative, x2 where it is 0, 1 where it is positive.

    >>> nd.heaviside(nd.array([-1.0, 0.0, 2.0]), 0.5)
    array([0. , 0.5, 1. ])
    """
    x1, x2 = _two_floating("heaviside", x1, x2)
    return where(isnan(x1), x1, where(equal(x1, 0), x2, where(less(x1, 0), 0, ones_like(x1))))


def ldexp(x1: Any, x2: Any, /) -> NDArray:
    """``x1 * 2**x2``, elementwise; x2 holds integers.

    >>> nd.ldexp(nd.array([0.5, 1.5]), nd.array([2, 3]))
    array([ 2., 12.])
    """
    x1 = as_floating("ldexp", x1, "x1")
    return multiply(x1, exp2(convert(as_array("ldexp", "x2", x2), x1.dtype)))


def _truth(name: str, x: Any, argument: str) -> NDArray:
    x = as_array(name, argument, x)
    return x if x.dtype == bool_ else not_equal(x, 0)


def logical_and(x1: Any, x2: Any, /) -> NDArray:
    """Whether both are true (not 0), elementwise.

    >>> nd.logical_and(nd.array([1, 0]), True)
    array([ True, False])
    """
    return primitive("bitwise_and", _truth("logical_and", x1, "x1"), _truth("logical_and", x2, "x2"))


def logical_or(x1: Any, x2: Any, /) -> NDArray:
    """Whether one is true (not 0), elementwise.

    >>> nd.logical_or(nd.array([1, 0]), False)
    array([ True, False])
    """
    return primitive("bitwise_or", _truth("logical_or", x1, "x1"), _truth("logical_or", x2, "x2"))


def logical_xor(x1: Any, x2: Any, /) -> NDArray:
    """Whether exactly one is true (not 0), elementwise.

    >>> nd.logical_xor(nd.array([1, 0]), True)
    array([False,  True])
    """
    return primitive("bitwise_xor", _truth("logical_xor", x1, "x1"), _truth("logical_xor", x2, "x2"))


def logical_not(x: Any, /) -> NDArray:
    """Whether x is false (0), elementwise.

    >>> nd.logical_not(nd.array([1, 0]))
    array([False,  True])
    """
    return apply(OPS["logical_not"], _truth("logical_not", x, "x"))


def isfinite(x: Any, /) -> NDArray:
    """Whether x is neither infinite nor NaN, elementwise.

    >>> nd.isfinite(nd.array([1.0, nd.inf]))
    array([ True, False])
    """
    x = as_array("isfinite", "x", x)
    return logical_not(logical_or(_test("isnan", x), _test("isinf", x)))


def sinc(x: Any, /) -> NDArray:
    """``sin(pi x) / (pi x)``, 1 at 0.

    >>> nd.sinc(nd.array([0.0, 0.5, 1.5]))
    array([ 1.        ,  0.63661975, -0.21220659])
    """
    x = as_floating("sinc", x)
    zero = equal(x, 0)
    y = multiply(where(zero, 1, x), math.pi)
    return where(zero, 1, divide(sin(y), y))


def modf(x: Any, /) -> tuple[NDArray, NDArray]:
    """The fractional and the integer parts, both of x's sign.

    >>> nd.modf(nd.array([1.5, -2.25]))
    (array([ 0.5 , -0.25]), array([ 1., -2.]))
    """
    x = as_floating("modf", x)
    whole = trunc(x)
    return copysign(where(isinf(x), 0, subtract(x, whole)), x), whole


def isposinf(x: Any, /) -> NDArray:
    """Whether x is positive infinity, elementwise.

    >>> nd.isposinf(nd.array([nd.inf, -nd.inf, 1.0]))
    array([ True, False, False])
    """
    x = as_array("isposinf", "x", x)
    return logical_and(isinf(x), logical_not(signbit(x)))


def isneginf(x: Any, /) -> NDArray:
    """Whether x is negative infinity, elementwise.

    >>> nd.isneginf(nd.array([nd.inf, -nd.inf, 1.0]))
    array([False,  True, False])
    """
    x = as_array("isneginf", "x", x)
    return logical_and(isinf(x), signbit(x))


def where(condition: Any, x1: Any = None, x2: Any = None, /) -> Any:
    """x1 where the condition is true (not 0), else x2; all broadcast. With the condition alone: `nonzero`.

    >>> nd.where(nd.array([True, False]), nd.array([1, 2]), 0)
    array([1, 0])
    """
    if x1 is None and x2 is None:
        from .searching import nonzero

        return nonzero(condition)
    if x1 is None or x2 is None:
        raise TypeError("where: expected both x1 and x2, or neither")
    if not (type(x1) is NDArray and type(x2) is NDArray and x1.dtype is x2.dtype):
        x1, x2 = common("where", x1, x2)
    return primitive("where", _truth("where", condition, "condition"), x1, x2)


def clip(x: Any, /, min: Any = None, max: Any = None, *, a_min: Any = None, a_max: Any = None) -> NDArray:
    """x limited to [min, max], numbers or arrays; None is no limit. (`a_min`, `a_max` are older names.)

    The gradient is 1 strictly inside the limits, 0 outside.

    >>> nd.clip(nd.array([-2.0, 0.5, 3.0]), 0, 1)
    array([0. , 0.5, 1. ])
    """
    low, high = a_min if min is None else min, a_max if max is None else max
    out = as_array("clip", "x", x)
    if low is not None and not (_beyond(out, low) and low < 0):  # below every number of the dtype: no limit
        out = maximum(out, low)
    return out if high is None or (_beyond(out, high) and high > 0) else minimum(out, high)


def astype(x: Any, dtype: Any, /, *, copy: bool = True, device: Any = None) -> NDArray:
    """x converted to another dtype; x itself if that is its dtype and not `copy`.

    >>> nd.astype(nd.array([1, 2]), 'float64')
    array([1., 2.], dtype=float64)
    """
    out = as_array("astype", "x", x).astype(dtype, copy=copy)
    return out if device is None else out.to_device(device)


def cast(x: Any, dtype: Any) -> NDArray:
    """x in another dtype; x itself if it has it already.

    >>> nd.cast(nd.array([1, 2]), 'float32')
    array([1., 2.])
    """
    return convert(as_array("cast", "x", x), canonical(dtype))


def nan_to_num(x: Any, /, nan: float = 0.0, posinf: float | None = None, neginf: float | None = None) -> NDArray:
    """x with NaNs and infinities replaced (infinities by the largest finite numbers unless told otherwise).

    >>> nd.nan_to_num(nd.array([nd.nan, 2.0]))
    array([0., 2.])
    """
    x = as_array("nan_to_num", "x", x)
    if not is_inexact(x.dtype):
        return x
    if x.dtype.kind == "c":
        parts = (nan_to_num(p, nan, posinf, neginf) for p in (real(x), imag(x)))
        return apply(OPS["complex"], *parts)
    info = finfo_of(x.dtype)
    top, bottom = (float(info.max) if posinf is None else posinf), (float(info.min) if neginf is None else neginf)
    out = where(isnan(x), nan, x)
    return where(isinf(x), where(greater(x, 0), number(top, x.dtype, x._device), bottom), out)


def power(x1: Any, x2: Any, /) -> NDArray:
    """``x1 ** x2``, elementwise. The exponents 0.5, 1, 2, 3, -0.5 and -1 as numbers are square roots, products and quotients.

    Raises ValueError for integers with a negative integer exponent given as a number.

    >>> nd.power(nd.array([2.0, 3.0]), 2)
    array([4., 9.])
    """
    if isinstance(x2, (int, float)) and isinstance(x1, NDArray) and not isinstance(x2, (bool, np.generic)):
        floating = is_inexact(x1.dtype)
        if x2 == 2 and (floating or isinstance(x2, int)) and x1.dtype != bool_:
            return multiply(x1, x1)
        if x2 == 1 and x1.dtype != bool_:
            return positive(x1) if floating or isinstance(x2, int) else convert(x1, default_float)
        if x2 == 3 and (floating or isinstance(x2, int)) and x1.dtype != bool_:
            return multiply(multiply(x1, x1), x1)
        if floating and x2 == 0.5:
            return sqrt(x1)
        if floating and x2 == -0.5:
            return rsqrt(x1)
        if floating and x2 == -1:
            return reciprocal(x1)
        if not floating and isinstance(x2, int) and x2 < 0:
            raise ValueError(f"power: integers can't be raised to the negative integer power {x2}; use a float exponent")
    return _power(x1, x2)


def float_power(x1: Any, x2: Any, /) -> NDArray:
    """``x1 ** x2`` in a floating dtype.

    >>> nd.float_power(nd.array([1, 2]), -1)
    array([1. , 0.5])
    """
    return power(as_floating("float_power", x1, "x1"), x2)


def sign(x: Any, /) -> NDArray:
    """-1, 0 or 1 with the sign of x, elementwise, in x's dtype; ``x / abs(x)`` (or 0) for complex x.

    >>> nd.sign(nd.array([-2.0, 0.0, 3.0]))
    array([-1.,  0.,  1.])
    """
    x = as_array("sign", "x", x)
    if x.dtype.kind != "c":
        return _sign(x)
    size = abs(x)
    zero = equal(size, 0)
    return where(zero, 0, divide(x, where(zero, 1, size)))


def cbrt(x: Any, /) -> NDArray:
    """The real cube root; integers become float32.

    >>> nd.cbrt(nd.array([-8.0, 27.0]))
    array([-2.,  3.])
    """
    x = as_floating("cbrt", x)
    size = abs(x)
    zero = equal(size, 0)
    return where(zero, x, multiply(sign(x), exp(divide(log(where(zero, 1, size)), 3))))


pow = power
