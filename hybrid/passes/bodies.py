"""Loops and branches without what nothing needs, and their bodies optimized like the graph around them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ndarray.op import OPS

from ..graph import Atom, Equation, Graph, Value
from .dce import dce
from .rewrite import Rewriter, rewrite

__all__ = ["each_body", "hand_over", "prune"]


def each_body(function: Callable[[Graph], Graph]) -> Callable[[Graph], Graph]:
    """The pass that applies `function` to the sub-graphs of all equations."""

    def step(rewriter: Rewriter, eq: Equation) -> Mapping[Value, Atom] | None:
        attrs = {k: function(v) if isinstance(v, Graph) else v for k, v in eq.attrs.items()}
        if all(a is b for a, b in zip(attrs.values(), eq.attrs.values())):
            return None
        outputs = tuple([Value(v.type, v.name) for v in eq.outputs])
        rewriter.append(Equation(eq.op, eq.inputs, outputs, attrs, eq.source))
        return dict(zip(eq.outputs, outputs))

    def run(graph: Graph) -> Graph:
        return rewrite(graph, step) if any(isinstance(v, Graph) for eq in graph.equations for v in eq.attrs.values()) else graph

    return run


def hand_over(graph: Graph) -> Graph:
    """What a loop's step was given and hands on to be stacked, as a residual of the gradient, is copied by an operation, which
    can become a part of another one; simplification would take it away."""

    def step(rewriter: Rewriter, eq: Equation) -> Mapping[Value, Atom] | None:
        if eq.op.name != "scan":
            return None
        body, carried = eq.attrs["body"], eq.attrs["carried"]
        given = dict.fromkeys(a for a in body.outputs[carried:] if a in body.inputs)
        if not given:
            return None
        copies = {a: Equation(OPS["copy"], (a,), (Value(a.type),), {}, eq.source) for a in given}
        stacked = [copies[a].output if a in copies else a for a in body.outputs[carried:]]
        new = body.replace(equations=(*body.equations, *copies.values()), outputs=(*body.outputs[:carried], *stacked))
        outputs = tuple([Value(v.type, v.name) for v in eq.outputs])
        rewriter.append(Equation(eq.op, eq.inputs, outputs, {**eq.attrs, "body": new}, eq.source))
        return dict(zip(eq.outputs, outputs))

    return rewrite(graph, step)


def prune(graph: Graph) -> Graph:
    """Results of loops and branches that nothing reads are not computed, and what only they need is not passed in; a carried
    value that no step changes is a constant."""
    if not any(eq.op.name in ("scan", "branch") for eq in graph.equations):
        return graph
    used: set[Any] = set(graph.results())
    equations: list[Equation] = []
    renamed: dict[Value, Atom] = {}
    for eq in reversed(graph.equations):
        if eq.op.name == "scan":
            eq = _prune_scan(eq, used, renamed)
        elif eq.op.name == "branch":
            eq = _prune_branch(eq, used)
        used.update(eq.inputs)
        equations.append(eq)
    equations.reverse()
    if all(a is b for a, b in zip(equations, graph.equations)):
        return graph
    if renamed:
        def now(atom: Atom) -> Atom:
            while isinstance(atom, Value) and atom in renamed:
                atom = renamed[atom]
            return atom

        equations = [Equation(eq.op, tuple(map(now, eq.inputs)), eq.outputs, eq.attrs, eq.source) for eq in equations]
        return graph.replace(
            equations=tuple(equations), outputs=tuple(map(now, graph.outputs)), state={i: now(a) for i, a in graph.state.items()}
        )
    return graph.replace(equations=tuple(equations))


def _prune_scan(eq: Equation, used: set[Any], renamed: dict[Value, Atom]) -> Equation:
    attrs = eq.attrs
    body: Graph = attrs["body"]
    condition: Graph | None = attrs.get("condition")
    carried, stacked, limited = attrs["carried"], attrs["stacked"], int(attrs.get("limited", False))
    counted = int(condition is not None)
    constants = len(body.inputs) - carried - stacked
    arrays, carry_in = eq.inputs[limited:], body.inputs[constants : constants + carried]
    results = eq.outputs[counted:]
    still = [k for k in range(carried) if body.outputs[k] is carry_in[k]]  # no step changes them
    wanted = {k for k in range(carried) if results[k] in used and k not in still}
    outputs = [j for j in range(carried, len(body.outputs)) if results[j] in used]
    tested = set() if condition is None else _read(condition)
    if condition is not None:
        wanted |= {k for k in range(carried) if k not in still and condition.inputs[constants + k] in tested}
    while True:  # carried values that steps need which are needed
        reads = _read(body.replace(outputs=tuple([body.outputs[k] for k in [*sorted(wanted), *outputs]])))
        more = {k for k in range(carried) if k not in still and carry_in[k] in reads} - wanted
        if not more:
            break
        wanted |= more
    fixed = [i for i in (*range(constants), *(constants + k for k in still))
             if body.inputs[i] in reads or (condition is not None and condition.inputs[i] in tested)]
    slices = [i for i in range(constants + carried, len(body.inputs)) if body.inputs[i] in reads]
    moving = sorted(wanted)
    if len(moving) == carried and len(outputs) == len(body.outputs) - carried and \
            len(fixed) + len(moving) + len(slices) == len(body.inputs) and not still:
        return eq
    for k in still:
        if results[k] in used:
            renamed[results[k]] = arrays[constants + k]
            used.add(arrays[constants + k])
    order = [*fixed, *[constants + k for k in moving]]
    new_body = dce(body.replace(
        inputs=tuple([body.inputs[i] for i in [*order, *slices]]),
        outputs=tuple([body.outputs[k] for k in [*moving, *outputs]]),
    ))
    new = {**attrs, "body": new_body, "carried": len(moving), "stacked": len(slices)}
    if condition is not None:
        new["condition"] = dce(condition.replace(inputs=tuple([condition.inputs[i] for i in order])))
    return Equation(
        eq.op, (*eq.inputs[:limited], *[arrays[i] for i in [*order, *slices]]),
        (*eq.outputs[:counted], *[results[k] for k in [*moving, *outputs]]), new, eq.source,
    )


def _prune_branch(eq: Equation, used: set[Any]) -> Equation:
    then, otherwise = eq.attrs["then"], eq.attrs["otherwise"]
    kept = [j for j, v in enumerate(eq.outputs) if v in used]
    sides = [g.replace(outputs=tuple([g.outputs[j] for j in kept])) for g in (then, otherwise)]
    reads = [_read(g) for g in sides]
    needed = [i for i in range(len(then.inputs)) if any(g.inputs[i] in r for g, r in zip(sides, reads))]
    if len(kept) == len(eq.outputs) and len(needed) == len(then.inputs):
        return eq
    then, otherwise = (dce(g.replace(inputs=tuple([g.inputs[i] for i in needed]))) for g in sides)
    return Equation(
        eq.op, (eq.inputs[0], *[eq.inputs[1 + i] for i in needed]), tuple([eq.outputs[j] for j in kept]),
        {"then": then, "otherwise": otherwise}, eq.source,
    )


def _read(graph: Graph) -> set[Any]:
    """What the results of a graph are computed from."""
    needed: set[Any] = set(graph.results())
    for eq in reversed(graph.equations):
        if not needed.isdisjoint(eq.outputs):
            needed.update(eq.inputs)
    return needed
