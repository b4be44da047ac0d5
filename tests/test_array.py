"""NDArray: construction, conversion, indexing, writes, operators, devices."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys

import numpy as np
import pytest

import ndarray as nd
from ndarray import autograd, indexing
from ndarray.apply import Frame, pop, switch
from ndarray.array import is_literal, literal, literal_value

_X = np.arange(24, dtype=np.float32).reshape(2, 3, 4)

BASIC = [
    0, -1, slice(None), slice(1, None), slice(None, None, -1), ..., None, (0, 1), (slice(None), 1), (..., 1), (1, ...),
    (slice(None), slice(None, None, 2)), (0, slice(None), slice(3, 0, -2)), (None, 0, None, ..., None),
    (slice(5, 9),), (slice(None), slice(2, 2)), (0, 0, 0), (slice(-1, None), -1),
    (slice(None), slice(-2, -1), slice(1, 4, 2)),
]
ADVANCED = [
    [1, 0], np.array([0, -1, 1]), (slice(None), [0, 2]), (..., [3, 0, 0]), (0, [1, 2]), ([0, 1], [1, 2]),
    ([0, 1], slice(None), [1, 2]), (slice(None), [0, 1], [1, 2]), (np.array([[0], [1]]), [0, 2]), ([], ),
    (slice(None), 1, [0, 2]), (None, [0, 1], slice(None), 2), (np.array(1), slice(None)), _X > 7, (0, _X[0] % 2 == 0),
    (slice(None), np.array([True, False, True])),
]


@pytest.mark.parametrize("index", BASIC + ADVANCED, ids=repr)
def test_getitem_eager_and_recorded_equal_numpy(index):
    x = nd.array(_X)
    expected = np.asarray(_X[index])
    got = x[index]
    assert got.shape == expected.shape
    np.testing.assert_array_equal(got.asnumpy(), expected)
    np.testing.assert_array_equal(indexing.get(x, index).asnumpy(), expected)
    x.attach_grad()
    with autograd.record():
        y = x[index]
    np.testing.assert_array_equal(y.asnumpy(), expected)
    y.backward()
    counts = np.zeros_like(_X)
    np.add.at(counts, index, 1)
    np.testing.assert_array_equal(x.grad.asnumpy(), counts)


@pytest.mark.parametrize("index", BASIC, ids=repr)
def test_basic_indexing_gives_views_and_setitem_writes(index):
    for value in (7.0, np.full(_X[index].shape, -1, np.float32)):
        x, expected = nd.array(_X), _X.copy()
        view = x[index]
        x[index] = value
        expected[index] = value
        np.testing.assert_array_equal(x.asnumpy(), expected)
        np.testing.assert_array_equal(view.asnumpy(), expected[index])
        updated = indexing.updated(nd.array(_X), nd.array(value, dtype="float32"), index)
        np.testing.assert_array_equal(updated.asnumpy(), expected)
        assert view._version == x._version == 1
        view[...] = 3
        expected[index] = 3
        np.testing.assert_array_equal(x.asnumpy(), expected)


@pytest.mark.parametrize("index", ADVANCED, ids=repr)
def test_advanced_setitem(index):
    x, expected = nd.array(_X), _X.copy()
    x[index] = 5
    expected[index] = 5
    np.testing.assert_array_equal(x.asnumpy(), expected)
    assert x[index]._storage is not x._storage


def test_index_with_arrays_of_ours():
    x = nd.array(_X)
    rows, mask = nd.array([1, 0]), x > 3
    np.testing.assert_array_equal(x[rows].asnumpy(), _X[[1, 0]])
    np.testing.assert_array_equal(x[mask].asnumpy(), _X[_X > 3])
    x[mask] = 0
    assert float(x.max()) == 3.0
    masked = indexing.updated(nd.array(_X), nd.array(0.0), nd.array(_X > 3))
    np.testing.assert_array_equal(masked.asnumpy(), x.asnumpy())
    with pytest.raises(IndexError, match="out of bounds"):
        indexing.get(x, ([0, 5],))
    with pytest.raises(IndexError):
        x[2]
    with pytest.raises(IndexError, match="too many"):
        indexing.get(x, (0, 0, 0, 0))


def test_creation_matches_numpy():
    assert nd.array([1.0, 2.0]).dtype == nd.float32
    assert nd.array([1, 2]).dtype == nd.int64
    assert nd.array(np.ones(2)).dtype == nd.float64
    assert nd.array([True]).dtype == nd.bool
    assert nd.array([nd.array(1.0), nd.array(2.0)]).shape == (2,)
    assert nd.array([]).shape == (0,)
    assert nd.zeros(3).shape == (3,)
    assert nd.ones((2, 3), dtype="int32").dtype == np.int32
    assert nd.full((2,), 7).dtype == nd.int64
    np.testing.assert_array_equal(nd.arange(2, 10, 3), np.arange(2, 10, 3))
    np.testing.assert_allclose(nd.linspace(0, 1, 5), np.linspace(0, 1, 5))
    np.testing.assert_array_equal(nd.eye(3, 4, 1), np.eye(3, 4, 1))
    np.testing.assert_array_equal(nd.tri(3), np.tri(3))
    with pytest.raises(TypeError, match="not supported"):
        nd.zeros(2, dtype="float31")
    with pytest.raises(TypeError, match="numbers"):
        nd.array(["a"])


class _Relay:
    """Stands for a tracer: not transparent, and runs everything below."""

    def process(self, frame, op, arrays, attrs):
        return frame.below.process(op, arrays, attrs)

    def write(self, frame, array, value, index):
        frame.below.write(array, value, index)


def test_creation_through_operations_is_the_same():
    from ndarray.apply import current

    makers = [
        lambda: nd.zeros((2, 3)), lambda: nd.ones(2, dtype="int32"), lambda: nd.full((2, 2), 2.5), lambda: nd.arange(5),
        lambda: nd.arange(7, 2, -2), lambda: nd.arange(0.0, 1.0, 0.3),  # 4 elements: rounded otherwise
        lambda: nd.eye(3, 2, -1), lambda: nd.tri(2, 4, 1),
        lambda: nd.empty((0, 2)), lambda: nd.random.uniform(shape=(3, 5)), lambda: nd.random.normal(shape=7),
        lambda: nd.random.uniform(-1, 1, (2,), "float64"),
    ]
    nd.random.seed(3)
    plain = [make() for make in makers]
    nd.random.seed(3)
    token = switch(Frame(_Relay(), current()))
    try:
        traced = [make() for make in makers]
    finally:
        pop(token)
    for a, b in zip(plain, traced):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a.asnumpy(), b.asnumpy(), rtol=0 if a.size != 4 else 1e-6)


def test_sharing_with_numpy_and_dlpack():
    host = np.zeros(3, np.float32)
    x = nd.from_numpy(host)
    x += 1
    assert host.tolist() == [1, 1, 1]
    assert x._storage.exported
    y = nd.array(host)
    y += 1
    assert host.tolist() == [1, 1, 1]
    assert np.shares_memory(np.asarray(x), host)
    assert not np.shares_memory(x.asnumpy(), host)
    back = np.from_dlpack(x)
    assert np.shares_memory(back, host)
    assert np.shares_memory(np.asarray(nd.from_dlpack(host)), host)
    read_only = np.zeros(3)
    read_only.flags.writeable = False
    nd.asarray(read_only)[0] = 1
    assert read_only[0] == 0
    assert np.asarray(x, dtype=np.float64).dtype == np.float64


def test_operators_follow_numpy():
    a, b = _X[0] + 1, _X[1]
    x, y = nd.array(a), nd.array(b)
    import operator as o

    for f in (o.add, o.sub, o.mul, o.truediv, o.floordiv, o.mod, o.pow, o.lt, o.le, o.gt, o.ge, o.eq, o.ne):
        for left, right, l_np, r_np in (
            (x, y, a, b), (x, 2, a, 2), (3.0, x, 3.0, a), (x, np.float32(2), a, np.float32(2)), (a, y, a, b),
            (x, y[0], a, b[0]), (x[1:1], y[1:1], a[1:1], b[1:1]),
        ):
            got = f(left, right)
            assert isinstance(got, nd.NDArray)
            expected = f(l_np, r_np)
            assert got.dtype == expected.dtype
            np.testing.assert_allclose(got.asnumpy(), expected, rtol=1e-6)
    np.testing.assert_allclose((x @ y.T).asnumpy(), a @ b.T)
    np.testing.assert_array_equal((-x).asnumpy(), -a)
    np.testing.assert_array_equal(abs(-x).asnumpy(), a)
    i = nd.array([1, 2, 3])
    assert (i / 2).dtype == nd.float32
    assert (i + 0.5).dtype == nd.float32
    assert (i + nd.array([0.5])).dtype == nd.float32
    assert ((i & 1) << 2).tolist() == [4, 0, 4]
    assert (~(i > 1)).tolist() == [True, False, False]
    assert (nd.array(2.0) + 1).shape == ()
    assert (nd.array([1.0, 0.0]) / nd.array([0.0, 0.0])).tolist()[0] == float("inf")  # silently, as compiled code
    assert (nd.array([1e38]) * 1e38).item() == float("inf")
    with pytest.raises(TypeError):
        x + "a"
    assert 2.0 in nd.array([1.0, 2.0])


def test_in_place_keeps_the_array_and_counts_writes():
    x = nd.array([1.0, 2.0])
    same = x
    x += 1
    x *= nd.array([2.0, 3.0])
    assert x is same
    assert x.tolist() == [4, 9]
    assert x._version == 2
    assert x._storage.where().startswith(__file__)
    with pytest.raises(ValueError, match="shape"):
        x += nd.ones((2, 2))
    i = nd.array([1, 2])
    with pytest.raises(TypeError, match="int64"):
        i += 0.5


def test_conversions():
    assert float(nd.array([2.5])) == 2.5
    assert int(nd.array(3)) == 3
    assert [10, 20, 30][nd.array(1)] == 20
    assert bool(nd.array([True]))
    with pytest.raises(ValueError, match="exactly one"):
        bool(nd.array([1, 2]))
    with pytest.raises(TypeError, match="index"):
        [1][nd.array(0.0)]
    assert len(nd.zeros((3, 2))) == 3
    assert [float(v) for v in nd.array([1.0, 2.0])] == [1.0, 2.0]
    assert nd.array([1.5]).astype("int32").tolist() == [1]
    assert repr(nd.array([1.0, 2.0])) == "array([1., 2.])"
    assert repr(nd.array([1.0, 2.0], dtype="float64", device=nd.cpu(1))) == "array([1., 2.], dtype=float64, device=cpu(1))"
    assert f"{nd.array(1.25):.1f}" == "1.2"
    assert hash(nd.array(1.0))
    x = nd.zeros(2, dtype=nd.bfloat16)
    assert (x + 1).dtype.name == "bfloat16"


def test_pickle_and_copies():
    x = nd.array([1.0, 2.0], device=nd.cpu(1))
    x.attach_grad("add")
    y = pickle.loads(pickle.dumps(x))
    assert y.device is nd.cpu(1)
    assert y.tolist() == [1, 2]
    assert y.grad.tolist() == [0, 0]
    z = copy.deepcopy(x)
    z += 1
    assert x.tolist() == [1, 2]
    assert x.copy().device is nd.cpu(1)
    w = nd.zeros(2)
    x.copyto(w)
    assert w.tolist() == [1, 2]


def test_devices():
    assert nd.cpu(1) is nd.cpu(1) is not nd.cpu(0)
    with nd.cpu(1):
        assert nd.zeros(1).device is nd.cpu(1)
        with nd.cpu(2):
            assert nd.current_device() is nd.cpu(2)
        assert nd.current_context() is nd.cpu(1)
    assert nd.current_device() is nd.cpu()
    a, b = nd.ones(2), nd.ones(2, ctx=nd.cpu(1))
    with pytest.raises(ValueError, match=r"add: .*x on cpu\(0\), y on cpu\(1\)"):
        a + b
    with pytest.raises(ValueError, match="to_device"):
        a[...] = b
    assert (a + b.as_in_context(a.device)).tolist() == [2, 2]
    if nd.num_gpus() == 0:
        with pytest.raises(nd.DeviceError, match=r"cuda13|CUDA can|GPUs"):
            nd.zeros(2, device=nd.gpu())
    with pytest.raises(ValueError, match="non-negative"):
        nd.cpu(-1)


def test_kernel_providers():
    from ndarray import device

    class Doubling(device.NumpyKernels):
        name, offers = "doubling", frozenset({"negative"})

        def run(self, op, arrays, attrs):
            return NotImplemented if arrays[0].ndim == 2 else arrays[0] * 2

    device._providers["doubling"] = Doubling()
    try:
        device.use_kernels("doubling", nd.cpu(3))
        assert set((-nd.ones(300_000, device=nd.cpu(3))).tolist()) == {2}
        assert set((-nd.ones((1, 300_000), device=nd.cpu(3))).reshape(-1).tolist()) == {-1}
        assert set((-nd.ones(300_000)).tolist()) == {-1}
        assert (-nd.ones(2, device=nd.cpu(3))).tolist() == [-1, -1], "small arrays are left to NumPy"
    finally:
        device.use_kernels("numpy", nd.cpu(3))
        del device._providers["doubling"]
    with pytest.raises(ValueError, match="known: compiled, jit, numpy"):
        device.use_kernels("none")
    assert device.numpy_kernels.total([np.ones(2), np.ones(2), np.ones(2)]).tolist() == [3, 3]


def test_promotion():
    from ndarray.dtypes import promote

    assert promote(nd.int64, nd.float32) == nd.float32
    assert promote(nd.bfloat16, nd.float16) == nd.float32
    assert promote(nd.bfloat16, nd.float64) == nd.float64
    assert promote(nd.int32, nd.uint8, nd.bool) == nd.int32
    assert promote(nd.float32, nd.complex64) == nd.complex64


def test_literals():
    value = literal(2, np.dtype(np.float32), nd.cpu())
    assert is_literal(value)
    assert not is_literal(nd.array(2.0))
    assert literal_value(value) == 2.0
    assert literal_value(value).dtype == np.float32


def test_settings(monkeypatch):
    from ndarray.settings import settings

    monkeypatch.setenv("HYBRID_DEBUG", "3")
    assert settings.debug == 3
    with settings(HYBRID_DEBUG=1, HYBRID_NUM_THREADS=2):
        assert (settings.debug, settings.num_threads) == (1, 2)
        with settings(HYBRID_CACHE_DIR=""):
            assert settings.cache_dir == ""
            assert settings.debug == 1
    assert settings.debug == 3
    monkeypatch.setenv("HYBRID_NUM_THREADS", "many")
    with pytest.raises(ValueError, match=r"environment variable HYBRID_NUM_THREADS is 'many'; expected an integer"):
        _ = settings.num_threads
    with pytest.raises(ValueError, match="the settings are"), settings(HYBRID_COLOUR=1):
        pass


def test_import_is_light():
    code = (
        "import sys, ndarray; heavy = {'scipy', 'llvmlite', 'ml_dtypes', 'safetensors', 'jit'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
