"""Padding an array in NumPy's modes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .apply import apply
from .array import NDArray, wrap
from .dims import Size
from .dtypes import is_inexact
from .elementwise import add, divide, multiply, rint, subtract
from .manipulation import broadcast_to, concatenate, reshape
from .op import OPS
from .operands import as_array, convert, is_number, normalize_axis, primitive

__all__ = ["pad"]

Widths = list[tuple[Any, Any]]
_POSITIONS = ("edge", "reflect", "symmetric", "wrap")
_STATISTICS = ("maximum", "mean", "median", "minimum")


def pad(
    x: Any, pad_width: Any = None, /, mode: Any = "constant", constant_values: Any = 0, *, stat_length: Any = None,
    end_values: Any = 0, constant_value: Any = None, **options: Any,
) -> NDArray:
    """x with elements added around it: a number of them, ``(before, after)``, such a pair for each axis,
    or a dict of numbers or pairs by axis.

    mode: "constant" fills with `constant_values` (a number, or pairs as `pad_width`); "edge" repeats the border;
    "reflect" mirrors without the border itself, "symmetric" with it; "wrap" continues from the other end; "linear_ramp"
    goes evenly to `end_values`; "maximum", "minimum", "mean" and "median" fill with that of each line (of its `stat_length`
    elements at that end); "empty" leaves the contents open (zeros). Negative widths crop (constant only).

    MXNet's form, ``pad(x, mode, pad_width=(0, 0, 1, 1, ...), constant_value=0)``, is understood. Raises ValueError for widths
    that don't fit the axes, or another mode.

    >>> nd.pad(nd.array([1, 2, 3]), (1, 2), "reflect")
    array([2, 1, 2, 3, 2, 1])
    """
    if isinstance(pad_width, str):
        mode, pad_width = pad_width, options.pop("pad_width")
    elif pad_width is None:
        pad_width = options.pop("pad_width", None)
    if options:
        raise TypeError(f"pad: unexpected arguments {sorted(options)}")
    x = as_array("pad", "x", x)
    if isinstance(pad_width, dict):
        chosen = {normalize_axis("pad", a, x.ndim, "pad_width"): w for a, w in pad_width.items()}
        pad_width = [(w, w) if is_number(w) else w for w in (chosen.get(k, 0) for k in range(x.ndim))]
    widths = _pairs("pad_width", pad_width, x.ndim)
    if mode == "constant":
        return _constant(x, widths, constant_values if constant_value is None else constant_value)
    if any(a < 0 or b < 0 for a, b in widths):
        raise ValueError(f"pad: pad_width: expected no negative widths for mode {mode!r}, got {pad_width}")
    if mode == "empty":
        return _constant(x, widths, 0)
    if mode in _POSITIONS:
        return _from_positions(x, widths, mode)
    if mode in _STATISTICS:
        return _statistic(x, widths, mode, stat_length)
    if mode == "linear_ramp":
        return _ramp(x, widths, _pairs("end_values", end_values, x.ndim))
    known = ", ".join(map(repr, ("constant", "empty", "linear_ramp", *_POSITIONS, *_STATISTICS)))
    raise ValueError(f"pad: mode: expected one of {known}, got {mode!r}")


def _pairs(argument: str, given: Any, ndim: int) -> Widths:
    if is_number(given):
        return [(given, given)] * ndim
    try:
        items = [tuple(v) if isinstance(v, (tuple, list, np.ndarray)) else v for v in given]
    except TypeError:
        raise TypeError(f"pad: {argument}: expected numbers or pairs of numbers, got {given!r}") from None
    if all(is_number(v) for v in items):
        if len(items) == 2 * ndim and ndim != 1:  # MXNet: all in a row
            return list(zip(items[::2], items[1::2]))
        if len(items) in (1, 2):
            return [(items[0], items[-1])] * ndim
    elif len(items) == 1:
        items = items * ndim
    pairs = [v if isinstance(v, tuple) else (v,) for v in items]
    if len(pairs) != ndim or any(len(v) not in (1, 2) for v in pairs):
        raise ValueError(f"pad: {argument}: expected a number, a pair, or one pair for each of {ndim} axes, got {given}")
    return [(v[0], v[-1]) for v in pairs]


def _constant(x: NDArray, widths: Widths, values: Any) -> NDArray:
    if isinstance(values, NDArray):
        values = values.tolist()
    none = (0,) * x.ndim
    if is_number(values):
        return primitive("pad", x, low=tuple(a for a, _ in widths), high=tuple(b for _, b in widths), interior=none,
                         value=float(values))
    for axis, ((a, b), (first, last)) in enumerate(zip(widths, _pairs("constant_values", values, x.ndim))):
        low, high = (tuple(n if k == axis else 0 for k in range(x.ndim)) for n in (a, b))
        x = primitive("pad", x, low=low, high=none, interior=none, value=float(first))
        x = primitive("pad", x, low=none, high=high, interior=none, value=float(last))
    return x


def _from_positions(x: NDArray, widths: Widths, mode: str) -> NDArray:
    extend: Callable = np.pad
    for axis, (a, b) in enumerate(widths):
        if a or b:
            n = int(x.shape[axis])
            if n == 0:
                raise ValueError(f"pad: mode {mode!r}: axis {axis} has no elements to repeat (shape {x.shape})")
            positions = extend(np.arange(n), (a, b), mode=mode)
            x = apply(OPS["take"], x, wrap(x._device.module.asarray(positions), x._device), axis=axis, mode="clip")
    return x


def _slab(x: NDArray, axis: int, start: Size, stop: Size) -> NDArray:
    return x[(slice(None),) * axis + (slice(start, stop),)]


def _spread(x: NDArray, axis: int, count: int) -> NDArray:
    return broadcast_to(x, (*x.shape[:axis], count, *x.shape[axis + 1 :]))


def _statistic(x: NDArray, widths: Widths, mode: str, stat_length: Any) -> NDArray:
    from . import reduction, statistics

    statistic: Callable = {
        "maximum": reduction.max, "minimum": reduction.min, "mean": reduction.mean, "median": statistics.median,
    }[mode]
    lengths: Widths = [(None, None)] * x.ndim if stat_length is None else _pairs("stat_length", stat_length, x.ndim)
    dtype = x.dtype
    for axis, ((a, b), (first, last)) in enumerate(zip(widths, lengths)):
        n, parts = x.shape[axis], [x]
        for count, length, front in ((a, first, True), (b, last, False)):
            if count:
                taken = n if length is None else min(length, n)
                value = statistic(_slab(x, axis, 0, taken) if front else _slab(x, axis, n - taken, n), axis, keepdims=True)
                if value.dtype != dtype:
                    value = convert(value if is_inexact(dtype) else rint(value), dtype)
                parts.insert(0 if front else len(parts), _spread(value, axis, count))
        x = concatenate(parts, axis=axis) if len(parts) > 1 else x
    return x


def _ramp(x: NDArray, widths: Widths, ends: Widths) -> NDArray:
    dtype = x.dtype
    for axis, ((a, b), (first, last)) in enumerate(zip(widths, ends)):
        n, parts = x.shape[axis], [x]
        for count, end, front in ((a, first, True), (b, last, False)):
            if count:
                edge = _slab(x, axis, 0, 1) if front else _slab(x, axis, n - 1, n)
                steps = np.arange(count, dtype=np.float64) if front else np.arange(count, 0, -1, dtype=np.float64) - 1
                steps = (steps / count).astype(np.float32 if dtype.itemsize < 8 else np.float64)
                share = reshape(as_array("pad", "steps", steps), tuple(count if k == axis else 1 for k in range(x.ndim)))
                line = add(multiply(subtract(edge, end), share), end)
                line = convert(line if is_inexact(dtype) else divide(line, 1), dtype)
                parts.insert(0 if front else len(parts), line)
        x = concatenate(parts, axis=axis) if len(parts) > 1 else x
    return x
