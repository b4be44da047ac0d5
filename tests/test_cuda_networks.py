"""Kernels of whole networks, compiled by NVRTC for three architectures: they compile, and spill no register."""

import itertools

import numpy as np
import pytest
from networks import NETWORKS, batch, training_step

import ndarray as nd
from blocks import Trainer, init, nn, rnn
from jit.cuda import host, nvrtc
from jit.cuda.printer import print_module
from ndarray.settings import settings

ARCHITECTURES = ("sm_80", "sm_90", "sm_100")


def have_nvrtc():
    try:
        nvrtc.version()
    except nvrtc.CompileError:
        return False
    return True


pytestmark = pytest.mark.skipif(not have_nvrtc(), reason="needs CuPy with NVRTC")


class Residual(nn.HybridBlock):
    """Two 3x3 convolutions with BatchNorm beside the identity (He et al., 2016)."""

    def __init__(self, channels):
        super().__init__()
        self.body = nn.HybridSequential()
        for last in (False, True):
            self.body.add(nn.Conv2D(channels, 3, padding=1, use_bias=False, in_channels=channels),
                          nn.BatchNorm(in_channels=channels))
            if not last:
                self.body.add(nn.Activation("relu"))

    def forward(self, x):
        return nd.relu(self.body(x) + x)


class Recurrent(nn.HybridBlock):
    """The last output of an LSTM, and a dense layer."""

    def __init__(self):
        super().__init__()
        self.lstm, self.dense = rnn.LSTM(20, input_size=12, layout="NTC"), nn.Dense(5, in_units=20)

    def forward(self, x):
        return self.dense(self.lstm(x)[:, -1])


class Transformer(nn.HybridBlock):
    """One block with causal attention, normalized before (as GPT-2 has it), and a mean."""

    def __init__(self, width=32, heads=4):
        super().__init__()
        self.heads = heads
        self.before, self.between = nn.LayerNorm(in_channels=width), nn.LayerNorm(in_channels=width)
        dense = lambda n, m: nn.Dense(m, flatten=False, in_units=n)
        self.project, self.join = dense(width, 3 * width), dense(width, width)
        self.widen, self.narrow, self.last = dense(width, 4 * width), dense(4 * width, width), nn.Dense(6, in_units=width)

    def forward(self, x):
        n, t, c = x.shape
        parts = nd.split(self.project(self.before(x)), 3, axis=-1)
        q, k, v = (p.reshape((n, t, self.heads, c // self.heads)).transpose((0, 2, 1, 3)) for p in parts)
        y = nd.scaled_dot_product_attention(q, k, v, causal=True)
        x = x + self.join(y.transpose((0, 2, 1, 3)).reshape((n, t, c)))
        x = x + self.narrow(nd.gelu(self.widen(self.between(x))))
        return self.last(x.mean(axis=1))


def resnet():
    net = nn.HybridSequential()
    net.add(nn.Conv2D(16, 3, padding=1, strides=2, in_channels=3), Residual(16), nn.GlobalAvgPool2D(), nn.Flatten(),
            nn.Dense(10, in_units=16))
    return net, (3, 16, 16), 10


NUMBERS = itertools.count(5)  # a device's kernels are compiled once
MADE = {**NETWORKS, "resnet": resnet, "lstm": lambda: (Recurrent(), (7, 12), 5), "gpt": lambda: (Transformer(), (10, 32), 6)}


def modules_of(name, monkeypatch):
    """(source, whether its sizes have 64 bits) of all modules that a training step with Adam needs; nothing is run."""
    found = []

    def load(driver, source, symbols, wide):
        found.append((source, wide))
        return dict.fromkeys(symbols)

    monkeypatch.setattr(host.SimDriver, "load", load)
    monkeypatch.setattr(host.SimDriver, "submit", lambda driver, prepared, words: None)
    net, shape, classes = MADE[name]()
    device = nd.sim(next(NUMBERS))
    net.initialize(init.Xavier(), device=device)
    net.hybridize()
    x, y = (a.to_device(device) for a in batch(shape, classes, 4))
    with settings(HYBRID_CACHE_DIR=""):
        training_step(net, Trainer(net.collect_params(), "adam", {"learning_rate": 0.01}))(x, y)
    assert len(found) == 3  # forward, backward, update
    return found


def check(name, architectures, monkeypatch):
    for source, wide in modules_of(name, monkeypatch):
        for arch in architectures:
            compiled = nvrtc.compile_cubin(source, arch, "long long" if wide else "int")
            assert compiled.image.startswith(b"\x7fELF")
            spilled = {k: u for k, u in compiled.usage.items() if u.spill_loads or u.spill_stores}
            assert not spilled, f"{name}, {arch}: registers are spilled in {spilled}"


def test_a_network_for_one_architecture(monkeypatch):
    check("mlp", ("sm_90",), monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("name", MADE)
def test_networks_compile_without_spilling(name, monkeypatch):
    check(name, ARCHITECTURES, monkeypatch)


SMALL = print_module({}) + """
extern "C" __global__ void __launch_bounds__(32, 16) f(float32 *__restrict__ y) { y[threadIdx.x] = threadIdx.x * 2.5f + 1.0f; }
"""


def test_arithmetic_is_as_written():
    text = nvrtc.ptx(SMALL, "compute_90")
    assert "mul.rn.f32" in text and "add.rn.f32" in text
    assert "fma" not in text and ".ftz" not in text


def test_what_a_kernel_uses_is_told():
    compiled = nvrtc.compile_cubin(SMALL, "sm_90")
    assert set(compiled.usage) == {"f"}
    assert 4 <= compiled.usage["f"].registers <= 32
    assert compiled.usage["f"].stack == compiled.usage["f"].spill_loads == 0


def test_a_refused_module_shows_the_log():
    with pytest.raises(nvrtc.CompileError, match="nonsense"):
        nvrtc.compile_cubin("nonsense", "sm_90")


def test_cubins_are_kept_on_disk(tmp_path, monkeypatch):
    with settings(HYBRID_CACHE_DIR=str(tmp_path)):
        first = nvrtc.cached_cubin(SMALL, "sm_90")
        assert len(list(tmp_path.iterdir())) == 1
        monkeypatch.setattr(nvrtc, "compile_cubin", lambda *a: pytest.fail("compiled again"))
        assert nvrtc.cached_cubin(SMALL, "sm_90") == first
    monkeypatch.undo()
    with settings(HYBRID_CACHE_DIR=str(tmp_path)):
        assert nvrtc.cached_cubin(SMALL, "sm_80").image != first.image
        assert nvrtc.cached_cubin(SMALL, "sm_90", "long long").image is not None
    assert len(list(tmp_path.iterdir())) == 3


def test_threads_may_compile_at_once():
    from concurrent.futures import ThreadPoolExecutor

    sources = [SMALL.replace("2.5f", f"{k}.5f") for k in range(3)]
    with ThreadPoolExecutor(3) as pool:
        images = [c.image for c in pool.map(lambda s: nvrtc.compile_cubin(s, "sm_90"), sources)]
    assert images == [nvrtc.compile_cubin(s, "sm_90").image for s in sources]
    assert len(set(images)) == 3
    assert np.all([image.startswith(b"\x7fELF") for image in images])
