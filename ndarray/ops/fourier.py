"""Discrete Fourier transforms, without scaling: of complex arrays, and between real ones and their half spectra.

``out[k] = sum over j of x[j] exp(-2 pi i j k / n)`` along each of some axes, or with +2 pi i if `inverse`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from .. import functions as F
from ..op import OPAQUE, ArrayType, Op, Sample, Vjp, register
from .base import expect_axes, expect_axis, expect_kind, fail, random_array, real_dtype

__all__: list[str] = []


def _infer(x: ArrayType, *, axes: tuple[int, ...], inverse: bool) -> tuple[ArrayType, ...]:
    expect_kind("fft", "x", x.dtype, "c")
    expect_axes("fft", axes, len(x.shape))
    return (x,)


def _eager(xp: Any, x: Any, *, axes: tuple[int, ...], inverse: bool) -> Any:
    if not axes or not x.size:
        return x.copy()
    if inverse:  # the scaling "forward" of the inverse transform is none
        return xp.fft.ifftn(x, axes=axes, norm="forward").astype(x.dtype, copy=False)
    return xp.fft.fftn(x, axes=axes).astype(x.dtype, copy=False)


def _matrix(n: int, sign: int) -> np.ndarray:
    k = np.arange(n)
    return np.exp(sign * 2j * np.pi * np.outer(k, k) / max(n, 1))


def _along(matrix: np.ndarray, x: np.ndarray, axis: int) -> np.ndarray:
    return np.moveaxis(np.moveaxis(x, axis, -1) @ matrix.T, -1, axis)


def _samples() -> Iterator[Sample]:
    def check(x: np.ndarray, axes: tuple[int, ...], inverse: bool) -> np.ndarray:
        out = x.astype(np.complex128)
        for a in axes:
            out = _along(_matrix(x.shape[a], 1 if inverse else -1), out, a)
        return out.astype(x.dtype)

    for dtype in (np.complex128, np.complex64):
        for shape, axes in (((7,), (0,)), ((3, 4), (1,)), ((3, 4), (0, 1)), ((2, 5, 3), (1,)), ((2, 0), (0,))):
            for inverse in (False, True):
                real = real_dtype(np.dtype(dtype))
                x = random_array(1, shape, real) + 1j * random_array(2, shape, real)
                yield Sample((x.astype(dtype),), {"axes": axes, "inverse": inverse}, check, tolerance=8.0)


register(Op(
    "fft", ("x",), _infer, _eager,  # a symmetric matrix: the transposed transform is the transform itself
    {"x": Vjp(lambda g, axes, inverse: F.primitive("fft", g, axes=axes, inverse=inverse))}, OPAQUE, _samples,
))


def _rfft_infer(x: ArrayType, *, axis: int) -> tuple[ArrayType, ...]:
    if x.dtype not in (np.float32, np.float64):
        fail("rfft", "dtype of x", "float32 or float64", x.dtype, TypeError)
    expect_axis("rfft", axis, len(x.shape))
    shape = (*x.shape[:axis], x.shape[axis] // 2 + 1, *x.shape[axis + 1 :])
    return (ArrayType(shape, np.dtype(f"complex{x.dtype.itemsize * 16}")),)


def _rfft_eager(xp: Any, x: Any, *, axis: int) -> Any:
    dtype = f"complex{x.dtype.itemsize * 16}"
    if not x.size:
        return xp.zeros((*x.shape[:axis], x.shape[axis] // 2 + 1, *x.shape[axis + 1 :]), dtype)
    return xp.fft.rfft(x, axis=axis).astype(dtype, copy=False)


def _rfft_vjp(g: Any, x_type: ArrayType, axis: int) -> Any:
    """The real part of the transform of the cotangent, the other half of the spectrum being 0."""
    missing = x_type.shape[axis] - g.shape[axis]
    wide = F.pad(g, [(0, missing) if k == axis else (0, 0) for k in range(g.ndim)])
    return F.real(F.primitive("fft", wide, axes=(axis,), inverse=False))


def _rfft_samples() -> Iterator[Sample]:
    def check(x: np.ndarray, axis: int) -> np.ndarray:
        n = x.shape[axis]
        return _along(_matrix(n, -1)[: n // 2 + 1], x.astype(np.complex128), axis).astype(f"complex{x.dtype.itemsize * 16}")

    for dtype in (np.float64, np.float32):
        for shape, axis in (((7,), 0), ((8,), 0), ((3, 4), 1), ((3, 4), 0), ((2, 5, 3), 1), ((1,), 0)):
            yield Sample((random_array(1, shape, dtype),), {"axis": axis}, check, tolerance=8.0)


register(Op("rfft", ("x",), _rfft_infer, _rfft_eager, {"x": Vjp(_rfft_vjp)}, OPAQUE, _rfft_samples))


def _irfft_infer(x: ArrayType, *, axis: int, n: int) -> tuple[ArrayType, ...]:
    expect_kind("irfft", "x", x.dtype, "c")
    expect_axis("irfft", axis, len(x.shape))
    if x.shape[axis] != n // 2 + 1:
        fail("irfft", f"axis {axis} of x", f"size {n // 2 + 1} for a result of size {n}", f"shape {x.shape}")
    return (ArrayType((*x.shape[:axis], n, *x.shape[axis + 1 :]), real_dtype(x.dtype)),)


def _irfft_eager(xp: Any, x: Any, *, axis: int, n: int) -> Any:
    if not x.size:
        return xp.zeros((*x.shape[:axis], n, *x.shape[axis + 1 :]), real_dtype(x.dtype))
    return xp.fft.irfft(x, n, axis=axis, norm="forward").astype(real_dtype(x.dtype), copy=False)


def _irfft_vjp(g: Any, x_type: ArrayType, axis: int, n: int) -> Any:
    """The conjugate half spectrum of the cotangent, twice where an element stands for two of the whole spectrum."""
    half = F.conj(F.primitive("rfft", g, axis=axis))
    end = half.shape[axis] - (n % 2 == 0)
    parts = slice(0, 1), slice(1, end), slice(max(end, 1), None)
    first, middle, last = (half[(slice(None),) * axis + (part,)] for part in parts)
    return F.concatenate([first, F.multiply(middle, 2), last], axis=axis)


def _irfft_samples() -> Iterator[Sample]:
    def check(x: np.ndarray, axis: int, n: int) -> np.ndarray:
        k, j = np.arange(n // 2 + 1), np.arange(n)
        weight = np.where((k == 0) | (2 * k == n), 1.0, 2.0)
        parts = [_along(f(2 * np.pi * np.outer(j, k) / n) * weight, p.astype(np.float64), axis)
                 for f, p in ((np.cos, x.real), (np.sin, x.imag))]
        return (parts[0] - parts[1]).astype(real_dtype(x.dtype))

    for dtype in (np.complex128, np.complex64):
        for n, lead in ((7, ()), (8, ()), (4, (3,)), (1, (2,)), (2, ())):
            shape = (*lead, n // 2 + 1)
            real = real_dtype(np.dtype(dtype))
            x = (random_array(1, shape, real) + 1j * random_array(2, shape, real)).astype(dtype)
            yield Sample((x,), {"axis": len(lead), "n": n}, check, tolerance=8.0)


register(Op("irfft", ("x",), _irfft_infer, _irfft_eager, {"x": Vjp(_irfft_vjp)}, OPAQUE, _irfft_samples))
