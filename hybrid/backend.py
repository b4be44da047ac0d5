"""Compiler backends: what `hybrid` asks of one, and the table through which it finds them.

The table names a backend as ``"module:attribute"`` and imports it at first use, so that this package never depends
on a compiler: ``jit`` (native code through LLVM), ``cuda`` and ``interpreter`` (NumPy, one op at a time) stand in it. What
is compiled by ``jit`` for arrays of the host is compiled by ``cuda:gpu(0)`` for those of that device.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from ndarray.array import NDArray
from ndarray.device import Device

from .graph import Graph

__all__ = [
    "Backend", "Foresight", "Options", "Program", "backend_on", "get_backend", "overlapping", "prepare_backend", "refuse_leaked",
    "register_backend", "unchanged",
]


@dataclass(frozen=True)
class Options:
    """What a program is compiled for, beyond its graph. Part of the cache key.

    constant_inputs  indices of inputs (weights) that rarely change: a backend may keep what depends on them only (see
                     `Program.keeping`)
    """

    constant_inputs: frozenset[int] = frozenset()
    extra: Mapping[str, Any] = field(default_factory=dict)


class Program(Protocol):
    """A compiled graph.

    Calling it with one backend array (NumPy on the CPU) per graph input computes the outputs and writes the state
    back into the inputs that the graph names, in place. Returned arrays are new: they never alias the arena, an
    input or an earlier result. Inputs may be non-contiguous. Any number of threads may call it at once.
    """

    graph: Graph

    def __call__(self, arrays: Sequence[Any]) -> list[Any]:
        """Run. `arrays` are in the order of ``graph.inputs``, of exactly the dtypes of the graph, and of shapes that
        the graph's types and guards admit (the caller has checked that)."""

    def keeping(self, constants: Mapping[int, NDArray]) -> Program:
        """The same program for given constant inputs, the only ones with which it will be called: what depends on
        nothing else is computed once and kept until one of them is written. Optional."""

    def explain(self, arrays: Sequence[Any] | None = None, measure: bool = False) -> Any:
        """What was fused, the kernels, the memory plan: an object whose ``str()`` is text for a person, and whose
        `kernels` are the rows, each with `name` and `operations`. `arrays` (inputs of a call) say for which sizes; with
        `measure`, kernels are timed on copies of them."""


class Foresight(Protocol):
    """A first call that is being prepared."""

    def writes(self, arrays: Sequence[Any]) -> None:
        """Every element of these arrays is going to be written."""

    def stop(self) -> None:
        """The program is about to run."""

    def finish(self, program: Program | None) -> None:
        """The call is over; `program`, if there is one, has made it."""


def unchanged(graph: Graph) -> Graph:
    """The graph."""
    return graph


class Backend(Protocol):
    """Turns graphs into programs."""

    name: str

    def compile(self, graph: Graph, options: Options, passes: Callable[[Graph], Graph] = unchanged) -> Program:
        """Compile for the host what `passes` make of the graph; where it is known what came out of that, they needn't run.
        They leave inputs, names and the numbers of written inputs as they are."""

    def prepare(self) -> None:
        """Import and make what all compiling needs. Optional."""

    def foresee(self, described: Mapping[str, Any]) -> Foresight | None:
        """What helps a first call of this description (the function, the arguments' shapes ...; the same in every process) while
        it is being traced. Optional."""

    def emit(self, graph: Graph, target: str) -> tuple[bytes, str]:
        """An object file and a C header for `target` (an LLVM triple, or "host")."""


_backends: dict[str, str | Backend] = {
    "jit": "jit.backend:backend",
    "cuda": "jit.cuda.backend:backend",  # a function that gives the backend of a device
    "interpreter": "hybrid.interpret:backend",
}
_ELSEWHERE = {"jit": "cuda", "interpreter": "interpreter"}
"""The backends that are other ones, ``"name:device"``, where arrays are not on the CPU."""


def refuse_leaked(arrays: Sequence[Any], name: str) -> None:
    """Raise the error of an array that a trace has left behind, if there is one among a program's inputs."""
    for a in arrays:
        if hasattr(a, "concretize"):
            a.concretize(f"passing it to the compiled {name!r}")


def overlapping(arrays: Sequence[Any], written: Container[int]) -> Iterator[tuple[int, int]]:
    """Pairs (number of a written array, number of another one) that may share memory, in time n log n where they are few."""
    spans = sorted((*_span(a), n) for n, a in enumerate(arrays) if _address(a) is not None and a.size)
    open_ones: list[tuple[int, int]] = []  # those before that may reach as far: where they end, and their numbers
    for low, high, n in spans:
        open_ones = [x for x in open_ones if x[0] > low]
        for _, k in open_ones:
            if (n in written or k in written) and _may_share(arrays[n], arrays[k]):
                yield (n, k) if n in written else (k, n)
        open_ones.append((high, n))


def _address(array: Any) -> int | None:
    """Where the first element of an array of the host or of a GPU lies; None for what is no array."""
    if isinstance(array, np.ndarray):
        return array.__array_interface__["data"][0]
    return getattr(getattr(array, "data", None), "ptr", None)


def _may_share(a: Any, b: Any) -> bool:
    """Whether arrays whose spans overlap may share memory."""
    return not (isinstance(a, np.ndarray) and isinstance(b, np.ndarray)) or np.may_share_memory(a, b)


def _span(array: Any) -> tuple[int, int]:
    """Where the memory of an array that isn't empty begins and ends."""
    low = high = _address(array) or 0
    for size, stride in zip(array.shape, array.strides):
        if stride < 0:
            low += (size - 1) * stride
        else:
            high += (size - 1) * stride
    return low, high + array.itemsize


def register_backend(name: str, where: str | Backend) -> None:
    """Add a backend: an object, or ``"module:attribute"`` to be imported at first use."""
    _backends[name] = where


_ready: set[str] = set()


def prepare_backend(name: str) -> None:
    """Have the backend of that name make ready what all programs share, so that no first call need. Errors are left to that."""
    if name not in _ready:
        _ready.add(name)
        with contextlib.suppress(Exception):
            getattr(get_backend(name), "prepare", lambda: None)()


def backend_on(name: str, device: Device) -> str:
    """The name of the backend that stands in for `name` where the arrays are on a device."""
    return f"{_ELSEWHERE[name]}:{device}" if name in _ELSEWHERE and device.kind != "cpu" else name


def get_backend(name: str) -> Backend:
    """The backend of that name. Raises ValueError naming the known ones."""
    try:
        entry = _backends[name]
    except KeyError:
        kind, _, device = name.partition(":")
        if device and kind in _ELSEWHERE.values():
            of_device: Any = get_backend("cuda") if kind == "cuda" else get_backend(kind).on  # type: ignore[attr-defined]
            found = _backends[name] = of_device(device)
            return found
        raise ValueError(f"no compiler backend {name!r}; known: {', '.join(sorted(_backends))}") from None
    if isinstance(entry, str):
        module, _, attribute = entry.partition(":")
        entry = _backends[name] = getattr(importlib.import_module(module), attribute)
    return entry
