"""What this machine can do: multiply-adds in registers (GFLOP/s) and copying in memory (GB/s), measured.

Both are measured with generated code on the worker pool, once (about 60 ms), and remembered in the process and on disk.
They are the ceilings to which `explain` compares kernels. A busy machine gives low figures: `machine_limits(refresh=True)`
measures anew and keeps the better of old and new.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np

from ndarray.settings import settings

from . import machine, runtime
from .launch import KernelBuilder, Launch, Storage
from .loopir import INT, Const, For, Get, Load, Register, Set, Stmt, Store, Type, Var, apply, const
from .target import Target

__all__ = ["Limits", "machine_limits", "measure"]


@dataclass(frozen=True)
class Limits:
    """Of `threads` threads together: float32 GFLOP/s, and GB/s (bytes read plus bytes written) of a copy in memory."""

    threads: int
    gflops: float
    gigabytes: float

    def __str__(self) -> str:
        threads = f"{self.threads} thread{'s' * (self.threads != 1)}"
        return f"{threads}: {self.gflops:.0f} GFLOP/s float32, copy {self.gigabytes:.1f} GB/s"


_known: dict[int, Limits] = {}
_lock = threading.Lock()


def machine_limits(threads: int | None = None, refresh: bool = False) -> Limits:
    """The limits with so many threads (default: as many as programs use)."""
    from .cache import DiskCache, key_of

    threads = threads or settings.num_threads
    with _lock:
        found = _known.get(threads)
        cache = DiskCache(settings.cache_dir) if settings.cache_dir else None
        key = key_of({"what": "limits", "target": machine.host(), "threads": threads, "method": 1}) if cache else ""
        if found is None and cache:
            entry = cache.load(key)
            try:
                found = Limits(threads, float(entry[0]["gflops"]), float(entry[0]["gigabytes"])) if entry else None
            except (KeyError, TypeError, ValueError):
                found = None
        if found is None or refresh:
            new = measure(threads)
            if found is not None:
                new = Limits(threads, max(new.gflops, found.gflops), max(new.gigabytes, found.gigabytes))
            found = new
            if cache:
                cache.store(key, asdict(found), b"")
        _known[threads] = found
        return found


def measure(threads: int) -> Limits:
    """The limits as they show now; `machine_limits` remembers them."""
    from .backend import backend

    target = machine.host()
    peak, flops = _peak(target, threads)
    count = 1 << 23  # 32 MiB each way
    copy = _copy(target, threads, count)
    native = backend.native_kernels([peak.kernel, copy.kernel])
    kernels = np.array([backend.address(k) for k in native], np.uint64)
    buffers = [np.zeros(64, np.float32), np.zeros(count, np.float32), np.zeros(count, np.float32)]
    slots = np.array([b.ctypes.data for b in buffers], np.uint64)
    runtime.start_workers(threads)

    def seconds(number: int, launch: Launch, places: list[int], rounds: int) -> float:
        words = [1, number, threads, threads, 0, 0, 0, len(places), len(launch.arguments)]
        for place in places:
            words += [place, 0]
        plan = np.array([*words, *launch.arguments], np.int64)
        return best(lambda: runtime.run(slots, plan, kernels), rounds)

    return Limits(threads, flops / seconds(0, peak, [0], 40) / 1e9, 8 * count / seconds(1, copy, [1, 2], 4) / 1e9)


def best(function: Callable[[], object], rounds: int) -> float:
    """The shortest time of `rounds` calls after a first one, in seconds."""
    function()
    shortest = float("inf")
    for _ in range(rounds):
        begin = time.perf_counter()
        function()
        shortest = min(shortest, time.perf_counter() - begin)
    return shortest


def _peak(target: Target, threads: int) -> tuple[Launch, int]:
    """Independent multiply-adds that touch no memory, and how many floating operations they are."""
    vector, count, trips = Type("float32", target.lanes("float32")), target.registers // 2, 100_000
    builder = KernelBuilder()
    out = builder.buffer(Storage("float32", 64), "readwrite")
    names = [f"c{i}" for i in range(count)]
    factor = Load(out, const(0), vector)
    body: list[Stmt] = [Register(n, Const(float(i), vector)) for i, n in enumerate(names)]
    step = tuple(Set(n, apply("fma", Get(n, vector), factor, factor)) for n in names)
    body.append(For("i", const(0), builder.size(trips), 1, step))
    total = Get(names[0], vector)
    for n in names[1:]:
        total = total + Get(n, vector)
    body.append(Store(out, const(0), total))
    return builder.launch("peak", body, "task", threads, 0), 2 * vector.lanes * count * trips * threads


def _copy(target: Target, threads: int, count: int) -> Launch:
    """Copy `count` numbers, a part a task."""
    vector = Type("float32", target.lanes("float32"))
    builder = KernelBuilder()
    source, goal = builder.buffer(Storage("float32", count), "read"), builder.buffer(Storage("float32", count), "write")
    part = builder.size(count // threads // vector.lanes * vector.lanes)
    first = Var("task", INT) * part
    copy = Store(goal, Var("i", INT), Load(source, Var("i", INT), vector))
    return builder.launch("copy", [For("i", first, first + part, vector.lanes, (copy,), 4)], "task", threads, 0)
