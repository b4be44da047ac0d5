"""Layers that move pixels: shuffles, reflection padding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ndarray as nd
from hybrid.block import HybridBlock
from ndarray import NDArray

from .convolution import sizes

__all__ = ["PixelShuffle1D", "PixelShuffle2D", "PixelShuffle3D", "ReflectionPad2D"]


class _PixelShuffle(HybridBlock):
    """(N, C * product(factors), *spatial) to (N, C, *(size * factor)) (Shi et al., 2016)."""

    rank = 2

    def __init__(self, factor: int | Sequence[int], **kwargs: Any):
        super().__init__(**kwargs)
        self._factors = sizes(factor, self.rank, type(self).__name__, "factor")

    def forward(self, x: NDArray) -> NDArray:
        """Fewer channels, more positions."""
        if x.ndim != self.rank + 2:
            raise ValueError(f"{type(self).__name__}: expected an input of {self.rank + 2} axes, got shape {tuple(x.shape)}")
        return nd.pixel_shuffle(x, self._factors)

    def _extra_repr(self) -> str:
        return str(self._factors)


class PixelShuffle1D(_PixelShuffle):
    """(N, f * C, W) to (N, C, W * f)."""

    rank = 1


class PixelShuffle2D(_PixelShuffle):
    """(N, f1 * f2 * C, H, W) to (N, C, H * f1, W * f2)."""

    rank = 2


class PixelShuffle3D(_PixelShuffle):
    """(N, f1 * f2 * f3 * C, D, H, W) to (N, C, D * f1, H * f2, W * f3)."""

    rank = 3


class ReflectionPad2D(HybridBlock):
    """(N, C, H, W) with the image mirrored at its edges, without the edge itself, by `padding` pixels on each side."""

    def __init__(self, padding: int | Sequence[int] = 0, **kwargs: Any):
        super().__init__(**kwargs)
        # Gluon also takes (before, after) for each of the four axes, one behind the other
        given = (0, 0, 0, 0, *(padding,) * 4) if isinstance(padding, int) else tuple(padding)
        if len(given) != 8 or any(given[:4]) or any(p < 0 for p in given):
            raise ValueError(f"ReflectionPad2D: padding must be a number of at least 0, or 8 with 4 zeros first, got {padding}")
        self._padding = given

    def forward(self, x: NDArray) -> NDArray:
        """Shape (N, C, H + 2 * padding, W + 2 * padding)."""
        if x.ndim != 4:
            raise ValueError(f"ReflectionPad2D: expected an input (N, C, H, W), got shape {tuple(x.shape)}")
        return nd.pad(x, tuple(zip(self._padding[::2], self._padding[1::2])), mode="reflect")

    def _extra_repr(self) -> str:
        return str(self._padding)
