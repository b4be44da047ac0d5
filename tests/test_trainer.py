"""Optimizers against NumPy, and the Trainer on one and two devices."""

import threading

import numpy as np
import pytest

import ndarray as nd
from blocks import Parameter, Trainer, clip_global_norm, init, loss, lr_scheduler, nn, split_and_load, split_data
from blocks import optimizer as opt
from hybrid import hybridize
from ndarray import autograd

rng = np.random.default_rng(1)


def parameter(value):
    p = Parameter("w", shape=value.shape, dtype=value.dtype)
    p.initialize()
    p.set_data(nd.array(value))
    return p


def sgd(w, g, s, t, lr=0.1, momentum=0.9, wd=0.01):
    s["v"] = momentum * s.get("v", 0) - lr * (g + wd * w)
    return w + s["v"]


def nag(w, g, s, t, lr=0.1, momentum=0.9, wd=0.01):
    g = g + wd * w
    s["v"] = momentum * s.get("v", 0) - lr * g
    return w + momentum * s["v"] - lr * g


def adam(w, g, s, t, lr=0.1, beta1=0.9, beta2=0.999, wd=0.01):
    g = g + wd * w
    s["m"] = beta1 * s.get("m", 0) + (1 - beta1) * g
    s["v"] = beta2 * s.get("v", 0) + (1 - beta2) * g * g
    return w - lr * np.sqrt(1 - beta2**t) / (1 - beta1**t) * s["m"] / (np.sqrt(s["v"]) + 1e-8)


def adamw(w, g, s, t, lr=0.1, beta1=0.9, beta2=0.999, wd=0.01):
    s["m"] = beta1 * s.get("m", 0) + (1 - beta1) * g
    s["v"] = beta2 * s.get("v", 0) + (1 - beta2) * g * g
    return w - lr * np.sqrt(1 - beta2**t) / (1 - beta1**t) * (s["m"] / (np.sqrt(s["v"]) + 1e-6) + wd * w)


def lamb(w, g, s, t, lr=0.1, beta1=0.9, beta2=0.999, wd=0.01, low=0.5, high=1.5):
    s["m"] = beta1 * s.get("m", 0) + (1 - beta1) * g
    s["v"] = beta2 * s.get("v", 0) + (1 - beta2) * g * g
    step = s["m"] / (1 - beta1**t) / (np.sqrt(s["v"] / (1 - beta2**t)) + 1e-6) + wd * w
    return w - lr * np.clip(np.linalg.norm(w), low, high) / np.linalg.norm(step) * step


@pytest.mark.parametrize(("name", "settings", "reference"), [
    ("sgd", {"momentum": 0.9}, sgd), ("nag", {"momentum": 0.9}, nag), ("adam", {}, adam), ("adamw", {}, adamw),
    ("lamb", {"lower_bound": 0.5, "upper_bound": 1.5}, lamb),
])
@pytest.mark.parametrize("clip", [None, 0.5])
def test_optimizers_against_numpy(name, settings, reference, clip):
    w = rng.normal(size=(3, 4))
    p = parameter(w)
    trainer = Trainer([p], name, {"learning_rate": 0.1, "wd": 0.01, "clip_gradient": clip, **settings})
    state = {}
    for t in range(1, 6):
        g = rng.normal(size=w.shape) * 4
        with autograd.record():
            y = (p.data() * nd.array(g)).sum()
        y.backward()
        trainer.step(2)
        scaled = g / 2 if clip is None else np.clip(g / 2, -clip, clip)
        w = reference(w, scaled, state, t)
        np.testing.assert_allclose(p.data().asnumpy(), w, rtol=1e-9, atol=1e-9)


def test_multipliers_and_schedules():
    a, b = parameter(np.ones(2)), parameter(np.ones(2))
    b.lr_mult = 0.5
    schedule = lr_scheduler.FactorScheduler(step=1, factor=0.5, base_lr=1.0)
    trainer = Trainer([a, b], "sgd", {"learning_rate": 1.0, "lr_scheduler": schedule})
    for _ in range(2):
        with autograd.record():
            y = (a.data() + b.data()).sum()
        y.backward()
        trainer.step(1)
    np.testing.assert_allclose(a.data().asnumpy(), np.full(2, 1 - 1 - 0.5))
    np.testing.assert_allclose(b.data().asnumpy(), np.full(2, 1 - 0.5 - 0.25))
    assert trainer.learning_rate == 0.5
    with pytest.raises(UserWarning, match="lr_scheduler"):
        trainer.set_learning_rate(1.0)


def test_schedules():
    cosine = lr_scheduler.CosineScheduler(100, base_lr=1.0, final_lr=0.1, warmup_steps=10)
    assert cosine(5) == pytest.approx(0.5)
    assert cosine(10) == pytest.approx(1.0)
    assert cosine(55) == pytest.approx(0.55)
    assert cosine(1000) == pytest.approx(0.1)
    multi = lr_scheduler.MultiFactorScheduler([5, 10], 0.1, base_lr=1.0)
    assert [multi(5), multi(6), multi(11)] == pytest.approx([1, 0.1, 0.01])
    assert lr_scheduler.PolyScheduler(10, base_lr=1.0, pwr=2)(5) == pytest.approx(0.25)
    with pytest.raises(ValueError):
        lr_scheduler.MultiFactorScheduler([5, 5])


def net_of(devices, seed=5):
    nd.random.seed(seed)
    net = nn.HybridSequential()
    net.add(nn.Dense(8, activation="relu", in_units=5), nn.Dense(3, in_units=8))
    net.initialize(init.Xavier(), device=devices)
    return net


def train(net, devices, steps=4, settings=None, **options):
    trainer = Trainer(net.collect_params(), "sgd", settings or {"learning_rate": 0.1, "momentum": 0.9}, **options)
    fn = loss.SoftmaxCrossEntropyLoss()
    data = np.random.default_rng(2)
    for _ in range(steps):
        x, y = data.normal(size=(6, 5)).astype("float32"), data.integers(0, 3, 6)
        xs, ys = split_and_load(nd.array(x), devices), split_and_load(nd.array(y), devices)
        with autograd.record():
            losses = [fn(net(a), b) for a, b in zip(xs, ys)]
        autograd.backward(losses)
        trainer.step(6)
    return trainer


@pytest.mark.parametrize("options", [{}, {"kvstore": "local"}, {"update_on_kvstore": True}])
def test_two_devices_train_as_one(options):
    single, double = [nd.cpu(0)], [nd.cpu(0), nd.cpu(1)]
    one, two = net_of(single), net_of(double)
    train(one, single)
    train(two, double, **options)
    for a, b in zip(one.collect_params().values(), two.collect_params().values()):
        for copy in b.list_data():
            np.testing.assert_allclose(copy.asnumpy(), a.data().asnumpy(), rtol=1e-5, atol=1e-6)


def test_stale_gradients():
    used, unused = parameter(np.ones(2)), parameter(np.ones(2))
    trainer = Trainer([used, unused], "sgd", {"learning_rate": 1.0})
    for p in (used, unused):
        with autograd.record():
            y = p.data().sum()
        y.backward()
    trainer.step(1)
    with autograd.record():
        y = used.data().sum()
    y.backward()
    with pytest.raises(UserWarning, match="ignore_stale_grad"):
        trainer.step(1)
    trainer.step(1, ignore_stale_grad=True)
    assert used.data().asnumpy()[0] == -1
    assert unused.data().asnumpy()[0] == 0


def test_states_survive(tmp_path):
    path = tmp_path / "states"
    devices = [nd.cpu(0)]
    net = net_of(devices)
    trainer = train(net, devices, 2)
    trainer.save_states(path)
    net.save_parameters(tmp_path / "net")
    train_more = [net]
    other = net_of(devices)
    other.load_parameters(tmp_path / "net")
    train_more.append(other)
    results = []
    for n, t in ((net, trainer), (other, None)):
        if t is None:
            t = Trainer(n.collect_params(), "sgd", {"learning_rate": 0.1, "momentum": 0.9})
            t.load_states(path)
        x = nd.ones((2, 5))
        with autograd.record():
            y = n(x).sum()
        y.backward()
        t.step(2)
        results.append([p.data().asnumpy() for p in n.collect_params().values()])
    for a, b in zip(*results):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(ValueError, match="adam"):
        Trainer(net.collect_params(), "adam").load_states(path)
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(ValueError, match="states"):
        trainer.load_states(path)


def test_allreduce_then_update_and_clipping():
    devices = [nd.cpu(0), nd.cpu(1)]
    net = net_of(devices)
    trainer = Trainer(net.collect_params(), "sgd", {"learning_rate": 0.1})
    xs = split_and_load(nd.ones((4, 5)), devices)
    with autograd.record():
        outs = [net(x).sum() for x in xs]
    autograd.backward(outs)
    trainer.allreduce_grads()
    grads = [p.list_grad() for p in net.collect_params().values()]
    for g in grads:
        np.testing.assert_array_equal(*(a.asnumpy() for a in g))
    norm = np.sqrt(sum((g[0].asnumpy() ** 2).sum() for g in grads))
    assert clip_global_norm([g[0] for g in grads], norm / 2) == pytest.approx(norm, rel=1e-5)
    clipped = np.sqrt(sum((g[0].asnumpy() ** 2).sum() for g in grads))
    assert clipped == pytest.approx(norm / 2, rel=1e-4)
    trainer.update(4)


def test_errors():
    with pytest.raises(ValueError, match="Parameter"):
        Trainer([1], "sgd")
    p = parameter(np.ones(2))
    with pytest.raises(ValueError, match="batch_size"):
        Trainer([p], "sgd").step(0)
    with pytest.raises(TypeError, match="momentums"):
        Trainer([p], "sgd", {"momentums": 1})
    with pytest.raises(ValueError, match="multiple"):
        split_data(nd.ones((5, 2)), 2)
    assert [a.shape[0] for a in split_data(nd.ones((5, 2)), 2, even_split=False)] == [2, 3]


def test_a_changed_learning_rate_makes_no_new_program():
    p = parameter(np.ones(3))
    trainer = Trainer([p], opt.SGD(learning_rate=0.5))
    for lr in (0.5, 0.25):
        trainer.set_learning_rate(lr)
        with autograd.record():
            y = p.data().sum()
        y.backward()
        trainer.step(1)
    np.testing.assert_allclose(p.data().asnumpy(), np.full(3, 0.25))
    assert len(trainer.optimizer._programs) == 1


def test_gradients_of_all_keys_are_summed_in_one_native_call():
    from jit.runtime import native_calls

    devices = [nd.cpu(0), nd.cpu(1)]
    net = net_of(devices)
    trainer = Trainer(net.collect_params(), "sgd", {"learning_rate": 0.1})
    for i in range(3):
        grads = [p.list_grad() for p in net.collect_params().values()]
        for g in grads:
            for k, a in enumerate(g):
                a[...] = i + k + 1.0
        versions = [a._version for g in grads for a in g]
        before = native_calls()
        trainer.allreduce_grads()
        assert native_calls() == before + 1
        assert all(a._version > v for a, v in zip([a for g in grads for a in g], versions))
        assert all((a.asnumpy() == 2 * i + 3).all() for g in grads for a in g)
    assert trainer._kvstore._program.traces == 1


def test_steps_and_updates_share_what_they_have_used():
    """A gradient that one way of updating has used is stale for the others too."""
    p = Parameter("w", shape=(3,), init="one")
    p.initialize()
    trainer = Trainer([p], "sgd", {"learning_rate": 0.5})

    def backward():
        with autograd.record():
            value = (p.data() * 2).sum()
        value.backward()

    for first, second in ((trainer.step, trainer.step), (trainer.update, trainer.step), (trainer.step, trainer.update)):
        backward()
        first(1)
        with pytest.raises(UserWarning, match="has not been updated"):
            second(1)
        second(1, ignore_stale_grad=True)
    np.testing.assert_allclose(p.data().asnumpy(), 1 - 3 * 0.5 * 2)
    p.data().attach_grad()  # another array for the gradient
    backward()
    trainer.step(1)
    np.testing.assert_allclose(p.data().asnumpy(), 1 - 4 * 0.5 * 2)
    p.grad_req = "null"
    trainer.step(1)
    np.testing.assert_allclose(p.data().asnumpy(), 1 - 4 * 0.5 * 2)


@pytest.mark.parametrize("kind", ["adam", "sgd"])
def test_numbers_of_a_traced_step_are_read_together(kind):
    """Rates of single weights, schedules and counts change between calls of one program; threads take turns."""
    def make():
        nd.random.seed(3)
        net = nn.HybridSequential()
        net.add(nn.Dense(5, activation="tanh", in_units=4), nn.Dense(2, in_units=5))
        net.initialize(init.Uniform(0.5))
        trainer = Trainer(net.collect_params(), kind, {"learning_rate": 0.1, "wd": 0.01})
        return net, trainer

    x = nd.array(np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4))
    results = []
    for compiled in (False, True):
        net, trainer = make()

        def step(x, net=net, trainer=trainer):
            with autograd.record():
                value = (net(x) ** 2).mean()
            value.backward()
            trainer.step(1)
            return value

        run = hybridize(step) if compiled else step
        parameters = list(net.collect_params().values())
        for n in range(6):
            parameters[1].lr_mult = 1.0 + n
            parameters[2].wd_mult = 0.5 * n
            trainer.set_learning_rate(0.1 / (1 + n))
            run(x)
        threads = [threading.Thread(target=lambda run=run: [run(x) for _ in range(5)]) for _ in range(2 if compiled else 0)]
        for t in threads:
            t.start()
        for t in threads:
            t.join(60)
        for _ in range(0 if compiled else 10):
            run(x)
        results.append([p.data().asnumpy() for p in parameters])
        if compiled:
            assert run.traces == 1
    for eager, traced in zip(*results, strict=True):
        np.testing.assert_allclose(traced, eager, rtol=1e-4, atol=1e-5)
