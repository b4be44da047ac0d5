"""Operators and methods of `NDArray`: names bound to the public functions of `ndarray.functions`.

Operators take the short cuts of `ndarray.fast`.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np

from . import apply as _apply
from .array import NDArray
from .fast import BINARY, binary

__all__ = ["bind"]

_functions: Any = None


def bind(functions: ModuleType) -> None:
    """Say which module has the public functions (it imports this package's arrays, so it comes later)."""
    global _functions
    _functions = functions


def _binary(function: str) -> tuple[Callable, Callable, Callable]:
    """The operator, its reflection and its in-place form."""

    def plain(self: Any, other: Any) -> Any:
        return _operate(function, self, other)

    def plain_reflected(self: Any, other: Any) -> Any:
        return _operate(function, other, self)

    short = binary(function, plain) if function in BINARY else None
    forward = short or plain
    reflected = short.reflected if short else plain_reflected  # type: ignore[attr-defined]

    def in_place(self: NDArray, other: Any) -> NDArray:
        value = forward(self, other)
        if value is NotImplemented:
            return value
        if value.shape != self.shape:
            raise ValueError(
                f"in-place {function}: the result has shape {value.shape}, the array {self.shape}; "
                f"write `x = x {function} y` with a new array instead"
            )
        if value.dtype != self.dtype:
            if not np.can_cast(value.dtype, self.dtype, "same_kind"):
                raise TypeError(
                    f"in-place {function}: the result is {value.dtype}, the array {self.dtype}; "
                    f"convert one with astype, or make a new array"
                )
            value = value.astype(self.dtype)
        _apply.write(self, value, ...)
        return self

    return forward, reflected, in_place


_OPERANDS = (NDArray, int, float, complex, np.generic, np.ndarray, list, tuple)


def _operate(function: str, x: Any, y: Any) -> NDArray:
    for v in (x, y):
        if not (isinstance(v, _OPERANDS) or hasattr(v, "__index__")):
            return NotImplemented
    return getattr(_functions, function)(x, y)


_OPERATORS = {
    "add": "add", "sub": "subtract", "mul": "multiply", "truediv": "divide", "floordiv": "floor_divide", "mod": "remainder",
    "pow": "power", "matmul": "matmul", "and": "bitwise_and", "or": "bitwise_or", "xor": "bitwise_xor",
    "lshift": "left_shift", "rshift": "right_shift",
}
_COMPARISONS = {
    "eq": "equal", "ne": "not_equal", "lt": "less", "le": "less_equal", "gt": "greater", "ge": "greater_equal",
}
_UNARY = {"neg": "negative", "pos": "positive", "abs": "abs", "invert": "bitwise_not"}


def _install(name: str, method: Callable) -> None:
    method.__name__, method.__qualname__ = name, f"NDArray.{name}"
    setattr(NDArray, name, method)


for _name, _function in _OPERATORS.items():
    for _prefix, _method in zip(("", "r", "i"), _binary(_function)):
        _install(f"__{_prefix}{_name}__", _method)
for _name, _function in _COMPARISONS.items():
    _install(f"__{_name}__", _binary(_function)[0])


def _delegate(name: str, function: str) -> None:
    def method(self: NDArray, *args: Any, **options: Any) -> Any:
        return getattr(_functions, function)(self, *args, **options)

    method.__doc__ = f"The same as ``ndarray.{function}(x, ...)``."
    _install(name, method)


for _name, _function in _UNARY.items():
    _delegate(f"__{_name}__", _function)
for _name in (
    "sum", "prod", "mean", "var", "std", "max", "min", "argmax", "argmin", "all", "any", "norm", "cumsum",
    "squeeze", "expand_dims", "swapaxes", "flip", "repeat", "tile", "broadcast_to", "broadcast_like", "split", "take",
    "dot", "matmul", "tensordot", "exp", "log", "sqrt", "square", "sin", "cos", "tanh", "abs", "sign", "floor", "ceil",
    "trunc", "round", "sigmoid", "relu", "softmax", "log_softmax", "clip", "one_hot", "pick", "sort", "argsort", "topk",
    "flatten", "ravel", "diag", "slice_axis", "nonzero", "reshape_like", "zeros_like", "ones_like", "pad",
    "cumprod", "ptp", "conj", "conjugate", "searchsorted", "diagonal", "trace", "moveaxis", "partition", "argpartition", "choose",
    "median", "quantile", "isnan", "isinf", "isfinite", "tan", "sinh", "cosh", "arcsin", "arccos", "arctan", "log2", "log10",
    "log1p", "expm1", "reciprocal", "power", "argwhere", "unique", "tril", "triu", "roll", "rot90", "outer", "inner",
):
    _delegate(_name, _name)


def _sizes(args: tuple) -> Any:
    return args[0] if len(args) == 1 and not hasattr(args[0], "__index__") else args


def _reshape(self: NDArray, *shape: Any, order: str = "C") -> NDArray:
    """The same elements with another shape; -1 once stands for the size that is left over."""
    if order != "C":
        raise ValueError(f"reshape: order must be 'C', got {order!r}")
    return _functions.reshape(self, _sizes(shape))


def _transpose(self: NDArray, *axes: Any) -> NDArray:
    """The array with its axes in another order (reversed without arguments)."""
    return _functions.transpose(self, None if axes in ((), (None,)) else _sizes(axes))


def _divmod(self: NDArray, other: Any) -> Any:
    """``(self // other, self % other)``."""
    return _functions.divmod(self, other)


def _reflected_divmod(self: NDArray, other: Any) -> Any:
    return _functions.divmod(other, self)


def _fill(self: NDArray, value: Any) -> None:
    """Write one value everywhere, in place."""
    self[...] = value


def _tobytes(self: NDArray) -> bytes:
    """The elements' bytes, in row-major order."""
    return self.asnumpy().tobytes()


def _contains(self: NDArray, value: Any) -> bool:
    return bool((self == value).any())


_install("reshape", _reshape)
_install("transpose", _transpose)
_install("__contains__", _contains)
_install("__divmod__", _divmod)
_install("__rdivmod__", _reflected_divmod)
_install("fill", _fill)
_install("tobytes", _tobytes)


def _transposed(self: NDArray) -> NDArray:
    """The array with its axes reversed."""
    return _functions.transpose(self)


def _matrix_transposed(self: NDArray) -> NDArray:
    """The array with its last two axes exchanged."""
    if self.ndim < 2:
        raise ValueError(f"mT: needs at least 2 axes, got shape {self.shape}; use .T or reshape first")
    return _functions.swapaxes(self, -1, -2)


def _real(self: NDArray) -> NDArray:
    """The real parts; the array itself where it is real."""
    return _functions.real(self)


def _imag(self: NDArray) -> NDArray:
    """The imaginary parts; zeros where the array is real."""
    return _functions.imag(self)


for _name, _getter in {"T": _transposed, "mT": _matrix_transposed, "real": _real, "imag": _imag}.items():
    setattr(NDArray, _name, property(_getter))
