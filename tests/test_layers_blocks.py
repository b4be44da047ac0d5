"""Recurrent, attention, normalization, embedding and transposed layers as Blocks, against PyTorch."""

import numpy as np
import pytest

import ndarray as nd
from blocks import nn, rnn
from ndarray import autograd

torch = pytest.importorskip("torch")


def draw(*shape, seed=0):
    return (np.random.default_rng(seed).normal(size=shape) * 0.5).astype("float32")


def close(ours, theirs, tolerance=1e-5):
    theirs = theirs.detach().numpy() if hasattr(theirs, "detach") else theirs
    np.testing.assert_allclose(ours.asnumpy(), theirs, rtol=tolerance * 10, atol=tolerance)


NAMES = {"i2h_weight": "weight_ih", "h2h_weight": "weight_hh", "i2h_bias": "bias_ih", "h2h_bias": "bias_hh"}


def randomize(block, scale=0.5):
    for k, p in enumerate(block.collect_params().values()):
        p.set_data(nd.array(draw(*p.shape, seed=100 + k) * scale))


@pytest.mark.parametrize("mode", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("layout", ["TNC", "NTC"])
def test_recurrent_layers(mode, layout):
    ours = getattr(rnn, mode)(5, 2, layout=layout, bidirectional=True, **({"activation": "tanh"} if mode == "RNN" else {}))
    theirs = getattr(torch.nn, mode)(3, 5, 2, bidirectional=True, batch_first=layout == "NTC")
    x = draw(4, 2, 3)
    ours.initialize()
    states = ours.begin_state(2 if layout == "TNC" else 4)
    first, _ = ours(nd.array(x), states)
    assert list(ours.collect_params())[:5] == ["l0_i2h_weight", "l0_h2h_weight", "l0_i2h_bias", "l0_h2h_bias", "r0_i2h_weight"]
    for name, p in ours.collect_params().items():
        layer, _, kind = name.partition("_")
        their = getattr(theirs, f"{NAMES[kind]}_l{layer[1:]}{'_reverse' if layer[0] == 'r' else ''}")
        p.set_data(nd.array(their.detach().numpy()))
    ours.hybridize()
    y, last = ours(nd.array(x), states)
    expected, their_last = theirs(torch.tensor(x))
    close(y, expected)
    for a, b in zip(last, their_last if mode == "LSTM" else (their_last,), strict=True):
        close(a, b)
    close(ours(nd.array(x)), expected)
    assert first.shape == y.shape
    with pytest.raises(ValueError, match="begin_state"):
        ours(nd.array(x), ours.begin_state(7))


@pytest.mark.parametrize("mode", ["LSTM", "GRU", "RNN"])
def test_a_layer_is_its_unrolled_cell(mode):
    layer, cell = getattr(rnn, mode)(5, **({"activation": "tanh"} if mode == "RNN" else {})), getattr(rnn, f"{mode}Cell")(5)
    x = nd.array(draw(4, 2, 3))
    for block in (layer, cell):
        block.initialize()
    layer(x)
    cell(x[0], cell.begin_state(2))
    randomize(layer)
    for name, p in cell.collect_params().items():
        p.set_data(layer.collect_params()["l0_" + name].data())
    grads = []
    for run in (lambda: layer(x), lambda: cell.unroll(4, x, layout="TNC", merge_outputs=True)[0]):
        with autograd.record():
            y = run()
            total = (y * y).sum()
        total.backward()
        grads.append((y, layer.l0_h2h_weight.grad() if not grads else cell.h2h_weight.grad()))
    for a, b in zip(*grads):
        close(a, b.asnumpy())
    outputs, states = cell.unroll(4, [x[t] for t in range(4)])
    assert len(outputs) == 4
    close(states[0], outputs[-1].asnumpy())


def test_combined_cells():
    x = nd.array(draw(3, 4, 5))
    stack = rnn.HybridSequentialRNNCell()
    for cell in (rnn.LSTMCell(5), rnn.DropoutCell(0.5), rnn.ResidualCell(rnn.GRUCell(5))):
        stack.add(cell)
    both = rnn.BidirectionalCell(stack, rnn.RNNCell(6))
    both.initialize()
    whole, states = both.unroll(4, x, merge_outputs=True)
    assert whole.shape == (3, 4, 11)
    assert [s.shape for s in states] == [(3, 5)] * 3 + [(3, 6)]
    lengths = np.array([4, 2, 3])
    masked, states = both.unroll(4, x, valid_length=nd.array(lengths))
    for n, length in enumerate(lengths):
        short, short_states = both.unroll(int(length), x[n : n + 1, : int(length)], merge_outputs=True)
        close(masked[n, : int(length)], short[0].asnumpy())
        assert not masked[n, int(length):].asnumpy().any()
        for a, b in zip(states, short_states):
            close(a[n], b[0].asnumpy())


@pytest.mark.parametrize("pre_norm", [False, True])
def test_transformer_encoder_cell(pre_norm):
    ours = nn.TransformerEncoderCell(8, 16, 2, activation="gelu", pre_norm=pre_norm)
    theirs = torch.nn.TransformerEncoderLayer(8, 2, 16, 0.0, "gelu", batch_first=True, norm_first=pre_norm)
    x = draw(3, 4, 8)
    ours.initialize()
    ours(nd.array(x))
    randomize(ours)
    value = {k: torch.tensor(p.data().asnumpy()) for k, p in ours.collect_params().items()}
    parts = [[value[f"attention.{n}_proj.{k}"] for n in ("query", "key", "value")] for k in ("weight", "bias")]
    theirs.load_state_dict({
        "self_attn.in_proj_weight": torch.cat(parts[0]), "self_attn.in_proj_bias": torch.cat(parts[1]),
        **{f"self_attn.out_proj.{k}": value[f"attention.out_proj.{k}"] for k in ("weight", "bias")},
        **{f"linear{i}.{k}": value[f"ffn.ffn_{i}.{k}"] for i in (1, 2) for k in ("weight", "bias")},
        **{f"norm{i}.{k}": value[f"norm_{i}.{g}"] for i in (1, 2) for k, g in (("weight", "gamma"), ("bias", "beta"))},
    })
    close(ours(nd.array(x)), theirs(torch.tensor(x)))
    ours.hybridize()
    close(ours(nd.array(x)), theirs(torch.tensor(x)))
    causal = np.tril(np.ones((4, 4), bool))
    close(ours(nd.array(x), nd.array(causal)), theirs(torch.tensor(x), torch.tensor(~causal)))


@pytest.mark.parametrize("rank", [1, 2])
def test_transposed_convolution(rank):
    options = {"padding": 1, "output_padding": 1, "groups": 2}
    ours = (nn.Conv1DTranspose, nn.Conv2DTranspose)[rank - 1](6, 3, strides=2, **options)
    theirs = (torch.nn.ConvTranspose1d, torch.nn.ConvTranspose2d)[rank - 1](4, 6, 3, stride=2, **options)
    x = draw(2, 4, *(5,) * rank)
    ours.initialize()
    assert ours(nd.array(x)).shape == (2, 6, *(10,) * rank)
    assert ours.weight.shape == tuple(theirs.weight.shape)
    ours.weight.set_data(nd.array(theirs.weight.detach().numpy()))
    ours.bias.set_data(nd.array(theirs.bias.detach().numpy()))
    ours.hybridize()
    close(ours(nd.array(x)), theirs(torch.tensor(x)))


@pytest.mark.parametrize(("ours", "theirs"), [
    (lambda: nn.LayerNorm(), lambda: torch.nn.LayerNorm(5)),
    (lambda: nn.GroupNorm(2), lambda: torch.nn.GroupNorm(2, 4)),
    (lambda: nn.InstanceNorm(scale=True), lambda: torch.nn.InstanceNorm1d(4, affine=True)),
    (lambda: nn.ReLU6(), lambda: torch.nn.ReLU6()),
    (lambda: nn.GELU(), lambda: torch.nn.GELU()),
    (lambda: nn.PReLU(in_channels=4), lambda: torch.nn.PReLU(4)),
])
def test_elementwise_and_normalization(ours, theirs):
    x = draw(3, 4, 5) * 8
    a, b = ours(), theirs()
    a.initialize()
    a(nd.array(x))
    for mine, their in zip(a.collect_params().values(), b.parameters(), strict=True):
        value = draw(*mine.shape, seed=9)
        mine.set_data(nd.array(value))
        their.data = torch.tensor(value)
    for hybridized in (False, True):
        a.hybridize(hybridized)
        close(a(nd.array(x)), b(torch.tensor(x)))


def test_embedding():
    layer = nn.Embedding(7, 3)
    layer.initialize()
    layer.hybridize()
    ids = np.array([[1, 6, 1], [0, 2, 1]])
    with autograd.record():
        y = layer(nd.array(ids))
        total = (y * nd.array(draw(2, 3, 3))).sum()
    total.backward()
    close(y, layer.weight.data().asnumpy()[ids])
    expected = np.zeros((7, 3), "float32")
    np.add.at(expected, ids, draw(2, 3, 3))
    close(layer.weight.grad(), expected)
