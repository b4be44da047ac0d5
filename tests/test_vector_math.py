"""Errors of the elementary functions in ulp, their special values, and the rewriting of kernels."""

import ctypes
import math

import native_kernels as native_code
import numpy as np
import pytest

from jit import machine
from jit.elementary import FUNCTIONS
from jit.interpret import interpret_expr, run_kernel
from jit.loopir import (
    Apply,
    Buffer,
    Const,
    For,
    Get,
    If,
    Kernel,
    Let,
    Load,
    Register,
    Set,
    Store,
    Type,
    Var,
    apply,
    const,
    walk_exprs,
    walk_statements,
)
from jit.show import show_kernel
from jit.vector_math import expand, expand_expr
from jit.verify import verify

LIMITS = {  # operation: ulp for float32, for float64
    "exp": (1, 1),
    "expm1": (2, 2),
    "log": (1, 1),
    "log1p": (2, 2),
    "log2": (1, 1),
    "sin": (1.5, 1.5),
    "cos": (1.5, 1.5),
    "tan": (3.5, 3.5),
    "tanh": (2, 2.5),
    "sinh": (2, 2),
    "cosh": (1.5, 1.5),
    "asin": (1.5, 1.5),
    "acos": (1.5, 1.5),
    "atan": (2, 2),
    "atan2": (2, 2),
    "erf": (1.5, 1.5),
    "sigmoid": (2.5, 2.5),
    "pow": (0.51, 1.5),
}
REFERENCE = {
    "exp": np.exp,
    "expm1": np.expm1,
    "log": np.log,
    "log1p": np.log1p,
    "log2": np.log2,
    "sin": np.sin,
    "cos": np.cos,
    "tan": np.tan,
    "tanh": np.tanh,
    "sinh": np.sinh,
    "cosh": np.cosh,
    "asin": np.arcsin,
    "acos": np.arccos,
    "atan": np.arctan,
    "atan2": np.arctan2,
    "pow": np.power,
    "erf": np.vectorize(math.erf, otypes=[np.float64]),
    "sigmoid": lambda x: np.exp(np.minimum(x, 0)) / (1 + np.exp(-np.abs(x))),
}
UNARY = [op for op in LIMITS if op not in ("atan2", "pow")]
SPECIAL = [
    0.0,
    -0.0,
    1.0,
    -1.0,
    np.inf,
    -np.inf,
    np.nan,
    0.5,
    -0.5,
    2.0,
    -2.0,
    3.0,
    -3.0,
    1e30,
    -1e30,
    1e-40,
    -1e-40,
    1.5,
    -1.5,
]
wide_longdouble = pytest.mark.skipif(
    np.finfo(np.longdouble).nmant < 63, reason="longdouble is no wider than float64 here"
)


def run_statements(statements, values):
    """Let, Register, Set and branches, elementwise; `values` has variables and registers by name."""
    for s in statements:
        if isinstance(s, If):
            if np.any(interpret_expr(s.condition, values, values)):
                run_statements(s.then, values)
        else:
            values[s.name] = interpret_expr(s.value, values, values)


def evaluate(op, *arrays):
    """The expanded expression, evaluated elementwise."""
    dtype = arrays[0].dtype.name
    names = [f"x{k}" for k in range(len(arrays))]
    type = Type(dtype, 8)
    statements, result = expand_expr(Apply(op, tuple(Var(name, type) for name in names), type))
    values = dict(zip(names, arrays, strict=True))
    run_statements(statements, values)
    value = interpret_expr(result, values, values)
    assert value.dtype == dtype
    return value


def ulps(got, exact):
    """Distances in units in the last place of the result; infinite where only one is NaN or infinite."""
    dtype = got.dtype
    with np.errstate(all="ignore"):
        rounded = exact.astype(dtype)
        unit = np.spacing(np.minimum(np.abs(rounded), np.finfo(dtype).max)).astype(exact.dtype)
        error = np.abs((got.astype(exact.dtype) - exact) / unit)
    agree = (got == rounded) | (np.isnan(got) & np.isnan(rounded))
    error = np.where(agree & (~np.isfinite(rounded) | (rounded == 0)), 0, error)
    return np.where(np.isnan(error) | (np.isfinite(got) != np.isfinite(rounded)) & ~agree, np.inf, error)


def check(op, limit, arrays, exact):
    judge(op, limit, arrays, evaluate(op, *arrays), exact)


def judge(op, limit, arrays, got, exact):
    error = ulps(got, exact)
    k = int(np.argmax(error))
    where = ", ".join(repr(a[k]) for a in arrays)
    assert error[k] <= limit, f"{op}({where}) = {got[k]!r}, exactly {exact[k]!r}: {error[k]:.3f} ulp"
    zero = (exact == 0) & (got == 0)
    assert (np.signbit(got) == np.signbit(exact))[zero].all(), f"{op}: a zero of the wrong sign"


def float32_samples(count):
    """Bit patterns spread over all signs and exponents, and denser numbers of ordinary size."""
    step = 2**32 // count | 1
    rng = np.random.default_rng(7)
    return np.concatenate(
        [
            np.arange(0, 2**32, step, dtype=np.uint64).astype(np.uint32).view(np.float32),
            rng.uniform(-4, 4, count // 4).astype(np.float32),
            rng.uniform(-110, 110, count // 4).astype(np.float32),
            (1 + rng.standard_normal(count // 20) * 1e-3).astype(np.float32),
            np.array(SPECIAL, np.float32),
        ]
    )


def float64_samples(op, count):
    rng = np.random.default_rng(8)
    parts = [rng.integers(0, 2**64, count, dtype=np.uint64).view(np.float64), np.array(SPECIAL)]
    parts += [rng.uniform(-s, s, count) for s in (0.1, 1, 3, 25, 750)]
    parts.append(1 + rng.standard_normal(count) * 1e-3)
    return np.concatenate(parts)


@pytest.mark.parametrize("op", UNARY)
def test_float32_error(op):
    x = float32_samples(60_000 if op == "erf" else 120_000)
    with np.errstate(all="ignore"):
        exact = REFERENCE[op](x.astype(np.float64))
    check(op, LIMITS[op][0], [x], exact)


@pytest.mark.slow
@pytest.mark.parametrize("op", UNARY)
def test_float32_error_of_every_number(op):
    """All 2**32 of them, by native code: some five minutes for each operation."""
    reference = REFERENCE[op] if op != "erf" else pytest.importorskip("scipy.special").erf
    lanes = machine.host().lanes("float32")
    kernel = native_code.elementwise(op, ["float32"], "float32", lambda x: apply(op, x), lanes)
    native = native_code.Native([kernel], machine.host())
    count = 2**20
    got = np.empty(count, np.float32)
    for first in range(0, 2**32, count):
        x = np.arange(first, first + count, dtype=np.uint64).astype(np.uint32).view(np.float32)
        native(op, [x, got], [count], 0, count // lanes)
        with np.errstate(all="ignore"):
            judge(op, LIMITS[op][0], [x], got, reference(x.astype(np.float64)))


def test_normal_distribution():
    """The error is absolute; for float32 also 2e-3 of the value down to -5, where 1 + erf would leave little."""
    exact = np.vectorize(lambda v: math.erfc(-v / math.sqrt(2)) / 2, otypes=[np.float64])
    x = np.concatenate([np.linspace(-40, 40, 60_001), np.linspace(-6, 6, 60_001)])
    for dtype, limit in ((np.float32, 1), (np.float64, 1.5)):
        rounded = x.astype(dtype)
        error = np.abs(evaluate("ndtr", rounded).astype(np.float64) - exact(rounded.astype(np.float64)))
        assert error.max() <= limit * np.finfo(dtype).eps
    x = np.linspace(-5, 0, 20_001, dtype=np.float32)
    np.testing.assert_allclose(evaluate("ndtr", x), exact(x.astype(np.float64)), rtol=2e-3)
    for dtype in (np.float32, np.float64):
        x = np.array([0, -0.0, np.inf, -np.inf, 1e30, -1e30, 3e38, -3e38, np.nan], dtype)
        np.testing.assert_array_equal(evaluate("ndtr", x), np.array([0.5, 0.5, 1, 0, 1, 0, 1, 0, np.nan], dtype))


@wide_longdouble
@pytest.mark.parametrize("op", [op for op in UNARY if op != "erf"])
def test_float64_error(op):
    x = float64_samples(op, 30_000)
    with np.errstate(all="ignore"):
        exact = REFERENCE[op](x.astype(np.longdouble))
    check(op, LIMITS[op][1], [x], exact)


@wide_longdouble
@pytest.mark.parametrize("op", UNARY)
def test_float64_error_against_mpmath(op):
    mp = pytest.importorskip("mpmath")
    rng = np.random.default_rng(9)
    low, high = {
        "log": (0, 9),
        "log2": (0, 9),
        "log1p": (-1, 9),
        "asin": (-1, 1),
        "acos": (-1, 1),
        "erf": (-6.2, 6.2),
    }.get(op, (-20, 20))
    x = np.concatenate([rng.uniform(low, high, 1200), rng.uniform(max(low, -1.5), min(high, 1.5), 600)])
    f = {"log2": lambda v: mp.log(v, 2)}.get(op) or getattr(mp, op)
    with mp.workdps(40):
        exact = np.array([np.longdouble(mp.nstr(mp.re(f(mp.mpf(v))), 25)) for v in x.tolist()])
    check(op, LIMITS[op][1], [x], exact)


@wide_longdouble
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("op", ["atan2", "pow"])
def test_error_of_functions_of_two_arguments(op, dtype):
    rng = np.random.default_rng(10)
    word = np.uint32 if dtype == np.float32 else np.uint64
    count = 60_000

    def any_bits():
        return rng.integers(0, np.iinfo(word).max, count, dtype=word, endpoint=True).view(dtype)

    first, second = (a.ravel() for a in np.meshgrid(SPECIAL, SPECIAL))
    x = [any_bits(), rng.uniform(0, 3, count), rng.standard_normal(count), 2.0 ** rng.uniform(-40, 40, count), first]
    y = [any_bits(), rng.standard_normal(count) * 100, rng.integers(-9, 9, count), rng.uniform(-9, 9, count), second]
    x, y = (np.concatenate([np.asarray(part, dtype) for part in parts]) for parts in (x, y))
    with np.errstate(all="ignore"):
        exact = REFERENCE[op](x.astype(np.longdouble), y.astype(np.longdouble))
    check(op, LIMITS[op][dtype == np.float64], [x, y], exact)


@pytest.mark.parametrize("op", UNARY)
def test_every_nan_stays_nan(op):
    x = np.array([0x7FC00000, 0x7F800001, 0x7FFFFFFF, 0xFFC00001, 0xFFFFFFFF], np.uint32).view(np.float32)
    assert np.isnan(evaluate(op, x)).all()
    x = np.array([0x7FF8000000000000, 0x7FF0000000000001, 0x7FFFFFFFFFFFFFFF, 0xFFF8000000000001], np.uint64).view(
        np.float64
    )
    assert np.isnan(evaluate(op, x)).all()


def test_bounded_functions_stay_in_bounds_and_exact_points_are_exact():
    x = np.linspace(-30, 30, 100_001, dtype=np.float32)
    for op in ("tanh", "erf"):
        assert np.abs(evaluate(op, x)).max() == 1
        assert evaluate(op, np.array([0.0, -0.0], np.float32)).view(np.uint32).tolist() == [0, 1 << 31]
    powers = 2.0 ** np.arange(-140, 128)
    np.testing.assert_array_equal(evaluate("log2", powers.astype(np.float32)), np.arange(-140, 128))
    np.testing.assert_array_equal(evaluate("exp", np.zeros(1, np.float32)), 1)
    assert np.all(np.diff(evaluate("exp", np.linspace(-105, 88, 1_000_001, dtype=np.float32))) >= 0)


# -- kernels


def elementwise(op, dtype, arity=1, lanes=8):
    type, i, n = Type(dtype, lanes), Var("i"), Var("n")
    loads = tuple(Load(f"x{k}", i, type) for k in range(arity))
    buffers = (*(Buffer(f"x{k}", dtype, "read") for k in range(arity)), Buffer("y", dtype, "write"))
    return Kernel(op, buffers, ("n",), "t", (For("i", const(0), n, lanes, (Store("y", i, Apply(op, loads, type)),)),))


def assert_primitive(k):
    verify(k)
    for s in walk_statements(k.body):
        roots = [
            getattr(s, f)
            for f in ("value", "index", "mask", "start", "stop", "condition")
            if getattr(s, f, None) is not None
        ]
        for e in (e for root in roots for e in walk_exprs(root)):
            assert not (isinstance(e, Apply) and e.op in FUNCTIONS), show_kernel(k)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("op", LIMITS)
def test_no_function_is_left(op, dtype):
    arity = 2 if op in ("atan2", "pow") else 1
    for lanes in (1, 8):
        k = elementwise(op, dtype, arity, lanes)
        e = expand(verify(k))
        assert_primitive(e)
        arrays = [np.array([0.25, 0.5, 0.75, 0.9, 0.3, 0.1, 0.6, 0.7], dtype) for _ in range(arity)]
        got = np.zeros(8, dtype)
        run_kernel(e, [*arrays, got], [8], 0, 1)
        np.testing.assert_allclose(got, REFERENCE[op](*arrays), rtol=5 * float(np.finfo(dtype).eps))


def test_expanded_text(golden):
    golden("vector_math_exp.txt", show_kernel(expand(elementwise("exp", "float32", lanes=16))))


def test_a_kernel_without_functions_is_the_same_object():
    k = elementwise("neg", "float32")
    assert expand(k) is k


def test_functions_in_every_kind_of_statement():
    f, t = Type("float32"), Var("t")
    x = Load("x", t, f)
    limit = apply("add", const(2), Apply("cast", (Apply("exp", (x * 0.0,), f),), Type("int64")))
    body = (
        Let("m1", Apply("exp", (x,), f)),  # a name that fresh names have to avoid
        Register("r", Apply("log", (Var("m1", f),), f)),
        For("i", const(0), limit, 1, (Set("r", Apply("tanh", (Get("r", f),), f)),)),
        If(
            apply("gt", Apply("cos", (x,), f), 0.5),
            (Store("y", t, Apply("exp", (Get("r", f),), f)),),
            (Store("y", t, Var("m1", f)),),
        ),
        If(
            apply("lt", x, 0.0),
            (),
            (Set("r", Apply("sin", (x,), f) + Apply("sin", (x,), f)), Store("z", t, Get("r", f))),
        ),
    )
    buffers = (Buffer("x", "float32", "read"), Buffer("y", "float32", "write"), Buffer("z", "float32", "write"))
    k = Kernel("all", buffers, (), "t", body)
    e = expand(verify(k))
    assert_primitive(e)
    results = []
    for version in (k, e):
        y, z = np.zeros(2, np.float32), np.zeros(2, np.float32)
        run_kernel(version, [np.array([0.25, 1.5], np.float32), y, z], [], 0, 2)
        results.append((y, z))
    np.testing.assert_allclose(results[1], results[0], rtol=1e-6)


def test_a_function_of_one_argument_is_computed_once():
    f = Type("float32", 8)
    x = Var("x", f)
    once, _ = expand_expr(Apply("exp", (x,), f))
    twice, _ = expand_expr(Apply("exp", (x,), f) * (Apply("exp", (Var("x", f),), f) + 1.0))
    assert len(twice) == len(once) + 1  # the result itself has a name


@pytest.mark.parametrize("exponent", [None, 0, 1, 7])
def test_integer_powers(exponent):
    k = elementwise("pow", "int32", 2)
    if exponent is not None:
        load = Load("x0", Var("i"), Type("int32", 8))
        store = Store("y", Var("i"), Apply("pow", (load, Const(exponent, Type("int32", 8))), Type("int32", 8)))
        k = Kernel("pow", k.buffers, k.parameters, "t", (For("i", const(0), Var("n"), 8, (store,)),))
    e = expand(k)
    assert_primitive(e)
    x, y = np.array([0, 1, -1, 2, 3, -7, 11, 2], np.int32), np.array([0, 9, 9, 31, 20, 13, 33, 5], np.int32)
    if exponent is not None:
        y[:] = exponent
    got = np.zeros(8, np.int32)
    run_kernel(e, [x, y, got], [8], 0, 1)
    np.testing.assert_array_equal(got, np.power(x, y))


# -- native code


@pytest.mark.native
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_native_code_agrees_with_the_interpreter_bit_for_bit(dtype):
    from jit import llvm, machine

    target = machine.host()
    if not target.fma:
        pytest.skip("no fused multiply-add here")
    arity = {op: 2 if op in ("atan2", "pow") else 1 for op in LIMITS}
    kernels = [expand(elementwise(op, dtype, arity[op], target.lanes(dtype))) for op in LIMITS]
    library = machine.load(machine.emit_object(llvm.emit(kernels, [f"test_{k.name}" for k in kernels], target), target))
    pointer, word = ctypes.c_void_p, ctypes.c_int64
    prototype = ctypes.CFUNCTYPE(None, pointer, pointer, word, word, pointer)
    x = float32_samples(20_000) if dtype == "float32" else float64_samples("", 2_000)
    x = np.random.default_rng(2).permutation(x)
    x = x[: 1 << len(x).bit_length() - 1]
    for k in kernels:
        arrays = [x, np.random.default_rng(1).permutation(x)][: arity[k.name]]
        interpreted, native = np.zeros_like(x), np.zeros_like(x)
        with np.errstate(all="ignore"):
            whole = elementwise(k.name, dtype, arity[k.name], len(x))  # one vector: the interpreter is quicker so
            run_kernel(expand(whole), [*arrays, interpreted], [len(x)], 0, 1)
        table = np.array([a.ctypes.data for a in (*arrays, native)], np.uint64)
        numbers = np.array([len(x)], np.int64)
        prototype(library.address(f"test_{k.name}"))(table.ctypes.data, numbers.ctypes.data, 0, 1, None)
        bits = np.uint32 if dtype == "float32" else np.uint64
        differ = (interpreted.view(bits) != native.view(bits)) & ~(np.isnan(interpreted) & np.isnan(native))
        at = np.flatnonzero(differ)[:3]
        assert not differ.any(), (
            f"{k.name} of {[a[at] for a in arrays]}: interpreted {interpreted[at]}, native {native[at]}"
        )
