"""Streams and events: order of work on a device, beside other work.

A device does what it is given in order, stream by stream. Eager operations go to the thread's current stream (at first the
default one, which waits for all others that were not made here). On the CPU and on ``sim(i)`` work is done when a call returns,
so that streams change nothing there; code that uses them runs everywhere.
"""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, ExitStack
from typing import Any

import numpy as np

from .array import NDArray, wrap
from .device import Device, current_device, num_gpus
from .device import device as _device

__all__ = ["Event", "Stream", "copy_async", "pin_memory"]


class Event:
    """A point in the work of a stream, made by ``stream.record()`` or `copy_async`."""

    __slots__ = ("_handle", "_time", "device")

    def __init__(self, device: Device, handle: Any):
        self.device, self._handle, self._time = device, handle, time.perf_counter()

    @property
    def done(self) -> bool:
        """Whether the stream has come past it."""
        return self._handle is None or bool(self._handle.done)

    def synchronize(self) -> None:
        """Wait until the stream has come past it."""
        if self._handle is not None:
            self._handle.synchronize()
        elif self.device.kind == "sim":
            _refuse_in_capture()

    def elapsed(self, later: Event) -> float:
        """Milliseconds from this event to a later one, both recorded with ``timing=True``."""
        if self._handle is None or later._handle is None:
            return (later._time - self._time) * 1e3
        from . import cuda

        return cuda.milliseconds(self._handle, later._handle)

    def __repr__(self) -> str:
        return f"Event({self.device}, {'done' if self.done else 'pending'})"


class Stream:
    """A queue of work of a device (the current one). ``with stream:`` makes it the thread's current stream there.

    Work on arrays that another stream computes must wait for that: ``stream.wait(other.record())``. The same holds before
    memory is let go that another stream still uses. Raises `DeviceError` where the device can't be used.

    >>> import ndarray as nd
    >>> stream = nd.Stream(nd.sim(0))
    >>> with stream:
    ...     x = nd.ones(3, device=nd.sim(0)) + 1
    >>> stream.synchronize()
    >>> x.tolist()
    [2.0, 2.0, 2.0]
    """

    __slots__ = ("_entered", "_handle", "device")

    def __init__(self, device: Device | str | None = None, priority: int = 0):
        self.device: Device = current_device() if device is None else _device(device)
        self._handle: Any = None
        self._entered: list[ExitStack] = []
        if self.device.kind == "gpu":
            from . import cuda

            self._handle = cuda.stream(self.device.index, priority)

    def __enter__(self) -> Stream:
        stack = ExitStack()
        if self._handle is not None:
            stack.enter_context(self.device.active())
            stack.enter_context(self._handle)
        self._entered.append(stack)
        return self

    def __exit__(self, *error: object) -> None:
        self._entered.pop().close()

    def record(self, timing: bool = False) -> Event:
        """An event behind what the stream has been given so far."""
        if self._handle is None:
            return Event(self.device, None)
        from . import cuda

        return Event(self.device, cuda.event(self.device.index, self._handle, timing))

    def wait(self, event: Event) -> None:
        """Let what comes from now on begin when the event has happened. The host doesn't wait."""
        if event._handle is None:
            return
        if self._handle is None:
            event.synchronize()
        else:
            with self.device.active():
                self._handle.wait_event(event._handle)

    def synchronize(self) -> None:
        """Wait until everything that the stream has been given is done."""
        if self._handle is not None:
            with self.device.active():
                self._handle.synchronize()
        elif self.device.kind == "sim":
            _refuse_in_capture()

    @property
    def done(self) -> bool:
        """Whether everything that the stream has been given is done."""
        return self._handle is None or bool(self._handle.done)

    def __repr__(self) -> str:
        return f"Stream({self.device})"


def _refuse_in_capture() -> None:
    from .simulated import refuse_in_capture

    refuse_in_capture("the host waited for a stream")


def on_stream(stream: Any) -> AbstractContextManager[Any]:
    """The context of a stream given as an argument; an empty one for None."""
    return ExitStack() if stream is None else stream


def pin_memory(x: NDArray) -> NDArray:
    """A copy of an array in page-locked memory of the host, from and to which GPUs copy asynchronously (`copy_async`). Where
    there is no GPU, the array itself.

    >>> import ndarray as nd
    >>> nd.pin_memory(nd.ones(2)).device
    cpu(0)
    """
    if x._device.kind != "cpu":
        raise ValueError(f"pin_memory: x: expected an array on the CPU, got one on {x._device}")
    if not num_gpus():
        return x
    from . import cuda

    values = x._host("pin_memory()")
    pinned = cuda.pinned_empty(values.shape, values.dtype)
    pinned[...] = values
    return wrap(pinned, x._device)


def copy_async(source: NDArray, target: NDArray, stream: Stream | None = None) -> Event:
    """Write the values of an array into another of the same shape and dtype, on any device, without waiting; returns the event
    behind the copy.

    Until it is done, neither array may be written, nor `target` read, but by the stream (of the GPU's current one). Between a
    GPU and memory that is not pinned (`pin_memory`) the host may wait after all. Raises ValueError where shapes or dtypes
    differ.

    >>> import ndarray as nd
    >>> x, y = nd.ones(2), nd.zeros(2, device=nd.sim(0))
    >>> nd.copy_async(x, y).synchronize()
    >>> y.tolist()
    [1.0, 1.0]
    """
    if source.shape != target.shape or source.dtype != target.dtype:
        raise ValueError(f"copy_async: target: expected {source.dtype} of shape {source.shape} as source, got {target.dtype} of "
                         f"shape {target.shape}")
    values, place = source._concrete("copy_async()"), target._concrete("copy_async()")
    target._touch()
    try:
        handle = None
        kinds = source._device.kind, target._device.kind
        if kinds == ("cpu", "gpu") or kinds == ("gpu", "cpu"):
            from . import cuda

            on = None if stream is None else stream._handle
            if kinds[0] == "cpu":
                handle = cuda.upload(values, place, on)
            elif place.flags.c_contiguous:
                handle = cuda.download(values, place, on)
            else:
                place[...] = values.get()
        elif kinds == ("cpu", "cpu"):
            np.copyto(place, values)
        else:
            with on_stream(stream):
                moved = source.detach().to_device(target._device)._data
                with target._device.active():
                    place[...] = moved
    finally:
        target._storage.finish_write()  # type: ignore[union-attr]
    return Event(target._device, handle)
