"""Random numbers from one counter-based generator, Philox4x32-10 (Salmon et al., SC'11).

The state of a device is an array of two uint64, (key, counter). A draw of n 32-bit words reads the words of the blocks
that start at the counter and moves the counter on, through the same primitive operations that everything else uses: in
a trace the state is captured by identity and its new value is written back, so a seed gives the same integers and
uniforms eagerly, compiled, and on every device. The default seed is 0.

Device number i of a kind uses the seed's key plus i times the golden ratio of 2**64, so that devices draw differently.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from .apply import apply, is_tracing, write
from .array import NDArray, literal, wrap
from .device import Device, current_device
from .device import device as _device
from .dims import Dim, Size, product
from .dtypes import canonical, default_float, float32, float64, int64, is_floating, uint64
from .op import OPS

__all__ = [
    "bernoulli", "bits", "categorical", "choice", "exponential", "gumbel", "multinomial", "normal", "permutation",
    "rand", "randint", "randn", "seed", "shuffle", "state", "uniform",
]

_GOLDEN = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1
_WORDS, _BLOCKS = 64, 16  # a draw takes whole groups of 64 words, 16 blocks
_states: dict[Device, NDArray] = {}
_lock = threading.RLock()
_seed = 0
Shape = Any
Place = Device | str | None


def seed(value: int, device: Place = None, ctx: Place = None) -> None:
    """Start the generator of `device` (of all devices if None or "all") from an integer in [0, 2**64)."""
    global _seed
    if isinstance(value, bool) or not hasattr(value, "__index__") or not 0 <= int(value) <= _MASK:
        raise ValueError(f"random.seed: expected an integer from 0 to 2**64 - 1, got {value!r}")
    place = ctx if device is None else device
    with _lock:
        if place is None or place == "all":
            _seed = int(value)
            places = list(_states)
        else:
            places = [_device(place)]
            state(places[0])
        for p in places:
            write(_states[p], wrap(p.module.asarray(_initial(int(value), p)), p))


def state(device: Place = None) -> NDArray:
    """The generator's state on a device: uint64 (key, counter). Always the same array object, written in place."""
    place = _device(device)
    found = _states.get(place)
    if found is None:
        with _lock:
            found = _states.get(place)
            if found is None:
                found = _states[place] = wrap(place.module.asarray(_initial(_seed, place)), place)
    return found


def _initial(value: int, place: Device) -> np.ndarray:
    return np.array([(value + place.index * _GOLDEN) & _MASK, 0], np.uint64)


def _blocks(words: Size) -> Size:
    return (words + (_WORDS - 1)) // _WORDS * _BLOCKS


def bits(shape: Shape = (), device: Place = None) -> NDArray:
    """Independent uniform uint32 words; moves the device's counter on."""
    place, shape = _device(device), _shape(shape)
    used = _blocks(product(shape))
    key = state(place)
    if not is_tracing():
        with _lock:
            words = apply(OPS["random_bits"], key, shape=shape)
            key._touch()
            key._data[1] += np.uint64(used)
            key._storage.finish_write()  # type: ignore[union-attr]
        return words
    words = apply(OPS["random_bits"], key, shape=shape)
    advance = apply(OPS["multiply"], _iota(2, uint64, place), _size_array(used, place))
    write(key, apply(OPS["add"], key, advance))
    return words


def _iota(length: Size, dtype: np.dtype, place: Device) -> NDArray:
    with place:
        return apply(OPS["iota"], shape=(length,), axis=0, dtype=dtype)


def _size_array(size: Size, place: Device) -> NDArray:
    """A size, possibly symbolic, as a uint64 array: the last element of ``0 ... size``."""
    if not isinstance(size, Dim):
        return literal(size, uint64, place)
    return apply(OPS["slice"], _iota(size + 1, uint64, place), start=(size,), stop=(size + 1,), step=(1,))


def _shape(shape: Shape) -> tuple[Size, ...]:
    if shape is None:
        return ()
    shape = tuple(shape) if isinstance(shape, (tuple, list)) else (shape,)
    for n in shape:
        if not hasattr(n, "__index__") or (type(n) is int and n < 0):
            raise ValueError(f"random: a shape must be non-negative integers, got {shape}")
    return shape


def _float_dtype(name: str, dtype: Any) -> np.dtype:
    dtype = default_float if dtype is None else canonical(dtype)
    if not is_floating(dtype):
        raise TypeError(f"random.{name}: dtype must be floating, got {dtype}")
    return dtype


def _cast(x: NDArray, dtype: np.dtype) -> NDArray:
    return x if x.dtype == dtype else apply(OPS["cast"], x, dtype=dtype)


def _times(x: NDArray, factor: float) -> NDArray:
    return apply(OPS["multiply"], x, literal(factor, x.dtype, x.device))


def _plus(x: NDArray, term: float) -> NDArray:
    return apply(OPS["add"], x, literal(term, x.dtype, x.device))


def _part(x: NDArray, i: int, shape: tuple[Size, ...]) -> NDArray:
    """``x[i]`` of an array of shape (k, *shape)."""
    part = apply(OPS["slice"], x, start=(i,) + (0,) * len(shape), stop=(i + 1, *shape), step=(1,) * (len(shape) + 1))
    return apply(OPS["reshape"], part, shape=shape)


def _shifted(words: NDArray, by: int) -> NDArray:
    return apply(OPS["right_shift"], words, literal(by, words.dtype, words.device))


def _uniforms(shape: tuple[Size, ...], dtype: np.dtype, place: Device) -> NDArray:
    """Multiples of 2**-24 (float64: 2**-53) in [0, 1)."""
    if dtype != float64:
        return _times(_cast(_shifted(bits(shape, place), 8), float32), 2.0**-24)
    words = bits((2, *shape), place)
    high = _cast(_shifted(_part(words, 0, shape), 5), float64)  # 27 bits
    low = _cast(_shifted(_part(words, 1, shape), 6), float64)  # 26 bits
    return _times(apply(OPS["add"], _times(high, 2.0**26), low), 2.0**-53)


def _positive(words: NDArray, dtype: np.dtype) -> NDArray:
    """Multiples of 2**-32 in (0, 1] from words."""
    return _times(_plus(_cast(words, dtype), 1.0), 2.0**-32)


def _result_shape(shape: Shape, *parameters: Any) -> tuple[Size, ...]:
    if shape is not None:
        return _shape(shape)
    shapes = [p.shape for p in parameters if isinstance(p, NDArray)]
    return shapes[0] if len(shapes) == 1 else np.broadcast_shapes(*shapes)


def _place(device: Place, ctx: Place, *parameters: Any) -> Device:
    if device is None and ctx is None:
        for p in parameters:
            if isinstance(p, NDArray):
                return p.device
        return current_device()
    return _device(ctx if device is None else device)


def _is(value: Any, number: float) -> bool:
    return isinstance(value, (int, float)) and value == number


def _affine(z: NDArray, scale: Any, offset: Any, dtype: np.dtype) -> NDArray:
    if not _is(scale, 1):
        z = z * (_cast(scale, z.dtype) if isinstance(scale, NDArray) else scale)
    if not _is(offset, 0):
        z = z + (_cast(offset, z.dtype) if isinstance(offset, NDArray) else offset)
    return _cast(z, dtype)


def uniform(
    low: Any = 0.0, high: Any = 1.0, shape: Shape = None, dtype: Any = None, device: Place = None, ctx: Place = None,
    *, size: Shape = None,
) -> NDArray:
    """Numbers uniform in [low, high). `low` and `high` may be arrays that broadcast to `shape`.

    `size` is NumPy's name of `shape`, `ctx` MXNet's name of `device`.
    """
    dtype, place = _float_dtype("uniform", dtype), _place(device, ctx, low, high)
    u = _uniforms(_result_shape(size if shape is None else shape, low, high), dtype, place)
    return _affine(u, high - low, low, dtype)


def normal(
    loc: Any = 0.0, scale: Any = 1.0, shape: Shape = None, dtype: Any = None, device: Place = None, ctx: Place = None,
    *, size: Shape = None,
) -> NDArray:
    """Numbers of the normal distribution with mean `loc` and standard deviation `scale` (Box-Muller)."""
    dtype, place = _float_dtype("normal", dtype), _place(device, ctx, loc, scale)
    shape = _result_shape(size if shape is None else shape, loc, scale)
    work = float64 if dtype == float64 else float32
    words = bits((2, *shape), place)
    radius = apply(OPS["sqrt"], _times(apply(OPS["log"], _positive(_part(words, 0, shape), work)), -2.0))
    angle = _times(_cast(_shifted(_part(words, 1, shape), 8), work), 2.0**-24 * 2 * math.pi)
    return _affine(apply(OPS["multiply"], radius, apply(OPS["cos"], angle)), scale, loc, dtype)


def randn(
    *shape: Size, loc: Any = 0.0, scale: Any = 1.0, dtype: Any = None, device: Place = None, ctx: Place = None,
) -> NDArray:
    """``normal(loc, scale, shape)`` with the shape as arguments."""
    return normal(loc, scale, shape, dtype, device, ctx)


def rand(*shape: Size, dtype: Any = None, device: Place = None, ctx: Place = None) -> NDArray:
    """``uniform(0, 1, shape)`` with the shape as arguments."""
    return uniform(0.0, 1.0, shape, dtype, device, ctx)


def randint(
    low: Any, high: Any = None, shape: Shape = None, dtype: Any = None, device: Place = None, ctx: Place = None,
    *, size: Shape = None,
) -> NDArray:
    """Integers uniform in [low, high), or [0, low) without `high`; int64 unless told otherwise.

    The range may span up to 2**32 numbers (each has probability 1/range to within 2**-32).
    """
    if high is None:
        low, high = 0, low
    low, high = int(low), int(high)
    if not 0 < high - low <= 1 << 32:
        raise ValueError(f"random.randint: needs low < high <= low + 2**32, got low={low}, high={high}")
    dtype = int64 if dtype is None else canonical(dtype)
    if dtype.kind not in "iu" or low < np.iinfo(dtype).min or high - 1 > np.iinfo(dtype).max:
        raise TypeError(f"random.randint: dtype {dtype} can't hold integers from {low} to {high - 1}")
    words = bits(_shape(size if shape is None else shape), _place(device, ctx))
    scaled = apply(OPS["multiply"], _cast(words, uint64), literal(high - low, uint64, words.device))
    drawn = _cast(_shifted(scaled, 32), int64)
    if low:
        drawn = apply(OPS["add"], drawn, literal(low, int64, drawn.device))
    return _cast(drawn, dtype)


def bernoulli(
    prob: Any = 0.5, shape: Shape = None, dtype: Any = None, device: Place = None, ctx: Place = None,
    *, size: Shape = None,
) -> NDArray:
    """1 with probability `prob` (a number or an array), else 0; float32 unless told otherwise."""
    place = _place(device, ctx, prob)
    if isinstance(prob, (int, float)) and not 0 <= prob <= 1:
        raise ValueError(f"random.bernoulli: prob must be in [0, 1], got {prob}")
    u = _uniforms(_result_shape(size if shape is None else shape, prob), float32, place)
    limit = _cast(prob, float32) if isinstance(prob, NDArray) else literal(prob, float32, place)
    return _cast(apply(OPS["less"], u, limit), default_float if dtype is None else canonical(dtype))


def exponential(
    scale: Any = 1.0, shape: Shape = None, dtype: Any = None, device: Place = None, ctx: Place = None,
    *, size: Shape = None,
) -> NDArray:
    """Numbers of the exponential distribution with mean `scale`."""
    dtype, place = _float_dtype("exponential", dtype), _place(device, ctx, scale)
    work = float64 if dtype == float64 else float32
    u = _positive(bits(_result_shape(size if shape is None else shape, scale), place), work)
    return _affine(apply(OPS["negative"], apply(OPS["log"], u)), scale, 0.0, dtype)


def gumbel(
    loc: Any = 0.0, scale: Any = 1.0, shape: Shape = None, dtype: Any = None, device: Place = None, ctx: Place = None,
    *, size: Shape = None,
) -> NDArray:
    """Numbers of the Gumbel distribution: ``loc - scale * log(-log(u))``."""
    dtype, place = _float_dtype("gumbel", dtype), _place(device, ctx, loc, scale)
    work = float64 if dtype == float64 else float32
    words = bits(_result_shape(size if shape is None else shape, loc, scale), place)
    u = _times(_plus(_cast(_shifted(words, 8), work), 0.5), 2.0**-24)  # strictly inside (0, 1)
    z = apply(OPS["negative"], apply(OPS["log"], apply(OPS["negative"], apply(OPS["log"], u))))
    return _affine(z, scale, loc, dtype)


def categorical(logits: NDArray, shape: Shape = None, dtype: Any = None) -> NDArray:
    """Indices along the last axis with probabilities ``softmax(logits)``; `shape` draws are put in front."""
    extra = () if shape is None else _shape(shape)
    noise = gumbel(shape=(*extra, *logits.shape), dtype=logits.dtype, device=logits.device)
    drawn = apply(OPS["argmax"], logits + noise, axis=len(extra) + logits.ndim - 1, keepdims=False)
    return drawn if dtype is None else drawn.astype(dtype, copy=False)


def multinomial(data: NDArray, shape: Shape = None, dtype: Any = "int32") -> NDArray:
    """Indices along the last axis with the probabilities in `data` (MXNet's ``sample_multinomial``)."""
    drawn = categorical(apply(OPS["log"], data), shape, dtype)
    if shape is None or data.ndim == 1:
        return drawn
    k = drawn.ndim - data.ndim + 1  # MXNet puts the draws last
    return apply(OPS["transpose"], drawn, axes=(*range(k, drawn.ndim), *range(k)))


def permutation(x: Size | NDArray, device: Place = None, ctx: Place = None) -> NDArray:
    """The integers below `x` in random order, or the array `x` with its first axis in random order. Eager only."""
    if isinstance(x, NDArray):
        return x[permutation(x.shape[0], x.device)]
    place = _place(device, ctx)
    words = bits((2, int(x)), place)._concrete("random.permutation")
    keys = (words[0].astype(np.uint64) << np.uint64(32)) | words[1].astype(np.uint64)
    return wrap(place.module.argsort(keys, kind="stable").astype(np.int64), place)


def shuffle(x: NDArray) -> NDArray:
    """Put the first axis of `x` in random order, in place; returns `x`. Eager only."""
    x[...] = permutation(x)
    return x


def choice(
    a: int | NDArray, size: Shape = None, replace: bool = True, p: NDArray | Sequence[float] | None = None,
    device: Place = None, ctx: Place = None,
) -> NDArray:
    """Elements of `a` (or integers below it) drawn with or without replacement, with probabilities `p` if given."""
    shape = _shape(size)
    n = a.shape[0] if isinstance(a, NDArray) else int(a)
    place = _place(device, ctx, a)
    if p is not None:
        if not replace:
            raise ValueError("random.choice: p with replace=False is not supported; use replace=True, or drop p")
        from .creation import asarray

        weights = asarray(p, dtype=float32, device=place)
        if weights.shape != (n,):
            raise ValueError(f"random.choice: p has shape {weights.shape}, expected ({n},)")
        index = categorical(apply(OPS["log"], weights), shape)
    elif replace:
        index = randint(0, n, shape, device=place)
    else:
        count = int(product(shape))
        if count > n:
            raise ValueError(f"random.choice: can't draw {count} of {n} without replacement")
        index = permutation(n, place)[:count].reshape(shape)
    return a[index] if isinstance(a, NDArray) else index


