"""Compiled programs touch only their buffers, and their results do not depend on the number of threads: whole networks between
guard pages, bit for bit."""

import numpy as np
import pytest

import hybrid
import ndarray as nd
from hybrid.backend import overlapping
from jit import program as programs
from jit.guard import signal_of
from ndarray import autograd
from tests.networks import NETWORKS, batch, make, snapshot, trainer_of, training_step


@pytest.fixture
def recorded(monkeypatch):
    """Every call of a compiled program made meanwhile: (program, its input arrays as they were)."""
    calls = []
    call = programs.CompiledProgram.__call__

    def recording(self, arrays):
        calls.append((self, [np.array(a, order="C") for a in arrays]))
        return call(self, arrays)

    monkeypatch.setattr(programs.CompiledProgram, "__call__", recording)
    yield calls
    monkeypatch.undo()


def check_guarded(calls):
    """Each recorded call again: normally, then between guard pages, on 1 to 3 threads. Equal to the last bit."""
    assert calls
    for program, arrays in calls:
        normal = [a.copy() for a in arrays]
        want = program(normal)

        def guarded(side, threads, program=program, arrays=arrays, normal=normal, want=want):
            again = [a.copy() for a in arrays]
            got = program.run_guarded(again, side, threads)
            for kind, pairs in (("result", zip(got, want)), ("input", zip(again, normal))):
                for i, (g, w) in enumerate(pairs):
                    if g.tobytes() != w.tobytes():
                        raise AssertionError(f"{program.graph.name}: {kind} {i} differs ({side}, {threads} threads)")

        def all_ways(guarded=guarded):
            for side in ("after", "before"):
                for threads in (1, 2, 3):
                    guarded(side, threads)

        died = signal_of(lambda: [guarded(side, 1) for side in ("after", "before")])  # in a child: no workers there
        assert died == 0, f"{program.graph.name} left its buffers (signal {died})\n{program.graph}"
        all_ways()


@pytest.mark.parametrize("name", NETWORKS)
def test_inference_between_guard_pages(name, recorded):
    net, shape, classes = make(name)
    net.hybridize()
    for size in (5, 3, 1):
        net(batch(shape, classes, size)[0])
    programs_seen = {id(p) for p, _ in recorded}
    assert len(programs_seen) == 2  # one for the first size, one for all
    check_guarded(list(recorded))


@pytest.mark.parametrize("name", NETWORKS)
def test_forward_and_backward_between_guard_pages(name, recorded):
    net, shape, classes = make(name)
    net.hybridize()
    trainer = trainer_of(net, "adam")
    step = training_step(net, trainer)
    for size in (7, 2):
        step(*batch(shape, classes, size))
    assert len(recorded) == 6  # forward, backward, update
    check_guarded(list(recorded))


@pytest.mark.parametrize("name", NETWORKS)
def test_a_whole_training_step_between_guard_pages(name, recorded):
    net, shape, classes = make(name)
    step = hybrid.hybridize(training_step(net, trainer_of(net, "sgd")))
    for size in (6, 3, 1):
        step(*batch(shape, classes, size))
    assert len(recorded) == 3
    check_guarded(list(recorded))


def train(name, threads, whole):
    """Three steps with many threads on little work; every number that came out."""
    with nd.settings(HYBRID_NUM_THREADS=threads):
        net, shape, classes = make(name)
        trainer = trainer_of(net, "adam")
        step = training_step(net, trainer)
        if whole:
            step = hybrid.hybridize(step)
        else:
            net.hybridize()
        nd.random.seed(4)
        found = {}
        for k, size in enumerate((13, 4, 13)):
            out, value = step(*batch(shape, classes, size, k))
            found[f"output {k}"], found[f"loss {k}"] = out.asnumpy(), value.asnumpy()
        found["prediction"] = net(batch(shape, classes, 33)[0]).asnumpy()
        return {**found, **snapshot(net, trainer)}


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("name", ["lenet", "convnet"])
def test_results_do_not_depend_on_the_number_of_threads(name, whole, monkeypatch):
    monkeypatch.setattr(programs, "FORK_NANOSECONDS", 1)  # every launch with more than one task is split
    used = []
    count = programs.thread_count
    monkeypatch.setattr(programs, "thread_count", lambda *a: used.append(count(*a)) or used[-1])
    results = []
    for threads in (1, 2, 3):
        used.clear()
        results.append(train(name, threads, whole))
        assert max(used) == threads
    for other in results[1:]:
        for key, want in results[0].items():
            assert other[key].tobytes() == want.tobytes(), key


def test_outputs_are_new_arrays():
    net, shape, classes = make("lenet")
    net.hybridize()
    x, _ = batch(shape, classes, 4)
    first = net(x)
    kept = first.asnumpy().copy()
    with autograd.record():
        second = net(x * 2)
    net(x * 3)
    np.testing.assert_array_equal(first.asnumpy(), kept)
    assert not np.shares_memory(first._data, second._data)


def test_overlaps_among_many_arrays_are_those_of_all_pairs():
    random = np.random.default_rng(3)
    memory = np.zeros(3000, np.uint8)
    for _ in range(200):
        arrays, count = [], int(random.integers(2, 10))
        for _ in range(count):
            begin, length = int(random.integers(0, 2500)), int(random.integers(0, 400))
            piece = memory[begin : begin + length]
            arrays.append([piece, piece[::-1], piece[::3], piece[: length // 4 * 4].view(np.float32)[::-2]][random.integers(4)])
        written = {i for i in range(count) if random.random() < 0.4}
        expected = {
            frozenset((i, k)) for i in written for k in range(count)
            if i != k and arrays[i].size and arrays[k].size and np.may_share_memory(arrays[i], arrays[k])
        }
        found = list(overlapping(arrays, written))
        assert {frozenset(p) for p in found} == expected and len(found) == len(expected)
        assert all(i in written for i, _ in found)
