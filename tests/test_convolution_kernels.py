"""Convolutions over channels-last arrays, natively in guarded memory, against NumPy in float64; and the layout pass."""

from dataclasses import replace

import numpy as np
import pytest
from native_kernels import TARGETS, run_contraction
from test_contract import convolution_reference, data_gradient_reference, out_size, weight_gradient_reference

import ndarray as nd
from hybrid import hybridize
from hybrid.backend import Options
from hybrid.graph import Builder
from hybrid.interpret import evaluate_graph
from hybrid.passes import layout, optimize
from hybrid.trace import Tracer
from hybrid.verify import verify
from jit.backend import NativeBackend
from jit.direct import UNIT, Convolution, Window, choose
from jit.narrow import narrow_cost
from jit.target import Target
from ndarray.op import ArrayType

REFERENCES = {
    "convolution": convolution_reference,
    "convolution_data_gradient": data_gradient_reference,
    "convolution_weight_gradient": weight_gradient_reference,
}

NATIVE = {name: t for name, t in TARGETS.items() if name in ("host", "avx2", "sse")}

# (x, channels of out, kernel, stride, padding, dilation, groups), channels second
CASES = [
    ((2, 20, 9, 11), 20, (3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1), 20),  # depthwise, channels that don't fill vectors
    ((1, 64, 8, 30), 64, (3, 3), (2, 2), ((0, 1), (0, 1)), (1, 1), 64),  # depthwise with stride, two blocks of columns
    ((1, 33, 7, 7), 33, (7, 7), (1, 1), ((3, 3), (3, 3)), (1, 1), 33),  # depthwise, taps in loops
    ((1, 16, 3, 28), 16, (3, 3), (2, 1), ((1, 1), (1, 1)), (1, 1), 16),  # depthwise, whole tiles: it is known what lies beside x
    ((1, 16, 4, 28), 16, (3, 3), (1, 2), ((1, 1), (1, 1)), (1, 1), 16),
    ((2, 6, 9), 6, (4,), (1,), ((3, 0),), (2,), 6),  # depthwise and causal, one axis
    ((1, 17, 6, 130), 35, (1, 3), (1, 1), ((0, 0), (1, 1)), (1, 1), 1),  # wide: blocks of columns
    ((3, 3, 15, 15), 24, (7, 7), (2, 2), ((3, 3), (3, 3)), (1, 1), 1),  # a stem
    ((1, 40, 4, 4), 20, (3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1), 1),  # rows of taps in the padding
    ((2, 12, 9, 9), 8, (3, 3), (3, 2), ((2, 0), (1, 2)), (2, 3), 4),  # groups, dilation, stride
    ((1, 16, 6, 6), 40, (1, 1), (2, 2), ((0, 0), (0, 0)), (1, 1), 1),  # residues without taps
    ((1, 5, 3, 6, 5), 4, (2, 3, 1), (1, 2, 1), ((1, 0), (1, 1), (0, 0)), (1, 1, 1), 1),
    ((2, 4, 5, 5), 3, (3, 3), (1, 1), ((4, 0), (0, 5)), (1, 1), 1),  # padding wider than the filter
    ((2, 37, 13, 11), 67, (1, 1), (1, 1), ((0, 0), (0, 0)), (1, 1), 1),  # one tap, prime sizes
    ((1, 19, 9, 17), 130, (1, 1), (2, 3), ((1, 0), (0, 2)), (1, 1), 1),  # one tap, with stride and padding
    ((2, 17, 10, 3), 17, (3, 2), (2, 3), ((5, 0), (0, 4)), (2, 1), 17),  # depthwise; some outputs see padding only
    ((1, 18, 4, 5, 6), 18, (3, 1, 2), (1, 2, 1), ((1, 1), (0, 0), (2, 0)), (1, 1, 2), 18),  # depthwise, three axes
    ((2, 6, 9, 12), 20, (5, 5), (1, 1), ((0, 0), (0, 0)), (1, 1), 1),  # the gradient for 6 channels: taps of a row side by side
    ((1, 40, 7, 33), 6, (3, 3), (2, 1), ((1, 1), (4, 5)), (1, 1), 2),  # so is the result of 3, in groups, and wide padding
]


def last(x):
    return np.ascontiguousarray(np.moveaxis(x, 1, -1))


def run(op, *arguments):
    """The op on channels-last arrays, in guarded memory."""
    return run_contraction(f"{op}_channels_last", *arguments)


@pytest.mark.parametrize("op", REFERENCES)
@pytest.mark.parametrize("target", NATIVE.values(), ids=NATIVE)
@pytest.mark.parametrize("number", range(len(CASES)))
def test_native(op, target, number):
    shape, outputs, kernel, stride, padding, dilation, groups = CASES[number]
    dtype = np.float64 if number % 4 == 3 else np.float32
    rng = np.random.default_rng(number)
    attrs = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    w_shape = (outputs, shape[1] // groups, *kernel)
    out = (shape[0], outputs, *(out_size(*a) for a in zip(shape[2:], kernel, stride, padding, dilation)))
    x, w, g = (rng.standard_normal(s).astype(dtype) for s in (shape, w_shape, out))
    if op == "convolution":
        want, got = convolution_reference(x, w, **attrs), run(op, last(x), w, last(g).shape, attrs, target)
        got = np.moveaxis(got, -1, 1)
    elif op == "convolution_data_gradient":
        want = data_gradient_reference(g, w, shape, **attrs)
        got = np.moveaxis(run(op, last(g), w, last(x).shape, {"shape": last(x).shape, **attrs}, target), -1, 1)
    else:
        want = weight_gradient_reference(x, g, w_shape, **attrs)
        got = run(op, last(x), last(g), w_shape, {"shape": w_shape, **attrs}, target)
    scale = np.abs(want).max() + 1
    np.testing.assert_allclose(got / scale, want / scale, atol=1e-14 if dtype is np.float64 else 2e-6)


@pytest.mark.parametrize(("groups", "kernel", "vectors", "half"), [
    (1, 1, 1.5, True), (2, 1, 1.5, True), (1, 3, 4.25, True), (1, 3, 3, False), (1, 1, 0.75, False),
])
def test_half_vectors_where_they_leave_fewer_lanes_empty(groups, kernel, vectors, half):
    target = replace(NATIVE["host"], halves=True)
    outputs = int(vectors * target.lanes("float32"))
    rng = np.random.default_rng(0)
    attrs = {"stride": (1, 2), "padding": ((kernel // 2, kernel // 2),) * 2, "dilation": (1, 1), "groups": groups}
    x, w = rng.standard_normal((2, 67 * groups, 9, 31)), rng.standard_normal((outputs * groups, 67, kernel, kernel))
    x, w = x.astype(np.float32), w.astype(np.float32)
    want = convolution_reference(x, w, **attrs)
    got = run("convolution", last(x), w, last(want).shape, attrs, target)
    np.testing.assert_allclose(np.moveaxis(got, -1, 1), want, rtol=1e-5, atol=1e-4)
    windows = (UNIT, *(Window(n, o, kernel, s, 1, kernel // 2) for n, o, s in zip((9, 31), want.shape[2:], (1, 2))))
    plan = choose(Convolution("float32", 2, groups, 67, outputs, windows, None), target)
    wide = choose(Convolution("float32", 2, groups, 67, outputs, windows, None), replace(target, halves=False))
    assert wide.lanes == target.lanes("float32")
    assert wide.lanes < 16 or plan.lanes == (8 if half else 16)


def test_taps_are_counted_as_they_are_met():
    for size, taps, stride, step, low, out in [(7, 3, 1, 1, 1, 7), (7, 3, 2, 1, 1, 4), (5, 2, 1, 3, 4, 9), (4, 5, 1, 1, 2, 4)]:
        window = Window(size, out, taps, stride, step, low)
        for count in (1, 2, 3):
            met = 0
            for first in range(0, out, count):
                met += sum(any(0 <= (first + r) * stride + t * step - low < size for r in range(count)) for t in range(taps))
            assert window.steps(count) >= met  # a dilated tap may be counted though it steps over the input
            assert step > 1 or window.steps(count) == met


# -- the layout pass


def block():
    """A residual block with normalization, pooling and a head, in channels-first operations."""
    b = Builder("block")
    f4 = np.dtype("f4")
    x = b.input(ArrayType((2, 4, 6, 6), f4), "x")
    w = b.input(ArrayType((4, 4, 3, 3), f4), "w")
    scale = b.input(ArrayType((4, 1, 1), f4), "scale")
    head = b.input(ArrayType((36, 3), f4), "head")
    attrs = {"stride": (1, 1), "padding": ((1, 1), (1, 1)), "dilation": (1, 1), "groups": 1}
    (y,) = b.emit("convolution", x, w, **attrs)
    (y,) = b.emit("multiply", y, scale)
    (y,) = b.emit("relu", y)
    (z,) = b.emit("convolution", y, w, **attrs)
    (z,) = b.emit("add", z, y)
    z, _ = b.emit("max_pool", z, kernel=(2, 2), stride=(2, 2), padding=((0, 0), (0, 0)))
    (s,) = b.emit("sum", z, axes=(0, 2, 3), keepdims=False)
    (m,) = b.emit("max", z, axes=(0,), keepdims=False)
    (p,) = b.emit("pad", z, low=(0, 1, 0, 0), high=(0, 0, 0, 1), interior=(0, 0, 0, 0), value=0.0)
    (j,) = b.emit("concatenate", z, z, axis=1)
    (flat,) = b.emit("reshape", z, shape=(2, 36))
    (logits,) = b.emit("dot_general", flat, head, contract=((1,), (0,)), batch=((), ()))
    return b.build([z, s, m, p, j, logits])


def test_layout_moves_transpositions_to_the_borders():
    graph = block()
    new = verify(layout(graph))
    names = [eq.op.name for eq in new.equations]
    assert "convolution" not in names and names.count("convolution_channels_last") == 2
    inner = [eq for eq in new.equations if eq.op.name in ("relu", "add", "multiply")]
    assert all(eq.output.shape == (2, 6, 6, 4) for eq in inner)
    (pool,) = [eq for eq in new.equations if eq.op.name == "max_pool"]
    assert pool.attrs["kernel"] == (2, 2, 1) and pool.outputs[0].shape == (2, 3, 3, 4)
    produced = {v: eq for eq in new.equations for v in eq.outputs}
    results = set(new.outputs)
    for eq in new.equations:
        if eq.op.name == "transpose" and eq.inputs[0] in produced and eq.output.shape != (1, 1, 1, 4):  # the scale
            readers = [e.op.name for e in new.equations if eq.output in e.inputs]
            assert eq.output in results or readers == ["copy"]
    rng = np.random.default_rng(0)
    values = [rng.standard_normal(v.shape).astype("f4") for v in graph.inputs]
    for got, want in zip(evaluate_graph(new, values), evaluate_graph(graph, values), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


def test_few_outputs_have_the_taps_of_a_row_side_by_side():
    unused = lambda *_: None
    window = Window(14, 14, 5, 1, 1, 2)
    problem = Convolution("float32", 8, 1, 16, 3, (UNIT, window, window), unused)
    target = Target("", "", "", vector_bytes=64, registers=32, halves=True)
    assert narrow_cost(problem, target) < 0.6
    for other in (replace(problem, outputs=16), replace(problem, windows=(UNIT, window, replace(window, stride=2)))):
        assert narrow_cost(other, target) > 1


@pytest.mark.parametrize("channels", [3, 17])
def test_layout_stores_many_channels_turned(channels):
    """What lies channels first is turned by a pass of its own, but for images."""
    b = Builder()
    x, w = (b.input(ArrayType(s, np.dtype("f4"))) for s in ((1, channels, 6, 6), (4, channels, 3, 3)))
    (y,) = b.emit("convolution", x, w, stride=(1, 1), padding=((1, 1), (1, 1)), dilation=(1, 1), groups=1)
    names = [eq.op.name for eq in layout(b.build([y])).equations]
    assert names == ["transpose", *(["copy"] if channels == 17 else []), "convolution_channels_last", "transpose"]


@pytest.mark.parametrize("alone", [True, False])
def test_layout_of_a_product_with_channels_first(alone):
    """A convolution with one tap alone is the product that it is; beside another one its channels come last."""
    b, rng = Builder(), np.random.default_rng(0)
    x, w = (b.input(ArrayType(s, np.dtype("f4"))) for s in ((2, 17, 3, 5), (4, 17, 1, 1)))
    attrs = {"stride": (1, 1), "padding": ((0, 0), (0, 0)), "dilation": (1, 1), "groups": 1}
    (y,) = b.emit("convolution", b.emit("relu", x)[0], w, **attrs)
    graph = b.build([b.emit("exp", y)[0]] if alone else [*b.emit("sum", y, axes=(2, 3), keepdims=False)])
    new = verify(layout(graph))
    names = [eq.op.name for eq in new.equations]
    assert ("dot_general" in names) == alone and ("convolution_channels_last" in names) == (not alone)
    values = [rng.standard_normal(v.shape).astype("f4") for v in graph.inputs]
    for got, want in zip(evaluate_graph(new, values), evaluate_graph(graph, values), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)


def test_graphs_without_convolutions_are_left_alone():
    b = Builder()
    x = b.input(ArrayType((2, 3, 4), np.dtype("f4")))
    (y,) = b.emit("transpose", x, axes=(0, 2, 1))
    (y,) = b.emit("relu", y)
    graph = b.build([y])
    assert layout(graph) is graph


def test_tokens_of_patches_are_not_moved():
    """A convolution's positions as a sequence: (N, C, H, W) -> (N, C, H*W) -> (N, H*W, C) is the memory as it lies."""
    w = nd.array(np.random.default_rng(0).standard_normal((8, 3, 4, 4)).astype("f4"))

    def tokens(x):
        y = nd.convolution(x, w, stride=4)
        return nd.transpose(nd.reshape(y, (y.shape[0], y.shape[1], -1)), (0, 2, 1))

    compiled, x = hybridize(tokens), nd.array(np.random.default_rng(1).standard_normal((2, 3, 16, 12)).astype("f4"))
    np.testing.assert_allclose(compiled(x).asnumpy(), tokens(x).asnumpy(), rtol=1e-4, atol=1e-5)
    kernels = [k.name for k in compiled.explain(x, measure=False).kernels]
    assert [k.partition("_")[0] for k in kernels] == ["pack", "convolution"]


@pytest.mark.parametrize(
    ("kernel", "stride", "groups", "c", "o"),
    [(1, 1, 1, 21, 83), (5, 1, 1, 16, 3), (1, 2, 1, 40, 24), (3, 1, 1, 5, 33), (3, 2, 19, 19, 19)],
)
def test_what_is_fused_behind_a_convolution(kernel, stride, groups, c, o):
    """A normalization with stored moments, a residual, a second reader: as eagerly in float64, the same bits for any number of
    threads, and between inaccessible pages."""
    rng = np.random.default_rng(kernel + c)
    out = -(-13 // stride)
    shapes = [(2, c, 13, 13), (o, c // groups, kernel, kernel), (o,), (o,), (o,), (o,), (2, o, out, out)]
    arrays = [rng.standard_normal(s).astype("f4") for s in shapes]
    arrays[5] = np.abs(arrays[5]) + 0.5

    def function(x, w, gamma, beta, mean, var, r):
        y = nd.convolution(x, w, stride=stride, padding=kernel // 2, groups=groups)
        y = nd.batch_norm(y, gamma, beta, mean, var, use_global_stats=True)[0]
        return nd.relu(y + r), y

    want = [a.asnumpy() for a in function(*[nd.array(a.astype("f8"), dtype="float64") for a in arrays])]
    tracer = Tracer("f")
    inputs = [tracer.argument(ArrayType(a.shape, a.dtype), nd.cpu(), f"x{i}") for i, a in enumerate(arrays)]
    with tracer.under():
        graph = optimize(tracer.finish(list(function(*inputs))).graph)
    for constants in (range(1, 6), ()):  # the factor in the weights, and behind the sums
        program = NativeBackend().compile(graph, Options(frozenset(constants)))
        got = program([a.copy() for a in arrays])
        for g, w in zip(got, want):
            np.testing.assert_allclose(g, w, rtol=1e-4, atol=2e-5)
        for side, threads in (("after", 1), ("before", 2), ("after", 3)):
            for g, again in zip(got, program.run_guarded([a.copy() for a in arrays], side, threads)):
                np.testing.assert_array_equal(g, again)
