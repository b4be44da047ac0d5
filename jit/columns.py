"""Folds across rows, as the gradient of a bias is: memory is walked row by row, a few rows at a time.

The lanes run along positions, the columns. A task has a fixed piece of the rows and some columns. Where all columns fit in
registers, rows come one by one; else accumulators lie in private memory, and each is loaded and stored once for `ROWS` rows.
Pieces are folded by a second launch, in order, so results don't depend on the number of threads, and no sum is a long chain.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from ndarray.dims import Size, product

from .contraction import lane_mask
from .folds import Fold, scalar_expr, typed_const, widen
from .launch import KernelBuilder, Launch, Storage
from .loopir import INT, Const, Expr, For, Get, Load, Register, Set, Store, Type, Var, apply
from .nest import Axis, lane_loop, nest, unravel
from .nodes import Node, hint
from .scalars import Emitter

if TYPE_CHECKING:
    from .rows import RowKernel

__all__ = ["lower_columns", "suits_columns"]

ROWS = 8  # at once
COLUMNS = 1024  # of a task, if there are pieces; else
FEW_COLUMNS = 256
PIECE = 65536  # elements
LONGEST = 1024  # rows of a piece: additions in sequence
MOST_PIECES = 128


def suits_columns(kernel: RowKernel) -> bool:
    """Whether a row group's reductions fold long columns that lie beside one another, and nothing else is to be stored."""
    if kernel.lane is None or kernel.lane_reduces or kernel.stages > 1 or kernel.full_outputs or not kernel.domain:
        return False
    rows = hint(product(a.extent for a in kernel.domain))
    return kernel.positions[-1] is kernel.lane and hint(kernel.lane.extent) >= kernel.vector and rows >= 4 * ROWS \
        and hint(kernel.domain[-1].extent) >= ROWS


def lower_columns(kernel: RowKernel) -> list[Launch]:
    """One launch, or one for the pieces and one for their fold."""
    return _Columns(kernel).build()


class _Columns:
    def __init__(self, kernel: RowKernel):
        assert kernel.lane is not None
        self.kernel, self.arena, self.lane, self.lanes = kernel, kernel.arena, kernel.lane, kernel.vector
        self.outer = [a for a in kernel.positions if a is not kernel.lane]
        self.folds = kernel.folds
        self.cut = kernel.domain[0]
        others = hint(product(a.extent for a in kernel.domain[1:]))
        columns = hint(self.lane.extent)
        length = max(8 * ROWS // others, PIECE // max(1, columns * others), -(-hint(self.cut.extent) // 16))
        self.length = -(-max(1, min(length, LONGEST // others)) // ROWS) * ROWS
        single = isinstance(self.cut.extent, int) and self.cut.extent <= self.length
        self.pieces: Size = 1 if single else (self.cut.extent + (self.length - 1)) // self.length
        extent, held = self.lane.extent, sum(len(f.dtypes) for f in self.folds)
        self.vectors = 0  # of registers for each accumulator, if they hold all columns
        if isinstance(extent, int) and (extent % self.lanes == 0 or kernel.target.masked):
            self.vectors = -(-extent // self.lanes)
            if self.vectors * held > kernel.target.registers // 2:
                self.vectors = 0
        self.chunk = -(-min(FEW_COLUMNS if single else COLUMNS, columns) // self.lanes) * self.lanes
        if kernel.target.threads:  # a warp has a vector of columns, in registers
            chunks = hint(product(a.extent for a in self.outer)) * -(-columns // self.lanes)
            rows = hint(self.cut.extent)
            length = max(-(-rows * chunks // kernel.target.tasks), -(-rows // MOST_PIECES), -(-2 * ROWS // others))
            self.length = max(1, min(length, LONGEST // others))
            single = isinstance(self.cut.extent, int) and self.cut.extent <= self.length
            self.pieces = 1 if single else (self.cut.extent + (self.length - 1)) // self.length
            self.vectors = 1
        if self.vectors:
            self.chunk = self.vectors * self.lanes
        self.whole = isinstance(extent, int) and extent <= self.chunk  # a task has all columns

    def build(self) -> list[Launch]:
        kernel, single = self.kernel, isinstance(self.pieces, int) and self.pieces == 1
        em, builder = kernel.em, kernel.builder
        chunks = (self.lane.extent + (self.chunk - 1)) // self.chunk
        axes = [*self.outer, Axis("piece", self.pieces), Axis("chunk", chunks)]
        count = product(a.extent for a in kernel.positions)
        partial = {} if single else {(k, c): Storage(d.name, self.pieces * count, "partial")
                                     for k, f in enumerate(self.folds) for c, d in enumerate(f.dtypes)}
        place = self.arena.var("piece", self.pieces)
        for a in kernel.positions:
            place = self.arena.add(self.arena.scale(place, a.extent), self.arena.var(a.name, a.extent))

        task = em.blocks[-1]
        task.variables.update(unravel(em, Var("task", INT), axes))
        self.first = em.let(task, task.variables["chunk"] * builder.size(self.chunk), "first")
        self.stop = em.let(task, apply("min", self.first + builder.size(self.chunk), builder.size(self.lane.extent)), "stop")
        start = em.let(task, task.variables["piece"] * builder.size(self.length), "begin")
        end = em.let(task, apply("min", start + builder.size(self.length), builder.size(self.cut.extent)), "end")

        def finish(get: Callable[[int, int, Fold], Expr]) -> None:
            block = em.blocks[-1]
            block.variables["@row"] = Const(0, INT)
            for k, fold in enumerate(self.folds):
                total = [em.let(block, get(k, c, fold), "c") for c in range(len(fold.dtypes))]
                if single:
                    kernel.deliver(fold, total, block)
                else:
                    block.statements += [em.store(partial[k, c], place, value) for c, value in enumerate(total)]
            if single:
                kernel.store_rows()

        (self._in_registers if self.vectors else self._in_memory)(start, end, finish)
        launch = builder.launch("columns", task.statements, "task", product(a.extent for a in axes), kernel.work(),
                                equations=tuple(kernel.group.equations), note=str(kernel.group))
        return [launch] if single else [launch, self._fold_pieces(partial, place)]

    def _accumulators(self) -> list[tuple[int, int, Any, np.dtype]]:
        """(fold, component, identity, dtype) of each."""
        return [(k, c, value, dtype)
                for k, f in enumerate(self.folds) for c, (value, dtype) in enumerate(zip(f.identity, f.dtypes))]

    def _in_registers(self, start: Expr, end: Expr, finish: Callable) -> None:
        em, task = self.kernel.em, self.kernel.em.blocks[-1]
        names = {(k, c, v): em.builder.fresh("acc") for k, c, _, _ in self._accumulators() for v in range(self.vectors)}
        for k, c, value, dtype in self._accumulators():
            task.statements += [Register(names[k, c, v], typed_const(value, dtype, self.lanes)) for v in range(self.vectors)]

        def in_lanes(v: int, body: Callable[[], None]) -> None:
            first = Const(v * self.lanes, INT) if self.whole else self.first + v * self.lanes
            block = em.push({self.lane.name: first}, self.lane.name, self.lanes)
            if self.whole and (v + 1) * self.lanes > hint(self.lane.extent):
                columns = Const(hint(self.lane.extent), INT)
                block.tail = em.let(task, lane_mask(Const(v * self.lanes, INT), self.lanes, columns), "m")
            elif not self.whole and not (isinstance(self.lane.extent, int) and self.lane.extent % self.chunk == 0):
                block.tail = em.let(task, lane_mask(first, self.lanes, self.stop), "m")
            body()
            statements = em.pop()
            em.body.extend(statements)

        def get(v: int) -> Callable[[int, int, Fold], Expr]:
            return lambda k, c, fold: Get(names[k, c, v], Type(fold.dtypes[c].name, self.lanes))

        def step(v: int) -> None:
            block = em.blocks[-1]
            for k, fold in enumerate(self.folds):
                old = [get(v)(k, c, fold) for c in range(len(fold.dtypes))]
                block.statements += [Set(names[k, c, v], t) for c, t in enumerate(self._combined(fold, old, [fold.elements]))]

        def rows(domain: list[Axis], start: Expr, end: Expr) -> None:
            name = em.builder.fresh("j")
            em.push({domain[0].name: Var(name, INT)})
            if len(domain) > 1:
                rows(domain[1:], Const(0, INT), em.builder.size(domain[1].extent))
            else:
                for v in range(self.vectors):
                    in_lanes(v, lambda v=v: step(v))  # type: ignore[misc]
            statements = em.pop()
            em.body.append(For(name, start, end, 1, tuple(statements), 1 if self.vectors > 4 or len(domain) > 1 else 4))

        rows(self.kernel.domain, start, end)
        for v in range(self.vectors):
            in_lanes(v, lambda v=v: finish(get(v)))  # type: ignore[misc]

    def _in_memory(self, start: Expr, end: Expr, finish: Callable) -> None:
        em, builder = self.kernel.em, self.kernel.builder
        task = em.blocks[-1]
        self.sums = {(k, c): builder.scratch(d.name, self.chunk) for k, c, _, d in self._accumulators()}
        for k, c, value, dtype in self._accumulators():
            name = builder.fresh("i")
            clear = Store(self.sums[k, c], Var(name, INT), typed_const(value, dtype, self.lanes))
            task.statements.append(For(name, Const(0, INT), builder.size(self.chunk), self.lanes, (clear,)))
        self._walk([*self.kernel.domain], start, end)
        lane_loop(em, self.lane, self.lanes, self.first, self.stop, self.kernel.target, lambda: finish(self._load))

    def _walk(self, domain: list[Axis], start: Expr, end: Expr) -> None:
        """Loops over the piece's rows; the innermost axis by `ROWS`, then what is left one by one."""
        em, builder = self.kernel.em, self.kernel.builder
        axis = domain[0]
        if len(domain) > 1:
            name = builder.fresh("j")
            em.push({axis.name: Var(name, INT)})
            self._walk(domain[1:], Const(0, INT), builder.size(domain[1].extent))
            statements = em.pop()
            em.body.append(For(name, start, end, 1, tuple(statements)))
            return
        main = em.let(em.blocks[-1], start + ((end - start) // ROWS) * ROWS, "main")
        for begin, stop, count in ((start, main, ROWS), (main, end, 1)):
            name = builder.fresh("j")
            em.push({f"{axis.name}@{u}": Var(name, INT) + u for u in range(count)})
            elements = [[self._at_row(e, axis, u) for e in fold.elements] for u in range(count) for fold in self.folds]
            lane_loop(em, self.lane, self.lanes, self.first, self.stop, self.kernel.target, lambda e=elements: self._add(e))  # type: ignore[misc]
            statements = em.pop()
            em.body.append(For(name, begin, stop, count, tuple(statements)))

    def _at_row(self, node: Node, axis: Axis, u: int) -> Node:
        """An element in the terms of row `u` of those at hand."""
        own = self.arena.var(axis.name, axis.extent)
        new = self.arena.var(f"{axis.name}@{u}", axis.extent)
        return self.arena.rebuild(node, lambda n: new if n is own else None, {})

    def _load(self, k: int, c: int, fold: Fold) -> Expr:
        """An accumulator of the columns at hand."""
        em = self.kernel.em
        return Load(self.sums[k, c], self._slot(), Type(fold.dtypes[c].name, em.lane_count()))

    def _slot(self) -> Expr:
        return self.kernel.em.address(self.arena.var(self.lane.name, self.lane.extent))[0] - self.first

    def _add(self, elements: list[list[Node]]) -> None:
        """Fold the elements of some rows into the accumulators of the columns at hand."""
        block = self.kernel.em.blocks[-1]
        for k, fold in enumerate(self.folds):
            total = [self.kernel.em.let(block, self._load(k, c, fold), "c") for c in range(len(fold.dtypes))]
            total = self._combined(fold, total, elements[k::len(self.folds)])
            block.statements += [Store(self.sums[k, c], self._slot(), t) for c, t in enumerate(total)]

    def _combined(self, fold: Fold, total: list[Expr], elements: list[list[Node]]) -> list[Expr]:
        """The accumulators after the elements of some rows, one after the other."""
        em = self.kernel.em
        block, lanes = em.blocks[-1], em.lane_count()
        for values in elements:
            leaves = {f"a{c}": t for c, t in enumerate(total)}
            leaves |= {f"e{c}": widen(em.emit(v), lanes) for c, v in enumerate(values)}
            total = [em.let(block, scalar_expr(self.kernel.builder, s, leaves, lanes), "c") for s in fold.combiner(True)]
        return total

    def _fold_pieces(self, partial: dict[tuple[int, int], Storage], place: Node) -> Launch:
        kernel = self.kernel
        kernel.builder = builder = KernelBuilder()
        kernel.em = em = Emitter(builder, self.arena, kernel.storage)
        em.masked = kernel.target.shuffles

        def body() -> None:
            row, lanes = em.blocks[-1], em.lane_count()
            row.variables["@row"] = Const(0, INT)
            for k, fold in enumerate(self.folds):
                names = [builder.fresh("acc") for _ in fold.dtypes]
                types = [Type(d.name, lanes) for d in fold.dtypes]
                row.statements += [Register(n, typed_const(v, d, lanes)) for n, v, d in zip(names, fold.identity, fold.dtypes)]
                name = builder.fresh("j")
                block = em.push({"piece": Var(name, INT)})
                leaves: dict[str, Expr] = {f"a{c}": Get(n, t) for c, (n, t) in enumerate(zip(names, types))}
                for c, type in enumerate(types):
                    buffer = builder.buffer(partial[k, c], "read")
                    leaves[f"e{c}"] = em.let(block, Load(buffer, em.address(place)[0], type, row.tail), "x")
                new = [em.let(block, scalar_expr(builder, s, leaves, lanes), "c") for s in fold.combiner(True)]
                em.body.extend(Set(n, v) for n, v in zip(names, new))
                statements = em.pop()
                row.statements.append(For(name, Const(0, INT), builder.size(self.pieces), 1, tuple(statements)))
                kernel.deliver(fold, [em.let(row, Get(n, t), "c") for n, t in zip(names, types)], row)
            kernel.store_rows()

        tasks = nest(em, self.outer, self.lane, self.lanes, 16, kernel.target, body)
        work = product(a.extent for a in kernel.positions) * self.pieces * len(self.folds) // 4
        return builder.launch("fold_pieces", em.blocks[0].statements, "task", tasks, work,
                              equations=tuple(kernel.group.equations), note="fold of pieces")

