"""CuPy, as this package uses it: the only file that knows its private corners.

Devices and their array module, streams and events, copies (pinned, asynchronous, between GPUs), memory, modules of compiled
kernels, launches and graphs. CuPy is imported when a GPU is first used. Signatures are those of CuPy 14.2 (CUDA 13).

Nothing in this file has run on a GPU yet. The tests run it on a stand-in for CuPy whose memory is the host's
(`tests/fake_cupy.py`), which checks how CuPy is called, not what the driver does. In particular never seen on a GPU: order
between streams of two devices in `between`, `prefetch` of pinned memory, capture, peer access, errors of cuSOLVER.
"""

from __future__ import annotations

import importlib
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from typing import Any

import numpy as np

from .device import DeviceError, OutOfMemoryError

__all__ = [
    "Graph", "Module", "active", "between", "capture", "copy", "count", "cupy", "launch", "load", "module", "nvrtc",
    "pinned_empty", "pointers", "properties", "synchronize", "used",
]

INSTALL = "pip install 'hybrid-blocks[cuda13]'"
HOST_TO_DEVICE, DEVICE_TO_HOST, WITHIN, ANY = 1, 2, 3, 4  # cudaMemcpyKind
PER_THREAD = 2  # cudaStreamPerThread, whose handle is the same in every thread
_MAX_DYNAMIC_SHARED = 8  # CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
_used: set[int] = set()


# -- devices

@cache
def cupy() -> Any:
    """The module CuPy. Raises DeviceError with what to install."""
    try:
        return importlib.import_module("cupy")
    except ImportError as error:
        raise DeviceError(
            f"a GPU needs CuPy, which can't be imported ({error}); on a machine with an NVIDIA GPU and its driver, {INSTALL}, or "
            f"use nd.cpu()"
        ) from None


def count() -> int:
    """How many GPUs can be used; 0 without CuPy, a driver or a GPU."""
    try:
        return int(cupy().cuda.runtime.getDeviceCount())
    except Exception:  # each is an exception class of its own
        return 0


def used() -> frozenset[int]:
    """The GPUs that this process has used."""
    return frozenset(_used)


@cache
def _check(index: int) -> None:
    cuda = cupy().cuda
    try:
        found = int(cuda.runtime.getDeviceCount())
    except Exception as error:
        raise DeviceError(
            f"gpu({index}): CUDA can't be used here: {error}; check the NVIDIA driver (nvidia-smi), or use nd.cpu()"
        ) from None
    if index >= found:
        names = ", ".join(f"gpu({i})" for i in range(found)) or "none"
        raise DeviceError(f"gpu({index}): this machine has {found} GPUs ({names}); use one of them, or nd.cpu()")
    _used.add(index)


class active:
    """Context in which ``gpu(index)`` is CUDA's current device in this thread; the one before is current again afterwards.

    Failures of cuSOLVER raise LinAlgError inside, as those of LAPACK do on the CPU.
    """

    __slots__ = ("_before", "_errors", "_index")

    def __init__(self, index: int):
        self._index = index

    def __enter__(self) -> None:
        _check(self._index)
        runtime = cupy().cuda.runtime
        self._before = runtime.getDevice()
        runtime.setDevice(self._index)  # even where it is current: a new thread has no context before
        self._errors = _errors().seterr(linalg="raise")

    def __exit__(self, *_: object) -> None:
        _errors().seterr(**self._errors)
        cupy().cuda.runtime.setDevice(self._before)


@cache
def _errors() -> Any:
    return importlib.import_module("cupyx")


class Module:
    """CuPy's functions for one device: called from wherever, they make their arrays there."""

    def __init__(self, index: int, part: Any, name: str = "cupy"):
        self._index, self._part, self.__name__ = index, part, name

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._part, name)
        if name in ("linalg", "fft", "lib", "stride_tricks"):
            made: Any = Module(self._index, found, f"{self.__name__}.{name}")
        elif callable(found) and not isinstance(found, type):
            made = self._function(found)
        else:
            made = found
        setattr(self, name, made)
        return made

    def _function(self, function: Callable) -> Callable:
        index = self._index

        def on_device(*args: Any, **options: Any) -> Any:
            with active(index):
                try:
                    return function(*args, **options)
                except MemoryError as error:
                    raise out_of_memory(index, error) from None

        return on_device


@cache
def module(index: int) -> Module:
    """The array module of ``gpu(index)``. Raises DeviceError where it can't be used."""
    _check(index)
    return Module(index, cupy())


def properties(index: int) -> tuple[str, int, int]:
    """(architecture such as "sm_90", multiprocessors, bytes of shared memory that a block may opt in to)."""
    _check(index)
    device = cupy().cuda.Device(index)
    attributes = device.attributes
    return f"sm_{device.compute_capability}", attributes["MultiProcessorCount"], attributes["MaxSharedMemoryPerBlockOptin"]


def synchronize(index: int) -> None:
    """Wait until everything on a device is done."""
    with active(index):
        cupy().cuda.runtime.deviceSynchronize()


# -- arrays of others

def adopt(x: Any) -> tuple[Any, int]:
    """(array of CuPy on the same memory, index of the GPU) of an object with ``__cuda_array_interface__`` or a DLPack object
    that lies on a GPU."""
    xp = cupy()
    if isinstance(x, xp.ndarray):
        return x, _index_of(x)
    kind, index = x.__dlpack_device__() if hasattr(x, "__dlpack_device__") else (2, xp.cuda.runtime.getDevice())
    if kind not in (2, 13):
        raise DeviceError(f"expected an array on a CUDA device, got DLPack device {(int(kind), index)}")
    with active(int(index)):
        found = xp.from_dlpack(x) if hasattr(x, "__dlpack__") else xp.asarray(x)
    return found, _index_of(found)


def _index_of(array: Any) -> int:
    index = int(array.data.device_id)
    _used.add(index)
    return index


# -- streams and events

def stream(index: int, priority: int) -> Any:
    """A stream of a device that doesn't wait for the default one."""
    with active(index):
        return cupy().cuda.Stream(non_blocking=True, priority=priority)


def current_stream(index: int) -> Any:
    """The thread's current stream of a device."""
    with active(index):
        return cupy().cuda.get_current_stream()


def event(index: int, stream: Any, timing: bool) -> Any:
    """An event recorded behind what a stream (None: the current one) has been given."""
    with active(index):
        made = cupy().cuda.Event(disable_timing=not timing)
        made.record(stream if stream is not None else cupy().cuda.get_current_stream())
        return made


def milliseconds(begin: Any, end: Any) -> float:
    """The time between two events that were recorded with timing."""
    return float(cupy().cuda.get_elapsed_time(begin, end))


# -- copies

def between(array: Any, index: int) -> Any:
    """A copy of a GPU's array on another GPU. The current streams of both are ordered around it, and nobody waits."""
    xp, home = cupy(), int(array.data.device_id)
    _check(index)
    with active(home):
        source = xp.ascontiguousarray(array)
    ready = event(home, None, False)
    with active(index):
        out = xp.empty(array.shape, array.dtype)
        here = xp.cuda.get_current_stream()
        here.wait_event(ready)
        out.data.copy_from_device_async(source.data, source.nbytes, here)
    done = event(index, None, False)
    with active(home):
        xp.cuda.get_current_stream().wait_event(done)  # the pool may give the memory of `source` away behind this
    return out


def pinned_empty(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """A NumPy array in page-locked memory, from which GPUs copy asynchronously. It may be read and written as any other."""
    nbytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    memory = cupy().cuda.alloc_pinned_memory(max(nbytes, 1))
    return np.ndarray(shape, dtype, memory)


_flights: deque[tuple[Any, tuple]] = deque()
_flights_lock = threading.Lock()


def _keep(event: Any, *objects: Any) -> None:
    """Hold objects until an event has happened; those of earlier events that have are let go."""
    with _flights_lock:
        while _flights and _flights[0][0].done:
            _flights.popleft()
        _flights.append((event, objects))


def upload(values: np.ndarray, target: Any, stream: Any = None) -> Any:
    """Copy host memory to an array of a GPU, asynchronously where it is pinned; the event behind the copy."""
    values = np.ascontiguousarray(values, target.dtype)
    index = int(target.data.device_id)
    with active(index):
        on = cupy().cuda.get_current_stream() if stream is None else stream
        with on:  # memory that the pool gives is free in the order of one stream
            place = target if target.flags.c_contiguous else cupy().empty(target.shape, target.dtype)
        place.data.copy_from_host_async(values.ctypes.data, values.nbytes, on)
        if place is not target:
            with on:
                target[...] = place
    behind = event(index, on, False)
    _keep(behind, values, place)
    return behind


def download(array: Any, values: np.ndarray, stream: Any = None) -> Any:
    """Copy an array of a GPU to contiguous host memory, asynchronously where that is pinned; the event behind the copy."""
    index = int(array.data.device_id)
    with active(index):
        on = cupy().cuda.get_current_stream() if stream is None else stream
        with on:
            source = cupy().ascontiguousarray(array)
        source.data.copy_to_host_async(values.ctypes.data, values.nbytes, on)
    behind = event(index, on, False)
    _keep(behind, values, source)
    return behind


def copy(to: int, source: int, nbytes: int, stream: int, kind: int = ANY) -> None:
    """Enqueue a copy between addresses; pageable host memory is staged before this returns."""
    cupy().cuda.runtime.memcpyAsync(to, source, nbytes, kind, stream)


# -- memory

def memory(index: int) -> dict[str, int]:
    """What the device and CuPy's pools hold, in bytes; `pinned_blocks` counts free blocks of pinned memory."""
    xp = cupy()
    with active(index):
        free, total = xp.cuda.runtime.memGetInfo()
        pool = xp.get_default_memory_pool()
        return {"free": int(free), "total": int(total), "used": int(pool.used_bytes()), "cached": int(pool.free_bytes()),
                "limit": int(pool.get_limit()), "pinned_blocks": int(xp.get_default_pinned_memory_pool().n_free_blocks())}


def empty_cache(index: int) -> None:
    """Give memory that the pools keep for later back to the driver."""
    with active(index):
        cupy().get_default_memory_pool().free_all_blocks()
        cupy().get_default_pinned_memory_pool().free_all_blocks()


def limit(index: int, nbytes: int) -> None:
    """Let the pool of a device hold no more than so many bytes (0: no limit)."""
    with active(index):
        cupy().get_default_memory_pool().set_limit(size=nbytes)


def out_of_memory(index: int, error: BaseException) -> OutOfMemoryError:
    """The error that tells what holds the memory of ``gpu(index)``."""
    from .memory import exhausted

    return exhausted("gpu", index, error)


# -- kernels

class _Loaded:
    """Functions of a loaded module; it stays loaded as long as this object lives."""

    __slots__ = ("functions", "module")

    def __init__(self, module: Any, functions: Mapping[str, int]):
        self.module, self.functions = module, functions


def load(index: int, cubin: bytes, symbols: Sequence[str], shared: int = 0) -> _Loaded:
    """Load a module on a device; `functions` of the result are the addresses of its kernels by symbol, each of which may use
    `shared` bytes of dynamic shared memory."""
    with active(index):
        loaded = cupy().cuda.function.Module()
        loaded.load(cubin)
        functions = {s: int(loaded.get_function(s).ptr) for s in symbols}
        if shared > 48 << 10:
            for function in functions.values():
                _driver().funcSetAttribute(function, _MAX_DYNAMIC_SHARED, shared)
    return _Loaded(loaded, functions)


@cache
def _driver() -> Any:
    return importlib.import_module("cupy_backends.cuda.api.driver")


def pointers(words: np.ndarray) -> np.ndarray:
    """The addresses of an int64 vector's elements: `kernelParams` for a launch whose arguments the vector holds. They are
    right as long as the vector lives."""
    return words.ctypes.data + 8 * np.arange(len(words), dtype=np.int64)


def launch(function: int, grid: int, block: tuple[int, int], shared: int, stream: int, parameters: int) -> None:
    """Launch a kernel under `active`; `parameters` is the address of the addresses of its arguments, which are copied."""
    _driver().launchKernel(function, grid, 1, 1, block[0], block[1], 1, shared, stream, parameters, 0)


class Graph:
    """Captured work, which `launch` does again. It holds no reference to memory that the work names."""

    def __init__(self, index: int, graph: Any, stream: Any):
        self._index, self._graph, self._stream = index, graph, stream

    def launch(self) -> None:
        """Do it on the current stream of the device, under `active`."""
        self._graph.launch(cupy().cuda.get_current_stream())


def capture(index: int, enqueue: Callable[[], None]) -> Graph:
    """What `enqueue` gives the current stream, as a graph; nothing of it is done. It must neither allocate nor wait.

    Captured in mode "thread local": what other threads do in the meantime is no part of it and no error.
    """
    with active(index):
        stream = cupy().cuda.Stream(non_blocking=True)
        with stream:
            stream.begin_capture(cupy().cuda.runtime.streamCaptureModeThreadLocal)
            try:
                enqueue()
            except BaseException:
                with suppress(Exception):  # a failure of the driver has ended the capture, which it says once more
                    stream.end_capture()
                raise
            return Graph(index, stream.end_capture(), stream)


def nvrtc() -> Any:
    """CuPy's low-level binding of NVRTC, which needs no GPU. Raises DeviceError where CuPy or the library is missing."""
    try:
        binding = importlib.import_module("cupy_backends.cuda.libs.nvrtc")
        binding.getVersion()
    except Exception as error:  # a missing module, a missing library: each its own class
        raise DeviceError(f"CUDA is compiled by NVRTC through CuPy, which can't be used here ({error}); {INSTALL}") from error
    return binding
