"""The store "nccl": sums over several GPUs of one process by NCCL, all keys of a call in one group, on streams of their own.

Over several ``sim(i)`` the same sums are made on the host, device after device, which is also the order of the store "device".
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from ndarray import NDArray, autograd
from ndarray.apply import is_tracing
from ndarray.array import storage_of, wrap
from ndarray.device import Device
from ndarray.streams import Event, Stream

from .local import KVStore, _pairs

__all__ = ["NcclStore"]

TYPES = {
    "int8": 0, "uint8": 1, "int32": 2, "uint32": 3, "int64": 4, "uint64": 5, "float16": 6, "float32": 7, "float64": 8,
    "bfloat16": 9,
}
"""ncclDataType_t."""
SUM = 0  # ncclRedOp_t


class Engine(Protocol):
    """Sums over the devices that it was made for."""

    def all_reduce(self, groups: Sequence[tuple[Sequence[NDArray], Sequence[NDArray]]]) -> None:
        """For each (values, targets), an array of each on each device, in their order: write the sum of the values into all
        targets. The devices' current streams wait for it, the host doesn't."""


class NcclStore(KVStore):
    """See `KVStore`; gradients must be on several GPUs (or simulated ones), each on one, in the same order for all keys."""

    def __init__(self) -> None:
        super().__init__("nccl")
        self._engines: dict[tuple[Device, ...], Engine] = {}

    def push(self, key: Any, value: Any, priority: int = 0) -> None:
        """As the local store's; the sums over several devices are NCCL's."""
        pairs = list(_pairs(key, value, "push"))
        with autograd.pause():
            several = [(k, values, [v.copy() for v in values]) for k, values in pairs if len(values) > 1]
            self._reduce([(values, sums) for _, values, sums in several])
            sums = {k: found[0] for k, _, found in several}
        super().push([k for k, _ in pairs], [sums.get(k, values[0]) for k, values in pairs])

    def pushpull(self, key: Any, value: Any, out: Any = None, priority: int = 0) -> None:
        """As the local store's: all keys in one group of NCCL calls."""
        if self._updater is not None:
            super().pushpull(key, value, out)
            return
        outs = dict(_pairs(key, out, "pushpull")) if out is not None else {}
        pairs = [(values, outs.get(k, values)) for k, values in _pairs(key, value, "pushpull")]
        alike = [(v, t) for v, t in pairs if len(v) > 1 and [a.device for a in v] == [a.device for a in t]]
        with autograd.pause():
            self._reduce(alike)
            for values, targets in pairs:
                if not any(values is v for v, _ in alike):
                    sums = [v.copy() for v in values]
                    self._reduce([(values, sums)])
                    for t in targets:
                        t[...] = sums[0].to_device(t.device)

    def _reduce(self, groups: list[tuple[list[NDArray], list[NDArray]]]) -> None:
        per_devices: dict[tuple[Device, ...], list[tuple[list[NDArray], list[NDArray]]]] = {}
        for values, targets in groups:
            if len(values) > 1:
                per_devices.setdefault(tuple([v.device for v in values]), []).append((values, targets))
        if groups and is_tracing():
            raise RuntimeError("kvstore: the store 'nccl' can't be part of a compiled step; call trainer.step outside of it")
        for devices, some in per_devices.items():
            if devices not in self._engines:
                self._engines[devices] = _engine(devices)
            self._engines[devices].all_reduce(some)


def _engine(devices: tuple[Device, ...]) -> Engine:
    kinds = {d.kind for d in devices}
    if len(set(devices)) < len(devices) or kinds not in ({"gpu"}, {"sim"}):
        raise ValueError(
            f"kvstore: the store 'nccl' sums over different GPUs, got {', '.join(map(str, devices))}; use the store 'device'"
        )
    return _Host(devices) if kinds == {"sim"} else _Nccl(devices, load())


class _Host:
    """The sums of simulated GPUs."""

    def __init__(self, devices: tuple[Device, ...]):
        self.devices = devices

    def all_reduce(self, groups: Sequence[tuple[Sequence[NDArray], Sequence[NDArray]]]) -> None:
        """See `Engine`."""
        for values, targets in groups:
            total = np.array(values[0].asnumpy())
            for v in values[1:]:
                total += v.asnumpy()
            for t in targets:
                t[...] = wrap(t.device.module.asarray(total), t.device)


def load() -> Any:
    """CuPy's NCCL module. Raises ImportError naming what to install where it is missing."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # CuPy warns of what the error below says
        try:
            from cupy.cuda import nccl
        except ImportError as error:
            raise ImportError(f"kvstore: the store 'nccl' needs CuPy and NCCL ({error}); {REMEDY}") from None
    if not nccl.available:
        raise ImportError(f"kvstore: the store 'nccl' needs NCCL, which can't be loaded; {REMEDY}")
    return nccl


REMEDY = "pip install 'hybrid-blocks[cuda13,nccl13]', or use the store 'device'"


class _Nccl:
    """NCCL over the GPUs of this process: a communicator and a stream for each."""

    def __init__(self, devices: tuple[Device, ...], nccl: Any):
        self.devices, self.nccl = devices, nccl
        self.communicators = nccl.NcclCommunicator.initAll([d.index for d in devices])
        self.streams = [Stream(d) for d in devices]

    def all_reduce(self, groups: Sequence[tuple[Sequence[NDArray], Sequence[NDArray]]]) -> None:
        """See `Engine`."""
        ready = [self._contiguous(values, targets) for values, targets in groups]
        for stream, device in zip(self.streams, self.devices):
            stream.wait(_now(device))
        self.nccl.groupStart()
        try:
            for values, targets in ready:
                for communicator, stream, v, t in zip(self.communicators, self.streams, values, targets):
                    source, target = v._data, t._data
                    with v.device.active():
                        communicator.allReduce(
                            source.data.ptr, target.data.ptr, source.size, TYPES[v.dtype.name], SUM, stream._handle.ptr)
        finally:
            self.nccl.groupEnd()
        for stream, device in zip(self.streams, self.devices):
            _wait_here(device, stream.record())
        for (_, made), (_, wanted) in zip(ready, groups):
            for m, t in zip(made, wanted):
                if m is not t:
                    t[...] = m
                else:
                    t._touch()
                    storage_of(t).finish_write()  # programs keep what they derive of weights

    def _contiguous(
        self, values: Sequence[NDArray], targets: Sequence[NDArray]
    ) -> tuple[list[NDArray], list[NDArray]]:
        """The arrays, with copies in place of those that don't lie row-major."""
        if values[0].dtype.name not in TYPES:
            raise TypeError(f"kvstore: NCCL sums {', '.join(TYPES)}, got {values[0].dtype}")
        plain = lambda a: a if a._data.flags.c_contiguous else a.copy()
        return [plain(v) for v in values], [plain(t) for t in targets]


def _now(device: Device) -> Event:
    """An event behind what the device's current stream has been given."""
    from ndarray import cuda

    return Event(device, cuda.event(device.index, None, False))


def _wait_here(device: Device, event: Event) -> None:
    """Let the device's current stream wait for an event."""
    from ndarray import cuda

    with device.active():
        cuda.current_stream(device.index).wait_event(event._handle)
