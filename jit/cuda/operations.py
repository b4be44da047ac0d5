"""C++ text of each loop-IR operation: tables `{operation: pattern}`, one for each kind of dtype.

In a pattern ``{0}``, ``{1}``, ``{2}`` are the operands, ``{t}`` the C type of a value and ``{u}`` the unsigned type in which
its arithmetic wraps. All are pure, and none can trap or overflow; conversions, division, shifts and comparisons behave as in
`jit.llvm_ops`. The functions they call are in prelude.h.
"""

from __future__ import annotations

import math
import struct
from typing import Any

import numpy as np

from ..llvm_ops import NARROW, kind
from ..loopir import Type
from ..numerics import dtype_of

__all__ = ["BOOLEAN", "FLOAT", "INDEX", "MEMORY", "SIGNED", "UNSIGNED", "cast", "literal", "memory_type", "pattern", "value_type"]

VALUE = {"bool": "bool", "float16": "float32", "bfloat16": "float32"}
MEMORY = {"bool": "uint8", "float16": "uint16", "bfloat16": "uint16"}


def value_type(dtype: str) -> str:
    """The C type of a value in a register."""
    return VALUE.get(dtype, dtype)


def memory_type(dtype: str) -> str:
    """The C type of an element in memory."""
    return MEMORY.get(dtype, dtype)


_COMPARE = {"eq": "({0} == {1})", "ne": "({0} != {1})", "lt": "({0} < {1})", "le": "({0} <= {1})", "gt": "({0} > {1})",
            "ge": "({0} >= {1})"}
_SELECT = {"select": "({0} ? {1} : {2})"}

FLOAT = {
    "neg": "(-{0})", "abs": "magnitude({0})", "sign": "sign_of({0})", "sqrt": "root({0})",
    "floor": "down({0})", "ceil": "up({0})", "trunc": "towards_zero({0})", "round": "nearest({0})",
    "add": "({0} + {1})", "sub": "({0} - {1})", "mul": "({0} * {1})", "div": "({0} / {1})",
    "floordiv": "floor_quotient({0}, {1})", "mod": "floor_remainder({0}, {1})", "fma": "fused({0}, {1}, {2})",
    "min": "minimum({0}, {1})", "max": "maximum({0}, {1})",
    "isnan": "({0} != {0})", "isinf": "(magnitude({0}) == {infinity})", **_COMPARE, **_SELECT,
}
ROUNDED = ("sqrt", "add", "sub", "mul", "div", "floordiv", "mod", "fma")
"""Operations behind which a narrow float is rounded."""

_INTEGER = {
    "neg": "({t})(0 - ({u}){0})", "floor": "{0}", "ceil": "{0}", "trunc": "{0}", "round": "{0}",
    "add": "({t})(({u}){0} + ({u}){1})", "sub": "({t})(({u}){0} - ({u}){1})", "mul": "({t})(({u}){0} * ({u}){1})",
    "fma": "({t})(({u}){0} * ({u}){1} + ({u}){2})", "pow": "power<{t}>({0}, {1})",
    "and": "({t})({0} & {1})", "or": "({t})({0} | {1})", "xor": "({t})({0} ^ {1})", "not": "({t})(~{0})",
    "shl": "shift_left<{t}>({0}, {1})", "shr": "shift_right<{t}>({0}, {1})",
    "floordiv": "floor_div<{t}>({0}, {1})", "mod": "floor_mod<{t}>({0}, {1})",
    "min": "({0} < {1} ? {0} : {1})", "max": "({0} > {1} ? {0} : {1})", "sign": "sign_of<{t}>({0})",
    "isnan": "false", "isinf": "false", **_COMPARE, **_SELECT,
}
SIGNED = _INTEGER | {"abs": "({0} < 0 ? ({t})(0 - ({u}){0}) : {0})"}
UNSIGNED = _INTEGER | {"abs": "{0}", "mulhi": "({t})((uint64){0} * {1} >> 32)"}
BOOLEAN = {
    "and": "({0} & {1})", "or": "({0} | {1})", "xor": "({0} != {1})", "not": "(!{0})",
    "add": "({0} | {1})", "mul": "({0} & {1})", "max": "({0} | {1})", "min": "({0} & {1})", "abs": "{0}",
    "isnan": "false", "isinf": "false", **_COMPARE, **_SELECT,
}
INDEX = {
    "neg": "(-{0})", "add": "({0} + {1})", "sub": "({0} - {1})", "mul": "({0} * {1})", "fma": "({0} * {1} + {2})",
    "min": "({0} < {1} ? {0} : {1})", "max": "({0} > {1} ? {0} : {1})", "abs": "({0} < 0 ? -{0} : {0})",
    "floordiv": "floor_div<I>({0}, {1})", "mod": "floor_mod<I>({0}, {1})", **_COMPARE, **_SELECT,
}
"""Of sizes, loop variables and what is computed from them, none of which overflows."""
_TABLES = {"f": FLOAT, "i": SIGNED, "u": UNSIGNED, "b": BOOLEAN}


def pattern(op: str, dtype: str) -> str | None:
    """The pattern of an operation on operands of a dtype, its types filled in; None where there is none."""
    found = _TABLES[kind(dtype)].get(op)
    if found is None:
        return None
    type = value_type(dtype)
    for name, text in (("{t}", type), ("{u}", _wrapping(type)), ("{infinity}", "INF64" if dtype == "float64" else "INF32")):
        found = found.replace(name, text)
    return f"round_{dtype}({found})" if dtype in NARROW and op in ROUNDED else found


def _wrapping(type: str) -> str:
    return "uint64" if type in ("int64", "uint64") else "uint32"


# -- constants

def literal(value: Any, dtype: str) -> str:
    """The text of a constant, exact; integers wrap to the width."""
    k = kind(dtype)
    if k == "b":
        return "true" if value else "false"
    if k == "f":
        return _float(float(value), dtype)
    bits = int(dtype.lstrip("uint"))
    wrapped = int(value) & ((1 << bits) - 1)
    if k == "u":
        return f"({dtype}){wrapped}" if bits < 32 else f"{wrapped}u" if bits == 32 else f"{wrapped}ull"
    wrapped -= (wrapped >> (bits - 1)) << bits
    if wrapped == -(1 << 63):
        return "(-9223372036854775807ll - 1)"
    text = f"{wrapped}ll" if bits == 64 or wrapped == -(1 << 31) else f"{wrapped}"
    if bits < 64 and text.endswith("ll"):
        text = f"(int32){text}"
    return f"({dtype}){text}" if bits < 32 else f"({text})" if text.startswith(("-", "(")) else text


def _float(value: float, dtype: str) -> str:
    with np.errstate(over="ignore"):
        value = float(np.asarray(value).astype(dtype_of(dtype)))
    double = dtype == "float64"
    if math.isnan(value):
        bits = struct.unpack("<q", struct.pack("<d", value))[0]
        return ("-" if bits < 0 else "") + ("NAN64" if double else "NAN32")
    if math.isinf(value):
        return f"({'-' if value < 0 else ''}{'INF64' if double else 'INF32'})"
    text = repr(value) if double else f"{np.float32(value)!s}f"
    return f"({text})" if text.startswith("-") else text


# -- conversions

def cast(text: str, source: str, result: str) -> str:
    """The text of a value converted to another dtype."""
    k, r = kind(source), kind(result)
    if r == "b":
        return text if k == "b" else f"({text} != 0)"
    if r == "f":
        if result in NARROW:
            return text if source == result else f"round_{result}({text})" if k == "f" else f"round_{result}((float32){text})"
        return text if value_type(source) == value_type(result) else f"({result}){text}"
    if k == "f":  # narrow and unsigned results by way of a wider signed integer, so that in-range values of either sign wrap
        through = {"int8": "int32", "uint8": "int32", "int16": "int32", "uint16": "int32", "uint32": "int64"}.get(result)
        return f"({result})({through}){text}" if through else f"({result}){text}"
    return f"({result}){text}"


_BITS = {
    ("float32", "int32"): "__float_as_int", ("int32", "float32"): "__int_as_float",
    ("float32", "uint32"): "__float_as_uint", ("uint32", "float32"): "__uint_as_float",
    ("float64", "int64"): "__double_as_longlong", ("int64", "float64"): "__longlong_as_double",
}


def bitcast(text: str, source: Type, result: Type) -> str:
    """The text of the same bits as another dtype of the same width."""
    s, r = source.dtype, result.dtype
    if s == r:
        return text
    if s in NARROW:
        pattern = f"store_{s}({text})"
        return f"load_{r}({pattern})" if r in NARROW else f"({r}){pattern}"
    if r in NARROW:
        return f"load_{r}((uint16){text})"
    if (s, r) in _BITS:
        return f"{_BITS[s, r]}({text})"
    if s == "float64":
        return f"(uint64)__double_as_longlong({text})"
    return f"__longlong_as_double((int64){text})" if r == "float64" else f"({r}){text}"
