"""Neural functions in hybridized functions: interpreted with a batch size that varies, and compiled; values and gradients as
eagerly."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import ndarray as nd
from hybrid import CompiledFunction
from ndarray import autograd
from ndarray.testing import assert_close

rng = np.random.default_rng(0)


def a(*shape: int) -> nd.NDArray:
    return nd.array(rng.standard_normal(shape), dtype="float32")


W, WT, WL, ONE = a(6, 2, 3, 3), a(4, 3, 3, 3), a(6, 3, 3, 4), a(2, 4, 3, 3)
OFFSET, MASK = a(1, 18, 5, 6), a(1, 9, 5, 6)
THETA, GRID, LABELS = a(1, 2, 3), a(1, 3, 4, 2), nd.array([[1, 2, 0]])

FUNCTIONS: dict[str, Callable] = {
    "activations": lambda x: nd.celu(x, 0.5) + nd.hard_swish(x) + nd.relu6(x) + nd.hard_tanh(x) + nd.prelu(x, nd.array([0.5])),
    "softmax length": lambda x: nd.softmax(x[:, :, 0, 0], length=nd.sum(x[:, :2, 0, 0] > 0, 1)),
    "masked log softmax": lambda x: nd.where(x > 0, nd.masked_log_softmax(x, x > 0), 0),
    "grouped convolution": lambda x: nd.convolution(x, W, stride=2, padding=1, groups=2),
    "channels last": lambda x: nd.convolution(nd.transpose(x, (0, 2, 3, 1)), WL, layout="NHWC", pad=1),
    "deconvolution": lambda x: nd.deconvolution(x, WT, stride=2, adj=1),
    "im2col": lambda x: nd.im2col(x, 3, stride=2, padding=1), "col2im": lambda x: nd.col2im(nd.im2col(x, 2), (5, 6), 2),
    "deformable": lambda x: nd.deformable_convolution(
        x, nd.broadcast_to(OFFSET, (x.shape[0], 18, 5, 6)), ONE, pad=1, mask=nd.broadcast_to(MASK, (x.shape[0], 9, 5, 6))),
    "max pool full": lambda x: nd.pooling(x, (3, 3), stride=2, pooling_convention="full"),
    "avg pool full": lambda x: nd.pooling(x, (3, 3), "avg", stride=2, pad=1, pooling_convention="full"),
    "avg pool last": lambda x: nd.avg_pool(x, 2, layout="NHWC"), "lp pool": lambda x: nd.lp_pool(x, 3, 2),
    "adaptive max": lambda x: nd.adaptive_max_pool(x, (3, 4)), "adaptive avg": lambda x: nd.adaptive_avg_pool(x, (3, 4)),
    "lrn": lambda x: nd.lrn(x, 3, 0.5), "moments": lambda x: nd.moments(x, (1, 2))[1], "rms_norm": nd.rms_norm,
    "nearest": lambda x: nd.resize(x, (7, 4)), "bilinear": lambda x: nd.resize(x, (7, 4), mode="bilinear"),
    "bicubic": lambda x: nd.resize(x, scale=2, mode="bicubic"), "upsampling": lambda x: nd.upsampling(x, scale=2),
    "upsampling bilinear": lambda x: nd.upsampling(x, scale=2, sample_type="bilinear"),
    "grid sample": lambda x: nd.grid_sample(x, nd.broadcast_to(GRID, (x.shape[0], 3, 4, 2)), padding_mode="reflection"),
    "transformer": lambda x: nd.spatial_transformer(x, nd.broadcast_to(nd.reshape(THETA, (1, 6)), (x.shape[0], 6)), (4, 4)),
    "ctc": lambda x: nd.ctc_loss(nd.reshape(nd.transpose(x, (2, 0, 1, 3)), (5, x.shape[0], 24)),
                                 nd.broadcast_to(LABELS, (x.shape[0], 3))),
    "sequence_last": lambda x: nd.sequence_last(nd.swapaxes(x, 0, 1)[:, :1], nd.array([3]), axis=0),
    "sequence_reverse": lambda x: nd.sequence_reverse(nd.swapaxes(x, 0, 1), axis=0),
    "depth_to_space": lambda x: nd.depth_to_space(x, 2), "pixel_shuffle": lambda x: nd.pixel_shuffle(x, (1, 2)),
    "gather_nd": lambda x: nd.gather_nd(x, nd.array([[0, 1, 0], [3, 2, 1]])),
    "index_add": lambda x: nd.index_add(x, nd.array([[0, 1, 0], [3, 2, 3]]), nd.mean(x)),
    "scatter_nd": lambda x: nd.scatter_nd(x[0, :2], nd.array([[1, 0]]), (3, 5, 6)), "make_loss": lambda x: nd.make_loss(x, 2.0),
    "batch_take": lambda x: nd.batch_take(x[:, :, 0, 0], nd.argmax(x[:, :, 0, 0], axis=1)),
    "arange_like": lambda x: x * nd.arange_like(x, axis=3),
    "slice_like": lambda x: nd.slice_like(x, nd.zeros((1, 1, 2, 2)), (2, 3)),
    "shape_array": lambda x: x * nd.sum(nd.shape_array(x)) + nd.size_array(x), "smooth_l1": nd.smooth_l1,
    "box_iou": lambda x: nd.box_iou(x[:, :, 0, :4], x[:1, :1, 1, :4]),
    "roi": lambda x: nd.roi_align(x, nd.array([[1, 0, 0, 3, 4]]), 2, 1, 2),
    "correlation": lambda x: nd.correlation(x, x * x), "khatri_rao": lambda x: nd.khatri_rao(x[:, 0, 0], x[0, 1]),
    "boxes": lambda x: nd.box_decode(x[:, :, 0, :4], x[:1, :, 1, :4], clip=2.0),
    "dropout": lambda x: nd.dropout(x, 0.5, axes=(1,), mode="always"),
    "noise": lambda x: x * nd.random.laplace(0, nd.mean(x * x), shape=x.shape) + nd.random.weibull(2.0, x.shape),
}


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
@pytest.mark.parametrize("backend", ["interpreter", "native"])
def test_traced(name: str, backend: str) -> None:
    function = FUNCTIONS[name]
    options = {"backend": "interpreter"} if backend == "interpreter" else {}
    sizes = (3, 4, 2) if backend == "interpreter" else (3,)
    hybrid, recorded = CompiledFunction(function, **options), CompiledFunction(function, **options)
    for size in sizes:
        data = rng.standard_normal((size, 4, 5, 6)).astype(np.float32)
        x, y = nd.array(data), nd.array(data)
        if backend == "interpreter":
            nd.random.seed(2)
            found = hybrid(x)
            nd.random.seed(2)
            assert_close(found, function(y), 10, name)
        x.attach_grad()
        y.attach_grad()
        nd.random.seed(2)
        with autograd.record():
            out = recorded(x)
        nd.random.seed(2)
        with autograd.record():
            want = function(y)
        assert_close(out, want, 10, name)
        weights = nd.array(rng.standard_normal(want.shape), dtype="float32")
        out.backward(weights)
        want.backward(weights)
        assert_close(x.grad, y.grad, 40, f"gradient of {name}")
    assert hybrid.traces <= 2
    assert recorded.traces <= 2
