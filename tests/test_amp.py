"""Mixed precision: casts by policy, loss scaling, master weights; eager and compiled."""

from __future__ import annotations

import numpy as np
import pytest

import ndarray as nd
from blocks import Trainer, amp, init, loss, nn, rnn
from blocks.loss_scaler import LossScaler
from blocks.optimizer import Optimizer
from hybrid import hybridize
from kvstore.optimizer import Updater
from ndarray import autograd, precision
from tests.networks import lenet

TYPES = ("bfloat16", "float16")
OPTIMIZERS = {
    "sgd": {"learning_rate": 0.1, "momentum": 0.9, "wd": 1e-3}, "nag": {"learning_rate": 0.1}, "adam": {"learning_rate": 0.01},
    "adamw": {"learning_rate": 0.01, "wd": 0.1}, "lamb": {"learning_rate": 0.01, "wd": 0.1},
}


@pytest.fixture(autouse=True)
def undo():
    """No test leaves mixed precision on."""
    yield
    amp.off()


def digits(count, seed=0):
    """Small pictures of ten kinds that a network can learn."""
    generator = np.random.default_rng(seed)
    kinds = np.random.default_rng(7).random((10, 1, 28, 28)) > 0.7
    labels = generator.integers(0, 10, count)
    pictures = kinds[labels] + generator.standard_normal((count, 1, 28, 28)) * 0.3
    return nd.array(pictures.astype(np.float32)), nd.array(labels.astype(np.int32))


def train(dtype, mode, steps=50, batch=32):
    """Losses of LeNet; mode "eager", "hybrid" (the network compiled) or "step" (the whole step compiled)."""
    amp.off()
    if dtype != "float32":
        amp.init(dtype)
    nd.random.seed(1)
    net = lenet()[0]
    net.initialize(init.Xavier())
    ce = loss.SoftmaxCELoss()
    trainer = Trainer(net.collect_params(), "adam", {"learning_rate": 0.002})
    if dtype != "float32":
        amp.init_trainer(trainer)
    if mode == "hybrid":
        net.hybridize()
    x, y = digits(steps * batch)

    def step(a, b):
        with autograd.record():
            value = ce(net(a), b)
            if dtype == "float32":
                value.backward()
            else:
                with amp.scale_loss(value, trainer) as scaled:
                    scaled.backward()
        trainer.step(batch)
        return nd.mean(value)

    run = hybridize(step) if mode == "step" else step
    return [float(run(x[k * batch : (k + 1) * batch], y[k * batch : (k + 1) * batch])) for k in range(steps)]


@pytest.fixture(scope="module")
def exact():
    """The losses in float32."""
    return train("float32", "step")


@pytest.mark.parametrize(("dtype", "mode"), [("bfloat16", "hybrid"), ("bfloat16", "step"), ("float16", "step")])
def test_lenet_reaches_the_loss_of_float32(exact, dtype, mode):
    found = train(dtype, mode)
    assert exact[0] > 2 and np.mean(exact[-10:]) < 0.15  # it learns
    assert abs(np.mean(found[-10:]) - np.mean(exact[-10:])) < 0.1
    np.testing.assert_allclose(found[0], exact[0], rtol=0.02)


def test_products_are_narrow_and_losses_wide():
    amp.init("bfloat16")
    dense = nn.Dense(4, in_units=3)
    dense.initialize()
    x = nd.ones((2, 3))
    out = dense(x)
    assert out.dtype == nd.bfloat16 and dense.weight.data().dtype == np.float32
    assert (nd.matmul(x, x.T)).dtype == nd.bfloat16
    assert nd.exp(out).dtype == nd.softmax(out).dtype == nd.log_softmax(out).dtype == nd.sum(out).dtype == np.float32
    assert nd.tanh(out).dtype == nd.bfloat16
    assert (out + x[:, :1]).dtype == np.float32  # the widest of both
    assert loss.L2Loss()(out, nd.ones((2, 4))).dtype == np.float32
    assert nd.matmul(nd.ones((2, 2), dtype="float64"), nd.ones((2, 2), dtype="float64")).dtype == np.float64
    amp.off()
    assert dense(x).dtype == np.float32 and nd.exp(out).dtype == nd.bfloat16


def test_float16_takes_no_short_cut_past_the_policy():
    x = nd.ones((3,), dtype="float16") * 12
    assert nd.isinf(nd.exp(x)).all()
    amp.init("float16")
    assert nd.exp(x).dtype == np.float32 and nd.isfinite(nd.exp(x)).all()


@pytest.mark.parametrize("hybrid", [False, True])
def test_gradients_come_back_in_the_weights_type(hybrid):
    amp.init("bfloat16")
    net = nn.HybridSequential()
    net.add(nn.Conv2D(4, 3, in_channels=2), nn.BatchNorm(in_channels=4), nn.Activation("relu"), nn.Flatten(), nn.Dense(3))
    net.initialize(init.Xavier())
    if hybrid:
        net.hybridize()
    x = nd.array(np.random.default_rng(0).standard_normal((4, 2, 6, 6)).astype(np.float32))
    with autograd.record():
        value = nd.sum(net(x) * 1.0)
    value.backward()
    narrow = {n: p.grad().asnumpy() for n, p in net.collect_params().items() if p.grad_req != "null"}
    assert all(g.dtype == np.float32 for g in narrow.values())
    amp.off()
    with autograd.record():
        value = nd.sum(net(x) * 1.0)
    value.backward()
    for name, p in net.collect_params().items():
        if p.grad_req != "null":
            exact = p.grad().asnumpy()
            assert np.abs(narrow[name] - exact).max() <= 0.03 * max(np.abs(exact).max(), 1), name


def test_hybridized_blocks_are_traced_anew():
    net = nn.Dense(2, in_units=2)
    net.initialize()
    net.hybridize()
    x = nd.ones((1, 2))
    assert net(x).dtype == np.float32
    amp.init("float16")
    assert net(x).dtype == np.float16
    amp.init("bfloat16", fp32_ops=["fully_connected", "dot_general"])
    assert net(x).dtype == np.float32
    amp.off()
    assert net(x).dtype == np.float32


def test_lists():
    assert "dot_general" in amp.list_lp16_ops() and "exp" in amp.list_fp32_ops("bfloat16")
    assert amp.list_conditional_fp32_ops() == []
    found = amp.policy("float16", ["tanh"], [("sum", "keepdims", [True])], ["FullyConnected"])
    assert found.dtype_for("tanh", {}) == np.float16 and found.dtype_for("fully_connected", {}) == np.float32
    assert found.dtype_for("add", {}) is None
    with pytest.raises(ValueError, match="no operation 'nonsense'"):
        amp.init(fp32_ops=["nonsense"])
    with pytest.raises(ValueError, match="both"):
        amp.init(fp32_ops=["tanh"], target_precision_ops=["tanh"])
    with pytest.raises(ValueError, match="target_dtype"):
        amp.init("float32")
    assert precision.current() is None


@pytest.mark.parametrize("layer", [rnn.LSTM, rnn.GRU, rnn.RNN])
def test_recurrent_layers(layer):
    net = layer(5, input_size=4)
    net.initialize()
    x = nd.array(np.random.default_rng(0).standard_normal((6, 3, 4)).astype(np.float32))
    exact = net(x).asnumpy()
    amp.init("bfloat16")
    for hybrid in (False, True):
        if hybrid:
            net.hybridize()
        with autograd.record():
            out = net(x)
        out.backward()
        assert out.dtype == nd.bfloat16
        np.testing.assert_allclose(out.astype("float32").asnumpy(), exact, atol=0.03)
        assert all(p.grad().dtype == np.float32 for p in net.collect_params().values())


def test_attention_computes_narrow_floats_in_float32_when_compiled():
    arrays = [np.random.default_rng(k).standard_normal((1, 2, 16, 8)).astype(np.float32) for k in range(3)]
    narrow = [nd.array(a, dtype="bfloat16") for a in arrays]
    exact = nd.scaled_dot_product_attention(*[a.astype("float32") for a in narrow]).asnumpy()
    found = hybridize(nd.scaled_dot_product_attention)(*narrow)
    assert found.dtype == nd.bfloat16
    np.testing.assert_allclose(found.astype("float32").asnumpy(), exact, rtol=2**-8, atol=2**-9)


# -- loss scaling


def scaled_problem(compiled, optimizer="adam", scaler=None):
    net = nn.Dense(1, in_units=2, use_bias=False)
    net.initialize(init.One())
    trainer = Trainer(net.collect_params(), optimizer, {"learning_rate": 0.5})
    amp.init_trainer(trainer, scaler or LossScaler(1024.0, scale_window=3))

    def step(x):
        with autograd.record():
            value = nd.mean(net(x))
            with amp.scale_loss(value, trainer) as scaled:
                scaled.backward()
        trainer.step(1)
        return value

    return net, trainer, hybridize(step) if compiled else step


@pytest.mark.parametrize("compiled", [False, True])
def test_overflow_skips_the_step_and_halves_the_scale(compiled):
    net, trainer, step = scaled_problem(compiled)
    good, bad = nd.array([[1.0, 2.0]]), nd.array([[float("inf"), 1.0]])
    scaler = trainer._amp_loss_scaler
    step(good)
    after = net.weight.data().asnumpy().copy()
    state = [s.asnumpy().copy() for s in trainer._updaters[nd.cpu(0)].states[0]]
    assert not np.array_equal(after, [[1, 1]]) and scaler.loss_scale == 1024
    step(bad)
    np.testing.assert_array_equal(net.weight.data().asnumpy(), after)
    for old, new in zip(state, trainer._updaters[nd.cpu(0)].states[0]):
        np.testing.assert_array_equal(old, new.asnumpy())
    assert scaler.loss_scale == 512 and scaler.skipped == 1
    for _ in range(3):
        step(good)
    assert scaler.loss_scale == 1024  # doubled after three good ones


@pytest.mark.parametrize("compiled", [False, True])
def test_a_skipped_step_is_not_counted(compiled):
    """Adam's corrections depend on the number of updates."""
    good, bad = nd.array([[1.0, 2.0]]), nd.array([[float("nan"), 1.0]])
    net, _, step = scaled_problem(compiled)
    for x in (good, bad, bad, good, good):
        step(x)
    other, _, step = scaled_problem(compiled)
    for _ in range(3):
        step(good)
    np.testing.assert_allclose(net.weight.data().asnumpy(), other.weight.data().asnumpy(), rtol=1e-6)


@pytest.mark.parametrize("compiled", [False, True])
def test_scale_cancels(compiled):
    x = nd.array([[1.0, 3.0]])
    weights = []
    for scale in (1.0, 4096.0):
        net, _, step = scaled_problem(compiled, "sgd", LossScaler(scale))
        step(x)
        weights.append(net.weight.data().asnumpy())
    np.testing.assert_array_equal(*weights)


def test_unscale_divides_the_gradients_once():
    net, trainer, _ = scaled_problem(False, "sgd")
    with autograd.record():
        value = nd.sum(net(nd.array([[1.0, 2.0]])))
        with amp.scale_loss([value, value], trainer) as scaled:
            autograd.backward(scaled)
    amp.unscale(trainer)
    amp.unscale(trainer)
    np.testing.assert_array_equal(net.weight.grad().asnumpy(), [[2, 4]])
    trainer.step(1)
    np.testing.assert_array_equal(net.weight.data().asnumpy(), [[0, -1]])


def test_several_devices_skip_together():
    net = nn.Dense(1, in_units=2, use_bias=False)
    devices = [nd.cpu(0), nd.cpu(1)]
    net.initialize(init.One(), device=devices)
    trainer = Trainer(net.collect_params(), "sgd", {"learning_rate": 0.5})
    amp.init_trainer(trainer, LossScaler(16.0))
    for value, moves in ((float("inf"), False), (1.0, True)):
        with autograd.record():
            values = [nd.sum(net(nd.array([[value if d is devices[1] else 1.0, 1.0]], device=d))) for d in devices]
            with amp.scale_loss(values, trainer) as scaled:
                autograd.backward(scaled)
        trainer.step(2)
        for d in devices:
            np.testing.assert_array_equal(net.weight.data(d).asnumpy(), [[0.5, 0.5]] if moves else [[1, 1]])
    assert trainer._amp_loss_scaler.loss_scale == 8


def test_errors():
    net, trainer = nn.Dense(1, in_units=1), None
    net.initialize()
    trainer = Trainer(net.collect_params(), "sgd")
    with pytest.raises(RuntimeError, match=r"amp\.init"):
        amp.init_trainer(trainer)
    with pytest.raises(RuntimeError, match="init_trainer"):
        amp.unscale(trainer)
    with pytest.raises(TypeError, match="Trainer"):
        amp.init_trainer(net)
    with pytest.raises(ValueError, match="init_scale"):
        LossScaler(-1.0)
    amp.init("float16")
    with pytest.raises(RuntimeError, match="update_on_kvstore"):
        amp.init_trainer(Trainer(net.collect_params(), "sgd", update_on_kvstore=True))


def test_loss_scaler_states():
    scaler, other = LossScaler(64.0), LossScaler()
    scaler.has_overflow([nd.array([float("inf")])])
    assert scaler.state() == {"scale": 32.0, "good": 0, "skipped": 1}
    scaler.has_overflow([nd.array([1.0])])
    other.load_state(scaler.state())
    assert other.state() == {"scale": 32.0, "good": 1, "skipped": 1}
    fixed = LossScaler(8.0, dynamic=False)
    assert fixed.has_overflow([nd.array([float("inf")])]) is False and fixed.loss_scale == 8


# -- converting a network


@pytest.mark.parametrize("hybrid", [False, True])
def test_convert_hybrid_block(hybrid):
    net = lenet()[0]
    nd.random.seed(0)
    net.initialize(init.Xavier())
    if hybrid:
        net.hybridize()
    x, _ = digits(4)
    exact = net(x).asnumpy()
    for offline in (False, True):
        converted = amp.convert_hybrid_block(net, "bfloat16", cast_params_offline=offline)
        out = converted(x)
        assert out.dtype == nd.bfloat16
        np.testing.assert_allclose(out.astype("float32").asnumpy(), exact, atol=0.05)
        kinds = {p.dtype.name for p in converted.collect_params().values()}
        assert kinds == ({"bfloat16"} if offline else {"float32"})
        assert list(converted.collect_params()) == list(net.collect_params())
    assert net(x).dtype == np.float32 and precision.current() is None
    last = list(net._children)[-1]
    wide = amp.convert_hybrid_block(net, "bfloat16", excluded_sym_names=[last], cast_params_offline=True)
    assert wide(x).dtype == np.float32
    with pytest.raises(ValueError, match="no child 'nonsense'"):
        amp.convert_hybrid_block(net, excluded_sym_names=["nonsense"])


# -- master weights


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_master_weights_follow_float32(name, compiled):
    """Small steps that a narrow weight alone would lose: the master moves exactly as a float32 weight does."""
    start = np.linspace(0.5, 1.5, 12).reshape(4, 3)
    grads = [np.random.default_rng(k).standard_normal((4, 3)).astype(np.float32) for k in range(5)]
    for dtype in TYPES:
        narrow_start = nd.array(start, dtype=dtype)
        narrow_grads = [nd.array(g, dtype=dtype) for g in grads]
        made = [Updater(Optimizer.from_config({"name": name, "settings": {**OPTIMIZERS[name], "multi_precision": m}}))
                for m in (True, False)]
        weight, reference = narrow_start.copy(), narrow_start.astype("float32")
        for g in narrow_grads:
            if compiled:
                made[0](0, g, weight)
                made[1](0, g.astype("float32"), reference)
            else:
                for updater, w, v in ((made[0], weight, g), (made[1], reference, g.astype("float32"))):
                    updater.ensure_states([0], [w])
                    updater.optimizer.update_multi_precision(0, w, v, updater.states[0])
        master = made[0].states[0][0]
        assert master.dtype == np.float32 and weight.dtype.name == dtype
        np.testing.assert_allclose(master.asnumpy(), reference.asnumpy(), rtol=1e-6)
        np.testing.assert_array_equal(weight.asnumpy(), master.astype(dtype).asnumpy())


def test_master_weights_in_a_compiled_step_and_in_files(tmp_path):
    net = nn.Dense(3, in_units=3)
    net.initialize(init.Xavier())
    net.cast("bfloat16")
    trainer = Trainer(net.collect_params(), "adam", {"learning_rate": 1e-4, "multi_precision": True})

    @hybridize
    def step(x):
        with autograd.record():
            value = nd.sum(net(x))
        value.backward()
        trainer.step(1)

    x = nd.ones((2, 3), dtype="bfloat16")
    before = net.weight.data().astype("float32").asnumpy()
    for _ in range(4):
        step(x)
    master = trainer._updaters[nd.cpu(0)].states[0][0].asnumpy()
    np.testing.assert_allclose(master, before - 4e-4, atol=1e-6)  # steps far below what bfloat16 resolves
    trainer.save_states(tmp_path / "states")
    other = nn.Dense(3, in_units=3)
    other.initialize(init.Zero())
    other.cast("bfloat16")
    again = Trainer(other.collect_params(), "adam", {"learning_rate": 1e-4, "multi_precision": True})
    again.load_states(tmp_path / "states")
    states = again._updaters[nd.cpu(0)].states[0]
    assert len(states) == 2 and len(states[1]) == 2
    np.testing.assert_array_equal(states[0].asnumpy(), master)


def test_an_optimizer_in_the_old_form_gets_master_weights():
    class OldForm(Optimizer):
        def create_state(self, index, weight):
            return nd.zeros(weight.shape, dtype=weight.dtype)

        def update(self, index, weight, grad, state):
            state[...] = state + grad
            weight[...] = weight - self.lr * state

    updater = Updater(OldForm(learning_rate=1e-4, multi_precision=True))
    weight = nd.ones((2,), dtype="bfloat16")
    for _ in range(3):
        updater(0, nd.ones((2,), dtype="bfloat16"), weight)
    master, inner = updater.states[0]
    np.testing.assert_allclose(master.asnumpy(), 1 - 6e-4, rtol=1e-6)
    assert inner.dtype == np.float32 and weight.dtype == nd.bfloat16
