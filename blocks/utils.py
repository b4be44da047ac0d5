"""Splitting batches over devices, and clipping gradients."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import ndarray as nd
from ndarray import NDArray, autograd
from ndarray.apply import is_tracing

__all__ = ["clip_global_norm", "split_and_load", "split_data"]


def split_data(data: NDArray, num_slice: int, batch_axis: int = 0, even_split: bool = True) -> list[NDArray]:
    """`data` in `num_slice` parts along `batch_axis`.

    Raises ValueError where the axis is shorter than that, or, with `even_split`, not divisible; without it, the parts
    differ by at most one.
    """
    size = data.shape[batch_axis]
    if size < num_slice:
        raise ValueError(f"split_data: {size} samples can't be split into {num_slice} parts; make the batch larger")
    if even_split and size % num_slice:
        raise ValueError(
            f"split_data: {size} samples (axis {batch_axis} of shape {tuple(data.shape)}) are no multiple of "
            f"{num_slice}; use another "
            "batch size, or even_split=False"
        )
    bounds = [size * i // num_slice for i in range(num_slice + 1)]
    before = (slice(None),) * (batch_axis % data.ndim)
    return [data[(*before, slice(a, b))] for a, b in pairwise(bounds)]


def split_and_load(
    data: Any,
    ctx_list: Sequence[Any] | None = None,
    batch_axis: int = 0,
    even_split: bool = True,
    *,
    device_list: Sequence[Any] | None = None,
) -> list[NDArray]:
    """`data` (an array or what `nd.array` takes) in one part per device, each on its device."""
    devices = list(device_list if device_list is not None else ctx_list or ())
    if not devices:
        raise ValueError("split_and_load: give the devices, for example [nd.cpu(0), nd.cpu(1)]")
    if not isinstance(data, NDArray):
        data = nd.array(data, device=devices[0])
    parts = [data] if len(devices) == 1 else split_data(data, len(devices), batch_axis, even_split)
    return [part.to_device(device) for part, device in zip(parts, devices)]


def clip_global_norm(arrays: Sequence[NDArray], max_norm: float, check_isfinite: bool = True) -> Any:
    """Scale arrays in place so that their common 2-norm is at most `max_norm`; returns the norm that they had.

    The norm is a float if `check_isfinite` (which warns of a norm that is no number), else an array of shape (1,).
    """
    if not arrays:
        raise ValueError("clip_global_norm: no arrays")
    with autograd.pause():
        device = arrays[0].device
        total = sum(
            (nd.sum(a * a).astype("float32").to_device(device) for a in arrays[1:]),
            nd.sum(arrays[0] * arrays[0]).astype("float32"),
        )
        norm = nd.sqrt(total)
        scale = nd.minimum(max_norm / (norm + 1e-8), 1.0)
        for a in arrays:
            a[...] = a * scale.astype(a.dtype).to_device(a.device)
        if check_isfinite and not is_tracing():
            value = float(norm)
            if not math.isfinite(value):
                warnings.warn(f"clip_global_norm: the norm is {value}; the arrays now hold no numbers", stacklevel=2)
            return value
        return nd.reshape(norm, (1,))
