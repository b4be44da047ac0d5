"""Public array functions against NumPy and SciPy: values, dtypes, promotion, weak numbers, errors."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.special

import ndarray as nd
from ndarray import autograd
from ndarray.dims import Dim, record_guards, symbol
from ndarray.testing import assert_close, check_gradients

rng = np.random.default_rng(7)
A = rng.uniform(-2, 2, (3, 4)).astype(np.float32)
B = rng.uniform(0.5, 3, (3, 4)).astype(np.float32)
P = rng.uniform(0.1, 0.9, (3, 4)).astype(np.float32)
T = rng.uniform(-1, 1, (2, 3, 4)).astype(np.float32)
K = rng.integers(-5, 6, (3, 4)).astype(np.int32)


def n(x: np.ndarray) -> nd.NDArray:
    return nd.array(x, dtype=x.dtype)


UNARY: dict[str, tuple[Callable, np.ndarray]] = {
    **{name: (getattr(np, name), A) for name in (
        "abs", "absolute", "fabs", "negative", "positive", "sign", "exp", "expm1", "exp2", "sin", "cos", "tan", "tanh", "sinh",
        "cosh", "arctan", "arcsinh", "floor", "ceil", "trunc", "rint", "fix", "square", "reciprocal", "isnan", "isinf",
        "isfinite", "degrees", "radians", "logical_not", "round", "nan_to_num", "copy",
    )},
    **{name: (getattr(np, name), B) for name in ("log", "log1p", "log2", "log10", "sqrt")},
    **{name: (getattr(np, name), P) for name in ("arcsin", "arccos", "arctanh")},
    "arccosh": (np.arccosh, B + 1), "erf": (scipy.special.erf, A),
    "ndtr": (scipy.special.ndtr, A), "rsqrt": (lambda x: 1 / np.sqrt(x), B),
    "sigmoid": (scipy.special.expit, A), "relu": (lambda x: np.maximum(x, 0), A),
    "bitwise_not": (np.invert, K), "stop_gradient": (lambda x: x, A),
    "softplus": (lambda x: np.log1p(np.exp(x)), A), "softsign": (lambda x: x / (1 + np.abs(x)), A),
    "gelu": (lambda x: x * (1 + scipy.special.erf(x / math.sqrt(2))) / 2, A), "silu": (lambda x: x * scipy.special.expit(x), A),
    "log_sigmoid": (lambda x: np.log(scipy.special.expit(x)), A), "mish": (lambda x: x * np.tanh(np.log1p(np.exp(x))), A),
    "elu": (lambda x: np.where(x > 0, x, np.expm1(x)), A), "softmax": (lambda x: scipy.special.softmax(x, -1), A),
    "leaky_relu": (lambda x: np.where(x > 0, x, x * np.float32(0.25)), A),
    "log_softmax": (lambda x: scipy.special.log_softmax(x, -1), A),
    "hard_sigmoid": (lambda x: np.clip(np.float32(0.2) * x + np.float32(0.5), 0, 1), A),
}


@pytest.mark.parametrize("name", sorted(UNARY))
def test_one_argument(name: str) -> None:
    reference, x = UNARY[name]
    found = getattr(nd, name)(n(x))
    assert_close(found, reference(x), 2, name)
    assert found.dtype == np.asarray(reference(x)).dtype


@pytest.mark.parametrize("name", [
    "add", "subtract", "multiply", "divide", "floor_divide", "remainder", "maximum", "minimum", "arctan2", "equal", "not_equal",
    "less", "less_equal", "greater", "greater_equal", "hypot", "logaddexp", "fmod", "copysign", "logical_and", "logical_or",
    "logical_xor",
])
def test_two_arguments(name: str) -> None:
    for x, y in ((A, B), (A, B[0]), (A[:, :1], B), (np.float32(1.5).reshape(()), B)):
        assert_close(getattr(nd, name)(n(x), n(y)), getattr(np, name)(x, y), 2, name)
    assert_close(getattr(nd, name)(n(A), 2), getattr(np, name)(A, np.float32(2)), 2, name)
    assert_close(getattr(nd, name)(2.5, n(B)), getattr(np, name)(np.float32(2.5), B), 2, name)


@pytest.mark.parametrize("exponent", [0, 1, 2, 3, -1, 0.5, -0.5, 1.7, 2.0])
def test_power(exponent: float) -> None:
    assert_close(n(B) ** exponent, B**np.float32(exponent), 2)
    check_gradients(lambda x: x**exponent, [B.astype(np.float64)])
    assert_close(nd.power(exponent + 2.5, n(A)), (np.float32(exponent) + np.float32(2.5)) ** A, 4)


def test_integer_power_refuses_negative_exponents() -> None:
    assert_close(n(K) ** 2, K**2)
    with pytest.raises(ValueError, match="power: integers can't be raised"):
        n(K) ** -1


def test_promotion() -> None:
    def dtype(*values: Any) -> str:
        return nd.add(*values).dtype.name

    f32, f64, i32, u8, b = (nd.ones(3, dtype=d) for d in ("float32", "float64", "int32", "uint8", "bool"))
    assert dtype(f32, 1) == dtype(f32, 1.5) == dtype(2, f32) == dtype(f32, True) == "float32"
    assert dtype(f32, f64) == "float64"
    assert dtype(f32, i32) == "float32"
    assert dtype(i32, 1) == dtype(i32, u8) == "int32"
    assert dtype(i32, 1.5) == "float32"
    assert dtype(u8, 1) == "uint8"
    assert dtype(b, 1) == "int64"
    assert dtype(b, b) == "bool"
    assert (i32 / i32).dtype == (i32 / 2).dtype == np.float32
    assert (f64 * np.float32(2)).dtype == np.float64
    assert nd.exp(i32).dtype == nd.mean(i32).dtype == nd.softmax(i32).dtype == np.float32
    assert nd.sum(b).dtype == nd.sum(i32).dtype == np.int64
    assert nd.sum(u8).dtype == np.uint64
    assert nd.sum(f32).dtype == np.float32
    assert nd.where(b, 1.0, f32).dtype == np.float32
    assert nd.concatenate([i32, f32]).dtype == np.float32
    half = nd.ones(3, dtype="float16")
    assert dtype(half, 2.5) == "float16"
    assert nd.mean(half).dtype == nd.softmax(half).dtype == np.float16


def test_half_precision() -> None:
    for dtype in ("float16", "bfloat16"):
        x = nd.array(A, dtype=dtype)
        for f in (nd.exp, nd.sigmoid, nd.relu, nd.softmax, nd.gelu, nd.layer_norm, nd.mean, nd.negative, nd.isnan):
            want = f(x.astype("float32")).asnumpy()
            assert_close(f(x).astype(str(want.dtype)), want, 3000, f"{f.__name__} {dtype}")
        assert nd.matmul(x, x.T).dtype == x.dtype
        assert (x + 1.5).dtype == x.dtype
        assert bool(nd.all(x == x))


def test_arguments_of_other_kinds() -> None:
    assert_close(nd.add(A, 1), A + 1)
    assert_close(nd.add([1.0, 2.0], n(A[0, :2])), A[0, :2] + np.float32([1, 2]))
    assert nd.exp(0.0).item() == 1.0
    with pytest.raises(TypeError, match="add: x2: expected an array or a number, got str"):
        nd.add(n(A), "1")
    with pytest.raises(ValueError, match=r"add: shapes of the arguments: expected .* got \(3, 4\) and \(3, 3\)"):
        nd.add(n(A), nd.ones((3, 3)))
    with pytest.raises(TypeError, match="bitwise_and: x1 and x2"):
        nd.bitwise_and(n(A), n(A))
    with pytest.raises(TypeError, match="subtract"):
        nd.subtract(nd.ones(2, dtype="bool"), nd.ones(2, dtype="bool"))


AXES = [None, 0, 1, -1, (0, 2), (0, 1, 2), ()]


@pytest.mark.parametrize("name", ["sum", "prod", "mean", "var", "std", "max", "min", "all", "any"])
def test_reductions(name: str) -> None:
    for axis in AXES:
        for keepdims in (False, True):
            if axis == () and name in ("var", "std"):
                continue
            found = getattr(nd, name)(n(T), axis=axis, keepdims=keepdims)
            assert_close(found, getattr(np, name)(T, axis=axis, keepdims=keepdims), 2, f"{name} {axis}")


def test_more_reductions() -> None:
    for axis in (None, 0, 2):
        assert_close(nd.argmax(n(T), axis=axis), T.argmax(axis))
        assert_close(nd.argmin(n(T), axis=axis, keepdims=True), T.argmin(axis, keepdims=True))
        assert_close(nd.cumsum(n(T), axis=axis), T.cumsum(axis))
        assert_close(nd.logsumexp(n(T), axis=axis), scipy.special.logsumexp(T, axis))
        assert_close(nd.median(n(T), axis=axis), np.median(T, axis))
        assert_close(nd.count_nonzero(nd.array(T > 0), axis=axis), np.count_nonzero(T > 0, axis))
        assert_close(nd.sort(n(T), axis=axis), np.sort(T, axis))
        assert_close(nd.argsort(n(T), axis=axis), np.argsort(T, axis, kind="stable"))
        for order in (None, 1, 2, np.inf, -np.inf, 3):
            want = np.linalg.norm(T.ravel() if axis is None else T, order, axis)
            assert_close(nd.norm(n(T), order, axis), want)
    assert_close(nd.var(n(T), 1, correction=1), T.var(1, ddof=1))
    assert_close(nd.trace(n(A)), np.trace(A))
    assert_close(nd.average(n(A), 1, weights=n(B[0])), np.average(A, 1, B[0]))
    assert nd.logsumexp(nd.array([-np.inf, -np.inf])).item() == -np.inf
    value, order = nd.topk(n(A), 2, ret_typ="both")
    assert_close(value, -np.sort(-A, 1)[:, :2])
    assert_close(order, np.argsort(-A, 1, kind="stable")[:, :2])
    assert_close(nd.sum(nd.zeros((0, 3)), axis=0), np.zeros(3, np.float32))
    with pytest.raises(ValueError, match="max: the reduced axes of x: expected at least one element"):
        nd.max(nd.zeros((0, 3)), axis=0)
    with pytest.raises(IndexError, match=r"sum: axis: expected an int from -2 to 1, got 2"):
        nd.sum(n(A), axis=2)
    with pytest.raises(ValueError, match="sum: axis: expected different axes"):
        nd.sum(n(A), axis=(0, -2))


MANIPULATIONS: dict[str, tuple[Callable, Callable]] = {
    "reshape": (lambda x: nd.reshape(x, (-1, 6)), lambda x: x.reshape(-1, 6)),
    "reshape method": (lambda x: x.reshape(4, -1), lambda x: x.reshape(4, -1)),
    "transpose": (nd.transpose, np.transpose),
    "permute_dims": (lambda x: nd.permute_dims(x, (1, -1, 0)), lambda x: x.transpose(1, 2, 0)),
    "swapaxes": (lambda x: nd.swapaxes(x, 0, -1), lambda x: x.swapaxes(0, -1)),
    "moveaxis": (lambda x: nd.moveaxis(x, 0, -1), lambda x: np.moveaxis(x, 0, -1)),
    "moveaxis 2": (lambda x: nd.moveaxis(x, (0, 1), (2, 0)), lambda x: np.moveaxis(x, (0, 1), (2, 0))),
    "expand_dims": (lambda x: nd.expand_dims(x, (0, -1)), lambda x: np.expand_dims(x, (0, -1))),
    "squeeze": (lambda x: nd.squeeze(x[:1]), lambda x: np.squeeze(x[:1])),
    "squeeze axis": (lambda x: nd.squeeze(x[:1], 0), lambda x: np.squeeze(x[:1], 0)),
    "broadcast_to": (lambda x: nd.broadcast_to(x, (5, 2, 3, 4)), lambda x: np.broadcast_to(x, (5, 2, 3, 4))),
    "flip": (lambda x: nd.flip(x, (0, 2)), lambda x: np.flip(x, (0, 2))),
    "flip all": (nd.flip, np.flip),
    "concatenate": (lambda x: nd.concatenate([x, x[:, :1]], 1), lambda x: np.concatenate([x, x[:, :1]], 1)),
    "concat None": (lambda x: nd.concat([x, x], None), lambda x: np.concatenate([x, x], None)),
    "stack": (lambda x: nd.stack([x, x + 1], -1), lambda x: np.stack([x, x + 1], -1)),
    "hstack": (lambda x: nd.hstack([x, x]), lambda x: np.hstack([x, x])),
    "vstack": (lambda x: nd.vstack([x[0, 0], x[0, 1]]), lambda x: np.vstack([x[0, 0], x[0, 1]])),
    "column_stack": (lambda x: nd.column_stack([x[0, 0], x[0, 1]]), lambda x: np.column_stack([x[0, 0], x[0, 1]])),
    "split": (lambda x: nd.split(x, 2, 2), lambda x: np.split(x, 2, 2)),
    "split at": (lambda x: nd.split(x, [1, 3], 2), lambda x: np.split(x, [1, 3], 2)),
    "unstack": (lambda x: nd.unstack(x, axis=1), lambda x: [x[:, k] for k in range(3)]),
    "roll": (lambda x: nd.roll(x, (1, -2), (0, 2)), lambda x: np.roll(x, (1, -2), (0, 2))),
    "roll flat": (lambda x: nd.roll(x, 5), lambda x: np.roll(x, 5)),
    "tile": (lambda x: nd.tile(x, (2, 1, 1, 3)), lambda x: np.tile(x, (2, 1, 1, 3))),
    "repeat": (lambda x: nd.repeat(x, 3, 1), lambda x: np.repeat(x, 3, 1)),
    "repeat flat": (lambda x: nd.repeat(x, 2), lambda x: np.repeat(x, 2)),
    "repeat each": (lambda x: nd.repeat(x, [1, 0, 2], 1), lambda x: np.repeat(x, [1, 0, 2], 1)),
    "pad": (lambda x: nd.pad(x, ((0, 0), (1, 2), (0, 1)), constant_values=3),
            lambda x: np.pad(x, ((0, 0), (1, 2), (0, 1)), constant_values=3)),
    "pad reflect": (lambda x: nd.pad(x, ((0, 0), (1, 2), (0, 1)), "reflect"),
                    lambda x: np.pad(x, ((0, 0), (1, 2), (0, 1)), "reflect")),
    "pad edge": (lambda x: nd.pad(x, 1, "edge"), lambda x: np.pad(x, 1, "edge")),
    "take": (lambda x: nd.take(x, nd.array([[0, 2], [1, 1]]), 1), lambda x: np.take(x, [[0, 2], [1, 1]], 1)),
    "take negative": (lambda x: nd.take(x, [-1, 0], 2), lambda x: np.take(x, [-1, 0], 2)),
    "take flat": (lambda x: nd.take(x, nd.array([5, 0])), lambda x: np.take(x, [5, 0])),
    "take_along_axis": (lambda x: nd.take_along_axis(x, nd.array([[[0], [-1], [2]]]), 2),
                        lambda x: np.take_along_axis(x, np.broadcast_to([[[0], [-1], [2]]], (2, 3, 1)), 2)),
    "diff": (lambda x: nd.diff(x, 2), lambda x: np.diff(x, 2)),
    "tril": (lambda x: nd.tril(x, 1), lambda x: np.tril(x, 1)),
    "triu": (lambda x: nd.triu(x, -1), lambda x: np.triu(x, -1)),
    "diagonal": (nd.diagonal, np.diagonal),
    "diagonal below": (lambda x: nd.diagonal(x, -1), lambda x: np.diagonal(x, -1)),
    "diagonal above": (lambda x: nd.diagonal(x, 2, 1, 2), lambda x: np.diagonal(x, 2, 1, 2)),
    "diag vector": (lambda x: nd.diag(x[0, 0], 1), lambda x: np.diag(x[0, 0], 1)),
    "diag below": (lambda x: nd.diag(x[0, 0], -2), lambda x: np.diag(x[0, 0], -2)),
    "diag matrix": (lambda x: nd.diag(x[0], 1), lambda x: np.diag(x[0], 1)),
    "broadcast_arrays": (lambda x: nd.broadcast_arrays(x, x[0, 0])[1], lambda x: np.broadcast_arrays(x, x[0, 0])[1]),
    "slice_axis": (lambda x: nd.slice_axis(x, 2, 1, None), lambda x: x[:, :, 1:]),
    "clip": (lambda x: nd.clip(x, -0.3, 0.4), lambda x: np.clip(x, np.float64(-0.3), 0.4)),
    "where": (lambda x: nd.where(x > 0, x, 2 * x), lambda x: np.where(x > 0, x, 2 * x)),
    "sort": (lambda x: nd.sort(x, 1), lambda x: np.sort(x, 1)),
    "cumsum": (lambda x: nd.cumsum(x, 2), lambda x: np.cumsum(x, 2)),
    "outer": (lambda x: nd.outer(x[0], x[1]), lambda x: np.outer(x[0], x[1])),
    "inner": (lambda x: nd.inner(x, x), lambda x: np.inner(x, x)),
    "tensordot": (lambda x: nd.tensordot(x, x, ((0, 1), (0, 1))), lambda x: np.tensordot(x, x, ((0, 1), (0, 1)))),
    "tensordot 1": (lambda x: nd.tensordot(x, x[0, 0], 1), lambda x: np.tensordot(x, x[0, 0], 1)),
    "vecdot": (lambda x: nd.vecdot(x, x[0]), lambda x: (x * x[0]).sum(-1)),
    "batch_dot": (lambda x: nd.batch_dot(x, x, transpose_b=True), lambda x: x @ x.transpose(0, 2, 1)),
    "norm": (lambda x: nd.norm(x, axis=1), lambda x: np.linalg.norm(x, axis=1)),
    "std": (lambda x: nd.std(x, 1), lambda x: np.std(x, 1)),
}


@pytest.mark.parametrize("name", sorted(MANIPULATIONS))
def test_manipulation_and_its_gradient(name: str) -> None:
    function, reference = MANIPULATIONS[name]
    x = T.astype(np.float64)
    found, want = function(n(x)), reference(x)
    assert_close(list(found) if isinstance(want, list) else found, want, 1, name)
    check_gradients(lambda v: function(v), [x], limit=2e-5)


@pytest.mark.parametrize("shapes", [((3,), (3,)), ((2, 3), (3,)), ((3,), (3, 4)), ((2, 3), (3, 4)), ((5, 2, 3), (3, 4)),
                                    ((3,), (5, 3, 2)), ((5, 2, 3), (5, 3, 4)), ((5, 1, 2, 3), (6, 3, 4)), ((2, 3), (5, 3, 4)),
                                    ((0, 3), (3, 2))])
def test_matmul(shapes: tuple) -> None:
    x, y = (rng.standard_normal(s) for s in shapes)
    assert_close(nd.matmul(n(x), n(y)), x @ y)
    check_gradients(nd.matmul, [x, y])
    if len(shapes[1]) <= 2:
        assert_close(nd.dot(n(x), n(y)), np.dot(x, y))


def test_matmul_errors() -> None:
    for f in (nd.matmul, nd.dot):
        with pytest.raises(ValueError, match=rf"{f.__name__}: x1 and x2: expected .* got shapes \(2, 3\) and \(2, 3\)"):
            f(nd.ones((2, 3)), nd.ones((2, 3)))
    with pytest.raises(ValueError, match="matmul: x1 and x2: expected at least 1 axis"):
        nd.matmul(2.0, nd.ones(3))


def test_positions_that_do_not_exist() -> None:
    x = nd.array([10.0, 11.0, 12.0])
    assert nd.take(x, nd.array([5, -7])).tolist() == [12.0, 10.0]
    assert nd.take(x, nd.array([-1, 3]), mode="wrap").tolist() == [12.0, 10.0]
    with pytest.raises(IndexError, match="take: indices: expected values from -3 to 2"):
        nd.take(x, nd.array([3]), mode="raise")


def test_symbolic_sizes_pass_through() -> None:
    """The shape arithmetic of reshape keeps a symbolic size, without a guard."""
    from ndarray.op import OPS, ArrayType

    size, guards = symbol("n", 6), []
    with record_guards(guards.append):
        (t,) = OPS["reshape"].infer(ArrayType((size, 4, 5), np.dtype(np.float32)), shape=(size * 4, 5))
        (m,) = OPS["matmul" if "matmul" in OPS else "dot_general"].infer(
            t, ArrayType((5, 2), np.dtype(np.float32)), contract=((1,), (0,)), batch=((), ()))
    assert isinstance(m.shape[0], Dim)
    assert not guards


def test_gradient_shared_by_equal_maxima() -> None:
    x = nd.array([1.0, 3.0, 3.0])
    x.attach_grad()
    with autograd.record():
        y = nd.max(x) + nd.maximum(x, 3.0).sum()
    y.backward()
    assert x.grad.tolist() == [0.0, 1.0, 1.0]
