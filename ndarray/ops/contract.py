"""dot_general: the contraction of two arrays over chosen axes, with batch axes; dot_integer: that of bytes, summed in int32.

``out[b, i, j] = sum over k of x[b, i, k] * y[b, k, j]``, where b, i, j, k stand for any number of axes each.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from .. import functions as F
from ..dims import Size
from ..op import NONDIFF, ArrayType, Op, Sample, Template, Vjp, register
from .base import differ, expect_kind, expect_same_dtype, fail, in_single, random_array

__all__ = ["free_axes"]

Pair = tuple[tuple[int, ...], tuple[int, ...]]


def free_axes(ndim: int, contract: tuple[int, ...], batch: tuple[int, ...]) -> tuple[int, ...]:
    """The axes that are neither contracted nor batch axes, in order."""
    return tuple(k for k in range(ndim) if k not in contract and k not in batch)


def _infer(x: ArrayType, y: ArrayType, *, contract: Pair, batch: Pair) -> tuple[ArrayType, ...]:
    dtype = expect_same_dtype("dot_general", "xy", (x, y))
    expect_kind("dot_general", "x", dtype, "iufc")
    return (ArrayType(_shape("dot_general", x, y, contract, batch), dtype),)


def _shape(op: str, x: ArrayType, y: ArrayType, contract: Pair, batch: Pair) -> tuple[Size, ...]:
    """The shape of the result, if the axes fit."""
    for what, (xs, ys) in (("contract", contract), ("batch", batch)):
        if len(xs) != len(ys):
            fail(op, what, "as many axes of x as of y", f"{xs} and {ys}")
        for a, b in zip(xs, ys):
            if differ(x.shape[a], y.shape[b]):
                fail(op, f"axis {a} of x and axis {b} of y ({what})", "equal sizes", f"shapes {x.shape} and {y.shape}")
    for t, axes in ((x, contract[0] + batch[0]), (y, contract[1] + batch[1])):
        if len(set(axes)) != len(axes) or any(not 0 <= a < len(t.shape) for a in axes):
            fail(op, "contract and batch", f"distinct axes of an array of shape {t.shape}", axes)
    return (
        *(x.shape[a] for a in batch[0]), *(x.shape[a] for a in free_axes(len(x.shape), contract[0], batch[0])),
        *(y.shape[a] for a in free_axes(len(y.shape), contract[1], batch[1])),
    )


def _volume(shape: Iterable[int]) -> int:
    n = 1
    for s in shape:
        n *= s
    return n


def _eager(xp: Any, x: Any, y: Any, *, contract: Pair, batch: Pair) -> Any:
    if not batch[0] and x.ndim == y.ndim == 2 and len(contract[0]) == 1:
        return (x if contract[0][0] else x.T) @ (y.T if contract[1][0] else y)
    xf, yf = free_axes(x.ndim, contract[0], batch[0]), free_axes(y.ndim, contract[1], batch[1])
    shape = (*(x.shape[a] for a in batch[0]), *(x.shape[a] for a in xf), *(y.shape[a] for a in yf))
    b, k = _volume([x.shape[a] for a in batch[0]]), _volume([x.shape[a] for a in contract[0]])
    m, n = _volume([x.shape[a] for a in xf]), _volume([y.shape[a] for a in yf])
    left = x.transpose(batch[0] + xf + contract[0])
    right = y.transpose(batch[1] + contract[1] + yf)
    if not batch[0]:
        return (left.reshape(m, k) @ right.reshape(k, n)).reshape(shape)
    return (left.reshape(b, m, k) @ right.reshape(b, k, n)).reshape(shape)


def _gradient(g: Any, other: Any, ndim: int, contract: Pair, batch: Pair, first: bool) -> Any:
    """The cotangent of the first or second argument, of `ndim` axes. The order of the product is the one that leaves
    the axes in place, where there is one."""
    mine, its = (0, 1) if first else (1, 0)
    nb = len(batch[0])
    own_free = free_axes(ndim, contract[mine], batch[mine])
    other_free = free_axes(other.ndim, contract[its], batch[its])
    start = nb if first else nb + len(other_free)
    own_g = tuple(range(start, start + len(own_free)))
    other_g = tuple(k for k in range(nb, g.ndim) if k not in own_g)
    ordered = sorted(contract[its])
    g_batch = tuple(range(nb))

    def order(free_at: int, contracted_at: int) -> tuple[int, ...]:
        axes = [0] * ndim
        for j, a in enumerate(batch[mine]):
            axes[a] = j
        for j, a in enumerate(own_free):
            axes[a] = free_at + j
        for a, b in zip(contract[mine], contract[its]):
            axes[a] = contracted_at + ordered.index(b)
        return tuple(axes)

    swapped = order(nb + len(ordered), nb)
    if swapped == tuple(range(ndim)):
        return F.primitive("dot_general", other, g, contract=(other_free, other_g), batch=(batch[its], g_batch))
    out = F.primitive("dot_general", g, other, contract=(other_g, other_free), batch=(g_batch, batch[its]))
    return F.permute_dims(out, order(nb, nb + len(own_free)))


def _x_vjp(g: Any, y: Any, x_type: ArrayType, contract: Pair, batch: Pair) -> Any:
    return _gradient(g, y, len(x_type.shape), contract, batch, True)


def _y_vjp(g: Any, x: Any, y_type: ArrayType, contract: Pair, batch: Pair) -> Any:
    return _gradient(g, x, len(y_type.shape), contract, batch, False)


def _reference(x: np.ndarray, y: np.ndarray, contract: Pair, batch: Pair) -> np.ndarray:
    left, right = list(range(x.ndim)), list(range(100, 100 + y.ndim))
    for a, b in (*zip(*contract), *zip(*batch)):
        right[b] = left[a]
    labels = {v: k for k, v in enumerate(dict.fromkeys(left + right))}
    out = (
        [left[a] for a in batch[0]] + [left[a] for a in free_axes(x.ndim, contract[0], batch[0])]
        + [right[a] for a in free_axes(y.ndim, contract[1], batch[1])]
    )
    short = lambda axes: [labels[a] for a in axes]
    return np.asarray(np.einsum(x, short(left), y, short(right), short(out)), x.dtype)


def _samples() -> Iterator[Sample]:
    for a, b, contract, batch in (
        ((3, 4), (4, 5), ((1,), (0,)), ((), ())),
        ((3, 4), (5, 4), ((1,), (1,)), ((), ())),
        ((4, 3), (4, 5), ((0,), (0,)), ((), ())),
        ((4, 3), (5, 4), ((0,), (1,)), ((), ())),
        ((2, 3, 4), (2, 4, 5), ((2,), (1,)), ((0,), (0,))),
        ((2, 3, 4, 5), (2, 3, 6, 5), ((3,), (3,)), ((0, 1), (0, 1))),
        ((2, 3, 4), (4, 3, 5), ((1, 2), (1, 0)), ((), ())),
        ((3, 2, 4), (4, 5, 2), ((2,), (0,)), ((1,), (2,))),
        ((4,), (4,), ((0,), (0,)), ((), ())),
        ((3,), (2,), ((), ()), ((), ())),
        ((2, 3), (3,), ((1,), (0,)), ((), ())),
        ((3, 0), (0, 2), ((1,), (0,)), ((), ())),
        ((0, 3), (3, 2), ((1,), (0,)), ((), ())),
        ((2, 3), (2, 3), ((), ()), ((0, 1), (0, 1))),
        ((17, 33), (33, 19), ((1,), (0,)), ((), ())),
    ):
        for dtype in (np.float64, np.float32, np.int32):
            arrays = random_array(1, a, dtype), random_array(2, b, dtype)
            yield Sample(arrays, {"contract": contract, "batch": batch}, _reference, tolerance=10.0)


register(Op(
    "dot_general", ("x", "y"), _infer, in_single(_eager), {"x": Vjp(_x_vjp), "y": Vjp(_y_vjp)}, Template("dot_general"), _samples,
))


# -- bytes

_BYTES = {np.dtype(np.int8): 128, np.dtype(np.uint8): 255}
"""The dtypes of dot_integer's operands, and the largest magnitude of each."""


def _integer_infer(x: ArrayType, y: ArrayType, *, contract: Pair, batch: Pair) -> tuple[ArrayType, ...]:
    for name, t in (("x", x), ("y", y)):
        if t.dtype not in _BYTES:
            fail("dot_integer", name, "int8 or uint8", t.dtype, TypeError)
    return (ArrayType(_shape("dot_integer", x, y, contract, batch), np.dtype(np.int32)),)


def _integer_eager(xp: Any, x: Any, y: Any, *, contract: Pair, batch: Pair) -> Any:
    """By a product of floats, which is exact: all sums are below 2**24, or below 2**53."""
    most = _volume([x.shape[a] for a in contract[0]]) * _BYTES[x.dtype] * _BYTES[y.dtype]
    wide = np.float32 if most <= 1 << 24 else np.float64
    out = _eager(xp, x.astype(wide), y.astype(wide), contract=contract, batch=batch)
    return out.astype(np.int64).astype(np.int32)  # modulo 2**32, as sums of int32


def _integer_reference(x: np.ndarray, y: np.ndarray, contract: Pair, batch: Pair) -> np.ndarray:
    return _reference(x.astype(np.int32), y.astype(np.int32), contract, batch)


def _integer_samples() -> Iterator[Sample]:
    for number, (a, b, contract, batch) in enumerate((
        ((3, 4), (4, 5), ((1,), (0,)), ((), ())),
        ((5, 33), (19, 33), ((1,), (1,)), ((), ())),
        ((6, 3), (6, 5), ((0,), (0,)), ((), ())),
        ((37, 70), (70, 49), ((1,), (0,)), ((), ())),
        ((2, 3, 9), (2, 9, 18), ((2,), (1,)), ((0,), (0,))),
        ((2, 3, 4), (4, 3, 5), ((1, 2), (1, 0)), ((), ())),
        ((13,), (13,), ((0,), (0,)), ((), ())),
        ((3, 7), (7,), ((1,), (0,)), ((), ())),
        ((3,), (2,), ((), ()), ((), ())),
        ((3, 0), (0, 2), ((1,), (0,)), ((), ())),
        ((1, 300), (300, 17), ((1,), (0,)), ((), ())),
    )):
        r = np.random.default_rng(number)
        for k, pair in enumerate(((np.int8, np.int8), (np.uint8, np.int8), (np.int8, np.uint8), (np.uint8, np.uint8))):
            if number < 2 or number % 4 == k:
                arrays = tuple([r.integers(np.iinfo(d).min, np.iinfo(d).max + 1, s).astype(d) for d, s in zip(pair, (a, b))])
                yield Sample(arrays, {"contract": contract, "batch": batch}, _integer_reference)
    extreme = tuple([np.full(s, -128, np.int8) for s in ((4, 260), (260, 3))])
    yield Sample(extreme, {"contract": ((1,), (0,)), "batch": ((), ())}, _integer_reference)


register(Op("dot_integer", ("x", "y"), _integer_infer, _integer_eager, NONDIFF, Template("dot_integer"), _integer_samples))
