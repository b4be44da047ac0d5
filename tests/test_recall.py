"""What a fresh process needn't do where the disk cache knows the graph: passes, above all; and the order of steps."""

import numpy as np
import pytest

import ndarray as nd
from blocks import Trainer, loss, nn
from hybrid import hybridize
from hybrid.backend import Options
from hybrid.graph import Builder, Literal
from hybrid.passes import optimize, skip_passes
from jit.backend import NativeBackend
from jit.launch import Launch, written_by
from jit.lower import lower
from jit.machine import host
from jit.program import CompiledProgram
from jit.schedule import peak, schedule
from ndarray import autograd
from ndarray.op import ArrayType
from ndarray.settings import settings

F32 = np.dtype(np.float32)


def small(factor=2.0):
    """((x * 1 + w) * factor), with w written back."""
    m = Builder()
    x, w = (m.input(ArrayType((3, 4), F32)) for _ in range(2))
    (one,) = m.emit("multiply", x, Literal(1.0, F32))
    (a,) = m.emit("add", one, w)
    (b,) = m.emit("multiply", a, Literal(factor, F32))
    return m.build([b], {1: a})


def run(program):
    x, w = np.ones((3, 4), np.float32), np.full((3, 4), 5, np.float32)
    (y,) = program([x, w])
    return float(y[0, 0]), float(w[0, 0])


@pytest.fixture
def folder(tmp_path):
    with settings(HYBRID_CACHE_DIR=str(tmp_path), HYBRID_DEBUG=0):
        yield tmp_path


def counted(calls):
    def passes(graph):
        calls.append(graph)
        return optimize(graph)

    return passes


def test_passes_do_not_run_for_a_graph_met_before(folder):
    calls = []
    assert run(NativeBackend().compile(small(), Options(), counted(calls))) == (12.0, 6.0)
    assert len(calls) == 1
    again = NativeBackend()
    program = again.compile(small(), Options(), counted(calls))
    assert run(program) == (12.0, 6.0)
    assert len(calls) == 1 and again.statistics.compilations == 0 and again.statistics.disk_hits == 1
    assert "multiply" in str(program.explain())
    assert len(calls) == 2 and len(program.graph.equations) == 2  # x * 1 is x


def test_other_literals_options_and_passes_are_other_programs(folder):
    backend, calls = NativeBackend(), []
    backend.compile(small(), Options(), counted(calls))
    assert run(backend.compile(small(3.0), Options(), counted(calls))) == (18.0, 6.0)
    backend.compile(small(), Options(frozenset({0})), counted(calls))
    assert len(calls) == 3
    with skip_passes("simplify"):
        program = backend.compile(small(), Options(), counted(calls))
    assert len(calls) == 4 and len(program.graph.equations) == 3
    with settings(HYBRID_DEBUG=1):
        backend.compile(small(), Options(), counted(calls))
    assert len(calls) == 5


@pytest.mark.parametrize("damage", ["recipe", "object", "pointer"])
def test_what_is_missing_or_damaged_is_compiled_anew(folder, damage):
    calls = []
    NativeBackend().compile(small(), Options(), counted(calls))
    for path in folder.glob("*.hybrid"):
        data = path.read_bytes()
        kind = "pointer" if b'{"recipe"' in data else "object" if b'"symbols"' in data else "recipe"
        if kind == damage:
            path.write_bytes(data[:-1])
    backend = NativeBackend()
    assert run(backend.compile(small(), Options(), counted(calls))) == (12.0, 6.0)
    assert len(calls) == 2 and backend.statistics.compilations == (damage != "pointer")


def test_a_graph_with_steps_of_the_host_is_cut_each_time(folder):
    m = Builder()
    x = m.input(ArrayType((5,), F32))
    (s,) = m.emit("cumsum", x, axis=0)
    (y,) = m.emit("multiply", s, Literal(2.0, F32))
    for _ in range(2):
        program = NativeBackend().compile(m.build([y]), Options(), optimize)
        np.testing.assert_array_equal(program([np.array([3, 1, 2, 5, 4], np.float32)])[0], [6, 8, 12, 22, 30])


def test_the_skeleton_leaves_floats_open_and_nothing_else():
    assert small(2.0).skeleton[0] == small(3.0).skeleton[0] and small(2.0).hash != small(3.0).hash
    assert [a.value for a in small(3.0).skeleton[1]] == [1.0, 3.0]
    m = Builder()
    x = m.input(ArrayType((3,), F32))
    graphs = [m.build([m.emit("sum", x, axes=(0,), keepdims=k)[0]]) for k in (False, True)]
    assert graphs[0].skeleton != graphs[1].skeleton
    swapped = small()
    assert swapped.replace(state={0: swapped.state[1]}).skeleton != swapped.skeleton


# -- the order of steps

def perceptron(layers):
    """The graph of a training step of so many equal layers."""
    net = nn.HybridSequential()
    for _ in range(layers):
        net.add(nn.Dense(64, activation="relu", in_units=64, use_bias=False))
    net.initialize()
    trainer = Trainer(net.collect_params(), "sgd", {"momentum": 0.9})

    @hybridize
    def step(x, y):
        with autograd.record():
            value = nd.mean(loss.L2Loss()(net(x), y))
        value.backward()
        trainer.step(1)
        return value

    return optimize(step.graph(nd.ones((512, 64)), nd.ones((512, 64))))


def test_gradients_of_weights_do_not_wait_for_the_last_of_them(monkeypatch):
    graph = perceptron(12)
    new = lower(graph, host())
    monkeypatch.setattr("jit.lower.schedule", lambda steps, fixed: list(steps))
    old = lower(graph, host())
    assert peak(new.steps, {*new.inputs, *new.outputs}) < 0.75 * peak(old.steps, {*old.inputs, *old.outputs})
    assert_equivalent(old.steps, schedule(old.steps, {*old.inputs, *old.outputs}))


def assert_equivalent(before, after):
    """Every step finds what it found before: the same steps have written its storages last, and none is lost."""
    assert sorted(map(id, before)) == sorted(map(id, after))

    def history(steps):
        writer, found = {}, {}
        for x in steps:
            assert isinstance(x, Launch)
            found[id(x)] = [writer.get(s.parent or s) for s in x.buffers]
            writer.update(((s.parent or s), id(x)) for s in written_by([x]))
        return found, writer

    assert history(before) == history(after)


def test_an_order_that_frees_nothing_stays():
    lowered = lower(small(), host())
    assert schedule(lowered.steps, {*lowered.inputs, *lowered.outputs}) == lowered.steps


def test_training_gives_the_same_numbers_in_both_orders(monkeypatch, tmp_path):
    graph = perceptron(3)
    rng = np.random.default_rng(3)
    arrays = [rng.standard_normal(v.shape).astype(v.dtype) if v.shape else np.asarray(0.1, v.dtype) for v in graph.inputs]
    results = []
    for order in (schedule, lambda steps, fixed: list(steps)):
        monkeypatch.setattr("jit.lower.schedule", order)
        with settings(HYBRID_CACHE_DIR=""):
            program = NativeBackend().compile(graph)
        assert isinstance(program, CompiledProgram)
        given = [a.copy() for a in arrays]
        results.append([*program(given), *given])
    for a, b in zip(*results, strict=True):
        np.testing.assert_array_equal(a, b)
