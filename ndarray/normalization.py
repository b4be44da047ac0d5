"""Normalization of activations: over a batch, a layer, groups of channels, an instance, neighbours."""

from __future__ import annotations

from typing import Any

from .array import NDArray
from .dtypes import float32
from .elementwise import add, divide, multiply, negative, power, rsqrt, sqrt, stop_gradient, subtract
from .manipulation import reshape, swapaxes
from .operands import as_array, as_floating, convert, normalize_axes, normalize_axis, primitive
from .reduction import mean, sum

__all__ = [
    "batch_norm", "group_norm", "instance_norm", "l2_normalization", "layer_norm", "lrn", "moments", "rms_norm",
]


def _wide(x: NDArray) -> NDArray:
    """Half precision is computed in float32."""
    return convert(x, float32) if x.dtype.itemsize < 4 else x


def _normalized(x: NDArray, axes: tuple[int, ...], epsilon: float) -> NDArray:
    """Zero mean and unit variance along some axes."""
    wide = _wide(x)
    centered = subtract(wide, mean(wide, axes, keepdims=True))
    variance = mean(multiply(centered, centered), axes, keepdims=True)
    return multiply(centered, rsqrt(add(variance, epsilon)))


def _along(v: Any, axis: int, ndim: int) -> NDArray:
    v = as_array("normalization", "gamma or beta", v)
    if v.ndim != 1:
        raise ValueError(f"normalization: gamma and beta: expected one axis, got shape {v.shape}")
    return reshape(v, tuple(v.shape[0] if k == axis else 1 for k in range(ndim)))


def _scaled(x: NDArray, out: NDArray, gamma: Any, beta: Any, axis: int) -> NDArray:
    if gamma is not None:
        out = multiply(out, _along(gamma, axis, x.ndim))
    if beta is not None:
        out = add(out, _along(beta, axis, x.ndim))
    return convert(out, x.dtype)


def layer_norm(x: Any, gamma: Any = None, beta: Any = None, /, axis: int = -1, eps: float = 1e-5) -> NDArray:
    """``(x - mean) / sqrt(var + eps) * gamma + beta`` with the statistics along one axis; gamma and beta: its size
    (Ba et al., 2016).

    >>> import ndarray as nd
    >>> nd.layer_norm(nd.array([1.0, 3.0]), eps=0.0).tolist()
    [-1.0, 1.0]
    """
    x = as_floating("layer_norm", x)
    axis = normalize_axis("layer_norm", axis, x.ndim)
    return _scaled(x, _normalized(x, (axis,), eps), gamma, beta, axis)


def rms_norm(x: Any, gamma: Any = None, /, axis: int = -1, eps: float = 1e-5) -> NDArray:
    """``x / sqrt(mean(x**2) + eps) * gamma`` along one axis (Zhang and Sennrich, 2019).

    >>> import ndarray as nd
    >>> nd.rms_norm(nd.array([3.0, 3.0]), eps=0.0).tolist()
    [1.0, 1.0]
    """
    x = as_floating("rms_norm", x)
    axis = normalize_axis("rms_norm", axis, x.ndim)
    wide = _wide(x)
    out = multiply(wide, rsqrt(add(mean(multiply(wide, wide), axis, keepdims=True), eps)))
    return _scaled(x, out, gamma, None, axis)


def group_norm(x: Any, gamma: Any = None, beta: Any = None, /, num_groups: int = 1, eps: float = 1e-5) -> NDArray:
    """x: (N, C, *spatial), normalized over each of the `num_groups` groups of channels; gamma and beta: (C,)
    (Wu and He, 2018).

    >>> import ndarray as nd
    >>> nd.group_norm(nd.array([[1.0, 3.0, 5.0, 5.0]]), num_groups=2, eps=0.01).shape
    (1, 4)
    """
    x = as_floating("group_norm", x)
    if x.ndim < 2 or x.shape[1] % num_groups != 0:
        raise ValueError(f"group_norm: x: expected (N, C, ...) with C divisible by {num_groups}, got shape {x.shape}")
    grouped = reshape(x, (x.shape[0], num_groups, x.shape[1] // num_groups, *x.shape[2:]))
    out = reshape(_normalized(grouped, tuple(range(2, grouped.ndim)), eps), x.shape)
    return _scaled(x, out, gamma, beta, 1)


def instance_norm(x: Any, gamma: Any = None, beta: Any = None, /, axis: int = 1, eps: float = 1e-5) -> NDArray:
    """x normalized over all axes but the first and the channel axis; gamma and beta: (C,) (Ulyanov et al., 2016).

    >>> import ndarray as nd
    >>> nd.instance_norm(nd.array([[[1.0, 3.0]]]), eps=0.0).tolist()
    [[[-1.0, 1.0]]]
    """
    x = as_floating("instance_norm", x)
    axis = normalize_axis("instance_norm", axis, x.ndim)
    axes = tuple(k for k in range(1, x.ndim) if k != axis)
    return _scaled(x, _normalized(x, axes, eps), gamma, beta, axis)


def batch_norm(
    x: Any, gamma: Any = None, beta: Any = None, running_mean: Any = None, running_var: Any = None, /, eps: float = 1e-5,
    axis: int = 1, use_global_stats: bool = False, fix_gamma: bool = False,
) -> tuple[NDArray, NDArray, NDArray]:
    """(out, mean, var): x normalized over all axes but the channel axis, scaled and shifted; and the statistics used
    (Ioffe and Szegedy, 2015).

    The statistics are the batch's, or the running ones if `use_global_stats`; gamma, beta and the statistics: (C,). With
    `fix_gamma`, gamma counts as 1.

    >>> import ndarray as nd
    >>> out, mean, var = nd.batch_norm(nd.array([[1.0], [3.0]]), eps=0.0)
    >>> out.tolist(), mean.tolist(), var.tolist()
    ([[-1.0], [1.0]], [2.0], [1.0])
    """
    x = as_floating("batch_norm", x)
    axis = normalize_axis("batch_norm", axis, x.ndim)
    wide = _wide(x)
    if use_global_stats:
        if running_mean is None or running_var is None:
            raise ValueError("batch_norm: use_global_stats needs running_mean and running_var")
        center = as_array("batch_norm", "running_mean", running_mean)
        variance = as_array("batch_norm", "running_var", running_var)
        centered = subtract(wide, _along(center, axis, x.ndim))
    else:
        axes = tuple(k for k in range(x.ndim) if k != axis)
        center = mean(wide, axes)
        # Moments about a constant origin, which happens to be the mean: the same function, and in its gradient what comes by way
        # of the mean is a number a channel. Written with `center` itself, it takes two passes over x more.
        origin = stop_gradient(center)
        rest = subtract(center, origin)
        centered = subtract(wide, _along(origin, axis, x.ndim))
        variance = subtract(mean(multiply(centered, centered), axes), multiply(rest, rest))
    factor = rsqrt(add(variance, eps))
    if gamma is not None and not fix_gamma:
        factor = multiply(factor, gamma)
    if not use_global_stats:
        shift = multiply(rest, factor)
        beta = negative(shift) if beta is None else subtract(beta, shift)
    out = multiply(centered, _along(factor, axis, x.ndim))
    return _scaled(x, out, None, beta, axis), center, variance


def l2_normalization(x: Any, /, eps: float = 1e-10, mode: str = "instance") -> NDArray:
    """``x / sqrt(sum(x**2) + eps)``: the sum over all axes but the first ("instance"), over axis 1 ("channel") or over the
    axes behind the second ("spatial").

    >>> import ndarray as nd
    >>> nd.l2_normalization(nd.array([[3.0, 4.0]]), eps=0.0).shape
    (1, 2)
    """
    x = as_floating("l2_normalization", x)
    axes = {"instance": tuple(range(1, x.ndim)), "channel": (1,), "spatial": tuple(range(2, x.ndim))}.get(mode)
    if axes is None:
        raise ValueError(f"l2_normalization: mode: expected 'instance', 'channel' or 'spatial', got {mode!r}")
    wide = _wide(x)
    return convert(divide(wide, sqrt(add(sum(multiply(wide, wide), axes, keepdims=True), eps))), x.dtype)


def lrn(x: Any, /, nsize: int, alpha: float = 1e-4, beta: float = 0.75, knorm: float = 2.0) -> NDArray:
    """``x / (knorm + alpha / nsize * sum of x**2 over the nsize neighbouring channels) ** beta`` (Krizhevsky et al., 2012).

    x: (N, C, ...); channels that do not exist count as zeros. Raises ValueError unless `nsize` is odd and positive.

    >>> import ndarray as nd
    >>> nd.lrn(nd.array([[1.0, 2.0]]), nsize=1, alpha=1.0, beta=1.0, knorm=0.0).tolist()
    [[1.0, 0.5]]
    """
    x = as_floating("lrn", x)
    if x.ndim < 2:
        raise ValueError(f"lrn: x: expected (N, C, ...), got shape {x.shape}")
    if nsize < 1 or nsize % 2 == 0:
        raise ValueError(f"lrn: nsize: expected an odd number of at least 1, got {nsize}")
    wide = _wide(x)
    squares = swapaxes(multiply(wide, wide), 1, -1)
    half = nsize // 2
    near = primitive("sum_pool", squares, kernel=(nsize,), stride=(1,), padding=((half, half),))
    scale = add(multiply(swapaxes(near, 1, -1), alpha / nsize), knorm)
    return convert(multiply(wide, power(scale, -beta)), x.dtype)


def moments(x: Any, /, axes: Any = None, keepdims: bool = False) -> tuple[NDArray, NDArray]:
    """(mean, variance) over some axes (None: all), in x's dtype; the variance divides by the count.

    >>> import ndarray as nd
    >>> mean, variance = nd.moments(nd.array([1.0, 3.0]))
    >>> mean.item(), variance.item()
    (2.0, 1.0)
    """
    x = as_floating("moments", x)
    found = normalize_axes("moments", axes, x.ndim, "axes")
    wide = _wide(x)
    center = mean(wide, found, keepdims=True)
    centered = subtract(wide, center)
    variance = mean(multiply(centered, centered), found, keepdims=keepdims)
    kept = tuple(1 if k in found else n for k, n in enumerate(x.shape) if keepdims or k not in found)
    return convert(reshape(center, kept), x.dtype), convert(variance, x.dtype)
