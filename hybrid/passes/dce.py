"""Dead code: equations that no result needs."""

from __future__ import annotations

from ..graph import Graph

__all__ = ["dce"]


def dce(graph: Graph) -> Graph:
    """Keep the equations from which an output or a state is computed (and those with effects). Inputs stay."""
    needed = set(graph.results())
    kept = []
    for eq in reversed(graph.equations):
        if "effect" in eq.op.traits or not needed.isdisjoint(eq.outputs):
            kept.append(eq)
            needed.update(eq.inputs)
    if len(kept) == len(graph.equations):
        return graph
    return graph.replace(equations=tuple(reversed(kept)))
