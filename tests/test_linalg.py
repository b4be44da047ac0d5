"""nd.linalg against NumPy, and its gradients against differences; MXNet's names against their definitions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.linalg

import ndarray as nd
from ndarray import autograd, linalg
from ndarray.testing import assert_close, check_gradients

rng = np.random.default_rng(11)
REAL = rng.standard_normal((2, 4, 4)) + 3 * np.eye(4)
COMPLEX = REAL + 1j * rng.standard_normal((2, 4, 4))
TALL, WIDE = rng.standard_normal((2, 5, 3)), rng.standard_normal((2, 3, 5))
POSITIVE = REAL @ np.swapaxes(REAL, -1, -2) + np.eye(4)
VECTORS = rng.standard_normal((2, 4, 2))


def n(x: Any, dtype: Any = None) -> nd.NDArray:
    return nd.array(x, dtype=np.asarray(x).dtype if dtype is None else dtype)


def hermitian(x: Any) -> Any:
    return (x + linalg.matrix_transpose(nd.conj(x))) / 2


# name -> (function of arrays, the same in NumPy, arrays)
CASES: dict[str, tuple[Callable, Callable, tuple]] = {
    "solve": (linalg.solve, np.linalg.solve, (REAL, VECTORS)),
    "solve vector": (linalg.solve, lambda a, b: np.linalg.solve(a, np.broadcast_to(b, (2, 4))[..., None])[..., 0],
                     (REAL, rng.standard_normal(4))),
    "solve broadcast": (linalg.solve, np.linalg.solve, (REAL[0], VECTORS)),
    "solve complex": (linalg.solve, np.linalg.solve, (COMPLEX, VECTORS + 0j)),
    "inv": (linalg.inv, np.linalg.inv, (REAL,)),
    "inv complex": (linalg.inv, np.linalg.inv, (COMPLEX,)),
    "det": (linalg.det, np.linalg.det, (REAL,)),
    "det complex": (linalg.det, np.linalg.det, (COMPLEX,)),
    "slogdet": (linalg.slogdet, np.linalg.slogdet, (REAL,)),
    "slogdet complex": (linalg.slogdet, np.linalg.slogdet, (COMPLEX,)),
    "cholesky": (lambda x: linalg.cholesky(hermitian(x)), lambda x: np.linalg.cholesky((x + np.swapaxes(x, -1, -2)) / 2),
                 (POSITIVE,)),
    "cholesky upper": (lambda x: linalg.cholesky(hermitian(x), upper=True),
                       lambda x: np.swapaxes(np.linalg.cholesky((x + np.swapaxes(x, -1, -2)) / 2), -1, -2), (POSITIVE,)),
    "qr": (linalg.qr, np.linalg.qr, (REAL,)),
    "qr tall": (linalg.qr, np.linalg.qr, (TALL,)),
    "qr wide": (linalg.qr, np.linalg.qr, (WIDE,)),
    "qr r": (lambda x: linalg.qr(x, mode="r"), lambda x: np.linalg.qr(x, "r"), (TALL,)),
    "svdvals": (linalg.svdvals, lambda x: np.linalg.svd(x, compute_uv=False), (TALL,)),
    "svd no vectors": (lambda x: linalg.svd(x, compute_uv=False), lambda x: np.linalg.svd(x, compute_uv=False), (WIDE,)),
    "eigvalsh": (lambda x: linalg.eigvalsh(hermitian(x)),
                 lambda x: np.linalg.eigvalsh((x + np.swapaxes(x, -1, -2)) / 2), (REAL,)),
    "pinv": (linalg.pinv, np.linalg.pinv, (TALL,)),
    "pinv wide": (linalg.pinv, np.linalg.pinv, (WIDE,)),
    "pinv complex": (linalg.pinv, np.linalg.pinv, (TALL + 1j * TALL[::-1],)),
    "lstsq": (lambda a, b: linalg.lstsq(a, b)[:2], lambda a, b: np.linalg.lstsq(a, b)[:2],
              (TALL[0], rng.standard_normal((5, 2)))),
    "lstsq vector": (lambda a, b: linalg.lstsq(a, b)[:2], lambda a, b: np.linalg.lstsq(a, b)[:2],
                     (TALL[0], rng.standard_normal(5))),
    "matrix_power": (lambda x: linalg.matrix_power(x, 5), lambda x: np.linalg.matrix_power(x, 5), (REAL / 4,)),
    "matrix_power negative": (lambda x: linalg.matrix_power(x, -3), lambda x: np.linalg.matrix_power(x, -3), (REAL,)),
    "norm": (linalg.norm, np.linalg.norm, (REAL,)),
    "cond": (linalg.cond, np.linalg.cond, (REAL,)),
    "cond 1": (lambda x: linalg.cond(x, 1), lambda x: np.linalg.cond(x, 1), (REAL,)),
    "trace": (lambda x: linalg.trace(x, offset=1), lambda x: np.trace(x, 1, -2, -1), (REAL,)),
    "diagonal": (lambda x: linalg.diagonal(x, offset=-1), lambda x: np.diagonal(x, -1, -2, -1), (REAL,)),
    "multi_dot": (lambda *m: linalg.multi_dot(m), lambda *m: np.linalg.multi_dot(m), (TALL[0], WIDE[0], TALL[1], WIDE[1][:, 0])),
    "tensorsolve": (linalg.tensorsolve, np.linalg.tensorsolve, (rng.standard_normal((2, 3, 6)), rng.standard_normal((2, 3)))),
    "tensorinv": (lambda x: linalg.tensorinv(x, 1), lambda x: np.linalg.tensorinv(x, 1), (rng.standard_normal((6, 2, 3)),)),
    "cross": (linalg.cross, np.cross, (WIDE[:, :, :3], TALL[0, 0])),
    "outer": (linalg.outer, np.outer, (TALL[0, 0], WIDE[0, 0])),
}
for _ord in (1, -1, 2, -2, np.inf, -np.inf, "fro", "nuc"):
    CASES[f"matrix_norm {_ord}"] = (
        lambda x, o=_ord: linalg.matrix_norm(x, ord=o), lambda x, o=_ord: np.linalg.norm(x, o, (-2, -1)), (TALL,))
for _ord in (1, 2, 3, 0.5, -1, np.inf, -np.inf):
    CASES[f"vector_norm {_ord}"] = (
        lambda x, o=_ord: linalg.vector_norm(x, axis=1, ord=o), lambda x, o=_ord: np.linalg.norm(x, o, 1), (TALL,))


@pytest.mark.parametrize("name", sorted(CASES))
def test_values_and_gradients(name: str) -> None:
    function, reference, arrays = CASES[name]
    found, want = function(*(n(a) for a in arrays)), reference(*arrays)
    assert_close(list(found) if isinstance(found, tuple) else found, list(want) if isinstance(want, tuple) else want, 10, name)
    check_gradients(function, arrays, limit=3e-5)


@pytest.mark.parametrize("name", sorted(k for k in CASES if "complex" not in k))
def test_single_precision(name: str) -> None:
    function, reference, arrays = CASES[name]
    singles = [a.astype(np.float32) for a in arrays]
    found, want = function(*(n(a) for a in singles)), reference(*arrays)
    found, want = (list(v) if isinstance(v, tuple) else [v] for v in (found, want))
    for f, w in zip(found, want, strict=True):
        assert f.dtype == np.float32
        assert_close(f, np.asarray(w).astype(np.float32), 100, name)


@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
def test_gradients_of_vectors(dtype: Any) -> None:
    """Functions that do not depend on the arbitrary signs or phases of singular vectors and eigenvectors."""
    x = (COMPLEX if dtype == np.complex128 else REAL).astype(dtype)
    weights = n(rng.standard_normal((4, 4)).astype(dtype))
    apart = n(np.diag([0.0, 4.0, 9.0, 15.0]).astype(dtype))
    transposed = lambda v: nd.conj(linalg.matrix_transpose(v))

    def from_eigh(x: Any) -> Any:
        values, vectors = linalg.eigh(hermitian(x) + apart)
        again = nd.matmul(vectors * nd.expand_dims(values, -2), transposed(vectors))
        return values, nd.abs(nd.matmul(transposed(vectors), weights)), again

    def from_svd(x: Any) -> Any:
        u, s, vh = linalg.svd(x + apart, full_matrices=False)
        first = u[..., :, :2]
        return s, nd.matmul(u * nd.exp(nd.expand_dims(s, -2) / 10), vh), nd.abs(nd.matmul(first, transposed(first)))

    def from_eig(x: Any) -> Any:
        values, vectors = linalg.eig(x + apart)
        return nd.sum(values * values, -1), nd.abs(vectors)

    check_gradients(from_eigh, [x], limit=3e-5)
    check_gradients(from_svd, [x], limit=3e-5)
    check_gradients(from_eig, [x], order=1, limit=1e-4)
    if dtype == np.complex128:
        positive = x @ np.conj(np.swapaxes(x, -1, -2)) + np.eye(4)
        check_gradients(lambda p: linalg.cholesky(hermitian(p)), [positive], limit=3e-5)
        check_gradients(linalg.qr, [x[:, :, :3]], limit=3e-5)


@pytest.mark.parametrize("shape", [(5, 3), (3, 5)])
def test_gradients_of_thin_factors(shape: tuple) -> None:
    def product(x: Any) -> Any:
        u, s, vh = linalg.svd(x, full_matrices=False)
        return nd.matmul(u * nd.tanh(s), vh)

    check_gradients(product, [rng.standard_normal(shape)], limit=3e-5)
    check_gradients(product, [rng.standard_normal(shape) + 1j * rng.standard_normal(shape)], limit=3e-5)


def test_factors_rebuild() -> None:
    for x in (TALL, WIDE, REAL, COMPLEX):
        u, s, vh = linalg.svd(n(x))
        k = s.shape[-1]
        assert_close(nd.matmul(u[..., :, :k] * nd.expand_dims(s, -2), vh[..., :k, :]), x, 10)
        assert u.shape == (2, x.shape[1], x.shape[1]) and vh.shape == (2, x.shape[2], x.shape[2])
        q, r = linalg.qr(n(x), mode="complete")
        assert_close(nd.matmul(q, r), x, 10)
    values, vectors = linalg.eig(n(REAL))
    assert values.dtype == np.complex128
    assert_close(nd.matmul(n(REAL + 0j), vectors), vectors * nd.expand_dims(values, -2), 10)


def test_determinant_of_singular_matrices_has_a_gradient() -> None:
    x = n(np.array([[1.0, 2.0], [2.0, 4.0]]))
    x.attach_grad()
    with autograd.record():
        d = linalg.det(x)
    d.backward()
    assert_close(x.grad, [[4.0, -2.0], [-2.0, 1.0]])
    sign, logarithm = linalg.slogdet(n(np.zeros((2, 2))))
    assert (sign.item(), logarithm.item()) == (0.0, -np.inf)


def test_ranks() -> None:
    x = np.stack([np.outer([1.0, 2, 3], [1.0, 0, 1]), np.eye(3)])
    assert linalg.matrix_rank(n(x)).tolist() == [1, 3]
    assert linalg.matrix_rank(n(x), rtol=nd.array([1e-6, 2.0])).tolist() == [1, 0]
    assert_close(linalg.pinv(n(x[0]), rtol=1e-10), np.linalg.pinv(x[0]))
    assert_close(linalg.pinv(n(x), rtol=nd.array([1e-10, 1e-10])), np.linalg.pinv(x))
    solution, residuals, rank, singular = linalg.lstsq(n(x[0]), n(np.ones(3)))
    want = np.linalg.lstsq(x[0], np.ones(3), rcond=None)
    assert_close(solution, want[0])
    assert residuals.shape == (0,) and rank.item() == 1
    assert_close(singular, want[3], 10)


def test_triangular_systems() -> None:
    for lower in (False, True):
        for trans in (False, True):
            for unit in (False, True):
                found = linalg.solve_triangular(n(REAL), n(VECTORS), lower=lower, trans=trans, unit_diagonal=unit)
                want = np.stack([scipy.linalg.solve_triangular(a, b, trans=int(trans), lower=lower, unit_diagonal=unit)
                                 for a, b in zip(REAL, VECTORS)])
                assert_close(found, want, 10)


def test_mxnet_names() -> None:
    a, b, c = rng.standard_normal((2, 3, 4)), rng.standard_normal((2, 3, 5)), rng.standard_normal((2, 4, 5))
    assert_close(linalg.gemm(n(a), n(b), n(c), transpose_a=True, alpha=2.0, beta=0.5), 2 * np.swapaxes(a, 1, 2) @ b + 0.5 * c)
    assert_close(linalg.gemm2(n(a), n(c), alpha=3.0), 3 * a @ c)
    assert_close(linalg.gemm2(n(a.transpose(1, 0, 2)), n(c.transpose(1, 0, 2)), axis=0), (a @ c).transpose(1, 0, 2))
    factor = np.linalg.cholesky(POSITIVE)
    assert_close(linalg.potrf(n(POSITIVE)), factor)
    assert_close(linalg.potrf(n(POSITIVE), lower=False), np.swapaxes(factor, -1, -2))
    assert_close(linalg.potri(n(factor)), np.linalg.inv(POSITIVE), 10)
    assert_close(linalg.potri(n(np.swapaxes(factor, -1, -2)), lower=False), np.linalg.inv(POSITIVE), 10)
    for transpose in (False, True):
        for right in (False, True):
            for lower in (False, True):
                used = np.tril(REAL) if lower else np.triu(REAL)
                used = np.swapaxes(used, -1, -2) if transpose else used
                b = np.swapaxes(VECTORS, -1, -2) if right else VECTORS
                options = {"transpose": transpose, "rightside": right, "lower": lower, "alpha": 2.0}
                product = linalg.trmm(n(REAL), n(b), **options)
                assert_close(product, 2 * (b @ used if right else used @ b))
                again = linalg.trsm(n(REAL), product, **options)
                assert_close(again, 4 * b, 10)
    assert_close(linalg.syrk(n(a)), a @ np.swapaxes(a, 1, 2))
    assert_close(linalg.syrk(n(a), transpose=True, alpha=2.0), 2 * np.swapaxes(a, 1, 2) @ a)
    assert_close(linalg.sumlogdiag(n(POSITIVE)), np.log(np.diagonal(POSITIVE, 0, 1, 2)).sum(-1))
    lower, q = linalg.gelqf(n(a))[::-1]
    assert_close(nd.matmul(lower, q), a, 10)
    assert_close(nd.matmul(q, nd.swapaxes(q, -1, -2)), np.broadcast_to(np.eye(3), (2, 3, 3)), 10)
    u, values = linalg.syevd(n(POSITIVE))
    assert_close(nd.matmul(nd.swapaxes(u, -1, -2), nd.expand_dims(values, -1) * u), POSITIVE, 10)
    assert_close(linalg.inverse(n(REAL)), np.linalg.inv(REAL), 10)


@pytest.mark.parametrize("offset", [-2, -1, 0, 1, 2])
@pytest.mark.parametrize("lower", [False, True])
def test_diagonals_and_triangles(offset: int, lower: bool) -> None:
    line = rng.standard_normal((2, 3))
    made = linalg.makediag(n(line), offset=offset)
    assert_close(made, np.stack([np.diag(v, offset) for v in line]))
    assert_close(linalg.extractdiag(made, offset=offset), line)
    taken = linalg.extracttrian(n(REAL), offset=offset, lower=lower)
    keep = np.tril if offset < 0 or (offset == 0 and lower) else np.triu
    assert_close(linalg.maketrian(taken, offset=offset, lower=lower), keep(REAL, offset))
    check_gradients(lambda x: linalg.maketrian(linalg.extracttrian(x, offset, lower), offset, lower), [REAL])


def test_integers_half_precision_and_errors() -> None:
    assert linalg.inv(nd.array([[2, 0], [0, 4]])).dtype == np.float32
    assert linalg.det(nd.ones((2, 2), dtype="float16")).dtype == np.float16
    assert linalg.matrix_power(nd.array([[1, 1], [0, 1]]), 3).tolist() == [[1, 3], [0, 1]]
    with pytest.raises(linalg.LinAlgError):
        linalg.solve(nd.zeros((2, 2)), nd.ones(2))
    with pytest.raises(ValueError, match=r"inv: x: expected square matrices .* got shape \(2, 3\)"):
        linalg.inv(nd.ones((2, 3)))
    with pytest.raises(ValueError, match="solve: x2: expected 2 rows"):
        linalg.solve(nd.eye(2), nd.ones(3))
    with pytest.raises(ValueError, match="qr: mode"):
        linalg.qr(nd.eye(2), mode="full")
    x = nd.ones((3, 2))
    x.attach_grad()
    with autograd.record():
        y = linalg.svd(x)[0].sum()
    with pytest.raises(ValueError, match="full_matrices=False"):
        y.backward()
