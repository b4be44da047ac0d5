"""Attention in half precision as a library step: cuDNN's fused attention, without a mask or causal.

The two numbers that a gradient needs of each row are cuDNN's one, ``log(sum(exp(s)))``, and 0.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from hybrid.graph import Equation, Value
from ndarray.op import OPS

from ..launch import Launch
from ..nodes import hint, volume
from ..pull import Pull, Scope
from .library import NARROW, Claim, StepBuilder, narrowed, strides_in
from .library_numpy import NUMPY_STEPS, view

__all__ = ["attention_claim", "lower_attention"]

WIDEST = 128
"""Numbers in a query, key or value that cuDNN's fused attention takes on every GPU."""

LEAST = 16
"""Queries and keys from which on attention pays for a library call."""


def attention_claim(
    eq: Equation, pull: Pull, results: Collection[Value], uses: Mapping[Value, list[Equation]]
) -> Claim | None:
    """Attention of narrow floats whose result is only used rounded to them, without statistics for a gradient."""
    if eq.op.name != "attention" or len(eq.inputs) != 3 or not all(isinstance(a, Value) for a in eq.inputs):
        return None
    nodes = [narrowed(Scope(pull, ()).element(a, pull.variables("i", a.shape))) for a in eq.inputs]
    kinds = {n.dtype.name for n in nodes}
    out, *statistics = eq.outputs
    if len(kinds) != 1 or not kinds <= set(NARROW) or any(uses.get(s) or s in results for s in statistics):
        return None
    query, key, value = (a.shape for a in eq.inputs)
    sizes = (*query[-3:], *key[-3:], value[-1])
    if not all(type(n) is int and n % 8 == 0 and n <= WIDEST for n in (query[-1], value[-1])):
        return None
    if min(hint(query[-3]), hint(key[-3])) < LEAST or any(hint(n) < 1 for n in sizes):
        return None
    behind = uses.get(out, [])
    if out in results or len(behind) != 1 or behind[0].op.name != "cast" or behind[0].output.dtype.name not in kinds:
        return None
    return Claim(eq, (eq, behind[0]), (behind[0].output,), "attention")


def lower_attention(builder: StepBuilder) -> list[Launch]:
    """The launches of attention: operands (batch, positions, heads, width) at any strides with a contiguous width."""
    claim, pull = builder.claim, builder.pull
    eq = claim.template
    (out,) = claim.outputs
    query, key, value = (a.shape for a in eq.inputs)
    builder.step |= {"scale": float(eq.attrs["scale"]), "causal": bool(eq.attrs["causal"])}
    builder.arguments += [volume(query[:-3]), query[-3], key[-3], query[-2], query[-1], value[-1]]
    for name, atom in zip("qkv", eq.inputs):
        index = pull.variables("i", atom.shape)
        found = strides_in(narrowed(Scope(pull, ()).element(atom, index)), index, pull)
        from .library import collapsed

        batch = collapsed([(n, s) for n, s in zip(atom.shape[:-3], found[2])]) if found is not None else None
        if found is None or batch is None or not _is(found[2][-1], 1, atom.shape[-1]):
            storage = builder.laid_out(atom, range(len(atom.shape)), out.dtype.name)
            length, heads, width = atom.shape[-3:]
            strides = [0, length * heads * width, heads * width, width]
        else:
            storage, strides = builder.home(found[0]), [found[1], batch[1] or 0, *found[2][-3:-1]]
        builder.buffer(name, storage, "read")
        builder.arguments += strides
    builder.buffer("out", builder.home(out), "write")
    return builder.launches("attention", volume(query) * key[-3] // 4)


def _is(stride: Any, wanted: int, extent: Any) -> bool:
    return (type(stride) is int and stride == wanted) or (type(extent) is int and extent == 1)


def tensors(step: dict[str, Any], arguments: Sequence[int]) -> tuple[dict[str, tuple[Any, Any]], dict[str, int]]:
    """({name: (shape (batch, heads, positions, width), strides)}, {name: offset}) of q, k, v and out."""
    take = iter(arguments)
    batch, queries, keys, heads, width, out_width = (next(take) for _ in range(6))
    found: dict[str, tuple[Any, Any]] = {}
    offsets = {"out": 0}
    for name, positions, w in (("q", queries, width), ("k", keys, width), ("v", keys, out_width)):
        offsets[name], b, p, h = (next(take) for _ in range(4))
        found[name] = (batch, heads, positions, w), (b, h, p, 1)
    found["out"] = (batch, heads, queries, out_width), (queries * heads * out_width, out_width, heads * out_width, 1)
    return found, offsets


def _attention(step: dict[str, Any], arrays: dict[str, np.ndarray], arguments: list[int]) -> None:
    """Attention in NumPy."""
    known, offsets = tensors(step, arguments)
    views = {name: view(arrays[name], offsets[name], *known[name]) for name in arrays}
    q, k, v = (np.moveaxis(views[name].astype(np.float32), 1, 2) for name in "qkv")
    out, _, _ = OPS["attention"].eager(np, q, k, v, scale=step["scale"], causal=step["causal"])
    views["out"][...] = np.moveaxis(out, 2, 1).astype(views["out"].dtype)


NUMPY_STEPS["attention"] = _attention
