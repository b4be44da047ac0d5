"""The gradient of a convolution for its filter, over channels-last arrays:

    w[o, c, t] = sum over images n, outputs p of g[n, p, o] * x[n, p * stride + t * step - low, c]

    task = (part of the images, group, some blocks of input channels, some panels of output channels)
      for each image of the part, each block of rows and columns:
          copy what is seen of x (a patch, as in `direct`) and of g into private memory
          for each tap, block of input channels, panel of output channels:
              sums in registers += outer products over the pixels; then they are added to the task's sums
      deliver the task's sums

Where there are few filters the images are cut into parts, whose sums are added in order. The order of summation depends on
sizes only.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from ndarray.dims import Size, product

from .contraction import Digits, bind, ceil_div, digits, hint, lane_mask, minimum, multiply_add, zero
from .direct import Convolution, Patched, Plan, Window, is_planar, steps_up
from .launch import _ITEMSIZE, KernelBuilder, Launch, Position, Sink, Storage
from .loopir import INT, Expr, For, Get, If, Let, Load, Register, Set, Stmt, Store, Type, Var, apply, const, ramp, splat
from .plain import plain_sink
from .target import Target

__all__ = ["lower_filters"]


@dataclass(frozen=True)
class FilterPlan(Plan):
    """As `Plan`: a tile is `block` input channels x `vectors` vectors of outputs, a block of pixels `height` x `width`; a task
    has `blocks` blocks of input channels, `panels` panels of outputs, and one of `parts` parts of the images. `merged`: a tile
    has all taps of a row, whose input channels lie one behind the other in a patch of one block."""

    panels: int = 1
    blocks: int = 1
    merged: bool = False


def lower_filters(c: Convolution, read_g: Any, sink: Sink, target: Target, **override: Any) -> list[Launch]:
    """The launches. `c` is the convolution whose filter it is (`weight` and `deliver` are not used); `read_g` reads the
    gradient of its result as ``c.read`` reads x; `sink` takes the filter's. `override` replaces fields of the plan."""
    plan = replace(_choose(c, target), **override)
    if plan.parts == 1:
        return [_Filters(c, plan, read_g, sink).build()]
    partial = Storage(sink.dtype, plan.parts * product(sink.shape), "partial sums")
    goal = plain_sink(partial, (plan.parts, *sink.shape))
    return [_Filters(c, plan, read_g, goal).build(), _add_parts(partial, plan.parts, sink, target, c.equations)]


def _choose(c: Convolution, target: Target) -> FilterPlan:
    """The plan that a small cost model finds cheapest, from sizes alone."""
    d, h, w = c.windows
    inputs, outputs, batch = max(1, hint(c.inputs)), max(1, hint(c.outputs)), max(1, hint(c.batch))
    height, width = max(1, hint(h.out)), max(1, hint(w.out))
    taps = max(1, d.taps * h.taps * w.taps)
    lanes, itemsize = target.lanes(c.dtype), _ITEMSIZE[c.dtype]
    lanes = target.fewer(lanes, outputs)
    best, tile = float("inf"), (1, 1)
    spare = 1 if target.fma else 2
    merged = w.taps > 1 and w.step == 1 and inputs * w.taps + 1 + spare <= target.registers
    row = inputs * w.taps
    for vectors in range(1, 7):
        for block in (row,) if merged else range(1, 17):
            if block * vectors + vectors + spare > target.registers:
                break
            step = max(block * vectors, 5) + 0.12 * block + 0.25 * vectors + 1.5
            cost = -(-(row if merged else inputs) // block) * -(-outputs // (vectors * lanes)) * step
            if cost < best:
                best, tile = cost, (block, vectors)
    block, vectors = (inputs, tile[1]) if merged else tile
    wide = min(width, 64)
    most = target.l2 // 8
    line = max(d.taps * w.reach(wide) * inputs, wide * outputs) * itemsize
    high = max([1, *(n for n in range(1, height + 1) if h.reach(n) * min(line, most // 4) <= most)])
    high = -(-height // -(-height // high))
    all_blocks, all_panels = -(-inputs // block), -(-outputs // (vectors * lanes))
    cycles = batch * max(1, hint(d.out)) * height * width * taps * block * vectors  # of one block and panel
    best, found = float("inf"), None
    for blocks in dict.fromkeys(-(-all_blocks // k) for k in (1, 2, 3, 4, 6, 8, 12, 16, 32)):
        for panels in dict.fromkeys(-(-all_panels // k) for k in (1, 2, 3, 4, 6, 8, 16)):
            sums = taps * blocks * block * panels * vectors * lanes * itemsize
            if sums > target.l2 // 3 and (blocks > 1 or panels > 1):
                continue
            for parts in (1, 2, 4, 8, 16, 32, 64) if target.threads else (1, 2, 4, 8):
                if parts > batch:
                    break
                pixels = batch * height * width * max(1, hint(d.out)) / parts
                copies = pixels * (1.2 * h.pitch * w.pitch * blocks * -(-block // lanes) * d.taps + panels * vectors) * 2
                cost = cycles * blocks * panels / parts + copies + sums / itemsize * (2 if parts == 1 else 4)
                tasks = c.groups * -(-all_blocks // blocks) * -(-all_panels // panels) * parts
                total = sum(-(-tasks // t) * t * cost for t in ((target.tasks,) if target.threads else (1, 2, 4, 8)))
                total += 20.0 * parts * inputs * outputs * taps if parts > 1 else 0
                if total < best:
                    best, found = total, (blocks, panels, parts)
    blocks, panels, parts = found or (1, 1, 1)
    planar = is_planar(c, target) and inputs == 1
    return FilterPlan(lanes, 1, 1, vectors, block, high, wide, parts, 1, planar, panels, blocks, merged)


class _Filters(Patched):
    """Builds the kernel."""

    plan: FilterPlan

    def __init__(self, c: Convolution, plan: FilterPlan, read_g: Any, sink: Sink):
        super().__init__(c, plan, Storage(c.dtype, 0))
        self.read_g, self.sink = read_g, sink
        self.channels, self.blocks = c.inputs, plan.blocks
        self.together = c.windows[2].taps if plan.merged else 1  # taps of a tile
        self.height = self.together * plan.block  # rows of a tile: (tap, channel)

    def task(self) -> tuple[list[Stmt], Size]:
        """(statements that say what the task is, the number of tasks)."""
        c, plan, builder = self.c, self.plan, self.builder
        self.all_panels, self.all_blocks = ceil_div(c.outputs, plan.nr), ceil_div(c.inputs, plan.block)
        counts = (plan.parts, c.groups, ceil_div(self.all_blocks, plan.blocks), ceil_div(self.all_panels, plan.panels))
        body: list[Stmt] = []
        found: list[Expr] = []
        rest: Expr = Var("task", INT)
        for number, count in reversed(list(enumerate(counts[1:]))):  # parameters, also where they are 1: one kernel for all
            extent = builder.parameter(count) if number > 0 or c.groups != 1 else const(1)
            found.append(bind(builder, body, rest % extent, "q"))
            rest = bind(builder, body, rest // extent, "q")
        self.part, panel, block, self.group = rest, *found
        first_block = bind(builder, body, block * builder.parameter(plan.blocks), "b")
        self.first_panel = bind(builder, body, panel * builder.parameter(plan.panels), "p")
        self.block_count = builder.parameter(plan.blocks, "blocks", varies=True)
        self.blocks_here = bind(builder, body, minimum(self.block_count, builder.parameter(self.all_blocks) - first_block))
        self.panel_count = builder.parameter(plan.panels, "panels", varies=True)
        self.panels_here = bind(
            builder, body, minimum(self.panel_count, builder.parameter(self.all_panels) - self.first_panel)
        )
        self.first_channel = bind(builder, body, first_block * plan.block, "c")
        self.outputs, self.inputs = builder.parameter(c.outputs, "outputs"), builder.parameter(c.inputs, "inputs")
        size = plan.blocks * plan.panels * product(self.taps) * plan.block * plan.nr
        self.sums = builder.scratch(c.dtype, size)
        return body, product(counts)

    def build(self) -> Launch:
        c, plan, builder = self.c, self.plan, self.builder
        d, h, w = c.windows
        body, tasks = self.task()
        self.line = bind(builder, body, builder.parameter(self.extent[2] * plan.block, "line"))
        self.row = bind(builder, body, self.line * self.block_count)
        self.g_line = bind(builder, body, builder.parameter(plan.width * plan.nr))
        self.g_row = bind(builder, body, self.g_line * self.panel_count)
        self.patch = builder.scratch(c.dtype, product(self.extent) * plan.blocks * plan.block)
        self.g_patch = builder.scratch(c.dtype, plan.height * plan.panels * plan.width * plan.nr)
        body.append(self.clear(self.sums, plan.blocks * plan.panels * product(self.taps) * plan.block * plan.nr))

        n, depth, i, j = (builder.fresh(x) for x in "gdij")
        per_part = ceil_div(c.batch, plan.parts)
        first = bind(builder, body, self.part * builder.parameter(per_part), "g")
        last = bind(builder, body, minimum(first + builder.parameter(per_part), builder.parameter(c.batch)), "g")
        self.n, self.depth = Var(n, INT), Var(depth, INT) if d.out != 1 else const(0)
        inside: list[Stmt] = []
        high, wide = builder.parameter(plan.height), builder.parameter(plan.width)
        self.h0, self.w0 = (bind(builder, inside, Var(x, INT) * size) for x, size in ((i, high), (j, wide)))
        self.rows = bind(builder, inside, minimum(high, builder.parameter(h.out) - self.h0), "row")
        self.columns = bind(builder, inside, minimum(wide, builder.parameter(w.out) - self.w0), "col")
        inside += self.copy() + self._copy_g() + self._tiles()
        loop: Stmt = For(j, const(0), builder.parameter(ceil_div(w.out, plan.width)), 1, tuple(inside))
        loop = For(i, const(0), builder.parameter(ceil_div(h.out, plan.height)), 1, (loop,))
        loop = For(depth, const(0), builder.parameter(d.out, "depth out"), 1, (loop,))
        body.append(For(n, first, last, 1, (loop,)))
        body += self._sink()
        return self.launch(body, tasks, f"{self.height}x{plan.nr}", plan.lanes * 2)

    def clear(self, buffer: str, size: Size) -> Stmt:
        """Write zeros."""
        at = self.builder.fresh("s")
        clear = Store(buffer, Var(at, INT), zero(self.vector))
        return For(at, const(0), self.builder.size(size), self.plan.lanes, (clear,), apart=True)

    def _copy_g(self) -> list[Stmt]:
        """g's rows and columns of the block as [row][panel][column][output]."""
        c, plan, builder = self.c, self.plan, self.builder
        i, j, panel = (Var(builder.fresh(x), INT) for x in "ijp")
        inside: list[Stmt] = []
        first = bind(builder, inside, (self.first_panel + panel) * plan.nr)
        to = bind(builder, inside, i * self.g_row + panel * self.g_line)
        whole = isinstance(c.outputs, int) and c.outputs % plan.nr == 0
        copy: list[Stmt] = []
        for v in range(0, plan.nr, plan.lanes):
            mask = None if whole else lane_mask(first + v, plan.lanes, self.outputs)
            where = (self.depth, self.h0 + i, self.w0 + j)
            value = self.read_g(builder, self.n, where, self.group * self.outputs + first + v, plan.lanes, mask)
            copy.append(Store(self.g_patch, to + j * plan.nr + v, value))
        inside.append(For(j.name, const(0), self.columns, 1, tuple(copy)))
        loop: Stmt = For(panel.name, const(0), self.panels_here, 1, tuple(inside))
        return [For(i.name, const(0), self.rows, 1, (loop,), apart=True)]

    def _slot(self, tap: Digits, block: Expr, panel: Expr) -> Expr:
        """Where the sums of a tile lie."""
        number = (tap[0] * self.taps[1] + tap[1]) * (self.taps[2] // self.together) + tap[2]
        return ((number * self.block_count + block) * self.panel_count + panel) * (self.height * self.plan.nr)

    def _each(self, make: Any) -> list[Stmt]:
        """Loops over taps, blocks and panels around ``make(tap, block, panel)``."""
        builder = self.builder
        names = [builder.fresh(x) for x in "ttt"]
        taps = (*self.taps[:2], self.taps[2] // self.together)
        tap = tuple(const(0) if n == 1 else Var(name, INT) for n, name in zip(taps, names))
        block, panel = Var(builder.fresh("b"), INT), Var(builder.fresh("p"), INT)
        loop: Stmt = For(panel.name, const(0), self.panels_here, 1, tuple(make(tap, block, panel)))
        loop = For(block.name, const(0), self.blocks_here, 1, (loop,))
        for n, name in zip(reversed(taps), reversed(names)):
            if n != 1:
                loop = For(name, const(0), const(n), 1, (loop,))
        return [replace(loop, apart=True)]

    def _tiles(self) -> list[Stmt]:
        return self._each(self._tile)

    def _tile(self, tap: Digits, block: Expr, panel: Expr) -> list[Stmt]:
        """Outer products over the pixels, added to the sums."""
        c, plan, builder = self.c, self.plan, self.builder
        _, h, w = c.windows
        every = [(k, v) for k in range(self.height) for v in range(plan.vectors)]
        ways = -(-8 // len(every))  # sums of every second pixel, or fewer, where adding to one would wait for itself
        sets = [{place: builder.fresh("s") for place in every} for _ in range(ways)]
        body: list[Stmt] = [Register(name, zero(self.vector)) for names in sets for name in names.values()]
        kd, kh, kw = tap
        a = bind(builder, body, (kd * self.plane + kh * h.step) * self.row + block * self.line
                 + kw * (w.step * plan.block))
        b = bind(builder, body, panel * self.g_line)
        i, j = Var(builder.fresh("i"), INT), Var(builder.fresh("j"), INT)
        first_row, last_row = self._inside(body, h, self.h0, kh, self.rows)
        first, last = (const(0), self.columns) if plan.merged else self._inside(body, w, self.w0, kw, self.columns)
        inside: list[Stmt] = []
        line = bind(builder, inside, a + i * h.pitch * self.row)
        g_line = bind(builder, inside, b + i * self.g_row)

        def add(names: dict[tuple[int, int], str], column: Expr) -> list[Stmt]:
            """One pixel's products."""
            step: list[Stmt] = []
            at = bind(builder, step, g_line + column * plan.nr)
            gs = [bind(builder, step, Load(self.g_patch, at + v * plan.lanes, self.vector), "v") for v in range(plan.vectors)]
            x = bind(builder, step, line + column * (w.pitch * plan.block))
            for k in range(self.height):
                left = bind(builder, step, splat(Load(self.patch, x + k, Type(c.dtype)), plan.lanes), "a")
                for v in range(plan.vectors):
                    step.append(Set(names[k, v], multiply_add(left, gs[v], Get(names[k, v], self.vector))))
            return step

        if ways > 1:
            until = bind(builder, inside, first + apply("max", last - first, const(0)) // ways * ways)
            together = [s for number, names in enumerate(sets) for s in add(names, j + number)]
            inside.append(For(j.name, first, until, ways, tuple(together)))
            first = until
        inside.append(For(j.name, first, last, 1, tuple(add(sets[0], j)), 1 if len(every) > 12 or ways > 1 else 2))
        body.append(For(i.name, first_row, last_row, 1, tuple(inside)))
        slot = bind(builder, body, self._slot(tap, block, panel))
        for k, v in every:
            at = slot + (k * plan.nr + v * plan.lanes)
            total: Expr = Load(self.sums, at, self.vector)
            for names in sets:
                total = total + Get(names[k, v], self.vector)
            body.append(Store(self.sums, at, total))
        return body

    def _inside(self, body: list[Stmt], window: Window, first: Expr, tap: Expr, count: Expr) -> tuple[Expr, Expr]:
        """(start, stop) of the outputs, counted from `first`, for which a tap meets x and not padding."""
        at = bind(self.builder, body, first * window.stride + tap * window.step - window.low)
        start = steps_up(const(0) - at, window.stride)
        stop = minimum(steps_up(self.builder.size(window.size) - at, window.stride), count)
        return bind(self.builder, body, start), bind(self.builder, body, stop)

    def _sink(self) -> list[Stmt]:
        """Turn the sums round to [output][channel][tap], and deliver them an output after the other."""
        c, plan, builder = self.c, self.plan, self.builder
        taps = product(self.taps)
        run = plan.blocks * plan.block * taps  # of one output
        turned = builder.scratch(c.dtype, plan.panels * plan.nr * run)

        def turn(tap: Digits, block: Expr, panel: Expr) -> list[Stmt]:
            body: list[Stmt] = []
            slot = bind(builder, body, self._slot(tap, block, panel))
            number = (tap[0] * self.taps[1] + tap[1]) * self.taps[2] + tap[2]
            to = bind(builder, body, panel * plan.nr * builder.size(run) + block * (plan.block * taps) + number)
            k = Var(builder.fresh("c"), INT)
            inside: list[Stmt] = []
            for t in range(self.together):
                for v in range(0, plan.nr, plan.lanes):
                    value = Load(self.sums, slot + (k + t * plan.block) * plan.nr + v, self.vector)
                    index = ramp(to + k * taps + t + builder.size(run) * v, builder.size(run), plan.lanes)
                    inside.append(Store(turned, index, value))
            return [*body, For(k.name, const(0), const(plan.block), 1, tuple(inside))]

        body = self._each(turn)
        o = Var(builder.fresh("o"), INT)
        first = bind(builder, body, self.first_panel * plan.nr, "o")
        count = minimum(self.panels_here * plan.nr, self.outputs - first)
        length = bind(builder, body, minimum(self.blocks_here * plan.block, self.inputs - self.first_channel) * taps)
        inside: list[Stmt] = []
        output = bind(builder, inside, self.group * self.outputs + first + o)
        source = bind(builder, inside, o * builder.size(run))
        start = bind(builder, inside, self.first_channel * taps)
        lanes = plan.lanes
        if self.sink.flat is None:
            lanes = 1
        e = Var(builder.fresh("e"), INT)
        deliver = self._deliver(output, start + e, lanes, None, Load(turned, source + e, Type(c.dtype, lanes)))
        if lanes > 1:
            whole = bind(builder, inside, length // lanes * lanes)
            inside.append(For(e.name, const(0), whole, lanes, tuple(deliver)))
            mask = lane_mask(whole, lanes, length)
            value = Load(turned, source + whole, Type(c.dtype, lanes), mask)
            inside.append(If(whole < length, tuple(self._deliver(output, start + whole, lanes, mask, value))))
        else:
            inside.append(For(e.name, const(0), length, 1, tuple(deliver)))
        return [*body, For(o.name, const(0), count, 1, tuple(inside), apart=True)]

    def _deliver(self, output: Expr, e: Expr, lanes: int, mask: Expr | None, value: Expr) -> list[Stmt]:
        """Store elements of the filter of one output, from number e on."""
        c, plan, builder = self.c, self.plan, self.builder
        shape = self.sink.shape if plan.parts == 1 else self.sink.shape[1:]
        if self.sink.flat is None:
            assert plan.parts == 1
            return self.sink.store(builder, Position((output, *digits(builder, e, shape[1:]))), value)
        if plan.parts > 1:
            output = self.part * builder.size(c.groups * c.outputs) + output
        at = output * builder.size(product(shape[1:])) + e
        return self.sink.flat(builder, Position((at,), 0 if lanes > 1 else None, lanes, mask), value)


def _add_parts(partial: Storage, parts: int, sink: Sink, target: Target, equations: tuple) -> Launch:
    """sink[i] = partial[0, i] + partial[1, i] + ... in order; one task for each index of the first axis."""
    builder = KernelBuilder()
    shape = sink.shape
    task, i = Var("task", INT), Var(builder.fresh("i"), INT)
    rest, count = builder.size(product(shape[1:])), builder.size(product(shape))
    buffer = builder.buffer(partial, "read")

    def add(lanes: int, mask: Expr | None) -> list[Stmt]:
        at, type = task * rest + i, Type(sink.dtype, lanes)
        total: Expr = Load(buffer, at, type, mask)
        for part in range(1, parts):
            total = total + Load(buffer, at + count * part, type, mask)
        body: list[Stmt] = [Let("total", total)]
        if sink.flat is not None:
            return body + sink.flat(builder, Position((at,), 0 if lanes > 1 else None, lanes, mask), Var("total", type))
        return body + sink.store(builder, Position((task, *digits(builder, i, shape[1:]))), Var("total", type))

    lanes = target.lanes(sink.dtype) if sink.flat is not None else 1
    loop = For(i.name, const(0), rest, lanes, tuple(add(lanes, lane_mask(i, lanes, rest) if lanes > 1 else None)))
    work: Size = product(shape) * (parts + 2) // lanes
    return builder.launch("add_parts", [loop], "task", shape[0], work, equations=equations, note="ordered sum of parts")
