"""Boxes and regions of images: overlaps, non-maximum suppression, encodings, anchors, ROI pooling and align, correlation."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .array import NDArray, wrap
from .creation import full_like
from .elementwise import (
    abs,
    add,
    cast,
    divide,
    exp,
    greater,
    greater_equal,
    less_equal,
    log,
    logical_and,
    maximum,
    minimum,
    multiply,
    stop_gradient,
    subtract,
    where,
)
from .manipulation import concatenate, diagonal, expand_dims, reshape, stack, take_along_axis, transpose
from .operands import as_floating, common, convert, integers, is_number, primitive
from .ops.base import differ
from .reduction import argmax, max, mean, sum
from .spatial import sample_bilinear

__all__ = [
    "box_decode", "box_encode", "box_iou", "box_nms", "correlation", "multibox_detection", "multibox_prior", "roi_align",
    "roi_pooling",
]


def _boxes(name: str, x: Any, argument: str, ndim: int | None = None) -> NDArray:
    x = as_floating(name, x, argument)
    if x.ndim < 1 or x.shape[-1] != 4 or (ndim is not None and x.ndim != ndim):
        axes = "(..., 4)" if ndim is None else f"of {ndim} axes, the last of size 4"
        raise ValueError(f"{name}: {argument}: expected shape {axes}, got {x.shape}")
    return x


def _is_center(name: str, argument: str, form: str) -> bool:
    if form not in ("corner", "center"):
        raise ValueError(f"{name}: {argument}: expected 'corner' or 'center', got {form!r}")
    return form == "center"


def _to_corner(x: NDArray) -> NDArray:
    half = multiply(x[..., 2:], 0.5)
    return concatenate([subtract(x[..., :2], half), add(x[..., :2], half)], -1)


def _to_center(x: NDArray) -> NDArray:
    return concatenate([multiply(add(x[..., :2], x[..., 2:]), 0.5), subtract(x[..., 2:], x[..., :2])], -1)


def box_iou(lhs: Any, rhs: Any, /, format: str = "corner") -> NDArray:
    """The intersection of each box with each other box over their union; 0 where both are empty.

    lhs: (..., 4); rhs: (..., 4); result: ``lhs.shape[:-1] + rhs.shape[:-1]``. Boxes are (left, top, right, bottom) in the
    format "corner", (x, y, width, height) with the middle's x and y in "center".

    >>> import ndarray as nd
    >>> nd.box_iou(nd.array([0.0, 0.0, 2.0, 2.0]), nd.array([[1.0, 0.0, 3.0, 2.0]])).tolist()
    [0.3333333432674408]
    """
    lhs, rhs = common("box_iou", _boxes("box_iou", lhs, "lhs"), _boxes("box_iou", rhs, "rhs"), arguments=("lhs", "rhs"))
    if _is_center("box_iou", "format", format):
        lhs, rhs = _to_corner(lhs), _to_corner(rhs)
    area = lambda v: multiply(maximum(subtract(v[..., 2], v[..., 0]), 0), maximum(subtract(v[..., 3], v[..., 1]), 0))
    left = reshape(lhs, (*lhs.shape[:-1], *(1,) * (rhs.ndim - 1), 4))
    sides = maximum(subtract(minimum(left[..., 2:], rhs[..., 2:]), maximum(left[..., :2], rhs[..., :2])), 0)
    common_area = multiply(sides[..., 0], sides[..., 1])
    union = subtract(add(area(left), area(rhs)), common_area)
    some = greater(union, 0)
    return where(some, divide(common_area, where(some, union, 1)), 0)


def box_nms(
    x: Any, /, overlap_thresh: float = 0.5, valid_thresh: float = 0.0, topk: int = -1, coord_start: int = 2,
    score_index: int = 1, id_index: int = -1, background_id: int = -1, force_suppress: bool = False,
    in_format: str = "corner", out_format: str = "corner",
) -> NDArray:
    """Non-maximum suppression: from the best score on, boxes that overlap a better one that stays are dropped.

    x               (..., boxes, columns); the columns of a box hold its score, its 4 coordinates from `coord_start` on, its
                    class if `id_index` is not -1, and anything else
    overlap_thresh  more intersection over union than this suppresses; only within one class unless `force_suppress`
    valid_thresh    boxes whose score is not greater do not count, nor do those of class `background_id`
    topk            only the best so many boxes count; -1: all

    Result: of x's shape, the boxes that stay in order of their scores, then rows of -1. Gradients flow to the boxes that stay.

    >>> import ndarray as nd
    >>> x = nd.array([[0.5, 0.0, 0.0, 2.0, 2.0], [0.9, 0.0, 0.0, 2.0, 1.9]])
    >>> [row[0] for row in nd.box_nms(x, coord_start=1, score_index=0).tolist()]
    [0.8999999761581421, -1.0]
    """
    name = "box_nms"
    x = as_floating(name, x)
    center, center_out = _is_center(name, "in_format", in_format), _is_center(name, "out_format", out_format)
    columns = x.shape[-1] if x.ndim >= 2 else 0
    if x.ndim < 2 or not 0 <= coord_start <= columns - 4 or not 0 <= score_index < columns or id_index >= columns:
        raise ValueError(
            f"{name}: x: expected (..., boxes, columns) with columns score_index={score_index}, coord_start={coord_start} and 3 "
            f"more, id_index={id_index}, got shape {x.shape}"
        )
    rows: Any = 1
    for n in x.shape[:-2]:
        rows = rows * n
    flat = reshape(x, (rows, *x.shape[-2:]))
    order = primitive(
        "box_survivors", stop_gradient(flat), overlap=float(overlap_thresh), valid=float(valid_thresh), topk=int(topk),
        coordinates=int(coord_start), score=int(score_index), identity=int(id_index), background=int(background_id),
        force=bool(force_suppress), center=center,
    )
    if center != center_out:
        box = flat[..., coord_start : coord_start + 4]
        box = _to_corner(box) if center else _to_center(box)
        flat = concatenate([flat[..., :coord_start], box, flat[..., coord_start + 4 :]], -1)
    kept = take_along_axis(flat, expand_dims(maximum(order, 0), -1), 1)
    return reshape(where(expand_dims(greater_equal(order, 0), -1), kept, -1), x.shape)


def box_encode(
    samples: Any, matches: Any, anchors: Any, refs: Any, /, means: Any = (0.0, 0.0, 0.0, 0.0), stds: Any = (0.1, 0.1, 0.2, 0.2)
) -> tuple[NDArray, NDArray]:
    """(targets, masks), both (B, N, 4): how the matched reference boxes differ from the anchors, for positive samples.

    samples: (B, N), positive where > 0.5; matches: (B, N), numbers of boxes; anchors: (B, N, 4); refs: (B, M, 4), both in
    corner format. A target is ((x, y) - (ax, ay)) / (aw, ah) and log((w, h) / (aw, ah)), less `means`, over `stds`; 0 where
    the mask is 0.

    >>> import ndarray as nd
    >>> box = nd.array([[[0.0, 0.0, 2.0, 2.0]]])
    >>> targets, masks = nd.box_encode(nd.ones((1, 1)), nd.zeros((1, 1)), box, box)
    >>> targets.tolist(), masks.tolist()
    ([[[0.0, 0.0, 0.0, 0.0]]], [[[1.0, 1.0, 1.0, 1.0]]])
    """
    name = "box_encode"
    anchors, refs = _boxes(name, anchors, "anchors", 3), _boxes(name, refs, "refs", 3)
    anchors, refs = common(name, anchors, refs, arguments=("anchors", "refs"))
    samples = as_floating(name, samples, "samples")
    matches = integers(name, as_floating(name, matches, "matches") if not isinstance(matches, NDArray) else matches, "matches")
    if samples.ndim != 2 or matches.ndim != 2:
        raise ValueError(f"{name}: samples and matches: expected shape (B, N), got {samples.shape} and {matches.shape}")
    chosen = _to_center(take_along_axis(refs, expand_dims(matches, -1), 1))
    anchor = _to_center(anchors)
    mean_, std = (_constant(v, anchors) for v in (means, stds))
    place = divide(subtract(chosen[..., :2], anchor[..., :2]), anchor[..., 2:])
    size = log(divide(chosen[..., 2:], anchor[..., 2:]))
    targets = divide(subtract(concatenate([place, size], -1), mean_), std)
    positive = expand_dims(greater(samples, 0.5), -1)
    masks = where(positive, full_like(targets, 1), 0)
    return where(positive, targets, 0), masks


def _constant(values: Any, like: NDArray) -> NDArray:
    if isinstance(values, NDArray):
        return convert(values, like.dtype)
    return wrap(like._device.module.asarray(np.asarray(values, like.dtype)), like._device)


def box_decode(
    x: Any, anchors: Any, /, std0: float = 1.0, std1: float = 1.0, std2: float = 1.0, std3: float = 1.0, clip: float = -1.0,
    format: str = "center",
) -> NDArray:
    """The boxes (corner format) that differ from the anchors by x: the inverse of `box_encode` with means 0.

    x: (B, N, 4); anchors: (1, N, 4) in `format`; `clip`, if positive, limits the logarithms of the sizes.

    >>> import ndarray as nd
    >>> nd.box_decode(nd.zeros((1, 1, 4)), nd.array([[[1.0, 1.0, 2.0, 2.0]]])).tolist()
    [[[0.0, 0.0, 2.0, 2.0]]]
    """
    name = "box_decode"
    x, anchors = common(name, _boxes(name, x, "x", 3), _boxes(name, anchors, "anchors", 3), arguments=("x", "anchors"))
    if not _is_center(name, "format", format):
        anchors = _to_center(anchors)
    moved = multiply(x, _constant((std0, std1, std2, std3), x))
    place = add(multiply(moved[..., :2], anchors[..., 2:]), anchors[..., :2])
    grown = minimum(moved[..., 2:], clip) if clip > 0 else moved[..., 2:]
    half = multiply(multiply(exp(grown), anchors[..., 2:]), 0.5)
    return concatenate([subtract(place, half), add(place, half)], -1)


def multibox_prior(
    x: Any, /, sizes: Any = (1.0,), ratios: Any = (1.0,), clip: bool = False, steps: Any = (-1.0, -1.0), offsets: Any = (0.5, 0.5)
) -> NDArray:
    """Anchor boxes around each pixel of a feature map, in parts of the image (Liu et al., 2016).

    x: (N, C, H, W), of which only the sizes count; result: (1, H * W * (S + R - 1), 4) in corner format: for each pixel all
    `sizes` with the first ratio, then the first size with the other `ratios` (width to height). `steps` and `offsets` are (y, x);
    steps of -1 divide the image evenly. `clip` limits boxes to the image.

    >>> import ndarray as nd
    >>> nd.multibox_prior(nd.zeros((1, 1, 1, 1)), sizes=(0.5,)).tolist()
    [[[0.25, 0.25, 0.75, 0.75]]]
    """
    x = as_floating("multibox_prior", x)
    if x.ndim != 4:
        raise ValueError(f"multibox_prior: x: expected (N, C, H, W), got shape {x.shape}")
    sizes, ratios = ((v,) if is_number(v) else tuple(v) for v in (sizes, ratios))
    if not sizes or not ratios:
        raise ValueError(f"multibox_prior: expected at least one size and one ratio, got {sizes} and {ratios}")
    height, width = int(x.shape[2]), int(x.shape[3])
    step_y, step_x = (s if s > 0 else 1 / n for s, n in zip(steps, (height, width)))
    ys, xs = (np.arange(height) + offsets[0]) * step_y, (np.arange(width) + offsets[1]) * step_x
    shapes = [(s, ratios[0]) for s in sizes] + [(sizes[0], r) for r in ratios[1:]]
    half = np.array([(s * height / width * math.sqrt(r) / 2, s / math.sqrt(r) / 2) for s, r in shapes])
    middle = np.stack(np.broadcast_arrays(xs[None, :, None], ys[:, None, None]), -1)  # (H, W, 1, 2)
    boxes = np.concatenate([middle - half, middle + half], -1).reshape(1, -1, 4)
    if clip:
        boxes = np.clip(boxes, 0, 1)
    return _constant(boxes, x)


def multibox_detection(
    cls_prob: Any, loc_pred: Any, anchors: Any, /, clip: bool = True, threshold: float = 0.01, background_id: int = 0,
    nms_threshold: float = 0.5, force_suppress: bool = False, variances: Any = (0.1, 0.1, 0.2, 0.2), nms_topk: int = -1,
) -> NDArray:
    """The boxes found: the anchors' best classes, decoded boxes, and `box_nms` of these (Liu et al., 2016).

    cls_prob: (B, classes, N), of which class 0 is the background; loc_pred: (B, N * 4), differences to the anchors as those of
    `box_encode`; anchors: (1, N, 4) in corner format. Result: (B, N, 6) with rows (class, from 0 without the background; score;
    left, top, right, bottom), best first, then rows of -1. Anchors whose score is below `threshold` do not count; `clip` limits
    boxes to [0, 1].

    >>> import ndarray as nd
    >>> found = nd.multibox_detection(nd.array([[[0.25], [0.75]]]), nd.zeros((1, 4)), nd.array([[[0.0, 0.0, 0.5, 0.5]]]))
    >>> found.tolist()
    [[[0.0, 0.75, 0.0, 0.0, 0.5, 0.5]]]
    """
    name = "multibox_detection"
    cls_prob, loc_pred = as_floating(name, cls_prob, "cls_prob"), as_floating(name, loc_pred, "loc_pred")
    if cls_prob.ndim != 3 or cls_prob.shape[1] < 2 or loc_pred.ndim != 2 or differ(loc_pred.shape[1], cls_prob.shape[2] * 4):
        raise ValueError(
            f"{name}: expected cls_prob (B, classes, N) and loc_pred (B, N * 4), got shapes {cls_prob.shape} and {loc_pred.shape}"
        )
    if background_id != 0:
        raise ValueError(f"{name}: background_id: expected 0, got {background_id}")
    std0, std1, std2, std3 = variances
    boxes = box_decode(reshape(loc_pred, (loc_pred.shape[0], -1, 4)), anchors, std0, std1, std2, std3, format="corner")
    if clip:
        boxes = minimum(maximum(boxes, 0), 1)
    foreground = cls_prob[:, 1:]
    score = max(foreground, 1)
    kind = convert(argmax(foreground, axis=1), boxes.dtype)
    score = convert(where(greater_equal(score, threshold), score, -1), boxes.dtype)
    rows = concatenate([expand_dims(kind, 2), expand_dims(score, 2), boxes], 2)
    return box_nms(rows, nms_threshold, -0.5, nms_topk, 2, 1, 0, force_suppress=force_suppress)


# -- regions of interest

def _regions(name: str, x: Any, rois: Any, pooled_size: Any) -> tuple[NDArray, NDArray, tuple[int, int]]:
    x, rois = common(name, as_floating(name, x), as_floating(name, rois, "rois"), arguments=("x", "rois"))
    if x.ndim != 4 or rois.ndim != 2 or rois.shape[1] != 5:
        raise ValueError(f"{name}: expected x (N, C, H, W) and rois (R, 5), got shapes {x.shape} and {rois.shape}")
    size = (pooled_size,) * 2 if is_number(pooled_size) else tuple(pooled_size)
    if len(size) != 2 or any(n < 1 for n in size):
        raise ValueError(f"{name}: pooled_size: expected two positive sizes, got {pooled_size}")
    return x, stop_gradient(rois), (int(size[0]), int(size[1]))


def roi_pooling(x: Any, rois: Any, /, pooled_size: Any, spatial_scale: float = 1.0) -> NDArray:
    """The maxima of the parts of regions of interest (Girshick, 2015); 0 for an empty part.

    x              (N, C, H, W)
    rois           (R, 5): the image's number, left, top, right, bottom; the corners times `spatial_scale` are rounded, and
                   belong to the region
    pooled_size    (PH, PW): how many parts; part i of a height h covers ``floor(i * h / PH)`` to ``ceil((i + 1) * h / PH)``

    Result: (R, C, PH, PW). Gradients flow to x.

    >>> import ndarray as nd
    >>> x = nd.arange(48, dtype="float32").reshape(1, 1, 8, 6)
    >>> nd.roi_pooling(x, nd.array([[0.0, 0.0, 0.0, 4.0, 4.0]]), (2, 2)).tolist()
    [[[[14.0, 16.0], [26.0, 28.0]]]]
    """
    x, rois, size = _regions("roi_pooling", x, rois, pooled_size)
    n, c, height, width = x.shape
    at = primitive("region_maxima", stop_gradient(x), rois, pooled=size, scale=float(spatial_scale))
    with x._device:
        channel = primitive("iota", shape=(c, 1, 1), axis=0, dtype=np.dtype(np.int64))
    image = minimum(maximum(cast(rois[:, 0], "int64"), 0), n - 1)
    flat = add(multiply(add(multiply(reshape(image, (-1, 1, 1, 1)), c), channel), height * width), maximum(at, 0))
    values = primitive("take", reshape(x, (n * c * height * width,)), flat, axis=0, mode="clip")
    return where(greater_equal(at, 0), values, 0)


def roi_align(
    x: Any, rois: Any, /, pooled_size: Any, spatial_scale: float = 1.0, sample_ratio: int = -1,
    position_sensitive: bool = False, aligned: bool = False,
) -> NDArray:
    """The means of points in the parts of regions of interest, between pixels by bilinear interpolation (He et al., 2017).

    x, rois             as for `roi_pooling`; the corners are not rounded, and moved by half a pixel if `aligned`
    sample_ratio        so many points along each axis of a part; -1: about one a pixel, which depends on the values of rois, so
                        that these must be known: not in a trace
    position_sensitive  each part has channels of its own: C is a multiple of PH * PW

    Result: (R, C, PH, PW) (position sensitive: C / (PH * PW)). Gradients flow to x.

    >>> import ndarray as nd
    >>> x = nd.arange(16, dtype="float32").reshape(1, 1, 4, 4)
    >>> nd.roi_align(x, nd.array([[0.0, 0.0, 0.0, 2.0, 2.0]]), (1, 1), sample_ratio=2).tolist()
    [[[[5.0]]]]
    """
    name = "roi_align"
    x, rois, size = _regions(name, x, rois, pooled_size)
    if position_sensitive and x.shape[1] % (size[0] * size[1]) != 0:
        raise ValueError(f"{name}: x: expected channels divisible by {size[0] * size[1]}, got shape {x.shape}")
    shift = 0.5 if aligned else 0.0
    corners = subtract(multiply(rois[:, 1:], spatial_scale), shift)
    left, top, right, bottom = (corners[:, k] for k in range(4))
    spans = subtract(bottom, top), subtract(right, left)
    if not aligned:
        spans = maximum(spans[0], 1.0), maximum(spans[1], 1.0)
    starts = top, left
    if sample_ratio > 0:
        return _aligned(x, rois, starts, spans, size, (sample_ratio, sample_ratio), position_sensitive)
    if hasattr(rois._data, "concretize"):
        raise TypeError(
            f"{name}: sample_ratio: expected a positive number in a trace, where rois' values are unknown, got {sample_ratio}"
        )
    counts = [np.maximum(np.ceil(s.asnumpy() / p), 1).astype(int) for s, p in zip(spans, size)]
    groups = sorted(set(zip(*(c.tolist() for c in counts))))
    parts, places = [], []
    for group in groups:
        members = np.flatnonzero((counts[0] == group[0]) & (counts[1] == group[1]))
        pick = lambda v, m=members: v[wrap(v._device.module.asarray(m), v._device)]
        parts.append(_aligned(x, pick(rois), tuple(map(pick, starts)), tuple(map(pick, spans)), size, group, position_sensitive))
        places.append(members)
    if not parts:
        return _aligned(x, rois, starts, spans, size, (1, 1), position_sensitive)
    order = np.argsort(np.concatenate(places))
    return concatenate(parts)[wrap(x._device.module.asarray(order), x._device)]


def _aligned(x: NDArray, rois: NDArray, starts: Any, spans: Any, size: tuple, counts: tuple, position_sensitive: bool) -> NDArray:
    """The parts of all regions with `counts` points along the axes of each part."""
    n, c, height, width = x.shape
    r = rois.shape[0]
    points = []
    inside: Any = None
    for axis, limit in ((0, height), (1, width)):
        with x._device:
            steps = primitive("iota", shape=(size[axis] * counts[axis],), axis=0, dtype=x.dtype)
        each = expand_dims(divide(spans[axis], size[axis] * counts[axis]), 1)
        v = add(expand_dims(starts[axis], 1), multiply(add(steps, 0.5), each))
        count = size[axis] * counts[axis]
        v = reshape(v, (r, count, 1) if axis == 0 else (r, 1, count))
        ok = logical_and(greater_equal(v, -1.0), less_equal(v, limit))
        inside = ok if inside is None else logical_and(inside, ok)
        points.append(minimum(maximum(v, 0), limit - 1))
    rows, columns = size[0] * counts[0], size[1] * counts[1]
    zero = multiply(add(points[0], points[1]), 0)
    y, z = (reshape(add(p, zero), (r, rows * columns)) for p in points)
    image = cast(rois[:, :1], "int64")
    inside = logical_and(inside, expand_dims(logical_and(greater_equal(image, 0), less_equal(image, n - 1)), 2))
    values = sample_bilinear(x, y, z, minimum(maximum(image, 0), n - 1))
    values = multiply(values, reshape(cast(inside, x.dtype), (r, rows * columns, 1)))
    values = mean(reshape(values, (r, size[0], counts[0], size[1], counts[1], c)), (2, 4))
    if position_sensitive:
        parts = size[0] * size[1]
        own = diagonal(reshape(values, (r, parts, c // parts, parts)), 0, 1, 3)
        return reshape(own, (r, c // parts, *size))
    return transpose(values, (0, 3, 1, 2))


def correlation(
    x1: Any, x2: Any, /, kernel_size: int = 1, max_displacement: int = 1, stride1: int = 1, stride2: int = 1, pad_size: int = 0,
    is_multiply: bool = True,
) -> NDArray:
    """How well patches of one image fit moved patches of another (Dosovitskiy et al., 2015).

    x1, x2: (N, C, H, W), padded by `pad_size`; result: (N, D * D, OH, OW) with ``D = 2 * (max_displacement // stride2) + 1``:
    for each displacement (rows, then columns), at each `stride1`-th position, the mean over channels and an odd
    ``kernel_size`` square of the products, or of the absolute differences if not `is_multiply`.

    >>> import ndarray as nd
    >>> nd.correlation(nd.ones((1, 1, 3, 3)), nd.ones((1, 1, 3, 3))).shape
    (1, 9, 1, 1)
    """
    name = "correlation"
    x1, x2 = common(name, as_floating(name, x1, "x1"), as_floating(name, x2, "x2"))
    if x1.ndim != 4 or x2.ndim != 4 or any(differ(a, b) for a, b in zip(x1.shape, x2.shape)):
        raise ValueError(f"{name}: x1 and x2: expected equal shapes (N, C, H, W), got {x1.shape} and {x2.shape}")
    if kernel_size < 1 or kernel_size % 2 == 0 or max_displacement < 0 or stride1 < 1 or stride2 < 1 or pad_size < 0:
        raise ValueError(
            f"{name}: expected an odd kernel_size, strides of at least 1, max_displacement and pad_size of at least 0, got "
            f"{kernel_size}, {stride1}, {stride2}, {max_displacement}, {pad_size}"
        )
    far = int(max_displacement)
    edge = (0, 0, pad_size, pad_size)
    x1, x2 = (primitive("pad", v, low=edge, high=edge, interior=(0,) * 4, value=0.0) if pad_size else v for v in (x1, x2))
    _, c, height, width = x1.shape
    if height - 2 * far < kernel_size or width - 2 * far < kernel_size:
        raise ValueError(f"{name}: x1: expected padded sizes of at least {2 * far + kernel_size}, got shape {x1.shape}")
    here = x1[:, :, far : height - far, far : width - far]
    window = {"kernel": (kernel_size,) * 2, "stride": (stride1,) * 2, "padding": ((0, 0), (0, 0))}
    moves = [k * stride2 for k in range(-(far // stride2), far // stride2 + 1)]
    maps = []
    for dy in moves:
        for dx in moves:
            there = x2[:, :, far + dy : height - far + dy, far + dx : width - far + dx]
            fit = multiply(here, there) if is_multiply else abs(subtract(here, there))
            maps.append(primitive("sum_pool", sum(fit, 1), **window))
    return divide(stack(maps, 1), kernel_size * kernel_size * c)
