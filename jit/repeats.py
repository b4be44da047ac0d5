"""Groups of equal structure are lowered once: what was made for the first is said again of the values of the others."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace

from hybrid.graph import Equation, Value

from .fuse import Fusion, Group
from .hoist import Allowance
from .launch import Launch, Storage
from .nodes import Node
from .pull import Accesses
from .structure import Structure

__all__ = ["Repeats"]


@dataclass(frozen=True)
class _Made:
    """The launches of a group, its equations and storages, and what its lowering asked of the allowance and was granted."""

    launches: Sequence[Launch]
    equations: Sequence[Equation]
    storages: Sequence[Storage]
    questions: Sequence[tuple[int, bool]]
    admitted: Sequence[Storage]


class Repeats:
    """Lowers map, row and template groups. `home` and `results` say where values lie and where they are written."""

    def __init__(self, fusion: Fusion, allowance: Allowance, home: Mapping[Value, Storage],
                 results: Mapping[Value, Sequence[Storage]]):
        self.fusion, self.allowance, self.home, self.results = fusion, allowance, home, results
        self._structures: dict[Group, Structure] = {}
        self._made: dict[Hashable, list[_Made]] = {}
        self._accesses: dict[Hashable, tuple[dict[int, Node], list[tuple[int, Node | None]]]] = {}

    def lower(self, group: Group, make: Callable[[], Sequence[Launch]]) -> Sequence[Launch]:
        """What `make` gives for the group, or has given for one that differs in its values only."""
        key, storages = self._describe(group)
        made = self._made.setdefault(key, [])
        for found in made:
            if all((n <= self.allowance.left) == answer for n, answer in found.questions):
                return self._again(found, group, storages)
        questions, admitted = self.allowance.questions, self.allowance.admitted
        asked, granted = len(questions), len(admitted)
        launches = make()
        made.append(_Made(launches, group.equations, storages, questions[asked:], admitted[granted:]))
        return launches

    def in_place(self, group: Group, old: Value, new: Value, find: Callable[[], Accesses]) -> bool:
        """Whether a group reads `old` only at the position at which it is about to write `new`; `find` says where it writes its
        results and reads what is stored, the positions being nodes of one arena."""
        key, numbers, _ = self._structure(group)
        if key not in self._accesses:
            writes, reads = find()
            self._accesses[key] = {numbers[v]: at for v, at in writes.items()}, [(numbers[v], at) for v, at in reads]
        places, sources = self._accesses[key]
        place = places.get(numbers[new])
        return place is not None and all(at is place for n, at in sources if n == numbers.get(old))

    def _structure(self, group: Group) -> Structure:
        found = self._structures.get(group)
        if found is None:
            key, numbers, stored = self.fusion.structures.describe(group.equations)
            outputs = tuple([numbers[v] for v in group.outputs])
            template = group.equations.index(group.template) if group.template is not None else None
            about = (group.kind, group.space, group.rows, template, group.beside, outputs)
            found = self._structures[group] = Structure((key, *about), numbers, stored)
        return found

    def _describe(self, group: Group) -> tuple[Hashable, list[Storage]]:
        """All that the lowering of a group depends on, and the storages it is about."""
        structure, pull = self._structure(group), self.fusion.pull
        places: dict[Storage, int] = {}
        place = lambda s: (places.setdefault(s, len(places)), s.dtype, s.size)
        homes = [self.home.get(v) for v in structure.stored]  # None of what is mentioned, but nothing of it is read
        reads = tuple([s and (place(s), v in self.fusion.constants) for v, s in zip(structure.stored, homes)])
        writes = tuple([tuple(map(place, self.results[v])) for v in group.outputs])
        eq = group.template
        uses = () if eq is None else tuple([pull.uses(eq, n) for n in range(len(eq.inputs))])
        return (structure.key, reads, writes, uses), list(places)

    def _again(self, made: _Made, group: Group, storages: Sequence[Storage]) -> list[Launch]:
        renamed = dict(zip(made.storages, storages, strict=True))
        equations = dict(zip(made.equations, group.equations, strict=True))

        for s in dict.fromkeys(s for x in made.launches for s in x.buffers):
            if s not in renamed:
                assert s.parent is None, "temporaries of a group are no parts"
                renamed[s] = replace(s)
        for s in made.admitted:
            self.allowance.admit(renamed[s])
        return [replace(x, buffers=tuple([renamed[s] for s in x.buffers]), equations=tuple([equations[e] for e in x.equations]))
                for x in made.launches]
