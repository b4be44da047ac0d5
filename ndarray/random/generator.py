"""The generator behind all random numbers: counter-based, Philox4x32-10 (Salmon et al., SC'11).

The state of a device is an array of two uint64, (key, counter). A draw of n 32-bit words reads the words of the blocks
that start at the counter and moves the counter on, through the same primitive operations that everything else uses: in
a trace the state is captured by identity and its new value is written back, so a seed gives the same integers and
uniforms eagerly, compiled, and on every device. The default seed is 0.

Samplers that draw again until a number fits (gamma, Poisson ...) are host operations. Each call is one draw: its key and
counter seed a generator of its own, so that eager and compiled programs get the same numbers bit for bit, and whatever number
of attempts an element needs, the counter moves on by the same amount.

Device number i of a kind uses the seed's key plus i times the golden ratio of 2**64, so that devices draw differently.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from ..apply import apply, is_tracing, write
from ..array import NDArray, literal, wrap
from ..device import Device, current_device
from ..device import device as _device
from ..dims import Dim, Size, product
from ..dtypes import canonical, default_float, float32, float64, is_floating, uint64
from ..op import OPS
from ..operands import is_number
from ..ops.base import broadcast_shapes, differ

__all__ = ["bits", "seed", "state"]

_GOLDEN = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1
_WORDS, _BLOCKS = 64, 16  # a draw takes whole groups of 64 words, 16 blocks
_states: dict[Device, NDArray] = {}
_lock = threading.RLock()
_seed = 0
Shape = Any
Place = Device | str | None


def seed(value: int, device: Place = None, ctx: Place = None) -> None:
    """Start the generator of `device` (of all devices if None or "all") from an integer in [0, 2**64). Raises ValueError for
    another value.

    >>> import ndarray as nd
    >>> nd.random.seed(3)
    >>> first = nd.random.uniform(shape=2).tolist()
    >>> nd.random.seed(3)
    >>> nd.random.uniform(shape=2).tolist() == first
    True
    """
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
    """The generator's state on a device: uint64 (key, counter). Always the same array object, written in place.

    >>> import ndarray as nd
    >>> nd.random.seed(3)
    >>> nd.random.state().tolist()
    [3, 0]
    """
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
    """Independent uniform uint32 words; moves the device's counter on.

    >>> import ndarray as nd
    >>> nd.random.bits((2, 3)).dtype.name
    'uint32'
    """
    place, shape = _device(device), as_shape(shape)
    return draw("random_bits", place, product(shape), shape=shape)


def draw(op: str, place: Device, words: Size, *arrays: NDArray, **attrs: Any) -> NDArray:
    """The result of a random primitive of the device's state and `arrays`; moves the counter on by `words` words."""
    used, key = _blocks(words), state(place)
    if not is_tracing():
        with _lock:
            out = apply(OPS[op], key, *arrays, **attrs)
            key._touch()
            with place.active():
                key._data[1] += np.uint64(used)
            key._storage.finish_write()  # type: ignore[union-attr]
        return out
    out = apply(OPS[op], key, *arrays, **attrs)
    advance = apply(OPS["multiply"], _iota(2, uint64, place), _size_array(used, place))
    write(key, apply(OPS["add"], key, advance))
    return out


def _iota(length: Size, dtype: np.dtype, place: Device) -> NDArray:
    with place:
        return apply(OPS["iota"], shape=(length,), axis=0, dtype=dtype)


def _size_array(size: Size, place: Device) -> NDArray:
    """A size, possibly symbolic, as a uint64 array: the last element of ``0 ... size``."""
    if not isinstance(size, Dim):
        return literal(size, uint64, place)
    return apply(OPS["slice"], _iota(size + 1, uint64, place), start=(size,), stop=(size + 1,), step=(1,))


def as_shape(shape: Shape) -> tuple[Size, ...]:
    """A shape as a tuple: None is (), a number one axis. Raises ValueError for what is none."""
    if shape is None:
        return ()
    shape = tuple(shape) if isinstance(shape, (tuple, list)) else (shape,)
    for n in shape:
        if not hasattr(n, "__index__") or (type(n) is int and n < 0):
            raise ValueError(f"random: a shape must be non-negative integers, got {shape}")
    return shape


def float_dtype(name: str, dtype: Any) -> np.dtype:
    """A floating dtype, float32 for None. Raises TypeError for another one."""
    dtype = default_float if dtype is None else canonical(dtype)
    if not is_floating(dtype):
        raise TypeError(f"random.{name}: dtype must be floating, got {dtype}")
    return dtype


def cast(x: NDArray, dtype: np.dtype) -> NDArray:
    """x in another dtype."""
    return x if x.dtype == dtype else apply(OPS["cast"], x, dtype=dtype)


def times(x: NDArray, factor: float) -> NDArray:
    """``x * factor`` in x's dtype."""
    return apply(OPS["multiply"], x, literal(factor, x.dtype, x.device))


def plus(x: NDArray, term: float) -> NDArray:
    """``x + term`` in x's dtype."""
    return apply(OPS["add"], x, literal(term, x.dtype, x.device))


def part(x: NDArray, i: int, shape: tuple[Size, ...]) -> NDArray:
    """``x[i]`` of an array of shape (k, *shape)."""
    one = apply(OPS["slice"], x, start=(i,) + (0,) * len(shape), stop=(i + 1, *shape), step=(1,) * (len(shape) + 1))
    return apply(OPS["reshape"], one, shape=shape)


def shifted(words: NDArray, by: int) -> NDArray:
    """``words >> by``."""
    return apply(OPS["right_shift"], words, literal(by, words.dtype, words.device))


_DIGITS = {"float16": 11, "bfloat16": 8}


def uniforms(shape: tuple[Size, ...], dtype: np.dtype, place: Device) -> NDArray:
    """Multiples of 2**-24 (float64: 2**-53, float16: 2**-11, bfloat16: 2**-8) in [0, 1); those of 16 bits as float32, where
    they are not rounded up to 1 by a cast."""
    if dtype != float64:
        digits = _DIGITS.get(dtype.name, 24)
        return times(cast(shifted(bits(shape, place), 32 - digits), float32), 2.0**-digits)
    words = bits((2, *shape), place)
    high = cast(shifted(part(words, 0, shape), 5), float64)  # 27 bits
    low = cast(shifted(part(words, 1, shape), 6), float64)  # 26 bits
    return times(apply(OPS["add"], times(high, 2.0**26), low), 2.0**-53)


def positive(words: NDArray, dtype: np.dtype) -> NDArray:
    """Multiples of 2**-32 in (0, 1] from words."""
    return times(plus(cast(words, dtype), 1.0), 2.0**-32)


def inside(shape: tuple[Size, ...], dtype: np.dtype, place: Device) -> NDArray:
    """Uniform numbers strictly inside (0, 1): odd multiples of 2**-25 (float64: 2**-53)."""
    if dtype != float64:
        return times(plus(cast(shifted(bits(shape, place), 9), float32), 0.5), 2.0**-23)
    return plus(times(uniforms(shape, dtype, place), 1 - 2.0**-52), 2.0**-53)


# -- parameters

def result_shape(name: str, shape: Shape, *parameters: Any) -> tuple[Size, ...]:
    """The shape asked for, or that to which the parameters broadcast. Raises ValueError where they don't broadcast to it."""
    for p in parameters:
        if not isinstance(p, NDArray) and not is_number(p):
            raise TypeError(f"random.{name}: expected numbers or arrays as parameters, got {type(p).__name__}: {p!r:.60}")
    shapes = [p.shape for p in parameters if isinstance(p, NDArray)]
    if shape is None:
        return broadcast_shapes(f"random.{name}", *shapes) if shapes else ()
    asked = as_shape(shape)
    if shapes:
        try:
            met = broadcast_shapes(f"random.{name}", asked, *shapes)
        except ValueError:
            met = None
        if met is None or len(met) != len(asked) or any(differ(a, b) for a, b in zip(met, asked)):
            listed = ", ".join(map(str, shapes))
            raise ValueError(f"random.{name}: shape: expected one to which the parameters' {listed} broadcast, got {asked}")
    return asked


def place_of(device: Place, ctx: Place, *parameters: Any) -> Device:
    """The device asked for, or that of the first array, or the current one."""
    if device is None and ctx is None:
        for p in parameters:
            if isinstance(p, NDArray):
                return p.device
        return current_device()
    return _device(ctx if device is None else device)


def expect(name: str, argument: str, value: Any, valid: Callable[[Any], Any], what: str) -> None:
    """Check a parameter's values, where they are known: not in a trace, nor on a GPU, for which the host would have to wait.
    Raises ValueError naming what was expected."""
    data = value._data if isinstance(value, NDArray) else value
    if isinstance(data, (int, float, np.generic, np.ndarray)):
        if not np.all(valid(data)):
            bad = data[~valid(data)][0] if isinstance(data, np.ndarray) and data.ndim else data
            raise ValueError(f"random.{name}: {argument}: expected {what}, got {bad}")
    elif not isinstance(value, NDArray) and not isinstance(value, Dim):
        raise TypeError(f"random.{name}: {argument}: expected a number or an array, got {type(value).__name__}: {value!r:.60}")


def parameter(value: Any, shape: tuple[Size, ...], dtype: np.dtype, place: Device) -> NDArray:
    """A parameter as an array of the given shape and dtype."""
    array = cast(value, dtype) if isinstance(value, NDArray) else literal(value, dtype, place)
    return apply(OPS["broadcast_to"], array, shape=shape)


def arrays(place: Device, *parameters: Any) -> list[Any]:
    """Parameters with lists and NumPy arrays as arrays on a device; numbers stay numbers."""
    from ..creation import asarray

    return [asarray(p, device=place) if isinstance(p, (list, tuple, np.ndarray)) else p for p in parameters]


def affine(z: NDArray, scale: Any, offset: Any, dtype: np.dtype) -> NDArray:
    """``z * scale + offset`` in `dtype`; computed in z's."""
    if not _is(scale, 1):
        z = z * (cast(scale, z.dtype) if isinstance(scale, NDArray) else scale)
    if not _is(offset, 0):
        z = z + (cast(offset, z.dtype) if isinstance(offset, NDArray) else offset)
    return cast(z, dtype)


def _is(value: Any, number: float) -> bool:
    return isinstance(value, (int, float)) and value == number
