"""Which line of the user's code is running: the innermost frame outside the library's own packages and
Python's."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import FrameType

from .graph import Source

__all__ = ["is_library_file", "user_source"]

_ROOT = str(Path(__file__).resolve().parent.parent) + os.sep
_LIBRARY = tuple(_ROOT + name + os.sep for name in ("ndarray", "hybrid", "jit", "kvstore", "blocks"))
_STANDARD = os.path.dirname(os.__file__) + os.sep
_known: dict[str, bool] = {}


def is_library_file(filename: str) -> bool:
    """Whether a code object's file belongs to one of the five packages (or is no file at all)."""
    known = _known.get(filename)
    if known is None:
        path = filename if filename.startswith("<") else os.path.realpath(filename)
        known = _known[filename] = path.startswith(_LIBRARY) or filename.startswith(("<frozen", "<__array_function__"))
    return known


def _is_pythons(filename: str) -> bool:
    """Whether a file belongs to Python's standard library."""
    return filename.startswith(_STANDARD) and "-packages" not in filename


def user_source(depth: int = 1) -> Source | None:
    """The line of the innermost caller outside the library and Python's own; None where there is none."""
    frame: FrameType | None = sys._getframe(depth)
    while frame is not None:
        code = frame.f_code
        if not is_library_file(code.co_filename) and not _is_pythons(code.co_filename):
            return Source(code.co_filename, frame.f_lineno, code.co_name)
        frame = frame.f_back
    return None
