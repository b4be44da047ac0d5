"""The scalar-expression language in which an `Op` says what one element of its result is.

A `Scalar` is a typed expression tree: constants, sizes, index variables, elements of the arguments, and the
operations of `OPERATIONS`. Python operators and the functions below build it, so a lowering rule reads like
the formula: ``lambda x: where(x > 0, x, 0.01 * x)``. The compiler turns the tree into loop IR, where the same
operation names apply to vectors.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from .dims import Dim, Size

__all__ = ["OPERATIONS", "Element", "Operation", "Scalar", "cast", "constant", "index_variable", "operate", "size", "where"]


@dataclass(frozen=True)
class Operation:
    """One scalar operation: how many operands it has, the dtype of its result and its meaning in NumPy.

    `result`: "same" (the operands' common dtype), "bool", or "second" (that of the second operand).
    """

    name: str
    arity: int
    result: str
    evaluate: Callable[..., Any]


def _mulhi(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return ((np.asarray(a, np.uint64) * np.asarray(b, np.uint64)) >> np.uint64(32)).astype(np.uint32)


def _erf(x: np.ndarray) -> np.ndarray:
    import math

    return np.vectorize(math.erf, otypes=[np.float64])(x).astype(np.asarray(x).dtype)


def _ndtr(x: np.ndarray) -> np.ndarray:
    import math

    return np.vectorize(lambda v: math.erfc(-v / math.sqrt(2)) / 2, otypes=[np.float64])(x).astype(np.asarray(x).dtype)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    one = np.asarray(x).dtype.type(1)
    return one / (one + np.exp(-x))


_SAME: dict[str, tuple[int, Callable[..., Any]]] = {
    "neg": (1, np.negative), "abs": (1, np.abs), "sign": (1, np.sign),
    "exp": (1, np.exp), "expm1": (1, np.expm1), "log": (1, np.log), "log1p": (1, np.log1p), "log2": (1, np.log2),
    "sqrt": (1, np.sqrt), "sin": (1, np.sin), "cos": (1, np.cos), "tan": (1, np.tan), "tanh": (1, np.tanh),
    "asin": (1, np.arcsin), "acos": (1, np.arccos), "atan": (1, np.arctan), "sinh": (1, np.sinh), "cosh": (1, np.cosh),
    "erf": (1, _erf), "ndtr": (1, _ndtr), "sigmoid": (1, _sigmoid),
    "floor": (1, np.floor), "ceil": (1, np.ceil), "trunc": (1, np.trunc), "round": (1, np.rint),
    "add": (2, np.add), "sub": (2, np.subtract), "mul": (2, np.multiply), "div": (2, np.divide),
    "floordiv": (2, np.floor_divide), "mod": (2, np.mod), "pow": (2, np.power), "atan2": (2, np.arctan2),
    "min": (2, np.minimum), "max": (2, np.maximum),  # both propagate NaN
    "and": (2, np.bitwise_and), "or": (2, np.bitwise_or), "xor": (2, np.bitwise_xor), "not": (1, np.invert),
    "shl": (2, np.left_shift), "shr": (2, np.right_shift), "mulhi": (2, _mulhi),  # upper half of a uint32 product
    "fma": (3, lambda a, b, c: a * b + c),
}
_BOOL: dict[str, tuple[int, Callable[..., Any]]] = {
    "eq": (2, np.equal), "ne": (2, np.not_equal), "lt": (2, np.less), "le": (2, np.less_equal),
    "gt": (2, np.greater), "ge": (2, np.greater_equal), "isnan": (1, np.isnan), "isinf": (1, np.isinf),
}
OPERATIONS: dict[str, Operation] = {
    **{n: Operation(n, a, "same", f) for n, (a, f) in _SAME.items()},
    **{n: Operation(n, a, "bool", f) for n, (a, f) in _BOOL.items()},
    "select": Operation("select", 3, "second", np.where),
}
"""All operations but ``cast`` (value, dtype) and ``bitcast``, whose result dtype is a part of the node."""


@dataclass(frozen=True, eq=False)
class Scalar:
    """`op` applied to `args`, of NumPy dtype `dtype`.

    Leaves: ``constant`` (args = the value), ``size`` (a `Dim` or int), ``index`` (the name of an index
    variable), ``element`` (the argument's number, then one int64 Scalar an axis).
    """

    op: str
    args: tuple
    dtype: np.dtype

    def __add__(self, o): return operate("add", self, o)
    def __radd__(self, o): return operate("add", o, self)
    def __sub__(self, o): return operate("sub", self, o)
    def __rsub__(self, o): return operate("sub", o, self)
    def __mul__(self, o): return operate("mul", self, o)
    def __rmul__(self, o): return operate("mul", o, self)
    def __truediv__(self, o): return operate("div", self, o)
    def __rtruediv__(self, o): return operate("div", o, self)
    def __floordiv__(self, o): return operate("floordiv", self, o)
    def __mod__(self, o): return operate("mod", self, o)
    def __neg__(self): return operate("neg", self)
    def __and__(self, o): return operate("and", self, o)
    def __rand__(self, o): return operate("and", o, self)
    def __or__(self, o): return operate("or", self, o)
    def __ror__(self, o): return operate("or", o, self)
    def __xor__(self, o): return operate("xor", self, o)
    def __rxor__(self, o): return operate("xor", o, self)
    def __invert__(self): return operate("not", self)
    def __lshift__(self, o): return operate("shl", self, o)
    def __rshift__(self, o): return operate("shr", self, o)
    def __lt__(self, o): return operate("lt", self, o)
    def __le__(self, o): return operate("le", self, o)
    def __gt__(self, o): return operate("gt", self, o)
    def __ge__(self, o): return operate("ge", self, o)
    def equals(self, o): return operate("eq", self, o)
    def differs(self, o): return operate("ne", self, o)

    def __bool__(self) -> bool:
        raise TypeError("a Scalar has no truth value while an op is being lowered; write where(condition, a, b)")


class Element:
    """An argument of an op while its lowering rule runs: ``x[i, j]`` is the Scalar that reads one element.

    `shape` and `dtype` are the argument's; a 0-d argument is read with ``x[()]``.
    """

    __slots__ = ("dtype", "number", "shape")

    def __init__(self, number: int, shape: tuple[Size, ...], dtype: Any):
        self.number, self.shape, self.dtype = number, shape, np.dtype(dtype)

    def __getitem__(self, index: Any) -> Scalar:
        index = index if isinstance(index, tuple) else (index,)
        if len(index) != len(self.shape):
            raise IndexError(f"{len(index)} indices for an argument of {len(self.shape)} dimensions")
        return Scalar("element", (self.number, *(_scalar(i, np.dtype(np.int64)) for i in index)), self.dtype)


def constant(value: Any, dtype: Any) -> Scalar:
    """A constant of the given dtype."""
    dtype = np.dtype(dtype)
    return Scalar("constant", (dtype.type(value).item() if dtype.kind in "biuf" else value,), dtype)


def size(value: Size) -> Scalar:
    """A dimension (a number, or a symbol known when the program is called) as an int64."""
    return Scalar("size", (value,), np.dtype(np.int64)) if isinstance(value, Dim) else constant(value, np.int64)


def index_variable(name: str) -> Scalar:
    """An int64 index variable: the position along one axis of the result or of a reduction."""
    return Scalar("index", (name,), np.dtype(np.int64))


def operate(name: str, *operands: Any) -> Scalar:
    """Apply one of `OPERATIONS`; Python numbers and sizes take the dtype of the Scalars beside them."""
    operation = OPERATIONS[name]
    if len(operands) != operation.arity:
        raise TypeError(f"{name} takes {operation.arity} operands, got {len(operands)}")
    typed = operands[1:] if name == "select" else operands
    dtypes = {o.dtype for o in typed if isinstance(o, Scalar)}
    if len(dtypes) > 1:
        raise TypeError(f"{name}: operands of dtypes {sorted(map(str, dtypes))}; cast them to one")
    dtype = dtypes.pop() if dtypes else np.dtype(np.int64 if all(isinstance(o, (int, Dim)) for o in typed) else np.float32)
    args = tuple(_scalar(o, dtype) for o in operands)
    return Scalar(name, args, np.dtype(np.bool_) if operation.result == "bool" else dtype)


def cast(x: Scalar, dtype: Any) -> Scalar:
    """Convert the value to another dtype, as NumPy's astype does."""
    return x if x.dtype == np.dtype(dtype) else Scalar("cast", (x,), np.dtype(dtype))


def bitcast(x: Scalar, dtype: Any) -> Scalar:
    """Read the same bits as another dtype of the same width."""
    return Scalar("bitcast", (x,), np.dtype(dtype))


def where(condition: Scalar, a: Any, b: Any) -> Scalar:
    """`a` where the condition holds, else `b`; only the chosen one is read if it is an element."""
    return operate("select", condition, a, b)


def _scalar(value: Any, dtype: np.dtype) -> Scalar:
    if isinstance(value, Scalar):
        return value
    return size(value) if isinstance(value, Dim) else constant(value, dtype)
