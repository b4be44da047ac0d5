"""The three convolutions as contractions over a padded copy.

An input is copied once into planes with its padding filled in, one plane for each residue of the position modulo the
stride. In a plane of pitch Wq, the values that one filter tap sees for consecutive outputs are consecutive:

    out[n, o, i] = sum over c, t of w[o, c, t] * plane[n, c, t*dilation mod stride][i + t*dilation // stride]

so the outputs are numbered on a grid with the pitch of the plane, a vector runs over row ends, and a tap is a constant
offset: no im2col is written. The few grid points between rows are computed and not stored.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import reduce
from math import gcd
from operator import and_
from typing import Any

from ndarray.dims import Size, product

from .contraction import Contraction, Digits, Operand, bind, ceil_div, choose, digits, flatten, hint, lane_mask, minimum
from .gemm import lower_product
from .inner_product import lower_inner_product
from .launch import KernelBuilder, Launch, Position, Sink, Source, Storage
from .loopir import INT, Const, Expr, For, If, Let, Load, Stmt, Store, Type, Var, apply, cast, const, ramp, splat
from .plain import plain_sink
from .target import Target

__all__ = ["lower_convolution", "lower_data_gradient", "lower_weight_gradient"]

_SLACK = 1024
"""Elements behind the planes, for vectors that run past the last grid point."""


@dataclass(frozen=True)
class Planes:
    """A padded copy of an array [n, c, *spatial]: storage [n][c][phase][*extent], zero where it lies in the padding.

    Point q of phase p along an axis holds position ``q * stride + p - low``.
    """

    storage: Storage
    channels: Size
    phases: tuple[int, ...]
    extent: tuple[Size, ...]

    @property
    def pitch(self) -> tuple[Size, ...]:
        return tuple(product(self.extent[i + 1 :]) for i in range(len(self.extent)))

    def index(self, builder: KernelBuilder, n: Expr, c: Expr, phase: Digits, point: Digits) -> Expr:
        """Where a point lies in the storage."""
        plane = flatten(builder, phase, self.phases)
        at = (n * builder.size(self.channels) + c) * builder.size(product(self.phases), constant=True) + plane
        at = at * builder.size(product(self.extent))
        for q, pitch in zip(point, self.pitch):
            at = at + q * builder.size(pitch)
        return at


def _make_planes(
    source: Source,
    low: tuple[int, ...],
    extent: tuple[Size, ...],
    stride: tuple[int, ...],
    phases: tuple[int, ...],
    target: Target,
    equations: tuple,
) -> tuple[Launch, Planes]:
    """The launch that makes the padded copy; one task a channel of an image."""
    batch, channels, *spatial = source.shape
    lanes = target.lanes(source.dtype)
    size = batch * channels * product(phases) * product(extent) + _SLACK
    planes = Planes(Storage(source.dtype, size, "planes"), channels, phases, extent)
    builder = KernelBuilder()
    body: list[Stmt] = []
    task = Var("task", INT)
    n = bind(builder, body, task // builder.size(channels))
    c = bind(builder, body, task % builder.size(channels))
    phase_names = [builder.fresh("p") for _ in phases]
    point_names = [builder.fresh("q") for _ in extent]
    phase = tuple(const(0) if p == 1 else Var(name, INT) for p, name in zip(phases, phase_names))
    point = tuple(Var(name, INT) for name in point_names)
    inside: list[Stmt] = []
    where = [q * s + (p - lo) for q, s, p, lo in zip(point, stride, phase, low)]
    where = [bind(builder, inside, w, "w") for w in where]
    extents = [builder.size(s) for s in spatial]
    vector = lanes if stride[-1] == 1 else 1
    valid: Expr | None = None
    for w, e in zip(where[:-1], extents[:-1]):
        test = (w >= 0) & (w < e)
        valid = test if valid is None else valid & test
    if vector == 1:
        mask = (where[-1] >= 0) & (where[-1] < extents[-1])
    else:
        lane = ramp(Const(0, Type("int32")), 1, vector)
        mask = (lane >= splat(cast(const(0) - where[-1], "int32"), vector)) & lane_mask(where[-1], vector, extents[-1])
    if valid is not None:
        mask = mask & splat(valid, vector)
    value = source.load(builder, Position((n, c, *where), len(spatial) + 1 if vector > 1 else None, vector, mask))
    name = builder.buffer(planes.storage, "write")
    index = planes.index(builder, n, c, phase, point)
    width = builder.size(extent[-1])
    write = None if vector == 1 else lane_mask(point[-1], vector, width)
    inside.append(Store(name, index, value, write))
    for axis in reversed(range(len(extent))):
        step = vector if axis == len(extent) - 1 else 1
        inside = [For(point_names[axis], const(0), builder.size(extent[axis]), step, tuple(inside))]
    for count, variable in zip(reversed(phases), reversed(phase_names)):
        if count > 1:
            inside = [For(variable, const(0), const(count), 1, tuple(inside))]
    body += inside
    work = size // (4 if vector > 1 else 1)
    return builder.launch(
        "planes", body, "task", batch * channels, work, equations=equations, note="padded copy"
    ), planes


def _grid_store(
    sink: Sink,
    valid: tuple[Size, ...],
    pitch: tuple[Size, ...],
    lead: Callable[[KernelBuilder, Digits, Expr], Digits],
    place: Callable[[Digits, Digits], Digits] | None = None,
) -> Any:
    """The `store` of a contraction whose columns are grid points: row-major numbers over extents `pitch`, of which
    those with every digit below `valid` exist. `place(batch, digits)` maps a grid point to spatial indices (scalar
    stores)."""
    rank = len(valid)

    def store(
        builder: KernelBuilder, batch: Digits, column: Expr, lanes: int, mask: Expr | None, over_rows: Any
    ) -> list[Stmt]:
        if sink.storage is not None and valid == pitch and place is None:
            name = builder.buffer(sink.storage, "write")

            def flat(row: Expr, value: Expr) -> list[Stmt]:
                front = flatten(builder, lead(builder, batch, row), sink.shape[:2])
                return [Store(name, front * builder.size(product(valid)) + column, value, mask)]

            return over_rows(flat)
        if lanes == 1:
            point = digits(builder, column, pitch)
            index = place(batch, point) if place is not None else point
            tests = [p < builder.size(limit) for p, limit in zip(index, sink.shape[2:])]
            inside = reduce(and_, tests)
            return [
                If(
                    inside,
                    tuple(
                        over_rows(
                            lambda row, value: sink.store(
                                builder, Position((*lead(builder, batch, row), *index)), value
                            )
                        )
                    ),
                )
            ]
        if rank == 1:
            return over_rows(
                lambda row, value: sink.store(
                    builder, Position((*lead(builder, batch, row), column), 2, lanes, mask), value
                )
            )
        width = builder.size(pitch[-1])
        body: list[Stmt] = []
        name = builder.fresh("r")
        line = Var(name, INT)
        start = bind(builder, body, column // width)
        stop = minimum((column + (lanes - 1)) // width + 1, builder.size(product(pitch[:-1])))
        inner: list[Stmt] = []
        begin = bind(builder, inner, column - line * width)
        lane = ramp(Const(0, Type("int32")), 1, lanes)
        on = (lane >= splat(cast(const(0) - begin, "int32"), lanes)) & lane_mask(begin, lanes, builder.size(valid[-1]))
        upper = digits(builder, line, pitch[:-1])
        for p, limit, there in zip(upper, valid[:-1], pitch[:-1]):
            if not (isinstance(limit, int) and limit == there):
                on = on & splat(p < builder.size(limit), lanes)
        if mask is not None:
            on = on & mask
        on = bind(builder, inner, on)
        inner += over_rows(
            lambda row, value: sink.store(
                builder, Position((*lead(builder, batch, row), *upper, begin), rank + 1, lanes, on), value
            )
        )
        return [*body, For(name, start, stop, 1, tuple(inner))]

    return store


def _attributes(attrs: Mapping[str, Any]) -> tuple[tuple[int, ...], tuple[tuple[int, int], ...], tuple[int, ...], int]:
    stride, padding, dilation = (tuple(attrs[k]) for k in ("stride", "padding", "dilation"))
    return stride, tuple(tuple(p) for p in padding), dilation, attrs["groups"]


def _constant(sizes: tuple[Size, ...]) -> tuple[int, ...]:
    """The sizes of a filter, which are known when it is compiled."""
    return tuple(int(s) for s in sizes)


def _columns(valid: tuple[Size, ...], pitch: tuple[Size, ...]) -> Size:
    return valid[0] * product(pitch[1:])


def _input_planes(
    x: Source,
    kernel: tuple[int, ...],
    out: tuple[Size, ...],
    stride: tuple[int, ...],
    low: tuple[int, ...],
    dilation: tuple[int, ...],
    target: Target,
    equations: tuple,
) -> tuple[list[Launch], Planes]:
    """The planes that a filter runs over; the array itself where filter and stride are 1 and nothing is
    padded or fused."""
    phases = tuple(s if k > 1 else 1 for s, k in zip(stride, kernel))
    extent = tuple(o + d * (k - 1) // s for o, d, k, s in zip(out, dilation, kernel, stride))
    if x.storage is not None and set(kernel) | set(stride) == {1} and not any(low) and tuple(x.shape[2:]) == extent:
        return [], Planes(x.storage, x.shape[1], phases, extent)
    launch, planes = _make_planes(x, low, extent, stride, phases, target, equations)
    return [launch], planes


def _taps(
    tap: Digits, stride: tuple[int, ...], dilation: tuple[int, ...], phases: tuple[int, ...]
) -> tuple[Digits, Digits]:
    """(phase, shift) of the plane that a tap reads."""
    offset = [t * d for t, d in zip(tap, dilation)]
    phase = tuple(o % s if p > 1 else const(0) for o, s, p in zip(offset, stride, phases))
    return phase, tuple(o // s for o, s in zip(offset, stride))


def lower_convolution(
    attrs: Mapping[str, Any],
    x: Source,
    w: Source,
    sink: Sink,
    target: Target,
    equations: tuple,
    schedule: dict[str, Any],
) -> list[Launch]:
    """out[n, o, i] = sum over c, t of w[o, c, t] * x[n, g*C/G + c, i*stride - low + t*dilation], g the group of o."""
    stride, padding, dilation, groups = _attributes(attrs)
    kernel, out = _constant(w.shape[2:]), sink.shape[2:]
    batch, channels = x.shape[0], w.shape[1]
    outputs = w.shape[0] // groups
    launches, planes = _input_planes(x, kernel, out, stride, tuple(p[0] for p in padding), dilation, target, equations)
    copied = bool(launches)

    def load_w(builder: KernelBuilder, b: Digits, row: Expr, k: Digits, lanes: int, mask: Expr | None) -> Expr:
        return w.load(builder, Position((b[1] * builder.size(outputs) + row, *k), None, 1, mask))

    def load_x(builder: KernelBuilder, b: Digits, column: Expr, k: Digits, lanes: int, mask: Expr | None) -> Expr:
        phase, shift = _taps(k[1:], stride, dilation, planes.phases)
        at = planes.index(builder, b[0], b[1] * builder.size(channels) + k[0], phase, shift) + column
        return Load(builder.buffer(planes.storage, "read"), at, Type(x.dtype, lanes), mask)

    def lead(builder: KernelBuilder, b: Digits, row: Expr) -> Digits:
        return b[0], b[1] * builder.size(outputs) + row

    c = Contraction(
        x.dtype,
        (batch, groups),
        outputs,
        _columns(out, planes.extent),
        (channels, *kernel),
        Operand(load_w, (False, True), False, True, cheap=w.storage is not None, constant=w.constant),
        Operand(load_x, (True, True), True, slack=copied),
        _grid_store(sink, out, (out[0], *planes.extent[1:]), lead),
        name="convolution",
        equations=equations,
    )
    return launches + lower_product(c, target, choose(c, target, **schedule))


def lower_data_gradient(
    attrs: Mapping[str, Any],
    g: Source,
    w: Source,
    sink: Sink,
    target: Target,
    equations: tuple,
    schedule: dict[str, Any],
) -> list[Launch]:
    """The gradient of a convolution for its input: x[n, c, h] = sum over o, t of
    w[o, c, t] * g[n, o, (h + low - t*dilation) / stride] over the taps for which the division is exact.

    For each residue r of h modulo the stride, the taps that contribute are every stride-th one (where dilation and
    stride are coprime), so each residue is a small convolution of stride 1.
    """
    stride, padding, dilation, groups = _attributes(attrs)
    kernel, shape = _constant(w.shape[2:]), sink.shape
    rank = len(kernel)
    batch, channels, outputs = shape[0], w.shape[1], w.shape[0] // groups
    low = tuple(p[0] for p in padding)
    coprime = tuple(gcd(d, s) == 1 for d, s in zip(dilation, stride))
    counts = tuple(-(-k // s) if e else k for k, s, e in zip(kernel, stride, coprime))

    def tap(axis: int, r: Any, t: Any) -> Any:
        """Number t of the taps of residue r."""
        if not coprime[axis] or stride[axis] == 1:
            return t
        inverse = pow(dilation[axis], -1, stride[axis])
        return (r + low[axis]) * inverse % stride[axis] + t * stride[axis]

    def source_of(axis: int, r: Any, t: Any) -> Any:
        """g's position for output q*stride + r, less q."""
        return (r + low[axis] - tap(axis, r, t) * dilation[axis]) // stride[axis]

    reach = [[source_of(a, r, t) for r in range(stride[a]) for t in range(counts[a])] for a in range(rank)]
    first, last = tuple(min(x, default=0) for x in reach), tuple(max(x, default=0) for x in reach)
    quotient = tuple(ceil_div(h, s) for h, s in zip(shape[2:], stride))
    extent = tuple(q + (b - a) for q, a, b in zip(quotient, first, last))
    ones = (1,) * rank
    if not schedule and rank == 2 and set(stride) == {1} and _worth_lines(g.shape, shape, kernel, low, dilation, extent, target):
        return _gradient_by_lines(g, w, sink, low, dilation, groups, first, extent, target, equations)
    launch, planes = _make_planes(g, tuple(-f for f in first), extent, ones, ones, target, equations)

    def load_w(builder: KernelBuilder, b: Digits, row: Expr, k: Digits, lanes: int, mask: Expr | None) -> Expr:
        taps = tuple(tap(a, b[2 + a], k[1 + a]) for a in range(rank))
        for a in range(rank):
            if coprime[a] and counts[a] * stride[a] > kernel[a]:  # not a tap; it is packed, never used
                test = taps[a] < kernel[a]
                mask = test if mask is None else mask & test
            elif not coprime[a]:  # inexact divisions have zeros in their place
                test = ((b[2 + a] + low[a] - k[1 + a] * dilation[a]) % stride[a]).equals(0)
                mask = test if mask is None else mask & test
        return w.load(builder, Position((b[1] * builder.size(outputs) + k[0], row, *taps), None, 1, mask))

    def load_g(builder: KernelBuilder, b: Digits, column: Expr, k: Digits, lanes: int, mask: Expr | None) -> Expr:
        shift = tuple(source_of(a, b[2 + a], k[1 + a]) - first[a] for a in range(rank))
        zeros = (const(0),) * rank
        at = planes.index(builder, b[0], b[1] * builder.size(outputs) + k[0], zeros, shift) + column
        return Load(builder.buffer(planes.storage, "read"), at, Type(g.dtype, lanes), mask)

    def lead(builder: KernelBuilder, b: Digits, row: Expr) -> Digits:
        return b[0], b[1] * builder.size(channels) + row

    def stop(builder: KernelBuilder, b: Digits, digit: int) -> Expr | None:
        a = digit - 1
        if not coprime[a] or counts[a] * stride[a] == kernel[a]:
            return None
        return (const(kernel[a] - 1 + stride[a]) - tap(a, b[2 + a], const(0))) // stride[a]

    def place(b: Digits, point: Digits) -> Digits:
        return tuple(q * s + r for q, s, r in zip(point, stride, b[2:]))

    dense = set(stride) == {1}
    c = Contraction(
        g.dtype,
        (batch, groups, *stride),
        channels,
        _columns(quotient, extent),
        (outputs, *counts),
        Operand(
            load_w,
            (False, True, *(s > 1 for s in stride)),
            False,
            cheap=dense and w.storage is not None,
            constant=w.constant,
        ),
        Operand(load_g, (True, True) + (True,) * rank, True, slack=True),
        _grid_store(sink, quotient, (quotient[0], *extent[1:]), lead, None if dense else place),
        vector_store=dense,
        stop=stop,
        name="convolution_data",
        equations=equations,
    )
    return [launch, *lower_product(c, target, choose(c, target, **schedule))]


def _line_taps(rows: Size, height: Size, kernel: int, low: int, dilation: int) -> int:
    """How many (line of the input's gradient, tap) pairs meet a line of g."""
    return sum(0 <= h + low - t * dilation < hint(rows) for h in range(hint(height)) for t in range(kernel))


def _worth_lines(g: tuple[Size, ...], shape: tuple[Size, ...], kernel: tuple[int, ...], low: tuple[int, ...],
                 dilation: tuple[int, ...], extent: tuple[Size, ...], target: Target) -> bool:
    """Whether leaving out the taps that meet padding saves more than vectors that end with each line cost."""
    lanes = target.lanes("float32")
    pairs = _line_taps(g[2], shape[2], kernel[0], low[0], dilation[0])
    by_lines = -(-hint(shape[3]) // lanes) * lanes * pairs
    return product(kernel) <= 128 and hint(shape[2]) <= 256 and by_lines * 1.2 < hint(shape[2]) * hint(extent[1]) * kernel[0]


def _gradient_by_lines(
    g: Source, w: Source, sink: Sink, low: tuple[int, ...], dilation: tuple[int, ...], groups: int, first: tuple[int, ...],
    extent: tuple[Size, ...], target: Target, equations: tuple,
) -> list[Launch]:
    """The gradient for the input at stride 1, one line a tile: taps are those whose line of g exists, none meets padding
    above or below. g is padded to the left and right only."""
    kernel, shape = _constant(w.shape[2:]), sink.shape
    batch, channels, outputs = shape[0], w.shape[1], w.shape[0] // groups
    launch, planes = _make_planes(g, (0, -first[1]), (g.shape[2], extent[1]), (1, 1), (1, 1), target, equations)

    def line(b: Digits) -> Expr:
        return b[2] + low[0]

    def load_w(builder: KernelBuilder, b: Digits, row: Expr, k: Digits, lanes: int, mask: Expr | None) -> Expr:
        return w.load(builder, Position((b[1] * builder.size(outputs) + k[0], row, *k[1:]), None, 1, mask))

    def load_g(builder: KernelBuilder, b: Digits, column: Expr, k: Digits, lanes: int, mask: Expr | None) -> Expr:
        point = (line(b) - k[1] * dilation[0], const(low[1] - first[1]) - k[2] * dilation[1])
        at = planes.index(builder, b[0], b[1] * builder.size(outputs) + k[0], (const(0),) * 2, point) + column
        return Load(builder.buffer(planes.storage, "read"), at, Type(g.dtype, lanes), mask)

    def start(builder: KernelBuilder, b: Digits, digit: int) -> Expr | None:
        if digit != 1:
            return None
        beyond = line(b) - builder.size(g.shape[2]) + dilation[0]  # the first tap whose line lies within g
        return apply("max", beyond // dilation[0], const(0))

    def stop(builder: KernelBuilder, b: Digits, digit: int) -> Expr | None:
        return minimum(line(b) // dilation[0] + 1, const(kernel[0])) if digit == 1 else None

    def store(
        builder: KernelBuilder, b: Digits, column: Expr, lanes: int, mask: Expr | None, over_rows: Any
    ) -> list[Stmt]:
        def deliver(row: Expr, value: Expr) -> list[Stmt]:
            at = (b[0], b[1] * builder.size(channels) + row, b[2], column)
            return sink.store(builder, Position(at, 3 if lanes > 1 else None, lanes, mask), value)

        return over_rows(deliver)

    c = Contraction(
        g.dtype,
        (batch, groups, shape[2]),
        channels,
        shape[3],
        (outputs, *kernel),
        Operand(load_w, (False, True, False), False, cheap=w.storage is not None, constant=w.constant),
        Operand(load_g, (True, True, True), True, slack=True),
        store,
        stop=stop,
        start=start,
        name="convolution_lines",
        equations=equations,
    )
    return [launch, *lower_product(c, target, choose(c, target, digit=0))]


def lower_weight_gradient(
    attrs: Mapping[str, Any],
    x: Source,
    g: Source,
    sink: Sink,
    target: Target,
    equations: tuple,
    schedule: dict[str, Any],
) -> list[Launch]:
    """The gradient of a convolution for its filter: w[o, c, t] = sum over n, i of
    g[n, o, i] * x[n, c, i*stride - low + t*dilation].

    Vectors run over o (g is packed so), and the values of x are broadcast from the padded copy. Where there are few
    results, the images are cut into parts, whose sums are added in order.
    """
    stride, padding, dilation, groups = _attributes(attrs)
    shape, out = sink.shape, g.shape[2:]
    kernel = _constant(shape[2:])
    batch, channels, outputs = x.shape[0], shape[1], shape[0] // groups
    launches, planes = _input_planes(x, kernel, out, stride, tuple(p[0] for p in padding), dilation, target, equations)
    lanes = target.lanes(x.dtype)
    tiles = -(-hint(channels * product(kernel)) // 6) * -(-hint(outputs) // (4 * lanes)) * groups
    parts = schedule.pop("parts", None) or _parts(batch, tiles, hint(product(out)) * hint(batch))
    per_part = batch // parts if parts > 1 else batch
    few = not schedule and hint(outputs) * 2 <= lanes and hint(out[-1]) * 2 >= lanes and x.dtype != "bool"
    uneven = few and parts == 1 and tiles < 16 and hint(batch) > 1 and hint(product(out)) * hint(batch) >= 2048
    if uneven:  # images that no number of parts divides: the last parts have fewer, or none
        parts = min(8, batch) if isinstance(batch, int) else 8
        per_part = ceil_div(batch, parts)

    def stop(builder: KernelBuilder, b: Digits, digit: int) -> Expr | None:
        if digit or not uneven:
            return None
        return minimum(builder.size(per_part), builder.size(batch) - b[1] * builder.size(per_part))

    def image(builder: KernelBuilder, b: Digits, k: Digits) -> Expr:
        return k[0] if parts == 1 else b[1] * builder.size(per_part) + k[0]

    def load_x(builder: KernelBuilder, b: Digits, row: Expr, k: Digits, lanes: int, mask: Expr | None) -> Expr:
        channel, *tap = digits(builder, row, (channels, *kernel))
        phase, shift = _taps(tuple(tap), stride, dilation, planes.phases)
        point = tuple(s + i for s, i in zip(shift, k[1:]))
        at = planes.index(builder, image(builder, b, k), b[0] * builder.size(channels) + channel, phase, point)
        return Load(builder.buffer(planes.storage, "read"), at, Type(x.dtype), mask)

    def load_g(builder: KernelBuilder, b: Digits, column: Expr, k: Digits, lanes: int, mask: Expr | None) -> Expr:
        at = (image(builder, b, k), b[0] * builder.size(outputs) + column, *k[1:])
        return g.load(builder, Position(at, 1 if lanes > 1 else None, lanes, mask))

    goal = sink
    if parts > 1:
        partial = Storage(sink.dtype, parts * product(shape), "partial sums")
        goal = plain_sink(partial, (parts, *shape))

    def store(
        builder: KernelBuilder, b: Digits, column: Expr, lanes: int, mask: Expr | None, over_rows: Any
    ) -> list[Stmt]:
        output = b[0] * builder.size(outputs) + column

        def deliver(row: Expr, value: Expr) -> list[Stmt]:
            if goal.storage is not None:
                at = output if parts == 1 else b[1] * builder.size(shape[0]) + output
                return [
                    Store(builder.buffer(goal.storage, "write"), at * builder.size(product(shape[1:])) + row, value)
                ]
            return goal.store(builder, Position((output, *digits(builder, row, (channels, *kernel)))), value)

        return over_rows(deliver)

    sizes = (groups, parts) if parts > 1 else (groups,)
    use = (True,) * len(sizes)
    c = Contraction(
        x.dtype,
        sizes,
        channels * product(kernel),
        outputs,
        (per_part, *out),
        Operand(load_x, use, False, True, slack=True),
        Operand(load_g, use, False, True),
        store,
        vector_store=False,
        stop=stop if uneven else None,
        name="convolution_weight",
        equations=equations,
    )
    if few:

        def along_x(builder: KernelBuilder, b: Digits, row: Expr, k: Digits, lanes: int, mask: Expr | None) -> Expr:
            first = load_x(builder, b, row, k, lanes, mask)
            assert isinstance(first, Load)
            return Load(first.buffer, first.index, Type(x.dtype, lanes), mask)

        def along_g(builder: KernelBuilder, b: Digits, column: Expr, k: Digits, lanes: int, mask: Expr | None) -> Expr:
            at = (image(builder, b, k), b[0] * builder.size(outputs) + column, *k[1:])
            return g.load(builder, Position(at, len(at) - 1, lanes, mask))

        launches += lower_inner_product(c, along_x, along_g, target)
    else:
        launches += lower_product(c, target, choose(c, target, **{"pack_b": "global", **schedule}))
    if parts > 1:
        launches.append(_add_parts(partial, parts, sink, equations))
    return launches


def _parts(batch: Size, tiles: int, points: int) -> int:
    """Into how many parts to cut the images, from sizes alone: enough for 8 tasks, a divisor of their number."""
    if not isinstance(batch, int) or tiles >= 16 or points < 2048:
        return 1
    return max((p for p in range(1, 9) if batch % p == 0), default=1)


def _add_parts(partial: Storage, parts: int, sink: Sink, equations: tuple) -> Launch:
    """sink[i] = partial[0, i] + partial[1, i] + ... in order; one task for each index of the first axis."""
    builder = KernelBuilder()
    shape = sink.shape
    task = Var("task", INT)
    name = builder.fresh("i")
    rest = builder.size(product(shape[1:]))
    index = task * rest + Var(name, INT)
    buffer = builder.buffer(partial, "read")
    total: Expr = Load(buffer, index, Type(sink.dtype))
    for part in range(1, parts):
        total = total + Load(buffer, index + builder.size(product(shape)) * part, Type(sink.dtype))
    body: list[Stmt] = [Let("total", total)]
    body += sink.store(
        builder, Position((task, *digits(builder, Var(name, INT), shape[1:]))), Var("total", Type(sink.dtype))
    )
    return builder.launch(
        "add_parts",
        [For(name, const(0), rest, 1, tuple(body))],
        "task",
        shape[0],
        product(shape) * (parts + 2),
        equations=equations,
        note="ordered sum of parts",
    )
