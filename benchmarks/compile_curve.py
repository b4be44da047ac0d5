"""Compile time against the size of a graph, which should be a straight line: ``python -m benchmarks.compile_curve``.

Three families: multi-layer perceptrons (a forward and a backward graph), whole training steps of them (one graph that writes
all weights and states), and one chain of elementwise operations. Printed are seconds of the first call and milliseconds per
layer or operation, in processor time of all threads, which a busy machine doesn't spoil much, and how much of it was the
compiler's; nothing is read from or written to a disk cache.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable

os.environ["HYBRID_CACHE_DIR"] = ""

import numpy as np

import ndarray as nd
from blocks import Trainer, nn
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


def training(layers: int) -> Callable[[], object]:
    """A hybridized training step, with Adam, of a perceptron with so many layers."""
    net = nn.HybridSequential()
    for _ in range(layers):
        net.add(nn.Dense(16, activation="relu", in_units=16))
    net.initialize()
    trainer = Trainer(net.collect_params(), "adam", {"learning_rate": 1e-3})
    x = nd.array(np.ones((4, 16), np.float32))

    @hybridize
    def step(x: nd.NDArray) -> nd.NDArray:
        with autograd.record():
            y = (net(x) ** 2).mean()
        y.backward()
        trainer.step(1)
        return y

    return lambda: step(x)


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

    for name, make, sizes in (("perceptron, layers", perceptron, (100, 300, 1000)),
                              ("training step, layers", training, (100, 300, 1000)),
                              ("chain, operations", chain, (1000, 3000, 10000))):
        print(f"| {name} | first call, s | ms each | of it the compiler, s | kernels |\n|---:|---:|---:|---:|---:|")
        make(20)()  # what every process does once
        for size in (max(1, int(s * scale)) for s in sizes):
            step = make(size)
            compiled, kernels = backend.statistics.seconds, backend.statistics.kernels
            begin = time.process_time(), time.perf_counter()
            step()
            seconds, wall = time.process_time() - begin[0], time.perf_counter() - begin[1]
            share = (backend.statistics.seconds - compiled) / wall
            print(f"| {size} | {seconds:.2f} | {seconds / size * 1e3:.2f} | {seconds * share:.2f} | "
                  f"{backend.statistics.kernels - kernels} |", flush=True)
        print()


if __name__ == "__main__":
    main()
