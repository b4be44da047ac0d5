"""The Array API's inspection functions: what a dtype can hold, how dtypes meet, and what this namespace offers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .array import NDArray
from .device import Device, cpu, current_device, gpu, num_gpus
from .dtypes import (
    bool_,
    canonical,
    complex64,
    complex128,
    default_float,
    default_int,
    finfo_of,
    float16,
    float32,
    float64,
    is_inexact,
    promote,
    scalar_dtype,
    uint8,
    uint16,
    uint32,
    uint64,
)
from .dtypes import int8 as _int8
from .dtypes import int16 as _int16
from .dtypes import int32 as _int32
from .dtypes import int64 as _int64
from .operands import is_number

__all__ = ["FloatInfo", "IntegerInfo", "can_cast", "finfo", "iinfo", "isdtype", "promote_types", "result_type"]

_SIGNED = (_int8, _int16, _int32, _int64)
_UNSIGNED = (uint8, uint16, uint32, uint64)
_KINDS: dict[str, tuple[np.dtype, ...]] = {
    "bool": (bool_,), "signed integer": _SIGNED, "unsigned integer": _UNSIGNED, "integral": _SIGNED + _UNSIGNED,
    "real floating": (float32, float64), "complex floating": (complex64, complex128),
    "numeric": _SIGNED + _UNSIGNED + (float32, float64, complex64, complex128),
}
_VERSIONS = ("2021.12", "2022.12", "2023.12", "2024.12", "2025.12")


def check_version(version: str | None) -> None:
    """Refuse a version of the standard that this namespace doesn't follow. Raises ValueError."""
    if version is not None and version not in _VERSIONS:
        raise ValueError(f"__array_namespace__: api_version: expected one of {', '.join(_VERSIONS)}, got {version!r}")


@dataclass(frozen=True)
class FloatInfo:
    """The limits of a floating dtype (for a complex one: of its parts): `bits`, `eps` (the distance from 1 to the next
    number), `max`, `min`, `smallest_normal`, `resolution`, `tiny` (= smallest_normal), `dtype`."""

    bits: int
    eps: float
    max: float
    min: float
    smallest_normal: float
    resolution: float
    dtype: np.dtype

    @property
    def tiny(self) -> float:
        """NumPy's name of `smallest_normal`."""
        return self.smallest_normal


@dataclass(frozen=True)
class IntegerInfo:
    """The limits of an integer dtype: `bits`, `max`, `min`, `dtype`."""

    bits: int
    max: int
    min: int
    dtype: np.dtype


def _dtype_of(value: Any) -> np.dtype:
    return value.dtype if isinstance(value, NDArray) else canonical(value)


def finfo(type: Any, /) -> FloatInfo:
    """The limits of a floating or complex dtype, given as such or by an array. Raises TypeError for other dtypes.

    >>> nd.finfo(nd.float32).eps
    1.1920928955078125e-07
    """
    dtype = _dtype_of(type)
    if not is_inexact(dtype):
        raise TypeError(f"finfo: type: expected a floating or complex dtype, got {dtype}; for integers use iinfo")
    real = np.dtype(f"float{dtype.itemsize * 4}") if dtype.kind == "c" else dtype
    info = finfo_of(real)
    return FloatInfo(int(info.bits), float(info.eps), float(info.max), float(info.min), float(info.smallest_normal),
                     float(info.resolution), real)


def iinfo(type: Any, /) -> IntegerInfo:
    """The limits of an integer dtype, given as such or by an array. Raises TypeError for other dtypes.

    >>> nd.iinfo("int8").max
    127
    """
    dtype = _dtype_of(type)
    if dtype.kind not in "iu":
        raise TypeError(f"iinfo: type: expected an integer dtype, got {dtype}; for floating ones use finfo")
    info = np.iinfo(dtype)
    return IntegerInfo(int(info.bits), int(info.max), int(info.min), dtype)


def isdtype(dtype: Any, kind: Any) -> bool:
    """Whether a dtype is of a kind: a dtype, "bool", "signed integer", "unsigned integer", "integral", "real floating",
    "complex floating" or "numeric", or a tuple of these (then: of one of them).

    Raises ValueError for another name of a kind.

    >>> nd.isdtype(nd.float32, ("real floating", "complex floating"))
    True
    """
    if isinstance(kind, tuple):
        return any(isdtype(dtype, k) for k in kind)
    dtype = canonical(dtype)
    if isinstance(kind, str) and kind in _KINDS:
        if kind in ("real floating", "numeric") and (dtype == float16 or dtype.name == "bfloat16"):
            return True
        return dtype in _KINDS[kind]
    if isinstance(kind, str):
        try:
            return dtype == canonical(kind)
        except TypeError:
            raise ValueError(f"isdtype: kind: expected a dtype or one of {', '.join(_KINDS)}, got {kind!r}") from None
    return dtype == canonical(kind)


def can_cast(from_: Any, to: Any, /, casting: str = "safe") -> bool:
    """Whether a dtype (or an array's) converts to another one without loss; `casting` as in NumPy.

    >>> nd.can_cast(nd.int32, nd.int64), nd.can_cast(nd.float64, nd.float32)
    (True, False)
    """
    return bool(np.can_cast(_dtype_of(from_), canonical(to), casting))  # type: ignore[arg-type]


def result_type(*arrays_and_dtypes: Any) -> np.dtype:
    """The dtype in which arrays, dtypes and numbers meet, as they do in arithmetic: numbers take the dtype beside them
    where its kind fits. Raises ValueError without an argument.

    >>> nd.result_type(nd.int8, nd.uint8), nd.result_type(nd.ones(2), 1)
    (dtype('int16'), dtype('float32'))
    """
    if not arrays_and_dtypes:
        raise ValueError("result_type: expected at least one array, dtype or number")
    numbers = [v for v in arrays_and_dtypes if is_number(v) and not isinstance(v, np.generic)]
    known = [v.dtype if isinstance(v, (NDArray, np.ndarray, np.generic)) else canonical(v)
             for v in arrays_and_dtypes if not (is_number(v) and not isinstance(v, np.generic))]
    dtype = promote(*known) if known else None
    for v in numbers:
        beside = scalar_dtype(v, dtype)
        dtype = beside if dtype is None else promote(dtype, beside)
    assert dtype is not None
    return dtype


def promote_types(type1: Any, type2: Any, /) -> np.dtype:
    """The dtype in which two dtypes meet.

    >>> nd.promote_types("float32", "int64")
    dtype('float32')
    """
    return promote(canonical(type1), canonical(type2))


class NamespaceInfo:
    """What this namespace offers: the Array API's inspection object."""

    __module__ = "ndarray"

    def capabilities(self) -> dict[str, Any]:
        """Optional parts of the standard: boolean indexing, data-dependent shapes, and the largest number of axes."""
        return {"boolean indexing": True, "data-dependent shapes": True, "max dimensions": 64 if np.__version__ >= "2" else 32}

    def default_device(self) -> Device:
        """The device on which arrays are made."""
        return current_device()

    def devices(self) -> list[Device]:
        """The devices that exist: ``cpu(0)``, and the GPUs."""
        return [cpu(0), *(gpu(k) for k in range(num_gpus()))]

    def default_dtypes(self, *, device: Any = None) -> dict[str, np.dtype]:
        """The dtypes of arrays made without one."""
        return {"real floating": default_float, "complex floating": complex64, "integral": default_int, "indexing": default_int}

    def dtypes(self, *, device: Any = None, kind: Any = None) -> dict[str, np.dtype]:
        """The dtypes of the standard by name, those of a kind (or of several, in a tuple) as in `isdtype`."""
        found = (bool_, *_KINDS["numeric"])
        return {d.name: d for d in found if kind is None or isdtype(d, kind)}


def array_namespace_info() -> NamespaceInfo:
    """The inspection object of the Array API.

    >>> nd.__array_namespace_info__().default_dtypes()["integral"]
    dtype('int64')
    """
    return NamespaceInfo()
