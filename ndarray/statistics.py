"""Order statistics, histograms, covariances, and the functions that pass over NaNs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from . import reduction
from .apply import apply
from .array import NDArray, wrap
from .creation import ones_like
from .dims import Size
from .dtypes import default_float, default_int, is_inexact
from .elementwise import (
    add,
    ceil,
    clip,
    conj,
    divide,
    equal,
    floor,
    isnan,
    logical_and,
    logical_not,
    minimum,
    multiply,
    rint,
    sqrt,
    subtract,
    where,
)
from .linear import matmul
from .manipulation import broadcast_to, concatenate, expand_dims, ravel, reshape, swapaxes, take_along_axis
from .op import OPS
from .operands import as_array, as_floating, common, convert, is_number, normalize_axes, primitive
from .searching import known, searchsorted

__all__ = [
    "bincount", "corrcoef", "cov", "histogram", "histogram2d", "histogram_bin_edges", "median", "nanargmax", "nanargmin",
    "nancumprod", "nancumsum", "nanmax", "nanmean", "nanmedian", "nanmin", "nanpercentile", "nanprod", "nanquantile", "nanstd",
    "nansum", "nanvar", "percentile", "quantile",
]


# -- order statistics

def _merged(name: str, x: NDArray, axis: Any) -> tuple[NDArray, tuple[int, ...]]:
    """x with some axes joined to a last one, and those axes."""
    axes = normalize_axes(name, axis, x.ndim)
    rest = tuple(k for k in range(x.ndim) if k not in axes)
    moved = apply(OPS["transpose"], x, axes=(*rest, *axes))
    count: Size = 1
    for a in axes:
        count = count * x.shape[a]
    return reshape(moved, (*(x.shape[k] for k in rest), count)), axes


def _restored(out: NDArray, axes: tuple[int, ...], keepdims: bool, lead: int = 0) -> NDArray:
    return expand_dims(out, tuple(a + lead for a in axes)) if keepdims and axes else out


def median(x: Any, /, axis: Any = None, *, keepdims: bool = False) -> NDArray:
    """The middle element over some axes (None: all), or the mean of the two middle ones; NaN if there is a NaN.

    >>> nd.median(nd.array([3.0, 1.0, 2.0, 10.0]))
    array(2.5)
    """
    return quantile(x, 0.5, axis, keepdims=keepdims)


def quantile(
    x: Any, q: Any, /, axis: Any = None, method: str = "linear", keepdims: bool = False, *, interpolation: str | None = None,
) -> NDArray:
    """The numbers below which the parts q (in [0, 1]; a number or an array) of the elements over some axes (None: all) lie.

    method: "linear" between neighbours, "lower", "higher", "nearest", "midpoint", or one of the other estimates of Hyndman
    and Fan (1996) under NumPy's names. The axes of q come first. NaN if there is a NaN. Gradients flow to the elements that
    decide. Raises ValueError for q outside of [0, 1] or no elements.

    >>> nd.quantile(nd.array([1.0, 2.0, 3.0, 4.0]), [0.25, 0.5])
    array([1.75, 2.5 ])
    """
    return _quantile("quantile", x, q, axis, interpolation or method, keepdims, 1.0)


def percentile(
    x: Any, q: Any, /, axis: Any = None, method: str = "linear", keepdims: bool = False, *, interpolation: str | None = None,
) -> NDArray:
    """`quantile` with q in percent.

    >>> nd.percentile(nd.array([1.0, 2.0, 3.0, 4.0]), 50)
    array(2.5)
    """
    return _quantile("percentile", x, q, axis, interpolation or method, keepdims, 100.0)


_PLOTTING = {
    "interpolated_inverted_cdf": (0.0, 1.0), "hazen": (0.5, 0.5), "weibull": (0.0, 0.0),
    "median_unbiased": (1 / 3, 1 / 3), "normal_unbiased": (3 / 8, 3 / 8),
}
"""Method -> (alpha, beta): the position of q among n elements, from 0, is ``n q + alpha + q (1 - alpha - beta) - 1``."""
_STEPS = ("inverted_cdf", "averaged_inverted_cdf", "closest_observation")
_METHODS = ("linear", "lower", "higher", "nearest", "midpoint", *_PLOTTING, *_STEPS)


def _quantile(name: str, x: Any, q: Any, axis: Any, method: str, keepdims: bool, top: float, skip_nan: bool = False) -> NDArray:
    x = as_floating(name, x)
    if method not in _METHODS:
        raise ValueError(f"{name}: method: expected one of {', '.join(_METHODS)}, got {method!r}")
    if is_number(q) or isinstance(q, (list, tuple, np.ndarray)):
        parts = np.asarray(q, np.float64)
        if not ((parts >= 0) & (parts <= top)).all():
            raise ValueError(f"{name}: q: expected numbers from 0 to {top:g}, got {q!r}")
        share = wrap(x._device.module.asarray(parts / top, dtype=np.float64), x._device)
    else:
        share = divide(as_floating(name, q, "q"), top)
    flat, axes = _merged(name, x, axis)
    n = flat.shape[-1]
    if type(n) is int and n == 0:
        raise ValueError(f"{name}: x: expected at least one element along axis {axis}, got shape {x.shape}")
    ordered = reduction.sort(flat, -1)
    missing = reduction.sum(isnan(flat), -1, keepdims=True)
    wide = np.dtype(np.float64)
    last = subtract(n, missing) if skip_nan else convert(broadcast_to(as_array(name, "x", n), missing.shape), default_int)
    last = convert(subtract(last, 1), wide)
    share = reshape(convert(share, wide), (*share.shape, *(1,) * flat.ndim))
    low, high, weight = _neighbours(method, share, last)
    if weight is None:
        out = _picked(ordered, low, share.ndim - flat.ndim)
    else:
        a, b = (_picked(ordered, p, share.ndim - flat.ndim) for p in (low, high))
        weight = convert(weight, x.dtype) if isinstance(weight, NDArray) else weight
        out = where(equal(a, b), a, add(a, multiply(subtract(b, a), weight)))
    lead = share.ndim - flat.ndim
    if skip_nan:
        out = where(equal(missing, n), float("nan"), out)
    else:
        out = where(equal(missing, 0), out, float("nan"))
    return _restored(reshape(out, out.shape[:-1]), axes, keepdims, lead)


def _neighbours(method: str, share: NDArray, last: NDArray) -> tuple[NDArray, NDArray, Any]:
    """The positions of the two elements around each share of the elements 0 ... last, and the weight of the second; None
    where the first is the answer."""
    inside = lambda p: clip(minimum(p, last), 0, None)
    if method in _STEPS:
        position = subtract(multiply(share, add(last, 1)), 1.5 if method == "closest_observation" else 1)
        low = floor(position)
        if method == "inverted_cdf":
            return inside(ceil(position)), low, None
        whole = equal(position, low)
        if method == "averaged_inverted_cdf":
            return inside(low), inside(add(low, 1)), where(whole, 0.5, ones_like(position))
        odd = equal(subtract(low, multiply(floor(multiply(low, 0.5)), 2)), 1)  # an even order, counted from 1
        return inside(where(logical_and(whole, odd), low, add(low, 1))), low, None
    if method in _PLOTTING:
        alpha, beta = _PLOTTING[method]
        shift = add(multiply(share, 1 - alpha - beta), alpha - 1)
        position = inside(add(multiply(share, add(last, 1)), shift))
    else:
        position = clip(multiply(share, last), 0, None)
    low, high = floor(position), ceil(position)
    if method in ("lower", "higher", "nearest"):
        return {"lower": low, "higher": high, "nearest": rint(position)}[method], low, None
    return low, high, 0.5 if method == "midpoint" else subtract(position, low)


def _picked(ordered: NDArray, index: NDArray, lead: int) -> NDArray:
    """The elements of the last axis at positions (one each), for each of the leading positions."""
    index = convert(index, default_int)
    shape = (*index.shape[:lead], *ordered.shape[:-1], 1)
    wide = broadcast_to(ordered, (*shape[:-1], ordered.shape[-1]))
    return take_along_axis(wide, broadcast_to(index, shape), -1)


# -- counting

def bincount(x: Any, /, weights: Any = None, minlength: int = 0) -> NDArray:
    """How often each number 0, 1, 2 ... occurs among non-negative integers, or the sums of their weights.

    int64 (or the weights' dtype), as long as the largest number + 1, at least `minlength`; in a trace, as long as
    `minlength` (larger numbers are not counted). Raises ValueError for negative numbers, TypeError for other dtypes.

    >>> nd.bincount(nd.array([1, 3, 1]))
    array([0, 2, 0, 1])
    """
    x = as_array("bincount", "x", x)
    if x.dtype.kind not in "iub" or x.ndim != 1:
        raise TypeError(f"bincount: x: expected integers along one axis, got {x.dtype} of shape {x.shape}")
    x = convert(x, default_int)
    if not hasattr(x._data, "concretize"):
        data = x._host("bincount()")
        if data.size and data.min() < 0:
            raise ValueError(f"bincount: x: expected no negative numbers, got {data.min()}")
        length = max(int(data.max()) + 1 if data.size else 0, minlength)
    elif minlength > 0:
        length = minlength
    else:
        known(x, "bincount", "give minlength, the number of bins")
    weights = as_array("bincount", "weights", weights) if weights is not None else None
    dtype = default_int if weights is None else weights.dtype if is_inexact(weights.dtype) else default_float
    ones = broadcast_to(as_array("bincount", "weights", 1), x.shape) if weights is None else weights
    if ones.shape != x.shape:
        raise ValueError(f"bincount: weights: expected shape {x.shape} as x, got {ones.shape}")
    from .creation import zeros

    if length == 0:
        return zeros((0,), dtype, x._device)
    inside = x < length
    counted = where(inside, convert(ones, dtype), 0)
    return primitive("scatter_add", zeros((length,), dtype, x._device), where(inside, x, 0), counted, axis=0, mode="clip")


def histogram_bin_edges(x: Any, /, bins: Any = 10, range: Any = None, weights: Any = None) -> NDArray:
    """The edges of the bins that `histogram` would use; `bins` may be NumPy's name of a rule.

    >>> nd.histogram_bin_edges(nd.array([0.0, 4.0]), 2)
    array([0., 2., 4.])
    """
    x = as_array("histogram_bin_edges", "x", x)
    if isinstance(bins, NDArray):
        return bins
    data = known(x, "histogram", "give the edges as an array")
    range = None if range is None else tuple(float(v) for v in range)
    edges = np.histogram_bin_edges(data, bins, range)
    dtype = x.dtype if is_inexact(x.dtype) else default_float
    return wrap(x._device.module.asarray(edges, dtype=dtype), x._device)


def histogram(
    x: Any, /, bins: Any = 10, range: Any = None, density: bool = False, weights: Any = None,
) -> tuple[NDArray, NDArray]:
    """How many elements lie in each bin (the last one includes its upper edge), and the edges.

    `bins` is their number between the smallest and the largest element (or over `range`), an array of edges, or NumPy's
    name of a rule. With `weights`, their sums; with `density`, divided by the total and the bins' widths.

    >>> nd.histogram(nd.array([1.0, 2.0, 2.5, 4.0]), 3)
    (array([1, 2, 1]), array([1., 2., 3., 4.]))
    """
    x = as_array("histogram", "x", x)
    if isinstance(bins, (list, tuple, np.ndarray)):
        bins = as_array("histogram", "bins", bins)
    edges = histogram_bin_edges(x, bins, range)
    values, bounds = common("histogram", ravel(x), edges, arguments=("x", "bins"))
    count = int(edges.shape[0]) - 1
    place = searchsorted(bounds, values, "right")
    place = where(equal(values, bounds[-1]), count, place)
    inside = (values >= bounds[0]) & (values <= bounds[-1])
    place = where(inside, place - 1, count)
    weights = None if weights is None else ravel(weights)
    counts = bincount(place, weights, count + 1)[:count]
    if density:
        widths = edges[1:] - edges[:-1]
        counts = divide(divide(convert(counts, edges.dtype), widths), reduction.sum(counts))
    return counts, edges


def histogram2d(x: Any, y: Any, /, bins: Any = 10, range: Any = None, density: bool = False, weights: Any = None) -> tuple:
    """How many points (x, y) lie in each cell of a grid, and the edges along x and y; float32.

    >>> nd.histogram2d(nd.array([0.0, 1.0]), nd.array([0.0, 1.0]), 2)[0]
    array([[1., 0.],
           [0., 1.]])
    """
    x, y = (ravel(as_floating("histogram2d", v, n)) for v, n in ((x, "x"), (y, "y")))
    both = bins if isinstance(bins, (list, tuple)) and len(bins) == 2 else (bins, bins)
    edges, places, counts = [], [], []
    inside: Any = True
    for k, (v, b) in enumerate(zip((x, y), both)):
        e = histogram_bin_edges(v, b if not isinstance(b, (list, tuple)) else as_array("histogram2d", "bins", b),
                                None if range is None else range[k])
        place = where(equal(v, e[-1]), e.shape[0] - 1, searchsorted(e, v, "right")) - 1
        inside = (v >= e[0]) & (v <= e[-1]) & inside
        edges.append(e)
        places.append(place)
        counts.append(int(e.shape[0]) - 1)
    flat = where(inside, places[0] * counts[1] + places[1], counts[0] * counts[1])
    total = bincount(flat, weights, counts[0] * counts[1] + 1)[: counts[0] * counts[1]]
    out = convert(reshape(total, tuple(counts)), x.dtype)
    if density:
        area = expand_dims(edges[0][1:] - edges[0][:-1], 1) * (edges[1][1:] - edges[1][:-1])
        out = out / area / reduction.sum(out)
    return out, edges[0], edges[1]


# -- covariances

def cov(x: Any, y: Any = None, /, rowvar: bool = True, bias: bool = False, ddof: float | None = None) -> NDArray:
    """The covariances of variables (rows of x, or columns if not `rowvar`; those of y are added), divided by n - 1, by n if
    `bias`, or by n - ddof.

    >>> nd.cov(nd.array([[1.0, 2.0, 3.0], [6.0, 4.0, 2.0]]))
    array([[ 1., -2.],
           [-2.,  4.]])
    """
    variables = []
    for name, v in (("x", x), ("y", y)):
        if v is not None:
            v = as_floating("cov", v, name)
            if v.ndim > 2:
                raise ValueError(f"cov: {name}: expected at most 2 axes, got shape {v.shape}")
            v = reshape(v, (1, -1)) if v.ndim < 2 else v
            variables.append(v if rowvar or v.shape[0] == 1 else swapaxes(v, 0, 1))
    rows = concatenate(variables, axis=0) if len(variables) > 1 else variables[0]
    centered = subtract(rows, reduction.mean(rows, 1, keepdims=True))
    count: Any = rows.shape[1]
    count = count - (ddof if ddof is not None else 0 if bias else 1)
    out = divide(matmul(centered, swapaxes(conj(centered), 0, 1)), count)
    return reshape(out, ()) if out.shape == (1, 1) else out


def corrcoef(x: Any, y: Any = None, /, rowvar: bool = True) -> NDArray:
    """The correlations of variables: their covariances divided by both standard deviations.

    >>> nd.corrcoef(nd.array([[1.0, 2.0, 3.0], [6.0, 4.0, 2.0]]))
    array([[ 1., -1.],
           [-1.,  1.]])
    """
    covariance = cov(x, y, rowvar)
    if covariance.ndim == 0:
        return divide(covariance, covariance)
    from .manipulation import diagonal

    deviation = sqrt(diagonal(covariance))
    return divide(covariance, multiply(expand_dims(deviation, 1), deviation))


# -- passing over NaNs

def _filled(name: str, x: Any, fill: float) -> NDArray:
    x = as_array(name, "x", x)
    return where(isnan(x), fill, x) if is_inexact(x.dtype) else x


def _over_nans(name: str, fill: float, what: str, result: str) -> Callable:
    inner = getattr(reduction, name[3:])

    def function(x: Any, /, axis: Any = None, *, dtype: Any = None, keepdims: bool = False) -> NDArray:
        return inner(_filled(name, x, fill), axis, dtype=dtype, keepdims=keepdims)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = (
        f"The {what} over some axes (None: all), NaNs counting as {fill:g}.\n\n"
        f"    >>> nd.{name}(nd.array([1.0, nd.nan, 2.0]))\n    {result}\n    "
    )
    return function


nansum = _over_nans("nansum", 0.0, "sum", "array(3.)")
nanprod = _over_nans("nanprod", 1.0, "product", "array(2.)")


def nancumsum(x: Any, /, axis: int | None = None, dtype: Any = None) -> NDArray:
    """`cumsum`, NaNs counting as 0.

    >>> nd.nancumsum(nd.array([1.0, nd.nan, 2.0]))
    array([1., 1., 3.])
    """
    return reduction.cumsum(_filled("nancumsum", x, 0.0), axis, dtype)


def nancumprod(x: Any, /, axis: int | None = None, dtype: Any = None) -> NDArray:
    """`cumprod`, NaNs counting as 1.

    >>> nd.nancumprod(nd.array([3.0, nd.nan, 2.0]))
    array([3., 3., 6.])
    """
    return reduction.cumprod(_filled("nancumprod", x, 1.0), axis, dtype)


def _present(name: str, x: NDArray, axes: tuple[int, ...], keepdims: bool) -> tuple[NDArray, NDArray]:
    """Where x is a number, and how many of them there are."""
    there = logical_not(isnan(x))
    return there, reduction.sum(convert(there, default_int), axes, keepdims=keepdims)


def nanmean(x: Any, /, axis: Any = None, *, keepdims: bool = False) -> NDArray:
    """The mean of the numbers over some axes (None: all); NaN where all are NaN.

    >>> nd.nanmean(nd.array([1.0, nd.nan, 2.0]))
    array(1.5)
    """
    x = as_floating("nanmean", x)
    axes = normalize_axes("nanmean", axis, x.ndim)
    there, count = _present("nanmean", x, axes, keepdims)
    return divide(reduction.sum(where(there, x, 0), axes, keepdims=keepdims), convert(count, x.dtype))


def nanvar(x: Any, /, axis: Any = None, *, correction: float = 0, ddof: float = 0, keepdims: bool = False) -> NDArray:
    """The variance of the numbers over some axes (None: all).

    >>> nd.nanvar(nd.array([1.0, nd.nan, 2.0]))
    array(0.25)
    """
    x = as_floating("nanvar", x)
    axes = normalize_axes("nanvar", axis, x.ndim)
    there, count = _present("nanvar", x, axes, keepdims)
    centered = where(there, subtract(x, nanmean(x, axes, keepdims=True)), 0)
    left = subtract(convert(count, x.dtype), correction or ddof)
    left = where(left > 0, left, float("nan"))
    return divide(reduction.sum(multiply(centered, centered), axes, keepdims=keepdims), left)


def nanstd(x: Any, /, axis: Any = None, *, correction: float = 0, ddof: float = 0, keepdims: bool = False) -> NDArray:
    """The standard deviation of the numbers over some axes (None: all).

    >>> nd.nanstd(nd.array([1.0, nd.nan, 2.0]))
    array(0.5)
    """
    return sqrt(nanvar(x, axis, correction=correction, ddof=ddof, keepdims=keepdims))


def _nan_extremum(name: str, inner: Callable, worst: float, x: Any, axis: Any, keepdims: bool) -> NDArray:
    x = as_array(name, "x", x)
    if not is_inexact(x.dtype):
        return inner(x, axis, keepdims=keepdims)
    axes = normalize_axes(name, axis, x.ndim)
    there, count = _present(name, x, axes, keepdims)
    return where(equal(count, 0), float("nan"), inner(where(there, x, worst), axes, keepdims=keepdims))


def nanmax(x: Any, /, axis: Any = None, *, keepdims: bool = False) -> NDArray:
    """The largest number over some axes (None: all); NaN where all are NaN.

    >>> nd.nanmax(nd.array([1.0, nd.nan, 2.0]))
    array(2.)
    """
    return _nan_extremum("nanmax", reduction.max, -float("inf"), x, axis, keepdims)


def nanmin(x: Any, /, axis: Any = None, *, keepdims: bool = False) -> NDArray:
    """The smallest number over some axes (None: all); NaN where all are NaN.

    >>> nd.nanmin(nd.array([1.0, nd.nan, 2.0]))
    array(1.)
    """
    return _nan_extremum("nanmin", reduction.min, float("inf"), x, axis, keepdims)


def nanargmax(x: Any, /, axis: int | None = None, *, keepdims: bool = False) -> NDArray:
    """The position of the largest number along an axis (None: flattened); 0 where all are NaN.

    >>> nd.nanargmax(nd.array([nd.nan, 1.0, 2.0]))
    array(2)
    """
    return reduction.argmax(_filled("nanargmax", x, -float("inf")), axis, keepdims=keepdims)


def nanargmin(x: Any, /, axis: int | None = None, *, keepdims: bool = False) -> NDArray:
    """The position of the smallest number along an axis (None: flattened); 0 where all are NaN.

    >>> nd.nanargmin(nd.array([nd.nan, 1.0, 2.0]))
    array(1)
    """
    return reduction.argmin(_filled("nanargmin", x, float("inf")), axis, keepdims=keepdims)


def nanquantile(x: Any, q: Any, /, axis: Any = None, method: str = "linear", keepdims: bool = False) -> NDArray:
    """The `quantile` of the numbers; NaN where all are NaN.

    >>> nd.nanquantile(nd.array([1.0, nd.nan, 2.0, 3.0]), 0.5)
    array(2.)
    """
    return _quantile("nanquantile", x, q, axis, method, keepdims, 1.0, skip_nan=True)


def nanpercentile(x: Any, q: Any, /, axis: Any = None, method: str = "linear", keepdims: bool = False) -> NDArray:
    """The `percentile` of the numbers; NaN where all are NaN.

    >>> nd.nanpercentile(nd.array([1.0, nd.nan, 2.0, 3.0]), 50)
    array(2.)
    """
    return _quantile("nanpercentile", x, q, axis, method, keepdims, 100.0, skip_nan=True)


def nanmedian(x: Any, /, axis: Any = None, *, keepdims: bool = False) -> NDArray:
    """The `median` of the numbers; NaN where all are NaN.

    >>> nd.nanmedian(nd.array([1.0, nd.nan, 2.0, 3.0]))
    array(2.)
    """
    return nanquantile(x, 0.5, axis, keepdims=keepdims)
