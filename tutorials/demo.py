"""The main job: train LeNet on handwritten digits, eagerly and hybridized, export it, and serve it without its code.

Run it with ``make demo`` (or ``python -m tutorials.demo``). Nothing is downloaded: the 1,797 scans of 8x8 pixels ship
inside scikit-learn. Results go to ``build/demo/``.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from tqdm import tqdm

import hybrid
import ndarray as nd
from blocks import Trainer, init, loss, metric, nn
from blocks.data import ArrayDataset, DataLoader
from ndarray import autograd

EPOCHS, BATCH = 12, 64


def load_digits() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Train images and labels, then held-out ones: float32 (N, 1, 28, 28) in 0..1, int32 (N,)."""
    from sklearn.datasets import load_digits as load

    images, labels = load(return_X_y=True)
    images = images.reshape(-1, 8, 8).astype(np.float32) / 16
    images = enlarge(images, 28)[:, None]
    order = np.random.default_rng(7).permutation(len(images))
    train, test = order[:-360], order[-360:]
    labels = labels.astype(np.int32)
    return images[train], labels[train], images[test], labels[test]


def enlarge(images: np.ndarray, size: int) -> np.ndarray:
    """Bilinear resize of (N, H, W) to (N, size, size)."""
    position = np.clip((np.arange(size) + 0.5) * images.shape[1] / size - 0.5, 0, images.shape[1] - 1)
    low = np.minimum(position.astype(int), images.shape[1] - 2)
    share = (position - low).astype(np.float32)
    rows = images[:, low] * (1 - share)[:, None] + images[:, low + 1] * share[:, None]
    return rows[:, :, low] * (1 - share) + rows[:, :, low + 1] * share


def lenet() -> nn.HybridSequential:
    """LeNet-5 with ReLU and max pooling."""
    net = nn.HybridSequential()
    net.add(
        nn.Conv2D(6, 5, padding=2, activation="relu"), nn.MaxPool2D(2, 2),
        nn.Conv2D(16, 5, activation="relu"), nn.MaxPool2D(2, 2),
        nn.Flatten(),
        nn.Dense(120, activation="relu"), nn.Dense(84, activation="relu"), nn.Dense(10),
    )
    return net


def train(net: nn.HybridSequential, loader: DataLoader, name: str, epochs: int = EPOCHS) -> list[float]:
    """The training loop as a Gluon user writes it; returns the seconds of each epoch."""
    trainer = Trainer(net.collect_params(), "sgd", {"learning_rate": 0.1, "momentum": 0.9})
    loss_fn = loss.SoftmaxCrossEntropyLoss()
    seconds = []
    for _ in tqdm(range(epochs), desc=f"{name:>10}", unit="epoch"):
        begin = time.perf_counter()
        for x, y in loader:
            with autograd.record():
                l = loss_fn(net(x), y)  # noqa: E741
            l.backward()
            trainer.step(x.shape[0])
        seconds.append(time.perf_counter() - begin)
    return seconds


def accuracy(net: nn.HybridSequential, images: np.ndarray, labels: np.ndarray) -> float:
    """Share of right answers."""
    right = metric.Accuracy()
    right.update(nd.array(labels), net(nd.array(images)))
    return right.get()[1]


def serve(folder: Path) -> int:
    """What the fresh process does: no model code, only the exported files. Prints its answers as JSON."""
    net = hybrid.load(folder / "lenet")
    images = np.load(folder / "held-out.npy")
    print(json.dumps(net(nd.array(images)).asnumpy().argmax(axis=1).tolist()))
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("build/demo"), help="folder for results")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        return serve(options.out)
    options.out.mkdir(parents=True, exist_ok=True)

    x_train, y_train, x_test, y_test = load_digits()
    loader = DataLoader(ArrayDataset(x_train, y_train), batch_size=BATCH, shuffle=True, last_batch="keep")
    times, nets = {}, {}
    for name in ("eager", "hybridized"):
        nd.random.seed(3)
        np.random.seed(3)
        net = lenet()
        net.initialize(init.Xavier())
        if name == "hybridized":
            net.hybridize()  # the one line of difference
            first = time.perf_counter()
            net(nd.array(x_train[:BATCH]))
            compile_seconds = time.perf_counter() - first
        times[name], nets[name] = train(net, loader, name), net
        print(f"{name:>10}: accuracy on {len(y_test)} held-out digits {accuracy(net, x_test, y_test):.2%}, "
              f"{np.median(times[name]) * 1e3:.0f} ms an epoch")
    net = nets["hybridized"]
    print(f"hybridized is {np.median(times['eager']) / np.median(times['hybridized']):.1f} times as fast an epoch; "
          f"its first call took {compile_seconds * 1e3:.0f} ms")
    explanation = net.explain(nd.array(x_test))
    print(explanation)
    (options.out / "explain.txt").write_text(str(explanation))

    net.export(options.out / "lenet")
    np.save(options.out / "held-out.npy", x_test)
    answers = net(nd.array(x_test)).asnumpy().argmax(axis=1)
    fresh = subprocess.run([sys.executable, "-m", "tutorials.demo", "--serve", "--out", str(options.out)],
                           capture_output=True, text=True, check=True)
    served = np.array(json.loads(fresh.stdout))
    same = bool((served == answers).all())
    print(f"a fresh process without model code loaded the export and gave {'the same' if same else 'OTHER'} "
          f"answers for all {len(served)} held-out digits")

    from . import pictures

    print("pictures:", pictures.draw_digits(x_test, answers, y_test, options.out / "digits.png"),
          pictures.draw_graph(net, nd.array(x_test), options.out / "graph.png"))
    good = accuracy(net, x_test, y_test)
    if good < 0.98 or not same:
        print(f"demo FAILED: accuracy {good:.2%} (at least 98% wanted), same answers: {same}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
