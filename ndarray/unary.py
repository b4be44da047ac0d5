"""Elementwise functions of one argument: exponentials, trigonometry, rounding, tests for infinities and NaN."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from . import ops  # noqa: F401  (fills the table)
from .apply import apply
from .array import NDArray
from .binary import divide, less, multiply
from .dtypes import bool_, default_int, is_inexact
from .fast import UNARY, unary
from .op import OPS
from .operands import as_array, as_floating, convert, primitive

__all__ = [
    "abs",
    "absolute",
    "acos",
    "acosh",
    "arccos",
    "arccosh",
    "arcsin",
    "arcsinh",
    "arctan",
    "arctanh",
    "asin",
    "asinh",
    "atan",
    "atanh",
    "bitwise_invert",
    "bitwise_not",
    "ceil",
    "copy",
    "cos",
    "cosh",
    "deg2rad",
    "degrees",
    "erf",
    "exp",
    "exp2",
    "expm1",
    "fabs",
    "fix",
    "floor",
    "invert",
    "isinf",
    "isnan",
    "log",
    "log1p",
    "log2",
    "log10",
    "ndtr",
    "negative",
    "positive",
    "rad2deg",
    "radians",
    "reciprocal",
    "rint",
    "round",
    "rsqrt",
    "signbit",
    "sin",
    "sinh",
    "sqrt",
    "square",
    "stop_gradient",
    "tan",
    "tanh",
    "trunc",
]


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


def _finished(name: str, function: Callable, text: str) -> Callable:
    """The function under its name, with its docstring, and a short cut for small arrays where there is one."""
    if name in UNARY:
        function = unary(name, function)
    function.__name__ = function.__qualname__ = name
    function.__doc__ = text
    return function


def _floating(name: str, formula: str, kinds: str = "iufc") -> Callable:
    op = OPS[name]

    def function(x: Any, /) -> NDArray:
        if not (type(x) is NDArray and x.dtype.kind == "f"):
            x = as_floating(name, x)
            if x.dtype.kind == "c" and "c" not in kinds:
                raise TypeError(f"{name}: x: not defined for dtype {x.dtype}")
        return primitive(op, x)

    return _finished(name, function, f"{formula}, elementwise; integers become float32.")


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
ndtr: Callable = _floating("ndtr", "How probably a standard normal number is at most x, ``(1 + erf(x/sqrt(2)))/2``", "iuf")
acos, acosh, asin, asinh, atan, atanh = arccos, arccosh, arcsin, arcsinh, arctan, arctanh


def _signed(name: str, formula: str, kinds: str = "iuf") -> Callable:
    op = OPS[name]

    def function(x: Any, /) -> NDArray:
        return apply(op, _of_kind(name, x, kinds))

    return _finished(name, function, f"{formula}, elementwise, in x's dtype.")


negative: Callable = _signed("negative", "``-x``", "iufc")
abs: Callable = _signed("abs", "``|x|``, real for complex x", "iufc")
_sign: Callable = _signed("sign", "")
absolute = fabs = abs


def _rounding(name: str, formula: str) -> Callable:
    op = OPS[name]

    def function(x: Any, /) -> NDArray:
        x = as_array(name, "x", x)
        if x.dtype.kind == "c" and name != "round":
            raise TypeError(f"{name}: x: not defined for dtype {x.dtype}")
        return apply(op, x) if is_inexact(x.dtype) else x

    return _finished(name, function, f"{formula}, elementwise; integers stay as they are.")


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
