"""Loop IR -> LLVM IR text in its final form: `emit(kernels, names, target) -> str`.

No LLVM pass pipeline runs over the result, so the emitter does what one would do, while it walks the kernel once:

- registers become SSA values, with phi nodes where loops and branches assign them;
- pure expressions are numbered by their text: equal instructions on equal operands are emitted once;
- a pure instruction is placed in front of the outermost loop in which its operands are all known. Loads stay where
  they are; equal loads with no store between them are shared;
- int64 index arithmetic is kept as sums of terms, which are added outermost first, so that row addresses leave the
  inner loops and constant offsets become displacements;
- loops are unrolled as `For.unroll` asks, completely where the trip count is a known number not above it.

A scope is a loop body or an arm of a branch; `depth` counts scopes. Each has a list of lines that ends in its open
basic block, which is why an instruction appended to an outer scope dominates everything emitted later inside.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from ndarray.scalar import OPERATIONS

from . import llvm_ops as ops
from .apart import Functions, Loop
from .launch import _ITEMSIZE, SIGNED
from .llvm_half import load_pattern, store_pattern
from .loopir import (
    INT,
    Apply,
    Const,
    Expr,
    For,
    Get,
    If,
    Kernel,
    Let,
    Load,
    Prefetch,
    Register,
    Set,
    Stmt,
    Store,
    Type,
    Var,
)
from .target import Target

__all__ = ["emit", "function", "module"]


def emit(kernels: Sequence[Kernel], names: Sequence[str], target: Target) -> str:
    """The text of an LLVM module that defines one function for each kernel, under the given symbol names.

    The functions have the calling convention of `jit.launch`. Raises TypeError for an operation that the operands'
    dtype doesn't have and ValueError for a malformed kernel, both naming the kernel.
    """
    apart = Functions()
    return module([function(k, n, target, apart) for k, n in zip(kernels, names, strict=True)], target, apart)


class Function(NamedTuple):
    """The definition of a function, and the declarations of what it calls. `counts`: it touches no memory itself, all that it
    does is to count and to call."""

    text: str
    declarations: set[str]
    counts: bool


def function(kernel: Kernel, name: str, target: Target, apart: Functions) -> Function:
    """The definition of one function, as `emit`; loops that become functions are added to `apart`."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(max(limit, 20_000))  # fused expressions can be deep
    try:
        try:
            return FunctionEmitter(kernel, name, target, set(), apart).function()
        except UndefinedOperation:  # perhaps a function such as exp, which nobody has expanded yet
            return FunctionEmitter(_expanded(kernel), name, target, set(), apart).function()
    finally:
        sys.setrecursionlimit(limit)


def module(functions: Sequence[Function], target: Target, apart: Functions | None = None) -> str:
    """The text of a module of these functions, and of those that have been added to `apart` since it was asked last."""
    declarations = set[str]().union(*[f.declarations for f in functions])
    texts, declarations = apart.take(declarations) if apart else ([], declarations)
    width = 8 * target.vector_bytes
    attributes = f'attributes #0 = {{ nounwind "prefer-vector-width"="{width}" "no-trapping-math"="true" }}'
    zeros = "@hybrid.zeros = internal constant [64 x i8] zeroinitializer, align 64"
    texts += [f.text for f in functions]
    return "\n".join([f'target triple = "{target.triple}"', zeros, *texts, *sorted(declarations), attributes, ""])


class UndefinedOperation(TypeError):
    """There is no instruction for an operation on operands of that dtype."""


def _expanded(kernel: Kernel) -> Kernel:
    """Functions such as exp written out in primitive operations."""
    from .vector_math import expand

    return expand(kernel)


class Sum(NamedTuple):
    """An int64 value as constant + sum of coefficient * SSA value."""

    terms: tuple[tuple[str, int], ...]
    constant: int


class FunctionEmitter:
    """Emits one kernel. `pure`, `intrinsic`, `table` and `target` are what the builders of `llvm_ops` use."""

    def __init__(self, kernel: Kernel, name: str, target: Target, declarations: set[str], apart: Functions):
        self.kernel, self.name, self.target, self.declarations, self.apart = kernel, name, target, declarations, apart
        self.counter = 0
        self.lines: list[list[Any]] = [[]]  # of each open scope; the last is the innermost
        self.known: dict[str, str] = {}  # pure instruction -> SSA name, of all open scopes
        self.placed: list[list[str]] = [[]]  # of each open scope: the pure instructions in it
        self.is_loop: list[bool] = [False]
        self.destination = [0]  # depth of an instruction's operands -> depth of the scope that it belongs to
        self.depths: dict[str, int] = {}  # SSA name -> depth of the scope in which it is defined
        self.block = "entry"  # label of the open block of the innermost scope
        self.variables: dict[str, str | Sum] = {}
        self.registers: dict[str, str] = {}
        self.register_types: dict[str, Type] = {}
        self.buffers: dict[str, str] = {}
        self.dtypes = {b.name: b.dtype for b in kernel.buffers}
        self.elements = {b.name: ops.memory_type(Type(b.dtype)) for b in kernel.buffers}
        self.assignments: dict[int, tuple[dict[str, None], set[str]]] = {}  # see `_assigned`
        self.memo: dict[int, str] = {}  # expressions already emitted for the current statement
        self.loads: dict[tuple, str] = {}  # loads since the last store
        self.natural = {p for p in kernel.parameters if not p.startswith(SIGNED)} | {kernel.task}  # names of values >= 0
        self.counts = True

    # -- the frame
    def function(self) -> Function:
        """The function."""
        try:
            self._prologue()
            self._loop(self.kernel.task, "%first", "%last", 1, self.kernel.body, 1)
        except (TypeError, ValueError, KeyError) as error:
            raise type(error)(f"kernel {self.kernel.name}: {error}") from error
        head = f'define void @{self.name}(ptr %buffers, ptr %parameters, i64 %first, i64 %last, ptr %scratch) #0 {{'
        return Function("\n".join([head, "entry:", *self.lines[0], "  ret void", "}"]), self.declarations, self.counts)

    def _part(self, s: For, part: Loop, symbol: str) -> str:
        """The definition of a function for a loop of this kernel."""
        inside = FunctionEmitter(self.kernel, symbol, self.target, self.apart.declarations, self.apart)
        inside.buffers = {b: f"%b{i}" for i, b in enumerate(part.buffers)}
        inside.variables = {v.name: f"%a{i}" for i, v in enumerate(part.variables)}
        for name in self.variables:
            if name not in inside.variables and (known := self._literal(name)) is not None:
                inside.variables[name] = Sum((), known)
        inside.natural = {v.name for v in part.variables if v.name in self.natural}
        inside._here(s)
        parameters = [f"ptr {b}" for b in inside.buffers.values()]
        parameters += [f"{ops.value_type(v.type)} {inside.variables[v.name]}" for v in part.variables]
        head = f"define hidden void @{symbol}({', '.join(parameters)}) #0 {{"
        return "\n".join([head, "entry:", *inside.lines[0], "  ret void", "}"])

    def _literal(self, name: str) -> int | None:
        """The value of a variable where that is a known number."""
        found = self.variables[name]
        if isinstance(found, Sum):
            return None if found.terms else found.constant
        return int(found) if found.lstrip("-").isdigit() else None

    def _prologue(self) -> None:
        """Buffer addresses and parameters, once a call."""
        number = 0
        for b in self.kernel.buffers:
            if b.access != "scratch":
                slot = self.pure(f"getelementptr ptr, ptr %buffers, i64 {number}")
                self.buffers[b.name] = self.line(f"load ptr, ptr {slot}, align 8")
                number += 1
        for number, parameter in enumerate(self.kernel.parameters):
            slot = self.pure(f"getelementptr i64, ptr %parameters, i64 {number}")
            self.variables[parameter] = self.line(f"load i64, ptr {slot}, align 8, !invariant.load !{{}}")
        place = "%scratch"
        for b in self.kernel.buffers:
            if b.access == "scratch":
                self.buffers[b.name] = place
                if b.size is None:
                    raise ValueError(f"scratch buffer {b.name} has no size")
                self.memo = {}
                count, item = self.value(b.size), _ITEMSIZE[b.dtype]
                nbytes = self.pure(f"add i64 {(r := self.pure(f'mul i64 {count}, {item}', count))}, 63", r)
                rounded = self.pure(f"and i64 {nbytes}, -64", nbytes)
                place = self.pure(f"getelementptr i8, ptr {place}, i64 {rounded}", place, rounded)

    # -- lines
    def fresh(self) -> str:
        self.counter += 1
        return f"%v{self.counter}"

    def label(self) -> str:
        self.counter += 1
        return f"l{self.counter}"

    def line(self, instruction: str) -> str:
        """Emit an instruction here, in the innermost scope."""
        name = self.fresh()
        self.lines[-1].append(f"  {name} = {instruction}")
        self.depths[name] = len(self.lines) - 1
        return name

    def pure(self, instruction: str, *operands: str) -> str:
        """Emit an instruction that has no effect and reads no memory, once, as far out as its operands allow."""
        found = self.known.get(instruction)
        if found is not None:
            return found
        depths, depth = self.depths, 0
        for operand in operands:
            if (at := depths.get(operand, 0)) > depth:
                depth = at
        depth = self.destination[depth]
        self.counter += 1
        name = self.known[instruction] = f"%v{self.counter}"
        self.lines[depth].append(f"  {name} = {instruction}")
        self.placed[depth].append(instruction)
        depths[name] = depth
        return name

    def _set_destinations(self) -> None:
        """In front of the outermost loop below each depth; code isn't moved out of a branch alone."""
        place = len(self.is_loop) - 1
        self.destination = [0] * len(self.is_loop)
        for depth in range(place, -1, -1):
            self.destination[depth] = place
            if self.is_loop[depth]:
                place = depth - 1

    def intrinsic(self, name: str, type: str, *operands: str, immediate: str = "") -> str:
        """A call of an overloaded intrinsic whose operands and result have one type."""
        full = f"{name}.{ops.suffix(type)}"
        extra = [immediate.split()[0]] if immediate else []
        self.declarations.add(f"declare {type} @{full}({', '.join([type] * len(operands) + extra)})")
        arguments = [f"{type} {o}" for o in operands] + ([immediate] if immediate else [])
        return self.pure(f"call {type} @{full}({', '.join(arguments)})", *operands)

    def table(self, dtype: str) -> dict[str, ops.Builder]:
        """The builders for operands of a dtype."""
        return ops.HALF if dtype in ops.NARROW else _TABLES[ops.kind(dtype)]

    # -- expressions
    def value(self, expr: Expr) -> str:
        """The SSA name or literal that holds an expression's value at this point."""
        found = self.memo.get(id(expr))
        if found is None:
            found = self.memo[id(expr)] = _EXPRESSIONS[type(expr)](self, expr)
        return found

    def _const(self, expr: Const) -> str:
        return ops.literal(expr.value, expr.type)

    def _var(self, expr: Var) -> str:
        found = self.variables[expr.name]
        return self._add_up(found) if isinstance(found, Sum) else found

    def _get(self, expr: Get) -> str:
        return self.registers[expr.name]

    def _apply(self, expr: Apply) -> str:
        op, operand = expr.op, expr.args[0].type
        if expr.type == INT and op in _LINEAR:
            return self._add_up(self.linear(expr))
        if op in ("even", "odd") and isinstance(pair := expr.args[0], Apply) and pair.op == "concat":
            left, right = map(self.value, pair.args)
            return ops.every_second(self, expr.type, left, right, int(op == "odd"))
        if op in ops.VECTOR:
            return ops.VECTOR[op](self, operand, expr.type, *map(self.value, expr.args))
        if expr.type == INT and op in ("floordiv", "mod") and all(map(self.is_natural, expr.args)):
            return self._natural_division(op, *map(self.value, expr.args))
        arguments = [self.value(a) for a in expr.args]
        typed = expr.args[1].type if op == "select" else operand
        if operand == INT and op in _FOLDED and all(a.lstrip("-").isdigit() for a in arguments):
            if op not in ("floordiv", "mod") or arguments[1] != "0":
                return ops.literal(OPERATIONS[op].evaluate(*map(int, arguments)), expr.type)
        builder = self.table(typed.dtype).get(op)
        if builder is None:
            raise UndefinedOperation(f"operation {op!r} isn't defined for operands of type {typed}")
        return builder(self, typed, *arguments)

    # -- index arithmetic
    def is_natural(self, expr: Expr) -> bool:
        """Whether an int64 scalar is known not to be negative: sizes, loop variables and what is computed from them."""
        if isinstance(expr, Var):
            return expr.name in self.natural
        if isinstance(expr, Const):
            return expr.value >= 0
        if not isinstance(expr, Apply) or expr.type != INT:
            return False
        if expr.op == "max":
            return any(map(self.is_natural, expr.args))
        return expr.op in ("add", "mul", "min", "floordiv", "mod") and all(map(self.is_natural, expr.args))

    def _natural_division(self, op: str, a: str, b: str) -> str:
        if ops.is_integer(a) and ops.is_integer(b) and b != "0":
            return ops.literal(OPERATIONS[op].evaluate(int(a), int(b)), INT)
        if ops.power_of_two(b) is not None:
            return self.table("int64")[op](self, INT, a, b)
        divisor = b if ops.is_integer(b) and b != "0" else self.intrinsic("llvm.umax", "i64", b, "1")
        quotient = self.pure(f"udiv i64 {a}, {divisor}", a, divisor)
        if op == "floordiv":
            if divisor is b:
                return quotient
            some = self.pure(f"icmp ne i64 {b}, 0", b)
            return self.pure(f"select i1 {some}, i64 {quotient}, i64 0", some, quotient)
        product = self.pure(f"mul i64 {quotient}, {divisor}", quotient, divisor)
        return self.pure(f"sub i64 {a}, {product}", a, product)

    def linear(self, expr: Expr) -> Sum:
        """A scalar int64 expression as a sum of terms."""
        if isinstance(expr, Const):
            return Sum((), int(expr.value))
        if isinstance(expr, Apply):
            if expr.op in _LINEAR and expr.type == INT:
                return _LINEAR[expr.op](self, *map(self.linear, expr.args))
        elif isinstance(expr, Var):
            found = self.variables[expr.name]
            if isinstance(found, Sum):
                return found
        value = self.value(expr)
        return Sum((), int(value)) if value.lstrip("-").isdigit() else Sum(((value, 1),), 0)

    def _multiply(self, a: Sum, b: Sum) -> Sum:
        if not a.terms or not b.terms:
            (a, b) = (b, a) if not a.terms else (a, b)
            if b.constant == 1:
                return a
            return Sum(tuple((n, c * b.constant) for n, c in a.terms) if b.constant else (), a.constant * b.constant)
        x, y = self._add_up(Sum(a.terms, 0)), self._add_up(Sum(b.terms, 0))
        product = Sum(((self.pure(f"mul i64 {x}, {y}", x, y), 1),), 0)
        if a.constant:
            product = _plus(self, product, self._multiply(b, Sum((), a.constant)))
            product = Sum(product.terms, product.constant - a.constant * b.constant)
        if b.constant:
            product = _plus(self, product, self._multiply(a, Sum((), b.constant)))
        return product

    def _ordered(self, terms: tuple[tuple[str, int], ...]) -> list[tuple[str, int]]:
        """Outermost first."""
        return sorted(terms, key=lambda term: self.depths.get(term[0], 0)) if len(terms) > 1 else list(terms)

    def _scaled(self, name: str, coefficient: int) -> str:
        return name if coefficient == 1 else self.pure(f"mul i64 {name}, {ops.literal(coefficient, INT)}", name)

    def _add_up(self, sum: Sum) -> str:
        total = ""
        for name, coefficient in self._ordered(sum.terms):
            if coefficient == -1 and total:
                total = self.pure(f"sub i64 {total}, {name}", total, name)
                continue
            term = self._scaled(name, coefficient)
            total = self.pure(f"add i64 {total}, {term}", total, term) if total else term
        constant = ops.literal(sum.constant, INT)
        if not total:
            return constant
        return total if constant == "0" else self.pure(f"add i64 {total}, {constant}", total)

    # -- memory
    def _address(self, buffer: str, index: Expr) -> str:
        """The address of an element, or a vector of addresses."""
        base, element = self.buffers[buffer], self.elements[buffer]
        if index.type.lanes > 1:
            places, vector = self.value(index), ops.value_type(index.type)
            return self.pure(f"getelementptr {element}, ptr {base}, {vector} {places}", base, places)
        if index.type != INT:
            raise TypeError(f"index of buffer {buffer} has type {index.type}, not int64")
        sum = self.linear(index)
        for name, coefficient in self._ordered(sum.terms):
            term = self._scaled(name, coefficient)
            base = self.pure(f"getelementptr {element}, ptr {base}, i64 {term}", base, term)
        offset = ops.literal(sum.constant, INT)
        return base if offset == "0" else self.pure(f"getelementptr {element}, ptr {base}, i64 {offset}", base)

    def _mask(self, mask: Expr | None) -> str | None:
        """None where every lane is on."""
        value = None if mask is None else self.value(mask)
        return None if value in ("true", "splat (i1 true)") else value

    def _load(self, expr: Load) -> str:
        address, mask = self._address(expr.buffer, expr.index), self._mask(expr.mask)
        key = (address, mask, expr.type, expr.index.type.lanes)
        found = self.loads.get(key)
        if found is None:
            found = self.loads[key] = self._read(expr, address, mask)
        return found

    def _read(self, expr: Load, address: str, mask: str | None) -> str:
        self.counts = False
        lanes, type = expr.type.lanes, ops.memory_type(expr.type)
        if expr.type.dtype != self.dtypes[expr.buffer]:
            raise TypeError(f"load of {expr.type} from buffer {expr.buffer} of {self.dtypes[expr.buffer]}")
        align = _ITEMSIZE[expr.type.dtype]
        if expr.index.type.lanes > 1:
            flags = mask or "splat (i1 true)"
            name = f"llvm.masked.gather.{ops.suffix(type)}.v{lanes}p0"
            self.declarations.add(f"declare {type} @{name}(<{lanes} x ptr>, i32, <{lanes} x i1>, {type})")
            operands = f"<{lanes} x ptr> {address}, i32 {align}, <{lanes} x i1> {flags}, {type} zeroinitializer"
            loaded = self.line(f"call {type} @{name}({operands})")
        elif mask is None:
            loaded = self.line(f"load {type}, ptr {address}, align {align}")
        elif lanes == 1:  # a switched-off load reads a zero that is always there
            place = self.pure(f"select i1 {mask}, ptr {address}, ptr @hybrid.zeros", mask, address)
            loaded = self.line(f"load {type}, ptr {place}, align {align}")
        else:
            name = f"llvm.masked.load.{ops.suffix(type)}.p0"
            self.declarations.add(f"declare {type} @{name}(ptr, i32, <{lanes} x i1>, {type})")
            operands = f"ptr {address}, i32 {align}, <{lanes} x i1> {mask}, {type} zeroinitializer"
            loaded = self.line(f"call {type} @{name}({operands})")
        if expr.type.dtype == "bool":
            zero = "zeroinitializer" if lanes > 1 else "0"
            loaded = self.pure(f"icmp ne {type} {loaded}, {zero}", loaded)
        return load_pattern(self, expr.type, loaded) if expr.type.dtype in ops.NARROW else loaded

    def _store(self, s: Store) -> None:
        self.counts = False
        value, address, mask = self.value(s.value), self._address(s.buffer, s.index), self._mask(s.mask)
        lanes, type, align = s.value.type.lanes, ops.memory_type(s.value.type), _ITEMSIZE[s.value.type.dtype]
        if s.value.type.dtype != self.dtypes[s.buffer]:
            raise TypeError(f"store of {s.value.type} to buffer {s.buffer} of {self.dtypes[s.buffer]}")
        if s.value.type.dtype == "bool":
            value = self.pure(f"zext {ops.value_type(s.value.type)} {value} to {type}", value)
        elif s.value.type.dtype in ops.NARROW:
            value = store_pattern(self, s.value.type, value)
        if s.index.type.lanes > 1:
            flags = mask or "splat (i1 true)"
            name = f"llvm.masked.scatter.{ops.suffix(type)}.v{lanes}p0"
            self.declarations.add(f"declare void @{name}({type}, <{lanes} x ptr>, i32, <{lanes} x i1>)")
            operands = f"{type} {value}, <{lanes} x ptr> {address}, i32 {align}, <{lanes} x i1> {flags}"
            self.effect(f"call void @{name}({operands})")
        elif mask is None:
            self.effect(f"store {type} {value}, ptr {address}, align {align}")
        elif lanes == 1:
            store, after = self.label(), self.label()
            self.effect(f"br i1 {mask}, label %{store}, label %{after}")
            self.lines[-1].append(f"{store}:")
            self.effect(f"store {type} {value}, ptr {address}, align {align}")
            self.effect(f"br label %{after}")
            self.lines[-1].append(f"{after}:")
            self.block = after
        else:
            name = f"llvm.masked.store.{ops.suffix(type)}.p0"
            self.declarations.add(f"declare void @{name}({type}, ptr, i32, <{lanes} x i1>)")
            self.effect(f"call void @{name}({type} {value}, ptr {address}, i32 {align}, <{lanes} x i1> {mask})")
        self.loads.clear()

    def _prefetch(self, s: Prefetch) -> None:
        self.counts = False
        self.declarations.add("declare void @llvm.prefetch.p0(ptr, i32, i32, i32)")
        self.effect(f"call void @llvm.prefetch.p0(ptr {self._address(s.buffer, s.index)}, i32 0, i32 2, i32 1)")

    def effect(self, instruction: str) -> None:
        """Emit an instruction without a result here."""
        self.lines[-1].append(f"  {instruction}")

    # -- statements
    def _body(self, body: tuple[Stmt, ...]) -> None:
        for statement in body:
            self.memo = {}
            _STATEMENTS[type(statement)](self, statement)

    def _let(self, s: Let) -> None:
        if s.value.type == INT:
            self._note(s.name, self.is_natural(s.value))
        if isinstance(s.value, Apply) and s.value.type == INT and s.value.op in _LINEAR:
            self.variables[s.name] = self.linear(s.value)
        else:
            self.variables[s.name] = self.value(s.value)

    def _note(self, name: str, natural: bool) -> None:
        (self.natural.add if natural else self.natural.discard)(name)

    def _register(self, s: Register | Set) -> None:
        self.registers[s.name] = self.value(s.value)
        self.register_types[s.name] = s.value.type

    def _call(self, s: For) -> bool:
        """Call a loop that is a function, if it can be one."""
        part = self.apart.describe(s, self._literal, self.natural.__contains__, self.dtypes)
        if part is None:
            return False
        types = ["ptr"] * len(part.buffers) + [ops.value_type(v.type) for v in part.variables]
        values = [self.buffers[b] for b in part.buffers] + [self._var(v) for v in part.variables]
        symbol = self.apart.symbol(part.key, ", ".join(types), lambda symbol: self._part(s, part, symbol), self.declarations)
        self.effect(f"call void @{symbol}({', '.join(f'{t} {v}' for t, v in zip(types, values))})")
        self.loads.clear()
        return True

    def _for(self, s: For) -> None:
        if not s.apart or not self._call(s):
            self._here(s)

    def _here(self, s: For) -> None:
        self._note(s.var, self.is_natural(s.start))
        self._loop(s.var, self.value(s.start), self.value(s.stop), s.step, s.body, max(1, s.unroll), s.apart)

    def _loop(
        self, var: str, start: str, stop: str, step: int, body: tuple[Stmt, ...], unroll: int, apart: bool = False
    ) -> None:
        trips = None
        if start.lstrip("-").isdigit() and stop.lstrip("-").isdigit():
            trips = max(0, -((int(start) - int(stop)) // step))
            if trips <= unroll and (unroll > 1 or trips == 0 or apart):
                return self._copies(var, Sum((), int(start)), step, body, trips)
        if unroll > 1:
            bound = ops.literal(int(stop) - (unroll - 1) * step, INT) if stop.lstrip("-").isdigit() else (
                self.pure(f"add i64 {stop}, {-(unroll - 1) * step}", stop))
            start = self._counted(var, start, bound, step, body, unroll)
            if trips is not None and trips % unroll == 0:
                return None
        self._counted(var, start, stop, step, body, 1)
        return None

    def _copies(self, var: str, first: Sum, step: int, body: tuple[Stmt, ...], copies: int) -> None:
        """The body `copies` times in straight line, with the variable counting up."""
        for copy in range(copies):
            known = self.variables.copy()
            self.variables[var] = Sum(first.terms, first.constant + copy * step)
            self._body(body)
            self.variables = known

    def _counted(self, var: str, start: str, bound: str, step: int, body: tuple[Stmt, ...], copies: int) -> str:
        """``while var < bound: body; var += step``, `copies` times a round. Returns the variable's value afterwards."""
        head, after, before = self.label(), self.label(), self.block
        i, following = self.fresh(), self.fresh()
        carried = self._assigned((body,))
        initial = {r: self.registers[r] for r in carried}
        enter = _known_less(start, bound)
        if enter is None:
            enter = self.pure(f"icmp slt i64 {start}, {bound}", start, bound)
        known = self.variables
        self.variables = known.copy()
        self._push(True, head)
        self.lines[-1].append(f"{head}:")
        at = len(self.lines[-1])
        phis = {r: self.fresh() for r in carried}
        for name in (i, *phis.values()):
            self.lines[-1].append("")
            self.depths[name] = len(self.lines) - 1
        self.depths[following] = len(self.lines) - 1
        self.registers.update(phis)
        self._copies(var, Sum(((i, 1),), 0), step, body, copies)
        latch = self.block
        # The counter passes through an empty assembly statement, so that LLVM's loop strength reduction finds nothing to do:
        # addresses are in their final form, and it took a third of the time to compile, growing with the square of the uses.
        stepped = self.line(f"add i64 {i}, {step * copies}")
        self.effect(f'{following} = call i64 asm "", "=r,0"(i64 {stepped})')
        again = self.line(f"icmp slt i64 {following}, {bound}")
        self.effect(f"br i1 {again}, label %{head}, label %{after}")
        final = {r: self.registers[r] for r in carried}
        lines = self._pop(after)
        lines[at] = f"  {i} = phi i64 [ {start}, %{before} ], [ {following}, %{latch} ]"
        for n, r in enumerate(carried):
            type = ops.value_type(self.register_types[r])
            lines[at + 1 + n] = f"  {phis[r]} = phi {type} [ {initial[r]}, %{before} ], [ {final[r]}, %{latch} ]"
        self.variables = known
        self.effect(f"br label %{head}" if enter == "true" else f"br i1 {enter}, label %{head}, label %{after}")
        self.lines[-1].extend(lines)
        self.lines[-1].append(f"{after}:")
        arrivals = [(before, initial, start), (latch, final, following)][enter == "true":]
        for r in carried:
            self.registers[r] = self._phi(self.register_types[r], [(block, values[r]) for block, values, _ in arrivals])
        return self._phi(INT, [(block, counter) for block, _, counter in arrivals])

    def _if(self, s: If) -> None:
        condition = self.value(s.condition)
        if condition in ("true", "false"):
            known = self.variables.copy()
            self._body(s.then if condition == "true" else s.otherwise)
            self.variables = known
            return
        carried = self._assigned((s.then, s.otherwise))
        initial = {r: self.registers[r] for r in carried}
        before, after = self.block, self.label()
        targets, arrivals, code = [], [], []
        for arm in (s.then, s.otherwise):
            if not arm:
                targets.append(after)
                arrivals.append((before, initial))
                continue
            label = self.label()
            targets.append(label)
            known = self.variables
            self.variables = known.copy()
            self.registers.update(initial)
            self._push(False, label)
            self._body(arm)
            self.effect(f"br label %{after}")
            arrivals.append((self.block, {r: self.registers[r] for r in carried}))
            code += [f"{label}:", *self._pop(after)]
            self.variables = known
        self.effect(f"br i1 {condition}, label %{targets[0]}, label %{targets[1]}")
        self.lines[-1].extend(code)
        self.lines[-1].append(f"{after}:")
        self.block = after
        for r in carried:
            self.registers[r] = self._phi(self.register_types[r], [(block, values[r]) for block, values in arrivals])

    def _phi(self, type: Type, arrivals: list[tuple[str, str]]) -> str:
        values = {value for _, value in arrivals}
        if len(values) == 1 and (len(arrivals) == 1 or self.depths.get(next(iter(values)), 0) < len(self.lines)):
            value = values.pop()  # the only way here leads past it
            self.depths[value] = min(self.depths.get(value, 0), len(self.lines) - 1)
            return value
        incoming = ", ".join(f"[ {value}, %{block} ]" for block, value in arrivals)
        return self.line(f"phi {ops.value_type(type)} {incoming}")

    def _assigned(self, bodies: Sequence[tuple[Stmt, ...]]) -> list[str]:
        """Registers declared outside of `bodies` that they assign, in order of first assignment."""
        names: dict[str, None] = {}
        inner: set[str] = set()
        for body in bodies:
            assigned, declared = self._assignments(body)
            names |= assigned
            inner |= declared
        return [n for n in names if n not in inner]

    def _assignments(self, body: tuple[Stmt, ...]) -> tuple[dict[str, None], set[str]]:
        """The registers that a body assigns, in order, and those that it declares."""
        found = self.assignments.get(id(body))
        if found is None:
            found = self.assignments[id(body)] = ({}, set())
            for s in body:
                if isinstance(s, Set):
                    found[0][s.name] = None
                elif isinstance(s, Register):
                    found[1].add(s.name)
                for inside in (s.body,) if isinstance(s, For) else (s.then, s.otherwise) if isinstance(s, If) else ():
                    names, inner = self._assignments(inside)
                    found[0].update(names)
                    found[1].update(inner)
        return found

    def _push(self, is_loop: bool, label: str) -> None:
        self.lines.append([])
        self.placed.append([])
        self.is_loop.append(is_loop)
        self._set_destinations()
        self.block = label
        self.loads = {}

    def _pop(self, label: str) -> list[Any]:
        for instruction in self.placed.pop():
            del self.known[instruction]
        self.is_loop.pop()
        self._set_destinations()
        self.block = label
        self.loads = {}
        return self.lines.pop()


def _plus(f: FunctionEmitter, a: Sum, b: Sum) -> Sum:
    if not a.terms or not b.terms:
        return Sum(a.terms or b.terms, a.constant + b.constant)
    terms = dict(a.terms)
    for name, coefficient in b.terms:
        terms[name] = terms.get(name, 0) + coefficient
    return Sum(tuple((n, c) for n, c in terms.items() if c), a.constant + b.constant)


def _negative(f: FunctionEmitter, a: Sum) -> Sum:
    return Sum(tuple((n, -c) for n, c in a.terms), -a.constant)


def _known_less(a: str, b: str) -> str | None:
    """"true" or "false" where both are numbers."""
    if a.lstrip("-").isdigit() and b.lstrip("-").isdigit():
        return "true" if int(a) < int(b) else "false"
    return None


_LINEAR: dict[str, Callable[..., Sum]] = {
    "add": _plus, "sub": lambda f, a, b: _plus(f, a, _negative(f, b)), "neg": _negative,
    "mul": lambda f, a, b: f._multiply(a, b),
}
_FOLDED = frozenset({"floordiv", "mod", "min", "max", "eq", "ne", "lt", "le", "gt", "ge"})
_TABLES = {"f": ops.FLOAT, "i": ops.SIGNED, "u": ops.UNSIGNED, "b": ops.BOOLEAN}
_EXPRESSIONS: dict[type, Callable[[FunctionEmitter, Any], str]] = {
    Const: FunctionEmitter._const, Var: FunctionEmitter._var, Get: FunctionEmitter._get,
    Load: FunctionEmitter._load, Apply: FunctionEmitter._apply,
}
_STATEMENTS: dict[type, Callable[[FunctionEmitter, Any], None]] = {
    Let: FunctionEmitter._let, Register: FunctionEmitter._register, Set: FunctionEmitter._register,
    Store: FunctionEmitter._store, For: FunctionEmitter._for, If: FunctionEmitter._if,
    Prefetch: FunctionEmitter._prefetch,
}
