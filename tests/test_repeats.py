"""Groups of equal structure are lowered once: the result is what lowering every group by itself gives."""

import numpy as np
import pytest

import ndarray as nd
from blocks import nn, rnn
from hybrid import hybridize
from hybrid.graph import every_equation
from jit import hoist
from jit.assemble import make_recipe
from jit.backend import NativeBackend
from jit.lower import lower
from jit.repeats import Repeats
from jit.structure import Structures
from ndarray.op import OPAQUE
from tests.graph_fuzzer import gradient_graph
from tests.networks import batch, make, trainer_of, training_step
from tests.random_graphs import Maker as RandomMaker
from tests.random_loops import in_a_loop
from tests.test_lower import NARROW, WIDE


def check(graph, monkeypatch, constants=frozenset(), target=WIDE):
    """Compare; returns how many groups were said again of what had been made for another one."""
    again, describe, said = [], Structures.describe, Repeats._again
    numbers: dict = {}  # of the kernels of both

    def recipe():
        lowered = lower(graph, target, constant_inputs=constants)
        kernels = [(str(numbers.setdefault(x.kernel, len(numbers))), "") for x in lowered.launches]
        return make_recipe(lowered, kernels), [x.in_place for x in lowered.launches]

    with monkeypatch.context() as patch:
        patch.setattr(Repeats, "_again", lambda *args: again.append(args[2]) or said(*args))
        once, count = recipe(), len(again)
        patch.setattr(Structures, "describe", lambda *args: describe(*args)._replace(key=object()))
        each = recipe()
    assert len(again) == count, "nothing is like anything else now"
    assert once == each
    return count


class _Found(Exception):
    pass


def graph_of(call, monkeypatch):
    """(graph, constant inputs) of the first program that a call has compiled natively."""
    def generate(self, graph, disk, options):
        raise _Found(graph, options.constant_inputs)

    with monkeypatch.context() as patch:
        patch.setattr(NativeBackend, "_generate", generate)
        patch.setattr(NativeBackend, "_from_disk", lambda self, disk, key: None)
        with pytest.raises(_Found) as found:
            call()
    return found.value.args


def normal(*shape):
    return nd.array(np.random.default_rng(0).standard_normal(shape).astype("float32"))


class Residual(nn.HybridBlock):
    """x + convolution(relu(norm(x)))."""

    def __init__(self, channels):
        super().__init__()
        self.norm = nn.BatchNorm(in_channels=channels)
        self.conv = nn.Conv2D(channels, 3, padding=1, in_channels=channels, use_bias=False)

    def forward(self, x):
        return x + self.conv(nd.relu(self.norm(x)))


def sequence(*layers):
    net = nn.HybridSequential()
    net.add(*layers)
    net.initialize()
    return net


NETWORKS = {
    "dense": (lambda: sequence(*[nn.Dense(32, in_units=32, activation="relu") for _ in range(5)]), (8, 32), 3),
    "residual": (lambda: sequence(*[Residual(16) for _ in range(4)], nn.Flatten(), nn.Dense(4, in_units=1024)), (2, 16, 8, 8), 4),
    "transformer": (lambda: sequence(*[nn.TransformerEncoderCell(32, 64, 2) for _ in range(3)]), (2, 10, 32), 10),
    "lstm": (lambda: sequence(rnn.LSTM(16, num_layers=3, input_size=16)), (5, 2, 16), 0),
    "gru": (lambda: sequence(rnn.GRU(16, num_layers=2, bidirectional=True, input_size=16)), (5, 2, 16), 0),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_of_equal_layers(name, monkeypatch):
    build, shape, repeats = NETWORKS[name]
    net = build()
    net(normal(*shape))
    net.hybridize()
    graph, constants = graph_of(lambda: net(normal(*shape)), monkeypatch)
    assert constants
    assert check(graph, monkeypatch, constants) >= repeats
    check(graph, monkeypatch, constants, NARROW)


def test_convolutions_that_find_room_for_larger_weights_and_those_that_do_not(monkeypatch):
    net = sequence(*[nn.Conv2D(128, 3, padding=1, in_channels=128) for _ in range(6)])
    net.hybridize()
    graph, constants = graph_of(lambda: net(normal(1, 128, 10, 10)), monkeypatch)
    found = []
    for room in (0, 4 << 20, 192 << 20):
        monkeypatch.setattr(hoist, "LARGER", room)
        assert check(graph, monkeypatch, constants) >= 2
        found.append(sum("winograd" in x.kernel.name for x in lower(graph, WIDE, constant_inputs=constants).launches))
    assert found[0] < found[1] < found[2]


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("name", ["dense", "residual", "transformer", "lenet"])
def test_a_training_step(name, optimizer, monkeypatch):
    if name == "lenet":
        net, shape, classes = make(name)
        x, y = batch(shape, classes, 4)
    else:
        net, shape = NETWORKS[name][0](), NETWORKS[name][1]
        x, y = normal(*shape), nd.array(np.zeros(shape[:-1] if name == "transformer" else shape[:1], "int32"))
        net(x)
    step = hybridize(training_step(net, trainer_of(net, optimizer)))
    graph, constants = graph_of(lambda: step(x, y), monkeypatch)
    assert check(graph, monkeypatch, constants) >= (0 if name == "lenet" else 3)


@pytest.mark.parametrize("seed", range(60))
def test_random_graphs(seed, monkeypatch):
    maker = RandomMaker(seed)
    graph = maker.build()
    if seed % 4 == 1:
        graph = in_a_loop(maker, graph)
    graphs = [graph]
    if seed % 4 == 0 and (joint := gradient_graph(graph, maker.arrays, seed)) is not None:
        graphs.append(joint[0].graph)
    for graph in graphs:
        if all(eq.op.lower is not OPAQUE for eq in every_equation(graph)):
            check(graph, monkeypatch, target=WIDE if seed % 2 else NARROW)
