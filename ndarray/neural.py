"""The functions of neural networks: activations, softmax, losses, convolution, pooling, normalization, embedding, dropout.

Plain compositions of primitives, which the compiler fuses. Layers with parameters are in `blocks`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from .apply import apply
from .array import NDArray, literal, wrap
from .dims import Size, product
from .dtypes import canonical, default_float, float32, is_inexact
from .elementwise import (
    abs,
    add,
    cast,
    divide,
    equal,
    erf,
    exp,
    expm1,
    greater,
    less,
    log,
    log1p,
    maximum,
    minimum,
    multiply,
    negative,
    rsqrt,
    sqrt,
    stop_gradient,
    subtract,
    tanh,
    where,
)
from .linear import matmul
from .manipulation import expand_dims, reshape, squeeze, swapaxes, take_along_axis
from .op import OPS
from .operands import as_array, as_floating, common, convert, integers, is_number, normalize_axes, normalize_axis, primitive
from .ops.base import is_one
from .reduction import max, mean, sum

__all__ = [
    "activation", "adaptive_avg_pool", "avg_pool", "avg_pooling", "batch_flatten", "batch_norm", "convolution", "deconvolution",
    "dropout", "elu", "embedding", "fully_connected", "gelu", "global_avg_pool", "global_max_pool", "group_norm", "hard_sigmoid",
    "instance_norm", "l2_normalization", "layer_norm", "leaky_relu", "log_sigmoid", "log_softmax", "masked_log_softmax",
    "masked_softmax", "max_pool", "max_pooling", "mish", "one_hot", "pick", "relu", "rms_norm", "selu", "sigmoid", "silu",
    "smooth_l1", "softmax", "softmax_cross_entropy", "softmin", "softplus", "softsign", "swish",
]


# -- activations

def relu(x: Any, /) -> NDArray:
    """``max(x, 0)``, elementwise; the gradient at 0 is 0."""
    x = as_array("relu", "x", x)
    return primitive("relu", x if x.dtype.kind != "b" else convert(x, default_float))


def sigmoid(x: Any, /) -> NDArray:
    """``1 / (1 + exp(-x))``, elementwise."""
    return primitive("sigmoid", as_floating("sigmoid", x))


def log_sigmoid(x: Any, /) -> NDArray:
    """``log(sigmoid(x))``, without overflow."""
    return negative(softplus(negative(as_floating("log_sigmoid", x))))


def softplus(x: Any, /) -> NDArray:
    """``log(1 + exp(x))``, without overflow."""
    x = as_floating("softplus", x)
    return add(relu(x), log1p(exp(negative(abs(x)))))


def softsign(x: Any, /) -> NDArray:
    """``x / (1 + |x|)``."""
    x = as_floating("softsign", x)
    return divide(x, add(1, abs(x)))


def gelu(x: Any, /, approximation: str = "none") -> NDArray:
    """``x * P(N <= x)`` for a standard normal N: with erf, or by the usual tanh formula if `approximation` is "tanh"."""
    x = as_floating("gelu", x)
    half = multiply(0.5, x)
    if approximation in ("none", "erf"):
        return add(half, multiply(half, erf(multiply(x, 1 / math.sqrt(2)))))
    if approximation != "tanh":
        raise ValueError(f"gelu: approximation: expected 'none' or 'tanh', got {approximation!r}")
    inner = multiply(math.sqrt(2 / math.pi), multiply(x, add(1, multiply(0.044715, multiply(x, x)))))
    return add(half, multiply(half, tanh(inner)))


def silu(x: Any, /) -> NDArray:
    """``x * sigmoid(x)``."""
    x = as_floating("silu", x)
    return multiply(x, sigmoid(x))


def swish(x: Any, /, beta: float = 1.0) -> NDArray:
    """``x * sigmoid(beta * x)``."""
    x = as_floating("swish", x)
    return multiply(x, sigmoid(x if beta == 1.0 else multiply(beta, x)))


def mish(x: Any, /) -> NDArray:
    """``x * tanh(softplus(x))``."""
    x = as_floating("mish", x)
    return multiply(x, tanh(softplus(x)))


def leaky_relu(x: Any, /, slope: Any = 0.25) -> NDArray:
    """x where it is positive, else ``slope * x``; the slope is a number or an array."""
    x = as_floating("leaky_relu", x)
    return where(greater(x, 0), x, multiply(slope, x))


def elu(x: Any, /, alpha: float = 1.0) -> NDArray:
    """x where it is positive, else ``alpha * (exp(x) - 1)``."""
    x = as_floating("elu", x)
    return where(greater(x, 0), x, multiply(alpha, expm1(minimum(x, 0.0))))


def selu(x: Any, /) -> NDArray:
    """The scaled `elu` that keeps mean 0 and variance 1 (Klambauer et al., 2017)."""
    return multiply(1.0507009873554805, elu(x, 1.6732632423543772))


def hard_sigmoid(x: Any, /, alpha: float = 0.2, beta: float = 0.5) -> NDArray:
    """``alpha * x + beta``, limited to [0, 1]."""
    return minimum(maximum(add(multiply(alpha, as_floating("hard_sigmoid", x)), beta), 0.0), 1.0)


_ACTIVATIONS = {
    "relu": relu, "sigmoid": sigmoid, "tanh": tanh, "softrelu": softplus, "softsign": softsign, "gelu": gelu, "silu": silu,
    "swish": swish, "mish": mish, "elu": elu, "selu": selu, "log_sigmoid": log_sigmoid, "leaky": leaky_relu,
}


def activation(x: Any, /, act_type: str = "relu") -> NDArray:
    """The activation function called `act_type`."""
    if act_type not in _ACTIVATIONS:
        raise ValueError(f"activation: act_type: expected one of {', '.join(_ACTIVATIONS)}, got {act_type!r}")
    return _ACTIVATIONS[act_type](x)


# -- softmax and losses

def _exponentials(name: str, x: Any, axis: Any, temperature: float | None) -> tuple[NDArray, tuple[int, ...]]:
    """x minus its maximum along the axis, and the axes."""
    x = as_floating(name, x)
    axes = normalize_axes(name, axis, x.ndim)
    if temperature is not None and temperature != 1.0:
        x = divide(x, temperature)
    return subtract(x, max(stop_gradient(x), axes, keepdims=True)), axes


def softmax(x: Any, /, axis: Any = -1, temperature: float | None = None) -> NDArray:
    """``exp(x) / sum(exp(x))`` along an axis (or several), after division by `temperature`; without overflow."""
    shifted, axes = _exponentials("softmax", x, axis, temperature)
    grown = exp(shifted)
    return divide(grown, sum(grown, axes, keepdims=True))


def softmin(x: Any, /, axis: Any = -1) -> NDArray:
    """``softmax(-x)``."""
    return softmax(negative(as_floating("softmin", x)), axis)


def log_softmax(x: Any, /, axis: Any = -1, temperature: float | None = None) -> NDArray:
    """``log(softmax(x))``, without overflow."""
    shifted, axes = _exponentials("log_softmax", x, axis, temperature)
    return subtract(shifted, log(sum(exp(shifted), axes, keepdims=True)))


def masked_softmax(x: Any, mask: Any, /, axis: Any = -1, temperature: float | None = None) -> NDArray:
    """`softmax` over the elements where the mask is true; 0 elsewhere (everywhere where nothing is left)."""
    x = as_floating("masked_softmax", x)
    mask = as_array("masked_softmax", "mask", mask)
    lowest = float(np.finfo(x.dtype if x.dtype.kind == "f" else np.float32).min)
    return where(mask, softmax(where(mask, x, lowest), axis, temperature), 0)


def masked_log_softmax(x: Any, mask: Any, /, axis: Any = -1, temperature: float | None = None) -> NDArray:
    """`log_softmax` over the elements where the mask is true; -inf elsewhere."""
    x = as_floating("masked_log_softmax", x)
    mask = as_array("masked_log_softmax", "mask", mask)
    lowest = float(np.finfo(x.dtype if x.dtype.kind == "f" else np.float32).min)
    return where(mask, log_softmax(where(mask, x, lowest), axis, temperature), -math.inf)


def pick(x: Any, index: Any, /, axis: int = -1, keepdims: bool = False, mode: str = "clip") -> NDArray:
    """The element ``x[..., index[...], ...]`` for each position of the other axes. Floating indices are rounded down.

    `index` has x's shape without `axis` (or with size 1 there). Negative ones count from the end; those beyond the ends
    mean the ends.
    """
    x = as_array("pick", "x", x)
    index = integers("pick", as_array("pick", "index", index), "index")
    axis = normalize_axis("pick", axis, x.ndim)
    if index.ndim == x.ndim - 1:
        index = expand_dims(index, axis)
    elif index.ndim != x.ndim or not is_one(index.shape[axis]):
        raise ValueError(f"pick: index: expected x's shape {x.shape} without axis {axis}, got {index.shape}")
    if mode not in ("clip", "wrap"):
        raise ValueError(f"pick: mode: expected 'clip' or 'wrap', got {mode!r}")
    out = take_along_axis(x, index if mode == "clip" else index % x.shape[axis], axis)
    return out if keepdims else squeeze(out, axis)


def one_hot(indices: Any, depth: Size, on_value: float = 1.0, off_value: float = 0.0, dtype: Any = "float32") -> NDArray:
    """`on_value` at position ``indices[...]`` of a new last axis of size `depth`, `off_value` elsewhere."""
    indices = integers("one_hot", as_array("one_hot", "indices", indices))
    with indices._device:
        positions = apply(OPS["iota"], shape=(depth,), axis=0, dtype=indices.dtype)
    hit = equal(expand_dims(indices, -1), positions)
    dtype = canonical(dtype)
    return cast(hit, dtype) if on_value == 1 and off_value == 0 else cast(where(hit, float(on_value), float(off_value)), dtype)


def softmax_cross_entropy(logits: Any, labels: Any, /, axis: int = -1) -> NDArray:
    """``-log(softmax(logits))[label]`` for each position: labels are class numbers, or probabilities of logits' shape."""
    logits, labels = as_floating("softmax_cross_entropy", logits), as_array("softmax_cross_entropy", "labels", labels)
    if labels.ndim == logits.ndim and is_inexact(labels.dtype):
        return negative(sum(multiply(log_softmax(logits, axis), labels), axis))
    return negative(pick(log_softmax(logits, axis), labels, axis))


def smooth_l1(x: Any, /, scalar: float = 1.0) -> NDArray:
    """``(scalar*x)**2 / 2`` where ``|x| < 1/scalar**2``, else ``|x| - 0.5/scalar**2``."""
    x = as_floating("smooth_l1", x)
    limit = 1.0 / scalar**2
    return where(less(abs(x), limit), multiply(0.5 * scalar**2, multiply(x, x)), subtract(abs(x), 0.5 * limit))


# -- layers as functions

def fully_connected(
    x: Any, weight: Any, bias: Any = None, /, num_hidden: int | None = None, no_bias: bool = False, flatten: bool = True
) -> NDArray:
    """``x @ weight.T + bias``. x: (N, ...), all axes but the first flattened into one if `flatten`, else the last is
    contracted; weight: (units, inputs); bias: (units,)."""
    x, weight = common("fully_connected", x, weight, arguments=("x", "weight"))
    if weight.ndim != 2:
        raise ValueError(f"fully_connected: weight: expected shape (units, inputs), got {weight.shape}")
    if flatten and x.ndim != 2:
        x = reshape(x, (x.shape[0], product(x.shape[1:])))
    if x.shape[-1] != weight.shape[1]:
        raise ValueError(
            f"fully_connected: weight: expected shape (units, {x.shape[-1]}) for x of shape {x.shape}, got {weight.shape}"
        )
    out = primitive("dot_general", x, weight, contract=((x.ndim - 1,), (1,)), batch=((), ()))
    return out if bias is None or no_bias else add(out, bias)


def embedding(indices: Any, weight: Any, /, input_dim: int | None = None, output_dim: int | None = None) -> NDArray:
    """The rows of `weight` at `indices` (any shape); indices beyond the ends mean the ends."""
    indices, weight = as_array("embedding", "indices", indices), as_array("embedding", "weight", weight)
    if weight.ndim != 2:
        raise ValueError(f"embedding: weight: expected shape (entries, features), got {weight.shape}")
    return primitive("take", weight, integers("embedding", indices), axis=0, mode="clip")


def batch_flatten(x: Any, /) -> NDArray:
    """All axes but the first as one."""
    x = as_array("batch_flatten", "x", x)
    return reshape(x, (x.shape[0], product(x.shape[1:])))


def dropout(x: Any, /, p: float = 0.5, axes: Sequence[int] = (), mode: str = "training") -> NDArray:
    """x with a random part `p` of the elements set to 0 and the rest divided by ``1 - p``, while training.

    Along `axes` all elements share one draw. `mode` "always" does so in prediction too. Raises ValueError unless 0 <= p <= 1.
    """
    from . import autograd, random

    if not 0 <= p <= 1:
        raise ValueError(f"dropout: p: expected 0 to 1, got {p}")
    x = as_floating("dropout", x)
    if p == 0 or not (mode == "always" or autograd.is_training()):
        return x
    if p == 1:
        return multiply(x, 0)
    shared = normalize_axes("dropout", tuple(axes), x.ndim, "axes") if axes else ()
    shape = tuple(1 if k in shared else n for k, n in enumerate(x.shape))
    bits = random.bits(shape, device=x._device)
    threshold = int(p * 2.0**32)  # bits below it are dropped
    keep = primitive("greater_equal", bits, literal(threshold, bits.dtype, bits._device))
    return where(keep, multiply(x, 1.0 / (1.0 - p)), 0)


# -- convolution

def _tuple(name: str, argument: str, value: Any, rank: int) -> tuple[int, ...]:
    values = (value,) * rank if is_number(value) else tuple(value)
    if len(values) != rank:
        raise ValueError(f"{name}: {argument}: expected a number or {rank} of them, got {value}")
    return tuple(int(v) for v in values)


def _pads(name: str, value: Any, rank: int) -> tuple[tuple[int, int], ...]:
    values = (value,) * rank if is_number(value) else tuple(value)
    if len(values) != rank:
        raise ValueError(f"{name}: padding: expected a number, or a number or pair for each of {rank} axes, got {value}")
    return tuple((int(v), int(v)) if is_number(v) else (int(v[0]), int(v[1])) for v in values)


def convolution(
    x: Any, weight: Any, bias: Any = None, /, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1
) -> NDArray:
    """The cross-correlation of x with each filter, over 1 to 3 spatial axes.

    x: (N, C, *spatial); weight: (O, C/groups, *kernel); bias: (O,); result: (N, O, *positions). stride, padding and
    dilation are a number or one for each spatial axis; padding may be pairs (before, after).
    Raises ValueError naming the argument that does not fit.
    """
    x, weight = common("convolution", x, weight, arguments=("x", "weight"))
    rank = x.ndim - 2
    if rank not in (1, 2, 3) or weight.ndim != x.ndim:
        raise ValueError(
            f"convolution: x and weight: expected (N, C, *spatial) and (O, C/groups, *kernel) with 1 to 3 spatial axes, "
            f"got shapes {x.shape} and {weight.shape}"
        )
    attrs = {
        "stride": _tuple("convolution", "stride", stride, rank), "padding": _pads("convolution", padding, rank),
        "dilation": _tuple("convolution", "dilation", dilation, rank), "groups": int(groups),
    }
    return _with_bias(primitive("convolution", x, weight, **attrs), bias)


def _with_bias(out: NDArray, bias: Any) -> NDArray:
    if bias is None:
        return out
    bias = as_array("convolution", "bias", bias)
    if bias.ndim != 1:
        raise ValueError(f"convolution: bias: expected shape ({out.shape[1]},), got {bias.shape}")
    return add(out, reshape(bias, (bias.shape[0],) + (1,) * (out.ndim - 2)))


def deconvolution(
    x: Any, weight: Any, bias: Any = None, /, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1,
    output_padding: Any = 0,
) -> NDArray:
    """The transposed convolution: the gradient of `convolution` with respect to its input.

    x: (N, C, *spatial); weight: (C, O/groups, *kernel); bias: (O,); result: (N, O, *sizes) with
    ``size = (n - 1) * stride - padding before - after + dilation * (kernel - 1) + output_padding + 1``.
    """
    x, weight = common("deconvolution", x, weight, arguments=("x", "weight"))
    rank = x.ndim - 2
    if rank not in (1, 2, 3) or weight.ndim != x.ndim:
        raise ValueError(
            f"deconvolution: x and weight: expected (N, C, *spatial) and (C, O/groups, *kernel), got {x.shape}, {weight.shape}"
        )
    steps, dilated = _tuple("deconvolution", "stride", stride, rank), _tuple("deconvolution", "dilation", dilation, rank)
    pads, extra = _pads("deconvolution", padding, rank), _tuple("deconvolution", "output_padding", output_padding, rank)
    for e, s, d in zip(extra, steps, dilated):
        if not 0 <= e < (s if s > d else d):
            raise ValueError(f"deconvolution: output_padding: expected less than stride or dilation, got {output_padding}")
    sizes = tuple(
        (n - 1) * s - a - b + d * (k - 1) + e + 1
        for n, s, (a, b), d, k, e in zip(x.shape[2:], steps, pads, dilated, weight.shape[2:], extra)
    )
    shape = (x.shape[0], weight.shape[1] * groups, *sizes)
    attrs = {"shape": shape, "stride": steps, "padding": pads, "dilation": dilated, "groups": int(groups)}
    out = primitive("convolution_data_gradient", x, weight, **attrs)
    return _with_bias(out, bias)


# -- pooling

def _windows(
    name: str, x: Any, kernel: Any, stride: Any, padding: Any, ceil_mode: bool
) -> tuple[NDArray, dict[str, Any], tuple[tuple[int, int], ...]]:
    """x, the attributes of the pooling primitives, and the padding that was asked for (without what rounding up adds)."""
    x = as_floating(name, x)
    rank = len(kernel) if isinstance(kernel, (tuple, list)) else x.ndim - 2
    if rank < 1 or rank > x.ndim:
        raise ValueError(f"{name}: x: expected as many spatial axes behind (N, C) as kernel {kernel} has, got shape {x.shape}")
    size = _tuple(name, "kernel", kernel, rank)
    steps = size if stride is None else _tuple(name, "stride", stride, rank)
    asked = _pads(name, padding, rank)
    for k, (a, b) in zip(size, asked):
        if a >= k or b >= k:
            raise ValueError(f"{name}: padding: expected less than the kernel {size}, got {padding}")
    pads = asked
    if ceil_mode:
        wider = []
        for n, k, s, (a, b) in zip(x.shape[x.ndim - rank :], size, steps, asked):
            count = -(-(n + a + b - k) // s) + 1
            count = count - 1 if (count - 1) * s >= n + a else count  # the last window must start inside
            grown = (count - 1) * s + k - n - a
            wider.append((a, grown if grown > b else b))
        pads = tuple(wider)
    return x, {"kernel": size, "stride": steps, "padding": pads}, asked


def max_pool(x: Any, /, kernel: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False) -> NDArray:
    """The maximum of each window over the trailing spatial axes. `stride` is the kernel if None; padding does not count.

    With `ceil_mode` a last window that is partly outside counts. The gradient goes to the first maximum.
    """
    x, attrs, _ = _windows("max_pool", x, kernel, stride, padding, ceil_mode)
    return primitive("max_pool", x, **attrs)[0]


def avg_pool(
    x: Any, /, kernel: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False, count_include_pad: bool = True
) -> NDArray:
    """The mean of each window over the trailing spatial axes. Padding counts as zeros, or not at all if not
    `count_include_pad`; what `ceil_mode` adds beyond it never counts."""
    x, attrs, asked = _windows("avg_pool", x, kernel, stride, padding, ceil_mode)
    total = primitive("sum_pool", x, **attrs)
    if count_include_pad and asked == attrs["padding"]:
        return divide(total, math.prod(attrs["kernel"]))
    if not any(a or b for a, b in attrs["padding"]):
        return divide(total, math.prod(attrs["kernel"]))
    rank = len(asked)
    sizes = [int(n) for n in x.shape[x.ndim - rank :]]
    counts = np.ones((), x.dtype)
    for n, k, s, (a, b), (low, high) in zip(sizes, attrs["kernel"], attrs["stride"], attrs["padding"], asked):
        line = np.array([
            len(range(start if start > first else first, start + k if start + k < last else last))
            for first, last in [(-low, n + high) if count_include_pad else (0, n)]
            for start in range(-a, n + b - k + 1, s)
        ], x.dtype)
        counts = counts[..., None] * line
    device = x._device
    return divide(total, wrap(device.module.asarray(counts), device))


max_pooling, avg_pooling = max_pool, avg_pool


def global_max_pool(x: Any, /) -> NDArray:
    """The maximum over all spatial axes of (N, C, *spatial), which stay with size 1."""
    x = as_floating("global_max_pool", x)
    return max(x, tuple(range(2, x.ndim)), keepdims=True)


def global_avg_pool(x: Any, /) -> NDArray:
    """The mean over all spatial axes of (N, C, *spatial), which stay with size 1."""
    x = as_floating("global_avg_pool", x)
    return mean(x, tuple(range(2, x.ndim)), keepdims=True)


def adaptive_avg_pool(x: Any, /, output_size: Any = 1) -> NDArray:
    """The mean of windows that divide the spatial axes of (N, C, *spatial) into `output_size` parts each.

    Part i of n covers ``floor(i*size/n)`` to ``ceil((i+1)*size/n)``.
    """
    x = as_floating("adaptive_avg_pool", x)
    rank = x.ndim - 2
    sizes = _tuple("adaptive_avg_pool", "output_size", output_size, rank)
    for k, parts in enumerate(sizes):
        n = int(x.shape[2 + k])
        weights = np.zeros((n, parts), x.dtype)
        for i in range(parts):
            first, last = i * n // parts, -(-(i + 1) * n // parts)
            weights[first:last, i] = 1 / (last - first)
        moved = swapaxes(x, 2 + k, -1)
        x = swapaxes(matmul(moved, wrap(x._device.module.asarray(weights), x._device)), 2 + k, -1)
    return x


# -- normalization

def _normalized(x: NDArray, axes: tuple[int, ...], epsilon: float) -> NDArray:
    """Zero mean and unit variance along some axes; half precision is computed in float32."""
    wide = convert(x, float32) if x.dtype.itemsize < 4 else x
    centered = subtract(wide, mean(wide, axes, keepdims=True))
    variance = mean(multiply(centered, centered), axes, keepdims=True)
    return multiply(centered, rsqrt(add(variance, epsilon)))


def _along(v: Any, axis: int, ndim: int) -> NDArray:
    v = as_array("normalization", "gamma or beta", v)
    return reshape(v, tuple(v.shape[0] if k == axis else 1 for k in range(ndim)))


def _scaled(x: NDArray, out: NDArray, gamma: Any, beta: Any, axis: int) -> NDArray:
    if gamma is not None:
        out = multiply(out, _along(gamma, axis, x.ndim))
    if beta is not None:
        out = add(out, _along(beta, axis, x.ndim))
    return convert(out, x.dtype)


def layer_norm(x: Any, gamma: Any = None, beta: Any = None, /, axis: int = -1, eps: float = 1e-5) -> NDArray:
    """``(x - mean) / sqrt(var + eps) * gamma + beta`` with the statistics along one axis; gamma and beta: its size."""
    x = as_floating("layer_norm", x)
    axis = normalize_axis("layer_norm", axis, x.ndim)
    return _scaled(x, _normalized(x, (axis,), eps), gamma, beta, axis)


def rms_norm(x: Any, gamma: Any = None, /, axis: int = -1, eps: float = 1e-5) -> NDArray:
    """``x / sqrt(mean(x**2) + eps) * gamma`` along one axis."""
    x = as_floating("rms_norm", x)
    axis = normalize_axis("rms_norm", axis, x.ndim)
    wide = convert(x, float32) if x.dtype.itemsize < 4 else x
    out = multiply(wide, rsqrt(add(mean(multiply(wide, wide), axis, keepdims=True), eps)))
    return _scaled(x, out, gamma, None, axis)


def group_norm(x: Any, gamma: Any = None, beta: Any = None, /, num_groups: int = 1, eps: float = 1e-5) -> NDArray:
    """x: (N, C, *spatial), normalized over each of the `num_groups` groups of channels; gamma and beta: (C,)."""
    x = as_floating("group_norm", x)
    if x.ndim < 2 or x.shape[1] % num_groups != 0:
        raise ValueError(f"group_norm: x: expected (N, C, ...) with C divisible by {num_groups}, got shape {x.shape}")
    grouped = reshape(x, (x.shape[0], num_groups, x.shape[1] // num_groups, *x.shape[2:]))
    out = reshape(_normalized(grouped, tuple(range(2, grouped.ndim)), eps), x.shape)
    return _scaled(x, out, gamma, beta, 1)


def instance_norm(x: Any, gamma: Any = None, beta: Any = None, /, axis: int = 1, eps: float = 1e-5) -> NDArray:
    """x normalized over all axes but the first and the channel axis; gamma and beta: (C,)."""
    x = as_floating("instance_norm", x)
    axis = normalize_axis("instance_norm", axis, x.ndim)
    axes = tuple(k for k in range(1, x.ndim) if k != axis)
    return _scaled(x, _normalized(x, axes, eps), gamma, beta, axis)


def batch_norm(
    x: Any, gamma: Any = None, beta: Any = None, running_mean: Any = None, running_var: Any = None, /, eps: float = 1e-5,
    axis: int = 1, use_global_stats: bool = False,
) -> tuple[NDArray, NDArray, NDArray]:
    """(out, mean, var): x normalized over all axes but the channel axis, scaled and shifted; and the statistics used.

    The statistics are the batch's, or the running ones if `use_global_stats`; gamma, beta and the statistics: (C,).
    """
    x = as_floating("batch_norm", x)
    axis = normalize_axis("batch_norm", axis, x.ndim)
    wide = convert(x, float32) if x.dtype.itemsize < 4 else x
    if use_global_stats:
        if running_mean is None or running_var is None:
            raise ValueError("batch_norm: use_global_stats needs running_mean and running_var")
        center = as_array("batch_norm", "running_mean", running_mean)
        variance = as_array("batch_norm", "running_var", running_var)
        centered = subtract(wide, _along(center, axis, x.ndim))
    else:
        axes = tuple(k for k in range(x.ndim) if k != axis)
        center = mean(wide, axes)
        centered = subtract(wide, _along(center, axis, x.ndim))
        variance = mean(multiply(centered, centered), axes)
    factor = rsqrt(add(variance, eps))
    if gamma is not None:
        factor = multiply(factor, gamma)
    out = multiply(centered, _along(factor, axis, x.ndim))
    return _scaled(x, out, None, beta, axis), center, variance


def l2_normalization(x: Any, /, eps: float = 1e-10, mode: str = "instance") -> NDArray:
    """``x / sqrt(sum(x**2) + eps)``: the sum over all axes but the first ("instance"), over axis 1 ("channel") or over the
    axes behind the second ("spatial")."""
    x = as_floating("l2_normalization", x)
    axes = {"instance": tuple(range(1, x.ndim)), "channel": (1,), "spatial": tuple(range(2, x.ndim))}.get(mode)
    if axes is None:
        raise ValueError(f"l2_normalization: mode: expected 'instance', 'channel' or 'spatial', got {mode!r}")
    return divide(x, sqrt(add(sum(multiply(x, x), axes, keepdims=True), eps)))

