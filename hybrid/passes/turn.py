"""Sums of padded parts are stored in the order of axes in which they are read.

The gradient of ``q, k, v = transpose(x)`` is ``transpose(pad(dq) + pad(dk) + pad(dv))``. The sum is stored, as many read it,
and each reader would walk across it. Here a transposition that alone reads a tree of elementwise equations over paddings
moves to what is padded: reading that in another order costs nothing more, for it is read once.
"""

from __future__ import annotations

from typing import Any

from ndarray.op import OPS, ArrayType

from ..graph import Atom, Equation, Graph, Value

__all__ = ["turn"]

Axes = tuple[int, ...]


def turn(graph: Graph) -> Graph:
    """The graph with such transpositions moved."""
    names = {eq.op.name for eq in graph.equations}
    if not {"transpose", "pad"} <= names:
        return graph
    return _Turner(graph).run()


class _Turner:
    """Goes through the equations from back to front, so that what reads a value is known when its equation comes."""

    def __init__(self, graph: Graph):
        self.graph = graph
        self.producer = {v: eq for eq in graph.equations for v in eq.outputs}
        self.kept: list[Equation] = []  # back to front
        self.readers: dict[Value, list[Equation]] = {}
        self.results = {a for a in graph.results() if isinstance(a, Value)}
        self.movable: dict[Value, bool] = {}
        self.changed = False

    def run(self) -> Graph:
        for eq in reversed(self.graph.equations):
            reader = self.only_reader(eq)
            if reader is not None and self.moves(eq.outputs[0]):
                self.changed = True
                self.drop(reader)
                self.move(eq, reader)
            else:
                self.keep(eq)
        return self.graph.replace(equations=tuple(reversed(self.kept))) if self.changed else self.graph

    def keep(self, eq: Equation) -> None:
        self.kept.append(eq)
        for a in eq.inputs:
            if isinstance(a, Value):
                self.readers.setdefault(a, []).append(eq)

    def drop(self, eq: Equation) -> None:
        self.kept.remove(eq)
        self.readers[eq.inputs[0]].remove(eq)  # type: ignore[index]

    def only_reader(self, eq: Equation) -> Equation | None:
        """The one transposition that reads an equation's result, if nothing else does."""
        if len(eq.outputs) != 1 or eq.outputs[0] in self.results:
            return None
        readers = self.readers.get(eq.outputs[0], [])
        return readers[0] if len(readers) == 1 and readers[0].op.name == "transpose" else None

    def moves(self, value: Atom) -> bool:
        """Whether a value is a padding, or made of nothing but such by elementwise equations."""
        if not isinstance(value, Value):
            return not value.shape
        found = self.movable.get(value)
        if found is None:
            eq = self.producer.get(value)
            found = eq is not None and (eq.op.name == "pad" or (
                "elementwise" in eq.op.traits and len(eq.outputs) == 1
                and all(self.moves(a) and len(a.shape) in (0, len(value.shape)) for a in eq.inputs)
                and any(isinstance(a, Value) for a in eq.inputs)))
            self.movable[value] = found
        return found

    def move(self, eq: Equation, reader: Equation) -> None:
        """Replace ``reader(eq(...))`` by ``eq(reader(...) ...)``."""
        axes: Axes = reader.attrs["axes"]
        attrs: dict[str, Any] = dict(eq.attrs)
        if eq.op.name == "pad":
            attrs.update({k: tuple(attrs[k][a] for a in axes) for k in ("low", "high", "interior")})
        turned: dict[Atom, Atom] = {a: self.turned(a, axes) for a in dict.fromkeys(eq.inputs)}
        self.keep(Equation(eq.op, tuple(turned[a] for a in eq.inputs), reader.outputs, attrs, eq.source))
        for old, new in turned.items():
            if new is not old:
                assert isinstance(new, Value)
                self.keep(Equation(OPS["transpose"], (old,), (new,), {"axes": axes}, eq.source))

    @staticmethod
    def turned(atom: Atom, axes: Axes) -> Atom:
        if not atom.shape:
            return atom
        return Value(ArrayType(tuple(atom.shape[a] for a in axes), atom.dtype))

