"""Reading and adding at positions given by an array: take, take_along, and their duals scatter_add, scatter_along_add."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from .. import functions as F
from ..apply import is_tracing
from ..op import ArrayType, Indexed, Op, Sample, Template, Vjp, register
from ..scalar import Scalar, cast, operate, where
from .base import expect_axis, expect_kind, expect_same_dtype, expect_same_shape, fail, random_array

__all__: list[str] = []

_MODES = ("clip", "wrap")


def _check(op: str, x: ArrayType, indices: ArrayType, axis: int, mode: str = "clip") -> None:
    expect_kind(op, "indices", indices.dtype, "iu")
    expect_axis(op, axis, len(x.shape))
    if mode not in _MODES:
        fail(op, "mode", "'clip' or 'wrap'", repr(mode))
    n = x.shape[axis]
    if type(n) is int and n == 0 and not any(type(k) is int and k == 0 for k in indices.shape):
        fail(op, f"axis {axis}", "at least one element to choose from", f"shape {x.shape}", IndexError)


def _inside(i: Scalar, n: Any, mode: str) -> Scalar:
    """A position that certainly exists: clipped to the ends, or modulo n."""
    i = cast(i, np.int64)
    return i % n if mode == "wrap" else operate("min", operate("max", i, 0), n - 1)


# -- take and scatter_add

def _take_shape(x: ArrayType, indices: ArrayType, axis: int) -> tuple:
    return (*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])


def _take_infer(x: ArrayType, indices: ArrayType, *, axis: int, mode: str) -> tuple[ArrayType, ...]:
    _check("take", x, indices, axis, mode)
    return (ArrayType(_take_shape(x, indices, axis), x.dtype),)


def _take_eager(xp: Any, x: Any, indices: Any, *, axis: int, mode: str) -> Any:
    if x.shape[axis] == 0:
        return xp.zeros((*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]), x.dtype)
    if mode == "wrap":  # NumPy's own mode adds the size again and again until it fits
        indices, mode = xp.mod(indices.astype(np.int64), x.shape[axis]), "clip"
    if xp is np:
        return x.take(indices, axis, mode=mode)
    return xp.take(x, xp.clip(indices.astype(np.int64), 0, x.shape[axis] - 1), axis=axis)


def _take_lower(index: tuple, x: Any, indices: Any, *, axis: int, mode: str) -> Scalar:
    end = axis + len(indices.shape)
    chosen = _inside(indices[tuple(index[axis:end])], x.shape[axis], mode)
    return x[(*index[:axis], chosen, *index[end:])]


def _take_vjp(g: Any, indices: Any, x_type: ArrayType, axis: int, mode: str) -> Any:
    zeros = F.zeros(x_type.shape, dtype=g.dtype, device=g.device)
    return F.primitive("scatter_add", zeros, indices, g, axis=axis, mode=mode)


_CASES = (((5, 3), (4,), 0), ((5, 3), (2, 2), 1), ((4,), (), 0), ((2, 3, 4), (6,), 1), ((3, 2), (0,), 0), ((3,), (2, 3, 2), 0))


def _take_samples() -> Iterator[Sample]:
    def check(x: np.ndarray, indices: np.ndarray, axis: int, mode: str) -> np.ndarray:
        n = x.shape[axis]
        i = np.mod(indices.astype(np.int64), n) if mode == "wrap" else np.clip(indices.astype(np.int64), 0, n - 1)
        return x[(slice(None),) * axis + (i,)]

    for shape, positions, axis in _CASES:
        for mode in _MODES:
            for dtype, integer in ((np.float64, np.int64), (np.float32, np.int32), (np.int32, np.uint8)):
                arrays = random_array(1, shape, dtype), random_array(2, positions, integer, -4, 9)
                yield Sample(arrays, {"axis": axis, "mode": mode}, check)


register(Op("take", ("x", "indices"), _take_infer, _take_eager, {"x": Vjp(_take_vjp)}, Indexed(_take_lower), _take_samples))


def _scatter_infer(base: ArrayType, indices: ArrayType, updates: ArrayType, *, axis: int, mode: str) -> tuple[ArrayType, ...]:
    _check("scatter_add", base, indices, axis, mode)
    expect_same_dtype("scatter_add", ("base", "updates"), (base, updates))
    expect_kind("scatter_add", "base", base.dtype, "iufc")
    expect_same_shape("scatter_add", "updates", _take_shape(base, indices, axis), updates.shape)
    return (base,)


def add_at(xp: Any, target: Any, positions: Any, source: Any) -> None:
    """``target[positions] += source`` where positions may repeat. CuPy's atomic additions know few dtypes: complex numbers are
    added by parts, long integers as unsigned ones, and short numbers in 32 bits.
    """
    dtype = target.dtype
    if xp is np or dtype.name in ("int32", "uint32", "uint64", "float32", "float64"):
        xp.add.at(target, positions, source)
    elif dtype.kind == "c":
        xp.add.at(target.real, positions, source.real)
        xp.add.at(target.imag, positions, source.imag)
    elif dtype.name == "int64":
        xp.add.at(target.view(np.uint64), positions, source.view(np.uint64))
    else:
        wide = np.int32 if dtype.kind in "iu" else np.float32
        total = target.astype(wide)
        xp.add.at(total, positions, source.astype(wide))
        target[...] = total.astype(dtype)


def _scatter_eager(xp: Any, base: Any, indices: Any, updates: Any, *, axis: int, mode: str) -> Any:
    """Rows with the same index are sorted together and summed, which is much faster than adding them one by one."""
    n, k = base.shape[axis], indices.ndim
    out = xp.array(base, order="C")
    if not indices.size or not out.size:
        return out
    indices = indices.astype(np.int64)  # a short integer might not hold n
    indices = xp.mod(indices, n) if mode == "wrap" else xp.clip(indices, 0, n - 1)
    flat = indices.reshape(-1)
    target = xp.moveaxis(out, axis, 0)
    source = updates.transpose((*range(axis, axis + k), *range(axis), *range(axis + k, updates.ndim)))
    source = source.reshape((flat.size, *target.shape[1:]))
    if xp is not np or target.ndim == 1:
        add_at(xp, target, flat, source)
        return out
    order = np.argsort(flat, kind="stable")
    ordered = flat[order]
    starts = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
    target[ordered[starts]] += np.add.reduceat(source[order], starts, axis=0, dtype=out.dtype)
    return out


def _scatter_samples() -> Iterator[Sample]:
    def check(base: np.ndarray, indices: np.ndarray, updates: np.ndarray, axis: int, mode: str) -> np.ndarray:
        out, n = base.copy(), base.shape[axis]
        for at in np.ndindex(updates.shape):
            i = int(indices[at[axis : axis + indices.ndim]])
            i = i % n if mode == "wrap" else min(max(i, 0), n - 1)
            out[(*at[:axis], i, *at[axis + indices.ndim :])] += updates[at]
        return out

    for shape, positions, axis in _CASES:
        for mode in _MODES:
            for dtype, integer in ((np.float64, np.int64), (np.float32, np.int32), (np.int32, np.uint8)):
                updates = (*shape[:axis], *positions, *shape[axis + 1 :])
                indices = random_array(2, positions, integer, -4, 9)
                arrays = random_array(1, shape, dtype), indices, random_array(3, updates, dtype)
                yield Sample(arrays, {"axis": axis, "mode": mode}, check, tolerance=4.0)


register(Op(
    "scatter_add", ("base", "indices", "updates"), _scatter_infer, _scatter_eager,
    {"base": Vjp(lambda g: g),
     "updates": Vjp(lambda g, indices, axis, mode: F.primitive("take", g, indices, axis=axis, mode=mode))},
    Template("scatter_add"), _scatter_samples,
))


# -- take_along and scatter_along_add: one index for each element; negative ones count from the end, then clipped

def _along_check(op: str, x: ArrayType, indices: ArrayType, axis: int) -> None:
    _check(op, x, indices, axis)
    expected = (*x.shape[:axis], *indices.shape[axis : axis + 1], *x.shape[axis + 1 :])
    expect_same_shape(op, "indices", expected, indices.shape)


def _along_infer(x: ArrayType, indices: ArrayType, *, axis: int) -> tuple[ArrayType, ...]:
    _along_check("take_along", x, indices, axis)
    return (ArrayType(indices.shape, x.dtype),)


def _from_end(xp: Any, indices: Any, n: int) -> Any:
    indices = indices.astype(np.int64)
    return xp.clip(xp.where(indices < 0, indices + n, indices), 0, n - 1)


def _along_eager(xp: Any, x: Any, indices: Any, *, axis: int) -> Any:
    if not indices.size:
        return xp.zeros(indices.shape, x.dtype)
    return xp.take_along_axis(x, _from_end(xp, indices, x.shape[axis]), axis=axis)


def _along_lower(index: tuple, x: Any, indices: Any, *, axis: int) -> Scalar:
    n = x.shape[axis]
    i = cast(indices[tuple(index)], np.int64)
    chosen = _inside(where(i < 0, i + n, i), n, "clip")
    return x[(*index[:axis], chosen, *index[axis + 1 :])]


def _along_vjp(g: Any, indices: Any, x_type: ArrayType, axis: int) -> Any:
    n, count = x_type.shape[axis], indices.shape[axis]
    if is_tracing() and type(count) is int and count == 1 and type(n) is int and n < 1 << 31:
        # pick: elementwise, so that it joins what else a loss adds to the gradient
        with g.device:
            positions = F.primitive("iota", shape=x_type.shape, axis=axis, dtype=np.dtype(np.int32))
        i = F.astype(indices, np.int64)
        chosen = F.clip(F.where(F.less(i, 0), F.add(i, n), i), 0, n - 1)
        return F.where(F.equal(positions, F.astype(chosen, np.int32)), g, F.zeros((), dtype=g.dtype, device=g.device))
    zeros = F.zeros(x_type.shape, dtype=g.dtype, device=g.device)
    return F.primitive("scatter_along_add", zeros, indices, g, axis=axis)


_ALONG_CASES = (((5, 3), 2, 0), ((5, 3), 4, 1), ((4,), 6, 0), ((2, 3, 4), 1, 1), ((3, 2), 0, 0))


def _choose(i: int, n: int) -> int:
    return min(max(i + n if i < 0 else i, 0), n - 1)


def _along_samples() -> Iterator[Sample]:
    def check(x: np.ndarray, indices: np.ndarray, axis: int) -> np.ndarray:
        out = np.zeros(indices.shape, x.dtype)
        for at in np.ndindex(indices.shape):
            out[at] = x[(*at[:axis], _choose(int(indices[at]), x.shape[axis]), *at[axis + 1 :])]
        return out

    for shape, count, axis in _ALONG_CASES:
        for dtype, integer in ((np.float64, np.int64), (np.float32, np.int32), (np.int32, np.uint8)):
            positions = (*shape[:axis], count, *shape[axis + 1 :])
            yield Sample((random_array(1, shape, dtype), random_array(2, positions, integer, -8, 8)), {"axis": axis}, check)


register(Op("take_along", ("x", "indices"), _along_infer, _along_eager, {"x": Vjp(_along_vjp)}, Indexed(_along_lower),
            _along_samples))


def _scatter_along_infer(base: ArrayType, indices: ArrayType, updates: ArrayType, *, axis: int) -> tuple[ArrayType, ...]:
    _along_check("scatter_along_add", base, indices, axis)
    expect_same_dtype("scatter_along_add", ("base", "updates"), (base, updates))
    expect_kind("scatter_along_add", "base", base.dtype, "iufc")
    expect_same_shape("scatter_along_add", "updates", indices.shape, updates.shape)
    return (base,)


def _scatter_along_eager(xp: Any, base: Any, indices: Any, updates: Any, *, axis: int) -> Any:
    out = xp.array(base, order="C")
    if not indices.size:
        return out
    chosen = _from_end(xp, indices, base.shape[axis])
    if indices.shape[axis] == 1:  # one each (pick): no two meet
        if base.any():
            current = xp.take_along_axis(out, chosen, axis=axis)
            xp.put_along_axis(out, chosen, current + updates, axis=axis)
        else:
            xp.put_along_axis(out, chosen, updates, axis=axis)
        return out
    grid = xp.ogrid[tuple(slice(0, n) for n in indices.shape)] if indices.ndim > 1 else [None]
    add_at(xp, out, tuple(chosen if k == axis else grid[k] for k in range(indices.ndim)), updates)
    return out


def _scatter_along_samples() -> Iterator[Sample]:
    def check(base: np.ndarray, indices: np.ndarray, updates: np.ndarray, axis: int) -> np.ndarray:
        out = base.copy()
        for at in np.ndindex(indices.shape):
            out[(*at[:axis], _choose(int(indices[at]), base.shape[axis]), *at[axis + 1 :])] += updates[at]
        return out

    for shape, count, axis in _ALONG_CASES:
        for dtype, integer in ((np.float64, np.int64), (np.float32, np.int32), (np.int32, np.uint8)):
            positions = (*shape[:axis], count, *shape[axis + 1 :])
            arrays = random_array(1, shape, dtype), random_array(2, positions, integer, -8, 8), random_array(3, positions, dtype)
            yield Sample(arrays, {"axis": axis}, check, tolerance=4.0)


register(Op(
    "scatter_along_add", ("base", "indices", "updates"), _scatter_along_infer, _scatter_along_eager,
    {"base": Vjp(lambda g: g), "updates": Vjp(lambda g, indices, axis: F.primitive("take_along", g, indices, axis=axis))},
    Template("scatter_along_add"), _scatter_along_samples,
))
