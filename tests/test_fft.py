"""nd.fft against NumPy, and its gradients against differences."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import ndarray as nd
from ndarray.testing import assert_close, check_gradients

rng = np.random.default_rng(3)
REAL = rng.standard_normal((3, 4, 5))
COMPLEX = REAL + 1j * rng.standard_normal((3, 4, 5))
NORMS = ("backward", "ortho", "forward")


def n(x: Any) -> nd.NDArray:
    return nd.array(x, dtype=x.dtype)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("name", ["fft", "ifft", "rfft", "irfft", "hfft", "ihfft"])
def test_along_one_axis(name: str, norm: str) -> None:
    x = REAL if name in ("rfft", "ihfft") else COMPLEX
    for axis in (-1, 0, 1):
        for size in (None, 3, 6, 7):
            found = getattr(nd.fft, name)(n(x), size, axis, norm)
            assert_close(found, getattr(np.fft, name)(x, size, axis, norm), 10, f"{name} {axis} {size}")
    check_gradients(lambda v: getattr(nd.fft, name)(v, 6, 1, norm), [x])
    check_gradients(lambda v: getattr(nd.fft, name)(v, 3, 1, norm), [x])


@pytest.mark.parametrize("name", ["fft2", "ifft2", "fftn", "ifftn", "rfft2", "irfft2", "rfftn", "irfftn"])
def test_along_several_axes(name: str) -> None:
    x = REAL if name.startswith("rfft") else COMPLEX
    for norm in NORMS:
        assert_close(getattr(nd.fft, name)(n(x), norm=norm), getattr(np.fft, name)(x, norm=norm), 10, name)
        assert_close(getattr(nd.fft, name)(n(x), s=(3, 6), axes=(0, 2), norm=norm),
                     getattr(np.fft, name)(x, s=(3, 6), axes=(0, 2), norm=norm), 10, name)
    check_gradients(lambda v: getattr(nd.fft, name)(v, s=(3, 6), axes=(0, 2)), [x])


def test_dtypes() -> None:
    assert nd.fft.fft(nd.ones(4)).dtype == nd.fft.rfft(nd.ones(4)).dtype == nd.fft.fft(nd.arange(4)).dtype == np.complex64
    assert nd.fft.fft(nd.ones(4, dtype="float64")).dtype == np.complex128
    assert nd.fft.irfft(nd.ones(4, dtype="complex64")).dtype == np.float32
    assert nd.fft.fft(nd.ones(4, dtype="float16")).dtype == np.complex64
    with pytest.raises(TypeError, match="rfft: x: expected a real dtype, got complex64"):
        nd.fft.rfft(nd.ones(4, dtype="complex64"))
    with pytest.raises(ValueError, match="fft: norm"):
        nd.fft.fft(nd.ones(4), norm="unitary")
    with pytest.raises(ValueError, match="fft: n: expected at least 1"):
        nd.fft.fft(nd.ones(4), n=0)


def test_frequencies_and_shifts() -> None:
    for size in (1, 4, 5):
        assert_close(nd.fft.fftfreq(size, d=0.5), np.fft.fftfreq(size, 0.5).astype(np.float32))
        assert_close(nd.fft.rfftfreq(size, d=0.5), np.fft.rfftfreq(size, 0.5).astype(np.float32))
    assert nd.fft.fftfreq(4, dtype="float64").dtype == np.float64
    for axes in (None, 1, (0, 2)):
        assert_close(nd.fft.fftshift(n(REAL), axes=axes), np.fft.fftshift(REAL, axes))
        assert_close(nd.fft.ifftshift(n(REAL), axes=axes), np.fft.ifftshift(REAL, axes))
    check_gradients(nd.fft.fftshift, [REAL])
