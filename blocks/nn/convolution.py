"""Convolution layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import ndarray as nd
from hybrid.block import HybridBlock
from hybrid.parameter import Parameter
from ndarray import NDArray

from .activations import activate, check_activation

__all__ = ["Conv1D", "Conv2D", "Conv3D", "Windowed", "check_layout", "sizes"]

_LAYOUTS = {1: "NCW", 2: "NCHW", 3: "NCDHW"}
_CHANNELS_LAST = {1: "NWC", 2: "NHWC", 3: "NDHWC"}


def check_layout(layer: str, layout: str | None, rank: int) -> str:
    """The layout, by default with the channels first. Raises ValueError for one that does not exist."""
    if layout not in (None, _LAYOUTS[rank], _CHANNELS_LAST[rank]):
        raise ValueError(f"{layer}: layout must be {_LAYOUTS[rank]!r} or {_CHANNELS_LAST[rank]!r}, got {layout!r}")
    return layout or _LAYOUTS[rank]


def sizes(value: int | Sequence[int], rank: int, layer: str, what: str) -> tuple[int, ...]:
    """One size per spatial axis, from a number or a sequence."""
    result = (value,) * rank if isinstance(value, int) else tuple(value)
    if len(result) != rank:
        raise ValueError(f"{layer}: {what} needs {rank} numbers, got {value}")
    return result


class Windowed(HybridBlock):
    """What convolutions and transposed ones have in common: kernels of a size, strides, padding, groups, weight and bias."""

    rank = 2

    def __init__(
        self,
        channels: int,
        kernel_size: Any,
        strides: Any = 1,
        padding: Any = 0,
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
        self._dilation = sizes(dilation, rank, layer, "dilation")
        self._act_type = check_activation(layer, activation)
        shape = self._weight_shape(in_channels)
        self.weight = Parameter("weight", shape=shape, dtype=dtype, init=weight_initializer)
        self.bias = Parameter("bias", shape=(channels,), dtype=dtype, init=bias_initializer) if use_bias else None

    def _pair(self, in_channels: int) -> tuple[int, int]:
        """The sizes of weight's first axis and of its axis of channels."""
        raise NotImplementedError

    def _weight_shape(self, in_channels: int) -> tuple[int, ...]:
        first, second = self._pair(in_channels)
        return (first, *self._kernel, second) if self._layout == _CHANNELS_LAST[self.rank] else (first, second, *self._kernel)

    def infer_shape(self, x: NDArray, *_: Any) -> None:
        """in_channels from the input."""
        if x.ndim != self.rank + 2:
            raise ValueError(f"{type(self).__name__}: expected an input of layout {self._layout}, got shape {tuple(x.shape)}")
        self.weight.shape = self._weight_shape(int(x.shape[self._layout.index("C")]))

    def _apply(self, function: Callable[..., NDArray], x: NDArray, **more: Any) -> NDArray:
        """`function` of x, weight and bias with the layer's sizes, then the activation."""
        device = x.device
        bias = None if self.bias is None else self.bias.data(device)
        out = function(x, self.weight.data(device), bias, stride=self._strides, padding=self._padding,
                       dilation=self._dilation, groups=self._groups, layout=self._layout, **more)
        return activate(out, self._act_type)


class _Conv(Windowed):
    """Cross-correlation with learned kernels, weight of shape (channels, in_channels / groups, *kernel_size).

    With a `layout` like "NHWC" the channels come last, in weight too: (channels, *kernel_size, in_channels / groups).
    """

    def _pair(self, in_channels: int) -> tuple[int, int]:
        return self._channels, in_channels // self._groups

    def forward(self, x: NDArray) -> NDArray:
        """Shape (N, channels, *spatial), or with the channels last."""
        return self._apply(nd.convolution, x)

    def _extra_repr(self) -> str:
        shape = self.weight.shape or ()
        inner = shape[self._layout.index("C")] if len(shape) > 1 else 0
        fan_in = inner * self._groups if inner > 0 else None
        text = f"{fan_in} -> {self._channels}, kernel_size={self._kernel}, stride={self._strides}"
        for name, value, usual in (("padding", self._padding, 0), ("dilation", self._dilation, 1)):
            text += f", {name}={value}" if value != (usual,) * self.rank else ""
        text += f", groups={self._groups}" if self._groups != 1 else ""
        text += ", bias=False" if self.bias is None else ""
        return text + (f", {self._act_type}" if self._act_type else "")


class Conv1D(_Conv):
    """1-D convolution: (N, C, W) to (N, channels, W')."""

    rank = 1


class Conv2D(_Conv):
    """2-D convolution: (N, C, H, W) to (N, channels, H', W')."""

    rank = 2


class Conv3D(_Conv):
    """3-D convolution: (N, C, D, H, W) to (N, channels, D', H', W')."""

    rank = 3
