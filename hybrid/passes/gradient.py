"""The gradient of a graph, and its division into what runs forward and what runs backward.

`joint` replays the graph on the tape over a tracer and pulls the cotangents back: the gradient rules are those of the
ops, written in public array functions, so there is nothing here that knows an op. `split` cuts the joint graph in two
and decides what is kept between them and what is computed again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

from ndarray import apply as _apply
from ndarray import autograd, precision
from ndarray.array import NDArray, literal
from ndarray.device import current_device
from ndarray.dims import Dim, Size, hint
from ndarray.dtypes import is_inexact
from ndarray.op import Reduction
from ndarray.tape import Leaf, Step

from ..graph import Atom, Equation, Graph, Literal, Source, Value
from ..trace import Tracer
from .cse import cse
from .dce import dce
from .inline import inline
from .simplify import simplify

__all__ = ["Joint", "Split", "joint", "split"]

_COSTLY = frozenset(
    ["exp", "expm1", "log", "log1p", "sin", "cos", "tanh", "erf", "ndtr", "power", "sigmoid", "gelu", "gelu_tanh", "silu", "mish",
     "arctan2", "random_bits"]
)
_FREE = frozenset(["reshape", "transpose", "broadcast_to", "slice", "flip", "iota", "stop_gradient", "copy"])


@dataclass(frozen=True)
class Joint:
    """A graph together with its gradient.

    graph       inputs: those of the original, then a cotangent for each output in `cotangents`;
                outputs: those of the original, then a gradient for each input in `gradients`
    outputs     how many outputs the original has
    """

    graph: Graph
    outputs: int
    cotangents: tuple[int, ...]
    gradients: tuple[int, ...]

    @property
    def inputs(self) -> int:
        """How many inputs the original has."""
        return len(self.graph.inputs) - len(self.cotangents)

    @cached_property
    def backward(self) -> Graph:
        """(inputs, cotangents) -> gradients, everything needed computed again."""
        return dce(self.graph.replace(outputs=self.graph.outputs[self.outputs:], state={}, name=f"{self.graph.name}_gradient"))


def joint(graph: Graph, wanted: Sequence[bool]) -> Joint:
    """The graph with the gradients of its outputs, weighted by cotangents, for the inputs marked in `wanted`.

    Inputs that no output depends on (or through what has no derivative only) get none.
    """
    graph = inline(graph)
    tracer = Tracer(graph.name)
    device = current_device()
    arrays = [tracer.argument(v.type, device, v.name) for v in graph.inputs]
    targets = [i for i, w in enumerate(wanted) if w and is_inexact(graph.inputs[i].dtype)]
    cotangents = tuple(j for j, a in enumerate(graph.outputs) if is_inexact(a.dtype))
    with tracer.under(), precision.use(None):
        token = _apply.push(autograd._tape)
        try:
            for i in targets:
                arrays[i]._node = (Leaf(None, "write"), 0, -1)
            outputs, state = _replay(tracer, graph, arrays)
            given = [tracer.argument(graph.outputs[j].type, device, f"d_{_name(graph.outputs[j], j)}") for j in cotangents]
            pairs = [(outputs[j], g) for j, g in zip(cotangents, given) if outputs[j]._node is not None]
            if pairs and targets:
                heads, weights = (list(column) for column in zip(*pairs))
                variables = [arrays[i]._node[:2] for i in targets]
                found = autograd._pull("grad", heads, weights, variables, False, False, autograd.is_training())
            else:
                found = [None] * len(targets)
        finally:
            _apply.pop(token)
        gradients = tuple(i for i, g in zip(targets, found) if g is not None)
        trace = tracer.finish([*outputs, *(g for g in found if g is not None)])
    assert not trace.captured, "a gradient rule met an array that is no input of the graph"
    new_state = {i: tracer.atom(a) for i, a in state.items()}
    whole = trace.graph.replace(state=new_state, guards=merged(graph.guards, trace.graph.guards))
    whole = cse(simplify(dce(inline(whole))))
    return Joint(dce(whole), len(graph.outputs), cotangents, gradients)


def _name(atom: Atom, number: int) -> str:
    return atom.name if isinstance(atom, Value) and atom.name else f"out{number}"


def merged(*guards: Iterable[Any]) -> tuple[Any, ...]:
    """All guards, each once."""
    return tuple({str(g): g for some in guards for g in some}.values())


def _replay(tracer: Tracer, graph: Graph, arrays: Sequence[NDArray]) -> tuple[list[NDArray], dict[int, NDArray]]:
    """Apply the equations on the tape over the tracer; gradients get the line of the equation that they belong to."""
    device = current_device()
    env: dict[Value, NDArray] = dict(zip(graph.inputs, arrays))

    def read(atom: Atom) -> NDArray:
        return literal(atom.value, atom.dtype, device) if isinstance(atom, Literal) else env[atom]

    for eq in graph.equations:
        tracer.source = eq.source
        result = _apply.apply(eq.op, *[read(a) for a in eq.inputs], **eq.attrs)
        results = result if isinstance(result, tuple) else (result,)
        for value, array in zip(eq.outputs, results, strict=True):
            env[value] = array
        node = next((r._node[0] for r in results if r._node is not None), None)
        if node is not None:
            step = node.step
            node.step = Step(step.name, partial(_pull_at, tracer, eq.source, step.pull), step.results)
    tracer.source = None
    return [read(a) for a in graph.outputs], {i: read(a) for i, a in graph.state.items()}


def _pull_at(tracer: Tracer, source: Source | None, pull: Any, *arguments: Any) -> Any:
    tracer.source = source
    return pull(*arguments)


@dataclass(frozen=True)
class Split:
    """A joint graph in two parts.

    forward    the original with more outputs: what is kept
    backward   inputs: the residuals, then the cotangents; outputs: the gradients
    residuals  where each residual comes from: ("input", number) or ("output", number of the forward part)
    originals  {input that the forward part writes: number of the forward output that holds its value before}
    """

    forward: Graph
    backward: Graph
    residuals: tuple[tuple[str, int], ...]
    originals: dict[int, int]
    cotangents: tuple[int, ...]
    gradients: tuple[int, ...]


def split(whole: Joint) -> Split:
    """Cut the joint graph: what depends on a cotangent runs backward, the rest forward.

    Between the two are kept: values that are costly to compute again. Cheap elementwise results that are functions of
    what is kept, of the inputs or of the outputs are computed again in the backward part. Inputs that the forward part
    writes are kept by value.
    """
    graph, n = whole.graph, whole.inputs
    inputs, cotangents = graph.inputs[:n], graph.inputs[n:]
    outputs, gradients = graph.outputs[: whole.outputs], graph.outputs[whole.outputs:]
    below = _dependent(graph, cotangents)
    forward = [eq for eq in graph.equations if below.isdisjoint(eq.outputs)]
    needed = {a for eq in graph.equations if not below.isdisjoint(eq.outputs) for a in eq.inputs if a not in below}
    needed |= {a for a in gradients if a not in below}
    stored = _choose(graph, forward, {a for a in needed if isinstance(a, Value)}, inputs, outputs)

    extra = tuple(v for v in stored if v not in outputs)
    originals = {}
    reached = _dependent(graph, [inputs[i] for i in graph.state])
    for i in graph.state:
        if any(a in _dependent(graph, [inputs[i]]) or a is inputs[i] for a in outputs if a in reached or a is inputs[i]):
            if inputs[i] not in outputs + extra:
                extra += (inputs[i],)
            originals[i] = (outputs + extra).index(inputs[i])
    all_outputs = outputs + extra
    name = graph.name
    first = dce(Graph(inputs, all_outputs, tuple(forward), graph.state, graph.guards, name))

    bound = {*inputs, *stored} - {inputs[i] for i in graph.state if inputs[i] not in stored}
    equations, used = _closure(graph, gradients, bound)
    used = _with_symbols(equations, used, cotangents, inputs, graph.state)
    kept = [v for v in used if v not in cotangents]
    residuals = tuple(
        ("input", inputs.index(v)) if v in inputs and inputs.index(v) not in graph.state else ("output", all_outputs.index(v))
        for v in kept
    )
    second = Graph((*kept, *cotangents), gradients, tuple(equations), name=f"{name}_backward")
    known = set(second.symbols)  # what is said of other sizes, the forward part has checked
    second = second.replace(guards=tuple([g for g in graph.guards if known.issuperset([*_names(g.left), *_names(g.right)])]))
    return Split(first, second, residuals, originals, whole.cotangents, whole.gradients)


def _names(size: Size) -> Iterable[str]:
    """The symbols of a size."""
    return size.hints if isinstance(size, Dim) else ()


def _dependent(graph: Graph, roots: Iterable[Value]) -> set[Any]:
    found = set(roots)
    for eq in graph.equations:
        if not found.isdisjoint(eq.inputs):
            found.update(eq.outputs)
    return found


def _choose(
    graph: Graph, forward: Sequence[Equation], needed: set[Value], inputs: tuple[Value, ...], outputs: tuple[Atom, ...]
) -> dict[Value, None]:
    """Which values the forward part hands over."""
    stored: dict[Value, None] = {}
    available: set[Atom] = {v for i, v in enumerate(inputs) if i not in graph.state}
    for i in graph.state:
        if inputs[i] in needed:
            stored[inputs[i]] = None
            available.add(inputs[i])
    producers = {v: eq for eq in forward for v in eq.outputs}
    folded = {a for eq in forward if isinstance(eq.op.lower, Reduction) for a in eq.inputs}
    for eq in forward:
        missing = [a for a in eq.inputs if isinstance(a, Value) and a not in available]
        for v in eq.outputs:
            if _is_cheap(eq) and not missing:
                available.add(v)
            elif v in outputs:
                available.add(v)
                if v in needed:
                    stored[v] = None
            elif v in needed:
                for kept in _narrower(v, producers, available, folded):
                    stored[kept] = None
                    available.add(kept)
                available.add(v)
    # outputs are handed over only where something is made of them
    for out in outputs:
        if isinstance(out, Value) and out in available and out not in stored and out not in inputs:
            stored[out] = None
    return stored


def _narrower(v: Value, producers: dict[Value, Equation], available: set[Atom], folded: set[Atom]) -> list[Value]:
    """Instead of `v`, a smaller value from which it is made cheaply: a mask rather than the floats made of it; or one that
    exists in any case, as it is `folded`, and a much smaller one: x and its mean rather than their difference."""
    best, at = v, v
    while at in producers and _is_cheap(producers[at]):
        missing = [a for a in producers[at].inputs if isinstance(a, Value) and a not in available]
        if len(missing) != 1:
            break
        (at,) = missing
        if _bytes(at) < _bytes(best):
            best = at
    missing = [a for a in producers[v].inputs if isinstance(a, Value) and a not in available] if v in producers else []
    if best is v and len(missing) == 2 and _is_cheap(producers[v]):
        small, large = sorted(missing, key=_bytes)
        if large in folded and 16 * _bytes(small) <= _bytes(large) == _bytes(v) and not _is_cheap(producers[large]):
            return missing
    return [best]


def _is_cheap(eq: Equation) -> bool:
    return eq.op.name in _FREE or ("elementwise" in eq.op.traits and eq.op.name not in _COSTLY)


def _bytes(v: Value) -> int:
    count = v.dtype.itemsize
    for d in v.shape:
        count *= hint(d)
    return count


def _closure(graph: Graph, results: Iterable[Atom], bound: set[Value]) -> tuple[list[Equation], list[Value]]:
    """The equations from which `results` are computed where the values in `bound` are given, and which of those are used."""
    needed = {a for a in results if isinstance(a, Value)}
    found = []
    for eq in reversed(graph.equations):
        if any(v in needed and v not in bound for v in eq.outputs):
            found.append(eq)
            needed.update(a for a in eq.inputs if isinstance(a, Value))
    found.reverse()
    defined = {v for eq in found for v in eq.outputs}
    order = {v: i for i, v in enumerate([*graph.inputs, *(v for eq in graph.equations for v in eq.outputs)])}
    return found, sorted((v for v in needed if v in bound or v not in defined), key=order.__getitem__)


def _with_symbols(
    equations: Sequence[Equation], used: list[Value], cotangents: Sequence[Value], inputs: Sequence[Value], written: Any
) -> list[Value]:
    """Add inputs from whose shapes symbolic sizes are read that no other input of the backward part shows."""
    shown = {name for v in [*used, *cotangents] for name in _bare_symbols(v)}
    wanted = {s for v in (*used, *cotangents, *(o for eq in equations for o in eq.outputs)) for s in _symbols_in(v.shape)}
    wanted |= {s for eq in equations for a in eq.attrs.values() for s in _symbols_in(a)}
    for i, v in enumerate(inputs):
        if i not in written and not (wanted - shown).isdisjoint(_bare_symbols(v)):
            used = [*used, v]
            shown.update(_bare_symbols(v))
    return used


def _bare_symbols(v: Value) -> Iterable[str]:
    from ..interpret import symbol_name

    return [name for name in map(symbol_name, v.shape) if name is not None]


def _symbols_in(attribute: Any) -> set[str]:
    if isinstance(attribute, Dim):
        return set(attribute.hints)
    if isinstance(attribute, tuple):
        return set().union(*map(_symbols_in, attribute))
    return set()
