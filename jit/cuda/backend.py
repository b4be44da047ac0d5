"""The backend of GPUs: graph -> launches for a warp's vectors -> one CUDA module a graph -> a program.

What it keeps on disk: the recipe of a graph (key: graph, options, target, versions of the generator and of NVRTC) and, under
the digest of its code, each module with the threads that its kernels want.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from hybrid.backend import Options, unchanged
from hybrid.graph import Graph
from ndarray.device import Device, device
from ndarray.settings import settings

from ..assemble import make_recipe
from ..backend import Statistics, generator_stamp
from ..cache import DiskCache, key_of
from ..cuts import CutProgram, split
from ..launch import Launch
from ..loopir import Kernel, Load, Register, Set, Store, walk_exprs, walk_statements
from ..lower import lower
from ..recipe import Recipe
from .calls import LibraryRefused, available
from .driver import Driver, driver_of, layout_of
from .printer import print_module, range_steps
from .program import CudaProgram
from .table import Function, Module
from .target import WARP, GpuTarget, gpu_target

__all__ = ["CudaBackend", "backend"]

LIBRARY = "library"
"""In the place of a module's digest for a step of a library, whose description is the symbol."""

log = logging.getLogger("hybrid.jit")


@dataclass
class _Functions:
    """Loaded kernels of a device: by structure, and by (digest of the module, symbol)."""

    known: dict[Any, tuple[str, str]] = field(default_factory=dict)
    loaded: dict[tuple[str, str], Function] = field(default_factory=dict)


class CudaBackend:
    """See `hybrid.backend.Backend`; one for each device."""

    def __init__(self, place: Device):
        self.name, self.device = f"cuda:{place}", place
        self.statistics = Statistics()
        self._functions = _Functions()
        self._lock = threading.RLock()

    @property
    def driver(self) -> Driver:
        """The device's driver. Raises `DeviceError` where it can't be used."""
        return driver_of(self.device)

    @property
    def target(self) -> GpuTarget:
        """What kernels are lowered for."""
        return self.target_with("float32")

    def target_with(self, precision: str) -> GpuTarget:
        """The same with float32 products of a precision."""
        return gpu_target(self.driver.arch, available(self.device.kind), precision)

    def compile(
        self, graph: Graph, options: Options = Options(), passes: Callable[[Graph], Graph] = unchanged,  # noqa: B008 (frozen)
    ) -> CudaProgram | CutProgram:
        """A program for the device."""
        graph = passes(graph)
        steps = split(graph)
        if steps is not None:
            return CutProgram(graph, steps, self.compile, options, self.device)
        begin = time.perf_counter()
        extra = dict(options.extra)
        static = bool(extra.pop("static", False))
        with self._lock, self.driver.active():
            disk = DiskCache(settings.cache_dir) if settings.cache_dir else None
            target = self.target_with(extra.pop("precision", "float32"))
            while True:
                recipe = self._recipe(graph, options.constant_inputs, extra, target, disk)
                functions = [self._functions.loaded[k] for k in recipe.kernels]
                try:
                    program = CudaProgram(graph, recipe, functions, self.driver, static)
                    if any(digest == LIBRARY for digest, _ in recipe.kernels):
                        program.bind_hints()
                    break
                except LibraryRefused as error:  # slower, never fatal
                    log.warning("%s: %s; its steps are generated kernels instead", graph.name, error)
                    target = replace(target, libraries=tuple([n for n in target.libraries if n != error.library]))
        self.statistics.seconds += time.perf_counter() - begin
        return program

    def _recipe(
        self, graph: Graph, constants: frozenset[int], extra: Mapping[str, Any], target: GpuTarget, disk: DiskCache | None
    ) -> Recipe:
        """From the disk, or lowered now."""
        key = self._key(graph, constants, extra, target)
        recipe = self._from_disk(disk, key) if disk and settings.debug < 3 else None
        if recipe is not None:
            self.statistics.disk_hits += 1
            return recipe
        recipe = self._generate(graph, disk, constants, target)
        self.statistics.compilations += 1
        if disk:
            disk.store(key, recipe.to_json(), b"")
        return recipe

    def emit(self, graph: Graph, target: str) -> tuple[bytes, str]:
        """Refused: there is no native export for a GPU."""
        raise NotImplementedError("emitting code of a GPU for other programs is not supported; use export and load")

    def _key(self, graph: Graph, constants: frozenset[int], extra: Mapping[str, Any], target: GpuTarget) -> str:
        return key_of({
            "backend": "cuda",
            "graph": graph.hash,
            "constant inputs": sorted(constants),
            "options": sorted(extra.items()),
            "target": target,
            "generator": generator_stamp(),
            "compiler": self.driver.compiler,
        })

    def _generate(self, graph: Graph, disk: DiskCache | None, constants: frozenset[int], target: GpuTarget) -> Recipe:
        lowered = lower(graph, target, None, constants)
        if settings.debug >= 3:
            from .. import debug

            debug.show(lowered, target, min(settings.debug, 4))
        return make_recipe(lowered, self.functions_of(lowered.launches, disk))

    def functions_of(self, launches: Sequence[Launch], disk: DiskCache | None = None) -> list[tuple[str, str]]:
        """(digest, symbol) of each launch's kernel; those not yet loaded become one module."""
        known = self._functions.known
        new: dict[str, Kernel] = {}
        for kernel in dict.fromkeys(x.kernel for x in launches):
            if kernel not in known and not isinstance(kernel, Kernel):
                known[kernel] = key = (LIBRARY, kernel.text)
                self._functions.loaded[key] = Function(None, kernel.text, 0)
            elif kernel not in known:
                if settings.debug >= 1:
                    from .. import verify

                    verify.verify(kernel)
                new[f"k{len(new)}"] = kernel
        if new:
            lanes = {symbol: lanes_of(kernel) for symbol, kernel in new.items()}
            layouts = {s: layout_of(n) for s, n in lanes.items()}
            source = print_module(new, layouts)
            ranges = {s: range_steps(kernel, layouts[s]) for s, kernel in new.items()}
            digest = hashlib.sha256(source.encode()).hexdigest()
            self._load(digest, source, lanes, ranges)
            if disk:
                disk.store(f"cuda-{digest}", {"lanes": lanes, "ranges": ranges}, source.encode())
            known.update((kernel, (digest, symbol)) for symbol, kernel in new.items())
            self.statistics.kernels += len(new)
        return [known[x.kernel] for x in launches]

    def _load(self, digest: str, source: str, lanes: Mapping[str, int], ranges: Mapping[str, Any]) -> None:
        module = Module(self.driver, source, list(lanes))
        module.functions(False)  # so that code that can't be compiled is found out now
        self._functions.loaded.update({(digest, s): Function(module, s, n, ranges[s]) for s, n in lanes.items()})

    def _from_disk(self, disk: DiskCache, key: str) -> Recipe | None:
        found = disk.load(key)
        if found is None:
            return None
        try:
            recipe = Recipe.from_json(found[0])
            for digest in dict.fromkeys(d for d, _ in recipe.kernels):
                if all(k in self._functions.loaded for k in recipe.kernels if k[0] == digest):
                    continue
                if digest == LIBRARY:
                    self._functions.loaded.update({k: Function(None, k[1], 0) for k in recipe.kernels if k[0] == LIBRARY})
                    continue
                payload = disk.load(f"cuda-{digest}")
                if payload is None or hashlib.sha256(payload[1]).hexdigest() != digest:
                    return None
                lanes = {str(s): int(n) for s, n in payload[0]["lanes"].items()}
                self._load(digest, payload[1].decode(), lanes, payload[0]["ranges"])
            if not all(k in self._functions.loaded for k in recipe.kernels):
                return None
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            log.warning("cache entry %s can't be used (%s); compiling instead", key[:12], error)
            return None
        return recipe


def lanes_of(kernel: Kernel) -> int:
    """The threads that do a task of a kernel together: its longest vector, a warp at least."""
    longest = WARP
    for s in walk_statements(kernel.body):
        if isinstance(s, (Register, Set, Store)):
            longest = max(longest, s.value.type.lanes)
        for e in walk_exprs(s.value) if hasattr(s, "value") else ():
            if isinstance(e, Load):
                longest = max(longest, e.type.lanes)
    return longest


_backends: dict[Device, CudaBackend] = {}
_lock = threading.Lock()


def backend(place: str) -> CudaBackend:
    """The backend of a device, "gpu(0)" or "sim(1)"."""
    with _lock:
        return _backends.setdefault(device(place), CudaBackend(device(place)))
