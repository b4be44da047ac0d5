"""The three convolutions as contractions over a padded copy.

An input is copied once into planes with its padding filled in, one plane for each residue of the position modulo the
stride. In a plane of pitch Wq, the values that one filter tap sees for consecutive outputs are consecutive:

    out[n, o, i] = sum over c, t of w[o, c, t] * plane[n, c, t*dilation mod stride][i + t*dilation // stride]

so the outputs are numbered on a grid with the pitch of the plane, a vector runs over row ends, and a tap is a constant
offset: no im2col is written. The few grid points between rows are computed and not stored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product as cartesian
from math import gcd
from typing import Any

from ndarray.dims import Size, product

from .contraction import Contraction, Digits, Operand, bind, ceil_div, choose, digits, flatten, hint, lane_mask, minimum
from .depthwise import is_depthwise, lower_depthwise
from .direct import UNIT, Convolution, Window, lower_direct
from .gemm import lower_product
from .inner_product import lower_inner_product
from .launch import KernelBuilder, Launch, Position, Sink, Source, Storage
from .loopir import INT, Const, Expr, For, Let, Load, Stmt, Store, Type, Var, cast, const, ramp, splat
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


def _attributes(attrs: Mapping[str, Any]) -> tuple[tuple[int, ...], tuple[tuple[int, int], ...], tuple[int, ...], int]:
    stride, padding, dilation = (tuple(attrs[k]) for k in ("stride", "padding", "dilation"))
    return stride, tuple(tuple(p) for p in padding), dilation, attrs["groups"]


def _constant(sizes: tuple[Size, ...]) -> tuple[int, ...]:
    """The sizes of a filter, which are known when it is compiled."""
    return tuple(int(s) for s in sizes)


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



# -- forward and data gradient


class _Spatial:
    """Positions in arrays of 1 to 3 spatial axes, with channels second or last, from (depth, row, column)."""

    def __init__(self, rank: int, last: bool):
        self.rank, self.last = rank, last

    def position(self, n: Expr, at: Digits, channel: Expr, lanes: int, mask: Expr | None) -> Position:
        """Where `lanes` consecutive channels lie."""
        spatial = at[3 - self.rank :]
        index = (n, *spatial, channel) if self.last else (n, channel, *spatial)
        return Position(index, (self.rank + 1 if self.last else 1) if lanes > 1 else None, lanes, mask)

    def sizes(self, shape: tuple[Size, ...]) -> tuple[Size, ...]:
        """The sizes of the spatial axes."""
        return tuple(shape[1:-1] if self.last else shape[2:])


def _three(windows: Sequence[Window]) -> tuple[Window, Window, Window]:
    d, h, w = (*(UNIT,) * (3 - len(windows)), *windows)
    return d, h, w


def lower_convolution(
    attrs: Mapping[str, Any], x: Source, w: Source, sink: Sink, target: Target, equations: tuple, schedule: dict[str, Any],
    last: bool = False,
) -> list[Launch]:
    """out[n, o, i] = sum over c, t of w[o, c, t] * x[n, g*C/G + c, i*stride - low + t*dilation], g the group of o."""
    stride, padding, dilation, groups = _attributes(attrs)
    kernel = _constant(w.shape[2:])
    spatial = _Spatial(len(kernel), last)
    windows = [
        Window(n, out, k, s, d, p[0])
        for n, out, k, s, d, p in zip(spatial.sizes(x.shape), spatial.sizes(sink.shape), kernel, stride, dilation, padding)
    ]

    def weight(builder: KernelBuilder, o: Expr, c: Expr, tap: Digits, lanes: int, mask: Expr | None) -> Expr:
        return w.load(builder, Position((o, c, *tap[3 - len(kernel) :]), 0 if lanes > 1 else None, lanes, mask))

    problem = Convolution(
        x.dtype, x.shape[0], groups, w.shape[1], w.shape[0] // groups, _three(windows), _reader(x, spatial), weight,
        _deliverer(sink, spatial), equations=equations,
    )
    return _lower(problem, target, schedule)


def _lower(c: Convolution, target: Target, schedule: dict[str, Any]) -> list[Launch]:
    return (lower_depthwise if is_depthwise(c) else lower_direct)(c, target, **schedule)


def _reader(x: Source, spatial: _Spatial) -> Any:
    return lambda builder, n, at, channel, lanes, mask: x.load(builder, spatial.position(n, at, channel, lanes, mask))


def _deliverer(sink: Sink, spatial: _Spatial) -> Any:
    return lambda builder, n, at, channel, lanes, mask, value: sink.store(
        builder, spatial.position(n, at, channel, lanes, mask), value
    )


@dataclass(frozen=True)
class _Residue:
    """The outputs h = q*stride + r of a data gradient along one axis: a convolution of stride 1 over the taps
    ``first + t * period`` of the filter, from the last of them on."""

    r: int
    stride: int
    first: int
    period: int
    window: Window

    def tap(self, t: Expr) -> Expr:
        """The tap of the filter that is number t of the window."""
        return const(self.first + (self.window.taps - 1) * self.period) - t * self.period


def _residues(size: Size, out: Size, kernel: int, stride: int, dilation: int, low: int) -> list[_Residue]:
    """One for each residue of the output's position modulo the stride. `size`: of the gradient that is read."""
    found = []
    for r in range(stride):
        taps = [t for t in range(kernel) if (r + low - t * dilation) % stride == 0]
        first = taps[0] if taps else 0
        common = gcd(dilation, stride)
        begin = (r + low - (taps[-1] if taps else 0) * dilation) // stride
        count = ceil_div(out - r, stride) if not isinstance(out, int) else max(0, -(-(out - r) // stride))
        window = Window(size, count, len(taps), 1, dilation // common, -begin)
        found.append(_Residue(r, stride, first, stride // common, window))
    return found


def lower_data_gradient(
    attrs: Mapping[str, Any], g: Source, w: Source, sink: Sink, target: Target, equations: tuple, schedule: dict[str, Any],
    last: bool = False,
) -> list[Launch]:
    """The gradient of a convolution for its input: x[n, c, h] = sum over o, t of
    w[o, c, t] * g[n, o, (h + low - t*dilation) / stride] over the taps for which the division is exact.

    For each residue of h modulo the stride those taps are the same, so it is a convolution of stride 1 with a part of the
    filter, turned round.
    """
    stride, padding, dilation, groups = _attributes(attrs)
    kernel = _constant(w.shape[2:])
    spatial = _Spatial(len(kernel), last)
    outputs = w.shape[0] // groups
    axes = [
        _residues(n, out, k, s, d, p[0])
        for n, out, k, s, d, p in zip(spatial.sizes(g.shape), spatial.sizes(sink.shape), kernel, stride, dilation, padding)
    ]
    launches = []
    for parts in cartesian(*axes):

        def weight(
            builder: KernelBuilder, c: Expr, o: Expr, tap: Digits, lanes: int, mask: Expr | None, parts: Any = parts
        ) -> Expr:
            taps = tuple(part.tap(t) for part, t in zip(parts, tap[3 - len(kernel) :]))
            if outputs == w.shape[1] == 1:  # the lanes are groups
                return w.load(builder, Position((c, o, *taps), 0 if lanes > 1 else None, lanes, mask))
            channels = builder.size(w.shape[1])
            group = c // channels if groups > 1 else const(0)
            at = (group * builder.size(outputs) + o, c - group * channels, *taps)
            return w.load(builder, Position(at, 1 if lanes > 1 else None, lanes, mask))

        def deliver(
            builder: KernelBuilder, n: Expr, at: Digits, c: Expr, lanes: int, mask: Expr | None, value: Expr, parts: Any = parts
        ) -> list[Stmt]:
            place = tuple(q * part.stride + part.r for q, part in zip(at[3 - len(kernel) :], parts))
            position = spatial.position(n, (*at[: 3 - len(kernel)], *place), c, lanes, mask)
            return sink.store(builder, position, value)

        problem = Convolution(
            g.dtype, g.shape[0], groups, outputs, w.shape[1], _three([part.window for part in parts]), _reader(g, spatial),
            weight, deliver, name="convolution_data", equations=equations,
        )
        launches += _lower(problem, target, schedule)
    return launches


# -- weight gradient


def _second(x: Source) -> Source:
    """A source with channels last as one with channels second."""
    rank = len(x.shape)

    def load(builder: KernelBuilder, at: Position) -> Expr:
        index = (at.index[0], *at.index[2:], at.index[1])
        axis = None if at.axis is None else 0 if at.axis == 0 else rank - 1 if at.axis == 1 else at.axis - 1
        return x.load(builder, Position(index, axis, at.lanes, at.mask))

    return Source((x.shape[0], x.shape[-1], *x.shape[1:-1]), x.dtype, load)


def lower_weight_gradient(
    attrs: Mapping[str, Any],
    x: Source,
    g: Source,
    sink: Sink,
    target: Target,
    equations: tuple,
    schedule: dict[str, Any],
    last: bool = False,
) -> list[Launch]:
    """The gradient of a convolution for its filter: w[o, c, t] = sum over n, i of
    g[n, o, i] * x[n, c, i*stride - low + t*dilation].

    Vectors run over o (g is packed so), and the values of x are broadcast from the padded copy. Where there are few
    results, the images are cut into parts, whose sums are added in order.
    """
    if last:
        x, g = _second(x), _second(g)
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
