"""Images read at positions between pixels: resizing, grid sampling, spatial transformers.

Everything reads whole rows of channels at integer positions (the primitive take) and weighs them, so that it is differentiable
to any order with respect to the image, and piecewise with respect to the positions.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .array import NDArray, wrap
from .dims import Size
from .elementwise import (
    abs,
    add,
    cast,
    floor,
    greater_equal,
    less,
    logical_and,
    maximum,
    minimum,
    multiply,
    remainder,
    stop_gradient,
    subtract,
    where,
)
from .elementwise import round as rint
from .linear import matmul
from .manipulation import broadcast_to, expand_dims, reshape, stack, transpose
from .operands import as_array, as_floating, common, convert, is_number, primitive

__all__ = [
    "affine_grid", "bilinear_resize_2d", "bilinear_sampler", "grid_generator", "grid_sample", "resize", "spatial_transformer",
    "upsampling",
]


def _rows(x: NDArray) -> NDArray:
    """(M, C, H, W) as rows of channels (M * H * W, C)."""
    m, c, height, width = x.shape
    return reshape(transpose(x, (0, 2, 3, 1)), (m * height * width, c))


def _read(rows: NDArray, shape: tuple[Size, ...], y: NDArray, x: NDArray, image: NDArray | None = None) -> NDArray:
    """The rows at whole positions (floating arrays (M, P)) of image k for row k, or of the images (M, 1); 0 outside."""
    m, _, height, width = shape
    inside = logical_and(logical_and(greater_equal(y, 0), less(y, height)), logical_and(greater_equal(x, 0), less(x, width)))
    limited = [cast(where(inside, v, 0), "int64") for v in (y, x)]
    if image is None:
        with rows._device:
            image = primitive("iota", shape=(m, 1), axis=0, dtype=np.dtype(np.int64))
    flat = add(multiply(add(multiply(image, height), limited[0]), width), limited[1])
    return multiply(primitive("take", rows, flat, axis=0, mode="clip"), expand_dims(cast(inside, rows.dtype), -1))


def sample_bilinear(x_: NDArray, y: NDArray, x: NDArray, image: NDArray | None = None) -> NDArray:
    """Images x_ (M, C, H, W) interpolated at positions y, x (M, P), in pixels, zero outside: (M, P, C). With `image`, int64
    (R, 1), row r of the positions (R, P) is read in image number ``image[r]``."""
    rows = _rows(x_)
    y0, x0 = stop_gradient(floor(y)), stop_gradient(floor(x))
    dy, dx = subtract(y, y0), subtract(x, x0)
    out: Any = None
    for j, wy in ((0, subtract(1, dy)), (1, dy)):
        for i, wx in ((0, subtract(1, dx)), (1, dx)):
            part = multiply(_read(rows, x_.shape, add(y0, j), add(x0, i), image), expand_dims(multiply(wy, wx), -1))
            out = part if out is None else add(out, part)
    return out


def _image(name: str, x: Any) -> NDArray:
    x = as_floating(name, x)
    if x.ndim != 4:
        raise ValueError(f"{name}: x: expected (N, C, H, W), got shape {x.shape}")
    return x


# -- grids: positions from -1 to 1

def _line(count: Size, like: NDArray, align_corners: bool = True) -> NDArray:
    """`count` positions from -1 to 1: the corners', or the middles' of equal parts."""
    count = int(count)
    with like._device:
        i = primitive("iota", shape=(count,), axis=0, dtype=like.dtype)
    if align_corners:
        return subtract(multiply(i, 2.0 / (count - 1)), 1.0) if count != 1 else multiply(i, 0.0)
    return subtract(multiply(add(i, 0.5), 2.0 / count), 1.0)


def affine_grid(theta: Any, size: Any, /, align_corners: bool = True) -> NDArray:
    """The positions ``theta @ (x, y, 1)`` of an image's pixels, in the form of `grid_sample`.

    theta: (N, 2, 3); size: (..., H, W); result: (N, H, W, 2). The image's pixels have x and y from -1 to 1, which are the
    corner pixels' centers with `align_corners`, else the image's edges.

    >>> import ndarray as nd
    >>> nd.affine_grid(nd.array([[[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]]), (1, 2)).tolist()
    [[[[-1.0, 0.0], [1.0, 0.0]]]]
    """
    theta = as_floating("affine_grid", theta, "theta")
    if theta.ndim != 3 or theta.shape[1:] != (2, 3):
        raise ValueError(f"affine_grid: theta: expected shape (N, 2, 3), got {theta.shape}")
    height, width = tuple(size)[-2:]
    xs, ys = _line(width, theta, align_corners), _line(height, theta, align_corners)
    xs, ys = broadcast_to(xs, (height, width)), broadcast_to(expand_dims(ys, 1), (height, width))
    points = reshape(stack([xs, ys, add(multiply(xs, 0), 1)], 2), (1, height * width, 3))
    return reshape(matmul(points, transpose(theta, (0, 2, 1))), (theta.shape[0], height, width, 2))


def _mirrored(v: NDArray, low: float, high: float) -> NDArray:
    """v mirrored at both limits until it is between them."""
    span = high - low
    if span == 0:
        return multiply(v, 0.0)
    v = remainder(abs(subtract(v, low)), 2 * span)
    return add(where(less(v, span), v, subtract(2 * span, v)), low)


def grid_sample(
    x: Any, grid: Any, /, mode: str = "bilinear", padding_mode: str = "zeros", align_corners: bool = False
) -> NDArray:
    """The image x read at the positions of a grid.

    x: (N, C, H, W); grid: (N, OH, OW, 2) with (x, y) from -1 to 1; result: (N, C, OH, OW).
    mode           "bilinear" or "nearest"
    padding_mode   what stands outside: "zeros", "border" (the nearest pixel) or "reflection"
    align_corners  -1 and 1 are the centers of the corner pixels, else the image's edges

    Raises ValueError for shapes that do not fit or an unknown mode.

    >>> import ndarray as nd
    >>> x, grid = nd.array([[[[1.0, 3.0]]]]), nd.array([[[[0.0, 0.0], [1.0, 0.0]]]])
    >>> nd.grid_sample(x, grid, align_corners=True).tolist()
    [[[[2.0, 3.0]]]]
    """
    name = "grid_sample"
    x, grid = common(name, _image(name, x), as_floating(name, grid, "grid"), arguments=("x", "grid"))
    if grid.ndim != 4 or grid.shape[3] != 2 or grid.shape[0] != x.shape[0]:
        raise ValueError(f"{name}: grid: expected shape ({x.shape[0]}, OH, OW, 2), got {grid.shape}")
    for argument, value, known in (("mode", mode, ("bilinear", "nearest")),
                                   ("padding_mode", padding_mode, ("zeros", "border", "reflection"))):
        if value not in known:
            raise ValueError(f"{name}: {argument}: expected one of {', '.join(known)}, got {value!r}")
    positions = []
    for axis, size in ((1, x.shape[2]), (0, x.shape[3])):
        v = grid[..., axis]
        if align_corners:
            v = multiply(multiply(add(v, 1), size - 1), 0.5)
        else:
            v = multiply(subtract(multiply(add(v, 1), size), 1), 0.5)
        if padding_mode == "reflection":
            v = _mirrored(v, 0.0, size - 1) if align_corners else _mirrored(v, -0.5, size - 0.5)
        if padding_mode != "zeros":
            v = minimum(maximum(v, 0), size - 1)
        positions.append(reshape(v, (grid.shape[0], grid.shape[1] * grid.shape[2])))
    if mode == "nearest":
        rounded = [rint(stop_gradient(v)) for v in positions]
        out = _read(_rows(x), x.shape, *rounded)
    else:
        out = sample_bilinear(x, *positions)
    return reshape(transpose(out, (0, 2, 1)), (*x.shape[:2], *grid.shape[1:3]))


def bilinear_sampler(x: Any, grid: Any, /) -> NDArray:
    """MXNet's `grid_sample`: grid is (N, 2, OH, OW) with x before y, -1 and 1 are the centers of the corner pixels, zeros stand
    outside.

    >>> import ndarray as nd
    >>> nd.bilinear_sampler(nd.array([[[[1.0, 3.0]]]]), nd.zeros((1, 2, 1, 1))).tolist()
    [[[[2.0]]]]
    """
    grid = as_floating("bilinear_sampler", grid, "grid")
    if grid.ndim != 4 or grid.shape[1] != 2:
        raise ValueError(f"bilinear_sampler: grid: expected shape (N, 2, OH, OW), got {grid.shape}")
    return grid_sample(_image("bilinear_sampler", x), transpose(grid, (0, 2, 3, 1)), align_corners=True)


def grid_generator(x: Any, /, transform_type: str = "affine", target_shape: Any = (0, 0)) -> NDArray:
    """The grid (N, 2, H, W) for `bilinear_sampler`: of an affine transformation, or of a flow in pixels.

    x  "affine": (N, 6), the rows of (N, 2, 3), and `target_shape` is (H, W); "warp": (N, 2, H, W), how far right and down

    >>> import ndarray as nd
    >>> nd.grid_generator(nd.array([[1.0, 0.0, 0.0, 0.0, 1.0, 0.0]]), "affine", (1, 2)).tolist()
    [[[[-1.0, 1.0]], [[0.0, 0.0]]]]
    """
    x = as_floating("grid_generator", x)
    if transform_type == "affine":
        if x.ndim != 2 or x.shape[1] != 6:
            raise ValueError(f"grid_generator: x: expected shape (N, 6), got {x.shape}")
        if any(n < 1 for n in target_shape):
            raise ValueError(f"grid_generator: target_shape: expected positive sizes (H, W), got {target_shape}")
        return transpose(affine_grid(reshape(x, (x.shape[0], 2, 3)), target_shape), (0, 3, 1, 2))
    if transform_type != "warp":
        raise ValueError(f"grid_generator: transform_type: expected 'affine' or 'warp', got {transform_type!r}")
    if x.ndim != 4 or x.shape[1] != 2:
        raise ValueError(f"grid_generator: x: expected shape (N, 2, H, W), got {x.shape}")
    height, width = x.shape[2:]
    scaled = lambda flow, size: multiply(flow, 2.0 / (size - 1)) if size != 1 else multiply(flow, 0.0)
    across = add(scaled(x[:, 0], width), _line(width, x))
    down = add(scaled(x[:, 1], height), expand_dims(_line(height, x), 1))
    return stack([across, down], 1)


def spatial_transformer(
    x: Any, loc: Any, /, target_shape: Any = (0, 0), transform_type: str = "affine", sampler_type: str = "bilinear"
) -> NDArray:
    """The image x (N, C, H, W) under the affine transformations `loc` (N, 6), of size `target_shape` (x's if 0)
    (Jaderberg et al., 2015).

    >>> import ndarray as nd
    >>> x = nd.array([[[[1.0, 2.0]]]])
    >>> nd.spatial_transformer(x, nd.array([[-1.0, 0.0, 0.0, 0.0, 1.0, 0.0]])).tolist()
    [[[[2.0, 1.0]]]]
    """
    if transform_type != "affine" or sampler_type != "bilinear":
        raise ValueError(
            f"spatial_transformer: transform_type, sampler_type: expected 'affine' and 'bilinear', got {transform_type!r} and "
            f"{sampler_type!r}"
        )
    x = _image("spatial_transformer", x)
    shape = tuple(n or m for n, m in zip(target_shape, x.shape[2:]))
    return bilinear_sampler(x, grid_generator(loc, "affine", shape))


# -- resizing

def _at(x: NDArray, axis: int, positions: np.ndarray) -> NDArray:
    return primitive("take", x, wrap(x._device.module.asarray(positions), x._device), axis=axis, mode="clip")


def _cubic(t: np.ndarray) -> np.ndarray:
    """The weights of the pixels at -1, 0, 1, 2 for a position t in [0, 1): Keys' kernel with a = -0.75."""
    a = -0.75
    near = lambda d: ((a + 2) * d - (a + 3)) * d * d + 1
    far = lambda d: ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    return np.stack([far(t + 1), near(t), near(1 - t), far(2 - t)])


def _resize_axis(x: NDArray, axis: int, count: int, mode: str, align_corners: bool, scale: float | None) -> NDArray:
    n = int(x.shape[axis])
    ratio = n / count if scale is None else 1 / scale
    if align_corners and mode != "nearest":
        ratio = (n - 1) / (count - 1) if count > 1 else 0.0
        source = np.arange(count) * ratio
    else:
        source = (np.arange(count) + 0.5) * ratio - 0.5
    if mode == "nearest":
        nearest = np.arange(count) * n // count if scale is None else np.floor(np.arange(count) * ratio).astype(np.int64)
        return _at(x, axis, np.minimum(nearest, n - 1))
    if mode == "linear":
        source = np.maximum(source, 0)
    first = np.floor(source).astype(np.int64)
    t = source - first
    taps = range(2) if mode == "linear" else range(-1, 3)
    weights = np.stack([1 - t, t]) if mode == "linear" else _cubic(t)
    out: Any = None
    for k, w in zip(taps, weights):
        factor = np.asarray(w, np.float64).reshape((count,) + (1,) * (x.ndim - 1 - axis)).astype(x.dtype)
        part = multiply(_at(x, axis, np.clip(first + k, 0, n - 1)), wrap(x._device.module.asarray(factor), x._device))
        out = part if out is None else add(out, part)
    return out


_MODES = {"nearest": "nearest", "linear": "linear", "bilinear": "linear", "trilinear": "linear", "bicubic": "cubic"}


def resize(
    x: Any, size: Any = None, /, scale: Any = None, mode: str = "nearest", align_corners: bool = False
) -> NDArray:
    """x with its spatial axes resized, one after the other.

    x              (N, C, *spatial); sizes must be known
    size, scale    the sizes of the result, or factors; one for all or one for each spatial axis
    mode           "nearest", "bilinear" (also "linear", "trilinear"), or "bicubic" (Keys, 1981, with a = -0.75)
    align_corners  the corner pixels' centers stay where they are, else the image's edges

    Raises ValueError unless exactly one of size and scale is given, or for an unknown mode.

    >>> import ndarray as nd
    >>> nd.resize(nd.array([[[1.0, 3.0]]]), 3, mode="linear", align_corners=True).tolist()
    [[[1.0, 2.0, 3.0]]]
    """
    x = as_array("resize", "x", x)
    rank = x.ndim - 2
    if rank < 1:
        raise ValueError(f"resize: x: expected (N, C, *spatial), got shape {x.shape}")
    if mode not in _MODES:
        raise ValueError(f"resize: mode: expected one of {', '.join(_MODES)}, got {mode!r}")
    if (size is None) == (scale is None):
        raise ValueError(f"resize: expected exactly one of size and scale, got {size} and {scale}")
    given = scale if size is None else size
    values = (given,) * rank if is_number(given) else tuple(given)
    if len(values) != rank or any(v <= 0 for v in values):
        raise ValueError(f"resize: expected one positive size or scale for each of {rank} spatial axes, got {given}")
    out = x if mode == "nearest" else as_floating("resize", x)
    wide = convert(out, np.dtype(np.float32)) if out.dtype.kind == "f" and out.dtype.itemsize < 4 and mode != "nearest" else out
    for k, v in enumerate(values):
        count = int(v) if scale is None else math.floor(int(x.shape[2 + k]) * v)
        wide = _resize_axis(wide, 2 + k, count, _MODES[mode], align_corners, None if scale is None else float(v))
    return convert(wide, out.dtype)


def bilinear_resize_2d(
    x: Any, /, height: int | None = None, width: int | None = None, scale_height: float | None = None,
    scale_width: float | None = None, align_corners: bool = True,
) -> NDArray:
    """x (N, C, H, W) resized bilinearly to (height, width), or by factors; MXNet's ``contrib.BilinearResize2D``.

    >>> import ndarray as nd
    >>> nd.bilinear_resize_2d(nd.array([[[[1.0, 3.0]]]]), 1, 3).tolist()
    [[[[1.0, 2.0, 3.0]]]]
    """
    x = _image("bilinear_resize_2d", x)
    sizes = []
    for name, asked, factor, n in zip(("height", "width"), (height, width), (scale_height, scale_width), x.shape[2:]):
        if (asked is None) == (factor is None):
            raise ValueError(f"bilinear_resize_2d: expected exactly one of {name} and scale_{name}, got {asked} and {factor}")
        sizes.append(int(asked) if asked is not None else int(int(n) * factor))  # type: ignore[operator]
    return resize(x, tuple(sizes), mode="bilinear", align_corners=align_corners)


def upsampling(x: Any, weight: Any = None, /, scale: int = 2, sample_type: str = "nearest") -> NDArray:
    """x (N, C, H, W) enlarged by a whole factor.

    sample_type  "nearest" repeats pixels; "bilinear" is a transposed convolution of each channel with `weight` (C, 1, k, k),
                 ``k = 2 * scale - scale % 2``, or with the weights of bilinear interpolation if None

    >>> import ndarray as nd
    >>> nd.upsampling(nd.array([[[[1.0, 2.0]]]]), scale=2).tolist()
    [[[[1.0, 1.0, 2.0, 2.0], [1.0, 1.0, 2.0, 2.0]]]]
    """
    from .convolutional import deconvolution

    x = _image("upsampling", x)
    if int(scale) != scale or scale < 1:
        raise ValueError(f"upsampling: scale: expected an integer of at least 1, got {scale}")
    n, c, height, width = x.shape
    if sample_type == "nearest":
        wide = broadcast_to(reshape(x, (n, c, height, 1, width, 1)), (n, c, height, scale, width, scale))
        return reshape(wide, (n, c, height * scale, width * scale))
    if sample_type != "bilinear":
        raise ValueError(f"upsampling: sample_type: expected 'nearest' or 'bilinear', got {sample_type!r}")
    k = 2 * scale - scale % 2
    if weight is None:
        line = 1 - np.abs(np.arange(k) / scale - (2 * scale - 1 - scale % 2) / (2 * scale))
        table = np.broadcast_to(np.outer(line, line), (int(c), 1, k, k)).astype(x.dtype)
        weight = wrap(x._device.module.asarray(np.ascontiguousarray(table)), x._device)
    return deconvolution(x, weight, stride=scale, padding=math.ceil((scale - 1) / 2), groups=int(c))
