"""Hash-consed scalar expressions with exact index arithmetic: what one element of a fused value is.

A `Node` is an operation on nodes; equal nodes are one object, so that sharing is free. All int64 arithmetic is kept
as *affine* forms ``c0 + c1*atom1 + ...`` whose coefficients are sizes (polynomials over symbols). That is what makes
reshapes, transposes, slices and paddings cost nothing: ``((i*n + j) // n, (i*n + j) % n)`` is ``(i, j)``, a test that
can't fail disappears, and two loops collapse into one where every index agrees.

Symbolic sizes are taken to be at least 1 in proofs: code runs only for elements that exist.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from hybrid.graph import Value
from ndarray.dims import Dim, Size, hint, product
from ndarray.scalar import OPERATIONS, Scalar

__all__ = ["Arena", "Node", "hint", "nonnegative", "same", "same_sizes", "strides_of"]

INT64 = np.dtype(np.int64)
BOOL = np.dtype(np.bool_)

_COSTS = {
    "div": 4, "sqrt": 6, "exp": 12, "expm1": 16, "log": 14, "log1p": 16, "log2": 14, "sin": 20, "cos": 20, "tan": 30,
    "tanh": 16, "sigmoid": 18, "erf": 16, "ndtr": 12, "pow": 40, "atan2": 30, "asin": 30, "acos": 30, "atan": 25, "sinh": 25,
    "cosh": 25, "floordiv": 10, "mod": 10, "var": 0, "const": 0, "affine": 0,
}


class Node:
    """One operation. `deps` are the names of the index variables it depends on; `unsafe` says that something below
    may be read out of bounds where the conditions around it don't hold."""

    __slots__ = ("args", "deps", "dtype", "number", "op", "unsafe")

    def __init__(self, op: str, args: tuple, dtype: np.dtype, deps: frozenset, unsafe: bool, number: int):
        self.op, self.args, self.dtype, self.deps, self.unsafe, self.number = op, args, dtype, deps, unsafe, number

    @property
    def cost(self) -> int:
        """Rough cost of this operation alone, in additions."""
        return _COSTS.get(self.op, 1)

    def children(self) -> tuple[Node, ...]:
        """The nodes directly below."""
        if self.op == "affine":
            return tuple(a for a, _ in self.args[0])
        if self.op == "load":
            return (self.args[1],)
        if self.op in ("var", "const"):
            return ()
        if self.op == "reduced":
            return self.args[2]
        return self.args

    def __repr__(self) -> str:
        if self.op == "affine":
            terms, const = self.args
            return "(" + " + ".join([*(f"{c}*{a}" for a, c in terms), str(const)]) + ")"
        if self.op == "var":
            return self.args[0]
        return f"{self.op}({', '.join(map(str, self.args))})"


# -- sizes

def same(a: Size, b: Size) -> bool:
    """Whether two sizes are equal for all values of the symbols (never asks a guard)."""
    if type(a) is int and type(b) is int:
        return a == b
    d = a - b
    return isinstance(d, int) and d == 0


def same_sizes(a: tuple[Size, ...], b: tuple[Size, ...]) -> bool:
    """Whether two shapes are equal for all values of the symbols."""
    return len(a) == len(b) and all(map(same, a, b))


def nonnegative(size: Size) -> bool:
    """Whether a size is provably >= 0, symbols being >= 1."""
    if isinstance(size, int):
        return size >= 0
    positive = {m: c for m, c in size.terms if c > 0}
    for monomial, c in size.terms:
        if c > 0:
            continue
        need = -c
        for other in sorted(positive, key=len):  # a monomial is at least each of its divisors
            if positive[other] and _divides(monomial, other):
                taken = min(need, positive[other])
                positive[other] -= taken
                need -= taken
        if need:
            return False
    return True


def _divides(small: tuple, large: tuple) -> bool:
    rest = list(large)
    for a in small:
        if a not in rest:
            return False
        rest.remove(a)
    return all(isinstance(a, str) for a in rest)


def _quotient(a: Size, b: Size) -> Size | None:
    """a / b where that is exact for all symbols, else None."""
    if isinstance(a, int) and isinstance(b, int):
        return a // b if b and a % b == 0 else None
    if isinstance(b, int) and b == 0:
        return None
    q = a // b
    return q if same(q * b, a) else None


def strides_of(shape: tuple[Size, ...]) -> tuple[Size, ...]:
    """Row-major strides, in elements."""
    result: list[Size] = []
    step: Size = 1
    for n in reversed(shape):
        result.append(step)
        step = step * n
    return tuple(reversed(result))


# -- the arena

class Arena:
    """Makes nodes; all nodes that are compared with one another come from one arena."""

    def __init__(self) -> None:
        self._table: dict[tuple, Node] = {}
        self._ranges: dict[Node, tuple[Size | None, Size | None]] = {}

    def _node(self, op: str, args: tuple, dtype: np.dtype, children: Iterable[Node], unsafe: bool = False,
              deps: frozenset = frozenset()) -> Node:
        key = (op, args, dtype)
        node = self._table.get(key)
        if node is None:
            for c in children:
                if c.deps and not c.deps <= deps:
                    deps = deps | c.deps
                unsafe = unsafe or c.unsafe
            node = self._table[key] = Node(op, args, dtype, deps, unsafe, len(self._table))
        return node

    def var(self, name: str, extent: Size) -> Node:
        """The index variable `name`, running over 0 .. extent-1."""
        return self._node("var", (name, extent), INT64, (), deps=frozenset((name,)))

    def const(self, value: Any, dtype: np.dtype) -> Node:
        """A number."""
        if dtype == INT64:
            return self.size(int(value))
        value = dtype.type(value).item() if dtype.kind in "biuf" else float(value)
        # the sign of zero and NaN must survive the table
        return self._node("const", (value, repr(value)), dtype, ())

    def size(self, value: Size) -> Node:
        """A size as an int64 node."""
        return self._node("affine", ((), value), INT64, ())

    def load(self, value: Value, index: tuple[Node, ...], flat: Node | None = None) -> Node:
        """The element of a stored array at `index` (whose row-major position is `flat`)."""
        safe = all(self.in_range(i, n) for i, n in zip(index, value.shape))
        if flat is None:
            flat = self.flatten(index, value.shape)
        return self._node("load", (value, flat, safe, index), value.dtype, (flat,), unsafe=not safe)

    def reduced(self, equation: Any, number: int, index: tuple[Node, ...], dtype: np.dtype) -> Node:
        """Result `number` of a reduction at `index`."""
        return self._node("reduced", (equation, number, index), dtype, index)

    # -- int64 arithmetic
    def affine(self, terms: dict[Node, Size], const: Size) -> Node:
        """const + sum of coefficient * atom."""
        terms = {a: c for a, c in terms.items() if not (isinstance(c, int) and c == 0)}
        for atom in [a for a in terms if a.op == "mod" and a.dtype == INT64]:  # x//n*n + x%n is x
            found = self._remainder_of(atom, terms)
            if found is not None:
                return found if const == 0 and isinstance(const, int) else self.add(found, self.size(const))
        if len(terms) == 1 and isinstance(const, int) and const == 0:
            ((atom, c),) = terms.items()
            if isinstance(c, int) and c == 1:
                return atom
        # by variables first, not by age alone, so that equal computations in other places of a graph become equal kernels
        ordered = tuple(sorted(terms.items(), key=lambda t: (sorted(t[0].deps), t[0].number)))
        return self._node("affine", (ordered, const), INT64, terms)

    def _remainder_of(self, mod: Node, terms: dict[Node, Size]) -> Node | None:
        x, by = mod.args
        n = self.constant_of(by)
        whole = self._table.get(("floordiv", (x, by), INT64))
        if n is None or whole not in terms or not same(terms[whole], terms[mod] * n):
            return None
        rest = {a: c for a, c in terms.items() if a is not mod and a is not whole}
        return self.add(self.affine(rest, 0), x, terms[mod])

    @staticmethod
    def parts(node: Node) -> tuple[dict[Node, Size], Size]:
        """An int64 node as (terms, constant)."""
        if node.op == "affine":
            return dict(node.args[0]), node.args[1]
        return {node: 1}, 0

    def add(self, a: Node, b: Node, scale: Size = 1) -> Node:
        """a + scale * b."""
        terms, const = self.parts(a)
        more, c = self.parts(b)
        for atom, k in more.items():
            terms[atom] = terms.get(atom, 0) + k * scale
        return self.affine(terms, const + c * scale)

    def scale(self, a: Node, by: Size) -> Node:
        """by * a."""
        terms, const = self.parts(a)
        return self.affine({t: c * by for t, c in terms.items()}, const * by)

    def constant_of(self, node: Node) -> Size | None:
        """The value of an int64 node without variables."""
        return node.args[1] if node.op == "affine" and not node.args[0] else None

    def flatten(self, index: tuple[Node, ...], shape: tuple[Size, ...]) -> Node:
        """Row-major position of `index`."""
        flat = self.size(0)
        for i, s in zip(index, strides_of(shape)):
            flat = self.add(flat, i, s)
        return flat

    def unflatten(self, flat: Node, shape: tuple[Size, ...]) -> tuple[Node, ...]:
        """The index whose row-major position in `shape` is `flat`."""
        result = []
        for k, (n, s) in enumerate(zip(shape, strides_of(shape))):
            i = self.floordiv(flat, s)
            result.append(i if k == 0 else self.mod(i, n))
            if isinstance(n, int) and n == 1:
                result[-1] = self.size(0)
        return tuple(result)

    def floordiv(self, a: Node, by: Size) -> Node:
        """a // by, by >= 1."""
        return self._divide(a, by)[0]

    def mod(self, a: Node, by: Size) -> Node:
        """a % by, by >= 1."""
        return self._divide(a, by)[1]

    def _divide(self, a: Node, by: Size) -> tuple[Node, Node]:
        if isinstance(by, int) and by == 1:
            return a, self.size(0)
        terms, const = self.parts(a)
        if isinstance(by, int) and by == 0:
            return self.size(0), self.size(0)
        if a.op == "affine" and _may_wrap(*self.range(a)):
            return self._undivided(a, by)
        whole: dict[Node, Size] = {}
        rest: dict[Node, Size] = {}
        for atom, c in terms.items():
            q = _quotient(c, by)
            if q is not None:
                whole[atom] = q
            else:
                rest[atom] = c
        q = _quotient(const, by)
        base: Size = 0
        if q is not None:
            base, const = q, 0
        elif isinstance(const, int) and isinstance(by, int):
            base, const = divmod(const, by)
        quotient, remainder = self.affine(whole, base), self.affine(rest, const)
        if not self.in_range(remainder, by):
            more, remainder = self._divide_rest(remainder, by)
            quotient = self.add(quotient, more)
        return quotient, remainder

    def _divide_rest(self, a: Node, by: Size) -> tuple[Node, Node]:
        terms, const = self.parts(a)
        for g in sorted({c for c in terms.values() if hint(c) > 1}, key=hint):  # (g*x + low) // (g*m) is x // m
            m = _quotient(by, g)
            if m is None:
                continue
            high = {t: _quotient(c, g) for t, c in terms.items()}
            low = self.affine({t: c for t, c in terms.items() if high[t] is None}, const)
            if self.in_range(low, g):
                q, r = self._divide(self.affine({t: c for t, c in high.items() if c is not None}, 0), m)
                return q, self.add(low, r, g)
        inner = self.constant_of(a.args[1]) if a.op == "floordiv" else None
        if inner is not None:  # (x // p) // q is x // (p*q)
            q = self._divide(a.args[0], inner * by)[0]
            return q, self.add(a, q, -by if isinstance(by, int) else by * -1)
        return self._undivided(a, by)

    def _undivided(self, a: Node, by: Size) -> tuple[Node, Node]:
        d = self.size(by)
        return self._node("floordiv", (a, d), INT64, (a, d)), self._node("mod", (a, d), INT64, (a, d))

    def range(self, node: Node) -> tuple[Size | None, Size | None]:
        """(lowest, highest) value of an int64 node; None where not known."""
        if node.op == "var":
            return 0, node.args[1] - 1
        found = self._ranges.get(node)
        if found is None:
            found = self._ranges[node] = self._range(node)
        return found

    def _range(self, node: Node) -> tuple[Size | None, Size | None]:
        if node.op == "affine":
            low: Size | None = node.args[1]
            high: Size | None = node.args[1]
            for atom, c in node.args[0]:
                lo, hi = self.range(atom)
                if not nonnegative(c):
                    if not nonnegative(c * -1):
                        return None, None
                    lo, hi = hi, lo
                low = None if low is None or lo is None else low + lo * c
                high = None if high is None or hi is None else high + hi * c
            return (None, None) if _may_wrap(low, high) else (low, high)
        if node.op in ("floordiv", "mod"):
            by = self.constant_of(node.args[1])
            lo, hi = self.range(node.args[0])
            if by is None:
                return None, None
            if node.op == "mod":
                return 0, by - 1
            return (lo // by if isinstance(lo, int) else None), (None if hi is None else hi // by)
        if node.op in ("min", "max", "select"):
            (a, b), (c, d) = map(self.range, node.args[-2:])
            lows, highs = self._extreme(a, c), self._extreme(b, d)
            if node.op == "min":
                return lows[0], highs[0] if highs[0] is not None else (b if d is None else d)
            if node.op == "max":
                return lows[1] if lows[1] is not None else (a if c is None else c), highs[1]
            return lows[0], highs[1]
        if node.op == "cast" and node.args[0].dtype.kind in "ub":
            source = node.args[0].dtype
            if source.kind == "b":
                return 0, 1
            return (0, int(np.iinfo(source).max)) if source.itemsize < 8 else (None, None)
        return None, None

    @staticmethod
    def _extreme(a: Size | None, b: Size | None) -> tuple[Size | None, Size | None]:
        """(smaller, larger) where the order is provable."""
        if a is None or b is None:
            return None, None
        if nonnegative(b - a):
            return a, b
        return (b, a) if nonnegative(a - b) else (None, None)

    def in_range(self, node: Node, size: Size) -> bool:
        """Whether 0 <= node < size is provable."""
        lo, hi = self.range(node)
        return lo is not None and hi is not None and nonnegative(lo) and nonnegative(size - hi - 1)

    # -- general operations
    def operate(self, op: str, args: tuple[Node, ...], dtype: np.dtype) -> Node:
        """One of `OPERATIONS` (or cast, bitcast), simplified where that is exact."""
        if op == "cast":
            return self._cast(args[0], dtype)
        if op == "select":
            return self._select(args, dtype)
        if dtype == INT64 and op not in ("bitcast",):
            node = self._integer(op, args)
            if node is not None:
                return node
        if op in ("lt", "le", "gt", "ge", "eq", "ne") and args[0].dtype == INT64:
            node = self._compare(op, *args)
            if node is not None:
                return node
        if op in ("and", "or") and dtype == BOOL:
            for a, b in (args, args[::-1]):
                if a.op == "const":
                    return b if a.args[0] == (op == "and") else a
        if all(a.op == "const" for a in args) and args and dtype.kind in "biuf":
            with np.errstate(all="ignore"):
                value = OPERATIONS[op].evaluate(*(a.dtype.type(a.args[0]) for a in args)) if op != "bitcast" else None
            if value is not None:
                return self.const(dtype.type(value), dtype)
        return self._node(op, args, dtype, args)

    def _cast(self, a: Node, dtype: np.dtype) -> Node:
        if a.dtype == dtype:
            return a
        value = a.args[0] if a.op == "const" else self.constant_of(a) if a.dtype == INT64 else None
        if isinstance(value, (int, float)) and dtype.kind in "biuf":
            with np.errstate(all="ignore"):
                return self.const(np.asarray(value, a.dtype).astype(dtype)[()], dtype)
        return self._node("cast", (a,), dtype, (a,))

    def _select(self, args: tuple[Node, ...], dtype: np.dtype) -> Node:
        condition, a, b = args
        if condition.op == "const":
            return a if condition.args[0] else b
        return a if a is b else self._node("select", args, dtype, args)

    def _integer(self, op: str, args: tuple[Node, ...]) -> Node | None:
        if op == "neg":
            return self.scale(args[0], -1)
        if len(args) != 2:
            return None
        a, b = args
        x, y = self.constant_of(a), self.constant_of(b)
        if op == "add":
            return self.add(a, b)
        if op == "sub":
            return self.add(a, b, -1)
        if op == "mul" and y is not None:
            return self.scale(a, y)
        if op == "mul" and x is not None:
            return self.scale(b, x)
        if op in ("min", "max"):
            (lo, hi), (lo2, hi2) = self.range(a), self.range(b)
            if hi is not None and lo2 is not None and nonnegative(lo2 - hi):
                return a if op == "min" else b
            if hi2 is not None and lo is not None and nonnegative(lo - hi2):
                return b if op == "min" else a
        if y is None or (isinstance(y, int) and y < 0):
            return None
        if op in ("floordiv", "mod") and (isinstance(y, Dim) or y > 0):
            return self.floordiv(a, y) if op == "floordiv" else self.mod(a, y)
        if op == "shr" and isinstance(y, int) and y < 63:
            return self.floordiv(a, 1 << y)
        if op == "shl" and isinstance(y, int) and y < 63:
            return self.scale(a, 1 << y)
        if op == "and" and isinstance(y, int) and y & (y + 1) == 0 and y < 1 << 62:
            return self.mod(a, y + 1)
        return None

    def _compare(self, op: str, a: Node, b: Node) -> Node | None:
        if any(n.op == "affine" and _may_wrap(*self.range(n)) for n in (a, b)):
            return None
        lo, hi = self.range(self.add(a, b, -1))
        true, false = (self._node("const", (v, repr(v)), BOOL, ()) for v in (True, False))
        below = hi is not None and nonnegative(hi * -1 - 1)  # a < b
        above = lo is not None and nonnegative(lo - 1)
        at_most = hi is not None and nonnegative(hi * -1)
        at_least = lo is not None and nonnegative(lo)
        if op in ("eq", "ne"):
            if below or above:
                return false if op == "eq" else true
            return (true if op == "eq" else false) if a is b else None
        yes, no = {"lt": (below, at_least), "le": (at_most, above), "gt": (above, at_most), "ge": (at_least, below)}[op]
        return true if yes else false if no else None

    # -- conversion
    def convert(self, scalar: Scalar, variables: dict[str, Node], element: Callable[[int, tuple[Node, ...]], Node],
                memo: dict[Scalar, Node] | None = None) -> Node:
        """A lowering rule's `Scalar` with its index variables replaced, and its elements given by `element`. `memo`: what has
        been converted already."""
        memo = {} if memo is None else memo
        node = memo.get(scalar)
        if node is not None:
            return node
        op = scalar.op
        if op == "index":
            node = variables[scalar.args[0]]
        elif op == "element":
            index = tuple([self.convert(a, variables, element, memo) for a in scalar.args[1:]])
            node = element(scalar.args[0], index)
        elif op == "constant":
            node = self.const(scalar.args[0], scalar.dtype)
        elif op == "size":
            node = self.size(scalar.args[0])
        else:
            node = self.operate(op, tuple([self.convert(a, variables, element, memo) for a in scalar.args]), scalar.dtype)
        memo[scalar] = node
        return node

    def rebuild(self, root: Node, leaf: Callable[[Node], Node | None], memo: dict[Node, Node]) -> Node:
        """`root` with nodes replaced where `leaf` gives something."""
        found = memo.get(root)
        if found is not None:
            return found
        new = leaf(root)
        if new is None:
            go = lambda n: self.rebuild(n, leaf, memo)
            if root.op in ("var", "const"):
                new = root
            elif root.op == "affine":
                new = self.size(root.args[1])
                for atom, c in root.args[0]:
                    new = self.add(new, go(atom), c)
            elif root.op == "load":
                value, flat, safe, _ = root.args
                flat = go(flat)
                new = self._node("load", (value, flat, safe, ()), root.dtype, (flat,), unsafe=not safe)
            elif root.op == "reduced":
                new = self.reduced(root.args[0], root.args[1], tuple(map(go, root.args[2])), root.dtype)
            elif root.op in ("floordiv", "mod") and root.dtype == INT64 and (by := self.constant_of(root.args[1])) is not None:
                new = (self.floordiv if root.op == "floordiv" else self.mod)(go(root.args[0]), by)
            else:
                new = self.operate(root.op, tuple(map(go, root.args)), root.dtype)
        memo[root] = new
        return new


def walk(roots: Iterable[Node]) -> Iterator[Node]:
    """Every node reachable from `roots`, once, children first."""
    seen: set[Node] = set()
    stack: list[tuple[Node, bool]] = [(r, False) for r in roots]
    while stack:
        node, ready = stack.pop()
        if ready:
            yield node
        elif node not in seen:
            seen.add(node)
            stack.append((node, True))
            stack.extend((c, False) for c in node.children() if c not in seen)


def volume(shape: tuple[Size, ...]) -> Size:
    """Number of elements."""
    return product(shape)


def _may_wrap(low: Size | None, high: Size | None) -> bool:
    """Whether a sum with such bounds may leave int64, as sums of numbers from memory may: then it is no exact integer."""
    return any(e is None or (type(e) is int and abs(e) >= 1 << 63) for e in (low, high))
