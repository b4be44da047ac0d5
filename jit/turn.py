"""Transposition in registers: n vectors of n lanes."""

from __future__ import annotations

from collections.abc import Sequence

from .contraction import bind
from .launch import KernelBuilder
from .loopir import Apply, Expr, For, Get, Register, Set, Stmt, const

__all__ = ["transposed"]


def transposed(builder: KernelBuilder, body: list[Stmt], rows: Sequence[Expr]) -> list[Expr]:
    """The columns of as many vectors as each has lanes (a power of two): what some registers hold after the statements that are
    added to `body`.

    One step, done log2(n) times by a loop: of rows p and p + n / 2, laid behind one another, the even lanes become row 2p and
    the odd lanes row 2p + 1. In the numbers of row and lane, written in bits behind one another, the highest bit of the row moves
    to the front of the lane, whose lowest bit moves to the end of the row. In the end each is the other's, in reverse order, so
    rows are taken and columns given in that order.
    """
    count, type = len(rows), rows[0].type
    bits = count.bit_length() - 1
    names = [builder.fresh("x") for _ in rows]
    backwards = [int(f"{i:0{bits}b}"[::-1], 2) for i in range(count)]
    body += [Register(name, rows[i]) for name, i in zip(names, backwards)]
    step: list[Stmt] = []
    halves = []
    for p in range(count // 2):
        pair = Apply("concat", (Get(names[p], type), Get(names[p + count // 2], type)), type.with_lanes(2 * count))
        halves += [bind(builder, step, Apply(half, (pair,), type), "x") for half in ("even", "odd")]
    step += [Set(name, value) for name, value in zip(names, halves)]
    body.append(For(builder.fresh("i"), const(0), const(bits), 1, tuple(step)))
    return [Get(names[i], type) for i in backwards]
