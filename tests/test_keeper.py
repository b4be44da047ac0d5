"""What depends on weights only is computed once and kept: it must never be out of date, shared where it can be, and freed."""

import gc
import threading

import numpy as np
import pytest

import ndarray as nd
from blocks import HybridBlock, Trainer, nn
from hybrid import hybridize
from jit import keeper, runtime
from jit.hoist import hoist
from jit.launch import KernelBuilder, Storage
from jit.loopir import Const, Load, Store, Type, const
from ndarray import autograd


class Product(HybridBlock):
    """x @ w.T + 1"""

    def __init__(self, w):
        super().__init__()
        self.w = w

    def forward(self, x):
        return nd.matmul(x, nd.transpose(self.w)) + 1


def layer(rows=150, columns=40, inner=70, seed=0):
    """A Block that multiplies by an array, the array, and an x."""
    rng = np.random.default_rng(seed)
    w = nd.array(rng.standard_normal((columns, inner), np.float32))
    x = nd.array(rng.standard_normal((rows, inner), np.float32))
    f = Product(w)
    f.hybridize()
    return f, w, x


def check(f, w, x):
    for _ in range(2):  # the second call keeps what it can
        np.testing.assert_allclose(f(x).asnumpy(), x.asnumpy() @ w.asnumpy().T + 1, rtol=1e-4, atol=1e-4)


def test_packed_weights_are_made_once():
    f, w, x = layer()
    check(f, w, x)
    report = f.explain(x, measure=False).programs[0]
    assert [k.kept for k in report.kernels].count(True) == 1
    assert report.memory.kept >= w.nbytes
    before = runtime.native_calls()
    check(f, w, x)
    assert runtime.native_calls() == before + 2


@hybridize
def _double(a):
    a[...] = a * 2


WRITES = {
    "whole": lambda w: w.__setitem__(slice(None), nd.ones(w.shape)),
    "element": lambda w: w.__setitem__((3, 5), 100.0),
    "view": lambda w: w[2].__setitem__(slice(None), 7.0),
    "reshaped": lambda w: w.reshape((-1,)).__setitem__(slice(10, 20), -9.0),
    "detached": lambda w: w.detach().__setitem__(slice(None), 0.5),
    "operator": lambda w: w.__iadd__(3),
    "copyto": lambda w: nd.ones(w.shape).copyto(w),
    "compiled": _double,
    "numpy": lambda w: np.asarray(w).__setitem__((slice(None), 0), 55.0),
    "dlpack": lambda w: np.from_dlpack(w).__iadd__(1),
}


@pytest.mark.parametrize("how", WRITES)
def test_a_write_is_seen(how):
    f, w, x = layer()
    for _ in range(3):
        check(f, w, x)
        before = w.asnumpy()
        WRITES[how](w)
        if how not in ("whole", "element", "view", "reshaped", "detached", "copyto", "numpy"):  # the others repeat themselves
            assert not np.array_equal(before, w.asnumpy())
        check(f, w, x)


def test_a_call_in_the_middle_of_a_write_leaves_nothing_behind():
    f, w, x = layer()
    f(x)
    w._touch()  # what a write does, taken apart
    w._data[:20] = 3
    f(x)
    assert f._compiled.last.program._kept.arrays is not None
    w._data[20:] = 4
    w._storage.finish_write()
    check(f, w, x)


def test_writes_through_an_older_numpy_view_are_seen():
    f, w, x = layer()
    view = np.asarray(w)
    for value in range(4):
        view[1] = value
        check(f, w, x)


def test_a_view_taken_between_calls_ends_keeping():
    f, w, x = layer()
    check(f, w, x)
    view = np.asarray(w)
    for value in range(3):
        view[...] += value
        check(f, w, x)


def test_gradients_that_are_captured_are_not_out_of_date():
    w = nd.array(np.arange(48 * 32, dtype=np.float32).reshape(48, 32) / 100)
    w.attach_grad()
    x = nd.ones((150, 32))

    g = Product(w.grad)
    g.hybridize()
    for k in range(1, 4):
        with autograd.record():
            y = nd.sum(w * float(k))
        y.backward()
        for _ in range(2):
            np.testing.assert_allclose(g(x).asnumpy(), np.full((150, 48), 32.0 * k + 1), rtol=1e-5)


def test_a_trainer_between_calls():
    net = nn.HybridSequential()
    net.add(nn.Dense(48, activation="relu"), nn.Dense(33))
    net.initialize()
    x = nd.array(np.random.default_rng(1).standard_normal((150, 20), np.float32))
    net(x)
    plain = lambda: net[1].weight.data().asnumpy()
    net.hybridize()
    trainer = Trainer(net.collect_params(), "adam", {"learning_rate": 0.05})
    for _ in range(4):
        before = plain()
        with autograd.record():
            loss = nd.mean(net(x) ** 2)
        loss.backward()
        trainer.step(1)
        assert not np.array_equal(before, plain())
        h = np.maximum(x.asnumpy() @ net[0].weight.data().asnumpy().T + net[0].bias.data().asnumpy(), 0)
        expected = h @ plain().T + net[1].bias.data().asnumpy()
        for _ in range(3):
            np.testing.assert_allclose(net(x).asnumpy(), expected, rtol=1e-4, atol=1e-4)
    net[1].weight.set_data(nd.zeros(net[1].weight.shape))
    np.testing.assert_allclose(net(x).asnumpy(), np.broadcast_to(net[1].bias.data().asnumpy(), (150, 33)), rtol=1e-6)


def test_only_what_has_changed_is_computed_again():
    rng = np.random.default_rng(0)
    weights = [nd.array(rng.standard_normal((64, 64), np.float32)) for _ in range(3)]
    x = nd.array(rng.standard_normal((150, 64), np.float32))

    f = nn.HybridSequential()
    for w in weights:
        f.add(Product(w), nn.Activation("tanh"))
    f.hybridize()
    f(x)
    assert f._compiled.last.program._kept.arrays is None
    f(x)
    kept = f._compiled.last.program._kept.arrays
    weights[1][...] = 0.01
    expected = x.asnumpy()
    for w in weights:
        expected = np.tanh(expected @ w.asnumpy().T + 1)
    for _ in range(2):
        np.testing.assert_allclose(f(x).asnumpy(), expected, rtol=1e-4, atol=1e-5)
    now = f._compiled.last.program._kept.arrays
    assert [a is b for a, b in zip(kept, now)] == [True, False, True]


def test_symbolic_sizes():
    f, w, x = layer(rows=300)
    f._compile().expect(x)
    check(f, w, x[:200])
    assert f._compiled.last.symbolic
    w[...] = 3
    check(f, w, x[:200])
    check(f, w, x[:170])


def test_one_copy_for_all_sizes_and_none_afterwards(monkeypatch):
    monkeypatch.setenv("HYBRID_CACHE_DIR", "")  # a program found on disk beside one made here has kernels, so copies, of its own
    gc.collect()
    before = keeper.kept_bytes()
    f, w, x = layer(rows=300)
    check(f, w, x)
    one = keeper.kept_bytes() - before
    assert one > 0
    for rows in (200, 251, 299, 257):
        check(f, w, x[:rows])
    assert keeper.kept_bytes() - before == one
    w[...] = 1
    check(f, w, x)
    check(f, w, x[:251])
    assert keeper.kept_bytes() - before == one
    del f
    gc.collect()
    assert keeper.kept_bytes() == before


def test_a_transposed_weight_and_transposed_arguments():
    rng = np.random.default_rng(0)
    w = nd.transpose(nd.array(rng.standard_normal((70, 40), np.float32)))
    x = nd.transpose(nd.array(rng.standard_normal((70, 150), np.float32)))

    f = Product(w)
    f.hybridize()
    for _ in range(2):
        check(f, w, x)
        w[2] = 3


def test_scales_of_stored_moments_are_computed_once():
    net = nn.HybridSequential()
    net.add(nn.Conv2D(8, 3, in_channels=3), nn.BatchNorm(in_channels=8))
    net.initialize()
    net[1].running_var.set_data(nd.array(np.linspace(0.5, 2, 8, dtype=np.float32)))
    x = nd.array(np.random.default_rng(0).standard_normal((2, 3, 12, 12), np.float32))
    expected = net(x).asnumpy()
    net.hybridize()
    for _ in range(2):
        np.testing.assert_allclose(net(x).asnumpy(), expected, rtol=1e-4, atol=1e-5)
    roots = [k.kept for k in net.explain(x, measure=False).kernels if "sqrt" in k.operations]
    assert roots == [True]
    net[1].running_var.set_data(nd.ones((8,)) * 4)
    net[1].running_mean.set_data(nd.ones((8,)))
    found = net(x).asnumpy()
    net.hybridize(False)
    np.testing.assert_allclose(found, net(x).asnumpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("length", [150, 700])
def test_calls_while_another_thread_writes(length):
    f, w, x = layer(rows=length, columns=130, inner=150)
    check(f, w, x)
    stop, errors = threading.Event(), []

    def call():
        while not stop.is_set():
            f(x)

    threads = [threading.Thread(target=call) for _ in range(3)]
    for t in threads:
        t.start()
    try:
        for k in range(60):
            w[...] = nd.full(w.shape, float(k))
            expected = x.asnumpy().sum(1, keepdims=True) * k + 1
            for _ in range(2):  # the write is over: nothing older may be used
                if not np.allclose(f(x).asnumpy(), expected, rtol=1e-3, atol=1e-2):
                    errors.append(k)
    finally:
        stop.set()
        for t in threads:
            t.join()
    assert not errors
    check(f, w, x)


# -- which launches are left out

def _launch(reads, writes):
    builder = KernelBuilder()
    total = Const(1.0, Type("float32"))
    for s in reads:
        total = total + Load(builder.buffer(s, "read"), const(0), Type("float32"))
    body = [Store(builder.buffer(s, "write"), const(0), total) for s in writes]
    return builder.launch("k", body, "task", 1, 1)


def _names(kept):
    return [(s.name, [x.buffers[-1].name for x in behind]) for s, behind in kept]


def test_chains_of_constants_are_kept():
    w, x, out = (Storage("float32", 4, n) for n in ("w", "x", "out"))
    a, b, c, mixed = (Storage("float32", 4, n) for n in ("a", "b", "c", "mixed"))
    launches = [_launch([x], [mixed]), _launch([w], [a]), _launch([a], [b]), _launch([w, x], [c]), _launch([b, c, mixed], [out])]
    assert _names(hoist(launches, {w}, {w, x, out})) == [("b", ["a", "b"])]
    assert hoist(launches, (), {w, x, out}) == ()


def test_what_is_written_twice_or_given_out_stays():
    w, x, out = (Storage("float32", 4, n) for n in ("w", "x", "out"))
    a, whole = Storage("float32", 4, "a"), Storage("float32", 8, "whole")
    left, right = Storage("float32", 4, "left", whole, 0), Storage("float32", 4, "right", whole, 4)
    launches = [_launch([w], [left]), _launch([x], [right]), _launch([w], [a]), _launch([x], [a]), _launch([whole, a], [out])]
    assert hoist(launches, {w}, {w, x, out}) == ()
    assert hoist([_launch([w], [out])], {w}, {w, x, out}) == ()
    launches[1] = _launch([w], [right])
    assert _names(hoist(launches, {w}, {w, x, out})) == [("whole", ["left", "right"])]


def test_what_is_large_stays():
    w, x, out = Storage("float32", 1 << 24, "w"), Storage("float32", 4, "x"), Storage("float32", 4, "out")
    large, small = Storage("float32", 1 << 27, "large"), Storage("float32", 1 << 22, "small")
    other = Storage("float32", 1 << 21, "other")
    launches = [_launch([w], [large]), _launch([w], [small]), _launch([w], [other]), _launch([large, small, other, x], [out])]
    assert _names(hoist(launches, {w}, {w, x, out})) == [("small", ["small"]), ("other", ["other"])]
