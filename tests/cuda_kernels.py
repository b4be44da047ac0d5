"""For tests of generated CUDA: kernels simulated in guarded memory, in every order of threads, beside the interpreter."""

import numpy as np
import pytest

from jit.cuda.printer import Layout, print_module
from jit.cuda.simulate import ORDERS, NoCompiler, compiler, load_module
from jit.guard import guarded
from jit.interpret import run_kernel
from jit.vector_math import expand

try:
    compiler()
    HAVE_COMPILER = True
except NoCompiler:
    HAVE_COMPILER = False
needs_compiler = pytest.mark.skipif(not HAVE_COMPILER, reason="needs g++ or clang++")


WARPS = Layout()


class Simulated:
    """Kernels of one module, called with NumPy arrays."""

    def __init__(self, kernels, layout=WARPS, index="long long"):
        self.symbols = {k: f"k{n}" for n, k in enumerate(dict.fromkeys(kernels))}
        self.layout = layout
        self.source = print_module({s: k for k, s in self.symbols.items()}, layout)
        self.module = load_module(self.source, index)

    def __call__(self, kernel, buffers, parameters, first, last, order="forward", scratch=0, blocks=None, workers=None):
        workers = workers or min(self.layout.workers, 2)
        tasks = max(0, last - first)
        blocks = max(1, min(blocks or 3, -(-tasks // workers)))
        shared = self.layout.shared_bytes(scratch, workers)
        spill = None
        if shared > 48 << 10:
            shared, spill = self.layout.exchange_bytes, np.full(scratch * workers * blocks + 64, 0xFF, np.uint8)
        place = 0 if spill is None else (spill.ctypes.data + 63) // 64 * 64
        words = [*(b.ctypes.data for b in buffers), *parameters, first, last, place, scratch]
        self.module.launch(self.symbols[kernel], blocks, (self.layout.lanes, workers), shared, np.array(words, np.int64), order)


def scratch_bytes(kernel, parameters):
    """What a worker's scratch buffers take."""
    from jit.interpret import interpret_expr
    from jit.target import ITEMSIZE

    values = dict(zip(kernel.parameters, parameters))
    sizes = [int(interpret_expr(b.size, values)) * ITEMSIZE[b.dtype] for b in kernel.buffers if b.access == "scratch"]
    return sum((n + 63) // 64 * 64 for n in sizes)


def check(kernel, arrays, parameters, tasks, layout=WARPS, simulated=None, index="long long", rtol=0.0):
    """Simulated in each order (between guard pages, both sides) and interpreted: all buffers come out equal."""
    simulated = simulated or Simulated([kernel], layout, index)
    expected = [a.copy() for a in arrays]
    run_kernel(expand(kernel), expected, parameters, 0, tasks)
    for number, order in enumerate(ORDERS):
        actual = [guarded(a, "before" if number % 2 else "after") for a in arrays]
        simulated(kernel, actual, parameters, 0, tasks, order, scratch_bytes(kernel, parameters))
        for buffer, got, want in zip(kernel.buffers, actual, expected):
            same(got, want, f"{kernel.name}, {order}, buffer {buffer.name}", rtol)


def same(got, want, what, rtol=0.0):
    if got.dtype.kind == "f" or got.dtype.name == "bfloat16":
        np.testing.assert_allclose(got.astype(float), want.astype(float), rtol=rtol, atol=rtol, equal_nan=True, err_msg=what)
    else:
        np.testing.assert_array_equal(got, want, err_msg=what)
