"""Linear algebra: NumPy's and the Array API's functions, and MXNet's names; batched, with gradients.

Arrays hold matrices in their last two axes. LAPACK does the work, through NumPy and SciPy, in float32, float64, complex64
or complex128; integers become float32, half precision is computed in float32.
"""

from __future__ import annotations

from ..linear import matmul, outer, tensordot, vecdot
from ..manipulation import matrix_transpose
from .factorization import (
    EighResult,
    EigResult,
    QRResult,
    SlogdetResult,
    SVDResult,
    cholesky,
    det,
    eig,
    eigh,
    eigvals,
    eigvalsh,
    qr,
    slogdet,
    svd,
    svdvals,
)
from .matrices import cond, cross, diagonal, matrix_norm, matrix_power, matrix_rank, multi_dot, norm, trace, vector_norm
from .mxnet import (
    extractdiag,
    extracttrian,
    gelqf,
    gemm,
    gemm2,
    inverse,
    makediag,
    maketrian,
    potrf,
    potri,
    sumlogdiag,
    syevd,
    syrk,
    trmm,
    trsm,
)
from .solution import LinAlgError, inv, lstsq, pinv, solve, solve_triangular, tensorinv, tensorsolve

__all__ = [
    "EigResult", "EighResult", "LinAlgError", "QRResult", "SVDResult", "SlogdetResult", "cholesky", "cond", "cross", "det",
    "diagonal", "eig", "eigh", "eigvals", "eigvalsh", "extractdiag", "extracttrian", "gelqf", "gemm", "gemm2", "inv", "inverse",
    "lstsq", "makediag", "maketrian", "matmul", "matrix_norm", "matrix_power", "matrix_rank", "matrix_transpose", "multi_dot",
    "norm", "outer", "pinv", "potrf", "potri", "qr", "slogdet", "solve", "solve_triangular", "sumlogdiag", "svd", "svdvals",
    "syevd", "syrk", "tensordot", "tensorinv", "tensorsolve", "trace", "trmm", "trsm", "vecdot", "vector_norm",
]
