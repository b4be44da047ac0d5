"""Is a graph well formed? Run after every pass in tests and under ``HYBRID_DEBUG >= 1``."""

from __future__ import annotations

from typing import Any

import numpy as np

from ndarray.dims import Dim, Size, hint
from ndarray.op import OPS, ArrayType

from .graph import Atom, Equation, Graph, Literal, Value, render

__all__ = ["GraphError", "verify"]

_PLAIN = (bool, int, float, complex, str, bytes, type(None), np.dtype, Dim)


class GraphError(AssertionError):
    """A graph breaks a rule: a fault of the library, not of its user."""


def verify(graph: Graph, after: str = "") -> Graph:
    """Check `graph` and return it.

    Every value is an input or defined by exactly one earlier equation; each equation's op is registered, its attributes
    are plain data, and its outputs have the types that the op infers; what is written back has the input's type.
    Raises GraphError that shows the equation, its neighbours and the user's line; `after` names the pass to blame.
    """
    defined: set[Value] = set()
    for value in graph.inputs:
        if value in defined:
            _fail(graph, None, f"input {value.name or value.type} is listed twice", after)
        defined.add(value)
    for eq in graph.equations:
        if OPS.get(eq.op.name) is not eq.op:
            _fail(graph, eq, f"op {eq.op.name!r} is not the registered one", after)
        for i, a in enumerate(eq.inputs):
            _check_atom(graph, eq, a, defined, f"argument {i}", after)
        for name, attribute in eq.attrs.items():
            if not _is_plain(attribute):
                _fail(graph, eq, f"attribute {name!r} is {type(attribute).__name__}, not plain data", after)
            if isinstance(attribute, Graph) and eq.op.name != "graph_call":
                verify(attribute, after)
        try:
            types = eq.op.infer(*[a.type for a in eq.inputs], **eq.attrs)
        except (TypeError, ValueError) as error:
            _fail(graph, eq, f"its types don't fit: {error}", after)
        if len(types) != len(eq.outputs):
            _fail(graph, eq, f"{len(eq.outputs)} outputs, the op has {len(types)}", after)
        for i, (value, inferred) in enumerate(zip(eq.outputs, types)):
            if value in defined:
                _fail(graph, eq, f"output {i} is defined twice", after)
            if not same_type(value.type, inferred):
                _fail(graph, eq, f"output {i} has type {value.type}, the op gives {inferred}", after)
            defined.add(value)
    for i, atom in enumerate(graph.outputs):
        _check_atom(graph, None, atom, defined, f"output {i}", after)
    for i, atom in graph.state.items():
        if not 0 <= i < len(graph.inputs):
            _fail(graph, None, f"state writes input {i} of {len(graph.inputs)}", after)
        _check_atom(graph, None, atom, defined, f"the new value of input {i}", after)
        if not same_type(graph.inputs[i].type, atom.type):
            _fail(graph, None, f"input {i} has type {graph.inputs[i].type}, its new value {atom.type}", after)
    return graph


def same_type(a: ArrayType, b: ArrayType) -> bool:
    """Whether two types agree. Sizes in different normal forms agree where their hints do (a guard said so)."""
    return a.dtype == b.dtype and len(a.shape) == len(b.shape) and all(map(same_size, a.shape, b.shape))


def same_size(a: Size, b: Size) -> bool:
    """Whether two sizes agree, without recording a guard."""
    return hint(a) == hint(b)


def _check_atom(graph: Graph, eq: Equation | None, atom: Atom, defined: set[Value], what: str, after: str) -> None:
    if isinstance(atom, Literal):
        return
    if not isinstance(atom, Value):
        _fail(graph, eq, f"{what} is {type(atom).__name__}, not a Value or Literal", after)
    if atom not in defined:
        _fail(graph, eq, f"{what} ({atom.name or 'a value'}: {atom.type}) is used before it is defined", after)


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple):
        return all(map(_is_plain, value))
    return isinstance(value, (*_PLAIN, Graph)) or (isinstance(value, type) and issubclass(value, np.generic))


def _fail(graph: Graph, eq: Equation | None, reason: str, after: str) -> None:
    blame = f" after pass {after!r}" if after else ""
    if eq is None:
        raise GraphError(f"graph {graph.name}{blame}: {reason}\n{render(graph)}")
    lines = render(graph, marks={eq: reason}).split("\n")
    at = graph.equations.index(eq) + 1
    near = "\n".join([lines[0], *(["  ..."] if at > 4 else []), *lines[max(1, at - 3):at + 4]])
    raise GraphError(f"graph {graph.name}{blame}: {eq.op.name} at {eq.source or 'an unknown line'}: {reason}\n{near}")
