"""Arrays of NumPy and of this package together: ufuncs, other functions, operators, memory, pickling, printing."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import ndarray as nd
from ndarray import autograd
from ndarray.testing import assert_close


@pytest.fixture
def x() -> nd.NDArray:
    return nd.array([1.0, 2.0, 3.0])


def test_ufuncs_are_this_packages_functions(x: nd.NDArray) -> None:
    for found, want in (
        (np.exp(x), np.exp([1, 2, 3])), (np.add(x, 1), [2, 3, 4]), (np.add(1, x), [2, 3, 4]), (np.ones(3,
        np.float32) * x, [1, 2, 3]),
        (np.float32(2) * x, [2, 4, 6]), (np.ones((2, 3), np.float32) @ x, [6, 6]), (np.add.reduce(x), 6),
        (np.maximum.reduce(x), 3),
        (np.multiply.accumulate(x), [1, 2, 6]), (np.subtract.outer(x, x)[0], [0, -1, -2]), (np.hypot(x, x),
        np.hypot([1, 2, 3], [1, 2, 3])),
        (np.spacing(x), np.spacing(np.float32([1, 2, 3]))),
    ):
        assert isinstance(found, nd.NDArray)
        assert_close(found, np.asarray(want, np.float32))
    fraction, whole = np.modf(nd.array([1.5]))
    assert (fraction.item(), whole.item()) == (0.5, 1.0)
    assert np.add(x, 1, dtype="float64").dtype == np.float64
    assert (np.ones(3) + x).dtype == np.float64


def test_results_into_given_memory(x: nd.NDArray) -> None:
    a = np.ones(3)
    a += x
    assert isinstance(a, np.ndarray) and a.tolist() == [2, 3, 4]
    assert np.multiply(x, 2, out=a) is a and a.tolist() == [2, 4, 6]
    np.add(x, 1, out=x)
    assert x.tolist() == [2, 3, 4]
    np.add.at(x, [0, 0], 10.0)
    assert x.tolist() == [22, 3, 4]
    a[:2] = x[:2]
    assert a.tolist() == [22, 3, 6]


def test_other_functions(x: nd.NDArray) -> None:
    raw = np.float32([1, 2, 3])
    for f in (np.sum, np.mean, np.std, np.median, np.sort, np.argsort, np.cumsum, np.ravel, np.flip, np.diff, np.linalg.norm,
    np.fft.rfft,
              np.zeros_like, np.round, np.max, np.unique, np.isnan, np.vander, np.gradient, np.trapezoid, np.flatnonzero, np.cov,
              lambda v: np.concatenate([v, raw]), lambda v: np.stack([v, v]), lambda v: np.where(v > 1, v, 0),
              lambda v: np.clip(v, 1, 2),
              lambda v: np.einsum("i,i->", v, v), lambda v: np.dot(v, raw),
              lambda v: np.interp(v, [0, 5], [0, 10]).astype("float32"),
              lambda v: np.pad(v, 1), lambda v: np.take(v, [0, -1]), lambda v: np.broadcast_to(v, (2, 3)),
              lambda v: np.outer(v, raw),
              lambda v: np.percentile(v, 50), lambda v: np.tile(v, 2), lambda v: np.full_like(v, 7), lambda v: np.sum(v, axis=0),
              lambda v: np.linalg.solve(np.eye(3, dtype=np.float32), v), lambda v: np.array_split(v, 2)[0]):
        found = f(x)
        assert isinstance(found, nd.NDArray), f
        assert_close(found, np.asarray(f(raw)).astype(found.dtype), 4)
    assert np.shape(x) == (3,) and np.ndim(x) == 1 and np.allclose(x, raw) and np.array_equal(x, [1, 2, 3])
    assert isinstance(np.digitize(x, np.array([1.5, 2.5])), nd.NDArray)
    assert np.shares_memory(x, np.asarray(x))
    np.testing.assert_allclose(x, raw)
    a = np.zeros(3, np.float32)
    np.copyto(a, x)
    assert a.tolist() == [1, 2, 3]
    assert np.sum(x, axis=0, out=np.zeros(())) == 6
    assert np.piecewise(raw, [raw > 1], [1, 0]).tolist() == [0, 1, 1]


def test_gradients_flow_through_numpys_functions(x: nd.NDArray) -> None:
    x.attach_grad()
    with autograd.record():
        y = np.sum(np.exp(x) * np.float32([1, 2, 3]))
    y.backward()
    assert_close(x.grad, np.exp(np.float32([1, 2, 3])) * np.float32([1, 2, 3]))
    with autograd.record(), pytest.raises(TypeError, match=r"numpy\.spacing has no equivalent here"):
        np.spacing(x * 1)


def test_python_protocols(x: nd.NDArray) -> None:
    assert len(x) == 3 and [v.item() for v in x] == [1, 2, 3] and 2.0 in x and 5.0 not in x
    assert (x == [1, 0, 3]).tolist() == [True, False, True] and (x + [1, 1, 1]).tolist() == ([1, 1, 1] + x).tolist() == [2, 3, 4]
    assert divmod(x, 2)[1].tolist() == [1, 0, 1] and divmod(7, x)[0].tolist() == [7, 3, 2]
    assert f"{nd.array(2.5):.2f}" == "2.50" and float(nd.array(2.5)) == 2.5 and round(float(x[1])) == 2
    for made in (pickle.loads(pickle.dumps(x)), copy.copy(x), copy.deepcopy(x)):
        assert made is not x and made.tolist() == x.tolist() and made.dtype == x.dtype
    with pytest.raises(ValueError, match=r"bool\(\) of an array with 3 elements"):
        bool(x > 1)
    z = nd.array([1 + 2j])
    assert z.real.item() == 1 and z.imag.item() == 2 and x.real is x and x.imag.tolist() == [0, 0, 0]
    x.fill(4)
    assert x.tolist() == [4, 4, 4] and x.tobytes() == np.full(3, 4, np.float32).tobytes()


def test_lists_of_arrays_keep_their_gradients(x: nd.NDArray) -> None:
    x.attach_grad()
    with autograd.record():
        y = (nd.array([x.sum(), 2 * x[0]]) * nd.array([1.0, 10.0])).sum()
    y.backward()
    assert x.grad.tolist() == [21, 1, 1]


def test_printing() -> None:
    assert repr(nd.array([[1.0, 2.5], [3.0, 4.0]])) == "array([[1. , 2.5],\n       [3. , 4. ]])"
    assert repr(nd.array([1, 2])) == "array([1, 2])" and repr(nd.array([True])) == "array([ True])"
    assert repr(nd.array([1, 2], dtype="int32")) == "array([1, 2], dtype=int32)"
    assert repr(nd.zeros((0, 3))) == "array([], shape=(0, 3), dtype=float32)" and repr(nd.array(3.0)) == "array(3.)"
    assert str(nd.array([1.0, 2.0])) == "[1. 2.]"
    assert "..." in repr(nd.arange(5000))
