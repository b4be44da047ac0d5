"""What a graph must at least do: the multiply-adds of its contractions, and reading its inputs and writing its results once.

Set against the machine's limits (`jit.limits`, measured) they give the roofline ceiling: the time that no code which
computes these contractions directly can go below, as long as its arrays come from memory. (Weights that stay in the caches
between calls, and Winograd's way of computing a convolution, can.)
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from hybrid.graph import Graph, Value
from jit.explain import operations_of
from jit.limits import Limits
from ndarray.dims import evaluate
from ndarray.op import Template

__all__ = ["Work", "ceiling_ms", "work_of"]

CONTRACTIONS = frozenset({
    "dot_general", "convolution", "convolution_data_gradient", "convolution_weight_gradient", "attention", "attention_gradient",
})


@dataclass(frozen=True)
class Work:
    """Floating operations of all contractions (a multiply-add is two), bytes of what is read and written."""

    flops: int
    bytes: int


def work_of(graph: Graph, sizes: Mapping[str, int] | None = None) -> Work:
    """The work of a call. Of a table of which only some rows are taken, only these count as read."""
    sizes = sizes or {}

    def size_of(value: Value) -> int:
        return math.prod(evaluate(d, sizes) for d in value.shape) * value.dtype.itemsize

    read: dict[Value, int] = {}
    for eq in graph.equations:
        for position, atom in enumerate(eq.inputs):
            if isinstance(atom, Value):
                taken = eq.op.name == "take" and position == 0
                read[atom] = read.get(atom, 0) + (size_of(eq.outputs[0]) if taken else size_of(atom))
    results = [a for a in graph.outputs if isinstance(a, Value)]
    written = {i: a for i, a in graph.state.items() if a is not graph.inputs[i]}
    for atom in (*results, *written.values()):
        if isinstance(atom, Value):
            read[atom] = size_of(atom)
    count = sum(min(read.get(v, 0), size_of(v)) for v in graph.inputs)
    count += sum(map(size_of, results)) + sum(size_of(graph.inputs[i]) for i in written)
    return Work(_flops(graph, sizes), count)


def _flops(graph: Graph, sizes: Mapping[str, int]) -> int:
    total = 0
    for eq in graph.equations:
        if eq.op.name == "scan":
            total += evaluate(eq.attrs["length"], sizes) * _flops(eq.attrs["body"], sizes)
        elif eq.op.name == "branch":
            total += min(_flops(eq.attrs[side], sizes) for side in ("then", "otherwise"))
        elif isinstance(eq.op.lower, Template) and eq.op.lower.name in CONTRACTIONS:
            total += evaluate(operations_of(eq), sizes)
    return total


def ceiling_ms(work: Work, limits: Limits) -> float:
    """The roofline ceiling: what takes longer, computing in registers or moving bytes at the speed of a copy."""
    return max(work.flops / limits.gflops, work.bytes / limits.gigabytes) / 1e6
