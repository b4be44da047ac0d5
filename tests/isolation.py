"""What a test must leave as it found it: `state()` before and after, compared by the fixture `isolated` of conftest.py."""

from __future__ import annotations

import gc
import os
import random
import sys
import threading
from types import ModuleType
from zlib import crc32

import numpy as np

import blocks.metric
import hybrid.backend
import hybrid.initializer
import hybrid.passes
import kvstore.optimizer
import ndarray as nd
from hybrid.passes.simplify import _by_op
from ndarray import apply, autograd, precision
from ndarray import device as devices
from ndarray.op import OPS
from ndarray.settings import settings

_REGISTRIES = {
    "initializers": hybrid.initializer._registry, "optimizers": kvstore.optimizer._registry, "metrics": blocks.metric._registry,
    "operations": OPS, "rewrites": _by_op,
}


def state() -> dict[str, object]:
    """What the process shares between tests, by name. Backends and providers that are made at first use don't count."""
    found: dict[str, object] = {name: frozenset(registry) for name, registry in _REGISTRIES.items()}
    found |= {
        "environment": {k: v for k, v in os.environ.items() if k != "PYTEST_CURRENT_TEST"},
        "working folder": os.getcwd(),
        "module path": tuple(sys.path),
        "stand-in for cupy": None if isinstance(sys.modules.get("cupy"), ModuleType) else sys.modules.get("cupy"),
        "cores": os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None,
        "recursion limit": sys.getrecursionlimit(),
        "switch interval": sys.getswitchinterval(),
        "tracing function": sys.gettrace() and sys.gettrace().__class__,
        "garbage collector": (gc.isenabled(), gc.get_threshold(), gc.get_freeze_count()),
        "NumPy's errors": np.geterr(),
        "NumPy's printing": np.get_printoptions(),
        "backends": frozenset(n for n in hybrid.backend._backends if ":" not in n),
        "kernel providers": frozenset(devices._providers),
        "settings": dict(settings._overrides.get()),
        "interpreters": apply._top.get(),
        "training mode": autograd.is_training(),
        "device": nd.current_device(),
        "precision": precision.current(),
        "passes": (hybrid.passes._skipped.get(), hybrid.passes._verify.get()),
        "threads": frozenset(t for t in threading.enumerate() if not t.daemon),
    }
    return found


def changed(before: dict[str, object], after: dict[str, object]) -> list[str]:
    """A line for each difference."""
    return [f"{name}: {_difference(before[name], after[name])}" for name in before if before[name] != after[name]]


def _difference(before: object, after: object) -> str:
    if isinstance(before, dict) and isinstance(after, dict):
        keys = [k for k in {**before, **after} if before.get(k) != after.get(k)]
        return ", ".join(f"{k} was {before.get(k)!r} and is {after.get(k)!r}" for k in keys)
    if isinstance(before, frozenset) and isinstance(after, frozenset):
        return ", ".join([f"{x!r} is new" for x in after - before] + [f"{x!r} is gone" for x in before - after])
    return f"was {before!r} and is {after!r}"


def wait_for_threads(before: frozenset) -> None:
    """Let threads that are new end: those of a pool do so some time after it was told to."""
    for thread in threading.enumerate():
        if not thread.daemon and thread not in before:
            thread.join(10)


def seed(name: str, module: ModuleType) -> None:
    """Start all generators anew, those that a test's file has made by the test's name: no test draws what others have left."""
    nd.random.seed(0)
    np.random.seed(0)
    random.seed(0)
    own = [g for g in vars(module).values() if isinstance(g, np.random.Generator)]
    for generator in own:
        generator.bit_generator.state = np.random.PCG64(crc32(name.encode())).state
