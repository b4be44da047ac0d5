"""Products of int8 and uint8 summed in int32: exactly NumPy's, on every machine, between guard pages."""

from dataclasses import replace

import numpy as np
import pytest
from native_kernels import check, each_target, elementwise, lowered_contraction, run_contraction, same

import ndarray as nd
from hybrid import hybridize
from jit import llvm, machine
from jit.contract import lower_contraction, plain_sink, plain_source
from jit.interpret import run_launches
from jit.launch import Storage
from jit.loopir import Apply, Type
from jit.target import Target
from jit.verify import verify

SIGNS = [("int8", "int8"), ("uint8", "int8"), ("int8", "uint8"), ("uint8", "uint8")]
CASES = {  # shapes, contracted axes, batch axes
    "plain": ((37, 70), (70, 49), ((1,), (0,)), ((), ())),
    "rows by rows": ((13, 131), (67, 131), ((1,), (1,)), ((), ())),
    "turned": ((33, 6), (33, 140), ((0,), (0,)), ((), ())),
    "one row": ((1, 300), (300, 130), ((1,), (0,)), ((), ())),
    "one column": ((150, 9), (9,), ((1,), (0,)), ((), ())),
    "batch": ((3, 20, 33), (3, 33, 18), ((2,), (1,)), ((0,), (0,))),
    "two axes": ((5, 3, 7), (7, 3, 18), ((1, 2), (1, 0)), ((), ())),
    "long": ((9, 1500), (1500, 17), ((1,), (0,)), ((), ())),
    "numbers": ((5,), (5,), ((0,), (0,)), ((), ())),
    "outer": ((7,), (19,), ((), ()), ((), ())),
    "nothing": ((3, 0), (0, 5), ((1,), (0,)), ((), ())),
}


def values(seed, shape, dtype):
    info = np.iinfo(dtype)
    return np.random.default_rng(seed).integers(info.min, info.max + 1, shape).astype(dtype)


def reference(x, y, contract, batch):
    left, right = list(range(x.ndim)), list(range(10, 10 + y.ndim))
    for a, b in (*zip(*contract), *zip(*batch)):
        right[b] = left[a]
    out = [left[a] for a in batch[0]] + [a for k, a in enumerate(left) if k not in (*contract[0], *batch[0])]
    out += [a for k, a in enumerate(right) if k not in (*contract[1], *batch[1])]
    return np.asarray(np.einsum(x.astype(np.int64), left, y.astype(np.int64), right, out)).astype(np.int32)


@each_target
@pytest.mark.parametrize("op", ["dot4", "dot2"])
def test_the_operations_natively_as_interpreted(op, target):
    for lanes in (1, 4, 8, 16):
        if lanes * 4 > target.vector_bytes and lanes > 1:
            continue
        make = lambda c, a, b: Apply(op, (c, a, b), Type("int32", c.type.lanes))
        kernel = verify(elementwise(f"{op}_{lanes}", ["int32"] * 3, "int32", make, lanes))
        words = [np.concatenate((values(k, 29, "int32"), np.int32([-1, 0, 2**31 - 1, -(2**31), 0x7F80FF01]))) for k in range(3)]
        count = len(words[0])
        check(kernel, target, [*words, np.zeros(count, np.int32)], [count], -(-count // lanes))


@pytest.mark.parametrize("signs", SIGNS, ids="-".join)
@each_target
def test_every_machine(target, signs):
    """Also with whatever a machine with fewer instructions does."""
    whole = target == machine.host() and signs == ("int8", "int8")
    for number, (x_shape, y_shape, contract, batch) in enumerate(CASES.values()):
        if number % 4 != SIGNS.index(signs) and not (whole and number % 2):
            continue
        x, y = values(number, x_shape, signs[0]), values(number + 50, y_shape, signs[1])
        want = reference(x, y, contract, batch)
        attrs = {"contract": contract, "batch": batch}
        for one in {replace(target, ways=w) for w in ((target.ways, 1) if number == 4 else (target.ways,))}:
            got = run_contraction("dot_integer", x, y, want.shape, attrs, one, result="int32")
            np.testing.assert_array_equal(got, want, err_msg=f"{x_shape} {y_shape} {one.ways}")


def test_blocks_and_packing_of_every_kind():
    x, y = values(1, (45, 203), "int8"), values(2, (203, 150), "int8")
    attrs = {"contract": ((1,), (0,)), "batch": ((), ())}
    for schedule in ({"kc": 16}, {"mr": 3, "nv": 2, "mt": 6, "nt": 64}, {"pack_a": "no"}, {"pack_b": "no"}, {"pack_b": "task"},
                     {"pack_b": "global", "kc": 8}):
        got = run_contraction("dot_integer", x, y, (45, 150), attrs, machine.host(), result="int32", **schedule)
        np.testing.assert_array_equal(got, x.astype(np.int32) @ y.astype(np.int32), err_msg=str(schedule))


@pytest.mark.parametrize("ways", [1, 2, 4])
@pytest.mark.parametrize("signs", SIGNS, ids="-".join)
def test_interpreted(ways, signs):
    """The kernels' loop IR, verified, in NumPy."""
    target = Target("", "", "", 16, 16, ways=ways)
    for name in ("rows by rows", "batch") if ways == 4 else ("one column", "batch"):
        x_shape, y_shape, contract, batch = CASES[name]
        x, y = values(1, x_shape, signs[0]), values(2, y_shape, signs[1])
        want = reference(x, y, contract, batch)
        places = [Storage(a.dtype.name, a.size) for a in (x, y, want)]
        sources = [plain_source(s, a.shape) for s, a in zip(places, (x, y))]
        attrs = {"contract": contract, "batch": batch}
        launches = lower_contraction("dot_integer", attrs, sources, plain_sink(places[2], want.shape), target)
        for launch in launches:
            verify(launch.kernel)
        memory = {places[0]: x.ravel(), places[1]: y.ravel(), places[2]: np.zeros(want.size, np.int32)}
        run_launches(launches, memory, {})
        same(memory[places[2]].reshape(want.shape), want, name)


def test_the_largest_sums():
    """128 * 128 in all terms; sums past 2**31 wrap, as NumPy's do, eagerly and compiled."""
    for left, right, terms in ((-128, -128, 1030), (-128, 127, 999), (255, 255, 40_000)):
        x = np.full((3, terms), left, "uint8" if left > 0 else "int8")
        y = np.full((terms, 5), right, "uint8" if right > 127 else "int8")
        want = x.astype(np.int32) @ y.astype(np.int32)
        a, b = nd.array(x), nd.array(y)
        np.testing.assert_array_equal(nd.matmul(a, b, dtype="int32").asnumpy(), want)
        np.testing.assert_array_equal(hybridize(lambda a, b: nd.matmul(a, b, dtype="int32"))(a, b).asnumpy(), want)


@pytest.mark.parametrize("signs", SIGNS, ids="-".join)
def test_sizes_that_vary(signs):
    run = hybridize(lambda x, y: nd.matmul(x, y, dtype="int32"))
    for m, k, n in ((5, 8, 9), (6, 13, 9), (17, 22, 9), (1, 3, 9), (40, 1, 9), (2, 64, 9)):
        x, y = values(m, (m, k), signs[0]), values(k, (k, n), signs[1])
        np.testing.assert_array_equal(run(nd.array(x), nd.array(y)).asnumpy(), x.astype(np.int32) @ y.astype(np.int32))
    assert run.traces <= 3


def test_a_quantized_layer_is_packing_and_one_product():
    """What follows the product joins it, and what depends on weights only is kept."""
    from blocks import HybridBlock, Parameter

    class Layer(HybridBlock):
        def __init__(self):
            super().__init__()
            self.weight = Parameter("weight", shape=(48, 64), dtype="int8", grad_req="null")

        def forward(self, x):
            q = nd.clip(nd.round(x * 30.0), -127, 127).astype("int8")
            return nd.relu(nd.fully_connected(q, self.weight.data(), dtype="int32").astype("float32") * 0.25)

    layer = Layer()
    layer.initialize("zeros")
    layer.weight.set_data(nd.array(values(1, (48, 64), "int8")))
    x = nd.array(np.random.default_rng(0).standard_normal((20, 64)).astype("float32"))
    eager = layer(x).asnumpy()
    layer.hybridize()
    for _ in range(3):
        np.testing.assert_array_equal(layer(x).asnumpy(), eager)
    names = [k.name for k in layer.explain(x).kernels]
    assert sum(n.startswith("dot_bytes") for n in names) == 1
    assert len([n for n in names if not n.startswith(("pack", "columns"))]) == 2, names  # quantizing; product and what follows
    layer.weight.set_data(nd.array(values(2, (48, 64), "int8")))  # sums of columns are kept: they must follow
    want = layer(x).asnumpy()
    layer.hybridize(False)
    np.testing.assert_array_equal(want, layer(x).asnumpy())


def test_dtype_of_a_product_is_numpys():
    x, y = values(1, (4, 6), "int8"), values(2, (6, 3), "uint8")
    a, b = nd.array(x), nd.array(y)
    for dtype in ("int32", "int64", "int16", "float32", "float64"):
        got, want = nd.matmul(a, b, dtype=dtype), np.matmul(x, y, dtype=dtype)
        assert got.dtype == want.dtype
        np.testing.assert_array_equal(got.asnumpy(), want)
        np.testing.assert_array_equal(nd.dot(a, b, dtype=dtype).asnumpy(), want)
    assert nd.matmul(a, nd.array(x.T)).dtype == np.int8  # without: as before, modulo 2**8
    np.testing.assert_array_equal(nd.matmul(a, nd.array(x.T)).asnumpy(), x @ x.T)
    np.testing.assert_array_equal(nd.matmul(a, nd.array(x.T), dtype="int8").asnumpy(), x @ x.T)
    assert nd.dot(nd.array(7, dtype="int8"), a, dtype="int32").dtype == np.int32
    stack = values(3, (2, 6, 3), "int8")
    np.testing.assert_array_equal(nd.matmul(a, nd.array(stack), dtype="int32").asnumpy(), np.matmul(x, stack, dtype="int32"))
    got = nd.fully_connected(a, nd.array(y.T), nd.array([1, 2, 3], dtype="int32"), dtype="int32")
    np.testing.assert_array_equal(got.asnumpy(), x.astype(int) @ y + [1, 2, 3])
    with pytest.raises(TypeError, match=r"matmul: x1: expected a dtype that converts to int32 in kind, got float32"):
        nd.matmul(nd.ones((2, 2)), nd.ones((2, 2)), dtype="int32")
    with pytest.raises(TypeError, match=r"fully_connected: weight: .*got float32"):
        nd.fully_connected(a, nd.ones((3, 6)), dtype="int32")


def test_code_for_vnni():
    """One instruction for 64 products, where the machine has it."""
    if machine.host().ways < 4:
        pytest.skip("no AVX-512 VNNI")
    x, y = values(0, (24, 64), "uint8"), values(1, (64, 64), "int8")
    attrs = {"contract": ((1,), (0,)), "batch": ((), ())}
    _, launches = lowered_contraction("dot_integer", x, y, (24, 64), attrs, machine.host(), result="int32")
    kernel = launches[-1].kernel
    text = machine.assembly(llvm.emit([kernel], ["k"], machine.host()))
    assert text.count("vpdpbusd") >= 8
