"""Every op that kernels are generated for, compiled for ``sim(0)`` and for the CPU, on its samples."""

import numpy as np
import pytest

import ndarray as nd
from hybrid.backend import get_backend
from hybrid.graph import Builder
from jit.cuda.simulate import NoCompiler, compiler
from ndarray.op import OPAQUE, OPS, ArrayType

try:
    compiler()
except NoCompiler:
    pytest.skip("nd.sim needs a C++ compiler", allow_module_level=True)

NAMES = [n for n in OPS if OPS[n].lower is not OPAQUE]
SHORT = ("exp", "argmax", "take", "max_pool", "where")
CPU, SIM = get_backend("jit"), get_backend("cuda:sim(0)")


def agree(name, every):
    """The same dtypes and shapes, integers equal, floats up to the order of sums."""
    op = OPS[name]
    for number, sample in enumerate(s for s in op.samples() if s.error is None):
        if number % every:
            continue
        m, arrays = Builder(), [np.asarray(a) for a in sample.arrays]
        graph = m.build(m.emit(op, *[m.input(ArrayType(a.shape, a.dtype)) for a in arrays], **sample.attrs))
        want = CPU.compile(graph)([a.copy() for a in arrays])
        got = [a.get() for a in SIM.compile(graph)([nd.sim(0).module.array(a) for a in arrays])]
        for w, g in zip(want, got, strict=True):
            assert (g.dtype, g.shape) == (w.dtype, w.shape)
            if w.dtype.kind == "f":
                close = {2: 2e-3, 4: 1e-5, 8: 1e-12}[w.dtype.itemsize]
                np.testing.assert_allclose(g, w, rtol=close, atol=close, err_msg=f"{name} {number}")
            else:
                np.testing.assert_array_equal(g, w, err_msg=f"{name} {number}")


@pytest.mark.parametrize("name", [n for n in SHORT if n in NAMES])
def test_some_ops(name):
    agree(name, 12)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_op(name):
    agree(name, 3)
