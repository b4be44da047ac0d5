"""Attention tile by tile: scores live in private memory only, a block of them at a time. Its gradient: `attention_gradient.py`.

A task has some vectors of queries, which stay along the lanes: a tile of scores has keys as rows and a vector of queries as
lanes, so that the softmax of a query is vertical arithmetic, and no operand but the queries is turned around:

    task = (batch, head, block of BQ queries)
      copy the queries, scaled, as [E][BQ]
      for each block of BK keys, as far as a query looks:
        for each vector of queries:
          scores[key][query] = <k, q>, and the running maximum of each query
          weights = exp(scores - maximum), and their running sum
        out[query] = out[query] * exp(old maximum - new one) + sum over keys of weights * v[key]
      out / sum is stored

k and v are read where they lie, through any strides. With `causal`, a vector computes the scores of keys up to its last query,
and a tile of `out` sums up to the last of its own. The order of every sum depends on sizes only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ndarray.dims import Size, product

from .contraction import bind, ceil_div, digits, hint, lane_mask, minimum, multiply_add, zero
from .launch import KernelBuilder, Launch, Position, Sink, Source
from .loopir import (
    BOOL,
    INT,
    Apply,
    Const,
    Expr,
    For,
    Get,
    If,
    Load,
    Prefetch,
    Register,
    Set,
    Stmt,
    Store,
    Type,
    Var,
    apply,
    cast,
    const,
    ramp,
    splat,
)
from .target import ITEMSIZE, Target
from .turn import transposed

__all__ = ["AttentionKernel", "lower_attention"]

Reach = Callable[[Expr, Expr], tuple[Expr, Expr]]
"""(first row of a tile, its last row) -> (first k, end of k) of its sums."""

VECTORS = 2
"""Vectors of queries of a block, at most."""


def lower_attention(name: str, attrs: Mapping[str, Any], sources: Sequence[Source], sinks: Sequence[Sink | None],
                    target: Target, equations: tuple) -> list[Launch]:
    """The launch that computes (out, shift, total) from (q, k, v[, mask]), as `ndarray.ops.attention` defines them.

    `sinks` are those of the results, None where nobody wants one. Any size but that of the keys may be 0 or symbolic.
    """
    mask = sources[3] if len(sources) == 4 else None
    return [_Forward(attrs, sources[:3], mask, target).build(sinks, equations)]


class AttentionKernel:
    """What both directions share."""

    def __init__(self, attrs: Mapping[str, Any], sources: Sequence[Source], mask: Source | None, target: Target):
        self.q, self.k, self.v = sources[:3]
        self.mask, self.target = mask, target
        self.scale, self.causal = attrs["scale"], attrs["causal"]
        self.builder = KernelBuilder()
        self.dtype = self.q.dtype
        self.lanes = target.lanes(self.dtype)
        self.vector, self.scalar = Type(self.dtype, self.lanes), Type(self.dtype)
        self.lowest = float(np.finfo(self.dtype).min)
        *self.batch_sizes, length, heads, e = self.q.shape
        self.batch_sizes = [*self.batch_sizes, heads]
        self.sizes = length, self.k.shape[-3], e, self.v.shape[-1]
        # keys that no query of a block looks at; a row that a mask hides everything from sees them all
        self.skips = self.causal and (mask is None or (mask.dtype == "bool" and not target.threads))
        self.tight = self.causal and mask is None and not target.threads  # so that every vector has its own last key
        self.nv = 1 if target.threads or hint(length) <= self.lanes else VECTORS
        self.mr = self._rows_of_tile(hint(self.sizes[1]))
        self.bq = self.nv * self.lanes
        unit = max(self.mr, self.lanes) if self.tight else self.mr
        self.bk = -(-target.keys // unit) * unit
        self.batch: tuple[Expr, ...] = ()  # where the task stands: batch position and head, first query, number of queries
        self.q0: Expr = const(0)
        self.nq: Expr = const(0)
        self.length, self.keys, self.e, self.width = map(self.builder.size, self.sizes)
        shape = () if mask is None else mask.shape
        one = lambda n: isinstance(n, int) and n == 1
        self.dense = len(shape) > 1 and not one(shape[-2]) and not one(shape[-1]) and target.shuffles
        self.turned_mask = self.builder.scratch(self.dtype, (self.bk + self.lanes) * self.bq) if self.dense else ""

    def _rows_of_tile(self, keys: int) -> int:
        """Rows of keys of a tile of scores, one vector of queries wide: enough to hide the latency of a sum, and to leave few
        to be computed in vain; where vectors end at their own keys, a divisor or a multiple of their lanes."""
        if self.target.threads:
            return 8
        best, found = float("inf"), 1
        for mr in range(4, min(16, self.target.registers - 4) + 1):
            if self.tight and mr % self.lanes and self.lanes % mr:
                continue
            cost = -(-max(1, self.lanes if self.tight else keys) // mr) * (max(mr, 8) + 1.5)
            if cost <= best:
                best, found = cost, mr
        return found

    # -- positions
    def place(self, row: Expr, column: Expr, batch: tuple[Expr, ...] | None = None) -> tuple[Expr, ...]:
        """An index (..., position, head, column)."""
        batch = self.batch if batch is None else batch
        return (*batch[:-1], row, batch[-1], column)

    def rows_of(self, first: Expr, count: int, stop: Expr, body: list[Stmt]) -> list[Expr]:
        """`count` rows from `first` on; instead of those past the last, the last once more."""
        return [bind(self.builder, body, minimum(first + i, stop - 1), "r") for i in range(count)]

    def loop(self, name: str, start: Expr, stop: Expr, step: int, body: Callable[[Expr, list[Stmt]], None],
             unroll: int = 1) -> For:
        """A loop whose body is written by a function of its variable."""
        variable, inside = self.builder.fresh(name), []  # type: tuple[str, list[Stmt]]
        body(Var(variable, INT), inside)
        return For(variable, start, stop, step, tuple(inside), unroll)

    def over_vectors(self, body: list[Stmt], write: Callable[[Expr, list[Stmt]], None]) -> None:
        """For each vector of the block's queries, by the position of its first one in the block."""
        if self.nv == 1:
            write(const(0), body)
        else:
            body.append(self.loop("lane", const(0), self.nq, self.lanes, write))

    def batch_of(self, number: Expr, body: list[Stmt]) -> tuple[Expr, ...]:
        """Batch position and head by their number."""
        return tuple(bind(self.builder, body, d, "g") for d in digits(self.builder, number, tuple(self.batch_sizes)))

    # -- pieces
    def turn(self, source: Source, buffer: str, columns: Expr, scale: float | None) -> list[Stmt]:
        """Copy the block's rows of an operand as [column][query], with anything finite behind the last query."""
        if self.target.threads:
            return self._turn_vectors(source, buffer, columns, scale)
        body: list[Stmt] = []

        def vector(at: Expr, inside: list[Stmt]) -> None:
            rows = self.rows_of(self.q0 + at, self.lanes, self.length, inside)

            def square(e: Expr, steps: list[Stmt]) -> None:
                mask = bind(self.builder, steps, lane_mask(e, self.lanes, columns), "m")
                axis = len(source.shape) - 1
                values = [source.load(self.builder, Position(self.place(r, e), axis, self.lanes, mask)) for r in rows]
                for u, column in enumerate(transposed(self.builder, steps, values)):
                    column = column if scale is None else column * Const(scale, self.vector)
                    steps.append(Store(buffer, (e + u) * self.bq + at, column))

            inside.append(self.loop("e", const(0), columns, self.lanes, square))

        self.over_vectors(body, vector)
        return body

    def turned(self, columns: Size) -> str:
        """Memory for what `turn` makes."""
        return self.builder.scratch(self.dtype, ceil_div(columns, self.lanes) * self.lanes * self.bq)

    def _turn_vectors(self, source: Source, buffer: str, columns: Expr, scale: float | None) -> list[Stmt]:
        """`turn`, with lanes along the columns, and zeros behind the last query."""

        def row(q: Expr, body: list[Stmt]) -> None:
            def column(e: Expr, inside: list[Stmt]) -> None:
                mask = bind(self.builder, inside, lane_mask(e, self.lanes, columns), "m")
                there = bind(self.builder, inside, mask & splat(q < self.nq, self.lanes), "m")
                at = Position(self.place(minimum(self.q0 + q, self.length - 1), e), len(source.shape) - 1, self.lanes, there)
                value = source.load(self.builder, at)
                value = value if scale is None else value * Const(scale, self.vector)
                inside.append(Store(buffer, ramp(e * self.bq + q, self.bq, self.lanes), value, mask))

            body.append(self.loop("e", const(0), columns, self.lanes, column))

        return [self.loop("q", const(0), const(self.bq), 1, row)]

    def ahead(self, body: list[Stmt], source: Source, batch: tuple[Expr, ...], first: Expr, stop: Expr) -> None:
        """Ask for rows first..stop-1 of an operand: they lie too far apart for the processor to guess."""
        line = 64 // ITEMSIZE[self.dtype]

        def row(r: Expr, inside: list[Stmt]) -> None:
            def piece(e: Expr, steps: list[Stmt]) -> None:
                value = source.load(self.builder, Position(self.place(r, e, batch)))
                if isinstance(value, Load):
                    steps.append(Prefetch(value.buffer, value.index))

            inside.append(self.loop("e", const(0), self.builder.size(source.shape[-1]), line, piece))

        if not self.target.threads:
            body.append(self.loop("r", first, stop, 1, row))

    def product(self, body: list[Stmt], mr: int, nv: int, reach: tuple[Expr, Expr], left: Callable[[int, Expr], Expr],
                right: Callable[[int, Expr], Expr], start: Callable[[int, int], Expr] | None = None) -> list[list[Expr]]:
        """Sums over the k of `reach` of ``left(i, k) * right(v, k)`` in registers, from `start` on."""
        names = [[self.builder.fresh("c") for _ in range(nv)] for _ in range(mr)]
        for i in range(mr):
            for v in range(nv):
                body.append(Register(names[i][v], zero(self.vector) if start is None else start(i, v)))

        def step(k: Expr, inside: list[Stmt]) -> None:
            rights = [bind(self.builder, inside, right(v, k), "v") for v in range(nv)]
            for i in range(mr):
                a = bind(self.builder, inside, splat(left(i, k), self.lanes), "a")
                inside.extend(Set(names[i][v], multiply_add(a, rights[v], self.get(names[i][v]))) for v in range(nv))

        body.append(self.loop("k", *reach, 1, step, 4 if mr * nv <= 4 else 1))
        return [[self.get(n) for n in row] for row in names]

    def get(self, name: str) -> Expr:
        return Get(name, self.vector)

    def lanes_mask(self, first: Expr, stop: Expr, size: Size) -> Expr | None:
        """Which lanes from `first` on lie before `stop`, or None if `size` says that all do."""
        return None if isinstance(size, int) and size % self.lanes == 0 else lane_mask(first, self.lanes, stop)

    def keys_of(self, body: list[Stmt], at: Expr, k0: Expr, kn: Expr) -> Expr:
        """How many of the block's keys the vector at `at` has scores with."""
        if not self.tight or self.nv == 1:
            return kn
        last = apply("max", self.q0 + at + self.lanes - k0, const(0))
        return bind(self.builder, body, minimum(kn, last), "count")

    def scores(self, body: list[Stmt], buffer: str, queries: str, at: Expr, k0: Expr, kn: Expr) -> None:
        """Scores of the block's keys for the vector of queries at `at`, without masks, into `buffer` as [key][query]."""
        self.dot(body, self.k, self.e, buffer, queries, at, k0, kn)
        if self.dense:
            body.append(self._turn_mask(at, k0, kn))

    def dot(self, body: list[Stmt], source: Source, size: Expr, buffer: str, turned: str, at: Expr, k0: Expr, kn: Expr) -> None:
        """``buffer[key][query] = <source[k0 + key], turned[:, query]>`` for the vector of queries at `at`."""

        def tile(r: Expr, inside: list[Stmt]) -> None:
            rows = self.rows_of(k0 + r, self.mr, k0 + kn, inside)
            sums = self.product(
                inside, self.mr, 1, (const(0), size),
                lambda i, e: source.load(self.builder, Position(self.place(rows[i], e))),
                lambda v, e: Load(turned, e * self.bq + at, self.vector),
            )
            inside += [Store(buffer, (r + i) * self.bq + at, sums[i][0]) for i in range(self.mr)]

        body.append(self.loop("r", const(0), kn, self.mr, tile))

    def positions(self, body: list[Stmt], at: Expr) -> Expr | None:
        """The positions of the vector of queries at `at`, if `causal` asks for them."""
        if not self.causal:
            return None
        return bind(self.builder, body, ramp(cast(self.q0 + at, "int32"), 1, self.lanes), "at")

    def _mask_index(self, query: Expr, key: Expr) -> tuple[Expr, ...]:
        assert self.mask is not None
        shape = self.mask.shape
        full = (*self.batch, query, key)[-len(shape):] if shape else ()
        return tuple(const(0) if isinstance(n, int) and n == 1 else i for i, n in zip(full, shape))

    def _turn_mask(self, at: Expr, k0: Expr, kn: Expr) -> For:
        """Copy the mask of the vector of queries at `at` and the block's keys as [key][query]; bool as 1 and 0."""
        assert self.mask is not None
        mask, builder = self.mask, self.builder

        def square(r: Expr, body: list[Stmt]) -> None:
            rows = self.rows_of(self.q0 + at, self.lanes, self.length, body)
            there = bind(builder, body, lane_mask(k0 + r, self.lanes, self.keys), "m")
            places = [Position(self._mask_index(q, k0 + r), len(mask.shape) - 1, self.lanes, there) for q in rows]
            values = [cast(mask.load(builder, p), self.dtype) for p in places]
            for u, column in enumerate(transposed(builder, body, values)):
                body.append(Store(self.turned_mask, (r + u) * self.bq + at, column))

        return self.loop("r", const(0), kn, self.lanes, square)

    def mask_at(self, key: Expr, at: Expr, k0: Expr) -> Expr:
        """The mask of the vector of queries at `at` and a key."""
        assert self.mask is not None
        shape = self.mask.shape
        if self.dense:
            value = Load(self.turned_mask, (key - k0) * self.bq + at, self.vector)
            return value > Const(0.5, self.vector) if self.mask.dtype == "bool" else value
        index = self._mask_index(self.q0 + at, key)
        if len(shape) < 2 or (isinstance(shape[-2], int) and shape[-2] == 1):
            return splat(self.mask.load(self.builder, Position(index)), self.lanes)
        lanes = self.lanes_mask(self.q0 + at, self.length, self.sizes[0])
        return self.mask.load(self.builder, Position(index, len(shape) - 2, self.lanes, lanes))

    def masked(self, body: list[Stmt], value: Expr, key: Expr, at: Expr, k0: Expr,
               positions: Expr | None) -> tuple[Expr, Expr | None]:
        """(a score with the masks applied, as the formula does it: replaced, then added to; which queries keep theirs, or None:
        all). `positions` are those of the queries, None where `causal` hides nothing."""
        allowed = None if positions is None else bind(self.builder, body, positions >= splat(cast(key, "int32"), self.lanes), "m")
        if self.mask is not None and self.mask.dtype == "bool":
            mask = bind(self.builder, body, self.mask_at(key, at, k0), "m")
            allowed = mask if allowed is None else bind(self.builder, body, allowed & mask, "m")
        if allowed is not None:
            value = apply("select", allowed, value, Const(self.lowest, self.vector))
        if self.mask is not None and self.mask.dtype != "bool":
            value = value + self.mask_at(key, at, k0)
        return bind(self.builder, body, value, "score"), allowed

    def accumulate(self, buffer: str, rows: Expr, limit: int, size: Size, reach: Reach, left: Callable[[Expr, Expr], Expr],
                   source: Source, first: Expr, begin: Callable[[Expr, Expr], Expr] | None = None, fresh: Expr | None = None,
                   base: Expr | None = None) -> For:
        """``buffer[row][column] += sum over k of left(row, k) * source[first + k, column]`` for all rows below `rows`
        (no more than `limit`); ``begin(row, value)`` changes what was there before, `fresh` says that nothing was."""
        builder = self.builder
        mr, nv = self._wide_tile(limit, hint(size))
        columns, pad = builder.size(size), builder.size(self.padded(limit, size))
        base = const(0) if base is None else base

        def over_columns(n: Expr, body: list[Stmt]) -> None:
            masks = [self.lanes_mask(n + v * self.lanes, columns, size) for v in range(nv)]
            if nv > 1 and not (isinstance(size, int) and size % (nv * self.lanes) == 0):
                masks = [lane_mask(n + v * self.lanes, self.lanes, columns) for v in range(nv)]
            masks = [m if m is None else bind(builder, body, m, "m") for m in masks]

            def over_rows(r: Expr, inside: list[Stmt]) -> None:
                at = self.rows_of(r, mr, rows, inside)
                slot = lambda i, v: (base + at[i]) * pad + n + v * self.lanes  # the last row may come more than once, equal
                names = [[builder.fresh("o") for _ in range(nv)] for _ in range(mr)]
                every = [(i, v) for i in range(mr) for v in range(nv)]
                inside.extend(Register(names[i][v], zero(self.vector)) for i, v in every)
                old: list[Stmt] = []
                for i in range(mr):
                    for v in range(nv):
                        value: Expr = Load(buffer, slot(i, v), self.vector)
                        old.append(Set(names[i][v], value if begin is None else begin(at[i], value)))
                inside.extend(old if fresh is None else [If(fresh, (), tuple(old))])
                start, stop = reach(r, at[-1])
                ends = bind(builder, inside, start, "k"), bind(builder, inside, stop, "k")
                got = self.product(
                    inside, mr, nv, ends, lambda i, k: left(at[i], k),
                    lambda v, k: source.load(builder, Position(self.place(first + k, n + v * self.lanes),
                                                               len(source.shape) - 1, self.lanes, masks[v])),
                    lambda i, v: self.get(names[i][v]),
                )
                inside.extend(Store(buffer, slot(i, v), got[i][v]) for i, v in every)

            body.append(self.loop("r", const(0), rows, mr, over_rows))

        return self.loop("col", const(0), columns, nv * self.lanes, over_columns)

    def padded(self, limit: int, size: Size) -> Size:
        """A row of `accumulate`'s buffer of at most `limit` rows: whole tiles."""
        width = self._wide_tile(limit, hint(size))[1] * self.lanes
        return ceil_div(size, width) * width

    def _wide_tile(self, rows: int, columns: int) -> tuple[int, int]:
        """Rows and vectors of columns of a tile of `accumulate`. Where vectors of queries end at their own keys, no tile may
        reach beyond the scores of one vector."""
        best, tile = float("inf"), (1, 1)
        for nv in (1, 2) if self.target.threads else (1, 2, 3, 4):
            for mr in range(1, 17):
                if mr * nv + nv + 1 > self.target.registers or (self.tight and self.lanes % mr) or (not self.tight and mr > 14):
                    continue
                cost = -(-rows // mr) * -(-max(1, columns) // (nv * self.lanes)) * (max(mr * nv, mr + nv, 8) + 2 + 0.1 * mr * nv)
                if cost < best:
                    best, tile = cost, (mr, nv)
        return tile

    def store_rows(self, sink: Sink, buffer: str, rows: Expr, limit: int, first: Expr, size: Size,
                   factor: Callable[[Expr], Expr] | None) -> For:
        """Rows of a buffer of `accumulate`, times `factor`, to a result."""
        builder, lanes = self.builder, self.lanes
        columns, pad = builder.size(size), builder.size(self.padded(limit, size))

        def row(r: Expr, body: list[Stmt]) -> None:
            times = None if factor is None else bind(builder, body, splat(factor(r), lanes), "f")

            def column(n: Expr, inside: list[Stmt]) -> None:
                value: Expr = Load(buffer, r * pad + n, self.vector)
                value = value if times is None else value * times
                mask = self.lanes_mask(n, columns, size)
                mask = mask if mask is None else bind(builder, inside, mask, "m")
                inside += sink.store(builder, Position(self.place(first + r, n), len(sink.shape) - 1, lanes, mask), value)

            body.append(self.loop("col", const(0), columns, lanes, column))

        return self.loop("r", const(0), rows, 1, row)

    def fetch(self, body: list[Stmt], head: Expr, operands: Sequence[Source]) -> None:
        """Ask for the operands' rows of the block of queries behind this one; behind the last one of its head, for the first
        rows of the next head."""
        builder = self.builder
        following = bind(builder, body, self.q0 + self.bq, "next")
        last = bind(builder, body, following >= self.length, "last")
        batch = self.batch_of(bind(builder, body, head + apply("select", last, const(1), const(0)), "head"), body)
        first = bind(builder, body, apply("select", last, const(0), following), "next")
        for x in operands:
            count = builder.size(x.shape[-3])
            if x not in (self.k, self.v) or self.skips:
                self.ahead(body, x, batch, first, minimum(first + self.bq, count))
            else:  # all of a head's blocks read the same ones
                self.ahead(body, x, batch, const(0), apply("select", last, minimum(const(self.bk), count), const(0)))

    def stop_of(self, body: list[Stmt]) -> Expr:
        """How many keys the block's queries look at."""
        if not self.skips:
            return self.keys
        return bind(self.builder, body, minimum(self.q0 + self.nq, self.keys), "stop")

    def blind(self, peak: Callable[[Expr], Expr]) -> Expr:
        """Whether all that a query of the block looks at is hidden, by the maximum of the scores of the vector at a lane."""
        found: Expr = const(False, BOOL)
        for lane in (const(v * self.lanes) for v in range(self.nv)):
            lowest = peak(lane) <= Const(self.lowest, self.vector)
            one = Apply("reduce_or", (lowest & lane_mask(lane, self.lanes, self.nq),), BOOL)
            found = one if isinstance(found, Const) else apply("or", found, one)
        return found

    def up_to_query(self, k0: Expr, kn: Expr) -> Reach:
        """What rows of queries sum: keys of a block, with `tight` no further than the last query looks."""
        if not self.tight:
            return lambda first, last: (const(0), kn)
        return lambda first, last: (const(0), minimum(kn, self.q0 + last + 1 - k0))

    def rows_at(self, at: Expr) -> Position:
        """Where the vector of queries at `at` lies in an array (..., L, H)."""
        first = self.q0 + at
        index = (*self.batch[:-1], first, self.batch[-1])
        return Position(index, len(index) - 2, self.lanes, self.lanes_mask(first, self.length, self.sizes[0]))


class _Forward(AttentionKernel):
    def build(self, sinks: Sequence[Sink | None], equations: tuple) -> Launch:
        """The launch that fills the sinks."""
        builder, body = self.builder, []  # type: tuple[KernelBuilder, list[Stmt]]
        length, keys, e, width = self.sizes
        blocks = ceil_div(length, self.bq)
        task: Expr = Var("task", INT)
        count = builder.size(blocks)
        self.q0 = bind(builder, body, task % count * self.bq, "q")
        self.nq = bind(builder, body, minimum(self.length - self.q0, const(self.bq)), "count")
        self.batch = self.batch_of(bind(builder, body, task // count), body)
        queries, weights = self.turned(e), builder.scratch(self.dtype, self.bk * self.bq)
        out = builder.scratch(self.dtype, self.bq * self.padded(self.bq, width))
        peaks, sums, factors = (builder.scratch(self.dtype, self.bq) for _ in range(3))
        if not self.target.threads:
            self.fetch(body, task // count, (self.q, self.k, self.v))
        body += self.turn(self.q, queries, self.e, self.scale)
        stop = self.stop_of(body)
        at = lambda buffer, lane: Load(buffer, lane, self.vector)
        self.over_vectors(body, lambda lane, b: b.extend((
            Store(peaks, lane, Const(self.lowest, self.vector)), Store(sums, lane, zero(self.vector)))))

        def block(k0: Expr, end: Expr, inside: list[Stmt]) -> None:
            kn = bind(builder, inside, minimum(end - k0, const(self.bk)), "count")

            def softmax(lane: Expr, steps: list[Stmt]) -> None:
                seen = self.keys_of(steps, lane, k0, kn)
                old = bind(builder, steps, at(peaks, lane), "old")
                peak, total = builder.fresh("peak"), builder.fresh("sum")
                steps.append(Register(peak, old))
                self.scores(steps, weights, queries, lane, k0, seen)
                positions = self.positions(steps, lane)

                def look(masked: bool) -> Callable[[Expr, list[Stmt]], None]:
                    def row(r: Expr, more: list[Stmt]) -> None:
                        score: Expr = at(weights, r * self.bq + lane)
                        if masked:
                            score, _ = self.masked(more, score, k0 + r, lane, k0, positions)
                            more.append(Store(weights, r * self.bq + lane, score))
                        more.append(Set(peak, apply("max", self.get(peak), score)))

                    return row

                hidden = seen  # the first key that a query may not look at
                if self.mask is not None:
                    hidden = const(0)
                elif self.causal:
                    hidden = bind(builder, steps, apply("max", minimum(seen, self.q0 + lane - k0), const(0)), "from")
                if self.mask is None:
                    steps.append(self.loop("r", const(0), hidden, 1, look(False)))
                if hidden is not seen:
                    steps.append(self.loop("r", hidden, seen, 1, look(True)))
                top = bind(builder, steps, self.get(peak), "top")
                shrink = bind(builder, steps, apply("exp", old - top), "f")
                steps.append(Register(total, at(sums, lane) * shrink))

                def row(r: Expr, more: list[Stmt]) -> None:
                    p = bind(builder, more, apply("exp", at(weights, r * self.bq + lane) - top), "p")
                    more += [Store(weights, r * self.bq + lane, p), Set(total, self.get(total) + p)]

                steps.append(self.loop("r", const(0), seen, 1, row))
                steps += [Store(peaks, lane, top), Store(factors, lane, shrink), Store(sums, lane, self.get(total))]

            self.over_vectors(inside, softmax)
            inside.append(self.accumulate(
                out, self.nq, self.bq, width, self.up_to_query(k0, kn), lambda i, k: Load(weights, k * self.bq + i, self.scalar),
                self.v, k0, lambda i, old: old * splat(Load(factors, i, self.scalar), self.lanes), k0.equals(0)))

        def blocks_of_keys(start: Expr, end: Expr, inside: list[Stmt]) -> None:
            inside.append(self.loop("k", start, end, self.bk, lambda k0, b: block(k0, end, b)))

        if self.skips and self.mask is not None:  # then, if a mask hides all of that from a query, the other keys

            def phase(number: Expr, inside: list[Stmt]) -> None:
                rest = apply("select", self.blind(lambda lane: at(peaks, lane)), self.keys, stop)
                end = bind(builder, inside, apply("select", number.equals(0), stop, rest), "end")
                blocks_of_keys(number * stop, end, inside)

            body.append(self.loop("phase", const(0), const(2), 1, phase))
        else:
            blocks_of_keys(const(0), stop, body)
        inverse = lambda lane, b: b.append(Store(factors, lane, Const(1.0, self.vector) / at(sums, lane)))
        self.over_vectors(body, inverse)
        if sinks[0] is not None:
            body.append(self.store_rows(sinks[0], out, self.nq, self.bq, self.q0, width, lambda r: Load(factors, r, self.scalar)))

        def rows(lane: Expr, inside: list[Stmt]) -> None:
            for sink, value in zip(sinks[1:], (at(peaks, lane), apply("log", at(sums, lane)))):
                if sink is not None:
                    inside += sink.store(builder, self.rows_at(lane), value)

        if any(sinks[1:]):
            self.over_vectors(body, rows)
        heads = product(self.batch_sizes)
        work = heads * length * keys * (e + width + 16) // (2 * self.lanes) // (2 if self.skips else 1)
        return builder.launch("attention", body, "task", heads * blocks, work, equations=equations, note="attention")
