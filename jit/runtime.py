"""The native runner, which walks a prepacked plan in one call, and the pool of worker threads.

``run(void **slots, int64_t *plan, void **kernels)`` where the plan is

    number of records (+ number of slots for storages that move << 32), then for each launch:
    kernel, tasks, threads + (parts << PARTS), scratch slot, scratch offset, scratch stride, number of buffers B,
    number of parameters P, (slot, byte offset) * B, parameters * P

and for each loop LOOP, for each branch BRANCH, and what `jit.runner_control` says, with the records inside of it. The slots of
moving storages come behind those that are given: a loop puts there, before each step, the address of the step's slice.

Launches run one after the other. One is cut into parts (as many as threads, if that field is 0), always the same: part t
runs the tasks tasks*t//parts .. tasks*(t+1)//parts. Which thread runs a part doesn't matter, so results don't depend on how
many there are. Participant k, of at most `threads`, has its own scratch at slots[scratch slot] + offset + k*stride.

Workers are plain pthreads in generated code: they never touch Python. A launch is published by one store to `state`: a
launch counter, the number of parts and that of participants. Each part must be claimed before the job is looked at.
Each participant claims the parts of its own share first, so that the same data tend to stay in the same core's cache, and
then whatever nobody has begun, so that no one waits for a thread that is asleep or
descheduled, only for parts that are being run. Everyone spins for some microseconds before sleeping in a futex, so that
the pool is harmless when there are more threads than processors. A second caller that finds the pool in use runs all
parts itself. Where there are no futexes (not Linux), launches run serially.
"""

from __future__ import annotations

import ctypes
import logging
import os
import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from ndarray.settings import settings

from .runner_ir import ir

__all__ = [
    "BRANCH", "LAUNCH_HEADER", "LOOP", "PARTS", "Runner", "bound", "is_ready", "native_calls", "run", "run_arrays", "runner",
    "start_workers", "worker_count",
]

log = logging.getLogger("hybrid.runtime")

LAUNCH_HEADER = 8
"""Plan words of a launch before its buffers."""

LEVEL = 0
"""Of optimization: what the runner does between launches is little, and every process with an empty cache folder waits for it."""

PARTS = 10
"""The bit of a launch's third word at which the number of parts begins."""

LOOP, BRANCH = -1, -2
"""In place of a kernel's number: what a record is if not a launch."""


_ONE_ARGUMENT = 8
"""Python's METH_O: a method is called with its object and one argument."""


class _Method(ctypes.Structure):
    """Python's PyMethodDef."""

    _fields_ = (("name", ctypes.c_char_p), ("function", ctypes.c_void_p), ("flags", ctypes.c_int), ("doc", ctypes.c_char_p))


class Runner:
    """The runner's native functions, callable from Python with addresses as ints.

    `call` is ``run(slots, plan, kernels)``, `tables` the same given three NumPy arrays, and `arrays` is ``run(list of
    arrays, its length, plan, kernels, checks)``. Their twins called released let other Python threads run meanwhile, which
    costs some hundred nanoseconds more. `start(n)` makes sure of n workers, `reset()` forgets them (after a fork).
    `populate(ranges, n, stop)` has the system provide the pages of n ranges (address, bytes of int64) until `stop` isn't 0.
    """

    def __init__(self, data: bytes):
        from . import machine

        library = machine.load(data)
        word, pointer = ctypes.c_int64, ctypes.c_void_p

        def function(prototype: Callable[..., Any], name: str, result: Any, *arguments: Any) -> Any:
            return prototype(result, *arguments)(library.address(name))

        self.call = function(ctypes.PYFUNCTYPE, "hybrid_run", None, pointer, pointer, pointer)
        self.call_released = function(ctypes.CFUNCTYPE, "hybrid_run", None, pointer, pointer, pointer)
        tables = (ctypes.py_object,) * 3
        self.tables = function(ctypes.PYFUNCTYPE, "hybrid_run_tables", None, *tables)
        self.tables_released = function(ctypes.CFUNCTYPE, "hybrid_run_tables", None, *tables)
        lists = (ctypes.py_object, word, pointer, pointer, pointer)
        self.arrays = function(ctypes.PYFUNCTYPE, "hybrid_run_arrays", word, *lists)
        self.arrays_released = function(ctypes.CFUNCTYPE, "hybrid_run_arrays", word, *lists)
        address = ctypes.cast(ctypes.pythonapi.PyLong_FromLongLong, pointer).value
        self._integer, self._method = address, _Method(b"hybrid_call", library.address("hybrid_call"), _ONE_ARGUMENT, None)
        self._new_method = ctypes.PYFUNCTYPE(ctypes.py_object, pointer, ctypes.py_object, pointer)(
            ("PyCFunction_NewEx", ctypes.pythonapi))
        self.start = function(ctypes.PYFUNCTYPE, "hybrid_start", word, word)
        self.reset = function(ctypes.PYFUNCTYPE, "hybrid_reset", None)
        self.populate = function(ctypes.CFUNCTYPE, "hybrid_populate", None, pointer, word, pointer)

    def bound(self, plan: int, kernels: int, checks: int) -> Callable[[list[np.ndarray]], int]:
        """`arrays` for a plan, which is to be kept alive meanwhile: a function of Python's own kind."""
        words = np.array([plan, kernels, checks, _counted.ctypes.data, self._integer], np.uint64)
        return self._new_method(ctypes.addressof(self._method), words, None)


_counted = np.zeros(1, np.int64)  # calls of functions that `Runner.bound` has made
_lock = threading.Lock()
_runner: Runner | None = None
_workers = 0  # started in this process
_calls = 0


def runner() -> Runner:
    """The process's runner, loaded at first use from the disk cache or compiled."""
    global _runner
    if _runner is None:
        with _lock:
            if _runner is None:
                _runner = _make_runner()
    return _runner


def is_ready() -> bool:
    """Whether the runner is there."""
    return _runner is not None


def _make_runner() -> Runner:
    from . import machine
    from .cache import DiskCache, key_of

    target = machine.host()
    text = ir(target)
    cache = DiskCache(settings.cache_dir) if settings.cache_dir else None
    key = key_of({"what": "runner", "level": LEVEL, "ir": text, "compiler": machine.version(), "target": target})
    kept = cache.load(key) if cache else None
    if kept is not None:
        try:
            return Runner(kept[1])
        except (RuntimeError, KeyError) as error:
            log.warning("the runner kept on disk can't be loaded (%s); compiling it", error)
    data = machine.emit_object(text, target, LEVEL)
    if cache:
        cache.store(key, {"what": "runner"}, data)
    return Runner(data)


def worker_count() -> int:
    """Workers started so far, besides the calling thread."""
    return _workers


def start_workers(threads: int | None = None) -> int:
    """Make sure that launches can run on `threads` threads, the caller's included. Returns how many they can run on.

    Cheap when they are there already. With the pool busy at this moment, nothing is started.
    """
    global _workers
    wanted = min(settings.num_threads if threads is None else threads, 1023) - 1
    if wanted > _workers:
        native = runner()
        with _lock:
            if wanted > _workers:
                _workers = max(_workers, native.start(wanted))
    return _workers + 1


def run(slots: np.ndarray, plan: np.ndarray, kernels: np.ndarray, release: bool = True) -> None:
    """One native call: run the plan over the addresses in `slots` with the kernel addresses in `kernels`.

    All three are contiguous arrays of 8-byte words. `release` lets other Python threads run meanwhile.
    """
    global _calls
    native = _runner or runner()
    _calls += 1
    if release and not _workers:
        start_workers()
    (native.tables_released if release else native.tables)(slots, plan, kernels)


def run_arrays(arrays: list[np.ndarray], plan: int, kernels: int, checks: int, release: bool = True) -> int:
    """As `run`, with the arrays themselves instead of a table of addresses, and the addresses of plan and kernels.

    The first array is the arena. `checks` is the address of int64 words: how many arrays behind it are to be checked, how
    many of them the plan writes, the bytes of each checked one, and the numbers of the written ones (from 0, not counting
    the arena). Returns 0 when the plan has run. When an array isn't contiguous and aligned its position in `arrays` is
    returned, and minus the position of one where two overlap of which one is written; nothing has run then.
    """
    global _calls
    native = _runner or runner()
    if release:
        if not _workers:
            start_workers()
        status = native.arrays_released(arrays, len(arrays), plan, kernels, checks)
    else:
        status = native.arrays(arrays, len(arrays), plan, kernels, checks)
    _calls += status == 0
    return status


def bound(plan: int, kernels: int, checks: int) -> Callable[[list[np.ndarray]], int]:
    """A function of the list of arrays that does what `run_arrays` does with these addresses, without letting other Python
    threads run: a tenth of a microsecond, where that takes nearly one. What lies there is to be kept alive meanwhile."""
    return (_runner or runner()).bound(plan, kernels, checks)


def native_calls() -> int:
    """How many times `run`, `run_arrays` or what `bound` has given has called native code."""
    return _calls + int(_counted[0])


def _after_fork() -> None:
    global _workers, _lock
    _workers, _lock = 0, threading.Lock()
    if _runner is not None:
        _runner.reset()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
