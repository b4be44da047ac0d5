"""The machine that code is generated for, as far as schedules need to know it."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ITEMSIZE", "Target"]

ITEMSIZE = {
    "bool": 1, "int8": 1, "uint8": 1, "int16": 2, "uint16": 2, "float16": 2, "bfloat16": 2, "int32": 4, "uint32": 4, "float32": 4,
    "int64": 8, "uint64": 8, "float64": 8,
}
"""Bytes of an element, for every dtype that kernels know."""


@dataclass(frozen=True)
class Target:
    """A CPU: its LLVM names, and the numbers from which tiles are chosen.

    vector_bytes  width of a vector register (64 for AVX-512, 32 for AVX2, 16 for NEON and SSE)
    registers     how many vector registers there are
    l1, l2, l3    data cache sizes in bytes (l3: the share of one core)
    """

    triple: str
    cpu: str
    features: str
    vector_bytes: int
    registers: int
    fma: bool = True
    masked: bool = True  # masked loads and stores are cheap
    half: bool = True  # float16 is converted by instructions
    l1: int = 32 << 10
    l2: int = 1 << 20
    l3: int = 4 << 20

    def lanes(self, dtype: str) -> int:
        """How many elements of `dtype` fill a vector register."""
        return max(1, self.vector_bytes // ITEMSIZE[dtype])
