"""Attention: each query's mean of the values, weighted by how well the keys fit."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .apply import apply, is_tracing
from .array import NDArray
from .dtypes import is_floating
from .elementwise import add, greater_equal, multiply, where
from .linear import matmul
from .manipulation import broadcast_to, reshape, swapaxes
from .neural import dropout
from .op import OPS
from .operands import as_array, common, convert
from .ops.base import broadcast_shapes, differ
from .precision import in_target
from .probabilities import softmax

__all__ = ["scaled_dot_product_attention"]


def scaled_dot_product_attention(
    query: Any, key: Any, value: Any, /, mask: Any = None, causal: bool = False, scale: float | None = None,
    dropout_p: float = 0.0,
) -> NDArray:
    """``softmax(query @ key.T * scale) @ value`` over the last two axes (Vaswani et al., 2017).

    query: (..., L, E); key: (..., S, E); value: (..., S, V); result: (..., L, V). `scale` is ``1 / sqrt(E)`` if None.
    mask   broadcasts to (..., L, S): bool, true where a query may look; or floating, added to the scores
    causal query i looks at keys up to i only
    A query that may look nowhere gets the mean of all values. `dropout_p` drops weights in training.
    Raises ValueError where shapes do not fit.

    >>> nd.scaled_dot_product_attention(nd.ones((1, 2, 4)), nd.ones((1, 3, 4)), nd.ones((1, 3, 5))).shape
    (1, 2, 5)
    """
    name = "scaled_dot_product_attention"
    query, key, value = common(name, *in_target(name, query, key, value), arguments=("query", "key", "value"))
    flat = min(query.ndim, key.ndim, value.ndim) < 2
    if flat or differ(query.shape[-1], key.shape[-1]) or differ(key.shape[-2], value.shape[-2]):
        raise ValueError(
            f"{name}: expected query (..., L, E), key (..., S, E) and value (..., S, V), got shapes {query.shape}, {key.shape} "
            f"and {value.shape}"
        )
    from .autograd import is_training

    factor = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    mask = None if mask is None else as_array(name, "mask", mask)
    if mask is not None and mask.dtype.kind in "iuc":
        raise TypeError(f"{name}: mask: expected bool or floating (added to the scores), got {mask.dtype}; use astype('bool')")
    if not (dropout_p and is_training()) and _suits_tiles(query, key, value, mask):
        return _tiled(query, key, value, mask, float(factor), causal)
    scores = multiply(matmul(query, swapaxes(key, -1, -2)), factor)
    lowest = float(np.finfo(scores.dtype if scores.dtype.kind == "f" else np.float32).min)
    if causal:
        with query._device:
            rows = apply(OPS["iota"], shape=(query.shape[-2],), axis=0, dtype=np.dtype(np.int32))
            columns = apply(OPS["iota"], shape=(key.shape[-2],), axis=0, dtype=np.dtype(np.int32))
        scores = where(greater_equal(reshape(rows, (-1, 1)), columns), scores, lowest)
    if mask is not None:
        scores = where(mask, scores, lowest) if mask.dtype.kind == "b" else add(scores, mask)
    weights = softmax(scores, -1)
    if dropout_p:
        weights = dropout(weights, dropout_p)
    return matmul(weights, value)


def _suits_tiles(query: NDArray, key: NDArray, value: NDArray, mask: NDArray | None) -> bool:
    """Whether the compiler is to compute attention as one operation that never stores the scores. Eagerly, and where few
    queries leave nothing to be kept together, the formula is as good."""
    if not is_tracing() or not is_floating(query.dtype):
        return False
    if mask is not None and (mask.dtype not in (np.bool_, query.dtype) or mask.ndim > max(query.ndim, 3)):
        return False
    if any(type(n) is int and n == 0 for a in (query, key, value) for n in a.shape):
        return False
    return getattr(query.shape[-2], "hint", query.shape[-2]) >= 8


def _tiled(query: NDArray, key: NDArray, value: NDArray, mask: NDArray | None, scale: float, causal: bool) -> NDArray:
    batch = broadcast_shapes("scaled_dot_product_attention", query.shape[:-2], key.shape[:-2], value.shape[:-2])
    flat = not batch
    batch = batch or (1,)

    def behind_positions(x: NDArray) -> NDArray:
        """(..., heads, positions, E) as (..., positions, heads, E)."""
        return swapaxes(broadcast_to(x, (*batch, *x.shape[-2:])), -2, -3)

    dtype = query.dtype  # narrow floats are computed in float32
    wide = dtype if dtype.itemsize >= 4 else np.dtype(np.float32)
    arrays = [convert(behind_positions(x), wide) for x in (query, key, value)]
    if mask is None:
        out = apply(OPS["attention"], *arrays, scale=scale, causal=causal)[0]
    else:
        mask = mask if mask.dtype.kind == "b" else convert(mask, wide)
        out = apply(OPS["masked_attention"], *arrays, mask, scale=scale, causal=causal)[0]
    out = swapaxes(convert(out, dtype), -2, -3)
    return reshape(out, out.shape[1:]) if flat else out
