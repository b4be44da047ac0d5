"""Gradients through and within hybridized functions, to second order; a whole training step."""

import numpy as np
import pytest

import ndarray as nd
from ndarray import autograd
from ndarray.testing import assert_close
from tests.tracing import compiled, normal

pytestmark = pytest.mark.usefixtures("verified")


def test_gradients_inside_become_part_of_the_graph():
    w = normal(3)
    w.attach_grad()

    def step(x):
        with autograd.record():
            loss = (nd.tanh(x * w) ** 2).sum()
        loss.backward()
        with autograd.pause():
            w[...] = w - 0.1 * w.grad
        return loss

    f = compiled(step)
    x, start = normal(4, 3, seed=1), w.asnumpy()
    losses = [step(x).item() for _ in range(3)]
    after = w.asnumpy()
    w[...] = nd.array(start)
    assert_close(nd.array([f(x).item() for _ in range(3)]), nd.array(losses))
    assert_close(w, after)
    assert f.traces == 1
    assert w.grad.asnumpy().any()


def test_grad_inside_with_create_graph():
    @compiled
    def f(x):
        x = x * 1
        x.attach_grad()
        with autograd.record():
            g = autograd.grad((x ** 3).sum(), x, create_graph=True)
            penalty = (g ** 2).sum()
        return autograd.grad(penalty, x)

    x = normal(3, dtype="float64")
    assert_close(f(x), 36 * x ** 3)


def test_a_recorded_call_is_one_node_and_differentiable():
    w = normal(4, 2, dtype="float64")
    function = lambda x: nd.tanh(nd.dot(x, w))
    f = compiled(function)
    for n in (3, 5, 1):
        x = normal(n, 4, dtype="float64")
        results = []
        for g in (function, f):
            w.attach_grad()
            x.attach_grad()
            with autograd.record():
                y = g(x)
                if g is f:
                    assert y._node[0].inputs == (x._node, w._node)
                loss = (y * y).sum()
            loss.backward()
            results.append((x.grad.asnumpy(), w.grad.asnumpy()))
        for a, b in zip(*results):
            np.testing.assert_allclose(b, a, rtol=1e-12)


def test_second_order_through_a_recorded_call():
    w = normal(3, dtype="float64")

    def function(x):
        return nd.exp(nd.sin(x) * w).sum() + (x ** 3).sum()

    f = compiled(function)
    results = []
    for g in (function, f):
        x = normal(3, seed=1, dtype="float64")
        x.attach_grad()
        w.attach_grad()
        with autograd.record():
            first = autograd.grad(g(x), x, create_graph=True)
            second = autograd.grad((first ** 2).sum(), x, create_graph=True)
            last = (second * w).sum()
        last.backward()
        results.append([a.asnumpy() for a in (first, second, x.grad, w.grad)])
    for a, b in zip(*results):
        np.testing.assert_allclose(b, a, rtol=1e-9)


def test_second_order_with_dropout_draws_the_same_mask():
    def function(x):
        return nd.where(nd.random.uniform(shape=x.shape) < 0.5, x ** 3, x ** 2).sum()

    f = compiled(function)
    results = []
    for g in (function, f):
        nd.random.seed(3)
        x = normal(50, dtype="float64")
        x.attach_grad()
        with autograd.record():
            first = autograd.grad(g(x), x, create_graph=True)
            last = (first ** 2).sum()
        last.backward()
        results.append([first.asnumpy(), x.grad.asnumpy()])
    for a, b in zip(*results):
        np.testing.assert_allclose(b, a, rtol=1e-9)


def test_pause_inside_stops_the_gradient_of_an_outer_record():
    def function(x):
        with autograd.pause():
            c = x * 3
        return (x * c).sum() + (x.detach() * x).sum()

    f = compiled(function)
    for g in (function, f):
        x = normal(3)
        x.attach_grad()
        with autograd.record():
            y = g(x)
        y.backward()
        assert_close(x.grad, x * 4)


def test_several_results_some_unused_some_integer():
    f = compiled(lambda x: (x * 2, nd.argmax(x), x * x, x.sum()))
    x = normal(4)
    x.attach_grad()
    with autograd.record():
        a, index, _, total = f(x)
        loss = (a * 3).sum() + total
    loss.backward()
    assert index._node is None
    assert_close(x.grad, nd.ones((4,)) * 7)


def test_gradient_through_two_compiled_calls_and_grad_add():
    f = compiled(lambda x: x * x)
    x = normal(3)
    x.attach_grad("add")
    for _ in range(2):
        with autograd.record():
            y = f(f(x)).sum()
        y.backward()
    assert_close(x.grad, 8 * x ** 3)
    assert f.traces == 1


def test_what_was_kept_must_not_be_written():
    f = compiled(lambda x: nd.sin(x) * x)
    x = normal(3)
    x.attach_grad()
    with autograd.record():
        y = f(x)
    with autograd.pause():
        x[...] = 0
    with pytest.raises(RuntimeError, match="written in place"):
        y.backward()


def test_a_whole_training_step():
    from blocks import loss, nn
    from blocks.trainer import Trainer
    from kvstore.optimizer import Optimizer

    def train(whole):
        nd.random.seed(1)
        net = nn.HybridSequential()
        net.add(nn.Dense(8, activation="relu", in_units=5), nn.Dropout(0.5), nn.BatchNorm(in_channels=8), nn.Dense(3, in_units=8))
        net.initialize()
        trainer = Trainer(net.collect_params(), "adam", {"learning_rate": 0.05}, update_on_kvstore=False)
        criterion = loss.SoftmaxCrossEntropyLoss()

        def step(x, y):
            with autograd.record():
                out = criterion(net(x), y).mean()
            out.backward()
            trainer.step(1)
            return out

        run = compiled(step) if whole else step
        losses = []
        for i in range(6):
            n = 6 if i % 2 else 4
            if i == 3:
                trainer.set_learning_rate(0.01)
            losses.append(run(normal(n, 5, seed=i), nd.array(np.arange(n) % 3)).item())
        return losses, [p.data().asnumpy() for p in net.collect_params().values()], run

    original = Optimizer.compile
    Optimizer.compile = staticmethod(lambda f: f)
    try:
        expected, compiled_ = train(False), train(True)
    finally:
        Optimizer.compile = original
    np.testing.assert_allclose(compiled_[0], expected[0], rtol=1e-5)
    for a, b in zip(expected[1], compiled_[1]):
        np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-6)
    assert compiled_[2].traces == 2


def test_a_gradient_of_an_argument_taken_inside():
    def function(x, y):
        with autograd.record():
            loss = (x * x * y).sum()
        loss.backward()
        return loss

    f = compiled(function)
    for seed in range(3):
        x, y = normal(3, seed=seed), normal(3, seed=9)
        x.attach_grad("add" if seed == 2 else "write")
        f(x, y)
        assert_close(x.grad, 2 * x * y)
        f(x, y)
        assert_close(x.grad, 2 * x * y * (2 if seed == 2 else 1))
    assert f.traces == 2
    with pytest.raises(RuntimeError, match="not recorded"):
        f(normal(3), normal(3))


def test_a_gradient_with_a_guard_of_its_own():
    f = compiled(lambda x: x[: x.shape[0] - 1] * 2)
    for n in (4, 6, 3, 2):
        x = normal(n, 2)
        x.attach_grad()
        with autograd.record():
            y = f(x).sum()
        y.backward()
        assert x.grad.asnumpy()[-1].tolist() == [0, 0]


class Clip(autograd.Function):
    """Straight through: the identity's gradient for a step."""

    def forward(self, x):
        return nd.sign(x)

    def backward(self, dy):
        return dy * 3


def test_a_function_with_its_own_gradient():
    x = normal(3)

    @compiled
    def inside(x):
        with autograd.record():
            y = (Clip()(x) * 2).sum()
        y.backward()

    x.attach_grad()
    inside(x)
    assert_close(x.grad, nd.ones((3,)) * 6)
    f = compiled(lambda x: Clip()(x))
    assert_close(f(x), nd.sign(x))
    with autograd.record():
        y = (f(x) * 2).sum()
    y.backward()
    assert_close(x.grad, nd.ones((3,)) * 6)
