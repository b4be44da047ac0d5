"""Reading and writing at positions given by arrays: pick, one_hot, embedding, gather_nd, index_add ...

Compositions of the primitives take and scatter_add, over one flat axis where an index has several parts.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .apply import apply, is_tracing
from .array import NDArray, wrap
from .creation import zeros
from .dims import Size, product
from .dtypes import canonical, int64
from .elementwise import add, cast, equal, greater, less, maximum, minimum, multiply, not_equal, where
from .manipulation import broadcast_to, concatenate, expand_dims, ravel, reshape, squeeze, take_along_axis
from .op import OPS
from .operands import as_array, convert, integers, normalize_axis, primitive
from .ops.base import differ, is_one

__all__ = [
    "batch_take", "boolean_mask", "embedding", "gather_nd", "index_add", "index_copy", "index_update", "one_hot", "pick",
    "scatter_nd",
]


def pick(x: Any, index: Any, /, axis: int = -1, keepdims: bool = False, mode: str = "clip") -> NDArray:
    """The element ``x[..., index[...], ...]`` for each position of the other axes. Floating indices are rounded down.

    index  x's shape without `axis`, or with size 1 there
    mode   for positions beyond the ends: "clip" (the ends; negative ones count from the end first) or "wrap" (modulo)

    Raises ValueError for an index of another shape.

    >>> import ndarray as nd
    >>> nd.pick(nd.array([[1.0, 2.0], [3.0, 4.0]]), nd.array([0, 1])).tolist()
    [1.0, 4.0]
    """
    x = as_array("pick", "x", x)
    index = integers("pick", as_array("pick", "index", index), "index")
    axis = normalize_axis("pick", axis, x.ndim)
    if index.ndim == x.ndim - 1:
        index = expand_dims(index, axis)
    if index.ndim != x.ndim or any(
        differ(n, m) if k != axis else not is_one(n) for k, (n, m) in enumerate(zip(index.shape, x.shape))
    ):
        raise ValueError(f"pick: index: expected x's shape {x.shape} without axis {axis}, got {index.shape}")
    if mode not in ("clip", "wrap"):
        raise ValueError(f"pick: mode: expected 'clip' or 'wrap', got {mode!r}")
    out = take_along_axis(x, index if mode == "clip" else _wide(index) % x.shape[axis], axis)
    return out if keepdims else squeeze(out, axis)


def _wide(indices: NDArray) -> NDArray:
    """In a dtype that holds every size: 8 and 16 bits may not."""
    return indices if indices.dtype.itemsize >= 4 else cast(indices, "int32")


def one_hot(indices: Any, depth: Size, on_value: float = 1.0, off_value: float = 0.0, dtype: Any = "float32") -> NDArray:
    """`on_value` at position ``indices[...]`` of a new last axis of size `depth`, `off_value` elsewhere (everywhere for an
    index that does not exist).

    >>> import ndarray as nd
    >>> nd.one_hot(nd.array([1, 0]), 3).tolist()
    [[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]
    """
    indices = integers("one_hot", as_array("one_hot", "indices", indices))
    indices = _wide(indices)
    with indices._device:
        positions = apply(OPS["iota"], shape=(depth,), axis=0, dtype=indices.dtype)
    hit = equal(expand_dims(indices, -1), positions)
    dtype = canonical(dtype)
    return cast(hit, dtype) if on_value == 1 and off_value == 0 else cast(where(hit, float(on_value), float(off_value)), dtype)


def embedding(indices: Any, weight: Any, /, input_dim: int | None = None, output_dim: int | None = None) -> NDArray:
    """The rows of `weight` (entries, features) at `indices` (any shape); indices beyond the ends mean the ends.

    `input_dim` and `output_dim`, if given, must be weight's sizes: ValueError otherwise.

    >>> import ndarray as nd
    >>> nd.embedding(nd.array([1, 1]), nd.array([[1.0, 2.0], [3.0, 4.0]])).tolist()
    [[3.0, 4.0], [3.0, 4.0]]
    """
    indices, weight = as_array("embedding", "indices", indices), as_array("embedding", "weight", weight)
    if weight.ndim != 2:
        raise ValueError(f"embedding: weight: expected shape (entries, features), got {weight.shape}")
    for name, asked, size in zip(("input_dim", "output_dim"), (input_dim, output_dim), weight.shape):
        if asked is not None and asked != size:
            raise ValueError(f"embedding: {name}: expected weight's size {size} (shape {weight.shape}), got {asked}")
    return primitive("take", weight, integers("embedding", indices), axis=0, mode="clip")


def batch_take(x: Any, indices: Any, /) -> NDArray:
    """``x[i, indices[i]]`` for x of shape (N, K) and indices of shape (N,); indices beyond the ends mean the ends.

    >>> import ndarray as nd
    >>> nd.batch_take(nd.array([[1.0, 2.0], [3.0, 4.0]]), nd.array([0, 1])).tolist()
    [1.0, 4.0]
    """
    x = as_array("batch_take", "x", x)
    if x.ndim != 2:
        raise ValueError(f"batch_take: x: expected 2 axes, got shape {x.shape}")
    return pick(x, ravel(as_array("batch_take", "indices", indices)), 1)


# -- several indices at once: each is a column of (parts, ...)

def _flat_positions(name: str, sizes: tuple[Size, ...], indices: Any) -> tuple[NDArray, tuple[Size, ...]]:
    """Row-major positions in the first axes of `sizes` of indices (parts, ...), and the shape behind these axes.

    Negative indices count from the end; those beyond the ends mean the ends.
    """
    indices = convert(integers(name, as_array(name, "indices", indices)), int64)
    parts = indices.shape[0] if indices.ndim else 0
    if not isinstance(parts, int) or not 1 <= parts <= len(sizes):
        raise ValueError(f"{name}: indices: expected 1 to {len(sizes)} rows for the shape {sizes}, got shape {indices.shape}")
    flat: Any = None
    for k in range(parts):
        part, n = indices[k], sizes[k]
        part = minimum(maximum(where(less(part, 0), add(part, n), part), 0), n - 1)
        flat = part if flat is None else add(multiply(flat, n), part)
    return flat, tuple(sizes[parts:])


def gather_nd(x: Any, indices: Any, /) -> NDArray:
    """``x[indices[0], indices[1], ...]``: the index's first axis has one row for each of the first axes of x.

    indices: (M, ...), integers (floating ones are rounded down); result: ``indices.shape[1:] + x.shape[M:]``. Negative
    indices count from the end; those beyond the ends mean the ends. Raises ValueError where M is not 1 to ``x.ndim``.

    >>> import ndarray as nd
    >>> nd.gather_nd(nd.array([[1.0, 2.0], [3.0, 4.0]]), nd.array([[1, 0], [0, 1]])).tolist()
    [3.0, 2.0]
    """
    x = as_array("gather_nd", "x", x)
    flat, rest = _flat_positions("gather_nd", x.shape, indices)
    rows = product(x.shape[: x.ndim - len(rest)])
    return primitive("take", reshape(x, (rows, *rest)), flat, axis=0, mode="clip")


def scatter_nd(data: Any, indices: Any, shape: tuple[Size, ...], /) -> NDArray:
    """Zeros of `shape` with ``data`` added at ``[indices[0], indices[1], ...]``: the transpose of `gather_nd`.

    indices: (M, ...); data: ``indices.shape[1:] + shape[M:]``. Where an index comes twice, the data are summed.

    >>> import ndarray as nd
    >>> nd.scatter_nd(nd.array([5.0, 6.0]), nd.array([[1, 0], [0, 1]]), (2, 2)).tolist()
    [[0.0, 6.0], [5.0, 0.0]]
    """
    data, shape = as_array("scatter_nd", "data", data), tuple(shape)
    flat, rest = _flat_positions("scatter_nd", shape, indices)
    _expect_shape("scatter_nd", "data", (*flat.shape, *rest), data.shape)
    base = zeros((product(shape[: len(shape) - len(rest)]), *rest), dtype=data.dtype, device=data._device)
    return reshape(primitive("scatter_add", base, flat, data, axis=0, mode="clip"), shape)


def _expect_shape(name: str, argument: str, expected: tuple[Size, ...], actual: tuple[Size, ...]) -> None:
    if len(expected) != len(actual) or any(differ(a, b) for a, b in zip(expected, actual)):
        raise ValueError(f"{name}: {argument}: expected shape {expected}, got {actual}")


def _rows(name: str, x: Any, indices: Any, value: Any) -> tuple[NDArray, NDArray, NDArray, NDArray]:
    """x, x as rows, the row of each index, and one value a row; the indices are (parts, count), or (parts,) for one row."""
    x, value = as_array(name, "x", x), as_array(name, "value", value)
    indices = as_array(name, "indices", indices)
    if indices.ndim == 1:
        indices = expand_dims(indices, 1)
    if indices.ndim != 2:
        raise ValueError(f"{name}: indices: expected shape (parts, count), got {indices.shape}")
    flat, rest = _flat_positions(name, x.shape, indices)
    rows = reshape(x, (product(x.shape[: x.ndim - len(rest)]), *rest))
    return x, rows, flat, broadcast_to(convert(value, x.dtype), (*flat.shape, *rest))


def index_add(x: Any, indices: Any, value: Any, /) -> NDArray:
    """x with ``value`` added at ``x[indices[0], indices[1], ...]``; an index that comes twice is added twice.

    indices  (M, count) integers, one row for each of the first M axes of x; or (M,), for one position
    value    broadcasts to ``(count, *x.shape[M:])``; converted to x's dtype

    >>> import ndarray as nd
    >>> nd.index_add(nd.zeros((2, 2)), nd.array([[0, 0], [1, 1]]), nd.array([1.0, 2.0])).tolist()
    [[0.0, 3.0], [0.0, 0.0]]
    """
    x, rows, flat, value = _rows("index_add", x, indices, value)
    return reshape(primitive("scatter_add", rows, flat, value, axis=0, mode="clip"), x.shape)


def _replace(rows: NDArray, flat: NDArray, value: NDArray) -> NDArray:
    """rows with ``rows[flat[i]] = value[i]``, in order: of equal indices the last one counts."""
    order = apply(OPS["argsort"], flat, axis=0, descending=False)  # stable
    ordered = primitive("take", flat, order, axis=0, mode="clip")
    with rows._device:
        end = zeros((1,), dtype="bool")
    last = concatenate([not_equal(ordered[1:], ordered[:-1]), equal(end, end)])
    shape = (flat.shape[0],) + (1,) * (rows.ndim - 1)
    written = where(reshape(last, shape), primitive("take", value, order, axis=0, mode="clip"), 0)
    hits = zeros((rows.shape[0],), dtype="int32", device=rows._device)
    hits = primitive("scatter_add", hits, ordered, cast(last, "int32"), axis=0, mode="clip")
    if rows.dtype.kind == "b":
        written = cast(written, "int32")
    base = zeros(rows.shape, dtype=written.dtype, device=rows._device)
    placed = convert(primitive("scatter_add", base, ordered, written, axis=0, mode="clip"), rows.dtype)
    return where(reshape(greater(hits, 0), (rows.shape[0],) + (1,) * (rows.ndim - 1)), placed, rows)


def index_update(x: Any, indices: Any, value: Any, /) -> NDArray:
    """x with ``x[indices[0], indices[1], ...] = value``, as a new array; of equal indices the last one counts.

    Arguments as those of `index_add`. Gradients flow to the elements of x that stay and the values that count.

    >>> import ndarray as nd
    >>> nd.index_update(nd.zeros((2, 2)), nd.array([[0, 1], [1, 0]]), nd.array([1.0, 2.0])).tolist()
    [[0.0, 1.0], [2.0, 0.0]]
    """
    x, rows, flat, value = _rows("index_update", x, indices, value)
    return reshape(_replace(rows, flat, value), x.shape)


def index_copy(x: Any, index: Any, new: Any, /) -> NDArray:
    """x with ``x[index] = new`` along the first axis, as a new array; index: (count,), new: (count, *x.shape[1:]).

    >>> import ndarray as nd
    >>> nd.index_copy(nd.zeros((2, 2)), nd.array([1]), nd.array([[5.0, 6.0]])).tolist()
    [[0.0, 0.0], [5.0, 6.0]]
    """
    x, index, new = (as_array("index_copy", n, a) for n, a in (("x", x), ("index", index), ("new", new)))
    if index.ndim != 1:
        raise ValueError(f"index_copy: index: expected one axis, got shape {index.shape}")
    _expect_shape("index_copy", "new", (index.shape[0], *x.shape[1:]), new.shape)
    x, rows, flat, value = _rows("index_copy", x, expand_dims(index, 0), new)
    return _replace(rows, flat, value)


def boolean_mask(x: Any, mask: Any, /, axis: int = 0) -> NDArray:
    """The parts of x along `axis` where the mask (one axis) is not 0. How many there are depends on the mask's values, so that
    the mask must be known: not in a trace. Differentiable with respect to x.

    Raises TypeError in a trace, naming the alternatives; ValueError where the mask does not fit.

    >>> import ndarray as nd
    >>> nd.boolean_mask(nd.array([1.0, 2.0, 3.0]), nd.array([1, 0, 1])).tolist()
    [1.0, 3.0]
    """
    x, mask = as_array("boolean_mask", "x", x), as_array("boolean_mask", "mask", mask)
    axis = normalize_axis("boolean_mask", axis, x.ndim)
    if mask.ndim != 1 or differ(mask.shape[0], x.shape[axis]):
        raise ValueError(f"boolean_mask: mask: expected shape ({x.shape[axis]},) for axis {axis} of {x.shape}, got {mask.shape}")
    if is_tracing() and hasattr(mask._data, "concretize"):
        raise TypeError(
            "boolean_mask: the shape of the result depends on the mask's values, which are unknown in a trace; keep the shape "
            "with nd.where(mask, x, 0) or nd.sequence_mask, or call boolean_mask outside the hybridized function"
        )
    positions = np.flatnonzero(mask.asnumpy())
    return primitive("take", x, wrap(x._device.module.asarray(positions), x._device), axis=axis, mode="clip")
