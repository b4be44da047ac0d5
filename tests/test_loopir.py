"""The loop IR's printer, verifier and interpreter."""

from fractions import Fraction

import numpy as np
import pytest

from jit.interpret import run_kernel, run_launches
from jit.launch import Launch, Storage
from jit.loopir import (
    BOOL,
    INT,
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
    cast,
    const,
    ramp,
    splat,
)
from jit.numerics import fma
from jit.show import show_expr, show_kernel
from jit.verify import InvalidKernel, verify
from ndarray.dims import symbol

F32, F32x4, BOOLx4, INTx4 = Type("float32"), Type("float32", 4), Type("bool", 4), Type("int64", 4)
i, n, t = Var("i"), Var("n"), Var("t")
X, Y = Buffer("x", "float32", "read"), Buffer("y", "float32", "write")


def kernel(*body, buffers=(X, Y), parameters=("n",)):
    return Kernel("k", tuple(buffers), tuple(parameters), "t", tuple(body))


def every_construct():
    v, mask = Var("v", F32x4), apply("lt", ramp(i, 1, 4), n)
    return kernel(
        Register("sum", Const(0.0, F32x4)),
        For(
            "i",
            const(0),
            n,
            4,
            (
                Let("v", Load("x", i, F32x4, mask)),
                Set("sum", apply("fma", v, v, Get("sum", F32x4))),
                Store("s", const(0), apply("select", v > 0.5, v, apply("neg", v) * (v + 2.0))),
                If(i + 4 <= n, (Store("y", i, Load("s", const(0), F32x4)),), (Store("y", i, v, mask),)),
            ),
            unroll=2,
        ),
        Let("total", Apply("reduce_add", (Get("sum", F32x4),), F32)),
        If(apply("eq", t, 0), (Store("z", ramp(const(0), 2, 4), cast(splat(Var("total", F32), 4), "float64")),)),
        Let("word", Apply("bitcast", (Var("total", F32),), Type("uint32"))),
        Let("bit", apply("and", apply("shr", Var("word", Type("uint32")), 31), 1)),
        Store("z", const(1), cast(Var("bit", Type("uint32")), "float64") - Const(-1.5, Type("float64")) * -2.0),
        buffers=(X, Y, Buffer("z", "float64", "readwrite"), Buffer("s", "float32", "scratch", const(4))),
    )


# -- printer


def test_printed_text(golden):
    golden("loopir_every_construct.txt", show_kernel(every_construct()))
    assert str(every_construct()) == show_kernel(every_construct())


@pytest.mark.parametrize(
    ("expr", "text"),
    [
        (lambda a, b, c: (a - b) - c, "a - b - c"),
        (lambda a, b, c: a - (b - c), "a - (b - c)"),
        (lambda a, b, c: (a + b) * c, "(a + b) * c"),
        (lambda a, b, c: a // (b * c), "a // (b * c)"),
        (lambda a, b, c: (a < b) & (b < c), "(a < b) & (b < c)"),
        (lambda a, b, c: apply("neg", a + b), "-(a + b)"),
        (lambda a, b, c: a * -3 + c, "a * -3 + c"),
        (lambda a, b, c: apply("eq", a < b, b < c), "(a < b) == (b < c)"),
        (lambda a, b, c: apply("max", a, b + c), "max(a, b + c)"),
        (lambda a, b, c: cast(a, "float64") + 1.5, "float64(a) + 1.5f64"),
    ],
)
def test_infix_has_the_parentheses_it_needs(expr, text):
    assert show_expr(expr(Var("a"), Var("b"), Var("c"))) == text


# -- verifier


def test_a_good_kernel_is_returned():
    k = every_construct()
    assert verify(k) is k


LOAD = Load("x", i, F32x4)
BAD = {
    "undefined": (lambda: (Store("y", const(0), Var("q", F32)),), "'q' is not defined"),
    "type of a name": (
        lambda: (Let("q", const(1)), Store("y", const(0), Var("q", F32))),
        "'q' is int64, here it is used as float32",
    ),
    "out of scope": (lambda: (For("i", const(0), n, 1, ()), Store("y", i, Const(0.0, F32))), "'i' is not defined"),
    "bound again": (lambda: (Let("q", const(1)), Let("q", const(2))), "bound again"),
    "shadows a parameter": (lambda: (For("n", const(0), const(3), 1, ()),), "bound again"),
    "register undeclared": (lambda: (Set("r", const(1)),), "register 'r' is not declared"),
    "register read undeclared": (lambda: (Let("q", Get("r", INT)),), "register 'r' is not declared"),
    "register type": (lambda: (Register("r", const(1)), Set("r", Const(1.0, F32))), "register 'r' is int64"),
    "register again": (lambda: (Register("r", const(1)), Register("r", const(1))), "declared again"),
    "register out of scope": (lambda: (If(n < 1, (Register("r", const(1)),)), Set("r", const(1))), "not declared"),
    "operation": (lambda: (Let("q", Apply("frobnicate", (n,), INT)),), "unknown operation 'frobnicate'"),
    "arity": (lambda: (Let("q", Apply("add", (n,), INT)),), "add has 1 arguments, expected 2"),
    "mixed dtypes": (lambda: (Let("q", Apply("add", (n, Const(1.0, F32)), INT)),), "expected one type"),
    "mixed lanes": (lambda: (Let("q", Apply("add", (n, splat(n, 4)), INTx4)),), "expected one type"),
    "result type": (lambda: (Let("q", Apply("add", (n, n), F32)),), "has type float32, expected int64"),
    "comparison type": (lambda: (Let("q", Apply("lt", (n, n), INT)),), "expected bool"),
    "select condition": (lambda: (Let("q", Apply("select", (n, n, n), INT)),), "condition of select is int64"),
    "exp of int": (lambda: (Let("q", Apply("exp", (n,), INT)),), "expected a floating type"),
    "and of float": (lambda: (Let("q", Apply("and", (Const(1.0, F32),) * 2, F32)),), "expected integers or bool"),
    "mulhi": (lambda: (Let("q", Apply("mulhi", (n, n), INT)),), "mulhi of int64, expected uint32"),
    "cast lanes": (lambda: (Let("q", Apply("cast", (n,), F32x4)),), "cast of int64 has type float32x4"),
    "bitcast width": (lambda: (Let("q", Apply("bitcast", (n,), F32)),), "expected the same width"),
    "splat of vector": (lambda: (Let("q", Apply("splat", (splat(n, 4),), INTx4)),), "expected a scalar"),
    "ramp dtypes": (lambda: (Let("q", Apply("ramp", (n, Const(1.0, F32)), INTx4)),), "two scalars of one type"),
    "lane number": (lambda: (Let("q", Apply("lane", (splat(n, 4), const(4)), INT)),), "lane 4 of int64x4"),
    "reduce lanes": (lambda: (Let("q", Apply("reduce_add", (splat(n, 3),), INT)),), "power of two"),
    "reduce result": (lambda: (Let("q", Apply("reduce_add", (splat(n, 4),), INTx4)),), "expected int64"),
    "concat": (lambda: (Let("q", Apply("concat", (splat(n, 4), splat(n, 4)), INTx4)),), "expected int64x8"),
    "constant": (lambda: (Let("q", Const(300, Type("uint8"))),), "constant 300 is no uint8"),
    "unknown buffer": (lambda: (Store("w", const(0), Const(0.0, F32)),), "buffer 'w', which the kernel does not have"),
    "store to read": (lambda: (Store("x", const(0), Const(0.0, F32)),), "which is read only"),
    "load from write": (lambda: (Let("q", Load("y", const(0), F32)),), "which is write and never stored to"),
    "buffer dtype": (lambda: (Store("y", const(0), n),), "of float32 with a value of int64"),
    "float index": (lambda: (Let("q", Load("x", Const(0.0, F32), F32)),), "has an index of float32"),
    "index lanes": (lambda: (Let("q", Load("x", splat(n, 2), F32x4)),), "expected int64 or int64x4"),
    "mask lanes": (lambda: (Let("q", Load("x", n, F32x4, n < 3)),), "a mask of bool, expected boolx4"),
    "mask dtype": (lambda: (Let("q", Load("x", n, F32x4, splat(n, 4))),), "a mask of int64x4"),
    "step": (lambda: (For("i", const(0), n, 0, ()),), "step of a For is 0"),
    "bounds": (lambda: (For("i", Const(0.0, F32), n, 1, ()),), "start of a For is float32"),
    "condition": (lambda: (If(n, ()),), "condition of an If is int64"),
    "statement": (lambda: (n,), "Var is not a statement"),
    "expression": (lambda: (Let("q", 3),), "3 is not an expression"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_kernels_are_refused(case):
    body, message = BAD[case]
    with pytest.raises(InvalidKernel) as error:
        verify(kernel(*body()))
    assert message in str(error.value)
    assert "[kernel k]" in str(error.value)


@pytest.mark.parametrize(
    ("buffers", "message"),
    [
        ([X, X], "declared twice"),
        ([Buffer("x", "float32", "borrow")], "has access 'borrow'"),
        ([Buffer("x", "real", "read")], "unknown dtype 'real'"),
        ([Buffer("x", "float32", "scratch")], "has no size"),
        ([Buffer("x", "float32", "scratch", Var("t"))], "'t' is not defined"),
    ],
)
def test_bad_buffers_are_refused(buffers, message):
    with pytest.raises(InvalidKernel, match=message):
        verify(kernel(buffers=buffers))


def test_the_message_shows_the_statement_and_its_path():
    bad = For("i", const(0), n, 1, (If(i < n, (), (Store("y", i, Load("x", i, F32) + Var("q", F32)),)),))
    with pytest.raises(InvalidKernel) as error:
        verify(kernel(Let("a", n), bad))
    assert str(error.value) == "[kernel k] 'q' is not defined at [1].for i[0].otherwise[0]: y[i] = x[i] + q"


# -- interpreter


def run(k, *arrays, parameters=(), first=0, last=1):
    run_kernel(verify(k), arrays, parameters, first, last)
    return arrays


def test_every_construct_runs():
    x = np.linspace(-1, 1, 10, dtype=np.float32)
    y, z = np.zeros(10, np.float32), np.zeros(7)
    run(every_construct(), x, y, z, parameters=[10])
    np.testing.assert_array_equal(y[:8], np.where(x > 0.5, x, -x * (x + 2))[:8])
    np.testing.assert_array_equal(y[8:], x[8:])
    np.testing.assert_allclose(z[[0, 2, 4, 6]], (x.astype(float) ** 2).sum(), rtol=1e-6)
    assert z[1] == -3.0
    assert not z[[3, 5]].any()


def value(expr, dtype=None):
    """The value of an expression that needs no buffers."""
    dtype = dtype or expr.type.dtype
    out = np.zeros(expr.type.lanes, dtype)
    run(kernel(Store("o", const(0), expr), buffers=[Buffer("o", dtype, "write")], parameters=()), out)
    return out if expr.type.lanes > 1 else out[0]


def lit(v, dtype, lanes):
    return Const(v, Type(dtype, lanes))


@pytest.mark.parametrize("lanes", [1, 4])
@pytest.mark.parametrize(
    ("op", "dtype", "args", "expected"),
    [
        ("add", "uint32", (2**32 - 1, 2), 1),
        ("sub", "uint32", (0, 1), 2**32 - 1),
        ("mul", "uint32", (65537, 65537), 131073),
        ("add", "int64", (2**63 - 1, 1), -(2**63)),
        ("mul", "int64", (2**62, 4), 0),
        ("add", "int32", (2**31 - 1, 1), -(2**31)),
        ("mulhi", "uint32", (2**32 - 1, 2**32 - 1), 2**32 - 2),
        ("floordiv", "int64", (-7, 2), -4),
        ("mod", "int64", (-7, 2), 1),
        ("floordiv", "int32", (7, -2), -4),
        ("mod", "int32", (7, -2), -1),
        ("floordiv", "int64", (7, 0), 0),
        ("mod", "int64", (7, 0), 0),
        ("floordiv", "int32", (7, 0), 0),
        ("mod", "uint8", (7, 0), 0),
        ("shl", "int64", (1, 64), 0),
        ("shr", "int64", (-8, 70), -1),
        ("shr", "uint32", (2**31, 31), 1),
        ("shr", "int32", (-8, 1), -4),
        ("not", "bool", (True,), False),
        ("not", "int64", (5,), -6),
        ("xor", "bool", (True, True), False),
        ("sign", "int64", (-5,), -1),
        ("round", "float32", (2.5,), 2.0),
        ("trunc", "float64", (-2.5,), -2.0),
        ("add", "float32", (1.0, 2.0**-30), 1.0),
        ("add", "float64", (1.0, 2.0**-30), 1 + 2.0**-30),
        ("fma", "float32", (1 + 2.0**-12, 1 + 2.0**-12, -1.0), 2.0**-11 + 2.0**-24),
        ("fma", "int64", (3, 4, 5), 17),
        ("max", "float32", (1.0, np.nan), np.nan),
        ("min", "float64", (np.nan, 1.0), np.nan),
        ("div", "float32", (1.0, 0.0), np.inf),
    ],
)
def test_operations_have_the_semantics_of_their_dtype(op, dtype, args, expected, lanes):
    result = value(apply(op, *(lit(a, dtype, lanes) for a in args)))
    np.testing.assert_array_equal(result, np.full(lanes, expected, dtype)[0 if lanes == 1 else slice(None)])


def test_vector_operations():
    v = ramp(const(3), 2, 4)
    np.testing.assert_array_equal(value(v), [3, 5, 7, 9])
    np.testing.assert_array_equal(value(Apply("reverse", (v,), INTx4)), [9, 7, 5, 3])
    np.testing.assert_array_equal(
        value(Apply("concat", (v, splat(const(1), 4)), Type("int64", 8))), [3, 5, 7, 9, 1, 1, 1, 1]
    )
    assert value(Apply("lane", (v, const(2)), INT)) == 7
    assert value(Apply("reduce_max", (v,), INT)) == 9
    assert value(Apply("reduce_and", (apply("gt", v, 2),), BOOL))
    assert value(Apply("reduce_mul", (v,), INT)) == 3 * 5 * 7 * 9
    assert value(cast(Const(-1, INT), "uint8")) == 255
    assert value(cast(Const(True, BOOL), "float32")) == 1.0
    assert value(Apply("bitcast", (Const(1.0, F32),), Type("int32"))) == 0x3F800000


def test_vectors_are_added_in_halves():
    v = apply("mul", cast(apply("eq", ramp(const(0), 1, 4), 0), "float32"), 2.0**24) + 1.0
    assert value(Apply("reduce_add", (v,), F32)) == 2.0**24 + 2  # one after the other would give 2**24


def test_a_masked_lane_is_zero_and_touches_nothing():
    mask = apply("lt", ramp(const(0), 1, 4), 2)
    y = np.full(4, 7, np.float32)
    run(kernel(Store("y", const(0), Load("x", const(0), F32x4, mask)), parameters=()), np.ones(2, np.float32), y)
    np.testing.assert_array_equal(y, [1, 1, 0, 0])
    y = np.full(2, 7, np.float32)
    run(kernel(Store("y", const(0), Const(5.0, F32x4), mask), parameters=()), np.ones(2, np.float32), y)
    np.testing.assert_array_equal(y, [5, 5])


def test_gather_and_scatter_with_the_last_lane_winning():
    index = apply("mod", ramp(const(0), 3, 4), 4)  # 0 3 2 1
    y = np.zeros(4, np.float32)
    run(
        kernel(Store("y", splat(const(1), 4), Load("x", index, F32x4)), parameters=()),
        np.arange(4, dtype=np.float32),
        y,
    )
    np.testing.assert_array_equal(y, [0, 1, 0, 0])


@pytest.mark.parametrize(("index", "text"), [(-1, "index -1 is outside its 8"), (5, "index 8 is outside its 8")])
def test_an_access_outside_a_buffer_names_it(index, text):
    k = kernel(Let("q", Load("x", n, F32x4)), Store("y", const(0), Var("q", F32x4)))
    with pytest.raises(IndexError, match=rf"\[kernel k\] buffer x: {text}"):
        run(k, np.zeros(8, np.float32), np.zeros(8, np.float32), parameters=[index])
    k = kernel(Store("y", ramp(n, 1, 4), Const(0.0, F32x4)))
    with pytest.raises(IndexError, match="buffer y"):
        run(k, np.zeros(8, np.float32), np.zeros(8, np.float32), parameters=[index])


def test_scratch_is_poisoned_before_each_task():
    s = Buffer("s", "float32", "scratch", n)
    k = kernel(
        If(apply("eq", t, 0), (Store("s", const(0), Const(1.0, F32)),)),
        Store("y", t, Load("s", const(0), F32)),
        buffers=[Y, s],
    )
    (y,) = run(k, np.zeros(2, np.float32), parameters=[3], last=2)
    assert y[0] == 1
    assert np.isnan(y[1])


def test_wrong_arguments_are_refused():
    k = kernel(Store("y", const(0), Load("x", const(0), F32)))
    ok = np.zeros(1, np.float32)
    with pytest.raises(ValueError, match=r"takes 2 buffers \(x, y\), got 1"):
        run_kernel(k, [ok], [1], 0, 1)
    with pytest.raises(ValueError, match="takes 1 parameters, got 0"):
        run_kernel(k, [ok, ok], [], 0, 1)
    with pytest.raises(TypeError, match="buffer y: expected a 1-D array of float32, got 1-D float64"):
        run_kernel(k, [ok, np.zeros(1)], [1], 0, 1)


def test_launches_run_in_order_over_symbolic_sizes():
    m = symbol("m", 4)
    a, b, c = (Storage("float32", m, name) for name in "abc")
    twice = kernel(For("i", const(0), n, 1, (Store("y", i, Load("x", i, F32) * 2.0),)))
    launches = [Launch(twice, (a, b), (m,), 1, 1), Launch(twice, (b, c), (m - 1,), 1, 1)]
    memory = run_launches(launches, {a: np.arange(6, dtype=np.float32).reshape(2, 3)}, {"m": 6})
    np.testing.assert_array_equal(memory[c], [0, 4, 8, 12, 16, np.nan])


def test_constants_differ_by_sign_of_zero_and_nan_is_itself():
    assert Const(0.0, F32) != Const(-0.0, F32)
    assert Const(float("nan"), F32) == Const(float("nan"), F32)
    assert hash(Const(float("nan"), F32)) == hash(Const(float("nan"), F32))


# -- fused multiply-add


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("scale", [0, -100, 100, "extreme"])
def test_fma_rounds_once(dtype, scale):
    rng = np.random.default_rng(3)
    count, info = 3000, np.finfo(dtype)
    spread = (info.maxexp // 2 - 2) if scale == "extreme" else abs(scale) // 2 + 5
    a, b = ((rng.standard_normal(count) * 2.0 ** rng.integers(-spread, spread, count)).astype(dtype) for _ in range(2))
    near = -a * b * (1 + rng.integers(-3, 4, count).astype(dtype) * info.eps)  # cancels nearly all of the product
    c = np.where(rng.random(count) < 0.5, near, (rng.standard_normal(count) * np.abs(a * b)).astype(dtype)).astype(
        dtype
    )
    result = fma(a, b, c)
    assert result.dtype == dtype
    for x, y, z, r in zip(a, b, c, result, strict=True):
        exact = Fraction(float(x)) * Fraction(float(y)) + Fraction(float(z))
        below, above = (Fraction(float(np.nextafter(r, dtype(s)))) for s in (-np.inf, np.inf))
        error = abs(exact - Fraction(float(r)))
        assert error <= abs(exact - below)
        assert error <= abs(exact - above)
