"""A GPU as the lowerings see it: a vector is a warp, and every number that schedules depend on, in one place.

Chosen by occupancy and coalescing, not measured: an H100 has 132 multiprocessors of 64 warps, 255 registers a thread,
227 KB of shared memory a multiprocessor.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..target import Target

__all__ = ["WARP", "GpuTarget", "gpu_target"]

WARP = 32


@dataclass(frozen=True)
class GpuTarget(Target):
    """Vectors have 32 lanes, whatever their dtype: the threads of a warp."""

    def lanes(self, dtype: str) -> int:
        """The threads of a warp."""
        return WARP


def gpu_target(arch: str, libraries: tuple[str, ...] = (), precision: str = "float32") -> GpuTarget:
    """The target for an architecture ("sm_90"; "sim" is the host).

    registers  vectors that a tile may hold: 72 of the 255 registers of a thread leave room for four warps a scheduler
    l1, l2     private memory of a task that fits beside that of other warps, and the most that tiles should take
    task       elements of a warp in an elementwise kernel: two rounds of four independent loads
    tasks      32 warps on each multiprocessor
    """
    return GpuTarget(
        "nvptx64-nvidia-cuda", arch, "", 4 * WARP, 72, l1=16 << 10, l2=48 << 10, l3=1 << 20, threads=True,
        task=256, tasks=4096, piece=4096, keys=32, libraries=libraries, precision=precision,
    )
