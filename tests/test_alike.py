"""What is traced once for arrays of the same types: the graph is the one that tracing each of them gives."""

import numpy as np
import pytest

import ndarray as nd
from blocks import Trainer, nn
from hybrid import hybridize
from hybrid.alike import traced_alike
from hybrid.trace import Tracer, current_tracer
from ndarray import autograd


def directly(tracer, known, function, arrays, numbers):
    return function(arrays, numbers)


def step_graph(name, dtype="float32", **settings):
    """The graph of a training step, and how often the rule was called."""
    nd.random.seed(3)
    net = nn.HybridSequential()
    net.add(*[nn.Dense(4, in_units=4, dtype=dtype) for _ in range(3)])
    net.initialize()
    trainer = Trainer(net.collect_params(), name, {"learning_rate": 0.1, **settings})
    rule, calls = trainer.optimizer.rule, []
    trainer.optimizer.rule = lambda weight, *rest: (calls.append(weight.shape), rule(weight, *rest))[1]

    @hybridize(backend="interpreter")
    def step(x):
        with autograd.record():
            loss = nd.sum(net(x) ** 2)
        loss.backward()
        trainer.step(2)
        return loss

    step(nd.ones((2, 4), dtype=dtype))
    return step.last.traced, calls


@pytest.mark.parametrize(("name", "settings"), [
    ("sgd", {"momentum": 0.9, "wd": 0.01}), ("sgd", {}), ("nag", {}), ("adam", {"clip_gradient": 0.5}), ("adamw", {}),
    ("lamb", {}), ("adam", {"dtype": "float16", "multi_precision": True}),
], ids=str)
def test_the_graph_is_that_of_a_rule_for_each_weight(name, settings, monkeypatch):
    graph, calls = step_graph(name, **settings)
    assert len(calls) == 2  # for the first matrix and the first bias
    monkeypatch.setattr(Tracer, "alike", directly)
    expected, each = step_graph(name, **settings)
    assert len(each) == 6
    assert graph.hash == expected.hash


def results_of(function, arrays, pairs=((0, 1), (2, 3), (4, 5))):
    """What a traced function gives for pairs of arrays, and how often it was called."""
    calls = []

    def counted(pair, numbers):
        calls.append(len(pair))
        return function(pair, numbers)

    @hybridize(backend="interpreter")
    def traced(*given):
        tracer, known = current_tracer(), {}
        return [traced_alike(tracer, known, counted, (given[i], given[k]), {"scale": 2.0})[0] for i, k in pairs]

    return [r.asnumpy() for r in traced(*arrays)], len(calls)


ARRAYS = [nd.array(np.arange(6.0).reshape(2, 3) * k, dtype="float32") for k in range(1, 7)]


def plus(pair, numbers):
    return [pair[0] * numbers["scale"] + pair[1]]


def test_other_types_are_traced_anew():
    arrays = [*ARRAYS, *[a.astype("float64") for a in ARRAYS[:2]]]
    found, calls = results_of(plus, arrays, ((0, 1), (2, 3), (6, 7)))
    assert calls == 2
    for r, (i, k) in zip(found, ((0, 1), (2, 3), (6, 7))):
        np.testing.assert_array_equal(r, arrays[i].asnumpy() * 2 + arrays[k].asnumpy())


def test_one_array_given_twice_is_no_pattern_for_two():
    pairs = ((0, 0), (1, 2), (2, 2))
    found, calls = results_of(plus, ARRAYS, pairs)
    assert calls == 3
    for r, (i, k) in zip(found, pairs):
        np.testing.assert_array_equal(r, ARRAYS[i].asnumpy() * 2 + ARRAYS[k].asnumpy())
    pairs = ((1, 2), (0, 0))
    found, calls = results_of(plus, ARRAYS, pairs)
    assert calls == 1
    np.testing.assert_array_equal(found[1], ARRAYS[0].asnumpy() * 3)


def test_what_does_more_than_compute_is_called_each_time():
    outside, total = nd.ones((2, 3)), nd.zeros((2, 3))

    def captures(pair, numbers):
        return [pair[0] + pair[1] * outside]

    def writes(pair, numbers):
        total[...] = total + pair[0]
        return [pair[0] + pair[1]]

    def overwrites(pair, numbers):
        pair[0][...] = pair[0] * 2.0
        return [pair[0] + pair[1]]

    def draws(pair, numbers):
        return [pair[0] + nd.random.normal(shape=(2, 3))]

    def returns(pair, numbers):
        return [pair[0]]

    for function in (captures, writes, overwrites, draws, returns):
        found, calls = results_of(function, [a.copy() for a in ARRAYS])
        assert calls == 3, function.__name__
        if function is not draws:
            expected = [{captures: a + b, writes: a + b, overwrites: 2 * a + b, returns: a}[function]
                        for a, b in zip(ARRAYS[::2], ARRAYS[1::2])]
            np.testing.assert_array_equal(found, [e.asnumpy() for e in expected])
    np.testing.assert_array_equal(total.asnumpy(), sum(a.asnumpy() for a in ARRAYS[::2]))
