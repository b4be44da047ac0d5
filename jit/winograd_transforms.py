"""Winograd's transforms: F(2, 3) and F(4, 3) along one axis, as loop IR over vectors of channels, and their cost.

    y = A' [(G g) * (B' d)]                d: 4 or 6 numbers, g: 3 taps, y: 2 or 4 numbers, y[i] = sum of d[i + t] * g[t]

In two dimensions each is done along columns, then along rows (`both_ways`). The gradient of y for g is G' [(A y') * (B' d)].

The points of F(4, 3) are 0, +-sqrt(1/2), +-sqrt(2) and infinity, a pair of reciprocals each with its negative (S. A. Alam et al.,
"Winograd convolution for deep neural networks: efficient point selection", ACM TECS 21(6), 2022): the error is half of that
with the usual 0, +-1, +-2 (A. Lavin and S. Gray, "Fast algorithms for convolutional neural networks", CVPR 2016), and twice
that of direct summation. See docs/numerics.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import sqrt

from .contraction import bind, multiply_add, zero
from .launch import KernelBuilder
from .loopir import INT, Const, Expr, For, Get, If, Load, Register, Set, Stmt, Store, Var, const

__all__ = ["VARIANTS", "Variant", "both_ways"]

Vectors = list[Expr]
Line = Callable[[KernelBuilder, list[Stmt], Sequence[Expr]], Vectors]


def _times(value: float, x: Expr) -> Expr:
    return Const(value, x.type) * x


def _add_times(value: float, x: Expr, y: Expr) -> Expr:
    """value * x + y"""
    return multiply_add(Const(value, x.type), x, y)


_A, _B = sqrt(0.5), sqrt(2.0)


def _input_2(b: KernelBuilder, body: list[Stmt], d: Sequence[Expr]) -> Vectors:
    return [d[0] - d[2], d[1] + d[2], d[2] - d[1], d[3] - d[1]]


def _filter_2(b: KernelBuilder, body: list[Stmt], g: Sequence[Expr]) -> Vectors:
    ends = bind(b, body, _times(0.5, g[0] + g[2]), "v")
    middle = bind(b, body, _times(0.5, g[1]), "v")
    return [g[0], ends + middle, ends - middle, g[2]]


def _output_2(b: KernelBuilder, body: list[Stmt], m: Sequence[Expr]) -> Vectors:
    return [m[0] + (m[1] + m[2]), (m[1] - m[2]) + m[3]]


def _input_4(b: KernelBuilder, body: list[Stmt], d: Sequence[Expr]) -> Vectors:
    found = []
    for a, other in ((_A, _B), (_B, _A)):  # x (x +- a) (x x - other other)
        even = bind(b, body, _add_times(-other * other, d[2], d[4]), "v")
        odd = bind(b, body, _add_times(-other * other, d[1], d[3]), "v")
        found += [_add_times(a, odd, even), _add_times(-a, odd, even)]
    return [_add_times(-2.5, d[2], d[0] + d[4]), *found, _add_times(-2.5, d[3], d[1] + d[5])]


def _filter_4(b: KernelBuilder, body: list[Stmt], g: Sequence[Expr]) -> Vectors:
    found = []
    for a, other in ((_A, _B), (_B, _A)):
        scale = 1 / (2 * a * a * (a * a - other * other))
        even = bind(b, body, _add_times(scale * a * a, g[2], _times(scale, g[0])), "v")
        odd = bind(b, body, _times(scale * a, g[1]), "v")
        found += [even + odd, even - odd]
    return [g[0], *found, g[2]]


def _output_4(b: KernelBuilder, body: list[Stmt], m: Sequence[Expr]) -> Vectors:
    s, t = (bind(b, body, m[i] + m[i + 1], "v") for i in (1, 3))
    d, e = (bind(b, body, m[i] - m[i + 1], "v") for i in (1, 3))
    first, third = (_add_times(_A**n, d, _times(_B**n, e)) for n in (1, 3))
    return [m[0] + (s + t), first, _add_times(0.5, s, _times(2.0, t)), third + m[5]]


def _gradient_2(b: KernelBuilder, body: list[Stmt], y: Sequence[Expr]) -> Vectors:
    return [y[0], y[0] + y[1], y[0] - y[1], y[1]]


def _taps_2(b: KernelBuilder, body: list[Stmt], u: Sequence[Expr]) -> Vectors:
    half = bind(b, body, _times(0.5, u[1] + u[2]), "v")
    return [u[0] + half, _times(0.5, u[1] - u[2]), half + u[3]]


def _gradient_4(b: KernelBuilder, body: list[Stmt], y: Sequence[Expr]) -> Vectors:
    found = []
    for a in (_A, _B):
        even = bind(b, body, _add_times(a * a, y[2], y[0]), "v")
        odd = bind(b, body, _add_times(a**3, y[3], _times(a, y[1])), "v")
        found += [even + odd, even - odd]
    return [y[0], *found, y[3]]


def _taps_4(b: KernelBuilder, body: list[Stmt], u: Sequence[Expr]) -> Vectors:
    first, second, third = u[0], None, u[5]
    for i, a, other in ((1, _A, _B), (3, _B, _A)):
        scale = 1 / (2 * a * a * (a * a - other * other))
        total, apart = bind(b, body, u[i] + u[i + 1], "v"), bind(b, body, u[i] - u[i + 1], "v")
        first, third = _add_times(scale, total, first), _add_times(scale * a * a, total, third)
        second = _times(scale * a, apart) if second is None else _add_times(scale * a, apart, second)
    assert second is not None
    return [first, second, third]


@dataclass(frozen=True)
class Variant:
    """F(outputs, 3): its transforms along one axis (`input` B', `filter` G, `output` A', and for gradients of filters
    `gradient` A and `taps` G'), and what they cost: cycles for a vector of a tile's positions."""

    outputs: int
    input: Line
    filter: Line
    output: Line
    gradient: Line
    taps: Line
    in_cycles: float
    out_cycles: float

    @property
    def size(self) -> int:
        """Positions along one axis."""
        return self.outputs + 2


VARIANTS = {
    2: Variant(2, _input_2, _filter_2, _output_2, _gradient_2, _taps_2, 60.0, 80.0),
    4: Variant(4, _input_4, _filter_4, _output_4, _gradient_4, _taps_4, 190.0, 230.0),
}


def both_ways(
    builder: KernelBuilder, half: str, line: Line, taken: int, given: int, read: Callable[[list[Stmt], int, Expr], Expr],
    store: Callable[[list[Stmt], Expr], Callable[[int, Expr], Stmt]], whole: Expr | None = None,
    exists: tuple[Callable[[int], Expr], Callable[[Expr], Expr]] | None = None,
) -> list[Stmt]:
    """Statements that take a vector for each of taken x taken positions to given x given by `line` along columns, then rows.

    read(body, i, j)    the vector in row i, column j
    store(body, i)(j, value)   stores the result in row i, column j
    half         private memory for given x taken vectors
    whole        if given: where it does not hold, vectors are zero except in the rows and columns that `exists` says
    """
    i, j = Var(builder.fresh("i"), INT), Var(builder.fresh("j"), INT)

    def along(body: list[Stmt], values: Vectors) -> For:
        lanes = values[0].type.lanes
        for k, value in enumerate(line(builder, body, values)):
            body.append(Store(half, (j + k * taken) * lanes, value))
        return For(j.name, const(0), const(taken), 1, tuple(body))

    plain: list[Stmt] = []
    loaded = [bind(builder, plain, read(plain, k, j), "v") for k in range(taken)]
    vector = loaded[0].type
    columns = plain
    if whole is not None:
        assert exists is not None
        row, column = exists
        names = [builder.fresh("d") for _ in range(taken)]
        found: list[Stmt] = []
        for k, name in enumerate(names):
            one: list[Stmt] = []
            value = read(one, k, j)
            found.append(If(row(k), (*one, Set(name, value))))
        plain += [Set(name, value) for name, value in zip(names, loaded)]
        columns = [Register(name, zero(vector)) for name in names]
        columns.append(If(whole, tuple(plain), (If(column(j), tuple(found)),)))
        loaded = [bind(builder, columns, Get(name, vector), "v") for name in names]
    first = along(columns, loaded)
    rows: list[Stmt] = []
    lanes = vector.lanes
    loaded = [bind(builder, rows, Load(half, (i * taken + k) * lanes, vector), "v") for k in range(taken)]
    put = store(rows, i)
    rows += [put(k, value) for k, value in enumerate(line(builder, rows, loaded))]
    return [first, For(i.name, const(0), const(given), 1, tuple(rows))]
