"""Runs loop IR with NumPy: the oracle for generated code, with every access checked against its buffer's bounds.

A kernel is turned into one Python function (kept per kernel): scalar int64 values are Python ints, other scalars are
NumPy scalars, vectors are NumPy arrays, so that every operation has the exact semantics of its dtype. Integer division
by zero gives 0, shifting by the width or more gives what shifting bit by bit would. Scratch is poisoned (NaN, or a
conspicuous integer) before each task.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from ndarray.dims import evaluate
from ndarray.scalar import OPERATIONS

from .launch import Launch, Storage
from .loopir import Apply, Const, Expr, For, Get, If, Kernel, Let, Load, Prefetch, Register, Set, Stmt, Store, Type, Var
from .numerics import dot2, dot4, dtype_of, fma, reduce_tree, wrap

__all__ = ["interpret_expr", "poison", "run_kernel", "run_launches"]


def run_kernel(kernel: Kernel, buffers: Sequence[np.ndarray], parameters: Sequence[int], first: int, last: int) -> None:
    """Run the tasks first..last-1 of a kernel.

    `buffers` are 1-D arrays for the kernel's non-scratch buffers, in order; those that it stores to are changed.
    Raises IndexError, naming kernel, buffer, index and size, on an access outside a buffer; TypeError or ValueError for
    arguments that do not fit the kernel.
    """
    outside = [b for b in kernel.buffers if b.access != "scratch"]
    if len(buffers) != len(outside):
        raise ValueError(
            f"[{kernel.name}] takes {len(outside)} buffers ({', '.join(b.name for b in outside)}), got {len(buffers)}"
        )
    if len(parameters) != len(kernel.parameters):
        raise ValueError(f"[{kernel.name}] takes {len(kernel.parameters)} parameters, got {len(parameters)}")
    for declared, array in zip(outside, buffers, strict=True):
        if array.ndim != 1 or array.dtype != dtype_of(declared.dtype):
            raise TypeError(
                f"[{kernel.name}] buffer {declared.name}: expected a 1-D array of {declared.dtype}, "
                f"got {array.ndim}-D {array.dtype}"
            )
    run, source = _compile(kernel)
    with np.errstate(all="ignore"):
        try:
            run(*buffers, *(int(p) for p in parameters), int(first), int(last))
        except IndexError as error:
            raise IndexError(f"[kernel {kernel.name}] {error}") from None
        except (TypeError, ValueError, AttributeError) as error:
            error.add_note(f"while interpreting kernel {kernel.name}:\n{source}")
            raise


def run_launches(
    launches: Iterable[Launch], memory: dict[Storage, np.ndarray], sizes: Mapping[str, int],
    run: Callable[..., None] | None = None,
) -> dict[Storage, np.ndarray]:
    """Run launches in order. `sizes` gives the value of each symbolic dimension.

    `memory` holds an array for each storage that comes from outside (C-contiguous, any shape); storages that it lacks
    are added to it as poisoned 1-D arrays. Returns `memory`. `run` is called in place of `run_kernel`, if given.
    """
    run = run or run_kernel
    for launch in launches:
        for storage in launch.buffers:
            whole = storage.whole
            if whole not in memory:
                memory[whole] = poison(evaluate(whole.size, sizes), whole.dtype)
            if storage is not whole:
                first = evaluate(storage.offset, sizes)
                memory[storage] = memory[whole].reshape(-1)[first : first + evaluate(storage.size, sizes)]
        arrays = []
        for storage in launch.buffers:
            array = memory[storage]
            if not array.flags.c_contiguous:
                raise ValueError(f"[{launch.kernel.name}] storage {storage.name or '?'}: its array is not contiguous")
            arrays.append(array.reshape(-1))
        arguments = [evaluate(a, sizes) for a in launch.arguments]
        if hasattr(launch.kernel, "step"):  # a library's
            from .cuda.library_numpy import run_step

            run_step(launch.kernel.step, arrays, arguments)
            continue
        run(launch.kernel, arrays, arguments, 0, evaluate(launch.tasks, sizes))
    return memory


def poison(size: int, dtype: str) -> np.ndarray:
    """An array that is conspicuous when it is read before it is written."""
    kind = dtype_of(dtype)
    if "float" in dtype:
        return np.full(size, np.nan, kind)
    return np.full(size * kind.itemsize, 1 if dtype == "bool" else 0xA5, np.uint8).view(kind)


def interpret_expr(expr: Expr, values: Mapping[str, Any], registers: Mapping[str, Any] | None = None) -> Any:
    """The value of an expression without loads, where its variables and registers have the given values.

    The values may be arrays of any length, whatever the number of lanes: this is elementwise evaluation.
    """
    compiler = _Compiler(None)
    compiler.elementwise = True
    space: dict[str, Any] = {compiler.name(name, "v"): value for name, value in values.items()}
    space |= {compiler.name(name, "r"): value for name, value in (registers or {}).items()}
    code = compiler.expr(expr)
    with np.errstate(all="ignore"):
        return eval(code, compiler.constants | space)


@lru_cache(maxsize=512)
def _compile(kernel: Kernel) -> tuple[Any, str]:
    compiler = _Compiler(kernel)
    source = compiler.kernel()
    space = dict(compiler.constants)
    exec(compile(source, f"<kernel {kernel.name}>", "exec"), space)
    return space["run"], source


# -- what generated code calls


def _check(size: int, low: int, high: int, name: str) -> None:
    if low < 0 or high > size:
        raise IndexError(f"buffer {name}: index {low if low < 0 else max(low, size)} is outside its {size} elements")


def _load(b: np.ndarray, i: int, name: str) -> Any:
    _check(len(b), i, i + 1, name)
    return b[i]


def _load_vector(b: np.ndarray, i: int, lanes: int, name: str) -> np.ndarray:
    _check(len(b), i, i + lanes, name)
    return b[i : i + lanes].copy()


def _lanes(b: np.ndarray, index: Any, mask: np.ndarray, name: str) -> tuple[np.ndarray, np.ndarray]:
    """The lanes that are on, and their positions, which are in bounds."""
    on = np.flatnonzero(mask)
    where = np.asarray(index)[on] if np.ndim(index) else index + on
    if len(where):
        _check(len(b), int(where.min()), int(where.max()) + 1, name)
    return on, where


def _load_masked(b: np.ndarray, index: Any, lanes: int, mask: Any, name: str) -> np.ndarray:
    on, where = _lanes(b, index, mask, name)
    result = np.zeros(lanes, b.dtype)
    result[on] = b[where]
    return result


def _load_if(b: np.ndarray, i: int, mask: Any, name: str) -> Any:
    return _load(b, i, name) if mask else b.dtype.type(0)


def _gather(b: np.ndarray, index: np.ndarray, name: str) -> np.ndarray:
    _check(len(b), int(index.min()), int(index.max()) + 1, name)
    return b[index]


def _store(b: np.ndarray, i: int, value: Any, name: str) -> None:
    _check(len(b), i, i + 1, name)
    b[i] = value


def _store_vector(b: np.ndarray, i: int, value: np.ndarray, name: str) -> None:
    _check(len(b), i, i + len(value), name)
    b[i : i + len(value)] = value


def _store_masked(b: np.ndarray, index: Any, value: np.ndarray, mask: Any, name: str) -> None:
    on, where = _lanes(b, index, mask, name)
    for lane, position in zip(on, where, strict=True):  # in lane order: of equal positions the last wins
        b[position] = value[lane]


def _scatter(b: np.ndarray, index: np.ndarray, value: np.ndarray, name: str) -> None:
    _store_masked(b, index, value, np.ones(len(value), bool), name)


def _cast(value: Any, source: np.dtype, target: np.dtype) -> Any:
    return np.asarray(value, source).astype(target)[()]


def _bitcast(value: Any, source: np.dtype, target: np.dtype) -> Any:
    array = np.asarray(value, source)
    return array.view(target) if array.ndim else array.reshape(1).view(target)[0]


def _splat(value: Any, lanes: int, dtype: np.dtype) -> np.ndarray:
    return np.full(lanes, value, dtype)


def _ramp(base: Any, step: Any, lanes: int, dtype: np.dtype) -> np.ndarray:
    return dtype.type(base) + dtype.type(step) * np.arange(lanes).astype(dtype)


def _shift_right(value: int, count: int) -> int:
    return value >> count if 0 <= count < 64 else (-1 if value < 0 else 0)


def _reset(array: np.ndarray, poisoned: np.ndarray) -> None:
    array[:] = poisoned


_HELPERS: dict[str, Any] = {
    f.__name__: f
    for f in (
        _load,
        _load_vector,
        _load_masked,
        _load_if,
        _gather,
        _store,
        _store_vector,
        _store_masked,
        _scatter,
        _cast,
        _bitcast,
        _splat,
        _ramp,
        _shift_right,
        _reset,
    )
}
_HELPERS |= {"_wrap": wrap, "_fma": fma, "_dot4": dot4, "_dot2": dot2, "_tree": reduce_tree, "_poison": poison, "np": np}

_INT = Type("int64")
_INT_CODE = {  # scalar int64, whose values are Python ints
    "add": "_wrap({0} + {1})",
    "sub": "_wrap({0} - {1})",
    "mul": "_wrap({0} * {1})",
    "neg": "_wrap(-{0})",
    "abs": "_wrap(abs({0}))",
    "sign": "(({0} > 0) - ({0} < 0))",
    "floordiv": "_int_floordiv({0}, {1})",
    "mod": "_int_mod({0}, {1})",
    "min": "min({0}, {1})",
    "max": "max({0}, {1})",
    "and": "({0} & {1})",
    "or": "({0} | {1})",
    "xor": "({0} ^ {1})",
    "not": "(~{0})",
    "shl": "_int_shl({0}, {1})",
    "shr": "_shift_right({0}, {1})",
    "fma": "_wrap({0} * {1} + {2})",
    "floor": "{0}",
    "ceil": "{0}",
    "trunc": "{0}",
    "round": "{0}",
    "eq": "({0} == {1})",
    "ne": "({0} != {1})",
    "lt": "({0} < {1})",
    "le": "({0} <= {1})",
    "gt": "({0} > {1})",
    "ge": "({0} >= {1})",
}
_HELPERS |= {
    "_int_floordiv": lambda a, b: wrap(a // b) if b else 0,
    "_int_mod": lambda a, b: a % b if b else 0,
    "_int_shl": lambda a, b: wrap(a << b) if 0 <= b < 64 else 0,
}
_BOOL_CODE = {  # scalar bool, whose values are Python bools
    "and": "({0} & {1})",
    "or": "({0} | {1})",
    "xor": "({0} ^ {1})",
    "not": "(not {0})",
    "eq": "({0} == {1})",
    "ne": "({0} != {1})",
    "min": "({0} & {1})",
    "max": "({0} | {1})",
    "lt": "({0} < {1})",
    "le": "({0} <= {1})",
    "gt": "({0} > {1})",
    "ge": "({0} >= {1})",
}
_REDUCE = {
    "reduce_add": np.add,
    "reduce_mul": np.multiply,
    "reduce_max": np.maximum,
    "reduce_min": np.minimum,
    "reduce_and": np.bitwise_and,
    "reduce_or": np.bitwise_or,
}


class _Compiler:
    """Prints a kernel as Python; `constants` are the objects that the code refers to."""

    def __init__(self, kernel: Kernel | None) -> None:
        self.source = kernel
        self.elementwise = False
        self.names: dict[tuple[str, str], str] = {}
        self.constants: dict[str, Any] = dict(_HELPERS)
        self.lines: list[str] = []

    def name(self, name: str, kind: str) -> str:
        """The Python name of a loop-IR name; `kind` keeps variables, registers and buffers apart."""
        key = (kind, name)
        if key not in self.names:
            self.names[key] = f"{kind}{len(self.names)}_{re.sub(r'[^0-9A-Za-z_]', '_', name)}"
        return self.names[key]

    def object(self, value: Any, prefix: str = "c") -> str:
        name = f"{prefix}_{len(self.constants)}"
        self.constants[name] = value
        return name

    def dtype(self, name: str) -> str:
        key = f"dtype_{name}"
        self.constants[key] = dtype_of(name)
        return key

    def kernel(self) -> str:
        kernel = self.source
        assert kernel is not None
        arguments = [self.name(b.name, "b") for b in kernel.buffers if b.access != "scratch"]
        arguments += [self.name(p, "v") for p in kernel.parameters]
        self.lines = [f"def run({', '.join([*arguments, 'first', 'last'])}):"]
        scratch = [b for b in kernel.buffers if b.access == "scratch"]
        for b in scratch:
            assert b.size is not None
            self.emit(1, f"{self.name(b.name, 'b')} = _poison({self.expr(b.size)}, {b.dtype!r})")
            self.emit(1, f"poisoned_{self.name(b.name, 'b')} = {self.name(b.name, 'b')}.copy()")
        self.emit(1, f"for {self.name(kernel.task, 'v')} in range(first, last):")
        for b in scratch:
            self.emit(2, f"_reset({self.name(b.name, 'b')}, poisoned_{self.name(b.name, 'b')})")
        self.body(kernel.body, 2)
        return "\n".join(self.lines) + "\n"

    def emit(self, depth: int, text: str) -> None:
        self.lines.append("    " * depth + text)

    def body(self, body: tuple[Stmt, ...], depth: int) -> None:
        if not body:
            self.emit(depth, "pass")
        for s in body:
            self.statement(s, depth)

    def statement(self, s: Stmt, depth: int) -> None:
        if isinstance(s, Let):
            self.emit(depth, f"{self.name(s.name, 'v')} = {self.expr(s.value)}")
        elif isinstance(s, Register | Set):
            self.emit(depth, f"{self.name(s.name, 'r')} = {self.expr(s.value)}")
        elif isinstance(s, Store):
            self.emit(depth, self.store(s))
        elif isinstance(s, For):
            bounds = f"{self.expr(s.start)}, {self.expr(s.stop)}, {s.step}"
            self.emit(depth, f"for {self.name(s.var, 'v')} in range({bounds}):")
            self.body(s.body, depth + 1)
        elif isinstance(s, If):
            self.emit(depth, f"if {self.expr(s.condition)}:")
            self.body(s.then, depth + 1)
            if s.otherwise:
                self.emit(depth, "else:")
                self.body(s.otherwise, depth + 1)
        elif isinstance(s, Prefetch):
            self.emit(depth, "pass")
        else:
            raise TypeError(f"{type(s).__name__} is not a statement")

    def store(self, s: Store) -> str:
        b, index, value, label = self.name(s.buffer, "b"), self.expr(s.index), self.expr(s.value), repr(s.buffer)
        vector = s.value.type.lanes > 1
        if s.mask is not None:
            if not vector:
                return f"if {self.expr(s.mask)}: _store({b}, {index}, {value}, {label})"
            return f"_store_masked({b}, {index}, {value}, {self.expr(s.mask)}, {label})"
        if s.index.type.lanes > 1:
            return f"_scatter({b}, {index}, {value}, {label})"
        return f"{'_store_vector' if vector else '_store'}({b}, {index}, {value}, {label})"

    # -- expressions

    def expr(self, e: Expr) -> str:
        if isinstance(e, Const):
            return self.const(e)
        if isinstance(e, Var):
            return self.name(e.name, "v")
        if isinstance(e, Get):
            return self.name(e.name, "r")
        if isinstance(e, Load):
            return self.load(e)
        assert isinstance(e, Apply)
        return self.apply(e)

    def const(self, e: Const) -> str:
        scalar = e.type.lanes == 1 or self.elementwise
        if scalar and e.type.dtype == "int64" and not self.elementwise:
            return f"({int(e.value)})"
        if scalar and e.type.dtype == "bool":
            return repr(bool(e.value))
        value = dtype_of(e.type.dtype).type(e.value)
        return self.object(value if scalar else np.full(e.type.lanes, value))

    def load(self, e: Load) -> str:
        b, index, lanes, label = self.name(e.buffer, "b"), self.expr(e.index), e.type.lanes, repr(e.buffer)
        if lanes == 1:
            code = (
                f"_load({b}, {index}, {label})"
                if e.mask is None
                else f"_load_if({b}, {index}, {self.expr(e.mask)}, {label})"
            )
            return self.as_scalar(code, e.type)
        if e.mask is not None:
            return f"_load_masked({b}, {index}, {lanes}, {self.expr(e.mask)}, {label})"
        if e.index.type.lanes > 1:
            return f"_gather({b}, {index}, {label})"
        return f"_load_vector({b}, {index}, {lanes}, {label})"

    def as_scalar(self, code: str, type: Type) -> str:
        """Scalar int64 and bool values are Python's."""
        if type.lanes > 1 or self.elementwise or type.dtype not in ("int64", "bool"):
            return code
        return f"{'int' if type.dtype == 'int64' else 'bool'}({code})"

    def apply(self, e: Apply) -> str:
        args = [self.expr(a) for a in e.args]
        first = e.args[0].type
        if e.op == "select":
            operands = f"{args[1]}, {args[2]}"
            if e.type.lanes > 1 or self.elementwise:
                return f"np.where({args[0]}, {operands})"
            return f"({operands})[not {args[0]}]"
        if e.op in ("cast", "bitcast"):
            return self.as_scalar(f"_{e.op}({args[0]}, {self.dtype(first.dtype)}, {self.dtype(e.type.dtype)})", e.type)
        if e.op == "splat":
            return args[0] if self.elementwise else f"_splat({args[0]}, {e.type.lanes}, {self.dtype(first.dtype)})"
        if e.op == "ramp":
            return f"_ramp({args[0]}, {args[1]}, {e.type.lanes}, {self.dtype(first.dtype)})"
        if e.op == "lane":
            return self.as_scalar(f"{args[0]}[{args[1]}]", e.type)
        if e.op in _REDUCE:
            if self.elementwise:  # over all elements
                return f"{self.object(_REDUCE[e.op])}.reduce({args[0]})"
            return self.as_scalar(f"_tree({self.object(_REDUCE[e.op])}, {args[0]})", e.type)
        if e.op == "reverse":
            return f"{args[0]}[::-1]"
        if e.op == "concat":
            return f"np.concatenate(({args[0]}, {args[1]}))"
        if e.op == "interleave":
            return f"np.stack(({args[0]}, {args[1]}), 1).reshape(-1)"
        if e.op in ("even", "odd"):
            return f"{args[0]}[{int(e.op == 'odd')}::2]"
        if first.lanes == 1 and not self.elementwise:
            if first.dtype == "int64" and e.op in _INT_CODE:
                return _INT_CODE[e.op].format(*args)
            if first.dtype == "bool" and e.op in _BOOL_CODE:
                return _BOOL_CODE[e.op].format(*args)
        if e.op in ("fma", "dot4", "dot2"):
            return f"_{e.op}({', '.join(args)})"
        return self.as_scalar(f"{self.object(OPERATIONS[e.op].evaluate, e.op)}({', '.join(args)})", e.type)
