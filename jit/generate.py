"""Kernels -> native code while lowering still goes on: `Generation`.

Python writes LLVM IR for one kernel after the other; threads turn pieces of about `PIECE` characters into objects, outside
of Python's lock. Pieces are cut by what is generated alone, so the same kernels give the same objects on any machine of the
kind, whatever the threads do.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
import threading
from collections.abc import Callable, Container
from itertools import count
from queue import Empty, PriorityQueue

from ndarray.settings import settings

from . import llvm, machine, vector_math, verify
from .apart import Functions
from .loopir import Kernel
from .target import Target

__all__ = ["Generation"]

PIECE = 5_000
"""Characters of what is sent to the code generator at once."""

COUNTING_PIECE = 3 * PIECE
"""The same of functions that only count and call: without optimization, which they don't miss, they take a fifth of the time."""

MAX_THREADS = 8
"""At most, beside the one that lowers: it generates as well, when all is lowered. One more than there are processors only takes
turns with it, and finishes later."""

SWITCH = 5e-5
"""Seconds after which whoever holds Python's lock gives way meanwhile. A piece takes it some twenty times, for each call of
LLVM, and with the usual 5 ms waited longer than it worked."""


class _GivingWay:
    """Python's switch interval is `SWITCH` while anyone generates."""

    def __init__(self) -> None:
        self.lock, self.count, self.usual = threading.Lock(), 0, 0.0

    def begin(self) -> None:
        with self.lock:
            if not self.count:
                self.usual = sys.getswitchinterval()
                sys.setswitchinterval(min(SWITCH, self.usual))
            self.count += 1

    def end(self) -> None:
        with self.lock:
            self.count -= 1
            if not self.count:
                sys.setswitchinterval(self.usual)


giving_way = _GivingWay()


class Generation:
    """Collects kernels that `known` doesn't hold and generates them; ``with Generation(...) as g: g.add(...)``.

    After the block: `symbols` (kernel -> symbol), `objects` in order, and `digest` of all of them.
    """

    def __init__(self, target: Target, known: Container[tuple[Kernel, Target]]):
        self.target, self.known = target, known
        self.symbols: dict[Kernel, str] = {}
        self.objects: list[bytes] = []
        self.digest = ""
        self._seen: dict[int, Kernel] = {}
        self._functions: list[llvm.Function] = []
        self._counting: list[llvm.Function] = []
        self._apart = Functions()
        self._results: list[bytes | BaseException | None] = []
        self._threads: list[threading.Thread] = []
        self._queue: PriorityQueue[tuple[float, int, Callable[[], None] | None]] = PriorityQueue()  # the largest first
        self._count = count()

    def __enter__(self) -> Generation:
        giving_way.begin()
        return self

    def add(self, kernel: Kernel) -> None:
        """Generate a kernel that is neither known nor added yet."""
        if id(kernel) in self._seen:  # looking it up compares all of it with its equal
            return
        self._seen[id(kernel)] = kernel
        if kernel in self.symbols or (kernel, self.target) in self.known:
            return
        if settings.debug >= 1:
            verify.verify(kernel)
        symbol = self.symbols[kernel] = f"k{len(self.symbols)}"
        function = llvm.function(vector_math.expand(kernel), symbol, self.target, self._apart)
        (self._counting if function.counts else self._functions).append(function)
        if sum(len(f.text) for f in self._functions) + sum(map(len, self._apart.texts)) >= PIECE:
            self._cut()
        if sum(len(f.text) for f in self._counting) >= COUNTING_PIECE:
            self._cut_counting()

    def _cut(self) -> None:
        """Send what there is to the code generator, with the loops that became functions."""
        self._send(llvm.module(self._functions, self.target, self._apart), 1)
        self._functions = []

    def _cut_counting(self) -> None:
        """Send the functions that only count and call, for code without optimization."""
        self._send(llvm.module(self._counting, self.target), 0)
        self._counting = []

    def _send(self, text: str, level: int) -> None:
        number = len(self._results)
        self._results.append(None)

        def make() -> None:
            try:
                self._results[number] = machine.emit_object(text, self.target, level)
            except BaseException as error:  # raised again by the thread that asked
                self._results[number] = error

        self.run(make, len(text))

    def run(self, work: Callable[[], None], size: int = PIECE) -> None:
        """Have a thread do some work, as much as for so many characters, before the block is left. It must not raise."""
        self._queue.put((-size, next(self._count), work))
        if len(self._threads) < min(MAX_THREADS, max(1, _processors() - 1)):
            usual = threading.stack_size(16 << 20)  # LLVM recurses
            try:
                thread = threading.Thread(target=self._work, name="hybrid compiler", daemon=True)
                thread.start()
            finally:
                threading.stack_size(usual)
            self._threads.append(thread)

    def _work(self) -> None:
        while (work := self._queue.get()[-1]) is not None:
            work()

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            self._finish(kind is None)
        finally:
            giving_way.end()

    def _finish(self, good: bool) -> None:
        """Wait for all objects; they are of use if all went well."""
        if good and (self._functions or self._apart.texts):
            self._cut()
        if good and self._counting:
            self._cut_counting()
        for _thread in self._threads:
            self._queue.put((1, next(self._count), None))  # after all work
        self._work_off()
        for thread in self._threads:
            thread.join()
        if good:
            for result in self._results:
                if isinstance(result, BaseException):
                    raise result
                assert result is not None
                self.objects.append(result)
            self.digest = hashlib.sha256(b"".join(self.objects)).hexdigest()

    def _work_off(self) -> None:
        """Help the threads: nothing else is left to do."""
        with contextlib.suppress(Empty):
            while (work := self._queue.get_nowait()[-1]) is not None:
                work()
            self._queue.put((1, next(self._count), None))  # it was a thread's


def _processors() -> int:
    """How many this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
