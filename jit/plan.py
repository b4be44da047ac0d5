"""The memory plan: every temporary of a program in one arena, each byte reused as soon as its last reader is done.

``place(intervals)`` walks the launches in order with a free list (first fit among the smallest holes that fit, merged
when neighbours become free), so planning takes time proportional to the number of temporaries. Where they are few and that
leaves holes, the largest are placed first.
"""

from __future__ import annotations

import math
from bisect import insort
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from ndarray.allocation import ALIGNMENT, aligned_empty

__all__ = ["ALIGNMENT", "Interval", "Placement", "aligned", "aligned_empty", "nbytes", "place"]

@dataclass(frozen=True)
class Interval:
    """`size` bytes that are alive from the first launch that touches them to the last, both included."""

    size: int
    first: int
    last: int


@dataclass(frozen=True)
class Placement:
    """Byte offsets of the intervals in an arena of `total` bytes; `sum` is what they would take without reuse."""

    offsets: tuple[int, ...]
    total: int
    sum: int


def place(intervals: Sequence[Interval]) -> Placement:
    """Offsets such that intervals that are alive at the same time never overlap."""
    offsets, total = _in_order(intervals)
    if len(intervals) <= FEW and total > _peak(intervals) * WASTE:
        others, less = _by_size(intervals)
        if less < total:
            offsets, total = others, less
    return Placement(tuple(offsets), total, sum(aligned(i.size) for i in intervals))


FEW, WASTE = 400, 1.1
"""Up to so many temporaries are placed in another way too, where the first one takes so many times what is alive at a time."""


def _peak(intervals: Sequence[Interval]) -> int:
    """The most bytes that are alive at a time."""
    change: dict[int, int] = {}
    for i in intervals:
        change[i.first] = change.get(i.first, 0) + aligned(i.size)
        change[i.last + 1] = change.get(i.last + 1, 0) - aligned(i.size)
    return max(accumulate((change[at] for at in sorted(change)), initial=0))


def _by_size(intervals: Sequence[Interval]) -> tuple[list[int], int]:
    """(offsets, end): each at the lowest place that is free while it is alive, the largest first."""
    offsets = [0] * len(intervals)
    placed: list[tuple[int, int, int, int]] = []  # (offset, end, first, last), by offset
    for i in sorted(range(len(intervals)), key=lambda i: (-intervals[i].size, intervals[i].first)):
        need, first, last = aligned(intervals[i].size), intervals[i].first, intervals[i].last
        offset = 0
        for begin, end, a, b in placed:
            if begin >= offset + need:
                break
            if a <= last and first <= b and end > offset:
                offset = end
        offsets[i] = offset
        insort(placed, (offset, offset + need, first, last))
    return offsets, max((end for _, end, _, _ in placed), default=0)


def _in_order(intervals: Sequence[Interval]) -> tuple[list[int], int]:
    """(offsets, end) found by walking through the launches, with a list of what is free."""
    offsets = [0] * len(intervals)
    births = sorted(range(len(intervals)), key=lambda i: (intervals[i].first, -intervals[i].size))
    deaths = sorted(range(len(intervals)), key=lambda i: intervals[i].last)
    holes: list[tuple[int, int]] = []  # (offset, size), by offset
    total, dead = 0, 0
    for i in births:
        while dead < len(deaths) and intervals[deaths[dead]].last < intervals[i].first:
            gone = deaths[dead]
            _release(holes, offsets[gone], aligned(intervals[gone].size))
            dead += 1
        need = aligned(intervals[i].size)
        fitting = [(size, offset) for offset, size in holes if size >= need]
        if fitting:
            size, offset = min(fitting)
            holes.remove((offset, size))
            if size > need:
                insort(holes, (offset + need, size - need))
        elif holes and holes[-1][0] + holes[-1][1] == total:  # extend the arena from its last hole
            offset, _ = holes.pop()
            total = offset + need
        else:
            offset, total = total, total + need
        offsets[i] = offset
    return offsets, total


def aligned(size: int) -> int:
    """`size` bytes rounded up to whole alignments, at least one."""
    return max(ALIGNMENT, (size + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT)


def nbytes(shape: tuple[int, ...], dtype: np.dtype) -> int:
    """Bytes of an array."""
    return math.prod(shape) * dtype.itemsize


def _release(holes: list[tuple[int, int]], offset: int, size: int) -> None:
    insort(holes, (offset, size))
    at = holes.index((offset, size))
    if at + 1 < len(holes) and offset + size == holes[at + 1][0]:
        size += holes.pop(at + 1)[1]
        holes[at] = (offset, size)
    if at and holes[at - 1][0] + holes[at - 1][1] == offset:
        before, extent = holes.pop(at - 1)
        holes[at - 1] = (before, extent + size)
