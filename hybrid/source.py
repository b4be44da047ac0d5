"""Which line of the user's code is running: the innermost frame outside the library's own packages."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import FrameType

from .graph import Source

__all__ = ["is_library_file", "user_source"]

_ROOT = str(Path(__file__).resolve().parent.parent) + os.sep
_LIBRARY = tuple(_ROOT + name + os.sep for name in ("ndarray", "hybrid", "jit", "kvstore", "blocks"))
_known: dict[str, bool] = {}


def is_library_file(filename: str) -> bool:
    """Whether a code object's file belongs to one of the five packages (or is no file at all)."""
    known = _known.get(filename)
    if known is None:
        path = filename if filename.startswith("<") else os.path.realpath(filename)
        known = _known[filename] = path.startswith(_LIBRARY) or filename.startswith(("<frozen", "<__array_function__"))
    return known


def user_source(depth: int = 1) -> Source | None:
    """The line of the innermost caller outside the library; None where there is none."""
    frame: FrameType | None = sys._getframe(depth)
    while frame is not None:
        code = frame.f_code
        if not is_library_file(code.co_filename):
            if code.co_filename.endswith(("functools.py", "contextlib.py")):
                frame = frame.f_back
                continue
            return Source(code.co_filename, frame.f_lineno, code.co_name)
        frame = frame.f_back
    return None
