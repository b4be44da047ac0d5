"""Winograd's convolutions: natively in guarded memory and interpreted against NumPy in float64, their error, and when they
are chosen."""

from dataclasses import replace

import numpy as np
import pytest
from native_kernels import TARGETS, lowered_contraction, run_contraction
from test_contract import convolution_reference, data_gradient_reference, weight_gradient_reference

import ndarray as nd
from blocks import nn
from hybrid import hybridize
from jit.direct import UNIT, Convolution, Window
from jit.hoist import Allowance, hoist
from jit.interpret import run_kernel
from jit.launch import Storage
from jit.winograd import lower_winograd, suits_winograd, winograd_outputs
from ndarray import autograd
from ndarray.dims import symbol
from ndarray.settings import settings

HOST = TARGETS["host"]
NATIVE = dict(TARGETS)


@pytest.fixture(autouse=True)
def _default(monkeypatch):
    monkeypatch.delenv("HYBRID_WINOGRAD", raising=False)


def last(x):
    return np.ascontiguousarray(np.moveaxis(x, 1, -1))


def lowered(op, *arguments, **schedule):
    """(storages of the operands and the result, launches) of the op on channels-last arrays."""
    return lowered_contraction(f"{op}_channels_last", *arguments, **schedule)


def native(op, *arguments, **schedule):
    """The op on channels-last arrays, in guarded memory."""
    return run_contraction(f"{op}_channels_last", *arguments, **schedule)


def interpreted(op, x, y, shape, attrs, target, **schedule):
    storages, launches = lowered(op, x, y, shape, attrs, target, **schedule)
    memory = {storages[0]: x.ravel().copy(), storages[1]: y.ravel().copy()}
    for launch in launches:
        for s in launch.buffers:
            if s not in memory:
                memory[s] = np.full(s.size, np.nan, s.dtype)
        run_kernel(launch.kernel, [memory[s] for s in launch.buffers], launch.arguments, 0, launch.tasks)
    return memory[storages[2]].reshape(shape)


def attributes(padding):
    padding = ((padding, padding),) * 2 if isinstance(padding, int) else padding
    return {"stride": (1, 1), "padding": padding, "dilation": (1, 1), "groups": 1}


def forward(run, x, w, padding, target, **schedule):
    attrs = attributes(padding)
    out = tuple(n + low + high - 2 for n, (low, high) in zip(x.shape[2:], attrs["padding"]))
    found = run("convolution", last(x), w, (x.shape[0], *out, w.shape[0]), attrs, target, **schedule)
    return np.moveaxis(found, -1, 1)


def normal(seed, *shape, dtype="f4"):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


# -- values

# images (N, C, H, W), outputs, padding
CASES = [
    ((1, 1, 1, 1), 1, 1),
    ((1, 3, 3, 3), 5, 0),
    ((2, 17, 7, 5), 17, 1),
    ((3, 64, 6, 9), 40, 1),
    ((1, 20, 4, 4), 64, 2),
    ((2, 5, 11, 3), 33, ((0, 2), (3, 1))),
]


RUNS = [(n, outputs, target) for n in range(len(CASES)) for outputs in (2, 4) for target in NATIVE
        if target == "host" or n == {2: 5, 4: 2}[outputs] or (n, outputs, target) == (4, 4, "avx2")]


@pytest.mark.parametrize(("number", "outputs", "target"), RUNS)
def test_forward(number, outputs, target):
    target = NATIVE[target]
    shape, channels, padding = CASES[number]
    for dtype, bound in (("f4", 3e-6), ("f8", 1e-14)) if target is HOST else (("f4", 3e-6),):
        x, w = normal(number, *shape, dtype=dtype), normal(100 + number, channels, shape[1], 3, 3, dtype=dtype)
        want = convolution_reference(x, w, **attributes(padding))
        got = forward(native, x, w, padding, target, winograd=outputs)
        magnitude = convolution_reference(abs(x), abs(w), **attributes(padding))
        assert (abs(got - want) <= bound * magnitude.max()).all()


@pytest.mark.parametrize("outputs", [2, 4])
@pytest.mark.parametrize("number", range(len(CASES)))
def test_gradient_for_the_input(number, outputs):
    shape, channels, padding = CASES[number]
    attrs = attributes(padding)
    w = normal(100 + number, channels, shape[1], 3, 3, dtype="f8")
    out = tuple(n + low + high - 2 for n, (low, high) in zip(shape[2:], attrs["padding"]))
    g = normal(number, shape[0], channels, *out, dtype="f8")
    want = data_gradient_reference(g, w, shape, **attrs)
    moved = (shape[0], *shape[2:], shape[1])
    got = native("convolution_data_gradient", last(g), w, moved, {"shape": moved, **attrs}, HOST, winograd=outputs)
    np.testing.assert_allclose(np.moveaxis(got, -1, 1), want, rtol=0, atol=1e-13 * (1 + abs(want).max()))


@pytest.mark.parametrize(("number", "outputs", "target"), RUNS)
def test_gradient_for_the_filter(number, outputs, target):
    target = NATIVE[target]
    shape, channels, padding = CASES[number]
    attrs = attributes(padding)
    out = tuple(n + low + high - 2 for n, (low, high) in zip(shape[2:], attrs["padding"]))
    filters = (channels, shape[1], 3, 3)
    for dtype, bound in (("f4", 3e-6), ("f8", 1e-14)) if target is HOST else (("f4", 3e-6),):
        x, g = normal(number, *shape, dtype=dtype), normal(100 + number, shape[0], channels, *out, dtype=dtype)
        want = weight_gradient_reference(x, g, filters, **attrs)
        magnitude = weight_gradient_reference(abs(x), abs(g), filters, **attrs)
        got = native("convolution_weight_gradient", last(x), last(g), filters, {"shape": filters, **attrs}, target,
                     winograd=outputs)
        assert (abs(got - want) <= bound * magnitude.max()).all()


def test_parts_of_a_filters_gradient():
    """Blocks of tiles over several images and parts of them, blocks of channels and panels of outputs that are not full."""
    x, g = normal(0, 5, 37, 9, 7, dtype="f8"), normal(1, 5, 40, 9, 7, dtype="f8")
    attrs = attributes(1)
    filters = (40, 37, 3, 3)
    want = weight_gradient_reference(x, g, filters, **attrs)
    for plan in ({"parts": 3, "tiles": 4}, {"blocks": 1, "panels": 1, "block": 5, "vectors": 1, "tiles": 3}, {"parts": 8}):
        got = native("convolution_weight_gradient", last(x), last(g), filters, {"shape": filters, **attrs}, HOST, winograd=4,
                     **plan)
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-12 * abs(want).max())


@pytest.mark.parametrize("plan", [{"rows": 1, "vectors": 1, "tiles": 1, "panels": 1}, {"rows": 3, "vectors": 2, "tiles": 6}])
@pytest.mark.parametrize("outputs", [2, 4])
def test_any_plan(outputs, plan):
    """Blocks of tiles over several images, panels that are not full: the same bits as with the plan that is chosen."""
    x, w = normal(0, 3, 18, 6, 7), normal(1, 37, 18, 3, 3)
    want = forward(native, x, w, 1, HOST, winograd=outputs)
    np.testing.assert_array_equal(forward(native, x, w, 1, HOST, winograd=outputs, **plan), want)


@pytest.mark.parametrize("outputs", [2, 4])
def test_the_interpreter_gives_the_same_bits(outputs):
    x, w = normal(0, 2, 5, 5, 6), normal(1, 9, 5, 3, 3)
    target = replace(HOST, vector_bytes=16, registers=16)
    got = forward(native, x, w, 1, target, winograd=outputs)
    np.testing.assert_array_equal(forward(interpreted, x, w, 1, target, winograd=outputs), got)


@pytest.mark.parametrize("channels", [64, 256, 512])
def test_error(channels):
    """The bounds that docs/numerics.md states, for float32 and relative to the sum of the products' magnitudes."""
    x = np.maximum(normal(0, 1, channels, 12, 12), 0)
    w = normal(1, 16, channels, 3, 3) * np.float32((2 / (9 * channels)) ** 0.5)
    want = convolution_reference(x.astype("f8"), w.astype("f8"), **attributes(1))
    magnitude = convolution_reference(abs(x).astype("f8"), abs(w).astype("f8"), **attributes(1))
    rms = {}
    for outputs in (0, 2, 4):
        error = abs(forward(native, x, w, 1, HOST, winograd=outputs) - want) / magnitude
        rms[outputs] = float(np.sqrt((error**2).mean()))
        assert error.max() < {0: 1e-6, 2: 1e-6, 4: 2e-6}[outputs]
    assert rms[2] < 1.5 * rms[0]
    assert rms[4] < 4 * rms[0]


# -- when it is chosen


def problem(batch=1, size=28, inputs=64, outputs=64, dtype="float32", groups=1, allowance=None, **window):
    along = Window(size, window.pop("out", size), **{"taps": 3, "low": 1, **window})
    return Convolution(dtype, batch, groups, inputs, outputs, (UNIT, along, along), None, allowance=allowance)


def unlimited():
    return Allowance([Storage("float32", 1 << 30)])


def test_what_it_does_not_compute():
    chosen = lambda **kwargs: winograd_outputs(problem(allowance=unlimited(), **kwargs), HOST)
    assert chosen() == 4
    assert chosen(dtype="float64") == 0
    assert chosen(inputs=3) == 0
    others = {"taps": 5, "low": 2}, {"taps": 1, "low": 0}, {"step": 2, "low": 2}, {"stride": 2, "out": 14}, {"groups": 2}
    for unsuited in others:
        assert chosen(**unsuited) == 0 and not suits_winograd(problem(**unsuited), HOST)
    with pytest.raises(ValueError, match="3 x 3 taps"):
        lower_winograd(problem(groups=2), HOST, 4)
    with pytest.raises(ValueError, match="3 x 3 taps"):
        lower_winograd(problem(), HOST, 3)


def test_the_setting_bounds_the_tile():
    c = problem(allowance=unlimited())
    for most in (0, 2, 4):
        with settings(HYBRID_WINOGRAD=most):
            assert winograd_outputs(c, HOST) == most
    with pytest.raises(ValueError, match="HYBRID_WINOGRAD is '3'; expected 0, 2 or 4"), settings(HYBRID_WINOGRAD="3"):
        pass


def test_unknown_sizes_do_not_matter():
    """A program for any batch computes the same, whatever batch it was traced with."""
    for size, channels in [(7, 512), (14, 256), (56, 64), (8, 32)]:
        c = [problem(symbol("n", n), size, channels, channels) for n in (1, 8, 500)]
        assert len({winograd_outputs(x, HOST) for x in c}) == 1


def test_transformed_weights_are_kept_within_an_allowance():
    weights = Storage("float32", 9 * 512 * 512)
    allowance = Allowance([weights])
    found = [winograd_outputs(problem(size=14, inputs=512, outputs=512, allowance=allowance), HOST)]
    while allowance.left > 1 << 20 and len(found) < 40:
        if found[-1]:
            c = problem(size=14, inputs=512, outputs=512, allowance=allowance)
            storage = Storage("float32", (found[-1] + 2) ** 2 * 512 * 512)
            before = allowance.left
            allowance.admit(storage)
            assert before - allowance.left in (0, 4 * storage.size)
        found.append(winograd_outputs(c, HOST))
        if not found[-1] or allowance.left == before:
            break
    assert found[0] and 2 < len(found) < 40  # not without end
    assert sum(4 * s.size for s in allowance.admitted) <= 192 << 20


def test_what_is_admitted_is_kept():
    from test_keeper import _launch

    w, big, out = Storage("float32", 1 << 26), Storage("float32", 1 << 27), Storage("float32", 4)
    launches = [_launch([w], [big]), _launch([big], [out])]
    assert not hoist(launches, {w}, {w, out})
    assert [s for s, _ in hoist(launches, {w}, {w, out}, [big])] == [big]


# -- in programs


def kernels(compiled, *args):
    return [k.name for k in compiled.explain(*args, measure=False).kernels]


def net(channels=32):
    block = nn.HybridSequential()
    block.add(nn.Conv2D(channels, 3, padding=1, in_channels=channels, activation="relu"),
              nn.Conv2D(channels, 3, padding=1, in_channels=channels), nn.BatchNorm(in_channels=channels))
    block.initialize()
    return block


def test_off_is_direct_summation():
    x = nd.array(normal(0, 2, 32, 20, 20))
    found = {}
    for most in (0, 2, 4):
        block = net()
        with settings(HYBRID_WINOGRAD=most):
            block.hybridize()
            block(x)
            names = kernels(block, x)
            found[most] = [n for n in names if n.startswith("convolution")]
    assert not any("winograd" in n for n in found[0])
    assert "winograd_2x2" in found[2][-1]  # the first one reads an image with channels second
    assert "winograd_4x4" in found[4][-1]


def test_threads_and_batches_do_not_matter():
    first, w = nd.array(normal(1, 64, 3, 1, 1)), nd.array(normal(1, 40, 64, 3, 3))
    x = normal(0, 5, 3, 17, 18)
    f = lambda a: nd.relu(nd.convolution(nd.convolution(a, first), w, padding=1)) + 1.0
    results = []
    for threads in (1, 2, 3):
        with settings(HYBRID_NUM_THREADS=threads):
            results.append(hybridize(f)(nd.array(x)).asnumpy())
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_array_equal(results[0], results[2])
    compiled = hybridize(f)
    for n in (4, 5, 1, 2):  # sizes of the batch become symbolic
        got = compiled(nd.array(x[:n])).asnumpy()
        np.testing.assert_allclose(got, f(nd.array(x[:n])).asnumpy(), rtol=1e-4, atol=5e-4)
    assert "winograd" in " ".join(kernels(compiled, nd.array(x)))


def test_training_step():
    """The loss and the gradients of a net by Winograd's method, beside those by direct summation."""
    x = nd.array(normal(0, 8, 64, 16, 16))
    found = {}
    for most in (0, 4):
        block = net(64)
        for k, p in enumerate(block.collect_params().values()):
            p.set_data(nd.array(normal(50 + k, *p.shape) * np.float32(0.05)))
        with settings(HYBRID_WINOGRAD=most):
            block.hybridize()
            for _ in range(2):
                with autograd.record():
                    loss = nd.sum(nd.square(block(x)))
                loss.backward()
            with autograd.record():
                text = str(block.explain(x))
        assert ("convolution_winograd" in text) == (most > 0)
        gradients = [p.grad().asnumpy() for p in block.collect_params().values() if p.grad_req != "null"]
        found[most] = [loss.asnumpy(), *gradients]
    assert len(found[0]) > 5
    for got, want in zip(found[4], found[0]):
        np.testing.assert_allclose(got, want, rtol=0, atol=2e-5 * max(1.0, abs(want).max()))


def test_eager_and_compiled_agree():
    x, w = nd.array(normal(0, 2, 64, 28, 28)), nd.array(normal(1, 64, 64, 3, 3))
    f = lambda a: nd.convolution(a, w, padding=1)
    eager, compiled = f(x).asnumpy(), hybridize(f)(x).asnumpy()
    magnitude = convolution_reference(abs(x.asnumpy()), abs(w.asnumpy()), **attributes(1))
    assert (abs(eager - compiled) <= 4e-6 * magnitude).all()
    with settings(HYBRID_WINOGRAD=0):
        direct = f(x).asnumpy()
    assert (abs(direct - convolution_reference(x.asnumpy(), w.asnumpy(), **attributes(1))) <= 2e-6 * magnitude).all()
