"""Random graphs as the body of a loop or the sides of a branch, for tests/graph_fuzzer.py."""

from __future__ import annotations

import numpy as np

from hybrid.graph import Builder, Equation, Graph, Literal, Value
from ndarray.dims import Dim, evaluate
from ndarray.op import OPS, ArrayType
from tests.random_graphs import Maker, identical, kind_of, never_empty

_INT, _BOOL = np.dtype(np.int64), np.dtype(bool)


def in_a_loop(maker: Maker, graph: Graph) -> Graph:
    """A graph around `graph`, which is run in steps, or taken or not. `maker.arrays` then makes the new inputs."""
    body = graph.replace(state={}, name="body")
    return _branch(maker, body) if maker.random.random() < 0.2 else _scan(maker, body)


def _squashed(graph: Graph) -> Graph:
    """The graph with tanh on all floats that it returns: they stay within what inputs may be."""
    equations, outputs = list(graph.equations), []
    for a in graph.outputs:
        if kind_of(a.dtype) == "f":
            equations.append(Equation(OPS["tanh"], (a,), (Value(a.type),)))
            a = equations[-1].output
        outputs.append(a)
    return graph.replace(equations=tuple(equations), outputs=tuple(outputs))


def _scan(maker: Maker, body: Graph) -> Graph:
    r = maker.random
    body = _squashed(body)
    makers = dict(zip(body.inputs, maker.arrays))
    carried: dict[Value, Value] = {}
    for v in body.inputs:
        same = [a for a in body.outputs if kind_of(v.dtype) in "fb" and a.dtype == v.dtype and identical(a.shape, v.shape)]
        if same and r.random() < 0.7:
            carried[v] = same[int(r.integers(len(same)))]
    rest = [v for v in body.inputs if v not in carried]
    # a size has to stand on an input of its own: what shows a symbol stays as it is
    stacked = [v for v in rest if r.random() < 0.4 and not any(isinstance(n, Dim) for n in v.shape)]
    constants = [v for v in rest if v not in stacked]
    symbols = [n for v in (*constants, *carried) for n in v.shape if isinstance(n, Dim) and len(n.terms) == 1]
    length = symbols[0] if symbols and r.random() < 0.4 else int(r.choice([0, 1, 2, 3, 4]))
    more = [a for a in dict.fromkeys(body.outputs) if r.random() < 0.6]
    inner = body.replace(
        inputs=(*constants, *carried, *stacked), outputs=(*carried.values(), *more), guards=(),
    )
    builder = Builder(body.name)
    arrays: list = []

    def given(v: Value, shape: tuple) -> Value:
        value = builder.input(ArrayType(tuple(shape), v.dtype), v.name)
        plain = makers[v]
        if shape == tuple(v.shape):
            arrays.append(plain)
        else:
            arrays.append(lambda sizes: np.stack([plain(sizes)] * 8)[: evaluate(length, sizes)] if evaluate(length, sizes) <= 8
                          else np.stack([plain(sizes)] * evaluate(length, sizes)))
        if kind_of(v.dtype) == "f" and r.random() < 0.3:  # not the input itself, but something computed
            (value,) = builder.emit("negative", value)
        return value

    operands = [given(v, v.shape) for v in (*constants, *carried)] + [given(v, (length, *v.shape)) for v in stacked]
    attrs = {"body": inner, "carried": len(carried), "stacked": len(stacked), "length": length, "reverse": bool(r.random() < 0.4)}
    if r.random() < 0.25:
        limit = int(r.integers(-1, 5))
        operands.insert(0, builder.input(ArrayType((), _INT), "limit"))
        arrays.insert(0, lambda sizes: np.asarray(limit))
        builder.inputs.insert(0, builder.inputs.pop())
        attrs["limited"] = True
    floats = [k for k, v in enumerate(carried) if kind_of(v.dtype) == "f" and never_empty(v.shape)]
    if floats and r.random() < 0.25:
        maker.empty = False  # its largest is asked for
        attrs["condition"] = _condition(inner, len(constants) + len(carried), len(constants) + floats[0])
    results = builder.emit("scan", *operands, **attrs)
    outputs = list(results)
    for v in results:
        if kind_of(v.dtype) == "f" and r.random() < 0.3:
            outputs += builder.emit("tanh", v)
    maker.arrays = arrays
    return builder.build(outputs, guards=body.guards)


def _condition(body: Graph, count: int, place: int) -> Graph:
    """``max(carried) > -2``: true but where NaN has come in; it has to be computed all the same."""
    builder = Builder("condition")
    values = [builder.input(v.type) for v in body.inputs[:count]]
    value = values[place]
    (top,) = builder.emit("max", value, axes=tuple(range(len(value.shape))), keepdims=False)
    answer = builder.emit("greater", top, Literal(-20.0, value.dtype))
    return builder.build(answer)


def _branch(maker: Maker, body: Graph) -> Graph:
    builder = Builder(body.name)
    choice = bool(maker.random.random() < 0.5)
    predicate = builder.input(ArrayType((), _BOOL), "predicate")
    inputs = [builder.input(v.type, v.name) for v in body.inputs]
    maker.arrays = [lambda sizes: np.asarray(choice), *maker.arrays]
    sides = [body.replace(guards=()), _squashed(body).replace(guards=())]
    return builder.build(builder.emit("branch", predicate, *inputs, then=sides[0], otherwise=sides[1]), guards=body.guards)
