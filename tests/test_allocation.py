"""Arrays of our own begin at multiples of 64 bytes; what shares memory, and how, is as it was."""

import copy
import pickle

import numpy as np
import pytest

import ndarray as nd
from hybrid import hybridize
from hybrid.parameter import Parameter
from ndarray import allocation, autograd
from ndarray.allocation import ALIGNED_BYTES, ALIGNMENT
from ndarray.array import wrap

LARGE = (65, 67)  # of float32: more than ALIGNED_BYTES


def address(x):
    return (x._data if isinstance(x, nd.NDArray) else x).ctypes.data


def is_aligned(x):
    return address(x) % ALIGNMENT == 0


def beside_a_line(values):
    """A copy of NumPy's own that does not begin at a cache line, whatever NumPy does."""
    raw = np.empty(values.nbytes + 128, np.uint8)
    skip = -raw.ctypes.data % 64 + 16
    out = raw[skip : skip + values.nbytes].view(values.dtype).reshape(values.shape)
    out[...] = values
    return out


@pytest.fixture
def values():
    return beside_a_line(np.random.default_rng(1).standard_normal(LARGE).astype(np.float32))


@pytest.mark.parametrize("make", [
    lambda a: nd.array(a),
    lambda a: nd.array(a.tolist()),
    lambda a: nd.array(a, dtype="float64"),
    lambda a: nd.array(a.T),
    lambda a: nd.from_numpy(a, zero_copy=False),
    lambda a: nd.zeros(a.shape),
    lambda a: nd.ones(a.shape),
    lambda a: nd.full(a.shape, 3),
    lambda a: nd.empty(a.shape),
    lambda a: nd.zeros_like(nd.from_numpy(a)),
    lambda a: nd.from_numpy(a).copy(),
    lambda a: nd.from_numpy(a).astype("float64"),
    lambda a: nd.from_numpy(a).to_device(nd.cpu(1)),
    lambda a: copy.deepcopy(nd.from_numpy(a)),
])
def test_arrays_that_are_made_begin_at_a_cache_line(make, values):
    assert values.nbytes > ALIGNED_BYTES
    kept = [make(values) for _ in range(5)]  # one alone might lie there by chance
    assert all(map(is_aligned, kept))
    assert len({x._data.base is not None and id(x._data.base) for x in kept}) == 5  # bytes of its own for each


def test_values_dtypes_and_order_are_those_of_numpy(values):
    converted = [values.astype(kind) for kind in (np.int16, ">f4", complex)]
    for data in (values, values.T, values[::2, ::-1], values > 0, *converted):
        for dtype in (None, *map(np.dtype, (np.float64, np.int32, np.bool_))):
            if data.dtype.kind == "c" and dtype:
                continue
            found, expected = allocation.array(data, dtype), np.array(data, dtype, order="C")
            assert found.dtype == expected.dtype and found.flags.c_contiguous and found.flags.writeable
            np.testing.assert_array_equal(found, expected)
    assert not nd.zeros(LARGE)._data.any() and (nd.full(LARGE, 2.5)._data == 2.5).all()
    transposed = nd.from_numpy(values).T.astype("float64")
    assert transposed._data.strides == values.T.astype(np.float64).strides


@pytest.mark.parametrize("shape", [(-1, -(1 << 20)), (1 << 13, 2.0), (-(1 << 20),)])
def test_bad_shapes_are_refused_as_by_numpy(shape):
    with pytest.raises((ValueError, TypeError)):
        nd.empty(shape)


def test_sizes_of_numpys_integers_do_not_overflow():
    assert allocation.zeros((np.int32(1 << 15), np.int32(1)), np.dtype(np.uint8)).shape == (1 << 15, 1)
    with np.errstate(over="ignore"), pytest.raises((MemoryError, ValueError)):
        allocation.empty((np.int32(1 << 30),) * 3, np.dtype(np.uint8))


def test_small_arrays_are_numpys_own():
    for x in (nd.zeros((3,)), nd.array([1.0, 2.0]), nd.array(np.ones(3)), nd.zeros(()), nd.zeros((0, 5))):
        assert x._data.base is None


def test_memory_of_users_is_shared_as_before(values):
    shared = nd.from_numpy(values)
    assert address(shared) == values.ctypes.data
    shared[0, 0] = 7
    assert values[0, 0] == 7
    assert address(nd.from_dlpack(values)) == values.ctypes.data
    mine = nd.array(values)
    assert np.shares_memory(np.asarray(mine), mine._data) and not np.shares_memory(mine._data, values)
    assert address(nd.from_dlpack(mine)) == address(mine) == np.from_dlpack(mine).ctypes.data
    assert not np.shares_memory(mine.asnumpy(), mine._data)


def test_views_count_their_writes_with_the_array_and_copies_do_not():
    x = nd.ones(LARGE)
    for view in (x[1:], x.reshape(-1), x.T, x[2:].reshape(-1)[3:], x[0]):
        before = x._version
        view[0] = 2
        assert x._version == before + 1 and np.shares_memory(view._data, x._data)
    for other in (x.copy(), x.astype("float32"), nd.array(x), x + 1, x.T.reshape(-1)):
        before = x._version
        other[0] = 3
        assert x._version == before and not np.shares_memory(other._data, x._data)


def test_a_write_through_a_view_is_found_in_the_backward_pass():
    x = nd.ones(LARGE)
    x.attach_grad()
    with autograd.record():
        y = x.copy()
        z = y * y
    y.reshape(-1)[5:][0] = 4
    with pytest.raises(RuntimeError, match="written"):
        z.backward()


def test_pickles_and_files_keep_the_values(values, tmp_path):
    x = nd.array(values)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(x)).asnumpy(), values)
    for name in ("a.npz", "a.safetensors", "a.params"):
        nd.save(str(tmp_path / name), {"x": x, "y": x[1:]})
        found = nd.load(str(tmp_path / name))
        np.testing.assert_array_equal(found["x"].asnumpy(), values)
        np.testing.assert_array_equal(found["y"].asnumpy(), values[1:])
        assert all(map(is_aligned, found.values()))


def test_parameters_and_their_gradients_are_aligned(values):
    p = Parameter(shape=LARGE)
    p.initialize(init="normal")
    assert is_aligned(p.data()) and is_aligned(p.grad())
    p.set_data(values)
    assert is_aligned(p.data())
    p.set_data(values, copy=False)
    assert address(p.data()) == values.ctypes.data


def test_results_of_programs_are_aligned_and_apart(values):
    @hybridize
    def both(x):
        return x * 2, nd.matmul(x.T, x)

    x = nd.from_numpy(values)
    for _ in range(3):
        results = both(x)
        assert all(map(is_aligned, results))
    np.testing.assert_allclose(results[0].asnumpy(), values * 2)
    np.testing.assert_allclose(results[1].asnumpy(), values.T @ values, rtol=1e-4, atol=1e-4)


def test_a_program_that_writes_notices_views_of_one_array():
    @hybridize
    def step(x, y):
        x[...] = x + y.reshape(-1)[0]
        return y * 1

    x = nd.ones(LARGE)
    result = step(x, x)  # one array as both
    assert (x._data == 2).all() and (result._data == 2).all()
    x = nd.ones(LARGE)
    step(x, x[:])  # another array on the same memory
    assert (x._data == 2).all()
    other = wrap(x._data.reshape(-1).reshape(LARGE), x.device)
    assert other._data.base is x._data.base
    step(x, other)
    assert (x._data == 4).all()


def test_large_eager_results_come_in_the_arguments_shape():
    x = nd.ones((3, 1 << 17))
    y = nd.exp(x)
    assert y.shape == x.shape and is_aligned(y)
    y[1:] = 0
    assert y._data[0].all() and not y._data[1:].any()
