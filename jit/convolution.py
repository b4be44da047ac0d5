"""The three convolutions, stated for the kernels that compute them: `direct`, `narrow`, `winograd`,
`depthwise`, `weight_gradient` and `winograd_filters`.

Arrays have 1 to 3 spatial axes, which become depth, rows and columns, and their channels last or second; the kernels run
along the channels, so the layout pass puts those last. A gradient for the input is a convolution of stride 1 for each
residue of the position modulo the stride.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product as cartesian
from math import gcd
from typing import Any

from ndarray.dims import Size, product

from .contraction import Digits, ceil_div
from .depthwise import is_depthwise, lower_depthwise, lower_depthwise_filters
from .direct import UNIT, Convolution, Window, lower_direct
from .launch import KernelBuilder, Launch, Position, Sink, Source
from .loopir import Expr, Load, Stmt, Type, const, ramp
from .narrow import lower_narrow, narrow_cost
from .target import Target
from .weight_gradient import lower_filters
from .winograd import lower_winograd, winograd_outputs
from .winograd_filters import lower_winograd_filters, winograd_filters_outputs

__all__ = ["lower_convolution", "lower_data_gradient", "lower_weight_gradient"]


def _attributes(attrs: Mapping[str, Any]) -> tuple[tuple[int, ...], tuple[tuple[int, int], ...], tuple[int, ...], int]:
    stride, padding, dilation = (tuple(attrs[k]) for k in ("stride", "padding", "dilation"))
    return stride, tuple(tuple(p) for p in padding), dilation, attrs["groups"]


def _constant(sizes: tuple[Size, ...]) -> tuple[int, ...]:
    """The sizes of a filter, which are known when it is compiled."""
    return tuple(int(s) for s in sizes)


class _Spatial:
    """Positions in arrays of 1 to 3 spatial axes, with channels second or last, from (depth, row, column)."""

    def __init__(self, rank: int, last: bool):
        self.rank, self.last = rank, last

    def position(self, n: Expr, at: Digits, channel: Expr, lanes: int, mask: Expr | None) -> Position:
        """Where `lanes` consecutive channels lie."""
        spatial = at[3 - self.rank :]
        index = (n, *spatial, channel) if self.last else (n, channel, *spatial)
        return Position(index, (self.rank + 1 if self.last else 1) if lanes > 1 else None, lanes, mask)

    def strided(self, x: Source) -> bool:
        """Whether the channels of an array lie apart in memory."""
        return x.along is not None and x.along != (self.rank + 1 if self.last else 1)

    def sizes(self, shape: tuple[Size, ...]) -> tuple[Size, ...]:
        """The sizes of the spatial axes."""
        return tuple(shape[1:-1] if self.last else shape[2:])


def _load_weight(w: Source, builder: KernelBuilder, at: Position) -> Expr:
    """Weights at a position. All sizes are parameters where an array is read, also small ones: filters share kernels."""
    if w.storage is None:
        return w.load(builder, at)
    steps: list[Expr] = [const(1)]
    for axis in range(len(w.shape) - 1, 0, -1):
        size = product(w.shape[axis:])
        steps.insert(0, builder.parameter(size, ("filters", axis), varies=True))
    place: Expr = const(0)
    for i, step in zip(at.index, steps):
        place = place + i * step
    if at.axis is not None:
        place = ramp(place, steps[at.axis], at.lanes)
    return Load(builder.buffer(w.storage, "read"), place, Type(w.dtype, at.lanes), at.mask)


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
        return _load_weight(w, builder, Position((o, c, *tap[3 - len(kernel) :]), 0 if lanes > 1 else None, lanes, mask))

    problem = Convolution(
        x.dtype, x.shape[0], groups, w.shape[1], w.shape[0] // groups, _three(windows), _reader(x, spatial), weight,
        _deliverer(sink, spatial), read_row=_row_reader(x, spatial), strided=spatial.strided(x),
        allowance=w.allowance, equations=equations,
    )
    return _lower(problem, target, schedule)


def _lower(c: Convolution, target: Target, schedule: dict[str, Any]) -> list[Launch]:
    """`schedule` overrides fields of the plan of the kernel that is chosen; ``winograd``: its tile, 0 for none; ``rank``: see
    `lower_direct`, for the others it has no meaning."""
    rest = dict(schedule)
    rank = rest.pop("rank", 0)
    if is_depthwise(c):
        return lower_depthwise(c, target, **rest)
    if not rest:
        outputs = winograd_outputs(c, target)
        if narrow_cost(c, target) < (0.5 if outputs else 0.85):
            return lower_narrow(c, target)
    else:
        outputs = rest.pop("winograd", 0)
    return lower_winograd(c, target, outputs, **rest) if outputs else lower_direct(c, target, rank, **rest)


def _reader(x: Source, spatial: _Spatial) -> Any:
    return lambda builder, n, at, channel, lanes, mask: x.load(builder, spatial.position(n, at, channel, lanes, mask))


def _row_reader(x: Source, spatial: _Spatial) -> Any:
    """`Convolution.read_row`."""
    axis = spatial.rank if spatial.last else spatial.rank + 1
    if x.along != axis:
        return None

    def read(builder: KernelBuilder, n: Expr, at: Digits, channel: Expr, lanes: int, mask: Expr | None) -> Expr:
        return x.load(builder, Position(spatial.position(n, at, channel, 1, None).index, axis, lanes, mask))

    return read


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

    def tap(self, builder: KernelBuilder, t: Expr, axis: int) -> Expr:
        """The tap of the filter that is number t of the window."""
        last = max(0, self.first + (self.window.taps - 1) * self.period)
        return builder.parameter(last, ("last tap", axis), varies=True) - t * self.period

    def place(self, builder: KernelBuilder, q: Expr, axis: int) -> Expr:
        """The position of output q."""
        return q if self.stride == 1 else q * self.stride + builder.parameter(self.r, ("residue", axis), varies=True)


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
            taps = tuple(part.tap(builder, t, axis) for axis, (part, t) in enumerate(zip(parts, tap[3 - len(kernel) :])))
            if outputs == w.shape[1] == 1:  # the lanes are groups
                return _load_weight(w, builder, Position((c, o, *taps), 0 if lanes > 1 else None, lanes, mask))
            channels = builder.size(w.shape[1])
            group = c // channels if groups > 1 else const(0)
            at = (group * builder.size(outputs) + o, c - group * channels, *taps)
            return _load_weight(w, builder, Position(at, 1 if lanes > 1 else None, lanes, mask))

        def deliver(
            builder: KernelBuilder, n: Expr, at: Digits, c: Expr, lanes: int, mask: Expr | None, value: Expr, parts: Any = parts
        ) -> list[Stmt]:
            place = tuple(part.place(builder, q, axis) for axis, (part, q) in enumerate(zip(parts, at[3 - len(kernel) :])))
            position = spatial.position(n, (*at[: 3 - len(kernel)], *place), c, lanes, mask)
            return sink.store(builder, position, value)

        problem = Convolution(
            g.dtype, g.shape[0], groups, outputs, w.shape[1], _three([part.window for part in parts]), _reader(g, spatial),
            weight, deliver, strided=spatial.strided(g), allowance=w.allowance, name="convolution_data", equations=equations,
        )
        launches += _lower(problem, target, schedule)
    return launches


def lower_weight_gradient(
    attrs: Mapping[str, Any], x: Source, g: Source, sink: Sink, target: Target, equations: tuple, schedule: dict[str, Any],
    last: bool = False,
) -> list[Launch]:
    """The gradient of a convolution for its filter: w[o, c, t] = sum over n, i of
    g[n, o, i] * x[n, c, i*stride - low + t*dilation]."""
    stride, padding, dilation, groups = _attributes(attrs)
    kernel = _constant(sink.shape[2:])
    spatial = _Spatial(len(kernel), last)
    windows = [
        Window(n, out, k, s, d, p[0])
        for n, out, k, s, d, p in zip(spatial.sizes(x.shape), spatial.sizes(g.shape), kernel, stride, dilation, padding)
    ]
    problem = Convolution(
        x.dtype, x.shape[0], groups, sink.shape[1], sink.shape[0] // groups, _three(windows), _reader(x, spatial),
        read_row=_row_reader(x, spatial), strided=spatial.strided(x), name="convolution_weight", equations=equations,
    )
    if is_depthwise(problem) and not schedule:
        return lower_depthwise_filters(problem, _reader(g, spatial), sink, target)
    rest = dict(schedule)
    outputs = rest.pop("winograd", 0) if schedule else 0 if spatial.strided(g) else winograd_filters_outputs(problem, target)
    if outputs:
        return lower_winograd_filters(problem, _reader(g, spatial), sink, target, outputs, **rest)
    return lower_filters(problem, _reader(g, spatial), sink, target, **rest)
