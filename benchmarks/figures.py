"""The figures that the README states, measured: call overhead, compile times, import time.

``python -m benchmarks.figures`` prints one line each. Everything that must be cold or fresh runs in a new process with a
cache folder of its own.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import timeit
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

LENET = """
import json, time
import numpy as np
import hybrid, ndarray as nd
from blocks import init, loss, nn
from ndarray import autograd
import jit.backend
from tutorials.demo import lenet
nd.random.seed(0)
net = lenet(); net.initialize(init.Xavier()); net.hybridize()
loss_fn = loss.SoftmaxCrossEntropyLoss(); loss_fn.hybridize()
x, y = nd.array(np.random.rand(64, 1, 28, 28).astype("float32")), nd.array(np.arange(64) % 10)
def step():
    with autograd.record():
        value = loss_fn(net(x), y)
    value.backward()
    return float(value.mean())
begin, cpu = time.perf_counter(), time.process_time(); step(); first, cpu = time.perf_counter() - begin, time.process_time() - cpu
steady = []
for _ in range(20):
    begin = time.perf_counter(); step(); steady.append(time.perf_counter() - begin)
s = jit.backend.backend.statistics
print(json.dumps({"first": first - min(steady), "cpu": cpu, "compile": s.seconds, "kernels": s.kernels, "disk": s.disk_hits}))
"""


BYTECODE = tempfile.mkdtemp(prefix="hybrid-figures-")
"""Python's bytecode of all sources, as an installed package has it, wherever the environment says not to write any."""


def fresh(code: str, cache: str) -> str:
    """What a new process prints last."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    environment |= {"HYBRID_CACHE_DIR": cache, "PYTHONPYCACHEPREFIX": BYTECODE}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    return done.stdout.strip().splitlines()[-1]


def microseconds(call: Callable[[], object], repeats: int = 15, number: int = 2000) -> float:
    """Median time of a call."""
    return statistics.median(timeit.repeat(call, repeat=repeats, number=number)) / number * 1e6


def call_overhead() -> None:
    import numpy as np

    import ndarray as nd
    from blocks import nn

    net = nn.HybridSequential()
    net.add(nn.Dense(8, activation="relu"), nn.Dense(2))
    net.initialize()
    net.hybridize()
    x = nd.array(np.ones((1, 4), np.float32))
    net(x)
    empty = ctypes.CDLL(None).getpid  # the cheapest foreign call there is
    print(f"4-8-2 network: {microseconds(lambda: net(x)):.2f} us a call; an empty ctypes function {microseconds(empty):.2f} us")


def compile_times() -> None:
    for _ in range(3):
        with tempfile.TemporaryDirectory() as cache:
            cold, warm = (json.loads(fresh(LENET, cache)) for _ in range(2))
        print(f"LeNet forward and backward, first call less a steady one: cold {cold['first'] * 1e3:.0f} ms, "
              f"{cold['cpu'] * 1e3:.0f} ms of processor time in all threads "
              f"({cold['kernels']} kernels, {cold['compile'] * 1e3:.0f} ms in the compiler), "
              f"fresh process with a warm cache {warm['first'] * 1e3:.0f} ms ({warm['disk']} programs from disk, "
              f"{warm['compile'] * 1e3:.0f} ms in the compiler)")


def import_time() -> None:
    def seconds(modules: str) -> float:
        code = f"import time; b = time.perf_counter(); import {modules}; print(time.perf_counter() - b)"
        return statistics.median(float(fresh(code, "/nonexistent")) for _ in range(9))

    numpy, ours = seconds("numpy"), seconds("numpy, ndarray, hybrid, blocks, kvstore")
    print(f"import of ndarray, hybrid, blocks, kvstore: {(ours - numpy) * 1e3:.0f} ms beyond NumPy's own {numpy * 1e3:.0f} ms")


if __name__ == "__main__":
    try:
        with tempfile.TemporaryDirectory() as cache:
            fresh(LENET, cache)  # writes the bytecode
        import_time()
        call_overhead()
        compile_times()
    finally:
        shutil.rmtree(BYTECODE, ignore_errors=True)
