"""The host CPU as a `Target`; LLVM IR -> object file -> loaded code.

Objects are position-independent ELF (or Mach-O, COFF) files made by LLVM's code generator alone, with no IR passes
before it. They are plain bytes: they can be kept on disk and loaded by another process on an equal machine. Loaded code
stays for the life of the process, because worker threads and programs hold bare addresses into it.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import cache, lru_cache
from typing import Any

import llvmlite
import llvmlite.binding as llvm

from .target import Target

__all__ = ["Library", "aarch64", "assembly", "emit_object", "host", "load", "restricted", "version"]

_lock = threading.RLock()  # of the loader
_numbers = itertools.count()


def _after_fork() -> None:
    global _lock
    _lock = threading.RLock()  # perhaps another thread held it


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


@cache
def _initialize() -> None:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()


def version() -> str:
    """Of what generates machine code, for cache keys."""
    return f"llvmlite {llvmlite.__version__}, LLVM {'.'.join(map(str, llvm.llvm_version_info))}"


@lru_cache(maxsize=1)
def host() -> Target:
    """This machine. Vectors are as wide as its registers: LLVM's tuning towards 256 bits is switched off."""
    _initialize()
    triple = llvm.get_process_triple()
    features = llvm.get_host_cpu_features()
    cpu = llvm.get_host_cpu_name()
    l1, l2, l3 = _cache_sizes()
    sizes: dict[str, Any] = {"l1": l1, "l2": l2, "l3": l3}
    if triple.startswith(("x86_64", "amd64", "i686")):
        text = features.flatten() + ",-prefer-256-bit"
        wide = all(features.get(f) for f in ("avx512f", "avx512vl", "avx512bw", "avx512dq"))
        middle = features.get("avx2")
        return Target(triple, cpu, text, 64 if wide else 32 if middle else 16, 32 if wide else 16,
                      fma=bool(features.get("fma")), masked=bool(wide or middle), half=bool(features.get("f16c")),
                      halves=bool(wide) and cpu == "znver4", ways=4 if wide and features.get("avx512vnni") else 2, **sizes)
    return Target(triple, cpu, features.flatten(), 16, 32, fma=True, masked=False, **sizes)


def restricted(level: str) -> Target:
    """A lesser x86-64 machine whose code runs on this one: "avx2" (256-bit vectors, FMA) or "sse" (SSE4.2, no FMA)."""
    machine = host()
    if level == "avx2":
        return replace(machine, cpu="haswell", features="", vector_bytes=32, registers=16, fma=True, masked=True, halves=False,
                       ways=2)
    if level == "sse":
        return replace(machine, cpu="x86-64-v2", features="", vector_bytes=16, registers=16, fma=False, masked=False,
                       halves=False, half=False, ways=2)
    raise ValueError(f"unknown level {level!r}: 'avx2' or 'sse'")


def aarch64() -> Target:
    """A 64-bit Arm machine with NEON, as far as code for it can be generated anywhere: it runs on such a machine only."""
    _initialize()
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    return Target("aarch64-unknown-linux-gnu", "cortex-a72", "+neon", 16, 32, fma=True, masked=False)


def _cache_sizes() -> tuple[int, int, int]:
    """L1 data, L2 and the share of one core in L3, in bytes; modest guesses where the system doesn't say."""
    sizes = {1: 32 << 10, 2: 1 << 20, 3: 4 << 20}
    root = "/sys/devices/system/cpu/cpu0/cache"
    try:
        for entry in os.listdir(root):
            if not entry.startswith("index"):
                continue
            with open(f"{root}/{entry}/type") as file:
                if file.read().strip() == "Instruction":
                    continue
            with open(f"{root}/{entry}/level") as file:
                level = int(file.read())
            with open(f"{root}/{entry}/size") as file:
                text = file.read().strip()
            with open(f"{root}/{entry}/shared_cpu_list") as file:
                sharers = _count(file.read())
            size = int(text[:-1]) << {"K": 10, "M": 20, "G": 30}[text[-1]]
            sizes[level] = size // sharers if level == 3 else size
    except (OSError, ValueError, KeyError):
        pass
    return sizes[1], sizes[2], sizes[3]


def _count(cpus: str) -> int:
    """How many numbers a list such as 0-3,8 has."""
    total = 0
    for part in cpus.strip().split(","):
        first, _, last = part.partition("-")
        total += int(last or first) - int(first) + 1
    return max(1, total)


_idle: dict[tuple[Target, int], list[Any]] = {}  # target machines that no thread is using


@contextlib.contextmanager
def _target_machine(target: Target, level: int = 1) -> Iterator[Any]:
    """A target machine for the calling thread alone."""
    try:
        machine = _idle.setdefault((target, level), []).pop()
    except IndexError:
        machine = _new_machine(target, level)
    yield machine
    _idle[target, level].append(machine)


def _new_machine(target: Target, level: int = 1) -> Any:
    _initialize()
    return llvm.Target.from_triple(target.triple).create_target_machine(
        cpu=target.cpu, features=target.features, opt=level, reloc="pic", codemodel="small"
    )


def _parse(text: str, machine: Any) -> Any:
    module = llvm.parse_assembly(text, llvm.create_context())  # of its own: threads can't share one
    module.triple = machine.triple
    module.data_layout = str(machine.target_data)
    module.verify()  # the code generator crashes on malformed IR
    return module


def emit_object(text: str, target: Target, level: int = 1) -> bytes:
    """Compile LLVM IR to the bytes of an object file; several threads may at once. `level`: of optimization; 0 is five times
    as fast to compile.

    Raises RuntimeError with LLVM's message for invalid IR.
    """
    library = llvm.ffi.lib
    with _target_machine(target, level) as machine:
        module = _parse(text, machine)
        emit = library.LLVMPY_TargetMachineEmitToMemory
        emit = getattr(emit, "_cfn", emit)  # without llvmlite's lock, which would keep other threads from generating code
        with llvm.ffi.OutputString() as message:
            memory = emit(machine, module, 1, message)
            if not memory:
                raise RuntimeError(str(message))
        try:
            return ctypes.string_at(library.LLVMPY_GetBufferStart(memory), library.LLVMPY_GetBufferSize(memory))
        finally:
            library.LLVMPY_DisposeMemoryBuffer(memory)


def assembly(text: str, target: Target | None = None) -> str:
    """The machine code of LLVM IR as readable assembly."""
    with _target_machine(target or host()) as machine:
        machine.set_asm_verbosity(False)
        return machine.emit_assembly(_parse(text, machine))


class Library:
    """Loaded code. `address(name)` is the address of a function or variable that the object defines."""

    def __init__(self, name: str):
        self.name = name
        self._addresses: dict[str, int] = {}

    def address(self, symbol: str) -> int:
        """The symbol's address. Raises KeyError where the object doesn't define it."""
        found = self._addresses.get(symbol)
        if found is None:
            with _lock:
                try:
                    tracker = _compiler().lookup(self.name, symbol)
                except RuntimeError as error:
                    raise KeyError(f"library {self.name} has no symbol {symbol!r}: {error}") from error
                found = self._addresses[symbol] = tracker[symbol]
                tracker.detach()
        return found


@lru_cache(maxsize=1)
def _compiler() -> Any:
    _initialize()
    compiler = llvm.create_lljit_compiler(_new_machine(host()), use_jit_link=True)
    compiler._owned = True  # never torn down: workers may still be in its code while the process exits
    return compiler


def load(*objects: bytes) -> Library:
    """Map object files into the process as one library; C library symbols are found in the process.

    Raises RuntimeError with the linker's message for bytes that aren't an object for this machine.
    """
    with _lock:
        name = f"hybrid{next(_numbers)}"
        builder = llvm.JITLibraryBuilder()
        for data in objects:
            builder.add_object_img(data)
        builder.add_current_process()
        builder.link(_compiler(), name).detach()
        return Library(name)
