"""Convolution (cross-correlation) over 1 to 3 spatial axes, and its two gradients. The three are closed under
differentiation: each one's gradients are the other two.

    out[n, o, p] = sum over c, k of x[n, group(o) * C/groups + c, p * stride + k * dilation - padding] * w[o, c, k]

with x: (N, C, *spatial), w: (O, C/groups, *kernel), out: (N, O, *positions). On NumPy: the windows of a few images at
a time are copied into columns and multiplied. The ops `..._channels_last` have x and out as (N, *spatial, C): the layout
pass puts them in the others' place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import product as cartesian
from typing import Any

import numpy as np

from .. import functions as F
from ..dims import Size
from ..op import ArrayType, Op, Sample, Template, Vjp, register
from .base import differ, expect_kind, expect_same_dtype, expect_same_shape, fail, in_single, random_array

__all__ = ["window_count"]

Pads = tuple[tuple[int, int], ...]
_COLUMN_BYTES = 1 << 22  # columns of the images taken at once: about what a cache holds


def window_count(n: Size, kernel: Size, stride: int, pad: tuple[int, int], dilation: int = 1) -> Size:
    """How many windows of `kernel` elements fit along an axis of size `n`."""
    return (n + pad[0] + pad[1] - dilation * (kernel - 1) - 1) // stride + 1


def _check(op: str, rank: int, stride: tuple, padding: Pads, dilation: tuple, groups: int) -> None:
    if not 1 <= rank <= 3:
        fail(op, "x", "3 to 5 axes (batch, channels, 1 to 3 spatial ones)", f"{rank + 2} axes")
    for name, value in (("stride", stride), ("padding", padding), ("dilation", dilation)):
        if len(value) != rank:
            fail(op, name, f"one entry for each of the {rank} spatial axes", value)
    if any(s < 1 for s in stride) or any(d < 1 for d in dilation):
        fail(op, "stride and dilation", "at least 1", f"{stride} and {dilation}")
    if any(a < 0 or b < 0 for a, b in padding):
        fail(op, "padding", "at least 0 on each side", padding)
    if groups < 1:
        fail(op, "groups", "at least 1", groups)


def _out_shape(
    op: str, x: tuple[Size, ...], w: tuple[Size, ...], stride: tuple, padding: Pads, dilation: tuple, groups: int
) -> tuple[Size, ...]:
    if len(x) != len(w):
        fail(op, "w", f"{len(x)} axes (out channels, in channels / groups, kernel) for x of shape {x}", f"shape {w}")
    _check(op, len(x) - 2, stride, padding, dilation, groups)
    if differ(x[1], w[1] * groups):
        fail(op, "channels of x", f"{w[1] * groups} (w of shape {w}, {groups} groups)", f"{x[1]} (shape {x})")
    if type(w[0]) is int and w[0] % groups:
        fail(op, "out channels", f"a multiple of the {groups} groups", w[0])
    positions = tuple(window_count(*a) for a in zip(x[2:], w[2:], stride, padding, dilation))
    for k, n in enumerate(positions):
        if type(n) is int and n < 1:
            fail(op, f"spatial axis {k}", f"a (padded) size of at least {dilation[k] * (w[2 + k] - 1) + 1} for the kernel",
                 f"size {x[2 + k]} with padding {padding[k]}")
    return (x[0], w[0], *positions)


# -- NumPy kernels: x is (N, G, C, *spatial), w is (G, O, C, *kernel), out is (N, G, O, *positions)

def _grouped(x: Any, groups: int) -> Any:
    return x.reshape(x.shape[0], groups, x.shape[1] // groups, *x.shape[2:])


def _grouped_weight(w: Any, groups: int) -> Any:
    return w.reshape(groups, w.shape[0] // groups, *w.shape[1:])


def _padded(xp: Any, x: Any, padding: Pads, spare: int = 0) -> Any:
    """x with zeros around its last axes, and `spare` more behind the first of them."""
    if not spare and not any(a or b for a, b in padding):
        return x
    lead = x.ndim - len(padding)
    shape = [*x.shape[:lead], *(n + a + b for n, (a, b) in zip(x.shape[lead:], padding))]
    shape[lead] += spare
    out = xp.zeros(shape, x.dtype)
    out[(..., *(slice(a, a + n) for n, (a, _) in zip(x.shape[lead:], padding)))] = x
    return out


def _windows(xp: Any, x: Any, kernel: tuple, positions: tuple, stride: tuple, dilation: tuple) -> Any:
    """A view of padded x (N, G, C, *spatial) as (N, G, C, *kernel, *positions)."""
    steps = x.strides[3:]
    return xp.lib.stride_tricks.as_strided(
        x, (*x.shape[:3], *kernel, *positions),
        (*x.strides[:3], *(s * d for s, d in zip(steps, dilation)), *(s * k for s, k in zip(steps, stride))),
    )


def _taps(x: Any, kernel: tuple, positions: tuple, stride: tuple, dilation: tuple) -> Iterator[tuple[tuple, tuple]]:
    """For each position in the kernel, the slices of padded x that it meets."""
    for k in cartesian(*map(range, kernel)):
        yield k, (..., *(slice(i * d, i * d + (n - 1) * s + 1, s) for i, d, n, s in zip(k, dilation, positions, stride)))


def _depth(x: Any, kernel: tuple) -> int:
    return x.shape[2] * int(np.prod(kernel))


def _chunks(x: Any, kernel: tuple, positions: tuple) -> Iterator[slice]:
    image = x.shape[1] * _depth(x, kernel) * int(np.prod(positions)) * x.itemsize
    count = max(1, _COLUMN_BYTES // max(1, image))
    for start in range(0, x.shape[0], count):
        yield slice(start, min(start + count, x.shape[0]))


def _columns(xp: Any, x: Any, kernel: tuple, positions: tuple, stride: tuple, dilation: tuple) -> Any:
    """(N, G, C * kernel, positions); a view where kernel and stride are 1."""
    view = _windows(xp, x, kernel, positions, stride, dilation)
    return view.reshape(*x.shape[:2], _depth(x, kernel), int(np.prod(positions)))


def _rows(shape: tuple, padding: Pads, positions: tuple, stride: tuple) -> tuple[int, ...] | None:
    """The positions counted along whole padded rows, if that is worth it: for stride 1 the elements that one kernel position
    meets are then one contiguous run, which copies several times faster; what lies beyond the true positions is dropped."""
    rows = (positions[0], *(n + a + b for n, (a, b) in zip(shape[1:], padding[1:])))
    return rows if set(stride) == {1} and np.prod(rows) <= 1.5 * np.prod(positions) else None


def _row_columns(xp: Any, x: Any, kernel: tuple, rows: tuple, dilation: tuple) -> Iterator[tuple[slice, Any]]:
    """Columns (N, G, C * kernel, positions along rows) of x, padded with one spare row, for some images at a time; the
    buffer is the same each time."""
    steps, length = x.strides[3:], int(np.prod(rows))
    view = xp.lib.stride_tricks.as_strided(
        x, (*x.shape[:3], *kernel, length), (*x.strides[:3], *(s * d for s, d in zip(steps, dilation)), x.itemsize),
    )
    buffer = None
    for part in _chunks(x, kernel, rows):
        count = part.stop - part.start
        if buffer is None:
            buffer = xp.empty((count, *view.shape[1:]), x.dtype)
        columns = buffer[:count]
        columns[...] = view[part]
        yield part, columns.reshape(count, x.shape[1], -1, length)


def _true_positions(positions: tuple) -> tuple:
    return (..., *(slice(0, n) for n in positions))


def _convolve(xp: Any, x: Any, w: Any, *, stride: tuple, padding: Pads, dilation: tuple, groups: int) -> Any:
    shape: Any = _out_shape("convolution", x.shape, w.shape, stride, padding, dilation, groups)
    kernel, positions = w.shape[2:], shape[2:]
    n, g, o = shape[0], groups, shape[1] // groups
    if 0 in shape or 0 in w.shape:
        return xp.zeros(shape, x.dtype)
    rows = _rows(x.shape[2:], padding, positions, stride)
    depthwise = w.shape[1] == 1 and groups > 1
    if max(kernel) == 1 or depthwise:
        rows = None
    x, w = _padded(xp, _grouped(x, groups), padding, rows is not None), _grouped_weight(w, groups)
    if depthwise:  # depthwise: a few multiply-adds of whole arrays
        out = xp.zeros((n, g, o, *positions), x.dtype)
        for k, window in _taps(x, kernel, positions, stride, dilation):
            out += x[window] * w[(slice(None), slice(None), 0, *k)].reshape(1, g, o, *(1,) * len(positions))
        return out.reshape(shape)
    flat = w.reshape(g, o, -1)
    if rows is not None:
        wide = xp.empty((n, g, o, *positions), x.dtype)
        for part, columns in _row_columns(xp, x, kernel, rows, dilation):
            product = flat @ columns
            wide[part] = product.reshape(-1, g, o, *rows)[_true_positions(positions)]
        return wide.reshape(shape)
    out = xp.empty((n, g, o, int(np.prod(positions))), x.dtype)
    for part in _chunks(x, kernel, positions):
        xp.matmul(flat, _columns(xp, x[part], kernel, positions, stride, dilation), out=out[part])
    return out.reshape(shape)


def _data_gradient(
    xp: Any, dy: Any, w: Any, *, shape: tuple, stride: tuple, padding: Pads, dilation: tuple, groups: int
) -> Any:
    kernel, positions = w.shape[2:], dy.shape[2:]
    mirrored = tuple((d * (k - 1) - a, d * (k - 1) - b) for d, k, (a, b) in zip(dilation, kernel, padding))
    if set(stride) == {1} and all(a >= 0 and b >= 0 for a, b in mirrored) and w.shape[1] > 1 and 0 not in dy.shape:
        # a convolution with the mirrored filters
        turned = _grouped_weight(w, groups).swapaxes(1, 2)[(..., *(slice(None, None, -1),) * len(kernel))]
        turned = turned.reshape(shape[1], w.shape[0] // groups, *kernel)
        return _convolve(xp, dy, turned, stride=stride, padding=mirrored, dilation=dilation, groups=groups)
    dy, w = _grouped(dy, groups), _grouped_weight(w, groups)
    n, g, o, c = shape[0], groups, w.shape[1], w.shape[2]
    spatial = tuple(s + a + b for s, (a, b) in zip(shape[2:], padding))
    out = xp.zeros((n, g, c, *spatial), dy.dtype)
    if 0 in dy.shape or 0 in w.shape:
        return xp.zeros(shape, dy.dtype)
    if c == 1 and groups > 1:
        for k, window in _taps(out, kernel, positions, stride, dilation):
            factor = w[(slice(None), slice(None), 0, *k)].reshape(1, g, o, *(1,) * len(positions))
            out[window] += (dy * factor).sum(axis=2, keepdims=True) if o > 1 else dy * factor
    else:
        flat = w.reshape(g, o, -1).transpose(0, 2, 1)
        for part in _chunks(out, kernel, positions):
            columns = (flat @ dy[part].reshape(-1, g, o, int(np.prod(positions)))).reshape(-1, g, c, *kernel, *positions)
            target = out[part]
            for k, window in _taps(out, kernel, positions, stride, dilation):
                target[window] += columns[(slice(None), slice(None), slice(None), *k)]
    inner = out[(..., *(slice(a, a + s) for s, (a, _) in zip(shape[2:], padding)))]
    return xp.ascontiguousarray(inner.reshape(shape))


def _weight_gradient(
    xp: Any, x: Any, dy: Any, *, shape: tuple, stride: tuple, padding: Pads, dilation: tuple, groups: int
) -> Any:
    kernel, positions = shape[2:], dy.shape[2:]
    g, o, c = groups, shape[0] // groups, shape[1]
    if 0 in x.shape or 0 in dy.shape or 0 in shape:
        return xp.zeros(shape, x.dtype)
    rows = _rows(x.shape[2:], padding, positions, stride)
    depthwise = c == 1 and groups > 1
    if max(kernel) == 1 or depthwise:
        rows = None
    x, dy = _padded(xp, _grouped(x, groups), padding, rows is not None), _grouped(dy, groups)
    if depthwise:
        out = xp.empty((g, o, 1, *kernel), x.dtype)
        for k, window in _taps(x, kernel, positions, stride, dilation):
            product = (x[window] * dy).sum(axis=(0, *range(3, dy.ndim)))
            out[(slice(None), slice(None), 0, *k)] = product
        return out.reshape(shape)
    total = xp.zeros((g, o, c * int(np.prod(kernel))), x.dtype)
    if rows is not None:
        for part, columns in _row_columns(xp, x, kernel, rows, dilation):
            wide = xp.zeros((columns.shape[0], g, o, *rows), x.dtype)
            wide[_true_positions(positions)] = dy[part]
            wide = wide.reshape(-1, g, o, columns.shape[-1])
            for one, image in zip(wide, columns):
                total += one @ image.swapaxes(1, 2)
        return total.reshape(shape)
    for part in _chunks(x, kernel, positions):
        columns = _columns(xp, x[part], kernel, positions, stride, dilation)
        total += (dy[part].reshape(-1, g, o, columns.shape[-1]) @ columns.transpose(0, 1, 3, 2)).sum(axis=0)
    return total.reshape(shape)


# -- records

def _infer(x: ArrayType, w: ArrayType, *, stride: tuple, padding: Pads, dilation: tuple, groups: int) -> tuple[ArrayType, ...]:
    dtype = expect_same_dtype("convolution", "xw", (x, w))
    expect_kind("convolution", "x", dtype, "iufc")
    return (ArrayType(_out_shape("convolution", x.shape, w.shape, stride, padding, dilation, groups), dtype),)


def _data_infer(
    dy: ArrayType, w: ArrayType, *, shape: tuple, stride: tuple, padding: Pads, dilation: tuple, groups: int
) -> tuple[ArrayType, ...]:
    name = "convolution_data_gradient"
    dtype = expect_same_dtype(name, ("dy", "w"), (dy, w))
    expect_same_shape(name, "dy", _out_shape(name, shape, w.shape, stride, padding, dilation, groups), dy.shape)
    return (ArrayType(tuple(shape), dtype),)


def _weight_infer(
    x: ArrayType, dy: ArrayType, *, shape: tuple, stride: tuple, padding: Pads, dilation: tuple, groups: int
) -> tuple[ArrayType, ...]:
    name = "convolution_weight_gradient"
    dtype = expect_same_dtype(name, ("x", "dy"), (x, dy))
    expect_same_shape(name, "dy", _out_shape(name, x.shape, shape, stride, padding, dilation, groups), dy.shape)
    return (ArrayType(tuple(shape), dtype),)


def _primitive(name: str, *arrays: Any, **attrs: Any) -> Any:
    return F.primitive(name, *arrays, **attrs)


def _rules(suffix: str) -> dict[str, dict[str, Vjp]]:
    """The gradient rules of the three ops whose names end in `suffix`: they are each other's gradients."""
    forward, data, weight = (
        partial(_primitive, name + suffix)
        for name in ("convolution", "convolution_data_gradient", "convolution_weight_gradient")
    )
    return {
        "convolution": {
            "x": Vjp(lambda g, w, x_type, stride, padding, dilation, groups: data(
                g, w, shape=tuple(x_type.shape), stride=stride, padding=padding, dilation=dilation, groups=groups)),
            "w": Vjp(lambda g, x, w_type, stride, padding, dilation, groups: weight(
                x, g, shape=tuple(w_type.shape), stride=stride, padding=padding, dilation=dilation, groups=groups)),
        },
        "convolution_data_gradient": {
            "dy": Vjp(lambda g, w, stride, padding, dilation, groups: forward(
                g, w, stride=stride, padding=padding, dilation=dilation, groups=groups)),
            "w": Vjp(lambda g, dy, w_type, stride, padding, dilation, groups: weight(
                g, dy, shape=tuple(w_type.shape), stride=stride, padding=padding, dilation=dilation, groups=groups)),
        },
        "convolution_weight_gradient": {
            "x": Vjp(lambda g, dy, x_type, stride, padding, dilation, groups: data(
                dy, g, shape=tuple(x_type.shape), stride=stride, padding=padding, dilation=dilation, groups=groups)),
            "dy": Vjp(lambda g, x, stride, padding, dilation, groups: forward(
                x, g, stride=stride, padding=padding, dilation=dilation, groups=groups)),
        },
    }


# -- samples: the reference is the defining sum, term by term over the kernel

def _terms(x: np.ndarray, w_shape: tuple, stride: tuple, padding: Pads, dilation: tuple, groups: int) -> Iterator[tuple]:
    shape = _out_shape("convolution", x.shape, w_shape, stride, padding, dilation, groups)
    wide = np.pad(x, ((0, 0), (0, 0), *padding))
    per_in, per_out = w_shape[1], w_shape[0] // groups
    for o in range(w_shape[0]):
        for c in range(per_in):
            source = (o // per_out) * per_in + c
            for k in np.ndindex(*w_shape[2:]):
                at = tuple(slice(i * d, i * d + (n - 1) * s + 1, s) for i, d, n, s in zip(k, dilation, shape[2:], stride))
                yield (o, c, *k), (slice(None), o), (slice(None), source, *at), wide, shape


def _reference(x: np.ndarray, w: np.ndarray, **attrs: Any) -> np.ndarray:
    out = np.zeros(_out_shape("convolution", x.shape, w.shape, **attrs), x.dtype)
    for weight, target, source, wide, _ in _terms(x, w.shape, **attrs):
        out[target] += wide[source] * w[weight]
    return out


def _data_reference(dy: np.ndarray, w: np.ndarray, shape: tuple, padding: Pads, **attrs: Any) -> np.ndarray:
    out = np.pad(np.zeros(shape, dy.dtype), ((0, 0), (0, 0), *padding))
    for weight, target, source, _, _ in _terms(np.zeros(shape), w.shape, padding=padding, **attrs):
        out[source] += dy[target] * w[weight]
    return out[(slice(None), slice(None), *(slice(a, a + n) for n, (a, _) in zip(shape[2:], padding)))]


def _weight_reference(x: np.ndarray, dy: np.ndarray, shape: tuple, **attrs: Any) -> np.ndarray:
    out = np.zeros(shape, x.dtype)
    for weight, target, source, wide, _ in _terms(x, shape, **attrs):
        out[weight] = (wide[source] * dy[target]).sum()
    return out


_CASES = (
    ((2, 3, 5, 6), (4, 3, 3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1), 1),
    ((2, 3, 7, 6), (4, 3, 3, 2), (2, 2), ((0, 1), (1, 0)), (1, 1), 1),
    ((1, 4, 7, 7), (6, 2, 3, 3), (1, 2), ((2, 2), (0, 0)), (2, 1), 2),
    ((2, 4, 5, 5), (4, 1, 3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1), 4),
    ((2, 3, 6, 5), (6, 1, 2, 3), (2, 1), ((0, 0), (1, 1)), (1, 1), 3),
    ((2, 3, 4, 4), (5, 3, 1, 1), (1, 1), ((0, 0), (0, 0)), (1, 1), 1),
    ((2, 3, 5, 5), (2, 3, 1, 1), (2, 2), ((0, 0), (0, 0)), (1, 1), 1),
    ((2, 2, 9), (3, 2, 4), (2,), ((1, 2),), (2,), 1),
    ((1, 2, 3, 4, 4), (3, 2, 2, 2, 2), (1, 1, 2), ((0, 1), (1, 0), (1, 1)), (1, 1, 1), 1),
    ((2, 2, 4, 5, 6), (3, 2, 2, 1, 3), (1, 1, 1), ((0, 1), (0, 0), (1, 1)), (1, 1, 1), 1),
    ((2, 4, 8), (6, 2, 3), (1,), ((1, 1),), (1,), 2),
    ((2, 4, 9, 8), (6, 2, 3, 2), (1, 1), ((0, 2), (1, 1)), (2, 1), 2),
    ((0, 2, 4, 4), (3, 2, 3, 3), (1, 1), ((0, 0), (0, 0)), (1, 1), 1),
)


def _samples(kind: str) -> Any:
    def samples() -> Iterator[Sample]:
        for x_shape, w_shape, stride, padding, dilation, groups in _CASES:
            attrs: dict[str, Any] = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
            out: Any = _out_shape("convolution", x_shape, w_shape, **attrs)
            for dtype in (np.float64, np.float32):
                x, w, dy = (random_array(k, s, dtype) for k, s in enumerate((x_shape, w_shape, out)))
                if kind == "forward":
                    yield Sample((x, w), attrs, _reference, tolerance=20.0)
                elif kind == "data":
                    yield Sample((dy, w), {"shape": x_shape, **attrs}, _data_reference, tolerance=20.0)
                else:
                    yield Sample((x, dy), {"shape": w_shape, **attrs}, _weight_reference, tolerance=40.0)

    return samples


# -- the same with the channels of x, out and their gradients along the last axis, as the compiler lays them out

def _first(shape: tuple) -> tuple:
    return (shape[0], shape[-1], *shape[1:-1]) if len(shape) > 1 else shape


def _last(shape: tuple) -> tuple:
    return (shape[0], *shape[2:], shape[1])


def _first_type(t: ArrayType) -> ArrayType:
    return ArrayType(_first(t.shape), t.dtype)


def _last_type(t: ArrayType) -> ArrayType:
    return ArrayType(_last(t.shape), t.dtype)


def _first_array(x: Any) -> Any:
    return x.transpose(_first(tuple(range(x.ndim))))


def _last_array(x: Any) -> Any:
    axes = _last(tuple(range(x.ndim)))
    return np.ascontiguousarray(x.transpose(axes)) if isinstance(x, np.ndarray) else x.transpose(axes).copy()


def _channels_last(function: Callable, first: Callable, last: Callable, places: tuple[int, ...], result: bool,
                   module: bool = False) -> Callable:
    """A function of arrays (or of types) with channels second as one with channels last: `places` says which arguments
    have channels, `result` whether the result has."""

    def moved(*arguments: Any, **attrs: Any) -> Any:
        lead, operands = (arguments[:1], arguments[1:]) if module else ((), arguments)
        operands = tuple(first(a) if i in places else a for i, a in enumerate(operands))
        if result and "shape" in attrs:
            attrs["shape"] = _first(attrs["shape"])
        out = function(*lead, *operands, **attrs)
        if isinstance(out, tuple):
            return tuple(map(last, out)) if result else out
        return last(out) if result else out

    return moved


def _channels_last_samples(kind: str, places: tuple[int, ...], result: bool) -> Any:
    def samples() -> Iterator[Sample]:
        for s in _samples(kind)():
            arrays = tuple(_last_array(a) if i in places else a for i, a in enumerate(s.arrays))
            attrs = {**s.attrs, "shape": _last(s.attrs["shape"])} if result and "shape" in s.attrs else s.attrs
            reference = _channels_last(s.reference, _first_array, _last_array, places, result)
            yield Sample(arrays, attrs, reference, tolerance=s.tolerance)

    return samples


for _name, _arguments, _types, _kernel, _kind, _places, _result in (
    ("convolution", ("x", "w"), _infer, in_single(_convolve), "forward", (0,), True),
    ("convolution_data_gradient", ("dy", "w"), _data_infer, in_single(_data_gradient), "data", (0,), True),
    ("convolution_weight_gradient", ("x", "dy"), _weight_infer, in_single(_weight_gradient), "weight", (0, 1), False),
):
    register(Op(_name, _arguments, _types, _kernel, _rules("")[_name], Template(_name), _samples(_kind)))
    register(Op(
        f"{_name}_channels_last", _arguments, _channels_last(_types, _first_type, _last_type, _places, _result),
        _channels_last(_kernel, _first_array, _last_array, _places, _result, module=True),
        _rules("_channels_last")[_name], Template(_name), _channels_last_samples(_kind, _places, _result),
    ))
