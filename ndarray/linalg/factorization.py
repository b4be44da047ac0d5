"""Factorizations of matrices, their eigenvalues, singular values and determinants."""

from __future__ import annotations

from typing import Any, NamedTuple

from ..array import NDArray
from ..elementwise import conj
from ..manipulation import swapaxes
from ..operands import primitive
from .arguments import in_lapack, matrix, square

__all__ = [
    "EigResult", "EighResult", "QRResult", "SVDResult", "SlogdetResult", "cholesky", "det", "eig", "eigh", "eigvals", "eigvalsh",
    "qr", "slogdet", "svd", "svdvals",
]


class EighResult(NamedTuple):
    """What `eigh` returns."""

    eigenvalues: NDArray
    eigenvectors: NDArray


class EigResult(NamedTuple):
    """What `eig` returns."""

    eigenvalues: NDArray
    eigenvectors: NDArray


class QRResult(NamedTuple):
    """What `qr` returns."""

    Q: NDArray
    R: NDArray


class SVDResult(NamedTuple):
    """What `svd` returns."""

    U: NDArray
    S: NDArray
    Vh: NDArray


class SlogdetResult(NamedTuple):
    """What `slogdet` returns."""

    sign: NDArray
    logabsdet: NDArray


def _hermitian(name: str, x: Any, upper: bool) -> NDArray:
    """Square matrices of which one triangle counts, the lower one for LAPACK, and made whole for gradients."""
    x = square(name, x)
    return conj(swapaxes(x, -1, -2)) if upper else x


def cholesky(x: Any, /, *, upper: bool = False) -> NDArray:
    """The lower triangular L with ``L @ L^H = x`` (or the upper U with ``U^H @ U = x``) of positive definite x (..., n, n).

    Only the lower triangle of x (the upper one if `upper`) is read. Raises LinAlgError where x is not positive definite.

    >>> nd.linalg.cholesky(nd.array([[4.0, 2.0], [2.0, 5.0]]))
    array([[2., 0.],
           [1., 2.]])
    """
    out = in_lapack(lambda a: primitive("cholesky", a), _hermitian("cholesky", x, upper))
    return conj(swapaxes(out, -1, -2)) if upper else out


def qr(x: Any, /, mode: str = "reduced") -> Any:
    """``x = Q @ R`` (..., m, n) with orthonormal columns Q (..., m, k) and upper triangular R (..., k, n).

    k is min(m, n) in mode "reduced" and m in mode "complete"; mode "r" gives R alone. Gradients exist for "reduced" and "r",
    and need the first min(m, n) columns to be independent. Raises ValueError for another mode.

    >>> nd.abs(nd.linalg.qr(nd.array([[3.0, 1.0], [4.0, 2.0]])).R)
    array([[5. , 2.2],
           [0. , 0.4]])
    """
    if mode not in ("reduced", "complete", "r"):
        raise ValueError(f"qr: mode: expected 'reduced', 'complete' or 'r', got {mode!r}")
    q, r = in_lapack(lambda a: primitive("qr", a, complete=mode == "complete"), matrix("qr", x))
    return r if mode == "r" else QRResult(q, r)


def svd(x: Any, /, full_matrices: bool = True, compute_uv: bool = True, hermitian: bool = False) -> Any:
    """``x = U @ diag(S) @ Vh`` (..., m, n): singular values S (..., k) in falling order, k = min(m, n), and the vectors U and
    Vh, of shapes (..., m, m) and (..., n, n), or (..., m, k) and (..., k, n) unless `full_matrices`.

    Without `compute_uv`, S alone. Gradients of the vectors need distinct singular values and ``full_matrices=False`` (or
    square x).

    >>> nd.linalg.svd(nd.array([[3.0, 0.0], [0.0, 4.0]])).S
    array([4., 3.])
    """
    x = matrix("svd", x)
    if not compute_uv:
        return svdvals(x)
    full = bool(full_matrices) and x.shape[-1] != x.shape[-2]
    return SVDResult(*in_lapack(lambda a: primitive("svd", a, full=full), x))


def svdvals(x: Any, /) -> NDArray:
    """The singular values (..., min(m, n)) of x (..., m, n), in falling order.

    >>> nd.linalg.svdvals(nd.array([[3.0, 0.0], [0.0, 4.0]]))
    array([4., 3.])
    """
    return in_lapack(lambda a: primitive("svd", a, full=False), matrix("svdvals", x))[1]


def eigh(x: Any, /, UPLO: str = "L") -> EighResult:
    """The eigenvalues (..., n), real, in rising order, and eigenvectors (..., n, n), as columns, of Hermitian x (..., n, n).

    The lower ("L") or upper ("U") triangle is read. Gradients of the vectors need distinct eigenvalues.

    >>> nd.linalg.eigh(nd.array([[2.0, 1.0], [1.0, 2.0]])).eigenvalues
    array([1., 3.])
    """
    if UPLO.upper() not in ("L", "U"):
        raise ValueError(f"eigh: UPLO: expected 'L' or 'U', got {UPLO!r}")
    x = _hermitian("eigh", x, UPLO.upper() == "U")
    return EighResult(*in_lapack(lambda a: primitive("eigh", a), x))


def eigvalsh(x: Any, /, UPLO: str = "L") -> NDArray:
    """The eigenvalues (..., n) of Hermitian x (..., n, n), real, in rising order.

    >>> nd.linalg.eigvalsh(nd.array([[2.0, 1.0], [1.0, 2.0]]))
    array([1., 3.])
    """
    return eigh(x, UPLO).eigenvalues


def eig(x: Any, /) -> EigResult:
    """The eigenvalues (..., n) and eigenvectors (..., n, n), as columns of length 1, of x (..., n, n).

    Always complex, so that the dtype doesn't depend on the values (NumPy's is real where all eigenvalues are).

    >>> nd.linalg.eig(nd.array([[0.0, 1.0], [-1.0, 0.0]])).eigenvalues
    array([0.+1.j, 0.-1.j])
    """
    x = square("eig", x)
    return EigResult(*in_lapack(lambda a: primitive("eig", a), x))


def eigvals(x: Any, /) -> NDArray:
    """The eigenvalues (..., n) of x (..., n, n), complex.

    >>> nd.linalg.eigvals(nd.array([[0.0, 1.0], [-1.0, 0.0]]))
    array([0.+1.j, 0.-1.j])
    """
    return eig(x).eigenvalues


def det(x: Any, /) -> NDArray:
    """The determinants (...) of x (..., n, n). The gradient exists for singular matrices too.

    >>> nd.linalg.det(nd.array([[1.0, 2.0], [3.0, 4.0]]))
    array(-2.)
    """
    return in_lapack(lambda a: primitive("det", a), square("det", x))


def slogdet(x: Any, /) -> SlogdetResult:
    """The sign (a complex number of size 1 for complex x) and the logarithm of the size of the determinants of x (..., n, n).

    For a singular matrix, 0 and -inf.

    >>> nd.linalg.slogdet(nd.array([[1.0, 2.0], [3.0, 4.0]])).sign
    array(-1.)
    """
    return SlogdetResult(*in_lapack(lambda a: primitive("slogdet", a), square("slogdet", x)))
