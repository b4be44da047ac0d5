"""Graphs on which the fuzzer (tests/graph_fuzzer.py) once found the compiler wrong, made small."""

import numpy as np
import pytest

from hybrid.graph import Builder, Literal
from ndarray.op import ArrayType
from tests.graph_fuzzer import check
from tests.random_graphs import F32, F64

I32, I64 = np.dtype(np.int32), np.dtype(np.int64)


class Small:
    """``g = Small(); x = g.input(F32, 3, 4); y = g.add(x, x); g.check(y)``"""

    def __init__(self):
        self.builder, self.makers = Builder(), []

    def input(self, dtype, *shape, low=-4, high=4):
        value = self.builder.input(ArrayType(shape, dtype))
        seed = len(self.makers)

        def make(sizes):
            random = np.random.default_rng(seed)
            if dtype.kind == "f":
                return np.asarray(random.standard_normal(shape)).astype(dtype)
            return np.asarray(random.integers(low, high, shape)).astype(dtype)

        self.makers.append(make)
        return value

    def __getattr__(self, op):
        def emit(*inputs, **attrs):
            outputs = self.builder.emit(op, *inputs, **attrs)
            return outputs if len(outputs) > 1 else outputs[0]

        return emit

    def check(self, *outputs, state=None):
        check(self.builder.build(outputs, state), self.makers, [{}], 0)


@pytest.mark.parametrize("columns", [1, 2])
def test_a_product_with_one_column_and_an_epilogue(columns):
    g = Small()
    x, y, b = g.input(F32, 5, 7), g.input(F32, 7, columns), g.input(F32, 5, columns)
    g.check(g.exp(g.add(g.dot_general(x, y, contract=((1,), (0,)), batch=((), ())), b)))


def test_an_outer_product_with_one_column():
    g = Small()
    x, y = g.input(F32, 1, 1, 13, 1), g.input(F32, 1)
    g.check(g.dot_general(x, y, contract=((), ()), batch=((), ())))


def test_a_convolution_with_one_column_left():
    g = Small()
    x, w = g.input(F32, 2, 5, 3, 3, 1), g.input(F32, 7, 5, 3, 3, 2)
    g.check(g.convolution(x, w, dilation=(1, 1, 2), groups=1, padding=((0, 2), (0, 0), (2, 0)), stride=(1, 1, 2)))


def test_a_pooled_index_read_under_a_condition():
    g = Small()
    pooling = {"kernel": (2,), "padding": ((0, 0),), "stride": (2,)}
    x, index = g.input(F64, 3, 31), g.input(I32, 3, 15, low=0, high=2)
    g.check(g.max_unpool(g.max_pool_gather(x, index, **pooling), index, shape=(3, 31), **pooling))


def test_a_scatter_whose_result_is_returned_twice():
    g = Small()
    x = g.input(I32, 1, 13, 1)
    index = g.remainder(g.iota(shape=(1, 13, 1), axis=0, dtype=I64), Literal(1, I64))
    y = g.scatter_along_add(x, index, x, axis=0)
    g.check(y, y)


def test_conditions_that_read_memory():
    g = Small()
    x, index = g.input(F32, 6, 6, 16), g.input(I64, 6, 6, 16)
    u = g.tanh(x)
    taken = g.add(u, g.take_along(u, index, axis=0))
    g.check(g.pad(taken, low=(0, 1, 0), high=(-3, -3, -1), interior=(0, 0, 0), value=0.0))


def test_a_sum_read_at_a_padded_position():
    g = Small()
    x = g.input(F32, 4, 4, 2)
    total = g.sum(g.exp(x), axes=(1,), keepdims=True)
    g.check(g.pad(total, high=(0, 1, 0), interior=(0, 1, 0), low=(0, 2, 0), value=0.0))


def test_a_quotient_by_numbers_from_memory_is_divided_again():
    g = Small()
    x, y = g.input(I64, 7, low=-90, high=90), g.input(I64, 7, low=1, high=9)
    q = g.floor_divide(x, y)
    g.check(g.floor_divide(q, Literal(4, I64)), g.bitwise_and(q, Literal(7, I64)), g.bitwise_and(x, Literal((1 << 63) - 1, I64)))


def test_integers_that_wrap_around():
    """What is exact for positions in an array is not for numbers from memory: (x * 8) // 8 is not x."""
    import ndarray as nd
    from hybrid import hybridize

    x = nd.array(np.array([2**62, -2**62, 2**63 - 1, -2**63, 5, -5, 2**61 + 3], np.int64))

    def f(x):
        return (
            (x * 8) // 8, (x * 8 + 3) // 8, x + 1 > x, (x * 3) % 3, (x + 1) // 2, nd.maximum(x + 1, x), (x * 6 + 4) // 2,
            (x * 2) == (x * 2 + 0), -x, abs(x), (x // 2) // 3, nd.maximum(x, 0) + 1 > 0,
        )

    for a in (x, x.astype("int32"), x.astype("uint8")):
        with np.errstate(all="ignore"):
            for got, want in zip(hybridize(f)(a), f(a)):
                np.testing.assert_array_equal(got.asnumpy(), want.asnumpy())


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_eager_error_function_up_to_one(dtype):
    from math import erf

    from ndarray.ops.error_function import erf as eager

    x = np.concatenate([np.linspace(-6, 6, 20_001), 1 - np.arange(500) * 6e-8]).astype(dtype)
    want = np.array([erf(v) for v in x])
    assert np.max(np.abs(eager(np, x) - want) / np.spacing(np.abs(want).astype(dtype))) <= 4


@pytest.mark.parametrize("index", ["int8", "uint8", "int64"])
def test_indices_that_are_short_or_far_away(index):
    from ndarray.op import OPS

    x, far = np.arange(300.0), np.array([0, 1, 120, 127], index)
    if index == "int64":
        far = np.array([0, -1, 2**62 + 5, -(2**62)], index)
    for mode, want in (("wrap", far.astype(object) % 300), ("clip", np.clip(far.astype(object), 0, 299))):
        want = want.astype(np.int64)
        np.testing.assert_array_equal(OPS["take"].eager(np, x, far, axis=0, mode=mode), x[want])
        added = OPS["scatter_add"].eager(np, x, far, np.ones(4), axis=0, mode=mode)
        expected = x.copy()
        np.add.at(expected, want, 1)
        np.testing.assert_array_equal(added, expected)


def test_an_empty_array_is_padded_within_a_reduction():
    g = Small()
    a, b, c, index = g.input(F32, 3, 0), g.input(F32, 3, 0), g.input(F32, 7, 2), g.input(I32, 7, 2, low=0, high=3)
    padded = g.pad(g.add(a, b), high=(0, 0), interior=(2, 2), low=(0, 2), value=0.0)
    g.check(g.max_unpool(g.add(c, padded), index, shape=(7, 8), kernel=(3,), padding=((0, 0),), stride=(3,)))


def test_a_product_of_a_loop_that_the_caches_cut_into_many_blocks():
    from jit.contraction import _blocks_of_step

    assert _blocks_of_step(200, 40, 13, 9, 5) == (13, 9)  # more blocks than tasks are wanted
    assert _blocks_of_step(8, 4, 1, 1, 8) != (1, 1)
