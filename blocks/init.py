"""Initializers of weights. See `hybrid.initializer` for the base class and the registry."""

from __future__ import annotations

import math
from typing import Any

import ndarray as nd
from hybrid.initializer import Constant, Initializer, Normal, One, Uniform, Zero, create, register
from ndarray import NDArray

__all__ = ["Constant", "Initializer", "MSRAPrelu", "Normal", "One", "Uniform", "Xavier", "Zero", "create", "register"]


@register
class Xavier(Initializer):
    """Keeps the scale of activations and gradients through the layers (Glorot and Bengio, 2010).

    With ``scale = sqrt(magnitude / factor)`` where factor is the number of inputs ("in"), of outputs ("out") or their
    mean ("avg") of the weight: uniform in [-scale, scale), or normal ("gaussian") with that standard deviation.
    """

    def __init__(self, rnd_type: str = "uniform", factor_type: str = "avg", magnitude: float = 3):
        if rnd_type not in ("uniform", "gaussian"):
            raise ValueError(f"Xavier: rnd_type must be 'uniform' or 'gaussian', got {rnd_type!r}")
        if factor_type not in ("in", "out", "avg"):
            raise ValueError(f"Xavier: factor_type must be 'in', 'out' or 'avg', got {factor_type!r}")
        super().__init__(rnd_type=rnd_type, factor_type=factor_type, magnitude=magnitude)
        self.rnd_type, self.factor_type, self.magnitude = rnd_type, factor_type, float(magnitude)

    def _init_weight(self, name: str, array: NDArray) -> None:
        shape = tuple(map(int, array.shape))
        if len(shape) < 2:
            raise ValueError(
                f"Xavier: parameter {name!r} of shape {shape} needs at least 2 axes; give it another initializer"
            )
        area = math.prod(shape[2:])
        fan_in, fan_out = shape[1] * area, shape[0] * area
        factor = {"in": fan_in, "out": fan_out, "avg": (fan_in + fan_out) / 2}[self.factor_type]
        scale = math.sqrt(self.magnitude / factor)
        if self.rnd_type == "uniform":
            array[...] = nd.random.uniform(-scale, scale, shape, dtype=array.dtype, device=array.device)
        else:
            array[...] = nd.random.normal(0.0, scale, shape, dtype=array.dtype, device=array.device)


@register
class MSRAPrelu(Xavier):
    """Xavier for layers followed by (leaky) ReLU: normal, magnitude ``2 / (1 + slope^2)`` (He et al., 2015)."""

    def __init__(self, factor_type: str = "avg", slope: float = 0.25):
        super().__init__("gaussian", factor_type, 2.0 / (1 + slope**2))
        self._config: dict[str, Any] = {"factor_type": factor_type, "slope": slope}
