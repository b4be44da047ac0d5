"""Folds along axes: sum, product, extrema, tests, and positions of extrema. The result has x's dtype."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from .. import functions as F
from ..dims import Size
from ..op import NONDIFF, ArrayType, Op, Reduction, Sample, Vjp, register
from ..scalar import Scalar, operate, where
from .base import BOOL, INT64, expect_axes, expect_axis, expect_kind, fail, in_single, random_array

__all__: list[str] = []


def reduced_shape(shape: tuple[Size, ...], axes: tuple[int, ...], keepdims: bool) -> tuple[Size, ...]:
    """The shape after a reduction of `axes`."""
    if keepdims:
        return tuple(1 if k in axes else n for k, n in enumerate(shape))
    return tuple(n for k, n in enumerate(shape) if k not in axes)


def _kept(shape: tuple[Size, ...], axes: tuple[int, ...]) -> tuple[Size, ...]:
    return reduced_shape(shape, axes, True)


def full_index(
    index: tuple[Scalar, ...], reduced: tuple[Scalar, ...], ndim: int, axes: tuple[int, ...], keepdims: bool
) -> tuple[Scalar, ...]:
    """The position in x from that in the result and that in the reduced axes (in the order of `axes`)."""
    inner = dict(zip(axes, reduced))
    outer = iter(tuple(i for k, i in enumerate(index) if k not in inner) if keepdims else index)
    return tuple(inner[k] if k in inner else next(outer) for k in range(ndim))


def _spread(g: Any, x_type: ArrayType, axes: tuple[int, ...]) -> Any:
    """`g` with the reduced axes back, of size 1."""
    return F.reshape(g, _kept(x_type.shape, axes))


def _domain(x: ArrayType, *, axes: tuple[int, ...], keepdims: bool) -> tuple[Size, ...]:
    return tuple(x.shape[a] for a in axes)


def _element(index: tuple, reduced: tuple, x: Any, *, axes: tuple[int, ...], keepdims: bool) -> tuple[Scalar, ...]:
    return (x[full_index(index, reduced, len(x.shape), axes, keepdims)],)


def _lowest(dtype: np.dtype) -> Any:
    return False if dtype == BOOL else -np.inf if dtype.kind not in "iu" else int(np.iinfo(dtype).min)


def _highest(dtype: np.dtype) -> Any:
    return True if dtype == BOOL else np.inf if dtype.kind not in "iu" else int(np.iinfo(dtype).max)


_CASES: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...] = (
    ((3, 4), (1,)), ((3, 4), (0,)), ((3, 4), (0, 1)), ((2, 3, 5), (0, 2)), ((2, 3, 5), (1,)), ((7,), (0,)), ((3, 4), ()),
    ((1, 5), (0,)), ((2, 37), (1,)),
)


def _fold(
    name: str, eager: Callable, combine: str, identity: Callable, vjp: Vjp | None, kinds: str, dtypes: tuple,
    low: float = -2.0, high: float = 2.0, empty: bool = True,
) -> None:
    def infer(x: ArrayType, *, axes: tuple[int, ...], keepdims: bool) -> tuple[ArrayType, ...]:
        expect_kind(name, "x", x.dtype, kinds)
        expect_axes(name, axes, len(x.shape))
        if not empty and any(type(x.shape[a]) is int and x.shape[a] == 0 for a in axes):
            fail(name, "the reduced axes of x", "at least one element (a reduction without identity)", f"shape {x.shape}")
        return (ArrayType(reduced_shape(x.shape, axes, keepdims), x.dtype),)

    def reference(x: np.ndarray, axes: tuple[int, ...], keepdims: bool) -> np.ndarray:
        ufunc: Any = {"sum": np.add, "prod": np.multiply, "max": np.maximum, "min": np.minimum, "all": np.logical_and,
                 "any": np.logical_or}[name]
        return np.asarray(ufunc.reduce(x, axis=axes, keepdims=keepdims)).astype(x.dtype)

    def samples() -> Iterator[Sample]:
        for dtype in dtypes:
            for shape, axes in _CASES:
                for keepdims in (False, True):
                    x = random_array(1, shape, dtype, low, high)
                    yield Sample((x,), {"axes": axes, "keepdims": keepdims}, reference, tolerance=4.0)
        yield Sample((random_array(2, (), dtypes[0], low, high),), {"axes": (), "keepdims": False}, reference)
        yield Sample((random_array(2, (0, 3), dtypes[0]),), {"axes": (1,), "keepdims": False}, reference)
        if empty:
            yield Sample((random_array(2, (0, 3), dtypes[0]),), {"axes": (0,), "keepdims": True}, reference)

    lower = Reduction(_domain, _element, lambda a, b: (operate(combine, a[0], b[0]),), lambda ds: (identity(ds[0]),))
    register(Op(name, ("x",), infer, eager, {"x": vjp} if vjp else NONDIFF, lower, samples))


def _eager(name: str, typed: bool = False) -> Callable:
    def run(xp: Any, x: Any, *, axes: tuple[int, ...], keepdims: bool) -> Any:
        if not axes:
            return x.copy()
        if typed:
            return getattr(xp, name)(x, axis=axes, keepdims=keepdims, dtype=x.dtype)
        return getattr(xp, name)(x, axis=axes, keepdims=keepdims)

    return run


def _sum_vjp(g: Any, x_type: ArrayType, axes: tuple[int, ...]) -> Any:
    return F.broadcast_to(_spread(g, x_type, axes), x_type.shape)


def _extremum_vjp(g: Any, x: Any, out: Any, axes: tuple[int, ...]) -> Any:
    """The cotangent, in equal shares to all elements that attain the extremum."""
    kept = _kept(x.shape, axes)
    chosen = F.astype(F.equal(x, F.reshape(out, kept)), x.dtype)
    share = F.divide(F.reshape(g, kept), F.sum(chosen, axis=axes, keepdims=True))
    return F.multiply(chosen, share)


def _prod_vjp(g: Any, x: Any, axes: tuple[int, ...]) -> Any:
    """``g`` times the product of the other elements: products of those before and those behind, so zeros are no problem."""
    rest = tuple(k for k in range(x.ndim) if k not in axes)
    order = (*rest, *axes)
    inverse = tuple(order.index(k) for k in range(x.ndim))
    moved = F.permute_dims(x, order)
    count: Size = 1
    for a in axes:
        count = count * x.shape[a]
    flat = F.reshape(moved, (*(x.shape[k] for k in rest), count))
    others = F.multiply(_exclusive_product(flat, False), _exclusive_product(flat, True))
    others = F.permute_dims(F.reshape(others, moved.shape), inverse)
    return F.multiply(F.reshape(g, _kept(x.shape, axes)), others)


def _exclusive_product(x: Any, backwards: bool) -> Any:
    """Along the last axis, the product of all elements before each one (behind it if `backwards`), in log2(n) steps."""
    n, shift = x.shape[-1], 1
    lead = [(0, 0)] * (x.ndim - 1)
    out = _shifted(x, lead, n, 1, backwards)
    while shift < n:
        out = F.multiply(out, _shifted(out, lead, n, shift, backwards))
        shift *= 2
    return out


def _shifted(x: Any, lead: list, n: Size, by: int, backwards: bool) -> Any:
    """`x` moved by some positions along the last axis, ones filling in."""
    return F.pad(x, [*lead, (-by, by) if backwards else (by, -by)], constant_values=1)


_FLOATS = (np.float64, np.float32)
_fold("sum", in_single(_eager("sum", True)), "add", lambda d: 0, Vjp(_sum_vjp), "iufc", (*_FLOATS, np.int32, np.int64, np.uint8))
_fold("prod", in_single(_eager("prod", True)), "mul", lambda d: 1, Vjp(_prod_vjp), "iufc", (*_FLOATS, np.int64), 0.5, 1.5)
_fold("max", _eager("max"), "max", _lowest, Vjp(_extremum_vjp), "biuf", (*_FLOATS, np.int32, np.uint8), -9, 9, empty=False)
_fold("min", _eager("min"), "min", _highest, Vjp(_extremum_vjp), "biuf", (*_FLOATS, np.int32, np.uint8), -9, 9, empty=False)
_fold("all", _eager("all"), "and", lambda d: True, None, "b", (np.bool_,))
_fold("any", _eager("any"), "or", lambda d: False, None, "b", (np.bool_,))


# -- positions of extrema

def _position(name: str, better: str, worst: Callable) -> None:
    """The first position of the extremum along `axis`; a NaN is the extremum."""

    def infer(x: ArrayType, *, axis: int, keepdims: bool) -> tuple[ArrayType, ...]:
        expect_kind(name, "x", x.dtype, "biuf")
        expect_axis(name, axis, len(x.shape))
        if type(x.shape[axis]) is int and x.shape[axis] == 0:
            fail(name, f"axis {axis} of x", "at least one element", f"shape {x.shape}")
        return (ArrayType(reduced_shape(x.shape, (axis,), keepdims), INT64),)

    def element(index: tuple, reduced: tuple, x: Any, *, axis: int, keepdims: bool) -> tuple[Scalar, ...]:
        return x[full_index(index, reduced, len(x.shape), (axis,), keepdims)], reduced[0]

    def combine(a: tuple, b: tuple) -> tuple[Scalar, ...]:
        (x, i), (y, j) = a, b
        first, gain, tie = j < i, operate(better, y, x), y.equals(x)
        if x.dtype.kind not in "biu":
            nan, other = operate("isnan", x), operate("isnan", y)
            gain = where(nan, other & first, gain | other)
            take = gain | (tie & first)
        else:
            take = gain | (tie & first)
        return where(take, y, x), where(take, j, i)

    def identity(dtypes: tuple[np.dtype, ...]) -> tuple[Any, ...]:
        return worst(dtypes[0]), int(np.iinfo(np.int64).max)

    def samples() -> Iterator[Sample]:
        def reference(x: np.ndarray, axis: int, keepdims: bool) -> np.ndarray:
            out = np.apply_along_axis(getattr(np, name), axis, x).astype(np.int64)
            return np.expand_dims(out, axis) if keepdims else out

        for dtype in (np.float64, np.float32, np.int32, np.uint8):
            for shape, axis in (((3, 4), 0), ((3, 4), 1), ((7,), 0), ((2, 3, 5), 1), ((2, 19), 1), ((2, 1), 1)):
                for keepdims in (False, True):
                    x = random_array(1, shape, dtype, -3, 3)
                    yield Sample((np.round(x) if x.dtype.kind == "f" else x,), {"axis": axis, "keepdims": keepdims}, reference)
        nan = np.array([[1.0, np.nan, 3.0, np.nan], [np.inf, 1.0, -np.inf, 2.0], [-np.inf] * 4, [np.inf] * 4])
        yield Sample((nan,), {"axis": 1, "keepdims": False}, reference)
        yield Sample((nan.T.astype(np.float32),), {"axis": 0, "keepdims": False}, reference)

    lower = Reduction(
        lambda x, *, axis, keepdims: (x.shape[axis],), element, combine, identity,
        lambda accumulator, *types, **attrs: (accumulator[1],),
    )
    eager = lambda xp, x, *, axis, keepdims: getattr(xp, name)(x, axis=axis, keepdims=keepdims).astype(np.int64, copy=False)
    register(Op(name, ("x",), infer, eager, NONDIFF, lower, samples))


_position("argmax", "gt", _lowest)
_position("argmin", "lt", _highest)
