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
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from ..launch import SIGNED
from ..llvm_ops import NARROW
from ..loopir import (
    INT,
    OPERATIONS,
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
    Var,
    children,
    walk_statements,
)
from ..show import show_kernel
from ..vector_math import expand
from . import operations as ops
from .barriers import Barriers, expressions
from .permutations import PERMUTATIONS

__all__ = ["ABI_VERSION", "Layout", "prelude", "print_kernel", "print_module"]

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
    def exchange_bytes(self) -> int:
        """What threads beyond a warp exchange lanes through."""
        return 8 * self.lanes if self.lanes > 32 else 0


@cache
def prelude() -> str:
    """The text that a module begins with."""
    return (Path(__file__).parent / "prelude.h").read_text()


def print_module(kernels: Mapping[str, Kernel], layouts: Mapping[str, Layout] | Layout = Layout()) -> str:
    """The text of a module that defines a kernel under each symbol.

    Raises TypeError for an operation that the operands' dtype doesn't have and ValueError for a kernel that can't be
    printed, both naming the kernel.
    """
    each = layouts if isinstance(layouts, Mapping) else dict.fromkeys(kernels, layouts)
    return "\n\n".join([prelude().rstrip(), *(print_kernel(s, k, each[s]) for s, k in kernels.items())]) + "\n"


def print_kernel(symbol: str, kernel: Kernel, layout: Layout = Layout()) -> str:
    """The definition of one kernel, without the prelude."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(max(limit, 20_000))  # fused expressions can be deep
    try:
        return _Printer(symbol, expand(kernel), layout).text()
    except (TypeError, ValueError, KeyError) as error:
        raise type(error)(f"kernel {kernel.name}: {error}") from error
    finally:
        sys.setrecursionlimit(limit)


class Value(NamedTuple):
    """An expression's C texts, one for each part; `narrow`: its C type is I rather than int64."""

    parts: tuple[str, ...]
    narrow: bool = False


_KEYWORDS = """alignas and and_eq asm auto bitand bitor bool break case catch char class compl const constexpr continue default
delete do double else enum explicit export extern false float for friend goto if inline int long mutable namespace new not
not_eq nullptr operator or or_eq private protected public register return short signed sizeof static struct switch template
this throw true try typedef typeid typename union unsigned using virtual void volatile wchar_t while xor xor_eq threadIdx
blockIdx blockDim gridDim warpSize lane first_task end_task spill spill_bytes scratch main memory"""


@cache
def _reserved() -> frozenset[str]:
    functions, others = re.findall(r"(\w+) ?\(", prelude()), re.findall(r"(?:typedef [\w ]+|#define|struct) (\w+)", prelude())
    return frozenset(_KEYWORDS.split()) | set(functions) | set(others)


def _identifier(name: str) -> str:
    """A C name for a loop-IR name."""
    plain = re.sub(r"\W", "_", name)
    return f"{plain}_" if plain in _reserved() or plain.startswith("__") or re.fullmatch(r"[tr]\d+|lane\d+", plain) else plain


_WIDTH = 140  # an operand beyond so many characters gets a name


class _Printer:
    """Prints one kernel. `lanes`, `bind` and `name_of` are what the builders of `permutations` use."""

    def __init__(self, symbol: str, kernel: Kernel, layout: Layout):
        self.symbol, self.kernel, self.layout, self.lanes = symbol, kernel, layout, layout.lanes
        self.lines: list[str] = []
        self.depth = 1
        self.count = 0
        self.memo: dict[int, Value] = {}
        self.uses: dict[int, int] = {}
        self.index_names = {*kernel.parameters, kernel.task}  # of C type I
        self.natural = {p for p in kernel.parameters if not p.startswith(SIGNED)} | {kernel.task}
        self.dtypes = {b.name: b.dtype for b in kernel.buffers}
        self.barriers = Barriers(kernel, self.lanes)
        self.narrow_lanes: set[int] = set()  # numbers of lanes below the number of threads

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
            arguments.append(f"{const}{ops.memory_type(b.dtype)} *{restrict}{_identifier(b.name)}")
        arguments += [f"int64 {_identifier(p)}_" for p in self.kernel.parameters]
        arguments += ["int64 first_task", "int64 end_task", "uint8 *spill", "int64 spill_bytes"]
        self._scratch()
        for p in self.kernel.parameters:
            self.emit(f"const I {_identifier(p)} = (I){_identifier(p)}_;")
        frame, self.lines = self.lines, []
        self.depth = 2
        self.body(self.kernel.body)
        if self.barriers.scratch:
            self.emit(f"synchronize<{self.lanes}>();  // the next task uses the same memory")
        task = _identifier(self.kernel.task)
        first = "(I)first_task + (I)(blockIdx.x * blockDim.y + threadIdx.y)"
        loop = f"for (I {task} = {first}; {task} < (I)end_task; {task} += (I)(gridDim.x * blockDim.y)) {{"
        lanes = ["  const int lane = threadIdx.x;"]
        lanes += [f"  const int lane{n} = lane % {n};" for n in sorted(self.narrow_lanes)]
        comment = [f"// {line}" for line in show_kernel(self.kernel).split("\n")[:1]]
        head = f'extern "C" __global__ void __launch_bounds__({self.layout.threads}) {self.symbol}('
        return "\n".join([*comment, head, "    " + ",\n    ".join(arguments) + ") {", *lanes, *frame, "#pragma unroll 1",
                          f"  {loop}", *self.lines, "  }", "}"])

    def _scratch(self) -> None:
        scratch = [b for b in self.kernel.buffers if b.access == "scratch"]
        if not scratch:
            return
        self.emit("SHARED(memory);")
        self.emit("uint8 *scratch = spill ? spill + (blockIdx.x * blockDim.y + threadIdx.y) * spill_bytes")
        self.emit(f"                       : memory + {self.layout.exchange_bytes} + threadIdx.y * spill_bytes;")
        for b in scratch:
            if b.size is None:
                raise ValueError(f"scratch buffer {b.name} has no size")
            type, name = ops.memory_type(b.dtype), _identifier(b.name)
            self.emit(f"{type} *const {name} = ({type} *)scratch;")
            if b is not scratch[-1]:
                names, self.index_names = self.index_names, set()  # parameters have their own type here: they are arguments
                renamed = self._renamed(b.size)
                self.start((renamed,))
                (size,) = self.wide(self.value(renamed)).parts
                self.index_names = names
                self.emit(f"scratch += ({size} * sizeof({type}) + 63) / 64 * 64;")

    def _renamed(self, e: Expr) -> Expr:
        """A size in terms of the arguments, which are named before the parameters."""
        if isinstance(e, Var):
            return Var(f"{e.name}_", INT)
        return Apply(e.op, tuple(map(self._renamed, e.args)), e.type) if isinstance(e, Apply) else e

    # -- lines
    def emit(self, text: str) -> None:
        self.lines.append("  " * self.depth + text)

    def fresh(self) -> str:
        self.count += 1
        return f"t{self.count}"

    def bind(self, text: str, type: str) -> str:
        """A name for a text of a C type."""
        name = self.fresh()
        self.emit(f"const {type} {name} = {_bare(text)};")
        return name

    def name_of(self, value: Value, dtype: str) -> Value:
        """The value with names or constants in place of texts that are more."""
        type = self.c_type(dtype, value.narrow)
        names: dict[str, str] = {}
        for p in value.parts:
            if p not in names:
                names[p] = p if re.fullmatch(r"-?\w+(\.\w+)?", p) else self.bind(p, type)
        return Value(tuple(names[p] for p in value.parts), value.narrow)

    def c_type(self, dtype: str, index: bool) -> str:
        return "I" if index else ops.value_type(dtype)

    def lane_of(self, lanes: int, part: int = 0) -> str:
        """The lane that this thread holds in a part of a vector."""
        if lanes < self.lanes:
            self.narrow_lanes.add(lanes)
            return f"lane{lanes}"
        return f"lane + {self.lanes * part}" if part else "lane"

    def parts_of(self, lanes: int) -> int:
        """How many values a thread holds of a vector."""
        if lanes & (lanes - 1):
            raise ValueError(f"a vector of {lanes} lanes: the number must be a power of two")
        return max(1, lanes // self.lanes)

    # -- expressions
    def start(self, exprs: Iterable[Expr]) -> None:
        """Begin a statement: what it uses more than once gets a name."""
        self.memo, self.uses = {}, {}
        stack = list(exprs)
        while stack:
            e = stack.pop()
            self.uses[id(e)] = self.uses.get(id(e), 0) + 1
            if self.uses[id(e)] == 1:
                stack.extend(children(e))

    def value(self, e: Expr) -> Value:
        """The texts of an expression at this point; work across lanes is emitted before."""
        found = self.memo.get(id(e))
        if found is None:
            found = _EXPRESSIONS[type(e)](self, e)
            long = any(len(p) > _WIDTH for p in found.parts)
            if (self.uses.get(id(e), 0) > 1 or long) and isinstance(e, Apply | Load):
                found = self.name_of(found, e.type.dtype)
            self.memo[id(e)] = found
        return found

    def wide(self, value: Value) -> Value:
        """An index as an int64."""
        return Value(tuple(f"(int64){p}" for p in value.parts)) if value.narrow else value

    def _const(self, e: Const) -> Value:
        count = self.parts_of(e.type.lanes)
        if e.type.dtype == "int64" and abs(int(e.value)) < 1 << 31:
            text = f"{int(e.value)}"
            return Value((f"({text})" if text.startswith("-") else text,) * count, True)
        return Value((ops.literal(e.value, e.type.dtype),) * count)

    def _names(self, prefix: str, e: Any, index: bool = False) -> Value:
        count, name = self.parts_of(e.type.lanes), prefix + _identifier(e.name)
        return Value((name,) if count == 1 else tuple(f"{name}__{p}" for p in range(count)), index)

    def _var(self, e: Var) -> Value:
        return self._names("", e, e.name in self.index_names)

    def _get(self, e: Get) -> Value:
        return self._names("r_", e)

    def place(self, buffer: str, index: Expr, lanes: int) -> tuple[str, ...]:
        """The text of the element(s) of a buffer that this thread touches."""
        name, value = _identifier(buffer), self.value(index)
        if buffer not in self.dtypes:
            raise ValueError(f"there is no buffer {buffer}")
        if index.type.lanes > 1 or lanes == 1:
            return tuple(f"{name}[{_bare(p)}]" for p in value.parts)
        (base,) = value.parts
        start = "" if base == "0" else f"{_sum(base)} + "
        return tuple(f"{name}[{start}{self.lane_of(lanes, p)}]" for p in range(self.parts_of(lanes)))

    def _load(self, e: Load) -> Value:
        dtype = e.type.dtype
        if dtype != self.dtypes.get(e.buffer):
            raise TypeError(f"load of {e.type} from buffer {e.buffer} of {self.dtypes.get(e.buffer)}")
        texts = self.place(e.buffer, e.index, e.type.lanes)
        if dtype == "bool":
            texts = tuple(f"({x} != 0)" for x in texts)
        elif dtype in NARROW:
            texts = tuple(f"load_{dtype}({x})" for x in texts)
        if e.mask is not None:
            zero = ops.literal(0, dtype)
            texts = tuple(x if m == "true" else f"({m} ? {x} : {zero})" for m, x in zip(self.value(e.mask).parts, texts))
        return Value(texts)

    def _apply(self, e: Apply) -> Value:
        operand = e.args[0].type
        if e.op in PERMUTATIONS:
            return PERMUTATIONS[e.op](self, e)
        args = [self.value(a) for a in e.args]
        count = self.parts_of(e.type.lanes)
        if e.op == "splat":
            return Value(args[0].parts * count, args[0].narrow)
        if e.op == "ramp":
            return self._ramp(e, args)
        if e.op == "cast":
            return args[0] if e.type == operand else Value(tuple(ops.cast(p, operand.dtype, e.type.dtype) for p in args[0].parts))
        if e.op == "bitcast":
            return Value(tuple(ops.bitcast(p, operand, e.type) for p in self.wide(args[0]).parts))
        typed = args[1:] if e.op == "select" else args
        index = bool(typed) and all(a.narrow for a in typed) and e.op in ops.INDEX
        if index:
            text = self._index_pattern(e)
        else:
            dtype = e.args[1].type.dtype if e.op == "select" else operand.dtype
            found = ops.pattern(e.op, dtype)
            if found is None or e.op not in OPERATIONS:
                raise TypeError(f"operation {e.op!r} isn't defined for operands of type {operand}")
            text = self._shift(e) if e.op in ("shl", "shr") and isinstance(e.args[1], Const) else found
            args = [a if e.op == "select" and k == 0 else self.wide(a) for k, a in enumerate(args)]
        for k, a in enumerate(args):
            if text.count(f"{{{k}}}") > 1:
                args[k] = self.name_of(a, e.args[k].type.dtype)
        parts = tuple(_fill(text, [a.parts[p] for a in args]) for p in range(count))
        return Value(parts, index and e.type.dtype == "int64")

    def _shift(self, e: Apply) -> str:
        """The pattern of a shift by a known number."""
        type, count = ops.value_type(e.type.dtype), int(e.args[1].value)  # type: ignore[attr-defined]
        bits = int(e.type.dtype.lstrip("uint"))
        if 0 <= count < bits:
            return f"({type})({{0}} >> {count})" if e.op == "shr" else f"({type})((u{type.lstrip('u')}){{0}} << {count})"
        return "({0} < 0 ? -1 : 0)" if e.op == "shr" and not type.startswith("u") else "0"

    def _index_pattern(self, e: Apply) -> str:
        """The pattern of an operation on indices: divisions are simple where nothing is negative."""
        if e.op in ("floordiv", "mod"):
            divisor = e.args[1]
            known = _splat_value(divisor)
            if known is not None and known > 0 and known & (known - 1) == 0:
                return f"({{0}} >> {known.bit_length() - 1})" if e.op == "floordiv" else f"({{0}} & {known - 1})"
            if all(map(self.is_natural, e.args)):
                if known:
                    return "({0} / {1})" if e.op == "floordiv" else "({0} % {1})"
                return "natural_div({0}, {1})" if e.op == "floordiv" else "natural_mod({0}, {1})"
        return ops.INDEX[e.op]

    def is_natural(self, e: Expr) -> bool:
        """Whether an int64 is known not to be negative."""
        if isinstance(e, Const):
            return e.value >= 0
        if isinstance(e, Var):
            return e.name in self.natural
        if not isinstance(e, Apply) or e.type.dtype != "int64":
            return False
        if e.op == "max":
            return any(map(self.is_natural, e.args))
        return e.op in ("add", "mul", "min", "floordiv", "mod", "splat", "ramp") and all(map(self.is_natural, e.args))

    def _ramp(self, e: Apply, args: list[Value]) -> Value:
        index = all(a.narrow for a in args)
        base, step = args if index else map(self.wide, args)
        dtype, texts = e.type.dtype, []
        for p in range(self.parts_of(e.type.lanes)):
            lane = self.lane_of(e.type.lanes, p)
            if index:
                steps = lane if step.parts[0] == "1" else f"{_atom(lane)} * {step.parts[0]}"
                texts.append(f"({steps})" if base.parts[0] == "0" else f"({_sum(base.parts[0])} + {steps})")
                continue
            number = ops.cast(_atom(lane), "int32", dtype)
            product = _fill(ops.pattern("mul", dtype) or "", [step.parts[0], number])
            texts.append(_fill(ops.pattern("add", dtype) or "", [base.parts[0], product]))
        return Value(tuple(texts), index)

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
        (self.index_names.add if value.narrow else self.index_names.discard)(s.name)
        if type.dtype == "int64":
            (self.natural.add if self.is_natural(s.value) else self.natural.discard)(s.name)
        names = self._names("", Var(s.name, type)).parts
        for name, text in zip(names, value.parts):
            self.emit(f"const {self.c_type(type.dtype, value.narrow)} {name} = {_bare(text)};")

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
                self.emit(f"{type}{name} = {_bare(text)};")

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
            guard = f"if ({_bare(' && '.join(conditions))}) " if conditions else ""
            self.emit(f"{guard}{place} = {_bare(value)};")

    def _scatter(self, place: str, value: str, conditions: list[str], part: int) -> None:
        """A store to places of which some may be equal: the last lane wins."""
        warps = self.lanes // 32
        if part:
            self.synchronize()
        place = f"{place[:place.index('[')]}[{self.bind(place[place.index('[') + 1:-1], 'int64')}]"
        target = place[place.index("[") + 1:-1]
        last = self.bind(f"last_of_place({target}, {' && '.join(conditions) or 'true'})", "bool")
        if warps == 1:
            self.emit(f"if ({last}) {place} = {_bare(value)};")
            return
        self.emit(f"for (int warp = 0; warp < {warps}; warp++) {{")
        self.emit(f"  if ({last} && lane / 32 == warp) {place} = {_bare(value)};")
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
        start, stop = self.value(s.start), self.value(s.stop)
        if not isinstance(s.stop, Const | Var):
            stop = self.name_of(stop, "int64")
        if self.barriers.enter(s.body):
            self.synchronize()
        index = start.narrow and stop.narrow
        type, name = self.c_type("int64", index), _identifier(s.var)
        (self.index_names.add if index else self.index_names.discard)(s.var)
        (self.natural.add if self.is_natural(s.start) else self.natural.discard)(s.var)
        if s.unroll > 1:
            self.lines.append(f"#pragma unroll {s.unroll}")
        elif any(isinstance(inner, For) for inner in walk_statements(s.body)):
            self.lines.append("#pragma unroll 1")
        first, step = _bare(start.parts[0]), f"{name} += {s.step}" if s.step != 1 else f"{name}++"
        self.emit(f"for ({type} {name} = {first}; {name} < {stop.parts[0]}; {step}) {{")
        self.inside(s.body)
        self.emit("}")

    def inside(self, body: tuple[Stmt, ...]) -> None:
        self.depth += 1
        self.body(body)
        self.depth -= 1
        self.barriers.leave()

    def _if(self, s: If) -> None:
        self.emit(f"if ({_bare(self.value(s.condition).parts[0])}) {{")
        before = self.barriers.state()
        self.inside(s.then)
        after = self.barriers.state()
        self.barriers.restore(before)
        if s.otherwise:
            self.emit("} else {")
            self.inside(s.otherwise)
        self.barriers.join(after)
        self.emit("}")


# -- texts

def _fill(text: str, operands: list[str]) -> str:
    for k, operand in enumerate(operands):
        text = text.replace(f"{{{k}}}", operand)
    return text


def _bare(text: str) -> str:
    """Without parentheses around the whole."""
    if not (text.startswith("(") and text.endswith(")")):
        return text
    depth = 0
    for k, c in enumerate(text):
        depth += (c == "(") - (c == ")")
        if depth == 0:
            return text[1:-1] if k == len(text) - 1 else text
    return text


def _sum(text: str) -> str:
    """As an operand of +."""
    bare = _bare(text)
    return bare if re.fullmatch(r"[\w\s+*]+", bare) else text


def _atom(text: str) -> str:
    return text if re.fullmatch(r"\w+", text) else f"({text})"


def _splat_value(e: Expr) -> int | None:
    if isinstance(e, Apply) and e.op == "splat":
        return _splat_value(e.args[0])
    return int(e.value) if isinstance(e, Const) else None


def _is_uniform(e: Expr) -> bool:
    return isinstance(e, Const) or (isinstance(e, Apply) and e.op == "splat")


def _is_size(e: Expr, parameters: tuple[str, ...]) -> bool:
    """A number that isn't zero, in every lane: a size of memory that is walked isn't."""
    if isinstance(e, Apply) and e.op == "splat":
        return _is_size(e.args[0], parameters)
    return (isinstance(e, Const) and e.value != 0) or (isinstance(e, Var) and e.name in parameters)


_EXPRESSIONS: dict[type, Any] = {
    Const: _Printer._const, Var: _Printer._var, Get: _Printer._get, Load: _Printer._load, Apply: _Printer._apply,
}
_STATEMENTS: dict[type, Any] = {
    Let: _Printer._let, Register: _Printer._register, Set: _Printer._set, Store: _Printer._store, For: _Printer._for,
    If: _Printer._if,
}
