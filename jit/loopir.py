"""Loop IR: what kernels are made of before they become LLVM or CUDA.

The whole grammar:

    type      Type(dtype, lanes)                      lanes > 1 is a vector
    expr      Const(value, type) | Var(name, type)    immutable: loop variables, parameters, names bound by Let
            | Get(name, type)                         current value of a register
            | Load(buffer, index, type, mask)         scalar index: contiguous lanes; vector index: a gather
            | Apply(op, args, type)                   every operation, elementwise over lanes
    stmt      Let(name, value)                        binds a Var for the rest of the enclosing body
            | Register(name, value) | Set(name, value)    declares, assigns a mutable register
            | Store(buffer, index, value, mask)       scalar index: contiguous lanes; vector index: a scatter, in lane order
            | For(var, start, stop, step, body, unroll, apart)   var runs from start while var < stop
            | If(condition, then, otherwise) | Prefetch(buffer, index)
    kernel    Kernel(name, buffers, parameters, task, body)
    buffer    Buffer(name, dtype, access, size)

Values of loop variables, parameters and indices are int64 and count elements, not bytes. A kernel is run for every
task number in a range; tasks are independent, so they may run on any thread in any order. A masked-off lane of a
Load is 0 and its memory is not touched. `Apply` knows the operations of `ndarray.scalar.OPERATIONS` and those of
`VECTOR_OPERATIONS`. Integer floordiv and mod are floor division, as in Python. Parameters are sizes, not negative,
unless their names begin with z; arithmetic on int64 scalars doesn't overflow.

Nodes are frozen and compared by structure; a body is a tuple of statements.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple, dataclass_transform

from ndarray.scalar import OPERATIONS

__all__ = [
    "BOOL", "INT", "VECTOR_OPERATIONS", "Apply", "Buffer", "Const", "Expr", "For", "Get", "If", "Kernel", "Let", "Load",
    "Prefetch", "Register", "Set", "Stmt", "Store", "Type", "Var", "apply", "const", "walk_exprs", "walk_statements",
]


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def _node(cls):
    """A frozen, slotted dataclass whose hash is computed once (trees are deep, and hashed often), in the slot `_hash`."""
    cls = dataclass(frozen=True, slots=True)(cls)
    structural = cls.__hash__

    def cached(self):
        try:
            return self._hash
        except AttributeError:
            value = structural(self)
            object.__setattr__(self, "_hash", value)
            return value

    cls.__hash__ = cached
    return cls


class _Hash:
    __slots__ = ("_hash",)


class Type(NamedTuple):
    """A NumPy dtype name and a number of lanes (1 for a scalar)."""

    dtype: str
    lanes: int = 1

    def with_lanes(self, lanes: int) -> Type:
        return self if lanes == self.lanes else Type(self.dtype, lanes)

    def __str__(self) -> str:
        return self.dtype if self.lanes == 1 else f"{self.dtype}x{self.lanes}"


INT = Type("int64")
BOOL = Type("bool")


class Expr:
    """Base of expressions. The hash is computed once; Python operators build `Apply` nodes."""

    __slots__ = ()
    type: Type

    def __add__(self, o): return apply("add", self, o)
    def __radd__(self, o): return apply("add", o, self)
    def __sub__(self, o): return apply("sub", self, o)
    def __rsub__(self, o): return apply("sub", o, self)
    def __mul__(self, o): return apply("mul", self, o)
    def __rmul__(self, o): return apply("mul", o, self)
    def __truediv__(self, o): return apply("div", self, o)
    def __floordiv__(self, o): return apply("floordiv", self, o)
    def __mod__(self, o): return apply("mod", self, o)
    def __and__(self, o): return apply("and", self, o)
    def __or__(self, o): return apply("or", self, o)
    def __lt__(self, o): return apply("lt", self, o)
    def __le__(self, o): return apply("le", self, o)
    def __gt__(self, o): return apply("gt", self, o)
    def __ge__(self, o): return apply("ge", self, o)
    def equals(self, o): return apply("eq", self, o)

    def __bool__(self) -> bool:
        raise TypeError("a loop-IR expression has no truth value; build an If or a select")


class _Hashed(Expr):
    __slots__ = ("_hash",)


@_node
class Const(_Hashed):
    """A number; with lanes, the same in every lane. Compared by its text: 0.0 is not -0.0, and NaN is itself."""

    value: Any
    type: Type

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, Const) or self.type != other.type:
            return False
        return self.value is other.value or repr(self.value) == repr(other.value)

    def __hash__(self) -> int:
        return hash((repr(self.value), self.type))


@_node
class Var(_Hashed):
    """An immutable name: a loop variable, a kernel parameter, the task number, or one bound by `Let`."""

    name: str
    type: Type = INT


@_node
class Get(_Hashed):
    """The value that a register holds at this point of the program."""

    name: str
    type: Type


@_node
class Load(_Hashed):
    """Element(s) of a buffer. `mask` (bool, as many lanes) switches lanes off; they read as 0 without touching memory."""

    buffer: str
    index: Expr
    type: Type
    mask: Expr | None = None


@_node
class Apply(_Hashed):
    """`op` on `args`, elementwise over lanes; all arguments have the lanes of the result unless the op says otherwise."""

    op: str
    args: tuple[Expr, ...]
    type: Type


VECTOR_OPERATIONS = {
    "cast": 1,  # to the node's dtype, as NumPy's astype
    "bitcast": 1,  # same bits, same width
    "splat": 1,  # a scalar into every lane
    "ramp": 2,  # (base, step) scalars: base, base + step, ...
    "lane": 2,  # (vector, constant lane number) -> scalar
    "reduce_add": 1, "reduce_mul": 1, "reduce_max": 1, "reduce_min": 1,  # vector -> scalar, in a fixed tree order:
    # lower half + upper half, lane by lane, until one lane is left (lanes are a power of two)
    "reduce_and": 1, "reduce_or": 1,
    "reverse": 1,  # lanes in reverse order
    "concat": 2,  # two vectors of one length into one of twice the length
    "interleave": 2,  # a0 b0 a1 b1 ...
    "even": 1, "odd": 1,  # lanes 0, 2, 4 ... and 1, 3, 5 ...
    "dot4": 3,  # int32 c, a, b -> c + the sum of 4 products of a byte of a (unsigned) and one of b (signed), modulo 2**32
    "dot2": 3,  # the same of 2 products of signed halves
}
"""Operations beyond the scalar ones: name -> number of arguments."""


# -- statements

@_node
class Let(_Hash):
    name: str
    value: Expr


@_node
class Register(_Hash):
    name: str
    value: Expr


@_node
class Set(_Hash):
    name: str
    value: Expr


@_node
class Store(_Hash):
    buffer: str
    index: Expr
    value: Expr
    mask: Expr | None = None


@_node
class For(_Hash):
    """``for var in range(start, stop, step)`` with a positive constant step; `unroll` asks for that many copies. `apart`: it may
    become a function, which kernels with an equal loop share; it has registers of its own only. For what takes hundreds of
    cycles."""

    var: str
    start: Expr
    stop: Expr
    step: int
    body: tuple[Stmt, ...]
    unroll: int = 1
    apart: bool = False


@_node
class If(_Hash):
    condition: Expr
    then: tuple[Stmt, ...]
    otherwise: tuple[Stmt, ...] = ()


@_node
class Prefetch(_Hash):
    """Bring the cache line with ``buffer[index]`` near (into the second level), if there is such a place; a hint without
    any effect on results."""

    buffer: str
    index: Expr


Stmt = Let | Register | Set | Store | For | If | Prefetch


@_node
class Buffer(_Hash):
    """Memory that a kernel touches. access: "read", "write" (every element it may touch is written before it is read),
    "readwrite", or "scratch": private to the worker, with `size` elements, of undefined content when a task begins.
    Buffers are aligned to 64 bytes and do not overlap, except that one storage may be bound to a "read" and a "write"
    buffer of an elementwise kernel that reads each element before it writes it (`Kernel.in_place`)."""

    name: str
    dtype: str
    access: str
    size: Expr | None = None


@_node
class Kernel(_Hash):
    """``for task in range(first, last): body``, with buffers and int64 parameters from outside. Equal under any name; the hash
    is that of the statements without their expressions, which are ten times as many."""

    name: str = field(compare=False)
    buffers: tuple[Buffer, ...]
    parameters: tuple[str, ...]
    task: str
    body: tuple[Stmt, ...]
    in_place: bool = False

    def __hash__(self) -> int:
        return hash((self.buffers, self.parameters, tuple(map(_outline, walk_statements(self.body)))))

    def __str__(self) -> str:
        from .show import show_kernel

        return show_kernel(self)


def _outline(s: Stmt) -> tuple[Any, ...]:
    """What is cheap to compare of a statement."""
    if isinstance(s, For):
        return s.var, s.step, s.unroll, len(s.body)
    if isinstance(s, If):
        return len(s.then), len(s.otherwise)
    return (s.buffer,) if isinstance(s, Store | Prefetch) else (s.name, s.value.type)


# -- construction

def const(value: Any, type: Type = INT) -> Const:
    """A constant; int64 unless said otherwise."""
    return Const(value, type)


class _Bools(dict):
    def __missing__(self, lanes: int) -> Type:
        return self.setdefault(lanes, Type("bool", lanes))


_BOOLS = _Bools({1: BOOL})
_PREDICATES = frozenset(n for n, o in OPERATIONS.items() if o.result == "bool")


def apply(op: str, *args: Any) -> Expr:
    """`Apply` of an operation of `OPERATIONS`, with the type inferred: Python numbers take the type of the expressions
    beside them and scalars are splatted to the lanes of vectors. Integer arithmetic with constants is simplified.
    """
    if len(args) == 2:  # the common case, quickly
        a, b = args
        if isinstance(a, Expr) and (b.__class__ is int or isinstance(b, Expr)):
            kind = a.type
            if b.__class__ is int:
                b = Const(b, kind)
            if b.type is kind or b.type == kind:
                return _simplify(op, (a, b), _BOOLS[kind.lanes] if op in _PREDICATES else kind)
    exprs = [a for a in args if isinstance(a, Expr)]
    lanes = max(a.type.lanes for a in exprs)
    typed = [a for a in (args[1:] if op == "select" else args) if isinstance(a, Expr)]
    dtype = typed[0].type.dtype if typed else "float32"
    operands = tuple(_operand(a, dtype, lanes) for a in args)
    if op != "select" and len({o.type.dtype for o in operands}) > 1:
        raise TypeError(f"{op}: operands of types {[str(o.type) for o in operands]}")
    type = Type("bool" if op in _PREDICATES else dtype, lanes)
    return _simplify(op, operands, type)


def _operand(value: Any, dtype: str, lanes: int) -> Expr:
    if not isinstance(value, Expr):
        return Const(value, Type(dtype, lanes))
    if value.type.lanes == lanes:
        return value
    if value.type.lanes != 1:
        raise TypeError(f"lanes of {value.type} do not fit {lanes}")
    return splat(value, lanes)


def splat(value: Expr, lanes: int) -> Expr:
    """A scalar in every lane."""
    if lanes == 1:
        return value
    type = value.type.with_lanes(lanes)
    return Const(value.value, type) if isinstance(value, Const) else Apply("splat", (value,), type)


def ramp(base: Expr, step: Expr | int, lanes: int) -> Expr:
    """base, base + step, base + 2*step, ..."""
    step = step if isinstance(step, Expr) else Const(step, base.type)
    return Apply("ramp", (base, step), base.type.with_lanes(lanes)) if lanes > 1 else base


def cast(value: Expr, dtype: str) -> Expr:
    """The value converted to another dtype."""
    return value if value.type.dtype == dtype else Apply("cast", (value,), Type(dtype, value.type.lanes))


def _simplify(op: str, args: tuple[Expr, ...], type: Type) -> Expr:
    """x+0, x*1, x*0, x//1, x%1 and arithmetic of constants, for integers only."""
    if len(args) == 2 and type.dtype == "int64":
        a, b = args
        x = a.value if isinstance(a, Const) else None
        y = b.value if isinstance(b, Const) else None
        if x is None and y is None:
            return Apply(op, args, type)
        if x is not None and y is not None and op in ("add", "sub", "mul", "floordiv", "mod", "min", "max"):
            if not (op in ("floordiv", "mod") and y == 0):
                return Const(int(OPERATIONS[op].evaluate(x, y)), type)
        if op == "add" and x == 0:
            return b
        if op in ("add", "sub") and y == 0:
            return a
        if op == "mul" and (x == 0 or y == 0):
            return Const(0, type)
        if op == "mul" and x == 1:
            return b
        if op in ("mul", "floordiv") and y == 1:
            return a
        if op == "mod" and y == 1:
            return Const(0, type)
        if op == "add" and y is not None and isinstance(a, Apply) and a.op == "add" and isinstance(a.args[1], Const):
            return _simplify("add", (a.args[0], Const(a.args[1].value + y, type)), type)
    return Apply(op, args, type)


# -- traversal

def children(expr: Expr) -> tuple[Expr, ...]:
    """The sub-expressions of a node."""
    if isinstance(expr, Apply):
        return expr.args
    if isinstance(expr, Load):
        return (expr.index,) if expr.mask is None else (expr.index, expr.mask)
    return ()


def walk_exprs(expr: Expr) -> Iterator[Expr]:
    """The node and everything under it, parents first."""
    yield expr
    for child in children(expr):
        yield from walk_exprs(child)


def walk_statements(body: tuple[Stmt, ...]) -> Iterator[Stmt]:
    """Every statement in a body, outermost first."""
    for statement in body:
        yield statement
        if isinstance(statement, For):
            yield from walk_statements(statement.body)
        elif isinstance(statement, If):
            yield from walk_statements(statement.then)
            yield from walk_statements(statement.otherwise)
