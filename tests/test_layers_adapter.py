"""The peer benchmark's adapter: operations that no public workload uses, against PyTorch (skipped without the suite)."""

import sys
from pathlib import Path

import numpy as np
import pytest

import ndarray as nd
from hybrid import hybridize

torch = pytest.importorskip("torch")
ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "benchmarks"), str(ROOT.parent / "shared" / "peers")]
pytest.importorskip("models")
import fw_ours  # noqa: E402
import fw_torch  # noqa: E402


def draw(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


CALLS = {
    "conv_transpose2d": (lambda F, x, w, b: F.conv_transpose2d(x, w, b, 2), [draw(2, 4, 5, 5), draw(4, 3, 2, 2), draw(3)]),
    "causal_conv1d": (lambda F, x, w, b: F.causal_conv1d(x, w, b, 2), [draw(2, 4, 9), draw(6, 4, 3), draw(6)]),
    "concat": (lambda F, x, y: F.concat([x, y]), [draw(2, 3), draw(2, 4)]),
    "tokens": (lambda F, x: F.tokens(x), [draw(2, 3, 4, 5)]),
    "prepend": (lambda F, x, v: F.prepend(x, v), [draw(2, 3, 4), draw(4)]),
    "first": (lambda F, x: F.first(x), [draw(2, 3, 4)]),
    "row": (lambda F, x: F.row(x, 1), [draw(2, 3)]),
    "channels": (lambda F, x: F.channels_first(F.channels_last(x) * 2), [draw(2, 3, 4, 5)]),
    "dot_interaction": (lambda F, x, y, z: F.dot_interaction(x, [x, y, z]), [draw(3, 4), draw(3, 4, seed=1), draw(3, 4, seed=2)]),
    "relu6": (lambda F, x: F.relu6(x), [draw(3, 4) * 5]),
    "gru": (lambda F, x, *w: F.gru(x, [w], 3), [draw(4, 2, 5), draw(9, 5), draw(9, 3), draw(9), draw(9)]),
    "causal attention": (lambda F, x: F.attention(x, 2, True), [draw(2, 5, 24)]),
}


@pytest.mark.parametrize("name", CALLS)
def test_operations(name):
    function, arrays = CALLS[name]
    ours, theirs = object.__new__(fw_ours.Net), fw_torch.Net.__new__(fw_torch.Net)
    fw_ours.HybridBlock.__init__(ours)
    torch.nn.Module.__init__(theirs)
    compiled = hybridize(lambda *xs: function(ours, *xs))
    expected = function(theirs, *[torch.tensor(a) for a in arrays]).numpy()
    np.testing.assert_allclose(compiled(*[nd.array(a) for a in arrays]).asnumpy(), expected, rtol=1e-4, atol=1e-5)
