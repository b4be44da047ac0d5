"""Streams, copies, memory and foreign arrays: on ``sim(i)``, and on ``gpu(i)`` with a stand-in for CuPy (`fake_cupy`)."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import ndarray as nd
from blocks.data import ArrayDataset, DataLoader
from hybrid import hybridize
from jit.cuda.simulate import NoCompiler, compiler
from ndarray import autograd, cuda, simulated
from ndarray.apply import apply
from ndarray.op import OPS
from ndarray.testing import assert_close
from tests import fake_cupy
from tests.fake_cupy import LOG
from tests.test_sim_arrays import trained

GPU = nd.gpu(0)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    yield fake_cupy.install(monkeypatch)
    cuda._check.cache_clear()
    cuda.module.cache_clear()
    simulated._state.device = 0
    for index in range(fake_cupy.GPUS):
        simulated.pool(index).total = simulated.UNLIMITED


@pytest.fixture(params=["sim", "gpu"])
def device(request: pytest.FixtureRequest) -> nd.Device:
    if request.param == "gpu":
        request.getfixturevalue("fake")
    return nd.Device(request.param, 1)


def kinds() -> list[str]:
    return [entry[0] for entry in LOG]


@pytest.mark.parametrize("name", ["add", "take", "scatter_add", "convolution", "sum", "solve", "concatenate", "random_bits"])
def test_ops_on_a_gpu_that_is_not_the_current_one(fake: Any, name: str) -> None:
    for s in list(OPS[name].samples())[:12]:
        want = OPS[name].eager(np, *s.arrays, **s.attrs)
        with nd.gpu(1):
            found = apply(OPS[name], *[nd.array(a) for a in s.arrays], **s.attrs)
        assert found.device is nd.gpu(1) and found._data.device == 1
        assert_close(found, want, s.tolerance)
    assert simulated.current() == 0 and fake.errors == {"linalg": "ignore"}


def test_gradients_and_copies_over_gpus(fake: Any) -> None:
    x = nd.array([1.0, 2.0, 3.0], device=nd.gpu(1))
    x.attach_grad()
    with autograd.record():
        loss = (x.to_device(nd.gpu(0)) ** 2).sum()
    loss.backward()
    assert x.grad.device is nd.gpu(1) and x.grad.tolist() == [2, 4, 6]
    assert [e[1:3] for e in LOG if e[0] == "peer"] == [(1, 0), (0, 1)]
    assert repr(x) == "array([1., 2., 3.], device=gpu(1))"


def test_a_copy_between_gpus_is_ordered_by_events(fake: Any) -> None:
    x = nd.ones(4, device=nd.gpu(1))
    LOG.clear()
    x.to_device(nd.gpu(0))
    assert kinds() == ["record", "wait", "peer", "record", "wait"]  # the source isn't reused before its end


def test_streams_and_events(device: nd.Device) -> None:
    first, second = nd.Stream(device), nd.Stream(device, priority=-1)
    with first:
        x = nd.ones((2, 2), device=device) * 2
        done = first.record(timing=True)
    second.wait(done)
    with second:
        y = x + 1
    second.synchronize()
    assert y.asnumpy().tolist() == [[3, 3], [3, 3]]
    assert done.done and first.done and done.elapsed(second.record(timing=True)) >= 0
    moved = nd.ones(3).to_device(device, stream=first)
    done.synchronize()
    assert moved.device is device and repr(first) == f"Stream({device})"
    y.wait_to_read()
    nd.waitall()
    if device.kind == "gpu":
        assert ("device", 1) in LOG and simulated.current() == 0
        assert [e for e in LOG if e[0] == "stream"][-1] == ("stream", 1, True)
    with nd.Stream(nd.cpu()) as idle:
        idle.wait(done)
    assert idle.record().done


@pytest.mark.parametrize("layout", ["contiguous", "reversed"])
def test_asynchronous_copies(device: nd.Device, layout: str) -> None:
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    host = nd.pin_memory(nd.array(values))
    x = nd.zeros((2, 3), device=device)
    view = x[::-1] if layout == "reversed" else x
    stream = nd.Stream(device)
    nd.copy_async(host, view, stream).synchronize()
    assert view.asnumpy().tolist() == values.tolist()
    back = nd.zeros((2, 3))
    version = back._version
    event = nd.copy_async(view, back)
    event.synchronize()
    assert event.done and back.tolist() == values.tolist() and back._version > version
    other = nd.zeros((2, 3), device=nd.Device(device.kind, 0))
    nd.copy_async(view, other).synchronize()
    assert other.tolist() == values.tolist()
    with pytest.raises(ValueError, match="copy_async: target: expected float32 of shape"):
        nd.copy_async(host, nd.zeros((3, 2), device=device))
    if device.kind == "gpu":
        assert host is not None and ("pinned", 24) in LOG and {"upload", "download"} <= set(kinds())


def test_counting_arrays_asks_nothing_of_other_objects() -> None:
    class Touchy:
        @property
        def __class__(self) -> type:  # type: ignore[override]
            raise AssertionError("asked")

    kept = Touchy()
    assert nd.memory_stats(nd.sim(1))["arrays"] >= 0
    del kept



def test_out_of_memory_says_what_holds_the_memory_and_what_would_fit(device: nd.Device) -> None:
    before = simulated.pool(1).used
    nd.limit_memory(device, before + (1 << 20))
    try:
        kept = [nd.zeros((64, 1024), device=device) for _ in range(2)]
        kept[0][:] = 1
        free, total = nd.gpu_memory_info(device)
        assert 0 < free < total
        assert nd.memory_stats(device)["arrays"] >= 1 << 19
        a, b = kept
        for make in (lambda: nd.zeros((1024, 1024), device=device), lambda k=(a, b): nd.concatenate([*k, *k, *k]),
                     lambda k=a: k.copy().copy() + k.copy()):
            with pytest.raises(nd.OutOfMemoryError) as info:
                make()
            text = str(info.value)
            assert f"{device} is out of memory" in text and "would fit" in text, text
            assert " x float32[64, 1024]: " in text and "use a smaller batch" in text, text
            assert isinstance(info.value, MemoryError) and isinstance(info.value, nd.DeviceError)
        assert "test_cuda_arrays.py" in text, text  # where the arrays were written last
        del kept, a, b, make, info
        nd.empty_cache(device)
        assert nd.ones((100, 1024), device=device).sum().item() == 102400
    finally:
        nd.limit_memory(device, 0)
    with pytest.raises(nd.DeviceError, match="expected a GPU"):
        nd.gpu_memory_info(nd.cpu())


def test_memory_is_given_back() -> None:
    device = nd.sim(5)
    x = nd.zeros((1000,), device=device)
    used = nd.memory_stats(device)["used"]
    view = x[10:20]
    del x
    assert nd.memory_stats(device)["used"] == used  # the view holds it
    del view
    assert nd.memory_stats(device)["used"] == used - 4000


def test_dlpack_shares_memory_and_says_where_it_is() -> None:
    x = nd.arange(4, dtype="float32", device=nd.sim(1))
    assert x.__dlpack_device__() == (1, 0)
    shared = np.from_dlpack(x)
    shared[0] = 7
    assert x.tolist() == [7, 1, 2, 3]
    with pytest.raises(AttributeError, match=r"sim\(1\) has no __cuda_array_interface__"):
        _ = x.__cuda_array_interface__
    with pytest.raises(BufferError):
        x.__dlpack__(dl_device=(2, 0))
    back = nd.from_dlpack(x._data)
    assert back.device is nd.sim(1) and back._data is x._data
    assert nd.array(x._data).device is nd.sim(1) and nd.array(x._data, device=nd.cpu()).tolist() == [7, 1, 2, 3]
    assert nd.asarray(x._data, copy=False)._data is x._data


class Foreign:
    """Another library's array on a GPU."""

    def __init__(self, data: Any):
        self.data = data

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, self.data.device

    def __dlpack__(self, **_: Any) -> Any:
        return self.data


def test_arrays_of_other_libraries_on_a_gpu_are_taken_without_a_copy(fake: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fake_cupy.Cupy, "from_dlpack", lambda self, x: x.__dlpack__(), raising=False)
    data = nd.ones(3, device=nd.gpu(1))._data
    for take in (nd.from_dlpack, nd.asarray, lambda x: nd.asarray(x, copy=False)):
        found = take(Foreign(data))
        assert found.device is nd.gpu(1) and found._data is data
    copied = nd.array(Foreign(data))
    assert copied.device is nd.gpu(1) and copied._data is not data and copied.tolist() == [1, 1, 1]
    assert nd.array(Foreign(data), device=nd.cpu()).tolist() == [1, 1, 1]


def test_batches_in_pinned_memory(fake: Any) -> None:
    values = np.arange(12, dtype=np.float32).reshape(6, 2)
    target = nd.zeros((3, 2), device=GPU)
    for k, (x, _) in enumerate(DataLoader(ArrayDataset(values, np.arange(6)), batch_size=3, pin_memory=True)):
        assert ("pinned", 24) in LOG
        nd.copy_async(x, target).synchronize()
        assert target.tolist() == values[3 * k : 3 * k + 3].tolist()


def test_modules_launches_and_graphs(fake: Any) -> None:
    assert cuda.properties(1) == ("sm_90", 132, 232448)
    loaded = cuda.load(1, b"\x7fELF", ["one", "three"], shared=100_000)
    assert loaded.functions == {"one": 4096, "three": 4097}
    assert [e for e in LOG if e[0] == "attribute"] == [("attribute", 4096, 8, 100_000), ("attribute", 4097, 8, 100_000)]
    words = np.array([5, 7, 9], np.int64)
    at = cuda.pointers(words)
    with cuda.active(1):
        cuda.launch(loaded.functions["one"], 10, (32, 8), 1024, 0, at.ctypes.data)
    assert LOG[-1] == ("launch", 4096, 10, 1, 1, 32, 8, 1, 1024, 0, [5, 7, 9])
    x = nd.ones(2, device=nd.gpu(1))
    graph = cuda.capture(1, lambda: cuda.launch(4096, 1, (32, 1), 0, 0, at.ctypes.data))
    with cuda.active(1):
        graph.launch()
    assert LOG[-1][0] == "graph"
    with pytest.raises(simulated.CaptureError):
        cuda.capture(1, lambda: x.copy())
    assert (x + 1).tolist() == [2, 2]  # capturing is over
    target = np.zeros(2, np.float32)
    cuda.copy(target.ctypes.data, x._data.data.ptr, 8, 0)
    assert target.tolist() == [1, 1]


def test_programs_on_a_gpu(fake: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The driver of a GPU: modules, packed arguments, streams, graphs. What kernels compute, the simulator computes."""
    try:
        compiler()
    except NoCompiler as missing:
        pytest.skip(str(missing))
    fake_cupy.install_compiler(monkeypatch)

    def step(x: Any, w: Any) -> Any:
        return nd.softmax(nd.tanh(nd.dot(x, w)) + x.sum(axis=1, keepdims=True))

    generator = np.random.default_rng(3)
    values = [generator.standard_normal(shape).astype(np.float32) for shape in ((6, 40), (40, 40))]
    function = hybridize(step, static_alloc=True, static_shape=True)
    want = step(*map(nd.array, values)).asnumpy()
    with nd.gpu(1):
        given = [nd.array(v) for v in values]
        for _ in range(4):
            found = function(*given)
            assert found.device is nd.gpu(1)
            assert_close(found, want)
        assert {"launch", "graph"} <= set(kinds())
        with nd.Stream() as stream:
            assert_close(function(*given), want)
            LOG.clear()
            assert_close(function(*given) + 1, want + 1)
        assert {e[9] for e in LOG if e[0] == "launch"} <= {stream._handle.ptr}
    assert simulated.current() == 0


@pytest.mark.slow
def test_training_on_two_gpus(fake: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        compiler()
    except NoCompiler as missing:
        pytest.skip(str(missing))
    fake_cupy.install_compiler(monkeypatch)
    losses, weights = trained([nd.gpu(0), nd.gpu(1)], "adam")
    expected, reference = trained([nd.cpu(0), nd.cpu(1)], "adam")
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    for w, r in zip(weights, reference, strict=True):
        assert_close(w, r)
    assert ("peer", 1, 0) in {e[:3] for e in LOG}


def test_a_missing_gpu_is_an_error_that_says_what_to_do(monkeypatch: pytest.MonkeyPatch, fake: Any) -> None:
    with pytest.raises(nd.DeviceError, match=r"gpu\(4\): this machine has 2 GPUs \(gpu\(0\), gpu\(1\)\)"):
        nd.zeros(1, device=nd.gpu(4))
    monkeypatch.undo()
    cuda._check.cache_clear()
    cuda.module.cache_clear()
    cuda.cupy.cache_clear()
    monkeypatch.setitem(sys.modules, "cupy", None)
    monkeypatch.setitem(sys.modules, "cupy_backends.cuda.libs.nvrtc", None)
    with pytest.raises(nd.DeviceError, match=r"pip install 'hybrid-blocks\[cuda13\]'"):
        nd.zeros(1, device=nd.gpu(0))
    with pytest.raises(nd.DeviceError, match=r"pip install 'hybrid-blocks\[cuda13\]'"):
        cuda.nvrtc()
    assert nd.num_gpus() == 0
    nd.waitall()


def test_cupy_has_what_is_used_of_it() -> None:
    """Every name of CuPy in `ndarray.cuda`, in the installed one."""
    xp = pytest.importorskip("cupy")
    import importlib

    runtime, driver = xp.cuda.runtime, importlib.import_module("cupy_backends.cuda.api.driver")
    for name in ("getDeviceCount", "getDevice", "setDevice", "deviceSynchronize", "memGetInfo", "memcpyAsync",
                 "streamCaptureModeThreadLocal"):
        assert hasattr(runtime, name), name
    first = lambda f: f.__doc__.partition("\n")[0]
    assert first(runtime.memcpyAsync) == "memcpyAsync(intptr_t dst, intptr_t src, size_t size, int kind, intptr_t stream)"
    assert first(driver.launchKernel).count(",") == 10 and "intptr_t kernel_params" in first(driver.launchKernel)
    assert first(driver.funcSetAttribute) == "funcSetAttribute(intptr_t f, int attribute, int value)"
    assert "size_t size, stream=None" in first(xp.cuda.MemoryPointer.copy_from_device_async)
    for name in ("copy_from_host_async", "copy_to_host_async"):
        assert "mem, size_t size, stream=None" in first(getattr(xp.cuda.MemoryPointer, name))
    assert "mode=None" in first(xp.cuda.Stream.begin_capture) and hasattr(xp.cuda.Stream, "end_capture")
    assert "load(self, bytes cubin)" in first(xp.cuda.function.Module.load)
    assert "set_limit(self, size=None, fraction=None)" in first(xp.cuda.MemoryPool.set_limit)
    for name in ("used_bytes", "free_bytes", "get_limit", "free_all_blocks"):
        assert hasattr(xp.cuda.MemoryPool, name), name
    assert issubclass(xp.cuda.memory.OutOfMemoryError, MemoryError)
    assert "stream=None, tuple max_version=None, dl_device=None, copy=None" in first(xp.ndarray.__dlpack__)
    assert {"linalg"} <= set(importlib.import_module("cupyx").seterr.__kwdefaults__ or {"linalg"})
    assert cuda.nvrtc().getVersion() >= (12, 0)
