"""Rearranging arrays: shapes, axes, joining and splitting, repeating, padding, and reading at positions."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from .apply import apply
from .array import NDArray, wrap
from .dims import Dim, Size, product
from .dtypes import bool_, int64, promote, scalar_dtype
from .elementwise import add, less, less_equal, not_equal, where
from .op import OPS
from .operands import as_array, convert, integers, is_number, normalize_axes, normalize_axis, number, primitive
from .ops.base import broadcast_shapes as _meet
from .ops.base import is_one

__all__ = [
    "atleast_1d", "atleast_2d", "broadcast_arrays", "broadcast_like", "broadcast_shapes", "broadcast_to",
    "column_stack", "concat", "concatenate", "diag", "diagonal", "diff", "expand_dims", "flatten", "flip",
    "fliplr", "flipud", "hstack", "matrix_transpose", "moveaxis", "permute_dims", "ravel", "repeat",
    "reshape", "reshape_like", "roll", "sequence_mask", "slice_axis", "split", "squeeze", "stack", "swapaxes", "take",
    "take_along_axis", "tile", "transpose", "tril", "triu", "unstack", "vstack",
]


# -- shape and axes

def reshape(x: Any, /, shape: Any, *, order: str = "C", copy: bool | None = None) -> NDArray:
    """The same elements in row-major order with another shape; -1 once stands for the size that is left over.

    A view where it can be one; always a copy if `copy`, never one if `copy` is False. Raises ValueError where the number of
    elements differs, or a copy is needed but not allowed.

    >>> nd.reshape(nd.arange(6), (2, -1))
    array([[0, 1, 2],
           [3, 4, 5]])
    """
    x = as_array("reshape", "x", x)
    if order != "C":
        raise ValueError(f"reshape: order: expected 'C', got {order!r}")
    sizes = tuple(shape) if isinstance(shape, (tuple, list)) else (shape,)
    sizes = tuple(n if type(n) is int or isinstance(n, Dim) else _size("reshape", n) for n in sizes)
    unknown = [k for k, n in enumerate(sizes) if type(n) is int and n < 0]
    if unknown:
        if len(unknown) > 1 or sizes[unknown[0]] != -1:
            raise ValueError(f"reshape: shape: expected at most one -1 and no other negative size, got {sizes}")
        k, known = unknown[0], product(n for n in sizes if not (type(n) is int and n < 0))
        total = product(x.shape)
        if (type(known) is int and known == 0) or (type(total) is int and type(known) is int and total % known):
            raise ValueError(f"reshape: shape: {total} elements (shape {x.shape}) don't fill {sizes}")
        sizes = (*sizes[:k], total // known, *sizes[k + 1 :])
    out = primitive("reshape", x, shape=sizes)
    if copy is False and x.size and not hasattr(x._data, "concretize") and not _overlap(out, x):
        raise ValueError(f"reshape: copy=False: the strides of this array of shape {x.shape} don't allow a view of shape {sizes}")
    return apply(OPS["copy"], out) if copy else out


def _overlap(a: NDArray, b: NDArray) -> bool:
    if isinstance(a._data, np.ndarray):
        return np.may_share_memory(a._data, b._data)
    first = (b._data if b._data.base is None else b._data.base).data.ptr
    return (a._data if a._data.base is None else a._data.base).data.ptr == first


def _size(name: str, n: Any) -> int:
    if not hasattr(n, "__index__"):
        raise TypeError(f"{name}: shape: expected ints, got {n!r}")
    return n.__index__()


def reshape_like(
    x: Any, y: NDArray, /, lhs_begin: int | None = None, lhs_end: int | None = None, rhs_begin: int | None = None,
    rhs_end: int | None = None,
) -> NDArray:
    """x with y's shape; or with its axes ``lhs_begin:lhs_end`` replaced by y's ``rhs_begin:rhs_end``.

    Raises ValueError where the number of elements differs.

    >>> nd.reshape_like(nd.zeros((6, 5)), nd.zeros((2, 3, 7)), lhs_begin=0, lhs_end=1, rhs_begin=0, rhs_end=2).shape
    (2, 3, 5)
    """
    x, y = as_array("reshape_like", "x", x), as_array("reshape_like", "y", y)
    low, high, _ = slice(lhs_begin, lhs_end).indices(x.ndim)
    return reshape(x, (*x.shape[:low], *y.shape[rhs_begin:rhs_end], *x.shape[high:]))


def ravel(x: Any, /, order: str = "C") -> NDArray:
    """All elements along one axis.

    >>> nd.ravel(nd.array([[1, 2], [3, 4]]))
    array([1, 2, 3, 4])
    """
    return reshape(x, (product(as_array("ravel", "x", x).shape),), order=order)


def flatten(x: Any, /) -> NDArray:
    """All elements along one axis, in memory of their own (those of `ravel` share x's).

    >>> nd.flatten(nd.ones((2, 3, 4))).shape
    (24,)
    """
    return apply(OPS["copy"], ravel(x))


def permute_dims(x: Any, /, axes: Sequence[int]) -> NDArray:
    """The axes in another order: axis k of the result is ``axes[k]`` of x.

    >>> nd.permute_dims(nd.ones((2, 3, 4)), (2, 0, 1)).shape
    (4, 2, 3)
    """
    x = as_array("permute_dims", "x", x)
    order = tuple(normalize_axis("permute_dims", a, x.ndim, "axes") for a in axes)
    if len(order) != x.ndim or len(set(order)) != len(order):
        raise ValueError(f"permute_dims: axes: expected each axis of shape {x.shape} once, got {tuple(axes)}")
    return apply(OPS["transpose"], x, axes=order)


def transpose(x: Any, /, axes: Sequence[int] | None = None) -> NDArray:
    """The axes in another order, reversed if `axes` is None.

    >>> nd.transpose(nd.array([[1, 2], [3, 4]]))
    array([[1, 3],
           [2, 4]])
    """
    x = as_array("transpose", "x", x)
    return permute_dims(x, tuple(reversed(range(x.ndim))) if axes is None else axes)


def matrix_transpose(x: Any, /) -> NDArray:
    """The last two axes exchanged.

    >>> nd.matrix_transpose(nd.array([[1, 2], [3, 4]]))
    array([[1, 3],
           [2, 4]])
    """
    return swapaxes(x, -1, -2)


def swapaxes(x: Any, /, axis1: int, axis2: int) -> NDArray:
    """Two axes exchanged.

    >>> nd.swapaxes(nd.ones((2, 3, 4)), 0, 2).shape
    (4, 3, 2)
    """
    x = as_array("swapaxes", "x", x)
    a, b = (normalize_axis("swapaxes", v, x.ndim, n) for v, n in ((axis1, "axis1"), (axis2, "axis2")))
    order = list(range(x.ndim))
    order[a], order[b] = b, a
    return apply(OPS["transpose"], x, axes=tuple(order))


def moveaxis(x: Any, source: Any, destination: Any, /) -> NDArray:
    """Some axes moved to other places, the rest in order.

    >>> nd.moveaxis(nd.ones((2, 3, 4)), 0, -1).shape
    (3, 4, 2)
    """
    x = as_array("moveaxis", "x", x)
    given = [v if isinstance(v, (tuple, list)) else (v,) for v in (source, destination)]
    start, end = ([normalize_axis("moveaxis", a, x.ndim, n) for a in v] for v, n in zip(given, ("source", "destination")))
    if len(start) != len(end) or len(set(start)) != len(start) or len(set(end)) != len(end):
        raise ValueError(f"moveaxis: expected as many different axes in source as in destination, got {source}, {destination}")
    order = [a for a in range(x.ndim) if a not in start]
    for place, a in sorted(zip(end, start)):
        order.insert(place, a)
    return apply(OPS["transpose"], x, axes=tuple(order))


def squeeze(x: Any, /, axis: Any = None) -> NDArray:
    """Axes of size 1 removed: those in `axis`, or all. Raises ValueError for one of another size.

    >>> nd.squeeze(nd.ones((1, 3, 1))).shape
    (3,)
    """
    x = as_array("squeeze", "x", x)
    if axis is None:
        return apply(OPS["reshape"], x, shape=tuple(n for n in x.shape if not is_one(n)))
    axes = normalize_axes("squeeze", axis, x.ndim)
    for a in axes:
        if not is_one(x.shape[a]):
            raise ValueError(f"squeeze: axis {a}: expected size 1, got {x.shape[a]} (shape {x.shape})")
    return apply(OPS["reshape"], x, shape=tuple(n for k, n in enumerate(x.shape) if k not in axes))


def expand_dims(x: Any, /, axis: Any = 0) -> NDArray:
    """New axes of size 1 at the given places of the result.

    >>> nd.expand_dims(nd.array([1, 2]), 0).shape
    (1, 2)
    """
    x = as_array("expand_dims", "x", x)
    count = len(axis) if isinstance(axis, (tuple, list)) else 1
    axes = normalize_axes("expand_dims", axis, x.ndim + count)
    old = iter(x.shape)
    return apply(OPS["reshape"], x, shape=tuple(1 if k in axes else next(old) for k in range(x.ndim + count)))


def atleast_1d(*arrays: Any) -> Any:
    """An array, a 0-d one with one axis; a tuple of them for several arguments.

    >>> nd.atleast_1d(3.0)
    array([3.])
    """
    found = [as_array("atleast_1d", "x", x) for x in arrays]
    out = tuple(x if x.ndim else reshape(x, (1,)) for x in found)
    return out[0] if len(out) == 1 else out


def atleast_2d(*arrays: Any) -> Any:
    """An array, with axes added in front until there are two; a tuple of them for several arguments.

    >>> nd.atleast_2d(nd.ones(3)).shape
    (1, 3)
    """
    found = [as_array("atleast_2d", "x", x) for x in arrays]
    out = tuple(x if x.ndim > 1 else reshape(x, (1,) * (2 - x.ndim) + x.shape) for x in found)
    return out[0] if len(out) == 1 else out


def broadcast_to(x: Any, /, shape: Any) -> NDArray:
    """x repeated along axes of size 1, and new ones in front, to `shape`. A view; don't write to it.

    >>> nd.broadcast_to(nd.array([1, 2]), (2, 2))
    array([[1, 2],
           [1, 2]])
    """
    x = as_array("broadcast_to", "x", x)
    return primitive("broadcast_to", x, shape=tuple(shape) if isinstance(shape, (tuple, list)) else (shape,))


def broadcast_like(x: Any, y: NDArray, /, lhs_axes: Any = None, rhs_axes: Any = None) -> NDArray:
    """x broadcast to y's shape; with `lhs_axes` and `rhs_axes`, only these axes of x, to the sizes of those of y.

    Raises ValueError where x does not broadcast, or the axes are not as many.

    >>> nd.broadcast_like(nd.ones((1, 1)), nd.zeros((2, 3)), lhs_axes=1, rhs_axes=1).shape
    (1, 3)
    """
    x, y = as_array("broadcast_like", "x", x), as_array("broadcast_like", "y", y)
    if (lhs_axes is None) != (rhs_axes is None):
        raise ValueError(f"broadcast_like: expected both lhs_axes and rhs_axes or neither, got {lhs_axes} and {rhs_axes}")
    if lhs_axes is None:
        return broadcast_to(x, y.shape)
    pairs = [v if isinstance(v, (tuple, list)) else (v,) for v in (lhs_axes, rhs_axes)]
    if len(pairs[0]) != len(pairs[1]):
        raise ValueError(f"broadcast_like: expected as many lhs_axes as rhs_axes, got {lhs_axes} and {rhs_axes}")
    shape = list(x.shape)
    for a, b in zip(*pairs):
        shape[normalize_axis("broadcast_like", a, x.ndim, "lhs_axes")] = y.shape[
            normalize_axis("broadcast_like", b, y.ndim, "rhs_axes")]
    return broadcast_to(x, tuple(shape))


def broadcast_shapes(*shapes: Any) -> tuple[Size, ...]:
    """The shape to which arrays of all these shapes broadcast.

    >>> nd.broadcast_shapes((3, 1), (4,))
    (3, 4)
    """
    return _meet("broadcast_shapes", *(s if isinstance(s, tuple) else (s,) for s in shapes)) if shapes else ()


def broadcast_arrays(*arrays: Any) -> list[NDArray]:
    """All arrays broadcast to one shape.

    >>> [x.shape for x in nd.broadcast_arrays(nd.ones((3, 1)), nd.ones(2))]
    [(3, 2), (3, 2)]
    """
    found = [as_array("broadcast_arrays", f"arrays[{k}]", a) for k, a in enumerate(arrays)]
    shape = _meet("broadcast_arrays", *(a.shape for a in found)) if found else ()
    return [broadcast_to(a, shape) for a in found]


def flip(x: Any, /, axis: Any = None) -> NDArray:
    """The elements in reverse order along some axes (None: all).

    >>> nd.flip(nd.array([1, 2, 3]))
    array([3, 2, 1])
    """
    x = as_array("flip", "x", x)
    return apply(OPS["flip"], x, axes=normalize_axes("flip", axis, x.ndim))


def flipud(x: Any, /) -> NDArray:
    """Reversed along the first axis.

    >>> nd.flipud(nd.array([[1, 2], [3, 4]]))
    array([[3, 4],
           [1, 2]])
    """
    return flip(x, 0)


def fliplr(x: Any, /) -> NDArray:
    """Reversed along the second axis.

    >>> nd.fliplr(nd.array([[1, 2], [3, 4]]))
    array([[2, 1],
           [4, 3]])
    """
    return flip(x, 1)


# -- joining and splitting

def concatenate(arrays: Sequence[Any], /, axis: int | None = 0) -> NDArray:
    """Arrays joined along an existing axis (None: all flattened first). Dtypes promote.

    >>> nd.concatenate([nd.array([1, 2]), nd.array([3])])
    array([1, 2, 3])
    """
    found = _several("concatenate", arrays)
    if axis is None:
        found, axis = [ravel(a) for a in found], 0
    axis = normalize_axis("concatenate", axis, found[0].ndim)
    return primitive("concatenate", *found, axis=axis) if len(found) > 1 else apply(OPS["copy"], found[0])


def _several(name: str, arrays: Any) -> list[NDArray]:
    if isinstance(arrays, NDArray):
        arrays = list(arrays)
    if not isinstance(arrays, (tuple, list)) or not arrays:
        raise ValueError(f"{name}: arrays: expected a non-empty sequence of arrays, got {arrays!r:.60}")
    found = [as_array(name, f"arrays[{k}]", a) for k, a in enumerate(arrays)]
    dtype = promote(*(a.dtype for a in found))
    return [convert(a, dtype) for a in found]


concat = concatenate


def stack(arrays: Sequence[Any], /, axis: int = 0) -> NDArray:
    """Arrays of one shape joined along a new axis.

    >>> nd.stack([nd.array([1, 2]), nd.array([3, 4])])
    array([[1, 2],
           [3, 4]])
    """
    found = _several("stack", arrays)
    place = normalize_axis("stack", axis, found[0].ndim + 1)
    for k, a in enumerate(found):
        if len(a.shape) != len(found[0].shape):
            raise ValueError(f"stack: arrays[{k}]: expected shape {found[0].shape}, got {a.shape}")
    return concatenate([expand_dims(a, place) for a in found], axis=place)


def vstack(arrays: Sequence[Any], /) -> NDArray:
    """Arrays joined along the first axis, vectors as rows.

    >>> nd.vstack([nd.array([1, 2]), nd.array([3, 4])])
    array([[1, 2],
           [3, 4]])
    """
    return concatenate([atleast_2d(a) for a in _several("vstack", arrays)], axis=0)


def hstack(arrays: Sequence[Any], /) -> NDArray:
    """Arrays joined along the second axis (vectors: the first).

    >>> nd.hstack([nd.array([1]), nd.array([2, 3])])
    array([1, 2, 3])
    """
    found = [atleast_1d(a) for a in _several("hstack", arrays)]
    return concatenate(found, axis=0 if found[0].ndim == 1 else 1)


def column_stack(arrays: Sequence[Any], /) -> NDArray:
    """Arrays joined along the second axis, vectors as columns.

    >>> nd.column_stack([nd.array([1, 2]), nd.array([3, 4])])
    array([[1, 3],
           [2, 4]])
    """
    return concatenate([reshape(a, (-1, 1)) if a.ndim < 2 else a for a in _several("column_stack", arrays)], axis=1)


def split(x: Any, indices_or_sections: Any, /, axis: int = 0) -> list[NDArray]:
    """x cut along an axis: into so many equal parts, or before each of the given positions.

    Raises ValueError where equal parts don't come out even.

    >>> nd.split(nd.array([1, 2, 3, 4]), 2)
    [array([1, 2]), array([3, 4])]
    """
    x = as_array("split", "x", x)
    axis = normalize_axis("split", axis, x.ndim)
    n = x.shape[axis]
    bounds: list[Size]
    if isinstance(indices_or_sections, (tuple, list)):
        bounds = [0, *(min(max(b + n if b < 0 else b, 0), n) for b in indices_or_sections), n]
        bounds = [max(b, a) if i else b for i, (b, a) in enumerate(zip(bounds, [0, *bounds]))]
    else:
        parts = indices_or_sections
        if parts < 1 or n % parts != 0:
            raise ValueError(f"split: axis {axis}: expected a size divisible into {parts} parts, got {n} (shape {x.shape})")
        bounds = [n // parts * k for k in range(parts + 1)]
    return [_cut(x, axis, a, b) for a, b in pairwise(bounds)]


def _cut(x: NDArray, axis: int, start: Size, stop: Size, step: int = 1) -> NDArray:
    starts = tuple(start if k == axis else 0 for k in range(x.ndim))
    stops = tuple(stop if k == axis else n for k, n in enumerate(x.shape))
    return apply(OPS["slice"], x, start=starts, stop=stops, step=tuple(step if k == axis else 1 for k in range(x.ndim)))


def unstack(x: Any, /, *, axis: int = 0) -> tuple[NDArray, ...]:
    """The arrays along an axis, which disappears.

    >>> nd.unstack(nd.array([[1, 2], [3, 4]]))
    (array([1, 2]), array([3, 4]))
    """
    x = as_array("unstack", "x", x)
    axis = normalize_axis("unstack", axis, x.ndim)
    return tuple(squeeze(_cut(x, axis, k, k + 1), axis) for k in range(x.shape[axis]))


def slice_axis(x: Any, /, axis: int, begin: int, end: int | None) -> NDArray:
    """``x[..., begin:end, ...]`` along one axis; negative positions count from the end, None is the end.

    >>> nd.slice_axis(nd.array([[1, 2, 3]]), axis=1, begin=-2, end=None).tolist()
    [[2, 3]]
    """
    x = as_array("slice_axis", "x", x)
    axis = normalize_axis("slice_axis", axis, x.ndim)
    return x[(slice(None),) * axis + (slice(begin, end),)]


def diff(x: Any, /, n: int = 1, axis: int = -1, prepend: Any = None, append: Any = None) -> NDArray:
    """Differences of neighbours along an axis, n times, `prepend` and `append` (arrays or numbers) being joined to x first.

    For bool: whether neighbours differ. Raises ValueError for a negative n.

    >>> nd.diff(nd.array([1, 4, 9]), prepend=0)
    array([1, 3, 5])
    """
    x = as_array("diff", "x", x)
    axis = normalize_axis("diff", axis, x.ndim)
    if n < 0:
        raise ValueError(f"diff: n: expected at least 0, got {n}")
    if prepend is not None or append is not None:
        x = concatenate([_edge(v, x, axis) for v in (prepend, x, append) if v is not None], axis=axis)
    for _ in range(n):
        size = x.shape[axis]
        if type(size) is int and size == 0:
            return x
        high, low = _cut(x, axis, 1, size), _cut(x, axis, 0, size - 1)
        x = not_equal(high, low) if x.dtype == bool_ else high - low
    return x


def _edge(value: Any, x: NDArray, axis: int) -> NDArray:
    """A number as an array of x's shape, but of size 1 along `axis`."""
    if value is x:
        return x
    if is_number(value):
        value = number(value, scalar_dtype(value, x.dtype), x._device)
    value = as_array("diff", "prepend", value)
    return broadcast_to(value, (*x.shape[:axis], 1, *x.shape[axis + 1 :])) if value.ndim == 0 else value


# -- repeating and padding

def roll(x: Any, /, shift: Any, axis: Any = None) -> NDArray:
    """Elements moved along axes; those that leave come in at the other end. Without `axis`, as if flattened.

    >>> nd.roll(nd.array([1, 2, 3]), 1)
    array([3, 1, 2])
    """
    x = as_array("roll", "x", x)
    if axis is None:
        return reshape(roll(ravel(x), shift, 0), x.shape)
    axes = axis if isinstance(axis, (tuple, list)) else (axis,)
    shifts = shift if isinstance(shift, (tuple, list)) else (shift,) * len(axes)
    if len(shifts) != len(axes):
        raise ValueError(f"roll: expected as many shifts as axes, got {shift} and {axis}")
    for s, a in zip(shifts, axes):
        a = normalize_axis("roll", a, x.ndim)
        n = x.shape[a]
        if type(n) is int and n == 0:
            continue
        s = s % n
        if not (type(s) is int and s == 0):
            x = concatenate([_cut(x, a, n - s, n), _cut(x, a, 0, n - s)], axis=a)
    return x


def tile(x: Any, /, repetitions: Any) -> NDArray:
    """x repeated as a whole along each axis.

    >>> nd.tile(nd.array([1, 2]), 2)
    array([1, 2, 1, 2])
    """
    x = as_array("tile", "x", x)
    counts = tuple(repetitions) if isinstance(repetitions, (tuple, list)) else (repetitions,)
    shape = (1,) * (len(counts) - x.ndim) + x.shape
    counts = (1,) * (len(shape) - len(counts)) + counts
    wide = reshape(x, tuple(v for n in shape for v in (1, n)))
    wide = broadcast_to(wide, tuple(v for c, n in zip(counts, shape) for v in (c, n)))
    return reshape(wide, tuple(c * n for c, n in zip(counts, shape)))


def repeat(x: Any, /, repeats: Any, axis: int | None = None) -> NDArray:
    """Each element repeated along an axis (None: flattened first): so many times, or as often as a list says for each.

    >>> nd.repeat(nd.array([1, 2]), 2)
    array([1, 1, 2, 2])
    """
    x = as_array("repeat", "x", x)
    if axis is None:
        x, axis = ravel(x), 0
    axis = normalize_axis("repeat", axis, x.ndim)
    n = x.shape[axis]
    if is_number(repeats):
        wide = reshape(x, (*x.shape[: axis + 1], 1, *x.shape[axis + 1 :]))
        wide = broadcast_to(wide, (*x.shape[: axis + 1], repeats, *x.shape[axis + 1 :]))
        return reshape(wide, (*x.shape[:axis], n * repeats, *x.shape[axis + 1 :]))
    counts = repeats._host("repeat() with an array of counts") if isinstance(repeats, NDArray) else np.asarray(repeats)
    positions = np.repeat(np.arange(n), counts)
    return apply(OPS["take"], x, wrap(x._device.module.asarray(positions), x._device), axis=axis, mode="clip")


# -- reading at positions

def take(x: Any, indices: Any, /, axis: int | None = None, mode: str | None = None, *, out: None = None) -> NDArray:
    """The elements at some positions along an axis (None: flattened first); the indices' shape replaces the axis.

    Negative positions count from the end. Those beyond the ends: mode None raises IndexError for positions in a list, and
    means the ends for arrays (whose values are not looked at); "raise" always raises IndexError; "wrap" counts modulo the
    size; "clip" means the ends, also for negative ones in an array, as in MXNet.

    >>> nd.take(nd.array([10, 11, 12]), nd.array([0, -1]))
    array([10, 12])
    """
    x = as_array("take", "x", x)
    if axis is None:
        x, axis = ravel(x), 0
    axis = normalize_axis("take", axis, x.ndim)
    if mode not in (None, "clip", "wrap", "raise"):
        raise ValueError(f"take: mode: expected 'clip', 'wrap' or 'raise', got {mode!r}")
    n = x.shape[axis]
    if mode == "raise" or (mode is None and not isinstance(indices, NDArray)):
        known = indices._host("take() with mode='raise'") if isinstance(indices, NDArray) else np.asarray(indices)
        if type(n) is int and known.size and known.dtype.kind in "iu" and (known.min() < -n or known.max() >= n):
            found = f"{known.min()} to {known.max()}"
            raise IndexError(f"take: indices: expected values from {-n} to {n - 1} for axis {axis}, got {found}")
    found_indices = integers("take", as_array("take", "indices", indices))
    if mode in ("clip", "wrap"):
        if mode == "clip" and not isinstance(indices, NDArray):
            found_indices = _from_end(found_indices, n)
        return primitive("take", x, found_indices, axis=axis, mode=mode)
    return primitive("take", x, _from_end(found_indices, n), axis=axis, mode="clip")


def _from_end(indices: NDArray, n: Size) -> NDArray:
    """Negative positions counted from the end."""
    if indices.dtype.kind == "u":
        return indices
    wide = convert(indices, int64)
    return where(less(wide, 0), add(wide, n), wide)


def take_along_axis(x: Any, indices: Any, /, axis: int = -1) -> NDArray:
    """``out[..., i, ...] = x[..., indices[..., i, ...], ...]``; the other axes broadcast. Negative indices count from
    the end; those beyond the ends mean the ends.

    >>> nd.take_along_axis(nd.array([[10, 20], [30, 40]]), nd.array([[1], [0]]), axis=1)
    array([[20],
           [30]])
    """
    x, indices = as_array("take_along_axis", "x", x), integers("take_along_axis", as_array("take_along_axis", "indices", indices))
    if x.ndim != indices.ndim:
        raise ValueError(f"take_along_axis: indices: expected {x.ndim} axes like x (shape {x.shape}), got shape {indices.shape}")
    axis = normalize_axis("take_along_axis", axis, x.ndim)
    rest = lambda s: (*s[:axis], 1, *s[axis + 1 :])
    outer = _meet("take_along_axis", rest(x.shape), rest(indices.shape))
    fit = lambda a: primitive("broadcast_to", a, shape=(*outer[:axis], a.shape[axis], *outer[axis + 1 :]))
    return primitive("take_along", fit(x), fit(indices), axis=axis)


# -- diagonals and triangles

def _positions(x: NDArray, axis: int, shape: tuple[Size, ...] | None = None) -> NDArray:
    with x._device:
        return apply(OPS["iota"], shape=x.shape[-2:] if shape is None else shape, axis=axis, dtype=int64)


def _zero(x: NDArray) -> Any:
    return False if x.dtype == bool_ else 0


def tril(x: Any, /, k: int = 0) -> NDArray:
    """The elements at and below the k-th diagonal of the last two axes, zeros elsewhere.

    >>> nd.tril(nd.array([[1, 2], [3, 4]]))
    array([[1, 0],
           [3, 4]])
    """
    x = _matrix("tril", x)
    return where(less_equal(_positions(x, 1), add(_positions(x, 0), k)), x, _zero(x))


def triu(x: Any, /, k: int = 0) -> NDArray:
    """The elements at and above the k-th diagonal of the last two axes, zeros elsewhere.

    >>> nd.triu(nd.array([[1, 2], [3, 4]]))
    array([[1, 2],
           [0, 4]])
    """
    x = _matrix("triu", x)
    return where(less_equal(_positions(x, 0), add(_positions(x, 1), -k)), x, _zero(x))


def _matrix(name: str, x: Any) -> NDArray:
    x = as_array(name, "x", x)
    if x.ndim < 2:
        raise ValueError(f"{name}: x: expected at least 2 axes, got shape {x.shape}")
    return x


def diagonal(x: Any, /, offset: int = 0, axis1: int = 0, axis2: int = 1) -> NDArray:
    """The diagonal of two axes (the first two), `offset` columns to the right, as a new last axis.

    >>> nd.diagonal(nd.array([[1, 2], [3, 4]]))
    array([1, 4])
    """
    x = moveaxis(_matrix("diagonal", x), (axis1, axis2), (-2, -1))
    rows, columns = x.shape[-2:]
    first = (-offset) * columns if offset < 0 else offset
    count = max(min(rows + offset, columns) if offset < 0 else min(rows, columns - offset), 0)
    flat = reshape(x, (*x.shape[:-2], rows * columns))
    if type(count) is int and count == 0:
        return _cut(flat, flat.ndim - 1, 0, 0)
    return _cut(flat, flat.ndim - 1, first, first + (count - 1) * (columns + 1) + 1, columns + 1)


def diag(x: Any, /, k: int = 0) -> NDArray:
    """The k-th diagonal of a matrix, or the matrix with a vector on its k-th diagonal and zeros elsewhere.

    >>> nd.diag(nd.array([1, 2]))
    array([[1, 0],
           [0, 2]])
    """
    x = as_array("diag", "x", x)
    if x.ndim == 2:
        return diagonal(x, k)
    if x.ndim != 1:
        raise ValueError(f"diag: x: expected 1 or 2 axes, got shape {x.shape}")
    n = x.shape[0] + (k if k > 0 else -k)
    line = primitive("pad", x, low=(k if k > 0 else 0,), high=(-k if k < 0 else 0,), interior=(0,), value=0.0)
    shape = (n, n)
    row, column = _positions(x, 0, shape), _positions(x, 1, shape)
    return where(add(row, k) == column, line if k >= 0 else broadcast_to(line, shape), 0)


def sequence_mask(
    x: Any, /, sequence_length: Any = None, use_sequence_length: bool = False, value: float = 0.0, axis: int = 0
) -> NDArray:
    """x with the steps from ``sequence_length[b]`` on along `axis` (0 or 1) set to `value`; the batch is the other one.

    x: (T, N, ...), or (N, T, ...) with axis 1; sequence_length: (N,), without which, or unless `use_sequence_length`, x is
    returned. Raises ValueError for another axis.

    >>> nd.sequence_mask(nd.ones((2, 2)), nd.array([1, 2]), use_sequence_length=True).tolist()
    [[1.0, 1.0], [0.0, 1.0]]
    """
    x = as_array("sequence_mask", "x", x)
    if sequence_length is None or not use_sequence_length:
        return x
    if axis not in (0, 1) or x.ndim < 2:
        raise ValueError(f"sequence_mask: expected at least 2 axes and axis 0 or 1, got shape {x.shape}, axis {axis}")
    step = _positions(x, axis, x.shape[:2])
    length = expand_dims(as_array("sequence_mask", "sequence_length", sequence_length), axis)
    keep = reshape(step < length, x.shape[:2] + (1,) * (x.ndim - 2))
    return where(keep, x, value)


