"""Constant folding: elementwise equations whose inputs are all literals become literals."""

from __future__ import annotations

import numpy as np

from ..graph import Atom, Equation, Graph, Literal, Value
from .rewrite import Rewriter, rewrite

__all__ = ["fold"]


def fold(graph: Graph) -> Graph:
    """``multiply 2 3 -> 6``, computed by the ops' eager functions. Only 0-d results: nothing large is ever stored."""
    return rewrite(graph, _fold)


def _fold(rewriter: Rewriter, eq: Equation) -> dict[Value, Atom] | None:
    folds = "elementwise" in eq.op.traits or eq.op.name in ("reshape", "broadcast_to")
    if not folds or not eq.inputs or any(v.shape != () for v in eq.outputs):
        return None
    if not all(isinstance(a, Literal) for a in eq.inputs):
        return None
    with np.errstate(all="ignore"):
        arrays = [np.asarray(a.value, dtype=a.dtype) for a in eq.inputs]  # type: ignore[union-attr]
        result = eq.op.eager(np, *arrays, **eq.attrs)
    results = result if isinstance(result, tuple) else (result,)
    return {v: Literal(np.asarray(r, dtype=v.dtype).item(), v.dtype) for v, r in zip(eq.outputs, results)}
