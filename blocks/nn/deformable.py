"""Deformable convolution layers: a convolution that learns where to look."""

from __future__ import annotations

from typing import Any

import ndarray as nd
from hybrid.block import HybridBlock
from hybrid.parameter import Parameter
from ndarray import NDArray

from .activations import activate, check_activation
from .convolution import sizes

__all__ = ["DeformableConvolution", "ModulatedDeformableConvolution"]


class DeformableConvolution(HybridBlock):
    """Convolution of (N, C, H, W) whose positions are moved by offsets that another convolution of the input gives
    (Dai et al., 2017).

    weight: (channels, in_channels / groups, *kernel_size); offset_weight: (2 * kernel positions * num_deformable_group,
    in_channels, *kernel_size), zeros at first, so that it starts as a plain convolution.
    """

    per_tap = 2

    def __init__(
        self,
        channels: int,
        kernel_size: Any = (1, 1),
        strides: Any = (1, 1),
        padding: Any = (0, 0),
        dilation: Any = (1, 1),
        groups: int = 1,
        num_deformable_group: int = 1,
        layout: str = "NCHW",
        use_bias: bool = True,
        in_channels: int = 0,
        activation: str | None = None,
        weight_initializer: Any = None,
        bias_initializer: Any = "zeros",
        offset_weight_initializer: Any = "zeros",
        offset_bias_initializer: Any = "zeros",
        offset_use_bias: bool = True,
        dtype: Any = "float32",
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        layer = type(self).__name__
        if layout != "NCHW":
            raise ValueError(f"{layer}: layout must be 'NCHW', got {layout!r}")
        if channels < 1 or groups < 1 or channels % groups or in_channels % groups or in_channels % num_deformable_group:
            raise ValueError(
                f"{layer}: channels ({channels}) and in_channels ({in_channels}) must be multiples of groups ({groups}), "
                f"in_channels of num_deformable_group ({num_deformable_group})"
            )
        self._channels, self._groups, self._parts = channels, groups, num_deformable_group
        self._kernel = sizes(kernel_size, 2, layer, "kernel_size")
        self._strides = sizes(strides, 2, layer, "strides")
        self._padding = sizes(padding, 2, layer, "padding")
        self._dilation = sizes(dilation, 2, layer, "dilation")
        self._act_type = check_activation(layer, activation)
        self._moved = moved = self.per_tap * self._kernel[0] * self._kernel[1] * num_deformable_group
        self.offset_weight = Parameter(
            "offset_weight", shape=(moved, in_channels, *self._kernel), dtype=dtype, init=offset_weight_initializer
        )
        self.offset_bias = (
            Parameter("offset_bias", shape=(moved,), dtype=dtype, init=offset_bias_initializer) if offset_use_bias else None
        )
        self.weight = Parameter(
            "weight", shape=(channels, in_channels // groups, *self._kernel), dtype=dtype, init=weight_initializer
        )
        self.bias = Parameter("bias", shape=(channels,), dtype=dtype, init=bias_initializer) if use_bias else None

    def infer_shape(self, x: NDArray, *_: Any) -> None:
        """in_channels from the input."""
        if x.ndim != 4:
            raise ValueError(f"{type(self).__name__}: expected an input (N, C, H, W), got shape {tuple(x.shape)}")
        channels = int(x.shape[1])
        self.weight.shape = (self._channels, channels // self._groups, *self._kernel)
        self.offset_weight.shape = (self._moved, channels, *self._kernel)

    def forward(self, x: NDArray) -> NDArray:
        """Shape (N, channels, H', W')."""
        device = x.device
        steps = {"stride": self._strides, "padding": self._padding, "dilation": self._dilation}
        given = nd.convolution(
            x, self.offset_weight.data(device), None if self.offset_bias is None else self.offset_bias.data(device), **steps
        )
        offset, mask = self._split(given)
        out = nd.deformable_convolution(
            x, offset, self.weight.data(device), None if self.bias is None else self.bias.data(device), **steps,
            groups=self._groups, num_deformable_group=self._parts, mask=mask,
        )
        return activate(out, self._act_type)

    def _split(self, given: NDArray) -> tuple[NDArray, NDArray | None]:
        return given, None

    def _extra_repr(self) -> str:
        shape = self.weight.shape or ()
        fan_in = shape[1] * self._groups if len(shape) > 1 and shape[1] > 0 else None
        return f"{fan_in} -> {self._channels}, kernel_size={self._kernel}, stride={self._strides}, padding={self._padding}"


class ModulatedDeformableConvolution(DeformableConvolution):
    """`DeformableConvolution` that also learns how much each position counts: a factor in (0, 2), 1 at first
    (Zhu et al., 2019)."""

    per_tap = 3

    def _split(self, given: NDArray) -> tuple[NDArray, NDArray | None]:
        offsets = given.shape[1] // 3 * 2
        return given[:, :offsets], nd.sigmoid(given[:, offsets:]) * 2
