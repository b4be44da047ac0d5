"""The driver of ``sim(i)``: CUDA kernels on the host, with a GPU's rules."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np

from ndarray import simulated
from ndarray.device import Device

from .driver import Lease, Record
from .printer import ABI_VERSION
from .simulate import compiler, load_module

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

    def load(self, source: str, symbols: Sequence[str], wide: bool) -> dict[str, Any]:
        """The functions of a module: (module, symbol)."""
        module = load_module(source, "long long" if wide else "int")
        return {s: (module, s) for s in symbols}

    def allocate(self, nbytes: int) -> Lease:
        """Memory of the host, aligned as a GPU's is."""
        memory = self.module.empty(nbytes + 256, np.uint8)
        address = (memory.data.ptr + 255) // 256 * 256
        return Lease(memory, address, nbytes)

    def stream(self) -> int:
        """There is one."""
        return 0

    def queue(self) -> int:
        """There is one."""
        return 0

    def wait(self) -> None:
        """Nothing is ever pending."""
        simulated.refuse_in_capture("the host waited for a stream")

    def prepare(self, records: Sequence[Record]) -> Sequence[Record]:
        """Nothing to prepare."""
        return tuple(records)

    def submit(self, prepared: Sequence[Record], words: np.ndarray) -> None:
        """Run the launches."""
        for r in prepared:
            if r.function is None:
                to, source, nbytes = words[r.begin : r.end].tolist()
                ctypes.memmove(to, source, nbytes)
                self.copies += 1
                continue
            self.launches += 1
            if r.lanes:
                module, symbol = r.function
                module.launch(symbol, r.blocks, (r.lanes, r.workers), r.shared, words[r.begin : r.end], self.order)
            else:
                r.function(words[r.begin : r.end])

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

    def capture(self, prepared: Sequence[Record], words: np.ndarray) -> _Graph:
        """The launches, to be made again."""
        self.captures += 1
        return _Graph(self, prepared, words.copy())

    def seconds(self, prepared: Sequence[Record], words: np.ndarray) -> None:
        """Times of the simulator say nothing."""


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
