"""Inlining: ``graph_call`` is replaced by the equations of the graph that it calls."""

from __future__ import annotations

from ndarray.dims import Size

from ..graph import Atom, Equation, Graph, Value
from ..sizes import match_sizes, substitute
from .rewrite import Rewriter, rewrite

__all__ = ["inline"]


def inline(graph: Graph) -> Graph:
    """The graph without calls."""
    if all(eq.op.name != "graph_call" for eq in graph.equations):
        return graph
    return rewrite(graph, _inline)


def _inline(rewriter: Rewriter, eq: Equation) -> dict[Value, Atom] | None:
    if eq.op.name != "graph_call":
        return None
    called = inline(eq.attrs["graph"])
    sizes: dict[str, Size] = {}
    for formal, actual in zip(called.inputs, eq.inputs):
        match_sizes(formal.shape, actual.shape, sizes)
    now: dict[Value, Atom] = dict(zip(called.inputs, eq.inputs))
    for inner in called.equations:
        inputs = tuple([now.get(a, a) if isinstance(a, Value) else a for a in inner.inputs])
        attrs = {k: substitute(v, sizes) for k, v in inner.attrs.items()}
        types = inner.op.infer(*[a.type for a in inputs], **attrs)
        outputs = tuple([Value(t) for t in types])
        rewriter.append(Equation(inner.op, inputs, outputs, attrs, inner.source or eq.source))
        now.update(zip(inner.outputs, outputs))
    results = [now.get(a, a) if isinstance(a, Value) else a for a in called.outputs]
    return dict(zip(eq.outputs, results))
