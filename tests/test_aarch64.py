"""Networks' kernels as generated for AArch64 (NEON), run in an emulator, against the ops' eager functions."""

import importlib.util

import numpy as np
import pytest
from emulated import Emulated

import ndarray as nd
from blocks import nn
from hybrid import hybridize
from hybrid.interpret import evaluate_graph
from hybrid.passes import optimize
from jit import machine
from jit.interpret import run_launches
from jit.lower import lower
from jit.vector_math import expand

pytestmark = pytest.mark.skipif(
    not (importlib.util.find_spec("unicorn") and importlib.util.find_spec("elftools")), reason="needs unicorn and pyelftools"
)


def dense():
    return nn.Dense(19, in_units=37, activation="tanh"), (5, 37)


def convolution():
    net = nn.HybridSequential()
    net.add(nn.Conv2D(6, 3, in_channels=3, padding=1), nn.BatchNorm(in_channels=6), nn.Activation("relu"), nn.MaxPool2D(2))
    return net, (2, 3, 9, 7)


def depthwise():
    return nn.Conv2D(8, 3, in_channels=8, groups=8, strides=2), (1, 8, 7, 7)


def attention():
    return nn.TransformerEncoderCell(units=16, hidden_size=24, num_heads=2), (2, 5, 16)


def embedding():
    net = nn.HybridSequential()
    net.add(nn.LayerNorm(in_channels=33), nn.GELU(), nn.Dense(3, in_units=33))
    return net, (7, 33)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("make", [dense, convolution, depthwise, embedding, attention])
def test_networks(make, dtype):
    net, shape = make()
    net.initialize()
    net.cast(dtype)
    x = nd.array(np.random.default_rng(0).standard_normal(shape), dtype=dtype)
    f = hybridize(lambda x: net(x), backend="interpreter")
    f(x)
    entry = f.last
    graph = optimize(entry.core.graph)
    arrays = [np.asarray(a._data) for a in entry.gather([x], f._surroundings.read(), None)]
    lowered = lower(graph, machine.aarch64())
    memory = {s: np.array(a).reshape(-1) for s, a in zip(lowered.inputs, arrays, strict=True)}
    kernels = {launch.kernel: None for launch in lowered.launches}
    compiled = {k: Emulated([expand(k)], machine.aarch64()) for k in kernels}
    run_launches(lowered.launches, memory, {}, lambda k, *args: compiled[k](k.name, *args))
    expected = evaluate_graph(graph, arrays)
    for storage, want in zip(lowered.outputs, expected, strict=False):
        tolerance = 2e-5 if dtype == "float32" else 4e-3
        np.testing.assert_allclose(
            memory[storage].reshape(want.shape).astype("f8"), want.astype("f8"), rtol=tolerance, atol=tolerance
        )
