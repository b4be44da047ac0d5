"""Where the threads of a worker must wait for one another: between a store and a load, or another store, of one element
by different threads.

A buffer needs care only if a kernel both loads and stores it (or, in an `in_place` kernel, if it may be the memory of
another buffer). No barrier is needed where every access is a contiguous vector whose position is the same modulo the
number of threads: each element then belongs to one thread. Positions are compared as linear forms (`Forms`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ..loopir import INT, Apply, Const, Expr, For, If, Kernel, Let, Load, Register, Set, Stmt, Store, Var, walk_exprs

__all__ = ["Barriers", "expressions"]

Key = tuple[Expr, int] | None
"""Index and lanes of a contiguous vector access whose elements lie one to a thread; None for any other access."""
Form = frozenset[tuple[object, int]]
"""A sum: of coefficient times atom; the constant's atom is ()."""


def expressions(s: Stmt) -> tuple[Expr, ...]:
    """The expressions that a statement itself evaluates."""
    if isinstance(s, Let | Register | Set):
        return (s.value,)
    if isinstance(s, Store):
        return (s.index, s.value) if s.mask is None else (s.index, s.value, s.mask)
    if isinstance(s, For):
        return (s.start, s.stop)
    return (s.condition,) if isinstance(s, If) else ()


class Forms:
    """int64 scalars as linear forms over what they are computed from, while a kernel is walked."""

    def __init__(self, threads: int):
        self.threads = threads
        self.known: dict[str, Form] = {}
        self.varying: set[object] = set()
        self.count = 0

    def fresh(self) -> Form:
        """A value of which nothing is known."""
        self.count += 1
        atom = ("unknown", self.count)
        self.varying.add(atom)
        return frozenset({(atom, 1)})

    def of(self, e: Expr) -> Form:
        if isinstance(e, Const):
            return frozenset({((), int(e.value))}) if e.value else frozenset()
        if isinstance(e, Var):
            return self.known.get(e.name, frozenset({(("name", e.name), 1)}))
        if not isinstance(e, Apply) or e.type != INT:
            return self.fresh()
        if e.op in ("add", "sub"):
            return _sum(self.of(e.args[0]), self.of(e.args[1]), 1 if e.op == "add" else -1)
        args = [self.of(a) for a in e.args]
        if e.op == "mul":
            for a, b in (args, args[::-1]):
                if all(atom == () for atom, _ in a):
                    factor = sum(c for _, c in a)
                    return frozenset((atom, c * factor) for atom, c in b if factor)
        atom = (e.op, tuple(sorted(args, key=repr)) if e.op in ("mul", "min", "max") else tuple(args))
        if any(part in self.varying for a in args for part, _ in a):
            self.varying.add(atom)
        return frozenset({(atom, 1)})

    def loop(self, s: For) -> Form:
        """A loop's variable: its start, and steps."""
        self.count += 1
        atom = ("loop", self.count)
        self.varying.add(atom)
        return _sum(self.of(s.start), frozenset({(atom, s.step)}), 1)

    def residue(self, e: Expr) -> Form:
        """The form modulo the number of threads."""
        return frozenset((atom, c % self.threads) for atom, c in self.of(e) if c % self.threads)

    def varies(self, form: Form) -> bool:
        """Whether it may have several values within a task."""
        return any(atom in self.varying for atom, _ in form)


def _sum(a: Form, b: Form, sign: int) -> Form:
    terms = dict(a)
    for atom, c in b:
        terms[atom] = terms.get(atom, 0) + sign * c
    return frozenset((atom, c) for atom, c in terms.items() if c)


class Barriers:
    """Follows the statements of a kernel in order; the methods say whether a barrier must come before an access."""

    def __init__(self, kernel: Kernel, threads: int):
        self.threads = threads
        self.group: dict[str, str] = {}  # buffer that needs care -> what stands for its memory
        self.in_place = kernel.in_place
        residues: dict[str, set[Form | None]] = {}
        loaded: set[str] = set()
        stored: set[str] = set()
        forms = Forms(threads)
        for buffer, residue, stores in _accesses(kernel.body, forms, threads):
            residues.setdefault(buffer, set()).add(residue)
            (stored if stores else loaded).add(buffer)
        for b in kernel.buffers:
            if b.name in loaded and b.name in stored:
                one = residues[b.name]
                if len(one) != 1 or any(form is None or forms.varies(form) for form in one):
                    self.group[b.name] = b.name
            elif kernel.in_place and b.access in ("read", "write"):  # an element is loaded and stored for one set of indices
                alike = [o.name for o in kernel.buffers if o.access in ("read", "write") and o.dtype == b.dtype]
                one = set().union(*(residues.get(name, set()) for name in alike))
                if len(one) != 1 or None in one:
                    self.group[b.name] = f"in place {b.dtype}"
        self.scratch = {b.name for b in kernel.buffers if b.access == "scratch"} & loaded
        self.loads: dict[str, set[Key]] = {}
        self.stores: dict[str, set[Key]] = {}

    def clear(self) -> None:
        """Right behind a barrier."""
        self.loads, self.stores = {}, {}

    def _key(self, index: Expr, lanes: int) -> Key:
        return (index, lanes) if index.type.lanes == 1 and lanes % self.threads == 0 else None

    def before(self, exprs: Iterable[Expr]) -> bool:
        """Whether a barrier must come before these expressions' loads, which are recorded."""
        found = [(self.group[e.buffer], self._key(e.index, e.type.lanes)) for x in exprs for e in walk_exprs(x)
                 if isinstance(e, Load) and e.buffer in self.group]
        needed = any(self._conflict(self.stores.get(group, set()), key) for group, key in found
                     if not group.startswith("in place"))
        if needed:
            self.clear()
        for group, key in found:
            self.loads.setdefault(group, set()).add(key)
        return needed

    def before_store(self, s: Store) -> bool:
        """Whether a barrier must come before this store, which is recorded."""
        if s.buffer not in self.group:
            return False
        group, key = self.group[s.buffer], self._key(s.index, s.value.type.lanes)
        loads, stores = self.loads.get(group, set()), self.stores.get(group, set())
        needed = self._conflict(loads if group.startswith("in place") else loads | stores, key)
        if needed:
            self.clear()
        self.stores.setdefault(group, set()).add(key)
        return needed

    def _conflict(self, pending: set[Key], key: Key) -> bool:
        return bool(pending) and (key is None or pending != {key})

    def enter(self, body: tuple[Stmt, ...]) -> bool:
        """Whether a barrier must come before a loop; its first statement may follow its last."""
        loads, stores = self._touched(body)
        needed = any(self.stores.get(g) for g in loads if not g.startswith("in place")) or any(
            self.loads.get(g) or (self.stores.get(g) and not g.startswith("in place")) for g in stores)
        if needed:
            self.clear()
        for group in loads:
            if not group.startswith("in place"):
                self.loads.setdefault(group, set()).add(None)
        for group in stores:
            if not group.startswith("in place"):
                self.stores.setdefault(group, set()).add(None)
        return needed

    def leave(self) -> None:
        """Behind a loop or an arm: what was named inside is another thing now."""
        for pending in (self.loads, self.stores):
            for group, keys in pending.items():
                if keys:
                    pending[group] = {None}

    def state(self) -> tuple[dict[str, set[Key]], dict[str, set[Key]]]:
        return {g: set(k) for g, k in self.loads.items()}, {g: set(k) for g, k in self.stores.items()}

    def restore(self, state: tuple[dict[str, set[Key]], dict[str, set[Key]]]) -> None:
        self.loads, self.stores = ({g: set(k) for g, k in part.items()} for part in state)

    def join(self, other: tuple[dict[str, set[Key]], dict[str, set[Key]]]) -> None:
        """Where two arms of a branch meet."""
        for mine, theirs in zip((self.loads, self.stores), other):
            for group, keys in theirs.items():
                mine.setdefault(group, set()).update(keys)

    def _touched(self, body: tuple[Stmt, ...]) -> tuple[set[str], set[str]]:
        loads: set[str] = set()
        stores: set[str] = set()
        for buffer, _, is_store in _accesses(body, Forms(self.threads), self.threads):
            if buffer in self.group:
                (stores if is_store else loads).add(self.group[buffer])
        return loads, stores


def _accesses(body: tuple[Stmt, ...], forms: Forms, threads: int) -> Iterator[tuple[str, Form | None, bool]]:
    """(buffer, residue of a contiguous vector's position or None, whether it is a store) of each access."""
    known = dict(forms.known)

    def residue(index: Expr, lanes: int) -> Form | None:
        return forms.residue(index) if index.type.lanes == 1 and lanes % threads == 0 else None

    for s in body:
        for x in expressions(s):
            for e in walk_exprs(x):
                if isinstance(e, Load):
                    yield e.buffer, residue(e.index, e.type.lanes), False
        if isinstance(s, Store):
            yield s.buffer, residue(s.index, s.value.type.lanes), True
        elif isinstance(s, Let) and s.value.type == INT:
            forms.known[s.name] = forms.of(s.value)
        elif isinstance(s, For):
            before = dict(forms.known)
            forms.known[s.var] = forms.loop(s)
            yield from _accesses(s.body, forms, threads)
            forms.known = before
        elif isinstance(s, If):
            yield from _accesses(s.then, forms, threads)
            yield from _accesses(s.otherwise, forms, threads)
    forms.known = known
