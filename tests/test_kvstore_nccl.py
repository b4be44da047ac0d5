"""The store "nccl": over simulated GPUs by NumPy, and the calls that reach NCCL (a fake of it)."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest

import kvstore as kv
import ndarray as nd
from blocks import Trainer, init, loss, nn, optimizer, split_and_load
from kvstore import nccl
from ndarray import autograd

DEVICES = [nd.sim(0), nd.sim(1), nd.sim(2)]


def arrays(shape=(5, 3), dtype="float32", seed=0):
    random = np.random.default_rng(seed)
    return [nd.array(random.standard_normal(shape).astype(np.float32), device=d).astype(dtype) for d in DEVICES]


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_sums_equal_those_of_the_store_device(dtype):
    results = []
    for name in ("device", "nccl"):
        store = kv.create(name)
        assert store.type == name
        first, second = arrays(dtype=dtype), arrays((7,), dtype, 1)
        store.pushpull([1, 2], [first, second])
        out = arrays(dtype=dtype, seed=9)
        store.pushpull(3, first, out=out)
        results.append([a.asnumpy() for a in (*first, *second, *out)])
    for a, b in zip(*results):
        np.testing.assert_array_equal(a, b)


def test_push_and_pull_with_an_optimizer():
    weights = []
    for name in ("device", "nccl"):
        store = kv.create(name)
        store.init("w", nd.ones((5, 3), device=DEVICES[0]))
        store.set_optimizer(optimizer.SGD(learning_rate=0.5))
        out = arrays(seed=3)
        store.push("w", arrays())
        store.pull("w", out)
        store.pushpull("w", arrays(seed=1), out=out)
        weights.append([o.asnumpy() for o in out])
    for a, b in zip(*weights):
        np.testing.assert_array_equal(a, b)


def test_training_on_several_devices():
    x = nd.array(np.random.default_rng(0).standard_normal((12, 6)).astype(np.float32))
    y = nd.array(np.arange(12) % 3, dtype="int32")
    found = []
    for name in ("device", "nccl"):
        nd.random.seed(2)
        net = nn.Dense(3, in_units=6)
        net.initialize(init.Xavier(), device=DEVICES)
        trainer = Trainer(net.collect_params(), "sgd", {"learning_rate": 0.1, "momentum": 0.9}, kvstore=name)
        ce = loss.SoftmaxCELoss()
        for _ in range(3):
            with autograd.record():
                values = [ce(net(a), b) for a, b in zip(split_and_load(x, DEVICES), split_and_load(y, DEVICES))]
            autograd.backward(values)
            trainer.step(12)
        found.append([net.weight.data(d).asnumpy() for d in DEVICES])
    for a, b in zip(*found):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(found[1][0], found[1][2])


def test_errors(monkeypatch):
    store = kv.create("nccl")
    with pytest.raises(ValueError, match="use the store 'device'"):
        store.pushpull(0, [nd.ones(2, device=nd.cpu(0)), nd.ones(2, device=nd.cpu(1))])
    with pytest.raises(ValueError, match="different GPUs"):
        store.pushpull(0, [nd.ones(2, device=DEVICES[0]), nd.ones(2, device=DEVICES[0])])
    store.pushpull(0, nd.ones(2, device=DEVICES[0]))  # nothing to sum
    cupy = pytest.importorskip("cupy")
    monkeypatch.setattr(cupy.cuda, "nccl", SimpleNamespace(available=False), raising=False)
    with pytest.raises(ImportError, match="nccl13"):
        nccl.load()


class FakeNccl:
    """Keeps the calls; sums when a group ends, in memory of the host."""

    available = True

    def __init__(self):
        self.calls, self.pending = [], []
        fake = self

        class Communicator:
            def __init__(self, number):
                self.number = number

            @staticmethod
            def initAll(devices):
                fake.calls.append(("init", tuple(devices)))
                return [Communicator(n) for n in devices]

            def allReduce(self, source, target, count, kind, op, stream):
                fake.pending.append((self.number, source, target, count, kind, op, stream))

        self.NcclCommunicator = Communicator

    def groupStart(self):
        self.calls.append(("start",))

    def groupEnd(self):
        import ctypes

        memory = lambda address, count: np.frombuffer((ctypes.c_char * (4 * count)).from_address(address), np.float32)
        keys = [self.pending[k : k + len(DEVICES)] for k in range(0, len(self.pending), len(DEVICES))]
        for calls in keys:
            total = np.sum([memory(c[1], c[3]) for c in calls], axis=0)
            for c in calls:
                memory(c[2], c[3])[...] = total
        self.calls.append(("end", *self.pending))
        self.pending = []


def test_calls_of_nccl(monkeypatch):
    """One group for all keys, on the streams of the store, between events of the current streams."""
    order = []
    fake = FakeNccl()
    monkeypatch.setattr(nccl, "_now", lambda device: order.append(("recorded", device)) or device)
    monkeypatch.setattr(nccl, "_wait_here", lambda device, event: order.append(("waits", device, event)))

    class FakeStream:
        def __init__(self, device):
            self.device, self._handle = device, SimpleNamespace(ptr=100 + device.index)

        def wait(self, event):
            order.append(("stream waits", self.device, event))

        def record(self):
            return f"done on {self.device}"

    monkeypatch.setattr(nccl, "Stream", FakeStream)
    monkeypatch.setattr(type(DEVICES[0]), "active", lambda self: nullcontext())
    engine = nccl._Nccl(tuple(DEVICES), fake)
    first, second = arrays(), arrays((4,), seed=1)
    wanted = [np.sum([a.asnumpy() for a in group], axis=0) for group in (first, second)]
    versions = [a._version for a in first]
    engine.all_reduce([(first, first), (second, second)])
    for group, w in zip((first, second), wanted):
        for a in group:
            np.testing.assert_allclose(a.asnumpy(), w, rtol=1e-6)
    assert [c[0] for c in fake.calls] == ["init", "start", "end"] and fake.calls[0][1] == (0, 1, 2)
    sums = fake.calls[2][1:]
    assert [(c[0], c[3], c[4], c[5], c[6]) for c in sums] == [(i, n, 7, 0, 100 + i) for n in (15, 4) for i in range(3)]
    assert order[:2] == [("recorded", DEVICES[0]), ("stream waits", DEVICES[0], DEVICES[0])]
    assert order[-1] == ("waits", DEVICES[2], "done on sim(2)")
    assert all(a._version > v for a, v in zip(first, versions))
