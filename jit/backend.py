"""The native backend: compiles a graph to a program, through the memory of this process and the cache on disk.

Three stores, asked in this order:

1. the recipe of the graph on disk (key: graph hash, machine, versions): nothing is lowered or generated, and where the graph
   was met before its passes, they don't run;
2. kernels that this process already has in memory, whatever graph they were made for;
3. the code generator, whose object goes to disk.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import accumulate, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import llvmlite

from hybrid.backend import Options, unchanged
from hybrid.graph import Graph
from hybrid.passes import absorb, as_usual
from ndarray.settings import settings

from . import machine, runtime
from .cache import DiskCache, key_of
from .cuts import CutProgram, split
from .foresight import Foresight, foresee
from .program import CompiledProgram, arenas
from .recipe import Recipe
from .target import Target

if TYPE_CHECKING:  # what lowers and generates is imported where nothing is found on disk
    from .generate import Generation
    from .loopir import Kernel

__all__ = ["NativeBackend", "Statistics", "backend"]

log = logging.getLogger("hybrid.jit")


@dataclass
class Statistics:
    """What a backend has done so far in this process."""

    compilations: int = 0  # graphs lowered and generated
    kernels: int = 0  # kernels generated
    disk_hits: int = 0  # graphs whose recipe came from disk
    seconds: float = 0.0  # spent in compile()


@dataclass
class _Kernels:
    """Native kernels of this process: by structure, and by (object digest, symbol)."""

    addresses: dict[tuple[str, str], int] = field(default_factory=dict)
    known: dict[tuple[Kernel, Target], tuple[str, str]] = field(default_factory=dict)
    libraries: dict[str, machine.Library] = field(default_factory=dict)

    def add_objects(self, digest: str, objects: Sequence[bytes], symbols: Sequence[str]) -> None:
        library = self.libraries.get(digest)
        if library is None:
            library = self.libraries[digest] = machine.load(*objects)
        for s in symbols:
            self.addresses[digest, s] = library.address(s)


class NativeBackend:
    """See `hybrid.backend.Backend`."""

    name = "jit"

    def __init__(self, target: Target | None = None):
        self.target = target or machine.host()
        self.statistics = Statistics()
        self._kernels = _Kernels()
        self._lock = threading.RLock()

    def prepare(self) -> None:
        """Import what lowers and generates, and make the runner that all programs share."""
        from . import assemble, attention, attention_gradient, contract, convolution, generate, lower, scatter  # noqa: F401

        generator_stamp()
        _make_runner()

    def foresee(self, described: Mapping[str, Any]) -> Foresight | None:
        """Memory and kernels for a first call of this description, while it is traced. See `jit.foresight`."""
        return foresee(described, arenas.free, self._preload)

    def _preload(self, digests: Sequence[str]) -> None:
        """Have the kernels of these objects in memory, where they are on disk."""
        from .generate import giving_way

        disk = DiskCache(settings.cache_dir)
        giving_way.begin()  # this thread takes Python's lock some twenty times an object, while another one traces
        try:
            with self._lock:
                for digest in digests:
                    if digest not in self._kernels.libraries:
                        with contextlib.suppress(KeyError, TypeError, ValueError, RuntimeError):  # compile() tells of these
                            self._load(disk, digest)
        finally:
            giving_way.end()

    def _load(self, disk: DiskCache, digest: str) -> bool:
        """Load the kernels of an object, if it is on disk. Raises one of several errors where it isn't what it should be."""
        payload = disk.load("object-" + digest)
        if payload is not None:
            self._kernels.add_objects(digest, _split(payload[1], payload[0]["sizes"]), payload[0]["symbols"])
        return payload is not None

    def compile(
        self, graph: Graph, options: Options = Options(), passes: Callable[[Graph], Graph] = unchanged,  # noqa: B008 (frozen)
    ) -> CompiledProgram | CutProgram:
        """A program for the host. See `hybrid.backend.Program` for what may be passed to it."""
        begin = time.perf_counter()
        disk = DiskCache(settings.cache_dir) if settings.cache_dir else None
        traced: str | None = None
        with self._lock:
            if disk and passes is not unchanged and as_usual():
                traced = self._key({f"graph before {passes.__qualname__}": graph.hash}, options)
                program = self._recalled(disk, traced, graph, lambda g: absorb(passes(g), options.constant_inputs))
            else:
                program = None
        if program is None:
            graph = passes(graph)
            steps = split(graph)
            if steps is not None:
                return CutProgram(graph, steps, self.compile, options)
            with self._lock:
                program = self._compiled(absorb(graph, options.constant_inputs), disk, options, traced)
        self.statistics.seconds += time.perf_counter() - begin
        return program

    def _compiled(self, graph: Graph, disk: DiskCache | None, options: Options, traced: str | None) -> CompiledProgram:
        """The program of a graph after all passes, from disk or generated; what was `traced` is to lead to it from now on."""
        key = self._key({"graph": graph.hash}, options)
        recipe = self._from_disk(disk, key) if disk and settings.debug < 3 else None
        if recipe is None:
            recipe = self._generate(graph, disk, options)
            self.statistics.compilations += 1
            if disk:
                disk.store(key, recipe.to_json(), b"")
        else:
            self.statistics.disk_hits += 1
        if disk and traced is not None:
            disk.store(traced, {"recipe": key}, b"")
        return self._program(graph, recipe)

    def _recalled(
        self, disk: DiskCache, traced: str, graph: Graph, passes: Callable[[Graph], Graph]
    ) -> CompiledProgram | None:
        """The program that ``passes(graph)`` has led to before, if it is on disk."""
        found = disk.load(traced)
        key = found[0].get("recipe") if found and isinstance(found[0], dict) else None
        recipe = self._from_disk(disk, key) if isinstance(key, str) else None
        if recipe is None:
            return None
        self.statistics.disk_hits += 1
        return self._program(graph, recipe, passes)

    def _program(self, graph: Graph, recipe: Recipe, passes: Callable[[Graph], Graph] | None = None) -> CompiledProgram:
        return CompiledProgram(graph, recipe, [self._kernels.addresses[k] for k in recipe.kernels], passes)

    def _key(self, what: Mapping[str, str], options: Options) -> str:
        return key_of({
            **what,
            "constant inputs": sorted(options.constant_inputs),
            "options": sorted(options.extra.items()),
            "target": self.target,
            "winograd": settings.winograd,
            "tuned for threads": settings.num_threads * settings.tune,
            "generator": generator_stamp(),
            "llvmlite": llvmlite.__version__,
        })

    def _from_disk(self, disk: DiskCache, key: str) -> Recipe | None:
        found = disk.load(key)
        if found is None:
            return None
        try:
            recipe = Recipe.from_json(found[0])
            for digest in dict.fromkeys(d for d, _ in recipe.kernels):
                missing = {k for k in recipe.kernels if k[0] == digest} - self._kernels.addresses.keys()
                if missing and not (self._load(disk, digest) and missing <= self._kernels.addresses.keys()):
                    return None
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            log.warning("cache entry %s can't be used (%s); compiling instead", key[:12], error)
            return None
        return recipe

    def _generate(self, graph: Graph, disk: DiskCache | None, options: Options) -> Recipe:
        from .assemble import make_recipe
        from .generate import Generation
        from .lower import lower

        with Generation(self.target, self._kernels.known) as generation:
            if not runtime.is_ready():
                generation.run(_make_runner)
            lowered = lower(graph, self.target, lambda launch: generation.add(launch.kernel), options.constant_inputs)
        if settings.debug >= 3:
            from . import debug

            debug.show(lowered, self.target, settings.debug)
        self._add(generation, disk)
        return make_recipe(lowered, self.native_kernels([x.kernel for x in lowered.launches], disk))

    def native_kernels(self, kernels: Sequence[Kernel], disk: DiskCache | None = None) -> list[tuple[str, str]]:
        """(digest, symbol) of each kernel; those not yet in memory are generated together."""
        distinct = {id(k): k for k in kernels}
        if any((k, self.target) not in self._kernels.known for k in distinct.values()):
            from .generate import Generation

            with Generation(self.target, self._kernels.known) as generation:
                for k in distinct.values():
                    generation.add(k)
            self._add(generation, disk)
        named = {n: self._kernels.known[k, self.target] for n, k in distinct.items()}
        return [named[id(k)] for k in kernels]

    def _add(self, generation: Generation, disk: DiskCache | None) -> None:
        """Load what was generated, and keep it."""
        if not generation.symbols:
            return
        symbols = list(generation.symbols.values())
        self._kernels.add_objects(generation.digest, generation.objects, symbols)
        if disk:
            described = {"symbols": symbols, "sizes": [len(x) for x in generation.objects]}
            disk.store("object-" + generation.digest, described, b"".join(generation.objects))
        for kernel, symbol in generation.symbols.items():
            self._kernels.known[kernel, self.target] = (generation.digest, symbol)
        self.statistics.kernels += len(symbols)

    def address(self, kernel: tuple[str, str]) -> int:
        """Where a kernel that `native_kernels` named lies in memory."""
        return self._kernels.addresses[kernel]

    def emit(self, graph: Graph, target: str) -> tuple[bytes, str]:
        """Native export is not a part of this backend yet."""
        raise NotImplementedError("emitting object files for other programs is not supported yet; use export and load")


def _split(data: bytes, sizes: Sequence[int]) -> list[bytes]:
    """Bytes cut into pieces of these sizes. Raises ValueError where they don't add up."""
    if sum(sizes) != len(data) or min(sizes, default=0) < 0:
        raise ValueError("the objects' sizes don't add up")
    ends = list(accumulate(sizes, initial=0))
    return [data[a:b] for a, b in pairwise(ends)]


def _make_runner() -> None:
    """The native runner is needed soon: make it while kernels are being lowered."""
    with contextlib.suppress(Exception):  # who needs it meets the error again
        runtime.runner()


@cache
def generator_stamp() -> str:
    """Changes whenever a file that decides what code is generated changes (sizes and times of the sources)."""
    root = Path(__file__).resolve().parent.parent
    stamp = hashlib.sha256()
    for folder in ("jit", "jit/cuda", "ndarray", "ndarray/ops", "hybrid", "hybrid/passes"):
        with os.scandir(root / folder) as entries:
            for item in sorted((e for e in entries if e.name.endswith((".py", ".h"))), key=lambda e: e.name):
                info = item.stat()
                stamp.update(f"{folder}/{item.name} {info.st_size} {info.st_mtime_ns}\n".encode())
    return stamp.hexdigest()


backend = NativeBackend()
