"""What a lowered graph is: storages, and launches of kernels over them, in order.

Native calling convention (the C ABI of the host) of a kernel:

    void kernel(void **buffers, int64_t *parameters, int64_t first, int64_t last, void *scratch)

runs the tasks first..last-1. `buffers` are in the order of the kernel's non-scratch buffers; `scratch` is private to
the worker, 64-byte aligned; scratch buffers lie in it one after the other, each rounded up to 64 bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from ndarray.dims import Dim, Size

from .loopir import INT, Buffer, Const, Expr, Kernel, Stmt, Var
from .target import ITEMSIZE as _ITEMSIZE

__all__ = [
    "Branch", "Carried", "KernelBuilder", "Launch", "Loop", "Moving", "Position", "Sink", "Source", "Step",
    "Storage", "buffers_of", "controls_of", "launches_of", "written_by",
]


@dataclass(frozen=True, eq=False, slots=True)
class Storage:
    """A piece of memory that the plan places: `size` elements of `dtype`; compared by identity.

    With a `parent` (itself no part of another), it is a part of that storage, from element `offset` on.
    """

    dtype: str
    size: Size
    name: str = ""
    parent: Storage | None = None
    offset: Size = 0

    @property
    def whole(self) -> Storage:
        """The storage of which this is a part, or itself."""
        return self.parent or self


@dataclass(frozen=True, eq=False, slots=True)
class Launch:
    """One kernel over concrete storages.

    buffers    a storage for each non-scratch buffer of the kernel, in order
    arguments  the values of the kernel's parameters
    tasks      how many independent tasks there are
    work       estimated cost of all tasks in nanoseconds on one thread; decides how many threads take part
    scratch    bytes of private memory a worker needs
    equations  the graph equations it computes, for `explain`
    in_place   pairs (number of a "write" buffer, number of a "read" buffer) that may be given the same memory: each
               element is read before the same element is written, and nothing else of that buffer is read
    strips     if not 0: the tasks are so many equal numbers of them, one for some rows of the results after the other; they
               write these rows only, and read them only of the buffers of the numbers `own`
    """

    kernel: Kernel
    buffers: tuple[Storage, ...]
    arguments: tuple[Size, ...]
    tasks: Size
    work: Size
    scratch: Size = 0
    equations: tuple[Any, ...] = ()
    note: str = ""
    in_place: tuple[tuple[int, int], ...] = ()
    strips: Size = 0
    own: tuple[int, ...] = ()


@dataclass(frozen=True, eq=False, slots=True)
class Moving:
    """`storage` is not memory of its own: in step t of a loop it lies at element ``t * step`` of `source`."""

    storage: Storage
    source: Storage
    step: Size


@dataclass(frozen=True, eq=False, slots=True)
class Carried:
    """A value that a loop hands from step to step: each reads it in `current` and writes it to `new`, which are two names
    for one piece of memory after the other: `initial` at first, then `home` and `other` in turn. It ends in `home`."""

    current: Storage
    new: Storage
    next: Storage  # where `new` will be in the step after
    initial: Storage
    home: Storage
    other: Storage


@dataclass(frozen=True, eq=False, slots=True)
class Loop:
    """Launches that the native runner repeats.

    count     how many steps there are at most; no more than the int64 in `limit`, if given
    reverse   whether the first step is the last slice
    test      steps run before each step: the loop goes on while the bool in `answer` holds
    taken     an int64 that the number of steps taken is written to
    equation  the scan
    strips    if not 0: of the one launch that is the body; its strips need each other in no step
    """

    count: Size
    reverse: bool
    limit: Storage | None
    test: tuple[Any, ...]
    answer: Storage | None
    taken: Storage | None
    moving: tuple[Moving, ...]
    carried: tuple[Carried, ...]
    body: tuple[Any, ...]
    equation: Any = None
    strips: Size = 0

    @property
    def names(self) -> tuple[Storage, ...]:
        """The storages that are no memory of their own."""
        return (*[m.storage for m in self.moving], *[s for c in self.carried for s in (c.current, c.new, c.next)])

    @property
    def memory(self) -> tuple[Storage, ...]:
        """The storages that the loop itself reads or writes, or names otherwise."""
        found = [s for s in (self.limit, self.answer, self.taken) if s is not None]
        return (*found, *[m.source for m in self.moving], *[s for c in self.carried for s in (c.initial, c.home, c.other)])


@dataclass(frozen=True, eq=False, slots=True)
class Branch:
    """Launches of which the native runner runs one half: `then` if the bool in `predicate` holds."""

    predicate: Storage
    then: tuple[Any, ...]
    otherwise: tuple[Any, ...]
    equation: Any = None


Step = Launch | Loop | Branch
"""What a lowered graph consists of, in order."""


def launches_of(steps: Sequence[Step]) -> Iterator[Launch]:
    """All launches, in the order in which they stand."""
    for x in steps:
        if isinstance(x, Launch):
            yield x
        elif isinstance(x, Loop):
            yield from launches_of(x.test)
            yield from launches_of(x.body)
        else:
            yield from launches_of(x.then)
            yield from launches_of(x.otherwise)


def controls_of(steps: Sequence[Step]) -> Iterator[Loop | Branch]:
    """All loops and branches, outer ones before those inside."""
    for x in steps:
        if isinstance(x, Loop):
            yield x
            yield from controls_of((*x.test, *x.body))
        elif isinstance(x, Branch):
            yield x
            yield from controls_of((*x.then, *x.otherwise))


def buffers_of(steps: Sequence[Step]) -> Iterator[Storage]:
    """The storages that launches read or write, also inside of loops and branches, and those that these name themselves."""
    for x in launches_of(steps):
        yield from x.buffers
    for c in controls_of(steps):
        yield from c.memory if isinstance(c, Loop) else (c.predicate,)


def written_by(steps: Sequence[Step]) -> set[Storage]:
    """The storages that launches write, also inside of loops and branches."""
    found: set[Storage] = set()
    for x in launches_of(steps):
        accesses = [b.access for b in x.kernel.buffers if b.access != "scratch"]
        found.update(s for s, access in zip(x.buffers, accesses, strict=True) if access != "read")
    for c in controls_of(steps):
        if isinstance(c, Loop):
            found |= {m.source for m in c.moving if m.storage in found} | {s for k in c.carried for s in (k.home, k.other)}
            found |= {c.taken} if c.taken is not None else set()
    return found


class KernelBuilder:
    """Collects the buffers and parameters of one kernel while its body is being built.

    Names are given in order of first use, so structurally equal kernels come out equal, whatever their storages
    and sizes: sizes (also static ones, through `size`) are parameters.
    """

    def __init__(self) -> None:
        self._buffers: dict[tuple[Storage, str], Buffer] = {}
        self._scratch: list[tuple[Buffer, Size]] = []
        self._parameters: dict[tuple[Any, Size], Expr] = {}
        self._arguments: list[Size] = []
        self._names: list[str] = []
        self._roles: dict[Any, Expr] = {}
        self._count = 0
        self.part: Any = None  # what is being built: equal sizes of different parts are different parameters

    def fresh(self, prefix: str) -> str:
        """A name not used before in this kernel, nor for a buffer."""
        self._count += 1
        return f"{prefix}{'_' if prefix in ('b', 's') else ''}{self._count}"

    def buffer(self, storage: Storage, access: str) -> str:
        """The name of the buffer through which the kernel reaches `storage`."""
        key = (storage, access)
        if key not in self._buffers:
            self._buffers[key] = Buffer(f"b{len(self._buffers)}", storage.dtype, access)
        return self._buffers[key].name

    def storage(self, name: str) -> Storage | None:
        """The storage behind a buffer's name; None for a private buffer."""
        return next((s for (s, _), b in self._buffers.items() if b.name == name), None)

    def scratch(self, dtype: str, size: Size) -> str:
        """A private buffer of `size` elements."""
        extent = self.parameter(size, role=("scratch", len(self._scratch)))
        buffer = Buffer(f"s{len(self._scratch)}", dtype, "scratch", extent)
        self._scratch.append((buffer, size))
        return buffer.name

    def size(self, value: Size, constant: bool = False) -> Expr:
        """A size as an expression: a parameter of the kernel, one for all equal sizes of a part (see `within`); a constant where
        it is 0 or 1 or `constant` asks so."""
        if isinstance(value, int) and (constant or value in (0, 1)):
            return Const(value, INT)
        key = self.part, value
        if key not in self._parameters:
            self._parameters[key] = self.parameter(value)
        return self._parameters[key]

    @contextmanager
    def within(self, part: Any) -> Iterator[None]:
        """Sizes asked for meanwhile belong to a part of the kernel (any hashable), such as an operand: that a size of one operand
        happens to be one of another leaves no trace in the kernel's text, so more launches share a kernel."""
        before, self.part = self.part, part
        try:
            yield
        finally:
            self.part = before

    def parameter(self, value: Size, role: Any = None, varies: bool = False) -> Expr:
        """A parameter of its own, also where another one happens to have the same value, so that a kernel has the same
        text for all sizes; one for each `role` (any hashable) if that is given. 0 and 1 with a role are constants, unless
        it `varies`."""
        if role is not None:
            if isinstance(value, int) and value in (0, 1) and not varies:
                return Const(value, INT)
            if role not in self._roles:
                self._roles[role] = self.parameter(value)
            return self._roles[role]
        self._arguments.append(value)
        self._names.append(f"{'n' if _is_natural(value) else SIGNED}{len(self._arguments) - 1}")
        return Var(self._names[-1], INT)

    def launch(self, name: str, body: Sequence[Stmt], task: str, tasks: Size, work: Size, *,
               in_place: bool | tuple[tuple[int, int], ...] = (), equations: tuple = (), note: str = "") -> Launch:
        """The finished kernel with its bindings; `in_place` as in `Launch`."""
        buffers = tuple(self._buffers.values()) + tuple(b for b, _ in self._scratch)
        places = [s for s, _ in self._buffers]
        alike = bool(in_place) or len(set(places)) < len(places)  # a new state is written where the old one is read
        kernel = Kernel(name, buffers, tuple(self._names), task, tuple(body), alike)
        scratch: Size = 0
        for b, size in self._scratch:
            scratch = scratch + (size * _ITEMSIZE[b.dtype] + 63) // 64 * 64
        storages = tuple(s for s, _ in self._buffers)
        pairs = in_place if isinstance(in_place, tuple) else ()
        return Launch(kernel, storages, tuple(self._arguments), tasks, work, scratch, equations, note, pairs)


SIGNED = "z"
"""How names of parameters begin that may be negative; all others are sizes, which divisions make use of."""


def _is_natural(value: Size) -> bool:
    """Whether a size can't be negative, whatever its symbols are."""
    if not isinstance(value, Dim):
        return value >= 0
    return all(c >= 0 and all(isinstance(a, str) or (_is_natural(a[1]) and _is_natural(a[2])) for a in m) for m, c in value.terms)


@dataclass(frozen=True)
class Position:
    """Where in an array: a scalar int64 expression for each axis, with `lanes` consecutive positions along `axis`.

    lane l stands at index[axis] + l. `mask` (bool, `lanes` lanes) switches lanes off. With lanes == 1, axis is None.
    """

    index: tuple[Expr, ...]
    axis: int | None = None
    lanes: int = 1
    mask: Expr | None = None


@dataclass
class Source:
    """An operand of a template: what it reads through is a stored array or a fused elementwise expression over several.

    ``load(builder, at)`` gives the value (with `at.lanes` lanes, 0 where masked off).
    """

    shape: tuple[Size, ...]
    dtype: str
    load: Any  # (KernelBuilder, Position) -> Expr
    storage: Storage | None = None  # set when it is a plain row-major array
    constant: bool = False  # a weight: a packed copy may be kept between calls
    uses: int = 1  # how many templates of the graph read it: equal packed copies are made once
    along: int | None = None  # the axis along which it is contiguous in memory, where that is known
    allowance: Any = None  # of a weight: whether larger forms of it may be kept (`hoist.Allowance`)
    extra: dict = field(default_factory=dict)


@dataclass
class Sink:
    """Where a template delivers its result: ``store(builder, at, value)`` gives the statements that apply the fused
    epilogue and store. It must be called exactly once for each element of the result. `flat`, if there is one, does the
    same at a position in the result as one row-major axis, `matrix` as two: the last axis and all before it.

    With `beside` n, the result is n times as wide as what is delivered: `matrix`, the only function then, takes n values, of
    the same column in each of n equal parts of the result's columns. `reads` says then, for each storage that the epilogue reads,
    whether that is only ever the row that is delivered, of an array of as many rows."""

    shape: tuple[Size, ...]
    dtype: str
    store: Any  # (KernelBuilder, Position, Expr) -> list[Stmt]
    storage: Storage | None = None  # set when nothing is fused and the result is a plain row-major array
    flat: Any = None
    matrix: Any = None
    beside: int = 0
    reads: dict[Storage, bool] = field(default_factory=dict)
