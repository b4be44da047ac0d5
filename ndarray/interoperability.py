"""What happens when NumPy's functions meet an `NDArray`: ``np.exp(x)`` is ``nd.exp(x)``, with its gradient.

NumPy asks ``__array_ufunc__`` and ``__array_function__``. A function that this package has too is called; others run on the
array's memory through NumPy (on a copy of it, for an array on another device than the CPU), unless the array is one whose
gradients are being recorded, for which they would be lost.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from .array import NDArray, wrap
from .autograd import is_recording
from .device import Device

__all__ = ["array_function", "array_ufunc"]

_UFUNCS = {"absolute": "abs", "true_divide": "divide", "invert": "bitwise_not", "conjugate": "conj"}
_REDUCTIONS = {"add": "sum", "multiply": "prod", "maximum": "max", "minimum": "min", "logical_and": "all", "logical_or": "any"}
_ACCUMULATIONS = {"add": "cumsum", "multiply": "cumprod"}
_OTHER_MEANING = frozenset((  # functions of this package that share no more than their name with NumPy's
    "resize", "save", "savez", "load", "shape", "sort_complex", "place", "copyto", "put", "array2string", "array_repr",
    "array_str", "common_type", "min_scalar_type", "result_type", "can_cast", "shares_memory", "may_share_memory", "iscomplexobj",
    "isrealobj",
))
_NOT_THE_ARGUMENTS = ("unexpected keyword argument", "positional argument", "multiple values for")
"""What Python says of a call whose arguments a function doesn't have."""


@cache
def _public(module: str, name: str) -> Callable | None:
    """This package's function for one of NumPy's, or None."""
    from . import fft, functions, inspection, linalg

    if name in _OTHER_MEANING:
        return None
    part = module.rpartition(".")[2]
    if part.lstrip("_") in ("linalg", "fft", "pocketfft"):
        return getattr(fft if "fft" in part else linalg, name, None)
    for where in (functions, inspection):
        if name in where.__all__ or name in ("ones_like", "zeros_like"):
            return getattr(where, name)
    from . import creation

    return getattr(creation, name) if name in creation.__all__ else None


def _raw(value: Any, name: str) -> Any:
    """A value, or one in nested tuples, lists and dicts, with the memory of NDArrays in their place."""
    if isinstance(value, NDArray):
        if value._node is not None and is_recording():
            raise TypeError(
                f"numpy.{name} has no equivalent here, and its result would have no gradient; take x.detach(), or record outside"
            )
        if value._device.kind == "cpu":
            return np.asarray(value)
        copied = value.asnumpy()
        copied.setflags(write=False)  # a function that writes it in place shall fail: nobody would see it
        return copied
    if isinstance(value, (tuple, list)):
        items = [_raw(v, name) for v in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    return {k: _raw(v, name) for k, v in value.items()} if isinstance(value, dict) else value


def _wrapped(value: Any, device: Device) -> Any:
    """What NumPy returned, arrays of supported dtypes as NDArrays."""
    from .dtypes import DTYPE_NAMES

    if isinstance(value, np.ndarray):
        if value.dtype.name not in DTYPE_NAMES:
            return value
        return wrap(value if device.kind == "cpu" else device.module.asarray(value), device)
    if isinstance(value, (tuple, list)):
        items = [_wrapped(v, device) for v in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    return value


def _through_numpy(function: Callable, name: str, device: Device, args: tuple, options: dict) -> Any:
    return _wrapped(function(*_raw(args, name), **_raw(options, name)), device)


def _store(result: Any, out: Any, where: Any = True) -> Any:
    """Write a result into the `out` that NumPy's caller gave, where the mask is true."""
    if isinstance(out, NDArray):
        out[...] = result if where is True else _call("where", where, result, out)
    else:
        np.copyto(out, np.asarray(result), casting="same_kind", where=np.asarray(where))
    return out


def array_ufunc(self: NDArray, ufunc: np.ufunc, method: str, *inputs: Any, out: Any = None, **options: Any) -> Any:
    """NumPy's protocol for ufuncs: ``ufunc(*inputs)``, or its `reduce`, `accumulate`, `outer`, `at` or `reduceat`."""
    where = options.pop("where", True) if method == "__call__" and out is not None else True  # elsewhere, out stays as it is
    result = _ufunc(self, ufunc, method, inputs, options)
    if out is None:
        return result
    if not isinstance(result, tuple):
        return _store(result, out[0], where)
    return tuple(r if o is None else _store(r, o, where) for r, o in zip(result, out))


def _ufunc(self: NDArray, ufunc: np.ufunc, method: str, inputs: tuple, options: dict) -> Any:
    name = ufunc.__name__
    dtype = options.pop("dtype", None)
    if method == "reduce" and name in _REDUCTIONS and not set(options) - {"axis", "keepdims"}:
        result = _call(_REDUCTIONS[name], inputs[0], axis=options.get("axis", 0), keepdims=bool(options.get("keepdims", False)))
    elif method == "accumulate" and name in _ACCUMULATIONS and not set(options) - {"axis"}:
        result = _call(_ACCUMULATIONS[name], inputs[0], options.get("axis", 0))
    elif method in ("__call__", "outer") and not options and _public("numpy", _UFUNCS.get(name, name)) is not None:
        if method == "outer":
            first, second = (v if isinstance(v, NDArray) else np.asarray(v) for v in inputs)
            inputs = (first.reshape((*first.shape, *(1,) * second.ndim)), second)
        result = _call(_UFUNCS.get(name, name), *inputs)
    else:
        if method == "at" and isinstance(inputs[0], NDArray):
            if inputs[0]._device.kind != "cpu":
                return _at(ufunc, *inputs)
            inputs[0]._touch()
        extra = {} if dtype is None else {"dtype": dtype}
        return _through_numpy(getattr(ufunc, method), name, self._device, inputs, {**options, **extra})
    return result if dtype is None or isinstance(result, tuple) else result.astype(dtype, copy=False)


def _at(ufunc: np.ufunc, x: NDArray, *rest: Any) -> None:
    """``ufunc.at`` on a copy of an array of another device than the CPU, which is then written back."""
    values = x.asnumpy()
    ufunc.at(values, *_raw(rest, ufunc.__name__))
    x[...] = values


def _call(name: str, *args: Any, **options: Any) -> Any:
    function = _public("numpy", name)
    assert function is not None
    return function(*args, **options)


def array_function(self: NDArray, function: Callable, types: Any, args: tuple, options: dict) -> Any:
    """NumPy's protocol for its other functions."""
    name = function.__name__
    mine = _public(getattr(function, "__module__", "") or "", name)
    out = options.pop("out", None) if mine is not None else None
    if mine is not None:
        try:
            result = mine(*args, **options)
        except TypeError as error:
            if not any(words in str(error) for words in _NOT_THE_ARGUMENTS):
                raise
            result = _through_numpy(function, name, self._device, args, options)  # an option that only NumPy knows
        return result if out is None else _store(result, out)
    return _through_numpy(function, name, self._device, args, options)
