"""Eager arrays on ``sim(i)``, whose array module refuses what CuPy refuses: every op, gradients, random numbers, blocks."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest

import ndarray as nd
from blocks import Trainer, nn
from blocks.data import ArrayDataset, DataLoader
from blocks.loss import SoftmaxCrossEntropyLoss
from blocks.utils import split_and_load
from hybrid.hybridize import CompiledFunction
from ndarray import autograd, simulated
from ndarray.apply import apply
from ndarray.op import NONDIFF, OPS, Sample
from ndarray.testing import assert_close, check_gradients

NAMES = sorted(n for n in OPS if n != "graph_call")
SIM = nd.sim(0)


def on(values: Any, device: nd.Device = SIM) -> Any:
    return nd.array(values, device=device)


def check_sample(name: str, s: Sample, device: nd.Device) -> None:
    op = OPS[name]
    want = op.eager(np, *s.arrays, **s.attrs)
    with device:
        found = apply(op, *[on(a, device) for a in s.arrays], **s.attrs)
    pairs = zip(*(v if isinstance(v, tuple) else (v,) for v in (found, want)), strict=True)
    for have, expected in pairs:
        expected = np.asarray(expected)
        assert type(have._data) is simulated.SimArray, f"{name}: {type(have._data)}"
        assert (have.device, have.shape, have.dtype) == (device, expected.shape, expected.dtype), name
        assert_close(have, expected, s.tolerance, name)


@pytest.mark.parametrize("name", NAMES)
def test_every_op_is_as_on_the_cpu(name: str) -> None:
    for s in OPS[name].samples():
        if s.error is None:
            check_sample(name, s, SIM)


@pytest.mark.parametrize("name", ["add", "take", "scatter_add", "convolution", "sum", "argsort", "random_bits", "solve", "eigh"])
def test_ops_on_another_device_than_the_current_one(name: str) -> None:
    """CUDA's current device is chosen around an operation; elsewhere it stays as it was."""
    for s in OPS[name].samples():
        if s.error is None:
            check_sample(name, s, nd.sim(1))
    assert simulated.current() == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", [
    n for n in NAMES
    if OPS[n].vjp is not NONDIFF and "random" not in OPS[n].traits and n not in ("custom_gradient", "scan", "branch")
])
def test_gradients(name: str) -> None:
    op = OPS[name]
    for s in op.samples():
        if s.differentiable and s.error is None and any(a.dtype in (np.float64, np.complex128) for a in s.arrays):
            if name == "cast" and s.attrs["dtype"] != np.float64:
                continue
            with SIM:
                check_gradients(lambda *xs, s=s: apply(op, *xs, **s.attrs), s.arrays, order=1, limit=2e-5)


@pytest.mark.parametrize("dtype", [
    "bool", "int8", "uint8", "int16", "int32", "int64", "float16", "bfloat16", "float32", "float64", "complex64", "complex128"])
def test_dtypes(dtype: str) -> None:
    """Every dtype is copied both ways, and added to rows that are named more than once (which CuPy's atomics can't always do)."""
    values = np.arange(12).reshape(4, 3)
    x = nd.array(values % 2 if dtype == "bool" else values, dtype=dtype, device=SIM)
    assert x.dtype == nd.canonical(dtype)
    assert np.array_equal(x.asnumpy(), x.to_device(nd.cpu()).asnumpy())
    if dtype != "bool":
        rows = np.array([0, 2, 2, 0, 0])
        out = apply(OPS["scatter_add"], x, on(rows), nd.ones((5, 3), dtype, SIM), axis=0, mode="clip")
        want = values.copy()
        np.add.at(want, rows, np.ones((5, 3), int))
        assert np.array_equal(out.asnumpy().astype(np.complex128), want)


def test_the_array_module_refuses_what_cupy_refuses() -> None:
    xp = SIM.module
    with SIM.active():
        a = xp.arange(6.0).reshape(2, 3)
        for wrong in (lambda: np.asarray(a), lambda: a + np.ones(3), lambda: np.ones(3) * a, lambda: xp.exp(np.ones(3)),
                      lambda: a[np.array([0])], lambda: xp.take(a, xp.asarray([0]), mode="clip"), lambda: xp.sum(a, where=True),
                      lambda: a.sum(initial=1), lambda: a.item(0), lambda: xp.add.at(xp.zeros(3, "int16"), 0, 1)):
            with pytest.raises(TypeError):
                wrong()
        for name in ("insert", "vecdot", "spacing", "geomspace"):  # NumPy has them, CuPy has not
            with pytest.raises(AttributeError, match="CuPy"):
                getattr(xp, name)
        total = a.sum()
        assert type(total) is simulated.SimArray and total.shape == () and total.item() == 15
        assert a[xp.asarray([7, -3])].tolist() == a.get()[[1, 1]].tolist()  # positions out of bounds wrap
        assert a[0].base is a.base and a.data.ptr == a[0].data.ptr and a[1].data.ptr == a.data.ptr + 24
        assert np.exp(a).data.device_id == 0
        assert np.isnan(xp.empty(3).get()).all()
        b = nd.sim(1).module.ones(3)
        with pytest.raises(ValueError, match="current device"):
            a + b
    with pytest.raises(ValueError, match="current device"):
        b * 2
    assert xp.asarray(b).data.device_id == 0


def test_nothing_is_allocated_computed_or_waited_for_during_capture() -> None:
    x = on([1.0, 2.0])
    with simulated.capture():
        for forbidden in (lambda: x + 1, lambda: x.asnumpy(), lambda: nd.zeros(3, device=SIM), lambda: x.item(), x.copy):
            with pytest.raises(simulated.CaptureError):
                forbidden()
        assert x._data.data.ptr and x._data[:1].shape == (1,)  # addresses and views are allowed
    assert (x + 1).tolist() == [2, 3]


def test_devices_by_name_and_copies_between_them() -> None:
    assert nd.sim(1) is nd.sim(1) and nd.Device("sim", 1) is nd.sim(1) and str(nd.sim(1)) == "sim(1)"
    x = nd.array([1.0, 2.0], device="sim(1)")
    assert x.device is nd.sim(1) and repr(x) == "array([1., 2.], device=sim(1))" and str(x) == "[1. 2.]"
    assert pickle.loads(pickle.dumps(nd.sim(1))) is nd.sim(1)
    for twin in (pickle.loads(pickle.dumps(x)), copy.deepcopy(x), copy.copy(x), x.copy()):
        assert twin.device is nd.sim(1) and twin.tolist() == [1, 2] and twin._data.data.ptr != x._data.data.ptr
    with nd.sim(2):
        made = [nd.zeros(2), nd.ones((2, 2)), nd.full(2, 7), nd.arange(3), nd.eye(2), nd.linspace(0, 1, 3), nd.random.normal()]
        assert all(m.device is nd.sim(2) for m in made) and nd.current_device() is nd.sim(2)
    for target in (nd.cpu(), nd.cpu(1), nd.sim(0), nd.sim(1)):
        y = x.as_in_ctx(target)
        assert y.device is target and y.tolist() == [1, 2]
        assert x.copyto(target).device is target
        z = nd.zeros(2, device=target)
        x.copyto(z)
        assert z.tolist() == [1, 2]
    x.attach_grad()
    with autograd.record():
        loss = (x.to_device(nd.sim(0)) * nd.array([2.0, 3.0], device=nd.sim(0))).to_device(nd.cpu()).sum()
    loss.backward()
    assert x.grad.device is nd.sim(1) and x.grad.tolist() == [2, 3]


def test_mixed_devices_are_named_with_the_remedy() -> None:
    x, y = nd.ones(2, device=nd.sim(0)), nd.ones(2, device=nd.sim(1))
    with pytest.raises(ValueError, match=r"add: .*x on sim\(0\), y on sim\(1\).*to_device"):
        x + y
    with pytest.raises(ValueError, match=r"sim\(0\).*cpu\(0\)"):
        x * nd.ones(2)
    with pytest.raises(ValueError, match=r"write: the array is on sim\(0\), the value on sim\(1\).*to_device"):
        x[:] = y
    assert (x + np.array([1.0, 2.0], np.float32)).device is nd.sim(0)  # arrays of NumPy come along


def test_random_numbers_are_those_of_the_cpu() -> None:
    draws = [lambda: nd.random.uniform(shape=(3, 5)), lambda: nd.random.normal(shape=(7,)), lambda: nd.random.randint(0, 9, (8,)),
             lambda: nd.random.permutation(11), lambda: nd.random.gamma(2.0, 1.0, shape=(4,)), lambda: nd.random.bits((3,)),
             lambda: nd.random.bernoulli(0.5, shape=(9,)), lambda: nd.random.uniform(shape=3, dtype="float64")]
    for draw in draws:
        found = []
        for device in (nd.cpu(0), nd.sim(0)):
            nd.random.seed(42)
            with device:
                found.append([draw().asnumpy() for _ in range(2)])
        for a, b in zip(*found, strict=True):
            np.testing.assert_array_equal(a, b)


def _network() -> nn.HybridSequential:
    net = nn.HybridSequential()
    net.add(nn.Conv2D(4, 3, padding=1), nn.BatchNorm(), nn.Activation("relu"), nn.MaxPool2D(), nn.Flatten(), nn.Dense(8, "tanh"),
            nn.Dropout(0.3), nn.Dense(3))
    return net


def trained(devices: list, optimizer: str, store: Any = "device") -> tuple[list, list]:
    """Losses of three steps over devices, and the weights behind them."""
    nd.random.seed(1)
    net = _network()
    net.initialize(device=nd.cpu())
    generator = np.random.default_rng(0)
    x = generator.standard_normal((8, 1, 6, 6)).astype(np.float32)
    y = generator.integers(0, 3, 8)
    net(nd.array(x[:2]))
    net.reset_device(devices)
    loss_of, losses = SoftmaxCrossEntropyLoss(), []
    trainer = Trainer(net.collect_params(), optimizer, {"learning_rate": 0.05}, kvstore=store)
    for _ in range(3):
        nd.random.seed(2)
        parts = zip(split_and_load(nd.array(x), devices), split_and_load(nd.array(y), devices), strict=True)
        with autograd.record():
            found = [loss_of(net(a), b) for a, b in parts]
        autograd.backward(found)
        trainer.step(8)
        losses.append(sum(float(f.sum()) for f in found))
    return losses, [p.data(devices[0]).asnumpy() for p in net.collect_params().values()]


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_training_is_as_on_the_cpu(optimizer: str) -> None:
    losses, weights = trained([SIM], optimizer)
    expected, reference = trained([nd.cpu(0)], optimizer)
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    for w, r in zip(weights, reference, strict=True):
        assert_close(w, r)


@pytest.mark.parametrize("store", ["device", "local", None])
def test_training_over_several_devices(store: str | None) -> None:
    devices = [nd.sim(0), nd.sim(1)]
    losses, weights = trained(devices, "sgd", store)
    expected, reference = trained([nd.cpu(0), nd.cpu(1)], "sgd", store)
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    for w, r in zip(weights, reference, strict=True):
        assert_close(w, r)


def test_parameters_and_states_move_and_are_saved(tmp_path: Any) -> None:
    net = nn.Dense(2, in_units=3)
    net.initialize(device=SIM)
    x = nd.ones((4, 3), device=SIM)
    trainer = Trainer(net.collect_params(), "adam", {"learning_rate": 0.1})
    for _ in range(2):
        with autograd.record():
            loss = (net(x) ** 2).sum()
        loss.backward()
        trainer.step(4)
    want = net(x).asnumpy()
    net.save_parameters(str(tmp_path / "net.params"))
    trainer.save_states(str(tmp_path / "states"))
    for device in (nd.cpu(), nd.sim(1)):
        other = nn.Dense(2, in_units=3)
        other.load_parameters(str(tmp_path / "net.params"), device=device)
        assert other.weight.data().device is device
        np.testing.assert_allclose(other(x.to_device(device)).asnumpy(), want, rtol=1e-6)
    trainer.load_states(str(tmp_path / "states"))
    net.reset_ctx(nd.sim(1))
    assert net.weight.data().device is nd.sim(1) and net.weight.grad().device is nd.sim(1)
    np.testing.assert_allclose(net(x.to_device(nd.sim(1))).asnumpy(), want, rtol=1e-6)
    twin = copy.deepcopy(net)
    assert twin.weight.data().device is nd.sim(1)
    nd.save(str(tmp_path / "x.npz"), {"x": x})
    with SIM:
        assert nd.load(str(tmp_path / "x.npz"))["x"].device is SIM


def test_the_interpreter_runs_graphs_on_any_device() -> None:
    def step(x: Any, w: Any) -> Any:
        w += x.sum(axis=0)
        return nd.tanh(x) @ w + nd.random.uniform(shape=(2, 3), device=x.device)

    found = []
    for device in (nd.cpu(), nd.sim(0), nd.sim(1)):
        nd.random.seed(3, device)
        x, w = nd.ones((2, 3), device=device), nd.zeros((3, 3), device=device)
        out = CompiledFunction(step, backend="interpreter")(x, w)
        assert out.device is device and w.device is device
        found.append((out.asnumpy(), w.asnumpy()))
    for a, b in zip(found[0], found[1], strict=True):
        assert_close(a, b)
    assert_close(found[2][1], found[0][1])


def test_batches_of_a_loader_are_moved() -> None:
    data = ArrayDataset(np.arange(12, dtype=np.float32).reshape(6, 2), np.arange(6))
    for x, y in DataLoader(data, batch_size=3, pin_memory=True):
        moved, labels = x.to_device(SIM), y.as_in_ctx(SIM)
        assert moved.device is SIM and labels.tolist() == y.tolist() and moved.tolist() == x.tolist()


def test_the_table_of_cupy_is_up_to_date() -> None:
    pytest.importorskip("cupy")
    import cupy

    from ndarray import cupy_table
    from tests import cupy_table as maker

    if cupy.__version__ != cupy_table.VERSION:
        pytest.skip(f"the table is of CuPy {cupy_table.VERSION}, this is {cupy.__version__}")
    assert maker.PLACE.read_text() == maker.text(), "run python -m tests.cupy_table"


def test_positions_made_by_a_gradient_are_where_its_arrays_are() -> None:
    """The gradient of a pick, traced, and the second one of causal attention count positions: on the arrays' device."""
    def picked(x: nd.NDArray, t: nd.NDArray) -> nd.NDArray:
        with autograd.record():
            loss = nd.pick(nd.log_softmax(x), t).sum()
        return autograd.grad(loss, [x])[0]

    def attended(x: nd.NDArray, _: nd.NDArray) -> nd.NDArray:
        with autograd.record():
            out = nd.scaled_dot_product_attention(x, x * 2, x, causal=True)
            first = autograd.grad((out * out).sum(), [x], create_graph=True)[0]
            second = (first * first).sum()
        return autograd.grad(second, [x])[0]

    for function, shape in ((picked, (4, 10)), (attended, (2, 9, 8))):
        numbers = np.random.default_rng(0).standard_normal(shape)
        found = []
        for device in (nd.cpu(), SIM):
            x = nd.array(numbers, device=device)
            t = nd.array(np.array([1, 2, 3, 9]), device=device)
            x.attach_grad()
            for run in (function, CompiledFunction(function, backend="interpreter")):
                out = run(x, t)
                assert out.device is device, run
                found.append(out.asnumpy())
        for a in found[1:]:
            assert_close(a, found[0])
