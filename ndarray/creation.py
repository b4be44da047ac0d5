"""Making arrays: from Python and NumPy data, and filled with constants and ranges.

In a trace, the functions that take no data are captured as operations (nothing is stored in the graph); data given to
`array` becomes a captured input.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from . import allocation
from .apply import apply, is_tracing
from .array import NDArray, literal, wrap
from .device import Device
from .device import device as _device
from .dims import Dim, Size
from .dtypes import canonical, complex64, default_float, default_int, scalar_dtype
from .op import OPS
from .operands import as_array

__all__ = [
    "arange", "array", "asanyarray", "asarray", "ascontiguousarray", "empty", "empty_like", "eye", "from_dlpack", "from_numpy",
    "frombuffer", "fromfunction", "full", "full_like", "geomspace", "identity", "indices", "linspace", "logspace", "meshgrid",
    "ones", "ones_like", "tri", "zeros", "zeros_like",
]

Place = Device | str | None


def _place(device: Place, ctx: Place) -> Device:
    return _device(ctx if device is None else device)


def array(data: Any, dtype: Any = None, device: Place = None, ctx: Place = None, *, copy: bool = True) -> NDArray:
    """A new array with the values of `data`: numbers in nested lists, a NumPy array, an NDArray, or a DLPack object.

    Without `dtype`, arrays keep theirs, Python floats become float32, Python ints int64 and complex numbers complex64. Lists
    of NDArrays are stacked, and gradients flow back to them. `ctx` is MXNet's name of `device`. Raises TypeError for data
    that is not numeric, ValueError for ragged lists.

    >>> nd.array([[1, 2], [3, 4]], dtype="float32")
    array([[1., 2.],
           [3., 4.]])
    """
    if isinstance(data, NDArray):
        place = data._device if device is None and ctx is None else _place(device, ctx)
        out = data if dtype is None else data.astype(dtype, copy=False)
        moved = out.to_device(place)
        return moved.copy() if copy and moved is data else moved
    if isinstance(data, (list, tuple)) and _holds_ndarrays(data):
        return array(_stacked(data), dtype, device, ctx, copy=False)
    place = _place(device, ctx)
    if isinstance(data, (bool, int, float, complex)):
        dtype = scalar_dtype(data) if dtype is None else canonical(dtype)
        return wrap(place.module.asarray(data, dtype=dtype), place)
    if not isinstance(data, (np.ndarray, np.generic)):
        found = _foreign(data)
        if found is not None:
            return array(found, dtype, found._device if device is None and ctx is None else place, copy=copy)
        if hasattr(data, "__dlpack__"):
            data = np.from_dlpack(data)
    if isinstance(data, (np.ndarray, np.generic)):
        dtype = canonical(data.dtype if dtype is None else dtype)
    else:
        data, dtype = _from_nested(data, dtype)
    if copy or place.kind != "cpu":
        return wrap((place.memory or place.module).array(data, dtype=dtype, order="C"), place)
    shared = np.asarray(data, dtype=dtype)
    if not shared.flags.writeable:
        return wrap(allocation.array(shared), place)
    out = wrap(shared, place)
    if shared is data or shared.base is not None:
        out._export()
    return out


def _foreign(data: Any) -> NDArray | None:
    """An array on the memory of an object whose memory is a GPU's (or of ``sim(i)``); None for others."""
    if hasattr(data, "__cuda_array_interface__") or (
        hasattr(data, "__dlpack_device__") and int(data.__dlpack_device__()[0]) in _CUDA_DEVICES
    ):
        from . import cuda

        found, index = cuda.adopt(data)
        out = wrap(found, Device("gpu", index))
    elif type(data).__module__ == "ndarray.simulated" and hasattr(data, "_memory"):
        out = wrap(data, Device("sim", data.device))
    else:
        return None
    canonical(out.dtype)
    out._export()
    return out


_CUDA_DEVICES = (2, 13)  # kDLCUDA, kDLCUDAManaged


def _from_nested(data: Any, dtype: Any) -> tuple[np.ndarray, np.dtype]:
    found = np.asarray(data)
    if dtype is not None:
        return found, canonical(dtype)
    if found.dtype.kind in "OUSV":
        raise TypeError(f"array: data must be numbers, got {type(data).__name__}: {data!r:.80}")
    if isinstance(data, (list, tuple)) and not _holds(data, (np.ndarray, np.generic)):  # Python's numbers
        found_dtype = {"f": default_float, "c": complex64}.get(found.dtype.kind, found.dtype)
        return found, canonical(found_dtype)
    return found, canonical(found.dtype)


def _holds(data: Any, kinds: Any) -> bool:
    """Whether the first number in nested lists is of a kind."""
    while isinstance(data, (list, tuple)) and data:
        data = data[0]
    return isinstance(data, kinds)


def _holds_ndarrays(data: Any) -> bool:
    """Whether there are NDArrays in nested lists; of a long list only the first element is asked."""
    if len(data) > 1000:
        return _holds(data, NDArray)
    return any(_holds_ndarrays(d) if isinstance(d, (list, tuple)) else isinstance(d, NDArray) for d in data)


def _stacked(data: Any) -> NDArray:
    from .functions import stack

    return stack([_stacked(d) if isinstance(d, (list, tuple)) else d for d in data])


def asarray(
    obj: Any, /, dtype: Any = None, device: Place = None, ctx: Place = None, *, copy: bool | None = None,
) -> NDArray:
    """`obj` (numbers in nested lists, a NumPy array, an NDArray, a DLPack object or a buffer) as an array.

    Shares memory with a NumPy array or an NDArray where dtype and device allow it; never if `copy`, and if `copy` is False,
    a ValueError says that memory can't be shared.

    >>> nd.asarray([1.0, 2.0])
    array([1., 2.])
    """
    if isinstance(obj, NDArray) and not copy:
        out = obj if device is None and ctx is None else obj.to_device(_place(device, ctx))
        out = out if dtype is None else out.astype(dtype, copy=False)
        if copy is False and out is not obj:
            raise ValueError(f"asarray: copy=False: {obj.dtype} on {obj._device} needs a copy for {out.dtype} on {out._device}")
        return out
    if copy is False:
        found = None if isinstance(obj, np.ndarray) else _foreign(obj)
        if found is not None:
            return asarray(found, dtype, device, ctx, copy=False)
        _refuse_copy(obj, dtype, _place(device, ctx))
    return array(obj, dtype, device, ctx, copy=bool(copy))


def _refuse_copy(obj: Any, dtype: Any, place: Device) -> None:
    if not isinstance(obj, np.ndarray):
        if not hasattr(obj, "__dlpack__") and not hasattr(obj, "__array__"):
            try:
                memoryview(obj)
            except TypeError:
                raise ValueError(f"asarray: copy=False: a {type(obj).__name__} has no memory to share") from None
        obj = np.asarray(obj)
    if place.kind != "cpu" or not obj.flags.writeable or (dtype is not None and canonical(dtype) != obj.dtype):
        raise ValueError(f"asarray: copy=False: a {obj.dtype} array of NumPy needs a copy for {dtype or obj.dtype} on {place}")


asanyarray = asarray


def ascontiguousarray(a: Any, /, dtype: Any = None) -> NDArray:
    """`a` as an array whose elements lie in row-major order: itself if they do, else a copy.

    >>> nd.ascontiguousarray(nd.ones((2, 3)).T).shape
    (3, 2)
    """
    out = asarray(a, dtype)
    data = out._data
    return out.copy() if not hasattr(data, "concretize") and not data.flags.c_contiguous else out


def frombuffer(buffer: Any, /, dtype: Any = None, count: int = -1, offset: int = 0) -> NDArray:
    """The numbers in a buffer (bytes, bytearray, memoryview, mmap) as one axis; memory that may be written is shared.

    >>> nd.frombuffer(b"\\x01\\x02", dtype="uint8")
    array([1, 2], dtype=uint8)
    """
    dtype = default_float if dtype is None else canonical(dtype)
    return asarray(np.frombuffer(buffer, dtype, count, offset))


def fromfunction(function: Any, /, shape: Any, *, dtype: Any = None) -> NDArray:
    """``function(i, j, ...)`` of the positions along each axis, as arrays of `dtype` (float32).

    >>> nd.fromfunction(lambda i, j: 10 * i + j, (2, 3))
    array([[ 0.,  1.,  2.],
           [10., 11., 12.]])
    """
    return asarray(function(*indices(shape, dtype=default_float if dtype is None else dtype)))


def indices(dimensions: Any, /, dtype: Any = None) -> NDArray:
    """The positions along each axis of an array of that shape, one array each along a new first axis; int64.

    >>> nd.indices((2, 3))[1]
    array([[0, 1, 2],
           [0, 1, 2]])
    """
    shape = _shape(dimensions)
    dtype = default_int if dtype is None else canonical(dtype)
    from .functions import stack

    if not shape:
        return zeros((0,), dtype)
    return stack([apply(OPS["iota"], shape=shape, axis=k, dtype=dtype) for k in range(len(shape))])


def from_numpy(data: np.ndarray, zero_copy: bool = True) -> NDArray:
    """An array on the memory of a NumPy array (a copy where it is read-only or not `zero_copy`).

    >>> nd.from_numpy(np.array([1.0, 2.0]))
    array([1., 2.], dtype=float64)
    """
    return array(data, copy=not zero_copy)


def from_dlpack(x: Any, /, *, device: Place = None, copy: bool | None = None) -> NDArray:
    """An array on the memory of an object with ``__dlpack__`` (PyTorch, JAX, CuPy, NumPy ...), or a copy of it: on the GPU
    where that memory is one's.

    Read-only memory is copied. Raises ValueError for ``copy=False`` where memory can't be shared.

    >>> nd.from_dlpack(nd.arange(3))
    array([0, 1, 2])
    """
    if isinstance(x, NDArray):
        return x.copy() if copy and (device is None or _device(device) is x._device) else asarray(x, device=device)
    found = _foreign(x)
    if found is not None:
        place = found._device if device is None else _device(device)
        if copy is False and place is not found._device:
            raise ValueError(f"from_dlpack: copy=False: memory on {found._device} needs a copy for {place}")
        return found.copy() if copy and place is found._device else found.to_device(place)
    shared = np.from_dlpack(x)
    place = _device("cpu") if device is None else _device(device)
    if copy is False and not (shared.flags.writeable and place.kind == "cpu"):
        raise ValueError(f"from_dlpack: copy=False: read-only memory, or memory on another device than {place}, needs a copy")
    if copy or not shared.flags.writeable:
        return array(shared, device=place)
    out = wrap(shared, place if place.kind == "cpu" else _device("cpu"))
    out._export()
    return out.to_device(place)


def full(shape: Any, fill_value: Any, dtype: Any = None, device: Place = None, ctx: Place = None) -> NDArray:
    """An array of `shape` whose elements are all `fill_value` (a number, or an array that broadcasts).

    >>> nd.full((2, 2), 7)
    array([[7, 7],
           [7, 7]])
    """
    shape = _shape(shape)
    place = _place(device, ctx)
    if isinstance(fill_value, NDArray):
        value = fill_value if dtype is None else fill_value.astype(dtype, copy=False)
        return apply(OPS["copy"], apply(OPS["broadcast_to"], value.to_device(place), shape=shape))
    dtype = scalar_dtype(fill_value) if dtype is None else canonical(dtype)
    if is_tracing():
        return apply(OPS["broadcast_to"], literal(fill_value, dtype, place), shape=shape)
    return wrap((place.memory or place.module).full(tuple(map(int, shape)), fill_value, dtype), place)


def zeros(shape: Any, dtype: Any = None, device: Place = None, ctx: Place = None) -> NDArray:
    """An array of zeros (float32 unless told otherwise).

    >>> nd.zeros((2, 3))
    array([[0., 0., 0.],
           [0., 0., 0.]])
    """
    dtype = default_float if dtype is None else canonical(dtype)
    if is_tracing():
        return full(shape, 0, dtype, device, ctx)
    place = _place(device, ctx)
    return wrap((place.memory or place.module).zeros(_shape(shape), dtype), place)


def ones(shape: Any, dtype: Any = None, device: Place = None, ctx: Place = None) -> NDArray:
    """An array of ones (float32 unless told otherwise).

    >>> nd.ones(3, dtype="int32")
    array([1, 1, 1], dtype=int32)
    """
    return full(shape, 1, default_float if dtype is None else dtype, device, ctx)


def empty(shape: Any, dtype: Any = None, device: Place = None, ctx: Place = None) -> NDArray:
    """An array of unspecified contents (zeros in a trace), float32 unless told otherwise.

    >>> nd.empty((2, 3)).shape
    (2, 3)
    """
    dtype = default_float if dtype is None else canonical(dtype)
    if is_tracing():
        return full(shape, 0, dtype, device, ctx)
    place = _place(device, ctx)
    return wrap((place.memory or place.module).empty(_shape(shape), dtype), place)


def zeros_like(x: Any, /, dtype: Any = None, device: Place = None) -> NDArray:
    """Zeros of the shape, dtype and device of `x`.

    >>> nd.zeros_like(nd.array([1, 2]))
    array([0, 0])
    """
    x = as_array("zeros_like", "x", x)
    return zeros(x.shape, x.dtype if dtype is None else dtype, x._device if device is None else device)


def ones_like(x: Any, /, dtype: Any = None, device: Place = None) -> NDArray:
    """Ones of the shape, dtype and device of `x`.

    >>> nd.ones_like(nd.array([1, 2]))
    array([1, 1])
    """
    x = as_array("ones_like", "x", x)
    return ones(x.shape, x.dtype if dtype is None else dtype, x._device if device is None else device)


def empty_like(x: Any, /, dtype: Any = None, device: Place = None) -> NDArray:
    """An array of the shape, dtype and device of `x`, of unspecified contents.

    >>> nd.empty_like(nd.array([1, 2])).shape
    (2,)
    """
    x = as_array("empty_like", "x", x)
    return empty(x.shape, x.dtype if dtype is None else dtype, x._device if device is None else device)


def full_like(x: Any, /, fill_value: Any, dtype: Any = None, device: Place = None) -> NDArray:
    """`fill_value` in the shape, dtype and device of `x`.

    >>> nd.full_like(nd.array([1, 2]), 5)
    array([5, 5])
    """
    x = as_array("full_like", "x", x)
    return full(x.shape, fill_value, x.dtype if dtype is None else dtype, x._device if device is None else device)


def arange(
    start: Any, /, stop: Any = None, step: Any = 1, dtype: Any = None, device: Place = None, ctx: Place = None,
) -> NDArray:
    """``start, start + step, ...`` below `stop`. ``arange(n)`` starts at 0. int64 for integers, else float32.

    >>> nd.arange(3), nd.arange(1, 2, 0.5)
    (array([0, 1, 2]), array([1. , 1.5]))
    """
    if stop is None:
        start, stop = 0, start
    if step == 0:
        raise ValueError("arange: step must not be 0")
    place = _place(device, ctx)
    integral = all(hasattr(v, "__index__") for v in (start, stop, step))
    dtype = (default_int if integral else default_float) if dtype is None else canonical(dtype)
    if not is_tracing():
        if place._module is not None:
            return wrap(place._module.arange(start, stop, step).astype(dtype), place)
        with place.active():
            return wrap(place.inner.arange(start, stop, step).astype(dtype), place)
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
    start: Any, stop: Any, /, num: int = 50, endpoint: bool = True, dtype: Any = None, device: Place = None,
    ctx: Place = None,
) -> NDArray:
    """`num` evenly spaced numbers from `start` to `stop` (which is the last one if `endpoint`).

    float32, or complex64 if one of them is complex. Raises ValueError for a negative `num`.

    >>> nd.linspace(0, 1, 5)
    array([0.  , 0.25, 0.5 , 0.75, 1.  ])
    """
    return _spaced("linspace", np.linspace, start, stop, num, endpoint, dtype, _place(device, ctx))


def logspace(
    start: Any, stop: Any, /, num: int = 50, endpoint: bool = True, base: float = 10.0, dtype: Any = None,
    device: Place = None, ctx: Place = None,
) -> NDArray:
    """`num` numbers from ``base ** start`` to ``base ** stop`` at equal ratios, float32.

    >>> nd.logspace(0, 2, 3)
    array([  1.,  10., 100.])
    """
    return _spaced("logspace", np.logspace, start, stop, num, endpoint, dtype, _place(device, ctx), base=base)


def geomspace(
    start: Any, stop: Any, /, num: int = 50, endpoint: bool = True, dtype: Any = None, device: Place = None,
    ctx: Place = None,
) -> NDArray:
    """`num` numbers from `start` to `stop` at equal ratios, float32. Raises ValueError where one is 0.

    >>> nd.geomspace(1, 8, 4)
    array([1., 2., 4., 8.])
    """
    return _spaced("geomspace", np.geomspace, start, stop, num, endpoint, dtype, _place(device, ctx))


def _spaced(
    name: str, make: Any, start: Any, stop: Any, num: int, endpoint: bool, dtype: Any, place: Device, **more: Any
) -> NDArray:
    start, stop = (v.item() if isinstance(v, NDArray) and v.ndim == 0 else v for v in (start, stop))
    for argument, v in (("start", start), ("stop", stop)):
        if isinstance(v, NDArray):
            raise TypeError(f"{name}: {argument}: expected a number, got an array of shape {v.shape}; scale and shift "
                            f"nd.{name}(0, 1, num) by broadcasting, or take .asnumpy()")
    if dtype is None:
        dtype = complex64 if isinstance(start, complex) or isinstance(stop, complex) else default_float
    try:
        values = make(start, stop, num, endpoint=endpoint, **more)
    except (ValueError, TypeError) as error:
        raise type(error)(f"{name}: {error}") from None
    return wrap(place.module.asarray(values, dtype=canonical(dtype)), place)


def eye(
    n_rows: int, n_cols: int | None = None, /, k: int = 0, dtype: Any = None, device: Place = None, ctx: Place = None,
) -> NDArray:
    """A matrix with ones on the `k`-th diagonal and zeros elsewhere, float32 unless told otherwise.

    >>> nd.eye(2, 3, k=1)
    array([[0., 1., 0.],
           [0., 0., 1.]])
    """
    return _compare_positions("equal", n_rows, n_cols, k, dtype, _place(device, ctx))


def identity(n: int, dtype: Any = None, device: Place = None, ctx: Place = None) -> NDArray:
    """The n x n identity matrix.

    >>> nd.identity(2)
    array([[1., 0.],
           [0., 1.]])
    """
    return eye(n, dtype=dtype, device=device, ctx=ctx)


def tri(
    n_rows: int, n_cols: int | None = None, k: int = 0, dtype: Any = None, device: Place = None, ctx: Place = None,
) -> NDArray:
    """A matrix with ones at and below the `k`-th diagonal and zeros elsewhere.

    >>> nd.tri(2, 3)
    array([[1., 0., 0.],
           [1., 1., 0.]])
    """
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


def meshgrid(*arrays: Any, indexing: str = "xy") -> list[NDArray]:
    """Coordinate arrays from arrays of one axis: the k-th varies along axis k only ("ij"), or with the first two axes
    exchanged ("xy").

    Raises ValueError for another `indexing`, or an array of more than one axis.

    >>> nd.meshgrid(nd.array([1, 2]), nd.array([3, 4, 5]))[0]
    array([[1, 2],
           [1, 2],
           [1, 2]])
    """
    if indexing not in ("xy", "ij"):
        raise ValueError(f"meshgrid: indexing must be 'xy' or 'ij', got {indexing!r}")
    found = [as_array("meshgrid", f"arrays[{k}]", a) for k, a in enumerate(arrays)]
    for k, a in enumerate(found):
        if a.ndim > 1:
            raise ValueError(f"meshgrid: arrays[{k}]: expected one axis, got shape {a.shape}")
    found = [a.reshape((1,)) if a.ndim == 0 else a for a in found]
    count = len(found)
    order = list(range(count))
    if indexing == "xy" and count > 1:
        order[0], order[1] = 1, 0
    shape: list[Size] = [0] * count
    for a, axis in zip(found, order):
        shape[axis] = a.shape[0]
    return [
        a.reshape(tuple(a.shape[0] if i == axis else 1 for i in range(count))).broadcast_to(tuple(shape)).copy()
        for a, axis in zip(found, order)
    ]


def _shape(shape: Any) -> tuple[Size, ...]:
    if isinstance(shape, (tuple, list)):
        return tuple(shape)
    return (shape,)
