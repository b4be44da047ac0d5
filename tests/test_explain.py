"""What `explain` reports: rows, operations, flops, bytes, memory, reasons; fresh, from disk, with symbolic sizes, in training."""

import numpy as np
import pytest

import hybrid
import ndarray as nd
from blocks import init, nn
from hybrid.graph import Builder
from jit import limits, runtime
from jit.backend import NativeBackend
from jit.explain import operations_of
from ndarray import autograd
from ndarray.op import ArrayType
from ndarray.settings import settings


def lenet():
    net = nn.HybridSequential()
    net.add(
        nn.Conv2D(3, 5, padding=2, activation="relu"), nn.MaxPool2D(2, 2), nn.Flatten(), nn.Dense(20, activation="relu"),
        nn.Dense(10),
    )
    net.initialize(init.Xavier())
    net.hybridize()
    return net


def images(count):
    return nd.array(np.random.default_rng(0).random((count, 1, 28, 28), np.float32))


def test_rows_name_what_was_fused_where_and_what_it_costs():
    net, x = lenet(), images(4)
    found = net.explain(x)
    (program,) = found.programs
    ops = [op for k in found.kernels for op in k.operations]
    assert program.equations >= len(ops)
    assert [op for op in ops if op in ("convolution", "max_pool", "dot_general")] == [
        "convolution", "max_pool", "dot_general", "dot_general"
    ]
    (row,) = [k for k in found.kernels if "convolution" in k.operations]
    assert {"add", "relu"} <= set(row.operations)
    assert row.flops == 4 * 3 * 28 * 28 * (2 * 25 + 2)
    assert row.bytes >= 4 * 3 * 28 * 28 * 4
    assert any(line.startswith("test_explain.py:") for line in row.lines)
    assert row.blocks == ("Conv2D 0",)
    assert row.seconds > 0 and row.gflops > 0 and 0 < row.share_of_peak <= 1.5 and row.share_of_bandwidth > 0
    assert 1 <= row.threads <= settings.num_threads and row.tasks >= 1
    assert program.seconds > 0 and program.limits.gflops > 1
    reasons = [r for r in program.not_fused if "max_pool" in program.kernels[r.consumer].operations]
    assert reasons and all("convolution" in program.kernels[r.producer].operations for r in reasons)
    text = str(found)
    for part in ("GFLOP/s", "operations", "convolution add relu", "stay apart", "memory plan", "test_explain.py:"):
        assert part in text and part in found


def test_memory_is_known_before_anything_runs():
    net, x = lenet(), images(4)
    calls = runtime.native_calls()
    report = net.explain(x, measure=False).programs[0]
    memory = report.memory
    assert runtime.native_calls() == calls
    assert report.seconds is None and all(k.seconds is None for k in report.kernels) and "GB/s" not in str(report)
    assert memory.arena == max(t.offset + -(-t.bytes // 64) * 64 for t in memory.temporaries)
    assert memory.unshared == sum(-(-t.bytes // 64) * 64 for t in memory.temporaries)
    for i, a in enumerate(memory.temporaries):
        assert a.offset % 64 == 0 and 0 <= a.first <= a.last < len(report.kernels)
        for b in memory.temporaries[:i]:
            apart = a.last < b.first or b.last < a.first
            assert apart or a.offset + a.bytes <= b.offset or b.offset + b.bytes <= a.offset


def test_kernels_are_the_rows():
    net, x = lenet(), images(2)
    rows = net.kernels(x)
    assert [(k.name, k.operations) for k in rows] == [(k.name, k.operations) for k in net.explain(x).kernels]
    net.hybridize(backend="interpreter")
    assert "convolution" in [op for k in net.kernels(x) for op in k.operations]


def test_training_shows_forward_and_backward_and_changes_nothing():
    net = nn.HybridSequential()
    net.add(nn.Dense(5, in_units=7), nn.BatchNorm(in_channels=5), nn.Dense(2, in_units=5))
    net.initialize()
    net.hybridize()
    x = nd.array(np.random.default_rng(1).random((6, 7), np.float32))
    before = {k: p.data().asnumpy().copy() for k, p in net.collect_params().items()}
    with autograd.record():
        found = net.explain(x)
    forward, backward = found.programs
    assert forward.guards == backward.guards == ()
    assert [op for k in forward.kernels for op in k.operations].count("dot_general") == 2
    assert [op for k in backward.kernels for op in k.operations].count("dot_general") >= 3
    assert len(found.written) == 2  # running statistics
    for name, p in net.collect_params().items():
        np.testing.assert_array_equal(p.data().asnumpy(), before[name], err_msg=name)


def test_symbolic_sizes_are_reported_for_the_call_at_hand():
    @hybrid.hybridize
    def f(x):
        return nd.softmax(x) * 2 if x.shape[0] > 2 else x

    for n in (5, 6):
        f(nd.ones((n, 300)))
    for n in (7, 11):
        (program,) = f.explain(nd.ones((n, 300))).programs
        assert program.sizes == {"n": n}
        assert program.kernels[0].bytes == 2 * n * 300 * 4
    assert f.explain(nd.ones((7, 300))).guards[0][0] == "n > 2"
    assert "n > 2   # " in f.explain(nd.ones((7, 300)))


def test_a_recipe_from_disk_tells_the_same(tmp_path):
    b = Builder("net")
    x, w = b.input(ArrayType((8, 16), np.dtype("f4")), "x"), b.input(ArrayType((4, 16), np.dtype("f4")), "w")
    (y,) = b.emit("dot_general", x, w, contract=((1,), (1,)), batch=((), ()))
    (z,) = b.emit("exp", y)
    (s,) = b.emit("sum", z, axes=(0,), keepdims=False)
    graph = b.build([s])
    texts = []
    with nd.settings(HYBRID_CACHE_DIR=str(tmp_path)):
        for _ in range(2):
            backend = NativeBackend()
            texts.append(str(backend.compile(graph).explain()))
        assert backend.statistics.disk_hits == 1
    assert texts[0] == texts[1] and "dot_general exp" in texts[0] and "stay apart" in texts[0]


@pytest.mark.parametrize(("op", "shapes", "attrs", "expected"), [
    ("dot_general", [(2, 3, 5), (2, 7, 5)], {"contract": ((2,), (2,)), "batch": ((0,), (0,))}, 2 * 2 * 3 * 7 * 5),
    ("convolution", [(2, 4, 8, 8), (6, 2, 3, 3)],
     {"stride": (1, 1), "padding": ((1, 1), (1, 1)), "dilation": (1, 1), "groups": 2}, 2 * 2 * 6 * 64 * 2 * 9),
    ("sum", [(3, 5)], {"axes": (1,), "keepdims": False}, 15),
    ("exp", [(3, 5)], {}, 15),
    ("transpose", [(3, 5)], {"axes": (1, 0)}, 0),
])
def test_operations(op, shapes, attrs, expected):
    b = Builder()
    inputs = [b.input(ArrayType(s, np.dtype("f4"))) for s in shapes]
    b.emit(op, *inputs, **attrs)
    assert operations_of(b.equations[0]) == expected


def test_limits_are_measured_once(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "_known", {})
    with nd.settings(HYBRID_CACHE_DIR=str(tmp_path)):
        first = limits.machine_limits(1)
        assert first.gflops > 1 and first.gigabytes > 0.1
        limits._known.clear()
        monkeypatch.setattr(limits, "measure", None)
        assert limits.machine_limits(1) == first


def test_of_a_table_only_the_rows_taken_are_counted():
    table, rows = nd.ones((10000, 32)), nd.array([1, 5, 5, 7])
    function = hybrid.hybridize(lambda t, i: nd.exp(nd.take(t, i, axis=0)))
    (kernel,) = function.explain(table, rows).programs[0].kernels
    assert kernel.bytes == 2 * 4 * 32 * 4 + rows.asnumpy().nbytes
