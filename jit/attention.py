"""Attention tile by tile, forward and backward: scores live in private memory only, a block of them at a time.

A task has some vectors of queries, which stay along the lanes: a tile of scores has keys as rows and queries as lanes, so
that the softmax of a query is vertical arithmetic, and no operand but the queries is turned around. Forward:

    task = (batch, head, block of BQ queries)
      copy the queries, scaled, as [E][BQ]
      for each block of BK keys (with `causal` only as far as the last query looks):
        scores[key][query] = <k, q>, and the running maximum of each query
        weights = exp(scores - maximum), and their running sum
        out[query] = out[query] * exp(old maximum - new one) + sum over keys of weights * v[key]
      out / sum is stored

The gradient makes the weights of a block again from the maximum and the sum, and from them all it needs; a task has a whole
head (or alone some queries' gradients, or some keys'), so that nothing is added up between tasks. k and v are read where
they lie, through any strides. The order of every sum depends on sizes only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ndarray.dims import Size, product

from .contraction import bind, ceil_div, digits, hint, lane_mask, minimum, multiply_add, zero
from .launch import KernelBuilder, Launch, Position, Sink, Source
from .loopir import INT, Const, Expr, For, Get, If, Load, Register, Set, Stmt, Store, Type, Var, apply, cast, const, ramp, splat
from .target import Target

__all__ = ["lower_attention", "lower_attention_gradient"]

FEW_HEADS = 4  # below so many, tasks of the gradient are parts of heads
PARTS = 4  # at least so many of each


def lower_attention(name: str, attrs: Mapping[str, Any], sources: Sequence[Source], sinks: Sequence[Sink | None],
                    target: Target, equations: tuple) -> list[Launch]:
    """The launch that computes (out, shift, total) from (q, k, v[, mask]), as `ndarray.ops.attention` defines them.

    `sinks` are those of the results, None where nobody wants one. Any size but that of the keys may be 0 or symbolic.
    """
    mask = sources[3] if len(sources) == 4 else None
    return [_Forward(attrs, sources[:3], mask, target).build(sinks, equations)]


def lower_attention_gradient(name: str, attrs: Mapping[str, Any], sources: Sequence[Source], sinks: Sequence[Sink | None],
                             target: Target, equations: tuple) -> list[Launch]:
    """The launches that compute (dq, dk, dv) from (q, k, v[, mask], shift, total, delta, upstream): one over heads, or where
    there are few of them one over queries for dq and one over keys for dk and dv, each of which makes the weights."""
    mask = sources[3] if len(sources) == 8 else None
    heads = hint(product((*sources[0].shape[:-3], sources[0].shape[-2])))
    of_q, of_k, of_v = sinks
    parts = [(of_q, None, None), (None, of_k, of_v)] if 0 < heads < FEW_HEADS or target.threads else [(of_q, of_k, of_v)]
    return [_Backward(attrs, (*sources[:3], *sources[-4:]), mask, target, part, len(parts) > 1).build(equations)
            for part in parts if any(part)]


class _Kernel:
    """What both directions share."""

    def __init__(self, attrs: Mapping[str, Any], sources: Sequence[Source], mask: Source | None, target: Target, block: int):
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
        self.skips = self.causal and mask is None  # keys that no query of a block looks at; a row may else see them all
        self.nv, self.mr = self._tile(hint(length), hint(self.sizes[1]))
        self.bq = self.nv * self.lanes
        self.bk = -(-block // self.mr) * self.mr
        self.batch: tuple[Expr, ...] = ()  # where the task stands: batch position and head, first query, number of queries
        self.q0: Expr = const(0)
        self.nq: Expr = const(0)
        self.length, self.keys, self.e, self.width = map(self.builder.size, self.sizes)

    def _tile(self, length: int, keys: int) -> tuple[int, int]:
        """Vectors of queries and rows of keys of a tile of scores: two vectors if they leave few lanes idle and few scores
        to be computed in vain. With more, what is between the two products no longer fits the first-level cache."""
        best, tile = float("inf"), (1, 1)
        if self.target.threads:
            return 1, 8
        for nv in (1, 2):
            mr, width = min(14, (self.target.registers - nv - 2) // nv), nv * self.lanes
            firsts = range(0, max(1, length), width)
            seen = sum(min(keys, first + width) for first in firsts) if self.skips else keys * len(firsts)
            cost = seen * nv * max(1.0, (mr + nv) / (mr * nv))  # one load a multiply-add, or more
            if cost < best:
                best, tile = cost, (nv, mr)
        return tile

    # -- positions
    def place(self, row: Expr, column: Expr) -> tuple[Expr, ...]:
        """An index (..., position, head, column)."""
        return (*self.batch[:-1], row, self.batch[-1], column)

    def rows_of(self, first: Expr, count: int, stop: Expr, body: list[Stmt]) -> list[Expr]:
        """`count` rows from `first` on; instead of those past the last, the last once more."""
        return [bind(self.builder, body, minimum(first + i, stop - 1), "r") for i in range(count)]

    def loop(self, name: str, start: Expr, stop: Expr, step: int, body: Callable[[Expr, list[Stmt]], None],
             unroll: int = 1) -> For:
        """A loop whose body is written by a function of its variable."""
        variable, inside = self.builder.fresh(name), []  # type: tuple[str, list[Stmt]]
        body(Var(variable, INT), inside)
        return For(variable, start, stop, step, tuple(inside), unroll)

    # -- pieces
    def turn(self, source: Source, buffer: str, columns: Expr, scale: float | None) -> list[Stmt]:
        """Copy the block's rows of an operand as [column][query], with zeros behind the last query."""
        if self.target.threads:
            return self._turn_vectors(source, buffer, columns, scale)

        def row(q: Expr, body: list[Stmt]) -> None:
            def column(e: Expr, inside: list[Stmt]) -> None:
                value = source.load(self.builder, Position(self.place(self.q0 + q, e)))
                value = value if scale is None else value * Const(scale, self.scalar)
                inside.append(Store(buffer, e * self.bq + q, value))

            body.append(self.loop("e", const(0), columns, 1, column, 4))

        def clear(q: Expr, body: list[Stmt]) -> None:
            def column(e: Expr, inside: list[Stmt]) -> None:
                inside.append(Store(buffer, e * self.bq + q, zero(self.scalar)))

            body.append(self.loop("e", const(0), columns, 1, column))

        return [self.loop("q", const(0), self.nq, 1, row), self.loop("q", self.nq, const(self.bq), 1, clear)]

    def _turn_vectors(self, source: Source, buffer: str, columns: Expr, scale: float | None) -> list[Stmt]:
        """`turn`, with lanes along the columns."""

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

    def product(self, body: list[Stmt], mr: int, nv: int, stop: Expr, left: Callable[[int, Expr], Expr],
                right: Callable[[int, Expr], Expr], start: Callable[[int, int], Expr] | None = None) -> list[list[str]]:
        """Sums over k < stop of ``left(i, k) * right(v, k)`` in registers, from `start` on; their names."""
        names = [[self.builder.fresh("c") for _ in range(nv)] for _ in range(mr)]
        for i in range(mr):
            for v in range(nv):
                body.append(Register(names[i][v], zero(self.vector) if start is None else start(i, v)))

        def step(k: Expr, inside: list[Stmt]) -> None:
            rights = [bind(self.builder, inside, right(v, k), "v") for v in range(nv)]
            for i in range(mr):
                a = bind(self.builder, inside, splat(left(i, k), self.lanes), "a")
                inside.extend(Set(names[i][v], multiply_add(a, rights[v], self.get(names[i][v]))) for v in range(nv))

        body.append(self.loop("k", const(0), stop, 1, step, 4 if mr * nv <= 12 else 1))
        return names

    def get(self, name: str) -> Expr:
        return Get(name, self.vector)

    def lanes_mask(self, first: Expr, stop: Expr, size: Size) -> Expr | None:
        """Which lanes from `first` on lie before `stop`, or None if `size` says that all do."""
        return None if isinstance(size, int) and size % self.lanes == 0 else lane_mask(first, self.lanes, stop)

    def scores(self, buffer: str, queries: str, k0: Expr, kn: Expr, deliver: Callable[[list[Stmt], int, Expr], None]) -> For:
        """Scores of the block's keys, masks applied, into `buffer` as [key][query]; ``deliver(body, v, value)`` sees them too."""

        def tile(r: Expr, body: list[Stmt]) -> None:
            rows = self.rows_of(k0 + r, self.mr, k0 + kn, body)
            names = self.product(
                body, self.mr, self.nv, self.e,
                lambda i, e: self.k.load(self.builder, Position(self.place(rows[i], e))),
                lambda v, e: Load(queries, e * self.bq + v * self.lanes, self.vector),
            )
            for i in range(self.mr):
                for v in range(self.nv):
                    value = self.masked(body, self.get(names[i][v]), rows[i], v)
                    deliver(body, v, value)
                    body.append(Store(buffer, (r + i) * self.bq + v * self.lanes, value))

        return self.loop("r", const(0), kn, self.mr, tile)

    def sees(self, key: Expr, v: int) -> Expr:
        """Which queries of vector `v` look at a key, by `causal`."""
        behind = cast(apply("max", minimum(key - self.q0 - v * self.lanes, const(self.lanes)), const(0)), "int32")
        return ramp(Const(0, behind.type), 1, self.lanes) >= splat(behind, self.lanes)

    def mask_at(self, key: Expr, v: int) -> Expr:
        """The mask of vector `v` of queries and a key."""
        assert self.mask is not None
        shape = self.mask.shape
        full = (*self.batch, self.q0 + v * self.lanes, key)[-len(shape):] if shape else ()
        one = lambda n: isinstance(n, int) and n == 1
        index = tuple(const(0) if one(n) else i for i, n in zip(full, shape))
        if len(shape) < 2 or one(shape[-2]):
            return splat(self.mask.load(self.builder, Position(index)), self.lanes)
        lanes = self.lanes_mask(self.q0 + v * self.lanes, self.length, self.sizes[0])
        return self.mask.load(self.builder, Position(index, len(shape) - 2, self.lanes, lanes))

    def allowed(self, body: list[Stmt], key: Expr, v: int) -> Expr | None:
        """Which queries keep their score, or None: all."""
        seen = bind(self.builder, body, self.sees(key, v), "m") if self.causal else None
        if self.mask is None or self.mask.dtype != "bool":
            return seen
        mask = bind(self.builder, body, self.mask_at(key, v), "m")
        return mask if seen is None else bind(self.builder, body, seen & mask, "m")

    def masked(self, body: list[Stmt], value: Expr, key: Expr, v: int) -> Expr:
        """A score with the masks applied, as the formula does it: replaced, then added to."""
        allowed = self.allowed(body, key, v)
        if allowed is not None:
            value = apply("select", allowed, value, Const(self.lowest, self.vector))
        if self.mask is not None and self.mask.dtype != "bool":
            value = value + self.mask_at(key, v)
        return bind(self.builder, body, value, "score")

    def accumulate(self, buffer: str, rows: Expr, limit: int, size: Size, stop: Expr, left: Callable[[Expr, Expr], Expr],
                   source: Source, first: Expr, begin: Callable[[Expr, Expr], Expr] | None = None, fresh: Expr | None = None,
                   base: Expr | None = None) -> For:
        """``buffer[row][column] += sum over k < stop of left(row, k) * source[first + k, column]`` for all rows below `rows`
        (no more than `limit`); ``begin(row, value)`` changes what was there before, `fresh` says that nothing was."""
        builder = self.builder
        mr, nv = self._wide_tile(limit, hint(size))
        columns, pad = builder.size(size), builder.size(self.padded(size))
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
                got = self.product(
                    inside, mr, nv, stop, lambda i, k: left(at[i], k),
                    lambda v, k: source.load(builder, Position(self.place(first + k, n + v * self.lanes),
                                                               len(source.shape) - 1, self.lanes, masks[v])),
                    lambda i, v: self.get(names[i][v]),
                )
                inside.extend(Store(buffer, slot(i, v), self.get(got[i][v])) for i, v in every)

            body.append(self.loop("r", const(0), rows, mr, over_rows))

        return self.loop("col", const(0), columns, nv * self.lanes, over_columns)

    def padded(self, size: Size) -> Size:
        """A row of `accumulate`'s buffer."""
        widest = (2 if self.target.threads else 4) * self.lanes
        return ceil_div(size, widest) * widest

    def _wide_tile(self, rows: int, columns: int) -> tuple[int, int]:
        best, tile = float("inf"), (1, 1)
        for nv in (1, 2) if self.target.threads else (1, 2, 4):
            for mr in range(1, 15):
                if mr * nv + nv + 1 > self.target.registers:
                    break
                cost = -(-rows // mr) * -(-max(1, columns) // (nv * self.lanes)) * (max(mr * nv, mr + nv, 8) + 2 + 0.1 * mr * nv)
                if cost < best:
                    best, tile = cost, (mr, nv)
        return tile

    def store_rows(self, sink: Sink, buffer: str, rows: Expr, first: Expr, size: Size, factor: Callable[[Expr], Expr] | None,
                   base: Expr | None = None) -> For:
        """Rows of a buffer, times `factor`, to a result."""
        builder, lanes = self.builder, self.lanes
        columns, pad = builder.size(size), builder.size(self.padded(size))
        base = const(0) if base is None else base

        def row(r: Expr, body: list[Stmt]) -> None:
            times = None if factor is None else bind(builder, body, splat(factor(r), lanes), "f")

            def column(n: Expr, inside: list[Stmt]) -> None:
                value: Expr = Load(buffer, (base + r) * pad + n, self.vector)
                value = value if times is None else value * times
                mask = self.lanes_mask(n, columns, size)
                mask = mask if mask is None else bind(builder, inside, mask, "m")
                inside += sink.store(builder, Position(self.place(first + r, n), len(sink.shape) - 1, lanes, mask), value)

            body.append(self.loop("col", const(0), columns, lanes, column))

        return self.loop("r", const(0), rows, 1, row)

    def stop_of(self, body: list[Stmt]) -> Expr:
        """How many keys the block's queries look at."""
        if not self.skips:
            return self.keys
        return bind(self.builder, body, minimum(self.q0 + self.nq, self.keys), "stop")

    def row_vector(self, v: int) -> tuple[tuple[Expr, ...], Expr | None]:
        """Where vector `v` of the queries lies in an array (..., L, H), and its lanes."""
        at = self.q0 + v * self.lanes
        return (*self.batch[:-1], at, self.batch[-1]), self.lanes_mask(at, self.length, self.sizes[0])


class _Forward(_Kernel):
    def __init__(self, attrs: Mapping[str, Any], sources: Sequence[Source], mask: Source | None, target: Target):
        super().__init__(attrs, sources, mask, target, target.keys)

    def build(self, sinks: Sequence[Sink | None], equations: tuple) -> Launch:
        builder, body = self.builder, []  # type: tuple[KernelBuilder, list[Stmt]]
        length, keys, e, width = self.sizes
        blocks = ceil_div(length, self.bq)
        task: Expr = Var("task", INT)
        count = builder.size(blocks)
        self.q0 = bind(builder, body, task % count * self.bq, "q")
        self.nq = bind(builder, body, minimum(self.length - self.q0, const(self.bq)), "count")
        rest = bind(builder, body, task // count)
        self.batch = tuple(bind(builder, body, d, "g") for d in digits(builder, rest, tuple(self.batch_sizes)))
        queries = builder.scratch(self.dtype, e * self.bq)
        weights = builder.scratch(self.dtype, self.bk * self.bq)
        out = builder.scratch(self.dtype, self.bq * self.padded(width))
        factors = builder.scratch(self.dtype, self.bq)
        body += self.turn(self.q, queries, self.e, self.scale)
        stop = self.stop_of(body)
        peaks, sums, olds = ([builder.fresh(p) for _ in range(self.nv)] for p in ("peak", "sum", "old"))
        body += [Register(n, Const(self.lowest, self.vector)) for n in peaks]
        body += [Register(n, zero(self.vector)) for n in sums]

        def block(k0: Expr, inside: list[Stmt]) -> None:
            kn = bind(builder, inside, minimum(stop - k0, const(self.bk)), "count")
            inside += [Register(n, self.get(p)) for n, p in zip(olds, peaks)]
            inside.append(self.scores(
                weights, queries, k0, kn, lambda b, v, s: b.append(Set(peaks[v], apply("max", self.get(peaks[v]), s)))))
            for v in range(self.nv):
                shrink = bind(builder, inside, apply("exp", self.get(olds[v]) - self.get(peaks[v])), "f")
                inside += [Store(factors, const(v * self.lanes), shrink), Set(sums[v], self.get(sums[v]) * shrink)]

            def row(r: Expr, steps: list[Stmt]) -> None:
                for v in range(self.nv):
                    at = r * self.bq + v * self.lanes
                    p = bind(builder, steps, apply("exp", Load(weights, at, self.vector) - self.get(peaks[v])), "p")
                    steps += [Store(weights, at, p), Set(sums[v], self.get(sums[v]) + p)]

            inside.append(self.loop("r", const(0), kn, 1, row, 2 if self.nv < 4 else 1))
            inside.append(self.accumulate(
                out, self.nq, self.bq, width, kn, lambda i, k: Load(weights, k * self.bq + i, self.scalar), self.v, k0,
                lambda i, old: old * splat(Load(factors, i, self.scalar), self.lanes), k0.equals(0)))

        body.append(self.loop("k", const(0), stop, self.bk, block))
        for v in range(self.nv):
            body.append(Store(factors, const(v * self.lanes), Const(1.0, self.vector) / self.get(sums[v])))
        if sinks[0] is not None:
            body.append(self.store_rows(sinks[0], out, self.nq, self.q0, width, lambda r: Load(factors, r, self.scalar)))
        for v in range(self.nv):
            index, mask = self.row_vector(v)
            values = (self.get(peaks[v]), apply("log", self.get(sums[v])))
            some: list[Stmt] = []
            for sink, value in zip(sinks[1:], values):
                if sink is not None:
                    some += sink.store(builder, Position(index, len(index) - 2, self.lanes, mask), value)
            body.append(If(self.q0 + v * self.lanes < self.length, tuple(some)))
        heads = product(self.batch_sizes)
        work = heads * length * keys * (e + width + 16) // (2 * self.lanes) // (2 if self.skips else 1)
        return builder.launch("attention", body, "task", heads * blocks, work, equations=equations, note="attention")


class _Backward(_Kernel):
    def __init__(self, attrs: Mapping[str, Any], sources: Sequence[Source], mask: Source | None, target: Target,
                 sinks: Sequence[Sink | None], cut: bool):
        super().__init__(attrs, sources, mask, target, target.keys)
        self.shift, self.total, self.delta, self.upstream = sources[3:]
        self.sinks, self.cut = sinks, cut
        self.first: Expr = const(0)  # of the task's keys

    def _part(self, body: list[Stmt], task: Expr, size: Size, block: int) -> tuple[Expr, Expr, Expr, int]:
        """The task's part of the queries or keys, in whole blocks: (the head's number, first, end, most of a part)."""
        most = block if self.target.threads else -(-max(1, hint(size)) // (PARTS * block)) * block
        count, all_of_it = self.builder.size(ceil_div(size, most)), self.builder.size(size)
        first = bind(self.builder, body, task % count * most, "first")
        end = bind(self.builder, body, minimum(first + most, all_of_it), "end")
        return bind(self.builder, body, task // count), first, end, most

    def build(self, equations: tuple) -> Launch:
        builder, body, sinks = self.builder, [], self.sinks  # type: tuple[KernelBuilder, list[Stmt], Sequence[Sink | None]]
        length, keys, e, width = self.sizes
        rest: Expr = Var("task", INT)
        heads = tasks = product(self.batch_sizes)
        self.end, held = self.keys, keys
        queries_first, queries_end = const(0), self.length  # type: tuple[Expr, Expr]
        if self.cut and sinks[0] is not None:
            rest, queries_first, queries_end, most = self._part(body, rest, length, self.bq)
            tasks = heads * ceil_div(length, most)
        elif self.cut:
            rest, self.first, self.end, held = self._part(body, rest, keys, self.bk)
            tasks = heads * ceil_div(keys, held)
            if self.skips:  # queries before the first key don't look at any
                queries_first = bind(builder, body, self.first // self.bq * self.bq, "q")
        self.batch = tuple(bind(builder, body, d, "g") for d in digits(builder, rest, tuple(self.batch_sizes)))
        queries, upstream = builder.scratch(self.dtype, e * self.bq), builder.scratch(self.dtype, width * self.bq)
        weights, slopes = (builder.scratch(self.dtype, self.bk * self.bq) for _ in range(2))
        of_q = builder.scratch(self.dtype, self.bq * self.padded(e))
        of_k = builder.scratch(self.dtype, held * self.padded(e))
        of_v = builder.scratch(self.dtype, held * self.padded(width))
        for sink, buffer, size in ((sinks[1], of_k, e), (sinks[2], of_v, width)):
            store = Store(buffer, Var("i", INT), zero(self.vector))
            if sink is not None:
                body.append(For("i", const(0), builder.size(held * self.padded(size)), self.lanes, (store,), 4))

        def over_queries(q0: Expr, inside: list[Stmt]) -> None:
            self.q0 = q0
            self.nq = bind(builder, inside, minimum(self.length - q0, const(self.bq)), "count")
            inside += self.turn(self.q, queries, self.e, self.scale)
            inside += self.turn(self.upstream, upstream, self.width, None)
            stop = self.stop_of(inside)
            rows: list[tuple[Expr, Expr, Expr]] = []
            for v in range(self.nv):
                index, mask = self.row_vector(v)
                if mask is not None:
                    mask = bind(builder, inside, mask, "m")
                at = Position(index, len(index) - 2, self.lanes, mask)
                rows.append(tuple(  # type: ignore[arg-type]
                    bind(builder, inside, s.load(builder, at), "x") for s in (self.shift, self.total, self.delta)))
            stop = bind(builder, inside, minimum(stop, self.end), "stop")
            inside.append(self.loop("k", self.first, stop, self.bk, lambda k0, b: self._block(
                b, k0, stop, rows, queries, upstream, weights, slopes, of_q, of_k, of_v)))
            if sinks[0] is not None:
                inside.append(self.store_rows(sinks[0], of_q, self.nq, q0, e, lambda r: Const(self.scale, self.scalar)))

        body.append(self.loop("q", queries_first, queries_end, self.bq, over_queries))
        scaled = lambda r: Const(self.scale, self.scalar)
        for sink, buffer, size, factor in ((sinks[1], of_k, e, scaled), (sinks[2], of_v, width, None)):
            if sink is not None:
                body.append(self.store_rows(sink, buffer, self.end - self.first, self.first, size, factor))
        work = heads * length * keys * (3 * e + 2 * width + 24) // (2 * self.lanes) // (2 if self.skips else 1)
        return builder.launch("attention_gradient", body, "task", tasks, work, equations=equations, note="attention gradient")

    def _block(self, body: list[Stmt], k0: Expr, stop: Expr, rows: list[tuple[Expr, Expr, Expr]], queries: str, upstream: str,
               weights: str, slopes: str, of_q: str, of_k: str, of_v: str) -> None:
        """All that a block of keys and the block of queries have to do with one another."""
        builder, lanes, (e, width) = self.builder, self.lanes, self.sizes[2:]
        kn = bind(builder, body, minimum(stop - k0, const(self.bk)), "count")
        body.append(self.scores(weights, queries, k0, kn, lambda b, v, s: None))

        def tile(r: Expr, inside: list[Stmt]) -> None:
            at = self.rows_of(k0 + r, self.mr, k0 + kn, inside)
            names = self.product(
                inside, self.mr, self.nv, self.width,
                lambda i, c: self.v.load(builder, Position(self.place(at[i], c))),
                lambda v, c: Load(upstream, c * self.bq + v * lanes, self.vector),
            )
            inside += [Store(slopes, (r + i) * self.bq + v * lanes, self.get(names[i][v]))
                       for i in range(self.mr) for v in range(self.nv)]

        def row(r: Expr, inside: list[Stmt]) -> None:
            for v, (shift, total, delta) in enumerate(rows):
                at = r * self.bq + v * lanes
                p = bind(builder, inside, apply("exp", Load(weights, at, self.vector) - shift - total), "p")
                slope = p * (Load(slopes, at, self.vector) - delta)
                allowed = self.allowed(inside, k0 + r, v)
                if allowed is not None:
                    slope = apply("select", allowed, slope, zero(self.vector))
                inside += [Store(weights, at, p), Store(slopes, at, slope)]

        body.append(self.loop("r", const(0), kn, self.mr, tile))
        body.append(self.loop("r", const(0), kn, 1, row, 2 if self.nv < 4 else 1))
        by_key = lambda buffer: lambda i, k: Load(buffer, k * self.bq + i, self.scalar)
        by_query = lambda buffer: lambda i, k: Load(buffer, i * self.bq + k, self.scalar)
        if self.sinks[0] is not None:
            body.append(self.accumulate(of_q, self.nq, self.bq, e, kn, by_key(slopes), self.k, k0, None, k0.equals(self.first)))
        base = k0 - self.first
        for sink, buffer, size, scores, source in (
            (self.sinks[1], of_k, e, slopes, self.q), (self.sinks[2], of_v, width, weights, self.upstream),
        ):
            if sink is not None:
                body.append(self.accumulate(buffer, kn, self.bk, size, self.nq, by_query(scores), source, self.q0, base=base))
