"""Rearranging elements: reshape, transpose, broadcast, slice, flip, pad, concatenate, iota, update_slice."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from .. import functions as F
from ..dims import Size, product
from ..op import NONDIFF, ArrayType, Indexed, Op, Sample, Vjp, register
from ..scalar import Scalar, cast, constant, where
from ..scalar import size as size_of
from .base import differ, expect_axes, expect_axis, expect_kind, expect_same_dtype, expect_same_shape, fail, is_one, random_array

__all__: list[str] = []

_VIEW = frozenset({"view", "linear"})
_LINEAR = frozenset({"linear"})
_FLOATS = (np.float64, np.float32)
_ALL = (np.float64, np.float32, np.int32, np.bool_)


def static_zero(size: Size) -> bool:
    """Whether a size (or offset) is statically 0."""
    return type(size) is int and size == 0


# -- reshape, transpose, broadcast_to

def _reshape_infer(x: ArrayType, *, shape: tuple[Size, ...]) -> tuple[ArrayType, ...]:
    if differ(product(x.shape), product(shape)):
        fail("reshape", "shape", f"{product(x.shape)} elements as x of shape {x.shape}", f"{shape}")
    return (ArrayType(tuple(shape), x.dtype),)


def unflatten(flat: Scalar, shape: tuple[Size, ...]) -> tuple[Scalar, ...]:
    """The index at row-major position `flat` of an array of `shape`."""
    index: list[Any] = [0] * len(shape)
    axes = [k for k, n in enumerate(shape) if not is_one(n)]
    for k in reversed(axes):
        index[k] = flat if k == axes[0] else flat % shape[k]
        flat = flat // shape[k] if k != axes[0] else flat
    return tuple(index)


def flatten(index: tuple[Any, ...], shape: tuple[Size, ...]) -> Scalar:
    """The row-major position of an index."""
    flat: Any = constant(0, np.int64)
    for i, n in zip(index, shape):
        flat = flat * n + i if not is_one(n) else flat
    return flat


def _reshape_lower(index: tuple, x: Any, *, shape: tuple[Size, ...]) -> Scalar:
    return x[unflatten(flatten(index, shape), x.shape)]


def _reshape_samples() -> Iterator[Sample]:
    check = lambda x, shape: np.array(x.ravel().tolist(), x.dtype).reshape(shape)
    for a, b in (((3, 4), (12,)), ((3, 4), (2, 6)), ((12,), (2, 1, 6)), ((2, 3, 4), (4, 3, 2)), ((), (1, 1)), ((1,), ()),
                 ((0, 3), (3, 0, 2)), ((2, 1, 3), (2, 3))):
        for dtype in _ALL:
            yield Sample((random_array(1, a, dtype),), {"shape": b}, check)


register(Op(
    "reshape", ("x",), _reshape_infer, lambda xp, x, *, shape: x.reshape(shape),
    {"x": Vjp(lambda g, x_type: F.reshape(g, x_type.shape))}, Indexed(_reshape_lower), _reshape_samples, traits=_VIEW,
))


def _transpose_infer(x: ArrayType, *, axes: tuple[int, ...]) -> tuple[ArrayType, ...]:
    expect_axes("transpose", axes, len(x.shape))
    if len(axes) != len(x.shape):
        fail("transpose", "axes", f"one for each of the {len(x.shape)} axes of x", repr(axes))
    return (ArrayType(tuple(x.shape[a] for a in axes), x.dtype),)


def _transpose_samples() -> Iterator[Sample]:
    for shape, axes in (((3, 4), (1, 0)), ((2, 3, 4), (2, 0, 1)), ((5,), (0,)), ((), ()), ((0, 3), (1, 0)),
                        ((2, 3, 1, 4), (3, 2, 1, 0))):
        for dtype in _ALL:
            yield Sample((random_array(1, shape, dtype),), {"axes": axes}, lambda x, axes: np.transpose(x, axes))


register(Op(
    "transpose", ("x",), _transpose_infer, lambda xp, x, *, axes: x.transpose(axes),
    {"x": Vjp(lambda g, axes: F.permute_dims(g, tuple(axes.index(k) for k in range(len(axes)))))},
    Indexed(lambda index, x, *, axes: x[tuple(index[axes.index(k)] for k in range(len(axes)))]),
    _transpose_samples, traits=_VIEW,
))


def _broadcast_infer(x: ArrayType, *, shape: tuple[Size, ...]) -> tuple[ArrayType, ...]:
    offset = len(shape) - len(x.shape)
    if offset < 0 or any(not is_one(n) and differ(n, shape[offset + k]) for k, n in enumerate(x.shape)):
        fail("broadcast_to", "shape", f"one to which x of shape {x.shape} broadcasts", f"{shape}")
    return (ArrayType(tuple(shape), x.dtype),)


def _broadcast_lower(index: tuple, x: Any, *, shape: tuple[Size, ...]) -> Scalar:
    offset = len(shape) - len(x.shape)
    return x[tuple(0 if is_one(n) else index[offset + k] for k, n in enumerate(x.shape))]


def _broadcast_samples() -> Iterator[Sample]:
    for a, b in (((3, 1), (3, 4)), ((4,), (3, 4)), ((), (2, 3)), ((1, 1), (1, 1)), ((1, 3), (0, 3)), ((1,), (5,)),
                 ((2, 1, 3), (2, 4, 3))):
        for dtype in _ALL:
            yield Sample((random_array(1, a, dtype),), {"shape": b}, lambda x, shape: np.zeros(shape, x.dtype) + x)


register(Op(
    "broadcast_to", ("x",), _broadcast_infer, lambda xp, x, *, shape: xp.broadcast_to(x, shape),
    {"x": Vjp(lambda g: g)}, Indexed(_broadcast_lower), _broadcast_samples, traits=_VIEW,
))


# -- slice, flip

def _slice_shape(op: str, x: ArrayType, start: tuple, stop: tuple, step: tuple) -> tuple[Size, ...]:
    n = len(x.shape)
    if not len(start) == len(stop) == len(step) == n:
        fail(op, "start, stop, step", f"one for each of the {n} axes of x", f"{start}, {stop}, {step}")
    shape = []
    for k, (low, high, by, size) in enumerate(zip(start, stop, step, x.shape)):
        whole = type(low) is int and low == 0 and not differ(high, size)
        if not whole and (by <= 0 or low < 0 or high < low or high > size):
            fail(op, f"region of axis {k}", f"0 <= start <= stop <= {size} and step > 0", f"{low}:{high}:{by}")
        shape.append(high - low if is_one(by) else (high - low + by - 1) // by)
    return tuple(shape)


def _slice_infer(x: ArrayType, *, start: tuple, stop: tuple, step: tuple) -> tuple[ArrayType, ...]:
    return (ArrayType(_slice_shape("slice", x, start, stop, step), x.dtype),)


def _slices(start: tuple, stop: tuple, step: tuple) -> tuple[slice, ...]:
    return tuple([slice(a, b, c) for a, b, c in zip(start, stop, step)])


def _slice_vjp(g: Any, x_type: ArrayType, start: tuple, stop: tuple, step: tuple) -> Any:
    """Zeros between and around: what follows the last element read is padded too."""
    high, interior = [], []
    for n, low, size, by in zip(g.shape, start, x_type.shape, step):
        span = n if is_one(by) else (n - 1) * by + 1 if not static_zero(n) else 0
        high.append(size - low - span)
        interior.append(by - 1)
    return F.primitive("pad", g, low=tuple(start), high=tuple(high), interior=tuple(interior), value=0.0)


_REGIONS = (
    ((3, 4), (0, 1), (3, 3), (1, 1)), ((3, 4), (1, 0), (2, 4), (1, 2)), ((7,), (1,), (7,), (3,)), ((7,), (2,), (2,), (1,)),
    ((2, 5, 3), (0, 1, 2), (2, 5, 3), (1, 2, 1)), ((), (), (), ()), ((0, 3), (0, 1), (0, 2), (1, 1)), ((6,), (0,), (5,), (2,)),
)


def _slice_samples() -> Iterator[Sample]:
    check = lambda x, start, stop, step: x[_slices(start, stop, step)]
    for shape, start, stop, step in _REGIONS:
        for dtype in _ALL:
            yield Sample((random_array(1, shape, dtype),), {"start": start, "stop": stop, "step": step}, check)


register(Op(
    "slice", ("x",), _slice_infer, lambda xp, x, *, start, stop, step: x[(*_slices(start, stop, step), ...)],
    {"x": Vjp(_slice_vjp)},
    Indexed(lambda index, x, *, start, stop, step: x[tuple(i * by + low for i, low, by in zip(index, start, step))]),
    _slice_samples, traits=_VIEW,
))


def _flip_infer(x: ArrayType, *, axes: tuple[int, ...]) -> tuple[ArrayType, ...]:
    expect_axes("flip", axes, len(x.shape))
    return (x,)


def _flip_eager(xp: Any, x: Any, *, axes: tuple[int, ...]) -> Any:
    return x[(*(slice(None, None, -1) if k in axes else slice(None) for k in range(x.ndim)), ...)]


def _flip_lower(index: tuple, x: Any, *, axes: tuple[int, ...]) -> Scalar:
    return x[tuple(-i + (x.shape[k] - 1) if k in axes else i for k, i in enumerate(index))]


def _flip_samples() -> Iterator[Sample]:
    for shape, axes in (((3, 4), (0,)), ((3, 4), (0, 1)), ((5,), ()), ((), ()), ((0, 3), (0,)), ((2, 3, 4), (2, 0))):
        for dtype in _ALL:
            yield Sample((random_array(1, shape, dtype),), {"axes": axes}, lambda x, axes: np.flip(x, axes))


register(Op("flip", ("x",), _flip_infer, _flip_eager, {"x": Vjp(lambda g, axes: F.flip(g, axes))}, Indexed(_flip_lower),
            _flip_samples, traits=_VIEW))


# -- pad

def _spread(n: Size, interior: int) -> Size:
    return n if static_zero(interior) else 0 if static_zero(n) else n + (n - 1) * interior


def _pad_infer(x: ArrayType, *, low: tuple, high: tuple, interior: tuple, value: float) -> tuple[ArrayType, ...]:
    n = len(x.shape)
    if not len(low) == len(high) == len(interior) == n:
        fail("pad", "low, high, interior", f"one for each of the {n} axes of x", f"{low}, {high}, {interior}")
    shape = []
    for k, (size, a, b, between) in enumerate(zip(x.shape, low, high, interior)):
        if type(between) is int and between < 0:
            fail("pad", f"interior of axis {k}", "at least 0", between)
        result = _spread(size, between) + a + b
        if type(result) is int and result < 0:
            fail("pad", f"low and high of axis {k}", f"no more cropped than its size {size}", f"{a} and {b}")
        shape.append(result)
    return (ArrayType(tuple(shape), x.dtype),)


def _pad_regions(shape: tuple, low: tuple, high: tuple, interior: tuple) -> tuple[tuple, tuple, tuple]:
    """The result's shape, and the slices of the result and of x that hold the same elements."""
    sizes, target, source = [], [], []
    for n, a, b, between in zip(shape, low, high, interior):
        by = between + 1
        total = _spread(n, between) + a + b
        first = max(0, -(a // by))  # the first element of x that is not cropped: a + first * by >= 0
        last = min(n, (total - 1 - a) // by + 1)  # and behind the last: a + (last - 1) * by <= total - 1
        last = max(first, last)
        begin = a + first * by
        sizes.append(total)
        source.append(slice(first, last))
        target.append(slice(begin, begin + (last - first - 1) * by + 1 if last > first else begin, by))
    return tuple(sizes), tuple(target), tuple(source)


def _pad_eager(xp: Any, x: Any, *, low: tuple, high: tuple, interior: tuple, value: float) -> Any:
    sizes, target, source = _pad_regions(x.shape, low, high, interior)
    out = xp.zeros(sizes, x.dtype) if value == 0 else xp.full(sizes, value, x.dtype)
    out[target] = x[source]
    return out


def _pad_lower(index: tuple, x: Any, *, low: tuple, high: tuple, interior: tuple, value: float) -> Scalar:
    position, inside = [], None
    for i, n, a, b, between in zip(index, x.shape, low, high, interior):
        if not static_zero(a):
            i = i - a
        if not static_zero(between):
            on = (i % (between + 1)).equals(0)
            i = i // (between + 1)
            inside = on if inside is None else inside & on
        if not static_zero(a) or not static_zero(between):
            inside = i >= 0 if inside is None else inside & (i >= 0)
        if not static_zero(b) or not static_zero(between):
            inside = i < n if inside is None else inside & (i < n)
        position.append(i)
    read = x[tuple(position)]
    return read if inside is None else where(inside, read, constant(value, x.dtype))


def _pad_vjp(g: Any, x_type: ArrayType, low: tuple, high: tuple, interior: tuple) -> Any:
    """The elements that came from x: crop, then every (interior+1)-th; what was cropped away gets zeros."""
    if any(type(b) is not int or b for b in interior):
        zero = (0,) * len(low)
        inner = F.primitive("pad", g, low=tuple(-a for a in low), high=tuple(-b for b in high), interior=zero, value=0.0)
        step = tuple(b + 1 for b in interior)
        return F.primitive("slice", inner, start=zero, stop=inner.shape, step=step)
    return F.primitive("pad", g, low=tuple(-a for a in low), high=tuple(-b for b in high), interior=interior, value=0.0)


def _pad_reference(x: np.ndarray, low: tuple, high: tuple, interior: tuple, value: float) -> np.ndarray:
    for axis, (a, b, between) in enumerate(zip(low, high, interior)):
        rows = list(np.moveaxis(x, axis, 0))
        blank = np.full(np.moveaxis(x, axis, 0).shape[1:], value, x.dtype)
        spread = [r for k, row in enumerate(rows) for r in ([blank] * (between if k else 0) + [row])]
        spread = [blank] * a + spread if a >= 0 else spread[-a:]
        spread = spread + [blank] * b if b >= 0 else spread[:b]
        shape = (len(spread), *blank.shape)
        x = np.moveaxis(np.stack(spread) if spread else np.zeros(shape, x.dtype), 0, axis)
    return x


def _pad_samples() -> Iterator[Sample]:
    for shape, low, high, interior in (
        ((3, 4), (1, 0), (0, 2), (0, 0)), ((3, 4), (-1, 2), (1, -2), (0, 0)), ((4,), (1,), (1,), (2,)), ((5,), (-2,), (0,), (1,)),
        ((5,), (-1,), (-1,), (2,)), ((2, 3), (0, 0), (0, 0), (0, 0)), ((), (), (), ()), ((0, 2), (1, 0), (2, 0), (0, 0)),
        ((3,), (2,), (-4,), (0,)), ((2, 1, 3), (0, 1, 1), (1, 1, 0), (1, 1, 1)),
        ((4,), (0,), (-3,), (0,)), ((3,), (-2,), (-1,), (0,)),
    ):
        for dtype, value in ((np.float64, 0.0), (np.float32, -1.5), (np.int32, 7.0)):
            attrs = {"low": low, "high": high, "interior": interior, "value": value}
            yield Sample((random_array(1, shape, dtype, -9, 9),), attrs, _pad_reference)


register(Op("pad", ("x",), _pad_infer, _pad_eager, {"x": Vjp(_pad_vjp)}, Indexed(_pad_lower), _pad_samples))


# -- concatenate

def _concatenate_infer(*xs: ArrayType, axis: int) -> tuple[ArrayType, ...]:
    if not xs:
        fail("concatenate", "arrays", "at least one", "none")
    dtype = expect_same_dtype("concatenate", (f"xs[{k}]" for k in range(len(xs))), xs)
    ndim = len(xs[0].shape)
    expect_axis("concatenate", axis, ndim)
    total: Size = 0
    for k, x in enumerate(xs):
        if len(x.shape) != ndim or any(j != axis and differ(a, b) for j, (a, b) in enumerate(zip(x.shape, xs[0].shape))):
            fail("concatenate", f"shape of arrays[{k}]", f"that of arrays[0], {xs[0].shape}, except along axis {axis}", x.shape)
        total = total + x.shape[axis]
    return (ArrayType((*xs[0].shape[:axis], total, *xs[0].shape[axis + 1 :]), dtype),)


def _concatenate_vjp(g: Any, xs: tuple, out: Any, *, axis: int) -> tuple:
    gradients, at = [], 0
    for x in xs:
        start = tuple(at if k == axis else 0 for k in range(g.ndim))
        at = at + x.shape[axis]
        stop = tuple(at if k == axis else n for k, n in enumerate(g.shape))
        gradients.append(F.primitive("slice", g, start=start, stop=stop, step=(1,) * g.ndim))
    return tuple(gradients)


def _concatenate_lower(index: tuple, *xs: Any, axis: int) -> Scalar:
    """A chain of choices, the last argument where no earlier one holds the position."""
    starts: list[Size] = [0]
    for x in xs:
        starts.append(starts[-1] + x.shape[axis])
    i = index[axis]

    def read(k: int) -> Scalar:
        return xs[k][(*index[:axis], i - starts[k], *index[axis + 1 :])]

    parts = [k for k, x in enumerate(xs) if not static_zero(x.shape[axis])] or [len(xs) - 1]
    out = read(parts[-1])
    for k in reversed(parts[:-1]):
        out = where(i < starts[k + 1], read(k), out)
    return out


def _concatenate_samples() -> Iterator[Sample]:
    check = lambda *xs, axis: np.concatenate(xs, axis)
    for shapes, axis in ((((3, 4), (2, 4)), 0), (((3, 4), (3, 1), (3, 2)), 1), (((2,),), 0), (((0, 2), (3, 2)), 0),
                         (((3, 2), (0, 2)), 0), (((2, 0), (3, 0)), 0), (((1, 2, 3), (1, 5, 3)), 1)):
        for dtype in _ALL:
            yield Sample(tuple(random_array(k, s, dtype) for k, s in enumerate(shapes)), {"axis": axis}, check)


register(Op("concatenate", ("*xs",), _concatenate_infer, lambda xp, *xs, axis: xp.concatenate(xs, axis=axis),
            _concatenate_vjp, Indexed(_concatenate_lower), _concatenate_samples, traits=_LINEAR))


# -- iota

def _iota_infer(*, shape: tuple[Size, ...], axis: int, dtype: np.dtype) -> tuple[ArrayType, ...]:
    expect_axis("iota", axis, len(shape))
    expect_kind("iota", "the result", np.dtype(dtype), "iuf")
    return (ArrayType(tuple(shape), np.dtype(dtype)),)


def _iota_eager(xp: Any, *, shape: tuple[int, ...], axis: int, dtype: np.dtype) -> Any:
    line = xp.arange(shape[axis]).astype(dtype)
    return xp.array(xp.broadcast_to(line.reshape([-1 if k == axis else 1 for k in range(len(shape))]), shape))


def _iota_samples() -> Iterator[Sample]:
    check = lambda shape, axis, dtype: np.indices(shape)[axis].astype(dtype)
    for shape, axis in (((5,), 0), ((3, 4), 0), ((3, 4), 1), ((0,), 0), ((2, 3, 1), 1)):
        for dtype in (np.float64, np.float32, np.int32, np.int64, np.uint8):
            yield Sample((), {"shape": shape, "axis": axis, "dtype": np.dtype(dtype)}, check)


register(Op("iota", (), _iota_infer, _iota_eager, NONDIFF, Indexed(lambda index, *, shape, axis, dtype: cast(index[axis], dtype)),
            _iota_samples))


# -- dimension: a size as a value

def _dimension_infer(*, size: Size, dtype: np.dtype) -> tuple[ArrayType, ...]:
    expect_kind("dimension", "the result", np.dtype(dtype), "iuf")
    return (ArrayType((), np.dtype(dtype)),)


def _dimension_samples() -> Iterator[Sample]:
    for dtype in (np.float64, np.float32, np.int32, np.int64):
        yield Sample((), {"size": 7, "dtype": np.dtype(dtype)}, lambda size, dtype: np.array(size, dtype))


register(Op(
    "dimension", (), _dimension_infer, lambda xp, *, size, dtype: xp.asarray(int(size), dtype=dtype), NONDIFF,
    Indexed(lambda index, *, size, dtype: cast(size_of(size), dtype)), _dimension_samples,
))


# -- update_slice

def _update_infer(x: ArrayType, value: ArrayType, *, start: tuple, stop: tuple, step: tuple) -> tuple[ArrayType, ...]:
    expect_same_dtype("update_slice", ("x", "value"), (x, value))
    expect_same_shape("update_slice", "value", _slice_shape("update_slice", x, start, stop, step), value.shape)
    return (x,)


def _update_eager(xp: Any, x: Any, value: Any, *, start: tuple, stop: tuple, step: tuple) -> Any:
    out = x.copy()
    out[_slices(start, stop, step)] = value
    return out


def _update_lower(index: tuple, x: Any, value: Any, *, start: tuple, stop: tuple, step: tuple) -> Scalar:
    inside, position = None, []
    for i, n, low, high, by in zip(index, x.shape, start, stop, step):
        offset = i
        if not static_zero(low):
            offset = i - low
            inside = i >= low if inside is None else inside & (i >= low)
        if type(high) is not type(n) or high != n:
            inside = i < high if inside is None else inside & (i < high)
        if not is_one(by):
            on = (offset % by).equals(0)
            inside = on if inside is None else inside & on
            offset = offset // by
        position.append(offset)
    read = value[tuple(position)]
    return read if inside is None else where(inside, read, x[tuple(index)])


def _update_x(g: Any, value_type: ArrayType, start: tuple, stop: tuple, step: tuple) -> Any:
    zeros = F.zeros(value_type.shape, dtype=g.dtype, device=g.device)
    return F.primitive("update_slice", g, zeros, start=start, stop=stop, step=step)


def _update_samples() -> Iterator[Sample]:
    def check(x: np.ndarray, value: np.ndarray, start: tuple, stop: tuple, step: tuple) -> np.ndarray:
        out = x.copy()
        for at in np.ndindex(value.shape):
            out[tuple(low + i * by for i, low, by in zip(at, start, step))] = value[at]
        return out

    for shape, start, stop, step in _REGIONS:
        for dtype in _ALL:
            x = random_array(1, shape, dtype)
            value = random_array(2, x[_slices(start, stop, step)].shape, dtype)
            yield Sample((x, value), {"start": start, "stop": stop, "step": step}, check)


register(Op(
    "update_slice", ("x", "value"), _update_infer, _update_eager,
    {"x": Vjp(_update_x),
     "value": Vjp(lambda g, start, stop, step: F.primitive("slice", g, start=start, stop=stop, step=step))},
    Indexed(_update_lower), _update_samples, traits=_LINEAR,
))

