"""Operators and methods of `NDArray`: names bound to the public functions of `ndarray.functions`.

An operator takes a short cut where nothing records or traces, and both operands are plain arrays of one dtype and
device, or one is a Python number: it calls the ufunc straight away.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np

from . import apply as _apply
from .array import NDArray, _new, wrap

__all__ = ["bind"]

_ndarray, _asarray = np.ndarray, np.asarray
_top_get = _apply._top.get
_functions: Any = None


def bind(functions: ModuleType) -> None:
    """Say which module has the public functions (it imports this package's arrays, so it comes later)."""
    global _functions
    _functions = functions


_FLOATING = (RuntimeWarning, FloatingPointError)  # where warnings are errors; `Eager` knows what to do


def _binary(function: str, ufunc: Callable, kinds: str) -> tuple[Callable, Callable, Callable]:
    """The operator, its reflection and its in-place form. `kinds`: dtype kinds whose ufunc keeps our semantics."""

    def forward(self: NDArray, other: Any) -> NDArray:
        if _top_get() is None:
            a = self._data
            if type(a) is _ndarray and (dtype := a.dtype).kind in kinds:
                if type(other) is NDArray:
                    b = other._data
                    if type(b) is _ndarray and b.dtype is dtype and (device := self._device) is other._device:
                        try:
                            data = ufunc(a, b)
                        except _FLOATING:
                            return _operate(function, self, other)
                        out = _new(NDArray)
                        out._data = data if type(data) is _ndarray else _asarray(data)
                        out._device = device
                        out._node = out._storage = None
                        return out
                elif (type(other) is float and dtype.kind == "f") or type(other) is int:
                    try:
                        return wrap(ufunc(a, dtype.type(other)), self._device)
                    except _FLOATING:
                        return _operate(function, self, other)
        return _operate(function, self, other)

    def reflected(self: NDArray, other: Any) -> NDArray:
        return _operate(function, other, self)

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


def _operate(function: str, x: Any, y: Any) -> NDArray:
    for v in (x, y):
        if not (isinstance(v, (NDArray, int, float, complex, np.generic, np.ndarray)) or hasattr(v, "__index__")):
            return NotImplemented
    return getattr(_functions, function)(x, y)


_ALL, _INEXACT, _INTEGER = "iufc", "fc", "biu"
_OPERATORS = {
    "add": ("add", np.add, _ALL), "sub": ("subtract", np.subtract, _ALL), "mul": ("multiply", np.multiply, _ALL),
    "truediv": ("divide", np.divide, _INEXACT), "floordiv": ("floor_divide", np.floor_divide, "f"),
    "mod": ("remainder", np.remainder, "f"), "pow": ("power", np.power, "f"),
    "matmul": ("matmul", np.matmul, ""),
    "and": ("bitwise_and", np.bitwise_and, _INTEGER), "or": ("bitwise_or", np.bitwise_or, _INTEGER),
    "xor": ("bitwise_xor", np.bitwise_xor, _INTEGER), "lshift": ("left_shift", np.left_shift, ""),
    "rshift": ("right_shift", np.right_shift, ""),
}
_COMPARISONS = {
    "eq": ("equal", np.equal), "ne": ("not_equal", np.not_equal), "lt": ("less", np.less),
    "le": ("less_equal", np.less_equal), "gt": ("greater", np.greater), "ge": ("greater_equal", np.greater_equal),
}
_UNARY = {"neg": "negative", "pos": "positive", "abs": "abs", "invert": "bitwise_not"}


def _install(name: str, method: Callable) -> None:
    method.__name__, method.__qualname__ = name, f"NDArray.{name}"
    setattr(NDArray, name, method)


for _name, (_function, _ufunc, _kinds) in _OPERATORS.items():
    for _prefix, _method in zip(("", "r", "i"), _binary(_function, _ufunc, _kinds)):
        _install(f"__{_prefix}{_name}__", _method)
for _name, (_function, _ufunc) in _COMPARISONS.items():
    _install(f"__{_name}__", _binary(_function, _ufunc, _ALL)[0])


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


def _contains(self: NDArray, value: Any) -> bool:
    return bool((self == value).any())


_install("reshape", _reshape)
_install("transpose", _transpose)
_install("__contains__", _contains)


def _transposed(self: NDArray) -> NDArray:
    """The array with its axes reversed."""
    return _functions.transpose(self)


def _matrix_transposed(self: NDArray) -> NDArray:
    """The array with its last two axes exchanged."""
    if self.ndim < 2:
        raise ValueError(f"mT: needs at least 2 axes, got shape {self.shape}; use .T or reshape first")
    return _functions.swapaxes(self, -1, -2)


for _name, _getter in {"T": _transposed, "mT": _matrix_transposed}.items():
    setattr(NDArray, _name, property(_getter))
