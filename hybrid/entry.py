"""One traced and compiled signature of a function: its program, where its inputs come from, how results are nested."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ndarray.array import NDArray, count_writes, wrap
from ndarray.device import Device, cpu
from ndarray.dims import Dim, evaluate
from ndarray.op import ArrayType
from ndarray.settings import settings
from ndarray.tape import is_repeating

from .backend import Options, Program, backend_on, overlapping
from .call import Derivative, compile_graph, is_tracked
from .graph import OPEN_KINDS, Atom, Equation, Graph, Literal, Value
from .interpret import bind_sizes
from .scalars import NumberOf, ScalarInput, Together

__all__ = ["Core", "Cores", "Entry", "Output", "Overlap", "Unfit", "form_of", "with_names"]

_new = object.__new__


class Overlap(Exception):
    """Arguments share memory with something that the program writes: run line by line instead."""


class Unfit(Exception):
    """The gradient of a symbolic program is not valid for the sizes of this call."""


class Core:
    """A graph with its programs. `lifted` names the float literals (in order of appearance) that became inputs."""

    def __init__(self, graph: Graph, values: tuple[Any, ...], lifted: tuple[int, ...], backend: str, options: Mapping[str, Any]):
        self.graph, self.values, self.lifted, self.backend, self.options = graph, values, lifted, backend, options
        self.derivatives: dict[tuple[bool, ...], Derivative] = {}
        self._lock = threading.RLock()

    def program(self, constant_inputs: frozenset[int]) -> Program:
        """The program without gradient."""
        return compile_graph(self.graph, self.backend, Options(constant_inputs, self.options))

    def derivative(self, tracked: tuple[bool, ...]) -> Derivative:
        """The program that prepares a gradient for the tracked inputs."""
        with self._lock:
            found = self.derivatives.get(tracked)
            if found is None:
                found = self.derivatives[tracked] = Derivative(
                    self.graph, tracked, self.backend, Options(frozenset(), self.options)
                )
        return found


class Cores:
    """The cores of one function. Graphs that differ in float literals only share one: the literals become its inputs."""

    def __init__(self, backend: str, options: Mapping[str, Any], static: bool = False):
        self.backend, self.options, self._static = backend, options, static
        self._by_skeleton: dict[Any, list[Core]] = {}

    def find(self, graph: Graph, device: Device) -> tuple[Core, list[np.ndarray]]:
        """A core for the graph on a device, and the arrays for its lifted literals."""
        backend = backend_on(self.backend, device)
        skeleton, literals = graph.skeleton
        values = tuple([a.value for a in literals])
        options = dict(self.options)
        if device.kind != "cpu":
            options |= {"static": True} if self._static else {}
            options |= {"precision": settings.matmul_precision} if settings.matmul_precision != "float32" else {}
        known = self._by_skeleton.setdefault((skeleton, backend, options.get("precision")), [])
        differing: set[int] = set()
        for core in known:
            different = {i for i, (a, b) in enumerate(zip(values, core.values)) if repr(a) != repr(b)} - set(core.lifted)
            if not different:
                return core, [np.asarray(values[i], literals[i].dtype) for i in core.lifted]
            differing |= different | set(core.lifted)
        lifted = tuple(sorted(differing))
        core = Core(lift(graph, lifted), values, lifted, backend, options)
        known.append(core)
        return core, [np.asarray(values[i], literals[i].dtype) for i in lifted]


def lift(graph: Graph, positions: Sequence[int]) -> Graph:
    """The graph with the float literals at these positions (as in its skeleton) as new 0-d inputs, after the others."""
    if not positions:
        return graph
    new: dict[int, Value] = {}

    def choose(i: int, a: Literal) -> Atom:
        if i not in positions:
            return a
        new[i] = Value(ArrayType((), a.dtype), f"c{i}")
        return new[i]

    lifted = _map_literals(graph, choose)
    return lifted.replace(inputs=(*lifted.inputs, *[new[i] for i in positions]))


def _map_literals(graph: Graph, function: Callable[[int, Literal], Atom]) -> Graph:
    count = 0

    def change(atom: Atom) -> Atom:
        nonlocal count
        if not isinstance(atom, Literal) or atom.dtype.kind not in OPEN_KINDS:
            return atom
        count += 1
        return function(count - 1, atom)

    equations = []
    for eq in graph.equations:
        inputs = tuple([change(a) for a in eq.inputs])
        equations.append(replace(eq, inputs=inputs) if inputs != eq.inputs else eq)
    outputs = tuple([change(a) for a in graph.outputs])
    state = {i: change(a) for i, a in sorted(graph.state.items())}
    return graph.replace(equations=tuple(equations), outputs=outputs, state=state)


class Entry:
    """A signature, ready to run.

    leaves      how many inputs come from the call's arguments
    sources     for the inputs after these: an NDArray (fixed), a number of a surrounding variable (read at each call), or
                a function that gives a float, or ("gradient", i): that attached to leaf i
    results     the result as the trace returned it, with an `Output` for each array
    """

    def __init__(
        self, core: Core, lifted: list[np.ndarray], leaves: int, sources: Sequence[Any], results: Any,
        devices: Sequence[Device], traced: Graph, guards: Sequence[Any], writer: tuple[Any, int], constants: bool,
    ):
        self.core, self.leaves, self.sources, self.results, self.devices = core, leaves, tuple(sources), results, tuple(devices)
        self.traced, self.guards, self.writer = traced, tuple(guards), writer
        self.lifted = [wrap(a, cpu(0)) for a in lifted]
        self.state = tuple(sorted(traced.state))
        self.writes_arguments = any(i < leaves for i in self.state)
        self.symbolic = bool(traced.symbols)
        self.sizes: Mapping[str, int] = {}  # of the symbols, in an entry for given shapes
        self.derivatives: dict[tuple[bool, ...], Derivative] = {}
        self.lock = threading.RLock()
        self.program: Program | None = None
        self.origin = self  # of which this is a copy for given sizes
        self.references: Any = None  # keeps alive what the key names by identity
        fixed = [s for s in self.sources if isinstance(s, NDArray)]
        self.plain = len(fixed) == len(self.sources)
        self.fixed = [a._data for a in fixed] + [a._data for a in self.lifted] if self.plain else []
        self.fixed_arrays = [*fixed, *self.lifted]
        self.single = devices[0] if type(results) is Output and len(devices) == 1 else None
        self.simple = self.plain and not self.state and self.single is not None
        captured = range(leaves, leaves + len(self.sources))
        self.constants = frozenset(i for i in captured if isinstance(self.sources[i - leaves], NDArray) and i not in traced.state)
        if not constants:
            self.constants = frozenset()
        self._check = bool(self.state)
        self._roots = {id(_root(s._data)) for s in self.sources if isinstance(s, NDArray)}
        self._places = _Places(self.sources, self.lifted) if self.state and not self.plain else None

    def fits(self, shapes: Sequence[tuple[int, ...]]) -> dict[str, int] | None:
        """The values of the symbols for argument shapes, or None where the graph is not valid for them."""
        try:
            arguments = self.traced.replace(inputs=self.traced.inputs[: self.leaves])
            sizes = bind_sizes(arguments, shapes)
        except ValueError:
            return None
        return sizes if all(g.holds(sizes) for g in self.traced.guards) else None

    def bound(self, sizes: Mapping[str, int]) -> Entry:
        """The same entry for given sizes."""
        other = _new(Entry)
        other.__dict__.update(self.__dict__)
        other.sizes, other.derivatives = sizes, {}
        if _has_size(self.results):
            other.results = _with_sizes(self.results, sizes)
        return other

    def derivative(self, tracked: tuple[bool, ...]) -> Derivative:
        """The recorded form of the program. Raises `Unfit` where its gradient has guards that the sizes break."""
        found = self.core.derivative(tracked)
        for guard in found.parts.backward.guards:
            if not guard.holds(self.sizes):
                raise Unfit(str(guard))
        self.derivatives[tracked] = found
        return found

    # -- running
    def compiled(self) -> Program:
        """The program; compiled at the first use. What it derives from the fixed arrays is kept between calls."""
        if self.program is None:
            origin = self.origin
            with origin.lock:
                if origin.program is None:
                    program = self.core.program(self.constants)
                    fixed = {i: self.sources[i - self.leaves] for i in self.constants}
                    keeping = getattr(program, "keeping", None) if fixed else None
                    origin.program = keeping(fixed) if keeping else program
                self.program = origin.program
        return self.program

    def overwritten(self, leaves: Sequence[NDArray], surroundings: Sequence[Any]) -> list[np.ndarray]:
        """The host's arrays of which the program writes every element, as far as the trace shows that at a glance."""
        makers: dict[Any, Equation] = {v: eq for eq in self.traced.equations for v in eq.outputs}
        found = []
        for i, atom in self.traced.state.items():
            eq = makers.get(atom)
            while eq is not None and "view" in eq.op.traits:
                eq = makers.get(eq.inputs[0])
            if eq is None or eq.op.name == "update_slice" or any(isinstance(v, Graph) for v in eq.attrs.values()):
                continue
            source = leaves[i] if i < self.leaves else self.sources[i - self.leaves]
            if isinstance(source, tuple):
                source = leaves[source[1]].grad
            elif isinstance(source, int):
                source = surroundings[source]
            if isinstance(source, NDArray) and isinstance(source._data, np.ndarray):
                found.append(source._data)
        return found

    def gather(
        self, leaves: Sequence[NDArray], surroundings: Sequence[Any], values: Mapping[int, Callable] | None
    ) -> list[NDArray]:
        """All inputs. `values` gives the numbers of the call that was traced, which have been read already."""
        if self.plain:
            return [*leaves, *self.fixed_arrays]
        inputs = list(leaves)
        for s in self.sources:
            if isinstance(s, NDArray):
                inputs.append(s)
            elif isinstance(s, int):
                inputs.append(surroundings[s])
            elif isinstance(s, tuple):
                inputs.append(leaves[s[1]].grad)  # type: ignore[arg-type]
            else:
                number = len(inputs)
                value = s() if values is None or number not in values else values[number]()
                inputs.append(wrap(np.asarray(value, np.float64), cpu(0)))
        return inputs + self.lifted

    def run(
        self, leaves: Sequence[NDArray], surroundings: Sequence[Any] = (), recording: bool = False,
        values: Mapping[int, Callable] | None = None, apart: bool = False,
    ) -> Any:
        """Call the program. Raises `Overlap` (before anything has happened) where memory is shared in a way that matters,
        unless the caller knows that the arrays lie `apart`."""
        if self._check and not apart:
            self._check_overlap(leaves)
        if self._places is not None and not recording and values is None:
            with self.lock:
                inputs = self._places.gather(leaves, surroundings)
                return self._run_written(inputs, [a._data for a in inputs])
        inputs = self.gather(leaves, surroundings, values)
        arrays = [a._data for a in inputs]
        derivative = None
        if recording:
            tracked = tuple([a._node is not None and is_tracked(a) for a in inputs])
            if True in tracked:
                derivative = self.derivatives.get(tracked) or self.derivative(tracked)
        if not self.state:
            if derivative is not None:
                return self._nest(derivative.call(inputs, arrays, self.devices))
            found = (self.program or self.compiled())(arrays)
        else:
            with self.lock:
                if derivative is None:
                    return self._run_written(inputs, arrays)
                kept = self._statistics(inputs) if is_repeating() else ()
                return self._nest(derivative.call(inputs, arrays, self.devices, lambda: self._count_writes(inputs, kept)))
        return self._nest([wrap(a, d) for a, d in zip(found, self.devices)])

    def _run_written(self, inputs: Sequence[NDArray], arrays: list[Any]) -> Any:
        """The result of a program that writes some of its inputs."""
        kept = self._statistics(inputs) if is_repeating() else ()
        found = (self.program or self.compiled())(arrays)
        self._count_writes(inputs, kept)
        return self._nest([wrap(a, d) for a, d in zip(found, self.devices)])

    def _nest(self, outputs: list[NDArray]) -> Any:
        return outputs[0] if self.single is not None else _nest(self.results, outputs)

    def _statistics(self, inputs: Sequence[NDArray]) -> list[tuple[NDArray, Any]]:
        """Copies of the written inputs that want no gradient: computing a checkpointed function again doesn't change them."""
        quiet = [inputs[i] for i in self.state if inputs[i]._node is not None and not is_tracked(inputs[i])]
        return [(a, a._data.copy()) for a in quiet]

    def _count_writes(self, inputs: Sequence[NDArray], kept: Sequence[tuple[NDArray, Any]] = ()) -> None:
        for array, old in kept:
            array._data[...] = old
        count_writes([inputs[i] for i in self.state], self.writer)

    def _check_overlap(self, leaves: Sequence[NDArray]) -> None:
        roots = self._roots
        mine = {id(_root(a._data)) for a in leaves}
        if len(mine) == len(leaves) and mine.isdisjoint(roots):
            return
        count = self.leaves
        arrays = [a._data for a in leaves]
        captured = [(count + k, s._data) for k, s in enumerate(self.sources) if isinstance(s, NDArray)]
        every = [*enumerate(arrays), *captured]
        numbers = [i for i, _ in every]
        for n, k in overlapping([a for _, a in every], {n for n, i in enumerate(numbers) if i in self.state}):
            if numbers[n] < count or numbers[k] < count:
                raise Overlap


class _Places:
    """Where the inputs behind the arguments come from, so arranged that a call is quick: the numbers among them lie in one
    vector, written anew at each call. Only one call at a time may use it, and nobody may keep what `gather` returns."""

    def __init__(self, sources: Sequence[Any], lifted: Sequence[NDArray]):
        getters = [(i, s) for i, s in enumerate(sources) if callable(s)]
        self._numbers = np.zeros(len(getters))
        self._inputs: list[Any] = [*sources, *lifted]
        for n, (i, _) in enumerate(getters):
            self._inputs[i] = wrap(self._numbers[n : n + 1].reshape(()), cpu(0))
        self._surrounding = [(i, s) for i, s in enumerate(sources) if type(s) is int]
        self._gradients = [(i, s[1]) for i, s in enumerate(sources) if isinstance(s, tuple)]
        together: dict[Together, dict[int, int]] = {}  # number -> place in the vector
        self._single: list[tuple[int, Callable[[], float]]] = []
        for n, (_, getter) in enumerate(getters):
            if type(getter) is NumberOf:
                together.setdefault(getter.together, {})[getter.number] = n
            else:
                self._single.append((n, getter))
        self._groups: list[tuple[Together, np.ndarray]] = []
        for group, places in together.items():
            if len(places) == len(group.getters):
                self._groups.append((group, np.array([places[k] for k in range(len(places))])))
            else:
                self._single += [(n, group.getters[k]) for k, n in places.items()]

    def gather(self, leaves: Sequence[NDArray], surroundings: Sequence[Any]) -> list[NDArray]:
        """All inputs of a call."""
        count, inputs, numbers = len(leaves), [*leaves, *self._inputs], self._numbers
        for i, k in self._surrounding:
            inputs[count + i] = surroundings[k]
        for i, k in self._gradients:
            inputs[count + i] = leaves[k].grad
        for n, getter in self._single:
            numbers[n] = getter()
        for group, places in self._groups:
            numbers[places] = group.read(True)
        return inputs


def _root(array: Any) -> Any:
    base = array.base
    return array if base is None else base


class Output:
    """Stands for array number `number` in a nested result; `scalar` where the function returned a Python float."""

    __slots__ = ("number", "scalar")

    def __init__(self, number: int, scalar: bool = False):
        self.number, self.scalar = number, scalar


def _nest(form: Any, outputs: Sequence[NDArray]) -> Any:
    if type(form) is Output:
        out = outputs[form.number]
        return out.item() if form.scalar else out
    if isinstance(form, (list, tuple)):
        items = [_nest(f, outputs) for f in form]
        return type(form)(*items) if hasattr(form, "_fields") else type(form)(items)
    if isinstance(form, dict):
        return {k: _nest(f, outputs) for k, f in form.items()}
    return form


def _has_size(form: Any) -> bool:
    if isinstance(form, (list, tuple)):
        return any(map(_has_size, form))
    if isinstance(form, dict):
        return any(map(_has_size, form.values()))
    return isinstance(form, Dim)


def _with_sizes(form: Any, sizes: Mapping[str, int]) -> Any:
    if isinstance(form, Dim):
        return evaluate(form, sizes)
    if isinstance(form, (list, tuple)):
        items = [_with_sizes(f, sizes) for f in form]
        return type(form)(*items) if hasattr(form, "_fields") else type(form)(items)
    if isinstance(form, dict):
        return {k: _with_sizes(f, sizes) for k, f in form.items()}
    return form


def form_of(result: Any, outputs: list[NDArray]) -> Any:
    """The result with its arrays moved to `outputs`."""
    if isinstance(result, NDArray):
        outputs.append(result)
        return Output(len(outputs) - 1)
    if type(result) is ScalarInput:
        outputs.append(result._array)
        return Output(len(outputs) - 1, scalar=True)
    if isinstance(result, (list, tuple)):
        items = [form_of(r, outputs) for r in result]
        return type(result)(*items) if hasattr(result, "_fields") else type(result)(items)
    if isinstance(result, dict):
        return {k: form_of(r, outputs) for k, r in result.items()}
    return result


def with_names(graph: Graph, names: Mapping[int, str]) -> Graph:
    """The graph with other names on the inputs of these numbers."""
    renamed = {graph.inputs[i]: Value(graph.inputs[i].type, name) for i, name in names.items()}
    if not renamed:
        return graph

    def new(atom: Any) -> Any:
        return renamed.get(atom, atom) if isinstance(atom, Value) else atom

    equations = list(graph.equations)
    for n, eq in enumerate(equations):
        for a in eq.inputs:
            if type(a) is Value and a in renamed:
                equations[n] = Equation(eq.op, tuple(map(new, eq.inputs)), eq.outputs, eq.attrs, eq.source)
                break
    return graph.replace(
        inputs=tuple(map(new, graph.inputs)), outputs=tuple(map(new, graph.outputs)), equations=tuple(equations),
        state={i: new(a) for i, a in graph.state.items()},
    )
