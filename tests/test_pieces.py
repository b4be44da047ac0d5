"""Concatenations of several parts, each of which gets a loop of its own (jit/pieces.py)."""

import numpy as np
import pytest

import ndarray as nd
from hybrid import hybridize
from ndarray import autograd


def draw(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def check(function, *arrays, cut=True):
    """Compiled results equal NumPy's bit for bit (nothing here rounds); whether the kernel was cut into pieces."""
    compiled = hybridize(lambda *xs: function(nd, *xs))
    inputs = [nd.array(a) for a in arrays]
    found = compiled(*inputs)
    expected = function(np, *arrays)
    for a, b in zip(found if isinstance(found, tuple) else (found,), expected if isinstance(expected, tuple) else (expected,)):
        np.testing.assert_array_equal(a.asnumpy(), b)
    assert (" pieces " in str(compiled.explain(*inputs))) is cut


@pytest.mark.parametrize("axis", [1, 2, -1])
def test_slices_of_many_lengths(axis):
    x = draw(5, 19, 21)
    check(lambda m, x: m.concatenate([x[:, :k, :7] if axis == 1 else x[:, :7, :k] for k in (3, 1, 16, 0, 17, 5)], axis=axis), x)


def test_parts_are_computed_where_they_are_joined():
    table, ids = draw(11, 6), np.random.default_rng(1).integers(0, 11, (4, 9))
    check(lambda m, t, i: m.stack([m.take(t, i[k], axis=0) * (k + 1) for k in range(4)], axis=1), table, ids)


def test_what_follows_is_fused():
    x, y = draw(6, 5), draw(6, 23, seed=1)
    check(lambda m, x, y: m.maximum(m.concatenate([x, x * 2, y[:, :3], -x, x[:, ::-1]], axis=1) - y, 0), x, y)


def test_two_results_of_one_loop():
    def both(m, x):
        joined = m.concatenate([x, x + 1, x[:, :2], x * 3], axis=1)
        return joined, -joined

    check(both, draw(7, 4))


def test_few_parts_or_no_rows_need_no_pieces():
    check(lambda m, x: m.concatenate([x, x * 2], axis=1), draw(4, 5), cut=False)
    check(lambda m, x: m.concatenate([x[0], x[1] * 2, x[2]], axis=0), draw(4, 5), cut=False)


def test_rows_may_vary():
    compiled = hybridize(lambda x: nd.concatenate([x, -x, x[:, 1:3], x * 2], axis=1))
    for n in (3, 8, 1, 40, 0):
        x = draw(n, 5, seed=n)
        np.testing.assert_array_equal(compiled(nd.array(x)).asnumpy(), np.concatenate([x, -x, x[:, 1:3], x * 2], axis=1))


def test_gradient():
    x = nd.array(draw(6, 4))
    x.attach_grad()
    weight = draw(6, 14, seed=2)
    function = hybridize(lambda x: nd.concatenate([x, x * x, x[:, :2], nd.exp(x)], axis=1))
    with autograd.record():
        value = nd.sum(function(x) * nd.array(weight))
    value.backward()
    a = x.asnumpy()
    expected = weight[:, :4] + 2 * a * weight[:, 4:8] + np.exp(a) * weight[:, 10:]
    expected[:, :2] += weight[:, 8:10]
    np.testing.assert_allclose(x.grad.asnumpy(), expected, rtol=2e-6, atol=1e-6)
