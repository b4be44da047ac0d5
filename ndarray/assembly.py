"""More of NumPy's ways to join, split, insert, remove and turn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .array import NDArray
from .dims import Size
from .dtypes import default_int
from .manipulation import broadcast_to as _broadcast_to
from .manipulation import (
    concatenate,
    diag,
    flip,
    moveaxis,
    ravel,
    reshape,
    split,
    stack,
    swapaxes,
    take,
    vstack,
)
from .operands import as_array, convert, normalize_axis, number

__all__ = [
    "append", "apply_along_axis", "apply_over_axes", "array_split", "atleast_3d", "block", "choose", "delete", "diag_indices",
    "diagflat", "dsplit", "dstack", "fill_diagonal", "hsplit", "insert", "ix_", "mask_indices", "ndim", "piecewise",
    "put_along_axis", "ravel_multi_index", "rollaxis", "rot90", "row_stack", "select", "shape", "size", "tril_indices",
    "trim_zeros", "triu_indices", "unravel_index", "vectorize", "vsplit",
]


def atleast_3d(*arrays: Any) -> Any:
    """An array with at least three axes: a vector lies along the second one, a matrix along the first two.

    >>> nd.atleast_3d(nd.ones(3)).shape
    (1, 3, 1)
    """
    out = []
    for x in arrays:
        x = as_array("atleast_3d", "x", x)
        new = {0: (1, 1, 1), 1: (1, *x.shape, 1), 2: (*x.shape, 1)}.get(x.ndim)
        out.append(x if new is None else reshape(x, new))
    return out[0] if len(out) == 1 else tuple(out)


row_stack = vstack


def dstack(arrays: Sequence[Any], /) -> NDArray:
    """Arrays joined along the third axis, as `atleast_3d` shapes them.

    >>> nd.dstack([nd.array([1, 2]), nd.array([3, 4])])
    array([[[1, 3],
            [2, 4]]])
    """
    return concatenate([atleast_3d(a) for a in arrays], axis=2)


def block(arrays: Any, /) -> NDArray:
    """An array from nested lists of blocks: the innermost lists are joined along the last axis, the next along the one before.

    >>> nd.block([[nd.ones((1, 2)), nd.zeros((1, 1))], [nd.full((1, 3), 2.0)]])
    array([[1., 1., 0.],
           [2., 2., 2.]])
    """
    depth, probe = 0, arrays
    while isinstance(probe, list):
        if not probe:
            raise ValueError("block: arrays: expected no empty lists")
        depth, probe = depth + 1, probe[0]

    def leaves(node: Any) -> list[NDArray]:
        return [v for n in node for v in leaves(n)] if isinstance(node, list) else [as_array("block", "arrays", node)]

    ndim = max(depth, *(v.ndim for v in leaves(arrays)))

    def build(node: Any, level: int) -> NDArray:
        if isinstance(node, list) != (level < depth):
            raise ValueError("block: arrays: expected lists nested to one depth")
        if isinstance(node, list):
            return concatenate([build(n, level + 1) for n in node], axis=level - depth)
        x = as_array("block", "arrays", node)
        return reshape(x, (1,) * (ndim - x.ndim) + x.shape)

    return build(arrays, 0)


def array_split(x: Any, indices_or_sections: Any, /, axis: int = 0) -> list[NDArray]:
    """x cut along an axis into so many parts, the first ones longer by 1 where they don't come out even, or before positions.

    >>> nd.array_split(nd.arange(5), 2)
    [array([0, 1, 2]), array([3, 4])]
    """
    x = as_array("array_split", "x", x)
    if not hasattr(indices_or_sections, "__index__"):
        return split(x, indices_or_sections, axis)
    parts = indices_or_sections.__index__()
    if parts < 1:
        raise ValueError(f"array_split: sections: expected at least 1, got {parts}")
    n = int(x.shape[normalize_axis("array_split", axis, x.ndim)])
    each, longer = divmod(n, parts)
    bounds = np.cumsum([0, *([each + 1] * longer), *([each] * (parts - longer))])
    return split(x, [int(b) for b in bounds[1:-1]], axis)


def vsplit(x: Any, indices_or_sections: Any, /) -> list[NDArray]:
    """`split` along the first axis.

    >>> nd.vsplit(nd.ones((4, 2)), 2)[0].shape
    (2, 2)
    """
    return split(x, indices_or_sections, axis=0)


def hsplit(x: Any, indices_or_sections: Any, /) -> list[NDArray]:
    """`split` along the second axis (a vector: along its only one).

    >>> nd.hsplit(nd.ones((4, 2)), 2)[0].shape
    (4, 1)
    """
    x = as_array("hsplit", "x", x)
    return split(x, indices_or_sections, axis=1 if x.ndim > 1 else 0)


def dsplit(x: Any, indices_or_sections: Any, /) -> list[NDArray]:
    """`split` along the third axis.

    >>> nd.dsplit(nd.ones((2, 2, 4)), 2)[0].shape
    (2, 2, 2)
    """
    return split(x, indices_or_sections, axis=2)


def append(x: Any, values: Any, /, axis: int | None = None) -> NDArray:
    """`values` joined to the end of x along an axis (None: both flattened).

    >>> nd.append(nd.array([1, 2]), 3)
    array([1, 2, 3])
    """
    return concatenate([x, values] if axis is not None else [ravel(x), ravel(values)], axis=0 if axis is None else axis)


def _positions(name: str, where: Any, n: Size, above: int) -> np.ndarray:
    """Known positions along an axis, counted from the front. Raises IndexError for those outside."""
    if isinstance(where, slice):
        return np.arange(int(n))[where]
    given = where._host(f"{name}() with an array of positions") if isinstance(where, NDArray) else np.asarray(where)
    if given.dtype == np.bool_:
        return np.flatnonzero(given)
    given = given.astype(np.int64)
    if given.size and (given.min() < -n or given.max() >= n + above):
        raise IndexError(f"{name}: positions: expected {-n} to {n - 1 + above}, got {given.min()} to {given.max()}")
    return np.where(given < 0, given + n, given)


def delete(x: Any, positions: Any, /, axis: int | None = None) -> NDArray:
    """x without the elements at some positions (an int, a slice, a list or a mask) along an axis (None: flattened first).

    >>> nd.delete(nd.array([1, 2, 3, 4]), [0, 2])
    array([2, 4])
    """
    x = as_array("delete", "x", x)
    if axis is None:
        x, axis = ravel(x), 0
    axis = normalize_axis("delete", axis, x.ndim)
    n = int(x.shape[axis])
    keep = np.ones(n, bool)
    keep[_positions("delete", positions, n, 0)] = False
    return take(x, np.flatnonzero(keep), axis)


def insert(x: Any, positions: Any, values: Any, /, axis: int | None = None) -> NDArray:
    """x with `values` (broadcast) put before the elements at some positions along an axis (None: flattened first).

    >>> nd.insert(nd.array([1, 2, 3]), 1, 9)
    array([1, 9, 2, 3])
    """
    x = as_array("insert", "x", x)
    if axis is None:
        x, axis = ravel(x), 0
    axis = normalize_axis("insert", axis, x.ndim)
    n = int(x.shape[axis])
    at = _positions("insert", positions, n, 1)
    values = convert(as_array("insert", "values", values), x.dtype)
    if at.ndim == 0:  # one place: the values' own size along the axis counts
        if values.ndim:
            values = moveaxis(reshape(values, (1,) * (x.ndim - values.ndim) + values.shape), 0, axis) if x.ndim > 1 else values
        count = values.shape[axis] if values.ndim == x.ndim and values.shape[axis] != 1 else 1
        at = np.full(count, int(at))
    shape = (*x.shape[:axis], len(at), *x.shape[axis + 1 :])
    both = concatenate([x, _broadcast_to(values, shape)], axis=axis)
    order = np.argsort(np.concatenate([np.arange(n) + 0.5, at]), kind="stable")
    return take(both, order, axis)


def _repeated(x: Any, shape: tuple[int, ...]) -> NDArray:
    """The elements of x in row-major order, repeated as often as needed, in a new shape."""
    x = ravel(x)
    count = int(np.prod(shape))
    if not x.shape[0] and count:
        raise ValueError(f"resize: x: expected elements to fill {shape} with, got none")
    return reshape(take(x, np.arange(count) % max(int(x.shape[0]), 1), 0), shape)


def rollaxis(x: Any, /, axis: int, start: int = 0) -> NDArray:
    """An axis moved to before another one; `moveaxis` is clearer.

    >>> nd.rollaxis(nd.ones((3, 4, 5)), 2).shape
    (5, 3, 4)
    """
    x = as_array("rollaxis", "x", x)
    axis = normalize_axis("rollaxis", axis, x.ndim)
    start = start + x.ndim if start < 0 else start
    return moveaxis(x, axis, start - 1 if axis < start else start)


def rot90(x: Any, /, k: int = 1, axes: Sequence[int] = (0, 1)) -> NDArray:
    """x turned by k quarters in the plane of two axes, from the first towards the second.

    >>> nd.rot90(nd.array([[1, 2], [3, 4]]))
    array([[2, 4],
           [1, 3]])
    """
    x = as_array("rot90", "x", x)
    a, b = (normalize_axis("rot90", v, x.ndim, "axes") for v in axes)
    if a == b:
        raise ValueError(f"rot90: axes: expected two different ones, got {tuple(axes)}")
    k %= 4
    if k == 2:
        return flip(x, (a, b))
    if k == 1:
        return swapaxes(flip(x, b), a, b)
    return flip(swapaxes(x, a, b), b) if k else flip(x, ())


def diagflat(x: Any, /, k: int = 0) -> NDArray:
    """The matrix with all elements of x on its k-th diagonal.

    >>> nd.diagflat(nd.array([[1, 2]]))
    array([[1, 0],
           [0, 2]])
    """
    return diag(ravel(x), k)


def trim_zeros(x: Any, /, trim: str = "fb") -> NDArray:
    """A vector without the zeros at its front ("f") and back ("b"). The values must be known.

    >>> nd.trim_zeros(nd.array([0, 1, 2, 0]))
    array([1, 2])
    """
    from .searching import known

    x = as_array("trim_zeros", "x", x)
    there = np.flatnonzero(known(x, "trim_zeros", "slice it"))
    if not len(there):
        return x[:0]
    return x[int(there[0]) if "f" in trim.lower() else 0 : int(there[-1]) + 1 if "b" in trim.lower() else None]


# -- positions

def _index_arrays(found: Any) -> tuple[NDArray, ...]:
    return tuple(as_array("indices", "x", np.asarray(i, np.int64)) for i in found)


def tril_indices(n: int, k: int = 0, m: int | None = None) -> tuple[NDArray, NDArray]:
    """The rows and columns at and below the k-th diagonal of an n x m matrix, int64.

    >>> nd.tril_indices(2)
    (array([0, 1, 1]), array([0, 0, 1]))
    """
    return _index_arrays(np.tril_indices(n, k, m))  # type: ignore[return-value]


def triu_indices(n: int, k: int = 0, m: int | None = None) -> tuple[NDArray, NDArray]:
    """The rows and columns at and above the k-th diagonal of an n x m matrix, int64.

    >>> nd.triu_indices(2)
    (array([0, 0, 1]), array([0, 1, 1]))
    """
    return _index_arrays(np.triu_indices(n, k, m))  # type: ignore[return-value]


def diag_indices(n: int, ndim: int = 2) -> tuple[NDArray, ...]:
    """The positions along the main diagonal of an array of `ndim` axes of size n, int64.

    >>> nd.diag_indices(2)
    (array([0, 1]), array([0, 1]))
    """
    return _index_arrays(np.diag_indices(n, ndim))


def mask_indices(n: int, mask_func: Callable, k: Any = 0) -> tuple[NDArray, ...]:
    """The positions at which ``mask_func(ones((n, n)), k)`` is not 0.

    >>> nd.mask_indices(2, nd.triu)
    (array([0, 0, 1]), array([0, 1, 1]))
    """
    from .creation import ones
    from .searching import nonzero

    return nonzero(mask_func(ones((n, n)), k))


def ix_(*sequences: Any) -> tuple[NDArray, ...]:
    """Indices for the open mesh of some positions along each axis: ``x[nd.ix_([0, 2], [1, 3])]`` has shape (2, 2).

    >>> [i.shape for i in nd.ix_([0, 2], [1, 3, 4])]
    [(2, 1), (1, 3)]
    """
    return _index_arrays(np.ix_(*(np.asarray(s) for s in sequences)))


def unravel_index(indices: Any, shape: Any, /) -> tuple[NDArray, ...]:
    """The positions along each axis that row-major positions stand for, int64.

    >>> nd.unravel_index(nd.array([1, 5]), (2, 3))
    (array([0, 1]), array([1, 2]))
    """
    flat = convert(as_array("unravel_index", "indices", indices), default_int)
    out: list[NDArray] = []
    for n in reversed(tuple(shape) if isinstance(shape, (tuple, list)) else (shape,)):
        out.append(flat % n)
        flat = flat // n
    return tuple(reversed(out))


def ravel_multi_index(multi_index: Any, dims: Sequence[int], /, mode: str = "raise") -> NDArray:
    """The row-major positions of positions along each axis, int64; out of bounds: "raise" (where the values are known),
    "wrap" or "clip".

    >>> nd.ravel_multi_index((nd.array([0, 1]), nd.array([1, 2])), (2, 3))
    array([1, 5])
    """
    from .elementwise import clip

    if mode not in ("raise", "wrap", "clip"):
        raise ValueError(f"ravel_multi_index: mode: expected 'raise', 'wrap' or 'clip', got {mode!r}")
    flat: Any = 0
    for k, (i, n) in enumerate(zip(multi_index, dims, strict=True)):
        i = convert(as_array("ravel_multi_index", f"multi_index[{k}]", i), default_int)
        if mode == "raise":
            data = i._data
            if isinstance(data, np.ndarray) and data.size and (data.min() < 0 or data.max() >= n):
                raise ValueError(f"ravel_multi_index: multi_index[{k}]: expected 0 to {n - 1}, got {data.min()} to {data.max()}")
        else:
            i = i % n if mode == "wrap" else clip(i, 0, n - 1)
        flat = i if k == 0 else flat * n + i
    return flat


# -- choosing and writing

def choose(x: Any, choices: Any, /, mode: str = "raise") -> NDArray:
    """For each position, the element of ``choices[x]`` there; all broadcast. mode as in `ravel_multi_index`.

    >>> nd.choose(nd.array([1, 0]), [nd.array([10, 20]), nd.array([30, 40])])
    array([30, 20])
    """
    from .elementwise import clip
    from .manipulation import broadcast_arrays, take_along_axis

    x = as_array("choose", "x", x)
    parts = broadcast_arrays(x, *(list(choices) if not isinstance(choices, NDArray) else choices))
    index, n = parts[0], len(parts) - 1
    data = index._data
    if mode == "raise" and isinstance(data, np.ndarray) and data.size and (data.min() < 0 or data.max() >= n):
        raise ValueError(f"choose: x: expected 0 to {n - 1}, got {data.min()} to {data.max()}")
    index = index % n if mode == "wrap" else clip(index, 0, n - 1)
    return take_along_axis(stack(parts[1:]), reshape(index, (1, *index.shape)), 0)[0]


def select(conditions: Sequence[Any], choices: Sequence[Any], /, default: Any = 0) -> NDArray:
    """For each position, the element of the choice whose condition is the first to hold, else `default`.

    >>> x = nd.arange(4); nd.select([x < 1, x < 3], [x, 10 * x], -1)
    array([ 0, 10, 20, -1])
    """
    from .elementwise import where

    if len(conditions) != len(choices) or not conditions:
        raise ValueError(f"select: expected as many choices as conditions, got {len(choices)} and {len(conditions)}")
    out = default
    for condition, choice in zip(reversed(conditions), reversed(choices)):
        out = where(condition, choice, out)
    return out


def piecewise(x: Any, conditions: Sequence[Any], functions: Sequence[Any], /) -> NDArray:
    """``functions[k](x)`` (or the number) where condition k holds; the last function, if there is one more, elsewhere, else 0.

    >>> nd.piecewise(nd.array([-1.0, 2.0]), [nd.array([True, False])], [lambda x: -x, lambda x: 10 * x])
    array([ 1., 20.])
    """
    from .elementwise import where

    x = as_array("piecewise", "x", x)
    if len(functions) not in (len(conditions), len(conditions) + 1):
        raise ValueError(f"piecewise: functions: expected {len(conditions)} or one more, got {len(functions)}")
    value = lambda f: f(x) if callable(f) else f
    out = value(functions[-1]) if len(functions) > len(conditions) else number(0, x.dtype, x._device)
    for condition, f in zip(conditions, functions):
        out = where(condition, value(f), out)
    return convert(_broadcast_to(as_array("piecewise", "functions", out), x.shape), x.dtype)


def fill_diagonal(x: NDArray, value: Any, /, wrap: bool = False) -> None:
    """Write a value (or several in turn) on the main diagonal of x, in place.

    >>> x = nd.zeros((2, 2)); nd.fill_diagonal(x, 5); x
    array([[5., 0.],
           [0., 5.]])
    """
    if x.ndim < 2 or (x.ndim > 2 and len(set(x.shape)) > 1):
        raise ValueError(f"fill_diagonal: x: expected a matrix, or axes of one size, got shape {x.shape}")
    if wrap:
        raise ValueError("fill_diagonal: wrap: expected False")
    n = min(int(s) for s in x.shape)
    x[(np.arange(n),) * x.ndim] = value if np.ndim(value) == 0 else _repeated(value, (n,))


def put_along_axis(x: NDArray, indices: Any, values: Any, /, axis: int) -> None:
    """``x[..., indices[..., i, ...], ...] = values[..., i, ...]`` along an axis, in place.

    >>> x = nd.zeros((2, 2)); nd.put_along_axis(x, nd.array([[1], [0]]), 7, 1); x
    array([[0., 7.],
           [7., 0.]])
    """
    axis = normalize_axis("put_along_axis", axis, x.ndim)
    indices = as_array("put_along_axis", "indices", indices)
    if indices.ndim != x.ndim:
        raise ValueError(f"put_along_axis: indices: expected {x.ndim} axes like x, got shape {indices.shape}")
    place: list[Any] = []
    for k, n in enumerate(x.shape):
        line = np.arange(int(n)).reshape([-1 if j == k else 1 for j in range(x.ndim)])
        place.append(indices if k == axis else line)
    x[tuple(place)] = values


# -- functions over lines

def apply_along_axis(function: Callable, axis: int, x: Any, /, *args: Any, **options: Any) -> NDArray:
    """``function(line, *args)`` for each line of x along an axis; what it returns replaces the line.

    >>> nd.apply_along_axis(lambda v: v.max() - v.min(), 1, nd.array([[1, 5], [2, 2]]))
    array([4, 0])
    """
    x = as_array("apply_along_axis", "x", x)
    axis = normalize_axis("apply_along_axis", axis, x.ndim)
    lines = moveaxis(x, axis, -1)
    lead = tuple(int(n) for n in lines.shape[:-1])
    results = [as_array("apply_along_axis", "result", function(lines[at], *args, **options)) for at in np.ndindex(lead)]
    if not results:
        raise ValueError(f"apply_along_axis: x: expected at least one line, got shape {x.shape}")
    out = reshape(stack(results), (*lead, *results[0].shape))
    k = results[0].ndim
    return moveaxis(out, tuple(range(-k, 0)), tuple(range(axis, axis + k))) if k else out


def apply_over_axes(function: Callable, x: Any, axes: Any, /) -> NDArray:
    """``function(x, axis)`` for one axis after the other; axes that it removes come back with size 1.

    >>> nd.apply_over_axes(nd.sum, nd.ones((2, 3)), [0, 1])
    array([[6.]])
    """
    x = as_array("apply_over_axes", "x", x)
    for a in axes if isinstance(axes, (tuple, list)) else (axes,):
        a = normalize_axis("apply_over_axes", a, x.ndim)
        out = function(x, a)
        x = out if out.ndim == x.ndim else reshape(out, (*out.shape[:a], 1, *out.shape[a:]))
    return x


def vectorize(function: Callable, /) -> Callable:
    """A function of arrays from one of numbers, which is called for each position of the broadcast arguments.

    >>> nd.vectorize(lambda a, b: a if a > b else b)(nd.array([1, 5]), 3)
    array([3, 5])
    """
    from .manipulation import broadcast_arrays

    def over_arrays(*arrays: Any) -> NDArray:
        parts = broadcast_arrays(*arrays)
        flat = [ravel(p) for p in parts]
        results = [function(*(f[i] for f in flat)) for i in range(int(flat[0].shape[0]))]
        return reshape(stack(results), parts[0].shape)

    over_arrays.__doc__ = function.__doc__
    return over_arrays


# -- what an array is

def shape(x: Any, /) -> tuple[Size, ...]:
    """The sizes of the axes.

    >>> nd.shape([[1, 2, 3]])
    (1, 3)
    """
    return as_array("shape", "x", x).shape


def ndim(x: Any, /) -> int:
    """The number of axes.

    >>> nd.ndim([[1, 2, 3]])
    2
    """
    return as_array("ndim", "x", x).ndim


def size(x: Any, /, axis: int | None = None) -> Size:
    """The number of elements, or of those along an axis.

    >>> nd.size([[1, 2, 3]], 1)
    3
    """
    x = as_array("size", "x", x)
    return x.size if axis is None else x.shape[normalize_axis("size", axis, x.ndim)]
