"""Calls of hybridized functions: what comes back, what is written, threads, life time, methods."""

import gc
import logging
import threading
import weakref

import numpy as np
import pytest

import ndarray as nd
from hybrid import hybridize
from hybrid.block import HybridBlock
from ndarray import autograd
from ndarray.testing import assert_close
from tests.tracing import compiled, normal

pytestmark = pytest.mark.usefixtures("verified")


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
