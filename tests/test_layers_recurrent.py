"""Recurrent layers and attention against PyTorch, eagerly and in compiled training steps."""

import numpy as np
import pytest

import ndarray as nd
from blocks import rnn
from hybrid import HybridBlock, hybridize, stats
from ndarray import autograd
from ndarray.settings import settings

torch = pytest.importorskip("torch")
T, N, X, H = 5, 3, 4, 6


def draw(*shape, seed=0):
    return (np.random.default_rng(seed).normal(size=shape) * 0.5).astype("float32")


def torch_layer(mode, reverse):
    gates = {"lstm": 4, "gru": 3, "rnn": 1}[mode]
    weights = [draw(gates * H, X, seed=1), draw(gates * H, H, seed=2), draw(gates * H, seed=3), draw(gates * H, seed=4)]
    x, h, c, dy = draw(T, N, X, seed=5), draw(N, H, seed=6), draw(N, H, seed=7), draw(T, N, H, seed=8)
    leaves = [torch.tensor(a, requires_grad=True) for a in (x, *weights, h, c)]
    layer = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU, "rnn": torch.nn.RNN}[mode](X, H)
    given = dict(zip(("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"), leaves[1:5]))
    state = (leaves[5][None], leaves[6][None]) if mode == "lstm" else leaves[5][None]
    y, last = torch.func.functional_call(layer, given, (leaves[0].flip(0) if reverse else leaves[0], state))
    y = y.flip(0) if reverse else y
    (y * torch.tensor(dy)).sum().backward()
    last = [s[0].detach().numpy() for s in (last if mode == "lstm" else (last,))]
    used = leaves if mode == "lstm" else leaves[:-1]
    return [a.detach().numpy() for a in used], dy, [y.detach().numpy(), *last], [a.grad.numpy() for a in used]


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("mode", ["lstm", "gru", "rnn"])
@pytest.mark.parametrize("compiled", ["eager", "whole step", "recorded call"])
def test_recurrent_layers(mode, reverse, compiled):
    arrays, dy, expected, gradients = torch_layer(mode, reverse)
    arrays = [nd.array(a) for a in arrays]
    for a in arrays:
        a.attach_grad()
    layer = getattr(nd, f"{mode}_layer")

    def forward(*arrays):
        return layer(*arrays, reverse=reverse)

    if compiled == "recorded call":
        forward = hybridize(forward)

    def step(*arrays):
        with autograd.record():
            found = forward(*arrays)
            total = (found[0] * nd.array(dy)).sum()
        total.backward()
        return found

    found = (hybridize(step) if compiled == "whole step" else step)(*arrays)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a.asnumpy(), b, rtol=1e-4, atol=1e-5)
    for a, b in zip(arrays, gradients):
        np.testing.assert_allclose(a.grad.asnumpy(), b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mode", ["lstm", "gru"])
def test_hidden_sizes_that_do_not_fill_vectors(mode):
    """A step is one kernel, whose vectors of states have lanes to spare."""
    gates = {"lstm": 4, "gru": 3}[mode]
    arrays = [nd.array(draw(*s, seed=i)) for i, s in enumerate([(4, 3, 5), (gates * 20, 5), (gates * 20, 20), (gates * 20,)])]
    layer = getattr(nd, f"{mode}_layer")
    net = hybridize(lambda *a: layer(*a))
    net(*arrays)
    for got, want in zip(net(*arrays), layer(*arrays), strict=True):
        np.testing.assert_allclose(got.asnumpy(), want.asnumpy(), rtol=1e-5, atol=1e-6)
    repeated = [line for line in str(net.explain(*arrays)).splitlines() if " 4 times " in line]
    assert len(repeated) == 1 and "sigmoid" in repeated[0] and "dot" in repeated[0]


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("masking", ["none", "causal", "boolean", "additive"])
def test_attention(masking, compiled):
    q, k, v, dy = draw(2, 3, 4, 8), draw(2, 3, 5, 8, seed=1), draw(2, 3, 5, 7, seed=2), draw(2, 3, 4, 7, seed=3)
    mask = {"boolean": np.random.default_rng(4).random((2, 1, 4, 5)) < 0.7, "additive": draw(4, 5, seed=5)}.get(masking)
    if masking == "boolean":
        mask[..., 0] = True
    leaves = [torch.tensor(a, requires_grad=True) for a in (q, k, v)]
    expected = torch.nn.functional.scaled_dot_product_attention(
        *leaves, attn_mask=None if mask is None else torch.tensor(mask), is_causal=masking == "causal"
    )
    (expected * torch.tensor(dy)).sum().backward()
    arrays = [nd.array(a) for a in (q, k, v)]
    for a in arrays:
        a.attach_grad()

    def step(q, k, v):
        with autograd.record():
            y = nd.scaled_dot_product_attention(
                q, k, v, mask=None if mask is None else nd.array(mask), causal=masking == "causal"
            )
            total = (y * nd.array(dy)).sum()
        total.backward()
        return y

    y = (hybridize(step) if compiled else step)(*arrays)
    np.testing.assert_allclose(y.asnumpy(), expected.detach().numpy(), rtol=1e-5, atol=1e-5)
    for a, b in zip(arrays, leaves):
        np.testing.assert_allclose(a.grad.asnumpy(), b.grad.numpy(), rtol=1e-4, atol=1e-5)


def test_messages():
    with pytest.raises(ValueError, match="time, batch, features"):
        nd.lstm_layer(nd.ones((2, 3)), nd.ones((8, 3)), nd.ones((8, 2)))
    with pytest.raises(ValueError, match="h2h_weight"):
        nd.gru_layer(nd.ones((2, 1, 3)), nd.ones((8, 3)), nd.ones((8, 2)))
    with pytest.raises(ValueError, match="query"):
        nd.scaled_dot_product_attention(nd.ones((2, 3)), nd.ones((2, 4)), nd.ones((2, 4)))


@pytest.mark.parametrize("layer", [rnn.RNN, rnn.LSTM, rnn.GRU])
@pytest.mark.parametrize("recording", [False, True])
def test_sequences_of_any_length_are_one_program(layer, recording):
    net = layer(5, num_layers=2, bidirectional=True, input_size=3)
    net.initialize(init="xavier")

    def run(x):
        x.attach_grad()
        with autograd.record() if recording else autograd.pause():
            y = net(x)
        if recording:
            y.backward(nd.ones_like(y) * 0.5)
        return [y.asnumpy(), x.grad.asnumpy()]

    lengths = (4, 7, 5, 1, 9)
    inputs = [nd.random.normal(shape=(n, 2, 3)) for n in lengths]
    expected = [run(x) for x in inputs]
    net.hybridize()
    stats.reset()
    for x, e in zip(inputs, expected):
        for a, b in zip(run(x), e):
            np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6)
    assert stats.traces <= 2, "the second length makes the program symbolic, and no other one a new one"
    assert len(net.explain(inputs[0]).kernels if not recording else []) < 60


class Unrolled(HybridBlock):
    """A stack of cells over a sequence, perhaps of other lengths for each sample."""

    def __init__(self, layout, merge):
        super().__init__()
        self.cell = rnn.SequentialRNNCell()
        self.cell.add(rnn.LSTMCell(5))
        self.cell.add(rnn.DropoutCell(0.3))
        self.cell.add(rnn.GRUCell(4))
        self.layout, self.merge = layout, merge

    def forward(self, x, valid=None):
        out, states = self.cell.unroll(6, x, layout=self.layout, merge_outputs=self.merge, valid_length=valid)
        return (nd.stack(out, axis=self.layout.index("T")) if isinstance(out, list) else out), states


@pytest.mark.parametrize(("layout", "merge", "lengths"), [("NTC", True, None), ("TNC", False, None), ("NTC", None, [2, 6, 1])])
def test_cells_unrolled_in_a_trace_are_one_loop(layout, merge, lengths):
    net = Unrolled(layout, merge)
    net.initialize(init="xavier")
    x = nd.array(draw(3, 6, 7) if layout == "NTC" else draw(6, 3, 7))
    arguments = [x] if lengths is None else [x, nd.array(lengths, dtype="int32")]
    net(*arguments)  # the weights get their values
    found = []
    for compiled in (False, True):
        if compiled:
            net.hybridize()
        nd.random.seed(3)
        with autograd.record():
            y, states = net(*arguments)
            loss = (y * y).sum() + sum(s.sum() for s in states)
        loss.backward()
        found.append([y.asnumpy(), *[s.asnumpy() for s in states], *[p.grad().asnumpy() for p in net.collect_params().values()]])
    for a, b in zip(*found):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6)
    assert len(net.explain(*arguments).kernels) < 40


@pytest.mark.parametrize("backend", ["eager", "interpreter", "jit"])
@pytest.mark.parametrize("mode", ["lstm", "gru", "rnn"])
@pytest.mark.parametrize("reverse", [False, True])
def test_empty_sequences(mode, reverse, backend):
    """No outputs, the initial state as it is; its gradient is what comes back, and weights have none."""
    gates = {"lstm": 4, "gru": 3, "rnn": 1}[mode]
    function = getattr(nd, f"{mode}_layer")
    states = [nd.array(draw(N, H, seed=6)), nd.array(draw(N, H, seed=7))][: 2 if mode == "lstm" else 1]
    weights = [nd.array(draw(gates * H, X, seed=1)), nd.array(draw(gates * H, H, seed=2)), nd.array(draw(gates * H, seed=3)),
               nd.array(draw(gates * H, seed=4))]
    layer = lambda *a: function(*a, reverse=reverse)
    run = layer if backend == "eager" else hybridize(layer, backend=backend)
    arrays = [nd.ones((0, N, X)), *weights, *states]
    for a in arrays:
        a.attach_grad()
    y, *last = run(*arrays)
    assert y.shape == (0, N, H) and all((s == t).all() for s, t in zip(last, states, strict=True))
    with autograd.record():
        y, *last = run(*arrays)
        total = sum([(s * 2).sum() for s in last], y.sum())
    total.backward()
    assert all((s.grad == 2).all() for s in states) and not any(w.grad.any() for w in weights)
    assert arrays[0].grad.shape == (0, N, X)


@pytest.mark.parametrize("layer", [rnn.RNN, rnn.LSTM, rnn.GRU])
def test_empty_sequences_of_layers(layer):
    for hybrid in (False, True):
        net = layer(H, num_layers=2, bidirectional=True, input_size=X)
        net.initialize()
        if hybrid:
            net.hybridize()
        y, states = net(nd.ones((0, N, X)), net.begin_state(N))
        assert y.shape == (0, N, 2 * H) and not any(s.any() for s in states)


@pytest.mark.parametrize(("layer", "batch", "hidden"), [("lstm", 70, 16), ("gru", 128, 32), ("lstm", 16, 80), ("rnn", 130, 64)])
def test_steps_of_many_sizes(layer, batch, hidden):
    """Steps that are cut by rows or columns, evenly or not: as in eager mode, whatever the number of threads."""
    net = {"lstm": rnn.LSTM, "gru": rnn.GRU, "rnn": rnn.RNN}[layer](hidden, input_size=X, dtype="float64")
    net.initialize()
    x = nd.array(np.random.default_rng(0).normal(size=(9, batch, X)))
    expected = net(x).asnumpy()
    net.hybridize()
    found = net(x).asnumpy()
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-13)
    with settings(HYBRID_NUM_THREADS=1 if settings.num_threads > 1 else 2):
        net.hybridize()
        np.testing.assert_array_equal(net(x).asnumpy(), found)
