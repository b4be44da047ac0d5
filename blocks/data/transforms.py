"""Transforms of samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import ndarray as nd
from ndarray import NDArray

__all__ = ["Cast", "Compose", "Normalize", "ToTensor"]


def _numpy(x: Any) -> np.ndarray:
    return x.asnumpy() if isinstance(x, NDArray) else np.asarray(x)


class Compose:
    """Transforms one after another."""

    def __init__(self, transforms: Sequence[Callable]):
        self._transforms = list(transforms)

    def __call__(self, x: Any) -> Any:
        for transform in self._transforms:
            x = transform(x)
        return x


class Cast:
    """Another dtype."""

    def __init__(self, dtype: Any = "float32"):
        self._dtype = dtype

    def __call__(self, x: Any) -> NDArray:
        return (x if isinstance(x, NDArray) else nd.array(x)).astype(self._dtype)


class ToTensor:
    """An image of integers in [0, 255], shape ([N,] H, W, C), to float32 in [0, 1], shape ([N,] C, H, W)."""

    def __call__(self, x: Any) -> NDArray:
        image = _numpy(x)
        if image.ndim not in (3, 4):
            raise ValueError(f"ToTensor: expected shape (H, W, C) or (N, H, W, C), got {image.shape}")
        axes = (2, 0, 1) if image.ndim == 3 else (0, 3, 1, 2)
        return nd.array(np.ascontiguousarray(image.transpose(axes), dtype=np.float32) / np.float32(255))


class Normalize:
    """``(x - mean) / std`` per channel, for shape (C, H, W) or (N, C, H, W)."""

    def __init__(self, mean: Any = 0.0, std: Any = 1.0):
        self._mean, self._std = (np.asarray(v, dtype=np.float32).reshape(-1, 1, 1) for v in (mean, std))

    def __call__(self, x: Any) -> NDArray:
        return nd.array((_numpy(x).astype(np.float32) - self._mean) / self._std)
