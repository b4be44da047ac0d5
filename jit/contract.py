"""Contractions as launches: `lower_contraction` turns one template equation into kernels.

Each op is stated as C[b, m, n] = sum over k of A[b, m, k] * B[b, n, k] with index maps onto its operands; `gemm`
makes the kernels. Vectors run along the axis in which the result is contiguous.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ndarray.dims import Size, product
from ndarray.settings import settings

from .contraction import Contraction, Digits, Operand, ceil_div, choose, digits, hint, lane_mask, minimum
from .gemm import lower_product
from .inner_product import lower_inner_product, suits_inner_product
from .launch import KernelBuilder, Launch, Position, Sink, Source
from .loopir import Expr, Stmt, const, splat
from .plain import plain_sink, plain_source
from .target import Target

__all__ = ["CONTRACTIONS", "lower_contraction", "lower_dot_general", "plain_sink", "plain_source", "state_dot_general"]


ALONE = 2.5
"""Steps that it takes to deliver a result by itself, and not in a vector."""


def lower_contraction(
    op_name: str,
    attrs: Mapping[str, Any],
    sources: Sequence[Source],
    sink: Sink,
    target: Target,
    equations: tuple = (),
    **schedule: Any,
) -> list[Launch]:
    """The launches of one contraction, in order.

    op_name    a key of `CONTRACTIONS`
    attrs      the op's attributes, as in the op table
    sources    the two operands, in the op's order, perhaps with fused elementwise prologues
    sink       where the result goes, perhaps through a fused epilogue; called exactly once for each element
    schedule   overrides of `gemm.Schedule` fields, for tests and tuning

    Any size may be 0 or symbolic. Temporary storages are made as needed. The result does not depend on
    the number of threads.
    """
    if op_name not in CONTRACTIONS:
        raise ValueError(f"lower_contraction: no contraction is called {op_name!r}; known: {', '.join(CONTRACTIONS)}")
    x, y = sources
    if x.dtype != y.dtype and op_name != "dot_integer":
        raise TypeError(
            f"{op_name}: operands of dtypes {x.dtype} and {y.dtype}; cast them to one before the contraction"
        )
    if settings.tune and not schedule:
        from . import tune

        schedule = tune.schedule(op_name, attrs, sources, sink, target)
    return CONTRACTIONS[op_name](attrs, x, y, sink, target, tuple(equations), schedule)


def lower_dot_general(
    attrs: Mapping[str, Any],
    x: Source,
    y: Source,
    sink: Sink,
    target: Target,
    equations: tuple,
    schedule: dict[str, Any],
) -> list[Launch]:
    """result[batch, x free, y free] = sum over the contracted axes of x * y."""
    c = state_dot_general(attrs, x, y, sink, target, equations)
    if c.beside > 1:
        s = choose(c, target, **{**schedule, "nv": c.beside, "pack_b": "global"})
        launches = lower_product(c, target, s)
        if s.own_rows and x.storage is not None and tuple(attrs["contract"][0]) == tuple(range(len(x.shape)))[-len(c.inner) :]:
            read = {**sink.reads, x.storage: sink.reads.get(x.storage, True)}
            buffers = zip(launches[-1].kernel.buffers, launches[-1].buffers)  # those of the task alone come last
            own = tuple([i for i, (b, held) in enumerate(buffers) if b.access == "read" and read.get(held, False)])
            launches[-1] = replace(launches[-1], strips=ceil_div(c.rows, s.mt), own=own)
        return launches
    if schedule.keys() <= {"rank"} and suits_inner_product(c, target):
        return lower_inner_product(c, c.a.along_k, c.b.along_k, target, **schedule)
    return lower_product(c, target, choose(c, target, **schedule))


def _is_upright(
    x: Source, x_free: tuple[int, ...], x_contract: tuple[int, ...], y: Source, y_free: tuple[int, ...], sink: Sink,
    target: Target,
) -> bool:
    """Whether vectors are to run along the rows of the result, whose numbers then leave one by one: x is contiguous along them,
    the columns would leave many lanes empty, and k is long."""
    if target.threads or sink.beside > 1 or sink.storage is None or len(x_free) != 1 or len(y_free) != 1:
        return False
    lanes, columns = target.lanes(x.dtype), hint(y.shape[y_free[0]])
    along = x_free[0] == len(x.shape) - 1 and hint(x.shape[x_free[0]]) >= 2 * lanes
    k = hint(product(x.shape[a] for a in x_contract))
    return along and columns > 0 and k * (lanes - columns) >= ALONE * columns * lanes


def state_dot_general(
    attrs: Mapping[str, Any], x: Source, y: Source, sink: Sink, target: Target, equations: tuple
) -> Contraction:
    """The problem of `lower_dot_general`."""
    (x_contract, y_contract), (x_batch, y_batch) = attrs["contract"], attrs["batch"]
    x_free = tuple(a for a in range(len(x.shape)) if a not in (*x_contract, *x_batch))
    y_free = tuple(a for a in range(len(y.shape)) if a not in (*y_contract, *y_batch))
    # k in the order of x's memory
    order = sorted(range(len(x_contract)), key=lambda i: x_contract[i])
    x_contract = tuple(x_contract[i] for i in order)
    y_contract = tuple(y_contract[i] for i in order)
    batch_rank = len(x_batch)
    upright = _is_upright(x, x_free, x_contract, y, y_free, sink, target)
    if (not y_free and x_free) or upright:  # the result's last axis belongs to x, or is short: the sides change places
        x, y = y, x
        x_contract, y_contract, x_batch, y_batch, x_free, y_free = (
            y_contract,
            x_contract,
            y_batch,
            x_batch,
            y_free,
            x_free,
        )
    beside, lanes_beside = max(1, sink.beside), target.lanes(x.dtype)
    lane_axis = y_free[-1] if y_free else None
    matrix = not x_batch and len(y_free) == 1  # the result has rows, and columns behind them
    row_sizes = tuple(x.shape[a] for a in x_free)
    outer_sizes = tuple(y.shape[a] for a in y_free[:-1])
    sizes = tuple(x.shape[a] for a in x_batch) + outer_sizes
    inner = tuple(x.shape[a] for a in x_contract)
    columns: Size = y.shape[lane_axis] if lane_axis is not None else 1
    width = hint(columns) // beside
    filled = beside == 1 or width % lanes_beside == 0

    def within(column: Expr) -> Expr:
        """Which column of its part stands at a place: where parts are read together, a vector of each, then the next of each."""
        return column // (beside * lanes_beside) * lanes_beside + column % lanes_beside

    def true(column: Expr) -> Expr:
        """Which column stands at a place; the last one of its part where the part does not fill the vector."""
        if beside == 1:
            return column
        place = within(column) if filled else minimum(within(column), const(width - 1))
        return column // lanes_beside % beside * width + place

    def load_x(builder: KernelBuilder, batch: Digits, row: Expr, k: Digits, lanes: int, mask: Expr | None) -> Expr:
        place = (
            dict(zip(x_batch, batch)) | dict(zip(x_contract, k)) | dict(zip(x_free, digits(builder, row, row_sizes)))
        )
        index = tuple(place[a] for a in range(len(x.shape)))
        return x.load(builder, Position(index, x_free[-1] if lanes > 1 else None, lanes, mask))

    def load_y(builder: KernelBuilder, batch: Digits, column: Expr, k: Digits, lanes: int, mask: Expr | None) -> Expr:
        place = dict(zip(y_batch, batch)) | dict(zip(y_contract, k)) | dict(zip(y_free[:-1], batch[batch_rank:]))
        if lane_axis is None:  # one column
            index = tuple(place[a] for a in range(len(y.shape)))
            return splat(y.load(builder, Position(index)), lanes)
        place[lane_axis] = true(column)
        index = tuple(place[a] for a in range(len(y.shape)))
        if lanes > 1 and not filled:
            mask = lane_mask(within(column), lanes, const(width))
        return y.load(builder, Position(index, lane_axis if lanes > 1 else None, lanes, mask))

    def store(
        builder: KernelBuilder, batch: Digits, column: Expr, lanes: int, mask: Expr | None, over_rows: Any
    ) -> list[Stmt]:
        def deliver(row: Expr, value: Expr) -> list[Stmt]:
            if upright:
                return sink.store(builder, Position((*batch, column, row), None, 1, mask), value)
            if matrix and sink.flat is not None:
                flat = row * builder.parameter(columns, "columns") + column
                return sink.flat(builder, Position((flat,), 0 if lanes > 1 else None, lanes, mask), value)
            if matrix and sink.matrix is not None:
                return sink.matrix(builder, Position((row, column), 1 if lanes > 1 else None, lanes, mask), value)
            index = (*batch[:batch_rank], *digits(builder, row, row_sizes), *batch[batch_rank:])
            if lane_axis is not None:
                index = (*index, column)
            return sink.store(builder, Position(index, len(index) - 1 if lanes > 1 else None, lanes, mask), value)

        return over_rows(deliver)

    def along_k(source: Source, contract: tuple, axis: int, batch_axes: tuple, free: tuple, left: bool):
        def load(
            builder: KernelBuilder, batch: Digits, position: Expr, k: Digits, lanes: int, mask: Expr | None
        ) -> Expr:
            place = dict(zip(batch_axes, batch)) | dict(zip(contract, k))
            if left:
                place |= dict(zip(free, digits(builder, position, row_sizes)))
            else:
                place |= dict(zip(free[:-1], batch[batch_rank:]))
                if free:
                    place[free[-1]] = true(position)
            return source.load(
                builder, Position(tuple(place[i] for i in range(len(source.shape))), axis, lanes, mask)
            )

        return load

    in_batch = (True,) * batch_rank
    last = len(x_contract) - 1
    x_last, y_last = (bool(inner) and axes[last] == len(z.shape) - 1 for z, axes in ((x, x_contract), (y, y_contract)))
    a = Operand(
        load_x,
        in_batch + (False,) * len(outer_sizes),
        len(x_free) == 1 and x_free[-1] == len(x.shape) - 1,
        x_last,
        cheap=x.storage is not None,
        constant=x.constant,
        uses=x.uses,
        along_k=along_k(x, x_contract, x_contract[last], x_batch, x_free, True) if x_last else None,
    )
    b = Operand(
        load_y,
        in_batch + (True,) * len(outer_sizes),
        lane_axis is not None and lane_axis == len(y.shape) - 1,
        y_last,
        cheap=y.storage is not None,
        constant=y.constant,
        uses=y.uses,
        along_k=along_k(y, y_contract, y_contract[last], y_batch, y_free, False) if y_last else None,
    )
    return Contraction(
        x.dtype,
        sizes,
        product(row_sizes),
        columns if filled else ceil_div(width, lanes_beside) * lanes_beside * beside,
        inner,
        a,
        b,
        store,
        vector_store=lane_axis is not None and not upright,
        beside=beside,
        width=width if beside > 1 else 0,
        name="dot",
        equations=equations,
    )


def _integer(*arguments: Any) -> list[Launch]:
    """The lowering of bytes, imported when it is needed."""
    from .integer_product import lower_dot_integer

    return lower_dot_integer(*arguments)


def _convolution(lowering: str, last: bool) -> Callable[..., list[Launch]]:
    """A lowering of `convolution`, imported when it is needed; `last`: channels are the last axis, not the second."""

    def lower(*arguments: Any) -> list[Launch]:
        from . import convolution

        return getattr(convolution, lowering)(*arguments, last=last)

    return lower


CONTRACTIONS = {
    "dot_general": lower_dot_general,
    "dot_integer": _integer,
    "convolution": _convolution("lower_convolution", False),
    "convolution_data_gradient": _convolution("lower_data_gradient", False),
    "convolution_weight_gradient": _convolution("lower_weight_gradient", False),
    "convolution_channels_last": _convolution("lower_convolution", True),
    "convolution_data_gradient_channels_last": _convolution("lower_data_gradient", True),
    "convolution_weight_gradient_channels_last": _convolution("lower_weight_gradient", True),
}
"""Template name -> its lowering."""
