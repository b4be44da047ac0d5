"""One generator for every contraction: C[b, m, n] = sum over k of A[b, m, k] * B[b, n, k].

The operands are functions from positions to loads, so a matrix product, a transposed one and a convolution differ only
in their index maps. `b` and `k` have several digits (batch axes and groups; channel, tap row, tap column). Rows (m) are
broadcast, columns (n) fill vectors. The schedule:

    task = (batch, block of nt columns, block of mt rows)
      for each block of k (KC values):
        copy B into panels of NR columns in private memory               if pack_b == "task"
        for each NR columns, for each MR rows:
          MR x NR sums in registers += outer products over the block     the micro-kernel
          after the last block: the sink

A block of sums waits in private memory between blocks of k. The order of summation depends on sizes only, so the result
does not depend on the number of threads. Sizes are kernel parameters; the tile is a constant of the kernel.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from ndarray.dims import Size, product

from .contraction import (
    GATES,
    Contraction,
    Deliver,
    Digits,
    Operand,
    Schedule,
    bind,
    ceil_div,
    digits,
    flatten,
    hint,
    lane_mask,
    mask_registers,
    minimum,
    zero,
)
from .launch import KernelBuilder, Launch, Storage
from .loopir import (
    INT,
    Apply,
    Const,
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
    walk_statements,
)
from .target import Target
from .turn import transposed

__all__ = ["lower_product"]

STRAIGHT = 3
"""Statements that deliver a vector of results at most, for those of a whole tile to be written out one by one."""

FETCHED = 4
"""Vectors of a tile from which on the sink's lines are asked for during the sums."""

AHEAD = 16
"""Steps of k by which memory is asked for what is read in place."""


# -- packing


def panel_size(c: Contraction, operand: Operand, positions: Size, width: int) -> Size:
    """Elements that all panels of an operand take."""
    return (
        product(s for s, used in zip(c.batch, operand.batch) if used)
        * ceil_div(positions, width)
        * product(c.inner)
        * width
    )


def pack_operand(
    c: Contraction, operand: Operand, positions: Size, width: int, lanes: int, side: str
) -> tuple[Launch, Storage]:
    """A launch that copies an operand into panels [batch][panel][k][width], one task a panel, or a part of it where
    there are few."""
    builder = KernelBuilder()
    storage = Storage(c.dtype, panel_size(c, operand, positions, width), f"packed {side}")
    body: list[Stmt] = []
    batch_sizes = tuple(s for s, used in zip(c.batch, operand.batch) if used)
    panels = ceil_div(positions, width)
    task: Expr = Var("task", INT)
    count = product(batch_sizes) * panels
    block = None
    parts = min(16, hint(c.inner[0])) if c.inner and hint(count) < 8 and hint(count * product(c.inner)) * width > 16384 else 1
    turned = bool(c.inner) and not operand.contiguous  # a large kernel: one for any numbers of parts and panels, and any width
    if parts > 1 or turned:
        part_count, length = builder.parameter(parts), builder.parameter(ceil_div(c.inner[0], parts), "length")
        first = bind(builder, body, task % part_count * length)
        block = (first, bind(builder, body, minimum(first + length, builder.parameter(c.inner[0], ("k", 0)))))
        task = bind(builder, body, task // part_count)
    panel_count = builder.parameter(panels) if turned else builder.parameter(panels, "panels")
    panel = bind(builder, body, task % panel_count)
    with builder.within("batch"):
        found = iter(digits(builder, bind(builder, body, task // panel_count), batch_sizes))
    batch = tuple(bind(builder, body, next(found)) if used else const(0) for used in operand.batch)
    target = builder.buffer(storage, "write")
    wide = builder.parameter(width, "width") if turned else const(width)
    base = bind(builder, body, task * builder.parameter(product(c.inner), "depth") * wide)
    body += _copy_panel(
        c,
        builder,
        operand,
        batch,
        panel * wide,
        positions,
        width,
        wide,
        lanes,
        0,
        (),
        block,
        lambda k, offset: (target, base + flatten(builder, k, c.inner) * wide + offset),
    )
    work = product(batch_sizes) * positions * product(c.inner) // (8 if operand.contiguous else 1) // 2
    launch = builder.launch(
        f"pack_{side}",
        body,
        "task",
        count * parts,
        work,
        equations=c.equations,
        note="pack constant" if operand.constant else "pack",
    )
    return launch, storage


def _copy_panel(
    c: Contraction,
    builder: KernelBuilder,
    operand: Operand,
    batch: Digits,
    first: Expr,
    positions: Size,
    width: int,
    wide: Expr,
    lanes: int,
    digit: int,
    outer: Digits,
    block: tuple[Expr, Expr] | None,
    where: Callable[[Digits, Expr], tuple[str, Expr]],
) -> list[Stmt]:
    """Copies positions first..first+width-1 for all k of the block, with zeros past the last position. `wide` is `width`, or a
    parameter of that value."""
    limit = builder.parameter(positions, "positions")
    ks: list[Expr] = list(outer)
    loops: list[tuple[str, Expr, Expr]] = []
    for number, size in enumerate(c.inner[digit:], digit):
        name = builder.fresh("k")
        start, stop = block if number == digit and block is not None else (const(0), builder.parameter(size, ("k", number)))
        loops.append((name, start, stop))
        ks.append(Var(name, INT))
    k = tuple(ks)
    inside: list[Stmt] = []
    if operand.contiguous:
        for offset in range(0, width, lanes):
            used = min(lanes, width - offset)
            position = first + offset
            value = operand.load(builder, batch, position, k, lanes, lane_mask(position, lanes, limit))
            name, index = where(k, const(offset))
            inside.append(Store(name, index, value, None if used == lanes else lane_mask(const(0), lanes, const(used))))
    else:
        j = builder.fresh("j")
        name, start, stop = loops.pop() if loops else (builder.fresh("k"), const(0), const(1))
        lead, last = (*ks[:-1],), Var(name, INT)
        along_k = operand.along_k if width % lanes == 0 and lanes >= 4 and ks else None
        first = bind(builder, inside, first)
        filled = bind(builder, inside, minimum(wide, limit - first))
        buffer, base = where((*lead, const(0)) if ks else (), const(0))
        base = bind(builder, inside, base)
        place = lambda k, column: base + k * wide + column
        value = operand.load(builder, batch, first + Var(j, INT), k, 1, None)
        copy = Store(buffer, place(last, Var(j, INT)), value)

        def singly(begin: Expr, end: Expr, low: Expr, high: Expr) -> For:
            """Number by number; the last digit in pieces of a cache line, so that both reading along k and writing along
            positions stay in it."""
            piece = builder.fresh("k")
            along = For(name, Var(piece, INT), minimum(Var(piece, INT) + 16, end), 1, (copy,))
            return For(piece, begin, end, 16, (For(j, low, high, 1, (along,)),))

        if width % lanes == 0:
            clear = For(j, const(0), wide, lanes, (Store(buffer, place(last, Var(j, INT)), zero(Type(c.dtype, lanes))),))
        else:
            clear = For(j, filled, wide, 1, (Store(buffer, place(last, Var(j, INT)), zero(Type(c.dtype))),))
        whole_copy: list[Stmt] = [If(filled < wide, (For(name, start, stop, 1, (clear,)),))]
        if along_k is None:
            inside += [*whole_copy, singly(start, stop, const(0), filled)]
        else:  # squares of vectors are turned in registers
            side = lanes // 2 if operand.constant and lanes > 8 else lanes  # what is kept is packed once: by half the code
            whole = bind(builder, inside, filled // side * side)
            until = bind(builder, inside, start + (stop - start) // side * side)
            at_k, at_j = (Var(builder.fresh(n), INT) for n in "kj")
            square: list[Stmt] = []
            rows = [along_k(builder, batch, first + at_j + i, (*lead, at_k), side, None) for i in range(side)]
            for u, column in enumerate(transposed(builder, square, rows)):
                square.append(Store(buffer, place(at_k + u, at_j), column))
            squares = For(at_j.name, const(0), whole, side, tuple(square))
            whole_copy.append(For(at_k.name, start, until, side, (squares,)))
            edge, rest = Var(builder.fresh("e"), INT), list[Stmt]()  # the last of k, then the last positions of the others
            behind = edge.equals(0)
            begin, end = (bind(builder, rest, apply("select", behind, *x)) for x in ((until, start), (stop, until)))
            rest.append(singly(begin, end, bind(builder, rest, apply("select", behind, const(0), whole)), filled))
            whole_copy.append(For(edge.name, const(0), const(2), 1, tuple(rest)))
            inside += whole_copy if isinstance(wide, Const) else once(builder, whole_copy)
    for name, start, stop in reversed(loops):
        inside = [For(name, start, stop, 1, tuple(inside))]
    return inside


# -- the sink's loops


def out_of_loop(loop: For) -> list[Stmt]:
    """A loop that runs at least once, with what is the same in each round before it."""
    stored = {s.buffer for s in walk_statements(loop.body) if isinstance(s, Store)}
    changing, before, inside = {loop.var}, list[Stmt](), list[Stmt]()
    for s in loop.body:
        if isinstance(s, Let) and not any(
            isinstance(e, Get) or (isinstance(e, Var) and e.name in changing) or (isinstance(e, Load) and e.buffer in stored)
            for e in walk_exprs(s.value)
        ):
            before.append(s)
            continue
        changing |= {s.name} if isinstance(s, Let) else set()
        inside.append(s)
    return [*before, For(loop.var, loop.start, loop.stop, loop.step, tuple(inside), loop.unroll, loop.apart)]


def once(builder: KernelBuilder, body: list[Stmt]) -> list[Stmt]:
    """The statements, which may become a function that kernels with equal ones share."""
    return [For(builder.fresh("o"), const(0), const(1), 1, tuple(body), apart=True)]


# -- the product


def lower_product(c: Contraction, target: Target, schedule: Schedule) -> list[Launch]:
    """The launches of a contraction: packing as the schedule says, then the product."""
    launches: list[Launch] = []
    packed_a = packed_b = None
    if target.threads:  # which gather what lies apart
        c = replace(c, a=replace(c.a, contiguous=True), b=replace(c.b, contiguous=True))
    if schedule.pack_a == "global":
        launch, packed_a = pack_operand(c, c.a, c.rows, schedule.mr, schedule.lanes, "a")
        launches.append(launch)
    if schedule.pack_b == "global":
        launch, packed_b = pack_operand(c, c.b, c.columns, schedule.nr, schedule.lanes, "b")
        launches.append(launch)
    launches.append(_Product(c, schedule, packed_a, packed_b, not target.threads).build(target))
    return launches


class _Product:
    """Builds the kernel of one contraction."""

    def __init__(
        self, c: Contraction, schedule: Schedule, packed_a: Storage | None, packed_b: Storage | None, ahead: bool = True
    ):
        self.c, self.s = c, schedule
        self.packed_a, self.packed_b = packed_a, packed_b
        self.builder = KernelBuilder()
        self.ahead = ahead
        self.vector = Type(c.dtype, schedule.lanes)
        self.outer: Digits = ()
        self.block: tuple[Expr, Expr] = (const(0), const(1))
        self.place: Expr = const(0)
        # rows that lie side by side are read through one pointer: the last tile begins earlier, and delivers what is new
        enough = isinstance(c.rows, int) and c.rows >= schedule.mr
        self.together = ahead and enough and packed_a is None and c.a.contiguous
        self.shifts = self.together and c.rows % schedule.mr != 0
        self.first: Expr = const(0)

    def build(self, target: Target) -> Launch:
        c, s, builder = self.c, self.s, self.builder
        body: list[Stmt] = []
        task: Expr = Var("task", INT)
        row_blocks, column_blocks = ceil_div(c.rows, s.mt), ceil_div(c.columns, s.nt)
        self.rows, self.columns = builder.parameter(c.rows), builder.parameter(c.columns)
        self.inner = tuple(
            const(z) if isinstance(z, int) and z <= 16 and i else builder.parameter(z) for i, z in enumerate(c.inner)
        )
        mt, nt = builder.parameter(s.mt), builder.parameter(s.nt)
        if s.own_rows:
            rest, column_block = self._split(body, task, column_blocks)
            rest, row_block = self._split(body, rest, row_blocks)
        else:
            each = ceil_div(row_blocks, s.shares)
            row_blocks = each * s.shares
            rest, row_block = self._split(body, task, each)
            rest, column_block = self._split(body, rest, column_blocks)
            if s.shares > 1:
                rest, share = self._split(body, rest, s.shares)
                row_block = bind(builder, body, share * builder.parameter(each) + row_block)
        self.m0 = bind(builder, body, row_block * mt, "row")
        self.m1 = bind(builder, body, minimum(self.m0 + mt, self.rows), "row")
        self.n0 = bind(builder, body, column_block * nt, "col")
        self.n1 = bind(builder, body, minimum(self.n0 + nt, self.columns), "col")
        with builder.within("batch"):
            self.batch = tuple(bind(builder, body, d, "g") for d in digits(builder, rest, c.batch))
        tile = s.mr * s.nr
        self.sums = ""
        if s.blocked:
            self.sums = builder.scratch(c.dtype, -(-s.mt // s.mr) * -(-s.nt // s.nr) * tile)
        else:
            self.sums = builder.scratch(c.dtype, tile)
        if s.pack_b == "task":
            self.panels = builder.scratch(c.dtype, s.kc * -(-s.nt // s.nr) * s.nr)
        body += self._blocks()
        tasks = product(c.batch) * row_blocks * column_blocks
        macs = product(c.batch) * c.rows * c.columns * product(c.inner)
        delivery = GATES // 2 // c.beside if c.beside > 1 else 1
        work = macs // (s.lanes * 2) + product(c.batch) * c.rows * c.columns * delivery // s.lanes
        return builder.launch(
            f"{c.name}_{s.mr}x{s.nr}", body, "task", tasks, work, equations=c.equations, note=f"product {s}"
        )

    def _split(self, body: list[Stmt], flat: Expr, count: Size) -> tuple[Expr, Expr]:
        extent = self.builder.parameter(count)
        return bind(self.builder, body, flat // extent), bind(self.builder, body, flat % extent)

    def _blocks(self) -> list[Stmt]:
        """The loops over blocks of k."""
        c, s, builder = self.c, self.s, self.builder
        if not c.inner:
            return self._tiles(None, None)
        outer_sizes = c.inner[: s.digit]
        names = [builder.fresh("k") for _ in outer_sizes]
        self.outer = tuple(Var(n, INT) for n in names)
        extent = self.inner[s.digit]
        if not s.blocked:
            self.block = (const(0), extent)
            return self._tiles(None, None)
        number = builder.fresh("k")
        step = builder.parameter(int(s.kd))
        body: list[Stmt] = []
        cut = bind(builder, body, Var(number, INT) * step, "k")
        stop = bind(builder, body, minimum(cut + step, extent))
        self.block = (cut, stop)
        first: Expr = Var(number, INT).equals(0)
        last: Expr = stop >= extent
        for variable, size in zip(self.outer, self.inner):
            first = first & variable.equals(0)
            last = last & (variable + 1 >= size)
        first, last = bind(builder, body, first), bind(builder, body, last)
        body += self._tiles(first, last)
        blocks = builder.parameter(ceil_div(c.inner[s.digit], int(s.kd)))
        loop: list[Stmt] = [For(number, const(0), apply("max", blocks, const(1)), 1, tuple(body))]
        for name, size in zip(reversed(names), reversed(self.inner[: s.digit])):
            loop = [For(name, const(0), apply("max", size, const(1)), 1, tuple(loop))]
        return loop

    def _tiles(self, first: Expr | None, last: Expr | None) -> list[Stmt]:
        """Packing of B, then the loops over tiles."""
        c, s, builder = self.c, self.s, self.builder
        body: list[Stmt] = []
        columns, rows = builder.fresh("col"), builder.fresh("m")
        self.n, self.m = Var(columns, INT), Var(rows, INT)
        below: Expr = const(1)
        for size in self.inner[s.digit + 1 :]:
            below = below * size
        self.depth = bind(builder, body, (self.block[1] - self.block[0]) * below) if c.inner else const(1)
        if s.pack_b == "task":
            at = builder.fresh("col")
            copy = _copy_panel(
                c,
                builder,
                c.b,
                self.batch,
                Var(at, INT),
                c.columns,
                s.nr,
                const(s.nr),
                s.lanes,
                s.digit,
                self.outer,
                self.block,
                lambda k, offset: (self.panels, (Var(at, INT) - self.n0) * self.depth + self._local(k) * s.nr + offset),
            )
            body.append(For(at, self.n0, self.n1, s.nr, tuple(copy)))
        inside: list[Stmt] = []
        self.place = const(0)
        if s.blocked:
            column_panel = (self.n - self.n0) // s.nr
            row_panel = (self.m - self.m0) // s.mr
            panels = builder.parameter(-(-s.mt // s.mr), "row panels")
            self.place = bind(builder, inside, (column_panel * panels + row_panel) * (s.mr * s.nr))
        self.first = bind(builder, inside, minimum(self.m, self.rows - s.mr), "r") if self.shifts else self.m
        inside += self._tile(first, last)
        loops = [(columns, self.n0, self.n1, s.nr), (rows, self.m0, self.m1, s.mr)]
        for name, start, stop, step in loops if s.brief else reversed(loops):
            inside = [For(name, start, stop, step, tuple(inside))]
        return [*body, *inside]

    def _local(self, k: Digits) -> Expr:
        """The number of k within its block."""
        if not k:
            return const(0)
        within = k[self.s.digit :]
        return flatten(self.builder, (within[0] - self.block[0], *within[1:]), self.c.inner[self.s.digit :])

    def _tile(self, first: Expr | None, last: Expr | None) -> list[Stmt]:
        """The micro-kernel and, after the last block, the sink."""
        s, builder = self.s, self.builder
        names = [[builder.fresh("c") for _ in range(s.nv)] for _ in range(s.mr)]
        every = [(i, v, names[i][v]) for i in range(s.mr) for v in range(s.nv)]
        body: list[Stmt] = [Register(name, zero(self.vector)) for _, _, name in every]

        def slot(i: int, v: int) -> Expr:
            return self.place + (i * s.nr + v * s.lanes)

        if first is not None:
            body.append(
                If(first, (), tuple(Set(name, Load(self.sums, slot(i, v), self.vector)) for i, v, name in every))
            )
        body += self._sum(names, last)
        keep = [Store(self.sums, slot(i, v), Get(name, self.vector)) for i, v, name in every]
        sink = self._sink()
        straight = self._straight(every) if s.brief and last is None else None
        if straight is not None:
            whole = (self.m + s.mr <= self.m1) & (self.n + s.nr <= self.n1)
            return [*body, If(whole, tuple(straight), (*keep, *sink))]
        return [*body, *keep, *(sink if last is None else [If(last, tuple(sink))])]

    def _straight(self, every: list[tuple[int, int, str]]) -> list[Stmt] | None:
        """Delivers the sums of a whole tile from registers; None where that would be a long text."""
        c, s = self.c, self.s
        if not self.ahead or not c.vector_store or s.lanes == 1:
            return None
        body: list[Stmt] = []
        for number, (i, v, name) in enumerate(every, 1):
            over_rows = partial(self._deliver, self.m + i, Get(name, self.vector))
            body += c.store(self.builder, self.batch, self.n + v * s.lanes, s.lanes, None, over_rows)
            if len(body) > STRAIGHT * number:
                return None
        return body

    @staticmethod
    def _deliver(row: Expr, value: Expr, deliver: Deliver) -> list[Stmt]:
        return deliver(row, value)

    def _sum(self, names: list[list[str]], last: Expr | None) -> list[Stmt]:
        """Outer products over the block of k."""
        c, s, builder = self.c, self.s, self.builder
        body: list[Stmt] = []
        vectors = s.mr * s.nv // c.beside
        fetched = bind(builder, body, apply("select", last, vectors, const(0))) if last is not None else const(vectors)
        a_base = b_base = None
        if self.packed_a is not None:
            panels = builder.parameter(ceil_div(c.rows, s.mr), "panels of a")
            outer = flatten(
                builder,
                tuple(b for b, used in zip(self.batch, c.a.batch) if used),
                tuple(z for z, used in zip(c.batch, c.a.batch) if used),
            )
            depth = builder.parameter(product(c.inner), "depth")
            a_base = bind(builder, body, (outer * panels + self.m // s.mr) * depth * s.mr)
        if self.packed_b is not None:
            panels = builder.parameter(ceil_div(c.columns, s.nr), "panels of b")
            outer = flatten(
                builder,
                tuple(b for b, used in zip(self.batch, c.b.batch) if used),
                tuple(z for z, used in zip(c.batch, c.b.batch) if used),
            )
            depth = builder.parameter(product(c.inner), "depth")
            b_base = bind(builder, body, (outer * panels + self.n // s.nr) * depth * s.nr)
        elif s.pack_b == "task":
            b_base = bind(builder, body, (self.n - self.n0) * self.depth)
        if a_base is not None:
            rows = []
        elif self.together:
            rows = [self.first + i for i in range(s.mr)]
        else:
            rows = [bind(builder, body, minimum(self.m + i, self.rows - 1), "r") for i in range(s.mr)]
        masks: list[Expr | None] = [None] * s.nv
        if b_base is None and not (isinstance(c.columns, int) and c.columns % s.nr == 0):
            masks = [
                bind(builder, body, lane_mask(self.n + v * s.lanes, s.lanes, self.columns), "q") for v in range(s.nv)
            ]
        a_buffer = builder.buffer(self.packed_a, "read") if self.packed_a is not None else ""
        b_buffer = builder.buffer(self.packed_b, "read") if self.packed_b is not None else getattr(self, "panels", "")
        scalar = Type(c.dtype)

        def step(k: Digits, number: Expr, local: Expr) -> list[Stmt]:
            """One value of k: `number` among all and `local` within the block."""
            out: list[Stmt] = []
            bs = []
            for v in range(s.nv):
                if b_base is not None:
                    at = local if s.pack_b == "task" else number
                    value: Expr = Load(b_buffer, b_base + at * s.nr + v * s.lanes, self.vector)
                else:
                    value = c.b.load(builder, self.batch, self.n + v * s.lanes, k, s.lanes, masks[v])
                    out += self._ahead(c.b, self.n + v * s.lanes, k)
                bs.append(bind(builder, out, value, "v"))
            if a_base is None:
                out += self._ahead(c.a, self.m, k)
                out += self._ahead(c.a, self.m + s.lanes, k, 0)
            for i in range(s.mr):
                if a_base is not None:
                    value = Load(a_buffer, a_base + number * s.mr + i, scalar)
                else:
                    value = c.a.load(builder, self.batch, rows[i], k, 1, None)
                left = bind(builder, out, splat(value, s.lanes), "a")
                out += [Set(names[i][v], c.add_product(left, bs[v], Get(names[i][v], self.vector))) for v in range(s.nv)]
            return out

        if a_base is not None and b_base is not None:
            flat = builder.fresh("k")
            start = bind(
                builder,
                body,
                flatten(builder, (*self.outer, self.block[0], *([const(0)] * len(c.inner[s.digit + 1 :]))), c.inner)
                if c.inner
                else const(0),
            )
            inside = self._fetch(Var(flat, INT), fetched) + step((), start + Var(flat, INT), Var(flat, INT))
            body.append(For(flat, const(0), self.depth, 1, tuple(inside)))
            return body
        ks: list[Expr] = list(self.outer)
        loops: list[tuple[str, Expr, Expr]] = []
        unrolled: list[Digits] = [()]
        for number, size in enumerate(c.inner[s.digit :], s.digit):
            tail = number == len(c.inner) - 1
            if number > s.digit and isinstance(size, int) and (size == 1 or (tail and size * s.mr * s.nv <= 40)):
                unrolled = [(const(i),) for i in range(size)] if tail else unrolled
                if not tail:
                    ks.append(const(0))
                continue
            name = builder.fresh("k")
            start, stop = self.block if number == s.digit else (const(0), self.inner[number])
            loops.append((name, start, stop))
            ks.append(Var(name, INT))
        inside = self._fetch(self._local((*ks, *unrolled[0])), fetched)
        for final in unrolled:
            k = (*ks, *final)
            inside += step(k, flatten(builder, k, c.inner) if c.inner else const(0), self._local(k))
        for name, start, stop in reversed(loops):
            inside = [For(name, start, stop, 1, tuple(inside))]
        body += inside
        return body

    def _ahead(self, operand: Operand, position: Expr, k: Digits, steps: int = AHEAD) -> list[Stmt]:
        """Fetches what is read of an operand some steps later: the rows of a matrix lie too far apart for the processor to
        guess."""
        if not self.ahead or not operand.cheap or not operand.contiguous or not k or isinstance(k[-1], Const):
            return []
        value = operand.load(self.builder, self.batch, position, (*k[:-1], k[-1] + steps), self.s.lanes, None)
        return [Prefetch(value.buffer, value.index)] if isinstance(value, Load) and value.index.type == INT else []

    def _fetch(self, number: Expr, stop: Expr) -> list[Stmt]:
        """Asks for what the sink will read and write for the vector of that number in the tile, if it is below `stop`."""
        c, s, builder = self.c, self.s, self.builder
        if not self.ahead or not c.vector_store or s.mr * s.nv < FETCHED:
            return []
        lets: dict[str, Expr] = {}
        row, column = Var(builder.fresh("row"), INT), Var(builder.fresh("col"), INT)
        found: dict[tuple[Storage, Expr], Prefetch] = {}

        def plain(e: Expr) -> Expr:
            """An index in terms of the row and the column."""
            if isinstance(e, Var) and e.name in lets:
                return plain(lets[e.name])
            return Apply(e.op, tuple(map(plain, e.args)), e.type) if isinstance(e, Apply) else e

        def note(buffer: str, index: Expr) -> None:
            storage = builder.storage(buffer)
            index = plain(index)
            parts = list(walk_exprs(index))
            if storage is not None and index.type == INT and row in parts and not any(isinstance(e, Load) for e in parts):
                found.setdefault((storage, index), Prefetch(buffer, index))

        one = Var(builder.fresh("v"), self.vector)
        value = (one,) * c.beside if c.beside > 1 else one
        for x in c.store(builder, self.batch, column, s.lanes, None, lambda deliver: deliver(row, value)):
            if not isinstance(x, (Let, Store)):
                return []
            for e in walk_exprs(x.value):
                if isinstance(e, Load):
                    note(e.buffer, e.index)
            if isinstance(x, Let):
                lets[x.name] = x.value
            else:
                note(x.buffer, x.index)
        if not found:
            return []
        fetches = list(found.values())
        if c.beside > 1:
            if c.width % s.lanes:  # vectors lie across two lines
                fetches += [Prefetch(x.buffer, x.index + (s.lanes - 1)) for x in found.values()]
            at = [Let(row.name, self.m + number), Let(column.name, self.n // s.nr * s.lanes)]
        else:
            at = [Let(row.name, self.m + number // s.nv), Let(column.name, self.n + number % s.nv * s.lanes)]
        return [If(number < stop, (*at, *fetches))]

    def _sink(self) -> list[Stmt]:
        """Delivers the sums of a tile: columns outside, so that what depends on them only is computed once for
        all rows."""
        c, s, builder = self.c, self.s, self.builder
        if c.beside > 1:
            return self._sink_beside()
        j = builder.fresh("j")
        column = self.n + Var(j, INT)
        rows = minimum(const(s.mr), self.m1 - self.m)
        columns = minimum(const(s.nr), self.n1 - self.n)
        lanes = s.lanes if c.vector_store else 1

        def over_rows(deliver: Deliver) -> list[Stmt]:
            i = builder.fresh("i")
            index = self.place + (self.m - self.first + Var(i, INT) if self.shifts else Var(i, INT)) * s.nr + Var(j, INT)
            body = deliver(self.m + Var(i, INT), Load(self.sums, index, Type(c.dtype, lanes)))
            return out_of_loop(For(i, const(0), rows, 1, tuple(body)))

        store = c.store(builder, self.batch, column, lanes, None, over_rows)
        if lanes > 1 and not (isinstance(c.columns, int) and c.columns % lanes == 0):
            masked = c.store(builder, self.batch, column, lanes, lane_mask(column, lanes, self.columns), over_rows)
            store = masked if mask_registers(self.vector) else [If(column + lanes <= self.columns, tuple(store), tuple(masked))]
        return out_of_loop(For(j, const(0), columns, lanes, tuple(store)))

    def _sink_beside(self) -> list[Stmt]:
        """Delivers the vectors of a row of the tile together: they are the same columns of several parts."""
        c, s, builder = self.c, self.s, self.builder
        body: list[Stmt] = []
        column = bind(builder, body, self.n // s.nr * s.lanes, "col")

        def over_rows(deliver: Deliver) -> list[Stmt]:
            i = builder.fresh("i")
            row = self.place + (self.m - self.first + Var(i, INT) if self.shifts else Var(i, INT)) * s.nr
            values = tuple([Load(self.sums, row + v * s.lanes, self.vector) for v in range(s.nv)])
            loop = For(i, const(0), minimum(const(s.mr), self.m1 - self.m), 1, tuple(deliver(self.m + Var(i, INT), values)))
            return out_of_loop(loop)

        if c.width % s.lanes == 0:
            return [*body, *c.store(builder, self.batch, column, s.lanes, None, over_rows)]
        mask = bind(builder, body, lane_mask(column, s.lanes, const(c.width)), "q")
        masked = c.store(builder, self.batch, column, s.lanes, mask, over_rows)
        if mask_registers(self.vector):
            return [*body, *masked]
        whole = c.store(builder, self.batch, column, s.lanes, None, over_rows)
        return [*body, If(column + s.lanes <= c.width, tuple(whole), tuple(masked))]
