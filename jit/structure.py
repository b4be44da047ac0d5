"""Equations up to the names of their values: what is equal here is lowered in the same way.

The layers of a transformer, residual blocks, the updates of an optimizer differ in which values they are about, and in
nothing else.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable
from typing import NamedTuple

from hybrid.graph import Atom, Equation, Literal, Value, attribute_text

from .pull import Pull

__all__ = ["Structure", "Structures"]


class Structure(NamedTuple):
    """What some equations compute. Where keys are equal, values of equal `numbers` correspond to one another; `stored` are those
    that are read from memory."""

    key: Hashable
    numbers: dict[Value, int]
    stored: list[Value]


class Structures:
    """Describes equations of a graph."""

    def __init__(self, pull: Pull):
        self.pull = pull
        self._heads: dict[Equation, int] = {}
        self._numbers: dict[Hashable, int] = {}

    def describe(self, equations: Iterable[Equation]) -> Structure:
        """The structure of equations, as a `Scope` with them inside computes them: with the cheap ones in front of them."""
        inside = dict.fromkeys(equations)
        key: list[Hashable] = []
        found = Structure((), {}, [])
        roots = [self._add(eq.outputs[0], inside, key, found) for eq in inside]
        return found._replace(key=(*key, *roots))

    def _add(self, atom: Atom, inside: Collection[Equation], key: list[Hashable], found: Structure) -> int:
        """The number of a value, or of a literal, after what it is computed from has been added to the key."""
        if isinstance(atom, Literal):
            return ~self._number((repr(atom.value), atom.dtype))
        numbers = found.numbers
        if atom not in numbers:
            eq = self.pull.producer.get(atom)
            if eq is not None and (eq in inside or self.pull.is_cheap(atom, eq)):
                key.append((self._head(eq), *[self._add(a, inside, key, found) for a in eq.inputs]))
                for v in eq.outputs:
                    numbers[v] = len(numbers)
            else:
                key.append(self._number(atom.type))
                numbers[atom] = len(numbers)
                found.stored.append(atom)
        return numbers[atom]

    def _head(self, eq: Equation) -> int:
        """An equation without its values."""
        found = self._heads.get(eq)
        if found is None:
            attrs = tuple([(k, attribute_text(v)) for k, v in sorted(eq.attrs.items())])
            types = tuple([a.type for a in (*eq.inputs, *eq.outputs)])
            found = self._heads[eq] = self._number((eq.op.name, attrs, len(eq.inputs), types))
        return found

    def _number(self, text: Hashable) -> int:
        return self._numbers.setdefault(text, len(self._numbers))
