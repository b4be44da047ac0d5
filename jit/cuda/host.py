"""The driver of ``sim(i)``: CUDA kernels on the host, with a GPU's rules."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import numpy as np

from ndarray import simulated
from ndarray.device import Device

from .driver import Lease, Record, layout_of
from .printer import ABI_VERSION, print_module
from .simulate import compiler, load_module

if TYPE_CHECKING:
    from ..loopir import Kernel

__all__ = ["SimDriver"]


class SimDriver:
    """See `jit.cuda.driver.Driver`."""

    arch = "sim"
    order = "forward"  # in which threads run
    multiprocessors = 4
    shared_limit = 48 << 10

    def __init__(self, device: Device):
        self.device, self.module = device, device.module
        self.launches = self.captures = self.replays = self.copies = 0

    @property
    def compiler(self) -> str:
        """The compiler on the host."""
        return f"{ABI_VERSION} {compiler()}"

    def active(self) -> AbstractContextManager[Any]:
        """Context in which the device is the thread's current one."""
        return self.device.active()

    def build(self, kernels: Mapping[str, Kernel], lanes: Mapping[str, int]) -> bytes:
        """The source of a module."""
        return print_module(kernels, {s: layout_of(n) for s, n in lanes.items()}).encode()

    def load(self, code: bytes, lanes: Mapping[str, int]) -> dict[str, Any]:
        """The functions of a module: (module, symbol)."""
        module = load_module(code.decode())
        return {s: (module, s) for s in lanes}

    def allocate(self, nbytes: int) -> Lease:
        """Memory of the host, aligned as a GPU's is."""
        memory = self.module.empty(nbytes + 256, np.uint8)
        address = (memory.data.ptr + 255) // 256 * 256
        return Lease(memory, address, nbytes)

    def stream(self) -> int:
        """There is one."""
        return 0

    def submit(self, records: Sequence[Record], words: np.ndarray) -> None:
        """Run the launches."""
        for r in records:
            if r.function is None:
                to, source, nbytes = words[r.begin : r.end].tolist()
                ctypes.memmove(to, source, nbytes)
                self.copies += 1
                continue
            self.launches += 1
            self._launch(r, words[r.begin : r.end])

    def _launch(self, r: Record, words: np.ndarray) -> None:
        module, symbol = r.function
        module.launch(symbol, r.blocks, (r.lanes, r.workers), r.shared, words, self.order)

    def upload(self, address: int, values: np.ndarray) -> None:
        """Copy bytes."""
        simulated.refuse_in_capture("the host wrote to the device")
        ctypes.memmove(address, values.ctypes.data, values.nbytes)

    def read(self, address: int, dtype: str) -> Any:
        """A number."""
        simulated.refuse_in_capture("the host waited for a number")
        found = np.empty((), dtype)
        ctypes.memmove(found.ctypes.data, address, found.nbytes)
        return found.item()

    def capture(self, records: Sequence[Record], words: np.ndarray) -> _Graph:
        """The launches, to be made again."""
        self.captures += 1
        return _Graph(self, tuple(records), words.copy())


class _Graph:
    """Launches with fixed arguments. While it runs, nothing else may be asked of the device."""

    def __init__(self, driver: SimDriver, records: Sequence[Record], words: np.ndarray):
        self.driver, self.records, self.words = driver, records, words

    def launch(self) -> None:
        """Run them."""
        driver = self.driver
        before = driver.launches, driver.copies
        with simulated.capture():
            driver.submit(self.records, self.words)
        driver.launches, driver.copies = before
        driver.replays += 1
