"""float16 and bfloat16 under the compiler: stored narrow, computed in float32, rounded as eagerly after each operation."""

import platform

import numpy as np
import pytest

import ndarray as nd
from blocks import Trainer, loss, nn
from hybrid import hybridize
from hybrid.backend import register_backend
from jit import machine
from jit.backend import NativeBackend
from ndarray import autograd

HALF = ["float16", "bfloat16"]


def normal(dtype, *shape, seed=0):
    return nd.array(np.random.default_rng(seed).standard_normal(shape).astype(np.float32), dtype=dtype)


def same(a, b):
    """Bit for bit (NaNs alike)."""
    np.testing.assert_array_equal(a.asnumpy().astype(np.float64), b.asnumpy().astype(np.float64))
    assert a.dtype == b.dtype


ELEMENTWISE = {
    "arithmetic": lambda x, y: (x + y) * 2.5 - x / (y + 3),
    "functions": lambda x, y: nd.exp(x) + nd.tanh(y) * nd.sigmoid(x) + nd.sqrt(nd.abs(y)),
    "gelu": lambda x, y: nd.gelu(x) + nd.relu(y),
    "choice": lambda x, y: nd.where(x > y, x, -y),
    "power": lambda x, y: nd.abs(x) ** y,
    "casts": lambda x, y: (x.astype("float32") * 3).astype(x.dtype) + y,
    "integers": lambda x, y: (x * 10).astype("int32") + nd.argmax(y, axis=1, keepdims=True),
    "extrema": lambda x, y: nd.max(x, axis=0) + nd.maximum(x, y),
    "pooling": lambda x, y: nd.max_pool(nd.reshape(x, (1, 1, *x.shape)), kernel=(2, 2), stride=(2, 2)),
    "gathering": lambda x, y: nd.concatenate([x, y[::-1]], axis=0)[1:, ::2],
}


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("what", ELEMENTWISE)
def test_elementwise_agrees_bit_for_bit(what, dtype):
    f = ELEMENTWISE[what]
    for shape in ((33, 41), (2, 7), (5, 64)):
        x, y = normal(dtype, *shape), normal(dtype, *shape, seed=1)
        same(hybridize(f)(x, y), f(x, y))


FOLDS = {
    "sum": (lambda x, w: nd.sum(x, axis=1), lambda x, w: x.sum(1)),
    "product": (lambda x, w: nd.matmul(x, w), lambda x, w: x @ w),
    "product with epilogue": (lambda x, w: nd.relu(nd.matmul(x, w) + w[0]), None),
    "convolution": (lambda x, w: nd.convolution(nd.reshape(x, (1, 1, *x.shape)), nd.reshape(w[:3, :9], (3, 1, 3, 3))), None),
    "mean pooling": (lambda x, w: nd.avg_pool(nd.reshape(x, (1, 1, *x.shape)), kernel=(3, 2), stride=(2, 2)), None),
    "softmax": (lambda x, w: nd.softmax(x, axis=-1), None),
}


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("what", FOLDS)
def test_sums_accumulate_in_single_precision(what, dtype):
    f, exact = FOLDS[what]
    x, w = normal(dtype, 33, 300), normal(dtype, 300, 20, seed=1)
    eager, compiled = f(x, w), hybridize(f)(x, w)
    assert compiled.dtype == eager.dtype
    ulp = 2.0**-10 if dtype == "float16" else 2.0**-7
    a, b = (v.asnumpy().astype(np.float64) for v in (eager, compiled))
    np.testing.assert_allclose(b, a, rtol=ulp, atol=1e-4)  # the sums differ in float32's last bits: one rounding may
    if exact is not None:
        wide = exact(*(v.asnumpy().astype(np.float64) for v in (x, w)))
        np.testing.assert_allclose(b, wide, rtol=ulp / 2 * 1.01, atol=1e-4)


@pytest.mark.parametrize("dtype", HALF)
def test_training_follows_single_precision(dtype):
    def train(dtype, compiled):
        net = nn.HybridSequential()
        net.add(nn.Conv2D(4, 3, in_channels=1, activation="relu"), nn.MaxPool2D(2), nn.Dense(10, in_units=36))
        net.initialize()
        for i, p in enumerate(net.collect_params().values()):
            p.set_data(nd.array(np.random.default_rng(i).standard_normal(p.shape) * 0.2))
        net.cast(dtype)
        if compiled:
            net.hybridize()
        trainer = Trainer(net.collect_params(), "sgd", {"learning_rate": 0.1})
        x, y = normal(dtype, 16, 1, 8, 8), nd.array(np.arange(16) % 10)
        losses = []
        for _ in range(5):
            with autograd.record():
                value = loss.SoftmaxCrossEntropyLoss()(net(x), y).mean()
            value.backward()
            trainer.step(1)
            losses.append(float(value.asnumpy()))
        return np.array(losses)

    eager, compiled, single = train(dtype, False), train(dtype, True), train("float32", False)
    bound = 0.01 if dtype == "float16" else 0.06
    assert np.abs(eager - single).max() < bound
    assert np.abs(compiled - single).max() < bound
    assert compiled[-1] < compiled[0]


X86 = platform.machine().lower() in ("x86_64", "amd64")
LEVELS = ["host", *(["avx2", "sse"] if X86 else [])]
for level in LEVELS[1:]:
    register_backend(level, NativeBackend(machine.restricted(level)))
NUMBERS = np.array([
    0, 1, 0.5, 1.5, 2.5, 2047, 2049, 65504, 65519, 65520, 65536, 1e5, 2.0**-14, 2.0**-24, 2.0**-25, 2.0**-25 * 1.001, 3e-8, 6e-8,
    1 + 2.0**-11, 1 + 2.0**-11 + 2.0**-40, 1 + 2.0**-8, 1 + 2.0**-8 + 2.0**-20, 1 - 2.0**-12, 1e-30, 1e-40, 3.4e38, 1e39, np.inf,
    np.nan,
])  # fmt: skip


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("dtype", HALF)
def test_casts_round_as_numpy_does(dtype, level):
    random = np.random.default_rng(0)
    every = np.concatenate([NUMBERS, -NUMBERS, random.standard_normal(300) * 10.0 ** random.integers(-9, 9, 300)])
    backend = "jit" if level == "host" else level
    for other in ("bool", "int8", "uint8", "int32", "uint32", "int64", "float16", "bfloat16", "float32", "float64"):
        with np.errstate(all="ignore"):
            values = np.clip(np.nan_to_num(every), 0 if other[0] == "u" else -120, 120) if "int" in other else every
            there, back = nd.array(values, dtype=other), nd.array(values, dtype=dtype)
            for x, to in ((there, dtype), (back, other)):
                want = x.astype(to)
                got = hybridize(lambda v, to=to: v.astype(to), backend=backend)(x)
                assert got.dtype == want.dtype
                left, right = (v.asnumpy().astype(np.float64) for v in (got, want))
                np.testing.assert_array_equal(left, right, f"{x.dtype} to {to}")


@pytest.mark.parametrize("level", LEVELS)
def test_every_float16_survives(level):
    patterns = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    x = nd.array(patterns, dtype="float16")
    backend = "jit" if level == "host" else level
    f = hybridize(lambda v: (v.astype("float32").astype("float16"), v * 1, nd.maximum(v, v)), backend=backend)
    finite = ~np.isnan(patterns)
    for y in f(x):
        np.testing.assert_array_equal(y.asnumpy()[finite].view(np.uint16), patterns[finite].view(np.uint16))
        assert np.isnan(y.asnumpy()[~finite]).all()
