"""Eigenvalues, singular values and pseudo-inverses of matrices (the last two axes), by LAPACK through NumPy.

Gradients of eigenvectors and singular vectors exist where the values are distinct, and are those of functions that don't
depend on the vectors' arbitrary signs or phases. Conventions and sources: `linear_algebra`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from .. import functions as F
from ..op import OPAQUE, ArrayType, Op, Sample, Vjp, register
from .base import real_dtype
from .linear_algebra import _DTYPES, _column, _diagonal_matrix, _expect, _h, _identity_like, _mm, _row, _t, matrix

__all__: list[str] = []


def _reciprocal_differences(x: Any) -> Any:
    """``1 / (x[j] - x[i])`` at row i and column j, 0 on the diagonal."""
    eye = _identity_like(x)
    return F.divide(F.subtract(1, eye), F.add(F.subtract(_row(x), _column(x)), eye))


# -- eigenvalues of Hermitian matrices

def _eigh_infer(x: ArrayType) -> tuple[ArrayType, ...]:
    _expect("eigh", "x", x, True)
    return ArrayType(x.shape[:-1], real_dtype(x.dtype)), x


def _eigh_eager(xp: Any, x: Any) -> tuple:
    return tuple(xp.linalg.eigh(x))


def _eigh_vjp(g0: Any, g1: Any, out0: Any, out1: Any) -> Any:
    """``V (diag(G_w) + F * (V^H G_V)) V^H``, its Hermitian part, with ``F[i,j] = 1/(w[j] - w[i])``."""
    w, v = out0, out1
    middle: Any = 0.0
    if g1 is not None:
        middle = F.multiply(_reciprocal_differences(w), _mm(_h(v), F.conj(g1)))
    if g0 is not None:
        middle = F.add(_diagonal_matrix(g0), middle)
    middle = F.astype(middle, v.dtype, copy=False)
    middle = F.multiply(0.5, F.add(middle, _h(middle)))
    return F.conj(_mm(v, middle, _h(v)))


def _hermitian(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    x = matrix(1, shape, dtype)
    return ((x + np.conj(np.swapaxes(x, -1, -2))) / 2 + np.diag(3.0 * np.arange(shape[-1]))).astype(dtype)


def _eigh_samples() -> Iterator[Sample]:
    for dtype in _DTYPES:
        for shape in ((3, 3), (2, 4, 4), (1, 1)):
            yield Sample((_hermitian(shape, dtype),), {}, None, differentiable=shape == (1, 1) and dtype == np.float64)


register(Op("eigh", ("x",), _eigh_infer, _eigh_eager, {"x": Vjp(_eigh_vjp)}, OPAQUE, _eigh_samples, results=2))


# -- eigenvalues of any square matrices

def _complex_of(dtype: np.dtype) -> np.dtype:
    return dtype if dtype.kind == "c" else np.dtype(f"complex{dtype.itemsize * 16}")


def _eig_infer(x: ArrayType) -> tuple[ArrayType, ...]:
    _expect("eig", "x", x, True)
    dtype = _complex_of(x.dtype)
    return ArrayType(x.shape[:-1], dtype), ArrayType(x.shape, dtype)


def _eig_eager(xp: Any, x: Any) -> tuple:
    values, vectors = xp.linalg.eig(x)
    dtype = _complex_of(x.dtype)
    return values.astype(dtype, copy=False), vectors.astype(dtype, copy=False)


def _eig_vjp(g0: Any, g1: Any, out0: Any, out1: Any, x_type: ArrayType) -> Any:
    """``V^-H (diag(G_w) + conj(F) * (V^H G_V - V^H V Re(diag(V^H G_V)))) V^H``: the vectors have length 1."""
    w, v = out0, out1
    middle: Any = None
    if g1 is not None:
        bar = _mm(_h(v), F.conj(g1))
        diagonal = F.real(F.multiply(bar, _identity_like(bar)))
        bar = F.subtract(bar, _mm(_mm(_h(v), v), F.astype(diagonal, v.dtype)))
        middle = F.multiply(F.conj(_reciprocal_differences(w)), bar)
    if g0 is not None:
        values = _diagonal_matrix(F.conj(g0))
        middle = values if middle is None else F.add(values, middle)
    out = F.conj(F.primitive("solve", _h(v), _mm(middle, _h(v))))
    return out if x_type.dtype.kind == "c" else F.real(out)


def _eig_samples() -> Iterator[Sample]:
    for dtype in _DTYPES:
        for shape in ((3, 3), (2, 4, 4)):
            x = matrix(1, shape, dtype) + np.diag(3.0 * np.arange(shape[-1]))
            yield Sample((x.astype(dtype),), {}, None, differentiable=False)
    yield Sample((np.array([[2.0]]),), {}, None)


register(Op("eig", ("x",), _eig_infer, _eig_eager, {"x": Vjp(_eig_vjp)}, OPAQUE, _eig_samples, results=2))


# -- singular values

def _svd_infer(x: ArrayType, *, full: bool) -> tuple[ArrayType, ...]:
    _expect("svd", "x", x)
    *lead, m, n = x.shape
    k = min(m, n)
    return (ArrayType((*lead, m, m if full else k), x.dtype), ArrayType((*lead, k), real_dtype(x.dtype)),
            ArrayType((*lead, n if full else k, n), x.dtype))


def _svd_eager(xp: Any, x: Any, *, full: bool) -> tuple:
    return tuple(xp.linalg.svd(x, full_matrices=full))


def _svd_vjp(g0: Any, g1: Any, g2: Any, out0: Any, out1: Any, out2: Any, full: bool) -> Any:
    """With x = U diag(s) V^H, E[i,j] = 1/(s[j]^2 - s[i]^2), A = U^H G_U, B = V^H G_V: the sum of
    ``U (diag(G_s) + (E * skew(A)) S + S (E * skew(B)) + diagonal phase) V^H``, ``(1 - U U^H) G_U S^-1 V^H`` and
    ``U S^-1 G_V^H (1 - V V^H)``, where skew(A) = A - A^H."""
    u, s, vh = out0, out1, out2
    m, k, n = u.shape[-2], s.shape[-1], vh.shape[-1]
    v = _h(vh)
    middle: Any = None
    out: Any = None
    if g1 is not None:
        middle = F.astype(_diagonal_matrix(g1), u.dtype, copy=False)
    if g0 is not None or g2 is not None:
        if full and m != n:
            raise ValueError("svd: gradients of the vectors exist for full_matrices=False only (the others are arbitrary)")
        gu = F.zeros_like(u) if g0 is None else F.conj(g0)
        gv = F.zeros_like(v) if g2 is None else _t(g2)
        a, b = _mm(_h(u), gu), _mm(vh, gv)
        e = F.astype(_reciprocal_differences(F.multiply(s, s)), u.dtype, copy=False)
        scale_columns, scale_rows = F.astype(_row(s), u.dtype, copy=False), F.astype(_column(s), u.dtype, copy=False)
        inner = F.add(F.multiply(F.multiply(e, F.subtract(a, _h(a))), scale_columns),
                      F.multiply(scale_rows, F.multiply(e, F.subtract(b, _h(b)))))
        if u.dtype.kind == "c":
            phase = F.multiply(F.imag(F.multiply(a, _identity_like(a))), 1j)
            inner = F.add(inner, F.divide(phase, scale_columns))
        middle = inner if middle is None else F.add(middle, inner)
        inverse = F.divide(1, s)
        if m > k and g0 is not None:
            out = _mm(F.subtract(gu, _mm(u, a)), F.multiply(F.astype(_column(inverse), u.dtype, copy=False), vh))
        if n > k and g2 is not None:
            part = _mm(F.multiply(u, F.astype(_row(inverse), u.dtype, copy=False)), _h(F.subtract(gv, _mm(v, b))))
            out = part if out is None else F.add(out, part)
    total = _mm(u[..., :, :k], middle, vh[..., :k, :])
    return F.conj(total if out is None else F.add(total, out))


def _svd_samples() -> Iterator[Sample]:
    for dtype in _DTYPES:
        for shape in ((3, 3), (4, 2), (2, 2, 3), (1, 1)):
            for full in (False, True):
                x = matrix(1, shape, dtype) + np.eye(*shape[-2:]) * (3.0 * np.arange(1, shape[-1] + 1))
                yield Sample((x.astype(dtype),), {"full": full}, None,
                             differentiable=shape == (1, 1) and dtype == np.float64)


register(Op("svd", ("x",), _svd_infer, _svd_eager, {"x": Vjp(_svd_vjp)}, OPAQUE, _svd_samples, results=3))


# -- the pseudo-inverse

def _pinv_infer(x: ArrayType, *, rcond: float) -> tuple[ArrayType, ...]:
    _expect("pinv", "x", x)
    return (ArrayType((*x.shape[:-2], x.shape[-1], x.shape[-2]), x.dtype),)


def _pinv_eager(xp: Any, x: Any, *, rcond: float) -> Any:
    if not x.size:
        return xp.zeros((*x.shape[:-2], x.shape[-1], x.shape[-2]), x.dtype)
    return xp.linalg.pinv(x, rcond)


def _pinv_vjp(g: Any, out: Any, x: Any) -> Any:
    """Golub and Pereyra: ``-P^H G P^H + (1 - A P) G^H P P^H + P^H P G^H (1 - P A)`` for P = pinv(A)."""
    a, p, bar = x, out, F.conj(g)
    bar_h, p_h = _h(bar), _h(p)
    first = F.negative(_mm(p_h, bar, p_h))
    second = F.subtract(bar_h, _mm(a, _mm(p, bar_h)))
    third = F.subtract(bar_h, _mm(_mm(bar_h, p), a))
    return F.conj(F.add(first, F.add(_mm(second, _mm(p, p_h)), _mm(_mm(p_h, p), third))))


def _pinv_samples() -> Iterator[Sample]:
    def check(x: np.ndarray, rcond: float) -> np.ndarray:
        h = np.conj(np.swapaxes(x, -1, -2))
        if x.shape[-2] >= x.shape[-1]:
            return np.linalg.solve(h @ x, h)
        return np.conj(np.swapaxes(np.linalg.solve(x @ h, x), -1, -2))

    for dtype in _DTYPES:
        for shape in ((3, 3), (4, 2), (2, 2, 3)):
            yield Sample((matrix(1, shape, dtype, 3.0),), {"rcond": 1e-6}, check, tolerance=20.0)


register(Op("pinv", ("x",), _pinv_infer, _pinv_eager, {"x": Vjp(_pinv_vjp)}, OPAQUE, _pinv_samples))
