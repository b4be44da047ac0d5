"""Norms, conditions, ranks, powers, diagonals and chains of matrices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import linear, manipulation, reduction
from ..array import NDArray
from ..creation import eye
from ..dtypes import default_int, finfo_of
from ..elementwise import abs as absolute
from ..elementwise import divide, equal, greater, imag, multiply, not_equal, power, real, sqrt, where
from ..linear import matmul
from ..manipulation import expand_dims, moveaxis
from ..operands import as_array, as_floating, convert, is_number, normalize_axes
from ..ops.base import real_dtype
from .arguments import matrix, square
from .factorization import svdvals
from .solution import inv

__all__ = [
    "cond", "cross", "diagonal", "matrix_norm", "matrix_power", "matrix_rank", "multi_dot", "norm", "trace", "vector_norm",
]


def _size_squared(x: NDArray) -> NDArray:
    if x.dtype.kind != "c":
        return multiply(x, x)
    a, b = real(x), imag(x)
    return multiply(a, a) + multiply(b, b)


def _root(total: NDArray) -> NDArray:
    """The square root, with the gradient 0 at 0."""
    zero = equal(total, 0)
    return where(zero, 0, sqrt(where(zero, 1, total)))


def vector_norm(x: Any, /, *, axis: Any = None, keepdims: bool = False, ord: Any = 2) -> NDArray:
    """The norm ``sum(|x| ** ord) ** (1 / ord)`` over some axes (None: all); `ord` may be inf and -inf (the largest and the
    smallest size) and 0 (the number of elements that are not 0). Real. The gradient of the 2-norm at 0 is 0.

    >>> nd.linalg.vector_norm(nd.array([3.0, 4.0]))
    array(5.)
    """
    x = as_floating("vector_norm", x)
    axes = normalize_axes("vector_norm", axis, x.ndim)
    if ord == 2:
        return _root(reduction.sum(_size_squared(x), axes, keepdims=keepdims))
    if ord == 0:
        return reduction.sum(convert(not_equal(x, 0), real_dtype(x.dtype)), axes, keepdims=keepdims)
    size = absolute(x)
    if ord == 1:
        return reduction.sum(size, axes, keepdims=keepdims)
    if ord in (np.inf, -np.inf):
        return (reduction.max if ord > 0 else reduction.min)(size, axes, keepdims=keepdims)
    if not isinstance(ord, (int, float)):
        raise ValueError(f"vector_norm: ord: expected a number, got {ord!r}")
    return power(reduction.sum(power(size, ord), axes, keepdims=keepdims), 1.0 / ord)


def matrix_norm(x: Any, /, *, keepdims: bool = False, ord: Any = "fro") -> NDArray:
    """The norms (...) of matrices x (..., m, n): "fro" (the root of the sum of squares), "nuc" (the sum of singular values),
    2 and -2 (the largest and smallest singular value), 1 and -1 (of column sums), inf and -inf (of row sums). Real.

    >>> nd.linalg.matrix_norm(nd.array([[1.0, -2.0], [3.0, 4.0]]), ord=1)
    array(6.)
    """
    x = matrix("matrix_norm", x)
    if ord in ("fro", None):
        return _root(reduction.sum(_size_squared(x), (-2, -1), keepdims=keepdims))
    if ord in ("nuc", 2, -2):
        values = svdvals(x)
        out = (reduction.sum if ord == "nuc" else reduction.max if ord == 2 else reduction.min)(values, -1)
        return expand_dims(out, (-2, -1)) if keepdims else out
    if ord not in (1, -1, np.inf, -np.inf):
        raise ValueError(f"matrix_norm: ord: expected 'fro', 'nuc', 1, -1, 2, -2, inf or -inf, got {ord!r}")
    totals = reduction.sum(absolute(x), -2 if abs(ord) == 1 else -1, keepdims=True)
    return (reduction.max if ord > 0 else reduction.min)(totals, (-2, -1), keepdims=keepdims)


def norm(x: Any, /, ord: Any = None, axis: Any = None, keepdims: bool = False) -> NDArray:
    """NumPy's norm: of vectors for one axis, of matrices for two (`vector_norm`, `matrix_norm`); without `axis`, of the
    flattened array, or for a given `ord` of a vector or matrix x.

    >>> nd.linalg.norm(nd.array([[3.0, 4.0], [6.0, 8.0]]), axis=1)
    array([ 5., 10.])
    """
    x = as_floating("norm", x)
    if axis is None and (ord is None or (ord in ("f", "fro") and x.ndim == 2) or (ord == 2 and x.ndim == 1)):
        return vector_norm(x, keepdims=keepdims)
    given = tuple(range(x.ndim)) if axis is None else tuple(axis) if isinstance(axis, (tuple, list)) else (axis,)
    if len(given) == 1:
        return vector_norm(x, axis=given, keepdims=keepdims, ord=2 if ord is None else ord)
    if len(given) != 2:
        raise ValueError(f"norm: axis: expected one or two axes for ord {ord!r}, got {axis} for shape {x.shape}")
    axes = [a % x.ndim for a in given]
    normalize_axes("norm", given, x.ndim)
    out = matrix_norm(moveaxis(x, tuple(axes), (-2, -1)), ord="fro" if ord in (None, "f") else ord)
    return expand_dims(out, tuple(sorted(axes))) if keepdims else out


def cond(x: Any, /, p: Any = None) -> NDArray:
    """The condition numbers (...) of x (..., m, n): the largest by the smallest singular value (p None or 2; -2 the other
    way round), or for other norms p of square matrices ``matrix_norm(x) * matrix_norm(inv(x))``.

    >>> nd.linalg.cond(nd.array([[1.0, 0.0], [0.0, 4.0]]))
    array(4.)
    """
    if p in (None, 2, -2):
        values = svdvals(matrix("cond", x))
        high, low = values[..., 0], values[..., -1]
        return divide(low, high) if p == -2 else divide(high, low)
    x = square("cond", x)
    return multiply(matrix_norm(x, ord=p), matrix_norm(inv(x), ord=p))


def matrix_rank(x: Any, /, tol: Any = None, hermitian: bool = False, *, rtol: Any = None) -> NDArray:
    """How many singular values of x (..., m, n) are above `tol`, or above `rtol` (by default ``max(m, n)`` times the precision)
    times the largest; int64 (...).

    >>> nd.linalg.matrix_rank(nd.array([[1.0, 2.0], [2.0, 4.0]]))
    array(1)
    """
    x = matrix("matrix_rank", x)
    values = svdvals(x)
    if tol is None:
        if rtol is None:
            rtol = max(int(x.shape[-2]), int(x.shape[-1])) * float(finfo_of(values.dtype).eps)
        largest = reduction.max(values, -1, keepdims=True) if values.shape[-1] else 0
        if not is_number(rtol):
            rtol = expand_dims(as_array("matrix_rank", "rtol", rtol), -1)
        tol = multiply(largest, rtol)
    elif isinstance(tol, (NDArray, np.ndarray)) and tol.ndim:
        tol = expand_dims(as_array("matrix_rank", "tol", tol), -1)
    return reduction.sum(convert(greater(values, tol), default_int), -1)


def matrix_power(x: Any, n: int, /) -> NDArray:
    """x (..., k, k) multiplied by itself n times, by repeated squaring; of the inverse for a negative n.

    >>> nd.linalg.matrix_power(nd.array([[1, 1], [0, 1]]), 5)
    array([[1, 5],
           [0, 1]])
    """
    x = as_array("matrix_power", "x", x)
    if x.ndim < 2 or x.shape[-1] != x.shape[-2]:
        raise ValueError(f"matrix_power: x: expected square matrices in the last two axes, got shape {x.shape}")
    if not hasattr(n, "__index__"):
        raise TypeError(f"matrix_power: n: expected an int, got {n!r}")
    n = n.__index__()
    if n == 0:
        return manipulation.broadcast_to(eye(x.shape[-1], dtype=x.dtype, device=x._device), x.shape) + 0
    if n < 0:
        x, n = inv(x), -n
    out = None
    while n:
        if n & 1:
            out = x if out is None else matmul(out, x)
        n >>= 1
        if n:
            x = matmul(x, x)
    assert out is not None
    return out


def multi_dot(arrays: Sequence[Any], /) -> NDArray:
    """The product of several matrices in the order that needs the fewest multiplications; the first and the last may be
    vectors. Raises ValueError for fewer than two arrays.

    >>> nd.linalg.multi_dot([nd.ones((2, 3)), nd.ones((3, 4)), nd.ones((4, 2))])
    array([[12., 12.],
           [12., 12.]])
    """
    found = [as_array("multi_dot", f"arrays[{k}]", a) for k, a in enumerate(arrays)]
    if len(found) < 2:
        raise ValueError(f"multi_dot: arrays: expected at least 2, got {len(found)}")
    first, last = found[0].ndim == 1, found[-1].ndim == 1
    if first:
        found[0] = expand_dims(found[0], 0)
    if last:
        found[-1] = expand_dims(found[-1], 1)
    if any(a.ndim != 2 for a in found):
        raise ValueError(f"multi_dot: arrays: expected matrices, got shapes {[a.shape for a in found]}")
    sizes = [int(found[0].shape[0]), *(int(a.shape[1]) for a in found)]
    out = _chain(found, _splits(sizes), 0, len(found) - 1)
    return out[0 if first else slice(None), 0 if last else slice(None)] if first or last else out


def _splits(sizes: list[int]) -> dict[tuple[int, int], int]:
    """Where to cut each part of a chain, by dynamic programming over its length."""
    n = len(sizes) - 1
    cost = {(i, i): 0 for i in range(n)}
    cut: dict[tuple[int, int], int] = {}
    for length in range(1, n):
        for i in range(n - length):
            j = i + length
            best = min((cost[i, k] + cost[k + 1, j] + sizes[i] * sizes[k + 1] * sizes[j + 1], k) for k in range(i, j))
            cost[i, j], cut[i, j] = best
    return cut


def _chain(arrays: list[NDArray], cut: dict[tuple[int, int], int], i: int, j: int) -> NDArray:
    if i == j:
        return arrays[i]
    k = cut[i, j]
    return matmul(_chain(arrays, cut, i, k), _chain(arrays, cut, k + 1, j))


def diagonal(x: Any, /, *, offset: int = 0) -> NDArray:
    """The diagonals (..., k) of matrices x (..., m, n), `offset` columns to the right.

    >>> nd.linalg.diagonal(nd.array([[1, 2], [3, 4]]))
    array([1, 4])
    """
    return manipulation.diagonal(x, offset, -2, -1)


def trace(x: Any, /, *, offset: int = 0, dtype: Any = None) -> NDArray:
    """The sums (...) of the diagonals of matrices x (..., m, n). Bool and integers give int64 or uint64.

    >>> nd.linalg.trace(nd.array([[1, 2], [3, 4]]))
    array(5)
    """
    return reduction.sum(diagonal(x, offset=offset), -1, dtype=dtype)


def cross(x1: Any, x2: Any, /, *, axis: int = -1) -> NDArray:
    """The vector product along an axis of size 3; the other axes broadcast. Raises ValueError for another size.

    >>> nd.linalg.cross(nd.array([1, 0, 0]), nd.array([0, 1, 0]))
    array([0, 0, 1])
    """
    x1, x2 = as_array("cross", "x1", x1), as_array("cross", "x2", x2)
    for name, x in (("x1", x1), ("x2", x2)):
        if not -x.ndim <= axis < x.ndim or x.shape[axis] != 3:
            raise ValueError(f"cross: {name}: expected size 3 along axis {axis}, got shape {x.shape}")
    return linear.cross(x1, x2, axis=axis)
