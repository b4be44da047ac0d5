"""Networks, data and training loops that several test files share."""

from __future__ import annotations

from contextlib import contextmanager

import numpy as np

import hybrid
import ndarray as nd
from blocks import Trainer, init, loss, nn
from blocks.optimizer import Optimizer
from ndarray import autograd

MODES = ("interpreter", "jit")
OPTIMIZERS = {
    "sgd": {"learning_rate": 0.05, "momentum": 0.9, "wd": 1e-3},
    "adam": {"learning_rate": 0.01},
}


def mlp(dtype="float32"):
    """Dense, BatchNorm, ReLU, Dropout, twice; (N, 13) -> (N, 5)."""
    net = nn.HybridSequential()
    net.add(
        nn.Dense(17, in_units=13, use_bias=False, dtype=dtype), nn.BatchNorm(in_channels=17, dtype=dtype),
        nn.Activation("relu"), nn.Dropout(0.4),
        nn.Dense(11, in_units=17, activation="tanh", dtype=dtype), nn.Dropout(0.2), nn.Dense(5, in_units=11, dtype=dtype),
    )
    return net, (13,), 5


def lenet(dtype="float32", size=28):
    """LeNet-5 with ReLU and max pooling; (N, 1, size, size) -> (N, 10)."""
    net = nn.HybridSequential()
    left = (size // 2 - 4) // 2
    net.add(
        nn.Conv2D(6, 5, padding=2, activation="relu", in_channels=1, dtype=dtype), nn.MaxPool2D(2, 2),
        nn.Conv2D(16, 5, activation="relu", in_channels=6, dtype=dtype), nn.MaxPool2D(2, 2),
        nn.Flatten(),
        nn.Dense(120, activation="relu", in_units=16 * left * left, dtype=dtype),
        nn.Dense(84, activation="relu", in_units=120, dtype=dtype), nn.Dense(10, in_units=84, dtype=dtype),
    )
    return net, (1, size, size), 10


def convnet(dtype="float32"):
    """Convolutions (strided, grouped, odd sizes) with BatchNorm and average pooling; (N, 3, 9, 11) -> (N, 4)."""
    net = nn.HybridSequential()
    net.add(
        nn.Conv2D(6, 3, in_channels=3, use_bias=False, dtype=dtype), nn.BatchNorm(in_channels=6, dtype=dtype),
        nn.Activation("relu"),
        nn.Conv2D(8, (3, 2), strides=(2, 1), padding=(1, 0), groups=2, in_channels=6, use_bias=False, dtype=dtype),
        nn.BatchNorm(in_channels=8, dtype=dtype), nn.Activation("sigmoid"),
        nn.AvgPool2D(2), nn.Flatten(), nn.Dense(4, in_units=64, dtype=dtype),
    )
    return net, (3, 9, 11), 4


NETWORKS = {"mlp": mlp, "lenet": lenet, "convnet": convnet}


def make(name, dtype="float32", seed=11, **options):
    """An initialized network of that name, its input shape and number of classes."""
    nd.random.seed(seed)
    net, shape, classes = NETWORKS[name](dtype, **options)
    net.initialize(init.Xavier())
    return net, shape, classes


def batch(shape, classes, size, seed=0, dtype="float32"):
    """One batch of random inputs and labels."""
    random = np.random.default_rng(seed)
    return (nd.array(random.standard_normal((size, *shape)).astype(dtype)),
            nd.array(random.integers(0, classes, size).astype("int32")))


@contextmanager
def updates_by(mode):
    """Optimizers update line by line ("eager") or through a backend."""
    before = Optimizer.compile
    run = (lambda f: f) if mode == "eager" else lambda f: hybrid.CompiledFunction(f, backend=mode)
    Optimizer.compile = staticmethod(run)
    try:
        yield
    finally:
        Optimizer.compile = before


def states_of(trainer):
    """The optimizer's state arrays by name."""
    found = {}
    for updater in trainer._updaters.values():
        for i, state in updater.states.items():
            for k, s in enumerate(state if isinstance(state, (tuple, list)) else (state,)):
                if s is not None:
                    found[f"state {i}.{k}"] = s
    return found


def snapshot(net, trainer=None):
    """All parameters (running statistics too) and optimizer states, as NumPy arrays."""
    found = {name: p.data().asnumpy().copy() for name, p in net.collect_params().items()}
    if trainer is not None:
        found |= {name: s.asnumpy().copy() for name, s in states_of(trainer).items()}
    return found


def training_step(net, trainer, criterion=None):
    """``step(x, y)`` -> (outputs, losses): record, backward and trainer.step, as a Gluon user writes it."""
    criterion = criterion or loss.SoftmaxCrossEntropyLoss()

    def step(x, y):
        with autograd.record():
            out = net(x)
            value = criterion(out, y)
        value.backward()
        trainer.step(x.shape[0])
        return out, value

    return step


def trainer_of(net, name):
    """A Trainer with the settings of `OPTIMIZERS`."""
    return Trainer(net.collect_params(), name, dict(OPTIMIZERS[name]))


def assert_near(got, want, limit, what=""):
    """Every array within `limit` of the scale of its counterpart."""
    assert got.keys() == want.keys()
    for name, w in want.items():
        g = got[name]
        assert g.shape == w.shape, name
        assert g.dtype == w.dtype, name
        if not w.size:
            continue
        assert np.isfinite(w).all(), f"{what} {name}"
        error, scale = np.abs(g.astype(np.float64) - w).max(), np.abs(w).max() + 1e-30
        assert error <= limit * scale, f"{what} {name}: off by {error / scale:.3g} of the scale {scale:.3g}"
