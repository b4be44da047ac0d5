"""Discrete Fourier transforms: NumPy's and the Array API's functions, with gradients.

Single precision gives complex64 and float32, double precision complex128 and float64. The transforms run on the host.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .array import NDArray
from .creation import arange
from .device import Device
from .dtypes import canonical, complex64, complex128, default_float, float32, float64
from .elementwise import conj, divide, multiply
from .manipulation import concatenate, roll
from .operands import as_array, as_floating, convert, normalize_axis, primitive
from .padding import pad

__all__ = [
    "fft", "fft2", "fftfreq", "fftn", "fftshift", "hfft", "ifft", "ifft2", "ifftn", "ifftshift", "ihfft", "irfft", "irfft2",
    "irfftn", "rfft", "rfft2", "rfftfreq", "rfftn",
]

_NORMS = ("backward", "ortho", "forward")


def _scale(name: str, norm: str | None, count: int, inverse: bool) -> float:
    """What the unscaled transform is multiplied by."""
    norm = norm or "backward"
    if norm not in _NORMS:
        raise ValueError(f"{name}: norm: expected one of {', '.join(_NORMS)}, got {norm!r}")
    if norm == "ortho":
        return 1 / np.sqrt(count)
    return 1 / count if (norm == "backward") == inverse else 1.0


def _complex(name: str, x: Any) -> NDArray:
    x = as_floating(name, x)
    return x if x.dtype.kind == "c" else convert(x, complex128 if x.dtype == float64 else complex64)


def _real(name: str, x: Any) -> NDArray:
    x = as_floating(name, x)
    if x.dtype.kind == "c":
        raise TypeError(f"{name}: x: expected a real dtype, got {x.dtype}; use fft")
    return x if x.dtype.itemsize >= 4 else convert(x, float32)


def _sized(name: str, x: NDArray, n: Any, axis: int) -> NDArray:
    """x cut, or filled with zeros, to n elements along an axis."""
    have = x.shape[axis]
    if n is None:
        n = have
    n = n.__index__()
    if n < 1:
        raise ValueError(f"{name}: n: expected at least 1 element along axis {axis}, got {n}")
    if n < have:
        return x[(slice(None),) * axis + (slice(0, n),)]
    return x if n == have else pad(x, [(0, n - have) if k == axis else (0, 0) for k in range(x.ndim)])


def _scaled(x: NDArray, factor: float) -> NDArray:
    return x if factor == 1 else multiply(x, factor)


def _axes(name: str, x: NDArray, s: Any, axes: Any) -> tuple[list[int], list[Any]]:
    """The axes of a transform over several, and the sizes along them (None: as they are)."""
    if axes is None:
        axes = range(x.ndim) if s is None else range(x.ndim - len(s), x.ndim)
    places = [normalize_axis(name, a, x.ndim, "axes") for a in axes]
    sizes = [None] * len(places) if s is None else [None if n == -1 else n for n in s]
    if len(sizes) != len(places):
        raise ValueError(f"{name}: s: expected one size for each of {len(places)} axes, got {s}")
    if len(set(places)) != len(places):
        raise ValueError(f"{name}: axes: expected different ones, got {tuple(axes)}")
    return places, sizes


def _transform(name: str, x: Any, s: Any, axes: Any, norm: str | None, inverse: bool) -> NDArray:
    x = _complex(name, x)
    places, sizes = _axes(name, x, s, axes)
    count = 1
    for a, n in zip(places, sizes):
        x = _sized(name, x, n, a)
        count *= int(x.shape[a])
    factor = _scale(name, norm, count, inverse)
    return _scaled(primitive("fft", x, axes=tuple(places), inverse=inverse), factor)


def fft(x: Any, /, n: int | None = None, axis: int = -1, norm: str | None = "backward") -> NDArray:
    """``out[k] = sum over j of x[j] exp(-2 pi i j k / n)`` along an axis, cut or filled with zeros to n elements.

    norm "backward" divides the inverse transform by n, "forward" this one, "ortho" both by sqrt(n). complex64, or complex128
    for double precision. Raises ValueError for n < 1 or another norm.

    >>> nd.fft.fft(nd.array([1.0, 0.0, 0.0, 0.0]))
    array([1.+0.j, 1.+0.j, 1.+0.j, 1.+0.j])
    """
    return _transform("fft", x, (n,), (axis,), norm, False) if n is not None else _transform("fft", x, None, (axis,), norm, False)


def ifft(x: Any, /, n: int | None = None, axis: int = -1, norm: str | None = "backward") -> NDArray:
    """The inverse of `fft`.

    >>> nd.fft.ifft(nd.array([4.0, 0.0, 0.0, 0.0]))
    array([1.+0.j, 1.+0.j, 1.+0.j, 1.+0.j])
    """
    return _transform("ifft", x, (n,), (axis,), norm, True) if n is not None else _transform("ifft", x, None, (axis,), norm, True)


def fftn(
    x: Any, /, s: Sequence[int] | None = None, axes: Sequence[int] | None = None, norm: str | None = "backward",
) -> NDArray:
    """`fft` along several axes (None: all, or the last ones for which `s` gives sizes).

    >>> nd.fft.fftn(nd.ones((2, 2)))
    array([[4.+0.j, 0.+0.j],
           [0.+0.j, 0.+0.j]])
    """
    return _transform("fftn", x, s, axes, norm, False)


def ifftn(
    x: Any, /, s: Sequence[int] | None = None, axes: Sequence[int] | None = None, norm: str | None = "backward",
) -> NDArray:
    """The inverse of `fftn`.

    >>> nd.fft.ifftn(nd.ones((2, 2)))
    array([[1.+0.j, 0.+0.j],
           [0.+0.j, 0.+0.j]])
    """
    return _transform("ifftn", x, s, axes, norm, True)


def fft2(
    x: Any, /, s: Sequence[int] | None = None, axes: Sequence[int] = (-2, -1), norm: str | None = "backward",
) -> NDArray:
    """`fftn` along the last two axes.

    >>> nd.fft.fft2(nd.ones((2, 2)))
    array([[4.+0.j, 0.+0.j],
           [0.+0.j, 0.+0.j]])
    """
    return _transform("fft2", x, s, axes, norm, False)


def ifft2(
    x: Any, /, s: Sequence[int] | None = None, axes: Sequence[int] = (-2, -1), norm: str | None = "backward",
) -> NDArray:
    """The inverse of `fft2`.

    >>> nd.fft.ifft2(nd.ones((2, 2)))
    array([[1.+0.j, 0.+0.j],
           [0.+0.j, 0.+0.j]])
    """
    return _transform("ifft2", x, s, axes, norm, True)


def rfft(x: Any, /, n: int | None = None, axis: int = -1, norm: str | None = "backward") -> NDArray:
    """The first ``n // 2 + 1`` elements of `fft` of real x; the others are their conjugates.

    >>> nd.fft.rfft(nd.array([1.0, 2.0, 3.0]))
    array([ 6. +0.j       , -1.5+0.8660254j])
    """
    x = _real("rfft", x)
    axis = normalize_axis("rfft", axis, x.ndim)
    x = _sized("rfft", x, n, axis)
    return _scaled(primitive("rfft", x, axis=axis), _scale("rfft", norm, int(x.shape[axis]), False))


def irfft(x: Any, /, n: int | None = None, axis: int = -1, norm: str | None = "backward") -> NDArray:
    """The inverse of `rfft`: real, of n elements (an even number, ``2 * (size - 1)``, unless told otherwise).

    >>> nd.fft.irfft(nd.array([6.0, 0.0, 2.0]))
    array([2., 1., 2., 1.])
    """
    x = _complex("irfft", x)
    axis = normalize_axis("irfft", axis, x.ndim)
    count = 2 * (int(x.shape[axis]) - 1) if n is None else n.__index__()
    if count < 1:
        raise ValueError(f"irfft: n: expected at least 1 element along axis {axis}, got {count}")
    x = _sized("irfft", x, count // 2 + 1, axis)
    return _scaled(primitive("irfft", x, axis=axis, n=count), _scale("irfft", norm, count, True))


def rfftn(
    x: Any, /, s: Sequence[int] | None = None, axes: Sequence[int] | None = None, norm: str | None = "backward",
) -> NDArray:
    """`rfft` along the last of several axes, `fft` along the others.

    >>> nd.fft.rfftn(nd.ones((2, 2)))
    array([[4.+0.j, 0.+0.j],
           [0.+0.j, 0.+0.j]])
    """
    x = _real("rfftn", x)
    places, sizes = _axes("rfftn", x, s, axes)
    if not places:
        raise ValueError("rfftn: axes: expected at least one")
    out = rfft(x, sizes[-1], places[-1], norm)
    return fftn(out, [-1 if n is None else n for n in sizes[:-1]], places[:-1], norm) if len(places) > 1 else out


def irfftn(
    x: Any, /, s: Sequence[int] | None = None, axes: Sequence[int] | None = None, norm: str | None = "backward",
) -> NDArray:
    """The inverse of `rfftn`.

    >>> nd.fft.irfftn(nd.array([[4.0, 0.0], [0.0, 0.0]]))
    array([[1., 1.],
           [1., 1.]])
    """
    x = _complex("irfftn", x)
    places, sizes = _axes("irfftn", x, s, axes)
    if not places:
        raise ValueError("irfftn: axes: expected at least one")
    if len(places) > 1:
        x = ifftn(x, [-1 if n is None else n for n in sizes[:-1]], places[:-1], norm)
    return irfft(x, sizes[-1], places[-1], norm)


def rfft2(
    x: Any, /, s: Sequence[int] | None = None, axes: Sequence[int] = (-2, -1), norm: str | None = "backward",
) -> NDArray:
    """`rfftn` along the last two axes.

    >>> nd.fft.rfft2(nd.ones((2, 2)))
    array([[4.+0.j, 0.+0.j],
           [0.+0.j, 0.+0.j]])
    """
    return rfftn(x, s, axes, norm)


def irfft2(
    x: Any, /, s: Sequence[int] | None = None, axes: Sequence[int] = (-2, -1), norm: str | None = "backward",
) -> NDArray:
    """The inverse of `rfft2`.

    >>> nd.fft.irfft2(nd.array([[4.0, 0.0], [0.0, 0.0]]))
    array([[1., 1.],
           [1., 1.]])
    """
    return irfftn(x, s, axes, norm)


def _swapped(norm: str | None) -> str:
    return {"backward": "forward", "forward": "backward"}.get(norm or "backward", norm or "backward")


def hfft(x: Any, /, n: int | None = None, axis: int = -1, norm: str | None = "backward") -> NDArray:
    """The `fft` of a signal whose second half is the conjugate of the first, x: a real spectrum of n elements.

    >>> nd.fft.hfft(nd.array([1.0, 2.0, 3.0]))
    array([ 8., -2.,  0., -2.])
    """
    return irfft(conj(_complex("hfft", x)), n, axis, _swapped(norm))


def ihfft(x: Any, /, n: int | None = None, axis: int = -1, norm: str | None = "backward") -> NDArray:
    """The inverse of `hfft`: the first ``n // 2 + 1`` elements of the signal.

    >>> nd.fft.ihfft(nd.array([1.0, 2.0, 3.0, 4.0]))
    array([ 2.5-0.j , -0.5-0.5j, -0.5-0.j ])
    """
    return conj(rfft(x, n, axis, _swapped(norm)))


def _frequencies(name: str, positions: NDArray, n: int, d: float, dtype: Any, device: Any) -> NDArray:
    dtype = default_float if dtype is None else canonical(dtype)
    return divide(convert(positions, dtype), n * d)


def fftfreq(n: int, /, d: float = 1.0, dtype: Any = None, device: Device | str | None = None) -> NDArray:
    """The frequencies of the elements of an `fft` of n samples at distances d: 0, 1, ... -2, -1, divided by ``n * d``.

    >>> nd.fft.fftfreq(4)
    array([ 0.  ,  0.25, -0.5 , -0.25])
    """
    half = (n - 1) // 2 + 1
    positions = concatenate([arange(half, device=device), arange(-(n // 2), 0, device=device)])
    return _frequencies("fftfreq", positions, n, d, dtype, device)


def rfftfreq(n: int, /, d: float = 1.0, dtype: Any = None, device: Device | str | None = None) -> NDArray:
    """The frequencies of the elements of an `rfft` of n samples at distances d.

    >>> nd.fft.rfftfreq(4)
    array([0.  , 0.25, 0.5 ])
    """
    return _frequencies("rfftfreq", arange(n // 2 + 1, device=device), n, d, dtype, device)


def _shift(name: str, x: Any, axes: Any, forwards: bool) -> NDArray:
    x = as_array(name, "x", x)
    places = range(x.ndim) if axes is None else axes if isinstance(axes, (tuple, list)) else (axes,)
    places = [normalize_axis(name, a, x.ndim, "axes") for a in places]
    shifts = [x.shape[a] // 2 if forwards else -(x.shape[a] // 2) for a in places]
    return roll(x, tuple(shifts), tuple(places)) if places else x


def fftshift(x: Any, /, axes: Any = None) -> NDArray:
    """Frequency 0 moved to the middle of some axes (None: all).

    >>> nd.fft.fftshift(nd.fft.fftfreq(4))
    array([-0.5 , -0.25,  0.  ,  0.25])
    """
    return _shift("fftshift", x, axes, True)


def ifftshift(x: Any, /, axes: Any = None) -> NDArray:
    """The inverse of `fftshift`.

    >>> nd.fft.ifftshift(nd.array([-2, -1, 0, 1]))
    array([ 0,  1, -2, -1])
    """
    return _shift("ifftshift", x, axes, False)


