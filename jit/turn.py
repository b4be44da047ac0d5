"""Transposition in registers: n vectors of n lanes."""

from __future__ import annotations

from collections.abc import Sequence

from .contraction import bind
from .launch import KernelBuilder
from .loopir import Apply, Expr, Stmt

__all__ = ["transposed"]


def transposed(builder: KernelBuilder, body: list[Stmt], rows: Sequence[Expr]) -> list[Expr]:
    """The columns of as many vectors as each has lanes (a power of two).

    In each of log2(n) steps, two vectors whose numbers differ in one bit are laid behind one another, and the even and the odd
    lanes of that take their places: the bit moves to the top of the lanes' numbers, whose lowest bit takes its place.
    """
    vectors = [bind(builder, body, r, "x") for r in rows]
    type = vectors[0].type
    wide = type.with_lanes(2 * type.lanes)
    bit = 1
    while bit < len(vectors):
        for a in range(len(vectors)):
            if not a & bit:
                pair = Apply("concat", (vectors[a], vectors[a | bit]), wide)
                even, odd = (bind(builder, body, Apply(half, (pair,), type), "x") for half in ("even", "odd"))
                vectors[a], vectors[a | bit] = even, odd
        bit *= 2
    return vectors
