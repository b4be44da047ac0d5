"""Lowered graphs, run by the loop-IR interpreter, against the ops' eager functions; counts of kernels."""

import numpy as np
import pytest

import ndarray  # noqa: F401  (registers the ops)
from hybrid.graph import Builder, Literal, Value
from jit import maps
from jit.interpret import run_launches
from jit.loopir import Apply, For, walk_exprs, walk_statements
from jit.lower import lower
from jit.target import Target
from jit.verify import verify
from ndarray.dims import Dim, evaluate, symbol
from ndarray.op import OPAQUE, OPS, Reduction, Template
from tests.test_fuse import F32, Maker

WIDE = Target("test", "test", "", 64, 32)
NARROW = Target("test", "test", "", 16, 16, masked=False)
rng = np.random.default_rng(7)


def normal(*shape, dtype=np.float32):
    return rng.standard_normal(shape).astype(dtype)


def evaluated(attr, sizes):
    if isinstance(attr, tuple):
        return tuple(evaluated(a, sizes) for a in attr)
    return evaluate(attr, sizes) if isinstance(attr, Dim) else attr


def interpret(graph, arrays, sizes):
    """Every equation by its op's eager function."""
    known = dict(zip(graph.inputs, arrays, strict=True))
    get = lambda a: known[a] if isinstance(a, Value) else np.asarray(a.value, a.dtype)
    with np.errstate(all="ignore"):
        for eq in graph.equations:
            result = eq.op.eager(np, *map(get, eq.inputs), **{k: evaluated(v, sizes) for k, v in eq.attrs.items()})
            known.update(zip(eq.outputs, result if isinstance(result, tuple) else (result,), strict=True))
    return [get(a) for a in graph.outputs], {k: get(a) for k, a in graph.state.items()}


def check(graph, arrays, kernels=None, target=WIDE, tolerance=1e-5, **sizes):
    """Lower, verify, run and compare; returns what was lowered."""
    lowered = lower(graph, target)
    for launch in lowered.launches:
        verify(launch.kernel)
        assert len(launch.buffers) <= 64
    if kernels is not None:
        assert len(lowered.launches) == kernels, ([str(g) for g in lowered.groups], lowered.reasons)
    memory = {s: np.array(a).reshape(-1) for s, a in zip(lowered.inputs, arrays, strict=True)}
    run_launches(lowered.launches, memory, sizes)
    outputs, state = interpret(graph, arrays, sizes)
    for storage, expected in [*zip(lowered.outputs, outputs, strict=True),
                              *((lowered.inputs[k], v) for k, v in state.items())]:
        assert memory[storage].dtype == expected.dtype
        np.testing.assert_allclose(memory[storage].reshape(expected.shape), expected, rtol=tolerance, atol=tolerance)
    for number, (storage, array) in enumerate(zip(lowered.inputs, arrays)):
        if number not in lowered.written:
            np.testing.assert_array_equal(memory[storage], np.asarray(array).reshape(-1))
    assert set(graph.state) >= lowered.written
    return lowered


@pytest.mark.parametrize("target", [WIDE, NARROW], ids=["masked", "unmasked"])
@pytest.mark.parametrize("name", [n for n in OPS if OPS[n].lower is not OPAQUE])
def test_every_op_on_its_samples(name, target):
    op = OPS[name]
    if isinstance(op.lower, Template) and not op.lower.name.startswith("scatter"):
        pytest.skip("contractions have tests of their own")
    for number, sample in enumerate(s for s in op.samples() if s.error is None):
        if number % 3 != (target is WIDE) and number > 6:
            continue
        m = Builder()
        arrays = [np.asarray(a) for a in sample.arrays]
        inputs = [m.input(ArrayTypeOf(a)) for a in arrays]
        exact = any(a.dtype == np.float32 for a in arrays)
        check(m.build(m.emit(op, *inputs, **sample.attrs)), arrays, target=target, tolerance=2e-5 if exact else 1e-9)


def ArrayTypeOf(a):
    from ndarray.op import ArrayType

    return ArrayType(a.shape, a.dtype)


def softmax(m, x, axes):
    e = m.exp(m.subtract(x, m.max(x, axes=axes, keepdims=True)))
    return m.divide(e, m.sum(e, axes=axes, keepdims=True))


@pytest.mark.parametrize("size", [1, 3, 17, 0])
def test_symbolic_batch(size):
    n = symbol("n", 8)
    m = Maker()
    x, w = m.array(n, 10), m.array(10)
    graph = m.build([m.relu(m.add(m.multiply(x, 2.0), w))])
    check(graph, [normal(size, 10), normal(10)], kernels=1, n=size)


def test_gelu_is_one_kernel_over_one_loop():
    m = Maker()
    x = m.array(13, 11)
    y = m.multiply(m.multiply(x, 0.5), m.add(m.erf(m.multiply(x, 0.70710678)), 1.0))
    lowered = check(m.build([y]), [normal(13, 11)], kernels=1)
    assert sum(isinstance(s, For) for s in walk_statements(lowered.launches[0].kernel.body)) == 1


@pytest.mark.parametrize(("shape", "axes"), [((5, 37), (1,)), ((37, 21), (0,)), ((3, 7, 21), (1,)), ((40, 200), (0,)),
                                             ((2, 1), (1,)), ((3, 4, 5), (0, 2)), ((20, 300), (1,))])
def test_softmax_is_one_kernel(shape, axes):
    for target in (WIDE, NARROW):
        m = Maker()
        check(m.build([softmax(m, m.array(*shape), axes)]), [normal(*shape)], kernels=1, target=target)


@pytest.mark.parametrize("sizes", [(1, 1), (3, 16), (2, 200), (7, 65)])
def test_softmax_of_any_size(sizes):
    n, k = symbol("n", 8), symbol("k", 40)
    m = Maker()
    check(m.build([softmax(m, m.array(n, k), (1,))]), [normal(*sizes)], kernels=1, n=sizes[0], k=sizes[1])


def test_cross_entropy_is_one_kernel():
    m = Maker()
    x, label = m.array(20, 10), m.array(20, 1, dtype=np.int64)
    d = m.subtract(x, m.max(x, axes=(1,), keepdims=True))
    logs = m.subtract(d, m.log(m.sum(m.exp(d), axes=(1,), keepdims=True)))
    picked = m.take_along(logs, label, axis=1)
    loss = m.reshape(m.negative(picked), shape=(20,))
    check(m.build([loss]), [normal(20, 10), rng.integers(0, 10, (20, 1))], kernels=1)


def test_layer_norm_is_one_kernel():
    m = Maker()
    x, g = m.array(6, 50), m.array(50)
    d = m.subtract(x, m.divide(m.sum(x, axes=(1,), keepdims=True), 50.0))
    v = m.divide(m.sum(m.multiply(d, d), axes=(1,), keepdims=True), 50.0)
    check(m.build([m.multiply(m.divide(d, m.sqrt(m.add(v, 1e-5))), g), v]), [normal(6, 50), normal(50)], kernels=1)


def test_batch_norm_and_its_running_statistics_are_one_kernel():
    m = Maker()
    x, running = m.array(4, 5, 6, 7), m.array(5)
    mean = m.divide(m.sum(x, axes=(0, 2, 3)), 168.0)
    d = m.subtract(x, m.reshape(mean, shape=(1, 5, 1, 1)))
    v = m.divide(m.sum(m.multiply(d, d), axes=(0, 2, 3)), 168.0)
    y = m.divide(d, m.reshape(m.sqrt(m.add(v, 1e-5)), shape=(1, 5, 1, 1)))
    new = m.add(m.multiply(running, 0.9), m.multiply(mean, 0.1))
    check(m.build([y], {1: new}), [normal(4, 5, 6, 7), normal(5)], kernels=1)


@pytest.mark.parametrize("shape", [(300, 401), (7,), (1, 1), (70001,), (0, 3)])
def test_sum_of_everything(shape):
    m = Maker()
    x = m.array(*shape)
    graph = m.build([m.sum(m.multiply(x, x), axes=tuple(range(len(shape))))])
    check(graph, [normal(*shape)], kernels=2 if np.prod(shape) > 32768 else 1)


def test_long_reduction_of_few_columns_has_two_stages():
    m = Maker()
    x = m.array(30011, 10)
    whole = rng.integers(-9, 10, (30011, 10)).astype(np.float32)  # sums are exact in any order
    check(m.build([m.sum(x, axes=(0,)), m.argmax(x, axis=0)]), [whole], kernels=2)


@pytest.mark.parametrize(("shape", "axes"), [((20, 70000), (1,)), ((9000, 40), (0,))])
def test_long_sums_are_accurate(shape, axes):
    m = Maker()
    x = rng.random(shape, dtype=np.float32)
    lowered = lower(m.build([m.sum(m.array(*shape), axes=axes)]), WIDE)
    memory = {lowered.inputs[0]: x.reshape(-1)}
    run_launches(lowered.launches, memory, {})
    expected = x.sum(axes, dtype=np.float64)
    assert np.abs(memory[lowered.outputs[0]] / expected - 1).max() < 1e-6


def test_tasks_do_not_depend_on_threads():
    m = Maker()
    lowered = lower(m.build([m.exp(m.array(50, 3000))]), WIDE)
    assert 16 <= lowered.launches[0].tasks <= 64


def test_reshapes_are_fused_for_free():
    m = Maker()
    x, w = m.array(4, 6, 5), m.array(30)
    y = m.add(m.exp(m.reshape(m.exp(x), shape=(4, 30))), w)
    lowered = check(m.build([y]), [normal(4, 6, 5) * 0.1, normal(30)], kernels=1)
    inner = [e for s in walk_statements(lowered.launches[0].kernel.body) if isinstance(s, For) for t in s.body
             if hasattr(t, "value") for e in walk_exprs(t.value)]
    assert not any(isinstance(e, Apply) and e.op in ("mod", "floordiv") and e.type.lanes > 1 for e in inner)


def test_reshaped_output_is_an_alias():
    m = Maker()
    y = m.exp(m.array(10, 4))
    z = m.reshape(y, shape=(40,))
    lowered = check(m.build([z]), [normal(10, 4)], kernels=1)
    assert lowered.storages[z] is lowered.storages[y] is lowered.outputs[0]


def test_several_outputs_of_one_value():
    m = Maker()
    x = m.array(10, 4)
    y = m.exp(x)
    check(m.build([y, y, m.reshape(y, shape=(40,)), x, Literal(2.5, F32)]), [normal(10, 4)])


def test_masked_reads_at_edges():
    m = Maker()
    x, y = m.array(5, 7), m.array(5, 20)
    padded = m.pad(x, low=(1, 2), high=(2, 19), interior=(0, 0), value=3.0)
    cropped = m.pad(x, low=(-1, 2), high=(0, -3), interior=(1, 2), value=0.0)
    joined = m.concatenate(x, y, m.exp(x), axis=1)
    check(m.build([padded, cropped, joined]), [normal(5, 7), normal(5, 20)])


def test_concatenation_of_symbolic_pieces():
    n = symbol("n", 4)
    m = Maker()
    x, y = m.array(n, 7), m.array(3, 7)
    graph = m.build([m.concatenate(x, y, axis=0)])
    for k in (0, 1, 5):
        check(graph, [normal(k, 7), normal(3, 7)], n=k)


def test_momentum_is_written_in_place():
    m = Maker()
    w, momentum, g, rate = m.array(10, 7), m.array(10, 7), m.array(10, 7), m.array()
    new = m.add(m.multiply(momentum, 0.9), g)
    lowered = check(m.build([], {0: m.subtract(w, m.multiply(new, rate)), 1: new}),
                    [normal(10, 7), normal(10, 7), normal(10, 7), normal()], kernels=1)
    assert lowered.temporaries == ()


def test_old_state_is_read_before_it_is_overwritten():
    m = Maker()
    w, x = m.array(8, 8), m.array(8, 8)
    y = m.dot_general(x, w, contract=((1,), (0,)), batch=((), ()))
    new = m.subtract(w, m.exp(m.transpose(w, axes=(1, 0))))  # reads other positions
    arrays = [normal(8, 8), normal(8, 8)]
    check(m.build([y, w], {0: new}), arrays)


def test_states_are_exchanged():
    m = Maker()
    x, y = m.array(10), m.array(10)
    check(m.build([x], {0: y, 1: x}), [normal(10), normal(10)])


def test_gradient_through_relu_is_one_kernel():
    m = Maker()
    x, b, g = m.array(64, 40), m.array(40), m.array(64, 40)
    y = m.relu(m.add(x, b))
    d = m.where(m.greater(y, 0.0), g, 0.0)
    check(m.build([y, d, m.sum(d, axes=(0,))]), [normal(64, 40), normal(40), normal(64, 40)], kernels=1)


def test_dropout_uses_every_random_word():
    m = Maker()
    state, x = m.array(2, dtype=np.uint64), m.array(5, 50)
    bits = m.random_bits(state, shape=(5, 50))
    y = m.where(m.less(m.cast(bits, dtype=F32), 2147483648.0), x, 0.0)
    lowered = check(m.build([bits, y]), [np.array([0x123456789ABC, 77], np.uint64), normal(5, 50)], kernels=1)
    rounds = [e for s in walk_statements(lowered.launches[0].kernel.body) if isinstance(s, For) for t in s.body
              if hasattr(t, "value") for e in walk_exprs(t.value) if isinstance(e, Apply) and e.op == "mulhi"]
    assert len(rounds) <= 2 * 10  # one block of ten rounds for each lane and four words


@pytest.mark.parametrize("least", [0, maps.WORTH_TURNING])
def test_transposition(monkeypatch, least):
    """With squares turned in registers, and of so few elements that it isn't worth it."""
    monkeypatch.setattr(maps, "WORTH_TURNING", least)
    for shape in ((9, 20), (33, 65)):
        m = Maker()
        check(m.build([m.exp(m.transpose(m.array(*shape), axes=(1, 0)))]), [normal(*shape)], kernels=1)
    n, m = symbol("n", 40), Maker()
    x, y = m.array(2, n, 19), m.array(2, 19, n)
    graph = m.build([m.add(m.transpose(x, axes=(0, 2, 1)), y)])  # squares are turned, something else is read as it lies
    for k in (3, 16, 50):
        check(graph, [normal(2, k, 19), normal(2, 19, k)], n=k)


def test_pooling_with_epilogue_is_one_kernel():
    m = Maker()
    x = m.array(2, 3, 9, 11)
    y = m.sum_pool(x, kernel=(3, 3), stride=(2, 2), padding=((1, 1), (1, 0)))
    check(m.build([m.relu(m.multiply(y, 0.25))]), [normal(2, 3, 9, 11)], kernels=1)


def test_product_with_bias_and_activation():
    n = symbol("n", 8)
    m = Maker()
    x, w, b = m.array(n, 19), m.array(21, 19), m.array(21)
    y = m.relu(m.add(m.dot_general(x, w, contract=((1,), (1,)), batch=((), ())), b))
    graph = m.build([y])
    for k in (1, 5):
        check(graph, [normal(k, 19), normal(21, 19), normal(21)], n=k)


def test_convolution_with_bias():
    m = Maker()
    x, w, b = m.array(2, 3, 8, 9), m.array(4, 3, 3, 3), m.array(4)
    y = m.convolution(x, w, stride=(1, 1), padding=((1, 1), (1, 1)), dilation=(1, 1), groups=1)
    graph = m.build([m.relu(m.add(y, m.reshape(b, shape=(4, 1, 1))))])
    check(graph, [normal(2, 3, 8, 9), normal(4, 3, 3, 3), normal(4)], tolerance=1e-4)


def test_opaque_op_is_refused_with_its_line():
    from ndarray.op import NONDIFF, OPAQUE, Op

    op = Op("mystery", ("x",), lambda x: (x,), lambda xp, x: x, NONDIFF, OPAQUE, lambda: ())
    m = Builder()
    graph = m.build(m.emit(op, m.input(ArrayTypeOf(normal(3)))))
    with pytest.raises(NotImplementedError, match="mystery"):
        lower(graph, WIDE)


def test_reductions_are_all_covered():
    assert {n for n in OPS if isinstance(OPS[n].lower, Reduction)} >= {"sum", "max", "argmax", "max_pool", "sum_pool"}


def random_graph(seed, symbolic):
    """A random graph of elementwise ops, broadcasts, reductions, reshapes, gathers, pads and products."""
    r = np.random.default_rng(seed)
    m = Maker()
    batch = symbol("n", 6) if symbolic else 6
    k = int(r.choice([1, 3, 5, 16, 33]))
    arrays, values = [], []

    def fresh(*shape):
        arrays.append(r.standard_normal([6 if s is batch else s for s in shape]).astype(np.float32))
        values.append(m.array(*shape))

    fresh(batch, k)
    fresh(k)
    fresh(batch, 1)
    fresh(4, k)
    for _ in range(int(r.integers(4, 16))):
        full = [v for v in values if len(v.shape) == 2 and v.shape[0] is batch and v.shape[1] is not batch and v.shape[1] == k]
        x = full[int(r.integers(len(full)))]
        y = values[int(r.integers(len(values)))]
        matches = len(y.shape) < 2 or y.shape[0] is batch
        matches = matches and (not y.shape or (type(y.shape[-1]) is int and y.shape[-1] in (1, k)))
        choice = int(r.integers(12))
        if choice <= 3 and matches:
            values.append(m.op(("add", "multiply", "maximum", "subtract")[choice], x, y))
        elif choice == 4:
            values.append(m.tanh(x))
        elif choice == 5:
            values.append(m.op(("sum", "max")[int(r.integers(2))], x, axes=(1,), keepdims=True))
        elif choice == 6 and not symbolic:
            values.append(m.sum(m.tanh(x), axes=(0,)))
        elif choice == 7:
            values.append(softmax(m, x, (1,)))
        elif choice == 8:
            low, high = (int(v) for v in r.integers(0, 3, 2))
            padded = m.pad(x, low=(0, low), high=(0, high), interior=(0, 0), value=0.5)
            values.append(m.slice(padded, start=(0, high), stop=(batch, high + k), step=(1, 1)))
        elif choice == 9:
            values.append(m.flip(x, axes=(1,)))
        elif choice == 10 and k > 1:
            values.append(m.reshape(m.relu(m.reshape(x, shape=(batch * k,))), shape=(batch, k)))
        elif choice == 11:
            values.append(m.concatenate(m.slice(x, start=(0, 0), stop=(batch, k // 2), step=(1, 1)),
                                        m.slice(x, start=(0, k // 2), stop=(batch, k), step=(1, 1)), axis=1))
    made = [v for eq in m.equations for v in eq.outputs]
    outputs = [made[int(i)] for i in r.choice(len(made), min(3, len(made)), replace=False)] + [values[-1]]
    candidates = [v for v in values[4:] if v.shape == values[0].shape and len(v.shape) == 2 and v.dtype == F32]
    return m.build(outputs, {0: candidates[-1]} if candidates and not symbolic and r.random() < 0.5 else {}), arrays


@pytest.mark.parametrize("seed", range(40))
def test_random_graphs(seed):
    graph, arrays = random_graph(seed, seed % 2 == 0)
    check(graph, arrays, target=(WIDE, NARROW)[seed % 3 == 0], tolerance=3e-5, n=6)
