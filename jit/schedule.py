"""The order of a program's steps: one that frees memory runs as soon as it may.

Lowering leaves the steps in the order of the graph, in which all gradients of weights come last, so that what they need of
every layer is alive at once. Run early they need less memory, and find what they read still in the caches. The new order
is taken where it lowers the most that is alive at a time.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Sequence

from ndarray.dims import hint

from .launch import _ITEMSIZE, Launch, Loop, Step, Storage, buffers_of, controls_of, written_by

__all__ = ["peak", "schedule"]


def schedule(steps: Sequence[Step], fixed: Collection[Storage]) -> list[Step]:
    """The steps in an order that keeps every one behind those whose results it reads or overwrites. `fixed` are the storages
    that are not temporary: those of inputs and outputs."""
    found = _Order(steps, fixed).run()
    return found if peak(found, fixed) < peak(steps, fixed) else list(steps)


def peak(steps: Sequence[Step], fixed: Collection[Storage]) -> int:
    """The most bytes of temporaries that are alive at a time (symbolic sizes as in the trace)."""
    first: dict[Storage, int] = {}
    last: dict[Storage, int] = {}
    for n, step in enumerate(steps):
        for s in _touched(step):
            if s not in fixed:
                first.setdefault(s, n)
                last[s] = n
    change = [0] * (len(steps) + 1)
    for s in first:
        change[first[s]] += _bytes(s)
        change[last[s] + 1] -= _bytes(s)
    most = now = 0
    for c in change:
        now += c
        most = max(most, now)
    return most


class _Order:
    """Steps by their numbers in the order that is given. `left` says how many steps that touch a temporary are still to run,
    `rest` is the sum of their numbers: with one left, its number."""

    def __init__(self, steps: Sequence[Step], fixed: Collection[Storage]):
        self.steps = steps
        self.temporaries = [[s for s in _touched(x) if s not in fixed] for x in steps]
        self.left: dict[Storage, int] = {}
        self.rest: dict[Storage, int] = {}
        self.alive: set[Storage] = set()
        for n, storages in enumerate(self.temporaries):
            for s in storages:
                self.left[s] = self.left.get(s, 0) + 1
                self.rest[s] = self.rest.get(s, 0) + n
        self.waiting, self.later = _dependencies(steps)
        self.ready: list[int] = []
        self.freeing: list[int] = []  # of those ready, some that free memory

    def run(self) -> list[Step]:
        """All steps in the new order."""
        done = [False] * len(self.steps)
        for n, waiting in enumerate(self.waiting):
            if not waiting:
                self.add(n)
        found: list[Step] = []
        while self.ready:
            n = heapq.heappop(self.freeing) if self.freeing else heapq.heappop(self.ready)
            if done[n]:
                continue
            done[n] = True
            found.append(self.steps[n])
            for s in self.temporaries[n]:
                self.alive.add(s)
                self.left[s] -= 1
                self.rest[s] -= n
                if self.left[s] == 1 and not self.waiting[self.rest[s]]:
                    self.consider(self.rest[s])
            for k in self.later[n]:
                self.waiting[k] -= 1
                if not self.waiting[k]:
                    self.add(k)
        return found

    def add(self, n: int) -> None:
        """A step may run from now on."""
        heapq.heappush(self.ready, n)
        self.consider(n)

    def consider(self, n: int) -> None:
        """Have a step that may run go first, if less memory is alive after it than before."""
        made = sum(_bytes(s) for s in self.temporaries[n] if s not in self.alive)
        freed = sum(_bytes(s) for s in self.temporaries[n] if self.left[s] == 1)
        if made < freed:
            heapq.heappush(self.freeing, n)


def _dependencies(steps: Sequence[Step]) -> tuple[list[int], list[list[int]]]:
    """(how many steps each waits for, which ones wait for it)."""
    waiting = [0] * len(steps)
    later: list[list[int]] = [[] for _ in steps]
    writer: dict[Storage, int] = {}
    readers: dict[Storage, list[int]] = {}  # since it was written last
    for n, step in enumerate(steps):
        before: set[int] = set()
        written = _written(step)
        for s in _touched(step):
            if s in writer:
                before.add(writer[s])
            if s in written:
                before.update(readers.pop(s, ()))
                writer[s] = n
            else:
                readers.setdefault(s, []).append(n)
        waiting[n] = len(before)
        for k in before:
            later[k].append(n)
    return waiting, later


def _touched(step: Step) -> dict[Storage, None]:
    """The whole storages that a step reads or writes."""
    names = {s for c in controls_of([step]) if isinstance(c, Loop) for s in c.names}
    return dict.fromkeys(s.whole for s in buffers_of([step]) if s not in names)


def _written(step: Step) -> Collection[Storage]:
    """Those of them that it writes; all, of a loop or branch."""
    return {s.whole for s in written_by([step])} if isinstance(step, Launch) else _touched(step)


def _bytes(storage: Storage) -> int:
    return hint(storage.size) * _ITEMSIZE[storage.dtype]
