"""Inlining: ``graph_call`` is replaced by the equations of the graph that it calls."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ndarray.dims import Dim, Size, symbol

from ..graph import Atom, Equation, Graph, Value
from .rewrite import Rewriter, rewrite

__all__ = ["inline", "substitute"]


def inline(graph: Graph) -> Graph:
    """The graph without calls."""
    if all(eq.op.name != "graph_call" for eq in graph.equations):
        return graph
    return rewrite(graph, _inline)


def _inline(rewriter: Rewriter, eq: Equation) -> dict[Value, Atom] | None:
    if eq.op.name != "graph_call":
        return None
    called = inline(eq.attrs["graph"])
    sizes: dict[str, Size] = {}
    for formal, actual in zip(called.inputs, eq.inputs):
        match_sizes(formal.shape, actual.shape, sizes)
    now: dict[Value, Atom] = dict(zip(called.inputs, eq.inputs))
    for inner in called.equations:
        inputs = tuple([now.get(a, a) if isinstance(a, Value) else a for a in inner.inputs])
        attrs = {k: substitute(v, sizes) for k, v in inner.attrs.items()}
        types = inner.op.infer(*[a.type for a in inputs], **attrs)
        outputs = tuple([Value(t) for t in types])
        rewriter.append(Equation(inner.op, inputs, outputs, attrs, inner.source or eq.source))
        now.update(zip(inner.outputs, outputs))
    results = [now.get(a, a) if isinstance(a, Value) else a for a in called.outputs]
    return dict(zip(eq.outputs, results))


def match_sizes(formal: tuple[Size, ...], actual: tuple[Size, ...], sizes: dict[str, Size]) -> None:
    """Note what the symbols of a formal shape stand for."""
    for f, a in zip(formal, actual):
        if isinstance(f, Dim) and len(f.terms) == 1 and f.terms[0][1] == 1 and len(f.terms[0][0]) == 1:
            name = f.terms[0][0][0]
            if isinstance(name, str):
                sizes.setdefault(name, a)


def substitute(value: Any, sizes: Mapping[str, Size]) -> Any:
    """A size (or a tuple with sizes in it) with its symbols replaced."""
    if isinstance(value, tuple):
        return tuple([substitute(v, sizes) for v in value])
    if not isinstance(value, Dim):
        return value
    total: Size = 0
    for monomial, coefficient in value.terms:
        term: Size = coefficient
        for atom in monomial:
            if isinstance(atom, str):
                term = term * sizes.get(atom, symbol(atom, value.hints[atom]))
            else:
                op, left, right = atom
                a, b = substitute(left, sizes), substitute(right, sizes)
                term = term * (a // b if op == "//" else a % b)
        total = total + term
    return total
