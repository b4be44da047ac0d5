"""The gradient of attention, block by block of the scores: see `attention.py`, whose tiles it shares.

The weights of a block are made again from the maximum and the sum that are kept of each query, and from them all the gradient
needs: ``slopes = weights * (g @ v.T - delta)``, ``dq = slopes @ k``, ``dk = slopes.T @ q``, ``dv = weights.T @ g``. A task has
a whole head (or alone some queries' gradients, or some keys'), so that nothing is added up between tasks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ndarray.dims import Size, product

from .attention import AttentionKernel, Reach
from .contraction import bind, ceil_div, hint, minimum, zero
from .launch import Launch, Sink, Source
from .loopir import INT, Const, Expr, For, Load, Stmt, Store, Var, apply, const
from .target import Target

__all__ = ["lower_attention_gradient"]

FEW_HEADS = 4  # below so many, tasks are parts of heads
PARTS = 4  # at least so many of each


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


class _Backward(AttentionKernel):
    def __init__(self, attrs: Mapping[str, Any], sources: Sequence[Source], mask: Source | None, target: Target,
                 sinks: Sequence[Sink | None], cut: bool):
        super().__init__(attrs, sources, mask, target)
        self.shift, self.total, self.delta, self.upstream = sources[3:]
        self.sinks, self.cut = sinks, cut
        self.first: Expr = const(0)  # of the task's keys
        self.end: Expr = self.keys

    def _part(self, body: list[Stmt], task: Expr, size: Size, block: int) -> tuple[Expr, Expr, Expr, int]:
        """The task's part of the queries or keys, in whole blocks: (the head's number, first, end, most of a part)."""
        most = block if self.target.threads else -(-max(1, hint(size)) // (PARTS * block)) * block
        count, all_of_it = self.builder.size(ceil_div(size, most)), self.builder.size(size)
        first = bind(self.builder, body, task % count * most, "first")
        end = bind(self.builder, body, minimum(first + most, all_of_it), "end")
        return bind(self.builder, body, task // count), first, end, most

    def build(self, equations: tuple) -> Launch:
        """The launch that fills the sinks."""
        builder, sinks = self.builder, self.sinks
        body: list[Stmt] = []
        length, keys, e, width = self.sizes
        rest: Expr = Var("task", INT)
        heads = tasks = product(self.batch_sizes)
        held = keys
        queries_first, queries_end = const(0), self.length  # type: tuple[Expr, Expr]
        if self.cut and sinks[0] is not None:
            rest, queries_first, queries_end, most = self._part(body, rest, length, self.bq)
            tasks = heads * ceil_div(length, most)
        elif self.cut:
            rest, self.first, self.end, held = self._part(body, rest, keys, self.bk)
            tasks = heads * ceil_div(keys, held)
            if self.skips and self.mask is None:  # queries before the first key don't look at any
                queries_first = bind(builder, body, self.first // self.bq * self.bq, "q")
        self.batch = self.batch_of(rest, body)
        self.queries, self.upstreams = self.turned(e), self.turned(width)
        self.weights, self.slopes = (builder.scratch(self.dtype, self.bk * self.bq) for _ in range(2))
        of_q = builder.scratch(self.dtype, self.bq * self.padded(self.bq, e))
        of_k = builder.scratch(self.dtype, held * self.padded(self.bk, e))
        of_v = builder.scratch(self.dtype, held * self.padded(self.bk, width))
        for sink, buffer, size in ((sinks[1], of_k, e), (sinks[2], of_v, width)):
            store = Store(buffer, Var("i", INT), zero(self.vector))
            if sink is not None:
                body.append(For("i", const(0), builder.size(held * self.padded(self.bk, size)), self.lanes, (store,), 4))
        operands = (self.q, self.upstream, self.k, self.v)

        def over_queries(q0: Expr, inside: list[Stmt]) -> None:
            self.q0 = q0
            self.nq = bind(builder, inside, minimum(self.length - q0, const(self.bq)), "count")
            if not self.target.threads:
                self.fetch(inside, rest, operands)
            inside += self.turn(self.q, self.queries, self.e, self.scale)
            inside += self.turn(self.upstream, self.upstreams, self.width, None)
            stop = self.stop_of(inside)
            if self.skips and self.mask is not None:
                blind = self.blind(lambda lane: self.shift.load(builder, self.rows_at(lane)))
                stop = bind(builder, inside, apply("select", blind, self.keys, stop), "stop")
            stop = bind(builder, inside, minimum(stop, self.end), "stop")
            inside.append(self.loop("k", self.first, stop, self.bk, lambda k0, b: self._block(b, k0, stop, of_q, of_k, of_v)))
            if sinks[0] is not None:
                inside.append(self.store_rows(sinks[0], of_q, self.nq, self.bq, q0, e, lambda r: Const(self.scale, self.scalar)))

        body.append(self.loop("q", queries_first, queries_end, self.bq, over_queries))
        scaled = lambda r: Const(self.scale, self.scalar)
        for sink, buffer, size, factor in ((sinks[1], of_k, e, scaled), (sinks[2], of_v, width, None)):
            if sink is not None:
                body.append(self.store_rows(sink, buffer, self.end - self.first, self.bk, self.first, size, factor))
        work = heads * length * keys * (3 * e + 2 * width + 24) // (2 * self.lanes) // (2 if self.skips else 1)
        return builder.launch("attention_gradient", body, "task", tasks, work, equations=equations, note="attention gradient")

    def _from_key(self, k0: Expr) -> Reach:
        """What rows of keys sum: queries of the block, with `tight` none before the first that looks at a key of the tile."""
        if not self.tight:
            return lambda first, last: (const(0), self.nq)
        return lambda first, last: (apply("max", k0 + first - self.q0, const(0)), self.nq)

    def _block(self, body: list[Stmt], k0: Expr, stop: Expr, of_q: str, of_k: str, of_v: str) -> None:
        """All that a block of keys and the block of queries have to do with one another."""
        builder, (e, width) = self.builder, self.sizes[2:]
        weights, slopes = self.weights, self.slopes
        kn = bind(builder, body, minimum(stop - k0, const(self.bk)), "count")

        def vector(lane: Expr, inside: list[Stmt]) -> None:
            seen = self.keys_of(inside, lane, k0, kn)
            place = self.rows_at(lane)
            numbers = [s.load(builder, place) for s in (self.shift, self.total, self.delta)]
            shift, total, delta = (bind(builder, inside, x, "x") for x in numbers)
            self.scores(inside, weights, self.queries, lane, k0, seen)

            self.dot(inside, self.v, self.width, slopes, self.upstreams, lane, k0, seen)
            positions = self.positions(inside, lane)

            def row(r: Expr, steps: list[Stmt]) -> None:
                at = r * self.bq + lane
                score, allowed = self.masked(steps, Load(weights, at, self.vector), k0 + r, lane, k0, positions)
                p = bind(builder, steps, apply("exp", score - shift - total), "p")
                slope = p * (Load(slopes, at, self.vector) - delta)
                if allowed is not None:
                    slope = apply("select", allowed, slope, zero(self.vector))
                steps += [Store(weights, at, p), Store(slopes, at, slope)]

            inside.append(self.loop("r", const(0), seen, 1, row))

        self.over_vectors(body, vector)
        by_key = lambda buffer: lambda i, k: Load(buffer, k * self.bq + i, self.scalar)
        by_query = lambda buffer: lambda i, k: Load(buffer, i * self.bq + k, self.scalar)
        if self.sinks[0] is not None:
            body.append(self.accumulate(of_q, self.nq, self.bq, e, self.up_to_query(k0, kn), by_key(slopes), self.k, k0, None,
                                        k0.equals(self.first)))
        base = k0 - self.first
        for sink, buffer, size, scores, source in (
            (self.sinks[1], of_k, e, slopes, self.q), (self.sinks[2], of_v, width, weights, self.upstream),
        ):
            if sink is not None:
                body.append(self.accumulate(buffer, kn, self.bk, size, self._from_key(k0), by_query(scores), source, self.q0,
                                            base=base))
