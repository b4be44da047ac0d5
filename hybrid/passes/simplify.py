"""Algebra: equations replaced by cheaper ones of equal value.

`RULES` reads as a table: ``(pattern, replacement)``. A pattern is built from ops, variables and numbers (a number matches
a literal of that value, also one that was broadcast); the replacement is a variable, or a function of the match. A rule
is used only where the replacement has the type of what it replaces.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ndarray.dims import Dim, Size
from ndarray.dtypes import name_of

from ..graph import Atom, Equation, Graph, Literal, Value
from ..verify import same_type
from .rewrite import Rewriter, rewrite

__all__ = ["RULES", "Pattern", "Variable", "simplify"]


@dataclass(frozen=True)
class Variable:
    """Matches any atom; the same one wherever the name recurs."""

    name: str


@dataclass(frozen=True)
class Pattern:
    """Matches an equation of one op whose inputs match `args` (in either order for commutative ops)."""

    op: str
    args: tuple[Any, ...]


@dataclass
class Match:
    """What a pattern matched: atoms by variable, attributes by op (outermost first), and the rewriter to emit with."""

    emitter: Rewriter
    equation: Equation
    atoms: dict[str, Atom] = field(default_factory=dict)
    attrs: dict[str, list[Mapping[str, Any]]] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Atom:
        return self.atoms[name]


_COMMUTATIVE = {"add", "multiply", "maximum", "minimum", "bitwise_and", "bitwise_or", "bitwise_xor"}


class _Ops:
    def __getattr__(self, name: str) -> Callable[..., Pattern]:
        return lambda *args: Pattern(name, args)


p = _Ops()
x, y, z = Variable("x"), Variable("y"), Variable("z")


def _same(m: Match) -> Atom | None:
    return m["x"]  # the type check of `_apply` decides


def _compose_transposes(m: Match) -> Atom:
    outer, inner = m.attrs["transpose"]
    axes = tuple(inner["axes"][a] for a in outer["axes"])
    return m["x"] if axes == tuple(range(len(axes))) else m.emitter.emit("transpose", m["x"], axes=axes)


def _identity_transpose(m: Match) -> Atom | None:
    axes = m.equation.attrs["axes"]
    return m["x"] if axes == tuple(range(len(axes))) else None


def _transposed_operand(side: int) -> Callable[[Match], Atom | None]:
    """A product that reads a transposed operand reads the operand itself, if its free axes keep their order."""

    def replace_operand(m: Match) -> Atom | None:
        axes, attrs = m.attrs["transpose"][0]["axes"], dict(m.attrs["dot_general"][0])
        taken = {*attrs["contract"][side], *attrs["batch"][side]}
        free = [a for k, a in enumerate(axes) if k not in taken]
        if free != sorted(free):
            return None
        for name in ("contract", "batch"):
            pair = list(attrs[name])
            pair[side] = tuple(axes[a] for a in pair[side])
            attrs[name] = tuple(pair)
        return m.emitter.emit("dot_general", m["x"], m["y"], **attrs)

    return replace_operand


def _one_column(m: Match) -> Atom | None:
    """A product by a single column is one by a vector, which reads either operand in the order in which it lies."""
    attrs = m.equation.attrs
    rows, columns = ([a for a in range(len(m[name].shape)) if a not in (*attrs["contract"][i], *attrs["batch"][i])]
                     for i, name in enumerate("xy"))
    if not columns or not all(_is(m["y"].shape[a], 1) for a in columns) or all(_is(m["x"].shape[a], 1) for a in rows):
        return None
    left = [a for a in range(len(m["y"].shape)) if a not in columns]
    vector = m.emitter.emit("reshape", m["y"], shape=tuple(m["y"].shape[a] for a in left))
    place = {a: i for i, a in enumerate(left)}
    attrs = {name: (attrs[name][0], tuple(place[a] for a in attrs[name][1])) for name in ("contract", "batch")}
    out = m.emitter.emit("dot_general", m["x"], vector, **attrs)
    return m.emitter.emit("reshape", out, shape=m.equation.outputs[0].shape)


def _last_reshape(m: Match) -> Atom:
    return m.emitter.emit("reshape", m["x"], shape=m.equation.attrs["shape"])


def _last_broadcast(m: Match) -> Atom:
    return m.emitter.emit("broadcast_to", m["x"], shape=m.equation.attrs["shape"])


def _widening_cast(m: Match) -> Atom | None:
    """cast(cast(x, wide), d) -> cast(x, d) where `wide` holds every value of x exactly, so that nothing was lost."""
    middle, target = m.attrs["cast"][1]["dtype"], m.attrs["cast"][0]["dtype"]
    if name_of(m["x"].dtype) == "bfloat16" or name_of(middle) == "bfloat16" or not np.can_cast(m["x"].dtype, middle, "safe"):
        return None
    if m["x"].dtype.kind in "iu" and middle.kind == "f" and target.kind != "f":
        return None
    return m.emitter.emit("cast", m["x"], dtype=target)


def _flips_cancel(m: Match) -> Atom | None:
    outer, inner = m.attrs["flip"]
    return m["x"] if set(outer["axes"]) == set(inner["axes"]) else None


def _whole_slice(m: Match) -> Atom | None:
    a = m.equation.attrs
    whole = all(_is(s, 0) and _is(k, 1) and identical(e, n) for s, e, k, n in zip(a["start"], a["stop"], a["step"], m["x"].shape))
    return m["x"] if whole else None


def _no_padding(m: Match) -> Atom | None:
    a = m.equation.attrs
    return m["x"] if all(_is(n, 0) for key in ("low", "high", "interior") for n in a[key]) else None


def _whole_update(m: Match) -> Atom | None:
    a = m.equation.attrs
    whole = all(_is(s, 0) and _is(k, 1) and identical(e, n) for s, e, k, n in zip(a["start"], a["stop"], a["step"], m["x"].shape))
    return m["y"] if whole else None


def _nothing_reduced(m: Match) -> Atom | None:
    return m["x"] if m.equation.attrs["axes"] == () else None


RULES: tuple[tuple[Pattern, Variable | float | Callable[[Match], Atom | None]], ...] = (
    (p.multiply(x, 1), x),  # x * 1 -> x
    (p.add(x, 0), x),  # x + 0 -> x (but for the sign of a zero)
    (p.subtract(x, 0), x),  # x - 0 -> x
    (p.divide(x, 1), x),  # x / 1 -> x
    (p.power(x, 1), x),  # x ** 1 -> x
    (p.bitwise_or(x, 0), x),  # x | 0 -> x
    (p.bitwise_xor(x, 0), x),  # x ^ 0 -> x
    (p.bitwise_and(x, x), x),  # x & x -> x
    (p.bitwise_or(x, x), x),  # x | x -> x
    (p.left_shift(x, 0), x),  # x << 0 -> x
    (p.right_shift(x, 0), x),  # x >> 0 -> x
    (p.maximum(x, x), x),  # max(x, x) -> x
    (p.minimum(x, x), x),  # min(x, x) -> x
    (p.negative(p.negative(x)), x),  # -(-x) -> x
    (p.bitwise_not(p.bitwise_not(x)), x),  # ~~x -> x
    (p.logical_not(p.logical_not(x)), x),  # not not x -> x
    (p.relu(p.relu(x)), lambda m: m.equation.inputs[0]),  # relu(relu(x)) -> relu(x)
    (p.abs(p.abs(x)), lambda m: m.equation.inputs[0]),  # ||x|| -> |x|
    (p.add(x, p.negative(y)), lambda m: m.emitter.emit("subtract", m["x"], m["y"])),  # x + -y -> x - y
    (p.subtract(x, p.negative(y)), lambda m: m.emitter.emit("add", m["x"], m["y"])),  # x - -y -> x + y
    (p.multiply(p.negative(x), p.negative(y)), lambda m: m.emitter.emit("multiply", m["x"], m["y"])),  # -x * -y -> x * y
    (p.where(x, y, y), y),  # where(c, y, y) -> y
    (p.cast(x), _same),  # cast to the same dtype
    (p.cast(p.cast(x)), _widening_cast),  # cast(cast(x, wide), d) -> cast(x, d)
    (p.copy(x), _same),  # values in a graph are never written
    (p.transpose(p.transpose(x)), _compose_transposes),  # x.T.T -> x
    (p.transpose(x), _identity_transpose),  # axes in their order
    (p.dot_general(p.transpose(x), y), _transposed_operand(0)),
    (p.dot_general(x, p.transpose(y)), _transposed_operand(1)),
    (p.dot_general(x, y), _one_column),  # x @ y of shape (k, 1)
    (p.reshape(x), _same),  # to the same shape
    (p.reshape(p.reshape(x)), _last_reshape),  # reshape(reshape(x, a), b) -> reshape(x, b)
    (p.broadcast_to(x), _same),  # to the same shape
    (p.broadcast_to(p.broadcast_to(x)), _last_broadcast),  # broadcast_to(broadcast_to(x, a), b) -> broadcast_to(x, b)
    (p.flip(p.flip(x)), _flips_cancel),  # x[::-1][::-1] -> x
    (p.slice(x), _whole_slice),  # x[:] -> x
    (p.update_slice(x, y), _whole_update),  # x[:] = y -> y
    (p.pad(x), _no_padding),  # by nothing
    (p.sum(x), _nothing_reduced), (p.prod(x), _nothing_reduced),  # over no axes
    (p.max(x), _nothing_reduced), (p.min(x), _nothing_reduced),
)

_by_op: dict[str, list[tuple[Pattern, Any]]] = {}
for _pattern, _replacement in RULES:
    _by_op.setdefault(_pattern.op, []).append((_pattern, _replacement))


def simplify(graph: Graph) -> Graph:
    """Apply `RULES` wherever they match; let elementwise ops broadcast scalars themselves."""
    graph = rewrite(graph, _apply)
    kept = {i: a for i, a in graph.state.items() if a is not graph.inputs[i]}
    return graph if len(kept) == len(graph.state) else graph.replace(state=kept)  # x[...] = x


def _apply(rewriter: Rewriter, equation: Equation) -> dict[Value, Atom] | None:
    if len(equation.outputs) != 1:
        return None
    changed = _without_scalar_broadcasts(rewriter, equation)
    atom: Atom | None = None
    current = changed or equation
    for _ in range(8):  # a replacement may match again; rules shrink, so a few rounds are enough
        found = _first_match(rewriter, current)
        if found is None:
            break
        atom = found
        producer = rewriter.producers.get(found) if isinstance(found, Value) else None
        if producer is None or producer is not (rewriter.equations[-1] if rewriter.equations else None):
            break
        current = producer
    if atom is not None:
        return {equation.output: atom}
    if changed is not None:
        rewriter.append(changed)
        return {equation.output: changed.output}
    return None


def _first_match(rewriter: Rewriter, equation: Equation) -> Atom | None:
    for pattern, replacement in _by_op.get(equation.op.name, ()):
        for args in _orders(pattern, equation.inputs):
            if not all(type(a) is Variable or _may_match(rewriter, a, b) for a, b in zip(pattern.args, args)):
                continue
            match = Match(rewriter, equation)
            match.attrs.setdefault(pattern.op, []).append(equation.attrs)
            if all(_matches(match, a, b) for a, b in zip(pattern.args, args)):
                count = len(rewriter.equations)
                new = match[replacement.name] if isinstance(replacement, Variable) else replacement(match)
                if new is not None and same_type(new.type, equation.output.type) and same_symbols(new, equation.output):
                    return new
                del rewriter.equations[count:]
    return None


def _orders(pattern: Pattern, inputs: tuple[Atom, ...]) -> list[tuple[Atom, ...]]:
    if len(pattern.args) != len(inputs):
        return []
    return [inputs, inputs[::-1]] if pattern.op in _COMMUTATIVE else [inputs]


def _may_match(rewriter: Rewriter, pattern: Any, atom: Atom) -> bool:
    """Whether a number or the op of a pattern is there: nearly always it isn't, and nothing more is looked at."""
    if isinstance(pattern, Pattern):
        return rewriter.producer(atom, pattern.op) is not None
    return isinstance(atom, Literal) or rewriter.producer(atom, "broadcast_to") is not None


def _matches(match: Match, pattern: Any, atom: Atom) -> bool:
    if isinstance(pattern, Variable):
        known = match.atoms.setdefault(pattern.name, atom)
        return known is atom
    if isinstance(pattern, Pattern):
        eq = match.emitter.producer(atom, pattern.op)
        if eq is None:
            return False
        match.attrs.setdefault(pattern.op, []).append(eq.attrs)
        return all(_matches(match, a, b) for a, b in zip(pattern.args, eq.inputs))
    eq = match.emitter.producer(atom, "broadcast_to")
    if eq is not None:
        atom = eq.inputs[0]
    return isinstance(atom, Literal) and atom.value == pattern


def _without_scalar_broadcasts(rewriter: Rewriter, equation: Equation) -> Equation | None:
    """Elementwise ops broadcast by themselves: ``x + broadcast_to(s, shape)`` is ``x + s`` if x has that shape."""
    if "elementwise" not in equation.op.traits:
        return None
    inputs = list(equation.inputs)
    full = lambda a: len(a.shape) == len(equation.output.shape) and all(map(identical, a.shape, equation.output.shape))
    for i, atom in enumerate(inputs):
        eq = rewriter.producer(atom, "broadcast_to")
        if eq is not None and eq.inputs[0].shape == () and any(full(a) for k, a in enumerate(inputs) if k != i):
            inputs[i] = eq.inputs[0]
    if all(a is b for a, b in zip(inputs, equation.inputs)):
        return None
    return Equation(equation.op, tuple(inputs), (Value(equation.output.type),), equation.attrs, equation.source)


def same_symbols(a: Atom, b: Atom) -> bool:
    """Whether two shapes are written in the same terms."""
    return len(a.shape) == len(b.shape) and all(map(identical, a.shape, b.shape))


def identical(a: Size, b: Size) -> bool:
    """Whether two sizes have the same normal form; asks nothing of the sizes (no guard)."""
    if isinstance(a, Dim) or isinstance(b, Dim):
        return isinstance(a, Dim) and isinstance(b, Dim) and a.terms == b.terms
    return a == b


def _is(size: Size, number: int) -> bool:
    return type(size) is int and size == number
