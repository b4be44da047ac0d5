"""Parts of a trace that are alike. A function that does the same for many arrays (the update of each weight) is run for the first
ones of each type; what it has added to the graph is written again, with other values, for the others."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ndarray import apply as _apply
from ndarray.array import NDArray, wrap

from .graph import Atom, Equation, Graph, Literal, Value
from .scalars import ScalarInput
from .trace import Cell, Traced, Tracer

__all__ = ["traced_alike"]

Function = Callable[[Sequence[NDArray], Mapping[str, Any]], Sequence[NDArray]]


@dataclass(frozen=True)
class _Part:
    """What the function has written for `inputs`."""

    inputs: tuple[Atom, ...]
    equations: tuple[Equation, ...]
    outputs: tuple[Value, ...]


def traced_alike(
    tracer: Tracer, known: dict[Any, Any], function: Function, arrays: Sequence[NDArray], numbers: Mapping[str, Any]
) -> Sequence[NDArray]:
    """``function(arrays, numbers)``, which must do the same for all arrays of the same types; numbers that aren't known while
    tracing count as arrays. `known` is a dictionary for one function and one trace.

    The function is called all the same where it does more than write equations of what it was given.
    """
    if _apply.current().interpreter is not tracer:
        return function(arrays, numbers)
    given = [v._array if type(v) is ScalarInput else v for v in numbers.values()]
    places = [*arrays, *[v for v in given if isinstance(v, NDArray)]]
    atoms = tuple([tracer.atom(a) for a in places])
    kinds = tuple([(name, type(v), None if isinstance(v, NDArray) else repr(v)) for name, v in zip(numbers, given)])
    key = tuple([(atom.type, a._device) for atom, a in zip(atoms, places)]), len(arrays), kinds
    part = known.get(key)
    if part is None:
        before = _state(tracer)
        first = len(tracer.equations)
        results = function(arrays, numbers)
        known[key] = _part(atoms, tracer.equations[first:], results) if _state(tracer) == before else False
        return results
    if part is False:
        return function(arrays, numbers)
    new: dict[Any, Atom] = dict(zip(part.inputs, atoms))
    for eq in part.equations:
        outputs = tuple([Value(v.type) for v in eq.outputs])
        tracer.equations.append(Equation(eq.op, tuple([new.get(a, a) for a in eq.inputs]), outputs, eq.attrs, eq.source))
        new.update(zip(eq.outputs, outputs))
    source, device = (part.equations[-1].source if part.equations else None), arrays[0]._device
    return [wrap(Traced(tracer, Cell(new[v]), new[v], source=source), device) for v in part.outputs]


def _state(tracer: Tracer) -> tuple[Any, ...]:
    """What a function changes that does more than add equations."""
    versions = [c.version for c in tracer.inputs_of if isinstance(c, Cell)]
    return len(tracer.inputs), len(tracer.guards), len(tracer.pinned), len(tracer.conditions), tracer.taped, versions


def _part(inputs: tuple[Atom, ...], equations: Sequence[Equation], results: Sequence[NDArray]) -> _Part | bool:
    """What was written, or False where it can't be written for other inputs in place of these."""
    known = set(inputs)
    if len(known) < len(inputs) or any(isinstance(a, Literal) for a in inputs):
        return False
    for eq in equations:
        if not all(isinstance(a, Literal) or a in known for a in eq.inputs):
            return False
        if any(isinstance(v, Graph) for v in eq.attrs.values()):
            return False
        known.update(eq.outputs)
    made = {v for eq in equations for v in eq.outputs}
    outputs = []
    for r in results:
        data = r._data
        if type(data) is not Traced or data.parent is not None or r._node is not None or data.cell.atom not in made:
            return False
        outputs.append(data.cell.atom)
    return _Part(inputs, tuple(equations), tuple(outputs))
