"""What the op families share: shape rules that work with symbolic sizes, error texts, and random sample arrays."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from typing import Any, NoReturn

import numpy as np

from ..dims import Size
from ..dtypes import name_of
from ..op import ArrayType

__all__ = [
    "BOOL",
    "INT64",
    "broadcast_shapes",
    "differ",
    "expect_axes",
    "expect_axis",
    "expect_kind",
    "expect_same_dtype",
    "expect_same_shape",
    "fail",
    "in_single",
    "is_one",
    "kind_of",
    "quiet",
    "random_array",
    "real_dtype",
    "scipy_for",
]

BOOL = np.dtype(np.bool_)
INT64 = np.dtype(np.int64)
_KIND_NAMES = {"b": "bool", "i": "signed integer", "u": "unsigned integer", "f": "floating", "c": "complex"}


def fail(op: str, what: str, expected: str, actual: Any, error: type[Exception] = ValueError) -> NoReturn:
    """Raise an error that names op, argument, expectation and what came."""
    raise error(f"{op}: {what}: expected {expected}, got {actual}")


def is_one(size: Size) -> bool:
    """Whether a size is statically 1; a symbolic one never is."""
    return type(size) is int and size == 1


def differ(a: Size, b: Size) -> bool:
    """Whether two sizes differ; normal forms decide, or a guard is recorded."""
    return a is not b and a != b


def kind_of(dtype: np.dtype) -> str:
    """The dtype's kind, bfloat16 counting as floating."""
    return "f" if name_of(dtype) == "bfloat16" else dtype.kind


def expect_kind(op: str, argument: str, dtype: np.dtype, kinds: str) -> None:
    """Refuse a dtype whose kind is not one of `kinds`."""
    if kind_of(dtype) not in kinds:
        fail(op, f"dtype of {argument}", " or ".join(_KIND_NAMES[k] for k in kinds), dtype, TypeError)


def expect_same_dtype(op: str, names: Iterable[str], types: Iterable[ArrayType]) -> np.dtype:
    """The one dtype that all arguments have."""
    types = tuple(types)
    first = types[0].dtype
    for t in types[1:]:
        if t.dtype != first:
            listed = ", ".join(f"{n} {t.dtype}" for n, t in zip(names, types))
            fail(op, "dtypes of the arguments", "equal ones (convert with astype)", listed, TypeError)
    return first


def expect_same_shape(op: str, what: str, expected: tuple[Size, ...], actual: tuple[Size, ...]) -> None:
    """Refuse a shape that is not the expected one."""
    if len(expected) != len(actual) or any(differ(a, b) for a, b in zip(expected, actual)):
        fail(op, what, f"shape {expected}", actual)


def expect_axis(op: str, axis: Any, ndim: int) -> None:
    """Refuse an axis that is not a position in range(ndim)."""
    if type(axis) is not int or not 0 <= axis < ndim:
        fail(op, "axis", f"an int from 0 to {ndim - 1}", repr(axis))


def expect_axes(op: str, axes: Any, ndim: int) -> None:
    """Refuse axes that are not distinct positions in range(ndim)."""
    if not isinstance(axes, tuple) or len(set(axes)) != len(axes) or any(
        type(a) is not int or not 0 <= a < ndim for a in axes
    ):
        fail(op, "axes", f"distinct ints from 0 to {ndim - 1}", repr(axes))


def broadcast_shapes(op: str, *shapes: tuple[Size, ...]) -> tuple[Size, ...]:
    """The shape to which all broadcast, as in NumPy; a symbolic size is never taken as 1."""
    result: list[Size] = list(max(shapes, key=lambda s: len(tuple(s))))
    for shape in shapes:
        offset = len(result) - len(shape)
        for k, n in enumerate(shape):
            have = result[offset + k]
            if n is have or is_one(n):
                continue
            if is_one(have):
                result[offset + k] = n
            elif n != have:
                listed = " and ".join(map(str, shapes))
                fail(op, "shapes of the arguments", "equal sizes, or 1, along each axis (aligned at the last)", listed)
            elif type(n) is int:
                result[offset + k] = n
    return tuple(result)


def real_dtype(dtype: np.dtype) -> np.dtype:
    """The dtype of the real and imaginary parts of a complex dtype; any other dtype itself."""
    return np.dtype(f"float{dtype.itemsize * 4}") if dtype.kind == "c" else dtype


def scipy_for(xp: Any, part: str) -> Any:
    """SciPy's module `part` for arrays of another module than NumPy: that of ``cupyx.scipy``, or what stands for it."""
    return xp.scipy(part) if hasattr(xp, "scipy") else importlib.import_module(f"cupyx.scipy.{part}")


def quiet(function: Callable) -> Callable:
    """The function with NumPy's floating-point warnings off: log(0) is -inf here, as in compiled code."""

    def silent(*arrays: Any, **attrs: Any) -> Any:
        with np.errstate(all="ignore"):
            return function(*arrays, **attrs)

    return silent


def in_single(function: Callable) -> Callable:
    """The function with half-precision arrays computed in float32: NumPy multiplies and sums those slowly and badly."""

    def widened(xp: Any, *arrays: Any, **attrs: Any) -> Any:
        dtype = arrays[0].dtype
        if dtype.itemsize >= 4 or kind_of(dtype) != "f":
            return function(xp, *arrays, **attrs)
        return function(xp, *[a.astype(np.float32) for a in arrays], **attrs).astype(dtype)

    return widened


def random_array(seed: int, shape: tuple[int, ...], dtype: Any = np.float64, low: float = -2.0, high: float = 2.0) -> np.ndarray:
    """Uniform numbers in [low, high) (integers: rounded down; bool: fair coins), the same for the same arguments."""
    dtype = np.dtype(dtype)
    generator = np.random.default_rng(seed)
    if dtype == BOOL:
        return np.asarray(generator.random(shape) < 0.5)
    if dtype.kind == "u":
        low = max(low, 0.0)
    values = np.asarray(generator.random(shape)) * (high - low) + low
    return np.asarray(np.floor(values) if dtype.kind in "iu" else values).astype(dtype)
