"""Dense, Embedding, Dropout, Flatten, Lambda, Identity."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import ndarray as nd
from hybrid.block import Block, HybridBlock
from hybrid.parameter import Parameter
from ndarray import NDArray
from ndarray.dims import product

from .activations import activate, check_activation

__all__ = ["Dense", "Dropout", "Embedding", "Flatten", "HybridLambda", "Identity", "Lambda"]


class Dense(HybridBlock):
    """``activation(x @ weight.T + bias)``, weight of shape (units, in_units).

    With `flatten`, all axes of `x` but the first are made one; otherwise the last axis is transformed. `in_units` is
    taken from the first input if not given.
    """

    def __init__(
        self,
        units: int,
        activation: str | None = None,
        use_bias: bool = True,
        flatten: bool = True,
        dtype: Any = "float32",
        weight_initializer: Any = None,
        bias_initializer: Any = "zeros",
        in_units: int = 0,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if units < 1:
            raise ValueError(f"Dense: units must be at least 1, got {units}")
        self._units, self._in_units, self._flatten = units, in_units, flatten
        self._act_type = check_activation("Dense", activation)
        self.weight = Parameter("weight", shape=(units, in_units), dtype=dtype, init=weight_initializer)
        self.bias = Parameter("bias", shape=(units,), dtype=dtype, init=bias_initializer) if use_bias else None

    @property
    def act(self) -> str | None:
        """The name of the activation."""
        return self._act_type

    def infer_shape(self, x: NDArray, *_: Any) -> None:
        """in_units from the input."""
        self.weight.shape = (self._units, int(product(x.shape[1:]) if self._flatten else x.shape[-1]))

    def forward(self, x: NDArray) -> NDArray:
        """Shape (N, units), or (..., units) without `flatten`."""
        device = x.device
        bias = None if self.bias is None else self.bias.data(device)
        return activate(nd.fully_connected(x, self.weight.data(device), bias, flatten=self._flatten), self._act_type)

    def _extra_repr(self) -> str:
        shape = self.weight.shape
        return f"{shape[1] if shape and shape[1] > 0 else None} -> {self._units}, {self._act_type or 'linear'}"


class Embedding(HybridBlock):
    """The rows of a learned table, weight of shape (input_dim, output_dim), at given numbers.

    Numbers may be of any shape and dtype (floats are rounded down); those beyond the ends mean the ends. Gradients are
    dense; `sparse_grad` is accepted for Gluon.
    """

    def __init__(
        self,
        input_dim: int,
        output_dim: int,
        dtype: Any = "float32",
        weight_initializer: Any = None,
        sparse_grad: bool = False,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self._input_dim, self._output_dim = input_dim, output_dim
        self.weight = Parameter("weight", shape=(input_dim, output_dim), dtype=dtype, init=weight_initializer)

    def forward(self, x: NDArray) -> NDArray:
        """Shape (*x.shape, output_dim)."""
        return nd.embedding(x, self.weight.data(x.device))

    def _extra_repr(self) -> str:
        return f"{self._input_dim} -> {self._output_dim}"


class Dropout(HybridBlock):
    """In training, sets each element to 0 with probability `rate` and multiplies the others by ``1 / (1 - rate)``.
    Along `axes`, all elements share their fate."""

    def __init__(self, rate: float, axes: Sequence[int] = (), **kwargs: Any):
        if not 0 <= rate < 1:
            raise ValueError(f"Dropout: rate must be in [0, 1), got {rate}")
        super().__init__(**kwargs)
        self._rate, self._axes = float(rate), tuple(axes)

    def forward(self, x: NDArray) -> NDArray:
        """Of the input's shape."""
        return nd.dropout(x, self._rate, axes=self._axes) if self._rate else x

    def _extra_repr(self) -> str:
        return f"p = {self._rate}, axes={self._axes}"


class Flatten(HybridBlock):
    """All axes but the first made one."""

    def forward(self, x: NDArray) -> NDArray:
        """Shape (N, product of the rest)."""
        return nd.reshape(x, (x.shape[0], product(x.shape[1:])))


class Identity(HybridBlock):
    """The input."""

    def forward(self, x: Any) -> Any:
        """The input."""
        return x


class Lambda(Block):
    """A function, or the function of `ndarray` that has the given name, as a Block."""

    def __init__(self, function: str | Callable, **kwargs: Any):
        super().__init__(**kwargs)
        self._func, self._func_name = _function(type(self).__name__, function)

    def forward(self, *args: Any) -> Any:
        """The function of the inputs."""
        return self._func(*args)

    def _extra_repr(self) -> str:
        return self._func_name


class HybridLambda(HybridBlock):
    """A function of arrays, or the function of `ndarray` that has the given name, as a HybridBlock.

    A function whose first parameter is called F gets the `ndarray` namespace there, as in Gluon 1.
    """

    def __init__(self, function: str | Callable, **kwargs: Any):
        super().__init__(**kwargs)
        self._func, self._func_name = _function(type(self).__name__, function)
        code = getattr(self._func, "__code__", None)
        self._takes_namespace = code is not None and code.co_varnames[:1] == ("F",)

    def forward(self, x: Any, *args: Any) -> Any:
        """The function of the inputs."""
        return self._func(nd, x, *args) if self._takes_namespace else self._func(x, *args)

    def _extra_repr(self) -> str:
        return self._func_name


def _function(layer: str, function: str | Callable) -> tuple[Callable, str]:
    if isinstance(function, str):
        found = getattr(nd, function, None)
        if not callable(found):
            raise ValueError(f"{layer}: ndarray has no function {function!r}")
        return found, function
    if not callable(function):
        raise TypeError(f"{layer}: expected a function or the name of one, got {type(function).__name__}")
    return function, getattr(function, "__name__", type(function).__name__)
