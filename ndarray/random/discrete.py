"""Discrete distributions, and random choices and orders. `shape`, `size`, `dtype`, `device` and errors as in `continuous`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import elementwise as E
from ..apply import apply
from ..array import NDArray, literal
from ..device import device as _device
from ..dims import Size, product
from ..dtypes import canonical, default_float, float32, float64, int64, is_inexact, uint64
from ..manipulation import reshape, take_along_axis
from ..op import OPS
from ..operands import as_array, is_number
from ..ops.base import differ
from .continuous import gamma, gumbel
from .generator import (
    Place,
    Shape,
    arrays,
    as_shape,
    bits,
    cast,
    draw,
    expect,
    inside,
    parameter,
    part,
    place_of,
    result_shape,
    shifted,
    uniforms,
)

__all__ = [
    "bernoulli", "binomial", "categorical", "choice", "generalized_negative_binomial", "geometric", "multinomial",
    "negative_binomial", "permutation", "poisson", "randint", "shuffle",
]


def _probability(value: Any) -> Any:
    return (value >= 0) & (value <= 1)


def randint(
    low: Any, high: Any = None, shape: Shape = None, dtype: Any = None, device: Place = None, ctx: Place = None,
    *, size: Shape = None,
) -> NDArray:
    """Integers uniform in [low, high), or [0, low) without `high`; int64 unless told otherwise. Bounds may be integer arrays.

    The range may span up to 2**32 numbers (each has probability 1/range to within 2**-32).

    >>> import ndarray as nd
    >>> x = nd.random.randint(3, 6, shape=9)
    >>> bool(((x >= 3) & (x < 6)).all())
    True
    """
    if high is None:
        low, high = 0, low
    place = place_of(device, ctx, low, high)
    low, high = arrays(place, low, high)
    dtype = int64 if dtype is None else canonical(dtype)
    if isinstance(low, NDArray) or isinstance(high, NDArray):
        return _randint_between(low, high, size if shape is None else shape, dtype, place)
    for argument, value in (("low", low), ("high", high)):
        if not is_number(value):
            raise TypeError(f"random.randint: {argument}: expected an integer or an array, got {type(value).__name__}")
    low, high = int(low), int(high)
    if not 0 < high - low <= 1 << 32:
        raise ValueError(f"random.randint: needs low < high <= low + 2**32, got low={low}, high={high}")
    if dtype.kind not in "iu" or low < np.iinfo(dtype).min or high - 1 > np.iinfo(dtype).max:
        raise TypeError(f"random.randint: dtype {dtype} can't hold integers from {low} to {high - 1}")
    words = bits(as_shape(size if shape is None else shape), place)
    scaled = apply(OPS["multiply"], cast(words, uint64), literal(high - low, uint64, words.device))
    drawn = cast(shifted(scaled, 32), int64)
    if low:
        drawn = apply(OPS["add"], drawn, literal(low, int64, drawn.device))
    return cast(drawn, dtype)


def _randint_between(low: Any, high: Any, shape: Shape, dtype: np.dtype, place: Any) -> NDArray:
    for argument, value in (("low", low), ("high", high)):
        if isinstance(value, NDArray) and value.dtype.kind not in "iu":
            raise TypeError(f"random.randint: {argument}: expected integers, got dtype {value.dtype}")
    if dtype.kind not in "iu":
        raise TypeError(f"random.randint: dtype: expected an integer dtype, got {dtype}")
    asked = result_shape("randint", shape, low, high)
    first, last = (parameter(v, asked, int64, place) for v in (low, high))
    span = E.subtract(last, first)
    expect("randint", "low and high", span, lambda v: (v > 0) & (v <= 1 << 32), "low < high <= low + 2**32, high - low")
    scaled = E.multiply(cast(bits(asked, place), uint64), cast(span, uint64))
    return cast(E.add(cast(shifted(scaled, 32), int64), first), dtype)


def bernoulli(
    prob: Any = None, shape: Shape = None, dtype: Any = None, device: Place = None, ctx: Place = None,
    *, size: Shape = None, logit: Any = None,
) -> NDArray:
    """1 with probability `prob` (0.5 by default) or ``sigmoid(logit)``, else 0; float32 unless told otherwise.

    >>> import ndarray as nd
    >>> nd.random.bernoulli(nd.array([0.0, 1.0])).tolist()
    [0.0, 1.0]
    """
    if prob is not None and logit is not None:
        raise ValueError(f"random.bernoulli: expected prob or logit, got both: {prob!r:.40} and {logit!r:.40}")
    given = logit if logit is not None else 0.5 if prob is None else prob
    place = place_of(device, ctx, given)
    (given,) = arrays(place, given)
    if logit is None:
        expect("bernoulli", "prob", given, _probability, "a number in [0, 1]")
    asked = result_shape("bernoulli", size if shape is None else shape, given)
    u = uniforms(asked, float32, place)
    limit = cast(given, float32) if isinstance(given, NDArray) else literal(given, float32, place)
    if logit is not None:
        limit = apply(OPS["sigmoid"], limit)
    return cast(apply(OPS["less"], u, limit), default_float if dtype is None else canonical(dtype))


# -- counts

def _count(op: str, name: str, shape: Shape, dtype: Any, place: Any, default: np.dtype, *parameters: Any) -> NDArray:
    asked = result_shape(name, shape, *parameters)
    out = draw(op, place, 1, *(parameter(p, asked, float64, place) for p in parameters))
    return cast(out, default if dtype is None else canonical(dtype))


def poisson(
    lam: Any = 1.0, shape: Shape = None, dtype: Any = None, device: Place = None, ctx: Place = None, *, size: Shape = None
) -> NDArray:
    """How many events happen where `lam` are expected; float32 unless told otherwise.

    >>> import ndarray as nd
    >>> nd.random.poisson(0.0, shape=3).tolist()
    [0.0, 0.0, 0.0]
    """
    place = place_of(device, ctx, lam)
    (lam,) = arrays(place, lam)
    expect("poisson", "lam", lam, lambda v: (v >= 0) & (v < 9e18), "a number of at least 0 and below 9e18")
    return _count("random_poisson", "poisson", size if shape is None else shape, dtype, place, default_float, lam)


def binomial(
    n: Any, p: Any, shape: Shape = None, dtype: Any = None, device: Place = None, ctx: Place = None, *, size: Shape = None
) -> NDArray:
    """How many of `n` trials succeed, each with probability `p`; int64 unless told otherwise.

    >>> import ndarray as nd
    >>> nd.random.binomial(5, 1.0, shape=3).tolist()
    [5, 5, 5]
    """
    place = place_of(device, ctx, n, p)
    n, p = arrays(place, n, p)
    expect("binomial", "n", n, lambda v: v >= 0, "a number of at least 0")
    expect("binomial", "p", p, _probability, "a number in [0, 1]")
    return _count("random_binomial", "binomial", size if shape is None else shape, dtype, place, int64, n, p)


def negative_binomial(
    k: Any = 1, p: Any = 1.0, shape: Shape = None, dtype: Any = None, device: Place = None, ctx: Place = None,
    *, size: Shape = None,
) -> NDArray:
    """How many trials fail before `k` succeed, each with probability `p`: Poisson numbers whose means are gamma numbers. `k` need
    not be whole. float32 unless told otherwise.

    >>> import ndarray as nd
    >>> nd.random.negative_binomial(3, 1.0, shape=2).tolist()
    [0.0, 0.0]
    """
    place = place_of(device, ctx, k, p)
    k, p = arrays(place, k, p)
    expect("negative_binomial", "k", k, lambda v: v > 0, "a positive number")
    expect("negative_binomial", "p", p, lambda v: (v > 0) & (v <= 1), "a number in (0, 1]")
    asked = result_shape("negative_binomial", size if shape is None else shape, k, p)
    chance = parameter(p, asked, float64, place)
    mean = E.multiply(gamma(parameter(k, asked, float64, place), dtype=float64), E.divide(E.subtract(1, chance), chance))
    return _count("random_poisson", "negative_binomial", asked, dtype, place, default_float, E.stop_gradient(mean))


def generalized_negative_binomial(
    mu: Any = 1.0, alpha: Any = 1.0, shape: Shape = None, dtype: Any = None, device: Place = None, ctx: Place = None,
    *, size: Shape = None,
) -> NDArray:
    """Counts of mean `mu` and variance ``mu + alpha * mu**2``: Poisson numbers whose means are gamma numbers; Poisson's where
    alpha is 0. float32 unless told otherwise.

    >>> import ndarray as nd
    >>> nd.random.generalized_negative_binomial(0.0, 0.5, shape=2).tolist()
    [0.0, 0.0]
    """
    name = "generalized_negative_binomial"
    place = place_of(device, ctx, mu, alpha)
    mu, alpha = arrays(place, mu, alpha)
    expect(name, "mu", mu, lambda v: v >= 0, "a number of at least 0")
    expect(name, "alpha", alpha, lambda v: v >= 0, "a number of at least 0")
    asked = result_shape(name, size if shape is None else shape, mu, alpha)
    mean, spread = (parameter(v, asked, float64, place) for v in (mu, alpha))
    some = E.greater(spread, 0)
    safe = E.where(some, spread, 1)
    factor = E.multiply(gamma(E.divide(1, safe), dtype=float64), safe)
    mean = E.stop_gradient(E.where(some, E.multiply(mean, factor), mean))
    return _count("random_poisson", name, asked, dtype, place, default_float, mean)


def geometric(
    p: Any, shape: Shape = None, dtype: Any = None, device: Place = None, ctx: Place = None, *, size: Shape = None
) -> NDArray:
    """How many trials it takes until one succeeds, each with probability `p`: ``ceil(log(u) / log(1 - p))``; int64 unless told
    otherwise.

    >>> import ndarray as nd
    >>> nd.random.geometric(1.0, shape=2).tolist()
    [1, 1]
    """
    place = place_of(device, ctx, p)
    (p,) = arrays(place, p)
    expect("geometric", "p", p, lambda v: (v > 0) & (v <= 1), "a number in (0, 1]")
    asked = result_shape("geometric", size if shape is None else shape, p)
    u = inside(asked, float64, place)
    trials = E.ceil(E.divide(E.log(u), E.log1p(E.negative(parameter(p, asked, float64, place)))))
    return cast(E.minimum(E.maximum(trials, 1), 2.0**62), int64 if dtype is None else canonical(dtype))


# -- classes

def categorical(logits: Any, shape: Shape = None, dtype: Any = None, *, size: Shape = None) -> NDArray:
    """Indices along the last axis with probabilities ``softmax(logits)``, by Gumbel noise; `shape` draws are put in front.
    int64 unless told otherwise.

    >>> import ndarray as nd
    >>> nd.random.categorical(nd.array([[0.0, -1e9], [-1e9, 0.0]]), shape=2).tolist()
    [[0, 1], [0, 1]]
    """
    logits = as_array("random.categorical", "logits", logits)
    if not is_inexact(logits.dtype):
        logits = cast(logits, default_float)
    if logits.ndim < 1:
        raise ValueError("random.categorical: logits: expected at least one axis, got shape ()")
    shape = size if shape is None else shape
    extra = () if shape is None else as_shape(shape)
    noise = gumbel(shape=(*extra, *logits.shape), dtype=logits.dtype, device=logits.device)
    drawn = apply(OPS["argmax"], logits + noise, axis=len(extra) + logits.ndim - 1, keepdims=False)
    return drawn if dtype is None else drawn.astype(dtype, copy=False)


def multinomial(data: Any, shape: Shape = None, get_prob: bool = False, dtype: Any = "int32") -> Any:
    """Indices along the last axis with the probabilities in `data` (..., K), as MXNet's ``sample_multinomial``.

    `shape` draws are put last: (..., *shape). With `get_prob`, (indices, the logarithms of their probabilities), to which
    gradients flow (for REINFORCE). int32 unless told otherwise.

    >>> import ndarray as nd
    >>> nd.random.multinomial(nd.array([[0.0, 1.0], [1.0, 0.0]]), shape=3).tolist()
    [[1, 1, 1], [0, 0, 0]]
    """
    data = as_array("random.multinomial", "data", data)
    expect("multinomial", "data", data, lambda v: v >= 0, "probabilities of at least 0")
    logs = apply(OPS["log"], data)
    drawn = categorical(E.stop_gradient(logs), shape, dtype)
    extra = 0 if shape is None else len(as_shape(shape))
    if extra and data.ndim > 1:
        drawn = apply(OPS["transpose"], drawn, axes=(*range(extra, drawn.ndim), *range(extra)))
    if not get_prob:
        return drawn
    lead = data.shape[:-1]
    flat = reshape(cast(drawn, int64), (*lead, product(drawn.shape[len(lead) :])))
    return drawn, reshape(take_along_axis(logs, flat, -1), drawn.shape)


# -- orders

def permutation(x: Size | NDArray, device: Place = None, ctx: Place = None) -> NDArray:
    """The integers below `x` in random order, or the array `x` with its first axis in random order.

    >>> import ndarray as nd
    >>> sorted(nd.random.permutation(4).tolist())
    [0, 1, 2, 3]
    """
    if isinstance(x, NDArray):
        if x.ndim < 1:
            raise ValueError("random.permutation: x: expected at least one axis, got shape ()")
        return apply(OPS["take"], x, permutation(x.shape[0], x.device), axis=0, mode="clip")
    if isinstance(x, (list, tuple, np.ndarray)):
        return permutation(arrays(place_of(device, ctx), x)[0])
    place = _device(ctx if device is None else device)
    if type(x) is int and x < 0:
        raise ValueError(f"random.permutation: x: expected a number of at least 0, got {x}")
    words = bits((2, x), place)
    keys = [cast(part(words, k, (x,)), uint64) for k in range(2)]
    joined = E.bitwise_or(apply(OPS["left_shift"], keys[0], literal(32, uint64, place)), keys[1])
    return apply(OPS["argsort"], joined, axis=0, descending=False)


def shuffle(x: NDArray) -> NDArray:
    """Put the first axis of `x` in random order, in place; returns `x`.

    >>> import ndarray as nd
    >>> x = nd.arange(4)
    >>> sorted(nd.random.shuffle(x).tolist())
    [0, 1, 2, 3]
    """
    x[...] = permutation(x)
    return x


def choice(
    a: int | NDArray, size: Shape = None, replace: bool = True, p: NDArray | Sequence[float] | None = None,
    device: Place = None, ctx: Place = None,
) -> NDArray:
    """Elements of `a` along its first axis (or integers below it), with probabilities `p` if given.

    Without `replace` no element comes twice; with probabilities, each is drawn from those that are left, in proportion (the
    largest of logarithms with Gumbel noise: Efraimidis and Spirakis, 2006). Raises ValueError for more draws than elements (of
    positive probability), and for probabilities that are negative or do not add up to 1.

    >>> import ndarray as nd
    >>> sorted(nd.random.choice(4, 4, replace=False).tolist())
    [0, 1, 2, 3]
    """
    shape = as_shape(size)
    place = place_of(device, ctx, a)
    (a,) = arrays(place, a)
    n = a.shape[0] if isinstance(a, NDArray) else a
    if type(n) is int and n < 1 and product(shape) != 0:
        raise ValueError(f"random.choice: a: expected at least one element, got {n}")
    count = product(shape)
    if not replace and count > n:
        raise ValueError(f"random.choice: can't draw {count} of {n} without replacement")
    if p is not None:
        from ..creation import asarray

        weights = asarray(p, dtype=float32, device=place)
        if weights.ndim != 1 or differ(weights.shape[0], n):
            raise ValueError(f"random.choice: p has shape {weights.shape}, expected ({n},)")
        known = weights._data
        expect("choice", "p", weights, lambda v: v >= 0, "probabilities of at least 0")
        if isinstance(known, np.ndarray) and not abs(float(known.sum()) - 1) < 1e-3:
            raise ValueError(f"random.choice: p: expected probabilities that add up to 1, got a sum of {float(known.sum())}")
        logits = apply(OPS["log"], weights)
        if replace:
            index = categorical(logits, shape)
        else:
            if isinstance(known, np.ndarray) and np.count_nonzero(known) < count:
                found = np.count_nonzero(known)
                raise ValueError(f"random.choice: p: expected at least {count} positive probabilities, got {found}")
            keys = logits + gumbel(shape=(n,), device=place)
            index = reshape(apply(OPS["argsort"], keys, axis=0, descending=True)[:count], shape)
    elif replace:
        index = randint(0, n, shape, device=place)
    else:
        index = reshape(permutation(n, place)[:count], shape)
    return apply(OPS["take"], a, index, axis=0, mode="clip") if isinstance(a, NDArray) else index
