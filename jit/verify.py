"""Checks that a kernel is well-formed loop IR.

`verify` raises `InvalidKernel`, which names the statement, where it stands in the kernel, and what is wrong with it:

- every Var is a parameter, the task, an enclosing loop's variable or bound by a Let before, with the same type; no
  name is bound again where it is visible
- a Register is declared before its Get and Set, which have its type
- operations are known and have the right number, dtypes and lanes of arguments and result
- buffers are known; loads and stores have the buffer's dtype, an int64 index and a mask of the value's lanes
- "read" buffers are not stored to, "write" buffers are loaded from only if the kernel stores to them
- a For has int64 bounds and a positive step; an If has a scalar bool condition
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NoReturn

from ndarray.scalar import OPERATIONS

from .elementary import FUNCTIONS
from .launch import _ITEMSIZE
from .loopir import (
    BOOL,
    INT,
    VECTOR_OPERATIONS,
    Apply,
    Buffer,
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
    walk_statements,
)
from .show import show_expr, show_statement

__all__ = ["InvalidKernel", "verify"]

_FLOAT_ONLY = frozenset(FUNCTIONS) - {"pow"} | {"sqrt", "div", "isnan", "isinf"}
_BITS_ONLY = frozenset(["and", "or", "xor", "not", "shl", "shr"])
_NOT_BOOL = frozenset(["neg", "abs", "sign", "add", "sub", "mul", "floordiv", "mod", "pow", "fma", "shl", "shr"])
_INTEGER_RANGE = {f"int{n}": (-(2 ** (n - 1)), 2 ** (n - 1) - 1) for n in (8, 16, 32, 64)}
_INTEGER_RANGE |= {f"uint{n}": (0, 2**n - 1) for n in (8, 16, 32, 64)}
_ACCESS = ("read", "write", "readwrite", "scratch")


class InvalidKernel(ValueError):
    """A kernel that breaks a rule of the loop IR."""


def verify(kernel: Kernel) -> Kernel:
    """Return the kernel if it is well-formed, else raise `InvalidKernel`."""
    _Verifier(kernel).run()
    return kernel


class _Verifier:
    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.buffers: dict[str, Buffer] = {}
        self.stored = {s.buffer for s in walk_statements(kernel.body) if isinstance(s, Store)}
        self.where = ""
        self.statement: Stmt | None = None

    def run(self) -> None:
        names: dict[str, Type] = {}
        for name in (*self.kernel.parameters, self.kernel.task):
            if name in names:
                self.fail(f"parameter or task name {name!r} appears twice")
            names[name] = INT
        for buffer in self.kernel.buffers:
            self.check_buffer(buffer, dict.fromkeys(self.kernel.parameters, INT))
        self.check_body(self.kernel.body, names, {}, "")

    def fail(self, problem: str) -> NoReturn:
        where = f" at {self.where}: {show_statement(self.statement)}" if self.statement is not None else ""
        raise InvalidKernel(f"[kernel {self.kernel.name}] {problem}{where}")

    # -- declarations

    def check_buffer(self, buffer: Buffer, parameters: Mapping[str, Type]) -> None:
        if buffer.name in self.buffers:
            self.fail(f"buffer {buffer.name!r} is declared twice")
        if buffer.access not in _ACCESS:
            self.fail(f"buffer {buffer.name!r} has access {buffer.access!r}, expected one of {', '.join(_ACCESS)}")
        if buffer.dtype not in _ITEMSIZE:
            self.fail(f"buffer {buffer.name!r} has unknown dtype {buffer.dtype!r}")
        if buffer.access == "scratch" and buffer.size is None:
            self.fail(f"scratch buffer {buffer.name!r} has no size")
        if buffer.size is not None:
            self.check_expr(buffer.size, parameters, {})
            if buffer.size.type != INT:
                self.fail(f"the size of buffer {buffer.name!r} is {buffer.size.type}, expected int64")
        self.buffers[buffer.name] = buffer

    # -- statements

    def check_body(
        self, body: tuple[Stmt, ...], names: Mapping[str, Type], registers: Mapping[str, Type], path: str
    ) -> None:
        names, registers = dict(names), dict(registers)
        if not isinstance(body, tuple):
            self.fail(f"the body {path or 'of the kernel'} is a {type(body).__name__}, expected a tuple")
        for number, statement in enumerate(body):
            self.where, self.statement = f"{path}[{number}]", statement
            self.check_statement(statement, names, registers, self.where)

    def check_statement(self, s: Stmt, names: dict[str, Type], registers: dict[str, Type], path: str) -> None:
        if isinstance(s, Let):
            self.check_expr(s.value, names, registers)
            self.bind(s.name, s.value.type, names)
        elif isinstance(s, Register):
            self.check_expr(s.value, names, registers)
            if s.name in registers:
                self.fail(f"register {s.name!r} is declared again")
            registers[s.name] = s.value.type
        elif isinstance(s, Set):
            self.check_expr(s.value, names, registers)
            self.check_register(s.name, s.value.type, registers)
        elif isinstance(s, Store):
            self.check_expr(s.value, names, registers)
            self.check_place(s.buffer, s.index, s.value.type, s.mask, names, registers, "a Store to")
            if self.buffers[s.buffer].access == "read":
                self.fail(f"a Store to buffer {s.buffer!r}, which is read only")
        elif isinstance(s, Prefetch):
            self.check_expr(s.index, names, registers)
            if s.buffer not in self.buffers or s.index.type != INT:
                self.fail(f"a Prefetch from {s.buffer!r} at an index of {s.index.type}, expected a buffer and int64")
        elif isinstance(s, For):
            self.check_for(s, names, registers, path)
        elif isinstance(s, If):
            self.check_expr(s.condition, names, registers)
            if s.condition.type != BOOL:
                self.fail(f"the condition of an If is {s.condition.type}, expected bool")
            self.check_body(s.then, names, registers, f"{path}.then")
            self.check_body(s.otherwise, names, registers, f"{path}.otherwise")
        else:
            self.fail(f"{type(s).__name__} is not a statement")

    def check_for(self, s: For, names: dict[str, Type], registers: dict[str, Type], path: str) -> None:
        for label, bound in (("start", s.start), ("stop", s.stop)):
            self.check_expr(bound, names, registers)
            if bound.type != INT:
                self.fail(f"the {label} of a For is {bound.type}, expected int64")
        if type(s.step) is not int or s.step < 1:
            self.fail(f"the step of a For is {s.step!r}, expected a positive int")
        if type(s.unroll) is not int or s.unroll < 1:
            self.fail(f"the unroll of a For is {s.unroll!r}, expected a positive int")
        inside = dict(names)
        self.bind(s.var, INT, inside)
        self.check_body(s.body, inside, registers, f"{path}.for {s.var}")

    def bind(self, name: str, type: Type, names: dict[str, Type]) -> None:
        if name in names:
            self.fail(f"{name!r} is bound again while it is visible")
        names[name] = type

    def check_register(self, name: str, type: Type, registers: Mapping[str, Type]) -> None:
        if name not in registers:
            self.fail(f"register {name!r} is not declared")
        if registers[name] != type:
            self.fail(f"register {name!r} is {registers[name]}, here it is used as {type}")

    # -- expressions

    def check_expr(self, e: Expr, names: Mapping[str, Type], registers: Mapping[str, Type]) -> None:
        """Everything under `e`; nodes that are one object are checked once."""
        done: set[int] = set()
        stack: list[Expr] = [e]
        while stack:
            node = stack.pop()
            if id(node) in done:
                continue
            done.add(id(node))
            self.check_node(node, names, registers)
            if isinstance(node, Apply):
                stack.extend(node.args)
            elif isinstance(node, Load):
                stack.append(node.index)
                if node.mask is not None:
                    stack.append(node.mask)

    def check_node(self, e: Expr, names: Mapping[str, Type], registers: Mapping[str, Type]) -> None:
        if not isinstance(e, Expr):
            self.fail(f"{e!r} is not an expression")
        if e.type.dtype not in _ITEMSIZE or type(e.type.lanes) is not int or e.type.lanes < 1:
            self.fail(f"{show_expr(e)} has unknown type {e.type}")
        if isinstance(e, Const):
            self.check_const(e)
        elif isinstance(e, Var):
            if e.name not in names:
                self.fail(f"{e.name!r} is not defined")
            if names[e.name] != e.type:
                self.fail(f"{e.name!r} is {names[e.name]}, here it is used as {e.type}")
        elif isinstance(e, Get):
            self.check_register(e.name, e.type, registers)
        elif isinstance(e, Load):
            self.check_place(e.buffer, e.index, e.type, e.mask, names, registers, "a Load from", deep=False)
            if self.buffers[e.buffer].access in ("write", "scratch") and e.buffer not in self.stored:
                self.fail(
                    f"a Load from buffer {e.buffer!r}, which is {self.buffers[e.buffer].access} and never stored to"
                )
        elif not isinstance(e, Apply):
            self.fail(f"{e!r} is not an expression")
        elif e.op in VECTOR_OPERATIONS:
            self.check_vector_operation(e)
        elif e.op in OPERATIONS:
            self.check_operation(e)
        else:
            self.fail(f"unknown operation {e.op!r}")

    def check_const(self, e: Const) -> None:
        value, dtype = e.value, e.type.dtype
        value = value.item() if hasattr(value, "item") else value
        if dtype in _INTEGER_RANGE:
            low, high = _INTEGER_RANGE[dtype]
            good = isinstance(value, int) and low <= value <= high
        elif dtype == "bool":
            good = isinstance(value, bool) or value in (0, 1)
        else:
            good = isinstance(value, int | float)
        if not good:
            self.fail(f"the constant {e.value!r} is no {dtype}")

    def check_place(
        self,
        buffer: str,
        index: Expr,
        type: Type,
        mask: Expr | None,
        names: Mapping[str, Type],
        registers: Mapping[str, Type],
        what: str,
        deep: bool = True,
    ) -> None:
        if buffer not in self.buffers:
            self.fail(f"{what} buffer {buffer!r}, which the kernel does not have")
        if self.buffers[buffer].dtype != type.dtype:
            self.fail(f"{what} buffer {buffer!r} of {self.buffers[buffer].dtype} with a value of {type}")
        if index.type.dtype != "int64" or index.type.lanes not in (1, type.lanes):
            self.fail(
                f"{what} buffer {buffer!r} of {type} has an index of {index.type}, expected int64 or int64x{type.lanes}"
            )
        if mask is not None and mask.type != BOOL.with_lanes(type.lanes):
            self.fail(
                f"{what} buffer {buffer!r} of {type} has a mask of {mask.type}, expected {BOOL.with_lanes(type.lanes)}"
            )
        if deep:
            self.check_expr(index, names, registers)
            if mask is not None:
                self.check_expr(mask, names, registers)

    def check_arity(self, e: Apply, arity: int) -> None:
        if len(e.args) != arity:
            self.fail(f"{e.op} has {len(e.args)} arguments, expected {arity}")

    def check_operation(self, e: Apply) -> None:
        operation = OPERATIONS[e.op]
        self.check_arity(e, operation.arity)
        operands = e.args[1:] if e.op == "select" else e.args
        types = [a.type for a in operands]
        if len(set(types)) > 1:
            self.fail(f"{e.op} has arguments of types {', '.join(map(str, types))}; expected one type")
        operand = types[0]
        if e.op == "select" and e.args[0].type != BOOL.with_lanes(operand.lanes):
            self.fail(f"the condition of select is {e.args[0].type}, expected {BOOL.with_lanes(operand.lanes)}")
        expected = BOOL.with_lanes(operand.lanes) if operation.result == "bool" else operand
        if e.type != expected:
            self.fail(f"{e.op} of {operand} has type {e.type}, expected {expected}")
        floating = "float" in operand.dtype
        if e.op in _FLOAT_ONLY and not floating:
            self.fail(f"{e.op} of {operand}, expected a floating type")
        if e.op in _BITS_ONLY and floating:
            self.fail(f"{e.op} of {operand}, expected integers or bool")
        if e.op in _NOT_BOOL and operand.dtype == "bool":
            self.fail(f"{e.op} of {operand}, expected numbers")
        if e.op == "mulhi" and operand.dtype != "uint32":
            self.fail(f"mulhi of {operand}, expected uint32")

    def check_vector_operation(self, e: Apply) -> None:
        self.check_arity(e, VECTOR_OPERATIONS[e.op])
        first = e.args[0].type
        expected = e.type
        if e.op in ("cast", "bitcast"):
            expected = e.type.with_lanes(first.lanes)
            if e.op == "bitcast" and (
                _ITEMSIZE[first.dtype] != _ITEMSIZE[e.type.dtype] or "bool" in (first.dtype, e.type.dtype)
            ):
                self.fail(f"bitcast of {first} to {e.type}, expected the same width")
        elif e.op == "splat":
            expected = Type(first.dtype, e.type.lanes)
            if first.lanes != 1:
                self.fail(f"splat of {first}, expected a scalar")
        elif e.op == "ramp":
            expected = Type(first.dtype, e.type.lanes)
            if first.lanes != 1 or e.args[1].type != first:
                self.fail(f"ramp of {first} and {e.args[1].type}, expected two scalars of one type")
        elif e.op == "lane":
            expected = first.with_lanes(1)
            number = e.args[1]
            if not (isinstance(number, Const) and 0 <= number.value < first.lanes):
                self.fail(f"lane {show_expr(number)} of {first}, expected a constant lane number below {first.lanes}")
        elif e.op.startswith("reduce_"):
            expected = first.with_lanes(1)
            if first.lanes & (first.lanes - 1):
                self.fail(f"{e.op} of {first}, expected a power of two of lanes")
            if e.op in ("reduce_and", "reduce_or") and "float" in first.dtype:
                self.fail(f"{e.op} of {first}, expected integers or bool")
        elif e.op == "reverse":
            expected = first
        elif e.op in ("even", "odd"):
            expected = first.with_lanes(first.lanes // 2)
            if first.lanes % 2 or first.lanes < 4:
                self.fail(f"{e.op} of {first}, expected an even number of lanes, at least 4")
        elif e.op in ("concat", "interleave"):
            expected = first.with_lanes(2 * first.lanes)
            if e.args[1].type != first:
                self.fail(f"{e.op} of {first} and {e.args[1].type}, expected two vectors of one type")
        elif e.op in ("dot4", "dot2"):
            expected = Type("int32", first.lanes)
            if any(a.type != expected for a in e.args):
                self.fail(f"{e.op} of {', '.join(str(a.type) for a in e.args)}, expected {expected}")
        if e.type != expected:
            self.fail(f"{e.op} of {first} has type {e.type}, expected {expected}")
