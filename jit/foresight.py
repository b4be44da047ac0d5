"""Memory that a first call is going to write, provided by the system while Python still traces, recalls and binds.

A page that is written for the first time takes 1 to 10 microseconds, one that is read before (an optimizer's states, which
are zero) is provided twice. So a thread has pages provided ahead: those of the arena, whose size an earlier process has noted
in the disk cache under a description of the call that is known before the trace, and those of arrays that the trace was
seen to overwrite (gradients, states). A guess that was too high is given back, and the note corrected.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ndarray.settings import settings

from . import plan, runtime
from .cache import DiskCache, key_of

if TYPE_CHECKING:
    from .program import CompiledProgram

__all__ = ["Foresight", "foresee", "provide"]

LEAST = 4 << 20
"""Smaller arenas aren't worth a note on disk, a file, nor a thread."""

PAGE = 4096
"""Pages may be larger: what is asked for lies inside the array all the same."""

MOST = 1 << 36
"""A note of more than that is nonsense."""

LEAST_ARRAY = 16 * PAGE
"""Smaller arrays share the pages of others."""


def foresee(described: Mapping[str, Any], pool: list[np.ndarray]) -> Foresight | None:
    """Begin with what is known of a call of this description. `pool` is where programs find arenas.

    None without a cache folder.
    """
    if not settings.cache_dir:
        return None
    return Foresight(DiskCache(settings.cache_dir), key_of({"what": "arena of a first call", **described}), pool)


class Foresight:
    """One first call: see `hybrid.backend.Foresight`."""

    def __init__(self, disk: DiskCache, key: str, pool: list[np.ndarray]):
        self._disk, self._key, self._pool = disk, key, pool
        self._stop = np.zeros(1, np.int64)
        self._arena: np.ndarray | None = None
        self._known = self._look_up()
        if self._known >= LEAST:
            self._arena = plan.aligned_empty(self._known)
            pool.append(self._arena)
            provide([self._arena], self._stop)

    def writes(self, arrays: Sequence[np.ndarray]) -> None:
        """Every element of these arrays is going to be written."""
        large = [a for a in arrays if a.nbytes >= LEAST_ARRAY and a.flags.c_contiguous and a.flags.writeable]
        if sum(a.nbytes for a in large) >= LEAST:
            provide(large, np.zeros(1, np.int64))

    def stop(self) -> None:
        """The program is about to run: what the arena still lacks is provided where it is written."""
        self._stop[0] = 1

    def finish(self, program: CompiledProgram | None) -> None:
        """The call is over; `program` has made it, if there was one. Too large an arena isn't kept."""
        self._stop[0] = 1
        used = getattr(program, "arena_bytes", 0)
        if used < self._known - (self._known >> 3):
            self._discard()
        if program is not None and used != self._known and max(used, self._known) >= LEAST:
            self._disk.store(self._key, {"arena": used}, b"")

    def _discard(self) -> None:
        """Take the arena out of the pool; should others change that meanwhile, one that nobody uses is lost at worst."""
        for n, a in enumerate(self._pool):
            if a is self._arena:
                with contextlib.suppress(IndexError):
                    del self._pool[n]
                break

    def _look_up(self) -> int:
        found = self._disk.load(self._key)
        size = found[0].get("arena") if found and isinstance(found[0], dict) else None
        return size if isinstance(size, int) and 0 <= size < MOST else 0


def provide(arrays: Sequence[np.ndarray], stop: np.ndarray) -> threading.Thread:
    """Have the pages that lie inside of these arrays provided by a thread, as long as `stop` (one int64) is 0."""
    spans = [(a.ctypes.data, a.ctypes.data + a.nbytes) for a in arrays]
    ranges = np.array([(-(-low // PAGE) * PAGE, high // PAGE * PAGE - -(-low // PAGE) * PAGE) for low, high in spans], np.int64)

    def run(kept: Sequence[np.ndarray]) -> None:
        runtime.runner().populate(ranges.ctypes.data, len(ranges), stop.ctypes.data)

    thread = threading.Thread(target=run, args=(arrays,), name="hybrid-foresight")
    thread.start()
    return thread
