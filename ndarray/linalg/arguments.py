"""What the functions of `linalg` do with their arguments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..array import NDArray
from ..dtypes import float32
from ..operands import as_floating, convert

__all__ = ["in_lapack", "matrix", "square"]


def matrix(name: str, x: Any, argument: str = "x") -> NDArray:
    """An argument as floating matrices. Raises ValueError for fewer than 2 axes."""
    x = as_floating(name, x, argument)
    if x.ndim < 2:
        raise ValueError(f"{name}: {argument}: expected matrices in the last two axes, got shape {x.shape}")
    return x


def square(name: str, x: Any, argument: str = "x") -> NDArray:
    """An argument as floating square matrices. Raises ValueError for others."""
    x = matrix(name, x, argument)
    if x.shape[-1] != x.shape[-2]:
        raise ValueError(f"{name}: {argument}: expected square matrices in the last two axes, got shape {x.shape}")
    return x


def in_lapack(function: Callable[..., Any], *arrays: NDArray) -> Any:
    """``function(*arrays)`` in a dtype that LAPACK knows: half precision is computed in float32 and converted back."""
    dtype = arrays[0].dtype
    if dtype.itemsize >= 4:
        return function(*arrays)
    out = function(*(convert(a, float32) for a in arrays))
    narrow = lambda v: convert(v, dtype) if isinstance(v, NDArray) and v.dtype == np.float32 else v
    return narrow(out) if isinstance(out, NDArray) else tuple(narrow(v) for v in out)
