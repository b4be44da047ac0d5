"""Softmax and its relatives, and the losses made of them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .apply import apply
from .array import NDArray
from .dims import Size
from .dtypes import canonical, is_inexact
from .elementwise import divide, exp, less, log, multiply, negative, stop_gradient, subtract, where
from .manipulation import expand_dims, reshape
from .op import OPS
from .operands import as_array, as_floating, convert, normalize_axes, normalize_axis
from .positions import pick
from .precision import in_target
from .reduction import max, sum

__all__ = ["log_softmax", "masked_log_softmax", "masked_softmax", "softmax", "softmax_cross_entropy", "softmin"]


def _exponentials(
    name: str, x: Any, axis: Any, temperature: float | None, dtype: Any, mask: NDArray | None = None
) -> tuple[NDArray, tuple[int, ...]]:
    """x (the lowest number where the mask is false) minus its maximum along the axis, and the axes."""
    (x,) = in_target("log_softmax" if "log" in name else "softmax", as_floating(name, x))
    axes = normalize_axes(name, axis, x.ndim)
    if dtype is not None:
        dtype = canonical(dtype)
        if not is_inexact(dtype):
            raise TypeError(f"{name}: dtype: expected a floating dtype, got {dtype}")
        x = convert(x, dtype)
    if temperature is not None and temperature != 1.0:
        if temperature == 0:
            raise ValueError(f"{name}: temperature: expected a number other than 0, got 0")
        x = divide(x, temperature)
    if mask is not None:
        x = where(mask, x, float(np.finfo(x.dtype if x.dtype.kind == "f" else np.float32).min))
    return subtract(x, max(stop_gradient(x), axes, keepdims=True)), axes


def _length_mask(name: str, x: Any, length: Any, axis: Any) -> tuple[NDArray, NDArray]:
    """x as an array, and where its positions along `axis` are below `length`, which has x's shape without the axis."""
    x, length = as_floating(name, x), as_array(name, "length", length)
    axis = normalize_axis(name, axis, x.ndim)
    if length.ndim != x.ndim - 1:
        raise ValueError(f"{name}: length: expected x's shape {x.shape} without axis {axis}, got {length.shape}")
    shape: tuple[Size, ...] = tuple(n if k == axis else 1 for k, n in enumerate(x.shape))
    with x._device:
        positions = apply(OPS["iota"], shape=(x.shape[axis],), axis=0, dtype=np.dtype(np.int32))
    return x, less(reshape(positions, shape), expand_dims(length, axis))


def softmax(
    x: Any, /, axis: Any = -1, temperature: float | None = None, length: Any = None, use_length: bool = False,
    dtype: Any = None,
) -> NDArray:
    """``exp(x) / sum(exp(x))`` along an axis (or several), after division by `temperature`; without overflow.

    length  integers of x's shape without the axis: only the first so many elements count, the others give 0
    dtype   floating; x is converted before (integers are to float32)

    Raises ValueError for a length of another shape or a temperature of 0.

    >>> import ndarray as nd
    >>> nd.softmax(nd.array([0.0, 0.0, 5.0]), length=nd.array(2)).tolist()
    [0.5, 0.5, 0.0]
    """
    if length is not None:
        x, mask = _length_mask("softmax", x, length, axis)
        return _masked("softmax", x, mask, axis, temperature, dtype)
    if use_length:
        raise ValueError("softmax: length: expected the lengths with use_length=True, got None")
    shifted, axes = _exponentials("softmax", x, axis, temperature, dtype)
    grown = exp(shifted)
    return multiply(grown, divide(1.0, sum(grown, axes, keepdims=True)))  # the sum is at least 1


def softmin(x: Any, /, axis: Any = -1, temperature: float | None = None, dtype: Any = None) -> NDArray:
    """``softmax(-x)``.

    >>> import ndarray as nd
    >>> nd.softmin(nd.array([0.0, 0.0])).tolist()
    [0.5, 0.5]
    """
    return softmax(negative(as_floating("softmin", x)), axis, temperature, dtype=dtype)


def log_softmax(
    x: Any, /, axis: Any = -1, temperature: float | None = None, length: Any = None, use_length: bool = False,
    dtype: Any = None,
) -> NDArray:
    """``log(softmax(x))``, without overflow; -inf behind `length`. Arguments and errors as those of `softmax`.

    >>> import ndarray as nd
    >>> nd.log_softmax(nd.array([0.0, -1000.0])).tolist()
    [0.0, -1000.0]
    """
    if length is not None:
        x, mask = _length_mask("log_softmax", x, length, axis)
        return masked_log_softmax(x, mask, axis, temperature, dtype)
    if use_length:
        raise ValueError("log_softmax: length: expected the lengths with use_length=True, got None")
    shifted, axes = _exponentials("log_softmax", x, axis, temperature, dtype)
    return subtract(shifted, log(sum(exp(shifted), axes, keepdims=True)))


def _masked(name: str, x: Any, mask: Any, axis: Any, temperature: float | None, dtype: Any) -> NDArray:
    mask = as_array(name, "mask", mask)
    shifted, axes = _exponentials(name, x, axis, temperature, dtype, mask)
    grown = where(mask, exp(shifted), 0)
    total = sum(grown, axes, keepdims=True)
    return divide(grown, where(total, total, 1))


def masked_softmax(x: Any, mask: Any, /, axis: Any = -1, temperature: float | None = None, dtype: Any = None) -> NDArray:
    """`softmax` over the elements where the mask (broadcast to x's shape) is true; 0 elsewhere, and everywhere where nothing
    is left.

    >>> import ndarray as nd
    >>> nd.masked_softmax(nd.array([0.0, 0.0, 5.0]), nd.array([True, True, False])).tolist()
    [0.5, 0.5, 0.0]
    """
    return _masked("masked_softmax", x, mask, axis, temperature, dtype)


def masked_log_softmax(x: Any, mask: Any, /, axis: Any = -1, temperature: float | None = None, dtype: Any = None) -> NDArray:
    """`log_softmax` over the elements where the mask (broadcast to x's shape) is true; -inf elsewhere.

    >>> import ndarray as nd
    >>> nd.masked_log_softmax(nd.array([0.0, 5.0]), nd.array([True, False])).tolist()
    [0.0, -inf]
    """
    mask = as_array("masked_log_softmax", "mask", mask)
    shifted, axes = _exponentials("masked_log_softmax", x, axis, temperature, dtype, mask)
    total = sum(where(mask, exp(shifted), 0), axes, keepdims=True)
    return where(mask, subtract(shifted, log(where(total, total, 1))), -math.inf)


def softmax_cross_entropy(logits: Any, labels: Any, /, axis: int = -1) -> NDArray:
    """``-log(softmax(logits))[label]`` for each position: labels are class numbers, or probabilities of logits' shape.

    >>> import ndarray as nd
    >>> nd.softmax_cross_entropy(nd.array([[0.0, -1000.0]]), nd.array([1])).tolist()
    [1000.0]
    """
    logits, labels = as_floating("softmax_cross_entropy", logits), as_array("softmax_cross_entropy", "labels", labels)
    if labels.ndim == logits.ndim and is_inexact(labels.dtype):
        return negative(sum(multiply(log_softmax(logits, axis), labels), axis))
    return negative(pick(log_softmax(logits, axis), labels, axis))
