"""CUDA C printed from loop IR, run by the simulator in three orders of threads, against the loop-IR interpreter.

Results are equal to the bit: the same polynomials, one rounding an operation, reductions in the same order.
"""

import numpy as np
import pytest
import test_llvm
from cuda_kernels import WARPS, Simulated, check, needs_compiler
from native_kernels import elementwise

from hybrid.graph import Builder
from jit.cuda.printer import Layout, print_kernel, print_module, range_steps
from jit.cuda.ranges import fits_int32
from jit.cuda.simulate import SimulationError, load_module
from jit.cuda.target import gpu_target
from jit.interpret import run_launches
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
    cast,
    const,
    ramp,
)
from jit.loopir import splat as spread
from jit.lower import lower
from ndarray.op import OPAQUE, OPS, ArrayType

LAYOUTS = {"warp": WARPS, "128 threads": Layout(128, 1), "256 threads": Layout(256, 1)}
each_layout = pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
rng = np.random.default_rng(17)


# -- lowered graphs

def lowered_samples(names, most):
    """(name, lowered graph, arrays) of the first samples of each op."""
    for name in names:
        for sample in [s for s in OPS[name].samples() if s.error is None][:most]:
            builder, arrays = Builder(), [np.asarray(a) for a in sample.arrays]
            inputs = [builder.input(ArrayType(a.shape, a.dtype)) for a in arrays]
            graph = builder.build(builder.emit(OPS[name], *inputs, **sample.attrs))
            yield name, lower(graph, gpu_target("sim")), arrays


def run_samples(names, most):
    """Every launch of the ops' samples, checked."""
    work = list(lowered_samples(names, most))
    kernels = list(dict.fromkeys(launch.kernel for _, lowered, _ in work for launch in lowered.launches))
    simulated = {}
    for k in range(0, len(kernels), 24):
        simulated |= dict.fromkeys(kernels[k:k + 24], Simulated(kernels[k:k + 24], index="int"))

    def run(kernel, buffers, parameters, first, last):
        for buffer, result in zip(buffers, check(kernel, buffers, parameters, last, simulated[kernel])):
            buffer[:] = result

    for _name, lowered, arrays in work:
        memory = {s: np.array(a).reshape(-1) for s, a in zip(lowered.inputs, arrays)}
        run_launches(lowered.launches, memory, {}, run)


LOWERED = [n for n in OPS if OPS[n].lower is not OPAQUE]
LARGE = [n for n in LOWERED if "attention" in n or "convolution" in n]


@needs_compiler
@pytest.mark.parametrize("part", range(6))
def test_every_op_on_its_first_sample(part):
    run_samples([n for n in LOWERED if n not in LARGE][part::6], 1)


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize("name", LOWERED)
def test_every_op_on_its_samples(name):
    run_samples([name], 8)


# -- operations

@needs_compiler
@pytest.mark.parametrize("dtype", test_llvm.DTYPES)
def test_operations(dtype):
    run_operations(dtype, WARPS, (32,))


@needs_compiler
@pytest.mark.slow
@each_layout
@pytest.mark.parametrize("dtype", test_llvm.DTYPES)
def test_operations_of_any_width(dtype, layout):
    run_operations(dtype, layout, (1, 4, 64, 256))


def run_operations(dtype, layout, widths):
    found = [(elementwise(f"{name}_{lanes}", [str(a.dtype) for a in arguments], result, make, lanes), lanes, arguments, result)
             for name, arguments, result, make in test_llvm.cases(dtype) for lanes in widths]
    simulated = Simulated([kernel for kernel, *_ in found], layout, "int")
    for kernel, lanes, arguments, result in found:
        n = len(arguments[0])
        check(kernel, [*arguments, np.zeros(n, result)], [n], -(-n // lanes), simulated)


HALVES = ("float16", "bfloat16")


@needs_compiler
@pytest.mark.parametrize("dtype", HALVES)
def test_narrow_floats(dtype):
    from jit.numerics import dtype_of

    patterns = np.concatenate([np.arange(0, 65536, 97), [0, 1, 0x8000, 0x7C00, 0xFC00, 0x7E00, 0x7F80, 0xFF80, 0x3FF, 0x400]])
    x = patterns.astype(np.uint16).view(dtype_of(dtype))
    y, n = rng.permutation(x), len(x)
    unary = ("neg", "abs", "sign", "sqrt", "floor", "ceil", "trunc", "round")
    binary = ("add", "sub", "mul", "div", "min", "max")
    with np.errstate(all="ignore"):
        kernels = [elementwise(op, [dtype], dtype, lambda a, op=op: apply(op, a), 32) for op in unary]
        kernels += [elementwise(op, [dtype] * 2, dtype, lambda a, b, op=op: apply(op, a, b), 32) for op in binary]
        kernels += [elementwise("less", [dtype] * 2, "bool", lambda a, b: apply("lt", a, b), 32)]
        kernels += [elementwise("widened", [dtype], "float32", lambda a: cast(a, "float32"), 32)]
        simulated = Simulated(kernels, index="int")
        for kernel in kernels:
            arguments = [x, y][:len(kernel.buffers) - 1]
            result = np.zeros(n, dtype_of(kernel.buffers[-1].dtype))
            check(kernel, [*arguments, result], [n], -(-n // 32), simulated)


@needs_compiler
def test_casts():
    from jit.numerics import dtype_of

    dtypes = (*test_llvm.DTYPES, *HALVES)
    pairs = [(a, b) for a in dtypes for b in dtypes]
    kernels = {(a, b): elementwise(f"{a}_{b}", [a], b, lambda x, b=b: cast(x, b), 32) for a, b in pairs}
    simulated = Simulated(kernels.values(), index="int")
    for (a, b), kernel in kernels.items():
        with np.errstate(all="ignore"):
            values = test_llvm.edges("float32").astype(dtype_of(a)) if a in HALVES else test_llvm.edges(a)
        if test_llvm.kind(a) in "fV" and dtype_of(b).kind in "iu":  # what others give is the machine's business
            info = np.iinfo(b)
            wide = values.astype(float)
            values = values[np.isfinite(wide) & (wide > float(info.min)) & (wide < float(info.max))]
        if b in HALVES and a in ("int64", "uint64", "int32", "uint32"):  # by way of float32: two roundings
            values = values[np.abs(values.astype(float)) < 1 << 24]
        with np.errstate(all="ignore"):
            check(kernel, [values, np.zeros(len(values), dtype_of(b))], [len(values)], -(-len(values) // 32), simulated)


@needs_compiler
def test_variables_may_have_the_names_of_buffers():
    x, i = Var("b1", Type("float32", 32)), Var("b0")
    inner = (Let("b1", Load("b0", i, x.type)), Store("b1", i, x + x))
    kernel = Kernel("names", (Buffer("b0", "float32", "read"), Buffer("b1", "float32", "write")), ("n",), "t",
                    (For("b0", const(0), Var("n"), 32, inner),))
    check(kernel, [rng.standard_normal(96).astype(np.float32), np.zeros(96, np.float32)], [96], 1)


# -- vectors

@needs_compiler
@each_layout
@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "int64", "uint8", "float16"])
def test_operations_across_lanes(dtype, layout):
    kernels = [across(dtype, lanes) for lanes in (4, 32, 64, 512)]
    simulated = Simulated(kernels, layout, "int")
    for kernel, lanes in zip(kernels, (4, 32, 64, 512)):
        values = rng.standard_normal(2 * lanes) * 3 if dtype[0] == "f" else rng.integers(0, 9, 2 * lanes)
        values = values.astype(dtype)
        if dtype[0] == "f":
            values[3] = np.nan
        check(kernel, [values, np.zeros(40 * lanes, dtype)], [], 2, simulated)


def across(dtype, lanes):
    """Every operation across lanes, on two vectors."""
    vector, scalar, wide = Type(dtype, lanes), Type(dtype), Type(dtype, 2 * lanes)
    x, y = Var("v", vector), Var("w", vector)
    body = [Let("v", Load("x", const(0), vector)), Let("w", Load("x", const(lanes), vector))]
    body += [Store("y", const(i), Apply(f"reduce_{op}", (y,), scalar)) for i, op in enumerate(("add", "mul", "max", "min"))]
    reverse, joined = Apply("reverse", (x,), vector), Apply("concat", (x, y), wide)
    lane = lambda v, k: Apply("lane", (v, const(k)), scalar)
    results = [reverse, joined, Apply("interleave", (x, y), wide), Apply("even", (joined,), vector),
               Apply("odd", (joined,), vector), Apply("even", (Apply("interleave", (reverse, y), wide),), vector),
               spread(lane(x, lanes - 1), lanes), ramp(lane(y, 1), lane(y, 2), lanes)]
    at = 2 * lanes
    for r in results:
        body.append(Store("y", const(at), r))
        at += r.type.lanes
    return Kernel(f"across_{lanes}", (Buffer("x", dtype, "read"), Buffer("y", dtype, "write")), (), "t", tuple(body))


@needs_compiler
@each_layout
def test_boolean_reductions(layout):
    kernels = []
    for lanes in (8, 32, 256):
        x = Load("x", const(0), Type("bool", lanes))
        body = tuple(Store("y", const(i), Apply(f"reduce_{op}", (x,), Type("bool"))) for i, op in enumerate(("and", "or")))
        kernels.append(Kernel(f"any_{lanes}", (Buffer("x", "bool", "read"), Buffer("y", "bool", "write")), (), "t", body))
    simulated = Simulated(kernels, layout)
    for kernel, lanes in zip(kernels, (8, 32, 256)):
        for values in (np.zeros(lanes, bool), np.ones(lanes, bool), np.arange(lanes) == lanes - 1):
            check(kernel, [values, np.zeros(2, bool)], [], 1, simulated)


@needs_compiler
@each_layout
def test_of_equal_places_the_last_lane_wins(layout):
    lanes = 512
    index = Load("i", const(0), Type("int64", lanes))
    mask = Load("m", const(0), Type("bool", lanes))
    body = (Store("y", index, ramp(const(5), 1, lanes), mask),)
    buffers = (Buffer("i", "int64", "read"), Buffer("m", "bool", "read"), Buffer("y", "int64", "readwrite"))
    arrays = [rng.integers(0, 40, lanes), rng.random(lanes) < 0.7, np.zeros(40, np.int64)]
    check(Kernel("last", buffers, (), "t", body), arrays, [], 1, layout=layout)


# -- control flow: the kernels of the tests of native code

@needs_compiler
@pytest.mark.parametrize("test", [
    lambda t: test_llvm.test_gather_and_scatter("float32", t), lambda t: test_llvm.test_gather_and_scatter("bool", t),
    test_llvm.test_a_prefetch_changes_nothing_wherever_it_points, lambda t: test_llvm.test_loops_carry_registers(3, t),
    test_llvm.test_constant_trip_counts, test_llvm.test_nested_loops_branches_and_hoisting,
    lambda t: test_llvm.test_loads_see_stores_made_before(), lambda t: test_llvm.test_scratch_buffers_lie_one_after_the_other(),
    lambda t: test_llvm.test_scatter_writes_in_lane_order(), test_llvm.test_boolean_reductions,
    lambda t: test_llvm.test_reductions_and_lanes("float64", t),
], ids=["gather", "gather_bool", "prefetch", "registers", "trips", "nest", "order", "scratch", "scatter", "any", "lanes"])
@pytest.mark.parametrize("layout", [WARPS, Layout(128, 1)], ids=["warp", "128 threads"])
def test_kernels_of_the_native_tests(test, layout, monkeypatch):
    monkeypatch.setattr(test_llvm, "Native", lambda kernels, target: Simulated(kernels, layout, "int"))
    monkeypatch.setattr(test_llvm, "check", lambda kernel, target, arrays, parameters, tasks, native=None: check(
        kernel, arrays, parameters, tasks, native, layout, "int"))
    test(gpu_target("sim"))


@needs_compiler
@each_layout
def test_rows_through_scratch(layout):
    """Sums of squares kept in scratch by vectors, read again one by one and backwards: barriers between, and none too few."""
    kernel = scratch_kernel(layout.lanes)
    for n, rows in ((1, 1), (37, 5), (256, 9), (1000, 3)):
        check(kernel, [rng.standard_normal(rows * n), np.full(rows * 2, np.nan), np.full(rows * n, np.nan)], [n], rows,
              layout=layout)


def scratch_kernel(lanes):
    vector, scalar = Type("float64", lanes), Type("float64")
    i, n = Var("i"), Var("n")
    row = Var("t") * n
    mask = ramp(i, 1, lanes) < spread(n, lanes)
    x = Load("x", row + i, vector, mask)
    body = (
        Register("s", Const(0.0, vector)),
        For("i", const(0), n, lanes, (Store("p", i, x * x, mask), Set("s", Get("s", vector) + Load("p", i, vector, mask)))),
        Store("y", Var("t") * 2, Apply("reduce_add", (Get("s", vector),), scalar)),
        Register("r", Const(0.0, scalar)),
        For("j", const(0), n, 1, (
            Set("r", Get("r", scalar) + Load("p", n - 1 - Var("j"), scalar)), Store("p", n - 1 - Var("j"), Get("r", scalar)))),
        If(n > 4, (Store("y", Var("t") * 2 + 1, Get("r", scalar)),), (Store("y", Var("t") * 2 + 1, Const(-1.0, scalar)),)),
        For("i", const(0), n, lanes, (Store("z", row + i, Load("p", i, vector, mask), mask),)),
    )
    buffers = (Buffer("x", "float64", "read"), Buffer("y", "float64", "write"), Buffer("z", "float64", "write"),
               Buffer("p", "float64", "scratch", n))
    return Kernel("rows_through_scratch", buffers, ("n",), "t", body)


@needs_compiler
def test_scratch_beyond_shared_memory_lies_in_global_memory():
    check(scratch_kernel(32), [rng.standard_normal(7 * 9000), np.full(14, np.nan), np.full(7 * 9000, np.nan)], [9000], 7)


# -- the text

def test_text(golden):
    exp = elementwise("exp", ["float32"] * 2, "float32", lambda a, b: apply("exp", a) + b, 32)
    golden("cuda_exp.txt", print_kernel("k0", exp))
    golden("cuda_rows_through_scratch.txt", print_kernel("k1", scratch_kernel(32)))
    golden("cuda_across_a_block.txt", print_kernel("k2", across("float16", 256), Layout(128, 1)))


def test_equal_kernels_give_equal_text():
    assert print_module({"k": scratch_kernel(32)}) == print_module({"k": scratch_kernel(32)})


def test_a_buffer_touched_by_the_same_threads_needs_no_barrier():
    kernel = scratch_kernel(32)
    private = Kernel("private", kernel.buffers, kernel.parameters, "t", (*kernel.body[:3], kernel.body[-1]))
    text = print_kernel("k", private)
    assert text.count("synchronize") == 1  # behind a task, before the next takes the same memory
    assert print_kernel("k", kernel).count("synchronize") > 3
    alone = elementwise("alone", ["float32"], "float32", lambda a: a + a, 32)
    assert "synchronize" not in print_kernel("k", alone)
    in_place = Kernel("in_place", alone.buffers, alone.parameters, alone.task, alone.body, True)
    assert "synchronize" not in print_kernel("k", in_place)
    assert "__restrict__" in print_kernel("k", alone)
    assert "__restrict__" not in print_kernel("k", in_place)


def test_errors_name_the_kernel_and_the_problem():
    for op, dtype in (("shl", "float32"), ("div", "int32")):
        kernel = elementwise("wrong", [dtype] * 2, dtype, lambda a, b, op=op: Apply(op, (a, b), a.type), 32)
        with pytest.raises(TypeError, match=f"kernel wrong: operation '{op}' isn't defined"):
            print_kernel("k", kernel)
    with pytest.raises(ValueError, match="kernel odd: a vector of 12 lanes"):
        print_kernel("k", elementwise("odd", ["int32"], "int32", lambda a: a, 12))
    with pytest.raises(ValueError, match="lanes is a power of two"):
        Layout(48)
    with pytest.raises(ValueError, match="don't make a block"):
        Layout(128, 4)


# -- sizes of 32 bits

def test_launches_that_need_64_bits():
    steps = range_steps(scratch_kernel(32))
    assert fits_int32(steps, [1000], 100)
    assert not fits_int32(steps, [1 << 20], 1 << 12)
    assert not fits_int32(steps, [1 << 31], 1)
    kernel = elementwise("squares", ["int64"], "int64", lambda x: ramp(Var("t"), 1, 32) * ramp(Var("t"), 1, 32) + x, 32)
    assert fits_int32(range_steps(kernel), [32 * 1000], 1000)  # data made of indices counts
    assert not fits_int32(range_steps(kernel), [32 * 100000], 100000)


@needs_compiler
def test_data_made_of_indices_has_64_bits():
    """i * i * 1000003 of positions, beyond 2**31."""
    lanes = Type("int64", 32)
    at = Var("t") * 32
    position = ramp(at, 1, 32)
    body = (Store("y", at, position * position * Const(1000003, lanes)),)
    kernel = Kernel("cubes", (Buffer("y", "int64", "write"),), (), "t", body)
    (y,) = check(kernel, [np.zeros(3200, np.int64)], [], 100)
    assert y[-1] == 3199 * 3199 * 1000003


# -- the simulator

def source(body):
    return print_module({}) + f"""
extern "C" __global__ void __launch_bounds__(64) bad(int32 *__restrict__ y) {{
  SHARED(memory);
  int32 *s = (int32 *)memory;
  const int lane = threadIdx.x;
  {body}
}}
"""


def launch(body, order="forward", block=(32, 1)):
    y = np.zeros(64, np.int32)
    load_module(source(body)).launch("bad", 1, block, 1024, np.array([y.ctypes.data], np.int64), order)
    return y


@needs_compiler
def test_a_missing_barrier_shows_in_some_order():
    body = "s[lane] = lane; {} y[lane] = s[31 - lane];"
    results = [launch(body.format(""), order) for order in ("forward", "backward", "shuffled")]
    assert any((r[:32] != np.arange(32)[::-1]).any() for r in results)
    for order in ("forward", "backward", "shuffled"):
        np.testing.assert_array_equal(launch(body.format("__syncwarp();"), order)[:32], np.arange(32)[::-1])


@needs_compiler
@pytest.mark.parametrize(("body", "problem"), [
    ("if (lane < 7) __syncwarp();", r"thread \(0, 0\) waits for its warp while thread \(7, 0\) has ended"),
    ("if (lane) __syncthreads(); else __syncwarp();", "waits for its warp while thread .* waits for the block"),
    ("if (lane < 3) y[0] = __shfl_sync(~0u, lane, 1); else __syncwarp();", "at another place while"),
])
def test_a_barrier_that_not_all_reach_is_an_error(body, problem):
    for order in ("forward", "backward", "shuffled"):
        with pytest.raises(SimulationError, match=f"kernel bad: block 0: .*{problem}"):
            launch(body, order)
    np.testing.assert_array_equal(launch("y[lane] = lane;"), [*range(32), *[0] * 32])  # and another launch is fine


@needs_compiler
def test_a_block_waits_for_all_of_its_warps():
    body = "const int w = threadIdx.y; s[w * 32 + lane] = lane; __syncthreads(); y[w * 32 + lane] = s[(1 - w) * 32 + lane] + 1;"
    for order in ("forward", "backward", "shuffled"):
        np.testing.assert_array_equal(launch(body, order, (32, 2)), [*range(1, 33)] * 2)


@needs_compiler
def test_shared_memory_begins_as_nan():
    y = launch("y[lane] = s[lane];")
    assert np.isnan(y[:32].view("f")).all()


@needs_compiler
def test_bad_launches_are_errors():
    module = load_module(source("y[lane] = 1;"))
    with pytest.raises(KeyError, match="no kernel 'good'"):
        module.launch("good", 1, (32, 1), 0, np.zeros(1, np.int64))
    with pytest.raises(SimulationError, match="1 to 1024 threads"):
        module.launch("bad", 1, (2048, 1), 0, np.zeros(1, np.int64))
    with pytest.raises(RuntimeError, match="refuses generated code"):
        load_module(source("nonsense"))


def test_a_state_written_where_it_is_read_is_not_restrict():
    """Running statistics: one kernel reads the old ones and writes the new ones to the same memory."""
    from tests.test_fuse import Maker

    m = Maker()
    x, running = m.array(40, 50), m.array(40)
    mean = m.divide(m.sum(x, axes=(1,)), 50.0)
    lowered = lower(m.build([m.subtract(x, m.reshape(mean, shape=(40, 1)))], {1: m.add(m.multiply(running, 0.9), mean)}),
                    gpu_target("sim"))
    shared = [launch.kernel for launch in lowered.launches if len(set(launch.buffers)) < len(launch.buffers)]
    assert shared
    for kernel in shared:
        assert kernel.in_place
        assert "__restrict__" not in print_kernel("k", kernel)
