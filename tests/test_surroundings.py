"""Python values outside the arguments that a trace bakes in: changing them in place must not go unnoticed."""

import array
import collections
import functools
import types
from dataclasses import dataclass

import numpy as np
import pytest

import ndarray as nd
from blocks import HybridBlock, Trainer, nn
from hybrid import hybridize
from hybrid.surroundings import Surroundings
from ndarray import autograd


class Holder(HybridBlock):
    def __init__(self):
        super().__init__()
        self.factors = [1.0, 2.0]
        self.options = types.SimpleNamespace(shift=2.0, unused=0)
        self.arrays = [nd.ones(3), nd.ones(3) * 2]
        self.layers = [nn.Dense(3, in_units=3, use_bias=False), nn.Activation("relu")]
        self.layers[0].initialize()
        self.table = np.arange(3.0)
        self.names = {"x": 1}
        self.large = list(range(30_000))

    def count(self, x):
        return x + len(self.names)

    def forward(self, x):
        for f in self.factors:
            x = x * f
        x = x * self.options.shift + self.arrays[0]
        for layer in self.layers:
            x = layer(x)
        return self.count(x) + nd.array(self.table) + self.large[0]


CHANGES = {
    "append": lambda net: net.factors.append(4.0),
    "an item": lambda net: net.factors.__setitem__(0, 3.0),
    "an int for a float": lambda net: net.factors.__setitem__(0, 1),
    "an object's attribute": lambda net: setattr(net.options, "shift", 5.0),
    "another array": lambda net: net.arrays.__setitem__(0, nd.ones(3) * 7),
    "an array's numbers": lambda net: net.arrays[0].__setitem__(slice(None), 3.0),
    "the order of layers": lambda net: net.layers.reverse(),
    "a layer less": lambda net: net.layers.pop(),
    "a layer more": lambda net: net.layers.append(nn.Activation("sigmoid")),
    "an attribute of a layer in a list": lambda net: setattr(net.layers[1], "_act_type", "tanh"),
    "a NumPy array": lambda net: net.table.__setitem__(1, 9.0),
    "a dict that a method reads": lambda net: net.names.update(y=3),
}


@pytest.mark.parametrize("what", CHANGES)
def test_changes_in_place_of_what_a_block_holds(what):
    net = Holder()
    net.hybridize()
    x = nd.array([[1.0, -2.0, 3.0]])
    net(x), net(x)
    CHANGES[what](net)
    for _ in range(2):
        np.testing.assert_allclose(net(x).asnumpy(), net.forward(x).asnumpy(), rtol=1e-6)


def test_what_the_code_does_not_mention_does_not_count():
    net = Holder()
    net.hybridize()
    x = nd.ones((1, 3))
    net(x)
    net.options.unused = 1
    net(x)
    assert net._compiled.traces == 1


class Settings:
    factor = 2.0


@dataclass(slots=True)
class Slotted:
    factor: float


@pytest.mark.parametrize("settings", [Settings, Settings(), Slotted(2.0), types.SimpleNamespace(factor=2.0)])
def test_attributes_of_objects_and_classes(settings):
    f = hybridize(lambda x: x * settings.factor)
    x = nd.array([1.0, 2.0])
    f(x)
    old = settings.factor
    settings.factor = 5.0
    try:
        np.testing.assert_array_equal(f(x).asnumpy(), [5.0, 10.0])
        assert f.traces == 2
    finally:
        settings.factor = old


def test_an_object_as_argument():
    class Learner:
        def __init__(self):
            self.scale, self.net = 2.0, nn.Dense(2, in_units=3)
            self.net.initialize()

        def scaled(self, x):
            return x * self.scale

        @hybridize
        def step(self, x):
            return self.scaled(self.net(x))

    learner, x = Learner(), nd.array([[1.0, -2.0, 3.0]])
    first = learner.step(x).asnumpy()
    learner.scale = 4.0
    np.testing.assert_allclose(learner.step(x).asnumpy(), first * 2, rtol=1e-6)
    learner.net.weight.set_data(nd.zeros((2, 3)))
    np.testing.assert_array_equal(learner.step(x).asnumpy(), np.zeros((1, 2)))


def test_helpers_of_a_net_reached_by_closure():
    shared = {"k": 2.0}

    class Net(HybridBlock):
        def helper(self, x):
            return x * shared["k"]

        def forward(self, x):
            return self.helper(x)

    net = Net()
    f = hybridize(lambda x: net(x) + 1)
    x = nd.array([1.0])
    assert f(x).item() == 3.0
    shared["k"] = 5.0
    assert f(x).item() == 6.0


@pytest.mark.parametrize(("setting", "value"), [("clip_gradient", 0.01), ("clip_gradient", None), ("momentum", 0.0)])
def test_settings_of_an_optimizer_in_a_traced_step(setting, value):
    def train(wrap):
        net = nn.Dense(1, in_units=2, dtype="float64")
        net.initialize()
        net.weight.set_data(nd.array([[0.5, -1.0]], dtype="float64"))
        trainer = Trainer(net.collect_params(), "sgd", {"learning_rate": 0.5, "momentum": 0.9, "clip_gradient": 0.1})
        x = nd.array([[1.0, 2.0], [3.0, -1.0]], dtype="float64")

        def step(x):
            with autograd.record():
                loss = (net(x) ** 2).mean()
            loss.backward()
            trainer.step(1)

        run = wrap(step)
        for i in range(6):
            if i == 3:
                setattr(trainer.optimizer, setting, value)
            run(x)
        return net.weight.data().asnumpy(), run

    (eager, _), (compiled, step) = train(lambda f: f), train(hybridize)
    np.testing.assert_allclose(compiled, eager, rtol=1e-12)
    assert step.traces <= 2


class Reads:
    """An object whose value 2.0 is reached through Python's own protocols only."""

    def __init__(self):
        self._rate, self._table = 2.0, {"rate": 2.0}

    @property
    def rate(self):
        return self._rate

    def plain(self):
        return self._rate

    def __call__(self, x):
        return x * self._rate

    def __mul__(self, x):
        return x * self._rate

    def __getitem__(self, key):
        return self._table[key]

    def __getattr__(self, name):
        if name.startswith("_"):
            raise AttributeError(name)
        return self._table[name.removesuffix("_later")]


@pytest.mark.parametrize("use", [
    lambda r, x: x * r.rate, lambda r, x: r(x), lambda r, x: r * x, lambda r, x: x * r["rate"], lambda r, x: x * r.rate_later,
])  # fmt: skip
def test_what_special_methods_and_properties_read_is_watched(use):
    reads, x = Reads(), nd.ones(3)
    outside, argument = hybridize(lambda x: use(reads, x)), hybridize(lambda x, r: use(r, x))
    assert outside(x).tolist() == argument(x, reads).tolist() == [2.0] * 3
    reads._rate = reads._table["rate"] = 3.0
    assert outside(x).tolist() == argument(x, reads).tolist() == [3.0] * 3


@pytest.mark.parametrize("make", [
    lambda: collections.deque([2]), lambda: array.array("q", [2]), lambda: bytearray([2]), lambda: collections.UserList([2]),
])  # fmt: skip
def test_containers_of_the_standard_library_are_watched(make):
    held, x = make(), nd.ones(3)
    double = hybridize(lambda x: x * held[0])
    assert double(x).tolist() == [2.0] * 3
    held[0] = 3
    assert double(x).tolist() == [3.0] * 3


def held_functions(factors):
    def times(x):
        return x * factors[0]

    reads = types.SimpleNamespace(run=times)
    yield lambda x: [times][0](x)
    table = {"run": times}
    yield lambda x: table["run"](x)
    yield lambda x: reads.run(x)
    partial = functools.partial(lambda f, x: x * f[0], factors)
    yield lambda x: partial(x)
    proxy = types.MappingProxyType({"factors": factors})
    yield lambda x: x * proxy["factors"][0]


@pytest.mark.parametrize("number", range(5))
def test_functions_in_containers_and_attributes_are_looked_into(number):
    factors, x = [2.0], nd.ones(3)
    compiled = hybridize(list(held_functions(factors))[number])
    assert compiled(x).tolist() == [2.0] * 3
    factors[0] = 3.0
    assert compiled(x).tolist() == [3.0] * 3


def test_a_bound_method_is_watched_with_its_object():
    reads, x = Reads(), nd.ones(3)
    bound = reads.plain
    compiled = hybridize(lambda x: x * bound())
    assert compiled(x).tolist() == [2.0] * 3
    reads._rate = 3.0
    assert compiled(x).tolist() == [3.0] * 3


def test_a_block_with_children_of_the_users_takes_the_shortest_way():
    class Inner(HybridBlock):
        def forward(self, x):
            return x * 2

    class Outer(HybridBlock):
        def __init__(self):
            super().__init__()
            self.inner = Inner()
            self.activation = nd.tanh

        def forward(self, x):
            return self.activation(self.inner(x))

    net = Outer()
    net.hybridize()
    net(nd.ones(3))
    assert net._compiled._shortest


def test_the_content_of_constant_tuples_is_looked_at_once():
    """However deep they are; a tuple with a list in it is looked into each time."""
    deep = (1, (2, (3, (4, (5, (6, "seven"))))))
    changing, parts = ([1], 2), [deep, 8]

    def function(x):
        return x * len(deep) * len(changing) * len(parts)

    around = Surroundings([function])
    first, second = around.key(around.read()), around.key(around.read())
    assert first == second
    number = around.names.index("deep")
    assert first[number] is second[number]
    changing[0].append(3)
    assert around.key(around.read()) != second
    third = around.key(around.read())
    parts[0] = (1, (2, (3, (4, (5, (6, "eight"))))))
    assert around.key(around.read()) != third
