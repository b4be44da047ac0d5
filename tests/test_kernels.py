"""Eager work on large arrays through compiled kernels: the same values, compiled at the second
call, never against the settings."""

from __future__ import annotations

import numpy as np
import pytest

import ndarray as nd
from jit import kernels
from jit.backend import backend
from ndarray import autograd, device
from ndarray.op import OPS
from ndarray.settings import settings
from ndarray.testing import assert_close

EXACT = {"abs", "add", "subtract", "multiply", "divide", "sqrt", "maximum", "minimum", "negative", "relu", "where", "cast",
         "equal", "not_equal", "less", "less_equal", "greater", "greater_equal"}
RANDOM = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    """A provider that has met nothing."""
    provider = kernels.CompiledKernels()
    monkeypatch.setitem(device._providers, "compiled", provider)
    return provider


def programs(provider) -> int:
    return sum(not isinstance(p, int) for p in provider._programs.values())


def three_times(function):
    """The results of the first call (NumPy's), of the second and of the third."""
    return [function().asnumpy() for _ in range(3)]


@pytest.mark.parametrize("name", sorted(device.ELEMENTWISE))
def test_elementwise(name, fresh):
    op = OPS[name]
    low = 0.1 if name in ("log", "log1p", "sqrt") else -3.0
    arrays = [nd.array(RANDOM.uniform(low, 3.0, (519, 521)).astype("float32")) for _ in op.arguments]
    attrs = {"dtype": np.dtype("float64")} if name == "cast" else {}
    if name == "where":
        arrays[0] = nd.array(arrays[1].asnumpy() > 0)
    first, second, third = three_times(lambda: nd.functions.primitive(op, *arrays, **attrs))
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(second, third)
    with settings(HYBRID_EAGER_KERNELS=0):
        want = nd.functions.primitive(op, *arrays, **attrs).asnumpy()
    if name in EXACT:
        np.testing.assert_array_equal(first, want)
    assert_close(first, want)
    assert programs(fresh) == 1
    smaller = [a[:510] for a in arrays]
    assert_close(nd.functions.primitive(op, *smaller, **attrs), first[:510])
    assert programs(fresh) == 1, "one program for any size"


def test_numbers_beside_and_arrays_that_dont_fit(fresh):
    x = nd.array(RANDOM.standard_normal((700, 701)).astype("float32"))
    for _ in range(3):
        np.testing.assert_array_equal((x * 2.5 - 1).asnumpy(), x.asnumpy() * np.float32(2.5) - 1)
        np.testing.assert_array_equal((1 - x).asnumpy(), 1 - x.asnumpy())
        np.testing.assert_array_equal((x + x[:, :1]).asnumpy(), x.asnumpy() + x.asnumpy()[:, :1])
        np.testing.assert_array_equal((x.T + x.T).asnumpy(), x.asnumpy().T * 2)
        np.testing.assert_array_equal((x[::2] + x[::2]).asnumpy(), x.asnumpy()[::2] * 2)
        half = x.astype("float16")
        np.testing.assert_array_equal((half + half).asnumpy(), half.asnumpy() * 2)
        np.testing.assert_array_equal((nd.exp(nd.ones((0, 5)))).asnumpy(), np.ones((0, 5)))
    x.attach_grad()
    with autograd.record():  # a result owns its memory: it may be written where a gradient flows
        y = x * 3.0
        y[0] = x[1]
    y.backward()
    assert x.grad[:3, 0].tolist() == [0, 4, 3]


def conv(x, w, stride=1, pad=1, groups=1):
    return nd.functions.primitive("convolution", x, w, stride=(stride, stride), padding=((pad, pad),) * 2, dilation=(1, 1),
                                  groups=groups)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", [(1, 1, 1), (2, 1, 1), (1, 0, 2), (2, 2, 4)])
def test_convolution_and_its_gradients(case, dtype, fresh):
    stride, pad, groups = case
    x = nd.array(RANDOM.standard_normal((9, 8, 20, 19)).astype(dtype))
    w = nd.array(RANDOM.standard_normal((12, 8 // groups, 3, 3)).astype(dtype))
    x.attach_grad()
    w.attach_grad()

    def step():
        with autograd.record():
            y = conv(x, w, stride, pad, groups)
            loss = (y * y).sum()
        loss.backward()
        return [v.asnumpy() for v in (y, x.grad, w.grad)]

    first, second, third = step(), step(), step()
    for a, b, c in zip(first, second, third):
        assert_close(b, a, 20)
        np.testing.assert_array_equal(b, c)
    with settings(HYBRID_NUM_THREADS=1):
        for b, c in zip(second, step()):
            np.testing.assert_array_equal(b, c)
    count = programs(fresh)
    assert count >= 3
    assert_close(conv(x[:7], w, stride, pad, groups), first[0][:7], 20)
    assert programs(fresh) == count, "one program for any number of images"


@pytest.mark.parametrize("kind", ["max", "avg"])
def test_pooling(kind, fresh):
    x = nd.array(RANDOM.integers(-5, 5, (8, 16, 24, 25)).astype("float32"))
    x.attach_grad()

    def step():
        with autograd.record():
            y = getattr(nd, f"{kind}_pool")(x, (3, 3), (2, 2), 1)
            loss = (y * y).sum()
        loss.backward()
        return [v.asnumpy() for v in (y, x.grad)]

    first, second = step(), step()
    assert programs(fresh) == 2
    for a, b in zip(first, second):
        assert_close(b, a, 8)
    if kind == "max":
        np.testing.assert_array_equal(first[0], second[0])


def test_batched_products_and_plain_ones(fresh):
    x, y = (nd.array(RANDOM.standard_normal(s).astype("float32")) for s in ((40, 70, 33), (40, 33, 65)))
    first, second, third = three_times(lambda: x @ y)
    assert programs(fresh) == 1
    assert_close(second, first, 10)
    np.testing.assert_array_equal(second, third)
    a = nd.array(RANDOM.standard_normal((300, 300)))
    three_times(lambda: a @ a)
    assert programs(fresh) == 1, "NumPy's products of matrices are as fast"


def test_total(fresh):
    arrays = [RANDOM.standard_normal((300, 1000)).astype("float32") for _ in range(4)]
    want = device.numpy_kernels.total(arrays)
    for _ in range(3):
        np.testing.assert_array_equal(device.deferred_kernels.total(arrays), want)
        out = np.empty_like(want)
        assert device.deferred_kernels.total(arrays, out) is out
        np.testing.assert_array_equal(out, want)
        first = arrays[0].copy()
        np.testing.assert_array_equal(device.deferred_kernels.total([first, *arrays[1:]], first), want)
    assert programs(fresh) == 1


def test_nothing_is_compiled_for_small_arrays_or_against_the_setting(fresh):
    before = backend.statistics.compilations + backend.statistics.disk_hits
    small, large = nd.ones((16, 16)), nd.ones((1000, 1000))
    for _ in range(4):
        nd.exp(small), conv(nd.ones((2, 3, 8, 8)), nd.ones((4, 3, 3, 3)))
    with settings(HYBRID_EAGER_KERNELS=0):
        three_times(lambda: nd.exp(large))
    device.use_kernels("numpy", nd.cpu(5))
    other = nd.ones((1000, 1000), device=nd.cpu(5))
    three_times(lambda: nd.exp(other))
    assert backend.statistics.compilations + backend.statistics.disk_hits == before and programs(fresh) == 0


def test_where_compiling_fails_numpy_computes(fresh, monkeypatch, caplog):
    def broken(*_):
        raise RuntimeError("no")

    monkeypatch.setattr(kernels, "_compile", broken)
    x = nd.ones((1000, 1000))
    for _ in range(3):
        assert nd.exp(x).asnumpy()[0, 0] == np.exp(np.float32(1))
    assert len([r for r in caplog.records if "no compiled kernel for exp (RuntimeError: no)" in r.message]) == 1
