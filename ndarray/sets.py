"""Arrays as sets: distinct elements, membership, unions, intersections, differences."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .apply import is_tracing
from .array import NDArray, wrap
from .dtypes import bool_
from .elementwise import equal, logical_not
from .manipulation import expand_dims, ravel, reshape
from .operands import as_array, common
from .searching import known

__all__ = [
    "UniqueAllResult", "UniqueCountsResult", "UniqueInverseResult", "in1d", "intersect1d", "isin", "setdiff1d", "setxor1d",
    "union1d", "unique", "unique_all", "unique_counts", "unique_inverse", "unique_values",
]


class UniqueAllResult(NamedTuple):
    """What `unique_all` returns."""

    values: NDArray
    indices: NDArray
    inverse_indices: NDArray
    counts: NDArray


class UniqueCountsResult(NamedTuple):
    """What `unique_counts` returns."""

    values: NDArray
    counts: NDArray


class UniqueInverseResult(NamedTuple):
    """What `unique_inverse` returns."""

    values: NDArray
    inverse_indices: NDArray


def _unique(name: str, x: Any, axis: int | None = None, equal_nan: bool = False) -> UniqueAllResult:
    x = as_array(name, "x", x)
    data = known(x, name, "sort and compare neighbours")
    values, first, inverse, counts = np.unique(
        data, return_index=True, return_inverse=True, return_counts=True, axis=axis, equal_nan=equal_nan)
    if axis is None:
        inverse = inverse.reshape(data.shape)
    parts = (np.asarray(p).astype(np.int64, copy=False) for p in (first, inverse, counts))
    return UniqueAllResult(_like(values, x), *(_like(p, x) for p in parts))


def _like(data: Any, x: NDArray) -> NDArray:
    return wrap(x._device.module.asarray(data), x._device)


def unique(
    x: Any, /, return_index: bool = False, return_inverse: bool = False, return_counts: bool = False,
    axis: int | None = None, *, equal_nan: bool = True,
) -> Any:
    """The distinct elements in order (of all, or the distinct slices along an axis), and if asked for, the position of each
    one's first occurrence, the positions that rebuild x, and how often each occurs. The values must be known.

    >>> nd.unique(nd.array([3, 1, 3]), return_counts=True)
    (array([1, 3]), array([1, 2]))
    """
    found = _unique("unique", x, axis, equal_nan)
    if not (return_index or return_inverse or return_counts):
        return found.values
    return (found.values, *((found.indices,) if return_index else ()), *((found.inverse_indices,) if return_inverse else ()),
            *((found.counts,) if return_counts else ()))


def unique_all(x: Any, /) -> UniqueAllResult:
    """The distinct elements, in order, the positions of their first occurrences, the positions (of x's shape) that rebuild x,
    and how often each occurs. Every NaN is distinct. The values must be known.

    >>> nd.unique_all(nd.array([3, 1, 3])).inverse_indices
    array([1, 0, 1])
    """
    return _unique("unique_all", x)


def unique_counts(x: Any, /) -> UniqueCountsResult:
    """The distinct elements, in order, and how often each occurs. Every NaN is distinct. The values must be known.

    >>> nd.unique_counts(nd.array([3, 1, 3])).counts
    array([1, 2])
    """
    found = _unique("unique_counts", x)
    return UniqueCountsResult(found.values, found.counts)


def unique_inverse(x: Any, /) -> UniqueInverseResult:
    """The distinct elements, in order, and the positions (of x's shape) that rebuild x. The values must be known.

    >>> nd.unique_inverse(nd.array([3, 1, 3])).values
    array([1, 3])
    """
    found = _unique("unique_inverse", x)
    return UniqueInverseResult(found.values, found.inverse_indices)


def unique_values(x: Any, /) -> NDArray:
    """The distinct elements, in order. Every NaN is distinct. The values must be known.

    >>> nd.unique_values(nd.array([3, 1, 3]))
    array([1, 3])
    """
    return _unique("unique_values", x).values


def isin(x1: Any, x2: Any, /, assume_unique: bool = False, *, invert: bool = False) -> NDArray:
    """Whether each element of x1 is among those of x2 (not, if `invert`); bool, of x1's shape. NaN is never among them.

    >>> nd.isin(nd.array([1, 2, 3]), nd.array([2, 5]))
    array([False,  True, False])
    """
    from .reduction import any

    x1, x2 = common("isin", x1, x2)
    if is_tracing():  # compared one by one, which a graph can say
        found = any(equal(expand_dims(x1, -1), ravel(x2)), axis=-1)
        return logical_not(found) if invert else found
    a, b = x1._host("isin()"), x2._host("isin()")
    return _like(np.isin(a, b, assume_unique=False, invert=invert).astype(bool_), x1)


in1d = isin


def _two(name: str, x1: Any, x2: Any, operation: Any) -> NDArray:
    x1, x2 = common(name, x1, x2)
    a, b = (known(reshape(v, (-1,)), name, "use nd.isin and a mask") for v in (x1, x2))
    return _like(operation(a, b), x1)


def union1d(x1: Any, x2: Any, /) -> NDArray:
    """The distinct elements of both, in order.

    >>> nd.union1d(nd.array([1, 3]), nd.array([2, 3]))
    array([1, 2, 3])
    """
    return _two("union1d", x1, x2, np.union1d)


def intersect1d(x1: Any, x2: Any, /, assume_unique: bool = False, return_indices: bool = False) -> Any:
    """The distinct elements that are in both, in order; if asked for, also their first positions in each.

    >>> nd.intersect1d(nd.array([1, 3]), nd.array([2, 3]))
    array([3])
    """
    if not return_indices:
        return _two("intersect1d", x1, x2, np.intersect1d)
    x1, x2 = common("intersect1d", x1, x2)
    a, b = (known(v, "intersect1d", "use nd.isin and a mask") for v in (x1, x2))
    return tuple(_like(p, x1) for p in np.intersect1d(a, b, assume_unique, return_indices=True))


def setdiff1d(x1: Any, x2: Any, /, assume_unique: bool = False) -> NDArray:
    """The distinct elements of x1 that are not in x2, in order.

    >>> nd.setdiff1d(nd.array([1, 3]), nd.array([2, 3]))
    array([1])
    """
    return _two("setdiff1d", x1, x2, np.setdiff1d)


def setxor1d(x1: Any, x2: Any, /, assume_unique: bool = False) -> NDArray:
    """The distinct elements that are in exactly one of both, in order.

    >>> nd.setxor1d(nd.array([1, 3]), nd.array([2, 3]))
    array([1, 2])
    """
    return _two("setxor1d", x1, x2, np.setxor1d)
