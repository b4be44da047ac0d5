"""What eager calls cost: small operations beside NumPy's, small gradients and a LeNet step beside PyTorch's.

    python -m benchmarks.eager                # one thread; prints a Markdown table

Each figure is the fastest of many rounds. A PyTorch that is not installed leaves its column empty.
"""

from __future__ import annotations

import os
import timeit
from collections.abc import Callable
from typing import Any

for _name in ("HYBRID_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import numpy as np  # noqa: E402

import ndarray as nd  # noqa: E402
from blocks import Trainer, loss, nn  # noqa: E402
from ndarray import autograd  # noqa: E402

try:
    import torch
except ImportError:
    torch = None  # type: ignore[assignment]


def best(function: Callable[[], Any], seconds: float = 0.6) -> float:
    """Microseconds of one call."""
    number = 1
    while (taken := timeit.timeit(function, number=number)) < 2e-3:
        number *= 2
    rounds = max(3, int(seconds / taken))
    return min(timeit.repeat(function, number=number, repeat=rounds)) / number * 1e6


def small() -> list[tuple[str, float, float, float]]:
    """(what, ours, NumPy's, PyTorch's) of operations on four numbers."""
    a, b = np.ones(4, np.float32), np.ones(4, np.float32)
    x, y, w = nd.array(a), nd.array(b), nd.array(a)
    w.attach_grad()
    nan = float("nan")
    p = q = v = None
    if torch is not None:
        torch.set_num_threads(1)
        p, q, v = torch.ones(4), torch.ones(4), torch.ones(4, requires_grad=True)

    def theirs(function: Callable[[], Any]) -> float:
        return nan if torch is None else best(function)

    def gradient() -> None:
        with autograd.record():
            out = (w * y + x) * w
        out.backward()

    def their_gradient() -> None:
        ((v * q + p) * v).sum().backward()

    rows = [("a + b", best(lambda: x + y), best(lambda: a + b), theirs(lambda: p + q))]
    with autograd.record():
        rows.append(("a + b, recorded", best(lambda: w + y), best(lambda: a + b), theirs(lambda: v + q)))
        rows.append(("a * b, recorded", best(lambda: w * y), best(lambda: a * b), theirs(lambda: v * q)))
    rows += [
        ("exp(a)", best(lambda: nd.exp(x)), best(lambda: np.exp(a)), theirs(lambda: torch.exp(p))),
        ("a.sum()", best(lambda: x.sum()), best(lambda: a.sum()), theirs(lambda: p.sum())),
        ("three operations and their gradient", best(gradient), nan, theirs(their_gradient)),
    ]
    return rows


def lenet_step(batch: int) -> Callable[[], Any]:
    """A training step of LeNet-5, run line by line."""
    net = nn.HybridSequential()
    net.add(
        nn.Conv2D(6, 5, padding=2, activation="relu"), nn.MaxPool2D(2, 2), nn.Conv2D(16, 5, activation="relu"),
        nn.MaxPool2D(2, 2), nn.Flatten(), nn.Dense(120, activation="relu"), nn.Dense(84, activation="relu"), nn.Dense(10),
    )
    net.initialize()
    x = nd.array(np.random.default_rng(0).random((batch, 1, 28, 28)), dtype="float32")
    y = nd.array(np.arange(batch) % 10)
    net(x)
    trainer = Trainer(net.collect_params(), "sgd", {"learning_rate": 0.05, "momentum": 0.9})
    criterion = loss.SoftmaxCrossEntropyLoss()

    def step() -> None:
        with autograd.record():
            value = criterion(net(x), y).mean()
        value.backward()
        trainer.step(1)

    return step


def their_lenet_step(batch: int) -> Callable[[], Any]:
    """The same in PyTorch."""
    from torch import nn as layers

    net = layers.Sequential(
        layers.Conv2d(1, 6, 5, padding=2), layers.ReLU(), layers.MaxPool2d(2, 2), layers.Conv2d(6, 16, 5), layers.ReLU(),
        layers.MaxPool2d(2, 2), layers.Flatten(), layers.Linear(400, 120), layers.ReLU(), layers.Linear(120, 84), layers.ReLU(),
        layers.Linear(84, 10),
    )
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    criterion = layers.CrossEntropyLoss()
    x, y = torch.rand(batch, 1, 28, 28), torch.arange(batch) % 10

    def step() -> None:
        optimizer.zero_grad()
        criterion(net(x), y).backward()
        optimizer.step()

    return step


def main() -> None:
    """Print the table."""
    rows = small()
    for batch in (16, 64, 256):
        theirs = float("nan") if torch is None else best(their_lenet_step(batch), 3)
        rows.append((f"LeNet training step, {batch} images", best(lenet_step(batch), 3), float("nan"), theirs))
    print("| microseconds | ours | NumPy | PyTorch | ours / NumPy | ours / PyTorch |\n|---|---:|---:|---:|---:|---:|")
    for what, ours, numpy, pytorch in rows:
        figures = [f"{v:.4g}" if v == v else "" for v in (ours, numpy, pytorch, ours / numpy, ours / pytorch)]
        print(f"| {what} | {' | '.join(figures)} |")


if __name__ == "__main__":
    main()
