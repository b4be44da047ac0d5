"""Indexing as primitive operations: what ``x[index]`` and ``x[index] = v`` mean while recording or tracing.

``x[index]`` becomes slice, flip, reshape (basic indices) and take (integer arrays). `updated` is the functional form of
an assignment: the tracer uses it, since nothing is written in place in a graph.

Sizes may be symbolic: full slices and ``x[-1]`` of a symbolic axis need no guard.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .apply import apply
from .array import NDArray, literal, wrap
from .dims import Size, product
from .dtypes import int64
from .op import OPS

__all__ = ["Basic", "get", "parse", "updated"]


@dataclass(frozen=True)
class Basic:
    """The region that ints, slices, None and Ellipsis select: a strided box, then axes reversed, dropped and added.

    start, stop, step  per axis of the array, ``step > 0`` and ``0 <= start <= stop <= size``
    flips              axes of the box that run backwards
    box                the box's shape
    shape              the result's: axes indexed by an int dropped, one of size 1 for each None
    whole              whether the box is the whole array
    """

    start: tuple[Size, ...]
    stop: tuple[Size, ...]
    step: tuple[Size, ...]
    flips: tuple[int, ...]
    box: tuple[Size, ...]
    shape: tuple[Size, ...]
    whole: bool


def parse(shape: tuple[Size, ...], index: Any) -> tuple[Basic, list[tuple[int, Any]], bool]:
    """Split an index into its basic part and its arrays.

    Returns the basic part (array-indexed axes taken whole), ``[(axis of the basic result, integer array), ...]``, and
    whether the arrays stand side by side (their axes then replace the first's place, else they come first).
    Raises IndexError as NumPy does.
    """
    items, gap = _expand(shape, index)
    arrays = any(_is_array(i) or type(i) is bool for i in items)
    start: list[Size] = []
    stop: list[Size] = []
    step: list[Size] = []
    flips: list[int] = []
    box: list[Size] = []
    result: list[Size] = []
    advanced: list[tuple[int, Any]] = []
    positions: list[int] = []
    axis = 0
    for position, item in enumerate(items):
        if item is None or type(item) is bool:
            if item is not None:  # a new axis, of which all or nothing is taken
                advanced.append((len(result), np.zeros(int(item), np.int64)))
                positions.append(position)
            result.append(1)
            continue
        n = shape[axis]
        low: Size = 0
        high, stride, backwards, keep = n, 1, False, True
        if isinstance(item, slice):
            low, high, stride, backwards = _slice(item, n)
        elif arrays:
            advanced.append((len(result), item))
            positions.append(position)
        else:
            low = _position(item, n, axis)
            high, keep = low + 1, False
        length = high - low if _is(stride, 1) else (high - low + stride - 1) // stride
        if backwards:
            flips.append(axis)
        start.append(low)
        stop.append(high)
        step.append(stride)
        box.append(length)
        if keep:
            result.append(length)
        axis += 1
    whole = all(_is(a, 0) and b is n and _is(c, 1) for a, b, c, n in zip(start, stop, step, shape))
    adjacent = positions == list(range(positions[0], positions[-1] + 1)) if positions else True
    if gap is not None and positions and positions[0] < gap <= positions[-1]:
        adjacent = False  # an ellipsis that stands for no axis separates as well
    basic = Basic(tuple(start), tuple(stop), tuple(step), tuple(flips), tuple(box), tuple(result), whole)
    return basic, advanced, adjacent


def get(x: NDArray, index: Any) -> NDArray:
    """``x[index]`` in primitive operations."""
    basic, advanced, adjacent = parse(x.shape, index)
    y = x
    if not basic.whole:
        y = apply(OPS["slice"], y, start=basic.start, stop=basic.stop, step=basic.step)
    if basic.flips:
        y = apply(OPS["flip"], y, axes=basic.flips)
    if _differs(basic.shape, basic.box):
        y = apply(OPS["reshape"], y, shape=basic.shape)
    if advanced:
        return _gather(y, advanced, adjacent)
    if any(isinstance(i, (NDArray, np.ndarray)) for i in (index if type(index) is tuple else (index,))):
        return apply(OPS["copy"], y)  # an integer in an array without axes gives no view
    return apply(OPS["reshape"], y, shape=basic.shape) if y is x else y


def updated(x: NDArray, value: NDArray, index: Any) -> NDArray:
    """A new array: `x` with ``x[index] = value`` done. `value` has x's dtype, and a shape that broadcasts.

    Raises IndexError for masks of which several values are written, and ValueError where `value` does not fit.
    """
    if index is ...:
        return _broadcast(value, x.shape, index)
    if isinstance(index, (NDArray, np.ndarray)) and index.dtype == np.bool_:
        if isinstance(index, NDArray) or all(_is(n, 1) for n in value.shape):
            return _masked(x, value, index)
    basic, advanced, _ = parse(x.shape, index)
    if advanced:
        return _scattered(x, value, index)
    value = _broadcast(value, basic.shape, index)
    if _differs(basic.shape, basic.box):
        value = apply(OPS["reshape"], value, shape=basic.box)
    if basic.flips:
        value = apply(OPS["flip"], value, axes=basic.flips)
    if basic.whole:
        return value
    return apply(OPS["update_slice"], x, value, start=basic.start, stop=basic.stop, step=basic.step)


def _scattered(x: NDArray, value: NDArray, index: Any) -> NDArray:
    """An assignment to integer-array indices: what the index selects of the elements' row-major positions is written, in
    order, so that of equal positions the last one counts."""
    from .positions import _replace

    count = product(x.shape)
    with x._device:
        positions = apply(OPS["iota"], shape=(count,), axis=0, dtype=int64)
    chosen = get(apply(OPS["reshape"], positions, shape=x.shape), index)
    value = _broadcast(value, chosen.shape, index)
    flat = (product(chosen.shape),)
    out = _replace(*(apply(OPS["reshape"], a, shape=s) for a, s in ((x, (count,)), (chosen, flat), (value, flat))))
    return apply(OPS["reshape"], out, shape=x.shape)


def _masked(x: NDArray, value: NDArray, mask: Any) -> NDArray:
    mask = mask if isinstance(mask, NDArray) else wrap(np.asarray(mask), x._device)
    if _differs(mask.shape, x.shape[: mask.ndim]):
        raise IndexError(f"a mask of shape {mask.shape} does not fit an array of shape {x.shape}")
    if any(not _is(n, 1) for n in value.shape):
        raise IndexError(
            f"assignment through a mask can be captured in a graph for one value only, got shape {value.shape}; "
            f"use nd.where(mask, values, x)"
        )
    if mask.ndim < x.ndim:
        mask = apply(OPS["reshape"], mask, shape=mask.shape + (1,) * (x.ndim - mask.ndim))
    value = apply(OPS["reshape"], value, shape=()) if value.ndim else value
    return apply(OPS["where"], mask, value, x)


def _broadcast(value: NDArray, shape: tuple[Size, ...], index: Any) -> NDArray:
    have = value.shape
    if not _differs(have, shape):
        return value
    while len(have) > len(shape) and _is(have[0], 1):
        have = have[1:]
    if len(have) > len(shape) or any(
        not _is(a, 1) and (type(a) is not type(b) or a != b) for a, b in zip(have[::-1], shape[::-1])
    ):
        raise ValueError(f"x[{index!r}] = value: the value's shape {value.shape} does not broadcast to {shape}")
    if len(have) != len(value.shape):
        value = apply(OPS["reshape"], value, shape=have)
    return apply(OPS["broadcast_to"], value, shape=tuple(shape)) if _differs(have, shape) else value


def _gather(x: NDArray, advanced: list[tuple[int, Any]], adjacent: bool) -> NDArray:
    arrays = [_integers(item, x.shape[axis], axis, x) for axis, item in advanced]
    if len(arrays) == 1:
        return apply(OPS["take"], x, arrays[0], axis=advanced[0][0], mode="wrap")
    axes = [axis for axis, _ in advanced]
    rest = [i for i in range(x.ndim) if i not in axes]
    sizes = [x.shape[i] for i in axes]
    flat: Any = None
    for indices, n in zip(arrays, sizes):  # row-major position in the indexed axes
        wrapped = apply(OPS["remainder"], indices, _number(n, x))
        flat = wrapped if flat is None else apply(OPS["add"], apply(OPS["multiply"], flat, _number(n, x)), wrapped)
    moved = apply(OPS["transpose"], x, axes=(*axes, *rest))
    merged = apply(OPS["reshape"], moved, shape=(product(sizes), *(x.shape[i] for i in rest)))
    out = apply(OPS["take"], merged, flat, axis=0, mode="clip")
    if not adjacent or axes[0] == 0:
        return out
    k, before = flat.ndim, axes[0]
    return apply(OPS["transpose"], out, axes=(*range(k, k + before), *range(k), *range(k + before, out.ndim)))


def _number(n: Size, like: NDArray) -> NDArray:
    return literal(int(n), int64, like._device)


def _integers(item: Any, n: Size, axis: int, x: NDArray) -> NDArray:
    """Integer indices as an int64 array; those that are known now are checked."""
    known = item if isinstance(item, NDArray) else np.asarray(item)
    indices = known if isinstance(known, NDArray) else wrap(x._device.module.asarray(known), x._device)
    if indices.dtype.kind not in "iu":
        raise IndexError(f"index arrays must be integer or boolean, got {indices.dtype} for axis {axis}")
    data = known._data if isinstance(known, NDArray) else known
    if isinstance(data, np.ndarray) and isinstance(n, int) and data.size:
        low, high = int(data.min()), int(data.max())
        if low < -n or high >= n:
            raise IndexError(f"index {high if high >= n else low} is out of bounds for axis {axis} with size {n}")
    return indices if indices.dtype == int64 else apply(OPS["cast"], indices, dtype=int64)


def _expand(shape: tuple[Size, ...], index: Any) -> tuple[list[Any], int | None]:
    """The index as a list without Ellipsis or masks, one int, slice, None, bool or integer array each, covering all axes, and
    the place of an ellipsis that stands for no axis."""
    given = [_plain(item) for item in (index if type(index) is tuple else (index,))]
    used = sum(_axes_of(item) for item in given)
    if sum(item is ... for item in given) > 1:
        raise IndexError("an index can only have a single ellipsis ('...')")
    if used > len(shape):
        raise IndexError(f"too many indices: the array has {len(shape)} axes, but {used} were indexed")
    fill = [slice(None)] * (len(shape) - used)
    items: list[Any] = []
    axis, gap = 0, None
    for item in given:
        if item is ...:
            gap = None if fill else len(items)
            items.extend(fill)
            axis += len(fill)
            continue
        if isinstance(item, (NDArray, np.ndarray)) and item.dtype == np.bool_:
            if _differs(item.shape, shape[axis : axis + item.ndim]):
                raise IndexError(f"a mask of shape {item.shape} does not fit axes {axis} ... of an array of shape {shape}")
            mask = item._concrete("indexing with a boolean mask") if isinstance(item, NDArray) else item
            items.extend(np.nonzero(mask if isinstance(mask, np.ndarray) else mask.get()))
        else:
            items.append(item)
        axis += _axes_of(item)
    if not any(item is ... for item in given):
        items.extend(fill)
    return items, gap


def _plain(item: Any) -> Any:
    """A list as an array; a mask without axes as a Python bool."""
    if isinstance(item, list):
        item = np.asarray(item) if item else np.zeros(0, np.int64)
    if isinstance(item, (bool, np.bool_)):
        return bool(item)
    if isinstance(item, (NDArray, np.ndarray)) and item.ndim == 0 and item.dtype == np.bool_:
        return bool(item._concrete("indexing with a boolean mask") if isinstance(item, NDArray) else item)
    return item


def _axes_of(item: Any) -> int:
    """How many axes of the array an item of an index stands for."""
    if item is None or item is ... or type(item) is bool:
        return 0
    return item.ndim if isinstance(item, (NDArray, np.ndarray)) and item.dtype == np.bool_ else 1


def _is_array(item: Any) -> bool:
    return isinstance(item, (NDArray, np.ndarray)) and not (isinstance(item, np.ndarray) and item.ndim == 0)


def _position(item: Any, n: Size, axis: int) -> Size:
    if not hasattr(item, "__index__"):
        raise IndexError(f"an index must be an int, slice, None, Ellipsis or array, not {type(item).__name__} {item!r}")
    i = item if type(item) is int else (item.__index__() if not hasattr(item, "terms") else item)
    if isinstance(i, int) and i < 0:
        i = n + i
        if isinstance(i, int) and i < 0:
            raise IndexError(f"index {item} is out of bounds for axis {axis} with size {n}")
    elif isinstance(i, int) and isinstance(n, int) and i >= n:
        raise IndexError(f"index {item} is out of bounds for axis {axis} with size {n}")
    return i


def _slice(item: slice, n: Size) -> tuple[Size, Size, int, bool]:
    """(start, stop, step, backwards) with a positive step that visits the same positions."""
    step = 1 if item.step is None else int(item.step)
    if step == 0:
        raise ValueError("slice step cannot be zero")
    if isinstance(n, int) and not any(hasattr(v, "terms") for v in (item.start, item.stop)):
        positions = range(n)[item]
        if not len(positions):
            return 0, 0, 1, False
        low, high = sorted((positions[0], positions[-1]))
        return low, high + 1, abs(step), step < 0
    if step < 0:
        if item.start is not None or item.stop is not None:
            raise IndexError("a backward slice of a symbolic axis must be a full one (x[::-1]); flip, then slice")
        return (n - 1) % -step, n, -step, True
    start = _bound(item.start, n, 0)
    stop = _bound(item.stop, n, n)
    return (start, start, 1, False) if stop < start else (start, stop, step, False)


def _bound(value: Any, n: Size, default: Size) -> Size:
    if value is None:
        return default
    if not hasattr(value, "terms"):
        value = value.__index__()
    if isinstance(value, int) and value < 0:
        value = n + value
        return 0 if value < 0 else value
    return n if value > n else value


def _is(size: Size, number: int) -> bool:
    return type(size) is int and size == number


def _differs(a: tuple[Size, ...], b: tuple[Size, ...]) -> bool:
    return len(a) != len(b) or any(type(x) is not type(y) or x != y for x, y in zip(a, b))
