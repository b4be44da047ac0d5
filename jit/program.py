"""A compiled graph that can be called: a recipe, its native kernels, and the memory plan of each size seen.

A call leases an arena, writes the addresses of the arrays into a table and makes ONE native call, which walks the
prepacked plan (see `jit.runtime`). For each new set of symbolic sizes the plan is made once, in Python, and kept.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

import numpy as np

from hybrid.backend import refuse_leaked
from hybrid.graph import Graph
from ndarray.array import NDArray
from ndarray.dims import Dim, evaluate
from ndarray.settings import settings

from . import plan, runtime
from .keeper import Keeper
from .plan import Placement
from .recipe import Recipe

if TYPE_CHECKING:
    from .explain import ProgramReport

__all__ = ["Binding", "CompiledProgram", "thread_count"]

FORK_NANOSECONDS = 4_000
"""A launch whose estimated work per thread is below this many nanoseconds isn't worth another thread."""

RELEASE_NANOSECONDS = 8_000
"""A call whose estimated work is below this many nanoseconds keeps other Python threads waiting."""

BINDINGS_KEPT = 64
"""Plans for different sizes that a program remembers."""


@dataclass(frozen=True)
class Binding:
    """A recipe for given sizes: the native plan, what must be allocated, and figures for `explain`."""

    plan: np.ndarray  # int64, as jit.runtime defines
    checks: np.ndarray  # int64, as jit.runtime.run_arrays defines
    arena_bytes: int
    outputs: tuple[tuple[tuple[int, ...], np.dtype], ...]
    placement: Placement
    work: int  # nanoseconds on one thread

    def __post_init__(self) -> None:
        for name, value in (
            ("address", self.plan.ctypes.data),
            ("checks_address", self.checks.ctypes.data),
            ("release", self.work >= RELEASE_NANOSECONDS),  # long calls let other Python threads run
        ):
            object.__setattr__(self, name, value)

    address: int = field(init=False)
    checks_address: int = field(init=False)
    release: bool = field(init=False)


class _Arenas:
    """Arenas of the process. A call leases one for its duration; they are shared by all programs, largest first."""

    def __init__(self) -> None:
        self._free: list[np.ndarray] = []

    def lease(self, nbytes: int) -> np.ndarray:
        try:
            arena = self._free.pop()  # atomic
        except IndexError:
            arena = None
        if arena is None or arena.nbytes < nbytes:
            arena = plan.aligned_empty(nbytes)
        return arena

    def give_back(self, arena: np.ndarray) -> None:
        self._free.append(arena)
        if len(self._free) > 16:  # more than that many callers at once is rare
            del self._free[0]


_arenas = _Arenas()


class CompiledProgram:
    """See `hybrid.backend.Program`."""

    def __init__(self, graph: Graph, recipe: Recipe, kernels: Sequence[int]):
        self.graph, self.recipe = graph, recipe
        self.kernels = np.array(kernels, np.uint64)
        self._kernels_address = self.kernels.ctypes.data
        self._bindings: OrderedDict[tuple[tuple[int, ...], bool], Binding] = OrderedDict()
        self._lock = threading.RLock()
        self._inputs, self._outputs = len(graph.inputs), len(recipe.outputs)
        # where each symbol's value is read: (input, axis); symbols always stand alone on some axis of an input
        self._symbols = _symbol_places(graph)
        self._keepers: WeakValueDictionary[tuple[int, ...], Keeper] = WeakValueDictionary()
        self._static = self.bind({}) if not self._symbols and not recipe.kept else None  # a Keeper has its own

    # -- calling
    def __call__(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        binding = self._static
        if binding is None:
            binding = self.bound(self.sizes_of(arrays))
        return self.run(binding, arrays)

    def keeping(self, constants: Mapping[int, NDArray]) -> CompiledProgram | Keeper:
        """See `hybrid.backend.Program`."""
        if not self.recipe.kept:
            return self
        key = tuple([id(a) for _, a in sorted(constants.items())])
        with self._lock:
            found = self._keepers.get(key)
            if found is None:
                found = self._keepers[key] = Keeper(self, constants)
        return found

    def run(self, binding: Binding, arrays: Sequence[np.ndarray], kept: Sequence[np.ndarray] = ()) -> list[np.ndarray]:
        """The outputs of a binding for these inputs and what it has kept."""
        outputs = [np.empty(shape, dtype) for shape, dtype in binding.outputs]
        arena = _arenas.lease(binding.arena_bytes)
        try:
            table = [arena, *arrays, *outputs, *kept]
            if runtime.run_arrays(table, binding.address, self._kernels_address, binding.checks_address, binding.release):
                self._run_copies(arena, arrays, [*outputs, *kept], binding)
        finally:
            _arenas.give_back(arena)
        return outputs

    def sizes_of(self, arrays: Sequence[np.ndarray]) -> tuple[int, ...]:
        """The values of the graph's symbols in a call."""
        return tuple([arrays[i].shape[axis] for _, i, axis in self._symbols])

    def _run_copies(self, arena: np.ndarray, arrays: Sequence[np.ndarray], others: list[np.ndarray], binding: Binding) -> None:
        """Run with copies in place of arrays that are not contiguous, or lie over memory of one that is written."""
        refuse_leaked(arrays, self.graph.name)
        written = self.graph.state
        usable = [a if a.flags.c_contiguous and a.flags.aligned else a.copy(order="C") for a in arrays]
        for i in written:
            for k, other in enumerate(usable):
                if k != i and np.may_share_memory(usable[i], other):
                    if k in written:
                        raise ValueError(f"{self.graph.name}: inputs {i} and {k} are both written and overlap in memory")
                    usable[k] = other.copy()
        table = [arena, *usable, *others]
        status = runtime.run_arrays(table, binding.address, self._kernels_address, binding.checks_address, binding.release)
        assert status == 0, f"array {status} can't be used"
        for i in written:
            if usable[i] is not arrays[i]:
                arrays[i][...] = usable[i]

    def run_guarded(self, arrays: Sequence[np.ndarray], side: str = "after", threads: int | None = None) -> list[np.ndarray]:
        """As a call, with every input, output, temporary and scratch memory between inaccessible pages, filled with NaN
        where it is not an input: for tests. A kernel that leaves its buffers kills the process. `arrays` are updated
        where the graph writes them back.
        """
        from .guard import guarded, guarded_empty

        sizes = {name: arrays[i].shape[axis] for name, i, axis in self._symbols}
        outputs = [(tuple(evaluate(d, sizes) for d in shape), np.dtype(dtype)) for shape, dtype in self.recipe.outputs]
        slots = [guarded(a, side) for a in arrays]
        slots += [guarded_empty(plan.nbytes(*o), side).view(o[1]).reshape(o[0]) for o in outputs]
        where: dict[int, tuple[int, int]] = {}
        for number, storage in enumerate(self.recipe.storages):
            if storage.role == "arena":
                where[number] = (1 + len(slots), 0)
                slots.append(guarded_empty(evaluate(storage.size, sizes) * np.dtype(storage.dtype).itemsize, side))
            elif storage.role != "part":
                where[number] = (1 + storage.index + (self._inputs if storage.role == "output" else 0), 0)
        self._find_parts(where, sizes)
        packed, scratch, _ = self.pack(sizes, where, 0, range(len(self.recipe.launches)), threads)
        # scratch memory keeps its alignment, so only what lies beyond a whole number of cache lines is caught there
        arena = guarded_empty(plan.aligned(scratch), side)
        addresses = np.array([a.ctypes.data for a in (arena, *slots)], np.uint64)
        runtime.run(addresses, packed, self.kernels)
        for i in self.graph.state:
            arrays[i][...] = slots[i]
        return [a.copy() for a in slots[self._inputs : self._inputs + self._outputs]]

    # -- binding to sizes
    def bound(self, values: tuple[int, ...], kept: bool = False) -> Binding:
        """The binding for the values of the graph's symbols, made at first use; without what is `kept` between calls."""
        key = values, kept
        found = self._bindings.get(key)
        if found is None:
            with self._lock:
                found = self._bindings.get(key)
                if found is None:
                    sizes = {name: v for (name, _, _), v in zip(self._symbols, values, strict=True)}
                    launches = range(self.recipe.first if kept else 0, len(self.recipe.launches))
                    found = self._bindings[key] = self.bind(sizes, launches, [s for s, _ in self.recipe.kept] if kept else ())
                    if len(self._bindings) > BINDINGS_KEPT:
                        self._bindings.popitem(last=False)
        return found

    def bind(self, sizes: Mapping[str, int], launches: Sequence[int] | None = None, kept: Sequence[int] = ()) -> Binding:
        """Everything for these sizes; the launches and the `kept` storages are as for `plan_launches`."""
        launches = range(len(self.recipe.launches)) if launches is None else launches
        packed, placement, arena_bytes, work = self.plan_launches(sizes, launches, kept)
        outputs = tuple((tuple(evaluate(d, sizes) for d in shape), np.dtype(dtype)) for shape, dtype in self.recipe.outputs)
        inputs = [plan.nbytes(tuple(evaluate(d, sizes) for d in v.shape), v.dtype) for v in self.graph.inputs]
        checks = [len(inputs), len(self.graph.state), *inputs, *sorted(self.graph.state)]
        return Binding(packed, np.array(checks, np.int64), arena_bytes, outputs, placement, work)

    def plan_launches(
        self, sizes: Mapping[str, int], launches: Sequence[int], kept: Sequence[int] = ()
    ) -> tuple[np.ndarray, plan.Placement, int, int]:
        """(native plan, placement of the temporaries, bytes of the arena, nanoseconds of work) of the launches of these
        numbers, with the storages `kept` in slots of their own behind the outputs'."""
        recipe = self.recipe
        intervals, members = self._lifetimes(sizes, launches, kept)
        placement = plan.place(intervals)
        where = {}  # storage number -> (slot, byte offset)
        for slot, number in enumerate(kept, 1 + self._inputs + self._outputs):
            where[number] = (slot, 0)
        for number, offset in zip(members, placement.offsets, strict=True):
            where[number] = (0, offset)
        for number, storage in enumerate(recipe.storages):
            if storage.role == "input":
                where[number] = (1 + storage.index, 0)
            elif storage.role == "output":
                where[number] = (1 + self._inputs + storage.index, 0)
        self._find_parts(where, sizes)
        packed, scratch, work = self.pack(sizes, where, placement.total, launches)
        return packed, placement, placement.total + scratch, work

    def _find_parts(self, where: dict[int, tuple[int, int]], sizes: Mapping[str, int]) -> None:
        """Add where the storages lie that are parts of others."""
        for number, storage in enumerate(self.recipe.storages):
            if storage.role == "part" and storage.index in where:
                slot, offset = where[storage.index]
                where[number] = (slot, offset + evaluate(storage.offset, sizes) * np.dtype(storage.dtype).itemsize)

    def pack(self, sizes: Mapping[str, int], where: Mapping[int, tuple[int, int]], behind: int,
             launches: Sequence[int], threads: int | None = None) -> tuple[np.ndarray, int, int]:
        """The native plan of launches for storages that lie at `where` (slot, byte offset), the bytes of scratch memory that
        it needs `behind` that offset of the arena, and the nanoseconds of work.

        `threads`, given, is used for every launch that has so many tasks, whatever its work (for tests).
        """
        available = settings.num_threads
        packed, total, scratch_bytes, count = [0], 0, 0, 0
        for launch in [self.recipe.launches[n] for n in launches]:
            tasks = evaluate(launch.tasks, sizes)
            if tasks <= 0:
                continue
            work = evaluate(launch.work, sizes)
            scratch = (evaluate(launch.scratch, sizes) + 63) // 64 * 64
            used = min(threads, tasks) if threads else thread_count(work, tasks, available)
            packed += [launch.kernel, tasks, used, 0, behind, scratch, len(launch.buffers), len(launch.arguments)]
            for b in launch.buffers:
                packed += where[b]
            packed += [evaluate(a, sizes) for a in launch.arguments]
            scratch_bytes = max(scratch_bytes, scratch * used)
            total += work
            count += 1
        packed[0] = count
        return np.array(packed, np.int64), scratch_bytes, total

    def _lifetimes(
        self, sizes: Mapping[str, int], launches: Sequence[int], kept: Sequence[int] = ()
    ) -> tuple[list[plan.Interval], list[int]]:
        """When each arena storage is alive, in launch numbers, and the storages' numbers; those that are `kept` apart."""
        first: dict[int, int] = {}
        last: dict[int, int] = {}
        for at in launches:
            for b in self.recipe.launches[at].buffers:
                whole = self.recipe.storages[b]
                b = whole.index if whole.role == "part" else b
                first.setdefault(b, at)
                last[b] = at
        members = [n for n, s in enumerate(self.recipe.storages) if s.role == "arena" and n in first and n not in kept]
        intervals = []
        for n in members:
            storage = self.recipe.storages[n]
            intervals.append(plan.Interval(evaluate(storage.size, sizes) * np.dtype(storage.dtype).itemsize, first[n], last[n]))
        return intervals, members

    # -- for people
    def explain(self, arrays: Sequence[np.ndarray] | None = None, measure: bool = False) -> ProgramReport:
        """The kernels and the memory plan: a `jit.explain.ProgramReport`, whose text is a table.

        `arrays`, the inputs of a call, say for which sizes; without them, a program with symbolic sizes is reported for the
        sizes of its trace. With `measure`, every launch is timed, on copies of the arrays.
        """
        from .explain import report

        sizes = {name: self._size_of(i, axis, arrays) for name, i, axis in self._symbols}
        binding = self._static or self.bound(tuple(sizes.values()))
        return report(self, binding, sizes, arrays if measure else None)

    def _size_of(self, i: int, axis: int, arrays: Sequence[np.ndarray] | None) -> int:
        size = self.graph.inputs[i].shape[axis]
        return arrays[i].shape[axis] if arrays is not None else size.hint if isinstance(size, Dim) else size


def thread_count(work: int, tasks: int, available: int) -> int:
    """How many threads a launch is split over: each gets at least `FORK_NANOSECONDS` of work, and a task."""
    return max(1, min(available, tasks, work // FORK_NANOSECONDS))


def _symbol_places(graph: Graph) -> list[tuple[str, int, int]]:
    places: dict[str, tuple[str, int, int]] = {}
    for i, value in enumerate(graph.inputs):
        for axis, d in enumerate(value.shape):
            if isinstance(d, Dim) and len(d.terms) == 1 and d.terms[0][1] == 1 and len(d.terms[0][0]) == 1:
                name = d.terms[0][0][0]
                if isinstance(name, str):
                    places.setdefault(name, (name, i, axis))
    missing = set(graph.symbols) - set(places)
    if missing:
        raise ValueError(f"graph {graph.name}: sizes {sorted(missing)} can't be read off any input")
    return list(places.values())
