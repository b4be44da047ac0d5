"""Folds across rows against NumPy: few and many columns, pieces, tails, several reductions at once, on each target."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from native_kernels import Native, each_target

import ndarray as nd
from hybrid import hybridize
from hybrid.graph import Graph
from hybrid.trace import Tracer
from jit.guard import guarded, guarded_empty
from jit.interpret import run_launches
from jit.lower import lower
from jit.target import Target
from jit.verify import verify
from ndarray.dims import symbol
from ndarray.op import ArrayType
from ndarray.settings import settings


def graph_of(function: Any, shape: tuple, dtype: Any) -> Graph:
    tracer = Tracer("columns")
    x = tracer.argument(ArrayType(shape, np.dtype(dtype)), nd.cpu(), "x")
    with tracer.under():
        out = function(x)
        return tracer.finish(list(out) if isinstance(out, tuple) else [out]).graph


FUNCTIONS = {
    "sum": lambda x: nd.sum(x, 0),
    "several": lambda x: (nd.sum(x * x, 0), nd.max(x, 0), nd.sum(x, 0) * 2 + 1),
    "argmax": lambda x: nd.argmax(x, 0),
    "by rows": lambda x: nd.sum(x * nd.exp(x[:, :1]), 0),
}
TARGETS = {
    "avx512": Target("", "", "", 64, 32), "avx2": Target("", "", "", 32, 16),
    "plain": Target("", "", "", 16, 16, fma=False, masked=False),
}


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_interpreted(name: str, target: Target) -> None:
    for shape in ((33, 16), (70, 37), (40, 300), (600, 20)):
        x = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
        for sizes in ({}, {"n": shape[0]}, {"n": shape[0], "m": shape[1]}):
            types = tuple(symbol(s, k) if s in sizes else k for s, k in zip("nm", shape))
            lowered = lower(graph_of(FUNCTIONS[name], types, np.float32), target)
            memory = {lowered.inputs[0]: x.reshape(-1).copy()}
            for launch in lowered.launches:
                verify(launch.kernel)
            names = [launch.kernel.name for launch in lowered.launches]
            assert "columns" in names, (names, shape, sizes)
            run_launches(lowered.launches, memory, sizes)
            want = FUNCTIONS[name](nd.array(x, dtype=np.float32))
            for storage, w in zip(lowered.outputs, want if isinstance(want, tuple) else (want,)):
                np.testing.assert_allclose(memory[storage], w.asnumpy(), 2e-5, 2e-5, err_msg=f"{shape} {sizes}")


@each_target
def test_native_in_guarded_memory(target: Target) -> None:
    for shape in ((34, 17), (45, 300), (1100, 64)):
        x = np.random.default_rng(2).standard_normal(shape).astype(np.float32)
        lowered = lower(graph_of(FUNCTIONS["several"], shape, np.float32), target)
        native = Native([launch.kernel for launch in lowered.launches], target)
        for side in ("after", "before"):
            memory = {lowered.inputs[0]: guarded(x.reshape(-1), side)}
            for launch in lowered.launches:
                for s in launch.buffers:
                    if s not in memory:
                        memory[s] = guarded_empty(int(s.size) * np.dtype(s.dtype).itemsize, side).view(s.dtype)
                buffers = [memory[s] for s in launch.buffers]
                native(launch.kernel.name, buffers, launch.arguments, 0, launch.tasks, int(launch.scratch))
            wide = x.astype(np.float64)
            for storage, want in zip(lowered.outputs, ((wide**2).sum(0), x.max(0), wide.sum(0) * 2 + 1)):
                np.testing.assert_allclose(memory[storage], want, 1e-5, 1e-4, err_msg=f"{shape} {side}")


def test_long_sums_stay_accurate_and_threads_do_not_matter() -> None:
    x = np.random.default_rng(3).standard_normal((70_001, 40)).astype(np.float32) + 1000
    results = []
    for count in (1, 2):
        with settings(HYBRID_NUM_THREADS=count):
            results.append(hybridize(lambda a: nd.sum(a, 0))(nd.array(x, dtype=np.float32)).asnumpy())
    np.testing.assert_array_equal(*results)
    np.testing.assert_allclose(results[0], x.astype(np.float64).sum(0), rtol=1e-6)
