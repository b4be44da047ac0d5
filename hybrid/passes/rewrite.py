"""Rewriting a graph equation by equation, front to back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ndarray.op import OPS, Op

from ..graph import Atom, Equation, Graph, Source, Value

__all__ = ["Rewriter", "rewrite"]


class Rewriter:
    """The new graph while it is made: emitted equations, and what each old value has become."""

    def __init__(self) -> None:
        self.equations: list[Equation] = []
        self.renamed: dict[Value, Atom] = {}
        self.producers: dict[Value, Equation] = {}  # of the new graph
        self.source: Source | None = None

    def now(self, atom: Atom) -> Atom:
        """What an atom of the old graph has become."""
        return self.renamed.get(atom, atom) if isinstance(atom, Value) else atom

    def emit(self, op: Op | str, *inputs: Atom, **attrs: Any) -> Value:
        """Append an equation with one output; returns that."""
        record = OPS[op] if isinstance(op, str) else op
        (type_,) = record.infer(*[a.type for a in inputs], **attrs)
        return self.append(Equation(record, inputs, (Value(type_),), attrs, self.source)).output

    def append(self, equation: Equation) -> Equation:
        """Append an equation of the new graph."""
        self.equations.append(equation)
        for value in equation.outputs:
            self.producers[value] = equation
        return equation

    def producer(self, atom: Atom, op: str) -> Equation | None:
        """The equation that makes `atom`, if it is one of that op."""
        eq = self.producers.get(atom) if isinstance(atom, Value) else None
        return eq if eq is not None and eq.op.name == op else None


def rewrite(graph: Graph, step: Callable[[Rewriter, Equation], Mapping[Value, Atom] | None]) -> Graph:
    """The graph in which each equation has been offered to `step`, its inputs already renewed.

    `step` returns what the equation's outputs become, or None to keep it.
    """
    rewriter, changed = Rewriter(), False
    for eq in graph.equations:
        if rewriter.renamed and any(a in rewriter.renamed for a in eq.inputs if type(a) is Value):
            eq = Equation(eq.op, tuple([rewriter.now(a) for a in eq.inputs]), eq.outputs, eq.attrs, eq.source)
        rewriter.source = eq.source
        new = step(rewriter, eq)
        if new is None:
            rewriter.append(eq)
        else:
            changed = True
            rewriter.renamed.update(new)
    if not changed:
        return graph
    return graph.replace(
        equations=tuple(rewriter.equations),
        outputs=tuple([rewriter.now(a) for a in graph.outputs]),
        state={i: rewriter.now(a) for i, a in graph.state.items()},
    )
