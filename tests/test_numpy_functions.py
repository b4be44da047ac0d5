"""The functions that NumPy's users know, against NumPy: values, gradients to second order, and traced programs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import hybrid
import ndarray as nd
from ndarray.testing import assert_close, check_gradients

rng = np.random.default_rng(5)
X = rng.standard_normal((3, 4, 5))
V = rng.standard_normal(9)
W = rng.standard_normal(4)
M = rng.standard_normal((4, 6))
N = np.where(rng.random((4, 6)) < 0.3, np.nan, M)
K = rng.integers(-4, 9, (3, 4, 5))


def n(x: Any) -> nd.NDArray:
    return nd.array(x, dtype=np.asarray(x).dtype)


Row = tuple[Callable, Callable, tuple]


def same(name: str, *arrays: Any, **options: Any) -> Row:
    """The function of one name in both, with the same options."""
    return (lambda *a: getattr(nd, name)(*a, **options)), (lambda *a: getattr(np, name)(*a, **options)), arrays


SMOOTH: dict[str, Row] = {
    "cumsum": same("cumsum", X, axis=1), "cumsum flat": same("cumsum", X), "cumprod": same("cumprod", X, axis=2),
    "cumprod zeros": same("cumprod", np.array([1.0, 0.0, 2.0, 0.0, 3.0])),
    "median": same("median", X, axis=1), "median all": same("median", X), "median axes": same("median", X, axis=(0, 2)),
    "quantile": (lambda x: nd.quantile(x, [0.1, 0.5, 0.9], axis=1), lambda x: np.quantile(x, [0.1, 0.5, 0.9], axis=1), (X,)),
    "quantile keepdims": (lambda x: nd.quantile(x, 0.35, (0, 1), keepdims=True),
                          lambda x: np.quantile(x, 0.35, (0, 1), keepdims=True), (X,)),
    "percentile": (lambda x: nd.percentile(x, 40.0), lambda x: np.percentile(x, 40.0), (X,)),
    **{f"quantile {m}": (lambda x, m=m: nd.quantile(x, [0.2, 0.77], 0, method=m),
                         lambda x, m=m: np.quantile(x, [0.2, 0.77], 0, method=m), (X,))
       for m in ("lower", "higher", "nearest", "midpoint")},
    "diff": same("diff", X, n=2, axis=0), "diff append": (lambda x: nd.diff(x, axis=1, prepend=0.5, append=x[:, :1]),
                                                          lambda x: np.diff(x, axis=1, prepend=0.5, append=x[:, :1]), (X,)),
    "ediff1d": (lambda x: nd.ediff1d(x, 1.0, 2.0), lambda x: np.ediff1d(x, 1.0, 2.0), (X,)),
    "trapezoid": same("trapezoid", X, axis=1), "trapezoid dx": same("trapezoid", X, dx=0.3),
    "trapezoid x": (lambda y, x: nd.trapezoid(y, x, axis=1), lambda y, x: np.trapezoid(y, x, axis=1), (X, np.sort(W))),
    "gradient": same("gradient", M), "gradient axis": same("gradient", X, axis=1, edge_order=2),
    "gradient step": (lambda x: nd.gradient(x, 0.5, 2.0, axis=(0, 1)), lambda x: np.gradient(x, 0.5, 2.0, axis=(0, 1)), (M,)),
    "gradient positions": (lambda x, p: nd.gradient(x, p, axis=0, edge_order=2),
                           lambda x, p: np.gradient(x, p, axis=0, edge_order=2), (M, np.cumsum(np.abs(W) + 0.1))),
    "interp": (nd.interp, np.interp, (V * 2, np.sort(W), W)),
    "interp ends": (lambda x, xp, fp: nd.interp(x, xp, fp, left=-1.0, right=7.0),
                    lambda x, xp, fp: np.interp(x, xp, fp, left=-1.0, right=7.0), (V * 2, np.sort(W), W)),
    "interp period": (lambda x, xp, fp: nd.interp(x, xp, fp, period=3.0), lambda x, xp, fp: np.interp(x, xp, fp, period=3.0),
                      (V * 2, W, V[:4])),
    **{f"convolve {m}": same("convolve", V, W, mode=m) for m in ("full", "same", "valid")},
    **{f"convolve swapped {m}": same("convolve", W, V, mode=m) for m in ("full", "same", "valid")},
    **{f"correlate {m}": same("correlate", V, W, mode=m) for m in ("full", "same", "valid")},
    **{f"correlate swapped {m}": same("correlate", W, V, mode=m) for m in ("full", "same", "valid")},
    "unwrap": same("unwrap", X * 5, axis=1), "unwrap period": same("unwrap", V * 5, period=4.0),
    "polyval": same("polyval", W, V), "vander": same("vander", W, N=3), "vander increasing": same("vander", W, increasing=True),
    "kron": same("kron", M, W), "kron deep": same("kron", X, M), "cross": same("cross", X[:, :, :3], M[0, :3]),
    "cross 2": (nd.cross, lambda a, b: a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0], (M[:, :2], M[:, 2:4])),
    "cross 2 3": (nd.cross, lambda a, b: np.cross(np.pad(a, ((0, 0), (0, 1))), b), (M[:, :2], M[:, 2:5])),
    "outer": same("outer", V, W), "inner": same("inner", X, M[:, :5]), "vdot": same("vdot", M, M[::-1].copy()),
    "tensordot": same("tensordot", X, X, axes=((0, 2), (0, 2))),
    "cov": same("cov", M), "cov columns": same("cov", M, rowvar=False, ddof=0), "corrcoef": same("corrcoef", M),
    "cov two": same("cov", V, V[::-1].copy()), "ptp": same("ptp", X, axis=1),
    "roll": same("roll", X, shift=(1, -2), axis=(0, 2)), "rot90": same("rot90", X, k=1, axes=(0, 2)),
    "rot90 3": same("rot90", M, k=3),
    "dstack": (lambda *a: nd.dstack(a), lambda *a: np.dstack(a), (W, V[:4])), "rollaxis": same("rollaxis", X, axis=2, start=1),
    "block": (lambda a, b: nd.block([[a, b], [b, a]]), lambda a, b: np.block([[a, b], [b, a]]), (M, M * 2)),
    "array_split": (lambda x: nd.array_split(x, 3, 1), lambda x: np.array_split(x, 3, 1), (X,)),
    "vsplit": (lambda x: nd.vsplit(x, 3), lambda x: np.vsplit(x, 3), (X,)),
    "hsplit": (lambda x: nd.hsplit(x, [1, 3]), lambda x: np.hsplit(x, [1, 3]), (X,)),
    "dsplit": (lambda x: nd.dsplit(x, 5), lambda x: np.dsplit(x, 5), (X,)),
    "append": (lambda x, y: nd.append(x, y, axis=0), lambda x, y: np.append(x, y, axis=0), (M, M[:1])),
    "append flat": same("append", M, W), "delete": (lambda x: nd.delete(x, [0, -1], 1), lambda x: np.delete(x, [0, -1], 1), (M,)),
    "delete slice": (lambda x: nd.delete(x, slice(1, 3), 0), lambda x: np.delete(x, slice(1, 3), 0), (M,)),
    "insert": (lambda x, y: nd.insert(x, [1, 3], y, 1), lambda x, y: np.insert(x, [1, 3], y, 1), (M, M[:, :2])),
    "insert one": (lambda x: nd.insert(x, 2, 7.0), lambda x: np.insert(x, 2, 7.0), (V,)),
    "diagflat": same("diagflat", W),
    "choose": (lambda x, y: nd.choose(nd.array([[0, 1, 1, 0, 1, 0]] * 4), [x, y]),
               lambda x, y: np.choose(np.array([[0, 1, 1, 0, 1, 0]] * 4), [x, y]), (M, M * 3)),
    "select": (lambda x: nd.select([x < -0.5, x > 0.5], [x * 2, x * x], 1.0),
               lambda x: np.select([x < -0.5, x > 0.5], [x * 2, x * x], 1.0), (M,)),
    "piecewise": (lambda x: nd.piecewise(x, [x < 0], [lambda v: -v * v, lambda v: v]),
                  lambda x: np.piecewise(x, [x < 0], [lambda v: -v * v, lambda v: v]), (M,)),
    "apply_along_axis": (lambda x: nd.apply_along_axis(lambda v: v * v.sum(), 1, x),
                         lambda x: np.apply_along_axis(lambda v: v * v.sum(), 1, x), (M,)),
    "apply_over_axes": (lambda x: nd.apply_over_axes(nd.sum, x, [0, 2]), lambda x: np.apply_over_axes(np.sum, x, [0, 2]), (X,)),
    "nan_to_num": same("nan_to_num", N, nan=2.0), "sinc": same("sinc", X), "cbrt": same("cbrt", X),
    "hypot": same("hypot", X, X[0]),
    "copysign": same("copysign", X, X[0]), "logaddexp": same("logaddexp", X, X[0]), "logaddexp2": same("logaddexp2", X, X[0]),
    "fmax": same("fmax", X, X[0] + 0.1), "fmin": same("fmin", X, X[0] + 0.1), "heaviside": same("heaviside", X, 0.5),
    "exp2": same("exp2", X), "log2": same("log2", abs(X)), "log10": same("log10", abs(X)), "tan": same("tan", X / 3),
    "arcsinh": same("arcsinh", X), "arccosh": same("arccosh", abs(X) + 1.1), "arctanh": same("arctanh", np.tanh(X)),
    "arcsin": same("arcsin", np.tanh(X)), "arccos": same("arccos", np.tanh(X)), "arctan": same("arctan", X),
    "sinh": same("sinh", X),
    "cosh": same("cosh", X), "modf": same("modf", X), "fmod": same("fmod", X * 5, abs(X[0]) + 1),
    "interp one": same("interp", V, W[:1], W[1:2]),
    "partition": (lambda x: nd.partition(x, 2, 1)[:, 2], lambda x: np.partition(x, 2, 1)[:, 2], (X,)),
    "nanpercentile": (lambda x: nd.nanpercentile(x, 30, 1), lambda x: np.nanpercentile(x, 30, 1), (N,)),
    **{f"{f} {a}": same(f, N, axis=a) for f in ("nansum", "nanprod", "nanmean", "nanvar", "nanstd", "nanmax", "nanmin",
    "nanmedian",
                                                 "nancumsum", "nancumprod") for a in (None, 1)},
    **{f"pad {m}": (lambda x, m=m: nd.pad(x, ((1, 2), (3, 1)), m), lambda x, m=m: np.pad(x, ((1, 2), (3, 1)), m), (M,))
       for m in ("constant", "edge", "reflect", "symmetric", "wrap", "maximum", "minimum", "mean", "median", "linear_ramp")},
    "pad values": (lambda x: nd.pad(x, ((1, 2), (0, 1)), constant_values=((1, 2), (3, 4))),
                   lambda x: np.pad(x, ((1, 2), (0, 1)), constant_values=((1, 2), (3, 4))), (M,)),
    "pad stat_length": (lambda x: nd.pad(x, 1, "mean", stat_length=2), lambda x: np.pad(x, 1, "mean", stat_length=2), (M,)),
}


@pytest.mark.parametrize("name", sorted(SMOOTH))
def test_values_and_gradients(name: str) -> None:
    function, reference, arrays = SMOOTH[name]
    found, want = function(*(n(a) for a in arrays)), reference(*arrays)
    as_list = lambda v: list(v) if isinstance(v, (tuple, list)) else v
    assert_close(as_list(found), as_list(want), 4, name)
    check_gradients(lambda *a: function(*a), [np.where(np.isnan(a), M, a) if a is N else a for a in arrays], limit=3e-5)


@pytest.mark.parametrize("name", sorted(SMOOTH))
def test_traced(name: str) -> None:
    """The same program, captured and run by the reference interpreter."""
    function, reference, arrays = SMOOTH[name]
    compiled = hybrid.hybridize(lambda *a: tuple(r) if isinstance(r := function(*a), list) else r, backend="interpreter")
    found, want = compiled(*(n(a) for a in arrays)), reference(*arrays)
    as_list = lambda v: list(v) if isinstance(v, (tuple, list)) else v
    assert_close(as_list(found), as_list(want), 10, name)


EDGES = np.array([0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan, 0.5, 2.0, -2.5, 1e30, -1e30, 1e-30, 3e4])


@pytest.mark.parametrize("name", [
    "arccosh", "arcsinh", "arctanh", "log2", "log10", "exp2", "tan", "sinh", "cosh", "arcsin", "arccos", "arctan", "signbit",
    "hypot", "copysign", "power", "floor_divide",
])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_special_values_compiled(name: str, dtype: Any) -> None:
    """Infinities, NaNs, signed zeros and very large numbers, natively as eagerly, with their signs."""
    function = getattr(nd, name)
    arrays = [EDGES.astype(dtype)]
    if name in ("hypot", "copysign", "power", "floor_divide"):
        arrays = [v.ravel() for v in np.meshgrid(EDGES[:10].astype(dtype), EDGES[:10].astype(dtype))]
    want = function(*(n(a) for a in arrays)).asnumpy()
    found = hybrid.hybridize(function)(*(n(a) for a in arrays)).asnumpy()
    known = ~np.any([np.isnan(a) for a in arrays], axis=0) if name == "signbit" else np.ones(want.shape, bool)
    if want.dtype == bool:
        np.testing.assert_array_equal(found[known], want[known])
        return
    np.testing.assert_allclose(found, want, rtol=5e-6 if dtype is np.float32 else 1e-13)
    number = ~np.isnan(want)
    np.testing.assert_array_equal(np.signbit(found)[number], np.signbit(want)[number])
