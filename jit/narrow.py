"""Convolutions with few outputs, too few to fill a vector: the taps of a row lie beside one another in the lanes.

    p[i, j, (t, o)] = sum over channels c, taps k of depth and rows of x[i + k, j, c] * w[o, c, (k, t)]
    out[i, q, o] = sum over t of p[i, q + t - low, (t, o)]

The products are those of a convolution with one tap in a row and taps x outputs outputs, of every column of x. With the taps
in reverse order, what column j adds to lies in a row of results from ``j * outputs`` on, as its sums do. So the sums of
columns j, j + taps, j + 2 * taps ... are stored one behind the other, in one of `taps` lines, and a row of results is
the sum of these lines.
"""

from __future__ import annotations

from dataclasses import replace
from math import inf

from .contraction import bind, hint, lane_mask, zero
from .direct import Convolution, Direct, Plan, Window, pack_weights
from .gemm import once
from .launch import _ITEMSIZE, KernelBuilder, Launch, Storage
from .loopir import INT, Expr, For, Get, Load, Register, Stmt, Store, Type, Var, const
from .target import Target

__all__ = ["lower_narrow", "narrow_cost"]


def narrow_cost(c: Convolution, target: Target) -> float:
    """Cycles of products for all taps of a row at once over those of tap by tap, estimated; infinity where that can't be."""
    d, h, w = c.windows
    sizes = (c.inputs, c.outputs, w.size, w.out)  # which are known
    if target.threads or not all(isinstance(n, int) and n > 0 for n in sizes) or 0 in (d.taps, h.taps) or w.taps < 2:
        return inf
    outputs, lanes = int(c.outputs), target.lanes(c.dtype)
    registers = target.registers - 2
    if w.stride != 1 or w.step != 1 or outputs >= lanes or -(-outputs * w.taps // lanes) * w.taps > registers:
        return inf
    depth = int(c.inputs) * d.taps * h.taps
    plan = _plan(c, target)
    if _patch(c, plan, 1) * _ITEMSIZE[c.dtype] > target.l2 // 4:
        return inf

    def pace(lanes: int) -> float:  # cycles of a product of vectors
        return 0.5 if target.halves and lanes < target.lanes(c.dtype) else 1.0

    few = target.fewer(lanes, outputs)
    apart = hint(w.out) * (depth * w.taps * pace(few) + 6)
    together = plan.width * depth * plan.vectors * pace(plan.lanes) + hint(w.out) * (w.taps + 8)
    return together / apart


def _patch(c: Convolution, plan: Plan, high: int) -> int:
    """How many elements the patch of `high` rows of results has."""
    d, h, _ = c.windows
    return d.taps * h.reach(high) * plan.width * -(-hint(c.inputs) // plan.block) * plan.block


def _plan(c: Convolution, target: Target) -> Plan:
    """Tiles of one row, whose columns are a multiple of the taps; a task has whole rows."""
    _, h, w = c.windows
    width, height, outputs = max(1, hint(w.size)), max(1, hint(h.out)), hint(c.outputs) * w.taps
    lanes = target.fewer(target.lanes(c.dtype), outputs)
    vectors = -(-outputs // lanes)
    most = max(1, (target.registers - vectors - (1 if target.fma else 2)) // vectors // w.taps) * w.taps
    columns = -(-width // -(-width // most))
    columns = -(-columns // w.taps) * w.taps
    block = -(-hint(c.inputs) // -(-hint(c.inputs) // 16))
    plan = Plan(lanes, 1, columns, vectors, block, 1, -(-width // columns) * columns)
    outer = max(1, hint(c.batch)) * c.groups * max(1, hint(c.windows[0].out))
    high = -(-height // min(height, max(1, 16 // outer)))
    while high > 1 and _patch(c, plan, high) * _ITEMSIZE[c.dtype] > target.l2 // 4:
        high = -(-high // 2)
    return replace(plan, height=high)


def lower_narrow(c: Convolution, target: Target) -> list[Launch]:
    """The launches: the weights are packed, then the products are summed."""
    plan = _plan(c, target)
    w, outputs = c.windows[2], hint(c.outputs)

    def weight(builder: KernelBuilder, number: Expr, channel: Expr, tap: tuple[Expr, ...], lanes: int, mask: Expr | None) -> Expr:
        group, lane = number // (outputs * w.taps), number % (outputs * w.taps)
        taps = (*tap[:2], const(w.taps - 1) - lane // outputs)
        return c.weight(builder, group * outputs + lane % outputs, channel, taps, lanes, mask)

    wide = replace(c, windows=(*c.windows[:2], Window(w.size, w.size)), outputs=outputs * w.taps, weight=weight)
    pack, packed = pack_weights(wide, replace(plan, lanes=1, vectors=plan.nr))
    return [pack, _Narrow(c, wide, plan, packed, target).build()]


class _Narrow(Direct):
    """See the module."""

    def __init__(self, c: Convolution, wide: Convolution, plan: Plan, packed: Storage, target: Target):
        super().__init__(wide, plan, packed, True)
        self.narrow, self.target = c, target

    def build(self) -> Launch:
        c, plan, builder = self.narrow, self.plan, self.builder
        w, outputs = c.windows[2], hint(c.outputs)
        body, _, tasks = self.begin(1, c.groups)
        body += self.copy()
        # result q is number q + shift of a line, which has `before` more in front
        shift = w.taps - 1 - w.low
        before = max(0, -shift)
        length = (before + max(plan.width + w.taps, hint(w.out) + shift)) * outputs + 2 * plan.nr
        length = -(-length // plan.lanes) * plan.lanes
        self.lines = builder.scratch(c.dtype, w.taps * length)
        k, i, j, q = (Var(builder.fresh(n), INT) for n in "kijq")
        body.append(For(k.name, const(0), const(w.taps * length), plan.lanes, (Store(self.lines, k, zero(self.vector)),)))
        tile = self._columns(i, j, outputs, before * outputs, length)
        row: list[Stmt] = [For(j.name, const(0), const(plan.width), plan.columns, tuple(tile))]
        lanes = self.target.fewer(plan.lanes, outputs)
        one: list[Stmt] = []
        where = (self.depth, bind(builder, row, self.h0 + i), q)
        for first in range(0, outputs, lanes):
            at = bind(builder, one, (q + (shift + before)) * outputs + first)
            total: Expr | None = None
            for t in range(w.taps):
                line = Load(self.lines, at + t * length, Type(c.dtype, lanes))
                total = line if total is None else bind(builder, one, total + line, "x")
            assert total is not None
            mask = lane_mask(const(first), lanes, const(outputs)) if first + lanes > outputs else None
            one += c.deliver(builder, self.n, where, self.group * outputs + first, lanes, mask, total)
        row.append(For(q.name, const(0), builder.parameter(w.out, "columns out"), 1, tuple(one)))
        body.append(For(i.name, const(0), self.rows, 1, tuple(row)))
        return self.launch(body, tasks, f"narrow_{plan.columns}x{plan.nr}", plan.lanes * 2)

    def _columns(self, i: Expr, j: Expr, outputs: int, before: int, length: int) -> list[Stmt]:
        """The sums of some columns, into the lines."""
        c, plan, builder = self.narrow, self.plan, self.builder
        taps = c.windows[2].taps
        names = [[[builder.fresh("s") for _ in range(plan.vectors)] for _ in range(plan.columns)]]
        body: list[Stmt] = []
        tile: list[Stmt] = [Register(name, zero(self.vector)) for column in names[0] for name in column]
        tile += self.sum_up(body, names, const(0), i, j)
        at = bind(builder, body, j * outputs + before)
        for q, column in enumerate(names[0]):
            for v, name in enumerate(column):
                used = min(plan.lanes, outputs * taps - v * plan.lanes)
                mask = None if used == plan.lanes else lane_mask(const(0), plan.lanes, const(used))
                place = at + (q % taps * length + q * outputs + v * plan.lanes)
                tile.append(Store(self.lines, place, Get(name, self.vector), mask))
        return [*body, *once(builder, tile)]

    def _ahead(self, panel: Expr, block: Expr, i: Expr, j: Expr) -> list[Stmt]:
        return []
