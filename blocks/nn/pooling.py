"""Pooling layers: (N, C, *spatial) to (N, C, *fewer), or with the channels last."""

from __future__ import annotations

from typing import Any

import ndarray as nd
from hybrid.block import HybridBlock
from ndarray import NDArray

from .convolution import check_layout, sizes

__all__ = [
    "AdaptiveAvgPool1D",
    "AdaptiveAvgPool2D",
    "AdaptiveAvgPool3D",
    "AdaptiveMaxPool1D",
    "AdaptiveMaxPool2D",
    "AdaptiveMaxPool3D",
    "AvgPool1D",
    "AvgPool2D",
    "AvgPool3D",
    "GlobalAvgPool1D",
    "GlobalAvgPool2D",
    "GlobalAvgPool3D",
    "GlobalMaxPool1D",
    "GlobalMaxPool2D",
    "GlobalMaxPool3D",
    "MaxPool1D",
    "MaxPool2D",
    "MaxPool3D",
]


class _Pool(HybridBlock):
    """Windows of `pool_size`, `strides` apart (by default `pool_size`). With `ceil_mode` sizes are rounded up."""

    rank = 2

    def __init__(
        self,
        pool_size: Any = 2,
        strides: Any = None,
        padding: Any = 0,
        layout: str | None = None,
        ceil_mode: bool = False,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        layer = type(self).__name__
        self._layout = check_layout(layer, layout, self.rank)
        self._kernel = sizes(pool_size, self.rank, layer, "pool_size")
        self._strides = self._kernel if strides is None else sizes(strides, self.rank, layer, "strides")
        self._padding = sizes(padding, self.rank, layer, "padding")
        self._ceil_mode = ceil_mode

    def _windows(self) -> dict[str, Any]:
        convention = "full" if self._ceil_mode else "valid"
        return {"kernel": self._kernel, "stride": self._strides, "padding": self._padding, "layout": self._layout,
                "pooling_convention": convention}

    def _extra_repr(self) -> str:
        return f"size={self._kernel}, stride={self._strides}, padding={self._padding}, ceil_mode={self._ceil_mode}"


class _MaxPool(_Pool):
    """The maximum of each window."""

    def forward(self, x: NDArray) -> NDArray:
        """Pooled."""
        return nd.max_pool(x, **self._windows())


class _AvgPool(_Pool):
    """The mean of each window; padding counts as zeros unless `count_include_pad` is False."""

    def __init__(
        self,
        pool_size: Any = 2,
        strides: Any = None,
        padding: Any = 0,
        layout: str | None = None,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        **kwargs: Any,
    ):
        super().__init__(pool_size, strides, padding, layout, ceil_mode, **kwargs)
        self._count_include_pad = count_include_pad

    def forward(self, x: NDArray) -> NDArray:
        """Pooled."""
        return nd.avg_pool(x, count_include_pad=self._count_include_pad, **self._windows())


class MaxPool1D(_MaxPool):
    """The maximum of each window, over (N, C, W)."""

    rank = 1


class MaxPool2D(_MaxPool):
    """The maximum of each window, over (N, C, H, W)."""

    rank = 2


class MaxPool3D(_MaxPool):
    """The maximum of each window, over (N, C, D, H, W)."""

    rank = 3


class AvgPool1D(_AvgPool):
    """The mean of each window, over (N, C, W)."""

    rank = 1


class AvgPool2D(_AvgPool):
    """The mean of each window, over (N, C, H, W)."""

    rank = 2


class AvgPool3D(_AvgPool):
    """The mean of each window, over (N, C, D, H, W)."""

    rank = 3


class _Global(HybridBlock):
    rank = 2

    def __init__(self, layout: str | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        self._layout = check_layout(type(self).__name__, layout, self.rank)

    def _axes(self, x: NDArray) -> tuple[int, ...]:
        if x.ndim != self.rank + 2:
            raise ValueError(
                f"{type(self).__name__}: expected an input of {self.rank + 2} axes, got shape {tuple(x.shape)}"
            )
        return tuple(k for k, axis in enumerate(self._layout) if axis not in "NC")


class _GlobalMax(_Global):
    """The maximum over all positions."""

    def forward(self, x: NDArray) -> NDArray:
        """Shape (N, C, 1, ...)."""
        return nd.max(x, axis=self._axes(x), keepdims=True)


class _GlobalAvg(_Global):
    """The mean over all positions."""

    def forward(self, x: NDArray) -> NDArray:
        """Shape (N, C, 1, ...)."""
        return nd.mean(x, axis=self._axes(x), keepdims=True)


class GlobalMaxPool1D(_GlobalMax):
    """The maximum over all positions of (N, C, W)."""

    rank = 1


class GlobalMaxPool2D(_GlobalMax):
    """The maximum over all positions of (N, C, H, W)."""

    rank = 2


class GlobalMaxPool3D(_GlobalMax):
    """The maximum over all positions of (N, C, D, H, W)."""

    rank = 3


class GlobalAvgPool1D(_GlobalAvg):
    """The mean over all positions of (N, C, W)."""

    rank = 1


class GlobalAvgPool2D(_GlobalAvg):
    """The mean over all positions of (N, C, H, W)."""

    rank = 2


class GlobalAvgPool3D(_GlobalAvg):
    """The mean over all positions of (N, C, D, H, W)."""

    rank = 3


class _Adaptive(HybridBlock):
    rank = 2

    def __init__(self, output_size: Any = 1, layout: str | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        layer = type(self).__name__
        self._layout = check_layout(layer, layout, self.rank)
        self._output_size = sizes(output_size, self.rank, layer, "output_size")

    def _extra_repr(self) -> str:
        return f"output_size={self._output_size}"


class _AdaptiveAvg(_Adaptive):
    """The mean of windows that divide the positions into `output_size` parts each."""

    def forward(self, x: NDArray) -> NDArray:
        """Pooled."""
        return nd.adaptive_avg_pool(x, self._output_size, layout=self._layout)


class _AdaptiveMax(_Adaptive):
    """The maximum of windows that divide the positions into `output_size` parts each."""

    def forward(self, x: NDArray) -> NDArray:
        """Pooled."""
        return nd.adaptive_max_pool(x, self._output_size, layout=self._layout)


class AdaptiveAvgPool1D(_AdaptiveAvg):
    """The mean of equal parts, over (N, C, W)."""

    rank = 1


class AdaptiveAvgPool2D(_AdaptiveAvg):
    """The mean of equal parts, over (N, C, H, W)."""

    rank = 2


class AdaptiveAvgPool3D(_AdaptiveAvg):
    """The mean of equal parts, over (N, C, D, H, W)."""

    rank = 3


class AdaptiveMaxPool1D(_AdaptiveMax):
    """The maximum of equal parts, over (N, C, W)."""

    rank = 1


class AdaptiveMaxPool2D(_AdaptiveMax):
    """The maximum of equal parts, over (N, C, H, W)."""

    rank = 2


class AdaptiveMaxPool3D(_AdaptiveMax):
    """The maximum of equal parts, over (N, C, D, H, W)."""

    rank = 3
