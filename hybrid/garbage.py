"""Python's collector of cyclic garbage, paused while graphs are traced, rewritten and compiled.

That makes many objects that live as long as the graph; the collector looks at them again and again, and took 40% of the time of
large graphs. Reference counting goes on, so arrays are freed as ever.
"""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["collection_paused"]

FIRST = 8
"""How often the collector is spared what a block has made."""

_lock = threading.Lock()
_aged = 0
_inside = 0  # how many blocks are being run, in all threads
_resume = False  # whether the collector was on before the first of them


@contextmanager
def collection_paused() -> Iterator[None]:
    """No automatic collection in this block, nor in any other thread meanwhile. Blocks may be nested."""
    global _inside, _resume
    with _lock:
        if _inside == 0:
            _resume = gc.isenabled()
            gc.disable()
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside = max(0, _inside - 1)
            if _inside == 0 and _resume:
                _age()
                gc.enable()


def _age() -> None:
    """Count all objects among the old ones, without looking at them: in a process's first calls only. What they make would be
    looked at as soon as the collector is on again (22 ms behind the trace of a transformer's training step), and nearly all of
    it stays. A process that goes on making graphs makes garbage too, which the collector is to find early."""
    global _aged
    if _aged < FIRST and hasattr(gc, "freeze") and not gc.get_freeze_count():  # nobody else uses it
        _aged += 1
        gc.freeze()
        gc.unfreeze()


def _after_fork() -> None:
    global _lock, _inside
    _lock = threading.Lock()
    if _inside:  # in threads that the child doesn't have
        _inside = 0
        if _resume:
            gc.enable()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
