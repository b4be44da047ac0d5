"""Complex numbers: their parts, angles and conjugates."""

from __future__ import annotations

from typing import Any

import numpy as np

from . import ops  # noqa: F401  (fills the table)
from .apply import apply
from .array import NDArray
from .binary import arctan2, equal, not_equal
from .creation import zeros_like
from .op import OPS
from .operands import as_array, as_floating
from .unary import degrees

__all__ = [
    "angle",
    "conj",
    "conjugate",
    "imag",
    "iscomplex",
    "isreal",
    "real",
    "real_if_close",
]


def real(x: Any, /) -> NDArray:
    """The real parts, in float32 or float64; x itself where it is real.

    >>> nd.real(nd.array([1 + 2j, 3 - 1j]))
    array([1., 3.])
    """
    x = as_array("real", "x", x)
    return apply(OPS["real"], x) if x.dtype.kind == "c" else x


def imag(x: Any, /) -> NDArray:
    """The imaginary parts, in float32 or float64; zeros of x's dtype where it is real.

    >>> nd.imag(nd.array([1 + 2j, 3 - 1j]))
    array([ 2., -1.])
    """
    x = as_array("imag", "x", x)
    return apply(OPS["imag"], x) if x.dtype.kind == "c" else zeros_like(x)


def conj(x: Any, /) -> NDArray:
    """The complex conjugates; x itself where it is real.

    >>> nd.conj(nd.array([1 + 2j]))
    array([1.-2.j])
    """
    x = as_array("conj", "x", x)
    return apply(OPS["conj"], x) if x.dtype.kind == "c" else x


conjugate = conj


def angle(x: Any, /, deg: bool = False) -> NDArray:
    """The angle of complex numbers in (-pi, pi], in radians, or degrees if `deg`.

    >>> nd.angle(nd.array([1j, -1 + 0j]), deg=True)
    array([ 90., 180.])
    """
    x = as_floating("angle", x)
    out = arctan2(imag(x), real(x))
    return degrees(out) if deg else out


def iscomplex(x: Any, /) -> NDArray:
    """Whether the imaginary part is not 0, elementwise.

    >>> nd.iscomplex(nd.array([1 + 0j, 2j]))
    array([False,  True])
    """
    return not_equal(imag(x), 0)


def isreal(x: Any, /) -> NDArray:
    """Whether the imaginary part is 0, elementwise.

    >>> nd.isreal(nd.array([1 + 0j, 2j]))
    array([ True, False])
    """
    return equal(imag(x), 0)


def real_if_close(x: Any, /, tol: float = 100) -> NDArray:
    """The real parts if all imaginary ones are below `tol` times the dtype's precision, else x. The values must be known.

    >>> nd.real_if_close(nd.array([1 + 1e-14j], dtype="complex128"))
    array([1.], dtype=float64)
    """
    x = as_array("real_if_close", "x", x)
    if x.dtype.kind != "c":
        return x
    parts = x._concrete("real_if_close()").imag
    limit = tol * np.finfo(parts.dtype).eps if tol > 1 else tol
    return real(x) if (np.abs(parts) < limit).all() else x
