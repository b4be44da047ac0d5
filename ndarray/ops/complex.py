"""Complex numbers: real and imaginary parts, the conjugate, and a complex number from its parts.

Gradients follow JAX's convention: the cotangent c of a complex value z is the number with ``dL = Re(c * dz)``, that is
``dL/dRe(z) - i dL/dIm(z)`` for a real L. Holomorphic functions thus have the rules that they have for real numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from .. import functions as F
from ..op import OPAQUE, ArrayType, Op, Sample, Vjp, register
from .base import broadcast_shapes, expect_kind, expect_same_dtype, fail, random_array, real_dtype

__all__: list[str] = []


def _part_infer(name: str) -> Any:
    def infer(x: ArrayType) -> tuple[ArrayType, ...]:
        expect_kind(name, "x", x.dtype, "c")
        return (ArrayType(x.shape, real_dtype(x.dtype)),)

    return infer


def _numbers(seed: int, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    real, imaginary = (random_array(seed + k, shape, real_dtype(np.dtype(dtype))) for k in (0, 50))
    return np.asarray(real + 1j * imaginary).astype(dtype)


def _samples(reference: Any) -> Any:
    def samples() -> Iterator[Sample]:
        for dtype in (np.complex128, np.complex64):
            for shape in ((3, 4), (), (0, 2)):
                yield Sample((_numbers(1, shape, dtype),), {}, reference)

    return samples


register(Op("real", ("x",), _part_infer("real"), lambda xp, x: xp.array(x.real),
            {"x": Vjp(lambda g, x_type: F.astype(g, x_type.dtype, copy=False))}, OPAQUE,
            _samples(lambda x: np.array([v.real for v in x.ravel().tolist()], real_dtype(x.dtype)).reshape(x.shape))))
register(Op("imag", ("x",), _part_infer("imag"), lambda xp, x: xp.array(x.imag),
            {"x": Vjp(lambda g: F.multiply(g, -1j))}, OPAQUE,
            _samples(lambda x: np.array([v.imag for v in x.ravel().tolist()], real_dtype(x.dtype)).reshape(x.shape))))


def _conj_infer(x: ArrayType) -> tuple[ArrayType, ...]:
    expect_kind("conj", "x", x.dtype, "c")
    return (x,)


register(Op("conj", ("x",), _conj_infer, lambda xp, x: xp.conj(x), {"x": Vjp(lambda g: F.conj(g))}, OPAQUE,
            _samples(lambda x: np.array([v.conjugate() for v in x.ravel().tolist()], x.dtype).reshape(x.shape))))


def _complex_infer(real: ArrayType, imag: ArrayType) -> tuple[ArrayType, ...]:
    dtype = expect_same_dtype("complex", ("real", "imag"), (real, imag))
    if dtype not in (np.float32, np.float64):
        fail("complex", "dtype of real", "float32 or float64", dtype, TypeError)
    return (ArrayType(broadcast_shapes("complex", real.shape, imag.shape), np.dtype(f"complex{dtype.itemsize * 16}")),)


def _complex_eager(xp: Any, real: Any, imag: Any) -> Any:
    shape = np.broadcast_shapes(real.shape, imag.shape)
    out = xp.empty(shape, f"complex{real.dtype.itemsize * 16}")
    out.real, out.imag = real, imag
    return out


def _complex_samples() -> Iterator[Sample]:
    for dtype in (np.float64, np.float32):
        for a, b in (((3, 4), (3, 4)), ((3, 1), (4,)), ((), ()), ((0, 2), (1, 2))):
            yield Sample((random_array(1, a, dtype), random_array(2, b, dtype)), {},
                         lambda x, y: (x + 1j * y).astype(f"complex{x.dtype.itemsize * 16}"))


register(Op("complex", ("real", "imag"), _complex_infer, _complex_eager,
            {"real": Vjp(lambda g: F.real(g)), "imag": Vjp(lambda g: F.negative(F.imag(g)))}, OPAQUE, _complex_samples))
