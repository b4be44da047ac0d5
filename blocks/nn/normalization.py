"""Normalization layers."""

from __future__ import annotations

from typing import Any

import ndarray as nd
from hybrid.block import HybridBlock
from hybrid.parameter import Parameter
from ndarray import NDArray, autograd

__all__ = ["BatchNorm", "BatchNormReLU", "GroupNorm", "InstanceNorm", "LayerNorm", "RMSNorm"]


class BatchNorm(HybridBlock):
    """``(x - mean) / sqrt(variance + epsilon) * gamma + beta`` per channel (Ioffe and Szegedy, 2015).

    In training, mean and (biased) variance are those of the batch, and the running ones follow them:
    ``running = running * momentum + batch * (1 - momentum)``. In prediction, and with `use_global_stats`, the running
    ones are used. Without `scale`, gamma stays 1; without `center`, beta stays 0. `axis` is the channel's.
    """

    def __init__(
        self,
        axis: int = 1,
        momentum: float = 0.9,
        epsilon: float = 1e-5,
        center: bool = True,
        scale: bool = True,
        use_global_stats: bool = False,
        beta_initializer: Any = "zeros",
        gamma_initializer: Any = "ones",
        running_mean_initializer: Any = "zeros",
        running_variance_initializer: Any = "ones",
        in_channels: int = 0,
        dtype: Any = "float32",
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self._axis, self._momentum, self._epsilon = axis, momentum, epsilon
        self._center, self._scale, self._use_global_stats = center, scale, use_global_stats
        shape = (in_channels,)
        self.gamma = Parameter(
            "gamma", "write" if scale else "null", shape, dtype, init=gamma_initializer, differentiable=scale
        )
        self.beta = Parameter(
            "beta", "write" if center else "null", shape, dtype, init=beta_initializer, differentiable=center
        )
        self.running_mean = Parameter(
            "running_mean", "null", shape, dtype, init=running_mean_initializer, differentiable=False
        )
        self.running_var = Parameter(
            "running_var", "null", shape, dtype, init=running_variance_initializer, differentiable=False
        )

    def infer_shape(self, x: NDArray, *_: Any) -> None:
        """The number of channels from the input."""
        for parameter in self.params.values():
            parameter.shape = (int(x.shape[self._axis]),)

    def cast(self, dtype: Any) -> None:
        """Change the dtype; statistics of half-precision data stay in float32."""
        super().cast("float32" if str(dtype) in ("float16", "bfloat16") else dtype)

    def forward(self, x: NDArray) -> NDArray:
        """Of the input's shape."""
        device, axis = x.device, self._axis % x.ndim
        running_mean, running_var = self.running_mean.data(device), self.running_var.data(device)
        training = autograd.is_training() and not self._use_global_stats
        axes = tuple(i for i in range(x.ndim) if i != axis)
        shape = tuple(x.shape[i] if i == axis else 1 for i in range(x.ndim))
        values = x if x.dtype == running_mean.dtype else x.astype(running_mean.dtype)
        if training:
            mean = nd.mean(values, axis=axes)
            centered = values - nd.reshape(mean, shape)
            var = nd.mean(centered * centered, axis=axes)
            with autograd.pause(train_mode=True):
                momentum = self._momentum
                running_mean[...] = running_mean * momentum + nd.stop_gradient(mean) * (1 - momentum)
                running_var[...] = running_var * momentum + nd.stop_gradient(var) * (1 - momentum)
        else:
            # the values now: a later training batch may overwrite the statistics before backward
            mean, var = running_mean.copy(), running_var.copy()
            centered = values - nd.reshape(mean, shape)
        factor = 1.0 / nd.sqrt(var + self._epsilon)
        if self._scale:
            factor = factor * self.gamma.data(device)
        out = centered * nd.reshape(factor, shape)
        if self._center:
            out = out + nd.reshape(self.beta.data(device), shape)
        return out if out.dtype == x.dtype else out.astype(x.dtype)

    def _extra_repr(self) -> str:
        channels = (self.gamma.shape or (-1,))[0]
        return (
            f"axis={self._axis}, eps={self._epsilon}, momentum={self._momentum}, fix_gamma={not self._scale}, "
            f"use_global_stats={self._use_global_stats}, in_channels={channels if channels > 0 else None}"
        )


class BatchNormReLU(BatchNorm):
    """`BatchNorm`, and ``max(x, 0)`` of that; the compiler makes them one."""

    def forward(self, x: NDArray) -> NDArray:
        """Of the input's shape."""
        return nd.relu(super().forward(x))


class _Norm(HybridBlock):
    """What the normalizations without running statistics have in common: gamma and beta, one for each channel."""

    def __init__(
        self, axis: int, epsilon: float, center: bool, scale: bool, beta_initializer: Any, gamma_initializer: Any,
        in_channels: int, dtype: Any = "float32", **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self._axis, self._epsilon, self._center, self._scale = axis, epsilon, center, scale
        shape = (in_channels,)
        self.gamma = Parameter(
            "gamma", "write" if scale else "null", shape, dtype, init=gamma_initializer, differentiable=scale
        )
        self.beta = Parameter(
            "beta", "write" if center else "null", shape, dtype, init=beta_initializer, differentiable=center
        )

    def infer_shape(self, x: NDArray, *_: Any) -> None:
        """The number of channels from the input."""
        for parameter in self.params.values():
            parameter.shape = (int(x.shape[self._axis]),)

    def _factors(self, x: NDArray) -> tuple[NDArray | None, NDArray | None]:
        device = x.device
        return self.gamma.data(device) if self._scale else None, self.beta.data(device) if self._center else None

    def _extra_repr(self) -> str:
        channels = (self.gamma.shape or (-1,))[0]
        return f"axis={self._axis}, eps={self._epsilon}, in_channels={channels if channels > 0 else None}"


class LayerNorm(_Norm):
    """``(x - mean) / sqrt(variance + epsilon) * gamma + beta`` with the statistics along `axis` (Ba et al., 2016)."""

    def __init__(
        self,
        axis: int = -1,
        epsilon: float = 1e-5,
        center: bool = True,
        scale: bool = True,
        beta_initializer: Any = "zeros",
        gamma_initializer: Any = "ones",
        in_channels: int = 0,
        dtype: Any = "float32",
        **kwargs: Any,
    ):
        super().__init__(axis, epsilon, center, scale, beta_initializer, gamma_initializer, in_channels, dtype, **kwargs)

    def forward(self, x: NDArray) -> NDArray:
        """Of the input's shape."""
        return nd.layer_norm(x, *self._factors(x), axis=self._axis, eps=self._epsilon)


class RMSNorm(HybridBlock):
    """``x / sqrt(mean(x**2) + epsilon) * gamma`` along `axis` (Zhang and Sennrich, 2019)."""

    def __init__(
        self, axis: int = -1, epsilon: float = 1e-5, gamma_initializer: Any = "ones", in_channels: int = 0,
        dtype: Any = "float32", **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self._axis, self._epsilon = axis, epsilon
        self.gamma = Parameter("gamma", shape=(in_channels,), dtype=dtype, init=gamma_initializer)

    def infer_shape(self, x: NDArray, *_: Any) -> None:
        """The number of channels from the input."""
        self.gamma.shape = (int(x.shape[self._axis]),)

    def forward(self, x: NDArray) -> NDArray:
        """Of the input's shape."""
        return nd.rms_norm(x, self.gamma.data(x.device), axis=self._axis, eps=self._epsilon)

    def _extra_repr(self) -> str:
        channels = (self.gamma.shape or (-1,))[0]
        return f"axis={self._axis}, eps={self._epsilon}, in_channels={channels if channels > 0 else None}"


class GroupNorm(_Norm):
    """(N, C, ...) normalized over each of `num_groups` groups of channels (Wu and He, 2018)."""

    def __init__(
        self,
        num_groups: int = 1,
        epsilon: float = 1e-5,
        center: bool = True,
        scale: bool = True,
        beta_initializer: Any = "zeros",
        gamma_initializer: Any = "ones",
        in_channels: int = 0,
        dtype: Any = "float32",
        **kwargs: Any,
    ):
        super().__init__(1, epsilon, center, scale, beta_initializer, gamma_initializer, in_channels, dtype, **kwargs)
        self._num_groups = num_groups

    def forward(self, x: NDArray) -> NDArray:
        """Of the input's shape."""
        return nd.group_norm(x, *self._factors(x), num_groups=self._num_groups, eps=self._epsilon)


class InstanceNorm(_Norm):
    """Each channel of each sample normalized over its positions (Ulyanov et al., 2016). `axis` is the channel's."""

    def __init__(
        self,
        axis: int = 1,
        epsilon: float = 1e-5,
        center: bool = True,
        scale: bool = False,
        beta_initializer: Any = "zeros",
        gamma_initializer: Any = "ones",
        in_channels: int = 0,
        **kwargs: Any,
    ):
        super().__init__(axis, epsilon, center, scale, beta_initializer, gamma_initializer, in_channels, **kwargs)

    def forward(self, x: NDArray) -> NDArray:
        """Of the input's shape."""
        return nd.instance_norm(x, *self._factors(x), axis=self._axis, eps=self._epsilon)
