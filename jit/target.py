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
    """A CPU, or by `jit.cuda.target` a GPU: its LLVM names, and the numbers from which tiles are chosen.

    vector_bytes  width of a vector register (64 for AVX-512, 32 for AVX2, 16 for NEON and SSE)
    registers     how many vector registers there are
    ways          how many products of integers an instruction adds to each int32: 4 of bytes (AVX-512 VNNI), 2 of int16 (any
                  x86), 1
    halves        whether half a vector takes half the time of a whole one, as where two pipes share those of 512 bits
    l1, l2, l3    data cache sizes in bytes (l3: the share of one core)
    threads       whether lanes are the threads of a GPU: all vectors have one length, any gather is as good as what the
                  host does instead of one, nothing is asked for ahead, and a task is a tile
    task          elementary operations of a task
    tasks         below so many, tasks are cut smaller, as far as sizes are known
    piece         elements of a piece of a long fold
    keys          keys whose scores attention holds
    libraries     what may compute products ("cublaslt"), convolutions and attention ("cudnn") in place of kernels
    precision     how a library multiplies float32: "float32", or "tf32" (inputs rounded to 10 bits)
    """

    triple: str
    cpu: str
    features: str
    vector_bytes: int
    registers: int
    fma: bool = True
    masked: bool = True  # masked loads and stores are cheap
    halves: bool = False
    half: bool = True  # float16 is converted by instructions
    ways: int = 1
    l1: int = 32 << 10
    l2: int = 1 << 20
    l3: int = 4 << 20
    threads: bool = False
    task: int = 4096
    tasks: int = 8
    piece: int = 32768
    keys: int = 128
    libraries: tuple[str, ...] = ()
    precision: str = "float32"

    def lanes(self, dtype: str) -> int:
        """How many elements of `dtype` fill a vector register."""
        return max(1, self.vector_bytes // ITEMSIZE[dtype])

    def fewer(self, lanes: int, count: int) -> int:
        """Lanes for so many elements side by side: half or a quarter of `lanes`, where that wastes fewer."""
        while not self.threads and lanes > 4 and count <= lanes // 2:
            lanes //= 2
        return lanes

    @property
    def shuffles(self) -> bool:
        """Whether wide masked loads whose lanes are then rearranged are faster than gathers."""
        return self.masked and not self.threads
