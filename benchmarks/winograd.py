"""3x3 convolutions by direct summation and by Winograd's method: time and error of single layers.

    python -m benchmarks.winograd [images,size,inputs,outputs ...]

Times are those of the layer's kernel alone, weights transformed before. Errors are those against float64, relative to the sum
of the magnitudes of the products: the largest, and the root of the mean square.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

import numpy as np

import ndarray as nd
from hybrid import hybridize
from ndarray.settings import settings

__all__ = ["Layer", "main", "measure"]

TILES = (0, 2, 4)
LAYERS = ("1,56,64,64", "1,28,128,128", "1,14,256,256", "1,7,512,512", "8,28,128,128", "8,7,512,512", "32,32,16,16")


@dataclass(frozen=True)
class Layer:
    """What was measured with a value of HYBRID_WINOGRAD: the kernel, its microseconds, the errors."""

    kernel: str
    microseconds: float
    largest: float
    mean: float


def measure(images: int, size: int, inputs: int, outputs: int, tile: int) -> Layer:
    """One layer with padding 1 on positive random numbers."""
    rng = np.random.default_rng(0)
    x = np.maximum(rng.standard_normal((images, inputs, size, size)), 0).astype("f4")
    w = rng.standard_normal((outputs, inputs, 3, 3)).astype("f4")
    unit, weights = nd.array(np.eye(inputs, dtype="f4")[:, :, None, None]), nd.array(w)
    with settings(HYBRID_WINOGRAD=tile):  # the layer before brings the channels last, and changes nothing
        layer = hybridize(lambda a: nd.convolution(nd.convolution(a, unit), weights, padding=1))
        got = layer(nd.array(x)).asnumpy()
        kernels = [k for k in layer.explain(nd.array(x), measure=True).kernels if k.name.startswith("convolution")]
    first = slice(0, 16)  # some of the outputs tell as much
    padded = np.pad(x[0].astype("f8"), ((0, 0), (1, 1), (1, 1)))
    seen = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (1, 2)).transpose(1, 2, 0, 3, 4).reshape(size * size, -1)
    taps = w[first].astype("f8").reshape(-1, seen.shape[1]).T
    error = abs(got[0, first].reshape(-1, size * size).T - seen @ taps) / (seen @ abs(taps))
    return Layer(kernels[-1].name, 1e6 * kernels[-1].seconds, float(error.max()), float(np.sqrt((error**2).mean())))


def main(layers: list[str]) -> None:
    """Print a Markdown table."""
    print("| images, size, inputs, outputs | largest tile | us | of direct | GFLOP/s | largest error | mean error | kernel |")
    print("|---|---:|---:|---:|---:|---:|---:|---|")
    for text in layers or LAYERS:
        images, size, inputs, outputs = map(int, text.split(","))
        direct = None
        for tile in TILES:
            found = measure(images, size, inputs, outputs, tile)
            direct = direct or found.microseconds
            flops = 18.0 * images * size * size * inputs * outputs
            cells = [text, tile or "direct", f"{found.microseconds:.0f}", f"{found.microseconds / direct:.2f}",
                     f"{flops / found.microseconds / 1e3:.0f}", f"{found.largest:.1e}", f"{found.mean:.1e}", found.kernel]
            print("| " + " | ".join(map(str, cells)) + " |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
