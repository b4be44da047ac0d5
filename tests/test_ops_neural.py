"""Functions of neural networks against plain NumPy formulas, with gradients to order 2."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.special

import ndarray as nd
from ndarray import autograd
from ndarray.testing import assert_close, check_gradients

rng = np.random.default_rng(11)
X = rng.standard_normal((2, 4, 5, 6))
M = rng.standard_normal((3, 5))


def n(x: np.ndarray) -> nd.NDArray:
    return nd.array(x, dtype=x.dtype)


@pytest.mark.parametrize("name", ["relu", "sigmoid", "softplus", "softsign", "gelu", "silu", "mish", "elu", "selu", "leaky_relu",
                                  "log_sigmoid", "softmax", "log_softmax", "layer_norm", "rms_norm", "l2_normalization"])
def test_gradients(name: str) -> None:
    check_gradients(getattr(nd, name), [M], limit=2e-5)


def test_softmax_of_large_numbers() -> None:
    x = nd.array([[1000.0, 1001.0], [-1000.0, -1001.0]])
    want = scipy.special.softmax(x.asnumpy().astype(np.float64), -1)
    assert_close(nd.softmax(x), want)
    assert_close(nd.log_softmax(x), np.log(want))
    assert_close(nd.softmax(x, axis=0, temperature=500.0), scipy.special.softmax(x.asnumpy() / 500, 0))
    assert_close(nd.softmax(n(X), axis=(1, 3)), scipy.special.softmax(X, (1, 3)))
    assert nd.sigmoid(nd.array([-200.0, 200.0])).tolist() == [0.0, 1.0]
    assert nd.softplus(nd.array([-200.0, 200.0])).tolist() == [0.0, 200.0]


def test_masked_softmax() -> None:
    mask = M > 0
    mask[0] = False
    found = nd.masked_softmax(n(M), nd.array(mask)).asnumpy()
    for row, m, out in zip(M, mask, found):
        want = np.zeros(5)
        if m.any():
            want[m] = scipy.special.softmax(row[m])
        assert_close(out, want)


def test_pick_one_hot_embedding() -> None:
    index = np.array([0, 4, 2])
    assert_close(nd.pick(n(M), nd.array(index)), M[np.arange(3), index])
    assert_close(nd.pick(n(M), nd.array(index.astype(np.float32)), keepdims=True), M[np.arange(3), index][:, None])
    assert_close(nd.pick(n(M), nd.array([0, 1, 2, 2, 1]), axis=0), M[[0, 1, 2, 2, 1], np.arange(5)])
    assert_close(nd.one_hot(nd.array(index), 5), np.eye(5, dtype=np.float32)[index])
    assert_close(nd.one_hot(nd.array(index), 3, 2.0, -1.0, dtype="float64"), np.eye(5)[index][:, :3] * 3 - 1)
    tokens = np.array([[0, 2, 2], [1, 0, 9]])
    assert_close(nd.embedding(nd.array(tokens), n(M)), M[np.minimum(tokens, 2)])
    check_gradients(lambda w: nd.embedding(nd.array(tokens), w), [M])
    check_gradients(lambda x: nd.pick(x, nd.array(index)), [M])
    with pytest.raises(ValueError, match="pick: index: expected x's shape"):
        nd.pick(n(M), nd.array([[1, 2]]))


def test_softmax_cross_entropy() -> None:
    labels = np.array([0, 4, 2])
    want = -scipy.special.log_softmax(M, -1)[np.arange(3), labels]
    assert_close(nd.softmax_cross_entropy(n(M), nd.array(labels)), want)
    assert_close(nd.softmax_cross_entropy(n(M), n(np.eye(5)[labels])), want)
    check_gradients(lambda x: nd.softmax_cross_entropy(x, nd.array(labels)), [M])


def test_fully_connected() -> None:
    w, b = rng.standard_normal((7, 120)), rng.standard_normal(7)
    assert_close(nd.fully_connected(n(X), n(w), n(b)), X.reshape(2, -1) @ w.T + b)
    w = rng.standard_normal((7, 6))
    assert_close(nd.fully_connected(n(X), n(w), n(b), flatten=False), X @ w.T + b)
    check_gradients(lambda x, w, b: nd.fully_connected(x, w, b, flatten=False), [X, w, b])
    with pytest.raises(ValueError, match=r"fully_connected: weight: expected shape \(units, 120\)"):
        nd.fully_connected(n(X), n(w))


def test_convolution_and_bias() -> None:
    w, b = rng.standard_normal((3, 4, 3, 3)), rng.standard_normal(3)
    out = nd.convolution(n(X), n(w), n(b), stride=2, padding=1)
    assert out.shape == (2, 3, 3, 3)
    wide = np.pad(X, ((0, 0), (0, 0), (1, 1), (1, 1)))
    want = np.einsum("nchwij,ocij->nohw", np.lib.stride_tricks.sliding_window_view(wide, (3, 3), (2, 3))[:, :, ::2, ::2], w)
    assert_close(out, want + b[:, None, None])
    check_gradients(lambda x, w, b: nd.convolution(x, w, b, stride=2, padding=((1, 0), (0, 1))), [X, w, b])
    with pytest.raises(ValueError, match="convolution: channels of x: expected 3"):
        nd.convolution(n(X), nd.ones((2, 3, 3, 3), dtype="float64"))
    with pytest.raises(ValueError, match="convolution: spatial axis 0: expected a \\(padded\\) size of at least 9"):
        nd.convolution(n(X), nd.ones((2, 4, 9, 3), dtype="float64"))


def test_deconvolution_is_the_adjoint_of_convolution() -> None:
    w = rng.standard_normal((4, 3, 3, 2))
    out = nd.deconvolution(n(X), n(w), stride=(2, 1), padding=(1, 0), output_padding=(1, 0))
    y = rng.standard_normal(out.shape)
    back = nd.convolution(n(y), n(w), stride=(2, 1), padding=(1, 0))
    assert back.shape == X.shape
    assert_close((out.asnumpy() * y).sum(), (back.asnumpy() * X).sum())
    check_gradients(lambda x, w: nd.deconvolution(x, w, stride=2), [X, w])


def windows(x: np.ndarray, k: int, s: int, a: int, b: int, fill: float) -> np.ndarray:
    wide = np.pad(x, ((0, 0), (0, 0), (a, b), (a, b)), constant_values=fill)
    return np.lib.stride_tricks.sliding_window_view(wide, (k, k), (2, 3))[:, :, ::s, ::s]


def test_pooling() -> None:
    assert_close(nd.max_pool(n(X), 2), windows(X, 2, 2, 0, 0, 0).max((4, 5)))
    assert_close(nd.max_pool(n(X), 3, 2, 1), windows(X, 3, 2, 1, 1, -np.inf).max((4, 5)))
    assert_close(nd.avg_pool(n(X), 3, 2, 1), windows(X, 3, 2, 1, 1, 0).mean((4, 5)))
    assert_close(nd.avg_pool(n(X), 3, 2, 1, count_include_pad=False), np.nanmean(windows(X, 3, 2, 1, 1, np.nan), (4, 5)))
    assert nd.max_pool(n(X), 2, ceil_mode=True).shape == (2, 4, 3, 3)
    assert_close(nd.max_pool(n(X), 2, ceil_mode=True)[:, :, 2], X[:, :, 4].reshape(2, 4, 3, 2).max(-1))
    assert_close(nd.avg_pool(n(X), 2, ceil_mode=True)[:, :, 2], X[:, :, 4].reshape(2, 4, 3, 2).mean(-1))
    assert_close(nd.max_pool(n(X[0]), (2,)), X[0].reshape(4, 5, 3, 2).max(-1))
    assert_close(nd.global_avg_pool(n(X)), X.mean((2, 3), keepdims=True))
    assert_close(nd.global_max_pool(n(X)), X.max((2, 3), keepdims=True))
    assert_close(nd.adaptive_avg_pool(n(X), 1), X.mean((2, 3), keepdims=True))
    assert_close(nd.adaptive_avg_pool(n(X), (5, 3)), X.reshape(2, 4, 5, 3, 2).mean(-1))
    check_gradients(lambda x: nd.max_pool(x, 3, 2, 1), [X])
    check_gradients(lambda x: nd.avg_pool(x, 3, 2, 1, ceil_mode=True, count_include_pad=False), [X])
    with pytest.raises(ValueError, match="max_pool: axis 2 of x: expected a \\(padded\\) size of at least 6"):
        nd.max_pool(n(X), 6)


def test_normalization() -> None:
    g, b = rng.standard_normal(4), rng.standard_normal(4)
    mean, var = X.mean((0, 2, 3)), X.var((0, 2, 3))
    across = lambda v: v[:, None, None]
    out, m, v = nd.batch_norm(n(X), n(g), n(b), eps=1e-3)
    assert_close(out, (X - across(mean)) / np.sqrt(across(var) + 1e-3) * across(g) + across(b))
    assert_close(m, mean)
    assert_close(v, var)
    out, _, _ = nd.batch_norm(n(X), n(g), n(b), n(g), n(b * b), eps=1e-3, use_global_stats=True)
    assert_close(out, (X - across(g)) / np.sqrt(across(b * b) + 1e-3) * across(g) + across(b))
    assert_close(nd.layer_norm(n(M)), (M - M.mean(1, keepdims=True)) / np.sqrt(M.var(1, keepdims=True) + 1e-5))
    grouped = X.reshape(2, 2, 2, 5, 6)
    want = (grouped - grouped.mean((2, 3, 4), keepdims=True)) / np.sqrt(grouped.var((2, 3, 4), keepdims=True) + 1e-5)
    assert_close(nd.group_norm(n(X), n(g), n(b), num_groups=2), want.reshape(X.shape) * across(g) + across(b))
    want = (X - X.mean((2, 3), keepdims=True)) / np.sqrt(X.var((2, 3), keepdims=True) + 1e-5)
    assert_close(nd.instance_norm(n(X)), want)
    check_gradients(nd.batch_norm, [X, g, b], limit=2e-5)
    check_gradients(lambda x: nd.batch_norm(x, None, None)[0], [X], limit=2e-5)
    check_gradients(lambda x, g, b: nd.layer_norm(x, g, b, axis=1), [X, g, b], limit=2e-5)


def test_dropout() -> None:
    x = nd.ones((200, 100))
    assert_close(nd.dropout(x, 0.3), x.asnumpy())
    with autograd.train_mode():
        out = nd.dropout(x, 0.25).asnumpy()
        shared = nd.dropout(x, 0.5, axes=(1,)).asnumpy()
    assert set(np.unique(out).tolist()) == {0.0, float(np.float32(1 / 0.75))}
    assert abs((out == 0).mean() - 0.25) < 0.02
    assert (shared == shared[:, :1]).all()
    assert 0.3 < (shared[:, 0] == 0).mean() < 0.7
    with pytest.raises(ValueError, match="dropout: p: expected 0 to 1"):
        nd.dropout(x, 1.5)


def test_sequence_mask() -> None:
    x = rng.standard_normal((4, 3, 2))
    found = nd.sequence_mask(n(x), nd.array([1, 4, 0]), use_sequence_length=True, value=-1.0)
    want = x.copy()
    want[1:, 0], want[:, 2] = -1, -1
    assert_close(found, want)
    found = nd.sequence_mask(n(x), nd.array([1, 2, 3, 0]), use_sequence_length=True, axis=1)
    assert_close(found, x * (np.arange(3) < np.array([[1], [2], [3], [0]]))[:, :, None])
