"""MXNet's names: BLAS level 3 and LAPACK functions on stacks of matrices, and their diagonals and triangles."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import reduction
from ..array import NDArray
from ..creation import eye
from ..elementwise import add, conj, log, multiply
from ..linear import matmul
from ..manipulation import diagonal, expand_dims, moveaxis, reshape, swapaxes, take, tril, triu
from ..operands import as_floating
from .arguments import matrix
from .factorization import cholesky, eigh, qr
from .solution import inv, solve_triangular

__all__ = [
    "extractdiag", "extracttrian", "gelqf", "gemm", "gemm2", "inverse", "makediag", "maketrian", "potrf", "potri", "sumlogdiag",
    "syevd", "syrk", "trmm", "trsm",
]


def _t(x: NDArray, transpose: bool) -> NDArray:
    return swapaxes(x, -1, -2) if transpose else x


def _triangle(x: NDArray, lower: bool) -> NDArray:
    return tril(x) if lower else triu(x)


def gemm(
    A: Any, B: Any, C: Any, /, transpose_a: bool = False, transpose_b: bool = False, alpha: float = 1.0, beta: float = 1.0,
    axis: int = -2,
) -> NDArray:
    """``alpha * A @ B + beta * C``, A and B transposed first if asked for; `axis` is that of the matrices' rows.

    >>> nd.linalg.gemm(nd.ones((2, 3)), nd.ones((3, 2)), nd.ones((2, 2)), alpha=2.0)
    array([[7., 7.],
           [7., 7.]])
    """
    if axis not in (-2,):
        A, B, C = (moveaxis(matrix("gemm", v, n), axis, -2) for v, n in ((A, "A"), (B, "B"), (C, "C")))
        return moveaxis(gemm(A, B, C, transpose_a, transpose_b, alpha, beta), -2, axis)
    return add(gemm2(A, B, transpose_a, transpose_b, alpha), multiply(matrix("gemm", C, "C"), beta))


def gemm2(A: Any, B: Any, /, transpose_a: bool = False, transpose_b: bool = False, alpha: float = 1.0, axis: int = -2) -> NDArray:
    """``alpha * A @ B``, A and B transposed first if asked for; `axis` is that of the matrices' rows.

    >>> nd.linalg.gemm2(nd.ones((2, 3)), nd.ones((2, 3)), transpose_b=True)
    array([[3., 3.],
           [3., 3.]])
    """
    A, B = matrix("gemm2", A, "A"), matrix("gemm2", B, "B")
    if axis not in (-2,):
        return moveaxis(gemm2(moveaxis(A, axis, -2), moveaxis(B, axis, -2), transpose_a, transpose_b, alpha), -2, axis)
    out = matmul(_t(A, transpose_a), _t(B, transpose_b))
    return out if alpha == 1 else multiply(out, alpha)


def potrf(A: Any, /, lower: bool = True) -> NDArray:
    """The Cholesky factor of positive definite A: L with ``L @ L.T = A``, or the upper one.

    >>> nd.linalg.potrf(nd.array([[4.0, 2.0], [2.0, 5.0]]))
    array([[2., 0.],
           [1., 2.]])
    """
    return cholesky(A, upper=not lower)


def potri(A: Any, /, lower: bool = True) -> NDArray:
    """The inverse of the matrix whose Cholesky factor is A.

    >>> nd.linalg.potri(nd.array([[2.0, 0.0], [0.0, 4.0]]))
    array([[0.25  , 0.    ],
           [0.    , 0.0625]])
    """
    A = matrix("potri", A, "A")
    n = A.shape[-1]
    half = solve_triangular(A, eye(n, dtype=A.dtype, device=A._device), lower=lower)
    return matmul(_t(half, True), half) if lower else matmul(half, _t(half, True))


def trsm(A: Any, B: Any, /, transpose: bool = False, rightside: bool = False, lower: bool = True, alpha: float = 1.0) -> NDArray:
    """X with ``A @ X = alpha * B`` (or ``X @ A = alpha * B`` if `rightside`) for triangular A, transposed if asked for.

    >>> nd.linalg.trsm(nd.array([[2.0, 0.0], [1.0, 4.0]]), nd.array([[4.0], [10.0]]))
    array([[2.],
           [2.]])
    """
    A, B = matrix("trsm", A, "A"), multiply(matrix("trsm", B, "B"), alpha)
    if rightside:
        return _t(solve_triangular(A, _t(B, True), lower=lower, trans=not transpose), True)
    return solve_triangular(A, B, lower=lower, trans=transpose)


def trmm(A: Any, B: Any, /, transpose: bool = False, rightside: bool = False, lower: bool = True, alpha: float = 1.0) -> NDArray:
    """``alpha * A @ B`` (or ``alpha * B @ A`` if `rightside`) for triangular A, transposed if asked for.

    >>> nd.linalg.trmm(nd.array([[2.0, 9.0], [1.0, 4.0]]), nd.array([[1.0], [1.0]]))
    array([[2.],
           [5.]])
    """
    A, B = _t(_triangle(matrix("trmm", A, "A"), lower), transpose), matrix("trmm", B, "B")
    return multiply(matmul(B, A) if rightside else matmul(A, B), alpha)


def syrk(A: Any, /, transpose: bool = False, alpha: float = 1.0) -> NDArray:
    """``alpha * A @ A.T``, or ``alpha * A.T @ A`` if `transpose`.

    >>> nd.linalg.syrk(nd.array([[1.0, 2.0]]))
    array([[5.]])
    """
    A = matrix("syrk", A, "A")
    return multiply(matmul(_t(A, transpose), _t(A, not transpose)), alpha)


def sumlogdiag(A: Any, /) -> NDArray:
    """The sum of the logarithms of the diagonal.

    >>> nd.linalg.sumlogdiag(nd.array([[1.0, 0.0], [0.0, nd.e]]))
    array(1.)
    """
    return reduction.sum(log(diagonal(matrix("sumlogdiag", A, "A"), 0, -2, -1)), -1)


def extractdiag(A: Any, /, offset: int = 0) -> NDArray:
    """The diagonals of matrices, `offset` columns to the right.

    >>> nd.linalg.extractdiag(nd.array([[1.0, 2.0], [3.0, 4.0]]))
    array([1., 4.])
    """
    return diagonal(matrix("extractdiag", A, "A"), offset, -2, -1)


def makediag(A: Any, /, offset: int = 0) -> NDArray:
    """Matrices with the vectors of the last axis on a diagonal, `offset` columns to the right, and zeros elsewhere.

    >>> nd.linalg.makediag(nd.array([1.0, 2.0]))
    array([[1., 0.],
           [0., 2.]])
    """
    A = as_floating("makediag", A, "A")
    n, k = A.shape[-1], abs(offset)
    from ..padding import pad

    lead = [(0, 0)] * (A.ndim - 1)
    line = pad(A, [*lead, (k, 0) if offset > 0 else (0, k)]) if k else A
    return multiply(expand_dims(line, -2), eye(n + k, k=offset, dtype=A.dtype, device=A._device))


def _flat_positions(n: int, offset: int, lower: bool) -> np.ndarray:
    """The row-major positions of a triangle of an n x n matrix."""
    rows, columns = np.tril_indices(n, offset) if (offset < 0 or (offset == 0 and lower)) else np.triu_indices(n, offset)
    return rows * n + columns


def extracttrian(A: Any, /, offset: int = 0, lower: bool = True) -> NDArray:
    """The elements of a triangle of square matrices, row by row, as vectors: below (or above) the main diagonal and with it,
    or beyond the diagonal `offset`, on whose side it lies.

    >>> nd.linalg.extracttrian(nd.array([[1.0, 2.0], [3.0, 4.0]]))
    array([1., 3., 4.])
    """
    A = matrix("extracttrian", A, "A")
    n = int(A.shape[-1])
    return take(reshape(A, (*A.shape[:-2], n * n)), _flat_positions(n, offset, lower), -1)


def maketrian(A: Any, /, offset: int = 0, lower: bool = True) -> NDArray:
    """Square matrices from the vectors that `extracttrian` gives, zeros elsewhere.

    Raises ValueError where the vectors' size fits no triangle.

    >>> nd.linalg.maketrian(nd.array([1.0, 3.0, 4.0]))
    array([[1., 0.],
           [3., 4.]])
    """
    A = as_floating("maketrian", A, "A")
    count = int(A.shape[-1])
    n = next((n for n in range(1, count + abs(offset) + 2) if len(_flat_positions(n, offset, lower)) == count), None)
    if n is None:
        raise ValueError(f"maketrian: A: no triangle beyond diagonal {offset} has {count} elements (shape {A.shape})")
    source = np.full(n * n, count)
    source[_flat_positions(n, offset, lower)] = np.arange(count)
    from ..padding import pad

    wide = pad(A, [(0, 0)] * (A.ndim - 1) + [(0, 1)])
    return reshape(take(wide, source, -1), (*A.shape[:-1], n, n))


def gelqf(A: Any, /) -> tuple[NDArray, NDArray]:
    """Q and L with ``A = L @ Q`` for A (..., m, n), m <= n: L lower triangular with a positive diagonal, Q of orthonormal rows.

    >>> nd.linalg.gelqf(nd.array([[3.0, 4.0]]))
    (array([[0.6, 0.8]]), array([[5.]]))
    """
    from ..elementwise import less, where

    A = matrix("gelqf", A, "A")
    if A.shape[-2] > A.shape[-1]:
        raise ValueError(f"gelqf: A: expected no more rows than columns, got shape {A.shape}")
    q, r = qr(conj(_t(A, True)))
    q, lower = conj(_t(q, True)), conj(_t(r, True))
    signs = where(less(diagonal(lower, 0, -2, -1), 0), -1.0, 1.0)
    return multiply(q, expand_dims(signs, -1)), multiply(lower, expand_dims(signs, -2))


def syevd(A: Any, /) -> tuple[NDArray, NDArray]:
    """U and L with ``A = U.T @ diag(L) @ U`` for symmetric A: eigenvectors as rows, eigenvalues in rising order.

    >>> nd.linalg.syevd(nd.array([[2.0, 1.0], [1.0, 2.0]]))[1]
    array([1., 3.])
    """
    values, vectors = eigh(A)
    return _t(vectors, True), values


def inverse(A: Any, /) -> NDArray:
    """The inverse, as `inv`.

    >>> nd.linalg.inverse(nd.array([[2.0, 0.0], [0.0, 4.0]]))
    array([[0.5 , 0.  ],
           [0.  , 0.25]])
    """
    return inv(A)
