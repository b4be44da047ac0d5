"""What a compiled program does, launch by launch, as data and as text: the report of ``net.explain(x)``.

Each launch is run by itself on real buffers, several times in program order, so that every one finds in the caches what
its predecessors left there; the shortest time counts. Floating operations are those of the mathematics (a contraction's
multiplications and additions, one for each element that an elementwise op computes or a reduction reads); bytes are the
arrays that a launch reads and writes, each counted whole and once (of a table in which rows are looked up, as much as is taken),
so a rate above the copy bandwidth means that they came from the caches.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hybrid.graph import Atom, Equation, Value, every_equation
from ndarray import allocation
from ndarray.dims import Size, evaluate, product
from ndarray.op import Elementwise, Reduction, Template

from . import plan, runtime
from .limits import Limits
from .recipe import LoopRecipe

if TYPE_CHECKING:
    from .program import Binding, CompiledProgram

__all__ = [
    "CutReport", "KernelReport", "MemoryReport", "NotFused", "ProgramReport", "StorageReport", "launch_plans", "measure",
    "operations_of", "report",
]


@dataclass(frozen=True)
class KernelReport:
    """One launch.

    name        of the kernel
    operations  the equations computed, by op; empty for a helper (a padded copy, packing) of the launch that has them
    lines       the user's lines that made them, "file.py:12"
    blocks      the library's Blocks that they belong to, "Conv2D 0"
    note        how it is computed
    tasks       independent pieces of work, split over `threads`
    flops       floating operations
    bytes       of the arrays read and written
    seconds     measured; None where nothing was measured
    width       bytes of the widest floating type (wider ones have a lower peak)
    repeats     how often a call runs it, if it stands in a loop; all other numbers are those of one time
    kept        whether it runs when weights have changed only; its results are kept between calls
    """

    number: int
    name: str
    operations: tuple[str, ...]
    lines: tuple[str, ...]
    blocks: tuple[str, ...]
    note: str
    tasks: int
    threads: int
    flops: int
    bytes: int
    seconds: float | None = None
    width: int = 4
    limits: Limits | None = None
    kept: bool = False
    repeats: int = 1

    @property
    def gflops(self) -> float | None:
        """Floating operations a second, in 10^9."""
        return self.flops / self.seconds / 1e9 if self.seconds else None

    @property
    def gigabytes(self) -> float | None:
        """Bytes a second, in 10^9."""
        return self.bytes / self.seconds / 1e9 if self.seconds else None

    @property
    def share_of_peak(self) -> float | None:
        """Of what the machine's threads together can do in registers."""
        return self.gflops / (self.limits.gflops * 4 / self.width) if self.gflops is not None and self.limits else None

    @property
    def share_of_bandwidth(self) -> float | None:
        """Of the speed of a copy in memory."""
        return self.gigabytes / self.limits.gigabytes if self.gigabytes is not None and self.limits else None


@dataclass(frozen=True)
class NotFused:
    """Launch `consumer` reads what `producer` computes, and they were not made one, for `reason`."""

    producer: int
    consumer: int
    reason: str

    def __str__(self) -> str:
        return f"{self.producer} and {self.consumer} stay apart: {self.reason}"


@dataclass(frozen=True)
class StorageReport:
    """A temporary: `bytes` at `offset` in the arena, alive from launch `first` to launch `last`."""

    offset: int
    bytes: int
    first: int
    last: int


@dataclass(frozen=True)
class MemoryReport:
    """The memory plan: exact before anything runs.

    arena       bytes that hold all temporaries; `unshared` is what they would take if no byte were used twice
    kept        bytes computed from weights, which are kept between calls
    scratch     private memory of the threads, behind the arena
    """

    arena: int
    unshared: int
    scratch: int
    temporaries: tuple[StorageReport, ...]
    kept: int = 0

    def __str__(self) -> str:
        saved = f" ({1 - self.arena / self.unshared:.0%} saved by reuse)" if self.unshared > self.arena else ""
        kept = f", kept between calls {self.kept:,} bytes" if self.kept else ""
        return (f"memory plan: an arena of {self.arena:,} bytes for {len(self.temporaries)} temporaries of "
                f"{self.unshared:,} bytes{saved}, scratch {self.scratch:,} bytes{kept}")


@dataclass(frozen=True)
class ProgramReport:
    """A program for given sizes. `sizes` are the values of its symbols; `seconds` the time of a whole native call."""

    name: str
    equations: int
    sizes: Mapping[str, int]
    kernels: tuple[KernelReport, ...]
    not_fused: tuple[NotFused, ...]
    memory: MemoryReport
    guards: tuple[str, ...] = ()
    seconds: float | None = None
    limits: Limits | None = None

    def __str__(self) -> str:
        return self._text

    @cached_property
    def _text(self) -> str:
        at = " for " + ", ".join(f"{k}={v}" for k, v in self.sizes.items()) if self.sizes else ""
        once = sum(k.kept for k in self.kernels)
        head = f"{self.name}{at}: {self.equations} equations in {len(self.kernels) - once} kernel launches"
        if once:
            head += f" (and {once} when weights have changed)"
        if self.seconds is not None:
            flops = sum(k.flops * k.repeats for k in self.kernels)
            head += f", {self.seconds * 1e6:,.1f} us a call"
            if flops:
                head += f", {flops / 1e6:,.2f} MFLOP at {flops / self.seconds / 1e9:,.1f} GFLOP/s"
        lines = [head]
        if self.limits:
            lines.append(f"machine: {self.limits}")
        lines += _table(self.kernels)
        lines += [f"  {reason}" for reason in self.not_fused]
        lines += [f"  valid where {guard}" for guard in self.guards]
        lines.append(str(self.memory))
        return "\n".join(lines)


@dataclass(frozen=True)
class CutReport:
    """A program that the host runs a part of: the reports of its native segments, and a row for each step of the host's
    (named "argsort on the host", with the reason as its note), in order."""

    name: str
    equations: int
    sizes: Mapping[str, int]
    parts: tuple[ProgramReport | CutReport | KernelReport, ...]
    guards: tuple[str, ...] = ()

    @property
    def cuts(self) -> tuple[KernelReport, ...]:
        """The steps of the host."""
        return tuple(p for p in self.parts if isinstance(p, KernelReport))

    @property
    def segments(self) -> tuple[Any, ...]:
        """The native programs."""
        return tuple(p for p in self.parts if not isinstance(p, KernelReport))

    @property
    def kernels(self) -> tuple[KernelReport, ...]:
        """The launches of all segments and the steps of the host, in order."""
        every = [k for p in self.parts for k in ((p,) if isinstance(p, KernelReport) else p.kernels)]
        return tuple(replace(k, number=n) for n, k in enumerate(every))

    @property
    def not_fused(self) -> tuple[NotFused, ...]:
        """Of all segments, with the numbers of `kernels`."""
        found, begin = [], 0
        for part in self.parts:
            if isinstance(part, KernelReport):
                begin += 1
            else:
                found += [NotFused(n.producer + begin, n.consumer + begin, n.reason) for n in part.not_fused]
                begin += len(part.kernels)
        return tuple(found)

    @property
    def memory(self) -> MemoryReport:
        """The largest arena: segments use the same one after the other. What passes between the steps comes on top."""
        memories = [p.memory for p in self.segments]
        most = lambda name: max((getattr(m, name) for m in memories), default=0)
        return MemoryReport(most("arena"), most("unshared"), most("scratch"), (), sum(m.kept for m in memories))

    def __str__(self) -> str:
        return self._text

    @cached_property
    def _text(self) -> str:
        cuts, segments = len(self.cuts), len(self.segments)
        lines = [f"{self.name}: {self.equations} equations in {segments} native segments, cut by {cuts} steps on the host"]
        for part in self.parts:
            if isinstance(part, KernelReport):
                time = f", {part.seconds * 1e6:,.1f} us" if part.seconds is not None else ""
                where = "   # " + ", ".join([*part.blocks, *part.lines]) if part.lines else ""
                lines.append(f"-- {part.name}{time}: {part.note}{where}")
            else:
                lines.append(str(part))
        return "\n".join([*lines, *(f"valid where {guard}" for guard in self.guards)])


def _table(kernels: Sequence[KernelReport]) -> list[str]:
    """The launches as aligned lines."""
    total = sum(k.seconds * k.repeats for k in kernels if k.seconds is not None and not k.kept) or 1.0
    width = max([len(k.name) for k in kernels], default=0)
    measured = any(k.seconds is not None for k in kernels)
    head = f"  {'#':>3} {'kernel':<{width}} {'tasks':>7} {'thr':>3} {'MFLOP':>9} {'kB':>9}"
    if measured:
        head += f" {'us':>9} {'share':>5} {'GFLOP/s':>8} {'peak':>5} {'GB/s':>6} {'copy':>5}"
    lines = [head + "  operations"]
    for k in kernels:
        line = f"  {k.number:>3} {k.name:<{width}} {k.tasks:>7} {k.threads:>3} {k.flops / 1e6:>9.3f} {k.bytes / 1e3:>9.1f}"
        if measured and k.seconds is not None:
            share = "once" if k.kept else f"{k.seconds * k.repeats / total:.0%}"
            line += f" {k.seconds * 1e6:>9.1f} {share:>5} {k.gflops or 0:>8.1f} {k.share_of_peak or 0:>5.0%}" \
                    f" {k.gigabytes or 0:>6.1f} {k.share_of_bandwidth or 0:>5.0%}"
        if k.repeats != 1:
            line += f"  {k.repeats} times"
        where = "   # " + ", ".join([*k.blocks, *k.lines]) if k.lines else ""
        lines.append(f"{line}  {' '.join(k.operations) or f'({k.note})'}{where}")
    return lines


# -- making one

def report(
    program: CompiledProgram, binding: Binding, sizes: Mapping[str, int], arrays: Sequence[np.ndarray] | None
) -> ProgramReport:
    """The report of a program bound to sizes; with `arrays` (its inputs, which are not written), measured."""
    recipe, equations = program.recipe, every_equation(program.graph)
    threads = program.thread_counts(binding)
    later = program.bound(tuple(sizes.values()), kept=True) if recipe.kept else binding
    tasks = [evaluate(launch.tasks, sizes) for launch in recipe.launches]
    numbers = [i for i, n in enumerate(tasks) if n > 0]  # launches without tasks are not in the plan
    times, whole, limits = dict.fromkeys(numbers, None), None, None
    if arrays is not None:
        measured = program.measure(binding, arrays, later)
        if measured is None or len(measured[0]) != len(numbers):  # the device has no times worth telling
            arrays = None
    if arrays is not None and measured is not None:
        seconds, whole = measured
        times, limits = dict(zip(numbers, seconds, strict=True)), program.limits()
        fastest = max((_flops(recipe.launches[i].equations, equations, sizes) / t for i, t in times.items() if t), default=0)
        if limits and fastest > limits.gflops * 1e9:  # the machine was busy when it was measured
            limits = program.limits(refresh=True)
    main = _main_launches(recipe, sizes)
    repeats = _repeats(recipe, sizes)
    kernels = []
    for i, launch in enumerate(recipe.launches):
        computed = [equations[e] for e in launch.equations] if main.get(launch.equations) == i else []
        storages = [recipe.storages[b] for b in launch.buffers]
        widths = [np.dtype(s.dtype).itemsize for s in storages if s.dtype in ("float32", "float64")]
        kernels.append(KernelReport(
            i, launch.name, tuple(eq.op.name.removesuffix(CHANNELS_LAST) for eq in computed),
            _lines(equations[e] for e in launch.equations),
            tuple(dict.fromkeys(eq.source.block for e in launch.equations if (eq := equations[e]).source and eq.source.block)),
            launch.note, tasks[i], threads(launch) if tasks[i] > 0 else 0,
            _flops(launch.equations, equations, sizes) if computed else 0,
            _bytes(storages, [equations[e] for e in launch.equations], program.graph.inputs, sizes),
            times.get(i, 0.0 if arrays is not None else None), max(widths, default=4), limits, i in recipe.once, repeats[i],
        ))
    apart = tuple(NotFused(main[p], main[c], reason) for p, c, reason in _apart(recipe) if p in main and c in main)
    placement, temporaries = later.placement, []
    run = [n for n in range(len(recipe.launches)) if n not in recipe.once]
    intervals, _ = program._lifetimes(sizes, run, [n for n, _ in recipe.kept])
    for offset, interval in zip(placement.offsets, intervals):
        temporaries.append(StorageReport(offset, interval.size, interval.first, interval.last))
    storages = [recipe.storages[n] for n, _ in recipe.kept]
    kept = sum(evaluate(s.size, sizes) * np.dtype(s.dtype).itemsize for s in storages)
    memory = MemoryReport(placement.total, placement.sum, later.arena_bytes - placement.total, tuple(temporaries), kept)
    guards = tuple(map(str, program.graph.guards))
    return ProgramReport(program.graph.name, len(equations), dict(sizes), tuple(kernels), apart, memory, guards, whole, limits)


def _bytes(storages: Sequence[Any], equations: Sequence[Equation], inputs: Sequence[Value], sizes: Mapping[str, int]) -> int:
    """Bytes of the storages that a launch computes these equations with."""
    taken: dict[Atom, int] = {}
    for eq in equations:
        if eq.op.name == "take":
            taken[eq.inputs[0]] = taken.get(eq.inputs[0], 0) + int(evaluate(product(eq.output.shape), sizes))
    total = 0
    for s in storages:
        size = int(evaluate(s.size, sizes))
        if s.role == "input":
            size = min(size, taken.get(inputs[s.index], size))
        total += size * np.dtype(s.dtype).itemsize
    return total


def _main_launches(recipe: Any, sizes: Mapping[str, int]) -> dict[tuple[int, ...], int]:
    """For each set of equations, which launch computes them; others with the same set help it."""
    rank = lambda launch: (not launch.note.startswith("pack"), evaluate(launch.work, sizes))
    found: dict[tuple[int, ...], int] = {}
    for i, launch in enumerate(recipe.launches):
        best = found.get(launch.equations)
        if launch.equations and (best is None or rank(launch) > rank(recipe.launches[best])):
            found[launch.equations] = i
    return found


def _repeats(recipe: Any, sizes: Mapping[str, int]) -> dict[int, int]:
    """How often a call runs each launch (at most)."""
    found: dict[int, int] = {}

    def visit(steps: Sequence[Any], times: int) -> None:
        for x in steps:
            if isinstance(x, int):
                found[x] = times
            elif isinstance(x, LoopRecipe):
                visit((*x.test, *x.body), times * max(0, evaluate(x.count, sizes)))
            else:
                visit((*x.then, *x.otherwise), times)

    visit(recipe.steps, 1)
    return found


def _apart(recipe: Any) -> list[tuple[tuple[int, ...], tuple[int, ...], str]]:
    owner = {e: launch.equations for launch in recipe.launches for e in launch.equations}
    return [(owner.get(p, ()), owner.get(c, ()), reason) for p, c, reason in recipe.not_fused]


def _lines(equations: Any) -> tuple[str, ...]:
    return tuple(dict.fromkeys(f"{Path(eq.source.file).name}:{eq.source.line}" for eq in equations if eq.source))


def _flops(numbers: Sequence[int], equations: Sequence[Equation], sizes: Mapping[str, int]) -> int:
    return sum(evaluate(operations_of(equations[e]), sizes) for e in numbers)


def operations_of(eq: Equation) -> Size:
    """How many floating operations an equation stands for."""
    out, attrs, lower = eq.outputs[0], eq.attrs, eq.op.lower
    if isinstance(lower, Template):
        name = lower.name
        if name in ("dot_general", "dot_integer"):
            return 2 * product(out.shape) * product(eq.inputs[0].shape[a] for a in attrs["contract"][0])
        if name == "convolution":
            return 2 * product(out.shape) * product(eq.inputs[1].shape[1:])
        if name == "convolution_data_gradient":
            return 2 * product(eq.inputs[0].shape) * product(eq.inputs[1].shape[1:])
        if name == "convolution_weight_gradient":
            return 2 * product(eq.inputs[1].shape) * product(out.shape[1:])
        if name in ("attention", "attention_gradient"):  # products of queries and keys, of which `causal` leaves half
            (*_, keys, _, e), width = eq.inputs[1].shape, eq.inputs[2].shape[-1]
            work = 2 * product(eq.inputs[0].shape[:-1]) * keys * (e + width if name == "attention" else 3 * e + 2 * width)
            return work // 2 if attrs["causal"] else work
        return product(eq.inputs[-1].shape)
    if isinstance(lower, Reduction):
        return product(out.shape) * product(lower.domain(*(a.type for a in eq.inputs), **attrs))
    if isinstance(lower, Elementwise) and out.dtype.kind == "f" and eq.op.name not in ("cast", "copy", "stop_gradient"):
        return product(out.shape)
    return 0


CHANNELS_LAST = "_channels_last"
"""How the names of ops end that the layout pass put in the place of the user's."""


# -- measuring

def launch_plans(packed: np.ndarray) -> list[np.ndarray]:
    """A native plan cut into plans of one launch each, those in loops and branches too."""
    plans: list[np.ndarray] = []

    def cut(at: int, count: int) -> int:
        for _ in range(count):
            kind = int(packed[at])
            if kind == runtime.LOOP:
                inside = at + 19 + 4 * int(packed[at + 13]) + 10 * int(packed[at + 14])
                at = cut(cut(inside, int(packed[at + 3])), int(packed[at + 5]))
            elif kind == runtime.BRANCH:
                at = cut(cut(at + 7, int(packed[at + 4])), int(packed[at + 5]))
            else:
                end = at + runtime.LAUNCH_HEADER + 2 * int(packed[at + 6]) + int(packed[at + 7])
                plans.append(np.concatenate([np.ones(1, np.int64), packed[at:end]]))
                at = end
        return at

    cut(1, int(packed[0]) & 0xFFFFFFFF)
    return plans


def measure(
    program: CompiledProgram, binding: Binding, arrays: Sequence[np.ndarray], plans: Sequence[np.ndarray],
    later: Binding, seconds: float = 0.05, rounds: tuple[int, int] = (3, 50),
) -> tuple[list[float], float]:
    """The shortest time of each launch, and of a `later` call, which finds what is kept; on copies of the arrays."""
    buffers = [plan.aligned_empty(max(binding.arena_bytes, later.arena_bytes)), *map(allocation.array, arrays)]
    buffers += [allocation.empty(shape, dtype) for shape, dtype in binding.outputs]
    storages = [program.recipe.storages[n] for n, _ in program.recipe.kept]
    kept = [plan.aligned_empty(evaluate(s.size, {}) * np.dtype(s.dtype).itemsize) for s in storages]
    for array in kept:
        array[:] = 0  # a valid index, if it is one
    moving = [0] * int(binding.plan[0] >> 32)
    slots = np.array([*[b.ctypes.data for b in buffers], *moving], np.uint64)
    later_slots = np.array([*[b.ctypes.data for b in (*buffers, *kept)], *moving], np.uint64)
    runtime.start_workers()
    clock, run, kernels = time.perf_counter, runtime.run, program.kernels

    def time_of(plan: np.ndarray, slots: np.ndarray = slots) -> float:
        begin = clock()
        run(slots, plan, kernels, False)
        return clock() - begin

    time_of(binding.plan)  # storages that move keep the places of the last step
    empty = np.zeros(1, np.int64)
    overhead = min(time_of(empty) for _ in range(20))
    best, whole = [float("inf")] * len(plans), float("inf")
    start = clock()
    for number in range(rounds[1]):
        if number >= rounds[0] and clock() - start > seconds:
            break
        for i, one in enumerate(plans):
            best[i] = min(best[i], max(time_of(one) - overhead, 1e-9))
        for _ in range(3):
            whole = min(whole, max(time_of(later.plan, later_slots if kept else slots) - overhead, 1e-9))
    return best, whole
