"""Convolutions of 3 x 3 taps and stride 1 by Winograd's method: tiles of 2 x 2 or 4 x 4 outputs from 16 or 36 products a
channel, where direct summation takes 36 or 144.

    Y = A' [ sum over channels of (G g G') * (B' d B) ] A        d: a tile of the image, g: a filter, *: element by element

    before: U[panel of outputs][position][channel][output] = G g G', a launch that depends on the weights only
    task = (block of panels, block of tiles, which lie one behind the other over all images)
      for each tile, for each vector of channels: V[position][block of channels][tile][channel of the block] = B' d B,
          with zeros where the tile reaches over the image
      for each panel of outputs:
          for each position: M[tile][position][output] = V[position] U[panel][position], sums in registers
          for each tile: A' M A through the sink

V and M are private memory that fits the second-level cache; transforms go through a tile's worth of memory, a row or a
column of vectors at a time, so their code is small. The order of summation depends on sizes only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from ndarray.dims import Size
from ndarray.settings import settings

from .contraction import bind, ceil_div, lane_mask, mask_registers, minimum, multiply_add, zero
from .direct import UNIT, Convolution
from .gemm import once
from .launch import _ITEMSIZE, KernelBuilder, Launch, Storage
from .loopir import INT, Expr, For, Get, If, Load, Register, Set, Stmt, Store, Type, Var, const, splat
from .target import Target
from .winograd_transforms import VARIANTS, Variant, both_ways

__all__ = ["SPREAD", "lower_winograd", "nominal", "place_of", "suits_winograd", "winograd_outputs"]


# -- when, and how


def suits_winograd(c: Convolution, target: Target) -> bool:
    """Whether the method computes it at all: two axes with 3 taps and stride 1, one group; on a CPU."""
    d, h, w = c.windows
    plain = all((x.taps, x.stride, x.step) == (3, 1, 1) for x in (h, w)) and d is UNIT
    fixed = all(isinstance(n, int) and n > 0 for n in (c.inputs, c.outputs))
    return plain and fixed and c.groups == 1 and c.dtype.startswith("float") and not target.threads


def winograd_outputs(c: Convolution, target: Target) -> int:
    """The outputs of a tile in each direction with which a convolution is computed, 0 for direct summation.

    HYBRID_WINOGRAD is the largest that may be used. What is cheapest by a cost model depends on the static sizes only:
    those that are not known when the kernel is made do not matter, so that each call gives the same bits.
    """
    most = settings.winograd
    if not most or c.dtype != "float32" or c.strided or not suits_winograd(c, target):
        return 0
    h, sizes = c.windows[1], _sizes(c)
    met = replace(h, size=nominal(h.size, 32), out=sizes.height).steps(1)
    best, found = 0.9 * _direct_cost(sizes, met, target), 0
    for m, variant in VARIANTS.items():
        if m <= most:
            cost, plan = _choose(variant, sizes, target)
            if c.allowance is None or not c.allowance.fits(_filters_size(c, plan) * _ITEMSIZE[c.dtype]):
                cost += _filter_cost(variant, sizes, target)
            if cost < best:
                best, found = cost, m
    return found


@dataclass(frozen=True)
class Plan:
    """Tiles of `outputs` x `outputs` results; products of `rows` tiles and `vectors` vectors of `lanes` outputs in registers; a
    task has `tiles` tiles and `panels` panels of outputs; channels lie in blocks of `block`."""

    outputs: int
    lanes: int
    rows: int
    vectors: int
    block: int
    tiles: int
    panels: int

    @property
    def nr(self) -> int:
        return self.vectors * self.lanes


@dataclass(frozen=True)
class _Sizes:
    """What decides: nominal sizes where they are symbols."""

    dtype: str
    batch: int
    height: int
    width: int
    inputs: int
    outputs: int


def nominal(size: Size, otherwise: int) -> int:
    return size if isinstance(size, int) else otherwise


def _sizes(c: Convolution) -> _Sizes:
    _, h, w = c.windows
    return _Sizes(c.dtype, nominal(c.batch, 1), nominal(h.out, 32), nominal(w.out, 32), int(c.inputs), int(c.outputs))


SPREAD = (1, 2, 4, 8)
"""Numbers of threads of which a cost is the sum, each time the number of threads."""

BEYOND, STREAM = 12.0, 6.0
"""Bytes a cycle of what does not fit the second-level cache, and of weights that don't fit the third, beside other layers'."""


OTHER_TILE = 1.05
"""What other tiles than the usual one are charged for: one more kernel to compile."""


def _streamed(cycles: float, size: float, whole: float, target: Target) -> float:
    """Cycles of products, beside reading `size` bytes of the weights, which are `whole` bytes."""
    traffic = size / (BEYOND if whole <= target.l3 else STREAM) if whole > target.l2 // 2 else 0.0
    return max(cycles, traffic) + 0.15 * min(cycles, traffic)


def _direct_cost(s: _Sizes, met: int, target: Target) -> float:
    """Cycles of direct summation over the rows of taps that are `met`, the sum over `SPREAD`."""
    lanes = target.lanes(s.dtype)
    across = -(-s.outputs // lanes)
    products = s.batch * met * s.width * 3 * s.inputs * across * 1.08
    cycles = products + s.batch * s.height * s.width * (s.inputs / lanes + 3 * across)
    weights = 9 * s.inputs * s.outputs * _ITEMSIZE[s.dtype]
    return len(SPREAD) * _streamed(cycles, weights, weights, target)


def _filter_cost(v: Variant, s: _Sizes, target: Target) -> float:
    """Cycles of the transform of the weights, the sum over `SPREAD`."""
    vectors = s.inputs * -(-s.outputs // target.lanes(s.dtype))
    return len(SPREAD) * vectors * (9 * 30 + v.size**2 * 6)


@lru_cache(1024)
def _choose(v: Variant, s: _Sizes, target: Target) -> tuple[float, Plan]:
    """(cycles, the sum over `SPREAD`; the plan) that a small cost model finds cheapest."""
    lanes = target.lanes(s.dtype)
    item = _ITEMSIZE[s.dtype]
    block = lanes if s.inputs <= lanes else max(lanes, 16)
    blocks = -(-s.inputs // block)
    depth, positions = blocks * block, v.size**2
    total = max(1, s.batch * -(-s.height // v.outputs) * -(-s.width // v.outputs))
    vectors_in, vectors_out = depth // lanes, -(-s.outputs // lanes)
    best, found = float("inf"), None
    usual, *others = _tiles(total, vectors_out, target)
    for rows, vectors in dict.fromkeys((usual, *others)):
        panels = -(-vectors_out // vectors)
        tile = depth * (max(rows * vectors, 5) + 0.12 * rows + 0.25 * vectors + 0.7) + 3 * rows * vectors + 25
        weights = positions * depth * vectors * lanes * item  # of one panel
        for count in dict.fromkeys((1, 2, 3, 4, 6, 8, 12, 16, -(-total // rows))):
            tiles = rows * count
            if tiles >= total + rows:
                continue
            private = positions * tiles * item * (depth + vectors * lanes)
            if private > 4 * target.l2 and count > 1:
                continue
            beyond = positions * tiles * depth * item / BEYOND if private > target.l2 * 3 // 4 else 0.0
            transform = tiles * vectors_in * v.in_cycles
            for parts in (1, 2, 4, 8, 16):
                if parts > panels:
                    break
                per = -(-panels // parts)
                tasks = -(-total // tiles) * -(-panels // per)
                products = _streamed(per * positions * count * tile, per * weights, panels * weights, target)
                cost = 400 + transform + products + per * (beyond + tiles * vectors * v.out_cycles)
                cost = sum(-(-tasks // t) * cost * t for t in SPREAD) + 2000 * tasks
                cost *= 1.0 if (rows, vectors) == usual else OTHER_TILE
                if cost < best:
                    best, found = cost, Plan(v.outputs, lanes, rows, vectors, block, tiles, per)
    assert found is not None
    return best, found


def _tiles(total: int, across: int, target: Target) -> list[tuple[int, int]]:
    """Rows and vectors of register tiles worth trying: two vectors and as many rows as there are registers for, which layers
    had better share (their kernels are equal then), and for each number of vectors the one that wastes least."""
    spare = 1 if target.fma else 2
    both = min(2, across)
    found = [(min(28, (target.registers - both - spare) // both), both)]
    for vectors in range(1, min(6, across) + 1):
        step = lambda rows, vectors=vectors: max(rows * vectors, 5) + 0.12 * rows + 0.25 * vectors + 0.7
        most = min(28, (target.registers - vectors - spare) // vectors)
        rows = min(range(1, most + 1), key=lambda r: -(-total // r) * step(r))
        found.append((rows, vectors))
    return found


def lower_winograd(c: Convolution, target: Target, outputs: int, **override: Any) -> list[Launch]:
    """The launches: the weights' transform, then the convolution, with tiles of `outputs` x `outputs`. `override` replaces
    fields of the plan."""
    if outputs not in VARIANTS or not suits_winograd(c, target):
        raise ValueError(f"{c.name}: tiles of {outputs} x {outputs} outputs are for 3 x 3 taps of stride 1 without groups, "
                         f"and 2 x 2 or 4 x 4; got {c}")
    plan = replace(_choose(VARIANTS[outputs], _sizes(c), target)[1], **override)
    plan = replace(plan, tiles=-(-plan.tiles // plan.rows) * plan.rows)
    filters, transformed = _filters(c, plan)
    return [filters, _Winograd(c, plan, transformed).build()]


# -- the weights


def _filters_size(c: Convolution, plan: Plan) -> int:
    """Elements of the transformed weights."""
    return (plan.outputs + 2) ** 2 * -(-int(c.inputs) // plan.block) * plan.block * -(-int(c.outputs) // plan.nr) * plan.nr


def _filters(c: Convolution, plan: Plan) -> tuple[Launch, Storage]:
    """A launch that transforms the weights into panels [panel][position][channel][output], zero where there is none; one task a
    block of channels of a panel."""
    builder, variant = KernelBuilder(), VARIANTS[plan.outputs]
    size = variant.size
    panels, blocks = ceil_div(c.outputs, plan.nr), ceil_div(c.inputs, plan.block)
    storage = Storage(c.dtype, _filters_size(c, plan), "transformed weights")
    if c.allowance is not None:
        c.allowance.admit(storage)
    half = builder.scratch(c.dtype, size * 3 * plan.lanes)
    body: list[Stmt] = []
    count = builder.parameter(blocks)  # parameters of their own, also where some are equal: one kernel for all filters
    panel, block = bind(builder, body, Var("task", INT) // count), bind(builder, body, Var("task", INT) % count)
    channel, v = (Var(builder.fresh(x), INT) for x in "cv")
    wide = builder.parameter(plan.nr)
    at = bind(builder, body, block * plan.block)
    depth = bind(builder, body, count * plan.block)
    inputs, outputs = builder.parameter(c.inputs), builder.parameter(c.outputs)
    inside: list[Stmt] = []
    first = bind(builder, inside, panel * wide + v)
    mask: Expr | None = lane_mask(first, plan.lanes, outputs) if c.outputs % plan.nr else None
    if c.inputs % plan.block:
        exists = splat(at + channel < inputs, plan.lanes)
        mask = exists if mask is None else mask & exists
    if mask is not None:
        mask = bind(builder, inside, mask, "q")

    def read(body: list[Stmt], i: int, j: Expr) -> Expr:
        return c.weight(builder, first, at + channel, (const(0), const(i), j), plan.lanes, mask)

    def store(body: list[Stmt], i: Expr) -> Callable[[int, Expr], Stmt]:
        place = bind(builder, body, ((panel * (size * size) + i * size) * depth + (at + channel)) * wide + v)
        step = bind(builder, body, depth * wide)
        return lambda j, value: Store(buffer, place + step * j, value)

    buffer = builder.buffer(storage, "write")
    inside += both_ways(builder, half, variant.filter, 3, size, read, store)
    loop: Stmt = For(v.name, const(0), wide, plan.lanes, tuple(inside))
    body.append(For(channel.name, const(0), const(plan.block), 1, (loop,)))
    launch = builder.launch("winograd_filters", body, "task", panels * blocks, storage.size // 2, equations=c.equations,
                            note="pack weights")
    return launch, storage


# -- the kernel


def place_of(
    builder: KernelBuilder, body: list[Stmt], number: Expr, grid: tuple[Expr, Expr], outputs: Expr | int
) -> tuple[Expr, Expr, Expr]:
    """(image, first row, first column) of the results of a tile, by its number among those of all images."""
    high, wide = grid
    at = bind(builder, body, number)
    lines = bind(builder, body, at // wide)
    n = bind(builder, body, lines // high, "q")
    return n, bind(builder, body, lines % high * outputs, "row"), bind(builder, body, at % wide * outputs, "col")


class _Winograd:
    """Builds the kernel of one convolution."""

    def __init__(self, c: Convolution, plan: Plan, weights: Storage):
        self.c, self.plan, self.weights = c, plan, weights
        self.variant = VARIANTS[plan.outputs]
        self.builder = KernelBuilder()
        self.vector = Type(c.dtype, plan.lanes)

    def build(self) -> Launch:
        c, plan, builder = self.c, self.plan, self.builder
        _, h, w = c.windows
        size, positions = self.variant.size, self.variant.size**2
        panels, blocks = ceil_div(c.outputs, plan.nr), ceil_div(c.inputs, plan.block)
        high, wide = ceil_div(h.out, plan.outputs), ceil_div(w.out, plan.outputs)
        total = c.batch * high * wide
        body: list[Stmt] = []
        self.blocks, self.grid = builder.parameter(blocks, "blocks"), (builder.parameter(high), builder.parameter(wide))
        tiles = builder.parameter(plan.tiles)
        count = builder.parameter(ceil_div(total, plan.tiles))
        part = bind(builder, body, Var("task", INT) // count)
        self.first = bind(builder, body, Var("task", INT) % count * tiles, "t")
        self.count = bind(builder, body, minimum(tiles, builder.parameter(total) - self.first), "t")
        line = plan.tiles * plan.block  # of a block of channels
        self.line = builder.parameter(line, "line")
        self.place = bind(builder, body, self.line * self.blocks + plan.block)  # of a position; more, for the caches' sets
        self.V = builder.scratch(c.dtype, positions * (line * blocks + plan.block))
        self.M = builder.scratch(c.dtype, positions * plan.tiles * plan.nr)
        self.half = builder.scratch(c.dtype, size * size * plan.lanes)
        self.results = builder.scratch(c.dtype, plan.outputs**2 * plan.nr)
        t, panel = Var(builder.fresh("t"), INT), Var(builder.fresh("p"), INT)
        body.append(For(t.name, const(0), self.count, 1, tuple(self._transform(t)), apart=True))
        first = bind(builder, body, part * builder.parameter(plan.panels))
        last = bind(builder, body, minimum(first + builder.parameter(plan.panels), builder.parameter(panels, "panels")))
        inside = self._products(panel)
        inside.append(For(t.name, const(0), self.count, 1, tuple(self._results(t, panel))))
        body.append(For(panel.name, first, last, 1, tuple(inside)))
        tasks = ceil_div(total, plan.tiles) * ceil_div(panels, plan.panels)
        macs = total * positions * c.inputs * c.outputs
        moved = total * (c.inputs * int(self.variant.in_cycles) + c.outputs * int(self.variant.out_cycles))
        m = plan.outputs
        return builder.launch(f"{c.name}_winograd_{m}x{m}_{plan.rows}x{plan.nr}", body, "task", tasks,
                              macs // (plan.lanes * 3) + moved // (plan.lanes * 3), equations=c.equations, note=f"{plan}")

    def _transform(self, t: Expr) -> list[Stmt]:
        """A tile of the image, all channels."""
        c, plan, builder, size = self.c, self.plan, self.builder, self.variant.size
        _, h, w = c.windows
        body: list[Stmt] = []
        n, row, column = place_of(builder, body, self.first + t, self.grid, plan.outputs)
        row, column = bind(builder, body, row - h.low, "row"), bind(builder, body, column - w.low, "col")
        height, width = builder.parameter(h.size, "height"), builder.parameter(w.size, "width")
        whole = bind(builder, body, (row >= 0) & (row + size <= height) & (column >= 0) & (column + size <= width))
        block = Var(builder.fresh("b"), INT)
        inside: list[Stmt] = []
        v = Var(builder.fresh("v"), INT)
        channel = bind(builder, inside, block * plan.block + v)
        mask: Expr | None = None
        if c.inputs % plan.block:
            mask = bind(builder, inside, lane_mask(channel, plan.lanes, builder.parameter(c.inputs, "inputs")), "q")

        def read(body: list[Stmt], i: int, j: Expr) -> Expr:
            return c.read(builder, n, (const(0), row + i, column + j), channel, plan.lanes, mask)

        def store(body: list[Stmt], i: Expr) -> Callable[[int, Expr], Stmt]:
            to = bind(builder, body, i * size * self.place + block * self.line + t * plan.block + v)
            return lambda j, value: Store(self.V, to + self.place * j, value)

        exists = (lambda i: (row + i >= 0) & (row + i < height), lambda j: (column + j >= 0) & (column + j < width))
        inside += both_ways(builder, self.half, self.variant.input, size, size, read, store, whole, exists)
        loop = For(v.name, const(0), const(plan.block), plan.lanes, tuple(inside))
        body.append(For(block.name, const(0), self.blocks, 1, (loop,)))
        return body

    def _products(self, panel: Expr) -> list[Stmt]:
        """The sums over channels for all positions and tiles."""
        plan, builder = self.plan, self.builder
        positions = builder.parameter(self.variant.size**2)  # tiles of both sizes have one function
        position, t, k = (Var(builder.fresh(x), INT) for x in "qtc")
        body: list[Stmt] = []
        weights = bind(builder, body, (panel * positions + position) * self.blocks * (plan.block * plan.nr))
        names = [[builder.fresh("s") for _ in range(plan.vectors)] for _ in range(plan.rows)]
        every = [(r, v, name) for r, line in enumerate(names) for v, name in enumerate(line)]
        tile: list[Stmt] = [Register(name, zero(self.vector)) for _, _, name in every]
        start = bind(builder, tile, position * self.place + t * plan.block)
        buffer = builder.buffer(self.weights, "read")
        step: list[Stmt] = []
        a = bind(builder, step, start + k // plan.block * self.line + k % plan.block)
        right = bind(builder, step, weights + k * plan.nr)
        ws = [bind(builder, step, Load(buffer, right + v * plan.lanes, self.vector), "v") for v in range(plan.vectors)]
        for r, line in enumerate(names):
            left = bind(builder, step, splat(Load(self.V, a + r * plan.block, Type(self.c.dtype)), plan.lanes), "a")
            step += [Set(name, multiply_add(left, x, Get(name, self.vector))) for name, x in zip(line, ws)]
        tile.append(For(k.name, const(0), self.blocks * plan.block, 1, tuple(step)))
        to = bind(builder, tile, (t * positions + position) * plan.nr)
        tile += [
            Store(self.M, to + positions * (r * plan.nr) + v * plan.lanes, Get(name, self.vector)) for r, v, name in every
        ]
        body.append(For(t.name, const(0), self.count, plan.rows, tuple(tile)))
        return [For(position.name, const(0), positions, 1, tuple(body), apart=True)]

    def _results(self, t: Expr, panel: Expr) -> list[Stmt]:
        """A tile of a panel of outputs, through the sink."""
        c, plan, builder, size = self.c, self.plan, self.builder, self.variant.size
        _, h, w = c.windows
        m = plan.outputs
        v, i, j = (Var(builder.fresh(x), INT) for x in "vij")
        body: list[Stmt] = []
        start = bind(builder, body, t * (size * size * plan.nr))

        def read(body: list[Stmt], i: int, j: Expr) -> Expr:
            return Load(self.M, start + (j + i * size) * plan.nr + v * plan.lanes, self.vector)

        def store(body: list[Stmt], i: Expr) -> Callable[[int, Expr], Stmt]:
            return lambda j, value: Store(self.results, (i * m + j) * plan.nr + v * plan.lanes, value)

        passes = both_ways(builder, self.half, self.variant.output, size, m, read, store)
        body.append(For(v.name, const(0), const(plan.vectors), 1, tuple(passes), apart=True))
        sink: list[Stmt] = []
        side = builder.parameter(m)  # of a tile: both have one sink
        n, row, column = place_of(builder, sink, self.first + t, self.grid, side)
        output = bind(builder, sink, panel * plan.nr)
        inside: list[Stmt] = []
        where = (const(0), bind(builder, inside, row + i), bind(builder, inside, column + j))
        pixel = bind(builder, inside, (i * side + j) * plan.nr)
        for k in range(0, plan.nr, plan.lanes):
            inside += self._deliver(n, where, output + k, Load(self.results, pixel + k, self.vector))
        loop: Stmt = For(j.name, const(0), minimum(side, builder.parameter(w.out, "columns") - column), 1, tuple(inside))
        sink.append(For(i.name, const(0), minimum(side, builder.parameter(h.out, "rows") - row), 1, (loop,)))
        return body + once(builder, sink)

    def _deliver(self, n: Expr, at: tuple[Expr, ...], output: Expr, value: Expr) -> list[Stmt]:
        c, lanes, builder = self.c, self.plan.lanes, self.builder
        if c.outputs % self.plan.nr == 0:
            return c.deliver(builder, n, at, output, lanes, None, value)
        limit = builder.parameter(c.outputs, "outputs")
        masked = c.deliver(builder, n, at, output, lanes, lane_mask(output, lanes, limit), value)
        if mask_registers(self.vector):
            return masked
        store = c.deliver(builder, n, at, output, lanes, None, value)
        return [If(output + lanes <= limit, tuple(store), (If(output < limit, tuple(masked)),))]
