"""Compile time against the size of a graph, which should be a straight line: ``python -m benchmarks.compile_curve``.

Two families: multi-layer perceptrons (a forward and a backward graph) and one chain of elementwise operations. Printed are
seconds and seconds per equation, in all and in each stage; nothing is read from or written to a disk cache.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable

os.environ["HYBRID_CACHE_DIR"] = ""

import numpy as np

import ndarray as nd
from blocks import nn
from hybrid import hybridize
from ndarray import autograd

__all__ = ["chain", "main", "perceptron"]


def perceptron(layers: int) -> Callable[[], object]:
    """A step of a perceptron with so many layers of 16 units."""
    net = nn.HybridSequential()
    for _ in range(layers):
        net.add(nn.Dense(16, activation="relu", in_units=16))
    net.initialize()
    net.hybridize()
    x = nd.array(np.ones((4, 16), np.float32))

    def step() -> None:
        with autograd.record():
            y = net(x).sum()
        y.backward()

    return step


def chain(length: int) -> Callable[[], object]:
    """So many elementwise operations, one after the other, with a product now and then."""

    def function(x: nd.NDArray, w: nd.NDArray) -> nd.NDArray:
        y = x
        for i in range(length):
            y = nd.dot(y, w) if i % 50 == 49 else nd.tanh(y) if i % 5 == 0 else y * x + 0.5 if i % 2 else y - w
        return y

    compiled = hybridize(function)
    x, w = nd.array(np.ones((16, 16), np.float32)), nd.array(np.eye(16, dtype=np.float32))
    return lambda: compiled(x, w)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--largest", type=float, default=1.0, help="scale of the largest graphs")
    scale = parser.parse_args().largest
    from jit.backend import backend

    for name, make, sizes in (("perceptron, layers", perceptron, (62, 125, 250, 500, 1000)),
                              ("chain, operations", chain, (625, 1250, 2500, 5000, 10000))):
        print(f"{name:>20} {'first call s':>13} {'ms each':>8} {'in the compiler s':>18} {'ms each':>8} {'kernels':>8}")
        for size in (max(1, int(s * scale)) for s in sizes):
            step = make(size)
            before, kernels = backend.statistics.seconds, backend.statistics.kernels
            begin = time.process_time(), time.perf_counter()
            step()
            seconds, compiling = time.perf_counter() - begin[1], backend.statistics.seconds - before
            print(f"{size:20} {seconds:13.2f} {seconds / size * 1e3:8.2f} {compiling:18.2f} {compiling / size * 1e3:8.2f} "
                  f"{backend.statistics.kernels - kernels:8}", flush=True)


if __name__ == "__main__":
    main()
