"""Generated CUDA C on the host: a module compiled by g++ against shim.h, and its kernels launched thread by thread.

Compiled modules are kept on disk (`jit.cache`). A launch runs in the calling thread; two launches of one module wait for
each other. ORDERS are three orders in which threads and blocks may run: a kernel whose result depends on the order lacks a
barrier.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import re
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache, lru_cache
from pathlib import Path

import numpy as np

from ndarray.settings import settings

from ..cache import DiskCache, key_of

__all__ = ["ORDERS", "NoCompiler", "SimModule", "SimulationError", "compiler", "load_module"]

ORDERS = {"forward": 0, "backward": 1, "shuffled": 2}
FLAGS = ("-std=c++17", "-O1", "-fPIC", "-shared", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math", "-fwrapv",
         "-fno-strict-aliasing", "-fno-exceptions", "-fno-rtti", "-fvisibility=hidden", "-fno-stack-protector", "-w")
_SYMBOL = re.compile(r'extern "C" __global__ void __launch_bounds__\([^)]*\) (\w+)\(')


class NoCompiler(RuntimeError):
    """There is no C++ compiler on this machine, which nd.sim needs."""


class SimulationError(RuntimeError):
    """A launch that a GPU would hang in, or refuse."""


@cache
def compiler() -> tuple[str, str]:
    """The path of the C++ compiler ($CXX, g++ or clang++) and its version. Raises NoCompiler if there is none."""
    for name in (os.environ.get("CXX", ""), "g++", "clang++"):
        path = shutil.which(name) if name else None
        if path:
            found = subprocess.run([path, "--version"], capture_output=True, text=True, check=False)
            if found.returncode == 0:
                return path, found.stdout.split("\n")[0]
    raise NoCompiler("nd.sim(i) runs generated CUDA code on the host and needs g++ or clang++, of which neither was found "
                     "(nor $CXX); install g++, or use nd.cpu(i)")


@cache
def _shim() -> str:
    return (Path(__file__).parent / "shim.h").read_text()


@cache
def _machine() -> tuple[str, ...]:
    """Flags for this machine: without its fused multiply-add, fmaf would be a call."""
    from .. import machine

    host = machine.host()
    return ("-mfma",) if host.fma and host.triple.startswith("x86_64") else ()


@lru_cache(maxsize=256)
def load_module(source: str, index: str = "long long", flags: tuple[str, ...] = ()) -> SimModule:
    """The module of a source text, compiled with sizes of C type `index`: from memory, the disk cache, or the compiler."""
    path, version = compiler()
    options = (*FLAGS, *_machine(), *flags, f"-DINDEX={index}")
    text = "\n".join([_shim(), source, *(f"HYBRID_SIMULATED({s})" for s in _SYMBOL.findall(source)), ""])
    folder = DiskCache(settings.cache_dir) if settings.cache_dir else None
    key = key_of({"simulated module": text, "compiler": f"{path} {version}", "options": " ".join(options)}) if folder else ""
    found = folder.load(key) if folder else None
    if found is None:
        library = _compile(path, options, text)
        if folder:
            folder.store(key, {"simulated": version}, library)
    else:
        library = found[1]
    return SimModule(library, _SYMBOL.findall(source))


def _compile(path: str, options: Sequence[str], text: str) -> bytes:
    with tempfile.TemporaryDirectory(prefix="hybrid-simulate-") as folder:
        target = os.path.join(folder, "module.so")
        done = subprocess.run([path, *options, "-x", "c++", "-", "-o", target], input=text, capture_output=True, text=True,
                              check=False)
        if done.returncode:
            raise RuntimeError(f"{path} refuses generated code:\n{done.stderr[:4000]}")
        return Path(target).read_bytes()


_STACKS = 1024 * (256 << 10)
_free: list[tuple[mmap.mmap, int]] = []


@contextmanager
def _stacks() -> Iterator[int]:
    """The address of memory for the stacks of a block's threads, which is only taken as far as it is used."""
    try:
        held = _free.pop()
    except IndexError:
        memory = mmap.mmap(-1, _STACKS, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_NORESERVE", 0))
        held = memory, ctypes.addressof(ctypes.c_char.from_buffer(memory))
    try:
        yield held[1]
    finally:
        _free.append(held)


class SimModule:
    """A loaded module: `launch(symbol, grid, block, shared_bytes, arguments, order)`."""

    def __init__(self, library: bytes, symbols: Sequence[str]):
        with tempfile.NamedTemporaryFile(prefix="hybrid-simulate-", suffix=".so") as file:  # mapped, so it may be removed
            file.write(library)
            file.flush()
            self._library = ctypes.CDLL(file.name)
        self.symbols = tuple(symbols)
        self._lock = threading.Lock()
        self._functions = {}
        for s in symbols:
            function = self._library[f"hybrid_simulate_{s}"]
            pointer, function.restype = ctypes.c_void_p, ctypes.c_char_p
            function.argtypes = [pointer, pointer, pointer, ctypes.c_long, ctypes.c_int, pointer]
            self._functions[s] = function

    def launch(self, symbol: str, grid: int, block: tuple[int, int], shared_bytes: int, arguments: np.ndarray,
               order: str = "forward") -> None:
        """Run `grid` blocks of `block` threads with `arguments`: an int64 vector of what the kernel takes, in order.

        Raises SimulationError where threads wait for others that never come.
        """
        if symbol not in self._functions:
            raise KeyError(f"no kernel {symbol!r} in this module; it has {', '.join(self.symbols)}")
        if arguments.dtype != np.int64 or arguments.ndim != 1 or not arguments.flags.c_contiguous:
            raise TypeError("the arguments of a launch are a contiguous int64 vector")
        sizes = np.array([grid, 1, *block], np.int32)
        with self._lock, _stacks() as stacks:
            problem = self._functions[symbol](arguments.ctypes.data, sizes.ctypes.data, sizes[2:].ctypes.data, shared_bytes,
                                              ORDERS[order], stacks)
        if problem:
            raise SimulationError(f"kernel {symbol}: {problem.decode()}")
