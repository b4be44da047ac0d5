"""The machine's limits: fused multiply-adds in registers (GFLOP/s) and copying (GB/s), on one and two threads."""

from __future__ import annotations

import threading

import numpy as np

from benchmarks.launches import best, peak_gflops
from jit.machine import host


def copy_gigabytes(threads: int, megabytes: int = 128) -> float:
    """Bytes read plus bytes written per second while copying arrays larger than the caches."""
    count = (megabytes << 20) // 4 // threads
    pairs = [(np.ones(count, np.float32), np.ones(count, np.float32)) for _ in range(threads)]

    def run() -> None:
        others = [threading.Thread(target=np.copyto, args=pair) for pair in pairs[1:]]
        for other in others:
            other.start()
        np.copyto(*pairs[0])
        for other in others:
            other.join()

    return 2 * count * 4 * threads / best(run) / 1e9


def main() -> None:
    print(f"{host().cpu}: vectors of {host().vector_bytes} bytes, {host().registers} registers")
    for threads in (1, 2):
        speeds = ", ".join(f"{dtype} {peak_gflops(threads, dtype):.0f} GFLOP/s" for dtype in ("float32", "float64"))
        print(f"{threads} thread(s): {speeds}, copy {copy_gigabytes(threads):.1f} GB/s")


if __name__ == "__main__":
    main()
