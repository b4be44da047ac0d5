"""The graph: an immutable list of typed equations, one printed line each.

    graph net(x: float32[n,4], w: float32[8,4], b: float32[8]) state(b)
      v3: float32[n,8] = dot_general x w  contract=((1,), (1,)) batch=((), ())    # model.py:12
      v4: float32[n,8] = add v3 b                                                # model.py:12
      return v4  write(b <- v7)

A `Value` is what an equation defines or the graph takes in; a `Literal` is a number written into the graph. Equations
are in an order in which every value is defined before it is used. `state` says which inputs are written back after
the call: parameters, running statistics, optimizer states, the random counter.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from ndarray.dims import Dim, Guard
from ndarray.dtypes import name_of
from ndarray.op import OPS, ArrayType, Op

__all__ = ["Atom", "Equation", "Graph", "Literal", "Source", "Value", "every_equation"]


@dataclass(frozen=True)
class Source:
    """The user's line that made an equation; `block` is the library's Block that it went through, as "Conv2D 0"."""

    file: str
    line: int
    function: str = ""
    block: str = ""

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True, eq=False, slots=True)
class Value:
    """An array value in a graph; compared by identity. `name` is for people and for exported interfaces."""

    type: ArrayType
    name: str = ""

    @property
    def shape(self) -> tuple:
        return self.type.shape

    @property
    def dtype(self) -> np.dtype:
        return self.type.dtype


@dataclass(frozen=True, slots=True)
class Literal:
    """A number in the graph, of a given dtype: a 0-d array known when the graph is compiled."""

    value: Any
    dtype: np.dtype

    @property
    def shape(self) -> tuple:
        return ()

    @property
    def type(self) -> ArrayType:
        return ArrayType((), self.dtype)

    def __str__(self) -> str:
        return f"{self.value!r}:{name_of(self.dtype)}"


Atom = Value | Literal


@dataclass(frozen=True, eq=False, slots=True)
class Equation:
    """``outputs = op inputs attrs``. `attrs` hold plain data (numbers, strings, dtypes, tuples, Dims, Graphs)."""

    op: Op
    inputs: tuple[Atom, ...]
    outputs: tuple[Value, ...]
    attrs: Mapping[str, Any] = field(default_factory=dict)
    source: Source | None = None

    @property
    def output(self) -> Value:
        """The only output."""
        (out,) = self.outputs
        return out


@dataclass(frozen=True, eq=False)
class Graph:
    """A function of arrays as data.

    inputs    the values that are passed in, in order: the call's arguments first, then what the trace captured
    outputs   what is returned (inputs and literals are allowed)
    equations in execution order
    state     {input index: the atom whose value is written back to that input}
    guards    conditions on symbolic sizes under which the graph is valid
    name      for people
    """

    inputs: tuple[Value, ...]
    outputs: tuple[Atom, ...]
    equations: tuple[Equation, ...]
    state: Mapping[int, Atom] = field(default_factory=dict)
    guards: tuple[Guard, ...] = ()
    name: str = "graph"

    def replace(self, **changes: Any) -> Graph:
        """A copy with some fields changed."""
        return replace(self, **changes)

    @cached_property
    def symbols(self) -> tuple[str, ...]:
        """Names of the symbolic sizes, in the order in which the inputs show them."""
        found: dict[str, None] = {}
        for value in self.inputs:
            for d in value.shape:
                if isinstance(d, Dim):
                    found.update(dict.fromkeys(d.hints))
        return tuple(found)

    def results(self) -> Iterator[Atom]:
        """Everything that must be computed: the outputs, then what is written back."""
        yield from self.outputs
        yield from self.state.values()

    @cached_property
    def skeleton(self) -> tuple[str, tuple[Literal, ...]]:
        """SHA-256 of the structure as `hash` but for the values of floating literals, and these literals: those of the
        equations, in order, of the outputs and of what is written back, by the number of the input."""
        return _skeleton(self)

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the structure: ops, attributes, types, wiring; not of names, source lines or identities."""
        structure, literals = self.skeleton
        return hashlib.sha256("\n".join([structure, *[repr(a.value) for a in literals]]).encode()).hexdigest()

    def __str__(self) -> str:
        return render(self)

    __repr__ = __str__


OPEN_KINDS = "fcV"
"""Kinds of the dtypes (floating, complex, bfloat16) whose literals a skeleton leaves open."""


def every_equation(graph: Graph) -> list[Equation]:
    """The equations of a graph, then those of its sub-graphs, in an order that only the structure decides."""
    found = list(graph.equations)
    for eq in graph.equations:
        for _, value in sorted(eq.attrs.items()):
            if isinstance(value, Graph):
                found += every_equation(value)
    return found


def attribute_text(value: Any) -> str:
    """One attribute value as canonical text."""
    if isinstance(value, np.dtype):
        return name_of(value)
    if isinstance(value, type) and issubclass(value, np.generic):
        return np.dtype(value).name
    if isinstance(value, tuple):
        return "(" + ", ".join(map(attribute_text, value)) + ("," if len(value) == 1 else "") + ")"
    if isinstance(value, Graph):
        return f"graph:{value.hash}"
    return repr(value)


def _skeleton(graph: Graph) -> tuple[str, tuple[Literal, ...]]:
    """See `Graph.skeleton`."""
    numbers: dict[Any, int] = {v: n for n, v in enumerate(graph.inputs)}
    literals: list[Literal] = []

    def atoms(found: Iterable[Atom]) -> str:
        texts = []
        for a in found:
            if isinstance(a, Value):
                texts.append(str(numbers[a]))
            elif a.dtype.kind in OPEN_KINDS:
                literals.append(a)
                texts.append(name_of(a.dtype))
            else:
                texts.append(str(a))
        return " ".join(texts)

    def types(values: Iterable[Value]) -> str:
        return " ".join([f"{name_of(v.type.dtype)}{v.type.shape}" for v in values])

    lines = [types(graph.inputs)]
    for eq in graph.equations:
        attrs = [f"{k}={attribute_text(eq.attrs[k])}" for k in sorted(eq.attrs)] if eq.attrs else ()
        lines.append(f"{eq.op.name} {atoms(eq.inputs)}; {' '.join(attrs)}; {types(eq.outputs)}")
        for v in eq.outputs:
            numbers[v] = len(numbers)
    lines += [atoms(graph.outputs), *[f"{i}<-{atoms([a])}" for i, a in sorted(graph.state.items())], *map(str, graph.guards)]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest(), tuple(literals)


def render(graph: Graph, names: bool = True, sources: bool = True, marks: Mapping[Equation, str] | None = None) -> str:
    """The graph as text, one line an equation. `marks` adds a note behind chosen equations."""
    labels: dict[Value, str] = {}

    def label(atom: Atom) -> str:
        if isinstance(atom, Literal):
            return str(atom)
        if atom not in labels:
            labels[atom] = atom.name if names and atom.name else f"v{len(labels)}"
        return labels[atom]

    inputs = ", ".join(f"{label(v)}: {v.type}" for v in graph.inputs)
    lines = [f"graph {graph.name if names else ''}({inputs})"]
    for eq in graph.equations:
        operands = "".join(" " + label(a) for a in eq.inputs)
        left = ", ".join(f"{label(v)}: {v.type}" for v in eq.outputs)
        attrs = "".join(f" {k}={attribute_text(v)}" for k, v in sorted(eq.attrs.items()))
        line = f"  {left} = {eq.op.name}{operands}{' ' + attrs if attrs else ''}"
        if sources and eq.source is not None:
            line = f"{line:<88}  # {eq.source}"
        if marks and eq in marks:
            line += f"  <- {marks[eq]}"
        lines.append(line)
        if names and sources:
            for key, value in sorted(eq.attrs.items()):
                if isinstance(value, Graph):
                    lines += ("    " + text for text in f"{key}: {render(value)}".split("\n"))
    writes = "".join(f" {label(graph.inputs[i])}<-{label(a)}" for i, a in sorted(graph.state.items()))
    lines.append("  return " + " ".join(label(a) for a in graph.outputs) + (f"  write{writes}" if writes else ""))
    if graph.guards:
        lines.append("  where " + ", ".join(map(str, graph.guards)))
    return "\n".join(lines)


class Builder:
    """Makes equations one by one, inferring their output types, and finally the graph."""

    def __init__(self, name: str = "graph"):
        self.name = name
        self.inputs: list[Value] = []
        self.equations: list[Equation] = []

    def input(self, type: ArrayType, name: str = "") -> Value:
        """A new input."""
        self.inputs.append(Value(type, name))
        return self.inputs[-1]

    def emit(self, op: Op | str, *inputs: Atom, source: Source | None = None, **attrs: Any) -> tuple[Value, ...]:
        """Append an equation; returns its outputs (always a tuple)."""
        op = OPS[op] if isinstance(op, str) else op
        types = op.infer(*(a.type for a in inputs), **attrs)
        outputs = tuple(Value(t) for t in types)
        self.equations.append(Equation(op, inputs, outputs, attrs, source))
        return outputs

    def build(self, outputs: Iterable[Atom], state: Mapping[int, Atom] | None = None, guards: Iterable[Guard] = ()) -> Graph:
        """The graph made so far."""
        return Graph(tuple(self.inputs), tuple(outputs), tuple(self.equations), dict(state or {}), tuple(guards), self.name)
