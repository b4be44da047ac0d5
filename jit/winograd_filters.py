"""The gradient of a 3 x 3 convolution of stride 1 for its filter by Winograd's method, with a quarter of the products or less:

    w[o, c] = G' [ sum over tiles of (A g A')[o] * (B' x B)[c] ] G       g, x: tiles of the result's gradient and the image

    task = (part of the tiles of all images, some blocks of input channels, some panels of output channels)
      for each block of tiles:
          V[position][tile][channel] = B' x B, U[position][panel][tile][output] = A g A', with zeros outside of the images
          for each position, block of channels, panel: outer products over the tiles, added to what memory holds
      the sums of 16 or 36 positions become 9 taps, which are delivered as by `weight_gradient`

The order of summation depends on sizes only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from ndarray.dims import product
from ndarray.settings import settings

from .contraction import bind, ceil_div, lane_mask, minimum, multiply_add, zero
from .direct import Convolution
from .gemm import once
from .launch import _ITEMSIZE, Launch, Sink, Storage
from .loopir import INT, Expr, For, Get, Load, Register, Set, Stmt, Store, Type, Var, apply, const, splat
from .plain import plain_sink
from .target import Target
from .weight_gradient import FilterPlan, _add_parts, _Filters
from .winograd import SPREAD, nominal, place_of, suits_winograd
from .winograd_transforms import VARIANTS, Variant, both_ways

__all__ = ["lower_winograd_filters", "winograd_filters_outputs"]


@dataclass(frozen=True)
class WinogradFilterPlan(FilterPlan):
    """As `FilterPlan`, with `tiles` tiles of `outputs` x `outputs` results at a time."""

    outputs: int = 4
    tiles: int = 8


def winograd_filters_outputs(c: Convolution, target: Target) -> int:
    """The outputs of a tile in each direction with which a filter's gradient is computed, 0 for direct summation; as
    `winograd_outputs`."""
    most = settings.winograd
    if not most or c.dtype != "float32" or c.strided or not suits_winograd(c, target):
        return 0
    h, sizes = c.windows[1], _sizes(c)
    met = replace(h, size=nominal(h.size, 32), out=sizes[1]).steps(1)
    pixels = sizes[0] * met / 3 * sizes[2] * 9
    direct = pixels * sizes[3] * -(-sizes[4] // target.lanes(c.dtype)) * 1.15 * len(SPREAD)
    best, found = 0.85 * direct, 0
    for m, variant in VARIANTS.items():
        if m <= most and (cost := _choose(variant, c.dtype, sizes, target)[0]) < best:
            best, found = cost, m
    return found


def lower_winograd_filters(
    c: Convolution, read_g: Any, sink: Sink, target: Target, outputs: int, **override: Any
) -> list[Launch]:
    """The launches, with tiles of `outputs` x `outputs`; otherwise as `lower_filters`."""
    if outputs not in VARIANTS or not suits_winograd(c, target):
        raise ValueError(f"{c.name}: tiles of {outputs} x {outputs} outputs are for 3 x 3 taps of stride 1 without groups, "
                         f"and 2 x 2 or 4 x 4; got {c}")
    plan = replace(_choose(VARIANTS[outputs], c.dtype, _sizes(c), target)[1], **override)
    if plan.parts == 1:
        return [_WinogradFilters(c, plan, read_g, sink).build()]
    partial = Storage(sink.dtype, plan.parts * product(sink.shape), "partial sums")
    goal = plain_sink(partial, (plan.parts, *sink.shape))
    return [_WinogradFilters(c, plan, read_g, goal).build(), _add_parts(partial, plan.parts, sink, target, c.equations)]


def _sizes(c: Convolution) -> tuple[int, int, int, int, int]:
    """Batch, height and width of the result, channels: nominal where they are symbols."""
    _, h, w = c.windows
    return nominal(c.batch, 1), nominal(h.out, 32), nominal(w.out, 32), int(c.inputs), int(c.outputs)


@lru_cache(1024)
def _choose(v: Variant, dtype: str, sizes: tuple[int, int, int, int, int], target: Target) -> tuple[float, WinogradFilterPlan]:
    """(cycles, the sum over `SPREAD`; the plan) that a small cost model finds cheapest."""
    batch, height, width, inputs, outputs = sizes
    lanes, item, positions = target.lanes(dtype), _ITEMSIZE[dtype], v.size**2
    total = max(1, batch * -(-height // v.outputs) * -(-width // v.outputs))
    spare = 1 if target.fma else 2
    step, block, vectors = min(
        (-(-inputs // b) * -(-outputs // (n * lanes)) * (max(b * n, 5) + 0.12 * b + 0.25 * n + 1.5), b, n)
        for n in range(1, 5) for b in range(1, 17) if b * n + n + spare <= target.registers
    )
    blocks_all, panels_all = -(-inputs // block), -(-outputs // (vectors * lanes))
    step /= blocks_all * panels_all
    best, found = float("inf"), None
    for blocks in dict.fromkeys(-(-blocks_all // k) for k in (1, 2, 3, 4, 6, 8, 12, 16, 32, 64)):
        for panels in dict.fromkeys(-(-panels_all // k) for k in (1, 2, 3, 4, 6, 8, 16, 32)):
            row = _pitch(blocks, block, lanes) + panels * vectors * lanes  # of V and U, for a position of a tile
            sums = (positions + 9) * blocks * block * panels * vectors * lanes * item
            room = (target.l2 * 7 // 8 - sums) // (positions * row * item)
            if room < 8 and (blocks > 1 or panels > 1):
                continue
            tiles = max(4, min(64, room // 4 * 4, -(-total // 4) * 4))
            for parts in (1, 2, 4, 8):
                if parts > -(-total // tiles):
                    break
                tasks = -(-blocks_all // blocks) * -(-panels_all // panels) * parts
                products = positions * blocks * panels * (step + 3.0 * block * vectors / min(tiles, total))
                transforms = _pitch(blocks, block, lanes) // lanes * v.in_cycles + panels * vectors * v.out_cycles
                cost = total / parts * (products + transforms) + sums / item / lanes * 12
                cost = sum(-(-tasks // t) * t * cost for t in SPREAD) + 2000 * tasks
                cost += 20.0 * parts * inputs * outputs * 9 / lanes if parts > 1 else 0
                if cost < best:
                    plan = WinogradFilterPlan(lanes, 1, 1, vectors, block, 1, 1, parts, panels=panels, blocks=blocks,
                                              outputs=v.outputs, tiles=tiles)
                    best, found = cost, plan
    assert found is not None
    return best, found


def _pitch(blocks: int, block: int, lanes: int) -> int:
    """Channels from one tile to the next: whole vectors."""
    return -(-blocks * block // lanes) * lanes


class _WinogradFilters(_Filters):
    """Builds the kernel."""

    plan: WinogradFilterPlan

    def build(self) -> Launch:
        c, plan, builder = self.c, self.plan, self.builder
        _, h, w = c.windows
        self.variant = VARIANTS[plan.outputs]
        positions = self.variant.size**2
        body, tasks = self.task()
        grid = builder.parameter(ceil_div(h.out, plan.outputs)), builder.parameter(ceil_div(w.out, plan.outputs))
        total = c.batch * ceil_div(h.out, plan.outputs) * ceil_div(w.out, plan.outputs)
        self.pitch = builder.parameter(_pitch(plan.blocks, plan.block, plan.lanes))
        self.tiles = builder.parameter(plan.tiles)
        self.V = builder.scratch(c.dtype, positions * plan.tiles * _pitch(plan.blocks, plan.block, plan.lanes))
        self.U = builder.scratch(c.dtype, positions * plan.tiles * plan.panels * plan.nr)
        size = positions * plan.blocks * plan.block * plan.panels * plan.nr
        self.products = builder.scratch(c.dtype, size)
        self.half = builder.scratch(c.dtype, self.variant.size**2 * plan.lanes)
        body.append(self.clear(self.products, size))
        per_part = ceil_div(ceil_div(total, plan.tiles), plan.parts) * plan.tiles
        first = bind(builder, body, self.part * builder.parameter(per_part), "g")
        last = bind(builder, body, minimum(first + builder.parameter(per_part), builder.parameter(total)), "g")
        number, t = Var(builder.fresh("b"), INT), Var(builder.fresh("t"), INT)
        inside: list[Stmt] = []
        start = bind(builder, inside, first + number * self.tiles, "t")
        self.count = bind(builder, inside, minimum(self.tiles, last - start))
        self.limit = bind(builder, inside, minimum(self.blocks_here * plan.block, self.inputs - self.first_channel))
        tile: list[Stmt] = []
        n, row, column = place_of(builder, tile, start + t, grid, plan.outputs)
        tile += once(builder, self._image(n, row, column, t)) + once(builder, self._gradient(n, row, column, t))
        inside.append(For(t.name, const(0), self.count, 1, tuple(tile)))
        inside += self._products()
        blocks = (apply("max", last - first, const(0)) + (self.tiles - 1)) // self.tiles
        body.append(For(number.name, const(0), blocks, 1, tuple(inside)))
        body += self._taps() + self._sink()
        name = f"winograd_{plan.outputs}x{plan.outputs}_{plan.block}x{plan.nr}"
        return replace(self.launch(body, tasks, name, plan.lanes * 2), work=self._work(total))

    def _work(self, total: Any) -> Any:
        c, lanes = self.c, self.plan.lanes
        return total * self.variant.size**2 * c.inputs * c.outputs // (lanes * 2) + c.inputs * c.outputs * 9 // lanes

    def _image(self, n: Expr, row: Expr, column: Expr, t: Expr) -> list[Stmt]:
        """A tile of the image, the task's channels."""
        c, plan, builder, size = self.c, self.plan, self.builder, self.variant.size
        _, h, w = c.windows
        body: list[Stmt] = []
        row, column = bind(builder, body, row - h.low, "row"), bind(builder, body, column - w.low, "col")
        height, width = builder.parameter(h.size, "height"), builder.parameter(w.size, "width")
        whole = bind(builder, body, (row >= 0) & (row + size <= height) & (column >= 0) & (column + size <= width))
        v = Var(builder.fresh("c"), INT)
        inside: list[Stmt] = []
        mask = bind(builder, inside, lane_mask(v, plan.lanes, self.limit), "q")

        def read(body: list[Stmt], i: int, j: Expr) -> Expr:
            return c.read(builder, n, (const(0), row + i, column + j), self.first_channel + v, plan.lanes, mask)

        def store(body: list[Stmt], i: Expr) -> Callable[[int, Expr], Stmt]:
            step = bind(builder, body, self.tiles * self.pitch)
            to = bind(builder, body, i * size * step + t * self.pitch + v)
            return lambda j, value: Store(self.V, to + step * j, value)

        exists = (lambda i: (row + i >= 0) & (row + i < height), lambda j: (column + j >= 0) & (column + j < width))
        inside += both_ways(builder, self.half, self.variant.input, size, size, read, store, whole, exists)
        return [*body, For(v.name, const(0), self.limit, plan.lanes, tuple(inside))]

    def _gradient(self, n: Expr, row: Expr, column: Expr, t: Expr) -> list[Stmt]:
        """A tile of the result's gradient, the task's panels."""
        c, plan, builder, size = self.c, self.plan, self.builder, self.variant.size
        _, h, w = c.windows
        m = plan.outputs
        body: list[Stmt] = []
        height, width = builder.parameter(h.out, "rows"), builder.parameter(w.out, "columns")
        whole = bind(builder, body, (row + m <= height) & (column + m <= width))
        panel, v = Var(builder.fresh("p"), INT), Var(builder.fresh("v"), INT)
        inside: list[Stmt] = []
        wide = builder.parameter(plan.nr)
        output = bind(builder, inside, (self.first_panel + panel) * wide + v)
        mask = None
        if c.outputs % plan.nr:
            mask = bind(builder, inside, lane_mask(output, plan.lanes, self.outputs), "q")

        def read(body: list[Stmt], i: int, j: Expr) -> Expr:
            return self.read_g(builder, n, (const(0), row + i, column + j), output, plan.lanes, mask)

        def store(body: list[Stmt], i: Expr) -> Callable[[int, Expr], Stmt]:
            step = bind(builder, body, self.panel_count * self.tiles * wide)
            to = bind(builder, body, i * size * step + (panel * self.tiles + t) * wide + v)
            return lambda j, value: Store(self.U, to + step * j, value)

        exists = (lambda i: row + i < height, lambda j: column + j < width)
        inside += both_ways(builder, self.half, self.variant.gradient, m, size, read, store, whole, exists)
        loop = For(v.name, const(0), wide, plan.lanes, tuple(inside))
        return [*body, For(panel.name, const(0), self.panels_here, 1, (loop,))]

    def _place(self, position: Expr, block: Expr, panel: Expr) -> Expr:
        """Where the sums of a position lie."""
        return ((position * self.block_count + block) * self.panel_count + panel) * (self.plan.block * self.plan.nr)

    def _products(self) -> list[Stmt]:
        """Outer products over the tiles, added to the sums."""
        c, plan, builder = self.c, self.plan, self.builder
        position, block, panel, t = (Var(builder.fresh(x), INT) for x in "qbpt")
        names = [[builder.fresh("s") for _ in range(plan.vectors)] for _ in range(plan.block)]
        every = [(k * plan.nr + v * plan.lanes, name) for k, line in enumerate(names) for v, name in enumerate(line)]
        body: list[Stmt] = [Register(name, zero(self.vector)) for _, name in every]
        a = bind(builder, body, position * self.tiles * self.pitch + block * plan.block)
        b = bind(builder, body, (position * self.panel_count + panel) * self.tiles * plan.nr)
        step: list[Stmt] = []
        at = bind(builder, step, b + t * plan.nr)
        gs = [bind(builder, step, Load(self.U, at + v * plan.lanes, self.vector), "v") for v in range(plan.vectors)]
        x = bind(builder, step, a + t * self.pitch)
        for k, line in enumerate(names):
            left = bind(builder, step, splat(Load(self.V, x + k, Type(c.dtype)), plan.lanes), "a")
            step += [Set(name, multiply_add(left, g, Get(name, self.vector))) for name, g in zip(line, gs)]
        body.append(For(t.name, const(0), self.count, 1, tuple(step), 1 if len(every) > 12 else 2))
        slot = bind(builder, body, self._place(position, block, panel))
        for offset, name in every:
            total = Load(self.products, slot + offset, self.vector) + Get(name, self.vector)
            body.append(Store(self.products, slot + offset, total))
        loop: Stmt = For(panel.name, const(0), self.panels_here, 1, tuple(body))
        loop = For(block.name, const(0), self.blocks_here, 1, (loop,))
        return [For(position.name, const(0), const(self.variant.size**2), 1, (loop,), apart=True)]

    def _taps(self) -> list[Stmt]:
        """The sums of all positions as those of the taps."""
        plan, builder, size = self.plan, self.builder, self.variant.size
        block, panel, k, v = (Var(builder.fresh(x), INT) for x in "bpcv")

        def read(body: list[Stmt], i: int, j: Expr) -> Expr:
            place = self._place(j + i * size, block, panel)
            return Load(self.products, place + k * plan.nr + v * plan.lanes, self.vector)

        def store(body: list[Stmt], i: Expr) -> Callable[[int, Expr], Stmt]:
            def put(j: int, value: Expr) -> Stmt:
                return Store(self.sums, self._slot((const(0), i, const(j)), block, panel) + k * plan.nr + v * plan.lanes, value)

            return put

        body = both_ways(builder, self.half, self.variant.taps, size, 3, read, store)
        loop: Stmt = For(v.name, const(0), const(plan.vectors), 1, tuple(body))
        loop = For(k.name, const(0), const(plan.block), 1, (loop,))
        loop = For(panel.name, const(0), self.panels_here, 1, (loop,))
        return [For(block.name, const(0), self.blocks_here, 1, (loop,), apart=True)]
