"""Sums and products of all elements up to each one along an axis, in x's dtype.

Traced programs don't use these: the public functions capture their logarithmic form, which compiles.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from .. import functions as F
from ..op import OPAQUE, ArrayType, Op, Sample, Vjp, register
from .base import expect_axis, expect_kind, in_single, kind_of, random_array

__all__: list[str] = []


def _cumulative(name: str, ufunc: str, kinds: str, vjp: Vjp, low: float = -2.0, high: float = 2.0) -> None:
    def infer(x: ArrayType, *, axis: int) -> tuple[ArrayType, ...]:
        expect_kind(name, "x", x.dtype, kinds)
        expect_axis(name, axis, len(x.shape))
        return (x,)

    def eager(xp: Any, x: Any, *, axis: int) -> Any:
        with np.errstate(all="ignore"):
            return getattr(xp, ufunc).accumulate(x, axis=axis, dtype=None if kind_of(x.dtype) == "b" else x.dtype)

    def samples() -> Iterator[Sample]:
        def check(x: np.ndarray, axis: int) -> np.ndarray:
            out = np.array(x)
            at: list[Any] = [slice(None)] * x.ndim
            for k in range(1, x.shape[axis]):
                at[axis] = k
                before, here = list(at), tuple(at)
                before[axis] = k - 1
                out[here] = getattr(np, ufunc)(out[tuple(before)], x[here])
            return out

        for dtype in (np.float64, np.float32, np.int64):
            for shape, axis in (((7,), 0), ((3, 5), 1), ((3, 5), 0), ((2, 1, 3), 1), ((0, 3), 0), ((2, 0), 0)):
                yield Sample((random_array(1, shape, dtype, low, high),), {"axis": axis}, check, tolerance=4.0)

    register(Op(name, ("x",), infer, in_single(eager), {"x": vjp}, OPAQUE, samples))


def _backwards(g: Any, axis: int) -> Any:
    """The sums of all elements from each one on."""
    return F.flip(F.primitive("cumsum", F.flip(g, axis), axis=axis), axis)


def _product_vjp(g: Any, x: Any, out: Any, axis: int) -> Any:
    """``s[i] * out[i - 1]`` with the recurrence ``s[i] = g[i] + x[i + 1] * s[i + 1]``, solved in log2(n) steps: zeros are no
    problem."""
    n, shift = x.shape[axis], 1
    total, factor = g, _moved(x, axis, -1, 0)
    while shift < n:
        total = F.add(total, F.multiply(factor, _moved(total, axis, -shift, 0)))
        factor = F.multiply(factor, _moved(factor, axis, -shift, 0))
        shift *= 2
    return F.multiply(total, _moved(out, axis, 1, 1))


def _moved(x: Any, axis: int, by: int, fill: float) -> Any:
    """`x` moved by some positions along an axis, a number filling in."""
    return F.pad(x, [(by, -by) if k == axis else (0, 0) for k in range(x.ndim)], constant_values=fill)


_cumulative("cumsum", "add", "iufc", Vjp(_backwards))
_cumulative("cumprod", "multiply", "iufc", Vjp(_product_vjp), 0.5, 1.5)
