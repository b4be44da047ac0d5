"""What one element of a value is, in terms of what is stored: equations inlined into one another.

`Pull(graph, arena)` knows the graph; `scope(inside)` gives a `Scope` in which the values of some equations are
computed in place and everything else is read from memory. ``scope.element(value, index)`` is then the node for
``value[index]``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping

from hybrid.graph import Atom, Equation, Graph, Literal, Value
from ndarray.dims import Size
from ndarray.op import Elementwise, Indexed, Reduction, Template
from ndarray.scalar import Element, Scalar, index_variable

from .nodes import Arena, Node, hint, volume

__all__ = ["CHEAP", "Accesses", "Pull", "Scope", "axes_of", "template_name"]

CHEAP = frozenset({"reshape", "transpose", "broadcast_to", "slice", "flip", "iota", "cast", "stop_gradient"})
"""Ops that are always computed where their result is used: nothing is saved by storing it."""


Accesses = tuple[dict[Value, Node], list[tuple[Value, Node | None]]]
"""Where a group writes its results, and what it reads and where: row-major positions in its loops, None for anywhere."""


def axes_of(shape: tuple[Size, ...]) -> tuple[int, ...]:
    """The axes that are not statically of size 1: those that take a loop."""
    return tuple(k for k, n in enumerate(shape) if not (isinstance(n, int) and n == 1))


class Pull:
    """Lowering rules of a graph's equations, each run once."""

    def __init__(self, graph: Graph, arena: Arena, repeated: Mapping[Value, int] | None = None):
        self.graph, self.arena = graph, arena
        self.producer: dict[Value, Equation] = {v: eq for eq in graph.equations for v in eq.outputs}
        self._variables: dict[tuple[str, tuple[Size, ...]], tuple[Node, ...]] = {}
        self._rules: dict[Equation, tuple[Scalar, ...]] = {}
        self.repeated = repeated or {}
        self.stored: set[Value] = set()  # results of cheap ops that are stored all the same
        self.shifts = self._find_shifts()  # other equations that are computed wherever their result is used
        self._uses = Counter(_use(eq, n) for eq in graph.equations if isinstance(eq.op.lower, Template)
                             for n in range(len(eq.inputs)))

    def _find_shifts(self) -> set[Equation]:
        """Sums, differences and products of a stored array and a much smaller one, such as ``x - mean``, which elementwise
        operations and reductions read several times: each reads the stored array instead, which is no larger."""
        readers: dict[Atom, list[Equation]] = {}
        for eq in self.graph.equations:
            for a in dict.fromkeys(eq.inputs):
                readers.setdefault(a, []).append(eq)

        def final(value: Atom) -> list[Equation]:
            """Who reads a value, also transposed or reshaped."""
            return [x for eq in readers.get(value, ()) for x in (final(eq.output) if eq.op.name in CHEAP else [eq])]

        found, results = set(), set(self.graph.results())
        for eq in self.graph.equations:
            if eq.op.name not in ("subtract", "add", "multiply") or eq.output in results:
                continue
            small, large = sorted(eq.inputs, key=lambda a: hint(volume(a.shape)))
            if not 16 * hint(volume(small.shape)) <= hint(volume(large.shape)) == hint(volume(eq.output.shape)):
                continue
            made = self.producer.get(large) if isinstance(large, Value) else None
            while made is not None and made.op.name in ("transpose", "reshape"):
                (large,) = made.inputs
                made = self.producer.get(large) if isinstance(large, Value) else None
            reading = final(eq.output)
            if (made is None or isinstance(made.op.lower, Template)) and len(reading) > 1 \
                    and not any(isinstance(x.op.lower, Template) for x in reading) \
                    and any(isinstance(x.op.lower, Reduction) for x in final(large)):
                found.add(eq)
        return found

    def is_cheap(self, value: Value, eq: Equation) -> bool:
        """Whether a value, which `eq` makes, is computed wherever it is read."""
        return self.anywhere(eq) and value not in self.stored

    def anywhere(self, eq: Equation) -> bool:
        """Whether an equation is computed wherever its result is read, unless that is to be stored."""
        return eq.op.name in CHEAP or eq in self.shifts

    def rule(self, eq: Equation) -> tuple[Scalar, ...]:
        """The scalar expression of each result; index variables are named "0", "1" ... along the result's axes. For a
        reduction: the elements folded, with the reduced axes' variables named "r0", "r1" ..."""
        found = self._rules.get(eq)
        if found is None:
            found = self._rules[eq] = self._rule(eq)
        return found

    def _rule(self, eq: Equation) -> tuple[Scalar, ...]:
        lower, types = eq.op.lower, [a.type for a in eq.inputs]
        index = tuple(index_variable(str(k)) for k in range(len(eq.outputs[0].shape)))
        if isinstance(lower, Elementwise):
            elements = [Element(n, t.shape, t.dtype)[broadcast_index(index, t.shape, eq.outputs[0].shape)]
                        for n, t in enumerate(types)]
            result = lower.function(*elements, **eq.attrs)
        else:
            arguments = [Element(n, t.shape, t.dtype) for n, t in enumerate(types)]
            if isinstance(lower, Indexed):
                result = lower.function(index, *arguments, **eq.attrs)
            elif isinstance(lower, Reduction):
                reduced = tuple(index_variable(f"r{k}") for k in range(len(self.domain(eq))))
                result = lower.element(index, reduced, *arguments, **eq.attrs)
            else:
                raise TypeError(f"{eq.op.name}: no scalar rule ({lower!r})")
        return result if isinstance(result, tuple) else (result,)

    def domain(self, eq: Equation) -> tuple[Size, ...]:
        """Sizes of a reduction's reduced axes."""
        assert isinstance(eq.op.lower, Reduction)
        return tuple(eq.op.lower.domain(*(a.type for a in eq.inputs), **eq.attrs))

    def uses(self, eq: Equation, number: int) -> int:
        """How often templates read an operand in the same way, so that they can share a copy laid out for them."""
        atom = eq.inputs[number]
        return self._uses[_use(eq, number)] * (self.repeated.get(atom, 1) if isinstance(atom, Value) else 1)

    def variables(self, prefix: str, shape: tuple[Size, ...]) -> tuple[Node, ...]:
        """An index over `shape`: a variable for each axis that is not statically 1 (numbered among those), else 0."""
        found = self._variables.get((prefix, shape))
        if found is None:
            loops = {k: n for n, k in enumerate(axes_of(shape))}
            found = self._variables[prefix, shape] = tuple([
                self.arena.var(f"{prefix}{loops[k]}", n) if k in loops else self.arena.size(0) for k, n in enumerate(shape)])
        return found


def broadcast_index(index: tuple, shape: tuple[Size, ...], result: tuple[Size, ...]) -> tuple:
    """The position in an argument of `shape`, broadcast to `result`, of the element for `index`. A symbolic size is
    never broadcast."""
    offset = len(result) - len(shape)
    return tuple(0 if isinstance(n, int) and n == 1 else index[offset + k] for k, n in enumerate(shape))


class Scope:
    """Values of the equations in `inside`, and of cheap ops, are computed in place; others are loaded.

    `resolve(value)` may be given to say that a value is stored although its equation is inside.
    """

    def __init__(self, pull: Pull, inside: Iterable[Equation], stored: Callable[[Value], bool] = lambda value: False):
        self.pull, self.arena = pull, pull.arena
        self.inside = frozenset(inside)
        self._stored = stored
        self._memo: dict[tuple[Value, tuple[Node, ...]], Node] = {}

    def computed(self, value: Value) -> Equation | None:
        """The equation by which `value` is computed in place, or None if it is read from memory."""
        eq = self.pull.producer.get(value)
        if eq is None or self._stored(value):
            return None
        return eq if eq in self.inside or self.pull.is_cheap(value, eq) else None

    def element(self, atom: Atom, index: tuple[Node, ...]) -> Node:
        """The node for ``atom[index]``."""
        if isinstance(atom, Literal):
            return self.arena.const(atom.value, atom.dtype)
        index = tuple([self.arena.size(0) if type(n) is int and n == 1 else i for i, n in zip(index, atom.shape)])
        key = (atom, index)
        node = self._memo.get(key)
        if node is None:
            eq = self.computed(atom)
            if eq is None:
                node = self.arena.load(atom, index)
            elif isinstance(eq.op.lower, Reduction):
                number = eq.outputs.index(atom)
                node = self.arena.reduced(eq, number, index, atom.dtype)
            elif eq.op.name == "reshape":
                node = self._reshape(eq, index)
            elif eq.op.name == "concatenate" and (part := self._part(eq, index)) is not None:
                node = self.element(*part)
            else:
                variables = {str(k): i for k, i in enumerate(index)}
                node = self._expand(eq, self.pull.rule(eq)[eq.outputs.index(atom)], variables)
            self._memo[key] = node
        return node

    def fold_elements(self, eq: Equation, index: tuple[Node, ...], reduced: tuple[Node, ...]) -> tuple[Node, ...]:
        """The values that a reduction folds at one position."""
        variables = {str(k): i for k, i in enumerate(index)} | {f"r{k}": i for k, i in enumerate(reduced)}
        return tuple(self._expand(eq, s, variables) for s in self.pull.rule(eq))

    def _expand(self, eq: Equation, scalar: Scalar, variables: dict[str, Node]) -> Node:
        return self.arena.convert(scalar, variables, lambda n, index: self.element(eq.inputs[n], index))

    def _part(self, eq: Equation, index: tuple[Node, ...]) -> tuple[Atom, tuple[Node, ...]] | None:
        """The argument of a concatenation in which a position lies for certain, and where; None if it may be another."""
        axis, start = eq.attrs["axis"], 0
        for x in eq.inputs:
            n = x.shape[axis]
            if not isinstance(n, int):
                return None
            inside = self.arena.affine({index[axis]: 1}, -start)
            if n and self.arena.in_range(inside, n):
                return x, (*index[:axis], inside, *index[axis + 1:])
            start += n
        return None

    def _reshape(self, eq: Equation, index: tuple[Node, ...]) -> Node:
        (source,) = eq.inputs
        flat = self.arena.flatten(index, eq.output.shape)
        if isinstance(source, Value) and self.computed(source) is None:
            # only positions matter for memory; whether they are in range is the same question for both shapes
            safe = all(self.arena.in_range(i, n) for i, n in zip(index, eq.output.shape))
            return self.arena._node("load", (source, flat, safe, self.arena.unflatten(flat, source.shape)),
                                    source.dtype, (flat,), unsafe=not safe)
        return self.element(source, self.arena.unflatten(flat, source.shape))


def _use(eq: Equation, number: int) -> tuple:
    axes = tuple([eq.attrs[name][number] for name in ("contract", "batch") if name in eq.attrs])
    return eq.inputs[number], template_name(eq), number, axes


def template_name(eq: Equation) -> str:
    """The name of the kernel family that computes an equation."""
    assert isinstance(eq.op.lower, Template)
    return eq.op.lower.name
