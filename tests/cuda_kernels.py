"""For tests of generated CUDA: kernels simulated in guarded memory, in every order of threads, beside the interpreter."""

import numpy as np
import pytest

from jit.cuda.printer import Layout, print_module, range_steps
from jit.cuda.ranges import fits_int32
from jit.cuda.simulate import ORDERS, NoCompiler, compiler, load_module
from jit.guard import guarded
from jit.interpret import interpret_expr, run_kernel
from jit.target import ITEMSIZE
from jit.vector_math import expand

try:
    compiler()
    HAVE_COMPILER = True
except NoCompiler:
    HAVE_COMPILER = False
needs_compiler = pytest.mark.skipif(not HAVE_COMPILER, reason="needs g++ or clang++")
WARPS = Layout()
QUICK = ("-O0",)  # small kernels take longer to compile than to run


class Simulated:
    """Kernels of one module, called with NumPy arrays; with sizes of 32 bits where they do and `index` says so."""

    def __init__(self, kernels, layout=WARPS, index="long long", flags=QUICK):
        self.symbols = {k: f"k{n}" for n, k in enumerate(dict.fromkeys(kernels))}
        self.layout, self.index, self.flags = layout, index, flags
        self.source = print_module({s: k for k, s in self.symbols.items()}, layout)

    def __call__(self, kernel, buffers, parameters, first, last, order="forward", blocks=3, workers=2):
        workers = min(self.layout.workers, workers)
        scratch = scratch_bytes(kernel, parameters)
        fits = fits_int32(range_steps(kernel, self.layout), parameters, last)
        module = load_module(self.source, self.index if fits else "long long", self.flags)
        shared, place = self.layout.shared_bytes(scratch, workers), 0
        if shared > 48 << 10:
            spill = np.full(scratch * workers * blocks + 64, 0xFF, np.uint8)
            shared, place = self.layout.exchange_bytes, (spill.ctypes.data + 63) // 64 * 64
        words = [*(b.ctypes.data for b in buffers), *parameters, first, last, place, scratch]
        module.launch(self.symbols[kernel], blocks, (self.layout.lanes, workers), shared, np.array(words, np.int64), order)


def scratch_bytes(kernel, parameters):
    """What a worker's scratch buffers take."""
    values = dict(zip(kernel.parameters, parameters))
    sizes = [int(interpret_expr(b.size, values)) * ITEMSIZE[b.dtype] for b in kernel.buffers if b.access == "scratch"]
    return sum((n + 63) // 64 * 64 for n in sizes)


def check(kernel, arrays, parameters, tasks, simulated=None, layout=WARPS, index="int"):
    """Interpreted, and simulated in each order between guard pages on either side: all buffers come out equal.

    Returns the interpreter's buffers.
    """
    simulated = simulated or Simulated([kernel], layout, index)
    expected = [a.copy() for a in arrays]
    run_kernel(expand(kernel), expected, parameters, 0, tasks)
    for number, order in enumerate(ORDERS):
        actual = [guarded(a, "before" if number % 2 else "after") for a in arrays]
        simulated(kernel, actual, parameters, 0, tasks, order)
        for buffer, got, want in zip(kernel.buffers, actual, expected):
            if got.dtype.name == "bfloat16":
                got, want = got.astype("f"), want.astype("f")
            np.testing.assert_array_equal(got, want, f"{kernel.name}, {order}, buffer {buffer.name}")
    return expected
