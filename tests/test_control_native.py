"""Loops in compiled programs: between guard pages, on any number of threads, from the disk, exported, explained."""

from __future__ import annotations

import json

import numpy as np
import pytest

import ndarray as nd
from blocks import rnn
from hybrid import hybridize, load, stats
from hybrid.block import HybridBlock
from jit import program as programs
from jit import runtime
from jit.backend import backend
from jit.recipe import LoopRecipe, Recipe
from ndarray import autograd
from ndarray.settings import settings
from tests.test_spine_memory import check_guarded


def array(*shape, seed=0, dtype="float32"):
    return nd.array(np.random.RandomState(seed).randn(*shape), dtype=dtype)


@pytest.fixture
def recorded(monkeypatch):
    """The programs that run, with their arguments."""
    calls, call = [], programs.CompiledProgram.__call__

    def recording(self, arrays):
        calls.append((self, [np.array(a, order="C") for a in arrays]))
        return call(self, arrays)

    monkeypatch.setattr(programs.CompiledProgram, "__call__", recording)
    yield calls
    monkeypatch.undo()


class Words(HybridBlock):
    """A loop in a loop with a branch, a while loop, a captured weight and a state."""

    def __init__(self):
        super().__init__()
        self.cell = rnn.GRUCell(20, input_size=7)

    def forward(self, x, lengths):
        def word(letters, h):
            y, inner = nd.foreach(lambda z, h: self.cell(z, h), letters, [h], reverse=True)
            h = nd.cond(inner[0].sum() > 0, lambda: inner[0], lambda: h * 0.5)
            return y.sum(axis=0), h

        ys, h = nd.foreach(word, x, nd.zeros((x.shape[2], 20)))
        _, (_i, s) = nd.while_loop(lambda i, s: i < lengths.max(), lambda i, s: (s, [i + 1, s * 1.1 + h]), [lengths.min(), h], 9)
        return ys, s


def words():
    net = Words()
    net.initialize(init="xavier")
    net.hybridize()
    return net, array(4, 3, 33, 7), nd.array([2, 5, 4], dtype="int64")


def test_between_guard_pages_on_any_number_of_threads(recorded):
    net, x, lengths = words()
    net(x, lengths)
    x.attach_grad()
    with autograd.record():
        ys, s = net(x, lengths)
        loss = (ys * ys).sum() + s.sum()
    loss.backward()
    assert len(recorded) >= 3
    check_guarded(list(recorded))


@pytest.mark.parametrize("layer", [rnn.LSTM, rnn.GRU, rnn.RNN])
def test_recurrent_layers_between_guard_pages(layer, recorded):
    net = layer(33, num_layers=1, bidirectional=True, input_size=17)
    net.initialize(init="xavier")
    net.hybridize()
    for batch in (1, 19):
        x = array(5, batch, 17)
        x.attach_grad()
        with autograd.record():
            y = net(x)
        y.backward()
    check_guarded(list(recorded))


@pytest.mark.parametrize("layer", [rnn.LSTM, rnn.GRU])
def test_gates_are_made_where_their_product_is(layer, recorded):
    """With widths that fill vectors a step is one kernel; its results are those of the interpreter."""
    net = layer(48, num_layers=1, input_size=17)
    net.initialize(init="xavier")
    for batch in (1, 3, 19):
        x = array(5, batch, 17)
        x.attach_grad()
        grads, outs = [], []
        for backend_name in ("interpreter", "jit"):
            net.hybridize(backend=backend_name)
            with autograd.record():
                y = net(x)
                loss = (y * y).sum()
            loss.backward()
            outs.append(net(x).asnumpy())
            grads.append(x.grad.asnumpy().copy())
        np.testing.assert_allclose(outs[1], outs[0], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(grads[1], grads[0], rtol=1e-4, atol=1e-5)
        steps = [k for k in net.explain(x).programs[0].kernels if k.repeats == 5]
        assert len(steps) == 1 and {"dot_general", "tanh"} <= set(steps[0].operations)
    check_guarded(list(recorded))


def loops(program, threads):
    """(strips of the recipe's loops, of the native plan's on so many threads)"""
    with settings(HYBRID_NUM_THREADS=threads):
        packed = program.plan_launches({}, range(len(program.recipe.launches)))[0].tolist()
    (loop,) = [x for x in program.recipe.steps if isinstance(x, LoopRecipe)]
    at = next(i for i, word in enumerate(packed) if word == runtime.LOOP and packed[i + 2] == loop.count)
    return loop.strips, packed[at + 15]


@pytest.mark.parametrize(("mode", "reverse"), [("lstm", False), ("gru", True)])
def test_threads_take_rows_through_all_steps(mode, reverse, recorded):
    gates = {"lstm": 4, "gru": 3}[mode]
    arrays = [array(*s, seed=i) * 0.3 for i, s in enumerate([(5, 19, 8), (gates * 24, 8), (gates * 24, 24), (gates * 24,)])]
    layer = getattr(nd, f"{mode}_layer")
    for got, want in zip(hybridize(lambda *a: layer(*a, reverse=reverse))(*arrays), layer(*arrays, reverse=reverse), strict=True):
        np.testing.assert_allclose(got.asnumpy(), want.asnumpy(), rtol=1e-5, atol=1e-6)
    ((program, _),) = recorded
    strips, taken = loops(program, 2)
    assert strips > 2 and taken == strips and loops(program, 1)[1] == 0
    check_guarded(list(recorded))


def test_a_state_that_is_read_in_other_rows_is_complete(recorded):
    x, w = array(6, 16, 48, seed=1), array(48, 24, seed=2) * 0.3

    def step(a, h):
        p = nd.fully_connected(h, w) + a
        h = nd.sigmoid(p[:, :24]) * h[::-1] + nd.tanh(p[:, 24:])
        return h, h

    run = lambda x: nd.foreach(step, x, nd.zeros((16, 24)))
    got, want = hybridize(run)(x), run(x)
    np.testing.assert_allclose(got[0].asnumpy(), want[0].asnumpy(), rtol=1e-5, atol=1e-5)
    assert loops(recorded[0][0], 2) == (0, 0)
    check_guarded(list(recorded))


def test_kernels_and_arena_do_not_grow_with_the_steps():
    net = rnn.LSTM(32, input_size=16)
    net.initialize()
    net.hybridize()
    few, many = (net.explain(array(n, 4, 16)).programs[0] for n in (8, 64))
    assert len(few.kernels) == len(many.kernels) < 15
    assert many.memory.arena < 8 * few.memory.arena + 8192  # the gates of all steps, but nothing else of each of them


def test_recipes_with_loops_survive_json():
    net, x, lengths = words()
    found = []
    original = backend.compile
    try:
        backend.compile = lambda *given: found.append(original(*given)) or found[-1]
        net(x, lengths)
    finally:
        del backend.compile
    recipe = found[0].recipe
    assert Recipe.from_json(json.loads(json.dumps(recipe.to_json()))) == recipe
    assert any(not isinstance(s, int) for s in recipe.steps)


def test_programs_with_loops_come_from_disk(tmp_path, monkeypatch):
    monkeypatch.setenv("HYBRID_CACHE_DIR", str(tmp_path))
    net, x, lengths = words()
    expected = [a.asnumpy() for a in net(x, lengths)]
    before = backend.statistics.compilations, backend.statistics.disk_hits
    again = Words()
    again.initialize()
    for a, b in zip(again.collect_params().values(), net.collect_params().values()):
        a.set_data(b.data())
    again.hybridize()
    for a, b in zip(again(x, lengths), expected):
        np.testing.assert_array_equal(a.asnumpy(), b)
    assert backend.statistics.compilations == before[0]
    assert backend.statistics.disk_hits == before[1] + 1


@pytest.mark.parametrize("kind", ["jit", "interpreter"])
def test_export_and_load(kind, tmp_path):
    net, x, lengths = words()
    expected = [a.asnumpy() for a in net(x, lengths)]
    net.export(tmp_path / "model", x, lengths)
    loaded = load(tmp_path / "model", backend=kind)
    for a, b in zip(loaded(x, lengths), expected):
        np.testing.assert_allclose(a.asnumpy(), b, rtol=1e-5, atol=1e-5)


def test_explain_measures_the_launches_of_a_step_and_names_the_line():
    net, x, lengths = words()
    (report,) = net.explain(x, lengths).programs
    text = str(report)
    assert report.seconds is not None and all(k.seconds is not None for k in report.kernels)
    assert "test_control_native.py" in text
    assert any("dot_general" in k.operations for k in report.kernels), text


def test_bodies_are_printed():
    from hybrid.graph import Builder, Literal
    from ndarray.op import ArrayType

    kind = ArrayType((3,), np.dtype(np.float32))
    body = Builder("twice")
    s = body.input(kind, "s")
    graph = Builder("outer")
    start = graph.input(kind, "start")
    inner = body.build(body.emit("multiply", s, Literal(2.0, kind.dtype)))
    results = graph.emit("scan", start, body=inner, carried=1, stacked=0, length=4)
    text = str(graph.build(results))
    assert "scan start  " in text.replace(" body", "  body") and "body: graph twice(s: float32[3])" in text
    assert "multiply s 2.0:float32" in text


def test_what_only_the_host_can_do_in_a_body():
    def step(x, s):
        s = nd.sort(x + s)
        return s, s

    x, s = array(4, 5), array(5, seed=1)
    for a, b in zip(hybridize(lambda x, s: nd.foreach(step, x, s))(x, s), nd.foreach(step, x, s)):
        np.testing.assert_allclose(a.asnumpy(), b.asnumpy(), rtol=1e-6)


def test_one_trace_and_one_native_call():
    from jit import runtime

    w = array(8, 8)
    f = hybridize(lambda x, s: nd.foreach(lambda x, s: (s, nd.tanh(nd.dot(s, w) + x)), x, s))
    x, s = array(5, 2, 8), array(2, 8)
    f(x, s)
    stats.reset()
    calls = runtime.native_calls()
    f(x, s)
    assert (stats.traces, runtime.native_calls() - calls) == (0, 1)
