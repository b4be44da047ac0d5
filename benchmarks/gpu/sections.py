"""What is checked of one device, each section in a process of its own: `python -m benchmarks.gpu.sections NAME`.

A section returns plain data: figures, and under "failed" what is wrong, one line each.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
import traceback
from collections.abc import Callable
from typing import Any

import numpy as np

import ndarray as nd
from blocks import Trainer, loss
from hybrid import hybridize
from ndarray import autograd
from ndarray.apply import apply
from ndarray.array import NDArray
from ndarray.device import Device
from ndarray.device import device as find_device
from ndarray.op import OPS
from ndarray.testing import assert_close

from . import frameworks, models
from .libraries import libraries

Report = dict[str, Any]


# -- correctness

def _wide(a: np.ndarray) -> np.ndarray:
    return a.astype(np.float64) if a.dtype == np.float32 or a.dtype.name == "bfloat16" or a.dtype == np.float16 else a


def _reference(op: Any, arrays: list[np.ndarray], attrs: dict[str, Any]) -> list[np.ndarray]:
    """The op by NumPy on the host: in float64, but in the dtypes of its arguments where these have a say in what is computed
    (the least number of a dtype stands for minus infinity)."""
    results = lambda found: list(found) if isinstance(found, tuple) else [found]
    narrow = results(op.eager(np, *arrays, **attrs))
    try:
        wide = results(op.eager(np, *map(_wide, arrays), **attrs))
        for w, n in zip(wide, narrow, strict=True):
            assert_close(w.astype(n.dtype), n)
    except Exception:
        return narrow
    return wide


def ops(device: Device, quick: bool) -> Report:
    """Every op on its samples, eagerly and compiled (all samples of an op as one program), against float64 on the CPU."""
    failed: list[str] = []
    count = 0
    for name, op in OPS.items():
        samples = [s for s in op.samples() if s.error is None][: 2 if quick else None]
        inputs = [[np.asarray(a) for a in s.arrays] for s in samples]
        with np.errstate(all="ignore"):
            wanted = [_reference(op, arrays, s.attrs) for arrays, s in zip(inputs, samples)]
        placed = [[nd.array(a, dtype=a.dtype, device=device) for a in arrays] for arrays in inputs]

        def run(*groups: list[NDArray], op: Any = op, samples: Any = samples) -> list[Any]:
            return [apply(op, *xs, **s.attrs) for xs, s in zip(groups, samples)]

        for kind, function in (("eager", run), ("compiled", hybridize(run))):
            count += len(samples)
            try:
                with device:  # for ops without arguments
                    results = function(*placed)
            except Exception as error:
                failed.append(f"{name}, {kind}: {type(error).__name__}: {str(error).splitlines()[0][:300]}")
                continue
            for number, (got, want) in enumerate(zip(results, wanted, strict=True)):
                try:
                    for g, w in zip(list(got) if isinstance(got, (tuple, list)) else [got], want, strict=True):
                        assert isinstance(g, NDArray) and g.device == device, f"result on {g.device}"
                        host = g.asnumpy()
                        assert_close(host, w.astype(host.dtype))
                except Exception as error:
                    failed.append(f"{name}, sample {number}, {kind}: {type(error).__name__}: {str(error).splitlines()[0][:300]}")
        print(json.dumps({"checked": count, "last": name, "failed": failed}), flush=True)  # should the time not suffice
    return {"checked": count, "failed": failed}


def networks(device: Device, quick: bool) -> Report:
    """The small models train alike on the device and on the CPU (losses of some steps), eagerly and compiled."""
    failed: list[str] = []
    losses: dict[str, list[float]] = {}
    for name, workload in models.SMALL.items():
        results = {}
        for where in ("cpu", str(device)):
            step, _, read = frameworks.build("ours", workload, where)
            results[where] = [read(step()) for _ in range(3 if quick else 8)]
        try:
            for want, got in zip(*results.values(), strict=True):
                assert_close(got, want, factor=30)  # rounding in another order, through several updates
        except AssertionError as error:
            failed.append(f"{name}: {str(error).splitlines()[0]}")
        losses[name] = [float(r.reshape(-1)[0]) for r in results[str(device)]]
    return {"first numbers": losses, "failed": failed}


def lenet(device: Device, quick: bool) -> Report:
    """LeNet of Gluon's layers, whole steps compiled, against the CPU."""
    from blocks import init, nn

    def train(place: Device) -> list[float]:
        nd.random.seed(3)
        net = nn.HybridSequential()
        net.add(nn.Conv2D(6, 5, padding=2, activation="relu"), nn.MaxPool2D(2, 2), nn.Conv2D(16, 5, activation="relu"),
                nn.MaxPool2D(2, 2), nn.Flatten(), nn.Dense(120, activation="relu"), nn.Dense(84, activation="relu"), nn.Dense(10))
        net.initialize(init.Xavier())
        random = np.random.default_rng(0)
        x, y = random.standard_normal((8, 1, 28, 28)).astype("float32"), random.integers(0, 10, 8).astype("int32")
        net(nd.array(x))
        net.reset_device(place)
        trainer = Trainer(net.collect_params(), "adam", {"learning_rate": 1e-3})
        loss_fn = loss.SoftmaxCrossEntropyLoss()
        xs, ys = nd.array(x, device=place), nd.array(y, device=place)

        @hybridize
        def step(xs, ys):
            with autograd.record():
                value = nd.mean(loss_fn(net(xs), ys))
            value.backward()
            trainer.step(1)
            return value

        return [float(step(xs, ys).asnumpy()) for _ in range(4 if quick else 10)]

    want, got = train(nd.cpu()), train(device)
    worst = max(abs(a - b) for a, b in zip(want, got))
    return {"losses": got, "worst difference": worst, "failed": [] if worst < 1e-3 else [f"losses {got}, on the CPU {want}"]}


# -- speed

def _seconds(function: Callable[[], NDArray], seconds: float = 0.3) -> float:
    """Seconds a call, back to back: the median of samples of 10 ms and more that end when the last result is there."""
    for _ in range(12):
        y = function()
    y.wait_to_read()
    begin = time.perf_counter()
    function().wait_to_read()
    calls = max(1, round(0.01 / (time.perf_counter() - begin)))
    samples = []
    end = time.perf_counter() + seconds
    while len(samples) < 5 or time.perf_counter() < end:
        begin = time.perf_counter()
        for _ in range(calls):
            y = function()
        y.wait_to_read()
        samples.append((time.perf_counter() - begin) / calls)
    return statistics.median(samples)


def launches(device: Device, quick: bool) -> Report:
    """Microseconds of host time: calls of programs of one kernel and of 50 steps, launch by launch and replayed as a graph."""
    x = nd.ones((64, 64), device=device)

    def chain(x: NDArray) -> NDArray:
        for _ in range(25):
            x = nd.softmax(nd.matmul(x, x))
        return x

    figures = {}
    seconds = 0.05 if quick else 0.5
    modes = {"launch by launch": {"static_shape": False}, "graph": {"static_alloc": True, "static_shape": True}}
    for name, function in (("one kernel", lambda x: x * 2 + 1), ("50 steps", chain)):
        for mode, flags in modes.items():
            compiled = hybridize(function, **flags)
            figures[f"{name}, {mode}, us"] = 1e6 * _seconds(lambda f=compiled: f(x), seconds)
    figures["eager a + b, us"] = 1e6 * _seconds(lambda: x + x, seconds)
    return {**figures, "failed": []}


def bandwidth(device: Device, quick: bool) -> Report:
    """GB/s of generated kernels, and their share of what copying an array reaches in the same run (goal: 85%)."""
    rows, columns = (256, 256) if quick else (16384, 8192)
    x, y = (nd.random.normal(shape=(rows, columns), device=device) for _ in range(2))
    scale, bias = nd.ones((columns,), device=device), nd.zeros((columns,), device=device)
    size = 4 * rows * columns
    seconds = 0.05 if quick else 0.5
    copy = 2 * size / _seconds(x.copy, seconds) / 1e9
    kernels: dict[str, tuple[int, Callable[..., NDArray]]] = {
        "add": (3, lambda x, y: x + y),
        "chain": (3, lambda x, y: nd.gelu(x * y + x) * nd.sigmoid(y) - x),
        "softmax": (2, lambda x, y: nd.softmax(x)),
        "layer_norm": (2, lambda x, y: nd.layer_norm(x, scale, bias)),
        "sum of rows": (1, lambda x, y: nd.sum(x, 1)),
        "sum of columns": (1, lambda x, y: nd.sum(x, 0)),
        "sum": (1, lambda x, y: nd.sum(x)),
        "transposition": (2, lambda x, y: nd.transpose(x) + 1),
    }
    figures: Report = {"copy, GB/s": copy}
    for name, (passes, function) in kernels.items():
        compiled = hybridize(function, static_alloc=True, static_shape=True)
        speed = passes * size / _seconds(lambda f=compiled: f(x, y), seconds) / 1e9
        figures[name] = {"GB/s": speed, "share": speed / copy}
    return {**figures, "failed": []}


SECTIONS: dict[str, Callable[[Device, bool], Report]] = {
    "ops": ops, "libraries": libraries, "lenet": lenet, "networks": networks, "launches": launches, "bandwidth": bandwidth,
}


def main() -> None:
    """Run one section, print its report as JSON on the last line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("section", choices=SECTIONS)
    parser.add_argument("--device", default="gpu(0)")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    try:
        report = SECTIONS[options.section](find_device(options.device), options.quick)
    except Exception:
        report = {"failed": [traceback.format_exc()]}
    print(json.dumps(report))


if __name__ == "__main__":
    main()
