"""Convolutions as library steps: forward, and the gradients of data and weights, with channels second or last.

cuDNN wants all tensors of a convolution in one layout: channels last means filters (O, *kernel, C), so weights that lie as
(O, C, *kernel) are laid out first (once, where they are constant), and their gradient is turned back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from hybrid.graph import Atom, Equation, Value
from ndarray.dims import Size
from ndarray.op import OPS

from ..launch import Launch, Storage
from ..nodes import hint, same, strides_of, volume
from ..pull import Pull, Scope
from .library import NARROW, StepBuilder, add_epilogue, match, narrowed, strides_in
from .library_numpy import NUMPY_STEPS, finished, view, wide

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["convolution_pays", "lower_convolution", "packed_strides", "tensors"]

LEAST = 1 << 15
"""Multiplications from which on a convolution pays for a library call."""


def _parts(eq: Equation) -> tuple[str, bool]:
    """("forward", "data" or "weight", whether channels are last)."""
    name = eq.op.name.removesuffix("_channels_last")
    return {"convolution": "forward", "convolution_data_gradient": "data"}.get(name, "weight"), name != eq.op.name


def _first(shape: tuple, last: bool) -> tuple:
    return (shape[0], shape[-1], *shape[1:-1]) if last else tuple(shape)


def _shapes(eq: Equation) -> tuple[tuple[Size, ...], tuple[Size, ...], tuple[Size, ...]]:
    """Data (N, C, *spatial), filters (O, C / groups, *kernel) and results (N, O, *positions) of the forward convolution."""
    direction, last = _parts(eq)
    a, b, out = (v.shape for v in (*eq.inputs, eq.output))
    if direction == "forward":
        return _first(a, last), tuple(b), _first(out, last)
    if direction == "data":
        return _first(out, last), tuple(b), _first(a, last)
    return _first(a, last), tuple(out), _first(b, last)


def convolution_pays(eq: Equation, pull: Pull) -> bool:
    """Whether cuDNN is to compute a convolution: neither tiny, nor one that multiplies few channels (depthwise)."""
    if not all(isinstance(a, Value) for a in eq.inputs) or eq.output.dtype != np.float32:
        return False
    data, filters, results = _shapes(eq)
    groups = eq.attrs["groups"]
    if len(data) not in (4, 5) or any(type(n) is int and n == 0 for n in (*data, *filters, *results)):
        return False
    if groups > 1 and hint(filters[1]) < 4:
        return False
    return hint(volume(results)) * hint(volume(filters[1:])) >= LEAST


def lower_convolution(builder: StepBuilder) -> list[Launch]:
    """The launches of a convolution that a library computes."""
    claim, pull = builder.claim, builder.pull
    eq = claim.template
    direction, last = _parts(eq)
    data, filters, results = _shapes(eq)
    rank = len(data) - 2
    builder.step |= {"direction": direction, "last": last, "rank": rank,
                     **{k: eq.attrs[k] for k in ("stride", "padding", "dilation", "groups")}}
    builder.arguments += [*data, filters[0], *filters[2:], *results[2:]]
    nodes = [Scope(pull, ()).element(a, pull.variables("i", a.shape)) for a in eq.inputs]
    kinds = [narrowed(n).dtype.name for n in nodes]
    narrow = kinds[0] == kinds[1] and kinds[0] in NARROW
    dtype = kinds[0] if narrow else "float32"
    names = {"forward": ("x", "w"), "data": ("y", "w"), "weight": ("x", "y")}[direction]
    for name, atom, node in zip(names, eq.inputs, nodes):
        axes = range(len(atom.shape))
        order = (0, *axes[2:], 1) if name == "w" and last else tuple(axes)
        found = _packed(builder, narrowed(node) if narrow else node, atom, order)
        storage, offset = found or (builder.laid_out(atom, order, dtype), 0)
        builder.buffer(name, storage, "read")
        builder.arguments.append(offset)
    matched = match(claim, pull)
    assert matched is not None
    add_epilogue(builder, matched)
    (value,) = claim.outputs
    home = builder.home(value)
    if direction == "weight" and last:
        turned = Storage(value.dtype.name, volume(value.shape), "turned")
        builder.buffer("w", turned, "write")
        shape = (filters[0], *filters[2:], filters[1])
        builder.back(turned, shape, (0, rank + 1, *range(1, rank + 1)), value, home)
    else:
        builder.buffer({"forward": "y", "data": "x", "weight": "w"}[direction], home, "write")
    builder.step["precision"] = builder.target.precision if dtype == "float32" else ""
    return builder.launches("convolution", volume(results) * volume(filters[1:]) // 8)


def _packed(builder: StepBuilder, node: Any, atom: Atom, order: Sequence[int]) -> tuple[Storage, Size] | None:
    """(storage, offset) of an operand whose axes, in the given order, lie row-major."""
    pull = builder.pull
    found = strides_in(node, pull.variables("i", atom.shape), pull)
    if found is None:
        return None
    value, offset, strides = found
    wanted = strides_of(tuple(atom.shape[k] for k in order))
    for k, s in zip(order, wanted):
        n = atom.shape[k]
        if not (type(n) is int and n == 1) and not same(strides[k], s):
            return None
    return builder.home(value), offset


def tensors(step: dict[str, Any], arguments: Sequence[int]) -> tuple[dict[str, tuple[Any, Any]], dict[str, int]]:
    """({name: (shape with channels second, strides)} of x, w and y, {name: offset of a buffer})."""
    rank, last = step["rank"], step["last"]
    take = iter(arguments)
    data = tuple(next(take) for _ in range(2 + rank))
    count = next(take)
    kernel = tuple(next(take) for _ in range(rank))
    positions = tuple(next(take) for _ in range(rank))
    shapes = {"x": data, "w": (count, data[1] // step["groups"], *kernel), "y": (data[0], count, *positions)}
    found = {name: (shape, packed_strides(shape, last)) for name, shape in shapes.items()}
    offsets = {name: next(take) for name, _ in step["buffers"][:-1]}
    return found, {**offsets, step["buffers"][-1][0]: 0}


def packed_strides(shape: tuple[Any, ...], last: bool) -> tuple[Any, ...]:
    """Strides of a packed tensor, its shape with channels second."""
    if not last:
        return strides_of(shape)
    n, *spatial, c = strides_of((shape[0], *shape[2:], shape[1]))
    return (n, c, *spatial)


def _convolution(step: dict[str, Any], arrays: dict[str, np.ndarray], arguments: list[int]) -> None:
    """A convolution in NumPy."""
    known, offsets = tensors(step, arguments)
    views = {name: view(arrays[name], offsets[name], *known[name]) for name in arrays if name in known}
    out = step["buffers"][-1][0]
    direction = step["direction"]
    operands = [wide(views[name], step["precision"]) for name, _ in step["buffers"][:2]]
    attrs: dict[str, Any] = {
        "stride": tuple(step["stride"]), "padding": tuple(map(tuple, step["padding"])), "dilation": tuple(step["dilation"]),
        "groups": step["groups"],
    }
    if direction != "forward":
        attrs["shape"] = known[out][0]
    name = {"forward": "convolution", "data": "convolution_data_gradient", "weight": "convolution_weight_gradient"}[direction]
    total = OPS[name].eager(np, *operands, **attrs)
    bias = residual = None
    if "bias" in arrays:
        channels = known[out][0][1]
        bias = view(arrays["bias"], offsets["bias"], (channels,), (1,)).reshape(-1, *(1,) * step["rank"])
    if "residual" in arrays:
        residual = view(arrays["residual"], 0, *known[out])
    views[out][...] = finished(step, total, bias, residual).astype(views[out].dtype)


NUMPY_STEPS["convolution"] = _convolution
