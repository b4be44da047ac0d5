"""Generated code against the NumPy interpreter of the loop IR: every operation and dtype, on three kinds of machine."""

import itertools
import signal

import numpy as np
import pytest
from native_kernels import Native, check, each_target, elementwise

from jit import llvm, machine
from jit.guard import guarded_empty, signal_of
from jit.launch import _ITEMSIZE
from jit.loopir import (
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
    Prefetch,
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

DTYPES = ("bool", "uint8", "int8", "uint16", "int16", "int32", "uint32", "int64", "uint64", "float32", "float64")


# -- every operation

FLOATS = [0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 1.5, 2.5, -2.5, 3.0, -7.25, 1e-3, 123456.75, -3e20, np.inf, -np.inf, np.nan]


def edges(dtype):
    if dtype == "bool":
        return np.array([False, True])
    if dtype.startswith("float"):
        return np.array(FLOATS, dtype)
    info = np.iinfo(dtype)
    values = {0, 1, 2, 3, 5, 7, 8, 31, 100, info.max, info.max - 1, info.min, info.min + 1}
    return np.array(sorted(v for v in values | {-v for v in values} if info.min <= v <= info.max), dtype)


UNARY = {
    "b": ("not",), "f": ("neg", "abs", "sign", "sqrt", "floor", "ceil", "trunc", "round", "isnan", "isinf"),
    "i": ("neg", "abs", "sign", "not", "floor", "isnan"), "u": ("neg", "abs", "sign", "not"),
}
COMPARE = ("eq", "ne", "lt", "le", "gt", "ge")
BINARY = {
    "b": ("and", "or", "xor", "min", "max", *COMPARE),
    "f": ("add", "sub", "mul", "div", "floordiv", "mod", "min", "max", *COMPARE),
    "i": ("add", "sub", "mul", "floordiv", "mod", "and", "or", "xor", "min", "max", "shl", "shr", *COMPARE),
}
BINARY["u"] = BINARY["i"]


def kind(dtype):
    return np.dtype(dtype).kind


def cases(dtype):
    """(name, argument arrays, result dtype, expression) of all operations on one dtype."""
    one = edges(dtype)
    a, b = (np.array(v) for v in zip(*itertools.product(one, one), strict=True))
    for op in UNARY[kind(dtype)]:
        yield op, (one,), "bool" if op.startswith("is") else dtype, lambda x, op=op: apply(op, x)
    for op in BINARY[kind(dtype)]:
        x, y = a, b
        if op in ("shl", "shr"):
            x, y = a[b >= 0], b[b >= 0]
        yield op, (x, y), "bool" if op in COMPARE else dtype, lambda x, y, op=op: apply(op, x, y)
    yield "select", (a > b, a, b), dtype, lambda c, x, y: apply("select", c, x, y)
    if kind(dtype) in "iu":
        for divisor in (1, 2, 8, 7, 3):
            for op in ("floordiv", "mod"):
                yield f"{op}_by_{divisor}", (one,), dtype, lambda x, op=op, d=divisor: Apply(
                    op, (x, Const(d, x.type)), x.type)
        for count in (0, 3, 7, 70):
            yield f"shl_by_{count}", (one,), dtype, lambda x, c=count: Apply("shl", (x, Const(c, x.type)), x.type)
            yield f"shr_by_{count}", (one,), dtype, lambda x, c=count: Apply("shr", (x, Const(c, x.type)), x.type)
        if kind(dtype) == "i":
            yield "mod_by_minus_3", (one,), dtype, lambda x: Apply("mod", (x, Const(-3, x.type)), x.type)
            yield "floordiv_by_minus_3", (one,), dtype, lambda x: Apply("floordiv", (x, Const(-3, x.type)), x.type)
    if dtype == "uint32":
        yield "mulhi", (a, b), dtype, lambda x, y: apply("mulhi", x, y)
    if kind(dtype) == "f":
        yield "fma", (a, b, b[::-1].copy()), dtype, lambda x, y, z: apply("fma", x, y, z)


@each_target
@pytest.mark.parametrize("dtype", DTYPES)
def test_operations(dtype, target):
    found = list(cases(dtype))
    kernels, wide = {}, max(2, target.lanes(dtype))
    for name, arguments, result, make in found:
        for lanes in (1, wide):
            dtypes = [str(a.dtype) for a in arguments]
            kernels[name, lanes] = elementwise(f"{name}_{lanes}", dtypes, result, make, lanes)
    native = Native(list(kernels.values()), target)
    for name, arguments, result, _ in found:
        n = len(arguments[0])
        for lanes in (1, wide):
            rtol = 1e-5 if name == "fma" and not target.fma else 0.0
            arrays = [*arguments, np.zeros(n, result)]
            if rtol:  # inf - inf and friends differ with one rounding more
                arrays[:3] = [np.clip(np.nan_to_num(x), -1e3, 1e3) for x in arrays[:3]]
            check(kernels[name, lanes], target, arrays, [n], -(-n // lanes), native, rtol)


@each_target
def test_float_minimum_and_maximum_propagate_nan_of_either_operand(target):
    x = np.array([np.nan, 1, np.nan, 2] * 4, "f")
    y = np.array([1, np.nan, np.nan, 3] * 4, "f")
    kernels = [
        elementwise(op, ["float32"] * 2, "float32", lambda a, b, op=op: apply(op, a, b), 16) for op in ("min", "max")
    ]
    native = Native(kernels, target)
    for op, f in (("min", np.minimum), ("max", np.maximum)):
        z = np.zeros(16, "f")
        native(op, [x, y, z], [16], 0, 1)
        np.testing.assert_array_equal(z, f(x, y))


@each_target
def test_casts(target):
    kernels = {}
    for source, result in itertools.product(DTYPES, DTYPES):
        for lanes in (1, 8):
            kernels[source, result, lanes] = elementwise(
                f"{source}_{result}_{lanes}", [source], result, lambda x, r=result: cast(x, r), lanes)
    native = Native(list(kernels.values()), target)
    for (source, result, lanes), kernel in kernels.items():
        values = edges(source)
        if kind(source) == "f" and kind(result) in "iu":  # what others give is the machine's business, but no fault
            info = np.iinfo(result)
            native(kernel.name, [values, np.zeros(len(values), result)], [len(values)], 0, -(-len(values) // lanes))
            values = values[np.isfinite(values)]
            values = values[(values > float(info.min)) & (values < float(info.max))]
        n = len(values)
        check(kernel, target, [values, np.zeros(n, result)], [n], -(-n // lanes), native)


@each_target
def test_bitcast_and_constants(target):
    values = [1.0, -0.0, np.inf, -np.inf, np.nan, 1e-45, 3.4e38, np.pi]
    body = tuple(
        Store("y", const(i), Apply("bitcast", (Const(v, Type("float32")),), Type("int32")))
        for i, v in enumerate(values)
    )
    kernel = Kernel("bits", (Buffer("y", "int32", "write"),), (), "t", body)
    y = np.zeros(8, np.int32)
    Native([kernel], target)("bits", [y], [], 0, 1)
    np.testing.assert_array_equal(y, np.array(values, "f").view(np.int32))


# -- vectors

@each_target
@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "int64", "uint8"])
def test_reductions_and_lanes(dtype, target):
    lanes = 16
    x, scalar, vector = Load("x", const(0), Type(dtype, lanes)), Type(dtype), Type(dtype, lanes)
    results = [Apply(f"reduce_{op}", (x,), scalar) for op in ("add", "mul", "max", "min")]
    results += [Apply("lane", (x, const(i)), scalar) for i in (0, 5, 15)]
    body = [Store("y", const(i), r) for i, r in enumerate(results)]
    half = Load("x", const(4), Type(dtype, lanes // 2))
    body.append(Store("y", const(16), Apply("reverse", (x,), vector)))
    body.append(Store("y", const(32), Apply("concat", (half, Apply("reverse", (half,), half.type)), vector)))
    body.append(Store("y", const(48), ramp(Load("x", const(2), scalar), Load("x", const(3), scalar), lanes)))
    kernel = Kernel("vectors", (Buffer("x", dtype, "read"), Buffer("y", dtype, "write")), (), "t", tuple(body))
    generator = np.random.default_rng(0)
    values = generator.standard_normal(lanes) * 3 if dtype[0] == "f" else generator.integers(0, 9, lanes)
    check(kernel, target, [values.astype(dtype), np.zeros(64, dtype)], [], 1)


@each_target
def test_boolean_reductions(target):
    x = Load("x", const(0), Type("bool", 16))
    body = tuple(Store("y", const(i), Apply(f"reduce_{op}", (x,), Type("bool"))) for i, op in enumerate(("and", "or")))
    kernel = Kernel("any_all", (Buffer("x", "bool", "read"), Buffer("y", "bool", "write")), (), "t", body)
    native = Native([kernel], target)
    for values in (np.zeros(16, bool), np.ones(16, bool), np.arange(16) == 11):
        check(kernel, target, [values, np.zeros(2, bool)], [], 1, native)


@each_target
@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "uint8", "bool"])
def test_gather_and_scatter(dtype, target):
    lanes = 8
    at = Var("t") * const(lanes)
    mask = ramp(at, 1, lanes) < splat(Var("n"), lanes)
    index = Load("i", at, Type("int64", lanes), mask)
    body = (
        Let("g", Load("x", index, Type(dtype, lanes), mask)),
        Store("y", at, Var("g", Type(dtype, lanes)), mask),
        Store("z", index, Var("g", Type(dtype, lanes)), mask),
    )
    buffers = (
        Buffer("x", dtype, "read"), Buffer("i", "int64", "read"),
        Buffer("y", dtype, "write"), Buffer("z", dtype, "write"),
    )
    kernel = Kernel("indexed", buffers, ("n",), "t", body)
    generator = np.random.default_rng(1)
    x, i = generator.integers(0, 2 if dtype == "bool" else 90, 13).astype(dtype), generator.integers(0, 13, 21)
    check(kernel, target, [x, i, np.zeros(21, dtype), np.zeros(13, dtype)], [21], 3)


def test_scatter_writes_in_lane_order():
    index = Const(0, Type("int64", 8))
    body = (Store("y", Apply("mul", (ramp(const(0), 1, 8), index), index.type), ramp(const(5), 1, 8)),)
    kernel = Kernel("last", (Buffer("y", "int64", "write"),), (), "t", body)
    check(kernel, machine.host(), [np.zeros(1, np.int64)], [], 1)


def test_a_switched_off_scalar_access_touches_nothing():
    where = const(1 << 40)
    body = (
        Store("y", const(0), Load("x", where, Type("float32"), Var("n") > const(0))),
        Store("y", where, Const(1.0, Type("float32")), Var("n") > const(0)),
    )
    kernel = Kernel("off", (Buffer("x", "float32", "read"), Buffer("y", "float32", "write")), ("n",), "t", body)
    y = np.ones(1, "f")
    Native([kernel], machine.host())("off", [np.ones(1, "f"), y], [0], 0, 1)
    assert y[0] == 0


# -- control flow

@each_target
def test_a_prefetch_changes_nothing_wherever_it_points(target):
    x = Load("x", Var("i"), Type("float32"))
    far = Prefetch("x", Var("i") * const(1 << 40) - const(1 << 50))
    body = (For("i", const(0), Var("n"), 1, (far, Prefetch("x", Var("i") + const(16)), Store("y", Var("i"), x))),)
    kernel = Kernel("ahead", (Buffer("x", "float32", "read"), Buffer("y", "float32", "write")), ("n",), "t", body)
    check(kernel, target, [np.arange(37, dtype="f"), np.zeros(37, "f")], [37], 1, Native([kernel], target))


@each_target
@pytest.mark.parametrize("unroll", [1, 2, 3, 4, 8])
def test_loops_carry_registers(unroll, target):
    """A scalar and a vector sum, a maximum with a branch, and a loop variable's use in a step of 3."""
    x = Load("x", Var("i"), Type("float32"))
    loop = For("i", Var("a"), Var("b"), 3, (
        Set("s", Get("s", x.type) + x),
        If(x > Get("m", x.type), (Set("m", x), Set("k", Var("i"))), (Set("c", Get("c", INT) + const(1)),)),
    ), unroll)
    body = (
        Register("s", Const(0.0, x.type)), Register("m", Const(-1e30, x.type)),
        Register("k", const(-1)), Register("c", const(0)),
        loop,
        Store("y", Var("t") * const(2), Get("s", x.type)), Store("y", Var("t") * const(2) + const(1), Get("m", x.type)),
        Store("z", Var("t") * const(2), Get("k", INT)), Store("z", Var("t") * const(2) + const(1), Get("c", INT)),
    )
    buffers = (Buffer("x", "float32", "read"), Buffer("y", "float32", "write"), Buffer("z", "int64", "write"))
    kernel = Kernel("carry", buffers, ("a", "b"), "t", body)
    native = Native([kernel], target)
    x = np.random.default_rng(2).standard_normal(41).astype("f")
    for a, b in ((0, 41), (5, 5), (7, 3), (1, 2), (0, 13), (2, 38)):
        check(kernel, target, [x, np.zeros(6, "f"), np.zeros(6, np.int64)], [a, b], 3, native)


@each_target
def test_constant_trip_counts(target):
    nodes = []
    loops = ((0, 4, 1, 4), (0, 4, 1, 8), (0, 8, 2, 2), (0, 7, 2, 2), (3, 3, 1, 4), (5, 2, 1, 1), (0, 9, 1, 3),
             (0, 10, 1, 3))
    for start, stop, step, unroll in loops:
        v = f"i{len(nodes)}"
        nodes.append(For(v, const(start), const(stop), step, (
            Set("s", Get("s", INT) * const(3) + Var(v)),
            Store("y", Var(v), Load("y", Var(v), INT) + Get("s", INT)),
        ), unroll))
    kernel = Kernel("trips", (Buffer("y", "int64", "readwrite"),), (), "t", (Register("s", const(1)), *nodes))
    check(kernel, target, [np.zeros(16, np.int64)], [], 2)


@each_target
def test_nested_loops_branches_and_hoisting(target):
    """Expressions of every depth, in branches inside loops inside branches, with registers that change in between."""
    n, m = Var("n"), Var("m")
    deep = For("k", const(0), m, 1, (
        Let("e", (Var("t") * n + Var("j")) * m + Var("k") * const(2)),
        If((Var("e") % const(3)).equals(const(1)), (
            Set("r", Get("r", INT) + Var("t") * n * const(5) + Get("q", INT) * const(2)),
            If(Var("k") > const(2), (Set("q", Get("q", INT) + Var("j")),)),
        ), (
            For("l", Var("k"), m, 2, (Set("r", Get("r", INT) + (Var("l") + const(3)) * (n + const(1))),), 2),
        )),
        Set("r", Get("r", INT) + Get("q", INT) * n),
    ))
    body = (
        Register("q", const(1)),
        For("j", const(0), n, 1, (
            Register("r", Var("j") * n),
            If(Var("j") < m, (deep,)),
            Store("y", (Var("t") * n + Var("j")) * const(1), Get("r", INT)),
        ), 2),
        Store("z", Var("t"), Get("q", INT)),
    )
    kernel = Kernel("nest", (Buffer("y", "int64", "write"), Buffer("z", "int64", "write")), ("n", "m"), "t", body)
    native = Native([kernel], target)
    for n_, m_ in ((5, 4), (1, 1), (4, 7), (3, 0)):
        check(kernel, target, [np.zeros(3 * n_, np.int64), np.zeros(3, np.int64)], [n_, m_], 3, native)


def test_loads_see_stores_made_before():
    x = Load("y", const(0), INT)
    body = (
        Let("a", x), Store("y", const(0), Var("a") + const(1)), Let("b", x), Store("y", const(1), Var("b") * const(10)),
        For("i", const(0), const(5), 1, (Store("y", const(0), x + x),)),
        If(x > const(0), (Store("y", const(2), x),)),
        Store("y", const(3), x),
    )
    kernel = Kernel("order", (Buffer("y", "int64", "readwrite"),), (), "t", body)
    check(kernel, machine.host(), [np.zeros(4, np.int64)], [], 2)


def test_scratch_buffers_lie_one_after_the_other():
    size = Var("n")
    body = (
        For("i", const(0), size, 1, (
            Store("p", Var("i"), cast(Var("i"), "float32")), Store("q", Var("i"), Var("i") * const(7)),)),
        For("i", const(0), size, 1, (
            Store("y", Var("i"), cast(Load("p", Var("i"), Type("float32")), "int64") + Load("q", Var("i"), INT)),)),
    )
    buffers = (
        Buffer("y", "int64", "write"), Buffer("p", "float32", "scratch", size),
        Buffer("q", "int64", "scratch", size + const(3)),
    )
    check(Kernel("scratch", buffers, ("n",), "t", body), machine.host(), [np.zeros(37, np.int64)], [37], 2)


def test_invariant_code_leaves_the_loops():
    """One multiplication by the row length, in front of the inner loop."""
    f16 = Type("float32", 16)
    at, scale = Var("t") * Var("n") + Var("k"), Load("s", const(0), Type("float32"))
    inner = For("k", const(0), Var("n"), 16, (Store("y", at, Load("x", at, f16) * splat(scale, 16)),))
    buffers = tuple(Buffer(name, "float32", access) for name, access in (("x", "read"), ("s", "read"), ("y", "write")))
    kernel = Kernel("rows", buffers, ("n",), "t", (inner,))
    text = llvm.emit([kernel], ["rows"], machine.host())
    assert text.count("mul i64") == 1
    assert text.index("mul i64") < text.index("load <16 x float>")


def test_micro_kernel_has_no_spills():
    """12 x 32 accumulators: 24 fused multiply-adds a step, operands broadcast from memory, nothing on the stack."""
    if machine.host().registers < 32 or machine.host().vector_bytes < 64:
        pytest.skip("needs AVX-512")
    kernel = micro_kernel(12, 2)
    text = machine.assembly(llvm.emit([kernel], ["micro"], machine.host()))
    loops = [block for block in text.split(".LBB") if block.count("vfmadd") == 24]
    assert len(loops) == 1
    assert "(%rsp)" not in loops[0]
    assert "(%rbp)" not in loops[0]
    assert loops[0].count("vmovups") == 2
    x, y = (np.random.default_rng(3).standard_normal(s).astype("f") for s in ((64, 12), (64, 32)))
    z = np.zeros((12, 32), "f")
    Native([kernel], machine.host())("micro", [x, y, z], [64, 32], 0, 1)
    np.testing.assert_allclose(z, x.T @ y, rtol=1e-4, atol=1e-4)


def micro_kernel(rows, columns):
    lanes = Type("float32", 16)
    tile = [(i, j) for i in range(rows) for j in range(columns)]
    step = [Let(f"b{j}", Load("B", Var("k") * const(16 * columns) + const(16 * j), lanes)) for j in range(columns)]
    for i in range(rows):
        step.append(Let(f"a{i}", splat(Load("A", Var("k") * const(rows) + const(i), Type("float32")), 16)))
        for j in range(columns):
            sum = apply("fma", Var(f"a{i}", lanes), Var(f"b{j}", lanes), Get(f"c{i}_{j}", lanes))
            step.append(Set(f"c{i}_{j}", sum))
    body = [Register(f"c{i}_{j}", Const(0.0, lanes)) for i, j in tile]
    body.append(For("k", const(0), Var("K"), 1, tuple(step)))
    body += [Store("C", const(i) * Var("ldc") + const(16 * j), Get(f"c{i}_{j}", lanes)) for i, j in tile]
    buffers = tuple(Buffer(name, "float32", access) for name, access in (("A", "read"), ("B", "read"), ("C", "write")))
    return Kernel("micro", buffers, ("K", "ldc"), "t", tuple(body))


# -- what goes wrong

def test_guard_pages_catch_an_access_outside():
    kernel = Kernel("over", (Buffer("x", "float32", "read"), Buffer("y", "float32", "write")), ("n",), "t",
                    (Store("y", const(0), Load("x", Var("n"), Type("float32"))),))
    native = Native([kernel], machine.host())
    for side, outside in (("after", 8), ("before", -1)):
        x, y = guarded_empty(32, side).view("f"), np.zeros(1, "f")
        assert np.isnan(x).all()
        assert signal_of(lambda x=x, y=y: native("over", [x, y], [3], 0, 1)) == 0
        died = signal_of(lambda x=x, y=y, o=outside: native("over", [x, y], [o], 0, 1))
        assert died in (signal.SIGSEGV, signal.SIGBUS)


def test_errors_name_the_kernel_and_the_operation():
    for op, dtype in (("shl", "float32"), ("div", "int32")):
        kernel = elementwise("wrong", [dtype] * 2, dtype, lambda a, b, op=op: Apply(op, (a, b), a.type), 4)
        with pytest.raises(TypeError, match=f"kernel wrong: operation '{op}' isn't defined"):
            llvm.emit([kernel], ["wrong"], machine.host())
    with pytest.raises(RuntimeError):
        machine.emit_object("define void @f( {", machine.host())
    with pytest.raises(RuntimeError):
        machine.load(b"not an object").address("f")
    good = elementwise("good", ["int32"], "int32", lambda a: a, 4)
    library = machine.load(machine.emit_object(llvm.emit([good], ["good"], machine.host()), machine.host()))
    with pytest.raises(KeyError, match="no symbol 'bad'"):
        library.address("bad")


def test_equal_kernels_give_equal_text_and_objects():
    text = [llvm.emit([micro_kernel(4, 2)], ["f"], machine.host()) for _ in range(2)]
    assert text[0] == text[1]
    assert machine.emit_object(text[0], machine.host()) == machine.emit_object(text[1], machine.host())


def test_host_target_is_plausible():
    host = machine.host()
    assert host.vector_bytes in (16, 32, 64)
    assert host.lanes("float32") == host.vector_bytes // _ITEMSIZE["float32"]
    assert 8 << 10 <= host.l1 < host.l2 <= 64 << 20
