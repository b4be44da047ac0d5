"""Sorting and searching in sorted vectors, which run on the host."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..op import NONDIFF, OPAQUE, ArrayType, Op, Sample, register
from .base import INT64, expect_axis, expect_kind, expect_same_dtype, fail, random_array

__all__: list[str] = []


def _infer(x: ArrayType, *, axis: int, descending: bool) -> tuple[ArrayType, ...]:
    expect_kind("argsort", "x", x.dtype, "biufc")
    expect_axis("argsort", axis, len(x.shape))
    return (ArrayType(x.shape, INT64),)


def _eager(xp: Any, x: Any, *, axis: int, descending: bool) -> Any:
    """Stable; for descending order the positions are sorted from the end, so that equal elements keep theirs."""
    if not descending:
        return xp.argsort(x, axis=axis, kind="stable")
    key = ~x if x.dtype.kind in "biu" else -x
    return xp.argsort(key, axis=axis, kind="stable")


def _samples() -> Iterator[Sample]:
    def check(x: np.ndarray, axis: int, descending: bool) -> np.ndarray:
        def row(values: np.ndarray) -> np.ndarray:
            keys = [(bool(v != v), -v if descending and v == v else v if v == v else 0) for v in values.tolist()]
            return np.array(sorted(range(len(values)), key=lambda k: keys[k]), np.int64)

        return np.apply_along_axis(row, axis, x) if x.size else np.zeros(x.shape, np.int64)

    for dtype in (np.float64, np.float32, np.int32, np.uint8):
        for shape, axis in (((7,), 0), ((3, 5), 1), ((3, 5), 0)):
            for descending in (False, True):
                yield Sample((np.round(random_array(1, shape, dtype, -3, 4)),), {"axis": axis, "descending": descending}, check)
    yield Sample((np.array([2.0, np.nan, 1.0, np.nan, -np.inf]),), {"axis": 0, "descending": True}, check)


register(Op("argsort", ("x",), _infer, _eager, NONDIFF, OPAQUE, _samples))


def _searchsorted_infer(x: ArrayType, values: ArrayType, *, right: bool) -> tuple[ArrayType, ...]:
    expect_same_dtype("searchsorted", ("x", "values"), (x, values))
    if len(x.shape) != 1:
        fail("searchsorted", "x", "one axis", f"shape {x.shape}")
    return (ArrayType(values.shape, INT64),)


def _searchsorted_eager(xp: Any, x: Any, values: Any, *, right: bool) -> Any:
    return xp.asarray(xp.searchsorted(x, values, "right" if right else "left")).astype(np.int64, copy=False)


def _searchsorted_samples() -> Iterator[Sample]:
    def check(x: np.ndarray, values: np.ndarray, right: bool) -> np.ndarray:
        before = x <= values[..., None] if right else x < values[..., None]
        return before.sum(-1)

    for dtype in (np.float64, np.float32, np.int32, np.uint8):
        for count, shape in ((7, (5,)), (3, (2, 3)), (4, ()), (0, (2,)), (5, (0, 2))):
            x = np.sort(random_array(1, (count,), dtype, -3, 4))
            values = np.asarray(np.round(random_array(2, shape, dtype, -4, 5))).astype(dtype)
            for right in (False, True):
                yield Sample((x, values), {"right": right}, check)


register(Op("searchsorted", ("x", "values"), _searchsorted_infer, _searchsorted_eager, NONDIFF, OPAQUE, _searchsorted_samples))
