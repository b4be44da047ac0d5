"""The command that checks a machine with a GPU, run where there is none: its sections on the CPU, its table without peers."""

import json
import time

import numpy as np
import pytest

import ndarray as nd
from benchmarks.gpu import frameworks, models, peers
from benchmarks.gpu.__main__ import LIMITS, _last_report, main
from benchmarks.gpu.sections import SECTIONS


def test_it_checks_a_device_and_writes_a_report(tmp_path, capsys):
    assert main(["--device", "cpu", "--quick", "--only", "lenet,networks", "--output", str(tmp_path)]) == 0
    (report,) = tmp_path.glob("*.json")
    found = json.loads(report.read_text())
    assert found["lenet"]["failed"] == [] and len(found["lenet"]["losses"]) == 4
    assert set(found["networks"]["first numbers"]) == set(models.SMALL)
    assert "## networks: passed" in report.with_suffix(".md").read_text()


def test_a_device_that_is_not_there_fails_and_says_why(capsys):
    assert main(["--device", "gpu(63)", "--quick", "--only", "lenet"]) == 1
    out = capsys.readouterr().out
    assert "lenet: 1 FAILED" in out and "DeviceError" in out


def test_an_unknown_section_is_named(capsys):
    with pytest.raises(SystemExit):
        main(["--only", "lunch"])
    assert "no section lunch" in capsys.readouterr().err


def test_workloads_are_timed_in_processes_of_their_own(monkeypatch):
    monkeypatch.setattr(peers, "available", lambda: ["ours", "absent"])
    monkeypatch.setitem(frameworks.FRAMEWORKS, "absent", None)  # the process knows no such framework
    monkeypatch.setattr(peers, "SECONDS", 0.02)
    found = peers.measure("cpu", time.monotonic() + 60, small=True, names=["softmax"])
    ours = found["softmax"]["ours"]
    assert ours["median_ms"] > 0 and len(ours["rounds"]) == peers.ROUNDS
    assert "exit status 2" in found["softmax"]["absent"]["error"]
    text = peers.table(found)
    assert "| softmax |" in text and "- softmax, absent: exit status 2" in text


def test_what_does_not_fit_is_said():
    found = peers.measure("cpu", time.monotonic(), small=True, names=["softmax"])
    assert found["softmax"]["ours"] == {"error": "not run: out of time"}


def test_all_frameworks_get_the_same_numbers():
    workload = models.SMALL["gpt_train"]
    for (a, b) in zip(models.inputs_of(workload), models.inputs_of(workload)):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))
    first, second = models.parameters_of(workload), models.parameters_of(workload)
    assert all(np.array_equal(first[k][1], second[k][1]) for k in first)
    large = models.parameters_of(models.WORKLOADS["resnet50_b1"])
    assert sum(v.size for kind, v in large.values() if kind not in ("mean", "var")) == 25_557_032  # ResNet-50's parameters


def test_library_steps_are_checked(monkeypatch):
    """Every kind of step, against float64; on ``sim`` libraries are NumPy."""
    from benchmarks.gpu.libraries import libraries

    monkeypatch.setenv("HYBRID_MATMUL_PRECISION", "float32")  # it is set and set back
    found = libraries(nd.sim(0), True)
    assert found["failed"] == found["refused"] == []
    assert {s for steps in found["steps"].values() for s in steps.split(", ")} == {"product", "convolution", "attention"}


def test_every_section_has_its_time():
    assert set(LIMITS) == {*SECTIONS, "sanitizer"}


def test_a_section_that_is_stopped_shows_how_far_it_came():
    assert _last_report(b'{"checked": 2, "failed": ["a"]}\n{"checked": 4, "fai') == {"checked": 2, "failed": ["a"]}
    assert _last_report(None) == _last_report("no report\n") == {"failed": []}
