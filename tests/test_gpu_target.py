"""Lowerings for a GPU's target, interpreted: the same results, and vectors of one length in each kernel."""

import numpy as np
import pytest

from hybrid.graph import Builder
from jit.contract import lower_contraction, plain_sink, plain_source
from jit.cuda.target import gpu_target
from jit.interpret import run_launches
from jit.launch import Storage
from jit.loopir import Apply, Load, walk_exprs, walk_statements
from jit.lower import lower
from ndarray.dims import product, symbol
from ndarray.op import OPAQUE, OPS, Template
from tests.test_attention import SHAPES, lowered
from tests.test_contract import (
    convolution_reference,
    data_gradient_reference,
    dot_reference,
    out_size,
    weight_gradient_reference,
)
from tests.test_convolution_kernels import CASES, last
from tests.test_fuse import Maker
from tests.test_lower import ArrayTypeOf, check, normal, softmax

GPU = gpu_target("sm_90")
rng = np.random.default_rng(3)


def lengths(kernel):
    """The lengths of all vectors in a kernel."""
    found = set()
    for s in walk_statements(kernel.body):
        for name in ("value", "index", "mask", "condition", "start", "stop"):
            e = getattr(s, name, None)
            for x in walk_exprs(e) if e is not None else ():
                found.add(x.type.lanes)
                assert not (isinstance(x, Apply) and x.op in ("interleave", "even", "odd", "concat")), x
                assert not isinstance(x, Load) or x.type.lanes == 1 or x.index.type.lanes in (1, x.type.lanes)
    return found - {1}


def one_length(launches):
    """Every kernel has vectors of one length, a power of two warps."""
    for launch in launches:
        assert len(lengths(launch.kernel)) <= 1 and lengths(launch.kernel) <= {32, 64, 128, 256, 512, 1024}, str(launch.kernel)


@pytest.mark.parametrize("name", [n for n in OPS if OPS[n].lower is not OPAQUE])
def test_every_op_on_its_samples(name):
    op = OPS[name]
    if isinstance(op.lower, Template) and not op.lower.name.startswith("scatter"):
        pytest.skip("contractions have tests of their own")
    for number, sample in enumerate(s for s in op.samples() if s.error is None):
        if number % 3 and number > 3:
            continue
        m = Builder()
        arrays = [np.asarray(a) for a in sample.arrays]
        inputs = [m.input(ArrayTypeOf(a)) for a in arrays]
        exact = any(a.dtype == np.float32 for a in arrays)
        found = check(m.build(m.emit(op, *inputs, **sample.attrs)), arrays, target=GPU, tolerance=2e-5 if exact else 1e-9)
        one_length(found.launches)


@pytest.mark.parametrize(("shape", "axes"), [((5, 37), (1,)), ((37, 21), (0,)), ((3, 7, 21), (1,)), ((2, 3000), (1,)),
                                             ((3, 4, 5), (0, 2)), ((64, 40), (0,))])
def test_softmax(shape, axes):
    m = Maker()
    one_length(check(m.build([softmax(m, m.array(*shape), axes)]), [normal(*shape)], target=GPU).launches)


def test_few_long_rows_are_folded_by_a_block():
    m = Maker()
    found = check(m.build([softmax(m, m.array(2, 9000), (1,))]), [normal(2, 9000)], kernels=1, target=GPU)
    assert lengths(found.launches[0].kernel) == {1024}


@pytest.mark.parametrize("shape", [(70000,), (3, 20000), (20, 70000)])
def test_long_sums_have_pieces(shape):
    m = Maker()
    x = m.array(*shape)
    graph = m.build([m.sum(x, axes=tuple(range(len(shape)))), m.max(m.multiply(x, x), axes=tuple(range(len(shape))))])
    found = check(graph, [normal(*shape)], target=GPU, tolerance=1e-4)
    one_length(found.launches)
    assert found.launches[0].tasks > 1


def test_position_of_the_largest_of_many():
    m = Maker()
    x = m.array(40000)
    a = normal(40000)
    a[[100, 9000, 35000]] = 9.0
    one_length(check(m.build([m.argmax(x, axis=0, keepdims=False)]), [a], target=GPU).launches)


@pytest.mark.parametrize("shape", [(300, 70), (1000, 33), (40, 3, 65), (7, 200)])
def test_columns(shape):
    m = Maker()
    x = m.array(*shape)
    axes = tuple(range(len(shape) - 1))
    one_length(check(m.build([m.sum(x, axes=axes), m.max(x, axes=axes)]), [normal(*shape)], target=GPU, tolerance=1e-4).launches)


@pytest.mark.parametrize("size", [1, 33, 70])
def test_symbolic_sizes(size):
    n = symbol("n", 8)
    m = Maker()
    x = m.array(n, 40)
    graph = m.build([softmax(m, x, (1,)), m.sum(x, axes=(0,)), m.sum(x, axes=(0, 1))])
    one_length(check(graph, [normal(size, 40)], target=GPU, n=size).launches)


def contract(op, x, y, shape, attrs):
    storages = [Storage(a.dtype.name, a.size) for a in (x, y)] + [Storage(x.dtype.name, product(shape))]
    sources = [plain_source(s, a.shape) for s, a in zip(storages, (x, y))]
    launches = lower_contraction(op, attrs, sources, plain_sink(storages[2], shape), GPU)
    one_length(launches)
    memory = {storages[0]: x.ravel(), storages[1]: y.ravel()}
    run_launches(launches, memory, {})
    return memory[storages[2]].reshape(shape)


@pytest.mark.parametrize(("m", "n", "k"), [(1, 1, 1), (3, 40, 5), (17, 70, 33), (1, 50, 100), (40, 3, 80), (9, 33, 0)])
@pytest.mark.parametrize("contracted", [(1, 0), (1, 1), (0, 0), (0, 1)])
def test_products(m, n, k, contracted):
    x = normal(*((m, k) if contracted[0] else (k, m)))
    y = normal(*((n, k) if contracted[1] else (k, n)))
    attrs = {"contract": ((contracted[0],), (contracted[1],)), "batch": ((), ())}
    want = dot_reference(x, y, *attrs.values())
    np.testing.assert_allclose(contract("dot_general", x, y, want.shape, attrs), want, rtol=1e-5, atol=1e-5)


def test_products_of_batches():
    x, y = normal(3, 9, 20), normal(3, 40, 20)
    attrs = {"contract": ((2,), (2,)), "batch": ((0,), (0,))}
    want = dot_reference(x, y, *attrs.values())
    np.testing.assert_allclose(contract("dot_general", x, y, want.shape, attrs), want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("number", [n for n in range(len(CASES)) if n not in (4, 5)])  # those are large
def test_convolutions(number):
    shape, outputs, kernel, stride, padding, dilation, groups = CASES[number]
    rules = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    w_shape = (outputs, shape[1] // groups, *kernel)
    out = (shape[0], outputs, *(out_size(*a) for a in zip(shape[2:], kernel, stride, padding, dilation)))
    x, w, g = (normal(*s) for s in (shape, w_shape, out))
    close = lambda got, want: np.testing.assert_allclose(got, want, atol=2e-6 * (np.abs(want).max() + 1))
    got = contract("convolution_channels_last", last(x), w, last(g).shape, rules)
    close(np.moveaxis(got, -1, 1), convolution_reference(x, w, **rules))
    got = contract("convolution_data_gradient_channels_last", last(g), w, last(x).shape, {"shape": last(x).shape, **rules})
    close(np.moveaxis(got, -1, 1), data_gradient_reference(g, w, shape, **rules))
    got = contract("convolution_weight_gradient_channels_last", last(x), last(g), w_shape, {"shape": w_shape, **rules})
    close(got, weight_gradient_reference(x, g, w_shape, **rules))


@pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
def test_attention(backward):
    for shape in SHAPES[:5]:
        for mask, causal in ((None, False), (None, True), ("bool", True), ("added", False)):
            launches, storages, arrays, results, want, sizes = lowered(shape, mask, backward, causal, GPU)
            one_length(launches)
            memory = {s: a.reshape(-1) for s, a in zip(storages, arrays)}
            run_launches(launches, memory, sizes)
            for storage, expected in zip(results, want):
                if expected.size:
                    np.testing.assert_allclose(memory[storage].reshape(expected.shape), expected, 2e-5, 2e-5)


def test_tasks_are_many():
    """A large elementwise kernel, a long sum and a product occupy all multiprocessors."""
    m = Maker()
    x, y = m.array(1 << 22), m.array(2048, 2048)
    found = lower(m.build([m.exp(x), m.sum(x, axes=(0,)), m.exp(m.sum(y, axes=(0,)))]), GPU)
    assert all(x.tasks >= 1000 or "fold" in x.kernel.name for x in found.launches)


def test_a_scatter_has_tasks_along_the_axis_too():
    m = Maker()
    base, index, updates = m.array(1000, 70), m.array(300, dtype=np.int64), m.array(300, 70)
    at = rng.integers(0, 1000, 300)
    at[::7] = 999
    found = check(m.build([m.scatter_add(base, index, updates, axis=0, mode="clip")]), [normal(1000, 70), at, normal(300, 70)],
                  target=GPU)
    one_length(found.launches)
    assert found.launches[0].tasks == 3 * 16
