"""Devices: where an array's memory lives, and which array module and kernels work there.

``cpu(i)`` and ``gpu(i)`` are interned, so that ``is`` compares them. Several ``cpu(i)`` may be used in one process
(they share the machine's memory and cores), so that code for many devices runs anywhere. Naming ``gpu(0)`` is always
possible; using it without CuPy and a GPU is a `DeviceError` that says what to install.

A `KernelProvider` offers faster kernels for chosen primitive operations. The NumPy one offers none: `Op.eager` runs. On
the CPU the compiled ones of ``jit.kernels`` are asked where arrays are large.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar
from typing import Any, Protocol

import numpy as np

from . import allocation
from .settings import settings

__all__ = [
    "Context", "Device", "DeviceError", "KernelProvider", "OutOfMemoryError", "cpu", "current_context", "current_device",
    "device", "gpu", "num_gpus", "sim", "synchronize", "transfer", "use_kernels",
]


class DeviceError(RuntimeError):
    """A device that was named can't be used on this machine."""


class OutOfMemoryError(DeviceError, MemoryError):
    """A device's memory does not suffice; the text says what holds it and what would fit."""


class Device:
    """One device: its `kind` ("cpu", "gpu" or "sim") and `index`. A context manager that makes it the current device."""

    __slots__ = ("_hash", "_module", "_tokens", "index", "kernels", "kind", "memory")

    kind: str
    index: int
    kernels: KernelProvider
    memory: Any  # what makes arrays beside the module, if anything: `allocation`
    _hash: int
    _module: Any
    _tokens: ContextVar

    def __new__(cls, kind: str | Device = "cpu", index: int = 0) -> Device:
        if isinstance(kind, Device):
            return kind
        known = _interned.get((kind, index))
        if known is not None:
            return known
        if kind not in KINDS:
            raise ValueError(f"Device: kind must be 'cpu', 'gpu' or 'sim', got {kind!r}")
        if isinstance(index, bool) or not isinstance(index, int) or index < 0:
            raise ValueError(f"Device: index must be a non-negative int, got {index!r}")
        self = object.__new__(cls)
        self.kind, self.index, self._hash, self._tokens = kind, index, hash((kind, index)), ContextVar("device_tokens")
        self._module, self.memory = (np, allocation) if kind == "cpu" else (None, None)
        self.kernels = deferred_kernels if kind == "cpu" else numpy_kernels
        return _interned.setdefault((kind, index), self)

    @property
    def module(self) -> Any:
        """The array module: NumPy, CuPy or `sim`'s. Raises `DeviceError` where the device can't be used."""
        return self._module or (_sim() if self.kind == "sim" else _cuda()).module(self.index)

    @property
    def inner(self) -> Any:
        """The array module, for use under `active` only."""
        return self._module or (_cuda().cupy() if self.kind == "gpu" else _sim().module(self.index))

    def active(self) -> AbstractContextManager[Any]:
        """Context in which arrays of this device may be used through their own methods: CUDA's current device is this one."""
        if self.kind == "cpu":
            return _NOTHING
        return _sim().use(self.index) if self.kind == "sim" else _cuda().active(self.index)

    # MXNet's names
    @property
    def device_type(self) -> str:
        """The same as `kind`."""
        return self.kind

    @property
    def device_id(self) -> int:
        """The same as `index`."""
        return self.index

    def __enter__(self) -> Device:
        self._tokens.set((_current.set(self), self._tokens.get(None)))
        return self

    def __exit__(self, *_: object) -> None:
        token, outer = self._tokens.get()
        _current.reset(token)
        self._tokens.set(outer)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return self is other

    def __reduce__(self) -> tuple:
        return Device, (self.kind, self.index)

    def __copy__(self) -> Device:
        return self

    def __deepcopy__(self, _: Any) -> Device:
        return self

    def __repr__(self) -> str:
        return f"{self.kind}({self.index})"


Context = Device  # MXNet's name

KINDS = ("cpu", "gpu", "sim")
_NOTHING = nullcontext()


KERNEL_BYTES = 1 << 20
"""Elementwise functions of larger arrays ask the device's `KernelProvider`; smaller ones are left to the array module."""


class KernelProvider(Protocol):
    """Kernels of one device for primitive operations, looked up by op name when an op runs eagerly.

    ``offers`` names the ops (contractions, convolutions, pooling ...). ``run`` returns the result, or NotImplemented
    where it has nothing better than `Op.eager` for these shapes and dtypes. ``total`` sums arrays of one shape and
    dtype, in their order, into `out` where one is given.
    """

    name: str
    offers: frozenset[str]

    def run(self, op: str, arrays: Sequence[Any], attrs: dict[str, Any]) -> Any:
        """The result of the op on backend arrays, or NotImplemented."""

    def total(self, arrays: Sequence[Any], out: Any = None) -> Any:
        """The sum of backend arrays."""


class NumpyKernels:
    """No kernels beyond the array module's own."""

    name = "numpy"
    offers: frozenset[str] = frozenset()

    def run(self, op: str, arrays: Sequence[Any], attrs: dict[str, Any]) -> Any:
        """Nothing better than `Op.eager`."""
        return NotImplemented

    def total(self, arrays: Sequence[Any], out: Any = None) -> Any:
        """The sum of arrays of one shape, left to right."""
        if out is None:
            out = arrays[0].copy()
        elif out is not arrays[0]:
            out[...] = arrays[0]
        for a in arrays[1:]:
            out += a
        return out


COSTLY: dict[str, int] = {
    "convolution": 1 << 15, "convolution_data_gradient": 1 << 15, "convolution_weight_gradient": 1 << 15,
    "max_pool": 1 << 16, "max_unpool": 1 << 16, "max_pool_gather": 1 << 16, "sum_pool": 1 << 16, "sum_unpool": 1 << 16,
    "dot_general": 1 << 18,
}
"""Operations with many steps an element, and the bytes of the largest argument from which compiled kernels pay."""

ELEMENTWISE = frozenset((
    "abs", "add", "cast", "cos", "divide", "equal", "erf", "exp", "expm1", "greater", "greater_equal", "less", "less_equal",
    "log", "log1p", "maximum", "minimum", "multiply", "negative", "not_equal", "relu", "sigmoid", "sin", "sqrt", "subtract",
    "tanh", "where",
))
"""Elementwise operations with compiled kernels, for arguments of more than `KERNEL_BYTES`."""


class DeferredKernels(NumpyKernels):
    """The compiled kernels, which are imported when an operation on a large array asks for them."""

    name = "jit"
    offers = frozenset(COSTLY) | ELEMENTWISE

    def run(self, op: str, arrays: Sequence[Any], attrs: dict[str, Any]) -> Any:
        """What the compiled kernels return, where the arrays are large and the setting HYBRID_EAGER_KERNELS allows it."""
        limit = COSTLY.get(op, KERNEL_BYTES)
        for a in arrays:
            if a.nbytes > limit:
                return _compiled().run(op, arrays, attrs) if settings.eager_kernels else NotImplemented
        return NotImplemented

    def total(self, arrays: Sequence[Any], out: Any = None) -> Any:
        """The sum, by the compiled kernels where the arrays are large."""
        large = arrays[0].nbytes > KERNEL_BYTES and settings.eager_kernels
        return _compiled().total(arrays, out) if large else super().total(arrays, out)


def _compiled() -> KernelProvider:
    entry = _providers["compiled"]
    if isinstance(entry, str):
        entry = _providers["compiled"] = _found(entry)
    return entry


def _found(entry: str) -> Any:
    module, _, attribute = entry.partition(":")
    return getattr(importlib.import_module(module), attribute)


numpy_kernels, deferred_kernels = NumpyKernels(), DeferredKernels()
_providers: dict[str, str | KernelProvider] = {
    "numpy": numpy_kernels, "jit": deferred_kernels, "compiled": "jit.kernels:provider",
}
_interned: dict[tuple[str, int], Device] = {}
_default = Device("cpu", 0)
_current: ContextVar[Device] = ContextVar("current_device", default=_default)


def use_kernels(name: str, device: Device | None = None) -> None:
    """Let the provider `name` of the table serve a device (the current one) from now on.

    The entry ``"module:attribute"`` is imported at first use, so that this package depends on no compiler.
    Raises ValueError naming the known providers.
    """
    try:
        entry = _providers[name]
    except KeyError:
        raise ValueError(f"no kernel provider {name!r}; known: {', '.join(sorted(_providers))}") from None
    if isinstance(entry, str):
        entry = _providers[name] = _found(entry)
    (device or current_device()).kernels = entry


def cpu(index: int = 0) -> Device:
    """The `index`-th CPU device (all share the machine's cores and memory).

    >>> nd.cpu(1)
    cpu(1)
    """
    return Device("cpu", index)


def gpu(index: int = 0) -> Device:
    """The `index`-th CUDA GPU. Its first use needs CuPy and the GPU.

    >>> nd.gpu(0)
    gpu(0)
    """
    return Device("gpu", index)


def sim(index: int = 0) -> Device:
    """The `index`-th simulated GPU: arrays follow CuPy's rules and compiled code is CUDA, but all runs on the CPU.

    For tests of the GPU's way on machines without one; it is slow.

    >>> nd.sim(1)
    sim(1)
    """
    return Device("sim", index)


def device(spec: Device | str | None = None) -> Device:
    """A device from itself, a text such as ``"gpu(1)"``, ``"sim:1"`` or ``"cpu"``, or None (the current one)."""
    if spec is None:
        return _current.get()
    if isinstance(spec, Device):
        return spec
    if isinstance(spec, str):
        kind, _, index = spec.rstrip(")").replace("(", ":").partition(":")
        if kind in KINDS and (index or "0").isdecimal():
            return Device(kind, int(index or 0))
    raise ValueError(f"device: expected a Device or a text such as 'cpu' or 'gpu(0)', got {spec!r}")


def current_device() -> Device:
    """The device on which arrays are created: that of the innermost ``with device:``, else ``cpu(0)``.

    >>> nd.current_device()
    cpu(0)
    """
    return _current.get()


current_context = current_device  # MXNet's name


def num_gpus() -> int:
    """How many CUDA GPUs can be used; 0 without CuPy or a driver.

    >>> nd.num_gpus() >= 0
    True
    """
    return _cuda().count()


def synchronize() -> None:
    """Wait for all GPUs that this process has used."""
    cuda = sys.modules.get("ndarray.cuda")
    if cuda is not None:
        for index in cuda.used():
            cuda.synchronize(index)


def transfer(data: Any, home: Device, device: Device) -> Any:
    """A backend array's values as a new backend array of another device."""
    if device.kind == "cpu":
        return allocation.array(data) if home.kind == "cpu" else data.get()
    if home.kind == device.kind == "gpu":
        return _cuda().between(data, device.index)
    return device.module.array(data.get() if home.kind not in ("cpu", device.kind) else data)


def _sim() -> Any:
    return importlib.import_module("ndarray.simulated")


def _cuda() -> Any:
    return importlib.import_module("ndarray.cuda")
