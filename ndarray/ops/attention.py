"""Attention without its score matrix, and its gradient: what the compiler computes tile by tile.

    s[i, j] = scale * <q[i], k[j]> (+ mask[i, j])        for each batch position and head
    out[i]  = sum over j of softmax(s)[i, j] * v[j]

Arrays are laid out as projections leave them: q (..., L, H, E), k (..., S, H, E), v (..., S, H, V), with H heads behind
the positions; the mask broadcasts to (..., H, L, S): bool, true where i may look at j, or floating, added. With `causal`, i
looks at j <= i only. Where it may not look, the score is the lowest number of the dtype, so that a row without anything to
look at gets the mean of v. Two numbers are kept for each row, ``shift = max(s)`` and ``total = log(sum(exp(s - shift)))``,
from which the gradient makes ``softmax(s) = exp(s - shift - total)`` again.

Their sum would do but for rows of huge scores, in which it loses `total`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from inspect import Parameter, Signature
from typing import Any

import numpy as np

from .. import functions as F
from ..op import ArrayType, Op, Sample, Template, Vjp, register
from .base import differ, expect_kind, expect_same_dtype, expect_same_shape, fail, is_one, quiet, random_array

__all__: list[str] = []


def _infer(q: ArrayType, k: ArrayType, v: ArrayType, mask: ArrayType | None) -> None:
    name = "attention"
    expect_kind(name, "q", expect_same_dtype(name, "qkv", (q, k, v)), "f")
    rank = len(q.shape)
    if rank < 3 or len(k.shape) != rank or len(v.shape) != rank:
        fail(name, "shapes of q, k and v", "as many axes of each, at least 3", f"{q.shape}, {k.shape} and {v.shape}")
    expect_same_shape(name, "k", (*q.shape[:-3], k.shape[-3], *q.shape[-2:]), k.shape)
    expect_same_shape(name, "v", (*k.shape[:-1], v.shape[-1]), v.shape)
    if mask is None:
        return
    if mask.dtype != np.bool_ and mask.dtype != q.dtype:
        fail(name, "dtype of mask", f"bool or {q.dtype}", mask.dtype, TypeError)
    full = (*q.shape[:-3], q.shape[-2], q.shape[-3], k.shape[-3])
    offset = len(full) - len(mask.shape)
    if offset < 0 or any(not is_one(n) and differ(n, full[offset + a]) for a, n in enumerate(mask.shape)):
        fail(name, "shape of mask", f"one that broadcasts to {full}", mask.shape)


def _scores(xp: Any, q: Any, k: Any, mask: Any, scale: float, causal: bool) -> tuple[Any, Any]:
    """The scores (..., H, L, S), and where they are not replaced (None: everywhere)."""
    s = xp.matmul(xp.moveaxis(q, -2, -3), xp.moveaxis(k, -3, -1)) * q.dtype.type(scale)
    lowest, allowed = np.finfo(q.dtype).min, None
    if causal:
        allowed = xp.arange(s.shape[-2])[:, None] >= xp.arange(s.shape[-1])
        s = xp.where(allowed, s, lowest)
    if mask is not None and mask.dtype == np.bool_:
        allowed = xp.broadcast_to(mask if allowed is None else mask & allowed, s.shape)
        s = xp.where(mask, s, lowest)
    elif mask is not None:
        s = s + mask
    return s, allowed


def _eager(xp: Any, q: Any, k: Any, v: Any, mask: Any, scale: float, causal: bool) -> tuple[Any, Any, Any]:
    s, _ = _scores(xp, q, k, mask, scale, causal)
    shift = s.max(-1, keepdims=True)
    p = xp.exp(s - shift)
    total = p.sum(-1, keepdims=True)
    out = xp.moveaxis(xp.matmul(p / total, xp.moveaxis(v, -2, -3)), -3, -2)
    rows = lambda x: xp.moveaxis(x[..., 0], -1, -2)
    return xp.ascontiguousarray(out), rows(shift), rows(xp.log(total))


def _eager_gradient(
    xp: Any, q: Any, k: Any, v: Any, mask: Any, shift: Any, total: Any, delta: Any, g: Any, scale: float, causal: bool
) -> tuple[Any, Any, Any]:
    s, allowed = _scores(xp, q, k, mask, scale, causal)
    column = lambda x: xp.moveaxis(x, -1, -2)[..., None]
    heads = lambda x: xp.moveaxis(x, -2, -3)
    p = xp.exp(s - column(shift) - column(total))
    ds = p * (xp.matmul(heads(g), xp.moveaxis(v, -3, -1)) - column(delta))
    if allowed is not None:
        ds = xp.where(allowed, ds, 0)
    ds = ds * q.dtype.type(scale)
    turned = lambda x: xp.swapaxes(x, -1, -2)
    results = xp.matmul(ds, heads(k)), xp.matmul(turned(ds), heads(q)), xp.matmul(turned(p), heads(g))
    return tuple(xp.ascontiguousarray(heads(r)) for r in results)


# -- gradients, in public array functions

def _heads(x: Any) -> Any:
    """(..., positions, H, E) as (..., H, positions, E)."""
    return F.swapaxes(x, -3, -2)


def _column(x: Any) -> Any:
    """A number for each row, (..., L, H), as (..., H, L, 1)."""
    return F.expand_dims(F.swapaxes(x, -1, -2), -1)


def _turned(x: Any) -> Any:
    return F.swapaxes(x, -1, -2)


def _allowed(q: Any, k: Any, mask: Any, causal: bool) -> Any:
    """Where scores are not replaced, or None."""
    allowed = None
    if causal:
        with q.device:
            rows, columns = (F.primitive("iota", shape=(x.shape[-3],), axis=0, dtype=np.dtype(np.int32)) for x in (q, k))
        allowed = F.greater_equal(F.expand_dims(rows, -1), columns)
    if mask is not None and mask.dtype == np.bool_:
        allowed = mask if allowed is None else F.logical_and(mask, allowed)
    return allowed


def _scores_again(q: Any, k: Any, mask: Any, scale: float, causal: bool) -> Any:
    s = F.multiply(F.matmul(_heads(q), _turned(_heads(k))), scale)
    allowed = _allowed(q, k, mask, causal)
    if allowed is not None:
        s = F.where(allowed, s, float(np.finfo(q.dtype).min))
    return F.add(s, mask) if mask is not None and mask.dtype != np.bool_ else s


def _weights(q: Any, k: Any, mask: Any, shift: Any, total: Any, scale: float, causal: bool) -> Any:
    """The softmax of the scores, from what is kept."""
    return F.exp(F.subtract(F.subtract(_scores_again(q, k, mask, scale, causal), _column(shift)), _column(total)))


def _masked(x: Any, q: Any, k: Any, mask: Any, causal: bool) -> Any:
    """x (..., H, L, S), 0 where scores are replaced."""
    allowed = _allowed(q, k, mask, causal)
    return x if allowed is None else F.where(allowed, x, 0)


def _forward(
    wanted: str, *, g0: Any, g1: Any, g2: Any, q: Any, k: Any, v: Any, out0: Any, out1: Any, out2: Any, scale: float,
    causal: bool, mask: Any = None,
) -> Any:
    """The cotangent of an argument of attention. `g1` and `g2`, of shift and total, come from gradients of higher order only."""
    g0 = F.zeros_like(out0) if g0 is None else g0
    delta = F.sum(F.multiply(g0, out0), axis=-1)
    if g2 is not None:
        delta = F.subtract(delta, g2)
    peak = g1 if g2 is None else F.negative(g2) if g1 is None else F.subtract(g1, g2)
    of_s = None
    if peak is not None:  # shift is the score at the highest position, or shared by several
        highest = F.astype(F.equal(_scores_again(q, k, mask, scale, causal), _column(out1)), out1.dtype)
        of_s = F.multiply(highest, F.divide(_column(peak), F.sum(highest, axis=-1, keepdims=True)))
    if wanted == "mask":
        p = _weights(q, k, mask, out1, out2, scale, causal)
        more = F.multiply(p, F.subtract(F.matmul(_heads(g0), _turned(_heads(v))), _column(delta)))
        return more if of_s is None else F.add(more, of_s)
    operands = (q, k, v) if mask is None else (q, k, v, mask)
    name = "attention_gradient" if mask is None else "masked_attention_gradient"
    found = F.primitive(name, *operands, out1, out2, delta, g0, scale=scale, causal=causal)["qkv".index(wanted)]
    if of_s is None or wanted == "v":
        return found
    of_s = F.multiply(_masked(of_s, q, k, mask, causal), scale)
    return F.add(found, _heads(F.matmul(of_s, _heads(k)) if wanted == "q" else F.matmul(_turned(of_s), _heads(q))))


def _backward(
    wanted: str, *, g0: Any, g1: Any, g2: Any, q: Any, k: Any, v: Any, shift: Any, total: Any, delta: Any, upstream: Any,
    scale: float, causal: bool, mask: Any = None,
) -> Any:
    """The cotangent of an argument of the gradient: ``ds = p * (g @ v.T - delta)``, ``dq = ds @ k``, ``dk = ds.T @ q`` and
    ``dv = p.T @ g``, written out."""
    a, b, c = (F.zeros_like(x) if y is None else y for x, y in ((q, g0), (k, g1), (v, g2)))
    qh, kh, vh, gh, a, b, c = map(_heads, (q, k, v, upstream, a, b, c))
    p = _weights(q, k, mask, shift, total, scale, causal)
    inner = F.subtract(F.matmul(gh, _turned(vh)), _column(delta))
    of_ds = F.multiply(_masked(F.add(F.matmul(a, _turned(kh)), F.matmul(qh, _turned(b))), q, k, mask, causal), scale)
    of_inner = F.multiply(of_ds, p)
    of_s = F.multiply(F.add(F.matmul(gh, _turned(c)), F.multiply(of_ds, inner)), p)
    rows = lambda x: F.negative(F.swapaxes(F.sum(x, axis=-1), -1, -2))
    if wanted in ("shift", "total"):
        return rows(of_s)
    if wanted == "delta":
        return rows(of_inner)
    if wanted == "mask":
        return of_s
    if wanted == "v":
        return _heads(F.matmul(_turned(of_inner), gh))
    if wanted == "upstream":
        return _heads(F.add(F.matmul(p, c), F.matmul(of_inner, vh)))
    ds = F.multiply(_masked(F.multiply(p, inner), q, k, mask, causal), scale)
    of_s = F.multiply(_masked(of_s, q, k, mask, causal), scale)
    if wanted == "q":
        return _heads(F.add(F.matmul(of_s, kh), F.matmul(ds, b)))
    return _heads(F.add(F.matmul(_turned(of_s), qh), F.matmul(_turned(ds), a)))


def _rules(pull: Callable, arguments: tuple[str, ...], results: tuple[str, ...] = ()) -> dict[str, Vjp]:
    """A rule for each argument, with the parameter names that `Vjp` reads."""
    names = ("g0", "g1", "g2", *arguments, *results, "scale", "causal")

    def rule(wanted: str) -> Callable:
        def run(**values: Any) -> Any:
            return pull(wanted, **values)

        run.__signature__ = Signature([Parameter(n, Parameter.POSITIONAL_OR_KEYWORD) for n in names])  # type: ignore[attr-defined]
        return run

    return {name: Vjp(rule(name)) for name in arguments}


# -- the records

_ROWS = ("shift", "total", "delta")


def _samples(masked: bool, backward: bool) -> Callable[[], Iterator[Sample]]:
    def one(batch: tuple, length: int, keys: int, heads: int, e: int, width: int, dtype: Any, mask: Any, causal: bool) -> Sample:
        q, k, v = (random_array(n, (*batch, *shape), dtype) for n, shape in enumerate(
            ((length, heads, e), (keys, heads, e), (keys, heads, width))))
        arrays = [q, k, v]
        if masked:
            arrays.append(random_array(4, mask[1], mask[0] or dtype))
            if mask[0] is not None and mask[1] != (1, 1):
                arrays[3][..., 0] = True  # shift is lowest where a row sees nothing, too low for differences
        attrs = {"scale": 0.5, "causal": causal}
        if backward:
            _, shift, total = _eager(np, q, k, v, arrays[3] if masked else None, 0.5, causal)
            g = random_array(5, (*batch, length, heads, width), dtype)
            arrays += [shift, total, random_array(6, (*batch, length, heads), dtype), g]
        reference, finite = _reference_gradient if backward else _reference, mask is None or mask[1] != (1, 1)
        return Sample(tuple(arrays), attrs, reference, differentiable=finite, tolerance=16.0)

    def samples() -> Iterator[Sample]:
        shapes = ((None, (4, 3)), (None, (2, 4, 1)), (np.bool_, (1, 3)), (np.bool_, (2, 1, 4, 3)), (np.bool_, (1, 1)))
        masks = shapes if masked else (None,)
        for mask in masks:
            for dtype in (np.float64, np.float32):
                yield one((2,), 4, 3, 2, 3, 2, dtype, mask, False)
                yield one((2,), 4, 3, 2, 3, 2, dtype, mask, True)
        if not masked:
            yield one((), 1, 1, 1, 1, 1, np.float64, None, False)
            yield one((0,), 2, 2, 1, 3, 3, np.float64, None, False)
            yield one((1, 2), 5, 7, 1, 2, 5, np.float64, None, True)

    return samples


def _reference(q: Any, k: Any, v: Any, mask: Any = None, *, scale: float, causal: bool) -> tuple[Any, ...]:
    s = _reference_scores(q, k, mask, scale, causal)
    shift = s.max(-1)
    total = np.log(np.exp(s - shift[..., None]).sum(-1))
    p = np.exp(s - shift[..., None] - total[..., None])
    out = np.einsum("...hls,...shv->...lhv", p, v)
    return tuple(x.astype(q.dtype) for x in (out, shift.swapaxes(-1, -2), total.swapaxes(-1, -2)))


def _reference_scores(q: Any, k: Any, mask: Any, scale: float, causal: bool) -> Any:
    s = np.einsum("...lhe,...she->...hls", q.astype(np.float64), k) * scale
    lowest = float(np.finfo(q.dtype).min)
    if causal:
        s[..., np.triu(np.ones(s.shape[-2:], bool), 1)] = lowest
    return s if mask is None else np.where(mask, s, lowest) if mask.dtype == bool else s + mask


def _reference_gradient(q: Any, k: Any, v: Any, *rest: Any, scale: float, causal: bool) -> tuple[Any, ...]:
    *mask, shift, total, delta, g = rest
    s = _reference_scores(q, k, mask[0] if mask else None, scale, causal)
    allowed = np.ones(s.shape, bool)
    if causal:
        allowed &= np.tri(*s.shape[-2:], dtype=np.bool_)
    if mask and mask[0].dtype == bool:
        allowed &= mask[0]
    p = np.exp(s - shift.swapaxes(-1, -2)[..., None] - total.swapaxes(-1, -2)[..., None])
    ds = p * (np.einsum("...lhv,...shv->...hls", g, v) - delta.swapaxes(-1, -2)[..., None]) * allowed * scale
    found = np.einsum("...hls,...she->...lhe", ds, k), np.einsum("...hls,...lhe->...she", ds, q)
    return tuple(x.astype(q.dtype) for x in (*found, np.einsum("...hls,...lhv->...shv", p, g)))


def _register(masked: bool) -> None:
    prefix, given = ("masked_", ("q", "k", "v", "mask")) if masked else ("", ("q", "k", "v"))

    def split(arrays: tuple) -> tuple[tuple, tuple]:
        return ((*arrays[:4],), arrays[4:]) if masked else ((*arrays[:3], None), arrays[3:])

    def infer(*types: ArrayType, scale: float, causal: bool) -> tuple[ArrayType, ...]:
        (q, k, v, mask), _ = split(types)
        _infer(q, k, v, mask)
        row = ArrayType(q.shape[:-1], q.dtype)
        return ArrayType((*q.shape[:-1], v.shape[-1]), q.dtype), row, row

    def infer_gradient(*types: ArrayType, scale: float, causal: bool) -> tuple[ArrayType, ...]:
        (q, k, v, mask), (*rows, g) = split(types)
        _infer(q, k, v, mask)
        expect_same_dtype("attention_gradient", ("q", *_ROWS, "upstream"), (q, *rows, g))
        for name, row in zip(_ROWS, rows, strict=True):
            expect_same_shape("attention_gradient", name, q.shape[:-1], row.shape)
        expect_same_shape("attention_gradient", "upstream", (*q.shape[:-1], v.shape[-1]), g.shape)
        return q, k, v

    def eager(xp: Any, *arrays: Any, scale: float, causal: bool) -> tuple:
        (q, k, v, mask), _ = split(arrays)
        return _eager(xp, q, k, v, mask, scale, causal)

    def eager_gradient(xp: Any, *arrays: Any, scale: float, causal: bool) -> tuple:
        (q, k, v, mask), (shift, total, delta, upstream) = split(arrays)
        return _eager_gradient(xp, q, k, v, mask, shift, total, delta, upstream, scale, causal)

    register(Op(f"{prefix}attention", given, infer, quiet(eager), _rules(_forward, given, ("out0", "out1", "out2")),
                Template("attention"), _samples(masked, False), results=3))
    given = (*given, *_ROWS, "upstream")
    register(Op(f"{prefix}attention_gradient", given, infer_gradient, quiet(eager_gradient), _rules(_backward, given),
                Template("attention_gradient"), _samples(masked, True), results=3))


_register(False)
_register(True)
