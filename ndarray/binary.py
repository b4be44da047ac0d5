"""Elementwise functions of two arguments, each over one primitive: arithmetic, comparison, bits.

Arguments are arrays or numbers; shapes broadcast and dtypes promote as in NumPy, with the rules of `ndarray.dtypes`.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from . import ops  # noqa: F401  (fills the table)
from .array import NDArray
from .dtypes import bool_, default_float, default_int
from .fast import BINARY, binary
from .op import OPS
from .operands import common, convert, primitive

__all__ = [
    "add",
    "arctan2",
    "atan2",
    "bitwise_and",
    "bitwise_left_shift",
    "bitwise_or",
    "bitwise_right_shift",
    "bitwise_xor",
    "copysign",
    "divide",
    "divmod",
    "equal",
    "floor_divide",
    "gcd",
    "greater",
    "greater_equal",
    "hypot",
    "lcm",
    "left_shift",
    "less",
    "less_equal",
    "maximum",
    "minimum",
    "mod",
    "multiply",
    "nextafter",
    "not_equal",
    "remainder",
    "right_shift",
    "subtract",
    "true_divide",
]


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
hypot: Callable = _binary("hypot", "f", "``sqrt(x1**2 + x2**2)``, without overflow in between", otherwise=default_float)
copysign: Callable = _binary(
    "copysign", "f", "The size of x1 with the sign of x2 (a zero's sign counts)", otherwise=default_float)
nextafter: Callable = _binary(
    "nextafter", "f", "The number of this dtype that is next to x1 in the direction of x2", otherwise=default_float)


def divmod(x1: Any, x2: Any, /) -> tuple[NDArray, NDArray]:
    """``floor_divide(x1, x2)`` and ``remainder(x1, x2)``.

    >>> nd.divmod(nd.array([7, -7]), 3)
    (array([ 2, -3]), array([1, 2]))
    """
    return floor_divide(x1, x2), remainder(x1, x2)


true_divide, mod, atan2 = divide, remainder, arctan2
bitwise_left_shift, bitwise_right_shift = left_shift, right_shift


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
