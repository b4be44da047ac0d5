"""What a hybridized function is traced again for: arguments, what it reads around it, sizes that vary."""

import logging
import math
from collections import Counter

import numpy as np
import pytest

import ndarray as nd
from hybrid import scalar_input
from hybrid.block import HybridBlock
from hybrid.parameter import Parameter
from ndarray import autograd
from ndarray.testing import assert_close
from tests.tracing import compiled, normal

pytestmark = pytest.mark.usefixtures("verified")

SCALE = 2.0
WEIGHT = nd.array([1.0, 2.0, 3.0])


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


def test_many_traces_are_worth_a_warning(caplog):
    f = compiled(lambda x, k: x + k)
    with caplog.at_level(logging.WARNING, "hybrid"):
        for k in range(40):
            f(normal(3), k)
    assert len(caplog.records) == 1
    assert "arguments" in caplog.text


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
