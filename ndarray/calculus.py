"""Sampled functions: interpolation, integrals, derivatives, convolutions, unwrapped angles, polynomials."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from . import reduction
from .array import NDArray
from .creation import zeros
from .dims import Size
from .dtypes import is_inexact
from .elementwise import (
    add,
    clip,
    conj,
    divide,
    equal,
    greater,
    less,
    logical_and,
    multiply,
    rint,
    subtract,
    where,
)
from .manipulation import concatenate, diff, flip, ravel, reshape, take
from .operands import as_array, as_floating, common, convert, is_number, normalize_axes, normalize_axis, primitive
from .searching import searchsorted

__all__ = ["convolve", "correlate", "ediff1d", "gradient", "interp", "polyval", "trapezoid", "trapz", "unwrap", "vander"]


def interp(
    x: Any, xp: Any, fp: Any, /, left: Any = None, right: Any = None, period: float | None = None,
) -> NDArray:
    """The values at x of the piecewise linear function through the points (xp, fp), xp rising.

    Outside, `left` and `right` (by default the first and last fp); with a `period`, the points repeat. Gradients flow to x
    and fp. Raises ValueError where xp and fp are not one axis of one size.

    >>> nd.interp(nd.array([0.5, 5.0]), nd.array([0.0, 1.0]), nd.array([10.0, 20.0]))
    array([15., 20.])
    """
    x, xp, fp = (as_floating("interp", v, n) for v, n in ((x, "x"), (xp, "xp"), (fp, "fp")))
    x, xp, fp = common("interp", x, xp, fp, arguments=("x", "xp", "fp"))
    if xp.ndim != 1 or fp.shape != xp.shape or not xp.shape[0]:
        raise ValueError(f"interp: xp and fp: expected one axis of one size, got shapes {xp.shape} and {fp.shape}")
    if period is not None:
        if not period:
            raise ValueError("interp: period: expected a number other than 0")
        period, left, right = abs(period), None, None
        x, xp = x % period, xp % period
        order = reduction.argsort(xp)
        xp, fp = take(xp, order, 0), take(fp, order, 0)
        xp = concatenate([xp[-1:] - period, xp, xp[:1] + period])
        fp = concatenate([fp[-1:], fp, fp[:1]])
    n = xp.shape[0]
    behind = clip(searchsorted(xp, x, "right"), 1, max(n - 1, 1))
    if n == 1:
        out = where(equal(x, x), fp[0], x)
    else:
        x0, x1 = (primitive("take", xp, i, axis=0, mode="clip") for i in (behind - 1, behind))
        y0, y1 = (primitive("take", fp, i, axis=0, mode="clip") for i in (behind - 1, behind))
        width = subtract(x1, x0)
        flat = equal(width, 0)
        out = add(y0, multiply(divide(subtract(x, x0), where(flat, 1, width)), where(flat, 0, subtract(y1, y0))))
    out = where(greater(x, xp[-1]), fp[-1] if right is None else right, out)
    out = where(equal(x, xp[-1]), fp[-1], out)
    return where(less(x, xp[0]), fp[0] if left is None else left, out)


def trapezoid(y: Any, x: Any = None, dx: float = 1.0, axis: int = -1) -> NDArray:
    """The integral along an axis by the trapezoidal rule, at points x (of y's shape, or of the axis' size) or at steps dx.

    >>> nd.trapezoid(nd.array([1.0, 2.0, 3.0]), dx=0.5)
    array(2.)
    """
    y = as_floating("trapezoid", y, "y")
    axis = normalize_axis("trapezoid", axis, y.ndim)
    if x is None:
        step: Any = dx
    else:
        x = as_array("trapezoid", "x", x)
        if x.ndim == 1:
            step = reshape(diff(x), tuple(x.shape[0] - 1 if k == axis else 1 for k in range(y.ndim)))
        else:
            step = diff(x, axis=axis)
    high, low = _ends(y, axis, 1, None), _ends(y, axis, None, -1)
    return reduction.sum(multiply(multiply(add(high, low), 0.5), step), axis)


trapz = trapezoid


def _ends(x: NDArray, axis: int, start: int | None, stop: int | None) -> NDArray:
    return x[(slice(None),) * axis + (slice(start, stop),)]


def gradient(x: Any, /, *spacing: Any, axis: Any = None, edge_order: int = 1) -> Any:
    """The derivatives along some axes (None: all; a list of arrays, or one array for one axis) by central differences, at the
    ends by one-sided ones of order 1 or 2.

    spacing: a step for all axes, one for each, or the positions along an axis. Raises ValueError for fewer than
    ``edge_order + 1`` elements along an axis.

    >>> nd.gradient(nd.array([1.0, 4.0, 9.0, 16.0]))
    array([3., 4., 6., 7.])
    """
    x = as_floating("gradient", x)
    if edge_order not in (1, 2):
        raise ValueError(f"gradient: edge_order: expected 1 or 2, got {edge_order}")
    axes = normalize_axes("gradient", axis, x.ndim)
    steps = spacing or (1.0,)
    steps = steps * len(axes) if len(steps) == 1 and is_number(steps[0]) else steps
    if len(steps) != len(axes):
        raise ValueError(f"gradient: spacing: expected one for each of {len(axes)} axes, got {len(steps)}")
    out = [_derivative(x, a, h, edge_order) for a, h in zip(axes, steps)]
    return out[0] if len(out) == 1 else out


def _derivative(x: NDArray, axis: int, step: Any, edge_order: int) -> NDArray:
    n: Size = x.shape[axis]
    if n < edge_order + 1:
        raise ValueError(f"gradient: x: expected at least {edge_order + 1} elements along axis {axis}, got shape {x.shape}")
    part = lambda a, b: _ends(x, axis, a, b)
    if is_number(step):
        before = after = step
        steps = None
    else:
        steps = as_floating("gradient", step, "spacing")
        if steps.ndim == 0:
            before = after = steps
            steps = None
        else:
            if steps.shape != (n,):
                raise ValueError(f"gradient: spacing: expected {n} positions along axis {axis}, got shape {steps.shape}")
            width = reshape(diff(steps), tuple(n - 1 if k == axis else 1 for k in range(x.ndim)))
            before, after = _ends(width, axis, None, -1), _ends(width, axis, 1, None)
            steps = width
    if steps is None:
        middle = divide(subtract(part(2, None), part(None, -2)), 2 * before)
    else:
        a = divide(after, multiply(before, add(before, after)))
        c = divide(before, multiply(after, add(before, after)))
        middle = add(multiply(a, subtract(part(1, -1), part(None, -2))), multiply(c, subtract(part(2, None), part(1, -1))))
    ends = []
    for first in (True, False):
        if steps is not None:
            h0 = _ends(steps, axis, 0, 1) if first else _ends(steps, axis, -1, None)
            h1 = (_ends(steps, axis, 1, 2) if first else _ends(steps, axis, -2, -1)) if edge_order == 2 else h0
        else:
            h0 = h1 = before
        y0, y1 = (part(0, 1), part(1, 2)) if first else (part(-1, None), part(-2, -1))
        if edge_order == 1:
            slope = divide(subtract(y1, y0), h0)
        else:
            y2 = part(2, 3) if first else part(-3, -2)
            a, b = add(h0, h1), h0
            slope = subtract(divide(multiply(subtract(y1, y0), a), multiply(b, h1)),
                             divide(multiply(subtract(y2, y0), b), multiply(a, h1)))
        ends.append(slope if first else -slope)
    return concatenate([ends[0], middle, ends[1]], axis=axis)


def ediff1d(x: Any, /, to_end: Any = None, to_begin: Any = None) -> NDArray:
    """Differences of neighbours in the flattened array, with other elements in front and behind.

    >>> nd.ediff1d(nd.array([1, 4, 9]), to_begin=0)
    array([0, 3, 5])
    """
    x = ravel(x)
    parts = [diff(x)]
    if to_begin is not None:
        parts.insert(0, convert(ravel(to_begin), x.dtype))
    if to_end is not None:
        parts.append(convert(ravel(to_end), x.dtype))
    return concatenate(parts)


def convolve(x1: Any, x2: Any, /, mode: str = "full") -> NDArray:
    """``out[k] = sum over j of x1[j] * x2[k - j]`` of two vectors: all positions ("full"), as many as the longer has
    ("same"), or those where both overlap completely ("valid").

    Raises ValueError for empty or higher-dimensional arguments, or another mode.

    >>> nd.convolve(nd.array([1, 2, 3]), nd.array([0, 1, 0.5]))
    array([0. , 1. , 2.5, 4. , 1.5])
    """
    x1, x2 = (v for v in common("convolve", x1, x2))
    if x1.ndim > 1 or x2.ndim > 1 or not x1.shape[:1] or not x2.shape[:1] or not x1.shape[0] or not x2.shape[0]:
        raise ValueError(f"convolve: x1 and x2: expected one axis of at least one element, got shapes {x1.shape} and {x2.shape}")
    if mode not in ("full", "same", "valid"):
        raise ValueError(f"convolve: mode: expected 'full', 'same' or 'valid', got {mode!r}")
    if x2.shape[0] > x1.shape[0]:
        x1, x2 = x2, x1
    n, m = int(x1.shape[0]), int(x2.shape[0])
    low, count = {"full": (0, n + m - 1), "same": ((m - 1) // 2, n), "valid": (m - 1, n - m + 1)}[mode]
    # rows of windows of x1, against x2 backwards
    wide = primitive("pad", x1, low=(m - 1,), high=(m - 1,), interior=(0,), value=0.0)
    positions = np.arange(low, low + count)[:, None] + np.arange(m)
    windows = primitive("take", wide, as_array("convolve", "positions", positions), axis=0, mode="clip")
    return primitive("dot_general", windows, flip(x2), contract=((1,), (0,)), batch=((), ()))


def correlate(x1: Any, x2: Any, /, mode: str = "valid") -> NDArray:
    """``out[k] = sum over j of x1[j + k] * conj(x2[j])`` of two vectors, with the modes of `convolve`.

    >>> nd.correlate(nd.array([1, 2, 3]), nd.array([0, 1, 0.5]), "same")
    array([2. , 3.5, 3. ])
    """
    x1, x2 = common("correlate", x1, x2)
    if x2.ndim == 1 and x1.ndim == 1 and x2.shape[0] > x1.shape[0]:
        return flip(conj(convolve(x2, flip(conj(x1)), mode)))
    return convolve(x1, flip(conj(x2)), mode)


def unwrap(x: Any, /, discont: float | None = None, axis: int = -1, *, period: float = 2 * math.pi) -> NDArray:
    """Angles along an axis with whole periods added, so that no neighbours differ by more than half a period (or `discont`).

    >>> nd.unwrap(nd.array([0.0, 3.0, 6.0, 9.0 - 2 * nd.pi]))
    array([0., 3., 6., 9.])
    """
    x = as_array("unwrap", "x", x)
    if is_inexact(x.dtype) or not isinstance(period, int):
        x = as_floating("unwrap", x)
    axis = normalize_axis("unwrap", axis, x.ndim)
    steps = diff(x, axis=axis)
    half = period / 2
    turns = multiply(rint(divide(steps, period)), period)
    short = subtract(steps, turns)
    short = where(logical_and(equal(short, -half), greater(steps, 0)), half, short)
    correction = where(less(abs(steps), half if discont is None else max(discont, half)), 0, subtract(short, steps))
    rest = add(_ends(x, axis, 1, None), convert(reduction.cumsum(correction, axis), x.dtype))
    return concatenate([_ends(x, axis, 0, 1), rest], axis=axis)


def polyval(p: Any, x: Any, /) -> NDArray:
    """The polynomial with coefficients p (the highest power first) at x, by Horner's rule.

    >>> nd.polyval(nd.array([1.0, 0.0, 2.0]), nd.array([3.0]))
    array([11.])
    """
    p, x = common("polyval", p, x, arguments=("p", "x"))
    out = zeros(x.shape, x.dtype, x._device)
    for k in range(p.shape[0]):
        out = add(multiply(out, x), p[k])
    return out


def vander(x: Any, /, N: int | None = None, increasing: bool = False) -> NDArray:
    """The powers N - 1 to 0 of each element, one row each (0 to N - 1 if `increasing`).

    >>> nd.vander(nd.array([2, 3]), 3)
    array([[4, 2, 1],
           [9, 3, 1]])
    """
    x = as_array("vander", "x", x)
    if x.ndim != 1:
        raise ValueError(f"vander: x: expected one axis, got shape {x.shape}")
    count = x.shape[0] if N is None else N
    from .creation import ones
    from .manipulation import stack

    columns = [ones(x.shape, x.dtype, x._device)]
    for _ in range(1, count):
        columns.append(multiply(columns[-1], x))
    columns = columns[:count] if increasing else columns[:count][::-1]
    return stack(columns, axis=1) if columns else zeros((x.shape[0], 0), x.dtype, x._device)


