"""What a program has computed from weights alone (packed panels, folded scales), kept until one of them is written.

A `Keeper` is a program for given constant inputs. The first call runs everything; the second one, with the constants as
they were, runs the launches that need nothing else into memory that is kept, and from then on a call runs the rest. A write
to a constant, however it comes about, marks what is kept as stale when it is over (`ndarray.array.Storage`), and it begins
anew: what other arrays have given is used again. Nothing is kept of an array that someone outside can write to unseen.
Equal values of several programs (another batch size, say) are kept once.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

import numpy as np

from ndarray.array import NDArray, Storage, storage_of
from ndarray.dims import evaluate

if TYPE_CHECKING:
    from hybrid.graph import Graph

    from .explain import ProgramReport
    from .program import Binding, CompiledProgram

__all__ = ["Keeper", "kept_bytes"]


class _Memory:
    """One kept value, and the storages of the arrays that it comes from (whose identity is a part of its key)."""

    __slots__ = ("__weakref__", "array", "storages")

    def __init__(self, array: Any, storages: tuple[Storage, ...]):
        self.array, self.storages = array, storages


_shared: WeakValueDictionary[Any, _Memory] = WeakValueDictionary()
"""All that is kept in the process, by how it was computed and from which state of which arrays."""


def kept_bytes() -> int:
    """Bytes of all that is kept in the process."""
    return sum(m.array.nbytes for m in list(_shared.values()))


class _Kept:
    """What a program has for one state of its constants; `stale` once one of them has been written. `arrays`, in the order
    of the recipe, are None as long as nothing is kept; `memories` hold them, or some of an earlier state."""

    __slots__ = ("__weakref__", "arrays", "memories", "stale")

    def __init__(self) -> None:
        self.stale = False
        self.memories: list[_Memory] = []
        self.arrays: list[Any] | None = None


class Keeper:
    """A `CompiledProgram` for given constants, by input number. See `hybrid.backend.Program`."""

    def __init__(self, program: CompiledProgram, constants: Mapping[int, NDArray]):
        self.program, self.recipe = program, program.recipe
        self._constants = dict(constants)
        self._lock = threading.Lock()
        self._kept: _Kept | None = None
        self._static: Binding | None = None  # of a program without symbols, once something is kept
        self._descriptions = [self._description(*item) for item in self.recipe.kept]

    @property
    def graph(self) -> Graph:
        """What was lowered."""
        return self.program.graph

    @property
    def arena_bytes(self) -> int:
        """See `CompiledProgram.arena_bytes`."""
        return self.program.arena_bytes

    def __call__(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        kept = self._kept
        if kept is None or kept.stale or kept.arrays is None:
            kept = self._advance()
            if kept.arrays is None:
                return self.program(arrays)
        binding = self._static
        if binding is None:
            binding = self.program.bound(self.program.sizes_of(arrays), kept=True)
        return self.program.run(binding, arrays, kept.arrays)

    def explain(self, arrays: Sequence[np.ndarray] | None = None, measure: bool = False) -> ProgramReport:
        """See `CompiledProgram.explain`."""
        return self.program.explain(arrays, measure)

    def run_guarded(self, *arguments: Any, **options: Any) -> list[np.ndarray]:
        """See `CompiledProgram.run_guarded`; everything is computed anew."""
        return self.program.run_guarded(*arguments, **options)

    def _description(self, number: int, launches: Sequence[int]) -> tuple[tuple[int, ...], Any]:
        """The constants that a kept storage depends on, and what is computed of them: equal for storages of any two programs
        that hold the same if the constants do."""
        recipe = self.recipe
        names: dict[int, int] = {}
        steps: list[Any] = []
        for launch in [recipe.launches[n] for n in launches]:
            places = []
            for b in launch.buffers:
                storage = recipe.storages[b]
                whole = storage.index if storage.role == "part" else b
                places.append((names.setdefault(whole, len(names)), storage.offset, storage.size, storage.role == "part"))
            steps.append((self.program.kernel_key(launch.kernel), launch.arguments, launch.tasks, tuple(places)))
        inputs = {n: recipe.storages[b].index for b, n in names.items() if recipe.storages[b].role == "input"}
        return tuple(inputs.values()), (tuple(inputs), names[number], tuple(steps))

    def _advance(self) -> _Kept:
        """What is to be used at a call that finds nothing kept."""
        with self._lock:
            kept = self._kept
            storages = {i: storage_of(a) for i, a in self._constants.items()}
            if kept is None or kept.stale:
                new = self._kept = _Kept()
                if kept is not None:
                    new.memories = kept.memories
                for s in storages.values():  # before anything of them is read: no write that ends from now on is missed
                    s.watch(new)
                return new
            if any(s.exported for s in storages.values()):
                kept.memories = []
            elif kept.arrays is None:
                self._fill(kept, storages)
            return kept

    def _fill(self, kept: _Kept, storages: Mapping[int, Storage]) -> None:
        """Find or compute what is kept."""
        if not self.program.symbolic:
            self._static = self.program.bound((), kept=True)
        state = {i: (id(s), s.stamp, self.program.address(self._constants[i]._data), self._constants[i]._data.strides)
                 for i, s in storages.items()}
        memories: list[_Memory] = []
        missing: list[tuple[Any, _Memory]] = []
        launches: set[int] = set()
        for (number, behind), (inputs, steps) in zip(self.recipe.kept, self._descriptions, strict=True):
            key = steps, tuple([state[i] for i in inputs])
            memory = _shared.get(key)
            if memory is None:
                storage = self.recipe.storages[number]
                nbytes = evaluate(storage.size, {}) * np.dtype(storage.dtype).itemsize
                memory = _Memory(self.program.kept_memory(nbytes), tuple([storages[i] for i in inputs]))
                missing.append((key, memory))
                launches.update(behind)
            memories.append(memory)
        arrays = [m.array for m in memories]
        if launches:
            self.program.fill(sorted(launches), {i: a._data for i, a in self._constants.items()}, arrays)
        _shared.update(missing)
        kept.memories, kept.arrays = memories, arrays
