"""Greedy fusion of a graph's equations into groups that become one kernel each.

Edges are contracted in graph order: the group of an equation is joined with the group that makes one of its inputs
wherever one kernel can compute both, and the joined group is *convex*: no path leaves it and comes back. (a -> b -> c
with a -> c: {a, c} is not convex, for b would have to run in the middle of it.) Ancestors and descendants of groups are
bitsets, so the test is a few operations on integers.

Kinds of groups

    map       one loop over a space; several results of that space; reads anything at any position
    rows      positions P, and reductions over a domain R for each; values of shape P, of the shape F that the
              reductions fold (`full`), or of any shape if they are only read; softmax, norms, losses, pooling
    template  a contraction or another kernel family, with elementwise equations on its operands and its result
    library   a product, convolution or attention that a library computes, with what its epilogue does (`jit.cuda.library`)
    control   a loop or a branch: its bodies are lowered by themselves
    join      a concatenation whose parts lie one behind the other: they are computed in place, or copied there

Ops of `CHEAP` and what `Pull.anywhere` says belong to no group: they are computed wherever they are read.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from hybrid.graph import Atom, Equation, Graph, Value
from ndarray.dims import Size
from ndarray.op import OPAQUE, Reduction, Template

from .contraction import OFTEN
from .nodes import Arena, Node, hint, same, same_sizes, volume, walk
from .pull import Pull, Scope, axes_of, template_name
from .structure import Structures

__all__ = ["Fusion", "Group", "Rows", "fuse", "is_control"]

OTHER_ROW = "a reduction's result is read at another row"
OTHER_LOOPS = "its loops differ from the reduction's"
TWO_STAGES = "a reduction over few long rows runs in two stages"
RANDOM = "random bits are made by 64 elements at a time, in order"
MAX_BUFFERS = 40
NARROW = 8  # columns below which an epilogue does not read a product in parts: each would be a vector with few of them
COLUMNS = 64  # that one task folds, where reductions go across the rows
MAX_EQUATIONS = 160
MAX_EPILOGUE_READS = 20
KEPT_ALONE = 1 << 20  # elements: values of constants that are stored for later calls are no larger
MIN_PARTS = 5  # of a concatenation that is stored part by part


@dataclass(frozen=True)
class Rows:
    """The loops of a row group, without axes of size 1: positions P, domain R. For each axis of the full shape,
    `layout` says ("p", k) or ("r", k); None where the reduction has no full shape (windows)."""

    positions: tuple[Size, ...]
    domain: tuple[Size, ...]
    full: tuple[Size, ...] | None = None
    layout: tuple[tuple[str, int], ...] = ()

    def same_as(self, other: Rows) -> bool:
        """Whether the loops are the same for all values of the symbols."""
        return same_sizes(self.positions, other.positions) and same_sizes(self.domain, other.domain) \
            and self.layout == other.layout and (self.full is None) == (other.full is None) \
            and (self.full is None or other.full is None or same_sizes(self.full, other.full))

    @property
    def parallel(self) -> bool:
        """Whether there are enough positions (or little enough work) to run whole rows in one task."""
        p, r = hint(volume(self.positions)), hint(volume(self.domain))
        if self.layout and self.layout[-1][0] == "p":  # columns: a task walks many side by side
            return p >= 16 * COLUMNS or p * r <= 1 << 18
        return p >= 16 or p * r <= 1 << 15


@dataclass(eq=False)
class Group:
    """Equations that one kernel (or one template) computes, in graph order.

    `outputs` are the values that must be stored; `space` is the shape that a map group loops over.
    """

    number: int
    kind: str
    equations: list[Equation]
    space: tuple[Size, ...] = ()
    rows: Rows = None  # type: ignore[assignment]  # of row groups only
    template: Equation = None  # type: ignore[assignment]  # of template groups only
    parts: tuple[Value, ...] = ()  # of joins only: what lies one behind the other
    claim: Any = None  # of library groups only
    beside: int = 0  # of templates only: in how many equal parts of the columns the epilogue reads the result, all at once
    random: bool = False  # whether it makes random bits
    outputs: list[Value] = field(default_factory=list)
    reads: set[Value] = field(default_factory=set)

    def __str__(self) -> str:
        return f"{self.kind}({' '.join(eq.op.name for eq in self.equations)})"


@dataclass
class Fusion:
    """Groups in execution order, and why neighbours stayed apart: (producer, consumer, reason), numbers of groups.

    `aliases`: results that are another value's memory under another shape; `constants`: values that depend on constant
    inputs only."""

    groups: list[Group]
    reasons: list[tuple[int, int, str]]
    pull: Pull
    structures: Structures
    aliases: dict[Value, Value]
    constants: Collection[Atom] = ()


@dataclass
class _Access:
    """One read of a value by an equation: at `index`, of row-major position `flat`, in the equation's variables."""

    value: Value
    index: tuple[Node, ...]
    flat: Node


class _Fuser:
    def __init__(self, graph: Graph, pull: Pull, constants: Iterable[Value] = (), libraries: Collection[str] = (),
                 beside: bool = True):
        self.graph, self.pull, self.arena, self.beside = graph, pull, pull.arena, beside
        self.results = {a for a in graph.results() if isinstance(a, Value)}
        self.outside = set(self.results)
        self.results |= {a for eq in graph.equations if is_control(eq) for a in eq.inputs if isinstance(a, Value)}
        self.aliases: dict[Value, Value] = {}
        self.structures = Structures(pull)
        self._patterns: dict[Hashable, tuple[int, list[tuple[int, _Access]]]] = {}  # structure of an equation -> what it reads
        self.claimed: dict[Equation, Any] = {}  # equation -> the claim of a library on it
        if libraries:
            from .cuda.library import find_claims

            for claim in find_claims(graph, pull, self.results, libraries):
                self.claimed.update(dict.fromkeys(claim.equations, claim))
        self._find_aliases()
        self.equations = [eq for eq in graph.equations if self._makes_group(eq)]
        self.accesses: dict[Equation, list[_Access]] = {}
        self._canonical: dict[Equation, tuple[tuple[Node, ...], tuple[Node, ...]]] = {}
        self.consumers: dict[Value, set[Equation]] = {}
        self.group_of: dict[Equation, Group] = {}
        self.costs: dict[Equation, int] = {}
        self.before: dict[int, int] = {}  # group number -> bitset of the groups that it depends on, directly or not
        self.after: dict[int, set[Group]] = {}  # group number -> groups that read its values
        self.owner: dict[Value, Equation] = {}
        self.position: dict[Equation, int] = {}
        self.groups: dict[int, Group] = {}
        self.failures: dict[tuple[Equation, Equation], str] = {}
        self.deferred: dict[Equation, Equation] = {}  # what a contraction's epilogue leaves to its readers -> the contraction
        self.constant: set[Atom] = set(constants)  # values that depend on constant inputs only
        for eq in graph.equations if self.constant else ():
            values = [a for a in eq.inputs if isinstance(a, Value)]
            if values and self.constant.issuperset(values):
                self.constant.update(eq.outputs)

    # -- what there is
    def _find_aliases(self) -> None:
        """Results that only rename the memory of a computed value."""
        scope = Scope(self.pull, ())
        for value in list(self.results):
            eq = self.pull.producer.get(value)
            if eq is None or not self.pull.anywhere(eq) or value in self.pull.stored:
                continue
            index = self.pull.variables("i", value.shape)
            node = scope.element(value, index)
            if node.op == "load" and node.args[1] is self.arena.flatten(index, value.shape) \
                    and same(volume(value.shape), volume(node.args[0].shape)) \
                    and (node.args[0] in self.pull.producer or value not in self.outside):
                self.aliases[value] = node.args[0]

    def _makes_group(self, eq: Equation) -> bool:
        if eq.op.lower is OPAQUE:
            raise NotImplementedError(f"{eq.op.name} has no native code, its graph has to be cut (jit.cuts); at {eq.source}")
        if eq in self.claimed:
            return True
        if self.pull.anywhere(eq):
            return any(v in self.results and v not in self.aliases for v in eq.outputs)
        return True

    def canonical(self, eq: Equation) -> tuple[tuple[Node, ...], tuple[Node, ...]]:
        """The index over an equation's result, and over its domain if it reduces."""
        found = self._canonical.get(eq)
        if found is None:
            domain = self.pull.domain(eq) if isinstance(eq.op.lower, Reduction) else ()
            found = self._canonical[eq] = self.pull.variables("i", eq.outputs[0].shape), self.pull.variables("r", domain)
        return found

    def find_accesses(self, eq: Equation) -> list[_Access]:
        """All reads of stored or computed values, through cheap ops."""
        claim = self.claimed.get(eq)
        if claim is not None:
            self.costs[eq] = 1
            last = eq is claim.equations[-1]
            loads = [n for n in walk(claim.nodes(self.pull)) if n.op == "load"] if last else []
            return [_Access(n.args[0], n.args[3], n.args[1]) for n in loads]
        parts = self.parts(eq)
        if parts is not None:
            self.costs[eq] = 1
            zero = self.arena.size(0)
            return [_Access(p, (zero,) * len(p.shape), zero) for p in dict.fromkeys(parts)]
        if is_control(eq):
            self.costs[eq] = 1
            zero = self.arena.size(0)
            read = dict.fromkeys(self.aliases.get(a, a) for a in eq.inputs if isinstance(a, Value))
            return [_Access(v, (zero,) * len(v.shape), zero) for v in read]
        structure = self.structures.describe((eq,))
        found = self._patterns.get(structure.key)
        if found is not None:
            self.costs[eq], reads = found
            return [_Access(structure.stored[k], x.index, x.flat) for k, x in reads]
        nodes = list(walk(self._roots(eq)))
        cost = self.costs[eq] = sum(n.cost for n in nodes if n.op != "load")
        accesses = [_Access(n.args[0], n.args[3], n.args[1]) for n in nodes if n.op == "load"]
        positions = walk(i for x in accesses for i in (x.flat, *x.index))
        if not any(n.op == "load" for n in positions):  # else they speak of this equation's values
            place = {v: k for k, v in enumerate(structure.stored)}
            self._patterns[structure.key] = cost, [(place[x.value], x) for x in accesses]
        return accesses

    def _roots(self, eq: Equation) -> list[Node]:
        """What an equation computes at a position, or what a template reads."""
        index, reduced = self.canonical(eq)
        if isinstance(eq.op.lower, Template):
            scope = Scope(self.pull, ())
            return [scope.element(a, self.pull.variables("i", a.shape)) for a in eq.inputs if isinstance(a, Value)]
        if isinstance(eq.op.lower, Reduction):
            return list(Scope(self.pull, (eq,)).fold_elements(eq, index, reduced))
        scope = Scope(self.pull, (eq,))
        return [scope.element(v, index) for v in eq.outputs]

    def parts(self, eq: Equation) -> tuple[Value, ...] | None:
        """The values that a concatenation of many lays one behind the other, most of them computed here; else None."""
        if eq.op.name != "concatenate" or len(eq.inputs) < MIN_PARTS:
            return None
        if any(not (isinstance(n, int) and n == 1) for n in eq.outputs[0].shape[: eq.attrs["axis"]]):
            return None
        found = []
        for atom in eq.inputs:
            while isinstance(atom, Value) and atom in self.pull.producer and self.pull.producer[atom].op.name == "reshape":
                (atom,) = self.pull.producer[atom].inputs
            producer = self.pull.producer.get(atom) if isinstance(atom, Value) else None
            if not isinstance(atom, Value) or (producer is not None and self.pull.anywhere(producer)):
                return None
            found.append(atom)
        computed = sum(v in self.pull.producer for v in dict.fromkeys(found))
        return tuple(found) if 2 * computed > len(found) else None

    def start(self) -> None:
        """Find who reads what."""
        for number, eq in enumerate(self.equations):
            self.position[eq] = number
            self.owner.update(dict.fromkeys(eq.outputs, eq))
            self.accesses[eq] = self.find_accesses(eq)
            for x in self.accesses[eq]:
                self.consumers.setdefault(x.value, set()).add(eq)
        self.results.update(self.aliases.values())

    def create(self, eq: Equation) -> Group:
        """The equation as a group of its own."""
        lower, number = eq.op.lower, self.position[eq]
        parts = self.parts(eq)
        members = [eq]
        if eq in self.claimed:
            claim = self.claimed[eq]
            members = list(claim.equations)
            group = Group(number, "library", members, claim.outputs[0].shape, template=claim.template, claim=claim)
        elif parts is not None:
            group = Group(number, "join", [eq], eq.outputs[0].shape, parts=parts)
        elif is_control(eq):
            group = Group(number, "control", [eq])
        elif isinstance(lower, Template):
            group = Group(number, "template", [eq], eq.outputs[0].shape, template=eq)
        elif isinstance(lower, Reduction):
            group = Group(number, "rows", [eq], rows=self._rows(eq))
        else:
            group = Group(number, "map", [eq], eq.outputs[0].shape, random=eq.op.name == "random_bits")
        group.reads = {x.value for x in self.accesses[eq]}
        self.groups[number] = group
        self.group_of.update(dict.fromkeys(members, group))
        self.before[number], self.after[number] = 0, set()
        for p in self.producers(group):
            self.before[number] |= self.before[p] | 1 << p
            self.after[p].add(group)
        return group

    def producers(self, group: Group) -> set[int]:
        """The groups that make what a group reads."""
        made = (self.group_of[self.owner[v]].number for v in group.reads if v in self.owner)
        return {p for p in made if p != group.number}

    def _rows(self, eq: Equation) -> Rows:
        domain = self.pull.domain(eq)
        positions = _core(eq.outputs[0].shape)
        axes = eq.attrs.get("axes", eq.attrs.get("axis"))
        axes = (axes,) if isinstance(axes, int) else axes
        shape = eq.inputs[0].shape
        if axes is None or not same_sizes(tuple(shape[a] for a in axes), domain):
            return Rows(positions, _core(domain))
        layout, counts = [], {"p": 0, "r": 0}
        for a in axes_of(shape):
            kind = "r" if a in axes else "p"
            layout.append((kind, counts[kind]))
            counts[kind] += 1
        return Rows(positions, _core(domain), _core(shape), tuple(layout))

    # -- merging
    def run(self) -> None:
        self.start()
        for eq in self.equations:
            if eq in self.claimed:
                if eq is self.claimed[eq].equations[-1]:  # all that it reads comes before, all that reads it behind
                    self.create(eq)
                continue
            self.create(eq)
            tried: set[int] = set()
            while True:
                group = self.group_of[eq]
                made = (a.value for a in self.accesses[eq] if a.value in self.owner)
                producers = {self.group_of[self.owner[v]].number for v in made}
                producers |= {self.group_of[self.deferred[e]].number for e in group.equations if e in self.deferred}
                rest = sorted(producers - tried - {group.number}, key=lambda n: (self.groups[n].random, -n))
                if not rest:
                    break
                tried.add(rest[0])
                self.attempt(self.groups[rest[0]], group, eq)
            if group.kind == "rows" and not group.rows.parallel:
                self.join_folds(group)
        self.join_siblings()
        self.join_copies()
        if self.beside:
            self.join_beside()

    def join_beside(self) -> None:
        """What reads the columns of a product in a few equal parts, position by position, becomes its epilogue: the gates of a
        recurrent layer."""
        for a in [g for g in self.groups.values() if g.kind == "template" and template_name(g.template) == "dot_general"]:
            made = {v for eq in a.equations for v in eq.outputs}
            readers = {self.group_of[eq].number for v in made for eq in self.consumers.get(v, ())} - {a.number}
            if len(readers) != 1 or made & self.results:
                continue
            b = self.groups[readers.pop()]
            count = self.parts_beside(a, b)
            if count and self.may_join(a, b) and self.fits(a, b) is None:
                self.merge(a, b, "template", a.space)
                a.beside = count

    def parts_beside(self, a: Group, b: Group) -> int:
        """In how many equal parts of its columns a map reads a product whose packed operand serves often; 0 if it reads it in
        any other way."""
        eq, whole, own = a.template, _core(a.template.outputs[0].shape), _core(b.space)
        (x_contract, y_contract), (x_batch, _) = eq.attrs["contract"], eq.attrs["batch"]
        x, y = eq.inputs
        if b.kind != "map" or x_batch or len(y.shape) != len(y_contract) + 1 or len(x.shape) == len(x_contract):
            return 0
        if not (y in self.constant or self.pull.uses(eq, 1) >= OFTEN) or not 1 <= len(whole) == len(own) <= 2:
            return 0
        columns, width = whole[-1], own[-1]
        if not isinstance(columns, int) or not isinstance(width, int) or width < NARROW or columns % width:
            return 0
        count = columns // width
        if not 2 <= count <= 4 or not same_sizes(whole[:-1], own[:-1]):
            return 0
        if not all(same_sizes(_core(e.outputs[0].shape), whole) for e in a.equations) or \
                not all(same_sizes(_core(e.outputs[0].shape), own) for e in b.equations):
            return 0
        for reader, access in self.crossing(a, b):
            index = tuple([i for i in self.canonical(reader)[0] if i.op == "var"])
            terms, const = self.arena.parts(access.flat)
            if terms != self.arena.parts(self.arena.flatten(index, whole))[0] or const not in range(0, columns, width):
                return 0
        return count

    def join_copies(self) -> None:
        """A mere copy becomes a part of another pass over as many elements."""
        for copy in [g for g in self.groups.values() if g.kind == "map" and all(eq.op.name == "copy" for eq in g.equations)]:
            for other in [g for g in self.groups.values() if g.kind == "map" and same_sizes(g.space, copy.space)]:
                if copy.number in self.groups and other.number in self.groups and other is not copy:
                    self.attempt_siblings(*sorted((copy, other), key=lambda g: g.number))

    def join_folds(self, group: Group) -> None:
        """Join a reduction with one that reads the same array, before what is made of their results makes one depend on the
        other: where reductions run in two stages, no kernel holds both then."""
        readers = {self.group_of[eq].number for value in group.reads for eq in self.consumers[value] if eq in self.group_of}
        for number in sorted(readers - {group.number}):
            other = self.groups.get(number)
            if other is not None and other.kind == "rows" and group.number in self.groups:
                self.attempt_siblings(*sorted((other, group), key=lambda g: g.number))

    def join_siblings(self) -> None:
        """Row or map groups over one space that read the same value become one pass over it."""
        for value in list(self.consumers):
            groups = {self.group_of[eq].number for eq in self.consumers[value]}
            if not 2 <= len(groups) <= 8:
                continue
            ordered = sorted(groups)
            for i, a in enumerate(ordered):
                for b in ordered[i + 1:]:
                    if a in self.groups and b in self.groups:
                        self.attempt_siblings(self.groups[a], self.groups[b])

    def attempt_siblings(self, a: Group, b: Group) -> None:
        alike = (a.kind == b.kind == "map" and same_sizes(a.space, b.space)) or \
                (a.kind == b.kind == "rows" and a.rows.same_as(b.rows))
        linked = self.before[a.number] >> b.number & 1 or self.before[b.number] >> a.number & 1
        if alike and not linked and self.may_join(a, b) and self.fits(a, b) is None:
            self.merge(a, b, a.kind)

    def attempt(self, a: Group, b: Group, eq: Equation) -> None:
        """Join producer group a with consumer group b if one kernel can do both."""
        plan = self.combine(a, b) if self.may_join(a, b) else "it is computed once and kept"
        if isinstance(plan, str):
            for x in self.crossing(a, b):
                self.failures[self.owner[x[1].value], x[0]] = plan
        else:
            self.merge(a, b, *plan)

    def crossing(self, a: Group, b: Group) -> list[tuple[Equation, _Access]]:
        """All reads by equations of b of values made in a."""
        inside = set(a.equations)
        return [(eq, x) for eq in b.equations for x in self.accesses[eq]
                if x.value in self.owner and self.owner[x.value] in inside]

    def may_join(self, a: Group, b: Group) -> bool:
        """False where one group depends on constants only, and its results are small enough to be kept between calls, and
        the other one changes from call to call."""
        if not self.constant:
            return True
        first, second = (self.constant.issuperset(g.equations[0].outputs) for g in (a, b))
        if first == second:
            return True
        constant = a if first else b
        return max(hint(volume(v.shape)) for eq in constant.equations for v in eq.outputs) > KEPT_ALONE

    def fits(self, a: Group, b: Group) -> str | None:
        """Why not, or None: the limits that hold for all kinds."""
        if any(self.before[p] >> a.number & 1 for p in self.producers(b) if p != a.number):
            return "another kernel has to run between them"
        if len(a.equations) + len(b.equations) > MAX_EQUATIONS:
            return f"more than {MAX_EQUATIONS} equations in one kernel"
        members = {*a.equations, *b.equations}
        made = {v for eq in members for v in eq.outputs}
        reads = (a.reads | b.reads) - made
        writes = sum(self.escapes(v, members) for v in made)
        if len(reads) + writes > MAX_BUFFERS:
            return f"more than {MAX_BUFFERS} buffers in one kernel"
        if (a.random or b.random) and not self._in_order(members, a, b):
            return RANDOM
        return None

    def _in_order(self, members: set[Equation], a: Group, b: Group) -> bool:
        """Whether all that equations read is at the position at hand, or a single number: elsewhere the bits of an element
        would take as long as those of four."""
        return a.kind == b.kind == "map" and all(
            self._aligned(eq, x) or hint(volume(x.value.shape)) <= 2 for eq in members for x in self.accesses[eq])

    def escapes(self, value: Value, members: set[Equation]) -> bool:
        """Whether a value is needed outside `members`."""
        return value in self.results or not self.consumers.get(value, set()) <= members

    def combine(self, a: Group, b: Group) -> tuple | str:
        """How to join: (kind, space, rows), or the reason why not."""
        if "library" in (a.kind, b.kind):
            return "a library computes it"
        if "control" in (a.kind, b.kind):
            return "loops and branches are kernels of their own"
        if "join" in (a.kind, b.kind):
            return "parts of a concatenation are stored one behind the other"
        reason = self.fits(a, b)
        if reason is not None:
            return reason
        crossing = self.crossing(a, b)
        if b.kind == "template":
            return self._prologue(a, b, crossing)
        if a.kind == "template":
            return self._epilogue(a, b, crossing)
        if a.kind == b.kind == "map":
            return self._maps(a, b, crossing)
        if a.kind == "map":
            return self._map_rows(a, b, crossing)
        if b.kind == "map":
            return self._rows_map(a, b, crossing)
        if not a.rows.same_as(b.rows):
            return "reductions over different loops"
        if not a.rows.parallel:
            return TWO_STAGES
        return ("rows", (), a.rows) if self._row_reads(a, a.rows, crossing) else OTHER_ROW

    def _maps(self, a: Group, b: Group, crossing: list) -> tuple | str:
        if same(volume(a.space), volume(b.space)) and all(self._aligned(eq, x) for eq, x in crossing):
            return "map", a.space if len(axes_of(a.space)) >= len(axes_of(b.space)) else b.space, None
        reason = self._inlinable(a, b, crossing, volume(b.space))
        return ("map", b.space, None) if reason is None else reason

    def _map_rows(self, a: Group, b: Group, crossing: list) -> tuple | str:
        rows = b.rows
        full = volume(rows.full) if rows.full is not None else volume(rows.positions) * volume(rows.domain)
        reason = self._inlinable(a, b, crossing, full)
        if reason is None:
            return "rows", (), rows
        if not rows.parallel:
            return reason
        space = _core(a.space)
        if (rows.full is not None and same_sizes(space, rows.full)) or same_sizes(space, rows.positions):
            if all(self._in_layout(eq, x, rows) for eq, x in crossing):
                return "rows", (), rows
        return reason

    def _rows_map(self, a: Group, b: Group, crossing: list) -> tuple | str:
        rows, space = a.rows, _core(b.space)
        is_full = rows.full is not None and same_sizes(space, rows.full)
        if not is_full and not same_sizes(space, rows.positions):
            return OTHER_LOOPS
        if is_full and not rows.parallel:
            return TWO_STAGES
        if any(not same_sizes(_core(eq.outputs[0].shape), space) and self.escapes(v, set(b.equations))
               for eq in b.equations for v in eq.outputs):
            return OTHER_LOOPS
        return ("rows", (), rows) if self._row_reads(a, rows, crossing) else OTHER_ROW

    def _row_reads(self, a: Group, rows: Rows, crossing: list) -> bool:
        """Whether every value of a row group is read at the row at hand."""
        return all(self._in_layout(eq, x, rows) for eq, x in crossing)

    def _in_layout(self, eq: Equation, x: _Access, rows: Rows) -> bool:
        """Whether a read stays in its row: positions are the loops' own; along reduced axes a value that is not itself
        the result of a reduction may be read anywhere, for it is computed again."""
        expected = self._loops(eq, rows)
        if expected is None:
            return False
        p, _ = expected
        shape = _core(x.value.shape)
        index = [x.index[k] for k in axes_of(x.value.shape)]
        if same_sizes(shape, rows.positions) and all(i is j for i, j in zip(index, p)):
            return True
        if rows.full is None or not same_sizes(shape, rows.full):
            return False
        return all(i is p[k] for i, (kind, k) in zip(index, rows.layout) if kind == "p")

    def _loops(self, eq: Equation, rows: Rows) -> tuple[list[Node], list[Node]] | None:
        """The variables of an equation that stand for the positions and the domain of the row group it is to join."""
        index, reduced = self.canonical(eq)
        own = [i for i in index if i.op == "var"]
        if isinstance(eq.op.lower, Reduction):
            return own, [i for i in reduced if i.op == "var"]
        shape = _core(eq.outputs[0].shape)
        if rows.full is not None and same_sizes(shape, rows.full):
            p = [i for i, (kind, _) in zip(own, rows.layout) if kind == "p"]
            return p, [i for i, (kind, _) in zip(own, rows.layout) if kind == "r"]
        return (own, []) if same_sizes(shape, rows.positions) else None

    def _aligned(self, eq: Equation, x: _Access) -> bool:
        index, _ = self.canonical(eq)
        return x.flat is self.arena.flatten(index, eq.outputs[0].shape)

    def _inlinable(self, a: Group, b: Group, crossing: list, loops: Size) -> str | None:
        """None if the producer is worth computing again wherever the consumer reads it, instead of storing it."""
        members = {*a.equations, *b.equations}
        if a.kind != "map":
            return "it is not elementwise"
        if any(self.escapes(v, members) for eq in a.equations for v in eq.outputs):
            return "its result is needed elsewhere, and read at other positions here"
        cost = sum(self.costs[eq] for eq in a.equations)
        reads: dict[Value, set[Node]] = {}
        for _, x in crossing:
            reads.setdefault(x.value, set()).add(x.flat)
        times = max(len(s) for s in reads.values()) * hint(loops) / max(1, hint(volume(a.space)))
        if times <= 1.5 or cost <= 3 or (cost <= 8 and times <= 4):
            return None
        if all(self._invariant(eq, x) for eq, x in crossing):
            return None
        return f"computing it where it is read would repeat it {times:.0f} times"

    def _invariant(self, eq: Equation, x: _Access) -> bool:
        """Whether a read does not move with a long innermost loop, so that it leaves that loop."""
        index, reduced = self.canonical(eq)
        loops = [i for i in (*index, *reduced) if i.op == "var"]
        return bool(loops) and loops[-1].args[0] not in x.flat.deps and hint(loops[-1].args[1]) >= 16

    def _epilogue(self, a: Group, b: Group, crossing: list) -> tuple | str:
        result = a.template.outputs[0]
        if len(a.template.outputs) > 1:
            return "a kernel with several results stores them"
        if b.kind != "map":
            return "a reduction is not fused into a contraction"
        if template_name(a.template).startswith("scatter"):
            return "a scatter's result is complete only at its end"
        if not same_sizes(_core(b.space), _core(result.shape)):
            return "its loops differ from the contraction's"
        if not all(self._aligned(eq, x) for eq, x in crossing) or any(
                not same_sizes(_core(eq.outputs[0].shape), _core(result.shape)) for eq in b.equations):
            return "it reads the contraction at other positions"
        if len(b.reads) > MAX_EPILOGUE_READS:
            return "its epilogue would read too many arrays"
        if self._deferrable(b, crossing):
            self.deferred.update(dict.fromkeys(b.equations, a.template))
            return "what reads it computes it from what is stored in any case"
        return "template", a.space, None

    def _deferrable(self, b: Group, crossing: list) -> bool:
        """Whether a map behind a contraction is only read by passes over as many elements, and all that it reads of the
        contraction is stored in any case: those may read that instead, and what it makes needn't be stored."""
        members, size = set(b.equations), volume(b.space)
        made = [v for eq in b.equations for v in eq.outputs if self.escapes(v, members)]
        readers = {eq for v in made for eq in self.consumers.get(v, ()) if eq not in members}
        if not self.results.isdisjoint(made) or not all(self._passes_over(eq, size) for eq in readers):
            return False
        stored = lambda v: v in self.results or any(isinstance(eq.op.lower, (Reduction, Template)) for eq in self.consumers[v])
        return all(stored(x.value) for _, x in crossing)

    def _passes_over(self, eq: Equation, size: Size) -> bool:
        """Whether an equation is elementwise over so many elements, or folds each of them once."""
        if eq in self.claimed or is_control(eq) or isinstance(eq.op.lower, Template):
            return False
        if isinstance(eq.op.lower, Reduction):
            full = self._rows(eq).full
            return full is not None and same(volume(full), size)
        return same(volume(eq.outputs[0].shape), size) and self.parts(eq) is None

    def _prologue(self, a: Group, b: Group, crossing: list) -> tuple | str:
        if a.kind != "map" or (
                len(b.equations) > 1 and any(eq is not b.template for eq, _ in crossing)):
            return "a contraction reads stored operands"
        members = {*a.equations, *b.equations}
        if any(self.escapes(v, members) for eq in a.equations for v in eq.outputs):
            return "the operand is needed elsewhere"
        if any(eq.op.name == "copy" for eq in a.equations):
            return "the operand is to be stored in the order in which it is read"
        name = template_name(b.template)
        if name.startswith("scatter"):
            return "template", b.space, None
        cost = sum(self.costs[eq] for eq in a.equations)
        if name != "dot_general" or cost > 4 or len(crossing) > 1:
            return "the operand is cheaper to store than to compute while it is packed"
        return "template", b.space, None

    def merge(self, a: Group, b: Group, kind: str, space: tuple[Size, ...] | None = None,
              rows: Rows | None = None) -> None:
        """Make one group of both, under a's number."""
        a.equations = sorted([*a.equations, *b.equations], key=self.position.__getitem__)
        a.kind, a.template = kind, a.template or b.template
        a.space = a.space if space is None else space
        a.random |= b.random
        a.rows = rows if rows is not None else a.rows
        made = {v for eq in a.equations for v in eq.outputs}
        a.reads = (a.reads | b.reads) - made
        for eq in b.equations:
            self.group_of[eq] = a
        bit = 1 << a.number
        before = (self.before[a.number] | self.before[b.number]) & ~(bit | 1 << b.number)
        after = self.after[a.number] | self.after[b.number]
        self.before[a.number] = before
        self.after[a.number] = {self.group_of[g.equations[0]] for g in after} - {a}
        del self.groups[b.number]
        stack = list(self.after[a.number])
        while stack:  # what comes behind either of them now comes behind all that either depends on
            d = self.group_of[stack.pop().equations[0]]
            if d is not a and (before | bit) & ~self.before[d.number]:
                self.before[d.number] |= before | bit
                stack.extend(self.after[d.number])

    # -- the end
    def finish(self) -> Fusion:
        ordered = self.order()
        place = {}
        for n, group in enumerate(ordered):
            group.number = n
            members = set(group.equations)
            group.outputs = [v for eq in group.equations for v in eq.outputs if self.escapes(v, members)]
            place.update(dict.fromkeys(group.equations, n))
        reasons: dict[tuple[int, int], str] = {}
        for (p, c), reason in self.failures.items():
            if place[p] != place[c]:
                reasons[place[p], place[c]] = reason
        return Fusion(ordered, [(p, c, r) for (p, c), r in sorted(reasons.items())], self.pull, self.structures, self.aliases,
                      self.constant)

    def order(self) -> list[Group]:
        """Topological order; among those that may run, the one that comes first in the graph."""
        waiting: dict[int, set[int]] = {}
        dependents: dict[int, set[int]] = {}
        for n, group in self.groups.items():
            needs = {self.group_of[self.owner[v]].number for v in group.reads if v in self.owner} - {n}
            waiting[n] = needs
            for p in needs:
                dependents.setdefault(p, set()).add(n)
        key = {n: self.position[g.equations[-1]] for n, g in self.groups.items()}
        ready = [(key[n], n) for n, needs in waiting.items() if not needs]
        heapq.heapify(ready)
        result = []
        while ready:
            _, n = heapq.heappop(ready)
            result.append(self.groups[n])
            for d in dependents.get(n, ()):
                waiting[d].discard(n)
                if not waiting[d]:
                    heapq.heappush(ready, (key[d], d))
        assert len(result) == len(self.groups), "fused groups depend on one another in a circle"
        return result


def is_control(eq: Equation) -> bool:
    """Whether an equation is a loop or a branch, with sub-graphs."""
    return eq.op.name in ("scan", "branch")


def _core(shape: tuple[Size, ...]) -> tuple[Size, ...]:
    """The shape without its axes of size 1."""
    return tuple(shape[k] for k in axes_of(shape))


def fuse(graph: Graph, constants: Iterable[Value] = (), repeated: Mapping[Value, int] | None = None,
         libraries: Collection[str] = (), beside: bool = True) -> Fusion:
    """The graph's equations as fused groups in execution order. `constants` are inputs that rarely change: what depends on
    them only isn't fused with the rest, so that it can be kept. `repeated` says how often steps of a loop read an input.
    `libraries` are those that may compute products and the like, `beside` says whether epilogues may read a product's columns
    in parts."""
    pull = Pull(graph, Arena(), repeated)
    fuser = _Fuser(graph, pull, constants, libraries, beside)
    fuser.run()
    return fuser.finish()
