"""Library steps: what is claimed, results against eager ones, and the calls that reach cublasLt and cuDNN (fakes of them)."""

from __future__ import annotations

import ctypes
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

import ndarray as nd
from blocks import Trainer, amp, init, loss, nn
from hybrid import hybridize
from hybrid.passes import optimize
from jit.assemble import make_recipe
from jit.cuda import calls, cublaslt, cudnn, library_numpy
from jit.cuda.driver import driver_of
from jit.cuda.target import gpu_target
from jit.interpret import run_launches
from jit.lower import lower
from jit.recipe import Recipe
from ndarray import autograd, settings

TARGET = gpu_target("sim", ("cublaslt", "cudnn"))
TOLERANCE = {"float32": 5e-6, "float64": 1e-13, "bfloat16": 2e-2, "float16": 4e-3}
EPILOGUES = {
    "plain": lambda y, b, r: y,
    "bias": lambda y, b, r: y + b,
    "bias relu": lambda y, b, r: nd.relu(y + b),
    "residual": lambda y, b, r: r + (y + b),
    "all": lambda y, b, r: nd.relu(y + b + r),
    "scaled": lambda y, b, r: y * 0.25 + r,
    "gelu": lambda y, b, r: nd.gelu(y + b, approximation="tanh"),
}


def array(*shape, dtype="float32", seed=0, device=None):
    numbers = np.random.default_rng((seed, *shape)).standard_normal(shape).astype(np.float32)
    return nd.array(numbers, device=device).astype(dtype)


def steps_of(function, *arrays, target=TARGET):
    """Run the lowered graph in the interpreter, compare with the eager function, and return the launches."""
    graph = optimize(hybridize(function, backend="interpreter").graph(*arrays))
    lowered = lower(graph, target)
    memory = dict(zip(lowered.inputs, [a.asnumpy() for a in arrays]))
    run_launches(lowered.launches, memory, {})
    wanted = function(*arrays)
    for storage, w in zip(lowered.outputs, wanted if isinstance(wanted, tuple) else (wanted,), strict=True):
        w = w.asnumpy()
        found = memory[storage].reshape(w.shape)
        assert found.dtype == w.dtype
        error = np.abs(found.astype(np.float64) - w.astype(np.float64)).max()
        assert error <= TOLERANCE[w.dtype.name] * max(1, np.abs(w.astype(np.float64)).max()), error
    return lowered


def calls_in(lowered):
    return [x.kernel.step for x in lowered.launches if hasattr(x.kernel, "step")]


# -- products


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", sorted(EPILOGUES))
def test_a_product_with_its_epilogue_is_one_step(name, dtype):
    x, w, b, r = array(24, 32, dtype=dtype), array(40, 32, dtype=dtype), array(40, dtype=dtype), array(24, 40, dtype=dtype)
    lowered = steps_of(lambda x, w, b, r: EPILOGUES[name](nd.fully_connected(x, w), b, r), x, w, b, r)
    (step,) = calls_in(lowered)
    assert len(lowered.launches) == 1 and {d for _, d in step["buffers"]} == {dtype}
    assert step["activation"] == ("relu" if name in ("bias relu", "all") else "gelu" if name == "gelu" else "")
    assert step["alpha"] == (0.25 if name == "scaled" else 1)


def test_float64_has_no_activation_in_the_library():
    x, w, b = array(24, 32, dtype="float64"), array(40, 32, dtype="float64"), array(40, dtype="float64")
    lowered = steps_of(lambda x, w, b: nd.relu(nd.fully_connected(x, w, b)), x, w, b)
    assert [x.note.split("(")[0] for x in lowered.launches] == ["library product", "map"]


def test_what_a_library_does_not_compute_stays_a_kernel():
    x, w, b = array(24, 32), array(40, 32), array(40)
    for behind in (nd.tanh, nd.gelu, nd.softmax, lambda y: nd.relu(y) * y, lambda y: nd.maximum(y, 0.1)):
        lowered = steps_of(lambda x, w, b, f=behind: f(nd.fully_connected(x, w, b)), x, w, b)
        assert len(calls_in(lowered)) == 1 and len(lowered.launches) >= 2 and not calls_in(lowered)[0]["activation"]
    assert not calls_in(steps_of(nd.matmul, array(4, 32), array(32, 40)))  # small
    assert not calls_in(steps_of(nd.matmul, x, array(32, 40), target=replace(TARGET, libraries=())))


def test_an_intermediate_that_is_needed_is_stored():
    x, w, b = array(24, 32), array(40, 32), array(40)

    def both(x, w, b):
        y = nd.fully_connected(x, w, b)
        return y, nd.relu(y)

    assert not calls_in(steps_of(both, x, w, b))[0]["activation"]


@pytest.mark.parametrize(("function", "shapes", "packed"), [
    (nd.matmul, ((24, 32), (32, 40)), 0),
    (lambda x, y: nd.matmul(x.T, y), ((32, 24), (32, 40)), 0),
    (lambda x, y: nd.matmul(x, y.T), ((24, 32), (40, 32)), 0),
    (lambda x, y: nd.matmul(x.T, y.T), ((32, 24), (40, 32)), 0),
    (nd.matmul, ((3, 24, 32), (3, 32, 40)), 0),
    (nd.matmul, ((3, 24, 32), (32, 40)), 0),
    (nd.matmul, ((1, 24, 32), (3, 32, 40)), 0),
    (lambda x, y: nd.matmul(x[:, 4:36], y[8:40]), ((24, 64), (64, 40)), 0),
    (lambda x, y: nd.matmul(x[:, ::2], y), ((24, 64), (32, 40)), 1),
    (lambda x, y: nd.einsum("blhe,bshe->bhls", x, y), ((2, 24, 3, 32), (2, 20, 3, 32)), 2),
    (lambda x, y: nd.einsum("lhe,she->hls", x, y), ((24, 3, 32), (20, 3, 32)), 0),
])
def test_operands_are_read_where_they_lie(function, shapes, packed):
    lowered = steps_of(function, *[array(*s, seed=k) for k, s in enumerate(shapes)])
    assert len(calls_in(lowered)) == 1
    assert sum(x.note == "pack for a library" for x in lowered.launches) == packed


def test_symbolic_sizes_are_arguments():
    compiled = hybridize(lambda x, w: nd.relu(nd.matmul(x, w)))
    w = array(32, 40)
    compiled.expect(array(20, 32), w)
    graph = optimize(compiled.graph(array(24, 32), w))
    assert graph.symbols
    lowered = lower(graph, TARGET)
    for rows in (24, 77):
        x = array(rows, 32, seed=rows)
        memory = dict(zip(lowered.inputs, (x.asnumpy(), w.asnumpy())))
        run_launches(lowered.launches, memory, dict.fromkeys(graph.symbols, rows))
        wanted = np.maximum(x.asnumpy() @ w.asnumpy(), 0)
        np.testing.assert_allclose(memory[lowered.outputs[0]].reshape(wanted.shape), wanted, rtol=1e-5, atol=1e-5)


def test_a_recipe_with_library_steps_is_plain_data():
    lowered = steps_of(lambda x, w: nd.tanh(nd.matmul(x, w)), array(24, 32), array(32, 40))
    names = [("library", x.kernel.text) if hasattr(x.kernel, "text") else ("digest", "k0") for x in lowered.launches]
    recipe = make_recipe(lowered, names)
    assert Recipe.from_json(recipe.to_json()) == recipe


def test_tf32_rounds_to_ten_bits():
    x = np.array([1 + 2.0**-10, 1 + 2.0**-11, 1 + 2.0**-12, -3.0, 0.0, np.inf, np.nan], np.float32)
    wanted = np.array([1 + 2.0**-10, 1 + 2.0**-10, 1, -3, 0, np.inf, np.nan], np.float32)
    np.testing.assert_array_equal(library_numpy.tf32(x), wanted)


# -- convolutions and attention


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_convolutions(dtype, layout):
    shape, filters = ((2, 8, 10, 11), (12, 8, 3, 3)) if layout == "NCHW" else ((2, 10, 11, 8), (12, 3, 3, 8))
    x, w, b = array(*shape, dtype=dtype), array(*filters, dtype=dtype), array(12, dtype=dtype)
    lowered = steps_of(lambda x, w, b: nd.relu(nd.convolution(x, w, b, padding=1, layout=layout)), x, w, b)
    (step,) = calls_in(lowered)
    assert step["activation"] == "relu" and [n for n, _ in step["buffers"]] == ["x", "w", "bias", "y"]
    assert sum("library" in x.note for x in lowered.launches) == (3 if layout == "NCHW" else 1)  # NCHW is turned


@pytest.mark.parametrize("options", [
    {"padding": 1}, {"stride": 2, "padding": ((1, 2), (0, 1))}, {"dilation": (2, 1)}, {"groups": 2, "padding": 1},
])
def test_gradients_of_convolutions(options):
    x, w = array(2, 8, 12, 13), array(12, 8 // options.get("groups", 1), 3, 3)

    def gradients(x, w):
        x.attach_grad()
        w.attach_grad()
        with autograd.record():
            y = nd.sum(nd.tanh(nd.convolution(x, w, **options)))
        y.backward()
        return x.grad, w.grad

    assert sorted(s["direction"] for s in calls_in(steps_of(gradients, x, w))) == ["data", "forward", "weight"]


def test_tiny_and_depthwise_convolutions_are_generated():
    assert not calls_in(steps_of(lambda x, w: nd.convolution(x, w), array(1, 2, 5, 5), array(3, 2, 3, 3)))
    deep = lambda x, w: nd.convolution(x, w, groups=16, padding=1)
    assert not calls_in(steps_of(deep, array(2, 16, 12, 12), array(16, 1, 3, 3)))


@pytest.mark.parametrize("causal", [False, True])
def test_attention_in_half_precision(causal):
    def attend(qkv):
        heads = [nd.transpose(qkv[:, :, i], (0, 2, 1, 3)) for i in range(3)]
        return nd.transpose(nd.scaled_dot_product_attention(*heads, causal=causal), (0, 2, 1, 3))

    lowered = steps_of(attend, array(2, 24, 3, 3, 16, dtype="bfloat16"))
    (step,) = calls_in(lowered)
    assert step["kind"] == "attention" and step["causal"] is causal and len(lowered.launches) == 1
    assert not calls_in(steps_of(attend, array(2, 24, 3, 3, 16)))  # float32: a generated kernel


# -- programs on sim(0)


@pytest.mark.parametrize("libraries", ["auto", "none", "cublaslt"])
def test_training_on_sim_is_that_of_the_cpu(libraries):
    """The same steps with libraries and without; in steady state one graph is replayed and nothing else happens."""
    losses = {}
    x, y = array(16, 8, 6, 6), nd.array(np.arange(16) % 5, dtype="int32")
    for place in (nd.cpu(0), nd.sim(0)):
        nd.random.seed(0)
        net = nn.HybridSequential()
        net.add(nn.Conv2D(16, 3, in_channels=8, padding=1, activation="relu"), nn.Flatten(),
                nn.Dense(32, activation="relu", in_units=576), nn.Dense(20, in_units=32))
        net.initialize(init.Xavier(), device=nd.cpu(0))
        net.reset_device(place)
        trainer = Trainer(net.collect_params(), "sgd", {"learning_rate": 0.05, "momentum": 0.9})
        ce = loss.SoftmaxCELoss()

        @hybridize
        def step(x, y, net=net, ce=ce, trainer=trainer):
            with autograd.record():
                value = ce(net(x), y)
            value.backward()
            trainer.step(16)
            return value

        with settings(HYBRID_CUDA_LIBRARIES=libraries):
            a, b = x.to_device(place), y.to_device(place)
            losses[place] = [step(a, b).asnumpy() for _ in range(4)]
    np.testing.assert_allclose(losses[nd.sim(0)], losses[nd.cpu(0)], rtol=2e-4, atol=2e-5)


def test_steps_are_captured():
    driver = driver_of(nd.sim(0))
    w = array(32, 32, device=nd.sim(0)) / 8

    def chain(x):
        for _ in range(5):
            x = nd.tanh(nd.matmul(x, w))
        return x

    compiled = hybridize(chain)
    x = array(24, 32, device=nd.sim(0))
    wanted = chain(x).asnumpy()
    for _ in range(8):
        np.testing.assert_allclose(compiled(x).asnumpy(), wanted, rtol=1e-5, atol=1e-6)
    launches, replays = driver.launches, driver.replays
    for _ in range(3):
        compiled(x)
    assert driver.replays == replays + 3 and driver.launches == launches


def test_the_precision_is_part_of_the_program(monkeypatch):
    monkeypatch.setenv("HYBRID_MATMUL_PRECISION", "float32")  # set here and given back at the end
    x, w = array(24, 32, device=nd.sim(0)), array(32, 40, seed=1, device=nd.sim(0))
    compiled = hybridize(lambda x, w: nd.matmul(x, w))
    exact = x.asnumpy().astype(np.float64) @ w.asnumpy()
    errors = []
    for precision in ("float32", "tf32", "float32"):
        nd.set_matmul_precision(precision)
        errors.append(np.abs(compiled(x, w).asnumpy() - exact).max())
    assert errors[0] == errors[2] < 1e-5 < errors[1] < 2e-2
    with pytest.raises(ValueError, match="tf32"):
        nd.set_matmul_precision("double")


def test_mixed_precision_reaches_the_library():
    amp.init("bfloat16")
    try:
        net = nn.Dense(32, activation="relu", in_units=24)
        net.initialize(init.Xavier())
        x = array(16, 24)
        lowered = steps_of(lambda x, w, b: nd.relu(nd.fully_connected(x, w, b)), x, net.weight.data(), net.bias.data() + 1)
        (step,) = calls_in(lowered)
        assert {d for _, d in step["buffers"]} == {"bfloat16"} and step["activation"] == "relu"
    finally:
        amp.off()


def test_training_in_mixed_precision_on_sim():
    """Narrow products and convolutions by the library, float32 weights; losses as on the CPU, to a few bits of bfloat16."""
    x, y = array(16, 8, 6, 6), nd.array(np.arange(16) % 5, dtype="int32")
    losses = {}
    amp.init("bfloat16")
    try:
        for place in (nd.cpu(0), nd.sim(0)):
            nd.random.seed(0)
            net = nn.HybridSequential()
            net.add(nn.Conv2D(16, 3, in_channels=8, padding=1, activation="relu"), nn.Flatten(), nn.Dense(20, in_units=576))
            net.initialize(init.Xavier(), device=nd.cpu(0))
            net.reset_device(place)
            trainer = Trainer(net.collect_params(), "adam", {"learning_rate": 0.01})
            amp.init_trainer(trainer)
            ce = loss.SoftmaxCELoss()

            @hybridize
            def step(x, y, net=net, ce=ce, trainer=trainer):
                with autograd.record():
                    value = nd.mean(ce(net(x), y))
                    with amp.scale_loss(value, trainer) as scaled:
                        scaled.backward()
                trainer.step(1)
                return value

            a, b = x.to_device(place), y.to_device(place)
            losses[place] = [float(step(a, b)) for _ in range(4)]
    finally:
        amp.off()
    np.testing.assert_allclose(losses[nd.sim(0)], losses[nd.cpu(0)], rtol=0.02)
    assert losses[nd.sim(0)][-1] < losses[nd.sim(0)][0] / 2


def test_weights_in_float32_have_one_narrow_copy_a_step():
    """A product and the gradient of its data read the same one."""
    amp.init("bfloat16")
    try:
        x, w = array(16, 24, dtype="bfloat16"), array(32, 24)

        def gradients(x, w):
            x.attach_grad()
            w.attach_grad()
            with autograd.record():
                y = nd.tanh(nd.fully_connected(x, w))
            y.backward()
            return x.grad, w.grad

        lowered = steps_of(gradients, x, w)
        assert len(calls_in(lowered)) == 3
        assert sum(x.note == "pack for a library" and x.buffers[0] is lowered.inputs[1] for x in lowered.launches) == 1
    finally:
        amp.off()


# -- cublasLt: constants, and the calls that reach it


def test_constants_of_cublaslt():
    """As in cublasLt.h and library_types.h of CUDA 13.1."""
    assert cublaslt.DATA_TYPES == {"float32": 0, "float64": 1, "float16": 2, "int8": 3, "int32": 10, "bfloat16": 14}
    assert cublaslt.COMPUTE == {"float16": 64, "float32": 68, "float64": 70, "int32": 72, "tf32": 77}
    assert cublaslt.ACTIVATIONS["gelu", True] + cublaslt.GELU_AUX == 164
    assert (cublaslt.ALGORITHM_BYTES, cublaslt.RESULT_BYTES, cublaslt.RESULT_WORKSPACE, cublaslt.RESULT_STATE) == (64, 96, 64, 72)


class FakeLt:
    """Stands in for libcublasLt: keeps descriptors as dictionaries, and computes products in memory of the host."""

    def __init__(self):
        self.objects, self.calls = {}, []
        self.next = 1000
        for name in cublaslt.SIGNATURES:
            setattr(self, name, self._function(name))
        self.cublasLtGetVersion = self._function("version", lambda: 130100)

    def _function(self, name, answer=None):
        def function(*arguments):
            if answer is not None:
                return answer()
            self.calls.append(name)
            return getattr(self, f"_{name}", self._nothing)(*arguments) or 0

        return function

    def _nothing(self, *arguments):
        return 0

    def _made(self, place, **content):
        self.next += 1
        self.objects[self.next] = content
        ctypes.cast(place, ctypes.POINTER(ctypes.c_void_p))[0] = self.next

    def _cublasLtCreate(self, place):
        self._made(place)

    def _cublasLtMatmulDescCreate(self, place, compute, scale):
        self._made(place, compute=compute, scale=scale)

    def _cublasLtMatrixLayoutCreate(self, place, kind, rows, columns, leading):
        assert leading >= rows
        self._made(place, kind=kind, rows=rows, columns=columns, leading=leading)

    def _cublasLtMatmulPreferenceCreate(self, place):
        self._made(place)

    def _set(self, target, attribute, value, size):
        kind = {4: ctypes.c_int32, 8: ctypes.c_int64}[size]
        self.objects[target][attribute] = ctypes.cast(value, ctypes.POINTER(kind))[0]

    _cublasLtMatmulDescSetAttribute = _cublasLtMatrixLayoutSetAttribute = _cublasLtMatmulPreferenceSetAttribute = _set

    def _cublasLtMatmulAlgoGetHeuristic(self, handle, desc, a, b, c, d, preference, wanted, results, count):
        assert self.objects[preference][1] == cublaslt.WORKSPACE and wanted == 1 and c == d
        ctypes.cast(count, ctypes.POINTER(ctypes.c_int))[0] = 1

    def _matrix(self, address, layout, batch, number):
        """A column-major matrix, as an array (rows, columns)."""
        of = self.objects[layout]
        kind = library_numpy.np.dtype({0: "float32", 1: "float64"}[of["kind"]])
        start = address + batch * of.get(6, 0) * kind.itemsize
        count = of["leading"] * (of["columns"] - 1) + of["rows"]
        memory = np.frombuffer((ctypes.c_char * (count * kind.itemsize)).from_address(start), kind)
        steps = (kind.itemsize, of["leading"] * kind.itemsize)
        return np.lib.stride_tricks.as_strided(memory, (of["rows"], of["columns"]), steps)

    def _cublasLtMatmul(self, handle, desc, alpha, a, la, b, lb, beta, c, lc, d, ld, algorithm, workspace, nbytes, stream):
        of = self.objects[desc]
        scalar = ctypes.c_double if of["scale"] == 1 else ctypes.c_float
        alpha, beta = (ctypes.cast(v, ctypes.POINTER(scalar))[0] for v in (alpha, beta))
        epilogue = of[cublaslt.DESC_EPILOGUE]
        for k in range(self.objects[ld].get(5, 1)):
            left, right = self._matrix(a, la, k, 0), self._matrix(b, lb, k, 1)
            left = left.T if of[cublaslt.DESC_TRANSA] else left
            right = right.T if of[cublaslt.DESC_TRANSB] else right
            out = alpha * (left @ right) + (beta * self._matrix(c, lc, k, 2) if beta else 0)
            if epilogue & 4:
                size = out.shape[0]
                bias = np.frombuffer((ctypes.c_char * (4 * size)).from_address(of[cublaslt.DESC_BIAS_POINTER]), np.float32)
                out = out + bias[:, None]
            if epilogue & 2:
                out = np.maximum(out, 0)
            self._matrix(d, ld, k, 3)[...] = out
        self.stream, self.workspace = stream, workspace


@pytest.mark.parametrize(("function", "shapes"), [
    (lambda x, y, b, r: nd.relu(nd.matmul(x, y) + b + r), ((24, 32), (32, 40), (40,), (24, 40))),
    (lambda x, y, b, r: nd.matmul(x.T, y.T) * 0.5 + r, ((32, 24), (40, 32), (40,), (24, 40))),
    (lambda x, y, b, r: nd.matmul(x, y) + b, ((3, 24, 32), (3, 32, 40), (40,), (24, 40))),
    (lambda x, y, b, r: nd.matmul(x[:, 4:36], nd.swapaxes(y, 1, 2)) + b, ((3, 64, 32), (1, 40, 32), (40,), (24, 40))),
])
def test_products_through_cublaslt(function, shapes, monkeypatch):
    """The same steps, bound to a fake library that reads its descriptors as cublasLt does."""
    fake = FakeLt()
    monkeypatch.setattr(cublaslt, "_library", cublaslt.CublasLt(fake))
    arrays = [array(*s, seed=k) for k, s in enumerate(shapes)]
    lowered = lower(optimize(hybridize(function, backend="interpreter").graph(*arrays)), TARGET)
    (launch,) = lowered.launches
    memory = {s: a.asnumpy() for s, a in zip(lowered.inputs, arrays)}
    wanted = function(*arrays).asnumpy()
    memory[lowered.outputs[0]] = found = np.full(wanted.shape, np.nan, np.float32)
    driver = SimpleNamespace(device=nd.gpu(0), stream=lambda: 77)
    call = calls.bind_step(driver, launch.kernel.text, [s.size for s in launch.buffers], launch.arguments)
    before = len(fake.calls)
    call(np.array([*[memory[s].ctypes.data for s in launch.buffers], 4096]))
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)
    assert (fake.stream, fake.workspace) == (77, 4096) and call.workspace == cublaslt.WORKSPACE
    made = [c for c in fake.calls[before:] if "Set" not in c]
    assert made == ["cublasLtMatmul"]  # nothing is made, asked or allocated when it runs


def test_cublaslt_reports_what_failed():
    fake = FakeLt()
    fake.cublasLtMatmulDescCreate = lambda *a: 7
    library = cublaslt.CublasLt(fake)
    problem = cublaslt.Problem(1, 16, 16, 16, cublaslt.Operand(0, 16, 1), cublaslt.Operand(0, 16, 1), "float32", "float32")
    with pytest.raises(cublaslt.CublasError, match=r"cublasLtMatmulDescCreate returned status 7 \(invalid value"):
        cublaslt.Matmul(library, problem)


def test_missing_libraries_are_not_used(monkeypatch):
    monkeypatch.setattr(cublaslt, "_library", "cublasLt can't be loaded (no such file)")
    calls._loads.cache_clear()
    try:
        assert "cublaslt" not in calls.available("gpu") and calls.available("sim") == ("cublaslt", "cudnn")
        with pytest.raises(ImportError, match="no such file"):
            cublaslt.load()
        with settings(HYBRID_CUDA_LIBRARIES="cudnn"):
            assert calls.available("sim") == ("cudnn",)
        with settings(HYBRID_CUDA_LIBRARIES="none"):
            assert calls.available("sim") == ()
    finally:
        calls._loads.cache_clear()


@pytest.mark.parametrize("symbolic", [False, True])
def test_a_library_that_refuses_is_replaced_by_kernels(symbolic, monkeypatch, caplog):
    def refuse(driver, text, sizes, arguments):
        raise calls.LibraryRefused("cublaslt", cublaslt.CublasError("no algorithm"))

    monkeypatch.setattr(calls, "bind_step", refuse)
    x, w = array(24, 32, device=nd.sim(0)), array(32, 40, seed=1, device=nd.sim(0))
    compiled = hybridize(lambda x, w: nd.relu(nd.matmul(x, w)))
    if symbolic:
        compiled.expect(array(17, 32, device=nd.sim(0)), w)
    wanted = np.maximum(x.asnumpy() @ w.asnumpy(), 0)
    np.testing.assert_allclose(compiled(x, w).asnumpy(), wanted, rtol=1e-5, atol=1e-5)
    assert "no algorithm" in caplog.text and "generated kernels" in caplog.text


def test_library_steps_can_be_shown(capsys):
    w = array(32, 40, device=nd.sim(0))
    compiled = hybridize(lambda x: nd.tanh(nd.matmul(x, w)))
    with settings(HYBRID_DEBUG=4):
        compiled(array(24, 32, device=nd.sim(0)))
    assert '"kind": "product"' in capsys.readouterr().err
    assert "product" in str(compiled.explain(array(24, 32, device=nd.sim(0)), measure=False))


# -- cuDNN: the graphs that are built


class FakeTensor:
    def __init__(self, **known):
        self.known = known

    def __getattr__(self, name):
        if not name.startswith("set_"):
            raise AttributeError(name)
        return lambda value: self.known.update({name[4:]: value}) or self


class FakeCudnn:
    """Records what a graph is made of."""

    data_type = SimpleNamespace(FLOAT="f32", HALF="f16", BFLOAT16="bf16")
    heur_mode = SimpleNamespace(A="a", FALLBACK="fallback")
    numerical_note = SimpleNamespace(TENSOR_CORE="tensor core")

    def __init__(self):
        self.nodes, self.steps = [], []

    def pygraph(self, **options):
        self.options = options
        return self

    def tensor(self, **known):
        return FakeTensor(**known)

    def __getattr__(self, name):
        def node(*args, **inputs):
            self.steps.append((name, args))
            if inputs:
                self.nodes.append((name, inputs))
            out = FakeTensor(node=name)
            return (out, None) if name == "sdpa" else out

        return node

    def get_workspace_size(self):
        return 512

    def set_stream(self, handle, stream):
        self.stream = stream

    def execute(self, places, workspace, handle):
        self.places, self.workspace = {t.known.get("name", t.known.get("node")): a for t, a in places.items()}, workspace


def cudnn_step(function, *arrays):
    lowered = lower(optimize(hybridize(function, backend="interpreter").graph(*arrays)), TARGET)
    launch = next(x for x in lowered.launches if hasattr(x.kernel, "step"))
    fake = FakeCudnn()
    return fake, cudnn.CudnnStep(fake, launch.kernel.step, launch.arguments, "handle"), launch


def test_a_convolution_through_cudnn():
    fake, step, _ = cudnn_step(
        lambda x, w, b: nd.relu(nd.convolution(x, w, b, stride=(2, 1), padding=((1, 2), (0, 1)), layout="NHWC")),
        array(2, 10, 11, 8), array(12, 3, 3, 8), array(12))
    (kind, inputs), (second, bias), (third, _) = fake.nodes
    assert (kind, second, third) == ("conv_fprop", "bias", "relu")
    assert (inputs["pre_padding"], inputs["post_padding"]) == ([1, 0], [2, 1])
    assert (inputs["stride"], inputs["dilation"]) == ([2, 1], [1, 1])
    assert inputs["image"].known == {"name": "x", "dim": [2, 8, 10, 11], "stride": [880, 1, 88, 8], "data_type": "f32"}
    assert inputs["weight"].known == {"name": "w", "dim": [12, 8, 3, 3], "stride": [72, 1, 24, 8], "data_type": "f32"}
    assert bias["bias"].known["dim"] == [1, 12, 1, 1]
    out = step.tensors["y"].known
    assert out["output"] is True and out["dim"] == [2, 12, 6, 10] and out["stride"] == [720, 1, 120, 12]
    assert ("deselect_numeric_notes", (["tensor core"],)) in fake.steps  # float32 means float32
    step.run([100, 200, 300, 400, 500], 9)
    assert fake.places == {"x": 100, "w": 200, "bias": 300, "relu": 400} and (fake.workspace, fake.stream) == (500, 9)
    assert step.workspace == 512


def test_attention_through_cudnn():
    def attend(qkv):
        heads = [nd.transpose(qkv[:, :, i], (0, 2, 1, 3)) for i in range(3)]
        return nd.transpose(nd.scaled_dot_product_attention(*heads, causal=True, scale=0.5), (0, 2, 1, 3))

    fake, step, _ = cudnn_step(attend, array(2, 24, 3, 4, 16, dtype="float16"))
    ((kind, inputs),) = fake.nodes
    assert kind == "sdpa" and inputs["attn_scale"] == 0.5 and inputs["use_causal_mask"] is True
    for name in "qkv":
        assert inputs[name].known["dim"] == [2, 4, 24, 16] and inputs[name].known["stride"] == [4608, 16, 192, 1]
        assert inputs[name].known["data_type"] == "f16"
    assert step.offsets == {"out": 0, "q": 0, "k": 128, "v": 256}
    step.run([1000, 1000, 1000, 2000, 0], 0)
    assert fake.places == {"q": 1000, "k": 1128, "v": 1256, "sdpa": 2000}


def test_the_front_end_takes_these_calls():
    """With the package itself, as far as it goes without a GPU."""
    front = pytest.importorskip("cudnn")
    step = {
        "kind": "convolution", "direction": "weight", "last": True, "rank": 2, "stride": [1, 1], "padding": [[1, 1], [1, 1]],
        "dilation": [1, 1], "groups": 1, "activation": "", "alpha": 1.0, "precision": "",
        "buffers": [["x", "bfloat16"], ["y", "bfloat16"], ["w", "bfloat16"]],
    }
    _, tensors, _ = cudnn.build_graph(front, step, [2, 8, 10, 11, 12, 3, 3, 10, 11, 0, 0], None)
    assert tensors["w"].get_dim() == [12, 8, 3, 3]


def test_the_sum_of_two_products_is_the_epilogue_of_one():
    """Both could take the addition; a value is made by one step only, and what is read stands before it."""
    x, v, w = array(64, 64, seed=1), array(64, 64, seed=2), array(64, 64, seed=3)
    assert len(calls_in(steps_of(lambda x, v, w: nd.tanh(nd.dot(x, v) + nd.dot(x, w)), x, v, w))) == 2
    assert len(calls_in(steps_of(lambda x, v, w: (nd.dot(x, v) + nd.exp(x)) + nd.dot(v, w), x, v, w))) == 2
