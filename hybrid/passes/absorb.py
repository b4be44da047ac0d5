"""Factors and shifts behind convolutions that come from weights alone, as those of a normalization with stored moments:

    (convolution(x, w) - mean) * factor + beta    becomes    convolution(x, w * factor) + (beta - mean * factor)

Both operands on the right are computed once and kept between calls; one addition is left.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from itertools import pairwise

from ..graph import Atom, Equation, Graph, Literal, Value
from .dce import dce
from .rewrite import Rewriter, rewrite

__all__ = ["absorb"]


def absorb(graph: Graph, constants: Collection[int]) -> Graph:
    """The graph with such factors in the weights of its convolutions, which are in channels-last form (see `layout`).
    `constants` are the numbers of the inputs that rarely change."""
    convolutions = [eq for eq in graph.equations if eq.op.name == "convolution_channels_last"]
    if not constants or not convolutions:
        return graph
    constant: set[Atom] = {graph.inputs[i] for i in constants if i not in graph.state}
    readers: dict[Atom, list[Equation | None]] = {}
    for eq in graph.equations:
        values = [a for a in eq.inputs if isinstance(a, Value)]
        if values and constant.issuperset(values):
            constant.update(eq.outputs)
        for a in values:
            readers.setdefault(a, []).append(eq)
    for result in graph.results():
        readers.setdefault(result, []).append(None)

    chains: dict[Value, list[Equation]] = {}  # by their result: the convolution and what is absorbed, in order
    for eq in convolutions:
        chain = [eq]
        while len(found := readers.get(chain[-1].output, [])) == 1 and (reader := found[0]) is not None:
            if _operand(reader, chain[-1].output, constant) is None:
                break
            chain.append(reader)
        scaled = any(x.op.name == "multiply" for x in chain[1:])
        if eq.inputs[1] in constant and eq.output.dtype.kind == "f" and (scaled or len(chain) > 2):
            chains[chain[-1].output] = chain

    def step(rewriter: Rewriter, eq: Equation) -> Mapping[Value, Atom] | None:
        chain = chains.get(eq.outputs[0])
        return None if chain is None else {eq.output: _absorbed(rewriter, chain, constant)}

    return dce(rewrite(graph, step)) if chains else graph


def _operand(eq: Equation, value: Value, constant: Collection[Atom]) -> Atom | None:
    """What an equation adds to each channel of `value`, subtracts from it or multiplies it with, if that is all it does."""
    if eq.op.name not in ("add", "subtract", "multiply") or eq.output.shape != value.shape or eq.inputs[0] is eq.inputs[1]:
        return None
    if eq.op.name == "subtract" and eq.inputs[0] is not value:
        return None
    other = eq.inputs[1] if eq.inputs[0] is value else eq.inputs[0]
    per_channel = all(isinstance(n, int) and n == 1 for n in other.shape[:-1]) and other.dtype == value.dtype
    known = math.isfinite(other.value) if isinstance(other, Literal) else other in constant  # weights times inf sum up to NaN
    return other if per_channel and known else None


def _absorbed(rewriter: Rewriter, chain: list[Equation], constant: Collection[Atom]) -> Value:
    """The result of a chain: convolution(x, w * factor) + shift, or less the shift if that is `negative`."""
    convolution, emit = chain[0], rewriter.emit
    factor: Atom | None = None
    shift: Atom | None = None
    negative = False
    for before, eq in pairwise(chain):
        other = _operand(eq, before.output, constant)
        assert other is not None
        other = rewriter.now(other)
        if eq.op.name == "multiply":
            factor = other if factor is None else emit("multiply", factor, other)
            shift = None if shift is None else emit("multiply", shift, other)
        elif shift is None:
            shift, negative = other, eq.op.name == "subtract"
        elif (eq.op.name == "subtract") == negative:
            shift = emit("add", shift, other)
        elif negative:
            shift, negative = emit("subtract", other, shift), False
        else:
            shift = emit("subtract", shift, other)
    x, w = map(rewriter.now, convolution.inputs)
    if factor is not None:
        if factor.shape and factor.shape[-1] != 1:
            factor = emit("reshape", factor, shape=(w.shape[0], *[1] * (len(w.shape) - 1)))
        elif factor.shape:
            factor = emit("reshape", factor, shape=())
        w = emit("multiply", w, factor)
    rewriter.source, last = convolution.source, rewriter.source
    out = emit(convolution.op, x, w, **convolution.attrs)
    rewriter.source = last
    return out if shift is None else emit("subtract" if negative else "add", out, shift)
