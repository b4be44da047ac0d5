"""Optimizers: SGD, NAG, Adam, AdamW, LAMB. The base class and the registry are in `kvstore.optimizer`.

All weights of a device are updated by one compiled program; learning rate, decay and the other numbers are its inputs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import ndarray as nd
from kvstore import KVStore
from kvstore.optimizer import Optimizer, Updater, create, register
from ndarray import NDArray

from . import lr_scheduler
from .lr_scheduler import LRScheduler

__all__ = [
    "LAMB",
    "NAG",
    "SGD",
    "Adam",
    "AdamW",
    "LRScheduler",
    "Optimizer",
    "Updater",
    "create",
    "get_updater",
    "lr_scheduler",
    "register",
]


def _compile(function: Any) -> Any:
    from hybrid.hybridize import CompiledFunction

    return CompiledFunction(function)


def _traced_numbers(self: Optimizer, indices: Sequence[Any], members: list[Any], count: bool) -> list[dict[str, Any]]:
    """The numbers of an update inside a hybridized function: scalar inputs that are read anew at each call.

    The first one that is read counts the update, so that schedules and Adam's correction advance with the calls.
    """
    from hybrid.scalars import Together, scalar_input
    from hybrid.trace import current_tracer

    tracer = current_tracer()
    if tracer is not None:  # what decides the form of the update is baked in
        tracer.depend(f"{type(self).__name__}'s settings", self, lambda: (self.clip_gradient, *self.structure()))
    members, indices = list(members), list(indices)
    names = list(self.numbers(self.learning_rate, self.wd, 1))
    # numbers that depend on neither rate nor decay nor count are the same for all weights: one input each
    one, other = self.numbers(1.0, 2.0, 3), self.numbers(4.0, 5.0, 6)
    own = [name for name in names if one[name] != other[name]]
    order = [(0, name) for name in names] + [(group, name) for group in range(1, len(members)) for name in own]

    def read(first: bool) -> list[float]:
        if first and count:
            self.discount(indices)
            self.begin_update(indices)
        fresh = self._numbers(members)
        return [fresh[group][name] for group, name in order]

    made = {place: scalar_input(getter) for place, getter in zip(order, Together(read, len(order)).getters, strict=True)}
    return [{name: made.get((group, name), made[0, name]) for name in names} for group in range(len(members))]


Optimizer.compile = staticmethod(_compile)
KVStore.compile = staticmethod(_compile)
Optimizer._traced_numbers = _traced_numbers  # type: ignore[method-assign]


@register
class SGD(Optimizer):
    """Stochastic gradient descent with momentum.

    ``v = momentum * v - lr * (grad + wd * weight); weight += v``
    """

    def __init__(self, learning_rate: float = 0.1, momentum: float = 0.0, lazy_update: bool = False, **settings: Any):
        super().__init__(learning_rate=learning_rate, **settings)
        self.momentum = momentum
        self.lazy_update = lazy_update  # concerns row-sparse gradients only

    def create_state(self, index: Any, weight: NDArray) -> Any:
        """The velocity; None without momentum."""
        return nd.zeros(weight.shape, dtype=weight.dtype, device=weight.device) if self.momentum else None

    def numbers(self, lr: float, wd: float, count: int) -> dict[str, float]:
        """lr, wd, momentum."""
        return {"lr": lr, "wd": wd, "momentum": self.momentum}

    def structure(self) -> tuple:
        """Whether there is a velocity."""
        return (bool(self.momentum),)

    def rule(self, weight: NDArray, grad: NDArray, states: tuple, n: Mapping[str, Any]) -> tuple[NDArray, tuple]:
        """One step."""
        step = (grad + weight * n["wd"]) * n["lr"]
        if not states:
            return weight - step, ()
        velocity = states[0] * n["momentum"] - step
        return weight + velocity, (velocity,)


@register
class NAG(SGD):
    """SGD with Nesterov's momentum.

    ``g = grad + wd * weight; v = momentum * v - lr * g; weight += momentum * v - lr * g``
    """

    def __init__(self, learning_rate: float = 0.1, momentum: float = 0.9, **settings: Any):
        super().__init__(learning_rate=learning_rate, momentum=momentum, **settings)

    def rule(self, weight: NDArray, grad: NDArray, states: tuple, n: Mapping[str, Any]) -> tuple[NDArray, tuple]:
        """One step."""
        step = (grad + weight * n["wd"]) * n["lr"]
        if not states:
            return weight - step, ()
        velocity = states[0] * n["momentum"] - step
        return weight + velocity * n["momentum"] - step, (velocity,)


def _moments(grad: NDArray, states: tuple, n: Mapping[str, Any]) -> tuple[NDArray, NDArray]:
    """The new running means of the gradient and of its square."""
    return states[0] * n["beta1"] + grad * n["rest1"], states[1] * n["beta2"] + grad * grad * n["rest2"]


@register
class Adam(Optimizer):
    """Adam (Kingma and Ba, 2015), with the bias corrections in the learning rate.

    ``m = beta1 m + (1 - beta1) g; v = beta2 v + (1 - beta2) g^2``
    ``weight -= lr sqrt(1 - beta2^t) / (1 - beta1^t) * m / (sqrt(v) + epsilon)`` where ``g = grad + wd * weight``
    """

    def __init__(
        self,
        learning_rate: float = 0.001,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-8,
        lazy_update: bool = False,
        **settings: Any,
    ):
        super().__init__(learning_rate=learning_rate, **settings)
        self.beta1, self.beta2, self.epsilon = beta1, beta2, epsilon
        self.lazy_update = lazy_update  # concerns row-sparse gradients only

    def create_state(self, index: Any, weight: NDArray) -> Any:
        """The means of the gradient and of its square."""
        return tuple(nd.zeros(weight.shape, dtype=weight.dtype, device=weight.device) for _ in range(2))

    def numbers(self, lr: float, wd: float, count: int) -> dict[str, float]:
        """The corrected learning rate, wd, the betas and their complements, epsilon."""
        corrected = lr * math.sqrt(1 - self.beta2**count) / (1 - self.beta1**count)
        return {
            "lr": corrected,
            "wd": wd,
            "beta1": self.beta1,
            "rest1": 1 - self.beta1,
            "beta2": self.beta2,
            "rest2": 1 - self.beta2,
            "epsilon": self.epsilon,
        }

    def rule(self, weight: NDArray, grad: NDArray, states: tuple, n: Mapping[str, Any]) -> tuple[NDArray, tuple]:
        """One step."""
        grad = grad + weight * n["wd"]
        mean, square = _moments(grad, states, n)
        return weight - mean * n["lr"] / (nd.sqrt(square) + n["epsilon"]), (mean, square)


@register
class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov and Hutter, 2019).

    ``weight -= lr sqrt(1 - beta2^t) / (1 - beta1^t) * (m / (sqrt(v) + epsilon) + wd * weight)``; m and v as in `Adam`, of the
    gradient alone. Without `correct_bias`, the fraction is 1.
    """

    def __init__(
        self,
        learning_rate: float = 0.001,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-6,
        correct_bias: bool = True,
        **settings: Any,
    ):
        super().__init__(learning_rate, beta1, beta2, epsilon, **settings)
        self.correct_bias = correct_bias

    def numbers(self, lr: float, wd: float, count: int) -> dict[str, float]:
        """As Adam's."""
        numbers = super().numbers(lr, wd, count)
        return numbers if self.correct_bias else {**numbers, "lr": lr}

    def rule(self, weight: NDArray, grad: NDArray, states: tuple, n: Mapping[str, Any]) -> tuple[NDArray, tuple]:
        """One step."""
        mean, square = _moments(grad, states, n)
        step = mean / (nd.sqrt(square) + n["epsilon"]) + weight * n["wd"]
        return weight - step * n["lr"], (mean, square)


@register
class LAMB(Optimizer):
    """Adam's step with decoupled decay, scaled for each weight to the weight's norm (You et al., 2020).

    ``u = m / (1 - beta1^t) / (sqrt(v / (1 - beta2^t)) + epsilon) + wd * weight``, ``weight -= lr * |weight| / |u| * u``

    The norm of the weight is clipped to `lower_bound` and `upper_bound`; the ratio is 1 where a norm is 0. Without
    `bias_correction`, m and v are taken as they are.
    """

    def __init__(
        self,
        learning_rate: float = 0.001,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-6,
        lower_bound: float | None = None,
        upper_bound: float | None = None,
        bias_correction: bool = True,
        **settings: Any,
    ):
        super().__init__(learning_rate=learning_rate, **settings)
        self.beta1, self.beta2, self.epsilon = beta1, beta2, epsilon
        self.lower_bound, self.upper_bound, self.bias_correction = lower_bound, upper_bound, bias_correction

    def create_state(self, index: Any, weight: NDArray) -> Any:
        """The means of the gradient and of its square, in float32 for narrow weights."""
        dtype = weight.dtype if weight.dtype.itemsize >= 4 else nd.float32
        return tuple(nd.zeros(weight.shape, dtype=dtype, device=weight.device) for _ in range(2))

    def numbers(self, lr: float, wd: float, count: int) -> dict[str, float]:
        """lr, wd, the betas, their complements and corrections, epsilon."""
        corrected = self.bias_correction
        return {
            "lr": lr,
            "wd": wd,
            "beta1": self.beta1,
            "rest1": 1 - self.beta1,
            "beta2": self.beta2,
            "rest2": 1 - self.beta2,
            "correction1": 1 / (1 - self.beta1**count) if corrected else 1.0,
            "correction2": 1 / (1 - self.beta2**count) if corrected else 1.0,
            "epsilon": self.epsilon,
        }

    def structure(self) -> tuple:
        """The bounds of the norm."""
        return (self.lower_bound, self.upper_bound)

    def rule(self, weight: NDArray, grad: NDArray, states: tuple, n: Mapping[str, Any]) -> tuple[NDArray, tuple]:
        """One step."""
        mean, square = _moments(grad, states, n)
        step = mean * n["correction1"] / (nd.sqrt(square * n["correction2"]) + n["epsilon"]) + weight * n["wd"]
        size, length = nd.sqrt(nd.sum(weight * weight)), nd.sqrt(nd.sum(step * step))
        if self.lower_bound is not None:
            size = nd.maximum(size, self.lower_bound)
        if self.upper_bound is not None:
            size = nd.minimum(size, self.upper_bound)
        usable = nd.logical_and(size > 0, length > 0)
        ratio = nd.where(usable, size / nd.where(usable, length, 1.0), 1.0)
        return (weight - step * (ratio * n["lr"])).astype(weight.dtype, copy=False), (mean, square)


def get_updater(optimizer: Optimizer) -> Updater:
    """An `Updater` for one device."""
    return Updater(optimizer)
