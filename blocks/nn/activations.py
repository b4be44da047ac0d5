"""Activation functions as layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ndarray as nd
from hybrid.block import HybridBlock
from hybrid.initializer import Constant
from hybrid.parameter import Parameter
from ndarray import NDArray

__all__ = [
    "CELU", "ELU", "GELU", "SELU", "Activation", "LeakyReLU", "Mish", "PReLU", "RReLU", "ReLU6", "SiLU", "Swish", "activate",
]

_FUNCTIONS: dict[str, Callable[[NDArray], NDArray]] = {
    "relu": lambda x: nd.relu(x),
    "sigmoid": lambda x: nd.sigmoid(x),
    "tanh": lambda x: nd.tanh(x),
    "softrelu": lambda x: nd.softplus(x),
    "softsign": lambda x: x / (1.0 + nd.abs(x)),
    "log_sigmoid": lambda x: nd.log_sigmoid(x),
    "mish": lambda x: nd.mish(x),
    "relu6": lambda x: nd.relu6(x),
    "hard_sigmoid": lambda x: nd.hard_sigmoid(x),
    "hard_swish": lambda x: nd.hard_swish(x),
    "gelu": lambda x: nd.gelu(x),
    "silu": lambda x: nd.silu(x),
}


def activate(x: NDArray, name: str | None) -> NDArray:
    """The activation called `name` of `x`; `x` itself for None."""
    return x if name is None else _FUNCTIONS[name](x)


def check_activation(layer: str, name: str | None) -> str | None:
    """`name`, if it is None or known. Raises ValueError listing the known ones."""
    if name is not None and name not in _FUNCTIONS:
        raise ValueError(f"{layer}: no activation {name!r}; known: {', '.join(_FUNCTIONS)}")
    return name


class Activation(HybridBlock):
    """An activation function by name: relu, sigmoid, tanh, softrelu, softsign, log_sigmoid, mish, gelu, silu, relu6,
    hard_sigmoid, hard_swish."""

    def __init__(self, activation: str, **kwargs: Any):
        super().__init__(**kwargs)
        self._act_type = check_activation("Activation", activation)

    def forward(self, x: NDArray) -> NDArray:
        """Elementwise."""
        return activate(x, self._act_type)

    def _extra_repr(self) -> str:
        return str(self._act_type)


class LeakyReLU(HybridBlock):
    """``x`` where positive, ``alpha * x`` elsewhere."""

    def __init__(self, alpha: float, **kwargs: Any):
        if alpha < 0:
            raise ValueError(f"LeakyReLU: alpha must not be negative, got {alpha}")
        super().__init__(**kwargs)
        self._alpha = alpha

    def forward(self, x: NDArray) -> NDArray:
        """Elementwise."""
        return nd.where(x > 0, x, x * self._alpha)

    def _extra_repr(self) -> str:
        return str(self._alpha)


class PReLU(HybridBlock):
    """``x`` where positive, ``alpha * x`` elsewhere, with a learned alpha for each channel (axis 1), or one for all."""

    def __init__(self, alpha_initializer: Any = None, in_channels: int = 1, **kwargs: Any):
        super().__init__(**kwargs)
        self.alpha = Parameter("alpha", shape=(in_channels,), init=alpha_initializer or Constant(0.25))

    def forward(self, x: NDArray) -> NDArray:
        """Elementwise."""
        alpha = self.alpha.data(x.device)
        return nd.where(x > 0, x, nd.reshape(alpha, (-1,) + (1,) * (x.ndim - 2) if x.ndim > 1 else (-1,)) * x)


class ReLU6(HybridBlock):
    """``min(max(x, 0), 6)``."""

    def forward(self, x: NDArray) -> NDArray:
        """Elementwise."""
        return nd.minimum(nd.relu(x), 6.0)


class ELU(HybridBlock):
    """``x`` where positive, ``alpha * (exp(x) - 1)`` elsewhere."""

    def __init__(self, alpha: float = 1.0, **kwargs: Any):
        super().__init__(**kwargs)
        self._alpha = alpha

    def forward(self, x: NDArray) -> NDArray:
        """Elementwise."""
        return nd.where(x > 0, x, self._alpha * nd.expm1(nd.minimum(x, 0.0)))


class SELU(HybridBlock):
    """Scaled ELU (Klambauer et al., 2017), with the constants that keep mean 0 and variance 1."""

    def forward(self, x: NDArray) -> NDArray:
        """Elementwise."""
        return 1.0507009873554805 * nd.where(x > 0, x, 1.6732632423543772 * nd.expm1(nd.minimum(x, 0.0)))


class GELU(HybridBlock):
    """``x * Phi(x)``, exactly ("erf") or by tanh ("tanh")."""

    def __init__(self, approximation: str = "erf", **kwargs: Any):
        if approximation not in ("erf", "tanh"):
            raise ValueError(f"GELU: approximation must be 'erf' or 'tanh', got {approximation!r}")
        super().__init__(**kwargs)
        self._approximation = approximation

    def forward(self, x: NDArray) -> NDArray:
        """Elementwise."""
        if self._approximation == "erf":
            return nd.gelu(x)
        return 0.5 * x * (1.0 + nd.tanh(0.7978845608028654 * (x + 0.044715 * x * x * x)))


class Swish(HybridBlock):
    """``x * sigmoid(beta * x)``."""

    def __init__(self, beta: float = 1.0, **kwargs: Any):
        super().__init__(**kwargs)
        self._beta = beta

    def forward(self, x: NDArray) -> NDArray:
        """Elementwise."""
        return x * nd.sigmoid(x if self._beta == 1.0 else x * self._beta)


class SiLU(Swish):
    """``x * sigmoid(x)``."""

    def __init__(self, **kwargs: Any):
        super().__init__(1.0, **kwargs)


class Mish(HybridBlock):
    """``x * tanh(log(1 + exp(x)))`` (Misra, 2019)."""

    def forward(self, x: NDArray) -> NDArray:
        """Elementwise."""
        return nd.mish(x)


class CELU(HybridBlock):
    """``x`` where positive, ``alpha * (exp(x / alpha) - 1)`` elsewhere (Barron, 2017)."""

    def __init__(self, alpha: float = 1.0, **kwargs: Any):
        super().__init__(**kwargs)
        self._alpha = alpha

    def forward(self, x: NDArray) -> NDArray:
        """Elementwise."""
        return nd.celu(x, self._alpha)

    def _extra_repr(self) -> str:
        return str(self._alpha)


class RReLU(HybridBlock):
    """``x`` where positive, ``slope * x`` elsewhere; in training each slope is uniform in [lower, upper] (Xu et al., 2015)."""

    def __init__(self, lower: float = 0.125, upper: float = 0.334, **kwargs: Any):
        super().__init__(**kwargs)
        if not lower <= upper:
            raise ValueError(f"RReLU: lower must not be greater than upper, got {lower} and {upper}")
        self._lower, self._upper = lower, upper

    def forward(self, x: NDArray) -> NDArray:
        """Elementwise."""
        return nd.rrelu(x, self._lower, self._upper)

    def _extra_repr(self) -> str:
        return f"{self._lower}, {self._upper}"
