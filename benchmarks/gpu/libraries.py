"""Library steps on a device: each kind with its epilogues, layouts and dtypes, against float64 on the CPU.

What a library refuses is computed by generated kernels and listed under "refused"; it is no failure.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import numpy as np

import ndarray as nd
from hybrid import hybridize
from ndarray import autograd
from ndarray.device import Device

__all__ = ["libraries"]

Case = tuple[Callable[..., Any], tuple[tuple[int, ...], ...]]
TOLERANCE = {"float32": 2e-5, "float16": 5e-3, "bfloat16": 3e-2}
"""Of the largest number of a result."""


def _gradients(function: Callable[..., Any]) -> Callable[..., Any]:
    def run(*arrays: Any) -> Any:
        for a in arrays:
            a.attach_grad()
        with autograd.record():
            out = nd.sum(nd.tanh(function(*arrays) / 8))
        out.backward()
        return tuple([a.grad for a in arrays])

    return run


def _attend(qkv: Any, causal: bool = False) -> Any:
    heads = [nd.transpose(qkv[:, :, i], (0, 2, 1, 3)) for i in range(3)]
    return nd.scaled_dot_product_attention(*heads, causal=causal)


_DENSE = ((96, 128), (80, 128), (80,), (96, 80))
_IMAGES = ((4, 16, 20, 20), (32, 16, 3, 3), (32,))
CASES: dict[str, Case] = {
    "product": (lambda x, w, b, r: nd.matmul(x, w.T), _DENSE),
    "bias": (lambda x, w, b, r: nd.matmul(x, w.T) + b, _DENSE),
    "bias, relu": (lambda x, w, b, r: nd.relu(nd.matmul(x, w.T) + b), _DENSE),
    "bias, gelu by tanh": (lambda x, w, b, r: nd.gelu(nd.matmul(x, w.T) / 8 + b, approximation="tanh"), _DENSE),
    "residual": (lambda x, w, b, r: nd.matmul(x, w.T) * 0.5 + r, _DENSE),
    "bias, residual, relu": (lambda x, w, b, r: nd.relu(nd.matmul(x, w.T) + b + r), _DENSE),
    "gradients of a product": (_gradients(lambda x, w, b, r: nd.matmul(x, w.T) + b + r), _DENSE),
    "transposed": (lambda x, y: nd.matmul(x.T, y.T), ((128, 96), (80, 128))),
    "batched": (nd.matmul, ((5, 48, 64), (5, 64, 40))),
    "heads": (lambda x, y: nd.einsum("lhe,she->hls", x, y), ((48, 3, 32), (40, 3, 32))),
    "slices": (lambda x, y: nd.matmul(x[:, 8:40], y[16:48]), ((48, 64), (64, 40))),
    "convolution": (lambda x, w, b: nd.convolution(x, w, padding=1), _IMAGES),
    "convolution, bias, relu": (lambda x, w, b: nd.relu(nd.convolution(x, w, b, padding=1)), _IMAGES),
    "strided, uneven padding": (lambda x, w, b: nd.convolution(x, w, b, stride=2, padding=((0, 1), (1, 2))), _IMAGES),
    "dilated": (lambda x, w, b: nd.convolution(x, w, b, dilation=2), _IMAGES),
    "grouped": (lambda x, w: nd.convolution(x, w, padding=1, groups=2), ((4, 32, 16, 16), (48, 16, 3, 3))),
    "gradients of a convolution": (_gradients(lambda x, w, b: nd.convolution(x, w, b, stride=2, padding=1)), _IMAGES),
    "attention": (_attend, ((2, 64, 3, 4, 32),)),
    "causal attention": (lambda qkv: _attend(qkv, True), ((2, 64, 3, 4, 32),)),
}


class _Warnings(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage().splitlines()[0])


def libraries(device: Device, quick: bool) -> dict[str, Any]:
    """Every case in every dtype; which library steps each compiles to; the error of TF32."""
    failed: list[str] = []
    steps: dict[str, str] = {}
    heard = _Warnings()
    log = logging.getLogger("hybrid.jit")
    log.addHandler(heard)
    try:
        for name, (function, shapes) in CASES.items():
            for dtype in ("bfloat16",) if quick else TOLERANCE:
                found, error = _compare(function, shapes, dtype, device)
                steps[f"{name}, {dtype}"] = found
                if not error <= TOLERANCE[dtype]:
                    failed.append(f"{name}, {dtype}: off by {error:.2g} of the largest number ({found})")
        before = nd.set_matmul_precision("tf32")
        try:
            _, error = _compare(CASES["product"][0], _DENSE, "float32", device)
        finally:
            nd.set_matmul_precision(before)
        if not error <= 2e-3:
            failed.append(f"product in TF32: off by {error:.2g}")
    finally:
        log.removeHandler(heard)
    return {"steps": steps, "error of TF32": error, "refused": heard.lines, "failed": failed}


def _compare(function: Callable[..., Any], shapes: tuple, dtype: str, device: Device) -> tuple[str, float]:
    """(library steps of the program, largest error in terms of the largest number)."""
    random = np.random.default_rng(0)
    host = [nd.array(random.standard_normal(s).astype(np.float32)).astype(dtype) for s in shapes]
    want = function(*[a.astype("float64") for a in host])
    compiled = hybridize(function)
    got = compiled(*[a.to_device(device) for a in host])
    worst = 0.0
    for w, g in zip(want if isinstance(want, tuple) else (want,), got if isinstance(got, tuple) else (got,), strict=True):
        w, g = w.asnumpy(), g.asnumpy().astype(np.float64)
        worst = max(worst, float(np.abs(g - w).max() / max(np.abs(w).max(), 1e-30)))
    kernels = compiled.last.compiled().recipe.kernels if compiled.last is not None else ()
    names = [symbol.split('"kind": "')[1].split('"')[0] for digest, symbol in kernels if digest == "library"]
    return ", ".join(names) or "generated", worst
