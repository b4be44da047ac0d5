"""Layers around neural functions: values, layouts, compiled as eager, training, errors."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import ndarray as nd
from blocks import loss, nn
from hybrid import HybridBlock
from ndarray import autograd
from ndarray.testing import assert_close

rng = np.random.default_rng(1)
X = rng.standard_normal((2, 4, 6, 5)).astype(np.float32)

LAYERS: dict[str, tuple[Callable[[], HybridBlock], Callable[[nd.NDArray], nd.NDArray]]] = {
    "Mish": (nn.Mish, nd.mish), "CELU": (lambda: nn.CELU(0.5), lambda x: nd.celu(x, 0.5)), "SELU": (nn.SELU, nd.selu),
    "RReLU": (nn.RReLU, nd.rrelu), "GELU": (lambda: nn.GELU("tanh"), lambda x: nd.gelu(x, "tanh")),
    "Swish": (lambda: nn.Swish(2.0), lambda x: nd.swish(x, 2.0)), "ELU": (nn.ELU, nd.elu),
    "PReLU": (lambda: nn.PReLU(in_channels=4), lambda x: nd.prelu(x, nd.full((4,), 0.25))), "ReLU6": (nn.ReLU6, nd.relu6),
    "hard_swish": (lambda: nn.Activation("hard_swish"), nd.hard_swish),
    "BatchNormReLU": (nn.BatchNormReLU, lambda x: nd.relu(x / np.sqrt(1 + 1e-5))), "RMSNorm": (nn.RMSNorm, nd.rms_norm),
    "PixelShuffle2D": (lambda: nn.PixelShuffle2D((2, 1)), lambda x: nd.pixel_shuffle(x, (2, 1))),
    "ReflectionPad2D": (lambda: nn.ReflectionPad2D(2), lambda x: nd.pad(x, ((0, 0), (0, 0), (2, 2), (2, 2)), mode="reflect")),
    "AdaptiveAvgPool2D": (lambda: nn.AdaptiveAvgPool2D((3, 2)), lambda x: nd.adaptive_avg_pool(x, (3, 2))),
    "AdaptiveMaxPool2D": (lambda: nn.AdaptiveMaxPool2D(4), lambda x: nd.adaptive_max_pool(x, 4)),
    "MaxPool2D full": (lambda: nn.MaxPool2D(3, 2, ceil_mode=True),
                       lambda x: nd.pooling(x, 3, stride=2, pooling_convention="full")),
    "AvgPool2D full": (lambda: nn.AvgPool2D(3, 2, 1, ceil_mode=True),
                       lambda x: nd.pooling(x, 3, "avg", stride=2, pad=1, pooling_convention="full")),
}


@pytest.mark.parametrize("name", sorted(LAYERS))
def test_layer(name: str) -> None:
    make, function = LAYERS[name]
    layer, x = make(), nd.array(X)
    layer.initialize()
    assert_close(layer(x), function(x), 2)
    layer.hybridize()
    assert_close(layer(x), function(x), 4)
    assert name.split()[0] in repr(layer) or name == "hard_swish"


LAST = (0, 2, 3, 1)


@pytest.mark.parametrize("name", ["conv", "deconv", "max", "avg", "global max", "global avg", "adaptive"])
def test_channels_last(name: str) -> None:
    make = {
        "conv": lambda layout: nn.Conv2D(6, (3, 2), 2, 1, groups=2, layout=layout, activation="relu"),
        "deconv": lambda layout: nn.Conv2DTranspose(6, (3, 2), 2, 1, groups=2, layout=layout),
        "max": lambda layout: nn.MaxPool2D(3, 2, 1, layout=layout, ceil_mode=True),
        "avg": lambda layout: nn.AvgPool2D(3, 2, 1, layout=layout, count_include_pad=False),
        "global max": lambda layout: nn.GlobalMaxPool2D(layout), "global avg": lambda layout: nn.GlobalAvgPool2D(layout),
        "adaptive": lambda layout: nn.AdaptiveAvgPool2D((4, 3), layout),
    }[name]
    first, last = make("NCHW"), make("NHWC")
    x, y = nd.array(X), nd.array(X.transpose(LAST))
    for layer in (first, last):
        layer.initialize()
    first(x)
    last(y)
    if name in ("conv", "deconv"):
        w = first.weight.data().asnumpy()
        assert last.weight.shape == (w.shape[0], *w.shape[2:], w.shape[1])
        last.weight.set_data(nd.array(w.transpose(LAST)))
        assert repr(first) == repr(last)
    want = first(x).asnumpy().transpose(LAST)
    assert_close(last(y), want, 4)
    last.hybridize()
    assert_close(last(y), want, 4)
    with pytest.raises(ValueError, match="layout must be 'NCHW' or 'NHWC', got 'NWHC'"):
        make("NWHC")


@pytest.mark.parametrize("cls", [nn.DeformableConvolution, nn.ModulatedDeformableConvolution])
def test_deformable_layers(cls: type) -> None:
    layer = cls(6, (3, 3), padding=(1, 1), groups=2, num_deformable_group=2)
    layer.initialize()
    x = nd.array(X)
    out = layer(x)  # offsets are zero at first
    assert_close(out, nd.convolution(x, layer.weight.data(), layer.bias.data(), padding=1, groups=2), 10)
    layer.offset_weight.set_data(nd.array(rng.standard_normal(layer.offset_weight.shape) * 0.1, dtype="float32"))
    eager = layer(x)
    with autograd.record():
        total = nd.sum(layer(x) ** 2)
    total.backward()
    gradient = layer.offset_weight.grad().asnumpy().copy()
    assert np.abs(gradient).max() > 0
    layer.hybridize()
    assert_close(layer(x), eager, 10)
    with autograd.record():
        total = nd.sum(layer(x) ** 2)
    total.backward()
    assert_close(layer.offset_weight.grad(), gradient, 100)
    with pytest.raises(ValueError, match="layout must be 'NCHW'"):
        cls(6, layout="NHWC")


def test_ctc_loss() -> None:
    pred, label = rng.standard_normal((2, 9, 5)).astype(np.float32), np.array([[0, 1, 1], [3, -1, -1]])
    want = nd.ctc_loss(nd.array(pred), nd.array(label), blank_label="last", layout="NTC")
    assert_close(loss.CTCLoss()(nd.array(pred), nd.array(label)), want)
    other = loss.CTCLoss("TNC", "TN", weight=2.0)
    x, y = nd.array(pred.swapaxes(0, 1)), nd.array(label.T)
    assert_close(other(x, y), 2 * want)
    lengths = nd.array([9, 6]), nd.array([3, 1])
    assert_close(other(x, y, *lengths), 2 * nd.ctc_loss(x, nd.array(label), *lengths, blank_label="last"))
    assert_close(other(x, y, None, None, nd.array([1.0, 0.0]))[1], np.float32(0))
    other.hybridize()
    assert_close(other(x, y), 2 * want, 4)
    with pytest.raises(ValueError, match="CTCLoss: layout"):
        loss.CTCLoss("NCT")


def test_training_with_new_layers() -> None:
    nd.random.seed(0)
    net = nn.HybridSequential()
    net.add(nn.Conv2D(8, 3, padding=1, layout="NHWC"), nn.BatchNormReLU(axis=3), nn.AdaptiveMaxPool2D(2, layout="NHWC"),
            nn.Dense(3), nn.Mish(), nn.RMSNorm(), nn.Dense(2))
    net.initialize()
    net.hybridize()
    x, y = nd.random.normal(shape=(16, 6, 6, 3)), nd.array(np.arange(16) % 2)
    x = x + nd.reshape(y, (-1, 1, 1, 1))
    from blocks import Trainer

    trainer, objective, seen = Trainer(net.collect_params(), "adam", {"learning_rate": 0.03}), loss.SoftmaxCrossEntropyLoss(), []
    for _ in range(20):
        with autograd.record():
            value = objective(net(x), y)
        value.backward()
        trainer.step(16)
        seen.append(float(nd.mean(value)))
    assert seen[-1] < 0.5 * seen[0]
