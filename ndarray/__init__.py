"""Arrays on devices, with NumPy's semantics, automatic differentiation and the functions of neural networks."""

from __future__ import annotations

import importlib.util as _util
from importlib import import_module as _import_module
from pathlib import Path as _Path
from typing import Any as _Any


def _check_siblings() -> None:
    """Refuse to run beside a package of the same name from another distribution (pip does not notice that)."""
    parent = _Path(__file__).resolve().parent.parent
    for name in ("hybrid", "jit", "kvstore", "blocks"):
        try:
            spec = _util.find_spec(name)
        except (ImportError, ValueError):
            spec = None
        if spec is None or spec.origin is None:
            continue
        found = _Path(spec.origin).resolve().parent.parent
        if found != parent:
            raise ImportError(
                f"the package {name!r} comes from {found}, but ndarray from {parent}: another distribution "
                f"or folder hides the {name!r} of hybrid-blocks. Remove it, or put {parent} first on sys.path."
            )


_check_siblings()

from . import eager as _eager  # noqa: E402, F401  isort: skip  (installs the bottom interpreter)
from . import autograd, creation, device, functions, random  # noqa: E402, F401
from . import dtypes as _dtypes  # noqa: E402
from . import examples as _examples  # noqa: E402
from . import inspection as _inspection  # noqa: E402
from . import methods as _methods  # noqa: E402
from .array import NDArray  # noqa: E402, F401
from .creation import *  # noqa: E402, F403
from .device import (  # noqa: E402, F401
    Context,
    Device,
    DeviceError,
    OutOfMemoryError,
    cpu,
    current_context,
    current_device,
    gpu,
    num_gpus,
    sim,
)
from .dtypes import *  # noqa: E402, F403
from .functions import *  # noqa: E402, F403
from .inspection import *  # noqa: E402, F403
from .memory import empty_cache, gpu_memory_info, limit_memory, memory_stats  # noqa: E402, F401
from .saving import load, save  # noqa: E402, F401
from .settings import set_matmul_precision, settings  # noqa: E402, F401
from .streams import Event, Stream, copy_async, pin_memory  # noqa: E402, F401

_methods.bind(functions)
_examples.document(vars(functions))

bool = _dtypes.bool_
pi, e, inf, nan, newaxis = 3.141592653589793, 2.718281828459045, float("inf"), float("nan"), None
__array_api_version__ = "2025.12"
__array_namespace_info__ = _inspection.array_namespace_info


def __getattr__(name: str) -> _Any:
    if name == "bfloat16":
        return _dtypes.canonical(name)
    if name == "testing":  # imported where it is used
        return _import_module("ndarray.testing")
    raise AttributeError(f"module 'ndarray' has no attribute {name!r}")


def waitall() -> None:
    """Wait until all GPUs that were used have computed everything. (On the CPU it is computed when a call returns.)

    >>> nd.waitall()
    """
    device.synchronize()
