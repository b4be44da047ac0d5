"""Transposed convolution layers."""

from __future__ import annotations

from typing import Any

import ndarray as nd
from hybrid.block import HybridBlock
from hybrid.parameter import Parameter
from ndarray import NDArray

from .activations import activate, check_activation
from .convolution import _CHANNELS_LAST, check_layout, sizes

__all__ = ["Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose"]


class _ConvTranspose(HybridBlock):
    """The gradient of a convolution as a layer, weight of shape (in_channels, channels / groups, *kernel_size).

    Each spatial size n becomes ``(n - 1) * stride - 2 * padding + dilation * (kernel - 1) + output_padding + 1``. With a `layout`
    like "NHWC" the channels come last, in weight too: (in_channels, *kernel_size, channels / groups).
    """

    rank = 2

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
        super().__init__(**kwargs)
        layer, rank = type(self).__name__, self.rank
        self._layout = check_layout(layer, layout, rank)
        if channels < 1 or groups < 1 or channels % groups or in_channels % groups:
            raise ValueError(
                f"{layer}: channels ({channels}) and in_channels ({in_channels}) must be multiples of groups ({groups})"
            )
        self._channels, self._groups = channels, groups
        self._kernel = sizes(kernel_size, rank, layer, "kernel_size")
        self._strides = sizes(strides, rank, layer, "strides")
        self._padding = sizes(padding, rank, layer, "padding")
        self._output_padding = sizes(output_padding, rank, layer, "output_padding")
        self._dilation = sizes(dilation, rank, layer, "dilation")
        self._act_type = check_activation(layer, activation)
        shape = self._weight_shape(in_channels)
        self.weight = Parameter("weight", shape=shape, dtype=dtype, init=weight_initializer)
        self.bias = Parameter("bias", shape=(channels,), dtype=dtype, init=bias_initializer) if use_bias else None

    def _weight_shape(self, in_channels: int) -> tuple[int, ...]:
        outer = self._channels // self._groups
        last = self._layout == _CHANNELS_LAST[self.rank]
        return (in_channels, *self._kernel, outer) if last else (in_channels, outer, *self._kernel)

    def infer_shape(self, x: NDArray, *_: Any) -> None:
        """in_channels from the input."""
        if x.ndim != self.rank + 2:
            raise ValueError(f"{type(self).__name__}: expected an input of layout {self._layout}, got shape {tuple(x.shape)}")
        self.weight.shape = self._weight_shape(int(x.shape[self._layout.index("C")]))

    def forward(self, x: NDArray) -> NDArray:
        """Shape (N, channels, *spatial), or with the channels last."""
        device = x.device
        out = nd.deconvolution(
            x,
            self.weight.data(device),
            None if self.bias is None else self.bias.data(device),
            stride=self._strides,
            padding=self._padding,
            dilation=self._dilation,
            groups=self._groups,
            output_padding=self._output_padding,
            layout=self._layout,
        )
        return activate(out, self._act_type)

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
