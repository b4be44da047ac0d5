"""Elementwise functions of one array: ``out[i] = f(x[i])``, in x's dtype (tests for NaN and infinity give bool)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from .. import allocation
from .. import functions as F
from ..op import NONDIFF, ArrayType, Elementwise, Op, Sample, Vjp, register
from ..scalar import constant, operate, where
from .base import BOOL, expect_kind, kind_of, quiet, random_array, real_dtype
from .error_function import erf

__all__ = ["normal_density", "unary"]


def _samples(
    dtypes: tuple, low: float, high: float, reference: Callable, special: tuple, tolerance: float
) -> Callable[[], Iterator[Sample]]:
    def samples() -> Iterator[Sample]:
        for dtype in dtypes:
            yield Sample((random_array(1, (3, 5), dtype, low, high),), {}, reference, tolerance=tolerance)
        yield Sample((random_array(2, (), dtypes[0], low, high),), {}, reference, tolerance=tolerance)
        yield Sample((random_array(3, (2, 0, 3), dtypes[0]),), {}, reference)
        yield Sample((random_array(4, (37,), dtypes[0], low, high),), {}, reference, tolerance=tolerance)
        if special:
            for dtype in (np.float64, np.float32):
                yield Sample((np.array(special, dtype),), {}, reference, differentiable=False, tolerance=tolerance)

    return samples


_FLOATS = (np.float64, np.float32)
_NUMBERS = (np.float64, np.float32, np.int32, np.int64)
_EDGES = (0.0, -0.0, 1.0, -1.0, math.inf, -math.inf, math.nan)


def unary(
    name: str, eager: Callable, lower: Callable, vjp: Vjp | None, kinds: str, dtypes: tuple = _FLOATS,
    low: float = -2.0, high: float = 2.0, reference: Callable | None = None, special: tuple = _EDGES,
    result: Callable[[np.dtype], np.dtype] = lambda dtype: dtype, tolerance: float = 1.0,
) -> Op:
    """Register one row.

    `kinds` are the dtype kinds that `x` may have, `low` and `high` bound the samples, `result` gives the result's dtype
    from that of `x`.
    """

    def infer(x: ArrayType) -> tuple[ArrayType, ...]:
        expect_kind(name, "x", x.dtype, kinds)
        return (ArrayType(x.shape, result(x.dtype)),)

    samples = _samples(dtypes, low, high, reference or getattr(np, name), special, tolerance)
    return register(Op(name, ("x",), infer, eager, {"x": vjp} if vjp else NONDIFF, Elementwise(lower), samples))


def _plain(name: str) -> Callable:
    return lambda xp, x: getattr(xp, name)(x)


def _quiet(name: str) -> Callable:
    return quiet(_plain(name))


def _scalar(name: str) -> Callable:
    return lambda x: operate(name, x)


unary("negative", _plain("negative"), _scalar("neg"), Vjp(lambda g: F.negative(g)), "iufc", _NUMBERS)
unary("abs", _plain("abs"), _scalar("abs"), Vjp(lambda g, x: F.multiply(g, F.conj(F.sign(x)))), "iufc", _NUMBERS,
      result=real_dtype)

unary("sign", _quiet("sign"), _scalar("sign"), None, "iuf", _NUMBERS)
unary("exp", _quiet("exp"), _scalar("exp"), Vjp(lambda g, out: F.multiply(g, out)), "fc")
unary("expm1", _quiet("expm1"), _scalar("expm1"), Vjp(lambda g, out: F.multiply(g, F.add(out, 1))), "fc")
unary("log", _quiet("log"), _scalar("log"), Vjp(lambda g, x: F.divide(g, x)), "fc", low=0.1, high=4.0,
       reference=quiet(np.log))
unary("log1p", _quiet("log1p"), _scalar("log1p"), Vjp(lambda g, x: F.divide(g, F.add(x, 1))), "fc", low=-0.8, high=3.0,
       reference=quiet(np.log1p))
unary("sqrt", _quiet("sqrt"), _scalar("sqrt"), Vjp(lambda g, out: F.divide(F.multiply(g, 0.5), out)), "fc", low=0.1,
       high=4.0, reference=quiet(np.sqrt))
unary("sin", _quiet("sin"), _scalar("sin"), Vjp(lambda g, x: F.multiply(g, F.cos(x))), "fc", reference=quiet(np.sin))
unary("cos", _quiet("cos"), _scalar("cos"), Vjp(lambda g, x: F.negative(F.multiply(g, F.sin(x)))), "fc",
       reference=quiet(np.cos))
unary("tanh", _plain("tanh"), _scalar("tanh"),
       Vjp(lambda g, out: F.multiply(g, F.subtract(1, F.multiply(out, out)))), "fc")
unary("erf", lambda xp, x: erf(xp, x), _scalar("erf"),
       Vjp(lambda g, x: F.multiply(g, F.multiply(F.exp(F.negative(F.multiply(x, x))), 2 / math.sqrt(math.pi)))), "f",
       low=-3.5, high=3.5, reference=lambda x: np.vectorize(math.erf, otypes=[np.float64])(x).astype(x.dtype))


def normal_density(x: Any) -> Any:
    """``exp(-x*x/2) / sqrt(2 pi)``, in public functions."""
    scaled = F.multiply(x, math.sqrt(0.5))
    return F.multiply(1 / math.sqrt(2 * math.pi), F.exp(F.negative(F.multiply(scaled, scaled))))


def _ndtr(xp: Any, x: Any) -> Any:
    half = x.dtype.type(0.5)
    return half + half * erf(xp, x * x.dtype.type(math.sqrt(0.5)))


_erfc = np.vectorize(math.erfc, otypes=[np.float64])
unary("ndtr", _ndtr, _scalar("ndtr"), Vjp(lambda g, x: F.multiply(g, normal_density(x))), "f", low=-3.5, high=3.5,
      reference=lambda x: (_erfc(-x.astype(np.float64) / math.sqrt(2)) / 2).astype(x.dtype), tolerance=4.0)
for _name in ("floor", "ceil", "trunc"):
    unary(_name, _plain(_name), _scalar(_name), None, "f", special=(*_EDGES, 0.5, -0.5, 1e9))
unary("round", lambda xp, x: xp.rint(x), _scalar("round"), None, "fc", reference=np.rint,
       special=(*_EDGES, 0.5, 1.5, -0.5, 2.5))


def _sigmoid(xp: Any, x: Any) -> Any:
    one = x.dtype.type(1)
    if x.dtype.itemsize < 4:
        return (1 / (1 + xp.exp(-x.astype(np.float32)))).astype(x.dtype)
    return one / (one + xp.exp(-x))


unary("sigmoid", quiet(_sigmoid), _scalar("sigmoid"),
       Vjp(lambda g, out: F.multiply(g, F.multiply(out, F.subtract(1, out)))), "f",
       reference=lambda x: ((1 + np.tanh(x.astype(np.float64) / 2)) / 2).astype(x.dtype))
unary("relu", lambda xp, x: xp.maximum(x, x.dtype.type(0)), lambda x: operate("max", x, 0),
       Vjp(lambda g, out: F.where(F.greater(out, 0), g, 0)), "iuf", _NUMBERS,
       reference=lambda x: np.where(x < 0, np.zeros_like(x), x))
unary("logical_not", _plain("logical_not"), _scalar("not"), None, "b", (np.bool_,), special=())
unary("bitwise_not", _plain("invert"), _scalar("not"), None, "biu", (np.int32, np.int64, np.uint8, np.bool_), special=(),
       reference=np.invert)
unary("isnan", _plain("isnan"), _scalar("isnan"), None, "fc", result=lambda dtype: BOOL)
unary("isinf", _plain("isinf"), _scalar("isinf"), None, "fc", result=lambda dtype: BOOL)


def _cast_infer(x: ArrayType, *, dtype: np.dtype) -> tuple[ArrayType, ...]:
    return (ArrayType(x.shape, np.dtype(dtype)),)


def _cast_lower(x: Any, *, dtype: np.dtype) -> Any:
    from ..scalar import cast

    dtype = np.dtype(dtype)
    return where(operate("ne", x, 0), constant(True, BOOL), constant(False, BOOL)) if dtype == BOOL else cast(x, dtype)


def _cast_vjp(g: Any, x_type: ArrayType) -> Any:
    if kind_of(x_type.dtype) not in "fc":
        return None
    return F.astype(F.real(g) if g.dtype.kind == "c" and x_type.dtype.kind != "c" else g, x_type.dtype, copy=False)


def _cast_samples() -> Iterator[Sample]:
    for source in (np.float64, np.float32, np.int32, np.int64, np.uint8, np.bool_):
        for target in (np.float64, np.float32, np.int32, np.int64, np.uint8, np.bool_):
            low = 0.0 if target is np.uint8 else -5.0
            x = random_array(1, (3, 4), source, low, 5.0)
            yield Sample((x,), {"dtype": np.dtype(target)}, lambda x, dtype: x.astype(dtype))
    yield Sample((np.array(1.5),), {"dtype": np.dtype(np.float32)}, lambda x, dtype: x.astype(dtype))
    yield Sample((np.zeros((0, 3)),), {"dtype": np.dtype(np.int32)}, lambda x, dtype: x.astype(dtype))


def _cast(xp: Any, x: Any, *, dtype: np.dtype) -> Any:
    return allocation.array(x, dtype) if xp is np and x.flags.c_contiguous else x.astype(dtype)


register(Op(
    "cast", ("x",), _cast_infer, quiet(_cast),
    {"x": Vjp(_cast_vjp)},
    Elementwise(_cast_lower), _cast_samples,
))


def _identity_infer(x: ArrayType) -> tuple[ArrayType, ...]:
    return (x,)


def _copy(xp: Any, x: Any) -> Any:
    return allocation.array(x) if xp is np else xp.array(x, order="C")


def _identity_samples() -> Iterator[Sample]:
    for dtype in (np.float64, np.float32, np.int64, np.bool_):
        yield Sample((random_array(1, (3, 4), dtype),), {}, lambda x: x)
    yield Sample((random_array(1, ()),), {}, lambda x: x)
    yield Sample((random_array(1, (0, 2)),), {}, lambda x: x)


register(Op("stop_gradient", ("x",), _identity_infer, lambda xp, x: x, NONDIFF, Elementwise(lambda x: x),
            _identity_samples, traits=frozenset({"view"})))
register(Op("copy", ("x",), _identity_infer, _copy, {"x": Vjp(lambda g: g)},
            Elementwise(lambda x: x), _identity_samples))
register(Op("barrier", ("x",), _identity_infer, _copy, {"x": Vjp(lambda g: g)},
            Elementwise(lambda x: x), _identity_samples))
"""The same values, which no pass takes for the same array: what is computed from them is computed again."""
