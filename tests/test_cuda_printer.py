"""CUDA C printed from loop IR, run by the simulator in three orders of threads, against the loop-IR interpreter."""

import numpy as np
from cuda_kernels import check, needs_compiler
from native_kernels import elementwise

from jit.loopir import apply

pytestmark = needs_compiler


def test_a_fused_expression():
    kernel = elementwise("exp", ["float32"] * 2, "float32", lambda a, b: apply("exp", a) + b, 32)
    for n in (1, 31, 1000):
        x = np.linspace(-90, 90, n).astype("f")
        check(kernel, [x, x, np.full(n, np.nan, "f")], [n], -(-n // 32))
