"""What `explain` says about a hybridized function: its signature, and a backend's report on each program it runs.

    with autograd.record():
        print(net.explain(x))            # forward for training, and backward

`str()` of an `Explanation` is a table for a person; everything in it is also an attribute.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from .call import Derivative, compile_graph, is_tracked

if TYPE_CHECKING:
    from .entry import Entry

__all__ = ["Explanation", "explain_entry"]


@dataclass(frozen=True)
class Explanation:
    """
    name        of the function, with how often it was traced, compiled and called
    arguments   name and type of each array argument; `captured`: of each array that the function found by itself;
                `written`: names of those that it writes
    guards      (condition on symbolic sizes, the user's line that asked)
    programs    a report for each program: one, or forward and backward. The compiler's are `jit.explain.ProgramReport`s
    """

    name: str
    traces: int
    compilations: int
    calls: int
    arguments: tuple[tuple[str, str], ...]
    captured: tuple[tuple[str, str], ...]
    written: tuple[str, ...]
    guards: tuple[tuple[str, str], ...]
    programs: tuple[Any, ...]

    @property
    def kernels(self) -> list[Any]:
        """The rows of all programs: one for each kernel launch, with `name` and `operations`."""
        return [k for program in self.programs for k in program.kernels]

    def __contains__(self, text: str) -> bool:
        """Whether the text says so."""
        return text in str(self)

    def __str__(self) -> str:
        return self._text

    @cached_property
    def _text(self) -> str:
        listed = lambda pairs: ", ".join(f"{name}: {type}" for name, type in pairs) or "nothing"
        lines = [f"{self.name}: {self.traces} traces, {self.compilations} compilations, {self.calls} calls"]
        lines += [f"arguments: {listed(self.arguments)}", f"captured: {listed(self.captured)}"]
        if self.written:
            lines.append("written back: " + ", ".join(self.written))
        lines += [f"valid where {guard}   # {source}" for guard, source in self.guards]
        return "\n".join([*lines, *map(str, self.programs)])


def explain_entry(
    name: str, counts: tuple[int, int, int], entry: Entry, inputs: Sequence[Any], recording: bool, measure: bool
) -> Explanation:
    """The explanation of one signature for these inputs (arguments, then captured arrays). Nothing of them is written."""
    graph, leaves = entry.traced, entry.leaves
    arrays = [a._data for a in inputs]
    tracked = tuple([a._node is not None and is_tracked(a) for a in inputs])
    if recording and any(tracked):
        programs = _explain_training(entry.core.derivative(tracked), arrays, measure)
    else:
        programs = (entry.compiled().explain(arrays, measure),)
    types = [(v.name or "array", str(v.type)) for v in graph.inputs]
    return Explanation(
        name, *counts, tuple(types[:leaves]), tuple(types[leaves : len(graph.inputs)]),
        tuple(graph.inputs[i].name or f"input {i}" for i in graph.state),
        tuple((str(guard), str(source)) for guard, source in entry.guards), programs,
    )


def _explain_training(derivative: Derivative, arrays: list[np.ndarray], measure: bool) -> tuple[Any, ...]:
    """Forward with what backward needs, and backward."""
    forward = derivative.program.explain(arrays, measure)
    if not derivative.differentiable:
        return (forward,)
    parts = derivative.parts
    outputs = derivative.program([a.copy() for a in arrays])
    given = [arrays[i] if kind == "input" else outputs[i] for kind, i in parts.residuals]
    given += [np.ones_like(outputs[j]) for j in parts.cotangents]
    return forward, compile_graph(parts.backward, derivative.backend).explain(given, measure)
