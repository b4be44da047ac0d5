"""Memory that a first call is going to write and its native code, provided while Python still traces, recalls and binds.

A page that is written for the first time takes 1 to 10 microseconds, one that is read before (an optimizer's states, which
are zero) is provided twice. So a thread has pages provided ahead: those of the arena, whose size an earlier process has noted
in the disk cache under a description of the call that is known before the trace, and those of arrays that the trace was
seen to overwrite (gradients, states). The kernels of that earlier process are loaded before, for loading waits for the
system's lock on the process's memory. A guess that was too high is given back, and the note corrected.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Mapping, Sequence
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

LEAST_KERNELS = 8
"""A program of so many is worth a note, whatever its arena."""

NOTHING: tuple[int, tuple[str, ...]] = (0, ())
"""What is known of a call that nobody has made."""

MOST = 1 << 36
"""A note of more than that is nonsense."""

LEAST_ARRAY = 16 * PAGE
"""Smaller arrays share the pages of others."""


def foresee(described: Mapping[str, Any], pool: list[np.ndarray], load: Callable[[Sequence[str]], None]) -> Foresight | None:
    """Begin with what is known of a call of this description. `pool` is where programs find arenas, `load` gets native code of
    these digests from disk.

    None without a cache folder.
    """
    if not settings.cache_dir:
        return None
    return Foresight(DiskCache(settings.cache_dir), key_of({"what": "first call", **described}), pool, load)


class Foresight:
    """One first call: see `hybrid.backend.Foresight`."""

    def __init__(self, disk: DiskCache, key: str, pool: list[np.ndarray], load: Callable[[Sequence[str]], None]):
        self._disk, self._key, self._pool = disk, key, pool
        self._stop = np.zeros(1, np.int64)
        self._arena: np.ndarray | None = None
        self._known = size, digests = self._look_up()
        if size >= LEAST:
            with contextlib.suppress(MemoryError):
                self._arena = plan.aligned_empty(size)
                pool.append(self._arena)
        if size or digests:
            provide([self._arena] if self._arena is not None else [], self._stop, lambda: load(digests))

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
        known = self._known[0]
        if used < known - (known >> 3):
            self._discard()
        if program is None:
            return
        recipe = getattr(program, "recipe", None)
        needed = used, tuple(sorted({d for d, _ in recipe.kernels})) if recipe is not None else ()
        worth = used >= LEAST or (recipe is not None and len(recipe.kernels) >= LEAST_KERNELS)
        if needed != self._known and (worth or self._known != NOTHING):
            self._disk.store(self._key, {"arena": used, "objects": needed[1]}, b"")

    def _discard(self) -> None:
        """Take the arena out of the pool; should others change that meanwhile, one that nobody uses is lost at worst."""
        for n, a in enumerate(self._pool):
            if a is self._arena:
                with contextlib.suppress(IndexError):
                    del self._pool[n]
                break

    def _look_up(self) -> tuple[int, tuple[str, ...]]:
        """(bytes of the arena, digests of the objects) as noted."""
        found = self._disk.load(self._key)
        if found is None:
            return NOTHING
        try:
            size, digests = int(found[0]["arena"]), tuple(map(str, found[0]["objects"]))
        except (KeyError, TypeError, ValueError):
            return NOTHING
        return (size, digests) if 0 <= size < MOST else NOTHING


def provide(arrays: Sequence[np.ndarray], stop: np.ndarray, first: Callable[[], None] | None = None) -> threading.Thread:
    """Have the pages that lie inside of these arrays provided by a thread, as long as `stop` (one int64) is 0; what is to be done
    `first` comes before. Where no thread can be started, nothing is done."""
    spans = [(-(-a.ctypes.data // PAGE) * PAGE, (a.ctypes.data + a.nbytes) // PAGE * PAGE) for a in arrays]
    ranges = np.array([(low, high - low) for low, high in spans], np.int64)

    def run(kept: Sequence[np.ndarray]) -> None:
        if first is not None:
            first()
        runtime.runner().populate(ranges.ctypes.data, len(ranges), stop.ctypes.data)

    thread = threading.Thread(target=run, args=(arrays,), name="hybrid-foresight")
    with contextlib.suppress(RuntimeError):
        thread.start()
    return thread
