"""Functions of neural networks that are in no other file: dense layers, dropout, simple losses.

The others: `activations`, `probabilities`, `positions`, `convolutional`, `pools`, `normalization`, `spatial`, `sequences`,
`rearrangement`, `detection`. Plain compositions of primitives, which the compiler fuses. Layers with parameters are in `blocks`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .array import NDArray, literal
from .dims import product
from .elementwise import abs, add, less, multiply, stop_gradient, subtract, where
from .linear import contracted, operands_in
from .manipulation import reshape
from .operands import as_array, as_floating, common, normalize_axes, primitive
from .precision import in_target

__all__ = ["BlockGrad", "batch_flatten", "dropout", "fully_connected", "make_loss", "smooth_l1"]


def fully_connected(
    x: Any, weight: Any, bias: Any = None, /, num_hidden: int | None = None, no_bias: bool = False, flatten: bool = True,
    dtype: Any = None,
) -> NDArray:
    """``x @ weight.T + bias``. x: (N, ...), all axes but the first flattened into one if `flatten`, else the last is
    contracted; weight: (units, inputs); bias: (units,). `dtype`: of the product, as in `matmul` ("int32" for int8 and uint8).

    `num_hidden`, if given, must be the number of units. Raises ValueError for shapes that do not fit.

    >>> import ndarray as nd
    >>> nd.fully_connected(nd.array([[1.0, 2.0]]), nd.array([[3.0, 4.0]]), nd.array([5.0])).tolist()
    [[16.0]]
    """
    x, weight, bias = in_target("fully_connected", x, weight, bias)
    if dtype is None:
        x, weight = common("fully_connected", x, weight, arguments=("x", "weight"))
    else:
        x, weight = operands_in("fully_connected", x, weight, dtype, ("x", "weight"))
    if weight.ndim != 2:
        raise ValueError(f"fully_connected: weight: expected shape (units, inputs), got {weight.shape}")
    if num_hidden is not None and num_hidden != weight.shape[0]:
        raise ValueError(f"fully_connected: num_hidden: expected weight's {weight.shape[0]} units, got {num_hidden}")
    if flatten and x.ndim != 2:
        x = reshape(x, (x.shape[0], product(x.shape[1:])))
    if x.shape[-1] != weight.shape[1]:
        raise ValueError(
            f"fully_connected: weight: expected shape (units, {x.shape[-1]}) for x of shape {x.shape}, got {weight.shape}"
        )
    out = contracted(x, weight, ((x.ndim - 1,), (1,)), dtype=dtype)
    return out if bias is None or no_bias else add(out, bias)


def batch_flatten(x: Any, /) -> NDArray:
    """All axes but the first as one.

    >>> import ndarray as nd
    >>> nd.batch_flatten(nd.ones((2, 3, 4))).shape
    (2, 12)
    """
    x = as_array("batch_flatten", "x", x)
    return reshape(x, (x.shape[0], product(x.shape[1:])))


def dropout(x: Any, /, p: float = 0.5, axes: Sequence[int] = (), mode: str = "training") -> NDArray:
    """x with a random part `p` of the elements set to 0 and the rest divided by ``1 - p``, while training.

    Along `axes` all elements share one draw. `mode` "always" does so in prediction too. Raises ValueError unless 0 <= p <= 1
    and for another mode than "training" and "always".

    >>> import ndarray as nd
    >>> nd.dropout(nd.ones((3,)), 0.5).tolist()  # not training
    [1.0, 1.0, 1.0]
    """
    from . import autograd, random

    if not 0 <= p <= 1:
        raise ValueError(f"dropout: p: expected 0 to 1, got {p}")
    if mode not in ("training", "always"):
        raise ValueError(f"dropout: mode: expected 'training' or 'always', got {mode!r}")
    x = as_floating("dropout", x)
    if p == 0 or not (mode == "always" or autograd.is_training()):
        return x
    if p == 1:
        return multiply(x, 0)
    shared = normalize_axes("dropout", tuple(axes), x.ndim, "axes") if axes else ()
    shape = tuple(1 if k in shared else n for k, n in enumerate(x.shape))
    bits = random.bits(shape, device=x._device)
    threshold = int(p * 2.0**32)  # bits below it are dropped
    keep = primitive("greater_equal", bits, literal(threshold, bits.dtype, bits._device))
    return where(keep, multiply(x, 1.0 / (1.0 - p)), 0)


def smooth_l1(x: Any, /, scalar: float = 1.0) -> NDArray:
    """``(scalar*x)**2 / 2`` where ``|x| < 1/scalar**2``, else ``|x| - 0.5/scalar**2`` (Girshick, 2015).

    >>> import ndarray as nd
    >>> nd.smooth_l1(nd.array([0.5, -2.0])).tolist()
    [0.125, 1.5]
    """
    x = as_floating("smooth_l1", x)
    limit = 1.0 / scalar**2
    return where(less(abs(x), limit), multiply(0.5 * scalar**2, multiply(x, x)), subtract(abs(x), 0.5 * limit))


def make_loss(x: Any, /, grad_scale: float = 1.0) -> NDArray:
    """x, whose gradient is multiplied by `grad_scale`: MXNet's mark of a loss.

    >>> import ndarray as nd
    >>> nd.make_loss(nd.array([1.0, 2.0])).tolist()
    [1.0, 2.0]
    """
    x = as_array("make_loss", "x", x)
    if grad_scale == 1.0:
        return x
    scaled = multiply(x, grad_scale)
    return add(stop_gradient(x), subtract(scaled, stop_gradient(scaled)))


BlockGrad = stop_gradient
