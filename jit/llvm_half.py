"""float16 and bfloat16 in LLVM IR: 16-bit patterns in memory, float32 in registers.

A value in a register is a float32 that the narrow type holds exactly. Arithmetic is float32's with a rounding behind it,
which is correct rounding for one operation (float32 has more than twice the digits). LLVM's own narrow types would do
the same where the machine converts them, but call library functions that nobody has loaded where it doesn't.

Formats: IEEE 754-2019 binary16; bfloat16 is the upper half of a binary32.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .loopir import Type

if TYPE_CHECKING:
    from .llvm import FunctionEmitter

__all__ = ["load_pattern", "round_double", "round_single", "store_pattern"]

_INFINITY, _QUIET = 0x7F800000, 0x400000
_SIGN, _MAGNITUDE = 0x80000000, 0x7FFFFFFF


class _Words:
    """Instructions on the lanes of float32 values and their bits."""

    def __init__(self, f: FunctionEmitter, lanes: int):
        from .llvm_ops import value_type

        self.f, self.lanes = f, lanes
        self.word, self.single = value_type(Type("int32", lanes)), value_type(Type("float32", lanes))
        self.double, self.short = value_type(Type("float64", lanes)), value_type(Type("int16", lanes))
        self.truth = value_type(Type("bool", lanes))
        self.half = "half" if lanes == 1 else f"<{lanes} x half>"

    def number(self, value: int) -> str:
        from .llvm_ops import literal

        return literal(value, Type("int32", self.lanes))

    def real(self, value: float) -> str:
        from .llvm_ops import literal

        return literal(value, Type("float32", self.lanes))

    def do(self, instruction: str, a: str, b: str | int) -> str:
        """An instruction on words; `b` may be a number."""
        right = self.number(b) if isinstance(b, int) else b
        return self.f.pure(f"{instruction} {self.word} {a}, {right}", a, right)

    def real_do(self, instruction: str, a: str, b: float) -> str:
        return self.f.pure(f"{instruction} {self.single} {a}, {self.real(b)}", a)

    def choose(self, condition: str, a: str, b: str) -> str:
        return self.f.pure(f"select {self.truth} {condition}, {self.word} {a}, {self.word} {b}", condition, a, b)

    def convert(self, instruction: str, a: str, source: str, result: str) -> str:
        return self.f.pure(f"{instruction} {source} {a} to {result}", a)

    def bits(self, a: str) -> str:
        return self.convert("bitcast", a, self.single, self.word)

    def value(self, a: str) -> str:
        return self.convert("bitcast", a, self.word, self.single)


def load_pattern(f: FunctionEmitter, t: Type, pattern: str) -> str:
    """The value of a pattern of 16 bits."""
    w = _Words(f, t.lanes)
    if t.dtype == "bfloat16":
        return w.value(w.do("shl", w.convert("zext", pattern, w.short, w.word), 16))
    if f.target.half:
        return w.convert("fpext", w.convert("bitcast", pattern, w.short, w.half), w.half, w.single)
    wide = w.convert("zext", pattern, w.short, w.word)
    magnitude = w.do("and", wide, 0x7FFF)
    shifted = w.do("shl", magnitude, 13)
    finite = w.bits(w.real_do("fmul", w.value(shifted), 2.0**112))  # moves the exponent's bias, also of subnormals
    special = w.do("or", shifted, _INFINITY)
    found = w.choose(w.do("icmp uge", magnitude, 0x7C00), special, finite)
    return w.value(w.do("or", found, w.do("shl", w.do("and", wide, 0x8000), 16)))


def store_pattern(f: FunctionEmitter, t: Type, value: str) -> str:
    """The pattern of 16 bits of a value that the narrow type holds."""
    w = _Words(f, t.lanes)
    if t.dtype == "bfloat16":
        return w.convert("trunc", w.do("lshr", w.bits(value), 16), w.word, w.short)
    if f.target.half:
        return w.convert("bitcast", w.convert("fptrunc", value, w.single, w.half), w.half, w.short)
    bits = w.bits(value)
    magnitude = w.do("and", bits, _MAGNITUDE)
    normal = w.do("sub", w.do("lshr", magnitude, 13), 112 << 10)
    safe = w.choose(w.do("icmp ult", magnitude, 0x38800000), magnitude, w.number(0))
    units = w.convert("fptoui", w.real_do("fmul", w.value(safe), 2.0**24), w.single, w.word)  # of the least subnormal
    found = w.choose(w.do("icmp ult", magnitude, 0x38800000), units, normal)
    special = w.choose(w.do("icmp ugt", magnitude, _INFINITY), w.number(0x7E00), w.number(0x7C00))
    found = w.choose(w.do("icmp uge", magnitude, _INFINITY), special, found)
    return w.convert("trunc", w.do("or", found, w.do("lshr", w.do("and", bits, _SIGN), 16)), w.word, w.short)


def round_single(f: FunctionEmitter, t: Type, value: str) -> str:
    """A float32 rounded to the narrow type, to nearest, ties to even."""
    w = _Words(f, t.lanes)
    if t.dtype == "float16" and f.target.half:
        return w.convert("fpext", w.convert("fptrunc", value, w.single, w.half), w.half, w.single)
    bits = w.bits(value)
    drop = 16 if t.dtype == "bfloat16" else 13
    odd = w.do("and", w.do("lshr", bits, drop), 1)
    nearest = w.do("and", w.do("add", w.do("add", bits, (1 << (drop - 1)) - 1), odd), -1 << drop)
    nan = w.do("and", w.do("or", bits, _QUIET), -1 << drop)
    magnitude = w.do("and", bits, _MAGNITUDE)
    if t.dtype == "float16":
        sign = w.do("and", bits, _SIGN)
        most = w.do("icmp ugt", w.do("and", nearest, _MAGNITUDE), 0x477FE000)  # beyond 65504
        nearest = w.choose(most, w.do("or", sign, _INFINITY), nearest)
        small = w.real_do("fsub", w.real_do("fadd", w.value(magnitude), 0.5), 0.5)  # subnormals: to multiples of 2**-24
        subnormal = w.do("or", w.bits(small), sign)
        nearest = w.choose(w.do("icmp ult", magnitude, 0x38800000), subnormal, nearest)
    return w.value(w.choose(w.do("icmp ugt", magnitude, _INFINITY), nan, nearest))


def round_double(f: FunctionEmitter, t: Type, value: str) -> str:
    """A float64 rounded to the narrow type, to nearest, ties to even; to bfloat16 by way of float32, as ml_dtypes does."""
    w = _Words(f, t.lanes)
    near = w.convert("fptrunc", value, w.double, w.single)
    if t.dtype == "bfloat16":
        return round_single(f, t, near)
    # Rounded to odd first: what float32 doesn't hold becomes the neighbour whose last bit is 1, so that the second rounding
    # sees on which side of a tie it was (Boldo and Melquiond, 2008).
    back = w.convert("fpext", near, w.single, w.double)
    size, other = (f.intrinsic("llvm.fabs", w.double, x) for x in (value, back))
    over = f.pure(f"fcmp ogt {w.double} {other}, {size}", other, size)
    bits = w.bits(near)
    odd = w.do("or", w.choose(over, w.do("add", bits, -1), bits), 1)
    inexact = f.pure(f"fcmp one {w.double} {value}, {back}", value, back)
    return round_single(f, t, w.value(w.choose(inexact, odd, bits)))
