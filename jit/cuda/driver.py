"""What a compiled program asks of a device: memory, modules of kernels, launches, copies, capture.

`SimDriver` runs the same CUDA source on the host (`jit.cuda.simulate`), `GpuDriver` on a GPU. A program knows the protocol
`Driver` only, so what runs on ``sim(i)`` is what runs on ``gpu(i)``, up to the driver.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ndarray.device import Device

from .printer import Layout
from .target import WARP

__all__ = ["Captured", "Driver", "Lease", "Record", "driver_of", "layout_of"]


@dataclass(frozen=True, slots=True)
class Record:
    """One launch: `function` of a module, the grid's size, the block's, its dynamic shared memory, and where its arguments
    lie in the words of its table. Without a function it is a copy whose words are (to, from, bytes); without lanes a step of
    a library (`calls.LibraryCall`), called with the words: the addresses of its buffers and of its workspace."""

    function: Any
    blocks: int
    lanes: int
    workers: int
    shared: int
    begin: int
    end: int


class Captured(Protocol):
    """Launches that can be made again at the price of one."""

    def launch(self) -> None:
        """Make them on the current stream."""


class Lease:
    """Memory of a device for the time of a call."""

    __slots__ = ("address", "memory", "nbytes")

    def __init__(self, memory: Any, address: int, nbytes: int):
        self.memory, self.address, self.nbytes = memory, address, nbytes


class Driver(Protocol):
    """A device. Everything but `read` is asynchronous, in the order of the thread's current stream."""

    device: Device
    arch: str  # what code is compiled for: "sm_90"
    multiprocessors: int
    shared_limit: int  # bytes of shared memory that a block may have
    module: Any  # the array module
    launches: int  # kernels launched, for tests; of graphs replayed, only `replays` is counted
    copies: int
    captures: int
    replays: int

    @property
    def compiler(self) -> str:
        """Which compiler makes code, with its version."""

    def active(self) -> AbstractContextManager[Any]:
        """Context in which the device is CUDA's current one."""

    def load(self, source: str, symbols: Sequence[str], wide: bool) -> dict[str, Any]:
        """The functions of a module of CUDA C, by symbol; `wide`: with 64-bit indices."""

    def allocate(self, nbytes: int) -> Lease:
        """Memory, aligned to 256 bytes."""

    def stream(self) -> int:
        """The handle of the thread's current stream."""

    def queue(self) -> Any:
        """What identifies the thread's current stream: work of equal ones is done in order."""

    def wait(self) -> None:
        """Until all work of the thread's current stream is done."""

    def prepare(self, records: Sequence[Record]) -> Any:
        """Launches in the form in which `submit` takes them."""

    def submit(self, prepared: Any, words: np.ndarray) -> None:
        """Launch kernels; `words`, int64, may be overwritten afterwards."""

    def upload(self, address: int, values: np.ndarray) -> None:
        """Copy the bytes of a small NumPy array to the device; it may be overwritten afterwards."""

    def read(self, address: int, dtype: str) -> Any:
        """A number, once all work of the stream is done."""

    def capture(self, prepared: Any, words: np.ndarray) -> Captured:
        """The launches as a graph. It holds no reference to the memory that they name."""

    def seconds(self, prepared: Any, words: np.ndarray) -> float | None:
        """The time of launches; None where times say nothing."""


WORKERS = 8
"""Warps of a block, at most."""


def layout_of(lanes: int) -> Layout:
    """How a kernel whose tasks want so many threads is laid over a block."""
    return Layout(lanes, WORKERS if lanes == WARP else 1)


_drivers: dict[Device, Driver] = {}
_lock = threading.Lock()


def driver_of(device: Device) -> Driver:
    """The driver of ``gpu(i)`` or ``sim(i)``. Raises `DeviceError` where the device can't be used."""
    found = _drivers.get(device)
    if found is None:
        with _lock:
            found = _drivers.get(device)
            if found is None:
                if device.kind == "sim":
                    from .host import SimDriver

                    found = SimDriver(device)
                else:
                    from .gpu import GpuDriver

                    found = GpuDriver(device)
                _drivers[device] = found
    return found
