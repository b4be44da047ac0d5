"""Symbolic sizes of graphs replaced by others: where a graph is called, and where a loop's body is run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ndarray.dims import Dim, Size, symbol
from ndarray.op import ArrayType

from .graph import Atom, Equation, Graph, Value

__all__ = ["match_sizes", "substitute", "substitute_graph"]


def match_sizes(formal: tuple[Size, ...], actual: tuple[Size, ...], sizes: dict[str, Size]) -> None:
    """Note what the symbols of a formal shape stand for."""
    for f, a in zip(formal, actual):
        if isinstance(f, Dim) and len(f.terms) == 1 and f.terms[0][1] == 1 and len(f.terms[0][0]) == 1:
            name = f.terms[0][0][0]
            if isinstance(name, str):
                sizes.setdefault(name, a)


def substitute(value: Any, sizes: Mapping[str, Size]) -> Any:
    """A size (or a tuple or a graph with sizes in it) with its symbols replaced."""
    if isinstance(value, Graph):
        return substitute_graph(value, sizes)
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


def substitute_graph(graph: Graph, sizes: Mapping[str, Size]) -> Graph:
    """The graph with the symbols of its types and attributes replaced; itself where it has none."""
    now: dict[Value, Value] = {}

    def value(v: Value) -> Value:
        shape = substitute(v.shape, sizes)
        now[v] = v if all(a is b for a, b in zip(shape, v.shape)) else Value(ArrayType(shape, v.dtype), v.name)
        return now[v]

    def atom(a: Atom) -> Atom:
        return now.get(a, a) if isinstance(a, Value) else a

    inputs = tuple(map(value, graph.inputs))
    equations = []
    for eq in graph.equations:
        attrs = {k: substitute(v, sizes) for k, v in eq.attrs.items()}
        equations.append(Equation(eq.op, tuple(map(atom, eq.inputs)), tuple(map(value, eq.outputs)), attrs, eq.source))
    state = {i: atom(a) for i, a in graph.state.items()}
    return graph.replace(inputs=inputs, outputs=tuple(map(atom, graph.outputs)), equations=tuple(equations), state=state)
