"""Products of bytes, summed exactly in int32: dot_integer.

An instruction adds 4 products of bytes to each int32 (``vpdpbusd`` of AVX-512 VNNI: one factor unsigned, the other signed) or 2
of halves (``pmaddwd``, any x86). So both operands are packed into words of int32, each with 4 (2) consecutive values of k, and
from there on it is a product of int32 with another multiplication. Where there is no such instruction operands are converted.

With two factors of one sign 128 is added to, or subtracted from, those of A by turning their highest bits round, and what that
changes is taken back at the end: a * b = (a + 128) * b - 128 * b, the sum of which over k depends on the column only. It is a
product with a row of 64s, by the same kernels over the same packed B; for a weight it is computed once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from ndarray.dims import Size, product

from .contract import lower_dot_general, state_dot_general
from .contraction import Contraction, Digits, Operand, ceil_div, choose, flatten, minimum
from .gemm import lower_product
from .launch import KernelBuilder, Launch, Position, Sink, Source, Storage
from .loopir import Apply, Expr, Let, Load, Stmt, Store, Type, Var, apply, cast, const, splat
from .target import Target

__all__ = ["lower_dot_integer"]

HIGHEST_BITS = 0x80808080 - (1 << 32)
WORD_OF_64 = 0x40404040


def lower_dot_integer(
    attrs: Mapping[str, Any], x: Source, y: Source, sink: Sink, target: Target, equations: tuple, schedule: dict[str, Any]
) -> list[Launch]:
    """result[batch, x free, y free] = sum over the contracted axes of x * y, modulo 2**32; x and y are int8 or uint8."""
    (x_contract, y_contract), (x_batch, y_batch) = attrs["contract"], attrs["batch"]
    ways = target.ways if x_contract else 1
    if ways == 1 or target.threads:
        return lower_dot_general(attrs, _converted(x), _converted(y), sink, target, equations, schedule)
    if len(y.shape) == len(y_contract) + len(y_batch) and len(x.shape) > len(x_contract) + len(x_batch):
        # the result's last axis belongs to x: the sides change places
        x, y, x_contract, y_contract, x_batch, y_batch = y, x, y_contract, x_contract, y_batch, x_batch
    last = max(range(len(x_contract)), key=x_contract.__getitem__)  # the last digit of k
    alike = x.dtype == y.dtype and ways == 4
    words = (
        _words(x, x_contract[last], ways, alike, False),
        _words(y, y_contract[last], ways, False, True),
    )
    axes = {"contract": (x_contract, y_contract), "batch": (x_batch, y_batch)}
    c = state_dot_general(axes, *words, sink, target, equations)
    c = replace(c, a=_packed(c.a), b=_packed(c.b), multiply=_multiply(ways, x.dtype, y.dtype), name="dot_bytes")
    if y.constant:
        schedule = {"pack_b": "global", **schedule}
    plan = choose(c, target, **schedule)
    if not alike:
        return lower_product(c, target, plan)
    if plan.pack_b == "task":  # the sums want it, too
        plan = replace(plan, pack_b="global")
    sums = Storage("int32", product(c.batch) * c.columns, "sums of columns")
    row = _sums_of_columns(c, sums)
    first = lower_product(row, target, choose(row, target, mr=1, nv=plan.nv, lanes=plan.lanes, pack_a="no", pack_b=plan.pack_b))
    return [*first, *lower_product(_corrected(c, sums, 2 if x.dtype == "uint8" else -2), target, plan)]


def _multiply(ways: int, left: str, right: str) -> Callable[[Expr, Expr, Expr], Expr]:
    """How words of A and B are multiplied, A of dtype `left`. Of two of one sign, A's is the other one by then."""
    if ways == 2:
        return lambda a, b, total: Apply("dot2", (total, a, b), total.type)
    if right == "int8":
        return lambda a, b, total: Apply("dot4", (total, a, b), total.type)
    return lambda a, b, total: Apply("dot4", (total, b, a), total.type)


def _converted(x: Source) -> Source:
    """An operand in int32."""
    load = lambda builder, at: cast(x.load(builder, at), "int32")
    return replace(x, dtype="int32", load=load, storage=None)


def _packed(operand: Operand) -> Operand:
    """An operand of words: to make one takes several loads, so nothing reads it in place more often than need be."""
    return replace(operand, cheap=False, k_contiguous=False, along_k=None)


def _words(x: Source, axis: int, ways: int, turned: bool, filled: bool) -> Source:
    """`ways` consecutive values along an axis in one int32, the first in its lowest bits. `turned`: the highest bit of each is
    turned round. Past the end of the axis there are zeros if `filled`, else anything."""
    size, width = x.shape[axis], 32 // ways
    whole = isinstance(size, int) and size % ways == 0

    def load(builder: KernelBuilder, at: Position) -> Expr:
        word: Expr | None = None
        for j in range(ways):
            k = at.index[axis] * ways + j
            place = k if whole else minimum(k, builder.size(size) - 1)
            value = x.load(builder, Position((*at.index[:axis], place, *at.index[axis + 1 :]), at.axis, at.lanes, at.mask))
            if x.dtype == "int8" and ways == 4:
                value = Apply("bitcast", (value,), Type("uint8", value.type.lanes))
            value = cast(value, "int32")
            if ways == 2 and j == 0:
                value = apply("and", value, (1 << width) - 1)
            if filled and not whole and j:
                value = apply("select", splat(k < builder.size(size), value.type.lanes), value, 0)
            value = apply("shl", value, j * width) if j else value
            word = value if word is None else apply("or", word, value)
        assert word is not None
        return apply("xor", word, HIGHEST_BITS) if turned else word

    shape: tuple[Size, ...] = (*x.shape[:axis], ceil_div(size, ways), *x.shape[axis + 1 :])
    return replace(x, shape=shape, dtype="int32", load=load, storage=None)


# -- what adding 128 has changed


def _sums_of_columns(c: Contraction, sums: Storage) -> Contraction:
    """64 times the sums of B's columns, into `sums`: a product with one row of A."""

    def row(builder: KernelBuilder, batch: Digits, position: Expr, k: Digits, lanes: int, mask: Expr | None) -> Expr:
        return const(WORD_OF_64, Type("int32", lanes))

    def store(
        builder: KernelBuilder, batch: Digits, column: Expr, lanes: int, mask: Expr | None, over_rows: Any
    ) -> list[Stmt]:
        at = _column(c, builder, batch, column)
        return over_rows(lambda _, value: [Store(builder.buffer(sums, "write"), at, value, mask)])

    ones = Operand(row, (False,) * len(c.batch), False)
    return replace(c, rows=1, a=ones, store=store, name="columns", equations=())


def _corrected(c: Contraction, sums: Storage, factor: int) -> Contraction:
    """The contraction with `factor` times the sums of columns added to each row."""

    def store(
        builder: KernelBuilder, batch: Digits, column: Expr, lanes: int, mask: Expr | None, over_rows: Any
    ) -> list[Stmt]:
        name, type = builder.fresh("w"), Type("int32", lanes)
        found = Load(builder.buffer(sums, "read"), _column(c, builder, batch, column), type, mask)
        change = Let(name, apply("mul", found, factor))

        def changed(deliver: Any) -> list[Stmt]:
            return over_rows(lambda row, value: deliver(row, value + Var(name, type)))

        return [change, *c.store(builder, batch, column, lanes, mask, changed)]

    return replace(c, store=store)


def _column(c: Contraction, builder: KernelBuilder, batch: Digits, column: Expr) -> Expr:
    """Where the sum of a column lies."""
    return flatten(builder, batch, c.batch) * builder.size(c.columns) + column
