"""Arithmetic on float16 and bfloat16 in float32, rounded to the narrow type after each operation.

That is what the operations compute eagerly: ``add(x, y)`` is the float32 sum, rounded; a product, convolution or sum
accumulates in float32 and rounds once. Machines add and multiply float32; they load and store narrow numbers.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ndarray.dtypes import is_floating

from ..graph import Atom, Equation, Graph, Literal, Value
from .rewrite import Rewriter, rewrite

__all__ = ["WIDENED", "widen"]

WIDENED = frozenset({
    "add", "subtract", "multiply", "divide", "floor_divide", "remainder", "power", "arctan2", "exp", "expm1", "log", "log1p",
    "sqrt", "sin", "cos", "tan", "tanh", "sinh", "cosh", "arcsin", "arccos", "arctan", "arcsinh", "arccosh", "arctanh", "erf",
    "ndtr", "sigmoid", "sum", "prod", "dot_general", "convolution", "convolution_data_gradient", "convolution_weight_gradient",
    "sum_pool", "sum_unpool",
})  # fmt: skip
"""Operations whose results are rounded; the others move or compare numbers."""

_WIDE = np.dtype(np.float32)


def widen(graph: Graph) -> Graph:
    """The graph with casts to float32 before, and back behind, the arithmetic on narrower floats."""
    return rewrite(graph, _step)


def _step(r: Rewriter, eq: Equation) -> Mapping[Value, Atom] | None:
    if eq.op.name not in WIDENED:
        return None
    narrow = eq.output.dtype
    if narrow.itemsize >= 4 or not is_floating(narrow):
        return None
    inputs = [_wide(r, a) if a.dtype == narrow else a for a in eq.inputs]
    return {eq.output: r.emit("cast", r.emit(eq.op, *inputs, **eq.attrs), dtype=narrow)}


def _wide(r: Rewriter, atom: Atom) -> Atom:
    if isinstance(atom, Literal):
        return Literal(float(np.asarray(atom.value).astype(atom.dtype)), _WIDE)
    return r.emit("cast", atom, dtype=_WIDE)
