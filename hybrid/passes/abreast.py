"""Sums over many short rows: several of them lie side by side in a vector.

The gradient of a convolution's bias sums (n, height, width, channels) over all axes but the last. Where that is shorter than
a vector, most of each would be empty; the same memory is an array of fewer and longer rows, whose sum is folded once more.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import lcm

from ndarray.dims import hint, product

from ..graph import Atom, Equation, Graph, Value
from .rewrite import Rewriter, rewrite

__all__ = ["abreast"]

VECTOR = 16  # numbers that a row should fill
LONGEST = 8 * VECTOR
ROWS = 1024  # or more are worth it


def abreast(graph: Graph) -> Graph:
    """The graph in which such sums are taken in two steps."""
    return rewrite(graph, _step)


def _step(new: Rewriter, eq: Equation) -> Mapping[Value, Atom] | None:
    if eq.op.name != "sum":
        return None
    (x,) = eq.inputs
    shape = x.shape
    if tuple(eq.attrs["axes"]) != tuple(range(len(shape) - 1)) or not _lies_in_order(new, x):
        return None
    first = len(shape) - 1
    while first > 0 and isinstance(shape[first - 1], int):
        first -= 1
    columns, rows = shape[-1], product(shape[first:-1])  # of those, any number may be joined
    if not isinstance(columns, int) or not isinstance(rows, int) or not 1 < columns < VECTOR:
        return None
    count = lcm(columns, VECTOR) // columns
    while count > 1 and rows % count:
        count //= 2
    if count == 1 or hint(product(shape[:-1])) < ROWS or count * columns > LONGEST:
        return None
    longer = new.emit("reshape", x, shape=(*shape[:first], rows // count, count * columns))
    total = new.emit(eq.op, longer, **{**eq.attrs, "axes": tuple(range(first + 1)), "keepdims": False})
    folded = new.emit(eq.op, new.emit("reshape", total, shape=(count, columns)), **{**eq.attrs, "axes": (0,), "keepdims": False})
    return {eq.output: new.emit("reshape", folded, shape=eq.output.shape)}


def _lies_in_order(new: Rewriter, x: Atom) -> bool:
    """Whether an array is stored, or made element by element of such as have its shape: not turned, cut or broadcast."""
    if not isinstance(x, Value):
        return False
    made = new.producers.get(x)
    if made is None or "elementwise" not in made.op.traits:
        return made is None or made.op.name not in ("transpose", "slice", "flip", "broadcast_to", "iota", "pad", "concatenate")
    return all(a.shape in ((), x.shape) for a in made.inputs)
