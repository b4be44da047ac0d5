"""What object detection needs that depends on values: which boxes survive non-maximum suppression, and where in a region of
interest the maxima are. Both give positions and run on the host; the functions around them gather, which is differentiable."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..op import NONDIFF, OPAQUE, ArrayType, Op, Sample, register
from .base import expect_kind, fail, random_array

__all__: list[str] = []

INT64 = np.dtype(np.int64)


# -- box_survivors: (batch, boxes, columns) -> positions of the boxes that stay, best first, then -1

def _survivors_infer(x: ArrayType, **attrs: Any) -> tuple[ArrayType, ...]:
    expect_kind("box_survivors", "x", x.dtype, "f")
    if len(x.shape) != 3:
        fail("box_survivors", "x", "shape (batch, boxes, columns)", x.shape)
    return (ArrayType(x.shape[:2], INT64),)


def _corners(boxes: Any, center: bool) -> Any:
    if not center:
        return boxes
    half = boxes[..., 2:] / 2
    return np.concatenate([boxes[..., :2] - half, boxes[..., :2] + half], axis=-1)


def _survivors(
    xp: Any, x: Any, *, overlap: float, valid: float, topk: int, coordinates: int, score: int, identity: int, background: int,
    force: bool, center: bool,
) -> Any:
    values = x if isinstance(x, np.ndarray) else x.get()
    values = values.astype(np.float64)
    out = np.full(values.shape[:2], -1, np.int64)
    for rows, kept in zip(values, out):
        scores = rows[:, score]
        usable = scores > valid
        if identity >= 0 and background >= 0:
            usable &= rows[:, identity] != background
        order = np.flatnonzero(usable)
        order = order[np.argsort(-scores[order], kind="stable")]
        if topk >= 0:
            order = order[:topk]
        boxes = _corners(rows[order, coordinates : coordinates + 4], center)
        area = np.prod(np.maximum(boxes[:, 2:] - boxes[:, :2], 0), axis=1)
        alive = np.ones(len(order), bool)
        for k in range(len(order)):
            if not alive[k]:
                continue
            rest = slice(k + 1, None)
            sides = np.minimum(boxes[k, 2:], boxes[rest, 2:]) - np.maximum(boxes[k, :2], boxes[rest, :2])
            common = np.prod(np.maximum(sides, 0), axis=1)
            union = area[k] + area[rest] - common
            hit = common > overlap * union
            if identity >= 0 and not force:
                hit &= rows[order[rest], identity] == rows[order[k], identity]
            alive[rest] &= ~hit
        stay = order[alive]
        kept[: len(stay)] = stay
    return xp.asarray(out)


def _survivors_reference(x: np.ndarray, overlap: float, valid: float, topk: int, coordinates: int, score: int, identity: int,
                         background: int, force: bool, center: bool) -> np.ndarray:
    def share(*pair: np.ndarray) -> float:
        a, b = ([v[0] - v[2] / 2, v[1] - v[3] / 2, v[0] + v[2] / 2, v[1] + v[3] / 2] if center else list(v) for v in pair)
        size = lambda v: max(v[2] - v[0], 0) * max(v[3] - v[1], 0)
        common = size([max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])])
        total = size(a) + size(b) - common
        return common / total if total > 0 else 0.0

    out = np.full(x.shape[:2], -1, np.int64)
    for n, rows in enumerate(x.astype(np.float64)):
        usable = [i for i, r in enumerate(rows) if r[score] > valid and not (identity >= 0 <= background == r[identity])]
        stay: list[int] = []
        for i in sorted(usable, key=lambda i: -rows[i, score])[: topk if topk >= 0 else None]:
            boxes, kind, apart = rows[:, coordinates : coordinates + 4], rows[:, identity], identity >= 0 and not force
            if all(share(boxes[i], boxes[j]) <= overlap or (apart and kind[i] != kind[j]) for j in stay):
                stay.append(i)
        out[n, : len(stay)] = stay
    return out


def _survivors_samples() -> Iterator[Sample]:
    base: dict[str, Any] = {
        "overlap": 0.3, "valid": 0.1, "topk": -1, "coordinates": 2, "score": 1, "identity": -1, "background": -1, "force": False,
        "center": False,
    }
    variants: tuple[dict[str, Any], ...] = (
        {}, {"identity": 0}, {"identity": 0, "force": True}, {"topk": 3}, {"center": True}, {"identity": 0, "background": 1},
        {"overlap": 0.0},
    )
    for k, more in enumerate(variants):
        for dtype in (np.float64, np.float32):
            x = random_array(k, (2, 12, 6), dtype, 0.0, 1.0)
            x[..., 0] = np.floor(x[..., 0] * 3)
            x[..., 4:] = x[..., 2:4] + 0.1 + x[..., 4:]
            yield Sample((x,), {**base, **more}, _survivors_reference)
    yield Sample((np.zeros((1, 0, 6)),), base, _survivors_reference)


register(Op("box_survivors", ("x",), _survivors_infer, _survivors, NONDIFF, OPAQUE, _survivors_samples))


# -- region_maxima: for each region and channel, the flat position in (H, W) of the maximum of each of pooled parts; -1 if empty

def _maxima_infer(x: ArrayType, regions: ArrayType, *, pooled: tuple[int, int], scale: float) -> tuple[ArrayType, ...]:
    expect_kind("region_maxima", "x", x.dtype, "f")
    if len(x.shape) != 4 or len(regions.shape) != 2 or regions.shape[1] != 5:
        fail("region_maxima", "x and regions", "shapes (N, C, H, W) and (R, 5)", f"{x.shape} and {regions.shape}")
    return (ArrayType((regions.shape[0], x.shape[1], *pooled), INT64),)


def _bounds(first: float, last: float, parts: int, size: int, scale: float) -> list[tuple[int, int]]:
    """Each part's first position and the one behind its last, of a region from `first` to `last` (rounded, both inside)."""
    start, stop = (int(np.floor(abs(v * scale) + 0.5) * np.sign(v)) for v in (first, last))
    length = np.float32(max(stop - start + 1, 1)) / np.float32(parts)
    limit = lambda v: min(max(int(v) + start, 0), size)
    return [(limit(np.floor(np.float32(i) * length)), limit(np.ceil(np.float32(i + 1) * length))) for i in range(parts)]


def _maxima(xp: Any, x: Any, regions: Any, *, pooled: tuple[int, int], scale: float) -> Any:
    values, boxes = (v if isinstance(v, np.ndarray) else v.get() for v in (x, regions))
    count, channels, height, width = values.shape
    out = np.full((len(boxes), channels, *pooled), -1, np.int64)
    for region, (image, *box) in zip(out, boxes.astype(np.float64)):
        if not 0 <= image < count:
            continue
        picture = values[int(image)]
        for i, (top, bottom) in enumerate(_bounds(box[1], box[3], pooled[0], height, scale)):
            for j, (left, right) in enumerate(_bounds(box[0], box[2], pooled[1], width, scale)):
                if top < bottom and left < right:
                    at = picture[:, top:bottom, left:right].reshape(channels, -1).argmax(axis=1)
                    region[:, i, j] = (top + at // (right - left)) * width + left + at % (right - left)
    return xp.asarray(out)


def _maxima_reference(x: np.ndarray, regions: np.ndarray, pooled: tuple[int, int], scale: float) -> np.ndarray:
    out = np.full((len(regions), x.shape[1], *pooled), -1, np.int64)
    nearest = lambda v: int(np.sign(v) * np.floor(abs(v) + 0.5))
    for r, region in enumerate(regions.astype(np.float64)):
        left, top, right, bottom = (nearest(v * scale) for v in region[1:])
        height, width = max(bottom - top + 1, 1), max(right - left + 1, 1)
        for c, i, j in np.ndindex(x.shape[1], *pooled):
            best = -np.inf
            for y in range(x.shape[2]):
                for k in range(x.shape[3]):
                    # the part i covers floor(i * height / parts) to ceil((i + 1) * height / parts)
                    inside = (i * height // pooled[0] <= y - top < -(-(i + 1) * height // pooled[0])
                              and j * width // pooled[1] <= k - left < -(-(j + 1) * width // pooled[1]))
                    value = x[int(region[0]), c, y, k]
                    if inside and value > best:
                        best, out[r, c, i, j] = value, y * x.shape[3] + k
    return out


def _maxima_samples() -> Iterator[Sample]:
    for dtype in (np.float64, np.float32):
        x = random_array(1, (2, 3, 7, 6), dtype)
        regions = np.array([[0, 0, 0, 5, 6], [1, 1, 2, 3, 4], [0, 4, 4, 4, 4], [1, 3, 1, 9, 9], [0, 8, 8, 9, 9]], dtype)
        yield Sample((x, regions), {"pooled": (2, 3), "scale": 1.0}, _maxima_reference)
        yield Sample((x, regions), {"pooled": (2, 2), "scale": 0.5}, _maxima_reference)


register(Op("region_maxima", ("x", "regions"), _maxima_infer, _maxima, NONDIFF, OPAQUE, _maxima_samples))
