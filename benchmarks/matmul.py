"""Products and convolutions as single launches: GFLOP/s and the share of the measured peak, on one and two threads."""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np

from benchmarks.launches import Launches, aligned, best, peak_gflops
from jit.contract import lower_contraction, plain_sink, plain_source
from jit.launch import Storage
from jit.machine import host
from ndarray.dims import product

Case = tuple[str, str, dict[str, Any], tuple[int, ...], tuple[int, ...], tuple[int, ...], float]


def dot(name: str, m: int, n: int, k: int, transposed: bool = False) -> Case:
    """x @ W with W of shape (k, n), or x @ W^T with W of shape (n, k)."""
    contract = ((1,), (1,)) if transposed else ((1,), (0,))
    return (
        name,
        "dot_general",
        {"contract": contract, "batch": ((), ())},
        (m, k),
        (n, k) if transposed else (k, n),
        (m, n),
        2.0 * m * n * k,
    )


def convolutions(
    name: str, n: int, c: int, size: int, o: int, kernel: int, stride: int = 1, padding: int = 0, groups: int = 1
) -> list[Case]:
    """A convolution and its two gradients."""
    out = (size + 2 * padding - kernel) // stride + 1
    attrs = {"stride": (stride,) * 2, "padding": ((padding, padding),) * 2, "dilation": (1, 1), "groups": groups}
    x, w, y = (n, c, size, size), (o, c // groups, kernel, kernel), (n, o, out, out)
    flops = 2.0 * product(y) * product(w[1:])
    return [
        (name, "convolution", attrs, x, w, y, flops),
        (f"{name} dx", "convolution_data_gradient", {"shape": x, **attrs}, y, w, x, flops),
        (f"{name} dw", "convolution_weight_gradient", {"shape": w, **attrs}, x, y, w, flops),
    ]


CASES: list[Case] = [
    dot("1024^3", 1024, 1024, 1024),
    dot("1024^3 W^T", 1024, 1024, 1024, True),
    dot("512x512x512", 512, 512, 512),
    dot("dense b64 784-512", 64, 512, 784, True),
    dot("dense b64 NN", 64, 784, 512),
    dot("dense b1 W^T", 1, 1024, 1024, True),
    dot("dense b1 W", 1, 1024, 1024),
    dot("tiny 1x8x4", 1, 8, 4, True),
    *convolutions("lenet conv1 b64", 64, 1, 28, 6, 5, 1, 2),
    *convolutions("lenet conv2 b64", 64, 6, 14, 16, 5),
    *convolutions("56x56x64 3x3", 1, 64, 56, 64, 3, 1, 1),
    *convolutions("28x28x128 3x3", 1, 128, 28, 128, 3, 1, 1),
    *convolutions("14x14x256 3x3", 1, 256, 14, 256, 3, 1, 1),
    *convolutions("7x7x512 3x3", 1, 512, 7, 512, 3, 1, 1),
    *convolutions("56x56x64-128 3x3/2", 1, 64, 56, 128, 3, 2, 1),
    *convolutions("224x224x3 7x7/2", 1, 3, 224, 64, 7, 2, 3),
    *convolutions("28x28x256-64 1x1", 1, 256, 28, 64, 1),
    *convolutions("depthwise 56x56x96", 1, 96, 56, 96, 3, 1, 1, 96),
]


def prepare(case: Case, **schedule: Any) -> Launches:
    """The compiled launches of a case over random operands."""
    _, op, attrs, xs, ys, os, _ = case
    storages = [Storage("float32", product(s), n) for s, n in ((xs, "x"), (ys, "y"), (os, "out"))]
    memory = {s: aligned(s.size, np.float32) for s in storages}
    rng = np.random.default_rng(0)
    for s in storages[:2]:
        memory[s][:] = rng.standard_normal(s.size)
    launches = lower_contraction(
        op,
        attrs,
        [plain_source(storages[0], xs), plain_source(storages[1], ys)],
        plain_sink(storages[2], os),
        host(),
        **schedule,
    )
    return Launches(launches, memory)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("filter", nargs="?", default="", help="only cases whose name contains this")
    parser.add_argument("--detail", action="store_true", help="times and schedule of each launch")
    arguments = parser.parse_args()
    peak = peak_gflops(1)
    print(f"peak {peak:.0f} GFLOP/s on one thread")
    print(f"{'case':28} {'1 thread':>10} {'share':>6} {'2 threads':>10} {'scaling':>8} {'compile':>8}")
    for case in CASES:
        if arguments.filter not in case[0]:
            continue
        launches = prepare(case)
        one, two = best(launches.run), best(lambda: launches.run(2))  # noqa: B023
        print(
            f"{case[0]:28} {case[-1] / one / 1e9:7.1f} GF {case[-1] / one / 1e9 / peak:6.0%} "
            f"{case[-1] / two / 1e9:7.1f} GF "
            f"{one / two:8.2f} {launches.compile_seconds * 1e3:5.0f} ms  {one * 1e6:.1f} us",
            flush=True,
        )
        if arguments.detail:
            for launch, seconds in zip(launches.launches, launches.seconds()):
                print(f"    {launch.kernel.name:24} {seconds * 1e6:9.1f} us  tasks {launch.tasks}  {launch.note}")


if __name__ == "__main__":
    main()
