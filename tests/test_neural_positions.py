"""Reading and writing at positions, sequences, rearrangement, boxes and regions: against plain loops, with gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import ndarray as nd
from hybrid import CompiledFunction
from ndarray import autograd
from ndarray.testing import assert_close, check_gradients

rng = np.random.default_rng(5)
X = rng.standard_normal((2, 4, 5, 6))
M = rng.standard_normal((3, 5))


def n(x: np.ndarray) -> nd.NDArray:
    return nd.array(x, dtype=x.dtype)


def test_pick_modes_and_batch_take() -> None:
    index = np.array([7, -1, -9])
    assert_close(nd.pick(n(M), nd.array(index)), [M[0, 4], M[1, 4], M[2, 0]])
    assert_close(nd.pick(n(M), nd.array(index), mode="wrap"), M[np.arange(3), index % 5])
    assert_close(nd.batch_take(n(M), nd.array([0, 4, 2])), M[np.arange(3), [0, 4, 2]])
    with pytest.raises(ValueError, match="pick: mode"):
        nd.pick(n(M), nd.array(index), mode="raise")
    with pytest.raises(ValueError, match="batch_take: x: expected 2 axes"):
        nd.batch_take(n(X), nd.array([0]))


@pytest.mark.parametrize("axis", [0, 1, -1, None])
@pytest.mark.parametrize("ascend", [False, True])
def test_topk(axis: int | None, ascend: bool) -> None:
    x = np.round(M * 2)  # with ties
    flat = x.ravel() if axis is None else x
    order = np.argsort(flat if ascend else -flat, axis=axis or 0 if axis is None else axis, kind="stable")
    order = np.take(order, range(2), axis=0 if axis is None else axis)
    values = np.take_along_axis(flat, order, 0 if axis is None else axis)
    options = {"k": 2, "axis": axis, "is_ascend": ascend}
    assert_close(nd.topk(n(x), **options), order)
    assert_close(nd.topk(n(x), ret_typ="value", **options), values)
    both = nd.topk(n(x), ret_typ="both", dtype="float32", **options)
    assert_close(both[0], values)
    assert_close(both[1], order.astype(np.float32))
    mask = np.zeros_like(flat)
    np.put_along_axis(mask, order, 1.0, 0 if axis is None else axis)
    assert_close(nd.topk(n(x), ret_typ="mask", **options), mask.reshape(x.shape))
    with pytest.raises(ValueError, match="topk: k: expected 1 to"):
        nd.topk(n(x), k=99, axis=axis)
    with pytest.raises(ValueError, match="topk: ret_typ: expected"):
        nd.topk(n(x), ret_typ="values")


def test_gather_nd_and_scatter_nd() -> None:
    index = np.array([[0, 1, 1, -1], [3, 0, 0, 9]])
    inside = np.array([[0, 1, 1, 1], [3, 0, 0, 3]])
    assert_close(nd.gather_nd(n(X), nd.array(index)), X[inside[0], inside[1]])
    assert_close(nd.gather_nd(n(M), nd.array([[2, 0]])), M[[2, 0]])
    assert_close(nd.gather_nd(n(M), nd.array([2.0, 1.0])), M[2, 1])
    updates = rng.standard_normal((4, 5, 6))
    want = np.zeros(X.shape)
    np.add.at(want, (inside[0], inside[1]), updates)
    assert_close(nd.scatter_nd(n(updates), nd.array(index), X.shape), want)
    check_gradients(lambda x: nd.gather_nd(x, nd.array(index)), [X])
    check_gradients(lambda x: nd.scatter_nd(x, nd.array(index), X.shape), [updates])
    with pytest.raises(ValueError, match="gather_nd: indices: expected 1 to 2 rows"):
        nd.gather_nd(n(M), nd.array([[0], [0], [0]]))
    with pytest.raises(ValueError, match="scatter_nd: data: expected shape"):
        nd.scatter_nd(n(updates[:2]), nd.array(index), X.shape)


def test_index_add_update_copy() -> None:
    index = np.array([[0, 2, 0, 2], [1, 3, 1, 0]])
    values = rng.standard_normal(4)
    want = M.copy()
    np.add.at(want, tuple(index), values)
    assert_close(nd.index_add(n(M), nd.array(index), n(values)), want)
    want = M.copy()
    for (i, j), v in zip(index.T, values):
        want[i, j] = v
    found = nd.index_update(n(M), nd.array(index), n(values))
    assert_close(found, want)
    rows = rng.standard_normal((3, 5))
    want = M.copy()
    for i, row in zip((2, 0, 2), rows):
        want[i] = row
    assert_close(nd.index_copy(n(M), nd.array([2, 0, 2]), n(rows)), want)
    assert_close(nd.index_update(n(M), nd.array([[1]]), 7.0)[1], np.full(5, 7.0))
    mask = nd.index_update(nd.array([True, True]), nd.array([[0]]), False)
    assert mask.tolist() == [False, True]
    nan = nd.index_update(nd.array([np.nan, 1.0]), nd.array([[0]]), 2.0)
    assert nan.tolist() == [2.0, 1.0]
    check_gradients(lambda x, v: nd.index_add(x, nd.array(index), v), [M, values])
    check_gradients(lambda x, v: nd.index_update(x, nd.array(index), v), [M, values])
    check_gradients(lambda x, v: nd.index_copy(x, nd.array([2, 0, 2]), v), [M, rows])
    with pytest.raises(ValueError, match="index_copy: new: expected shape"):
        nd.index_copy(n(M), nd.array([2, 0]), n(rows))


def test_boolean_mask() -> None:
    mask = np.array([1, 0, 1, 0, 1])
    assert_close(nd.boolean_mask(n(M), nd.array(mask), axis=1), M[:, mask == 1])
    check_gradients(lambda x: nd.boolean_mask(x, nd.array([True, False, True])), [M])
    with pytest.raises(ValueError, match="boolean_mask: mask: expected shape"):
        nd.boolean_mask(n(M), nd.array(mask))
    with pytest.raises(TypeError, match=r"boolean_mask: .* unknown in a trace; .*nd\.where"):
        CompiledFunction(lambda x: nd.boolean_mask(x, x[:, 0] > 0), backend="interpreter")(n(M))


@pytest.mark.parametrize("axis", [0, 1])
def test_sequences(axis: int) -> None:
    x = rng.standard_normal((4, 3, 2))
    lengths = np.array([1, 4, 2])
    swap = (lambda v: v) if axis == 0 else (lambda v: v.swapaxes(0, 1))
    found = nd.sequence_last(n(swap(x)), nd.array(lengths), axis=axis)
    assert_close(found, x[lengths - 1, np.arange(3)])
    assert_close(nd.sequence_last(n(swap(x)), axis=axis), x[-1])
    want = x.copy()
    for b, k in enumerate(lengths):
        want[:k, b] = x[:k, b][::-1]
    assert_close(nd.sequence_reverse(n(swap(x)), nd.array(lengths), axis=axis), swap(want))
    assert_close(nd.sequence_reverse(n(swap(x)), axis=axis), swap(x[::-1]))
    check_gradients(lambda v: nd.sequence_last(v, nd.array(lengths), axis=axis), [swap(x)])
    check_gradients(lambda v: nd.sequence_reverse(v, nd.array(lengths), axis=axis), [swap(x)])
    with pytest.raises(ValueError, match="sequence_last: sequence_length: expected shape"):
        nd.sequence_last(n(swap(x)), nd.array([1, 2]), axis=axis)


def test_sizes_of_other_arrays() -> None:
    assert nd.arange_like(n(M), start=1, step=2, axis=0).tolist() == [1.0, 3.0, 5.0]
    assert nd.arange_like(n(M), repeat=3, axis=1).tolist() == [0.0, 0.0, 0.0, 1.0, 1.0]
    assert nd.arange_like(n(M)).shape == (3, 5)
    assert_close(nd.slice_like(n(M), nd.zeros((2, 2))), M[:2, :2])
    assert_close(nd.slice_like(n(M), nd.zeros((2, 2)), axes=(1,)), M[:, :2])
    assert nd.broadcast_like(nd.ones((1, 3)), nd.zeros((5, 2, 3))).shape == (5, 2, 3)
    assert nd.reshape_like(nd.ones(6), nd.zeros((2, 3))).shape == (2, 3)
    with pytest.raises(ValueError, match="slice_like: axis 0"):
        nd.slice_like(n(M), nd.zeros((4, 2)))
    with pytest.raises(ValueError, match="broadcast_like: expected as many"):
        nd.broadcast_like(n(M), n(M), (0, 1), (0,))


def test_depth_space_and_shuffles() -> None:
    x = rng.standard_normal((2, 12, 2, 3))
    out = nd.depth_to_space(n(x), 2).asnumpy()
    for k, c, h, w in np.ndindex(2, 3, 4, 6):
        assert out[k, c, h, w] == x[k, (h % 2 * 2 + w % 2) * 3 + c, h // 2, w // 2]
    assert_close(nd.space_to_depth(n(out), 2), x)
    shuffled = nd.pixel_shuffle(n(x), (2, 3)).asnumpy()
    for k, c, h, w in np.ndindex(2, 2, 4, 9):
        assert shuffled[k, c, h, w] == x[k, c * 6 + h % 2 * 3 + w % 3, h // 2, w // 3]
    check_gradients(lambda v: nd.pixel_shuffle(v, (2, 3)), [x])
    with pytest.raises(ValueError, match="depth_to_space: x: expected channels divisible by 25"):
        nd.depth_to_space(n(x), 5)


def test_khatri_rao_and_losses() -> None:
    a, b, c = (rng.standard_normal((k, 4)) for k in (2, 3, 2))
    want = np.stack([np.kron(np.kron(a[:, k], b[:, k]), c[:, k]) for k in range(4)], 1)
    assert_close(nd.khatri_rao(n(a), n(b), n(c)), want)
    x = n(M)
    x.attach_grad()
    with autograd.record():
        y = nd.make_loss(x, grad_scale=3.0) + nd.BlockGrad(x)
    y.backward()
    assert_close(y, 2 * M)
    assert_close(x.grad, np.full(M.shape, 3.0))


def test_boxes() -> None:
    boxes = rng.uniform(0, 1, (5, 4))
    boxes[:, 2:] += boxes[:, :2]
    others = boxes[::-1] + 0.1

    def share(a: np.ndarray, b: np.ndarray) -> float:
        w, h = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
        both = max(w, 0) * max(h, 0)
        return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)

    want = np.array([[share(a, b) for b in others] for a in boxes])
    assert_close(nd.box_iou(n(boxes), n(others)), want)
    center = lambda v: np.concatenate([(v[:, :2] + v[:, 2:]) / 2, v[:, 2:] - v[:, :2]], 1)
    assert_close(nd.box_iou(n(center(boxes)), n(center(others)), format="center"), want)
    assert nd.box_iou(nd.zeros((2, 3, 4)), nd.zeros((5, 4))).shape == (2, 3, 5)
    check_gradients(lambda a, b: nd.box_iou(a, b), [boxes, others], limit=1e-4)
    refs, anchors = n(boxes[None, :3]), n(others[None])
    matches = nd.array([[0, 1, 2, 0, 1]])
    targets, masks = nd.box_encode(nd.array([[1.0, 1.0, -1.0, 1.0, 0.0]]), matches, anchors, refs)
    assert masks.asnumpy()[0, :, 0].tolist() == [1, 1, 0, 1, 0]
    back = nd.box_decode(targets, anchors, 0.1, 0.1, 0.2, 0.2, format="corner").asnumpy()
    for k, m in enumerate((0, 1, None, 0, None)):
        assert_close(back[0, k], others[k] if m is None else boxes[m], 10)
    limited = nd.box_decode(nd.full((1, 1, 4), 9.0), nd.array([[[0.0, 0.0, 1.0, 1.0]]]), clip=0.5).asnumpy()[0, 0]
    assert_close(limited[2:] - limited[:2], np.full(2, np.exp(0.5), np.float32))


def test_box_nms() -> None:
    rows = np.array([[0, 0.5, 0.1, 0.1, 0.2, 0.2], [1, 0.4, 0.1, 0.1, 0.2, 0.2], [0, 0.3, 0.1, 0.1, 0.14, 0.14],
                     [2, 0.6, 0.5, 0.5, 0.7, 0.8]])
    gone = [-1.0] * 6
    found = nd.box_nms(n(rows), overlap_thresh=0.1, id_index=0, force_suppress=True)
    assert_close(found, np.array([rows[3], rows[0], gone, gone]))
    found = nd.box_nms(n(rows[None]), overlap_thresh=0.1, id_index=0)
    assert_close(found[0], np.array([rows[3], rows[0], rows[1], gone]))
    found = nd.box_nms(n(rows), overlap_thresh=0.1, topk=1, out_format="center")
    assert_close(found[0], np.array([2, 0.6, 0.6, 0.65, 0.2, 0.3]))
    x = n(rows)
    x.attach_grad()
    with autograd.record():
        nd.box_nms(x, overlap_thresh=0.1, id_index=0, force_suppress=True).backward()
    assert_close(x.grad, np.array([[1.0], [0], [0], [1]]) * np.ones(6))
    with pytest.raises(ValueError, match="box_nms: x: expected"):
        nd.box_nms(n(rows), coord_start=3)


def test_anchors() -> None:
    boxes = nd.multibox_prior(nd.zeros((1, 3, 2, 4)), sizes=(0.5, 0.25), ratios=(1, 2)).asnumpy().reshape(2, 4, 3, 4)
    middle, size = (boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]
    assert_close(middle[1, 2, 0], np.array([2.5 / 4, 1.5 / 2], np.float32))
    want = np.array([[0.5 / 2, 0.5], [0.25 / 2, 0.25], [0.5 / 2 * np.sqrt(2), 0.5 / np.sqrt(2)]], np.float32)
    assert_close(size[0, 3], want)
    assert nd.multibox_prior(nd.zeros((1, 1, 1, 1)), sizes=2.0, clip=True).tolist() == [[[0, 0, 1, 1]]]


def test_multibox_detection() -> None:
    anchors = np.array([[[0.1, 0.1, 0.2, 0.2], [0.11, 0.1, 0.21, 0.2], [0.5, 0.5, 0.9, 1.0], [0.0, 0.0, 0.1, 0.1]]])
    scores = np.array([[[0.1, 0.2, 0.1, 0.999], [0.7, 0.8, 0.2, 0.0005], [0.2, 0.0, 0.7, 0.0005]]])
    moves = np.zeros((1, 16))
    moves[0, 8] = 5.0  # half a width to the right, and over the edge
    found = nd.multibox_detection(n(scores), n(moves), n(anchors))
    gone = [-1.0] * 6
    assert_close(found[0], np.array([[0, 0.8, 0.11, 0.1, 0.21, 0.2], [1, 0.7, 0.7, 0.5, 1.0, 1.0], gone, gone]))
    assert_close(nd.multibox_detection(n(scores), n(moves), n(anchors), clip=False)[0, 1, 4], 1.1)
    assert nd.multibox_detection(n(scores), n(moves), n(anchors), nms_threshold=0.95).asnumpy()[0, :, 0].tolist() == [0, 0, 1, -1]
    with pytest.raises(ValueError, match="multibox_detection: expected cls_prob"):
        nd.multibox_detection(n(scores), n(moves[:, :8]), n(anchors))


ROIS = np.array([[0, 0, 0, 3, 4], [1, 1.2, 0.7, 4.6, 3.1], [1, 2, 2, 2, 2], [0, 3, 1, 9, 9]], np.float64)


def test_roi_pooling() -> None:
    out = nd.roi_pooling(n(X), n(ROIS), (2, 3)).asnumpy()
    for r, (image, left, top, right, bottom) in enumerate(np.round(ROIS).astype(int)):
        h, w = max(bottom - top + 1, 1), max(right - left + 1, 1)
        for i, j in np.ndindex(2, 3):
            rows = slice(max(top + i * h // 2, 0), top - (-(i + 1) * h // 2))
            columns = slice(max(left + j * w // 3, 0), left - (-(j + 1) * w // 3))
            window = X[image, :, rows, columns]
            assert_close(out[r, :, i, j], window.max((1, 2)) if window.size else np.zeros(4))
    check_gradients(lambda x: nd.roi_pooling(x, n(ROIS), (2, 3)), [X])


def align(x: np.ndarray, roi: np.ndarray, size: tuple, scale: float, ratio: int, shift: float) -> np.ndarray:
    out = np.zeros((x.shape[1], *size))
    _, height, width = x.shape[1:]
    left, top, right, bottom = roi[1:] * scale - shift
    h, w = bottom - top, right - left
    if not shift:
        h, w = max(h, 1.0), max(w, 1.0)
    grid = [ratio if ratio > 0 else max(int(np.ceil(v / s)), 1) for v, s in zip((h, w), size)]
    for c, i, j in np.ndindex(out.shape):
        values = []
        for u, v in np.ndindex(*grid):
            y, z = top + h / size[0] * (i + (u + 0.5) / grid[0]), left + w / size[1] * (j + (v + 0.5) / grid[1])
            if not (-1 <= y <= height and -1 <= z <= width):
                values.append(0.0)
                continue
            y, z = min(max(y, 0), height - 1), min(max(z, 0), width - 1)
            y0, x0 = min(int(y), height - 2), min(int(z), width - 2)
            image = x[int(roi[0]), c]
            a, b = y - y0, z - x0
            values.append((1 - a) * ((1 - b) * image[y0, x0] + b * image[y0, x0 + 1])
                          + a * ((1 - b) * image[y0 + 1, x0] + b * image[y0 + 1, x0 + 1]))
        out[c, i, j] = np.mean(values)
    return out


@pytest.mark.parametrize("ratio", [2, -1])
@pytest.mark.parametrize("aligned", [False, True])
def test_roi_align(ratio: int, aligned: bool) -> None:
    options: dict[str, Any] = {"pooled_size": (2, 3), "spatial_scale": 0.8, "sample_ratio": ratio, "aligned": aligned}
    found = nd.roi_align(n(X), n(ROIS), **options)
    want = np.stack([align(X, r, (2, 3), 0.8, ratio, 0.5 if aligned else 0.0) for r in ROIS])
    assert_close(found, want, 10)
    check_gradients(lambda x: nd.roi_align(x, n(ROIS), **options), [X])
    wide = rng.standard_normal((2, 12, 5, 6))
    options["position_sensitive"] = True
    found = nd.roi_align(n(wide), n(ROIS), **options).asnumpy()
    plain = nd.roi_align(n(wide), n(ROIS), **{**options, "position_sensitive": False}).asnumpy()
    for c, i, j in np.ndindex(2, 2, 3):
        assert_close(found[:, c, i, j], plain[:, c * 6 + i * 3 + j, i, j])


def test_roi_align_in_a_trace() -> None:
    with pytest.raises(TypeError, match="roi_align: sample_ratio: expected a positive number in a trace"):
        CompiledFunction(lambda x, r: nd.roi_align(x, r, (2, 2)), backend="interpreter")(n(X), n(ROIS))
    traced = CompiledFunction(lambda x, r: nd.roi_align(x, r, (2, 2), sample_ratio=2), backend="interpreter")
    assert_close(traced(n(X), n(ROIS)), nd.roi_align(n(X), n(ROIS), (2, 2), sample_ratio=2))


@pytest.mark.parametrize("options", [
    {}, {"kernel_size": 3, "max_displacement": 2, "stride1": 2, "stride2": 2, "pad_size": 3},
    {"pad_size": 1, "is_multiply": False},
])
def test_correlation(options: dict) -> None:
    a, b = X, rng.standard_normal(X.shape)
    k, far, s1, s2, pad, multiply = ({"kernel_size": 1, "max_displacement": 1, "stride1": 1, "stride2": 1, "pad_size": 0,
                                      "is_multiply": True} | options).values()
    p, q = (np.pad(v, ((0, 0), (0, 0), (pad, pad), (pad, pad))) for v in (a, b))
    edge, side = far + k // 2, range(-(far // s2), far // s2 + 1)
    shape = tuple(-(-(m - 2 * edge) // s1) for m in p.shape[2:])
    want = np.zeros((2, len(side) ** 2, *shape))
    for at in np.ndindex(want.shape):
        dy, dx = side[at[1] // len(side)] * s2, side[at[1] % len(side)] * s2
        y, x = at[2] * s1 + far, at[3] * s1 + far
        one, two = p[at[0], :, y : y + k, x : x + k], q[at[0], :, y + dy : y + dy + k, x + dx : x + dx + k]
        want[at] = (one * two if multiply else np.abs(one - two)).sum() / (k * k * 4)
    assert_close(nd.correlation(n(a), n(b), **options), want)
    check_gradients(lambda a, b: nd.correlation(a, b, **options), [a, b], step=1e-7, limit=1e-4)
