"""Memory of devices: how much there is, what holds it, and the error that tells so when it does not suffice."""

from __future__ import annotations

import gc
import re
from collections import Counter
from typing import Any

from .array import NDArray
from .device import Device, DeviceError, OutOfMemoryError, current_device
from .device import device as _device

__all__ = ["empty_cache", "gpu_memory_info", "limit_memory", "memory_stats"]

_SHOWN = 8


def _place(device: Device | str | int | None, name: str) -> Device:
    place = Device("gpu", device) if isinstance(device, int) else _device(device)
    if place.kind == "cpu":
        raise DeviceError(f"{name}: expected a GPU, such as nd.gpu(0), got {place}, whose memory is the process's")
    return place


def gpu_memory_info(device_id: Device | str | int = 0) -> tuple[int, int]:
    """(free, total) bytes of a GPU, given by its number or as a device. Raises DeviceError where it can't be used.

    >>> nd.limit_memory(nd.sim(7), 1 << 20)
    >>> x = nd.zeros((1024,), device=nd.sim(7))
    >>> nd.gpu_memory_info(nd.sim(7))
    (1044480, 1048576)
    """
    stats = memory_stats(_place(device_id, "gpu_memory_info"))
    return stats["free"], stats["total"]


def memory_stats(device: Device | str | None = None) -> dict[str, int]:
    """What holds a GPU's memory, in bytes: `total` and `free` of the device, `used` by arrays and programs of this process,
    `cached` by the pool for later, the pool's `limit` (0: none), and the `arrays` that are known as such.

    >>> x = nd.zeros((1024,), device=nd.sim(6))
    >>> nd.memory_stats(nd.sim(6))["arrays"]
    4096
    """
    place = _place(current_device() if device is None else device, "memory_stats")
    if place.kind == "sim":
        from .simulated import pool

        found = pool(place.index)
        stats = {"free": found.total - found.used, "total": found.total, "used": found.used, "cached": 0, "limit": found.total,
                 "peak": found.peak, "allocations": found.count}
    else:
        from . import cuda

        stats = cuda.memory(place.index)
    return {**stats, "arrays": sum(size for size, _ in _live(place))}


def empty_cache(device: Device | str | None = None) -> None:
    """Give memory that is kept for later arrays back to the driver, for other processes.

    >>> nd.empty_cache(nd.sim(0))
    """
    place = _place(current_device() if device is None else device, "empty_cache")
    if place.kind == "gpu":
        from . import cuda

        cuda.empty_cache(place.index)


def limit_memory(device: Device | str | int, nbytes: int) -> None:
    """Let this process hold no more than so many bytes of a GPU (0: no limit). It is the size of a ``sim(i)``.

    >>> nd.limit_memory(nd.sim(7), 1 << 20)
    """
    place = _place(device, "limit_memory")
    if isinstance(nbytes, bool) or not isinstance(nbytes, int) or nbytes < 0:
        raise ValueError(f"limit_memory: nbytes: expected an integer of at least 0, got {nbytes!r}")
    if place.kind == "sim":
        from .simulated import UNLIMITED, pool

        pool(place.index).total = nbytes or UNLIMITED
    else:
        from . import cuda

        cuda.limit(place.index, nbytes)


def _live(place: Device) -> list[tuple[int, NDArray]]:
    """(bytes, array) of the allocations on a device that arrays hold, each once; the largest first."""
    found: dict[int, tuple[int, NDArray]] = {}
    for a in gc.get_objects():
        if issubclass(type(a), NDArray):  # isinstance would ask strange objects of other libraries for their class
            data = getattr(a, "_data", None)
            if data is None or getattr(a, "_device", None) is not place or hasattr(data, "concretize"):
                continue
            memory = data.data.mem
            size, _ = found.get(memory.ptr, (0, a))
            if memory.size > size:
                found[memory.ptr] = int(memory.size), a
    return sorted(found.values(), key=lambda pair: -pair[0])


def _bytes(n: float) -> str:
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if n < 1024 or unit == "GiB":
            return f"{n:,.0f} {unit}" if unit == "bytes" else f"{n:,.1f} {unit}"
        n /= 1024
    return ""


def exhausted(kind: str, index: int, error: BaseException) -> OutOfMemoryError:
    """The error for an allocation that failed: what was asked for, what holds the memory, and what would fit."""
    if isinstance(error, OutOfMemoryError):
        return error
    place = Device(kind, index)
    match = re.search(r"allocating ([\d,]+) bytes", str(error))
    asked = int(match[1].replace(",", "")) if match else None
    try:
        stats = memory_stats(place)
        live = _live(place)
    except Exception:  # the report must not hide the failure
        return OutOfMemoryError(f"{place} is out of memory: {error}")
    held = stats["arrays"]
    rest = max(stats["used"] - held, 0)
    fits = stats["free"] + stats["cached"]
    if stats["limit"]:
        fits = min(fits, max(stats["limit"] - stats["used"], 0))
    wanted = "an allocation" if asked is None else _bytes(asked)
    lines = [
        f"{place} is out of memory: {wanted} asked for, at most {_bytes(fits)} would fit ({_bytes(stats['total'])} in all)",
        f"  arrays hold {_bytes(held)}, arenas and others {_bytes(rest)}; the pool keeps {_bytes(stats['cached'])} free",
    ]
    alike = Counter((a.dtype.name, tuple(a.shape), size) for size, a in live)
    where: dict[tuple, str] = {}
    for size, a in live:
        if a._storage is not None and a._storage.writer:
            where[a.dtype.name, tuple(a.shape), size] = f", last written at {a._storage.where()}"
    for key, n in sorted(alike.items(), key=lambda item: -item[0][2] * item[1])[:_SHOWN]:
        dtype, shape, size = key
        lines.append(f"  {n} x {dtype}{list(shape)}: {_bytes(size * n)}{where.get(key, '')}")
    lines.append("  use a smaller batch, nd.autograd.checkpoint, a narrower dtype or another device; drop arrays")
    return OutOfMemoryError("\n".join(lines))


def failed(device: Device, error: BaseException) -> Any:
    """`exhausted` for a device; the error itself for the CPU."""
    return error if device.kind == "cpu" else exhausted(device.kind, device.index, error)
