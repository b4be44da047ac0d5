"""A compiled graph on ``gpu(i)`` or ``sim(i)``: a recipe, its kernels, and what each set of sizes is launched with.

A call takes memory for all temporaries (one arena, leased for the call), fills the addresses into the prepacked arguments and
submits the launches to the current stream. Python numbers among the inputs go to the device in one small copy. Where a
signature is called again and again, or ``hybridize(static_alloc=True, static_shape=True)`` says that it will be, the launches
become one CUDA graph (`jit.cuda.replay`).
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakValueDictionary

import numpy as np

from hybrid.backend import overlapping, refuse_leaked
from hybrid.graph import Graph
from ndarray.dims import evaluate, hint

from .. import plan
from ..plan import Placement
from ..program import CompiledProgram, chosen, symbols_of
from ..recipe import Recipe
from .driver import Driver, Lease
from .replay import Replays
from .table import Function, Plan, Table, make_plan

__all__ = ["CudaBinding", "CudaProgram"]

STAGE = 16
"""Bytes for a number among the inputs."""


@dataclass(frozen=True)
class CudaBinding:
    """A recipe for given sizes. `numbers` are the inputs that may be numbers of the host; in a call they lie at `stage` of the
    arena."""

    plan: Plan
    arena_bytes: int
    outputs: tuple[tuple[tuple[int, ...], np.dtype], ...]
    placement: Placement
    launches: int
    stage: int
    numbers: dict[int, int]  # input -> byte offset from `stage`
    input_bytes: list[int]
    replays: Replays = field(default_factory=Replays)
    apart: set[Any] = field(default_factory=set)  # addresses of inputs that are known not to overlap


class _Arenas:
    """Memory for temporaries, shared by the programs of a stream: launches of one stream come one after the other."""

    def __init__(self) -> None:
        self._free: dict[tuple[int, int], list[Lease]] = {}

    def lease(self, driver: Driver, nbytes: int) -> tuple[list[Lease], Lease]:
        """(where to give it back, the memory)."""
        home = self._free.setdefault((id(driver), driver.queue()), [])
        try:
            found = home.pop()  # atomic
        except IndexError:
            found = None
        if found is None or found.nbytes < nbytes:
            found = driver.allocate(nbytes)
        return home, found


_arenas = _Arenas()


class CudaProgram(CompiledProgram):
    """See `hybrid.backend.Program`. `static`: the caller says that shapes and arrays stay the same."""

    def __init__(self, graph: Graph, recipe: Recipe, functions: Sequence[Function], driver: Driver, static: bool = False):
        self._interface, self.recipe, self.driver, self.static = graph, recipe, driver, static
        self._passes = None
        self.functions = tuple(functions)
        self._bindings: OrderedDict[Any, Any] = OrderedDict()
        self._lock = threading.RLock()
        self._inputs, self._outputs = len(graph.inputs), len(recipe.outputs)
        self.moving = 0
        self._symbols = symbols_of(graph)
        self._keepers = WeakValueDictionary()
        self._written = sorted(graph.state)
        self._seen: dict[int, tuple[Any, int]] = {}  # the last written inputs, which mostly come again, with their addresses
        self._static = self.bind({}) if not self._symbols and not recipe.kept else None

    def bind_hints(self) -> None:
        """Bind to the sizes of the trace, to find out what can't be bound."""
        if self._static is None:
            sizes = {name: self._interface.inputs[i].shape[axis] for name, i, axis in self._symbols}
            self.bind({name: hint(n) for name, n in sizes.items()})

    # -- calling
    def run(self, binding: Any, arrays: Sequence[Any], kept: Sequence[Any] = ()) -> list[Any]:
        """The outputs of a binding for these inputs and what it has kept."""
        driver = self.driver
        with driver.active():
            usable, addresses = self._usable(binding, arrays)
            for memory in kept:
                addresses.append(memory.address)
            written = self._apart(binding, usable, addresses)
            empty = driver.module.empty
            outputs = [empty(shape, dtype) for shape, dtype in binding.outputs]
            places = [a.data.ptr for a in outputs]
            numbers = self._numbers(binding, usable)
            replays = binding.replays
            if not (replays.wanted and replays.run(self, binding, addresses, numbers, places, kept)):
                home, lease = _arenas.lease(driver, binding.arena_bytes)
                self.launch(binding, lease.address, addresses, numbers, places)
                home.append(lease)
            for i in written:
                if usable[i] is not arrays[i]:
                    arrays[i][...] = usable[i]
        return outputs

    def launch(self, binding: CudaBinding, arena: int, addresses: Sequence[int], numbers: np.ndarray | None,
               outputs: Sequence[int]) -> None:
        """Submit everything, for slots at these addresses (of inputs, then of what is kept)."""
        bases = self.bases(binding, arena, addresses, outputs)
        if numbers is not None:
            self.driver.upload(arena + binding.stage, numbers)
        binding.plan.run(self.driver, bases)

    def bases(self, binding: CudaBinding, arena: int, addresses: Sequence[int], outputs: Sequence[int]) -> np.ndarray:
        """The addresses of all slots."""
        count = self._inputs
        bases = np.array([arena, *addresses[:count], *outputs, *addresses[count:]], np.int64)
        for i, offset in binding.numbers.items():
            if addresses[i] < 0:
                bases[1 + i] = arena + binding.stage + offset
        return bases

    def _usable(self, binding: CudaBinding, arrays: Sequence[Any]) -> tuple[list[Any], list[int]]:
        """The inputs, contiguous, and their addresses; -1 for numbers of the host."""
        usable, addresses = list(arrays), []
        index = self.driver.device.index
        seen = self._seen
        for i, a in enumerate(arrays):
            known = seen.get(i)
            if known is not None and known[0] is a:
                addresses.append(known[1])
                continue
            try:
                place = a.data
                if place.device_id != index:
                    raise ValueError(self._elsewhere(i, f"{self.driver.device.kind}({place.device_id})"))
                if not a.flags.c_contiguous:
                    a = usable[i] = a.copy()
                    place = a.data
                addresses.append(place.ptr)
                if i in self._interface.state and usable[i] is arrays[i]:
                    seen[i] = a, place.ptr
            except AttributeError:
                refuse_leaked(arrays, self._interface.name)
                if i not in binding.numbers or i in self._interface.state or not isinstance(a, (np.ndarray, np.generic)):
                    raise ValueError(self._elsewhere(i, "the CPU")) from None
                addresses.append(-1)
        return usable, addresses

    def _elsewhere(self, i: int, place: str) -> str:
        value = self._interface.inputs[i]
        return (
            f"{self._interface.name}: it is compiled for {self.driver.device}, but input {i} ({value.name or 'an array'}: "
            f"{value.type}) is on {place}; move it with x.to_device({self.driver.device})"
        )

    def _numbers(self, binding: CudaBinding, usable: Sequence[Any]) -> np.ndarray | None:
        """The bytes of the numbers among the inputs, or None."""
        found = None
        for i, offset in binding.numbers.items():
            a = usable[i]
            if isinstance(a, (np.ndarray, np.generic)):
                if found is None:
                    found = np.zeros(STAGE * len(binding.numbers), np.uint8)
                found[offset : offset + a.dtype.itemsize] = np.frombuffer(a.tobytes(), np.uint8)
        return found

    def _apart(self, binding: CudaBinding, usable: list[Any], addresses: list[int]) -> Sequence[int]:
        """See that nothing lies over memory that is written: copies of it are used. Returns the written inputs."""
        if not self._written:
            return ()
        key = tuple(addresses)
        if key not in binding.apart:
            pairs = list(overlapping([a if at >= 0 else None for a, at in zip(usable, addresses)], self._interface.state))
            for i, k in pairs:
                if k in self._interface.state:
                    raise ValueError(f"{self._interface.name}: inputs {i} and {k} are both written and overlap in memory")
                usable[k] = usable[k].copy()
                addresses[k] = usable[k].data.ptr
            if not pairs:
                if len(binding.apart) > 64:
                    binding.apart.clear()
                binding.apart.add(key)
        return self._written

    # -- what is kept of weights
    def address(self, array: Any) -> int:
        """Where an array lies."""
        return array.data.ptr

    def kernel_key(self, number: int) -> Any:
        """What identifies a kernel of the recipe in this process."""
        function = self.functions[number]
        return self.driver.device, id(function.module), function.symbol

    def kept_memory(self, nbytes: int) -> Lease:
        """Memory for what is kept."""
        with self.driver.active():
            return self.driver.allocate(nbytes)

    def fill(self, launches: Sequence[int], constants: Mapping[int, Any], kept: Sequence[Lease]) -> None:
        """Compute what is kept, from constant inputs."""
        driver = self.driver
        with driver.active():
            binding = self.bind({}, launches, [number for number, _ in self.recipe.kept], called=False)
            home, lease = _arenas.lease(driver, binding.arena_bytes)
            usable = {i: a if a.flags.c_contiguous else a.copy() for i, a in constants.items()}
            addresses = [usable[i].data.ptr if i in usable else 0 for i in range(self._inputs)]
            places = [0] * self._outputs
            self.launch(binding, lease.address, [*addresses, *[m.address for m in kept]], None, places)
            home.append(lease)
            driver.wait()  # threads with other streams read it from now on

    # -- binding to sizes
    def bind(
        self, sizes: Mapping[str, int], launches: Sequence[int] | None = None, kept: Sequence[int] = (), called: bool = True,
    ) -> Any:
        """Everything for these sizes. Unless it is `called`, sizes of what a call passes and returns may be unknown."""
        launches = range(len(self.recipe.launches)) if launches is None else launches
        where, placement = self.place(sizes, launches, kept)
        steps = chosen(self.recipe.steps, frozenset(launches))
        with self.driver.active():  # steps of libraries are made for the current device
            made, spilled, count = make_plan(self.recipe, self.functions, sizes, where, placement.total, steps, self.driver)
        outputs = tuple(
            (tuple(evaluate(d, sizes) for d in shape), np.dtype(dtype)) for shape, dtype in self.recipe.outputs if called)
        numbers = [i for i, v in enumerate(self._interface.inputs) if v.shape == () and i not in self._interface.state]
        stage = plan.aligned(placement.total + spilled)
        binding = CudaBinding(
            made, stage + STAGE * len(numbers), outputs, placement, count, stage,
            {i: STAGE * k for k, i in enumerate(numbers)},
            [plan.nbytes(tuple(evaluate(d, sizes) for d in v.shape), v.dtype) for v in self._interface.inputs if called],
        )
        binding.replays.begin(binding, self.static, self._inputs, self._written)
        return binding

    # -- for people
    def thread_counts(self, binding: Any) -> Any:
        """The threads that do a task of each launch together."""
        return lambda launch: self.functions[launch.kernel].lanes

    def measure(self, binding: Any, arrays: Sequence[Any], later: Any) -> tuple[list[float], float] | None:
        """The shortest time of each launch and of a `later` call, on copies of the arrays, by the device's events. None where
        times say nothing (``sim``), or where what is launched depends on data."""
        driver = self.driver
        if not isinstance(binding.plan.table, Table) or not isinstance(later.plan.table, Table):
            return None
        with driver.active():
            copies = [driver.module.array(a) for a in arrays]
            outputs = [driver.module.empty(shape, dtype).data for shape, dtype in later.outputs]
            arena = driver.allocate(max(later.arena_bytes, binding.arena_bytes))
            given = [a.data.ptr for a in copies]
            storages = [self.recipe.storages[n] for n, _ in self.recipe.kept]
            kept = [driver.allocate(evaluate(s.size, {}) * np.dtype(s.dtype).itemsize) for s in storages]

            def words(one: CudaBinding, more: Sequence[Lease]) -> np.ndarray:
                assert one.plan.table is not None
                places = [*given, *[k.address for k in more]]
                return one.plan.table.filled(self.bases(one, arena.address, places, [a.ptr for a in outputs]))

            every = words(binding, ())
            if driver.seconds(binding.plan.table.prepared, every) is None:
                return None
            times = [driver.seconds(driver.prepare([r]), every) or 0.0 for r in binding.plan.table.records if r.function]
            return times, driver.seconds(later.plan.table.prepared, words(later, kept)) or 0.0

    def limits(self, refresh: bool = False) -> None:
        """What a GPU can do is not measured here."""

    def run_guarded(self, arrays: Sequence[Any], side: str = "after", threads: int | None = None) -> list[Any]:
        """A call: the simulator has tests of its own in guarded memory."""
        return self(arrays)
