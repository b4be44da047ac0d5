"""Convolution, its transpose and deformable convolution, over 1 to 3 spatial axes; im2col and col2im.

The primitives have the channels first; `layout` says otherwise ("NHWC": x is (N, H, W, C), filters (O, *kernel, C/groups)).
"""

from __future__ import annotations

from typing import Any

from .array import NDArray
from .dims import Size
from .elementwise import add, multiply
from .linear import matmul
from .manipulation import reshape, stack, transpose
from .operands import as_array, as_floating, common, is_number, primitive
from .precision import in_target
from .spatial import sample_bilinear

__all__ = ["col2im", "convolution", "deconvolution", "deformable_convolution", "im2col", "modulated_deformable_convolution"]

LAYOUTS = {
    "NCW": (1, False), "NCHW": (2, False), "NCDHW": (3, False), "NWC": (1, True), "NHWC": (2, True), "NDHWC": (3, True),
}
"""(spatial axes, whether the channels come last) of each layout."""


def channels_last(name: str, layout: str | None, rank: int) -> bool:
    """Whether the channels come last. Raises ValueError for a layout that is unknown or of another rank."""
    if layout is None:
        return False
    if LAYOUTS.get(layout, (None, False))[0] != rank:
        known = " or ".join(repr(k) for k, (r, _) in LAYOUTS.items() if r == rank)
        raise ValueError(f"{name}: layout: expected {known} for {rank} spatial axes, got {layout!r}")
    return LAYOUTS[layout][1]


def to_first(x: NDArray) -> NDArray:
    """(N, *spatial, C) as (N, C, *spatial)."""
    return transpose(x, (0, x.ndim - 1, *range(1, x.ndim - 1)))


def to_last(x: NDArray) -> NDArray:
    """(N, C, *spatial) as (N, *spatial, C)."""
    return transpose(x, (0, *range(2, x.ndim), 1))


def one_each(name: str, argument: str, value: Any, rank: int) -> tuple[int, ...]:
    """A number for each spatial axis. Raises ValueError for another count."""
    values = (value,) * rank if is_number(value) else tuple(value)
    if len(values) == 0:
        values = (1 if argument in ("stride", "dilation") else 0,) * rank
    if len(values) != rank:
        raise ValueError(f"{name}: {argument}: expected a number or {rank} of them, got {value}")
    return tuple(int(v) for v in values)


def pad_pairs(name: str, value: Any, rank: int) -> tuple[tuple[int, int], ...]:
    """(before, after) for each spatial axis, from a number, or a number or pair for each. Raises ValueError otherwise."""
    values: tuple[Any, ...] = (value,) * rank if is_number(value) else tuple(value) or (0,) * rank
    if len(values) != rank or any(not is_number(v) and len(v) != 2 for v in values):
        raise ValueError(f"{name}: padding: expected a number, or a number or pair for each of {rank} axes, got {value}")
    return tuple((int(v), int(v)) if is_number(v) else (int(v[0]), int(v[1])) for v in values)


def _agree(name: str, argument: str, asked: Any, actual: Any) -> None:
    if asked is not None and (tuple(asked) if isinstance(asked, (tuple, list)) else asked) != actual:
        raise ValueError(f"{name}: {argument}: expected {actual}, which weight's shape says, got {asked}")


def _arguments(
    name: str, x: Any, weight: Any, stride: Any, padding: Any, dilation: Any, groups: int, layout: str | None, pad: Any,
    dilate: Any, num_group: int | None,
) -> tuple[NDArray, NDArray, dict[str, Any], bool]:
    """x and weight with their channels first, the attributes of the primitive, and whether the channels came last."""
    x, weight = common(name, x, weight, arguments=("x", "weight"))
    rank = x.ndim - 2
    if rank not in (1, 2, 3) or weight.ndim != x.ndim:
        raise ValueError(
            f"{name}: x and weight: expected (N, C, *spatial) and filters of as many axes, with 1 to 3 spatial axes, "
            f"got shapes {x.shape} and {weight.shape}"
        )
    last = channels_last(name, layout, rank)
    if last:
        x, weight = to_first(x), to_first(weight)
    for taps in weight.shape[2:]:
        int(taps)  # a trace is for this many: the loops over taps are written out
    attrs = {
        "stride": one_each(name, "stride", stride, rank),
        "padding": pad_pairs(name, padding if pad is None else pad, rank),
        "dilation": one_each(name, "dilation", dilation if dilate is None else dilate, rank),
        "groups": int(groups if num_group is None else num_group),
    }
    return x, weight, attrs, last


def convolution(
    x: Any, weight: Any, bias: Any = None, /, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1,
    layout: str | None = None, *, kernel: Any = None, num_filter: int | None = None, pad: Any = None, dilate: Any = None,
    num_group: int | None = None, no_bias: bool = False,
) -> NDArray:
    """The cross-correlation of x with each filter, over 1 to 3 spatial axes.

    x: (N, C, *spatial); weight: (O, C/groups, *kernel); bias: (O,); result: (N, O, *positions). stride, padding and
    dilation are a number or one for each spatial axis; padding may be pairs (before, after).
    layout  "NCW", "NCHW", "NCDHW" (the default), or "NWC", "NHWC", "NDHWC": then x is (N, *spatial, C), weight
            (O, *kernel, C/groups), result (N, *positions, O)

    pad, dilate, num_group are MXNet's names of padding, dilation, groups; kernel and num_filter may repeat what weight's
    shape says. Raises ValueError naming the argument that does not fit.

    >>> import ndarray as nd
    >>> x = nd.arange(9, dtype="float32").reshape(1, 1, 3, 3)
    >>> nd.convolution(x, nd.ones((1, 1, 2, 2))).tolist()
    [[[[8.0, 12.0], [20.0, 24.0]]]]
    """
    x, weight, bias = in_target("convolution", x, weight, bias)
    x, weight, attrs, last = _arguments(
        "convolution", x, weight, stride, padding, dilation, groups, layout, pad, dilate, num_group)
    _agree("convolution", "kernel", kernel, weight.shape[2:])
    _agree("convolution", "num_filter", num_filter, weight.shape[0])
    out = _with_bias("convolution", primitive("convolution", x, weight, **attrs), None if no_bias else bias)
    return to_last(out) if last else out


def _with_bias(name: str, out: NDArray, bias: Any) -> NDArray:
    if bias is None:
        return out
    bias = as_array(name, "bias", bias)
    if bias.ndim != 1:
        raise ValueError(f"{name}: bias: expected shape ({out.shape[1]},), got {bias.shape}")
    return add(out, reshape(bias, (bias.shape[0],) + (1,) * (out.ndim - 2)))


def deconvolution(
    x: Any, weight: Any, bias: Any = None, /, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1,
    output_padding: Any = 0, layout: str | None = None, *, kernel: Any = None, num_filter: int | None = None, pad: Any = None,
    dilate: Any = None, num_group: int | None = None, adj: Any = None, target_shape: Any = None, no_bias: bool = False,
) -> NDArray:
    """The transposed convolution: the gradient of `convolution` with respect to its input.

    x: (N, C, *spatial); weight: (C, O/groups, *kernel); bias: (O,); result: (N, O, *sizes) with
    ``size = (n - 1) * stride - padding before - after + dilation * (kernel - 1) + output_padding + 1``.
    layout        as in `convolution`; channels last: weight is (C, *kernel, O/groups)
    target_shape  the sizes wanted, instead of padding and output_padding, which then follow from it

    adj, pad, dilate and num_group are MXNet's names of output_padding, padding, dilation and groups. Raises ValueError
    naming the argument that does not fit.

    >>> import ndarray as nd
    >>> nd.deconvolution(nd.array([[[1.0, 2.0]]]), nd.ones((1, 1, 2)), stride=2).tolist()
    [[[1.0, 1.0, 2.0, 2.0]]]
    """
    name = "deconvolution"
    x, weight, bias = in_target(name, x, weight, bias)
    x, weight, attrs, last = _arguments(name, x, weight, stride, padding, dilation, groups, layout, pad, dilate, num_group)
    rank = x.ndim - 2
    steps, dilated, pads = attrs["stride"], attrs["dilation"], attrs["padding"]
    _agree(name, "kernel", kernel, weight.shape[2:])
    _agree(name, "num_filter", num_filter, weight.shape[1] * attrs["groups"])
    extra = one_each(name, "output_padding", output_padding if adj is None else adj, rank)
    full = tuple((n - 1) * s + d * (k - 1) + 1 for n, s, d, k in zip(x.shape[2:], steps, dilated, weight.shape[2:]))
    if target_shape is not None:
        sizes: tuple[Size, ...] = one_each(name, "target_shape", target_shape, rank)
        missing = [f - t for f, t in zip(full, sizes)]
        pads = tuple(((m + 1) // 2, m // 2 + m % 2) if m > 0 else (0, 0) for m in missing)
        extra = tuple(a + b - m for (a, b), m in zip(pads, missing))
    for e, s, d in zip(extra, steps, dilated):
        if not 0 <= e < (s if s > d else d):
            what = f"target_shape: {target_shape}" if target_shape is not None else f"output_padding: {extra}"
            raise ValueError(f"{name}: {what}: expected an output padding of at least 0 and less than stride or dilation")
    sizes = tuple(f - a - b + e for f, (a, b), e in zip(full, pads, extra))
    shape = (x.shape[0], weight.shape[1] * attrs["groups"], *sizes)
    out = primitive("convolution_data_gradient", x, weight, shape=shape, **{**attrs, "padding": pads})
    out = _with_bias(name, out, None if no_bias else bias)
    return to_last(out) if last else out


# -- windows as columns

def _taps(kernel: tuple[int, ...]) -> list[tuple[int, ...]]:
    from itertools import product

    return list(product(*map(range, kernel)))


def _count(n: Size, k: int, s: int, pad: tuple[int, int], d: int) -> Size:
    return (n + pad[0] + pad[1] - d * (k - 1) - 1) // s + 1


def _window_arguments(name: str, rank: int, kernel: Any, stride: Any, padding: Any, dilation: Any) -> tuple:
    return (one_each(name, "kernel", kernel, rank), one_each(name, "stride", stride, rank), pad_pairs(name, padding, rank),
            one_each(name, "dilation", dilation, rank))


def im2col(
    x: Any, /, kernel: Any, stride: Any = 1, padding: Any = 0, dilation: Any = 1, *, pad: Any = None, dilate: Any = None
) -> NDArray:
    """The elements that each position of a convolution's window meets, as columns (torch calls it unfold).

    x: (N, C, *spatial) with 1 to 3 spatial axes; result: (N, C * product(kernel), positions), zeros for padding.

    >>> import ndarray as nd
    >>> nd.im2col(nd.array([[[1.0, 2.0, 3.0]]]), kernel=(2,)).tolist()
    [[[1.0, 2.0], [2.0, 3.0]]]
    """
    x = as_array("im2col", "x", x)
    rank = x.ndim - 2
    if rank not in (1, 2, 3):
        raise ValueError(f"im2col: x: expected (N, C, *spatial) with 1 to 3 spatial axes, got shape {x.shape}")
    size, steps, pads, dilated = _window_arguments(
        "im2col", rank, kernel, stride, padding if pad is None else pad, dilation if dilate is None else dilate)
    counts = tuple(_count(*a) for a in zip(x.shape[2:], size, steps, pads, dilated))
    if any(type(c) is int and c < 1 for c in counts):
        raise ValueError(f"im2col: x: expected a (padded) size of at least the window's for kernel {size}, got shape {x.shape}")
    if any(a or b for a, b in pads):
        low, high = (0, 0, *(a for a, _ in pads)), (0, 0, *(b for _, b in pads))
        x = primitive("pad", x, low=low, high=high, interior=(0,) * x.ndim, value=0.0)
    parts = []
    for offsets in _taps(size):
        start = (0, 0, *(k * d for k, d in zip(offsets, dilated)))
        stop = (*x.shape[:2], *(k * d + (c - 1) * s + 1 for k, d, c, s in zip(offsets, dilated, counts, steps)))
        parts.append(primitive("slice", x, start=start, stop=stop, step=(1, 1, *steps)))
    columns = stack(parts, 2)
    total: Size = 1
    for c in counts:
        total = total * c
    return reshape(columns, (x.shape[0], x.shape[1] * len(parts), total))


def col2im(
    x: Any, /, output_size: Any, kernel: Any, stride: Any = 1, padding: Any = 0, dilation: Any = 1, *, pad: Any = None,
    dilate: Any = None,
) -> NDArray:
    """The transpose of `im2col`: columns (N, C * product(kernel), positions) added up in an array (N, C, *output_size).

    >>> import ndarray as nd
    >>> nd.col2im(nd.array([[[1.0, 2.0], [2.0, 3.0]]]), (3,), kernel=(2,)).tolist()
    [[[1.0, 4.0, 3.0]]]
    """
    x = as_array("col2im", "x", x)
    sizes = (output_size,) if is_number(output_size) else tuple(output_size)
    rank = len(sizes)
    if rank not in (1, 2, 3) or x.ndim != 3:
        raise ValueError(f"col2im: expected x (N, C * product(kernel), positions) and 1 to 3 sizes, got {x.shape}, {output_size}")
    size, steps, pads, dilated = _window_arguments(
        "col2im", rank, kernel, stride, padding if pad is None else pad, dilation if dilate is None else dilate)
    counts = tuple(_count(*a) for a in zip(sizes, size, steps, pads, dilated))
    taps = _taps(size)
    total: Size = 1
    for c in counts:
        total = total * c
    if x.shape[1] % len(taps) != 0 or x.shape[2] != total:
        raise ValueError(f"col2im: x: expected shape (N, C * {len(taps)}, {total}), got {x.shape}")
    columns = reshape(x, (x.shape[0], x.shape[1] // len(taps), len(taps), *counts))
    out: Any = None
    for k, offsets in enumerate(taps):
        low = tuple(o * d for o, d in zip(offsets, dilated))
        high = tuple(n + a + b - o - (c - 1) * s - 1 for n, (a, b), o, c, s in zip(sizes, pads, low, counts, steps))
        part = columns[:, :, k]
        part = primitive("pad", part, low=(0, 0, *low), high=(0, 0, *high), interior=(0, 0, *(s - 1 for s in steps)), value=0.0)
        out = part if out is None else add(out, part)
    start = (0, 0, *(a for a, _ in pads))
    stop = (*out.shape[:2], *(a + n for (a, _), n in zip(pads, sizes)))
    return primitive("slice", out, start=start, stop=stop, step=(1,) * out.ndim)


# -- deformable convolution

def deformable_convolution(
    x: Any, offset: Any, weight: Any, bias: Any = None, /, stride: Any = 1, padding: Any = 0, dilation: Any = 1,
    groups: int = 1, num_deformable_group: int = 1, *, mask: Any = None, kernel: Any = None, num_filter: int | None = None,
    pad: Any = None, dilate: Any = None, num_group: int | None = None, no_bias: bool = False,
) -> NDArray:
    """Convolution whose window positions are moved by learned offsets (Dai et al., 2017), over two spatial axes.

    x       (N, C, H, W); weight: (O, C/groups, kh, kw); bias: (O,); result: (N, O, OH, OW)
    offset  (N, num_deformable_group * 2 * kh * kw, OH, OW): for each group of channels and each position of the kernel
            in row-major order, how far down and how far right. Between pixels x is interpolated bilinearly, outside it is 0
    mask    (N, num_deformable_group * kh * kw, OH, OW): factors of the samples (version 2, Zhu et al., 2019), or None

    Differentiable with respect to all arrays. Raises ValueError for shapes that do not fit.

    >>> import ndarray as nd
    >>> x, offset = nd.arange(9, dtype="float32").reshape(1, 1, 3, 3), nd.full((1, 2, 3, 3), 1.0)
    >>> nd.deformable_convolution(x, offset, nd.ones((1, 1, 1, 1))).tolist()
    [[[[4.0, 5.0, 0.0], [7.0, 8.0, 0.0], [0.0, 0.0, 0.0]]]]
    """
    name = "deformable_convolution"
    x, weight, attrs, _ = _arguments(name, x, weight, stride, padding, dilation, groups, None, pad, dilate, num_group)
    if x.ndim != 4:
        raise ValueError(f"{name}: x: expected (N, C, H, W), got shape {x.shape}")
    _agree(name, "kernel", kernel, weight.shape[2:])
    _agree(name, "num_filter", num_filter, weight.shape[0])
    steps, pads, dilated, groups = attrs["stride"], attrs["padding"], attrs["dilation"], attrs["groups"]
    n, c, height, width = x.shape
    size, parts = weight.shape[2:], int(num_deformable_group)
    if c % groups != 0 or c % parts != 0 or weight.shape[1] * groups != c or weight.shape[0] % groups != 0:
        raise ValueError(
            f"{name}: weight: expected shape (O, C/groups, kh, kw) for C={c}, groups={groups}, num_deformable_group={parts}, "
            f"got {weight.shape}"
        )
    rows, columns = (_count(*a) for a in zip((height, width), size, steps, pads, dilated))
    taps = size[0] * size[1]
    offset = _field(name, "offset", offset, x, (n, parts * 2 * taps, rows, columns))
    offset = reshape(offset, (n * parts, taps, 2, rows, columns))
    moved = []
    for axis, (count, s, (a, _), d) in enumerate(zip((rows, columns), steps, pads, dilated)):
        with x._device:
            position = primitive("iota", shape=(count,), axis=0, dtype=x.dtype)
            within = primitive("iota", shape=(size[axis],), axis=0, dtype=x.dtype)
        position = add(multiply(position, s), -a)
        within = multiply(within, d)
        position = reshape(position, (count, 1) if axis == 0 else (1, count))
        tap = reshape(add(reshape(within, (-1, 1) if axis == 0 else (1, -1)), primitive("broadcast_to", _zero(x), shape=size)),
                      (taps, 1, 1))
        moved.append(reshape(add(offset[:, :, axis], add(tap, position)), (n * parts, taps * rows * columns)))
    sampled = sample_bilinear(reshape(x, (n * parts, c // parts, height, width)), moved[0], moved[1])
    sampled = reshape(sampled, (n, parts, taps, rows * columns, c // parts))
    if mask is not None:
        mask = _field(name, "mask", mask, x, (n, parts * taps, rows, columns))
        sampled = multiply(sampled, reshape(mask, (n, parts, taps, rows * columns, 1)))
    # (n, parts, c / parts, taps, positions), and with that the columns of each group
    sampled = reshape(transpose(sampled, (0, 1, 4, 2, 3)), (n, groups, c // groups * taps, rows * columns))
    out = matmul(reshape(weight, (groups, weight.shape[0] // groups, c // groups * taps)), sampled)
    out = reshape(out, (n, weight.shape[0], rows, columns))
    return _with_bias(name, out, None if no_bias else bias)


def _zero(x: NDArray) -> NDArray:
    from .creation import zeros

    return zeros((1, 1), dtype=x.dtype, device=x._device)


def _field(name: str, argument: str, value: Any, x: NDArray, shape: tuple) -> NDArray:
    value = as_floating(name, value, argument)
    if value.ndim != 4 or any(a != b for a, b in zip(value.shape, shape)):
        raise ValueError(f"{name}: {argument}: expected shape {shape} for x of shape {x.shape}, got {value.shape}")
    return common(name, value, x)[0]


def modulated_deformable_convolution(x: Any, offset: Any, mask: Any, weight: Any, bias: Any = None, /, **options: Any) -> NDArray:
    """`deformable_convolution` with `mask`, in MXNet's order of arguments (version 2, Zhu et al., 2019).

    >>> import ndarray as nd
    >>> x, offset, mask = nd.ones((1, 1, 2, 2)), nd.zeros((1, 2, 2, 2)), nd.full((1, 1, 2, 2), 0.5)
    >>> nd.modulated_deformable_convolution(x, offset, mask, nd.ones((1, 1, 1, 1))).tolist()
    [[[[0.5, 0.5], [0.5, 0.5]]]]
    """
    return deformable_convolution(x, offset, weight, bias, mask=mask, **options)
