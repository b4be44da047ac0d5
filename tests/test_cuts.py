"""Graphs with equations that have no native code: native segments, and the host between them."""

import threading
import traceback

import numpy as np
import pytest

import ndarray as nd
from hybrid import hybridize
from hybrid.graph import Builder, Literal
from hybrid.interpret import evaluate_graph
from jit import runtime
from jit.backend import NativeBackend, backend
from jit.cuts import Segment, reason_to_cut, split
from jit.program import CompiledProgram
from ndarray import autograd
from ndarray.apply import apply
from ndarray.dims import symbol
from ndarray.op import NONDIFF, OPAQUE, OPS, ArrayType, Op, Vjp
from ndarray.op import _table as table
from ndarray.testing import assert_close

F32, I64 = np.dtype(np.float32), np.dtype(np.int64)


def host_op(name, eager, vjp=NONDIFF):
    """An op without a lowering, not in the table; its result is of its argument's type."""
    return Op(name, ("x",), lambda x: (x,), eager, vjp, OPAQUE, lambda: ())


def _scale(xp, x):
    if not np.isfinite(x).all():
        raise ZeroDivisionError("not finite")
    return x * 2


SCALE = host_op("test_scale", _scale, vjp={"x": Vjp(lambda g: g * 2)})
SAME = host_op("test_same", lambda xp, x: x)
VIEW = host_op("test_view", lambda xp, x: x[...])


def random(*shape, seed=0, dtype=np.float32):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def check(graph, *arrays):
    """The compiled program against the interpreter, also between guard pages; returns the program."""
    program = backend.compile(graph)
    want_arrays = [a.copy() for a in arrays]
    want = evaluate_graph(graph, want_arrays)
    for run in (program, lambda a: program.run_guarded(a, "before", 2), lambda a: program.run_guarded(a, "after")):
        given = [a.copy() for a in arrays]
        got = run(given)
        for g, w in zip([*got, *given], [*want, *want_arrays], strict=True):
            assert (g.shape, g.dtype) == (w.shape, w.dtype)
            assert_close(g, w) if w.dtype.kind in "fc" else np.testing.assert_array_equal(g, w)
        every = [*got, *given]
        assert not any(np.shares_memory(a, b) for i, a in enumerate(got) for b in every[i + 1:]), "results share memory"
    return program


# -- splitting

def chain(*ops, shape=(3, 5), dtype=F32):
    """A graph of unary ops, one after the other."""
    m = Builder("chain")
    v = m.input(ArrayType(shape, dtype))
    for op in ops:
        attrs = {"axis": 0, "descending": False} if op == "argsort" else {"axes": (1, 0)} if op == "transpose" else {}
        (v,) = m.emit(op, v, **attrs)
    return m.build([v])


def names(steps):
    return [[eq.op.name for eq in s.graph.equations] if isinstance(s, Segment) else s.op.name for s in steps]


def test_a_native_graph_is_not_cut():
    graph = chain("exp", "tanh", "exp")
    assert split(graph) is None
    program = backend.compile(graph)
    assert type(program) is CompiledProgram
    before = runtime.native_calls()
    program([random(3, 5)])
    assert runtime.native_calls() == before + 1


def test_segments_are_maximal():
    assert names(split(chain("exp", "tanh", SCALE, SCALE, "tanh", "exp"))) == [["exp", "tanh"], "test_scale", "test_scale",
                                                                           ["tanh", "exp"]]
    m = Builder()
    x = m.input(ArrayType((4,), F32))
    branches = []
    for _ in range(5):  # in the order of the graph there would be 5 cuts
        (a,) = m.emit("exp", x)
        (b,) = m.emit(SCALE, a)
        branches += m.emit("tanh", b)
    (whole,) = m.emit("concatenate", *branches, axis=0)
    found = split(m.build([whole]))
    assert [len(s.graph.equations) for s in found if isinstance(s, Segment)] == [5, 6]
    assert all(not isinstance(s, Segment) for s in found[1:6])


def test_cheap_equations_are_computed_where_they_are_read():
    m = Builder()
    x = m.input(ArrayType((4, 6), F32))
    (e,) = m.emit("exp", x)
    (t,) = m.emit("transpose", e, axes=(1, 0))
    (s,) = m.emit(SCALE, x)
    (s,) = m.emit("transpose", s, axes=(1, 0))
    (y,) = m.emit("add", s, t)
    graph = m.build([y])
    first, _, last = split(graph)
    assert first.graph.outputs == (e,)
    assert {eq.op.name for eq in last.graph.equations} == {"transpose", "add"}
    check(graph, random(4, 6))
    m = Builder()
    x = m.input(ArrayType((4, 6), F32))
    (t,) = m.emit("transpose", x, axes=(1, 0))
    (s,) = m.emit(SCALE, t)  # reads what is stored nowhere
    (u,) = m.emit("transpose", s, axes=(1, 0))
    check(m.build([u, t, s]), random(4, 6))


def test_reasons():
    graph = chain("exp", "argsort")
    assert [reason_to_cut(eq) for eq in graph.equations] == [None, "its lowering is OPAQUE"]
    graph = chain("negative", dtype=np.dtype(np.complex64))
    assert "complex64" in reason_to_cut(graph.equations[0])


# -- running

def test_complex_numbers_run_on_the_host():
    m = Builder()
    x = m.input(ArrayType((3, 4), np.dtype(np.complex64)))
    (y,) = m.emit("multiply", x, x)
    (t,) = m.emit("transpose", y, axes=(1, 0))
    graph = m.build([t, x, y], {0: y})
    check(graph, (random(3, 4) + 1j * random(3, 4, seed=1)).astype(np.complex64))


@pytest.mark.parametrize("op", [SAME, VIEW], ids=str)
def test_results_of_the_host_that_share_memory(op):
    m = Builder()
    x, y = (m.input(ArrayType((3, 4), F32)) for _ in range(2))
    (a,) = m.emit(op, x)
    (b,) = m.emit("add", a, y)
    (c,) = m.emit(op, b)
    (d,) = m.emit("exp", b)
    check(m.build([a, a, b, c, d, x, x, Literal(3.0, F32)]), random(3, 4), random(3, 4, seed=1))
    check(m.build([a, x, c], {0: y, 1: a}), random(3, 4), random(3, 4, seed=1))
    check(m.build([a, d], {0: d, 1: x}), random(3, 4), random(3, 4, seed=1))
    check(m.build([], {0: y, 1: a}), random(3, 4), random(3, 4, seed=1))


def test_state_is_written_in_place_by_the_last_segment_only():
    m = Builder()
    x, w = (m.input(ArrayType((4,), F32)) for _ in range(2))
    (a,) = m.emit(SCALE, x)
    (b,) = m.emit("multiply", a, w)
    program = check(m.build([b], {1: b}), random(4), random(4, seed=1))
    assert program._copied == {}
    (c,) = m.emit(SCALE, b)
    program = check(m.build([c], {1: b}), random(4), random(4, seed=1))
    assert list(program._copied) == [1]


def test_an_error_keeps_the_state():
    m = Builder()
    x, w = (m.input(ArrayType((4,), F32)) for _ in range(2))
    (b,) = m.emit("multiply", x, w)
    (c,) = m.emit(SCALE, b)
    program = backend.compile(m.build([c], {1: b}))
    x, w = np.full(4, np.inf, np.float32), np.full(4, 2, np.float32)
    with pytest.raises(ZeroDivisionError):
        program([x, w])
    assert (w == 2).all()


def test_written_inputs_may_not_overlap():
    m = Builder()
    x, _ = (m.input(ArrayType((4,), F32)) for _ in range(2))
    (a,) = m.emit(SCALE, x)
    program = backend.compile(m.build([a], {0: a, 1: x}))
    both = random(8)
    with pytest.raises(ValueError, match="overlap"):
        program([both[:4], both[2:6]])
    program([both[:4], both[4:]])


def test_symbolic_sizes():
    n = symbol("n", 4)
    m = Builder()
    x = m.input(ArrayType((n, 3), F32))
    (a,) = m.emit("exp", x)
    (a,) = m.emit("reshape", a, shape=(n * 3,))
    (order,) = m.emit("argsort", a, axis=0, descending=True)
    (p,) = m.emit("cast", order, dtype=F32)  # its segment shows n in no shape of its own
    (p,) = m.emit("reshape", p, shape=(n, 3))
    (q,) = m.emit(SCALE, p)
    graph = m.build([q, order])
    program = backend.compile(graph)
    for size in (4, 1, 0, 17):
        array = random(size, 3)
        for got, want in zip(program([array]), evaluate_graph(graph, [array]), strict=True):
            np.testing.assert_array_equal(got, want)


def test_a_result_of_the_wrong_type_is_refused():
    wrong = host_op("test_wrong", lambda xp, x: x[:-1])
    program = backend.compile(chain("exp", wrong, "exp"))
    with pytest.raises(RuntimeError, match=r"test_wrong.*float32\[2, 5\].*float32\[3, 5\]"):
        program([random(3, 5)])


def test_noncontiguous_arguments():
    graph = chain("exp", "argsort")
    program = backend.compile(graph)
    array = random(5, 3).T
    np.testing.assert_array_equal(program([array])[0], np.exp(array).argsort(0, kind="stable"))


def test_many_threads():
    graph = chain("exp", SCALE, "tanh", SCALE, "exp", shape=(50, 40))
    program = backend.compile(graph)
    failures = []

    def work(seed):
        array = random(50, 40, seed=seed)
        want = evaluate_graph(graph, [array])[0]
        for _ in range(30):
            if not np.allclose(program([array])[0], want, rtol=1e-4):
                failures.append(seed)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(60)
    assert not failures


# -- every op without native code

def opaque_samples():
    for name, op in sorted(OPS.items()):
        for i, sample in enumerate(op.samples()):
            complex_ones = any(np.asarray(a).dtype.kind == "c" for a in sample.arrays)
            if sample.error is None and (op.lower is OPAQUE or complex_ones):
                yield pytest.param(op, sample, id=f"{name}-{i}")


@pytest.mark.parametrize(("op", "sample"), list(opaque_samples()))
def test_between_native_code(op, sample):
    """Each sample with native code before and behind it."""
    arrays = [np.array(a, order="C") for a in sample.arrays]
    m = Builder(op.name)
    inputs = [m.input(ArrayType(a.shape, a.dtype)) for a in arrays]
    before = [m.emit("where", Literal(True, np.dtype(bool)), v, v)[0] if v.dtype.kind in "biuf" else v for v in inputs]
    found = m.emit(op, *before, **sample.attrs)
    behind = [m.emit("add", v, v)[0] if v.dtype.kind in "iufc" else v for v in found]
    program = backend.compile(m.build([*found, *behind]))
    with np.errstate(all="ignore"):
        want = op.eager(np, *arrays, **sample.attrs)
    want = [np.asarray(w) for w in (want if isinstance(want, tuple) else (want,))]
    with np.errstate(all="ignore"):
        doubled = [w + w if w.dtype.kind in "iufc" else w for w in want]
    for got, expected in zip(program(arrays), [*want, *doubled], strict=True):
        assert (got.shape, got.dtype) == (expected.shape, expected.dtype)
        np.testing.assert_array_equal(got, expected)


# -- hybridized

def test_hybridized_with_gradients():
    def function(x, w):
        y = nd.tanh(nd.dot(x, w))
        return (nd.sort(y, axis=1) * nd.arange(4)).sum(axis=1) + nd.exp(y).max(axis=1)

    x, w = nd.array(random(6, 5)), nd.array(random(5, 4, seed=1))
    want, grads = [], []
    for f in (function, hybridize(function)):
        for _ in range(2):
            w.attach_grad()
            x.attach_grad()
            with autograd.record():
                y = f(x, w)
            y.backward()
            want.append(y.asnumpy())
            grads.append((x.grad.asnumpy(), w.grad.asnumpy()))
    for y, (gx, gw) in zip(want, grads):
        np.testing.assert_allclose(y, want[0], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(gx, grads[0][0], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(gw, grads[0][1], rtol=1e-5, atol=1e-6)


def test_hybridized_for_many_sizes():
    @hybridize
    def function(x):
        return nd.median(nd.exp(x) + 1, axis=0)

    for rows in (3, 4, 5, 9, 2):
        x = random(rows, 6)
        np.testing.assert_allclose(function(nd.array(x)).asnumpy(), np.median(np.exp(x) + 1, axis=0), rtol=1e-6)
    assert function.traces <= 3


def test_loops_with_a_body_for_the_host():
    def function(xs, state):
        return nd.foreach(lambda x, s: (nd.sort(x + s), nd.tanh(s + x)), xs * 2, state)

    xs, state = nd.array(random(4, 6)), nd.array(random(6, seed=1))
    explained = hybridize(function).explain(xs, state, measure=False)
    assert "in its body, argsort runs on the host" in str(explained)
    for want, got in zip(function(xs, state), hybridize(function)(xs, state), strict=True):
        np.testing.assert_allclose(got.asnumpy(), want.asnumpy(), rtol=1e-5)


def test_explain_lists_the_cuts():
    @hybridize
    def function(x):
        y = nd.exp(x)
        order = nd.argsort(y, axis=0)  # the line
        return order + 1

    x = nd.array(random(6, 4))
    for measure in (False, True):
        explained = function.explain(x, measure=measure)
        (report,) = explained.programs
        (cut,) = report.cuts
        assert cut.name == "argsort on the host"
        assert "OPAQUE" in cut.note
        with open(__file__) as file:
            line = next(n for n, text in enumerate(file, 1) if "# the line" in text)
        assert f"test_cuts.py:{line}" in cut.lines
        assert [k.operations for k in report.kernels][1] == ("argsort",)
        assert f"argsort on the host{'' if not measure else ','}" in str(explained)
        assert "cut by 1 steps" in str(explained)
        assert (cut.seconds is not None) == measure
    assert report.memory.arena >= 0


def test_errors_of_the_host_name_the_line(monkeypatch):
    monkeypatch.setitem(table, SCALE.name, SCALE)

    @hybridize
    def checked(x):
        return apply(SCALE, nd.exp(x)) + 1

    np.testing.assert_allclose(checked(nd.zeros((3,))).asnumpy(), 3)
    with pytest.raises(ZeroDivisionError) as caught:
        checked(nd.full((3,), np.inf))
    text = "".join(traceback.format_exception(caught.value))
    assert "test_scale" in text
    assert "test_cuts.py" in "".join(caught.value.__notes__)


def test_segments_come_from_the_disk_cache(tmp_path):
    from ndarray.settings import settings

    graph = chain("exp", "argsort", "negative", dtype=F32)
    first, second = NativeBackend(), NativeBackend()
    array = random(3, 5)
    with settings(HYBRID_CACHE_DIR=str(tmp_path)):
        results = [b.compile(graph)([array])[0] for b in (first, second)]
    np.testing.assert_array_equal(*results)
    assert (first.statistics.compilations, first.statistics.disk_hits) == (2, 0)
    assert (second.statistics.compilations, second.statistics.disk_hits) == (0, 2)


def test_packed_weights_are_kept_behind_a_cut():
    from blocks import HybridBlock

    class Net(HybridBlock):
        def __init__(self):
            super().__init__()
            self.w = nd.array(random(40, 70))

        def forward(self, x):
            return nd.matmul(nd.sort(x, axis=1), nd.transpose(self.w))

    net, x = Net(), random(150, 70, seed=1)
    net.hybridize()
    for factor in (1, 1, 1, 2, 2):
        if factor == 2:
            net.w[...] = nd.array(random(40, 70) * 2)
        np.testing.assert_allclose(net(nd.array(x)).asnumpy(), np.sort(x, 1) @ random(40, 70).T * factor, rtol=1e-4, atol=1e-4)
