"""autograd.checkpoint: the same gradients of any order with less memory; hooks; the memory of a backward."""

from __future__ import annotations

import itertools
import tracemalloc

import numpy as np
import pytest

import hybrid
import ndarray as nd
from blocks import nn
from ndarray import autograd
from ndarray.testing import assert_close, check_gradients

RANDOM = np.random.default_rng(3)


def leaf(*shape):
    x = nd.array(RANDOM.standard_normal(shape))
    x.attach_grad()
    return x


def test_gradients_of_arguments_weights_and_closures():
    x, y, w = leaf(3, 4), leaf(3, 4), leaf(4)

    def run(wrapped):
        with autograd.record():
            hidden = x * 2
            outer = nd.sin(x)  # recorded outside, reached by closure

            def inside(a, *, pair):
                b, c = pair
                return {"s": nd.tanh(a * w) + b * outer, "t": [c * c, nd.floor(a), 7]}

            out = wrapped(inside)(hidden, pair=(y, hidden))
            assert out["t"][2] == 7
            loss = (out["s"] * out["t"][0] + out["t"][1]).sum()
        loss.backward()
        return [loss.asnumpy(), x.grad.asnumpy(), y.grad.asnumpy(), w.grad.asnumpy()]

    for a, b in zip(run(autograd.checkpoint), run(lambda f: f)):
        assert_close(a, b)


def test_any_order_and_nested():
    def function(x, w):
        inner = autograd.checkpoint(lambda v: nd.exp(v * w))
        return autograd.checkpoint(lambda v: nd.sin(inner(v)) * inner(v * 0.5))(x)

    check_gradients(function, [RANDOM.uniform(-1, 1, (2, 3)), RANDOM.uniform(-1, 1, (3,))], order=3, limit=1e-4)


def test_only_what_the_caller_of_grad_wants():
    x, w = leaf(3), leaf(3)
    with autograd.record():
        y = autograd.checkpoint(lambda v: v * v * w)(x)
    assert_close(autograd.grad(y, [w], retain_graph=True)[0], x * x)
    assert_close(autograd.grad(y, x, retain_graph=True), 2 * x * w)
    y.backward()
    with pytest.raises(RuntimeError, match="freed"):
        y.backward()


def test_random_numbers_are_drawn_again_and_later_ones_go_on():
    x = leaf(1000)
    nd.random.seed(7)
    with autograd.record():
        y = autograd.checkpoint(lambda v: nd.dropout(v, 0.5) * nd.random.normal(0, 1, shape=(1000,), dtype="float64"))(x)
    after = nd.random.uniform(shape=(5,)).asnumpy()
    y.backward(nd.ones(1000, dtype="float64"))
    assert_close(x.grad * x, y)
    follows = nd.random.uniform(shape=(5,)).asnumpy()
    nd.random.seed(7)
    nd.dropout(x, 0.5), nd.random.normal(0, 1, shape=(1000,), dtype="float64")
    with autograd.train_mode():
        nd.random.seed(7)
        nd.dropout(x, 0.5), nd.random.normal(0, 1, shape=(1000,), dtype="float64")
    np.testing.assert_array_equal(nd.random.uniform(shape=(5,)).asnumpy(), after)
    np.testing.assert_array_equal(nd.random.uniform(shape=(5,)).asnumpy(), follows)


@pytest.mark.parametrize("hybridized", [False, True])
def test_blocks_with_statistics(hybridized):
    def trained(wrapped):
        nd.random.seed(1)
        net = nn.HybridSequential()
        net.add(nn.Dense(6, in_units=5, activation="tanh"), nn.BatchNorm(in_channels=6), nn.Dense(2, in_units=6))
        net.initialize()
        if hybridized:
            net.hybridize()
        x = nd.array(np.linspace(-1, 1, 20).reshape(4, 5), dtype="float32")
        x.attach_grad()
        for _ in range(2):
            with autograd.record():
                loss = (wrapped(net)(x) ** 2).sum()
            loss.backward()
        return [x.grad.asnumpy()] + [v for p in net.collect_params().values() for v in (
            p.data().asnumpy(), p.grad().asnumpy() if p.grad_req != "null" else 0)]

    for a, b in zip(trained(autograd.checkpoint), trained(lambda f: f)):
        assert_close(a, b)


def test_writes_in_between_are_errors():
    x, w = leaf(3), leaf(3)
    function = autograd.checkpoint(lambda v: v * w)
    with autograd.record():
        hidden = x + 1
        y = function(hidden)
    hidden[0] = 5.0
    with pytest.raises(RuntimeError, match=r"checkpoint of <lambda>.*test_checkpoint\.py"):
        y.backward()
    with autograd.record():
        y = function(x + 1)
    w[0] = 5.0
    with pytest.raises(RuntimeError, match=r"that it uses was written in place at .*test_checkpoint\.py"):
        y.backward()


def arena_bytes(function) -> int:
    """The temporary memory of the one program of a hybridized function."""
    (core,) = [c for cores in function._cores._by_skeleton.values() for c in cores]
    (program,) = core.graph.__dict__["_programs"].values()
    return program.bind({}).arena_bytes


def test_in_a_traced_step_it_is_computed_again_with_less_memory():
    weights = [nd.array(RANDOM.standard_normal((64, 64)) / 8, dtype="float32") for _ in range(4)]
    for w in weights:
        w.attach_grad()

    def deep(v):
        for w in weights:
            for _ in range(4):
                v = nd.tanh(nd.sin(v @ w))
        return nd.dropout(v, 0.25)

    def step(wrapped):
        @hybrid.hybridize
        def run(x):
            with autograd.record():
                y = x
                for _ in range(3):
                    y = wrapped(deep)(y)
                loss = (y * y).sum()
            return [loss, *autograd.grad(loss, weights)]

        return run

    x = nd.array(RANDOM.standard_normal((512, 64)), dtype="float32")
    found, arenas = [], []
    for wrapped in (lambda f: f, autograd.checkpoint):
        nd.random.seed(3)
        run = step(wrapped)
        found.append([v.asnumpy() for v in run(x)])
        arenas.append(arena_bytes(run))
    for a, b in zip(*found):
        assert_close(a, b, 20)
    assert arenas[1] < 0.6 * arenas[0], arenas


def test_less_memory_is_held():
    x = nd.ones((1 << 17,))
    x.attach_grad()

    def deep(v):
        for _ in range(8):
            v = nd.sin(v)
        return v

    def held(function):
        tracemalloc.start()
        with autograd.record():
            y = x
            for _ in range(4):
                y = function(y)
        kept = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        y.backward(nd.ones_like(y))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return kept / x.nbytes, peak / x.nbytes

    plain, plain_peak = held(deep)
    less, peak = held(autograd.checkpoint(deep))
    assert plain > 31 and less < 6
    assert peak < plain / 2 and plain_peak < plain + 6


def test_memory_of_a_backward_falls_as_it_goes():
    x = nd.ones((1 << 17,))
    x.attach_grad()
    sizes = []
    tracemalloc.start()
    with autograd.record():
        y = x * 1
        for _ in range(20):
            y = nd.sin(y)
            y.register_hook(lambda g: sizes.append(tracemalloc.get_traced_memory()[0]))
    before = tracemalloc.get_traced_memory()[0]
    tracemalloc.reset_peak()
    y.backward()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < before + 5 * x.nbytes
    assert len(sizes) == 20
    falls = [(a - b) / x.nbytes for a, b in itertools.pairwise(sizes[1:])]
    assert min(falls) > 0.9, falls


# -- hooks

def test_hooks_see_and_replace_gradients():
    x = leaf(3)
    seen = []
    leaf_handle = x.register_hook(lambda g: seen.append(("leaf", g.asnumpy())))
    with autograd.record():
        y = x * 2
        z = (y * y).sum() + y.sum()
        y.register_hook(lambda g: g * 10)  # after it was used: the hook gets the whole gradient
        handle = y.register_hook(lambda g: seen.append(("middle", g.asnumpy())))
    z.backward(retain_graph=True)
    whole = 2 * y.asnumpy() + 1
    assert [n for n, _ in seen] == ["middle", "leaf"]
    assert_close(seen[0][1], whole * 10)
    assert_close(x.grad, whole * 20)
    assert_close(autograd.grad(z, y, retain_graph=True), whole * 10)
    handle.remove()
    leaf_handle.remove()
    del seen[:]
    with x.register_hook(lambda g: g * 0):
        z.backward(retain_graph=True)
        assert not x.grad.asnumpy().any()
    z.backward()
    assert_close(x.grad, whole * 20)
    assert not seen


def test_hooks_are_differentiated_and_checked():
    x = leaf(3)
    with autograd.record():
        y = x * x * x
        y.register_hook(lambda g: g * x)
        (first,) = autograd.grad(y, [x], create_graph=True)
        first.sum().backward()
    assert_close(first, 3 * x**3)
    assert_close(x.grad, 9 * x**2)
    with autograd.record():
        y = x * 2
        y.register_hook(lambda g: g.astype("float32"))
    with pytest.raises(ValueError, match=r"register_hook: .*float64\[3\].*got float32\[3\]"):
        y.backward()
    with pytest.raises(RuntimeError, match=r"test_checkpoint\.py.*register_hook: no gradient"):
        nd.ones(2).register_hook(print)
    other = nd.array([1.0])
    other.attach_grad("null")
    with pytest.raises(RuntimeError, match="register_hook"):
        other.register_hook(print)
    with autograd.record():  # others of the same operation are not touched
        u, v = x * x, x * x
        u.register_hook(lambda g: g * 0)
    v.backward()
    assert_close(x.grad, 2 * x)
