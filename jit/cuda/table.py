"""A recipe for given sizes as what a device is told to do: tables of prepacked launches, and between them the loops and
branches that depend on data, for which the host reads a number.

The arguments of all launches of a table lie one after the other in one vector of int64 words. An address in it is that of a
slot (the arena, an input, an output, what is kept) plus an offset, so a call fills in all addresses by one addition.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ndarray.dims import evaluate

from ..recipe import LaunchRecipe, LoopRecipe, Recipe
from .driver import Driver, Record, layout_of
from .ranges import fits_int32

__all__ = ["Function", "Module", "Plan", "Table", "make_plan"]

UNROLLED = 20_000
"""Launches of loops with a known number of steps that are written out, in one table."""

SPILLED = 256 << 20
"""Bytes of private memory in all blocks of a launch that doesn't find room in shared memory."""

STEPS_KEPT = 1024
"""Tables of steps that a loop with an unknown number of them remembers."""

Place = tuple[int, int]


class Module:
    """CUDA C, loaded with indices of 32 or of 64 bits when it is first needed."""

    def __init__(self, driver: Driver, source: str, symbols: Sequence[str]):
        self.driver, self.source, self.symbols = driver, source, tuple(symbols)
        self._loaded: dict[bool, dict[str, Any]] = {}

    def functions(self, wide: bool) -> dict[str, Any]:
        """The functions by symbol."""
        found = self._loaded.get(wide)
        if found is None:
            found = self._loaded[wide] = self.driver.load(self.source, self.symbols, wide)
        return found


@dataclass(frozen=True)
class Function:
    """A kernel: its module and symbol, and the threads that do a task together. Without threads it is a step of a library,
    whose description is `symbol`."""

    module: Module | None
    symbol: str
    lanes: int
    ranges: Sequence[Sequence[Any]] = ()  # by which `fits_int32` tells whether 32-bit indices do


@dataclass(frozen=True)
class Table:
    """Launches, as `prepared` by the driver. `words[places] = bases[slots] + offsets` completes their arguments."""

    records: tuple[Record, ...]
    prepared: Any
    words: np.ndarray
    places: np.ndarray
    slots: np.ndarray
    offsets: np.ndarray

    def filled(self, bases: np.ndarray) -> np.ndarray:
        """The words for the slots' addresses."""
        words = self.words.copy()
        words[self.places] = bases[self.slots] + self.offsets
        return words

    def run(self, driver: Driver, bases: np.ndarray) -> None:
        """Launch all."""
        driver.submit(self.prepared, self.filled(bases))


class Plan:
    """The parts in order. `table` is the only part, where it is one: then it can be captured."""

    def __init__(self, parts: Sequence[Any]):
        self.parts = tuple(parts)
        self.table = self.parts[0] if len(self.parts) == 1 and isinstance(self.parts[0], Table) else None

    def run(self, driver: Driver, bases: np.ndarray) -> None:
        """Launch everything, reading what decides on the way."""
        for part in self.parts:
            part.run(driver, bases)


def make_plan(recipe: Recipe, functions: Sequence[Function], sizes: Mapping[str, int], where: Mapping[int, Place],
              spill_at: int, steps: Sequence[Any], driver: Driver) -> tuple[Plan, int, int]:
    """(the plan of some steps for storages that lie at `where` (slot, byte offset), bytes of private memory behind `spill_at`
    in the arena, how many launches there are)."""
    maker = _Maker(recipe, functions, sizes, spill_at, driver)
    plan = maker.plan(steps, dict(where))
    return plan, maker.spilled, maker.count


class _Maker:
    def __init__(self, recipe: Recipe, functions: Sequence[Function], sizes: Mapping[str, int], spill_at: int, driver: Driver):
        self.recipe, self.functions, self.sizes, self.spill_at, self.driver = recipe, functions, sizes, spill_at, driver
        self.spilled = self.count = 0
        self.parts_of: dict[int, list[int]] = {}
        for number, s in enumerate(recipe.storages):
            if s.role == "part":
                self.parts_of.setdefault(s.index, []).append(number)

    def plan(self, steps: Sequence[Any], where: dict[int, Place]) -> Plan:
        """The plan of some steps."""
        parts = _Parts(self.driver)
        self.add(parts, steps, where)
        return parts.plan()

    def add(self, parts: _Parts, steps: Sequence[Any], where: dict[int, Place]) -> None:
        """Append steps to what there is."""
        for x in steps:
            if isinstance(x, int):
                self.launch(parts, self.recipe.launches[x], where)
            elif isinstance(x, LoopRecipe):
                self.loop(parts, x, where)
            else:
                parts.close(_Branch(where[x.predicate], self.plan(x.then, where), self.plan(x.otherwise, where)))

    def launch(self, parts: _Parts, launch: LaunchRecipe, where: Mapping[int, Place]) -> None:
        """One launch; nothing where it has no tasks."""
        sizes = self.sizes
        tasks = evaluate(launch.tasks, sizes)
        if tasks <= 0:
            return
        function = self.functions[launch.kernel]
        self.count += 1
        arguments = [evaluate(a, sizes) for a in launch.arguments]
        buffers = [self.recipe.storages[b] for b in launch.buffers]
        elements = [evaluate(s.size, sizes) for s in buffers]
        if function.module is None:
            from .calls import bind_step

            call = bind_step(self.driver, function.symbol, elements, arguments)
            workspace: Place | int = 0
            if call.workspace:  # which steps and kernels share, one after the other
                at = (self.spill_at + 255) // 256 * 256
                self.spilled = max(self.spilled, at - self.spill_at + call.workspace)
                workspace = 0, at
            parts.add(Record(call, 0, 0, 0, 0, 0, 0), [*[where[b] for b in launch.buffers], workspace])
            return
        scratch = (evaluate(launch.scratch, sizes) + 63) // 64 * 64
        layout = layout_of(function.lanes)
        most, exchange = layout.workers, layout.exchange_bytes
        room = (self.driver.shared_limit - exchange) // scratch if scratch else most
        workers = max(1, min(most, tasks, room))
        blocks = -(-tasks // workers)
        spills = room < 1
        if spills:
            workers = min(most, tasks)
            blocks = max(1, min(-(-tasks // workers), SPILLED // (workers * scratch)))
            self.spilled = max(self.spilled, workers * blocks * scratch)
        shared = exchange + (0 if spills else workers * scratch)
        values: list[int | Place] = [where[b] for b in launch.buffers]
        values += arguments
        values += [0, tasks, (0, self.spill_at) if spills else 0, scratch]
        wide = not fits_int32(function.ranges, arguments, tasks)
        handle = function.module.functions(wide)[function.symbol]
        parts.add(Record(handle, blocks, layout.lanes, workers, shared, 0, 0), values)

    # -- loops
    def loop(self, parts: _Parts, loop: LoopRecipe, where: dict[int, Place]) -> None:
        """A loop: written out where the number of its steps is known."""
        count = max(0, evaluate(loop.count, self.sizes))
        if loop.limit >= 0 or loop.answer >= 0 or count * len(loop.body) > UNROLLED or not _is_flat(loop.body):
            parts.close(_Loop(self, loop, count, where))
            return
        for i in range(count):
            self.add(parts, loop.body, self.moved(loop, where, i, count))
        if not count:
            self.finish(parts, loop, where, 0, 0)

    def moved(self, loop: LoopRecipe, where: Mapping[int, Place], i: int, count: int) -> dict[int, Place]:
        """Where everything lies in step i of `count`."""
        storages = self.recipe.storages
        found = dict(where)
        t = count - 1 - i if loop.reverse else i
        changed = []
        for storage, source, step in loop.moving:
            slot, offset = where[source]
            found[storage] = slot, offset + t * evaluate(step, self.sizes) * np.dtype(storages[source].dtype).itemsize
            changed.append(storage)
        for current, new, later, initial, home, other in loop.carried:
            at = lambda k, home=home, other=other: where[home if (count - 1 - k) % 2 == 0 else other]
            found[current] = where[initial] if i == 0 else at(i - 1)
            found[new], found[later] = at(i), at(i + 1)
            changed += [current, new, later]
        for whole in changed:
            for number in self.parts_of.get(whole, ()):
                part, (slot, offset) = storages[number], found[whole]
                found[number] = slot, offset + evaluate(part.offset, self.sizes) * np.dtype(part.dtype).itemsize
        return found

    def finish(self, parts: _Parts, loop: LoopRecipe, where: Mapping[int, Place], taken: int, count: int) -> None:
        """Bring what is carried home after `taken` steps, of `count` that were expected."""
        for _, _, _, initial, home, other in loop.carried:
            source = where[initial] if taken == 0 else where[home if (count - taken) % 2 == 0 else other]
            size = evaluate(self.recipe.storages[home].size, self.sizes) * np.dtype(self.recipe.storages[home].dtype).itemsize
            if source != where[home] and size:
                parts.add(Record(None, 0, 0, 0, 0, 0, 0), [where[home], source, size])


def _is_flat(steps: Sequence[Any]) -> bool:
    """Whether the host need not decide anything within."""
    return all(
        isinstance(x, int) or (isinstance(x, LoopRecipe) and x.limit < 0 and x.answer < 0 and _is_flat(x.body)) for x in steps
    )


class _Parts:
    """Collects launches, and cuts tables where the host has to decide."""

    def __init__(self, driver: Driver) -> None:
        self.driver = driver
        self.parts: list[Any] = []
        self.records: list[Record] = []
        self.words: list[int] = []
        self.addresses: list[tuple[int, int, int]] = []

    def add(self, record: Record, values: Sequence[int | Place]) -> None:
        """A launch with its arguments: numbers, and places in slots."""
        begin = len(self.words)
        for v in values:
            if isinstance(v, tuple):
                self.addresses.append((len(self.words), *v))
                v = 0
            self.words.append(v)
        self.records.append(
            Record(record.function, record.blocks, record.lanes, record.workers, record.shared, begin, len(self.words)))

    def close(self, part: Any = None) -> None:
        """End the table at hand, and append a part."""
        if self.records:
            places, slots, offsets = np.array(self.addresses, np.int64).reshape(-1, 3).T.copy()
            words = np.array(self.words, np.int64)
            self.parts.append(Table(tuple(self.records), self.driver.prepare(self.records), words, places, slots, offsets))
            self.records, self.words, self.addresses = [], [], []
        if part is not None:
            self.parts.append(part)

    def plan(self) -> Plan:
        """All parts."""
        self.close()
        return Plan(self.parts)


class _Branch:
    def __init__(self, predicate: Place, then: Plan, otherwise: Plan):
        self.predicate, self.then, self.otherwise = predicate, then, otherwise

    def run(self, driver: Driver, bases: np.ndarray) -> None:
        slot, offset = self.predicate
        (self.then if driver.read(int(bases[slot]) + offset, "bool") else self.otherwise).run(driver, bases)


class _Loop:
    """A loop whose number of steps the host finds out."""

    def __init__(self, maker: _Maker, loop: LoopRecipe, count: int, where: dict[int, Place]):
        self.maker, self.loop, self.count, self.where = maker, loop, count, where
        self.tests: dict[Any, Plan] = {}
        self.bodies: dict[Any, Plan] = {}
        if count:  # so that private memory is counted
            moved = maker.moved(loop, where, 0, count)
            maker.plan(loop.test, moved)
            maker.plan(loop.body, moved)

    def run(self, driver: Driver, bases: np.ndarray) -> None:
        maker, loop, where = self.maker, self.loop, self.where
        at = lambda place: int(bases[place[0]]) + place[1]
        count = self.count
        if loop.limit >= 0:
            count = max(0, min(count, driver.read(at(where[loop.limit]), "int64")))
        taken = 0
        while taken < count:
            if loop.answer >= 0:
                self.step(self.tests, loop.test, taken, count).run(driver, bases)
                if not driver.read(at(where[loop.answer]), "bool"):
                    break
            self.step(self.bodies, loop.body, taken, count).run(driver, bases)
            taken += 1
        parts = _Parts(driver)
        maker.finish(parts, loop, where, taken, count)
        parts.plan().run(driver, bases)
        if loop.taken >= 0:
            driver.upload(at(where[loop.taken]), np.array([taken], np.int64))

    def step(self, known: dict[Any, Plan], steps: Sequence[Any], i: int, count: int) -> Plan:
        """The launches of step i of `count`."""
        t = count - 1 - i if self.loop.reverse else i
        key = t, i == 0, (count - i) % 2
        found = known.get(key)
        if found is None:
            if len(known) >= STEPS_KEPT:
                known.clear()
            found = known[key] = self.maker.plan(steps, self.maker.moved(self.loop, self.where, i, count))
        return found
