"""The short cuts of `ndarray.fast` do what the interpreters do: same results, same nodes, same gradients, same errors."""

from __future__ import annotations

import numpy as np
import pytest

import ndarray as nd
from ndarray import autograd
from ndarray.apply import apply
from ndarray.fast import BINARY, UNARY
from ndarray.op import NONDIFF, OPS


def arrays(name: str) -> list[np.ndarray]:
    return list(next(iter(OPS[name].samples())).arrays)


def gradients(function, values):
    xs = [nd.array(v) for v in values]
    for x in xs:
        x.attach_grad()
    with autograd.record():
        out = function(*xs)
        if out._node is None:
            return out.asnumpy(), None
        first = autograd.grad(out, xs, nd.ones_like(out) * 0.5, create_graph=True)
        total = sum(((g * g).sum() for g in first), nd.zeros(()))
    if total._node is not None:
        total.backward()
    return out.asnumpy(), [g.asnumpy() for g in first] + [x.grad.asnumpy() for x in xs]


@pytest.mark.parametrize("name", [*BINARY, *UNARY])
def test_same_results_and_gradients_as_the_interpreters(name):
    values = arrays(name)
    if values[0].dtype.kind != "f":
        found, want = getattr(nd, name)(*map(nd.array, values)), apply(OPS[name], *map(nd.array, values))
        np.testing.assert_array_equal(found.asnumpy(), want.asnumpy())
        return
    found, derived = gradients(getattr(nd, name), values)
    want, expected = gradients(lambda *xs: apply(OPS[name], *xs), values)
    np.testing.assert_array_equal(found, want)
    assert (derived is None) == (expected is None) == (OPS[name].vjp is NONDIFF)
    for a, b in zip(derived or (), expected or ()):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)


def test_numbers_beside_recorded_arrays():
    x = nd.array([1.0, 2.0, 4.0])
    x.attach_grad()
    with autograd.record():
        y = (2 - x) * 3.0 / (1 + x) + 8 / x - x**2 + x // 2 + 2.0**x
    y.backward()
    a = np.array([1.0, 2.0, 4.0])
    np.testing.assert_allclose(y.asnumpy(), (2 - a) * 3 / (1 + a) + 8 / a - a**2 + a // 2 + 2**a, rtol=1e-6)
    np.testing.assert_allclose(x.grad.asnumpy(), -9 / (1 + a) ** 2 - 8 / a**2 - 2 * a + np.log(2) * 2**a, rtol=1e-5)
    with pytest.raises(OverflowError):
        nd.array([1], dtype="uint8") + 300
    assert (nd.array([1, 2]) + 1.5).dtype == np.float32 and (True + nd.array([1, 2])).tolist() == [2, 3]


def test_what_is_kept_is_watched():
    x, y = nd.array([1.0, 2.0]), nd.array([3.0, 4.0])
    x.attach_grad()
    with autograd.record():
        z = x * y
    y[0] = 7.0
    with pytest.raises(RuntimeError, match=r"argument 'y' of multiply.*test_fast\.py"):
        z.backward()
    with autograd.record():
        z = nd.exp(x)
    z[:] = 0
    with pytest.raises(RuntimeError, match=r"the result of exp.*test_fast\.py"):
        z.backward()
    with autograd.record():
        y = x + 1
        y.detach()[:] = 0
        with pytest.raises(RuntimeError, match=r"test_fast\.py.*shares it"):
            y * 2


def test_errors_are_those_of_the_functions():
    for function in (lambda a, b: a + b, nd.add):
        with pytest.raises(ValueError, match="add: shapes of the arguments"):
            function(nd.ones(2), nd.ones(3))
    with pytest.raises(TypeError, match="subtract"):
        nd.array([True]) - nd.array([True])
    with pytest.raises(TypeError):
        nd.ones(2) + "a"
    with np.errstate(all="raise"):
        assert (nd.ones(2) / nd.zeros(2)).tolist() == [np.inf, np.inf] and nd.log(nd.zeros(1)).tolist() == [-np.inf]
