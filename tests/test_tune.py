"""HYBRID_TUNE=1: what is tried, that it changes no bit, and that the choice is remembered. No test depends on a time."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from native_kernels import run_contraction

import ndarray as nd
from hybrid import hybridize
from jit import machine, tune
from jit.cache import DiskCache
from jit.contract import lower_contraction, plain_sink, plain_source
from jit.launch import Storage
from ndarray.settings import settings

ROOT = Path(__file__).parent.parent
FIELDS = {"stride": (1, 1), "padding": ((1, 1), (1, 1)), "dilation": (1, 1), "groups": 1}
PROBLEMS = {  # op, shapes of the operands, of the result, attributes
    "product": ("dot_general", (37, 300), (300, 130), (37, 130), {"contract": ((1,), (0,)), "batch": ((), ())}),
    "rows by rows": ("dot_general", (13, 257), (67, 257), (13, 67), {"contract": ((1,), (1,)), "batch": ((), ())}),
    "batch": ("dot_general", (3, 40, 33), (3, 33, 49), (3, 40, 49), {"contract": ((2,), (1,)), "batch": ((0,), (0,))}),
    "vector": ("dot_general", (1, 700), (700, 131), (1, 131), {"contract": ((1,), (0,)), "batch": ((), ())}),
    "convolution": ("convolution_channels_last", (2, 9, 11, 7), (40, 7, 3, 3), (2, 9, 11, 40), FIELDS),
    "strided": ("convolution", (2, 7, 9, 11), (24, 7, 3, 3), (2, 24, 4, 5),
                {**FIELDS, "stride": (2, 2), "padding": ((0, 0), (0, 0))}),
    "gradient": ("convolution_data_gradient_channels_last", (2, 9, 11, 40), (40, 7, 3, 3), (2, 9, 11, 7),
                 {**FIELDS, "shape": (2, 9, 11, 7)}),
}


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    """A cache folder, a memory and counters of its own; every problem is large enough."""
    monkeypatch.setattr(tune, "statistics", tune.Statistics())
    monkeypatch.setattr(tune, "SMALLEST", 0)
    monkeypatch.setattr(tune, "BUDGET", 0.01)
    tune.forget()
    with settings(HYBRID_TUNE=1, HYBRID_CACHE_DIR=str(tmp_path), HYBRID_WINOGRAD=0):
        yield
    tune.forget()


def operands(name):
    r = np.random.default_rng(3)
    _, x, y, _, _ = PROBLEMS[name]
    return r.standard_normal(x).astype("float32"), r.standard_normal(y).astype("float32")


def asked(name, target=None, weights=()):
    """The schedule for a problem."""
    op, *shapes, attrs = PROBLEMS[name]
    storages = [Storage("float32", int(np.prod(s))) for s in shapes]
    sources = [plain_source(s, shape, i in weights) for i, (s, shape) in enumerate(zip(storages, shapes[:2]))]
    return tune.schedule(op, attrs, sources, plain_sink(storages[2], shapes[2]), target or machine.host())


def preferring(monkeypatch, number):
    """Have a candidate win, whatever the clock says; gives the list of how many ran."""
    counts = []

    def race(runs):
        for run in runs:
            run()
        if len(runs) == 2:  # the model's and the winner, once more
            return [2.0, 1.0]
        counts.append(len(runs))
        return [float(abs(i - number) + 1) for i in range(len(runs))]

    monkeypatch.setattr(tune, "_race", race)
    return counts


@pytest.mark.parametrize("name", PROBLEMS)
def test_every_candidate_gives_the_same_bits(name):
    """Those that do not are dropped, so here all that is compiled is compared, between guard pages."""
    op, _, _, shape, attrs = PROBLEMS[name]
    x, y = operands(name)
    target = machine.host()
    expected = run_contraction(op, x, y, shape, attrs, target)
    assert np.isfinite(expected).all()
    kept = 0
    for choice in tune.candidates(op, target, "float32")[1:]:
        if name == "rows by rows" and choice.keys() != {"rank"}:
            continue  # another method of summation
        np.testing.assert_array_equal(run_contraction(op, x, y, shape, attrs, target, **choice), expected, err_msg=str(choice))
        kept += 1
    assert kept >= 3


@pytest.mark.parametrize("name", ["product", "batch", "convolution", "gradient"])
@pytest.mark.parametrize("number", [1, 3])
def test_a_program_gives_the_same_bits_whatever_is_chosen(name, number, monkeypatch):
    counts = preferring(monkeypatch, number)
    op, *_, attrs = PROBLEMS[name]
    arrays = [nd.array(a) for a in operands(name)]

    def run():
        from ndarray.apply import apply
        from ndarray.op import OPS

        return hybridize(lambda x, y: apply(OPS[op], x, y, **attrs))(*arrays).asnumpy()

    with settings(HYBRID_TUNE=0):
        expected = run()
    assert tune.statistics.measured == 0
    np.testing.assert_array_equal(run(), expected)
    assert tune.statistics.measured == 1
    assert counts[0] > number
    assert asked(name)  # another than the model's


def test_a_choice_is_remembered(monkeypatch):
    counts = preferring(monkeypatch, 2)
    first = asked("product")
    assert first
    assert asked("product") == first
    tune.forget()
    assert asked("product") == first  # from disk
    assert (len(counts), tune.statistics.measured, tune.statistics.disk_hits) == (1, 1, 1)
    assert asked("product", weights=(1,)) is not None  # another problem
    with settings(HYBRID_NUM_THREADS=settings.num_threads + 1):
        asked("product")
    assert len(counts) == 3


def test_a_second_process_neither_measures_nor_differs(tmp_path):
    program = """
import sys, json, numpy as np, ndarray as nd
from hybrid import hybridize
from jit import tune
x = nd.array(np.random.default_rng(0).standard_normal((48, 200)).astype("float32"))
w = nd.array(np.random.default_rng(1).standard_normal((200, 96)).astype("float32"))
run = hybridize(lambda x, w: nd.tanh(nd.matmul(x, w)) * float(sys.argv[1]))
print(json.dumps([run(x, w).asnumpy().sum().item(), tune.statistics.measured, tune.statistics.disk_hits,
                  list(tune._chosen.values())]))
"""
    environment = {**os.environ, "HYBRID_CACHE_DIR": str(tmp_path), "HYBRID_TUNE": "1", "PYTHONPATH": str(ROOT)}

    def run(factor):
        command = [sys.executable, "-c", program, factor]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    total, *first = run("1")
    assert first[:2] == [1, 0]
    assert run("1") == [total, 0, 0, []]  # the whole program came from disk
    doubled, *other = run("2")  # another program, the same problem
    assert doubled == pytest.approx(2 * total)
    assert other == [0, 1, first[2]]


@pytest.mark.parametrize("damage", ["bytes", "other", "foreign"])
def test_a_damaged_entry_is_ignored(damage, tmp_path, monkeypatch):
    preferring(monkeypatch, 1)
    first = asked("product")
    (path,) = tmp_path.glob("tuned-*")
    if damage == "bytes":
        path.write_bytes(path.read_bytes()[:-3])
    else:
        description = {"schedule": {"rank": -70}} if damage == "other" else ["what"]
        DiskCache(tmp_path).store(path.name.removesuffix(".hybrid"), description, b"")
    tune.forget()
    assert asked("product") == first
    assert (tune.statistics.measured, tune.statistics.disk_hits) == (2, 0)


def test_a_candidate_that_fails_or_differs_is_dropped(monkeypatch):
    preferring(monkeypatch, 9)
    real = tune.candidates
    monkeypatch.setattr(tune, "candidates", lambda *a: [{}, {"pack_b": "nowhere", "mr": 0}, {"unknown": 1}, *real(*a)[1:]])
    assert asked("product").keys().isdisjoint({"mr", "unknown"})
    dropped = tune.statistics.dropped
    assert dropped >= 1
    assert asked("rows by rows").keys() <= {"rank"}  # the others would add in another order
    assert tune.statistics.dropped > dropped


def test_sizes_that_vary_are_tuned_at_those_of_the_trace():
    x, y = operands("product")
    run = hybridize(lambda x, y: nd.matmul(x, y))
    for rows in (37, 12, 5):
        got = run(nd.array(x[:rows]), nd.array(y)).asnumpy()
        np.testing.assert_allclose(got, x[:rows].astype("float64") @ y, rtol=1e-4, atol=1e-4)
    assert tune.statistics.measured == 2  # static, then symbolic


def test_what_is_not_tuned(monkeypatch):
    with settings(HYBRID_TUNE=0):
        op, *shapes, attrs = PROBLEMS["product"]
        storages = [Storage("float32", int(np.prod(s))) for s in shapes]
        sources = [plain_source(s, shape) for s, shape in zip(storages, shapes[:2])]
        lower_contraction(op, attrs, sources, plain_sink(storages[2], shapes[2]), machine.host())
    assert asked("product", machine.aarch64()) == {} or machine.host().triple.startswith("aarch64")
    monkeypatch.setattr(tune, "SMALLEST", 1 << 40)
    assert asked("product") == {}
    monkeypatch.setattr(tune, "SMALLEST", 0)
    monkeypatch.setattr(tune, "MOST_BYTES", 1000)
    assert asked("product") == {}
    assert tune.statistics.measured == 0


def test_a_winner_has_to_win_twice(monkeypatch):
    answers = [[2.0, 1.0, 3.0, 3.0, 3.0, 3.0, 3.0, 3.0, 3.0], [1.0, 0.99]]
    monkeypatch.setattr(tune, "_race", lambda runs: answers.pop(0)[: len(runs)])
    assert asked("product") == {}
    assert not answers
