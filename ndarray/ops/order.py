"""Sorting, which runs on the host."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..op import NONDIFF, OPAQUE, ArrayType, Op, Sample, register
from .base import INT64, expect_axis, expect_kind, random_array

__all__: list[str] = []


def _infer(x: ArrayType, *, axis: int, descending: bool) -> tuple[ArrayType, ...]:
    expect_kind("argsort", "x", x.dtype, "biuf")
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
