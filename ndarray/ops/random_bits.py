"""Counter-based random bits: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011).

``state`` is uint64[2] = (key, counter). Element i (row-major) of the result is word ``(i >> 4) & 3`` of the block with
number ``counter + (i >> 6) * 16 + (i & 15)``: 16 neighbours are one word of 16 blocks, so vector code needs no shuffle.
A call with n elements uses ``ceil(n / 64) * 16`` blocks; the caller advances the counter.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..dims import Size, product
from ..op import NONDIFF, ArrayType, Indexed, Op, Sample, register
from ..scalar import Scalar, cast, constant, operate, where
from .base import fail
from .shape import flatten

__all__ = ["ROUNDS", "blocks_used"]

ROUNDS = 10
_M0, _M1, _W0, _W1 = 0xD2511F53, 0xCD9E8D57, 0x9E3779B9, 0xBB67AE85
UINT32, UINT64 = np.dtype(np.uint32), np.dtype(np.uint64)


def blocks_used(n: Size) -> Size:
    """How many blocks a call with n elements consumes."""
    return (n + 63) // 64 * 16


def _infer(state: ArrayType, *, shape: tuple[Size, ...]) -> tuple[ArrayType, ...]:
    if state.dtype != UINT64 or len(state.shape) != 1 or state.shape[0] != 2:
        fail("random_bits", "state", "uint64[2], (key, counter)", state, TypeError)
    return (ArrayType(tuple(shape), UINT32),)


def _eager(xp: Any, state: Any, *, shape: tuple[int, ...]) -> Any:
    n = int(np.prod(shape, dtype=np.int64))
    blocks = int(blocks_used(n))
    low = UINT64.type(0xFFFFFFFF)
    number = state[1] + xp.arange(blocks, dtype=np.uint64)
    c0, c1 = number & low, number >> UINT64.type(32)
    c2, c3 = xp.zeros_like(c0), xp.zeros_like(c0)
    k0, k1 = state[0] & low, state[0] >> UINT64.type(32)
    for round in range(ROUNDS):
        if round:
            k0, k1 = (k0 + UINT64.type(_W0)) & low, (k1 + UINT64.type(_W1)) & low
        p0, p1 = c0 * UINT64.type(_M0), c2 * UINT64.type(_M1)
        c0, c1, c2, c3 = (p1 >> UINT64.type(32)) ^ c1 ^ k0, p1 & low, (p0 >> UINT64.type(32)) ^ c3 ^ k1, p0 & low
    words = xp.stack([c.astype(np.uint32).reshape(-1, 16) for c in (c0, c1, c2, c3)], axis=1)
    return words.reshape(-1)[:n].reshape(shape)


def _lower(index: tuple, state: Any, *, shape: tuple[Size, ...]) -> Scalar:
    i = flatten(index, shape)
    word = operate("shr", i, 4) & 3
    number = state[(constant(1, np.int64),)] + cast(operate("shl", operate("shr", i, 6), 4) + (i & 15), UINT64)
    key = state[(constant(0, np.int64),)]
    halves = lambda v: (cast(v & 0xFFFFFFFF, UINT32), cast(operate("shr", v, 32), UINT32))
    (c0, c1), (k0, k1) = halves(number), halves(key)
    c2 = c3 = constant(0, UINT32)
    for round in range(ROUNDS):
        if round:
            k0, k1 = k0 + _W0, k1 + _W1
        c0, c1, c2, c3 = (
            operate("mulhi", c2, _M1) ^ c1 ^ k0, c2 * _M1, operate("mulhi", c0, _M0) ^ c3 ^ k1, c0 * _M0,
        )
    return where(word.equals(0), c0, where(word.equals(1), c1, where(word.equals(2), c2, c3)))


def _reference(state: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    key, counter = map(int, state)
    out = []
    for i in range(int(product(shape))):
        block = (counter + (i >> 6) * 16 + (i & 15)) % (1 << 64)
        c, k = [block & 0xFFFFFFFF, block >> 32, 0, 0], [key & 0xFFFFFFFF, key >> 32]
        for _ in range(ROUNDS):
            p0, p1 = c[0] * _M0, c[2] * _M1
            c = [(p1 >> 32) ^ c[1] ^ k[0], p1 & 0xFFFFFFFF, (p0 >> 32) ^ c[3] ^ k[1], p0 & 0xFFFFFFFF]
            k = [(k[0] + _W0) & 0xFFFFFFFF, (k[1] + _W1) & 0xFFFFFFFF]
        out.append(c[(i >> 4) & 3])
    return np.array(out, np.uint32).reshape(shape)


def _samples() -> Iterator[Sample]:
    for state in ((0, 0), (0x123456789ABCDEF0, 7), (42, (1 << 32) - 5), ((1 << 64) - 1, (1 << 64) - 8)):
        for shape in ((5,), (3, 50), (), (0, 3), (200,)):
            yield Sample((np.array(state, np.uint64),), {"shape": shape}, _reference)


register(Op("random_bits", ("state",), _infer, _eager, NONDIFF, Indexed(_lower), _samples, traits=frozenset({"random"})))
