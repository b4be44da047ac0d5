"""Solutions of systems of linear equations, inverses and pseudo-inverses."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import reduction
from ..array import NDArray
from ..dims import product
from ..dtypes import default_int, finfo_of
from ..elementwise import abs as absolute
from ..elementwise import greater, multiply, square, subtract
from ..linear import matmul
from ..manipulation import broadcast_to, expand_dims, permute_dims, reshape, squeeze, swapaxes
from ..operands import common, convert, primitive
from ..ops.base import broadcast_shapes, differ
from .arguments import in_lapack, matrix
from .arguments import square as square_matrix
from .factorization import svdvals

__all__ = ["LinAlgError", "inv", "lstsq", "pinv", "solve", "solve_triangular", "tensorinv", "tensorsolve"]

LinAlgError = np.linalg.LinAlgError


def _system(name: str, x1: Any, x2: Any) -> tuple[NDArray, NDArray, bool]:
    """Matrices and right-hand sides with equal leading axes, and whether the latter are vectors."""
    x1, x2 = common(name, square_matrix(name, x1, "x1"), x2)
    vector = x2.ndim == 1
    right = expand_dims(x2, -1) if vector else x2
    if x2.ndim == 0 or differ(x1.shape[-1], right.shape[-2]):
        raise ValueError(f"{name}: x2: expected {x1.shape[-1]} rows as x1 of shape {x1.shape}, got shape {x2.shape}")
    lead = broadcast_shapes(name, x1.shape[:-2], right.shape[:-2])
    fit = lambda x: x if x.shape[:-2] == lead else broadcast_to(x, (*lead, *x.shape[-2:]))
    return fit(x1), fit(right), vector


def solve(x1: Any, x2: Any, /) -> NDArray:
    """x with ``x1 @ x = x2``, for x1 (..., n, n) and x2 (..., n, k), or a vector (n,); the leading axes broadcast.

    Raises LinAlgError for singular matrices.

    >>> nd.linalg.solve(nd.array([[3.0, 1.0], [1.0, 2.0]]), nd.array([9.0, 8.0]))
    array([2., 3.])
    """
    a, b, vector = _system("solve", x1, x2)
    out = in_lapack(lambda a, b: primitive("solve", a, b), a, b)
    return squeeze(out, -1) if vector else out


def solve_triangular(x1: Any, x2: Any, /, *, lower: bool = False, trans: bool = False, unit_diagonal: bool = False) -> NDArray:
    """x with ``x1 @ x = x2`` (or ``x1.T @ x = x2`` if `trans`) for upper (or lower) triangular x1; the other triangle, and
    the diagonal if `unit_diagonal`, are not read. Shapes as those of `solve`.

    >>> nd.linalg.solve_triangular(nd.array([[2.0, 1.0], [0.0, 4.0]]), nd.array([4.0, 8.0]))
    array([1., 2.])
    """
    a, b, vector = _system("solve_triangular", x1, x2)
    if trans:
        a, lower = swapaxes(a, -1, -2), not lower
    out = in_lapack(lambda a, b: primitive("triangular_solve", a, b, lower=bool(lower), unit=bool(unit_diagonal)), a, b)
    return squeeze(out, -1) if vector else out


def inv(x: Any, /) -> NDArray:
    """The inverses of x (..., n, n). Raises LinAlgError for singular matrices.

    >>> nd.linalg.inv(nd.array([[2.0, 0.0], [0.0, 4.0]]))
    array([[0.5 , 0.  ],
           [0.  , 0.25]])
    """
    return in_lapack(lambda a: primitive("inverse", a), square_matrix("inv", x))


def pinv(x: Any, /, rcond: float | None = None, hermitian: bool = False, *, rtol: Any = None) -> NDArray:
    """The pseudo-inverses (..., n, m) of x (..., m, n).

    Singular values below `rtol` (or `rcond`) times the largest count as 0; by default ``max(m, n)`` times the precision of
    the dtype. An array of shape (...) gives one limit for each matrix.

    >>> nd.linalg.pinv(nd.array([[1.0], [1.0]]))
    array([[0.49999997, 0.49999997]])
    """
    x = matrix("pinv", x)
    limit = rtol if rtol is not None else rcond
    if limit is None:
        dtype = x.dtype if x.dtype.itemsize >= 4 else np.dtype(np.float32)
        limit = max(int(x.shape[-2]), int(x.shape[-1])) * float(finfo_of(dtype).eps)
    if isinstance(limit, (NDArray, np.ndarray)) and limit.ndim:
        return _pinv_of_each(x, limit)
    return in_lapack(lambda a: primitive("pinv", a, rcond=float(limit)), x)


def _pinv_of_each(x: NDArray, limits: Any) -> NDArray:
    from ..manipulation import stack

    values = np.broadcast_to(np.asarray(limits), tuple(int(n) for n in x.shape[:-2]))
    flat = reshape(x, (-1, *x.shape[-2:])) if values.size else x
    parts = [in_lapack(lambda a, r=r: primitive("pinv", a, rcond=r), flat[k]) for k, r in enumerate(values.ravel().tolist())]
    shape = (*x.shape[:-2], x.shape[-1], x.shape[-2])
    return reshape(stack(parts), shape) if parts else reshape(x, shape)


def lstsq(x1: Any, x2: Any, /, rcond: float | None = None) -> tuple[NDArray, NDArray, NDArray, NDArray]:
    """The x of least size that minimizes ``|x1 @ x - x2|``, for x1 (m, n) and x2 (m,) or (m, k); the sums of squared
    residuals (empty where x1 has not full column rank, or m <= n), the rank and the singular values of x1.

    Singular values below `rcond` times the largest count as 0, by default ``max(m, n)`` times the precision. Gradients flow
    through the solution and the residuals.

    >>> nd.linalg.lstsq(nd.array([[1.0, 0.0], [1.0, 1.0], [1.0, 2.0]]), nd.array([1.0, 3.0, 5.0]))[0]
    array([0.9999999, 1.9999995])
    """
    a, b = common("lstsq", matrix("lstsq", x1, "x1"), x2)
    if a.ndim != 2 or b.ndim not in (1, 2) or differ(a.shape[0], b.shape[0]):
        raise ValueError(f"lstsq: expected shapes (m, n) and (m,) or (m, k), got {a.shape} and {b.shape}")
    m, n = a.shape
    limit = float(finfo_of(a.dtype).eps) * max(int(m), int(n)) if rcond is None or rcond < 0 else float(rcond)
    solution = matmul(pinv(a, limit), b)
    singular = svdvals(a)
    rank = reduction.sum(convert(greater(singular, multiply(reduction.max(singular), limit)), default_int)) if singular.shape[0] \
        else reduction.sum(convert(singular, default_int))
    difference = subtract(matmul(a, solution), b)
    size = absolute(difference)
    residuals = reduction.sum(square(size), 0, keepdims=b.ndim == 1)
    full = m > n and int(rank._concrete("lstsq(), whose residuals depend on the rank (use nd.linalg.pinv(x1) @ x2)")) == n
    return solution, residuals if full else residuals[:0], rank, singular


def tensorinv(x: Any, /, ind: int = 2) -> NDArray:
    """The inverse of x seen as a matrix from its last axes to its first `ind` ones: ``tensordot(tensorinv(x), x, ind)`` is
    the identity.

    >>> nd.linalg.tensorinv(nd.reshape(nd.eye(6), (6, 2, 3)), ind=1).shape
    (2, 3, 6)
    """
    if ind < 1:
        raise ValueError(f"tensorinv: ind: expected at least 1, got {ind}")
    from ..operands import as_floating

    x = as_floating("tensorinv", x)
    rows, columns = x.shape[:ind], x.shape[ind:]
    out = inv(reshape(x, (product(rows), product(columns))))
    return reshape(out, (*columns, *rows))


def tensorsolve(x1: Any, x2: Any, /, axes: Any = None) -> NDArray:
    """x with ``tensordot(x1, x, x.ndim) = x2``; the `axes` of x1 are moved to its end first.

    >>> nd.linalg.tensorsolve(nd.reshape(nd.eye(6), (2, 3, 6)), nd.ones((2, 3))).shape
    (6,)
    """
    x1, x2 = common("tensorsolve", x1, x2)
    if axes is not None:
        moved = [a % x1.ndim for a in axes]
        x1 = permute_dims(x1, (*(k for k in range(x1.ndim) if k not in moved), *moved))
    shape = x1.shape[x2.ndim :]
    count = product(shape)
    if x1.shape[: x2.ndim] != x2.shape or product(x2.shape) != count:
        raise ValueError(f"tensorsolve: x1: expected shape {x2.shape} and as many elements in the other axes, got {x1.shape}")
    return reshape(solve(reshape(x1, (count, count)), reshape(x2, (count,))), shape)


