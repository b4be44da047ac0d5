"""Replaces elementary functions in a kernel (exp, log, tanh, ...) by primitive operations.

`expand(kernel)` leaves no operation of `elementary.FUNCTIONS` behind. Sub-expressions that occur more than once, in the
formulas or in the kernel's own expression, are bound by Let statements placed just before the statement that uses them,
so expressions stay trees of modest size. float16 and bfloat16 are computed in float32; integer powers by squaring.
The formulas, their errors and their domains are in `elementary`.
"""

from __future__ import annotations

from .elementary import ANGLES, FUNCTIONS, Angle, is_large_angle, reduce_half_pi
from .large_angles import reduce_large_angle
from .loopir import (
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
    apply,
    cast,
    children,
    walk_statements,
)

__all__ = ["expand", "expand_expr"]


def expand(kernel: Kernel) -> Kernel:
    """The kernel with elementary functions replaced; the same object if it has none."""
    statements = list(walk_statements(kernel.body))
    taken = {s.name for s in statements if isinstance(s, Let | Register)} | {s.var for s in statements if isinstance(s, For)}
    expander = _Expander({*taken, *kernel.parameters, kernel.task})
    body = expander.body(kernel.body)
    if body is None:
        return kernel
    return Kernel(kernel.name, kernel.buffers, kernel.parameters, kernel.task, body, kernel.in_place)


def expand_expr(expr: Expr) -> tuple[list[Stmt], Expr]:
    """Statements to put before the statement that uses `expr`, and the expanded expression."""
    statements: list[Stmt] = []
    expanded = _Expander(set()).exprs((expr,), statements)
    return statements, expr if expanded is None else expanded[0]


class _Expander:
    """Rewrites statements; methods return None where nothing changes."""

    def __init__(self, taken: set[str]) -> None:
        self.taken = taken
        self.count = 0
        self.plain: set[int] = set()  # ids of the kernel's expressions without functions

    def fresh(self) -> str:
        while True:
            self.count += 1
            name = f"m{self.count}"
            if name not in self.taken:
                return name

    # -- statements

    def body(self, body: tuple[Stmt, ...]) -> tuple[Stmt, ...] | None:
        result: list[Stmt] = []
        changed = False
        for s in body:
            new = self.statement(s)
            changed |= new is not None
            result.extend([s] if new is None else new)
        return tuple(result) if changed else None

    def statement(self, s: Stmt) -> list[Stmt] | None:
        before: list[Stmt] = []
        if isinstance(s, Prefetch):
            return None
        if isinstance(s, Let | Register | Set):
            new = self.exprs((s.value,), before)
            return None if new is None else [*before, type(s)(s.name, new[0])]
        if isinstance(s, Store):
            new = self.exprs((s.index, s.value) if s.mask is None else (s.index, s.value, s.mask), before)
            return (
                None
                if new is None
                else [*before, Store(s.buffer, new[0], new[1], new[2] if s.mask is not None else None)]
            )
        if isinstance(s, For):
            new, body = self.exprs((s.start, s.stop), before), self.body(s.body)
            if new is None and body is None:
                return None
            start, stop = new if new is not None else (s.start, s.stop)
            return [*before, For(s.var, start, stop, s.step, body if body is not None else s.body, s.unroll, s.apart)]
        new, then, otherwise = self.exprs((s.condition,), before), self.body(s.then), self.body(s.otherwise)
        if new is None and then is None and otherwise is None:
            return None
        return [
            *before,
            If(
                new[0] if new is not None else s.condition,
                then if then is not None else s.then,
                otherwise if otherwise is not None else s.otherwise,
            ),
        ]

    # -- expressions

    def exprs(self, exprs: tuple[Expr, ...], before: list[Stmt]) -> tuple[Expr, ...] | None:
        """The expressions of one statement, expanded; Let statements that they need are appended to `before`."""
        if all(map(self.is_plain, exprs)):
            return None
        dag = _Dag(self, before)
        roots = [dag.expand(e) for e in exprs]
        return dag.bind(roots, before)


    def is_plain(self, e: Expr) -> bool:
        """Whether an expression has no function in it."""
        kind = e.__class__
        if (kind is not Apply and kind is not Load) or id(e) in self.plain:
            return True
        if kind is Apply and e.op in FUNCTIONS:  # type: ignore[attr-defined]
            return False
        if all(map(self.is_plain, children(e))):
            self.plain.add(id(e))
            return True
        return False


class _Dag:
    """Expressions in which equal nodes are one object."""

    def __init__(self, expander: _Expander, before: list[Stmt]) -> None:
        self.expander = expander
        self.before = before
        self.nodes: dict[tuple, Expr] = {}
        self.interned: dict[int, Expr] = {}
        self.kept: list[Expr] = []  # keeps the objects alive whose ids are keys
        self.replaced: dict[int, Expr] = {}
        self.angles: dict[int, tuple[Expr, Angle]] = {}
        self.bound: dict[int, Var] = {}

    def unique(self, e: Expr) -> Expr:
        """The one object for `e` and everything equal to it."""
        found = self.interned.get(id(e))
        if found is not None:
            return found
        if isinstance(e, Apply):
            args = tuple(self.unique(a) for a in e.args)
            key: tuple = ("apply", e.op, tuple(map(id, args)), e.type)
            node: Expr = e if all(a is b for a, b in zip(args, e.args, strict=True)) else Apply(e.op, args, e.type)
        elif isinstance(e, Load):
            index, mask = self.unique(e.index), None if e.mask is None else self.unique(e.mask)
            key = ("load", e.buffer, id(index), id(mask), e.type)
            node = Load(e.buffer, index, e.type, mask)
        else:
            key, node = ("leaf", e), e
        node = self.nodes.setdefault(key, node)
        self.interned[id(e)] = self.interned[id(node)] = node
        self.kept += (e, node)
        return node

    def expand(self, e: Expr) -> Expr:
        """`e` with every elementary function replaced, interned."""
        e = self.unique(e)
        found = self.replaced.get(id(e))
        if found is not None:
            return found
        result = e
        if isinstance(e, Apply):
            args = tuple(self.expand(a) for a in e.args)
            if e.op in FUNCTIONS:
                result = self.unique(self.function(e, args))
            elif any(a is not b for a, b in zip(args, e.args, strict=True)):
                result = self.unique(Apply(e.op, args, e.type))
        elif isinstance(e, Load):
            result = self.unique(
                Load(e.buffer, self.expand(e.index), e.type, None if e.mask is None else self.expand(e.mask))
            )
        self.replaced[id(e)] = result
        return result

    def function(self, e: Apply, args: tuple[Expr, ...]) -> Expr:
        dtype = e.type.dtype
        if "float" not in dtype:
            return self.integer_power(args[0], args[1])
        if dtype not in ("float32", "float64"):
            args = tuple(self.unique(cast(a, "float32")) for a in args)
        result = self.of_angle(e.op, args[0]) if e.op in ANGLES else FUNCTIONS[e.op](*args)
        return cast(result, dtype)

    def of_angle(self, op: str, x: Expr) -> Expr:
        """sin, cos or tan, whose angle is reduced before the statement: a branch treats lanes that are large."""
        if id(x) not in self.angles:
            (v,) = self.name((x,))
            fast = reduce_half_pi(v)
            angle = tuple(Get(self.expander.fresh(), part.type) for part in fast)
            values = self.name((*fast, is_large_angle(v)))
            large = values[-1]
            self.before += [Register(g.name, value) for g, value in zip(angle, values, strict=False)]
            slow: list[Stmt] = []
            exact = self.bind([self.unique(part) for part in reduce_large_angle(v)], slow)
            slow += [Set(g.name, apply("select", large, part, g)) for g, part in zip(angle, exact, strict=True)]
            some = large if large.type.lanes == 1 else Apply("reduce_or", (large,), Type("bool"))
            self.before.append(If(some, tuple(slow)))
            self.angles[id(x)] = v, (angle[0], angle[1], angle[2])
        v, reduced = self.angles[id(x)]
        return FUNCTIONS[op](v, reduced)

    def integer_power(self, x: Expr, y: Expr) -> Expr:
        """x**y modulo the width, by squaring, for y >= 0; a loop before the statement looks at the bits of y."""
        if isinstance(y, Const) and 0 <= y.value <= 64:
            return _constant_power(x, y.value)
        x, y = self.name((x, y))
        result, square, rest = (self.expander.fresh() for _ in range(3))
        type, one = x.type, Const(1, x.type)
        bit = (Get(rest, type) & one).equals(one)
        step = (
            Set(result, apply("select", bit, Get(result, type) * Get(square, type), Get(result, type))),
            Set(square, Get(square, type) * Get(square, type)),
            Set(rest, apply("shr", Get(rest, type), one)),
        )
        width = int("".join(c for c in type.dtype if c.isdigit()))
        self.before += [
            Register(result, one),
            Register(square, x),
            Register(rest, y),
            For(self.expander.fresh(), Const(0, Type("int64")), Const(width, Type("int64")), 1, step),
        ]
        return Get(result, type)

    def name(self, exprs: tuple[Expr, ...]) -> tuple[Expr, ...]:
        """Names (or constants) for expressions that statements before the current one need."""
        nodes = [self.unique(e) for e in exprs]
        for node, tree in zip(nodes, self.bind(nodes, self.before), strict=True):
            if isinstance(tree, Apply | Load):
                self.bound[id(node)] = Var(self.expander.fresh(), tree.type)
                self.before.append(Let(self.bound[id(node)].name, tree))
        return self.bind(nodes, self.before)

    def bind(self, roots: list[Expr], before: list[Stmt]) -> tuple[Expr, ...]:
        """The roots as trees: what is used more than once is bound by a Let, operands first."""
        uses: dict[int, int] = {}
        order: list[Expr] = []

        def count(e: Expr) -> None:
            uses[id(e)] = uses.get(id(e), 0) + 1
            if uses[id(e)] == 1:
                for child in () if id(e) in self.bound else children(e):
                    count(child)
                order.append(e)

        for root in roots:
            count(root)
        final: dict[int, Expr] = {}
        for e in order:  # operands come first
            tree = e
            if id(e) in self.bound:
                tree = self.bound[id(e)]
            elif isinstance(e, Apply):
                tree = Apply(e.op, tuple(final[id(a)] for a in e.args), e.type)
            elif isinstance(e, Load):
                tree = Load(e.buffer, final[id(e.index)], e.type, None if e.mask is None else final[id(e.mask)])
            if uses[id(e)] > 1 and isinstance(tree, Apply | Load) and not _is_cheap(tree):
                name = Var(self.expander.fresh(), e.type)
                before.append(Let(name.name, tree))
                if before is self.before:  # visible up to the current statement
                    self.bound[id(e)] = name
                tree = name
            final[id(e)] = tree
        return tuple(final[id(r)] for r in roots)


def _is_cheap(e: Expr) -> bool:
    """A splat of a constant or name, which is no work to repeat."""
    return isinstance(e, Apply) and e.op == "splat" and isinstance(e.args[0], Const | Var)


def _constant_power(x: Expr, exponent: int) -> Expr:
    result: Expr = Const(1, x.type)
    while exponent:
        if exponent & 1:
            result = x if isinstance(result, Const) else result * x
        exponent >>= 1
        if exponent:
            x = x * x
    return result
