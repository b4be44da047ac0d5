"""Some seconds of random graphs (see tests/graph_fuzzer.py), in a process of their own: a crash is a finding too.

    python -m pytest tests/test_fuzz.py --fuzz-seconds 3600 --fuzz-seed 12345
"""

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import ndarray as nd
from hybrid import hybridize
from ndarray import autograd

ROOT = Path(__file__).parent.parent
SIZES = (4, 5, 13, 7)


def test_random_graphs(request, tmp_path):
    seconds, seed = request.config.getoption("--fuzz-seconds"), request.config.getoption("--fuzz-seed")
    note = tmp_path / "seed"
    command = [sys.executable, "-m", "tests.graph_fuzzer", "--seconds", str(seconds), "--seed", str(seed)]
    environment = {**os.environ, "HYBRID_CACHE_DIR": "", "HYBRID_FUZZ_NOTE": str(note)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=seconds + 300)
    last = note.read_text() if note.exists() else seed
    replay = f"replay it with: python -m tests.graph_fuzzer --count 1 --seed {last}"
    print(done.stdout)
    assert done.returncode == 0, f"{replay}\n{done.stdout[-6000:]}\n{done.stderr[-3000:]}"


def program_of(seed, weight, statistic, writes=True):
    """A random function of one (n, 12) array that takes views, writes through them, reads and updates captured arrays."""

    def program(x):
        r = np.random.default_rng(seed)
        pool = [x * 1, x * weight, weight * 2]
        for step in range(int(r.integers(6, 16))):
            v = pool[int(r.integers(len(pool)))]
            kind = int(r.integers(14))
            if not writes and kind in (4, 5, 6, 7):
                kind = 8
            if kind == 0 and v.ndim == 2:
                v = v.T
            elif kind == 1 and v.ndim:
                v = v[..., ::2] if r.random() < 0.5 else v[..., ::-1]
            elif kind == 2 and v.ndim == 2 and isinstance(v.shape[1], int) and v.shape[1] not in SIZES:
                v = v[:, 1:] if r.random() < 0.5 else v[:, :3]
            elif kind == 3 and v.ndim:
                v = v.reshape(-1) if r.random() < 0.5 else v.reshape((-1, 1))
            elif kind == 4:
                v[...] = float(step)
            elif kind == 5 and v.ndim:
                v += 1
            elif kind == 6 and v.ndim == 2:
                v[:, 0] = v[:, -1] * 0.5 + step
            elif kind == 7 and v.ndim:
                v[v > 1] = 0.25
            elif kind == 8:
                v = nd.tanh(v)
            elif kind == 9 and v.ndim:
                v = v.sum(axis=-1) if r.random() < 0.5 else v.mean(axis=0)
            elif kind == 10 and v.ndim == 1 and v.shape == statistic.shape:
                with contextlib.nullcontext() if writes else autograd.pause():
                    statistic[...] = statistic * 0.5 + v
                v = statistic * 1
            elif kind == 11:
                v = nd.maximum(v, 0.1) * 0.7
            elif kind == 12:
                with contextlib.nullcontext() if writes else autograd.pause():
                    statistic[int(r.integers(12))] = v.sum() * 1e-3
                v = statistic[3:7] if writes else statistic[3:7] * 1
            elif kind == 13:
                v = v.copy()
            pool.append(v)
        return [p * 1 for p in pool[3:]]

    return program


def run_program(seed, backend, recording):
    """All that the program of a seed computes and writes over calls with several sizes; line by line without a backend."""
    weight, statistic = nd.array(np.linspace(-1, 1, 12)), nd.array(np.linspace(0, 1, 12))
    weight.attach_grad()
    run = program_of(seed, weight, statistic)
    if backend is not None:
        run = hybridize(run, backend=backend)
    found = []
    for k, n in enumerate(SIZES):
        x = nd.array(np.random.default_rng(k).standard_normal((n, 12)))
        found += [*run(x), statistic * 1]
        if recording:
            x.attach_grad()
            with autograd.record():
                total = sum((nd.sin(o) * (j + 1)).sum() for j, o in enumerate(run(x)))
            if total._node is not None:
                total.backward()
                found += [x.grad * 1, weight.grad * 1]
    return [f.asnumpy() for f in found]


def as_line_by_line(seed, run, tolerance):
    """What `run(seed, backend, may)` gives with each backend is what it gives without one; `may` is whether it may do what the
    tape refuses for some seeds: to lose what a write overwrites."""
    try:
        may, expected = True, run(seed, None, True)
    except RuntimeError:
        may, expected = False, run(seed, None, False)
    for backend in ("interpreter", "jit"):
        for i, (want, got) in enumerate(zip(expected, run(seed, backend, may), strict=True)):
            np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance, err_msg=f"seed {seed}, {backend}, array {i}")


@pytest.mark.parametrize("seed", range(24))
def test_random_programs_of_views_and_writes(seed):
    """Static, then with a symbolic first size, with gradients where the tape can take them: as line by line, state included."""
    as_line_by_line(seed, run_program, 1e-9)


def run_steps(seed, backend, writes):
    """Losses, gradients, weights and state over whole training steps with the program of a seed as the model, in one function
    that is hybridized; line by line without a backend."""
    weight, statistic = nd.array(np.linspace(-1, 1, 12)), nd.array(np.linspace(0, 1, 12))
    momentum = nd.zeros((12,), dtype="float64")
    weight.attach_grad()
    model = program_of(seed, weight, statistic, writes)

    def step(x, rate):
        with autograd.record():
            total = sum(((nd.sin(o) * (j + 1)).sum() for j, o in enumerate(model(x))), (weight * weight).sum())
        total.backward()
        momentum[...] = momentum * 0.9 + weight.grad
        weight[...] = weight - rate * momentum
        return total

    if backend is not None:
        step = hybridize(step, backend=backend)
    found = []
    for k, n in enumerate(SIZES):
        x = nd.array(np.random.default_rng(k).standard_normal((n, 12)))
        found += [step(x, 1e-3 * (k + 1)) * 1, weight.grad * 1, weight * 1, momentum * 1, statistic * 1]
    return [f.asnumpy() for f in found]


@pytest.mark.parametrize("seed", [*range(100, 103), *[pytest.param(n, marks=pytest.mark.slow) for n in range(103, 200)]])
def test_random_training_steps(seed):
    """Record, backward and update in one program, which may write what it has captured: as line by line."""
    as_line_by_line(seed, run_steps, 1e-8)
