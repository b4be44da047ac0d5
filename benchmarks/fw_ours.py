"""Adapter of this library for the peer benchmark: every model as one HybridBlock; a training step as one hybridized function.

The models are those of the suite's models.py, in the operations below, which are what a user would call.
"""

from __future__ import annotations

import os
import sys

sys.path.insert(1, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))  # works without being installed
os.environ.setdefault("HYBRID_NUM_THREADS", "2")
if os.environ.get("PEERS_COMPILE_CACHE"):
    os.environ["HYBRID_CACHE_DIR"] = os.environ["PEERS_COMPILE_CACHE"]

from models import BUFFERS, MODELS, Layers, inputs, load_specs, params, target

import ndarray as nd
from blocks import HybridBlock, Parameter, Trainer, loss
from hybrid import hybridize
from ndarray import autograd

VERSION = "0.1"


class Sizes(tuple):
    """What a model's sizes are, by name: a value that can't change, so that calls needn't look into it."""

    __slots__ = ()

    def __new__(cls, spec: dict):
        return super().__new__(cls, ((k, v) for k, v in spec.items() if k != "train"))

    def __getitem__(self, name):
        return dict(self)[name]

    def get(self, name, default=None):
        return dict(self).get(name, default)


class Net(HybridBlock, Layers):
    """One of the suite's models, with the suite's parameters."""

    def __init__(self, spec: dict):
        super().__init__()
        self.spec, self.model = Sizes(spec), MODELS[spec["model"]]
        for name, role, value in params(spec):
            trained = spec["train"] and role not in BUFFERS
            parameter = Parameter(name, "write" if trained else "null", value.shape)
            parameter.set_data(value, copy=False)
            setattr(self, name, parameter)

    def forward(self, *xs):
        return self.model(self, self.spec, *xs)

    def param(self, name, shape, role):
        return getattr(self, name).data()

    # -- elementwise
    relu, gelu, sigmoid, tanh = map(staticmethod, (nd.relu, nd.gelu, nd.sigmoid, nd.tanh))
    softmax, matmul, embedding = map(staticmethod, (nd.softmax, nd.matmul, nd.embedding))

    def relu6(self, x):
        return nd.minimum(nd.relu(x), 6.0)

    # -- products and convolutions
    def matmul_bias(self, x, w, b):
        return nd.fully_connected(x, w, b, flatten=False)

    def conv2d(self, x, w, b, stride, pad, groups):
        return nd.convolution(x, w, b, stride=stride, padding=pad, groups=groups)

    def conv_transpose2d(self, x, w, b, stride):
        return nd.deconvolution(x, w, b, stride=stride)

    def causal_conv1d(self, x, w, b, dilation):
        return nd.convolution(x, w, b, padding=(((w.shape[2] - 1) * dilation, 0),), dilation=dilation)

    # -- normalization and pooling
    def batchnorm(self, x, name, g, b, m, v):
        training = autograd.is_training()
        y, mean, var = nd.batch_norm(x, g, b, m, v, use_global_stats=not training)
        if training:
            n = x.size // x.shape[1]
            with autograd.pause(train_mode=True):
                m[...] = 0.9 * m + 0.1 * mean
                v[...] = 0.9 * v + (0.1 * n / (n - 1)) * var
        return y

    def layernorm(self, x, g, b):
        return nd.layer_norm(x, g, b)

    def maxpool(self, x, k, stride, pad=0):
        return nd.max_pool(x, kernel=(k, k), stride=stride, padding=pad)

    def global_avgpool(self, x):
        return nd.mean(x, axis=(2, 3))

    # -- sequences
    def attention(self, qkv, heads, causal):
        n, t, d3 = qkv.shape
        q, k, v = nd.transpose(nd.reshape(qkv, (n, t, 3, heads, d3 // 3 // heads)), (2, 0, 3, 1, 4))
        y = nd.scaled_dot_product_attention(q, k, v, causal=causal)
        return nd.reshape(nd.transpose(y, (0, 2, 1, 3)), (n, t, d3 // 3))

    def lstm(self, x, weights, hidden):
        for layer in weights:
            x = nd.lstm_layer(x, *layer)[0]
        return x

    def gru(self, x, weights, hidden):
        for layer in weights:
            x = nd.gru_layer(x, *layer)[0]
        return x

    # -- shape
    flatten = staticmethod(nd.batch_flatten)

    def concat(self, xs):
        return nd.concatenate(xs, axis=1)

    def tokens(self, x):
        return nd.transpose(nd.reshape(x, (x.shape[0], x.shape[1], -1)), (0, 2, 1))

    def prepend(self, x, v):
        return nd.concatenate([nd.broadcast_to(v, (x.shape[0], 1, v.shape[0])), x], axis=1)

    def first(self, x):
        return x[:, 0]

    def row(self, ids, i):
        return ids[i]

    def channels_last(self, x):
        return nd.transpose(x, (0, 2, 3, 1))

    def channels_first(self, x):
        return nd.transpose(x, (0, 3, 1, 2))

    def dot_interaction(self, x, feats):
        z = nd.stack(feats, axis=1)
        products = nd.matmul(z, nd.swapaxes(z, 1, 2))
        below = [products[:, i, :i] for i in range(1, len(feats))]
        return nd.concatenate([x, *below], axis=1)


def build(name, variant="ours"):
    function, arguments = compiled(name)
    return lambda: function(*arguments)


def compiled(name):
    """A workload as a hybridized function (a net, or a whole training step) and its arguments."""
    spec = load_specs()[name]
    net, xs = Net(spec), [nd.array(a) for _, a in inputs(spec)]
    if not spec["train"]:
        net.hybridize()
        return net, xs

    opt = dict(spec["train"])
    names = {"lr": "learning_rate", "b1": "beta1", "b2": "beta2", "eps": "epsilon"}
    kind = opt.pop("name")
    trainer = Trainer(net.collect_params(), kind, {names.get(k, k): v for k, v in opt.items()})
    loss_fn, labels = loss.SoftmaxCrossEntropyLoss(), nd.array(target(spec))

    @hybridize
    def train_step(labels, *xs):
        with autograd.record():
            value = nd.mean(loss_fn(net(*xs), labels))
        value.backward()
        trainer.step(1)
        return value

    return train_step, [labels, *xs]


def sync(y):
    return y  # a call has computed its result when it returns


def to_numpy(y, spec):
    return y.asnumpy()


def micro(variant="ours"):
    from blocks import nn

    a, b, g = nd.ones(4), nd.ones(4), nd.ones(4)
    g.attach_grad()
    net = nn.HybridSequential()
    net.add(nn.Dense(8, activation="relu"), nn.Dense(2))
    net.initialize()
    x = nd.ones((1, 4))
    net(x)

    def recorded():
        with autograd.record():
            return g + b

    def backward():
        with autograd.record():
            y = net(x).sum()
        y.backward()

    return {"eager add, 2 x [4]": lambda: a + b, "eager add, 2 x [4], recording grad": recorded,
            "eager tiny (module)": lambda: net(x), "eager tiny fwd+bwd (module)": backward}
