"""C++ text of loop-IR expressions: what the statements' printer (`printer`) stands on."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from ..launch import SIGNED
from ..llvm_ops import NARROW
from ..loopir import OPERATIONS, Apply, Const, Expr, Get, Kernel, Load, Var, children
from . import operations as ops
from .permutations import PERMUTATIONS
from .ranges import Ranges
from .text import atom, bare, fill, identifier, is_atom, summand

__all__ = ["Expressions", "Value"]


class Value(NamedTuple):
    """An expression's C texts, one for each part. `bounds` is the number of its step in `Ranges`, if its C type is I."""

    parts: tuple[str, ...]
    bounds: int | None = None

    @property
    def narrow(self) -> bool:
        return self.bounds is not None


_WIDTH = 140  # an operand beyond so many characters gets a name


class Expressions:
    """Prints the expressions of one kernel for workers of `lanes` threads; `lines` is what has been printed."""

    def __init__(self, kernel: Kernel, lanes: int):
        self.kernel, self.lanes = kernel, lanes
        self.lines: list[str] = []
        self.depth = 1
        self.count = 0
        self.memo: dict[int, Value] = {}
        self.uses: dict[int, int] = {}
        self.ranges = Ranges()
        note = self.ranges.note
        self.known = {p: note("parameter", k) for k, p in enumerate(kernel.parameters)}  # names of C type I -> their ranges
        self.known[kernel.task] = note("task")
        self.natural = {p for p in kernel.parameters if not p.startswith(SIGNED)} | {kernel.task}
        self.dtypes = {b.name: b.dtype for b in kernel.buffers}
        self.short: set[int] = set()  # numbers of lanes below the number of threads

    # -- lines
    def emit(self, text: str) -> None:
        self.lines.append("  " * self.depth + text)

    def fresh(self) -> str:
        self.count += 1
        return f"t{self.count}"

    def bind(self, text: str, type: str) -> str:
        """A name for a text of a C type."""
        name = self.fresh()
        self.emit(f"const {type} {name} = {bare(text)};")
        return name

    def name_of(self, value: Value, dtype: str) -> Value:
        """The value with names or constants in place of texts that are more."""
        type = self.c_type(dtype, value.narrow)
        names: dict[str, str] = {}
        for p in value.parts:
            if p not in names:
                names[p] = p if is_atom(p) else self.bind(p, type)
        return Value(tuple(names[p] for p in value.parts), value.bounds)

    def c_type(self, dtype: str, index: bool) -> str:
        return "I" if index else ops.value_type(dtype)

    def lane_of(self, lanes: int, part: int = 0) -> str:
        """The lane that this thread holds in a part of a vector."""
        if lanes < self.lanes:
            self.short.add(lanes)
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
            number = self.ranges.note("const", int(e.value))
            return Value((f"({text})" if text.startswith("-") else text,) * count, number)
        return Value((ops.literal(e.value, e.type.dtype),) * count)

    def _names(self, prefix: str, e: Any, bounds: int | None = None) -> Value:
        count, name = self.parts_of(e.type.lanes), prefix + self.local(e.name)
        return Value((name,) if count == 1 else tuple(f"{name}__{p}" for p in range(count)), bounds)

    def local(self, name: str) -> str:
        """The C name of a variable, which may have a buffer's name: in loop IR those are apart."""
        return identifier(name) + "_v" * (name in self.dtypes)

    def _var(self, e: Var) -> Value:
        return self._names("", e, self.known.get(e.name))

    def _get(self, e: Get) -> Value:
        return self._names("r_", e)

    def place(self, buffer: str, index: Expr, lanes: int) -> tuple[str, ...]:
        """The text of the element(s) of a buffer that this thread touches."""
        name, value = identifier(buffer), self.value(index)
        if buffer not in self.dtypes:
            raise ValueError(f"there is no buffer {buffer}")
        if index.type.lanes > 1 or lanes == 1:
            return tuple(f"{name}[{bare(p)}]" for p in value.parts)
        (base,) = value.parts
        if value.bounds is not None:
            self.ranges.note("lanes", value.bounds, lanes)
        start = "" if base == "0" else f"{summand(base)} + "
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
            return Value(args[0].parts * count, args[0].bounds)
        if e.op == "ramp":
            return self._ramp(e, args)
        if e.op == "cast":
            return args[0] if e.type == operand else Value(tuple(ops.cast(p, operand.dtype, e.type.dtype) for p in args[0].parts))
        if e.op == "bitcast":
            return Value(tuple(ops.bitcast(p, operand, e.type) for p in self.wide(args[0]).parts))
        if (clipped := self._clip(e, args)) is not None:
            return clipped
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
        parts = tuple(fill(text, [a.parts[p] for a in args]) for p in range(count))
        if not index or e.type.dtype != "int64":
            return Value(parts)
        return Value(parts, self.ranges.note(e.op, *(a.bounds for a in typed if a.bounds is not None)))

    def _clip(self, e: Apply, args: list[Value]) -> Value | None:
        """max(min(any, size), size) or the reverse, or any % size: an int64 brought among sizes is one."""
        if e.type.dtype != "int64" or e.op not in ("min", "max", "mod") or args[0].narrow or args[1].bounds is None:
            return None
        inner, outer = e.args[0], args[1].bounds
        if e.op == "mod":
            if not self.is_natural(e.args[1]):
                return None
            number = self.ranges.note("mod", outer, outer)
            text = "floor_mod<int64>({0}, {1})"
        else:
            other = "max" if e.op == "min" else "min"
            if not isinstance(inner, Apply) or inner.op != other or (bound := self.value(inner.args[1]).bounds) is None:
                return None
            number = self.ranges.note("clip", bound, outer)
            text = ops.pattern(e.op, "int64") or ""
        wide = [self.name_of(args[0], "int64"), self.name_of(self.wide(args[1]), "int64")]
        return Value(tuple(f"(I)({bare(fill(text, [a, b]))})" for a, b in zip(wide[0].parts, wide[1].parts)), number)

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
        first, second = args[0].bounds, args[1].bounds
        bounds = None
        if first is not None and second is not None:
            bounds = self.ranges.note("ramp", first, second, self._all_lanes(e.type.lanes))
        base, step = (v.parts[0] for v in (args if bounds is not None else map(self.wide, args)))
        dtype, texts = e.type.dtype, []
        for p in range(self.parts_of(e.type.lanes)):
            lane = self.lane_of(e.type.lanes, p)
            if bounds is not None:
                steps = lane if step == "1" else f"{atom(lane)} * {step}"
                texts.append(f"({steps})" if base == "0" else f"({summand(base)} + {steps})")
            elif step == base == ops.literal(0, dtype):
                texts.append(base)
            else:
                product = fill(ops.pattern("mul", dtype) or "", [step, ops.cast(atom(lane), "int32", dtype)])
                texts.append(fill(ops.pattern("add", dtype) or "", [base, product]))
        return Value(tuple(texts), bounds)

    def _all_lanes(self, lanes: int) -> int:
        return self.ranges.note("lanes", self.ranges.note("const", 0), lanes)


def _splat_value(e: Expr) -> int | None:
    if isinstance(e, Apply) and e.op == "splat":
        return _splat_value(e.args[0])
    return int(e.value) if isinstance(e, Const) else None


_EXPRESSIONS: dict[type, Any] = {
    Const: Expressions._const, Var: Expressions._var, Get: Expressions._get, Load: Expressions._load, Apply: Expressions._apply,
}
