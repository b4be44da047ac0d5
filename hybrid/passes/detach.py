"""``stop_gradient(x) -> x``, and gradients of the user's own: once a graph's gradient has been taken, or will not be, they mean
nothing."""

from __future__ import annotations

from ..graph import Atom, Equation, Graph, Value
from .rewrite import Rewriter, rewrite

__all__ = ["detach"]


def detach(graph: Graph) -> Graph:
    """The graph without `stop_gradient` and `custom_gradient`. Only for a graph that is about to be compiled."""
    return rewrite(graph, _detach)


def _detach(rewriter: Rewriter, eq: Equation) -> dict[Value, Atom] | None:
    if eq.op.name == "stop_gradient":
        return {eq.output: eq.inputs[0]}
    if eq.op.name == "custom_gradient":
        first = eq.attrs["arguments"]
        return dict(zip(eq.outputs, eq.inputs[first : first + eq.attrs["results"]]))
    return None
