"""Eager, interpreted and compiled runs give the same: whole trainings in float64, single steps in float32."""

from functools import cache

import numpy as np
import pytest

import hybrid
import ndarray as nd
from blocks import loss
from ndarray import autograd
from tests.networks import (
    MODES,
    NETWORKS,
    OPTIMIZERS,
    assert_near,
    batch,
    make,
    snapshot,
    states_of,
    trainer_of,
    training_step,
    updates_by,
)

STEPS, SIZES = 20, (8, 5, 8, 7)


def train(name, optimizer, mode, whole=False, steps=STEPS, sizes=SIZES):
    """Losses and outputs of every step, then all parameters and states; and what ran."""
    net, shape, classes = make(name, "float64")
    with updates_by(mode):
        trainer = trainer_of(net, optimizer)
        step = training_step(net, trainer)
        if mode != "eager" and whole:
            step = hybrid.hybridize(step, backend=mode)
        elif mode != "eager":
            net.hybridize(backend=mode)
        nd.random.seed(3)
        found = {}
        for i in range(steps):
            out, value = step(*batch(shape, classes, sizes[i % len(sizes)], i, "float64"))
            found[f"output {i}"], found[f"loss {i}"] = out.asnumpy(), value.asnumpy()
            if i % 5 == 0:
                found |= {f"{k} after {i}": v for k, v in snapshot(net, trainer).items()}
        found |= snapshot(net, trainer)
    found["generator"] = np.array(nd.random.uniform(shape=(4,)).asnumpy())
    return found, net, step


@cache
def eager(name, optimizer):
    return train(name, optimizer, "eager")[0]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("mode", MODES)
def test_twenty_steps_in_float64(name, optimizer, mode):
    found, net, _ = train(name, optimizer, mode)
    assert_near(found, eager(name, optimizer), 1e-9, f"{name} {optimizer} {mode}")
    assert net._compiled.traces == 2  # one for the first size, one for all


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("mode", MODES)
def test_twenty_whole_steps_in_float64(name, optimizer, mode):
    """The step itself is hybridized: record, backward and trainer.step are in one program."""
    found, _, step = train(name, optimizer, mode, whole=True)
    assert_near(found, eager(name, optimizer), 1e-9, f"{name} {optimizer} {mode}")
    assert step.traces == 2


def copy_state(source, target, trainers):
    """Give `target` the parameters, statistics and optimizer states of `source`."""
    theirs = source.collect_params()
    for name, p in target.collect_params().items():
        p.set_data(theirs[name].data())
    mine, others = (states_of(t) for t in (trainers[1], trainers[0]))
    for name, s in others.items():
        if name in mine:
            mine[name][...] = s


def parts(net, x, y, mode):
    """One recorded forward and backward: outputs, losses, every gradient, the running statistics."""
    x.attach_grad()
    nd.random.seed(8)
    with autograd.record():
        out = net(x)
        value = loss.SoftmaxCrossEntropyLoss()(out, y)
    value.backward()
    found = {"output": out.asnumpy(), "loss": value.asnumpy(), "gradient of the input": x.grad.asnumpy().copy()}
    for name, p in net.collect_params().items():
        if p.grad_req == "null":
            found[name] = p.data().asnumpy().copy()
        else:
            found[f"gradient of {name}"] = p.grad().asnumpy().copy()
    return found


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("mode", MODES)
def test_each_step_in_float32(name, optimizer, mode):
    """From the same state: forward, every gradient and statistic; then, from the same gradients, the update."""
    (a, shape, classes), (b, _, _) = make(name), make(name, seed=99)
    b.hybridize(backend=mode)
    with updates_by("eager"):
        first = trainer_of(a, optimizer)
    with updates_by(mode):
        second = trainer_of(b, optimizer)
    for i, size in enumerate((8, 5, 1, 8, 3, 13)):
        copy_state(a, b, (first, second))
        x, y = batch(shape, classes, size, i)
        want, got = parts(a, x, y, "eager"), parts(b, nd.array(x.asnumpy()), y, mode)
        assert_near(got, want, 1e-5, f"{name} {mode} step {i}")
        gradients = a.collect_params()
        for key, p in b.collect_params().items():
            if p.grad_req != "null":
                p.grad()[...] = gradients[key].grad()
        with updates_by("eager"):
            first.step(size)
        with updates_by(mode):
            second.step(size)
        assert_near(snapshot(b, second), snapshot(a, first), 1e-5, f"{name} {mode} update {i}")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("shape", [(1,), (37,), (5, 17), (1, 3, 7), (2, 3, 5, 7), (64, 65)])
def test_dropout_masks_agree_bit_for_bit(shape, mode):
    x = nd.ones(shape)
    f = lambda x: nd.dropout(nd.dropout(x, 0.3) + 1, 0.6)
    g = hybrid.hybridize(f, backend=mode)
    masks = []
    for function in (f, g):
        nd.random.seed(5)
        with autograd.record():
            masks.append([function(x).asnumpy() for _ in range(3)])
    for a, b in zip(*masks):
        np.testing.assert_array_equal(b, a)
    if np.prod(shape) > 100:
        assert not np.array_equal(masks[0][0], masks[0][1])


def layouts(x):
    """The same values, lying in memory in other ways."""
    a = x.asnumpy()
    wide = np.zeros((*a.shape[:-1], a.shape[-1] * 2 + 1), a.dtype)
    wide[..., 1::2] = a
    every = np.zeros((a.shape[0] * 3, *a.shape[1:]), a.dtype)
    every[::3] = a
    yield "Fortran order", nd.from_numpy(np.asfortranarray(a))
    yield "strided columns", nd.from_numpy(wide)[..., 1::2]
    yield "strided rows", nd.from_numpy(every)[::3]
    yield "backwards", nd.from_numpy(np.ascontiguousarray(a[::-1]))[::-1]
    yield "transposed", nd.from_numpy(np.ascontiguousarray(a.T)).T
    unaligned = np.zeros(a.nbytes + 1, np.uint8)[1:].view(a.dtype).reshape(a.shape)
    unaligned[...] = a
    yield "unaligned", nd.from_numpy(unaligned)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("mode", MODES)
def test_inputs_that_are_not_contiguous(name, mode):
    net, shape, classes = make(name)
    other, _, _ = make(name)
    other.hybridize(backend=mode)
    x, y = batch(shape, classes, 6)
    want, plain = parts(net, x, y, "eager"), net(x).asnumpy()
    copies = snapshot(net)
    for layout, same in layouts(x):
        for key, p in other.collect_params().items():
            p.set_data(nd.array(make(name)[0].collect_params()[key].data().asnumpy()))
        np.testing.assert_array_equal(same.asnumpy(), x.asnumpy())
        assert_near(parts(other, same, y, mode), want, 1e-5, f"{layout} {mode}")
        for key, p in other.collect_params().items():
            p.set_data(nd.array(copies[key]))
        assert_near({"y": other(same).asnumpy()}, {"y": plain}, 1e-5, f"{layout} {mode}")
    assert other._compiled.traces == 2  # recording and predicting, whatever the layout


@pytest.mark.parametrize("size", [1, 2, 3, 7, 31, 33])
def test_odd_sizes_predict_alike(size):
    for name in NETWORKS:
        net, shape, classes = make(name, "float64")
        x, _ = batch(shape, classes, size, size, "float64")
        want = net(x).asnumpy()
        net.hybridize()
        assert_near({"y": net(x).asnumpy()}, {"y": want}, 1e-12, name)


def test_lenets_gradients_are_pytorchs():
    torch = pytest.importorskip("torch")
    net, shape, classes = make("lenet")
    net.hybridize()
    x, y = batch(shape, classes, 9)
    got = parts(net, x, y, "jit")
    weights = {k: torch.tensor(p.data().asnumpy(), requires_grad=True) for k, p in net.collect_params().items()}
    t = torch.tensor(x.asnumpy(), requires_grad=True)
    conv, dense, F = torch.conv2d, torch.nn.functional.linear, torch.nn.functional
    h = F.max_pool2d(torch.relu(conv(t, weights["0.weight"], weights["0.bias"], padding=2)), 2)
    h = F.max_pool2d(torch.relu(conv(h, weights["2.weight"], weights["2.bias"])), 2).flatten(1)
    h = torch.relu(dense(h, weights["5.weight"], weights["5.bias"]))
    h = torch.relu(dense(h, weights["6.weight"], weights["6.bias"]))
    out = dense(h, weights["7.weight"], weights["7.bias"])
    value = F.cross_entropy(out, torch.tensor(y.asnumpy().astype("int64")), reduction="none")
    value.sum().backward()
    want = {"output": out, "loss": value, "gradient of the input": t.grad}
    want |= {f"gradient of {k}": w.grad for k, w in weights.items()}
    assert_near(got, {k: v.detach().numpy() for k, v in want.items()}, 1e-5)
