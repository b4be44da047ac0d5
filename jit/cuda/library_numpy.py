"""Library steps in NumPy: what ``sim(i)`` and the interpreter run in the place of cublasLt and cuDNN.

With the same operands, strides, offsets, epilogues and roundings: inputs as they are (or rounded to TF32), sums in float32
(float64 for float64), one rounding at the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any

import numpy as np

__all__ = ["NUMPY_STEPS", "run_step", "tf32"]


def run_step(step: dict[str, Any], arrays: Sequence[np.ndarray], arguments: Sequence[int]) -> None:
    """Run a step on flat arrays, one for each buffer. Views that leave their array are an error."""
    kind = step["kind"]
    if kind not in NUMPY_STEPS:
        import_module(f".library_{kind}", __package__)
    with np.errstate(all="ignore"):
        NUMPY_STEPS[kind](step, {name: a for (name, _), a in zip(step["buffers"], arrays, strict=True)}, list(arguments))


def view(array: np.ndarray, offset: int, shape: Sequence[int], strides: Sequence[int]) -> np.ndarray:
    """Elements of a flat array from `offset` on, at strides counted in elements."""
    last = offset + sum((n - 1) * s for n, s in zip(shape, strides))
    if 0 in shape:
        return np.empty(shape, array.dtype)
    assert offset >= 0 and last < array.size, f"elements {offset} to {last} of {array.size}"
    return np.lib.stride_tricks.as_strided(array[offset:], shape, [s * array.itemsize for s in strides])


def tf32(x: np.ndarray) -> np.ndarray:
    """float32 rounded to the 10 bits of mantissa of TF32, to nearest, ties away from zero as the hardware does."""
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
    rounded = (bits + np.uint32(0x1000)) & np.uint32(0xFFFFE000)
    return np.where(np.isfinite(x), rounded.view(np.float32), x)


def wide(x: np.ndarray, precision: str = "") -> np.ndarray:
    """In the dtype of the sums."""
    if x.dtype.itemsize < 4:
        return x.astype(np.float32)
    return tf32(x) if precision == "tf32" and x.dtype == np.float32 else x


def finished(step: dict[str, Any], total: np.ndarray, bias: np.ndarray | None, residual: np.ndarray | None) -> np.ndarray:
    """The epilogue: ``activation(alpha * total + residual + bias)``."""
    kind = total.dtype.type
    out = total if step["alpha"] == 1.0 else total * kind(step["alpha"])
    if residual is not None:
        out = out + residual.astype(total.dtype)
    if bias is not None:
        out = out + bias.astype(total.dtype)
    if step["activation"] == "relu":
        out = np.maximum(out, kind(0))
    elif step["activation"] == "gelu":
        out = kind(0.5) * out * (1 + np.tanh(kind(np.sqrt(2 / np.pi)) * (out + kind(0.044715) * out * out * out)))
    return out


def _product(step: dict[str, Any], arrays: dict[str, np.ndarray], arguments: list[int]) -> None:
    take = iter(arguments)
    batch, rows, columns, depth = (next(take) for _ in range(4))
    operands = []
    for name, extent in (("x", rows), ("y", columns)):
        offset, *strides = (next(take) for _ in range(4))
        operands.append(wide(view(arrays[name], offset, (batch, extent, depth), strides), step["precision"]))
    bias = residual = None
    if "bias" in arrays:
        bias = view(arrays["bias"], next(take), (columns,), (1,))
    out = arrays["out"][: batch * rows * columns].reshape(batch, rows, columns)
    if "residual" in arrays:
        next(take)
        residual = arrays["residual"][: out.size].reshape(out.shape)
    total = np.matmul(operands[0], operands[1].transpose(0, 2, 1))
    out[...] = finished(step, total, bias, residual).astype(out.dtype)


NUMPY_STEPS: dict[str, Any] = {"product": _product}
"""How each kind of step is computed."""
