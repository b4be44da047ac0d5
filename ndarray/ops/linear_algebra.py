"""Factorizations and solutions of systems of matrices (the last two axes), by LAPACK through NumPy and SciPy.

The gradient rules are written in public functions. Those of factorizations with conjugates in them are formulated for
the conjugated cotangent, which is the one of the literature; see `complex` for the convention here.

Sources: M. Giles, "Collected matrix derivative results for forward and reverse mode algorithmic differentiation" (2008);
G. Golub and V. Pereyra (1973) for the pseudo-inverse; S. Walter and L. Lehmann (2018) for the QR factorization.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from .. import functions as F
from ..op import OPAQUE, ArrayType, Op, Sample, Vjp, register
from .base import expect_same_dtype, fail, quiet, random_array, real_dtype, scipy_for

__all__: list[str] = []

_DTYPES = tuple(np.dtype(d) for d in ("float32", "float64", "complex64", "complex128"))


def _expect(name: str, argument: str, x: ArrayType, square: bool = False) -> None:
    if x.dtype not in _DTYPES:
        fail(name, f"dtype of {argument}", "float32, float64, complex64 or complex128", x.dtype, TypeError)
    if len(x.shape) < 2 or (square and x.shape[-1] != x.shape[-2]):
        fail(name, argument, "square matrices in the last two axes" if square else "matrices in the last two axes",
             f"shape {x.shape}")


def _same(name: str, square: bool = True) -> Callable:
    def infer(x: ArrayType, **attrs: Any) -> tuple[ArrayType, ...]:
        _expect(name, "x", x, square)
        return (x,)

    return infer


def _t(x: Any) -> Any:
    """The transpose."""
    return F.swapaxes(x, -1, -2)


def _h(x: Any) -> Any:
    """The conjugate transpose."""
    return F.conj(F.swapaxes(x, -1, -2))


def _mm(*factors: Any) -> Any:
    out = factors[0]
    for f in factors[1:]:
        out = F.matmul(out, f)
    return out


def _column(x: Any) -> Any:
    return F.expand_dims(x, -1)


def _row(x: Any) -> Any:
    return F.expand_dims(x, -2)


def _diagonal_matrix(x: Any) -> Any:
    """Matrices with the vectors of the last axis as diagonals."""
    return F.multiply(_column(x), F.eye(x.shape[-1], dtype=x.dtype, device=x.device))


def _identity_like(x: Any, n: int | None = None) -> Any:
    return F.eye(x.shape[-1] if n is None else n, dtype=x.dtype, device=x.device)


def matrix(seed: int, shape: tuple[int, ...], dtype: Any, diagonal: float = 0.0) -> np.ndarray:
    """Random matrices of a real or complex dtype, a number added along the diagonal."""
    dtype = np.dtype(dtype)
    out = random_array(seed, shape, real_dtype(dtype))
    if dtype.kind == "c":
        out = out + 1j * random_array(seed + 100, shape, real_dtype(dtype))
    return (out + diagonal * np.eye(shape[-2], shape[-1])).astype(dtype)


_SQUARE: tuple[tuple[int, ...], ...] = ((3, 3), (2, 4, 4), (1, 1), (2, 0, 3, 3))


# -- systems of equations

def _solve_infer(a: ArrayType, b: ArrayType) -> tuple[ArrayType, ...]:
    _expect("solve", "a", a, True)
    _expect("solve", "b", b)
    expect_same_dtype("solve", "ab", (a, b))
    if a.shape[:-2] != b.shape[:-2] or a.shape[-1] != b.shape[-2]:
        fail("solve", "b", f"leading axes {a.shape[:-2]} and {a.shape[-1]} rows, as a of shape {a.shape}", f"shape {b.shape}")
    return (b,)


def _solve_samples() -> Iterator[Sample]:
    def check(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        out = np.linalg.inv(a.astype(np.complex128)) @ b
        return (out if b.dtype.kind == "c" else out.real).astype(b.dtype)

    for dtype in _DTYPES:
        for shape in _SQUARE:
            b = matrix(2, (*shape[:-1], 2), dtype)
            yield Sample((matrix(1, shape, dtype, 5.0), b), {}, check, tolerance=10.0)


def _solve_a(g: Any, a: Any, out: Any) -> Any:
    return F.negative(_mm(F.primitive("solve", _t(a), g), _t(out)))


register(Op("solve", ("a", "b"), _solve_infer, lambda xp, a, b: xp.linalg.solve(a, b),
            {"a": Vjp(_solve_a), "b": Vjp(lambda g, a: F.primitive("solve", _t(a), g))}, OPAQUE, _solve_samples))


def _triangular_infer(a: ArrayType, b: ArrayType, *, lower: bool, unit: bool) -> tuple[ArrayType, ...]:
    return _solve_infer(a, b)


def _triangular_eager(xp: Any, a: Any, b: Any, *, lower: bool, unit: bool) -> Any:
    if xp is not np:
        solve = scipy_for(xp, "linalg").solve_triangular
        return solve(a, b, lower=lower, unit_diagonal=unit, check_finite=False) if b.size else b.copy()
    from scipy.linalg import solve_triangular

    out = np.empty(b.shape, b.dtype)
    for at in np.ndindex(b.shape[:-2]):
        out[at] = solve_triangular(a[at], b[at], lower=lower, unit_diagonal=unit, check_finite=False)
    return out


def _triangle(x: Any, lower: bool, unit: bool) -> Any:
    return F.tril(x, -1 if unit else 0) if lower else F.triu(x, 1 if unit else 0)


def _triangular_b(g: Any, a: Any, lower: bool, unit: bool) -> Any:
    return F.primitive("triangular_solve", _t(a), g, lower=not lower, unit=unit)


def _triangular_a(g: Any, a: Any, out: Any, lower: bool, unit: bool) -> Any:
    return _triangle(F.negative(_mm(_triangular_b(g, a, lower, unit), _t(out))), lower, unit)


def _triangular_samples() -> Iterator[Sample]:
    def check(a: np.ndarray, b: np.ndarray, lower: bool, unit: bool) -> np.ndarray:
        k = 1 if unit else 0
        used = np.tril(a, -k) if lower else np.triu(a, k)
        return np.linalg.solve(used + k * np.eye(a.shape[-1], dtype=a.dtype), b)

    for dtype in _DTYPES:
        for shape in ((3, 3), (2, 4, 4)):
            for lower in (False, True):
                for unit in (False, True):
                    arrays = matrix(1, shape, dtype, 4.0), matrix(2, (*shape[:-1], 2), dtype)
                    yield Sample(arrays, {"lower": lower, "unit": unit}, check, tolerance=10.0)


register(Op("triangular_solve", ("a", "b"), _triangular_infer, _triangular_eager,
            {"a": Vjp(_triangular_a), "b": Vjp(_triangular_b)}, OPAQUE, _triangular_samples))


def _square_samples(reference: Callable, make: Callable, tolerance: float = 10.0, **attrs: Any) -> Callable:
    def samples() -> Iterator[Sample]:
        for dtype in _DTYPES:
            for shape in _SQUARE:
                yield Sample((make(shape, dtype),), attrs, reference, tolerance=tolerance)

    return samples


def _well(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    return matrix(1, shape, dtype, 5.0)


def _inverse_vjp(g: Any, out: Any) -> Any:
    return F.negative(_mm(_t(out), g, _t(out)))


register(Op("inverse", ("x",), _same("inverse"), lambda xp, x: xp.linalg.inv(x), {"x": Vjp(_inverse_vjp)}, OPAQUE,
            _square_samples(lambda x: np.linalg.solve(x, np.broadcast_to(np.eye(x.shape[-1], dtype=x.dtype), x.shape)), _well)))


# -- determinants

def _det_infer(x: ArrayType) -> tuple[ArrayType, ...]:
    _expect("det", "x", x, True)
    return (ArrayType(x.shape[:-2], x.dtype),)


def _det_vjp(g: Any, x: Any) -> Any:
    return F.multiply(_column(_column(g)), F.primitive("cofactor", x))


def _det_reference(x: np.ndarray) -> np.ndarray:
    return np.asarray(np.prod(np.linalg.eigvals(x), axis=-1) if x.dtype.kind == "c" else np.prod(
        np.linalg.eigvals(x.astype(complex)), axis=-1).real).astype(x.dtype)


register(Op("det", ("x",), _det_infer, quiet(lambda xp, x: xp.linalg.det(x)), {"x": Vjp(_det_vjp)}, OPAQUE,
            _square_samples(_det_reference, _well)))


def _cofactor_eager(xp: Any, x: Any) -> Any:
    """``det(x) inv(x)^T``, which exists for singular matrices too: with x = U diag(s) V, it is
    ``conj(det(U) det(V)) conj(U) diag(products of the other s) conj(V)``."""
    n = x.shape[-1]
    u, s, v = xp.linalg.svd(x)
    before = xp.concatenate([xp.ones_like(s[..., :1]), xp.cumprod(s, -1)[..., : n - 1]], -1) if n else s
    behind = xp.flip(xp.concatenate([xp.ones_like(s[..., :1]), xp.cumprod(xp.flip(s, -1), -1)[..., : n - 1]], -1), -1) if n else s
    phase = xp.linalg.det(u) * xp.linalg.det(v)
    return (phase[..., None, None] * ((xp.conj(u) * (before * behind)[..., None, :]) @ xp.conj(v))).astype(x.dtype, copy=False)


def _cofactor_vjp(g: Any, x: Any, out: Any) -> Any:
    """Of ``det(x) inv(x)^T``; for regular matrices."""
    inverse_t = _t(F.primitive("inverse", x))
    total = F.sum(F.multiply(g, out), axis=(-2, -1), keepdims=True)
    return F.subtract(F.multiply(total, inverse_t), _mm(out, _t(g), inverse_t))


register(Op("cofactor", ("x",), _same("cofactor"), _cofactor_eager, {"x": Vjp(_cofactor_vjp)}, OPAQUE,
            _square_samples(lambda x: (np.linalg.det(x)[..., None, None] * np.swapaxes(np.linalg.inv(x), -1, -2)).astype(x.dtype),
                            _well, 20.0)))


def _slogdet_infer(x: ArrayType) -> tuple[ArrayType, ...]:
    _expect("slogdet", "x", x, True)
    return ArrayType(x.shape[:-2], x.dtype), ArrayType(x.shape[:-2], real_dtype(x.dtype))


def _slogdet_eager(xp: Any, x: Any) -> tuple:
    sign, logarithm = xp.linalg.slogdet(x)
    return xp.asarray(sign), xp.asarray(logarithm)


def _slogdet_vjp(g0: Any, g1: Any, out0: Any, x: Any) -> Any:
    """The logarithm's part is inv(x)^T; the sign of a complex determinant turns with its phase."""
    weight = g1
    if g0 is not None and x.dtype.kind == "c":
        turn = F.multiply(F.real(F.multiply(F.multiply(g0, out0), 1j)), -1j)
        weight = turn if weight is None else F.add(weight, turn)
    if weight is None:
        return None
    return F.multiply(_column(_column(weight)), _t(F.primitive("inverse", x)))


def _slogdet_reference(x: np.ndarray) -> tuple:
    det = np.asarray(np.linalg.det(x))
    return (det / np.abs(det)).astype(x.dtype), np.log(np.abs(det)).astype(real_dtype(x.dtype))


register(Op("slogdet", ("x",), _slogdet_infer, quiet(_slogdet_eager), {"x": Vjp(_slogdet_vjp)}, OPAQUE,
            _square_samples(_slogdet_reference, _well), results=2))


# -- Cholesky

def _phi(x: Any) -> Any:
    """The lower triangle, half of the diagonal."""
    return F.subtract(F.tril(x), F.multiply(0.5, F.multiply(x, _identity_like(x))))


def _cholesky_vjp(g: Any, out: Any) -> Any:
    """With P the lower triangle (half of the diagonal) of L^H G: ``L^-H (P + P^H)/2 L^-1``."""
    bar = F.conj(g)
    middle = _phi(_mm(_h(out), bar))
    half = F.multiply(0.5, F.add(middle, _h(middle)))
    solve = lambda b: F.primitive("triangular_solve", _h(out), b, lower=False, unit=False)
    return F.conj(_h(solve(_h(solve(half)))))


def _positive(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    x = matrix(1, shape, dtype)
    return (x @ np.conj(np.swapaxes(x, -1, -2)) + 2 * np.eye(shape[-1])).astype(dtype)


def _cholesky_reference(x: np.ndarray) -> np.ndarray:
    out = np.zeros(x.shape, np.complex128)
    for at in np.ndindex(x.shape[:-2]):
        for j in range(x.shape[-1]):
            for i in range(j, x.shape[-1]):
                rest = x[at][i, j] - out[at][i, :j] @ np.conj(out[at][j, :j])
                out[at][i, j] = np.sqrt(rest) if i == j else rest / out[at][j, j]
    return (out if x.dtype.kind == "c" else out.real).astype(x.dtype)


def _cholesky_samples() -> Iterator[Sample]:
    """Only Hermitian directions mean something, so gradients are checked elsewhere."""
    for s in _square_samples(_cholesky_reference, _positive)():
        yield Sample(s.arrays, s.attrs, s.reference, tolerance=s.tolerance, differentiable=s.arrays[0].shape == (1, 1)
                     and s.arrays[0].dtype == np.float64)


register(Op("cholesky", ("x",), _same("cholesky"), lambda xp, x: xp.linalg.cholesky(x), {"x": Vjp(_cholesky_vjp)}, OPAQUE,
            _cholesky_samples))


# -- QR

def _qr_infer(x: ArrayType, *, complete: bool) -> tuple[ArrayType, ...]:
    _expect("qr", "x", x)
    m, n = x.shape[-2:]
    k = m if complete else min(m, n)
    return ArrayType((*x.shape[:-2], m, k), x.dtype), ArrayType((*x.shape[:-2], k, n), x.dtype)


def _qr_eager(xp: Any, x: Any, *, complete: bool) -> tuple:
    return tuple(xp.linalg.qr(x, mode="complete" if complete else "reduced"))


def _qr_vjp(g0: Any, g1: Any, out0: Any, out1: Any, complete: bool) -> Any:
    """For m >= n: ``(G_Q + Q copyltu(M)) R^-H`` with ``M = R G_R^H - G_Q^H Q``; for m < n the columns beyond the m-th are
    ``Q^H x``, whose cotangents are carried over to Q."""
    q, r = out0, out1
    m, n = q.shape[-2], r.shape[-1]
    if q.shape[-1] > min(m, n):
        raise ValueError("qr: gradients exist for mode='reduced' only (the other columns of Q are arbitrary)")
    gq = F.zeros_like(q) if g0 is None else F.conj(g0)
    gr = F.zeros_like(r) if g1 is None else F.conj(g1)
    rest = None
    if m < n:  # x = [a, b], a = q u, b = q v
        v, gv = r[..., :, m:], gr[..., :, m:]
        b = _mm(q, v)
        gq = F.add(gq, _mm(b, _h(gv)))
        rest = _mm(q, gv)
        r, gr = r[..., :, :m], gr[..., :, :m]
    middle = F.subtract(_mm(r, _h(gr)), _mm(_h(gq), q))
    below = F.tril(middle, -1)
    symmetric = F.add(F.add(below, _h(below)), F.multiply(F.real(middle), _identity_like(middle)))
    left = F.add(gq, _mm(q, symmetric))
    out = _h(F.primitive("triangular_solve", r, _h(left), lower=False, unit=False))
    if rest is not None:
        out = F.concatenate([out, rest], axis=-1)
    return F.conj(out)


def _qr_reference(x: np.ndarray, complete: bool) -> tuple:
    """By SciPy, one matrix at a time; the same LAPACK routine, another way to it."""
    import scipy.linalg

    (q, r) = _qr_infer(ArrayType(x.shape, x.dtype), complete=complete)
    qs, rs = np.zeros(q.shape, x.dtype), np.zeros(r.shape, x.dtype)
    for at in np.ndindex(x.shape[:-2]):
        qs[at], rs[at] = scipy.linalg.qr(x[at], mode="full" if complete else "economic")
    return qs, rs


def _qr_samples() -> Iterator[Sample]:
    for dtype in _DTYPES:
        for shape in ((3, 3), (4, 2), (2, 4, 3), (2, 4), (2, 2, 3)):
            for complete in (False, True):
                yield Sample((matrix(1, shape, dtype),), {"complete": complete}, _qr_reference, tolerance=10.0,
                             differentiable=not complete)


register(Op("qr", ("x",), _qr_infer, _qr_eager, {"x": Vjp(_qr_vjp)}, OPAQUE, _qr_samples, results=2))
