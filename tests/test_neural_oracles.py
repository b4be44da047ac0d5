"""Neural functions against PyTorch (where it is installed) and against plain loops, in float64, with gradients to order 2."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import ndarray as nd
from ndarray import autograd
from ndarray.testing import assert_close, check_gradients

rng = np.random.default_rng(3)
X = rng.standard_normal((2, 4, 5, 6))
Y = rng.standard_normal((2, 4, 7, 5))
M = rng.standard_normal((3, 5))
LINE, CUBE = rng.standard_normal((2, 4, 9)), rng.standard_normal((2, 4, 5, 4, 6))


def n(x: np.ndarray) -> nd.NDArray:
    return nd.array(x, dtype=x.dtype)


def compare(ours: Callable, theirs: Callable, *arrays: np.ndarray, factor: float = 1.0) -> None:
    """Values and first gradients of both, in a random direction."""
    torch = pytest.importorskip("torch")
    mine = [n(a) for a in arrays]
    other = [torch.tensor(a, requires_grad=True) for a in arrays]
    for m in mine:
        m.attach_grad()
    with autograd.record(train_mode=False):
        out = ours(*mine)
    want = theirs(torch.nn.functional, *other)
    assert_close(out, want.detach().numpy(), factor)
    weights = rng.standard_normal(out.shape)
    out.backward(n(weights))
    want.backward(torch.tensor(weights))
    for m, o in zip(mine, other):
        assert_close(m.grad, np.zeros(o.shape) if o.grad is None else o.grad.numpy(), 4 * factor)


ACTIVATIONS: dict[str, tuple[Callable, Callable]] = {
    "relu6": (lambda x: nd.relu6(4 * x), lambda F, x: F.relu6(4 * x)),
    "celu": (lambda x: nd.celu(x, 0.5), lambda F, x: F.celu(x, 0.5)),
    "elu": (lambda x: nd.elu(x, 0.7), lambda F, x: F.elu(x, 0.7)), "selu": (nd.selu, lambda F, x: F.selu(x)),
    "gelu": (nd.gelu, lambda F, x: F.gelu(x)), "mish": (nd.mish, lambda F, x: F.mish(x)),
    "silu": (nd.silu, lambda F, x: F.silu(x)),
    "tanh gelu": (lambda x: nd.gelu(x, "tanh"), lambda F, x: F.gelu(x, approximate="tanh")),
    "hard_sigmoid": (lambda x: nd.hard_sigmoid(x), lambda F, x: (0.2 * x + 0.5).clip(0, 1)),
    "hard_swish": (lambda x: nd.hard_swish(3 * x), lambda F, x: F.hardswish(3 * x)),
    "hard_tanh": (lambda x: nd.hard_tanh(x, -0.5, 0.8), lambda F, x: F.hardtanh(x, -0.5, 0.8)),
    "log_sigmoid": (nd.log_sigmoid, lambda F, x: F.logsigmoid(x)), "softsign": (nd.softsign, lambda F, x: F.softsign(x)),
    "softplus": (nd.softplus, lambda F, x: F.softplus(x)), "softmin": (nd.softmin, lambda F, x: F.softmin(x, -1)),
    "rrelu": (nd.rrelu, lambda F, x: F.rrelu(x, 0.125, 0.334)), "leaky": (nd.leaky_relu, lambda F, x: F.leaky_relu(x, 0.25)),
}


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_activation(name: str) -> None:
    compare(*ACTIVATIONS[name], X)
    if name != "rrelu":  # random in training
        check_gradients(ACTIVATIONS[name][0], [M], limit=2e-5)


def test_prelu_and_leaky_relu_kinds() -> None:
    slopes = rng.standard_normal(4)
    compare(nd.prelu, lambda F, x, a: F.prelu(x, a), X, slopes)
    compare(lambda x, a: nd.leaky_relu(x, a, act_type="prelu"), lambda F, x, a: F.prelu(x, a), X, slopes[:1])
    compare(lambda x: nd.leaky_relu(x, act_type="elu", slope=0.3), lambda F, x: F.elu(x, 0.3), X)
    with pytest.raises(ValueError, match="leaky_relu: act_type: expected one of leaky, prelu"):
        nd.leaky_relu(n(X), act_type="lazy")
    with pytest.raises(ValueError, match="leaky_relu: gamma"):
        nd.leaky_relu(n(X), act_type="prelu")


def test_rrelu_draws_slopes_in_training() -> None:
    nd.random.seed(1)
    with autograd.train_mode():
        out = nd.rrelu(nd.full((5000,), -1.0), 0.1, 0.3).asnumpy()
    assert -0.3 <= out.min() < -0.29
    assert -0.11 < out.max() <= -0.1
    assert abs(out.mean() + 0.2) < 0.005


def test_softmax_with_length() -> None:
    lengths = np.array([1, 5, 3])
    found = nd.softmax(n(M), length=nd.array(lengths), use_length=True, temperature=0.5).asnumpy()
    logs = nd.log_softmax(n(M), length=nd.array(lengths), temperature=0.5).asnumpy()
    for row, k, out, log in zip(M, lengths, found, logs):
        e = np.exp(2 * row[:k] - (2 * row[:k]).max())
        assert_close(out, np.concatenate([e / e.sum(), np.zeros(5 - k)]))
        assert_close(log[:k], np.log(e / e.sum()))
        assert (log[k:] == -np.inf).all()
    check_gradients(lambda x: nd.softmax(x, length=nd.array(lengths), temperature=0.5), [M])
    found = nd.softmax(n(X), axis=1, length=nd.array(np.full((2, 5, 6), 2))).asnumpy()
    assert_close(found[:, :2].sum(1), np.ones((2, 5, 6)))
    assert_close(nd.softmax(n(M), length=nd.array([0, 1, 1]))[0], np.zeros(5))
    assert nd.softmax(nd.array([1, 2]), dtype="float64").dtype == np.float64
    with pytest.raises(ValueError, match="softmax: length: expected x's shape"):
        nd.softmax(n(M), length=nd.array([[1], [2], [3]]))
    with pytest.raises(ValueError, match="softmax: temperature"):
        nd.softmax(n(M), temperature=0)


def test_masked_softmax_gradients() -> None:
    mask = M > 0
    mask[0] = False
    check_gradients(lambda x: nd.masked_softmax(x, nd.array(mask), temperature=0.1), [M], limit=1e-4)
    check_gradients(lambda x: nd.where(nd.array(mask), nd.masked_log_softmax(x, nd.array(mask)), 0), [M])


# -- convolution

CONVOLUTIONS: list[tuple[np.ndarray, tuple, dict[str, Any]]] = [
    (LINE, (6, 4, 3), {"stride": 2, "padding": 1}), (X, (6, 2, 3, 2), {"groups": 2, "padding": (1, 0), "dilation": (1, 2)}),
    (CUBE, (3, 4, 2, 3, 2), {"stride": (1, 2, 2), "padding": (0, 1, 1)}),
]


@pytest.mark.parametrize("case", range(3))
def test_convolution_and_layouts(case: int) -> None:
    x, shape, options = CONVOLUTIONS[case]
    w, b, rank = rng.standard_normal(shape), rng.standard_normal(shape[0]), x.ndim - 2
    compare(lambda x, w, b: nd.convolution(x, w, b, **options),
            lambda F, x, w, b: getattr(F, f"conv{rank}d")(x, w, b, **options), x, w, b)
    last = ("NWC", "NHWC", "NDHWC")[rank - 1]
    front = lambda v: np.moveaxis(v, 1, -1)
    found = nd.convolution(n(front(x)), n(front(w)), n(b), layout=last, **options)
    assert_close(found, front(nd.convolution(n(x), n(w), n(b), **options).asnumpy()))
    renamed = {{"padding": "pad", "dilation": "dilate", "groups": "num_group"}.get(k, k): v for k, v in options.items()}
    assert_close(nd.convolution(n(x), n(w), n(b), kernel=shape[2:], num_filter=shape[0], **renamed),
                 nd.convolution(n(x), n(w), n(b), **options))
    with pytest.raises(ValueError, match="convolution: layout: expected"):
        nd.convolution(n(x), n(w), layout="NCWH")
    with pytest.raises(ValueError, match="convolution: kernel: expected"):
        nd.convolution(n(x), n(w), kernel=(9,) * rank)


@pytest.mark.parametrize("case", range(3))
def test_deconvolution_and_layouts(case: int) -> None:
    x, shape, options = CONVOLUTIONS[case]
    groups, rank = options.get("groups", 1), x.ndim - 2
    w, b = rng.standard_normal((4, 6 // groups, *shape[2:])), rng.standard_normal(6)
    extra = tuple(1 if s > 1 else 0 for s in np.broadcast_to(options.get("stride", 1), rank))
    compare(lambda x, w, b: nd.deconvolution(x, w, b, output_padding=extra, **options),
            lambda F, x, w, b: getattr(F, f"conv_transpose{rank}d")(x, w, b, output_padding=extra, **options), x, w, b)
    front = lambda v: np.moveaxis(v, 1, -1)
    want = nd.deconvolution(n(x), n(w), n(b), **options)
    found = nd.deconvolution(n(front(x)), n(front(w)), n(b), layout=("NWC", "NHWC", "NDHWC")[rank - 1], **options)
    assert_close(found, front(want.asnumpy()))


def test_deconvolution_target_shape() -> None:
    w = rng.standard_normal((4, 2, 4, 4))
    for size in ((10, 12), (11, 11), (9, 13)):
        assert nd.deconvolution(n(X), n(w), stride=2, target_shape=size).shape == (2, 2, *size)
    assert_close(nd.deconvolution(n(X), n(w), stride=2, target_shape=(10, 12)), nd.deconvolution(n(X), n(w), stride=2, pad=1))
    with pytest.raises(ValueError, match="deconvolution: target_shape"):
        nd.deconvolution(n(X), n(w), stride=2, target_shape=(40, 12))


@pytest.mark.parametrize("options", [{}, {"stride": 2, "padding": 1}, {"dilation": 2, "padding": (2, 1)}])
def test_im2col_and_col2im(options: dict) -> None:
    size = (3, 2)
    compare(lambda x: nd.im2col(x, size, **options), lambda F, x: F.unfold(x, size, **options), X)
    columns = nd.im2col(n(X), size, **options).asnumpy()
    compare(lambda c: nd.col2im(c, X.shape[2:], size, **options), lambda F, c: F.fold(c, X.shape[2:], size, **options), columns)
    check_gradients(lambda x: nd.im2col(x, size, **options), [X])


def deformed(
    x: np.ndarray, offset: np.ndarray, mask: np.ndarray, w: np.ndarray, s: int, p: int, d: int, g: int, parts: int
) -> np.ndarray:
    """Deformable convolution by its definition, one multiplication at a time."""
    def at(image: np.ndarray, y: float, x: float) -> float:
        total, y0, x0 = 0.0, int(np.floor(y)), int(np.floor(x))
        for j in (y0, y0 + 1):
            for i in (x0, x0 + 1):
                if 0 <= j < image.shape[0] and 0 <= i < image.shape[1]:
                    total += image[j, i] * (1 - abs(y - j)) * (1 - abs(x - i))
        return total

    count, c = x.shape[:2]
    o, kh, kw = w.shape[0], w.shape[2], w.shape[3]
    out = np.zeros((count, o, *offset.shape[2:]))
    for b, f, i, j in np.ndindex(out.shape):
        for k in range(c // g):
            channel = f // (o // g) * (c // g) + k
            part = channel // (c // parts)
            for u, v in np.ndindex(kh, kw):
                tap = part * kh * kw + u * kw + v
                y = i * s - p + u * d + offset[b, 2 * tap, i, j]
                z = j * s - p + v * d + offset[b, 2 * tap + 1, i, j]
                out[b, f, i, j] += w[f, k, u, v] * mask[b, tap, i, j] * at(x[b, channel], y, z)
    return out


@pytest.mark.parametrize(("s", "p", "d", "g", "parts"), [(1, 1, 1, 1, 1), (2, 1, 1, 2, 1), (1, 2, 2, 2, 2), (1, 0, 1, 1, 4)])
def test_deformable_convolution(s: int, p: int, d: int, g: int, parts: int) -> None:
    w, b = rng.standard_normal((4, 4 // g, 3, 2)), rng.standard_normal(4)
    shape = tuple((m + 2 * p - d * (k - 1) - 1) // s + 1 for m, k in zip(X.shape[2:], (3, 2)))
    offset, mask = rng.uniform(-1.5, 1.5, (2, parts * 12, *shape)), rng.uniform(0, 1, (2, parts * 6, *shape))
    options = {"stride": s, "padding": p, "dilation": d, "groups": g, "num_deformable_group": parts}
    ones = np.ones_like(mask)
    assert_close(nd.deformable_convolution(n(X), n(offset), n(w), n(b), **options),
                 deformed(X, offset, ones, w, s, p, d, g, parts) + b[:, None, None])
    assert_close(nd.modulated_deformable_convolution(n(X), n(offset), n(mask), n(w), **options),
                 deformed(X, offset, mask, w, s, p, d, g, parts))
    check_gradients(lambda x, o, m, w: nd.deformable_convolution(x, o, w, mask=m, **options), [X, offset, mask, w], step=1e-6,
                    limit=1e-4)
    with pytest.raises(ValueError, match="deformable_convolution: offset: expected shape"):
        nd.deformable_convolution(n(X), n(offset[:1]), n(w), **options)


# -- pooling

@pytest.mark.parametrize("rank", [1, 2, 3])
def test_pooling(rank: int) -> None:
    x = (LINE, X, CUBE)[rank - 1]
    for options in ({}, {"stride": 1, "padding": 1}, {"stride": 2, "ceil_mode": True}):
        name = f"max_pool{rank}d"
        compare(lambda x, o=options: nd.max_pool(x, 3, **o), lambda F, x, o=options, f=name: getattr(F, f)(x, 3, **o), x)
        name = f"avg_pool{rank}d"
        compare(lambda x, o=options: nd.avg_pool(x, 3, **o), lambda F, x, o=options, f=name: getattr(F, f)(x, 3, **o), x)
        compare(lambda x, o=options: nd.avg_pool(x, 3, count_include_pad=False, **o),
                lambda F, x, o=options, f=name: getattr(F, f)(x, 3, count_include_pad=False, **o), x)
        front = np.moveaxis(x, 1, -1)
        for ours in (nd.max_pool, nd.avg_pool, nd.lp_pool):
            found = ours(n(front), 3, layout=("NWC", "NHWC", "NDHWC")[rank - 1], **options)
            assert_close(found, np.moveaxis(ours(n(x), 3, **options).asnumpy(), 1, -1))
    sizes = (5, 4, 3)[:rank]
    compare(lambda x: nd.adaptive_avg_pool(x, sizes), lambda F, x: getattr(F, f"adaptive_avg_pool{rank}d")(x, sizes), x)
    compare(lambda x: nd.adaptive_max_pool(x, sizes), lambda F, x: getattr(F, f"adaptive_max_pool{rank}d")(x, sizes), x)
    compare(lambda x: nd.adaptive_max_pool(x, 1), lambda F, x: getattr(F, f"adaptive_max_pool{rank}d")(x, 1), x)
    if rank < 3:
        compare(lambda x: nd.lp_pool(x, 2, p_value=3), lambda F, x: getattr(F, f"lp_pool{rank}d")(x, 3, 2), np.abs(x))
    check_gradients(lambda x: nd.lp_pool(x, 2, p_value=2), [x])
    check_gradients(lambda x: nd.adaptive_max_pool(x, sizes), [x])


def test_pooling_conventions() -> None:
    """MXNet's "full": counts are rounded up, and what lies beyond the padding does not count in means."""
    x = np.arange(1.0, 8.0).reshape(1, 1, 7)
    for kernel, stride, pad in ((2, 2, 0), (3, 2, 1), (2, 3, 1), (3, 3, 0)):
        count = -(-(7 + 2 * pad - kernel) // stride) + 1
        top, middle, inner = [], [], []
        for o in range(count):
            low, high = o * stride - pad, min(o * stride - pad + kernel, 7 + pad)
            window = x[0, 0, max(low, 0) : min(high, 7)]
            top.append(window.max() if window.size else -np.inf)
            middle.append(window.sum() / max(high - low, 1))
            inner.append(window.sum() / max(window.size, 1))
        options = {"kernel": (kernel,), "stride": (stride,), "pad": (pad,), "pooling_convention": "full"}
        assert_close(nd.pooling(n(x), pool_type="max", **options)[0, 0], np.array(top))
        assert_close(nd.pooling(n(x), pool_type="avg", **options)[0, 0], np.array(middle))
        assert_close(nd.pooling(n(x), pool_type="avg", count_include_pad=False, **options)[0, 0], np.array(inner))
    assert nd.pooling(n(x), (2,), stride=(2,), pooling_convention="same").shape == (1, 1, 4)
    assert_close(nd.pooling(n(X), pool_type="avg", global_pool=True), X.mean((2, 3), keepdims=True))
    assert_close(nd.pooling(n(X), pool_type="sum", global_pool=True), X.sum((2, 3), keepdims=True))
    assert nd.pooling(n(X), (2, 2)).shape == (2, 4, 4, 5)
    with pytest.raises(ValueError, match="pooling: pool_type"):
        nd.pooling(n(X), (2, 2), "min")
    zeros = np.zeros((1, 1, 4))
    check_gradients(lambda x: nd.lp_pool(x, 2), [zeros + 1e-9], order=1, limit=10)
    z = n(zeros)
    z.attach_grad()
    with autograd.record():
        out = nd.lp_pool(z, 2)
    out.backward()
    assert_close(z.grad, zeros)


# -- normalization

def test_normalization() -> None:
    g, b = rng.standard_normal(4), rng.standard_normal(4)
    compare(lambda x, g, b: nd.group_norm(x, g, b, num_groups=2), lambda F, x, g, b: F.group_norm(x, 2, g, b), X, g, b)
    compare(lambda x, g, b: nd.instance_norm(x, g, b), lambda F, x, g, b: F.instance_norm(x, weight=g, bias=b), X, g, b)
    compare(lambda x, g: nd.rms_norm(x, g, eps=1e-5), lambda F, x, g: F.rms_norm(x, (6,), g, 1e-5), X, rng.standard_normal(6))
    compare(lambda x: nd.lrn(x, 3, 0.7, 0.6, 1.5), lambda F, x: F.local_response_norm(x, 3, 0.7, 0.6, 1.5), X)
    check_gradients(lambda x: nd.lrn(x, 3, 0.7), [X])
    mean, variance = nd.moments(n(X), (0, 2))
    assert_close(mean, X.mean((0, 2)))
    assert_close(variance, X.var((0, 2)))
    assert nd.moments(n(X), (0, 2), keepdims=True)[0].shape == (1, 4, 1, 6)
    assert_close(nd.batch_norm(n(X), n(g), n(b), fix_gamma=True)[0], nd.batch_norm(n(X), None, n(b))[0])
    with pytest.raises(ValueError, match="lrn: nsize"):
        nd.lrn(n(X), 2)


# -- resizing, sampling

@pytest.mark.parametrize("mode", ["nearest", "bilinear", "bicubic"])
@pytest.mark.parametrize("align", [False, True])
def test_resize(mode: str, align: bool) -> None:
    options = {} if mode == "nearest" else {"align_corners": align}
    for size in ((9, 4), (3, 12), (5, 6), (1, 1)):
        compare(lambda x, s=size: nd.resize(x, s, mode=mode, **options),
                lambda F, x, s=size: F.interpolate(x, s, mode=mode, **options), X)
    compare(lambda x: nd.resize(x, scale=(2, 1.5), mode=mode, **options),
            lambda F, x: F.interpolate(x, scale_factor=(2, 1.5), mode=mode, **options), X)
    check_gradients(lambda x: nd.resize(x, 4, mode=mode), [X])


def test_resize_of_other_ranks_and_mxnet_names() -> None:
    compare(lambda x: nd.resize(x, 5, mode="linear"), lambda F, x: F.interpolate(x, 5, mode="linear"), LINE)
    compare(lambda x: nd.resize(x, (3, 6, 6), mode="trilinear"), lambda F, x: F.interpolate(x, (3, 6, 6), mode="trilinear"), CUBE)
    compare(lambda x: nd.bilinear_resize_2d(x, 7, 3),
            lambda F, x: F.interpolate(x, (7, 3), mode="bilinear", align_corners=True), X)
    compare(lambda x: nd.upsampling(x, scale=3), lambda F, x: F.interpolate(x, scale_factor=3), X)
    inner = (slice(None), slice(None), slice(2, -2), slice(2, -2))
    compare(lambda x: nd.upsampling(x, scale=2, sample_type="bilinear")[inner],
            lambda F, x: F.interpolate(x, scale_factor=2, mode="bilinear")[inner], X)
    with pytest.raises(ValueError, match="resize: expected exactly one of size and scale"):
        nd.resize(n(X))


@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("align", [False, True])
def test_grid_sample(mode: str, padding: str, align: bool) -> None:
    grid = rng.uniform(-1.9, 1.9, (2, 3, 4, 2))
    options = {"mode": mode, "padding_mode": padding, "align_corners": align}
    compare(lambda x, g: nd.grid_sample(x, g, **options), lambda F, x, g: F.grid_sample(x, g, **options), X, grid, factor=10)
    if mode == "bilinear":
        check_gradients(lambda x, g: nd.grid_sample(x, g, **options), [X, grid], step=1e-6, limit=1e-4)


def test_affine_grids_and_transformers() -> None:
    theta = rng.standard_normal((2, 2, 3))
    for align in (True, False):
        compare(lambda t, a=align: nd.affine_grid(t, (2, 4, 5, 7), align_corners=a),
                lambda F, t, a=align: F.affine_grid(t, (2, 4, 5, 7), align_corners=a), theta)
    compare(lambda x, t: nd.spatial_transformer(x, nd.reshape(t, (2, 6)), (5, 7)),
            lambda F, x, t: F.grid_sample(x, F.affine_grid(t, (2, 4, 5, 7), align_corners=True), align_corners=True), X, theta,
            factor=10)
    flow = np.zeros((2, 2, 5, 6))
    flow[:, 0] = 1  # one pixel to the right
    moved = nd.bilinear_sampler(n(X), nd.grid_generator(n(flow), "warp")).asnumpy()
    assert_close(moved[..., :-1], X[..., 1:], 10)
    assert_close(moved[..., -1], np.zeros((2, 4, 5)), 10)


# -- CTC

@pytest.mark.parametrize("blank", ["first", "last"])
def test_ctc_loss(blank: str) -> None:
    torch = pytest.importorskip("torch")
    steps, batch, classes, width = 7, 4, 5, 3
    data = rng.standard_normal((steps, batch, classes))
    labels = np.array([[1, 2, 2], [3, 1, 0], [4, 0, 0], [0, 0, 0]]) if blank == "first" else \
        np.array([[1, 2, 2], [3, 1, -1], [0, -1, -1], [-1, -1, -1]])
    lengths, shown = np.array([3, 2, 1, 0]), np.array([7, 5, 2, 4])
    for used, given in ((np.full(batch, steps), (None, None)), (shown, (nd.array(shown), nd.array(lengths)))):
        x = n(data)
        x.attach_grad()
        with autograd.record():
            loss = nd.ctc_loss(x, nd.array(labels), *given, blank_label=blank)
        loss.backward()
        t = torch.tensor(data, requires_grad=True)
        want = torch.nn.functional.ctc_loss(
            torch.log_softmax(t, -1), torch.tensor(labels.clip(0)), torch.tensor(used), torch.tensor(lengths),
            blank=0 if blank == "first" else classes - 1, reduction="none")
        want.sum().backward()
        assert_close(loss, want.detach().numpy())
        assert_close(x.grad, t.grad.numpy(), 10)
    assert_close(nd.ctc_loss(n(data.swapaxes(0, 1)), nd.array(labels), blank_label=blank, layout="NTC"),
                 nd.ctc_loss(n(data), nd.array(labels), blank_label=blank))
    assert width == labels.shape[1]


def test_ctc_loss_to_second_order_and_without_alignment() -> None:
    data, labels = rng.standard_normal((4, 2, 4)), nd.array([[1, 1], [2, 3]])
    check_gradients(lambda x: nd.ctc_loss(x, labels), [data])
    x = n(data[:2])  # "1 1" needs three steps
    x.attach_grad()
    with autograd.record():
        loss = nd.ctc_loss(x, labels)
    loss.backward()
    assert loss.asnumpy()[0] == np.inf
    assert np.isfinite(loss.asnumpy()[1])
    assert_close(x.grad[:, 0], np.zeros((2, 4)))
    with pytest.raises(ValueError, match="ctc_loss: layout"):
        nd.ctc_loss(x, labels, layout="TCN")
    with pytest.raises(ValueError, match=r"ctc_loss: label: expected shape \(2, L\)"):
        nd.ctc_loss(x, nd.array([[1, 1]]))
