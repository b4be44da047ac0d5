"""CUDA C -> cubin by NVRTC, through CuPy's low-level binding: works on a machine without a GPU.

`compile_cubin` compiles a module for one architecture and tells what each kernel uses; `cached_cubin` asks the disk cache
first. Threads may compile at once: NVRTC runs outside of Python's lock. Floating-point arithmetic is as written: nothing is
contracted to fused multiply-adds, nothing flushed to zero, division and square root round correctly.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from ndarray.settings import settings

from ..cache import DiskCache, key_of
from .printer import ABI_VERSION

__all__ = ["CompileError", "Cubin", "Usage", "cached_cubin", "compile_cubin", "ptx", "version"]

OPTIONS = ("--std=c++17", "-fmad=false", "-ftz=false", "-prec-div=true", "-prec-sqrt=true", "-default-device", "-dw")
_USAGE = re.compile(r"Used (\d+) registers")


class CompileError(RuntimeError):
    """NVRTC isn't there, or refuses a module."""


@dataclass(frozen=True)
class Usage:
    """What a kernel takes of a multiprocessor: registers a thread, bytes of a thread's stack (arrays and spilled registers),
    bytes of spilled registers stored and loaded, and static shared memory of a block."""

    registers: int
    stack: int
    spill_stores: int
    spill_loads: int
    shared: int


@dataclass(frozen=True)
class Cubin:
    """A compiled module: its ELF image, the compiler's log, and what each kernel uses."""

    image: bytes
    log: str
    usage: dict[str, Usage]


@cache
def _binding() -> Any:
    try:
        from cupy_backends.cuda.libs import nvrtc

        nvrtc.getVersion()
    except Exception as error:  # a missing module or library, in whatever way
        raise CompileError(f"CUDA kernels are compiled by NVRTC through CuPy, which can't be used here ({error}); "
                           "install the extra [cuda13]") from error
    return nvrtc


def version() -> str:
    """NVRTC's version, for cache keys. Raises CompileError where it is missing."""
    return ".".join(map(str, _binding().getVersion()))


def compile_cubin(source: str, arch: str, index: str = "int", options: Sequence[str] = ()) -> Cubin:
    """Compile a module for `arch` ("sm_90"), with sizes of C type `index`. Raises CompileError with NVRTC's log."""
    image, log = _compile(source, (f"-arch={arch}", f"-DINDEX={index}", "--ptxas-options=-v", *options), "getCUBIN")
    return Cubin(bytes(image) + b"\0", log, _usage(log))  # CuPy cuts the last byte off, as if it ended a string


def ptx(source: str, arch: str, index: str = "int", options: Sequence[str] = ()) -> str:
    """The virtual assembly of a module, to read; `arch` is "compute_90"."""
    text, _ = _compile(source, (f"-arch={arch}", f"-DINDEX={index}", *options), "getPTX")
    return text if isinstance(text, str) else bytes(text).decode()


def cached_cubin(source: str, arch: str, index: str = "int") -> Cubin:
    """As `compile_cubin`, kept on disk under source, options, version of NVRTC, architecture and generator."""
    folder = DiskCache(settings.cache_dir) if settings.cache_dir else None
    if folder is None:
        return compile_cubin(source, arch, index)
    key = key_of({"CUDA module": source, "options": " ".join((*OPTIONS, f"-DINDEX={index}")), "NVRTC": version(),
                  "architecture": arch, "generator": ABI_VERSION})
    found = folder.load(key)
    if found is not None:
        description, image = found
        return Cubin(image, description["log"], {k: Usage(*u) for k, u in description["usage"].items()})
    made = compile_cubin(source, arch, index)
    usage = {k: [u.registers, u.stack, u.spill_stores, u.spill_loads, u.shared] for k, u in made.usage.items()}
    folder.store(key, {"log": made.log, "usage": usage}, made.image)
    return made


def _compile(source: str, options: Sequence[str], result: str) -> tuple[Any, str]:
    nvrtc = _binding()
    program = nvrtc.createProgram(source, "module.cu", (), ())
    try:
        try:
            nvrtc.compileProgram(program, (*OPTIONS, *options))
        except nvrtc.NVRTCError as error:
            raise CompileError(f"NVRTC refuses generated code ({error}):\n{nvrtc.getProgramLog(program)[:4000]}") from error
        return getattr(nvrtc, result)(program), nvrtc.getProgramLog(program)
    finally:
        nvrtc.destroyProgram(program)


def _usage(log: str) -> dict[str, Usage]:
    """What --ptxas-options=-v tells of each kernel."""
    found: dict[str, Usage] = {}
    for part in re.split(r"Compiling entry function ", log)[1:]:
        number = lambda text, part=part: int(m[1]) if (m := re.search(text, part)) else 0
        found[part.split("'")[1]] = Usage(number(r"Used (\d+) registers"), number(r"(\d+) bytes stack frame"),
                                          number(r"(\d+) bytes spill stores"), number(r"(\d+) bytes spill loads"),
                                          number(r"(\d+) bytes smem"))
    return found
