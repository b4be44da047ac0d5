"""A compiled graph that can be called: a recipe, its native kernels, and the memory plan of each size seen.

A call leases an arena, writes the addresses of the arrays into a table and makes ONE native call, which walks the
prepacked plan (see `jit.runtime`). For each new set of symbolic sizes the plan is made once, in Python, and kept.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

import numpy as np

from hybrid.backend import overlapping, refuse_leaked
from hybrid.garbage import collection_paused
from hybrid.graph import Graph, Value
from ndarray import allocation
from ndarray.array import NDArray
from ndarray.dims import Dim, evaluate, hint
from ndarray.settings import settings

from . import plan, runtime
from .keeper import Keeper
from .plan import Placement
from .recipe import LoopRecipe, Recipe

if TYPE_CHECKING:
    from .explain import ProgramReport

__all__ = ["Binding", "CompiledProgram", "arenas", "chosen", "symbol_places", "symbols_of", "thread_count"]

FORK_NANOSECONDS = 4_000
"""A launch whose estimated work per thread is below this many nanoseconds isn't worth another thread."""

PARTS_OF_A_THREAD = 16
"""Into so many at most a long launch is cut, so that a thread which is held up delays it by one of them."""

PART_NANOSECONDS = 8_000
"""Work that a part has at least."""

UNEVEN = 8
"""Threads share each step of a loop where some would have more than one of so many parts more of it than the average."""

APART = 128 << 10
"""Bytes between the private memory of two threads: what a processor fetches ahead beyond the end of one would take lines from
the other (measured: 9% of a 1x1 convolution's time)."""

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
    kernels: int  # where the program's table of kernels lies

    def __post_init__(self) -> None:
        long = self.work >= RELEASE_NANOSECONDS  # such calls let other Python threads run
        call = None if long else runtime.bound(self.plan.ctypes.data, self.kernels, self.checks.ctypes.data)
        for name, value in (
            ("address", self.plan.ctypes.data),
            ("checks_address", self.checks.ctypes.data),
            ("release", long),
            ("empty", allocation.empty if any(plan.nbytes(*o) >= allocation.ALIGNED_BYTES for o in self.outputs) else np.empty),
            ("call", call),
        ):
            object.__setattr__(self, name, value)

    address: int = field(init=False)
    checks_address: int = field(init=False)
    release: bool = field(init=False)
    empty: Callable[[tuple[int, ...], np.dtype], np.ndarray] = field(init=False)  # makes the outputs
    call: Callable[[list[np.ndarray]], int] | None = field(init=False)  # of a short one


ARENAS_KEPT = 16
"""Arenas that wait for callers: more than that many at once are rare."""


class _Arenas:
    """Arenas of the process that nobody uses. A call takes one for its duration; they are shared by all programs."""

    def __init__(self) -> None:
        self.free: list[np.ndarray] = []

    def forget(self) -> None:
        """Give the memory of those that nobody uses back."""
        self.free.clear()


arenas = _Arenas()
_run_arrays = runtime.run_arrays


class CompiledProgram:
    """See `hybrid.backend.Program`. `passes`, given, make of the graph what was lowered: they run when someone asks for that."""

    def __init__(
        self, graph: Graph, recipe: Recipe, kernels: Sequence[int], passes: Callable[[Graph], Graph] | None = None
    ):
        self._interface = graph  # passes don't change its name, its inputs and the numbers of those that are written
        self._passes, self.recipe = passes, recipe
        self.kernels = np.array(kernels, np.uint64)
        self._kernels_address = self.kernels.ctypes.data
        self._bindings: OrderedDict[tuple[tuple[int, ...], bool], Binding] = OrderedDict()
        self._lock = threading.RLock()
        self._inputs, self._outputs = len(graph.inputs), len(recipe.outputs)
        self.moving = sum(s.role == "moving" for s in recipe.storages)  # slots that loops need
        # where each symbol's value is read: (input, axis); symbols always stand alone on some axis of an input
        self._symbols = symbols_of(graph)
        self._keepers: WeakValueDictionary[tuple[int, ...], Keeper] = WeakValueDictionary()
        self._static = self.bind({}) if not self._symbols and not recipe.kept else None  # a Keeper has its own

    @property
    def graph(self) -> Graph:
        """What was lowered."""
        with self._lock:
            if self._passes is not None:
                with collection_paused():
                    self._interface = self._passes(self._interface)
                self._passes = None
            return self._interface

    @property
    def symbolic(self) -> bool:
        """Whether there are sizes that calls decide."""
        return bool(self._symbols)

    @property
    def arena_bytes(self) -> int:
        """Bytes of the largest arena that calls so far have asked for."""
        bindings = [*self._bindings.values(), *([self._static] if self._static else [])]
        return max((b.arena_bytes for b in bindings), default=0)

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
        sizes = binding.outputs
        if len(sizes) == 1:  # written out, as all of this function: a small graph takes less time than a call in Python
            outputs = [binding.empty(*sizes[0])]
        else:
            empty = binding.empty
            outputs = [empty(shape, dtype) for shape, dtype in sizes]
        free = arenas.free
        try:
            arena = free.pop()  # atomic
            if arena.nbytes < binding.arena_bytes:
                arena = plan.aligned_empty(binding.arena_bytes)
        except IndexError:
            arena = plan.aligned_empty(binding.arena_bytes)
        try:
            table, call = [arena, *arrays, *outputs, *kept], binding.call
            if call is not None:
                status = call(table)
            else:
                status = _run_arrays(table, binding.address, self._kernels_address, binding.checks_address)
            if status:
                self._run_copies(arena, arrays, [*outputs, *kept], binding)
        finally:
            free.append(arena)
            if len(free) > ARENAS_KEPT:
                del free[0]
        return outputs

    def sizes_of(self, arrays: Sequence[np.ndarray]) -> tuple[int, ...]:
        """The values of the graph's symbols in a call."""
        return tuple([arrays[i].shape[axis] for _, i, axis in self._symbols])

    def _run_copies(self, arena: np.ndarray, arrays: Sequence[np.ndarray], others: list[np.ndarray], binding: Binding) -> None:
        """Run with copies in place of arrays that are not contiguous, or lie over memory of one that is written."""
        refuse_leaked(arrays, self._interface.name)
        written = self._interface.state
        usable = [a if a.flags.c_contiguous and a.flags.aligned else a.copy(order="C") for a in arrays]
        for i, k in overlapping(usable, written):
            if k in written:
                name = self._interface.name
                raise ValueError(f"{name}: inputs {min(i, k)} and {max(i, k)} are both written and overlap in memory")
            usable[k] = usable[k].copy()
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
            elif storage.role not in ("part", "moving"):
                where[number] = (1 + storage.index + (self._inputs if storage.role == "output" else 0), 0)
        self._name_moving(where, 1 + len(slots))
        self._find_parts(where, sizes)
        packed, scratch, _ = self.pack(sizes, where, 0, range(len(self.recipe.launches)), threads)
        # scratch memory keeps its alignment, so only what lies beyond a whole number of cache lines is caught there
        arena = guarded_empty(plan.aligned(scratch), side)
        addresses = np.array([*[a.ctypes.data for a in (arena, *slots)], *[0] * self.moving], np.uint64)
        runtime.run(addresses, packed, self.kernels)
        for i in self._interface.state:
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
                    launches = [n for n in range(len(self.recipe.launches)) if not (kept and n in self.recipe.once)]
                    found = self._bindings[key] = self.bind(sizes, launches, [s for s, _ in self.recipe.kept] if kept else ())
                    if len(self._bindings) > BINDINGS_KEPT:
                        self._bindings.popitem(last=False)
        return found

    def bind(self, sizes: Mapping[str, int], launches: Sequence[int] | None = None, kept: Sequence[int] = ()) -> Binding:
        """Everything for these sizes; the launches and the `kept` storages are as for `plan_launches`."""
        launches = range(len(self.recipe.launches)) if launches is None else launches
        packed, placement, arena_bytes, work = self.plan_launches(sizes, launches, kept)
        outputs = tuple((tuple(evaluate(d, sizes) for d in shape), np.dtype(dtype)) for shape, dtype in self.recipe.outputs)
        inputs = [plan.nbytes(tuple(evaluate(d, sizes) for d in v.shape), v.dtype) for v in self._interface.inputs]
        checks = [len(inputs), len(self._interface.state), *inputs, *sorted(self._interface.state)]
        return Binding(packed, np.array(checks, np.int64), arena_bytes, outputs, placement, work, self._kernels_address)

    def plan_launches(
        self, sizes: Mapping[str, int], launches: Sequence[int], kept: Sequence[int] = ()
    ) -> tuple[np.ndarray, plan.Placement, int, int]:
        """(native plan, placement of the temporaries, bytes of the arena, nanoseconds of work) of the launches of these
        numbers, with the storages `kept` in slots of their own behind the outputs'."""
        where, placement = self.place(sizes, launches, kept)
        packed, scratch, work = self.pack(sizes, where, placement.total, launches)
        return packed, placement, placement.total + scratch, work

    def place(
        self, sizes: Mapping[str, int], launches: Sequence[int], kept: Sequence[int]
    ) -> tuple[dict[int, tuple[int, int]], Placement]:
        """(where each storage lies: slot and byte offset, the placement of the temporaries)."""
        recipe = self.recipe
        intervals, members = self._lifetimes(sizes, launches, kept)
        placement = plan.place(intervals)
        where = {}  # storage number -> (slot, byte offset)
        for slot, number in enumerate(kept, 1 + self._inputs + self._outputs):
            where[number] = (slot, 0)
        for number, offset in zip(members, placement.offsets, strict=True):
            where[number] = (0, offset)
        self._name_moving(where, 1 + self._inputs + self._outputs + len(kept))
        for number, storage in enumerate(recipe.storages):
            if storage.role == "input":
                where[number] = (1 + storage.index, 0)
            elif storage.role == "output":
                where[number] = (1 + self._inputs + storage.index, 0)
        self._find_parts(where, sizes)
        return where, placement

    def _name_moving(self, where: dict[int, tuple[int, int]], free: int) -> None:
        """Give the storages that move their slots, from number `free` on."""
        for number, storage in enumerate(self.recipe.storages):
            if storage.role == "moving":
                where[number] = (free + storage.index, 0)

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
        packer = _Packer(self.recipe, sizes, where, behind, threads)
        words = packer.steps(chosen(self.recipe.steps, frozenset(launches)))
        return np.array([packer.count + (self.moving << 32), *words], np.int64), packer.scratch_bytes, packer.work

    def _lifetimes(
        self, sizes: Mapping[str, int], launches: Sequence[int], kept: Sequence[int] = ()
    ) -> tuple[list[plan.Interval], list[int]]:
        """When each arena storage is alive, by position, and the storages' numbers; those that are `kept` apart."""
        first, last = _touches(self.recipe, chosen(self.recipe.steps, frozenset(launches)))
        members = [n for n, s in enumerate(self.recipe.storages) if s.role == "arena" and n in first and n not in kept]
        intervals = []
        for n in members:
            storage = self.recipe.storages[n]
            intervals.append(plan.Interval(evaluate(storage.size, sizes) * np.dtype(storage.dtype).itemsize, first[n], last[n]))
        return intervals, members

    # -- what is kept of weights
    def address(self, array: Any) -> int:
        """Where an array lies."""
        return array.ctypes.data

    def kernel_key(self, number: int) -> Any:
        """What identifies a kernel of the recipe in this process."""
        return int(self.kernels[number])

    def kept_memory(self, nbytes: int) -> Any:
        """Memory for what is kept."""
        return plan.aligned_empty(nbytes)

    def fill(self, launches: Sequence[int], constants: Mapping[int, Any], kept: Sequence[Any]) -> None:
        """Compute what is kept, from constant inputs."""
        packed, _, arena_bytes, _ = self.plan_launches({}, launches, [number for number, _ in self.recipe.kept])
        arenas.forget()  # calls that compute all of it need larger ones than those to come
        arena = plan.aligned_empty(arena_bytes)
        table = [arena] * (1 + self._inputs + self._outputs)
        for i, a in constants.items():
            table[1 + i] = np.ascontiguousarray(a)
        runtime.run_arrays([*table, *kept], packed.ctypes.data, self._kernels_address, _NO_CHECKS.ctypes.data)

    # -- for people
    def thread_counts(self, binding: Binding) -> Any:
        """A function that says how many threads run a launch."""
        from .explain import launch_plans

        found = iter(launch_plans(binding.plan))
        return lambda launch: int(next(found)[3]) & (1 << runtime.PARTS) - 1

    def measure(self, binding: Binding, arrays: Sequence[np.ndarray], later: Binding) -> tuple[list[float], float] | None:
        """The shortest time of each launch that has tasks, and that of a `later` call."""
        from .explain import launch_plans, measure

        return measure(self, binding, arrays, launch_plans(binding.plan), later)

    def limits(self, refresh: bool = False) -> Any:
        """What the machine can do."""
        from .limits import machine_limits

        return machine_limits(refresh=refresh)

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
        size = self._interface.inputs[i].shape[axis]
        return arrays[i].shape[axis] if arrays is not None else hint(size)


class _Packer:
    """The words of a native plan (see `jit.runtime`) for given sizes and places."""

    def __init__(self, recipe: Recipe, sizes: Mapping[str, int], where: Mapping[int, tuple[int, int]], scratch_at: int,
                 threads: int | None):
        self.recipe, self.sizes, self.where, self.scratch_at, self.threads = recipe, sizes, where, scratch_at, threads
        self.available = settings.num_threads
        self.work = self.scratch_bytes = self.count = 0

    def steps(self, steps: Sequence[Any], times: int = 1) -> list[int]:
        """The words of some steps that run so many times; `count` is how many records they are."""
        words: list[int] = []
        count = 0
        for x in steps:
            if isinstance(x, int):
                made = self.launch(self.recipe.launches[x], times)
            elif isinstance(x, LoopRecipe):
                made = self.loop(x, times)
            else:
                then, n = self.steps(x.then, times), self.count
                otherwise, m = self.steps(x.otherwise, times), self.count
                made = [runtime.BRANCH, 7 + len(then) + len(otherwise), *self.where[x.predicate], n, m, len(then)]
                made += [*then, *otherwise]
            words += made
            count += bool(made)
        self.count = count
        return words

    def launch(self, launch: Any, times: int) -> list[int]:
        """One launch; nothing where it has no tasks."""
        sizes = self.sizes
        tasks = evaluate(launch.tasks, sizes)
        if tasks <= 0:
            return []
        work = evaluate(launch.work, sizes)
        scratch = (evaluate(launch.scratch, sizes) + 63) // 64 * 64
        used = min(self.threads, tasks, 1023) if self.threads else thread_count(work, tasks, self.available)
        scratch += APART if used > 1 and scratch else 0
        split = used | _parts(work, tasks, used) << runtime.PARTS
        words = [launch.kernel, tasks, split, 0, self.scratch_at, scratch, len(launch.buffers), len(launch.arguments)]
        for b in launch.buffers:
            words += self.where[b]
        words += [evaluate(a, sizes) for a in launch.arguments]
        self.scratch_bytes = max(self.scratch_bytes, scratch * used)
        self.work += work * times
        return words

    def loop(self, loop: LoopRecipe, times: int) -> list[int]:
        """A loop with its body."""
        where, sizes = self.where, self.sizes
        storages = self.recipe.storages
        nowhere = (-1, 0)
        place = lambda s: nowhere if s < 0 else where[s]
        width = lambda s: np.dtype(storages[s].dtype).itemsize
        count = max(0, evaluate(loop.count, sizes))
        words = [*place(loop.limit), *place(loop.answer), *place(loop.taken)]
        words += [int(loop.reverse), len(loop.moving), len(loop.carried)]
        for storage, source, step in loop.moving:
            words += [where[storage][0], *where[source], evaluate(step, sizes) * width(source)]
        for current, new, later, initial, home, other in loop.carried:
            size = evaluate(storages[home].size, sizes) * width(home)
            words += [where[current][0], where[new][0], where[later][0], *where[initial], *where[home], *where[other], size]
        test, tests = self.steps(loop.test, times * count), self.count
        body, bodies = self.steps(loop.body, times * count), self.count
        strips, split, stride = self.strips(loop, count) if count and body else (0, 0, 0)
        words[9:9] = [strips, split, stride, 1 + max(slot for slot, _ in where.values())]
        return [runtime.LOOP, 6 + len(words) + len(test) + len(body), count, tests, len(test), bodies, *words, *test, *body]

    def strips(self, loop: LoopRecipe, count: int) -> tuple[int, int, int]:
        """How many strips of the body threads take, each through all steps, the threads and parts of that launch, and bytes
        from one's private memory to the next one's; zeros where threads had better share each step."""
        strips = evaluate(loop.strips, self.sizes)
        if not strips:
            return 0, 0, 0
        launch = self.recipe.launches[loop.body[0]]
        work, tasks = evaluate(launch.work, self.sizes), evaluate(launch.tasks, self.sizes)
        if self.threads:
            used = within = min(self.threads, strips)
        else:
            used, within = thread_count(work * count, strips, self.available), thread_count(work, tasks, self.available)
        uneven = -(-strips // used) * used * UNEVEN > strips * (UNEVEN + 1)
        if used < 2 or used < within or (uneven and within > 1):
            return 0, 0, 0
        scratch = (evaluate(launch.scratch, self.sizes) + 63) // 64 * 64
        scratch += APART if scratch else 0
        self.scratch_bytes = max(self.scratch_bytes, scratch * used)
        return strips, used | _parts(work * count, strips, used) << runtime.PARTS, scratch


def chosen(steps: Sequence[Any], launches: Collection[int]) -> list[Any]:
    """Those steps whose launches are wanted; loops and branches as a whole."""

    def first(x: Any) -> int | None:
        if isinstance(x, int):
            return x
        inside = (*x.test, *x.body) if isinstance(x, LoopRecipe) else (*x.then, *x.otherwise)
        return next((n for n in map(first, inside) if n is not None), None)

    return [x for x in steps if (n := first(x)) is None or n in launches]


def _touches(recipe: Recipe, chosen: Sequence[Any]) -> tuple[dict[int, int], dict[int, int]]:
    """The first and the last position at which each storage is needed. What a loop meets that is also needed outside of it is
    needed for as long as it runs."""
    touched: dict[int, list[tuple[int, tuple[int, ...]]]] = {}
    ranges: dict[int, tuple[int, int]] = {}
    at = 0

    def touch(numbers: Iterable[int], path: tuple[int, ...]) -> None:
        for n in numbers:
            if n >= 0:
                whole = recipe.storages[n]
                touched.setdefault(whole.index if whole.role == "part" else n, []).append((at, path))

    def visit(steps: Sequence[Any], path: tuple[int, ...]) -> None:
        nonlocal at
        for x in steps:
            if isinstance(x, int):
                touch(recipe.launches[x].buffers, path)
            elif isinstance(x, LoopRecipe):
                number, begin = len(ranges), at
                ranges[number] = (begin, begin)
                memory = [x.limit, x.taken, *[s for _, s, _ in x.moving], *[s for c in x.carried for s in c[3:]]]
                touch(memory, path)
                at += 1
                visit(x.test, (*path, number))
                touch([x.answer], (*path, number))
                at += 1
                visit(x.body, (*path, number))
                touch(memory, path)
                ranges[number] = (begin, at)
            else:
                touch([x.predicate], path)
                visit(x.then, path)
                visit(x.otherwise, path)
            at += 1

    visit(chosen, ())
    first: dict[int, int] = {}
    last: dict[int, int] = {}
    for number, places in touched.items():
        depth = 0
        paths = [p for _, p in places]
        while all(len(p) > depth and p[depth] == paths[0][depth] for p in paths):
            depth += 1
        spans = [ranges[p[depth]] if len(p) > depth else (n, n) for n, p in places]
        first[number], last[number] = min(a for a, _ in spans), max(b for _, b in spans)
    return first, last


_NO_CHECKS = np.zeros(2, np.int64)


def thread_count(work: int, tasks: int, available: int) -> int:
    """How many threads a launch is split over: each gets at least `FORK_NANOSECONDS` of work, and a task."""
    return max(1, min(available, tasks, work // FORK_NANOSECONDS, 1023))


def _parts(work: int, tasks: int, threads: int) -> int:
    """The parts of a launch for threads to take, more than there are threads where one may fall behind; 0: one for each."""
    parts = min(tasks, threads * PARTS_OF_A_THREAD, work // PART_NANOSECONDS, (1 << runtime.PARTS) - 1)
    parts -= parts % threads if parts < tasks else 0
    return parts if threads > 1 and parts >= 2 * threads else 0


def symbol_places(inputs: Iterable[Value]) -> list[tuple[str, int, int]]:
    """(symbol, number of an input, axis) of each symbol that stands alone on an axis: where its value is read."""
    places: dict[str, tuple[str, int, int]] = {}
    for i, value in enumerate(inputs):
        for axis, d in enumerate(value.shape):
            if isinstance(d, Dim) and len(d.terms) == 1 and d.terms[0][1] == 1 and len(d.terms[0][0]) == 1:
                name = d.terms[0][0][0]
                if isinstance(name, str):
                    places.setdefault(name, (name, i, axis))
    return list(places.values())


def symbols_of(graph: Graph) -> list[tuple[str, int, int]]:
    """The places of all symbols of a graph. Raises ValueError where one has none."""
    places = symbol_places(graph.inputs)
    missing = set(graph.symbols) - {name for name, _, _ in places}
    if missing:
        raise ValueError(f"graph {graph.name}: sizes {sorted(missing)} can't be read off any input")
    return places
