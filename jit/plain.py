"""Sources and sinks that are plain row-major arrays: what a contraction has on its sides when nothing is fused."""

from __future__ import annotations

from ndarray.dims import Size, product

from .launch import KernelBuilder, Position, Sink, Source, Storage
from .loopir import Expr, Load, Stmt, Store, Type, const, ramp

__all__ = ["element_index", "plain_sink", "plain_source"]


def element_index(builder: KernelBuilder, storage: Storage, shape: tuple[Size, ...], at: Position) -> Expr:
    """Where the elements of a position lie in a row-major array: a scalar index of contiguous lanes, or a vector."""
    flat: Expr = const(0)
    for axis, index in enumerate(at.index):
        flat = flat + index * builder.parameter(product(shape[axis + 1 :]), (storage, axis))
    if at.lanes > 1:
        assert at.axis is not None
        stride = product(shape[at.axis + 1 :])
        if not (isinstance(stride, int) and stride == 1):
            return ramp(flat, builder.parameter(stride, (storage, at.axis)), at.lanes)
    return flat


def plain_source(storage: Storage, shape: tuple[Size, ...], constant: bool = False) -> Source:
    """An operand that is a stored row-major array."""

    def load(builder: KernelBuilder, at: Position) -> Expr:
        name = builder.buffer(storage, "read")
        return Load(name, element_index(builder, storage, shape, at), Type(storage.dtype, at.lanes), at.mask)

    return Source(tuple(shape), storage.dtype, load, storage, constant, along=len(shape) - 1)


def plain_sink(storage: Storage, shape: tuple[Size, ...]) -> Sink:
    """A result that is stored row-major, as it is."""

    def store(builder: KernelBuilder, at: Position, value: Expr) -> list[Stmt]:
        name = builder.buffer(storage, "write")
        return [Store(name, element_index(builder, storage, shape, at), value, at.mask)]

    def flat(builder: KernelBuilder, at: Position, value: Expr) -> list[Stmt]:
        return [Store(builder.buffer(storage, "write"), at.index[0], value, at.mask)]

    return Sink(tuple(shape), storage.dtype, store, storage, flat)
