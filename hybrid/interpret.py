"""The reference interpreter: a graph run op by op on NumPy arrays. Slow, obvious, and the oracle of the tests.

`backend` lets the whole system run on it, without a compiler.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ndarray.device import Device
from ndarray.device import device as device_of
from ndarray.dims import Dim, evaluate

from .backend import Options, refuse_leaked, unchanged
from .graph import Atom, Graph, Literal, Value
from .sizes import substitute

__all__ = ["InterpretedProgram", "backend", "bind_sizes", "concrete_attributes", "evaluate_graph", "evaluate_steps"]


def bind_sizes(graph: Graph, shapes: Sequence[tuple[int, ...]]) -> dict[str, int]:
    """The values of the graph's symbols for inputs of these shapes. Raises ValueError where a shape does not fit."""
    sizes: dict[str, int] = {}
    composite: list[tuple[int, Any, int]] = []
    for i, (value, shape) in enumerate(zip(graph.inputs, shapes)):
        if len(value.shape) != len(shape):
            raise ValueError(f"{graph.name}: input {i} has shape {tuple(shape)}, expected {value.type}")
        for want, have in zip(value.shape, shape):
            name = symbol_name(want)
            if name is not None:
                if sizes.setdefault(name, have) != have:
                    raise ValueError(
                        f"{graph.name}: input {i} has shape {tuple(shape)}, expected {value.type} with {name}={sizes[name]}"
                    )
            elif want is not have:
                composite.append((i, want, have))
    for i, want, have in composite:
        if evaluate(want, sizes) != have:
            raise ValueError(f"{graph.name}: input {i} has size {have} where {graph.inputs[i].type} is expected")
    return sizes


def symbol_name(size: Any) -> str | None:
    """The name of a dimension that is a bare symbol; None for anything else."""
    if isinstance(size, Dim) and len(size.terms) == 1:
        ((monomial, coefficient),) = size.terms
        if coefficient == 1 and len(monomial) == 1 and isinstance(monomial[0], str):
            return monomial[0]
    return None


def concrete_attributes(value: Any, sizes: Mapping[str, int]) -> Any:
    """An attribute with its symbolic sizes evaluated."""
    if isinstance(value, Dim):
        return evaluate(value, sizes)
    if isinstance(value, tuple):
        return tuple([concrete_attributes(v, sizes) for v in value])
    if isinstance(value, Graph) and sizes:
        return substitute(value, sizes)
    return value


def evaluate_graph(graph: Graph, arrays: Sequence[Any], xp: Any = np) -> list[Any]:
    """The graph's outputs for arrays of a module, one per input; then the state is written into the arrays, in place.

    The outputs are new arrays. Raises ValueError for shapes that don't fit or break a guard.
    """
    if len(arrays) != len(graph.inputs):
        raise ValueError(f"{graph.name}: {len(arrays)} arrays for {len(graph.inputs)} inputs")
    refuse_leaked(arrays, graph.name)
    sizes = bind_sizes(graph, [a.shape for a in arrays])
    for guard in graph.guards:
        if not guard.holds(sizes):
            raise ValueError(f"{graph.name}: the guard {guard} does not hold for {sizes}")
    outputs, states = _run(graph, arrays, sizes, xp)
    for i, new in states:
        arrays[i][...] = new
    return outputs


def evaluate_steps(graph: Graph, arrays: Sequence[Any], xp: Any = np) -> list[Any]:
    """The outputs of a sub-graph without state and symbolic sizes, the body of a loop, on arrays of a module."""
    return _run(graph, arrays, {}, xp)[0]


def _run(
    graph: Graph, arrays: Sequence[Any], sizes: Mapping[str, int], xp: Any = np
) -> tuple[list[Any], list[tuple[int, Any]]]:
    """The outputs, and the new values of the inputs that are written."""
    values: dict[Value, Any] = dict(zip(graph.inputs, arrays))

    def read(atom: Atom) -> Any:
        return xp.asarray(atom.value, dtype=atom.dtype) if isinstance(atom, Literal) else values[atom]

    last = {a: i for i, eq in enumerate(graph.equations) for a in eq.inputs if isinstance(a, Value)}
    kept = {a for a in graph.results() if isinstance(a, Value)} | set(graph.inputs)
    for i, eq in enumerate(graph.equations):
        attrs = {k: concrete_attributes(v, sizes) for k, v in eq.attrs.items()}
        result = eq.op.eager(xp, *[read(a) for a in eq.inputs], **attrs)
        results = result if isinstance(result, tuple) else (result,)
        for value, r in zip(eq.outputs, results, strict=True):
            values[value] = xp.asarray(r)
        for a in eq.inputs:
            if isinstance(a, Value) and last[a] == i and a not in kept:
                values.pop(a, None)
    return [xp.array(read(a)) for a in graph.outputs], [(i, xp.array(read(a))) for i, a in graph.state.items()]


@dataclass(frozen=True)
class InterpretedReport:
    """Of a graph that runs op by op: an equation is a kernel."""

    graph: Graph

    @property
    def kernels(self) -> tuple[InterpretedKernel, ...]:
        """A row for each equation."""
        return tuple(InterpretedKernel(eq.op.name, (eq.op.name.removesuffix("_channels_last"),)) for eq in self.graph.equations)

    def __str__(self) -> str:
        return f"{self.graph.name}: interpreted, op by op\n{self.graph}"


@dataclass(frozen=True)
class InterpretedKernel:
    """One equation."""

    name: str
    operations: tuple[str, ...]


class InterpretedProgram:
    """See `hybrid.backend.Program`."""

    def __init__(self, graph: Graph, device: Device | None = None):
        self.graph, self.device = graph, device

    def __call__(self, arrays: Sequence[Any]) -> list[Any]:
        if self.device is None:
            return evaluate_graph(self.graph, arrays)
        with self.device.active():
            xp = self.device.inner  # numbers of the call are arrays of the host
            given = [xp.asarray(a) if isinstance(a, np.ndarray) else a for a in arrays]
            return evaluate_graph(self.graph, given, xp)

    def explain(self, arrays: Sequence[Any] | None = None, measure: bool = False) -> InterpretedReport:
        """The graph: nothing is fused or planned."""
        return InterpretedReport(self.graph)


class InterpreterBackend:
    """See `hybrid.backend.Backend`."""

    name = "interpreter"

    def __init__(self, device: Device | None = None):
        self.device = device

    def on(self, device: str) -> InterpreterBackend:
        """The interpreter on arrays of another device than the CPU."""
        return InterpreterBackend(device_of(device))

    def compile(
        self, graph: Graph, options: Options = Options(), passes: Callable[[Graph], Graph] = unchanged,  # noqa: B008 (frozen)
    ) -> InterpretedProgram:
        """Little to do: the graph itself is the program."""
        return InterpretedProgram(passes(graph), self.device)

    def emit(self, graph: Graph, target: str) -> tuple[bytes, str]:
        """Refused: there is no native code."""
        raise NotImplementedError("the interpreter makes no native code; use the backend 'jit'")


backend = InterpreterBackend()
