"""Symbolic dimensions: sizes that stay unknown while a graph is traced and compiled.

A `Dim` is an integer polynomial over named symbols, kept in a normal form, so that two equal sizes compare
equal without being evaluated: ``n * 400 // n`` is ``400``. Each symbol carries the value it has in the
trace under way (its *hint*). A question that the normal form can't answer (``n == 32``, ``n > k``) is
answered with the hints, and the answer is recorded as a `Guard`: the compiled program is valid for another
size only where every guard gives the same answer there.

``int(n)`` gives the hint and records the guard ``n == hint``: it specialises the trace to that size.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

__all__ = ["COMPARE", "Dim", "Guard", "Size", "bind", "evaluate", "hint", "product", "record_guards", "symbol"]

COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}
"""The comparisons of guards."""
_DIVIDE = {"//": operator.floordiv, "%": operator.mod}

_guards: ContextVar[Callable[[Guard], None] | None] = ContextVar("dim_guards", default=None)


@dataclass(frozen=True)
class Guard:
    """``left comparison right``, which gave `answer` for the sizes of the trace."""

    left: Size
    comparison: str
    right: Size
    answer: bool

    def holds(self, sizes: Mapping[str, int]) -> bool:
        """Whether the comparison gives the same answer for other values of the symbols."""
        return COMPARE[self.comparison](evaluate(self.left, sizes), evaluate(self.right, sizes)) == self.answer

    def __str__(self) -> str:
        text = f"{self.left} {self.comparison} {self.right}"
        return text if self.answer else f"not {text}"


class record_guards:
    """Context in which `sink` is told of each guard: ``with record_guards(guards.append): ...``."""

    def __init__(self, sink: Callable[[Guard], None]):
        self._sink = sink

    def __enter__(self) -> None:
        self._token = _guards.set(self._sink)

    def __exit__(self, *_: object) -> None:
        _guards.reset(self._token)


class Dim:
    """An integer polynomial over symbols. Atoms are symbol names and undivided quotients ``(op, left, right)``."""

    __slots__ = ("_hash", "hints", "terms")

    # terms: {monomial: coefficient}; a monomial is a sorted tuple of atoms, () being the constant's
    def __init__(self, terms: Mapping[tuple, int], hints: Mapping[str, int]):
        self.terms = tuple(sorted(((m, c) for m, c in terms.items() if c), key=repr))
        self.hints = dict(hints)
        self._hash = hash(self.terms)

    # -- arithmetic
    def __add__(self, other: Size) -> Size:
        o = _lift(other)
        if o is None:
            return NotImplemented
        terms = dict(self.terms)
        for m, c in o.terms:
            terms[m] = terms.get(m, 0) + c
        return _lower(terms, {**self.hints, **o.hints})

    __radd__ = __add__

    def __neg__(self) -> Size:
        return self * -1

    def __sub__(self, other: Size) -> Size:
        return self + (-other) if isinstance(other, (int, Dim)) else NotImplemented

    def __rsub__(self, other: Size) -> Size:
        return (-self) + other

    def __mul__(self, other: Size) -> Size:
        o = _lift(other)
        if o is None:
            return NotImplemented
        terms: dict[tuple, int] = {}
        for m, c in self.terms:
            for n, d in o.terms:
                key = tuple(sorted(m + n, key=repr))
                terms[key] = terms.get(key, 0) + c * d
        return _lower(terms, {**self.hints, **o.hints})

    __rmul__ = __mul__

    def __floordiv__(self, other: Size) -> Size:
        return _divide("//", self, other)

    def __rfloordiv__(self, other: Size) -> Size:
        return _divide("//", other, self)

    def __mod__(self, other: Size) -> Size:
        return _divide("%", self, other)

    def __rmod__(self, other: Size) -> Size:
        return _divide("%", other, self)

    # -- questions
    def __eq__(self, other: object) -> bool:
        if isinstance(other, Dim) and self.terms == other.terms:
            return True
        if not isinstance(other, (int, Dim)):
            return NotImplemented
        return self._ask("==", other)

    def __ne__(self, other: object) -> bool:
        equal = self.__eq__(other)
        return equal if equal is NotImplemented else not equal

    def __lt__(self, other: Size) -> bool:
        return self._ask("<", other)

    def __le__(self, other: Size) -> bool:
        return self._ask("<=", other)

    def __gt__(self, other: Size) -> bool:
        return self._ask(">", other)

    def __ge__(self, other: Size) -> bool:
        return self._ask(">=", other)

    def __hash__(self) -> int:
        return self._hash

    def __bool__(self) -> bool:
        return self._ask("!=", 0)

    def __index__(self) -> int:
        self._ask("==", self.hint)
        return self.hint

    __int__ = __index__

    def _ask(self, comparison: str, other: Size) -> bool:
        difference = self - other
        if isinstance(difference, int):
            return COMPARE[comparison](difference, 0)
        answer = COMPARE[comparison](difference.hint, 0)
        sink = _guards.get()
        if sink is not None:
            sink(Guard(self, comparison, other, answer))
        return answer

    @property
    def hint(self) -> int:
        """The value in the trace that made this dimension."""
        return evaluate(self, self.hints)

    def as_array(self, dtype: Any, device: Any) -> Any:
        """The size as a 0-d array in a trace: the last element of ``0 ... size``. No guard is recorded."""
        from .apply import apply
        from .op import OPS

        with device:
            positions = apply(OPS["iota"], shape=(self + 1,), axis=0, dtype=dtype)
        last = apply(OPS["slice"], positions, start=(self,), stop=(self + 1,), step=(1,))
        return apply(OPS["reshape"], last, shape=())

    # -- text
    def __repr__(self) -> str:
        parts = []
        for monomial, coefficient in self.terms:
            factors = [a if isinstance(a, str) else f"({_operand(a[1])} {a[0]} {_operand(a[2])})" for a in monomial]
            if coefficient != 1 or not factors:
                factors.insert(0, str(coefficient))
            parts.append("*".join(factors))
        return " + ".join(parts).replace("+ -", "- ")

    __str__ = __repr__


Size = int | Dim


def symbol(name: str, hint: int) -> Dim:
    """The dimension called `name`, which is `hint` in the trace under way."""
    return Dim({(name,): 1}, {name: hint})


def evaluate(size: Size, sizes: Mapping[str, int]) -> int:
    """The value of `size` where each symbol has the value that `sizes` gives."""
    if isinstance(size, int):
        return size
    total = 0
    for monomial, coefficient in size.terms:
        for atom in monomial:
            if isinstance(atom, str):
                coefficient *= sizes[atom]
            else:
                op, left, right = atom
                coefficient *= _DIVIDE[op](evaluate(left, sizes), evaluate(right, sizes))
        total += coefficient
    return total


def bind(pattern: tuple[Size, ...], shape: tuple[int, ...], sizes: dict[str, int]) -> bool:
    """Match a concrete shape against one with bare symbols; writes the symbols' values into `sizes`."""
    if len(pattern) != len(shape):
        return False
    for want, have in zip(pattern, shape, strict=True):
        if isinstance(want, int):
            if want != have:
                return False
        else:
            (((name,), _),) = want.terms
            if sizes.setdefault(name, have) != have:
                return False
    return True


def hint(size: Size) -> int:
    """The size, or the value that a symbolic one has in the trace; for decisions that cannot affect results."""
    return size.hint if isinstance(size, Dim) else size


def product(sizes: Iterable[Size]) -> Size:
    """The product of sizes; 1 for none."""
    total: Size = 1
    for s in sizes:
        total = total * s
    return total


def _operand(value: Size) -> str:
    return f"({value})" if isinstance(value, Dim) and len(value.terms) > 1 else str(value)


def _lift(value: object) -> Dim | None:
    if isinstance(value, Dim):
        return value
    return Dim({(): int(value)}, {}) if hasattr(value, "__index__") else None


def _lower(terms: Mapping[tuple, int], hints: Mapping[str, int]) -> Size:
    terms = {m: c for m, c in terms.items() if c}
    if not terms:
        return 0
    return terms[()] if set(terms) == {()} else Dim(terms, hints)


def _divide(op: str, left: Size, right: Size) -> Size:
    a, b = _lift(left), _lift(right)
    if a is None or b is None:
        return NotImplemented
    if not b.terms:
        raise ZeroDivisionError(f"{left} {op} 0")
    hints = {**a.hints, **b.hints}
    if len(b.terms) == 1:  # divide term by term where that is exact
        ((by, k),) = b.terms
        exact, rest = {}, {}
        for monomial, c in a.terms:
            reduced = _without(monomial, by)
            if reduced is not None and c % k == 0:
                exact[reduced] = c // k
            else:
                rest[monomial] = c
        if not rest:
            return _lower(exact, hints) if op == "//" else 0
        if exact:  # (b*q + r) // b is q + r // b, and (b*q + r) % b is r % b
            remainder = _divide(op, _lower(rest, hints), right)
            return _lower(exact, hints) + remainder if op == "//" else remainder
    if len(a.terms) and set(dict(a.terms)) == {()} and set(dict(b.terms)) == {()}:
        return _DIVIDE[op](a.terms[0][1], b.terms[0][1])
    return Dim({((op, _lower(dict(a.terms), a.hints), _lower(dict(b.terms), b.hints)),): 1}, hints)


def _without(monomial: tuple, factors: tuple) -> tuple | None:
    left = list(monomial)
    for f in factors:
        if f not in left:
            return None
        left.remove(f)
    return tuple(left)
