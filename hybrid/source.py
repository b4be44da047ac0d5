"""Which line of the user's code is running: the innermost frame outside the library's own packages and
Python's."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import FrameType
from typing import Any

from .graph import Source

__all__ = ["is_library_file", "user_source"]

_ROOT = str(Path(__file__).resolve().parent.parent) + os.sep
_LIBRARY = tuple(_ROOT + name + os.sep for name in ("ndarray", "hybrid", "jit", "kvstore", "blocks"))
_STANDARD = os.path.dirname(os.__file__) + os.sep
_USERS, _OURS, _PYTHONS = 0, 1, 2
_known: dict[str, int] = {}  # whose a file is


def is_library_file(filename: str) -> bool:
    """Whether a code object's file belongs to one of the five packages (or is no file at all)."""
    known = _known.get(filename)
    return (_whose(filename) if known is None else known) == _OURS


def _whose(filename: str) -> int:
    """Whose a code object's file is: the user's, one of the five packages' or of the standard library."""
    path = filename if filename.startswith("<") else os.path.realpath(filename)
    if path.startswith(_LIBRARY) or filename.startswith(("<frozen", "<__array_function__")):
        found = _OURS
    else:
        found = _PYTHONS if filename.startswith(_STANDARD) and "-packages" not in filename else _USERS
    _known[filename] = found
    return found


def user_source(depth: int = 1) -> Source | None:
    """The line of the innermost caller outside the library and Python's own; None where there is none."""
    frame: FrameType | None = sys._getframe(depth)
    block, known = "", _known
    while frame is not None:  # called for each operation, some 15 frames deep
        code = frame.f_code
        filename = code.co_filename
        whose = known[filename] if filename in known else _whose(filename)
        if whose == _USERS:
            return Source(filename, frame.f_lineno, code.co_name, block)
        if whose == _OURS and code.co_name == "forward" and not block:
            block = _block_name(frame.f_locals.get("self"))
        frame = frame.f_back
    return None


def _block_name(block: Any) -> str:
    """Class and place of a Block, as its parameters know it: "Conv2D 0"."""
    path = next((p.path.rpartition(".")[0] for p in getattr(block, "_own", {}).values()), "")
    return f"{type(block).__name__} {path}".rstrip() if block is not None else ""
