"""LLVM instructions of each loop-IR operation: tables `{operation: builder}`, one for each kind of dtype.

A builder receives the function being emitted, the operands' type and their SSA names, and returns the result's name.
All of them are pure and none can trap, so the emitter may number and hoist them freely. Conversions, division,
shifts and comparisons behave as NumPy's: floor division, x//0 = 0 for integers, shifts beyond the width give 0 (or the
sign), NaN is propagated by min and max.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from .llvm_half import load_pattern, round_double, round_single, store_pattern
from .loopir import Type
from .numerics import dtype_of

if TYPE_CHECKING:
    from .llvm import FunctionEmitter

__all__ = [
    "BOOLEAN", "CASTS", "FLOAT", "HALF", "NARROW", "SIGNED", "UNSIGNED", "VECTOR", "Builder", "cast", "kind", "literal",
    "memory_type", "suffix", "value_type",
]

_SCALARS = {
    "bool": "i1", "int8": "i8", "uint8": "i8", "int16": "i16", "uint16": "i16", "int32": "i32", "uint32": "i32",
    "int64": "i64", "uint64": "i64", "float16": "float", "bfloat16": "float", "float32": "float", "float64": "double",
}
NARROW = {"float16", "bfloat16"}
_IN_MEMORY = {"bool": "i8", "float16": "i16", "bfloat16": "i16"}
_SUFFIXES = {"float": "f32", "double": "f64"}
_KINDS = {
    "bool": "b", "float16": "f", "bfloat16": "f", "float32": "f", "float64": "f", "int8": "i", "int16": "i",
    "int32": "i", "int64": "i", "uint8": "u", "uint16": "u", "uint32": "u", "uint64": "u",
}
_BITS = {"i1": 1, "i8": 8, "i16": 16, "i32": 32, "i64": 64, "float": 32, "double": 64}


def kind(dtype: str) -> str:
    """b (bool), i (signed), u (unsigned) or f (floating)."""
    return _KINDS[dtype]


@cache
def value_type(type: Type) -> str:
    """The LLVM type of a value: a bool is an i1, narrow floats are float32 (see `llvm_half`)."""
    scalar = _SCALARS[type.dtype]
    return scalar if type.lanes == 1 else f"<{type.lanes} x {scalar}>"


@cache
def memory_type(type: Type) -> str:
    """The LLVM type of a value in memory: a bool is an i8, a narrow float an i16."""
    scalar = _IN_MEMORY.get(type.dtype) or _SCALARS[type.dtype]
    return scalar if type.lanes == 1 else f"<{type.lanes} x {scalar}>"


@cache
def suffix(llvm_type: str) -> str:
    """How an intrinsic's name spells a type: v16f32 for <16 x float>."""
    if llvm_type.startswith("<"):
        lanes, scalar = llvm_type[1:-1].split(" x ")
        return f"v{lanes}{_SUFFIXES.get(scalar, scalar)}"
    return "p0" if llvm_type == "ptr" else _SUFFIXES.get(llvm_type, llvm_type)


def bits(type: Type) -> int:
    """Width of one lane of a value."""
    return _BITS[_SCALARS[type.dtype]]


@lru_cache(maxsize=4096)
def _literal(text: str, type: Type) -> str:
    scalar = _SCALARS[type.dtype]
    if type.lanes == 1:
        return text
    return "zeroinitializer" if text in ("0", "false", "0x0000000000000000") else f"splat ({scalar} {text})"


def literal(value: Any, type: Type) -> str:
    """The text of a constant; -0.0, NaN and infinities are exact. Integers wrap to the width."""
    k = _KINDS[type.dtype]
    if k == "b":
        text = "true" if value else "false"
    elif k == "f":
        text = _float(float(value), type.dtype)
    else:
        return _integer(int(value), type)
    return _literal(text, type)


@lru_cache(maxsize=4096)
def _integer(value: int, type: Type) -> str:
    width = bits(type)
    wrapped = value & ((1 << width) - 1)
    return _literal(str(wrapped - (1 << width) if wrapped >> (width - 1) else wrapped), type)


def _float(value: float, dtype: str) -> str:
    return _float_text(repr(value), dtype)  # repr tells -0.0 from 0.0


@lru_cache(maxsize=4096)
def _float_text(text: str, dtype: str) -> str:
    value = float(text)
    if dtype in NARROW:
        with np.errstate(over="ignore"):
            value = float(_rounded(value, dtype))
    if dtype == "float32":
        with np.errstate(over="ignore"):
            value = float(np.float32(value))
    return f"0x{struct.unpack('<Q', struct.pack('<d', value))[0]:016X}"


def _rounded(value: float, dtype: str) -> float:
    return float(np.asarray(value).astype(dtype_of(dtype)))


Builder = Callable[..., str]


# -- helpers that make builders

def _binary(instruction: str) -> Builder:
    return lambda f, t, a, b: f.pure(f"{instruction} {value_type(t)} {a}, {b}", a, b)


def _compare(predicate: str) -> Builder:
    return _binary(predicate)


def _intrinsic(name: str) -> Builder:
    return lambda f, t, *args: f.intrinsic(name, value_type(t), *args)


def _same(f: FunctionEmitter, t: Type, a: str) -> str:
    return a


def _false(f: FunctionEmitter, t: Type, a: str) -> str:
    return literal(False, Type("bool", t.lanes))


def _choose(f: FunctionEmitter, t: Type, c: str, a: str, b: str) -> str:
    """select, folded where the condition is known."""
    if c in ("true", "splat (i1 true)"):
        return a
    if c in ("false", "zeroinitializer"):
        return b
    if a == b:
        return a
    condition, ty = value_type(Type("bool", t.lanes)), value_type(t)
    return f.pure(f"select {condition} {c}, {ty} {a}, {ty} {b}", c, a, b)


def _predicate(f: FunctionEmitter, instruction: str, t: Type, a: str, b: str) -> str:
    return f.pure(f"{instruction} {value_type(t)} {a}, {b}", a, b)


def _bool_op(f: FunctionEmitter, op: str, t: Type, a: str, b: str) -> str:
    return f.pure(f"{op} {value_type(Type('bool', t.lanes))} {a}, {b}", a, b)


# -- floating point

def _float_minmax(instruction: str) -> Builder:
    def build(f: FunctionEmitter, t: Type, a: str, b: str) -> str:
        # one min/max instruction, which gives b where either is NaN, then a blend that puts a NaN of a back
        least = _choose(f, t, _predicate(f, instruction, t, a, b), a, b)
        return _choose(f, t, _predicate(f, "fcmp uno", t, a, a), a, least)

    return build


def _float_sign(f: FunctionEmitter, t: Type, a: str) -> str:
    zero, one, minus = literal(0, t), literal(1, t), literal(-1, t)
    below = _choose(f, t, _predicate(f, "fcmp olt", t, a, zero), minus, zero)
    signed = _choose(f, t, _predicate(f, "fcmp ogt", t, a, zero), one, below)
    return _choose(f, t, _predicate(f, "fcmp uno", t, a, a), a, signed)


def _float_isinf(f: FunctionEmitter, t: Type, a: str) -> str:
    return _predicate(f, "fcmp oeq", t, f.intrinsic("llvm.fabs", value_type(t), a), literal(float("inf"), t))


def _float_fma(f: FunctionEmitter, t: Type, a: str, b: str, c: str) -> str:
    if f.target.fma:
        return f.intrinsic("llvm.fma", value_type(t), a, b, c)
    product = _predicate(f, "fmul", t, a, b)  # two roundings, as the interpreter has
    return _predicate(f, "fadd", t, product, c)


def _float_remainder(f: FunctionEmitter, t: Type, a: str, b: str) -> tuple[str, str, str]:
    """fmod(a, b), the same moved to the sign of b, and whether it was moved."""
    zero = literal(0, t)
    rest = _predicate(f, "frem", t, a, b)
    differ = _bool_op(f, "xor", t, _predicate(f, "fcmp olt", t, b, zero), _predicate(f, "fcmp olt", t, rest, zero))
    move = _bool_op(f, "and", t, _predicate(f, "fcmp une", t, rest, zero), differ)
    moved = _choose(f, t, move, _predicate(f, "fadd", t, rest, b), rest)
    return rest, moved, move


def _float_mod(f: FunctionEmitter, t: Type, a: str, b: str) -> str:
    rest, moved, _ = _float_remainder(f, t, a, b)
    zero = literal(0, t)
    signed = f.intrinsic("llvm.copysign", value_type(t), zero, b)
    result = _choose(f, t, _predicate(f, "fcmp oeq", t, moved, zero), signed, moved)
    return _choose(f, t, _predicate(f, "fcmp oeq", t, b, zero), rest, result)


def _float_floordiv(f: FunctionEmitter, t: Type, a: str, b: str) -> str:
    # as NumPy: exact multiples of b are divided, so that the quotient doesn't round up across an integer
    zero, one, ty = literal(0, t), literal(1, t), value_type(t)
    rest, _, move = _float_remainder(f, t, a, b)
    quotient = _predicate(f, "fdiv", t, _predicate(f, "fsub", t, a, rest), b)
    quotient = _choose(f, t, move, _predicate(f, "fsub", t, quotient, one), quotient)
    floor = f.intrinsic("llvm.floor", ty, quotient)
    over = _predicate(f, "fcmp ogt", t, _predicate(f, "fsub", t, quotient, floor), literal(0.5, t))
    floor = _choose(f, t, over, _predicate(f, "fadd", t, floor, one), floor)
    plain = _predicate(f, "fdiv", t, a, b)
    signed = f.intrinsic("llvm.copysign", ty, zero, plain)
    floor = _choose(f, t, _predicate(f, "fcmp oeq", t, quotient, zero), signed, floor)
    return _choose(f, t, _predicate(f, "fcmp oeq", t, b, zero), plain, floor)


FLOAT: dict[str, Builder] = {
    "neg": lambda f, t, a: f.pure(f"fneg {value_type(t)} {a}", a),
    "abs": _intrinsic("llvm.fabs"), "sign": _float_sign, "sqrt": _intrinsic("llvm.sqrt"),
    "floor": _intrinsic("llvm.floor"), "ceil": _intrinsic("llvm.ceil"), "trunc": _intrinsic("llvm.trunc"),
    "round": _intrinsic("llvm.rint"),
    "add": _binary("fadd"), "sub": _binary("fsub"), "mul": _binary("fmul"), "div": _binary("fdiv"),
    "floordiv": _float_floordiv, "mod": _float_mod, "fma": _float_fma,
    "min": _float_minmax("fcmp olt"), "max": _float_minmax("fcmp ogt"),
    "eq": _compare("fcmp oeq"), "ne": _compare("fcmp une"), "lt": _compare("fcmp olt"), "le": _compare("fcmp ole"),
    "gt": _compare("fcmp ogt"), "ge": _compare("fcmp oge"),
    "isnan": lambda f, t, a: _predicate(f, "fcmp uno", t, a, a), "isinf": _float_isinf, "select": _choose,
}


def _rounding(builder: Builder) -> Builder:
    return lambda f, t, *args: round_single(f, t, builder(f, t, *args))


HALF = FLOAT | {op: _rounding(FLOAT[op]) for op in ("sqrt", "add", "sub", "mul", "div", "floordiv", "mod", "fma")}
"""Narrow floats: float32's, rounded."""


# -- integers

def _constant(ref: str) -> int | None:
    """The value of an integer literal, also of a splat one."""
    if ref.startswith("splat ("):
        ref = ref[:-1].rsplit(" ", 1)[1]
    if ref == "zeroinitializer":
        return 0
    return int(ref) if ref.lstrip("-").isdigit() else None


def _signed_division(f: FunctionEmitter, t: Type, a: str, b: str) -> tuple[str, str, str, str]:
    """Truncated quotient and rest by a divisor that can't trap, whether to step down to the floor, and the divisor."""
    zero, ty = literal(0, t), value_type(t)
    divisor, known = b, _constant(b)
    if known is None or known in (0, -1):
        lowest = _predicate(f, "icmp eq", t, a, literal(-1 << (bits(t) - 1), t))
        overflow = _bool_op(f, "and", t, lowest, _predicate(f, "icmp eq", t, b, literal(-1, t)))
        unsafe = _bool_op(f, "or", t, _predicate(f, "icmp eq", t, b, zero), overflow)
        divisor = _choose(f, t, unsafe, literal(1, t), b)
    quotient = _predicate(f, "sdiv", t, a, divisor)
    rest = f.pure(f"sub {ty} {a}, {(product := _predicate(f, 'mul', t, quotient, divisor))}", a, product)
    differ = _predicate(f, "icmp slt", t, _predicate(f, "xor", t, rest, divisor), zero)
    down = _bool_op(f, "and", t, _predicate(f, "icmp ne", t, rest, zero), differ)
    return quotient, rest, down, divisor


def is_integer(ref: str) -> bool:
    """Whether an SSA name is the text of an integer."""
    return ref.lstrip("-").isdigit()


def power_of_two(ref: str) -> int | None:
    """The exponent, where a literal is a power of two."""
    value = _constant(ref)
    return value.bit_length() - 1 if value is not None and value > 0 and value & (value - 1) == 0 else None


def _signed_floordiv(f: FunctionEmitter, t: Type, a: str, b: str) -> str:
    if (shift := power_of_two(b)) is not None:
        return _predicate(f, "ashr", t, a, literal(shift, t)) if shift else a
    quotient, _, down, _ = _signed_division(f, t, a, b)
    floor = _choose(f, t, down, _predicate(f, "add", t, quotient, literal(-1, t)), quotient)
    if _constant(b):
        return floor
    return _choose(f, t, _predicate(f, "icmp eq", t, b, literal(0, t)), literal(0, t), floor)


def _signed_mod(f: FunctionEmitter, t: Type, a: str, b: str) -> str:
    if (shift := power_of_two(b)) is not None:
        return _predicate(f, "and", t, a, literal((1 << shift) - 1, t))
    _, rest, down, divisor = _signed_division(f, t, a, b)
    return _choose(f, t, down, _predicate(f, "add", t, rest, divisor), rest)


def _unsigned_floordiv(f: FunctionEmitter, t: Type, a: str, b: str) -> str:
    if (shift := power_of_two(b)) is not None:
        return _predicate(f, "lshr", t, a, literal(shift, t)) if shift else a
    if _constant(b):
        return _predicate(f, "udiv", t, a, b)
    none = _predicate(f, "icmp eq", t, b, literal(0, t))
    return _choose(f, t, none, literal(0, t), _predicate(f, "udiv", t, a, _choose(f, t, none, literal(1, t), b)))


def _unsigned_mod(f: FunctionEmitter, t: Type, a: str, b: str) -> str:
    if (shift := power_of_two(b)) is not None:
        return _predicate(f, "and", t, a, literal((1 << shift) - 1, t))
    none = _predicate(f, "icmp eq", t, b, literal(0, t))
    return _predicate(f, "urem", t, a, _choose(f, t, none, literal(1, t), b))  # x % 1 = 0


def _shift_left(f: FunctionEmitter, t: Type, a: str, b: str) -> str:
    count = _constant(b)
    if count is not None:
        return _predicate(f, "shl", t, a, b) if 0 <= count < bits(t) else literal(0, t)
    inside = _predicate(f, "icmp ult", t, b, literal(bits(t), t))
    return _choose(f, t, inside, _predicate(f, "shl", t, a, b), literal(0, t))


def _shift_right_unsigned(f: FunctionEmitter, t: Type, a: str, b: str) -> str:
    count = _constant(b)
    if count is not None:
        return _predicate(f, "lshr", t, a, b) if 0 <= count < bits(t) else literal(0, t)
    inside = _predicate(f, "icmp ult", t, b, literal(bits(t), t))
    return _choose(f, t, inside, _predicate(f, "lshr", t, a, b), literal(0, t))


def _shift_right_signed(f: FunctionEmitter, t: Type, a: str, b: str) -> str:
    count, most = _constant(b), literal(bits(t) - 1, t)
    if count is not None:
        return _predicate(f, "ashr", t, a, b if 0 <= count < bits(t) else most)
    return _predicate(f, "ashr", t, a, f.intrinsic("llvm.umin", value_type(t), b, most))


def _multiply_high(f: FunctionEmitter, t: Type, a: str, b: str) -> str:
    width = bits(t)
    narrow, wide = value_type(t), value_type(t).replace(f"i{width}", f"i{2 * width}")
    x = f.pure(f"zext {narrow} {a} to {wide}", a)
    y = f.pure(f"zext {narrow} {b} to {wide}", b)
    product = f.pure(f"mul {wide} {x}, {y}", x, y)
    count = str(width) if t.lanes == 1 else f"splat (i{2 * width} {width})"
    high = f.pure(f"lshr {wide} {product}, {count}", product)
    return f.pure(f"trunc {wide} {high} to {narrow}", high)


def _integer_fma(f: FunctionEmitter, t: Type, a: str, b: str, c: str) -> str:
    return _predicate(f, "add", t, _predicate(f, "mul", t, a, b), c)


def _signed_sign(f: FunctionEmitter, t: Type, a: str) -> str:
    zero = literal(0, t)
    below = _choose(f, t, _predicate(f, "icmp slt", t, a, zero), literal(-1, t), zero)
    return _choose(f, t, _predicate(f, "icmp sgt", t, a, zero), literal(1, t), below)


def _unsigned_sign(f: FunctionEmitter, t: Type, a: str) -> str:
    return _choose(f, t, _predicate(f, "icmp ne", t, a, literal(0, t)), literal(1, t), literal(0, t))


def _integer_power(f: FunctionEmitter, t: Type, a: str, b: str) -> str:
    """Square and multiply over all bits of the exponent, modulo 2**width; meant for exponents >= 0."""
    result, known = literal(1, t), _constant(b)
    for bit in range(bits(t) if known is None else max(known, 0).bit_length()):
        times = a if result == literal(1, t) else _predicate(f, "mul", t, result, a)
        if known is None:
            test = _predicate(f, "and", t, b, literal(1 << bit, t))
            result = _choose(f, t, _predicate(f, "icmp ne", t, test, literal(0, t)), times, result)
        elif known >> bit & 1:
            result = times
        a = _predicate(f, "mul", t, a, a)
    return result


_INTEGER: dict[str, Builder] = {
    "neg": lambda f, t, a: _predicate(f, "sub", t, literal(0, t), a),
    "floor": _same, "ceil": _same, "trunc": _same, "round": _same,
    "add": _binary("add"), "sub": _binary("sub"), "mul": _binary("mul"), "pow": _integer_power,
    "and": _binary("and"), "or": _binary("or"), "xor": _binary("xor"),
    "not": lambda f, t, a: _predicate(f, "xor", t, a, literal(-1, t)),
    "shl": _shift_left, "mulhi": _multiply_high, "fma": _integer_fma,
    "eq": _compare("icmp eq"), "ne": _compare("icmp ne"), "isnan": _false, "isinf": _false, "select": _choose,
}
SIGNED: dict[str, Builder] = {
    **_INTEGER,
    "abs": lambda f, t, a: f.intrinsic("llvm.abs", value_type(t), a, immediate="i1 false"), "sign": _signed_sign,
    "floordiv": _signed_floordiv, "mod": _signed_mod, "shr": _shift_right_signed,
    "min": _intrinsic("llvm.smin"), "max": _intrinsic("llvm.smax"),
    "lt": _compare("icmp slt"), "le": _compare("icmp sle"), "gt": _compare("icmp sgt"), "ge": _compare("icmp sge"),
}
UNSIGNED: dict[str, Builder] = {
    **_INTEGER,
    "abs": _same, "sign": _unsigned_sign, "floordiv": _unsigned_floordiv, "mod": _unsigned_mod,
    "shr": _shift_right_unsigned, "min": _intrinsic("llvm.umin"), "max": _intrinsic("llvm.umax"),
    "lt": _compare("icmp ult"), "le": _compare("icmp ule"), "gt": _compare("icmp ugt"), "ge": _compare("icmp uge"),
}
BOOLEAN: dict[str, Builder] = {
    "and": _binary("and"), "or": _binary("or"), "xor": _binary("xor"),
    "not": lambda f, t, a: _predicate(f, "xor", t, a, literal(True, t)),
    "add": _binary("or"), "mul": _binary("and"), "max": _binary("or"), "min": _binary("and"), "abs": _same,
    "eq": _compare("icmp eq"), "ne": _compare("icmp ne"), "lt": _compare("icmp ult"), "le": _compare("icmp ule"),
    "gt": _compare("icmp ugt"), "ge": _compare("icmp uge"), "isnan": _false, "isinf": _false, "select": _choose,
}


# -- conversions

def _convert(f: FunctionEmitter, instruction: str, a: str, source: Type, result: Type) -> str:
    if value_type(source) == value_type(result):
        return a
    return f.pure(f"{instruction} {value_type(source)} {a} to {value_type(result)}", a)


def _float_to_float(f: FunctionEmitter, a: str, source: Type, result: Type) -> str:
    if result.dtype in NARROW:
        return (round_double if source.dtype == "float64" else round_single)(f, result, a)
    return _convert(f, "fpext" if bits(source) < bits(result) else "fptrunc", a, source, result)


def _float_to_integer(f: FunctionEmitter, a: str, source: Type, result: Type) -> str:
    # Out-of-range values: what the machine's conversion gives (as NumPy); freeze makes that a defined value. Narrow and
    # unsigned results go through a wider signed integer, so that in-range values of either sign wrap.
    through = {"int8": "int32", "uint8": "int32", "int16": "int32", "uint16": "int32", "uint32": "int64"}
    middle = Type(through.get(result.dtype, result.dtype), result.lanes)
    instruction = "fptoui" if middle.dtype == "uint64" else "fptosi"
    frozen = f.pure(f"freeze {value_type(middle)} {(x := _convert(f, instruction, a, source, middle))}", x)
    return _convert(f, "trunc", frozen, middle, result)


def _integer_to_integer(f: FunctionEmitter, a: str, source: Type, result: Type) -> str:
    if bits(source) > bits(result):
        return _convert(f, "trunc", a, source, result)
    return _convert(f, "sext" if kind(source.dtype) == "i" else "zext", a, source, result)


def _integer_to_float(f: FunctionEmitter, a: str, source: Type, result: Type) -> str:
    number = _convert(f, "sitofp" if kind(source.dtype) == "i" else "uitofp", a, source, result)
    return round_single(f, result, number) if result.dtype in NARROW else number


CASTS: dict[tuple[str, str], Builder] = {
    ("f", "f"): _float_to_float,
    ("f", "i"): _float_to_integer,
    ("f", "b"): lambda f, a, s, r: _predicate(f, "fcmp une", s, a, literal(0, s)),
    ("i", "f"): _integer_to_float,
    ("i", "i"): _integer_to_integer,
    ("i", "b"): lambda f, a, s, r: _predicate(f, "icmp ne", s, a, literal(0, s)),
    ("b", "f"): lambda f, a, s, r: _choose(f, r, a, literal(1, r), literal(0, r)),
    ("b", "i"): lambda f, a, s, r: _convert(f, "zext", a, s, r),
    ("b", "b"): lambda f, a, s, r: a,
}
"""(kind of the operand, kind of the result) -> builder; unsigned counts as "i" here."""


def cast(f: FunctionEmitter, a: str, source: Type, result: Type) -> str:
    """The value converted as NumPy's astype does."""
    if source == result:
        return a
    return CASTS[kind(source.dtype).replace("u", "i"), kind(result.dtype).replace("u", "i")](f, a, source, result)


# -- whole vectors. These builders take (emitter, operand type, result type, operands).

def _mask(numbers: Any) -> str:
    return "<" + ", ".join(f"i32 {n}" for n in numbers) + ">"


def _shuffle(f: FunctionEmitter, t: Type, a: str, b: str, numbers: Any) -> str:
    numbers, type = tuple(numbers), value_type(t)
    return f.pure(f"shufflevector {type} {a}, {type} {b}, <{len(numbers)} x i32> {_mask(numbers)}", a, b)


def every_second(f: FunctionEmitter, t: Type, a: str, b: str, first: int) -> str:
    """Every second lane of `a`, then of `b`, from lane number `first` on: one instruction, where going through the vector of
    twice the length takes LLVM three times as long to compile to slower code."""
    return _shuffle(f, t, a, b, range(first, 2 * t.lanes, 2))


def splat(f: FunctionEmitter, t: Type, r: Type, a: str) -> str:
    """The scalar in every lane."""
    if r.lanes == 1:
        return a
    if not a.startswith("%"):
        return _literal(a, r)
    vector = value_type(r)
    first = f.pure(f"insertelement {vector} poison, {value_type(t)} {a}, i64 0", a)
    return f.pure(f"shufflevector {vector} {first}, {vector} poison, <{r.lanes} x i32> zeroinitializer", first)


def _ramp(f: FunctionEmitter, t: Type, r: Type, base: str, step: str) -> str:
    scalar, vector = value_type(t), value_type(r)
    known = _constant(step) if kind(t.dtype) in "iu" else None
    if known is not None:
        steps = "<" + ", ".join(f"{scalar} {literal(known * n, t)}" for n in range(r.lanes)) + ">"
    else:
        numbers = "<" + ", ".join(f"{scalar} {literal(n, t)}" for n in range(r.lanes)) + ">"
        spread = splat(f, t, r, step)
        steps = f.pure(f"{'fmul' if kind(t.dtype) == 'f' else 'mul'} {vector} {spread}, {numbers}", spread)
    spread = splat(f, t, r, base)
    return f.pure(f"{'fadd' if kind(t.dtype) == 'f' else 'add'} {vector} {spread}, {steps}", spread, steps)


def _lane(f: FunctionEmitter, t: Type, r: Type, a: str, number: str) -> str:
    return f.pure(f"extractelement {value_type(t)} {a}, i64 {number}", a)


def _reduce(op: str) -> Builder:
    def build(f: FunctionEmitter, t: Type, r: Type, a: str) -> str:
        """Lower half `op` upper half, until one lane is left."""
        lanes = t.lanes
        while lanes > 1:
            if lanes % 2:  # odd: the last lane joins the first
                raise ValueError(f"reduce_{op} of {t}: the number of lanes must be a power of two")
            wide, narrow = Type(t.dtype, lanes), Type(t.dtype, lanes // 2)
            if lanes == 2:
                low = f.pure(f"extractelement {value_type(wide)} {a}, i64 0", a)
                high = f.pure(f"extractelement {value_type(wide)} {a}, i64 1", a)
            else:
                low = _shuffle(f, wide, a, "poison", range(lanes // 2))
                high = _shuffle(f, wide, a, "poison", range(lanes // 2, lanes))
            a = f.table(t.dtype)[op](f, narrow, low, high)
            lanes //= 2
        return a

    return build


def _parts(f: FunctionEmitter, t: Type, word: str, count: int, signed: bool) -> list[str]:
    """The `count` equal parts of each int32, as int32."""
    width, found = 32 // count, []
    for j in range(count):
        if signed:
            left = _predicate(f, "shl", t, word, literal(32 - width * (j + 1), t)) if j < count - 1 else word
            found.append(_predicate(f, "ashr", t, left, literal(32 - width, t)))
        else:
            right = _predicate(f, "lshr", t, word, literal(width * j, t)) if j else word
            found.append(_predicate(f, "and", t, right, literal((1 << width) - 1, t)))
    return found


def _products(f: FunctionEmitter, t: Type, c: str, a: str, b: str, count: int, signed: bool) -> str:
    """c + the sum of the products of the parts of a and b, without an instruction for it."""
    for x, y in zip(_parts(f, t, a, count, signed), _parts(f, t, b, count, True)):
        c = _predicate(f, "add", t, c, _predicate(f, "mul", t, x, y))
    return c


def _dot4(f: FunctionEmitter, t: Type, r: Type, c: str, a: str, b: str) -> str:
    """One instruction with AVX-512 VNNI."""
    if f.target.ways < 4 or t.lanes not in (4, 8, 16):
        return _products(f, t, c, a, b, 4, False)
    vector = value_type(t)
    name = f"llvm.x86.avx512.vpdpbusd.{t.lanes * 32}"
    f.declarations.add(f"declare {vector} @{name}({vector}, {vector}, {vector})")
    return f.pure(f"call {vector} @{name}({vector} {c}, {vector} {a}, {vector} {b})", c, a, b)


_PAIRS = {4: "llvm.x86.sse2.pmadd.wd", 8: "llvm.x86.avx2.pmadd.wd", 16: "llvm.x86.avx512.pmaddw.d.512"}


def _dot2(f: FunctionEmitter, t: Type, r: Type, c: str, a: str, b: str) -> str:
    """Two instructions on x86; the sum of two products fits 32 bits but for -32768 four times, where it wraps as it should."""
    if f.target.ways < 2 or t.lanes not in _PAIRS or t.lanes * 4 > f.target.vector_bytes:
        return _products(f, t, c, a, b, 2, True)
    vector, halves = value_type(t), f"<{2 * t.lanes} x i16>"
    name = _PAIRS[t.lanes]
    f.declarations.add(f"declare {vector} @{name}({halves}, {halves})")
    a, b = (f.pure(f"bitcast {vector} {x} to {halves}", x) for x in (a, b))
    return _predicate(f, "add", t, c, f.pure(f"call {vector} @{name}({halves} {a}, {halves} {b})", a, b))


def _bitcast(f: FunctionEmitter, t: Type, r: Type, a: str) -> str:
    if t.dtype in NARROW and r.dtype in ("int16", "uint16"):
        return store_pattern(f, t, a)
    if r.dtype in NARROW and t.dtype in ("int16", "uint16"):
        return load_pattern(f, r, a)
    if bits(t) != bits(r):
        raise TypeError(f"bitcast from {t} to {r}: the widths differ")
    return _convert(f, "bitcast", a, t, r)


VECTOR: dict[str, Builder] = {
    "cast": lambda f, t, r, a: cast(f, a, t, r),
    "bitcast": _bitcast, "dot4": _dot4, "dot2": _dot2,
    "splat": splat, "ramp": _ramp, "lane": _lane,
    **{f"reduce_{op}": _reduce(op) for op in ("add", "mul", "max", "min", "and", "or")},
    "reverse": lambda f, t, r, a: _shuffle(f, t, a, "poison", range(t.lanes - 1, -1, -1)),
    "concat": lambda f, t, r, a, b: _shuffle(f, t, a, b, range(2 * t.lanes)),
    "interleave": lambda f, t, r, a, b: _shuffle(f, t, a, b, [k for i in range(t.lanes) for k in (i, t.lanes + i)]),
    "even": lambda f, t, r, a: _shuffle(f, t, a, "poison", range(0, t.lanes, 2)),
    "odd": lambda f, t, r, a: _shuffle(f, t, a, "poison", range(1, t.lanes, 2)),
}
