"""Comparing arrays with tolerances that fit their dtype, and checking gradients numerically."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from . import autograd
from .apply import apply
from .array import NDArray, wrap
from .dtypes import is_floating, is_inexact
from .op import OPS

__all__ = ["assert_close", "check_gradients", "tolerance"]

_TOLERANCE = {
    "float16": 2e-3, "bfloat16": 2e-2, "float32": 1e-5, "float64": 1e-9, "complex64": 1e-5, "complex128": 1e-9,
}


def tolerance(*dtypes: np.dtype) -> float:
    """The tolerance of the least precise of the dtypes, relative to an array's scale; 0 for integers."""
    return max((_TOLERANCE.get(np.dtype(d).name, 0.0) for d in dtypes), default=0.0)


def assert_close(actual: Any, desired: Any, factor: float = 1.0, what: str = "") -> None:
    """Check that two arrays have one shape and close values.

    ``|actual - desired| <= factor * tolerance(dtype) * max(1, largest finite |desired|)``, element by element; NaNs and
    infinities must agree. Lists and tuples are compared item by item. The AssertionError names the worst element.
    """
    if isinstance(desired, (list, tuple)):
        assert len(actual) == len(desired), f"{what}: {len(actual)} items, expected {len(desired)}"
        for i, (a, d) in enumerate(zip(actual, desired)):
            assert_close(a, d, factor, f"{what}[{i}]")
        return
    a, d = (x.asnumpy() if isinstance(x, NDArray) else np.asarray(x) for x in (actual, desired))
    label = f"{what}: " if what else ""
    if a.shape != d.shape:
        raise AssertionError(f"{label}shape {a.shape}, expected {d.shape}")
    dtypes = [x.dtype for x in (a, d) if is_inexact(x.dtype)]
    if not dtypes:
        if not np.array_equal(a, d):
            where = tuple(map(int, np.argwhere(a != d)[0]))
            raise AssertionError(f"{label}at {where}: {a[where]}, expected {d[where]}\n{a}\n{d}")
        return
    wide = np.complex128 if any(x.kind == "c" for x in dtypes) else np.float64
    a, d = a.astype(wide), d.astype(wide)
    finite = np.isfinite(d)
    if not np.array_equal(finite, np.isfinite(a)) or not np.array_equal(a[~finite], d[~finite], equal_nan=True):
        raise AssertionError(f"{label}NaN or infinity in different places\n{a}\n{d}")
    if not finite.any():
        return
    limit = factor * tolerance(*dtypes) * max(1.0, float(np.abs(d[finite]).max()))
    error = np.where(finite, np.abs(np.where(finite, a, 0) - np.where(finite, d, 0)), 0)
    if error.max() > limit:
        where = tuple(map(int, np.unravel_index(np.argmax(error), error.shape)))
        raise AssertionError(
            f"{label}at {where}: {a[where]!r}, expected {d[where]!r}; error {error.max():.3g}, allowed {limit:.3g} "
            f"({int((error > limit).sum())} of {error.size} elements)"
        )


def check_gradients(
    function: Callable[..., Any], arrays: Sequence[Any], order: int = 2, step: float = 1e-5, limit: float = 1e-5,
    seed: int = 0,
) -> None:
    """Check the gradients of `function` (arrays -> array or tuple of arrays) against differences, in float64.

    In a random direction v, ``<grad <u, f(x)>, v>`` must equal ``<u, f(x + step v) - f(x - step v)> / (2 step)``.
    For order 2 the gradient itself is checked in the same way. Integer arrays are held fixed. A complex array counts as two
    real ones, its real and its imaginary part. Raises AssertionError.
    """
    generator = np.random.default_rng(seed)
    values = [np.asarray(a.asnumpy() if isinstance(a, NDArray) else a) for a in arrays]
    values = [v.astype(np.float64) if is_floating(v.dtype) else v for v in values]
    moving = [i for i, v in enumerate(values) if is_floating(v.dtype)]
    complex_ones = [i for i, v in enumerate(values) if v.dtype.kind == "c"]

    def with_arrays(moved: Sequence[NDArray]) -> tuple:
        full = [_array(v) for v in values]
        parts = iter(moved)
        for i in moving:
            full[i] = next(parts)
        for i in complex_ones:
            full[i] = apply(OPS["complex"], next(parts), next(parts))
        result = function(*full)
        results = result if isinstance(result, (tuple, list)) else (result,)
        return tuple(p for r in results for p in (
            (apply(OPS["real"], r), apply(OPS["imag"], r)) if r.dtype.kind == "c" else (r,)) if is_floating(p.dtype))

    halves = [np.array(part, np.float64) for i in complex_ones for part in (values[i].real, values[i].imag)]
    _check(with_arrays, [*(values[i] for i in moving), *halves], order, step, limit, generator, 1)


def _check(f: Callable, values: list, order: int, step: float, limit: float, generator: Any, level: int) -> None:
    with autograd.pause(train_mode=True):
        sample = f([_array(v) for v in values])
    weights = [generator.standard_normal(s.shape) for s in sample]
    directions = [generator.standard_normal(v.shape) for v in values]

    def weighted(moved: list) -> float:
        with autograd.pause(train_mode=True):
            return sum(float(np.sum(r.asnumpy() * w)) for r, w in zip(f([_array(m) for m in moved]), weights))

    def gradient(moved: Sequence[NDArray], create_graph: bool) -> tuple:
        with autograd.record():
            results = f(moved)
            pairs = [(r, w) for r, w in zip(results, weights) if r._node is not None]
            if not pairs:
                return tuple(_array(np.zeros(m.shape)) for m in moved)
            found = autograd.grad(
                [r for r, _ in pairs], list(moved), [_array(w) for _, w in pairs], create_graph=create_graph
            )
        return tuple(found)

    leaves = [_array(v) for v in values]
    for leaf in leaves:
        leaf.attach_grad()
    analytic = gradient(leaves, False)
    for i, (g, v) in enumerate(zip(analytic, values)):
        if g.shape != v.shape or g.dtype != np.float64:
            raise AssertionError(f"order {level}: gradient {i} is {g.dtype}{g.shape}, expected float64{v.shape}")
    along = sum(float(np.sum(g.asnumpy() * d)) for g, d in zip(analytic, directions))
    ahead = weighted([v + step * d for v, d in zip(values, directions)])
    behind = weighted([v - step * d for v, d in zip(values, directions)])
    numeric = (ahead - behind) / (2 * step)
    scale = max(1.0, abs(numeric), abs(along), max((float(np.abs(v).max()) for v in values if v.size), default=1.0))
    if not abs(along - numeric) <= limit * scale:
        raise AssertionError(f"order {level}: the directional derivative is {along!r}, by differences {numeric!r}")
    if order > level:
        def slope(moved: Sequence[NDArray]) -> tuple:
            for m in moved:
                if m._node is None:
                    m.attach_grad()
            with autograd.record():
                return gradient(moved, True)

        _check(slope, values, order, step, limit, generator, level + 1)


def _array(value: np.ndarray) -> NDArray:
    return wrap(_default().module.array(value), _default())


def _default() -> Any:
    from .device import current_device

    return current_device()
