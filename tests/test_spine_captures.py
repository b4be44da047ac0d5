"""The table "What a trace captures", row by row, on compiled programs; and what is counted: traces, compilations, native calls.

tests/test_trace.py and tests/test_hybridize.py go deeper into most rows, on the interpreter.
"""

import logging
import math

import numpy as np
import pytest

import hybrid
import ndarray as nd
from blocks import Trainer, loss, lr_scheduler, nn
from hybrid import hybridize
from hybrid.block import HybridBlock
from hybrid.parameter import Parameter
from jit import runtime
from ndarray import autograd
from ndarray.testing import assert_close
from tests.networks import NETWORKS, batch, make, snapshot, trainer_of, training_step

FACTOR = 2


def normal(*shape, seed=0, dtype="float32"):
    return nd.array(np.random.default_rng(seed).standard_normal(shape), dtype=dtype)


def counts(f):
    """(traces, compilations) of a function or Block, and graphs compiled by the process."""
    f = f._compiled if isinstance(f, HybridBlock) else f
    return f.traces, f.compilations, hybrid.stats.compilations


# -- array arguments (also nested, None, keyword): inputs

def test_arguments_are_inputs():
    @hybridize
    def f(pair, extra=None, *, table):
        y = pair[0] * 2 + pair[1][0]
        if extra is not None:
            y = y * extra
        return {"y": y, "more": [table["k"] - y, None, "text"]}

    for seed in range(3):
        a, b, c, d = (normal(3, 4, seed=4 * seed + k) for k in range(4))
        out = f((a, [b]), table={"k": c})
        assert_close(out["y"], a * 2 + b)
        assert_close(out["more"][0], c - (a * 2 + b))
        assert out["more"][1:] == [None, "text"]
        assert_close(f((a, [b]), d, table={"k": c})["y"], (a * 2 + b) * d)
        assert_close(f((a, [b]), extra=d, table={"k": c})["y"], (a * 2 + b) * d)
    assert f.traces == 3  # without, with, and with it by keyword


# -- parameters and arrays by closure or attribute: inputs by identity, read at each call

class Affine(HybridBlock):
    def __init__(self):
        super().__init__()
        self.weight = Parameter("weight", shape=(4,), init="one")
        self.offset = nd.zeros((4,))

    def forward(self, x):
        return x * self.weight.data() + self.offset


def test_parameters_and_arrays_are_read_at_each_call():
    net = Affine()
    net.initialize()
    net.hybridize()
    scale = normal(4, seed=1)
    f = hybridize(lambda x: net(x) * scale)
    x = normal(3, 4)
    for k in range(4):
        net.weight.set_data(normal(4, seed=10 + k))
        net.offset[...] = float(k)
        scale[1] = k
        want = x * net.weight.data() + net.offset
        assert_close(net(x), want)
        assert_close(f(x), want * scale)
    assert net._compiled.traces == 1
    assert f.traces == 1


def test_arrays_of_threefold_size_are_no_constants_of_the_program():
    """What is captured stays out of the compiled program: neither its code nor its arena grows with the weights."""
    w = normal(300, 200)
    f = hybridize(lambda x: nd.dot(x, w))
    f(normal(2, 300))
    assert any(v.type.shape == (300, 200) for v in f.graph(normal(2, 300)).inputs)


def test_an_export_freezes_parameters_by_name(tmp_path):
    net, shape, classes = make("convnet")
    net.hybridize()
    x, _ = batch(shape, classes, 3)
    want = net(x).asnumpy()
    net.export(str(tmp_path / "model"))
    loaded = hybrid.load(str(tmp_path / "model"))
    for p in net.collect_params().values():
        p.set_data(p.data() * 0)
    np.testing.assert_allclose(loaded(x).asnumpy(), want, rtol=1e-5, atol=1e-6)


# -- a write to such an array: state, written back in program order

def test_writes_come_back_in_order():
    total, last = nd.zeros((3,)), nd.zeros((2, 3))

    @hybridize
    def f(x):
        before = total * 1
        total[...] = total + x
        last[0] = total
        total[1] = 7
        last[1] = total
        last[:, 2] += 1
        return before

    def plain(t, x):
        t = t + x
        rows = [t.copy()]
        t[1] = 7
        rows.append(t.copy())
        rows = np.array(rows)
        rows[:, 2] += 1
        return t, rows

    t = np.zeros(3, np.float32)
    for k in range(3):
        x = normal(3, seed=k)
        assert_close(f(x), t)
        t, rows = plain(t, x.asnumpy())
        assert_close(total, t)
        assert_close(last, rows)
    assert f.traces == 1


def test_writes_to_arguments_and_set_data():
    w = Parameter("w", shape=(3,), init="zero")
    w.initialize()

    @hybridize
    def f(x):
        w.set_data(w.data() + x)
        x *= 2
        return w.data() * 1

    x = normal(3)
    start = x.asnumpy()
    assert_close(f(x), start)
    assert_close(x, start * 2)
    assert_close(f(x), start * 3)
    assert_close(w.data(), start * 3)


def test_running_statistics_follow_compiled_training():
    nets = [make("convnet")[0] for _ in range(2)]
    nets[1].hybridize()
    for k in range(4):
        x, _ = batch((3, 9, 11), 4, (5, 3)[k % 2], k)
        for net in nets:
            with autograd.train_mode():
                net(x)
    for name, want in snapshot(nets[0]).items():
        np.testing.assert_allclose(snapshot(nets[1])[name], want, rtol=1e-5, atol=1e-6, err_msg=name)


# -- Python floats that reach arithmetic, rates, decay, rescale, schedules: 0-d inputs

def test_a_new_number_never_compiles():
    f = hybridize(lambda x, rate: nd.tanh(x * rate) + (1 - rate) * 3)
    x = normal(5)
    f(x, 0.5)
    before = counts(f)
    for rate in (0.25, 1.0, 0.0, -3.5, 1e30, math.inf, math.nan):
        want = nd.tanh(x * rate) + (1 - rate) * 3
        np.testing.assert_allclose(f(x, rate).asnumpy(), want.asnumpy(), rtol=1e-6)
    assert counts(f) == before


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_rates_decay_rescale_and_schedules_never_compile(optimizer, whole):
    def run(compiled):
        net, shape, classes = make("mlp")
        trainer = trainer_of(net, optimizer)
        step = training_step(net, trainer)
        if compiled and whole:
            step = hybridize(step)
        elif compiled:
            net.hybridize()
        nd.random.seed(3)
        seen = None
        for k in range(7):
            x, y = batch(shape, classes, 6, k)
            trainer.set_learning_rate(0.05 / (k + 1))
            trainer.optimizer.wd = 0.01 * k
            if hasattr(trainer.optimizer, "momentum"):
                trainer.optimizer.momentum = 0.5 + 0.05 * k
            if k == 5:
                trainer._scale = 0.5
            step(x, y)
            if k == 1:
                seen = hybrid.stats.traces, hybrid.stats.compilations
        assert seen == (hybrid.stats.traces, hybrid.stats.compilations)
        return snapshot(net)

    want, got = run(False), run(True)
    for name in want:
        np.testing.assert_allclose(got[name], want[name], rtol=1e-4, atol=1e-5, err_msg=name)


def test_a_schedule_is_followed_by_a_compiled_step():
    rates = []

    def run(compiled):
        net = nn.Dense(2, in_units=3, use_bias=False)
        net.initialize("ones")
        schedule = lr_scheduler.FactorScheduler(2, 0.5, base_lr=0.8)
        trainer = Trainer(net.collect_params(), "sgd", {"learning_rate": 0.8, "lr_scheduler": schedule})
        step = training_step(net, trainer, loss.L2Loss())
        step = hybridize(step) if compiled else step
        for k in range(6):
            step(normal(4, 3, seed=k), normal(4, 2, seed=9 + k))
            rates.append(trainer.learning_rate)
        if compiled:
            assert step.traces == 1
        return net.weight.data().asnumpy()

    np.testing.assert_allclose(run(True), run(False), rtol=1e-5)
    assert rates[:6] == rates[6:]
    assert len(set(rates)) > 2


# -- other Python values: baked, part of the signature

def test_other_values_are_baked_and_the_log_says_which(caplog):
    f = hybridize(lambda x, mode, k, axes: (x * k if mode == "times" else x + k).sum(axis=axes))
    x = normal(3, 4)
    with caplog.at_level(logging.INFO, "hybrid"):
        assert_close(f(x, "times", 3, (0,)), (x * 3).sum(axis=0))
        assert_close(f(x, "plus", 3, (0,)), (x + 3).sum(axis=0))
        assert "'times' -> 'plus'" in caplog.text
        caplog.clear()
        assert_close(f(x, "plus", 5, (0,)), (x + 5).sum(axis=0))
        assert "3 -> 5" in caplog.text
        assert_close(f(x, "plus", 5, (1,)), (x + 5).sum(axis=1))
    assert f.traces == 4
    f(x, "times", 3, (0,))
    assert f.traces == 4


def test_attributes_and_globals_are_part_of_the_signature(monkeypatch, caplog):
    class Scale(HybridBlock):
        def __init__(self):
            super().__init__()
            self.power = 2

        def forward(self, x):
            return x ** self.power * FACTOR

    net = Scale()
    net.hybridize()
    x = nd.abs(normal(4)) + 1
    assert_close(net(x), x ** 2 * 2)
    with caplog.at_level(logging.INFO, "hybrid"):
        net.power = 3
        assert_close(net(x), x ** 3 * 2)
    assert "power" in caplog.text
    monkeypatch.setitem(globals(), "FACTOR", 5)
    assert_close(net(x), x ** 3 * 5)
    assert net._compiled.traces == 3


# -- x.shape: ints while static, then symbolic

def test_a_third_size_neither_traces_nor_compiles():
    for name in NETWORKS:
        net, shape, classes = make(name)
        other, _, _ = make(name)
        net.hybridize()
        for k, size in enumerate((32, 8)):
            net(batch(shape, classes, size, k)[0])
        before = counts(net)
        assert before[0] == 2
        for k, size in enumerate((1, 7, 64, 2, 33)):
            x, _ = batch(shape, classes, size, k)
            np.testing.assert_allclose(net(x).asnumpy(), other(x).asnumpy(), rtol=1e-4, atol=1e-5)
        assert counts(net) == before


def test_one_after_thirty_two_is_not_specialised():
    net, shape, classes = make("lenet")
    other, _, _ = make("lenet")
    net.hybridize()
    for size in (32, 1, 5, 1, 32):
        x, _ = batch(shape, classes, size, size)
        np.testing.assert_allclose(net(x).asnumpy(), other(x).asnumpy(), rtol=1e-4, atol=1e-5)
    assert net._compiled.traces == 2
    graph = net._compiled.graph(batch(shape, classes, 1)[0])
    assert graph.symbols == ("n",)
    assert not graph.guards


def test_zero_rows():
    f = hybridize(lambda x: nd.softmax(x * 2).sum(axis=0) + x.sum())
    for n in (3, 5, 0, 1):
        x = normal(n, 4)
        assert_close(f(x), nd.softmax(x * 2).sum(axis=0) + x.sum())
    assert f.traces == 2


def test_a_symbolic_training_step():
    net, shape, classes = make("convnet")
    trainer = trainer_of(net, "sgd")
    step = hybridize(training_step(net, trainer))
    for k, size in enumerate((8, 5)):
        step(*batch(shape, classes, size, k))
    before = counts(step)
    for k, size in enumerate((3, 13, 1, 8)):
        step(*batch(shape, classes, size, k))
    assert counts(step) == before


def test_a_question_about_a_size_is_a_guard_with_its_line():
    @hybridize
    def f(x):
        if x.shape[0] > 4:
            return x * 2
        return x * 3

    for n in (8, 9, 2, 3, 10):
        assert_close(f(nd.ones((n, 2))), nd.ones((n, 2)) * (2 if n > 4 else 3))
    line = f._function.__code__.co_firstlineno + 2
    assert f"n > 4   # {__file__}:{line}" in str(f.explain(nd.ones((9, 2))))
    assert f.traces == 3


def test_a_symbolic_size_never_broadcasts_against_one():
    f = hybridize(lambda x, y: x * y + y)
    for n, m in ((4, 4), (6, 6), (6, 1), (1, 6), (1, 1), (7, 7)):
        x, y = normal(n, 3, seed=n), normal(m, 3, seed=m + 9)
        assert_close(f(x, y), x * y + y)
    with pytest.raises(ValueError, match=r"broadcast|shape|sizes"):
        f(normal(6, 3), normal(5, 3))


def test_sizes_in_arithmetic():
    f = hybridize(lambda x: (x.sum(axis=0) / x.shape[0] + x.size, x.shape, x.reshape((x.shape[0] * 2, -1))))
    for n in (3, 5, 7, 1):
        x = normal(n, 4, seed=n)
        mean, shape, folded = f(x)
        assert_close(mean, x.sum(axis=0) / n + 4 * n)
        assert shape == (n, 4)
        assert folded.shape == (2 * n, 2)
    assert f.traces == 2


def test_len_needs_the_number_and_is_traced_for_each():
    f = hybridize(lambda x: x.sum(axis=0) / len(x))  # Python wants an int of len()
    for n in (3, 5, 7, 5, 1):
        x = normal(n, 4, seed=n)
        assert_close(f(x), x.sum(axis=0) / n)


# -- random functions: counters reserved in program order

@pytest.mark.parametrize("n", [1, 5, 64, 1000])
def test_random_numbers_agree_bit_for_bit(n):
    def f(x):
        a = nd.random.uniform(shape=x.shape)
        b = nd.random.randint(0, 1000, x.shape)
        unused = nd.random.uniform(shape=(3,))  # noqa: F841 (it moves the counter all the same)
        return a, b, nd.random.normal(shape=x.shape), nd.dropout(x, 0.5)

    g = hybridize(f)
    results = []
    for function in (f, g):
        nd.random.seed(12)
        with autograd.train_mode():
            results.append([r.asnumpy() for _ in range(3) for r in function(nd.ones((n,)))])
    for k, (a, b) in enumerate(zip(*results)):
        if k % 4 == 2:
            np.testing.assert_allclose(b, a, rtol=1e-6, atol=1e-6)
        else:
            np.testing.assert_array_equal(b, a)


# -- autograd inside, record outside, nested hybridized functions

def test_gradients_inside_are_part_of_the_graph():
    w = normal(4)
    w.attach_grad()

    def f(x):
        with autograd.record():
            y = (nd.sin(x * w) ** 2).sum()
        y.backward()
        return y, w.grad * 1

    g = hybridize(f)
    for seed in range(3):
        x = normal(3, 4, seed=seed)
        want = [a.asnumpy() for a in f(x)]
        got = [a.asnumpy() for a in g(x)]
        for a, b in zip(got, want):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    calls = runtime.native_calls()
    g(normal(3, 4))
    assert runtime.native_calls() == calls + 1


def test_a_recorded_call_is_one_differentiable_node():
    w = normal(4, 2, dtype="float64")
    function = lambda x: nd.tanh(nd.dot(x, w)).sum(axis=1)
    f = hybridize(function)
    results = []
    for g in (function, f):
        x = normal(3, 4, dtype="float64")
        x.attach_grad()
        w.attach_grad()
        with autograd.record():
            y = g(x)
            if g is f:
                assert y._node[0].inputs == (x._node, w._node)
            first = autograd.grad((y * y).sum(), x, create_graph=True)
            last = (first ** 3).sum()
        last.backward()
        results.append([a.asnumpy() for a in (y, first, x.grad, w.grad)])
    for a, b in zip(*results):
        np.testing.assert_allclose(b, a, rtol=1e-9, atol=1e-12)


def test_hybridized_parts_are_traced_through():
    inner = nn.Dense(3, in_units=4, activation="relu")
    inner.initialize()
    inner.hybridize()
    part = hybridize(lambda x: x * 2)
    outer = hybridize(lambda x: part(inner(x)) + 1)
    x = normal(2, 4)
    outer(x)
    assert part.traces == 0
    assert inner._compiled is None or inner._compiled.traces == 0
    calls = runtime.native_calls()
    got = outer(x)
    assert runtime.native_calls() == calls + 1
    inner.hybridize(False)
    assert_close(got, inner(x) * 2 + 1)


# -- side effects, modes

def test_side_effects_happen_while_tracing_and_attribute_writes_are_reported(caplog, capsys):
    class Noisy(HybridBlock):
        def __init__(self):
            super().__init__()
            self.count, self.seen = 0, []

        def forward(self, x):
            self.count += 1
            self.seen.append(1)
            print("forward")
            return x + 1

    net = Noisy()
    net.hybridize()
    with caplog.at_level(logging.WARNING, "hybrid"):
        for _ in range(4):
            net(normal(3))
    assert (net.count, len(net.seen), capsys.readouterr().out) == (1, 1, "forward\n")
    assert "count" in caplog.text


def test_modes_are_part_of_the_signature():
    net, shape, classes = make("mlp")
    net.hybridize()
    x, _ = batch(shape, classes, 4)
    for _ in range(2):
        net(x)
        with autograd.train_mode():
            net(x)
        with autograd.record():
            net(x)
        with autograd.record(train_mode=False):
            net(x)
    assert net._compiled.traces == 4


# -- counters

@pytest.mark.parametrize("name", NETWORKS)
def test_one_native_call_for_each_graph(name):
    net, shape, classes = make(name)
    net.hybridize()
    trainer = trainer_of(net, "sgd")
    criterion = loss.SoftmaxCrossEntropyLoss()
    criterion.hybridize()
    x, y = batch(shape, classes, 6)

    def parts():
        yield lambda: net(x)
        with autograd.record():
            found = []
            yield lambda: found.append(net(x))
            yield lambda: found.append(criterion(found[-1], y))
        value = found[-1]
        yield value.backward  # through the loss, then through the net
        yield lambda: trainer.step(6)

    for _ in range(2):
        counted = []
        for part in parts():
            before = runtime.native_calls()
            part()
            counted.append(runtime.native_calls() - before)
    assert counted == [1, 1, 1, 2, 1]
    step = hybridize(training_step(net, trainer))
    step(x, y)
    before, seen = runtime.native_calls(), counts(step)
    for k in range(5):
        step(*batch(shape, classes, 6, k))
    assert runtime.native_calls() == before + 5
    assert counts(step) == seen


def test_a_repeated_signature_never_traces():
    f = hybridize(lambda x, y, k: x * k + y)
    arguments = [(normal(n, 3), normal(3), k) for n in (2, 3) for k in (1, 2)]
    for a in arguments:
        f(*a)
    before, calls = counts(f), f.calls
    for _ in range(20):
        for a in arguments:
            f(*a)
    assert counts(f) == before
    assert f.calls == calls + 80


def test_contents_that_are_remembered_are_looked_at_again():
    """The fast comparison of containers tells 1, 1.0 and True apart, and sees items replaced in place at any depth."""
    config = {"scale": 1, "sizes": (1, (2, 3)), "list": [1, 2]}

    @hybridize
    def f(x):
        total = x * config["scale"] + config["sizes"][1][0]
        return total + config["list"][-1]

    x = nd.array([3], dtype="int32")
    assert f(x).item() == 3 + 2 + 2
    assert f(x).item() == 3 + 2 + 2
    traces = f.traces
    config["scale"] = 1.0
    assert f(x).dtype.kind == "f"
    assert f.traces == traces + 1
    config["scale"] = 10
    config["sizes"] = (1, (7, 3))
    assert f(x).item() == 30 + 7 + 2
    config["list"][-1] = 5
    assert f(x).item() == 30 + 7 + 5
    config["list"].append(6)
    assert f(x).item() == 30 + 7 + 6
