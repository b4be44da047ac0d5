"""Depthwise convolutions over channels-last arrays: vectors run along the channels, each of which has a filter of its own.

Row by row, for a few neighbouring outputs at a time, one vector of channels after the other, so that x is read as it lies in
memory: each vector of a row of x is loaded once and multiplied with all the taps that it meets.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ndarray.dims import Size, product

from .contraction import bind, ceil_div, digits, hint, lane_mask, mask_registers, minimum, multiply_add, zero
from .direct import UNIT, Convolution, Patched, Plan
from .launch import _ITEMSIZE, KernelBuilder, Launch, Position, Sink, Storage
from .loopir import INT, Expr, For, Get, If, Load, Register, Set, Stmt, Store, Var, const, splat
from .target import Target

__all__ = ["is_depthwise", "lower_depthwise", "lower_depthwise_filters"]


USUAL, OTHER = 7, 1.03
"""Outputs of a tile that most widths of images are a multiple of, and what others are charged for: one more kernel to compile."""


def is_depthwise(c: Convolution) -> bool:
    """Whether each group has one channel on both sides."""
    return c.groups > 1 and all(isinstance(n, int) and n == 1 for n in (c.inputs, c.outputs))


def lower_depthwise(c: Convolution, target: Target, **override: Any) -> list[Launch]:
    """The launches: the weights as vectors of channels, then the sums. `override` replaces fields of the plan."""
    plan = replace(_choose(c, target), **override)
    plan = replace(plan, rows=1, vectors=1, block=plan.lanes)
    pack, packed = _pack(c, plan)
    return [pack, _Depthwise(c, plan, packed).build()]


def _choose(c: Convolution, target: Target, patched: bool = False) -> Plan:
    """The plan, from sizes alone: 16 tasks where there is work enough, of whole rows as far as there are rows. With `patched`,
    rows of a vector of channels fit the first-level cache."""
    _, h, w = c.windows
    lanes = target.fewer(target.lanes(c.dtype), c.groups)
    height, width = max(1, hint(h.out)), max(1, hint(w.out))
    most = min(10, target.registers - 4 - (min(9, h.taps * w.taps) if target.registers > 16 else 3))
    cost = lambda n: -(-width // n) * n * (1 + 0.6 / n) * (1.0 if n == USUAL else OTHER)
    columns = min(range(max(1, most // 2), most + 1), key=lambda n: (cost(n), -n))
    blocks = -(-c.groups // lanes)
    wide = -(-min(width, 112) // columns) * columns
    work = max(1, hint(c.batch)) * height * width * blocks * (hint(product(x.taps for x in c.windows)) + 4)
    tasks = target.tasks if target.threads else max(1, min(16, work // 8_000 * 2))
    outer = max(1, hint(c.batch)) * max(1, hint(c.windows[0].out)) * -(-width // wide)
    high = -(-height // min(height, -(-tasks // outer)))
    if patched:
        line = c.windows[0].taps * w.reach(wide) * lanes * _ITEMSIZE[c.dtype]
        high = max([1, *(n for n in range(1, height + 1) if h.reach(n) * line <= target.l1 * 3 // 4)])
        high = -(-height // -(-height // high))
    parts = min(blocks, max(1, tasks // (outer * -(-height // high))))
    return Plan(lanes, 1, columns, 1, lanes, high, wide, parts)


def _pack(c: Convolution, plan: Plan) -> tuple[Launch, Storage]:
    """A launch that copies the weights into vectors [block of channels][tap][lane]; one task a block."""
    builder = KernelBuilder()
    taps = tuple(w.taps for w in c.windows)
    blocks = ceil_div(c.groups, plan.lanes)
    packed = Storage(c.dtype, blocks * product(taps) * plan.lanes, "packed weights")
    body: list[Stmt] = []
    first = bind(builder, body, Var("task", INT) * plan.lanes)
    name = builder.fresh("t")
    tap = digits(builder, Var(name, INT), taps)
    mask = None if c.groups % plan.lanes == 0 else lane_mask(first, plan.lanes, builder.parameter(c.groups, "groups"))
    value = c.weight(builder, first, const(0), tap, plan.lanes, mask)
    count = builder.parameter(product(taps), "taps")
    store = Store(builder.buffer(packed, "write"), (Var("task", INT) * count + Var(name, INT)) * plan.lanes, value)
    body.append(For(name, const(0), count, 1, (store,)))
    work = blocks * product(taps) * 4
    launch = builder.launch("pack_w", body, "task", blocks, work, equations=c.equations, note="pack weights")
    return launch, packed


class _Depthwise(Patched):
    """Some rows and a part of the channels; x is read where it lies."""

    def build(self) -> Launch:
        c, plan, builder = self.c, self.plan, self.builder
        count: Size = ceil_div(c.groups, plan.lanes)
        body, part, tasks = self.begin(plan.parts, 1, patched=False)
        self.sums = builder.scratch(c.dtype, plan.columns * plan.lanes)
        every, parts = builder.parameter(count), builder.parameter(plan.parts)
        first, last = (bind(builder, body, p * every // parts, "p") for p in (part, part + 1))
        self.outputs = builder.parameter(c.groups, "channels")
        block, i, j = (Var(builder.fresh(x), INT) for x in "bij")
        loop: Stmt = For(block.name, first, last, 1, tuple(self._tile(block, i, j)), apart=True)
        loop = For(j.name, const(0), self.columns, plan.columns, (loop,))
        body.append(For(i.name, const(0), self.rows, 1, (loop,)))
        return self.launch(body, tasks, f"depthwise_{plan.columns}x{plan.lanes}", plan.lanes)

    def _tile(self, block: Expr, i: Expr, j: Expr) -> list[Stmt]:
        """A vector of channels of some neighbouring outputs."""
        c, plan, builder = self.c, self.plan, self.builder
        body: list[Stmt] = []
        channel = bind(builder, body, block * plan.lanes)
        mask = None if c.groups % plan.lanes == 0 else bind(builder, body, lane_mask(channel, plan.lanes, self.outputs))
        names = [builder.fresh("s") for _ in range(plan.columns)]
        body += [Register(name, zero(self.vector)) for name in names]
        body += self._sum(names, channel, mask, i, j)
        return body + self._sink(names, channel, i, j)

    def _sum(self, names: list[str], channel: Expr, mask: Expr | None, i: Expr, j: Expr) -> list[Stmt]:
        """The sums. Taps above and below x are left out, columns beside it are zero."""
        c, plan, builder = self.c, self.plan, self.builder
        d, h, w = c.windows
        body: list[Stmt] = []
        start = bind(builder, body, (self.w0 + j) * w.stride - w.low)
        size = builder.parameter(w.size, "width")
        met = sorted({q * w.stride + t * w.step for q in range(plan.columns) for t in range(w.taps)})
        exists = {x: bind(builder, body, (start + x >= 0) & (start + x < size)) for x in met if self._beside(x)}
        heights = [bind(builder, body, x, "k") for x in h.met(self.h0 + i, 1, builder.parameter(h.size, "height"))]
        weights = bind(builder, body, channel * builder.parameter(product(self.taps), "taps", varies=True))
        kd, kh = const(0) if d is UNIT else Var(builder.fresh("k"), INT), Var(builder.fresh("k"), INT)
        row: list[Stmt] = []
        at = bind(builder, row, weights + (kd * (h.taps * w.taps) + kh * w.taps) * plan.lanes)
        buffer = builder.buffer(self.packed, "read")
        ws = [bind(builder, row, Load(buffer, at + t * plan.lanes, self.vector), "v") for t in range(w.taps)]
        depth, height = self.depth * d.stride + kd * d.step - d.low, (self.h0 + i) * h.stride + kh * h.step - h.low
        where = bind(builder, row, depth), bind(builder, row, height)
        masked = mask_registers(self.vector)
        for x in met:
            on = mask
            if masked and x in exists:
                on = splat(exists[x], plan.lanes) if mask is None else mask & splat(exists[x], plan.lanes)
            inside: list[Stmt] = []
            value = bind(builder, inside, c.read(builder, self.n, (*where, start + x), channel, plan.lanes, on), "x")
            pairs = [(q, t) for q in range(plan.columns) for t in range(w.taps) if q * w.stride + t * w.step == x]
            inside += [Set(names[q], multiply_add(value, ws[t], Get(names[q], self.vector))) for q, t in pairs]
            row += [If(exists[x], tuple(inside))] if x in exists and not masked else inside
        loop: Stmt = For(kh.name, heights[0], heights[1], 1, tuple(row))
        if isinstance(kd, Var):
            loop = For(kd.name, *d.met(self.depth, 1, builder.parameter(d.size, "depth")), 1, (loop,))
        return [*body, loop]

    def _whole(self) -> bool:
        """Whether all tiles are known to be whole."""
        return all(isinstance(n, int) and n % self.plan.columns == 0 for n in (self.c.windows[2].out, self.plan.width))

    def _beside(self, x: int) -> bool:
        """Whether column x of what a tile sees may lie beside the input: left of it in the first tile, right in the last."""
        w = self.c.windows[2]
        if not self._whole() or not isinstance(w.size, int):
            return True
        return x < w.low or (hint(w.out) - self.plan.columns) * w.stride + x - w.low >= w.size

    def _sink(self, names: list[str], channel: Expr, i: Expr, j: Expr) -> list[Stmt]:
        """Deliver the sums: from the registers, or through memory at the end of a row."""
        plan, builder = self.plan, self.builder
        limit = None if self.c.groups % plan.lanes == 0 else self.outputs
        body: list[Stmt] = []
        row, column = bind(builder, body, self.h0 + i), bind(builder, body, self.w0 + j)
        whole: list[Stmt] = []
        for q, name in enumerate(names):
            whole += self.deliver((self.depth, row, column + q), channel, limit, Get(name, self.vector))
        if self._whole():
            return body + whole
        rest: list[Stmt] = [
            Store(self.sums, const(q * plan.lanes), Get(name, self.vector)) for q, name in enumerate(names)
        ]
        at = Var(builder.fresh("j"), INT)
        store = self.deliver((self.depth, row, column + at), channel, limit, Load(self.sums, at * plan.lanes, self.vector))
        rest.append(For(at.name, const(0), self.columns - j, 1, tuple(store)))
        return [*body, If(j + plan.columns <= self.columns, tuple(whole), tuple(rest))]


def lower_depthwise_filters(c: Convolution, read_g: Any, sink: Sink, target: Target) -> list[Launch]:
    """The gradient for the filters, w[c, t] = sum over images and outputs p of g[n, p, c] * x[n, p * stride + t - low, c]; one
    task a vector of channels. Arguments as for `weight_gradient.lower_filters`."""
    plan = _choose(c, target, patched=True)
    return [_DepthwiseFilters(c, replace(plan, columns=1, block=plan.lanes, parts=1), read_g, sink).build()]


class _DepthwiseFilters(Patched):
    """A vector of channels in the patch; sums for all taps."""

    def __init__(self, c: Convolution, plan: Plan, read_g: Any, sink: Sink):
        super().__init__(c, plan, Storage(c.dtype, 0))
        self.read_g, self.sink = read_g, sink
        self.channels, self.blocks = c.groups, 1

    def build(self) -> Launch:
        c, plan, builder = self.c, self.plan, self.builder
        d, h, w = c.windows
        body: list[Stmt] = []
        self.first_channel = bind(builder, body, Var("task", INT) * plan.lanes, "c")
        self.group = const(0)
        whole = c.groups % plan.lanes == 0
        limit = builder.parameter(c.groups, "groups")
        self.mask = None if whole else bind(builder, body, lane_mask(self.first_channel, plan.lanes, limit))
        self.block_count = self.blocks_here = const(1)
        self.line = self.row = bind(builder, body, builder.parameter(self.extent[2] * plan.lanes, "line"))
        taps = product(self.taps)
        self.patch = builder.scratch(c.dtype, product(self.extent) * plan.lanes)
        self.sums = builder.scratch(c.dtype, taps * plan.lanes)
        at = Var(builder.fresh("s"), INT)
        clear = Store(self.sums, at * plan.lanes, zero(self.vector))
        body.append(For(at.name, const(0), builder.parameter(taps, "taps"), 1, (clear,)))
        n, depth, i, j = (Var(builder.fresh(x), INT) for x in "gdij")
        self.n, self.depth, self.h0, self.w0 = n, depth, i, j
        inside: list[Stmt] = []
        self.rows = bind(builder, inside, minimum(builder.parameter(plan.height), builder.parameter(h.out) - i), "row")
        self.columns = bind(builder, inside, minimum(builder.parameter(plan.width), builder.parameter(w.out) - j), "col")
        inside += self.copy() + self._add()
        loop: Stmt = For(j.name, const(0), builder.parameter(w.out, "columns out"), plan.width, tuple(inside))
        loop = For(i.name, const(0), builder.parameter(h.out, "rows out"), plan.height, (loop,))
        loop = For(depth.name, const(0), builder.parameter(d.out, "depth out"), 1, (loop,))
        body.append(For(n.name, const(0), builder.parameter(c.batch), 1, (loop,)))
        tap = Var(builder.fresh("t"), INT)
        place = (self.first_channel, const(0), *digits(builder, tap, self.sink.shape[2:]))
        position = Position(place, 0 if plan.lanes > 1 else None, plan.lanes, self.mask)
        store = self.sink.store(builder, position, Load(self.sums, tap * plan.lanes, self.vector))
        body.append(For(tap.name, const(0), builder.parameter(taps, "taps"), 1, tuple(store)))
        return self.launch(body, ceil_div(c.groups, plan.lanes), f"depthwise_{plan.lanes}", plan.lanes)

    def _add(self) -> list[Stmt]:
        """Add the products of the rows and columns at hand to the sums, a row of taps at a time."""
        c, plan, builder = self.c, self.plan, self.builder
        _, h, w = c.windows
        kd, kh, i, j = (Var(builder.fresh(x), INT) for x in "kkij")
        names = [builder.fresh("s") for _ in range(w.taps)]
        body: list[Stmt] = [Register(name, zero(self.vector)) for name in names]
        row: list[Stmt] = []
        line = bind(builder, row, (kd * self.plane + i * h.pitch + kh * h.step) * self.row)
        step: list[Stmt] = []
        where = (self.depth, self.h0 + i, self.w0 + j)
        g = bind(builder, step, self.read_g(builder, self.n, where, self.first_channel, plan.lanes, self.mask), "g")
        for t, name in enumerate(names):
            x = Load(self.patch, line + (j * w.pitch + t * w.step) * plan.lanes, self.vector)
            step.append(Set(name, multiply_add(x, g, Get(name, self.vector))))
        row.append(For(j.name, const(0), self.columns, 1, tuple(step), 2))
        body.append(For(i.name, const(0), self.rows, 1, tuple(row)))
        at = bind(builder, body, (kd * h.taps + kh) * (w.taps * plan.lanes))
        for t, name in enumerate(names):
            total = Load(self.sums, at + t * plan.lanes, self.vector) + Get(name, self.vector)
            body.append(Store(self.sums, at + t * plan.lanes, total))
        loop: Stmt = For(kh.name, const(0), const(self.taps[1]), 1, tuple(body))
        return [For(kd.name, const(0), const(self.taps[0]), 1, (loop,))]
