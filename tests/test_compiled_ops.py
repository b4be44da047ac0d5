"""Every op's samples through the compiler: the compiled program agrees with the op's eager function."""

import numpy as np
import pytest

import ndarray.ops  # noqa: F401 (fills the table)
from hybrid.graph import Builder
from jit.backend import backend
from ndarray.op import OPAQUE, OPS, ArrayType
from ndarray.testing import assert_close

NATIVE_DTYPES = {"bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float32", "float64"}


def samples():
    for name, op in sorted(OPS.items()):
        if op.lower is OPAQUE:
            continue
        for i, sample in enumerate(op.samples()):
            if sample.error is None and {a.dtype.name for a in map(np.asarray, sample.arrays)} <= NATIVE_DTYPES:
                yield pytest.param(op, sample, id=f"{name}-{i}")


@pytest.mark.parametrize(("op", "sample"), list(samples()))
def test_compiled_equals_eager(op, sample):
    arrays = [np.array(a, order="C") for a in sample.arrays]
    builder = Builder(op.name)
    inputs = [builder.input(ArrayType(a.shape, a.dtype)) for a in arrays]
    graph = builder.build(builder.emit(op, *inputs, **sample.attrs))
    with np.errstate(all="ignore"):
        expected = op.eager(np, *arrays, **sample.attrs)
    program = backend.compile(graph)
    results = program(arrays)
    assert len(results) == (op.results or len(expected))
    for side, threads in (("after", 1), ("before", 2)):  # a touch outside a buffer ends this process
        for got, guarded in zip(results, program.run_guarded(arrays, side, threads), strict=True):
            np.testing.assert_array_equal(got, guarded)
    for got, want in zip(results, (expected,) if op.results == 1 else expected, strict=True):
        want = np.asarray(want)
        assert (got.shape, got.dtype) == (want.shape, want.dtype)
        if want.dtype.kind in "biu":
            np.testing.assert_array_equal(got, want)
        else:
            assert_close(got, want, factor=sample.tolerance)
