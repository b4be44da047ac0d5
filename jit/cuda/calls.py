"""Library steps ready to run: bound to sizes, with what a GPU's library needs made beforehand, so that running one allocates
nothing and can be captured.

The words of a step in a table are the addresses of its buffers, then that of its workspace (0: none).
"""

from __future__ import annotations

import ctypes
import importlib.util
import json
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ndarray.settings import settings

from ..numerics import dtype_of
from . import library_numpy

if TYPE_CHECKING:
    from .driver import Driver

__all__ = ["LIBRARIES", "LibraryCall", "LibraryRefused", "available", "bind_step"]

LIBRARIES = ("cublaslt", "cudnn")


class LibraryCall(Protocol):
    """A step for given sizes; `workspace` is the bytes of scratch memory that it needs."""

    workspace: int

    def __call__(self, words: np.ndarray) -> None:
        """Enqueue the step on the current stream."""


def available(kind: str) -> tuple[str, ...]:
    """The libraries that programs of a device ("gpu" or "sim") are to use: those that the setting HYBRID_CUDA_LIBRARIES allows
    and, on a GPU, that can be loaded."""
    wanted = settings.cuda_libraries
    return tuple([name for name in LIBRARIES if name in wanted and (kind == "sim" or _loads(name))])


@cache
def _loads(name: str) -> bool:
    try:
        if name == "cublaslt":
            from .cublaslt import load

            load()
        else:
            if importlib.util.find_spec("cudnn") is None:
                return False
            from .cudnn import load as load_cudnn

            load_cudnn()
    except ImportError:
        return False
    return True


class LibraryRefused(RuntimeError):
    """A library can't compute a step; `library` is its name."""

    def __init__(self, library: str, reason: BaseException):
        super().__init__(f"{library}: {reason}; HYBRID_CUDA_LIBRARIES says which libraries are used")
        self.library = library


def bind_step(driver: Driver, text: str, sizes: Sequence[int], arguments: Sequence[int]) -> LibraryCall:
    """The step of a `LibraryKernel`'s text for these arguments; `sizes` are the elements of each buffer.

    Raises LibraryRefused where the library has nothing for it."""
    step = json.loads(text)
    if driver.device.kind == "sim":
        return _OnHost(step, sizes, arguments)
    library = "cublaslt" if step["kind"] == "product" else "cudnn"
    try:
        if library == "cublaslt":
            return _OnGpu(driver, _Product(step, arguments, driver.device.index))
        from .cudnn import bind

        return _OnGpu(driver, bind(step, arguments, driver.device.index))
    except Exception as error:  # each library has its own classes
        raise LibraryRefused(library, error) from error


class _OnHost:
    """A step of ``sim(i)``."""

    workspace = 0

    def __init__(self, step: dict[str, Any], sizes: Sequence[int], arguments: Sequence[int]):
        self.step, self.sizes, self.arguments = step, list(sizes), list(arguments)
        self.dtypes = [dtype_of(d) for _, d in step["buffers"]]

    def __call__(self, words: np.ndarray) -> None:
        """Compute it with NumPy, in place."""
        arrays = list(map(_memory, words.tolist(), self.sizes, self.dtypes))
        library_numpy.run_step(self.step, arrays, self.arguments)


def _memory(address: int, size: int, dtype: np.dtype) -> np.ndarray:
    memory = (ctypes.c_uint8 * (size * dtype.itemsize)).from_address(address)
    return np.frombuffer(memory, np.uint8).view(dtype) if size else np.empty(0, dtype)  # type: ignore[call-overload]


class _OnGpu:
    """A step of ``gpu(i)``."""

    def __init__(self, driver: Driver, bound: Any):
        self.driver, self.bound, self.workspace = driver, bound, bound.workspace

    def __call__(self, words: np.ndarray) -> None:
        """Enqueue it."""
        self.bound.run(words.tolist(), self.driver.stream())


KEPT = 1024
"""Problems that are remembered."""

_matmuls: dict[Any, Any] = {}  # by library and problem


class _Product:
    """A product by cublasLt."""

    def __init__(self, step: dict[str, Any], arguments: Sequence[int], device: int):
        from .cublaslt import Matmul, Operand, Problem, load

        take = iter(arguments)
        batch, rows, columns, depth = (next(take) for _ in range(4))
        self.names = [name for name, _ in step["buffers"]]
        dtypes = dict(step["buffers"])
        size = lambda name: dtype_of(dtypes[name]).itemsize
        self.offsets = dict.fromkeys(self.names, 0)
        operands = {}
        for name in ("x", "y"):
            self.offsets[name] = next(take) * size(name)
            operands[name] = Operand(next(take), next(take), next(take))
        for name in ("bias", "residual"):
            if name in dtypes:
                self.offsets[name] = next(take) * size(name)
        problem = Problem(
            batch, rows, columns, depth, operands["x"], operands["y"], dtypes["x"], dtypes["out"],
            "tf32" if step["precision"] == "tf32" else "", step["alpha"], step["activation"], "bias" in dtypes,
            "residual" in dtypes,
        )
        library = load()
        key = library, problem
        if key not in _matmuls:
            if len(_matmuls) >= KEPT:
                _matmuls.clear()  # programs hold those that they use
            _matmuls[key] = Matmul(library, problem)
        self.matmul, self.device = _matmuls[key], device
        self.workspace = self.matmul.workspace
        self.matmul.algorithm(device, 16)  # not while a graph is captured

    def run(self, words: Sequence[int], stream: int) -> None:
        """Enqueue it."""
        *buffers, workspace = words
        places = {name: address + self.offsets[name] for name, address in zip(self.names, buffers)}
        self.matmul.run(
            self.device, places["x"], places["y"], places["out"], workspace, stream, places.get("bias", 0),
            places.get("residual", 0))
