"""``stop_gradient(x) -> x``: once a graph's gradient has been taken, or will not be, it means nothing."""

from __future__ import annotations

from ..graph import Graph
from .rewrite import rewrite

__all__ = ["detach"]


def detach(graph: Graph) -> Graph:
    """The graph without `stop_gradient`. Only for a graph that is about to be compiled."""
    return rewrite(graph, lambda r, eq: {eq.output: eq.inputs[0]} if eq.op.name == "stop_gradient" else None)
