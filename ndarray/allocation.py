"""Memory of arrays on the CPU that begins at a cache line, under the names of NumPy's functions.

What NumPy allocates begins 16 bytes behind a multiple of 64, so that each vector of 64 bytes lies in two cache lines: 2 to 7%
of a large product's time. Here arrays of `ALIGNED_BYTES` or more lie within somewhat longer bytes of NumPy's, which are then
their `base`. Each array has bytes of its own: two arrays that have one `base` share memory, as always.
"""

from __future__ import annotations

import ctypes
from math import prod
from operator import index
from typing import Any

import numpy as np

__all__ = ["ALIGNED_BYTES", "ALIGNMENT", "aligned_empty", "array", "empty", "full", "zeros"]

ALIGNMENT = 64
"""Bytes of a cache line, and of the longest vectors."""

ALIGNED_BYTES = 16384
"""Smaller arrays are NumPy's: aligning one takes nearly a microsecond."""

_BYTES = np.dtype(np.uint8)
_ndarray, _empty, _zeros = np.ndarray, np.empty, np.zeros
_at, _address = ctypes.c_char.from_buffer, ctypes.addressof


def _offset(raw: np.ndarray) -> int:
    at: Any = raw
    return -_address(_at(at)) % ALIGNMENT  # a tenth of the time of `raw.ctypes.data`


def _made(make: Any, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    size = prod(shape) * dtype.itemsize
    if type(size) is not int:  # NumPy's integers overflow
        size = prod(map(index, shape)) * dtype.itemsize
    if size < ALIGNED_BYTES:
        return make(shape, dtype)
    raw = make(size + ALIGNMENT, _BYTES)
    return _ndarray(shape, dtype, raw, _offset(raw))


def aligned_empty(nbytes: int) -> np.ndarray:
    """So many bytes, however few, at a multiple of `ALIGNMENT`."""
    raw = _empty(nbytes + ALIGNMENT, _BYTES)
    return _ndarray((nbytes,), _BYTES, raw, _offset(raw))


def empty(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """An array of unspecified contents."""
    return _made(_empty, shape, dtype)


def zeros(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """An array of zeros. As NumPy's, a large one takes no memory before it is written."""
    return _made(_zeros, shape, dtype)


def full(shape: tuple[int, ...], fill_value: Any, dtype: np.dtype) -> np.ndarray:
    """An array with `fill_value` everywhere."""
    out = empty(shape, dtype)
    np.copyto(out, fill_value, casting="unsafe")
    return out


def array(values: Any, dtype: np.dtype | None = None, order: str = "C") -> np.ndarray:
    """A copy in row-major order of an array or a number of NumPy, converted to `dtype`."""
    assert order == "C"
    dtype = values.dtype if dtype is None else dtype
    size = values.size * dtype.itemsize
    if size < ALIGNED_BYTES:
        return np.array(values, dtype, order="C")
    raw = _empty(size + ALIGNMENT, _BYTES)
    out = _ndarray(values.shape, dtype, raw, _offset(raw))
    out[...] = values
    return out
