"""Loop IR -> CUDA C: ``print_module(kernels) -> str``.

A task is done by `Layout.lanes` threads together, a *worker*: a warp, or a block of up to 1024 threads. Lane l of a vector
is held by thread l % lanes, in part l // lanes of the value; a vector of fewer lanes than there are threads is repeated. So
a contiguous vector in memory is touched coalesced, elementwise work needs no other thread, and only operations across
lanes are shuffles. Scalars are computed by every thread; a scalar is stored by the first. Conditions and loop bounds are
scalars, so all threads of a worker go the same way, and barriers (`barriers`) may stand anywhere.

A kernel is called with 8 bytes an argument: the addresses of its non-scratch buffers, its parameters, the first task and the
end of the tasks, then the address of memory for scratch buffers (0: they lie in shared memory) and their bytes a worker:

    SYMBOL<<<(blocks, 1), (lanes, workers a block), Layout.shared_bytes(...)>>>(b0, ..., p0, ..., first, last, spill, bytes)

int64 values that are sizes, loop variables or computed from them have type I: a module is compiled with -DINDEX=int where
`jit.cuda.ranges.fits_int32` holds for all launches, else with 64 bits. Elementary functions are expanded to the polynomials
that the CPU uses. Results are those of `jit.interpret`, to the bit, if the compiler contracts nothing (-fmad=false).
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from ..llvm_ops import NARROW
from ..loopir import (
    INT,
    Apply,
    Const,
    Expr,
    For,
    If,
    Kernel,
    Let,
    Prefetch,
    Register,
    Set,
    Stmt,
    Store,
    Var,
    walk_statements,
)
from ..show import show_kernel
from ..vector_math import expand
from . import operations as ops
from .barriers import Barriers, expressions
from .expressions import Expressions, Value
from .text import bare, identifier, prelude
from .unroll import independent, interleaved, rounds_of

__all__ = ["ABI_VERSION", "Layout", "print_kernel", "print_module", "range_steps"]

ABI_VERSION = 1
"""Changes with what is generated, or how it is called."""


@dataclass(frozen=True)
class Layout:
    """How a kernel is laid over threads.

    lanes    threads that do a task together: a power of two from 32 to 1024; beyond 32 they are a block
    workers  at most so many of them in a block (1 if lanes > 32)
    """

    lanes: int = 32
    workers: int = 8

    def __post_init__(self) -> None:
        if self.lanes not in (32, 64, 128, 256, 512, 1024):
            raise ValueError(f"Layout: lanes is a power of two from 32 to 1024, not {self.lanes}")
        if not 1 <= self.workers * self.lanes <= 1024 or (self.lanes > 32 and self.workers != 1):
            raise ValueError(f"Layout: {self.workers} workers of {self.lanes} threads don't make a block")

    @property
    def threads(self) -> int:
        """The most threads that a block has."""
        return self.lanes * self.workers

    def shared_bytes(self, scratch_bytes: int, workers: int | None = None) -> int:
        """Dynamic shared memory of a block, where scratch buffers of so many bytes a worker lie there (0: they don't)."""
        return self.exchange_bytes + (self.workers if workers is None else workers) * scratch_bytes

    @property
    def blocks(self) -> int:
        """Blocks that a multiprocessor has room for: 16 warps of 128 registers a thread. Without saying so, the compiler
        spills some for more warps, which kernels with several loads on their way don't need."""
        return max(1, 512 // self.threads)

    @property
    def exchange_bytes(self) -> int:
        """What threads beyond a warp exchange lanes through."""
        return 8 * self.lanes if self.lanes > 32 else 0


def print_module(kernels: Mapping[str, Kernel], layouts: Mapping[str, Layout] | Layout = Layout()) -> str:
    """The text of a module that defines a kernel under each symbol.

    Raises TypeError for an operation that the operands' dtype doesn't have and ValueError for a kernel that can't be
    printed, both naming the kernel.
    """
    each = layouts if isinstance(layouts, Mapping) else dict.fromkeys(kernels, layouts)
    return "\n\n".join([prelude().rstrip(), *(print_kernel(s, k, each[s]) for s, k in kernels.items())]) + "\n"


def print_kernel(symbol: str, kernel: Kernel, layout: Layout = Layout()) -> str:
    """The definition of one kernel, without the prelude."""
    comment = show_kernel(kernel).split("\n")[0]
    return f"// {comment}\n{_printed(kernel, layout)[0].replace(_SYMBOL, symbol)}"


def range_steps(kernel: Kernel, layout: Layout = Layout()) -> list[tuple[Any, ...]]:
    """For `fits_int32`: how the ranges of a kernel's sizes follow from its parameters; plain data."""
    return _printed(kernel, layout)[1]


_SYMBOL = "SYMBOL"


@lru_cache(maxsize=512)
def _printed(kernel: Kernel, layout: Layout) -> tuple[str, list[tuple[Any, ...]]]:
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(max(limit, 20_000))  # fused expressions can be deep
    try:
        printer = _Printer(expand(kernel), layout)
        return printer.text(), printer.ranges.steps
    except (TypeError, ValueError, KeyError) as error:
        raise type(error)(f"kernel {kernel.name}: {error}") from error
    finally:
        sys.setrecursionlimit(limit)


class _Printer(Expressions):
    """Prints one kernel."""

    def __init__(self, kernel: Kernel, layout: Layout):
        super().__init__(kernel, layout.lanes)
        self.layout = layout
        self.barriers = Barriers(kernel, layout.lanes)
        self.joined: set[Stmt] = set()  # loops that have been made of others

    # -- the frame
    def text(self) -> str:
        """The kernel's definition."""
        outside = [b for b in self.kernel.buffers if b.access != "scratch"]
        stored = {s.buffer for s in walk_statements(self.kernel.body) if isinstance(s, Store)}
        shared = {b.dtype for b in outside if b.access == "write"} if self.kernel.in_place else set()
        arguments = []
        for b in outside:
            const = "" if b.name in stored else "const "
            restrict = "" if b.dtype in shared else "__restrict__ "
            arguments.append(f"{const}{ops.memory_type(b.dtype)} *{restrict}{identifier(b.name)}")
        arguments += [f"int64 {identifier(p)}_" for p in self.kernel.parameters]
        arguments += ["int64 first_task", "int64 end_task", "uint8 *spill", "int64 spill_bytes"]
        self._scratch()
        for p in self.kernel.parameters:
            self.emit(f"const I {identifier(p)} = (I){identifier(p)}_;")
        frame, self.lines = self.lines, []
        self.depth = 2
        self.body(self.kernel.body)
        if self.barriers.scratch:
            self.emit(f"synchronize<{self.lanes}>();  // the next task uses the same memory")
        task = self.local(self.kernel.task)
        first = "(I)first_task + (I)(blockIdx.x * blockDim.y + threadIdx.y)"
        loop = f"for (I {task} = {first}; {task} < (I)end_task; {task} += (I)(gridDim.x * blockDim.y)) {{"
        lanes = ["  const int lane = threadIdx.x;"]
        lanes += [f"  const int lane{n} = lane % {n};" for n in sorted(self.short)]
        head = f'extern "C" __global__ void __launch_bounds__({self.layout.threads}, {self.layout.blocks}) {_SYMBOL}('
        return "\n".join([head, "    " + ",\n    ".join(arguments) + ") {", *lanes, *frame, "#pragma unroll 1",
                          f"  {loop}", *self.lines, "  }", "}"])

    def _scratch(self) -> None:
        scratch = [b for b in self.kernel.buffers if b.access == "scratch"]
        if not scratch:
            return
        self.emit("SHARED(memory);")
        first = f"memory + {self.layout.exchange_bytes}" if self.layout.exchange_bytes else "memory"
        self.emit("uint8 *scratch = spill ? spill + (blockIdx.x * blockDim.y + threadIdx.y) * spill_bytes")
        self.emit(f"                       : {first} + threadIdx.y * spill_bytes;")
        for b in scratch:
            if b.size is None:
                raise ValueError(f"scratch buffer {b.name} has no size")
            type, name = ops.memory_type(b.dtype), identifier(b.name)
            self.emit(f"{type} *const {name} = ({type} *)scratch;")
            if b is not scratch[-1]:
                known, self.known = self.known, {}  # parameters have their own type here: they are arguments
                renamed = self._renamed(b.size)
                self.start((renamed,))
                (size,) = self.wide(self.value(renamed)).parts
                self.known = known
                self.emit(f"scratch += ({size} * sizeof({type}) + 63) / 64 * 64;")

    def _renamed(self, e: Expr) -> Expr:
        """A size in terms of the arguments, which are named before the parameters."""
        if isinstance(e, Var):
            return Var(f"{e.name}_", INT)
        return Apply(e.op, tuple(map(self._renamed, e.args)), e.type) if isinstance(e, Apply) else e

    # -- statements
    def body(self, body: tuple[Stmt, ...]) -> None:
        for s in body:
            if isinstance(s, Prefetch):
                continue
            self.start(expressions(s))
            if self.barriers.before(expressions(s)):
                self.synchronize()
            _STATEMENTS[type(s)](self, s)

    def synchronize(self) -> None:
        self.emit(f"synchronize<{self.lanes}>();")

    def _let(self, s: Let) -> None:
        value, type = self.value(s.value), s.value.type
        self._know(s.name, value.bounds)
        if type.dtype == "int64":
            (self.natural.add if self.is_natural(s.value) else self.natural.discard)(s.name)
        names = self._names("", Var(s.name, type)).parts
        for name, text in zip(names, value.parts):
            self.emit(f"const {self.c_type(type.dtype, value.narrow)} {name} = {bare(text)};")

    def _know(self, name: str, bounds: int | None) -> None:
        if bounds is None:
            self.known.pop(name, None)
        else:
            self.known[name] = bounds

    def _register(self, s: Register) -> None:
        self._assign(s, f"{ops.value_type(s.value.type.dtype)} ")

    def _set(self, s: Set) -> None:
        self._assign(s, "")

    def _assign(self, s: Register | Set, type: str) -> None:
        value = self.wide(self.value(s.value))
        names = self._names("r_", Var(s.name, s.value.type)).parts
        if any(re.search(rf"\b{n}\b", p) for k, p in enumerate(value.parts) for n in names[:k]):
            value = self.name_of(value, s.value.type.dtype)
        for name, text in zip(names, value.parts):
            if name != text:
                self.emit(f"{type}{name} = {bare(text)};")

    def _store(self, s: Store) -> None:
        dtype, lanes = s.value.type.dtype, s.value.type.lanes
        if dtype != self.dtypes.get(s.buffer):
            raise TypeError(f"store of {s.value.type} to buffer {s.buffer} of {self.dtypes.get(s.buffer)}")
        values = self.wide(self.value(s.value)).parts
        places = self.place(s.buffer, s.index, lanes)
        masks = ("true",) * len(values) if s.mask is None else self.value(s.mask).parts
        if self.barriers.before_store(s):
            values = self.name_of(Value(values), dtype).parts
            if s.mask is not None:
                masks = self.name_of(Value(masks), "bool").parts
            index = self.value(s.index)
            self.value(s.index)
            self.memo[id(s.index)] = self.name_of(index, "int64")
            places = self.place(s.buffer, s.index, lanes)
            self.synchronize()
        if dtype in NARROW:
            values = tuple(f"store_{dtype}({v})" for v in values)
        only = "lane == 0" if lanes == 1 else f"lane < {lanes}" if lanes < self.lanes else ""
        ordered = s.index.type.lanes > 1 and not self._distinct(s.index)
        for k, (value, place, mask) in enumerate(zip(values, places, masks)):
            conditions = [c for c in (only, "" if mask == "true" else mask) if c]
            if ordered:
                self._scatter(place, value, conditions, k)
                continue
            guard = f"if ({bare(' && '.join(conditions))}) " if conditions else ""
            self.emit(f"{guard}{place} = {bare(value)};")

    def _scatter(self, place: str, value: str, conditions: list[str], part: int) -> None:
        """A store to places of which some may be equal: the last lane wins."""
        warps = self.lanes // 32
        if part:
            self.synchronize()
        place = f"{place[:place.index('[')]}[{self.bind(place[place.index('[') + 1:-1], 'int64')}]"
        target = place[place.index("[") + 1:-1]
        last = self.bind(f"last_of_place({target}, {' && '.join(conditions) or 'true'})", "bool")
        if warps == 1:
            self.emit(f"if ({last}) {place} = {bare(value)};")
            return
        self.emit(f"for (int warp = 0; warp < {warps}; warp++) {{")
        self.emit(f"  if ({last} && lane / 32 == warp) {place} = {bare(value)};")
        self.emit(f"  synchronize<{self.lanes}>();")
        self.emit("}")

    def _distinct(self, e: Expr) -> bool:
        """Whether the lanes of an index are known to differ."""
        if not isinstance(e, Apply):
            return False
        if e.op == "ramp":
            step = e.args[1]
            return step.value != 0 if isinstance(step, Const) else isinstance(step, Var) and step.name in self.kernel.parameters
        if e.op in ("add", "sub"):
            return any(self._distinct(a) and _is_uniform(b) for a, b in (e.args, e.args[::-1]))
        if e.op == "mul":
            return any(self._distinct(a) and _is_size(b, self.kernel.parameters) for a, b in (e.args, e.args[::-1]))
        return False

    def _for(self, s: For) -> None:
        if s not in self.joined and independent(s, self.kernel):
            parts = interleaved(s, rounds_of(s, self.kernel))
            self.joined.update(parts)
            self.body(tuple(parts))
            return
        start, stop = self.value(s.start), self.value(s.stop)
        if not isinstance(s.stop, Const | Var):
            stop = self.name_of(stop, "int64")
        if self.barriers.enter(s.body):
            self.synchronize()
        number = None
        if start.bounds is not None and stop.bounds is not None:
            number = self.ranges.note("loop", start.bounds, stop.bounds, s.step)
        type, name = self.c_type("int64", number is not None), self.local(s.var)
        self._know(s.var, number)
        (self.natural.add if self.is_natural(s.start) else self.natural.discard)(s.var)
        if s.unroll > 1:
            self.lines.append(f"#pragma unroll {s.unroll}")
        elif s in self.joined or any(isinstance(inner, For) for inner in walk_statements(s.body)):
            self.lines.append("#pragma unroll 1")
        first, step = bare(start.parts[0]), f"{name} += {s.step}" if s.step != 1 else f"{name}++"
        self.emit(f"for ({type} {name} = {first}; {name} < {stop.parts[0]}; {step}) {{")
        self.inside(s.body)
        self.emit("}")

    def inside(self, body: tuple[Stmt, ...]) -> None:
        self.depth += 1
        self.body(body)
        self.depth -= 1
        self.barriers.leave()

    def _if(self, s: If) -> None:
        self.emit(f"if ({bare(self.value(s.condition).parts[0])}) {{")
        before = self.barriers.state()
        self.inside(s.then)
        after = self.barriers.state()
        self.barriers.restore(before)
        if s.otherwise:
            self.emit("} else {")
            self.inside(s.otherwise)
        self.barriers.join(after)
        self.emit("}")


def _is_uniform(e: Expr) -> bool:
    return isinstance(e, Const) or (isinstance(e, Apply) and e.op == "splat")


def _is_size(e: Expr, parameters: tuple[str, ...]) -> bool:
    """A number that isn't zero, in every lane: a size of memory that is walked isn't."""
    if isinstance(e, Apply) and e.op == "splat":
        return _is_size(e.args[0], parameters)
    return (isinstance(e, Const) and e.value != 0) or (isinstance(e, Var) and e.name in parameters)


_STATEMENTS: dict[type, Any] = {
    Let: _Printer._let, Register: _Printer._register, Set: _Printer._set, Store: _Printer._store, For: _Printer._for,
    If: _Printer._if,
}
