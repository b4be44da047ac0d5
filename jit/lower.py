"""From a graph to launches of kernels over storages: `lower(graph, target) -> Lowered`."""

from __future__ import annotations

import heapq
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from hybrid.graph import Atom, Graph, Literal, Value
from ndarray.dims import Size
from ndarray.dtypes import name_of
from ndarray.op import ArrayType

from .fuse import Group, fuse
from .hoist import Allowance, hoist
from .launch import Branch, KernelBuilder, Launch, Loop, Step, Storage, buffers_of, controls_of, launches_of, written_by
from .maps import lower_map, map_accesses
from .nest import Axis, nest
from .nodes import same_sizes, volume
from .pull import Accesses, template_name
from .repeats import Repeats
from .rows import lower_rows, row_accesses
from .scalars import Emitter
from .schedule import schedule
from .target import Target
from .templates import lower_template, template_accesses

__all__ = ["Lowered", "lower"]


@dataclass
class Lowered:
    """Everything that the plan needs to know about a lowered graph.

    steps       launches, loops and branches in an order in which they may run one after the other
    inputs      one storage for each graph input, in order. Those numbered in `written` are written by launches as
                well as read: after the last launch they hold the new state, and nothing else has to be done for it
    outputs     one storage for each graph output, in order; all distinct, none an input's; each is written by a launch
    written     numbers of the graph inputs whose storage the launches write
    storages    the storage in which a value lies, row-major. Several values may share one (a reshape is an alias)
    temporaries storages that are neither an input's nor an output's, in order of first use: the plan places them
    kept        (temporary that depends on constant inputs only, the launches behind it): its values may be kept between
                calls, and the launches left out
    groups      the fused groups, in order, for `explain`
    reasons     why neighbouring groups were not fused: (producer group, consumer group, reason), groups by number
    """

    graph: Graph
    steps: list[Step] = field(default_factory=list)
    inputs: tuple[Storage, ...] = ()
    outputs: tuple[Storage, ...] = ()
    written: frozenset[int] = frozenset()
    storages: dict[Value, Storage] = field(default_factory=dict)
    kept: tuple[tuple[Storage, tuple[Launch, ...]], ...] = ()
    groups: list[Group] = field(default_factory=list)
    reasons: list[tuple[int, int, str]] = field(default_factory=list)

    @property
    def launches(self) -> list[Launch]:
        """All launches, also those of loops and branches, in the order in which they stand."""
        return list(launches_of(self.steps))

    @property
    def moving(self) -> tuple[Storage, ...]:
        """The storages that lie elsewhere in each step of a loop."""
        return tuple([s for x in controls_of(self.steps) if isinstance(x, Loop) for s in x.names])

    @property
    def temporaries(self) -> tuple[Storage, ...]:
        fixed = {*self.inputs, *self.outputs, *self.moving}
        found: dict[Storage, None] = {}
        for s in buffers_of(self.steps):
            found.update(dict.fromkeys(x for x in (s.parent, s) if x is not None and x not in fixed))
        return tuple(found)


def lower(graph: Graph, target: Target, ready: Callable[[Launch], None] | None = None,
          constant_inputs: frozenset[int] = frozenset()) -> Lowered:
    """Fuse the graph's equations into groups and make the kernels of each.

    `constant_inputs` are numbers of inputs that rarely change. `ready` is called with each launch as
    soon as it is made, not in the order in which they run.

    Raises NotImplementedError, naming op and line, where an op can't be compiled.
    """
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(max(limit, 20000))  # expressions of long chains are deep
    try:
        return _Lowerer(graph, target, constant_inputs).run(ready or (lambda launch: None))
    finally:
        sys.setrecursionlimit(limit)


class _Lowerer:
    """Lowers a graph, or the body of a loop or branch, whose `inputs` and `outputs` then lie in given storages."""

    def __init__(self, graph: Graph, target: Target, constant_inputs: frozenset[int] = frozenset(),
                 inputs: Sequence[Storage] | None = None, outputs: Sequence[Storage] | None = None,
                 repeated: Mapping[Value, int] | None = None):
        self.graph, self.target = graph, target
        constants = [graph.inputs[i] for i in sorted(constant_inputs) if i not in graph.state]
        self.fusion = fuse(graph, constants, repeated, target.libraries, not target.threads)
        self.pull = self.fusion.pull
        self.group_of = {v: g for g in self.fusion.groups for v in g.outputs}
        if inputs is None:
            inputs = tuple(_storage(v, v.name or f"input{k}") for k, v in enumerate(graph.inputs))
        if outputs is None:
            outputs = tuple(_storage(a, f"output{k}") for k, a in enumerate(graph.outputs))
        self.inputs, self.outputs = tuple(inputs), tuple(outputs)
        self.home: dict[Value, Storage] = dict(zip(graph.inputs, self.inputs))
        self.constants = frozenset(self.home[v] for v in constants)
        self.allowance = Allowance(self.constants)
        self.results: dict[Value, list[Storage]] = {v: [] for v in self.group_of}
        self.written: set[int] = set()
        self.repeats = Repeats(self.fusion, self.allowance, self.home, self.results)
        self.before: list[Launch] = []  # copies of inputs, made while they hold their old values
        self.after: list[Launch] = []

    def run(self, ready: Callable[[Launch], None]) -> Lowered:
        for atom, storage in zip(self.graph.outputs, self.outputs):
            self.deliver(atom, storage)
        self.place_state()
        for group in self.fusion.groups:
            if group.kind == "join" and group.outputs:
                self.place_parts(group)
        for value in self.group_of:
            if value not in self.home:
                self.home[value] = _storage(value, value.name)
                self.results[value].insert(0, self.home[value])
        steps: list[Step] = list(self.before)
        for group in self.fusion.groups:
            made = self.lower_group(group)
            for launch in launches_of(made):
                ready(launch)
            steps += made
        for launch in (*self.before, *self.after):
            ready(launch)
        steps = schedule(share_packing([*steps, *self.after]), {*self.inputs, *self.outputs})
        kept = hoist(steps, self.constants, {*self.inputs, *self.outputs}, self.allowance.admitted)
        storages = dict(self.home)
        storages |= {v: self.home[b] for v, b in self.fusion.aliases.items() if b in self.home}
        return Lowered(self.graph, steps, self.inputs, self.outputs, frozenset(self.written), storages, kept,
                       self.fusion.groups, self.fusion.reasons)

    def lower_group(self, group: Group) -> Sequence[Step]:
        arguments = (group, self.pull, self.target, self.home.__getitem__, self.results)
        if not group.outputs:
            return []
        if group.kind == "control":
            from .control import lower_control

            return lower_control(self, group)
        if group.kind == "join":
            return self.join(group)
        if group.kind == "library":
            return self.library(group)
        if group.kind == "map":
            return self.repeats.lower(group, lambda: [lower_map(*arguments)])
        if group.kind == "rows":
            return self.repeats.lower(group, lambda: lower_rows(*arguments))
        return self.repeats.lower(group, lambda: lower_template(*arguments, self.fusion.constants, self.allowance))

    def library(self, group: Group) -> list[Launch]:
        """A library step, and copies of its results where they are needed twice."""
        from .cuda.library import lower_library

        launches = lower_library(group, self.pull, self.target, self.home.__getitem__)
        return launches + [
            self.copy_storage(self.home[v], s, v) for v in group.outputs for s in self.results[v] if s is not self.home[v]
        ]

    # -- joins
    def place_parts(self, group: Group) -> None:
        """Have what a join joins computed where it belongs in the result, as far as nothing else says where it lies."""
        (value,) = group.outputs
        if value not in self.home:
            self.home[value] = _storage(value, value.name)
            self.results[value].insert(0, self.home[value])
        whole = self.home[value]
        if whole in self.inputs or whole.parent is not None:
            return
        offset: Size = 0
        for part in group.parts:
            size = volume(part.shape)
            if part in self.group_of and part not in self.home and self.group_of[part].kind != "join":
                self.home[part] = Storage(name_of(part.dtype), size, part.name, whole, offset)
                self.results[part].insert(0, self.home[part])
            offset = offset + size

    def join(self, group: Group) -> list[Launch]:
        """Copies of the parts that lie elsewhere."""
        (value,) = group.outputs
        launches = []
        whole = self.home[value]
        offset: Size = 0
        for part in group.parts:
            size = volume(part.shape)
            home = self.home[part]
            if home.parent is not whole or home.offset != offset:
                place = Storage(name_of(part.dtype), size, part.name, whole, offset)
                launches.append(self.copy_storage(home, place, part))
            offset = offset + size
        return launches + [self.copy_storage(whole, s, value) for s in self.results[value] if s is not whole]

    def base(self, atom: Atom) -> Atom:
        """The value whose memory an atom is."""
        return self.fusion.aliases.get(atom, atom) if isinstance(atom, Value) else atom

    def deliver(self, atom: Atom, storage: Storage) -> None:
        """Make a graph output arrive in its storage."""
        base = self.base(atom)
        if not isinstance(base, Value) or base not in self.group_of:
            self.before.append(self.copy(base, storage))
        elif base not in self.home:
            self.home[base] = storage
            self.results[base].append(storage)
        else:
            self.also(base, storage)

    def operand(self, atom: Atom, before: list[Step]) -> Storage:
        """The storage of an operand of a loop or branch; a number is put into one `before` it."""
        base = self.base(atom)
        if isinstance(base, Value):
            return self.home[base]
        storage = _storage(base, "number")
        before.append(self.copy(base, storage))
        return storage

    def also(self, value: Value, storage: Storage) -> None:
        """Bring a computed value to one more place."""
        group = self.group_of[value]
        template = group.template
        fused = len(group.equations) > 1 and template is not None and not template_name(template).startswith("scatter")
        if template is None or group.kind == "library" or fused:
            self.results[value].append(storage)
        else:
            self.after.append(self.copy(value, storage))

    # -- state
    def place_state(self) -> None:
        """Write new states in place where no reader of the old one can come later; else copy at the end."""
        edges: dict[Group, set[Group]] = {g: set() for g in self.fusion.groups}  # group -> those that must come later
        readers_of: dict[Value, list[Group]] = {}
        for g in self.fusion.groups:
            for v in g.reads:
                readers_of.setdefault(v, []).append(g)
                if v in self.group_of:
                    edges[self.group_of[v]].add(g)
        late: list[tuple[Atom, int]] = []
        for number, atom in self.graph.state.items():
            value = self.graph.inputs[number]
            base = self.base(atom)
            if base is value:
                continue
            self.written.add(number)
            if not isinstance(base, Value) or base not in self.group_of:
                late.append((base, number))
                continue
            group = self.group_of[base]
            readers = [g for g in readers_of.get(value, ()) if g is not group]
            if any(_reaches(edges, group, set(readers))) or not self.reads_in_place(group, value, base):
                late.append((base, number))
                continue
            for g in readers:
                edges[g].add(group)
            storage = self.inputs[number]
            self.home.setdefault(base, storage)
            self.results[base].append(storage)
        self.order(edges)
        needed: set[Value] = {self.graph.inputs[n] for _, n in late}
        for base, number in late:
            storage = self.inputs[number]
            if isinstance(base, Value) and base in needed:  # another state that is overwritten: keep its old value
                kept = _storage(base, "old")
                self.before.append(self.copy(base, kept))
                self.after.append(self.copy_storage(kept, storage, base))
            elif isinstance(base, Value) and base in self.group_of:
                if base not in self.home:
                    self.home[base] = _storage(base, base.name)
                    self.results[base].insert(0, self.home[base])
                self.after.append(self.copy(base, storage))
            elif isinstance(base, Value):  # an input that is itself written in place must be read first
                kept = _storage(base, "old")
                self.before.append(self.copy(base, kept))
                self.after.append(self.copy_storage(kept, storage, base))
            else:
                self.after.append(self.copy(base, storage))

    def order(self, edges: dict[Group, set[Group]]) -> None:
        """Re-order the groups so that readers of an old state come before its writer."""
        waiting = dict.fromkeys(self.fusion.groups, 0)
        for later in edges.values():
            for g in later:
                waiting[g] += 1
        ready = [(g.number, g) for g, n in waiting.items() if n == 0]
        heapq.heapify(ready)
        result = []
        while ready:
            _, g = heapq.heappop(ready)
            result.append(g)
            for d in edges[g]:
                waiting[d] -= 1
                if waiting[d] == 0:
                    heapq.heappush(ready, (d.number, d))
        assert len(result) == len(waiting)
        renamed = {g.number: k for k, g in enumerate(result)}
        self.fusion.reasons = [(renamed[p], renamed[c], r) for p, c, r in self.fusion.reasons]
        for k, g in enumerate(result):
            g.number = k
        self.fusion.groups = result

    def reads_in_place(self, group: Group, old: Value, new: Value) -> bool:
        """Whether a group may write `new` over `old`: it reads `old` nowhere, or only where it writes."""
        if group.kind == "template" and template_name(group.template).startswith("scatter"):
            return False
        if group.kind == "join" or (group.kind in ("control", "library") and old in group.reads):
            return False
        if old not in group.reads:
            return True
        if not same_sizes(old.shape, new.shape):
            return False
        return self.repeats.in_place(group, old, new, lambda: self._accesses(group))

    def _accesses(self, group: Group) -> Accesses:
        if group.kind == "map":
            return map_accesses(group, self.pull)
        if group.kind == "template":
            return template_accesses(group, self.pull)
        return row_accesses(group, self.pull, self.target)

    # -- copies
    def copy(self, atom: Atom, storage: Storage) -> Launch:
        """A launch that writes a number or a stored value into a storage."""
        if isinstance(atom, Literal):
            return self._copy_kernel(self.pull.arena.const(atom.value, atom.dtype), None, storage, atom.dtype)
        return self.copy_storage(self.home[atom], storage, atom)

    def copy_storage(self, source: Storage, storage: Storage, like: Value) -> Launch:
        """A launch that copies one storage into another."""
        flat = Value(ArrayType((source.size,), like.dtype))
        index = self.pull.variables("i", flat.shape)
        return self._copy_kernel(self.pull.arena.load(flat, index), source, storage, like.dtype)

    def _copy_kernel(self, node: Any, source: Storage | None, storage: Storage, dtype: np.dtype) -> Launch:
        builder = KernelBuilder()
        em = Emitter(builder, self.pull.arena, lambda value: source)  # type: ignore[arg-type,return-value]
        index = self.pull.variables("i", (storage.size,))
        lane = Axis(index[0].args[0], storage.size) if index[0].op == "var" else None
        lanes = self.target.lanes(dtype.name) if lane else 1

        def body() -> None:
            em.body.append(em.store(storage, index[0], em.emit(node)))

        tasks = nest(em, [], lane, lanes, 1, self.target, body, 4)
        work = storage.size * dtype.itemsize // 5
        return builder.launch("copy", em.blocks[0].statements, "task", tasks, work, note="copy")


def share_packing(launches: list[Step]) -> list[Step]:
    """The launches with operands that are packed more than once packed once: the weights of a recurrence, say."""
    packs = [x for x in launches if isinstance(x, Launch) and x.note.startswith("pack")]
    if len(packs) < 2:
        return launches
    kept: dict[tuple, Storage] = {}  # what has been packed, while its source has not been written
    sources: set[Storage] = set()
    renamed: dict[Storage, Storage] = {}
    found: list[Step] = []
    for x in launches:
        if not isinstance(x, Launch):
            dirty = {s.whole for s in written_by([x])}
            kept = {k: s for k, s in kept.items() if dirty.isdisjoint(r.whole for r in k[1])}
            found.append(with_storages(x, renamed))
            continue
        buffers = [b.access for b in x.kernel.buffers if b.access != "scratch"]
        reads = tuple(s for s, access in zip(x.buffers, buffers, strict=True) if access == "read")
        writes = [s for s, access in zip(x.buffers, buffers, strict=True) if access != "read"]
        if x.note.startswith("pack") and len(writes) == 1:
            key = (x.kernel, reads, x.arguments)
            if key in kept:
                renamed[writes[0]] = kept[key]
                continue
            kept[key] = writes[0]
            sources.update(s.whole for s in reads)
        elif any(s.whole in sources for s in writes):
            dirty = {s.whole for s in writes}
            kept = {k: s for k, s in kept.items() if dirty.isdisjoint(r.whole for r in k[1])}
        found.append(replace(x, buffers=tuple(renamed.get(s, s) for s in x.buffers)))
    return found


def with_storages(step: Step, renamed: Mapping[Storage, Storage]) -> Step:
    """The step with other storages in place of some."""
    new = lambda s: renamed.get(s, s)
    inside = lambda steps: tuple([with_storages(x, renamed) for x in steps])
    if isinstance(step, Launch):
        return replace(step, buffers=tuple(map(new, step.buffers)))
    if isinstance(step, Branch):
        return replace(step, then=inside(step.then), otherwise=inside(step.otherwise))
    return replace(step, test=inside(step.test), body=inside(step.body))


def _storage(atom: Atom, name: str = "") -> Storage:
    return Storage(name_of(atom.dtype), volume(atom.shape), name)


def _reaches(edges: dict[Group, set[Group]], start: Group, goals: set[Group]) -> Iterator[bool]:
    """True, once, if any of `goals` must come after `start`."""
    if not goals:
        return
    seen, stack = {start}, [start]
    while stack:
        for g in edges[stack.pop()]:
            if g in goals:
                yield True
                return
            if g not in seen:
                seen.add(g)
                stack.append(g)
