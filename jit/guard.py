"""Memory between inaccessible pages, for tests: a kernel that touches a byte outside of its buffer dies on the spot.

Linux and macOS. A fault kills the process, so a test that expects one (or isn't sure) runs the code through
`signal_of`, which does it in a forked child.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

__all__ = ["guarded", "guarded_empty", "signal_of"]

_NO_ACCESS = 0
_PAGE = mmap.PAGESIZE


def guarded_empty(nbytes: int, side: str = "after") -> np.ndarray:
    """`nbytes` bytes, all 0xFF (NaN as a float, -1 as an integer), with an inaccessible page right after or before it.

    side: "after": the last byte is followed by the page (the address is as aligned as `nbytes` is); "before": the first
    byte follows one, aligned to a page. There are such pages on both sides; `side` says where there is no slack.
    """
    if side not in ("after", "before"):
        raise ValueError(f"guarded_empty: side is 'after' or 'before', not {side!r}")
    inner = max(1, -(-nbytes // _PAGE)) * _PAGE
    memory = mmap.mmap(-1, inner + 2 * _PAGE)
    anchor = ctypes.c_char.from_buffer(memory)
    base = ctypes.addressof(anchor)
    del anchor
    offset = _PAGE if side == "before" else _PAGE + inner - nbytes
    array = np.frombuffer(memory, np.uint8, nbytes, offset)
    array[...] = 0xFF
    libc = ctypes.CDLL(None, use_errno=True)
    for page in (base, base + _PAGE + inner):
        if libc.mprotect(ctypes.c_void_p(page), ctypes.c_size_t(_PAGE), _NO_ACCESS):
            raise OSError(ctypes.get_errno(), "mprotect failed")
    return array


def guarded(values: Any, side: str = "after", dtype: Any = None) -> np.ndarray:
    """A copy of an array in guarded memory."""
    values = np.ascontiguousarray(values, dtype)
    copy = guarded_empty(values.nbytes, side).view(values.dtype).reshape(values.shape)
    copy[...] = values
    return copy


def signal_of(function: Callable[[], Any]) -> int:
    """The number of the signal that `function` dies of in a forked child; 0 if it returns.

    Raises RuntimeError where it raises an exception.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # forking with threads around: the child only runs the function
        child = os.fork()
    if child == 0:
        code = 1
        try:
            import faulthandler
            import resource

            faulthandler.disable()
            with contextlib.suppress(OSError, ValueError):
                resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            function()
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return os.WTERMSIG(status)
    if os.WEXITSTATUS(status):
        raise RuntimeError("the function raised an exception in the child")
    return 0
