"""Hybridized Blocks and whole training steps give what eager ones give."""

import numpy as np
import pytest

import hybrid
import ndarray as nd
from blocks import HybridBlock, Parameter, Trainer, init, loss, lr_scheduler, nn, split_and_load
from blocks.optimizer import Optimizer
from kvstore import KVStore
from ndarray import autograd

BACKENDS = ["interpreter", "jit"]


@pytest.fixture(autouse=True)
def update_with_the_same_backend(request, monkeypatch):
    backend = getattr(request.node, "callspec", None) and request.node.callspec.params.get("backend")
    compile = lambda function: hybrid.CompiledFunction(function, backend=backend or "interpreter")
    monkeypatch.setattr(Optimizer, "compile", staticmethod(compile))
    monkeypatch.setattr(KVStore, "compile", staticmethod(compile))


def lenet(dtype="float32", rate=0.3):
    nd.random.seed(11)
    net = nn.HybridSequential()
    net.add(
        nn.Conv2D(4, 3, padding=1, activation="relu", in_channels=1, dtype=dtype),
        nn.BatchNorm(in_channels=4, dtype=dtype),
        nn.MaxPool2D(2),
        nn.Flatten(),
        nn.Dropout(rate),
        nn.Dense(8, activation="tanh", in_units=64, dtype=dtype),
        nn.Dense(3, in_units=8, dtype=dtype),
    )
    net.initialize(init.Xavier())
    return net


def batches(count, dtype, sizes=(6,)):
    rng = np.random.default_rng(0)
    for i in range(count):
        n = sizes[i % len(sizes)]
        yield nd.array(rng.normal(size=(n, 1, 8, 8)).astype(dtype)), nd.array(rng.integers(0, 3, n))


def values(net, trainer=None):
    found = {name: p.data().asnumpy() for name, p in net.collect_params().items()}
    if trainer is not None:
        for device in trainer._updaters.values():
            for i, state in device.states.items():
                for k, s in enumerate(state if isinstance(state, tuple) else (state,)):
                    found[f"state {i} {k}"] = s.asnumpy()
    return found


def assert_same(a, b, rtol):
    assert a.keys() == b.keys()
    for name in a:
        scale = np.abs(a[name]).max() + 1e-30
        assert np.abs(a[name] - b[name]).max() <= rtol * scale, name


def eager_step(net, trainer, fn):
    def step(x, y):
        with autograd.record():
            value = fn(net(x), y)
        value.backward()
        trainer.step(x.shape[0])
        return value

    return step


OPTIMIZERS = [("sgd", {"learning_rate": 0.1, "momentum": 0.9, "wd": 1e-3}), ("adam", {"learning_rate": 0.01})]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("name", "settings"), OPTIMIZERS)
def test_hybridized_net_trains_like_the_eager_one(backend, name, settings):
    results = []
    for active in (False, True):
        net = lenet("float64")
        if active:
            net.hybridize(backend=backend)
        trainer = Trainer(net.collect_params(), name, settings)
        step = eager_step(net, trainer, loss.SoftmaxCrossEntropyLoss())
        losses = [step(x, y).asnumpy() for x, y in batches(6, "float64", (6, 5))]
        results.append({**values(net, trainer), "losses": np.concatenate(losses)})
    assert_same(*results, 1e-9)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("name", "settings"), OPTIMIZERS)
def test_a_whole_training_step_is_one_program(backend, name, settings):
    results = []
    for active in (False, True):
        net = lenet("float64")
        settings = {**settings, "lr_scheduler": lr_scheduler.FactorScheduler(2, 0.5)}
        trainer = Trainer(net.collect_params(), name, settings)
        step = eager_step(net, trainer, loss.SoftmaxCrossEntropyLoss())
        if active:
            step = hybrid.hybridize(step, backend=backend)
        losses = [step(x, y).asnumpy() for x, y in batches(6, "float64", (6, 5))]
        results.append({**values(net, trainer), "losses": np.concatenate(losses)})
        assert trainer.optimizer.num_update == 6
        if active:
            assert step.traces <= 2  # a fixed size, then any
    assert_same(*results, 1e-9)


@pytest.mark.parametrize("backend", BACKENDS)
def test_running_statistics_are_state(backend):
    nets = [lenet(rate=0.0), lenet(rate=0.0)]
    nets[1].hybridize(backend=backend)
    for x, _ in batches(3, "float32"):
        for net in nets:
            with autograd.record():
                net(x)
    assert_same(values(nets[0]), values(nets[1]), 1e-5)
    x, _ = next(batches(1, "float32"))
    np.testing.assert_allclose(nets[1](x).asnumpy(), nets[0](x).asnumpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_dropout_draws_the_same_bits(backend):
    layer = nn.Dropout(0.4)
    x = nd.ones((37, 5))
    masks = []
    for active in (False, True):
        layer.hybridize(active, backend=backend)
        nd.random.seed(5)
        with autograd.record():
            masks.append([layer(x).asnumpy() for _ in range(3)])
    np.testing.assert_array_equal(*masks)
    assert not np.array_equal(masks[0][0], masks[0][1])


@pytest.mark.parametrize("backend", BACKENDS)
def test_deferred_parameters_in_a_first_compiled_call(backend):
    x = nd.array(np.random.default_rng(0).normal(size=(3, 5)).astype("float32"))
    nets, outs = [], []
    for active in (False, True):
        nd.random.seed(3)
        net = nn.HybridSequential()
        net.add(nn.Dense(4, activation="relu"), nn.BatchNorm(), nn.Dense(2))
        net.initialize()
        if active:
            net.hybridize(backend=backend)
        outs.append(net(x).asnumpy())
        nets.append(net)
    np.testing.assert_allclose(*outs, rtol=1e-5, atol=1e-6)
    assert_same(values(nets[0]), values(nets[1]), 0)


def test_attributes_are_part_of_the_signature():
    class Scale(HybridBlock):
        def __init__(self):
            super().__init__()
            self.factor = 2
            self.w = Parameter("w", shape=(1,), init="ones")

        def forward(self, x):
            return x * self.factor * self.w.data()

    net = Scale()
    net.initialize()
    net.hybridize(backend="interpreter")
    x = nd.ones((2,))
    assert net(x).asnumpy()[0] == 2
    net.factor = 3
    assert net(x).asnumpy()[0] == 3
    net.w.set_data(nd.full((1,), 5.0))
    assert net(x).asnumpy()[0] == 15
    net.cast("float64")
    assert net(x.astype("float64")).dtype == np.float64
    net.reset_device(nd.cpu(1))
    assert net(nd.ones((2,), dtype="float64", device=nd.cpu(1))).device == nd.cpu(1)


def test_changed_rates_and_repeated_signatures_compile_nothing():
    net = lenet()
    net.hybridize(backend="interpreter")
    trainer = Trainer(net.collect_params(), "sgd", {"learning_rate": 0.1, "momentum": 0.9})
    step = eager_step(net, trainer, loss.SoftmaxCrossEntropyLoss())
    data = list(batches(4, "float32"))
    step(*data[0])
    (program,) = trainer.optimizer._programs.values()
    traces, compilations = program.traces, program.compilations
    for i, (x, y) in enumerate(data[1:]):
        trainer.set_learning_rate(0.05 / (i + 1))
        trainer.optimizer.wd = 0.1 * i
        trainer.optimizer.momentum = 0.5 + 0.1 * i
        step(x, y)
    assert (program.traces, program.compilations) == (traces, compilations) == (1, 1)
    assert net._compiled.traces == 1


@pytest.mark.parametrize("backend", BACKENDS)
def test_two_devices_hybridized(backend):
    results = []
    for devices in ([nd.cpu(0)], [nd.cpu(0), nd.cpu(1)]):
        nd.random.seed(11)
        net = nn.HybridSequential()
        net.add(nn.Conv2D(4, 3, in_channels=1, activation="relu"), nn.Flatten(), nn.Dense(3, in_units=144))
        net.initialize(init.Xavier(), device=devices)
        net.hybridize(backend=backend)
        trainer = Trainer(net.collect_params(), "sgd", {"learning_rate": 0.1, "momentum": 0.9})
        fn = loss.SoftmaxCrossEntropyLoss()
        for x, y in batches(3, "float32"):
            with autograd.record():
                pairs = zip(split_and_load(x, devices), split_and_load(y, devices))
                losses = [fn(net(a), b) for a, b in pairs]
            autograd.backward(losses)
            trainer.step(6)
        results.append({name: p.data(nd.cpu(0)).asnumpy() for name, p in net.collect_params().items()})
    assert_same(*results, 1e-5)


def test_hooks_and_explain():
    net = lenet()
    net.hybridize(backend="interpreter")
    seen = []
    net.register_forward_hook(lambda block, args, out: seen.append(out.shape))
    x, _ = next(batches(1, "float32"))
    net(x)
    net(x)
    assert seen == [(6, 3), (6, 3)]
    assert "0.weight" in net.explain(x)
    with pytest.raises(RuntimeError, match="hybridize"):
        net.summary(x)
