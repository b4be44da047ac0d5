"""Making arrays: from Python and NumPy data, and filled with constants and ranges.

In a trace, the functions that take no data are captured as operations (nothing is stored in the graph); data given to
`array` becomes a captured input.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .apply import apply, is_tracing
from .array import NDArray, literal, wrap
from .device import Device
from .device import device as _device
from .dims import Dim, Size
from .dtypes import canonical, default_float, default_int, scalar_dtype
from .op import OPS

__all__ = [
    "arange", "array", "asarray", "empty", "empty_like", "eye", "from_dlpack", "from_numpy", "full", "full_like",
    "identity", "linspace", "meshgrid", "ones", "ones_like", "tri", "zeros", "zeros_like",
]

Place = Device | str | None


def _place(device: Place, ctx: Place) -> Device:
    return _device(ctx if device is None else device)


def array(data: Any, dtype: Any = None, device: Place = None, ctx: Place = None, *, copy: bool = True) -> NDArray:
    """A new array with the values of `data`: numbers in nested lists, a NumPy array, an NDArray, or a DLPack object.

    Without `dtype`, arrays keep theirs, Python floats become float32 and Python ints int64. `ctx` is MXNet's name of
    `device`. Raises TypeError for data that is not numeric, ValueError for ragged lists.
    """
    if isinstance(data, NDArray):
        place = data._device if device is None and ctx is None else _place(device, ctx)
        out = data if dtype is None else data.astype(dtype, copy=False)
        moved = out.to_device(place)
        return moved.copy() if copy and moved is data else moved
    place = _place(device, ctx)
    if isinstance(data, (bool, int, float, complex)):
        dtype = scalar_dtype(data) if dtype is None else canonical(dtype)
        return wrap(place.module.asarray(data, dtype=dtype), place)
    if not isinstance(data, (np.ndarray, np.generic)) and hasattr(data, "__dlpack__"):
        data = np.from_dlpack(data)
    if isinstance(data, (np.ndarray, np.generic)):
        dtype = canonical(data.dtype if dtype is None else dtype)
    else:
        data, dtype = _from_nested(data, dtype)
    if copy or place.kind == "gpu":
        return wrap(place.module.array(data, dtype=dtype, order="C"), place)
    shared = np.asarray(data, dtype=dtype)
    if not shared.flags.writeable:
        return wrap(shared.copy(), place)
    out = wrap(shared, place)
    if shared is data or shared.base is not None:
        out._export()
    return out


def _from_nested(data: Any, dtype: Any) -> tuple[np.ndarray, np.dtype]:
    if isinstance(data, (list, tuple)) and _holds_arrays(data):
        data = _to_numpy(data)
        found = np.asarray(data)
        return found, canonical(found.dtype if dtype is None else dtype)
    found = np.asarray(data)
    if dtype is None:
        dtype = default_float if found.dtype == np.float64 else found.dtype
        if found.dtype.kind in "OUSV":
            raise TypeError(f"array: data must be numbers, got {type(data).__name__}: {data!r:.80}")
    return found, canonical(dtype)


def _holds_arrays(data: Any) -> bool:
    while isinstance(data, (list, tuple)) and data:
        data = data[0]
    return isinstance(data, (NDArray, np.ndarray, np.generic))


def _to_numpy(data: Any) -> Any:
    if isinstance(data, (list, tuple)):
        return [_to_numpy(d) for d in data]
    return data.asnumpy() if isinstance(data, NDArray) else data


def asarray(
    data: Any, dtype: Any = None, device: Place = None, ctx: Place = None, *, copy: bool | None = None,
) -> NDArray:
    """`data` as an array, sharing memory with a NumPy array (or an NDArray) where dtype and device allow it."""
    if isinstance(data, NDArray) and not copy:
        out = data if device is None and ctx is None else data.to_device(_place(device, ctx))
        return out if dtype is None else out.astype(dtype, copy=False)
    return array(data, dtype, device, ctx, copy=bool(copy))


def from_numpy(data: np.ndarray, zero_copy: bool = True) -> NDArray:
    """An array on the memory of a NumPy array (a copy where it is read-only or not `zero_copy`)."""
    return array(data, copy=not zero_copy)


def from_dlpack(data: Any, /, *, device: Place = None, copy: bool | None = None) -> NDArray:
    """An array on the memory of an object with ``__dlpack__`` (PyTorch, JAX, CuPy, NumPy ...)."""
    if isinstance(data, NDArray):
        return data.copy() if copy else asarray(data, device=device)
    shared = np.from_dlpack(data)
    if copy or not shared.flags.writeable:
        return array(shared, device=device)
    out = wrap(shared, _device("cpu"))
    out._export()
    return out if device is None else out.to_device(device)


def full(shape: Any, fill_value: Any, dtype: Any = None, device: Place = None, ctx: Place = None) -> NDArray:
    """An array of `shape` whose elements are all `fill_value`."""
    shape = _shape(shape)
    place = _place(device, ctx)
    if isinstance(fill_value, NDArray):
        value = fill_value if dtype is None else fill_value.astype(dtype, copy=False)
        return apply(OPS["copy"], apply(OPS["broadcast_to"], value.to_device(place), shape=shape))
    dtype = scalar_dtype(fill_value) if dtype is None else canonical(dtype)
    if is_tracing():
        return apply(OPS["broadcast_to"], literal(fill_value, dtype, place), shape=shape)
    return wrap(place.module.full(tuple(map(int, shape)), fill_value, dtype), place)


def zeros(shape: Any, dtype: Any = None, device: Place = None, ctx: Place = None) -> NDArray:
    """An array of zeros (float32 unless told otherwise)."""
    dtype = default_float if dtype is None else canonical(dtype)
    if is_tracing():
        return full(shape, 0, dtype, device, ctx)
    place = _place(device, ctx)
    return wrap(place.module.zeros(_shape(shape), dtype), place)


def ones(shape: Any, dtype: Any = None, device: Place = None, ctx: Place = None) -> NDArray:
    """An array of ones (float32 unless told otherwise)."""
    return full(shape, 1, default_float if dtype is None else dtype, device, ctx)


def empty(shape: Any, dtype: Any = None, device: Place = None, ctx: Place = None) -> NDArray:
    """An array of unspecified contents (zeros in a trace)."""
    dtype = default_float if dtype is None else canonical(dtype)
    if is_tracing():
        return full(shape, 0, dtype, device, ctx)
    place = _place(device, ctx)
    return wrap(place.module.empty(_shape(shape), dtype), place)


def zeros_like(x: NDArray, dtype: Any = None, device: Place = None) -> NDArray:
    """Zeros of the shape, dtype and device of `x`."""
    return zeros(x.shape, x.dtype if dtype is None else dtype, x._device if device is None else device)


def ones_like(x: NDArray, dtype: Any = None, device: Place = None) -> NDArray:
    """Ones of the shape, dtype and device of `x`."""
    return ones(x.shape, x.dtype if dtype is None else dtype, x._device if device is None else device)


def empty_like(x: NDArray, dtype: Any = None, device: Place = None) -> NDArray:
    """An array of the shape, dtype and device of `x`, of unspecified contents."""
    return empty(x.shape, x.dtype if dtype is None else dtype, x._device if device is None else device)


def full_like(x: NDArray, fill_value: Any, dtype: Any = None, device: Place = None) -> NDArray:
    """`fill_value` in the shape, dtype and device of `x`."""
    return full(x.shape, fill_value, x.dtype if dtype is None else dtype, x._device if device is None else device)


def arange(
    start: Any, stop: Any = None, step: Any = 1, dtype: Any = None, device: Place = None, ctx: Place = None,
) -> NDArray:
    """``start, start + step, ...`` below `stop`. ``arange(n)`` starts at 0. int64 for integers, else float32."""
    if stop is None:
        start, stop = 0, start
    if step == 0:
        raise ValueError("arange: step must not be 0")
    place = _place(device, ctx)
    integral = all(hasattr(v, "__index__") for v in (start, stop, step))
    dtype = (default_int if integral else default_float) if dtype is None else canonical(dtype)
    if not is_tracing():
        return wrap(place.module.arange(start, stop, step).astype(dtype), place)
    if integral:
        length: Size = (stop - start + step - (1 if step > 0 else -1)) // step
        length = length if isinstance(length, Dim) else max(length, 0)
    else:
        length = max(int(np.ceil((stop - start) / step)), 0)
    with place:
        out = apply(OPS["iota"], shape=(length,), axis=0, dtype=dtype)
    if step != 1:
        out = apply(OPS["multiply"], out, literal(step, dtype, place))
    return out if isinstance(start, int) and start == 0 else apply(OPS["add"], out, literal(start, dtype, place))


def linspace(
    start: float, stop: float, num: int = 50, endpoint: bool = True, dtype: Any = None, device: Place = None,
    ctx: Place = None,
) -> NDArray:
    """`num` evenly spaced numbers from `start` to `stop` (which is the last one if `endpoint`)."""
    place = _place(device, ctx)
    dtype = default_float if dtype is None else canonical(dtype)
    return wrap(place.module.asarray(np.linspace(start, stop, num, endpoint=endpoint), dtype=dtype), place)


def eye(
    n_rows: int, n_cols: int | None = None, k: int = 0, dtype: Any = None, device: Place = None, ctx: Place = None,
) -> NDArray:
    """A matrix with ones on the `k`-th diagonal and zeros elsewhere."""
    return _compare_positions("equal", n_rows, n_cols, k, dtype, _place(device, ctx))


def identity(n: int, dtype: Any = None, device: Place = None, ctx: Place = None) -> NDArray:
    """The n x n identity matrix."""
    return eye(n, dtype=dtype, device=device, ctx=ctx)


def tri(
    n_rows: int, n_cols: int | None = None, k: int = 0, dtype: Any = None, device: Place = None, ctx: Place = None,
) -> NDArray:
    """A matrix with ones at and below the `k`-th diagonal and zeros elsewhere."""
    return _compare_positions("less_equal", n_rows, n_cols, k, dtype, _place(device, ctx))


def _compare_positions(comparison: str, n_rows: Any, n_cols: Any, k: int, dtype: Any, place: Device) -> NDArray:
    n_cols = n_rows if n_cols is None else n_cols
    dtype = default_float if dtype is None else canonical(dtype)
    if not is_tracing():
        make = place.module.eye if comparison == "equal" else place.module.tri
        return wrap(make(n_rows, n_cols, k, dtype), place)
    with place:
        row, column = (apply(OPS["iota"], shape=(n_rows, n_cols), axis=axis, dtype=default_int) for axis in (0, 1))
    if k:
        row = apply(OPS["add"], row, literal(k, default_int, place))
    return apply(OPS["cast"], apply(OPS[comparison], column, row), dtype=dtype)


def meshgrid(*arrays: NDArray, indexing: str = "xy") -> list[NDArray]:
    """Coordinate arrays from 1-d ones, as NumPy's meshgrid."""
    if indexing not in ("xy", "ij"):
        raise ValueError(f"meshgrid: indexing must be 'xy' or 'ij', got {indexing!r}")
    count = len(arrays)
    order = list(range(count))
    if indexing == "xy" and count > 1:
        order[0], order[1] = 1, 0
    shape: list[Size] = [0] * count
    for a, axis in zip(arrays, order):
        shape[axis] = a.shape[0]
    return [
        a.reshape(tuple(-1 if i == axis else 1 for i in range(count))).broadcast_to(tuple(shape)).copy()
        for a, axis in zip(arrays, order)
    ]


def _shape(shape: Any) -> tuple[Size, ...]:
    if isinstance(shape, (tuple, list)):
        return tuple(shape)
    return (shape,)
