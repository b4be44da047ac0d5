"""Attention: each query's mean of the values, weighted by how well the keys fit."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .apply import apply
from .array import NDArray
from .elementwise import add, greater_equal, multiply, where
from .linear import matmul
from .manipulation import reshape, swapaxes
from .neural import dropout, softmax
from .op import OPS
from .operands import as_array, common
from .ops.base import differ

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
    """
    name = "scaled_dot_product_attention"
    query, key, value = common(name, query, key, value, arguments=("query", "key", "value"))
    flat = min(query.ndim, key.ndim, value.ndim) < 2
    if flat or differ(query.shape[-1], key.shape[-1]) or differ(key.shape[-2], value.shape[-2]):
        raise ValueError(
            f"{name}: expected query (..., L, E), key (..., S, E) and value (..., S, V), got shapes {query.shape}, {key.shape} "
            f"and {value.shape}"
        )
    factor = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    scores = multiply(matmul(query, swapaxes(key, -1, -2)), factor)
    lowest = float(np.finfo(scores.dtype if scores.dtype.kind == "f" else np.float32).min)
    if causal:
        with query._device:
            rows = apply(OPS["iota"], shape=(query.shape[-2],), axis=0, dtype=np.dtype(np.int32))
            columns = apply(OPS["iota"], shape=(key.shape[-2],), axis=0, dtype=np.dtype(np.int32))
        scores = where(greater_equal(reshape(rows, (-1, 1)), columns), scores, lowest)
    if mask is not None:
        mask = as_array(name, "mask", mask)
        scores = where(mask, scores, lowest) if mask.dtype.kind == "b" else add(scores, mask)
    weights = softmax(scores, -1)
    if dropout_p:
        weights = dropout(weights, dropout_p)
    return matmul(weights, value)
