"""What every public function does with its arguments: numbers and NumPy arrays become arrays, dtypes meet, the
primitive is applied, and an error is told in terms of op and argument."""

from __future__ import annotations

from typing import Any

import numpy as np

from .apply import apply, is_tracing
from .array import NDArray, literal, wrap
from .device import Device, current_device
from .dims import Dim
from .dtypes import canonical, default_float, default_int, is_inexact, promote, scalar_dtype
from .op import OPS, ArrayType, Op

__all__ = ["as_array", "as_floating", "common", "convert", "is_number", "normalize_axes", "normalize_axis", "number", "primitive"]


def primitive(op: Op | str, *arrays: NDArray, **attrs: Any) -> Any:
    """Apply a primitive operation to arrays that fit it.

    Where the array module refuses them, the op's own inference is asked what is wrong.
    """
    if isinstance(op, str):
        op = OPS[op]
    try:
        return apply(op, *arrays, **attrs)
    except (ValueError, TypeError, IndexError):
        if not is_tracing():
            op.infer(*(ArrayType(a.shape, a.dtype) for a in arrays), **attrs)
        raise


def is_number(value: Any) -> bool:
    """Whether a value is a Python or NumPy number, or a symbolic size."""
    return isinstance(value, (int, float, complex, np.generic, Dim))


def number(value: Any, dtype: np.dtype, device: Device) -> NDArray:
    """A number as a 0-d array; a symbolic size stays symbolic."""
    if isinstance(value, Dim):
        with device:
            return apply(OPS["dimension"], size=value, dtype=dtype)
    return literal(value, dtype, device)


def as_array(name: str, argument: str, x: Any, device: Device | None = None) -> NDArray:
    """An argument as an array: a number, a NumPy array or nested lists are converted, to one on `device` (the current one).

    Raises TypeError for anything else.
    """
    if isinstance(x, NDArray):
        return x
    device = current_device() if device is None else device
    if isinstance(x, np.ndarray):
        return wrap(device.module.asarray(x, dtype=canonical(x.dtype)), device)
    if is_number(x):
        return number(x, scalar_dtype(x), device)
    if isinstance(x, (list, tuple)):
        from .creation import asarray

        return asarray(x, device=device)
    raise TypeError(f"{name}: {argument}: expected an array or a number, got {type(x).__name__}: {x!r:.60}")


def convert(x: NDArray, dtype: np.dtype) -> NDArray:
    """`x` in another dtype; `x` itself if it has it."""
    have = x.dtype
    return x if have is dtype or have == dtype else apply(OPS["cast"], x, dtype=dtype)


def as_floating(name: str, x: Any, argument: str = "x") -> NDArray:
    """An argument as an array of a floating (or complex) dtype; integers become float32."""
    x = x if type(x) is NDArray else as_array(name, argument, x)
    return x if x.dtype.kind == "f" or is_inexact(x.dtype) else convert(x, default_float)


def common(name: str, *values: Any, arguments: tuple[str, ...] = ("x1", "x2")) -> list[NDArray]:
    """Arguments as arrays of the dtype in which they meet; Python numbers take that of the arrays beside them."""
    first = next((v for v in values if isinstance(v, NDArray)), None)
    if first is None or any(not isinstance(v, NDArray) and not is_number(v) for v in values):
        place = None if first is None else first._device
        values = tuple(v if is_number(v) else as_array(name, a, v, place) for v, a in zip(values, arguments))
        first = next((v for v in values if isinstance(v, NDArray)), None)
    device = current_device() if first is None else first._device
    known = [v.dtype for v in values if isinstance(v, NDArray)]
    dtype = promote(*known) if known else None
    for v in values:
        if not isinstance(v, NDArray):
            beside = scalar_dtype(v, dtype)
            dtype = beside if dtype is None or isinstance(v, np.generic) else promote(dtype, beside)
    assert dtype is not None
    return [convert(v, dtype) if isinstance(v, NDArray) else number(v, dtype, device) for v in values]


def normalize_axis(name: str, axis: Any, ndim: int, argument: str = "axis") -> int:
    """An axis counted from the front. Raises TypeError or IndexError naming the function and the range."""
    if isinstance(axis, bool) or not hasattr(axis, "__index__"):
        raise TypeError(f"{name}: {argument}: expected an int, got {axis!r}")
    k = axis.__index__()
    if not -ndim <= k < ndim:
        raise np.exceptions.AxisError(f"{name}: {argument}: expected an int from {-ndim} to {ndim - 1}, got {k}")
    return k + ndim if k < 0 else k


def normalize_axes(name: str, axes: Any, ndim: int, argument: str = "axis") -> tuple[int, ...]:
    """Axes as a sorted tuple counted from the front; None means all. Raises ValueError for one named twice."""
    if axes is None:
        return tuple(range(ndim))
    given = axes if isinstance(axes, (tuple, list)) else (axes,)
    found = sorted(normalize_axis(name, a, ndim, argument) for a in given)
    if len(set(found)) != len(found):
        raise ValueError(f"{name}: {argument}: expected different axes, got {axes}")
    return tuple(found)


def integers(name: str, x: NDArray, argument: str = "indices") -> NDArray:
    """Indices as an integer array; floating ones (MXNet's habit) are rounded down. Raises TypeError for others."""
    if x.dtype.kind in "iu":
        return x
    if is_inexact(x.dtype) and x.dtype.kind != "c":
        return convert(x, np.dtype(np.int32))
    raise TypeError(f"{name}: {argument}: expected integers, got dtype {x.dtype}; convert with astype")


def default_sum_dtype(dtype: np.dtype) -> np.dtype:
    """The dtype in which an array of `dtype` is summed: small integers and bool as int64 or uint64."""
    if dtype.kind == "u":
        return np.dtype(np.uint64)
    return default_int if dtype.kind in "bi" else dtype
