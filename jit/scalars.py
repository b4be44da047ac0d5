"""Nodes to loop IR: `Emitter` writes the statements that compute a node, each at the outermost place where it is known.

A kernel is built as a stack of `Block`s (the task, a row, an inner loop ...), each of which introduces index
variables. One variable may run along vector lanes. A node becomes a `Let` in the innermost block that introduces a
variable it depends on, so invariant work leaves the inner loops by construction, and a shared node is computed once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from hybrid.graph import Value
from ndarray.dims import Size
from ndarray.dtypes import name_of

from .launch import KernelBuilder, Storage
from .loopir import INT, Apply, Const, Expr, Let, Load, Stmt, Store, Type, Var, apply, cast, ramp, splat
from .nodes import BOOL, INT64, Arena, Node, walk

__all__ = ["Block", "Emitter"]


@dataclass
class Block:
    """A place for statements. `variables` are the index variables it introduces; `lane` is the name of the one that
    runs along `lanes` lanes from its expression on, of which `tail` (or all) are switched on."""

    variables: dict[str, Expr]
    lane: str = ""
    lanes: int = 1
    tail: Expr | None = None
    statements: list[Stmt] = field(default_factory=list)
    memo: dict[tuple[Node, Node | None], Expr] = field(default_factory=dict)
    addresses: dict[Expr, Expr] = field(default_factory=dict)


def wrap(value: int) -> int:
    """An integer modulo 2**64, as int64."""
    return (value + (1 << 63)) % (1 << 64) - (1 << 63)


class Emitter:
    """Writes nodes as statements of one kernel.

    `storage(value)` says where a stored value lies.
    """

    def __init__(self, builder: KernelBuilder, arena: Arena, storage: Callable[[Value], Storage]):
        self.builder, self.arena, self.storage = builder, arena, storage
        self.masked = True  # whether masked loads are cheap
        self.guard: Expr | None = None  # a scalar condition under which memory may be touched at all
        self.blocks: list[Block] = [Block({})]

    # -- blocks
    @property
    def body(self) -> list[Stmt]:
        """Statements of the innermost block."""
        return self.blocks[-1].statements

    def push(self, variables: dict[str, Expr], lane: str = "", lanes: int = 1, tail: Expr | None = None) -> Block:
        """Open a block inside the present one."""
        self.blocks.append(Block(variables, lane, lanes, tail))
        return self.blocks[-1]

    def pop(self) -> list[Stmt]:
        """Close the innermost block; returns its statements."""
        return self.blocks.pop().statements

    def lane_block(self) -> Block | None:
        """The block whose variable runs along lanes."""
        return next((b for b in self.blocks if b.lane and b.lanes > 1), None)

    def place(self, node: Node) -> Block:
        """The block in which a node is computed."""
        if node.deps:
            for block in reversed(self.blocks):
                if not node.deps.isdisjoint(block.variables):
                    return block
        return self.blocks[0]

    def bind(self, node: Node, value: Expr) -> None:
        """From now on `node` is `value` (the result of a reduction)."""
        self.place(node).memo[node, None] = value

    def let(self, block: Block, value: Expr, prefix: str = "t") -> Expr:
        """`value` under a name, unless it is one already."""
        if isinstance(value, (Const, Var)):
            return value
        name = self.builder.fresh(prefix)
        block.statements.append(Let(name, value))
        return Var(name, value.type)

    # -- values
    def emit(self, node: Node, mask: Node | None = None) -> Expr:
        """The value of a node: a scalar if it does not depend on the lanes' variable, else a vector. `mask` is the
        condition under which it matters."""
        if not node.unsafe:
            mask = None
        block = self._block_of(node, mask)
        key = (node, mask)
        value = block.memo.get(key)
        if value is None:
            value = block.memo[key] = self._emit(node, mask, block)
        return value

    def _block_of(self, node: Node, mask: Node | None) -> Block:
        """The block in which a node is computed where `mask` holds."""
        if mask is None or not node.unsafe or mask.deps <= node.deps:
            return self.place(node)
        a, b = self.place(node), self.place(mask)
        return a if self.blocks.index(a) >= self.blocks.index(b) else b

    def _emit(self, node: Node, mask: Node | None, block: Block) -> Expr:
        op = node.op
        if op == "const":
            return Const(node.args[0], Type(name_of(node.dtype)))
        if op in ("cast", "mod") and self.masked and self._alternates(node):
            pair = [splat(self.emit(half, mask), self.lane_count() // 2) for half in self._halves(node)]
            return self.let(block, Apply("interleave", tuple(pair), pair[0].type.with_lanes(self.lane_count())))
        if op in ("affine", "var"):
            base, step, vector = self.address(node, mask)
            lanes = self.lane_count()
            value = base if step is None else ramp(base, step, lanes)
            if vector is not None:
                value = vector if isinstance(value, Const) and value.value == 0 else apply("add", vector, value)
            return self.let(block, value, "i")
        if op == "load":
            return self.let(block, self._load(node, mask, block), "x")
        if op == "reduced":
            raise AssertionError(f"the result of {node.args[0].op.name} is read before it is known, or at another row")
        if op == "select":
            return self._select(node, mask, block)
        if op == "and" and node.args[1].unsafe and node.dtype == BOOL:  # the second is read only where the first holds
            args: tuple[Expr, ...] = (self.emit(node.args[0], mask), self.emit(node.args[1], self._both(mask, node.args[0])))
        else:
            args = tuple(self.emit(a, mask) for a in node.args)
        if op == "cast":
            return self.let(block, cast(args[0], name_of(node.dtype)))
        if op == "bitcast":
            return self.let(block, Apply("bitcast", args, Type(name_of(node.dtype), args[0].type.lanes)))
        if op in ("floordiv", "mod") and node.dtype.kind in "iu":
            return self.let(block, self._divide(op, args, node))
        return self.let(block, apply(op, *args))

    def _select(self, node: Node, mask: Node | None, block: Block) -> Expr:
        condition, a, b = node.args
        c = self.emit(condition, mask)
        yes = self.emit(a, self._both(mask, condition)) if a.unsafe else self.emit(a)
        otherwise = self.arena.operate("not", (condition,), condition.dtype)
        no = self.emit(b, self._both(mask, otherwise)) if b.unsafe else self.emit(b)
        return self.let(block, apply("select", c, yes, no))

    def _both(self, mask: Node | None, condition: Node) -> Node:
        return condition if mask is None else self.arena.operate("and", (mask, condition), condition.dtype)

    def _divide(self, op: str, args: tuple[Expr, ...], node: Node) -> Expr:
        divisor = self.arena.constant_of(node.args[1]) if node.dtype == INT64 else None
        if divisor is None and isinstance(args[1], Const):
            divisor = args[1].value
        if isinstance(divisor, int) and divisor != 0:
            return apply(op, args[0], Const(divisor, args[1].type))
        if divisor is not None and not isinstance(divisor, int):
            return apply(op, *args)  # a size: at least 1 where code runs
        zero = apply("eq", args[1], 0)  # NumPy gives 0
        return apply("select", zero, 0, apply(op, args[0], apply("select", zero, 1, args[1])))

    def lane_count(self) -> int:
        """How many lanes the values at hand have that depend on the lanes' variable."""
        block = self.lane_block()
        return 1 if block is None else block.lanes

    # -- memory
    def address(self, flat: Node, mask: Node | None = None) -> tuple[Expr, Expr | None, Expr | None]:
        """An int64 node as (scalar base, step between lanes or None, further vector part or None). What is known
        outside a loop is summed outside. `mask` is the condition under which it matters."""
        terms, const = self.arena.parts(flat)
        lane = self.lane_block()
        sums: dict[int, Expr] = {}
        step: Expr | None = None
        vector: Expr | None = None
        for atom, c in terms.items():
            if atom.op == "var":
                name = atom.args[0]
                block = self.place(atom)
                value = block.variables[name]
                coefficient = self.coefficient(c)
                if lane is not None and name == lane.lane and block is lane:
                    step = coefficient if step is None else step + coefficient
                part = value * coefficient
            else:
                block = self._block_of(atom, mask)
                value = self.emit(atom, mask)
                part = apply("mul", value, self.coefficient(c))
                if part.type.lanes > 1:
                    vector = part if vector is None else apply("add", vector, part)
                    continue
            k = self.blocks.index(block)
            sums[k] = part if k not in sums else sums[k] + part
        offset = self.builder.size(const) if not isinstance(const, int) or abs(const) > 64 else Const(wrap(const), INT)
        if isinstance(const, int) and const < -64:
            offset = Const(wrap(const), INT)
        total: Expr = offset
        for position, k in enumerate(sorted(sums)):
            total = sums[k] if position == 0 and isinstance(total, Const) and total.value == 0 else total + sums[k]
            if position + 1 < len(sums):
                known = self.blocks[k].addresses
                if total not in known:
                    known[total] = self.let(self.blocks[k], total, "a")
                total = known[total]
        return total, step, vector

    def coefficient(self, c: Size) -> Expr:
        """A coefficient as an expression: small numbers are constants, sizes are parameters."""
        if isinstance(c, int) and -16 <= c <= 16:
            return Const(c, INT)
        if isinstance(c, int) and c < 0:
            return Const(wrap(c), INT)
        return self.builder.size(c) if not isinstance(c, int) or c < 1 << 62 else Const(wrap(c), INT)

    def _load(self, node: Node, mask: Node | None, block: Block) -> Expr:
        value, flat, safe, _ = node.args
        if any(isinstance(n, int) and n == 0 for n in value.shape):
            return Const(0, Type(name_of(node.dtype)))  # an empty array is read under no condition that holds
        buffer = self.builder.buffer(self.storage(value), "read")
        condition = None if safe or mask is None else self.emit(mask)
        type = Type(name_of(node.dtype))
        halves = self.masked and self._climbs_by_halves(flat)
        base, step, vector = (Const(0, INT), Const(1, INT), None) if halves else self.address(flat, mask)
        if step is None and vector is None:
            if condition is None or condition.type.lanes == 1:
                if self.guard is not None:
                    condition = self.guard if condition is None else apply("and", self.guard, condition)
                return Load(buffer, base, type, condition)
            return Load(buffer, splat(base, condition.type.lanes), type.with_lanes(condition.type.lanes), condition)
        lane = self.lane_block()
        assert lane is not None
        on = lane.tail
        if condition is not None:
            condition = splat(condition, lane.lanes) if condition.type.lanes == 1 else condition
            on = condition if on is None else self.let(block, apply("and", on, condition), "m")
        type = type.with_lanes(lane.lanes)
        if halves:
            return self._load_halves(flat, buffer, type, on, block)
        if vector is None and isinstance(step, Const) and step.value == 1:
            return Load(buffer, base, type, on)
        if vector is None and isinstance(step, Const) and step.value == -1 and on is None:
            return Apply("reverse", (Load(buffer, base - (lane.lanes - 1), type),), type)
        if vector is None and isinstance(step, Const) and step.value == 2 and self.masked:
            return self._load_even(buffer, base, type, on, block)
        index = ramp(base, step, lane.lanes) if step is not None else splat(base, lane.lanes)
        if vector is not None:
            only = isinstance(base, Const) and base.value == 0 and step is None
            index = vector if only else apply("add", vector, index)
        return Load(buffer, self.let(block, index, "i"), type, on)

    # -- positions i // 2 and i % 2 of the lanes, as unpooling has them: the even lanes, and the odd ones, are simple
    def _in_lanes(self, node: Node) -> tuple[Block, dict[Node, Size]] | None:
        """The lanes' block and the terms of an int64 node that depend on the lanes' variable, if there are lanes enough."""
        lane = self.lane_block()
        if lane is None or lane.lanes < 4 or node.dtype != INT64 or node.unsafe \
                or self.place(self.arena.var(lane.lane, 1)) is not lane:
            return None
        return lane, {t: c for t, c in self.arena.parts(node)[0].items() if lane.lane in t.deps}

    def _is_by_two(self, atom: Node, op: str, lane: Block) -> bool:
        """Whether an atom is ``(lane + what is equal in all lanes) op 2``."""
        if atom.op != op or atom.dtype != INT64 or self.arena.constant_of(atom.args[1]) != 2:
            return False
        terms = self.arena.parts(atom.args[0])[0]
        moving = {t: c for t, c in terms.items() if lane.lane in t.deps}
        return [(t.op, c) for t, c in moving.items()] == [("var", 1)]

    def _climbs_by_halves(self, flat: Node) -> bool:
        """Whether a position is (lane + ...) // 2 + ..., which climbs by 1 from one even lane to the next."""
        found = self._in_lanes(flat)
        if found is None or list(found[1].values()) != [1]:
            return False
        return self._is_by_two(next(iter(found[1])), "floordiv", found[0])

    def _alternates(self, node: Node) -> bool:
        """Whether a value depends on the lanes through (lane + ...) % 2 only: one value in the even lanes, one in the odd."""
        inner = node.args[0] if node.op == "cast" else node
        found = self._in_lanes(inner)
        return found is not None and bool(found[1]) and all(self._is_by_two(t, "mod", found[0]) for t in found[1])

    def _halves(self, node: Node) -> list[Node]:
        """The node at the first lane and at the second one."""
        lane = self.lane_block()
        assert lane is not None
        variable = next(n for n in walk([node]) if n.op == "var" and n.args[0] == lane.lane)
        first = self.arena.var(f"@{lane.lane}", variable.args[1])
        lane.variables[first.args[0]] = lane.variables[lane.lane]
        at = (first, self.arena.add(first, self.arena.size(1)))
        return [self.arena.rebuild(node, lambda n, p=p: p if n is variable else None, {}) for p in at]  # type: ignore[misc]

    def _load_halves(self, flat: Node, buffer: str, type: Type, on: Expr | None, block: Block) -> Expr:
        """A contiguous vector for the even lanes and one for the odd ones, interleaved: faster than a gather."""
        half = type.with_lanes(type.lanes // 2)
        parts = []
        for place, position in zip(("even", "odd"), self._halves(flat)):
            base, _, _ = self.address(position)
            mask = None if on is None else self.let(block, Apply(place, (on,), Type("bool", half.lanes)), "m")
            parts.append(self.let(block, Load(buffer, base, half, mask), "x"))
        return Apply("interleave", tuple(parts), type)

    def _load_even(self, buffer: str, base: Expr, type: Type, on: Expr | None, block: Block) -> Expr:
        """Every second element: contiguous vectors without what lies between are faster than a gather."""
        switch = Type("bool", type.lanes)
        on = Const(True, switch) if on is None else on
        wide = self.let(block, Apply("interleave", (on, Const(False, switch)), Type("bool", 2 * type.lanes)), "m")
        pairs = self.let(block, Load(buffer, base, type.with_lanes(2 * type.lanes), wide), "x")
        return Apply("even", (pairs,), type)

    def store_all(self, storages: Sequence[Sequence[Storage]], nodes: Sequence[Node], flat: Node) -> None:
        """Write the value of each node at `flat` into each of its storages; all is read before anything is written."""
        values = [self.emit(node) for node in nodes]
        for places, value in zip(storages, values, strict=True):
            self.body.extend(self.store(s, flat, value) for s in places)

    def store(self, storage: Storage, flat: Node, value: Expr, access: str = "write") -> Stmt:
        """The statement that stores a value at row-major position `flat`."""
        buffer = self.builder.buffer(storage, access)
        base, step, vector = self.address(flat)
        lane = self.lane_block()
        if step is None and vector is None:
            if value.type.lanes == 1:
                return Store(buffer, base, value, self.guard)
            assert lane is not None and lane.lane is not None  # the lanes run along an axis of size 1: one of them is on
            return Store(buffer, apply("add", base, lane.variables[lane.lane]), value, lane.tail)
        assert lane is not None
        value = splat(value, lane.lanes) if value.type.lanes == 1 else value
        if vector is None and isinstance(step, Const) and step.value == 1:
            return Store(buffer, base, value, lane.tail)
        index = ramp(base, step, lane.lanes) if step is not None else splat(base, lane.lanes)
        if vector is not None:
            index = apply("add", vector, index)
        return Store(buffer, index, value, lane.tail)


def type_of(dtype: np.dtype, lanes: int = 1) -> Type:
    """The loop-IR type of a NumPy dtype."""
    return Type(np.dtype(dtype).name, lanes)
