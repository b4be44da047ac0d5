"""HYBRID_TUNE=1: the cost model's best few schedules of a contraction, timed on this machine; the fastest is remembered.

A problem is an operation with its attributes, sizes (of symbolic ones those of the trace), dtypes, which operands are
weights, the machine and the number of threads. The first time that one is lowered, each candidate is compiled alone and run
on operands of its own, in turns, with the program's threads. The choice is kept in memory and in the cache folder, so the
next process neither measures nor differs.

Schedules only say in what order results are computed, not in what order a result's terms are added: a candidate that differs
from the model's own schedule in any bit of the result is dropped. So tuning never changes what a program computes, whatever
the clock says.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import llvmlite
import numpy as np

from hybrid.graph import Builder
from ndarray.array import NDArray, wrap
from ndarray.device import cpu
from ndarray.dims import product
from ndarray.op import ArrayType
from ndarray.settings import settings

from . import machine
from .cache import DiskCache, key_of
from .contraction import hint
from .hoist import Allowance, hoist
from .launch import Launch, Sink, Source, Storage
from .plain import plain_sink, plain_source
from .target import Target

__all__ = ["Statistics", "candidates", "forget", "schedule", "statistics"]

log = logging.getLogger("hybrid.tune")

SMALLEST = 1 << 16
"""Multiply-adds below which a problem is left to the model: a call is then most of the time."""

MOST_BYTES = 1 << 30
"""Of operands and result, beyond which nothing is tried."""

BUDGET = 0.25
"""Seconds that the candidates of one problem may run, all of them together, beside one run of each."""

WORTH = 0.97
"""A candidate replaces the model's schedule where it takes at most so much of its time."""


@dataclass
class Statistics:
    """What has been done in this process: problems that were measured, candidates that were dropped because they failed or gave
    other bits, problems whose choice came from disk."""

    measured: int = 0
    dropped: int = 0
    disk_hits: int = 0


statistics = Statistics()
_chosen: dict[str, dict[str, Any]] = {}
_lock = threading.RLock()


def forget() -> None:
    """Forget what this process remembers; the cache folder is as it was."""
    _chosen.clear()


def schedule(op: str, attrs: Mapping[str, Any], sources: Sequence[Source], sink: Sink, target: Target) -> dict[str, Any]:
    """The fields of the schedule that are to be other than the cost model's, for a contraction that is being lowered; none where
    the model's schedule is the fastest, or the problem isn't one for tuning: too small or too large, of another machine, or
    not of floats."""
    from .backend import generator_stamp

    shapes = [tuple(map(hint, s)) for s in (*[x.shape for x in sources], sink.shape)]
    weights = tuple(i for i, s in enumerate(sources) if s.constant)
    sizes = {"shape": tuple(map(hint, attrs["shape"]))} if "shape" in attrs else {}
    problem = _Problem(op, {**attrs, **sizes}, shapes[:-1], shapes[-1], sources[0].dtype, weights, target)
    if target.threads or target.triple != machine.host().triple or sink.beside > 1 or not problem.suits:
        return {}
    key = "tuned-" + key_of({
        "op": op, "attributes": sorted(problem.attrs.items()), "shapes": shapes, "dtype": problem.dtype, "weights": weights,
        "target": target, "threads": settings.num_threads, "generator": generator_stamp(), "llvmlite": llvmlite.__version__,
    })
    with _lock:
        found = _chosen.get(key)
        if found is None:
            disk = DiskCache(settings.cache_dir) if settings.cache_dir else None
            choices = candidates(op, target, problem.dtype)
            found = _remembered(disk, key, choices)
            if found is None:
                found, times = _measure(problem, choices)
                statistics.measured += 1
                log.info("%s %s: %s of %s", op, shapes, found or "as the model says", times)
                if disk:
                    disk.store(key, {"schedule": found, "microseconds": times}, b"")
            _chosen[key] = found
        return dict(found)


def candidates(op: str, target: Target, dtype: str) -> list[dict[str, Any]]:
    """Schedules worth a try, as overrides of the cost model's, which comes first. ``rank`` is the place of a register tile among
    those that the model likes best."""
    if not op.startswith("dot_general"):
        return [{"rank": r} if r else {} for r in range(6)]
    lanes = target.lanes(dtype)
    others: list[dict[str, Any]] = [{"wanted": 4}, {"wanted": 32}, {"kc": 512}, {"pack_b": "task"}]
    return [{}, {"rank": 1}, {"rank": 2}, {"rank": 3}, *([{"lanes": lanes // 2}] if lanes > 4 else []), *others]


def _remembered(disk: DiskCache | None, key: str, choices: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """What the cache folder says, if that is one of the choices."""
    found = disk.load(key) if disk else None
    if found is None:
        return None
    chosen = found[0].get("schedule") if isinstance(found[0], dict) else None
    if chosen not in choices:
        log.warning("cache entry %s doesn't hold a schedule; measuring instead", key[:18])
        return None
    statistics.disk_hits += 1
    return chosen


# -- measuring


@dataclass(frozen=True)
class _Problem:
    """A contraction of plain arrays."""

    op: str
    attrs: dict[str, Any]
    shapes: list[tuple[int, ...]]
    result: tuple[int, ...]
    dtype: str
    weights: tuple[int, ...]
    target: Target

    @property
    def suits(self) -> bool:
        """Whether it is worth tuning, and can be."""
        if self.dtype not in ("float32", "float64") or "weight_gradient" in self.op:  # whose parts are added in another order
            return False
        if self.op.startswith("dot_general"):
            terms = product(self.shapes[0][a] for a in self.attrs["contract"][0])
        else:
            terms = product(self.shapes[1][1:])
        arrays = [*self.shapes, self.result]
        work, nbytes = product(self.result) * terms, sum(map(product, arrays)) * np.dtype(self.dtype).itemsize
        return work >= SMALLEST and nbytes <= MOST_BYTES

    def arrays(self) -> list[NDArray]:
        """Operands."""
        r = np.random.default_rng(0)
        return [wrap(r.standard_normal(s).astype(self.dtype), cpu()) for s in self.shapes]

    def launches(self, schedule: dict[str, Any]) -> tuple[list[Launch], list[Storage], Allowance]:
        """The launches, the storages of operands and result, and what says whether weights may be kept in a larger form."""
        from .contract import CONTRACTIONS

        storages = [Storage(self.dtype, product(s)) for s in (*self.shapes, self.result)]
        allowance = Allowance([storages[i] for i in self.weights])
        sources = [plain_source(s, shape, i in self.weights) for i, (s, shape) in enumerate(zip(storages, self.shapes))]
        for i in self.weights:
            sources[i].allowance = allowance
        lower = CONTRACTIONS[self.op]
        x, y = sources
        return lower(self.attrs, x, y, plain_sink(storages[-1], self.result), self.target, (), schedule), storages, allowance


def _measure(problem: _Problem, choices: Sequence[dict[str, Any]]) -> tuple[dict[str, Any], list[tuple[str, float]]]:
    """The choice that runs fastest, and (choice, microseconds) of those that ran."""
    operands = problem.arrays()
    arrays = [a._data for a in operands]
    runs: list[tuple[dict[str, Any], Callable[[], Any]]] = []
    seen: set[Any] = set()
    expected = b""
    for choice in choices:
        try:
            launches, storages, allowance = problem.launches(dict(choice))
            same = tuple([(x.kernel, x.arguments, x.tasks) for x in launches])
            if same in seen:
                continue
            seen.add(same)
            program = _program(problem, launches, storages, allowance)
            if problem.weights:
                program = program.keeping({i: operands[i] for i in problem.weights})
            (result,) = program(arrays)
        except Exception as error:
            if not choice:
                raise  # the schedule that is used without tuning
            log.warning("%s: schedule %s can't be tried (%s: %s)", problem.op, choice, type(error).__name__, error)
            statistics.dropped += 1
            continue
        expected = expected or result.tobytes()
        if result.tobytes() != expected:
            statistics.dropped += 1
        else:
            runs.append((choice, partial(program, arrays)))
    times = _race([run for _, run in runs]) if len(runs) > 1 else [0.0]
    best = min(range(len(runs)), key=times.__getitem__)
    if best:  # once more, against the model's alone: the machine may have had a bad moment
        model, other = _race([runs[0][1], runs[best][1]])
        if max(times[best] / times[0], other / model) > WORTH:
            best = 0
    return runs[best][0], [(str(choice), round(t * 1e6, 2)) for (choice, _), t in zip(runs, times)]


def _program(problem: _Problem, launches: list[Launch], storages: list[Storage], allowance: Allowance) -> Any:
    """The contraction alone, compiled."""
    from .assemble import make_recipe
    from .backend import backend
    from .lower import Lowered
    from .program import CompiledProgram

    builder = Builder("tuning")
    x, y = (builder.input(ArrayType(s, np.dtype(problem.dtype))) for s in problem.shapes)
    graph = builder.build(builder.emit(problem.op, x, y, **problem.attrs))
    kept = hoist(launches, {storages[i] for i in problem.weights}, set(storages), allowance.admitted)
    lowered = Lowered(graph, [*launches], tuple(storages[:-1]), (storages[-1],), kept=kept)
    compiler = backend if backend.target == problem.target else type(backend)(problem.target)
    recipe = make_recipe(lowered, compiler.native_kernels([launch.kernel for launch in launches]))
    return CompiledProgram(graph, recipe, [compiler.address(k) for k in recipe.kernels])


def _race(runs: Sequence[Callable[[], Any]]) -> list[float]:
    """The least seconds of a call of each, run in turns, so that all meet the same moments of a machine. Those that are clearly
    slower leave, the first never."""
    for run in runs:
        run()  # from now on weights are kept
    times = [float("inf")] * len(runs)
    clock, alive, turn = time.perf_counter, list(range(len(runs))), 0
    begin = clock()
    while turn < 2 or (len(alive) > 1 and clock() - begin < BUDGET):
        for i in alive:
            run, count = runs[i], 1 if turn == 0 else max(1, min(50, int(2e-4 / times[i])))
            start = clock()
            for _ in range(count):
                run()
            times[i] = min(times[i], (clock() - start) / count)
        turn += 1
        if turn > 4:
            limit = min(times) * (1 + 1 / turn)
            alive = [i for i in alive if not i or times[i] <= limit]
    return times
