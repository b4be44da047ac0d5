"""Finding positions: of what is not 0, in sorted sequences, of sorted, partly sorted and lexically sorted elements."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .apply import apply, is_tracing
from .array import NDArray, wrap
from .dtypes import default_int
from .elementwise import less, less_equal
from .manipulation import expand_dims, ravel, reshape, stack, take, take_along_axis
from .op import OPS
from .operands import as_array, common, convert, normalize_axis, primitive

__all__ = [
    "argpartition", "argwhere", "digitize", "extract", "flatnonzero", "lexsort", "nonzero", "partition", "searchsorted",
]


def known(x: NDArray, name: str, instead: str) -> np.ndarray:
    """The values of an array on the host, which decide the shape of a result: for a traced one, the tracer's error also says
    what to write instead."""
    try:
        return x._host(f"{name}()")
    except Exception as error:
        if not hasattr(x._data, "concretize"):
            raise
        text = str(error).removesuffix("Return it and convert it outside the function").rstrip(" .")
        raise type(error)(f"{text}. The result's shape depends on them; in a hybridized function, {instead}") from None


def nonzero(x: Any, /) -> tuple[NDArray, ...]:
    """The positions of elements that are not 0, one int64 array an axis.

    The values must be known: not in a trace. Raises ValueError for a 0-d array.

    >>> nd.nonzero(nd.array([[0, 3], [5, 0]]))
    (array([0, 1]), array([1, 0]))
    """
    x = as_array("nonzero", "x", x)
    if not x.ndim:
        raise ValueError("nonzero: x: expected at least one axis, got a 0-d array; use nd.atleast_1d(x).nonzero()")
    if hasattr(x._data, "concretize"):
        known(x, "nonzero", "use nd.where(condition, a, b) or a mask")
    with x._device.active():
        return tuple(wrap(i, x._device) for i in x._data.nonzero())


def argwhere(x: Any, /) -> NDArray:
    """The positions of elements that are not 0, one row each, int64.

    >>> nd.argwhere(nd.array([[0, 3], [5, 0]]))
    array([[0, 1],
           [1, 0]])
    """
    x = as_array("argwhere", "x", x)
    if not x.ndim:
        return apply(OPS["reshape"], argwhere(reshape(x, (1,)))[:, :0], shape=(int(bool(x)), 0))
    return stack(nonzero(x), axis=1)


def flatnonzero(x: Any, /) -> NDArray:
    """The positions in the flattened array of elements that are not 0, int64.

    >>> nd.flatnonzero(nd.array([[0, 3], [5, 0]]))
    array([1, 2])
    """
    return nonzero(ravel(x))[0]


def extract(condition: Any, x: Any, /) -> NDArray:
    """The elements (of the flattened array) at which a condition of the same size holds.

    >>> nd.extract(nd.array([True, False, True]), nd.array([1, 2, 3]))
    array([1, 3])
    """
    return take(ravel(x), flatnonzero(condition), 0)


def searchsorted(x1: Any, x2: Any, /, side: str = "left", sorter: Any = None) -> NDArray:
    """Where in the sorted vector x1 the elements of x2 belong: how many elements of x1 are less than each ("left"), or not
    greater ("right"). `sorter` holds positions that sort x1. int64, of x2's shape.

    Raises ValueError where x1 has not one axis, or for another side.

    >>> nd.searchsorted(nd.array([1, 3, 5]), nd.array([3, 4]))
    array([1, 2])
    """
    if side not in ("left", "right"):
        raise ValueError(f"searchsorted: side: expected 'left' or 'right', got {side!r}")
    x1, x2 = common("searchsorted", x1, x2)
    if x1.ndim != 1:
        raise ValueError(f"searchsorted: x1: expected one axis, got shape {x1.shape}")
    if sorter is not None:
        x1 = take(x1, sorter, 0)
    if is_tracing():  # counted, which a graph can say
        before = (less if side == "left" else less_equal)(x1, expand_dims(x2, -1))
        return apply(OPS["sum"], convert(before, default_int), axes=(x2.ndim,), keepdims=False)
    return primitive("searchsorted", x1, x2, right=side == "right")


def digitize(x: Any, bins: Any, /, right: bool = False) -> NDArray:
    """The number of the bin in which each element lies: i with ``bins[i-1] <= x < bins[i]``, or ``bins[i-1] < x <= bins[i]``
    if `right`; bins may also fall. int64. Raises ValueError where they neither rise nor fall.

    >>> nd.digitize(nd.array([0.5, 2.0]), nd.array([0.0, 1.0, 2.0]))
    array([1, 3])
    """
    x, bins = common("digitize", x, bins, arguments=("x", "bins"))
    edges = known(bins, "digitize", "use nd.searchsorted")
    steps = np.diff(edges)
    if edges.ndim != 1 or not ((steps >= 0).all() or (steps <= 0).all()):
        raise ValueError("digitize: bins: expected one axis of rising or falling numbers")
    side = "left" if right else "right"
    if (steps >= 0).all():
        return searchsorted(bins, x, side)
    return len(edges) - searchsorted(bins[::-1], x, "right" if right else "left")


def lexsort(keys: Any, /, axis: int = -1) -> NDArray:
    """The positions that sort by several keys, the last one counting most, along an axis; int64.

    >>> nd.lexsort((nd.array([2, 1, 3]), nd.array([1, 1, 0])))
    array([2, 1, 0])
    """
    found = list(keys) if isinstance(keys, (tuple, list, NDArray)) else keys
    if not found:
        raise TypeError("lexsort: keys: expected at least one array")
    found = [as_array("lexsort", f"keys[{k}]", key) for k, key in enumerate(found)]
    axis = normalize_axis("lexsort", axis, found[0].ndim)
    order = apply(OPS["argsort"], found[0], axis=axis, descending=False)
    for key in found[1:]:
        again = apply(OPS["argsort"], take_along_axis(key, order, axis), axis=axis, descending=False)
        order = take_along_axis(order, again, axis)
    return order


def partition(x: Any, kth: int | Sequence[int], /, axis: int | None = -1) -> NDArray:
    """x with the element(s) at `kth` where they would be if sorted along an axis, smaller ones before, the others behind.

    (It is sorted, so that eager and compiled results agree.)

    >>> nd.partition(nd.array([3, 1, 2]), 1)
    array([1, 2, 3])
    """
    x = as_array("partition", "x", x)
    if axis is None:
        x, axis = ravel(x), 0
    return take_along_axis(x, argpartition(x, kth, axis), normalize_axis("partition", axis, x.ndim))


def argpartition(x: Any, kth: int | Sequence[int], /, axis: int | None = -1) -> NDArray:
    """The positions that give `partition`; int64. Raises ValueError for a `kth` outside of the axis.

    >>> nd.argpartition(nd.array([3, 1, 2]), 1)
    array([1, 2, 0])
    """
    x = as_array("argpartition", "x", x)
    if axis is None:
        x, axis = ravel(x), 0
    axis = normalize_axis("argpartition", axis, x.ndim)
    for k in kth if isinstance(kth, (tuple, list)) else (kth,):
        if not -x.shape[axis] <= k < x.shape[axis]:
            raise ValueError(f"argpartition: kth: expected {-x.shape[axis]} to {x.shape[axis] - 1}, got {k}")
    return apply(OPS["argsort"], x, axis=axis, descending=False)


