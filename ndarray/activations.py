"""Activation functions: elementwise, in x's dtype (integers become float32). Compositions of primitives, which the compiler
fuses, some of them one operation in a trace; `blocks.nn` has them as layers."""

from __future__ import annotations

import math
from typing import Any

from .apply import apply, is_tracing
from .array import NDArray
from .dtypes import default_float
from .elementwise import (
    abs,
    add,
    cast,
    divide,
    erf,
    expm1,
    greater,
    maximum,
    minimum,
    multiply,
    negative,
    tanh,
    where,
)
from .manipulation import reshape
from .op import OPS
from .operands import as_array, as_floating, convert, primitive

__all__ = [
    "activation", "celu", "elu", "gelu", "hard_sigmoid", "hard_swish", "hard_tanh", "leaky_relu", "log_sigmoid", "mish", "prelu",
    "relu", "relu6", "rrelu", "selu", "sigmoid", "silu", "softplus", "softrelu", "softsign", "swish",
]


def relu(x: Any, /) -> NDArray:
    """``max(x, 0)``; the gradient at 0 is 0. Integers stay integers.

    >>> import ndarray as nd
    >>> nd.relu(nd.array([-1.0, 2.0])).tolist()
    [0.0, 2.0]
    """
    x = as_array("relu", "x", x)
    return primitive("relu", x if x.dtype.kind != "b" else convert(x, default_float))


def relu6(x: Any, /) -> NDArray:
    """``min(max(x, 0), 6)``.

    >>> import ndarray as nd
    >>> nd.relu6(nd.array([-1.0, 2.0, 7.0])).tolist()
    [0.0, 2.0, 6.0]
    """
    return minimum(relu(x), 6)


def sigmoid(x: Any, /) -> NDArray:
    """``1 / (1 + exp(-x))``.

    >>> import ndarray as nd
    >>> nd.sigmoid(nd.array([-200.0, 0.0])).tolist()
    [0.0, 0.5]
    """
    return primitive("sigmoid", as_floating("sigmoid", x))


def log_sigmoid(x: Any, /) -> NDArray:
    """``log(sigmoid(x))``, without overflow.

    >>> import ndarray as nd
    >>> nd.log_sigmoid(nd.array([-200.0])).tolist()
    [-200.0]
    """
    return negative(softplus(negative(as_floating("log_sigmoid", x))))


def softplus(x: Any, /) -> NDArray:
    """``log(1 + exp(x))``, without overflow. MXNet's name: softrelu.

    >>> import ndarray as nd
    >>> nd.softplus(nd.array([-200.0, 200.0])).tolist()
    [0.0, 200.0]
    """
    return apply(OPS["softplus"], as_floating("softplus", x))  # one operation: its formula has no derivative at 0


softrelu = softplus


def softsign(x: Any, /) -> NDArray:
    """``x / (1 + |x|)``.

    >>> import ndarray as nd
    >>> nd.softsign(nd.array([-1.0, 3.0])).tolist()
    [-0.5, 0.75]
    """
    x = as_floating("softsign", x)
    return divide(x, add(1, abs(x)))


def _is_one_operation(x: NDArray) -> bool:
    """Whether an activation is to be one operation of a trace (see `ops.activation`). Narrow floats are rounded after each of
    its steps, as they are eagerly."""
    return is_tracing() and x.dtype.itemsize >= 4


def gelu(x: Any, /, approximation: str = "none") -> NDArray:
    """``x * P(N <= x)`` for a standard normal N: with erf ("none", "erf"), or by the usual formula with "tanh"
    (Hendrycks and Gimpel, 2016). Raises ValueError for another `approximation`.

    >>> import ndarray as nd
    >>> nd.gelu(nd.array([0.0, 100.0])).tolist()
    [0.0, 100.0]
    """
    x = as_floating("gelu", x)
    if approximation not in ("none", "erf", "tanh"):
        raise ValueError(f"gelu: approximation: expected 'none' or 'tanh', got {approximation!r}")
    if _is_one_operation(x):
        return apply(OPS["gelu_tanh" if approximation == "tanh" else "gelu"], x)
    half = multiply(0.5, x)
    if approximation != "tanh":
        return add(half, multiply(half, erf(multiply(x, 1 / math.sqrt(2)))))
    inner = multiply(math.sqrt(2 / math.pi), multiply(x, add(1, multiply(0.044715, multiply(x, x)))))
    return add(half, multiply(half, tanh(inner)))


def silu(x: Any, /) -> NDArray:
    """``x * sigmoid(x)``.

    >>> import ndarray as nd
    >>> nd.silu(nd.array([0.0, 100.0])).tolist()
    [0.0, 100.0]
    """
    x = as_floating("silu", x)
    return apply(OPS["silu"], x) if _is_one_operation(x) else multiply(x, sigmoid(x))


def swish(x: Any, /, beta: float = 1.0) -> NDArray:
    """``x * sigmoid(beta * x)`` (Ramachandran et al., 2017); `beta` is a number or an array.

    >>> import ndarray as nd
    >>> nd.swish(nd.array([0.0, 100.0]), beta=2.0).tolist()
    [0.0, 100.0]
    """
    x = as_floating("swish", x)
    return silu(x) if type(beta) is float and beta == 1.0 else multiply(x, sigmoid(multiply(beta, x)))


def mish(x: Any, /) -> NDArray:
    """``x * tanh(softplus(x))`` (Misra, 2019).

    >>> import ndarray as nd
    >>> nd.mish(nd.array([0.0, 100.0])).tolist()
    [0.0, 100.0]
    """
    x = as_floating("mish", x)
    return apply(OPS["mish"], x) if _is_one_operation(x) else multiply(x, tanh(softplus(x)))


_KINDS = ("leaky", "prelu", "rrelu", "elu", "selu", "gelu")


def leaky_relu(
    x: Any, gamma: Any = None, /, slope: Any = 0.25, act_type: str = "leaky", lower_bound: float = 0.125,
    upper_bound: float = 0.334,
) -> NDArray:
    """x where it is positive, else ``slope * x``; the slope is a number or an array.

    As in MXNet, `act_type` chooses a relative instead: "prelu" (with slopes `gamma`), "rrelu" (with the bounds), "elu"
    (with alpha = `slope`), "selu" or "gelu". Raises ValueError for another one.

    >>> import ndarray as nd
    >>> nd.leaky_relu(nd.array([-4.0, 2.0])).tolist()
    [-1.0, 2.0]
    """
    if act_type == "prelu":
        if gamma is None:
            raise ValueError("leaky_relu: gamma: expected the slopes for act_type='prelu', got None")
        return prelu(x, gamma)
    if act_type == "rrelu":
        return rrelu(x, lower_bound, upper_bound)
    if act_type != "leaky":
        if act_type not in _KINDS:
            raise ValueError(f"leaky_relu: act_type: expected one of {', '.join(_KINDS)}, got {act_type!r}")
        return elu(x, slope) if act_type == "elu" else selu(x) if act_type == "selu" else gelu(x)
    x = as_floating("leaky_relu", x)
    return where(greater(x, 0), x, multiply(slope, x))


def prelu(x: Any, gamma: Any, /) -> NDArray:
    """x where it is positive, else ``gamma * x`` (He et al., 2015); gamma has one slope for all, or one for each channel (axis
    1), or any shape that broadcasts to x's.

    >>> import ndarray as nd
    >>> nd.prelu(nd.array([[-4.0, -4.0]]), nd.array([0.25, 0.5])).tolist()
    [[-1.0, -2.0]]
    """
    x, gamma = as_floating("prelu", x), as_array("prelu", "gamma", gamma)
    if gamma.ndim == 1 and x.ndim > 2:
        gamma = reshape(gamma, (gamma.shape[0],) + (1,) * (x.ndim - 2))
    return where(greater(x, 0), x, multiply(gamma, x))


def rrelu(x: Any, /, lower_bound: float = 0.125, upper_bound: float = 0.334) -> NDArray:
    """x where it is positive, else ``slope * x`` with slopes uniform in the bounds while training, their mean otherwise
    (Xu et al., 2015). Raises ValueError unless ``lower_bound <= upper_bound``.

    >>> import ndarray as nd
    >>> nd.rrelu(nd.array([-4.0, 2.0]), 0.25, 0.75).tolist()
    [-2.0, 2.0]
    """
    from . import autograd, random

    if not lower_bound <= upper_bound:
        raise ValueError(f"rrelu: lower_bound and upper_bound: expected lower <= upper, got {lower_bound} and {upper_bound}")
    x = as_floating("rrelu", x)
    slope: Any = (lower_bound + upper_bound) / 2
    if autograd.is_training():
        wide = x.dtype if x.dtype.itemsize >= 4 else default_float
        slope = cast(random.uniform(lower_bound, upper_bound, x.shape, dtype=wide, device=x._device), x.dtype)
    return where(greater(x, 0), x, multiply(slope, x))


def elu(x: Any, /, alpha: float = 1.0) -> NDArray:
    """x where it is positive, else ``alpha * (exp(x) - 1)`` (Clevert et al., 2015).

    >>> import ndarray as nd
    >>> nd.elu(nd.array([-100.0, 2.0])).tolist()
    [-1.0, 2.0]
    """
    x = as_floating("elu", x)
    return where(greater(x, 0), x, multiply(alpha, expm1(minimum(x, 0.0))))


def celu(x: Any, /, alpha: float = 1.0) -> NDArray:
    """x where it is positive, else ``alpha * (exp(x / alpha) - 1)``: an `elu` with slope 1 on both sides of 0 (Barron, 2017).

    >>> import ndarray as nd
    >>> nd.celu(nd.array([-100.0, 2.0]), alpha=0.5).tolist()
    [-0.5, 2.0]
    """
    if alpha == 0:
        raise ValueError("celu: alpha: expected a number other than 0, got 0")
    x = as_floating("celu", x)
    return where(greater(x, 0), x, multiply(alpha, expm1(divide(minimum(x, 0.0), alpha))))


def selu(x: Any, /) -> NDArray:
    """The scaled `elu` that keeps mean 0 and variance 1 (Klambauer et al., 2017).

    >>> import ndarray as nd
    >>> round(nd.selu(nd.array([-100.0])).item(), 4)
    -1.7581
    """
    return multiply(1.0507009873554805, elu(x, 1.6732632423543772))


def hard_sigmoid(x: Any, /, alpha: float = 0.2, beta: float = 0.5) -> NDArray:
    """``alpha * x + beta``, limited to [0, 1].

    >>> import ndarray as nd
    >>> nd.hard_sigmoid(nd.array([-9.0, 0.0, 9.0])).tolist()
    [0.0, 0.5, 1.0]
    """
    return minimum(maximum(add(multiply(alpha, as_floating("hard_sigmoid", x)), beta), 0.0), 1.0)


def hard_swish(x: Any, /) -> NDArray:
    """``x * min(max(x + 3, 0), 6) / 6`` (Howard et al., 2019).

    >>> import ndarray as nd
    >>> nd.hard_swish(nd.array([-4.0, 0.0, 3.0])).tolist()
    [-0.0, 0.0, 3.0]
    """
    x = as_floating("hard_swish", x)
    return multiply(x, multiply(minimum(maximum(add(x, 3), 0), 6), 1 / 6))


def hard_tanh(x: Any, /, min_value: float = -1.0, max_value: float = 1.0) -> NDArray:
    """x limited to [min_value, max_value].

    >>> import ndarray as nd
    >>> nd.hard_tanh(nd.array([-4.0, 0.5, 3.0])).tolist()
    [-1.0, 0.5, 1.0]
    """
    if not min_value <= max_value:
        raise ValueError(f"hard_tanh: expected min_value <= max_value, got {min_value} and {max_value}")
    return minimum(maximum(as_floating("hard_tanh", x), min_value), max_value)


_ACTIVATIONS = {
    "relu": relu, "sigmoid": sigmoid, "tanh": tanh, "softrelu": softplus, "softplus": softplus, "softsign": softsign,
    "gelu": gelu, "silu": silu, "swish": swish, "mish": mish, "elu": elu, "celu": celu, "selu": selu, "log_sigmoid": log_sigmoid,
    "leaky": leaky_relu, "relu6": relu6, "hard_sigmoid": hard_sigmoid, "hard_swish": hard_swish, "hard_tanh": hard_tanh,
}


def activation(x: Any, /, act_type: str = "relu") -> NDArray:
    """The activation function called `act_type`. Raises ValueError, with the known ones, for another name.

    >>> import ndarray as nd
    >>> nd.activation(nd.array([-1.0, 2.0]), "relu").tolist()
    [0.0, 2.0]
    """
    if act_type not in _ACTIVATIONS:
        raise ValueError(f"activation: act_type: expected one of {', '.join(_ACTIVATIONS)}, got {act_type!r}")
    return _ACTIVATIONS[act_type](x)
