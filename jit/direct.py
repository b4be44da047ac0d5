"""Convolutions over channels-last arrays: sums over taps and channels, with vectors along the output channels.

    out[n, p, o] = sum over taps t, channels c of x[n, p * stride + t * step - low, c] * w[o, c, t]      (0 outside of x)

    task = (part of the output channels, image, group, plane, block of rows, block of columns)
      copy the positions of x that its outputs see into private memory, with zeros where there are none: the patch,
          [tap of the depth][row][block of channels][column][channel of the block]
      for each panel of output channels, for each tile of rows x columns:
          sums in registers += outer products over taps and channels: values of the patch are broadcast, the weights lie
          packed in that order; the pitch of the pixels is a constant, so that one address serves a row of them
          the sink

So padding, strides and whatever is fused into x cost one pass over a patch that fits the second-level cache, and the
inner loop knows nothing of them. Rows of taps that a tile meets above or below the image only are left out. The order of
summation depends on sizes only. Sizes are parameters of the kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from ndarray.dims import Size, product

from .contraction import Digits, bind, ceil_div, hint, lane_mask, mask_registers, minimum, multiply_add, zero
from .gemm import once, out_of_loop
from .launch import _ITEMSIZE, KernelBuilder, Launch, Storage
from .loopir import (
    INT,
    Expr,
    For,
    Get,
    If,
    Let,
    Load,
    Prefetch,
    Register,
    Set,
    Stmt,
    Store,
    Type,
    Var,
    apply,
    const,
    splat,
    walk_exprs,
)
from .target import Target

__all__ = ["UNIT", "Convolution", "Direct", "Patched", "Plan", "Window", "is_planar", "lower_direct", "pack_weights"]


FEW = 8
"""So many channels that lie apart are copied one by one, or a row of each."""


@dataclass(frozen=True)
class Window:
    """How the outputs of one axis see the input: output p meets positions ``p * stride + t * step - low`` for t < taps."""

    size: Size
    out: Size
    taps: int = 1
    stride: int = 1
    step: int = 1
    low: int = 0

    def compact(self) -> bool:
        """Whether only the positions that an output meets are copied: there is one for each."""
        return self.taps <= 1

    def reach(self, count: int) -> int:
        """How many rows of a patch `count` outputs see."""
        return count if self.compact() else (count - 1) * self.stride + (self.taps - 1) * self.step + 1

    @property
    def pitch(self) -> int:
        """The distance of two outputs in a patch."""
        return 1 if self.compact() else self.stride


    def met(self, first: Expr, count: int, size: Expr) -> tuple[Expr, Expr]:
        """(start, stop) of the taps of which some of the outputs first .. first+count-1 meets the input."""
        at = first * self.stride - self.low
        start = steps_up(const(-(count - 1) * self.stride) - at, self.step)
        return start, minimum(steps_up(size - at, self.step), const(self.taps))

    def steps(self, count: int) -> int:
        """How many taps tiles of `count` outputs meet, all tiles together, as `met` counts them."""
        size, total = hint(self.size), 0
        for first in range(0, hint(self.out), count):
            at = first * self.stride - self.low
            stop = min(-(-(size - at) // self.step), self.taps)
            total += max(0, stop - max(0, -((at + (count - 1) * self.stride) // self.step)))
        return total


def steps_up(distance: Expr, step: int) -> Expr:
    """How many steps it takes to come as far, or further; none backwards."""
    return apply("max", distance + (step - 1), const(0)) // step


UNIT = Window(1, 1)


@dataclass(frozen=True)
class Convolution:
    """The problem.

    windows  of depth, rows and columns (`UNIT` where the array has fewer axes)
    inputs, outputs   channels of one group
    read     (builder, n, position, channel, lanes, mask) -> `lanes` values of x at consecutive channels
    weight   (builder, output, channel, tap, lanes, mask) -> `lanes` weights of consecutive outputs; both count all groups'
             outputs, and the channels of one group
    deliver  (builder, n, position, output, lanes, mask, value) -> statements that store results of consecutive outputs
    read_row (builder, n, position, channel, lanes, mask) -> `lanes` values of x at consecutive columns, where these lie one
             behind the other
    strided  the channels of x lie apart in memory
    allowance   says whether a larger form of the weights may be kept between calls (`hoist.Allowance`); None: they change
    """

    dtype: str
    batch: Size
    groups: int
    inputs: Size
    outputs: Size
    windows: tuple[Window, Window, Window]
    read: Callable[[KernelBuilder, Expr, Digits, Expr, int, Expr | None], Expr]
    weight: Any = None
    deliver: Any = None
    read_row: Any = None
    strided: bool = False
    allowance: Any = None
    name: str = "convolution"
    equations: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Plan:
    """Tiles of `rows` x `columns` pixels and `vectors` vectors of `lanes` outputs in registers; a task has `height` x `width`
    pixels and one of `parts` parts of the panels of outputs, `together` of which follow one another for each tile; the patch
    holds channels in blocks of `block`; `planar`: of one, and is copied row by row."""

    lanes: int
    rows: int
    columns: int
    vectors: int
    block: int
    height: int
    width: int
    parts: int = 1
    together: int = 1
    planar: bool = False

    @property
    def nr(self) -> int:
        return self.vectors * self.lanes


def lower_direct(c: Convolution, target: Target, rank: int = 0, **override: Any) -> list[Launch]:
    """The launches: the weights are packed, then the products are summed. `rank` is the place of the tile among those that the
    cost model likes best; `override` replaces fields of the plan."""
    plan = replace(choose(c, target, rank), **override)
    pack, packed = pack_weights(c, plan)
    return [pack, Direct(c, plan, packed, not target.threads).build()]


# -- the schedule


def choose(c: Convolution, target: Target, rank: int = 0) -> Plan:
    """The plan that a small cost model finds cheapest, from sizes alone; with the tile of another `rank`."""
    outputs, inputs = max(1, hint(c.outputs)), max(1, hint(c.inputs))
    _, h, w = c.windows
    height, width = max(1, hint(h.out)), max(1, hint(w.out))
    lanes = target.fewer(target.lanes(c.dtype), outputs)
    blocks = inputs if is_planar(c, target) else -(-inputs // (lanes if target.threads else 16))
    block = -(-inputs // blocks)
    depth = inputs * c.windows[0].taps * w.taps
    choices = [lanes]
    if target.halves and lanes == target.lanes(c.dtype) > 4 and 0 < outputs % lanes <= lanes // 2:
        choices.append(lanes // 2)
    rows, columns, vectors, lanes = _tile(h, width, outputs, depth, choices, target, rank)
    panels = -(-outputs // (vectors * lanes))
    step = rows * columns * vectors * (0.5 if lanes < choices[0] else 1) + 0.1 * (rows * columns + vectors)
    tile = step * depth * h.steps(rows) / -(-height // rows) + 8 * rows * columns * vectors + 40
    outer = max(1, hint(c.batch)) * c.groups * max(1, hint(c.windows[0].out))
    if target.threads:  # a task is a tile of pixels, with fewer panels where there are few
        per = max(1, min(panels, panels * outer * -(-height // rows) * -(-width // columns) // target.tasks))
        return Plan(lanes, rows, columns, vectors, block, rows, columns, per)
    best, found = float("inf"), None
    most = target.l2 // (16 if all(x.compact() for x in c.windows) else 4)  # what one tap sees is copied where it is worked on
    for wide in dict.fromkeys((width, *(x for x in (112, 56, 28, 14) if x < width))):
        wide = -(-wide // columns) * columns
        for high in dict.fromkeys(-(-height // k) for k in (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 28, 56, 112)):
            high = -(-high // rows) * rows
            patch = c.windows[0].taps * h.reach(high) * (w.reach(wide)) * blocks * block
            if patch * _ITEMSIZE[c.dtype] > most and not (high == rows and wide == columns):
                continue
            copies = patch / lanes * 1.5 + 200
            tiles = (high // rows) * (wide // columns)
            blocks_here = outer * -(-height // high) * -(-width // wide)  # tasks of one part
            for parts in dict.fromkeys(min(p, panels) for p in (1, 2, 4, 8, 16, panels)):
                least = 4 * blocks_here * (parts * copies + panels * tiles * tile) * 0.999  # all threads have as much to do
                if least + 300 * blocks_here * parts >= best:
                    continue
                total = sum(_slowest(panels, parts, blocks_here, copies, tiles * tile, t) * t for t in (1, 2, 4, 8))
                total += 300 * blocks_here * parts
                if total < best:
                    best, found = total, Plan(lanes, rows, columns, vectors, block, high, wide, parts)
    if found is None:
        found = Plan(lanes, rows, columns, vectors, block, rows, columns, 1)
    weights = blocks * block * c.windows[0].taps * h.taps * w.taps * found.nr * _ITEMSIZE[c.dtype]  # bytes of a panel
    panels = -(-panels // found.parts)
    runs = -(-panels // max(1, target.l2 // 4 // max(1, weights)))
    return replace(found, together=-(-panels // runs), planar=is_planar(c, target))


def is_planar(c: Convolution, target: Target) -> bool:
    """Whether each channel is a block of the patch, so that rows of an image with few of them are copied as they lie."""
    rows = c.read_row is not None and (c.windows[2].stride == 1 or not c.windows[2].compact())
    return rows and target.shuffles and isinstance(c.inputs, int) and c.inputs <= FEW


def _slowest(panels: int, parts: int, tasks: int, copies: float, tile: float, threads: int) -> float:
    """The cost of the thread with most to do: each has as many tasks as the others, one part's after the other's, `tasks` of
    a part. A task costs its `copies`, and `tile` for each of its panels."""

    def before(number: int) -> float:
        part, rest = divmod(number, tasks)
        first, last = part * panels // parts, (part + 1) * panels // parts
        return number * copies + (tasks * first + rest * (last - first)) * tile

    count = tasks * parts
    ends = [before(count * t // threads) for t in range(threads + 1)]
    return max(b - a for a, b in pairwise(ends))


def _tile(
    h: Window, width: int, outputs: int, depth: int, choices: Sequence[int], target: Target, rank: int
) -> tuple[int, int, int, int]:
    """Rows, columns and vectors of a tile, and their lanes: the fewest cycles, padding included, or those of another `rank`.
    `depth`: products of one row of taps; `choices`: of lanes, of which the second takes half the time of the first."""
    found = []
    spare = 1 if target.fma else 2
    height = max(1, hint(h.out))
    steps = [h.steps(rows) for rows in range(1, 9)]
    for vectors in range(1, 7):
        for rows in range(1, 9):
            for columns in range(1, 29):
                pixels = rows * columns
                if pixels * vectors + vectors + spare > target.registers:
                    break
                for pace, lanes in zip((1.0, 0.5), choices):
                    step = max(pixels * vectors * pace, 5) + 0.12 * pixels + 0.25 * vectors + 0.3 * rows + 1.0
                    tiles = -(-height // rows) * (8 * pixels * vectors + 40)
                    cost = -(-width // columns) * -(-outputs // (vectors * lanes)) * (step * depth * steps[rows - 1] + tiles)
                    found.append((cost, vectors, rows, columns, lanes))
    _, vectors, rows, columns, lanes = sorted(found)[min(rank, len(found) - 1)] if rank else min(found)
    return rows, columns, vectors, lanes


# -- packed weights


def pack_weights(c: Convolution, plan: Plan) -> tuple[Launch, Storage]:
    """A launch that copies the weights into panels [group][panel][taps of depth, rows][block][tap][channel][output], zero
    where there is none; one task a block of a panel."""
    builder = KernelBuilder()
    taps = tuple(w.taps for w in c.windows)
    panels, blocks = ceil_div(c.outputs, plan.nr), ceil_div(c.inputs, plan.block)
    size = c.groups * panels * blocks * product(taps) * plan.block * plan.nr
    packed = Storage(c.dtype, size, "packed weights")
    body: list[Stmt] = []
    # parameters, also where they are 1: one kernel for all tiles and filters
    panel_count, block_count = builder.parameter(panels), builder.parameter(blocks)
    channels, wide = builder.parameter(plan.block), builder.parameter(plan.nr)
    block = bind(builder, body, Var("task", INT) % block_count)
    panel = bind(builder, body, Var("task", INT) // block_count)
    group: Expr = const(0)
    if c.groups != 1:
        group, panel = bind(builder, body, panel // panel_count), bind(builder, body, panel % panel_count)
    outputs, inputs = builder.parameter(c.outputs, "outputs"), builder.parameter(c.inputs, "inputs")
    channel = builder.fresh("c")
    names = [builder.fresh("t") for _ in taps]
    tap = tuple(const(0) if c.windows[axis] is UNIT else Var(name, INT) for axis, name in enumerate(names))
    inside: list[Stmt] = []
    at = bind(builder, inside, block * channels + Var(channel, INT))
    extents = tuple(const(1) if w is UNIT else builder.parameter(w.taps) for w in c.windows)
    place: Expr = group * panel_count + panel
    for digit, extent in ((tap[0], extents[0]), (tap[1], extents[1]), (block, block_count), (tap[2], extents[2])):
        place = place * extent + digit
    place = place * channels + Var(channel, INT)
    place = bind(builder, inside, place * wide)
    buffer = builder.buffer(packed, "write")
    v = Var(builder.fresh("v"), INT)
    first = bind(builder, vector := list[Stmt](), panel * wide + v, "o")
    mask = lane_mask(first, plan.lanes, outputs) & splat(at < inputs, plan.lanes)
    value = c.weight(builder, group * outputs + first, at, tap, plan.lanes, mask)
    vector.append(Store(buffer, place + v, value))
    inside.append(For(v.name, const(0), wide, plan.lanes, tuple(vector)))
    for window, extent, name in zip(reversed(c.windows), reversed(extents), reversed(names)):
        if window is not UNIT:
            inside = [For(name, const(0), extent, 1, tuple(inside))]
    body.append(For(channel, const(0), channels, 1, tuple(inside)))
    launch = builder.launch(
        "pack_w", body, "task", c.groups * panels * blocks, size // 2, equations=c.equations, note="pack weights"
    )
    return launch, packed


# -- the kernel


class Patched:
    """What kernels over patches share: tasks, the copy of a patch, loops over tiles and the sink.

    `channels` channels of x, from `first_channel` on, are copied in `blocks` blocks.
    """

    channels: Size
    blocks: Size

    def __init__(self, c: Convolution, plan: Plan, packed: Storage):
        self.c, self.plan, self.packed = c, plan, packed
        self.builder = KernelBuilder()
        self.vector = Type(c.dtype, plan.lanes)
        d, h, w = c.windows
        self.taps = (d.taps, h.taps, w.taps)
        self.extent = (d.taps, h.reach(plan.height), w.reach(plan.width))  # depth taps, rows and columns of the patch
        self.plane = const(self.extent[1] if d.taps > 1 else 0)  # rows from one depth tap to the next
        self.first_channel: Expr = const(0)

    def begin(self, parts: Size, groups: Size, patched: bool = True) -> tuple[list[Stmt], Expr, Size]:
        """(statements that say what the task is, its part, the number of tasks). `patched`: it has a patch."""
        c, plan, builder = self.c, self.plan, self.builder
        d, h, w = c.windows
        body: list[Stmt] = []
        counts = (parts, c.batch, groups, d.out, ceil_div(h.out, plan.height), ceil_div(w.out, plan.width))
        part: Expr = Var("task", INT)
        found: list[Expr] = []
        for number, count in reversed(list(enumerate(counts[1:]))):  # blocks of rows and columns: one kernel for any number
            extent = builder.parameter(count) if number > 2 or not (isinstance(count, int) and count == 1) else const(1)
            found.append(bind(builder, body, part % extent, "q"))
            part = bind(builder, body, part // extent, "q")
        self.n, self.group, self.depth, block_h, block_w = reversed(found)
        self.h0 = bind(builder, body, block_h * builder.parameter(plan.height), "row")
        self.w0 = bind(builder, body, block_w * builder.parameter(plan.width), "col")
        self.rows = bind(builder, body, minimum(builder.parameter(plan.height), builder.parameter(h.out) - self.h0), "row")
        self.columns = bind(builder, body, minimum(builder.parameter(plan.width), builder.parameter(w.out) - self.w0), "col")
        self.outputs = builder.parameter(c.outputs, "outputs")
        if patched:
            self.block_count = self.blocks_here = builder.parameter(self.blocks, "blocks", varies=True)
            self.line = bind(builder, body, builder.parameter(self.extent[2] * plan.block, "line"))  # of one block of channels
            self.row = bind(builder, body, self.line * self.block_count)
            self.patch = builder.scratch(c.dtype, product(self.extent) * self.blocks * plan.block)
        return body, part, product(counts)

    def launch(self, body: list[Stmt], tasks: Size, tile: str, work: int) -> Launch:
        """The finished launch. `work`: products that one cycle has room for."""
        c, plan = self.c, self.plan
        pixels = c.batch * product(x.out for x in c.windows) * c.groups
        macs = pixels * c.inputs * c.outputs * product(self.taps)
        cost = macs // work + pixels * (c.inputs + c.outputs) // plan.lanes
        return self.builder.launch(f"{c.name}_{tile}", body, "task", tasks, cost, equations=c.equations, note=f"{plan}")

    def copy(self) -> list[Stmt]:
        """Fill the patch: rows and columns within x are copied, all others are zero."""
        c, plan, builder = self.c, self.plan, self.builder
        d, h, w = c.windows
        if 0 in self.taps:
            return []
        kd, i, j, block = (builder.fresh(x) for x in ("k", "i", "j", "b"))
        body: list[Stmt] = []
        at_d = self.depth * d.stride + Var(kd, INT) * d.step - d.low
        start_h, start_w = bind(builder, body, self.h0 * h.stride - h.low, "row"), self.w0 * w.stride - w.low
        step_h, step_w = (h.stride if h.compact() else 1), (w.stride if w.compact() else 1)
        down, right = (builder.parameter(n, x, varies=True) for n, x in ((step_h, "down"), (step_w, "right")))
        # columns first .. last-1 of the patch lie within x
        extent = builder.parameter(self.extent[2], "extent")
        start_w = bind(builder, body, start_w, "col")
        first = bind(builder, body, minimum(steps_up(const(0) - start_w, step_w), extent), "col")
        last = bind(builder, body, minimum(steps_up(builder.parameter(w.size, "width") - start_w, step_w), extent), "col")
        rows = bind(builder, body, (self.rows - 1) * h.pitch + ((h.taps - 1) * h.step + 1))
        inside: list[Stmt] = []
        at_h = bind(builder, inside, start_h + Var(i, INT) * down, "row")
        base = bind(builder, inside, (Var(kd, INT) * self.plane + Var(i, INT)) * self.row)
        exists = (at_h >= 0) & (at_h < builder.parameter(h.size, "height"))
        if d is not UNIT:
            at = bind(builder, inside, at_d, "d")
            exists = exists & (at >= 0) & (at < builder.parameter(d.size, "depth"))
        else:
            at = const(0)
        inputs = builder.parameter(self.channels, "inputs")
        single = isinstance(self.blocks, int) and self.blocks == 1 and plan.block % plan.lanes > 0

        def fill(start: Expr, stop: Expr, copied: bool) -> For:
            """Columns start .. stop-1, from x or with zeros: all channels of a column, one block after the other, as x is read
            fastest in the order in which it lies in memory."""
            column = bind(builder, out := list[Stmt](), base + Var(j, INT) * plan.block)
            few = isinstance(c.inputs, int) and c.inputs == plan.block <= 8 and isinstance(c.groups, int) and c.groups == 1
            if plan.planar and plan.block == 1:
                channel = Var(block, INT)
                values: Expr = zero(self.vector)
                on = lane_mask(Var(j, INT), plan.lanes, stop)
                if copied:
                    where = (at, at_h, start_w + Var(j, INT))
                    values = c.read_row(builder, self.n, where, self.group * inputs + channel, plan.lanes, on)
                store = Store(self.patch, base + Var(j, INT) + channel * self.line, values, on)
                return For(block, const(0), self.blocks_here, 1, (For(j, start, stop, plan.lanes, (store,)),))
            if copied and c.strided and few:  # one by one
                for k in range(plan.block):
                    scalar = c.read(builder, self.n, (at, at_h, start_w + Var(j, INT) * right), const(k), 1, None)
                    out.append(Store(self.patch, column + k, scalar))
                return For(j, start, stop, 1, tuple(out), 2)
            number: Expr = const(0) if single else Var(block, INT)
            one: list[Stmt] = []
            offset = bind(builder, one, self.first_channel + number * plan.block)
            for first in range(0, plan.block, plan.lanes):
                count = min(plan.lanes, plan.block - first)
                partial = lane_mask(const(0), plan.lanes, const(count)) if count < plan.lanes else None
                value: Expr = zero(self.vector)
                if copied:
                    whole = isinstance(self.channels, int) and self.channels % plan.block == 0
                    mask = partial if whole else lane_mask(offset + first, plan.lanes, minimum(inputs, offset + first + count))
                    where = (at, at_h, start_w + Var(j, INT) * right)
                    value = c.read(builder, self.n, where, self.group * inputs + (offset + first), plan.lanes, mask)
                one.append(Store(self.patch, column + number * self.line + first, value, partial))
            if single:
                return For(j, start, stop, 1, (*out, *one))
            return For(j, start, stop, 1, (*out, For(block, const(0), self.blocks_here, 1, tuple(one))))

        # what lies before x and what lies behind it: all columns lie before it where there is no such row
        side = Var(builder.fresh("s"), INT)
        before, behind = (bind(builder, inside, apply("select", exists, x, extent), "col") for x in (first, last))
        zeros = fill(side * behind, apply("select", side.equals(0), before, extent), False)
        inside += [For(side.name, const(0), const(2), 1, (zeros,)), fill(before, behind, True)]
        loop: Stmt = For(i, const(0), rows, 1, tuple(inside))
        return [*body, For(kd, const(0), const(self.extent[0]), 1, (loop,), apart=True)]

    def deliver(self, at: Digits, output: Expr, limit: Expr | None, value: Expr) -> list[Stmt]:
        """Store a vector of results; those before `limit` exist (all of them, if it is None)."""
        c, lanes = self.c, self.plan.lanes
        lead = self.group * self.outputs  # the channels before those of the group
        if limit is None:
            return c.deliver(self.builder, self.n, at, lead + output, lanes, None, value)
        masked = c.deliver(self.builder, self.n, at, lead + output, lanes, lane_mask(output, lanes, limit), value)
        if mask_registers(self.vector):
            return masked
        store = c.deliver(self.builder, self.n, at, lead + output, lanes, None, value)
        return [If(output + lanes <= limit, tuple(store), (If(output < limit, tuple(masked)),))]


class Direct(Patched):
    """All channels of a group in the patch, panels of outputs."""

    def __init__(self, c: Convolution, plan: Plan, packed: Storage, apart: bool):
        super().__init__(c, plan, packed)
        self.channels, self.blocks = c.inputs, ceil_div(c.inputs, plan.block)
        self.apart = apart

    def build(self) -> Launch:
        c, plan, builder = self.c, self.plan, self.builder
        panels = ceil_div(c.outputs, plan.nr)
        body, part, tasks = self.begin(plan.parts, c.groups)
        self.sums = builder.scratch(c.dtype, plan.rows * plan.columns * plan.nr)
        body += self.copy()
        run, panel, i, j = (builder.fresh(x) for x in "gpij")
        count, parts = builder.parameter(panels), builder.parameter(plan.parts)
        first, last = (bind(builder, body, p * count // parts, "p") for p in (part, part + 1))
        runs = builder.parameter(ceil_div(ceil_div(panels, plan.parts), plan.together))
        together = builder.parameter(plan.together)
        begin = bind(builder, outer := list[Stmt](), first + Var(run, INT) * together, "p")
        end = bind(builder, outer, minimum(begin + together, last), "p")
        self.begin_run, self.share = begin, builder.parameter(ceil_div(plan.columns, plan.together))
        tile = self._tile(Var(panel, INT), Var(i, INT), Var(j, INT))
        loop: Stmt = For(panel, begin, end, 1, tuple(tile))
        loop = For(j, const(0), self.columns, plan.columns, (loop,))
        loop = For(i, const(0), self.rows, plan.rows, (loop,))
        body.append(For(run, const(0), runs, 1, (*outer, loop)))
        return self.launch(body, tasks, f"{plan.rows}x{plan.columns}x{plan.nr}", plan.lanes * 3)

    def _tile(self, panel: Expr, i: Expr, j: Expr) -> list[Stmt]:
        plan, builder = self.plan, self.builder
        names = [[[builder.fresh("s") for _ in range(plan.vectors)] for _ in range(plan.columns)] for _ in range(plan.rows)]
        every = [
            (r * plan.columns + q, v, names[r][q][v])
            for r in range(plan.rows) for q in range(plan.columns) for v in range(plan.vectors)
        ]
        body = self._sink(panel, i, j, fetch=True)
        tile: list[Stmt] = [Register(name, zero(self.vector)) for _, _, name in every]
        if 0 not in self.taps:
            tile += self.sum_up(body, names, panel, i, j)
        tile += [Store(self.sums, const(p * plan.nr + v * plan.lanes), Get(name, self.vector)) for p, v, name in every]
        body += once(builder, tile) if self.apart else tile
        return body + self._sink(panel, i, j)

    def sum_up(self, body: list[Stmt], names: list, panel: Expr, i: Expr, j: Expr) -> list[Stmt]:
        """Outer products over taps and channels; what they begin with is computed in `body`."""
        c, plan, builder = self.c, self.plan, self.builder
        d, h, w = c.windows
        merged = w.step == 1  # the taps of a row lie one behind the other
        down, blocks = builder.parameter(h.taps, "taps down", varies=True), self.block_count
        across = builder.parameter(w.taps, "taps across")
        panels = builder.parameter(ceil_div(c.outputs, plan.nr), "panels", varies=True)
        rows = down if d.taps == 1 else down * builder.parameter(d.taps, "taps deep")
        weights = bind(builder, body, (self.group * panels + panel) * (rows * blocks * across * plan.block) * plan.nr)
        pixel = w.pitch * plan.block
        start = bind(builder, body, (i * h.pitch) * self.row + j * pixel)
        first, last = (bind(builder, body, x, "k") for x in h.met(self.h0 + i, plan.rows, builder.parameter(h.size, "height")))
        # rows of taps and blocks of channels are one loop, which is less to compile than two: where rows are next to each other,
        # block after block lies in the patch
        part = Var(builder.fresh("k"), INT)
        kd = const(0) if d.taps == 1 else Var(builder.fresh("k"), INT)
        kw = const(0) if merged or w.taps == 1 else Var(builder.fresh("k"), INT)
        inside: list[Stmt] = []
        behind = part * self.line
        if h.step != 1:
            behind = part // blocks * h.step * self.row + part % blocks * self.line
        number = ((kd * down * blocks + part) * across + kw) * plan.block
        a = bind(builder, inside, start + (kd * self.plane * self.row + behind + kw * (w.step * plan.block)))
        lines = [a] + [bind(builder, inside, a + self.row * (r * h.pitch)) for r in range(1, plan.rows)]
        b = bind(builder, inside, weights + number * plan.nr)
        inside += self._ahead(panel, part, i, j)
        k = builder.fresh("c")
        buffer = builder.buffer(self.packed, "read")
        step: list[Stmt] = []
        row = bind(builder, step, b + Var(k, INT) * plan.nr)
        ws = [
            bind(builder, step, Load(buffer, row + v * plan.lanes, self.vector), "v") for v in range(plan.vectors)
        ]
        for r in range(plan.rows):
            for q in range(plan.columns):
                value = Load(self.patch, lines[r] + Var(k, INT) + q * pixel, Type(c.dtype))
                left = bind(builder, step, splat(value, plan.lanes), "a")
                for v in range(plan.vectors):
                    name = names[r][q][v]
                    step.append(Set(name, multiply_add(left, ws[v], Get(name, self.vector))))
        count: Expr = const(plan.block)
        if merged:
            count = builder.parameter(w.taps * plan.block, "run") if w.taps > 1 else const(plan.block)
        # a large tile keeps the multipliers busy in any case, and is a third of what there is to compile
        large = plan.rows * plan.columns * plan.vectors >= 16
        unroll = 1 if large or (merged and w.taps > 1) else 4 if plan.block % 4 == 0 else 2 if plan.block % 2 == 0 else 1
        inside.append(For(k, const(0), count, 1, tuple(step), unroll))
        if isinstance(kw, Var):
            inside = [For(kw.name, const(0), across, 1, tuple(inside))]
        loop: Stmt = For(part.name, first * blocks, last * blocks, 1, tuple(inside))
        return [For(kd.name, const(0), const(d.taps), 1, (loop,)) if isinstance(kd, Var) else loop]

    def _ahead(self, panel: Expr, block: Expr, i: Expr, j: Expr) -> list[Stmt]:
        """Fetch what the next task will copy where this one works on a tile and a block of channels: a part for each panel. Where
        there is one tap only, copies would take as long as products otherwise."""
        c, plan, builder = self.c, self.plan, self.builder
        d, h, w = c.windows
        if self.taps != (1, 1, 1) or plan.rows > 1 or c.strided:
            return []
        q = Var(builder.fresh("q"), INT)
        beyond = isinstance(w.out, int) and plan.width < w.out
        down, right = builder.parameter(0 if beyond else plan.height), builder.parameter(plan.width if beyond else 0)
        strides = (builder.parameter(n, x, varies=True) for n, x in ((h.stride, "stride down"), (w.stride, "stride right")))
        lows = (builder.parameter(n, x, varies=True) for n, x in ((h.low, "low down"), (w.low, "low right")))
        row, column = (x * stride - low for x, stride, low in zip((self.h0 + i + down, self.w0 + j + right + q), strides, lows))
        channel = self.group * builder.parameter(self.channels, "inputs") + block * plan.block
        value = c.read(builder, self.n, (self.depth * d.stride - d.low, row, column), channel, plan.lanes, None)
        body: list[Stmt] = []
        first = bind(builder, body, (panel - self.begin_run) * self.share)
        fetch = touched([Let(builder.fresh("x"), value)], q.name)
        return [*body, *out_of_loop(For(q.name, first, minimum(first + self.share, const(plan.columns)), 1, tuple(fetch)))]

    def _sink(self, panel: Expr, i: Expr, j: Expr, fetch: bool = False) -> list[Stmt]:
        """Deliver the sums of a tile, or fetch what that is going to read and write."""
        plan, builder = self.plan, self.builder
        body: list[Stmt] = []
        r, q = builder.fresh("i"), builder.fresh("j")
        column = bind(builder, body, panel * plan.nr, "col")
        limit = None if isinstance(self.c.outputs, int) and self.c.outputs % plan.nr == 0 else self.outputs
        inside: list[Stmt] = []
        row, at = (Var(r, INT) if plan.rows > 1 else const(0)), Var(q, INT)
        where = (self.depth, bind(builder, inside, self.h0 + i + row), bind(builder, inside, self.w0 + j + at))
        pixel = bind(builder, inside, (row * plan.columns + at) * plan.nr)
        one = Var(builder.fresh("v"), INT)
        looped = self.apart and plan.vectors > 2
        for v in (one,) if looped else range(0, plan.nr, plan.lanes):
            value = zero(self.vector) if fetch else Load(self.sums, pixel + v, self.vector)
            inside += self.deliver(where, column + v, limit, value)
        if fetch:
            inside = touched(inside, q)
        if looped:
            inside = [For(one.name, const(0), const(plan.nr), plan.lanes, tuple(inside))]
        loop = out_of_loop(For(q, const(0), minimum(const(plan.columns), self.columns - j), 1, tuple(inside)))
        if plan.rows > 1:
            loop = out_of_loop(For(r, const(0), minimum(const(plan.rows), self.rows - i), 1, tuple(loop)))
        return once(builder, body + loop) if self.apart else body + loop


def touched(body: Sequence[Stmt], variable: str) -> list[Stmt]:
    """What fetches the memory that a body of Let, Store and If is going to read and write at places that depend on a variable."""
    found: list[Let | Prefetch] = []
    moving = {variable}

    def moves(e: Expr) -> bool:
        return any(isinstance(x, Var) and x.name in moving for x in walk_exprs(e))

    def visit(statements: Sequence[Stmt]) -> None:
        for s in statements:
            if isinstance(s, If):  # whole vectors, or a part of one at the same place
                visit(s.then)
            elif isinstance(s, (Let, Store)):
                loads = [e for e in walk_exprs(s.value) if isinstance(e, Load)]
                places = [(e.buffer, e.index) for e in loads] + ([(s.buffer, s.index)] if isinstance(s, Store) else [])
                found.extend(Prefetch(buffer, at) for buffer, at in places if at.type == INT and moves(at))
                if isinstance(s, Let) and not loads:
                    moving.update([s.name] if moves(s.value) else [])
                    found.append(s)

    visit(body)
    needed: set[str] = set()
    kept: list[Stmt] = []
    for s in reversed(found):
        if isinstance(s, Prefetch) or s.name in needed:
            needed |= {e.name for e in walk_exprs(s.index if isinstance(s, Prefetch) else s.value) if isinstance(e, Var)}
            kept.append(s)
    return kept[::-1]
