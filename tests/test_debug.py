"""The HYBRID_DEBUG ladder: every rung prints what it says, for a whole training step, so that the printers can't rot."""

import re

import numpy as np
import pytest

import hybrid
import ndarray as nd
from blocks import Trainer, init, loss, nn
from ndarray import autograd

RUNGS = {  # level -> what is printed from there on
    1: ("key ", "is traced again"),
    2: ("-- traced\ngraph ", "-- after cse"),
    3: ("-- fused groups of hybridsequential:", "stay apart: ", "# "),
    4: ("-- loop IR of launch 0\nkernel ", "for task"),
    5: ("-- LLVM IR of hybridsequential_backward", "define void @", "fma.v"),
    6: ("-- assembly of hybridsequential_backward", "\n\t"),
}


def lenet():
    net = nn.HybridSequential()
    net.add(
        nn.Conv2D(3, 5, padding=2, activation="relu"), nn.MaxPool2D(2, 2), nn.Conv2D(4, 5, activation="relu"),
        nn.MaxPool2D(2, 2), nn.Flatten(), nn.Dense(10, activation="relu"), nn.Dense(10),
    )
    net.initialize(init.Xavier())
    net.hybridize()
    return net


def train(net, steps=2):
    """A step with 3 images and one with 2, so that something is traced again."""
    loss_fn = loss.SoftmaxCrossEntropyLoss()
    loss_fn.hybridize()
    trainer = Trainer(net.collect_params(), "sgd", {"learning_rate": 0.1, "momentum": 0.9})
    random = np.random.default_rng(0)
    for count in (3, 2)[:steps]:
        x, y = nd.array(random.random((count, 1, 28, 28), np.float32)), nd.array(np.arange(count))
        with autograd.record():
            value = loss_fn(net(x), y)
        value.backward()
        trainer.step(count)
    return float(value.mean())


@pytest.fixture(autouse=True)
def folder(tmp_path):
    with nd.settings(HYBRID_CACHE_DIR=str(tmp_path)):
        yield tmp_path


def test_training_at_the_highest_level(capfd, caplog):
    nd.random.seed(0)
    with nd.settings(HYBRID_DEBUG=6):
        shown = train(lenet())
    text = capfd.readouterr().err + caplog.text
    for level, marks in RUNGS.items():
        for mark in marks:
            assert mark in text, f"level {level}: {mark!r}"
    assert re.search(r"-- fused groups[^\n]*\n\s+0 \w+\(.*\) -> ", text)
    assert "test_debug.py:" in text
    nd.random.seed(0)
    assert train(lenet()) == shown  # printing changes nothing
    assert not capfd.readouterr().err


@pytest.mark.parametrize("level", [1, 2, 3, 4, 5])
def test_each_level_shows_its_rungs_and_none_above(level, capfd, caplog):
    with nd.settings(HYBRID_DEBUG=level):
        f = hybrid.hybridize(lambda x: nd.exp(x * 2 + 1).sum())
        f(nd.ones((4, 5)))
        f(nd.ones((4, 5, 2)))
    text = capfd.readouterr().err + caplog.text
    assert "key " in text and "is traced again" in text
    assert level >= 3 or "miss " in text
    for rung, mark in {2: "-- traced", 3: "-- fused groups", 4: "-- loop IR", 5: "-- LLVM IR", 6: "-- assembly"}.items():
        assert (mark in text) == (rung <= level), mark


def test_a_graph_kept_on_disk_is_shown_too(capfd):
    for _ in range(2):
        with nd.settings(HYBRID_DEBUG=4):
            hybrid.hybridize(lambda x: x * 3 + 1)(nd.ones((7,)))
        assert "-- loop IR of launch 0" in capfd.readouterr().err


def test_the_levels_are_checked():
    with pytest.raises(ValueError, match="HYBRID_DEBUG is 7; expected an integer from 0 to 6"), nd.settings(HYBRID_DEBUG=7):
        pass
