"""Layout: convolutions with channels along the last axis, in which vectors run along channels everywhere.

``convolution(x, w)`` becomes ``first(convolution_channels_last(last(x), w))``, where `last` and `first` are the
transpositions that bring the channels behind the spatial axes and back. A transposition that brings them back moves
behind the equations that read it (elementwise ones, reductions, pooling, joins, slices, padding), where the next one
cancels it; what is left stands at the borders of the graph. Nothing else of the graph changes. A graph whose only
convolution is a product of matrices with the channels first, and that does nothing but elementwise work beside it, has
that product instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ndarray.dims import product
from ndarray.op import OPS

from ..graph import Atom, Equation, Graph, Value
from .dce import dce
from .rewrite import Rewriter, rewrite
from .simplify import identical, same_symbols

__all__ = ["layout"]

_CONVOLUTIONS = {"convolution": 1, "convolution_data_gradient": 1, "convolution_weight_gradient": 2}  # operands with channels
_REDUCTIONS = {"sum", "prod", "max", "min", "all", "any"}
_POOLS = {"max_pool", "max_unpool", "max_pool_gather", "sum_pool", "sum_unpool"}
FEW = 8
"""So many channels are turned while they are copied into patches."""
_ALONG_AXES = {"pad": ("low", "high", "interior"), "slice": ("start", "stop", "step"), "update_slice": ("start", "stop", "step")}


def layout(graph: Graph) -> Graph:
    """The graph with its convolutions in channels-last form."""
    found = [eq for eq in graph.equations if eq.op.name in _CONVOLUTIONS]
    if not found:
        return graph
    if len(found) == 1 and _is_pointwise(found[0]) and all(
        "elementwise" in eq.op.traits or eq.op.name == "reshape" for eq in graph.equations if eq is not found[0]
    ):
        return rewrite(graph, _as_product)
    return dce(rewrite(graph, _step))


def _is_pointwise(eq: Equation) -> bool:
    """Whether a convolution is a product of matrices with the channels first: one tap, stride 1, no padding, one group."""
    if eq.op.name != "convolution" or eq.attrs["groups"] != 1 or any(s != 1 for s in eq.attrs["stride"]):
        return False
    alone = all(isinstance(k, int) and k == 1 for k in eq.inputs[1].shape[2:])
    return alone and not any(n for pair in eq.attrs["padding"] for n in pair)


def _as_product(rewriter: Rewriter, eq: Equation) -> Mapping[Value, Atom] | None:
    """out[n, o, p] = sum over c of w[o, c] * x[n, c, p]: nothing is turned where nothing wants it turned."""
    if eq.op.name != "convolution":
        return None
    x, w = eq.inputs
    flat = rewriter.emit("reshape", x, shape=(*x.shape[:2], product(x.shape[2:])))
    out = rewriter.emit(
        "dot_general", rewriter.emit("reshape", w, shape=w.shape[:2]), flat, contract=((1,), (1,)), batch=((), ())
    )
    return {eq.output: rewriter.emit("reshape", rewriter.emit("transpose", out, axes=(1, 0, 2)), shape=eq.output.shape)}


def _last(sizes: tuple) -> tuple:
    """(N, C, ...) as (N, ..., C)."""
    return (sizes[0], *sizes[2:], sizes[1])


def _first(sizes: tuple) -> tuple:
    return (sizes[0], sizes[-1], *sizes[1:-1])


def _step(rewriter: Rewriter, eq: Equation) -> Mapping[Value, Atom] | None:
    name = eq.op.name
    if name in _CONVOLUTIONS:
        count = _CONVOLUTIONS[name]
        inputs = (*(_operand(rewriter, a) for a in eq.inputs[:count]), *eq.inputs[count:])
        attrs = dict(eq.attrs)
        if name == "convolution_data_gradient":
            attrs["shape"] = _last(attrs["shape"])
        out = rewriter.emit(f"{name}_channels_last", *inputs, **attrs)
        return {eq.output: out if count == 2 else to_first(rewriter, out)}
    turned = [a for a in eq.inputs if _source(rewriter, a) is not None]
    if not turned or len({len(a.shape) for a in turned}) > 1:
        return None
    rank = len(turned[0].shape)
    if name in ("reshape", "dot_general"):
        return _regroup(rewriter, eq)
    if "elementwise" in eq.op.traits:
        if len(eq.outputs[0].shape) != rank:
            return None
        full = [a for a in dict.fromkeys(eq.inputs) if isinstance(a, Value) and same_symbols(a, eq.outputs[0])]
        if 2 * len([a for a in full if a in turned]) < len(full) or not any(a in turned for a in full):
            return None
        return _emit(rewriter, eq, [_aligned(rewriter, a, rank) for a in eq.inputs], eq.attrs)
    if name in _REDUCTIONS:
        return _reduce(rewriter, eq, rank)
    new = _attributes(eq, rank)
    if new is None or len(turned) * 2 < len(eq.inputs):
        return None
    return _emit(rewriter, eq, [to_last(rewriter, a) for a in eq.inputs], new)


def _attributes(eq: Equation, rank: int) -> dict[str, Any] | None:
    """The attributes of an equation over (N, C, ...) for (N, ..., C), or None if it must stay as it is."""
    name, attrs = eq.op.name, dict(eq.attrs)
    if any(len(a.shape) != rank for a in (*eq.inputs, *eq.outputs)):
        return None
    if name == "concatenate":
        attrs["axis"] = _last(tuple(range(rank))).index(attrs["axis"])
    elif name in _POOLS and len(attrs["kernel"]) == rank - 2:
        for key, alone in (("kernel", 1), ("stride", 1), ("padding", (0, 0))):
            attrs[key] = (*attrs[key], alone)
        if "shape" in attrs:
            attrs["shape"] = _last(attrs["shape"])
    elif name in _ALONG_AXES and all(len(attrs[key]) == rank for key in _ALONG_AXES[name]):
        attrs.update({key: _last(attrs[key]) for key in _ALONG_AXES[name]})
    else:
        return None
    return attrs


def _operand(rewriter: Rewriter, atom: Atom) -> Atom:
    """What a convolution reads for an atom of shape (N, C, ...). What lies channels first is stored channels last, but for the
    few channels of images."""
    turned, channels = to_last(rewriter, atom), atom.shape[1]
    few = isinstance(channels, int) and channels <= FEW
    return turned if few or _is_column(atom) or _source(rewriter, atom) is not None else rewriter.emit("copy", turned)


def _regroup(rewriter: Rewriter, eq: Equation) -> Mapping[Value, Atom] | None:
    """Spatial axes that become one stay before the channels. For other reshapes, and for products, which would read
    across the channels again and again, the value is stored as they read it."""
    x, out = eq.inputs[0], eq.output
    if eq.op.name == "reshape" and len(out.shape) == 3 and all(map(identical, out.shape[:2], x.shape[:2])):
        source = _source(rewriter, x)
        assert source is not None
        return {out: to_first(rewriter, rewriter.emit("reshape", source, shape=_last(out.shape)))}
    inputs = [a if _source(rewriter, a) is None or _is_column(a) else rewriter.emit("copy", a) for a in eq.inputs]
    if all(a is b for a, b in zip(inputs, eq.inputs)):
        return None
    return {out: rewriter.emit(eq.op, *inputs, **eq.attrs)}


def _is_column(atom: Atom) -> bool:
    """Whether there is one position only, so that both layouts are the same memory."""
    return all(isinstance(n, int) and n == 1 for n in atom.shape[2:])


def _reduce(rewriter: Rewriter, eq: Equation, rank: int) -> Mapping[Value, Atom]:
    order = _last(tuple(range(rank)))
    axes = tuple(sorted(order.index(a) for a in eq.attrs["axes"]))
    source = _source(rewriter, eq.inputs[0])
    assert source is not None
    out = rewriter.emit(eq.op, source, **{**eq.attrs, "axes": axes})
    if eq.attrs["keepdims"]:
        return {eq.output: to_first(rewriter, out)}
    kept = [a for a in order if a not in eq.attrs["axes"]]
    if kept == sorted(kept):
        return {eq.output: out}
    return {eq.output: rewriter.emit("transpose", out, axes=tuple(kept.index(a) for a in sorted(kept)))}


def _emit(rewriter: Rewriter, eq: Equation, inputs: list[Atom], attrs: Mapping[str, Any]) -> Mapping[Value, Atom]:
    types = eq.op.infer(*[a.type for a in inputs], **attrs)
    new = rewriter.append(Equation(eq.op, tuple(inputs), tuple(map(Value, types)), attrs, eq.source))
    return {old: to_first(rewriter, out) for old, out in zip(eq.outputs, new.outputs)}


def _source(rewriter: Rewriter, atom: Atom) -> Value | None:
    """The channels-last value that an atom is a transposition of, if it is one."""
    eq = rewriter.producer(atom, "transpose")
    if eq is None or not 3 <= len(atom.shape) <= 5 or eq.attrs["axes"] != _first(tuple(range(len(atom.shape)))):
        return None
    (source,) = eq.inputs
    return source if isinstance(source, Value) else None


def to_last(rewriter: Rewriter, atom: Atom) -> Atom:
    """An atom of shape (N, C, ...) as (N, ..., C)."""
    return _source(rewriter, atom) or rewriter.emit("transpose", atom, axes=_last(tuple(range(len(atom.shape)))))


def to_first(rewriter: Rewriter, value: Value) -> Value:
    """The value of shape (N, ..., C) as (N, C, ...)."""
    return rewriter.emit("transpose", value, axes=_first(tuple(range(len(value.shape)))))


def _aligned(rewriter: Rewriter, atom: Atom, rank: int) -> Atom:
    """An operand of an elementwise equation, broadcast or not, as one beside channels-last operands."""
    if len(atom.shape) == 0:
        return atom
    if len(atom.shape) < rank:
        atom = rewriter.emit("reshape", atom, shape=(*(1,) * (rank - len(atom.shape)), *atom.shape))
    return to_last(rewriter, atom)


assert all(name in OPS for name in (*_CONVOLUTIONS, *_REDUCTIONS, *_POOLS, *_ALONG_AXES))
