"""Special functions: gamma and its relatives, the inverse error function. Compositions of elementwise functions, so that they
compile, and differentiate to any order; accurate to a few units of the dtype's precision, relative to max(1, |value|)."""

from __future__ import annotations

import math
from typing import Any

from .array import NDArray
from .elementwise import (
    abs,
    add,
    divide,
    equal,
    exp,
    floor,
    greater,
    less,
    log,
    maximum,
    multiply,
    negative,
    remainder,
    sign,
    sin,
    sqrt,
    stop_gradient,
    subtract,
    tan,
    where,
)
from .elementwise import round as rint
from .operands import as_floating

__all__ = ["digamma", "erfinv", "gamma", "gammaln"]

_SHIFT = 8  # Stirling's series is used from here on
_STIRLING = (1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188, -691 / 360360, 1 / 156)


def _polynomial(x: NDArray, coefficients: tuple[float, ...]) -> NDArray:
    """Horner's scheme; the constant comes first."""
    out: Any = coefficients[-1]
    for c in reversed(coefficients[:-1]):
        out = add(multiply(out, x), c)
    return out


def _mirrored(x: NDArray) -> tuple[NDArray, NDArray, NDArray]:
    """Whether x is below 1/2; x, mirrored there (1 - x); and pi times how far x is from the next integer (there)."""
    low = less(x, 0.5)
    left = where(low, x, 0.25)
    return low, where(low, subtract(1, x), x), multiply(subtract(left, stop_gradient(rint(left))), math.pi)


def gammaln(x: Any, /) -> NDArray:
    """``log(|Gamma(x)|)``: Stirling's series, raised by recurrence, mirrored below 1/2; inf at 0, -1, -2 ...

    >>> import ndarray as nd
    >>> round(nd.gammaln(nd.array([5.0])).item(), 5)  # log(4!)
    3.17805
    """
    x = as_floating("gammaln", x)
    low, a, angle = _mirrored(x)
    small = less(a, _SHIFT)
    safe = where(small, a, 1)
    raised: Any = 1
    for k in range(_SHIFT):
        raised = multiply(raised, add(safe, k))
    z = where(small, add(a, _SHIFT), a)
    inverse = divide(1, z)
    series = multiply(inverse, _polynomial(multiply(inverse, inverse), _STIRLING))
    value = add(subtract(multiply(subtract(z, 0.5), log(z)), z), add(series, 0.5 * math.log(2 * math.pi)))
    value = subtract(value, where(small, log(raised), 0))
    value = where(equal(a, math.inf), math.inf, value)
    return where(low, subtract(subtract(math.log(math.pi), log(abs(sin(angle)))), value), value)


def gamma(x: Any, /) -> NDArray:
    """``Gamma(x)``, by `gammaln`; NaN at the poles -1, -2 ... and inf at 0. (Random gamma numbers: ``nd.random.gamma``.)

    >>> import ndarray as nd
    >>> round(nd.gamma(nd.array([5.0])).item(), 3)
    24.0
    """
    x = as_floating("gamma", x)
    odd = greater(remainder(floor(x), 2.0), 0.5)
    value = exp(gammaln(x))
    value = where(less(x, 0), where(odd, negative(value), value), value)
    return where(equal(x, floor(x)) & less(x, 0), math.nan, value)


def digamma(x: Any, /) -> NDArray:
    """The derivative of `gammaln`: ``Gamma'(x) / Gamma(x)``; NaN or infinite at 0, -1, -2 ...

    >>> import ndarray as nd
    >>> round(nd.digamma(nd.array([1.0])).item(), 5)  # minus Euler's constant
    -0.57722
    """
    x = as_floating("digamma", x)
    low, a, angle = _mirrored(x)
    small = less(a, _SHIFT)
    safe = where(small, a, 1)
    raised: Any = 0
    for k in range(_SHIFT):
        raised = add(raised, divide(1, add(safe, k)))
    z = where(small, add(a, _SHIFT), a)
    inverse = divide(1, z)
    square = multiply(inverse, inverse)
    series = multiply(square, _polynomial(square, tuple((2 * k + 1) * c for k, c in enumerate(_STIRLING))))
    value = subtract(subtract(log(z), multiply(0.5, inverse)), add(series, where(small, raised, 0)))
    value = where(equal(a, math.inf), math.inf, value)
    return where(low, subtract(value, divide(math.pi, tan(angle))), value)


_CENTER = (
    (3.3871328727963666080e0, 1.3314166789178437745e2, 1.9715909503065514427e3, 1.3731693765509461125e4,
     4.5921953931549871457e4, 6.7265770927008700853e4, 3.3430575583588128105e4, 2.5090809287301226727e3),
    (1.0, 4.2313330701600911252e1, 6.8718700749205790830e2, 5.3941960214247511077e3, 2.1213794301586595867e4,
     3.9307895800092710610e4, 2.8729085735721942674e4, 5.2264952788528545610e3),
)
_TAIL = (
    (1.42343711074968357734e0, 4.63033784615654529590e0, 5.76949722146069140550e0, 3.64784832476320460504e0,
     1.27045825245236838258e0, 2.41780725177450611770e-1, 2.27238449892691845833e-2, 7.74545014278341407640e-4),
    (1.0, 2.05319162663775882187e0, 1.67638483018380384940e0, 6.89767334985100004550e-1, 1.48103976427480074590e-1,
     1.51986665636164571966e-2, 5.47593808499534494600e-4, 1.05075007164441684324e-9),
)
_FAR = (
    (6.65790464350110377720e0, 5.46378491116411436990e0, 1.78482653991729133580e0, 2.96560571828504891230e-1,
     2.65321895265761230930e-2, 1.24266094738807843860e-3, 2.71155556874348757815e-5, 2.01033439929228813265e-7),
    (1.0, 5.99832206555887937690e-1, 1.36929880922735805310e-1, 1.48753612908506148525e-2, 7.86869131145613259100e-4,
     1.84631831751005468180e-5, 1.42151175831644588870e-7, 2.04426310338993978564e-15),
)


def _ratio(x: NDArray, table: tuple) -> NDArray:
    return divide(_polynomial(x, table[0]), _polynomial(x, table[1]))


def erfinv(x: Any, /) -> NDArray:
    """y with ``erf(y) = x``, for x in [-1, 1]: Wichura's quantile of the normal distribution (Algorithm AS 241, 1988). NaN
    outside.

    >>> import ndarray as nd
    >>> round(nd.erfinv(nd.array([0.5])).item(), 5)
    0.47694
    """
    x = as_floating("erfinv", x)
    q = multiply(x, 0.5)
    center = less(abs(q), 0.425)
    near = where(center, q, 0)
    middle = multiply(near, _ratio(subtract(0.180625, multiply(near, near)), _CENTER))
    share = where(center, 0.25, maximum(multiply(subtract(1, abs(x)), 0.5), 1e-37))
    r = sqrt(negative(log(share)))
    far = greater(r, 5)
    tail = where(far, _ratio(subtract(where(far, r, 5), 5), _FAR), _ratio(subtract(where(far, 5, r), 1.6), _TAIL))
    value = multiply(where(center, middle, multiply(sign(x), tail)), math.sqrt(0.5))
    value = where(equal(abs(x), 1), multiply(sign(x), math.inf), value)
    return where(greater(abs(x), 1), math.nan, value)
