"""Loops and branches as operations of a graph: ``scan`` and ``branch``, with sub-graphs as attributes, and their gradients.

``scan(*arrays; body, carried, stacked, length, reverse, condition, limited)``

    arrays   [an int64 limit, if `limited`,] constants, `carried` initial values, `stacked` arrays with `length` slices
    body     (constants, carried values, slices) -> (new carried values, outputs of the step)
    results  [the number of steps taken, if there is a `condition`,] the carried values after the last step, the outputs
             of all steps stacked along a new first axis (zero for steps not taken)

A step is taken for t = 0, 1 ... length - 1 (from the last to the first with `reverse`), for those below the limit only,
and as long as ``condition(constants, carried values)`` holds.

``branch(predicate, *arrays; then, otherwise)`` is ``then(*arrays)`` or ``otherwise(*arrays)``.

The gradient of a scan is a scan the other way round: over what the steps forward have handed over (`passes.gradient.split`
decides what is kept and what is computed again), carrying the gradients of the carried values and the sums of those of the
constants. Sums of products over the steps become one product over all steps, behind the loop.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ndarray import creation
from ndarray.apply import apply
from ndarray.array import NDArray, wrap
from ndarray.dims import Size
from ndarray.dtypes import is_inexact
from ndarray.op import OPAQUE, OPS, ArrayType, Op, Sample, Template, register
from ndarray.tape import is_recording

from .call import GRAPH_CALL, is_tracked, joint_of
from .graph import Atom, Builder, Equation, Graph, Literal, Value
from .interpret import evaluate_steps
from .passes.dce import dce
from .passes.gradient import split
from .passes.simplify import simplify
from .trace import Cell, Traced
from .verify import same_size, same_type

__all__ = ["BRANCH", "CUSTOM_GRADIENT", "SCAN", "parts_of"]

_INT = np.dtype(np.int64)
_BOOL = np.dtype(np.bool_)


def parts_of(values: Sequence[Any], carried: int, stacked: int, limited: bool) -> tuple[Any, Any, Any, Any]:
    """(the limit or nothing, constants, carried, stacked) of a scan's arguments."""
    first, end = int(limited), len(values)
    return values[:first], values[first : end - carried - stacked], values[end - carried - stacked : end - stacked], \
        values[end - stacked :]


def _scan_samples() -> Iterator[Sample]:
    """``s = tanh(s * w) + x[t]``, and its counterpart with a condition."""
    for dtype in (np.float64, np.float32):
        kind = ArrayType((3,), np.dtype(dtype))
        step = Builder("step")
        w, s, x = step.input(kind), step.input(kind), step.input(kind)
        (product,) = step.emit("multiply", s, w)
        (bent,) = step.emit("tanh", product)
        (new,) = step.emit("add", bent, x)
        body = step.build([new, product])
        test = Builder("test")
        _, state = test.input(kind), test.input(kind)
        (total,) = test.emit("sum", state, axes=(0,), keepdims=False)
        (answer,) = test.emit("less", total, Literal(100.0, kind.dtype))
        random = np.random.RandomState(5)
        arrays = tuple([random.uniform(0.1, 0.9, shape).astype(dtype) for shape in ((3,), (3,), (4, 3))])
        for reverse in (False, True):
            yield Sample(arrays, {"body": body, "carried": 1, "stacked": 1, "length": 4, "reverse": reverse}, _scan_reference)
        attrs = {"body": body, "carried": 1, "stacked": 1, "length": 4, "condition": test.build([answer])}
        yield Sample(arrays, attrs, _scan_reference)


def _scan_reference(w: Any, s: Any, x: Any, reverse: bool = False, condition: Any = None, **_: Any) -> tuple:
    outputs = np.zeros_like(x)
    for t in range(len(x))[:: -1 if reverse else 1]:
        outputs[t] = s * w
        s = np.tanh(s * w) + x[t]
    return (*[np.asarray(len(x), _INT)] * (condition is not None), s, outputs)


def _branch_samples() -> Iterator[Sample]:
    """``x * y`` or ``tanh(x)``."""
    for dtype in (np.float64, np.float32):
        kind = ArrayType((3,), np.dtype(dtype))
        sides = []
        for op in ("multiply", "tanh"):
            side = Builder(op)
            x, y = side.input(kind), side.input(kind)
            sides.append(side.build(side.emit(op, *(x, y)[: len(OPS[op].arguments)])))
        random = np.random.RandomState(5)
        arrays = [random.uniform(0.1, 0.9, 3).astype(dtype) for _ in range(2)]
        for taken in (True, False):
            yield Sample((np.asarray(taken), *arrays), {"then": sides[0], "otherwise": sides[1]}, _branch_reference)


def _branch_reference(taken: Any, x: Any, y: Any, **_: Any) -> tuple:
    return (x * y if taken else np.tanh(x),)


# -- scan

def _infer_scan(
    *types: ArrayType, body: Graph, carried: int, stacked: int, length: Size, reverse: bool = False,
    condition: Graph | None = None, limited: bool = False,
) -> tuple[ArrayType, ...]:
    if len(types) != len(body.inputs) + limited or carried + stacked > len(body.inputs) or min(carried, stacked) < 0:
        raise TypeError(
            f"scan: its body takes {len(body.inputs)} arrays, {carried} of them carried, {stacked} stacked; got {len(types)}"
        )
    limit, constants, carries, slices = parts_of(types, carried, stacked, limited)
    if limited and limit != (ArrayType((), _INT),):
        raise TypeError(f"scan: the limit must be int64[], got {limit[0]}")
    given = (*constants, *carries)
    for t in slices:
        if not t.shape or not same_size(t.shape[0], length):
            raise TypeError(f"scan: expected an array with {length} slices, got {t}")
        given += (ArrayType(t.shape[1:], t.dtype),)
    for value, t in zip(body.inputs, given):
        if not same_type(value.type, t):
            raise TypeError(f"scan: its body's argument {value.name or body.inputs.index(value)} is {value.type}, got {t}")
    if len(body.outputs) < carried or body.state:
        raise TypeError(f"scan: its body must return {carried} carried values and write nothing")
    for before, after in zip(carries, body.outputs):
        if not same_type(before, after.type):
            raise TypeError(f"scan: a carried value is {before} before a step and {after.type} behind it")
    counted: tuple[ArrayType, ...] = ()
    if condition is not None:
        expected = [*constants, *carries]
        if len(condition.inputs) != len(expected) or not all(same_type(v.type, t) for v, t in zip(condition.inputs, expected)):
            raise TypeError("scan: its condition must take the constants and the carried values")
        if [a.type for a in condition.outputs] != [ArrayType((), _BOOL)] or condition.state:
            raise TypeError("scan: its condition must return one bool[]")
        counted = (ArrayType((), _INT),)
    outputs = [ArrayType((length, *a.shape), a.dtype) for a in body.outputs[carried:]]
    return (*counted, *carries, *outputs)


def _run_scan(
    xp: Any, *arrays: Any, body: Graph, carried: int, stacked: int, length: int, reverse: bool = False,
    condition: Graph | None = None, limited: bool = False,
) -> tuple:
    limit, constants, carries, slices = parts_of(arrays, carried, stacked, limited)
    count = max(0, min(length, int(limit[0]))) if limited else length
    outputs = [xp.zeros((length, *a.shape), a.dtype) for a in body.outputs[carried:]]
    taken = 0
    for t in range(count)[:: -1 if reverse else 1]:
        if condition is not None and not evaluate_steps(condition, [*constants, *carries], xp)[0]:
            break
        found = evaluate_steps(body, [*constants, *carries, *[x[t] for x in slices]], xp)
        carries = found[:carried]
        for whole, part in zip(outputs, found[carried:]):
            whole[t] = part
        taken += 1
    counted = (xp.asarray(taken, dtype=_INT),) if condition is not None else ()
    return (*counted, *[xp.array(c) for c in carries], *outputs)


def _scan_vjp(
    gs: tuple, xs: tuple, outs: tuple, body: Graph, carried: int, stacked: int, length: Size, reverse: bool = False,
    condition: Graph | None = None, limited: bool = False,
) -> tuple:
    attrs = {"body": body, "carried": carried, "stacked": stacked, "length": length, "reverse": reverse}
    if condition is not None:
        attrs["condition"] = condition
    if limited:
        attrs["limited"] = True
    return _ScanGradient(xs, attrs).run(gs, outs)


class _ScanGradient:
    """The gradient of one scan equation."""

    def __init__(self, xs: Sequence[NDArray], attrs: dict[str, Any]):
        self.xs, self.attrs = xs, attrs
        self.body: Graph = attrs["body"]
        self.carried: int = attrs["carried"]
        self.limited, self.counted = int(attrs.get("limited", False)), int("condition" in attrs)
        self.arrays = xs[self.limited :]
        self.constants = len(self.arrays) - self.carried - attrs["stacked"]
        self.first_slice = self.constants + self.carried
        # the backward body, part by part
        self.taken: NDArray
        self.given: dict[str, list[tuple[Value, NDArray]]] = {"constant": [], "carried": [], "stacked": []}
        self.zeros: list[Equation] = []

    def run(self, gs: tuple, outs: tuple) -> tuple:
        """A gradient, or None, for each argument."""
        body, carried = self.body, self.carried
        inexact = [is_inexact(v.dtype) for v in body.inputs]
        wanted = tuple([
            inexact[i] and (self.constants <= i < self.first_slice or is_tracked(x)) for i, x in enumerate(self.arrays)
        ])
        whole = joint_of(body, wanted)
        parts = split(whole)
        if not whole.gradients:
            return (None,) * len(self.xs)
        self.taken = outs[0]
        gs, outs = gs[self.counted :], outs[self.counted :]
        residuals = self._residuals(parts, outs)
        backward = parts.backward
        kept = len(parts.residuals)
        for value, (kind, array) in zip(backward.inputs, residuals):
            self.given[kind].append((value, array))
        # cotangents: of carried values they are carried, of outputs stacked
        carries = [k for k in range(carried) if is_inexact(body.outputs[k].dtype)]
        cotangents = dict(zip(parts.cotangents, backward.inputs[kept:]))
        for k in carries:
            g = gs[k]
            start = creation.zeros(outs[k].shape, dtype=outs[k].dtype, device=outs[k]._device) if g is None else g
            self.given["carried"].append((cotangents[k], start))
        for j, value in cotangents.items():
            if j >= carried and gs[j] is None:
                self.zeros.append(_zeros_equation(value))
            elif j >= carried:
                self.given["stacked"].append((value, gs[j]))
        gradients = dict(zip(parts.gradients, backward.outputs))
        graph = simplify(backward.replace(
            inputs=tuple([v for some in self.given.values() for v, _ in some]),
            equations=(*self.zeros, *backward.equations),
        ))
        gradients = dict(zip(parts.gradients, graph.outputs))
        body_equations = list(graph.equations)
        new_carries: list[Atom] = []
        for k in carries:
            g = gradients.get(self.constants + k)
            if g is None:
                body_equations.append(_zeros_equation(Value(body.inputs[self.constants + k].type)))
                g = body_equations[-1].output
            new_carries.append(g)
        every_step = not (self.limited or self.counted)  # else rows of steps not taken must not count
        summation = _Summation(graph, dict(self.given["stacked"]) if every_step else {})
        finish: dict[int, Any] = {}
        for i in sorted((i for i in gradients if i < self.constants), key=lambda i: not summation.is_product(gradients[i])):
            finish[i] = summation.total(gradients[i])
        stacks = [i for i in range(self.first_slice, len(self.arrays)) if i in gradients]
        for i in stacks:
            finish[i] = summation.stack(gradients[i])
        body_equations += summation.equations
        accumulators = summation.accumulators
        inputs = (
            *[v for v, _ in self.given["constant"]], *[v for v, _ in self.given["carried"]], *[v for v, _ in accumulators],
            *[v for v, _ in self.given["stacked"]],
        )
        outputs = (*new_carries, *[new for _, new in accumulators], *summation.stacked)
        new_body = dce(Graph(inputs, outputs, tuple(body_equations), {}, (), f"{body.name}_gradient"))
        device = self.arrays[0]._device
        limit: list[NDArray] = []
        if self.counted or self.limited:
            limit = [self.taken] if self.counted else [self.xs[0]]
        attrs = {
            "body": new_body, "carried": len(new_carries) + len(accumulators), "stacked": len(self.given["stacked"]),
            "length": self.attrs["length"], "reverse": not self.attrs["reverse"],
        }
        if limit:
            attrs["limited"] = True
        found = apply(
            SCAN, *limit, *[a for _, a in self.given["constant"]], *[a for _, a in self.given["carried"]],
            *[creation.zeros(v.shape, dtype=v.dtype, device=device) for v, _ in accumulators],
            *[a for _, a in self.given["stacked"]], **attrs,
        )
        count = len(new_carries)
        summation.finish(found[count : count + len(accumulators)], found[count + len(accumulators) :])
        result: list[Any] = [None] * len(self.arrays)
        for i, make in finish.items():
            result[i] = make()
        for k, g in zip(carries, found):
            result[self.constants + k] = g
        return (*(None,) * self.limited, *result)

    def _residuals(self, parts: Any, outs: tuple) -> list[tuple[str, NDArray]]:
        """What the steps back read of the steps forward: arrays that are constant, or stacked. The scan forward is made to
        hand over what it does not yet."""
        forward: Graph = parts.forward
        plain = len(self.body.outputs)
        extra: dict[Atom, int] = {}
        places: list[tuple[str, Any]] = []
        for kind, i in parts.residuals:
            if kind == "input" and not self.constants <= i < self.first_slice:
                places.append(("constant" if i < self.constants else "stacked", self.arrays[i]))
            elif kind == "output" and self.carried <= i < plain:
                places.append(("stacked", i))
            else:
                atom = forward.inputs[i] if kind == "input" else forward.outputs[i]
                places.append(("stacked", extra.setdefault(atom, plain + len(extra))))
        every = self._forward(forward.replace(outputs=(*forward.outputs[:plain], *extra)), outs, bool(extra))
        return [(kind, a if isinstance(a, NDArray) else every[a]) for kind, a in places]

    def _forward(self, body: Graph, outs: tuple, more: bool) -> Sequence[NDArray]:
        """The results of the scan with a body that returns more: the same equation, where it can be changed."""
        if not more:
            return outs
        body = dce(body)
        attrs = {**self.attrs, "body": body}
        replaced = None if is_recording() else extend_equation(outs, self.attrs["body"], attrs)
        every = replaced if replaced is not None else apply(SCAN, *self.xs, **attrs)
        if self.counted:
            self.taken = every[0]
        return every[self.counted :]


def extend_equation(outs: Sequence[NDArray], body: Graph, attrs: dict[str, Any]) -> tuple[NDArray, ...] | None:
    """Give the equation of which `outs` are results other attributes, with more results behind those it has. Returns all
    results, or None where the equation is not at hand."""
    for out in outs:
        data = out._data
        if type(data) is not Traced or data.parent is not None:
            continue
        tracer, atom = data.tracer, data._atom
        for at in reversed(range(len(tracer.equations))):
            eq = tracer.equations[at]
            if atom in eq.outputs:
                if eq.op is not SCAN or eq.attrs["body"] is not body:
                    return None
                types = SCAN.infer(*[a.type for a in eq.inputs], **attrs)
                outputs = (*eq.outputs, *[Value(t) for t in types[len(eq.outputs) :]])
                tracer.equations[at] = Equation(SCAN, eq.inputs, outputs, attrs, eq.source)
                device = out._device
                return tuple([wrap(Traced(tracer, Cell(v), v, source=eq.source), device) for v in outputs])
    return None


def _zeros_equation(value: Value) -> Equation:
    """``value = zeros``."""
    zero = Literal(np.zeros((), value.dtype).item(), value.dtype)
    return Equation(OPS["broadcast_to"], (zero,), (value,), {"shape": tuple(value.shape)})


class _Summation:
    """Sums over the steps of values of a loop's body: how to have them when the loop is over.

    A product is not summed step by step: its operands are stacked, and one product contracts over the steps too.
    """

    def __init__(self, graph: Graph, slices: dict[Value, NDArray]):
        self.producers = {v: eq for eq in graph.equations for v in eq.outputs}
        self.slices = slices
        self.varying = set(slices) | {v for eq in graph.equations for v in eq.outputs}
        self.accumulators: list[tuple[Value, Atom]] = []  # before and after a step
        self.stacked: list[Atom] = []
        self.equations: list[Equation] = []
        self._places: dict[Atom, int] = {}
        self._totals: Sequence[NDArray] = ()
        self._stacks: Sequence[NDArray] = ()

    def is_product(self, atom: Atom) -> bool:
        """Whether `atom` is a product whose operands differ from step to step."""
        eq = self.producers.get(atom) if isinstance(atom, Value) else None
        while eq is not None and eq.op.name in ("transpose", "reshape", "cast", "add"):
            eq = self.producers.get(eq.inputs[0]) if isinstance(eq.inputs[0], Value) else None
        return eq is not None and eq.op.name == "dot_general" and all(a in self.varying for a in eq.inputs)

    def finish(self, totals: Sequence[NDArray], stacks: Sequence[NDArray]) -> None:
        """What the loop has returned."""
        self._totals, self._stacks = totals, stacks

    def stack(self, atom: Atom) -> Any:
        """A function that gives, after the loop, all steps' values of `atom`."""
        if isinstance(atom, Value) and atom in self.slices:
            array = self.slices[atom]
            return lambda: array
        place = self._places.get(atom)
        if place is None:
            place = self._places[atom] = len(self.stacked)
            self.stacked.append(atom)
        return lambda: self._stacks[place]

    def total(self, atom: Atom) -> Any:
        """A function that gives, after the loop, the sum of `atom` over the steps."""
        eq = self.producers.get(atom) if isinstance(atom, Value) else None
        if eq is not None:
            name = eq.op.name
            if name in ("transpose", "reshape", "cast") and (name != "cast" or is_inexact(eq.inputs[0].dtype)):
                inner = self.total(eq.inputs[0])
                return lambda: apply(eq.op, inner(), **eq.attrs)
            if name == "add" and all(isinstance(a, Value) and same_type(a.type, eq.output.type) for a in eq.inputs):
                left, right = self.total(eq.inputs[0]), self.total(eq.inputs[1])
                return lambda: apply(eq.op, left(), right())
            if name == "dot_general" and all(a in self.varying for a in eq.inputs):
                x, y = self.stack(eq.inputs[0]), self.stack(eq.inputs[1])
                contract = tuple((0, *[k + 1 for k in side]) for side in eq.attrs["contract"])
                batch = tuple(tuple(k + 1 for k in side) for side in eq.attrs["batch"])
                return lambda: apply(eq.op, x(), y(), contract=contract, batch=batch)
            if name == "sum" and (eq.inputs[0] in self._places or eq.inputs[0] in self.slices):
                x = self.stack(eq.inputs[0])
                axes, keep = tuple(k + 1 for k in eq.attrs["axes"]), eq.attrs["keepdims"]
                shape = tuple(eq.output.shape)

                def summed() -> NDArray:
                    found = apply(eq.op, x(), **{**eq.attrs, "axes": (0, *axes)})
                    return apply(OPS["reshape"], found, shape=shape) if keep else found

                return summed
        before = Value(atom.type)
        after = Equation(OPS["add"], (before, atom), (Value(atom.type),), {})
        self.equations.append(after)
        place = len(self.accumulators)
        self.accumulators.append((before, after.output))
        return lambda: self._totals[place]


SCAN = register(Op(
    "scan", ("*arrays",), _infer_scan, _run_scan, _scan_vjp, Template("scan"), _scan_samples, results=0,
))


# -- branch

def _infer_branch(*types: ArrayType, then: Graph, otherwise: Graph) -> tuple[ArrayType, ...]:
    if not types or types[0] != ArrayType((), _BOOL):
        raise TypeError(f"branch: the predicate must be bool[], got {types[0] if types else 'nothing'}")
    for graph in (then, otherwise):
        if len(graph.inputs) != len(types) - 1 or not all(same_type(v.type, t) for v, t in zip(graph.inputs, types[1:])):
            expected = [str(v.type) for v in graph.inputs]
            raise TypeError(f"branch: {graph.name} takes {expected}, got {[str(t) for t in types[1:]]}")
        if graph.state:
            raise TypeError(f"branch: {graph.name} must not write")
    first, second = [a.type for a in then.outputs], [a.type for a in otherwise.outputs]
    if len(first) != len(second) or not all(map(same_type, first, second)):
        raise TypeError(f"branch: its two sides return {list(map(str, first))} and {list(map(str, second))}")
    return tuple(first)


def _run_branch(xp: Any, *arrays: Any, then: Graph, otherwise: Graph) -> tuple:
    return tuple(evaluate_steps(then if arrays[0] else otherwise, list(arrays[1:]), xp))


def _branch_vjp(gs: tuple, xs: tuple, outs: tuple, then: Graph, otherwise: Graph) -> tuple:
    arrays = xs[1:]
    wanted = tuple([is_tracked(x) and is_inexact(x.dtype) for x in arrays])
    sides = [joint_of(g, wanted) for g in (then, otherwise)]
    gradients = sorted({i for side in sides for i in side.gradients})
    if not gradients:
        return (None,) * len(xs)
    given = [
        creation.zeros(outs[j].shape, dtype=outs[j].dtype, device=outs[j]._device) if gs[j] is None else gs[j]
        for j in sides[0].cotangents
    ]
    graphs = []
    for side in sides:
        graph = side.backward
        found: dict[int, Atom] = dict(zip(side.gradients, graph.outputs))
        missing = [_zeros_equation(Value(graph.inputs[i].type)) for i in gradients if i not in found]
        zeros = iter([eq.output for eq in missing])
        outputs = tuple([found[i] if i in found else next(zeros) for i in gradients])
        graphs.append(graph.replace(equations=(*graph.equations, *missing), outputs=outputs))
    result = apply(BRANCH, *xs, *given, then=graphs[0], otherwise=graphs[1])
    place = dict(zip(gradients, result))
    return (None, *[place.get(i) for i in range(len(arrays))])


BRANCH = register(Op(
    "branch", ("*arrays",), _infer_branch, _run_branch, _branch_vjp, Template("branch"), _branch_samples, results=0,
))


# -- gradients of the user's own

def _infer_custom(
    *types: ArrayType, gradient: Graph, arguments: int, results: int, places: tuple[int, ...]
) -> tuple[ArrayType, ...]:
    outputs = types[arguments : arguments + results]
    given = (*types[arguments + results :], *outputs)
    if len(outputs) != results or len(gradient.inputs) != len(given) or gradient.state:
        raise TypeError(f"custom_gradient: {gradient.name} takes {len(gradient.inputs)} arrays, got {len(given)}")
    for value, t in zip(gradient.inputs, given):
        if not same_type(value.type, t):
            raise TypeError(f"custom_gradient: {gradient.name} takes {value.type}, got {t}")
    if len(gradient.outputs) != len(places) or any(not 0 <= i < arguments for i in places):
        raise TypeError(f"custom_gradient: {gradient.name} returns {len(gradient.outputs)} gradients, expected {len(places)}")
    for atom, i in zip(gradient.outputs, places):
        if not same_type(atom.type, types[i]):
            raise TypeError(f"custom_gradient: the gradient of argument {i} is {atom.type}, the argument {types[i]}")
    return tuple(outputs)


def _run_custom(
    xp: Any, *arrays: Any, gradient: Graph, arguments: int, results: int, places: tuple[int, ...]
) -> tuple:
    return tuple([xp.array(a) for a in arrays[arguments : arguments + results]])


def _custom_vjp(
    gs: tuple, xs: tuple, outs: tuple, gradient: Graph, arguments: int, results: int, places: tuple[int, ...]
) -> tuple:
    given = [creation.zeros(o.shape, dtype=o.dtype, device=o._device) if g is None else g for g, o in zip(gs, outs)]
    found = dict(zip(places, apply(GRAPH_CALL, *xs[arguments + results :], *given, graph=gradient)))
    return tuple([found.get(i) for i in range(len(xs))])


def _custom_samples() -> Iterator[Sample]:
    """``x * x``, whose gradient is that of ``x * x`` by another formula."""
    kind = ArrayType((3,), np.dtype(np.float64))
    gradient = Builder("gradient")
    x, g = gradient.input(kind), gradient.input(kind)
    (product,) = gradient.emit("multiply", x, g)
    (twice,) = gradient.emit("add", product, product)
    attrs = {"gradient": gradient.build([twice]), "arguments": 1, "results": 1, "places": (0,)}
    a = np.array([1.0, -2.0, 3.0])
    yield Sample((a, a * a, a), attrs, lambda x, y, *_, **__: (y,), differentiable=False)


CUSTOM_GRADIENT = register(Op(
    "custom_gradient", ("*arrays",), _infer_custom, _run_custom, _custom_vjp, OPAQUE, _custom_samples, results=0,
))
"""``custom_gradient(*arguments, *results, *read; gradient, places)`` is the results, as they are; their gradient for the
arguments at `places` is ``gradient(*read, *cotangents)``, whatever the results were computed by. Compiled, it is gone."""
