"""Rearranging arrays as Gluon's users know it: sizes taken from other arrays, depth and space, Khatri-Rao products."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .apply import apply
from .array import NDArray
from .creation import asarray, full
from .dims import Dim, product
from .dtypes import int64
from .elementwise import add, multiply
from .manipulation import concatenate, expand_dims, reshape, transpose
from .op import OPS
from .operands import as_array, common, convert, is_number, normalize_axes, normalize_axis

__all__ = [
    "arange_like", "depth_to_space", "khatri_rao", "pixel_shuffle", "shape_array", "size_array", "slice_like", "space_to_depth",
]


def arange_like(x: Any, /, start: float = 0.0, step: float = 1.0, repeat: int = 1, axis: int | None = None) -> NDArray:
    """``start, start + step, ...``, each `repeat` times, as many as x has elements (in x's shape), or, along one axis, as that
    has positions. In x's dtype if that is floating, else float32.

    >>> import ndarray as nd
    >>> nd.arange_like(nd.zeros((2, 3)), axis=1).tolist()
    [0.0, 1.0, 2.0]
    """
    x = as_array("arange_like", "x", x)
    if repeat < 1:
        raise ValueError(f"arange_like: repeat: expected at least 1, got {repeat}")
    dtype = x.dtype if x.dtype.kind == "f" else np.dtype(np.float32)
    count = product(x.shape) if axis is None else x.shape[normalize_axis("arange_like", axis, x.ndim)]
    with x._device:
        positions = apply(OPS["iota"], shape=(count,), axis=0, dtype=int64)
    if repeat != 1:
        positions = positions // repeat
    out = add(multiply(convert(positions, dtype), step), start)
    return reshape(out, x.shape) if axis is None else out


def slice_like(x: Any, like: Any, /, axes: Any = None) -> NDArray:
    """x with some axes (None: all) cut to the sizes that `like` has there. Raises ValueError for a size that is larger.

    >>> import ndarray as nd
    >>> nd.slice_like(nd.arange(6).reshape(2, 3), nd.zeros((1, 2))).tolist()
    [[0, 1]]
    """
    x, like = as_array("slice_like", "x", x), as_array("slice_like", "like", like)
    if axes is None or axes == ():
        if x.ndim != like.ndim:
            raise ValueError(f"slice_like: expected arrays of as many axes, or `axes`, got shapes {x.shape} and {like.shape}")
        axes = None
    found = normalize_axes("slice_like", axes, x.ndim, "axes")
    for a in found:
        if a >= like.ndim or like.shape[a] > x.shape[a]:
            raise ValueError(f"slice_like: axis {a}: expected at most x's size, got shapes {x.shape} and {like.shape}")
    return x[tuple(slice(0, like.shape[a]) if a in found else slice(None) for a in range(x.ndim))]


def shape_array(x: Any, /) -> NDArray:
    """x's shape as an int64 array.

    >>> import ndarray as nd
    >>> nd.shape_array(nd.zeros((2, 3))).tolist()
    [2, 3]
    """
    x = as_array("shape_array", "x", x)
    if any(isinstance(n, Dim) for n in x.shape):
        with x._device:
            size = lambda n: apply(OPS["dimension"], size=n, dtype=int64) if isinstance(n, Dim) else full((), n, dtype=int64)
            sizes = [size(n) for n in x.shape]
        return concatenate([expand_dims(s, 0) for s in sizes])
    return asarray(np.array(x.shape, np.int64), device=x._device)


def size_array(x: Any, /) -> NDArray:
    """The number of x's elements as an int64 array of shape (1,).

    >>> import ndarray as nd
    >>> nd.size_array(nd.zeros((2, 3))).tolist()
    [6]
    """
    x = as_array("size_array", "x", x)
    total = product(x.shape)
    if isinstance(total, Dim):
        with x._device:
            return expand_dims(apply(OPS["dimension"], size=total, dtype=int64), 0)
    return asarray(np.array([total], np.int64), device=x._device)


# -- depth and space

def _blocks(name: str, x: Any, block_size: Any) -> tuple[NDArray, int]:
    x = as_array(name, "x", x)
    if x.ndim != 4:
        raise ValueError(f"{name}: x: expected (N, C, H, W), got shape {x.shape}")
    if int(block_size) != block_size or block_size < 1:
        raise ValueError(f"{name}: block_size: expected an integer of at least 1, got {block_size}")
    return x, int(block_size)


def depth_to_space(x: Any, /, block_size: int) -> NDArray:
    """(N, C, H, W) as (N, C / b**2, H * b, W * b): ``out[n, c, h*b+i, w*b+j] = x[n, (i*b+j) * C/b**2 + c, h, w]``.

    >>> import ndarray as nd
    >>> nd.depth_to_space(nd.arange(4).reshape(1, 4, 1, 1), 2).tolist()
    [[[[0, 1], [2, 3]]]]
    """
    x, b = _blocks("depth_to_space", x, block_size)
    n, c, h, w = x.shape
    if c % (b * b) != 0:
        raise ValueError(f"depth_to_space: x: expected channels divisible by {b * b}, got shape {x.shape}")
    split = transpose(reshape(x, (n, b, b, c // (b * b), h, w)), (0, 3, 4, 1, 5, 2))
    return reshape(split, (n, c // (b * b), h * b, w * b))


def space_to_depth(x: Any, /, block_size: int) -> NDArray:
    """The inverse of `depth_to_space`: (N, C, H, W) as (N, C * b**2, H / b, W / b).

    >>> import ndarray as nd
    >>> nd.space_to_depth(nd.arange(4).reshape(1, 1, 2, 2), 2).tolist()
    [[[[0]], [[1]], [[2]], [[3]]]]
    """
    x, b = _blocks("space_to_depth", x, block_size)
    n, c, h, w = x.shape
    if h % b != 0 or w % b != 0:
        raise ValueError(f"space_to_depth: x: expected height and width divisible by {b}, got shape {x.shape}")
    split = transpose(reshape(x, (n, c, h // b, b, w // b, b)), (0, 3, 5, 1, 2, 4))
    return reshape(split, (n, c * b * b, h // b, w // b))


def pixel_shuffle(x: Any, /, factor: Any) -> NDArray:
    """(N, C * product(factors), *spatial) as (N, C, *(size * factor)): channels become places, over 1 to 3 spatial axes
    (Shi et al., 2016). `factor` is a number or one for each spatial axis.

    >>> import ndarray as nd
    >>> nd.pixel_shuffle(nd.array([[[1, 2], [3, 4]]]), 2).tolist()
    [[[1, 3, 2, 4]]]
    """
    x = as_array("pixel_shuffle", "x", x)
    rank = x.ndim - 2
    if rank not in (1, 2, 3):
        raise ValueError(f"pixel_shuffle: x: expected (N, C, *spatial) with 1 to 3 spatial axes, got shape {x.shape}")
    factors = (int(factor),) * rank if is_number(factor) else tuple(int(f) for f in factor)
    if len(factors) != rank or any(f < 1 for f in factors) or x.shape[1] % product(factors) != 0:
        raise ValueError(
            f"pixel_shuffle: factor: expected a number for each of {rank} axes whose product divides the channels, got {factor} "
            f"for shape {x.shape}"
        )
    split = reshape(x, (x.shape[0], x.shape[1] // product(factors), *factors, *x.shape[2:]))
    order = [0, 1] + [v for k in range(rank) for v in (2 + rank + k, 2 + k)]
    sizes = tuple(n * f for n, f in zip(x.shape[2:], factors))
    return reshape(transpose(split, order), (x.shape[0], split.shape[1], *sizes))


# -- products

def khatri_rao(*matrices: Any) -> NDArray:
    """The Khatri-Rao product: column k of the result is the Kronecker product of the matrices' columns k.

    Each matrix is (rows, K); the result (product of the rows, K). Raises ValueError where the K differ.

    >>> import ndarray as nd
    >>> nd.khatri_rao(nd.array([[1.0, 2.0]]), nd.array([[3.0, 4.0], [5.0, 6.0]])).tolist()
    [[3.0, 8.0], [5.0, 12.0]]
    """
    given: Sequence[Any] = matrices[0] if len(matrices) == 1 and isinstance(matrices[0], (tuple, list)) else matrices
    if not given:
        raise ValueError("khatri_rao: expected at least one matrix, got none")
    arrays = common("khatri_rao", *given, arguments=tuple(f"matrices[{k}]" for k in range(len(given))))
    if any(a.ndim != 2 or a.shape[1] != arrays[0].shape[1] for a in arrays):
        raise ValueError(f"khatri_rao: expected matrices with as many columns, got shapes {[a.shape for a in arrays]}")
    out = arrays[0]
    for a in arrays[1:]:
        shape = (out.shape[0] * a.shape[0], a.shape[1])
        out = reshape(multiply(expand_dims(out, 1), expand_dims(a, 0)), shape)
    return out
