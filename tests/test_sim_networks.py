"""Networks that train on ``nd.sim(0)`` as on the CPU: losses agree, and warm steps are graphs."""

import numpy as np
import pytest

import ndarray as nd
from blocks import nn, rnn
from tests.test_sim_programs import SIM, counts, train


def lenet():
    net = nn.HybridSequential()
    net.add(
        nn.Conv2D(6, 5, padding=2, activation="relu"), nn.MaxPool2D(2, 2), nn.Conv2D(16, 5, activation="relu"),
        nn.MaxPool2D(2, 2), nn.Flatten(), nn.Dense(120, activation="relu"), nn.Dense(84, activation="relu"), nn.Dense(10),
    )
    return net


class Residual(nn.HybridBlock):
    def __init__(self, channels, stride):
        super().__init__()
        self.body = nn.HybridSequential()
        self.body.add(
            nn.Conv2D(channels, 3, strides=stride, padding=1, use_bias=False), nn.BatchNorm(), nn.Activation("relu"),
            nn.Conv2D(channels, 3, padding=1, use_bias=False), nn.BatchNorm(),
        )
        self.short = None
        if stride > 1:
            self.short = nn.HybridSequential()
            self.short.add(nn.Conv2D(channels, 1, strides=stride, use_bias=False), nn.BatchNorm())

    def forward(self, x):
        return nd.relu(self.body(x) + (self.short(x) if self.short is not None else x))


def resnet18():
    """ResNet-18 with an eighth of its channels."""
    net = nn.HybridSequential()
    net.add(nn.Conv2D(8, 3, padding=1, use_bias=False), nn.BatchNorm(), nn.Activation("relu"))
    for channels, stride in ((8, 1), (8, 1), (16, 2), (16, 1), (32, 2), (32, 1), (64, 2), (64, 1)):
        net.add(Residual(channels, stride))
    net.add(nn.GlobalAvgPool2D(), nn.Flatten(), nn.Dense(10))
    return net


class Words(nn.HybridBlock):
    def __init__(self):
        super().__init__()
        self.embedding, self.lstm, self.head = nn.Embedding(30, 16), rnn.LSTM(24, layout="NTC"), nn.Dense(10)

    def forward(self, x):
        return self.head(self.lstm(self.embedding(x))[:, -1])


class Layer(nn.HybridBlock):
    def __init__(self, width, heads):
        super().__init__()
        self.heads, self.before, self.between = heads, nn.LayerNorm(), nn.LayerNorm()
        self.qkv, self.out = nn.Dense(3 * width, flatten=False), nn.Dense(width, flatten=False)
        self.up, self.down = nn.Dense(4 * width, flatten=False), nn.Dense(width, flatten=False)
        self.dropout = nn.Dropout(0.1)

    def forward(self, x):
        n, t, c = x.shape
        parts = nd.split(self.qkv(self.before(x)), 3, axis=-1)
        q, k, v = (nd.reshape(z, (n, t, self.heads, c // self.heads)) for z in parts)
        x = x + self.dropout(self.out(nd.reshape(nd.scaled_dot_product_attention(q, k, v, causal=True), (n, t, c))))
        return x + self.dropout(self.down(nd.gelu(self.up(self.between(x)))))


class Gpt(nn.HybridBlock):
    def __init__(self, words=40, length=12, width=32, heads=4, layers=1):
        super().__init__()
        self.embedding, self.places = nn.Embedding(words, width), nn.Embedding(length, width)
        self.layers = nn.HybridSequential()
        for _ in range(layers):
            self.layers.add(Layer(width, heads))
        self.norm, self.head = nn.LayerNorm(), nn.Dense(10)

    def forward(self, x):
        h = self.embedding(x) + self.places(nd.arange(x.shape[1], device=x.device))
        return self.head(self.norm(self.layers(h))[:, -1])


rng = np.random.default_rng(0)
NETWORKS = {
    "lenet": (lenet, rng.standard_normal((4, 1, 28, 28)).astype("float32")),
    "lstm": (Words, rng.integers(0, 30, (4, 7))),
    "gpt": (Gpt, rng.integers(0, 40, (4, 12))),
    "resnet18": (resnet18, rng.standard_normal((4, 3, 16, 16)).astype("float32")),
}


def agree(name, steps, whole, dtype="float32", **options):
    make, x = NETWORKS[name]
    x, y = x.astype(dtype) if x.dtype.kind == "f" else x, np.arange(len(x)) % 10
    want = train(nd.cpu(), make, x, y, steps=steps, whole=whole, dtype=dtype, **options)
    before = counts()
    got = train(SIM, make, x, y, steps=steps, whole=whole, dtype=dtype, **options)
    np.testing.assert_allclose(got, want, rtol=2e-5 if dtype == "float32" else 1e-10)
    return [b - a for a, b in zip(before, counts())]


@pytest.mark.parametrize("name", ["lenet", "lstm", "gpt"])
def test_a_whole_step(name):
    _, captures, replays = agree(name, 4, True, learning_rate=0.02)
    assert (captures, replays) == (1, 1)


@pytest.mark.slow
@pytest.mark.parametrize("whole", [False, True], ids=["parts", "whole"])
@pytest.mark.parametrize("name", NETWORKS)
def test_many_steps(name, whole):
    # with few images, normalized by their own statistics, a last bit soon decides about a ReLU: so twelve steps in float64
    agree(name, 12, whole, "float64" if name == "resnet18" else "float32", learning_rate=0.02)


@pytest.mark.slow
def test_residual_networks_in_float32():
    agree("resnet18", 6, True, learning_rate=0.02)
