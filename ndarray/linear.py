"""Products of matrices and tensors, over the primitive dot_general."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .array import NDArray
from .dtypes import bool_, canonical, default_int
from .elementwise import conj, multiply, subtract
from .manipulation import broadcast_to, expand_dims, moveaxis, reshape, squeeze, stack
from .operands import as_array, common, convert, normalize_axis, primitive
from .ops.base import broadcast_shapes, differ

__all__ = ["batch_dot", "cross", "dot", "inner", "kron", "matmul", "matvec", "outer", "tensordot", "vdot", "vecdot", "vecmat"]


def _pair(name: str, x1: Any, x2: Any, dtype: Any = None) -> list[NDArray]:
    if dtype is not None:
        return operands_in(name, x1, x2, dtype)
    if type(x1) is NDArray and type(x2) is NDArray and x1.dtype is x2.dtype:
        pair = [x1, x2]
    else:
        pair = common(name, x1, x2)
    return [convert(x, default_int) for x in pair] if pair[0].dtype == bool_ else pair


def _refuse(name: str, x1: NDArray, x2: NDArray, expected: str) -> None:
    raise ValueError(f"{name}: x1 and x2: expected {expected}, got shapes {x1.shape} and {x2.shape}")


def operands_in(name: str, x1: Any, x2: Any, dtype: Any, arguments: tuple[str, str] = ("x1", "x2")) -> list[NDArray]:
    """The operands of a product that is to be computed in `dtype`. Those of int8 and uint8 for int32 stay as they are, for
    `contracted` to sum in int32. Raises TypeError where NumPy would not convert (casting "same_kind")."""
    dtype = canonical(dtype)
    arrays = [as_array(name, a, x) for a, x in zip(arguments, (x1, x2))]
    for a, x in zip(arguments, arrays):
        if not np.can_cast(x.dtype, dtype, "same_kind"):
            raise TypeError(f"{name}: {a}: expected a dtype that converts to {dtype} in kind, got {x.dtype}; use astype")
    if dtype == np.int32 and all(x.dtype in _BYTES for x in arrays):
        return arrays
    return [convert(x, dtype) for x in arrays]


_BYTES = frozenset((np.dtype(np.int8), np.dtype(np.uint8)))


def contracted(x: NDArray, y: NDArray, contract: tuple, batch: tuple = ((), ()), dtype: Any = None) -> NDArray:
    """The sum of products over some axes, in `dtype` if the arrays are what `operands_in` gave for it."""
    op = "dot_general" if dtype is None or x.dtype == canonical(dtype) else "dot_integer"
    return primitive(op, x, y, contract=contract, batch=batch)


def matmul(x1: Any, x2: Any, /, *, dtype: Any = None) -> NDArray:
    """The matrix product over the last axis of x1 and the last but one of x2; leading axes broadcast, vectors as in NumPy.

    dtype: in which it is computed, the operands being converted first, as in NumPy; by default that in which they meet. With
    ``dtype="int32"`` matrices of int8 and uint8 are multiplied exactly, without copies of them in int32.

    Raises ValueError where the sizes differ or an argument is 0-d, TypeError where an argument doesn't convert to `dtype`.

    >>> nd.matmul(nd.array([[1, 2], [3, 4]]), nd.array([1, 1]))
    array([3, 7])
    >>> x = nd.array([[100, -100]], dtype="int8")
    >>> nd.matmul(x, x.T, dtype="int32")
    array([[20000]], dtype=int32)
    """
    x1, x2 = _pair("matmul", x1, x2, dtype)
    a, b = x1.shape, x2.shape
    if not a or not b:
        _refuse("matmul", x1, x2, "at least 1 axis each (use multiply for numbers)")
    k = len(b) - 2 if len(b) > 1 else 0
    if differ(a[-1], b[k]):
        _refuse("matmul", x1, x2, "the last axis of x1 as long as the last but one of x2")
    if len(b) <= 2:  # one matrix or vector for all of x1: a single product
        return contracted(x1, x2, ((len(a) - 1,), (k,)), dtype=dtype)
    if len(a) == 1:
        return contracted(x2, x1, ((k,), (0,)), dtype=dtype)
    lead = broadcast_shapes("matmul", a[:-2], b[:-2])
    x1, x2 = _widen(x1, lead), _widen(x2, lead)
    n = len(lead)
    axes = tuple(range(n))
    return contracted(x1, x2, ((n + 1,), (n,)), (axes, axes), dtype)


def _widen(x: NDArray, lead: tuple) -> NDArray:
    shape = (*lead, *x.shape[-2:])
    same = len(shape) == x.ndim and not any(type(a) is not type(b) or a != b for a, b in zip(shape, x.shape))
    return x if same else broadcast_to(x, shape)


def dot(x1: Any, x2: Any, /, *, dtype: Any = None) -> NDArray:
    """NumPy's dot: over the last axis of x1 and the last but one (or only) axis of x2; a product for numbers. `dtype` is as in
    `matmul`.

    >>> nd.dot(nd.array([1, 2]), nd.array([3, 4]))
    array(11)
    """
    x1, x2 = _pair("dot", x1, x2, dtype)
    if not x1.ndim or not x2.ndim:
        return multiply(x1, x2) if dtype is None else multiply(convert(x1, canonical(dtype)), convert(x2, canonical(dtype)))
    k = max(x2.ndim - 2, 0)
    if differ(x1.shape[-1], x2.shape[k]):
        _refuse("dot", x1, x2, "the last axis of x1 as long as the last but one of x2")
    return contracted(x1, x2, ((x1.ndim - 1,), (k,)), dtype=dtype)


def inner(x1: Any, x2: Any, /) -> NDArray:
    """The product over the last axes of both.

    >>> nd.inner(nd.array([1, 2]), nd.array([3, 4]))
    array(11)
    """
    x1, x2 = _pair("inner", x1, x2)
    if not x1.ndim or not x2.ndim:
        return multiply(x1, x2)
    if differ(x1.shape[-1], x2.shape[-1]):
        _refuse("inner", x1, x2, "last axes of one size")
    return contracted(x1, x2, ((x1.ndim - 1,), (x2.ndim - 1,)))


def outer(x1: Any, x2: Any, /) -> NDArray:
    """All products of an element of x1 (flattened) and one of x2.

    >>> nd.outer(nd.array([1, 2]), nd.array([3, 4]))
    array([[3, 4],
           [6, 8]])
    """
    x1, x2 = (reshape(x, (-1,)) for x in _pair("outer", x1, x2))
    return multiply(reshape(x1, (-1, 1)), x2)


def vdot(x1: Any, x2: Any, /) -> NDArray:
    """The sum of all products of corresponding elements, those of x1 conjugated.

    >>> nd.vdot(nd.array([1, 2]), nd.array([3, 4]))
    array(11)
    """
    x1, x2 = (reshape(x, (-1,)) for x in _pair("vdot", x1, x2))
    return dot(conj(x1), x2)


def vecdot(x1: Any, x2: Any, /, *, axis: int = -1) -> NDArray:
    """The sum over one axis of the products of corresponding elements, those of x1 conjugated; the other axes broadcast.

    Raises ValueError where the sizes along the axis differ.

    >>> nd.vecdot(nd.array([[1, 2], [3, 4]]), nd.array([1, 10]))
    array([21, 43])
    """
    from .reduction import sum

    x1, x2 = _pair("vecdot", x1, x2)
    if not x1.ndim or not x2.ndim:
        _refuse("vecdot", x1, x2, "at least 1 axis each")
    a, b = (normalize_axis("vecdot", axis, x.ndim) for x in (x1, x2))
    if differ(x1.shape[a], x2.shape[b]):
        _refuse("vecdot", x1, x2, f"equal sizes along axis {axis}")
    x1, x2 = moveaxis(x1, a, -1), moveaxis(x2, b, -1)
    return sum(multiply(conj(x1), x2), -1, dtype=x1.dtype)


def matvec(x1: Any, x2: Any, /) -> NDArray:
    """The products of matrices (the last two axes of x1) and vectors (the last axis of x2); the other axes broadcast.

    >>> nd.matvec(nd.array([[1, 2], [3, 4]]), nd.array([1, 10]))
    array([21, 43])
    """
    x2 = as_array("matvec", "x2", x2)
    return squeeze(matmul(x1, expand_dims(x2, -1)), -1)


def vecmat(x1: Any, x2: Any, /) -> NDArray:
    """The products of conjugated vectors (the last axis of x1) and matrices (the last two of x2); the other axes broadcast.

    >>> nd.vecmat(nd.array([1, 10]), nd.array([[1, 2], [3, 4]]))
    array([31, 42])
    """
    x1 = conj(as_array("vecmat", "x1", x1))
    return squeeze(matmul(expand_dims(x1, -2), x2), -2)


def kron(x1: Any, x2: Any, /) -> NDArray:
    """Kronecker's product: x2 once for each element of x1, multiplied by it; as many axes as the longer shape.

    >>> nd.kron(nd.array([1, 10]), nd.array([1, 2, 3]))
    array([ 1,  2,  3, 10, 20, 30])
    """
    x1, x2 = _pair("kron", x1, x2)
    n = max(x1.ndim, x2.ndim)
    a, b = ((1,) * (n - x.ndim) + x.shape for x in (x1, x2))
    product = multiply(reshape(x1, tuple(v for s in a for v in (s, 1))), reshape(x2, tuple(v for s in b for v in (1, s))))
    return reshape(product, tuple(s * t for s, t in zip(a, b)))


def cross(x1: Any, x2: Any, /, axisa: int = -1, axisb: int = -1, axisc: int = -1, axis: int | None = None) -> NDArray:
    """The vector product along an axis of size 3 (or 2: the third component is 0, and for two such vectors the result is the
    third component only); the other axes broadcast.

    >>> nd.cross(nd.array([1, 0, 0]), nd.array([0, 1, 0]))
    array([0, 0, 1])
    """
    x1, x2 = common("cross", x1, x2)
    if axis is not None:
        axisa = axisb = axisc = axis
    x1 = moveaxis(x1, normalize_axis("cross", axisa, x1.ndim, "axisa"), -1)
    x2 = moveaxis(x2, normalize_axis("cross", axisb, x2.ndim, "axisb"), -1)
    if x1.shape[-1] not in (2, 3) or x2.shape[-1] not in (2, 3):
        _refuse("cross", x1, x2, "vectors of 2 or 3 components")
    a, b = ([x[..., k] for k in range(x.shape[-1])] for x in (x1, x2))
    third = subtract(multiply(a[0], b[1]), multiply(a[1], b[0]))
    if len(a) == len(b) == 2:
        return third
    zero = multiply(third, 0)
    a, b = (v if len(v) == 3 else [*v, zero] for v in (a, b))
    parts = [subtract(multiply(a[1], b[2]), multiply(a[2], b[1])), subtract(multiply(a[2], b[0]), multiply(a[0], b[2])), third]
    out = stack(parts, axis=-1)
    return moveaxis(out, -1, normalize_axis("cross", axisc, out.ndim, "axisc"))


def tensordot(x1: Any, x2: Any, /, axes: int | Sequence = 2) -> NDArray:
    """The sum of products over several axes: the last of x1 with the first of x2 (an int), or two lists of axes.

    >>> nd.tensordot(nd.ones((2, 3)), nd.ones((3, 4)), axes=1).shape
    (2, 4)
    """
    x1, x2 = _pair("tensordot", x1, x2)
    if isinstance(axes, int):
        if axes > x1.ndim or axes > x2.ndim or axes < 0:
            raise ValueError(f"tensordot: axes: expected 0 to {min(x1.ndim, x2.ndim)}, got {axes}")
        first, second = tuple(range(x1.ndim - axes, x1.ndim)), tuple(range(axes))
    else:
        given = [a if isinstance(a, (tuple, list)) else (a,) for a in axes]
        if len(given) != 2 or len(given[0]) != len(given[1]):
            raise ValueError(f"tensordot: axes: expected an int or two lists of one length, got {axes}")
        first = tuple(normalize_axis("tensordot", a, x1.ndim, "axes") for a in given[0])
        second = tuple(normalize_axis("tensordot", a, x2.ndim, "axes") for a in given[1])
    if any(differ(x1.shape[a], x2.shape[b]) for a, b in zip(first, second)):
        _refuse("tensordot", x1, x2, f"equal sizes along the axes {first} of x1 and {second} of x2")
    return contracted(x1, x2, (first, second))


def batch_dot(x1: Any, x2: Any, /, transpose_a: bool = False, transpose_b: bool = False) -> NDArray:
    """Matrix products of the last two axes, one for each position in the leading ones; either may be transposed first.

    >>> nd.batch_dot(nd.ones((2, 1, 3)), nd.ones((2, 3, 1))).shape
    (2, 1, 1)
    """
    x1, x2 = _pair("batch_dot", x1, x2)
    if x1.ndim != x2.ndim or x1.ndim < 3:
        _refuse("batch_dot", x1, x2, "as many axes in both, at least 3")
    n = x1.ndim - 2
    axes = tuple(range(n))
    if differ(x1.shape[n if transpose_a else n + 1], x2.shape[n + 1 if transpose_b else n]) or any(
        differ(a, b) for a, b in zip(x1.shape[:n], x2.shape[:n])
    ):
        _refuse("batch_dot", x1, x2, "equal leading axes, and equal sizes along the contracted ones")
    return contracted(x1, x2, ((n if transpose_a else n + 1,), (n + 1 if transpose_b else n,)), (axes, axes))


