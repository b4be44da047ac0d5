"""A stand-in for CuPy whose GPUs' memory is the host's: arrays of `ndarray.simulated`, and the parts of ``cupy.cuda`` that
`ndarray.cuda` uses, which note in `LOG` how they are called. It checks the calls, not what a driver does."""

from __future__ import annotations

import ctypes
import re
from types import SimpleNamespace
from typing import Any

import numpy as np

from jit.cuda.simulate import load_module
from ndarray import simulated

LOG: list[tuple] = []
GPUS = 2
LIMIT: dict[int, int] = {}


class Stream:
    """Work is done at once, so that a stream only notes what it is told."""

    null: Stream
    stack: list[Stream]

    def __init__(self, null: bool = False, non_blocking: bool = False, ptds: bool = False, priority: int = 0):
        self.ptr, self.device_id, self.non_blocking, self.priority = id(self), simulated.current(), non_blocking, priority
        self.done, self.captured = True, None
        LOG.append(("stream", self.device_id, non_blocking))

    def __enter__(self) -> Stream:
        Stream.stack.append(self)
        return self

    def __exit__(self, *_: object) -> None:
        assert Stream.stack.pop() is self

    def record(self, event: Any = None) -> Any:
        event = Event() if event is None else event
        event.record(self)
        return event

    def wait_event(self, event: Event) -> None:
        assert isinstance(event, Event)
        LOG.append(("wait", self.ptr, event.stream))

    def synchronize(self) -> None:
        simulated.refuse_in_capture("a stream was waited for")
        LOG.append(("synchronize", self.ptr))

    def begin_capture(self, mode: int | None = None) -> None:
        assert self.non_blocking and mode == 1
        self.context, self.captured = simulated.capture(), []
        self.context.__enter__()

    def end_capture(self) -> Graph:
        self.context.__exit__(None, None, None)
        captured, self.captured = self.captured, None
        return Graph(captured)


class Graph:
    """What was captured, and how often it is done again is in the log."""

    def __init__(self, work: list):
        self.work = work

    def launch(self, stream: Any = None) -> None:
        LOG.append(("graph", stream.ptr))
        with simulated.capture():
            for each in self.work:
                each()


def enqueue(stream: int, work: Any) -> None:
    """Do something, or let the stream that is being captured keep it."""
    current = Stream.stack[-1]
    assert stream in (0, current.ptr), "not the current stream"
    work() if current.captured is None else current.captured.append(work)


class Event:
    """Has happened when it is recorded."""

    def __init__(self, block: bool = False, disable_timing: bool = False, interprocess: bool = False):
        self.timing, self.stream, self.done, self.device_id = not disable_timing, None, False, simulated.current()

    def record(self, stream: Any = None) -> None:
        self.stream, self.done = stream.ptr, True
        LOG.append(("record", self.stream))

    def synchronize(self) -> None:
        assert self.done
        simulated.refuse_in_capture("an event was waited for")


class Device:
    """A GPU as CuPy describes it."""

    def __init__(self, device: int | None = None):
        self.id = simulated.current() if device is None else device
        self.compute_capability = "90"
        self.attributes = {"MultiProcessorCount": 132, "MaxSharedMemoryPerBlockOptin": 232448}


KERNELS: dict[int, tuple[Any, str, int]] = {}
"""The loaded kernels by their addresses: (module, symbol, number of arguments)."""


class Module:
    """A module; its "cubin" is its source, which the simulator compiles, or nothing that could run."""

    def load(self, cubin: bytes) -> None:
        assert isinstance(cubin, bytes)
        index, _, self.source = cubin.decode().partition("\n")
        self.module = None if cubin.startswith(b"\x7fELF") else load_module(self.source, index)

    def get_function(self, name: str) -> Any:
        address = 4096 + len(KERNELS)
        taken = re.search(rf"\b{name}\(([^)]*)\)", self.source)
        KERNELS[address] = self.module, name, 3 if taken is None else taken[1].count(",") + 1
        return SimpleNamespace(ptr=address)


def set_device(index: int) -> None:
    """Make a GPU current."""
    assert 0 <= index < GPUS, "cudaErrorInvalidDevice"
    simulated._state.device = index


def copy_memory(to: int, source: int, nbytes: int, kind: int, stream: int) -> None:
    """``memcpyAsync``."""
    enqueue(stream, lambda: ctypes.memmove(to, source, nbytes))


def launch_kernel(*args: int) -> None:
    """``launchKernel``: notes its arguments, of which there are eleven, and the values that parameters point to."""
    assert len(args) == 11
    assert all(isinstance(a, int) for a in args)
    module, symbol, count = KERNELS[args[0]]
    parameters = (ctypes.c_int64 * count).from_address(args[9])
    words = np.array([ctypes.c_int64.from_address(p).value for p in parameters], np.int64)
    LOG.append(("launch", *args[:9], words.tolist()))
    if module is not None:
        assert args[2:4] == (1, 1) and args[6] == 1
        enqueue(args[8], lambda: module.launch(symbol, args[1], (args[4], args[5]), args[7], words))


class MemoryPointer(simulated.MemoryPointer):
    """With CuPy's copies."""

    __slots__ = ()

    def copy_from_host_async(self, mem: int, size: int, stream: Any = None) -> None:
        LOG.append(("upload", size, stream.ptr))
        ctypes.memmove(self.ptr, mem, size)

    def copy_to_host_async(self, mem: int, size: int, stream: Any = None) -> None:
        LOG.append(("download", size, stream.ptr))
        ctypes.memmove(mem, self.ptr, size)

    def copy_from_device_async(self, src: Any, size: int, stream: Any = None) -> None:
        LOG.append(("peer", src.device_id, self.device_id, stream.ptr))
        ctypes.memmove(self.ptr, src.ptr, size)


class Late:
    """What a name means on the device that is current when it is called or read."""

    def __init__(self, *path: str):
        self.path = path

    def found(self) -> Any:
        part = simulated.module(simulated.current())
        for name in self.path:
            part = getattr(part, name)
        return part

    def __call__(self, *args: Any, **options: Any) -> Any:
        return self.found()(*args, **options)

    def __getattr__(self, name: str) -> Any:
        return Late(*self.path, name)

    def __getitem__(self, key: Any) -> Any:
        return self.found()[key]


class Cupy:
    """The module ``cupy``: functions for the current device."""

    ndarray = simulated.SimArray

    def __init__(self) -> None:
        self.errors = {"linalg": "ignore"}
        pool = SimpleNamespace(
            used_bytes=lambda: simulated.pool(simulated.current()).used, free_bytes=lambda: 0, free_all_blocks=lambda: None,
            get_limit=lambda: LIMIT.get(simulated.current(), 0), set_limit=self.set_limit)
        pinned = SimpleNamespace(n_free_blocks=lambda: 3, free_all_blocks=lambda: None)
        self.get_default_memory_pool, self.get_default_pinned_memory_pool = lambda: pool, lambda: pinned
        runtime = SimpleNamespace(
            getDeviceCount=lambda: GPUS, getDevice=simulated.current, setDevice=set_device, memcpyAsync=copy_memory,
            deviceSynchronize=lambda: LOG.append(("device", simulated.current())), streamCaptureModeThreadLocal=1,
            memGetInfo=lambda: (1 << 30, 1 << 31))
        self.cuda = SimpleNamespace(
            runtime=runtime, Stream=Stream, Event=Event, Device=Device, function=SimpleNamespace(Module=Module),
            get_current_stream=lambda: Stream.stack[-1], get_elapsed_time=lambda a, b: 2.5,
            alloc_pinned_memory=lambda size: LOG.append(("pinned", size)) or bytearray(size))

    def set_limit(self, size: int | None = None, fraction: float | None = None) -> None:
        LIMIT[simulated.current()] = size or 0
        simulated.pool(simulated.current()).total = size or simulated.UNLIMITED

    def seterr(self, **errors: str) -> dict[str, str]:
        """``cupyx.seterr``."""
        before = dict(self.errors)
        self.errors.update(errors)
        return before

    def __getattr__(self, name: str) -> Any:
        found = getattr(simulated.module(0), name)
        return Late(name) if not isinstance(found, type) and not isinstance(found, float) else found


def install(patch: Any) -> Cupy:
    """Let `ndarray.cuda` use the stand-in for the time of a test."""
    from ndarray import cuda
    from ndarray.random import generator

    fake = Cupy()
    patch.setattr(generator, "_states", dict(generator._states))  # those of the stand-in's GPUs are forgotten
    Stream.stack = []
    Stream.stack.append(Stream(null=True))
    driver = SimpleNamespace(launchKernel=launch_kernel, funcSetAttribute=lambda *args: LOG.append(("attribute", *args)))
    patch.setattr(cuda, "cupy", lambda: fake)
    patch.setattr(cuda, "_errors", lambda: fake)
    patch.setattr(cuda, "_driver", lambda: driver)
    patch.setattr(cuda, "_used", set())
    patch.setattr(simulated, "MemoryPointer", MemoryPointer)
    patch.setattr(simulated, "exhausted", lambda kind, index, error: error)  # as bare as CuPy's
    cuda._check.cache_clear()
    cuda.module.cache_clear()
    LOG.clear()
    KERNELS.clear()
    return fake


def install_compiler(patch: Any) -> None:
    """Let programs for ``gpu(i)`` be compiled by the simulator's compiler, and forgotten behind the test."""
    from hybrid import backend
    from jit.cuda import driver, gpu

    patch.setattr(gpu, "cached_cubin", lambda source, arch, index: SimpleNamespace(image=f"{index}\n{source}".encode()))
    patch.setattr(gpu, "version", lambda: "stand-in")
    patch.setattr(driver, "_drivers", {})
    patch.setattr(backend, "_backends", {k: v for k, v in backend._backends.items() if not k.startswith("cuda:")})
