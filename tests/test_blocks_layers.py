"""Layers and losses against NumPy."""

import numpy as np
import pytest

import ndarray as nd
from blocks import loss, nn
from ndarray import autograd

rng = np.random.default_rng(0)


def normal(*shape):
    return rng.normal(size=shape).astype("float32")


def test_dense():
    x = normal(3, 2, 4)
    for flatten, expected in ((True, (3, 5)), (False, (3, 2, 5))):
        layer = nn.Dense(5, flatten=flatten)
        layer.initialize()
        out = layer(nd.array(x)).asnumpy()
        rows = x.reshape(3, 8) if flatten else x
        assert out.shape == expected
        w, b = layer.weight.data().asnumpy(), layer.bias.data().asnumpy()
        np.testing.assert_allclose(out, rows @ w.T + b, rtol=1e-5, atol=1e-6)
    assert nn.Dense(5, use_bias=False).bias is None


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_convolution_shapes(rank):
    cls = (nn.Conv1D, nn.Conv2D, nn.Conv3D)[rank - 1]
    layer = cls(6, 3, strides=2, padding=1, groups=2, activation="relu")
    layer.initialize()
    out = layer(nd.array(normal(2, 4, *(8,) * rank)))
    assert out.shape == (2, 6, *(4,) * rank)
    assert layer.weight.shape == (6, 2, *(3,) * rank)
    assert out.asnumpy().min() >= 0


def test_convolution_values():
    x = normal(2, 3, 5, 6)
    layer = nn.Conv2D(4, (3, 2), padding=(1, 0), dilation=(1, 2))
    layer.initialize()
    out = layer(nd.array(x)).asnumpy()
    w = layer.weight.data().asnumpy()
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (0, 0)))
    expected = np.zeros((2, 4, 5, 4))
    for i in range(3):
        for j in range(2):
            expected += np.einsum("nchw,oc->nohw", padded[:, :, i : i + 5, 2 * j : 2 * j + 4], w[:, :, i, j])
    np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-5)


def test_pooling():
    x = normal(2, 3, 5, 7)
    out = nn.MaxPool2D(2)(nd.array(x)).asnumpy()
    expected = x[:, :, :4, :6].reshape(2, 3, 2, 2, 3, 2).max(axis=(3, 5))
    np.testing.assert_array_equal(out, expected)
    assert nn.MaxPool2D(2, ceil_mode=True)(nd.array(x)).shape == (2, 3, 3, 4)
    out = nn.AvgPool2D(2)(nd.array(x)).asnumpy()
    np.testing.assert_allclose(out, x[:, :, :4, :6].reshape(2, 3, 2, 2, 3, 2).mean(axis=(3, 5)), rtol=1e-5, atol=1e-6)
    ones = nd.ones((1, 1, 4, 4))
    assert nn.AvgPool2D(3, 2, 1)(ones).asnumpy()[0, 0, 0, 0] == pytest.approx(4 / 9)
    assert nn.AvgPool2D(3, 2, 1, count_include_pad=False)(ones).asnumpy()[0, 0, 0, 0] == pytest.approx(1)
    np.testing.assert_allclose(nn.GlobalAvgPool2D()(nd.array(x)).asnumpy()[:, :, 0, 0], x.mean(axis=(2, 3)), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(nn.GlobalMaxPool2D()(nd.array(x)).asnumpy()[:, :, 0, 0], x.max(axis=(2, 3)))


def test_batch_norm():
    layer = nn.BatchNorm(momentum=0.8)
    layer.initialize()
    x = normal(6, 3, 4) * 2 + 1
    mean, var = x.mean(axis=(0, 2)), x.var(axis=(0, 2))
    with autograd.record():
        out = layer(nd.array(x))
    normalized = (x - mean[:, None]) / np.sqrt(var[:, None] + 1e-5)
    np.testing.assert_allclose(out.asnumpy(), normalized, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(layer.running_mean.data().asnumpy(), 0.2 * mean, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(layer.running_var.data().asnumpy(), 0.8 + 0.2 * var, rtol=1e-4)
    out = layer(nd.array(x)).asnumpy()
    expected = (x - 0.2 * mean[:, None]) / np.sqrt(0.8 + 0.2 * var[:, None] + 1e-5)
    np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-4)


def test_batch_norm_gradient_and_options():
    layer = nn.BatchNorm(scale=False)
    layer.initialize()
    x = nd.array(normal(5, 3))
    x.attach_grad()
    with autograd.record():
        y = (layer(x) * nd.array(normal(5, 3))).sum()
    y.backward()
    np.testing.assert_allclose(x.grad.asnumpy().sum(axis=0), 0, atol=1e-5)  # a shift of the batch changes nothing
    assert layer.gamma.grad_req == "null"
    assert list(layer.collect_params()) == ["gamma", "beta", "running_mean", "running_var"]


def test_dropout():
    layer = nn.Dropout(0.25)
    x = nd.ones((100, 100))
    assert layer(x).asnumpy().min() == 1
    nd.random.seed(3)
    with autograd.record():
        out = layer(x).asnumpy()
    np.testing.assert_allclose(np.unique(out), [0, 4 / 3], rtol=1e-6)
    assert (out == 0).mean() == pytest.approx(0.25, abs=0.02)
    with autograd.record():
        rows = nn.Dropout(0.5, axes=(1,))(x).asnumpy()
    assert all(len(set(r)) == 1 for r in rows.tolist())


def test_small_layers():
    x = normal(2, 3, 4)
    a = nd.array(x)
    np.testing.assert_array_equal(nn.Flatten()(a).asnumpy(), x.reshape(2, 12))
    np.testing.assert_array_equal(nn.Identity()(a).asnumpy(), x)
    np.testing.assert_allclose(nn.LeakyReLU(0.1)(a).asnumpy(), np.where(x > 0, x, 0.1 * x), rtol=1e-6)
    np.testing.assert_allclose(nn.ELU()(a).asnumpy(), np.where(x > 0, x, np.expm1(x)), rtol=1e-5)
    np.testing.assert_allclose(nn.Swish()(a).asnumpy(), x / (1 + np.exp(-x)), rtol=1e-5)
    np.testing.assert_array_equal(nn.Lambda("relu")(a).asnumpy(), np.maximum(x, 0))
    np.testing.assert_array_equal(nn.HybridLambda(lambda F, v: F.relu(v))(a).asnumpy(), np.maximum(x, 0))
    both = nn.HybridConcatenate(axis=1)
    both.add(nn.Identity(), nn.Activation("relu"))
    np.testing.assert_array_equal(both(a).asnumpy(), np.concatenate([x, np.maximum(x, 0)], axis=1))
    for name in ("sigmoid", "tanh", "softrelu", "softsign", "mish", "gelu", "silu", "log_sigmoid"):
        assert nn.Activation(name)(a).shape == (2, 3, 4)
    with pytest.raises(ValueError, match="relu"):
        nn.Activation("nothing")


def test_sequential_slices():
    net = nn.Sequential()
    net.add(nn.Dense(3), nn.Dense(4), nn.Dense(5))
    assert len(net) == 3
    assert net[-1]._units == 5
    assert [b._units for b in net[:2]] == [3, 4]


def softmax(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def test_softmax_cross_entropy():
    x, labels = normal(4, 3), np.array([0, 2, 1, 2])
    expected = -np.log(softmax(x))[np.arange(4), labels]
    fn = loss.SoftmaxCrossEntropyLoss()
    np.testing.assert_allclose(fn(nd.array(x), nd.array(labels)).asnumpy(), expected, rtol=1e-5)
    as_floats = nd.array(labels.astype("float32"))
    np.testing.assert_allclose(fn(nd.array(x), as_floats).asnumpy(), expected, rtol=1e-5)
    one_hot = nd.array(np.eye(3, dtype="float32")[labels])
    np.testing.assert_allclose(loss.SoftmaxCELoss(sparse_label=False)(nd.array(x), one_hot).asnumpy(), expected, rtol=1e-5)
    log = nd.array(np.log(softmax(x)))
    np.testing.assert_allclose(loss.SoftmaxCELoss(from_logits=True)(log, nd.array(labels)).asnumpy(), expected, rtol=1e-5)
    weights = nd.array(np.array([[1.0], [0.0], [2.0], [1.0]], "float32"))
    np.testing.assert_allclose(
        fn(nd.array(x), nd.array(labels), weights).asnumpy(), expected * [1, 0, 2, 1], rtol=1e-5, atol=1e-7
    )
    logits = nd.array(x)
    logits.attach_grad()
    with autograd.record():
        total = fn(logits, nd.array(labels))
    total.backward()
    np.testing.assert_allclose(logits.grad.asnumpy(), softmax(x) - np.eye(3)[labels], rtol=1e-4, atol=1e-6)


def test_other_losses():
    x, y = normal(4, 3), normal(4, 3)
    np.testing.assert_allclose(loss.L2Loss()(nd.array(x), nd.array(y)).asnumpy(), ((x - y) ** 2).mean(axis=1) / 2, rtol=1e-5)
    np.testing.assert_allclose(loss.L1Loss()(nd.array(x), nd.array(y)).asnumpy(), np.abs(x - y).mean(axis=1), rtol=1e-5)
    labels = (y > 0).astype("float32")
    p = 1 / (1 + np.exp(-x))
    expected = -(labels * np.log(p) + (1 - labels) * np.log(1 - p)).mean(axis=1)
    np.testing.assert_allclose(loss.SigmoidBCELoss()(nd.array(x), nd.array(labels)).asnumpy(), expected, rtol=1e-5)
    from_sigmoid = loss.SigmoidBCELoss(from_sigmoid=True)
    np.testing.assert_allclose(from_sigmoid(nd.array(p), nd.array(labels)).asnumpy(), expected, rtol=1e-4)
    assert loss.L2Loss()(nd.ones((4,)), nd.zeros((4,))).shape == (4,)
