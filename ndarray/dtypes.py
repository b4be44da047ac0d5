"""Element types: their names, the defaults, and what two of them promote to.

Python floats become float32 and Python ints int64 where nothing else decides; a Python number beside an array takes
the array's dtype (it is *weak*). Two arrays promote as NumPy does, but for two rules that keep a network in the
precision that its author chose: an integer beside a floating dtype gives that floating dtype (NumPy: int32 with
float32 gives float64), and float16 with bfloat16 gives float32.

bfloat16 comes from ``ml_dtypes``, which is imported when it is first named.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

__all__ = [
    "DTYPE_NAMES", "bool_", "canonical", "complex64", "complex128", "default_float", "default_int", "float16",
    "float32", "float64", "int8", "int16", "int32", "int64", "is_floating", "is_inexact", "name_of", "promote", "scalar_dtype",
    "uint8", "uint16", "uint32", "uint64",
]

bool_ = np.dtype(np.bool_)
int8, int16, int32, int64 = (np.dtype(f"int{b}") for b in (8, 16, 32, 64))
uint8, uint16, uint32, uint64 = (np.dtype(f"uint{b}") for b in (8, 16, 32, 64))
float16, float32, float64 = (np.dtype(f"float{b}") for b in (16, 32, 64))
complex64, complex128 = np.dtype("complex64"), np.dtype("complex128")

default_float = float32
default_int = int64

_NATIVE: dict[Any, np.dtype] = {
    d.name: d for d in (bool_, int8, int16, int32, int64, uint8, uint16, uint32, uint64, float16, float32, float64,
                        complex64, complex128)
}
DTYPE_NAMES = (*_NATIVE, "bfloat16")
_known: dict[Any, np.dtype] = {**_NATIVE, **{d: d for d in _NATIVE.values()}, **{d.type: d for d in _NATIVE.values()}}


def __getattr__(name: str) -> np.dtype:
    if name == "bfloat16":
        return canonical("bfloat16")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def canonical(dtype: Any) -> np.dtype:
    """The NumPy dtype that a name, a NumPy or Python type, or a dtype means.

    Raises TypeError naming the supported ones for anything else.

    >>> nd.canonical('float')
    dtype('float64')
    """
    try:
        found = _known.get(dtype)
    except TypeError:
        found = None
    if found is not None:
        return found
    if isinstance(dtype, str) and dtype == "bfloat16":
        import ml_dtypes

        found = _known["bfloat16"] = _known[np.dtype(ml_dtypes.bfloat16)] = np.dtype(ml_dtypes.bfloat16)
        return found
    try:
        found = np.dtype(dtype)
    except TypeError:
        found = None
    if found is None or dtype is None or found.name not in DTYPE_NAMES:
        raise TypeError(f"dtype {dtype!r} is not supported; use one of {', '.join(DTYPE_NAMES)}")
    found = found.newbyteorder("=")
    return found


@cache
def name_of(dtype: np.dtype) -> str:
    """A dtype's name, which NumPy puts together anew each time it is asked (3 us).

    >>> nd.name_of(np.dtype('float32'))
    'float32'
    """
    return dtype.name


def is_floating(dtype: np.dtype) -> bool:
    """Whether a dtype is a real floating one (bfloat16 included).

    >>> nd.is_floating(np.dtype('float32'))
    True
    """
    return dtype.kind == "f" or name_of(dtype) == "bfloat16"


def finfo_of(dtype: np.dtype) -> Any:
    """NumPy's finfo of a floating or complex dtype, bfloat16 included."""
    if dtype.name == "bfloat16":
        import ml_dtypes

        return ml_dtypes.finfo(dtype)
    return np.finfo(dtype)


def is_inexact(dtype: np.dtype) -> bool:
    """Whether a dtype is floating or complex.

    >>> nd.is_inexact(np.dtype('int32'))
    False
    """
    return dtype.kind in "fc" or name_of(dtype) == "bfloat16"


def promote(*dtypes: np.dtype) -> np.dtype:
    """The dtype in which arrays of these dtypes meet. Raises TypeError where none holds them.

    >>> nd.promote(np.dtype('int32'), np.dtype('float32'))
    dtype('float32')
    """
    result = dtypes[0]
    for d in dtypes[1:]:
        if d is not result and d != result:
            result = _promote(result, d)
    return result


def _promote(a: np.dtype, b: np.dtype) -> np.dtype:
    float_a, float_b = is_inexact(a), is_inexact(b)
    if float_a != float_b:
        return a if float_a else b
    if float_a and (a.name == "bfloat16" or b.name == "bfloat16"):
        other = b if a.name == "bfloat16" else a
        return float32 if other == float16 else other
    return np.promote_types(a, b)


def scalar_dtype(value: Any, beside: np.dtype | None = None) -> np.dtype:
    """The dtype of a Python number: that of the array beside it where its kind fits, else the default of its kind.

    A float beside an integer array gives the default float, a complex one the complex of that precision.

    >>> nd.scalar_dtype(1.5)
    dtype('float32')
    """
    if isinstance(value, (np.generic, np.ndarray)):
        return canonical(value.dtype) if beside is None else promote(canonical(value.dtype), beside)
    if isinstance(value, (bool, np.bool_)):
        return beside if beside is not None else bool_
    if hasattr(value, "__index__"):  # ints, and symbolic sizes
        return beside if beside is not None and beside != bool_ else default_int
    if isinstance(value, complex):
        if beside is not None and beside.kind == "c":
            return beside
        return complex128 if beside is not None and beside == float64 else complex64
    if isinstance(value, float):
        return beside if beside is not None and is_inexact(beside) else default_float
    raise TypeError(f"expected a number, got {type(value).__name__}: {value!r}")
