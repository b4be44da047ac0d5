"""Wrong results once found by hand, each with its shortest program."""

import copy
import pickle

import numpy as np
import pytest

import ndarray as nd
from blocks import Trainer, nn
from hybrid import hybridize
from hybrid.block import HybridBlock
from ndarray import autograd
from tests.networks import MODES


def two_layers():
    net = nn.HybridSequential()
    net.add(nn.Dense(3, in_units=2, dtype="float64"), nn.Dense(1, in_units=3, dtype="float64"))
    net.initialize()
    for i, p in enumerate(net.collect_params().values()):
        p.set_data(nd.array(np.random.default_rng(i).standard_normal(p.shape), dtype="float64"))
    return net


def freeze_for_a_step(net, i):
    net[0].weight.grad_req = "null" if i == 2 else "write"


def change_a_multiplier(net, i):
    net[1].weight.lr_mult = 0.0 if i >= 2 else 1.0


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("change", [freeze_for_a_step, change_a_multiplier])
def test_numbers_of_a_compiled_step_follow_each_weight(mode, change):
    def train(wrap):
        net = two_layers()
        trainer = Trainer(net.collect_params(), "adam", {"learning_rate": 0.05})

        def step(x):
            with autograd.record():
                loss = (net(x) ** 2).mean()
            loss.backward()
            trainer.step(1)

        run = wrap(step)
        for i in range(5):
            change(net, i)
            run(nd.array(np.random.default_rng(9 + i).standard_normal((4, 2)), dtype="float64"))
        return [p.data().asnumpy() for p in net.collect_params().values()]

    for eager, other in zip(train(lambda f: f), train(hybridize(backend=mode))):
        np.testing.assert_allclose(other, eager, rtol=1e-9, atol=1e-12)


class Scaled(HybridBlock):
    def __init__(self, held):
        super().__init__()
        self.held = held

    def forward(self, x):
        return x * nd.array(self.held) if isinstance(self.held, np.ndarray) else x * self.held[0]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("make", [lambda v: np.full(2, v, "float32"), lambda v: [nd.full((2,), v)]], ids=["numpy", "list"])
def test_an_assigned_object_is_noticed(mode, make):
    net, x = Scaled(make(2.0)), nd.ones((2,))
    net.hybridize(backend=mode)
    assert net(x).tolist() == [2, 2]
    net.held = make(5.0)
    assert net(x).tolist() == [5, 5]


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))], ids=["copy", "pickle"])
def test_a_called_hybridized_block_is_copied(duplicate):
    net, x = two_layers(), nd.ones((4, 2), dtype="float64")
    net.hybridize()
    before = net(x).asnumpy()
    other = duplicate(net)
    other[0].weight.set_data(other[0].weight.data() * 2)
    assert not np.allclose(other(x).asnumpy(), before)
    np.testing.assert_array_equal(net(x).asnumpy(), before)


def test_a_gradient_made_anew_is_not_taken_for_a_used_one():
    net, x = two_layers(), nd.ones((4, 2), dtype="float64")
    trainer = Trainer(net.collect_params(), "sgd", {"learning_rate": 0.1})

    def step():
        with autograd.record():
            loss = (net(x) ** 2).mean()
        loss.backward()
        trainer.step(1)

    step()
    net[0].weight.grad_req = "null"
    net[0].weight.grad_req = "write"  # another array now
    before = net[0].weight.data().asnumpy()
    step()
    assert not np.array_equal(net[0].weight.data().asnumpy(), before)
    with pytest.raises(UserWarning, match="has not been updated by backward"):
        trainer.step(1)


@pytest.mark.parametrize("mode", MODES)
def test_a_block_reached_by_a_default_argument_is_watched(mode):
    net, x = two_layers(), nd.ones((4, 2), dtype="float64")
    trainer = Trainer(net.collect_params(), "sgd", {"learning_rate": 0.1})

    @hybridize(backend=mode)
    def step(x, net=net, trainer=trainer):
        with autograd.record():
            loss = (net(x) ** 2).mean()
        loss.backward()
        trainer.step(1)

    step(x)
    net[0].weight.grad_req = "null"
    before = [net[i].weight.data().asnumpy() for i in range(2)]
    step(x)
    np.testing.assert_array_equal(net[0].weight.data().asnumpy(), before[0])
    assert not np.array_equal(net[1].weight.data().asnumpy(), before[1])
