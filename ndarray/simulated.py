"""The arrays of ``sim(i)`` (functions: `simulated_module`), over the host's memory: they do and refuse what those of CuPy do.

A `SimArray` is no NumPy array: ``np.asarray`` of it, or an operation with a NumPy array beside it, is a TypeError; values
come to the host by ``get()`` and ``item()`` only; reductions give 0-d arrays; positions out of bounds wrap. A function or
a keyword argument that CuPy lacks (`cupy_table`) is an AttributeError or a TypeError. An array may be used only while its
device is the current one of the thread, and while a stream is being captured nothing may be allocated, computed or waited
for. So the whole library running on ``sim(0)`` shows what would break on a GPU, but for the numbers' last bits and time.
"""

from __future__ import annotations

import operator
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from .cupy_rules import METHODS, loop
from .memory import exhausted

__all__ = ["SimArray", "adopt", "capture", "current", "host", "module", "use"]

_ndarray, _generic = np.ndarray, np.generic
_NUMBERS = (int, float, complex, bool, np.generic)


class _State(threading.local):
    """What a thread has chosen: the current device, and whether a stream is being captured."""

    device = 0
    capturing = False


_state = _State()


class CaptureError(RuntimeError):
    """Something was allocated, computed or waited for while a stream was being captured."""


def current() -> int:
    """The index of the thread's current device."""
    return _state.device


@contextmanager
def use(index: int) -> Iterator[None]:
    """Context in which ``sim(index)`` is the thread's current device."""
    before, _state.device = _state.device, index
    try:
        yield
    finally:
        _state.device = before


@contextmanager
def capture() -> Iterator[None]:
    """Context in which only launches are allowed: anything else of this module is a `CaptureError`."""
    before, _state.capturing = _state.capturing, True
    try:
        yield
    finally:
        _state.capturing = before


def refuse_in_capture(what: str) -> None:
    """Raise `CaptureError` if the thread is capturing a stream."""
    if _state.capturing:
        raise CaptureError(f"{what} while a stream is being captured (a GPU would fail with cudaErrorStreamCaptureUnsupported)")


UNLIMITED = 1 << 40
"""The memory of a ``sim(i)`` of which nobody has said how much it has."""


class Pool:
    """How much memory a device has, and what arrays hold of it."""

    def __init__(self, index: int) -> None:
        self.index, self.total, self.used, self.peak, self.count = index, UNLIMITED, 0, 0, 0
        self.lock = threading.RLock()  # an array may be collected, and give its memory back, while another is made

    def take(self, size: int) -> None:
        """Count an allocation. Raises OutOfMemoryError where memory would not suffice."""
        with self.lock:
            if self.used + size <= self.total:
                self.used += size
                self.count += 1
                self.peak = max(self.peak, self.used)
                return
        raise exhausted("sim", self.index, MemoryError(f"Out of memory allocating {size:,} bytes"))

    def give(self, size: int) -> None:
        """Count the end of an allocation."""
        with self.lock:
            self.used -= size


_pools: dict[int, Pool] = {}


def pool(index: int) -> Pool:
    """The memory of ``sim(index)``; its size is `total`, which may be set."""
    found = _pools.get(index)
    return found if found is not None else _pools.setdefault(index, Pool(index))


class Memory:
    """One allocation: its device, address and size."""

    __slots__ = ("device_id", "pool", "ptr", "size")

    def __init__(self, device_id: int, ptr: int, size: int, counted: bool = True):
        self.device_id, self.ptr, self.size = device_id, ptr, size
        self.pool: Pool | None = None
        if counted:
            found = pool(device_id)
            found.take(size)
            self.pool = found

    def __del__(self) -> None:
        if self.pool is not None:
            self.pool.give(self.size)


class Flags:
    """The layout flags that CuPy's arrays have."""

    __slots__ = ("c_contiguous", "f_contiguous", "owndata")

    def __init__(self, flags: Any):
        self.c_contiguous, self.f_contiguous, self.owndata = flags.c_contiguous, flags.f_contiguous, flags.owndata


class MemoryPointer:
    """The place of an array's first element, as ``cupy.cuda.MemoryPointer`` tells it."""

    __slots__ = ("device_id", "mem", "ptr")

    def __init__(self, mem: Memory, ptr: int):
        self.mem, self.ptr, self.device_id = mem, ptr, mem.device_id


class SimArray:
    """An array on ``sim(i)``, with the attributes and methods of CuPy's."""

    __slots__ = ("__weakref__", "_host", "_memory", "base")

    __array_priority__ = 100
    __hash__ = None  # type: ignore[assignment]
    _host: Any
    _memory: Memory
    base: SimArray | None

    def __init__(self, shape: Any, dtype: Any = float, order: str = "C"):
        refuse_in_capture("an array was allocated")
        _set(self, _poisoned(np.empty(shape, dtype, order)))  # type: ignore[call-overload]

    shape = property(lambda self: self._host.shape)
    dtype = property(lambda self: self._host.dtype)
    ndim = property(lambda self: self._host.ndim)
    size = property(lambda self: self._host.size)
    itemsize = property(lambda self: self._host.itemsize)
    nbytes = property(lambda self: self._host.nbytes)
    strides = property(lambda self: self._host.strides)
    flags = property(lambda self: Flags(self._host.flags))

    @property
    def data(self) -> MemoryPointer:
        """Where the first element lies."""
        return MemoryPointer(self._memory, self._host.ctypes.data)

    @property
    def device(self) -> int:
        """The index of the device."""
        return self._memory.device_id

    def synchronize(self) -> None:
        """Wait for the array: it is there."""
        refuse_in_capture("the host waited for an array")

    def __dlpack__(
        self, *, stream: Any = None, max_version: Any = None, dl_device: Any = None, copy: bool | None = None,
    ) -> Any:
        """A capsule that says what this is: memory of the host."""
        if dl_device is not None and tuple(dl_device) != (1, 0):
            raise BufferError(f"an array of sim({self._memory.device_id}) is memory of the host (1, 0), not {tuple(dl_device)}")
        refuse_in_capture("an array was exported")
        values = self._host.copy() if copy or not self._host.flags.writeable else self._host
        try:
            return values.__dlpack__(max_version=max_version)
        except TypeError:  # NumPy 1 knows no versions
            return values.__dlpack__()

    def __dlpack_device__(self) -> tuple[int, int]:
        return 1, 0

    # -- to and from the host
    def get(self, stream: Any = None, order: str = "C", out: Any = None, blocking: bool = True) -> np.ndarray:
        """A NumPy array with the values; waits for them."""
        refuse_in_capture("an array was read by the host")
        if out is None:
            return self._host.copy(order)
        out[...] = self._host
        return out

    def set(self, arr: np.ndarray, stream: Any = None) -> None:
        """Write the values of a NumPy array of the same shape and dtype."""
        if not isinstance(arr, _ndarray):
            raise TypeError("Only numpy.ndarray can be set to cupy.ndarray")
        if arr.shape != self.shape or arr.dtype != self.dtype:
            raise ValueError(f"Shape or dtype mismatch: {arr.dtype}{arr.shape} into {self.dtype}{self.shape}")
        self._host[...] = arr

    def item(self) -> Any:
        """The only element as a Python number; waits for it."""
        return self.get().item()

    def tolist(self) -> Any:
        """Nested lists of Python numbers."""
        return self.get().tolist()

    def tobytes(self, order: str = "C") -> bytes:
        """The values' bytes."""
        return self.get().tobytes(order)  # type: ignore[arg-type]

    def __bool__(self) -> bool:
        return bool(self.get())

    def __int__(self) -> int:
        return int(self.get())

    def __float__(self) -> float:
        return float(self.get())

    def __complex__(self) -> complex:
        return complex(self.get())

    def __index__(self) -> int:
        return operator.index(self.get())

    def __len__(self) -> int:
        return len(self._host)

    def __iter__(self) -> Iterator[SimArray]:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        return repr(self.get())

    def __str__(self) -> str:
        return str(self.get())

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        raise TypeError(
            "Implicit conversion to a NumPy array is not allowed. Please use `.get()` to construct a NumPy array explicitly."
        )

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        function = getattr(module(self._memory.device_id), ufunc.__name__)
        if method != "__call__":
            function = getattr(function, method)
        return function(*inputs, **options)

    def __array_function__(self, function: Any, types: Any, args: tuple, options: dict) -> Any:
        part: Any = module(self._memory.device_id)
        names = function.__module__.split(".")[1:]
        for name in (*(n for n in names if n in ("linalg", "fft")), function.__name__):
            part = getattr(part, name)
        return part(*args, **options)

    # -- indexing
    def __getitem__(self, index: Any) -> SimArray:
        raw, plain = _index(index, self._host.shape)
        if plain:
            refuse = None
        else:
            refuse_in_capture("an array was indexed by an array")
            refuse = self
        _check(self, "indexing")
        found = self._host[raw]
        return _made(found) if refuse is not None else _view(found, self)

    def __setitem__(self, index: Any, value: Any) -> None:
        refuse_in_capture("an array was written")
        _check(self, "writing")
        raw, _ = _index(index, self._host.shape)
        self._host[raw] = _raw(value, "an assigned value")

    copy: Callable[..., SimArray]  # it and other methods are set below

    def __copy__(self) -> SimArray:
        return self.copy()

    def __deepcopy__(self, memo: Any) -> SimArray:
        with use(self._memory.device_id):
            return self.copy()

    def __reduce__(self) -> tuple:
        return _unpickle, (self.get(),)


def _poisoned(values: np.ndarray) -> np.ndarray:
    """The array, filled with NaN or the like, so that reading what nobody wrote shows."""
    values.fill(np.nan if values.dtype.kind in "fcV" else 1 if values.dtype.kind == "b" else np.iinfo(values.dtype).max)
    return values


def _set(array: SimArray, values: np.ndarray, counted: bool = True) -> SimArray:
    array._host, array.base = values, None
    array._memory = Memory(_state.device, values.ctypes.data, values.nbytes, counted)
    return array


def _made(values: Any) -> SimArray:
    """A new array of the current device around memory that nobody else has."""
    refuse_in_capture("an array was allocated")
    return _set(object.__new__(SimArray), np.asarray(values))


def _view(values: Any, source: SimArray) -> SimArray:
    out = object.__new__(SimArray)
    out._host, out._memory, out.base = values, source._memory, source if source.base is None else source.base
    return out


def adopt(values: np.ndarray, index: int = 0) -> SimArray:
    """An array of ``sim(index)`` on the memory of a NumPy array, which the caller must not use otherwise."""
    with use(index):
        return _set(object.__new__(SimArray), values, counted=False)


def host(array: SimArray) -> np.ndarray:
    """The memory of an array as a NumPy array, for the simulator's kernels and library calls."""
    return array._host


def _unpickle(values: np.ndarray) -> SimArray:
    return _made(values)


def _check(array: SimArray, what: str) -> None:
    if array._memory.device_id != _state.device:
        raise ValueError(
            f"Array device must be same as the current device: array device = {array._memory.device_id} while current = "
            f"{_state.device} ({what})"
        )


def _raw(value: Any, what: str, sources: list | None = None) -> Any:
    """A value with host memory in the place of arrays. Refuses NumPy arrays, and arrays of another device."""
    if type(value) is SimArray:
        _check(value, what)
        if sources is not None:
            sources.append(value)
        return value._host
    if isinstance(value, _ndarray):
        raise TypeError(f"Unsupported type {type(value)} ({what}; a GPU's function takes no array of NumPy)")
    if isinstance(value, (list, tuple)):
        items = [_raw(v, what, sources) for v in value]
        return items if isinstance(value, list) else tuple(items)
    return value


def _index(index: Any, shape: tuple) -> tuple[Any, bool]:
    """An index for host memory, and whether it is a basic one (which gives a view)."""
    plain, items, axis = True, [], 0
    given = index if isinstance(index, tuple) else (index,)
    taken = sum(i.ndim if isinstance(i, SimArray) and i.dtype == np.bool_ else 1
                for i in given if i is not None and i is not Ellipsis)
    for i in given:
        if i is Ellipsis:
            axis += len(shape) - taken
            items.append(i)
            continue
        if isinstance(i, list):
            i = _made(np.asarray(i, np.int64) if not i else np.asarray(i))
        if isinstance(i, (SimArray, bool, np.bool_)):
            plain = False
            i = _raw(i, "an index")
            if isinstance(i, _ndarray) and i.dtype.kind in "iu" and axis < len(shape) and shape[axis]:
                i = i.astype(np.int64) % shape[axis]  # CuPy wraps positions out of bounds
        elif isinstance(i, _ndarray):
            raise TypeError("Unsupported type <class 'numpy.ndarray'> (an index; convert it with asarray of the module)")
        items.append(i)
        axis += 0 if i is None else i.ndim if isinstance(i, _ndarray) and i.dtype == np.bool_ else 1
    if plain and not any(i is Ellipsis for i in items):
        items.append(Ellipsis)
    return tuple(items), plain


def _result(value: Any, sources: list[SimArray]) -> Any:
    """What NumPy returned, with arrays in the place of its arrays and scalars."""
    if isinstance(value, _generic):
        return _made(np.asarray(value))
    if isinstance(value, _ndarray):
        for source in sources:
            if value is source._host:
                return source
        if value.base is not None:
            for source in sources:
                if value.base is source._host or value.base is source._host.base:
                    return _view(value, source)
        return _made(value)
    if isinstance(value, (tuple, list)):
        items = [_result(v, sources) for v in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    return value


def _run(function: Callable, name: str, args: tuple, options: dict) -> Any:
    refuse_in_capture(f"{name} was computed")
    sources: list[SimArray] = []
    raw = [_raw(a, name, sources) for a in args]
    more = {k: _raw(v, name, sources) for k, v in options.items()}
    with np.errstate(all="ignore"):
        return _result(function(*raw, **more), sources)


def _elementwise(function: Any, name: str, args: tuple, options: dict) -> Any:
    """A ufunc on arguments converted to the dtypes of CuPy's loop."""
    count = function.nin
    if len(args) > count:
        options = {"out": args[count], **options}
    args = args[:count]
    for a in args:
        if type(a) is not SimArray and not isinstance(a, _NUMBERS):
            _raw(a, name)
            raise TypeError(f"Unsupported type {type(a)} ({name})")
    if options.get("dtype") is not None:
        return _run(function, name, args, options)
    accepted, given = loop(name, args)
    if len(given) > 1:
        return _run(function, name, args, options)
    out = options.get("out")

    def compute(*values: Any, out: Any = None, **more: Any) -> Any:
        values = tuple(v if getattr(v, "dtype", None) == t else np.asarray(v).astype(t) for v, t in zip(values, accepted))
        found = np.asarray(function(*values)).astype(given[0], copy=False)
        if out is None:
            return found
        np.copyto(out, found, casting=more.get("casting", "same_kind"))
        return out

    return _run(compute, name, args, options if out is not None else {k: v for k, v in options.items() if k != "out"})


def _known(other: Any) -> bool:
    return type(other) is SimArray or isinstance(other, (*_NUMBERS, _ndarray))


def _operator(name: str, function: Any) -> Callable:
    def method(self: SimArray, *others: Any) -> Any:
        if not all(map(_known, others)):
            return NotImplemented
        if name == "matmul":
            return _run(function, name, (self, *others), {})
        return _elementwise(function, function.__name__, (self, *others), {})

    return method


def _reflected(name: str, function: Any) -> Callable:
    def method(self: SimArray, other: Any) -> Any:
        if not _known(other):
            return NotImplemented
        return _run(function, name, (other, self), {}) if name == "matmul" else _elementwise(
            function, function.__name__, (other, self), {})

    return method


def _in_place(name: str, function: Any) -> Callable:
    def method(self: SimArray, other: Any) -> Any:
        return _elementwise(function, function.__name__, (self, other), {"out": self}) if _known(other) else NotImplemented

    return method


def _operators(name: str, function: Any) -> None:
    """Install an operator; those of two numbers with their reflected and in-place forms."""
    setattr(SimArray, f"__{name}__", _operator(name, function))
    if function.nin == 2 and name not in ("lt", "le", "eq", "ne", "gt", "ge"):
        setattr(SimArray, f"__r{name}__", _reflected(name, function))
        setattr(SimArray, f"__i{name}__", _in_place(name, function))


def _method(name: str) -> Callable:
    parameters = METHODS[name]

    def method(self: SimArray, *args: Any, **options: Any) -> Any:
        parameters.check(len(args), options)
        if name in ("argsort", "sort"):
            options = {**options, "kind": "stable"}
        return _run(lambda a, *rest, **more: getattr(a, name)(*rest, **more), name, (self, *args), options)

    method.__name__ = name
    return method


def _attribute(name: str) -> property:
    def read(self: SimArray) -> SimArray:
        return _run(lambda a: getattr(a, name), name, (self,), {})

    def write(self: SimArray, value: Any) -> None:
        _run(lambda a, v: setattr(a, name, v), name, (self, value), {})

    return property(read, write if name in ("real", "imag") else None)


for _name, _ufunc in (
    ("add", np.add), ("sub", np.subtract), ("mul", np.multiply), ("truediv", np.true_divide), ("floordiv", np.floor_divide),
    ("mod", np.remainder), ("pow", np.power), ("and", np.bitwise_and), ("or", np.bitwise_or), ("xor", np.bitwise_xor),
    ("lshift", np.left_shift), ("rshift", np.right_shift), ("lt", np.less), ("le", np.less_equal), ("eq", np.equal),
    ("ne", np.not_equal), ("gt", np.greater), ("ge", np.greater_equal), ("neg", np.negative), ("abs", np.absolute),
    ("invert", np.invert),
):
    _operators(_name, _ufunc)
setattr(SimArray, "__matmul__", _operator("matmul", np.matmul))  # noqa: B010
setattr(SimArray, "__rmatmul__", _reflected("matmul", np.matmul))  # noqa: B010
for _name in (
    "all", "any", "argmax", "argmin", "argpartition", "argsort", "astype", "clip", "conj", "copy", "cumprod", "cumsum",
    "diagonal", "dot", "fill", "flatten", "max", "mean", "min", "nonzero", "prod", "put", "ravel", "repeat", "reshape", "round",
    "searchsorted", "sort", "squeeze", "std", "sum", "swapaxes", "take", "trace", "transpose", "var", "view",
):
    setattr(SimArray, _name, _method(_name))
for _name in ("T", "mT", "real", "imag"):
    setattr(SimArray, _name, _attribute(_name))


_modules: dict[int, Any] = {}


def module(index: int) -> Any:
    """The module whose functions make arrays on ``sim(index)``."""
    found = _modules.get(index)
    if found is None:
        from .simulated_module import SimModule

        found = _modules.setdefault(index, SimModule(index))
    return found
