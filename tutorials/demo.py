"""The main job: train LeNet on handwritten digits, eagerly and hybridized, export it, and serve it without its code.

Run it with ``make demo`` (or ``python -m tutorials.demo``). Nothing is downloaded: the 1,797 scans of 8x8 pixels ship
inside scikit-learn. Results go to ``build/demo/``.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

import hybrid
import ndarray as nd
from blocks import Trainer, init, loss, lr_scheduler, metric, nn, split_and_load
from blocks.data import ArrayDataset, DataLoader
from ndarray import autograd

ROOT = Path(__file__).resolve().parent.parent
EPOCHS, BATCH, SEED = 15, 32, 3
HELD_OUT = 360
DEVICES = [nd.cpu(0), nd.cpu(1)]


# -- data


def load_digits() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Train images and labels, then held-out ones: float32 (N, 1, 28, 28), int32 (N,).

    The split is fixed and nothing was tuned on its held-out part. Pixels are scaled by the mean and the standard
    deviation of the train images.
    """
    from sklearn.datasets import load_digits as load

    images, labels = load(return_X_y=True)
    images = enlarge(images.reshape(-1, 8, 8).astype(np.float32), 28)[:, None]
    order = np.random.default_rng(7).permutation(len(images))
    train, held_out = order[:-HELD_OUT], order[-HELD_OUT:]
    images = (images - images[train].mean()) / images[train].std()
    labels = labels.astype(np.int32)
    return images[train], labels[train], images[held_out], labels[held_out]


def enlarge(images: np.ndarray, size: int) -> np.ndarray:
    """Bilinear resize of (N, H, W) to (N, size, size)."""
    position = np.clip((np.arange(size) + 0.5) * images.shape[1] / size - 0.5, 0, images.shape[1] - 1)
    low = np.minimum(position.astype(int), images.shape[1] - 2)
    share = (position - low).astype(np.float32)
    rows = images[:, low] * (1 - share)[:, None] + images[:, low + 1] * share[:, None]
    return rows[:, :, low] * (1 - share) + rows[:, :, low + 1] * share


class Crop:
    """A random part, `size` high and wide, of an image (1, H, W)."""

    def __init__(self, size: int, seed: int):
        self.size, self.random = size, np.random.default_rng(seed)

    def __call__(self, image: np.ndarray) -> np.ndarray:
        most = image.shape[1] - self.size
        top, left = self.random.integers(0, most, 2, endpoint=True)
        return image[:, top : top + self.size, left : left + self.size]


def make_loader(images: np.ndarray, labels: np.ndarray, seed: int = SEED) -> DataLoader:
    """Shuffled batches of images moved by up to two pixels at random (their border is repeated)."""
    padded = np.pad(images, ((0, 0), (0, 0), (2, 2), (2, 2)), mode="edge")
    dataset = ArrayDataset(padded, labels).transform_first(Crop(images.shape[2], seed))
    return DataLoader(dataset, batch_size=BATCH, shuffle=True)


# -- the network, and its training as a Gluon user writes it


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


def make_trainer(net: nn.HybridSequential, steps: int) -> Trainer:
    """SGD with momentum and weight decay; the learning rate falls to 0 along a half cosine over `steps` updates."""
    schedule = lr_scheduler.CosineScheduler(steps, base_lr=0.03, final_lr=0.0)
    return Trainer(net.collect_params(), "sgd", {"learning_rate": 0.03, "momentum": 0.9, "wd": 1e-3, "lr_scheduler": schedule})


@dataclass
class Run:
    """A training run: its network, and for each epoch the seconds and the mean loss."""

    net: nn.HybridSequential
    seconds: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)

    @property
    def epoch(self) -> float:
        """Seconds of a usual epoch: the median, without the first, in which programs are compiled."""
        return float(np.median(self.seconds[1:] or self.seconds))


def train(name: str, images: np.ndarray, labels: np.ndarray, epochs: int, hybridized: bool, seed: int = SEED) -> Run:
    """Train a new LeNet. Equal seeds mean equal first weights and equal batches, hybridized or not."""
    nd.random.seed(seed)
    loader, net = make_loader(images, labels, seed), lenet()
    net.initialize(init.Xavier())
    if hybridized:
        net.hybridize()  # the one line of difference
    trainer, loss_fn, run = make_trainer(net, epochs * len(loader)), loss.SoftmaxCrossEntropyLoss(), Run(net)
    for _ in bar(epochs, name, run):
        begin, total, count = time.perf_counter(), 0.0, 0
        for x, y in loader:
            with autograd.record():
                l = loss_fn(net(x), y)
            l.backward()
            trainer.step(x.shape[0])
            total, count = total + float(l.sum()), count + x.shape[0]
        run.seconds.append(time.perf_counter() - begin)
        run.losses.append(total / count)
    return run


def train_parallel(images: np.ndarray, labels: np.ndarray, devices: Sequence[Any], epochs: int) -> nn.HybridSequential:
    """Train a new LeNet on several devices: each takes a part of every batch, and the Trainer sums their gradients.

    In float64, so that rounding, which training amplifies, can't hide a mistake.
    """
    nd.random.seed(SEED)
    loader, net = make_loader(images, labels), lenet()
    net.cast("float64")
    net.initialize(init.Xavier(), device=devices)
    net.hybridize()
    trainer, loss_fn = make_trainer(net, epochs * len(loader)), loss.SoftmaxCrossEntropyLoss()
    for _ in range(epochs):
        for x, y in loader:
            xs = split_and_load(x.astype("float64"), devices, even_split=False)
            ys = split_and_load(y, devices, even_split=False)
            with autograd.record():
                losses = [loss_fn(net(part), answers) for part, answers in zip(xs, ys, strict=True)]
            autograd.backward(losses)
            trainer.step(x.shape[0])
    return net


def bar(epochs: int, name: str, run: Run) -> Iterator[int]:
    """Epoch numbers, with a progress bar; where the output is no terminal, only the finished bar is written."""
    terminal = sys.stdout.isatty()
    with tqdm(total=epochs, desc=f"{name:>10}", unit="epoch", ncols=90, file=sys.stdout, mininterval=0.1 if terminal else 1e9,
              delay=0 if terminal else 1e-9) as progress:
        for epoch in range(epochs):
            yield epoch
            progress.set_postfix_str(f"loss {run.losses[-1]:.4f}", refresh=False)
            progress.update()


def accuracy(net: nn.HybridSequential, images: np.ndarray, labels: np.ndarray) -> float:
    """Share of right answers."""
    right = metric.Accuracy()
    right.update(nd.array(labels), net(nd.array(images)))
    return right.get()[1]


# -- comparisons


def difference(a: nn.HybridSequential, b: nn.HybridSequential) -> float:
    """The largest difference of a parameter of `a` from that of `b`, on any device."""
    pairs = zip(a.collect_params().values(), b.collect_params().values(), strict=True)
    return max(float(np.abs(x.asnumpy() - y.asnumpy()).max()) for p, q in pairs for x in p.list_data() for y in q.list_data())


def serve(net: nn.HybridSequential, images: np.ndarray, folder: Path) -> tuple[np.ndarray, dict[str, Any]]:
    """Export the net, and let a fresh process, which runs `tutorials/serve.py`, compute its scores."""
    net.export(folder / "lenet", nd.array(images))
    np.save(folder / "held-out.npy", images)
    done = subprocess.run([sys.executable, "-m", "tutorials.serve", str(folder.resolve())], cwd=ROOT,
                          stdout=subprocess.PIPE, text=True, check=True)
    return np.load(folder / "served.npy"), json.loads(done.stdout)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("build/demo"), help="folder for results")
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="epochs of both trainings")
    options = parser.parse_args()
    folder: Path = options.out
    folder.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(folder / "cache", ignore_errors=True)
    os.environ["HYBRID_CACHE_DIR"] = str((folder / "cache").resolve())  # an empty one, so that compiling is measured
    import jit.backend as compiler

    x_train, y_train, x_test, y_test = load_digits()
    print(f"Handwritten digits: {len(x_train):,} to train on, {len(x_test)} held out.\n")

    eager = train("eager", x_train, y_train, options.epochs, hybridized=False)
    compiled = compiler.backend.statistics
    seconds, kernels = compiled.seconds, compiled.kernels
    hybridized = train("hybridized", x_train, y_train, options.epochs, hybridized=True)
    seconds, kernels = compiled.seconds - seconds, compiled.kernels - kernels
    good = True
    for name, run in (("eager", eager), ("hybridized", hybridized)):
        share = accuracy(run.net, x_test, y_test)
        good &= share >= 0.98
        print(f"{name:>10}: {share:.2%} of the held-out digits are right, {round((1 - share) * len(x_test))} wrong")
    print(f"\nAn epoch takes {eager.epoch * 1e3:.0f} ms eagerly and {hybridized.epoch * 1e3:.0f} ms hybridized: "
          f"{eager.epoch / hybridized.epoch:.1f} times as fast.")
    print(f"The first hybridized epoch took {(hybridized.seconds[0] - hybridized.epoch) * 1e3:.0f} ms more, of which "
          f"{seconds * 1e3:.0f} ms went to compiling\n{kernels} kernels (forward and backward, for all batch sizes).")

    few = min(3, options.epochs)
    one, two = (train_parallel(x_train, y_train, devices, few) for devices in (DEVICES[:1], DEVICES))
    apart = difference(one, two)
    good &= apart < 1e-9
    print(f"\nTrained data-parallel on {DEVICES[0]} and {DEVICES[1]} for {few} epochs, in float64, the parameters become "
          f"those of one device:\nthe largest difference is {apart:.1e}.")

    net, images = hybridized.net, nd.array(x_test)
    explanation = net.explain(images)
    (folder / "explain.txt").write_text(f"{explanation}\n")
    program = explanation.programs[0]
    print(f"\nPredicting {len(images)} digits is one native call: {len(program.kernels)} kernels for {program.equations} "
          f"operations.\n{str(program.memory).capitalize()}.\nMore in {folder / 'explain.txt'}, which is net.explain(x).")

    scores = net(images).asnumpy()
    served, times = serve(net, x_test, folder)
    same = bool((served.argmax(axis=1) == scores.argmax(axis=1)).all())
    good &= same and not times["model code"]
    apart = float(np.abs(served - scores).max())
    compiled_anew = times["kernels compiled"]
    print(f"\nA fresh process without model code loaded the export in {times['load'] * 1e3:.0f} ms and answered after another "
          f"{times['first call'] * 1e3:.0f} ms,\nwith {compiled_anew or 'no'} kernels compiled anew: "
          f"{'the same' if same else 'NOT THE SAME'} answers for all {len(served)} held-out digits "
          f"({f'scores differ by {apart:.1e} at most' if apart else 'scores agree bit for bit'}).")

    from . import pictures

    pictures.draw_digits(x_test, scores, y_test, folder / "digits.png")
    pictures.draw_program(hybrid.load(folder / "lenet").graph, program, folder / "graph.png", f"LeNet, {len(images)} digits")
    print(f"\nPictures: {folder / 'digits.png'} and {folder / 'graph.png'}")
    if not good:
        print("demo FAILED: see above; at least 98% right, the same parameters and the same answers are wanted", file=sys.stderr)
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main())
