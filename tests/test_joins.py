"""Concatenations of many parts: computed where they belong, or copied there."""

import numpy as np
import pytest

import ndarray as nd
from hybrid import hybridize
from ndarray import autograd


def draw(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def check(function, *arrays):
    compiled = hybridize(function)
    arrays = [nd.array(a) for a in arrays]
    for _ in range(2):
        for a, b in zip(compiled(*arrays), function(*arrays), strict=True):
            np.testing.assert_allclose(a.asnumpy(), b.asnumpy(), rtol=1e-5, atol=1e-6)
    return compiled


@pytest.mark.parametrize("width", [1, 5, 64])
def test_a_chain_that_is_stacked(width):
    def chain(x, w):
        found = []
        for _ in range(9):
            x = nd.tanh(nd.matmul(x, w))
            found.append(x)
        y = nd.stack(found)
        return y, nd.sum(y, axis=0), x

    check(chain, draw(3, width), draw(width, width, seed=1) * 0.5 * width**-0.5)


def test_parts_of_all_kinds():
    def mixed(x, y):
        a, b = nd.exp(x), nd.sum(y, axis=0)
        parts = [a, x, a, nd.reshape(b, (1, 4)), nd.matmul(x, nd.matmul(y, nd.ones((4, 4)))), nd.softmax(x), nd.relu(x)]
        whole = nd.concatenate(parts)
        return whole, nd.concatenate([nd.cos(x) * k for k in range(6)] + [whole]), a

    check(mixed, draw(2, 4), draw(4, 4, seed=1))


def test_written_back():
    state = nd.zeros((6, 2, 3))

    @hybridize
    def step(x):
        state[...] = nd.stack([nd.sin(x) * k + state[k] for k in range(6)])
        return nd.sum(state)

    x = draw(2, 3)
    step(nd.array(x))
    step(nd.array(x))
    np.testing.assert_allclose(state.asnumpy(), 2 * np.sin(x) * np.arange(6)[:, None, None], rtol=1e-5, atol=1e-6)


def test_through_gradients():
    w = nd.array(draw(4, 4))
    w.attach_grad()

    def loss(x):
        with autograd.record():
            found = []
            for _ in range(7):
                x = nd.sigmoid(nd.matmul(x, w))
                found.append(x)
            y = (nd.stack(found) * nd.stack(found[::-1])).sum()
        y.backward()
        return y, w.grad.copy()

    check(loss, draw(3, 4, seed=2))


def test_sizes_that_vary():
    @hybridize
    def stacked(x):
        return nd.stack([nd.exp(x) * k for k in range(6)])

    for n in (3, 5, 4, 1):
        x = draw(n, 2)
        np.testing.assert_allclose(stacked(nd.array(x)).asnumpy(), np.exp(x) * np.arange(6)[:, None, None], rtol=1e-5)


def test_one_launch_for_each_part():
    def squares(x):
        found = []
        for _ in range(8):
            x = nd.matmul(x, x)
            found.append(x)
        return nd.stack(found)

    compiled = hybridize(squares)
    report = str(compiled.explain(nd.array(draw(16, 16) * 0.1)))
    assert "concatenate" not in report.split("stay apart")[0]
    assert "copy" not in report.split("machine")[0]


def test_shared_operands_are_packed_once():
    def products(x, w):
        found = []
        for _ in range(6):
            x = nd.tanh(nd.fully_connected(x, w))
            found.append(x)
        return nd.stack(found), x

    x, w = draw(40, 96), draw(96, 96, seed=1) * 0.1
    compiled = check(products, x, w)
    assert str(compiled.explain(nd.array(x), nd.array(w))).count("(pack)") <= 1

    state = nd.array(w)

    @hybridize
    def changing(x):
        for _ in range(5):
            x = nd.tanh(nd.fully_connected(x, state))
            state[...] = state * 0.5
        return x

    expected, weight = x, w
    for _ in range(5):
        expected, weight = np.tanh(expected @ weight.T), weight * 0.5
    np.testing.assert_allclose(changing(nd.array(x)).asnumpy(), expected, rtol=1e-4, atol=1e-5)
