"""Wrong results once found by hand, each with its shortest program."""

import copy
import pickle
import struct

import numpy as np
import pytest

import ndarray as nd
from blocks import Trainer, loss, nn, rnn
from hybrid import hybridize
from hybrid.block import HybridBlock
from ndarray import autograd
from ndarray.files import FileFormatError
from tests.networks import MODES


def two_layers():
    net = nn.HybridSequential()
    net.add(nn.Dense(3, in_units=2, dtype="float64"), nn.Dense(1, in_units=3, dtype="float64"))
    net.initialize()
    for i, p in enumerate(net.collect_params().values()):
        p.set_data(nd.array(np.random.default_rng(i).standard_normal(p.shape), dtype="float64"))
    return net


def freeze_for_a_step(net, i):
    net[0].weight.grad_req = "null" if i == 2 else "write"


def change_a_multiplier(net, i):
    net[1].weight.lr_mult = 0.0 if i >= 2 else 1.0


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("change", [freeze_for_a_step, change_a_multiplier])
def test_numbers_of_a_compiled_step_follow_each_weight(mode, change):
    def train(wrap):
        net = two_layers()
        trainer = Trainer(net.collect_params(), "adam", {"learning_rate": 0.05})

        def step(x):
            with autograd.record():
                loss = (net(x) ** 2).mean()
            loss.backward()
            trainer.step(1)

        run = wrap(step)
        for i in range(5):
            change(net, i)
            run(nd.array(np.random.default_rng(9 + i).standard_normal((4, 2)), dtype="float64"))
        return [p.data().asnumpy() for p in net.collect_params().values()]

    for eager, other in zip(train(lambda f: f), train(hybridize(backend=mode))):
        np.testing.assert_allclose(other, eager, rtol=1e-9, atol=1e-12)


class Scaled(HybridBlock):
    def __init__(self, held):
        super().__init__()
        self.held = held

    def forward(self, x):
        return x * nd.array(self.held) if isinstance(self.held, np.ndarray) else x * self.held[0]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("make", [lambda v: np.full(2, v, "float32"), lambda v: [nd.full((2,), v)]], ids=["numpy", "list"])
def test_an_assigned_object_is_noticed(mode, make):
    net, x = Scaled(make(2.0)), nd.ones((2,))
    net.hybridize(backend=mode)
    assert net(x).tolist() == [2, 2]
    net.held = make(5.0)
    assert net(x).tolist() == [5, 5]


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))], ids=["copy", "pickle"])
def test_a_called_hybridized_block_is_copied(duplicate):
    net, x = two_layers(), nd.ones((4, 2), dtype="float64")
    net.hybridize()
    before = net(x).asnumpy()
    other = duplicate(net)
    other[0].weight.set_data(other[0].weight.data() * 2)
    assert not np.allclose(other(x).asnumpy(), before)
    np.testing.assert_array_equal(net(x).asnumpy(), before)


def test_a_gradient_made_anew_is_not_taken_for_a_used_one():
    net, x = two_layers(), nd.ones((4, 2), dtype="float64")
    trainer = Trainer(net.collect_params(), "sgd", {"learning_rate": 0.1})

    def step():
        with autograd.record():
            loss = (net(x) ** 2).mean()
        loss.backward()
        trainer.step(1)

    step()
    net[0].weight.grad_req = "null"
    net[0].weight.grad_req = "write"  # another array now
    before = net[0].weight.data().asnumpy()
    step()
    assert not np.array_equal(net[0].weight.data().asnumpy(), before)
    with pytest.raises(UserWarning, match="has not been updated by backward"):
        trainer.step(1)


@pytest.mark.parametrize("mode", MODES)
def test_a_block_reached_by_a_default_argument_is_watched(mode):
    net, x = two_layers(), nd.ones((4, 2), dtype="float64")
    trainer = Trainer(net.collect_params(), "sgd", {"learning_rate": 0.1})

    @hybridize(backend=mode)
    def step(x, net=net, trainer=trainer):
        with autograd.record():
            loss = (net(x) ** 2).mean()
        loss.backward()
        trainer.step(1)

    step(x)
    net[0].weight.grad_req = "null"
    before = [net[i].weight.data().asnumpy() for i in range(2)]
    step(x)
    np.testing.assert_array_equal(net[0].weight.data().asnumpy(), before[0])
    assert not np.array_equal(net[1].weight.data().asnumpy(), before[1])


def test_sample_weights_stay_with_their_samples():
    prediction, labels = nd.array([[1.0, 2.0], [3.0, 1.0], [0.0, 0.0]]), nd.array([0, 1, 0])
    weights = nd.array([1.0, 0.0, 2.0])
    entropy = loss.SoftmaxCrossEntropyLoss()
    expected = (entropy(prediction, labels) * weights).asnumpy()
    for given in (weights, weights.reshape(3, 1)):
        np.testing.assert_allclose(entropy(prediction, labels, given).asnumpy(), expected, rtol=1e-6)
        np.testing.assert_allclose(hybridize(entropy.forward)(prediction, labels, given).asnumpy(), expected, rtol=1e-6)
    squares = loss.L2Loss()(prediction[:, :1], nd.zeros((3,)), weights)
    np.testing.assert_allclose(squares.asnumpy(), [0.5, 0, 0], rtol=1e-6)
    per_pixel = nd.array(np.random.default_rng(0).random((2, 4, 4)), dtype="float32")
    found = loss.SoftmaxCrossEntropyLoss(axis=1)(nd.zeros((2, 3, 4, 4)), nd.zeros((2, 4, 4)), per_pixel)
    np.testing.assert_allclose(found.asnumpy(), per_pixel.asnumpy().mean((1, 2)) * np.log(3), rtol=1e-5)
    with pytest.raises(ValueError, match=r"L2Loss: sample_weight: expected a shape that broadcasts to the loss's \(3, 1\)"):
        loss.L2Loss()(prediction[:, :1], nd.zeros((3,)), nd.ones((3, 2)))


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int16", "int64"])
def test_narrow_indices_of_long_axes(dtype):
    x, index = nd.arange(70000.0).reshape(1, 70000), nd.array([100], dtype=dtype)
    hot = nd.one_hot(index, 70000)
    assert hot.sum().item() == 1 and hot.argmax().item() == 100
    assert nd.pick(x, index, mode="wrap").item() == 100


def test_pick_wants_an_index_of_each_position():
    with pytest.raises(ValueError, match="pick: index: expected x's shape"):
        nd.pick(nd.ones((3, 2)), nd.array([0]))


@pytest.mark.parametrize(("dtype", "digits"), [("float16", 11), ("bfloat16", 8)])
def test_narrow_uniform_numbers_are_below_one(dtype, digits):
    x = nd.random.uniform(size=(20000,), dtype=dtype).astype("float32").asnumpy()
    assert x.max() < 1 and x.min() == 0 and abs(x.mean() - 0.5) < 0.01
    assert np.array_equal(x * 2**digits % 1, np.zeros_like(x))


@pytest.mark.parametrize("wrap", [lambda f: f, hybridize])
@pytest.mark.parametrize("valid", [None, [2, 4]])
def test_a_stack_of_bidirectional_cells_is_unrolled(wrap, valid):
    stack = rnn.HybridSequentialRNNCell()
    first = rnn.BidirectionalCell(rnn.LSTMCell(3, input_size=2), rnn.GRUCell(2, input_size=2))
    second, third = rnn.ResidualCell(rnn.BidirectionalCell(rnn.RNNCell(3), rnn.GRUCell(2))), rnn.GRUCell(4)
    for cell in (first, second, third):
        stack.add(cell)
    stack.initialize()
    x = nd.array(np.random.default_rng(0).standard_normal((2, 4, 2)), dtype="float32")
    lengths = None if valid is None else nd.array(valid)
    found, states = wrap(lambda x: stack.unroll(4, x, merge_outputs=True, valid_length=lengths))(x)

    a, first_states = first.unroll(4, x, merge_outputs=True, valid_length=lengths)
    b, second_states = second.base_cell.unroll(4, a, merge_outputs=True, valid_length=lengths)
    c, third_states = third.unroll(4, a + b, merge_outputs=True, valid_length=lengths)
    np.testing.assert_allclose(found.asnumpy(), c.asnumpy(), atol=1e-6)
    for s, expected in zip(states, first_states + second_states + third_states, strict=True):
        np.testing.assert_allclose(s.asnumpy(), expected.asnumpy(), atol=1e-6)


def test_attention_refuses_masks_of_integers():
    x = nd.ones((1, 2, 4))
    with pytest.raises(TypeError, match="mask: expected bool or floating"):
        nd.scaled_dot_product_attention(x, x, x, mask=nd.array([[1, 0], [1, 1]]))


def test_no_region_is_no_result():
    x, none = nd.ones((1, 3, 4, 4)), nd.zeros((0, 5))
    for sample_ratio in (-1, 2):
        assert nd.roi_align(x, none, (2, 1), sample_ratio=sample_ratio).shape == (0, 3, 2, 1)
    assert nd.roi_pooling(x, none, (2, 1)).shape == (0, 3, 2, 1)


def test_ctc_of_no_steps():
    found = nd.ctc_loss(nd.zeros((3, 2, 3)), nd.array([[1], [0]]), nd.array([0, 0]))
    np.testing.assert_array_equal(found.asnumpy(), [np.inf, 0])
    with pytest.raises(ValueError, match="at least one step"):
        nd.ctc_loss(nd.zeros((0, 1, 3)), nd.array([[1]]))


@pytest.mark.parametrize(("suffix", "name"), [(".npz", "a\0b"), (".safetensors", "__metadata__")])
def test_names_that_a_format_cannot_hold(tmp_path, suffix, name):
    with pytest.raises(ValueError, match="save: an array can't be named"):
        nd.save(tmp_path / f"x{suffix}", {name: nd.ones(1)})


def test_an_empty_array_of_a_huge_size_is_a_corrupt_file(tmp_path):
    path = tmp_path / "x.params"
    header = struct.pack("<QQQIii2qiii", 0x112, 0, 1, 0xF993FACA, 0, 2, 0, 2**62, 1, 0, 0)
    path.write_bytes(header + bytes(8))
    with pytest.raises(FileFormatError, match="can't have the shape"):
        nd.load(path)


def derivative_along(h, n, w):
    """The gradient of h(x).sum(), and its derivative along w."""
    x = nd.array(n)
    x.attach_grad()
    with autograd.record():
        (g,) = autograd.grad(h(x).sum(), [x], create_graph=True)
        along = (g * nd.array(w)).sum()
    along.backward()
    return g.asnumpy(), x.grad.asnumpy()


@pytest.mark.parametrize("h", [
    lambda x: nd.abs(nd.fft.fft(x)) ** 2,
    lambda x: nd.fft.irfft(nd.fft.rfft(x) ** 2) ** 2,
    lambda x: nd.fft.irfft(nd.fft.rfft(x) ** 2, n=5) ** 2,
], ids=["fft", "irfft", "irfft-odd"])
def test_second_derivatives_through_complex_numbers(h):
    n, w, e = np.array([0.3, -1.2, 2.0, 0.7]), np.array([0.5, -1.0, 2.0, 0.1]), 1e-5
    measured = (derivative_along(h, n + e * w, w)[0] - derivative_along(h, n - e * w, w)[0]) / (2 * e)
    np.testing.assert_allclose(derivative_along(h, n, w)[1], measured, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("n", [4, 5])
def test_gradient_of_a_hybridized_fourier_transform(mode, n):
    def run(wrap):
        x = nd.array([0.3, -1.2, 2.0, 0.7], dtype="float64")
        x.attach_grad()
        with autograd.record():
            y = wrap(lambda x: (nd.fft.irfft(nd.fft.rfft(x) ** 2, n=n) ** 2).sum())(x)
        y.backward()
        return x.grad.asnumpy()

    np.testing.assert_allclose(run(hybridize(backend=mode)), run(lambda f: f), rtol=1e-12)


@pytest.mark.parametrize("wrap", [lambda f: f, *(hybridize(backend=mode) for mode in MODES)], ids=["eager", *MODES])
def test_bits_of_a_bool_array_and_an_integer(wrap):
    found = wrap(lambda m: (m & 2, 2 | m, m ^ 1))(nd.array([True, False]))
    assert [v.tolist() for v in found] == [[0, 0], [3, 2], [0, 1]]
    assert {v.dtype for v in found} == {np.dtype("int64")}


@pytest.mark.parametrize("wrap", [lambda f: f, *(hybridize(backend=mode) for mode in MODES)], ids=["eager", *MODES])
def test_comparison_with_an_integer_beyond_the_dtype(wrap):
    def compare(x):
        return x == 300, x != -1, x < 300, x <= -1, nd.greater(300, x), nd.greater_equal(-1, x), x > 2**70

    found = wrap(compare)(nd.array([0, 7, 255], dtype="uint8"))
    assert [v.tolist() for v in found] == [[b] * 3 for b in (False, True, True, False, True, False, False)]
    assert nd.clip(nd.array([0, 255], dtype="uint8"), -1, 300).tolist() == [0, 255]


def test_where_of_a_ufunc_leaves_the_rest_of_out():
    n = np.array([1.0, 0.0, -2.0])
    for out in (np.full(3, 9.0), nd.full((3,), 9.0, dtype="float64")):
        for first, mask in ((nd.array(n), n != 0), (n, nd.array(n) != 0)):
            out[...] = 9.0
            assert np.divide(1.0, first, out=out, where=mask) is out
            assert out.tolist() == [1.0, 9.0, -0.5]
    assert float(np.sum(nd.array(n), where=n > 0)) == 1.0
    assert float(np.max(nd.array(n), initial=5.0)) == 5.0


def test_pad_with_widths_by_axis():
    n = np.arange(6.0).reshape(2, 3)
    for widths in ({0: (1, 0)}, {-1: 2}, {0: 1, 1: (0, 2)}):
        expected = np.pad(n, [(w, w) if isinstance(w := widths.get(k, widths.get(k - 2, 0)), int) else w for k in (0, 1)], "edge")
        np.testing.assert_array_equal(nd.pad(nd.array(n), widths, "edge").asnumpy(), expected)


def test_average_of_infinity():
    assert float(nd.average(nd.array([1.0, nd.inf]), weights=nd.array([1.0, 1.0]))) == float("inf")


def test_flatten_has_its_own_memory():
    x = nd.zeros((2, 2))
    x.flatten()[0] = 1
    assert x.tolist() == [[0, 0], [0, 0]]
    x.ravel()[0] = 1
    assert x.tolist() == [[1, 0], [0, 0]]


def test_every_method_of_quantile():
    parts = [0, 0.1, 0.125, 0.25, 0.3, 0.375, 0.5, 0.6, 0.625, 0.75, 0.875, 0.9, 1]
    for method in ("inverted_cdf", "averaged_inverted_cdf", "closest_observation", "interpolated_inverted_cdf", "hazen",
                   "weibull", "median_unbiased", "normal_unbiased"):
        for count in (1, 2, 4, 5, 8):
            n = np.random.default_rng(count).standard_normal((3, count))
            found = nd.quantile(nd.array(n), parts, axis=1, method=method).asnumpy()
            np.testing.assert_allclose(found, np.quantile(n, parts, axis=1, method=method), rtol=1e-12, err_msg=method)


def test_linspace_says_that_it_takes_numbers():
    with pytest.raises(TypeError, match=r"linspace: start: expected a number, got an array of shape \(2,\)"):
        nd.linspace(nd.zeros(2), 1, 3)


def test_squares_of_half_precision_are_summed_in_float32():
    x = nd.array(300 + np.arange(16.0).reshape(1, 1, 4, 4), dtype="float16")
    functions = nd.l2_normalization, lambda x: nd.lp_pool(x, 2, 2), lambda x: nd.lp_pool(x, 2, 2, p_value=3)
    for f in functions:
        found = f(x)
        assert found.dtype == "float16"
        np.testing.assert_allclose(found.asnumpy(), f(x.astype("float64")).asnumpy(), rtol=1e-3)
    assert not nd.l2_normalization(nd.zeros((1, 4), dtype="float16")).any()


def test_pooling_of_powers_keeps_nan():
    found = nd.lp_pool(nd.array([[[np.nan, 1.0, 3.0, 4.0, 0.0, 0.0]]]), 2, 2).asnumpy()
    np.testing.assert_array_equal(found, [[[np.nan, 5, 0]]])


@pytest.mark.parametrize("mode", ["eager", *MODES])
def test_gradients_at_zero_of_what_is_smooth_there(mode):
    """softplus was relu(x) + log1p(exp(-|x|)), neither of which has a derivative at 0: a classifier that begins with zeros
    didn't learn from one of the classes."""
    label = np.array([[1.0, 0.0, 1.0]])
    logits = np.array([[0.0, -0.0, 1.0]])
    sigmoid = 1 / (1 + np.exp(-logits))
    cases = [
        (nd.softplus, sigmoid), (nd.log_sigmoid, 1 - sigmoid),
        (lambda x: loss.SigmoidBCELoss()(x, nd.array(label)) * 3, sigmoid - label),
        (lambda x: loss.SigmoidBCELoss()(x, nd.array(label), None, nd.array(2.0)) * 3, sigmoid * (1 + label) - 2 * label),
    ]
    for function, expected in cases:
        f = function if mode == "eager" else hybridize(function, backend=mode)
        x = nd.array(logits, dtype="float64")
        x.attach_grad()
        with autograd.record():
            y = f(x)
        y.backward()
        np.testing.assert_allclose(x.grad.asnumpy(), expected, rtol=1e-6)
    for function, expected in ((nd.softplus, 0.25), (nd.mish, 0.64)):  # and of its derivative
        f = function if mode == "eager" else hybridize(function, backend=mode)
        x = nd.zeros((1,), dtype="float64")
        x.attach_grad()
        with autograd.record():
            slope = autograd.grad(f(x), [x], create_graph=True)[0]
        slope.backward()
        np.testing.assert_allclose(x.grad.asnumpy(), expected, rtol=1e-12)


@pytest.mark.parametrize("mode", MODES)
def test_an_infinite_factor_is_not_multiplied_into_weights(mode):
    net = nn.Conv2D(4, 3, in_channels=2, use_bias=False)
    net.initialize()
    f = hybridize(lambda x: net(x) * net.weight.data()[:, 0, 0, 0].reshape((1, 4, 1, 1)) * np.inf, backend=mode)
    x = nd.array(np.random.default_rng(0).standard_normal((1, 2, 5, 5)), dtype="float32")
    for _ in range(3):
        assert np.isinf(f(x).asnumpy()).all()


@pytest.mark.parametrize("mode", ["eager", *MODES])
def test_parameters_of_one_memory_have_gradients_of_their_own(mode):
    net, weight = nn.HybridSequential(), np.eye(3, dtype=np.float32)
    net.add(nn.Dense(3, in_units=3, use_bias=False), nn.Dense(3, in_units=3, use_bias=False))
    for layer in net:
        layer.weight.set_data(weight, copy=False)
    if mode != "eager":
        net.hybridize(backend=mode)
    with autograd.record():
        y = net(nd.array([[1.0, 2.0, 3.0]]))
    y.backward()
    for layer in net:
        np.testing.assert_array_equal(layer.weight.grad().asnumpy(), np.tile([1.0, 2.0, 3.0], (3, 1)))


@pytest.mark.parametrize("mode", MODES)
def test_a_gradient_that_does_not_see_a_size_of_the_forward_part(mode):
    f = hybridize(lambda x, c: nd.silu(x[1:]) + c, backend=mode)  # c's length need not be known to the backward part
    for n in (4, 5, 6):
        x = nd.ones((n,), dtype="float64")
        x.attach_grad()
        with autograd.record():
            y = f(x, nd.ones((n - 1,), dtype="float64"))
        y.backward()
        np.testing.assert_allclose(x.grad.asnumpy(), [0.0] + [0.9276705118714868] * (n - 1))


@pytest.mark.parametrize("mode", MODES)
def test_convolutions_over_any_number_of_channels(mode):
    rng = np.random.default_rng(0)
    f = hybridize(lambda x, w: nd.convolution(x, w, padding=1), backend=mode)
    for channels in (4, 6, 18, 1, 20):  # symbolic from the second call on, when 6 was a block of its own
        x, w = (nd.array(rng.standard_normal(s), dtype="float64") for s in ((1, channels, 7, 8), (5, channels, 3, 3)))
        np.testing.assert_allclose(f(x, w).asnumpy(), nd.convolution(x, w, padding=1).asnumpy(), rtol=1e-10, atol=1e-12)
    assert f.traces == 2


@pytest.mark.parametrize("function", [nd.convolution, nd.deconvolution])
def test_a_function_of_filters_of_several_sizes(function) -> None:
    """Once the number of taps had become a symbol, convolutions read other filters' numbers."""
    random = np.random.default_rng(2)
    compiled = hybridize(lambda x, w: nd.relu(function(x, w, padding=1)))
    for channels, size, taps in ((3, 7, 3), (8, 5, 3), (20, 13, 3), (4, 9, 1), (6, 8, 5), (5, 11, 4)):
        a, b = random.standard_normal((2, channels, size, size + 1)), random.standard_normal((channels, channels, taps, taps))
        results = []
        for run in (compiled, lambda x, w: nd.relu(function(x, w, padding=1))):
            x, w = nd.array(a, dtype="float64"), nd.array(b, dtype="float64")
            x.attach_grad()
            w.attach_grad()
            with autograd.record():
                y = run(x, w)
                total = (y * y).sum()
            total.backward()
            results.append([y.asnumpy(), x.grad.asnumpy(), w.grad.asnumpy()])
        for got, want in zip(*results):
            np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-9 * np.abs(want).max())


def test_a_tuple_that_stands_at_two_depths_of_what_a_function_reads() -> None:
    """It was compared by identity where it lay deep until it had been met further up: training with such a model's sizes was
    traced at each call."""
    from hybrid.surroundings import Surroundings

    shared = (32, (3, 4))
    sizes = {"inputs": ((("x", shared),),), "target": shared}

    def function():
        return sizes

    surroundings = Surroundings([function])
    values = surroundings.read()
    assert surroundings.key(values) == surroundings.key(values)


def test_a_result_of_several_symbols_needs_no_gradient():
    """The shape of a cotangent that the backward part doesn't read held a symbol that no input showed."""
    function = hybridize(lambda x, y: (nd.reshape(x, (-1,)), nd.exp(y)))
    for n in (2, 3, 5, 7):
        x, y = nd.ones((n, n + 1)), nd.ones((4,))
        y.attach_grad()
        with autograd.record():
            b = function(x, y)[1]
            loss = nd.sum(b)
        loss.backward()
        np.testing.assert_allclose(y.grad.asnumpy(), np.full(4, np.e), rtol=1e-6)
