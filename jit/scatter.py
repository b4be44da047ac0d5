"""scatter_add and scatter_along_add: the base is copied, then updates are added in the order of their positions.

Tasks are cut along axes that no index selects, so two tasks never touch the same element and the result does not depend
on the number of threads. On a GPU, which wants many tasks, a task also has some positions along the axis only, and adds what
goes there of all updates.
"""

from __future__ import annotations

from typing import Any

from ndarray.dims import Size, product

from .launch import KernelBuilder, Launch, Position, Sink, Source
from .loopir import INT, Const, Expr, For, If, Let, Load, Stmt, Store, Type, Var, apply, cast, ramp
from .nodes import hint, strides_of
from .target import Target

__all__ = ["lower_scatter"]

PIECES = 64  # of an axis, at most: each task looks at all indices
ROWS = 64  # of a piece, at least


class _Scatter:
    def __init__(self, along: bool, attrs: dict[str, Any], sources: list[Source], sink: Sink, target: Target):
        self.base, self.indices, self.updates = sources
        self.axis, self.mode, self.along = attrs["axis"], attrs.get("mode", "clip"), along
        self.sink, self.target, self.builder = sink, target, KernelBuilder()
        if sink.storage is None:
            raise AssertionError("a scatter delivers to plain memory")
        self.shape = sink.shape
        last = len(self.shape) - 1
        self.lanes = target.lanes(sink.dtype) if self.axis != last and hint(self.shape[last]) > 1 else 1
        self.strides = strides_of(self.shape)
        self.length, self.pieces = self.shape[self.axis], 1  # type: tuple[Size, Size]
        if target.threads and not along and self.lanes > 1:
            tasks = max(1, hint(product(self.shape)) // max(1, hint(self.shape[self.axis]) * self.lanes))
            self.length = max(ROWS, hint(self.shape[self.axis]) // max(1, min(PIECES, target.tasks // tasks)))
            self.pieces = (self.shape[self.axis] + (self.length - 1)) // self.length
        self.first: Expr | None = None  # of the task's positions along the axis, if it has a piece of them
        self.stop: Expr = Const(0, INT)

    def loop(self, axes: list[Size], body: Any, prefix: tuple[Expr, ...] = ()) -> list[Stmt]:
        """Nested loops over extents; `body(index)` gives the statements."""
        if not axes:
            return body(prefix)
        name = self.builder.fresh("j")
        inner = self.loop(axes[1:], body, (*prefix, Var(name, INT)))
        return [For(name, Const(0, INT), self.builder.size(axes[0]), 1, tuple(inner))]

    def row(self, free: tuple[Expr, ...], lane: Expr | None, lanes: int, mask: Expr | None) -> list[Stmt]:
        """All of one line (or a vector of lines) along the axis: `free` are the positions on the other axes."""
        def full(at: Expr) -> tuple[Expr, ...]:
            other = [*free] if lane is None else [*free, lane]
            return (*other[:self.axis], at, *other[self.axis:])

        last = len(self.shape) - 1
        position = lambda index, axis: Position(index, axis if lanes > 1 else None, lanes, mask)
        assert self.sink.storage is not None
        out = self.builder.buffer(self.sink.storage, "write")
        type = Type(self.sink.dtype, lanes)

        def flat(index: tuple[Expr, ...]) -> Expr:
            total: Expr = Const(0, INT)
            for i, s in zip(index, self.strides):
                total = total + apply("mul", i, self.builder.size(s))
            return total

        def copy(index: tuple[Expr, ...]) -> list[Stmt]:
            where = full(index[0])
            return [Store(out, flat(where), self.base.load(self.builder, position(where, last)), mask)]

        def add(j: tuple[Expr, ...]) -> list[Stmt]:
            n = self.builder.size(self.shape[self.axis])
            if self.along:
                where = full(j[0])
                chosen = self.indices.load(self.builder, position(where, last))
                update = self.updates.load(self.builder, position(where, last))
            else:
                other = [*free] if lane is None else [*free, lane]
                where = (*other[:self.axis], *j, *other[self.axis:])
                chosen = self.indices.load(self.builder, Position(j))
                update = self.updates.load(self.builder, position(where, len(where) - 1))
            chosen = cast(chosen, "int64")
            if self.mode == "wrap":
                chosen = apply("mod", chosen, n)
            elif self.along:
                chosen = apply("select", apply("lt", chosen, 0), apply("add", chosen, n), chosen)
            chosen = apply("max", apply("min", chosen, apply("sub", n, 1)), 0)
            k, at = self.builder.fresh("k"), self.builder.fresh("a")
            statements: list[Stmt] = [Let(k, chosen)]
            if chosen.type.lanes > 1:  # each lane its own line
                target = flat(full(Const(0, INT)))
                where_flat = apply("add", ramp(target, 1, lanes), apply("mul", Var(k, chosen.type),
                                                                        self.builder.size(self.strides[self.axis])))
            else:
                where_flat = flat(full(Var(k, INT)))
            statements.append(Let(at, where_flat))
            address = Var(at, where_flat.type)
            statements.append(Store(out, address, apply("add", Load(out, address, type, mask), update), mask))
            if self.first is None:
                return statements
            here = apply("and", apply("ge", Var(k, INT), self.first), apply("lt", Var(k, INT), self.stop))
            return [statements[0], If(here, tuple(statements[1:]))]

        count = [self.updates.shape[self.axis]] if self.along else list(self.indices.shape)
        if self.first is None:
            return self.loop([self.shape[self.axis]], copy) + self.loop(count, add)
        name = self.builder.fresh("j")
        return [For(name, self.first, self.stop, 1, tuple(copy((Var(name, INT),)))), *self.loop(count, add)]

    def build(self, equations: tuple) -> list[Launch]:
        b = self.builder
        others = [n for k, n in enumerate(self.shape) if k != self.axis]
        vector = self.lanes > 1
        rows_of = others[:-1] if vector else others
        width: Size = others[-1] if vector else 1
        blocks = (width + (self.lanes - 1)) // self.lanes
        statements: list[Stmt] = []
        rest: Expr = Var("task", INT)
        if not (isinstance(self.pieces, int) and self.pieces == 1):
            extent, length = b.size(self.pieces), b.size(self.length)
            statements += [Let("first", (rest % extent) * length), Let("outer", rest // extent)]
            self.first, rest = Var("first", INT), Var("outer", INT)
            statements.append(Let("stop", apply("min", self.first + length, b.size(self.shape[self.axis]))))
            self.stop = Var("stop", INT)
        if vector:
            statements += [Let("block", rest % b.size(blocks)), Let("row", rest // b.size(blocks))]
            rest = Var("row", INT)
        free: list[Expr] = []
        for k in range(len(rows_of) - 1, -1, -1):
            name = b.fresh("p")
            statements.append(Let(name, rest % b.size(rows_of[k]) if k else rest))
            free.insert(0, Var(name, INT))
            if k:
                left = b.fresh("q")
                statements.append(Let(left, rest // b.size(rows_of[k])))
                rest = Var(left, INT)
        if vector:
            statements.append(Let("lane0", Var("block", INT) * self.lanes))
            lane = Var("lane0", INT)
            n = b.size(width)
            if isinstance(width, int) and width % self.lanes == 0:
                statements += self.row(tuple(free), lane, self.lanes, None)
            else:
                statements.append(Let("m", apply("lt", ramp(lane, 1, self.lanes), n)))
                whole = self.row(tuple(free), lane, self.lanes, None)
                part = self.row(tuple(free), lane, self.lanes, Var("m", Type("bool", self.lanes)))
                statements.append(If(apply("le", lane + self.lanes, n), tuple(whole), tuple(part)))
        else:
            statements += self.row(tuple(free), None, 1, None)
        tasks = product(rows_of) * blocks * self.pieces
        work = product(self.shape) + product(self.updates.shape) * 2
        return [b.launch("scatter", statements, "task", tasks, work, equations=equations, note="scatter")]


def lower_scatter(op_name: str, attrs: dict[str, Any], sources: list[Source], sink: Sink, target: Target,
                  equations: tuple) -> list[Launch]:
    """The launch of a scatter-add: ``result = base``, then ``result[index] += update`` in order."""
    return _Scatter(op_name == "scatter_along_add", attrs, sources, sink, target).build(equations)
