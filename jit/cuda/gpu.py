"""The driver of ``gpu(i)``: CUDA through CuPy. Nothing here has run on a GPU yet."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np

from ndarray.device import Device

from .driver import Lease, Record
from .nvrtc import cached_cubin, version
from .printer import ABI_VERSION

__all__ = ["GpuDriver"]

SHARED_SIZE = 8
"""CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES."""

UPLOAD, DOWNLOAD, WITHIN = 1, 2, 3
"""cudaMemcpyKind."""


class _Kernel:
    """A function of a loaded module, which it keeps loaded."""

    __slots__ = ("module", "ptr")

    def __init__(self, module: Any, ptr: int):
        self.module, self.ptr = module, ptr


class GpuDriver:
    """See `jit.cuda.driver.Driver`."""

    def __init__(self, device: Device):
        self.device, self.module = device, device.module
        self.launches = self.copies = self.captures = self.replays = 0
        cuda = self._cuda = self.module.cuda
        self._driver = importlib.import_module("cupy_backends.cuda.api.driver")
        self._runtime = cuda.runtime
        place = cuda.Device(device.index)
        attributes = place.attributes
        self.arch = f"sm_{place.compute_capability}"
        self.multiprocessors = attributes["MultiProcessorCount"]
        self.shared_limit = attributes["MaxSharedMemoryPerBlockOptin"]

    @property
    def compiler(self) -> str:
        """NVRTC with its version."""
        return f"{ABI_VERSION} NVRTC {version()}"

    def active(self) -> AbstractContextManager[Any]:
        """Context in which the device is CUDA's current one."""
        return self.device.active()

    def load(self, source: str, symbols: Sequence[str], wide: bool) -> dict[str, Any]:
        """The functions of a module."""
        module = self._cuda.function.Module()
        module.load(cached_cubin(source, self.arch, "long long" if wide else "int").image)
        found = {}
        for symbol in symbols:
            ptr = module.get_function(symbol).ptr
            self._driver.funcSetAttribute(ptr, SHARED_SIZE, self.shared_limit)
            found[symbol] = _Kernel(module, ptr)
        return found

    def allocate(self, nbytes: int) -> Lease:
        """Memory of CuPy's pool, which aligns it to 512 bytes."""
        memory = self._cuda.alloc(max(1, nbytes))
        return Lease(memory, memory.ptr, nbytes)

    def stream(self) -> int:
        """The address of the thread's current stream."""
        return self._cuda.get_current_stream().ptr

    def prepare(self, records: Sequence[Record]) -> Sequence[Record]:
        """Nothing to prepare."""
        return tuple(records)

    def submit(self, prepared: Sequence[Record], words: np.ndarray) -> None:
        """Launch all; the driver copies the arguments."""
        pointers = words.ctypes.data + 8 * np.arange(len(words), dtype=np.int64)
        at, stream, launch = pointers.ctypes.data, self.stream(), self._driver.launchKernel
        for r in prepared:
            if r.function is None:
                to, source, nbytes = words[r.begin : r.end].tolist()
                self._runtime.memcpyAsync(to, source, nbytes, WITHIN, stream)
                self.copies += 1
            elif not r.lanes:
                r.function(words[r.begin : r.end])
                self.launches += 1
            else:
                launch(r.function.ptr, r.blocks, 1, 1, r.lanes, r.workers, 1, r.shared, stream, at + 8 * r.begin, 0)
                self.launches += 1

    def upload(self, address: int, values: np.ndarray) -> None:
        """Copy a small array of the host, which CUDA stages before it returns."""
        self._runtime.memcpyAsync(address, values.ctypes.data, values.nbytes, UPLOAD, self.stream())

    def read(self, address: int, dtype: str) -> Any:
        """A number, once the stream is done."""
        found = np.empty((), dtype)
        stream = self._cuda.get_current_stream()
        self._runtime.memcpyAsync(found.ctypes.data, address, found.nbytes, DOWNLOAD, stream.ptr)
        stream.synchronize()
        return found.item()

    def capture(self, prepared: Sequence[Record], words: np.ndarray) -> _Graph:
        """The launches as a CUDA graph."""
        stream = self._cuda.Stream(non_blocking=True)
        before = self.launches, self.copies
        with stream:
            stream.begin_capture()
            try:
                self.submit(prepared, words)
            finally:
                graph = stream.end_capture()
        self.launches, self.copies = before
        self.captures += 1
        return _Graph(self, graph, stream)

    def seconds(self, prepared: Sequence[Record], words: np.ndarray, rounds: int = 10) -> float | None:
        """The shortest time of the launches, by events."""
        make = self._cuda.Event
        best = float("inf")
        for _ in range(rounds):
            begin, end = make(), make()
            begin.record()
            self.submit(prepared, words)
            end.record()
            end.synchronize()
            best = min(best, self._cuda.get_elapsed_time(begin, end) / 1e3)
        return best


class _Graph:
    """A captured graph, with the stream that it was captured on."""

    def __init__(self, driver: GpuDriver, graph: Any, stream: Any):
        self.driver, self.graph, self.stream = driver, graph, stream

    def launch(self) -> None:
        """Run it on the current stream."""
        self.graph.launch(self.driver._cuda.get_current_stream())
        self.driver.replays += 1
