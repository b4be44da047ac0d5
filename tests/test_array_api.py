"""The Python Array API standard, 2025.12: names and signatures, dtypes and promotion, special cases, and values of every
dtype against NumPy. (The standard's own suite goes further; this file holds what it asks for in one place.)"""

from __future__ import annotations

import inspect
import math
import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.array_api import make_strategies_namespace

import ndarray as nd

xps = make_strategies_namespace(nd)
settings.register_profile("array_api", max_examples=25, deadline=None, derandomize=True, database=None,
                          suppress_health_check=list(HealthCheck))
settings.load_profile("array_api")

MAIN = """
    abs(x, /); acos(x, /); acosh(x, /); add(x1, x2, /); all(x, /, *, axis=None, keepdims=False);
    any(x, /, *, axis=None, keepdims=False); arange(start, /, stop=None, step=1, *, dtype=None, device=None);
    argmax(x, /, *, axis=None, keepdims=False); argmin(x, /, *, axis=None, keepdims=False);
    argsort(x, /, *, axis=-1, descending=False, stable=True); asarray(obj, /, *, dtype=None, device=None, copy=None);
    asin(x, /); asinh(x, /); astype(x, dtype, /, *, copy=True, device=None); atan(x, /); atan2(x1, x2, /); atanh(x, /);
    bitwise_and(x1, x2, /); bitwise_invert(x, /); bitwise_left_shift(x1, x2, /); bitwise_or(x1, x2, /);
    bitwise_right_shift(x1, x2, /); bitwise_xor(x1, x2, /); broadcast_arrays(*arrays); broadcast_shapes(*shapes);
    broadcast_to(x, /, shape); can_cast(from_, to, /); ceil(x, /); clip(x, /, min=None, max=None);
    concat(arrays, /, *, axis=0); conj(x, /); copysign(x1, x2, /); cos(x, /); cosh(x, /);
    count_nonzero(x, /, *, axis=None, keepdims=False);
    cumulative_prod(x, /, *, axis=None, dtype=None, include_initial=False);
    cumulative_sum(x, /, *, axis=None, dtype=None, include_initial=False);
    diff(x, /, *, axis=-1, n=1, prepend=None, append=None); divide(x1, x2, /); empty(shape, *, dtype=None, device=None);
    empty_like(x, /, *, dtype=None, device=None); equal(x1, x2, /); exp(x, /); expand_dims(x, /, axis); expm1(x, /);
    eye(n_rows, n_cols=None, /, *, k=0, dtype=None, device=None); finfo(type, /); flip(x, /, *, axis=None); floor(x, /);
    floor_divide(x1, x2, /); from_dlpack(x, /, *, device=None, copy=None);
    full(shape, fill_value, *, dtype=None, device=None); full_like(x, /, fill_value, *, dtype=None, device=None);
    greater(x1, x2, /); greater_equal(x1, x2, /); hypot(x1, x2, /); iinfo(type, /); imag(x, /); isdtype(dtype, kind);
    isfinite(x, /); isin(x1, x2, /, *, invert=False); isinf(x, /); isnan(x, /); less(x1, x2, /); less_equal(x1, x2, /);
    linspace(start, stop, /, num, *, dtype=None, device=None, endpoint=True); log(x, /); log10(x, /); log1p(x, /);
    log2(x, /); logaddexp(x1, x2, /); logical_and(x1, x2, /); logical_not(x, /); logical_or(x1, x2, /);
    logical_xor(x1, x2, /); matmul(x1, x2, /); matrix_transpose(x, /); max(x, /, *, axis=None, keepdims=False);
    maximum(x1, x2, /); mean(x, /, *, axis=None, keepdims=False); meshgrid(*arrays, indexing='xy');
    min(x, /, *, axis=None, keepdims=False); minimum(x1, x2, /); moveaxis(x, source, destination, /); multiply(x1, x2, /);
    negative(x, /); nextafter(x1, x2, /); nonzero(x, /); not_equal(x1, x2, /); ones(shape, *, dtype=None, device=None);
    ones_like(x, /, *, dtype=None, device=None); permute_dims(x, /, axes); positive(x, /); pow(x1, x2, /);
    prod(x, /, *, axis=None, dtype=None, keepdims=False); real(x, /); reciprocal(x, /); remainder(x1, x2, /);
    repeat(x, repeats, /, *, axis=None); reshape(x, /, shape, *, copy=None); result_type(*arrays_and_dtypes);
    roll(x, /, shift, *, axis=None); round(x, /); searchsorted(x1, x2, /, *, side='left', sorter=None); sign(x, /);
    signbit(x, /); sin(x, /); sinh(x, /); sort(x, /, *, axis=-1, descending=False, stable=True); sqrt(x, /); square(x, /);
    squeeze(x, /, axis); stack(arrays, /, *, axis=0); std(x, /, *, axis=None, correction=0, keepdims=False);
    subtract(x1, x2, /); sum(x, /, *, axis=None, dtype=None, keepdims=False); take(x, indices, /, *, axis=None);
    take_along_axis(x, indices, /, *, axis=-1); tan(x, /); tanh(x, /); tensordot(x1, x2, /, *, axes=2);
    tile(x, repetitions, /); tril(x, /, *, k=0); triu(x, /, *, k=0); trunc(x, /); unique_all(x, /); unique_counts(x, /);
    unique_inverse(x, /); unique_values(x, /); unstack(x, /, *, axis=0);
    var(x, /, *, axis=None, correction=0, keepdims=False); vecdot(x1, x2, /, *, axis=-1); where(condition, x1, x2, /);
    zeros(shape, *, dtype=None, device=None); zeros_like(x, /, *, dtype=None, device=None);
"""
LINALG = """
    cholesky(x, /, *, upper=False); cross(x1, x2, /, *, axis=-1); det(x, /); diagonal(x, /, *, offset=0); eigh(x, /);
    eigvalsh(x, /); inv(x, /); matmul(x1, x2, /); matrix_norm(x, /, *, keepdims=False, ord='fro'); matrix_power(x, n, /);
    matrix_rank(x, /, *, rtol=None); matrix_transpose(x, /); outer(x1, x2, /); pinv(x, /, *, rtol=None);
    qr(x, /, *, mode='reduced'); slogdet(x, /); solve(x1, x2, /); svd(x, /, *, full_matrices=True); svdvals(x, /);
    tensordot(x1, x2, /, *, axes=2); trace(x, /, *, offset=0, dtype=None); vecdot(x1, x2, /, *, axis=-1);
    vector_norm(x, /, *, axis=None, keepdims=False, ord=2);
"""
FFT = """
    fft(x, /, *, n=None, axis=-1, norm='backward'); fftfreq(n, /, *, d=1.0, dtype=None, device=None);
    fftn(x, /, *, s=None, axes=None, norm='backward'); fftshift(x, /, *, axes=None);
    hfft(x, /, *, n=None, axis=-1, norm='backward'); ifft(x, /, *, n=None, axis=-1, norm='backward');
    ifftn(x, /, *, s=None, axes=None, norm='backward'); ifftshift(x, /, *, axes=None);
    ihfft(x, /, *, n=None, axis=-1, norm='backward'); irfft(x, /, *, n=None, axis=-1, norm='backward');
    irfftn(x, /, *, s=None, axes=None, norm='backward'); rfft(x, /, *, n=None, axis=-1, norm='backward');
    rfftfreq(n, /, *, d=1.0, dtype=None, device=None); rfftn(x, /, *, s=None, axes=None, norm='backward');
"""
METHODS = """
    __abs__(self); __array_namespace__(self, /, *, api_version=None); __bool__(self); __complex__(self);
    __dlpack__(self, /, *, stream=None, max_version=None, dl_device=None, copy=None); __dlpack_device__(self);
    __float__(self); __getitem__(self, key, /); __index__(self); __int__(self); __invert__(self); __neg__(self);
    __pos__(self); __setitem__(self, key, value, /); to_device(self, device, /, *, stream=None);
"""

def rows(table: str) -> list[tuple[str, str]]:
    """(name, signature) of each entry."""
    return [(e[: e.index("(")].strip(), e[e.index("(") :].strip()) for e in " ".join(table.split()).split(";") if e.strip()]


BINARY_OPERATORS = ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and", "or", "xor", "lshift", "rshift")
SIGNATURES = [
    *rows(MAIN), *((f"linalg.{n}", s) for n, s in rows(LINALG)), *((f"fft.{n}", s) for n, s in rows(FFT)),
    *((f"NDArray.{n}", s) for n, s in rows(METHODS)),
    *((f"NDArray.__{p}{o}__", "(self, other, /)") for o in BINARY_OPERATORS for p in ("", "r", "i")),
    *((f"NDArray.__{o}__", "(self, other, /)") for o in ("eq", "ne", "lt", "le", "gt", "ge")),
]
P = inspect.Parameter
KEYWORD, POSITIONAL, EITHER = P.KEYWORD_ONLY, P.POSITIONAL_ONLY, P.POSITIONAL_OR_KEYWORD


@pytest.mark.parametrize(("name", "signature"), SIGNATURES, ids=[n for n, _ in SIGNATURES])
def test_signature(name: str, signature: str) -> None:
    """Everything that the standard allows in a call is allowed here."""
    scope: dict[str, Any] = {}
    exec(f"def expected{signature}: pass", scope)
    found = inspect.signature(operator.attrgetter(name)(nd))
    have, want = list(found.parameters.values()), list(inspect.signature(scope["expected"]).parameters.values())
    for k, w in enumerate(want):
        if w.kind is KEYWORD:
            h = found.parameters[w.name]
            assert h.kind in (KEYWORD, EITHER) and h.default == w.default
            continue
        h = have[k]
        if h.kind is inspect.Parameter.VAR_POSITIONAL:
            break
        assert h.kind in ((POSITIONAL, EITHER) if w.kind is POSITIONAL else (w.kind,))
        assert w.kind is POSITIONAL or h.name == w.name
        assert (h.default is inspect.Parameter.empty) or w.default is inspect.Parameter.empty or h.default == w.default
    assert all(h.default is not inspect.Parameter.empty or h.kind in (2, 4) for h in have[len(want) :])


def test_attributes_and_constants() -> None:
    x = nd.ones((2, 3))
    assert (x.dtype, x.device, x.ndim, x.shape, x.size) == (nd.float32, nd.cpu(0), 2, (2, 3), 6)
    assert x.T.shape == x.mT.shape == (3, 2)
    assert (nd.e, nd.pi, nd.inf, nd.newaxis) == (math.e, math.pi, math.inf, None) and math.isnan(nd.nan)
    assert nd.__array_api_version__ == "2025.12"
    assert x.__array_namespace__() is x.__array_namespace__(api_version="2024.12") is nd
    with pytest.raises(ValueError, match="api_version"):
        x.__array_namespace__(api_version="2020.01")


def test_inspection() -> None:
    info = nd.__array_namespace_info__()
    assert info.capabilities() == {"boolean indexing": True, "data-dependent shapes": True, "max dimensions": 64}
    assert info.default_device() == nd.cpu(0)
    assert nd.cpu(0) in info.devices()
    assert info.default_dtypes() == {"real floating": nd.float32, "complex floating": nd.complex64, "integral": nd.int64,
                                     "indexing": nd.int64}
    assert set(info.dtypes(kind="signed integer")) == {"int8", "int16", "int32", "int64"}
    assert set(info.dtypes(kind=("bool", "complex floating"))) == {"bool", "complex64", "complex128"}
    assert all(getattr(nd, name) == dtype for name, dtype in info.dtypes().items())


INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
FLOATS, COMPLEXES = ("float32", "float64"), ("complex64", "complex128")
ALL = ("bool", *INTEGERS, *FLOATS, *COMPLEXES)


@pytest.mark.parametrize("first", ALL)
def test_promotion(first: str) -> None:
    """Within a kind (and from real to complex) as NumPy; so are arrays, dtypes and operators."""
    for second in ALL:
        kinds = {np.dtype(d).kind for d in (first, second)}
        mixed = (kinds & {"i", "u"} and kinds & {"f", "c"}) or ("b" in kinds and len(kinds) > 1)
        if mixed or ("uint64" in (first, second) and "i" in kinds):
            continue
        want = np.promote_types(first, second)
        x, y = nd.ones(2, dtype=first), nd.ones((), dtype=second)
        assert nd.result_type(x, y) == nd.result_type(first, second) == nd.result_type(x, second) == want
        assert nd.can_cast(first, want) and nd.can_cast(y, want)
        if want.kind != "b":
            assert (x + y).dtype == nd.multiply(y, x).dtype == nd.where(nd.array(True), x, y).dtype == want
            assert nd.concat([x, nd.ones(2, dtype=second)]).dtype == want
        assert (x == y).dtype == bool
    for scalar, kinds in ((True, "b"), (2, "iufc"), (2.5, "fc"), (2.5 + 1j, "c")):
        x = nd.ones(2, dtype=first)
        if x.dtype.kind in kinds:
            for value in (x + scalar, scalar + x, x * scalar, nd.where(x == x, x, scalar)):
                assert value.dtype == x.dtype
            assert nd.result_type(x, scalar) == x.dtype


KEEPING: dict[str, Callable[[Any, Any], Any]] = {
    "tril": lambda x, m: m.tril(x, k=1), "triu": lambda x, m: m.triu(x), "flip": lambda x, m: m.flip(x),
    "where": lambda x, m: m.where(x == x, x, x),
    "roll": lambda x, m: m.roll(x, 1), "repeat": lambda x, m: m.repeat(x, 2), "tile": lambda x, m: m.tile(x, (2, 1)),
    "concat": lambda x, m: m.concat([x, x]), "stack": lambda x, m: m.stack([x, x]), "sort": lambda x, m: m.sort(x, axis=0),
    "unique": lambda x, m: m.unique(x), "diagonal": lambda x, m: m.linalg.diagonal(x), "mask": lambda x, m: x[x == x],
    "full_like": lambda x, m: m.full_like(x, 1), "meshgrid": lambda x, m: m.meshgrid(x[0, :], x[1, :])[1],
    "expand_dims": lambda x, m: m.expand_dims(x, axis=1), "take": lambda x, m: m.take(x, m.asarray([0, 1]), axis=0),
    "pad": lambda x, m: m.pad(x, 1), "append": lambda x, m: m.append(x, x),
}


@pytest.mark.parametrize("name", sorted(KEEPING))
def test_functions_that_keep_the_dtype(name: str) -> None:
    for dtype in ALL:
        raw = np.arange(6).reshape(2, 3).astype(dtype)
        agree(KEEPING[name](nd.asarray(raw), nd), KEEPING[name](raw, np), f"{name} {dtype}")


def test_numbers_beside_double_precision() -> None:
    """A number takes the dtype of the array beside it before anything is rounded."""
    x = nd.array([0.1], dtype="float64")
    assert nd.isclose(x, 0.1, rtol=0, atol=0).item() and nd.allclose(0.1, x, rtol=0, atol=0)
    assert nd.logaddexp(x, 0.1).item() == np.logaddexp(0.1, 0.1) and nd.heaviside(nd.zeros(1, dtype="float64"), 0.1).item() == 0.1


def test_empty_reductions() -> None:
    x = nd.zeros((0,))
    assert (nd.sum(x).item(), nd.prod(x).item(), nd.all(x).item(), nd.any(x).item()) == (0, 1, True, False)
    assert all(math.isnan(f(x).item()) for f in (nd.mean, nd.std, nd.var))
    for f in (nd.max, nd.min, nd.argmax):
        with pytest.raises(ValueError, match="at least one element"):
            f(x)


def test_dtype_functions() -> None:
    assert nd.isdtype(nd.float32, "real floating") and not nd.isdtype(nd.float32, "integral")
    assert nd.isdtype(nd.uint8, ("bool", "unsigned integer")) and nd.isdtype(nd.int8, nd.int8) and nd.isdtype(nd.bool, "bool")
    assert all(nd.isdtype(getattr(nd, d), "numeric") == (d != "bool") for d in ALL)
    with pytest.raises(ValueError, match="isdtype: kind"):
        nd.isdtype(nd.int8, "whole")
    f, i = nd.finfo(nd.complex128), nd.iinfo(nd.ones(1, dtype="uint16"))
    assert (f.bits, f.dtype, f.eps, type(f.max)) == (64, nd.float64, np.finfo(float).eps, float)
    assert (i.bits, i.min, i.max, i.dtype) == (16, 0, 65535, nd.uint16)
    for function, wrong in ((nd.finfo, nd.int8), (nd.iinfo, nd.float32)):
        with pytest.raises(TypeError, match="expected"):
            function(wrong)
    assert not nd.can_cast(nd.float64, nd.float32) and nd.can_cast(nd.int8, nd.int16)


def numeric(kinds: str) -> Any:
    return st.sampled_from([d for d in ALL if np.dtype(d).kind in kinds])


def arrays(kinds: str, **options: Any) -> Any:
    shapes = xps.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)
    return numeric(kinds).flatmap(lambda d: xps.arrays(getattr(nd, d), shapes, **options))


def agree(found: Any, want: Any, note: str = "") -> None:
    found = np.asarray(found)
    assert found.shape == np.shape(want) and found.dtype == np.asarray(want).dtype, (note, found.dtype, np.asarray(want).dtype)
    if found.dtype.kind in "fc":
        np.testing.assert_allclose(found, want, rtol=4 * np.finfo(found.dtype).eps, err_msg=note)
    else:
        np.testing.assert_array_equal(found, want, err_msg=note)


UNARY = {
    **dict.fromkeys(("abs", "negative", "positive", "square"), "iufc"),
    **dict.fromkeys(("conj", "exp", "sqrt", "sin", "cos", "tanh", "acos", "acosh", "asin", "asinh", "atan", "atanh", "cosh",
                     "sinh", "tan", "expm1", "log", "log1p", "log2", "log10", "reciprocal"), "f"),
    **dict.fromkeys(("ceil", "floor", "trunc", "round", "signbit"), "f"),
    **dict.fromkeys(("isfinite", "isinf", "isnan", "sign"), "iuf"), **dict.fromkeys(("real", "imag", "conj", "exp", "sin"), "c"),
    "bitwise_invert": "biu", "logical_not": "biufc",
}
IN_NUMPY = {"acos": "arccos", "acosh": "arccosh", "asin": "arcsin", "asinh": "arcsinh", "atan": "arctan", "atanh": "arctanh",
            "bitwise_invert": "invert", "pow": "power", "atan2": "arctan2", "bitwise_left_shift": "left_shift",
            "bitwise_right_shift": "right_shift"}


@pytest.mark.parametrize("name", sorted(UNARY))
@given(data=st.data())
def test_elementwise_of_one_array(name: str, data: Any) -> None:
    x = data.draw(arrays(UNARY[name]))
    with np.errstate(all="ignore"):
        agree(getattr(nd, name)(x), getattr(np, IN_NUMPY.get(name, name))(np.asarray(x)), name)


BINARY = {
    **dict.fromkeys(("add", "multiply", "subtract"), "iufc"), **dict.fromkeys(("equal", "not_equal"), "biufc"),
    **dict.fromkeys(("less", "less_equal", "greater", "greater_equal", "maximum", "minimum", "remainder"), "iuf"),
    **dict.fromkeys(("divide", "hypot", "copysign", "nextafter", "atan2"), "f"),
    **dict.fromkeys(("bitwise_and", "bitwise_or", "bitwise_xor"), "biu"),
    **dict.fromkeys(("logical_and", "logical_or", "logical_xor"), "biufc"),
}


@pytest.mark.parametrize("name", sorted(BINARY))
@given(data=st.data())
def test_elementwise_of_two_arrays(name: str, data: Any) -> None:
    dtype = getattr(nd, data.draw(numeric(BINARY[name])))
    shapes = data.draw(xps.mutually_broadcastable_shapes(2, max_dims=3, max_side=4, min_side=0)).input_shapes
    x, y = (data.draw(xps.arrays(dtype, s)) for s in shapes)
    with np.errstate(all="ignore"):
        want = getattr(np, IN_NUMPY.get(name, name))(np.asarray(x), np.asarray(y))
    agree(getattr(nd, name)(x, y), want, name)


SPECIAL = (math.nan, math.inf, -math.inf, 0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 2.0, -2.0, 3.0, -3.0, 1e300, 2.5)


def power(a: float, b: float) -> float:
    """IEEE 754's pow, as C has it."""
    try:
        return math.pow(a, b)
    except OverflowError:
        return -math.inf if a < 0 and b == math.floor(b) and b % 2 == 1 else math.inf
    except ValueError:  # a zero to a negative power, or a root of a negative number
        if a == 0:
            return math.copysign(math.inf, a) if b % 2 == 1 else math.inf
        return math.nan


def floor_divide(a: float, b: float) -> float:
    if math.isnan(a) or math.isnan(b) or (math.isinf(a) and math.isinf(b)) or (a == 0 and b == 0):
        return math.nan
    if math.isinf(a) or b == 0:
        return math.copysign(math.inf, math.copysign(1, a) * math.copysign(1, b))
    return math.copysign(0.0, math.copysign(1, a) * math.copysign(1, b)) if math.isinf(b) else a // b


SPECIAL_CASES: dict[str, Callable[[float, float], float]] = {
    "pow": power, "floor_divide": floor_divide, "atan2": math.atan2, "copysign": math.copysign, "hypot": math.hypot,
    "add": operator.add, "multiply": operator.mul,
}


@pytest.mark.parametrize("name", sorted(SPECIAL_CASES))
@pytest.mark.parametrize("lengths", ["arrays", "numbers as arrays"])
def test_special_cases(name: str, lengths: str) -> None:
    """Infinities, NaNs and signed zeros, in long arrays and for single elements (NumPy has other loops for these)."""
    function, expected = getattr(nd, name), SPECIAL_CASES[name]
    a, b = (v.ravel() for v in np.meshgrid(SPECIAL, SPECIAL))
    want = np.array([expected(x, y) for x, y in zip(a.tolist(), b.tolist())])
    if lengths == "arrays":
        found = function(nd.array(a), nd.array(b)).asnumpy()
    else:
        found = np.array([function(nd.array(x), nd.array(y)).item() for x, y in zip(a, b)])
    for x, y, f, w in zip(a, b, found, want):
        assert (math.isnan(f) and math.isnan(w)) or (f == w and math.copysign(1, f) == math.copysign(1, w)) or (
            abs(f - w) <= 1e-15 * abs(w)), (name, x, y, f, w)


@pytest.mark.parametrize("operation", ["__ipow__", "__pow__", "__ifloordiv__", "__floordiv__"])
def test_special_cases_of_operators(operation: str) -> None:
    expected = power if "pow" in operation else floor_divide
    for a in SPECIAL:
        for b in SPECIAL:
            x, y = nd.array([a], dtype="float64"), nd.array([b], dtype="float64")
            found, want = getattr(x, operation)(y).item(), expected(a, b)
            assert (math.isnan(found) and math.isnan(want)) or (
                math.isclose(found, want, rel_tol=1e-15) and math.copysign(1, found) == math.copysign(1, want)), (a, b)


def test_roots_of_special_numbers() -> None:
    x = nd.array([-0.0, -math.inf, 4.0])
    assert (x ** nd.array(0.5)).tolist() == [0.0, math.inf, 2.0]
    assert not nd.signbit(x ** nd.array([0.5, 0.5, 0.5]))[0]


@given(data=st.data())
def test_reductions(data: Any) -> None:
    x = data.draw(arrays("iuf", elements={"min_value": 0, "max_value": 20}))
    axis = data.draw(st.none() | st.integers(-x.ndim, x.ndim - 1)) if x.ndim else None
    keepdims = data.draw(st.booleans())
    raw = np.asarray(x)
    wide = {"i": np.int64, "u": np.uint64}.get(raw.dtype.kind, raw.dtype)
    with np.errstate(all="ignore"):
        for name in ("sum", "prod"):
            found = getattr(nd, name)(x, axis=axis, keepdims=keepdims)
            want = getattr(np, name)(raw, axis=axis, keepdims=keepdims, dtype=wide)
            assert found.dtype == wide
            np.testing.assert_allclose(np.asarray(found), want, rtol=1e-5)
        agree(nd.count_nonzero(x, axis=axis, keepdims=keepdims), np.asarray(np.count_nonzero(raw, axis=axis, keepdims=keepdims)))
        for name in ("all", "any"):
            agree(getattr(nd, name)(x, axis=axis, keepdims=keepdims), getattr(np, name)(raw, axis=axis, keepdims=keepdims))
        if x.size:
            for name in ("max", "min", "argmax", "argmin"):
                want = np.asarray(getattr(np, name)(raw, axis=axis, keepdims=keepdims))
                agree(getattr(nd, name)(x, axis=axis, keepdims=keepdims), want)
        if raw.dtype.kind == "f" and x.size:
            for name in ("mean", "std", "var"):
                found = getattr(nd, name)(x, axis=axis, keepdims=keepdims)
                want = getattr(np, name)(raw, axis=axis, keepdims=keepdims)
                np.testing.assert_allclose(np.asarray(found), want, rtol=1e-4, atol=1e-4)


@given(data=st.data())
def test_cumulative(data: Any) -> None:
    x = data.draw(numeric("iuf").flatmap(lambda d: xps.arrays(getattr(nd, d), xps.array_shapes(max_dims=3, max_side=4),
                                                              elements={"min_value": 0, "max_value": 5})))
    axis, initial = data.draw(st.integers(-x.ndim, x.ndim - 1)), data.draw(st.booleans())
    for name, ufunc, first in (("cumulative_sum", np.add, 0), ("cumulative_prod", np.multiply, 1)):
        found = getattr(nd, name)(x, axis=axis, include_initial=initial)
        want = ufunc.accumulate(np.asarray(x), axis=axis, dtype=found.dtype)
        if initial:
            want = np.concatenate([np.full_like(want.take([0], axis), first), want], axis)
        agree(found, want, name)


@given(data=st.data())
def test_sets_and_sorting(data: Any) -> None:
    x = data.draw(arrays("biuf"))
    raw = np.asarray(x)
    found = nd.unique_all(x)
    values = np.asarray(found.values)
    assert found.inverse_indices.shape == x.shape and found.counts.dtype == nd.int64
    assert int(nd.sum(found.counts)) == x.size
    np.testing.assert_array_equal(raw.ravel()[np.asarray(found.indices)], values)
    if not np.isnan(values.astype(float)).any():
        np.testing.assert_array_equal(values[np.asarray(found.inverse_indices)], raw)
        agree(nd.unique_values(x), np.unique(raw))
    assert nd.unique_inverse(x)._fields == ("values", "inverse_indices") and nd.unique_counts(x)._fields == ("values", "counts")
    agree(nd.isin(x, x), ~np.isnan(raw.astype(float)))
    agree(nd.isin(x, x, invert=True), np.isnan(raw.astype(float)))
    if x.ndim:
        axis, down = data.draw(st.integers(-x.ndim, x.ndim - 1)), data.draw(st.booleans())
        order = nd.argsort(x, axis=axis, descending=down, stable=True)
        ordered = nd.sort(x, axis=axis, descending=down)
        agree(nd.take_along_axis(x, order, axis=axis), np.asarray(ordered))
        if not np.isnan(raw.astype(float)).any():
            want = np.sort(raw, axis=axis)
            agree(ordered, np.flip(want, axis) if down else want)


def test_searchsorted() -> None:
    x = nd.array([1.0, 3.0, 3.0, 5.0])
    for side, want in (("left", [0, 1, 3, 4]), ("right", [0, 3, 3, 4])):
        assert nd.searchsorted(x, nd.array([[0.0, 3.0], [4.0, 6.0]]), side=side).tolist() == [want[:2], want[2:]]
    assert nd.searchsorted(x, 3.0).item() == 1
    assert nd.searchsorted(x[::-1], nd.array([4.0]), sorter=nd.array([3, 2, 1, 0])).tolist() == [3]


@given(data=st.data())
def test_reading_and_writing_at_indices(data: Any) -> None:
    x = data.draw(xps.arrays(nd.float32, xps.array_shapes(max_dims=3, max_side=4)))
    index = data.draw(xps.indices(x.shape, allow_newaxis=True))
    raw = np.array(x)
    agree(x[index], raw[index])
    y = nd.asarray(x, copy=True)
    y[index] = 7.0
    raw[index] = 7.0
    np.testing.assert_array_equal(np.asarray(y), raw)
    mask = data.draw(xps.arrays(nd.bool, x.shape))
    agree(x[mask], np.asarray(x)[np.asarray(mask)])
    y[mask] = -1.0
    raw[np.asarray(mask)] = -1.0
    np.testing.assert_array_equal(np.asarray(y), raw)


def test_masks_of_all_shapes() -> None:
    x = nd.reshape(nd.arange(6), (2, 3))
    assert x[nd.array(True)].shape == (1, 2, 3) and x[nd.array(False)].shape == (0, 2, 3)
    assert x[nd.array([True, False])].tolist() == [[0, 1, 2]]
    for wrong in (nd.ones((2, 3, 1), dtype="bool"), nd.ones(3, dtype="bool")):
        with pytest.raises(IndexError):
            x[wrong]


def test_creation() -> None:
    for value, dtype in ((True, "bool"), (3, "int64"), (2.5, "float32"), (1j, "complex64")):
        assert nd.asarray(value).dtype == nd.full((2,), value).dtype == nd.asarray([value]).dtype == nd.dtypes.canonical(dtype)
    assert nd.zeros(2).dtype == nd.empty(()).dtype == nd.linspace(0, 1, num=3).dtype == nd.eye(2).dtype == nd.float32
    assert nd.arange(3).dtype == nd.int64 and nd.arange(3.0).dtype == nd.float32
    assert nd.linspace(1, 2, num=5, endpoint=False).tolist()[0] == 1.0
    x = np.arange(3)
    assert np.shares_memory(np.asarray(nd.asarray(x, copy=False)), x)
    assert not np.shares_memory(np.asarray(nd.asarray(x, copy=True)), x)
    with pytest.raises(ValueError, match="copy=False"):
        nd.asarray([1, 2], copy=False)
    with pytest.raises(ValueError, match="copy=False"):
        nd.asarray(nd.ones(2), dtype=nd.float64, copy=False)
    with pytest.raises(OverflowError):
        nd.asarray(300, dtype=nd.int8)
    assert [m.shape for m in nd.meshgrid(nd.arange(2), nd.arange(3), indexing="ij")] == [(2, 3)] * 2


def test_dlpack() -> None:
    x = nd.arange(4.0)
    shared = np.from_dlpack(x)
    shared[0] = 9.0
    assert x.tolist() == [9.0, 1.0, 2.0, 3.0] and x.__dlpack_device__() == (1, 0)
    x.__dlpack__(max_version=(1, 0), dl_device=(1, 0), copy=True)
    assert not np.shares_memory(np.asarray(nd.from_dlpack(x, copy=True)), np.asarray(x))
    assert np.from_dlpack(nd.broadcast_to(x, (2, 4))).shape == (2, 4)  # read-only memory is copied
    with pytest.raises(BufferError, match="copy=False"):
        nd.broadcast_to(x, (2, 4)).__dlpack__(copy=False)
    with pytest.raises(BufferError, match="dl_device"):
        x.__dlpack__(dl_device=(2, 0))
    for dtype in ALL:
        assert np.from_dlpack(nd.ones(2, dtype=dtype)).dtype == dtype


def test_manipulation() -> None:
    x = nd.reshape(nd.arange(24), (2, 3, 4))
    assert nd.expand_dims(x, axis=(0, -1)).shape == (1, 2, 3, 4, 1)
    assert nd.permute_dims(x, (-1, 0, 1)).shape == (4, 2, 3)
    assert nd.broadcast_shapes((2, 1), (3,), ()) == (2, 3) and nd.broadcast_shapes() == ()
    with pytest.raises(ValueError, match="broadcast_shapes"):
        nd.broadcast_shapes((2,), (3,))
    assert [u.shape for u in nd.unstack(x, axis=1)] == [(2, 4)] * 3
    assert nd.repeat(nd.arange(3), nd.array([1, 0, 2])).tolist() == [0, 2, 2]
    assert nd.tile(nd.arange(2), (2, 2)).tolist() == [[0, 1, 0, 1]] * 2
    assert nd.take(x, nd.array([-1, 0]), axis=2)[0, 0].tolist() == [3, 0]
    assert nd.concat([nd.ones(2, dtype="int8"), nd.ones(1, dtype="int16")]).dtype == nd.int16
    with pytest.raises(ValueError, match="copy=False"):
        nd.reshape(nd.permute_dims(x, (2, 1, 0)), (24,), copy=False)
    with pytest.raises(ValueError, match="nonzero"):
        nd.nonzero(nd.array(1))
    assert nd.clip(nd.array([-5, 5], dtype="int8"), 0, nd.array([3, 3], dtype="int8")).tolist() == [0, 3]
    assert nd.diff(nd.array([1, 4, 9]), prepend=nd.array([0]), n=2).tolist() == [2, 2]


def test_linear_algebra_dtypes() -> None:
    z = nd.array([1 + 1j, 2.0])
    assert nd.vecdot(z, z).item() == 6 and nd.linalg.vecdot(z, z).dtype == nd.complex64
    assert nd.matmul(nd.ones((2, 2), dtype="int8"), nd.ones((2, 2), dtype="int8")).dtype == nd.int8
    assert nd.linalg.trace(nd.ones((2, 2), dtype="uint8")).dtype == nd.uint64
    assert nd.linalg.matrix_norm(nd.ones((2, 2), dtype="complex64")).dtype == nd.float32
    for function, fields in ((nd.linalg.eigh, ("eigenvalues", "eigenvectors")), (nd.linalg.qr, ("Q", "R")),
                             (nd.linalg.slogdet, ("sign", "logabsdet")), (nd.linalg.svd, ("U", "S", "Vh"))):
        assert function(nd.eye(2))._fields == fields
    with pytest.raises(ValueError, match="cross"):
        nd.linalg.cross(nd.ones(2), nd.ones(2))


def test_python_numbers_from_arrays() -> None:
    for dtype in ALL:
        x = nd.ones((), dtype=dtype)
        assert complex(x) == 1 and (x.dtype.kind == "c" or float(x) == int(x) == 1) and bool(x)
        if x.dtype.kind in "iu":
            assert operator.index(x) == 1
