"""Transposed convolution layers."""

from __future__ import annotations

from typing import Any

import ndarray as nd
from ndarray import NDArray

from .convolution import Windowed, sizes

__all__ = ["Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose"]


class _ConvTranspose(Windowed):
    """The gradient of a convolution as a layer, weight of shape (in_channels, channels / groups, *kernel_size).

    Each spatial size n becomes ``(n - 1) * stride - 2 * padding + dilation * (kernel - 1) + output_padding + 1``. With a `layout`
    like "NHWC" the channels come last, in weight too: (in_channels, *kernel_size, channels / groups).
    """

    def __init__(
        self,
        channels: int,
        kernel_size: Any,
        strides: Any = 1,
        padding: Any = 0,
        output_padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
        layout: str | None = None,
        in_channels: int = 0,
        activation: str | None = None,
        use_bias: bool = True,
        weight_initializer: Any = None,
        bias_initializer: Any = "zeros",
        dtype: Any = "float32",
        **kwargs: Any,
    ):
        super().__init__(channels, kernel_size, strides, padding, dilation, groups, layout, in_channels, activation, use_bias,
                         weight_initializer, bias_initializer, dtype, **kwargs)
        self._output_padding = sizes(output_padding, self.rank, type(self).__name__, "output_padding")

    def _pair(self, in_channels: int) -> tuple[int, int]:
        return in_channels, self._channels // self._groups

    def forward(self, x: NDArray) -> NDArray:
        """Shape (N, channels, *spatial), or with the channels last."""
        return self._apply(nd.deconvolution, x, output_padding=self._output_padding)

    def _extra_repr(self) -> str:
        shape = self.weight.shape or ()
        text = f"{shape[0] if shape and shape[0] > 0 else None} -> {self._channels}, kernel_size={self._kernel}"
        return text + f", stride={self._strides}" + ("" if self.bias is not None else ", bias=False")


class Conv1DTranspose(_ConvTranspose):
    """1-D transposed convolution: (N, C, W) to (N, channels, W')."""

    rank = 1


class Conv2DTranspose(_ConvTranspose):
    """2-D transposed convolution: (N, C, H, W) to (N, channels, H', W')."""

    rank = 2


class Conv3DTranspose(_ConvTranspose):
    """3-D transposed convolution: (N, C, D, H, W) to (N, channels, D', H', W')."""

    rank = 3
