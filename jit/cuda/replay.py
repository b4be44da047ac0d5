"""CUDA graphs of a program's launches: when one is made, and what is done before and after it runs.

A graph names fixed addresses. It has an arena of its own; inputs whose addresses stay the same from call to call (weights) are
used where they lie, others are copied into memory of the graph before it runs, and results are copied out of it, so that no
array ever shares memory with it. Where a fixed address turns out to change, another graph is made, for which it is copied, or,
where it is written, which is for the new address; a program that makes too many of them gives up.

Nothing is allocated and nobody waits while a graph runs: programs that read what decides about a loop are never captured.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .driver import Captured, Driver, Lease, Record
from .table import Table

if TYPE_CHECKING:
    from .program import CudaBinding, CudaProgram

__all__ = ["Replays"]

log = logging.getLogger("hybrid.jit")

WARM = 4
"""Calls after which launches become a graph, if nobody asks for it; two where somebody does."""

MOST_GRAPHS = 4
"""Graphs of a binding."""

MOST_CAPTURES = 16
"""Graphs that a binding ever makes before it gives up."""


class _Graph:
    """A captured graph with the memory that it names."""

    def __init__(
        self, captured: Captured, arena: Lease, copied: Sequence[tuple[int, int, int]], results: Sequence[tuple[int, int]],
        memory: Any,
    ):
        self.captured, self.arena, self.copied, self.results, self.memory = captured, arena, copied, results, memory
        self.lock = threading.Lock()


class Replays:
    """What a binding knows about its graphs. `wanted`: whether calls should ask for one."""

    def __init__(self) -> None:
        self.wanted = False
        self._calls = self._captures = 0
        self._previous: np.ndarray | None = None
        self._varying: np.ndarray | None = None
        self._graphs: dict[Any, _Graph] = {}
        self._lock = threading.Lock()

    def begin(self, binding: CudaBinding, static: bool, inputs: int, written: Sequence[int]) -> None:
        """Whether the binding can be captured, and is worth it: a graph costs a launch and the copies around it."""
        table = binding.plan.table
        self._static, self._inputs, self._fixed = static, inputs, list(written)
        worth = 4 + 2 * len(binding.outputs)
        self.wanted = isinstance(table, Table) and (static or len(table.records) > worth)

    def run(self, program: CudaProgram, binding: CudaBinding, addresses: Sequence[int], numbers: np.ndarray | None,
            outputs: Sequence[int], kept: Sequence[Lease]) -> bool:
        """Make the call by a graph, if there is one for it by now."""
        with self._lock:
            graph = self._find(program, binding, addresses, kept)
        if graph is None or not graph.lock.acquire(blocking=False):
            return False
        driver = program.driver
        try:
            if numbers is not None:
                driver.upload(graph.arena.address + binding.stage, numbers)
            before = [(to, addresses[i], nbytes) for i, to, nbytes in graph.copied]
            submit_copies(driver, before)
            graph.captured.launch()
            submit_copies(driver, [(to, source, nbytes) for to, (source, nbytes) in zip(outputs, graph.results)])
        finally:
            graph.lock.release()
        return True

    def _find(self, program: CudaProgram, binding: CudaBinding, addresses: Sequence[int], kept: Sequence[Lease]) -> _Graph | None:
        now = np.array(addresses, np.int64)
        if self._previous is None or self._varying is None:
            self._varying = np.zeros(len(now), bool)
        else:
            self._varying |= now != self._previous
            self._varying[self._fixed] = False  # what is written is written where it lies
            self._varying[self._inputs :] = False
        self._previous = now
        self._calls += 1
        if self._calls < (2 if self._static else WARM):
            return None
        key = program.driver.queue(), self._varying.tobytes(), (now < 0).tobytes(), now[~self._varying].tobytes()
        found = self._graphs.get(key)
        if found is None:
            self._captures += 1
            if self._captures > MOST_CAPTURES:
                self.wanted = False
                self._graphs.clear()
                return None
            while len(self._graphs) >= MOST_GRAPHS:
                del self._graphs[next(iter(self._graphs))]
            try:
                found = self._graphs[key] = self._capture(program, binding, now, kept)
            except Exception as error:  # of the driver, of a library, no memory: launch by launch does the same
                log.warning("%s: can't be made a CUDA graph (%s); its kernels are launched one by one", program.graph.name, error)
                self.wanted = False
                self._graphs.clear()
        return found

    def _capture(self, program: CudaProgram, binding: CudaBinding, addresses: np.ndarray, kept: Sequence[Lease]) -> _Graph:
        """A graph for which the varying inputs are copied."""
        driver, table = program.driver, binding.plan.table
        assert self._varying is not None and table is not None
        arena = driver.allocate(binding.arena_bytes)
        memory: list[Lease] = []

        def more(nbytes: int) -> int:
            memory.append(driver.allocate(nbytes))
            return memory[-1].address

        places = addresses.tolist()
        sizes = binding.input_bytes
        copied = []
        for i in np.flatnonzero(self._varying).tolist():
            if places[i] >= 0:
                places[i] = more(sizes[i])
                copied.append((i, places[i], sizes[i]))
        results = []
        for shape, dtype in binding.outputs:
            nbytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
            results.append((more(nbytes), nbytes))
        words = table.filled(program.bases(binding, arena.address, places, [at for at, _ in results]))
        return _Graph(driver.capture(table.prepared, words), arena, copied, results, (memory, tuple(kept)))


def submit_copies(driver: Driver, wanted: Sequence[tuple[int, int, int]]) -> None:
    """Copies (to, from, bytes) within the device."""
    some = [w for w in wanted if w[2]]
    if some:
        records = [Record(None, 0, 0, 0, 0, 3 * n, 3 * n + 3) for n in range(len(some))]
        driver.submit(driver.prepare(records), np.array(some, np.int64).reshape(-1))
