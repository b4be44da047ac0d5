"""`NDArray`: an array on a device, with NumPy's semantics, the same class eagerly and in a trace.

``_data`` holds the backend array (NumPy's on the CPU) or, in a trace, the tracer's value. Operators and methods go
through the public functions of `ndarray.functions` (see `ndarray.methods`).

Memory: basic indexing gives a view. A `Storage` counts the writes to one buffer and is shared by its views; it is
made at the first write or view, so that most arrays never have one.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from itertools import count
from threading import Lock
from typing import TYPE_CHECKING, Any
from weakref import ref

import numpy as np

from . import allocation
from . import apply as _apply
from .device import Device
from .device import device as _device
from .dims import Size, product
from .dtypes import canonical
from .op import OPS

if TYPE_CHECKING:
    from types import CodeType, ModuleType

    from .method_types import Methods
else:
    Methods = object  # operators and the like are installed by `methods`

__all__ = ["LiteralArray", "NDArray", "Storage", "is_literal", "literal", "literal_value", "raw_index", "storage_of", "wrap"]

_ndarray = np.ndarray
_top_get = _apply._top.get
_new = object.__new__
_FULL = slice(None)
_stamps = count(1)
_storage_lock = Lock()
_FIRST = _device("cpu")
_UNSAID = frozenset(("float32", "int64", "bool", "complex64"))  # the dtypes that Python's numbers become
_PACKAGE = __file__[: -len("array.py")]


class Storage:
    """The write counter of one buffer, shared by all arrays that view it.

    version   raised before each write
    stamp     another number after each write: who reads the buffer while it is written finds another one later
    exported  whether someone outside (NumPy, DLPack) holds a writable view, whose writes nobody counts
    writer    the (code object, line) that wrote last
    """

    __slots__ = ("_derived", "exported", "stamp", "version", "writer")

    def __init__(self) -> None:
        self.version, self.stamp, self.exported = 0, 0, False
        self.writer: tuple[CodeType, int] | None = None
        self._derived: tuple[ref[Any], ...] = ()

    def finish_write(self) -> None:
        """To be called when a write is over: what was derived from the old values is stale."""
        self.stamp = next(_stamps)
        for reference in self._derived:
            derived = reference()
            if derived is not None:
                derived.stale = True

    def watch(self, derived: Any) -> None:
        """Have ``derived.stale`` set at the end of each write from now on; held weakly."""
        with _storage_lock:
            alive = [r for r in self._derived if (d := r()) is not None and not d.stale]
            self._derived = (*alive, ref(derived))

    def where(self) -> str:
        """The line that wrote last, as text."""
        return f"{self.writer[0].co_filename}:{self.writer[1]}" if self.writer else "an unknown line"


class NDArray(Methods):
    """An n-dimensional array of one dtype on one device. Made by `array`, `zeros` and friends, not by calling this."""

    __slots__ = ("__weakref__", "_data", "_device", "_node", "_storage")

    _data: Any  # the backend array, or the tracer's value
    _device: Device
    _node: Any  # None, or (node of the tape or leaf, index of the result, version then)
    _storage: Storage | None

    __hash__ = object.__hash__

    def __init__(self, *_: Any, **__: Any):
        raise TypeError("NDArray is not called directly; use nd.array(...), nd.zeros(...), nd.asarray(...)")

    # -- what it is
    @property
    def shape(self) -> tuple[Size, ...]:
        """The sizes of the axes; in a trace they may be symbolic."""
        return self._data.shape

    @property
    def dtype(self) -> np.dtype:
        """The element type, a NumPy dtype."""
        return self._data.dtype

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self._data.shape)

    @property
    def size(self) -> Size:
        """The number of elements."""
        return product(self._data.shape)

    @property
    def itemsize(self) -> int:
        """Bytes per element."""
        return self._data.dtype.itemsize

    @property
    def nbytes(self) -> Size:
        """Bytes of all elements."""
        return self.size * self.itemsize

    @property
    def device(self) -> Device:
        """Where the array lives."""
        return self._device

    @property
    def context(self) -> Device:
        """MXNet's name of `device`."""
        return self._device

    ctx = context

    @property
    def stype(self) -> str:
        """The storage type; this class is always "default" (dense)."""
        return "default"

    def __len__(self) -> int:
        shape = self._data.shape
        if not shape:
            raise TypeError("len() of a 0-d array; it has no first axis")
        return shape[0]

    # -- storage
    def _touch(self) -> None:
        """Count a write to the buffer, with the user's line."""
        storage = self._storage or storage_of(self)
        storage.version += 1
        frame = sys._getframe(2)
        while frame.f_code.co_filename.startswith(_PACKAGE) and frame.f_back is not None:
            frame = frame.f_back
        storage.writer = (frame.f_code, frame.f_lineno)

    @property
    def _version(self) -> int:
        return 0 if self._storage is None else self._storage.version

    def _export(self) -> Storage:
        storage = storage_of(self)
        storage.exported = True
        storage.finish_write()
        return storage

    def _concrete(self, what: str) -> Any:
        """The backend array; a traced value raises the tracer's error about `what`."""
        data = self._data
        if type(data) is not _ndarray and hasattr(data, "concretize"):
            data.concretize(what)
        return data

    def _host(self, what: str) -> np.ndarray:
        """The values as a NumPy array, not to be written: the memory itself on the CPU, else a copy."""
        data = self._concrete(what)
        return data if type(data) is _ndarray else data.get()

    # -- to Python and NumPy
    def asnumpy(self) -> np.ndarray:
        """A new NumPy array with the same values. (``numpy.asarray(x)`` shares the memory instead.)"""
        data = self._concrete("asnumpy()")
        return data.copy() if type(data) is _ndarray else data.get()

    def item(self, *index: Any) -> Any:
        """The only element, or that at `index`, as a Python number."""
        data = self._concrete("item()")
        return data.item(*index) if type(data) is _ndarray else data.get().item(*index)

    asscalar = item

    def tolist(self) -> Any:
        """Nested lists of Python numbers."""
        return self._concrete("tolist()").tolist()

    def _single(self, what: str) -> Any:
        data = self._concrete(what)
        if data.size != 1:
            raise ValueError(f"{what} of an array with {data.size} elements (shape {data.shape}); it needs exactly one")
        return (data if type(data) is _ndarray else data.get()).reshape(()).item()

    def __bool__(self) -> bool:
        return bool(self._single("bool()"))

    def __float__(self) -> float:
        return float(self._single("float()"))

    def __int__(self) -> int:
        return int(self._single("int()"))

    def __complex__(self) -> complex:
        return complex(self._single("complex()"))

    def __index__(self) -> int:
        if self.dtype.kind not in "iu":
            raise TypeError(f"an array of dtype {self.dtype} can't be used as an index; an integer one can")
        return self._single("an index")

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        data = self._concrete("numpy.asarray()")
        if type(data) is not _ndarray:
            return data.get() if dtype is None else data.get().astype(dtype)
        if dtype is not None and np.dtype(dtype) != data.dtype:
            if copy is False:
                raise ValueError(f"numpy: a conversion from {data.dtype} to {np.dtype(dtype)} needs a copy")
            return data.astype(dtype)
        if copy:
            return data.copy()
        self._export()
        return data

    def __dlpack__(
        self, /, *, stream: Any = None, max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None, copy: bool | None = None,
    ) -> Any:
        """A capsule with the array's memory, for ``from_dlpack`` of other libraries.

        Raises BufferError where memory on another device, or read-only memory for a consumer that doesn't know of it, would
        have to be copied but `copy` is False.
        """
        data = self._concrete("DLPack export")
        if type(data) is not _ndarray:
            self._export()
            with self._device.active():
                return data.__dlpack__(stream=stream, max_version=max_version, dl_device=dl_device, copy=copy)
        if dl_device is not None and tuple(dl_device) != (1, 0):
            raise BufferError(f"DLPack export: expected the CPU (1, 0), got dl_device {tuple(dl_device)}; use to_device first")
        if copy or (not data.flags.writeable and copy is None):
            data = data.copy()
        elif not data.flags.writeable:
            raise BufferError("DLPack export: copy=False: this array is read-only, as views made by broadcasting are")
        else:
            self._export()
        try:
            return data.__dlpack__(stream=stream, max_version=max_version)
        except TypeError:  # NumPy 1 knows no versions
            return data.__dlpack__(stream=stream)

    def __dlpack_device__(self) -> tuple[int, int]:
        """The DLPack device: (1, 0) for the CPU (and ``sim(i)``, whose memory is the host's), (2, i) for ``gpu(i)``."""
        return self._concrete("DLPack export").__dlpack_device__()

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        data = self._concrete("__cuda_array_interface__")
        if self._device.kind != "gpu":
            raise AttributeError(f"an array on {self._device} has no __cuda_array_interface__")
        self._export()
        return data.__cuda_array_interface__

    def __reduce__(self) -> tuple:
        grad = self.grad
        return _unpickle, (self._concrete("pickling") if self._device.kind == "cpu" else self.asnumpy(), self._device,
                           None if grad is None else self._node[0].request)

    def __copy__(self) -> NDArray:
        return self.copy()

    def __deepcopy__(self, memo: dict) -> NDArray:
        data = self._concrete("copy.deepcopy()")
        with self._device.active():
            out = wrap(allocation.array(data) if type(data) is _ndarray else data.copy(), self._device)
        if self.grad is not None:
            out.attach_grad(self._node[0].request)
        return out

    def __repr__(self) -> str:
        data = self._data
        if hasattr(data, "concretize"):
            return f"<traced array {data.dtype.name}[{','.join(map(str, data.shape))}] on {self._device}>"
        if type(data) is not _ndarray:
            data = data.get()
        parts = [np.array2string(data, separator=", ", prefix="array(") if data.size or data.shape == (0,) else "[]"]
        if not data.size and data.shape != (0,):
            parts.append(f"shape={data.shape}")
        if data.dtype.name not in _UNSAID or not data.size:
            parts.append(f"dtype={data.dtype.name}")
        if self._device is not _FIRST:
            parts.append(f"device={self._device}")
        return f"array({', '.join(parts)})"

    def __str__(self) -> str:
        return repr(self) if hasattr(self._data, "concretize") else str(self.asnumpy())

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if spec and not self.shape else format(str(self), spec)

    # -- indexing
    def __iter__(self) -> Iterator[NDArray]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index: Any) -> NDArray:
        """NumPy's indexing. Ints, slices, None and Ellipsis give a view; masks and integer arrays a copy."""
        data = self._data
        if _top_get() is None and type(data) is _ndarray:
            raw: Any = index if type(index) is int else raw_index(index)
            kind = type(raw)
            if kind is int:
                out = wrap(data[raw, ...], self._device)
            elif kind is slice:
                out = wrap(data[raw], self._device)
            else:
                out = wrap(data[_with_ellipsis(raw) if kind is tuple else raw], self._device)
                memory = out._data.base
                if memory is None or not (memory is data or memory is data.base):
                    return out
            out._storage = self._storage or storage_of(self)
            return out
        return _indexing().get(self, index)

    def __setitem__(self, index: Any, value: Any) -> None:
        """``x[index] = value`` in place; the value is broadcast, and converted to the array's dtype."""
        if type(value) is not NDArray:
            if isinstance(value, (int, float, complex, np.generic)):
                value = literal(value, self.dtype, self._device)
            elif not isinstance(value, NDArray):
                value = wrap(self._device.module.asarray(value, dtype=self.dtype), self._device)
        if value.dtype is not self.dtype and value.dtype != self.dtype:
            value = value.astype(self.dtype)
        if type(index) is slice and index == _FULL:
            index = ...
        _apply.write(self, value, index)

    # -- copies and moves
    def astype(self, dtype: Any, copy: bool = True) -> NDArray:
        """The values converted to another dtype; the array itself if that is its dtype and not `copy`."""
        dtype = canonical(dtype)
        if dtype == self.dtype:
            return self.copy() if copy else self
        return _apply.apply(OPS["cast"], self, dtype=dtype)

    def copy(self) -> NDArray:
        """A new array with the same values."""
        return _apply.apply(OPS["copy"], self)

    def copyto(self, other: NDArray | Device) -> NDArray:
        """Write the values into another array, or copy them to a device; returns that array."""
        if isinstance(other, Device):
            return self.copy() if other is self._device else self.to_device(other)
        if other is self:
            return other
        other[...] = self.to_device(other._device)
        return other

    def to_device(self, device: Device | str, /, *, stream: Any = None) -> NDArray:
        """The array on `device`: itself if it is there already, else a copy. Gradients flow back.

        With a `Stream` as `stream` the copy is its work; others must wait for it.
        """
        device = _device(device)
        if device is self._device:
            return self
        from . import autograd

        if stream is None:
            return autograd.move(self, device)
        with stream:
            return autograd.move(self, device)

    def as_in_context(self, context: Device) -> NDArray:
        """MXNet's name of `to_device`."""
        return self.to_device(context)

    as_in_ctx = as_in_context
    as_nd_ndarray = as_np_ndarray = lambda self: self

    def wait_to_read(self) -> None:
        """Wait until the array is computed, and whatever else its GPU has been given. (On the CPU it is computed as soon as
        the call that made it returns.)"""
        if self._device.kind == "gpu":
            from . import cuda

            cuda.synchronize(self._device.index)
        elif self._device.kind == "sim":
            self._concrete("wait_to_read()").synchronize()

    # -- autograd
    def attach_grad(self, grad_req: str = "write", stype: str | None = None) -> None:
        """Let `backward` put a gradient into ``x.grad`` (zeros until then): "write", "add" to it, or "null".

        Detaches the array from what computed it.
        """
        from . import autograd

        autograd.attach(self, grad_req)

    @property
    def grad(self) -> NDArray | None:
        """The gradient array made by `attach_grad`; None without one."""
        node = self._node
        return None if node is None else getattr(node[0], "grad", None)

    def backward(self, out_grad: NDArray | None = None, retain_graph: bool = False, train_mode: bool = True) -> None:
        """Gradients of the sum (weighted by `out_grad`) for every array with `attach_grad` that this one is made of."""
        from . import autograd

        autograd.backward([self], None if out_grad is None else [out_grad], retain_graph, train_mode)

    def register_hook(self, hook: Callable[[NDArray], NDArray | None]) -> HookHandle:
        """Have ``hook(gradient)`` called whenever a backward knows the gradient of this leaf or recorded array.

        An array that it returns takes the gradient's place. Hooks run in the order of registration; ``handle.remove()`` or
        ``with x.register_hook(...):`` takes one away. Raises RuntimeError for an array to which no gradient flows.

        >>> import ndarray as nd
        >>> x = nd.array([1.0, 2.0])
        >>> x.attach_grad()
        >>> handle = x.register_hook(lambda g: nd.clip(g, -1, 1))
        >>> with nd.autograd.record():
        ...     y = (3 * x).sum()
        >>> y.backward()
        >>> x.grad.tolist()
        [1.0, 1.0]
        """
        from .tape import add_hook

        return HookHandle(add_hook(self, hook))

    def detach(self) -> NDArray:
        """The same memory without a history: gradients do not flow through it."""
        if _apply.is_tracing():
            return _apply.apply(OPS["stop_gradient"], self)
        return _twin(self)

    # -- NumPy's functions, and the Array API
    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        """``np.exp(x)``, ``np_array + x`` and the like are this package's functions."""
        from .interoperability import array_ufunc

        return array_ufunc(self, ufunc, method, *inputs, **options)

    def __array_function__(self, function: Any, types: Any, args: tuple, options: dict) -> Any:
        """``np.concatenate([x, y])`` and the like are this package's functions."""
        from .interoperability import array_function

        return array_function(self, function, types, args, dict(options))

    def __array_namespace__(self, /, *, api_version: str | None = None) -> ModuleType:
        """The module `ndarray`. Raises ValueError for a version of the Array API that it doesn't follow."""
        from .inspection import check_version

        check_version(api_version)
        return sys.modules[__package__]


class HookHandle:
    """Takes a hook away again: by `remove`, or at the end of a ``with`` block."""

    def __init__(self, remove: Callable[[], Any]):
        self.remove = remove

    def __enter__(self) -> HookHandle:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()


def wrap(data: Any, device: Device) -> NDArray:
    """An NDArray around a backend array (shared, not copied) or a tracer's value."""
    out = _new(NDArray)
    if type(data) is not _ndarray and isinstance(data, (np.generic, int, float, complex)):
        data = np.asarray(data)
    out._data = data
    out._device = device
    out._node = None
    out._storage = None
    return out


def storage_of(array: NDArray) -> Storage:
    """The array's storage, made if there is none yet."""
    with _storage_lock:
        if array._storage is None:
            array._storage = Storage()
        return array._storage


def count_writes(arrays: Iterable[NDArray], writer: tuple[CodeType, int]) -> None:
    """Note that `writer` has written all these arrays."""
    for array in arrays:
        storage = array._storage or storage_of(array)
        storage.version += 1
        storage.writer = writer
        if storage._derived:
            storage.finish_write()
        else:
            storage.stamp = next(_stamps)


def _twin(array: NDArray) -> NDArray:
    """Another NDArray on the same data and storage, without a history."""
    out = _new(NDArray)
    out._data = array._data
    out._device = array._device
    out._node = None
    out._storage = array._storage or storage_of(array)
    return out


class LiteralArray(NDArray):
    """A 0-d array made from a Python number: a tracer writes its value into the graph."""

    __slots__ = ()


_NUMBERS = frozenset((int, float, bool, complex))


def literal(value: Any, dtype: np.dtype, device: Device) -> LiteralArray:
    """A Python number as a 0-d array of `dtype`, which a tracer turns into a literal. Never written to.

    A number that is known only when a traced program runs (it has ``as_array``) gives that array instead.
    Raises OverflowError where an integer dtype can't hold the value.
    """
    if type(value) not in _NUMBERS and hasattr(value, "as_array"):
        return value.as_array(dtype, device)
    out = _new(LiteralArray)
    out._data = device.module.asarray(value, dtype=dtype)
    out._device = device
    out._node = None
    out._storage = None
    return out


def is_literal(array: NDArray) -> bool:
    """Whether the array was made by `literal`."""
    return type(array) is LiteralArray


def literal_value(array: NDArray) -> Any:
    """The number that a literal holds, as a NumPy scalar of its dtype."""
    data = array._data
    return data[()] if isinstance(data, np.ndarray) else data.get()[()]


def raw_index(index: Any) -> Any:
    """An index with every NDArray in it replaced by its backend array."""
    if isinstance(index, NDArray):
        return index._concrete("an index")
    if type(index) is tuple:
        return tuple([i._concrete("an index") if isinstance(i, NDArray) else i for i in index])
    return index


def _with_ellipsis(index: tuple) -> tuple:
    """The same index, of which NumPy returns a 0-d view rather than a scalar."""
    return index if any(i is ... for i in index) else (*index, ...)


def _unpickle(data: np.ndarray, device: Device, request: str | None) -> NDArray:
    out = wrap(data if device.kind == "cpu" else device.module.array(data), device)
    if request is not None:
        out.attach_grad(request)
    return out


def _indexing() -> ModuleType:
    from . import indexing

    return indexing


def _after_fork() -> None:
    global _storage_lock
    _storage_lock = Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
