"""Compiled programs on ``nd.sim(0)``: the same results as on the CPU; counts of kernels, launches, graphs."""

import gc

import numpy as np
import pytest

import ndarray as nd
from blocks import Trainer, loss, nn, rnn
from hybrid import hybridize
from jit.cuda.driver import driver_of
from jit.cuda.program import CudaProgram
from jit.cuda.simulate import NoCompiler, compiler
from ndarray import autograd

try:
    compiler()
except NoCompiler:
    pytest.skip("nd.sim needs a C++ compiler", allow_module_level=True)

SIM = nd.sim(0)
DRIVER = driver_of(SIM)
rng = np.random.default_rng(11)


def draw(*shape, dtype="float32"):
    return rng.standard_normal(shape).astype(dtype)


def on(device, values):
    return [nd.array(v, device=device) for v in values]


def agree(function, *arrays, tolerance=2e-6, **options):
    """The function compiled on sim gives what it gives compiled on the CPU; returns how many kernels a call launches."""
    compiled = hybridize(function, **options)
    want = compiled(*on(nd.cpu(), arrays))
    given = on(SIM, arrays)
    compiled(*given)
    before = DRIVER.launches
    got = compiled(*given)
    count = DRIVER.launches - before
    for w, g in zip(*[x if isinstance(x, tuple) else (x,) for x in (want, got)], strict=True):
        assert g.device is SIM
        assert g.dtype == w.dtype
        np.testing.assert_allclose(g.asnumpy(), w.asnumpy(), rtol=tolerance, atol=tolerance)
    return count


def test_a_chain_is_one_kernel_and_equal_bit_for_bit():
    chain = lambda x, y: (nd.tanh(x * 2.0 + y) * nd.sigmoid(y) + nd.exp(-x * x), x > y)
    assert agree(chain, draw(33, 70), draw(33, 70), tolerance=0) == 1


def test_norms_and_losses():
    def step(x, g, b, label):
        m = x.mean(axis=-1, keepdims=True)
        v = ((x - m) ** 2).mean(axis=-1, keepdims=True)
        y = (x - m) / nd.sqrt(v + 1e-5) * g + b
        return nd.softmax(y), -nd.pick(nd.log_softmax(y), label).mean(), x.sum(axis=0), nd.argmax(x, axis=1)

    agree(step, draw(12, 50), draw(50), draw(50), rng.integers(0, 50, 12))


def test_gather_scatter_pooling_and_products():
    def step(table, index, x, w):
        rows = nd.take(table, index, axis=0)
        pooled = nd.max(nd.reshape(x, (6, 4, 2, 8)), axis=2)
        return rows.sum(), nd.relu(nd.matmul(nd.reshape(pooled, (24, 8)), w)), nd.matmul(w.T, w)

    agree(step, draw(9, 33), rng.integers(0, 9, (5, 3)), draw(48, 8), draw(8, 40), tolerance=1e-5)


def test_sizes_that_vary_are_one_program():
    compiled = hybridize(lambda x, w: nd.softmax(nd.matmul(x, w)))
    w = draw(7, 9)
    for n in (3, 40, 5, 1):
        x = draw(n, 7)
        got = compiled(*on(SIM, (x, w)))
        want = hybridize(lambda x, w: nd.softmax(nd.matmul(x, w)))(*on(nd.cpu(), (x, w)))
        np.testing.assert_allclose(got.asnumpy(), want.asnumpy(), 2e-6, 2e-6)
    assert compiled.traces == 2


@pytest.mark.parametrize("steps", [0, 1, 4, 5])
def test_loops_with_known_steps_are_launches(steps):
    def scan(x, s, w):
        return nd.foreach(lambda e, h: ((nd.tanh(h @ w + e), nd.tanh(h @ w + e))), x, s)

    agree(scan, draw(steps, 3, 8), draw(3, 8), draw(8, 8), tolerance=1e-5)


def test_loops_and_branches_that_depend_on_data():
    def search(x):
        steps, end = nd.while_loop(lambda v: v.sum() > 1.0, lambda v: (v.sum(), v * 0.5), x, max_iterations=20)
        return steps, end, nd.cond(x.sum() > 3.0, lambda: x + 1.0, lambda: x - 1.0)

    for scale in (0.01, 3.0, 100.0):
        x = np.abs(draw(6)) * np.float32(scale)
        got, want = (hybridize(search)(nd.array(x, device=d)) for d in (SIM, nd.cpu()))
        for g, w in zip(_arrays(got), _arrays(want), strict=True):
            np.testing.assert_allclose(g.asnumpy(), w.asnumpy(), 1e-6, 1e-6)


def _arrays(form):
    return [form] if isinstance(form, nd.NDArray) else [a for f in form for a in _arrays(f)]


def test_an_op_without_kernels_runs_through_the_array_module():
    agree(lambda x: nd.sort(x * 2.0, axis=0) + 1.0, draw(20, 3))


def test_arrays_that_are_not_contiguous_and_numbers():
    compiled = hybridize(lambda x, y, k: x * k + y)
    x, y = draw(6, 5), draw(5, 6)
    got = compiled(nd.array(x, device=SIM), nd.array(y, device=SIM).T, 3.0)
    np.testing.assert_allclose(got.asnumpy(), x * np.float32(3) + y.T, rtol=1e-6)
    np.testing.assert_allclose(compiled(nd.array(x, device=SIM), nd.array(y, device=SIM).T, 4.0).asnumpy(),
                               x * np.float32(4) + y.T, rtol=1e-6)


def test_results_never_share_memory():
    compiled = hybridize(lambda x: x * 2.0, static_alloc=True, static_shape=True)
    x = nd.array(draw(50), device=SIM)
    results = [compiled(x) for _ in range(6)]
    assert len({r._data.data.ptr for r in results}) == 6
    for r in results:
        np.testing.assert_array_equal(r.asnumpy(), x.asnumpy() * 2)


def test_devices_are_not_mixed():
    compiled = hybridize(lambda x, y: x + y)
    with pytest.raises(ValueError, match="different devices"):
        compiled(nd.ones(3, device=SIM), nd.ones(3))
    w = nd.ones(3)
    captured = hybridize(lambda x: x * w)
    with pytest.raises(ValueError, match=r"sim\(0\).*cpu\(0\)|cpu\(0\).*sim\(0\)"):
        captured(nd.ones(3, device=SIM))


def test_each_device_has_its_own_program():
    compiled = hybridize(lambda x: nd.exp(x) + 1.0)
    x = draw(9)
    for device in (nd.sim(0), nd.sim(1), nd.cpu()):
        got = compiled(nd.array(x, device=device))
        assert got.device is device
        np.testing.assert_allclose(got.asnumpy(), np.exp(x) + 1, rtol=1e-6)


def test_a_second_process_finds_code_on_disk(tmp_path):
    from jit.cuda.backend import CudaBackend
    from ndarray.settings import settings

    function = hybridize(lambda x: nd.log(x * x + 3.0))
    x = nd.array(draw(40), device=SIM)
    want = function(x).asnumpy()
    graph = function.graph(x)
    with settings(HYBRID_CACHE_DIR=str(tmp_path)):
        for expected in ((1, 0), (0, 1)):
            backend = CudaBackend(SIM)
            (got,) = backend.compile(graph)([x._data])
            assert (backend.statistics.compilations, backend.statistics.disk_hits) == expected
            np.testing.assert_array_equal(got.get(), want)


def counts():
    return DRIVER.launches, DRIVER.captures, DRIVER.replays


def deep(x, w):
    for _ in range(6):
        x = nd.softmax(nd.matmul(x, w))
    return x


def test_a_warm_signature_is_one_graph():
    compiled = hybridize(deep)
    w = nd.array(draw(5, 5), device=SIM)
    plain = hybridize(deep)(*on(nd.cpu(), (np.eye(5, dtype="float32"), w.asnumpy()))).asnumpy()
    before = counts()
    for number in range(8):
        x = nd.array(np.eye(5, dtype="float32") * (number % 2), device=SIM)
        got = compiled(x, w)
        if number % 2:
            np.testing.assert_allclose(got.asnumpy(), plain, rtol=1e-5)
    launched, captured, replayed = (b - a for a, b in zip(before, counts()))
    assert captured == 1 and replayed == 5 and launched == 36, (launched, captured, replayed)


def test_a_static_signature_is_captured_at_the_second_call():
    compiled = hybridize(deep, static_alloc=True, static_shape=True)
    x, w = on(SIM, (draw(5, 5), draw(5, 5)))
    before = counts()
    first = compiled(x, w).asnumpy()
    second = compiled(x, w).asnumpy()
    np.testing.assert_array_equal(first, second)
    assert [b - a for a, b in zip(before, counts())][1:] == [1, 1]


def test_a_graph_follows_new_weights():
    compiled = hybridize(deep, static_alloc=True, static_shape=True)
    x = nd.array(draw(5, 5), device=SIM)
    for _ in range(3):
        w = draw(5, 5)
        for _ in range(3):
            got = compiled(x, nd.array(w, device=SIM)).asnumpy()
        np.testing.assert_allclose(got, hybridize(deep)(*on(nd.cpu(), (x.asnumpy(), w))).asnumpy(), rtol=1e-5)


def train(device, make, x, y, steps=5, optimizer="sgd", whole=False, dtype="float32", **options):
    """Losses of some training steps."""
    nd.random.seed(3)
    net = make()
    net.initialize()
    if dtype != "float32":
        net.cast(dtype)
    net(nd.array(x))
    net.reset_device(device)
    net.hybridize()
    nd.random.seed(5)
    criterion = loss.SoftmaxCrossEntropyLoss()
    trainer = Trainer(net.collect_params(), optimizer, options or {"learning_rate": 0.05, "momentum": 0.9})
    data, label = nd.array(x, device=device), nd.array(y, device=device)

    def step(data, label):
        with autograd.record():
            found = criterion(net(data), label).mean()
        found.backward()
        trainer.step(1)
        return found

    run = hybridize(step) if whole else step
    return [float(run(data, label).asnumpy()) for _ in range(steps)]


def mlp():
    net = nn.HybridSequential()
    net.add(nn.Dense(24, activation="relu"), nn.LayerNorm(), nn.Dropout(0.2), nn.Dense(5))
    return net


@pytest.mark.parametrize("whole", [False, True], ids=["parts", "whole"])
def test_a_network_trains_as_on_the_cpu(whole):
    x, y = draw(8, 12), rng.integers(0, 5, 8)
    want, got = (train(d, mlp, x, y, whole=whole) for d in (nd.cpu(), SIM))
    np.testing.assert_allclose(got, want, rtol=1e-4)
    assert got[-1] < got[0]


def test_a_whole_training_step_becomes_one_graph():
    x, y = draw(8, 12), rng.integers(0, 5, 8)
    before = counts()
    got = train(SIM, mlp, x, y, steps=8, whole=True)
    assert [b - a for a, b in zip(before, counts())][1:] == [1, 5]
    np.testing.assert_allclose(got, train(nd.cpu(), mlp, x, y, steps=8, whole=True), rtol=1e-4)


def test_explain_lists_kernels_without_times():
    net = mlp()
    net.initialize(device=SIM)
    net.hybridize()
    report = net.explain(nd.array(draw(8, 12), device=SIM))
    assert report.kernels
    assert all(k.seconds is None for k in report.kernels)
    assert "Dense" in str(report)


def test_threads_share_a_program():
    from concurrent.futures import ThreadPoolExecutor

    compiled = hybridize(deep)
    w = nd.array(draw(5, 5), device=SIM)
    xs = [draw(5, 5) for _ in range(24)]
    compiled(nd.array(xs[0], device=SIM), w)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda x: compiled(nd.array(x, device=SIM), w).asnumpy(), xs))
    plain = hybridize(deep)
    for x, got in zip(xs, found):
        np.testing.assert_allclose(got, plain(*on(nd.cpu(), (x, w.asnumpy()))).asnumpy(), rtol=1e-5)


def test_what_depends_on_weights_only_is_kept_until_they_are_written():
    net = nn.HybridSequential()
    net.add(nn.Conv2D(8, 3, in_channels=4))
    net.initialize(device=SIM)
    net.hybridize()
    x = nd.array(draw(2, 4, 9, 9), device=SIM)
    before = DRIVER.launches
    first = net(x).asnumpy()
    whole = DRIVER.launches - before
    net(x)
    before = DRIVER.launches
    np.testing.assert_array_equal(net(x).asnumpy(), first)
    assert DRIVER.launches - before < whole
    weight = net.collect_params()[next(k for k in net.collect_params() if k.endswith("weight"))]
    weight.set_data(weight.data() * 2.0)
    bias = net.collect_params()[next(k for k in net.collect_params() if k.endswith("bias"))].data().asnumpy()
    for _ in range(3):
        want = (first - bias[:, None, None]) * 2 + bias[:, None, None]
        np.testing.assert_allclose(net(x).asnumpy(), want, rtol=1e-5, atol=1e-6)


def test_nothing_is_allocated_or_read_while_a_graph_runs():
    """The simulator would raise: here is what it refuses."""
    from ndarray.simulated import CaptureError, capture

    with SIM.active(), capture():
        with pytest.raises(CaptureError):
            DRIVER.allocate(64)
        with pytest.raises(CaptureError):
            DRIVER.read(0, "int64")
        with pytest.raises(CaptureError):
            DRIVER.upload(0, np.zeros(1))


def test_programs_that_read_what_decides_are_never_captured():
    def halve(x):
        return nd.while_loop(lambda v: v.sum() > 1.0, lambda v: (v.sum(), v * 0.5), x, max_iterations=20)

    compiled = hybridize(halve, static_alloc=True, static_shape=True)
    before = counts()
    for _ in range(6):
        compiled(nd.ones(6, device=SIM))
    assert [b - a for a, b in zip(before, counts())][1:] == [0, 0]


@pytest.mark.parametrize("optimizer", ["nag", "adamw", "lamb"])
def test_optimizers(optimizer):
    x, y = draw(8, 12), rng.integers(0, 5, 8)
    make = lambda: nn.Dense(5)
    want, got = (train(d, make, x, y, 3, optimizer, whole=True, learning_rate=0.01) for d in (nd.cpu(), SIM))
    np.testing.assert_allclose(got, want, rtol=1e-4)


def test_what_is_kept_of_weights_needs_no_lengths():
    """A recurrent layer for sequences of any length is one program, whose weights' part is computed before a length is known."""
    net = rnn.RNN(6, input_size=4)
    net.initialize(device=SIM)
    inputs = [draw(n, 2, 4) for n in (3, 5, 7, 4)]
    want = [net(nd.array(x, device=SIM)).asnumpy() for x in inputs]
    net.hybridize()
    for x, w in zip(inputs, want, strict=True):
        np.testing.assert_allclose(net(nd.array(x, device=SIM)).asnumpy(), w, rtol=1e-5, atol=1e-6)


def test_a_graph_knows_numbers_of_the_host_from_arrays():
    """An input that is now a number, now an array: in a graph, each has its own place."""
    def several(x, s):
        for _ in range(6):
            x = nd.matmul(nd.softmax(x * s), x)
        return x

    compiled = hybridize(several, static_alloc=True, static_shape=True)
    x = nd.array(draw(4, 4), device=SIM)
    held = {id(o) for o in gc.get_objects() if isinstance(o, CudaProgram)}
    compiled(x, nd.array(np.float32(1), device=SIM))
    program, = [o for o in gc.get_objects() if isinstance(o, CudaProgram) and id(o) not in held]
    for k in range(8):
        s = np.asarray(0.1 * k + 0.1, "float32")
        given = s if k // 2 % 2 else nd.array(s, device=SIM)._data
        got, = program([x._data, given])
        np.testing.assert_allclose(got.get(), several(x.to_device(nd.cpu()), nd.array(s)).asnumpy(), rtol=1e-5, atol=1e-6)


def test_sizes_are_bound_where_the_device_is_current(monkeypatch):
    """Steps of libraries take their handles from the current device, at a call with new sizes too."""
    from jit.cuda import program
    from ndarray import simulated

    seen = []
    make = program.make_plan
    monkeypatch.setattr(program, "make_plan", lambda *args: seen.append(simulated.current()) or make(*args))
    compiled = hybridize(lambda x: nd.softmax(x) * 2)
    for rows in (3, 5, 7, 9):
        compiled(nd.array(draw(rows, 8), device=nd.sim(1)))
    assert len(seen) >= 2
    assert set(seen) == {1}


def test_gradients_make_positions_on_the_device():
    """Those of picked scores, and the second ones of causal attention, compare with positions."""
    def run(device):
        rng = np.random.default_rng(0)
        q, scores = nd.array(rng.standard_normal((1, 1, 9, 4)), dtype="float32", device=device), nd.array(
            rng.standard_normal((3, 5)), dtype="float32", device=device)
        labels = nd.array([1, -1, 4], dtype="int64", device=device)
        q.attach_grad()
        scores.attach_grad()

        @hybridize
        def step(q, scores, labels):
            with autograd.record():
                picked = nd.pick(scores, labels)
                y = nd.scaled_dot_product_attention(q, q, q, causal=True)
                (slope,) = autograd.grad((y * y).sum(), [q], create_graph=True)
                total = (slope * slope).sum() + (picked * picked).sum()
            total.backward()
            return total

        step(q, scores, labels)
        return q.grad.asnumpy(), scores.grad.asnumpy()

    for have, expected in zip(run(SIM), run(nd.cpu()), strict=True):
        np.testing.assert_allclose(have, expected, 2e-5, 2e-5)
