"""Pooling over the trailing axes: maxima with their positions, sums, and the duals of both.

Window o along an axis covers the positions ``o * stride - padding + k`` for k in range(kernel). Outside of x stand the
lowest value (max_pool) or 0 (sum_pool). In gather form throughout: position p of an unpooled array is reached from
the windows ``o = (p + padding) // stride - j`` for j in range(ceil(kernel / stride)).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product as cartesian
from typing import Any

import numpy as np

from .. import functions as F
from ..dims import Size
from ..op import ArrayType, Indexed, Op, Reduction, Sample, Vjp, register
from ..scalar import Scalar, cast, constant, operate, where
from .base import BOOL, expect_kind, expect_same_shape, fail, in_single, random_array
from .convolution import window_count

__all__: list[str] = []

Pads = tuple[tuple[int, int], ...]
INT32 = np.dtype(np.int32)


def _pooled(op: str, shape: tuple[Size, ...], kernel: tuple, stride: tuple, padding: Pads) -> tuple[Size, ...]:
    rank = len(kernel)
    if not rank == len(stride) == len(padding) or rank > len(shape):
        fail(op, "kernel, stride, padding", f"one entry each for some trailing axes of shape {shape}",
             f"{kernel}, {stride}, {padding}")
    if any(k < 1 for k in kernel) or any(s < 1 for s in stride) or any(a < 0 or b < 0 for a, b in padding):
        fail(op, "kernel, stride, padding", "kernel and stride of at least 1, padding of at least 0",
             f"{kernel}, {stride}, {padding}")
    lead = len(shape) - rank
    counts = tuple(window_count(*a) for a in zip(shape[lead:], kernel, stride, padding))
    for axis, (n, count) in enumerate(zip(shape[lead:], counts)):
        if type(count) is int and count < 1:
            fail(op, f"axis {lead + axis} of x", f"a (padded) size of at least {kernel[axis]}",
                 f"{n} with padding {padding[axis]}")
    return (*shape[:lead], *counts)


def _lowest(dtype: np.dtype) -> Any:
    return False if dtype == BOOL else -np.inf if dtype.kind not in "iu" else int(np.iinfo(dtype).min)


def _flat(offsets: tuple, kernel: tuple[int, ...]) -> Any:
    flat: Any = 0
    for offset, k in zip(offsets, kernel):
        flat = flat * k + offset
    return flat


def _taps(xp: Any, x: Any, kernel: tuple, stride: tuple, padding: Pads, fill: Any) -> Iterator[Any]:
    """For each position in the window in row-major order, the elements of padded x it meets, over all windows."""
    lead = x.ndim - len(kernel)
    counts = _pooled("pool", x.shape, kernel, stride, padding)[lead:]
    if any(a or b for a, b in padding):
        wide = xp.full((*x.shape[:lead], *(n + a + b for n, (a, b) in zip(x.shape[lead:], padding))), fill, x.dtype)
        wide[(..., *(slice(a, a + n) for n, (a, _) in zip(x.shape[lead:], padding)))] = x
        x = wide
    for offsets in cartesian(*map(range, kernel)):
        yield x[(..., *(slice(k, k + (n - 1) * s + 1, s) for k, n, s in zip(offsets, counts, stride)))]


def _spread(xp: Any, parts: Callable[[int], Any], dtype: Any, shape: tuple, counts: tuple, kernel: tuple, stride: tuple,
            padding: Pads) -> Any:
    """The array of `shape` to which ``parts(k)`` is added at the k-th position of each window."""
    lead = len(shape) - len(kernel)
    wide = xp.zeros((*shape[:lead], *(n + a + b for n, (a, b) in zip(shape[lead:], padding))), dtype)
    for flat, offsets in enumerate(cartesian(*map(range, kernel))):
        wide[(..., *(slice(k, k + (n - 1) * s + 1, s) for k, n, s in zip(offsets, counts, stride)))] += parts(flat)
    return xp.ascontiguousarray(wide[(..., *(slice(a, a + n) for n, (a, _) in zip(shape[lead:], padding)))])


# -- lowering helpers

def _window_read(index: tuple, offsets: tuple, x: Any, stride: tuple, padding: Pads, outside: Any) -> Scalar:
    """The element of x at `offsets` in the window `index`, or `outside`."""
    lead = len(index) - len(offsets)
    position, inside = [], None
    for o, k, s, (a, b), n in zip(index[lead:], offsets, stride, padding, x.shape[lead:]):
        p = o * s + k
        if a:
            p = p - a
            inside = p >= 0 if inside is None else inside & (p >= 0)
        if a or b:
            inside = p < n if inside is None else inside & (p < n)
        position.append(p)
    read = x[(*index[:lead], *position)]
    return read if inside is None else where(inside, read, outside)


def _covering(
    index: tuple, reduced: tuple, counts: tuple[Size, ...], kernel: tuple, stride: tuple, padding: Pads
) -> tuple[tuple, tuple, Scalar]:
    """For position `index` and choice `reduced`: a window, the offset in it, and whether they exist."""
    lead = len(index) - len(kernel)
    window, offsets, valid = [], [], None
    for p, j, count, k, s, (a, _) in zip(index[lead:], reduced, counts, kernel, stride, padding):
        at = p + a
        o = at // s - j
        offset = at % s + j * s
        ok = (o >= 0) & (o < count) & (offset < k)
        valid = ok if valid is None else valid & ok
        window.append(o)
        offsets.append(offset)
    assert valid is not None
    return (*index[:lead], *window), tuple(offsets), valid


def _choices(kernel: tuple, stride: tuple) -> tuple[int, ...]:
    return tuple(-(-k // s) for k, s in zip(kernel, stride))


# -- max_pool

def _max_infer(x: ArrayType, *, kernel: tuple, stride: tuple, padding: Pads) -> tuple[ArrayType, ...]:
    expect_kind("max_pool", "x", x.dtype, "iuf")
    shape = _pooled("max_pool", x.shape, kernel, stride, padding)
    return ArrayType(shape, x.dtype), ArrayType(shape, INT32)


def _max_eager(xp: Any, x: Any, *, kernel: tuple, stride: tuple, padding: Pads) -> Any:
    out = index = None
    for k, part in enumerate(_taps(xp, x, kernel, stride, padding, _lowest(x.dtype))):
        if out is None:
            out, index = xp.array(part, order="C"), xp.zeros(part.shape, INT32)
            continue
        better = part > out if x.dtype.kind in "iu" else xp.logical_not(part <= out) & (out == out)
        xp.copyto(out, part, where=better)
        xp.copyto(index, INT32.type(k), where=better)
    return out, index


def _max_element(index: tuple, reduced: tuple, x: Any, *, kernel: tuple, stride: tuple, padding: Pads) -> tuple[Scalar, ...]:
    value = _window_read(index, reduced, x, stride, padding, constant(_lowest(x.dtype), x.dtype))
    return value, cast(_flat(reduced, kernel), INT32)


def _max_combine(a: tuple, b: tuple) -> tuple[Scalar, ...]:
    """The larger value, the earlier position among equal ones; a NaN is the largest."""
    (x, i), (y, j) = a, b
    tie = y.equals(x)
    gain = y > x
    if x.dtype.kind not in "iu":
        nan, other = operate("isnan", x), operate("isnan", y)
        tie = tie | (nan & other)
        gain = gain | (other & operate("not", nan))
    take = gain | (tie & (j < i))
    return where(take, y, x), where(take, j, i)


def _max_append(a: tuple, b: tuple) -> tuple[Scalar, ...]:
    """As `_max_combine` where b comes later: only a larger value, or the first NaN, is taken."""
    (x, i), (y, j) = a, b
    take = y > x
    if x.dtype.kind not in "iu":
        take = operate("not", y <= x) & x.equals(x)
    return where(take, y, x), where(take, j, i)


def _max_vjp(g0: Any, out1: Any, x_type: ArrayType, kernel: tuple, stride: tuple, padding: Pads) -> Any:
    return F.primitive("max_unpool", g0, out1, shape=x_type.shape, kernel=kernel, stride=stride, padding=padding)


_CASES: tuple[tuple, ...] = (
    ((2, 3, 6, 6), (2, 2), (2, 2), ((0, 0), (0, 0))), ((2, 3, 6, 7), (3, 3), (2, 2), ((1, 1), (1, 1))),
    ((1, 2, 5, 5), (3, 2), (1, 1), ((0, 1), (1, 0))), ((2, 2, 5, 4), (5, 4), (1, 1), ((0, 0), (0, 0))),
    ((2, 9), (3,), (2,), ((1, 1),)), ((7,), (2,), (3,), ((0, 1),)),
    ((1, 2, 3, 4, 4), (2, 2, 2), (1, 2, 2), ((0, 0), (0, 0), (1, 1))), ((0, 2, 4), (2,), (2,), ((0, 0),)),
)


def _samples(reference: Callable, make: Callable) -> Callable[[], Iterator[Sample]]:
    """`make(dtype, shape, pooled shape, attrs)` gives the arrays and further attributes."""

    def samples() -> Iterator[Sample]:
        for shape, kernel, stride, padding in _CASES:
            attrs = {"kernel": kernel, "stride": stride, "padding": padding}
            for dtype in (np.float64, np.float32):
                arrays, more = make(dtype, shape, _pooled("pool", shape, **attrs), kernel)
                yield Sample(arrays, {**attrs, **more}, reference, tolerance=8.0)

    return samples


def _each_window(shape: tuple, kernel: tuple, stride: tuple, padding: Pads) -> Iterator[tuple[tuple, int, tuple | None]]:
    """(window, flat offset, position or None outside) one by one."""
    lead = len(shape) - len(kernel)
    for window in np.ndindex(*_pooled("pool", shape, kernel, stride, padding)):
        for flat, offsets in enumerate(np.ndindex(*kernel)):
            at = tuple(o * s - a + k for o, s, (a, _), k in zip(window[lead:], stride, padding, offsets))
            inside = all(0 <= p < n for p, n in zip(at, shape[lead:]))
            yield window, flat, (*window[:lead], *at) if inside else None


def _max_reference(x: np.ndarray, **attrs: Any) -> tuple[np.ndarray, np.ndarray]:
    shape = _pooled("pool", x.shape, **attrs)
    rows: dict[tuple, list] = {w: [] for w in np.ndindex(*shape)}
    for window, _, at in _each_window(x.shape, **attrs):
        rows[window].append(-np.inf if at is None else x[at])
    out, index = np.zeros(shape, x.dtype), np.zeros(shape, INT32)
    for window, values in rows.items():
        index[window] = np.argmax(values)
        out[window] = values[index[window]]
    return out, index


def _max_samples() -> Iterator[Sample]:
    yield from _samples(_max_reference, lambda dtype, shape, pooled, kernel: ((random_array(1, shape, dtype),), {}))()
    ties = np.array([[1.0, 1.0, np.nan, 0.0, np.nan, -np.inf, -np.inf, 2.0, 2.0]])
    attrs = {"kernel": (3,), "stride": (1,), "padding": ((0, 0),)}
    yield Sample((ties,), attrs, _max_reference, differentiable=False)
    yield Sample((random_array(1, (2, 6), np.int32, -9, 9),), attrs, _max_reference)


register(Op(
    "max_pool", ("x",), _max_infer, _max_eager, {"x": Vjp(_max_vjp)},
    Reduction(lambda x, *, kernel, **_: kernel, _max_element, _max_combine,
              lambda dtypes: (_lowest(dtypes[0]), 0), append=_max_append),  # where all are lowest, the first is the answer
    _max_samples, results=2,
))


# -- max_unpool, max_pool_gather

def _unpool_infer(
    x: ArrayType, index: ArrayType, *, shape: tuple, kernel: tuple, stride: tuple, padding: Pads
) -> tuple[ArrayType, ...]:
    expect_same_shape("max_unpool", "x", _pooled("max_unpool", shape, kernel, stride, padding), x.shape)
    expect_same_shape("max_unpool", "index", x.shape, index.shape)
    return (ArrayType(tuple(shape), x.dtype),)


def _unpool_eager(xp: Any, x: Any, index: Any, *, shape: tuple, kernel: tuple, stride: tuple, padding: Pads) -> Any:
    lead = len(shape) - len(kernel)
    part = lambda k: xp.where(index == k, x, x.dtype.type(0))
    return _spread(xp, part, x.dtype, shape, x.shape[lead:], kernel, stride, padding)


def _unpool_element(
    index: tuple, reduced: tuple, x: Any, chosen: Any, *, shape: tuple, kernel: tuple, stride: tuple, padding: Pads
) -> tuple[Scalar, ...]:
    counts = x.shape[len(shape) - len(kernel) :]
    window, offsets, valid = _covering(index, reduced, counts, kernel, stride, padding)
    found = where(valid, chosen[window], constant(-1, INT32))
    return (where(found.equals(cast(_flat(offsets, kernel), INT32)), x[window], constant(0, x.dtype)),)


def _unpool_reference(x: np.ndarray, index: np.ndarray, shape: tuple, **attrs: Any) -> np.ndarray:
    out = np.zeros(shape, x.dtype)
    for window, flat, at in _each_window(shape, **attrs):
        if at is not None and index[window] == flat:
            out[at] += x[window]
    return out


def _sum_fold(element: Callable, domain: Callable) -> Reduction:
    return Reduction(domain, element, lambda a, b: (a[0] + b[0],), lambda dtypes: (0,))


register(Op(
    "max_unpool", ("x", "index"), _unpool_infer, _unpool_eager,
    {"x": Vjp(lambda g, index, kernel, stride, padding:
              F.primitive("max_pool_gather", g, index, kernel=kernel, stride=stride, padding=padding))},
    _sum_fold(_unpool_element, lambda x, index, *, kernel, stride, **_: _choices(kernel, stride)),
    _samples(_unpool_reference, lambda dtype, shape, pooled, kernel: (
        (random_array(1, pooled, dtype), random_array(2, pooled, INT32, 0, int(np.prod(kernel)))), {"shape": shape})),
))


def _gather_infer(x: ArrayType, index: ArrayType, *, kernel: tuple, stride: tuple, padding: Pads) -> tuple[ArrayType, ...]:
    expect_same_shape("max_pool_gather", "index", _pooled("max_pool_gather", x.shape, kernel, stride, padding), index.shape)
    return (ArrayType(index.shape, x.dtype),)


def _gather_eager(xp: Any, x: Any, index: Any, *, kernel: tuple, stride: tuple, padding: Pads) -> Any:
    out = xp.zeros(index.shape, x.dtype)
    for k, part in enumerate(_taps(xp, x, kernel, stride, padding, 0)):
        xp.copyto(out, part, where=index == k)
    return out


def _gather_lower(index: tuple, x: Any, chosen: Any, *, kernel: tuple, stride: tuple, padding: Pads) -> Scalar:
    flat = cast(chosen[tuple(index)], np.int64)
    flat = operate("min", operate("max", flat, 0), int(np.prod(kernel)) - 1)
    offsets: list[Any] = [0] * len(kernel)
    for k in reversed(range(len(kernel))):
        offsets[k] = flat % kernel[k] if k else flat
        flat = flat // kernel[k]
    return _window_read(tuple(index), tuple(offsets), x, stride, padding, constant(0, x.dtype))


def _gather_reference(x: np.ndarray, index: np.ndarray, **attrs: Any) -> np.ndarray:
    out = np.zeros(index.shape, x.dtype)
    for window, flat, at in _each_window(x.shape, **attrs):
        if at is not None and index[window] == flat:
            out[window] = x[at]
    return out


register(Op(
    "max_pool_gather", ("x", "index"), _gather_infer, _gather_eager,
    {"x": Vjp(lambda g, index, x_type, kernel, stride, padding:
              F.primitive("max_unpool", g, index, shape=x_type.shape, kernel=kernel, stride=stride, padding=padding))},
    Indexed(_gather_lower),
    _samples(_gather_reference, lambda dtype, shape, pooled, kernel: (
        (random_array(1, shape, dtype), random_array(2, pooled, INT32, 0, int(np.prod(kernel)))), {})),
))


# -- sum_pool, sum_unpool

def _sum_infer(x: ArrayType, *, kernel: tuple, stride: tuple, padding: Pads) -> tuple[ArrayType, ...]:
    expect_kind("sum_pool", "x", x.dtype, "iuf")
    return (ArrayType(_pooled("sum_pool", x.shape, kernel, stride, padding), x.dtype),)


def _sum_eager(xp: Any, x: Any, *, kernel: tuple, stride: tuple, padding: Pads) -> Any:
    out = None
    for part in _taps(xp, x, kernel, stride, padding, 0):
        if out is None:
            out = xp.array(part, order="C")
        else:
            out += part
    return out


def _sum_element(index: tuple, reduced: tuple, x: Any, *, kernel: tuple, stride: tuple, padding: Pads) -> tuple[Scalar, ...]:
    return (_window_read(index, reduced, x, stride, padding, constant(0, x.dtype)),)


def _sum_reference(x: np.ndarray, **attrs: Any) -> np.ndarray:
    out = np.zeros(_pooled("pool", x.shape, **attrs), x.dtype)
    for window, _, at in _each_window(x.shape, **attrs):
        if at is not None:
            out[window] += x[at]
    return out


register(Op(
    "sum_pool", ("x",), _sum_infer, in_single(_sum_eager),
    {"x": Vjp(lambda g, x_type, kernel, stride, padding:
              F.primitive("sum_unpool", g, shape=x_type.shape, kernel=kernel, stride=stride, padding=padding))},
    _sum_fold(_sum_element, lambda x, *, kernel, **_: kernel),
    _samples(_sum_reference, lambda dtype, shape, pooled, kernel: ((random_array(1, shape, dtype),), {})),
))


def _sum_unpool_infer(x: ArrayType, *, shape: tuple, kernel: tuple, stride: tuple, padding: Pads) -> tuple[ArrayType, ...]:
    expect_same_shape("sum_unpool", "x", _pooled("sum_unpool", shape, kernel, stride, padding), x.shape)
    return (ArrayType(tuple(shape), x.dtype),)


def _sum_unpool_eager(xp: Any, x: Any, *, shape: tuple, kernel: tuple, stride: tuple, padding: Pads) -> Any:
    return _spread(xp, lambda k: x, x.dtype, shape, x.shape[len(shape) - len(kernel) :], kernel, stride, padding)


def _sum_unpool_element(
    index: tuple, reduced: tuple, x: Any, *, shape: tuple, kernel: tuple, stride: tuple, padding: Pads
) -> tuple[Scalar, ...]:
    window, _, valid = _covering(index, reduced, x.shape[len(shape) - len(kernel) :], kernel, stride, padding)
    return (where(valid, x[window], constant(0, x.dtype)),)


def _sum_unpool_reference(x: np.ndarray, shape: tuple, **attrs: Any) -> np.ndarray:
    out = np.zeros(shape, x.dtype)
    for window, _, at in _each_window(shape, **attrs):
        if at is not None:
            out[at] += x[window]
    return out


register(Op(
    "sum_unpool", ("x",), _sum_unpool_infer, in_single(_sum_unpool_eager),
    {"x": Vjp(lambda g, kernel, stride, padding: F.primitive("sum_pool", g, kernel=kernel, stride=stride, padding=padding))},
    _sum_fold(_sum_unpool_element, lambda x, *, kernel, stride, **_: _choices(kernel, stride)),
    _samples(_sum_unpool_reference, lambda dtype, shape, pooled, kernel: ((random_array(1, pooled, dtype),), {"shape": shape})),
))
