"""Whether arrays are equal, or close."""

from __future__ import annotations

from typing import Any

from . import reduction
from .array import NDArray
from .elementwise import abs as absolute
from .elementwise import add, equal, isnan, less_equal, logical_and, logical_or, multiply, subtract
from .elementwise import isfinite as _finite
from .manipulation import broadcast_to
from .operands import as_array, as_floating, common
from .ops.base import broadcast_shapes, differ

__all__ = ["allclose", "array_equal", "array_equiv", "isclose"]


def isclose(x1: Any, x2: Any, /, rtol: float = 1e-05, atol: float = 1e-08, equal_nan: bool = False) -> NDArray:
    """Whether ``|x1 - x2| <= atol + rtol * |x2|``, elementwise; bool. Infinities are close to themselves, NaNs if `equal_nan`.

    >>> nd.isclose(nd.array([1.0, 2.0]), nd.array([1.000001, 2.1]))
    array([ True, False])
    """
    x1, x2 = (as_floating("isclose", v) for v in common("isclose", x1, x2))
    near = less_equal(absolute(subtract(x1, x2)), add(multiply(absolute(x2), rtol), atol))
    out = logical_or(equal(x1, x2), logical_and(near, logical_and(_finite(x1), _finite(x2))))
    return logical_or(out, logical_and(isnan(x1), isnan(x2))) if equal_nan else out


def allclose(x1: Any, x2: Any, /, rtol: float = 1e-05, atol: float = 1e-08, equal_nan: bool = False) -> bool:
    """Whether all elements are close, as in `isclose`. The values must be known.

    >>> nd.allclose(nd.array([1.0, 2.0]), nd.array([1.000001, 2.0]))
    True
    """
    return bool(reduction.all(isclose(x1, x2, rtol, atol, equal_nan)))


def array_equal(x1: Any, x2: Any, /, equal_nan: bool = False) -> bool:
    """Whether both have one shape and equal elements. The values must be known.

    >>> nd.array_equal(nd.array([1, 2]), [1, 2])
    True
    """
    x1, x2 = as_array("array_equal", "x1", x1), as_array("array_equal", "x2", x2)
    if x1.ndim != x2.ndim or any(differ(a, b) for a, b in zip(x1.shape, x2.shape)):
        return False
    same = equal(x1, x2)
    if equal_nan:
        same = logical_or(same, logical_and(isnan(x1), isnan(x2)))
    return bool(reduction.all(same))


def array_equiv(x1: Any, x2: Any, /) -> bool:
    """Whether both are equal once they are broadcast to one shape; False where they can't be. The values must be known.

    >>> nd.array_equiv(nd.array([1, 1]), 1)
    True
    """
    x1, x2 = as_array("array_equiv", "x1", x1), as_array("array_equiv", "x2", x2)
    try:
        shape = broadcast_shapes("array_equiv", x1.shape, x2.shape)
    except ValueError:
        return False
    return array_equal(broadcast_to(x1, shape), broadcast_to(x2, shape))
