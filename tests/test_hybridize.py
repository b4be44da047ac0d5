"""Hybridized functions: signatures, counters, symbolic sizes, recorded calls, whole training steps."""

import gc
import logging
import math
import threading
import weakref
from collections import Counter

import numpy as np
import pytest

import ndarray as nd
from hybrid import CompiledFunction, hybridize, scalar_input
from hybrid.block import HybridBlock
from hybrid.parameter import Parameter
from hybrid.passes import always_verify
from ndarray import autograd
from ndarray.testing import assert_close

SCALE = 2.0
WEIGHT = nd.array([1.0, 2.0, 3.0])


@pytest.fixture(autouse=True)
def _verified():
    with always_verify():
        yield


def compiled(function=None, **options):
    """On the interpreter: what is tested here is what is traced, when, and how the results come back."""
    if function is None:
        return lambda f: compiled(f, **options)
    return CompiledFunction(function, backend="interpreter", **options)


def normal(*shape, seed=0, dtype="float32"):
    return nd.array(np.random.default_rng(seed).standard_normal(shape), dtype=dtype)


# -- the table, row by row

def test_arguments_may_be_nested_none_and_named():
    @compiled
    def f(pair, extra=None, *, table):
        y = pair[0] + pair[1][0]
        if extra is not None:
            y = y + extra
        return {"y": y, "rest": [table["a"], None, 3, (y * 2,)]}

    a, b, c = normal(3), normal(3, seed=1), normal(3, seed=2)
    out = f((a, [b]), table={"a": c})
    assert_close(out["y"], a + b)
    assert out["rest"][1:3] == [None, 3]
    assert isinstance(out["rest"][3], tuple)
    assert_close(out["rest"][0], c)
    assert f.traces == 1
    f((b, [a]), table={"a": a})
    assert f.traces == 1
    assert_close(f((a, [b]), c, table={"a": c})["y"], a + b + c)
    assert f.traces == 2


def test_closure_arrays_are_inputs_read_at_each_call():
    w = normal(3)
    f = compiled(lambda x: x * w)
    x = normal(3, seed=1)
    f(x)
    w[...] = 5  # written in place
    assert_close(f(x), x * 5)
    w = normal(3, seed=2)  # another array under the same name
    assert_close(f(x), x * w)
    assert (f.traces, f.compilations) == (1, 1)
    w = normal(1, seed=2)
    assert_close(f(x), x * w)
    assert f.traces == 2


def test_global_arrays_are_inputs_too(monkeypatch):
    f = compiled(lambda x: x * WEIGHT)
    x = normal(3)
    f(x)
    monkeypatch.setitem(globals(), "WEIGHT", normal(3, seed=4))
    assert_close(f(x), x * WEIGHT)
    assert f.traces == 1


def test_writes_are_written_back_in_order():
    total, count = nd.zeros((3,)), nd.zeros(())

    @compiled
    def f(x):
        old = total * 1
        total[...] = total + x
        count[...] = count + 1
        return old + total

    x = normal(3)
    assert_close(f(x), x)
    assert_close(f(x), x * 3)
    assert_close(total, x * 2)
    assert count.item() == 2
    assert f.traces == 1


def test_a_write_is_counted_by_the_storage():
    w = nd.zeros((3,))

    @compiled
    def f(x):
        w[...] = x

    with autograd.record():
        w2 = nd.ones((3,))
        w2.attach_grad()
        y = w2 * w
        with autograd.pause():
            f(normal(3))
    with pytest.raises(RuntimeError, match=__file__):
        y.backward()


def test_python_floats_are_inputs():
    f = compiled(lambda x, rate: x * rate + (1 - rate))
    x = normal(3)
    for rate in (0.5, 0.25, 1.0, 0.0, math.nan):
        assert_close(f(x, rate), x * rate + (1 - rate))
    assert (f.traces, f.compilations) == (1, 1)
    double = normal(3, dtype="float64")
    assert f(double, 0.1).dtype == np.float64
    assert_close(f(double, 0.1), double * 0.1 + 0.9)


def test_a_float_that_decides_becomes_part_of_the_signature():
    @compiled
    def f(x, rate):
        return x * rate if rate > 0 else x - math.sqrt(-rate)

    x = normal(3)
    for rate in (0.5, -4.0, 0.5, -4.0):
        assert_close(f(x, rate), x * rate if rate > 0 else x - 2.0)
    traces = f.traces
    f(x, 0.5)
    assert f.traces == traces


def test_scalar_inputs_are_read_at_each_call():
    values = iter([0.5, 0.25, 4.0])
    asked = Counter()

    def read():
        asked["times"] += 1
        return next(values)

    @compiled
    def f(x):
        return x * scalar_input(read) * 2

    x = normal(3)
    for n, value in enumerate((0.5, 0.25, 4.0), 1):
        assert_close(f(x), x * value * 2)
        assert asked["times"] == n
    assert (f.traces, f.compilations) == (1, 1)
    assert scalar_input(lambda: 3.0) == 3.0


def test_other_python_values_are_part_of_the_signature(caplog):
    f = compiled(lambda x, mode, k: x * k if mode == "times" else x + k, name="f")
    x = normal(3)
    with caplog.at_level(logging.INFO, "hybrid"):
        f(x, "times", 3)
        assert_close(f(x, "plus", 3), x + 3)
    assert "'times'" in caplog.text
    assert "'plus'" in caplog.text
    f(x, "plus", 4)
    f(x, "times", 3)
    assert f.traces == 3
    assert f(x, "plus", True).dtype == np.float32
    assert f.traces == 4


def test_globals_and_closure_scalars_are_part_of_the_signature(monkeypatch):
    offset = 1
    f = compiled(lambda x: x * SCALE + offset)
    x = normal(3)
    assert_close(f(x), x * 2 + 1)
    offset = 5
    assert_close(f(x), x * 2 + 5)
    monkeypatch.setitem(globals(), "SCALE", 7.0)
    assert_close(f(x), x * 7 + 5)
    assert f.traces == 3


def helper(x):
    return x * SCALE


def test_what_a_helper_reads_counts_too(monkeypatch):
    f = compiled(lambda x: helper(x) + 1)
    x = normal(3)
    f(x)
    monkeypatch.setitem(globals(), "SCALE", 3.0)
    assert_close(f(x), x * 3 + 1)


class Scaled(HybridBlock):
    def __init__(self, scale=1.5):
        super().__init__()
        self.scale = scale
        self.weight = Parameter("weight", shape=(3,), init="one")
        self.mean = Parameter("mean", shape=(3,), init="zero", grad_req="null")

    def forward(self, x):
        if autograd.is_training():
            with autograd.pause():
                self.mean.data()[...] = self.mean.data() * 0.5 + x.mean(axis=0) * 0.5
        return x * self.weight.data() * self.scale + self.mean.data()


def block(**options):
    net = Scaled(**options)
    net.initialize()
    net.hybridize(backend="interpreter")
    return net


def test_attributes_are_part_of_the_signature_and_recompile_at_most_once(caplog):
    net = block()
    x = normal(2, 3)
    assert_close(net(x), x * 1.5)
    net.scale = 2.5
    with caplog.at_level(logging.INFO, "hybrid"):
        assert_close(net(x), x * 2.5)
    assert "scale" in caplog.text
    for scale in (3.5, 4.5, 1.0):
        net.scale = scale
        assert_close(net(x), x * scale)
    assert net._compiled.traces == 5
    assert net._compiled.compilations == 2
    net.scale = 2.5
    net(x)
    assert net._compiled.traces == 5


def test_running_statistics_and_train_mode():
    net, eager = block(), block()
    eager.hybridize(False)
    x = normal(4, 3)
    for _ in range(3):
        with autograd.train_mode():
            assert_close(net(x), eager(x))
        assert_close(net(x), eager(x))
    assert_close(net.mean.data(), eager.mean.data())
    assert net._compiled.traces == 2


def test_sizes_are_ints_until_they_have_varied():
    seen = []

    @compiled
    def f(x):
        seen.append(x.shape[0])
        return x.reshape((x.shape[0] * 2, -1)), x.shape[0], x.size

    assert f(nd.ones((3, 4)))[1:] == (3, 12)
    out, n, size = f(nd.ones((5, 4)))
    assert (out.shape, n, size) == ((10, 2), 5, 20)
    out, n, size = f(nd.ones((7, 4)))
    assert (out.shape, n, size) == ((14, 2), 7, 28)
    assert [type(s).__name__ for s in seen] == ["int", "Dim"]


def test_one_program_for_all_sizes_zero_and_one_included():
    w = normal(4, 2)
    f = compiled(lambda x: nd.softmax(nd.dot(x, w)) + x.sum(axis=0, keepdims=True)[:, :2])
    for n in (3, 5, 1, 0, 2, 64, 1):
        x = normal(n, 4)
        assert_close(f(x), f._function(x))
    assert (f.traces, f.compilations) == (2, 2)


def test_sizes_that_vary_together_are_one_symbol():
    f = compiled(lambda x, y: (x * y).sum(axis=1))
    for n in (3, 5, 9):
        f(normal(n, 4), normal(n, 4))
    assert f.traces == 2
    assert f.graph(normal(9, 4), normal(9, 4)).symbols == ("n",)
    out = f(normal(5, 4), normal(1, 4))  # they part: now 1 broadcasts
    assert_close(out, (normal(5, 4) * normal(1, 4)).sum(axis=1))


def test_a_symbol_never_broadcasts_silently():
    f = compiled(lambda x, y: x + y)
    f(normal(2, 3), normal(2, 3))
    f(normal(4, 3), normal(4, 3))
    with pytest.raises(ValueError, match=r"broadcast|shape"):
        f(normal(4, 3), normal(5, 3))
    assert_close(f(normal(4, 3), normal(1, 3)), normal(4, 3) + normal(1, 3))
    assert_close(f(normal(1, 3), normal(1, 3)), normal(1, 3) * 2)


def test_branching_on_a_size_is_guarded_and_explained():
    @compiled
    def f(x):
        return x * 2 if x.shape[0] > 4 else x * 3

    for n, factor in ((8, 2), (9, 2), (2, 3), (10, 2), (3, 3), (4, 3)):
        assert_close(f(nd.ones((n, 2))), nd.ones((n, 2)) * factor)
    assert f.traces == 3
    line = f._function.__code__.co_firstlineno + 2
    assert f"n > 4   # {__file__}:{line}" in f.explain(nd.ones((9, 2)))


def test_a_function_that_needs_the_number_falls_back_to_one_trace_a_size():
    f = compiled(lambda x: x + nd.array(np.arange(int(x.shape[0]), dtype="f")))
    for n in (2, 3, 4, 3, 2):
        assert_close(f(nd.zeros((n,))), nd.array(np.arange(n, dtype="f")))
    assert f.traces >= 3
    traces = f.traces
    f(nd.zeros((3,)))
    assert f.traces == traces


def test_random_numbers_agree_with_eager_bit_for_bit():
    def f(x):
        return [nd.random.uniform(shape=x.shape), nd.random.randint(0, 100, x.shape), nd.random.uniform(shape=(5,))]

    g = compiled(f)
    for n in (3, 100, 7):
        nd.random.seed(5)
        expected = [f(nd.zeros((n,))), f(nd.zeros((n,)))]
        nd.random.seed(5)
        found = [g(nd.zeros((n,))), g(nd.zeros((n,)))]
        for es, fs in zip(expected, found):
            for e, a in zip(es, fs):
                np.testing.assert_array_equal(a.asnumpy(), e.asnumpy())
    assert g.traces == 2


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


def test_hybridized_inside_hybridized_is_traced_through():
    inner = compiled(lambda x: x * 2)
    outer = compiled(lambda x: inner(x) + inner(x + 1))
    x = normal(3)
    assert_close(outer(x), x * 4 + 2)
    assert inner.traces == 0
    assert [eq.op.name for eq in outer.graph(x).equations] == ["multiply", "add", "multiply", "add"]


def test_a_list_append_happens_while_tracing_only(caplog):
    seen = []

    @compiled
    def f(x):
        seen.append(x.shape)
        return x * 2

    with caplog.at_level(logging.WARNING, "hybrid"):
        for _ in range(4):
            f(normal(3))
    assert "changing seen" in caplog.text
    assert (len(seen), f.traces) == (1, 1)


def test_attribute_writes_and_prints_happen_while_tracing_only(caplog, capsys):
    class Noisy(HybridBlock):
        def __init__(self):
            super().__init__()
            self.count = 0

        def forward(self, x):
            self.count += 1
            print("here")
            return x * 2

    net = Noisy()
    net.hybridize(backend="interpreter")
    with caplog.at_level(logging.WARNING, "hybrid"):
        for _ in range(4):
            net(normal(3))
    assert "count" in caplog.text
    assert net.count == 1
    assert capsys.readouterr().out == "here\n"


# -- more of the signature

def test_train_and_record_mode_are_part_of_the_signature():
    f = compiled(lambda x: x * (2 if autograd.is_training() else 3) + (10 if autograd.is_recording() else 0))
    x = normal(3)
    assert_close(f(x), x * 3)
    with autograd.train_mode():
        assert_close(f(x), x * 2)
    with autograd.record():
        assert_close(f(x), x * 2 + 10)
    assert f.traces == 3


def test_dtype_and_device():
    f = compiled(lambda x: x * 2)
    f(normal(3))
    assert f(normal(3, dtype="float64")).dtype == np.float64
    assert f(nd.ones((3,), device=nd.cpu(1))).device is nd.cpu(1)
    assert f.traces == 3


def test_numpy_arguments_are_refused():
    with pytest.raises(TypeError, match=r"nd\.array"):
        compiled(lambda x: x * 2)(np.ones(3))


def test_float_results_and_untouched_arrays():
    w = normal(3)
    f = compiled(lambda x, rate: (rate * 2, w, "text", x.shape))
    assert f(normal(2), 0.25)[0] == 0.5
    out = f(normal(2), 0.5)
    assert out[0] == 1.0
    assert_close(out[1], w)
    assert out[1] is not w
    assert out[2:] == ("text", (2,))


def test_results_never_alias():
    f = compiled(lambda x: (x, x.reshape(-1), x[0]))
    x = normal(2, 3)
    outs = f(x)
    for o in outs:
        assert not np.shares_memory(o._data, x._data)
    assert not np.shares_memory(outs[0]._data, outs[1]._data)


def test_the_same_array_twice_with_a_write_runs_line_by_line():
    def function(x, y):
        x += 1
        return x * y

    f = compiled(function)
    a, b = nd.ones((3,)), nd.ones((3,))
    f(a, nd.ones((3,)))
    assert_close(f(b, b), nd.ones((3,)) * 4)
    assert_close(b, nd.ones((3,)) * 2)
    c = nd.ones((4,))
    assert_close(f(c[:3], c[1:]), nd.array([4.0, 4.0, 2.0]))


def test_repeated_calls_do_not_trace():
    f = compiled(lambda x: x * 2)
    x = normal(3)
    for _ in range(50):
        f(x)
    assert (f.traces, f.compilations, f.calls) == (1, 1, 50)


def test_non_contiguous_arguments():
    f = compiled(lambda x: x.reshape(-1) * 2)
    x = normal(4, 6)[::2, ::-3]
    assert_close(f(x), x.reshape(-1) * 2)


def test_a_replaced_parameter_is_noticed():
    net = block()
    x = normal(2, 3)
    net(x)
    net.weight.set_data(nd.ones((3,)) * 2)
    assert_close(net(x), x * 3)
    assert net._compiled.traces == 1
    net.cast("float64")
    assert net(x.astype("float64")).dtype == np.float64
    net.weight = Parameter("weight", shape=(3,), init="zero", dtype="float64")
    net.weight.initialize()
    assert_close(net(x.astype("float64")), nd.zeros((2, 3), dtype="float64"))


def test_explain_and_repr():
    net = block()
    text = net.explain(normal(2, 3))
    assert "x: float32[2,3]" in text
    assert "weight: float32[3]" in text
    assert "1 traces" in repr(net._compiled)


def test_two_threads():
    f = compiled(lambda x: nd.tanh(x) * 2)
    counter = nd.zeros((1,))

    @compiled
    def count(x):
        counter[...] = counter + x

    failures = []

    def work(seed):
        try:
            for n in (2, 3, 4, 2, 3, 5):
                x = normal(n, 3, seed=seed)
                assert_close(f(x), nd.tanh(x) * 2)
                count(nd.ones((1,)))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not failures
    assert counter.item() == 24
    assert f.traces == 2


def test_functions_are_freed():
    def make():
        w = normal(1000)
        f = compiled(lambda x: x * w)
        f(normal(1000))
        x = normal(1000)
        x.attach_grad()
        with autograd.record():
            y = f(x).sum()
        y.backward()
        return weakref.ref(w)

    ref = make()
    gc.collect()
    assert ref() is None


def test_a_decorated_method():
    class Model:
        def __init__(self):
            self.w = normal(3)

        @hybridize(backend="interpreter")
        def __call__(self, x):
            return x * self.w

    m = Model()
    assert_close(m(normal(3)), normal(3) * m.w)


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


def test_many_traces_are_worth_a_warning(caplog):
    f = compiled(lambda x, k: x + k)
    with caplog.at_level(logging.WARNING, "hybrid"):
        for k in range(40):
            f(normal(3), k)
    assert len(caplog.records) == 1
    assert "arguments" in caplog.text


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


def test_a_list_that_changes_between_calls_is_looked_at_again():
    @compiled
    def update(weights, rate):
        for w in weights:
            w[...] = w * rate

    weights = [nd.ones((2, 3))]
    for _ in range(3):
        update(weights, 2.0)
    other = nd.ones((4, 5))
    old, weights[0] = weights[0], other
    update(weights, 3.0)
    assert_close(other, nd.ones((4, 5)) * 3)
    assert_close(old, nd.ones((2, 3)) * 8)
