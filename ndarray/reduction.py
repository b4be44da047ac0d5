"""Folds along axes: sums, means, variances, extrema, norms, tests, cumulative sums, sorting."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .apply import apply, is_tracing
from .array import NDArray
from .creation import full, ones_like, zeros_like
from .dims import Size, product
from .dtypes import bool_, canonical, default_float, default_int, float32, is_inexact
from .elementwise import abs as absolute
from .elementwise import (
    add,
    divide,
    exp,
    imag,
    isfinite,
    log,
    maximum,
    multiply,
    not_equal,
    power,
    real,
    sqrt,
    stop_gradient,
    subtract,
    where,
)
from .manipulation import broadcast_to, concatenate, ravel, squeeze, take_along_axis
from .op import OPS
from .operands import as_array, as_floating, convert, default_sum_dtype, normalize_axes, normalize_axis, number, primitive

__all__ = [
    "all", "amax", "amin", "any", "argmax", "argmin", "argsort", "average", "count_nonzero", "cumprod", "cumsum",
    "cumulative_prod", "cumulative_sum", "logsumexp", "max", "mean", "min", "norm", "prod", "ptp", "sort", "std", "sum",
    "topk", "trace", "var",
]


def _total(name: str) -> Callable:
    op = OPS[name]

    def function(x: Any, /, axis: Any = None, *, dtype: Any = None, keepdims: bool = False) -> NDArray:
        x = as_array(name, "x", x)
        x = convert(x, default_sum_dtype(x.dtype) if dtype is None else canonical(dtype))
        return primitive(op, x, axes=normalize_axes(name, axis, x.ndim), keepdims=bool(keepdims))

    function.__name__ = function.__qualname__ = name
    what = "sum" if name == "sum" else "product"
    function.__doc__ = (
        f"The {what} over some axes (None: all). Bool and integers give int64 or uint64, others their own dtype, unless "
        f"`dtype` says otherwise."
    )
    return function


sum, prod = _total("sum"), _total("prod")


def _count(x: NDArray, axes: tuple[int, ...]) -> Size:
    return product(x.shape[a] for a in axes)


def mean(x: Any, /, axis: Any = None, *, dtype: Any = None, keepdims: bool = False) -> NDArray:
    """The arithmetic mean over some axes (None: all). Integers give float32; half precision is summed in float32.

    >>> nd.mean(nd.array([[1.0, 2.0], [3.0, 6.0]]), axis=1)
    array([1.5, 4.5])
    """
    x = as_array("mean", "x", x)
    result = canonical(dtype) if dtype is not None else x.dtype if is_inexact(x.dtype) else default_float
    axes = normalize_axes("mean", axis, x.ndim)
    wide = convert(x, float32 if result.itemsize < 4 else result)
    total = apply(OPS["sum"], wide, axes=axes, keepdims=bool(keepdims))
    return convert(divide(total, _count(x, axes)), result)


def average(x: Any, /, axis: Any = None, weights: Any = None, *, keepdims: bool = False) -> NDArray:
    """The mean over some axes, weighted if `weights` (of x's shape, or of its size along one axis) are given.

    >>> nd.average(nd.array([1.0, 2.0, 6.0]), weights=nd.array([1.0, 1.0, 2.0]))
    array(3.75)
    """
    if weights is None:
        return mean(x, axis, keepdims=keepdims)
    x, weights = as_floating("average", x), as_floating("average", weights, "weights")
    axes = normalize_axes("average", axis, x.ndim)
    if weights.ndim == 1 and x.ndim > 1 and len(axes) == 1:
        shape = tuple(weights.shape[0] if k == axes[0] else 1 for k in range(x.ndim))
        weights = apply(OPS["reshape"], weights, shape=shape)
    total = sum(multiply(ones_like(x), weights), axes, keepdims=keepdims)
    return divide(sum(multiply(x, weights), axes, keepdims=keepdims), total)


def var(x: Any, /, axis: Any = None, *, correction: float = 0, ddof: float = 0, keepdims: bool = False) -> NDArray:
    """The variance over some axes: the mean squared distance from the mean, divided by ``n - correction`` instead of n.

    (`ddof` is NumPy's name of `correction`.)

    >>> nd.var(nd.array([1.0, 3.0]))
    array(1.)
    """
    x = as_floating("var", x)
    axes = normalize_axes("var", axis, x.ndim)
    centered = subtract(x, mean(x, axes, keepdims=True))
    correction = correction or ddof
    if x.dtype.kind == "c":
        square = add(*(multiply(p, p) for p in (real(centered), imag(centered))))
    else:
        square = multiply(centered, centered)
    if not correction:
        return mean(square, axes, keepdims=keepdims)
    count = maximum(subtract(number(_count(x, axes), square.dtype, x._device), correction), 0)
    return divide(sum(square, axes, keepdims=keepdims), count)


def std(x: Any, /, axis: Any = None, *, correction: float = 0, ddof: float = 0, keepdims: bool = False) -> NDArray:
    """The standard deviation over some axes, the square root of `var`.

    >>> nd.std(nd.array([1.0, 3.0]))
    array(1.)
    """
    return sqrt(var(x, axis, correction=correction or ddof, keepdims=keepdims))


def _extremum(name: str) -> Callable:
    op = OPS[name]

    def function(x: Any, /, axis: Any = None, *, keepdims: bool = False) -> NDArray:
        x = as_array(name, "x", x)
        return primitive(op, x, axes=normalize_axes(name, axis, x.ndim), keepdims=bool(keepdims))

    function.__name__ = function.__qualname__ = name
    function.__doc__ = (
        f"The {'largest' if name == 'max' else 'smallest'} element over some axes (None: all), NaN if one is. The gradient is "
        f"shared equally by all elements that attain it. Raises ValueError for no elements."
    )
    return function


max, min = _extremum("max"), _extremum("min")
amax, amin = max, min


def _position(name: str) -> Callable:
    op = OPS[name]

    def function(x: Any, /, axis: int | None = None, *, keepdims: bool = False) -> NDArray:
        x = as_array(name, "x", x)
        if axis is None:
            out = primitive(op, ravel(x), axis=0, keepdims=False)
            return apply(OPS["reshape"], out, shape=(1,) * x.ndim) if keepdims else out
        return primitive(op, x, axis=normalize_axis(name, axis, x.ndim), keepdims=bool(keepdims))

    function.__name__ = function.__qualname__ = name
    function.__doc__ = (
        f"The position (int64) of the first {'largest' if name == 'argmax' else 'smallest'} element along an axis, or in the "
        f"flattened array; that of the first NaN if there is one."
    )
    return function


argmax, argmin = _position("argmax"), _position("argmin")


def _quantifier(name: str) -> Callable:
    op = OPS[name]

    def function(x: Any, /, axis: Any = None, *, keepdims: bool = False) -> NDArray:
        x = as_array(name, "x", x)
        x = x if x.dtype == bool_ else not_equal(x, 0)
        return primitive(op, x, axes=normalize_axes(name, axis, x.ndim), keepdims=bool(keepdims))

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"Whether {name} elements over some axes (None: all of them) are true (not 0)."
    return function


all, any = _quantifier("all"), _quantifier("any")


def count_nonzero(x: Any, /, axis: Any = None, *, keepdims: bool = False) -> NDArray:
    """How many elements over some axes are not 0, int64.

    >>> nd.count_nonzero(nd.array([0, 3, 0, 4]))
    array(2)
    """
    return sum(not_equal(x, 0), axis, keepdims=keepdims)


def logsumexp(x: Any, /, axis: Any = None, *, keepdims: bool = False) -> NDArray:
    """``log(sum(exp(x)))`` over some axes, without overflow.

    >>> nd.logsumexp(nd.array([1000.0, 1000.0]))
    array(1000.6932)
    """
    x = as_floating("logsumexp", x)
    axes = normalize_axes("logsumexp", axis, x.ndim)
    top = max(stop_gradient(x), axes, keepdims=True)
    top = where(isfinite(top), top, 0)
    out = add(log(sum(exp(subtract(x, top)), axes, keepdims=True)), top)
    return out if keepdims else squeeze(out, axes)


def norm(x: Any, /, ord: Any = None, axis: Any = None, keepdims: bool = False) -> NDArray:
    """The vector norm over some axes (None: all elements): ``ord`` 2 (the default), 1, 0, inf, -inf or another number.

    >>> nd.norm(nd.array([3.0, 4.0]))
    array(5.)
    """
    x = as_floating("norm", x)
    axes = normalize_axes("norm", axis, x.ndim)
    if ord in (None, 2, "fro"):
        return sqrt(sum(multiply(x, x), axes, keepdims=keepdims))
    size = absolute(x)
    if ord == 1:
        return sum(size, axes, keepdims=keepdims)
    if ord == 0:
        return sum(convert(not_equal(x, 0), x.dtype), axes, keepdims=keepdims)
    if ord in (np.inf, -np.inf):
        return (max if ord > 0 else min)(size, axes, keepdims=keepdims)
    if not isinstance(ord, (int, float)):
        raise ValueError(f"norm: ord: expected a number, 'fro' or None, got {ord!r}")
    return power(sum(power(size, ord), axes, keepdims=keepdims), 1.0 / ord)


def ptp(x: Any, /, axis: Any = None, *, keepdims: bool = False) -> NDArray:
    """The largest minus the smallest element over some axes (None: all), in x's dtype.

    >>> nd.ptp(nd.array([[1, 5], [2, 2]]), axis=1)
    array([4, 0])
    """
    return subtract(max(x, axis, keepdims=keepdims), min(x, axis, keepdims=keepdims))


def trace(x: Any, /, offset: int = 0, axis1: int = 0, axis2: int = 1, dtype: Any = None) -> NDArray:
    """The sum of the diagonal of two axes (the first two). Bool and integers are summed in int64 or uint64.

    >>> nd.trace(nd.array([[1, 2], [3, 4]]))
    array(5)
    """
    from .manipulation import diagonal

    return sum(diagonal(x, offset, axis1, axis2), -1, dtype=dtype)


def cumsum(x: Any, /, axis: int | None = None, dtype: Any = None) -> NDArray:
    """The sums of all elements up to each one along an axis (None: flattened).

    Bool and integers give int64 or uint64, others their own dtype, unless `dtype` says otherwise.

    >>> nd.cumsum(nd.array([1, 2, 3]))
    array([1, 3, 6])
    """
    return _cumulative("cumsum", x, axis, dtype)


def cumprod(x: Any, /, axis: int | None = None, dtype: Any = None) -> NDArray:
    """The products of all elements up to each one along an axis (None: flattened); dtypes as those of `cumsum`.

    >>> nd.cumprod(nd.array([1, 2, 3]))
    array([1, 2, 6])
    """
    return _cumulative("cumprod", x, axis, dtype)


def _cumulative(name: str, x: Any, axis: int | None, dtype: Any) -> NDArray:
    """In a trace, the logarithmic form: log2(n) shifted operations, which compile to fused loops."""
    x = as_array(name, "x", x)
    if axis is None:
        x, axis = ravel(x), 0
    axis = normalize_axis(name, axis, x.ndim)
    x = convert(x, default_sum_dtype(x.dtype) if dtype is None else canonical(dtype))
    if not is_tracing():
        return primitive(name, x, axis=axis)
    from .padding import pad

    combine, neutral = (add, 0) if name == "cumsum" else (multiply, 1)
    n, shift = x.shape[axis], 1
    while shift < n:
        x = combine(x, pad(x, [(shift, -shift) if k == axis else (0, 0) for k in range(x.ndim)], constant_values=neutral))
        shift *= 2
    return x


def cumulative_sum(x: Any, /, *, axis: int | None = None, dtype: Any = None, include_initial: bool = False) -> NDArray:
    """The Array API's `cumsum`: `axis` may be left out for one axis only; `include_initial` puts a 0 in front.

    >>> nd.cumulative_sum(nd.array([1, 2]), include_initial=True)
    array([0, 1, 3])
    """
    return _from_initial("cumulative_sum", cumsum, 0, x, axis, dtype, include_initial)


def cumulative_prod(x: Any, /, *, axis: int | None = None, dtype: Any = None, include_initial: bool = False) -> NDArray:
    """The Array API's `cumprod`: `axis` may be left out for one axis only; `include_initial` puts a 1 in front.

    >>> nd.cumulative_prod(nd.array([2, 3]), include_initial=True)
    array([1, 2, 6])
    """
    return _from_initial("cumulative_prod", cumprod, 1, x, axis, dtype, include_initial)


def _from_initial(name: str, function: Callable, first: int, x: Any, axis: int | None, dtype: Any, include: bool) -> NDArray:
    x = as_array(name, "x", x)
    if axis is None and x.ndim != 1:
        raise ValueError(f"{name}: axis: expected an int for an array of shape {x.shape}, got None")
    axis = normalize_axis(name, 0 if axis is None else axis, x.ndim)
    out = function(x, axis, dtype)
    if not include:
        return out
    shape = (*out.shape[:axis], 1, *out.shape[axis + 1 :])
    return concatenate([full(shape, first, out.dtype, out._device), out], axis=axis)


# -- order

def argsort(
    x: Any, /, axis: int | None = -1, *, descending: bool = False, stable: bool = True, is_ascend: bool = True
) -> NDArray:
    """The positions (int64) that sort x along an axis (None: flattened); equal elements keep their order, NaNs come last.

    >>> nd.argsort(nd.array([3, 1, 2]))
    array([1, 2, 0])
    """
    x = as_array("argsort", "x", x)
    if axis is None:
        x, axis = ravel(x), 0
    axis = normalize_axis("argsort", axis, x.ndim)
    return primitive("argsort", x, axis=axis, descending=bool(descending) or not is_ascend)


def sort(x: Any, /, axis: int | None = -1, *, descending: bool = False, stable: bool = True, is_ascend: bool = True) -> NDArray:
    """x sorted along an axis (None: flattened); NaNs come last.

    >>> nd.sort(nd.array([3, 1, 2]))
    array([1, 2, 3])
    """
    x = as_array("sort", "x", x)
    if axis is None:
        x, axis = ravel(x), 0
    return take_along_axis(x, argsort(x, axis, descending=descending, is_ascend=is_ascend), axis)


def topk(
    x: Any, /, k: int = 1, axis: int | None = -1, ret_typ: str = "indices", is_ascend: bool = False, dtype: Any = None
) -> Any:
    """The k largest elements (smallest if `is_ascend`) along an axis (None: flattened), in order. Of equal ones the first count.

    ret_typ  "indices" (int64, or `dtype`), "value", "both" (value, indices), or "mask": of x's shape, 1 at these elements and 0
             elsewhere, in `dtype` or x's

    Raises ValueError unless ``1 <= k <= size of the axis``, or for another `ret_typ`.

    >>> nd.topk(nd.array([3.0, 1.0, 2.0]), 2, ret_typ="value").tolist()
    [3.0, 2.0]
    """
    x = as_array("topk", "x", x)
    if ret_typ not in ("indices", "value", "both", "mask"):
        raise ValueError(f"topk: ret_typ: expected 'indices', 'value', 'both' or 'mask', got {ret_typ!r}")
    if axis is None:
        shape, x, axis = x.shape, ravel(x), 0
        if ret_typ == "mask":
            return apply(OPS["reshape"], topk(x, k, 0, ret_typ, is_ascend, dtype), shape=shape)
    axis = normalize_axis("topk", axis, x.ndim)
    if not 1 <= k <= x.shape[axis]:
        raise ValueError(f"topk: k: expected 1 to {x.shape[axis]} (shape {x.shape}, axis {axis}), got {k}")
    order = argsort(x, axis, descending=not is_ascend)[(slice(None),) * axis + (slice(0, k),)]
    if ret_typ == "mask":
        mask = convert(zeros_like(x), default_int)
        hit = broadcast_to(number(1, default_int, x._device), order.shape)
        mask = primitive("scatter_along_add", mask, order, hit, axis=axis)
        return convert(mask, x.dtype if dtype is None else canonical(dtype))
    value = take_along_axis(x, order, axis) if ret_typ != "indices" else None
    order = order if dtype is None else order.astype(dtype)
    return {"indices": order, "value": value, "both": (value, order)}[ret_typ]
