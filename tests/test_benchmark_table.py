"""The arithmetic of the benchmark table, on a small record of a run; work counted from graphs."""

import json
import math

import numpy as np
import pytest

import ndarray as nd
from benchmarks import table
from benchmarks.ceilings import Work, ceiling_ms, work_of
from benchmarks.table import Figures, geometric_mean, markdown, number, report
from hybrid import hybridize
from hybrid.passes import optimize
from jit.limits import Limits

LIMITS = Limits(2, 200.0, 10.0)  # GFLOP/s, GB/s


def record(ms, first=0.1, warm=None, rss=100.0):
    found = {"median_ms": ms, "min_ms": ms, "first_s": first, "rss_mb": rss, "import_mb": 60.0, "rounds": []}
    return found if warm is None else found | {"first_warm_s": warm}


FAST = Figures("fast", False, {
    "ours": record(2.0, 0.102, 0.05, 90),
    "torch": record(4.0, rss=120), "torch_mkl512": record(1.0), "jax": record(3.0, 0.6, rss=95),
}, Work(200_000_000, 1_000_000))
SLOW = Figures("slow", False, {
    "ours": record(5.0, 0.03, 0.2, 130), "torch": record(4.0, rss=120), "jax": record(8.0, 0.058, rss=140),
    "ort": {"error": "no such operation"},
}, Work(1_000_000, 40_000_000))
TRAINS = Figures("trains", True, {"ours": record(1.0), "torch": record(2.0)})


def test_ratios_and_goals():
    assert (FAST.best, SLOW.best, TRAINS.best) == ("jax", "torch", "torch")  # mkl512 is no peer
    assert FAST.ratio == 1.5
    assert SLOW.ratio == 0.8
    assert FAST.first_ms("ours") == pytest.approx(100)
    assert FAST.cold_goal == pytest.approx((600 - 3) / 3)
    assert SLOW.cold_goal == 50  # a third of JAX's is less
    assert (FAST.memory_goal, SLOW.memory_goal) == (95, 120)
    assert ceiling_ms(FAST.work, LIMITS) == pytest.approx(1.0)  # 0.2 GFLOP at 200 GFLOP/s
    assert ceiling_ms(SLOW.work, LIMITS) == pytest.approx(4.0)  # 40 MB at 10 GB/s
    assert FAST.share(LIMITS) == pytest.approx(0.5)
    assert TRAINS.share(LIMITS) is None
    assert geometric_mean([1.5, 0.8]) == pytest.approx(math.sqrt(1.2))
    assert geometric_mean([]) is None


def test_the_report():
    text = report({"cpu": "a CPU", "cores": 2, "versions": {"ours": "1", "torch_mkl512": "2"}}, [FAST, SLOW, TRAINS], LIMITS)
    lines = text.splitlines()
    assert "- losses to the best peer (below 0.95): slow 0.80 (of 3)" in lines
    assert f"- geometric mean of best peer / ours, inference: {math.sqrt(1.2):.3f} (goal 1.3)" in lines
    assert "- geometric mean of best peer / ours, training: 2.000 (goal 1.5)" in lines
    assert "- below 90% of the roofline, of the 1 above 100 MFLOP: fast 50%" in lines
    assert "- warm first call over 100 ms: slow" in lines
    assert "- cold first call over its goal: trains" in lines
    assert "- peak memory over the leaner of PyTorch and JAX: slow" in lines
    (row,) = [line for line in lines if line.startswith("| fast |") and "1.50" in line]
    assert "**3.00**" in row
    assert row.endswith("| 1.50 |  | 200 | 1.00 | 1.00 | 50% |")
    (row,) = [line for line in lines if line.startswith("| slow |") and "0.80" in line]
    assert "**loss**" in row
    assert "- slow, ort: no such operation" in lines
    assert "200 GFLOP/s" in text


def test_the_report_without_peers():
    text = report({}, [Figures("alone", False, {"ours": record(2.0)}, Work(2_000_000, 1_000))], LIMITS)
    assert "| alone | 2.00 | - | - |  | 2.00 | 0.00100 | 0.0100 | 0% |" in text
    assert "loss" not in text


def test_numbers():
    assert [number(v) for v in (None, 0.0, 0.0001234, 1.0, 12.345, 1234.5)] == ["-", "0", "0.000123", "1.00", "12.3", "1,234"]
    assert markdown([["a", "b"], ["1", "2"]]) == "| a | b |\n| --- | ---: |\n| 1 | 2 |"


def graph_of(function, *arrays):
    return optimize(hybridize(function).graph(*arrays))


def test_work_is_counted():
    x, w = nd.array(np.ones((8, 16), np.float32)), nd.array(np.ones((16, 4), np.float32))
    assert work_of(graph_of(lambda x, w: nd.tanh(nd.dot(x, w)), x, w)) == Work(2 * 8 * 16 * 4, 4 * (8 * 16 + 16 * 4 + 8 * 4))
    image, kernel = nd.array(np.ones((2, 3, 8, 8), np.float32)), nd.array(np.ones((5, 3, 3, 3), np.float32))
    work = work_of(graph_of(lambda x, w: nd.convolution(x, w, padding=1), image, kernel))
    assert work == Work(2 * 2 * 5 * 64 * 27, 4 * (2 * 3 * 64 + 5 * 27 + 2 * 5 * 64))
    rows = nd.array(np.arange(3))
    table_of_rows = nd.array(np.ones((1000, 4), np.float32))
    work = work_of(graph_of(lambda i, t: nd.embedding(i, t), rows, table_of_rows))
    assert work.flops == 0
    assert work.bytes <= rows.nbytes + 2 * 4 * 3 * 4


def test_work_of_a_loop():
    w, state = nd.array(np.ones((4, 4), np.float32)), nd.array(np.ones((2, 4), np.float32))
    xs = nd.array(np.ones((10, 2, 4), np.float32))

    def function(xs, state, w):
        return nd.foreach(lambda x, s: (x, nd.tanh(nd.dot(s, w) + x)), xs, state)[1]

    assert work_of(graph_of(function, xs, state, w)).flops == 10 * 2 * 2 * 4 * 4


def test_work_of_a_written_array():
    x, w = nd.array(np.ones(100, np.float32)), nd.array(np.ones(100, np.float32))

    @hybridize
    def step(x):
        w[...] = w - x

    assert work_of(optimize(step.graph(x))).bytes == 3 * 400  # both read, one written


def test_without_a_suite(capsys, tmp_path):
    table.main(["--suite", str(tmp_path)])
    assert "PEERS_SUITE" in capsys.readouterr().err


def test_of_a_kept_run(tmp_path, capsys, monkeypatch):
    """The whole tool on a suite that holds two models of its own."""
    (tmp_path / "suite.py").write_text("")
    kept = tmp_path / "out.json"
    kept.write_text(json.dumps({"meta": {"cpu": "a CPU", "cores": 2}, "results": {"one": FAST.records, "step": TRAINS.records}}))
    monkeypatch.setattr(table, "_limits", lambda: LIMITS)
    monkeypatch.setattr(table, "_work", lambda suite, names: ({"one": False, "step": True}, {"one": FAST.work}, []))
    table.main(["--suite", str(tmp_path), "--json", str(kept), "--only-table", "--output", str(tmp_path / "out.md")])
    text = capsys.readouterr().out
    assert "training: 2.000" in text
    assert text.strip() in (tmp_path / "out.md").read_text()


def test_direct_convolutions_beside():
    net = Figures("net", False, {"ours": record(2.0), "ours_direct": record(3.0), "torch": record(6.0)})
    assert (net.best, net.ratio, net.direct_ratio, FAST.direct_ratio) == ("torch", 3.0, 2.0, FAST.ratio)
    lines = report({}, [net, FAST], LIMITS).splitlines()
    assert f"- geometric mean of best peer / ours, inference: {math.sqrt(4.5):.3f} (goal 1.3)" in lines
    assert f"- the same with direct convolutions only (HYBRID_WINOGRAD=0): {math.sqrt(3.0):.3f} (goal 1.15)" in lines
    assert not any("HYBRID_WINOGRAD" in line for line in report({}, [FAST, SLOW], LIMITS).splitlines())
