"""Elementwise functions: arithmetic, comparison, logic, exponentials, trigonometry, rounding, choice and clipping.

Arguments are arrays or numbers; shapes broadcast and dtypes promote as in NumPy, with the rules of `ndarray.dtypes`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from . import ops  # noqa: F401  (fills the table)
from .apply import apply
from .array import NDArray
from .dtypes import bool_, canonical, default_float, default_int, is_inexact
from .fast import BINARY, UNARY, binary, unary
from .op import OPS
from .operands import as_array, as_floating, common, convert, primitive

__all__ = [
    "abs",
    "absolute",
    "acos",
    "acosh",
    "add",
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
    "ceil",
    "clip",
    "copy",
    "copysign",
    "cos",
    "cosh",
    "degrees",
    "divide",
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
    "fmod",
    "greater",
    "greater_equal",
    "hypot",
    "invert",
    "isfinite",
    "isinf",
    "isnan",
    "left_shift",
    "less",
    "less_equal",
    "log",
    "log1p",
    "log2",
    "log10",
    "logaddexp",
    "logical_and",
    "logical_not",
    "logical_or",
    "logical_xor",
    "maximum",
    "minimum",
    "mod",
    "multiply",
    "nan_to_num",
    "negative",
    "not_equal",
    "positive",
    "pow",
    "power",
    "radians",
    "reciprocal",
    "remainder",
    "right_shift",
    "rint",
    "round",
    "rsqrt",
    "sign",
    "sin",
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

def _binary(name: str, kinds: str, formula: str, otherwise: np.dtype | None = default_int, on_bool: str = "") -> Callable:
    """A function over the primitive `name`, whose dtype kinds are `kinds`. Other dtypes are converted to `otherwise`
    (refused if None); `on_bool` is the primitive for two bool arrays."""
    op = OPS[name]
    logical = OPS[on_bool] if on_bool else None

    def function(x1: Any, x2: Any, /) -> NDArray:
        if not (type(x1) is NDArray and type(x2) is NDArray and x1.dtype is x2.dtype):
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
    """
    if isinstance(x2, (int, float)) and isinstance(x1, NDArray) and not isinstance(x2, (bool, np.generic)):
        floating = is_inexact(x1.dtype)
        if x2 == 2 and x1.dtype != bool_:
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
    """``x1 ** x2`` in a floating dtype."""
    return power(as_floating("float_power", x1, "x1"), x2)


def fmod(x1: Any, x2: Any, /) -> NDArray:
    """The remainder of x1's sign: ``x1 - trunc(x1 / x2) * x2``."""
    x1, x2 = common("fmod", x1, x2)
    size = remainder(abs(x1), abs(x2))
    return where(less(x1, 0), negative(size), size)


def hypot(x1: Any, x2: Any, /) -> NDArray:
    """``sqrt(x1**2 + x2**2)``, without overflow in between."""
    x1, x2 = (abs(as_floating("hypot", v, a)) for v, a in zip(common("hypot", x1, x2), ("x1", "x2")))
    large, small = maximum(x1, x2), minimum(x1, x2)
    zero = equal(large, 0)
    ratio = divide(small, where(zero, 1, large))
    return where(isinf(large), large, multiply(large, sqrt(add(multiply(ratio, ratio), 1))))


def logaddexp(x1: Any, x2: Any, /) -> NDArray:
    """``log(exp(x1) + exp(x2))``, without overflow."""
    x1, x2 = common("logaddexp", as_floating("logaddexp", x1, "x1"), as_floating("logaddexp", x2, "x2"))
    top = stop_gradient(maximum(x1, x2))
    top = where(isfinite(top), top, 0)
    return add(top, log(add(exp(subtract(x1, top)), exp(subtract(x2, top)))))


def copysign(x1: Any, x2: Any, /) -> NDArray:
    """The size of x1 with the sign of x2 (a zero's sign counts)."""
    x1, x2 = common("copysign", as_floating("copysign", x1, "x1"), as_floating("copysign", x2, "x2"))
    down = logical_or(less(x2, 0), less(divide(1, x2), 0))
    return where(down, negative(abs(x1)), abs(x1))


true_divide, mod, pow, atan2 = divide, remainder, power, arctan2
bitwise_left_shift, bitwise_right_shift = left_shift, right_shift


# -- logic

def _truth(name: str, x: Any, argument: str) -> NDArray:
    x = as_array(name, argument, x)
    return x if x.dtype == bool_ else not_equal(x, 0)


def logical_and(x1: Any, x2: Any, /) -> NDArray:
    """Whether both are true (not 0), elementwise."""
    return primitive("bitwise_and", _truth("logical_and", x1, "x1"), _truth("logical_and", x2, "x2"))


def logical_or(x1: Any, x2: Any, /) -> NDArray:
    """Whether one is true (not 0), elementwise."""
    return primitive("bitwise_or", _truth("logical_or", x1, "x1"), _truth("logical_or", x2, "x2"))


def logical_xor(x1: Any, x2: Any, /) -> NDArray:
    """Whether exactly one is true (not 0), elementwise."""
    return primitive("bitwise_xor", _truth("logical_xor", x1, "x1"), _truth("logical_xor", x2, "x2"))


def logical_not(x: Any, /) -> NDArray:
    """Whether x is false (0), elementwise."""
    return apply(OPS["logical_not"], _truth("logical_not", x, "x"))


def bitwise_not(x: Any, /) -> NDArray:
    """``~x``, elementwise, for integers and bool."""
    return primitive("bitwise_not", _of_kind("bitwise_not", x, "biu"))


bitwise_invert = invert = bitwise_not


def _of_kind(name: str, x: Any, kinds: str) -> NDArray:
    x = as_array(name, "x", x)
    if x.dtype.kind not in kinds and x.dtype.name != "bfloat16":
        raise TypeError(f"{name}: x: not defined for dtype {x.dtype}; convert with astype")
    return x


# -- one argument

def _floating(name: str, formula: str) -> Callable:
    op = OPS[name]

    def function(x: Any, /) -> NDArray:
        if not (type(x) is NDArray and x.dtype.kind == "f"):
            x = as_floating(name, x)
        return primitive(op, x)

    if name in UNARY:
        function = unary(name, function)
    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"{formula}, elementwise; integers become float32."
    return function


exp: Callable = _floating("exp", "``e ** x``")
expm1: Callable = _floating("expm1", "``e ** x - 1``, accurate near 0")
log: Callable = _floating("log", "The natural logarithm")
log1p: Callable = _floating("log1p", "``log(1 + x)``, accurate near 0")
sqrt: Callable = _floating("sqrt", "The square root")
sin: Callable = _floating("sin", "The sine")
cos: Callable = _floating("cos", "The cosine")
tanh: Callable = _floating("tanh", "The hyperbolic tangent")
erf: Callable = _floating("erf", "The error function, ``2/sqrt(pi) * integral of exp(-t*t) from 0 to x``")


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
abs: Callable = _signed("abs", "``|x|``")
sign: Callable = _signed("sign", "-1, 0 or 1 with the sign of x")
absolute = fabs = abs


def _rounding(name: str, formula: str) -> Callable:
    op = OPS[name]

    def function(x: Any, /) -> NDArray:
        x = as_array(name, "x", x)
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
    """x rounded to some decimals (halves to even)."""
    if decimals == 0:
        return rint(x)
    x = as_array("round", "x", x)
    if not is_inexact(x.dtype) and decimals > 0:
        return x
    factor = 10.0 ** decimals
    return convert(divide(rint(multiply(x, factor)), factor), x.dtype)


def isnan(x: Any, /) -> NDArray:
    """Whether x is not a number, elementwise."""
    return _test("isnan", x)


def isinf(x: Any, /) -> NDArray:
    """Whether x is infinite, elementwise."""
    return _test("isinf", x)


def isfinite(x: Any, /) -> NDArray:
    """Whether x is neither infinite nor NaN, elementwise."""
    x = as_array("isfinite", "x", x)
    return logical_not(logical_or(_test("isnan", x), _test("isinf", x)))


def _test(name: str, x: Any) -> NDArray:
    x = as_array(name, "x", x)
    return apply(OPS[name], x) if is_inexact(x.dtype) else apply(OPS["not_equal"], x, x)


def positive(x: Any, /) -> NDArray:
    """``+x``: a copy."""
    return apply(OPS["copy"], as_array("positive", "x", x))


def copy(x: Any, /) -> NDArray:
    """A new array with the same values."""
    return apply(OPS["copy"], as_array("copy", "x", x))


def stop_gradient(x: Any, /) -> NDArray:
    """x, through which no gradient flows."""
    return apply(OPS["stop_gradient"], as_array("stop_gradient", "x", x))


def square(x: Any, /) -> NDArray:
    """``x * x``."""
    x = as_array("square", "x", x)
    return multiply(x, x)


def reciprocal(x: Any, /) -> NDArray:
    """``1 / x``; integers become float32."""
    return divide(1.0, as_floating("reciprocal", x))


def rsqrt(x: Any, /) -> NDArray:
    """``1 / sqrt(x)``; integers become float32."""
    return divide(1.0, sqrt(x))


def exp2(x: Any, /) -> NDArray:
    """``2 ** x``."""
    return power(2.0, as_floating("exp2", x))


def log2(x: Any, /) -> NDArray:
    """The logarithm to base 2."""
    return multiply(log(x), 1 / math.log(2))


def log10(x: Any, /) -> NDArray:
    """The logarithm to base 10."""
    return multiply(log(x), 1 / math.log(10))


def tan(x: Any, /) -> NDArray:
    """The tangent."""
    x = as_floating("tan", x)
    return divide(sin(x), cos(x))


def sinh(x: Any, /) -> NDArray:
    """The hyperbolic sine, ``(exp(x) - exp(-x)) / 2``, accurate near 0."""
    x = as_floating("sinh", x)
    grown = expm1(abs(x))
    half = where(greater(abs(x), 20), exp(subtract(abs(x), math.log(2))), multiply(0.5, add(grown, divide(grown, add(grown, 1)))))
    return multiply(sign(x), half)


def cosh(x: Any, /) -> NDArray:
    """The hyperbolic cosine, ``(exp(x) + exp(-x)) / 2``."""
    x = as_floating("cosh", x)
    return add(exp(subtract(x, math.log(2))), exp(subtract(negative(x), math.log(2))))


def arctan(x: Any, /) -> NDArray:
    """The angle in (-pi/2, pi/2) whose tangent is x."""
    return arctan2(as_floating("arctan", x), 1.0)


def arcsin(x: Any, /) -> NDArray:
    """The angle in [-pi/2, pi/2] whose sine is x; NaN outside of [-1, 1]."""
    x = as_floating("arcsin", x)
    return arctan2(x, sqrt(multiply(subtract(1, x), add(1, x))))


def arccos(x: Any, /) -> NDArray:
    """The angle in [0, pi] whose cosine is x; NaN outside of [-1, 1]."""
    x = as_floating("arccos", x)
    return arctan2(sqrt(multiply(subtract(1, x), add(1, x))), x)


def arcsinh(x: Any, /) -> NDArray:
    """The inverse of `sinh`, accurate near 0."""
    x = as_floating("arcsinh", x)
    size, sq = abs(x), multiply(x, x)
    return multiply(sign(x), log1p(add(size, divide(sq, add(sqrt(add(sq, 1)), 1)))))


def arccosh(x: Any, /) -> NDArray:
    """The non-negative inverse of `cosh`; NaN below 1."""
    x = as_floating("arccosh", x)
    above = subtract(x, 1)
    return log1p(add(above, sqrt(multiply(above, add(x, 1)))))


def arctanh(x: Any, /) -> NDArray:
    """The inverse of `tanh`; NaN outside of [-1, 1]."""
    x = as_floating("arctanh", x)
    return multiply(0.5, log1p(divide(multiply(2, x), subtract(1, x))))


acos, acosh, asin, asinh, atan, atanh = arccos, arccosh, arcsin, arcsinh, arctan, arctanh


def degrees(x: Any, /) -> NDArray:
    """Radians to degrees."""
    return multiply(as_floating("degrees", x), 180 / math.pi)


def radians(x: Any, /) -> NDArray:
    """Degrees to radians."""
    return multiply(as_floating("radians", x), math.pi / 180)


# -- choice and conversion

def where(condition: Any, x1: Any = None, x2: Any = None, /) -> Any:
    """x1 where the condition is true (not 0), else x2; all broadcast. With the condition alone: `nonzero`."""
    if x1 is None and x2 is None:
        from .manipulation import nonzero

        return nonzero(condition)
    if x1 is None or x2 is None:
        raise TypeError("where: expected both x1 and x2, or neither")
    if not (type(x1) is NDArray and type(x2) is NDArray and x1.dtype is x2.dtype):
        x1, x2 = common("where", x1, x2)
    return primitive("where", _truth("where", condition, "condition"), x1, x2)


def clip(x: Any, /, min: Any = None, max: Any = None, *, a_min: Any = None, a_max: Any = None) -> NDArray:
    """x limited to [min, max], numbers or arrays; None is no limit. (`a_min`, `a_max` are older names.)

    The gradient is 1 strictly inside the limits, 0 outside.
    """
    low, high = a_min if min is None else min, a_max if max is None else max
    out = as_array("clip", "x", x)
    if low is not None:
        out = maximum(out, low)
    return out if high is None else minimum(out, high)


def astype(x: Any, dtype: Any, /, *, copy: bool = True, device: Any = None) -> NDArray:
    """x converted to another dtype; x itself if that is its dtype and not `copy`."""
    out = as_array("astype", "x", x).astype(dtype, copy=copy)
    return out if device is None else out.to_device(device)


def cast(x: Any, dtype: Any) -> NDArray:
    """x in another dtype; x itself if it has it already."""
    return convert(as_array("cast", "x", x), canonical(dtype))


def nan_to_num(x: Any, /, nan: float = 0.0, posinf: float | None = None, neginf: float | None = None) -> NDArray:
    """x with NaNs and infinities replaced (infinities by the largest finite numbers unless told otherwise)."""
    x = as_array("nan_to_num", "x", x)
    if not is_inexact(x.dtype):
        return x
    info = np.finfo(x.dtype)
    top, bottom = (float(info.max) if posinf is None else posinf), (float(info.min) if neginf is None else neginf)
    out = where(isnan(x), nan, x)
    return where(isinf(x), where(greater(x, 0), top, bottom), out)


