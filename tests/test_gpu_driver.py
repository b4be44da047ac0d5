"""The driver of ``gpu(i)`` on the stand-in for CuPy, whose launches run in the simulator: how CuPy is called, and what with."""

import ctypes
import re
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest

import ndarray as nd
from hybrid import hybridize
from jit.cuda import backend, driver, gpu
from jit.cuda.simulate import NoCompiler, compiler, load_module
from ndarray import cuda
from tests import fake_cupy
from tests.fake_cupy import LOG
from tests.test_sim_programs import deep

try:
    compiler()
except NoCompiler:
    pytest.skip("the simulator needs a C++ compiler", allow_module_level=True)


@pytest.fixture
def device(monkeypatch):
    """``gpu(0)``, with its driver."""
    fake_cupy.install(monkeypatch)
    kernels = {}

    def load(index, image, symbols, shared=0):
        source = image.decode()
        module = load_module(source, "int")
        numbers = {}
        for s in symbols:
            taken = re.search(rf" {s}\((.*?)\)", source, re.DOTALL)[1].count(",") + 1
            numbers[s] = len(kernels) + 1
            kernels[numbers[s]] = module, s, taken
        return SimpleNamespace(functions=numbers)

    def launch(function, grid, block, shared, stream, parameters):
        module, symbol, count = kernels[function]
        pointers = (ctypes.c_int64 * count).from_address(parameters)
        words = np.array([ctypes.c_int64.from_address(p).value for p in pointers])
        module.launch(symbol, grid, block, shared, words)
        LOG.append(("kernel", stream, block))

    monkeypatch.setattr(cuda, "load", load)
    monkeypatch.setattr(cuda, "launch", launch)
    monkeypatch.setattr(gpu, "cached_cubin", lambda source, arch, index: SimpleNamespace(image=source.encode()))
    monkeypatch.setattr(gpu, "version", lambda: "13.0")
    monkeypatch.setattr(driver, "_drivers", {})
    monkeypatch.setattr(backend, "_backends", {})
    from hybrid import backend as table

    monkeypatch.setattr(table, "_backends", {k: v for k, v in table._backends.items() if not k.startswith("cuda:")})
    return nd.gpu(0)


def test_programs_launch_on_the_current_stream(device, tmp_path):
    from ndarray.settings import settings

    compiled = hybridize(deep)
    x, w = (np.random.default_rng(k).standard_normal((5, 5)).astype("float32") for k in range(2))
    with settings(HYBRID_CACHE_DIR=str(tmp_path)):
        got = compiled(nd.array(x, device=device), nd.array(w, device=device))
    assert got.device is device
    np.testing.assert_allclose(got.asnumpy(), hybridize(deep)(nd.array(x), nd.array(w)).asnumpy(), rtol=1e-5)
    launched = [entry for entry in LOG if entry[0] == "kernel"]
    assert len(launched) == driver.driver_of(device).launches == 12
    assert len({stream for _, stream, _ in launched}) == 1


def test_warm_programs_are_captured_and_replayed(device, tmp_path):
    from ndarray.settings import settings

    compiled = hybridize(deep, static_alloc=True, static_shape=True)
    x, w = nd.ones((5, 5), device=device), nd.ones((5, 5), device=device)
    with settings(HYBRID_CACHE_DIR=str(tmp_path)):
        for _ in range(4):
            compiled(x, w)
    found = driver.driver_of(device)
    assert (found.captures, found.replays) == (1, 3)
    assert sum(entry[0] == "graph" for entry in LOG) == 3


def test_a_stream_per_thread_is_another_queue_in_every_thread(device, monkeypatch):
    found = driver.driver_of(device)
    monkeypatch.setattr(type(found), "stream", lambda self: cuda.PER_THREAD)
    with ThreadPoolExecutor(1) as other:
        assert other.submit(found.queue).result() != found.queue()
    monkeypatch.setattr(type(found), "stream", lambda self: 77)
    with ThreadPoolExecutor(1) as other:
        assert other.submit(found.queue).result() == found.queue()


def test_what_cannot_be_captured_is_launched(device, tmp_path, monkeypatch, caplog):
    from ndarray.settings import settings

    def capture(index, enqueue):
        raise RuntimeError("cudaErrorStreamCaptureUnsupported")

    monkeypatch.setattr(cuda, "capture", capture)
    compiled = hybridize(deep, static_alloc=True, static_shape=True)
    x, w = nd.ones((5, 5), device=device), nd.ones((5, 5), device=device)
    with settings(HYBRID_CACHE_DIR=str(tmp_path)):
        results = [compiled(x, w).asnumpy() for _ in range(5)]
    assert caplog.text.count("cudaErrorStreamCaptureUnsupported") == 1
    for got in results:
        np.testing.assert_array_equal(got, results[0])


def test_a_failed_capture_ends(device):
    def enqueue():
        raise KeyError("x")

    with pytest.raises(KeyError):
        cuda.capture(0, enqueue)
    assert nd.ones(3, device=device).sum().item() == 3  # nothing is being captured any more
