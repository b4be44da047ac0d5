"""The driver of ``gpu(i)``: CUDA through CuPy (`ndarray.cuda`). Nothing here has run on a GPU yet."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np

from hybrid.garbage import collection_paused
from ndarray import cuda
from ndarray.device import Device

from .driver import Lease, Record
from .nvrtc import cached_cubin, version
from .printer import ABI_VERSION

__all__ = ["GpuDriver"]


class _Kernel:
    """A function of a loaded module, which it keeps loaded."""

    __slots__ = ("address", "module")

    def __init__(self, module: Any, address: int):
        self.module, self.address = module, address


class GpuDriver:
    """See `jit.cuda.driver.Driver`."""

    def __init__(self, device: Device):
        self.device, self.module = device, device.module
        self.launches = self.copies = self.captures = self.replays = 0
        self.arch, self.multiprocessors, self.shared_limit = cuda.properties(device.index)

    @property
    def compiler(self) -> str:
        """NVRTC with its version."""
        return f"{ABI_VERSION} NVRTC {version()}"

    def active(self) -> AbstractContextManager[Any]:
        """Context in which the device is CUDA's current one."""
        return self.device.active()

    def load(self, source: str, symbols: Sequence[str], wide: bool) -> dict[str, Any]:
        """The functions of a module."""
        image = cached_cubin(source, self.arch, "long long" if wide else "int").image
        loaded = cuda.load(self.device.index, image, symbols, self.shared_limit)
        return {s: _Kernel(loaded, address) for s, address in loaded.functions.items()}

    def allocate(self, nbytes: int) -> Lease:
        """Memory of CuPy's pool, which aligns it to 512 bytes."""
        memory = self.module.empty(max(1, nbytes), np.uint8)
        return Lease(memory, memory.data.ptr, nbytes)

    def stream(self) -> int:
        """The address of the thread's current stream."""
        return int(cuda.cupy().cuda.get_current_stream().ptr)

    def queue(self) -> tuple[int, int]:
        """Its address, with the thread where each thread has a stream behind the same one."""
        stream = self.stream()
        return stream, threading.get_ident() if stream == cuda.PER_THREAD else 0

    def wait(self) -> None:
        """Wait for the thread's current stream."""
        cuda.cupy().cuda.get_current_stream().synchronize()

    def prepare(self, records: Sequence[Record]) -> Sequence[Record]:
        """Nothing to prepare."""
        return tuple(records)

    def submit(self, prepared: Sequence[Record], words: np.ndarray) -> None:
        """Launch all; the driver copies the arguments."""
        pointers = cuda.pointers(words)
        at, stream = pointers.ctypes.data, self.stream()
        for r in prepared:
            if r.function is None:
                to, source, nbytes = words[r.begin : r.end].tolist()
                cuda.copy(to, source, nbytes, stream, cuda.WITHIN)
                self.copies += 1
                continue
            self.launches += 1
            if r.lanes:
                cuda.launch(r.function.address, r.blocks, (r.lanes, r.workers), r.shared, stream, at + 8 * r.begin)
            else:
                r.function(words[r.begin : r.end])

    def upload(self, address: int, values: np.ndarray) -> None:
        """Copy a small array of the host, which CUDA stages before it returns."""
        cuda.copy(address, values.ctypes.data, values.nbytes, self.stream(), cuda.HOST_TO_DEVICE)

    def read(self, address: int, dtype: str) -> Any:
        """A number, once the stream is done."""
        found = np.empty((), dtype)
        stream = cuda.cupy().cuda.get_current_stream()
        cuda.copy(found.ctypes.data, address, found.nbytes, stream.ptr, cuda.DEVICE_TO_HOST)
        stream.synchronize()
        return found.item()

    def capture(self, prepared: Sequence[Record], words: np.ndarray) -> _Graph:
        """The launches as a CUDA graph."""
        before = self.launches, self.copies
        with collection_paused():  # unloading a module, say, would spoil it
            graph = cuda.capture(self.device.index, lambda: self.submit(prepared, words))
        self.launches, self.copies = before
        self.captures += 1
        return _Graph(self, graph)

    def seconds(self, prepared: Sequence[Record], words: np.ndarray) -> float:
        """The shortest time of the launches in ten rounds, by events."""
        best = float("inf")
        for _ in range(10):
            begin = cuda.event(self.device.index, None, True)
            self.submit(prepared, words)
            end = cuda.event(self.device.index, None, True)
            end.synchronize()
            best = min(best, cuda.milliseconds(begin, end) / 1e3)
        return best


class _Graph:
    """A captured graph."""

    def __init__(self, driver: GpuDriver, graph: cuda.Graph):
        self.driver, self.graph = driver, graph

    def launch(self) -> None:
        """Run it on the current stream."""
        self.graph.launch()
        self.driver.replays += 1
