"""Runs launches natively, straight through their C ABI: for measuring kernels without the rest of the program."""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from jit.launch import Launch, Storage
from jit.llvm import emit
from jit.machine import emit_object, host, load
from ndarray.dims import evaluate

__all__ = ["Launches", "aligned", "best", "peak_gflops"]

_PROTOTYPE = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p)


def aligned(size: int, dtype: Any) -> np.ndarray:
    """An array of zeros whose memory begins at a multiple of 64 bytes."""
    dtype = np.dtype(dtype)
    raw = np.zeros(max(1, size) * dtype.itemsize + 64, np.uint8)
    offset = -raw.ctypes.data % 64
    return raw[offset : offset + size * dtype.itemsize].view(dtype)


def best(function: Callable[[], Any], rounds: int = 7, seconds: float = 0.3) -> float:
    """The shortest time of a call, in seconds."""
    function()
    shortest, start = float("inf"), time.perf_counter()
    for number in range(10_000):
        if number >= rounds and time.perf_counter() - start > seconds:
            break
        begin = time.perf_counter()
        function()
        shortest = min(shortest, time.perf_counter() - begin)
    return shortest


class Launches:
    """Compiled launches over arrays; `memory` holds those that come from outside, the others are allocated."""

    def __init__(
        self,
        launches: Sequence[Launch],
        memory: Mapping[Storage, np.ndarray],
        sizes: Mapping[str, int] | None = None,
        target: Any = None,
    ):
        sizes = sizes or {}
        target = target or host()
        kernels = list(dict.fromkeys(launch.kernel for launch in launches))
        names = [f"kernel{i}" for i in range(len(kernels))]
        begin = time.perf_counter()
        self.text = emit(kernels, names, target)
        self.emit_seconds = time.perf_counter() - begin
        library = load(emit_object(self.text, target))
        self.compile_seconds = time.perf_counter() - begin
        self.memory = dict(memory)
        self._calls = []
        self.launches = list(launches)
        for launch in launches:
            for storage in launch.buffers:
                if storage not in self.memory:
                    self.memory[storage] = aligned(evaluate(storage.size, sizes), storage.dtype)
            function = _PROTOTYPE(library.address(names[kernels.index(launch.kernel)]))
            buffers = (ctypes.c_void_p * max(1, len(launch.buffers)))(
                *(self.memory[s].ctypes.data for s in launch.buffers)
            )
            parameters = (ctypes.c_int64 * max(1, len(launch.arguments)))(
                *(evaluate(a, sizes) for a in launch.arguments)
            )
            scratch = [aligned(evaluate(launch.scratch, sizes), np.uint8) for _ in range(2)]
            self._calls.append((function, buffers, parameters, evaluate(launch.tasks, sizes), scratch))

    def run(self, threads: int = 1) -> None:
        """All launches in order."""
        for call in self._calls:
            self._run(call, threads)

    def seconds(self) -> list[float]:
        """The shortest time of each launch on one thread."""
        return [best(lambda call=call: self._run(call, 1), 3, 0.05) for call in self._calls]

    @staticmethod
    def _run(call: tuple, threads: int) -> None:
        function, buffers, parameters, tasks, scratch = call
        if threads == 1 or tasks < 2:
            function(buffers, parameters, 0, tasks, scratch[0].ctypes.data)
            return
        second = threading.Thread(
            target=function, args=(buffers, parameters, tasks // 2, tasks, scratch[1].ctypes.data)
        )
        second.start()
        function(buffers, parameters, 0, tasks // 2, scratch[0].ctypes.data)
        second.join()


def peak_gflops(threads: int = 1, dtype: str = "float32") -> float:
    """The speed of a loop of independent fused multiply-adds that touches no memory."""
    from jit.launch import KernelBuilder
    from jit.loopir import Const, For, Get, Load, Register, Set, Store, Type, Var, apply, const

    target = host()
    lanes = target.lanes(dtype)
    vector = Type(dtype, lanes)
    count, trips = target.registers // 2, 1_000_000
    builder = KernelBuilder()
    out = Storage(dtype, lanes * 2, "out")
    name = builder.buffer(out, "readwrite")
    names = [f"c{i}" for i in range(count)]
    body: list[Any] = [Register(n, Const(float(i), vector)) for i, n in enumerate(names)]
    factor = Load(name, const(0), vector)
    body.append(
        For(
            "i",
            const(0),
            builder.size(trips),
            1,
            tuple(Set(n, apply("fma", Get(n, vector), factor, factor)) for n in names),
        )
    )
    total = Get(names[0], vector)
    for n in names[1:]:
        total = total + Get(n, vector)
    body.append(Store(name, const(0), total))
    _ = Var
    launch = builder.launch("peak", body, "task", threads, 0)
    launches = Launches([launch], {out: aligned(lanes * 2, dtype)})
    return 2 * lanes * count * trips * threads / best(lambda: launches.run(threads)) / 1e9
