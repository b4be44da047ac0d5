"""Elementwise functions of two arrays of one dtype, broadcast as in NumPy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from .. import functions as F
from ..array import is_literal, literal_value
from ..op import NONDIFF, OPAQUE, ArrayType, Elementwise, Op, Sample, Vjp, register
from ..scalar import bitcast, cast, constant, operate, where
from .base import BOOL, broadcast_shapes, expect_kind, expect_same_dtype, fail, kind_of, quiet, random_array

__all__ = ["binary"]

_FLOATS = (np.float64, np.float32)
_NUMBERS = (np.float64, np.float32, np.int32, np.int64)
_INTEGERS = (np.int32, np.int64, np.uint8, np.uint32)


def binary(
    name: str, eager: Callable, lower: str | Callable | None, vjp: dict[str, Vjp] | None, kinds: str, dtypes: tuple,
    reference: Callable | None = None, result: np.dtype | None = None, samples: Callable | None = None,
    ranges: tuple[tuple[float, float], tuple[float, float]] = ((-3.0, 3.0), (-3.0, 3.0)), tolerance: float = 1.0,
) -> Op:
    """Register one row. `ranges` bound the samples of x and y; `result` is the dtype of the result where it isn't theirs.

    `lower` is the name of a scalar operation, a function of two Scalars, or None for OPAQUE.
    """

    def infer(x: ArrayType, y: ArrayType) -> tuple[ArrayType, ...]:
        dtype = expect_same_dtype(name, "xy", (x, y))
        expect_kind(name, "x", dtype, kinds)
        return (ArrayType(broadcast_shapes(name, x.shape, y.shape), dtype if result is None else result),)

    def made() -> Iterator[Sample]:
        check = reference or getattr(np, name)
        for dtype in dtypes:
            for k, (a, b) in enumerate((((3, 4), (3, 4)), ((3, 1), (4,)), ((2, 1, 3), (4, 1)))):
                arrays = random_array(2 * k, a, dtype, *ranges[0]), random_array(2 * k + 1, b, dtype, *ranges[1])
                yield Sample(arrays, {}, check, tolerance=tolerance)
        for a, b in (((), ()), ((5,), ()), ((0, 3), (1, 3)), ((0,), (1,))):
            arrays = random_array(8, a, dtypes[0], *ranges[0]), random_array(9, b, dtypes[0], *ranges[1])
            yield Sample(arrays, {}, check, tolerance=tolerance)

    if lower is None:
        rule: Any = OPAQUE
    else:
        rule = Elementwise(lower if callable(lower) else lambda x, y: operate(lower, x, y))
    return register(Op(name, ("x", "y"), infer, eager, vjp or NONDIFF, rule, samples or made))


def _plain(name: str) -> Callable:
    return lambda xp, x, y: getattr(xp, name)(x, y)


def _quiet(name: str) -> Callable:
    return quiet(_plain(name))


binary("add", _plain("add"), "add", {"x": Vjp(lambda g: g), "y": Vjp(lambda g: g)}, "iufc", _NUMBERS)
binary("subtract", _plain("subtract"), "sub", {"x": Vjp(lambda g: g), "y": Vjp(lambda g: F.negative(g))}, "iufc", _NUMBERS)
binary("multiply", _plain("multiply"), "mul",
       {"x": Vjp(lambda g, y: F.multiply(g, y)), "y": Vjp(lambda g, x: F.multiply(g, x))}, "iufc", _NUMBERS)
binary("divide", _quiet("divide"), "div",
       {"x": Vjp(lambda g, y: F.divide(g, y)), "y": Vjp(lambda g, out, y: F.negative(F.multiply(F.divide(g, y), out)))},
       "fc", _FLOATS, ranges=((-3.0, 3.0), (0.5, 3.0)))


def _floor_divide_eager(xp: Any, x: Any, y: Any) -> Any:
    """NumPy's, but for infinities, where it is ``floor(x / y)`` as in the Array API (NumPy: NaN, or -1 for 1 // -inf)."""
    out = xp.floor_divide(x, y)
    if kind_of(x.dtype) == "f" and not (xp.isfinite(x).all() and xp.isfinite(y).all()):
        out = xp.where(xp.isinf(x) | xp.isinf(y), xp.floor(xp.divide(x, y)), out)
    return out


def _floor_divide_lower(x: Any, y: Any) -> Any:
    out = operate("floordiv", x, y)
    if kind_of(x.dtype) != "f":
        return out
    return where(operate("isinf", x) | operate("isinf", y), operate("floor", operate("div", x, y)), out)


binary("floor_divide", quiet(_floor_divide_eager), _floor_divide_lower, None, "iuf", (np.float64, np.float32, *_INTEGERS),
       ranges=((-9.0, 9.0), (1.0, 4.0)))
binary("remainder", _quiet("remainder"), "mod",
       {"x": Vjp(lambda g: g), "y": Vjp(lambda g, x, y: F.negative(F.multiply(g, F.floor_divide(x, y))))},
       "iuf", (np.float64, np.float32, *_INTEGERS), ranges=((-9.0, 9.0), (1.0, 4.0)))


def _power_x(g: Any, x: Any, y: Any) -> Any:
    """``g * y * x**(y - 1)``, and 0 where y is 0 (also for x = 0)."""
    if is_literal(y):
        exponent = float(literal_value(y))
        return F.multiply(g, F.multiply(F.power(x, exponent - 1), exponent)) if exponent else F.zeros_like(x)
    zero = F.equal(y, 0)
    return F.multiply(g, F.where(zero, 0, F.multiply(y, F.power(x, F.where(zero, 1, F.subtract(y, 1))))))


def _power_y(g: Any, x: Any, out: Any) -> Any:
    """``g * out * log(x)``, and 0 where x is 0."""
    return F.multiply(g, F.multiply(out, F.log(F.where(F.equal(x, 0), 1, x))))


def _power_eager(xp: Any, x: Any, y: Any) -> Any:
    """NumPy's, but for its square roots of -0 and -inf where the exponent is 0.5: 0 and inf are the powers."""
    out = xp.asarray(xp.power(x, y))
    if x.dtype.kind != "f" or not (half := y == 0.5).any():
        return out
    special = half & ((x == 0) | (x == -np.inf))
    return xp.where(special, xp.abs(x), out) if special.any() else out


binary("power", quiet(_power_eager), "pow", {"x": Vjp(_power_x), "y": Vjp(_power_y)}, "iufc", (np.float64, np.float32, np.int32),
       ranges=((0.5, 3.0), (0.0, 3.0)), tolerance=4.0)


def _extremum_vjp(larger: bool, mine: str) -> Vjp:
    """The cotangent goes to the chosen argument; where both are equal, half of it to each."""

    def share(g: Any, own: Any, other: Any) -> Any:
        wins = F.greater(own, other) if larger else F.less(own, other)
        return F.multiply(g, F.where(wins, 1, F.where(F.equal(own, other), 0.5, F.zeros_like(g))))

    return Vjp((lambda g, x, y: share(g, x, y)) if mine == "x" else (lambda g, x, y: share(g, y, x)))


for _name, _scalar, _larger in (("maximum", "max", True), ("minimum", "min", False)):
    binary(_name, _plain(_name), _scalar, {"x": _extremum_vjp(_larger, "x"), "y": _extremum_vjp(_larger, "y")}, "iuf", _NUMBERS)


def _hypot_lower(x: Any, y: Any) -> Any:
    """``a * sqrt(1 + (b/a)**2)`` with a the larger size: nothing overflows in between."""
    a, b = operate("abs", x), operate("abs", y)
    large, small = operate("max", a, b), operate("min", a, b)
    ratio = small / where(large.equals(0), 1, large)
    out = large * operate("sqrt", ratio * ratio + 1)
    infinite = operate("isinf", x) | operate("isinf", y)
    return where(infinite, constant(np.inf, x.dtype), out)


def _share(x: Any, out: Any) -> Any:
    return F.divide(x, F.where(F.equal(out, 0), 1, out))


def _copysign_lower(x: Any, y: Any) -> Any:
    size = operate("abs", x)
    bits = {4: np.int32, 8: np.int64}.get(x.dtype.itemsize)
    if bits is not None:
        return where(bitcast(y, bits) < 0, -size, size)
    return where((y < 0) | (y.equals(0) & (constant(1, y.dtype) / y < 0)), -size, size)


def _copysign_vjp(g: Any, x: Any, y: Any) -> Any:
    return F.where(F.equal(F.signbit(x), F.signbit(y)), g, F.negative(g))


def _arctan2_x(g: Any, x: Any, y: Any) -> Any:
    return F.divide(F.multiply(g, y), F.add(F.multiply(x, x), F.multiply(y, y)))


def _arctan2_y(g: Any, x: Any, y: Any) -> Any:
    return F.negative(F.divide(F.multiply(g, x), F.add(F.multiply(x, x), F.multiply(y, y))))


binary("hypot", _quiet("hypot"), _hypot_lower,
       {"x": Vjp(lambda g, x, out: F.multiply(g, _share(x, out))), "y": Vjp(lambda g, y, out: F.multiply(g, _share(y, out)))},
       "f", _FLOATS, tolerance=2.0)
binary("copysign", _quiet("copysign"), _copysign_lower, {"x": Vjp(_copysign_vjp)}, "f", _FLOATS)
binary("nextafter", _quiet("nextafter"), None, None, "f", _FLOATS)
binary("arctan2", _plain("arctan2"), "atan2", {"x": Vjp(_arctan2_x), "y": Vjp(_arctan2_y)}, "f", _FLOATS)
for _name, _scalar in (("bitwise_and", "and"), ("bitwise_or", "or"), ("bitwise_xor", "xor")):
    binary(_name, _plain(_name), _scalar, None, "biu", (*_INTEGERS, np.bool_), ranges=((-9.0, 9.0), (-9.0, 9.0)))


binary("gcd", _plain("gcd"), None, None, "iu", (np.int32, np.int64, np.uint8), ranges=((-20.0, 20.0), (-20.0, 20.0)))
binary("lcm", _plain("lcm"), None, None, "iu", (np.int32, np.int64, np.uint8), ranges=((-9.0, 9.0), (-9.0, 9.0)))


def _shift(name: str, scalar: str) -> Op:
    def infer(x: ArrayType, y: ArrayType) -> tuple[ArrayType, ...]:
        expect_kind(name, "x", x.dtype, "iu")
        expect_kind(name, "y", y.dtype, "iu")
        return (ArrayType(broadcast_shapes(name, x.shape, y.shape), x.dtype),)

    def samples() -> Iterator[Sample]:
        for dtype in _INTEGERS:
            yield Sample((random_array(1, (3, 4), dtype, -9, 9), random_array(2, (4,), dtype, 0, 5)), {}, getattr(np, name))
        yield Sample((random_array(1, (), np.int32, 0, 9), random_array(2, (), np.int32, 0, 5)), {}, getattr(np, name))

    return register(Op(
        name, ("x", "y"), infer, lambda xp, x, y: getattr(xp, name)(x, y.astype(x.dtype, copy=False)), NONDIFF,
        Elementwise(lambda x, y: operate(scalar, x, cast(y, x.dtype))), samples,
    ))


_shift("left_shift", "shl")
_shift("right_shift", "shr")


# -- comparisons

for _name, _scalar in (("equal", "eq"), ("not_equal", "ne"), ("less", "lt"), ("less_equal", "le"), ("greater", "gt"),
                       ("greater_equal", "ge")):
    binary(_name, _plain(_name), _scalar, None, "biufc" if _scalar in ("eq", "ne") else "biuf",
           (np.float64, np.float32, *_INTEGERS, np.bool_), result=BOOL, ranges=((-2.0, 2.0), (-2.0, 2.0)))


def _where_infer(condition: ArrayType, x: ArrayType, y: ArrayType) -> tuple[ArrayType, ...]:
    if condition.dtype != BOOL:
        fail("where", "dtype of condition", "bool", condition.dtype, TypeError)
    dtype = expect_same_dtype("where", "xy", (x, y))
    return (ArrayType(broadcast_shapes("where", condition.shape, x.shape, y.shape), dtype),)


def _where_samples() -> Iterator[Sample]:
    for dtype in (*_NUMBERS, np.bool_, np.uint8):
        for c, x, y in (((3, 4), (3, 4), (3, 4)), ((3, 1), (4,), ()), ((), (2, 3), (3,)), ((2, 1, 3), (1, 2, 1), (3,))):
            yield Sample((random_array(1, c, np.bool_), random_array(2, x, dtype), random_array(3, y, dtype)), {}, np.where)
    yield Sample((np.zeros((0, 2), bool), np.zeros((0, 2)), np.zeros((2,))), {}, np.where)


def _where_eager(xp: Any, condition: Any, x: Any, y: Any) -> Any:
    return xp.where(condition, x, y)


register(Op(
    "where", ("condition", "x", "y"), _where_infer, _where_eager,
    {"x": Vjp(lambda g, condition: F.where(condition, g, 0)), "y": Vjp(lambda g, condition: F.where(condition, 0, g))},
    Elementwise(lambda condition, x, y: operate("select", condition, x, y)), _where_samples,
))
