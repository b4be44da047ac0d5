"""Elementwise functions: arithmetic, comparison, logic, exponentials, trigonometry, rounding, choice and clipping.

Arguments are arrays or numbers; shapes broadcast and dtypes promote as in NumPy, with the rules of `ndarray.dtypes`.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from . import ops  # noqa: F401  (fills the table)
from .apply import apply
from .array import NDArray
from .creation import ones_like, zeros_like
from .dtypes import bool_, canonical, default_float, default_int, finfo_of, is_inexact
from .fast import BINARY, UNARY, binary, unary
from .op import OPS
from .operands import as_array, as_floating, common, convert, number, primitive

__all__ = [
    "abs",
    "absolute",
    "acos",
    "acosh",
    "add",
    "angle",
    "arccos",
    "arccosh",
    "arcsin",
    "arcsinh",
    "arctan",
    "arctan2",
    "arctanh",
    "asin",
    "asinh",
    "astype",
    "atan",
    "atan2",
    "atanh",
    "bitwise_and",
    "bitwise_invert",
    "bitwise_left_shift",
    "bitwise_not",
    "bitwise_or",
    "bitwise_right_shift",
    "bitwise_xor",
    "cast",
    "cbrt",
    "ceil",
    "clip",
    "conj",
    "conjugate",
    "copy",
    "copysign",
    "cos",
    "cosh",
    "deg2rad",
    "degrees",
    "divide",
    "divmod",
    "equal",
    "erf",
    "exp",
    "exp2",
    "expm1",
    "fabs",
    "fix",
    "float_power",
    "floor",
    "floor_divide",
    "fmax",
    "fmin",
    "fmod",
    "gcd",
    "greater",
    "greater_equal",
    "heaviside",
    "hypot",
    "imag",
    "invert",
    "iscomplex",
    "isfinite",
    "isinf",
    "isnan",
    "isneginf",
    "isposinf",
    "isreal",
    "lcm",
    "ldexp",
    "left_shift",
    "less",
    "less_equal",
    "log",
    "log1p",
    "log2",
    "log10",
    "logaddexp",
    "logaddexp2",
    "logical_and",
    "logical_not",
    "logical_or",
    "logical_xor",
    "maximum",
    "minimum",
    "mod",
    "modf",
    "multiply",
    "nan_to_num",
    "negative",
    "nextafter",
    "not_equal",
    "positive",
    "pow",
    "power",
    "rad2deg",
    "radians",
    "real",
    "real_if_close",
    "reciprocal",
    "remainder",
    "right_shift",
    "rint",
    "round",
    "rsqrt",
    "sign",
    "signbit",
    "sin",
    "sinc",
    "sinh",
    "sqrt",
    "square",
    "stop_gradient",
    "subtract",
    "tan",
    "tanh",
    "true_divide",
    "trunc",
    "where",
]


# -- two arguments

_COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "equal": operator.eq, "not_equal": operator.ne, "less": operator.lt, "less_equal": operator.le, "greater": operator.gt,
    "greater_equal": operator.ge,
}


def _beyond(x: Any, value: Any) -> bool:
    """Whether a value is a Python int that the integer dtype of an array can't hold."""
    if type(value) is not int or not isinstance(x, NDArray) or x.dtype.kind not in "iu":
        return False
    limits = np.iinfo(x.dtype)
    return not limits.min <= value <= limits.max


def _binary(name: str, kinds: str, formula: str, otherwise: np.dtype | None = default_int, on_bool: str = "") -> Callable:
    """A function over the primitive `name`, whose dtype kinds are `kinds`. Other dtypes are converted to `otherwise`
    (refused if None); `on_bool` is the primitive for two bool arrays."""
    op = OPS[name]
    logical = OPS[on_bool] if on_bool else None
    compare = _COMPARISONS.get(name)

    def function(x1: Any, x2: Any, /) -> NDArray:
        if not (type(x1) is NDArray and type(x2) is NDArray and x1.dtype is x2.dtype):
            if compare is not None and (_beyond(x1, x2) or _beyond(x2, x1)):  # the same for every element, so for 0
                x, answer = (x1, compare(0, x2)) if isinstance(x1, NDArray) else (x2, compare(x1, 0))
                return primitive("equal" if answer else "not_equal", x, x)
            x1, x2 = common(name, x1, x2)
        dtype = x1.dtype
        if dtype.kind not in kinds and dtype.name != "bfloat16":
            if logical is not None and dtype == bool_:
                return primitive(logical, x1, x2)
            if otherwise is None or dtype.kind == "c":
                raise TypeError(f"{name}: x1 and x2: not defined for dtype {dtype}; convert with astype")
            x1, x2 = convert(x1, otherwise), convert(x2, otherwise)
        return primitive(op, x1, x2)

    if name in BINARY:
        function = binary(name, function)
    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"{formula}, elementwise. Raises ValueError for shapes that don't broadcast, TypeError for the dtype."
    return function


add: Callable = _binary("add", "iufc", "``x1 + x2`` (for bool: or)", on_bool="bitwise_or")
subtract: Callable = _binary("subtract", "iufc", "``x1 - x2``", otherwise=None)
multiply: Callable = _binary("multiply", "iufc", "``x1 * x2`` (for bool: and)", on_bool="bitwise_and")
divide: Callable = _binary("divide", "fc", "``x1 / x2``; integers are divided as float32", otherwise=default_float)
floor_divide: Callable = _binary("floor_divide", "iuf", "``floor(x1 / x2)``")
remainder: Callable = _binary("remainder", "iuf", "``x1 - floor(x1 / x2) * x2``, of x2's sign")
maximum: Callable = _binary("maximum", "iuf", "The larger of x1 and x2; NaN if one is", on_bool="bitwise_or")
minimum: Callable = _binary("minimum", "iuf", "The smaller of x1 and x2; NaN if one is", on_bool="bitwise_and")
arctan2: Callable = _binary("arctan2", "f", "The angle of the point (x2, x1)", otherwise=default_float)
bitwise_and: Callable = _binary("bitwise_and", "biu", "``x1 & x2``", otherwise=None)
bitwise_or: Callable = _binary("bitwise_or", "biu", "``x1 | x2``", otherwise=None)
bitwise_xor: Callable = _binary("bitwise_xor", "biu", "``x1 ^ x2``", otherwise=None)
left_shift: Callable = _binary("left_shift", "iu", "``x1 << x2``", otherwise=None)
right_shift: Callable = _binary("right_shift", "iu", "``x1 >> x2``", otherwise=None)
equal: Callable = _binary("equal", "biufc", "``x1 == x2``, bool")
not_equal: Callable = _binary("not_equal", "biufc", "``x1 != x2``, bool")
less: Callable = _binary("less", "biuf", "``x1 < x2``, bool")
less_equal: Callable = _binary("less_equal", "biuf", "``x1 <= x2``, bool")
greater: Callable = _binary("greater", "biuf", "``x1 > x2``, bool")
greater_equal: Callable = _binary("greater_equal", "biuf", "``x1 >= x2``, bool")
_power: Callable = _binary("power", "iufc", "``x1 ** x2``")


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


def fmod(x1: Any, x2: Any, /) -> NDArray:
    """The remainder of x1's sign, ``x1 - trunc(x1 / x2) * x2``, elementwise.

    >>> nd.fmod(nd.array([-7, 7]), 3)
    array([-1,  1])
    """
    x1, x2 = common("fmod", x1, x2)
    size = remainder(abs(x1), abs(x2))
    return where(less(x1, 0), negative(size), size)


hypot: Callable = _binary("hypot", "f", "``sqrt(x1**2 + x2**2)``, without overflow in between", otherwise=default_float)
copysign: Callable = _binary(
    "copysign", "f", "The size of x1 with the sign of x2 (a zero's sign counts)", otherwise=default_float)
nextafter: Callable = _binary(
    "nextafter", "f", "The number of this dtype that is next to x1 in the direction of x2", otherwise=default_float)


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


def divmod(x1: Any, x2: Any, /) -> tuple[NDArray, NDArray]:
    """``floor_divide(x1, x2)`` and ``remainder(x1, x2)``.

    >>> nd.divmod(nd.array([7, -7]), 3)
    (array([ 2, -3]), array([1, 2]))
    """
    return floor_divide(x1, x2), remainder(x1, x2)


true_divide, mod, pow, atan2 = divide, remainder, power, arctan2
bitwise_left_shift, bitwise_right_shift = left_shift, right_shift


# -- logic

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


def bitwise_not(x: Any, /) -> NDArray:
    """``~x``, elementwise, for integers and bool.

    >>> nd.bitwise_not(nd.array([0, 7]))
    array([-1, -8])
    """
    return primitive("bitwise_not", _of_kind("bitwise_not", x, "biu"))


bitwise_invert = invert = bitwise_not


def _of_kind(name: str, x: Any, kinds: str) -> NDArray:
    x = as_array(name, "x", x)
    if x.dtype.kind not in kinds and x.dtype.name != "bfloat16":
        raise TypeError(f"{name}: x: not defined for dtype {x.dtype}; convert with astype")
    return x


# -- one argument

def _floating(name: str, formula: str, kinds: str = "iufc") -> Callable:
    op = OPS[name]

    def function(x: Any, /) -> NDArray:
        if not (type(x) is NDArray and x.dtype.kind == "f"):
            x = as_floating(name, x)
            if x.dtype.kind == "c" and "c" not in kinds:
                raise TypeError(f"{name}: x: not defined for dtype {x.dtype}")
        return primitive(op, x)

    if name in UNARY:
        function = unary(name, function)
    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"{formula}, elementwise; integers become float32."
    return function


exp: Callable = _floating("exp", "``e ** x``")
exp2: Callable = _floating("exp2", "``2 ** x``")
expm1: Callable = _floating("expm1", "``e ** x - 1``, accurate near 0")
log: Callable = _floating("log", "The natural logarithm")
log2: Callable = _floating("log2", "The logarithm to base 2")
log10: Callable = _floating("log10", "The logarithm to base 10")
log1p: Callable = _floating("log1p", "``log(1 + x)``, accurate near 0")
sqrt: Callable = _floating("sqrt", "The square root")
sin: Callable = _floating("sin", "The sine")
cos: Callable = _floating("cos", "The cosine")
tan: Callable = _floating("tan", "The tangent")
sinh: Callable = _floating("sinh", "The hyperbolic sine, ``(exp(x) - exp(-x)) / 2``")
cosh: Callable = _floating("cosh", "The hyperbolic cosine, ``(exp(x) + exp(-x)) / 2``")
tanh: Callable = _floating("tanh", "The hyperbolic tangent")
arcsin: Callable = _floating("arcsin", "The angle in [-pi/2, pi/2] whose sine is x (NaN outside of [-1, 1])")
arccos: Callable = _floating("arccos", "The angle in [0, pi] whose cosine is x (NaN outside of [-1, 1])")
arctan: Callable = _floating("arctan", "The angle in (-pi/2, pi/2) whose tangent is x")
arcsinh: Callable = _floating("arcsinh", "The inverse of `sinh`")
arccosh: Callable = _floating("arccosh", "The non-negative inverse of `cosh` (NaN below 1)")
arctanh: Callable = _floating("arctanh", "The inverse of `tanh` (NaN outside of [-1, 1])")
erf: Callable = _floating("erf", "The error function, ``2/sqrt(pi) * integral of exp(-t*t) from 0 to x``", "iuf")
acos, acosh, asin, asinh, atan, atanh = arccos, arccosh, arcsin, arcsinh, arctan, arctanh


def _signed(name: str, formula: str, kinds: str = "iuf") -> Callable:
    op = OPS[name]

    def function(x: Any, /) -> NDArray:
        return apply(op, _of_kind(name, x, kinds))

    if name in UNARY:
        function = unary(name, function)
    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"{formula}, elementwise, in x's dtype."
    return function


negative: Callable = _signed("negative", "``-x``", "iufc")
abs: Callable = _signed("abs", "``|x|``, real for complex x", "iufc")
_sign: Callable = _signed("sign", "")


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


absolute = fabs = abs


def _rounding(name: str, formula: str) -> Callable:
    op = OPS[name]

    def function(x: Any, /) -> NDArray:
        x = as_array(name, "x", x)
        if x.dtype.kind == "c" and name != "round":
            raise TypeError(f"{name}: x: not defined for dtype {x.dtype}")
        return apply(op, x) if is_inexact(x.dtype) else x

    if name in UNARY:
        function = unary(name, function)
    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"{formula}, elementwise; integers stay as they are."
    return function


floor: Callable = _rounding("floor", "The largest integer not above x")
ceil: Callable = _rounding("ceil", "The smallest integer not below x")
trunc: Callable = _rounding("trunc", "The integer part of x")
rint: Callable = _rounding("round", "The nearest integer, halves to the even one")
fix = trunc


def round(x: Any, /, decimals: int = 0) -> NDArray:
    """x rounded to some decimals (halves to even).

    >>> nd.round(nd.array([1.25, 2.71]), 1)
    array([1.2, 2.7])
    """
    x = as_array("round", "x", x)
    if x.dtype == bool_:
        x = convert(x, default_int)
    if decimals == 0:
        return rint(x)
    if not is_inexact(x.dtype) and decimals > 0:
        return x
    factor = 10.0 ** decimals
    return convert(divide(rint(multiply(x, factor)), factor), x.dtype)


def isnan(x: Any, /) -> NDArray:
    """Whether x is not a number, elementwise.

    >>> nd.isnan(nd.array([1.0, nd.nan]))
    array([False,  True])
    """
    return _test("isnan", x)


def isinf(x: Any, /) -> NDArray:
    """Whether x is infinite, elementwise.

    >>> nd.isinf(nd.array([1.0, nd.inf]))
    array([False,  True])
    """
    return _test("isinf", x)


def isfinite(x: Any, /) -> NDArray:
    """Whether x is neither infinite nor NaN, elementwise.

    >>> nd.isfinite(nd.array([1.0, nd.inf]))
    array([ True, False])
    """
    x = as_array("isfinite", "x", x)
    return logical_not(logical_or(_test("isnan", x), _test("isinf", x)))


def _test(name: str, x: Any) -> NDArray:
    x = as_array(name, "x", x)
    return apply(OPS[name], x) if is_inexact(x.dtype) else apply(OPS["not_equal"], x, x)


def positive(x: Any, /) -> NDArray:
    """``+x``: a copy.

    >>> nd.positive(nd.array([1, -2]))
    array([ 1, -2])
    """
    return apply(OPS["copy"], as_array("positive", "x", x))


def copy(x: Any, /) -> NDArray:
    """A new array with the same values.

    >>> nd.copy(nd.array([1, 2]))
    array([1, 2])
    """
    return apply(OPS["copy"], as_array("copy", "x", x))


def stop_gradient(x: Any, /) -> NDArray:
    """x, through which no gradient flows.

    >>> nd.stop_gradient(nd.array([1.0, 2.0]))
    array([1., 2.])
    """
    return apply(OPS["stop_gradient"], as_array("stop_gradient", "x", x))


def square(x: Any, /) -> NDArray:
    """``x * x``.

    >>> nd.square(nd.array([2, -3]))
    array([4, 9])
    """
    x = as_array("square", "x", x)
    return multiply(x, x)


def reciprocal(x: Any, /) -> NDArray:
    """``1 / x``; integers become float32.

    >>> nd.reciprocal(nd.array([2.0, 4.0]))
    array([0.5 , 0.25])
    """
    return divide(1.0, as_floating("reciprocal", x))


def rsqrt(x: Any, /) -> NDArray:
    """``1 / sqrt(x)``; integers become float32.

    >>> nd.rsqrt(nd.array([4.0, 16.0]))
    array([0.5 , 0.25])
    """
    return divide(1.0, sqrt(x))


def cbrt(x: Any, /) -> NDArray:
    """The real cube root; integers become float32.

    >>> nd.cbrt(nd.array([-8.0, 27.0]))
    array([-2.,  3.])
    """
    x = as_floating("cbrt", x)
    size = abs(x)
    zero = equal(size, 0)
    return where(zero, x, multiply(sign(x), exp(divide(log(where(zero, 1, size)), 3))))


def sinc(x: Any, /) -> NDArray:
    """``sin(pi x) / (pi x)``, 1 at 0.

    >>> nd.sinc(nd.array([0.0, 0.5, 1.5]))
    array([ 1.        ,  0.63661975, -0.21220659])
    """
    x = as_floating("sinc", x)
    zero = equal(x, 0)
    y = multiply(where(zero, 1, x), math.pi)
    return where(zero, 1, divide(sin(y), y))


def degrees(x: Any, /) -> NDArray:
    """Radians to degrees.

    >>> nd.degrees(nd.array([0.0, nd.pi]))
    array([  0., 180.])
    """
    return multiply(as_floating("degrees", x), 180 / math.pi)


def radians(x: Any, /) -> NDArray:
    """Degrees to radians.

    >>> nd.radians(nd.array([0.0, 180.0]))
    array([0.       , 3.1415927])
    """
    return multiply(as_floating("radians", x), math.pi / 180)


rad2deg, deg2rad = degrees, radians


def signbit(x: Any, /) -> NDArray:
    """Whether the sign bit is set, elementwise: for negative numbers, and -0.0. bool.

    >>> nd.signbit(nd.array([-1.0, -0.0, 0.0]))
    array([ True,  True, False])
    """
    x = as_array("signbit", "x", x)
    if x.dtype.kind == "c":
        raise TypeError(f"signbit: x: expected a real dtype, got {x.dtype}")
    return apply(OPS["signbit"], x) if is_inexact(x.dtype) else less(x, 0)


def gcd(x1: Any, x2: Any, /) -> NDArray:
    """The greatest common divisor of integers, elementwise.

    >>> nd.gcd(nd.array([12, 18]), 8)
    array([4, 2])
    """
    return _integral("gcd", x1, x2)


def lcm(x1: Any, x2: Any, /) -> NDArray:
    """The least common multiple of integers, elementwise.

    >>> nd.lcm(nd.array([4, 6]), 10)
    array([20, 30])
    """
    return _integral("lcm", x1, x2)


def _integral(name: str, x1: Any, x2: Any) -> NDArray:
    x1, x2 = common(name, x1, x2)
    if x1.dtype.kind not in "iu":
        raise TypeError(f"{name}: x1 and x2: expected integers, got dtype {x1.dtype}; convert with astype")
    return primitive(name, x1, x2)


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


# -- complex numbers

def real(x: Any, /) -> NDArray:
    """The real parts, in float32 or float64; x itself where it is real.

    >>> nd.real(nd.array([1 + 2j, 3 - 1j]))
    array([1., 3.])
    """
    x = as_array("real", "x", x)
    return apply(OPS["real"], x) if x.dtype.kind == "c" else x


def imag(x: Any, /) -> NDArray:
    """The imaginary parts, in float32 or float64; zeros of x's dtype where it is real.

    >>> nd.imag(nd.array([1 + 2j, 3 - 1j]))
    array([ 2., -1.])
    """
    x = as_array("imag", "x", x)
    return apply(OPS["imag"], x) if x.dtype.kind == "c" else zeros_like(x)


def conj(x: Any, /) -> NDArray:
    """The complex conjugates; x itself where it is real.

    >>> nd.conj(nd.array([1 + 2j]))
    array([1.-2.j])
    """
    x = as_array("conj", "x", x)
    return apply(OPS["conj"], x) if x.dtype.kind == "c" else x


conjugate = conj


def angle(x: Any, /, deg: bool = False) -> NDArray:
    """The angle of complex numbers in (-pi, pi], in radians, or degrees if `deg`.

    >>> nd.angle(nd.array([1j, -1 + 0j]), deg=True)
    array([ 90., 180.])
    """
    x = as_floating("angle", x)
    out = arctan2(imag(x), real(x))
    return degrees(out) if deg else out


def iscomplex(x: Any, /) -> NDArray:
    """Whether the imaginary part is not 0, elementwise.

    >>> nd.iscomplex(nd.array([1 + 0j, 2j]))
    array([False,  True])
    """
    return not_equal(imag(x), 0)


def isreal(x: Any, /) -> NDArray:
    """Whether the imaginary part is 0, elementwise.

    >>> nd.isreal(nd.array([1 + 0j, 2j]))
    array([ True, False])
    """
    return equal(imag(x), 0)


def real_if_close(x: Any, /, tol: float = 100) -> NDArray:
    """The real parts if all imaginary ones are below `tol` times the dtype's precision, else x. The values must be known.

    >>> nd.real_if_close(nd.array([1 + 1e-14j], dtype="complex128"))
    array([1.], dtype=float64)
    """
    x = as_array("real_if_close", "x", x)
    if x.dtype.kind != "c":
        return x
    parts = x._concrete("real_if_close()").imag
    limit = tol * np.finfo(parts.dtype).eps if tol > 1 else tol
    return real(x) if (np.abs(parts) < limit).all() else x


# -- choice and conversion

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


