"""Blocks and functions that run line by line while you write them, and as compiled programs when you ask for it."""

from __future__ import annotations

import importlib as _importlib
from pathlib import Path as _Path
from typing import Any as _Any

import ndarray as _nd

if _Path(_nd.__file__).resolve().parent.parent != _Path(__file__).resolve().parent.parent:
    raise ImportError(
        f"the package 'ndarray' comes from {_Path(_nd.__file__).parent}, not from beside {_Path(__file__).parent}: another "
        "distribution (or a folder on sys.path) hides that of hybrid-blocks. Remove it, or reorder sys.path"
    )

from ndarray.settings import settings

from . import control as _control  # noqa: F401  (registers the operations of loops and branches)
from .call import statistics as stats
from .hybridize import CompiledFunction, hybridize, scalar_input
from .trace import LeakedTracerError, TraceError

_LAZY = {
    "Block": "block", "HybridBlock": "block", "Constant": "parameter", "Parameter": "parameter",
    "ParameterDict": "parameter", "DeferredInitializationError": "parameter", "initializer": "", "Graph": "graph",
    "SymbolBlock": "export", "load": "export", "register_backend": "backend",
    "get_backend": "backend", "evaluate_graph": "interpret", "skip_passes": "passes",
}

__all__ = [
    "CompiledFunction", "LeakedTracerError", "TraceError", "hybridize", "scalar_input", "settings", "stats",
    *(name for name in _LAZY),
]


def __getattr__(name: str) -> _Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'hybrid' has no attribute {name!r}")
    module = _LAZY[name]
    if not module:
        return _importlib.import_module(f"{__name__}.{name}")
    return getattr(_importlib.import_module(f"{__name__}.{module}"), name)
