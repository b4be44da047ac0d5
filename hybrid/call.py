"""Calling a graph as one operation: programs of graphs, their derivatives, and the op ``graph_call``.

A call under ``autograd.record`` is one node on the tape. Its forward part is a program that also hands over what the
backward part needs; its gradient is another graph call, and so differentiable in its turn.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ndarray import apply as _apply
from ndarray import creation
from ndarray.apply import apply
from ndarray.array import NDArray, wrap
from ndarray.dtypes import is_inexact
from ndarray.op import OPAQUE, ArrayType, Op, Sample, register
from ndarray.tape import Leaf, Node, Step, _kept_out, _with_entry, keep

from .backend import Options, Program, get_backend
from .garbage import collection_paused
from .graph import Graph
from .passes import optimize
from .passes.gradient import Joint, Split, joint, split
from .sizes import match_sizes, substitute

__all__ = ["GRAPH_CALL", "Derivative", "Statistics", "compile_graph", "is_tracked", "statistics"]


@dataclass
class Statistics:
    """What has been traced and compiled in this process."""

    traces: int = 0
    compilations: int = 0

    def reset(self) -> None:
        """Start counting anew."""
        self.traces = self.compilations = 0


statistics = Statistics()
_top_get = _apply._top.get
_lock = threading.RLock()


def compile_graph(graph: Graph, backend: str = "jit", options: Options | None = None) -> Program:
    """The program of a graph, optimized; made at the first call for this graph object and kept as long as that lives."""
    options = options or Options()
    key = (backend, options.constant_inputs, tuple(sorted(options.extra.items())))
    with _lock:
        programs: dict[Any, Program] = graph.__dict__.setdefault("_programs", {})  # lives as long as the graph
        program = programs.get(key)
        if program is None:
            with collection_paused():
                program = programs[key] = get_backend(backend).compile(graph, options, optimize)
            statistics.compilations += 1
    return program


def joint_of(graph: Graph, wanted: tuple[bool, ...]) -> Joint:
    """The graph with its gradient, kept as long as the graph lives."""
    with _lock:
        known: dict[tuple[bool, ...], Joint] = graph.__dict__.setdefault("_joints", {})
        if wanted not in known:
            with collection_paused():
                known[wanted] = joint(graph, wanted)
        return known[wanted]


def is_tracked(array: NDArray) -> bool:
    """Whether a gradient is to flow to the array."""
    entry = array._node
    return entry is not None and not (type(entry[0]) is Leaf and entry[0].request == "null")


# -- the op

def _infer(*types: ArrayType, graph: Graph, backend: str = "jit") -> tuple[ArrayType, ...]:
    if len(types) != len(graph.inputs):
        raise TypeError(f"graph_call: {graph.name} takes {len(graph.inputs)} arrays, got {len(types)}")
    sizes: dict[str, Any] = {}
    for value, t in zip(graph.inputs, types):
        if value.dtype != t.dtype or len(value.shape) != len(t.shape):
            raise TypeError(f"graph_call: {graph.name}: input {value.name!r}: expected {value.type}, got {t}")
        match_sizes(value.shape, t.shape, sizes)
    return tuple(ArrayType(substitute(a.type.shape, sizes), a.dtype) for a in graph.outputs)


def _eager(xp: Any, *arrays: Any, graph: Graph, backend: str = "jit") -> tuple:
    return tuple(compile_graph(graph, backend)(list(arrays)))


def _vjp(gs: tuple, xs: tuple, outs: tuple, graph: Graph, backend: str = "jit") -> tuple:
    if not isinstance(gs, tuple):
        gs, outs = (gs,), (outs,)
    return graph_gradient(graph, backend, gs, xs, outs)


def graph_gradient(graph: Graph, backend: str, gs: Sequence, xs: Sequence[NDArray], outs: Sequence[NDArray]) -> tuple:
    """The gradients for `xs`, everything computed again from them and the cotangents (None: zero)."""
    whole = joint_of(graph, tuple([is_tracked(x) for x in xs]))
    result: list[Any] = [None] * len(xs)
    if whole.gradients:
        given = [_or_zeros(gs[j], outs[j]) for j in whole.cotangents]
        for i, g in zip(whole.gradients, apply(GRAPH_CALL, *xs, *given, graph=whole.backward, backend=backend)):
            result[i] = g
    return tuple(result)


def _or_zeros(g: NDArray | None, like: NDArray) -> NDArray:
    return creation.zeros(like.shape, dtype=like.dtype, device=like._device) if g is None else g


def _samples() -> tuple[Sample, ...]:
    return ()  # a graph is no array: tests of hybridized functions stand in


GRAPH_CALL = register(Op("graph_call", ("*xs",), _infer, _eager, _vjp, OPAQUE, _samples, results=0))
"""``graph_call(*xs; graph, backend)``: the outputs of a graph without state, always as a tuple."""


# -- recorded calls

class Derivative:
    """A graph prepared to be called under ``autograd.record``, for one set of tracked inputs."""

    def __init__(self, graph: Graph, tracked: tuple[bool, ...], backend: str, options: Options | None = None):
        whole = joint_of(graph, tracked)
        self.parts: Split = split(whole)
        self.graph, self.backend, self.tracked = graph, backend, tracked
        self.name, self.options = graph.name, options
        self.program = compile_graph(self.parts.forward, backend, options)
        self.outputs = len(graph.outputs)
        self.step = Step(self.name, self._pull, len(self.parts.forward.outputs))
        self.inexact = tuple([j for j, a in enumerate(self.parts.forward.outputs) if is_inexact(a.dtype)])
        self.differentiable = bool(self.parts.gradients)
        self._pure: Graph | None = None

    def call(
        self, inputs: Sequence[NDArray], arrays: list[Any], devices: Sequence[Any], written: Callable[[], None] | None = None
    ) -> list[NDArray]:
        """Run the forward part on `arrays` (the data of `inputs`) and hang a node on the results. `written` is called
        when the state has been written back."""
        device = devices[0] if devices else inputs[0]._device
        found = self.program(arrays)
        if written is not None:
            written()
        count = self.outputs
        outs = [wrap(o, devices[i] if i < count else device) for i, o in enumerate(found)]
        if not self.differentiable:
            return outs[:count]
        node = Node(
            self.step, tuple([a._node if t else None for a, t in zip(inputs, self.tracked)]),
            tuple([a._data.shape for a in inputs]), ([(a, a._version) for a in inputs], [_kept_out(o) for o in outs]),
        )
        for i in self.inexact:
            outs[i]._node = (node, i, outs[i]._version)
        return outs[:count]

    def _pull(self, node: Node, entries: tuple, cotangents: list, wanted: list) -> list:
        inputs, outputs = node.kept
        result: list[Any] = [None] * len(inputs)
        if any(g is not None for g in cotangents[self.outputs:]):  # a derivative of a derivative came this way
            return self._pull_all(inputs, outputs, entries, cotangents)
        arguments = []
        for kind, i in self.parts.residuals:
            if kind == "input":
                arguments.append(keep(inputs[i], self.name, f"input {i}"))
            else:
                arguments.append(_with_entry(keep(outputs[i], self.name, f"output {i}"), entries[i]))
        for j in self.parts.cotangents:
            arguments.append(_or_zeros(cotangents[j], outputs[j][0]))
        if _top_get() is None:  # nothing records or traces
            device = arguments[0]._device
            found = [wrap(o, device) for o in self.backward([a._data for a in arguments])]
        else:
            found = apply(GRAPH_CALL, *arguments, graph=self.parts.backward, backend=self.backend)
        for i, g in zip(self.parts.gradients, found):
            result[i] = g
        return result

    @cached_property
    def backward(self) -> Program:
        """The program of the backward part; compiled at the first use."""
        return compile_graph(self.parts.backward, self.backend, self.options)

    def _pull_all(self, inputs: list, outputs: list, entries: tuple, cotangents: list) -> list:
        if self._pure is None:
            self._pure = self.parts.forward.replace(state={})
        xs = []
        for i, kept in enumerate(inputs):
            if i in self.parts.originals:
                xs.append(outputs[self.parts.originals[i]][0])
            elif i in self.parts.forward.state:
                xs.append(kept[0])
            else:
                xs.append(keep(kept, self.name, f"input {i}"))
        outs = [o for o, _ in outputs]
        return list(graph_gradient(self._pure, self.backend, cotangents, xs, outs))
