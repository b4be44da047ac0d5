"""Pooling: the maximum, mean or p-norm of windows over 1 to 3 spatial axes, of all positions, or of equal parts."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .array import NDArray, wrap
from .convolutional import channels_last, one_each, pad_pairs
from .dtypes import float32
from .elementwise import abs, divide, multiply, not_equal, power, sqrt, where
from .linear import matmul
from .manipulation import reshape, swapaxes
from .operands import as_floating, convert, primitive
from .reduction import max, mean

__all__ = [
    "adaptive_avg_pool", "adaptive_max_pool", "avg_pool", "avg_pooling", "global_avg_pool", "global_max_pool", "lp_pool",
    "max_pool", "max_pooling", "pooling",
]

_CONVENTIONS = ("valid", "full", "same")


class _Windows:
    """What the pooling functions share: x, the attributes of the primitives, and for how many elements each window counts."""

    def __init__(
        self, name: str, x: Any, kernel: Any, stride: Any, padding: Any, ceil_mode: bool, convention: str, layout: str | None
    ):
        self.x = x = as_floating(name, x)
        rank = len(kernel) if isinstance(kernel, (tuple, list)) else x.ndim - 2
        if rank < 1 or rank > x.ndim:
            raise ValueError(f"{name}: x: expected as many spatial axes behind (N, C) as kernel {kernel} has, got {x.shape}")
        if convention not in _CONVENTIONS:
            raise ValueError(f"{name}: pooling_convention: expected one of {', '.join(_CONVENTIONS)}, got {convention!r}")
        last = channels_last(name, layout, rank)
        self.first = first = 1 if last else x.ndim - rank  # the first spatial axis
        self.sizes = sizes = x.shape[first : first + rank]
        self.kernel = size = one_each(name, "kernel", kernel, rank)
        steps = size if stride is None or stride == () else one_each(name, "stride", stride, rank)
        self.asked = asked = pad_pairs(name, padding, rank)
        for k, (a, b) in zip(size, asked):
            if a >= k or b >= k:
                raise ValueError(f"{name}: padding: expected less than the kernel {size}, got {padding}")
        pads = asked
        if ceil_mode or convention != "valid":
            wider = []
            for n, k, s, (a, b) in zip(sizes, size, steps, asked):
                count = -(-n // s) if convention == "same" else -(-(n + a + b - k) // s) + 1
                if ceil_mode and convention == "valid" and (count - 1) * s >= n + a:
                    count -= 1  # the last window must start inside
                grown = (count - 1) * s + k - n - a
                wider.append((a, grown if grown > b else b))
            pads = tuple(wider)
        self.steps, self.pads = steps, pads
        tail = ((1,), (1,), ((0, 0),)) if last else ((), (), ())
        self.attrs = {"kernel": size + tail[0], "stride": steps + tail[1], "padding": pads + tail[2]}
        self.tail = 1 if last else 0

    def counts(self, include_pad: bool) -> Any:
        """How many elements each window has: a number, or an array that broadcasts over the result."""
        x, total = self.x, math.prod(self.kernel)
        if (include_pad and self.asked == self.pads) or not any(a or b for a, b in self.pads):
            return total
        counts = np.ones((), x.dtype)
        for n, k, s, (a, b), (low, high) in zip(self.sizes, self.kernel, self.steps, self.pads, self.asked):
            n = int(n)
            first, last = (-low, n + high) if include_pad else (0, n)
            starts = np.arange(-a, n + b - k + 1, s)
            line = np.minimum(starts + k, last) - np.maximum(starts, first)
            counts = counts[..., None] * np.maximum(line, 1).astype(x.dtype)
        counts = counts.reshape(counts.shape + (1,) * self.tail)
        return wrap(x._device.module.asarray(counts), x._device)


def max_pool(
    x: Any, /, kernel: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False, layout: str | None = None,
    pooling_convention: str = "valid",
) -> NDArray:
    """The maximum of each window over the spatial axes. Padding never wins; the gradient goes to the first maximum.

    x                   (N, C, *spatial), or any axes before the spatial ones; (N, *spatial, C) for a layout like "NHWC"
    kernel, stride      a number, or one for each spatial axis; stride is the kernel if None
    padding             a number, or a number or pair for each
    ceil_mode           a last window that is partly outside counts, if it starts inside (PyTorch's rule)
    pooling_convention  MXNet's: "valid", "full" (counts are rounded up wherever the window starts), "same" (size / stride,
                        rounded up)

    Raises ValueError naming the argument that does not fit.

    >>> import ndarray as nd
    >>> nd.max_pool(nd.array([[[1.0, 3.0, 2.0, 0.0]]]), 2).tolist()
    [[[3.0, 2.0]]]
    """
    w = _Windows("max_pool", x, kernel, stride, padding, ceil_mode, pooling_convention, layout)
    return primitive("max_pool", w.x, **w.attrs)[0]


def avg_pool(
    x: Any, /, kernel: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False, count_include_pad: bool = True,
    layout: str | None = None, pooling_convention: str = "valid",
) -> NDArray:
    """The mean of each window over the spatial axes. Padding counts as zeros, or not at all if not `count_include_pad`; what
    rounding up adds beyond it never counts. The other arguments are those of `max_pool`.

    >>> import ndarray as nd
    >>> nd.avg_pool(nd.array([[[1.0, 3.0, 2.0]]]), 2, 2, (1,), count_include_pad=False).tolist()
    [[[1.0, 2.5]]]
    """
    w = _Windows("avg_pool", x, kernel, stride, padding, ceil_mode, pooling_convention, layout)
    return divide(primitive("sum_pool", w.x, **w.attrs), w.counts(count_include_pad))


max_pooling, avg_pooling = max_pool, avg_pool


def lp_pool(
    x: Any, /, kernel: Any, stride: Any = None, padding: Any = 0, p_value: float = 2, ceil_mode: bool = False,
    layout: str | None = None, pooling_convention: str = "valid",
) -> NDArray:
    """``sum(|x|**p_value) ** (1/p_value)`` of each window. The gradient where a window is all zeros is 0.

    The other arguments are those of `max_pool`. Raises ValueError unless ``p_value > 0``.

    >>> import ndarray as nd
    >>> nd.lp_pool(nd.array([[[3.0, 4.0]]]), 2).tolist()
    [[[5.0]]]
    """
    if not p_value > 0:
        raise ValueError(f"lp_pool: p_value: expected a positive number, got {p_value}")
    w = _Windows("lp_pool", x, kernel, stride, padding, ceil_mode, pooling_convention, layout)
    if p_value == 1:
        return primitive("sum_pool", abs(w.x), **w.attrs)
    wide = convert(w.x, float32) if w.x.dtype.itemsize < 4 else w.x  # powers leave the range of half precision
    total = primitive("sum_pool", multiply(wide, wide) if p_value == 2 else power(abs(wide), p_value), **w.attrs)
    some = not_equal(total, 0)
    safe = where(some, total, 1)
    return convert(where(some, sqrt(safe) if p_value == 2 else power(safe, 1 / p_value), 0), w.x.dtype)


def _spatial(name: str, x: Any, layout: str | None) -> tuple[NDArray, tuple[int, ...]]:
    """x, and its spatial axes."""
    x = as_floating(name, x)
    if x.ndim < 3:
        raise ValueError(f"{name}: x: expected (N, C, *spatial), got shape {x.shape}")
    last = channels_last(name, layout, x.ndim - 2)
    return x, tuple(range(1, x.ndim - 1)) if last else tuple(range(2, x.ndim))


def global_max_pool(x: Any, /, layout: str | None = None) -> NDArray:
    """The maximum over all spatial axes of (N, C, *spatial), which stay with size 1.

    >>> import ndarray as nd
    >>> nd.global_max_pool(nd.array([[[1.0, 3.0]]])).tolist()
    [[[3.0]]]
    """
    x, axes = _spatial("global_max_pool", x, layout)
    return max(x, axes, keepdims=True)


def global_avg_pool(x: Any, /, layout: str | None = None) -> NDArray:
    """The mean over all spatial axes of (N, C, *spatial), which stay with size 1.

    >>> import ndarray as nd
    >>> nd.global_avg_pool(nd.array([[[1.0, 3.0]]])).tolist()
    [[[2.0]]]
    """
    x, axes = _spatial("global_avg_pool", x, layout)
    return mean(x, axes, keepdims=True)


def _parts(
    name: str, x: Any, output_size: Any, layout: str | None
) -> tuple[NDArray, list[tuple[int, int, list[tuple[int, int]]]]]:
    """x, and for each spatial axis: (axis, its size, the bounds of its parts)."""
    x, axes = _spatial(name, x, layout)
    given = (output_size,) * len(axes) if output_size is None or isinstance(output_size, int) else tuple(output_size)
    if len(given) != len(axes) or any(n is not None and n < 1 for n in given):
        raise ValueError(f"{name}: output_size: expected a positive size or None for each of {len(axes)} axes, got {output_size}")
    plans = []
    for axis, count in zip(axes, given):
        n = int(x.shape[axis])
        count = n if count is None else count
        plans.append((axis, n, [(i * n // count, -(-(i + 1) * n // count)) for i in range(count)]))
    return x, plans


def adaptive_avg_pool(x: Any, /, output_size: Any = 1, layout: str | None = None) -> NDArray:
    """The mean of the windows that divide the spatial axes of (N, C, *spatial) into `output_size` parts each.

    Part i of n covers ``floor(i*size/n)`` to ``ceil((i+1)*size/n)``; None keeps an axis. Sizes must be known.

    >>> import ndarray as nd
    >>> nd.adaptive_avg_pool(nd.array([[[1.0, 3.0, 5.0]]]), 2).tolist()
    [[[2.0, 4.0]]]
    """
    x, plans = _parts("adaptive_avg_pool", x, output_size, layout)
    for axis, n, bounds in plans:
        if len(bounds) == 1:
            x = mean(x, axis, keepdims=True)
        elif len(bounds) != n:
            weights = np.zeros((n, len(bounds)), x.dtype)
            for i, (first, last) in enumerate(bounds):
                weights[first:last, i] = 1 / (last - first)
            moved = swapaxes(x, axis, -1)
            x = swapaxes(matmul(moved, wrap(x._device.module.asarray(weights), x._device)), axis, -1)
    return x


def adaptive_max_pool(x: Any, /, output_size: Any = 1, layout: str | None = None) -> NDArray:
    """The maximum of the windows of `adaptive_avg_pool`. Equal maxima share the gradient.

    >>> import ndarray as nd
    >>> nd.adaptive_max_pool(nd.array([[[1.0, 5.0, 3.0]]]), 2).tolist()
    [[[5.0, 5.0]]]
    """
    x, plans = _parts("adaptive_max_pool", x, output_size, layout)
    for axis, n, bounds in plans:
        if len(bounds) == 1:
            x = max(x, axis, keepdims=True)
        elif n % len(bounds) == 0:
            x = max(reshape(x, (*x.shape[:axis], len(bounds), n // len(bounds), *x.shape[axis + 1 :])), axis + 1)
        else:  # shorter parts repeat their last element
            width = int(np.max([last - first for first, last in bounds]))
            table = np.array([[k if k < last else last - 1 for k in range(first, first + width)] for first, last in bounds])
            x = max(primitive("take", x, wrap(x._device.module.asarray(table), x._device), axis=axis, mode="clip"), axis + 1)
    return x


_KINDS = ("max", "avg", "sum", "lp")


def pooling(
    x: Any, /, kernel: Any = 1, pool_type: str = "max", global_pool: bool = False, stride: Any = None, pad: Any = 0,
    pooling_convention: str = "valid", count_include_pad: bool = True, p_value: float = 2, layout: str | None = None,
) -> NDArray:
    """MXNet's pooling of all kinds: `max_pool`, `avg_pool`, `lp_pool`, or the sum of each window; stride is 1 if None. With
    `global_pool`, of all positions. Raises ValueError for an unknown `pool_type`.

    >>> import ndarray as nd
    >>> nd.pooling(nd.array([[[1.0, 3.0, 2.0]]]), (2,), "sum").tolist()
    [[[4.0, 5.0]]]
    """
    if pool_type not in _KINDS:
        raise ValueError(f"pooling: pool_type: expected one of {', '.join(_KINDS)}, got {pool_type!r}")
    if global_pool:
        x, axes = _spatial("pooling", x, layout)
        kernel, stride, pad = tuple(int(x.shape[a]) for a in axes), None, 0
    elif stride is None or stride == ():
        stride = 1
    options: dict[str, Any] = {"layout": layout, "pooling_convention": pooling_convention}
    if pool_type == "max":
        return max_pool(x, kernel, stride, pad, **options)
    if pool_type == "avg":
        return avg_pool(x, kernel, stride, pad, count_include_pad=count_include_pad, **options)
    if pool_type == "lp":
        return lp_pool(x, kernel, stride, pad, p_value, **options)
    w = _Windows("pooling", x, kernel, stride, pad, False, pooling_convention, layout)
    return primitive("sum_pool", w.x, **w.attrs)
